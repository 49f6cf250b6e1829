/* The PostgreSQL source's table for the relay, and what is not reading. */
#include "outbox/postgresql/source_postgresql.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "outbox/app/wake.h"
#include "outbox/relay/relay_place.h"

#define NUMBER_BYTES 24u

static void driver_close(void *driver)
{
    struct source_pg *d = driver;
    if (d->wake_fd >= 0) {
        wake_close(d->wake_name, &d->wake_fd);
    }
    if (d->place_fd >= 0) {
        close(d->place_fd);
    }
    pg_link_fini(&d->reader);
    pg_link_fini(&d->side);
    source_pg_notify_fini(d);
    ticks_fini(&d->ticks);
    snapshot_release(&d->candidate);
    snapshot_release(&d->idle);
    snapshot_release(&d->seen);
    snapshot_release(&d->told);
    snapshot_release(&d->kept);
    source_pg_lanes_forget(d);
    mem_free(d->history);
    mem_free(d);
}

static struct ferry_id driver_id(void *driver)
{
    const struct source_pg *d = driver;
    return d->identity.source;
}

static const char *driver_name(void *driver)
{
    const struct source_pg *d = driver;
    return d->url.shown;
}

enum ferry_err source_pg_side(struct source_pg *d, struct err_text *e)
{
    struct pg_identity now;
    if (d->set_back) {
        return err_set(e, FERRY_ERR_DB_RETRY, "%s", d->set_back_words.text);
    }
    enum ferry_err err = pg_link_up(&d->side, clock_monotonic_us() + PG_LINK_TAKE_US, e);
    if (err != FERRY_OK || d->side_checked_connects == d->side.connects) {
        return err;
    }
    source_pg_lanes_forget(d); /* They are of the database that was there. */
    err = source_pg_identify(d, &d->side, &now, e);
    bool same = false;
    if (err == FERRY_OK) {
        err = source_pg_recognize(d, &d->side, &now, &same, e);
    }
    if (err == FERRY_OK && !same) {
        return FERRY_ERR_DB_RETRY;
    }
    if (err == FERRY_OK) {
        d->side_checked_connects = d->side.connects;
    }
    return err;
}

enum ferry_err source_pg_barrier(struct source_pg *d, struct err_text *e)
{
    PGresult *result = NULL;
    int64_t from_us = clock_monotonic_us();
    d->candidate_asked_us = from_us;
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = pg_link_ask(&d->side, PG_BARRIER, NULL, 0, &result, e);
    }
    PQclear(result);
    if (err == FERRY_OK) {
        d->counters.barriers++;
        d->counters.barrier_us += (uint64_t)(clock_monotonic_us() - from_us);
    }
    return err;
}

/* ---- Where everybody is. */

static struct cover_place place_now(const struct source_pg *d, const struct tick_last *last)
{
    return (struct cover_place){.system = d->identity.system,
                                .timeline = d->identity.timeline,
                                .database = d->identity.database,
                                .lsn = d->covered,
                                .has_last = last->known,
                                .last_seq = last->seq,
                                .last_id = last->id};
}

static enum ferry_err driver_begin(void *driver, struct bytes checkpoint, int64_t *settled,
                                   bool *same, struct err_text *e)
{
    struct source_pg *d = driver;
    struct cover from = {0};
    struct cover_place place;
    enum ferry_err err = FERRY_OK;
    *same = true;
    source_pg_forget(d);
    snapshot_release(&d->idle);
    if (checkpoint.size > 0) {
        err = cover_decode(checkpoint, &from, &place, e);
        if (err == FERRY_OK) {
            err = source_pg_place_is_here(d, &place, &from, same, e);
        }
    } else {
        from.base = snapshot_empty();
        err = from.base == NULL ? err_set(e, FERRY_ERR_NO_MEMORY, "out of memory") : FERRY_OK;
    }
    if (err == FERRY_OK && *same) {
        ticks_begin(&d->ticks, &from);
        snapshot_release(&d->told);
        snapshot_release(&d->kept);
        *settled = d->ticks.position;
    }
    cover_fini(&from);
    return err;
}

static enum ferry_err driver_verify(void *driver, bool *same, struct err_text *e)
{
    struct source_pg *d = driver;
    struct pg_identity now;
    *same = !d->set_back;
    if (d->set_back) {
        *e = d->set_back_words;
        return FERRY_OK;
    }
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = source_pg_identify(d, &d->side, &now, e);
    }
    if (err == FERRY_OK) {
        err = source_pg_recognize(d, &d->side, &now, same, e);
    } else if (d->set_back) {
        *same = false; /* A new connection showed it; the words are in `e`. */
        err = FERRY_OK;
    }
    source_pg_listen(d);
    source_pg_notify_step(d);
    return err;
}

