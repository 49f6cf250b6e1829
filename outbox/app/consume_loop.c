#include "outbox/app/consume_loop.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/prng.h"
#include "outbox/app/consume_count.h"
#include "outbox/app/consume_dead.h"
#include "outbox/app/db.h"
#include "outbox/app/loop_trim.h"

#define CONSUME_RETRIES_DEFAULT   10
#define CONSUME_FETCH_MS          200 /* `stop` is asked at least this often. */
#define CONSUME_COMMIT_TIMEOUT_MS 2000
#define CONSUME_COMMIT_MS         200 /* The brokers are told positions so often, or when idle. */
#define CONSUME_PAUSE_FIRST_MS    10
#define CONSUME_PAUSE_MAX_MS      1000
#define CONSUME_REQUEUED_MS       1000 /* Dead letters that a person asks for are looked for. */

/* Why an attempt at a batch ended as it did. */
enum attempt {
    ATTEMPT_DONE,    /* Applied, or found to be done. */
    ATTEMPT_GAP,     /* The consumer was told to go back. */
    ATTEMPT_HANDLER, /* The handler failed at l->failed_offset: counted. */
    ATTEMPT_LATE,    /* The record there is older than the horizon: no use in trying again. */
    ATTEMPT_BUSY,    /* The database asks to repeat: not counted. */
    ATTEMPT_FATAL,
};

/* A part of a batch that is one transaction. */
struct slice {
    size_t from, to;     /* Records. */
    int64_t first, next; /* Offsets. */
    const char *bury;    /* Not handled but kept as dead letters, for this reason; NULL: handled. */
};

/* How far a partition is done, and whether the brokers are still to be told. */
struct progress {
    int64_t position;
    bool untold;
};

struct loop {
    const struct consume_source *source;
    struct ferry_db *db;
    ferry_handler *handler;
    void *arg;
    const struct ferry_consume_options *options;
    struct consume_count count;
    struct ferry_id topic_id;
    struct prng prng;       /* Jitter. */
    bool has_subscription;  /* Until a commit says that there is none. */
    int64_t position;       /* Of the slice in hand, once applied. */
    enum ferry_err err;     /* Of the last attempt. */
    int64_t failed_offset;  /* Of ATTEMPT_HANDLER and ATTEMPT_LATE. */
    int failures;           /* How often that one failed. */
    int64_t counted_offset; /* Whose failures are counted. */
    char reason[CONSUME_REASON_MAX];
    int64_t requeued_at_ms, trimmed_at_ms;
    struct progress *progress; /* Of each partition. */
    int32_t partitions;
    int64_t told_at_ms;
};

static bool should_stop(const struct loop *l)
{
    return l->options->stop != NULL && l->options->stop(l->arg);
}

