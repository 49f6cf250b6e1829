/* Reading: the next snapshot, whether it is on disk, and the pages of a tick.
 *
 * `read` is a small machine, because an answer of the database is not waited for longer than a
 * lease allows: what was asked is in `reading`, and a later call takes the answer. */
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "outbox/postgresql/source_postgresql.h"

#define NUMBER_BYTES     24u
#define WINDOW_NUMBERS   (1 << 16) /* Numbers looked at by one statement. */
#define FLUSH_LOOK_MS    2
#define COPY_MAX_US      2000000 /* Its snapshot is held so long, at most. */
#define COPY_ROWS_MAX    1000000 /* More are not counted. */
#define COPY_WAIT_US     250000
#define BARRIER_AGAIN_US 2000000

enum step { STEP_GO_ON, STEP_WAIT, STEP_DONE };

struct reading {
    size_t rows_max, bytes_max;
    struct source_page *page;
    bool more;
    int64_t until_us;
};

/* ---- Parameters. */

struct params {
    char lane[NUMBER_BYTES], lower_xmax[NUMBER_BYTES], bound[NUMBER_BYTES], seq[NUMBER_BYTES],
        limit[NUMBER_BYTES], bytes[NUMBER_BYTES];
    struct buf upper, late;
};

static void params_init(struct params *p, const struct source_pg *d)
{
    *p = (struct params){0};
    buf_init(&p->upper, SNAPSHOT_XIPS_MAX * NUMBER_BYTES);
    buf_init(&p->late, SNAPSHOT_XIPS_MAX * NUMBER_BYTES);
    snprintf(p->lane, sizeof(p->lane), "%u", d->options.lane);
}

static void params_fini(struct params *p)
{
    buf_fini(&p->upper);
    buf_fini(&p->late);
}

static void put_number(char text[NUMBER_BYTES], uint64_t v)
{
    snprintf(text, NUMBER_BYTES, "%llu", (unsigned long long)v);
}

static void put_signed(char text[NUMBER_BYTES], int64_t v)
{
    snprintf(text, NUMBER_BYTES, "%lld", (long long)v);
}

static enum ferry_err no_memory(const struct source_pg *d, struct err_text *e)
{
    return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory: lower relay.page_bytes",
                   d->url.shown);
}

/* What a tick's statements have in common: lane, lower's xmax, bound, upper, seq, late, limit,
 * bytes. */
static enum ferry_err send_job(struct source_pg *d, enum pg_statement statement,
                               const struct ticks_job *job, uint64_t bound, size_t limit,
                               size_t bytes, struct err_text *e)
{
    struct params p;
    params_init(&p, d);
    put_number(p.lower_xmax, job->lower->xmax);
    put_number(p.bound, bound);
    put_signed(p.seq, job->seq_at);
    put_number(p.limit, limit);
    put_number(p.bytes, bytes);
    snapshot_text(job->upper, &p.upper);
    buf_append_u8(&p.upper, 0);
    snapshot_late_text(job->lower, job->upper, &p.late);
    buf_append_u8(&p.late, 0);
    const char *values[] = {p.lane,  p.lower_xmax,
                            p.bound, (const char *)p.upper.data,
                            p.seq,   (const char *)p.late.data,
                            p.limit, p.bytes};
    enum ferry_err err =
        buf_ok(&p.upper) && buf_ok(&p.late)
            ? pg_link_send(&d->reader, statement, values, statement == PG_SIZE ? 7 : 8, e)
            : no_memory(d, e);
    params_fini(&p);
    return err;
}

/* ---- The next snapshot. */

static enum ferry_err send_probe(struct source_pg *d, const struct ticks_job *job, size_t limit,
                                 struct err_text *e)
{
    struct params p;
    params_init(&p, d);
    put_number(p.lower_xmax, job->lower->xmax);
    put_number(p.limit, limit);
    snapshot_listed_text(job->lower, &p.late);
    buf_append_u8(&p.late, 0);
    const char *values[] = {p.lane, p.lower_xmax, (const char *)p.late.data, p.limit};
    enum ferry_err err =
        buf_ok(&p.late) ? pg_link_send(&d->reader, PG_PROBE, values, 4, e) : no_memory(d, e);
    params_fini(&p);
    return err;
}

