/* ferry_outbox_put and its kin: messages into the outbox table, in the caller's transaction. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "outbox/app/db.h"
#include "wire/batch.h"
#include "wire/command.h"

#define DUE_TEXT_MAX 24u /* Decimal digits of an int64_t. */

static enum ferry_err check_headers(struct ferry_db *db, const struct ferry_message *message)
{
    if (message->header_count > FERRY_OUTBOX_HEADERS_MAX) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "a message has at most %u headers",
                       FERRY_OUTBOX_HEADERS_MAX);
    }
    for (size_t i = 0; i < message->header_count; i++) {
        const char *name = message->headers[i].name;
        if ((message->due_ms != 0 || message->delay_ms != 0) && name != NULL &&
            strcmp(name, FERRY_HEADER_DELIVER_AT) == 0) {
            return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                           "the message has a due time and the header %s: one is enough",
                           FERRY_HEADER_DELIVER_AT);
        }
    }
    return FERRY_OK;
}

static enum ferry_err check_due(struct ferry_db *db, const struct ferry_message *message,
                                int64_t now_ms)
{
    bool both = message->due_ms != 0 && message->delay_ms != 0;
    if (both || message->due_ms < 0 || message->delay_ms < 0 || message->delay_ms > DELAY_MAX_MS ||
        message->due_ms > now_ms + DELAY_MAX_MS) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       both ? "due_ms and delay_ms: give one"
                            : "due_ms or delay_ms is negative or more than a year ahead");
    }
    return FERRY_OK;
}

static enum ferry_err check_message(struct ferry_db *db, const struct ferry_message *message,
                                    int64_t now_ms)
{
    if (message->topic == NULL || !name_is_valid(bytes_of_string(message->topic))) {
        return err_set(&db->error, FERRY_ERR_BAD_NAME, "topic \"%.60s\": %s",
                       message->topic == NULL ? "" : message->topic,
                       ferry_err_text(FERRY_ERR_BAD_NAME));
    }
    if ((message->payload == NULL && message->payload_bytes != 0) ||
        (message->key == NULL && message->key_bytes != 0) ||
        (message->headers == NULL && message->header_count != 0)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "key, payload or headers is NULL but has a size");
    }
    enum ferry_err err = check_headers(db, message);
    return err == FERRY_OK ? check_due(db, message, now_ms) : err;
}

/* Behind what db->headers holds. A due time becomes one more header: the relay takes it out. */
static enum ferry_err encode_headers(struct ferry_db *db, const struct ferry_message *message,
                                     int64_t now_ms)
{
    struct ferry_header list[FERRY_OUTBOX_HEADERS_MAX + 1];
    char due[DUE_TEXT_MAX];
    size_t count = message->header_count;
    if (count > 0) {
        memcpy(list, message->headers, count * sizeof(list[0]));
    }
    if (message->due_ms != 0 || message->delay_ms != 0) {
        int64_t due_ms = message->due_ms != 0 ? message->due_ms : now_ms + message->delay_ms;
        int digits = snprintf(due, sizeof(due), "%lld", (long long)due_ms);
        list[count++] = (struct ferry_header){FERRY_HEADER_DELIVER_AT, due, (size_t)digits};
    }
    enum ferry_err err = batch_encode_headers(&db->headers, list, count);
    if (err == FERRY_OK) {
        return FERRY_OK;
    }
    return err_set(&db->error, err,
                   err == FERRY_ERR_TOO_LARGE
                       ? "the headers are larger than %u bytes"
                       : "a header's name must have 1 to 255 bytes (limit of all: %u bytes)",
                   FERRY_OUTBOX_MESSAGE_MAX_BYTES);
}

/* Sums without wrapping: each term is compared with the limit on its own first. */
static enum ferry_err check_size(struct ferry_db *db, const struct ferry_message *message,
                                 size_t headers_bytes)
{
    const size_t max = FERRY_OUTBOX_MESSAGE_MAX_BYTES;
    if (message->payload_bytes > max || message->key_bytes > max || headers_bytes > max ||
        message->payload_bytes + message->key_bytes + headers_bytes > max) {
        return err_set(&db->error, FERRY_ERR_TOO_LARGE,
                       "key, headers and payload together have more than %u bytes: put a "
                       "reference to the data instead",
                       FERRY_OUTBOX_MESSAGE_MAX_BYTES);
    }
    return FERRY_OK;
}

/* The row of a message but for where its headers are: db->headers may move until the last one is
 * encoded. Only their size is set. */
