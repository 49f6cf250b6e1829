/* meta: the metadata group (group 0): nodes, topics and their placement, moves, producers, sources,
 * leases, worker ids, quotas; the state machine of the cluster's own log.
 *
 * Like a partition it decides only as leader, keeps its tables in memory and in rows, and never
 * sends, reads a clock or commits. What a change means for partitions comes out as work that the
 * shard polls (meta_next_change). Every node of the cluster applies the same entries, as voter or
 * as learner, so every node can answer the questions; the answers of a follower may be old.
 *
 * Invariants (meta_check):
 *  (1) A group number is given to one partition, ever; a topic id to one topic.
 *  (2) A producer id is given out once, but to a producer of the same name, then with a higher
 *      epoch.
 *  (3) A source's epoch rises with each election, and never two holders have one epoch.
 *  (4) Leases end by the leader's monotonic clock alone; a new leader waits them out.
 *  (5) Rows are complete: a copy of them is the whole state as of the index in the base row. Only
 *      what is a leader's alone (clocks of leases, lines of waiters) is outside.
 *  (6) A member (one life of a node's folder) that was replaced or removed never comes back.
 *  (7) A node named by a placement or a move is registered. Each topic's placement names distinct
 *      nodes, `replicas` for each partition.
 *  (8) A move's `from` is the placement in force, until it is done. At most one move a group.
 *  (9) Tokens of leases come from one counter that only rises: of two holders of a name the later
 *      has the higher, also when the name was forgotten in between.
 * (10) A worker id has one holder.
 * (11) A client and a topic have one quota; both are texts without control characters.
 *
 * How a command is decided: the request looks at the applied state, so most errors come at once.
 * The entry is checked again when it is applied, the same on every node, because others may have
 * come before it; then the ticket is answered with the error, and nothing has changed.
 *
 * Moves: PLANNED (meta_apply_plan, meta_node_change(DRAIN)) -> ACTIVE (meta_tick, while neither
 * node that gives nor node that takes has META_ACTIVE_MOVES_NODE already) -> gone, and the
 * placement is the target (meta_move_done). meta_abort_moves: PLANNED -> gone; ACTIVE -> REVERTING
 * -> gone, and the placement is what it was (meta_move_done).
 *
 * Leases: free -> held (an entry, with a new token) -> free (released by an entry; or run out by
 * the leader's clock, forgotten by an entry META_LEASE_LINGER_MS later, and until then it can still
 * be renewed when nobody else got it). Renewing is not logged; but it is answered only after the
 * leader has asked a quorum whether it still leads, so a new leader's waiting covers it.
 *
 * Threads: shard 0's. */
#ifndef FERRY_CLUSTER_META_H
#define FERRY_CLUSTER_META_H

#include "cluster/plan.h"
#include "partition/partition.h"
#include "wire/command.h"

#define META_GROUP         0u
#define META_TOPICS_MAX    10000u
#define META_PRODUCERS_MAX 100000u /* Named ones. */
#define META_SOURCES_MAX   10000u
/* Every node is a member of group 0: one voter at least, and the learners that Raft allows. */
#define META_NODES_MAX           64u
#define META_NODE_ID_MAX         65535u
#define META_SHARDS_MAX          64u    /* Of a node. */
#define META_GONE_MAX            65536u /* Members that were replaced or removed. */
#define META_ENDPOINTS_MAX_BYTES 8192u  /* Of a node's shards, joined. */
#define META_MOVES_MAX           PLAN_STEPS_MAX
#define META_ACTIVE_MOVES_NODE   2u /* Active or reverting ones that fill or empty one node. */
#define META_LEASES_MAX          10000u
#define META_LEASE_WAITERS_MAX   4096u /* In all lines together. */
#define META_LEASE_MIN_MS        100u
#define META_LEASE_MAX_MS        (60u * 60u * 1000u)
#define META_LEASE_WAIT_MAX_MS   60000u /* Longer waits are cut to it. */
#define META_LEASE_LINGER_MS     60000
/* How long a place in line is kept for a holder whose wait is over, so that it may ask again. */
#define META_LEASE_PLACE_MS 5000
#define META_WORKERS        1024u
/* Of retention and dedupe windows: as ferryd's options, and small enough to be counted in us. */
#define META_TIME_MAX_MS (36500LL * 24 * 60 * 60 * 1000)
#define META_LOG_KEEP    1000u /* Entries kept behind the rows on disk. */

struct meta;

struct meta_config {
    struct store *store;
    raft_id self;
    struct raft_members initial; /* As replica_config. */
    uint64_t seed;
    int64_t election_min_us, election_max_us, heartbeat_us; /* As replica_config. */
};

