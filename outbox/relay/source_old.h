/* source_old: the table of drivers before source.h, until the core and SQLite are moved to it. */
#ifndef FERRY_OUTBOX_RELAY_SOURCE_OLD_H
#define FERRY_OUTBOX_RELAY_SOURCE_OLD_H

#include "outbox/relay/cursor.h"
#include "outbox/relay/source.h"
#include "outbox/sqlite/relay_lock.h"

struct old_source_ops {
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

struct old_source {
    const struct old_source_ops *ops;
    void *driver;
};

enum source_flags {
    SOURCE_BARRIER = 1,  /* What was read is fsynced before it is handed on. */
    SOURCE_STAND_BY = 2, /* Opened although another relay of this machine is here: who serves it is
                            then for the lease alone to say. */
};

/* Opens the outbox of a database file. Errors: as above, and LOCKED (another relay is here, and
 * SOURCE_STAND_BY is not set). */
MUST_CHECK enum ferry_err source_open_sqlite(struct old_source *source, const char *path,
                                             unsigned flags, struct err_text *e);
static inline void old_source_close(struct old_source *source)
{
    if (source->ops != NULL) {
        source->ops->close(source->driver);
    }
    *source = (struct old_source){0};
}

#endif
