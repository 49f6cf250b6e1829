/* relay: reads one source in order and appends what it finds to the brokers, each row once.
 *
 * Knows no database and no network: a source (source.h) and a broker (relay_broker.h) are given to
 * it, time is an argument. The caller steps it, runs the broker's callbacks between steps, and
 * waits.
 *
 * How a row is in the log once: what a partition has of the source, its mark, moves in the log
 * entry that carries the rows, compare-and-set on its version. After any doubt (crash, lost reply,
 * a rival) the relay asks for the mark anew and drops the rows that it covers.
 *
 * Words: a *target* is one (topic, partition); a row is *settled* when it is in the log or set
 * aside; the *low mark* is a position such that every row up to it is settled. It never falls while
 * the relay is active. Where a source gives new positions to rows that it hands out again, what
 * holds the low mark back (a batch in flight, a row that waits) may have the older, lesser number:
 * then the low mark is lower than it need be for a while, and right.
 *
 * Invariants: (1) a target's rows are sent in the source's order and without a gap: only a READY
 * target has a mark and a queue, and one that is not ready has noted its first unsent row in
 * `blocked_from`, unless no such row was met yet; (2) rows are deleted, and the checkpoint moves,
 * only up to the low mark; (3) nothing is sent unless the last election was won and its lease, by
 * our clock, has not run out; (4) an outage never makes a row poison; only a refusal of that row
 * alone does, or that the process has ended several times in a row while it had this row alone in
 * hand (relay_deaths.c: it is found by reading with more and more care, and treated as a refused
 * one, save that a person decides where the policy is callback, or after three such rows in a
 * row); (5) a row that was set aside is not sent in the same time in office; (6) a mark is
 * opened only when nothing of its target is in flight, so each batch in flight of a READY target
 * was added to its mark; (7) rows are placed by one number of partitions of their topic, in force
 * over restarts and relays; a greater one comes into force while nothing is on its way, from where
 * no row was placed (relay_growth.c), so that a topic may grow while rows wait; (8) what was sent
 * and has no certain end is fenced off before its target's mark is asked for, and a row is set
 * aside only where nothing that was sent before can still bring it into the log.
 *
 * States: ELECTING (asks to be the active relay; also after being fenced) → ACTIVE (publishes) |
 * STANDBY (another is; asks again) | OUTAGE (no broker answers, or the database; asks again after a
 * random pause). ACTIVE → OUTAGE when the lease cannot be renewed in time, or the database cannot
 * be read. PAUSED and BLOCKED are ACTIVE to the brokers, which keep the lease, but publish nothing:
 * a person has paused the outbox, or a row was refused under the policy `block` and nobody has
 * decided about it. HALTED: stopped for good, `error` says why: the source was set back in time or
 * is another one, or a mark cannot be read. STOPPED: after relay_stop, when all is settled or given
 * up. */
#ifndef FERRY_OUTBOX_RELAY_H
#define FERRY_OUTBOX_RELAY_H

#include "outbox/relay/relay_broker.h"
#include "outbox/relay/relay_options.h"
#include "outbox/relay/relay_tally.h"
#include "outbox/relay/source.h"

struct relay;

#define RELAY_STATE_MAP(X)                                                                         \
    X(ELECTING, "electing")                                                                        \
    X(STANDBY, "standby")                                                                          \
    X(ACTIVE, "active")                                                                            \
    X(PAUSED, "paused")                                                                            \
    X(BLOCKED, "blocked")                                                                          \
    X(OUTAGE, "outage")                                                                            \
    X(HALTED, "halted")                                                                            \
    X(STOPPED, "stopped")

enum relay_state {
#define RELAY_STATE_ENUM(name, text) RELAY_##name,
    RELAY_STATE_MAP(RELAY_STATE_ENUM)
#undef RELAY_STATE_ENUM
};

const char *relay_state_name(enum relay_state state);

#define RELAY_ASIDE_MAX       65536u /* Rows set aside that may come once more. */
#define RELAY_PARKED_KEYS_MAX 65536u /* Of one source. */

