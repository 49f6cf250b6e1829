/* The metadata group's struct, for its own files: meta.c (life, applying, what a leader does by its
 * clock), meta_topics.c, meta_nodes.c, meta_plan.c, meta_moves.c, meta_leases.c (leases),
 * meta_line.c (who waits for them), meta_workers.c, meta_quotas.c, meta_sources.c (producers too),
 * meta_rows.c and meta_load.c (rows on disk). */
#ifndef FERRY_CLUSTER_META_INTERNAL_H
#define FERRY_CLUSTER_META_INTERNAL_H

#include "base/heap.h"
#include "base/map.h"
#include "cluster/meta.h"

/* Values are msgpack arrays; to change one, add at its end. */
enum meta_table {
    META_TABLE_BASE = 1,      /* "" -> [applied, next group, next producer, last time, last token,
                               *        moves done] */
    META_TABLE_TOPICS = 2,    /* name -> [id, partitions, replicas, settings ×3, first group,
                               *          [node id, ...], created index, retention acked] */
    META_TABLE_PRODUCERS = 3, /* name -> [producer id, epoch] */
    META_TABLE_SOURCES = 4,   /* source id, u32 lane -> [epoch, holder, ttl, checkpoint] */
    META_TABLE_NODES = 5,   /* u32 id -> [member, boot, boot id, weight, draining, emptying, shards,
                             *            zone, client endpoints, peer endpoints, member index] */
    META_TABLE_GONE = 6,    /* u64 member -> [] */
    META_TABLE_MOVES = 7,   /* u64 group -> [state, [node id, ...]] */
    META_TABLE_LEASES = 8,  /* name -> [holder, token, ttl] */
    META_TABLE_WORKERS = 9, /* u32 id -> [holder, ttl] */
    META_TABLE_QUOTAS = 10, /* u8 length, client, topic -> [bytes, messages, requests a second] */
};

/* First elements of entries, and what follows. */
enum meta_kind {
    META_TOPIC_CREATE = 1,      /* name, id, partitions, replicas, settings ×3, first group,
                                 * [node id, ...] (not in entries from before there were nodes),
                                 * retention acked */
    META_TOPIC_DELETE = 2,      /* name */
    META_PRODUCER_INIT = 3,     /* name, producer id, epoch */
    META_SOURCE_ELECT = 4,      /* source, lane, epoch, holder, ttl */
    META_SOURCE_CHECKPOINT = 5, /* source, lane, checkpoint */
    META_NODE_REGISTER = 6,  /* id, member, boot, boot id, weight, shards, zone, client endpoints,
                              * peer endpoints */
    META_NODE_SET = 7,       /* id, change kind (UNDRAIN, REMOVE, WEIGHT), weight */
    META_MOVES_ADD = 8,      /* id of the node that drains or 0, [[group, node id, ...], ...] */
    META_MOVES_ACTIVATE = 9, /* [group, ...] */
    META_MOVES_ABORT = 10,   /* nothing */
    META_MOVE_DONE = 11,     /* group, [node id, ...] */
    META_LEASE_GRANT = 12,   /* name, holder, token, ttl: a new holder, or a longer ttl */
    META_LEASE_END = 13,     /* [[name, token], ...] */
    META_WORKER_GRANT = 14,  /* worker id, holder, ttl */
    META_QUOTA_SET = 15,     /* client, topic, bytes, messages, requests; all 0: none */
};

/* A decision that could not be proposed is tried again after this. */
#define META_RETRY_US 50000

struct meta_producer {
    char name[NAME_MAX_BYTES + 1];
    uint64_t id;
    uint32_t epoch; /* Applied. */
    uint32_t proposed_epoch;
    bool dirty;
};

struct meta_source {
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch; /* Applied. */
    uint64_t proposed_epoch;
    uint32_t ttl_ms;
    int64_t lease_until_us; /* Leader only, volatile. */
    uint32_t holder_bytes, checkpoint_bytes;
    bool dirty;
    char holder[NAME_MAX_BYTES];
    uint8_t checkpoint[CHECKPOINT_MAX_BYTES];
};

struct topic_row {
    struct meta_topic topic; /* .placement is `nodes`; all 0: from before there were nodes. */
    bool dirty;
    uint32_t nodes[];
};

struct node_row {
    struct meta_node node; /* Its texts are in `texts`. */
    bool emptying;         /* Drained, and nobody aborted it: moves go on until it is empty. */
    bool dirty;
    char texts[]; /* Client endpoints, NUL, peer endpoints, NUL. */
};

