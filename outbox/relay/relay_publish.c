/* From pages to batches: rows are read, routed into one queue for each target, and sent as far as
 * the targets' windows allow. A page is left when its queues are empty; batches on their way do not
 * need it any more. */
#include <string.h>

#include "base/clock.h"
#include "outbox/relay/relay_state.h"

#define PAGES_BY_STEP   4                  /* Then answers are taken. */
#define UNREAD_US       (3000 * US_PER_MS) /* Then another relay may have a better connection. */
#define ROW_OVERHEAD    64u /* Beside key, headers and payload: more than the batch's own. */
#define HEADER_OVERHEAD 16u

/* ---- Queues. */

void relay_target_queue_drop(struct relay_target *t)
{
    must(t->relay->queued >= t->queue_count);
    t->relay->queued -= t->queue_count;
    t->queue_first = RELAY_NO_ROW;
    t->queue_last = RELAY_NO_ROW;
    t->queue_count = 0;
}

void relay_queue_drop(struct relay *r)
{
    for (size_t i = 0; i < r->waiting_count; i++) {
        relay_target_queue_drop(r->waiting[i]);
    }
    r->waiting_count = 0;
    must(r->queued == 0);
    source_page_clear(&r->page);
}

void relay_waiting_forget(struct relay *r, const struct relay_topic *topic)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->waiting_count; i++) {
        if (r->waiting[i]->topic == topic) {
            must(r->waiting[i]->queue_count == 0);
        } else {
            r->waiting[kept++] = r->waiting[i];
        }
    }
    r->waiting_count = kept;
}

static void queue_push(struct relay *r, struct relay_target *t, size_t row)
{
    r->page_next[row] = RELAY_NO_ROW;
    if (t->queue_first == RELAY_NO_ROW) {
        t->queue_first = row;
        r->waiting[r->waiting_count++] = t;
    } else {
        r->page_next[t->queue_last] = row;
    }
    t->queue_last = row;
    t->queue_count++;
    r->queued++;
}

static void queue_pop(struct relay *r, struct relay_target *t, size_t count)
{
    must(count <= t->queue_count);
    for (size_t i = 0; i < count; i++) {
        t->queue_first = r->page_next[t->queue_first];
    }
    t->queue_count -= count;
    r->queued -= count;
    if (t->queue_count == 0) {
        t->queue_first = RELAY_NO_ROW;
        t->queue_last = RELAY_NO_ROW;
    }
}

/* ---- Batches. */

static size_t message_bytes(const struct ferry_message *m)
{
    size_t bytes = m->key_bytes + m->payload_bytes + ROW_OVERHEAD;
    for (size_t i = 0; i < m->header_count; i++) {
        bytes += m->headers[i].value_bytes + strlen(m->headers[i].name) + HEADER_OVERHEAD;
    }
    return bytes;
}

static size_t batch_rows_max(const struct relay_target *t)
{
    if (t->suspect_after == 0) {
        return 1; /* The row the broker named goes alone, so that its refusal is beyond doubt. */
    }
    if (t->suspect_after > 0 && (size_t)t->suspect_after < t->limit) {
        return (size_t)t->suspect_after;
    }
    return t->limit;
}

/* Fills the scratch from the target's queue; at least one row. Rows with a due time go in batches
 * of their own, because the log takes a batch as a whole, or keeps it aside as a whole. */
static size_t batch_fill(const struct relay_target *t)
{
    const struct relay *r = t->relay;
    size_t rows_max = batch_rows_max(t);
    size_t bytes = 0;
    size_t count = 0;
    for (size_t row = t->queue_first; row != RELAY_NO_ROW && count < rows_max;
         row = r->page_next[row]) {
        const struct source_row *from = &r->page.rows[row];
        bytes += message_bytes(&from->message);
        if (count > 0 && (bytes > (size_t)r->options->batch_bytes ||
                          (from->message.due_ms != 0) != (r->scratch[0].due_ms != 0))) {
            break;
        }
        r->scratch_rows[count] = from;
        r->scratch[count++] = from->message;
    }
    must(count > 0);
    return count;
}

static void flight_fill(const struct relay *r, struct relay_flight *flight, size_t count)
{
    const struct source_row *first = r->scratch_rows[0];
    flight->first = first->position;
    flight->number = first->number;
    flight->count = count;
    flight->expects = flight->target->version;
    flight->sent_us = clock_monotonic_us();
    flight->created_ms = first->message.timestamp_ms;
    flight->delayed = first->message.due_ms != 0 ? count : 0;
}

