/* The fake broker's struct, for its own files: fake_broker.c (rules, misbehaviour, the thread),
 * fake_answers.c (what an honest broker would say). */
#ifndef FERRY_TESTS_FAKE_BROKER_INNER_H
#define FERRY_TESTS_FAKE_BROKER_INNER_H

#include <pthread.h>

#include "base/list.h"
#include "base/prng.h"
#include "lib/fake_broker.h"
#include "wire/frame.h"

#define RULES_MAX     64
#define COMMANDS_MAX  64
#define CANS_MAX      16
#define ASKED_MAX     64
#define REMEMBERED    16 /* Batches of a producer. */
#define PRODUCERS_MAX 64
#define SEEN_MAX      65536
#define FRAME_LIMIT   FRAME_MAX_BYTES

struct rule {
    enum command command;
    int skip, count;
    enum fake_action action;
    int value;
};

struct can {
    uint16_t command;
    struct buf body;
};

/* A request as it came: for the tests of what is asked. */
struct asked {
    uint16_t command;
    struct buf body, attachment;
};

struct stored {
    struct list node;
    int64_t base_offset;
    uint32_t count;
    size_t size;
    uint8_t data[];
};

struct producer_memory {
    uint64_t id;
    uint32_t epoch;
    uint64_t next_sequence;
    struct {
        uint64_t sequence;
        int64_t base_offset;
        bool used;
    } last[REMEMBERED];
    size_t at;
};

#define FAKE_QUEUED_MAX  4096 /* Messages of a partition that is read as a queue. */
#define FAKE_MEMBERS_MAX 8

struct fake_queued {
    enum fake_queue_state state;
    uint64_t lease;
    uint32_t handed_out, failed;
    uint32_t settled; /* Times that it was settled. */
};

/* A settlement that is answered as the first time. */
struct fake_settled {
    uint64_t lease;
    uint32_t kind;
    int64_t first;
    uint32_t count;
    uint16_t status;
};

struct fake_member {
    char name[NAME_MAX_BYTES + 1];
    struct ferry_id instance;
};

struct fake_partition {
    int leader;  /* A node; -1: none. */
    int told;    /* Whom METADATA names. */
    int64_t lag; /* So much less is said to be committed. */
    struct list log;
    int64_t start, end;
    struct producer_memory producers[PRODUCERS_MAX];
    size_t producer_count;
    int64_t committed; /* -1: no subscription. */
    uint64_t cursor_version, cursor_epoch;
    size_t cursor_bytes;
    uint8_t cursor[CURSOR_MAX_BYTES];
    struct fake_queued queued[FAKE_QUEUED_MAX];
    struct fake_settled settled[FAKE_QUEUED_MAX];
    size_t settled_count;
    uint64_t next_lease;
    int extended;
    int owner, wanted; /* Members; -1: none. */
    uint64_t owner_epoch, claimed;
    uint32_t reject_max; /* 0: any. */
    uint64_t key_version;
    int64_t next_number; /* Of delayed messages. */
};

/* A reply that waits: a delay, a hold, or a long poll. */
struct pending {
    struct list node;
    net_peer peer;
    uint16_t command;
    uint64_t request_id;
    int64_t due_us;
    bool held;
    struct buf frame; /* Empty for a fetch: made when it is answered. */
    struct fetch_request fetch;
    struct receive_request receive;
};

struct seen {
    uint64_t group, producer_id, sequence, checksum;
    uint32_t epoch;
};

/* What the brokers of one cluster have in common: the logs, and who leads. */
struct fake_shared {
    pthread_mutex_t lock;
    int nodes;
    struct fake_broker *brokers[FAKE_NODES_MAX];
    int partition_count;
    bool dropped;
    struct fake_partition partitions[FAKE_PARTITIONS_MAX];
    int controller;                    /* A node; -1: none. */
    char hint[ENDPOINT_MAX_BYTES + 1]; /* With NOT_LEADER; "": the leader's. */
    bool no_hint;
    uint64_t next_producer;
    uint64_t elected_epoch;
    struct buf checkpoint;
    struct seen *seen;
    size_t seen_count;
    int differing;
    uint32_t mode;     /* Of the subscription; 0: stream. */
    int items_refused; /* The next items of SETTLE: with item_refusal. */
    uint16_t item_refusal;
    int items_settled;
    struct fake_member members[FAKE_MEMBERS_MAX];
    size_t member_count;
    int left; /* Members that said so. */
    uint64_t epoch;
    bool paused;
};

struct fake_broker {
    struct fake_shared *shared;
    int node; /* From 0. */
    pthread_t thread;
    pthread_cond_t changed;
    struct net_wake wake;
    struct ferry_context *context;
    bool owns_context;
    struct net_server *server;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    bool stopping, want_down, is_down;
    bool frozen; /* Takes and says nothing, though it is there. */
    struct rule rules[RULES_MAX];
    size_t rule_count;
    struct can cans[CANS_MAX];
    size_t can_count;
    int requests[COMMANDS_MAX];
    struct asked asked[ASKED_MAX]; /* But for HELLO, METADATA, PRODUCE and FETCH. */
    size_t asked_count;
    struct list pending;
    struct prng prng;
};

/* Appends the batch to the log; returns its base offset. */
int64_t fake_store_batch(struct fake_partition *p, struct bytes batch, uint32_t count);
/* Keeps the batch aside: returns the number of its first message. */
int64_t fake_delay_batch(struct fake_partition *p, struct bytes batch,
                         const struct batch_header *h);
/* When record i is due: what is relative is so to FAKE_NOW_MS. */
#define FAKE_NOW_MS 1000000
int64_t fake_due(struct bytes batch, const struct batch_header *h, uint32_t i);
void fake_begin(struct buf *frame, const struct frame *f, enum ferry_err err);
void fake_refuse(struct buf *frame, const struct frame *f, enum ferry_err err, const char *why);
bool fake_try_fetch(struct fake_broker *b, struct buf *frame, const struct frame *f,
                    const struct fetch_request *request, bool anyway);
bool fake_try_receive(struct fake_broker *b, struct buf *frame, const struct frame *f,
                      const struct receive_request *request, bool anyway);
void fake_answer_settle(struct fake_broker *b, struct buf *frame, const struct frame *f);
void fake_answer_heartbeat(struct fake_broker *b, struct buf *frame, const struct frame *f);
void fake_answer_leave(struct fake_broker *b, struct buf *frame, const struct frame *f);
void fake_answer_claim(struct fake_broker *b, struct buf *frame, const struct frame *f);
void fake_answer_publish(struct fake_broker *b, struct buf *frame, const struct frame *f);
void fake_answer_version(struct fake_broker *b, struct buf *frame, const struct frame *f);
/* Writes the answer that the test has given. */
bool fake_opens_can(struct fake_broker *b, struct buf *frame, const struct frame *f);
/* Writes NOT_LEADER when this broker is not the one to ask. */
bool fake_sends_on(struct fake_broker *b, struct buf *frame, const struct frame *f);
void fake_remember(struct fake_broker *b, const struct frame *f); /* fake_asked.c */
void fake_forget_asked(struct fake_broker *b);
void fake_answer(struct fake_broker *b, struct buf *frame, const struct frame *f);

#endif