MUST_CHECK enum ferry_err meta_open(const struct meta_config *config, int64_t now_us,
                                    struct meta **m, struct err_text *e);
void meta_close(struct meta **m); /* No ticket may wait. */
struct replica *meta_replica(struct meta *m);

struct meta_ticket {
    struct ticket base;
    bool waits; /* It will come out of meta_next_done; else it is answered already. */
    struct buf payload;
    struct ferry_id topic_id;
    uint64_t producer_id;
    uint32_t producer_epoch;
    uint64_t source_epoch;
    uint32_t moves;              /* meta_apply_plan, DRAIN: logged as planned. */
    uint32_t dropped, reverting; /* meta_abort_moves. */
    uint64_t token;              /* meta_lease_acquire, _renew. */
    uint32_t worker_id;
    /* Private: a renewal that waits to be confirmed. */
    uint32_t confirms;
    uint64_t read_number;
    int64_t asked_us;
    uint32_t ttl_ms;
};
void meta_ticket_init(struct meta_ticket *t);
void meta_ticket_fini(struct meta_ticket *t);
struct meta_ticket *meta_next_done(struct meta *m);

/* What only a leader does, by its clock: activates planned moves, goes on emptying a node, answers
 * waiters, forgets leases. Call in each turn after replica_stored, and when the deadline has come.
 * It may propose. */
void meta_tick(struct meta *m, int64_t now_ms, int64_t now_us);
int64_t meta_deadline_us(const struct meta *m); /* RAFT_NEVER: none. */

/* ---- Requests; as in partition.h: FERRY_OK means the ticket waits (t->waits) or is answered. All:
 * NOT_LEADER (also as the ticket's answer), NOT_READY, STORE_FAILED, THROTTLED, NO_MEMORY. Text and
 * bytes are borrowed for the call. */

/* `spec` is complete (no zeroes that mean a default), but for replicas: 0 is 3, or as many as there
 * are usable nodes. One that exists with the same settings is answered with its id. Errors:
 * BAD_NAME, INVALID_ARGUMENT, TOPIC_EXISTS, LIMIT_REACHED; answers: NOT_READY (a node of the
 * placement was removed meanwhile: again). */
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

/* ---- Nodes ---- */

struct meta_node {
    uint32_t id;      /* 1..META_NODE_ID_MAX. */
    raft_id member;   /* This life of its folder, (incarnation << 32) | id. */
    uint64_t boot;    /* Starts of this folder, counted in it. */
    uint64_t boot_id; /* Random, new with each start: the same start may register again. */
    uint32_t weight;  /* 0..RING_WEIGHT_MAX; of a known node meta_node_change's counts. */
    bool draining;    /* meta_node_register does not look at it. */
    uint32_t shards;
    uint64_t member_index; /* The entry by which this member came; set by applying it. */
    char zone[RING_ZONE_BYTES];
    const char *client_endpoints; /* Of its shards, shard 0 first, joined by ' '. */
    const char *peer_endpoints;
};
/* The endpoint of one shard; empty when there is no such shard. */
struct bytes meta_endpoint(const char *joined, uint32_t shard);

/* Adds a node, or changes a known one: asked by each node when it starts. The same member: `boot`
 * must be greater than the one known, or be the same start (boot and boot_id equal: what else
 * changed is taken in, nothing else happens when nothing did). Another member for a known node id:
 * the old life is gone for ever (a wiped folder). Errors, also as the ticket's answer: OLD_FOLDER,
 * NODE_REPLACED, INVALID_ARGUMENT, LIMIT_REACHED. */
MUST_CHECK enum ferry_err meta_node_register(struct meta *m, const struct meta_node *node,
                                             int64_t now_ms, int64_t now_us, struct meta_ticket *t,
                                             struct err_text *e);

enum meta_node_change_kind {
    META_NODE_DRAIN =
        1, /* Marks it, and moves off what it holds (moves run: when they are done). */
    META_NODE_UNDRAIN = 2, /* Unmarks it; moves that empty it are dropped or go back. */
    META_NODE_REMOVE = 3,  /* NODE_NOT_EMPTY while a placement or a move names it. */
    META_NODE_WEIGHT = 4,  /* Takes effect with the next plan. */
};
/* Errors, also as answers: UNKNOWN_NODE, NODE_NOT_EMPTY (REMOVE), INVALID_ARGUMENT (a weight past
 * RING_WEIGHT_MAX; a drain that would leave too few nodes for a topic's replicas; the last node).
 */
MUST_CHECK enum ferry_err meta_node_change(struct meta *m, uint32_t id,
                                           enum meta_node_change_kind kind, uint32_t weight,
                                           int64_t now_ms, int64_t now_us, struct meta_ticket *t,
                                           struct err_text *e);

