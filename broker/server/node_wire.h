/* node_wire: what nodes say to each other about themselves: bodies of the NODE kinds of peer items.
 *
 * Pure. Little-endian, fixed layout, every length checked against its named limit and against the
 * bytes there are before anything is done with it; a body with bytes left over is refused too.
 * Decoded text and records point into the body. Decoders: BAD_FRAME. Encoders fail by the buffer.
 *
 * A record:
 *    0 u64 member    8 u64 boot    16 u64 boot id    24 u32 weight    28 u32 shards
 *   32 u8 zone bytes    33 u8 0    34 u16 client bytes    36 u16 peer bytes    38 u16 0
 *   40 the three texts; endpoints of the shards are joined by ' '
 *
 * A text: u16 bytes, then the bytes.
 *
 * HELLO:
 *    0 u8 version    1 u8 member of a cluster    2 u16 0    4 u32 hash of the founders' ids
 *    8 record
 *
 * HELLO_REPLY:
 *    0 u8 version    1 u8 member of a cluster    2 u16 founders    4 u32 hash    8 u8[16] cluster
 *   24 u64 member of each founder, then text: peer endpoint of the metadata leader, then record
 *
 * REGISTER:
 *    0 u32 attempt    4 u32 0    8 record
 *
 * REGISTER_REPLY:
 *    0 u32 attempt    4 u16 answer    6 u16 error    8 u8[16] cluster    24 u64 metadata index
 *   32 text: detail, then u32 records, then the records
 *
 * LEADERS, the sender leads these:
 *    0 u32 count    4 u32 0    8 of each: u64 group, u64 term, u64 bytes
 *
 * MOVE_DONE, the item's group is on these nodes:
 *    0 u32 count    4 u32 node id of each
 *
 * FENCED:
 *    0 u16 error    2 text */
#ifndef FERRY_SERVER_NODE_WIRE_H
#define FERRY_SERVER_NODE_WIRE_H

#include "cluster/meta.h"
#include "partition/peer.h"

#define NODE_WIRE_VERSION    1u
#define NODE_ENDPOINTS_BYTES META_ENDPOINTS_MAX_BYTES
#define NODE_TEXT_MAX        512u
#define NODE_RECORDS_MAX     META_NODES_MAX
#define NODE_LEADERS_MAX     4096u /* In one item. */
#define NODE_FOUNDERS_MAX    RAFT_VOTERS_MAX

_Static_assert(NODE_ENDPOINTS_BYTES <= UINT16_MAX, "the length of the endpoints has 16 bits");

enum node_kind {
    NODE_HELLO = PEER_NODE_FIRST,
    NODE_HELLO_REPLY,
    NODE_REGISTER,
    NODE_REGISTER_REPLY,
    NODE_LEADERS,
    NODE_MOVE_DONE,
    NODE_FENCED,
};

/* A node as it tells of itself. */
struct node_record {
    raft_id member;
    uint64_t boot;    /* Starts of its folder, counted in it. */
    uint64_t boot_id; /* Random, new with each start. */
    uint32_t weight, shards;
    struct bytes zone;
    struct bytes client, peer; /* Endpoints of its shards, shard 0 first, joined by ' '. */
};

/* The node's number in the cluster, and the life of its folder. */
static inline uint32_t node_of_member(raft_id member)
{
    return (uint32_t)member;
}

static inline raft_id member_of_node(uint32_t node_id, uint32_t incarnation)
{
    return (uint64_t)incarnation << 32 | node_id;
}

/* The endpoint of one shard; false when there is none. */
bool node_endpoint(struct bytes endpoints, uint32_t shard, char text[ENDPOINT_MAX_BYTES + 1]);

void node_record_encode(struct buf *b, const struct node_record *r);
/* Takes the record off the front of *rest. */
MUST_CHECK enum ferry_err node_record_decode(struct bytes *rest, struct node_record *r);

struct node_hello {
    bool is_member;
    uint32_t founders_hash; /* 0: it was not told of any. */
    struct node_record record;
};
void node_hello_encode(struct buf *b, const struct node_hello *h);
MUST_CHECK enum ferry_err node_hello_decode(struct bytes body, struct node_hello *h);

struct node_hello_reply {
    bool is_member;
    uint32_t founders_hash;
    struct ferry_id cluster_id; /* Zero: of none. */
    uint32_t founder_count;     /* The members that founded it, as far as known. */
    raft_id founders[NODE_FOUNDERS_MAX];
    struct bytes leader; /* Empty: not known. */
    struct node_record record;
};
void node_hello_reply_encode(struct buf *b, const struct node_hello_reply *h);
MUST_CHECK enum ferry_err node_hello_reply_decode(struct bytes body, struct node_hello_reply *h);

struct node_register {
    uint32_t attempt; /* Repeated in the reply. */
    struct node_record record;
};
void node_register_encode(struct buf *b, const struct node_register *r);
MUST_CHECK enum ferry_err node_register_decode(struct bytes body, struct node_register *r);

enum node_answer {
    NODE_REGISTERED = 1,
    NODE_REDIRECT = 2, /* The detail is the metadata leader's peer endpoint. */
    NODE_REFUSED = 3,  /* For good: the detail says why. */
    NODE_LATER = 4,    /* No leader now. */
};
struct node_register_reply {
    uint32_t attempt;
    enum node_answer answer;
    enum ferry_err err; /* REFUSED. */
    struct ferry_id cluster_id;
    uint64_t meta_index; /* REGISTERED: a copy of the metadata applied so far knows this node. */
    struct bytes detail;
    uint32_t record_count; /* Nodes that the new one will hear from. */
    struct bytes records;  /* For node_record_decode. */
};
/* The records follow: node_record_encode each. */
void node_register_reply_encode(struct buf *b, const struct node_register_reply *r);
MUST_CHECK enum ferry_err node_register_reply_decode(struct bytes body,
                                                     struct node_register_reply *r);

struct node_led {
    uint64_t group;
    raft_term term;
    uint64_t bytes; /* Of the partition, for plans. */
};
void node_leaders_encode(struct buf *b, const struct node_led *led, uint32_t count);
/* The i-th is read by node_leaders_at. */
MUST_CHECK enum ferry_err node_leaders_decode(struct bytes body, uint32_t *count);
struct node_led node_leaders_at(struct bytes body, uint32_t i);

void node_moved_encode(struct buf *b, const uint32_t *nodes, uint32_t count);
MUST_CHECK enum ferry_err node_moved_decode(struct bytes body, uint32_t nodes[REPLICAS_MAX],
                                            uint32_t *count);

struct node_fenced {
    enum ferry_err err;
    struct bytes text;
};
void node_fenced_encode(struct buf *b, const struct node_fenced *f);
MUST_CHECK enum ferry_err node_fenced_decode(struct bytes body, struct node_fenced *f);

#endif
