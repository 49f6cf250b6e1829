/* cmd_outbox_bench: rows into an outbox, and how long until they are in the log. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/bench.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/log_walk.h"
#include "cli/output.h"

#define RECORDS_DEFAULT    10000
#define SIZE_DEFAULT       100
#define KEYS_DEFAULT       1000
#define SLICES             50 /* Of the whole: how often the progress moves. */
#define LOOK_MS            10 /* Between two looks at the log's ends. */
#define TIMESTAMP_US_OF_MS 1000

struct benching {
    struct cli *cli;
    struct database db;
    struct bench_topic topic;
    int64_t records, per_commit, keys;
    size_t bytes;
    bool brokers;

    int64_t *starts; /* By partition: the log's ends before. Owned. */
    size_t partitions;
    int64_t put_us,
        published_us; /* From the first put to the last commit, and to the last append. */
    int64_t published;
    struct histogram latency;
    struct output_progress progress;
};

static void show(struct benching *b, const char *what, int64_t done)
{
    char text[2 * FORMAT_TEXT_BYTES + 32], count[FORMAT_TEXT_BYTES];
    format_count(done, count);
    (void)snprintf(text, sizeof(text), "%s rows %s", count, what);
    output_progress_show(&b->progress, clock_monotonic_us(), (double)done / (double)b->records,
                         text);
}

/* ---- Putting -------------------------------------------------------------------------------- */

static enum cli_exit put_all(struct benching *b)
{
    struct err_text e = {.text = ""};
    int64_t slice = b->records / SLICES > b->per_commit ? b->records / SLICES : b->per_commit;
    slice -= slice % b->per_commit;
    for (int64_t done = 0; done < b->records && !cli_is_interrupted(b->cli);) {
        int64_t count = b->records - done < slice ? b->records - done : slice;
        int64_t us = 0;
        enum ferry_err err = b->db.admin->bench_put(b->db.url, b->topic.name, count, b->bytes,
                                                    b->per_commit, b->keys, &us, &e);
        if (err != FERRY_OK) {
            return database_fail(b->cli, &b->db, err, &e);
        }
        done += count;
        b->put_us += us;
        show(b, "put", done);
    }
    return cli_is_interrupted(b->cli) ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

/* ---- Publishing ----------------------------------------------------------------------------- */

/* Calls for each partition's end; the sum of what came since `starts`. */
static enum ferry_err look(struct benching *b, int64_t *came)
{
    struct ferry_topic_info *info = NULL;
    enum ferry_err err = ferry_topic_info(b->cli->client, b->topic.name, b->cli->timeout_ms, &info);
    bool first = b->starts == NULL;
    if (err == FERRY_OK && first) {
        b->partitions = info->partition_count;
        b->starts = mem_zalloc(b->partitions, sizeof(b->starts[0]));
        err = b->starts == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
    }
    *came = 0;
    for (size_t i = 0; err == FERRY_OK && i < b->partitions; i++) {
        err = info->partitions[i].err;
        if (first) {
            b->starts[i] = info->partitions[i].end_offset;
        }
        *came += info->partitions[i].end_offset - b->starts[i];
    }
    ferry_topic_info_free(&info);
    return err;
}

/* Until all are there; --timeout without anything new ends it. */
static enum ferry_err await_published(struct benching *b)
{
    int64_t before = -1;
    int64_t moved_us = clock_monotonic_us();
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && b->published < b->records && !cli_is_interrupted(b->cli)) {
        err = look(b, &b->published);
        if (b->published != before) {
            before = b->published;
            moved_us = clock_monotonic_us();
        } else if (clock_monotonic_us() - moved_us > b->cli->timeout_ms * INT64_C(1000)) {
            err = FERRY_ERR_TIMEOUT;
        }
        show(b, "published", b->published);
        if (b->published < b->records) {
            cli_pause(LOOK_MS);
        }
    }
    return err;
}

static enum ferry_err take_latency(const struct ferry_record *record, void *arg)
{
    struct benching *b = arg;
    if (record->offset >= b->starts[record->partition]) {
        int64_t ms = record->append_time_ms - record->timestamp_ms;
        histogram_record(&b->latency, (uint64_t)(ms > 0 ? ms : 0) * TIMESTAMP_US_OF_MS);
    }
    return FERRY_OK;
}

static enum cli_exit publish(struct benching *b, int64_t began_us)
{
    struct log_walk walk = {.from_ms = 0};
    char detail[160];
    enum ferry_err err = await_published(b);
    b->published_us = clock_monotonic_us() - began_us;
    output_progress_clear(&b->progress);
    if (err != FERRY_OK || cli_is_interrupted(b->cli)) {
        b->topic.ours = false; /* Rows for it wait: deleting it would make them dead ones. */
        (void)snprintf(detail, sizeof(detail),
                       "%lld of %lld rows were published: is ferry-outbox running for this "
                       "database? Topic %.60s stays",
                       (long long)b->published, (long long)b->records, b->topic.name);
        if (err != FERRY_OK) {
            return cli_fail(b->cli, err, b->db.shown, detail);
        }
        fprintf(stderr, "ferry: interrupted: %s\n", detail);
        return CLI_EXIT_FAILED;
    }
    return log_walk(b->cli, b->topic.name, "latencies are not known", take_latency, b, &walk);
}

