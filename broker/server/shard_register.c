/* The other side of joining, on shard 0: answering HELLO, and what the metadata leader is asked to
 * log by nodes: their starts, and moves that are done. */
#include "base/log.h"
#include "server/shard_internal.h"

/* ---- HELLO ---- */

static bool is_of_bootstrap(const struct shard *s, uint32_t node_id)
{
    for (size_t i = 0; i < s->join.founder_count; i++) {
        if (s->join.seeds[i].node_id == node_id) {
            return true;
        }
    }
    return false;
}

/* Peer endpoint of shard 0 of the metadata leader, this node's own if it is that. */
static bool leader_endpoint(const struct shard *s, char endpoint[ENDPOINT_MAX_BYTES + 1])
{
    endpoint[0] = '\0';
    if (s->meta == NULL) {
        return false;
    }
    raft_id leader = replica_leader(s->meta_seat->replica);
    if (leader == s->self) {
        memcpy(endpoint, s->peer_endpoint, sizeof(s->peer_endpoint));
        return endpoint[0] != '\0';
    }
    const struct node *n = leader != 0 ? shard_find_member(s, leader) : NULL;
    return n != NULL && node_endpoint(bytes_of_string(n->peer), 0, endpoint);
}

static void answer_hello(struct shard *s, net_peer peer, raft_id to)
{
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct node_hello_reply h = {.is_member = !id_is_zero(&s->cluster_id),
                                 .founders_hash = s->join.founders_hash,
                                 .cluster_id = s->cluster_id,
                                 .founder_count = s->join.founders.voter_count};
    memcpy(h.founders, s->join.founders.voters, h.founder_count * sizeof(raft_id));
    (void)leader_endpoint(s, endpoint);
    h.leader = bytes_of_string(endpoint);
    struct buf client, peer_text, body;
    if (shard_own_record(s, &client, &peer_text, &h.record) == FERRY_OK) {
        buf_init(&body, PEER_FRAME_MAX_BYTES);
        node_hello_reply_encode(&body, &h);
        shard_answer_peer(s, peer, to, NODE_HELLO_REPLY, buf_bytes(&body));
        buf_fini(&body);
    }
    buf_fini(&client);
    buf_fini(&peer_text);
}

void shard_take_hello(struct shard *s, net_peer peer, const struct peer_header *h,
                      struct bytes body)
{
    struct node_hello q;
    if (node_hello_decode(body, &q) != FERRY_OK || q.record.member != h->from) {
        return;
    }
    /* Founders have to know each other before the metadata does. */
    bool founding = s->join.founders_hash != 0 && q.founders_hash == s->join.founders_hash &&
                    is_of_bootstrap(s, node_of_member(h->from));
    bool known = shard_find_member(s, h->from) != NULL;
    bool new_life = s->meta != NULL && meta_node_find(s->meta, node_of_member(h->from)) != NULL;
    if (known || (founding && !new_life)) {
        shard_learn_node(s, &q.record);
    }
    answer_hello(s, peer, h->from);
}

/* ---- REGISTER ---- */

static void answer_register(struct shard *s, net_peer peer, raft_id to,
                            const struct node_register_reply *r)
{
    struct buf body;
    buf_init(&body, PEER_FRAME_MAX_BYTES);
    node_register_reply_encode(&body, r);
    for (uint32_t i = 0; i < r->record_count; i++) {
        const struct meta_node *n = meta_node_at(s->meta, i);
        struct node_record record = shard_record_of(n);
        node_record_encode(&body, &record);
    }
    if (buf_ok(&body)) {
        shard_answer_peer(s, peer, to, NODE_REGISTER_REPLY, buf_bytes(&body));
    }
    buf_fini(&body);
}

static bool is_final(enum ferry_err err)
{
    return err == FERRY_ERR_OLD_FOLDER || err == FERRY_ERR_NODE_REPLACED ||
           err == FERRY_ERR_INVALID_ARGUMENT || err == FERRY_ERR_LIMIT_REACHED;
}

static struct meta_node node_of_record(const struct node_record *r, char *client, char *peer)
{
    struct meta_node n = {.id = node_of_member(r->member),
                          .member = r->member,
                          .boot = r->boot,
                          .boot_id = r->boot_id,
                          .weight = r->weight,
                          .shards = r->shards,
                          .client_endpoints = client,
                          .peer_endpoints = peer};
    memcpy(n.zone, r->zone.data, r->zone.size);
    memcpy(client, r->client.data, r->client.size);
    client[r->client.size] = '\0';
    memcpy(peer, r->peer.data, r->peer.size);
    peer[r->peer.size] = '\0';
    return n;
}

static enum ferry_err log_registration(struct shard *s, struct request *r,
                                       const struct node_record *record, struct err_text *e)
{
    char client[NODE_ENDPOINTS_BYTES + 1], peer[NODE_ENDPOINTS_BYTES + 1];
    struct meta_node n = node_of_record(record, client, peer);
    enum ferry_err err = meta_node_register(s->meta, &n, s->now_ms, s->now_us, &r->meta_ticket, e);
    shard_touch(s, s->meta_seat);
    return err;
}

static void refuse_or_later(struct shard *s, net_peer peer, raft_id to, uint32_t attempt,
                            enum ferry_err err, const char *detail)
{
    struct node_register_reply reply = {.attempt = attempt,
                                        .answer = is_final(err) ? NODE_REFUSED : NODE_LATER,
                                        .err = is_final(err) ? err : FERRY_OK,
                                        .cluster_id = s->cluster_id,
                                        .detail = bytes_of_string(detail)};
    answer_register(s, peer, to, &reply);
}

