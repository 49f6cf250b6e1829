#include "outbox/mariadb/handout.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool row_matches(const void *item, const void *key)
{
    const struct handout_row *row = item;
    const uint64_t *id = key;
    return row->id == *id;
}

static struct handout_row *find(const struct handout *h, uint64_t id)
{
    return map_find(&h->by_id, map_hash_u64(id), row_matches, &id);
}

const struct handout_row *handout_find(const struct handout *h, uint64_t id)
{
    return find(h, id);
}

enum ferry_err handout_init(struct handout *h, size_t rows_max)
{
    *h = (struct handout){.rows_max = rows_max};
    list_init(&h->free);
    list_init(&h->order);
    list_init(&h->due);
    map_init(&h->by_id);
    h->rows = mem_zalloc(rows_max, sizeof(*h->rows));
    if (h->rows == NULL || !map_reserve(&h->by_id, rows_max)) {
        handout_fini(h);
        return FERRY_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < rows_max; i++) {
        list_init(&h->rows[i].order);
        list_init(&h->rows[i].due);
        list_push_back(&h->free, &h->rows[i].order);
    }
    return FERRY_OK;
}

void handout_fini(struct handout *h)
{
    map_fini(&h->by_id);
    mem_free(h->rows);
    *h = (struct handout){0};
}

/* ---- Sums. */

void handout_sum_add(struct handout_sum *sum, uint64_t id)
{
    sum->count++;
    sum->ids ^= id;
}

static void sum_remove(struct handout_sum *sum, uint64_t id)
{
    sum->count--;
    sum->ids ^= id;
    must(sum->count >= 0);
}

static bool row_counts(const struct handout_row *row)
{
    return row->state != HANDOUT_DELETED && !row->gone;
}

static void count_in(struct handout *h, const struct handout_row *row)
{
    handout_sum_add(&h->all, row->id);
    if (row->id > h->low) {
        handout_sum_add(&h->recent, row->id);
    }
}

static void count_out(struct handout *h, const struct handout_row *row)
{
    sum_remove(&h->all, row->id);
    if (row->id > h->low) {
        sum_remove(&h->recent, row->id);
    }
}

struct handout_sum handout_expected(const struct handout *h, bool recent, uint64_t through)
{
    if (through >= h->top) {
        return recent ? h->recent : h->all;
    }
    struct handout_sum sum = {0};
    size_t at = 0;
    const struct handout_row *row;
    while ((row = map_next(&h->by_id, &at)) != NULL) {
        if (row_counts(row) && row->id <= through && (!recent || row->id > h->low)) {
            handout_sum_add(&sum, row->id);
        }
    }
    return sum;
}

void handout_set_low(struct handout *h, uint64_t low)
{
    h->low = low;
    h->recent = (struct handout_sum){0};
    size_t at = 0;
    const struct handout_row *row;
    while ((row = map_next(&h->by_id, &at)) != NULL) {
        if (row_counts(row) && row->id > low) {
            handout_sum_add(&h->recent, row->id);
        }
    }
}

/* ---- Rows come and go. */

static struct handout_row *row_new(struct handout *h, uint64_t id)
{
    struct list *node = list_pop_front(&h->free);
    must(node != NULL && id > 0);
    struct handout_row *row = list_entry(node, struct handout_row, order);
    row->id = id;
    row->position = 0;
    row->msg_id = (struct ferry_id){{0}};
    row->state = HANDOUT_HANDED;
    row->gone = false;
    row->seen = h->sweep;
    must(map_add(&h->by_id, map_hash_u64(id), row));
    h->top = id > h->top ? id : h->top;
    count_in(h, row);
    return row;
}

static void due_remove(struct handout *h, struct handout_row *row)
{
    if (row->state == HANDOUT_DUE) {
        list_remove(&row->due);
        h->due_count--;
    }
}

static void row_free(struct handout *h, struct handout_row *row)
{
    due_remove(h, row);
    if (row_counts(row)) {
        count_out(h, row);
    }
    if (row->position > 0) {
        list_remove(&row->order);
    }
    map_remove(&h->by_id, map_hash_u64(row->id), row);
    list_push_front(&h->free, &row->order);
}

static void row_is_due(struct handout *h, struct handout_row *row)
{
    row->state = HANDOUT_DUE;
    list_push_back(&h->due, &row->due);
    h->due_count++;
}

static void row_is_deleted(struct handout *h, struct handout_row *row)
{
    due_remove(h, row);
    if (row_counts(row)) {
        count_out(h, row);
    }
    row->state = HANDOUT_DELETED;
    if (row->position <= h->settled) {
        row_free(h, row);
    }
}

void handout_clear(struct handout *h, bool everything)
{
    for (size_t i = 0; i < h->rows_max; i++) {
        struct handout_row *row = &h->rows[i];
        if (find(h, row->id) != row) {
            continue;
        }
        if (everything || row->state == HANDOUT_HANDED || row->state == HANDOUT_DELETED) {
            row_free(h, row);
        } else if (row->position > 0) {
            list_remove(&row->order);
            row->position = 0;
        }
    }
    h->settled = 0;
    h->newest_settled = 0;
    if (everything) {
        h->top = 0;
        handout_set_low(h, 0);
    }
}

