/* cmd_subscription: subscription list and info. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"

enum cli_exit cmd_subscription_list(struct cli *cli)
{
    const char *topic = cli->args->positionals[0];
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    char **names = NULL;
    size_t count = 0;
    enum ferry_err err =
        ferry_subscription_list(cli->client, topic, cli->timeout_ms, &names, &count);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, topic, NULL);
    }
    output_names("subscriptions", names, count, cli->json);
    ferry_names_free(&names);
    return CLI_EXIT_OK;
}

/* ---- Info ----------------------------------------------------------------------------------- */

/* Over all partitions; what one partition does not tell, the whole does not know. */
struct lag {
    bool known;
    int64_t messages;
    int64_t ms;
};

static struct lag lag_of(const struct ferry_subscription_info *info)
{
    struct lag lag = {.known = true};
    for (size_t i = 0; i < info->partition_count; i++) {
        const struct ferry_subscription_partition *p = &info->partitions[i];
        lag.known = lag.known && p->err == FERRY_OK;
        lag.messages += p->lag_messages;
        lag.ms = p->lag_ms > lag.ms ? p->lag_ms : lag.ms;
    }
    return lag;
}

static bool is_queue(const struct ferry_subscription_info *info)
{
    return info->spec.mode == FERRY_MODE_QUEUE || info->spec.mode == FERRY_MODE_KEYED;
}

/* Cells of a partition that does not tell, and why. */
static void print_unknown(struct output_table *table, enum ferry_err err)
{
    for (size_t i = 0; i + 2 < table->columns; i++) {
        output_table_cell(table, "unknown");
    }
    output_table_cell(table, "%s", ferry_err_name(err));
}

static void print_stream_row(struct output_table *table,
                             const struct ferry_subscription_partition *p)
{
    output_table_cell(table, "%lld", (long long)p->position);
    output_table_cell(table, "%lld", (long long)p->end_offset);
    output_table_count(table, p->lag_messages);
}

static void print_queue_row(struct output_table *table,
                            const struct ferry_subscription_partition *p)
{
    output_table_count(table, (int64_t)p->ready);
    output_table_count(table, (int64_t)p->leased);
    output_table_count(table, (int64_t)p->waiting);
    output_table_count(table, (int64_t)p->dead);
    output_table_count(table, (int64_t)p->acked);
    output_table_count(table, (int64_t)p->handed_out);
    output_table_count(table, (int64_t)p->failed);
}

