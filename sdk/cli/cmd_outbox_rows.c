/* cmd_outbox_rows: outbox peek, outbox dead, inbox dead: rows, a line each, or one whole. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/output.h"
#include "wire/batch.h"

#define ROWS_DEFAULT 100

struct listing {
    const struct cli *cli;
    enum outbox_table table;
    struct output_table text;
    bool whole; /* One row, all of it. */
    int64_t count;
};

/* ---- JSON ----------------------------------------------------------------------------------- */

/* Headers as an object: what is kept is JSON text, or a msgpack map. */
static json_t *headers_json(struct bytes headers)
{
    if (headers.size > 0 && headers.data[0] == '{') {
        json_t *object = json_loadb((const char *)headers.data, headers.size, 0, NULL);
        return object != NULL ? object : json_null();
    }
    json_t *object = output_object();
    struct bytes name, value;
    char text[256];
    for (size_t at = 0; batch_next_header(headers, &at, &name, &value);) {
        if (name.size < sizeof(text)) {
            memcpy(text, name.data, name.size);
            text[name.size] = '\0';
            output_set_bytes(object, text, value.size > 0 ? value.data : (const uint8_t *)"",
                             value.size);
        }
    }
    return object;
}

static json_t *row_json(enum outbox_table table, const struct outbox_row *row)
{
    json_t *object = output_object();
    output_set_int(object, "number", row->number);
    output_set_text(object, "state", database_row_state(table, row));
    if (table == INBOX_TABLE_DEAD) {
        output_set_text(object, "group", row->group);
        output_set_text(object, "topic_id", row->topic);
        output_set_int(object, "partition", row->partition);
        output_set_int(object, "offset", row->offset);
    } else {
        output_set_text(object, "topic", row->topic);
    }
    output_set_bytes(object, "key", row->has_key ? row->key.data : NULL, row->key.size);
    output_set_id(object, "id", &row->id);
    output_set(object, "created_ms", database_known(row->created_known, row->created_ms));
    if (table != OUTBOX_TABLE_PENDING) {
        output_set_text(object, "reason", row->reason);
        output_set_int(object, "dead_ms", row->dead_ms);
    }
    output_set(object, "headers", headers_json(row->headers));
    output_set_bytes(object, "payload",
                     row->payload.size > 0 ? row->payload.data : (const uint8_t *)"",
                     row->payload.size);
    return object;
}

/* ---- For people ----------------------------------------------------------------------------- */

static void print_headers(struct bytes headers)
{
    json_t *object = headers_json(headers);
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        printf("header %-11s %s\n", name, json_is_string(value) ? json_string_value(value) : "?");
    }
    json_decref(object);
}

static void print_whole(enum outbox_table table, const struct outbox_row *row)
{
    char key[DATABASE_KEY_TEXT], id[FERRY_ID_TEXT_BYTES];
    database_key_text(row->key, key);
    ferry_id_format(&row->id, id);
    printf("%-18s %lld\n", "number", (long long)row->number);
    database_print_line("state", database_row_state(table, row));
    database_print_line(table == INBOX_TABLE_DEAD ? "topic id" : "topic", row->topic);
    if (table == INBOX_TABLE_DEAD) {
        database_print_line("group", row->group);
        printf("%-18s %d\n%-18s %lld\n", "partition", row->partition, "offset",
               (long long)row->offset);
    }
    database_print_line("id", id_is_zero(&row->id) ? "-" : id);
    database_print_line("key", row->has_key ? key : "-");
    if (row->created_known) {
        database_print_time("put", row->created_ms);
    }
    if (table != OUTBOX_TABLE_PENDING) {
        database_print_time("dead since", row->dead_ms);
        database_print_line("reason", row->reason);
    }
    print_headers(row->headers);
    putchar('\n');
    (void)fwrite(row->payload.data, 1, row->payload.size, stdout);
    putchar('\n');
}

static const char *headings(enum outbox_table table)
{
    switch (table) {
    case OUTBOX_TABLE_PENDING:
        return ">number|state|>age|topic|key|id|>bytes";
    case OUTBOX_TABLE_DEAD:
        return ">number|state|>dead for|topic|key|>bytes|reason";
    case INBOX_TABLE_DEAD:
        return ">number|state|>dead for|group|>partition|>offset|key|>bytes|reason";
    }
    return "";
}

static void add_line(struct listing *l, const struct outbox_row *row)
{
    char key[DATABASE_KEY_TEXT], id[FERRY_ID_TEXT_BYTES], age[FORMAT_TEXT_BYTES];
    bool pending = l->table == OUTBOX_TABLE_PENDING;
    int64_t age_ms = clock_wall_ms() - (pending ? row->created_ms : row->dead_ms);
    format_duration_us((age_ms > 0 ? age_ms : 0) * 1000, age);
    database_key_text(row->key, key);
    ferry_id_format(&row->id, id);
    output_table_cell(&l->text, "%lld", (long long)row->number);
    output_table_cell(&l->text, "%s", database_row_state(l->table, row));
    output_table_cell(&l->text, "%s", pending && !row->created_known ? "unknown" : age);
    if (l->table == INBOX_TABLE_DEAD) {
        output_table_cell(&l->text, "%s", row->group);
        output_table_cell(&l->text, "%d", row->partition);
        output_table_cell(&l->text, "%lld", (long long)row->offset);
    } else {
        output_table_cell(&l->text, "%s", row->topic);
    }
    output_table_cell(&l->text, "%s", row->has_key ? key : "-");
    if (pending) {
        output_table_cell(&l->text, "%s", id);
    }
    output_table_count(&l->text, (int64_t)row->payload.size);
    if (!pending) {
        output_table_cell(&l->text, "%s", row->reason);
    }
}

static bool list_row(const struct outbox_row *row, void *arg)
{
    struct listing *l = arg;
    l->count++;
    if (l->cli->json) {
        return output_json(row_json(l->table, row));
    }
    if (l->whole) {
        print_whole(l->table, row);
    } else {
        add_line(l, row);
    }
    return true;
}

static enum cli_exit finish(struct listing *l, bool more)
{
    if (l->whole && l->count == 0) {
        return cli_fail(l->cli, FERRY_ERR_UNKNOWN_MESSAGE, NULL, "there is no such row");
    }
    if (!l->cli->json && !l->whole) {
        output_table_print(&l->text);
    }
    if (more && !l->cli->quiet) {
        output_flush();
        fprintf(stderr, "and more: --count says how many are shown\n");
    }
    return CLI_EXIT_OK;
}

static enum cli_exit list(struct cli *cli, enum outbox_table table)
{
    struct database db;
    struct database_choice choice;
    struct listing l = {.cli = cli, .table = table};
    bool more = false;
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code == CLI_EXIT_OK) {
        code = database_choose(cli, &choice);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    l.whole = choice.one;
    output_table_init(&l.text, headings(table));
    code = database_walk(cli, &db, table, &choice, args_number(cli->args, OPT_COUNT, ROWS_DEFAULT),
                         list_row, &l, &more);
    if (code == CLI_EXIT_OK) {
        code = finish(&l, more);
    }
    output_table_fini(&l.text);
    return code;
}

enum cli_exit cmd_outbox_peek(struct cli *cli)
{
    return list(cli, OUTBOX_TABLE_PENDING);
}

enum cli_exit cmd_outbox_dead(struct cli *cli)
{
    return list(cli, OUTBOX_TABLE_DEAD);
}

enum cli_exit cmd_inbox_dead(struct cli *cli)
{
    return list(cli, INBOX_TABLE_DEAD);
}
