/* The consumer: reads one topic, notes each record and each commit, and goes on through errors. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "system/cluster/workload.h"

#define OPEN_TIMEOUT_MS   2000
#define FETCH_TIMEOUT_MS  100
#define COMMIT_TIMEOUT_MS 2000
#define PARTITIONS_MAX    64

static void note_batch(const struct workload *w, struct ferry_batch *batch)
{
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record r;
        ferry_batch_record(batch, i, &r);
        workload_note_record(w, NULL, &r);
    }
}

static void commit(const struct workload *w, struct ferry_consumer *consumer,
                   const struct ferry_batch *batch)
{
    int32_t partition = ferry_batch_partition(batch);
    int64_t next = ferry_batch_next_offset(batch);
    enum ferry_err err = ferry_consumer_commit(consumer, partition, next, COMMIT_TIMEOUT_MS);
    if (err == FERRY_OK) {
        fprintf(w->history, "c %" PRId64 " %" PRId32 " %" PRId64 "\n", clock_monotonic_us(),
                partition, next);
    } else {
        workload_note_error(w, err);
    }
}

/* Opens the consumer however long that takes; NULL when it is stopped meanwhile. */
static struct ferry_consumer *open_consumer(const struct workload *w, struct ferry_client *client)
{
    struct ferry_consumer *consumer = NULL;
    while (consumer == NULL && !*w->stopped) {
        enum ferry_err err = ferry_consumer_open(&consumer, client, w->topics[0], w->subscription,
                                                 FERRY_FROM_START, OPEN_TIMEOUT_MS);
        if (err != FERRY_OK) {
            consumer = NULL;
            workload_note_error(w, err);
        }
    }
    if (consumer != NULL) {
        fprintf(w->history, "o %" PRId64 " %s %s\n", clock_monotonic_us(), w->topics[0],
                w->subscription == NULL ? "-" : w->subscription);
    }
    return consumer;
}

/* Where each partition ends, once it is to be read no further; asked once, when nobody sends any
 * more. A partition that nobody can tell about is asked for again. */
struct ends {
    bool known;
    int64_t offset[PARTITIONS_MAX];
};

static void ask_for_ends(const struct workload *w, struct ferry_client *client, struct ends *ends)
{
    struct ferry_topic_info *info = NULL;
    enum ferry_err err = ferry_topic_info(client, w->topics[0], OPEN_TIMEOUT_MS, &info);
    if (err != FERRY_OK) {
        workload_note_error(w, err);
        return;
    }
    ends->known = info->partition_count <= PARTITIONS_MAX;
    for (size_t i = 0; ends->known && i < info->partition_count; i++) {
        ends->known = info->partitions[i].err == FERRY_OK;
        ends->offset[i] = info->partitions[i].end_offset;
    }
    ferry_topic_info_free(&info);
}

static bool is_at_end(const struct workload *w, struct ferry_client *client,
                      const struct ferry_consumer *consumer, struct ends *ends)
{
    if (!*w->stopped && !w->stop_at_end) {
        return false;
    }
    if (!ends->known) {
        ask_for_ends(w, client, ends);
    }
    for (int32_t i = 0; ends->known && i < ferry_consumer_partitions(consumer); i++) {
        if (ferry_consumer_position(consumer, i) < ends->offset[i]) {
            return false;
        }
    }
    return ends->known;
}

static void read_to_the_end(struct workload *w, struct ferry_client *client,
                            struct ferry_consumer *consumer)
{
    struct ends ends = {.known = false};
    while (!is_at_end(w, client, consumer, &ends)) {
        struct ferry_batch *batch = NULL;
        enum ferry_err err = ferry_consumer_fetch(consumer, FETCH_TIMEOUT_MS, &batch);
        if (err != FERRY_OK) {
            if (err != FERRY_ERR_TIMEOUT) {
                workload_note_error(w, err);
                (void)poll(NULL, 0, FETCH_TIMEOUT_MS);
            }
            continue;
        }
        note_batch(w, batch);
        if (w->subscription != NULL) {
            commit(w, consumer, batch);
        }
        ferry_batch_free(&batch);
    }
    fprintf(w->history, "z %" PRId64 "\n", clock_monotonic_us());
}

int consumer_run(struct workload *w)
{
    struct ferry_client *client = workload_open(w, NULL);
    if (client == NULL) {
        return EXIT_FAILURE;
    }
    struct ferry_consumer *consumer = open_consumer(w, client);
    if (consumer != NULL) {
        read_to_the_end(w, client, consumer);
    }
    ferry_consumer_close(&consumer);
    ferry_close(&client, 0);
    return EXIT_SUCCESS;
}
