/* queue: a work queue. Each job goes to one worker, under a lease; it is done when it is acked,
 * comes again when it fails, and is a dead letter when it never can succeed.
 *
 *   queue FOLDER      300 jobs, three workers; a tenth fails at first, some are hopeless */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_broker.h"

#define TOPIC   "jobs"
#define WORK    "work"
#define JOBS    300
#define WORKERS 3
#define WAIT_MS 10000

struct tally {
    int tries[JOBS]; /* How often each was handed out. */
    int done, failed, hopeless;
    int by_worker[WORKERS];
};

static int complain(const char *what, enum ferry_err err, const char *detail)
{
    fprintf(stderr, "queue: %s: %s: %s\n", what, ferry_err_name(err),
            detail[0] != '\0' ? detail : ferry_err_text(err));
    return EXIT_FAILURE;
}

/* What is acked is dropped: with one subscription the topic is a classic work queue. */
static enum ferry_err make_queue(struct ferry_client *client)
{
    const struct ferry_topic_spec topic = {.name = TOPIC, .partitions = 2, .retention_acked = true};
    const struct ferry_subscription_spec work = {.mode = FERRY_MODE_QUEUE,
                                                 .from = FERRY_FROM_START,
                                                 .lease_ms = 5000,
                                                 .max_deliveries = 5,
                                                 .backoff_min_ms = 50,
                                                 .backoff_max_ms = 1000};
    enum ferry_err err = ferry_topic_create(client, &topic, WAIT_MS);
    return err == FERRY_OK ? ferry_subscription_make(client, TOPIC, WORK, &work, WAIT_MS) : err;
}

static enum ferry_err send_jobs(struct ferry_client *client)
{
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < JOBS && err == FERRY_OK; i++) {
        char text[32];
        int length = snprintf(text, sizeof(text), "%d", i);
        struct ferry_message message = {.topic = TOPIC,
                                        .partition = FERRY_PARTITION_ANY,
                                        .payload = text,
                                        .payload_bytes = (size_t)length};
        err = ferry_send(client, &message);
    }
    return err == FERRY_OK ? ferry_flush(client, WAIT_MS) : err;
}

static int number_of(const struct ferry_record *record)
{
    char text[32] = "";
    if (record->payload_bytes < sizeof(text)) {
        memcpy(text, record->payload, record->payload_bytes);
    }
    int number = atoi(text);
    return number >= 0 && number < JOBS ? number : 0;
}

/* One job: every tenth fails when it is tried first, every fiftieth can never be done. */
static enum ferry_err work_on(struct ferry_receiver *worker, struct ferry_delivery *delivery,
                              struct tally *tally)
{
    int number = number_of(&delivery->record);
    tally->tries[number]++;
    if (number % 50 == 7) {
        tally->hopeless++;
        return ferry_settle(worker, delivery, FERRY_REJECT, -1, "no such customer", NULL);
    }
    if (number % 10 == 0 && delivery->failed == 0) {
        tally->failed++;
        return ferry_nack(worker, delivery, -1, "the printer is out of paper");
    }
    tally->done++;
    return ferry_ack(worker, delivery);
}

/* The workers take turns here; they could as well be processes on several machines. */
static enum ferry_err work(struct ferry_receiver *workers[WORKERS], struct tally *tally)
{
    enum ferry_err err = FERRY_OK;
    for (int turn = 0; err == FERRY_OK && tally->done + tally->hopeless < JOBS; turn++) {
        enum { SOME = 10, A_MOMENT_MS = 20 };
        struct ferry_delivery deliveries[SOME];
        size_t count = 0;
        int i = turn % WORKERS;
        err = ferry_receive(workers[i], A_MOMENT_MS, deliveries, SOME, &count);
        err = err == FERRY_ERR_TIMEOUT ? FERRY_OK : err;
        for (size_t j = 0; j < count && err == FERRY_OK; j++) {
            err = work_on(workers[i], &deliveries[j], tally);
            tally->by_worker[i]++;
        }
    }
    for (int i = 0; i < WORKERS && err == FERRY_OK; i++) {
        uint64_t failed = 0;
        err =
            ferry_receiver_flush(workers[i], WAIT_MS, &failed); /* Acked: on disk, never undone. */
        err = err == FERRY_OK && failed > 0 ? FERRY_ERR_LEASE_EXPIRED : err;
    }
    return err;
}