static void batch_sent(struct relay_target *t, size_t count, bool last)
{
    struct relay *r = t->relay;
    enum ferry_err err =
        r->source->ops->mark_add(r->source->driver, t->mark, r->scratch_rows, count, last);
    t->version++;
    t->flight_count++;
    r->inflight++;
    if (t->suspect_after == 0) {
        t->suspect_after = RELAY_NO_SUSPECT;
        t->half_open = true;
    } else if (t->suspect_after > 0) {
        t->suspect_after -= (int64_t)count;
    }
    queue_pop(r, t, count);
    if (err !=
        FERRY_OK) { /* The mark does not know what is on its way: asked for when it is over. */
        err_set(&r->error, err, "%s/%d: %s", t->topic->name, t->partition, ferry_err_text(err));
        relay_target_put_off(t, r->scratch_rows[0]->position, r->now_us);
    }
}

enum sent { SENT, SENT_NOT_NOW, SENT_NO_ROOM };

/* The client did not take the batch. */
static enum sent batch_refused(struct relay_target *t, const struct relay_flight *flight,
                               enum ferry_err err)
{
    if (err == FERRY_ERR_QUEUE_FULL || err == FERRY_ERR_THROTTLED) {
        return SENT_NOT_NOW;
    }
    if (err == FERRY_ERR_TOO_LARGE && flight->count > 1) {
        t->limit = flight->count / 2; /* Other limits than ours: smaller batches. */
        return SENT;
    }
    struct ferry_append_result result = {
        .err = err, .refused_index = SIZE_MAX, .detail = ferry_err_text(err)};
    struct relay_flight failed = *flight;
    relay_target_fail(t, &failed, &result);
    return SENT;
}

/* Sends one batch, or as much of it as the mark has room for. */
static enum sent batch_send(struct relay_target *t)
{
    struct relay *r = t->relay;
    size_t slot = (t->flight_first + t->flight_count) % RELAY_WINDOW_MAX;
    struct relay_flight *flight = &t->flights[slot];
    struct source_blob mark;
    struct relay_kept_blob blob;
    size_t filled = batch_fill(t);
    size_t count = r->source->ops->mark_encode(r->source->driver, t->mark, r->scratch_rows, filled,
                                               filled == t->queue_count, &mark);
    must(count <= filled);
    t->full = count == 0;
    if (count == 0) {
        return SENT_NO_ROOM;
    }
    relay_kept_mark_encode(t->topic->partitions, bytes_of(mark.data, mark.size), &blob);
    *flight = (struct relay_flight){.target = t};
    flight_fill(r, flight, count);
    bool last = count == t->queue_count;
    enum ferry_err err =
        r->broker->append(r->broker->ctx, t->topic->name, t->partition, t->version, blob.data,
                          blob.size, r->scratch, count, relay_outcome, flight);
    if (err != FERRY_OK) {
        return batch_refused(t, flight, err);
    }
    batch_sent(t, count, last);
    return SENT;
}

static size_t window_of(const struct relay_target *t)
{
    bool careful = t->half_open || t->suspect_after != RELAY_NO_SUSPECT;
    return careful ? 1 : (size_t)t->relay->options->window;
}

/* False: the client takes no more now. */
static bool target_pump(struct relay_target *t)
{
    enum sent sent = SENT;
    while (sent == SENT && t->queue_count > 0 && t->flight_count < window_of(t)) {
        must(t->state == RELAY_TARGET_READY);
        sent = batch_send(t);
    }
    t->relay->starved = t->relay->starved || t->full;
    return sent != SENT_NOT_NOW;
}

static void pump(struct relay *r)
{
    size_t kept = 0;
    bool room = true;
    r->starved = false;
    for (size_t i = 0; i < r->waiting_count; i++) {
        struct relay_target *t = r->waiting[i];
        room = room && target_pump(t);
        if (t->queue_count > 0) {
            r->waiting[kept++] = t;
        }
    }
    r->waiting_count = r->queued == 0 ? 0 : kept; /* The page may be gone by now. */
}

/* ---- Pages. */