static enum ferry_err parse_snapshot(struct source_pg *d, struct bytes text, struct snapshot **s,
                                     struct err_text *e)
{
    enum ferry_err err = snapshot_parse(text, s);
    if (err == FERRY_ERR_TOO_LARGE) {
        return err_set(e, FERRY_ERR_DB_RETRY,
                       "%s: more transactions are open at once than a cursor can hold (%u): the "
                       "relay waits until there are fewer",
                       d->url.shown, SNAPSHOT_XIPS_MAX);
    }
    return err == FERRY_OK ? err
           : err == FERRY_ERR_NO_MEMORY
               ? no_memory(d, e)
               : err_set(e, FERRY_ERR_DB, "%s: pg_current_snapshot() answered something else",
                         d->url.shown);
}

static void note_flushed(struct source_pg *d, uint64_t lsn)
{
    d->flushed = lsn > d->flushed ? lsn : d->flushed;
}

/* A snapshot is in use from now on that was taken when the log reached to that place. */
static void note_covered(struct source_pg *d, uint64_t lsn)
{
    must(lsn <= d->flushed);
    d->covered = lsn > d->covered ? lsn : d->covered;
}

/* The base moves on. One that says the same needs no more of the log than before. */
static void skip_to(struct source_pg *d, struct snapshot *s, uint64_t lsn)
{
    if (!snapshot_equal(d->ticks.lower, s)) {
        note_covered(d, lsn);
    }
    ticks_skip(&d->ticks, s);
}

/* Nothing new: the base moves on as far as the disk has come. */
static void nothing_new(struct source_pg *d, struct snapshot *s, uint64_t lsn)
{
    if (lsn <= d->flushed) {
        skip_to(d, s, lsn);
        snapshot_release(&d->idle);
        return;
    }
    if (d->idle != NULL && d->idle_lsn <= d->flushed) {
        skip_to(d, d->idle, d->idle_lsn);
        snapshot_release(&d->idle);
    }
    if (d->idle == NULL) {
        d->idle = snapshot_hold(s);
        d->idle_lsn = lsn;
    }
}

static enum ferry_err take_probe(struct source_pg *d, const PGresult *r, enum step *step,
                                 struct err_text *e)
{
    struct snapshot *s = NULL;
    enum ferry_err err = parse_snapshot(d, pg_value(r, 0, 0), &s, e);
    if (err != FERRY_OK) {
        return err;
    }
    uint64_t lsn = (uint64_t)pg_int(r, 0, 1);
    note_flushed(d, (uint64_t)pg_int(r, 0, 2));
    int64_t rows = pg_int(r, 0, 3) + pg_int(r, 0, 4);
    snapshot_set(&d->seen, s);
    if (rows == 0) {
        nothing_new(d, s, lsn);
        *step = STEP_DONE;
    } else {
        snapshot_set(&d->candidate, s);
        d->candidate_lsn = lsn;
        d->candidate_rows = rows;
        d->candidate_asked_us = 0;
        *step = STEP_GO_ON;
    }
    snapshot_release(&s);
    return FERRY_OK;
}

/* ---- Which way a tick is read. */

static bool way_is_of(const struct source_pg *d, const struct ticks_job *job)
{
    return d->way != PG_WAY_UNKNOWN && d->way_upper == job->upper && d->way_lower == job->lower &&
           d->way_extra == job->extra;
}

static void choose_way(struct source_pg *d, const struct ticks_job *job, int64_t rows, size_t limit)
{
    bool single = limit == 1; /* A COPY would send the next one, too. */
    d->way = rows <= (int64_t)limit                   ? PG_WAY_SMALL
             : rows <= d->options.copy_rows || single ? PG_WAY_WINDOW
                                                      : PG_WAY_COPY;
    d->way_upper = job->upper;
    d->way_lower = job->lower;
    d->way_extra = job->extra;
    d->seq_max = COVER_SEQ_NONE; /* Asked before the first window. */
}

