/* Being the one active relay, and the checkpoint. */
#include <string.h>

#include "base/log.h"
#include "outbox/relay/relay_state.h"

#define RENEWALS_BY_LEASE 3  /* A renewal is due after a third of the lease. */
#define STANDBY_BY_LEASE  10 /* A standby asks so often: the active one may resign. */
#define STANDBY_MIN_US    (100 * US_PER_MS)  /* But not more often: the broker's memory answers. */
#define CHECKPOINT_US     (1000 * US_PER_MS) /* Between two; a new relay reads so much again. */

void relay_lease_lost(struct relay *r, enum relay_state state)
{
    r->state = state;
    r->lease_ends_us = 0;
    relay_topics_lose(r);
    relay_page_drop(r);
}

void relay_outage(struct relay *r, enum ferry_err err, const char *doing)
{
    int64_t pause_us = relay_backoff_us(r, r->elect_failures);
    if (r->state != RELAY_OUTAGE) {
        log_line(LOG_WARN, "relay", "%s: %s: %s; trying again", relay_name(r), doing,
                 ferry_err_text(err));
    }
    err_set(&r->error, err, "%s: %s", doing, ferry_err_text(err));
    r->elect_failures++;
    r->elect_at_us = r->now_us + pause_us;
    relay_lease_lost(r, RELAY_OUTAGE);
}

void relay_give_up_office(struct relay *r, const struct err_text *why)
{
    int64_t lease_us = r->options->lease_ms * US_PER_MS;
    if (r->state != RELAY_OUTAGE) {
        log_line(LOG_WARN, "relay", "%s: the database cannot be read; another relay may try: %s",
                 relay_name(r), why->text);
    }
    relay_deaths_leave(r);
    (void)r->broker->resign(r->broker->ctx, relay_timeout_ms(r));
    r->elect_at_us =
        r->now_us + lease_us / 2 + (int64_t)prng_below(&r->prng, (uint64_t)lease_us / 2);
    relay_lease_lost(r, RELAY_OUTAGE);
    r->error = *why;
}

static void take_blob(struct relay_kept_blob *blob, struct bytes from)
{
    blob->size = from.size;
    if (from.size > 0) {
        memcpy(blob->data, from.data, from.size);
    }
}

/* The checkpoint says where to begin; what lies before it is in the log or set aside. False:
 * halted, or the database does not answer now: given up to whoever can read it. */
static bool begin_at_checkpoint(struct relay *r, const struct ferry_source_grant *grant)
{
    struct bytes whole = bytes_of(grant->checkpoint, grant->checkpoint_bytes);
    struct relay_kept kept;
    struct err_text e = {{0}};
    int64_t settled = 0;
    bool same = true;
    if (whole.size > RELAY_KEPT_MAX_BYTES) {
        relay_halt(r, "the checkpoint in the broker is larger than any");
        return false;
    }
    enum ferry_err err = relay_kept_decode(whole, &kept, &e);
    if (err == FERRY_OK) {
        err = r->source->ops->begin(r->source->driver, kept.checkpoint, &settled, &same, &e);
    }
    if (err == FERRY_OK && !same) {
        relay_halt_set_back(r, e.text);
        return false;
    }
    if (err == FERRY_ERR_CORRUPT || err == FERRY_ERR_NEWER_FORMAT) {
        relay_halt(r, e.text);
        return false;
    }
    if (err == FERRY_OK) {
        err = relay_parked_load(r, &e);
    }
    if (err == FERRY_OK) {
        err = source_paused(r->source, &r->paused, &e);
    }
    if (err != FERRY_OK) {
        relay_give_up_office(r, &e);
        return false;
    }
    must(settled >= 0);
    r->read_pos = settled;
    r->given = settled;
    r->checkpointed = settled;
    take_blob(&r->kept, whole);
    take_blob(&r->checkpoint, kept.checkpoint);
    relay_deaths_begin(r, &kept);
    return true;
}

static void become_active(struct relay *r, const struct ferry_source_grant *grant)
{
    /* Also of one that is active, and was elected anew: what it had read is gone, whether or not it
     * can begin now. */
    r->state = r->state == RELAY_ACTIVE ? RELAY_ELECTING : r->state;
    relay_topics_lose(r);
    relay_queue_drop(r);
    if (!begin_at_checkpoint(r, grant)) {
        return;
    }
    relay_topics_unblock(r);
    relay_aside_clear(r);
    r->state = RELAY_ACTIVE;
    r->stats.elections++;
    r->caught_up = false;
    r->read_failed = false;
    r->look = true;
    r->figures_known = false;
    r->checkpoint_at_us = r->now_us + CHECKPOINT_US;
    r->error.text[0] = '\0';
    log_line(LOG_INFO, "relay", "%s: active, epoch %llu, from row %lld%s", relay_name(r),
             (unsigned long long)grant->epoch, (long long)r->read_pos + 1,
             r->paused ? "; paused" : "");
    (void)relay_checkpoint_say(r); /* Who is in office, before anything is read. */
}

