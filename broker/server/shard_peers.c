/* Frames to and from the shards of other nodes: who may say what, who is heard, who is silent.
 *
 * Liveness is by node and shard, not by group: each heartbeat every shard that this one knows gets
 * a frame, an empty one if need be. Who is silent for longer than the shortest election, or comes
 * with another boot id, wakes the quiet groups that it is in. Only then are groups looked through.
 */
#include <inttypes.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

#define FRAMES_TURN_MAX  8192u
#define PEERS_TURN_BYTES (TURN_MAX_BYTES / 2)
/* Sent to a shard that was not heard meanwhile: then its link is closed, and what it has queued is
 * dropped. Else a dead node would hold NET_LINK_QUEUE_MAX frames of the largest size. */
#define UNHEARD_MAX_BYTES (64u << 20)
#define RETRY_US          1000000
#define SAY_US            60000000
/* An item with more has entries: they are not taken while the disk is full. */
#define SMALL_ITEM_BYTES 512u

/* ---- Waking quiet groups ---- */

static void wake_groups(struct shard *s, const struct node *n, uint32_t far)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica == NULL || seat->group % n->shards != far ||
            !raft_members_has(replica_members(seat->replica), n->member)) {
            continue;
        }
        enum ferry_err err = replica_wake(seat->replica, n->member, s->now_us);
        if (err != FERRY_OK && replica_failure(seat->replica) == FERRY_OK) {
            replica_fail(seat->replica, err);
        }
        shard_touch(s, seat);
    }
}

void shard_wake_groups_of(struct shard *s, const struct node *n)
{
    for (uint32_t i = 0; i < n->shards; i++) {
        wake_groups(s, n, i);
    }
}

static void heard(struct shard *s, struct node *n, const struct peer_header *h)
{
    if (n == NULL || h->from_shard >= n->shards) {
        return;
    }
    struct far_shard *far = &n->far[h->from_shard];
    bool restarted = far->boot != 0 && far->boot != h->boot;
    far->boot = h->boot;
    far->heard_us = s->now_us;
    far->unheard_bytes = 0;
    far->silent = false;
    if (restarted) {
        wake_groups(s, n, h->from_shard);
    }
}

static void look_for_silent(struct shard *s, struct node *n)
{
    int64_t patience_us = s->config.options->election_min_ms * 1000;
    for (uint32_t i = 0; i < n->shards; i++) {
        struct far_shard *far = &n->far[i];
        if (!far->silent && s->now_us - far->heard_us > patience_us) {
            far->silent = true;
            wake_groups(s, n, i);
        }
    }
}

/* ---- Frames that are not for us ---- */

/* Once a minute a line, with how many there were since the last. */
static void refuse(struct shard *s, const struct peer_header *h, const char *why)
{
    s->counters.peer_refused++;
    s->refused_unsaid++;
    if (s->now_us < s->refused_said_us + SAY_US && s->refused_said_us != 0) {
        return;
    }
    log_line(LOG_WARN, "peers",
             "frames of other nodes were refused, %" PRIu64 " since the last such line; the last "
             "one, of node %u: %s",
             s->refused_unsaid, h != NULL ? node_of_member(h->from) : 0, why);
    s->refused_said_us = s->now_us;
    s->refused_unsaid = 0;
}

/* A life of a node that is over: it is told so, once a second at most. */
static void tell_gone(struct shard *s, net_peer peer, raft_id member)
{
    if (s->now_us < s->gone_said_us + RETRY_US) {
        return;
    }
    struct node_fenced f = {.err = FERRY_ERR_NODE_REPLACED};
    struct buf b;
    buf_init(&b, PEER_FRAME_MAX_BYTES);
    node_fenced_encode(&b, &f);
    shard_answer_peer(s, peer, member, NODE_FENCED, buf_bytes(&b));
    buf_fini(&b);
    s->gone_said_us = s->now_us;
}

