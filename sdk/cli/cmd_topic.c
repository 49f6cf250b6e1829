/* cmd_topic: topic create, list, info, delete. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"

static const char *topic_name(const struct cli *cli)
{
    return cli->args->positionals[0];
}

enum cli_exit cmd_topic_create(struct cli *cli)
{
    const struct ferry_topic_spec spec = {
        .name = topic_name(cli),
        .partitions = (uint32_t)args_number(cli->args, OPT_PARTITIONS, 0),
        .replicas = (uint32_t)args_number(cli->args, OPT_REPLICAS, 0),
        .retention_ms = args_number(cli->args, OPT_RETENTION, 0),
        .retention_bytes = args_number(cli->args, OPT_RETENTION_BYTES, 0),
        .dedupe_window_ms = args_number(cli->args, OPT_DEDUPE_WINDOW, 0),
        .retention_acked = args_has(cli->args, OPT_RETENTION_ACKED),
    };
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_topic_create(cli->client, &spec, cli->timeout_ms);
    return err != FERRY_OK ? cli_fail(cli, err, spec.name, NULL)
                           : cli_tell_done(cli, "topic", spec.name, "created");
}

enum cli_exit cmd_topic_delete(struct cli *cli)
{
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_topic_delete(cli->client, topic_name(cli), cli->timeout_ms);
    return err != FERRY_OK ? cli_fail(cli, err, topic_name(cli), NULL)
                           : cli_tell_done(cli, "topic", topic_name(cli), "deleted");
}

enum cli_exit cmd_topic_list(struct cli *cli)
{
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    char **names = NULL;
    size_t count = 0;
    enum ferry_err err = ferry_topic_list(cli->client, cli->timeout_ms, &names, &count);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    output_names("topics", names, count, cli->json);
    ferry_names_free(&names);
    return CLI_EXIT_OK;
}

/* ---- Info ----------------------------------------------------------------------------------- */

/* 0 and -1 mean "the default" and "no limit" in ferry_topic_spec; what comes back is the value. */
static void print_limit_ms(const char *what, int64_t ms)
{
    char text[FORMAT_TEXT_BYTES] = "no limit";
    if (ms >= 0) {
        format_duration_us(ms < INT64_MAX / 1000 ? ms * 1000 : INT64_MAX, text);
    }
    printf("%-16s %s\n", what, text);
}

static void print_settings(const struct ferry_topic_info *info)
{
    char text[FORMAT_TEXT_BYTES];
    ferry_id_format(&info->id, text);
    printf("%-16s %s\n%-16s %s\n", "topic", info->name, "id", text);
    printf("%-16s %zu\n%-16s %u\n", "partitions", info->partition_count, "replicas",
           info->replicas);
    print_limit_ms("retention", info->retention_ms);
    format_size(info->retention_bytes, text);
    printf("%-16s %s\n", "retention size", info->retention_bytes > 0 ? text : "no limit");
    printf("%-16s %s\n", "drops acked", info->retention_acked ? "yes" : "no");
    print_limit_ms("dedupe window", info->dedupe_window_ms);
}

static void print_partitions(const struct ferry_topic_info *info)
{
    struct output_table table;
    char size[FORMAT_TEXT_BYTES];
    output_table_init(&table, ">partition|>leader|>start|>end|>records|>size|state");
    for (size_t i = 0; i < info->partition_count; i++) {
        const struct ferry_partition_info *p = &info->partitions[i];
        output_table_cell(&table, "%d", p->partition);
        if (p->err != FERRY_OK) {
            for (int j = 0; j < 5; j++) {
                output_table_cell(&table, "unknown");
            }
            output_table_cell(&table, "%s", ferry_err_name(p->err));
            continue;
        }
        format_size(p->size_bytes, size);
        output_table_cell(&table, "%u", p->leader_node);
        output_table_cell(&table, "%lld", (long long)p->start_offset);
        output_table_cell(&table, "%lld", (long long)p->end_offset);
        output_table_count(&table, p->end_offset - p->start_offset);
        output_table_cell(&table, "%s", size);
        output_table_cell(&table, "ok");
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static json_t *partition_json(const struct ferry_partition_info *p)
{
    bool known = p->err == FERRY_OK;
    json_t *object = output_object();
    output_set_int(object, "partition", p->partition);
    output_set_text(object, "error", known ? NULL : ferry_err_name(p->err));
    output_set(object, "leader_node", known ? json_integer(p->leader_node) : json_null());
    output_set(object, "start_offset", known ? json_integer(p->start_offset) : json_null());
    output_set(object, "end_offset", known ? json_integer(p->end_offset) : json_null());
    output_set(object, "size_bytes", known ? json_integer(p->size_bytes) : json_null());
    return object;
}

/* Limits: -1 is no limit, as in ferry.h. */
static void print_json(const struct ferry_topic_info *info)
{
    json_t *object = output_object();
    json_t *partitions = json_array();
    for (size_t i = 0; i < info->partition_count; i++) {
        json_array_append_new(partitions, partition_json(&info->partitions[i]));
    }
    output_set_text(object, "topic", info->name);
    output_set_id(object, "id", &info->id);
    output_set_int(object, "replicas", info->replicas);
    output_set_int(object, "retention_ms", info->retention_ms);
    output_set_int(object, "retention_bytes", info->retention_bytes);
    output_set_bool(object, "retention_acked", info->retention_acked);
    output_set_int(object, "dedupe_window_ms", info->dedupe_window_ms);
    output_set(object, "partitions", partitions);
    output_json(object);
}

enum cli_exit cmd_topic_info(struct cli *cli)
{
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    struct ferry_topic_info *info = NULL;
    enum ferry_err err = ferry_topic_info(cli->client, topic_name(cli), cli->timeout_ms, &info);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, topic_name(cli), NULL);
    }
    if (cli->json) {
        print_json(info);
    } else {
        print_settings(info);
        putchar('\n');
        print_partitions(info);
    }
    ferry_topic_info_free(&info);
    return CLI_EXIT_OK;
}
