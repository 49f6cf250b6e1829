/* The shard's struct, for its own files: shard.c (life, loop, writing), shard_requests.c (dispatch,
 * requests to partitions), shard_fetch.c (fetch and long poll), shard_admin.c (metadata commands,
 * mail), shard_drop.c (deleting what no topic owns), shard_status.c. */
#ifndef FERRY_SERVER_SHARD_INTERNAL_H
#define FERRY_SERVER_SHARD_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/heap.h"
#include "base/id.h"
#include "base/map.h"
#include "cluster/meta.h"
#include "server/shard.h"
#include "wire/command.h"
#include "wire/frame.h"

#define REQUEST_POOL_MAX 1024u
/* A batch may hold one message of the greatest size and what surrounds it. */
#define BATCH_ROOM_BYTES (64u << 10)

/* A replica's seat in the shard: a partition's, or the metadata group's. */
struct seat {
    uint64_t group;
    struct replica *replica;     /* NULL: it could not be opened; err says why. */
    struct partition *partition; /* NULL for the metadata group. */
    enum ferry_err err;
    struct ferry_id topic_id;
    bool announced; /* Shard 0 knows that it is open. */
    bool dropping;
    int64_t told_end_offset; /* Waiting fetches have been looked at up to here. */
    struct list touched;
    struct heap_node timer;
    struct list fetches; /* struct fetch_link */
};

struct request {
    struct list node; /* In the shard's live list, or the pool. */
    net_peer peer;
    uint64_t id;
    uint16_t command;
    uint32_t timeout_ms;
    struct net_message message;
    struct partition_ticket ticket;
    struct meta_ticket meta_ticket;
};

/* Requests of one connection without an answer. */
struct peer_load {
    net_peer peer;
    uint32_t inflight;
};

/* A topic being made or deleted on all its shards. */
struct rollout {
    struct list node;
    struct ferry_id topic_id;
    uint32_t remaining;
    enum ferry_err err;
    struct request *request; /* Who asked; NULL at start-up, or when the asker is answered. */
};

struct shard_counters {
    uint64_t requests, errors, records_in, bytes_in, batches_in, fetch_bytes_out, turns;
    uint64_t duplicates, throttled, unsendable;
};

struct shard {
    struct shard_config config;
    struct store *store;
    struct net_server *server;
    struct mailbox mailbox;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct shard *const *peers;
    uint32_t peer_count;
    pthread_t thread;
    bool started;
    atomic_bool stop;
    atomic_bool ready;
    atomic_uint unserved; /* Shard 0: partitions that could not be opened at the start. */
    atomic_int failure;   /* enum ferry_err */

    struct map seats; /* struct seat, by group. */
    struct list touched;
    struct heap timers;          /* Seats. */
    struct heap fetch_deadlines; /* Waiting fetches. */
    struct list live;            /* Requests without an answer. */
    struct list pool;
    size_t pool_count;
    struct map loads; /* struct peer_load, by peer. */
    struct list drops;
    bool knows_catalog; /* Every partition of this shard has its seat: what has none is unknown. */
    bool view_open;
    int64_t now_us, now_ms;
    int64_t watch_due_us;
    size_t received_bytes; /* This turn. */
    struct shard_counters counters;
    int64_t started_us;

    /* Shard 0 only. */
    struct meta *meta;
    struct seat *meta_seat;
    struct list rollouts;
    uint32_t opening; /* Partitions not yet open at start-up. */
    bool catalog_sent;
    struct id_gen ids;
    struct metadata_reply *metadata; /* Scratch: too large for a stack. */
    struct names_reply *names;       /* Likewise. */
    struct fetch_request *fetch;     /* Likewise. */
    struct fetch_reply *fetch_answer;
};

/* ---- shard.c ---- */
struct seat *shard_find_seat(const struct shard *s, uint64_t group);
/* What to say of a group that has no seat: just started, the shard may not have been told yet of
 * all that it has. */
enum ferry_err shard_unknown_group(const struct shard *s);
void shard_touch(struct shard *s, struct seat *seat);
/* A read view of the store, for this phase of the turn. */
enum ferry_err shard_view(struct shard *s);
void shard_end_view(struct shard *s);
enum ferry_err shard_add_seat(struct shard *s, uint64_t group, struct seat **seat);
void shard_remove_seat(struct shard *s, struct seat *seat);
void shard_fail_store(struct shard *s, enum ferry_err err);
bool shard_is_first(const struct shard *s);

/* ---- shard_requests.c ---- */
void shard_take_message(struct shard *s, net_peer peer, struct net_message *m);
void shard_answer_partition(struct shard *s, struct seat *seat);
/* Finish the reply begun by shard_begin_reply, and the request with it. */
void shard_begin_reply(const struct request *r, struct buf *b, enum ferry_err status);
void shard_send_reply(struct shard *s, struct request *r, struct buf *b);
void shard_reply_error(struct shard *s, struct request *r, enum ferry_err err, const char *detail);
void shard_reply_empty(struct shard *s, struct request *r);
void shard_forget_requests(struct shard *s); /* At the end: no answers any more. */

/* ---- shard_fetch.c ---- */
void shard_handle_fetch(struct shard *s, struct request *r, const struct frame *f);
void shard_wake_fetches(struct shard *s, struct seat *seat);
void shard_fire_fetch_deadlines(struct shard *s);
void shard_fail_fetches(struct shard *s, struct seat *seat);
void shard_forget_fetches(struct shard *s);

/* ---- shard_admin.c ---- */
/* True when the command is one of the metadata group's; then it is handled. */
bool shard_handle_admin(struct shard *s, struct request *r, const struct frame *f);
void shard_answer_meta(struct shard *s);
void shard_take_mail(struct shard *s);
void shard_announce_ready(struct shard *s, struct seat *seat);
void shard_send_catalog(struct shard *s);
void shard_forget_rollouts(struct shard *s);

/* ---- shard_drop.c ---- */
/* Closes seats whose topic is deleted, once nothing waits for them. */
void shard_close_dropped(struct shard *s, struct seat *seat);
enum ferry_err shard_add_drop(struct shard *s, uint64_t group);
enum ferry_err shard_sweep(struct shard *s);
bool shard_wants_drop(const struct shard *s);
enum ferry_err shard_prepare_drop(struct shard *s); /* Before store_begin. */
enum ferry_err shard_write_drop(struct shard *s);   /* In the transaction. */
void shard_forget_drops(struct shard *s);

/* ---- shard_status.c ---- */
void shard_handle_status(struct shard *s, struct request *r);

#endif