/* True when the frame is to be read; `joining`: only what a node may say that is in no cluster. */
static bool is_for_us(struct shard *s, net_peer peer, const struct peer_header *h, bool *joining)
{
    if (h->to != 0 && h->to != s->self) {
        refuse(s, h,
               "it is for another life of this node: the sender has not heard of the new one");
        return false;
    }
    *joining = h->to == 0 || id_is_zero(&h->cluster_id) || id_is_zero(&s->cluster_id);
    if (!*joining && !id_equal(&h->cluster_id, &s->cluster_id)) {
        refuse(s, h, "it is of another cluster: check node.bootstrap and node.join of both");
        return false;
    }
    if (h->to_shard != s->config.index || h->from == s->self) {
        refuse(s, h, "it is for another shard: check node.peer_advertise");
        return false;
    }
    if (!*joining && s->meta != NULL && meta_member_is_gone(s->meta, h->from)) {
        tell_gone(s, peer, h->from);
        return false;
    }
    return true;
}

/* ---- Items ---- */

static void take_replica_item(struct shard *s, const struct peer_item *item, bool has_room)
{
    struct seat *seat = shard_find_seat(s, item->group);
    if (seat == NULL || seat->replica == NULL || seat->dropping) {
        return; /* Not here yet, or no longer: it will be said again. */
    }
    if (!has_room && item->body.size > SMALL_ITEM_BYTES) {
        s->counters.peer_no_room++;
        return;
    }
    enum ferry_err err = replica_receive(seat->replica, item, s->now_us);
    if (err != FERRY_OK && replica_failure(seat->replica) == FERRY_OK) {
        replica_fail(seat->replica, err);
    }
    shard_touch(s, seat);
}

static void take_fenced(struct shard *s, struct bytes body)
{
    struct node_fenced f;
    if (node_fenced_decode(body, &f) != FERRY_OK ||
        (f.err != FERRY_ERR_OLD_FOLDER && f.err != FERRY_ERR_NODE_REPLACED)) {
        return;
    }
    char text[NODE_TEXT_MAX + 1];
    memcpy(text, f.text.data, f.text.size);
    text[f.text.size] = '\0';
    shard_end(s, f.err, text);
}

static void take_node_item(struct shard *s, net_peer peer, const struct peer_header *h,
                           const struct peer_item *item, bool joining)
{
    if (!shard_is_first(s) && item->kind != NODE_FENCED) {
        return;
    }
    switch (item->kind) {
    case NODE_HELLO:
        shard_take_hello(s, peer, h, item->body);
        return;
    case NODE_REGISTER:
        shard_take_register(s, peer, h, item->body);
        return;
    case NODE_LEADERS:
        if (!joining) {
            shard_take_leaders(s, h, item->body);
        }
        return;
    case NODE_MOVE_DONE:
        if (!joining) {
            shard_take_move_done(s, h, item);
        }
        return;
    case NODE_FENCED:
        if (!joining && h->to == s->self) {
            take_fenced(s, item->body);
        }
        return;
    default:
        return; /* Of a later version. */
    }
}

/* True when the frame's bytes may be in use until the commit. */
static bool take_items(struct shard *s, net_peer peer, const struct peer_header *h,
                       struct bytes frame, bool joining)
{
    bool has_room =
        frame.size <= SMALL_ITEM_BYTES || store_has_room(s->store, s->received_bytes + frame.size);
    bool held = false;
    size_t at = 0;
    struct peer_item item;
    while (peer_frame_next(frame, h, &at, &item)) {
        if (item.kind >= PEER_NODE_FIRST) {
            take_node_item(s, peer, h, &item, joining);
        } else if (!joining) {
            take_replica_item(s, &item, has_room);
            held = true;
        }
    }
    return held;
}

