/* Trims, resets, and changes of dead letters. */
#include "partition/delivery_internal.h"

/* ---- Dead letters' rows ---- */

#define LETTER_BYTES (HISTORY_MAX * (NAME_MAX_BYTES + REASON_MAX_BYTES + 32u) + 128u)

enum ferry_err delivery_put_letter(struct delivery *d, const struct dead_letter *letter,
                                   struct rows *dead_rows)
{
    uint8_t key[16];
    struct buf row;
    buf_init(&row, letter->record.size + LETTER_BYTES);
    dead_encode(&row, letter);
    dead_key(d->number, letter->number, key);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = rows_put(dead_rows, bytes_of(key, sizeof(key)), buf_bytes(&row));
    }
    buf_fini(&row);
    return err;
}

enum ferry_err delivery_forget_letter(struct delivery *d, uint64_t number, struct rows *dead_rows)
{
    uint8_t key[16];
    dead_remove(d, number);
    if (d->counters.dead == 0 && d->parked_count > 0) {
        parked_clear(d); /* Nothing can park a key. */
    }
    dead_key(d->number, number, key);
    return rows_delete(dead_rows, bytes_of(key, sizeof(key)));
}

/* ---- Changes of dead letters ---- */

struct changing {
    struct delivery *d;
    int64_t time_ms;
    struct rows *dead_rows;
    uint32_t done;
};

static bool may_revive(const struct delivery *d, const struct dead_letter *letter)
{
    if (letter->offset < 0 || letter->offset == INT64_MAX) {
        return false;
    }
    struct delivery_run piece = delivery_piece(d, letter->offset, letter->offset + 1);
    return piece.state == DELIVERY_DONE;
}

static void revive(struct changing *c, const struct dead_change_part *part,
                   const struct dead_letter *letter)
{
    struct delivery *d = c->d;
    struct delivery_run run = {.first = letter->offset,
                               .count = 1,
                               .state = DELIVERY_WAITING,
                               .due_ms = c->time_ms,
                               .key_hash = d->keyed ? part->key_hash : 0,
                               .dead = part->number};
    if (letter->failure_count > 0) {
        run.history = history_of(d, letter->failures, letter->failure_count);
    }
    parked_change(d, part->parked, -1);
    revived_add(d, part->number, letter->offset);
    d->counters.revived++;
    delivery_paint(d, &run);
    history_release(d, run.history);
    delivery_push_change(d, &(struct delivery_change){.kind = DELIVERY_CHANGED_WAITING,
                                                      .first = run.first,
                                                      .count = run.count});
    c->done++;
}

static enum ferry_err replay(struct changing *c, const struct dead_change_part *part)
{
    uint8_t key[16];
    struct dead_letter letter;
    if (!dead_has(c->d, part->number) || revived_find(c->d, part->number) != NULL) {
        return FERRY_OK;
    }
    dead_key(c->d->number, part->number, key);
    enum ferry_err err = dead_decode(bytes_of(key, sizeof(key)), part->letter, &letter);
    if (err != FERRY_OK || !may_revive(c->d, &letter)) {
        return err;
    }
    revive(c, part, &letter);
    return letter.record.size > 0 ? delivery_put_letter(c->d, &letter, c->dead_rows) : FERRY_OK;
}

static enum ferry_err drop(struct changing *c, const struct dead_change_part *part)
{
    struct delivery *d = c->d;
    if (!dead_has(d, part->number)) {
        return FERRY_OK;
    }
    const struct revived *r = revived_find(d, part->number);
    if (r != NULL) {
        int64_t offset = r->offset;
        revived_remove(d, part->number);
        d->counters.died++;
        delivery_paint_done(d, offset, 1);
        delivery_advance_floor(d);
    } else {
        parked_change(d, part->parked, -1);
    }
    c->done++;
    return delivery_forget_letter(d, part->number, c->dead_rows);
}

enum ferry_err delivery_apply_dead_change(struct delivery *d, const struct dead_change_entry *e,
                                          int64_t time_ms, struct rows *dead_rows, uint32_t *done)
{
    struct changing c = {.d = d, .time_ms = time_ms, .dead_rows = dead_rows};
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < e->count && err == FERRY_OK && !d->no_memory; i++) {
        err = e->change == DEAD_REPLAY ? replay(&c, &e->parts[i]) : drop(&c, &e->parts[i]);
    }
    d->base_dirty = d->base_dirty || c.done > 0;
    *done = c.done;
    return err != FERRY_OK ? err : delivery_result(d);
}

/* ---- Trims and resets ---- */

static void trim_piece(struct delivery *d, const struct delivery_run *piece)
{
    if (piece->dead != 0) {
        return; /* Its record is not in the log. */
    }
    if (piece->state != DELIVERY_DONE) {
        d->counters.expired += piece->count;
    }
    if (piece->state != DELIVERY_FRESH) {
        struct delivery_run gap = {.first = piece->first, .count = piece->count};
        delivery_paint(d, &gap);
    }
}

enum ferry_err delivery_apply_trim(struct delivery *d, int64_t start)
{
    if (start <= d->floor) {
        return FERRY_OK;
    }
    d->base_dirty = true;
    for (int64_t at = d->floor; at < start && !d->no_memory;) {
        struct delivery_run piece = delivery_piece(d, at, start);
        at = run_end(&piece);
        trim_piece(d, &piece);
    }
    d->floor = start;
    delivery_advance_floor(d);
    return delivery_result(d);
}

enum ferry_err delivery_apply_reset(struct delivery *d, int64_t to)
{
    must(to >= 0);
    delivery_remove_all_runs(d);
    lease_forget_all(d);
    delivery_forget_derived(d);
    parked_clear(d);
    d->counters = (struct delivery_counters){.dead = d->counters.dead};
    d->start = to;
    d->floor = to;
    d->base_dirty = true;
    delivery_push_change(d, &(struct delivery_change){.kind = DELIVERY_CHANGED_RESET});
    return delivery_result(d);
}
