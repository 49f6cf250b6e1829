/* cmd_outbox: outbox init, outbox status, inbox status. No broker is asked. */
#include <stdio.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"
#include "outbox/sqlite/outbox_admin.h"

enum cli_exit cmd_outbox_init(struct cli *cli)
{
    const char *url = cli->args->positionals[0];
    struct err_text detail = {.text = ""};
    bool created = false;
    enum ferry_err err = outbox_admin_init(url, &created, &detail);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, url, detail.text);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", url);
        output_set_bool(object, "created", created);
        output_set_bool(object, "ready", true);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "%s: %s\n", url,
                created ? "database made, with Ferry's tables" : "Ferry's tables are up to date");
    }
    return CLI_EXIT_OK;
}

/* ---- Outbox status -------------------------------------------------------------------------- */

static void print_line(const char *what, const char *text)
{
    printf("%-18s %s\n", what, text);
}

static void print_count(const char *what, int64_t n)
{
    char text[FORMAT_TEXT_BYTES];
    format_count(n, text);
    print_line(what, text);
}

static void print_age(const char *what, bool known, int64_t age_ms, const char *otherwise)
{
    char text[FORMAT_TEXT_BYTES];
    format_duration_us((age_ms > 0 ? age_ms : 0) * 1000, text);
    print_line(what, known ? text : otherwise);
}

static void print_relay(const struct outbox_status *s)
{
    print_line("relay", !s->relay_known    ? "unknown (its lock cannot be asked from here)"
                        : s->relay_running ? "running"
                                           : "not running: start ferry-outbox");
    print_line("relay state", s->beat_known ? s->relay_state : "unknown");
    print_age("heard from it", s->beat_known, clock_wall_ms() - s->beat_ms, "never");
    if (s->beat_known) {
        print_count("published up to id", s->published_id);
    }
}

static void print_outbox(const struct outbox_status *s)
{
    char id[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&s->source_id, id);
    print_line("source", id);
    print_count("schema version", s->schema_version);
    print_count("rows pending", s->pending_rows);
    print_age("oldest pending", s->oldest_known, s->oldest_pending_ms,
              s->pending_rows > 0 ? "unknown" : "none");
    print_count("rows stored", s->stored_rows);
    print_count("rows set aside", s->dead_rows);
    print_count("greatest id", s->last_id);
    print_relay(s);
}

static json_t *known_integer(bool known, int64_t n)
{
    return known ? json_integer(n) : json_null();
}

static void print_outbox_json(const char *url, const struct outbox_status *s)
{
    json_t *object = output_object();
    output_set_text(object, "db", url);
    output_set_id(object, "source_id", &s->source_id);
    output_set_int(object, "schema_version", s->schema_version);
    output_set_int(object, "pending_rows", s->pending_rows);
    output_set(object, "oldest_pending_ms", known_integer(s->oldest_known, s->oldest_pending_ms));
    output_set_int(object, "stored_rows", s->stored_rows);
    output_set_int(object, "dead_rows", s->dead_rows);
    output_set_int(object, "last_id", s->last_id);
    output_set(object, "relay_running",
               s->relay_known ? json_boolean(s->relay_running) : json_null());
    output_set_text(object, "relay_state", s->beat_known ? s->relay_state : NULL);
    output_set(object, "relay_pid", known_integer(s->beat_known, s->relay_pid));
    output_set(object, "relay_heard_ms", known_integer(s->beat_known, s->beat_ms));
    output_set(object, "published_id", known_integer(s->beat_known, s->published_id));
    output_json(object);
}

enum cli_exit cmd_outbox_status(struct cli *cli)
{
    const char *url = cli->args->positionals[0];
    struct outbox_status status;
    struct err_text detail = {.text = ""};
    enum ferry_err err = outbox_admin_status(url, &status, &detail);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, url, detail.text);
    }
    if (cli->json) {
        print_outbox_json(url, &status);
    } else {
        print_outbox(&status);
    }
    return CLI_EXIT_OK;
}

/* ---- Inbox status --------------------------------------------------------------------------- */

struct inbox_listing {
    struct output_table table;
    json_t *chains; /* NULL unless --json. */
};

static bool list_chain(const struct inbox_status *status, void *arg)
{
    struct inbox_listing *listing = arg;
    if (listing->chains != NULL) {
        json_t *object = output_object();
        output_set_text(object, "group", status->group);
        output_set_id(object, "topic_id", &status->topic_id);
        output_set_int(object, "partition", status->partition);
        output_set_int(object, "position", status->position);
        output_set_int(object, "rows", status->rows);
        output_set_int(object, "holes", status->holes);
        output_set_int(object, "skips", status->skips);
        json_array_append_new(listing->chains, object);
        return true;
    }
    char id[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&status->topic_id, id);
    output_table_cell(&listing->table, "%s", status->group);
    output_table_cell(&listing->table, "%s", id);
    output_table_cell(&listing->table, "%d", status->partition);
    output_table_cell(&listing->table, "%lld", (long long)status->position);
    output_table_cell(&listing->table, "%lld", (long long)status->rows);
    output_table_cell(&listing->table, "%lld", (long long)status->holes);
    output_table_cell(&listing->table, "%lld", (long long)status->skips);
    return true;
}

enum cli_exit cmd_inbox_status(struct cli *cli)
{
    const char *url = cli->args->positionals[0];
    struct err_text detail = {.text = ""};
    struct inbox_listing listing = {.chains = cli->json ? json_array() : NULL};
    output_table_init(&listing.table, "group|topic id|>partition|>position|>rows|>holes|>skips");
    enum ferry_err err = inbox_admin_status(url, list_chain, &listing, &detail);
    enum cli_exit code = CLI_EXIT_OK;
    if (err != FERRY_OK) {
        code = cli_fail(cli, err, url, detail.text);
    } else if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", url);
        output_set(object, "chains", json_incref(listing.chains));
        output_json(object);
    } else {
        output_table_print(&listing.table);
    }
    json_decref(listing.chains);
    output_table_fini(&listing.table);
    return code;
}
