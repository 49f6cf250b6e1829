/* Marks: which ids a target has, as lists in memory and as blobs. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "outbox/mariadb/id_list.h"
#include "outbox/mariadb/source_mariadb.h"

void source_blob_head(struct source_blob *blob, const struct source_spot *spot)
{
    blob->data[0] = SOURCE_BLOB_VERSION;
    blob->data[1] = SOURCE_BLOB_KIND;
    put_le64(blob->data + 2, spot->stamp);
    put_le64(blob->data + 10, spot->newest);
    memcpy(blob->data + 18, spot->newest_id.bytes, sizeof(spot->newest_id.bytes));
    blob->size = SOURCE_BLOB_HEAD;
}

enum ferry_err source_blob_read(struct bytes blob, const char *name, struct source_spot *spot,
                                struct bytes *list, struct err_text *e)
{
    *spot = (struct source_spot){0};
    *list = (struct bytes){0};
    if (blob.size == 0) {
        return FERRY_OK;
    }
    if (blob.size >= 2 && (blob.data[0] > SOURCE_BLOB_VERSION)) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "%s: a newer relay has published from it: start a newer Ferry", name);
    }
    if (blob.size < SOURCE_BLOB_HEAD || blob.data[0] != SOURCE_BLOB_VERSION ||
        blob.data[1] != SOURCE_BLOB_KIND) {
        return err_set(e, FERRY_ERR_CORRUPT, "%s: what a broker keeps of it cannot be read", name);
    }
    spot->stamp = get_le64(blob.data + 2);
    spot->newest = get_le64(blob.data + 10);
    memcpy(spot->newest_id.bytes, blob.data + 18, sizeof(spot->newest_id.bytes));
    *list = bytes_of(blob.data + SOURCE_BLOB_HEAD, blob.size - SOURCE_BLOB_HEAD);
    return FERRY_OK;
}

/* The place of the id in the mark's list, or where it would be. */
static size_t mark_place(const struct source_mark *mark, uint64_t id)
{
    size_t low = 0;
    size_t high = mark->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (mark->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool mark_has(const struct source_mark *mark, uint64_t id)
{
    size_t at = mark_place(mark, id);
    return at < mark->count && mark->ids[at] == id;
}

static int compare_ids(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    return (*x > *y) - (*x < *y);
}

/* Adds ids, sorted and none of them there, from the back. There is room. */
static void merge_ids(uint64_t *ids, size_t count, const uint64_t *add, size_t add_count)
{
    size_t to = count + add_count;
    while (add_count > 0) {
        if (count > 0 && ids[count - 1] > add[add_count - 1]) {
            ids[--to] = ids[--count];
        } else {
            ids[--to] = add[--add_count];
        }
    }
}

/* ---- Opening and closing. */

static enum ferry_err mark_fill(struct source_mariadb *s, struct source_mark *mark,
                                struct bytes list, struct err_text *e)
{
    size_t count = 0;
    if (id_list_decode(list, s->scratch, SOURCE_MARK_IDS_MAX, &count) != FERRY_OK) {
        return err_set(e, FERRY_ERR_CORRUPT, "%s: what a broker keeps of it cannot be read",
                       s->url.shown);
    }
    if (!mem_grow((void **)&mark->ids, &mark->capacity, count, sizeof(*mark->ids))) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (count > 0) {
        memcpy(mark->ids, s->scratch, count * sizeof(*mark->ids));
    }
    mark->count = count;
    return FERRY_OK;
}

static void publish_all(struct source_mariadb *s, const struct source_mark *mark)
{
    for (size_t i = 0; i < mark->count; i++) {
        if (!handout_publish(&s->handout, mark->ids[i])) {
            return; /* Read once more, not wanted, and settled by that. */
        }
    }
}

enum ferry_err source_maria_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                      bool *same, bool *again, struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct source_spot spot;
    struct bytes list;
    *same = true;
    *again = false;
    enum ferry_err err = source_blob_read(blob, s->url.shown, &spot, &list, e);
    if (err == FERRY_OK && blob.size > 0) {
        err = source_maria_compare(s, &spot, same, e);
    }
    if (err != FERRY_OK || !*same) {
        return err;
    }
    struct source_mark *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&made->all);
    made->newest = spot.newest;
    made->newest_id = spot.newest_id;
    err = mark_fill(s, made, list, e);
    if (err != FERRY_OK) {
        source_maria_mark_close(s, made);
        return err;
    }
    list_push_back(&s->marks, &made->all);
    publish_all(s, made);
    *mark = made;
    return FERRY_OK;
}

void source_maria_mark_close(void *driver, struct source_mark *mark)
{
    (void)driver;
    list_remove(&mark->all);
    mem_free(mark->ids);
    mem_free(mark->flight);
    mem_free(mark);
}

bool source_maria_wants(void *driver, const struct source_mark *mark, const struct source_row *row)
{
    const struct source_mariadb *s = driver;
    const struct handout_row *known = handout_find(&s->handout, (uint64_t)row->number);
    /* Once deleted an id is in no mark any more, but somebody may have the row in hand. */
    if (known != NULL && known->state != HANDOUT_HANDED) {
        return false;
    }
    return !mark_has(mark, (uint64_t)row->number);
}

/* ---- Encoding. */

