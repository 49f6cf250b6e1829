/* Frames, and the outbox that fills them. What is in an item is peer_item.c's. */
#include "partition/peer.h"

#include "base/checksum.h"
#include "base/list.h"
#include "base/mem.h"

#define FRAME_MAGIC   0x52505946u /* "FYPR" */
#define FRAME_VERSION 1u

enum frame_offset {
    FRAME_VERSION_AT = 4, /* u8, then three zero bytes. */
    FRAME_CLUSTER = 8,
    FRAME_FROM = 24,
    FRAME_TO = 32,
    FRAME_FROM_SHARD = 40,
    FRAME_TO_SHARD = 44,
    FRAME_BOOT = 48,
    FRAME_ITEMS = 56,
    FRAME_ITEM_BYTES = 60,
    FRAME_SEQUENCE = 64,
    FRAME_CHECKSUM = 72,
};
_Static_assert(FRAME_CHECKSUM + 8 == PEER_HEADER_BYTES, "the checksum ends the header");

enum item_offset {
    ITEM_GROUP = 0,
    ITEM_KIND = 8, /* u8, then three zero bytes. */
    ITEM_BODY_BYTES = 12,
};
_Static_assert(ITEM_BODY_BYTES + 4 == PEER_ITEM_BYTES, "the length ends an item's header");

static uint64_t frame_checksum(const uint8_t *frame, size_t size)
{
    return checksum_of_two(frame, FRAME_CHECKSUM, frame + PEER_HEADER_BYTES,
                           size - PEER_HEADER_BYTES);
}

/* ---- Reading ---- */

static enum ferry_err check_envelope(struct bytes frame, struct err_text *e)
{
    if (frame.size < PEER_HEADER_BYTES || frame.size > PEER_FRAME_MAX_BYTES ||
        get_le32(frame.data) != FRAME_MAGIC) {
        return err_set(e, FERRY_ERR_BAD_FRAME, "not a frame of a peer");
    }
    uint32_t version = get_le32(frame.data + FRAME_VERSION_AT);
    if (version != FRAME_VERSION) {
        return err_set(e, FERRY_ERR_BAD_VERSION, "the peer speaks version %u, this ferryd %u",
                       version & 0xffu, FRAME_VERSION);
    }
    if (get_le32(frame.data + FRAME_ITEM_BYTES) != frame.size - PEER_HEADER_BYTES) {
        return err_set(e, FERRY_ERR_BAD_FRAME, "a peer's frame has another length than it says");
    }
    if (get_le64(frame.data + FRAME_CHECKSUM) != frame_checksum(frame.data, frame.size)) {
        return err_set(e, FERRY_ERR_BAD_CHECKSUM, "a peer's frame was damaged on its way");
    }
    return FERRY_OK;
}

/* The item at `at`, if a whole one is there. */
static bool read_item(struct bytes frame, size_t at, struct peer_item *item, size_t *after)
{
    if (frame.size - at < PEER_ITEM_BYTES) {
        return false;
    }
    const uint8_t *p = frame.data + at;
    uint32_t kind = get_le32(p + ITEM_KIND);
    uint32_t body_bytes = get_le32(p + ITEM_BODY_BYTES);
    size_t rest = frame.size - at - PEER_ITEM_BYTES;
    if (kind == 0 || kind > UINT8_MAX || body_bytes > rest) {
        return false;
    }
    item->group = get_le64(p + ITEM_GROUP);
    item->kind = (uint8_t)kind;
    item->body = bytes_of(p + PEER_ITEM_BYTES, body_bytes);
    *after = at + PEER_ITEM_BYTES + body_bytes;
    return true;
}

static bool items_fill(struct bytes frame, uint32_t count)
{
    size_t at = PEER_HEADER_BYTES;
    struct peer_item item;
    for (uint32_t i = 0; i < count; i++) {
        if (!read_item(frame, at, &item, &at)) {
            return false;
        }
    }
    return at == frame.size;
}

