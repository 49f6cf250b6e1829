/* admin: what people ask about an outbox or inbox database, and what they decide: for
 * `ferry outbox …`, `ferry inbox …`, `ferry saga …`, `ferry trace` and `ferry verify effects`.
 *
 * Opens the database by its URL for the length of one call and never talks to a broker. What only
 * reads does so in one read-only transaction. A figure that cannot be known is told as unknown
 * (`*_known` false), never as 0. All functions may block on the database. Errors of all, each with
 * a detail that names the thing and the remedy (never a password): INVALID_ARGUMENT (the URL), IO
 * (no such file, nobody answers), DB_SCHEMA (no Ferry tables, or older ones), NEWER_FORMAT,
 * DB_RETRY (busy), DB, NO_MEMORY. */
#ifndef FERRY_OUTBOX_RELAY_ADMIN_H
#define FERRY_OUTBOX_RELAY_ADMIN_H

#include <stdio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "ferry_outbox.h"
#include "outbox/relay/source.h"

#define OUTBOX_URL_MAX        4000
#define OUTBOX_NAME_MAX       200
#define OUTBOX_FREED_MS       (60 * 60 * 1000) /* So long freed keys are remembered. */
#define OUTBOX_KEY_MAX        1024             /* Of a key in a listing; longer ones are cut. */
#define OUTBOX_REASON_MAX     500
#define OUTBOX_LIST_MAX       1000 /* Rows of one page of a listing. */
#define OUTBOX_SAGA_STEPS_MAX 32

struct outbox_status {
    int64_t schema_version;
    struct ferry_id source_id;
    uint32_t lanes;
    bool paused;
    int64_t last_id; /* Greatest id ever given; 0: nothing was ever put. */
    bool stored_known;
    int64_t stored_rows; /* Rows in the table, with those published and not yet deleted; for
                            PostgreSQL an estimate. */
    int64_t dead_rows, parked_rows, parked_keys;

    /* SQLite: rows not known to be published, by the word that its relay leaves beside the file.
     * PostgreSQL: what the brokers' checkpoints say, one a lane; the caller asks them
     * (ferry_source_show) and gives them to `status`, so that this can be told. */
    bool pending_known;
    int64_t pending_rows;
    bool oldest_known;         /* False also when nothing is pending. */
    int64_t oldest_pending_ms; /* Age of the oldest pending row, by the database's clock. */
    bool open_tx_known;
    int64_t longest_open_tx_ms;

    bool word_known; /* SQLite only: what the relay of this machine says. */
    bool relay_known, relay_running;
    struct source_word word;
};

/* One (group, topic, partition) of an inbox; or, after those, a group that keeps ids instead of
 * offsets (queue, keyed, possible duplicates): then only `rows` counts, the ids that are kept. */
struct inbox_status {
    const char *group; /* Lives during the callback. */
    bool by_id;
    struct ferry_id topic_id;
    int32_t partition;
    int64_t position; /* Next offset to apply: everything before it is done or was skipped. */
    int64_t rows;     /* Chain rows kept (the newest; older ones are trimmed). */
    int64_t holes;    /* Places in the kept chain where an interval does not begin at the end of the
                         one before it: always 0 unless somebody edited the table. */
    int64_t skips;    /* Operator's skips recorded. */
    int64_t dead;     /* Rows of the inbox's dead letters for it. */
};

/* A row of the outbox, of its dead ones, or of the inbox's dead ones. Lives during the callback. */
struct outbox_row {
    int64_t number;    /* Its id or seq; of the inbox's dead: its number there. */
    const char *topic; /* Of the inbox's dead: the topic id as text. */
    bool has_key;
    struct bytes key, headers, payload; /* Headers as they are kept (JSON text or a msgpack map). */
    struct ferry_id id;
    bool created_known;
    int64_t created_ms;
    bool settled_known, settled; /* By the checkpoint. */
    bool set_aside; /* PostgreSQL, of a pending row's table: it is among the dead as well, and was
                       never published. */
    bool parked;    /* Dead only because its key is parked. */
    const char *reason; /* Of dead ones. */
    int64_t dead_ms;
    bool requeued;     /* Of the inbox: a person has put it before its handler again. */
    const char *group; /* Of the inbox. */
    int32_t partition;
    int64_t offset;
};

/* The effect of one message in a consumer's database, as far as its inbox tells. */
struct inbox_trace {
    const char *group;
    bool by_chain; /* The chain covers its offset; else its id is in the id table. */
    bool done;
    bool when_known;
    int64_t done_ms;
};

struct outbox_parked_key {
    const char *topic; /* Lives during the callback, as does the key. */
    struct bytes key;
    int64_t since_ms;
    int64_t rows;
};

