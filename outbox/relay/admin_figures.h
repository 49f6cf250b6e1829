/* admin_figures: what an inbox and the sagas of a database come to, asked by a few statements that
 * read a bounded number of rows each, whatever the tables hold. Shared by the drivers, which run
 * the statements. No I/O of its own.
 *
 * Bounds: a count reads OUTBOX_FIGURES_ROWS_MAX + 1 entries of an index at most and stops there, so
 * that number means "at least so many"; groups and (type, step) pairs beyond OUTBOX_FIGURES_MAX are
 * not told, and `groups_more`, `steps_more` say that there are some. */
#ifndef FERRY_OUTBOX_RELAY_ADMIN_FIGURES_H
#define FERRY_OUTBOX_RELAY_ADMIN_FIGURES_H

#include "base/buf.h"
#include "outbox/relay/admin.h"

#define ADMIN_FIGURES_COLUMNS_MAX 6
#define ADMIN_FIGURES_SQL_MAX     4096u

struct admin_figures_value {
    bool known; /* Not NULL. */
    int64_t number;
    struct bytes text; /* Until the next row. */
};

/* Return false to stop. */
typedef bool admin_figures_row(const struct admin_figures_value *values, void *arg);

struct admin_figures_asker {
    const char *prefix; /* Before a table's name. */
    const char *now_ms; /* The database's clock as an expression, in Unix ms. */
    /* Runs one statement, in which $1 is `parameter` (NULL: there is none), and gives its rows.
     * `kinds` has a letter for each column: n a number, t a text. */
    enum ferry_err (*ask)(void *ctx, const char *sql, const char *parameter, const char *kinds,
                          admin_figures_row *row, void *arg, struct err_text *e);
    void *ctx;
};

MUST_CHECK enum ferry_err admin_figures_collect(const struct admin_figures_asker *asker,
                                                struct outbox_figures *figures, struct err_text *e);

#endif