struct gone_row {
    raft_id member;
    bool dirty;
};

struct move_row {
    struct meta_move move;
    bool dirty;
};

struct lease {
    char name[NAME_MAX_BYTES + 1];
    char holder[NAME_MAX_BYTES + 1];
    uint64_t token; /* 0: nobody has it, and it has no row; only somebody waits. */
    uint32_t ttl_ms;
    bool dirty;
    /* Leader only. */
    int64_t until_us;
    uint64_t pending;       /* The last entry about it that is not applied; 0: none. */
    uint64_t pending_token; /* The token it will have then; 0: nobody. */
    int64_t pending_until_us;
    struct list line; /* struct lease_place, first come first. */
    uint32_t waiting; /* Places in it. */
    struct heap_node timer;
};

/* A place in a lease's line. Leader only. */
struct lease_place {
    struct list node;
    struct heap_node timer;
    struct lease *lease;
    struct meta_ticket *ticket; /* NULL: its wait is over, the place is kept for a while. */
    uint32_t ttl_ms;
    char holder[NAME_MAX_BYTES + 1];
};

struct worker {
    char holder[NAME_MAX_BYTES + 1]; /* "": free. */
    uint32_t ttl_ms;
    bool dirty;
    /* Leader only. */
    int64_t until_us;
    uint64_t pending;      /* As in a lease. */
    uint64_t pending_hash; /* Of the holder to be. */
    int64_t pending_until_us;
};

struct quota_row {
    struct meta_quota quota;
    bool dirty;
};

/* A row to be deleted with the next flush, before others are written. */
struct dead_row {
    struct list node;
    enum meta_table table;
    size_t key_bytes;
    uint8_t key[];
};

struct meta {
    struct meta_config config;
    struct replica *replica;
    struct ticket_queue tickets;
    struct list changes;
    struct list dead_rows;
    int64_t last_time_ms;     /* Of what is applied. */
    int64_t proposed_time_ms; /* The greatest proposed here; it may never be applied. */

    struct topic_row **topics; /* Sorted by name. */
    struct topic_row **groups; /* The same, sorted by first group. */
    size_t topic_count, topic_capacity, group_capacity;
    struct map producers; /* By name. */
    struct map sources;   /* By source and lane. */
    uint64_t next_group, proposed_next_group;
    uint64_t next_producer, proposed_next_producer;

    struct node_row *nodes[META_NODES_MAX]; /* Sorted by id. */
    size_t node_count;
    struct gone_row *gone; /* Sorted by member. */
    size_t gone_count, gone_capacity;
    struct move_row *moves; /* Sorted by group. */
    size_t move_count, move_capacity;
    uint64_t moves_done;

    struct lease **leases; /* Sorted by name. */
    size_t lease_count, lease_capacity;
    uint64_t last_token, proposed_token;
    struct worker workers[META_WORKERS];
    struct quota_row *quotas; /* Sorted by client, then topic. */
    size_t quota_count, quota_capacity;

    /* While an entry is applied: its index, who waits for it or NULL, and why nothing changes. */
    uint64_t applying;
    struct meta_ticket *asker;
    enum ferry_err refusal;

    /* Leader only. */
    bool must_wait_out;     /* Just became leader: clocks of leases start with the next call. */
    uint32_t places;        /* In all lines. */
    struct list confirming; /* Tickets of renewals that wait for their read, in order. */
    struct heap lease_timers, place_timers;
    struct buf decision; /* The payload of the one entry that meta_tick proposed itself, */
    uint64_t decided;    /*   and its index; 0: none is on the way. */
    bool must_look;      /* Moves or nodes have changed since meta_tick looked at them, */
    int64_t look_us;     /*   and not before this. */
};

/* ---- meta.c ---- */

/* Proposes the ticket's payload; the ticket waits then. Errors: as of requests. */
MUST_CHECK enum ferry_err meta_propose(struct meta *m, struct meta_ticket *t, int64_t now_ms,
                                       int64_t now_us);
/* The payload of a decision of the leader's own: NULL while one is on the way. */
struct buf *meta_decision(struct meta *m);
/* Proposes it. False: not now. */
bool meta_decide(struct meta *m, int64_t now_ms, int64_t now_us);
/* In apply: the ticket gets this answer, if there is one. Always FERRY_OK. */
enum ferry_err meta_refuse(struct meta *m, enum ferry_err err);
MUST_CHECK enum ferry_err meta_push_change(struct meta *m, enum meta_change_kind kind,
                                           const struct meta_topic *topic, uint64_t group,
                                           uint32_t node_id);
