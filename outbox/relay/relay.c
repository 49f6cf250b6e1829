#include "outbox/relay/relay.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/relay_state.h"

#define BEAT_US         (1000 * US_PER_MS)
#define BLOCKED_LOOK_US (5 * US_PER_MS)    /* How often what is blocked is looked at. */
#define DELETE_RETRY_US (200 * US_PER_MS)  /* After the database was busy. */
#define STOP_DELETE_US  (3000 * US_PER_MS) /* How long a clean exit tidies up. */

const char *relay_state_name(enum relay_state state)
{
    static const char *const names[] = {
#define RELAY_STATE_NAME(name, text) [RELAY_##name] = text,
        RELAY_STATE_MAP(RELAY_STATE_NAME)
#undef RELAY_STATE_NAME
    };
    must((size_t)state < sizeof(names) / sizeof(names[0]));
    return names[state];
}

const char *relay_name(const struct relay *r)
{
    return r->source->ops->name(r->source->driver);
}

enum ferry_err relay_new(struct relay **r, const struct relay_options *options,
                         const struct old_source *source, const struct relay_broker *broker,
                         uint64_t seed)
{
    struct relay *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->options = options;
    made->source = source;
    made->broker = broker;
    prng_init(&made->prng, seed);
    source_page_init(&made->page);
    made->state = RELAY_ELECTING;
    made->poll_pause_us = options->poll_min_ms * US_PER_MS;
    made->page_next = mem_zalloc((size_t)options->page_rows, sizeof(*made->page_next));
    made->waiting = mem_zalloc((size_t)options->page_rows, sizeof(struct relay_target *));
    made->scratch = mem_zalloc((size_t)options->batch_rows, sizeof(*made->scratch));
    if (made->page_next == NULL || made->waiting == NULL || made->scratch == NULL) {
        relay_free(&made);
        return FERRY_ERR_NO_MEMORY;
    }
    *r = made;
    return FERRY_OK;
}

void relay_free(struct relay **r)
{
    if (r == NULL || *r == NULL) {
        return;
    }
    must((*r)->inflight == 0);
    relay_topics_free(*r);
    source_page_fini(&(*r)->page);
    mem_free((*r)->page_next);
    mem_free((void *)(*r)->waiting);
    mem_free((*r)->scratch);
    mem_free(*r);
    *r = NULL;
}

int64_t relay_backoff_us(struct relay *r, uint32_t failures)
{
    int64_t bound_us = r->options->retry_min_ms * US_PER_MS;
    int64_t longest_us = r->options->retry_max_ms * US_PER_MS;
    for (uint32_t i = 0; i < failures && bound_us < longest_us; i++) {
        bound_us *= 2;
    }
    bound_us = bound_us < longest_us ? bound_us : longest_us;
    return 1 + (int64_t)prng_below(&r->prng, (uint64_t)bound_us);
}

void relay_error_over(struct relay *r)
{
    if (r->blocked == 0) {
        r->error.text[0] = '\0';
    }
}

/* ---- The low mark. */

static int64_t lower(int64_t mark, int64_t first_unsettled)
{
    return first_unsettled - 1 < mark ? first_unsettled - 1 : mark;
}

static int64_t target_low_mark(const struct relay *r, const struct relay_target *t, int64_t mark)
{
    if (t->flight_count > 0) {
        mark = lower(mark, t->flights[t->flight_first].first);
    }
    if (t->blocked_from != RELAY_NOT_BLOCKED) {
        mark = lower(mark, t->blocked_from);
    }
    if (t->queue_count > 0) {
        mark = lower(mark, r->page.rows[t->queue_first].position);
    }
    return mark;
}

int64_t relay_low_mark(const struct relay *r)
{
    int64_t mark = r->read_pos;
    if (r->inflight == 0 && r->blocked == 0 && r->queued == 0) {
        return mark;
    }
    for (size_t i = 0; i < r->topic_count; i++) {
        const struct relay_topic *topic = r->topics[i];
        if (topic->blocked_from != RELAY_NOT_BLOCKED) {
            mark = lower(mark, topic->blocked_from);
        }
        for (int32_t p = 0; p < topic->partitions; p++) {
            mark = target_low_mark(r, &topic->targets[p], mark);
        }
    }
    return mark;
}

void relay_rewind(struct relay *r)
{
    int64_t low = relay_low_mark(r);
    relay_queue_drop(r);
    if (low < r->read_pos) {
        r->read_pos = low;
        r->read_id = (struct ferry_id){{0}};
        r->caught_up = false;
    }
}

