/* peer: what the clients of other brokers share: options, the clock, the result as JSON.
 *
 *   PROGRAM URL BYTES IN_FLIGHT SECONDS [queue]
 *
 * publishes messages of BYTES for SECONDS, at most IN_FLIGHT of them without the broker's
 * confirmation, waits for the rest, and prints what was confirmed. With IN_FLIGHT 1 that is the
 * latency of one message at a time. With `queue` a thread of its own consumes and acks each
 * message, and what counts is the ack: confirmed by the broker where it does so, else sent. Built
 * by peers_bench.py with the packages it installs; not part of Ferry's build. The counts of a
 * peer_run are changed under its lock. */
#ifndef FERRY_TESTS_BENCH_PEERS_PEER_H
#define FERRY_TESTS_BENCH_PEERS_PEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_MESSAGES_MAX (INT64_C(1) << 24)

struct peer_run {
    const char *program, *url;
    size_t bytes;
    int64_t in_flight;
    int64_t began_us, until_us;
    char *payload;
    int64_t *sent_us;      /* By message. */
    int64_t *latencies_us; /* By message; 0 until it is confirmed. */
    int64_t sent, confirmed, refused;
    bool queue;
    bool over; /* The consumer ends. */
    pthread_mutex_t lock;
};

int64_t peer_now_us(void);
/* Reads the options and starts the clock; false, after a message, when they are wrong. */
bool peer_begin(struct peer_run *r, int argc, char **argv);
/* The clock starts here again: what came before was preparation. */
void peer_start(struct peer_run *r);
/* True while there is time and room for another message. */
bool peer_goes_on(const struct peer_run *r);
/* A message goes out now; its number. */
int64_t peer_sends(struct peer_run *r);
/* Message n was confirmed now. A second time is not counted. */
void peer_confirmed(struct peer_run *r, int64_t n);
/* Queue: message n is in the payload; -1: not one of ours. */
void peer_number(struct peer_run *r, int64_t n);
int64_t peer_read_number(const struct peer_run *r, const void *payload, size_t bytes);
/* Locked. */
int64_t peer_under_way(struct peer_run *r);
bool peer_is_over(struct peer_run *r);
void peer_stop(struct peer_run *r);
/* Queue: until all that was sent is confirmed; false when nothing moves for PEER_PATIENCE_S. */
bool peer_wait_for_all(struct peer_run *r);
#define PEER_PATIENCE_S 60

/* Prints the result, `version` of the broker or library with it; the exit code. */
int peer_end(struct peer_run *r, const char *version);
/* Says what failed; 1, as an exit code. */
int peer_failed(const struct peer_run *r, const char *what, const char *why);

#endif
