/* source_sqlite: the outbox table of a SQLite file, as the relay reads it.
 *
 * Two connections: `reader` is read-only and never inside a transaction between calls, so that
 * checkpoints are not held up; `writer` deletes what is published and sets rows aside, each in one
 * IMMEDIATE transaction. SQLite has one writer at a time and AUTOINCREMENT never repeats an id, so
 * ids become visible in order and the id is the position. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "outbox/source.h"
#include "outbox/sqlite_error.h"
#include "outbox/wake.h"
#include "wire/batch.h"

/* How long a write waits for the application's own. Short, because nothing else of this relay
 * happens meanwhile, its lease's renewal included; what could not be written is tried again later.
 */
#define WRITER_BUSY_MS 500
#define READER_BUSY_MS 500

enum statement {
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

static const char *const statement_texts[STATEMENT_COUNT] = {
    [STATEMENT_READ] = "SELECT id, topic, mkey, msg_id, headers, payload, created_ms "
                       "FROM ferry_outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
    [STATEMENT_HEADERS] = "SELECT key, value, type FROM json_each(?1)",
    [STATEMENT_CHANGED] = "PRAGMA data_version",
    [STATEMENT_LAST] = "SELECT max(coalesce((SELECT max(id) FROM ferry_outbox), 0), coalesce("
                       "(SELECT seq FROM sqlite_sequence WHERE name = 'ferry_outbox'), 0))",
    [STATEMENT_ID_AT] = "SELECT msg_id FROM ferry_outbox WHERE id = ?1",
    [STATEMENT_OLDEST] = "SELECT created_ms FROM ferry_outbox WHERE id > ?1 ORDER BY id LIMIT 1",
    [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_SLICE_END] = "SELECT max(id) FROM (SELECT id FROM ferry_outbox WHERE id <= ?1 "
                            "ORDER BY id LIMIT ?2)",
    [STATEMENT_REMOVE] = "DELETE FROM ferry_outbox WHERE id <= ?1",
    [STATEMENT_COPY_DEAD] =
        "INSERT OR REPLACE INTO ferry_outbox_dead (id, topic, mkey, msg_id, headers, payload, "
        "created_ms, reason, dead_ms) SELECT id, topic, mkey, msg_id, headers, payload, "
        "created_ms, "
        "?2, CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) "
        "FROM ferry_outbox WHERE id = ?1",
    [STATEMENT_REMOVE_ONE] = "DELETE FROM ferry_outbox WHERE id = ?1",
};

struct source_sqlite {
    char *path;         /* Resolved; owned. */
    struct ferry_id id; /* source_uuid of ferry_meta. */
    dev_t device;       /* Of the file that was opened, to notice another in its place. */
    ino_t inode;
    sqlite3 *reader, *writer;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    int64_t data_version; /* At the last call of `changed`. */
    int lock_fd, wake_fd;
    int wal_fd; /* The WAL file, for the barrier; -1: no barrier. */
    struct ferry_header headers[SOURCE_HEADERS_MAX]; /* Of the row being read. */
};

static void driver_close(void *driver)
{
    struct source_sqlite *s = driver;
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(s->statements[i]);
    }
    sqlite3_close(s->reader);
    sqlite3_close(s->writer);
    if (s->wal_fd >= 0) {
        close(s->wal_fd);
    }
    if (s->path != NULL) {
        wake_close(s->path, &s->wake_fd);
    }
    relay_lock_release(&s->lock_fd);
    free(s->path); /* From realpath. */
    mem_free(s);
}

static struct ferry_id driver_id(void *driver)
{
    const struct source_sqlite *s = driver;
    return s->id;
}

static const char *driver_name(void *driver)
{
    const struct source_sqlite *s = driver;
    return s->path;
}

static sqlite3_stmt *reset(struct source_sqlite *s, enum statement which)
{
    sqlite3_reset(s->statements[which]);
    return s->statements[which];
}

static enum ferry_err read_failed(struct source_sqlite *s, int code, struct err_text *e)
{
    return sqlite_error(s->reader, code, s->path, e);
}

static struct bytes column_bytes(sqlite3_stmt *stmt, int at)
{
    const void *data = sqlite3_column_blob(stmt, at);
    return bytes_of(data, (size_t)sqlite3_column_bytes(stmt, at));
}

/* ---- Headers: a JSON object of strings, or the msgpack map of ferry_outbox_put. */

