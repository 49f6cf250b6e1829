/* cmd_outbox_change: what a person decides about rows and keys: requeue, skip, park, pause. */
#include <stdio.h>

#include "cli/database.h"
#include "cli/format.h"
#include "cli/output.h"

/* ---- Requeue -------------------------------------------------------------------------------- */

struct requeueing {
    struct cli *cli;
    struct database db;
    struct database_choice choice;
    enum outbox_table table;
    int64_t chosen, parked, done;
};

static bool count_row(const struct outbox_row *row, void *arg)
{
    struct requeueing *r = arg;
    bool stays = r->table == OUTBOX_TABLE_DEAD ? row->parked : row->requeued;
    r->chosen += !stays;
    r->parked += stays;
    return true;
}

/* A page after the other, and not more rows than there were: one that comes back dead meanwhile
 * waits for the next call. */
static enum cli_exit requeue_all(struct requeueing *r)
{
    struct err_text e = {.text = ""};
    int64_t count = 1;
    while (count > 0 && r->done < r->chosen && !cli_is_interrupted(r->cli)) {
        struct outbox_filter filter = r->choice.filter;
        int64_t left = r->chosen - r->done;
        filter.limit = left < OUTBOX_LIST_MAX ? (size_t)left : OUTBOX_LIST_MAX;
        enum ferry_err err = r->table == OUTBOX_TABLE_DEAD
                                 ? r->db.admin->requeue(r->db.url, &filter, &count, &e)
                                 : r->db.admin->inbox_requeue(r->db.url, &filter, &count, &e);
        if (err != FERRY_OK) {
            return database_fail(r->cli, &r->db, err, &e);
        }
        r->done += count;
    }
    return CLI_EXIT_OK;
}

static void tell_requeued(const struct requeueing *r, bool dry_run)
{
    bool outbox = r->table == OUTBOX_TABLE_DEAD;
    if (r->cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", r->db.shown);
        output_set_bool(object, "dry_run", dry_run);
        output_set_int(object, "rows", r->chosen);
        output_set_int(object, outbox ? "parked" : "already_requeued", r->parked);
        output_set_int(object, "requeued", r->done);
        output_json(object);
        return;
    }
    printf("%lld rows %s", (long long)(dry_run ? r->chosen : r->done),
           dry_run ? "would be requeued" : "requeued");
    if (r->parked > 0) {
        printf(outbox ? "; %lld stay: their key is parked" : "; %lld are requeued already",
               (long long)r->parked);
    }
    putchar('\n');
}

static enum cli_exit requeue(struct cli *cli, enum outbox_table table)
{
    struct requeueing r = {.cli = cli, .table = table};
    bool dry_run = args_has(cli->args, OPT_DRY_RUN);
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &r.db);
    if (code == CLI_EXIT_OK) {
        code = database_choose(cli, &r.choice);
    }
    if (code == CLI_EXIT_OK && r.choice.any == args_has(cli->args, OPT_ALL)) {
        code = cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "which ones? some of --number, --id, --key and the like, or --all");
    }
    if (code == CLI_EXIT_OK) {
        code = database_walk(cli, &r.db, table, &r.choice, INT64_MAX, count_row, &r, NULL);
    }
    if (code == CLI_EXIT_OK && r.choice.one && r.chosen + r.parked == 0) {
        code = cli_fail(cli, FERRY_ERR_UNKNOWN_MESSAGE, r.db.shown, "there is no such row");
    }
    if (code == CLI_EXIT_OK && !dry_run) {
        code = requeue_all(&r);
    }
    if (code == CLI_EXIT_OK) {
        tell_requeued(&r, dry_run);
    }
    return code == CLI_EXIT_OK && cli_is_interrupted(cli) ? CLI_EXIT_FAILED : code;
}

enum cli_exit cmd_outbox_requeue(struct cli *cli)
{
    return requeue(cli, OUTBOX_TABLE_DEAD);
}

enum cli_exit cmd_inbox_requeue(struct cli *cli)
{
    return requeue(cli, INBOX_TABLE_DEAD);
}

/* ---- Skip ----------------------------------------------------------------------------------- */