/* So many rows are counted that the way is known. */
static size_t count_limit(const struct source_pg *d, size_t rows_max)
{
    int64_t copy_rows = d->options.copy_rows < COPY_ROWS_MAX ? d->options.copy_rows : COPY_ROWS_MAX;
    return (copy_rows > (int64_t)rows_max ? (size_t)copy_rows : rows_max) + 1;
}

static void open_candidate(struct source_pg *d, size_t limit)
{
    struct ticks_job job;
    note_covered(d, d->candidate_lsn);
    ticks_open(&d->ticks, d->candidate);
    ticks_next(&d->ticks, &job);
    choose_way(d, &job, d->candidate_rows, limit);
    snapshot_release(&d->candidate);
    snapshot_release(&d->idle);
}

static enum ferry_err send_page(struct source_pg *d, const struct ticks_job *job,
                                const struct reading *r, struct err_text *e)
{
    d->rows_limit = r->rows_max;
    d->bytes_limit = r->bytes_max > 0 ? r->bytes_max : 1; /* Bare: one row fills it. */
    enum pg_statement statement = d->way == PG_WAY_SMALL ? PG_SMALL : PG_WINDOW;
    uint64_t bound = job->upper->xmax;
    struct ticks_job from = *job;
    if (d->way == PG_WAY_WINDOW) {
        if (from.seq_at < d->seq_min - 1) {
            from.seq_at = d->seq_min - 1;
        }
        d->window_to = from.seq_at + WINDOW_NUMBERS;
        bound = (uint64_t)d->window_to;
    }
    return send_job(d, statement, &from, bound, r->rows_max, r->bytes_max, e);
}

/* The server works on the next page of a backlog while this one is sent. A failure is told by the
 * read that needs it. */
static void ask_ahead(struct source_pg *d, const struct reading *r)
{
    struct ticks_job job;
    struct err_text ignored;
    ticks_peek(&d->ticks, &job);
    if (send_page(d, &job, r, &ignored) == FERRY_OK) {
        d->reading = PG_READING_PAGE;
    }
}

/* ---- A page. */

static void place_rows(struct source_page *page, int64_t before)
{
    for (size_t i = 0; i < page->count; i++) {
        page->rows[i].position = before + 1 + (int64_t)i;
    }
}

/* Hands out what the page holds of the job. `whole`: there is no more of it in this window, or in
 * the tick where it is not read by windows. */
static bool hand_out(struct source_pg *d, struct reading *r, bool whole, enum step *step)
{
    const struct source_page *page = r->page;
    struct ticks_job job;
    struct tick_last last = {0};
    ticks_next(&d->ticks, &job);
    int64_t seq = job.seq_at;
    if (page->count > 0) {
        const struct source_row *row = &page->rows[page->count - 1];
        must(row->number > job.seq_at);
        seq = row->number;
        last = (struct tick_last){true, row->number, row->message.id};
    }
    bool ended = whole;
    if (whole && d->way != PG_WAY_SMALL) {
        seq = d->window_to;
        ended = d->window_to >= d->seq_max;
        if (page->count == 0 && !ended) {
            d->seq_max = COVER_SEQ_NONE; /* Numbers may have leapt: asked where they go on. */
        }
    }
    place_rows(r->page, ticks_page(&d->ticks, page->count, seq, &last, ended));
    r->more = true;
    *step = page->count > 0 ? STEP_DONE : STEP_GO_ON;
    return ended;
}

static enum ferry_err take_page(struct source_pg *d, const PGresult *result, struct reading *r,
                                enum step *step, struct err_text *e)
{
    int64_t bytes = 0;
    source_page_clear(r->page);
    if (source_pg_rows(d, result, r->page, &bytes) != FERRY_OK) {
        source_page_clear(r->page);
        return no_memory(d, e);
    }
    bool whole = r->page->count < d->rows_limit && bytes < (int64_t)d->bytes_limit;
    bool ended = hand_out(d, r, whole, step);
    if (r->page->count > 0 && !ended && d->way == PG_WAY_WINDOW && r->rows_max > 1) {
        ask_ahead(d, r);
    }
    return FERRY_OK;
}

