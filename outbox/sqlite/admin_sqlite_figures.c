/* Figures of inbox and sagas, from indexes only. */
#include "outbox/relay/admin_figures.h"
#include "outbox/sqlite/admin_sqlite.h"

static enum ferry_err ask(void *ctx, const char *sql, const char *parameter, const char *kinds,
                          admin_figures_row *row, void *arg, struct err_text *e)
{
    struct admin_file *f = ctx;
    sqlite3_stmt *stmt = NULL;
    bool more = true;
    enum ferry_err err = admin_sqlite_prepare(f, sql, &stmt, e);
    if (err == FERRY_OK && parameter != NULL) {
        sqlite3_bind_text(stmt, 1, parameter, -1, SQLITE_STATIC);
    }
    while (more && err == FERRY_OK && (err = admin_sqlite_step(f, stmt, &more, e)) == FERRY_OK &&
           more) {
        struct admin_figures_value values[ADMIN_FIGURES_COLUMNS_MAX] = {{0}};
        for (int c = 0; kinds[c] != '\0'; c++) {
            values[c].known = sqlite3_column_type(stmt, c) != SQLITE_NULL;
            if (kinds[c] == 't') {
                values[c].text = admin_sqlite_bytes(stmt, c);
            } else {
                values[c].number = sqlite3_column_int64(stmt, c);
            }
        }
        more = row(values, arg);
    }
    sqlite3_finalize(stmt);
    return err;
}

enum ferry_err admin_sqlite_figures(const char *url, struct outbox_figures *figures,
                                    struct err_text *e)
{
    struct admin_file f;
    const struct admin_figures_asker asker = {
        "ferry_", "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)", ask, &f};
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_figures_collect(&asker, figures, e);
    admin_sqlite_close(&f);
    return err;
}
