/* The member: reads those partitions of a stream subscription that the group gives it, and commits
 * after each batch. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "system/cluster/workload.h"

#define OPEN_TIMEOUT_MS   2000
#define FETCH_TIMEOUT_MS  100
#define COMMIT_TIMEOUT_MS 2000
#define PAUSE_MS          100

static void on_assignment(struct ferry_consumer *consumer, int32_t partition, bool given, void *arg)
{
    const struct workload *w = arg;
    (void)consumer;
    fprintf(w->history, "%c %" PRId64 " %" PRId32 "\n", given ? 'g' : 'x', clock_monotonic_us(),
            partition);
}

static struct ferry_consumer *join(struct workload *w, struct ferry_client *client)
{
    struct ferry_join_spec spec = {.member = w->name, .session_ms = (int)w->session_ms};
    struct ferry_consumer *consumer = NULL;
    while (!*w->stopped) {
        enum ferry_err err = ferry_consumer_join(&consumer, client, w->topics[0], w->subscription,
                                                 FERRY_FROM_START, &spec, OPEN_TIMEOUT_MS);
        if (err == FERRY_OK) {
            ferry_consumer_on_assignment(consumer, on_assignment, w);
            fprintf(w->history, "o %" PRId64 " %s %s\n", clock_monotonic_us(), w->topics[0],
                    w->subscription);
            return consumer;
        }
        workload_note_error(w, err);
        (void)poll(NULL, 0, PAUSE_MS);
    }
    return NULL;
}

static enum ferry_err commit(const struct workload *w, struct ferry_consumer *consumer,
                             struct ferry_batch *batch)
{
    int32_t partition = ferry_batch_partition(batch);
    int64_t next = ferry_batch_next_offset(batch);
    fprintf(w->history, "b %" PRId64 " %" PRId32 " %" PRId64 "\n", clock_monotonic_us(), partition,
            next);
    enum ferry_err err = ferry_consumer_commit(consumer, partition, next, COMMIT_TIMEOUT_MS);
    if (err == FERRY_OK) {
        fprintf(w->history, "c %" PRId64 " %" PRId32 " %" PRId64 "\n", clock_monotonic_us(),
                partition, next);
    } else {
        workload_note_error(w, err);
    }
    return err;
}

/* Until it is stopped or, as FERRY_ERR_MEMBER_FENCED, thrown out. */
static void read_on(struct workload *w, struct ferry_consumer *consumer)
{
    while (!*w->stopped) {
        struct ferry_batch *batch = NULL;
        enum ferry_err err = ferry_consumer_fetch(consumer, FETCH_TIMEOUT_MS, &batch);
        if (err == FERRY_OK) {
            for (size_t i = 0; i < ferry_batch_count(batch); i++) {
                struct ferry_record r;
                ferry_batch_record(batch, i, &r);
                workload_note_record(w, NULL, &r);
            }
            err = commit(w, consumer, batch);
            ferry_batch_free(&batch);
            continue; /* A commit that is fenced is of one partition, which has gone. */
        }
        if (err == FERRY_ERR_MEMBER_FENCED) {
            workload_note_error(w, err);
            return;
        }
        if (err != FERRY_ERR_TIMEOUT) {
            workload_note_error(w, err);
            (void)poll(NULL, 0, PAUSE_MS);
        }
    }
}

int member_run(struct workload *w)
{
    struct ferry_client *client = workload_open(w, NULL);
    if (client == NULL || w->subscription == NULL) {
        return EXIT_FAILURE;
    }
    while (!*w->stopped) {
        struct ferry_consumer *consumer = join(w, client);
        if (consumer != NULL) {
            read_on(w, consumer);
        }
        ferry_consumer_close(&consumer);
    }
    ferry_close(&client, 0);
    return EXIT_SUCCESS;
}
