/* source: what the relay needs of a database, and a page of rows read from it.
 *
 * The relay's core is written against this table and includes no database header; outbox/sqlite,
 * outbox/postgresql and outbox/mariadb are the drivers. One thread uses a source.
 *
 * Words: a row's *number* is its own (id or seq), stable, for people and for setting it aside. Its
 * *position* is its place in the order in which this source handed it out: greater than 0, rising.
 * A *mark* is what one target (a partition of a topic) has of this source; it is kept in that
 * partition as a *blob*, moved by the same log entry that carries the rows. The *checkpoint* is a
 * blob that says what every target has; a relay begins there.
 *
 * Which rows a target has is the driver's to say (`wants`), because databases differ: SQLite
 * compares ids; PostgreSQL compares a row's transaction with snapshots; MariaDB keeps the ids that
 * were appended and not yet deleted. The core compares positions and nothing else.
 *
 * Invariants that a driver keeps: (1) a row that is committed and not settled is handed out after
 * every `begin` and `rewind`, however late it was committed (a row that was set aside may be, too:
 * the core knows those of its own time, and setting it aside again changes nothing); (2) of two
 * rows of one key, the one whose transaction held the key's lock first is handed out first; (3)
 * after `rewind(after)` rows have positions greater than `after`, and a position that is handed out
 * anew, over `rewind` or `begin`, never stands for a row that an earlier one stood for unless it is
 * the same row; (4) nothing is handed out that a crash of the database could take back; (5)
 * `wants(mark, row)` is false for every row that the mark's blob covers, for ever, through restarts
 * of the relay; (6) a database that was set back in time is told as such by `begin`, `mark_open` or
 * `verify` before one row more is handed out.
 *
 * Errors of the driver functions: DB_RETRY (busy, or the connection was lost and is being made
 * anew: try again later), DB_SCHEMA, NEWER_FORMAT, CORRUPT (a blob), DB, IO, NO_MEMORY, each with a
 * detail. A lost connection is the driver's to mend: it connects again at a later call, verifies,
 * and goes on. */
#ifndef FERRY_OUTBOX_RELAY_SOURCE_H
#define FERRY_OUTBOX_RELAY_SOURCE_H

#include "base/bytes.h"
#include "base/err.h"

#define SOURCE_ROW_MAX_BYTES (15u << 20) /* Larger ones fit no batch and are told as invalid. */
#define SOURCE_HEADERS_MAX   256u
#define SOURCE_INVALID_MAX   159
#define SOURCE_BLOB_MAX      4056u /* Of the broker's 4,096 the relay has the rest. */
#define SOURCE_LANES_MAX     64u
#define SOURCE_PARKED_KEY_MAX                                                                      \
    1024u /* A row with a longer key is set aside, its key is not parked. */

/* A header of a row that the relay takes out and obeys: Unix ms in decimal digits. */
#define SOURCE_HEADER_DUE "ferry-deliver-at"
/* False: it is no time. */
MUST_CHECK bool source_due(struct bytes value, int64_t *due_ms);

struct source_row {
    int64_t position;
    int64_t number;
    uint64_t transaction;         /* Of drivers that order by them; else 0. */
    uint32_t era;                 /* Timeline of the database when the row was put; else 0. */
    struct ferry_message message; /* Points into the page. `due_ms` by SOURCE_HEADER_DUE. */
    const char *invalid; /* Why it cannot be a message (text in the page), or NULL. Then only its
                            position, number and topic count. */
};

struct source_chunk;

/* Rows and the memory they point into; reused from read to read. Fields are read-only to users. */
struct source_page {
    struct source_row *rows;
    size_t count, capacity;
    size_t bytes;                /* Taken from the chunks. */
    struct source_chunk *chunks; /* In use first. */
    struct source_chunk *spare;
};

void source_page_init(struct source_page *p);
void source_page_fini(struct source_page *p);
void source_page_clear(struct source_page *p);
/* For drivers. NULL: out of memory. What they return lives until the page is cleared. */
MUST_CHECK struct source_row *source_page_add(struct source_page *p);
MUST_CHECK void *source_page_take(struct source_page *p, size_t bytes); /* Aligned for anything. */
MUST_CHECK char *source_page_text(struct source_page *p, struct bytes text); /* NUL added. */

struct source_mark; /* The driver's. */

struct source_blob {
    size_t size;
    uint8_t data[SOURCE_BLOB_MAX];
};

/* Why a row goes to the dead ones. */
enum source_aside {
    SOURCE_ASIDE_REFUSED, /* It was refused, or cannot be a message. */
    SOURCE_ASIDE_PARK,    /* The same, and its key is parked in its topic from now on. */
    SOURCE_ASIDE_PARKED,  /* Its key is parked there: nothing is wrong with this row. */
};

/* What the core tells a driver that may tidy up. Positions. */
struct source_progress {
    int64_t settled;      /* Every row up to here is in the log, or set aside. */
    int64_t checkpointed; /* The same, and the broker's checkpoint says so. */
    bool quiet;           /* Nothing is in flight, and nothing came for relay.delete_idle_ms. */
    bool stopping;
    int64_t now_us;
};

