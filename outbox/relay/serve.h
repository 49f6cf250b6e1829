/* serve: many outboxes at a time, each lane of each on a thread of its own.
 *
 * Why threads: connecting to a database, its statements, and questions to a broker block, for
 * seconds when something is down, and one that is slow must not hold up the others. They share
 * nothing: each has its own client, source and relay (served.h). What they tell of themselves is a
 * copy under a lock that is held for the copying only, so looking holds up nobody.
 *
 * serve_turn starts the threads of lanes that were found. One thread calls start, turn, stop and
 * end; serve_view and serve_count may be called by any. */
#ifndef FERRY_OUTBOX_RELAY_SERVE_H
#define FERRY_OUTBOX_RELAY_SERVE_H

#include "outbox/relay/relay_urls.h"
#include "outbox/relay/served.h"

#define SERVE_MAX 256u /* Lanes of all outboxes. */

#define SERVE_TALLY_TOPICS_MAX 2048u /* Of all lanes: topics with figures of their own. */

struct serve_view {
    const char *shown; /* The URL for people. Lives as long as `urls` of the start. */
    uint32_t lane;
    struct served_status status;
    struct relay_tally *tally; /* Its topics' figures. Lives until serve_end. */
    int64_t beat_us;           /* When its loop turned last, by the monotonic clock. */
};

struct serve;

/* Borrows `options` and `urls` until serve_end, which is to be called after an error too. Errors:
 * NO_MEMORY, IO (no thread), INVALID_ARGUMENT (relay.lanes). */
MUST_CHECK enum ferry_err serve_start(struct serve **s, const struct relay_options *options,
                                      const struct relay_urls *urls, bool once, struct err_text *e);
void serve_turn(struct serve *s);
bool serve_all_started(struct serve *s); /* Every lane that was found, or can be, has a thread. */
int serve_fd(const struct serve *s);     /* Readable when a state changed; serve_turn drains it. */
size_t serve_count(struct serve *s);     /* Only rises. */
void serve_view(struct serve *s, size_t at, struct serve_view *view);
void serve_stop(struct serve *s);
/* Waits for all threads until the time (monotonic). False: some did not end, and the process has to
 * exit without freeing anything. */
MUST_CHECK bool serve_end(struct serve **s, int64_t until_us);

/* Whether a lane is asked for: "all", or in "0,2,3". */
bool serve_lane_listed(const char *lanes, uint32_t lane);
MUST_CHECK enum ferry_err serve_lanes_check(const char *lanes, struct err_text *e);

#endif
