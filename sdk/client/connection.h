/* connection: the way to one broker endpoint, and the requests that are out on it.
 *
 * The io thread's alone. Every reply is a stranger's bytes: what does not parse is dropped and
 * counted, what nobody waits for (a late reply) is ignored.
 *
 * Invariants: (1) a request that was submitted gets exactly one call of `done`, unless it is
 * cancelled; it is idle again before that call, so `done` may submit it anew; (2) no more requests
 * are on the wire than the broker's inflight_max; the rest wait in order; (3) nothing but HELLO
 * is on the wire before HELLO has been answered.
 *
 * States of a connection:
 *   NEW       nothing was said; a submitted request starts the greeting
 *   GREETING  HELLO is out; requests wait
 *   READY     requests go out; limits are known
 * A greeting that fails, or a request that times out on a silent link, leads back to NEW through a
 * new link, so that nothing old is left in the queue of the old one.
 *
 * A lost TCP connection is mended by the layer below without a word, and what was on it is gone.
 * So when requests are out and nothing has come for a while, or one has waited for much longer than
 * answers take here, HELLO is asked once more: its answer proves that the broker is there, and what
 * was sent before it and is not answered is taken as lost and tried again. All requests may be
 * repeated, so a wrong guess costs bytes only; the guess waits twice as long each time until
 * something is answered.
 *
 * A HELLO that is itself not answered soon makes the connection a suspect, until anything comes or
 * it begins anew: then the answers are looked for elsewhere (route.h). */
#ifndef FERRY_CLIENT_CONNECTION_H
#define FERRY_CLIENT_CONNECTION_H

#include "base/list.h"
#include "client/timer.h"
#include "net/net.h"
#include "wire/batch.h"
#include "wire/command.h"
#include "wire/frame.h"

#define CONNECTION_REQUESTS_MAX 4096u /* Submitted and not done; a power of two. */
#define CONNECTION_INFLIGHT_MIN 1u
#define CONNECTIONS_MAX         512u /* Of one client: bootstrap servers and what metadata names. */
#define PROBE_FIRST_US          INT64_C(250000)
#define PROBE_PATIENCE_US                                                                          \
    INT64_C(1000000) /* However long a poll is, so much silence is enough to ask. */
#define PROBE_LAST_US    INT64_C(8000000)
#define PROBE_SOON_US    INT64_C(400000) /* The first probe never waits longer. */
#define SUSPECT_PROBE_US INT64_C(100000) /* A broker that is there answers HELLO sooner. */
#define SUSPECT_GREETING_US                                                                        \
    INT64_C(250000)   /* The first HELLO, which waits for the TCP connection. */
#define PROBE_PACES 8 /* So many times the usual answer is silence. */

struct ferry_client;
struct connection;
struct request;

/* How a request ended. Lives during `done`; the message may be moved out of it. */
struct reply {
    enum ferry_err err; /* FERRY_OK: `frame` has the answer. */
    bool answered;      /* The broker said so. False: nobody answered (TIMEOUT, UNREACHABLE). */
    bool written;       /* The request had left for the broker. */
    uint32_t retry_after_ms;     /* With THROTTLED. */
    struct bytes detail;         /* The broker's words, or ours. */
    struct frame frame;          /* When answered. */
    struct net_message *message; /* When answered: what `frame` points into. */
};

typedef void request_done(struct request *r, const struct reply *reply);

/* Embedded by callers; fields private. */
struct request {
    struct list node;              /* In waiting or in_flight of its connection. */
    struct connection *connection; /* NULL: idle. */
    uint64_t id;
    uint16_t command;
    bool written;
    int64_t deadline_us;
    int64_t written_us;
    int64_t patience_us; /* How long the broker may rightly take (long polls). */
    struct buf frame;
    request_done *done;
};

enum connection_state { CONNECTION_NEW, CONNECTION_GREETING, CONNECTION_READY };

struct connection {
    struct list node; /* In the client's connections. */
    struct ferry_client *client;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct net_link *link;
    enum connection_state state;
    struct hello_reply limits; /* Valid once READY was reached (greeted). Text is not kept. */
    bool greeted;              /* A broker has answered here at least once. */
    struct request hello;
    bool suspect;           /* The hello that is out should have been answered by now. */
    bool probing;           /* The hello that is out asks whether anybody is there. */
    int64_t probed_us;      /* When the last probe was written that was answered; 0: none. */
    int64_t probe_after_us; /* Silence before the next probe. */
    int64_t received_us;    /* When anything last came. */
    int64_t pace_us;        /* How long answers take, smoothed. */
    struct list waiting;    /* Submitted, not written. */
    struct list in_flight;  /* Written, in order. */
    uint32_t in_flight_count;
    uint32_t request_count; /* Slots in use. */
    uint64_t next_id;
    struct timer timer;
    struct request *slots[CONNECTION_REQUESTS_MAX]; /* By id; holes are NULL. */
};

/* The connection to the endpoint, made when there is none. Errors: NO_MEMORY, LIMIT_REACHED,
 * BAD_OPTION_VALUE (the endpoint), IO. */
MUST_CHECK enum ferry_err connection_get(struct ferry_client *c, struct bytes endpoint,
                                         struct connection **connection, struct err_text *e);
struct connection *connection_find(struct ferry_client *c, struct bytes endpoint); /* NULL: none. */
/* Fails every request with CLOSED and frees. */
void connection_free(struct connection *connection);
/* Takes what has come, at most `messages_max`; true when there may be more. */
bool connection_receive(struct connection *connection, int messages_max);

void request_init(struct request *r, request_done *done);
void request_fini(struct request *r); /* Cancels. */
static inline bool request_is_idle(const struct request *r)
{
    return r->connection == NULL;
}
/* Starts the frame: encode the body into r->frame, then submit. Errors: QUEUE_FULL. */
MUST_CHECK enum ferry_err request_begin(struct request *r, struct connection *connection,
                                        enum command command, int64_t timeout_ms);
/* Errors: NO_MEMORY (the frame); the request is idle then and `done` is not called. */
MUST_CHECK enum ferry_err request_submit(struct request *r);
void request_cancel(struct request *r); /* `done` is not called; a late reply is ignored. */

#endif