/* What a person is told of the database. A figure that is not known is so by its flag. */
struct source_figures {
    bool pending_known;
    int64_t pending_rows; /* An estimate. */
    bool oldest_known;    /* False also when nothing is pending. */
    int64_t oldest_ms;    /* Age of the oldest row that is not settled, by the database's clock. */
    bool open_tx_known;
    int64_t longest_open_tx_ms; /* The oldest transaction that may still hold rows back. */
    int64_t open_transactions;  /* Whose rows come late: known to this source's snapshot. */
    bool leaves_known;
    int64_t leaf_rows[4]; /* PostgreSQL's ring: estimates. */
    uint64_t truncates, barriers, barrier_us, reconnects, notifies;
};

/* A word left beside the database for `ferry outbox status`. */
#define SOURCE_STATE_MAX 31
struct source_word {
    int64_t pid;
    int64_t beat_ms;      /* Unix ms. */
    int64_t published_id; /* Every row up to this position is published, or set aside. */
    char state[SOURCE_STATE_MAX + 1];
    bool active; /* Of whom writes; not kept. */
};

typedef void source_parked_cb(const char *topic, struct bytes key, int64_t until, void *arg);

/* All functions but those marked may be NULL where the driver has nothing to do; the functions
 * below the table know that. */
struct source_ops {
    void (*close)(void *driver);         /* Required, as are the next two. */
    struct ferry_id (*id)(void *driver); /* Under which the brokers keep marks. */
    const char *(*name)(void *driver);   /* For people: no password is in it. */

    /* Begins reading at a checkpoint (size 0: none, at the very first row). *settled: the position
     * before the first row that can come now: 0 or the checkpoint's own where positions are numbers
     * of rows, else the last position given. *same false (with a detail): the database is not the
     * one, or not as late, as the checkpoint says. All marks are closed before. Required. */
    enum ferry_err (*begin)(void *driver, struct bytes checkpoint, int64_t *settled, bool *same,
                            struct err_text *e);
    /* The next rows, in order, at most `rows_max`, ending early when the page holds `bytes_max`.
     * With `rows_max` 1 and `bytes_max` 0 nothing is fetched ahead, and the row comes bare: its
     * position, number and topic, what `wants` goes by, and its key are right, but that a longer
     * key ends after SOURCE_PARKED_KEY_MAX + 1 bytes; the rest is empty and was not fetched. *more:
     * the end was not reached (the page may be empty all the same). When this is called, each open
     * mark has taken all rows of the pages before that it wanted, but those set aside: a mark whose
     * target has to wait is closed first. Required. */
    enum ferry_err (*read)(void *driver, size_t rows_max, size_t bytes_max,
                           struct source_page *page, bool *more, struct err_text *e);
    /* The only row of the page, which came bare: the rest of it is fetched, from the row as it is
     * in the table. *there false: it is gone, and the page is empty. NULL: no row comes bare. */
    enum ferry_err (*fetch)(void *driver, struct source_page *page, bool *there,
                            struct err_text *e);
    /* Rows after that position, which is settled, are handed out again. The position may be one
     * that a rewind before it went back over: then it stands for where that one went back to.
     * Marks stay as they are. Required. */
    void (*rewind)(void *driver, int64_t after);
    /* Cheap: whether anything may have come since the last call. Required. */
    enum ferry_err (*changed)(void *driver, bool *changed, struct err_text *e);
    /* Whether the source is still the one it was at the last `begin`: asked once a second. */
    enum ferry_err (*verify)(void *driver, bool *same, struct err_text *e);
    /* The checkpoint for "all up to `settled` is settled"; size 0: nothing to say yet. Required. */
    void (*checkpoint)(void *driver, int64_t settled, struct source_blob *blob);

    /* A target's mark from its blob (size 0: it has nothing of this source). It is closed, and
     * opened anew later, whenever a row for the target is dropped unsent without a rewind: a driver
     * may take it that an open mark was offered every row that was read. *same as in begin;
     * *again: rewind, so that rows which this target still wants of before are handed out first.
     * Required, as are the next five. */
    enum ferry_err (*mark_open)(void *driver, struct bytes blob, struct source_mark **mark,
                                bool *same, bool *again, struct err_text *e);
    void (*mark_close)(void *driver, struct source_mark *mark);
    bool (*wants)(void *driver, const struct source_mark *mark, const struct source_row *row);
    /* The blob for the mark and the first of these rows; returns how many of them it covers: 0 when
     * none fits now (once something is tidied up it does). `last`: these are all the rows of the
     * page that the target wants; means nothing for a blob that does not cover all of them. Changes
     * nothing. */
    size_t (*mark_encode)(void *driver, const struct source_mark *mark,
                          const struct source_row *const *rows, size_t count, bool last,
                          struct source_blob *blob);
    /* The batch with these rows is on its way: they are the mark's from now on. */
    enum ferry_err (*mark_add)(void *driver, struct source_mark *mark,
                               const struct source_row *const *rows, size_t count, bool last);
    /* The oldest `count` rows that were added and not acknowledged are in the log. */
    void (*mark_acked)(void *driver, struct source_mark *mark, size_t count);

