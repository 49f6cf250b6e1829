/* bench: what the benches share: payloads, a topic of their own, the load, the report.
 *
 * Latencies are microseconds from the time a thing was meant to happen: in an open loop (--rate)
 * that is its place in the schedule, at full speed the moment the client was given the record. A
 * stall therefore shows in every record that it delayed. */
#ifndef FERRY_CLI_BENCH_H
#define FERRY_CLI_BENCH_H

#include "base/bytes.h"
#include "cli/cli.h"
#include "cli/histogram.h"
#include "cli/output.h"

/* ---- Payloads: made up or from a file; they are used round and round. ---- */
struct bench_payload {
    struct bytes key; /* data NULL: no key. */
    struct bytes data;
};

struct bench_payloads {
    struct bench_payload *items; /* Owned, as are the bytes they point into. */
    size_t count;
    size_t capacity;
    uint8_t *block;      /* Owned: of made-up payloads. */
    int64_t total_bytes; /* Of all payloads, for the mean size. */
    bool from_file;
};

/* By --input or --size. Tells the user when it fails. */
MUST_CHECK enum cli_exit bench_payloads_init(const struct cli *cli, struct bench_payloads *p);
void bench_payloads_fini(struct bench_payloads *p);

/* ---- The topic: --topic, or one that is made here and deleted at the end. ---- */
struct bench_topic {
    char name[256];
    bool ours;
    int32_t partitions;
};

MUST_CHECK enum cli_exit bench_topic_open(struct cli *cli, struct bench_topic *topic);
/* Keeps `code` unless it was 0 and deleting failed. */
enum cli_exit bench_topic_close(struct cli *cli, struct bench_topic *topic, enum cli_exit code);

/* ---- The load: sends records and counts outcomes. ---- */
struct bench_load {
    struct cli *cli;
    const struct bench_topic *topic;
    const struct bench_payloads *payloads;
    int64_t records_max; /* INT64_MAX: until the time is up. */
    int64_t seconds_max; /* INT64_MAX: until all are sent. */
    int64_t rate;        /* Records a second; 0: as fast as it goes. */
    int64_t in_flight_max;
    bool sync;
    /* Called before a record is sent with the time it was meant to be; may change the message. */
    void (*stamp)(struct ferry_message *message, int64_t intended_us, void *arg);
    void *stamp_arg;
    struct output_progress progress;

    int64_t began_us, ended_us;
    int64_t sent, stored, not_stored, unknown, duplicates;
    int64_t bytes; /* Of payloads sent. */
    enum ferry_err first_err;
    struct histogram latency; /* Owned: from the intended sending to the report. */
};

/* Reads --records, --seconds, --rate, --in-flight, --sync. */
MUST_CHECK enum ferry_err bench_load_init(struct bench_load *load, struct cli *cli);
void bench_load_fini(struct bench_load *load);
/* The callback to connect with; its argument is the load. */
void bench_load_on_report(const struct ferry_report *report, void *arg);
/* Sends until the limit or an interrupt, and waits for all outcomes. */
MUST_CHECK enum ferry_err bench_load_run(struct bench_load *load);

/* ---- The report. ---- */
struct bench_result {
    const char *what;     /* "produce". */
    const char *measured; /* What the latency is of: "send to stored". */
    int64_t records, bytes, elapsed_us;
    const struct bench_load *load;   /* NULL: nothing was sent. */
    const struct bench_topic *topic; /* NULL: no broker. */
    const struct histogram *latency; /* NULL: not measured. */
};

void bench_report(struct cli *cli, const struct bench_result *result);

/* {"p50":…,"p90":…,"p99":…,"p99_9":…,"max":…,"mean":…}, microseconds. */
json_t *bench_latency_json(const struct histogram *h);
/* "p50 1.20 ms  p90 …" */
void bench_latency_text(const struct histogram *h, char *text, size_t bytes);

/* ---- The machine: CPU model, cores, kernel, versions. `folder` may be NULL; else its file system.
 */
json_t *bench_machine_json(const char *folder);

#endif
