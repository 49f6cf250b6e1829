/* broker: a node: its shards, from start to stop. What ferryd and the embedded mode share.
 *
 * Threads: start, wait and stop on one thread; the shards run on their own. */
#ifndef FERRY_SERVER_BROKER_H
#define FERRY_SERVER_BROKER_H

#include "net/net.h"
#include "server/options.h"

struct broker;

/* Starts; it is ready a little later, or in a cluster when enough of the others are there
 * (shard.h). `options` is copied. Errors: of opening data folders and endpoints, with a detail. */
MUST_CHECK enum ferry_err broker_open(const struct broker_options *options, struct broker **b,
                                      struct err_text *e);
bool broker_is_ready(const struct broker *b);
/* Starts and returns when it is ready. Errors: also those of broker_failure. */
MUST_CHECK enum ferry_err broker_start(const struct broker_options *options, struct broker **b,
                                       struct err_text *e);
/* FERRY_OK while it works. */
enum ferry_err broker_failure(const struct broker *b);
/* Partitions that could not be opened at the start: damaged ones. The log says which and why. */
uint32_t broker_unserved(const struct broker *b);
const char *broker_endpoint(const struct broker *b);
struct ferry_context *broker_context(const struct broker *b);
const char *broker_peer_endpoint(const struct broker *b); /* "": no cluster. */
/* In a cluster it first hands its leaderships to others, for at most two seconds. */
void broker_stop(struct broker **b);
/* Without that: as near to a crash as a thread may come. For tests. */
void broker_abandon(struct broker **b);

#endif
