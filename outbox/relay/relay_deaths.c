/* Rows that end the process: finding them, however it ends.
 *
 * A crash while a row is decoded or sent, or a row for which there is no memory, takes the process
 * with it, and the next one too. So the checkpoint says who is in office, and who is elected writes
 * that before it reads (relay_kept.h). Finding it there at an election, left by somebody else, and
 * no row settled since, is a *death* here. What is no death: a clean stop (the checkpoint is the
 * driver's alone again), an office given up (the checkpoint says that nothing is at risk), a lease
 * that was lost and comes back to the same process (it is who wrote it). Where everything is
 * settled, or anything was since the election, earlier deaths are forgotten by the checkpoint that
 * is due anyway: this costs one write an election and none between.
 *
 * A death may have any reason: somebody kills processes, or a neighbour takes the memory. So deaths
 * blame nobody; they only make the relay careful. RELAY_DEATHS_MAX of them, and one page at a time
 * is taken in hand, with a checkpoint before the next; each death then makes the page smaller by
 * RELAY_NARROW, down to one row; pages that go well make it larger. A row alone is first looked at
 * bare, the checkpoint says its number, then the rest of it is fetched, and it is sent. If the
 * process dies between these and a few milliseconds later that is a death of this row; who waits
 * for an answer longer says that nothing is at risk, so that no outage is the row's.
 * RELAY_DEATHS_MAX deaths of the same row in a row, none settled between, and it is treated as one
 * that was refused. But the last of them may have come after the row was sent, and what was sent
 * may even be on its way yet; so its partition is fenced first and asked whether it has the row.
 *
 * Other relays of the process die of it too, and begin again in the same moment. Their rows that
 * are tried alone are tried after a random pause at the beginning, so that they are not in hand
 * whenever the row of the other is.
 *
 * While a row waits for its topic or partition, the place to begin at stands still, and each time
 * in office goes through the rows behind it from there. */
#include "base/log.h"
#include "outbox/relay/relay_state.h"

#define WAITING_US     (20 * US_PER_MS)   /* In hand for so long: it waits, and is no danger. */
#define REST_US        (1000 * US_PER_MS) /* Everything is settled for so long: all is well. */
#define TRY_PAUSE_US   (50 * US_PER_MS)
#define TRY_SPREAD_US  (250 * US_PER_MS)
#define WRITE_AGAIN_US (100 * US_PER_MS)
#define PAGES_TO_WIDEN (2 * RELAY_NARROW) /* What was narrowed by one death is passed by then. */
#define PAGES_TO_LEAVE 256u /* Of full size: more than a relay takes between checkpoints. */

void relay_kept_now(const struct relay *r, struct relay_kept *kept)
{
    const struct relay_care *c = &r->care;
    bool innocent = c->survived && c->tried == c->suspect && c->deaths < RELAY_DEATHS_MAX;
    *kept = (struct relay_kept){.at_risk = c->at_risk,
                                .deaths = innocent ? 0 : c->deaths,
                                .blamed = c->blamed,
                                .rows = c->rows,
                                .suspect = c->suspect,
                                .tried = c->at_risk ? c->tried : 0,
                                .who = c->who};
}

/* ---- The election. */

/* Of one row. Where rows before it are gone through each time, it is not the only one that is
 * tried; of two that were in hand at deaths the one remains that was so more often. */
static void death_of_one(struct relay_care *c)
{
    if (c->tried == c->suspect) {
        c->deaths += c->deaths < UINT8_MAX;
    } else if (c->deaths == 0) {
        c->suspect = c->tried;
        c->deaths = 1;
    } else {
        c->deaths--;
    }
}

static void narrow(struct relay_care *c)
{
    c->rows = c->rows / RELAY_NARROW > 0 ? c->rows / RELAY_NARROW : 1;
    c->deaths = 0;
    c->suspect = 0;
}

static void one_more_death(struct relay *r)
{
    struct relay_care *c = &r->care;
    if (c->rows > 1) {
        narrow(c);
    } else if (c->rows == 1) {
        death_of_one(c);
    } else {
        c->deaths++;
    }
    if (c->rows == 0 && c->deaths >= RELAY_DEATHS_MAX) {
        c->rows = (uint32_t)r->options->page_rows;
        c->deaths = 0;
    }
    if (c->rows == 0) {
        return;
    }
    log_line(LOG_WARN, "relay",
             "%s: relays have ended here again and again without a word: going on carefully, %u "
             "row%s at a time",
             relay_name(r), c->rows, c->rows == 1 ? "" : "s");
}

