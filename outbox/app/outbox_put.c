/* ferry_outbox_put: one message into the outbox table, in the caller's transaction. */
#include "base/clock.h"
#include "outbox/app/db.h"
#include "wire/batch.h"
#include "wire/command.h"

static enum ferry_err encode_headers(struct ferry_db *db, const struct ferry_message *message)
{
    buf_clear(&db->headers);
    if (message->header_count == 0) {
        return FERRY_OK;
    }
    enum ferry_err err =
        batch_encode_headers(&db->headers, message->headers, message->header_count);
    if (err != FERRY_OK) {
        return err_set(&db->error, err,
                       err == FERRY_ERR_TOO_LARGE
                           ? "the headers are larger than %u bytes"
                           : "a header's name must have 1 to 255 bytes (limit of all: %u bytes)",
                       FERRY_OUTBOX_MESSAGE_MAX_BYTES);
    }
    return FERRY_OK;
}

static enum ferry_err check_message(struct ferry_db *db, const struct ferry_message *message)
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
    return FERRY_OK;
}

/* Sums without wrapping: each term is compared with the limit on its own first. */
static enum ferry_err check_size(struct ferry_db *db, const struct ferry_message *message)
{
    const size_t max = FERRY_OUTBOX_MESSAGE_MAX_BYTES;
    if (message->payload_bytes > max || message->key_bytes > max ||
        message->payload_bytes + message->key_bytes + db->headers.size > max) {
        return err_set(&db->error, FERRY_ERR_TOO_LARGE,
                       "key, headers and payload together have more than %u bytes: put a "
                       "reference to the data instead",
                       FERRY_OUTBOX_MESSAGE_MAX_BYTES);
    }
    return FERRY_OK;
}

enum ferry_err ferry_outbox_put(struct ferry_db *db, const struct ferry_message *message,
                                struct ferry_id *id)
{
    db->error.text[0] = '\0';
    if (!db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_NO_TRANSACTION, "%s",
                       ferry_err_text(FERRY_ERR_NO_TRANSACTION));
    }
    enum ferry_err err = check_message(db, message);
    if (err == FERRY_OK) {
        err = encode_headers(db, message);
    }
    if (err == FERRY_OK) {
        err = check_size(db, message);
    }
    if (err != FERRY_OK) {
        return err;
    }
    int64_t now_ms = clock_wall_ms();
    struct db_row row = {
        .topic = bytes_of_string(message->topic),
        .has_key = message->key != NULL,
        .key = bytes_of(message->key, message->key_bytes),
        .id = id_is_zero(&message->id) ? id_gen_uuid7(&db->ids, now_ms) : message->id,
        .headers = buf_bytes(&db->headers),
        .payload = bytes_of(message->payload, message->payload_bytes),
        .created_ms = message->timestamp_ms == 0 ? now_ms : message->timestamp_ms,
    };
    err = db->ops->put(db->driver, &row, &db->error);
    if (err == FERRY_OK && id != NULL) {
        *id = row.id;
    }
    return err;
}
