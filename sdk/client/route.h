/* route: whom to ask. The endpoints that may be talked to, hints, and brokers that fell silent.
 *
 * The io thread's alone. Invariants: (1) a client connects only to endpoints that it was configured
 * with or that METADATA named (the book): a broker's hint names one of these or is not followed, so
 * that no broker can send a client anywhere; (2) what is asked of anybody goes to shards 0, and not
 * to a suspect while there is another.
 *
 * A connection is suspect when requests are out, nothing comes, and the HELLO that asks whether
 * anybody is there is not answered either (connection.h). That is no proof: nothing is taken as
 * lost by it. But it is when a dead leader's successor is asked for, long before any request times
 * out: metadata is asked from others, again and again with short pauses, until it names a leader
 * that answers; then what was sent to the old one is withdrawn and sent to the new one, in order.
 */
#ifndef FERRY_CLIENT_ROUTE_H
#define FERRY_CLIENT_ROUTE_H

#include "base/bytes.h"
#include "base/err.h"
#include "wire/command.h"

/* So many short pauses while a leader is unknown (an election takes a second, or three), then the
 * back-off grows as everywhere. */
#define ROUTE_SHORT_PAUSES 50u
/* So many hints in a row are followed at once; brokers that point at each other end there. */
#define ROUTE_HOPS_MAX 3u

struct ferry_client;
struct connection;
struct metadata_reply;

struct book_entry {
    uint32_t node_id;
    uint32_t shard;
    uint32_t endpoint_bytes;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
};
/* The endpoints that the last METADATA reply named. */
struct book {
    uint32_t count;
    struct book_entry entries[ENDPOINTS_MAX];
};

void route_init(struct ferry_client *c);
void route_fini(struct ferry_client *c);
void route_learn(struct ferry_client *c, const struct metadata_reply *m); /* And the controller. */
/* The connection to the endpoint, if it is one of the cluster's; NULL otherwise, and for a suspect.
 */
struct connection *route_hint(struct ferry_client *c, struct bytes endpoint);
/* The node that it leads to, by the last METADATA reply; 0: not known. */
uint32_t route_node_of(const struct ferry_client *c, const struct connection *k);
/* Asks anybody for the endpoints of the cluster, unless that is being asked. */
void route_refresh(struct ferry_client *c);
/* A connection for a question that every shard 0 can answer; NULL when none can be made. After a
 * failure (`attempts` > 0) another one than before, in turn. */
struct connection *route_any(struct ferry_client *c, unsigned attempts);
/* Whether anybody but `k` can be asked. */
bool route_has_other(struct ferry_client *c, const struct connection *k);
/* The pause before try `attempts` (from 1) while it is not known who leads: two fifths to twice
 * retry.backoff_ms (20 to 100 ms by default). */
int64_t route_pause_us(struct ferry_client *c, unsigned attempts);
/* `k` has become suspect: whoever waits for it looks elsewhere. */
void route_suspect(struct ferry_client *c, struct connection *k);

#endif