enum ferry_err peer_frame_parse(struct bytes frame, struct peer_header *h, struct err_text *e)
{
    enum ferry_err err = check_envelope(frame, e);
    if (err != FERRY_OK) {
        return err;
    }
    const uint8_t *p = frame.data;
    *h = (struct peer_header){.from = get_le64(p + FRAME_FROM),
                              .to = get_le64(p + FRAME_TO),
                              .from_shard = get_le32(p + FRAME_FROM_SHARD),
                              .to_shard = get_le32(p + FRAME_TO_SHARD),
                              .boot = get_le64(p + FRAME_BOOT),
                              .sequence = get_le64(p + FRAME_SEQUENCE),
                              .item_count = get_le32(p + FRAME_ITEMS)};
    memcpy(h->cluster_id.bytes, p + FRAME_CLUSTER, sizeof(h->cluster_id.bytes));
    if (h->from == 0 || h->from_shard >= PEER_SHARDS_MAX || h->to_shard >= PEER_SHARDS_MAX ||
        h->item_count > PEER_ITEMS_MAX || !items_fill(frame, h->item_count)) {
        return err_set(e, FERRY_ERR_BAD_FRAME, "a peer's frame is malformed");
    }
    return FERRY_OK;
}

bool peer_frame_next(struct bytes frame, const struct peer_header *h, size_t *at,
                     struct peer_item *item)
{
    if (*at == 0) {
        *at = PEER_HEADER_BYTES;
    }
    if (*at >= frame.size) {
        return false;
    }
    item->from = h->from;
    return read_item(frame, *at, item, at);
}

/* ---- Outbox ---- */

/* A shard of another node, and the frame that is being filled for it. */
struct lane {
    struct buf frame; /* Empty: none is begun. */
    uint32_t items;
    bool given; /* It got a frame since the last round with `alive`. */
};

struct route {
    raft_id member;
    uint32_t shards;
    struct lane *lanes; /* Owned; `shards` of them. */
};

struct closed_frame {
    struct list node;
    raft_id member;
    uint32_t shard;
    struct buf frame;
};

struct peer_outbox {
    struct peer_outbox_config config;
    uint64_t sequence;
    struct route *routes; /* Sorted by member. */
    size_t route_count, route_capacity;
    struct list closed;
    size_t closed_count;
    bool in_round; /* peer_outbox_next has begun to give frames. */
    uint64_t dropped;
    /* The item between begin and end. */
    struct route *open_route;
    uint32_t open_shard;
    size_t open_at;
};