/* Counts since relay_new; none ever falls. */
struct relay_stats {
    /* Reading. */
    uint64_t rows_read;    /* Handed out by the source, those that come again too. */
    uint64_t covered_rows; /* Of them dropped because a mark had them. */
    uint64_t reads;        /* Pages asked for. */
    struct relay_times read_times;
    /* Publishing. */
    uint64_t published_rows, published_batches;
    uint64_t delayed_rows;                /* Of the published: with a due time. */
    uint64_t conflicts, fenced, failures; /* Of appends; failures counts them all. */
    struct relay_times append_times;      /* From sent to answered, of those that succeeded. */
    struct relay_times
        commit_to_append; /* From the first row's created time to the answer, one a
                             batch; off by what the database's clock and ours differ. */
    /* Setting aside. */
    uint64_t refused_rows; /* Found to be refused, or no message at all. */
    uint64_t dead_rows;    /* Set aside for that. */
    uint64_t parked_rows;  /* Set aside because their key is parked. */
    uint64_t moved_rows;   /* Dropped: put anew when their key was unparked. */
    uint64_t deleted_rows;
    /* Wakes: by a datagram or NOTIFY (the source's figures tell how many were NOTIFYs), by looking
     * and finding something, and looks that found nothing. */
    uint64_t wakes, poll_wakes, polls;
    /* Office. */
    uint64_t elections;  /* Won. */
    uint64_t timetravel; /* Times that the source was found set back, or another one. */
};

struct relay_status {
    enum relay_state state;
    struct relay_stats stats;
    int64_t settled; /* The low mark. */
    uint64_t epoch;  /* Of the last election won; 0: none. */
    bool backlog_known;
    int64_t backlog_rows; /* Not settled: an estimate. */
    bool oldest_known;    /* False also when nothing is pending. */
    int64_t oldest_ms;    /* Age of the first row that is not settled. */
    bool figures_known;
    struct source_figures
        figures;           /* All that the source tells; asked at most five times a second. */
    size_t blocked_topics; /* Whose rows wait: unknown ones, or with a row that is not decided. */
    size_t blocked_partitions;
    size_t inflight_batches;
    size_t parked_keys;
    int64_t undecided; /* BLOCKED: number of the row that a person has to decide about; else 0. */
    bool database_failed;  /* It did not answer when it was asked last, for rows or figures. */
    bool set_back;         /* HALTED because the source is not the one that it was. */
    bool caught_up;        /* Everything that was there is settled, or waits for its topic. */
    struct err_text error; /* The last one that still matters; empty: none. */
};

/* A row that was refused, or cannot be a message: for who decides about it. Lives during the call.
 */
struct relay_refusal {
    int64_t number;
    const struct ferry_message *message; /* `topic` only where `invalid`. */
    bool invalid;                        /* No broker has seen it. */
    const char *reason;
};

/* What relay.poison = callback asks: the policy for this row. CALLBACK as the answer: not decided
 * yet, ask again after relay.topic_retry_ms; the row's topic or partition waits. Must not call the
 * relay; may block, and the lease with it. */
struct relay_hooks {
    enum relay_poison (*poison)(const struct relay_refusal *refusal, void *arg);
    void *arg;
    struct relay_tally *tally; /* Where figures of single topics are counted; NULL: nowhere. */
};

/* Borrows all until relay_free; `hooks` may be NULL, which leaves refused rows under the policy
 * callback to the policy dead. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err relay_new(struct relay **r, const struct relay_options *options,
                                    const struct source *source, const struct relay_broker *broker,
                                    const struct relay_hooks *hooks, uint64_t seed);
/* No append may be in flight any more: close the client first, which runs their callbacks. The
 * source must still be open. */
void relay_free(struct relay **r);

/* Does what can be done now; returns when it wants to be stepped again though nothing happened. May
 * wait for the broker (elections, cursors, checkpoints: relay.call_timeout_ms each) and briefly for
 * the database. */
MUST_CHECK int64_t relay_step(struct relay *r, int64_t now_us);
void relay_wake(struct relay *r); /* Something was committed. */
/* Nothing is read before relay.pace_ms is over: a wake need not be listened for. */
bool relay_is_paced(const struct relay *r, int64_t now_us);

/* Reads nothing more; relay_step settles what is in flight, writes the checkpoint, deletes, resigns
 * and ends in STOPPED. */
void relay_stop(struct relay *r);

/* Looks at the source for backlog and age, if that was not done lately. */
void relay_status(struct relay *r, struct relay_status *status);
const char *relay_name(const struct relay *r); /* The source's. */
void relay_check(const struct relay *r);       /* Asserts the invariants. */

#endif
