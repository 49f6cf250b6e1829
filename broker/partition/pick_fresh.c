/* Messages that were never handed out, of mode queue: by priority, with ageing. Within a level the
 * first is the best one, so the best of all is among the levels' heads. */
#include "base/mem.h"
#include "partition/pick_internal.h"

void fresh_init(struct pick *k)
{
    for (uint32_t i = 0; i < PICK_LEVELS; i++) {
        k->levels[i] = (struct fresh_level){0};
    }
    k->ahead = 0;
}

void fresh_fini(struct pick *k)
{
    for (uint32_t i = 0; i < PICK_LEVELS; i++) {
        mem_free(k->levels[i].items);
    }
    fresh_init(k);
}

/* ---- A level: items[head .. head + count) ---- */

static struct fresh_range *level_head(struct fresh_level *l)
{
    return l->count > 0 ? &l->items[l->head] : NULL;
}

static void drop_front(struct pick *k, struct fresh_level *l, uint32_t messages)
{
    struct fresh_range *r = level_head(l);
    must(messages <= r->count && messages <= k->ahead);
    r->first += messages;
    r->count -= messages;
    k->ahead -= messages;
    if (r->count == 0) {
        l->head++;
        l->count--;
    }
    if (l->count == 0) {
        l->head = 0;
    }
}

static bool make_room(struct fresh_level *l)
{
    if (l->head + l->count < l->capacity) {
        return true;
    }
    if (l->head > l->capacity / 2) {
        must(l->items != NULL);
        memmove(l->items, l->items + l->head, l->count * sizeof(*l->items));
        l->head = 0;
        return true;
    }
    return mem_grow((void **)&l->items, &l->capacity, l->head + l->count + 1, sizeof(*l->items));
}

static bool is_more_of(const struct fresh_range *last, const struct fresh_range *r)
{
    return last->first + last->count == r->first && last->bytes_each == r->bytes_each &&
           last->append_time_ms == r->append_time_ms;
}

static enum ferry_err push_back(struct pick *k, uint32_t level, const struct fresh_range *r)
{
    struct fresh_level *l = &k->levels[level];
    struct fresh_range *last = l->count > 0 ? &l->items[l->head + l->count - 1] : NULL;
    if (last != NULL && is_more_of(last, r)) {
        last->count += r->count;
    } else {
        if (!make_room(l)) {
            return FERRY_ERR_NO_MEMORY;
        }
        must(l->items != NULL);
        l->items[l->head + l->count++] = *r;
    }
    k->ahead += r->count;
    return FERRY_OK;
}

enum ferry_err fresh_give_back(struct pick *k, const struct pick_taken *t)
{
    struct fresh_level *l = &k->levels[t->level];
    if (!make_room(l)) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = l->head;
    size_t end = l->head + l->count;
    while (at < end && l->items[at].first < t->first) {
        at++;
    }
    memmove(l->items + at + 1, l->items + at, (end - at) * sizeof(*l->items));
    l->items[at] = (struct fresh_range){.first = t->first,
                                        .count = t->count,
                                        .bytes_each = t->bytes_each,
                                        .append_time_ms = t->append_time_ms};
    l->count++;
    k->ahead += t->count;
    return FERRY_OK;
}

/* ---- Looking ahead ---- */

enum ferry_err fresh_piece(const struct pick *k, const struct pick_log *log,
                           struct pick_piece *piece, int64_t *first, uint32_t *count)
{
    *count = 0;
    uint64_t fresh = delivery_next_fresh(k->delivery, k->scanned, log->end, first);
    if (fresh == 0) {
        return FERRY_OK;
    }
    enum ferry_err err = log->read(log->arg, *first, piece);
    if (err == FERRY_OK) {
        must(piece->first <= *first && *first < piece->first + piece->count);
        uint64_t rest = (uint64_t)(piece->first + piece->count - *first);
        *count = (uint32_t)(fresh < rest ? fresh : rest);
    }
    return err;
}

static bool is_skipped(const struct pick_piece *piece, uint32_t *skip, uint32_t record)
{
    bool skipped =
        *skip < piece->skip_count && get_le32(piece->skips + (size_t)*skip * 4) == record;
    *skip += skipped;
    return skipped;
}

