/* ferry_outbox.h: the outbox and the inbox inside your own database transaction.
 *
 * Outbox: ferry_outbox_put() inserts the message into a table beside your data, on your connection,
 * in your transaction; the relay `ferry-outbox` publishes it once you have committed. Inbox:
 * ferry_inbox_enter() and ferry_inbox_leave() keep, in the consumer's database and in the
 * transaction of the effect, which offsets are done; so an effect happens once however often a
 * record is delivered. Ferry never begins, commits or rolls back your transaction.
 *
 * Conventions as in ferry.h. A ferry_db is used by the thread that uses the connection. */
#ifndef FERRY_OUTBOX_H
#define FERRY_OUTBOX_H

#include "ferry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct ferry_db; /* An adapter over a connection that the caller owns. */

#define FERRY_SCHEMA_VERSION 1

/* Wraps an open connection, which must outlive the handle. Errors: DB (not usable), NO_MEMORY. */
enum ferry_err ferry_db_sqlite(struct ferry_db **db, struct sqlite3 *connection);
void ferry_db_free(struct ferry_db **db);
/* The last error's words, of the database where it was the database's. Lives until the next call.
 */
const char *ferry_db_detail(const struct ferry_db *db);

/* Makes or upgrades Ferry's tables; no effect when they are up to date. Must be called outside a
 * transaction. Sets the journal to WAL. Errors: DB, DB_RETRY (busy), NEWER_FORMAT, INVALID_ARGUMENT
 * (a transaction is open). */
enum ferry_err ferry_migrate(struct ferry_db *db);

/* Inserts one message into the outbox, in the caller's open transaction. `message->partition` and
 * `opaque` are not used; timestamp_ms 0 means now. The message's id (a new UUIDv7 when it is zero)
 * is returned through `id` unless that is NULL. Errors: NO_TRANSACTION, BAD_NAME (topic), TOO_LARGE
 * (over FERRY_OUTBOX_MESSAGE_MAX_BYTES), INVALID_ARGUMENT (a header), DB_SCHEMA, DB_RETRY (roll
 * back and repeat), DB. */
enum ferry_err ferry_outbox_put(struct ferry_db *db, const struct ferry_message *message,
                                struct ferry_id *id);
#define FERRY_OUTBOX_MESSAGE_MAX_BYTES (1u << 20)

/* Call after COMMIT: wakes the relay with one datagram. Never blocks, never fails; a lost one costs
 * the relay's poll interval. */
void ferry_outbox_committed(struct ferry_db *db);

enum ferry_verdict {
    FERRY_FRESH,     /* Apply records from *skip on. */
    FERRY_DUPLICATE, /* All of them are done: apply none, do not call leave; commit is harmless. */
    FERRY_GAP,       /* The batch begins after what is done: seek the consumer to *expected. */
};

/* What a group has done of one partition is a chain of offset intervals in the business database,
 * each row inserted in the transaction of its effects; two consumers of one partition collide on
 * its key and one is rolled back. Ask before applying a batch: `first` and `next` are its first
 * offset and one past its last. The first batch a group ever sees may begin anywhere. Errors:
 * NO_TRANSACTION, INVALID_ARGUMENT, DB_SCHEMA, DB_RETRY, DB. */
enum ferry_err ferry_inbox_enter(struct ferry_db *db, const char *group,
                                 const struct ferry_id *topic_id, int32_t partition, int64_t first,
                                 int64_t next, enum ferry_verdict *verdict, size_t *skip,
                                 int64_t *expected);
/* Records, in the same transaction as the effects, that everything before `next` is done; then
 * COMMIT. Errors: as enter; DB_RETRY: another consumer was faster, or the database is busy: roll
 * back and fetch again. */
enum ferry_err ferry_inbox_leave(struct ferry_db *db, const char *group,
                                 const struct ferry_id *topic_id, int32_t partition, int64_t next);
/* The offset the group continues at; -1 when it has done nothing yet. For seeking after a start.
 * No transaction needed. Errors: DB_SCHEMA, DB_RETRY, DB. */
enum ferry_err ferry_inbox_position(struct ferry_db *db, const char *group,
                                    const struct ferry_id *topic_id, int32_t partition,
                                    int64_t *position);
/* An operator's decision: continue at `position` although what lies between was not done (dropped
 * by retention, say). In a transaction. Kept as a row with its reason. Errors: as leave. */
enum ferry_err ferry_inbox_skip_to(struct ferry_db *db, const char *group,
                                   const struct ferry_id *topic_id, int32_t partition,
                                   int64_t position, const char *reason);

/* The loop that all of this is for: fetch, BEGIN IMMEDIATE, enter, handler for each fresh record,
 * leave, COMMIT, commit the position. The handler runs inside the transaction on the caller's
 * connection; returning an error rolls the batch back. Runs until `stop` returns true (asked
 * between batches; may be NULL), or `idle_exit_ms` passed with nothing new at the end (0: never),
 * or a fatal error, which is returned. Errors of the handler come back unchanged after
 * `retries_max` attempts. */
typedef enum ferry_err ferry_handler(const struct ferry_record *record, struct ferry_db *db,
                                     void *arg);
struct ferry_consume_options {
    const char *group; /* NULL: the name of the subscription is not known here, so required. */
    bool (*stop)(void *arg);
    int idle_exit_ms;
    int retries_max; /* 0: 10. */
};
enum ferry_err ferry_consume_tx(struct ferry_consumer *consumer, struct ferry_db *db,
                                ferry_handler *handler, void *arg,
                                const struct ferry_consume_options *options);

#ifdef __cplusplus
}
#endif

#endif