    /* Deletes what is settled, as the driver sees fit, one short transaction a call. *again: there
     * is more to do at once. *removed: rows. */
    enum ferry_err (*tidy)(void *driver, const struct source_progress *progress, size_t *removed,
                           bool *again, struct err_text *e);
    /* Rows of all lanes may lie together: the lane whose checkpoint `tidy` has to know before it
     * deletes anything. False: none. Both of these, or neither. */
    bool (*wants_lane)(void *driver, uint32_t *lane);
    /* What the brokers keep for that lane, size 0: nothing yet. Not `active`: no relay has it just
     * now, and it means nothing. */
    void (*take_lane)(void *driver, uint32_t lane, bool active, struct bytes checkpoint);
    /* Copies one row to the dead ones with the reason. A row that is there already, or gone from
     * the outbox: nothing to do, done. *done false, for SOURCE_ASIDE_PARKED: the row waits in the
     * outbox, and its key is not parked in its topic (any more). Required. */
    enum ferry_err (*set_aside)(void *driver, const struct source_row *row, enum source_aside why,
                                const char *reason, bool *done, struct err_text *e);
    /* Whether a person has set the row aside (`ferry outbox skip`). */
    enum ferry_err (*decided)(void *driver, int64_t number, bool *decided, struct err_text *e);
    /* Calls back for each key of a topic that is parked (`until` 0), and for those that were freed
     * lately (for an hour at least): rows of such a key from the number `until` on are free; one
     * below it may have been put anew behind it, which is so when it is gone from the outbox, and
     * `set_aside` tells. */
    enum ferry_err (*parked)(void *driver, source_parked_cb *callback, void *arg,
                             struct err_text *e);
    enum ferry_err (*paused)(void *driver, bool *paused, struct err_text *e);
    enum ferry_err (*figures)(void *driver, int64_t settled, struct source_figures *figures,
                              struct err_text *e);

    int (*wake_fd)(void *driver); /* Readable when something was announced; -1: none. */
    void (*wake_drain)(void *driver);
    /* Comes once a second in every state of the relay. */
    void (*leave_word)(void *driver, const struct source_word *word);
    /* What tells this relay's place from other relays' at the same database; a relay that is
     * started again at the same place and finds nobody there has the same. */
    void (*place)(void *driver, char *text, size_t bytes);
};

#define SOURCE_PLACE_MAX 127

struct source {
    const struct source_ops *ops;
    void *driver;
};

void source_close(struct source *source); /* Accepts zeroed memory. */

/* The functions that a driver may lack. Without them a source is always the same, has nothing to
 * tidy and no parked keys, is never paused, decided about or announced, and tells no figures. */
MUST_CHECK enum ferry_err source_verify(const struct source *source, bool *same,
                                        struct err_text *e);
MUST_CHECK enum ferry_err source_tidy(const struct source *source,
                                      const struct source_progress *progress, size_t *removed,
                                      bool *again, struct err_text *e);
bool source_wants_lane(const struct source *source, uint32_t *lane);
MUST_CHECK enum ferry_err source_fetch(const struct source *source, struct source_page *page,
                                       bool *there, struct err_text *e);
MUST_CHECK enum ferry_err source_decided(const struct source *source, int64_t number, bool *decided,
                                         struct err_text *e);
MUST_CHECK enum ferry_err source_parked(const struct source *source, source_parked_cb *callback,
                                        void *arg, struct err_text *e);
MUST_CHECK enum ferry_err source_paused(const struct source *source, bool *paused,
                                        struct err_text *e);
MUST_CHECK enum ferry_err source_figures(const struct source *source, int64_t settled,
                                         struct source_figures *figures, struct err_text *e);
int source_wake_fd(const struct source *source);
void source_wake_drain(const struct source *source);
void source_leave_word(const struct source *source, const struct source_word *word);
void source_place(const struct source *source, char text[SOURCE_PLACE_MAX + 1]);

/* A driver's detail, for those who name the database before it: without the name, if it begins with
 * that, as "sqlite:PATH", or as the path alone. Points into `detail`. */
const char *source_words(const char *name, const char *detail);

struct source_options {
    uint32_t lane; /* Rows of this lane only. */
    bool barrier;  /* What is handed out is on the database's disk before. */
    bool stand_by; /* Open although another relay of this machine is here. */
    bool tidy;     /* Delete what is published. */
    bool strict;   /* Refuse a database whose settings can lose committed rows. */
    bool notify;   /* Listen to NOTIFY. */
    int64_t delete_rows, delete_backlog_rows;
    int64_t copy_rows; /* A backlog above this is read by COPY. */
    int64_t connect_timeout_ms, statement_timeout_ms;
};

#endif
