/* source_postgresql: what the files of the PostgreSQL source share; nobody else includes it.
 *
 * Two connections: `reader` asks for snapshots and pages; `side` does what writes (the barrier,
 * setting rows aside, emptying a leaf) and what people and the core ask in between; with
 * relay.notify a third one listens. None is ever
 * inside a transaction between calls. An answer that does not come within PG_LINK_TAKE_US is taken
 * by a later call of `read`, which says meanwhile that there is more.
 *
 * Invariants: (1) a snapshot that a mark or a checkpoint names was taken before the write-ahead log
 * was flushed up to what was written when it was taken: neither a row nor a transaction's number
 * that it saw as used can come back after a crash of the database. (2) No row is handed out of a
 * connection, and nothing written over one, on which the database's identity was not looked at; a
 * snapshot that is not on disk yet does not outlive its connection. (3) Ends of a tick are judged
 * by literal bounds, each statement in its own short transaction: no snapshot is held. */
#ifndef FERRY_OUTBOX_POSTGRESQL_SOURCE_POSTGRESQL_H
#define FERRY_OUTBOX_POSTGRESQL_SOURCE_POSTGRESQL_H

#include "outbox/postgresql/db_postgresql.h"
#include "outbox/postgresql/pg_link.h"
#include "outbox/postgresql/pg_url.h"
#include "outbox/postgresql/ticks.h"

enum pg_statement {
    PG_PROBE,
    PG_SNAPSHOT,
    PG_SIZE,
    PG_BOUNDS,
    PG_SMALL,
    PG_WINDOW,
    PG_FLUSHED,
    PG_IDENTITY,
    PG_ROW,
    PG_MSG_ID,
    PG_BARRIER,
    PG_ASIDE,
    PG_ASIDE_PARKED,
    PG_ASIDE_PARK,
    PG_DECIDED,
    PG_PARKED,
    PG_PAUSED,
    PG_FIGURES,
    PG_OLDEST,
    PG_LEAVES,
    PG_SETTINGS,
    PG_LANES,
    PG_LANES_USED,
    PG_NOTIFY,
    PG_STATEMENT_COUNT
};
_Static_assert(PG_STATEMENT_COUNT <= PG_LINK_STATEMENTS_MAX, "a link keeps as many");

extern const char *const source_pg_statements[PG_STATEMENT_COUNT];

/* What the reader was asked. */
enum pg_reading {
    PG_READING_NOTHING,
    PG_READING_PROBE,
    PG_READING_FLUSHED, /* Whether the candidate is on disk by now. */
    PG_READING_SIZE,
    PG_READING_BOUNDS,
    PG_READING_PAGE,
    PG_READING_COPY,    /* Until it ends: several pages. */
    PG_READING_DROPPED, /* Asked before a rewind: its answer is for nobody. */
};

/* How a tick is read. A COPY is given up by closing its connection: when the source is rewound, and
 * when it is held up for two seconds. What it is worth, alternating, 600,000 rows of 200 bytes, CPU
 * of server and reader a row: windows 1.7 and 0.9 us, COPY 1.0 and 0.25 us. The windows' difference
 * in the server is the sum that ends a page by its bytes. (source_pg_big_test does both; FERRY_ROWS
 * sets how many.) */
enum pg_way {
    PG_WAY_UNKNOWN,
    PG_WAY_SMALL,  /* All that is left of it in one statement, by transaction. */
    PG_WAY_WINDOW, /* By windows of numbers. */
    PG_WAY_COPY,   /* By windows, each a COPY that streams while its rows are sent. */
};

/* Who and where the database is. */
struct pg_identity {
    bool in_recovery;
    uint64_t system, insert_lsn, xmax;
    uint32_t timeline, database;
    struct ferry_id source;
    uint32_t lanes;
    int64_t version;
};

