/* How a node comes to its cluster and is known there, on shard 0.
 *
 * SEEK (no cluster yet): HELLO to all seeds. One of a cluster that names this member as a founder:
 * take that over. One of any other cluster: REGISTER there. With node.bootstrap, all of its nodes
 * seen and none of a cluster: the lowest id founds it with the members it has seen; the others are
 * told when they ask. So a cluster is founded once: by one node, only from empty folders.
 * REGISTER: at each start the metadata leader is told of this start: places, zone, boot count. It
 * refuses an old copy of the folder, and a member that was replaced or removed.
 * CATCH_UP: the answer named an index of the metadata. What this copy says before it has got so far
 * may be old: partitions are opened by it (their own logs are right), but nothing is deleted.
 * DONE.
 *
 * A node alone (no node.peer_listen, or neither bootstrap nor join) is a cluster of its own from
 * the start, and registers with itself. */
#include <stdio.h>

#include "base/log.h"
#include "server/shard_internal.h"

#define ASK_US          100000  /* Between two rounds of HELLO, and to the next REGISTER. */
#define PATIENCE_US     1000000 /* For an answer. */
#define FRESH_US        3000000 /* A HELLO_REPLY counts for so long. */
#define SAY_US          10000000
#define ATTEMPTS_REMIND 20u

/* ---- The metadata group ---- */

