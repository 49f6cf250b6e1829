#include "outbox/app/receive_loop.h"

#include <string.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "base/prng.h"
#include "outbox/app/consume_count.h"
#include "outbox/app/consume_dead.h"
#include "outbox/app/db.h"
#include "outbox/app/loop_trim.h"

#define RECEIVE_RETRIES_DEFAULT 10
#define RECEIVE_WAIT_MS         200 /* `stop` is asked at least this often. */
#define RECEIVE_FLUSH_MS        5000
#define RECEIVE_PAUSE_FIRST_MS  10
#define RECEIVE_PAUSE_MAX_MS    1000
#define RECEIVE_REASON_MAX      200 /* Of ferry_settle. */

/* What is to become of a delivery. */
enum fate {
    FATE_OPEN,   /* Not tried, or the transaction was rolled back. */
    FATE_DONE,   /* Applied in the transaction in hand, or before. */
    FATE_FAILED, /* The handler failed. */
    FATE_LATE,   /* Older than the ids that are remembered. */
};

struct loop {
    const struct receive_source *source;
    struct ferry_db *db;
    ferry_handler *handler;
    void *arg;
    const struct ferry_consume_options *options;
    struct consume_count count;
    struct prng prng;
    int64_t trimmed_at_ms;
    char reason[CONSUME_REASON_MAX]; /* Of the last failure. */
    enum ferry_err failed_with;
};

static bool should_stop(const struct loop *l)
{
    return l->options->stop != NULL && l->options->stop(l->arg);
}

/* A message without an id is known by its place. */
static struct ferry_id id_of(const struct ferry_record *record)
{
    if (!id_is_zero(&record->id)) {
        return record->id;
    }
    int64_t place[2] = {record->partition, record->offset};
    const char *topic = record->topic == NULL ? "" : record->topic;
    uint64_t halves[2] = {checksum_of_two(topic, strlen(topic), place, sizeof(place)),
                          checksum_of_two(place, sizeof(place), topic, strlen(topic))};
    struct ferry_id id;
    _Static_assert(sizeof(halves) == sizeof(id.bytes), "an id has 16 bytes");
    memcpy(id.bytes, halves, sizeof(id.bytes));
    id.bytes[0] |= 1; /* Never zero. */
    return id;
}

/* Returns FERRY_OK. */
static enum ferry_err handler_failed(struct loop *l, enum ferry_err err, enum fate *fate)
{
    *fate = FATE_FAILED;
    l->failed_with = err;
    consume_reason(l->reason, l->db, err);
    return FERRY_OK;
}

static enum ferry_err run_handler(struct loop *l, const struct ferry_record *record,
                                  enum fate *fate)
{
    l->db->error.text[0] = '\0';
    enum ferry_err err = consume_count_handler(&l->count, l->handler, record, l->db, l->arg);
    err = consume_handled(l->db, err);
    if (err == FERRY_ERR_DB_RETRY || (err != FERRY_OK && consume_lost(l->db))) {
        return FERRY_ERR_DB_RETRY;
    }
    if (err != FERRY_OK) {
        return handler_failed(l, err, fate);
    }
    *fate = FATE_DONE;
    l->count.fresh++;
    if (!l->db->ops->in_transaction(l->db->driver)) {
        return consume_lost(l->db)
                   ? FERRY_ERR_DB_RETRY
                   : err_set(&l->db->error, FERRY_ERR_INVALID_ARGUMENT,
                             "the handler ended the transaction at offset %lld: leave BEGIN, "
                             "COMMIT and ROLLBACK to the loop",
                             (long long)record->offset);
    }
    return FERRY_OK;
}

/* Inside the transaction. */
static enum ferry_err work_one(struct loop *l, const struct ferry_record *record, enum fate *fate)
{
    struct ferry_id id = id_of(record);
    enum ferry_verdict verdict = FERRY_FRESH;
    enum ferry_err err =
        ferry_inbox_claim(l->db, l->options->group, &id, consume_claim_time(record),
                          l->options->horizon_ms, &verdict);
    if (err != FERRY_OK) {
        return err;
    }
    if (verdict == FERRY_LATE) {
        consume_count_late(&l->count);
        *fate = FATE_LATE;
        l->failed_with = err_set(&l->db->error, FERRY_ERR_INVALID_ARGUMENT,
                                 "the message is older than the ids that are remembered: it may "
                                 "have been applied before");
        consume_reason(l->reason, l->db, l->failed_with);
        return FERRY_OK;
    }
    if (verdict == FERRY_DUPLICATE) {
        l->count.duplicates++;
        *fate = FATE_DONE;
        return FERRY_OK;
    }
    return run_handler(l, record, fate);
}

/* One transaction over deliveries [from, to): *failed is the first one that failed, and then
 * nothing is done. Errors: the database's. */
