/* cmd_bench: bench produce, consume and e2e. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/prng.h"
#include "cli/bench.h"
#include "cli/format.h"

#define CONSUME_RECORDS_DEFAULT 1000000
#define E2E_RATE_DEFAULT        1000

/* What every bench with a broker begins and ends with. */
struct bench {
    struct cli *cli;
    struct bench_payloads payloads;
    struct bench_topic topic;
    struct bench_load load;
};

static enum cli_exit bench_begin(struct bench *b, struct cli *cli)
{
    *b = (struct bench){.cli = cli};
    enum cli_exit code = bench_payloads_init(cli, &b->payloads);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = bench_load_init(&b->load, cli);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    b->load.payloads = &b->payloads;
    b->load.topic = &b->topic;
    code = cli_connect(cli, bench_load_on_report, &b->load);
    return code == CLI_EXIT_OK ? bench_topic_open(cli, &b->topic) : code;
}

static enum cli_exit bench_end(struct bench *b, enum cli_exit code)
{
    if (b->cli->client != NULL) {
        code = bench_topic_close(b->cli, &b->topic, code);
    }
    /* Reports of what an error left on its way would be counted in freed memory. */
    ferry_close(&b->cli->client, 0);
    bench_load_fini(&b->load);
    bench_payloads_fini(&b->payloads);
    return code;
}

/* ---- Produce -------------------------------------------------------------------------------- */

enum cli_exit cmd_bench_produce(struct cli *cli)
{
    struct bench b;
    enum cli_exit code = bench_begin(&b, cli);
    if (code == CLI_EXIT_OK) {
        enum ferry_err err = bench_load_run(&b.load);
        bench_report(cli, &(struct bench_result){.what = "produce",
                                                 .measured = "intended send to stored",
                                                 .records = b.load.stored,
                                                 .bytes = b.load.bytes,
                                                 .elapsed_us = b.load.ended_us - b.load.began_us,
                                                 .load = &b.load,
                                                 .topic = &b.topic,
                                                 .latency = &b.load.latency});
        code = err != FERRY_OK ? cli_fail(cli, err, b.topic.name, NULL) : CLI_EXIT_OK;
    }
    return bench_end(&b, code);
}

/* ---- Consume -------------------------------------------------------------------------------- */

struct drain {
    int64_t records, bytes, elapsed_us;
    uint64_t touched; /* Of every payload a byte, so that none is read by count alone. */
};

static void drain_batch(struct drain *d, struct ferry_batch *batch)
{
    size_t count = ferry_batch_count(batch);
    for (size_t i = 0; i < count; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        d->bytes += (int64_t)record.payload_bytes;
        if (record.payload_bytes > 0) {
            d->touched += ((const uint8_t *)record.payload)[record.payload_bytes - 1];
        }
    }
    d->records += (int64_t)count;
}

/* How many records the topic holds. */
static enum ferry_err count_records(struct cli *cli, const char *topic, int64_t *records)
{
    struct ferry_topic_info *info = NULL;
    enum ferry_err err = ferry_topic_info(cli->client, topic, cli->timeout_ms, &info);
    *records = 0;
    for (size_t i = 0; err == FERRY_OK && i < info->partition_count; i++) {
        err = info->partitions[i].err;
        *records += info->partitions[i].end_offset - info->partitions[i].start_offset;
    }
    ferry_topic_info_free(&info);
    return err;
}

static enum ferry_err drain_topic(struct cli *cli, const char *topic, int64_t wanted,
                                  struct drain *d)
{
    struct ferry_consumer *consumer = NULL;
    int64_t began_us = clock_monotonic_us();
    int64_t last_us = began_us;
    enum ferry_err err =
        ferry_consumer_open(&consumer, cli->client, topic, NULL, FERRY_FROM_START, cli->timeout_ms);
    while (err == FERRY_OK && d->records < wanted && !cli_is_interrupted(cli)) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(consumer, CLI_TURN_MS, &batch);
        if (err == FERRY_OK) {
            drain_batch(d, batch);
            ferry_batch_free(&batch);
            last_us = clock_monotonic_us();
        } else if (err == FERRY_ERR_TIMEOUT &&
                   clock_monotonic_us() - last_us < (int64_t)cli->timeout_ms * 1000) {
            err = FERRY_OK;
        }
    }
    d->elapsed_us = last_us - began_us;
    ferry_consumer_close(&consumer);
    return err;
}

/* Fills the topic when it is ours; it is read in full either way, or up to --records. */
static enum ferry_err prepare(struct bench *b, int64_t *wanted)
{
    if (b->topic.ours) {
        b->load.records_max = args_number(b->cli->args, OPT_RECORDS, CONSUME_RECORDS_DEFAULT);
        b->load.seconds_max = INT64_MAX;
        enum ferry_err err = bench_load_run(&b->load);
        *wanted = b->load.stored;
        return err;
    }
    enum ferry_err err = count_records(b->cli, b->topic.name, wanted);
    int64_t most = args_number(b->cli->args, OPT_RECORDS, INT64_MAX);
    *wanted = most < *wanted ? most : *wanted;
    return err;
}

enum cli_exit cmd_bench_consume(struct cli *cli)
{
    struct bench b;
    enum cli_exit code = bench_begin(&b, cli);
    if (code == CLI_EXIT_OK) {
        struct drain d = {.records = 0};
        int64_t wanted = 0;
        enum ferry_err err = prepare(&b, &wanted);
        if (err == FERRY_OK) {
            err = drain_topic(cli, b.topic.name, wanted, &d);
        }
        bench_report(cli, &(struct bench_result){.what = "consume",
                                                 .records = d.records,
                                                 .bytes = d.bytes,
                                                 .elapsed_us = d.elapsed_us,
                                                 .topic = &b.topic});
        code = err != FERRY_OK ? cli_fail(cli, err, b.topic.name, NULL) : CLI_EXIT_OK;
    }
    return bench_end(&b, code);
}