void relay_deaths_begin(struct relay *r, const struct relay_kept *kept)
{
    uint32_t rows_max = (uint32_t)r->options->page_rows;
    r->care = (struct relay_care){.who = r->care.who,
                                  .deaths = kept->deaths,
                                  .blamed = kept->blamed,
                                  .rows = kept->rows < rows_max ? kept->rows : rows_max,
                                  .suspect = kept->suspect,
                                  .tried = kept->tried,
                                  .began = r->read_pos};
    if (kept->at_risk && kept->who != r->care.who) {
        one_more_death(r);
    }
    r->care.at_risk = r->care.rows == 0; /* Who is careful says so when it takes rows in hand. */
    if (r->care.rows == 1) {
        r->care.pause_until_us =
            r->now_us + TRY_PAUSE_US + (int64_t)prng_below(&r->prng, TRY_SPREAD_US);
    }
}

/* ---- Well. */

static bool at_rest(const struct relay *r)
{
    return r->caught_up && !r->look && !r->read_failed && !r->stuck && !r->paused &&
           r->inflight == 0 && r->queued == 0 && r->blocked == 0;
}

/* Before a checkpoint in the ordinary way: has anything been settled, or is there nothing? */
void relay_deaths_forget(struct relay *r, int64_t low)
{
    if (r->care.rows == 0 && (low > r->care.began || at_rest(r))) {
        r->care.deaths = 0;
    }
}

static void be_ordinary(struct relay *r)
{
    r->care = (struct relay_care){.who = r->care.who, .at_risk = true, .began = r->care.began};
    log_line(LOG_INFO, "relay", "%s: all is well again", relay_name(r));
    (void)relay_checkpoint_write(r);
}

/* The page that was in hand is settled, or what is left of it waits elsewhere. */
static void page_went_well(struct relay *r)
{
    struct relay_care *c = &r->care;
    uint32_t rows_max = (uint32_t)r->options->page_rows;
    c->in_hand = false;
    c->survived = true;
    c->passed += r->blocked == 0; /* Else the next time in office begins here again. */
    if (c->rows < rows_max && c->passed >= PAGES_TO_WIDEN) {
        c->rows = c->rows < rows_max / RELAY_NARROW ? c->rows * RELAY_NARROW : rows_max;
        c->passed = 0;
        c->deaths = 0;
        c->suspect = 0;
    } else if (c->rows == rows_max && rows_max > 1 && c->passed >= PAGES_TO_LEAVE) {
        be_ordinary(r);
    }
}

void relay_deaths_step(struct relay *r)
{
    struct relay_care *c = &r->care;
    if (c->rows == 0) {
        return;
    }
    if (!at_rest(r)) {
        c->rest_us = 0;
    } else if (c->rest_us == 0) {
        c->rest_us = r->now_us;
    } else if (r->now_us - c->rest_us >= REST_US) {
        be_ordinary(r);
        return;
    }
    if (c->at_risk && c->in_hand_us == 0) {
        c->in_hand_us = r->now_us;
    }
    if (c->at_risk && r->queued == 0 && r->now_us - c->in_hand_us >= WAITING_US) {
        c->at_risk = false;
        c->survived = true;
        (void)relay_checkpoint_write(r);
    }
}

void relay_deaths_leave(struct relay *r)
{
    if (r->state == RELAY_ACTIVE && r->care.at_risk) {
        r->care.at_risk = false;
        (void)relay_checkpoint_say(r);
    }
}

/* ---- Taking rows in hand. */

static bool say_at_risk(struct relay *r)
{
    r->care.at_risk = true;
    r->care.in_hand_us = 0;
    r->care.survived = false;
    if (relay_checkpoint_write(r)) {
        return true;
    }
    r->care.at_risk = false;
    r->care.pause_until_us = r->now_us + WRITE_AGAIN_US;
    r->look = true;
    return false;
}

