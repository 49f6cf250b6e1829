/* client: the handle, its io thread and what both sides share.
 *
 * One io thread owns every link, request, timer and all that is learned from brokers. Application
 * threads reach it through one mutex, held for short stretches: ferry_send puts the message into
 * the open parcel of its partition and leaves; the io thread takes whole parcels. Nothing is
 * called back with the lock held.
 *
 * Fields are grouped by who may touch them:
 *   fixed      written in ferry_open, read by all
 *   locked     under `lock`
 *   io         the io thread alone
 *   io, locked written by the io thread under `lock`; it reads them without
 *
 * Invariants: (1) a message that ferry_send accepted is counted in queued_messages until it was
 * told; (2) work is on a work list at most once; (3) when `asleep` is set, whoever adds work
 * signals `wake`, so no work waits for a timer. */
#ifndef FERRY_CLIENT_CLIENT_H
#define FERRY_CLIENT_CLIENT_H

#include <pthread.h>

#include "base/id.h"
#include "client/conf.h"
#include "client/connection.h"
#include "client/route.h"

#define CLIENT_TOPIC_BUCKETS 1024u
#define CLIENT_TOPICS_MAX    16384u /* Names that one client may have spoken of. */
#define CLIENT_SERVERS_MAX   64u
#define PARCEL_POOL_MAX      48u /* Empty parcels kept with their memory. */

struct topic;
struct parcel;

/* What the io thread shall do for somebody who waits. On the waiter's stack. */
struct task {
    struct list node;
    void (*run)(struct ferry_client *c, void *arg);
    void *arg;
    bool done;
};

enum producer_state {
    PRODUCER_NONE,   /* No identity, nobody asked. */
    PRODUCER_ASKING, /* PRODUCER_INIT is out. */
    PRODUCER_READY,  /* producer_id and producer_epoch hold. */
    PRODUCER_FAILED  /* Fenced or refused: producer_err says why; for good. */
};

struct producer {
    enum producer_state state;
    uint64_t id;
    uint32_t epoch;
    enum ferry_err err;
    struct list waiting; /* Streams that need an identity. */
    struct call *asking; /* While ASKING. */
    struct timer timer;  /* When to ask again. */
    unsigned attempts;
};

struct ferry_client {
    /* Fixed. */
    struct client_options options;
    ferry_report_cb *report;
    void *report_arg;
    struct ferry_context *context;
    bool owns_context;
    bool stepped; /* No io thread: client_turn is called instead. */
    pthread_t thread;
    struct net_wake wake;     /* Wakes the io thread. */
    struct net_wake due_wake; /* Readable while something is due: ferry_fd. */
    pthread_mutex_t lock;
    pthread_cond_t due_changed;  /* Something is due, or nothing is queued any more. */
    pthread_cond_t task_changed; /* A task or a call is done. */

    /* Locked. */
    bool asleep;  /* The io thread sleeps or is about to. */
    bool closing; /* ferry_close began: nothing new is accepted. */
    bool stopping;
    unsigned flushing;        /* Callers inside ferry_flush: nothing lingers. */
    struct list work_streams; /* Streams with something to send. */
    struct list work_topics;  /* Topics to be looked up. */
    struct list work_calls;
    struct list work_appends;
    struct list work_consumers; /* Consumers with room again. */
    struct list work_receivers; /* Receivers with credit or settlements. */
    struct list work_tasks;
    struct list buckets[CLIENT_TOPIC_BUCKETS]; /* Topics by name. */
    size_t topic_count;
    struct topic *last_topic; /* Of the last ferry_send. */
    struct list pool;         /* Parcels to use again. */
    size_t pool_count;
    struct buf headers; /* Scratch. */
    struct id_gen ids;
    int64_t worker_until_us; /* The worker id is ours until then; INT64_MAX: configured. */
    size_t queued_messages;
    size_t queued_bytes;
    size_t message_max_bytes; /* The smaller of ours and the brokers'. */
    size_t batch_max_bytes;
    struct err_text last_detail; /* Of the last administrative call that failed. */
    struct list due;             /* Things with callbacks to run, in order. */
    unsigned due_waiters;
    bool due_signalled;

    /* Io. */
    struct timers timers;
    struct list connections;
    size_t connection_count;
    bool closing_connections;
    struct bytes servers[CLIENT_SERVERS_MAX]; /* Into options.servers. */
    size_t server_count;
    size_t next_server;
    struct book book;
    struct request refresh; /* Of the book. */
    struct connection
        *controller; /* Takes commands on topics, producers, sources; NULL: unknown. */
    struct producer producer;
    struct list consumers;
    struct list receivers;
    struct list chains;    /* Of sources. */
    struct worker *worker; /* Takes a worker id from the cluster; NULL: it is configured. */
    struct list calls;     /* Started and not finished. */
    struct prng prng;
    uint64_t bad_replies; /* Replies that did not parse. */
    struct net_poll_item *items;
    size_t item_capacity;
};

/* ---- Any thread. */
/* Runs it on the io thread and returns when it is done. */
void client_run_task(struct ferry_client *c, void (*run)(struct ferry_client *c, void *arg),
                     void *arg);
/* With the lock: queues the node unless it is queued; true when `wake` must be signalled once the
 * lock is free (client_wake). */
MUST_CHECK bool client_add_work(struct ferry_client *c, struct list *work, struct list *node);
void client_wake(struct ferry_client *c, bool needed);

/* ---- A client without its thread, for a simulation that has one thread and a clock of its own.
 * All randomness comes from the seed, all time from base/clock. Whatever waits must not be called
 * with a time to wait: ferry_poll(c, 0), ferry_consumer_fetch(s, 0, …), ferry_close(&c, 0),
 * consumer_opening_*, call_begin; ferry_send and ferry_source_append as always. */
/* As ferry_open; `*conf` is taken on success and names the context. */
MUST_CHECK enum ferry_err client_open_stepped(struct ferry_conf **conf, uint64_t seed,
                                              struct ferry_client **client, struct err_text *e);
/* Does all that can be done now, as the io thread would. Returns the time (clock_monotonic_us) of
 * the next turn if nothing comes before; INT64_MAX: none is needed. */
int64_t client_turn(struct ferry_client *c);

/* ---- The io thread. */
/* The pause before try number `attempts` (counted from 1), with full jitter. */
int64_t client_backoff_us(struct ferry_client *c, unsigned attempts);
void client_pump_all(struct ferry_client *c); /* Every stream. */
void client_learn_limits(struct ferry_client *c, const struct hello_reply *h);

#endif
