#include "cli/bench.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/format.h"

/* ---- The topic ------------------------------------------------------------------------------ */

enum cli_exit bench_topic_open(struct cli *cli, struct bench_topic *topic)
{
    const char *given = args_text(cli->args, OPT_TOPIC, NULL);
    enum ferry_err err = FERRY_OK;
    *topic = (struct bench_topic){.ours = false};
    if (given != NULL) {
        snprintf(topic->name, sizeof(topic->name), "%s", given);
    } else {
        char id[FERRY_ID_TEXT_BYTES];
        struct ferry_id unique = ferry_id_new(cli->client);
        ferry_id_format(&unique, id);
        snprintf(topic->name, sizeof(topic->name), "bench-%s", id);
        const struct ferry_topic_spec spec = {
            .name = topic->name,
            .partitions = (uint32_t)args_number(cli->args, OPT_PARTITIONS, 1),
        };
        err = ferry_topic_create(cli->client, &spec, cli->timeout_ms);
        topic->ours = err == FERRY_OK;
    }
    if (err == FERRY_OK) {
        err = ferry_topic_partitions(cli->client, topic->name, cli->timeout_ms, &topic->partitions);
    }
    return err != FERRY_OK ? cli_fail(cli, err, topic->name, NULL) : CLI_EXIT_OK;
}

enum cli_exit bench_topic_close(struct cli *cli, struct bench_topic *topic, enum cli_exit code)
{
    if (!topic->ours) {
        return code;
    }
    topic->ours = false;
    enum ferry_err err = ferry_topic_delete(cli->client, topic->name, cli->timeout_ms);
    if (err != FERRY_OK && code == CLI_EXIT_OK) {
        return cli_fail(cli, err, topic->name,
                        "the topic of this bench could not be deleted: use `ferry topic delete`");
    }
    return code;
}

/* ---- Latencies ------------------------------------------------------------------------------ */

struct point {
    const char *text, *json;
    double percent;
};

static const struct point points[] = {
    {"p50", "p50", 50},       {"p90", "p90", 90},  {"p99", "p99", 99},
    {"p99.9", "p99_9", 99.9}, {"max", "max", 100},
};
#define POINTS (sizeof(points) / sizeof(points[0]))

json_t *bench_latency_json(const struct histogram *h)
{
    json_t *object = output_object();
    for (size_t i = 0; i < POINTS; i++) {
        output_set_int(object, points[i].json, (int64_t)histogram_percentile(h, points[i].percent));
    }
    output_set_real(object, "mean", histogram_mean(h));
    output_set_int(object, "count", (int64_t)h->total);
    return object;
}

void bench_latency_text(const struct histogram *h, char *text, size_t bytes)
{
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < POINTS && at < bytes; i++) {
        char value[FORMAT_TEXT_BYTES];
        format_duration_us((int64_t)histogram_percentile(h, points[i].percent), value);
        at += (size_t)snprintf(text + at, bytes - at, "%s%s %s", i > 0 ? "   " : "", points[i].text,
                               value);
    }
}

/* ---- The report ----------------------------------------------------------------------------- */

/* What the broker says of itself; null when it does not answer. */
static json_t *broker_json(struct cli *cli)
{
    char *text = NULL;
    json_error_t error;
    if (ferry_broker_status(cli->client, cli->timeout_ms, &text) != FERRY_OK) {
        return json_null();
    }
    json_t *object = json_loads(text, 0, &error);
    ferry_text_free(&text);
    return object != NULL ? object : json_null();
}

static double per_second(int64_t n, int64_t elapsed_us)
{
    return elapsed_us > 0 ? (double)n * 1e6 / (double)elapsed_us : 0;
}

static void set_load(json_t *object, const struct bench_load *load)
{
    output_set_bool(object, "open_loop", load->rate > 0);
    output_set(object, "rate", load->rate > 0 ? json_integer(load->rate) : json_null());
    output_set(object, "in_flight_max",
               load->in_flight_max != INT64_MAX ? json_integer(load->in_flight_max) : json_null());
    output_set_bool(object, "sync", load->sync);
    output_set_bool(object, "real_input", load->payloads->from_file);
    output_set_int(object, "sent", load->sent);
    output_set_int(object, "stored", load->stored);
    output_set_int(object, "not_stored", load->not_stored);
    output_set_int(object, "unknown", load->unknown);
}

static void report_json(const struct bench_result *r, json_t *broker)
{
    json_t *object = output_object();
    output_set_text(object, "bench", r->what);
    output_set_int(object, "records", r->records);
    output_set_int(object, "bytes", r->bytes);
    output_set_real(object, "seconds", (double)r->elapsed_us / 1e6);
    output_set_real(object, "records_per_second", per_second(r->records, r->elapsed_us));
    output_set_real(object, "bytes_per_second", per_second(r->bytes, r->elapsed_us));
    output_set_int(object, "partitions", r->topic->partitions);
    if (r->load != NULL) {
        set_load(object, r->load);
    }
    if (r->latency != NULL) {
        output_set_text(object, "latency_of", r->measured);
        output_set(object, "latency_us", bench_latency_json(r->latency));
    }
    output_set(object, "machine", bench_machine_json(NULL));
    output_set(object, "broker", json_incref(broker));
    output_json(object);
}

/* A field of the broker's own words, whatever type it has; "unknown" when it is not there. */
static void broker_word(const json_t *broker, const char *name, char *text, size_t bytes)
{
    const json_t *value = json_object_get(broker, name);
    char *dumped = json_is_string(value) || value == NULL
                       ? NULL
                       : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    snprintf(text, bytes, "%s",
             json_is_string(value) ? json_string_value(value)
             : dumped != NULL      ? dumped
                                   : "unknown");
    mem_free(dumped);
}

static void report_text(const struct bench_result *r, const json_t *broker)
{
    char records[FORMAT_TEXT_BYTES], rate[FORMAT_TEXT_BYTES], text[256];
    char durability[96], version[64];
    format_count(r->records, records);
    format_count((int64_t)per_second(r->records, r->elapsed_us), rate);
    printf("%-10s %s records, %.0f B each, %d partition%s, in %.3f s\n", r->what, records,
           r->records > 0 ? (double)r->bytes / (double)r->records : 0, r->topic->partitions,
           r->topic->partitions == 1 ? "" : "s", (double)r->elapsed_us / 1e6);
    printf("%-10s %s records/s, %.1f MB/s\n", "speed", rate,
           per_second(r->bytes, r->elapsed_us) / 1e6);
    if (r->latency != NULL) {
        bench_latency_text(r->latency, text, sizeof(text));
        printf("%-10s %s   (%s)\n", "latency", text, r->measured);
    }
    if (r->load != NULL && r->load->not_stored + r->load->unknown > 0) {
        printf("%-10s %lld not stored, %lld unknown\n", "failed", (long long)r->load->not_stored,
               (long long)r->load->unknown);
    }
    broker_word(broker, "durability", durability, sizeof(durability));
    broker_word(broker, "version", version, sizeof(version));
    printf("%-10s ferryd %s, acked means: %s\n", "broker", version, durability);
}

void bench_report(struct cli *cli, const struct bench_result *r)
{
    json_t *broker = broker_json(cli);
    if (cli->json) {
        report_json(r, broker);
    } else {
        report_text(r, broker);
    }
    json_decref(broker);
}
