/* cmd_subscription_group: subscription members and history. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"

static enum cli_exit fail(const struct cli *cli, enum ferry_err err)
{
    int place = err == FERRY_ERR_UNKNOWN_TOPIC ? 0 : 1;
    return cli_fail(cli, err, cli->args->positionals[place], NULL);
}

/* ---- Members -------------------------------------------------------------------------------- */

static void print_members_table(const struct ferry_member *members, size_t count)
{
    struct output_table table;
    char time[FORMAT_TEXT_BYTES], session[FORMAT_TEXT_BYTES], silent[FORMAT_TEXT_BYTES];
    output_table_init(&table, "member|client|zone|>assigned|>held|joined|>session|>silent");
    for (size_t i = 0; i < count; i++) {
        const struct ferry_member *m = &members[i];
        format_time_ms(m->joined_ms, time);
        format_duration_us(m->session_ms * 1000, session);
        format_duration_us(m->silent_ms * 1000, silent);
        output_table_cell(&table, "%s", m->name);
        output_table_cell(&table, "%s", m->client);
        output_table_cell(&table, "%s", m->zone[0] != '\0' ? m->zone : "-");
        output_table_count(&table, m->assigned);
        output_table_count(&table, m->held);
        output_table_cell(&table, "%s", time);
        output_table_cell(&table, "%s", session);
        output_table_cell(&table, "%s", silent);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static void print_members_json(const struct ferry_member *members, size_t count)
{
    json_t *object = output_object();
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct ferry_member *m = &members[i];
        json_t *row = output_object();
        output_set_text(row, "member", m->name);
        output_set_text(row, "client", m->client);
        output_set_text(row, "zone", m->zone[0] != '\0' ? m->zone : NULL);
        output_set_int(row, "assigned", m->assigned);
        output_set_int(row, "held", m->held);
        output_set_int(row, "joined_ms", m->joined_ms);
        output_set_int(row, "session_ms", m->session_ms);
        output_set_int(row, "silent_ms", m->silent_ms);
        json_array_append_new(array, row);
    }
    output_set(object, "members", array);
    output_json(object);
}

enum cli_exit cmd_subscription_members(struct cli *cli)
{
    struct ferry_member *members = NULL;
    size_t count = 0;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_members_list(cli->client, cli->args->positionals[0], cli->args->positionals[1],
                           cli->timeout_ms, &members, &count);
    if (err != FERRY_OK) {
        return fail(cli, err);
    }
    if (cli->json) {
        print_members_json(members, count);
    } else {
        print_members_table(members, count);
    }
    ferry_members_free(&members);
    return CLI_EXIT_OK;
}

/* ---- History -------------------------------------------------------------------------------- */

static void print_event(const struct ferry_event *event)
{
    char time[FORMAT_TEXT_BYTES];
    format_time_ms(event->time_ms, time);
    printf("%s  %-10s", time, event->kind);
    if (event->who[0] != '\0') {
        printf("  %s", event->who);
    }
    if (event->why[0] != '\0') {
        printf(": %s", event->why);
    }
    if (event->epoch != 0) {
        printf("  (epoch %llu)", (unsigned long long)event->epoch);
    }
    putchar('\n');
}

static void print_event_json(const struct ferry_event *event)
{
    json_t *object = output_object();
    output_set_int(object, "number", (int64_t)event->number);
    output_set_int(object, "time_ms", event->time_ms);
    output_set_text(object, "event", event->kind);
    output_set_text(object, "who", event->who[0] != '\0' ? event->who : NULL);
    output_set_text(object, "why", event->why[0] != '\0' ? event->why : NULL);
    output_set_int(object, "epoch", (int64_t)event->epoch);
    output_json(object);
}

enum cli_exit cmd_subscription_history(struct cli *cli)
{
    struct ferry_event *events = NULL;
    size_t count = 0;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_events_list(cli->client, cli->args->positionals[0], cli->args->positionals[1], 0,
                          cli->timeout_ms, &events, &count);
    if (err != FERRY_OK) {
        return fail(cli, err);
    }
    for (size_t i = 0; i < count; i++) {
        if (cli->json) {
            print_event_json(&events[i]);
        } else {
            print_event(&events[i]);
        }
    }
    ferry_events_free(&events);
    return CLI_EXIT_OK;
}