static enum ferry_err run_workers(struct ferry_client *client, struct tally *tally)
{
    static const char *const names[WORKERS] = {"ann", "ben", "cem"};
    struct ferry_receiver *workers[WORKERS] = {NULL};
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < WORKERS && err == FERRY_OK; i++) {
        const struct ferry_receiver_spec spec = {.member = names[i], .batch_max = 10};
        err = ferry_receiver_open(&workers[i], client, TOPIC, WORK, &spec, WAIT_MS);
    }
    if (err == FERRY_OK) {
        err = work(workers, tally);
    }
    for (int i = 0; i < WORKERS; i++) {
        ferry_receiver_close(&workers[i], WAIT_MS);
    }
    return err;
}

/* What the broker says of it in the end. */
static enum ferry_err ask(struct ferry_client *client, uint64_t *acked, size_t *dead)
{
    struct ferry_subscription_info *info = NULL;
    struct ferry_dead_place place = {.partition = 0};
    struct ferry_dead *letters = NULL;
    bool more;
    enum ferry_err err = ferry_subscription_info(client, TOPIC, WORK, WAIT_MS, &info);
    if (err != FERRY_OK) {
        return err;
    }
    for (size_t i = 0; i < info->partition_count; i++) {
        *acked += info->partitions[i].acked;
    }
    ferry_subscription_info_free(&info);
    err = ferry_dead_list(client, TOPIC, WORK, NULL, &place, JOBS, WAIT_MS, &letters, dead, &more);
    for (size_t i = 0; err == FERRY_OK && i < *dead; i++) {
        printf("dead letter %d/%" PRIu64 ": %s\n", letters[i].partition, letters[i].number,
               letters[i].reason);
    }
    ferry_dead_free(&letters);
    return err;
}

static int verdict(const struct tally *tally, uint64_t acked, size_t dead)
{
    int again = 0;
    for (int i = 0; i < JOBS; i++) {
        again += tally->tries[i] > 1;
    }
    printf("jobs %d, acked %" PRIu64 ", dead letters %zu, tried again %d\n", JOBS, acked, dead,
           again);
    printf("by worker: ann %d, ben %d, cem %d\n", tally->by_worker[0], tally->by_worker[1],
           tally->by_worker[2]);
    bool good = acked + dead == JOBS && acked == (uint64_t)tally->done &&
                dead == (size_t)tally->hopeless && again == tally->failed;
    puts(good ? "good: every job was done once, or is a dead letter" : "BAD: the numbers differ");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int use(struct ferry_broker *broker)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    struct tally tally = {.done = 0};
    uint64_t acked = 0;
    size_t dead = 0;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_broker_conf(broker, conf);
    }
    if (err == FERRY_OK) {
        err = ferry_open(&client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf); /* NULL once the client has taken it. */
    if (err != FERRY_OK) {
        return complain("client", err, detail);
    }
    err = make_queue(client);
    if (err == FERRY_OK) {
        err = send_jobs(client);
    }
    if (err == FERRY_OK) {
        err = run_workers(client, &tally);
    }
    if (err == FERRY_OK) {
        err = ask(client, &acked, &dead);
    }
    ferry_error_detail(client, detail, sizeof(detail));
    ferry_close(&client, WAIT_MS);
    return err != FERRY_OK ? complain(TOPIC, err, detail) : verdict(&tally, acked, dead);
}

int main(int argc, char **argv)
{
    char data[1024], detail[512] = "";
    if (argc != 2) {
        fputs("usage: queue FOLDER\n", stderr);
        return 2;
    }
    (void)snprintf(data, sizeof(data), "node.data=%s", argv[1]);
    const char *options[] = {data};
    struct ferry_broker *broker = NULL;
    enum ferry_err err = ferry_broker_start(&broker, options, 1, detail, sizeof(detail));
    if (err != FERRY_OK) {
        return complain(argv[1], err, detail);
    }
    int code = use(broker);
    ferry_broker_stop(&broker); /* After its clients are closed. */
    return code;
}
