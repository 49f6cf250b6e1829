/* cmd_subscription: subscription list and info. */
#include <stdio.h>

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

static void print_row(struct output_table *table, const struct ferry_subscription_partition *p)
{
    char age[FORMAT_TEXT_BYTES];
    output_table_cell(table, "%d", p->partition);
    if (p->err != FERRY_OK) {
        for (int i = 0; i < 4; i++) {
            output_table_cell(table, "unknown");
        }
        output_table_cell(table, "%s", ferry_err_name(p->err));
        return;
    }
    format_duration_us(p->lag_ms * 1000, age);
    output_table_cell(table, "%lld", (long long)p->position);
    output_table_cell(table, "%lld", (long long)p->end_offset);
    output_table_count(table, p->lag_messages);
    output_table_cell(table, "%s", p->lag_messages > 0 ? age : "0 s");
    output_table_cell(table, "ok");
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
    printf("%-16s %s\n%-16s %s\n\n", "lag messages", messages, "lag time",
           lag.known && lag.messages == 0 ? "0 s" : age);
    struct output_table table;
    output_table_init(&table, ">partition|>position|>end|>lag|>age of oldest|state");
    for (size_t i = 0; i < info->partition_count; i++) {
        print_row(&table, &info->partitions[i]);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static json_t *integer_or_null(bool known, int64_t n)
{
    return known ? json_integer(n) : json_null();
}

static json_t *seconds_or_null(bool known, int64_t ms)
{
    return known ? json_real((double)ms / 1000) : json_null();
}

static json_t *partition_json(const struct ferry_subscription_partition *p)
{
    bool known = p->err == FERRY_OK;
    json_t *object = output_object();
    output_set_int(object, "partition", p->partition);
    output_set_text(object, "error", known ? NULL : ferry_err_name(p->err));
    output_set(object, "position", integer_or_null(known, p->position));
    output_set(object, "end_offset", integer_or_null(known, p->end_offset));
    output_set(object, "lag_messages", integer_or_null(known, p->lag_messages));
    output_set(object, "lag_seconds", seconds_or_null(known, p->lag_ms));
    return object;
}

static void print_json(const char *topic, const struct ferry_subscription_info *info)
{
    struct lag lag = lag_of(info);
    json_t *object = output_object();
    json_t *partitions = json_array();
    for (size_t i = 0; i < info->partition_count; i++) {
        json_array_append_new(partitions, partition_json(&info->partitions[i]));
    }
    output_set_text(object, "topic", topic);
    output_set_text(object, "subscription", info->name);
    output_set_text(object, "mode", info->mode);
    output_set(object, "lag_messages", integer_or_null(lag.known, lag.messages));
    output_set(object, "lag_seconds", seconds_or_null(lag.known, lag.ms));
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