/* ---- The report ----------------------------------------------------------------------------- */

static double per_second(int64_t n, int64_t us)
{
    return us > 0 ? (double)n * 1e6 / (double)us : 0;
}

static void report_json(const struct benching *b)
{
    json_t *object = output_object();
    output_set_text(object, "db", b->db.shown);
    output_set_text(object, "topic", b->topic.name);
    output_set_int(object, "rows", b->records);
    output_set_int(object, "bytes", (int64_t)b->bytes);
    output_set_int(object, "per_commit", b->per_commit);
    output_set_int(object, "put_us", b->put_us);
    output_set_real(object, "rows_per_second", per_second(b->records, b->put_us));
    output_set(object, "published_us", database_known(b->brokers, b->published_us));
    output_set(object, "published_per_second",
               b->brokers ? json_real(per_second(b->records, b->published_us)) : json_null());
    output_set(object, "put_to_log_us", b->brokers ? bench_latency_json(&b->latency) : json_null());
    output_json(object);
}

static void report(const struct benching *b)
{
    char rate[FORMAT_TEXT_BYTES], count[FORMAT_TEXT_BYTES], time[FORMAT_TEXT_BYTES];
    char latency[256];
    format_count(b->records, count);
    format_count((int64_t)per_second(b->records, b->put_us), rate);
    format_duration_us(b->put_us, time);
    printf("put        %s rows in %s, %s rows/s, %lld a commit\n", count, time, rate,
           (long long)b->per_commit);
    if (!b->brokers) {
        puts("published  unknown: no broker was asked (--server)");
        return;
    }
    format_count((int64_t)per_second(b->records, b->published_us), rate);
    format_duration_us(b->published_us, time);
    printf("published  all in %s from the first put, %s rows/s\n", time, rate);
    bench_latency_text(&b->latency, latency, sizeof(latency));
    printf("put to log %s (whole ms, by two clocks)\n", latency);
}

/* ---- All of it ------------------------------------------------------------------------------ */

static enum cli_exit prepare(struct benching *b)
{
    const char *topic = args_text(b->cli->args, OPT_TOPIC, NULL);
    int64_t none = 0;
    if (!b->brokers) {
        if (topic == NULL) {
            return cli_fail(b->cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                            "needs --server, or --topic: the rows stay for a relay to publish");
        }
        (void)snprintf(b->topic.name, sizeof(b->topic.name), "%s", topic);
        return CLI_EXIT_OK;
    }
    enum cli_exit code = cli_connect(b->cli, NULL, NULL);
    if (code == CLI_EXIT_OK) {
        code = bench_topic_open(b->cli, &b->topic);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = look(b, &none);
    return err != FERRY_OK ? cli_fail(b->cli, err, b->topic.name, NULL) : CLI_EXIT_OK;
}

static enum cli_exit run(struct benching *b)
{
    enum cli_exit code = prepare(b);
    int64_t began_us = clock_monotonic_us();
    if (code == CLI_EXIT_OK) {
        output_progress_init(&b->progress, !b->cli->json && !b->cli->quiet);
        code = put_all(b);
        output_progress_clear(&b->progress);
        if (code != CLI_EXIT_OK) {
            b->topic.ours = false;
        }
    }
    if (code == CLI_EXIT_OK && b->brokers) {
        code = publish(b, began_us);
    }
    if (code == CLI_EXIT_OK) {
        if (b->cli->json) {
            report_json(b);
        } else {
            report(b);
        }
    }
    return bench_topic_close(b->cli, &b->topic, code);
}

enum cli_exit cmd_outbox_bench(struct cli *cli)
{
    struct benching b = {
        .cli = cli,
        .records = args_number(cli->args, OPT_RECORDS, RECORDS_DEFAULT),
        .per_commit = args_number(cli->args, OPT_PER_COMMIT, 1),
        .keys = args_number(cli->args, OPT_KEYS, KEYS_DEFAULT),
        .bytes = (size_t)args_number(cli->args, OPT_SIZE, SIZE_DEFAULT),
        .brokers = args_has(cli->args, OPT_SERVER),
    };
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &b.db);
    if (code == CLI_EXIT_OK && histogram_init(&b.latency) != FERRY_OK) {
        code = cli_fail(cli, FERRY_ERR_NO_MEMORY, NULL, NULL);
    }
    if (code == CLI_EXIT_OK) {
        code = run(&b);
    }
    histogram_fini(&b.latency);
    mem_free(b.starts);
    return code;
}
