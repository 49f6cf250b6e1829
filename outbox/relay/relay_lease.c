/* Being the one active relay, and the checkpoint. */
#include "base/log.h"
#include "outbox/relay/relay_state.h"

#define RENEWALS_BY_LEASE 3 /* A renewal is due after a third of the lease. */

void relay_lease_lost(struct relay *r, enum relay_state state)
{
    r->state = state;
    r->lease_ends_us = 0;
    relay_topics_lose(r);
    relay_rewind(r);
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

/* The checkpoint says where to begin; what lies before it is in the log or set aside. */
static bool begin_at_checkpoint(struct relay *r, const struct ferry_source_grant *grant)
{
    struct source_cursor cursor = {0};
    struct err_text e = {{0}};
    if (grant->checkpoint_bytes > 0 &&
        cursor_decode(bytes_of(grant->checkpoint, grant->checkpoint_bytes), &cursor, &e) !=
            FERRY_OK) {
        relay_halt(r, e.text);
        return false;
    }
    bool same = false;
    enum ferry_err err = r->source->ops->verify(r->source->driver, &cursor, &same, &e);
    if (err != FERRY_OK) {
        r->error = e;
        return false; /* The database is busy: elected again at the next turn. */
    }
    if (!same) {
        relay_halt(r, e.text);
        return false;
    }
    r->read_pos = cursor.position;
    r->read_id = cursor.id;
    r->checkpointed = cursor.position;
    return true;
}

static void become_active(struct relay *r, const struct ferry_source_grant *grant)
{
    relay_topics_lose(r);
    relay_queue_drop(r);
    if (!begin_at_checkpoint(r, grant)) {
        return;
    }
    relay_topics_unblock(r);
    r->state = RELAY_ACTIVE;
    r->stats.elections++;
    r->caught_up = false;
    r->look = true;
    r->error.text[0] = '\0';
    log_line(LOG_INFO, "relay", "%s: active, epoch %llu, from row %lld", relay_name(r),
             (unsigned long long)grant->epoch, (long long)r->read_pos + 1);
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
        r->elect_at_us = r->now_us + (wait_us < 1          ? US_PER_MS
                                      : wait_us < lease_us ? wait_us
                                                           : lease_us);
        return;
    }
    r->lease_ends_us = asked_at_us + lease_us;
    r->elect_at_us = asked_at_us + lease_us / RENEWALS_BY_LEASE;
    if (r->state != RELAY_ACTIVE || r->epoch != grant->epoch) {
        r->epoch = grant->epoch;
        become_active(r, grant);
    }
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
        r->broker->elect(r->broker->ctx, r->options->lease_ms, relay_timeout_ms(r), &grant);
    if (err == FERRY_OK) {
        answered(r, &grant, asked_at_us);
    } else if (r->state == RELAY_ACTIVE) {
        r->elect_at_us = r->now_us + relay_backoff_us(r, 0); /* The lease still stands. */
    } else {
        relay_outage(r, err, "asking to be the active relay");
    }
}

void relay_checkpoint_step(struct relay *r, bool now)
{
    int64_t low = relay_low_mark(r);
    if (low == r->checkpointed || (!now && r->now_us < r->checkpoint_at_us)) {
        return;
    }
    struct source_cursor cursor = {.position = low};
    if (low == r->read_pos) {
        cursor.id = r->read_id;
    }
    uint8_t blob[CURSOR_BYTES];
    cursor_encode(&cursor, blob);
    r->checkpoint_at_us = r->now_us + r->options->lease_ms * US_PER_MS / RENEWALS_BY_LEASE;
    enum ferry_err err =
        r->broker->checkpoint(r->broker->ctx, blob, sizeof(blob), relay_timeout_ms(r));
    if (err == FERRY_OK) {
        r->checkpointed = low;
    } else if (err == FERRY_ERR_SOURCE_FENCED) {
        r->stats.fenced++;
        r->elect_at_us = r->now_us;
        relay_lease_lost(r, RELAY_ELECTING);
    } /* Otherwise a restart reads a little more than it needs. */
}
