/* Figures of inbox and sagas, from indexes only. */
#include <string.h>

#include "outbox/mariadb/admin_mariadb.h"
#include "outbox/relay/admin_figures.h"

/* Names of groups are ASCII in the tables; another character set would not use the index. */
static void write_parameter(struct admin_maria *a, const char *parameter)
{
    buf_printf(&a->sql, "CONVERT(");
    admin_maria_bytes(a, bytes_of_string(parameter));
    buf_printf(&a->sql, " USING ascii) COLLATE ascii_bin");
}

static enum ferry_err ask(void *ctx, const char *sql, const char *parameter, const char *kinds,
                          admin_figures_row *row, void *arg, struct err_text *e)
{
    struct admin_maria *a = ctx;
    struct buf *out = admin_maria_sql(a);
    MYSQL_RES *result = NULL;
    MYSQL_ROW columns = NULL;
    bool more = true;
    for (const char *at = sql; *at != '\0'; at++) {
        if (parameter != NULL && at[0] == '$' && at[1] == '1') {
            write_parameter(a, parameter);
            at++;
        } else {
            buf_append_u8(out, (uint8_t)*at);
        }
    }
    enum ferry_err err = admin_maria_query(a, &result, e);
    while (more && err == FERRY_OK &&
           (err = admin_maria_next(a, result, &columns, e)) == FERRY_OK && columns != NULL) {
        struct admin_figures_value values[ADMIN_FIGURES_COLUMNS_MAX] = {{0}};
        for (unsigned c = 0; kinds[c] != '\0'; c++) {
            values[c].known = columns[c] != NULL;
            if (kinds[c] == 't') {
                values[c].text = admin_maria_column(result, columns, c);
            } else {
                values[c].number = admin_maria_int(columns, c);
            }
        }
        more = row(values, arg);
    }
    if (result != NULL) {
        mysql_free_result(result);
    }
    return err;
}

enum ferry_err admin_maria_figures(const char *url, struct outbox_figures *figures,
                                   struct err_text *e)
{
    struct admin_maria a;
    const struct admin_figures_asker asker = {
        "ferry_", "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)", ask, &a};
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_figures_collect(&asker, figures, e);
    return admin_maria_end(&a, err, e);
}