static enum ferry_err make_row(struct ferry_db *db, const struct ferry_message *message,
                               struct db_row *row)
{
    int64_t now_ms = clock_wall_ms();
    size_t before = db->headers.size;
    enum ferry_err err = check_message(db, message, now_ms);
    if (err == FERRY_OK) {
        err = encode_headers(db, message, now_ms);
    }
    if (err == FERRY_OK) {
        err = check_size(db, message, db->headers.size - before);
    }
    if (err != FERRY_OK) {
        return err;
    }
    *row = (struct db_row){
        .topic = bytes_of_string(message->topic),
        .has_key = message->key != NULL,
        .key = bytes_of(message->key, message->key_bytes),
        .id = id_is_zero(&message->id) ? id_gen_uuid7(&db->ids, now_ms) : message->id,
        .headers = {.data = NULL, .size = db->headers.size - before},
        .payload = bytes_of(message->payload, message->payload_bytes),
        .created_ms = message->timestamp_ms == 0 ? now_ms : message->timestamp_ms,
    };
    return FERRY_OK;
}

static void place_headers(const struct ferry_db *db, struct db_row *rows, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        rows[i].headers.data = db->headers.data + at;
        at += rows[i].headers.size;
    }
}

static enum ferry_err begin_put(struct ferry_db *db)
{
    db->error.text[0] = '\0';
    buf_clear(&db->headers);
    if (!db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_NO_TRANSACTION, "%s",
                       ferry_err_text(FERRY_ERR_NO_TRANSACTION));
    }
    return FERRY_OK;
}

static enum ferry_err put_by(struct ferry_db *db, const struct ferry_message *message,
                             enum ferry_err (*put)(void *driver, const struct db_row *row,
                                                   struct err_text *e),
                             struct ferry_id *id)
{
    struct db_row row;
    enum ferry_err err = begin_put(db);
    if (err == FERRY_OK) {
        err = make_row(db, message, &row);
    }
    if (err != FERRY_OK) {
        return err;
    }
    place_headers(db, &row, 1);
    err = put(db->driver, &row, &db->error);
    if (err == FERRY_OK && id != NULL) {
        *id = row.id;
    }
    return err;
}

enum ferry_err ferry_outbox_put(struct ferry_db *db, const struct ferry_message *message,
                                struct ferry_id *id)
{
    return put_by(db, message, db->ops->put, id);
}

enum ferry_err ferry_outbox_prepare(struct ferry_db *db)
{
    db->error.text[0] = '\0';
    return db->ops->prepare_put == NULL ? FERRY_OK : db->ops->prepare_put(db->driver, &db->error);
}

enum ferry_err ferry_outbox_put_async(struct ferry_db *db, const struct ferry_message *message,
                                      struct ferry_id *id)
{
    if (db->ops->put_async == NULL) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "this database has no pipeline: use ferry_outbox_put");
    }
    return put_by(db, message, db->ops->put_async, id);
}

static enum ferry_err put_all(struct ferry_db *db, const struct ferry_message *messages,
                              size_t count, struct db_row *rows, struct ferry_id *ids)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < count; i++) {
        err = make_row(db, &messages[i], &rows[i]);
    }
    if (err == FERRY_OK) {
        place_headers(db, rows, count);
        err = db->ops->putv(db->driver, rows, count, &db->error);
    }
    for (size_t i = 0; err == FERRY_OK && ids != NULL && i < count; i++) {
        ids[i] = rows[i].id;
    }
    return err;
}

enum ferry_err ferry_outbox_putv(struct ferry_db *db, const struct ferry_message *messages,
                                 size_t count, struct ferry_id *ids)
{
    enum ferry_err err = begin_put(db);
    if (err != FERRY_OK || count == 0) {
        return err;
    }
    if (count > FERRY_OUTBOX_PUTV_MAX) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "%zu messages in one call: at most %d", count, FERRY_OUTBOX_PUTV_MAX);
    }
    if (count > db->rows_capacity) {
        struct db_row *rows = mem_realloc(db->rows, count * sizeof(*rows));
        if (rows == NULL) {
            return err_set(&db->error, FERRY_ERR_NO_MEMORY, "no memory for %zu rows", count);
        }
        db->rows = rows;
        db->rows_capacity = count;
    }
    return put_all(db, messages, count, db->rows, ids);
}

enum ferry_err ferry_outbox_lock_key(struct ferry_db *db, const void *key, size_t key_bytes)
{
    db->error.text[0] = '\0';
    if (key == NULL && key_bytes != 0) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "key is NULL but has a size");
    }
    if (!db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_NO_TRANSACTION, "%s",
                       ferry_err_text(FERRY_ERR_NO_TRANSACTION));
    }
    return db->ops->lock_key(db->driver, bytes_of(key, key_bytes), &db->error);
}