static enum ferry_err open_meta(struct shard *s, const struct raft_members *initial,
                                struct err_text *e)
{
    const struct broker_options *o = s->config.options;
    struct meta_config config = {.store = s->store,
                                 .self = s->self,
                                 .initial = *initial,
                                 .seed = s->seed ^ META_GROUP,
                                 .election_min_us = o->election_min_ms * 1000,
                                 .election_max_us = o->election_max_ms * 1000,
                                 .heartbeat_us = o->heartbeat_ms * 1000};
    enum ferry_err err = shard_add_seat(s, META_GROUP, &s->meta_seat);
    if (err == FERRY_OK) {
        err = meta_open(&config, s->now_us, &s->meta, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    s->meta_seat->replica = meta_replica(s->meta);
    s->meta_seat->announced = true;
    shard_touch(s, s->meta_seat);
    heap_set(&s->timers, &s->meta_seat->timer, s->now_us);
    return FERRY_OK;
}

/* The nodes that the copy on disk knows. Places may have changed since: registering tells. */
static void learn_from_meta(struct shard *s)
{
    const struct meta_node *n;
    for (size_t i = 0; (n = meta_node_at(s->meta, i)) != NULL; i++) {
        struct node_record r = shard_record_of(n);
        shard_learn_node(s, &r);
    }
}

/* ---- Beginning ---- */

static uint32_t hash_founders(const struct seed_option *seeds, size_t count)
{
    uint64_t hash = count;
    for (size_t i = 0; i < count; i++) {
        hash = map_hash_u64(hash ^ seeds[i].node_id);
    }
    return count == 0 ? 0 : (uint32_t)hash | 1;
}

static void add_contact(struct shard *s, const char *endpoint)
{
    struct join *j = &s->join;
    for (size_t i = 0; i < j->contact_count; i++) {
        if (strcmp(j->contacts[i].endpoint, endpoint) == 0) {
            return;
        }
    }
    size_t at = j->contact_count < CONTACTS_MAX
                    ? j->contact_count++
                    : j->seed_count + (j->attempt % (CONTACTS_MAX - j->seed_count));
    struct contact *c = &j->contacts[at];
    net_link_close(&c->link);
    *c = (struct contact){0};
    (void)snprintf(c->endpoint, sizeof(c->endpoint), "%s", endpoint);
}

static enum ferry_err read_options(struct shard *s, struct err_text *e)
{
    struct join *j = &s->join;
    const struct broker_options *o = s->config.options;
    enum ferry_err err = FERRY_OK;
    if (shard_is_clustered(s)) {
        err = broker_options_seeds(o, j->seeds, &j->seed_count, e);
    }
    for (size_t i = 0; i < j->seed_count && err == FERRY_OK; i++) {
        j->founder_count += j->seeds[i].node_id != 0 ? 1 : 0;
        j->founders_hash = hash_founders(j->seeds, j->founder_count);
        if (j->seeds[i].node_id != (uint32_t)o->node_id) {
            add_contact(s, j->seeds[i].endpoint);
        }
    }
    j->seed_count = j->contact_count;
    return err;
}

enum ferry_err shard_begin_join(struct shard *s, struct err_text *e)
{
    struct raft_members initial = {0};
    bool joined = false;
    s->boot_id = prng_next(&s->prng) | 1;
    s->join.first_attempt = (uint32_t)(s->boot_id >> 33); /* Room for as many to come. */
    s->join.attempt = s->join.first_attempt;
    enum ferry_err err = read_options(s, e);
    if (err == FERRY_OK) {
        err = shard_count_boot(s);
    }
    if (err == FERRY_OK) {
        err = shard_read_founders(s, &initial);
    }
    if (err == FERRY_OK) {
        err = shard_has_mark(s, "joined", &joined);
    }
    if (err == FERRY_OK) {
        err = shard_has_mark(s, "whole", &s->is_whole);
    }
    s->join.founders = initial;
    s->join.step = id_is_zero(&s->cluster_id) ? JOIN_SEEK : JOIN_REGISTER;
    if (err != FERRY_OK || s->join.step == JOIN_SEEK) {
        return err;
    }
    if (initial.voter_count == 0 && !joined) {
        initial = (struct raft_members){.voter_count = 1, .voters = {s->self}};
    }
    return open_meta(s, &initial, e);
}

/* ---- Coming to a cluster ---- */

static void tell_shards(struct shard *s)
{
    peer_outbox_set_cluster(s->outbox, &s->cluster_id);
    for (uint32_t i = 1; i < s->peer_count; i++) {
        struct mail mail = {.kind = MAIL_CLUSTER, .group = i, .topic_id = s->cluster_id};
        shard_post(s, &mail);
    }
}

/* `founders` without voters: it lives already, and this node is let in. */
static void enter_cluster(struct shard *s, const struct ferry_id *cluster_id,
                          const struct raft_members *founders)
{
    struct err_text e = {{0}};
    char text[ID_TEXT_BYTES];
    enum ferry_err err = shard_remember_cluster(s, cluster_id, founders);
    if (err == FERRY_OK) {
        s->cluster_id = *cluster_id;
        s->join.founders = *founders;
        tell_shards(s);
        err = open_meta(s, founders, &e);
    }
    if (err != FERRY_OK) {
        shard_fail_store(s, err);
        return;
    }
    id_format(cluster_id, text);
    log_line(LOG_INFO, "cluster", "node %lld %s cluster %s", (long long)s->config.options->node_id,
             founders->voter_count > 0 ? "is a founder of" : "joins", text);
}

/* ---- HELLO ---- */

static void send_to(struct shard *s, struct contact *c, enum node_kind kind, struct bytes body)
{
    struct buf frame;
    struct err_text e;
    if (c->link != NULL && c->asked_us > c->answered_us && s->now_us - c->asked_us > PATIENCE_US) {
        net_link_close(&c->link); /* With what it has queued: only the last question counts. */
    }
    if (c->link == NULL && net_link_open(s->config.context, c->endpoint, PEER_FRAME_MAX_BYTES,
                                         &c->link, &e) != FERRY_OK) {
        log_line(LOG_WARN, "cluster", "%s", e.text);
        return;
    }
    if (peer_outbox_single(s->outbox, 0, 0, META_GROUP, (uint8_t)kind, body, &frame) == FERRY_OK &&
        net_link_send(c->link, &frame) == FERRY_OK) {
        c->asked_us = s->now_us;
    }
    buf_fini(&frame);
}

static void say_hello(struct shard *s)
{
    struct join *j = &s->join;
    struct buf client, peer, body;
    struct node_hello h = {.is_member = !id_is_zero(&s->cluster_id),
                           .founders_hash = j->founders_hash};
    if (shard_own_record(s, &client, &peer, &h.record) == FERRY_OK) {
        buf_init(&body, PEER_FRAME_MAX_BYTES);
        node_hello_encode(&body, &h);
        for (size_t i = 0; i < j->seed_count; i++) {
            struct contact *c = &j->contacts[i];
            bool waits = c->asked_us > c->answered_us && s->now_us - c->asked_us <= PATIENCE_US;
            if (!waits) {
                send_to(s, c, NODE_HELLO, buf_bytes(&body));
            }
        }
        buf_fini(&body);
    }
    buf_fini(&client);
    buf_fini(&peer);
}

static struct contact *contact_of(struct shard *s, const struct node_record *r)
{
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct join *j = &s->join;
    (void)node_endpoint(r->peer, 0, endpoint);
    struct contact *empty = NULL;
    for (size_t i = 0; i < j->seed_count; i++) {
        struct contact *c = &j->contacts[i];
        if (c->node_id == node_of_member(r->member) || strcmp(c->endpoint, endpoint) == 0) {
            return c;
        }
        empty = c->node_id == 0 && empty == NULL ? c : empty;
    }
    return empty; /* It goes by another name there than here. */
}

static bool is_founder(const struct node_hello_reply *h, raft_id member)
{
    for (uint32_t i = 0; i < h->founder_count; i++) {
        if (h->founders[i] == member) {
            return true;
        }
    }
    return false;
}

static void follow_founders(struct shard *s, const struct node_hello_reply *h)
{
    struct raft_members founders = {.voter_count = h->founder_count};
    memcpy(founders.voters, h->founders, h->founder_count * sizeof(raft_id));
    if (raft_members_check(&founders) == FERRY_OK) {
        enter_cluster(s, &h->cluster_id, &founders);
        s->join.step = JOIN_REGISTER;
    }
}

static void redirect(struct shard *s, struct bytes endpoint)
{
    struct join *j = &s->join;
    size_t size = endpoint.size <= ENDPOINT_MAX_BYTES ? endpoint.size : 0;
    memcpy(j->redirect, endpoint.data, size);
    j->redirect[size] = '\0';
    j->redirected = size > 0;
    /* At once, but not again and again as fast as answers come: each answer to HELLO names the
     * leader too, and two nodes may name each other. */
    int64_t next_us = j->followed_us + ASK_US;
    j->due_us = j->followed_us == 0 || s->now_us > next_us ? s->now_us : next_us;
    j->followed_us = j->due_us;
}

void shard_take_hello_reply(struct shard *s, struct bytes body)
{
    struct node_hello_reply h;
    struct join *j = &s->join;
    if (node_hello_reply_decode(body, &h) != FERRY_OK) {
        return;
    }
    struct contact *c = contact_of(s, &h.record);
    if (c != NULL) {
        c->answered_us = s->now_us;
        c->node_id = node_of_member(h.record.member);
        c->member = h.record.member;
        c->is_member = h.is_member;
        c->founders_hash = h.founders_hash;
    }
    bool same = h.is_member && id_equal(&h.cluster_id, &s->cluster_id);
    bool founding = j->step == JOIN_SEEK && !h.is_member && h.founders_hash == j->founders_hash;
    if (same || founding || (h.is_member && j->step == JOIN_SEEK)) {
        shard_learn_node(s, &h.record);
    }
    if (j->step == JOIN_SEEK && h.is_member && is_founder(&h, s->self)) {
        follow_founders(s, &h);
    } else if (h.is_member && j->step <= JOIN_REGISTER && h.leader.size > 0) {
        redirect(s, h.leader);
    }
}

/* ---- Founding ---- */

static void say(struct shard *s, const char *what)
{
    if (s->now_us >= s->join.said_us + SAY_US || s->join.said_us == 0) {
        log_line(LOG_INFO, "cluster", "node %lld %s", (long long)s->config.options->node_id, what);
        s->join.said_us = s->now_us;
    }
}

static const struct contact *contact_of_node(const struct shard *s, uint32_t node_id)
{
    for (size_t i = 0; i < s->join.seed_count; i++) {
        if (s->join.contacts[i].node_id == node_id) {
            return &s->join.contacts[i];
        }
    }
    return NULL;
}

/* All nodes of node.bootstrap have been seen just now, of no cluster, with the same list. */
static bool all_are_there(struct shard *s, struct raft_members *founders)
{
    const struct join *j = &s->join;
    *founders = (struct raft_members){0};
    for (size_t i = 0; i < j->founder_count; i++) {
        uint32_t id = j->seeds[i].node_id;
        const struct contact *c = contact_of_node(s, id);
        if (id == node_of_member(s->self)) {
            founders->voters[founders->voter_count++] = s->self;
            continue;
        }
        if (c == NULL || c->is_member || s->now_us - c->answered_us > FRESH_US) {
            say(s, "waits for the other nodes of node.bootstrap");
            return false;
        }
        if (c->founders_hash != j->founders_hash) {
            say(s, "waits: another node has another list in node.bootstrap");
            return false;
        }
        founders->voters[founders->voter_count++] = c->member;
    }
    return true;
}

/* By id of the node, the lower half of a member; the core wants members in order. */
static void sort_members(struct raft_members *m)
{
    for (uint32_t i = 1; i < m->voter_count; i++) {
        for (uint32_t at = i; at > 0 && m->voters[at - 1] > m->voters[at]; at--) {
            raft_id swap = m->voters[at];
            m->voters[at] = m->voters[at - 1];
            m->voters[at - 1] = swap;
        }
    }
}

static void try_to_found(struct shard *s)
{
    struct join *j = &s->join;
    struct raft_members founders;
    if (j->founder_count == 0) {
        say(s, "asks for its cluster: nobody of node.join has answered yet");
        return;
    }
    if (j->seeds[0].node_id != node_of_member(s->self)) {
        say(s, "waits until the first node of node.bootstrap founds the cluster");
        return;
    }
    if (!all_are_there(s, &founders)) {
        return;
    }
    sort_members(&founders);
    struct ferry_id cluster_id = id_random(&s->ids);
    enter_cluster(s, &cluster_id, &founders);
    j->step = JOIN_REGISTER;
}

/* ---- REGISTER ---- */

/* Whom to ask this time: who was named as leader, whom group 0 follows, then one after another. */
static bool choose_endpoint(struct shard *s, char endpoint[ENDPOINT_MAX_BYTES + 1])
{
    struct join *j = &s->join;
    if (j->redirected) {
        j->redirected = false;
        (void)snprintf(endpoint, ENDPOINT_MAX_BYTES + 1, "%s", j->redirect);
        return true;
    }
    raft_id leader = s->meta != NULL ? replica_leader(s->meta_seat->replica) : 0;
    const struct node *n = leader != 0 ? shard_find_member(s, leader) : NULL;
    if (n != NULL && n->member != s->self && j->attempt % 2 == 0) {
        return node_endpoint(bytes_of_string(n->peer), 0, endpoint);
    }
    size_t choices = j->seed_count + s->node_count;
    for (size_t i = 0; i < choices; i++) {
        size_t at = j->next_contact++ % choices;
        if (at < j->seed_count) {
            (void)snprintf(endpoint, ENDPOINT_MAX_BYTES + 1, "%s", j->contacts[at].endpoint);
            return true;
        }
        n = s->nodes[at - j->seed_count];
        if (n->member != s->self && node_endpoint(bytes_of_string(n->peer), 0, endpoint)) {
            return true;
        }
    }
    return false;
}

static void send_register(struct shard *s)
{
    struct join *j = &s->join;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct buf client, peer, body;
    struct node_register r;
    j->due_us = s->now_us + PATIENCE_US / 2;
    if (!choose_endpoint(s, endpoint)) {
        return;
    }
    r.attempt = ++j->attempt;
    if ((j->attempt - j->first_attempt) % ATTEMPTS_REMIND == 0) {
        say(s, "asks for the leader of the metadata: no quorum of it has answered yet");
    }
    if (shard_own_record(s, &client, &peer, &r.record) == FERRY_OK) {
        buf_init(&body, PEER_FRAME_MAX_BYTES);
        node_register_encode(&body, &r);
        add_contact(s, endpoint);
        for (size_t i = 0; i < j->contact_count; i++) {
            if (strcmp(j->contacts[i].endpoint, endpoint) == 0) {
                send_to(s, &j->contacts[i], NODE_REGISTER, buf_bytes(&body));
            }
        }
        buf_fini(&body);
    }
    buf_fini(&client);
    buf_fini(&peer);
}

static void registered(struct shard *s, const struct node_register_reply *r)
{
    struct join *j = &s->join;
    struct bytes rest = r->records;
    if (j->step == JOIN_SEEK) {
        struct raft_members nobody = {0};
        enter_cluster(s, &r->cluster_id, &nobody);
    }
    if (s->meta == NULL) {
        return; /* It could not be written down; the shard has ended. */
    }
    for (uint32_t i = 0; i < r->record_count; i++) {
        struct node_record record;
        must(node_record_decode(&rest, &record) == FERRY_OK);
        shard_learn_node(s, &record);
    }
    j->meta_index = r->meta_index;
    j->step = JOIN_CATCH_UP;
    j->due_us = s->now_us;
}

void shard_take_register_reply(struct shard *s, const struct node_register_reply *r)
{
    struct join *j = &s->join;
    bool is_ours = r->attempt > j->first_attempt && r->attempt <= j->attempt;
    if (!is_ours || j->step > JOIN_REGISTER) {
        return;
    }
    for (size_t i = 0; i < j->contact_count; i++) {
        j->contacts[i].answered_us = s->now_us; /* Whoever it was: nobody is waited for. */
    }
    switch (r->answer) {
    case NODE_REGISTERED:
        if (id_is_zero(&s->cluster_id) || id_equal(&s->cluster_id, &r->cluster_id)) {
            registered(s, r);
        }
        return;
    case NODE_REDIRECT:
        /* One answer an attempt: each repeat of an older one would make another request, which may
         * be repeated as well, and so on. */
        if (r->attempt == j->attempt) {
            redirect(s, r->detail);
        }
        return;
    case NODE_REFUSED: {
        char text[NODE_TEXT_MAX + 1];
        memcpy(text, r->detail.data, r->detail.size);
        text[r->detail.size] = '\0';
        shard_end(s, r->err, text);
        return;
    }
    case NODE_LATER:
        j->due_us = s->now_us + ASK_US;
        return;
    }
}

static void step_register(struct shard *s)
{
    struct join *j = &s->join;
    if (s->meta != NULL && replica_is_ready(s->meta_seat->replica)) {
        if (!j->own_running) {
            shard_register_self(s);
        }
        j->due_us = s->now_us + PATIENCE_US / 2;
        return;
    }
    if (shard_is_clustered(s)) {
        say_hello(s); /* Places may have changed since the metadata was written. */
        send_register(s);
    } else {
        j->due_us = s->now_us + PATIENCE_US;
    }
}

/* ---- Catching up ---- */

static void step_catch_up(struct shard *s)
{
    struct join *j = &s->join;
    j->due_us = s->now_us + ASK_US;
    /* After a crash amid a snapshot its rows are there in part, and say what they will say. */
    bool whole = replica_state(s->meta_seat->replica) != REPLICA_INSTALLING;
    if (whole && replica_applied(s->meta_seat->replica) >= j->meta_index) {
        j->step = JOIN_DONE;
        shard_send_catalog(s, true);
    }
}

/* ---- Each turn ---- */

static void read_contacts(struct shard *s)
{
    struct net_message m;
    net_message_init(&m);
    for (size_t i = 0; i < s->join.contact_count; i++) {
        struct net_link *link = s->join.contacts[i].link;
        if (link != NULL && net_link_receive(link, &m)) {
            shard_take_link_frame(s, net_message_bytes(&m), true);
        }
    }
    net_message_close(&m);
}

/* Partitions of a copy that may be old are opened all the same: their logs say what they are. */
static void open_early(struct shard *s)
{
    if (s->meta != NULL && !s->catalog_sent && s->peers != NULL) {
        learn_from_meta(s);
        if (shard_is_clustered(s)) {
            shard_send_catalog(s, false);
        }
    }
}

static void check_ready(struct shard *s)
{
    if (s->join.step == JOIN_DONE && s->opening == 0 && !atomic_load(&s->ready)) {
        atomic_store(&s->ready, true);
    }
}

static void close_contacts(struct shard *s)
{
    for (size_t i = 0; i < s->join.contact_count; i++) {
        net_link_close(&s->join.contacts[i].link);
    }
}

void shard_step_join(struct shard *s)
{
    struct join *j = &s->join;
    if (j->step == JOIN_DONE || atomic_load(&s->failure) != FERRY_OK) {
        check_ready(s);
        return;
    }
    read_contacts(s);
    open_early(s);
    if (j->step == JOIN_CATCH_UP) {
        step_catch_up(s);
    } else if (s->now_us >= j->due_us) {
        bool redirected = j->redirected;
        j->due_us = s->now_us + ASK_US;
        if (j->step == JOIN_SEEK && !redirected) {
            say_hello(s);
            try_to_found(s);
        } else if (j->step == JOIN_SEEK) {
            send_register(s);
            j->due_us = s->now_us + PATIENCE_US / 2;
        } else {
            step_register(s);
        }
    }
    if (j->step == JOIN_DONE) {
        close_contacts(s);
    }
    check_ready(s);
}

int64_t shard_join_deadline_us(const struct shard *s)
{
    return s->join.step == JOIN_DONE ? INT64_MAX : s->join.due_us;
}

size_t shard_join_links(struct shard *s, struct net_poll_item *items, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < s->join.contact_count && count < max; i++) {
        if (s->join.contacts[i].link != NULL) {
            items[count++] = (struct net_poll_item){.link = s->join.contacts[i].link, .fd = -1};
        }
    }
    return count;
}

void shard_end_join(struct shard *s)
{
    close_contacts(s);
}
