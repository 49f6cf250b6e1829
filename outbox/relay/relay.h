/* relay: reads one source in order and appends what it finds to the brokers, each row once.
 *
 * Knows no database and no network: a source (source.h) and a broker (relay_broker.h) are given to
 * it, time is an argument. The caller steps it, runs the broker's callbacks between steps, and
 * waits.
 *
 * How a row is in the log once: a partition's cursor moves in the log entry that carries the rows,
 * compare-and-set on its version. After any doubt (crash, lost reply, a rival) the relay asks for
 * the cursor and drops the rows that it covers.
 *
 * Words: a *target* is one (topic, partition); a row is *settled* when it is in the log or set
 * aside; the *low mark* is the greatest position such that every row up to it is settled.
 *
 * Invariants: (1) a target's rows are sent in order and without a gap: `sent` only grows while it
 * is ready, and a target that is not ready has its first unsent row in `blocked_from`; (2) rows are
 * deleted, and the checkpoint moves, only up to the low mark; (3) nothing is sent unless the last
 * election was won and its lease, by our clock, has not run out; (4) an outage never makes a row
 * poison; only a refusal of that row alone does.
 *
 * States: ELECTING (asks to be the active relay; also after being fenced) → ACTIVE (publishes) |
 * STANDBY (another is; asks again) | OUTAGE (no broker answers; asks again after a random pause).
 * ACTIVE → OUTAGE when the lease cannot be renewed in time. HALTED: stopped for good, `error` says
 * why: the source was set back in time, a poison row with relay.poison = block, a cursor that
 * cannot be read. STOPPED: after relay_stop, when all is settled or given up. */
#ifndef FERRY_OUTBOX_RELAY_H
#define FERRY_OUTBOX_RELAY_H

#include "outbox/relay/relay_broker.h"
#include "outbox/relay/relay_options.h"
#include "outbox/relay/source_old.h"

struct relay;

#define RELAY_STATE_MAP(X)                                                                         \
    X(ELECTING, "electing")                                                                        \
    X(STANDBY, "standby")                                                                          \
    X(ACTIVE, "active")                                                                            \
    X(OUTAGE, "outage")                                                                            \
    X(HALTED, "halted")                                                                            \
    X(STOPPED, "stopped")

enum relay_state {
#define RELAY_STATE_ENUM(name, text) RELAY_##name,
    RELAY_STATE_MAP(RELAY_STATE_ENUM)
#undef RELAY_STATE_ENUM
};

const char *relay_state_name(enum relay_state state);

/* Counts since relay_new. */
struct relay_stats {
    uint64_t published_rows, published_batches;
    uint64_t covered_rows; /* Read again and dropped: a cursor had them. */
    uint64_t dead_rows;    /* Set aside. */
    uint64_t deleted_rows;
    uint64_t conflicts, fenced, failures; /* Of appends. */
    uint64_t elections;                   /* Won. */
    uint64_t wakes, polls, reads;
};

struct relay_status {
    enum relay_state state;
    struct relay_stats stats;
    int64_t settled; /* The low mark. */
    bool backlog_known;
    int64_t backlog_rows;  /* Positions between the low mark and the last one given. */
    bool oldest_known;     /* False also when nothing is pending. */
    int64_t oldest_ms;     /* Age of the first row that is not settled. */
    size_t blocked_topics; /* Unknown topics whose rows wait. */
    size_t blocked_partitions;
    size_t inflight_batches;
    bool caught_up;        /* Everything that was there is settled, or waits for its topic. */
    struct err_text error; /* The last one that still matters; empty: none. */
};

/* Borrows all three until relay_free. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err relay_new(struct relay **r, const struct relay_options *options,
                                    const struct old_source *source,
                                    const struct relay_broker *broker, uint64_t seed);
/* No append may be in flight any more: close the client first, which runs their callbacks. */
void relay_free(struct relay **r);

/* Does what can be done now; returns when it wants to be stepped again though nothing happened. May
 * wait for the broker (elections, cursors, checkpoints: relay.call_timeout_ms each) and briefly for
 * the database. */
MUST_CHECK int64_t relay_step(struct relay *r, int64_t now_us);
void relay_wake(struct relay *r); /* Something was committed. */

/* Reads nothing more; relay_step settles what is in flight, writes the checkpoint, deletes, resigns
 * and ends in STOPPED. */
void relay_stop(struct relay *r);

/* Looks at the source for backlog and age. */
void relay_status(struct relay *r, int64_t now_wall_ms, struct relay_status *status);
const char *relay_name(const struct relay *r); /* The source's. */
void relay_check(const struct relay *r);       /* Asserts the invariants. */

#endif
