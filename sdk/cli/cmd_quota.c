/* cmd_quota: quota set and show. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"

enum cli_exit cmd_quota_set(struct cli *cli)
{
    const struct args *args = cli->args;
    struct ferry_quota quota = {.bytes_per_second = (uint64_t)args_number(args, OPT_BYTES, 0),
                                .messages_per_second = (uint64_t)args_number(args, OPT_MESSAGES, 0),
                                .requests_per_second =
                                    (uint64_t)args_number(args, OPT_REQUESTS, 0)};
    const char *client = args_text(args, OPT_CLIENT, "");
    const char *topic = args_text(args, OPT_TOPIC, "");
    if (!args_has(args, OPT_BYTES) && !args_has(args, OPT_MESSAGES) &&
        !args_has(args, OPT_REQUESTS)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "how much? give --bytes, --messages or --requests; all 0 takes the quota "
                        "away");
    }
    if ((size_t)snprintf(quota.client, sizeof(quota.client), "%s", client) >=
            sizeof(quota.client) ||
        (size_t)snprintf(quota.topic, sizeof(quota.topic), "%s", topic) >= sizeof(quota.topic)) {
        return cli_fail(cli, FERRY_ERR_BAD_NAME, NULL, NULL);
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    bool gone = quota.bytes_per_second + quota.messages_per_second + quota.requests_per_second == 0;
    enum ferry_err err = ferry_quota_set(cli->client, &quota, cli->timeout_ms);
    char name[600];
    (void)snprintf(name, sizeof(name), "of client %s, topic %s", client[0] != '\0' ? client : "*",
                   topic[0] != '\0' ? topic : "*");
    return err != FERRY_OK ? cli_fail(cli, err, name, NULL)
                           : cli_tell_done(cli, "quota", name, gone ? "removed" : "set");
}

/* ---- Showing -------------------------------------------------------------------------------- */

static void print_limit(struct output_table *table, uint64_t limit)
{
    if (limit == 0) {
        output_table_cell(table, "no limit");
    } else {
        output_table_count(table, (int64_t)limit);
    }
}

static void print_table(const struct ferry_quota *quotas, size_t count)
{
    struct output_table table;
    output_table_init(&table, "client|topic|>bytes/s|>messages/s|>requests/s");
    for (size_t i = 0; i < count; i++) {
        const struct ferry_quota *q = &quotas[i];
        output_table_cell(&table, "%s", q->client[0] != '\0' ? q->client : "*");
        output_table_cell(&table, "%s", q->topic[0] != '\0' ? q->topic : "*");
        print_limit(&table, q->bytes_per_second);
        print_limit(&table, q->messages_per_second);
        print_limit(&table, q->requests_per_second);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static void print_json(const struct ferry_quota *quotas, size_t count)
{
    json_t *object = output_object();
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct ferry_quota *q = &quotas[i];
        json_t *row = output_object();
        output_set_text(row, "client", q->client[0] != '\0' ? q->client : NULL);
        output_set_text(row, "topic", q->topic[0] != '\0' ? q->topic : NULL);
        output_set_int(row, "bytes_per_second", (int64_t)q->bytes_per_second);
        output_set_int(row, "messages_per_second", (int64_t)q->messages_per_second);
        output_set_int(row, "requests_per_second", (int64_t)q->requests_per_second);
        json_array_append_new(array, row);
    }
    output_set(object, "quotas", array);
    output_json(object);
}

enum cli_exit cmd_quota_show(struct cli *cli)
{
    struct ferry_quota *quotas = NULL;
    size_t count = 0;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_quota_list(cli->client, cli->timeout_ms, &quotas, &count);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    if (cli->json) {
        print_json(quotas, count);
    } else {
        print_table(quotas, count);
    }
    ferry_quotas_free(&quotas);
    return CLI_EXIT_OK;
}