struct outbox_saga {
    struct ferry_id id; /* Lives during the callback. */
    const char *type;
    const char *state; /* "running", "compensating", "done", "compensated", "stuck", "aborted". */
    int32_t step, steps;
    int64_t version;
    int64_t created_ms, changed_ms;
    bool deadline_known;
    int64_t deadline_ms;
    const char *reason; /* Why it compensates or is stuck; empty: none. */
    struct bytes data;
};

#define OUTBOX_FIGURES_MAX      64 /* Groups, and (type, step) pairs of sagas. */
#define OUTBOX_FIGURES_ROWS_MAX 10000
#define OUTBOX_FIGURES_NAME_MAX 800 /* Bytes; 200 characters. */
#define OUTBOX_SAGA_STATES      6

struct outbox_group_figures {
    char group[OUTBOX_FIGURES_NAME_MAX + 1];
    int64_t chain_rows, id_rows, dead_rows;
};

struct outbox_step_figures {
    char type[OUTBOX_FIGURES_NAME_MAX + 1];
    int32_t step;
    int64_t open; /* Running or compensating there. */
};

/* What is told of a database again and again. A count of OUTBOX_FIGURES_ROWS_MAX + 1 means "at
 * least so many". */
struct outbox_figures {
    size_t group_count;
    struct outbox_group_figures groups[OUTBOX_FIGURES_MAX];
    bool groups_more; /* There are others, which are not here. */
    size_t step_count;
    struct outbox_step_figures steps[OUTBOX_FIGURES_MAX];
    bool steps_more;
    int64_t sagas[OUTBOX_SAGA_STATES]; /* By enum ferry_saga_state, from FERRY_SAGA_RUNNING on. */
    int64_t oldest_open_ms;            /* By the database's clock; 0: none is open. */
    int64_t overdue;                   /* Open, and the deadline of the step is over. */
};

/* Return false to stop early. */
typedef bool inbox_status_cb(const struct inbox_status *status, void *arg);
typedef bool outbox_row_cb(const struct outbox_row *row, void *arg);
typedef bool inbox_trace_cb(const struct inbox_trace *trace, void *arg);
typedef bool outbox_parked_cb(const struct outbox_parked_key *key, void *arg);
typedef bool outbox_saga_cb(const struct outbox_saga *saga, void *arg);
typedef bool outbox_ids_cb(const struct ferry_id *id, void *arg);

/* What a rebase does with a row. */
enum outbox_verdict {
    OUTBOX_VERDICT_KEEP,   /* It is not in the log: it will be published. */
    OUTBOX_VERDICT_DELETE, /* It is in the log. */
    OUTBOX_VERDICT_MARK,   /* It may have been in the log, whose start is gone: it will be published
                              with FERRY_HEADER_POSSIBLE_DUPLICATE, so that consumers claim its id. */
};
typedef enum outbox_verdict outbox_judge_fn(const struct ferry_id *id, int64_t created_ms,
                                            void *arg);
struct outbox_rebased {
    int64_t deleted, kept, marked; /* Marked ones are kept, too. */
    struct ferry_id new_id;        /* Zero after a dry run. */
};

enum outbox_table { OUTBOX_TABLE_PENDING, OUTBOX_TABLE_DEAD, INBOX_TABLE_DEAD };

/* Which rows. Zeroed: all. */
struct outbox_filter {
    int64_t after; /* Numbers greater than this. */
    size_t limit;  /* 0: OUTBOX_LIST_MAX. */
    bool one;      /* Only `number`. */
    int64_t number;
    const char *topic;         /* NULL: any. */
    struct bytes key;          /* data NULL: any. */
    const struct ferry_id *id; /* NULL: any. */
    const char *group;         /* Of the inbox; NULL: any. */
    struct bytes checkpoint;   /* For `settled`; size 0: not known. */
};

