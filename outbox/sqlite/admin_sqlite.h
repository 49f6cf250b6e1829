/* admin_sqlite: admin.h for a SQLite file, `sqlite:PATH`.
 *
 * What only reads opens the file read-only and holds one transaction, so that all figures are of
 * one moment; what changes does so in one IMMEDIATE transaction, which keeps every other writer out
 * for its length. Opening, closing and statements are here; the questions and decisions lie in
 * admin_sqlite_*.c. One thread uses an opened file. */
#ifndef FERRY_OUTBOX_ADMIN_SQLITE_H
#define FERRY_OUTBOX_ADMIN_SQLITE_H

#include <sqlite3.h>

#include "outbox/relay/admin.h"
#include "outbox/relay/driver.h"

extern const struct outbox_admin_ops admin_sqlite_ops;

struct admin_file {
    const char *path; /* Into the URL. */
    sqlite3 *connection;
};

/* The path of the URL. Errors: INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err admin_sqlite_path(const char *url, const char **path, struct err_text *e);
/* Errors: as admin.h; on an error nothing is open. Without `checked` the file may have no Ferry
 * tables. */
MUST_CHECK enum ferry_err admin_sqlite_open_reading(struct admin_file *f, const char *url,
                                                    bool checked, struct err_text *e);
/* Begins a transaction; admin_sqlite_end commits it when `err` is OK, and rolls it back otherwise.
 */
MUST_CHECK enum ferry_err admin_sqlite_open_writing(struct admin_file *f, const char *url,
                                                    struct err_text *e);
enum ferry_err admin_sqlite_end(struct admin_file *f, enum ferry_err err, struct err_text *e);
void admin_sqlite_close(struct admin_file *f); /* Accepts zeroed memory. */

MUST_CHECK enum ferry_err admin_sqlite_prepare(struct admin_file *f, const char *sql,
                                               sqlite3_stmt **stmt, struct err_text *e);
/* Runs a bound statement that returns no rows and finalizes it; *changed (may be NULL): rows. */
MUST_CHECK enum ferry_err admin_sqlite_run(struct admin_file *f, sqlite3_stmt *stmt,
                                           int64_t *changed, struct err_text *e);
/* The next row. *row false: there is none. */
MUST_CHECK enum ferry_err admin_sqlite_step(struct admin_file *f, sqlite3_stmt *stmt, bool *row,
                                            struct err_text *e);
/* One number; the parameter is bound where the statement has one. *found: there is one, not NULL.
 */
MUST_CHECK enum ferry_err admin_sqlite_number(struct admin_file *f, const char *sql,
                                              int64_t parameter, bool *found, int64_t *number,
                                              struct err_text *e);
struct bytes admin_sqlite_bytes(sqlite3_stmt *stmt, int column); /* Until the next step. */
void admin_sqlite_id(sqlite3_stmt *stmt, int column, struct ferry_id *id); /* Zero: no id. */
void admin_sqlite_bind_id(sqlite3_stmt *stmt, int parameter, const struct ferry_id *id);
void admin_sqlite_bind_bytes(sqlite3_stmt *stmt, int parameter, struct bytes bytes);

/* Greatest id ever given. */
MUST_CHECK enum ferry_err admin_sqlite_last_id(struct admin_file *f, int64_t *last,
                                               struct err_text *e);
/* What the relay of this machine has left beside the file. */
void admin_sqlite_word(const struct admin_file *f, struct outbox_status *status);
/* Every row up to here is published or set aside, by that word; 0: not known. `last_id` is set. */
int64_t admin_sqlite_published(const struct outbox_status *status);

/* Binds the parameters of the statements that take a filter: 1 after, 2 the one number, 3 topic,
 * 4 key, 5 id, 6 group, 7 limit. Errors: INVALID_ARGUMENT (a topic of the inbox is no id). */
MUST_CHECK enum ferry_err admin_sqlite_bind_filter(sqlite3_stmt *stmt, enum outbox_table table,
                                                   const struct outbox_filter *filter,
                                                   struct err_text *e);

/* Entries of the table: admin_sqlite_rows.c, _change.c, _park.c, _rebase.c, _saga.c, _figures.c. */

enum ferry_err admin_sqlite_rows(const char *url, enum outbox_table table,
                                 const struct outbox_filter *filter, outbox_row_cb *callback,
                                 void *arg, struct err_text *e);
enum ferry_err admin_sqlite_inbox_trace(const char *url, const struct ferry_id *id,
                                        const struct ferry_id *topic_id, int32_t partition,
                                        int64_t offset, inbox_trace_cb *callback, void *arg,
                                        struct err_text *e);
enum ferry_err admin_sqlite_ids(const char *url, const char *sql, outbox_ids_cb *callback,
                                void *arg, struct err_text *e);
enum ferry_err admin_sqlite_requeue(const char *url, const struct outbox_filter *filter,
                                    int64_t *count, struct err_text *e);
enum ferry_err admin_sqlite_inbox_requeue(const char *url, const struct outbox_filter *filter,
                                          int64_t *count, struct err_text *e);
enum ferry_err admin_sqlite_skip(const char *url, int64_t number, const char *reason,
                                 struct err_text *e);
enum ferry_err admin_sqlite_set_paused(const char *url, bool paused, struct err_text *e);
enum ferry_err admin_sqlite_set_lanes(const char *url, uint32_t lanes, struct err_text *e);
enum ferry_err admin_sqlite_parked(const char *url, outbox_parked_cb *callback, void *arg,
                                   struct err_text *e);
enum ferry_err admin_sqlite_park(const char *url, const char *topic, struct bytes key,
                                 struct err_text *e);
enum ferry_err admin_sqlite_unpark(const char *url, const char *topic, struct bytes key,
                                   int64_t *count, struct err_text *e);
enum ferry_err admin_sqlite_rebase(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                                   struct outbox_rebased *rebased, struct err_text *e);
enum ferry_err admin_sqlite_bench_put(const char *url, const char *topic, int64_t count,
                                      size_t bytes, int64_t per_commit, int64_t keys, int64_t *us,
                                      struct err_text *e);
enum ferry_err admin_sqlite_sagas(const char *url, const struct ferry_id *only, const char *state,
                                  outbox_saga_cb *callback, void *arg, struct err_text *e);
enum ferry_err admin_sqlite_saga_retry(const char *url, const struct ferry_id *id,
                                       struct err_text *e);
enum ferry_err admin_sqlite_saga_abort(const char *url, const struct ferry_id *id,
                                       const char *reason, struct err_text *e);
enum ferry_err admin_sqlite_figures(const char *url, struct outbox_figures *figures,
                                    struct err_text *e);

#endif
