/* Failures of messages: each content is kept once, however many runs have it, so that two are the
 * same exactly if they are the same pointer. */
#include "base/checksum.h"
#include "base/mem.h"
#include "partition/delivery_internal.h"
#include "wire/pack.h"

/* Eight failures with the longest names and reasons. */
#define HISTORY_ROW_MAX_BYTES (HISTORY_MAX * (NAME_MAX_BYTES + REASON_MAX_BYTES + 32u))

static bool has_content(const void *item, const void *key)
{
    const struct delivery_history *h = item;
    return bytes_equal(bytes_of(h->data, h->size), *(const struct bytes *)key);
}

static size_t memory_of(const struct delivery_history *h)
{
    return sizeof(*h) + h->size + 2 * sizeof(struct map_slot);
}

struct delivery_history *history_find(const struct delivery *d, struct bytes content)
{
    return map_find(&d->histories, checksum_of(content.data, content.size), has_content, &content);
}

static struct delivery_history *make(struct delivery *d, uint64_t number, struct bytes content)
{
    struct delivery_history *h = mem_alloc(sizeof(*h) + content.size);
    if (h == NULL) {
        return NULL;
    }
    *h = (struct delivery_history){.number = number,
                                   .hash = checksum_of(content.data, content.size),
                                   .size = (uint32_t)content.size};
    list_init(&h->node);
    memcpy(h->data, content.data, content.size);
    if (!map_add(&d->histories, h->hash, h)) {
        mem_free(h);
        return NULL;
    }
    d->history_bytes += memory_of(h);
    return h;
}

/* The one with this content, held. */
static struct delivery_history *intern(struct delivery *d, struct bytes content)
{
    struct delivery_history *h = history_find(d, content);
    if (h == NULL) {
        h = make(d, d->next_history, content);
        if (h == NULL) {
            return NULL;
        }
        d->next_history++;
        h->dirty = true;
        list_push_back(&d->dirty_histories, &h->node);
        d->dirty_history_count++;
        d->dirty_history_bytes += h->size;
    }
    h->refs++;
    return h;
}

static void pack_failure(struct buf *b, const struct failure *f)
{
    pack_array(b, 4);
    pack_int(b, f->time_ms);
    pack_uint(b, f->kind);
    pack_str(b, f->member);
    pack_str(b, f->reason);
}

struct delivery_history *history_of(struct delivery *d, const struct failure *failures,
                                    uint32_t count)
{
    struct buf row;
    must(count > 0 && count <= HISTORY_MAX);
    buf_init(&row, HISTORY_ROW_MAX_BYTES);
    pack_array(&row, count);
    for (uint32_t i = 0; i < count; i++) {
        pack_failure(&row, &failures[i]);
    }
    struct delivery_history *h = buf_ok(&row) ? intern(d, buf_bytes(&row)) : NULL;
    buf_fini(&row);
    d->no_memory = d->no_memory || h == NULL;
    return h;
}

struct delivery_history *history_add(struct delivery *d, const struct delivery_history *before,
                                     const struct failure *failure)
{
    struct failure failures[HISTORY_MAX + 1];
    struct delivery_run run = {.history = (struct delivery_history *)(uintptr_t)before};
    if (d->history_bytes >= DELIVERY_HISTORY_MAX_BYTES) {
        /* Bounded whatever happens: the last failure alone, without its words. */
        struct failure bare = {.time_ms = failure->time_ms, .kind = failure->kind};
        return history_of(d, &bare, 1);
    }
    uint32_t count = delivery_failures(&run, failures);
    failures[count++] = *failure;
    uint32_t skipped = count > HISTORY_MAX ? 1 : 0;
    return history_of(d, failures + skipped, count - skipped);
}

void history_hold(struct delivery_history *h)
{
    if (h != NULL) {
        h->refs++;
    }
}

static void forget_dirty(struct delivery *d, struct delivery_history *h)
{
    if (h->dirty) {
        list_remove(&h->node);
        d->dirty_history_count--;
        d->dirty_history_bytes -= h->size;
    }
}

void history_release(struct delivery *d, struct delivery_history *h)
{
    if (h == NULL) {
        return;
    }
    must(h->refs > 0);
    if (--h->refs > 0) {
        return;
    }
    forget_dirty(d, h);
    if (h->stored) {
        buf_append_le64(&d->removed_histories, h->number);
    }
    map_remove(&d->histories, h->hash, h);
    d->history_bytes -= memory_of(h);
    mem_free(h);
}

enum ferry_err history_load(struct delivery *d, uint64_t number, struct bytes row)
{
    struct failure failures[HISTORY_MAX];
    if (row.size > HISTORY_ROW_MAX_BYTES || number >= d->next_history ||
        history_find(d, row) != NULL) {
        return FERRY_ERR_CORRUPT;
    }
    struct delivery_history *h = make(d, number, row);
    if (h == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    h->stored = true;
    struct delivery_run run = {.history = h};
    return delivery_failures(&run, failures) > 0 ? FERRY_OK : FERRY_ERR_CORRUPT;
}

uint32_t delivery_failures(const struct delivery_run *run, struct failure out[HISTORY_MAX])
{
    if (run->history == NULL) {
        return 0;
    }
    struct unpack u;
    uint32_t count = 0;
    unpack_begin(&u, bytes_of(run->history->data, run->history->size));
    while (unpack_has_more(&u) && count < HISTORY_MAX) {
        struct failure *f = &out[count++];
        (void)unpack_array(&u, UNPACK_OBJECTS_MAX);
        f->time_ms = unpack_int(&u);
        f->kind = (uint32_t)unpack_uint(&u, UINT32_MAX);
        f->member = unpack_str(&u, NAME_MAX_BYTES);
        f->reason = unpack_str(&u, REASON_MAX_BYTES);
        unpack_array_end(&u);
    }
    return unpack_end(&u) == FERRY_OK ? count : 0;
}