/* This node is no leader of the metadata: who is? */
static void send_elsewhere(struct shard *s, net_peer peer, raft_id to, uint32_t attempt)
{
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    bool known = leader_endpoint(s, endpoint) && replica_leader(s->meta_seat->replica) != s->self;
    struct node_register_reply reply = {.attempt = attempt,
                                        .answer = known ? NODE_REDIRECT : NODE_LATER,
                                        .cluster_id = s->cluster_id,
                                        .detail = bytes_of_string(known ? endpoint : "")};
    answer_register(s, peer, to, &reply);
}

void shard_take_register(struct shard *s, net_peer peer, const struct peer_header *h,
                         struct bytes body)
{
    struct node_register q;
    if (node_register_decode(body, &q) != FERRY_OK || q.record.member != h->from) {
        return;
    }
    if (s->meta == NULL || !replica_is_ready(s->meta_seat->replica)) {
        send_elsewhere(s, peer, h->from, q.attempt);
        return;
    }
    struct err_text e = {{0}};
    struct request *r = shard_new_task(s, NODE_REGISTER);
    if (r == NULL) {
        return; /* It asks again. */
    }
    r->peer = peer;
    r->task.attempt = q.attempt;
    r->task.member = h->from;
    enum ferry_err err = log_registration(s, r, &q.record, &e);
    if (err != FERRY_OK) {
        refuse_or_later(s, peer, h->from, q.attempt, err, e.text);
        shard_free_request(s, r);
    } else if (!r->meta_ticket.waits) {
        shard_finish_task(s, r);
    }
}

/* ---- This node's own ---- */

static void own_registered(struct shard *s, enum ferry_err err, const char *detail)
{
    struct join *j = &s->join;
    j->own_running = false;
    if (err == FERRY_OK && j->step == JOIN_REGISTER) {
        j->step = JOIN_CATCH_UP;
        j->meta_index = replica_applied(s->meta_seat->replica);
        j->due_us = s->now_us;
    } else if (is_final(err)) {
        shard_end(s, err, detail);
    }
}

void shard_register_self(struct shard *s)
{
    struct buf client, peer;
    struct node_record record;
    struct err_text e = {{0}};
    struct request *r = shard_new_task(s, NODE_REGISTER);
    if (r == NULL) {
        return;
    }
    r->task.own = true;
    enum ferry_err err = shard_own_record(s, &client, &peer, &record);
    if (err == FERRY_OK) {
        s->join.own_running = true;
        err = log_registration(s, r, &record, &e);
    }
    if (err != FERRY_OK) {
        shard_free_request(s, r);
        own_registered(s, err, e.text);
    } else if (!r->meta_ticket.waits) {
        shard_finish_task(s, r);
    }
    buf_fini(&client);
    buf_fini(&peer);
}

/* ---- MOVE_DONE ---- */

static void log_move_done(struct shard *s, uint64_t group, const uint32_t *nodes, uint32_t count)
{
    struct request *r = shard_new_task(s, NODE_MOVE_DONE);
    if (r == NULL) {
        return;
    }
    r->task.own = true;
    enum ferry_err err =
        meta_move_done(s->meta, group, nodes, count, s->now_ms, s->now_us, &r->meta_ticket);
    shard_touch(s, s->meta_seat);
    if (err != FERRY_OK || !r->meta_ticket.waits) {
        shard_free_request(s, r); /* The group's leader says it again while it is not known. */
    }
}

void shard_take_move_done(struct shard *s, const struct peer_header *h,
                          const struct peer_item *item)
{
    uint32_t nodes[REPLICAS_MAX];
    uint32_t count = 0;
    (void)h;
    if (s->meta != NULL && replica_is_ready(s->meta_seat->replica) &&
        node_moved_decode(item->body, nodes, &count) == FERRY_OK) {
        log_move_done(s, item->group, nodes, count);
    }
}

void shard_report_move(struct shard *s, uint64_t group, const uint32_t *nodes, uint32_t count)
{
    if (s->meta == NULL) {
        return;
    }
    if (replica_is_ready(s->meta_seat->replica)) {
        log_move_done(s, group, nodes, count);
        return;
    }
    raft_id leader = replica_leader(s->meta_seat->replica);
    struct buf *b = leader != 0 && leader != s->self && s->outbox != NULL
                        ? peer_outbox_begin_to(s->outbox, leader, 0, group, NODE_MOVE_DONE)
                        : NULL;
    if (b != NULL) {
        node_moved_encode(b, nodes, count);
        peer_outbox_end(s->outbox);
    }
}

/* ---- Answers of the metadata ---- */

static void finish_register(struct shard *s, struct request *r)
{
    enum ferry_err err = r->meta_ticket.base.err;
    if (err != FERRY_OK) {
        refuse_or_later(s, r->peer, r->task.member, r->task.attempt, err, "");
        return;
    }
    struct node_register_reply reply = {.attempt = r->task.attempt,
                                        .answer = NODE_REGISTERED,
                                        .cluster_id = s->cluster_id,
                                        .meta_index = replica_applied(s->meta_seat->replica),
                                        .record_count = (uint32_t)meta_node_count(s->meta)};
    answer_register(s, r->peer, r->task.member, &reply);
}

void shard_finish_task(struct shard *s, struct request *r)
{
    if (r->task.kind == NODE_REGISTER && r->task.own) {
        own_registered(s, r->meta_ticket.base.err, "");
    } else if (r->task.kind == NODE_REGISTER) {
        finish_register(s, r);
    }
    shard_free_request(s, r);
}