void handout_add(struct handout *h, uint64_t id, int64_t position, const struct ferry_id *msg_id)
{
    must(find(h, id) == NULL && position > h->settled);
    struct handout_row *row = row_new(h, id);
    row->position = position;
    row->msg_id = *msg_id;
    list_push_back(&h->order, &row->order);
}

bool handout_publish(struct handout *h, uint64_t id)
{
    struct handout_row *row = find(h, id);
    if (row == NULL) {
        if (handout_room(h) == 0) {
            return false;
        }
        row = row_new(h, id);
    }
    if (row->state == HANDOUT_HANDED) {
        row_is_due(h, row);
    }
    return true;
}

struct handout_count handout_count(const struct handout *h, uint64_t through)
{
    struct handout_count count = {0};
    size_t at = 0;
    const struct handout_row *row;
    while ((row = map_next(&h->by_id, &at)) != NULL) {
        bool handed = row->state == HANDOUT_HANDED;
        if (!row_counts(row)) {
            continue;
        }
        if (handed && (count.oldest == 0 || row->id < count.oldest)) {
            count.oldest = row->id;
        }
        count.handed += handed && row->id <= through ? 1 : 0;
        count.done_beyond += !handed && row->id > through ? 1 : 0;
    }
    return count;
}

uint64_t handout_rewind(struct handout *h, int64_t after)
{
    uint64_t least = 0;
    struct list *node = h->order.prev;
    while (node != &h->order) {
        struct handout_row *row = list_entry(node, struct handout_row, order);
        if (row->position <= after) {
            break;
        }
        node = node->prev;
        if (row->state == HANDOUT_HANDED) {
            least = least == 0 || row->id < least ? row->id : least;
            row_free(h, row);
        }
    }
    return least;
}

static void row_settle(struct handout *h, struct handout_row *row)
{
    if (row->id > h->newest_settled) {
        h->newest_settled = row->id;
        h->newest_settled_id = row->msg_id;
    }
    list_remove(&row->order);
    row->position = 0;
    if (row->state == HANDOUT_HANDED) {
        row_is_due(h, row);
    } else if (row->state == HANDOUT_DELETED) {
        row_free(h, row);
    }
}

void handout_settle(struct handout *h, int64_t position)
{
    if (position <= h->settled) {
        return;
    }
    h->settled = position;
    while (!list_is_empty(&h->order)) {
        struct handout_row *row = list_entry(h->order.next, struct handout_row, order);
        if (row->position > position) {
            break;
        }
        row_settle(h, row);
    }
}

/* ---- Deletions. */

static int compare_ids(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    return (*x > *y) - (*x < *y);
}

size_t handout_take(struct handout *h, uint64_t *ids, size_t max)
{
    size_t count = 0;
    while (count < max && h->due_count > 0) {
        struct handout_row *row = list_entry(h->due.next, struct handout_row, due);
        due_remove(h, row);
        row->state = HANDOUT_DELETING;
        ids[count++] = row->id;
    }
    qsort(ids, count, sizeof(*ids), compare_ids);
    return count;
}

void handout_deleted(struct handout *h, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        handout_removed(h, ids[i]);
    }
}

void handout_not_deleted(struct handout *h, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct handout_row *row = find(h, ids[i]);
        if (row != NULL && row->state == HANDOUT_DELETING) {
            row_is_due(h, row);
        }
    }
}

void handout_removed(struct handout *h, uint64_t id)
{
    struct handout_row *row = find(h, id);
    if (row != NULL && row->state != HANDOUT_DELETED) {
        row_is_deleted(h, row);
    }
}

/* ---- Sweeps. */

void handout_sweep_begin(struct handout *h)
{
    h->sweep++;
}

bool handout_sweep_id(struct handout *h, uint64_t id)
{
    struct handout_row *row = find(h, id);
    if (row == NULL) {
        return false;
    }
    row->seen = h->sweep;
    if (row->gone) {
        row->gone = false;
        if (row_counts(row)) {
            count_in(h, row);
        }
    }
    return true;
}

void handout_sweep_end(struct handout *h, uint64_t after, uint64_t through)
{
    size_t at = 0;
    struct handout_row *row;
    while ((row = map_next(&h->by_id, &at)) != NULL) {
        if (row->seen == h->sweep || row->gone || row->id <= after || row->id > through) {
            continue;
        }
        if (row_counts(row)) {
            count_out(h, row);
        }
        row->gone = true;
    }
}

void handout_check(const struct handout *h)
{
    struct handout_sum all = {0};
    struct handout_sum recent = {0};
    size_t at = 0;
    size_t due = 0;
    const struct handout_row *row;
    while ((row = map_next(&h->by_id, &at)) != NULL) {
        must(row->id <= h->top);
        must((row->position > 0) == !list_is_empty(&row->order));
        must((row->state == HANDOUT_DUE) == !list_is_empty(&row->due));
        due += row->state == HANDOUT_DUE ? 1 : 0;
        if (row_counts(row)) {
            handout_sum_add(&all, row->id);
            if (row->id > h->low) {
                handout_sum_add(&recent, row->id);
            }
        }
    }
    must(due == h->due_count);
    must(all.count == h->all.count && all.ids == h->all.ids);
    must(recent.count == h->recent.count && recent.ids == h->recent.ids);
    int64_t before = h->settled;
    for (struct list *node = h->order.next; node != &h->order; node = node->next) {
        const struct handout_row *next = list_entry(node, struct handout_row, order);
        must(next->position > before);
        before = next->position;
    }
}
