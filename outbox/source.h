/* source: what the relay needs of a database, and a page of rows read from it.
 *
 * The relay's core is written against this table and includes no database header; source_sqlite.c
 * is the first driver. One thread uses a source.
 *
 * Positions: each row has one, greater than 0; a row that becomes visible later has a greater one,
 * and no position is used twice. The core compares positions and nothing else; a database whose
 * numbers do not behave so (sequences that commit out of order) gives positions of its own making.
 *
 * Errors of the driver functions: DB_RETRY (busy: try again later), DB_SCHEMA, NEWER_FORMAT, DB,
 * IO, NO_MEMORY, each with a detail. */
#ifndef FERRY_OUTBOX_SOURCE_H
#define FERRY_OUTBOX_SOURCE_H

#include "base/err.h"
#include "outbox/cursor.h"
#include "outbox/relay_lock.h"

#define SOURCE_ROW_MAX_BYTES (15u << 20) /* Larger ones fit no batch and are told as invalid. */
#define SOURCE_HEADERS_MAX   256u
#define SOURCE_INVALID_MAX   159

struct source_row {
    int64_t position;
    struct ferry_message message; /* Points into the page. */
    const char *invalid; /* Why it cannot be a message (text in the page), or NULL. Then only its
                            position and topic count. */
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

struct source_ops {
    void (*close)(void *driver);
    struct ferry_id (*id)(void *driver);
    const char *(*name)(void *driver); /* For people. */
    /* Rows after a position, in order, at most `rows_max`, ending early when the page holds
     * `bytes_max`. *more: the end was not reached. What the page holds is safe on disk. */
    enum ferry_err (*read)(void *driver, int64_t after, size_t rows_max, size_t bytes_max,
                           struct source_page *page, bool *more, struct err_text *e);
    /* Cheap: whether anything was committed since the last call. */
    enum ferry_err (*changed)(void *driver, bool *changed, struct err_text *e);
    /* The greatest position ever given. */
    enum ferry_err (*last)(void *driver, int64_t *position, struct err_text *e);
    /* Whether the source is still the one that `cursor` was taken from: false (with a detail) when
     * it was set back in time, or another file lies in its place. */
    enum ferry_err (*verify)(void *driver, const struct source_cursor *cursor, bool *same,
                             struct err_text *e);
    /* When the first row after a position was made. */
    enum ferry_err (*oldest)(void *driver, int64_t after, bool *found, int64_t *created_ms,
                             struct err_text *e);
    /* Deletes rows up to and with `through`, at most `rows_max`, in one transaction of its own. */
    enum ferry_err (*remove)(void *driver, int64_t through, size_t rows_max, size_t *removed,
                             struct err_text *e);
    /* Moves one row to the dead ones, with the reason. No row there: nothing to do. */
    enum ferry_err (*set_aside)(void *driver, int64_t position, const char *reason,
                                struct err_text *e);
    int (*wake_fd)(void *driver); /* Readable after a commit was announced; -1: none. */
    void (*wake_drain)(void *driver);
    /* For `ferry outbox status`. A relay that found another one here becomes the first by it once
     * that one has gone. */
    void (*leave_word)(void *driver, const struct relay_word *word);
    /* Whether no other relay of this machine was here before this one. */
    bool (*is_first)(void *driver);
};

struct source {
    const struct source_ops *ops;
    void *driver;
};

enum source_flags {
    SOURCE_BARRIER = 1,  /* What was read is fsynced before it is handed on. */
    SOURCE_STAND_BY = 2, /* Opened although another relay of this machine is here: who serves it is
                            then for the lease alone to say. */
};

/* Opens the outbox of a database file. Errors: as above, and LOCKED (another relay is here, and
 * SOURCE_STAND_BY is not set). */
MUST_CHECK enum ferry_err source_open_sqlite(struct source *source, const char *path,
                                             unsigned flags, struct err_text *e);
void source_close(struct source *source); /* Accepts zeroed memory. */

#endif