/* Listening to NOTIFY. */
enum pg_notify_state {
    PG_NOTIFY_DOWN,
    PG_NOTIFY_TRYING, /* Our own word was announced and is not here yet. */
    PG_NOTIFY_WORKS,
    PG_NOTIFY_SILENT, /* It did not come. Should it come late, it works after all. */
};
enum pg_notify_said { PG_NOTIFY_SAID_NOTHING, PG_NOTIFY_SAID_WORKS, PG_NOTIFY_SAID_SILENT };

struct pg_notify {
    struct pg_link link;
    int epoll_fd; /* Of the datagram's socket and the link's: what the relay waits for. -1: off. */
    enum pg_notify_state state;
    enum pg_notify_said said; /* To a person, last. */
    bool said_trigger;
    bool fresh;    /* Rows were announced, and that is not counted yet. */
    char word[48]; /* Ours. */
    int64_t tried_us;
};

/* Of another lane: up to where its rows need not be read again. */
struct pg_lane {
    struct snapshot *kept; /* NULL: not known. */
    int64_t asked_us;      /* 0: not. */
};

struct source_pg {
    struct pg_url url;
    struct pg_target target;
    struct source_options options;
    struct pg_link reader, side;
    struct pg_identity identity; /* When it was opened. */
    /* The connections of which the identity was seen. */
    uint64_t checked_connects, side_checked_connects;
    bool set_back;
    struct err_text set_back_words;

    struct ticks ticks;
    uint64_t flushed; /* Greatest place known to be flushed, on this timeline. */
    /* Up to here the log has to be there for what the snapshots in use saw; at most `flushed` when
     * it was noted. Cursors keep it. */
    uint64_t covered;
    char *history; /* Of the timelines before this one; NULL: not asked. */
    uint32_t history_timeline;

    /* Reading. */
    enum pg_reading reading;
    struct snapshot *candidate; /* The next upper, once it is on disk. */
    uint64_t candidate_lsn;
    int64_t candidate_rows;
    int64_t candidate_asked_us; /* When a barrier was written for it; 0: not. */
    struct snapshot *idle;      /* Nothing new was seen in it; not on disk yet. */
    uint64_t idle_lsn;
    enum pg_way way;
    const struct snapshot *way_upper; /* Which tick `way` is of, never looked into. */
    const struct snapshot *way_lower;
    bool way_extra;
    int64_t window_to, seq_min, seq_max;
    int64_t copy_from_us;                            /* When the COPY was asked for. */
    bool copy_first;                                 /* Nothing of it came yet. */
    size_t rows_limit, bytes_limit;                  /* Of the page that was asked for. */
    struct ferry_header headers[SOURCE_HEADERS_MAX]; /* Of the row being read. */

    /* `changed`. */
    struct snapshot *seen;

    /* The ring. */
    int64_t ring_at_us;
    unsigned ring_leaf; /* Looked at next. */
    struct snapshot *told,
        *kept; /* Bases of checkpoints: given to the core; kept by the brokers. */
    int64_t told_position;
    int64_t ring_now_us;
    uint32_t lane_wanted; /* 0: none. */
    struct pg_lane lanes[SOURCE_LANES_MAX];

    int wake_fd; /* The datagram's. */
    struct pg_notify notify;
    char wake_name[DB_POSTGRESQL_PLACE_MAX];
    int place_fd;                   /* Held by relay_place.h; -1: not. */
    struct source_figures counters; /* truncates, barriers, … only. */
};

extern const struct source_ops source_pg_ops;

enum ferry_err source_pg_read(void *driver, size_t rows_max, size_t bytes_max,
                              struct source_page *page, bool *more, struct err_text *e);
/* What was asked and what was to be next; the ticks stay. */
void source_pg_forget(struct source_pg *d);
/* Another row is to be next than what was asked. */
void source_pg_read_anew(struct source_pg *d);
void source_pg_rewind(void *driver, int64_t after);
enum ferry_err source_pg_changed(void *driver, bool *changed, struct err_text *e);
/* Adds the rows of a result of PG_SMALL or PG_WINDOW, without positions. *bytes: as the statement
 * counts them, or more. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err source_pg_rows(struct source_pg *d, const PGresult *r,
                                         struct source_page *page, int64_t *bytes);
/* The same of a piece of a COPY's answer, which may hold no row. CORRUPT: it is none. */
MUST_CHECK enum ferry_err source_pg_copied_row(struct source_pg *d, struct bytes data, bool first,
                                               struct source_page *page, int64_t *bytes);