/* ---- Ends. */

void relay_halt(struct relay *r, const char *why)
{
    struct err_text e;
    err_set(&e, FERRY_OK, "%s", why); /* `why` may be our own error text. */
    if (r->state != RELAY_HALTED) {
        log_line(LOG_ERROR, "relay", "%s: halted: %s", relay_name(r), e.text);
    }
    relay_lease_lost(r, RELAY_HALTED);
    r->error = e;
}

void relay_stop(struct relay *r)
{
    r->stopping = true; /* What is queued and not sent holds the low mark where it is. */
}

void relay_wake(struct relay *r)
{
    r->source->ops->wake_drain(r->source->driver);
    r->stats.wakes++;
    r->look = true;
    r->poll_pause_us = r->options->poll_min_ms * US_PER_MS;
}

/* ---- Deleting what is published. */

static bool delete_is_due(const struct relay *r, int64_t low)
{
    if (low <= r->deleted || r->now_us < r->delete_at_us) {
        return false;
    }
    bool quiet = r->caught_up && r->inflight == 0 && r->queued == 0 &&
                 r->now_us - r->busy_at_us >= r->options->delete_idle_ms * US_PER_MS;
    return quiet || r->stopping || low - r->deleted > r->options->delete_backlog_rows;
}

static void delete_step(struct relay *r)
{
    int64_t low = relay_low_mark(r);
    if (!delete_is_due(r, low)) {
        return;
    }
    struct err_text e = {{0}};
    size_t removed = 0;
    size_t slice = (size_t)r->options->delete_rows;
    if (r->source->ops->remove(r->source->driver, low, slice, &removed, &e) != FERRY_OK) {
        r->error = e;
        r->delete_at_us = r->now_us + DELETE_RETRY_US;
        return;
    }
    relay_error_over(r);
    r->stats.deleted_rows += removed;
    r->deleted = removed < slice ? low : r->deleted + (int64_t)removed;
}

/* ---- The beat: is the source still itself, and a word for people. */

static void beat_step(struct relay *r)
{
    if (r->now_us < r->beat_at_us) {
        return;
    }
    r->beat_at_us = r->now_us + BEAT_US;
    struct source_cursor cursor = {r->read_pos, r->read_id};
    struct err_text e = {{0}};
    bool same = true;
    if (r->state == RELAY_ACTIVE &&
        r->source->ops->verify(r->source->driver, &cursor, &same, &e) == FERRY_OK && !same) {
        relay_halt(r, e.text);
    }
    struct relay_word word = {
        .pid = getpid(), .beat_ms = clock_wall_ms(), .published_id = relay_low_mark(r)};
    word.active = r->state == RELAY_ACTIVE;
    snprintf(word.state, sizeof(word.state), "%s", relay_state_name(r->state));
    r->source->ops->leave_word(r->source->driver, &word);
}

/* ---- The step. */