/* A driver's table. Every function opens and closes the database itself. */
struct outbox_admin_ops {
    enum ferry_err (*init)(const char *url, bool *created, struct err_text *e);
    /* The migrations from schema version `from` (0: none) as one script for psql, mariadb, sqlite3.
     */
    enum ferry_err (*print_sql)(const char *url, int from, FILE *out, struct err_text *e);
    /* `checkpoints`: what the brokers keep, one of each lane in order (size 0: there is none);
     * NULL, 0: nobody was asked. */
    enum ferry_err (*status)(const char *url, const struct bytes *checkpoints,
                             size_t checkpoint_count, struct outbox_status *status,
                             struct err_text *e);
    enum ferry_err (*rows)(const char *url, enum outbox_table table,
                           const struct outbox_filter *filter, outbox_row_cb *callback, void *arg,
                           struct err_text *e);
    /* Puts dead rows into the outbox anew, behind what is there, with their message ids; parked
     * rows are not touched (unpark). In one transaction. *count: rows. */
    enum ferry_err (*requeue)(const char *url, const struct outbox_filter *filter, int64_t *count,
                              struct err_text *e);
    /* The row goes to the dead ones although nobody refused it. UNKNOWN_MESSAGE: there is none. */
    enum ferry_err (*skip)(const char *url, int64_t number, const char *reason, struct err_text *e);
    enum ferry_err (*parked)(const char *url, outbox_parked_cb *callback, void *arg,
                             struct err_text *e);
    /* A key is parked in one topic: order is per topic and key, and the same key of other topics
     * goes on. INVALID_ARGUMENT: a key over OUTBOX_KEY_MAX. */
    enum ferry_err (*park)(const char *url, const char *topic, struct bytes key,
                           struct err_text *e);
    /* Frees the key; its rows are published in the order they were put. *count: rows put anew.
     * UNKNOWN_MESSAGE: it is not parked. In one transaction that keeps writers out: until_no
     * becomes n, the next number. The parked rows, then those of the key that wait in the table
     * above the last parked one, get new numbers from n on; without parked rows none was passed
     * over, and none is moved. Keys that were freed an hour ago are forgotten. What was moved is
     * gone from where it was, by which a relay that has read it already knows. (Where the key's
     * lock was held, rows of the key are handed out in the order of their numbers: above the last
     * parked one none is published, below it none waits. Where it was not, one that was committed
     * late may wait below: it stays, and is published as any other.) */
    enum ferry_err (*unpark)(const char *url, const char *topic, struct bytes key, int64_t *count,
                             struct err_text *e);
    enum ferry_err (*set_paused)(const char *url, bool paused, struct err_text *e);
    /* The caller has seen that nothing is pending, dead or parked and that no relay is active.
     * INVALID_ARGUMENT: more than one lane is not for this database, or (MariaDB) rows are there.
     */
    enum ferry_err (*set_lanes)(const char *url, uint32_t lanes, struct err_text *e);
    /* Rebase: in one transaction, does with each row what `judge` says, and gives the source a new
     * id, under which the brokers know nothing: what is left is published. With `dry_run` it only
     * counts. */
    enum ferry_err (*rebase)(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                             struct outbox_rebased *rebased, struct err_text *e);
    enum ferry_err (*inbox)(const char *url, inbox_status_cb *callback, void *arg,
                            struct err_text *e);
    /* What the inbox says of a message: topic_id and offset may be unknown (NULL, -1). */
    enum ferry_err (*inbox_trace)(const char *url, const struct ferry_id *id,
                                  const struct ferry_id *topic_id, int32_t partition,
                                  int64_t offset, inbox_trace_cb *callback, void *arg,
                                  struct err_text *e);
    /* Puts dead letters of the inbox before their handler again: ferry_consume_tx takes them. */
    enum ferry_err (*inbox_requeue)(const char *url, const struct outbox_filter *filter,
                                    int64_t *count, struct err_text *e);
    enum ferry_err (*sagas)(const char *url, const struct ferry_id *only, const char *state,
                            outbox_saga_cb *callback, void *arg, struct err_text *e);
    /* UNKNOWN_MESSAGE: there is none; INVALID_ARGUMENT: its state does not allow it. */
    enum ferry_err (*saga_retry)(const char *url, const struct ferry_id *id, struct err_text *e);
    enum ferry_err (*saga_abort)(const char *url, const struct ferry_id *id, const char *reason,
                                 struct err_text *e);
    /* Runs one read-only SELECT of the user's whose first column is a message id: 16 bytes or a
     * UUID as text. INVALID_ARGUMENT: not one statement, not read-only, or a row whose first column
     * is no id: the detail has the row's number. */
    enum ferry_err (*ids)(const char *url, const char *sql, outbox_ids_cb *callback, void *arg,
                          struct err_text *e);
    /* `ferry outbox bench`: `count` rows of `bytes` to `topic`, `per_commit` rows a transaction,
     * over `connections` connections one after another in this thread. *us: how long it took. */
    enum ferry_err (*bench_put)(const char *url, const char *topic, int64_t count, size_t bytes,
                                int64_t per_commit, int64_t keys, int64_t *us, struct err_text *e);
    /* Inbox and sagas for the metrics; reads a bounded number of rows (admin_figures.h). */
    enum ferry_err (*figures)(const char *url, struct outbox_figures *figures, struct err_text *e);
};

#endif