/* ---- A backlog. */

static enum ferry_err send_copy(struct source_pg *d, const struct ticks_job *job,
                                struct err_text *e)
{
    int64_t from = job->seq_at < d->seq_min - 1 ? d->seq_min - 1 : job->seq_at;
    struct buf text;
    buf_init(&text, 2 * SNAPSHOT_XIPS_MAX * NUMBER_BYTES);
    d->window_to = from + WINDOW_NUMBERS;
    d->copy_from_us = clock_monotonic_us();
    d->copy_first = true;
    source_pg_copy_text(d, job, from, d->window_to, &text);
    enum ferry_err err =
        buf_ok(&text) ? pg_link_send_text(&d->reader, (const char *)text.data, e) : no_memory(d, e);
    buf_fini(&text);
    return err;
}

/* One row, or the end. */
static enum ferry_err stream_row(struct source_pg *d, struct reading *r, int64_t until_us,
                                 int64_t *bytes, bool *end, struct err_text *e)
{
    char *data = NULL;
    size_t size = 0;
    enum ferry_err err = pg_link_copied(&d->reader, until_us, &data, &size, e);
    if (err != FERRY_OK) {
        return err;
    }
    *end = data == NULL;
    if (data != NULL) {
        err = source_pg_copied_row(d, bytes_of(data, size), d->copy_first, r->page, bytes);
        d->copy_first = false;
        PQfreemem(data);
    }
    return err == FERRY_ERR_CORRUPT
               ? err_set(e, FERRY_ERR_DB, "%s: COPY answered something else", d->url.shown)
           : err != FERRY_OK ? no_memory(d, e)
                             : FERRY_OK;
}

/* A page of the rows that stream in; one that is not full after a while goes out as it is. */
static enum ferry_err stream_page(struct source_pg *d, struct reading *r, enum step *step,
                                  struct err_text *e)
{
    int64_t bytes = 0;
    bool end = false;
    int64_t until_us = clock_monotonic_us() + COPY_WAIT_US;
    enum ferry_err err = FERRY_OK;
    source_page_clear(r->page);
    while (err == FERRY_OK && !end && r->page->count < r->rows_max &&
           bytes < (int64_t)r->bytes_max) {
        err = stream_row(d, r, until_us, &bytes, &end, e);
    }
    if (err != FERRY_OK && (err != FERRY_ERR_TIMEOUT || r->page->count == 0)) {
        return err;
    }
    if (end) {
        d->reading = PG_READING_NOTHING;
    }
    (void)hand_out(d, r, end, step);
    return FERRY_OK;
}

/* ---- The machine. */

/* Asks for what comes next. */
static enum ferry_err ask(struct source_pg *d, struct reading *r, enum step *step,
                          struct err_text *e)
{
    struct ticks_job job;
    enum ferry_err err = FERRY_OK;
    enum pg_reading next = PG_READING_NOTHING;
    ticks_next(&d->ticks, &job);
    if (job.upper == NULL && d->candidate == NULL) {
        err = send_probe(d, &job, count_limit(d, r->rows_max), e);
        next = PG_READING_PROBE;
    } else if (job.upper == NULL) {
        if (d->candidate_lsn <= d->flushed) {
            open_candidate(d, r->rows_max);
            return FERRY_OK;
        }
        if (d->options.barrier && clock_monotonic_us() - d->candidate_asked_us > BARRIER_AGAIN_US) {
            err = source_pg_barrier(d, e);
        }
        if (err != FERRY_OK && err != FERRY_ERR_DB_RETRY) {
            return err;
        }
        /* A slow disk: what was written comes to it all the same, so the look decides. */
        err = pg_link_send(&d->reader, PG_FLUSHED, NULL, 0, e);
        next = PG_READING_FLUSHED;
    } else if (!way_is_of(d, &job)) {
        err = send_job(d, PG_SIZE, &job, job.upper->xmax, count_limit(d, r->rows_max), 0, e);
        next = PG_READING_SIZE;
    } else if (d->way != PG_WAY_SMALL && d->seq_max == COVER_SEQ_NONE) {
        char lane[NUMBER_BYTES];
        char seq[NUMBER_BYTES];
        put_number(lane, d->options.lane);
        put_signed(seq, job.seq_at);
        const char *values[] = {lane, seq};
        err = pg_link_send(&d->reader, PG_BOUNDS, values, 2, e);
        next = PG_READING_BOUNDS;
    } else if (d->way == PG_WAY_COPY) {
        err = send_copy(d, &job, e);
        next = PG_READING_COPY;
    } else {
        err = send_page(d, &job, r, e);
        next = PG_READING_PAGE;
    }
    if (err == FERRY_OK) {
        d->reading = next;
    }
    *step = STEP_GO_ON;
    return err;
}

