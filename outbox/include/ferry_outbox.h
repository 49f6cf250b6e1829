/* ferry_outbox.h: the outbox, the inbox and sagas inside your own database transaction.
 *
 * Outbox: ferry_outbox_put() inserts the message into a table beside your data, on your connection,
 * in your transaction; the relay `ferry-outbox` publishes it once you have committed. Inbox:
 * ferry_inbox_enter() and ferry_inbox_leave() keep, in the consumer's database and in the
 * transaction of the effect, which offsets are done; so an effect happens once however often a
 * record is delivered. Sagas: a row and a barrier table make a chain of such transactions in
 * several databases end in all of their effects or in all of their compensations. Ferry never
 * begins, commits or rolls back your transaction, but where a function says that it does.
 *
 * One library for each database: libferry_outbox and libferry_outbox_sqlite, _postgresql or
 * _mariadb. Conventions as in ferry.h. A ferry_db is used by the thread that uses the connection.
 *
 * DB_RETRY, from any function here, means: roll back and run the transaction again. It is what a
 * deadlock, a serialization failure, a busy database, a lost connection (connect again first) and a
 * second consumer that was faster all come to. */
#ifndef FERRY_OUTBOX_H
#define FERRY_OUTBOX_H

#include "ferry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct pg_conn;  /* PGconn */
struct st_mysql; /* MYSQL */
struct ferry_db; /* An adapter over a connection that the caller owns. */

/* Wraps an open connection, which must outlive the handle. Errors: DB (not usable), NO_MEMORY. */
enum ferry_err ferry_db_sqlite(struct ferry_db **db, struct sqlite3 *connection);
/* The tables are in the schema `schema` (NULL: "ferry"). PostgreSQL 13 and later. The adapter
 * prepares statements on the connection, named "ferry_…". Errors: DB, INVALID_ARGUMENT (schema). */
enum ferry_err ferry_db_postgresql(struct ferry_db **db, struct pg_conn *connection,
                                   const char *schema);
/* The tables are in the connection's database. MariaDB 10.6 and later. After mysql_reconnect or
 * mysql_reset_connection make a new adapter: its prepared statements are gone. */
enum ferry_err ferry_db_mariadb(struct ferry_db **db, struct st_mysql *connection);
void ferry_db_free(struct ferry_db **db);
/* The last error's words, of the database where it was the database's. Lives until the next call.
 */
const char *ferry_db_detail(const struct ferry_db *db);

/* Makes or upgrades Ferry's tables; no effect when they are up to date; two at once wait for each
 * other. Must be called outside a transaction. SQLite: sets the journal to WAL. The same steps as
 * text: `ferry outbox init --print-sql`. Errors: DB, DB_RETRY (busy), NEWER_FORMAT,
 * INVALID_ARGUMENT (a transaction is open). */
enum ferry_err ferry_migrate(struct ferry_db *db);

/* Inserts one message into the outbox, in the caller's open transaction. `message->partition` and
 * `opaque` are not used; timestamp_ms 0 means now; due_ms or delay_ms: the brokers keep it aside
 * until then. The message's id (a new UUIDv7 when it is zero) is returned through `id` unless that
 * is NULL. Errors: NO_TRANSACTION, BAD_NAME (topic), TOO_LARGE (over
 * FERRY_OUTBOX_MESSAGE_MAX_BYTES), INVALID_ARGUMENT (a header), DB_SCHEMA, DB_RETRY (roll back and
 * repeat), DB. */
enum ferry_err ferry_outbox_put(struct ferry_db *db, const struct ferry_message *message,
                                struct ferry_id *id);
#define FERRY_OUTBOX_MESSAGE_MAX_BYTES (1u << 20)
#define FERRY_OUTBOX_HEADERS_MAX       255u

/* The same for `count` messages, all or an error: one statement, or a COPY, where the database has
 * one for it. `ids` (may be NULL) has room for `count`. */
enum ferry_err ferry_outbox_putv(struct ferry_db *db, const struct ferry_message *messages,
                                 size_t count, struct ferry_id *ids);
#define FERRY_OUTBOX_PUTV_MAX 10000

/* PostgreSQL with the connection in pipeline mode: sends the insert and waits for nothing. Its
 * result is one more PGresult (PGRES_COMMAND_OK) in the order of your own; a failure aborts your
 * pipeline as any statement's does. Errors: as put, and INVALID_ARGUMENT (not in pipeline mode, or
 * another database). */