static void driver_checkpoint(void *driver, int64_t settled, struct source_blob *blob)
{
    struct source_pg *d = driver;
    struct cover cover;
    struct tick_last last;
    ticks_settled(&d->ticks, settled, &cover, &last);
    struct cover_place place = place_now(d, &last);
    cover_encode(&cover, &place, blob);
    snapshot_set(&d->told, cover.base);
    d->told_position = settled;
}

/* ---- Marks. */

static enum ferry_err driver_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                       bool *same, bool *again, struct err_text *e)
{
    struct source_pg *d = driver;
    struct cover cover = {0};
    struct cover_place place;
    enum ferry_err err = FERRY_OK;
    *same = true;
    *again = false;
    if (blob.size == 0) {
        cover.base = snapshot_empty();
        err = cover.base == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
    } else {
        err = cover_decode(blob, &cover, &place, e);
        if (err == FERRY_OK) {
            err = source_pg_place_is_here(d, &place, &cover, same, e);
        }
    }
    if (err == FERRY_OK && *same) {
        err = ticks_mark_open(&d->ticks, &cover, mark, again);
    }
    if (*again) {
        source_pg_read_anew(d);
    }
    cover_fini(&cover);
    return err == FERRY_ERR_NO_MEMORY ? err_set(e, err, "out of memory") : err;
}

static void driver_mark_close(void *driver, struct source_mark *mark)
{
    struct source_pg *d = driver;
    if (mark != NULL && mark->extra) {
        source_pg_read_anew(d);
    }
    ticks_mark_close(&d->ticks, mark);
}

static bool driver_wants(void *driver, const struct source_mark *mark, const struct source_row *row)
{
    const struct source_pg *d = driver;
    return ticks_wants(&d->ticks, mark, row->transaction, row->number);
}

static size_t driver_mark_encode(void *driver, const struct source_mark *mark,
                                 const struct source_row *const *rows, size_t count, bool last,
                                 struct source_blob *blob)
{
    struct source_pg *d = driver;
    struct cover after;
    must(count > 0);
    const struct source_row *row = rows[count - 1];
    if (!ticks_mark_after(&d->ticks, mark, row->number, last, &after)) {
        return 0;
    }
    struct tick_last known = {true, row->number, row->message.id};
    struct cover_place place = place_now(d, &known);
    cover_encode(&after, &place, blob);
    return blob->size > 0 ? count : 0;
}

static enum ferry_err driver_mark_add(void *driver, struct source_mark *mark,
                                      const struct source_row *const *rows, size_t count, bool last)
{
    struct source_pg *d = driver;
    bool added = ticks_mark_add(&d->ticks, mark, rows[count - 1]->number, last);
    must(added); /* It was encoded. */
    return FERRY_OK;
}

static void driver_mark_acked(void *driver, struct source_mark *mark, size_t count)
{
    (void)driver; /* What is on its way counts as had, until the mark is opened anew. */
    (void)mark;
    (void)count;
}

/* ---- Decisions. */

static enum ferry_err side_ask(struct source_pg *d, enum pg_statement statement,
                               const char *const *values, size_t count, PGresult **result,
                               struct err_text *e)
{
    *result = NULL;
    enum ferry_err err = source_pg_side(d, e);
    return err == FERRY_OK ? pg_link_ask(&d->side, statement, values, count, result, e) : err;
}

/* Done unless the row waits there and its key is not parked. */
static bool aside_is_done(const PGresult *r)
{
    return pg_int(r, 0, 0) > 0 || pg_int(r, 0, 1) == 0 || pg_int(r, 0, 2) > 0;
}

static enum ferry_err park_key(struct source_pg *d, const char *const *values, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = side_ask(d, PG_ASIDE_PARK, values, 2, &result, e);
    PQclear(result);
    return err;
}

/* The key first: a crash in between leaves a parked key without rows, not a row that its followers
 * overtake. */
static enum ferry_err driver_set_aside(void *driver, const struct source_row *row,
                                       enum source_aside why, const char *reason, bool *done,
                                       struct err_text *e)
{
    struct source_pg *d = driver;
    char lane[NUMBER_BYTES];
    char seq[NUMBER_BYTES];
    snprintf(lane, sizeof(lane), "%u", d->options.lane);
    snprintf(seq, sizeof(seq), "%lld", (long long)row->number);
    bool parked = why == SOURCE_ASIDE_PARKED;
    const char *values[] = {lane, seq, reason, parked ? "true" : "false"};
    enum ferry_err err = why == SOURCE_ASIDE_PARK ? park_key(d, values, e) : FERRY_OK;
    PGresult *result = NULL;
    *done = false;
    if (err == FERRY_OK) {
        err = side_ask(d, parked ? PG_ASIDE_PARKED : PG_ASIDE, values, 4, &result, e);
    }
    if (err == FERRY_OK) {
        *done = !parked || aside_is_done(result);
    }
    PQclear(result);
    return err;
}

