/* source_sqlite: the outbox table of a SQLite file, as the relay reads it.
 *
 * Two connections: `reader` is read-only and never inside a transaction between calls, so that
 * checkpoints are not held up; `writer` deletes what is published and sets rows aside, each in one
 * IMMEDIATE transaction. SQLite has one writer at a time and AUTOINCREMENT never repeats an id, so
 * ids become visible in order and the id is the position. */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "outbox/app/wake.h"
#include "outbox/sqlite/source_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"
#include "wire/batch.h"

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

static sqlite3_stmt *reset(struct source_sqlite *s, enum source_statement which)
{
    sqlite3_reset(s->statements[which]);
    return s->statements[which];
}

static enum ferry_err read_failed(struct source_sqlite *s, int code, struct err_text *e)
{
    return sqlite_error(s->reader, code, s->path, e);
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
        struct bytes name = source_sqlite_column(stmt, 0);
        const char *type = (const char *)sqlite3_column_text(stmt, 2);
        if (count == SOURCE_HEADERS_MAX || !header_name_is_valid(name)) {
            err = row_invalid(page, row, "headers: more than 256, or a name not of 1 to 255 bytes");
        } else if (type == NULL || strcmp(type, "text") != 0) {
            err = row_invalid(page, row, "headers: the JSON object has a value that is no string");
        } else if (!header_add(page, headers, count++, name, source_sqlite_column(stmt, 1))) {
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
    struct bytes value = source_sqlite_column(stmt, 4);
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
    struct bytes key = source_sqlite_column(stmt, 2);
    struct bytes payload = source_sqlite_column(stmt, 5);
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
    row->message.topic = row_topic(page, source_sqlite_column(stmt, 1));
    if (row->message.topic == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct bytes id = source_sqlite_column(stmt, 3);
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
static enum ferry_err read_number(struct source_sqlite *s, enum source_statement which, bool *found,
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
        struct bytes id = source_sqlite_column(stmt, 0);
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

static enum ferry_err write_step(struct source_sqlite *s, enum source_statement which,
                                 struct err_text *e)
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
    struct source_sqlite *s = driver;
    struct err_text ignored = {{0}};
    if (!s->first && relay_lock_try(s->lock_fd)) {
        s->first = true;
        if (wake_listen(s->path, &s->wake_fd, &ignored) != FERRY_OK) {
            s->wake_fd = -1; /* It polls. */
        }
    }
    relay_lock_write(s->lock_fd, word);
}

static bool driver_is_first(void *driver)
{
    const struct source_sqlite *s = driver;
    return s->first;
}

const struct old_source_ops source_sqlite_ops = {
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
    .is_first = driver_is_first,
};
