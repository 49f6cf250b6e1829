/* What became of a batch. */
#include "base/clock.h"
#include "base/log.h"
#include "outbox/relay/relay_state.h"

/* A refusal of what was sent; everything else is an outage, however long it lasts. */
static bool is_refusal(enum ferry_err err)
{
    switch (err) {
    case FERRY_ERR_TOO_LARGE:
    case FERRY_ERR_BAD_BATCH:
    case FERRY_ERR_BAD_NAME:
    case FERRY_ERR_DENIED:
    case FERRY_ERR_INVALID_ARGUMENT:
        return true;
    default:
        return false;
    }
}

/* Whether it is certain that the append will not be in the log later on. What was sent again over a
 * new connection may lie in the old one yet; a version that is passed never comes back. */
static bool is_certain(const struct relay_flight *flight, const struct ferry_append_result *result)
{
    return result->err == FERRY_OK || result->err == FERRY_ERR_SOURCE_FENCED ||
           is_refusal(result->err) ||
           (result->err == FERRY_ERR_CURSOR_CONFLICT && result->version > flight->expects);
}

static void doubt(struct relay_target *t, const struct relay_flight *flight)
{
    t->unsure = true;
    t->fenced = false;
    t->past = flight->expects >= t->past ? flight->expects + 1 : t->past;
}

static void note_error(struct relay_target *t, const struct ferry_append_result *result)
{
    err_set(&t->relay->error, result->err, "%s/%d: %s: %s", t->topic->name, t->partition,
            ferry_err_name(result->err),
            result->detail != NULL && result->detail[0] != '\0' ? result->detail
                                                                : ferry_err_text(result->err));
}

/* Closes in on the row: the broker names it, or the batch is halved until it stands alone. */
static void narrow(struct relay_target *t, const struct relay_flight *flight,
                   const struct ferry_append_result *result)
{
    if (flight->count == 1) {
        t->poisoned = true;
        t->poison = flight->number;
        err_set(&t->poison_reason, result->err, "%s: %s", ferry_err_name(result->err),
                result->detail != NULL && result->detail[0] != '\0' ? result->detail
                                                                    : ferry_err_text(result->err));
    } else if (result->refused_index < flight->count) {
        t->suspect_after = (int64_t)result->refused_index;
    } else {
        t->limit = flight->count / 2;
    }
}

static void fenced(struct relay *r)
{
    r->stats.fenced++;
    if (r->state == RELAY_ACTIVE) {
        log_line(LOG_WARN, "relay", "%s: another relay took over: publishing stops here",
                 relay_name(r));
        r->elect_at_us = r->now_us;
        relay_lease_lost(r, RELAY_ELECTING);
    }
}

void relay_target_fail(struct relay_target *t, const struct relay_flight *flight,
                       const struct ferry_append_result *result)
{
    struct relay *r = t->relay;
    r->stats.failures++;
    if (flight->stale) {
        return; /* Its rows were read again, or will be; the target asks when this is over. */
    }
    if (t->state != RELAY_TARGET_READY) {
        /* One failed before it, or the lease is gone: this one only may be further back. */
        int64_t retry_at_us = t->blocked_from == RELAY_NOT_BLOCKED ? r->now_us : t->retry_at_us;
        relay_target_block(t, flight->first, retry_at_us);
        return;
    }
    int64_t retry_at_us = r->now_us;
    relay_target_put_off(t, flight->first, retry_at_us);
    if (result->err == FERRY_ERR_CURSOR_CONFLICT) {
        r->stats.conflicts++;
        retry_at_us += t->failures == 0 ? 0 : relay_backoff_us(r, t->failures);
        t->failures++;
    } else if (is_refusal(result->err)) {
        narrow(t, flight, result);
    } else if (result->err != FERRY_ERR_SOURCE_FENCED) {
        t->half_open = true;
        retry_at_us += relay_backoff_us(r, t->failures++);
        note_error(t, result);
    }
    t->retry_at_us = retry_at_us;
    if (result->err == FERRY_ERR_UNKNOWN_TOPIC || result->err == FERRY_ERR_UNKNOWN_PARTITION) {
        relay_topic_forget(t->topic, t->blocked_from);
    } else if (result->err == FERRY_ERR_SOURCE_FENCED) {
        fenced(r);
    }
}

static void succeeded(struct relay_target *t, const struct relay_flight *flight)
{
    struct relay *r = t->relay;
    r->stats.published_batches++;
    r->stats.published_rows += flight->count;
    r->stats.delayed_rows += flight->delayed;
    int64_t append_us = clock_monotonic_us() - flight->sent_us;
    int64_t commit_us = -1;
    relay_times_add(&r->stats.append_times, append_us);
    if (flight->created_ms > 0) {
        commit_us = (clock_wall_ms() - flight->created_ms) * US_PER_MS;
        commit_us = commit_us < 0 ? 0 : commit_us; /* One of the two clocks was set back. */
        relay_times_add(&r->stats.commit_to_append, commit_us);
    }
    relay_tally_batch(r->hooks.tally, t->topic->tally, flight->count, flight->delayed, append_us,
                      commit_us);
    if (t->state != RELAY_TARGET_READY) {
        return;
    }
    size_t longest = (size_t)r->options->batch_rows;
    t->limit = t->limit > longest / 2 ? longest : t->limit * 2;
    t->half_open = false;
    if (t->failures > 0) {
        t->failures = 0;
        relay_error_over(r);
    }
}

void relay_outcome(const struct ferry_append_result *result, void *arg)
{
    struct relay_flight *flight = arg;
    struct relay_target *t = flight->target;
    struct relay *r = t->relay;
    must(!flight->done);
    must(t->flight_count > 0 && r->inflight > 0);
    r->busy_at_us = r->now_us;
    if (!is_certain(flight, result)) {
        doubt(t, flight);
    }
    if (result->err == FERRY_OK) {
        succeeded(t, flight);
    } else {
        relay_target_fail(t, flight, result);
    }
    flight->done = true;
    r->inflight--;
    while (t->flight_count > 0 && t->flights[t->flight_first].done) {
        if (t->mark != NULL) {
            must(!t->flights[t->flight_first].stale);
            r->source->ops->mark_acked(r->source->driver, t->mark,
                                       t->flights[t->flight_first].count);
        }
        t->flight_first = (t->flight_first + 1) % RELAY_WINDOW_MAX;
        t->flight_count--;
    }
}
