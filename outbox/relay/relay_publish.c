/* From pages to batches: rows are read, routed into one queue for each target, and sent as far as
 * the targets' windows allow. A page is left when its queues are empty; batches on their way do not
 * need it any more. */
#include <string.h>

#include "outbox/relay/relay_state.h"

#define PAGES_BY_STEP   4   /* Then answers are taken. */
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

/* Fills the scratch from the target's queue; at least one row. */
static size_t batch_fill(const struct relay_target *t, struct relay_flight *flight)
{
    const struct relay *r = t->relay;
    size_t rows_max = batch_rows_max(t);
    size_t bytes = 0;
    size_t count = 0;
    for (size_t row = t->queue_first; row != RELAY_NO_ROW && count < rows_max;
         row = r->page_next[row]) {
        const struct source_row *from = &r->page.rows[row];
        bytes += message_bytes(&from->message);
        if (count > 0 && bytes > (size_t)r->options->batch_bytes) {
            break;
        }
        r->scratch[count++] = from->message;
        if (count == 1) {
            flight->first = from->position;
        }
        flight->last = from->position;
    }
    must(count > 0);
    flight->count = count;
    return count;
}

static void batch_sent(struct relay_target *t, size_t count, int64_t last)
{
    struct relay *r = t->relay;
    t->version++;
    must(last > t->sent);
    t->sent = last;
    t->flight_count++;
    r->inflight++;
    if (t->suspect_after == 0) {
        t->suspect_after = RELAY_NO_SUSPECT;
        t->half_open = true;
    } else if (t->suspect_after > 0) {
        t->suspect_after -= (int64_t)count;
    }
    queue_pop(r, t, count);
}

/* Sends one batch. False: the client takes no more now. */
static bool batch_send(struct relay_target *t)
{
    struct relay *r = t->relay;
    size_t slot = (t->flight_first + t->flight_count) % RELAY_WINDOW_MAX;
    struct relay_flight *flight = &t->flights[slot];
    *flight = (struct relay_flight){.target = t};
    size_t count = batch_fill(t, flight);
    struct source_cursor cursor = {flight->last, r->scratch[count - 1].id};
    uint8_t blob[CURSOR_BYTES];
    cursor_encode(&cursor, blob);
    enum ferry_err err =
        r->broker->append(r->broker->ctx, t->topic->name, t->partition, t->version, blob,
                          sizeof(blob), r->scratch, count, relay_outcome, flight);
    if (err == FERRY_OK) {
        batch_sent(t, count, flight->last);
        return true;
    }
    if (err == FERRY_ERR_QUEUE_FULL || err == FERRY_ERR_THROTTLED) {
        return false;
    }
    if (err == FERRY_ERR_TOO_LARGE && count > 1) {
        t->limit = count / 2; /* Other limits than ours: smaller batches. */
        return true;
    }
    struct ferry_append_result result = {
        .err = err, .refused_index = SIZE_MAX, .detail = ferry_err_text(err)};
    struct relay_flight failed = *flight;
    relay_target_fail(t, &failed, &result);
    return true;
}

static size_t window_of(const struct relay_target *t)
{
    bool careful = t->half_open || t->suspect_after != RELAY_NO_SUSPECT;
    return careful ? 1 : (size_t)t->relay->options->window;
}

static bool target_pump(struct relay_target *t)
{
    while (t->queue_count > 0 && t->flight_count < window_of(t)) {
        must(t->state == RELAY_TARGET_READY);
        if (!batch_send(t)) {
            return false;
        }
    }
    return true;
}

static void pump(struct relay *r)
{
    size_t kept = 0;
    bool room = true;
    for (size_t i = 0; i < r->waiting_count; i++) {
        struct relay_target *t = r->waiting[i];
        room = room && target_pump(t);
        if (t->queue_count > 0) {
            r->waiting[kept++] = t;
        }
    }
    r->waiting_count = kept;
}

/* ---- Pages. */

static void distribute(struct relay *r)
{
    for (size_t i = 0; i < r->page.count; i++) {
        const struct source_row *row = &r->page.rows[i];
        int64_t position = row->position;
        struct ferry_id id = row->message.id;
        struct relay_target *t = relay_topics_route(r, row);
        if (r->state != RELAY_ACTIVE) {
            return; /* The page is gone; it is read again from the low mark. */
        }
        if (t != NULL) {
            queue_push(r, t, i);
        }
        must(position > r->read_pos);
        r->read_pos = position;
        r->read_id = id;
    }
}

/* Looks whether there may be something new: a wake, the rest of a backlog, or the poll. */
static bool should_read(struct relay *r)
{
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
    int64_t longest_us = r->options->poll_max_ms * US_PER_MS;
    r->poll_pause_us = r->poll_pause_us * 2 > longest_us ? longest_us : r->poll_pause_us * 2;
    r->poll_at_us = r->now_us + r->poll_pause_us;
    return changed || r->read_failed;
}

static bool read_page(struct relay *r)
{
    bool more = false;
    struct err_text e = {{0}};
    enum ferry_err err =
        r->source->ops->read(r->source->driver, r->read_pos, (size_t)r->options->page_rows,
                             (size_t)r->options->page_bytes, &r->page, &more, &e);
    r->stats.reads++;
    if (err != FERRY_OK) {
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
    if (r->page.count > 0) {
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
        if (!should_read(r) || !read_page(r)) {
            return;
        }
        distribute(r);
    }
    pump(r);
}
