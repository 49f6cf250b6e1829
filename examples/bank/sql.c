#include "sql.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CONNECT_PAUSE_MS 100

bool sql_init(struct sql *s, const char *url)
{
    *s = (struct sql){.url = url};
    if (strncmp(url, "sqlite:", 7) == 0) {
        s->ops = &sql_sqlite;
    } else if (strncmp(url, "postgresql:", 11) == 0) {
        s->ops = &sql_postgresql;
    } else if (strncmp(url, "mariadb:", 8) == 0) {
        s->ops = &sql_mariadb;
    }
    return s->ops != NULL;
}

void sql_close(struct sql *s)
{
    ferry_db_free(&s->db); /* Before the connection that it stands on. */
    if (s->connection != NULL) {
        s->ops->disconnect(s);
        s->connection = NULL;
    }
}

enum ferry_err sql_connect(struct sql *s, bool (*stop)(void *arg), void *arg)
{
    for (;;) {
        sql_close(s);
        enum ferry_err err = s->ops->connect(s);
        s->lost = err != FERRY_OK;
        if (err != FERRY_ERR_DB_RETRY || (stop != NULL && stop(arg))) {
            return err;
        }
        poll(NULL, 0, CONNECT_PAUSE_MS); /* The server is down: it will be back. */
    }
}

enum ferry_err sql_run(struct sql *s, int64_t *result, const char *statement, const char *types,
                       ...)
{
    struct sql_value values[SQL_PARAMETERS_MAX] = {{0}};
    size_t count = 0;
    va_list list;
    va_start(list, types);
    for (; types[count] != '\0' && count < SQL_PARAMETERS_MAX; count++) {
        if (types[count] == 't') {
            values[count].text = va_arg(list, const char *);
        } else {
            values[count].number = va_arg(list, int64_t);
        }
    }
    va_end(list);
    int64_t ignored;
    return s->ops->run(s, result != NULL ? result : &ignored, statement, values, count);
}

enum ferry_err sql_begin(struct sql *s)
{
    return sql_run(s, NULL, s->ops->begin, "");
}

enum ferry_err sql_commit(struct sql *s)
{
    enum ferry_err err = sql_run(s, NULL, "COMMIT", "");
    if (err == FERRY_OK) {
        ferry_outbox_committed(s->db);
    }
    return err;
}

void sql_rollback(struct sql *s)
{
    if (!s->lost) {
        (void)sql_run(s, NULL, "ROLLBACK", "");
    }
}
