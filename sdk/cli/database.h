/* database: a database named on the command line, asked and changed through its driver.
 *
 * The driver is a library that is loaded when its URL is used, so the command needs the client
 * library of no database that is not named. `shown` is the URL without a password: it is the only
 * form that is printed. */
#ifndef FERRY_CLI_DATABASE_H
#define FERRY_CLI_DATABASE_H

#include "cli/cli.h"
#include "cli/output.h"
#include "outbox/relay/driver.h"

struct database {
    char url[OUTBOX_URL_MAX + 1];
    char shown[OUTBOX_URL_MAX + 1];
    const struct outbox_admin_ops *admin;
};

/* Takes a URL, or @FILE with one in it; loads the driver and checks the URL; connects to nothing.
 * Tells the user when it fails. */
MUST_CHECK enum cli_exit database_open(const struct cli *cli, const char *text,
                                       struct database *db);
enum cli_exit database_fail(const struct cli *cli, const struct database *db, enum ferry_err err,
                            const struct err_text *e);

/* What the options --number, --id, --topic, --key and --group choose. Borrows from the command
 * line. */
struct database_choice {
    struct outbox_filter filter;
    struct ferry_id id;
    bool any; /* One of them was given. */
    bool one; /* --number or --id. */
};
MUST_CHECK enum cli_exit database_choose(const struct cli *cli, struct database_choice *choice);
/* Calls back for at most `count` rows of the choice, a page after the other. *more (may be NULL):
 * there are further ones. Tells the user when it fails. */
MUST_CHECK enum cli_exit database_walk(const struct cli *cli, const struct database *db,
                                       enum outbox_table table,
                                       const struct database_choice *choice, int64_t count,
                                       outbox_row_cb *callback, void *arg, bool *more);

/* With --yes OK; else asks at the terminal. Tells the user when the answer is no, or nobody is
 * there. */
MUST_CHECK enum cli_exit database_confirm(const struct cli *cli, const char *question);

/* Lines of "name  text" for people. */
void database_print_line(const char *what, const char *text);
void database_print_count(const char *what, bool known, int64_t n);
void database_print_time(const char *what, int64_t unix_ms);
/* The beginning of a key, with what cannot be printed as dots. */
#define DATABASE_KEY_TEXT 49
void database_key_text(struct bytes key, char text[DATABASE_KEY_TEXT]);
/* "pending", "published", "dead", "parked", "requeued"; "unknown" is what cannot be known. */
const char *database_row_state(enum outbox_table table, const struct outbox_row *row);
json_t *database_known(bool known, int64_t n); /* Null when it is not. */

#endif
