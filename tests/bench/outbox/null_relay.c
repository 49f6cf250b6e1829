/* null_relay: Ferry's relay, as ferry-outbox runs it, in front of a broker that keeps nothing. It
 * measures reading, routing and cursors alone, as drains "to null" of other relays do.
 *
 *   null_relay URL ROWS PARTITIONS    until the sink has ROWS; prints JSON
 *
 * The sink looks at every message it is given, keeps each partition's cursor and checks that its
 * versions rise by one; it answers at the relay's next step. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/must.h"
#include "outbox/relay/driver.h"
#include "outbox/relay/relay.h"

#define PARTITIONS_MAX 1024
#define ANSWERS_MAX    (PARTITIONS_MAX * 16)

struct answer {
    ferry_append_cb *callback;
    void *arg;
    uint64_t version;
};

struct sink {
    int32_t partitions;
    struct ferry_cursor cursors[PARTITIONS_MAX];
    uint8_t checkpoint[FERRY_CURSOR_MAX_BYTES];
    size_t checkpoint_bytes;
    struct answer answers[ANSWERS_MAX];
    size_t answer_count;
    uint64_t rows, bytes;
};

static enum ferry_err sink_elect(void *ctx, int64_t ttl_ms, int timeout_ms,
                                 struct ferry_source_grant *grant)
{
    struct sink *s = ctx;
    (void)ttl_ms;
    (void)timeout_ms;
    *grant = (struct ferry_source_grant){
        .epoch = 1, .checkpoint = s->checkpoint, .checkpoint_bytes = s->checkpoint_bytes};
    return FERRY_OK;
}

static enum ferry_err sink_resign(void *ctx, int timeout_ms)
{
    (void)ctx;
    (void)timeout_ms;
    return FERRY_OK;
}

static enum ferry_err sink_partitions(void *ctx, const char *topic, int timeout_ms,
                                      int32_t *partitions)
{
    const struct sink *s = ctx;
    (void)topic;
    (void)timeout_ms;
    *partitions = s->partitions;
    return FERRY_OK;
}

static int32_t sink_partition_of_key(const void *key, size_t key_bytes, int32_t partitions)
{
    return ferry_partition_of_key(key, key_bytes, partitions);
}

static enum ferry_err sink_cursor(void *ctx, const char *topic, int32_t partition, int timeout_ms,
                                  struct ferry_cursor *cursor)
{
    const struct sink *s = ctx;
    (void)topic;
    (void)timeout_ms;
    *cursor = s->cursors[partition];
    return FERRY_OK;
}

static enum ferry_err sink_append(void *ctx, const char *topic, int32_t partition,
                                  uint64_t expect_version, const void *blob, size_t blob_bytes,
                                  const struct ferry_message *messages, size_t count,
                                  ferry_append_cb *callback, void *arg)
{
    struct sink *s = ctx;
    struct ferry_cursor *cursor = &s->cursors[partition];
    (void)topic;
    must(expect_version == cursor->version);
    must(s->answer_count < ANSWERS_MAX);
    cursor->version++;
    cursor->blob_bytes = blob_bytes;
    memcpy(cursor->blob, blob, blob_bytes);
    for (size_t i = 0; i < count; i++) {
        s->bytes += messages[i].payload_bytes + messages[i].key_bytes;
    }
    s->rows += count;
    s->answers[s->answer_count++] =
        (struct answer){.callback = callback, .arg = arg, .version = cursor->version};
    return FERRY_OK;
}

static enum ferry_err sink_checkpoint(void *ctx, const void *blob, size_t blob_bytes,
                                      int timeout_ms)
{
    struct sink *s = ctx;
    (void)timeout_ms;
    must(blob_bytes <= sizeof(s->checkpoint));
    memcpy(s->checkpoint, blob, blob_bytes);
    s->checkpoint_bytes = blob_bytes;
    return FERRY_OK;
}

static void sink_answer(struct sink *s)
{
    size_t count = s->answer_count;
    s->answer_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct ferry_append_result result = {.refused_index = SIZE_MAX,
                                                   .version = s->answers[i].version};
        s->answers[i].callback(&result, s->answers[i].arg);
    }
}

/* ---- The run. */

static void check(enum ferry_err err, const struct err_text *e)
{
    if (err != FERRY_OK) {
        fprintf(stderr, "null_relay: %s: %s\n", ferry_err_name(err), e->text);
        exit(1);
    }
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void print_figures(const struct sink *s, const struct relay *relay, double seconds)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu = seconds_of(u.ru_utime) + seconds_of(u.ru_stime);
    (void)relay;
    printf("{\"peer\":\"ferry\",\"rows\":%" PRIu64 ",\"seconds\":%.3f,\"rows_per_second\":%.0f,"
           "\"cpu_us_per_row\":%.2f,\"rss_kib\":%ld,\"bytes\":%" PRIu64 "}\n",
           s->rows, seconds, (double)s->rows / seconds, cpu * 1e6 / (double)s->rows, u.ru_maxrss,
           s->bytes);
}

int main(int argc, char **argv)
{
    static struct sink s;
    static struct relay_options options;
    struct err_text e = {{0}};
    const struct outbox_driver *driver = NULL;
    struct source source = {0};
    struct relay *relay = NULL;
    uint64_t rows = argc == 4 ? strtoull(argv[2], NULL, 10) : 0;
    s.partitions = argc == 4 ? (int32_t)atoi(argv[3]) : 0;
    if (rows == 0 || s.partitions < 1 || s.partitions > PARTITIONS_MAX) {
        fputs("usage: null_relay URL ROWS PARTITIONS\n", stderr);
        return 2;
    }
    option_defaults(relay_options_table(), &options);
    const struct relay_broker broker = {.ctx = &s,
                                        .elect = sink_elect,
                                        .resign = sink_resign,
                                        .partitions = sink_partitions,
                                        .partition_of_key = sink_partition_of_key,
                                        .cursor = sink_cursor,
                                        .append = sink_append,
                                        .checkpoint = sink_checkpoint};
    struct source_options source_options = {.barrier = true,
                                            .copy_rows = 50000,
                                            .delete_rows = 1000,
                                            .delete_backlog_rows = 100000,
                                            .connect_timeout_ms = 5000,
                                            .statement_timeout_ms = 30000};
    check(outbox_driver_load(argv[1], &driver, &e), &e);
    check(driver->source_open(&source, argv[1], &source_options, &e), &e);
    check(relay_new(&relay, &options, &source, &broker, NULL, 1), &e);
    int64_t began_us = clock_monotonic_us();
    while (s.rows < rows || s.answer_count > 0) {
        int64_t due_us = relay_step(relay, clock_monotonic_us());
        if (s.answer_count == 0 && due_us > clock_monotonic_us() + 1000) {
            struct relay_status status;
            relay_status(relay, &status);
            if (status.error.text[0] != '\0') {
                fprintf(stderr, "null_relay: %s\n", status.error.text);
                return 1;
            }
        }
        sink_answer(&s);
    }
    print_figures(&s, relay, (double)(clock_monotonic_us() - began_us) / 1e6);
    relay_free(&relay);
    source_close(&source);
    return 0;
}