static enum ferry_err attempt(struct loop *l, struct ferry_delivery *deliveries, size_t from,
                              size_t to, size_t *failed, enum fate *fate)
{
    *failed = to;
    *fate = FATE_DONE;
    l->db->error.text[0] = '\0';
    consume_count_begin(&l->count);
    enum ferry_err err = l->db->ops->begin(l->db->driver, &l->db->error);
    for (size_t i = from; err == FERRY_OK && *fate == FATE_DONE && i < to; i++) {
        err = work_one(l, &deliveries[i].record, fate);
        *failed = *fate == FATE_DONE ? to : i;
    }
    if (err == FERRY_OK && *fate == FATE_DONE) {
        err = l->db->ops->commit(l->db->driver, &l->db->error);
        if (err == FERRY_ERR_NO_TRANSACTION) {
            *failed = from; /* Whichever of them it was: they are tried one by one. */
            err = handler_failed(l, err, fate);
        }
    }
    if (err != FERRY_OK || *fate != FATE_DONE) {
        l->db->ops->rollback(l->db->driver);
        consume_count_retry(&l->count);
    } else {
        consume_count_committed(&l->count);
    }
    return err;
}

static void pause_before_retry(struct loop *l, int attempts)
{
    int longest = RECEIVE_PAUSE_FIRST_MS << (attempts < 7 ? attempts : 7);
    longest = longest < RECEIVE_PAUSE_MAX_MS ? longest : RECEIVE_PAUSE_MAX_MS;
    l->source->pause(l->source->ctx, 1 + (int)prng_below(&l->prng, (uint64_t)longest));
}

/* After a DB_RETRY: a new connection where the old one is gone. */
static enum ferry_err mend(struct loop *l)
{
    if (!consume_lost(l->db)) {
        return FERRY_OK;
    }
    if (l->options->reconnect == NULL) {
        return FERRY_ERR_DB;
    }
    enum ferry_err err = l->options->reconnect(&l->db, l->arg);
    must(l->db != NULL);
    return ferry_err_is_retriable(err) ? FERRY_OK : err; /* The next attempt finds it gone still. */
}

/* As attempt, and again for as long as the database asks for it. */
static enum ferry_err attempt_patiently(struct loop *l, struct ferry_delivery *deliveries,
                                        size_t from, size_t to, size_t *failed, enum fate *fate,
                                        bool *stopped)
{
    for (int attempts = 0;; attempts++) {
        enum ferry_err err = attempt(l, deliveries, from, to, failed, fate);
        if (err == FERRY_ERR_DB_RETRY) {
            err = mend(l);
            if (err == FERRY_OK && should_stop(l)) {
                *stopped = true;
                return FERRY_OK;
            }
            if (err == FERRY_OK) {
                pause_before_retry(l, attempts);
                continue;
            }
        }
        return err;
    }
}

static void settle(struct loop *l, struct ferry_delivery *delivery, enum ferry_settle how)
{
    char reason[RECEIVE_REASON_MAX + 1] = "";
    if (how == FERRY_NACK || how == FERRY_REJECT) {
        memcpy(reason, l->reason, RECEIVE_REASON_MAX);
    }
    /* What is not settled comes back when its lease ends, and is then known as done. */
    enum ferry_err err =
        l->source->settle(l->source->ctx, delivery, how, reason[0] == '\0' ? NULL : reason);
    (void)err;
}

static bool same_key(const struct ferry_record *a, const struct ferry_record *b)
{
    return a->key != NULL && b->key != NULL && a->key_bytes == b->key_bytes &&
           memcmp(a->key, b->key, a->key_bytes) == 0;
}

/* What was received together. */
struct received {
    struct ferry_delivery *deliveries;
    bool *settled;
    size_t count;
};

static void settle_at(struct loop *l, struct received *r, size_t i, enum ferry_settle how)
{
    if (!r->settled[i]) {
        r->settled[i] = true;
        settle(l, &r->deliveries[i], how);
    }
}

/* Those of its key that came with it and are not done must not pass it. */
static void release_followers(struct loop *l, struct received *r, size_t failed)
{
    for (size_t i = failed + 1; i < r->count; i++) {
        if (!r->settled[i] && same_key(&r->deliveries[failed].record, &r->deliveries[i].record)) {
            settle_at(l, r, i, FERRY_RELEASE);
        }
    }
}

/* FERRY_OK: the loop goes on. */
static enum ferry_err take_failure(struct loop *l, struct received *r, size_t failed,
                                   enum fate fate)
{
    uint32_t retries_max =
        l->options->retries_max > 0 ? (uint32_t)l->options->retries_max : RECEIVE_RETRIES_DEFAULT;
    bool for_good = fate == FATE_LATE || r->deliveries[failed].failed + 1 >= retries_max;
    bool stop = for_good && l->options->poison == FERRY_POISON_STOP;
    bool dead = for_good && !stop;
    if (!dead) {
        release_followers(l, r, failed);
    }
    if (dead) {
        consume_count_dead(&l->count);
    }
    settle_at(l, r, failed, dead ? FERRY_REJECT : stop ? FERRY_RELEASE : FERRY_NACK);
    return stop ? l->failed_with : FERRY_OK;
}