static void take_bounds(struct source_pg *d, const PGresult *r)
{
    bool empty = PQgetisnull(r, 0, 0) == 1;
    d->seq_min = empty ? 1 : pg_int(r, 0, 0);
    d->seq_max = empty ? 0 : pg_int(r, 0, 1);
}

static enum ferry_err take(struct source_pg *d, enum pg_reading what, const PGresult *result,
                           struct reading *r, enum step *step, struct err_text *e)
{
    struct ticks_job job;
    *step = STEP_GO_ON;
    switch (what) {
    case PG_READING_PROBE:
        return take_probe(d, result, step, e);
    case PG_READING_FLUSHED:
        note_flushed(d, (uint64_t)pg_int(result, 0, 0));
        *step = d->candidate_lsn <= d->flushed ? STEP_GO_ON : STEP_WAIT;
        return FERRY_OK;
    case PG_READING_SIZE:
        ticks_next(&d->ticks, &job);
        choose_way(d, &job, pg_int(result, 0, 0) + pg_int(result, 0, 1), r->rows_max);
        return FERRY_OK;
    case PG_READING_BOUNDS:
        take_bounds(d, result);
        return FERRY_OK;
    case PG_READING_PAGE:
        return take_page(d, result, r, step, e);
    default:
        return FERRY_OK; /* Of before a rewind. */
    }
}

/* A connection that is new has to show that its database is still the one. */
static enum ferry_err ready(struct source_pg *d, int64_t until_us, struct err_text *e)
{
    if (d->set_back) {
        *e = d->set_back_words;
        return FERRY_ERR_DB_RETRY;
    }
    enum ferry_err err = pg_link_up(&d->reader, until_us, e);
    if (err != FERRY_OK || d->checked_connects == d->reader.connects) {
        return err;
    }
    struct pg_identity now;
    d->reading = PG_READING_NOTHING;
    /* What they saw may be undone by a crash; transactions of now have its numbers again. */
    snapshot_release(&d->candidate);
    snapshot_release(&d->idle);
    err = source_pg_identify(d, &d->reader, &now, e);
    bool same = false;
    if (err == FERRY_OK) {
        err = source_pg_recognize(d, &d->reader, &now, &same, e);
    }
    if (err == FERRY_OK && !same) {
        return FERRY_ERR_DB_RETRY;
    }
    if (err == FERRY_OK) {
        d->checked_connects = d->reader.connects;
    }
    return err;
}

/* Until the disk has come further. Without a barrier of our own that may take the server's writer
 * a while, which the caller does not spend here. */
static enum ferry_err wait_for_disk(const struct source_pg *d)
{
    (void)poll(NULL, 0, FLUSH_LOOK_MS);
    return d->options.barrier ? FERRY_OK : FERRY_ERR_TIMEOUT;
}

