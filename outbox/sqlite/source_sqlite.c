/* The outbox table of a SQLite file, as the relay reads it.
 *
 * Two connections: `reader` is read-only and never inside a transaction between calls, so that
 * checkpoints are not held up; `writer` deletes what is published and sets rows aside, each in one
 * IMMEDIATE transaction. SQLite has one writer at a time and AUTOINCREMENT never repeats an id, so
 * ids become visible in order and the id is the position: nothing that was passed over comes late.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
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

static bool header_is_due(struct bytes name)
{
    return bytes_equal(name, bytes_of_string(SOURCE_HEADER_DUE));
}

/* The header that asks for a delay is not the message's: it is obeyed. */
static enum ferry_err header_due(struct source_page *page, struct source_row *row,
                                 struct bytes value)
{
    return source_due(value, &row->message.due_ms)
               ? FERRY_OK
               : row_invalid(page, row, "headers: " SOURCE_HEADER_DUE " is no time in Unix ms");
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
        if (header_is_due(name)) {
            enum ferry_err err = header_due(page, row, value);
            if (err != FERRY_OK || row->invalid != NULL) {
                return err;
            }
            continue;
        }
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
        } else if (header_is_due(name)) {
            err = header_due(page, row, source_sqlite_column(stmt, 1));
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
        if (bytes_equal(bytes_of_string(before), topic)) {
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
    row->number = sqlite3_column_int64(stmt, 0);
    row->position = row->number;
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

static void note_last(struct source_sqlite *s, const struct source_page *page)
{
    if (page->count == 0) {
        return;
    }
    const struct source_row *row = &page->rows[page->count - 1];
    s->after = row->position;
    if (row->position > s->last.position) {
        s->last = (struct source_cursor){row->position, row->message.id};
    }
}

static enum ferry_err driver_read(void *driver, size_t rows_max, size_t bytes_max,
                                  struct source_page *page, bool *more, struct err_text *e)
{
    struct source_sqlite *s = driver;
    bool bare = bytes_max == 0;
    sqlite3_stmt *stmt = reset(s, bare ? STATEMENT_READ_BARE : STATEMENT_READ);
    sqlite3_bind_int64(stmt, 1, s->after);
    sqlite3_bind_int64(stmt, 2, (int64_t)rows_max);
    source_page_clear(page);
    enum ferry_err err = FERRY_OK;
    int code = SQLITE_ROW;
    while (err == FERRY_OK && (page->bytes < bytes_max || (bare && page->count == 0)) &&
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
    note_last(s, page);
    *more = code == SQLITE_ROW || page->count == rows_max;
    return FERRY_OK;
}

static enum ferry_err driver_fetch(void *driver, struct source_page *page, bool *there,
                                   struct err_text *e)
{
    struct source_sqlite *s = driver;
    int64_t number = page->rows[0].number;
    sqlite3_stmt *stmt = reset(s, STATEMENT_READ);
    sqlite3_bind_int64(stmt, 1, number - 1);
    sqlite3_bind_int64(stmt, 2, 1);
    source_page_clear(page);
    enum ferry_err err = FERRY_OK;
    int code = sqlite3_step(stmt);
    *there = code == SQLITE_ROW && sqlite3_column_int64(stmt, 0) == number;
    if (*there) {
        err = add_row(s, page, stmt);
    } else if (code != SQLITE_ROW && code != SQLITE_DONE) {
        err = read_failed(s, code, e);
    }
    if (err == FERRY_ERR_NO_MEMORY) {
        err_set(e, err, "%s: out of memory: lower relay.page_bytes", s->path);
    }
    sqlite3_reset(stmt);
    return err;
}

static void driver_rewind(void *driver, int64_t after)
{
    struct source_sqlite *s = driver;
    must(after >= 0);
    s->after = after;
}

enum ferry_err source_sqlite_number(struct source_sqlite *s, enum source_statement which,
                                    bool *found, int64_t *number, struct err_text *e)
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
    enum ferry_err err = source_sqlite_number(s, STATEMENT_CHANGED, &found, &version, e);
    if (err == FERRY_OK) {
        *changed = version != s->data_version;
        s->data_version = version;
    }
    return err;
}

static enum ferry_err last_id(struct source_sqlite *s, int64_t *id, struct err_text *e)
{
    bool found = false;
    *id = 0;
    return source_sqlite_number(s, STATEMENT_LAST, &found, id, e);
}

static enum ferry_err driver_figures(void *driver, int64_t settled, struct source_figures *figures,
                                     struct err_text *e)
{
    struct source_sqlite *s = driver;
    int64_t last = 0;
    bool found = false;
    int64_t age_ms = 0;
    sqlite3_bind_int64(reset(s, STATEMENT_OLDEST), 1, settled);
    enum ferry_err err = source_sqlite_number(s, STATEMENT_OLDEST, &found, &age_ms, e);
    if (err == FERRY_OK) {
        err = last_id(s, &last, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    *figures = (struct source_figures){.pending_known = true, .oldest_known = found};
    if (found) { /* Otherwise the last ones given are gone: published by a relay before us. */
        figures->pending_rows = last > settled ? last - settled : 0;
        figures->oldest_ms = age_ms > 0 ? age_ms : 0;
    }
    return FERRY_OK;
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
                    "under that id: run `ferry outbox rebase sqlite:%s`",
                    s->path, (long long)cursor->position, s->path);
        }
    } else if (code != SQLITE_DONE) {
        err = read_failed(s, code, e);
    }
    sqlite3_reset(stmt);
    return err;
}

/* Whether the source is still the one that `cursor` was taken from. */
static enum ferry_err verify_cursor(struct source_sqlite *s, const struct source_cursor *cursor,
                                    bool *same, struct err_text *e)
{
    static const struct ferry_id none;
    *same = false;
    if (file_was_replaced(s)) {
        err_set(e, FERRY_OK, "%s was replaced or removed: start ferry-outbox again on the new file",
                s->path);
        return FERRY_OK;
    }
    int64_t last = 0;
    enum ferry_err err = last_id(s, &last, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (last < cursor->position) {
        err_set(e, FERRY_OK,
                "%s was set back in time: rows up to id %lld were published, its last is %lld: run "
                "`ferry outbox rebase sqlite:%s`",
                s->path, (long long)cursor->position, (long long)last, s->path);
        return FERRY_OK;
    }
    *same = true;
    if (cursor->position == 0 || memcmp(&cursor->id, &none, sizeof(none)) == 0) {
        return FERRY_OK;
    }
    return verify_id_at(s, cursor, same, e);
}

static enum ferry_err verify_source_id(struct source_sqlite *s, bool *same, struct err_text *e)
{
    sqlite3_stmt *stmt = reset(s, STATEMENT_SOURCE_ID);
    int code = sqlite3_step(stmt);
    enum ferry_err err = FERRY_OK;
    if (code == SQLITE_ROW) {
        *same = bytes_equal(source_sqlite_column(stmt, 0), bytes_of(s->id.bytes, sizeof(s->id)));
        if (!*same) {
            err_set(e, FERRY_OK, "%s has another source id now: it was rebased", s->path);
        }
    } else {
        err = read_failed(s, code, e);
    }
    sqlite3_reset(stmt);
    return err;
}

static enum ferry_err driver_verify(void *driver, bool *same, struct err_text *e)
{
    struct source_sqlite *s = driver;
    enum ferry_err err = verify_cursor(s, &s->last, same, e);
    return err == FERRY_OK && *same ? verify_source_id(s, same, e) : err;
}

/* ---- Checkpoint and marks: both are a cursor. */

static enum ferry_err take_cursor(struct source_sqlite *s, struct bytes blob,
                                  struct source_cursor *cursor, bool *same, struct err_text *e)
{
    *cursor = (struct source_cursor){0};
    *same = true;
    if (blob.size == 0) {
        return FERRY_OK;
    }
    enum ferry_err err = cursor_decode(blob, cursor, e);
    return err == FERRY_OK ? verify_cursor(s, cursor, same, e) : err;
}

static enum ferry_err driver_begin(void *driver, struct bytes checkpoint, int64_t *settled,
                                   bool *same, struct err_text *e)
{
    struct source_sqlite *s = driver;
    struct source_cursor cursor;
    enum ferry_err err = take_cursor(s, checkpoint, &cursor, same, e);
    if (err == FERRY_OK && *same && checkpoint.size == 0) {
        err = verify_cursor(s, &cursor, same, e); /* Is the file still there? */
    }
    if (err == FERRY_OK && *same) {
        err = verify_source_id(s, same, e);
    }
    if (err == FERRY_OK && *same) {
        s->begun = cursor;
        s->last = cursor;
        s->after = cursor.position;
        s->deleted = 0;
        *settled = cursor.position;
    }
    return err;
}

static void write_blob(struct source_blob *blob, const struct source_cursor *cursor)
{
    _Static_assert(CURSOR_BYTES <= SOURCE_BLOB_MAX, "a cursor fits");
    cursor_encode(cursor, blob->data);
    blob->size = CURSOR_BYTES;
}

static void driver_checkpoint(void *driver, int64_t settled, struct source_blob *blob)
{
    const struct source_sqlite *s = driver;
    struct source_cursor cursor = {.position = settled};
    if (settled == s->last.position) {
        cursor = s->last;
    } else if (settled == s->begun.position) {
        cursor = s->begun;
    }
    blob->size = 0;
    if (settled > 0) {
        write_blob(blob, &cursor);
    }
}

static enum ferry_err driver_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                       bool *same, bool *again, struct err_text *e)
{
    struct source_cursor cursor;
    *again = false;
    enum ferry_err err = take_cursor(driver, blob, &cursor, same, e);
    if (err != FERRY_OK || !*same) {
        return err;
    }
    *mark = mem_alloc(sizeof(**mark));
    if (*mark == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "out of memory");
    }
    (*mark)->position = cursor.position;
    return FERRY_OK;
}