/* ---- End to end ----------------------------------------------------------------------------- */

/* The first bytes of a payload: which run it is of, and when it was meant to be sent. */
#define STAMP_BYTES 16

struct receiver {
    struct cli *cli;
    struct ferry_consumer *consumer;
    uint64_t run;
    atomic_llong wanted;      /* Records to wait for; INT64_MAX while sending. */
    struct histogram latency; /* Owned. The thread's own until it is joined. */
    int64_t received, bytes;
    enum ferry_err err;
};

struct stamping {
    uint64_t run;
    uint8_t *payload; /* Borrowed: ferry_send() copies. */
};

static void stamp(struct ferry_message *message, int64_t intended_us, void *arg)
{
    struct stamping *s = arg;
    put_le64(s->payload, s->run);
    put_le64(s->payload + 8, (uint64_t)intended_us);
    message->payload = s->payload;
}

static void receive_batch(struct receiver *r, struct ferry_batch *batch)
{
    size_t count = ferry_batch_count(batch);
    int64_t now_us = clock_monotonic_us();
    for (size_t i = 0; i < count; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        if (record.payload_bytes < STAMP_BYTES || get_le64(record.payload) != r->run) {
            continue; /* Somebody else's record on a topic that is not ours. */
        }
        int64_t sent_us = (int64_t)get_le64((const uint8_t *)record.payload + 8);
        histogram_record(&r->latency, now_us > sent_us ? (uint64_t)(now_us - sent_us) : 0);
        r->received++;
        r->bytes += (int64_t)record.payload_bytes;
    }
}

static void *receive_all(void *arg)
{
    struct receiver *r = arg;
    int64_t last_us = clock_monotonic_us();
    while (r->err == FERRY_OK && r->received < atomic_load(&r->wanted)) {
        struct ferry_batch *batch = NULL;
        r->err = ferry_consumer_fetch(r->consumer, CLI_TURN_MS, &batch);
        int64_t now_us = clock_monotonic_us();
        if (r->err == FERRY_OK) {
            receive_batch(r, batch);
            ferry_batch_free(&batch);
            last_us = now_us;
        } else if (r->err == FERRY_ERR_TIMEOUT &&
                   (atomic_load(&r->wanted) == INT64_MAX ||
                    now_us - last_us < (int64_t)r->cli->timeout_ms * 1000)) {
            r->err = FERRY_OK; /* While sending, a quiet time is no failure. */
        }
    }
    return NULL;
}

/* Signals go to the thread that looks at the flag. */
static bool start_receiver(struct receiver *r, pthread_t *thread)
{
    sigset_t all, before;
    sigfillset(&all);
    must(pthread_sigmask(SIG_BLOCK, &all, &before) == 0);
    int failed = pthread_create(thread, NULL, receive_all, r);
    must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return failed == 0;
}

static enum ferry_err run_e2e(struct bench *b, struct receiver *r)
{
    pthread_t thread;
    if (!start_receiver(r, &thread)) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = bench_load_run(&b->load);
    atomic_store(&r->wanted, b->load.stored);
    must(pthread_join(thread, NULL) == 0);
    return err != FERRY_OK ? err : r->err;
}

static enum ferry_err open_receiver(struct bench *b, struct receiver *r)
{
    r->cli = b->cli;
    atomic_init(&r->wanted, INT64_MAX);
    enum ferry_err err = histogram_init(&r->latency);
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&r->consumer, b->cli->client, b->topic.name, NULL, FERRY_FROM_END,
                                  b->cli->timeout_ms);
    }
    return err;
}

static enum cli_exit measure_e2e(struct bench *b)
{
    struct receiver r = {.err = FERRY_OK};
    struct stamping stamping = {.payload = b->payloads.block};
    struct ferry_id id = ferry_id_new(b->cli->client);
    stamping.run = r.run = get_le64(id.bytes + 8);
    b->load.rate = args_number(b->cli->args, OPT_RATE, E2E_RATE_DEFAULT);
    b->load.stamp = stamp;
    b->load.stamp_arg = &stamping;
    enum ferry_err err = open_receiver(b, &r);
    if (err == FERRY_OK) {
        err = run_e2e(b, &r);
        bench_report(b->cli,
                     &(struct bench_result){.what = "e2e",
                                            .measured = "intended send to received",
                                            .records = r.received,
                                            .bytes = r.bytes,
                                            .elapsed_us = b->load.ended_us - b->load.began_us,
                                            .load = &b->load,
                                            .topic = &b->topic,
                                            .latency = &r.latency});
    }
    b->load.stamp = NULL; /* It points to this function's variables. */
    b->load.stamp_arg = NULL;
    ferry_consumer_close(&r.consumer);
    histogram_fini(&r.latency);
    return err != FERRY_OK ? cli_fail(b->cli, err, b->topic.name, NULL) : CLI_EXIT_OK;
}

enum cli_exit cmd_bench_e2e(struct cli *cli)
{
    struct bench b;
    if (args_number(cli->args, OPT_SIZE, STAMP_BYTES) < STAMP_BYTES) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, "--size",
                        "at least 16: each payload carries the time it was sent");
    }
    enum cli_exit code = bench_begin(&b, cli);
    return bench_end(&b, code == CLI_EXIT_OK ? measure_e2e(&b) : code);
}
