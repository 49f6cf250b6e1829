/* Who leads what, on shard 0 of each node: what a leader's shard tells when it begins to lead, and
 * again in full every few seconds, because a frame may be lost. Only a hint for clients: whoever is
 * asked in vain says who it is now. */
#include "base/mem.h"
#include "server/shard_internal.h"

struct leader {
    uint64_t group;
    raft_term term;
    uint64_t bytes;
    uint32_t node_id;
};

static bool leader_has_group(const void *item, const void *key)
{
    return ((const struct leader *)item)->group == *(const uint64_t *)key;
}

static struct leader *find(const struct shard *s, uint64_t group)
{
    return map_find(&s->leaders, map_hash_u64(group), leader_has_group, &group);
}

uint32_t shard_leader_of(const struct shard *s, uint64_t group)
{
    const struct leader *l = find(s, group);
    return l != NULL ? l->node_id : 0;
}

uint64_t shard_bytes_of(const struct shard *s, uint64_t group)
{
    const struct leader *l = find(s, group);
    return l != NULL ? l->bytes : 0;
}

void shard_learn_leader(struct shard *s, const struct node_led *led, uint32_t node_id)
{
    struct leader *l = find(s, led->group);
    if (l != NULL) {
        if (led->term >= l->term) {
            l->term = led->term;
            l->bytes = led->bytes;
            l->node_id = node_id;
        }
        return;
    }
    l = mem_zalloc(1, sizeof(*l));
    if (l == NULL || !map_add(&s->leaders, map_hash_u64(led->group), l)) {
        mem_free(l);
        return; /* A hint less; it is told again. */
    }
    *l = (struct leader){
        .group = led->group, .term = led->term, .bytes = led->bytes, .node_id = node_id};
    shard_count_led(s, led->group);
}

void shard_forget_leader(struct shard *s, uint64_t group)
{
    struct leader *l = find(s, group);
    if (l != NULL) {
        map_remove(&s->leaders, map_hash_u64(group), l);
        mem_free(l);
    }
}

void shard_forget_leaders(struct shard *s)
{
    size_t at = 0;
    for (struct leader *l; (l = map_next(&s->leaders, &at)) != NULL;) {
        mem_free(l);
    }
}

void shard_count_leaders(const struct shard *s, uint32_t counts[META_NODES_MAX])
{
    size_t at = 0;
    for (const struct leader *l; (l = map_next(&s->leaders, &at)) != NULL;) {
        for (size_t i = 0; i < META_NODES_MAX && meta_node_at(s->meta, i) != NULL; i++) {
            if (meta_node_at(s->meta, i)->id == l->node_id && l->group != META_GROUP) {
                counts[i]++;
                break;
            }
        }
    }
}

/* Groups that this node's copy of the metadata does not know (yet) are kept out, so that the table
 * is bounded by it; those of a topic that is being made here are known. */
void shard_take_leaders(struct shard *s, const struct peer_header *h, struct bytes body)
{
    uint32_t count = 0;
    if (s->meta == NULL || node_leaders_decode(body, &count) != FERRY_OK) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct node_led led = node_leaders_at(body, i);
        uint32_t partition;
        if (led.group == META_GROUP ||
            meta_topic_of_group(s->meta, led.group, &partition) != NULL) {
            shard_learn_leader(s, &led, node_of_member(h->from));
        }
    }
}

/* ---- Telling ---- */

static void tell_page(struct shard *s, const struct node_led *led, uint32_t count)
{
    for (size_t i = 0; i < s->node_count; i++) {
        const struct node *n = s->nodes[i];
        struct buf *b = n->member == s->self ? NULL
                                             : peer_outbox_begin_to(s->outbox, n->member, 0,
                                                                    META_GROUP, NODE_LEADERS);
        if (b != NULL) {
            node_leaders_encode(b, led, count);
            peer_outbox_end(s->outbox);
        }
    }
}

static void tell_here(struct shard *s, const struct node_led *led)
{
    if (shard_is_first(s)) {
        shard_learn_leader(s, led, node_of_member(s->self));
        return;
    }
    struct mail mail = {
        .kind = MAIL_LED, .group = led->group, .term = led->term, .bytes = led->bytes};
    shard_post(s, &mail);
}

/* New leaders stand at the end of the list: so a turn without any looks at one seat. */
static struct list *first_to_tell(struct shard *s, bool all)
{
    struct list *n = &s->led;
    if (all) {
        return n->next;
    }
    while (n->prev != &s->led && !list_entry(n->prev, struct seat, led)->told) {
        n = n->prev;
    }
    return n;
}

void shard_tell_leaders(struct shard *s, bool all)
{
    struct node_led page[256];
    uint32_t count = 0;
    for (struct list *n = first_to_tell(s, all); n != &s->led; n = n->next) {
        struct seat *seat = list_entry(n, struct seat, led);
        struct node_led led = {.group = seat->group, .term = seat->led_term};
        if (seat->partition != NULL) {
            led.bytes = (uint64_t)partition_size_bytes(seat->partition);
        }
        seat->told = true;
        tell_here(s, &led);
        page[count++] = led;
        if (count == sizeof(page) / sizeof(page[0])) {
            if (s->outbox != NULL) {
                tell_page(s, page, count);
            }
            count = 0;
        }
    }
    if (count > 0 && s->outbox != NULL) {
        tell_page(s, page, count);
    }
}