MUST_CHECK enum ferry_err meta_kill_row(struct meta *m, enum meta_table table, struct bytes key);
/* Answers a ticket that waits for no entry. */
void meta_answer(struct meta *m, struct meta_ticket *t, enum ferry_err err);

/* Texts of entries and rows have no NUL; here they get one. `to` has room for it. */
static inline void meta_take_text(char *to, struct bytes text)
{
    if (text.size > 0) {
        memcpy(to, text.data, text.size);
    }
    to[text.size] = '\0';
}
struct node_texts {
    char client[META_ENDPOINTS_MAX_BYTES + 1];
    char peer[META_ENDPOINTS_MAX_BYTES + 1];
};

/* The arithmetic of all leases. */
static inline int64_t meta_until_us(int64_t now_us, uint32_t ttl_ms)
{
    return now_us + (int64_t)ttl_ms * 1000;
}
static inline uint32_t meta_left_ms(int64_t until_us, int64_t now_us)
{
    return until_us > now_us ? (uint32_t)((until_us - now_us) / 1000 + 1) : 0;
}
static inline bool meta_ttl_is_valid(uint32_t ttl_ms)
{
    return ttl_ms >= META_LEASE_MIN_MS && ttl_ms <= META_LEASE_MAX_MS;
}
/* Whoever held a lease may still believe so: waits it out, once after becoming leader (invariant
 * 4). Called first by all that look at a lease's clock. */
void meta_wait_out(struct meta *m, int64_t now_us);

/* ---- meta_sources.c ---- */

struct unpack;
struct meta_producer *meta_producer_find(const struct meta *m, struct bytes name);
enum ferry_err meta_producer_reserve(struct meta *m, struct bytes name, struct meta_producer **p);
struct meta_source *meta_source_find(const struct meta *m, const struct ferry_id *source,
                                     uint32_t lane);
enum ferry_err meta_source_reserve(struct meta *m, const struct ferry_id *source, uint32_t lane,
                                   struct meta_source **s);
