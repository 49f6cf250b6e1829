/* Figures of inbox and sagas, from indexes only. */
#include <string.h>

#include "outbox/postgresql/admin_pg.h"
#include "outbox/relay/admin_figures.h"

static enum ferry_err ask(void *ctx, const char *sql, const char *parameter, const char *kinds,
                          admin_figures_row *row, void *arg, struct err_text *e)
{
    struct admin_pg_params p = {0};
    PGresult *r = NULL;
    bool more = true;
    if (parameter != NULL) {
        admin_pg_add_text(&p, parameter);
    }
    enum ferry_err err = admin_pg_ask(ctx, sql, &p, &r, e);
    for (int i = 0; err == FERRY_OK && more && i < PQntuples(r); i++) {
        struct admin_figures_value values[ADMIN_FIGURES_COLUMNS_MAX] = {{0}};
        for (int c = 0; kinds[c] != '\0'; c++) {
            values[c].known = PQgetisnull(r, i, c) == 0;
            if (kinds[c] == 't') {
                values[c].text = admin_pg_bytes(r, i, c);
            } else {
                values[c].number = admin_pg_int(r, i, c);
            }
        }
        more = row(values, arg);
    }
    PQclear(r);
    return err;
}

enum ferry_err admin_pg_figures(const char *url, struct outbox_figures *figures, struct err_text *e)
{
    struct admin_pg a;
    const struct admin_figures_asker asker = {"@.", "@.now_ms()", ask, &a};
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    if (err != FERRY_OK) {
        return err;
    }
    /* A plan that stops at the bound: tables nobody has analyzed yet are taken for small ones. */
    err = admin_pg_run(&a, "SET LOCAL enable_seqscan = off", NULL, NULL, e);
    if (err == FERRY_OK) {
        err = admin_pg_run(&a, "SET LOCAL enable_bitmapscan = off", NULL, NULL, e);
    }
    if (err == FERRY_OK) {
        err = admin_pg_run(&a, "SET LOCAL statement_timeout = '10s'", NULL, NULL, e);
    }
    if (err == FERRY_OK) {
        err = admin_figures_collect(&asker, figures, e);
    }
    return admin_pg_end(&a, err, e);
}