static void stop_step(struct relay *r)
{
    if (r->stop_until_us == 0) {
        r->stop_until_us = r->now_us + STOP_DELETE_US;
    }
    if (r->inflight > 0) {
        return;
    }
    bool active = r->state == RELAY_ACTIVE;
    if (active && r->now_us < r->stop_until_us && relay_low_mark(r) > r->deleted) {
        delete_step(r);
        if (relay_low_mark(r) > r->deleted) {
            return;
        }
    }
    if (active) {
        relay_checkpoint_step(r, true);
        (void)r->broker->resign(r->broker->ctx, relay_timeout_ms(r)); /* Else the lease runs out. */
    }
    if (r->state != RELAY_HALTED) {
        r->state = RELAY_STOPPED;
    }
    r->beat_at_us = 0;
    beat_step(r);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t next_due(const struct relay *r)
{
    int64_t due = sooner(r->elect_at_us, r->beat_at_us);
    if (r->state != RELAY_ACTIVE) {
        return r->state == RELAY_HALTED || r->state == RELAY_STOPPED ? r->beat_at_us : due;
    }
    if (r->stopping) {
        return sooner(due, r->now_us + BLOCKED_LOOK_US);
    }
    if (r->blocked > 0) {
        due = sooner(due, r->now_us + BLOCKED_LOOK_US);
    }
    if (r->queued == 0) {
        bool waits = r->caught_up && !r->look;
        bool down = r->blocked > 0 && relay_topics_all_down(r);
        due = sooner(due, waits ? r->poll_at_us : down ? due : r->now_us);
    } else if (r->inflight == 0) {
        due = sooner(due, r->now_us + US_PER_MS); /* The client's queue was full. */
    }
    return due;
}

int64_t relay_step(struct relay *r, int64_t now_us)
{
    r->now_us = now_us;
    if (r->state == RELAY_HALTED || r->state == RELAY_STOPPED) {
        if (r->state == RELAY_HALTED) {
            beat_step(r);
        }
        return next_due(r);
    }
    if (!r->stopping || r->state == RELAY_ACTIVE) {
        relay_lease_step(r);
    }
    if (r->stopping) {
        stop_step(r);
        return next_due(r);
    }
    if (r->state == RELAY_ACTIVE) {
        relay_topics_retry(r);
    }
    if (r->state == RELAY_ACTIVE) {
        relay_publish_step(r);
    }
    if (r->state == RELAY_ACTIVE) {
        relay_checkpoint_step(r, false);
        delete_step(r);
    }
    beat_step(r);
    return next_due(r);
}

/* ---- Telling. */

static void count_blocked(const struct relay *r, struct relay_status *status)
{
    for (size_t i = 0; i < r->topic_count; i++) {
        const struct relay_topic *topic = r->topics[i];
        status->blocked_topics += topic->blocked_from != RELAY_NOT_BLOCKED;
        for (int32_t p = 0; p < topic->partitions; p++) {
            status->blocked_partitions += topic->targets[p].blocked_from != RELAY_NOT_BLOCKED;
        }
    }
}

void relay_status(struct relay *r, int64_t now_wall_ms, struct relay_status *status)
{
    struct err_text e = {{0}};
    int64_t last = 0;
    int64_t created_ms = 0;
    *status = (struct relay_status){
        .state = r->state,
        .stats = r->stats,
        .settled = relay_low_mark(r),
        .inflight_batches = r->inflight,
        .error = r->error,
    };
    count_blocked(r, status);
    status->caught_up = r->state == RELAY_ACTIVE && r->caught_up && !r->look && !r->read_failed &&
                        r->inflight == 0 && r->queued == 0 && status->blocked_partitions == 0;
    /* Before the first election the low mark is not known, so neither is what lies behind it. */
    if (r->stats.elections == 0) {
        return;
    }
    bool found = false;
    if (r->source->ops->oldest(r->source->driver, status->settled, &found, &created_ms, &e) !=
            FERRY_OK ||
        r->source->ops->last(r->source->driver, &last, &e) != FERRY_OK) {
        return;
    }
    status->backlog_known = true;
    if (found) { /* Otherwise the last ones given are gone: published by a relay before us. */
        status->backlog_rows = last > status->settled ? last - status->settled : 0;
        status->oldest_known = true;
        status->oldest_ms = now_wall_ms > created_ms ? now_wall_ms - created_ms : 0;
    }
}

/* ---- The invariants. */

static void check_target(const struct relay *r, const struct relay_target *t)
{
    must(t->flight_count <= RELAY_WINDOW_MAX);
    must((t->queue_count == 0) == (t->queue_first == RELAY_NO_ROW));
    if (t->state == RELAY_TARGET_LOST) {
        must(t->queue_count == 0);
    } else {
        must(t->blocked_from == RELAY_NOT_BLOCKED);
        must(t->queue_count == 0 || r->page.rows[t->queue_first].position > t->sent);
    }
}

void relay_check(const struct relay *r)
{
    size_t inflight = 0;
    size_t blocked = 0;
    size_t queued = 0;
    for (size_t i = 0; i < r->topic_count; i++) {
        const struct relay_topic *topic = r->topics[i];
        must(topic->name != NULL);
        blocked += topic->blocked_from != RELAY_NOT_BLOCKED;
        for (int32_t p = 0; p < topic->partitions; p++) {
            const struct relay_target *t = &topic->targets[p];
            check_target(r, t);
            for (size_t f = 0; f < t->flight_count; f++) {
                inflight += !t->flights[(t->flight_first + f) % RELAY_WINDOW_MAX].done;
            }
            queued += t->queue_count;
            blocked += t->blocked_from != RELAY_NOT_BLOCKED;
        }
    }
    must(inflight == r->inflight);
    must(blocked == r->blocked);
    must(queued == r->queued);
    must(relay_low_mark(r) <= r->read_pos);
    must(r->state == RELAY_ACTIVE || r->queued == 0);
}