/* A COPY of one window of numbers. Between `from` and `to`, of this job; no parameters. */
void source_pg_copy_text(const struct source_pg *d, const struct ticks_job *job, int64_t from,
                         int64_t to, struct buf *out);
/* A COPY that is held up for too long is given up: its rows are asked for again. */
void source_pg_copy_tire(struct source_pg *d);
#define PG_REMEDY ": run `ferry outbox rebase URL`"

/* Looks at the database over this link. DB_RETRY: it is a standby; the link is taken down. */
MUST_CHECK enum ferry_err source_pg_identify(struct source_pg *d, struct pg_link *link,
                                             struct pg_identity *identity, struct err_text *e);
/* *same false: it is another, or was set back; the words are in `e` and kept. On a timeline that
 * has all that is in use, the source goes on there, and the other connections are made anew.
 * Errors: DB_RETRY, NO_MEMORY. */
MUST_CHECK enum ferry_err source_pg_recognize(struct source_pg *d, struct pg_link *link,
                                              const struct pg_identity *now, bool *same,
                                              struct err_text *e);
/* Whether what was at `place` of that timeline is on the server's now, which has it up to *left;
 * if not, the words are in `e`. Errors: DB_RETRY, NO_MEMORY. */
MUST_CHECK enum ferry_err source_pg_follows(struct source_pg *d, struct pg_link *link,
                                            uint32_t timeline, uint64_t place,
                                            const struct pg_identity *now, bool *same,
                                            uint64_t *left, struct err_text *e);
/* The source is on that timeline now, seen over `link`; it left the old one at `left`. */
void source_pg_adopt(struct source_pg *d, const struct pg_link *link, uint32_t timeline,
                     uint64_t left);
/* Whether a cursor with this place can be of this database. */
MUST_CHECK enum ferry_err source_pg_place_is_here(struct source_pg *d,
                                                  const struct cover_place *place,
                                                  const struct cover *cover, bool *same,
                                                  struct err_text *e);
MUST_CHECK enum ferry_err source_pg_open(struct source *source, const char *url,
                                         const struct source_options *options, struct err_text *e);
void source_pg_listen(struct source_pg *d);
/* Errors: IO. */
MUST_CHECK enum ferry_err source_pg_notify_init(struct source_pg *d, struct err_text *e);
void source_pg_notify_fini(struct source_pg *d);
void source_pg_notify_watch(const struct source_pg *d, int fd); /* Nothing when it is off. */
void source_pg_notify_step(struct source_pg *d);                /* Once a second. */
void source_pg_notify_drain(struct source_pg *d);               /* Takes what was announced. */
/* The side connection, up; of the database that it was. */
MUST_CHECK enum ferry_err source_pg_side(struct source_pg *d, struct err_text *e);
/* Settings that lose committed rows, or the order of a key. Errors: DB. */
MUST_CHECK enum ferry_err source_pg_check_settings(struct source_pg *d, struct err_text *e);
MUST_CHECK enum ferry_err source_pg_barrier(struct source_pg *d, struct err_text *e);
MUST_CHECK enum ferry_err source_pg_tidy(void *driver, const struct source_progress *progress,
                                         size_t *removed, bool *again, struct err_text *e);
bool source_pg_wants_lane(void *driver, uint32_t *lane);
void source_pg_take_lane(void *driver, uint32_t lane, bool active, struct bytes checkpoint);
void source_pg_lanes_forget(struct source_pg *d);
enum ferry_err source_pg_figures(void *driver, int64_t settled, struct source_figures *figures,
                                 struct err_text *e);

#endif