static bool take_frame(struct shard *s, net_peer peer, struct bytes frame)
{
    struct peer_header h;
    struct err_text e;
    bool joining = false;
    s->counters.peer_frames_in++;
    s->counters.peer_bytes_in += frame.size;
    if (peer_frame_parse(frame, &h, &e) != FERRY_OK) {
        refuse(s, NULL, e.text);
        net_server_cut(s->peer_server, peer, e.text);
        return false;
    }
    if (atomic_load(&s->failure) != FERRY_OK || !is_for_us(s, peer, &h, &joining)) {
        return false;
    }
    if (!joining) {
        heard(s, shard_find_member(s, h.from), &h);
    }
    return take_items(s, peer, &h, frame, joining);
}

/* ---- Receiving ---- */

static bool next_frame(struct shard *s, net_peer *peer, struct net_message *m)
{
    if (s->has_held_over) {
        s->has_held_over = false;
        net_message_move(m, &s->held_over);
        *peer = s->held_over_peer;
        return true;
    }
    return net_server_receive(s->peer_server, peer, m);
}

static bool hold(struct shard *s, struct net_message *m)
{
    if (!mem_grow((void **)&s->frames, &s->frame_capacity, s->frame_count + 1,
                  sizeof(*s->frames))) {
        return false;
    }
    struct net_message *held = &s->frames[s->frame_count++];
    net_message_init(held);
    net_message_move(held, m);
    return true;
}

/* The frame is kept before it is read: its bytes do not move with the message, but for those of the
 * smallest, which the message itself holds. */
static void receive_frame(struct shard *s, net_peer peer, struct net_message *m)
{
    s->received_bytes += net_message_bytes(m).size;
    if (!hold(s, m)) {
        net_message_close(m); /* As if the network had lost it. */
        return;
    }
    if (!take_frame(s, peer, net_message_bytes(&s->frames[s->frame_count - 1]))) {
        net_message_close(&s->frames[--s->frame_count]);
    }
}

void shard_receive_peers(struct shard *s)
{
    if (s->peer_server == NULL) {
        return;
    }
    /* All that a turn may hold: growing would move the messages, and small ones hold their bytes.
     */
    if (s->frame_capacity < FRAMES_TURN_MAX &&
        !mem_grow((void **)&s->frames, &s->frame_capacity, FRAMES_TURN_MAX, sizeof(*s->frames))) {
        return;
    }
    struct net_message m;
    net_message_init(&m);
    for (uint32_t i = 0; i < FRAMES_TURN_MAX; i++) {
        net_peer peer;
        if (s->received_bytes >= (size_t)s->config.options->turn_bytes ||
            !next_frame(s, &peer, &m)) {
            break;
        }
        if (s->received_bytes > 0 &&
            s->received_bytes + net_message_bytes(&m).size > PEERS_TURN_BYTES) {
            net_message_move(&s->held_over, &m);
            s->held_over_peer = peer;
            s->has_held_over = true;
            break;
        }
        receive_frame(s, peer, &m);
    }
    net_message_close(&m);
}

void shard_release_frames(struct shard *s)
{
    while (s->frame_count > 0) {
        net_message_close(&s->frames[--s->frame_count]);
    }
}

/* ---- Sending ---- */

void shard_close_links(struct node *n)
{
    for (uint32_t i = 0; i < n->shards; i++) {
        net_link_close(&n->far[i].link);
    }
}

static bool open_link(struct shard *s, const struct node *n, uint32_t shard, struct far_shard *far)
{
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct err_text e;
    if (far->link != NULL) {
        return true;
    }
    if (s->now_us < far->retry_us || !node_endpoint(bytes_of_string(n->peer), shard, endpoint)) {
        return false;
    }
    far->unheard_bytes = 0;
    far->retry_us = s->now_us + RETRY_US;
    enum ferry_err err =
        net_link_open(s->config.context, endpoint, PEER_FRAME_MAX_BYTES, &far->link, &e);
    if (err != FERRY_OK) {
        log_line(LOG_WARN, "peers", "node %u at %s: %s", n->id, endpoint, e.text);
    }
    return err == FERRY_OK;
}