enum ferry_err ferry_outbox_put_async(struct ferry_db *db, const struct ferry_message *message,
                                      struct ferry_id *id);

/* For put_async: checks the version of Ferry's tables and prepares its insert, with two round
 * trips. Call it once for a connection, before pipeline mode. Without it, and without a put before,
 * the server plans each insert anew, at thrice the cost, and no relay is woken by
 * ferry_outbox_committed. With SQLite and MariaDB it does nothing. Errors: INVALID_ARGUMENT (in
 * pipeline mode), DB_SCHEMA, NEWER_FORMAT, DB_RETRY, DB; they end a transaction that is open. */
enum ferry_err ferry_outbox_prepare(struct ferry_db *db);

/* Messages of one key are published in the order of their transactions if these wait for each
 * other, as they do when each changes the row that the key names before it puts. Where nothing else
 * makes them wait, this does: call it before ferry_outbox_put; it holds the key's lock to the end
 * of the transaction. PostgreSQL: an advisory lock; MariaDB: a row of ferry_key; SQLite: nothing, a
 * writer is alone. Errors: NO_TRANSACTION, DB_SCHEMA, DB_RETRY, DB. */
enum ferry_err ferry_outbox_lock_key(struct ferry_db *db, const void *key, size_t key_bytes);

/* Call after COMMIT: wakes the relay with one datagram. Never blocks, never fails; a lost one costs
 * the relay's poll interval. */
void ferry_outbox_committed(struct ferry_db *db);

