/* peer: what the clients of other brokers share: options, the clock, the result as JSON.
 *
 *   PROGRAM URL BYTES IN_FLIGHT SECONDS
 *
 * publishes messages of BYTES for SECONDS, at most IN_FLIGHT of them without the broker's
 * confirmation, waits for the rest, and prints what was confirmed. With IN_FLIGHT 1 that is the
 * latency of one message at a time. Built by peers_bench.py with the packages it installs; not part
 * of Ferry's build. One thread writes a peer_run, unless the program says otherwise. */
#ifndef FERRY_TESTS_BENCH_PEERS_PEER_H
#define FERRY_TESTS_BENCH_PEERS_PEER_H

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
/* Prints the result, `version` of the broker or library with it; the exit code. */
int peer_end(struct peer_run *r, const char *version);
/* Says what failed; 1, as an exit code. */
int peer_failed(const struct peer_run *r, const char *what, const char *why);

#endif