static void send_frame(struct shard *s, raft_id member, uint32_t shard, struct buf *frame)
{
    const struct node *n = shard_find_member(s, member);
    struct far_shard *far = n != NULL && shard < n->shards ? &n->far[shard] : NULL;
    if (far != NULL && far->link != NULL && far->unheard_bytes > UNHEARD_MAX_BYTES) {
        net_link_close(&far->link);
    }
    size_t bytes = frame->size;
    if (far == NULL || !open_link(s, n, shard, far) ||
        net_link_send(far->link, frame) != FERRY_OK) {
        s->counters.peer_dropped++;
        return;
    }
    far->unheard_bytes += bytes;
    s->counters.peer_frames_out++;
    s->counters.peer_bytes_out += bytes;
}

static void flush(struct shard *s, bool alive)
{
    raft_id member;
    uint32_t shard;
    struct buf frame;
    if (s->outbox == NULL) {
        return;
    }
    while (peer_outbox_next(s->outbox, alive, &member, &shard, &frame)) {
        send_frame(s, member, shard, &frame);
        buf_fini(&frame);
    }
}

void shard_flush_outbox(struct shard *s)
{
    flush(s, false);
}

void shard_answer_peer(struct shard *s, net_peer peer, raft_id to, enum node_kind kind,
                       struct bytes body)
{
    struct buf frame;
    enum ferry_err err =
        peer_outbox_single(s->outbox, to, 0, META_GROUP, (uint8_t)kind, body, &frame);
    if (err == FERRY_OK) {
        err = net_server_send(s->peer_server, peer, &frame);
    }
    if (err != FERRY_OK) {
        s->counters.peer_dropped++; /* Whoever asked asks again. */
    }
    buf_fini(&frame);
}

/* ---- What comes back on our own links ---- */

void shard_take_link_frame(struct shard *s, struct bytes frame, bool asked)
{
    struct peer_header h;
    struct peer_item item;
    struct err_text e;
    size_t at = 0;
    if (peer_frame_parse(frame, &h, &e) != FERRY_OK) {
        refuse(s, NULL, e.text);
        return;
    }
    bool same = id_is_zero(&s->cluster_id) || id_is_zero(&h.cluster_id) ||
                id_equal(&s->cluster_id, &h.cluster_id);
    if (h.to != s->self || !same) {
        refuse(s, &h,
               same ? "an answer to another life of this node"
                    : "it is of another cluster: check node.bootstrap and node.join");
        return;
    }
    while (peer_frame_next(frame, &h, &at, &item)) {
        struct node_register_reply r;
        if (item.kind == NODE_HELLO_REPLY && asked) {
            shard_take_hello_reply(s, item.body);
        } else if (item.kind == NODE_REGISTER_REPLY && asked &&
                   node_register_reply_decode(item.body, &r) == FERRY_OK) {
            shard_take_register_reply(s, &r);
        } else if (item.kind == NODE_FENCED && !id_is_zero(&s->cluster_id)) {
            take_fenced(s, item.body);
        }
    }
}

/* Nobody speaks on these but to say that this node's life is over. */
static void read_link(struct shard *s, struct net_link *link)
{
    struct net_message m;
    net_message_init(&m);
    for (uint32_t i = 0; i < 8 && net_link_receive(link, &m); i++) {
        shard_take_link_frame(s, net_message_bytes(&m), false);
    }
    net_message_close(&m);
}

/* ---- Each heartbeat ---- */

void shard_tick_peers(struct shard *s)
{
    s->heartbeat_due_us = s->now_us + s->config.options->heartbeat_ms * 1000;
    for (size_t i = 0; i < s->node_count; i++) {
        struct node *n = s->nodes[i];
        if (n->member == s->self) {
            continue;
        }
        look_for_silent(s, n);
        if (shard_is_first(s) && n->far[0].link != NULL) {
            read_link(s, n->far[0].link);
        }
    }
    flush(s, true);
    if (s->now_us >= s->leaders_due_us) {
        shard_tell_leaders(s, true);
        s->leaders_due_us = s->now_us + 5 * RETRY_US;
    }
}