enum ferry_verdict {
    FERRY_FRESH,     /* Apply records from *skip on. */
    FERRY_DUPLICATE, /* All of them are done: apply none, do not call leave; commit is harmless. */
    FERRY_GAP,       /* The batch begins after what is done: seek the consumer to *expected. */
    FERRY_LATE,      /* Of ferry_inbox_claim. */
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

/* For `queue` and `keyed` subscriptions, and for records that may come twice in a log: claims one
 * message id for the group, in the transaction of its effect. *verdict: FERRY_FRESH: apply it;
 * FERRY_DUPLICATE: it is done; FERRY_LATE: the record is older than `horizon_ms` (0: 8 days), ids
 * of that time may be forgotten, so it must not be applied unless somebody knows better.
 * `timestamp_ms`: the record's append_time_ms; now is the database client's clock. Errors: as
 * enter; INVALID_ARGUMENT (a zero id). */
enum ferry_err ferry_inbox_claim(struct ferry_db *db, const char *group, const struct ferry_id *id,
                                 int64_t timestamp_ms, int64_t horizon_ms,
                                 enum ferry_verdict *verdict);
/* Forgets ids older than the horizon and two days, at most 1,000 a call; in a transaction. The
 * loops call it now and then. */
enum ferry_err ferry_inbox_claim_trim(struct ferry_db *db, const char *group, int64_t horizon_ms,
                                      size_t *removed);

/* What becomes of a record whose handler fails `retries_max` times. */
enum ferry_poison {
    FERRY_POISON_STOP, /* The loop returns the handler's error. */
    FERRY_POISON_DEAD, /* Kept in the inbox's dead letters, in its own transaction; the loop goes
                          on. See `ferry inbox dead`, `ferry inbox requeue`. */
    FERRY_POISON_PARK, /* The same, and later records of its key follow it there unhandled, in
                          order, until they are put back. */
};

/* The loop that all of this is for: fetch, BEGIN IMMEDIATE, enter, handler for each fresh record,
 * leave, COMMIT, commit the position. The handler runs inside the transaction on the caller's
 * connection; returning an error rolls the batch back, and the loop tries it again record by
 * record. DB_RETRY from the handler is never counted as its failure. One that keeps to itself that
 * the database has ended the transaction (a deadlock of MariaDB, any error of PostgreSQL) has
 * failed too; on MariaDB autocommit is off while it runs. Runs until `stop` returns true (asked
 * between batches; may be NULL), or `idle_exit_ms` passed with nothing new at the end (0: never),
 * or a fatal error, which is returned. When the connection is lost the loop calls `reconnect`
 * (NULL: DB is returned), which mends the caller's connection and sets *db anew; what became of a
 * COMMIT without an answer is then read from the chain. */
typedef enum ferry_err ferry_handler(const struct ferry_record *record, struct ferry_db *db,
                                     void *arg);
/* What loops have done, for your metrics: zero it, name it in the options of one loop at a time,
 * and read it by ferry_consume_figures, from any thread. Counts only rise, and go on over the loops
 * that are given the same. Whatever was done in a transaction counts once its COMMIT was answered:
 * a commit whose answer was lost counts as a duplicate when the chain tells that it was done. What
 * `ferry inbox requeue` puts before the handler again is not counted. */
struct ferry_consume_figures {
    uint64_t fresh;          /* Records that the handler was applied to. */
    uint64_t duplicates;     /* Records that were done before, and were passed over. */
    uint64_t late;           /* Times that a record was older than the ids that are remembered. */
    uint64_t gaps;           /* Times that records were missing and the consumer was sent back. */
    uint64_t retries;        /* Transactions that were rolled back to be tried again. */
    uint64_t dead;           /* Records that became dead letters, or were parked behind one. */
    uint64_t handler_calls;  /* Of the handler, those that failed too. */
    uint64_t handler_us;     /* Time spent in it, in microseconds. */
    uint64_t handler_us_max; /* The longest of its calls. */
};

struct ferry_consume_options {
    const char *group; /* Required: the name of the subscription is not known here. */
    bool (*stop)(void *arg);
    int idle_exit_ms;
    int retries_max; /* 0: 10. */
    enum ferry_poison poison;
    enum ferry_err (*reconnect)(struct ferry_db **db, void *arg);
    int64_t horizon_ms; /* Of ferry_receive_tx's ids; 0: 8 days. */
    size_t batch_max;   /* Records of one transaction; 0: a fetched batch, or 64 deliveries. */
    bool possible_duplicates;              /* Stream: claim each record's id as well. */
    int64_t saga_keep_ms;                  /* ferry_saga_trim() now and then; 0: never. */
    struct ferry_consume_figures *figures; /* Where it is counted; NULL: nowhere. */
};
enum ferry_err ferry_consume_tx(struct ferry_consumer *consumer, struct ferry_db *db,
                                ferry_handler *handler, void *arg,
                                const struct ferry_consume_options *options);
/* The same for `queue` and `keyed`: receive, BEGIN, claim and handle each message, COMMIT, ack. A
 * message without an id is known by its topic, partition and offset. A message whose handler fails
 * is rolled back alone and nacked; FERRY_POISON_DEAD rejects it after `retries_max` failures (it is
 * then a dead letter of the subscription), FERRY_POISON_PARK is not for queues: INVALID_ARGUMENT.
 */
enum ferry_err ferry_receive_tx(struct ferry_receiver *receiver, struct ferry_db *db,
                                ferry_handler *handler, void *arg,
                                const struct ferry_consume_options *options);

/* Copies what is counted so far: each figure whole, though a moment may lie between two of them.
 * Any thread, at any time; never fails. */
void ferry_consume_figures(const struct ferry_consume_figures *counted,
                           struct ferry_consume_figures *copy);

/* ---------------------------------------------------------------------------------------------
 * Replies. */

#define FERRY_HEADER_CORRELATION                                                                   \
    "ferry-correlation-id" /* Of a conversation: its first message's. */
#define FERRY_HEADER_CAUSATION          "ferry-causation-id" /* The message that this one answers. */
#define FERRY_HEADER_REPLY_TO           "ferry-reply-to"     /* The topic for an answer. */
#define FERRY_HEADER_DELIVER_AT         "ferry-deliver-at" /* Unix ms, of rows that are put by hand. */
#define FERRY_HEADER_POSSIBLE_DUPLICATE "ferry-possible-duplicate" /* Set by a rebase: "1". */
#define FERRY_HEADER_TRACE              "traceparent" /* W3C trace context: copied on. */

/* ferry_outbox_put of an answer to `cause`: sets correlation and causation, copies the trace
 * context and the name of the saga (not its step: an answer is no command), each unless the message
 * has a header of that name itself, and, where message->topic is NULL, sends it to the cause's
 * reply topic. Errors: as put; INVALID_ARGUMENT (no topic, and the cause names none; more than
 * FERRY_REPLY_HEADERS_MAX headers). */
enum ferry_err ferry_reply(struct ferry_db *db, const struct ferry_record *cause,
                           const struct ferry_message *message, struct ferry_id *id);
#define FERRY_REPLY_HEADERS_MAX 64

/* ---------------------------------------------------------------------------------------------
 * Sagas. A saga is a list of steps, each one local transaction of some service with an effect, and
 * one with its compensation. It ends when all effects are there (DONE), or when those that are
 * there were compensated, in reverse order (COMPENSATED). There is no isolation between: order the
 * steps so that the money leaves before it arrives, and mark what is pending.
 *
 * Orchestrated: the database where the saga was started keeps its row; it commands each step by a
 * message and takes the answers and its own timers from one topic. Choreographed: the message
 * itself carries the list from service to service; the row where it began learns only the end.
 *
 * The barrier, a row for each (saga, step, do or undo) in the participant's database, written in
 * the transaction of the effect, makes each run once; an undo that comes before its do does nothing
 * (empty compensation) and keeps the do that comes after it from running (hanging). So nothing here
 * depends on the order in which messages arrive, nor on how often. After the barrier of DTM
 * (github.com/dtm-labs/dtm).
 *
 * What you write, in short (examples/saga.c is whole):
 *
 *   // Where it begins, in the transaction that makes the order:
 *   ferry_saga_start(db, &order_saga, NULL, 0, data, data_bytes, &id);
 *   // The handler of the reply topic (ferry_consume_tx):
 *   return ferry_saga_answer(db, NULL, record, &state);
 *   // The handler of a step's topic:
 *   err = ferry_saga_enter(db, record, &run);
 *   if (err != FERRY_OK || !run) { return err; }
 *   ... apply the effect, or for command.undo its compensation ...
 *   return possible ? ferry_saga_done(db, record, NULL, 0)
 *                   : ferry_saga_refuse(db, record, "no credit");
 *
 * All functions work in the caller's open transaction and put their messages into its outbox.
 * Errors of all: NO_TRANSACTION, INVALID_ARGUMENT, DB_SCHEMA, DB_RETRY, DB, and those of put. */

#define FERRY_SAGA_STEPS_MAX        32
#define FERRY_SAGA_DATA_MAX_BYTES   (64u << 10)
#define FERRY_SAGA_KEY_MAX_BYTES    255u
#define FERRY_SAGA_REASON_MAX_BYTES 400u /* Longer ones are cut. */
/* An undo is put again when no answer came for its step's deadline (0: this long), then for twice
 * as long, and so on up to the second. */
#define FERRY_SAGA_UNDO_AGAIN_MS     10000
#define FERRY_SAGA_UNDO_AGAIN_MAX_MS 600000

#define FERRY_HEADER_SAGA      "ferry-saga" /* Its id as text. */
#define FERRY_HEADER_SAGA_TYPE "ferry-saga-type"
#define FERRY_HEADER_SAGA_STEP "ferry-saga-step" /* Decimal, from 0. */
#define FERRY_HEADER_SAGA_OP                                                                       \
    "ferry-saga-op" /* do, undo; done, undone, refused, undo-refused; timer; end. */
#define FERRY_HEADER_SAGA_ATTEMPT "ferry-saga-attempt" /* Of a command put again: from 1. */
#define FERRY_HEADER_SAGA_VERSION "ferry-saga-version" /* Of a timer: the row's that it is for. */
#define FERRY_HEADER_SAGA_REASON  "ferry-saga-reason"  /* Why a step was refused. */
#define FERRY_HEADER_SAGA_OUTCOME "ferry-saga-outcome" /* Of an end: done, compensated, stuck. */
#define FERRY_HEADER_SAGA_SLIP                                                                     \
    "ferry-saga-slip" /* Choreographed: the topics, separated by blanks; !TOPIC has no undo. */

enum ferry_saga_state {
    FERRY_SAGA_RUNNING = 1,
    FERRY_SAGA_COMPENSATING = 2,
    FERRY_SAGA_DONE = 3,
    FERRY_SAGA_COMPENSATED = 4,
    FERRY_SAGA_STUCK = 5,   /* A compensation was refused: a person has to look; retry or abort. */
    FERRY_SAGA_ABORTED = 6, /* A person has given up: effects may be left uncompensated. */
};
enum ferry_saga_kind { FERRY_SAGA_ORCHESTRATED, FERRY_SAGA_CHOREOGRAPHED };

struct ferry_saga_step {
    const char *topic;   /* Where its commands go: ops do and undo. */
    int64_t deadline_ms; /* Orchestrated: how long an answer may take; 0: for ever; 364 days at
                            most. Then the saga is compensated, this step included, since nobody
                            knows what became of it. An undo is repeated instead. */
    bool no_undo; /* There is nothing to compensate: it is commanded once, and never undone. If
                     its deadline passes it may still be done later. */
};
/* What a saga is started with. Its row keeps all of this, so a saga that is under way goes on with
 * the steps it began with, whatever the program that takes its answers knows: steps may be added,
 * taken out or put into another order in a later version. */
struct ferry_saga_def {
    const char *type; /* A name. */
    enum ferry_saga_kind kind;
    const struct ferry_saga_step *steps;
    size_t count;
    const char *reply_topic; /* Where the starting database takes answers, ends and timers. */
    int64_t deadline_ms;     /* Choreographed: how long the whole may take; 0: for ever; 364 days at
                                most. If its end is not known here by then, it is compensated, as if a
                                person had aborted it: what is under way is met, a late end changes
                                nothing. By the clock of whoever starts it. */
};

/* Starts one: its row and the first command. `data` travels with every command as its payload, and
 * `key` (may be NULL: the saga's id as text) keys them, so that those to one topic stay in order.
 * Errors besides: TOO_LARGE (data, key), BAD_NAME (a topic). */
enum ferry_err ferry_saga_start(struct ferry_db *db, const struct ferry_saga_def *def,
                                const void *key, size_t key_bytes, const void *data,
                                size_t data_bytes, struct ferry_id *id);

/* What a record asks a participant for. */
struct ferry_saga_command {
    struct ferry_id saga;
    char type[256];
    int step;
    bool undo;
};
/* Whether the record is a saga's command (do or undo); no database is asked. */
bool ferry_saga_command_of(const struct ferry_record *record, struct ferry_saga_command *command);
/* Which saga the record belongs to: command, answer, timer or end; false: none. */
bool ferry_saga_of(const struct ferry_record *record, struct ferry_id *saga);

/* The participant's side, in the transaction of its effect. *run: apply the effect (or the
 * compensation), then ferry_saga_done() or ferry_saga_refuse() in the same transaction. Not *run: a
 * repeat, an empty compensation or a hanging do: apply nothing and call neither; the answer that is
 * due was put, and a first answer cannot be lost, since it is in the outbox with the effect. Read
 * what an undo compensates after this call, and with MariaDB's REPEATABLE READ by a locking read
 * (SELECT … FOR UPDATE): the do may have been committed since your transaction's snapshot. Errors
 * besides: UNKNOWN_MESSAGE (see ferry_saga_trim). */
enum ferry_err ferry_saga_enter(struct ferry_db *db, const struct ferry_record *record, bool *run);
/* The step is done (or undone): answers the orchestrator, or passes the saga on along its slip.
 * `data` is what later commands carry; NULL: the record's payload goes on. An undo that was sent
 * because of a deadline does not have the data of the do that it undoes: keep what an undo needs
 * under the saga's id. Errors besides: TOO_LARGE. */
enum ferry_err ferry_saga_done(struct ferry_db *db, const struct ferry_record *record,
                               const void *data, size_t data_bytes);
/* The step is refused and has no effect: what enter allowed was not applied (or was rolled back to
 * a savepoint). The steps before it are compensated. Of an undo: the saga is stuck. For a failure
 * that may pass, return an error from the handler instead and be tried again. */
enum ferry_err ferry_saga_refuse(struct ferry_db *db, const struct ferry_record *record,
                                 const char *why);

/* Forgets, at most FERRY_SAGA_TRIM_ROWS_MAX rows of each kind a call, in the caller's transaction:
 * of the participant, what the barrier knows of sagas that began more than `keep_ms` ago, by whole
 * days; of the starter, sagas that have been DONE, COMPENSATED or ABORTED for as long. 0: 30 days.
 * *removed: rows; call again, in a transaction of its own, while it is not 0. Give more than any
 * saga lasts and any message waits: a command that comes after that may have been run before and is
 * not run, ferry_saga_enter() says UNKNOWN_MESSAGE, and a person has to mend the saga. With
 * `saga_keep_ms` the loops call it now and then. Errors besides: INVALID_ARGUMENT (under
 * FERRY_SAGA_KEEP_MIN_MS). */
enum ferry_err ferry_saga_trim(struct ferry_db *db, int64_t keep_ms, size_t *removed);
#define FERRY_SAGA_KEEP_MS       (INT64_C(30) * 86400000)
#define FERRY_SAGA_KEEP_MIN_MS   (INT64_C(8) * 86400000)
#define FERRY_SAGA_TRIM_ROWS_MAX 1000

/* The starter's side: takes a record of the reply topic (answer, end or timer), moves the saga on
 * and puts what follows. Records that are not of a saga of this database, or that come late or
 * again, have no effect. `def` may be NULL: then sagas of all types are taken, else those of its
 * type only. *state (may be NULL): the saga's, if this record has changed it, else 0: so what you
 * do on FERRY_SAGA_DONE or FERRY_SAGA_COMPENSATED, in the same transaction, is done once. Errors
 * besides: NEWER_FORMAT (the row was written by a newer Ferry), TOO_LARGE (of forged answers only).
 */
enum ferry_err ferry_saga_answer(struct ferry_db *db, const struct ferry_saga_def *def,
                                 const struct ferry_record *record, enum ferry_saga_state *state);
/* What a saga has come to. No transaction needed. Errors besides: UNKNOWN_MESSAGE. */
enum ferry_err ferry_saga_state_of(struct ferry_db *db, const struct ferry_id *id,
                                   enum ferry_saga_state *state, int *step);
/* "running", "compensating", "done", "compensated", "stuck", "aborted"; else "unknown". */
const char *ferry_saga_state_name(enum ferry_saga_state state);

/* ---------------------------------------------------------------------------------------------
 * A relay inside the application: what the program `ferry-outbox` does, on a thread of yours or in
 * your event loop; -lferry_relay. Others may serve the same database, here or elsewhere, the
 * program among them: the brokers' lease decides, one is active, the others stand by. It opens
 * connections of its own and shares none with the application. It loads the database's library, as
 * the program does: from $FERRY_DRIVERS, the folder of the program or of libferry_relay, or the
 * folder that Ferry was installed to. What changes (active, an outage, the end of it) is a line on
 * standard error.
 *
 *   const char *options[] = {"relay.db=sqlite:shop.db", "relay.servers=tcp://10.0.0.1:7400"};
 *   ferry_relay_open(&relay, options, 2, detail, sizeof(detail));
 *   while (!stopping) { ferry_relay_step(relay, 100); }       // the thread
 *   ferry_relay_close(&relay, 5000);
 *
 * Rows are put by any thread, and any process, meanwhile; ferry_outbox_committed() wakes it.
 * examples/embedded_relay.c is whole. After fork() the child must not use it. */
struct ferry_relay;

/* Reads `count` options "relay.KEY=VALUE", as in conf/ferry-outbox.conf, and borrows nothing
 * afterwards; a later one wins. relay.db is required and names one database, as a URL or as @FILE;
 * the lanes of it that relay.lanes names are all served. relay.http is the program's and refused;
 * relay.report_ms has no effect. No file and no environment variable is read. Waits for nothing:
 * neither database nor brokers need to be there, and Ferry's tables may be made later; steps try
 * again, and status tells what is missing. Errors, with a `detail` (may be NULL, `detail_bytes`
 * long): UNKNOWN_OPTION, BAD_OPTION_VALUE (of one option, of two that do not go together, of a URL
 * or its database's library, which is not installed), IO (no descriptor is left), NO_MEMORY. */
enum ferry_err ferry_relay_open(struct ferry_relay **relay, const char *const *options,
                                size_t count, char *detail, size_t detail_bytes);

/* Waits at most `timeout_ms` (0: not at all) until there is something to do, does what can be done
 * now, and returns: call it again and again, from one thread at a time, which may change. It has to
 * be called several times within relay.lease_ms, or a standby takes over; that is harmless. When
 * something is down a call may block for a few times relay.call_timeout_ms,
 * relay.connect_timeout_ms or relay.statement_timeout_ms; so an event loop that must not wait gives
 * the relay a thread. Outages are no errors: they are in the status and are tried again. Errors:
 * INVALID_ARGUMENT (timeout_ms is negative), NO_MEMORY and IO (another lane could not be started,
 * or waiting failed: tried again by the next call). */
enum ferry_err ferry_relay_step(struct ferry_relay *relay, int timeout_ms);

/* A descriptor for poll(), select() or epoll: readable when ferry_relay_step(relay, 0) has
 * something to do, be it a wake, an answer of a broker or only that its time has come. It is the
 * relay's, the same until close. */
int ferry_relay_fd(const struct ferry_relay *relay);

/* Something was committed: the descriptor becomes readable and the next step looks. For a commit
 * hook, or where the datagram of ferry_outbox_committed() does not get here: another relay of this
 * machine was first and takes it. Any thread, and signal handlers; never blocks. */
void ferry_relay_wake(struct ferry_relay *relay);

/* Of several lanes it is the last in this list that any of them has. */
enum ferry_relay_state {
    FERRY_RELAY_STOPPED = 0,    /* All lanes: closing. */
    FERRY_RELAY_ACTIVE = 1,     /* Publishes. */
    FERRY_RELAY_STANDBY = 2,    /* Another relay publishes. */
    FERRY_RELAY_PAUSED = 3,     /* By a person: `ferry outbox resume`. */
    FERRY_RELAY_CONNECTING = 4, /* Not connected yet, or not any more: see err and error. */
    FERRY_RELAY_OUTAGE = 5,     /* No broker answers, or the database does not. */
    FERRY_RELAY_BLOCKED = 6,    /* A refused row waits for a person, under relay.poison=block. */
    FERRY_RELAY_HALTED = 7,     /* The database was set back in time, or is another one, or a mark
                                   cannot be read: nothing is published until a person decides;
                                   `ferry outbox rebase`. */
};

struct ferry_relay_status {
    enum ferry_relay_state state;
    uint32_t lanes;        /* Served by this relay; 0: not known yet. */
    uint32_t lanes_active; /* Of them. */
    bool caught_up;        /* Every lane is active, and all that was there when it looked last is
                              published or set aside. */
    size_t blocked_topics; /* Whose rows wait: there is no such topic, or a row of it is not
                              decided. */
    bool pending_known;    /* False where this relay is not active, or cannot know. */
    int64_t pending_rows;  /* Committed and not published or set aside: an estimate; -1: unknown. */
    int64_t oldest_ms;     /* Age of the oldest of them; 0: there is none; -1: unknown. */
    /* Since open; none ever falls. Rows that another relay publishes are not counted here. */
    uint64_t published_rows;
    uint64_t dead_rows;   /* Set aside because a broker refused them. */
    uint64_t parked_rows; /* Set aside because their key is parked. */
    uint64_t elections;   /* How often it became active. */
    uint64_t connects;    /* To the database: how often that succeeded. */
    enum ferry_err err; /* CONNECTING: why, if it has failed (DB_SCHEMA: no tables yet); else OK. */
    char error[512];    /* What is wrong, of the lane that `state` is from; empty: nothing. */
};
/* A copy, at most about 100 ms old while the relay is stepped. Any thread, also during a step;
 * not during close. */
void ferry_relay_status(struct ferry_relay *relay, struct ferry_relay_status *status);
/* "active", "standby", …; else "unknown". */
const char *ferry_relay_state_name(enum ferry_relay_state state);

/* Publishes what is committed, as long as it is the active one and patience lasts, settles what is
 * in flight, gives up the lease, so that a standby need not wait for its end, and frees all,
 * whatever it returns; *relay is NULL then (and may be before). No other call may be under way. May
 * take about a second longer than `patience_ms`, and a blocking call's time when something is down.
 * Nothing is ever lost: another relay, or the next one, finds out from the brokers and goes on.
 * Errors: TIMEOUT (some rows may wait, or some answer did not come), UNKNOWN_TOPIC (rows wait for a
 * topic that does not exist; the others are out). One that stands by, or that a person has to do
 * with (paused, blocked, halted), waits for nothing: OK. */
enum ferry_err ferry_relay_close(struct ferry_relay **relay, int patience_ms);

#ifdef __cplusplus
}
#endif

#endif
