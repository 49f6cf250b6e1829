/* Deleting the data of partitions that are gone from here: a little with each transaction. What is
 * left when the process ends is found again by the sweep at the next start. */
#include "base/mem.h"
#include "partition/replica_drop.h"
#include "server/shard_internal.h"

struct drop {
    struct list node;
    struct replica_drop replica;
};

static struct drop *find(const struct shard *s, uint64_t group)
{
    for (struct list *n = s->drops.next; n != &s->drops; n = n->next) {
        struct drop *d = list_entry(n, struct drop, node);
        if (d->replica.group == group) {
            return d;
        }
    }
    return NULL;
}

void shard_close_dropped(struct shard *s, struct seat *seat)
{
    if (seat->replica != NULL) {
        replica_fail(seat->replica, FERRY_ERR_UNKNOWN_TOPIC);
        shard_answer_partition(s, seat);
    }
    shard_stop_driving(s, seat);
    shard_check_transfers(s);
    shard_answer_reads(s, seat);
    shard_fail_fetches(s, seat);
    shard_fail_receives(s, seat);
    uint64_t group = seat->group;
    bool is_over = seat->is_over;
    struct mail mail = {.kind = MAIL_DROPPED, .group = group, .topic_id = seat->topic_id};
    shard_remove_seat(s, seat);
    if (shard_add_drop(s, group, is_over) != FERRY_OK) {
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
    }
    shard_post(s, &mail);
}

enum ferry_err shard_add_drop(struct shard *s, uint64_t group, bool is_over)
{
    struct drop *d = find(s, group);
    if (d != NULL) {
        d->replica.is_over = d->replica.is_over || is_over;
        return FERRY_OK;
    }
    d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&d->node);
    d->replica = (struct replica_drop){.group = group, .is_over = is_over};
    list_push_back(&s->drops, &d->node);
    return FERRY_OK;
}

bool shard_is_dropped(const struct shard *s, uint64_t group)
{
    return find(s, group) != NULL;
}

/* Only what stays of a replica that was deleted: see replica_drop.h. */
static bool are_remains(const struct store_group *g)
{
    return !g->installing && g->commit == 0 && g->trim_index == 0;
}

static enum ferry_err look_for_data(struct shard *s, uint64_t group, bool *row, bool *data)
{
    struct store_group g;
    uint64_t first = 0, last = 0;
    *row = *data = false;
    enum ferry_err err = store_get_group(s->store, group, &g);
    if (err != FERRY_OK) {
        return err == FERRY_ERR_UNKNOWN_PARTITION ? FERRY_OK : err;
    }
    err = store_log_bounds(s->store, group, &first, &last);
    *row = true;
    *data = first != 0 || !are_remains(&g);
    return err;
}

/* Data without a seat; and what stayed of a replica goes with its topic. */
enum ferry_err shard_drop_found(struct shard *s, uint64_t group, bool is_over)
{
    bool row = false, data = false;
    enum ferry_err err = store_read_begin(s->store);
    if (err == FERRY_OK) {
        err = look_for_data(s, group, &row, &data);
        store_read_end(s->store);
    }
    return err == FERRY_OK && (data || (row && is_over)) ? shard_add_drop(s, group, is_over) : err;
}

void shard_forget_drops(struct shard *s)
{
    for (struct list *n; (n = list_pop_front(&s->drops)) != NULL;) {
        mem_free(list_entry(n, struct drop, node));
    }
}

/* Whether the group lives elsewhere or is gone, shard 0 knows: it answers with MAIL_DROP. */
static enum ferry_err tell_if_unknown(const struct store_group *g, void *arg)
{
    struct shard *s = arg;
    if (g->group != META_GROUP && shard_find_seat(s, g->group) == NULL) {
        struct mail mail = {.kind = MAIL_FOUND, .group = g->group};
        shard_post(s, &mail);
    }
    return FERRY_OK;
}

enum ferry_err shard_sweep(struct shard *s)
{
    enum ferry_err err = store_read_begin(s->store);
    if (err == FERRY_OK) {
        err = store_each_group(s->store, tell_if_unknown, s);
        store_read_end(s->store);
    }
    return err;
}

bool shard_wants_drop(const struct shard *s)
{
    return !list_is_empty(&s->drops);
}

static struct drop *first_drop(const struct shard *s)
{
    return list_entry(s->drops.next, struct drop, node);
}

enum ferry_err shard_prepare_drop(struct shard *s)
{
    return shard_wants_drop(s) ? replica_drop_prepare(&first_drop(s)->replica, s->store) : FERRY_OK;
}

enum ferry_err shard_write_drop(struct shard *s)
{
    bool done = false;
    if (!shard_wants_drop(s)) {
        return FERRY_OK;
    }
    struct drop *d = first_drop(s);
    enum ferry_err err = replica_drop_write(&d->replica, s->store, &done);
    if (err == FERRY_OK && done) {
        list_remove(&d->node);
        mem_free(d);
    }
    return err;
}
