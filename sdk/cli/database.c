#include "cli/database.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/format.h"
#include "outbox/relay/relay_urls.h"

enum cli_exit database_open(const struct cli *cli, const char *text, struct database *db)
{
    const struct outbox_driver *driver = NULL;
    struct err_text e = {.text = ""};
    *db = (struct database){.url = ""};
    enum ferry_err err = relay_url_only(text, db->url, &e);
    if (err == FERRY_OK) {
        err = outbox_driver_load(db->url, &driver, &e);
    }
    if (err == FERRY_OK) {
        err = driver->url_check(db->url, db->shown, sizeof(db->shown), &e);
    }
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, e.text);
    }
    db->admin = driver->admin;
    if (db->admin == NULL) {
        return cli_fail(cli, FERRY_ERR_NOT_READY, db->shown,
                        "its driver answers relays only: install the whole of this version");
    }
    return CLI_EXIT_OK;
}

enum cli_exit database_fail(const struct cli *cli, const struct database *db, enum ferry_err err,
                            const struct err_text *e)
{
    return cli_fail(cli, err, db->shown, source_words(db->shown, e->text));
}

/* ---- Choosing ------------------------------------------------------------------------------- */

enum cli_exit database_choose(const struct cli *cli, struct database_choice *choice)
{
    const char *key = args_text(cli->args, OPT_KEY, NULL);
    const char *id = args_text(cli->args, OPT_ID, NULL);
    *choice = (struct database_choice){.filter = {.topic = args_text(cli->args, OPT_TOPIC, NULL),
                                                  .group = args_text(cli->args, OPT_GROUP, NULL)}};
    struct outbox_filter *filter = &choice->filter;
    filter->one = args_has(cli->args, OPT_NUMBER);
    filter->number = args_number(cli->args, OPT_NUMBER, 0);
    if (key != NULL) {
        filter->key = bytes_of_string(key);
    }
    if (id != NULL) {
        if (!ferry_id_parse(id, &choice->id)) {
            return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, id, "--id takes a message id, a UUID");
        }
        filter->id = &choice->id;
    }
    choice->one = filter->one || filter->id != NULL;
    choice->any = choice->one || filter->topic != NULL || filter->group != NULL || key != NULL;
    return CLI_EXIT_OK;
}

struct walk {
    const struct cli *cli;
    outbox_row_cb *callback;
    void *arg;
    int64_t left;
    int64_t last; /* Number of the last row seen. */
    size_t page;  /* Rows of this page. */
    bool more, stopped;
};

static bool walk_row(const struct outbox_row *row, void *arg)
{
    struct walk *w = arg;
    w->page++;
    if (w->left == 0) {
        w->more = true;
        return false;
    }
    w->left--;
    w->last = row->number;
    w->stopped = !w->callback(row, w->arg) || cli_is_interrupted(w->cli);
    return !w->stopped;
}

enum cli_exit database_walk(const struct cli *cli, const struct database *db,
                            enum outbox_table table, const struct database_choice *choice,
                            int64_t count, outbox_row_cb *callback, void *arg, bool *more)
{
    struct walk w = {.cli = cli, .callback = callback, .arg = arg, .left = count};
    struct outbox_filter filter = choice->filter;
    struct err_text e = {.text = ""};
    do {
        w.page = 0;
        filter.after = w.last;
        enum ferry_err err = db->admin->rows(db->url, table, &filter, walk_row, &w, &e);
        if (err != FERRY_OK) {
            return database_fail(cli, db, err, &e);
        }
    } while (!w.stopped && !w.more && w.page == OUTBOX_LIST_MAX);
    if (more != NULL) {
        *more = w.more;
    }
    return CLI_EXIT_OK;
}

/* ---- Asking --------------------------------------------------------------------------------- */

enum cli_exit database_confirm(const struct cli *cli, const char *question)
{
    char answer[8] = "";
    if (args_has(cli->args, OPT_YES)) {
        return CLI_EXIT_OK;
    }
    if (!isatty(STDIN_FILENO)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "nobody is at a terminal to be asked: say --yes");
    }
    output_flush();
    fprintf(stderr, "%s [y/N] ", question);
    if (fgets(answer, sizeof(answer), stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y')) {
        return CLI_EXIT_OK;
    }
    fputs("ferry: nothing was done\n", stderr);
    return CLI_EXIT_FAILED;
}

/* ---- Printing ------------------------------------------------------------------------------- */

void database_print_line(const char *what, const char *text)
{
    printf("%-18s %s\n", what, text);
}

void database_print_count(const char *what, bool known, int64_t n)
{
    char text[FORMAT_TEXT_BYTES];
    format_count(n, text);
    database_print_line(what, known ? text : "unknown");
}

void database_print_time(const char *what, int64_t unix_ms)
{
    char text[FORMAT_TEXT_BYTES];
    format_time_ms(unix_ms, text);
    database_print_line(what, text);
}

void database_key_text(struct bytes key, char text[DATABASE_KEY_TEXT])
{
    size_t room = DATABASE_KEY_TEXT - 1;
    size_t shown = key.size > room ? room - 3 : key.size;
    for (size_t i = 0; i < shown; i++) {
        text[i] = (char)(key.data[i] >= ' ' && key.data[i] < 127 ? key.data[i] : '.');
    }
    text[shown] = '\0';
    if (shown < key.size) {
        memcpy(text + shown, "...", 4);
    }
}

json_t *database_known(bool known, int64_t n)
{
    return known ? json_integer(n) : json_null();
}

const char *database_row_state(enum outbox_table table, const struct outbox_row *row)
{
    if (table != OUTBOX_TABLE_PENDING || row->set_aside) {
        return row->requeued ? "requeued" : row->parked ? "parked" : "dead";
    }
    return !row->settled_known ? "unknown" : row->settled ? "published" : "pending";
}
