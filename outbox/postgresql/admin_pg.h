/* admin_pg: admin.h for a PostgreSQL database, `postgresql://…`.
 *
 * What only reads does so in one read-only transaction of one snapshot; what changes does so in one
 * transaction. A row that is decided about is deleted from the outbox as well, so that a relay that
 * begins at an older checkpoint does not meet it again: these are the only deletes there, and rare.
 * Opening and statements are in admin_pg.c; the questions and decisions lie in admin_pg_*.c. One
 * thread uses an opened database. */
#ifndef FERRY_OUTBOX_POSTGRESQL_ADMIN_PG_H
#define FERRY_OUTBOX_POSTGRESQL_ADMIN_PG_H

#include <libpq-fe.h>

#include "outbox/postgresql/pg_url.h"
#include "outbox/relay/admin.h"

extern const struct outbox_admin_ops admin_pg_ops;

#define ADMIN_PG_PARAMS_MAX 12

struct admin_pg {
    struct pg_url url;
    PGconn *connection;
};

/* Parameters of one statement: NULL where nothing was set. */
struct admin_pg_params {
    const char *values[ADMIN_PG_PARAMS_MAX];
    int sizes[ADMIN_PG_PARAMS_MAX];
    int formats[ADMIN_PG_PARAMS_MAX];
    char texts[ADMIN_PG_PARAMS_MAX][40]; /* Of numbers and ids. */
    int count;
};

enum admin_pg_mode {
    ADMIN_PG_PLAIN,     /* No transaction, and the tables may not be there. */
    ADMIN_PG_READING,   /* The tables are of this build. */
    ADMIN_PG_SELECTING, /* Reading, and the tables may not be there. */
    ADMIN_PG_WRITING,
};

/* Errors: as admin.h; on an error nothing is open. */
MUST_CHECK enum ferry_err admin_pg_open(struct admin_pg *a, const char *url,
                                        enum admin_pg_mode mode, struct err_text *e);
/* Commits when `err` is OK, rolls back otherwise. */
enum ferry_err admin_pg_commit(struct admin_pg *a, enum ferry_err err, struct err_text *e);
void admin_pg_close(struct admin_pg *a);
/* Both. */
enum ferry_err admin_pg_end(struct admin_pg *a, enum ferry_err err, struct err_text *e);

/* Parameters in their order: $1, $2, … */
void admin_pg_add_int(struct admin_pg_params *p, int64_t value);
void admin_pg_add_text(struct admin_pg_params *p, const char *text);        /* NULL: SQL's NULL. */
void admin_pg_add_bytes(struct admin_pg_params *p, struct bytes bytes);     /* data NULL: NULL. */
void admin_pg_add_id(struct admin_pg_params *p, const struct ferry_id *id); /* NULL: NULL. */

/* One statement, in which `@` is the schema's name; *result in binary, the caller's (PQclear). */
MUST_CHECK enum ferry_err admin_pg_ask(struct admin_pg *a, const char *sql,
                                       const struct admin_pg_params *p, PGresult **result,
                                       struct err_text *e);
/* The same without rows; *changed (may be NULL): how many it touched. */
MUST_CHECK enum ferry_err admin_pg_run(struct admin_pg *a, const char *sql,
                                       const struct admin_pg_params *p, int64_t *changed,
                                       struct err_text *e);

/* Values of a binary result; 0, empty or zero where NULL. */
int64_t admin_pg_int(const PGresult *r, int row, int column);
bool admin_pg_bool(const PGresult *r, int row, int column);
struct bytes admin_pg_bytes(const PGresult *r, int row, int column); /* data NULL: NULL. */
struct ferry_id admin_pg_id(const PGresult *r, int row, int column);

/* Entries of the table, by file. admin_pg_rows.c: */
enum ferry_err admin_pg_rows(const char *url, enum outbox_table table,
                             const struct outbox_filter *filter, outbox_row_cb *callback, void *arg,
                             struct err_text *e);
enum ferry_err admin_pg_ids(const char *url, const char *sql, outbox_ids_cb *callback, void *arg,
                            struct err_text *e);
/* $1 after, $2 the one number, $3 topic, $4 key, $5 id, $6 group, $7 limit. Errors:
 * INVALID_ARGUMENT (a topic of the inbox is no id). */
MUST_CHECK enum ferry_err admin_pg_filter(struct admin_pg_params *p, enum outbox_table table,
                                          const struct outbox_filter *filter, struct err_text *e);
/* admin_pg_change.c: */
enum ferry_err admin_pg_requeue(const char *url, const struct outbox_filter *filter, int64_t *count,
                                struct err_text *e);
enum ferry_err admin_pg_inbox_requeue(const char *url, const struct outbox_filter *filter,
                                      int64_t *count, struct err_text *e);
enum ferry_err admin_pg_skip(const char *url, int64_t number, const char *reason,
                             struct err_text *e);
enum ferry_err admin_pg_set_paused(const char *url, bool paused, struct err_text *e);
enum ferry_err admin_pg_set_lanes(const char *url, uint32_t lanes, struct err_text *e);
enum ferry_err admin_pg_parked(const char *url, outbox_parked_cb *callback, void *arg,
                               struct err_text *e);
enum ferry_err admin_pg_park(const char *url, const char *topic, struct bytes key,
                             struct err_text *e);
enum ferry_err admin_pg_unpark(const char *url, const char *topic, struct bytes key, int64_t *count,
                               struct err_text *e);
/* admin_pg_rebase.c: */
enum ferry_err admin_pg_rebase(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                               struct outbox_rebased *rebased, struct err_text *e);
/* admin_pg_figures.c: */
enum ferry_err admin_pg_figures(const char *url, struct outbox_figures *figures,
                                struct err_text *e);
/* admin_pg_inbox.c: */
enum ferry_err admin_pg_inbox(const char *url, inbox_status_cb *callback, void *arg,
                              struct err_text *e);
enum ferry_err admin_pg_inbox_trace(const char *url, const struct ferry_id *id,
                                    const struct ferry_id *topic_id, int32_t partition,
                                    int64_t offset, inbox_trace_cb *callback, void *arg,
                                    struct err_text *e);
enum ferry_err admin_pg_sagas(const char *url, const struct ferry_id *only, const char *state,
                              outbox_saga_cb *callback, void *arg, struct err_text *e);
enum ferry_err admin_pg_saga_retry(const char *url, const struct ferry_id *id, struct err_text *e);
enum ferry_err admin_pg_saga_abort(const char *url, const struct ferry_id *id, const char *reason,
                                   struct err_text *e);

#endif
