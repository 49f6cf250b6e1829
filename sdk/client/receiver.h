/* receiver: messages of a subscription of mode queue or keyed, each under a lease, and their
 * settlements.
 *
 * The io thread keeps up to RECEIVES_OUT_MAX long polls (RECEIVE) out to each endpoint that leads
 * some of the partitions, as long as there is credit: inflight_max less what is here and what is
 * asked for. What comes is checked there, once, and queued as hand-outs (one lease each). The
 * application takes messages off them, those of a hand-out by priority where the subscription is a
 * queue, else by offset, and settles each; settlements of consecutive offsets of one
 * lease are one item, and the items of a partition travel together (SETTLE), at most
 * SETTLES_OUT_MAX requests at a time, so the busier it is the more go together.
 *
 * An item is sent again, as it was, until it is answered or delivery.timeout_ms has passed; the
 * broker answers a repeat as the first time. The dead letters of an item must fit into an entry of
 * the broker's, so nacks and rejects are joined up to SETTLE_DEAD_BYTES only. An item of several
 * messages that is refused is taken apart and sent again one by one, so that each message gets its
 * own outcome.
 *
 * Leases are extended half way through while any message of them is here, unless no_extend; then
 * what the application has not taken is released when a quarter of the lease is left.
 *
 * Memory: a message occupies one of inflight_max slots until it is settled; the reply it came in
 * lives as long as any message of it. Settlements that wait for their answers are bounded by
 * SETTLES_TIMES of that: past it nothing is asked for. A delivery names its slot and the slot's
 * generation, so one that was settled before is recognised.
 *
 * Invariants: (1) ready + held + free slots == inflight_max; (2) a hand-out lives exactly while
 * `live` > 0; (3) ready is the sum of the untaken messages of the hand-outs on the ready list;
 * (4) every settlement of the application is counted in `unanswered` until it has its outcome and
 * is told once.
 *
 * Threads: all of ferry_receive and ferry_settle happens under the client's lock, on any thread;
 * what is sent and what comes is the io thread's. */
#ifndef FERRY_CLIENT_RECEIVER_H
#define FERRY_CLIENT_RECEIVER_H

#include "client/batch_view.h"
#include "client/call.h"
#include "client/client.h"
#include "client/due.h"
#include "client/member.h"
#include "client/metadata.h"

#define RECEIVER_INFLIGHT_DEFAULT 1000u
#define RECEIVER_INFLIGHT_MAX     65536u
#define RECEIVER_BATCH_DEFAULT    256u
#define RECEIVES_OUT_MAX          2u /* To one endpoint. */
#define SETTLES_OUT_MAX           2u /* Of one partition. */
#define SETTLES_TIMES             4u
#define SETTLE_DEAD_BYTES         (1u << 20) /* An item that may make dead letters; or one message. */
#define RECEIVER_CORRUPT_TRIES    3u         /* Bad hand-outs in a row before CORRUPT is told. */

struct message {
    struct ferry_record record; /* Into the hand-out's reply. */
    uint32_t handed_out;
    uint32_t failed;
    uint32_t slot;
    uint32_t priority;
};

/* One lease: what one RECEIVE brought. */
struct handout {
    struct list node;       /* In the receiver's handouts. */
    struct list ready_node; /* In its ready list, while next < count. */
    int32_t partition;
    uint64_t lease;
    struct ferry_id token;
    uint32_t lease_ms;
    int64_t ends_us;   /* When the lease ends, at the earliest. */
    int64_t extend_us; /* When to extend it, or to release what was not taken. */
    struct holder *holder;
    size_t bytes;  /* What it counts for in fetch.queue_bytes while it is ready. */
    uint32_t live; /* Messages ready or with the application. */
    uint32_t next; /* The first that was not taken. */
    uint32_t count;
    struct message messages[]; /* As the application gets them. */
};

/* Where a message that is here is. */
struct slot {
    struct handout *handout; /* NULL: free. */
    uint32_t index;          /* Of the message; when free: the next free one. */
    uint32_t generation;
    bool taken; /* By the application. */
};

/* An item of SETTLE. Told to the application unless `ours`. */
struct settlement {
    struct list node; /* In its partition's queue, a batch, or the teller's list. */
    int32_t partition;
    uint64_t lease;
    struct ferry_id token;
    enum settle_kind kind;
    int64_t first;
    uint32_t count;
    int64_t delay_ms;
    int64_t deadline_us;
    bool ours;
    bool alone;   /* Was part of an item that was refused: nothing is added. */
    size_t bytes; /* Of its messages, which may become dead letters. */
    enum ferry_err err;
    void **opaques; /* One for each message; NULL: none has any. */
    size_t opaque_capacity;
    uint32_t reason_bytes;
    char reason[REASON_MAX_BYTES];
};

/* What is told in ferry_poll. Outlives the receiver while it is on the client's due list. */
struct teller {
    struct due due;
    struct list told; /* Settlements with their outcomes. */
    bool queued;      /* On the due list. */
    bool abandoned;   /* The receiver is gone: whoever takes it off the due list frees it. */
    ferry_settled_cb *callback;
    void *arg;
};

struct receiver_partition {
    /* Locked. */
    struct list queue;     /* Settlements to be sent. */
    struct list work_node; /* In the receiver's settle_work, while the queue is not empty. */
    unsigned settles_out;
    /* Io. */
    uint64_t group; /* At open: another one means another topic of that name. */
    unsigned attempts;
    int64_t retry_at_us;
    int64_t settle_at_us; /* Not before: the broker asked for patience. */
    bool missing;         /* Was said to lack the subscription, last. */
};

struct asker;