static enum ferry_err driver_fetch(void *driver, struct source_page *page, bool *there,
                                   struct err_text *e)
{
    struct source_pg *d = driver;
    const struct source_row bare = page->rows[0];
    char lane[NUMBER_BYTES];
    char seq[NUMBER_BYTES];
    snprintf(lane, sizeof(lane), "%u", d->options.lane);
    snprintf(seq, sizeof(seq), "%lld", (long long)bare.number);
    const char *values[] = {lane, seq};
    PGresult *result = NULL;
    int64_t bytes = 0;
    source_page_clear(page);
    enum ferry_err err = side_ask(d, PG_ROW, values, 2, &result, e);
    if (err == FERRY_OK && source_pg_rows(d, result, page, &bytes) != FERRY_OK) {
        err = err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory: lower relay.page_bytes",
                      d->url.shown);
        source_page_clear(page);
    }
    *there = page->count == 1;
    if (*there) {
        page->rows[0].position = bare.position;
    }
    PQclear(result);
    return err;
}

static enum ferry_err driver_decided(void *driver, int64_t number, bool *decided,
                                     struct err_text *e)
{
    struct source_pg *d = driver;
    char seq[NUMBER_BYTES];
    snprintf(seq, sizeof(seq), "%lld", (long long)number);
    const char *values[] = {seq};
    PGresult *result = NULL;
    enum ferry_err err = side_ask(d, PG_DECIDED, values, 1, &result, e);
    *decided = err == FERRY_OK && PQntuples(result) > 0;
    PQclear(result);
    return err;
}

static enum ferry_err driver_parked(void *driver, source_parked_cb *callback, void *arg,
                                    struct err_text *e)
{
    struct source_pg *d = driver;
    char lane[NUMBER_BYTES];
    snprintf(lane, sizeof(lane), "%u", d->options.lane);
    const char *values[] = {lane};
    PGresult *result = NULL;
    enum ferry_err err = side_ask(d, PG_PARKED, values, 1, &result, e);
    for (int at = 0; err == FERRY_OK && at < PQntuples(result); at++) {
        callback(PQgetvalue(result, at, 0), pg_value(result, at, 1), pg_int(result, at, 2), arg);
    }
    PQclear(result);
    return err;
}

static enum ferry_err driver_paused(void *driver, bool *paused, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = side_ask(driver, PG_PAUSED, NULL, 0, &result, e);
    *paused = err == FERRY_OK && PQntuples(result) > 0 &&
              bytes_equal(pg_value(result, 0, 0), bytes_of_string("1"));
    PQclear(result);
    return err;
}

/* ---- Waking. */

static int driver_wake_fd(void *driver)
{
    const struct source_pg *d = driver;
    return d->notify.epoll_fd >= 0 ? d->notify.epoll_fd : d->wake_fd;
}

static void driver_wake_drain(void *driver)
{
    struct source_pg *d = driver;
    if (d->wake_fd >= 0) {
        wake_drain(d->wake_fd);
    }
    source_pg_notify_drain(d);
}

/* No word is left, but this comes once a second in every state of the relay: an answer that nobody
 * takes now is taken off the socket, else the server holds a snapshot for it. */
static void driver_leave_word(void *driver, const struct source_word *word)
{
    struct source_pg *d = driver;
    (void)word;
    source_pg_copy_tire(d);
    if (d->reader.busy && d->reading != PG_READING_COPY) {
        pg_link_pump(&d->reader);
    }
}

static void driver_place(void *driver, char *text, size_t bytes)
{
    const struct source_pg *d = driver;
    relay_place_text(d->place_fd, d->wake_name, text, bytes);
}

const struct source_ops source_pg_ops = {
    .close = driver_close,
    .id = driver_id,
    .name = driver_name,
    .begin = driver_begin,
    .read = source_pg_read,
    .fetch = driver_fetch,
    .rewind = source_pg_rewind,
    .changed = source_pg_changed,
    .verify = driver_verify,
    .checkpoint = driver_checkpoint,
    .mark_open = driver_mark_open,
    .mark_close = driver_mark_close,
    .wants = driver_wants,
    .mark_encode = driver_mark_encode,
    .mark_add = driver_mark_add,
    .mark_acked = driver_mark_acked,
    .tidy = source_pg_tidy,
    .wants_lane = source_pg_wants_lane,
    .take_lane = source_pg_take_lane,
    .set_aside = driver_set_aside,
    .decided = driver_decided,
    .parked = driver_parked,
    .paused = driver_paused,
    .figures = source_pg_figures,
    .wake_fd = driver_wake_fd,
    .wake_drain = driver_wake_drain,
    .leave_word = driver_leave_word,
    .place = driver_place,
};