enum cli_exit cmd_outbox_skip(struct cli *cli)
{
    struct database db;
    struct err_text e = {.text = ""};
    int64_t number = args_number(cli->args, OPT_NUMBER, 0);
    const char *reason = args_text(cli->args, OPT_REASON, NULL);
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (number == 0 || reason == NULL) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "needs --number N, as `outbox peek` shows it, and --reason R");
    }
    enum ferry_err err = db.admin->skip(db.url, number, reason, &e);
    if (err != FERRY_OK) {
        return database_fail(cli, &db, err, &e);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", db.shown);
        output_set_int(object, "number", number);
        output_set_bool(object, "skipped", true);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "row %lld is with the dead ones\n", (long long)number);
    }
    return CLI_EXIT_OK;
}

/* ---- Parked keys ---------------------------------------------------------------------------- */

static void tell_key(const struct cli *cli, const struct database *db, const char *topic,
                     const char *key, const char *done, const char *text, int64_t rows)
{
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", db->shown);
        output_set_text(object, "topic", topic);
        output_set_text(object, "key", key);
        output_set_bool(object, done, true);
        output_set(object, "rows", database_known(rows >= 0, rows));
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "key %s of topic %s %s", key, topic, text);
        if (rows >= 0) {
            fprintf(stderr, ": %lld rows were put anew, in order", (long long)rows);
        }
        fputc('\n', stderr);
    }
}

static enum cli_exit set_parked(struct cli *cli, bool parked)
{
    struct database db;
    struct err_text e = {.text = ""};
    const char *topic = cli->args->positionals[1];
    const char *key = cli->args->positionals[2];
    int64_t rows = -1;
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = parked ? db.admin->park(db.url, topic, bytes_of_string(key), &e)
                                : db.admin->unpark(db.url, topic, bytes_of_string(key), &rows, &e);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, key, e.text);
    }
    tell_key(cli, &db, topic, key, parked ? "parked" : "released",
             parked ? "is parked: its rows are set aside from now on" : "is free", rows);
    return CLI_EXIT_OK;
}

enum cli_exit cmd_outbox_park(struct cli *cli)
{
    return set_parked(cli, true);
}

enum cli_exit cmd_outbox_unpark(struct cli *cli)
{
    return set_parked(cli, false);
}

struct keys {
    struct output_table table;
    json_t *list; /* NULL unless --json. */
};

static bool list_key(const struct outbox_parked_key *key, void *arg)
{
    struct keys *keys = arg;
    if (keys->list != NULL) {
        json_t *object = output_object();
        output_set_text(object, "topic", key->topic);
        output_set_bytes(object, "key", key->key.size > 0 ? key->key.data : (const uint8_t *)"",
                         key->key.size);
        output_set_int(object, "since_ms", key->since_ms);
        output_set_int(object, "rows", key->rows);
        json_array_append_new(keys->list, object);
        return true;
    }
    char text[DATABASE_KEY_TEXT], since[FORMAT_TEXT_BYTES];
    database_key_text(key->key, text);
    format_time_ms(key->since_ms, since);
    output_table_cell(&keys->table, "%s", key->topic);
    output_table_cell(&keys->table, "%s", text);
    output_table_cell(&keys->table, "%s", since);
    output_table_count(&keys->table, key->rows);
    return true;
}

enum cli_exit cmd_outbox_parked(struct cli *cli)
{
    struct database db;
    struct err_text e = {.text = ""};
    struct keys keys = {.list = NULL};
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    keys.list = cli->json ? json_array() : NULL;
    output_table_init(&keys.table, "topic|key|since|>rows");
    enum ferry_err err = db.admin->parked(db.url, list_key, &keys, &e);
    if (err != FERRY_OK) {
        code = database_fail(cli, &db, err, &e);
    } else if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", db.shown);
        output_set(object, "keys", json_incref(keys.list));
        output_json(object);
    } else {
        output_table_print(&keys.table);
    }
    json_decref(keys.list);
    output_table_fini(&keys.table);
    return code;
}

/* ---- Pause ---------------------------------------------------------------------------------- */

static enum cli_exit set_paused(struct cli *cli, bool paused)
{
    struct database db;
    struct err_text e = {.text = ""};
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = db.admin->set_paused(db.url, paused, &e);
    if (err != FERRY_OK) {
        return database_fail(cli, &db, err, &e);
    }
    return cli_tell_done(cli, "db", db.shown, paused ? "paused" : "resumed");
}

enum cli_exit cmd_outbox_pause(struct cli *cli)
{
    return set_paused(cli, true);
}

enum cli_exit cmd_outbox_resume(struct cli *cli)
{
    return set_paused(cli, false);
}