static void answered(struct relay *r, const struct ferry_source_grant *grant, int64_t asked_at_us)
{
    int64_t lease_us = r->options->lease_ms * US_PER_MS;
    r->elect_failures = 0;
    if (grant->standby) {
        if (r->state != RELAY_STANDBY) {
            log_line(LOG_INFO, "relay", "%s: standby: another relay is active", relay_name(r));
            relay_lease_lost(r, RELAY_STANDBY);
        }
        int64_t wait_us = grant->retry_ms * US_PER_MS;
        int64_t look_us = lease_us / STANDBY_BY_LEASE;
        look_us = look_us < STANDBY_MIN_US ? STANDBY_MIN_US : look_us;
        wait_us =
            wait_us < look_us ? wait_us : look_us; /* At the end of the lease at the latest. */
        r->elect_at_us = r->now_us + (wait_us < 1 ? US_PER_MS : wait_us);
        return;
    }
    r->lease_ends_us = asked_at_us + lease_us;
    r->elect_at_us = asked_at_us + lease_us / RENEWALS_BY_LEASE;
    if (r->state != RELAY_ACTIVE || r->epoch != grant->epoch) {
        r->epoch = grant->epoch;
        become_active(r, grant);
    }
}

/* An active relay asks so that there is time for a second question within the lease. */
static int elect_timeout_ms(const struct relay *r)
{
    int64_t half_ms = r->options->lease_ms / 2;
    bool short_of_time = r->state == RELAY_ACTIVE && half_ms < r->options->call_timeout_ms;
    return short_of_time ? (int)half_ms : relay_timeout_ms(r);
}

void relay_lease_step(struct relay *r)
{
    if (r->state == RELAY_ACTIVE && r->now_us >= r->lease_ends_us) {
        relay_outage(r, FERRY_ERR_TIMEOUT, "the lease ran out before it was renewed");
        r->elect_at_us = r->now_us;
    }
    if (r->now_us < r->elect_at_us) {
        return;
    }
    struct ferry_source_grant grant = {0};
    int64_t asked_at_us = r->now_us;
    enum ferry_err err =
        r->broker->elect(r->broker->ctx, r->options->lease_ms, elect_timeout_ms(r), &grant);
    if (err == FERRY_OK) {
        answered(r, &grant, asked_at_us);
    } else if (r->state == RELAY_ACTIVE) {
        r->elect_at_us = r->now_us + relay_backoff_us(r, 0); /* The lease still stands. */
    } else {
        relay_outage(r, err, "asking to be the active relay");
    }
}

/* ---- The checkpoint. */

/* Has the broker keep that, with how this time in office stands. False: it does not now, or the
 * relay is not active any more. */
static bool keep(struct relay *r, struct bytes checkpoint)
{
    struct relay_kept_blob blob;
    struct relay_kept kept;
    if (checkpoint.size > SOURCE_BLOB_MAX) {
        return false; /* An earlier relay's, and there was more room: until the next of our own. */
    }
    relay_kept_now(r, &kept);
    kept.checkpoint = checkpoint;
    relay_kept_encode(&kept, &blob);
    if (r->stopping && checkpoint.size > 0) {
        blob.size = checkpoint.size; /* The driver's alone: it ends well. */
        memcpy(blob.data, checkpoint.data, checkpoint.size);
    }
    if (blob.size == r->kept.size && memcmp(blob.data, r->kept.data, blob.size) == 0) {
        return true;
    }
    enum ferry_err err =
        r->broker->checkpoint(r->broker->ctx, blob.data, blob.size, relay_timeout_ms(r));
    if (err == FERRY_OK) {
        r->kept = blob;
        r->checkpoint.size = checkpoint.size;
        if (checkpoint.size > 0) {
            memmove(r->checkpoint.data, checkpoint.data, checkpoint.size); /* May be itself. */
        }
        return true;
    }
    if (err == FERRY_ERR_SOURCE_FENCED) {
        r->stats.fenced++;
        r->elect_at_us = r->now_us;
        relay_lease_lost(r, RELAY_ELECTING);
    } /* Otherwise a restart reads a little more than it needs. */
    return false;
}

bool relay_checkpoint_say(struct relay *r)
{
    return keep(r, bytes_of(r->checkpoint.data, r->checkpoint.size));
}

bool relay_checkpoint_write(struct relay *r)
{
    int64_t low = relay_low_mark(r);
    struct source_blob blob = {0};
    relay_deaths_forget(r, low);
    r->source->ops->checkpoint(r->source->driver, low, &blob);
    must(blob.size <= SOURCE_BLOB_MAX);
    if (blob.size == 0) {
        return relay_checkpoint_say(r); /* The driver has nothing new to say. */
    }
    bool kept = keep(r, bytes_of(blob.data, blob.size));
    if (kept) {
        r->checkpointed = low;
    }
    return kept;
}

void relay_checkpoint_step(struct relay *r, bool now)
{
    if (now || r->now_us >= r->checkpoint_at_us) {
        if (r->caught_up && r->inflight == 0 && r->queued == 0 && r->blocked == 0) {
            relay_aside_prune(r);
        }
        r->checkpoint_at_us = r->now_us + CHECKPOINT_US;
        (void)relay_checkpoint_write(r);
    }
}
