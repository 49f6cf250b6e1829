/* Who is in the cluster, as each shard keeps it: members, endpoints, routes. */
#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

static size_t node_place(const struct shard *s, uint32_t id)
{
    size_t low = 0, high = s->node_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->nodes[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct node *shard_find_node(const struct shard *s, uint32_t id)
{
    size_t at = node_place(s, id);
    return at < s->node_count && s->nodes[at]->id == id ? s->nodes[at] : NULL;
}

struct node *shard_find_member(const struct shard *s, raft_id member)
{
    struct node *n = shard_find_node(s, node_of_member(member));
    return n != NULL && n->member == member ? n : NULL;
}

/* ---- Adding and changing ---- */

static void free_node(struct node *n)
{
    if (n == NULL) {
        return;
    }
    if (n->far != NULL) {
        shard_close_links(n);
    }
    mem_free(n->far);
    mem_free(n->client);
    mem_free(n->peer);
    mem_free(n);
}

static char *text_of(struct bytes b)
{
    char *text = mem_alloc(b.size + 1);
    if (text != NULL) {
        memcpy(text, b.data, b.size);
        text[b.size] = '\0';
    }
    return text;
}

static struct node *new_node(const struct shard *s, const struct node_record *r)
{
    struct node *n = mem_zalloc(1, sizeof(*n));
    if (n == NULL) {
        return NULL;
    }
    n->id = node_of_member(r->member);
    n->member = r->member;
    n->boot = r->boot;
    n->boot_id = r->boot_id;
    n->shards = r->shards;
    n->client = text_of(r->client);
    n->peer = text_of(r->peer);
    n->far = mem_zalloc(r->shards, sizeof(*n->far));
    if (n->client == NULL || n->peer == NULL || n->far == NULL) {
        free_node(n);
        return NULL;
    }
    for (uint32_t i = 0; i < n->shards; i++) {
        n->far[i].heard_us = s->now_us; /* It has from now on to be heard. */
    }
    return n;
}

static bool is_same(const struct node *n, const struct node_record *r)
{
    return n->member == r->member && n->boot == r->boot && n->boot_id == r->boot_id &&
           n->shards == r->shards && bytes_equal(bytes_of_string(n->client), r->client) &&
           bytes_equal(bytes_of_string(n->peer), r->peer);
}

/* Same life, same places: what was heard and the links stay. */
static bool may_stay(const struct node *n, const struct node_record *r)
{
    return n->member == r->member && n->shards == r->shards &&
           bytes_equal(bytes_of_string(n->client), r->client) &&
           bytes_equal(bytes_of_string(n->peer), r->peer);
}

static enum ferry_err set_route(struct shard *s, const struct node *n)
{
    if (s->outbox == NULL || n->member == s->self) {
        return FERRY_OK;
    }
    struct peer_route route = {.member = n->member, .shards = n->shards};
    return peer_outbox_route(s->outbox, &route);
}

/* Groups that wait for this node to be known, or that it is wanted in, look again. */
static void look_again(struct shard *s, uint32_t id)
{
    for (struct list *l = s->led.next; l != &s->led; l = l->next) {
        struct seat *seat = list_entry(l, struct seat, led);
        bool concerned = seat->group == META_GROUP;
        for (uint32_t i = 0; i < seat->target_count; i++) {
            concerned = concerned || seat->target[i] == id;
        }
        if (concerned) {
            shard_look_at_members(s, seat);
        }
    }
}

static enum ferry_err add_node(struct shard *s, const struct node_record *r)
{
    struct node *n = new_node(s, r);
    if (n == NULL || !mem_grow((void **)&s->nodes, &s->node_capacity, s->node_count + 1,
                               sizeof(struct node *))) {
        free_node(n);
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = set_route(s, n);
    if (err != FERRY_OK) {
        free_node(n);
        return err;
    }
    size_t at = node_place(s, n->id);
    memmove(s->nodes + at + 1, s->nodes + at, (s->node_count - at) * sizeof(struct node *));
    s->nodes[at] = n;
    s->node_count++;
    return FERRY_OK;
}

enum ferry_err shard_set_node(struct shard *s, const struct node_record *r)
{
    struct node *n = shard_find_node(s, node_of_member(r->member));
    if (n != NULL && is_same(n, r)) {
        return FERRY_OK;
    }
    if (n != NULL && may_stay(n, r)) {
        n->boot = r->boot;
        n->boot_id = r->boot_id;
        return FERRY_OK;
    }
    if (n == NULL && s->node_count >= META_NODES_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    if (n != NULL) {
        shard_remove_node(s, n->id);
    }
    enum ferry_err err = add_node(s, r);
    if (err == FERRY_OK) {
        look_again(s, node_of_member(r->member));
    }
    return err;
}

void shard_remove_node(struct shard *s, uint32_t id)
{
    size_t at = node_place(s, id);
    if (at == s->node_count || s->nodes[at]->id != id) {
        return;
    }
    /* Nobody watches that life of it any more: quiet groups that it led would wait for ever. */
    shard_wake_groups_of(s, s->nodes[at]);
    if (s->outbox != NULL) {
        peer_outbox_forget(s->outbox, s->nodes[at]->member);
    }
    free_node(s->nodes[at]);
    s->node_count--;
    memmove(s->nodes + at, s->nodes + at + 1, (s->node_count - at) * sizeof(struct node *));
}

void shard_forget_nodes(struct shard *s)
{
    while (s->node_count > 0) {
        free_node(s->nodes[--s->node_count]);
    }
    mem_free(s->nodes);
    s->nodes = NULL;
}

/* ---- Shard 0: for all shards of the node ---- */

struct node_record shard_record_of(const struct meta_node *n)
{
    return (struct node_record){.member = n->member,
                                .boot = n->boot,
                                .boot_id = n->boot_id,
                                .weight = n->weight,
                                .shards = n->shards,
                                .zone = bytes_of_string(n->zone),
                                .client = bytes_of_string(n->client_endpoints),
                                .peer = bytes_of_string(n->peer_endpoints)};
}

static void post_node(struct shard *s, const struct node_record *r)
{
    for (uint32_t i = 1; i < s->peer_count; i++) {
        struct mail mail = {.kind = MAIL_NODE, .group = i};
        buf_init(&mail.text, 4 * NODE_ENDPOINTS_BYTES);
        node_record_encode(&mail.text, r);
        shard_post(s, &mail);
    }
}

void shard_learn_node(struct shard *s, const struct node_record *r)
{
    const struct node *n = shard_find_node(s, node_of_member(r->member));
    bool older = n != NULL && n->member == r->member && (r->boot < n->boot || is_same(n, r));
    if (older || (s->meta != NULL && meta_member_is_gone(s->meta, r->member))) {
        return;
    }
    enum ferry_err err = shard_set_node(s, r);
    if (err != FERRY_OK) {
        log_line(LOG_WARN, "shard", "node %u cannot be taken in: %s", node_of_member(r->member),
                 ferry_err_text(err));
        return;
    }
    post_node(s, r);
}

void shard_unlearn_node(struct shard *s, uint32_t id)
{
    shard_remove_node(s, id);
    for (uint32_t i = 1; i < s->peer_count; i++) {
        struct mail mail = {.kind = MAIL_NODE_GONE, .group = i, .node_id = id};
        shard_post(s, &mail);
    }
}

enum ferry_err shard_own_record(const struct shard *s, struct buf *client, struct buf *peer,
                                struct node_record *r)
{
    const struct broker_options *o = s->config.options;
    buf_init(client, NODE_ENDPOINTS_BYTES);
    buf_init(peer, NODE_ENDPOINTS_BYTES);
    for (uint32_t i = 0; i < s->peer_count; i++) {
        const char *at = shard_peer_endpoint(s->peers[i]);
        /* A node of its own has no port for peers: what it says is not used, but must be there. */
        buf_printf(client, "%s%s", i > 0 ? " " : "", shard_endpoint(s->peers[i]));
        buf_printf(peer, "%s%s", i > 0 ? " " : "", at[0] != '\0' ? at : "none");
    }
    *r = (struct node_record){.member = s->self,
                              .boot = s->boot_count,
                              .boot_id = s->boot_id,
                              .weight = (uint32_t)o->weight,
                              .shards = s->peer_count,
                              .zone = bytes_of_string(o->zone),
                              .client = buf_bytes(client),
                              .peer = buf_bytes(peer)};
    return buf_ok(client) && buf_ok(peer) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}
