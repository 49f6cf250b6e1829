/* meta: the metadata group (group 0): topics, producers, sources; the state machine of the
 * cluster's own log.
 *
 * Like a partition it decides only as leader, keeps its tables in memory and in rows, and never
 * sends, reads a clock or commits. What a change means for partitions comes out as work that the
 * shard polls (meta_next_change).
 *
 * Invariants (meta_check):
 *  (1) A group number is given to one partition, ever; a topic id to one topic.
 *  (2) A producer id is given out once, but to a producer of the same name, then with a higher
 *      epoch.
 *  (3) A source's epoch rises with each election, and never two holders have one epoch.
 *  (4) Leases end by the leader's monotonic clock alone; a new leader waits them out.
 *
 * Threads: shard 0's. */
#ifndef FERRY_CLUSTER_META_H
#define FERRY_CLUSTER_META_H

#include "partition/partition.h"
#include "wire/command.h"

#define META_GROUP         0u
#define META_TOPICS_MAX    10000u
#define META_PRODUCERS_MAX 100000u /* Named ones. */
#define META_SOURCES_MAX   10000u
/* Of retention and dedupe windows: as ferryd's options, and small enough to be counted in us. */
#define META_TIME_MAX_MS (36500LL * 24 * 60 * 60 * 1000)
#define META_LOG_KEEP    1000u /* Entries kept behind the rows on disk. */

struct meta;

struct meta_topic {
    char name[NAME_MAX_BYTES + 1];
    struct ferry_id id;
    uint32_t partitions, replicas;
    struct topic_settings settings;
    uint64_t first_group; /* Partition p is group first_group + p. */
};

struct meta_config {
    struct store *store;
    raft_id self;
    struct raft_members initial; /* As in replica_config. */
    uint64_t seed;
};

MUST_CHECK enum ferry_err meta_open(const struct meta_config *config, int64_t now_us,
                                    struct meta **m, struct err_text *e);
void meta_close(struct meta **m); /* No ticket may wait. */
struct replica *meta_replica(struct meta *m);

struct meta_ticket {
    struct ticket base;
    struct buf payload;
    struct ferry_id topic_id;
    uint64_t producer_id;
    uint32_t producer_epoch;
    uint64_t source_epoch;
};
void meta_ticket_init(struct meta_ticket *t);
void meta_ticket_fini(struct meta_ticket *t);
struct meta_ticket *meta_next_done(struct meta *m);

/* ---- Requests; as in partition.h: FERRY_OK means the ticket waits or is answered (index 0). All:
 * NOT_LEADER (another member leads the group), NOT_READY, STORE_FAILED, THROTTLED, NO_MEMORY. */

/* `spec` is complete (no zeroes that mean a default). One that exists with the same settings is
 * answered with its id. Errors: BAD_NAME, INVALID_ARGUMENT, TOPIC_EXISTS, LIMIT_REACHED. */
MUST_CHECK enum ferry_err meta_topic_create(struct meta *m, const struct topic_create_request *spec,
                                            const struct ferry_id *new_id, int64_t now_ms,
                                            int64_t now_us, struct meta_ticket *t,
                                            struct err_text *e);
/* Errors: UNKNOWN_TOPIC. */
MUST_CHECK enum ferry_err meta_topic_delete(struct meta *m, struct bytes name, int64_t now_ms,
                                            int64_t now_us, struct meta_ticket *t);
/* Errors: BAD_NAME, LIMIT_REACHED. */
MUST_CHECK enum ferry_err meta_producer_init(struct meta *m, struct bytes name, int64_t now_ms,
                                             int64_t now_us, struct meta_ticket *t);
/* Renews, grants or refuses. Granted anew (another epoch): the ticket waits for the entry. A
 * holder of the same name takes over at once: its former life is fenced by the epoch. Errors:
 * BAD_NAME (holder), INVALID_ARGUMENT, LIMIT_REACHED. */
MUST_CHECK enum ferry_err meta_source_elect(struct meta *m, const struct source_elect_request *r,
                                            int64_t now_ms, int64_t now_us, struct meta_ticket *t,
                                            bool *granted);
/* The present state for a reply; live until the next request. */
void meta_source_show(const struct meta *m, const struct ferry_id *source, uint32_t lane,
                      int64_t now_us, struct source_elect_reply *reply);
/* Errors: SOURCE_FENCED. */
MUST_CHECK enum ferry_err meta_source_resign(struct meta *m, const struct source_resign_request *r,
                                             int64_t now_us);
MUST_CHECK enum ferry_err meta_source_checkpoint(struct meta *m,
                                                 const struct source_checkpoint_request *r,
                                                 int64_t now_ms, int64_t now_us,
                                                 struct meta_ticket *t);

/* ---- Asking ---- */

const struct meta_topic *meta_topic_find(const struct meta *m, struct bytes name);
/* Topics sorted by name: the i-th, NULL past the end. */
const struct meta_topic *meta_topic_at(const struct meta *m, size_t i);
/* The place of the first name greater than `after`. */
size_t meta_topic_after(const struct meta *m, struct bytes after);

/* ---- Work for the shards ---- */

struct meta_change {
    struct list node;
    bool created; /* Else deleted. */
    struct meta_topic topic;
};
/* The next change, in log order; free with mem_free. NULL when there is none. */
struct meta_change *meta_next_change(struct meta *m);

void meta_check(const struct meta *m);

#endif
