#include "outbox/app/consume_dead.h"

#include <stdio.h>

#include "wire/batch.h"

bool consume_lost(const struct ferry_db *db)
{
    return db->ops->lost != NULL && db->ops->lost(db->driver);
}

enum ferry_err consume_handled(struct ferry_db *db, enum ferry_err answer)
{
    if (answer == FERRY_OK && db->ops->aborted != NULL && db->ops->aborted(db->driver)) {
        return err_set(&db->error, FERRY_ERR_DB,
                       "a statement of the handler failed and it has not said so: nothing can be "
                       "done in the transaction any more");
    }
    return answer;
}

void consume_reason(char reason[CONSUME_REASON_MAX], const struct ferry_db *db, enum ferry_err err)
{
    snprintf(reason, CONSUME_REASON_MAX, "%s: %.350s", ferry_err_name(err),
             db->error.text[0] != '\0' ? db->error.text : ferry_err_text(err));
}

enum ferry_err consume_bury(struct ferry_db *db, const struct db_chain *chain,
                            const struct ferry_record *record, const char *reason, bool parked,
                            bool requeued)
{
    struct db_inbox_dead dead = {
        .chain = *chain,
        .offset = record->offset,
        .id = record->id,
        .reason = reason,
        .parked = parked,
        .requeued = requeued,
        .has_key = record->key != NULL,
        .key = bytes_of(record->key, record->key_bytes),
        .headers = bytes_of(record->headers, record->headers_bytes),
        .payload = bytes_of(record->payload, record->payload_bytes),
        .timestamp_ms = record->timestamp_ms,
    };
    return db->ops->inbox_dead_add(db->driver, &dead, &db->error);
}

enum ferry_err consume_is_parked(struct ferry_db *db, const struct db_chain *chain,
                                 const struct ferry_record *record, bool *parked, bool *requeued)
{
    *parked = false;
    *requeued = false;
    if (record->key == NULL) {
        return FERRY_OK;
    }
    return db->ops->inbox_key_parked(db->driver, chain, bytes_of(record->key, record->key_bytes),
                                     parked, requeued, &db->error);
}

int64_t consume_claim_time(const struct ferry_record *record)
{
    struct bytes headers = bytes_of(record->headers, record->headers_bytes);
    struct bytes name;
    struct bytes value;
    size_t at = 0;
    while (batch_next_header(headers, &at, &name, &value)) {
        if (bytes_equal(name, bytes_of_string(FERRY_HEADER_POSSIBLE_DUPLICATE)) &&
            record->timestamp_ms < record->append_time_ms) {
            return record->timestamp_ms;
        }
    }
    return record->append_time_ms;
}

static struct ferry_record record_of(const struct db_inbox_dead *dead, const char *topic)
{
    return (struct ferry_record){
        .topic = topic,
        .partition = dead->chain.partition,
        .offset = dead->offset,
        .timestamp_ms = dead->timestamp_ms,
        .append_time_ms = dead->timestamp_ms,
        .key = dead->has_key ? dead->key.data : NULL,
        .key_bytes = dead->key.size,
        .payload = dead->payload.data,
        .payload_bytes = dead->payload.size,
        .headers = dead->headers.data,
        .headers_bytes = dead->headers.size,
        .id = dead->id,
    };
}

/* A copy that lives through the handler's own calls. */
struct letter {
    struct buf bytes;
    struct db_inbox_dead dead;
    int64_t number;
};

static struct bytes keep(struct buf *b, struct bytes value)
{
    size_t start = b->size;
    buf_append_bytes(b, value);
    return bytes_of(b->data + start, value.size);
}

static enum ferry_err letter_take(struct ferry_db *db, const char *group,
                                  const struct ferry_id *topic_id, struct letter *letter,
                                  bool *found)
{
    struct db_inbox_dead *dead = &letter->dead;
    enum ferry_err err = db->ops->inbox_requeued(db->driver, group, topic_id, found,
                                                 &letter->number, dead, &db->error);
    if (err != FERRY_OK || !*found) {
        return err;
    }
    if (!buf_reserve(&letter->bytes,
                     dead->key.size + dead->headers.size + dead->payload.size + 1)) {
        return err_set(&db->error, FERRY_ERR_NO_MEMORY, "no memory for a dead letter");
    }
    dead->key = keep(&letter->bytes, dead->key);
    dead->headers = keep(&letter->bytes, dead->headers);
    dead->payload = keep(&letter->bytes, dead->payload);
    return FERRY_OK;
}

/* The handler failed again: its effects are gone, the letter stays. */
static enum ferry_err put_back(struct ferry_db *db, int64_t number, enum ferry_err why)
{
    char reason[CONSUME_REASON_MAX];
    consume_reason(reason, db, why);
    db->ops->rollback(db->driver);
    enum ferry_err err = db->ops->begin(db->driver, &db->error);
    if (err == FERRY_OK) {
        err = db->ops->inbox_dead_again(db->driver, number, reason, &db->error);
    }
    return err;
}

static enum ferry_err work(struct ferry_db *db, const char *topic, const struct letter *letter,
                           ferry_handler *handler, void *arg)
{
    struct ferry_record record = record_of(&letter->dead, topic);
    db->error.text[0] = '\0';
    enum ferry_err err = consume_handled(db, handler(&record, db, arg));
    if (err == FERRY_ERR_DB_RETRY || (err != FERRY_OK && consume_lost(db))) {
        return FERRY_ERR_DB_RETRY;
    }
    if (err == FERRY_OK && !db->ops->in_transaction(db->driver)) {
        return consume_lost(db)
                   ? FERRY_ERR_DB_RETRY
                   : err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                             "the handler ended the transaction of the dead letter of offset %lld: "
                             "leave BEGIN, COMMIT and ROLLBACK to the loop",
                             (long long)record.offset);
    }
    return err == FERRY_OK ? db->ops->inbox_dead_remove(db->driver, letter->number, &db->error)
                           : put_back(db, letter->number, err);
}

enum ferry_err consume_requeued(struct ferry_db *db, const char *group,
                                const struct ferry_id *topic_id, const char *topic,
                                ferry_handler *handler, void *arg, bool *worked)
{
    struct letter letter = {.number = 0};
    buf_init(&letter.bytes, DB_HEADERS_MAX_BYTES);
    *worked = false;
    enum ferry_err err = db->ops->begin(db->driver, &db->error);
    if (err == FERRY_OK) {
        err = letter_take(db, group, topic_id, &letter, worked);
    }
    if (err == FERRY_OK && *worked) {
        err = work(db, topic, &letter, handler, arg);
    }
    if (err == FERRY_OK && *worked) {
        err = db->ops->commit(db->driver, &db->error);
        if (err == FERRY_ERR_NO_TRANSACTION) { /* The handler's doing. */
            err = put_back(db, letter.number, err);
            err = err == FERRY_OK ? db->ops->commit(db->driver, &db->error) : err;
        }
    }
    if (err != FERRY_OK || !*worked) {
        db->ops->rollback(db->driver);
    }
    buf_fini(&letter.bytes);
    return err;
}
