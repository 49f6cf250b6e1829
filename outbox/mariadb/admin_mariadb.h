/* admin_mariadb: what the files of MariaDB's admin share; nobody else includes it but for the
 * table.
 *
 * Each function connects for itself, blocking, and works in one transaction: a read-only one at
 * REPEATABLE READ, so that its figures belong together, or one at READ COMMITTED that writes. */
#ifndef FERRY_OUTBOX_ADMIN_MARIADB_H
#define FERRY_OUTBOX_ADMIN_MARIADB_H

#include <mysql.h>

#include "base/buf.h"
#include "outbox/mariadb/maria_url.h"
#include "outbox/relay/admin.h"

struct admin_maria {
    struct maria_url url;
    MYSQL *connection;
    struct buf sql; /* The statement being written. */
    bool writing;
};

extern const struct outbox_admin_ops admin_mariadb_ops;

/* Connects and, if `checked`, looks that Ferry's tables are there and ours; then begins. On an
 * error nothing is open. Errors: those of admin.h. */
MUST_CHECK enum ferry_err admin_maria_read(struct admin_maria *a, const char *url, bool checked,
                                           struct err_text *e);
MUST_CHECK enum ferry_err admin_maria_write(struct admin_maria *a, const char *url,
                                            struct err_text *e);
/* Commits, or rolls back if `err` is one, and closes. Returns the error of both. */
enum ferry_err admin_maria_end(struct admin_maria *a, enum ferry_err err, struct err_text *e);

/* a->sql is written by buf_printf after admin_maria_begin_sql and these, then run. */
struct buf *admin_maria_sql(struct admin_maria *a);
void admin_maria_bytes(struct admin_maria *a, struct bytes bytes); /* x'…' */
void admin_maria_text(struct admin_maria *a, const char *text);    /* As utf8mb4. */
void admin_maria_id(struct admin_maria *a, const struct ferry_id *id);
/* *changed (may be NULL): rows that the statement changed. */
MUST_CHECK enum ferry_err admin_maria_run(struct admin_maria *a, int64_t *changed,
                                          struct err_text *e);
/* The result is read row by row; admin_maria_next until *row is NULL or enough, then
 * mysql_free_result. */
MUST_CHECK enum ferry_err admin_maria_query(struct admin_maria *a, MYSQL_RES **result,
                                            struct err_text *e);
MUST_CHECK enum ferry_err admin_maria_next(struct admin_maria *a, MYSQL_RES *result, MYSQL_ROW *row,
                                           struct err_text *e);
/* The first column of the first row; *found false: no row, or NULL. */
MUST_CHECK enum ferry_err admin_maria_number(struct admin_maria *a, bool *found, int64_t *number,
                                             struct err_text *e);

struct bytes admin_maria_column(MYSQL_RES *result, MYSQL_ROW row, unsigned column);
int64_t admin_maria_int(MYSQL_ROW row, unsigned column); /* NULL: 0. */
void admin_maria_column_id(MYSQL_RES *result, MYSQL_ROW row, unsigned column, struct ferry_id *id);

/* Appends " WHERE …" of the filter for the table. Errors: INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err admin_maria_where(struct admin_maria *a, enum outbox_table table,
                                            const struct outbox_filter *filter, struct err_text *e);
size_t admin_maria_limit(const struct outbox_filter *filter);

/* admin_mariadb_rows.c */
enum ferry_err admin_maria_rows(const char *url, enum outbox_table table,
                                const struct outbox_filter *filter, outbox_row_cb *callback,
                                void *arg, struct err_text *e);
enum ferry_err admin_maria_inbox_trace(const char *url, const struct ferry_id *id,
                                       const struct ferry_id *topic_id, int32_t partition,
                                       int64_t offset, inbox_trace_cb *callback, void *arg,
                                       struct err_text *e);
enum ferry_err admin_maria_ids(const char *url, const char *sql, outbox_ids_cb *callback, void *arg,
                               struct err_text *e);

/* admin_mariadb_change.c */
enum ferry_err admin_maria_requeue(const char *url, const struct outbox_filter *filter,
                                   int64_t *count, struct err_text *e);
enum ferry_err admin_maria_inbox_requeue(const char *url, const struct outbox_filter *filter,
                                         int64_t *count, struct err_text *e);
enum ferry_err admin_maria_skip(const char *url, int64_t number, const char *reason,
                                struct err_text *e);
enum ferry_err admin_maria_set_paused(const char *url, bool paused, struct err_text *e);
enum ferry_err admin_maria_set_lanes(const char *url, uint32_t lanes, struct err_text *e);
enum ferry_err admin_maria_parked(const char *url, outbox_parked_cb *callback, void *arg,
                                  struct err_text *e);
enum ferry_err admin_maria_park(const char *url, const char *topic, struct bytes key,
                                struct err_text *e);
enum ferry_err admin_maria_unpark(const char *url, const char *topic, struct bytes key,
                                  int64_t *count, struct err_text *e);

/* admin_mariadb_rebase.c */
enum ferry_err admin_maria_rebase(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                                  struct outbox_rebased *rebased, struct err_text *e);
enum ferry_err admin_maria_bench_put(const char *url, const char *topic, int64_t count,
                                     size_t bytes, int64_t per_commit, int64_t keys, int64_t *us,
                                     struct err_text *e);

/* admin_mariadb_saga.c */
enum ferry_err admin_maria_sagas(const char *url, const struct ferry_id *only, const char *state,
                                 outbox_saga_cb *callback, void *arg, struct err_text *e);
enum ferry_err admin_maria_saga_retry(const char *url, const struct ferry_id *id,
                                      struct err_text *e);
enum ferry_err admin_maria_saga_abort(const char *url, const struct ferry_id *id,
                                      const char *reason, struct err_text *e);

/* admin_mariadb_figures.c */
enum ferry_err admin_maria_figures(const char *url, struct outbox_figures *figures,
                                   struct err_text *e);

#endif
