/* peer: the bytes that shards of different nodes send each other, and who gets which.
 *
 * One frame is one message of net.h. It does no I/O. Nothing in it is believed before the checksum,
 * the sizes and every field have been checked; what is malformed is BAD_FRAME and the whole frame
 * is dropped. No msgpack: a fixed little-endian layout, because this is the hot path.
 *
 *   frame header, 80 bytes
 *    0 u32 "FYPR"   4 u8 version, 1   5 u8[3] 0   8 u8[16] cluster id (zero: only JOIN and FORM
 * items) 24 u64 from member   32 u64 to member (0: not known yet) 40 u32 from shard    44 u32 to
 * shard   48 u64 boot: random, new with each start of the process 56 u32 items   60 u32 bytes of
 * items   64 u64 sequence: rises with each frame of this boot 72 u64 checksum: XXH3-64 over bytes
 * 0..71 and the items item, 16 bytes and a body 0 u64 group   8 u8 kind   9 u8[3] 0   12 u32 body
 * bytes
 *
 * A frame with no items says: I am here (PLAN: liveness). Bodies of the kinds that replicas
 * exchange are in peer_item.c, drawn there; bodies of NODE kinds are opaque here (cluster and
 * server).
 *
 * Threads: the shard's. */
#ifndef FERRY_PARTITION_PEER_H
#define FERRY_PARTITION_PEER_H

#include "base/buf.h"
#include "raft/raft.h"
#include "store/store.h"

#define PEER_FRAME_MAX_BYTES  (18u << 20)
#define PEER_FRAME_GOAL_BYTES (1u << 20) /* A frame with more is closed and another begun. */
#define PEER_ITEMS_MAX        65536u
#define PEER_HEADER_BYTES     80u
#define PEER_ITEM_BYTES       16u
#define PEER_CHUNK_BYTES      (512u << 10) /* Of a snapshot. */
#define PEER_ROUTES_MAX       4096u        /* Members that an outbox knows. */
#define PEER_SHARDS_MAX       1024u        /* Of one node. */
#define PEER_FRAMES_MAX       1024u /* That wait in an outbox; more are dropped and counted. */

enum peer_kind {
    PEER_RAFT = 1,           /* A raft_message and its entries. */
    PEER_SNAPSHOT_BEGIN = 2, /* Marks, members, counts; the receiver empties itself. */
    PEER_SNAPSHOT_ROWS = 3,  /* Rows of the state tables. */
    PEER_SNAPSHOT_ENTRIES = 4,
    PEER_SNAPSHOT_END = 5,
    PEER_SNAPSHOT_REPLY = 6, /* Receiver: how far it is, or that it gave up. */
    PEER_REPAIR_REQUEST = 7,
    PEER_REPAIR_REPLY = 8,
    PEER_NODE_FIRST = 64, /* From here on: bodies of the cluster's and the server's own. */
};

struct peer_header {
    struct ferry_id cluster_id;
    raft_id from, to;
    uint32_t from_shard, to_shard;
    uint64_t boot, sequence;
    uint32_t item_count;
};

struct peer_item {
    uint64_t group;
    uint8_t kind;
    raft_id from;      /* The frame's. */
    struct bytes body; /* Borrowed from the frame. */
};

/* Checks the whole frame. Errors: BAD_FRAME, BAD_VERSION, BAD_CHECKSUM. */
MUST_CHECK enum ferry_err peer_frame_parse(struct bytes frame, struct peer_header *h,
                                           struct err_text *e);
/* Walks the items of a parsed frame; *at begins at 0. False at the end. */
bool peer_frame_next(struct bytes frame, const struct peer_header *h, size_t *at,
                     struct peer_item *item);

/* ---- Outbox: one turn's items, collected by destination. ---- */

/* A shard of another node. The shard that sends keeps the list. */
struct peer_route {
    raft_id member;
    uint32_t shards; /* How many that node has: a group is on shard group % shards. */
};

struct peer_outbox; /* Opaque. */

struct peer_outbox_config {
    struct ferry_id cluster_id; /* May be set later. */
    raft_id self;
    uint32_t shard;
    uint64_t boot;
};
MUST_CHECK enum ferry_err peer_outbox_new(const struct peer_outbox_config *config,
                                          struct peer_outbox **out);
void peer_outbox_free(struct peer_outbox **out);
void peer_outbox_set_cluster(struct peer_outbox *out, const struct ferry_id *cluster_id);
/* Tells how many shards a member has; again when it changes. Errors: NO_MEMORY, LIMIT_REACHED. */
MUST_CHECK enum ferry_err peer_outbox_route(struct peer_outbox *out,
                                            const struct peer_route *route);
void peer_outbox_forget(struct peer_outbox *out, raft_id member);

/* A frame with one item, for an address whose member is not known yet or has no route (JOIN).
 * Errors: NO_MEMORY, TOO_LARGE. The frame is the caller's, also on an error. */
MUST_CHECK enum ferry_err peer_outbox_single(struct peer_outbox *out, raft_id to, uint32_t shard,
                                             uint64_t group, uint8_t kind, struct bytes body,
                                             struct buf *frame);

/* Begins an item for the shard of `to` that has `group`; write its body into the buffer, then end.
 * NULL: no such route, or no memory: the item is dropped and counted, as a network would. */
struct buf *peer_outbox_begin(struct peer_outbox *out, raft_id to, uint64_t group, uint8_t kind);
/* As begin, for a given shard of the member (NODE kinds). */
struct buf *peer_outbox_begin_to(struct peer_outbox *out, raft_id to, uint32_t shard,
                                 uint64_t group, uint8_t kind);
void peer_outbox_end(struct peer_outbox *out);
/* Closes frames that wait and gives the next one: true, with the bytes in `frame` (taken, free with
 * buf_fini) and where to. False when there is none: the end of this round. `alive`, in the first
 * call of a round: an empty frame to every (member, shard) given no frame since the last such
 * round. */
bool peer_outbox_next(struct peer_outbox *out, bool alive, raft_id *member, uint32_t *shard,
                      struct buf *frame);
/* Items and frames that were dropped: no route, no memory, too much waiting. */
uint64_t peer_outbox_dropped(const struct peer_outbox *out);

#endif