/* Ids of the mark and the first `take` of the rows, in s->scratch. */
static size_t gather(struct source_mariadb *s, const struct source_mark *mark,
                     const struct source_row *const *rows, size_t take)
{
    uint64_t *ids = s->scratch;
    uint64_t *fresh = ids + mark->count + take; /* Behind where they go. */
    bool rising = true;
    for (size_t i = 0; i < take; i++) {
        fresh[i] = (uint64_t)rows[i]->number;
        rising = rising && (i == 0 || fresh[i] > fresh[i - 1]);
    }
    if (!rising) {
        qsort(fresh, take, sizeof(*fresh), compare_ids);
    }
    if (mark->count > 0) {
        memcpy(ids, mark->ids, mark->count * sizeof(*ids));
    }
    merge_ids(ids, mark->count, fresh, take);
    return mark->count + take;
}

/* Whether the blob holds so many rows; if so, the ids are in s->scratch. */
static bool fits(struct source_mariadb *s, const struct source_mark *mark,
                 const struct source_row *const *rows, size_t take, size_t *ids)
{
    if (mark->count + take > SOURCE_MARK_IDS_MAX) {
        return false;
    }
    *ids = gather(s, mark, rows, take);
    return SOURCE_BLOB_HEAD + id_list_bytes(s->scratch, *ids) <= SOURCE_BLOB_MAX;
}

static void newest_of(const struct source_mark *mark, const struct source_row *const *rows,
                      size_t count, struct source_spot *spot)
{
    spot->newest = mark->newest;
    spot->newest_id = mark->newest_id;
    for (size_t i = 0; i < count; i++) {
        if ((uint64_t)rows[i]->number > spot->newest) {
            spot->newest = (uint64_t)rows[i]->number;
            spot->newest_id = rows[i]->message.id;
        }
    }
}

size_t source_maria_mark_encode(void *driver, const struct source_mark *mark,
                                const struct source_row *const *rows, size_t count, bool last,
                                struct source_blob *blob)
{
    struct source_mariadb *s = driver;
    (void)last;
    size_t low = 0; /* So many fit. */
    size_t high = count;
    size_t ids = 0;
    if (!mem_grow((void **)&s->scratch, &s->scratch_capacity, SOURCE_MARK_IDS_MAX + 2 * count,
                  sizeof(*s->scratch))) {
        return 0;
    }
    while (low < high) {
        size_t middle = high == count ? count : low + (high - low + 1) / 2;
        if (fits(s, mark, rows, middle, &ids)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if (low == 0 || !fits(s, mark, rows, low, &ids)) {
        return 0;
    }
    struct source_spot spot = {.stamp = s->stamp};
    newest_of(mark, rows, low, &spot);
    source_blob_head(blob, &spot);
    id_list_encode(s->scratch, ids, blob->data + blob->size);
    blob->size += id_list_bytes(s->scratch, ids);
    return low;
}

enum ferry_err source_maria_mark_add(void *driver, struct source_mark *mark,
                                     const struct source_row *const *rows, size_t count, bool last)
{
    struct source_mariadb *s = driver;
    (void)last;
    if (mark->flight_first > 0 && mark->flight_first >= mark->flight_count) {
        memmove(mark->flight, mark->flight + mark->flight_first,
                mark->flight_count * sizeof(*mark->flight));
        mark->flight_first = 0;
    }
    size_t flight = mark->flight_first + mark->flight_count;
    if (!mem_grow((void **)&mark->ids, &mark->capacity, mark->count + count, sizeof(*mark->ids)) ||
        !mem_grow((void **)&mark->flight, &mark->flight_capacity, flight + count,
                  sizeof(*mark->flight)) ||
        !mem_grow((void **)&s->scratch, &s->scratch_capacity, SOURCE_MARK_IDS_MAX + 2 * count,
                  sizeof(*s->scratch))) {
        return FERRY_ERR_NO_MEMORY;
    }
    must(mark->count + count <= SOURCE_MARK_IDS_MAX);
    size_t ids = gather(s, mark, rows, count);
    memcpy(mark->ids, s->scratch, ids * sizeof(*mark->ids));
    mark->count = ids;
    for (size_t i = 0; i < count; i++) {
        mark->flight[flight + i] = (uint64_t)rows[i]->number;
    }
    mark->flight_count += count;
    struct source_spot spot;
    newest_of(mark, rows, count, &spot);
    mark->newest = spot.newest;
    mark->newest_id = spot.newest_id;
    return FERRY_OK;
}

void source_maria_mark_acked(void *driver, struct source_mark *mark, size_t count)
{
    struct source_mariadb *s = driver;
    must(count <= mark->flight_count);
    for (size_t i = 0; i < count; i++) {
        handout_publish(&s->handout, mark->flight[mark->flight_first + i]);
    }
    mark->flight_first += count;
    mark->flight_count -= count;
}

/* ---- Forgetting what is deleted. */

static void mark_forget(struct source_mark *mark, const uint64_t *ids, size_t count)
{
    size_t kept = 0;
    size_t at = 0;
    for (size_t i = 0; i < mark->count; i++) {
        while (at < count && ids[at] < mark->ids[i]) {
            at++;
        }
        if (at == count || ids[at] != mark->ids[i]) {
            mark->ids[kept++] = mark->ids[i];
        }
    }
    mark->count = kept;
}

void source_marks_forget(struct source_mariadb *s, const uint64_t *ids, size_t count)
{
    for (struct list *node = s->marks.next; node != &s->marks; node = node->next) {
        mark_forget(list_entry(node, struct source_mark, all), ids, count);
    }
}
