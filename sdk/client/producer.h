/* producer: streams of parcels to partitions, in order, each stored once.
 *
 * A stream is one partition's. Its batches carry (producer id, epoch, sequence): dense by record,
 * from 0 in each identity. A retry sends identical bytes, so the broker knows it again.
 *
 * Why a stream changes its identity (`broken`), told as a story:
 *   1. Batches A (records 0..9) and B (10..19) are sent. The link dies; nobody answers.
 *   2. A's delivery timeout passes. A's fate is not known: its report says UNKNOWN. A is not sent
 *      again, for a message must not appear after its outcome was told as final.
 *   3. If A was lost, the broker expects record 0 and refuses B with SEQUENCE_GAP for ever. B
 *      cannot get other numbers under this identity: if A and B did arrive after all, B would then
 *      be in the log twice.
 *   4. So the stream numbers nothing new, lets every batch that is numbered end (stored, refused,
 *      or out of time), and then goes on with a new identity at sequence 0: the same id with the
 * next epoch, so that A, if it lies in some buffer of the network and comes after all, is refused
 *      there and not put behind younger messages of its keys.
 *   5. A numbered batch that was refused and has no try of unknown fate is in the log neither now
 *      nor later: it goes back unnumbered and is sent under the new identity. One with such a try
 *      ends UNKNOWN.
 * The same happens when the oldest batch is refused with SEQUENCE_GAP: the broker has forgotten the
 * producer. A refusal of the last numbered batch only takes its numbers back.
 *
 * When a partition gets another leader, what is out at the old one is withdrawn (its fate is not
 * known) and sent to the new one again, oldest first, before anything new: the new leader knows
 * what the old one has stored. An answer of the old one that comes late is not listened to any
 * more.
 *
 * Invariants: (1) parcels in `sent` are numbered densely and in order; (2) a parcel in `sent` is
 * put on the wire only when all before it in `sent` are on the wire; (3) `pending` is in order of
 * ordinal and all of it comes after `sent`. */
#ifndef FERRY_CLIENT_PRODUCER_H
#define FERRY_CLIENT_PRODUCER_H

#include "client/parcel.h"

/* With fewer than this out, a stream takes what there is, however little. Three: while the broker
 * syncs one, another is with it for the turn that comes next, and what is sent meanwhile need not
 * wait for an answer. With two a message at a moderate rate waits most of a turn longer. */
#define STREAM_EAGER_INFLIGHT 3u

struct stream {
    /* Locked. */
    struct parcel *open;         /* NULL: none. */
    struct parcel *open_delayed; /* Of messages with a due time, which have batches of their own. */
    size_t load_bytes;           /* Queued and in flight. */
    struct list closed;
    bool hungry; /* The io thread wants to know of the first message. */
    struct list work_node;
    /* Io. */
    struct list pending; /* Closed, not numbered. */
    struct list sent;    /* Numbered. */
    unsigned in_flight;
    uint64_t next_ordinal;
    bool has_identity;
    uint64_t producer_id;
    uint32_t producer_epoch;
    uint64_t next_sequence;
    bool broken;
    int64_t retry_at_us;       /* Nothing is sent before. */
    unsigned attempts;         /* Failures in a row. */
    unsigned misplaced;        /* Answers in a row that there is no such partition. */
    struct list identity_node; /* In producer.waiting. */
    struct timer timer;
};

MUST_CHECK bool stream_init(struct partition *p);
void stream_fini(struct partition *p);
void stream_pump(struct partition *p);  /* Sends what can be sent. */
void stream_moved(struct partition *p); /* Another leader was found: nothing to wait for. */
void stream_regroup(
    struct partition *p); /* The partition is another one now: its topic was made anew. */
void stream_fail(struct partition *p, enum ferry_err err); /* At close: ends everything. */
/* Ends what is not on the wire; what is waits for its answers. */
void stream_end_unsent(struct partition *p, enum ferry_err err);
void producer_ask(struct ferry_client *c); /* For an identity; state NONE. */
MUST_CHECK bool producer_init(struct ferry_client *c);
void producer_fini(struct ferry_client *c);

void stream_on_reply(struct request *r, const struct reply *reply); /* For a parcel's request. */

/* With the lock: the inner half of ferry_send. */
struct accepted {
    const struct batch_record *record;
    int32_t partition;
    void *opaque;
    struct waiter *waiter;
    int64_t deadline_us; /* 0: from now. */
};
MUST_CHECK enum ferry_err accumulator_add(struct topic *t, const struct accepted *m, bool *wake);
/* The io thread, metadata has come: the topic is known from now on, and staged messages go to
 * their partitions. */
void accumulator_unstage(struct topic *t);
/* Ends all that is staged. */
void accumulator_fail_staged(struct topic *t, enum ferry_err err);
/* Ends what is staged and out of time; returns the next deadline, INT64_MAX when there is none. */
int64_t accumulator_expire_staged(struct topic *t, int64_t now_us);

#endif
