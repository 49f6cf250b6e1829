#include "cli/trace_database.h"

#include <stdio.h>

#include "base/id.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/output.h"

struct telling {
    const struct cli *cli;
    const struct database *db;
    enum outbox_table table;
    bool found;
};

/* As a line of the log's events: time, what, where. */
static void print_event(bool time_known, int64_t time_ms, const char *what)
{
    char time[FORMAT_TEXT_BYTES];
    format_time_ms(time_ms, time);
    printf("%-24s  %-11s  ", time_known ? time : "(time unknown)", what);
}

/* ---- Rows ----------------------------------------------------------------------------------- */

static const char *row_event(enum outbox_table table)
{
    return table == OUTBOX_TABLE_PENDING ? "put"
           : table == OUTBOX_TABLE_DEAD  ? "set aside"
                                         : "given up";
}

static void row_as_json(const struct telling *t, const struct outbox_row *row)
{
    json_t *object = output_object();
    bool pending = t->table == OUTBOX_TABLE_PENDING;
    output_set(object, "time_ms",
               pending ? database_known(row->created_known, row->created_ms)
                       : json_integer(row->dead_ms));
    output_set_text(object, "event", row_event(t->table));
    output_set_text(object, "db", t->db->shown);
    output_set_int(object, "row", row->number);
    output_set_text(object, "state", database_row_state(t->table, row));
    output_set_text(object, "group",
                    row->group != NULL && row->group[0] != '\0' ? row->group : NULL);
    output_set_text(object, "reason",
                    row->reason != NULL && row->reason[0] != '\0' ? row->reason : NULL);
    output_json(object);
}

static bool tell_row(const struct outbox_row *row, void *arg)
{
    struct telling *t = arg;
    t->found = true;
    if (t->cli->json) {
        row_as_json(t, row);
        return true;
    }
    bool pending = t->table == OUTBOX_TABLE_PENDING;
    print_event(!pending || row->created_known, pending ? row->created_ms : row->dead_ms,
                row_event(t->table));
    printf("%s of %s, row %lld: %s", t->table == INBOX_TABLE_DEAD ? "inbox" : "outbox",
           t->db->shown, (long long)row->number, database_row_state(t->table, row));
    if (row->group != NULL && row->group[0] != '\0') {
        printf(", group %s", row->group);
    }
    bool has_reason = row->reason != NULL && row->reason[0] != '\0';
    printf("%s%s\n", has_reason ? ": " : "", has_reason ? row->reason : "");
    return true;
}

static enum cli_exit tell_rows(struct telling *t, const struct traced *traced,
                               enum outbox_table table)
{
    struct err_text e = {.text = ""};
    const struct outbox_filter filter = {.id = &traced->id};
    t->table = table;
    if (id_is_zero(&traced->id)) {
        return CLI_EXIT_OK;
    }
    enum ferry_err err = t->db->admin->rows(t->db->url, table, &filter, tell_row, t, &e);
    return err != FERRY_OK ? database_fail(t->cli, t->db, err, &e) : CLI_EXIT_OK;
}

static enum cli_exit tell_outbox(struct telling *t, const struct traced *traced)
{
    enum cli_exit code = tell_rows(t, traced, OUTBOX_TABLE_PENDING);
    return code == CLI_EXIT_OK ? tell_rows(t, traced, OUTBOX_TABLE_DEAD) : code;
}

/* ---- The inbox ------------------------------------------------------------------------------ */

static bool tell_trace(const struct inbox_trace *trace, void *arg)
{
    struct telling *t = arg;
    const char *by = trace->by_chain ? "chain" : "id";
    t->found = t->found || trace->done;
    if (t->cli->json) {
        json_t *object = output_object();
        output_set(object, "time_ms", database_known(trace->when_known, trace->done_ms));
        output_set_text(object, "event", trace->done ? "done" : "waits");
        output_set_text(object, "db", t->db->shown);
        output_set_text(object, "group", trace->group);
        output_set_text(object, "by", by);
        output_json(object);
        return true;
    }
    if (trace->done) {
        print_event(trace->when_known, trace->done_ms, "done");
    } else {
        printf("%-24s  %-11s  ", "(not yet)", "waits");
    }
    printf("inbox of %s, group %s, by its %s\n", t->db->shown, trace->group, by);
    return true;
}

static enum cli_exit tell_inbox(struct telling *t, const struct traced *traced)
{
    struct err_text e = {.text = ""};
    bool placed = traced->offset >= 0 && !id_is_zero(&traced->topic_id);
    enum ferry_err err = t->db->admin->inbox_trace(
        t->db->url, id_is_zero(&traced->id) ? NULL : &traced->id, placed ? &traced->topic_id : NULL,
        traced->partition, placed ? traced->offset : -1, tell_trace, t, &e);
    if (err != FERRY_OK) {
        return database_fail(t->cli, t->db, err, &e);
    }
    return tell_rows(t, traced, INBOX_TABLE_DEAD);
}

/* ---- All databases -------------------------------------------------------------------------- */

typedef enum cli_exit tell_fn(struct telling *t, const struct traced *traced);

static enum cli_exit each_database(const struct cli *cli, const struct traced *traced,
                                   tell_fn *tell, bool *found)
{
    const struct args_option *option;
    enum cli_exit first = CLI_EXIT_OK;
    for (size_t i = 0; (option = args_find(cli->args, OPT_DB, i)) != NULL; i++) {
        struct database db;
        struct telling t = {.cli = cli, .db = &db};
        enum cli_exit code = database_open(cli, option->values[0], &db);
        if (code == CLI_EXIT_OK) {
            code = tell(&t, traced);
        }
        first = first == CLI_EXIT_OK ? code : first;
        *found = *found || t.found;
    }
    return first;
}

enum cli_exit trace_outboxes(const struct cli *cli, const struct traced *traced, bool *found)
{
    return each_database(cli, traced, tell_outbox, found);
}

enum cli_exit trace_inboxes(const struct cli *cli, const struct traced *traced, bool *found)
{
    return each_database(cli, traced, tell_inbox, found);
}