/* One by one, each in its own transaction. */
static enum ferry_err work_singly(struct loop *l, struct received *r, bool *stopped)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && !*stopped && i < r->count; i++) {
        if (r->settled[i]) {
            continue;
        }
        size_t failed = 0;
        enum fate fate = FATE_OPEN;
        err = attempt_patiently(l, r->deliveries, i, i + 1, &failed, &fate, stopped);
        if (err != FERRY_OK || *stopped) {
            break;
        }
        if (fate == FATE_DONE) {
            settle_at(l, r, i, FERRY_ACK);
        } else {
            err = take_failure(l, r, i, fate);
        }
    }
    return err;
}

static enum ferry_err work(struct loop *l, struct received *r, bool *stopped)
{
    size_t failed = 0;
    enum fate fate = FATE_OPEN;
    enum ferry_err err = attempt_patiently(l, r->deliveries, 0, r->count, &failed, &fate, stopped);
    if (err == FERRY_OK && !*stopped && fate == FATE_DONE) {
        for (size_t i = 0; i < r->count; i++) {
            settle_at(l, r, i, FERRY_ACK);
        }
    } else if (err == FERRY_OK && !*stopped) {
        err = work_singly(l, r, stopped);
    }
    for (size_t i = 0; i < r->count; i++) {
        settle_at(l, r, i, FERRY_RELEASE); /* What is left when the loop ends. */
    }
    return err;
}

static enum ferry_err trim(struct loop *l)
{
    enum ferry_err err =
        loop_trim(l->db, l->options, true, l->source->now_ms(l->source->ctx), &l->trimmed_at_ms);
    return err == FERRY_ERR_DB_RETRY ? mend(l) : err;
}

static enum ferry_err receive_and_work(struct loop *l, struct received *r, size_t max, int wait_ms,
                                       bool *idle, bool *stopped)
{
    r->count = 0;
    enum ferry_err err = l->source->receive(l->source->ctx, wait_ms, r->deliveries, max, &r->count);
    if (err == FERRY_OK) {
        memset(r->settled, 0, max * sizeof(*r->settled));
        return work(l, r, stopped);
    }
    if (err == FERRY_ERR_TIMEOUT) {
        *idle = true;
        return FERRY_OK;
    }
    if (ferry_err_is_retriable(err)) {
        pause_before_retry(l, 0);
        return FERRY_OK;
    }
    return err;
}

static enum ferry_err run(struct loop *l, struct received *r, size_t max)
{
    int idle_ms = l->options->idle_exit_ms;
    int wait_ms = idle_ms > 0 && idle_ms < RECEIVE_WAIT_MS ? idle_ms : RECEIVE_WAIT_MS;
    int64_t busy_at_ms = l->source->now_ms(l->source->ctx);
    bool stopped = false;
    while (!stopped && !should_stop(l)) {
        bool idle = false;
        enum ferry_err err = trim(l);
        if (err == FERRY_OK) {
            err = receive_and_work(l, r, max, wait_ms, &idle, &stopped);
        }
        if (err != FERRY_OK) {
            return err;
        }
        int64_t now_ms = l->source->now_ms(l->source->ctx);
        if (!idle) {
            busy_at_ms = now_ms;
        } else if (idle_ms > 0 && now_ms - busy_at_ms >= idle_ms) {
            break;
        }
    }
    return FERRY_OK;
}

static enum ferry_err check(struct ferry_db *db, ferry_handler *handler,
                            const struct ferry_consume_options *options)
{
    db->error.text[0] = '\0';
    if (handler == NULL || options == NULL || options->group == NULL) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "a handler and a group are needed");
    }
    if (options->poison == FERRY_POISON_PARK) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "a queue's keys cannot be parked: its dead letters are the subscription's");
    }
    if (options->batch_max > RECEIVE_BATCH_MAX) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "batch_max is at most %d",
                       RECEIVE_BATCH_MAX);
    }
    if (db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "a transaction is open: the loop begins its own");
    }
    return FERRY_OK;
}

enum ferry_err receive_loop(const struct receive_source *source, struct ferry_db *db,
                            ferry_handler *handler, void *arg,
                            const struct ferry_consume_options *options)
{
    enum ferry_err err = check(db, handler, options);
    if (err != FERRY_OK) {
        return err;
    }
    struct loop l = {
        .source = source,
        .db = db,
        .handler = handler,
        .arg = arg,
        .options = options,
        .count = {.figures = options->figures},
        .trimmed_at_ms = INT64_MIN / 2,
    };
    prng_init(&l.prng, (uint64_t)source->now_ms(source->ctx));
    size_t max = options->batch_max > 0 ? options->batch_max : RECEIVE_BATCH_DEFAULT;
    struct received r = {.deliveries = mem_zalloc(max, sizeof(*r.deliveries)),
                         .settled = mem_zalloc(max, sizeof(*r.settled))};
    err = r.deliveries == NULL || r.settled == NULL ? FERRY_ERR_NO_MEMORY : run(&l, &r, max);
    /* Acks that are on their way; one that is lost costs a repeat, which is known as done. */
    enum ferry_err flushed = source->flush(source->ctx, RECEIVE_FLUSH_MS);
    (void)flushed;
    mem_free(r.deliveries);
    mem_free(r.settled);
    return err;
}
