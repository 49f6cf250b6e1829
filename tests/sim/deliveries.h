/* deliveries: what members of queue and keyed subscriptions were handed and how they settled it,
 * and what that must never be (reliability.md INV-Q).
 *
 * Knows messages by their number in the history, and nothing of the broker but what it tells each
 * receiver. A hand-out is named by how many times the message had been out, as told with it: since
 * that is exact, two of one message are in the order of their numbers. Precisely:
 *
 * - Q01: at the end each message that is in the log has an ack that may have counted (asked for
 *   with its last hand-out, and not refused), or is a dead letter, or one was dropped, or retention
 *   dropped it.
 * - Q02: a settlement or extension that was asked for after a later hand-out of the message had
 *   been received is never confirmed; and a hand-out whose lease was promised to last until a time
 *   is followed by no other before that time, unless its holder let go of it.
 * - Q03: of hand-outs whose ack or reject is confirmed there is none later. (And none received from
 *   a receiver that was opened after the confirmation, whatever its number.)
 * - Q04: no number comes twice, none goes back in time, and `failed` grows from one hand-out to a
 *   later one by exactly those in between that were nacked or ran out; those that nobody saw may
 *   count or not. What was nacked with a delay does not come before it is over. No message is
 *   handed out that failed as often as the limit says; a dead letter that was not rejected or
 *   parked failed exactly that often. Acked and dead is never both.
 * - Q05: what the broker counts adds up, and agrees with what was confirmed.
 * - Q06, keyed: before a message is handed out, an ack that counts was asked for, of the one before
 *   it of its key, or that one is dead.
 *
 * A message that was asked to be replayed may come again with counters of its own; a subscription
 * that was asked to be reset is only held to what still makes sense (`loose`). */
#ifndef FERRY_SIM_DELIVERIES_H
#define FERRY_SIM_DELIVERIES_H

#include "sim/history.h"

enum out_state {
    OUT_OPEN,      /* Nothing was asked. */
    OUT_ASKED,     /* No answer yet, or never any. */
    OUT_CONFIRMED, /* On a quorum. */
    OUT_REFUSED,   /* The lease had ended. */
};

/* One hand-out, as a program received it. */
struct hand_out {
    uint64_t message;
    uint32_t handed, failed;
    uint32_t worker;
    int64_t since_us, got_us; /* It happened within: the receiver was opened; it was received. */
    int64_t until_us;         /* The lease was promised to last until then. */
    enum ferry_settle asked;
    enum out_state state;
    int64_t asked_us;
    int64_t delay_ms; /* Of a nack: as it asked; -1: the broker's back-off. */
    bool let_go;      /* Its holder closed, which releases what it has. */
    uint32_t next;    /* Of the same message; 0: none. */
};

/* A message in one subscription. */
struct delivered {
    uint32_t first; /* Its hand-outs, by `handed`; 0: none. */
    uint32_t replays;
    bool dead, dropped; /* In the list of dead letters at the end; asked to be dropped. */
    uint32_t dead_handed;
};

struct deliveries {
    struct history *history;
    const char *name;
    uint32_t topic;
    bool keyed;
    uint32_t max_deliveries;
    bool exact_clocks;    /* No clock of the world runs wrong: promises in time are checked. */
    bool exact_times;     /* ... nor is one set wrong: delays are checked. */
    bool loose;           /* A reset was asked for. */
    bool skips;           /* ... to somewhere else than the start: messages may be passed over. */
    struct hand_out *all; /* From 1. */
    uint32_t count, capacity;
    struct delivered *of; /* By message. */
    size_t of_count, of_capacity;
    uint64_t confirmed[FERRY_REJECT + 1], refused, unknown; /* Settlements, for people. */
    uint64_t again;        /* Hand-outs that were not the message's first. */
    uint64_t late;         /* Refused after another hand-out had been received. */
    uint64_t close;        /* Settled within a tenth of a second of the lease's end. */
    uint64_t dead, poison; /* Listed at the end; of them by failing as often as the limit says. */
};

void deliveries_init(struct deliveries *d, struct history *h, const char *name, uint32_t topic,
                     bool keyed, uint32_t max_deliveries);
void deliveries_fini(struct deliveries *d);
/* A member received it; the hand-out's number is for what follows. 0: it was not what anybody sent.
 */
uint32_t deliveries_got(struct deliveries *d, uint32_t worker, int64_t opened_us,
                        const struct ferry_delivery *delivery);
void deliveries_asked(struct deliveries *d, uint32_t hand_out, enum ferry_settle settle,
                      int64_t delay_ms);
void deliveries_told(struct deliveries *d, uint32_t hand_out, enum ferry_err err);
/* An extension asked for at `asked_us` was answered. */
void deliveries_extended(struct deliveries *d, uint32_t hand_out, int64_t asked_us,
                         uint32_t lease_ms, enum ferry_err err);
/* The worker closes its receiver, or stops caring: its open hand-outs may be released. */
void deliveries_let_go(struct deliveries *d, uint32_t worker);
void deliveries_resetting(struct deliveries *d, bool to_start);
/* Dead letter at `offset` is to be replayed, or dropped: told before it is asked for. False: nobody
 * has seen what is there, so it shall be left alone. */
bool deliveries_replaying(struct deliveries *d, int32_t partition, int64_t offset);
bool deliveries_dropping(struct deliveries *d, int32_t partition, int64_t offset);

/* ---- At the end: everything is drained, and nobody works any more. ---- */
void deliveries_dead(struct deliveries *d, const struct ferry_dead *dead);
/* One of them was read as a topic has it; `number`: what its payload tells. */
void deliveries_read_dead(const struct deliveries *d, int32_t partition, uint64_t number);
/* Hand-outs that nobody received, as the numbers of others tell. */
uint64_t deliveries_unseen(const struct deliveries *d);
/* What the broker counts for one partition that was made at offset 0, after all deliveries_dead. */
void deliveries_counted(const struct deliveries *d, const struct ferry_subscription_partition *p);
/* All logs have been read out. */
void deliveries_check_end(const struct deliveries *d);

#endif
