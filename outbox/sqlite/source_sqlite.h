/* source_sqlite: what source_sqlite.c (reading), source_sqlite_write.c (deleting, setting aside,
 * people's decisions) and source_sqlite_open.c (opening) share; nobody else includes it. */
#ifndef FERRY_OUTBOX_SOURCE_SQLITE_H
#define FERRY_OUTBOX_SOURCE_SQLITE_H

#include <sqlite3.h>
#include <sys/types.h>

#include "outbox/relay/source.h"
#include "outbox/sqlite/cursor.h"
#include "outbox/sqlite/relay_lock.h"

enum source_statement {
    STATEMENT_READ,
    STATEMENT_READ_BARE,
    STATEMENT_HEADERS,
    STATEMENT_CHANGED,
    STATEMENT_LAST,
    STATEMENT_ID_AT,
    STATEMENT_OLDEST,
    STATEMENT_SOURCE_ID,
    STATEMENT_DECIDED,
    STATEMENT_PARKED,
    STATEMENT_PAUSED,
    STATEMENT_READER_COUNT, /* Those above are the reader's, those below the writer's. */
    STATEMENT_BEGIN = STATEMENT_READER_COUNT,
    STATEMENT_COMMIT,
    STATEMENT_SLICE_END,
    STATEMENT_REMOVE,
    STATEMENT_COPY_DEAD,
    STATEMENT_REMOVE_ONE,
    STATEMENT_PARK,
    STATEMENT_IS_PARKED,
    STATEMENT_COUNT
};

struct source_sqlite {
    char *path;         /* Resolved; owned. */
    struct ferry_id id; /* source_uuid of ferry_meta. */
    dev_t device;       /* Of the file that was opened, to notice another in its place. */
    ino_t inode;
    sqlite3 *reader, *writer;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    struct source_options options;
    int64_t data_version;             /* At the last call of `changed`. */
    struct source_cursor begun, last; /* Where reading began, and the greatest row handed out. */
    int64_t after;                    /* Where the next read begins. */
    int64_t deleted;                  /* Nothing is left up to here. */
    int lock_fd, wake_fd;             /* The second only where `first`. */
    bool first;                       /* The lock is ours. */
    int wal_fd;                       /* The WAL file, for the barrier; -1: no barrier. */
    struct ferry_header headers[SOURCE_HEADERS_MAX]; /* Of the row being read. */
};

/* Ids are the positions, and a target has the rows up to one. */
struct source_mark {
    int64_t position;
};

extern const struct source_ops source_sqlite_ops;

/* One number from a statement, which is reset after. *found is false when there is no row, or NULL.
 */
MUST_CHECK enum ferry_err source_sqlite_number(struct source_sqlite *s, enum source_statement which,
                                               bool *found, int64_t *number, struct err_text *e);

/* source_sqlite_write.c: as in source_ops. */
enum ferry_err source_sqlite_tidy(void *driver, const struct source_progress *progress,
                                  size_t *removed, bool *again, struct err_text *e);
enum ferry_err source_sqlite_set_aside(void *driver, const struct source_row *row,
                                       enum source_aside why, const char *reason, bool *done,
                                       struct err_text *e);
enum ferry_err source_sqlite_decided(void *driver, int64_t number, bool *decided,
                                     struct err_text *e);
enum ferry_err source_sqlite_parked(void *driver, source_parked_cb *callback, void *arg,
                                    struct err_text *e);
enum ferry_err source_sqlite_paused(void *driver, bool *paused, struct err_text *e);

static inline struct bytes source_sqlite_column(sqlite3_stmt *stmt, int at)
{
    const void *data = sqlite3_column_blob(stmt, at);
    return bytes_of(data, (size_t)sqlite3_column_bytes(stmt, at));
}

#endif