static enum ferry_err row_invalid(struct source_page *page, struct source_row *row, const char *why)
{
    row->invalid = source_page_text(page, bytes_of_string(why));
    return row->invalid == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
}

static bool header_add(struct source_page *page, struct ferry_header *headers, size_t at,
                       struct bytes name, struct bytes value)
{
    char *name_copy = source_page_text(page, name);
    char *value_copy = source_page_text(page, value);
    if (name_copy == NULL || value_copy == NULL) {
        return false;
    }
    headers[at] = (struct ferry_header){name_copy, value_copy, value.size};
    return true;
}

static bool header_name_is_valid(struct bytes name)
{
    return name.size >= 1 && name.size <= 255 && memchr(name.data, 0, name.size) == NULL;
}

static enum ferry_err headers_from_map(struct source_page *page, struct source_row *row,
                                       struct bytes map, struct ferry_header *headers)
{
    if (batch_check_headers(map) != FERRY_OK) {
        return row_invalid(page, row, "headers: the BLOB is not a msgpack map of strings");
    }
    size_t position = 0;
    size_t count = 0;
    struct bytes name;
    struct bytes value;
    while (batch_next_header(map, &position, &name, &value)) {
        if (count == SOURCE_HEADERS_MAX || !header_name_is_valid(name)) {
            return row_invalid(page, row,
                               "headers: more than 256, or a name not of 1 to 255 bytes");
        }
        if (!header_add(page, headers, count++, name, value)) {
            return FERRY_ERR_NO_MEMORY;
        }
    }
    row->message.header_count = count;
    return FERRY_OK;
}