static void driver_mark_close(void *driver, struct source_mark *mark)
{
    (void)driver;
    mem_free(mark);
}

static bool driver_wants(void *driver, const struct source_mark *mark, const struct source_row *row)
{
    (void)driver;
    return row->position > mark->position;
}

static size_t driver_mark_encode(void *driver, const struct source_mark *mark,
                                 const struct source_row *const *rows, size_t count, bool last,
                                 struct source_blob *blob)
{
    (void)driver;
    (void)last;
    must(count > 0 && rows[0]->position > mark->position);
    struct source_cursor cursor = {rows[count - 1]->position, rows[count - 1]->message.id};
    write_blob(blob, &cursor);
    return count;
}

static enum ferry_err driver_mark_add(void *driver, struct source_mark *mark,
                                      const struct source_row *const *rows, size_t count, bool last)
{
    (void)driver;
    (void)last;
    must(rows[count - 1]->position > mark->position);
    mark->position = rows[count - 1]->position;
    return FERRY_OK;
}

static void driver_mark_acked(void *driver, struct source_mark *mark, size_t count)
{
    (void)driver;
    (void)mark;
    (void)count;
}

/* ---- Wake, word and place. */

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

static void driver_leave_word(void *driver, const struct source_word *word)
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

/* The first relay at a file is named by the file, not by its process: the broker lets the same
 * holder take over at once, and the lock beside the file lets one process be it; so a relay that
 * was killed does not wait for its own lease to end. Others stand by and are named by process too,
 * also when they become the first. */
