/* outbox_admin: what people ask about an outbox or inbox database: for `ferry outbox …`,
 * `ferry inbox …` and `ferry verify effects`.
 *
 * Opens the database by its URL (`sqlite:PATH`) for the length of one call, reads it in one
 * read-only transaction, and never talks to a broker. A figure that cannot be known is told as
 * unknown (`*_known` false), never as 0. All functions may block on the disk. Errors of all, each
 * with a detail that names the thing and the remedy: INVALID_ARGUMENT (the URL), IO (no such file,
 * or it cannot be opened), DB_SCHEMA (no Ferry tables, or older ones), NEWER_FORMAT, DB_RETRY
 * (busy), DB, NO_MEMORY. */
#ifndef FERRY_OUTBOX_OUTBOX_ADMIN_H
#define FERRY_OUTBOX_OUTBOX_ADMIN_H

#include "base/err.h"

#define OUTBOX_PATH_MAX 4000

enum outbox_url_kind { OUTBOX_URL_SQLITE };

struct outbox_url {
    enum outbox_url_kind kind;
    char path[OUTBOX_PATH_MAX + 1];
};

/* "sqlite:PATH". Errors: INVALID_ARGUMENT, with a detail that shows the right form. */
MUST_CHECK enum ferry_err outbox_url_parse(const char *text, struct outbox_url *url,
                                           struct err_text *e);

#define OUTBOX_STATE_MAX 31

struct outbox_status {
    int64_t schema_version;
    struct ferry_id source_id;
    int64_t last_id;     /* Greatest id ever given; 0: nothing was ever put. */
    int64_t stored_rows; /* Rows in ferry_outbox, with those published and not yet deleted. */
    int64_t dead_rows;   /* Set aside in ferry_outbox_dead. */

    /* Rows not known to be published. Without a word from a relay every stored row counts. */
    int64_t pending_rows;
    bool oldest_known;         /* False when nothing is pending. */
    int64_t oldest_pending_ms; /* Age of the oldest pending row by this machine's clock. */

    bool relay_known;   /* Whether the lock file could be asked; false: the next is not known. */
    bool relay_running; /* A relay holds the lock of this file, on this machine. */
    bool beat_known;    /* False when no relay has left word, or it cannot be read. */
    int64_t beat_ms;    /* When a relay last left word: Unix ms. */
    int64_t relay_pid;
    int64_t published_id; /* Every row up to here was published, says the relay. */
    char relay_state[OUTBOX_STATE_MAX +
                     1]; /* "active", "standby", "outage", "halted", "stopped" … */
};

MUST_CHECK enum ferry_err outbox_admin_status(const char *url, struct outbox_status *status,
                                              struct err_text *e);

/* One (group, topic, partition) of an inbox. */
struct inbox_status {
    const char *group; /* Lives during the callback. */
    struct ferry_id topic_id;
    int32_t partition;
    int64_t position; /* Next offset to apply: everything before it is done or was skipped. */
    int64_t rows;     /* Chain rows kept (the newest; older ones are trimmed). */
    int64_t holes;    /* Places in the kept chain where an interval does not begin at the end of the
                         one before it: always 0 unless somebody edited the table. */
    int64_t skips;    /* Operator's skips recorded in ferry_inbox_skip. */
};

/* Returns false to stop early. */
typedef bool inbox_status_cb(const struct inbox_status *status, void *arg);

/* In order of group, topic id, partition. */
MUST_CHECK enum ferry_err inbox_admin_status(const char *url, inbox_status_cb *callback, void *arg,
                                             struct err_text *e);

/* Creates the file if it is missing, and makes or upgrades Ferry's tables. `created` (may be NULL)
 * tells whether the file was made. */
MUST_CHECK enum ferry_err outbox_admin_init(const char *url, bool *created, struct err_text *e);

/* Returns false to stop early. */
typedef bool outbox_ids_cb(const struct ferry_id *id, void *arg);

/* Runs one read-only SELECT of the user's whose first column is a message id: a 16-byte BLOB or a
 * UUID as text. Errors besides the above: INVALID_ARGUMENT (not one statement, not read-only, or a
 * row whose first column is no id: the detail has the row's number). */
MUST_CHECK enum ferry_err outbox_admin_ids(const char *url, const char *sql,
                                           outbox_ids_cb *callback, void *arg, struct err_text *e);

#endif