/* A row that is not to be read: the next one. */
static void pass_over(struct relay *r, const struct source_row *row)
{
    if (row->number == r->care.suspect) {
        r->care.suspect = 0;
        r->care.deaths = 0;
    }
    r->read_pos = row->position;
    r->look = true;
    r->care.at_risk = false;
    relay_queue_drop(r); /* The row with it. */
}

/* What was looked at is looked at again. */
static void come_again(struct relay *r)
{
    if (r->state == RELAY_ACTIVE) {
        relay_rewind(r);
    }
}

/* It waits, others go on; or all begins anew. */
static void blame_later(struct relay *r)
{
    if (r->state == RELAY_ACTIVE && r->page.count > 0) {
        r->read_pos = r->page.rows[0].position;
        relay_queue_drop(r);
    }
    r->look = true;
}

static void blame(struct relay *r, const struct source_row *row)
{
    struct relay_care *c = &r->care;
    enum relay_found found = relay_topics_find(r, row);
    if (found == RELAY_FOUND_NOT_NOW) {
        blame_later(r);
    } else if (found == RELAY_FOUND_IN_LOG) {
        r->stats.covered_rows++;
        pass_over(r, row);
    } else if (relay_blame(r, row, found == RELAY_FOUND_PERHAPS) == RELAY_DROP) {
        c->blamed++;
        pass_over(r, row);
        (void)relay_checkpoint_write(r);
    } else {
        c->pause_until_us = r->now_us + r->options->topic_retry_ms * US_PER_MS;
        come_again(r);
    }
}

/* Whether the bare row may be read: it is named in the checkpoint then. */
static bool may_be_tried(struct relay *r, const struct source_row *row)
{
    struct relay_care *c = &r->care;
    struct err_text e = {{0}};
    bool decided = false;
    if (source_decided(r->source, row->number, &decided, &e) != FERRY_OK) {
        r->error = e;
        c->pause_until_us = r->now_us + WRITE_AGAIN_US;
        come_again(r);
        return false;
    }
    if (decided || relay_was_set_aside(r, row)) {
        pass_over(r, row); /* Some databases keep it where it was. */
        return false;
    }
    if (row->number == c->suspect && c->deaths >= RELAY_DEATHS_MAX) {
        blame(r, row);
        return false;
    }
    c->tried = row->number;
    if (!say_at_risk(r)) {
        come_again(r);
        return false;
    }
    return true;
}

/* One row alone, which was looked at bare. False: none now. */
static bool read_alone(struct relay *r)
{
    struct err_text e = {{0}};
    bool there = false;
    if (!relay_read(r, 1, 0) || !may_be_tried(r, &r->page.rows[0])) {
        return false;
    }
    enum ferry_err err = source_fetch(r->source, &r->page, &there, &e);
    if (err == FERRY_OK && there) {
        return true;
    }
    if (err != FERRY_OK) {
        r->error = e;
        r->care.pause_until_us = r->now_us + WRITE_AGAIN_US;
    }
    come_again(r);
    return false;
}

bool relay_deaths_read(struct relay *r)
{
    struct relay_care *c = &r->care;
    size_t bytes = (size_t)r->options->page_bytes;
    if (c->rows == 0) {
        return relay_read(r, (size_t)r->options->page_rows, bytes);
    }
    if (r->inflight > 0 || r->now_us < c->pause_until_us) {
        r->look = true; /* That something has changed is told once. */
        return false;
    }
    if (c->in_hand) {
        page_went_well(r);
    }
    if (r->state != RELAY_ACTIVE) {
        return false;
    }
    if (c->rows == 1) {
        c->in_hand = read_alone(r);
    } else {
        c->in_hand = say_at_risk(r) &&
                     relay_read(r, c->rows > 0 ? c->rows : (size_t)r->options->page_rows, bytes);
    }
    return c->in_hand;
}

bool relay_deaths_wait(const struct relay *r, int64_t *until_us)
{
    const struct relay_care *c = &r->care;
    if (c->rows == 0 || (r->inflight == 0 && r->now_us >= c->pause_until_us)) {
        return false;
    }
    *until_us = r->inflight > 0 ? r->now_us + US_PER_MS : c->pause_until_us;
    return true;
}
