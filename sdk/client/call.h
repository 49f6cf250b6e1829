/* call: one question to whoever can answer it, asked until it is answered or its time is up.
 *
 * Finds the broker (any, the controller, or a partition's leader), retries what may be retried with
 * back-off, follows hints, asks for metadata again when the answer says so or the broker is silent.
 * Every command sent this way may be repeated; what a repeat means is the caller's to know
 * (`doubtful`).
 *
 * States: idle → queued (work_calls) → on its way (a request is out, or the timer or the topic's
 * metadata is awaited) → done, told once through `done` on the io thread, or to call_run's caller.
 */
#ifndef FERRY_CLIENT_CALL_H
#define FERRY_CLIENT_CALL_H

#include "client/client.h"

enum call_route {
    ROUTE_ANY,        /* Any broker's shard 0. */
    ROUTE_CONTROLLER, /* The metadata group's leader: endpoint 0 of the metadata. */
    ROUTE_PARTITION,  /* The leader of topic and partition. */
    ROUTE_ENDPOINT    /* That one; nobody else can answer. */
};

struct call;
/* Writes the body; `group` is the partition's, with ROUTE_PARTITION. */
typedef void call_encode(struct buf *b, const struct call *call, uint64_t group);
typedef void call_done(struct ferry_client *c, struct call *call);

struct call {
    /* The caller's. */
    enum command command;
    enum call_route route;
    struct topic *topic; /* With ROUTE_PARTITION. */
    int32_t partition;
    const char *endpoint; /* With ROUTE_ENDPOINT. */
    int64_t patience_ms;  /* How long the broker may rightly take; 0: no longer than usual. */
    call_encode *encode;
    const void *request; /* For encode. */
    int64_t deadline_us;
    call_done *done; /* NULL: call_run waits. */
    void *arg;
    /* The outcome. */
    enum ferry_err err;
    bool doubtful; /* An earlier try may have been carried out though its answer was lost. */
    struct net_message message;
    struct frame frame; /* Into `message`; when err is FERRY_OK or the broker refused. */
    bool answered;
    struct err_text detail;
    bool finished; /* Locked. */
    /* Io. */
    struct ferry_client *client;
    struct list node;         /* In work_calls, then in topic->calls while metadata is awaited. */
    struct list started_node; /* In the client's calls. */
    struct request wire;
    struct timer timer;
    unsigned attempts;
    unsigned hops;             /* Hints followed. */
    unsigned misplaced;        /* The place was said to be unknown so many times. */
    struct connection *asked;  /* The last try's. */
    struct connection *hinted; /* The next try's; NULL: whom the route says. */
    bool unreachable;          /* No try ever got to a broker that speaks. */
};

void call_init(struct call *call, enum command command, enum call_route route, call_encode *encode,
               const void *request, int timeout_ms);
void call_to_partition(struct call *call, struct topic *topic, int32_t partition);
void call_fini(struct call *call);

/* Any thread but the io thread: starts the calls at the same time; they stay where they are until
 * all are finished. */
void call_begin(struct ferry_client *c, struct call *calls, size_t count);
bool call_all_finished(struct ferry_client *c, const struct call *calls, size_t count);
void call_wait(struct ferry_client *c, const struct call *calls, size_t count); /* For all. */
/* For one at least of those with `begun` set; false when there is none. */
bool call_wait_any(struct ferry_client *c, const struct call *calls, const bool *begun,
                   size_t count);
/* Begins and waits. */
void call_run(struct ferry_client *c, struct call *calls, size_t count);
/* One call; what the broker said of its error is kept for ferry_error_detail. */
enum ferry_err call_run_one(struct ferry_client *c, struct call *call);
void call_keep_detail(struct ferry_client *c, const char *text);

/* The io thread. */
void call_start(struct ferry_client *c, struct call *call);
void call_resume(struct call *call); /* Metadata has come, or has failed with topic->err. */
void calls_metadata_changed(struct topic *t); /* Tries that wait for an old leader. */
/* Tries that wait for `k` go elsewhere where they can. */
void calls_suspect(struct ferry_client *c, const struct connection *k);
void calls_fail(struct ferry_client *c); /* At close: ends all with CLOSED. */
/* Takes back a call that was begun or started, wherever it is: nothing is told. In place of
 * call_fini. */
void call_cancel(struct ferry_client *c, struct call *call);
/* Ends the call now; it may be gone when this returns. */
void call_finish(struct call *call, enum ferry_err err, const char *detail);

#endif