void meta_source_set_holder(struct meta_source *s, struct bytes holder);
void meta_sources_wait_out(struct meta *m, int64_t now_us);
enum ferry_err meta_apply_producer(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_elect(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_checkpoint(struct meta *m, struct unpack *u);

/* ---- meta_topics.c ---- */

/* A row with a copy of the topic; the placement is copied when there is one, else zero. */
struct topic_row *meta_topic_row_new(const struct meta_topic *topic);
/* Takes the row on success. */
MUST_CHECK enum ferry_err meta_topic_add(struct meta *m, struct topic_row **row);
struct topic_row *meta_topic_row_of(const struct meta *m, uint64_t group, uint32_t *partition);
void meta_topics_free(struct meta *m);
/* True when some topic's placement names the node. */
bool meta_topics_name(const struct meta *m, uint32_t node);
enum ferry_err meta_apply_create(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_delete(struct meta *m, struct unpack *u);

/* ---- meta_nodes.c ---- */

struct node_row *meta_node_row_new(const struct meta_node *node);
void meta_node_insert(struct meta *m, struct node_row *row); /* Takes it; there is room. */
struct node_row *meta_node_row(const struct meta *m, uint32_t id);
MUST_CHECK enum ferry_err meta_gone_add(struct meta *m, raft_id member, bool dirty);
void meta_nodes_free(struct meta *m);
/* What the planner wants to know; `nodes` has META_NODES_MAX places. Returns how many. */
size_t meta_plan_nodes(const struct meta *m, struct plan_node *nodes);
bool meta_ids_are_nodes(const struct meta *m, const uint32_t *ids, size_t count);
enum ferry_err meta_apply_register(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_node_set(struct meta *m, struct unpack *u);

/* ---- meta_plan.c ---- */

/* What empties the nodes that may hold nothing, `draining` (0: none) among them. */
MUST_CHECK enum ferry_err meta_plan_emptying(const struct meta *m, uint32_t draining,
                                             struct plan *plan);

/* ---- meta_moves.c ---- */

struct move_row *meta_move_row(const struct meta *m, uint64_t group);
MUST_CHECK enum ferry_err meta_move_insert(struct meta *m, const struct move_row *row);
/* Drops the moves of a deleted topic's groups. */
MUST_CHECK enum ferry_err meta_moves_forget(struct meta *m, uint64_t first_group, uint32_t count);
/* UNDRAIN: moves that take replicas off the node. */
MUST_CHECK enum ferry_err meta_moves_undrain(struct meta *m, uint32_t node);
bool meta_moves_name(const struct meta *m, uint32_t node);
MUST_CHECK enum ferry_err meta_drain(struct meta *m, struct node_row *row, int64_t now_ms,
                                     int64_t now_us, struct meta_ticket *t, struct err_text *e);
void meta_moves_tick(struct meta *m, int64_t now_ms, int64_t now_us);
void meta_moves_check(const struct meta *m);
enum ferry_err meta_apply_moves_add(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_activate(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_abort(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_move_done(struct meta *m, struct unpack *u);

/* ---- meta_leases.c, meta_line.c, meta_workers.c ---- */

struct lease *meta_lease_row(const struct meta *m, struct bytes name);
/* Finds it or makes one that nobody has. */
MUST_CHECK enum ferry_err meta_lease_reserve(struct meta *m, struct bytes name, struct lease **l);
void meta_leases_free(struct meta *m);
void meta_leases_wait_out(struct meta *m, int64_t now_us);
void meta_leases_resign(struct meta *m); /* No longer leader: everybody who waits is answered. */
void meta_leases_tick(struct meta *m, int64_t now_ms, int64_t now_us);
int64_t meta_leases_deadline_us(const struct meta *m);
void meta_leases_check(const struct meta *m);
/* Is it to be given away now? */
bool meta_lease_is_free(const struct lease *l, int64_t now_us);
/* Sets when meta_tick looks at it next. */
void meta_lease_schedule(struct meta *m, struct lease *l, int64_t not_before_us);
/* Frees one that nobody has, awaits, or is about to get. */
void meta_lease_drop_if_empty(struct meta *m, struct lease *l);
MUST_CHECK enum ferry_err meta_lease_propose_grant(struct meta *m, struct lease *l,
                                                   struct bytes holder, uint32_t ttl_ms,
                                                   struct meta_ticket *t, int64_t now_ms,
                                                   int64_t now_us);
enum ferry_err meta_apply_lease_grant(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_lease_end(struct meta *m, struct unpack *u);

/* The first in line whose ticket waits; NULL. */
struct lease_place *meta_line_first(const struct lease *l);
/* Of the present holder itself: its answer to an acquire was lost. NULL. */
struct lease_place *meta_line_find(const struct lease *l, struct bytes holder);
MUST_CHECK enum ferry_err meta_line_join(struct meta *m, struct lease *l, struct bytes holder,
                                         uint32_t ttl_ms, uint32_t wait_ms, int64_t now_us,
                                         struct meta_ticket *t);
/* The place is over; its ticket is somebody else's now. */
void meta_line_leave(struct meta *m, struct lease_place *p);
void meta_line_tick(struct meta *m, int64_t now_us);
void meta_line_answer_all(struct meta *m, struct lease *l, enum ferry_err err);

/* A renewal that only has to be confirmed by a quorum: `name` is the lease's or the worker's
 * holder. */
enum meta_confirm { META_CONFIRM_LEASE = 1, META_CONFIRM_WORKER = 2 };
MUST_CHECK enum ferry_err meta_confirm_ask(struct meta *m, struct meta_ticket *t,
                                           enum meta_confirm what, struct bytes name,
                                           uint32_t ttl_ms, int64_t now_us);
void meta_confirm_tick(struct meta *m);

struct worker *meta_worker_of(struct meta *m, struct bytes holder);
void meta_worker_set(struct worker *w, struct bytes holder, uint32_t ttl_ms);
void meta_workers_wait_out(struct meta *m, int64_t now_us);
void meta_workers_resign(struct meta *m);
enum ferry_err meta_apply_worker(struct meta *m, struct unpack *u);

/* ---- meta_quotas.c ---- */

#define META_QUOTA_KEY_MAX_BYTES (1 + 2 * NAME_MAX_BYTES)
/* Errors: LIMIT_REACHED, NO_MEMORY. */
MUST_CHECK enum ferry_err meta_quota_put(struct meta *m, const struct quota *q, bool dirty);
void meta_quota_key(const struct meta_quota *q, struct buf *key); /* Begins the buffer. */
bool meta_quota_of_key(struct bytes key, struct quota *q);
void meta_quotas_free(struct meta *m);
void meta_quotas_check(const struct meta *m);
enum ferry_err meta_apply_quota(struct meta *m, struct unpack *u);

/* ---- meta_rows.c, meta_load.c ---- */

enum ferry_err meta_rows_flush(struct meta *m, struct store *store);
/* Fills the empty tables; *applied is what they stand for. A view is open. */
enum ferry_err meta_rows_load(struct meta *m, struct store *store, uint64_t *applied);

#endif