static enum ferry_err turn(struct source_pg *d, struct reading *r, enum step *step,
                           struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = FERRY_OK;
    if (d->reading == PG_READING_NOTHING) {
        err = ask(d, r, step, e);
        if (err != FERRY_OK || d->reading == PG_READING_NOTHING) {
            return err;
        }
    }
    if (d->reading == PG_READING_COPY) {
        return stream_page(d, r, step, e);
    }
    err = pg_link_take(&d->reader, r->until_us, &result, e);
    if (err == FERRY_ERR_TIMEOUT) {
        return err;
    }
    enum pg_reading what = d->reading;
    d->reading = PG_READING_NOTHING;
    if (err == FERRY_OK) {
        err = take(d, what, result, r, step, e);
    }
    PQclear(result);
    return err;
}

void source_pg_forget(struct source_pg *d)
{
    if (d->reader.busy) {
        pg_link_drop(&d->reader);
    }
    d->reading = PG_READING_NOTHING;
    d->way = PG_WAY_UNKNOWN;
    snapshot_release(&d->candidate);
}

enum ferry_err source_pg_read(void *driver, size_t rows_max, size_t bytes_max,
                              struct source_page *page, bool *more, struct err_text *e)
{
    struct source_pg *d = driver;
    struct reading r = {.rows_max = rows_max, .bytes_max = bytes_max, .page = page};
    r.until_us = clock_monotonic_us() + PG_LINK_TAKE_US;
    source_page_clear(page);
    source_pg_copy_tire(d);
    enum ferry_err err = ready(d, r.until_us, e);
    enum step step = STEP_GO_ON;
    while (err == FERRY_OK && step != STEP_DONE) {
        err = turn(d, &r, &step, e);
        if (err == FERRY_OK && step == STEP_WAIT) {
            err = wait_for_disk(d);
        }
        if (err == FERRY_OK && step != STEP_DONE && clock_monotonic_us() >= r.until_us) {
            err = FERRY_ERR_TIMEOUT;
        }
    }
    if (err == FERRY_ERR_TIMEOUT) { /* Not an error: it goes on at the next call. */
        r.more = true;
        err = FERRY_OK;
    }
    if (err != FERRY_OK) {
        source_pg_forget(d);
        source_page_clear(page);
        return err;
    }
    *more = r.more;
    return FERRY_OK;
}

void source_pg_copy_tire(struct source_pg *d)
{
    if (d->reading == PG_READING_COPY && clock_monotonic_us() - d->copy_from_us > COPY_MAX_US) {
        source_pg_forget(d);
    }
}

void source_pg_read_anew(struct source_pg *d)
{
    d->way = PG_WAY_UNKNOWN;
    if (d->reading == PG_READING_COPY) {
        source_pg_forget(d); /* Connecting is sooner done than the rest of it read. */
    } else if (d->reading != PG_READING_NOTHING) {
        d->reading = PG_READING_DROPPED;
    }
}

void source_pg_rewind(void *driver, int64_t after)
{
    struct source_pg *d = driver;
    ticks_rewind(&d->ticks, after);
    source_pg_read_anew(d);
}

enum ferry_err source_pg_changed(void *driver, bool *changed, struct err_text *e)
{
    struct source_pg *d = driver;
    *changed = true;
    if (d->reading != PG_READING_NOTHING || d->candidate != NULL || d->seen == NULL ||
        d->ticks.upper != NULL || d->checked_connects != d->reader.connects) {
        return FERRY_OK;
    }
    enum ferry_err err = pg_link_up(&d->reader, clock_monotonic_us() + PG_LINK_TAKE_US, e);
    PGresult *result = NULL;
    struct snapshot *now = NULL;
    if (err == FERRY_OK) {
        err = pg_link_ask(&d->reader, PG_SNAPSHOT, NULL, 0, &result, e);
    }
    if (err == FERRY_OK) {
        err = parse_snapshot(d, pg_value(result, 0, 0), &now, e);
    }
    if (err == FERRY_OK) {
        *changed = !snapshot_equal(now, d->seen);
    }
    snapshot_release(&now);
    PQclear(result);
    return err;
}