static enum ferry_err add_by_priority(struct pick *k, const struct pick_piece *piece,
                                      const struct fresh_range *all)
{
    struct fresh_range r = *all;
    int64_t offset = piece->first;
    int64_t end = all->first + all->count;
    uint32_t skip = 0;
    enum ferry_err err = FERRY_OK;
    r.count = 1;
    for (uint32_t i = 0; i < piece->header.count && offset < end && err == FERRY_OK; i++) {
        if (is_skipped(piece, &skip, i)) {
            continue;
        }
        if (offset >= all->first) {
            r.first = offset;
            err = push_back(k, batch_priority(piece->batch, &piece->header, i), &r);
            k->scanned = err == FERRY_OK ? offset + 1 : k->scanned;
        }
        offset++;
    }
    return err;
}

enum ferry_err fresh_scan(struct pick *k, const struct pick_log *log)
{
    enum ferry_err err = FERRY_OK;
    k->scan_more = false;
    for (uint32_t i = 0; i < PICK_SCAN_ENTRIES && k->ahead < PICK_AHEAD && err == FERRY_OK; i++) {
        struct pick_piece piece;
        int64_t first = 0;
        uint32_t count = 0;
        err = fresh_piece(k, log, &piece, &first, &count);
        if (err != FERRY_OK || count == 0) {
            return err;
        }
        struct fresh_range r = {.first = first,
                                .count = count,
                                .bytes_each = (uint32_t)(piece.batch.size / piece.header.count),
                                .append_time_ms = piece.append_time_ms};
        err = (piece.header.flags & BATCH_HAS_PRIORITIES) != 0 ? add_by_priority(k, &piece, &r)
                                                               : push_back(k, 0, &r);
        k->scanned = err == FERRY_OK ? first + count : k->scanned;
    }
    k->scan_more = k->ahead < PICK_AHEAD;
    return err;
}

/* ---- Choosing ---- */

/* What retention has dropped meanwhile. */
static void drop_done(struct pick *k, struct fresh_level *l, int64_t floor)
{
    struct fresh_range *r = level_head(l);
    while (r != NULL && r->first < floor) {
        uint64_t done = (uint64_t)(floor - r->first);
        drop_front(k, l, done < r->count ? (uint32_t)done : r->count);
        r = level_head(l);
    }
}

/* level + waited / age, both times age. */
static int64_t score_of(const struct pick *k, uint32_t level, const struct fresh_range *r,
                        int64_t now_ms)
{
    int64_t age_ms = delivery_settings(k->delivery)->priority_age_ms;
    return (int64_t)level * age_ms + (now_ms - r->append_time_ms);
}

/* PICK_LEVELS: there is none. */
static uint32_t best_level(struct pick *k, int64_t now_ms)
{
    uint32_t best = PICK_LEVELS;
    int64_t best_score = 0;
    int64_t floor = delivery_floor(k->delivery);
    for (uint32_t i = 0; i < PICK_LEVELS; i++) {
        drop_done(k, &k->levels[i], floor);
        const struct fresh_range *r = level_head(&k->levels[i]);
        if (r == NULL) {
            continue;
        }
        int64_t score = score_of(k, i, r, now_ms);
        if (best == PICK_LEVELS || score > best_score ||
            (score == best_score && r->first < level_head(&k->levels[best])->first)) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

enum ferry_err fresh_take(struct pick *k, const struct pick_clock *now, struct pick_room *room)
{
    for (;;) {
        uint32_t level = best_level(k, now->ms);
        if (level == PICK_LEVELS) {
            return FERRY_OK;
        }
        const struct fresh_range *r = level_head(&k->levels[level]);
        struct pick_taken t = {.first = r->first,
                               .count = pick_room_for(room, r->bytes_each, r->count),
                               .bytes_each = r->bytes_each,
                               .level = level,
                               .append_time_ms = r->append_time_ms};
        if (t.count == 0) {
            return FERRY_OK;
        }
        enum ferry_err err = pick_take(k, room, &t);
        if (err != FERRY_OK) {
            return err;
        }
        drop_front(k, &k->levels[level], t.count);
    }
}