enum ferry_err peer_outbox_new(const struct peer_outbox_config *config, struct peer_outbox **out)
{
    struct peer_outbox *o = mem_zalloc(1, sizeof(*o));
    if (o == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    must(config->self != 0);
    o->config = *config;
    list_init(&o->closed);
    *out = o;
    return FERRY_OK;
}

static void free_lanes(struct route *r)
{
    for (uint32_t i = 0; i < r->shards; i++) {
        buf_fini(&r->lanes[i].frame);
    }
    mem_free(r->lanes);
}

void peer_outbox_free(struct peer_outbox **out)
{
    struct peer_outbox *o = *out;
    if (o == NULL) {
        return;
    }
    for (size_t i = 0; i < o->route_count; i++) {
        free_lanes(&o->routes[i]);
    }
    mem_free(o->routes);
    for (struct list *n; (n = list_pop_front(&o->closed)) != NULL;) {
        struct closed_frame *c = list_entry(n, struct closed_frame, node);
        buf_fini(&c->frame);
        mem_free(c);
    }
    mem_free(o);
    *out = NULL;
}

void peer_outbox_set_cluster(struct peer_outbox *out, const struct ferry_id *cluster_id)
{
    out->config.cluster_id = *cluster_id;
}

uint64_t peer_outbox_dropped(const struct peer_outbox *out)
{
    return out->dropped;
}

/* ---- Routes ---- */

static size_t route_place(const struct peer_outbox *out, raft_id member)
{
    size_t low = 0, high = out->route_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (out->routes[middle].member < member) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct route *find_route(const struct peer_outbox *out, raft_id member)
{
    size_t at = route_place(out, member);
    return at < out->route_count && out->routes[at].member == member ? &out->routes[at] : NULL;
}

static struct lane *new_lanes(uint32_t shards)
{
    struct lane *lanes = mem_zalloc(shards, sizeof(*lanes));
    for (uint32_t i = 0; lanes != NULL && i < shards; i++) {
        buf_init(&lanes[i].frame, PEER_FRAME_MAX_BYTES);
    }
    return lanes;
}

enum ferry_err peer_outbox_route(struct peer_outbox *out, const struct peer_route *route)
{
    must(out->open_route == NULL && route->member != 0);
    struct route *r = find_route(out, route->member);
    if (r != NULL && r->shards == route->shards) {
        return FERRY_OK;
    }
    if (route->shards == 0 || route->shards > PEER_SHARDS_MAX ||
        (r == NULL && out->route_count >= PEER_ROUTES_MAX)) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    struct lane *lanes = new_lanes(route->shards);
    if (lanes == NULL || !mem_grow((void **)&out->routes, &out->route_capacity,
                                   out->route_count + 1, sizeof(*out->routes))) {
        mem_free(lanes);
        return FERRY_ERR_NO_MEMORY;
    }
    peer_outbox_forget(out, route->member);
    size_t at = route_place(out, route->member);
    memmove(out->routes + at + 1, out->routes + at, (out->route_count - at) * sizeof(*out->routes));
    out->routes[at] =
        (struct route){.member = route->member, .shards = route->shards, .lanes = lanes};
    out->route_count++;
    return FERRY_OK;
}

void peer_outbox_forget(struct peer_outbox *out, raft_id member)
{
    must(out->open_route == NULL);
    size_t at = route_place(out, member);
    if (at == out->route_count || out->routes[at].member != member) {
        return;
    }
    free_lanes(&out->routes[at]);
    memmove(out->routes + at, out->routes + at + 1,
            (out->route_count - at - 1) * sizeof(*out->routes));
    out->route_count--;
}

/* ---- Frames ---- */

static void begin_frame(const struct peer_outbox *out, raft_id to, uint32_t shard,
                        struct buf *frame)
{
    uint8_t *p = buf_extend(frame, PEER_HEADER_BYTES);
    if (p == NULL) {
        return;
    }
    memset(p, 0, PEER_HEADER_BYTES);
    put_le32(p, FRAME_MAGIC);
    put_le32(p + FRAME_VERSION_AT, FRAME_VERSION);
    put_le64(p + FRAME_FROM, out->config.self);
    put_le64(p + FRAME_TO, to);
    put_le32(p + FRAME_FROM_SHARD, out->config.shard);
    put_le32(p + FRAME_TO_SHARD, shard);
    put_le64(p + FRAME_BOOT, out->config.boot);
}

static void end_frame(struct peer_outbox *out, uint32_t items, struct buf *frame)
{
    uint8_t *p = frame->data;
    memcpy(p + FRAME_CLUSTER, out->config.cluster_id.bytes, sizeof(out->config.cluster_id.bytes));
    put_le32(p + FRAME_ITEMS, items);
    put_le32(p + FRAME_ITEM_BYTES, (uint32_t)(frame->size - PEER_HEADER_BYTES));
    put_le64(p + FRAME_SEQUENCE, ++out->sequence);
    put_le64(p + FRAME_CHECKSUM, frame_checksum(p, frame->size));
}

/* Begins the item's header behind what the frame has; false when memory is out. */
static bool begin_item(struct buf *frame, uint64_t group, uint8_t kind)
{
    uint8_t *p = buf_extend(frame, PEER_ITEM_BYTES);
    if (p == NULL) {
        return false;
    }
    put_le64(p + ITEM_GROUP, group);
    put_le32(p + ITEM_KIND, kind);
    put_le32(p + ITEM_BODY_BYTES, 0);
    return true;
}

static void end_item(struct buf *frame, size_t at)
{
    size_t body_bytes = frame->size - at - PEER_ITEM_BYTES;
    put_le32(frame->data + at + ITEM_BODY_BYTES, (uint32_t)body_bytes);
}

/* Drops what was appended from `size` on. */
static void cut_back(struct buf *frame, size_t size)
{
    frame->size = size;
    frame->failed = false;
}

static void close_frame(struct peer_outbox *out, struct route *r, uint32_t shard)
{
    struct lane *lane = &r->lanes[shard];
    if (lane->frame.size == 0) {
        return;
    }
    struct closed_frame *c = out->closed_count < PEER_FRAMES_MAX ? mem_zalloc(1, sizeof(*c)) : NULL;
    if (c == NULL) {
        out->dropped += lane->items;
        buf_clear(&lane->frame);
        lane->items = 0;
        return;
    }
    end_frame(out, lane->items, &lane->frame);
    list_init(&c->node);
    c->member = r->member;
    c->shard = shard;
    c->frame = lane->frame;
    list_push_back(&out->closed, &c->node);
    out->closed_count++;
    buf_init(&lane->frame, PEER_FRAME_MAX_BYTES);
    lane->items = 0;
    lane->given = true;
}

/* ---- Items ---- */

struct buf *peer_outbox_begin_to(struct peer_outbox *out, raft_id to, uint32_t shard,
                                 uint64_t group, uint8_t kind)
{
    must(out->open_route == NULL && kind != 0);
    struct route *r = find_route(out, to);
    if (r == NULL || shard >= r->shards) {
        out->dropped++;
        return NULL;
    }
    struct lane *lane = &r->lanes[shard];
    if (lane->frame.size > PEER_FRAME_GOAL_BYTES || lane->items == PEER_ITEMS_MAX) {
        close_frame(out, r, shard);
    }
    if (lane->frame.size == 0) {
        begin_frame(out, to, shard, &lane->frame);
    }
    size_t at = lane->frame.size;
    if (at == 0 || !begin_item(&lane->frame, group, kind)) {
        cut_back(&lane->frame, at);
        out->dropped++;
        return NULL;
    }
    out->open_route = r;
    out->open_shard = shard;
    out->open_at = at;
    return &lane->frame;
}

struct buf *peer_outbox_begin(struct peer_outbox *out, raft_id to, uint64_t group, uint8_t kind)
{
    const struct route *r = find_route(out, to);
    uint32_t shard = r != NULL ? (uint32_t)(group % r->shards) : 0;
    return peer_outbox_begin_to(out, to, shard, group, kind);
}

void peer_outbox_end(struct peer_outbox *out)
{
    must(out->open_route != NULL);
    struct lane *lane = &out->open_route->lanes[out->open_shard];
    out->open_route = NULL;
    if (!buf_ok(&lane->frame)) {
        /* The item does not fit beside the others: the next time it will have the frame alone. */
        cut_back(&lane->frame, out->open_at);
        out->dropped++;
        return;
    }
    end_item(&lane->frame, out->open_at);
    lane->items++;
}

enum ferry_err peer_outbox_single(struct peer_outbox *out, raft_id to, uint32_t shard,
                                  uint64_t group, uint8_t kind, struct bytes body,
                                  struct buf *frame)
{
    buf_init(frame, PEER_FRAME_MAX_BYTES);
    if (body.size > PEER_FRAME_MAX_BYTES - PEER_HEADER_BYTES - PEER_ITEM_BYTES) {
        return FERRY_ERR_TOO_LARGE;
    }
    begin_frame(out, to, shard, frame);
    if (!buf_ok(frame) || !begin_item(frame, group, kind)) {
        return FERRY_ERR_NO_MEMORY;
    }
    buf_append_bytes(frame, body);
    if (!buf_ok(frame)) {
        return FERRY_ERR_NO_MEMORY;
    }
    end_item(frame, PEER_HEADER_BYTES);
    end_frame(out, 1, frame);
    return FERRY_OK;
}

/* ---- Giving ---- */

static void close_all(struct peer_outbox *out, bool alive)
{
    for (size_t i = 0; i < out->route_count; i++) {
        struct route *r = &out->routes[i];
        for (uint32_t shard = 0; shard < r->shards; shard++) {
            struct lane *lane = &r->lanes[shard];
            if (alive && !lane->given && lane->frame.size == 0) {
                begin_frame(out, r->member, shard, &lane->frame);
            }
            close_frame(out, r, shard);
            lane->given = lane->given && !alive;
        }
    }
}

bool peer_outbox_next(struct peer_outbox *out, bool alive, raft_id *member, uint32_t *shard,
                      struct buf *frame)
{
    must(out->open_route == NULL);
    if (!out->in_round) {
        close_all(out, alive);
        out->in_round = true;
    }
    struct list *node = list_pop_front(&out->closed);
    if (node == NULL) {
        out->in_round = false;
        return false;
    }
    struct closed_frame *c = list_entry(node, struct closed_frame, node);
    out->closed_count--;
    *member = c->member;
    *shard = c->shard;
    *frame = c->frame;
    mem_free(c);
    return true;
}
