/* shard: one thread with its own store, socket and timers, and the partitions that live on it.
 *
 * The turn, always in this order:
 *   1. receive what has arrived (up to turn_bytes), decode, let partitions propose
 *   2. mail from other shards; timers that are due
 *   3. one store transaction for all partitions touched; its commit is the group commit
 *   4. apply what became committed; answer
 * Nothing that claims durability leaves before the commit of its turn returned.
 *
 * Invariants: (1) a partition is on one shard: group % shards; (2) a request is answered exactly
 * once, or its peer is gone; (3) when the store fails, nothing is acknowledged any more and the
 * shard says so (shard_failure).
 *
 * Threads: shard_new and shard_free on the broker's; all else on the shard's own; shard_stop and
 * shard_is_ready from any. */
#ifndef FERRY_SERVER_SHARD_H
#define FERRY_SERVER_SHARD_H

#include "net/net.h"
#include "server/mailbox.h"
#include "server/options.h"

struct shard;

struct shard_config {
    const struct broker_options *options;
    struct ferry_context *context;
    uint32_t index;
    struct ferry_id cluster_id; /* Zero for shard 0: taken from the folder. */
    uint64_t seed;
};

/* Opens the store and binds. Errors: of store_open and net_server_open, with a detail. */
MUST_CHECK enum ferry_err shard_new(const struct shard_config *config, struct shard **s,
                                    struct err_text *e);
void shard_free(struct shard **s);
/* The other shards, once all are made: peers[i] is shard i. */
void shard_connect(struct shard *s, struct shard *const *peers, uint32_t count);
MUST_CHECK enum ferry_err shard_start(struct shard *s);
void shard_stop(struct shard *s); /* Asks; shard_join waits. */
/* What the thread does, for who has none (the simulator): one turn, and how long the next may wait
 * when nothing arrives. Never together with shard_start. */
void shard_turn(struct shard *s);
int shard_wait_ms(const struct shard *s);
void shard_join(struct shard *s);

/* Shard 0: every partition is open and led. */
bool shard_is_ready(const struct shard *s);
/* Shard 0: how many of them could not be opened; the log says why. */
uint32_t shard_unserved(const struct shard *s);
/* FERRY_OK while it works; then what ended it. */
enum ferry_err shard_failure(const struct shard *s);
struct ferry_id shard_cluster_id(const struct shard *s);
const char *shard_endpoint(const struct shard *s); /* As clients are told. */

#endif