static enum ferry_err headers_from_json(struct source_sqlite *s, struct source_page *page,
                                        struct source_row *row, struct bytes text,
                                        struct ferry_header *headers)
{
    sqlite3_stmt *stmt = reset(s, STATEMENT_HEADERS);
    sqlite3_bind_text64(stmt, 1, (const char *)text.data, text.size, SQLITE_STATIC, SQLITE_UTF8);
    enum ferry_err err = FERRY_OK;
    size_t count = 0;
    int code = SQLITE_ROW;
    while (err == FERRY_OK && row->invalid == NULL && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct bytes name = column_bytes(stmt, 0);
        const char *type = (const char *)sqlite3_column_text(stmt, 2);
        if (count == SOURCE_HEADERS_MAX || !header_name_is_valid(name)) {
            err = row_invalid(page, row, "headers: more than 256, or a name not of 1 to 255 bytes");
        } else if (type == NULL || strcmp(type, "text") != 0) {
            err = row_invalid(page, row, "headers: the JSON object has a value that is no string");
        } else if (!header_add(page, headers, count++, name, column_bytes(stmt, 1))) {
            err = FERRY_ERR_NO_MEMORY;
        }
    }
    if (err == FERRY_OK && code != SQLITE_ROW && code != SQLITE_DONE) {
        err = row_invalid(page, row, "headers: the text is not a JSON object");
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    row->message.header_count = count;
    return err;
}

static enum ferry_err row_headers(struct source_sqlite *s, struct source_page *page,
                                  struct source_row *row, sqlite3_stmt *stmt)
{
    int type = sqlite3_column_type(stmt, 4);
    struct bytes value = column_bytes(stmt, 4);
    if (type == SQLITE_NULL || value.size == 0) {
        return FERRY_OK;
    }
    enum ferry_err err = type == SQLITE_BLOB ? headers_from_map(page, row, value, s->headers)
                                             : headers_from_json(s, page, row, value, s->headers);
    size_t bytes = row->message.header_count * sizeof(struct ferry_header);
    if (err != FERRY_OK || bytes == 0) {
        return err;
    }
    struct ferry_header *headers = source_page_take(page, bytes);
    if (headers == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(headers, s->headers, bytes);
    row->message.headers = headers;
    return FERRY_OK;
}

/* ---- Rows. */

/* Rows next to each other mostly have one topic: its name is kept once. */
static const char *row_topic(struct source_page *page, struct bytes topic)
{
    if (page->count >= 2) {
        const char *before = page->rows[page->count - 2].message.topic;
        if (strlen(before) == topic.size && memcmp(before, topic.data, topic.size) == 0) {
            return before;
        }
    }
    return source_page_text(page, topic);
}

static enum ferry_err row_key_and_payload(struct source_page *page, struct source_row *row,
                                          sqlite3_stmt *stmt)
{
    bool has_key = sqlite3_column_type(stmt, 2) != SQLITE_NULL;
    struct bytes key = column_bytes(stmt, 2);
    struct bytes payload = column_bytes(stmt, 5);
    char *memory = source_page_take(page, key.size + payload.size + 1);
    if (memory == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (key.size > 0) {
        memcpy(memory, key.data, key.size);
    }
    if (payload.size > 0) {
        memcpy(memory + key.size, payload.data, payload.size);
    }
    row->message.key = has_key ? memory : NULL;
    row->message.key_bytes = key.size;
    row->message.payload = memory + key.size;
    row->message.payload_bytes = payload.size;
    return FERRY_OK;
}

static enum ferry_err add_row(struct source_sqlite *s, struct source_page *page, sqlite3_stmt *stmt)
{
    struct source_row *row = source_page_add(page);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    row->position = sqlite3_column_int64(stmt, 0);
    row->message.partition = FERRY_PARTITION_ANY;
    row->message.timestamp_ms = sqlite3_column_int64(stmt, 6);
    row->message.topic = row_topic(page, column_bytes(stmt, 1));
    if (row->message.topic == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct bytes id = column_bytes(stmt, 3);
    if (id.size == sizeof(row->message.id.bytes)) {
        memcpy(row->message.id.bytes, id.data, id.size);
    }
    size_t bytes = (size_t)sqlite3_column_bytes(stmt, 2) + (size_t)sqlite3_column_bytes(stmt, 4) +
                   (size_t)sqlite3_column_bytes(stmt, 5);
    if (bytes > SOURCE_ROW_MAX_BYTES) {
        return row_invalid(page, row, "the message is larger than any batch");
    }
    enum ferry_err err = row_headers(s, page, row, stmt);
    return err == FERRY_OK ? row_key_and_payload(page, row, stmt) : err;
}

/* A commit of an application that runs with synchronous=NORMAL is visible before it is on disk; a
 * power failure would take it back after the message has gone out. So the WAL is synced first, once
 * a page: no row of ours is written for it. */
static enum ferry_err barrier(const struct source_sqlite *s, struct err_text *e)
{
    if (s->wal_fd < 0 || fdatasync(s->wal_fd) == 0) {
        return FERRY_OK;
    }
    return err_set(e, FERRY_ERR_IO, "%s-wal: fdatasync: %s", s->path, strerror(errno));
}

static enum ferry_err driver_read(void *driver, int64_t after, size_t rows_max, size_t bytes_max,
                                  struct source_page *page, bool *more, struct err_text *e)
{
    struct source_sqlite *s = driver;
    sqlite3_stmt *stmt = reset(s, STATEMENT_READ);
    sqlite3_bind_int64(stmt, 1, after);
    sqlite3_bind_int64(stmt, 2, (int64_t)rows_max);
    source_page_clear(page);
    enum ferry_err err = FERRY_OK;
    int code = SQLITE_ROW;
    while (err == FERRY_OK && page->bytes < bytes_max &&
           (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        err = add_row(s, page, stmt);
    }
    if (err == FERRY_OK && code != SQLITE_ROW && code != SQLITE_DONE) {
        err = read_failed(s, code, e);
    } else if (err == FERRY_ERR_NO_MEMORY) {
        err_set(e, err, "%s: out of memory: lower relay.page_bytes", s->path);
    }
    sqlite3_reset(stmt);
    if (err == FERRY_OK && page->count > 0) {
        err = barrier(s, e);
    }
    if (err != FERRY_OK) {
        source_page_clear(page);
        return err;
    }
    *more = code == SQLITE_ROW || page->count == rows_max;
    return FERRY_OK;
}

/* One number from a statement of the reader. *found is false when there is no row, or NULL. */
static enum ferry_err read_number(struct source_sqlite *s, enum statement which, bool *found,
                                  int64_t *number, struct err_text *e)
{
    sqlite3_stmt *stmt = s->statements[which];
    int code = sqlite3_step(stmt);
    enum ferry_err err = FERRY_OK;
    *found = false;
    if (code == SQLITE_ROW) {
        *found = sqlite3_column_type(stmt, 0) != SQLITE_NULL;
        *number = sqlite3_column_int64(stmt, 0);
    } else if (code != SQLITE_DONE) {
        err =
            sqlite_error(which < STATEMENT_READER_COUNT ? s->reader : s->writer, code, s->path, e);
    }
    sqlite3_reset(stmt);
    return err;
}

static enum ferry_err driver_changed(void *driver, bool *changed, struct err_text *e)
{
    struct source_sqlite *s = driver;
    bool found = false;
    int64_t version = 0;
    enum ferry_err err = read_number(s, STATEMENT_CHANGED, &found, &version, e);
    if (err == FERRY_OK) {
        *changed = version != s->data_version;
        s->data_version = version;
    }
    return err;
}

static enum ferry_err driver_last(void *driver, int64_t *position, struct err_text *e)
{
    bool found = false;
    *position = 0;
    return read_number(driver, STATEMENT_LAST, &found, position, e);
}

static enum ferry_err driver_oldest(void *driver, int64_t after, bool *found, int64_t *created_ms,
                                    struct err_text *e)
{
    struct source_sqlite *s = driver;
    sqlite3_bind_int64(reset(s, STATEMENT_OLDEST), 1, after);
    return read_number(s, STATEMENT_OLDEST, found, created_ms, e);
}

static bool file_was_replaced(const struct source_sqlite *s)
{
    struct stat st;
    return stat(s->path, &st) != 0 || st.st_dev != s->device || st.st_ino != s->inode;
}

/* Compares the row at the cursor, if it is still there, with the one the cursor was taken from. */
static enum ferry_err verify_id_at(struct source_sqlite *s, const struct source_cursor *cursor,
                                   bool *same, struct err_text *e)
{
    sqlite3_stmt *stmt = reset(s, STATEMENT_ID_AT);
    sqlite3_bind_int64(stmt, 1, cursor->position);
    int code = sqlite3_step(stmt);
    enum ferry_err err = FERRY_OK;
    if (code == SQLITE_ROW) {
        struct bytes id = column_bytes(stmt, 0);
        *same = bytes_equal(id, bytes_of(cursor->id.bytes, sizeof(cursor->id.bytes)));
        if (!*same) {
            err_set(e, FERRY_OK,
                    "%s was set back in time: row %lld is another message than the one published "
                    "under that id",
                    s->path, (long long)cursor->position);
        }
    } else if (code != SQLITE_DONE) {
        err = read_failed(s, code, e);
    }
    sqlite3_reset(stmt);
    return err;
}

static enum ferry_err driver_verify(void *driver, const struct source_cursor *cursor, bool *same,
                                    struct err_text *e)
{
    struct source_sqlite *s = driver;
    static const struct ferry_id none;
    *same = false;
    if (file_was_replaced(s)) {
        err_set(e, FERRY_OK, "%s was replaced or removed: start ferry-outbox again on the new file",
                s->path);
        return FERRY_OK;
    }
    int64_t last = 0;
    enum ferry_err err = driver_last(s, &last, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (last < cursor->position) {
        err_set(e, FERRY_OK,
                "%s was set back in time: rows up to id %lld were published, its last is %lld",
                s->path, (long long)cursor->position, (long long)last);
        return FERRY_OK;
    }
    *same = true;
    if (cursor->position == 0 || memcmp(&cursor->id, &none, sizeof(none)) == 0) {
        return FERRY_OK;
    }
    return verify_id_at(s, cursor, same, e);
}

/* ---- Writing. */

static enum ferry_err write_step(struct source_sqlite *s, enum statement which, struct err_text *e)
{
    int code = sqlite3_step(s->statements[which]);
    enum ferry_err err = code == SQLITE_DONE ? FERRY_OK : sqlite_error(s->writer, code, s->path, e);
    sqlite3_reset(s->statements[which]);
    return err;
}

static enum ferry_err write_end(struct source_sqlite *s, enum ferry_err err, struct err_text *e)
{
    if (err == FERRY_OK) {
        err = write_step(s, STATEMENT_COMMIT, e);
    }
    if (err != FERRY_OK && sqlite3_get_autocommit(s->writer) == 0) {
        sqlite3_exec(s->writer, "ROLLBACK", NULL, NULL, NULL);
    }
    return err;
}

static enum ferry_err remove_slice(struct source_sqlite *s, int64_t through, size_t rows_max,
                                   size_t *removed, struct err_text *e)
{
    sqlite3_bind_int64(s->statements[STATEMENT_SLICE_END], 1, through);
    sqlite3_bind_int64(s->statements[STATEMENT_SLICE_END], 2, (int64_t)rows_max);
    bool found = false;
    int64_t slice_end = 0;
    enum ferry_err err = read_number(s, STATEMENT_SLICE_END, &found, &slice_end, e);
    *removed = 0;
    if (err != FERRY_OK || !found) {
        return err;
    }
    must(slice_end <= through);
    sqlite3_bind_int64(s->statements[STATEMENT_REMOVE], 1, slice_end);
    err = write_step(s, STATEMENT_REMOVE, e);
    if (err == FERRY_OK) {
        *removed = (size_t)sqlite3_changes64(s->writer);
    }
    return err;
}

static enum ferry_err driver_remove(void *driver, int64_t through, size_t rows_max, size_t *removed,
                                    struct err_text *e)
{
    struct source_sqlite *s = driver;
    enum ferry_err err = write_step(s, STATEMENT_BEGIN, e);
    if (err != FERRY_OK) {
        return err;
    }
    return write_end(s, remove_slice(s, through, rows_max, removed, e), e);
}

static enum ferry_err driver_set_aside(void *driver, int64_t position, const char *reason,
                                       struct err_text *e)
{
    struct source_sqlite *s = driver;
    enum ferry_err err = write_step(s, STATEMENT_BEGIN, e);
    if (err != FERRY_OK) {
        return err;
    }
    sqlite3_stmt *copy = s->statements[STATEMENT_COPY_DEAD];
    sqlite3_bind_int64(copy, 1, position);
    sqlite3_bind_text(copy, 2, reason, -1, SQLITE_STATIC);
    err = write_step(s, STATEMENT_COPY_DEAD, e);
    sqlite3_clear_bindings(copy);
    if (err == FERRY_OK) {
        sqlite3_bind_int64(s->statements[STATEMENT_REMOVE_ONE], 1, position);
        err = write_step(s, STATEMENT_REMOVE_ONE, e);
    }
    return write_end(s, err, e);
}

/* ---- Wake and word. */

static int driver_wake_fd(void *driver)
{
    const struct source_sqlite *s = driver;
    return s->wake_fd;
}

static void driver_wake_drain(void *driver)
{
    const struct source_sqlite *s = driver;
    if (s->wake_fd >= 0) {
        wake_drain(s->wake_fd);
    }
}

static void driver_leave_word(void *driver, const struct relay_word *word)
{
    const struct source_sqlite *s = driver;
    relay_lock_write(s->lock_fd, word);
}

static const struct source_ops sqlite_ops = {
    .close = driver_close,
    .id = driver_id,
    .name = driver_name,
    .read = driver_read,
    .changed = driver_changed,
    .last = driver_last,
    .verify = driver_verify,
    .oldest = driver_oldest,
    .remove = driver_remove,
    .set_aside = driver_set_aside,
    .wake_fd = driver_wake_fd,
    .wake_drain = driver_wake_drain,
    .leave_word = driver_leave_word,
};

/* ---- Opening. */

/* WAL's shared memory does not work between machines, and half of the file systems that pretend
 * otherwise lose locks. */
static enum ferry_err check_file_system(const struct source_sqlite *s, struct err_text *e)
{
    static const struct {
        long magic;
        const char *name;
    } refused[] = {
        {0x6969, "NFS"}, {0x517b, "SMB"}, {(long)0xff534d42u, "CIFS"}, {(long)0xfe534d42u, "SMB2"}};
    struct statfs fs;
    if (statfs(s->path, &fs) != 0) {
        return err_set(e, FERRY_ERR_IO, "%s: statfs: %s", s->path, strerror(errno));
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if ((long)fs.f_type == refused[i].magic) {
            return err_set(e, FERRY_ERR_DB,
                           "%s lies on %s, where SQLite's WAL loses data: move it to a local disk",
                           s->path, refused[i].name);
        }
    }
    return FERRY_OK;
}

static enum ferry_err open_connection(struct source_sqlite *s, int flags, int busy_ms,
                                      sqlite3 **connection, struct err_text *e)
{
    int code = sqlite3_open_v2(s->path, connection, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        return sqlite_error(*connection, code, s->path, e);
    }
    sqlite3_busy_timeout(*connection, busy_ms);
    return FERRY_OK;
}

static enum ferry_err check_journal(struct source_sqlite *s, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(s->writer, "PRAGMA journal_mode", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    enum ferry_err err = FERRY_OK;
    if (code != SQLITE_ROW) {
        err = sqlite_error(s->writer, code, s->path, e);
    } else if (strcmp((const char *)sqlite3_column_text(stmt, 0), "wal") != 0) {
        err =
            err_set(e, FERRY_ERR_DB_SCHEMA,
                    "%s: its journal is not WAL, so reading it would stop its writers: run `ferry "
                    "outbox init sqlite:%s`",
                    s->path, s->path);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err prepare_all(struct source_sqlite *s, struct err_text *e)
{
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3 *connection = i < STATEMENT_READER_COUNT ? s->reader : s->writer;
        int code = sqlite3_prepare_v3(connection, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                      &s->statements[i], NULL);
        if (code != SQLITE_OK) {
            return sqlite_error(connection, code, s->path, e);
        }
    }
    return FERRY_OK;
}

static enum ferry_err read_source_id(struct source_sqlite *s, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(
        s->reader, "SELECT value FROM ferry_meta WHERE name = 'source_uuid'", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    struct bytes id = code == SQLITE_ROW ? column_bytes(stmt, 0) : bytes_of(NULL, 0);
    enum ferry_err err = FERRY_OK;
    if (id.size == sizeof(s->id.bytes)) {
        memcpy(s->id.bytes, id.data, id.size);
    } else {
        err = err_set(e, FERRY_ERR_DB_SCHEMA, "%s: ferry_meta has no source_uuid of 16 bytes",
                      s->path);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err open_barrier(struct source_sqlite *s, struct err_text *e)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof(path), "%s-wal", s->path);
    /* Closing this descriptor drops no lock of SQLite's: it locks the -shm file, never the WAL. */
    s->wal_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->wal_fd < 0) {
        return err_set(e, FERRY_ERR_IO, "%s: %s", path, strerror(errno));
    }
    return FERRY_OK;
}

static enum ferry_err open_file(struct source_sqlite *s, const char *path, struct err_text *e)
{
    struct stat st;
    s->path = realpath(path, NULL);
    if (s->path == NULL || stat(s->path, &st) != 0) {
        return err_set(e, FERRY_ERR_IO, "%s: %s: `ferry outbox init sqlite:%s` makes it", path,
                       strerror(errno), path);
    }
    s->device = st.st_dev;
    s->inode = st.st_ino;
    enum ferry_err err = check_file_system(s, e);
    if (err == FERRY_OK) {
        err = open_connection(s, SQLITE_OPEN_READWRITE, WRITER_BUSY_MS, &s->writer, e);
    }
    if (err == FERRY_OK) {
        err = sqlite_schema_check(s->writer, s->path, e);
    }
    return err == FERRY_OK ? check_journal(s, e) : err;
}

static enum ferry_err open_all(struct source_sqlite *s, const char *path, bool with_barrier,
                               struct err_text *e)
{
    enum ferry_err err = open_file(s, path, e);
    if (err == FERRY_OK) {
        err = relay_lock_take(s->path, &s->lock_fd, e);
    }
    if (err == FERRY_OK) {
        /* A delete that a power failure takes back is simply done again. */
        sqlite3_exec(s->writer, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
        err = open_connection(s, SQLITE_OPEN_READONLY, READER_BUSY_MS, &s->reader, e);
    }
    if (err == FERRY_OK) {
        err = prepare_all(s, e);
    }
    if (err == FERRY_OK) {
        err = read_source_id(s, e);
    }
    if (err == FERRY_OK && with_barrier) {
        err = open_barrier(s, e);
    }
    return err == FERRY_OK ? wake_listen(s->path, &s->wake_fd, e) : err;
}

enum ferry_err source_open_sqlite(struct source *source, const char *path, bool with_barrier,
                                  struct err_text *e)
{
    struct source_sqlite *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->lock_fd = -1;
    s->wake_fd = -1;
    s->wal_fd = -1;
    s->data_version = -1;
    enum ferry_err err = open_all(s, path, with_barrier, e);
    if (err != FERRY_OK) {
        driver_close(s);
        return err;
    }
    *source = (struct source){&sqlite_ops, s};
    return FERRY_OK;
}