static int64_t now_ms(const struct loop *l)
{
    return l->source->now_ms(l->source->ctx);
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

static enum attempt handler_failed(struct loop *l, int64_t offset, enum ferry_err err)
{
    l->err = err;
    if (err == FERRY_ERR_DB_RETRY || consume_lost(l->db)) {
        return ATTEMPT_BUSY;
    }
    consume_reason(l->reason, l->db, err);
    l->failed_offset = offset;
    return ATTEMPT_HANDLER;
}

/* Whether the record is to be handled: *fresh. A dead letter has claimed its id as well, so that
 * its duplicate is none; where it is one for being late there is nothing to claim. */
static enum attempt claim(struct loop *l, const struct slice *slice,
                          const struct ferry_record *record, bool *fresh)
{
    *fresh = true;
    if (!l->options->possible_duplicates || id_is_zero(&record->id)) {
        return ATTEMPT_DONE;
    }
    enum ferry_verdict verdict = FERRY_FRESH;
    enum ferry_err err =
        ferry_inbox_claim(l->db, l->options->group, &record->id, consume_claim_time(record),
                          l->options->horizon_ms, &verdict);
    if (err != FERRY_OK) {
        return ours(l, err);
    }
    if (verdict == FERRY_LATE && slice->bury == NULL) {
        consume_count_late(&l->count);
        l->failed_offset = record->offset;
        l->err = err_set(&l->db->error, FERRY_ERR_INVALID_ARGUMENT,
                         "the record at offset %lld is older than the ids that are remembered: "
                         "it may have been applied before",
                         (long long)record->offset);
        consume_reason(l->reason, l->db, l->err);
        return ATTEMPT_LATE;
    }
    *fresh = verdict != FERRY_DUPLICATE;
    return ATTEMPT_DONE;
}

/* Kept aside because earlier ones of its key are: *parked. */
static enum attempt park(struct loop *l, const struct db_chain *chain,
                         const struct ferry_record *record, bool *parked)
{
    bool requeued = false;
    *parked = false;
    if (l->options->poison != FERRY_POISON_PARK) {
        return ATTEMPT_DONE;
    }
    enum ferry_err err = consume_is_parked(l->db, chain, record, parked, &requeued);
    if (err == FERRY_OK && *parked) {
        err = consume_bury(l->db, chain, record, "earlier records of its key are dead letters",
                           true, requeued);
        l->count.dead += err == FERRY_OK;
    }
    return err == FERRY_OK ? ATTEMPT_DONE : ours(l, err);
}

static enum attempt handle(struct loop *l, const struct ferry_record *record)
{
    l->db->error.text[0] = '\0';
    enum ferry_err err = consume_count_handler(&l->count, l->handler, record, l->db, l->arg);
    err = consume_handled(l->db, err);
    if (err != FERRY_OK) {
        return handler_failed(l, record->offset, err);
    }
    if (!l->db->ops->in_transaction(l->db->driver)) {
        if (consume_lost(l->db)) {
            return ours(l, FERRY_ERR_DB_RETRY);
        }
        l->err = err_set(&l->db->error, FERRY_ERR_INVALID_ARGUMENT,
                         "the handler ended the transaction at offset %lld: leave BEGIN, COMMIT "
                         "and ROLLBACK to the loop",
                         (long long)record->offset);
        return ATTEMPT_FATAL;
    }
    l->count.fresh++;
    return ATTEMPT_DONE;
}

static enum attempt run_record(struct loop *l, const struct db_chain *chain,
                               const struct slice *slice, const struct ferry_record *record)
{
    bool aside = false;
    bool fresh = true;
    enum attempt attempt = claim(l, slice, record, &fresh);
    l->count.duplicates += attempt == ATTEMPT_DONE && !fresh;
    if (attempt != ATTEMPT_DONE || !fresh) {
        return attempt;
    }
    attempt = park(l, chain, record, &aside);
    if (attempt != ATTEMPT_DONE || aside) {
        return attempt;
    }
    if (slice->bury != NULL) {
        enum ferry_err err = consume_bury(l->db, chain, record, slice->bury, false, false);
        l->count.dead += err == FERRY_OK;
        return err == FERRY_OK ? ATTEMPT_DONE : ours(l, err);
    }
    return handle(l, record);
}

static enum attempt run_records(struct loop *l, struct ferry_batch *batch,
                                const struct db_chain *chain, const struct slice *slice,
                                int64_t from)
{
    enum attempt attempt = ATTEMPT_DONE;
    for (size_t i = slice->from; attempt == ATTEMPT_DONE && i < slice->to; i++) {
        struct ferry_record record;
        l->source->batch_record(batch, i, &record);
        if (record.offset >= from) {
            attempt = run_record(l, chain, slice, &record);
        } else {
            l->count.duplicates++; /* It was done before. */
        }
    }
    return attempt;
}

/* Inside the transaction. */
static enum attempt apply(struct loop *l, struct ferry_batch *batch, const struct slice *slice)
{
    struct db_chain chain = {l->options->group, &l->topic_id, l->source->batch_partition(batch)};
    enum ferry_verdict verdict = FERRY_GAP;
    size_t skip = 0;
    int64_t expected = 0;
    enum ferry_err err = ferry_inbox_enter(l->db, chain.group, chain.topic_id, chain.partition,
                                           slice->first, slice->next, &verdict, &skip, &expected);
    if (err != FERRY_OK) {
        return ours(l, err);
    }
    if (verdict == FERRY_GAP) {
        consume_count_gap(&l->count);
        err = l->source->seek(l->source->ctx, chain.partition, expected);
        l->err = err;
        return err == FERRY_OK ? ATTEMPT_GAP : ATTEMPT_FATAL;
    }
    l->position = expected > slice->next ? expected : slice->next;
    if (verdict == FERRY_DUPLICATE) {
        l->count.duplicates += slice->to - slice->from;
        return ATTEMPT_DONE;
    }
    enum attempt attempt = run_records(l, batch, &chain, slice, slice->first + (int64_t)skip);
    if (attempt != ATTEMPT_DONE) {
        return attempt;
    }
    err = ferry_inbox_leave(l->db, chain.group, chain.topic_id, chain.partition, slice->next);
    if (err == FERRY_ERR_DB && slice->bury == NULL) {
        /* PostgreSQL, when a statement of the handler failed and it has not said so. */
        return handler_failed(l, slice->next - 1, err);
    }
    return err == FERRY_OK ? ATTEMPT_DONE : ours(l, err);
}

static enum attempt attempt_slice(struct loop *l, struct ferry_batch *batch,
                                  const struct slice *slice)
{
    l->db->error.text[0] = '\0';
    consume_count_begin(&l->count);
    enum ferry_err err = l->db->ops->begin(l->db->driver, &l->db->error);
    if (err != FERRY_OK) {
        return ours(l, err);
    }
    enum attempt attempt = apply(l, batch, slice);
    if (attempt == ATTEMPT_DONE) {
        err = l->db->ops->commit(l->db->driver, &l->db->error);
        if (err == FERRY_ERR_NO_TRANSACTION && slice->bury == NULL) {
            attempt = handler_failed(l, slice->next - 1, err);
        } else if (err != FERRY_OK) {
            attempt = ours(l, err);
        }
    }
    if (attempt != ATTEMPT_DONE) {
        l->db->ops->rollback(l->db->driver);
    } else {
        consume_count_committed(&l->count);
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

/* Where the connection is gone, until there is one again or the loop is asked to stop. */
static enum ferry_err mend(struct loop *l)
{
    for (int attempts = 0; consume_lost(l->db); attempts++) {
        if (l->options->reconnect == NULL) {
            return FERRY_ERR_DB;
        }
        if (should_stop(l)) {
            return FERRY_OK;
        }
        enum ferry_err err = l->options->reconnect(&l->db, l->arg);
        must(l->db != NULL);
        if (err == FERRY_OK) {
            return FERRY_OK;
        }
        if (!ferry_err_is_retriable(err)) {
            return err;
        }
        pause_before_retry(l, attempts);
    }
    return FERRY_OK;
}

static void note_position(struct loop *l, int32_t partition)
{
    if (partition >= 0 && partition < l->partitions) {
        l->progress[partition] = (struct progress){l->position, true};
    }
}

/* A hint for people and for readers that start without this database; the chain is what counts. So
 * it does not have to be told with every batch, which would cost the brokers an entry each. */
static void tell_positions(struct loop *l)
{
    l->told_at_ms = now_ms(l);
    for (int32_t p = 0; p < l->partitions && l->has_subscription; p++) {
        if (!l->progress[p].untold) {
            continue;
        }
        enum ferry_err err = l->source->commit(l->source->ctx, p, l->progress[p].position,
                                               CONSUME_COMMIT_TIMEOUT_MS);
        if (err == FERRY_ERR_INVALID_ARGUMENT || err == FERRY_ERR_UNKNOWN_SUBSCRIPTION) {
            l->has_subscription = false;
        }
        if (ferry_err_is_retriable(err)) {
            return; /* Nobody answers: later. */
        }
        l->progress[p].untold = false;
    }
}

static int64_t offset_at(struct loop *l, struct ferry_batch *batch, size_t i)
{
    struct ferry_record record;
    l->source->batch_record(batch, i, &record);
    return record.offset;
}

/* The next part, of at most `records`, from where the one before has ended. */
static void slice_next(struct loop *l, struct ferry_batch *batch, size_t records,
                       struct slice *slice)
{
    size_t count = l->source->batch_count(batch);
    slice->from = slice->to;
    slice->first = slice->next;
    slice->bury = NULL;
    slice->to = count - slice->from > records ? slice->from + records : count;
    slice->next =
        slice->to == count ? l->source->batch_next(batch) : offset_at(l, batch, slice->to);
}

/* One record has failed for good, and is alone in the slice. FERRY_OK: it is buried next. */
static enum ferry_err give_up(struct loop *l, struct slice *slice)
{
    if (l->options->poison == FERRY_POISON_STOP) {
        return l->err;
    }
    slice->bury = l->reason;
    return FERRY_OK;
}

static enum ferry_err take_failure(struct loop *l, struct slice *slice, enum attempt attempt)
{
    int retries_max =
        l->options->retries_max > 0 ? l->options->retries_max : CONSUME_RETRIES_DEFAULT;
    l->failures = l->counted_offset == l->failed_offset ? l->failures + 1 : 1;
    l->counted_offset = l->failed_offset;
    bool alone = slice->to - slice->from <= 1;
    if (alone && (attempt == ATTEMPT_LATE || l->failures >= retries_max)) {
        return give_up(l, slice);
    }
    return FERRY_OK;
}

/* Until the slice is done or given up. FERRY_OK and not *done: go back, stop, or cut it smaller. */
static enum ferry_err work_slice(struct loop *l, struct ferry_batch *batch, struct slice *slice,
                                 bool *done, bool *smaller, bool *stopped)
{
    for (int attempts = 0;; attempts++) {
        enum attempt attempt = attempt_slice(l, batch, slice);
        enum ferry_err err = FERRY_OK;
        switch (attempt) {
        case ATTEMPT_DONE:
            note_position(l, l->source->batch_partition(batch));
            *done = true;
            return FERRY_OK;
        case ATTEMPT_GAP:
            return FERRY_OK;
        case ATTEMPT_FATAL:
            return l->err;
        case ATTEMPT_HANDLER:
        case ATTEMPT_LATE:
            err = take_failure(l, slice, attempt);
            *smaller = slice->to - slice->from > 1;
            break;
        case ATTEMPT_BUSY: /* As an outage: waited out for as long as the caller lets it run. */
            err = mend(l);
            break;
        }
        if (err != FERRY_OK) {
            return err;
        }
        if (should_stop(l)) {
            *stopped = true;
            return FERRY_OK;
        }
        consume_count_retry(&l->count);
        pause_before_retry(l, attempts);
        if (*smaller) {
            return FERRY_OK;
        }
    }
}

/* The batch in parts of batch_max records; once one has failed, record by record, so that the
 * others are not tried again and again with the bad one. */
static enum ferry_err work_batch(struct loop *l, struct ferry_batch *batch, bool *stopped)
{
    size_t records = l->options->batch_max > 0 ? l->options->batch_max : SIZE_MAX;
    struct slice slice = {.next = l->source->batch_first(batch)};
    int64_t end = l->source->batch_next(batch);
    while (slice.next < end && !*stopped) {
        struct slice before = slice;
        bool done = false;
        bool smaller = false;
        slice_next(l, batch, records, &slice);
        enum ferry_err err = work_slice(l, batch, &slice, &done, &smaller, stopped);
        if (err != FERRY_OK) {
            return err;
        }
        if (smaller) {
            records = 1;
            slice = before;
        } else if (!done) {
            return FERRY_OK; /* A gap: what comes next is fetched anew. */
        }
    }
    return FERRY_OK;
}

/* Dead letters that a person wants handled again; all that are there now. */
static enum ferry_err work_requeued(struct loop *l)
{
    if (now_ms(l) - l->requeued_at_ms < CONSUME_REQUEUED_MS) {
        return FERRY_OK;
    }
    l->requeued_at_ms = now_ms(l);
    bool worked = true;
    while (worked && !should_stop(l)) {
        enum ferry_err err =
            consume_requeued(l->db, l->options->group, &l->topic_id,
                             l->source->topic(l->source->ctx), l->handler, l->arg, &worked);
        if (err == FERRY_ERR_DB_RETRY) {
            return mend(l);
        }
        if (err != FERRY_OK) {
            return err;
        }
    }
    return FERRY_OK;
}

static enum ferry_err trim(struct loop *l)
{
    enum ferry_err err =
        loop_trim(l->db, l->options, l->options->possible_duplicates, now_ms(l), &l->trimmed_at_ms);
    return err == FERRY_ERR_DB_RETRY ? mend(l) : err;
}

/* What an error of fetch means; FERRY_OK: go on. */
static enum ferry_err take_fetch_error(struct loop *l, enum ferry_err err)
{
    if (ferry_err_is_retriable(err)) {
        pause_before_retry(l, 0);
        return FERRY_OK;
    }
    if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
        /* Going on would lose what retention dropped without anybody having decided so. */
        return err_set(&l->db->error, err,
                       "records that group %s has not applied are gone from the log: decide "
                       "with ferry_inbox_skip_to where to go on",
                       l->options->group);
    }
    return err;
}

static enum ferry_err fetch_and_work(struct loop *l, int wait_ms, bool *idle, bool *stopped)
{
    struct ferry_batch *batch = NULL;
    enum ferry_err err = l->source->fetch(l->source->ctx, wait_ms, &batch);
    if (err == FERRY_OK) {
        err = work_batch(l, batch, stopped);
        l->source->batch_free(&batch);
    } else if (err == FERRY_ERR_TIMEOUT) {
        *idle = true;
        err = FERRY_OK;
    } else {
        err = take_fetch_error(l, err);
    }
    return err;
}

static enum ferry_err run(struct loop *l)
{
    int idle_ms = l->options->idle_exit_ms;
    int wait_ms = idle_ms > 0 && idle_ms < CONSUME_FETCH_MS ? idle_ms : CONSUME_FETCH_MS;
    int64_t busy_at_ms = now_ms(l);
    bool stopped = false;
    while (!stopped && !should_stop(l)) {
        bool idle = false;
        enum ferry_err err = work_requeued(l);
        if (err == FERRY_OK) {
            err = trim(l);
        }
        if (err == FERRY_OK) {
            err = fetch_and_work(l, wait_ms, &idle, &stopped);
        }
        if (err != FERRY_OK) {
            return err;
        }
        if (idle || now_ms(l) - l->told_at_ms >= CONSUME_COMMIT_MS) {
            tell_positions(l);
        }
        if (!idle) {
            busy_at_ms = now_ms(l);
        } else if (idle_ms > 0 && now_ms(l) - busy_at_ms >= idle_ms &&
                   l->source->at_end(l->source->ctx)) {
            return FERRY_OK;
        }
    }
    return FERRY_OK;
}

/* Waits for the database as the loop itself does. */
static enum ferry_err begin_at_positions(struct loop *l)
{
    enum ferry_err err = seek_to_positions(l);
    for (int attempts = 0; err == FERRY_ERR_DB_RETRY && !should_stop(l); attempts++) {
        pause_before_retry(l, attempts);
        err = mend(l);
        if (err == FERRY_OK) {
            err = seek_to_positions(l);
        }
    }
    return err == FERRY_ERR_DB_RETRY ? FERRY_OK : err; /* Asked to stop. */
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
        .count = {.figures = options->figures},
        .topic_id = source->topic_id(source->ctx),
        .has_subscription = true,
        .counted_offset = -1,
        .requeued_at_ms = INT64_MIN / 2,
        .trimmed_at_ms = INT64_MIN / 2,
        .told_at_ms = INT64_MIN / 2,
        .partitions = source->partitions(source->ctx),
    };
    l.progress = mem_zalloc((size_t)l.partitions, sizeof(*l.progress));
    if (l.progress == NULL) {
        return err_set(&db->error, FERRY_ERR_NO_MEMORY, "out of memory");
    }
    prng_init(&l.prng, (uint64_t)source->now_ms(source->ctx));
    enum ferry_err err = begin_at_positions(&l);
    if (err == FERRY_OK) {
        err = run(&l);
        tell_positions(&l);
    }
    mem_free(l.progress);
    return err;
}