size_t meta_node_count(const struct meta *m);
/* Sorted by id: the i-th, NULL past the end. What they return lives until the next apply. */
const struct meta_node *meta_node_at(const struct meta *m, size_t i);
const struct meta_node *meta_node_find(const struct meta *m, uint32_t id);
/* NULL: not registered (yet, or no longer). */
const struct meta_node *meta_node_of_member(const struct meta *m, raft_id member);
/* True when this member was replaced or removed: nothing it says counts. */
bool meta_member_is_gone(const struct meta *m, raft_id member);
/* counts[i]: replicas placed on meta_node_at(i). One pass over all topics. */
void meta_count_replicas(const struct meta *m, uint32_t counts[META_NODES_MAX]);
/* A node's part of what is placed anew. */
uint32_t meta_ring_permille(const struct meta *m, uint32_t id);
/* The members that group 0 should have (plan_members over the nodes, and those in force that have
 * not registered yet). Its leader configures them when they differ from those in force. */
void meta_wanted_members(const struct meta *m, struct raft_members *members);

/* ---- Topics and placement ---- */

struct meta_topic {
    char name[NAME_MAX_BYTES + 1];
    struct ferry_id id;
    uint32_t partitions, replicas;
    struct topic_settings settings;
    uint64_t first_group; /* Partition p is group first_group + p. */
    /* The entry that made it; 0: not known, from before there were nodes. A node whose member came
     * later is no founder of its groups. */
    uint64_t created_index;
    /* Partition p is on placement[p * replicas ..]: node ids, preferred leader first. In force: a
     * move changes it when it is done. Owned, and behind the struct. Never NULL. A topic from
     * before there were nodes is on the first that registered. */
    uint32_t *placement;
};

const struct meta_topic *meta_topic_find(const struct meta *m, struct bytes name);
/* Topics sorted by name: the i-th, NULL past the end. */
const struct meta_topic *meta_topic_at(const struct meta *m, size_t i);
/* The place of the first name greater than `after`. */
size_t meta_topic_after(const struct meta *m, struct bytes after);
/* The topic of a partition's group, and which partition it is; NULL when there is none. */
const struct meta_topic *meta_topic_of_group(const struct meta *m, uint64_t group,
                                             uint32_t *partition);

/* All three fill node ids and return how many; 0: no such group. */
/* In force: what the group is on, or moves from; preferred leader first. */
uint32_t meta_placement(const struct meta *m, uint64_t group, uint32_t nodes[RING_REPLICAS_MAX]);
/* What the group's members should be: the target of an active move, else the placement. */
uint32_t meta_target(const struct meta *m, uint64_t group, uint32_t nodes[RING_REPLICAS_MAX]);
/* Who keeps a replica open: the placement, and the target of an active or reverting move. */
uint32_t meta_holders(const struct meta *m, uint64_t group, uint32_t nodes[2 * RING_REPLICAS_MAX]);
bool meta_holds(const struct meta *m, uint64_t group, uint32_t node);

/* ---- Moves ---- */

enum meta_move_state { META_MOVE_PLANNED = 1, META_MOVE_ACTIVE = 2, META_MOVE_REVERTING = 3 };

struct meta_move {
    enum meta_move_state state;
    struct plan_step step; /* group, from, to. */
};

/* What an apply would do now; moves that run count as done. Any node may ask; `plan` is initialised
 * and empty. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err meta_plan(const struct meta *m, struct plan *plan);
/* Errors, also as answers: PLAN_CHANGED (the plan is another one now), MOVES_RUNNING. */
MUST_CHECK enum ferry_err meta_apply_plan(struct meta *m, uint64_t plan_id, int64_t now_ms,
                                          int64_t now_us, struct meta_ticket *t);
/* Also ends the emptying of nodes; they stay marked as draining. No moves: answered at once. */
MUST_CHECK enum ferry_err meta_abort_moves(struct meta *m, int64_t now_ms, int64_t now_us,
                                           struct meta_ticket *t);
/* The group's leader reports that its members are on `nodes` now, and all of them caught up. When
 * that is the target of its active or reverting move, it is done; else nothing happens (a late
 * report of an order that was changed, or a repeated one). */
MUST_CHECK enum ferry_err meta_move_done(struct meta *m, uint64_t group, const uint32_t *nodes,
                                         uint32_t count, int64_t now_ms, int64_t now_us,
                                         struct meta_ticket *t);
