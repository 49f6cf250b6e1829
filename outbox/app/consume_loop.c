#include "outbox/app/consume_loop.h"

#include "base/prng.h"
#include "outbox/app/db.h"

#define CONSUME_RETRIES_DEFAULT   10
#define CONSUME_FETCH_MS          200 /* `stop` is asked at least this often. */
#define CONSUME_COMMIT_TIMEOUT_MS 2000
#define CONSUME_PAUSE_FIRST_MS    10
#define CONSUME_PAUSE_MAX_MS      1000

/* Why an attempt at a batch ended as it did. */
enum attempt {
    ATTEMPT_DONE,    /* Applied, or found to be done. */
    ATTEMPT_GAP,     /* The consumer was told to go back. */
    ATTEMPT_HANDLER, /* The handler failed: counted. */
    ATTEMPT_BUSY,    /* The database asks to repeat: not counted. */
    ATTEMPT_FATAL,
};

struct loop {
    const struct consume_source *source;
    struct ferry_db *db;
    ferry_handler *handler;
    void *arg;
    const struct ferry_consume_options *options;
    struct ferry_id topic_id;
    struct prng prng;      /* Jitter. */
    bool has_subscription; /* Until a commit says that there is none. */
    int64_t position;      /* Of the batch in hand, once applied. */
    enum ferry_err err;    /* Of the last attempt. */
};

static bool should_stop(const struct loop *l)
{
    return l->options->stop != NULL && l->options->stop(l->arg);
}

/* The database knows better than the broker what is done. */
static enum ferry_err seek_to_positions(struct loop *l)
{
    int32_t count = l->source->partitions(l->source->ctx);
    for (int32_t p = 0; p < count; p++) {
        int64_t position = -1;
        enum ferry_err err =
            ferry_inbox_position(l->db, l->options->group, &l->topic_id, p, &position);
        if (err == FERRY_OK && position >= 0) {
            err = l->source->seek(l->source->ctx, p, position);
        }
        if (err != FERRY_OK) {
            return err;
        }
    }
    return FERRY_OK;
}

static enum attempt ours(struct loop *l, enum ferry_err err)
{
    l->err = err;
    return err == FERRY_ERR_DB_RETRY ? ATTEMPT_BUSY : ATTEMPT_FATAL;
}

static enum attempt run_handler(struct loop *l, struct ferry_batch *batch, int64_t from)
{
    size_t count = l->source->batch_count(batch);
    for (size_t i = 0; i < count; i++) {
        struct ferry_record record;
        l->source->batch_record(batch, i, &record);
        if (record.offset < from) {
            continue; /* Done before. */
        }
        enum ferry_err err = l->handler(&record, l->db, l->arg);
        if (err != FERRY_OK) {
            l->err = err;
            return ATTEMPT_HANDLER;
        }
        if (!l->db->ops->in_transaction(l->db->driver)) {
            l->err =
                err_set(&l->db->error, FERRY_ERR_INVALID_ARGUMENT,
                        "the handler ended the transaction at offset %lld: leave BEGIN, COMMIT "
                        "and ROLLBACK to the loop",
                        (long long)record.offset);
            return ATTEMPT_FATAL;
        }
    }
    return ATTEMPT_DONE;
}

/* Inside the transaction. */
static enum attempt apply(struct loop *l, struct ferry_batch *batch)
{
    int32_t partition = l->source->batch_partition(batch);
    int64_t first = l->source->batch_first(batch);
    int64_t next = l->source->batch_next(batch);
    enum ferry_verdict verdict = FERRY_GAP;
    size_t skip = 0;
    int64_t expected = 0;
    enum ferry_err err = ferry_inbox_enter(l->db, l->options->group, &l->topic_id, partition, first,
                                           next, &verdict, &skip, &expected);
    if (err != FERRY_OK) {
        return ours(l, err);
    }
    if (verdict == FERRY_GAP) {
        err = l->source->seek(l->source->ctx, partition, expected);
        l->err = err;
        return err == FERRY_OK ? ATTEMPT_GAP : ATTEMPT_FATAL;
    }
    l->position = expected > next ? expected : next;
    if (verdict == FERRY_DUPLICATE) {
        return ATTEMPT_DONE;
    }
    enum attempt attempt = run_handler(l, batch, first + (int64_t)skip);
    if (attempt == ATTEMPT_DONE) {
        err = ferry_inbox_leave(l->db, l->options->group, &l->topic_id, partition, next);
        attempt = err == FERRY_OK ? ATTEMPT_DONE : ours(l, err);
    }
    return attempt;
}