static void distribute(struct relay *r)
{
    r->rewound = false;
    for (size_t i = 0; i < r->page.count; i++) {
        const struct source_row *row = &r->page.rows[i];
        struct relay_target *t = relay_topics_route(r, row);
        if (r->rewound) {
            return; /* The page is gone; it is read again from the low mark. */
        }
        must(r->state == RELAY_ACTIVE);
        if (t != NULL) {
            queue_push(r, t, i);
        }
        must(row->position > r->read_pos);
        r->read_pos = row->position;
    }
}

/* A page costs the database, the broker's disk and both ends about the same for one row as for
 * some dozens. So where pages with a few rows follow each other, the next waits for more; one row
 * at a time, as in a quiet outbox, and full pages, as of a backlog, never wait. */
#define CROWDED_ROWS_MIN  2u
#define CROWDED_ROWS_MAX  512u
#define CROWDED_PAGES_MIN 4u

static void pace(struct relay *r)
{
    if (r->page.count == 0) {
        return; /* The look behind a page: it says nothing. */
    }
    bool full = r->page.count > CROWDED_ROWS_MAX || r->page.count == (size_t)r->options->page_rows;
    bool crowded = r->page.count >= CROWDED_ROWS_MIN && !full;
    r->crowded_pages = crowded ? r->crowded_pages + 1 : 0;
    if (r->crowded_pages >= CROWDED_PAGES_MIN) {
        r->crowded_pages = CROWDED_PAGES_MIN;
        r->pace_until_us = r->now_us + r->options->pace_ms * US_PER_MS;
    }
}

/* Looks whether there may be something new: a wake, the rest of a backlog, or the poll. */
static bool should_read(struct relay *r)
{
    if (relay_is_paced(r, r->now_us)) {
        return false;
    }
    if (r->look || !r->caught_up) {
        return true;
    }
    if (r->now_us < r->poll_at_us) {
        return false;
    }
    bool changed = false;
    struct err_text e = {{0}};
    r->stats.polls++;
    if (r->source->ops->changed(r->source->driver, &changed, &e) != FERRY_OK) {
        r->error = e;
    }
    r->stats.poll_wakes += changed;
    int64_t longest_us = r->options->poll_max_ms * US_PER_MS;
    r->poll_pause_us = r->poll_pause_us * 2 > longest_us ? longest_us : r->poll_pause_us * 2;
    r->poll_at_us = r->now_us + r->poll_pause_us;
    return changed || r->read_failed;
}

bool relay_read(struct relay *r, size_t rows_max, size_t bytes_max)
{
    bool more = false;
    struct err_text e = {{0}};
    int64_t began_us = clock_monotonic_us();
    enum ferry_err err =
        r->source->ops->read(r->source->driver, rows_max, bytes_max, &r->page, &more, &e);
    r->stats.reads++;
    relay_times_add(&r->stats.read_times, clock_monotonic_us() - began_us);
    if (err != FERRY_OK) {
        if (!r->read_failed) {
            r->unread_since_us = r->now_us;
        }
        if (r->now_us - r->unread_since_us >= UNREAD_US) {
            relay_give_up_office(r, &e);
            return false;
        }
        r->error = e;
        r->look = false;
        r->caught_up = true; /* Until the next poll; a changed database or a wake comes first. */
        r->poll_at_us = r->now_us + r->options->poll_max_ms * US_PER_MS;
        r->read_failed = true;
        return false;
    }
    r->read_failed = false;
    relay_error_over(r);
    r->look = false;
    r->caught_up = !more;
    pace(r);
    if (r->page.count > 0) {
        must(r->page.rows[0].position > r->given);
        r->given = r->page.rows[r->page.count - 1].position;
        r->stats.rows_read += r->page.count;
        r->busy_at_us = r->now_us;
        r->poll_pause_us = r->options->poll_min_ms * US_PER_MS;
        r->poll_at_us = r->now_us + r->poll_pause_us;
    }
    return r->page.count > 0;
}

void relay_publish_step(struct relay *r)
{
    for (int pages = 0; pages < PAGES_BY_STEP; pages++) {
        pump(r);
        if (r->queued > 0 || r->stopping || r->state != RELAY_ACTIVE) {
            return;
        }
        if (r->blocked > 0 && relay_topics_all_down(r)) {
            return;
        }
        if (relay_growth_hold(r)) {
            return;
        }
        if (!should_read(r) || !relay_deaths_read(r)) {
            return;
        }
        distribute(r);
    }
    pump(r);
}