static void print_partitions(const struct ferry_subscription_info *info)
{
    struct output_table table;
    char age[FORMAT_TEXT_BYTES];
    output_table_init(&table, is_queue(info)
                                  ? ">partition|>ready|>leased|>waiting|>dead|>acked|"
                                    ">handed out|>failed|>age of oldest|state"
                                  : ">partition|>position|>end|>lag|>age of oldest|state");
    for (size_t i = 0; i < info->partition_count; i++) {
        const struct ferry_subscription_partition *p = &info->partitions[i];
        output_table_cell(&table, "%d", p->partition);
        if (p->err != FERRY_OK) {
            print_unknown(&table, p->err);
            continue;
        }
        if (is_queue(info)) {
            print_queue_row(&table, p);
        } else {
            print_stream_row(&table, p);
        }
        format_duration_us(p->lag_ms * 1000, age);
        output_table_cell(&table, "%s", p->lag_messages > 0 ? age : "0 s");
        output_table_cell(&table, "ok");
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static void print_settings(const struct ferry_subscription_spec *spec)
{
    char lease[FORMAT_TEXT_BYTES], from[FORMAT_TEXT_BYTES], to[FORMAT_TEXT_BYTES];
    format_duration_us((int64_t)spec->lease_ms * 1000, lease);
    format_duration_us((int64_t)spec->backoff_min_ms * 1000, from);
    format_duration_us((int64_t)spec->backoff_max_ms * 1000, to);
    printf("%-16s %s\n%-16s %u\n", "lease", lease, "max deliveries", spec->max_deliveries);
    printf("%-16s %s to %s\n%-16s %u\n", "back-off", from, to, "in flight", spec->inflight_max);
    if (spec->mode == FERRY_MODE_KEYED) {
        printf("%-16s %s\n", "key policy", spec->key_policy == FERRY_KEY_PARK ? "park" : "wait");
    }
}

static void print_table(const struct ferry_subscription_info *info)
{
    char messages[FORMAT_TEXT_BYTES] = "unknown", age[FORMAT_TEXT_BYTES] = "unknown";
    struct lag lag = lag_of(info);
    if (lag.known) {
        format_count(lag.messages, messages);
        format_duration_us(lag.ms * 1000, age);
    }
    printf("%-16s %s\n%-16s %s\n", "subscription", info->name, "mode", info->mode);
    printf("%-16s %s\n", "state", info->paused ? "paused" : "running");
    if (is_queue(info)) {
        print_settings(&info->spec);
    }
    printf("%-16s %s\n%-16s %s\n\n", "lag messages", messages, "lag time",
           lag.known && lag.messages == 0 ? "0 s" : age);
    print_partitions(info);
}

static json_t *integer_or_null(bool known, int64_t n)
{
    return known ? json_integer(n) : json_null();
}

static json_t *seconds_or_null(bool known, int64_t ms)
{
    return known ? json_real((double)ms / 1000) : json_null();
}

/* One count of queue and keyed: its name and where it is. */
struct count_field {
    const char *name;
    size_t place;
};

#define COUNT_FIELD(name)                                                                          \
    {                                                                                              \
#name, offsetof(struct ferry_subscription_partition, name)                                 \
    }
static const struct count_field count_fields[] = {
    COUNT_FIELD(ready),      COUNT_FIELD(leased), COUNT_FIELD(waiting),  COUNT_FIELD(dead),
    COUNT_FIELD(acked),      COUNT_FIELD(died),   COUNT_FIELD(expired),  COUNT_FIELD(revived),
    COUNT_FIELD(handed_out), COUNT_FIELD(failed), COUNT_FIELD(released),
};
#undef COUNT_FIELD
#define COUNT_FIELDS (sizeof(count_fields) / sizeof(count_fields[0]))

static int64_t count_of(const struct ferry_subscription_partition *p, size_t field)
{
    uint64_t n;
    memcpy(&n, (const char *)p + count_fields[field].place, sizeof(n));
    return (int64_t)n;
}

static json_t *partition_json(const struct ferry_subscription_partition *p, bool queue)
{
    bool known = p->err == FERRY_OK;
    json_t *object = output_object();
    output_set_int(object, "partition", p->partition);
    output_set_text(object, "error", known ? NULL : ferry_err_name(p->err));
    output_set(object, "position", integer_or_null(known, p->position));
    output_set(object, "end_offset", integer_or_null(known, p->end_offset));
    output_set(object, "lag_messages", integer_or_null(known, p->lag_messages));
    output_set(object, "lag_seconds", seconds_or_null(known, p->lag_ms));
    for (size_t i = 0; queue && i < COUNT_FIELDS; i++) {
        output_set(object, count_fields[i].name, integer_or_null(known, count_of(p, i)));
    }
    return object;
}

/* Sums over all partitions, and the settings. */
static void set_queue(json_t *object, const struct ferry_subscription_info *info, bool known)
{
    const struct ferry_subscription_spec *spec = &info->spec;
    for (size_t i = 0; i < COUNT_FIELDS; i++) {
        int64_t sum = 0;
        for (size_t j = 0; j < info->partition_count; j++) {
            sum += count_of(&info->partitions[j], i);
        }
        output_set(object, count_fields[i].name, integer_or_null(known, sum));
    }
    output_set_int(object, "lease_ms", spec->lease_ms);
    output_set_int(object, "max_deliveries", spec->max_deliveries);
    output_set_int(object, "backoff_min_ms", spec->backoff_min_ms);
    output_set_int(object, "backoff_max_ms", spec->backoff_max_ms);
    output_set_int(object, "in_flight", spec->inflight_max);
    if (spec->mode == FERRY_MODE_KEYED) {
        output_set_text(object, "key_policy", spec->key_policy == FERRY_KEY_PARK ? "park" : "wait");
    }
}

static void print_json(const char *topic, const struct ferry_subscription_info *info)
{
    struct lag lag = lag_of(info);
    json_t *object = output_object();
    json_t *partitions = json_array();
    for (size_t i = 0; i < info->partition_count; i++) {
        json_array_append_new(partitions, partition_json(&info->partitions[i], is_queue(info)));
    }
    output_set_text(object, "topic", topic);
    output_set_text(object, "subscription", info->name);
    output_set_text(object, "mode", info->mode);
    output_set_bool(object, "paused", info->paused);
    output_set(object, "lag_messages", integer_or_null(lag.known, lag.messages));
    output_set(object, "lag_seconds", seconds_or_null(lag.known, lag.ms));
    if (is_queue(info)) {
        set_queue(object, info, lag.known);
    }
    output_set(object, "partitions", partitions);
    output_json(object);
}

enum cli_exit cmd_subscription_info(struct cli *cli)
{
    const char *topic = cli->args->positionals[0];
    const char *name = cli->args->positionals[1];
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    struct ferry_subscription_info *info = NULL;
    enum ferry_err err = ferry_subscription_info(cli->client, topic, name, cli->timeout_ms, &info);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, err == FERRY_ERR_UNKNOWN_TOPIC ? topic : name, NULL);
    }
    if (cli->json) {
        print_json(topic, info);
    } else {
        print_table(info);
    }
    ferry_subscription_info_free(&info);
    return CLI_EXIT_OK;
}