static void driver_place(void *driver, char *text, size_t bytes)
{
    const struct source_sqlite *s = driver;
    int n = snprintf(text, bytes, "%llx.%llx", (unsigned long long)s->device,
                     (unsigned long long)s->inode);
    if (!s->first && n > 0 && (size_t)n < bytes) { /* Containers may have equal process ids. */
        (void)snprintf(text + n, bytes - (size_t)n, ".%lld.%lld", (long long)getpid(),
                       (long long)clock_monotonic_us());
    }
}

const struct source_ops source_sqlite_ops = {
    .close = driver_close,
    .id = driver_id,
    .name = driver_name,
    .begin = driver_begin,
    .read = driver_read,
    .fetch = driver_fetch,
    .rewind = driver_rewind,
    .changed = driver_changed,
    .verify = driver_verify,
    .checkpoint = driver_checkpoint,
    .mark_open = driver_mark_open,
    .mark_close = driver_mark_close,
    .wants = driver_wants,
    .mark_encode = driver_mark_encode,
    .mark_add = driver_mark_add,
    .mark_acked = driver_mark_acked,
    .tidy = source_sqlite_tidy,
    .set_aside = source_sqlite_set_aside,
    .decided = source_sqlite_decided,
    .parked = source_sqlite_parked,
    .paused = source_sqlite_paused,
    .figures = driver_figures,
    .wake_fd = driver_wake_fd,
    .wake_drain = driver_wake_drain,
    .leave_word = driver_leave_word,
    .place = driver_place,
};