static enum attempt attempt_batch(struct loop *l, struct ferry_batch *batch)
{
    l->db->error.text[0] = '\0';
    enum ferry_err err = l->db->ops->begin(l->db->driver, &l->db->error);
    if (err != FERRY_OK) {
        return ours(l, err);
    }
    enum attempt attempt = apply(l, batch);
    if (attempt == ATTEMPT_DONE) {
        err = l->db->ops->commit(l->db->driver, &l->db->error);
        if (err != FERRY_OK) {
            attempt = ours(l, err);
        }
    }
    if (attempt != ATTEMPT_DONE) {
        l->db->ops->rollback(l->db->driver);
    }
    return attempt;
}

static void pause_before_retry(struct loop *l, int attempts)
{
    int shift = attempts < 7 ? attempts : 7;
    int longest = CONSUME_PAUSE_FIRST_MS << shift;
    if (longest > CONSUME_PAUSE_MAX_MS) {
        longest = CONSUME_PAUSE_MAX_MS;
    }
    l->source->pause(l->source->ctx, 1 + (int)prng_below(&l->prng, (uint64_t)longest));
}

/* A hint for people and for readers that start without this database; the chain is what counts. */
static void commit_position(struct loop *l, int32_t partition)
{
    if (!l->has_subscription) {
        return;
    }
    enum ferry_err err =
        l->source->commit(l->source->ctx, partition, l->position, CONSUME_COMMIT_TIMEOUT_MS);
    if (err == FERRY_ERR_INVALID_ARGUMENT || err == FERRY_ERR_UNKNOWN_SUBSCRIPTION) {
        l->has_subscription = false;
    }
}

/* Until the batch is done or given up. FERRY_OK with *stopped: asked to stop while it waited. */
static enum ferry_err work_batch(struct loop *l, struct ferry_batch *batch, bool *stopped)
{
    int retries_max =
        l->options->retries_max > 0 ? l->options->retries_max : CONSUME_RETRIES_DEFAULT;
    int failures = 0;
    for (int attempts = 0;; attempts++) {
        switch (attempt_batch(l, batch)) {
        case ATTEMPT_DONE:
            commit_position(l, l->source->batch_partition(batch));
            return FERRY_OK;
        case ATTEMPT_GAP:
            return FERRY_OK;
        case ATTEMPT_FATAL:
            return l->err;
        case ATTEMPT_HANDLER:
            if (++failures >= retries_max) {
                return l->err;
            }
            break;
        case ATTEMPT_BUSY:
            break; /* As an outage: waited out for as long as the caller lets the loop run. */
        }
        if (should_stop(l)) {
            *stopped = true;
            return FERRY_OK;
        }
        pause_before_retry(l, attempts);
    }
}

static enum ferry_err run(struct loop *l)
{
    int idle_ms = l->options->idle_exit_ms;
    int64_t busy_at_ms = l->source->now_ms(l->source->ctx);
    bool stopped = false;
    while (!stopped && !should_stop(l)) {
        struct ferry_batch *batch = NULL;
        int wait_ms = idle_ms > 0 && idle_ms < CONSUME_FETCH_MS ? idle_ms : CONSUME_FETCH_MS;
        enum ferry_err err = l->source->fetch(l->source->ctx, wait_ms, &batch);
        if (err == FERRY_OK) {
            err = work_batch(l, batch, &stopped);
            l->source->batch_free(&batch);
            if (err != FERRY_OK) {
                return err;
            }
            busy_at_ms = l->source->now_ms(l->source->ctx);
        } else if (err == FERRY_ERR_TIMEOUT) {
            int64_t idle_for_ms = l->source->now_ms(l->source->ctx) - busy_at_ms;
            if (idle_ms > 0 && idle_for_ms >= idle_ms && l->source->at_end(l->source->ctx)) {
                return FERRY_OK;
            }
        } else if (ferry_err_is_retriable(err)) {
            pause_before_retry(l, 0);
        } else if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
            /* Going on would lose what retention dropped without anybody having decided so. */
            return err_set(&l->db->error, err,
                           "records that group %s has not applied are gone from the log: decide "
                           "with ferry_inbox_skip_to where to go on",
                           l->options->group);
        } else {
            return err;
        }
    }
    return FERRY_OK;
}

enum ferry_err consume_loop(const struct consume_source *source, struct ferry_db *db,
                            ferry_handler *handler, void *arg,
                            const struct ferry_consume_options *options)
{
    db->error.text[0] = '\0';
    if (handler == NULL || options == NULL || options->group == NULL) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "a handler and a group are needed");
    }
    if (db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "a transaction is open: the loop begins its own");
    }
    struct loop l = {
        .source = source,
        .db = db,
        .handler = handler,
        .arg = arg,
        .options = options,
        .topic_id = source->topic_id(source->ctx),
        .has_subscription = true,
    };
    prng_init(&l.prng, (uint64_t)source->now_ms(source->ctx));
    enum ferry_err err = seek_to_positions(&l);
    return err == FERRY_OK ? run(&l) : err;
}
