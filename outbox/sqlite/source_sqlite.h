/* source_sqlite: what source_sqlite.c (reading and writing) and source_sqlite_open.c (opening)
 * share; nobody else includes it. */
#ifndef FERRY_OUTBOX_SOURCE_SQLITE_H
#define FERRY_OUTBOX_SOURCE_SQLITE_H

#include <sqlite3.h>
#include <sys/types.h>

#include "outbox/relay/source_old.h"

enum source_statement {
    STATEMENT_READ,
    STATEMENT_HEADERS,
    STATEMENT_CHANGED,
    STATEMENT_LAST,
    STATEMENT_ID_AT,
    STATEMENT_OLDEST,
    STATEMENT_READER_COUNT, /* Those above are the reader's, those below the writer's. */
    STATEMENT_BEGIN = STATEMENT_READER_COUNT,
    STATEMENT_COMMIT,
    STATEMENT_SLICE_END,
    STATEMENT_REMOVE,
    STATEMENT_COPY_DEAD,
    STATEMENT_REMOVE_ONE,
    STATEMENT_COUNT
};

struct source_sqlite {
    char *path;         /* Resolved; owned. */
    struct ferry_id id; /* source_uuid of ferry_meta. */
    dev_t device;       /* Of the file that was opened, to notice another in its place. */
    ino_t inode;
    sqlite3 *reader, *writer;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    int64_t data_version; /* At the last call of `changed`. */
    int lock_fd, wake_fd; /* The second only where `first`. */
    bool first;           /* The lock is ours. */
    int wal_fd;           /* The WAL file, for the barrier; -1: no barrier. */
    struct ferry_header headers[SOURCE_HEADERS_MAX]; /* Of the row being read. */
};

extern const struct old_source_ops source_sqlite_ops;

static inline struct bytes source_sqlite_column(sqlite3_stmt *stmt, int at)
{
    const void *data = sqlite3_column_blob(stmt, at);
    return bytes_of(data, (size_t)sqlite3_column_bytes(stmt, at));
}

#endif
