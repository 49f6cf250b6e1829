#include "outbox/relay/relay.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/relay_state.h"

#define BEAT_US         (1000 * US_PER_MS)
#define BLOCKED_LOOK_US (5 * US_PER_MS)    /* How often what is blocked is looked at. */
#define TIDY_RETRY_US   (200 * US_PER_MS)  /* After the database was busy. */
#define LANE_ASK_MS     200                /* While it waits nothing else goes on. */
#define STOP_TIDY_US    (3000 * US_PER_MS) /* How long a clean exit tidies up. */
#define FIGURES_US      (200 * US_PER_MS)  /* How often the source is asked for figures. */

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
                         const struct source *source, const struct relay_broker *broker,
                         const struct relay_hooks *hooks, uint64_t seed)
{
    struct relay *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->options = options;
    made->source = source;
    made->broker = broker;
    made->hooks = hooks != NULL ? *hooks : (struct relay_hooks){0};
    prng_init(&made->prng, seed);
    made->care.who = prng_next(&made->prng);
    source_page_init(&made->page);
    made->state = RELAY_ELECTING;
    made->poll_pause_us = options->poll_min_ms * US_PER_MS;
    made->page_next = mem_zalloc((size_t)options->page_rows, sizeof(*made->page_next));
    made->waiting = mem_zalloc((size_t)options->page_rows, sizeof(struct relay_target *));
    made->scratch = mem_zalloc((size_t)options->batch_rows, sizeof(*made->scratch));
    made->scratch_rows = mem_zalloc((size_t)options->batch_rows, sizeof(const struct source_row *));
    if (made->page_next == NULL || made->waiting == NULL || made->scratch == NULL ||
        made->scratch_rows == NULL) {
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
    relay_aside_fini(*r);
    source_page_fini(&(*r)->page);
    mem_free((*r)->page_next);
    mem_free((void *)(*r)->waiting);
    mem_free((*r)->scratch);
    mem_free((void *)(*r)->scratch_rows);
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
    if (r->blocked == 0 && !r->stuck && !r->tidy_failed) {
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
    /* The first flight is the lowest: positions never fall, over a rewind neither. */
    if (t->flight_count > 0 && !t->flights[t->flight_first].stale) {
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

void relay_page_drop(struct relay *r)
{
    int64_t low = relay_low_mark(r);
    relay_queue_drop(r);
    r->rewound = true;
    r->read_pos = low;
    r->given = low;
}

void relay_rewind(struct relay *r)
{
    must(r->state == RELAY_ACTIVE);
    relay_page_drop(r);
    r->caught_up = false;
    r->source->ops->rewind(r->source->driver, r->read_pos);
}

/* ---- Ends. */

void relay_halt(struct relay *r, const char *why)
{
    struct err_text e;
    err_set(&e, FERRY_OK, "%s", why); /* `why` may be our own error text. */
    if (r->state != RELAY_HALTED) {
        log_line(LOG_ERROR, "relay", "%s: halted: %s", relay_name(r),
                 source_words(relay_name(r), e.text));
    }
    relay_deaths_leave(r);
    relay_lease_lost(r, RELAY_HALTED);
    r->error = e;
}

void relay_halt_set_back(struct relay *r, const char *why)
{
    r->stats.timetravel++;
    r->set_back = true;
    relay_halt(r, why);
}

void relay_stop(struct relay *r)
{
    r->stopping = true; /* What is queued and not sent holds the low mark where it is. */
}

void relay_wake(struct relay *r)
{
    source_wake_drain(r->source);
    r->stats.wakes++;
    r->look = true;
    r->poll_pause_us = r->options->poll_min_ms * US_PER_MS;
}

bool relay_is_paced(const struct relay *r, int64_t now_us)
{
    return now_us < r->pace_until_us;
}

/* ---- Deleting what is published: when and how much is the driver's to say. */

/* A lane that is not known now keeps the driver from deleting, and no more than that. */
static void ask_lane(struct relay *r)
{
    struct ferry_source_info info;
    struct relay_kept kept;
    struct err_text e = {{0}};
    uint32_t lane = 0;
    if (!source_wants_lane(r->source, &lane)) {
        return;
    }
    enum ferry_err err = r->broker->show == NULL
                             ? FERRY_ERR_UNKNOWN_COMMAND
                             : r->broker->show(r->broker->ctx, lane, LANE_ASK_MS, &info);
    if (err == FERRY_OK) {
        err = relay_kept_decode(bytes_of(info.checkpoint, info.checkpoint_bytes), &kept, &e);
    }
    bool active = err == FERRY_OK && info.known && info.left_ms > 0;
    r->source->ops->take_lane(r->source->driver, lane, active,
                              active ? kept.checkpoint : bytes_of(NULL, 0));
}

static void tidy_step(struct relay *r)
{
    if (r->now_us < r->tidy_at_us) {
        return;
    }
    ask_lane(r);
    bool idle = r->caught_up && r->inflight == 0 && r->queued == 0;
    struct source_progress progress = {.settled = relay_low_mark(r),
                                       .checkpointed = r->checkpointed,
                                       .quiet = idle && r->now_us - r->busy_at_us >=
                                                            r->options->delete_idle_ms * US_PER_MS,
                                       .stopping = r->stopping || r->settling,
                                       .now_us = r->now_us};
    struct err_text e = {{0}};
    size_t removed = 0;
    bool again = false;
    enum ferry_err err = source_tidy(r->source, &progress, &removed, &again, &e);
    r->tidy_again = err == FERRY_OK && again;
    if (err != FERRY_OK) {
        r->error = e;
        r->tidy_failed = true;
        r->tidy_at_us = r->now_us + TIDY_RETRY_US;
        return;
    }
    r->stats.deleted_rows += removed;
    r->settled_at = r->settling && removed == 0 && !again ? progress.settled : -1;
    if (r->tidy_failed) {
        r->tidy_failed = false;
        relay_error_over(r);
    }
}

/* ---- The beat: is the source still itself, what have people decided, and a word for them. */

static enum relay_state told_state(const struct relay *r)
{
    if (r->state != RELAY_ACTIVE) {
        return r->state;
    }
    return r->paused ? RELAY_PAUSED : r->stuck ? RELAY_BLOCKED : RELAY_ACTIVE;
}

static void look_at_source(struct relay *r)
{
    struct err_text e = {{0}};
    bool same = true;
    bool paused = r->paused;
    if (source_verify(r->source, &same, &e) == FERRY_OK && !same) {
        relay_halt_set_back(r, e.text);
        return;
    }
    if (source_paused(r->source, &paused, &e) == FERRY_OK && paused != r->paused) {
        r->paused = paused;
        log_line(LOG_INFO, "relay", "%s: %s", relay_name(r),
                 paused ? "paused: nothing is published until `ferry outbox resume`" : "resumed");
    }
    if (relay_parked_load(r, &e) != FERRY_OK) {
        r->error = e; /* The database decides each time; what was read last is right till then. */
    }
}

static void beat_step(struct relay *r)
{
    if (r->now_us < r->beat_at_us) {
        return;
    }
    r->beat_at_us = r->now_us + BEAT_US;
    if (r->state == RELAY_ACTIVE) {
        look_at_source(r);
    }
    struct source_word word = {
        .pid = getpid(), .beat_ms = clock_wall_ms(), .published_id = relay_low_mark(r)};
    word.active = r->state == RELAY_ACTIVE;
    snprintf(word.state, sizeof(word.state), "%s", relay_state_name(told_state(r)));
    source_leave_word(r->source, &word);
}

/* ---- The step. */

static void stop_step(struct relay *r)
{
    if (r->stop_until_us == 0) {
        r->stop_until_us = r->now_us + STOP_TIDY_US;
    }
    if (r->inflight > 0) {
        return;
    }
    if (r->state == RELAY_ACTIVE && r->now_us < r->stop_until_us) {
        tidy_step(r);
        if (r->tidy_again || r->tidy_failed) {
            return;
        }
    }
    if (r->state == RELAY_ACTIVE) {
        relay_checkpoint_step(r, true);
    }
    if (r->state == RELAY_ACTIVE) {
        relay_rewind(r); /* What waits in the page is for the next relay. */
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
    if (r->tidy_again || r->settling) {
        due = sooner(due, r->now_us);
    }
    if (r->paused || r->stuck) {
        return sooner(due, r->stuck ? r->ask_at_us : due);
    }
    if (r->blocked > 0) {
        due = sooner(due, r->now_us + BLOCKED_LOOK_US);
    }
    if (r->queued == 0) {
        bool waits = r->caught_up && !r->look;
        bool down = r->blocked > 0 && relay_topics_all_down(r);
        int64_t care_us = r->now_us;
        bool careful = !waits && relay_deaths_wait(r, &care_us);
        int64_t look_us = waits ? r->poll_at_us : down && !careful ? due : care_us;
        due = sooner(due, relay_is_paced(r, r->now_us) && look_us < r->pace_until_us
                              ? r->pace_until_us
                              : look_us);
    } else if (r->inflight == 0 || r->starved) {
        due = sooner(due, r->now_us + US_PER_MS); /* The client's queue was full, or a mark is. */
    }
    return due;
}

/* Publishing and all that serves it; each part may end the time in office. */
static void active_step(struct relay *r)
{
    relay_undecided_step(r);
    if (!r->paused && !r->stuck) {
        relay_topics_retry(r);
        if (r->state == RELAY_ACTIVE && !r->stuck) {
            relay_publish_step(r);
        }
    }
    if (r->state == RELAY_ACTIVE) {
        relay_deaths_step(r);
    }
    if (r->state == RELAY_ACTIVE) {
        relay_checkpoint_step(r, false);
    }
    if (r->state == RELAY_ACTIVE) {
        tidy_step(r);
    }
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
        active_step(r);
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

/* A figure costs the database something: asked now and then, and for the last time once all is
 * settled. */
static void look_at_figures(struct relay *r, const struct relay_status *status)
{
    bool old = r->now_us - r->figures_at_us >= FIGURES_US || !r->figures_known;
    if (!old && !(status->caught_up && status->settled != r->figures_settled)) {
        return;
    }
    struct err_text e = {{0}};
    struct source_figures figures = {0};
    r->figures_at_us = r->now_us;
    r->figures_settled = status->settled;
    r->figures_known = source_figures(r->source, status->settled, &figures, &e) == FERRY_OK;
    r->figures = figures;
}

void relay_status(struct relay *r, struct relay_status *status)
{
    *status = (struct relay_status){
        .state = told_state(r),
        .stats = r->stats,
        .settled = relay_low_mark(r),
        .epoch = r->epoch,
        .inflight_batches = r->inflight,
        .parked_keys = r->parked.parked,
        .undecided = r->stuck ? r->undecided : 0,
        .set_back = r->set_back,
        .error = r->error,
    };
    count_blocked(r, status);
    status->caught_up = r->state == RELAY_ACTIVE && r->caught_up && !r->look && !r->read_failed &&
                        !r->stuck && r->inflight == 0 && r->queued == 0 &&
                        status->blocked_partitions == 0;
    /* Before the first election the low mark is not known, so neither is what lies behind it. */
    if (r->stats.elections == 0) {
        return;
    }
    look_at_figures(r, status);
    status->database_failed = r->read_failed || !r->figures_known;
    status->figures_known = r->figures_known;
    status->figures = r->figures;
    status->backlog_known = r->figures_known && r->figures.pending_known;
    status->backlog_rows = r->figures.pending_rows;
    status->oldest_known = r->figures_known && r->figures.oldest_known;
    status->oldest_ms = r->figures.oldest_ms;
}

/* ---- The invariants. */

static void check_target(const struct relay *r, const struct relay_target *t)
{
    must(t->flight_count <= RELAY_WINDOW_MAX);
    must((t->queue_count == 0) == (t->queue_first == RELAY_NO_ROW));
    must((t->state == RELAY_TARGET_READY) == (t->mark != NULL));
    if (t->state == RELAY_TARGET_LOST) {
        must(t->queue_count == 0);
    } else {
        must(t->blocked_from == RELAY_NOT_BLOCKED);
    }
    int64_t before = 0;
    for (size_t f = 0; f < t->flight_count; f++) {
        const struct relay_flight *flight = &t->flights[(t->flight_first + f) % RELAY_WINDOW_MAX];
        must(!flight->stale || t->state == RELAY_TARGET_LOST);
        must(flight->stale || flight->first > before);
        before = flight->stale ? before : flight->first;
    }
    for (size_t i = t->queue_first; i != RELAY_NO_ROW; i = r->page_next[i]) {
        must(r->page.rows[i].position > before);
        must(r->source->ops->wants(r->source->driver, t->mark, &r->page.rows[i]));
        before = r->page.rows[i].position;
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
    must(r->read_pos <= r->given);
    for (size_t i = 1; i < r->aside_count; i++) {
        must(r->aside[i - 1].number < r->aside[i].number);
    }
    must(r->state == RELAY_ACTIVE || r->queued == 0);
}