struct ferry_receiver {
    struct ferry_client *client;
    struct topic *topic;
    char subscription[NAME_MAX_BYTES + 1];
    char name[NAME_MAX_BYTES + 1]; /* The member's. */
    uint32_t inflight_max, batch_max;
    uint32_t lease_ms; /* As asked for; 0: the subscription's. */
    uint32_t usual_ms; /* What a lease lasts. */
    int32_t partition_count;
    bool no_extend;
    bool by_priority; /* Mode queue. */
    struct receiver_partition *partitions;
    pthread_cond_t changed;
    /* Locked. */
    struct list ready;
    struct list handouts;
    struct list settle_work;
    struct slot *slots;
    uint32_t first_free; /* inflight_max: none. */
    uint32_t ready_count, held;
    uint32_t credit_wanted; /* The io thread waits for so much; 0: it does not. */
    int64_t extend_us;      /* The earliest of the hand-outs. */
    size_t ready_bytes;
    uint64_t unanswered;      /* Messages whose settlement has no outcome yet. */
    uint64_t failed_count;    /* Settlements with an error since the last flush. */
    enum ferry_err failed;    /* For good. */
    enum ferry_err told_once; /* An event for the next ferry_receive. */
    bool stopping;            /* Nothing is asked for; what comes is released. */
    unsigned receives_out;    /* Of the io thread's: RECEIVEs without an answer. */
    struct teller *teller;
    struct list work_node;
    /* Io. */
    unsigned corrupt_tries;
    struct list node; /* In the client's receivers. */
    struct list askers;
    struct list batches; /* SETTLEs that are out. */
    size_t asker_count;
    int32_t first_asked;
    uint32_t asked; /* Messages asked for. */
    size_t asked_bytes;
    struct timer timer;
    struct member member;
};

/* ---- Opening and closing without waiting, for a stepped client: begin, step until it is true,
 * end, which frees the opening. Arguments and errors are those of ferry_receiver_open. */
struct receiver_opening;
MUST_CHECK enum ferry_err receiver_opening_begin(struct ferry_client *c, const char *topic,
                                                 const char *subscription,
                                                 const struct ferry_receiver_spec *spec,
                                                 int timeout_ms, struct receiver_opening **opening);
bool receiver_opening_step(struct receiver_opening *opening);
MUST_CHECK enum ferry_err receiver_opening_end(struct receiver_opening **opening,
                                               struct ferry_receiver **receiver);
/* Asks for nothing more, and releases what is not settled. ferry_receiver_close(&r, 0) once
 * receiver_is_idle says so, or sooner. */
void receiver_stop(struct ferry_receiver *r);
/* Nothing is out and every settlement has its outcome. */
bool receiver_is_idle(struct ferry_receiver *r);
/* An extension without waiting: finished when call_all_finished(client, &extension->call, 1); then
 * receiver_extend_end gives the outcome. */
struct receiver_extension {
    struct call call;
    struct settle_request *request;
    struct ferry_receiver *receiver;
    int64_t began_us;
};
MUST_CHECK enum ferry_err receiver_extend_begin(struct ferry_receiver *r,
                                                const struct ferry_delivery *delivery,
                                                uint32_t lease_ms, int timeout_ms,
                                                struct receiver_extension *extension);
MUST_CHECK enum ferry_err receiver_extend_end(struct receiver_extension *extension);

/* ---- Inside. */
struct ferry_receiver *receiver_new(struct ferry_client *c, struct topic *t,
                                    const char *subscription,
                                    const struct ferry_receiver_spec *spec); /* NULL: no memory. */
void receiver_free(struct ferry_receiver *r);                                /* Not attached. */
uint32_t receiver_credit(const struct ferry_receiver *r); /* With the lock, as all below. */
/* Its slot is free again; the hand-out goes with its last message. */
void receiver_drop_message(struct ferry_receiver *r, struct slot *slot);
struct handout *receiver_find_lease(struct ferry_receiver *r, int32_t partition, uint64_t lease);
void receiver_extended(struct ferry_receiver *r, struct handout *h, int64_t began_us,
                       int64_t lease_ms);
/* Lets go of the messages that were not taken: with `release`, told to the broker. */
void receiver_drop_ready(struct ferry_receiver *r, struct handout *h, bool release);
/* A message's settlement, put to the others of its partition. False: no memory. */
struct settling {
    const struct handout *handout;
    int64_t offset;
    enum settle_kind kind;
    int64_t delay_ms;
    size_t bytes; /* Of the message. */
    struct bytes reason;
    void *opaque;
    bool ours;
};
MUST_CHECK bool settler_add(struct ferry_receiver *r, const struct settling *s);
void receiver_check(struct ferry_receiver *r); /* Tests: the invariants. */

/* ---- The io thread. */
void receiver_pump(struct ferry_receiver *r);
MUST_CHECK enum ferry_err receiver_attach(struct ferry_receiver *r);
void receiver_detach(struct ferry_receiver *r);
void receivers_metadata_changed(struct topic *t);
void receivers_suspect(struct ferry_client *c);
void settler_pump(struct ferry_receiver *r, int64_t now_us, int64_t *next_us);
void settler_extend(struct ferry_receiver *r, int64_t now_us, int64_t *next_us);
void settler_detach(struct ferry_receiver *r);
/* ---- The application's side of settlements. */
int teller_run(struct ferry_client *c, struct teller *teller);
struct teller *teller_new(void);
void teller_close(struct ferry_client *c, struct teller *teller);
/* With the lock: it has its outcome. */
void teller_tell(struct ferry_receiver *r, struct settlement *s, enum ferry_err err);
void settlement_free(struct settlement *s);

#endif
