/* Seats: the replicas of this shard, and what can be said of one without asking it. */
#include "base/mem.h"
#include "server/shard_internal.h"

static bool seat_has_group(const void *item, const void *key)
{
    return ((const struct seat *)item)->group == *(const uint64_t *)key;
}

struct seat *shard_find_seat(const struct shard *s, uint64_t group)
{
    return map_find(&s->seats, map_hash_u64(group), seat_has_group, &group);
}

void shard_touch(struct shard *s, struct seat *seat)
{
    if (list_is_empty(&seat->touched)) {
        list_push_back(&s->touched, &seat->touched);
    }
}

enum ferry_err shard_add_seat(struct shard *s, uint64_t group, struct seat **seat)
{
    struct seat *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->group = group;
    list_init(&made->touched);
    list_init(&made->fetches);
    list_init(&made->receives);
    list_init(&made->reads);
    list_init(&made->led);
    list_init(&made->transferring);
    heap_node_init(&made->timer);
    heap_node_init(&made->move);
    if (!heap_reserve(&s->timers, s->seats.count + 1) ||
        !heap_reserve(&s->moves, s->seats.count + 1) ||
        !map_add(&s->seats, map_hash_u64(group), made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    *seat = made;
    return FERRY_OK;
}

void shard_remove_seat(struct shard *s, struct seat *seat)
{
    must(list_is_empty(&seat->fetches) && list_is_empty(&seat->reads));
    must(list_is_empty(&seat->receives));
    must(list_is_empty(&seat->led) && seat->transfer == NULL);
    if (!list_is_empty(&seat->touched)) {
        list_remove(&seat->touched);
    }
    shard_stop_waiting(s, seat);
    heap_remove(&s->timers, &seat->timer);
    heap_remove(&s->moves, &seat->move);
    map_remove(&s->seats, map_hash_u64(seat->group), seat);
    partition_close(&seat->partition);
    mem_free(seat);
}

void shard_set_timer(struct shard *s, struct seat *seat)
{
    int64_t due = seat->partition != NULL ? partition_deadline_us(seat->partition)
                                          : replica_deadline_us(seat->replica);
    if (seat->partition == NULL && s->meta != NULL) {
        int64_t meta_due = meta_deadline_us(s->meta);
        due = meta_due < due ? meta_due : due;
    }
    if (due == RAFT_NEVER) {
        heap_remove(&s->timers, &seat->timer);
    } else {
        heap_set(&s->timers, &seat->timer, due);
    }
}

bool shard_is_first(const struct shard *s)
{
    return s->config.index == 0;
}

bool shard_is_clustered(const struct shard *s)
{
    return s->peer_server != NULL;
}

/* ---- Views ---- */

enum ferry_err shard_view(struct shard *s)
{
    if (s->view_open) {
        return FERRY_OK;
    }
    enum ferry_err err = store_read_begin(s->store);
    s->view_open = err == FERRY_OK;
    return err;
}

void shard_end_view(struct shard *s)
{
    if (s->view_open) {
        store_read_end(s->store);
        s->view_open = false;
    }
}

/* ---- Who leads ---- */

/* Moved away, perhaps: whoever asks looks at the metadata again. Not NOT_LEADER, which leaves open
 * whether something was done. */
enum ferry_err shard_unknown_group(const struct shard *s)
{
    return s->knows_catalog ? FERRY_ERR_UNKNOWN_PARTITION : FERRY_ERR_NOT_READY;
}

enum ferry_err shard_dropping_error(const struct shard *s)
{
    return s->node_count > 1 ? FERRY_ERR_UNKNOWN_PARTITION : FERRY_ERR_UNKNOWN_TOPIC;
}

const char *shard_leader_hint(const struct shard *s, const struct seat *seat,
                              char text[ENDPOINT_MAX_BYTES + 1])
{
    text[0] = '\0';
    raft_id leader = seat->replica != NULL ? replica_leader(seat->replica) : 0;
    const struct node *n = leader != 0 && leader != s->self ? shard_find_member(s, leader) : NULL;
    if (n != NULL) {
        (void)node_endpoint(bytes_of_string(n->client), (uint32_t)(seat->group % n->shards), text);
    }
    return text;
}

enum ferry_err shard_check_leads(const struct shard *s, const struct seat *seat)
{
    enum ferry_err err = replica_check_leader(seat->replica);
    const struct raft_members *m = replica_members(seat->replica);
    bool alone = m->voter_count == 1 && m->voters[0] == s->self;
    /* Cut off from the others it may never learn who leads: somebody else may know. */
    return err == FERRY_ERR_NOT_READY && !alone && replica_leader(seat->replica) != s->self
               ? FERRY_ERR_NOT_LEADER
               : err;
}
