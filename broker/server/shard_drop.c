/* Deleting the data of partitions that are gone from here: a little with each transaction. What is
 * left when the process ends is found again by the sweep at the next start. */
#include "base/mem.h"
#include "server/shard_internal.h"

#define DROP_ENTRIES_MAX 512u
#define DROP_ROWS_MAX    512u

struct drop {
    struct list node;
    uint64_t group;
    uint64_t first, last; /* Entries left; 0: none. */
};

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
    uint64_t group = seat->group;
    struct mail mail = {.kind = MAIL_DROPPED, .group = group, .topic_id = seat->topic_id};
    shard_remove_seat(s, seat);
    if (shard_add_drop(s, group) != FERRY_OK) {
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
    }
    shard_post(s, &mail);
}

enum ferry_err shard_add_drop(struct shard *s, uint64_t group)
{
    struct drop *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&d->node);
    d->group = group;
    list_push_back(&s->drops, &d->node);
    return FERRY_OK;
}

bool shard_is_dropped(const struct shard *s, uint64_t group)
{
    for (const struct list *n = s->drops.next; n != &s->drops; n = n->next) {
        if (list_entry(n, struct drop, node)->group == group) {
            return true;
        }
    }
    return false;
}

void shard_forget_drops(struct shard *s)
{
    for (struct list *n; (n = list_pop_front(&s->drops)) != NULL;) {
        mem_free(list_entry(n, struct drop, node));
    }
}

static enum ferry_err add_if_unknown(const struct store_group *g, void *arg)
{
    struct shard *s = arg;
    if (g->group == META_GROUP || shard_find_seat(s, g->group) != NULL ||
        shard_is_dropped(s, g->group)) {
        return FERRY_OK;
    }
    return shard_add_drop(s, g->group);
}

enum ferry_err shard_sweep(struct shard *s)
{
    enum ferry_err err = store_read_begin(s->store);
    if (err == FERRY_OK) {
        err = store_each_group(s->store, add_if_unknown, s);
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
    if (!shard_wants_drop(s)) {
        return FERRY_OK;
    }
    struct drop *d = first_drop(s);
    enum ferry_err err = store_read_begin(s->store);
    if (err == FERRY_OK) {
        err = store_log_bounds(s->store, d->group, &d->first, &d->last);
        store_read_end(s->store);
    }
    return err;
}

enum ferry_err shard_write_drop(struct shard *s)
{
    if (!shard_wants_drop(s)) {
        return FERRY_OK;
    }
    struct drop *d = first_drop(s);
    uint32_t deleted = 0;
    uint64_t bytes = 0;
    if (d->first != 0) {
        return store_delete_entries(s->store, d->group, d->first, d->last, DROP_ENTRIES_MAX,
                                    &deleted, &bytes);
    }
    enum ferry_err err = store_delete_rows(s->store, d->group, 0, DROP_ROWS_MAX, &deleted);
    if (err != FERRY_OK || deleted > 0) {
        return err;
    }
    err = store_delete_group(s->store, d->group);
    list_remove(&d->node);
    mem_free(d);
    return err;
}