size_t meta_move_count(const struct meta *m);
/* Sorted by group: the i-th, NULL past the end. */
const struct meta_move *meta_move_at(const struct meta *m, size_t i);
const struct meta_move *meta_move_of(const struct meta *m, uint64_t group);
/* The place of the first group greater than `after`. */
size_t meta_move_after(const struct meta *m, uint64_t after);
uint64_t meta_moves_done(const struct meta *m); /* Since the last apply or drain. */

/* ---- Leases ---- */

struct meta_lease_view {
    struct bytes name, holder; /* Live until the next request, apply or tick. */
    uint64_t token;
    uint32_t ttl_ms, left_ms;
    uint32_t waiting; /* Places in line. */
};

/* Free: the ticket waits for the entry, then t->token is the new token. The present holder asking
 * again gets a new token at once (its former life is fenced). Held by another: wait_ms > 0 puts it
 * in line (once: a holder that asks again keeps its place, the ticket before is answered
 * LEASE_HELD), and it is answered OK with the token when its turn comes, LEASE_HELD when the wait
 * is over; wait_ms 0: LEASE_HELD. Then meta_lease_find shows the holder. Errors: LEASE_HELD,
 * BAD_NAME (name, holder), INVALID_ARGUMENT (ttl), LIMIT_REACHED (leases, places in line). */
MUST_CHECK enum ferry_err meta_lease_acquire(struct meta *m, struct bytes name, struct bytes holder,
                                             uint32_t ttl_ms, uint32_t wait_ms, int64_t now_ms,
                                             int64_t now_us, struct meta_ticket *t);
/* Errors, also as answers: LEASE_LOST (another token or holder, or forgotten), INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err meta_lease_renew(struct meta *m, struct bytes name, struct bytes holder,
                                           uint64_t token, uint32_t ttl_ms, int64_t now_ms,
                                           int64_t now_us, struct meta_ticket *t);
/* The next in line has it then. Errors: LEASE_LOST. */
MUST_CHECK enum ferry_err meta_lease_release(struct meta *m, struct bytes name, struct bytes holder,
                                             uint64_t token, int64_t now_ms, int64_t now_us,
                                             struct meta_ticket *t);
/* False: nobody holds it. left_ms and waiting are known to the leader alone. */
bool meta_lease_find(const struct meta *m, struct bytes name, int64_t now_us,
                     struct meta_lease_view *view);
/* The first held lease with a greater name, for lists; false at the end. */
bool meta_lease_after(const struct meta *m, struct bytes after, int64_t now_us,
                      struct meta_lease_view *view);

/* A worker id (0..META_WORKERS - 1) that nobody else has for `ttl_ms`: the holder's own, renewed,
 * or a free one; t->worker_id. Errors: BAD_NAME, INVALID_ARGUMENT, LIMIT_REACHED (all are taken).
 */
MUST_CHECK enum ferry_err meta_worker_id(struct meta *m, struct bytes holder, uint32_t ttl_ms,
                                         int64_t now_ms, int64_t now_us, struct meta_ticket *t);

/* ---- Quotas ---- */

struct meta_quota {
    char client[NAME_MAX_BYTES + 1]; /* "": any. */
    char topic[NAME_MAX_BYTES + 1];
    uint64_t bytes_per_second, messages_per_second, requests_per_second;
};

/* All limits 0: the row goes. Errors, also as answers: LIMIT_REACHED; BAD_NAME. */
MUST_CHECK enum ferry_err meta_quota_set(struct meta *m, const struct quota *q, int64_t now_ms,
                                         int64_t now_us, struct meta_ticket *t, struct err_text *e);
/* Sorted by client, then topic: the i-th, NULL past the end; live until the next apply. */
const struct meta_quota *meta_quota_at(const struct meta *m, size_t i);
/* The place of the first one behind these. */
size_t meta_quota_after(const struct meta *m, struct bytes client, struct bytes topic);

/* ---- Work for the shards ---- */

enum meta_change_kind {
    META_TOPIC_CREATED = 1,
    META_TOPIC_DELETED = 2,
    META_PLACEMENT_CHANGED = 3, /* `group`: a move was activated, reverts, or is done. */
    META_NODE_CHANGED = 4,      /* `node_id`: came, changed, has another member, or is gone. */
    META_ALL_CHANGED = 5,       /* A snapshot was installed: compare everything with the tables. */
    META_QUOTAS_CHANGED = 6,
};
struct meta_change {
    struct list node;
    enum meta_change_kind kind;
    uint64_t group;
    uint32_t node_id;
    struct meta_topic topic; /* TOPIC_*: a copy, its placement too. */
};
/* The next change, in log order; free with mem_free. NULL when there is none. */
struct meta_change *meta_next_change(struct meta *m);

void meta_check(const struct meta *m);

#endif
