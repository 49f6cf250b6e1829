#include "client/batch_view.h"

#include "base/mem.h"

#define VIEW_COST_BYTES 256 /* What a view counts for beside its bytes. */

struct holder *holder_new(const char *topic)
{
    struct holder *h = mem_zalloc(1, sizeof(*h));
    if (h == NULL) {
        return NULL;
    }
    atomic_init(&h->references, 1);
    net_message_init(&h->message);
    size_t size = strlen(topic);
    must(size <= DEAD_NAME_MAX_BYTES);
    memcpy(h->topic, topic, size);
    return h;
}

void holder_release(struct holder *h)
{
    if (h != NULL && atomic_fetch_sub(&h->references, 1) == 1) {
        net_message_close(&h->message);
        mem_free(h);
    }
}

static struct ferry_batch *view_new(int32_t partition)
{
    struct ferry_batch *b = mem_zalloc(1, sizeof(*b));
    if (b != NULL) {
        list_init(&b->node);
        b->partition = partition;
        b->bytes = VIEW_COST_BYTES;
    }
    return b;
}

struct ferry_batch *batch_view_event(enum ferry_err event, int32_t partition, int64_t next_offset)
{
    struct ferry_batch *b = view_new(partition);
    if (b != NULL) {
        b->event = event;
        b->first_offset = next_offset;
        b->next_offset = next_offset;
    }
    return b;
}

void ferry_batch_free(struct ferry_batch **batch)
{
    struct ferry_batch *b = *batch;
    if (b == NULL) {
        return;
    }
    *batch = NULL;
    holder_release(b->holder);
    mem_free(b->entries);
    mem_free(b);
}

/* Reads every record once and the skip list: nothing in the entry can fail later. */
static bool entry_is_sound(const struct fetch_entry *entry, const struct batch_header *h)
{
    struct batch_reader reader;
    struct batch_record record;
    enum ferry_err err = FERRY_OK;
    if (entry->base_offset < 0 || entry->base_offset > INT64_MAX - (int64_t)BATCH_RECORDS_MAX ||
        entry->skip_count > h->count) {
        return false;
    }
    for (uint32_t i = 0; i < entry->skip_count; i++) {
        bool ascends = i == 0 || fetch_entry_skip(entry, i) > fetch_entry_skip(entry, i - 1);
        if (!ascends || fetch_entry_skip(entry, i) >= h->count) {
            return false;
        }
    }
    uint32_t read = 0;
    batch_reader_init(&reader, entry->batch);
    while (batch_reader_next(&reader, &record, &err)) {
        read++;
    }
    return err == FERRY_OK && read == h->count;
}

/* Adds what is to be seen of the entry. */
static enum ferry_err add_entry(struct ferry_batch *b, const struct fetch_entry *entry,
                                const struct batch_header *h, int64_t from, bool gaps)
{
    uint32_t kept = h->count - entry->skip_count;
    if (kept == 0 || entry->base_offset + kept <= from) {
        return FERRY_OK;
    }
    if (entry->base_offset > from && !gaps) {
        return FERRY_ERR_CORRUPT; /* A hole: records between are missing. */
    }
    if (!mem_grow((void **)&b->entries, &b->entry_capacity, b->entry_count + 1,
                  sizeof(*b->entries))) {
        return FERRY_ERR_NO_MEMORY;
    }
    uint32_t cut = entry->base_offset < from ? (uint32_t)(from - entry->base_offset) : 0;
    if (b->entry_count == 0) {
        b->first_offset = entry->base_offset + cut;
    }
    b->entries[b->entry_count++] =
        (struct view_entry){.entry = *entry, .cut = cut, .visible = kept - cut, .first = b->count};
    b->count += kept - cut;
    b->next_offset = entry->base_offset + kept;
    b->bytes += entry->batch.size + sizeof(struct view_entry);
    return FERRY_OK;
}

enum ferry_err batch_view_new(struct holder *h, int32_t partition, struct bytes data, int64_t from,
                              bool gaps, struct ferry_batch **batch, int64_t *next_offset)
{
    enum ferry_err err = FERRY_OK;
    *batch = NULL;
    *next_offset = from;
    struct ferry_batch *b = view_new(partition);
    if (b == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    b->first_offset = from;
    b->next_offset = from;
    while (data.size > 0 && err == FERRY_OK) {
        struct fetch_entry entry;
        struct batch_header header;
        struct err_text e;
        if (fetch_entry_next(&data, &entry, &header, &e) != FERRY_OK ||
            !entry_is_sound(&entry, &header)) {
            err = FERRY_ERR_CORRUPT;
        } else {
            err = add_entry(b, &entry, &header, b->next_offset, gaps);
        }
    }
    if (b->count == 0) {
        ferry_batch_free(&b);
        return err;
    }
    atomic_fetch_add(&h->references, 1);
    b->holder = h;
    b->at_entry = b->entry_count; /* Nowhere yet. */
    *next_offset = b->next_offset;
    *batch = b;
    return err;
}

/* ---- Reading. */

size_t ferry_batch_count(const struct ferry_batch *batch)
{
    return batch->count;
}

int32_t ferry_batch_partition(const struct ferry_batch *batch)
{
    return batch->partition;
}

int64_t ferry_batch_first_offset(const struct ferry_batch *batch)
{
    return batch->first_offset;
}

int64_t ferry_batch_next_offset(const struct ferry_batch *batch)
{
    return batch->next_offset;
}

static void go_to_entry(struct ferry_batch *b, size_t entry)
{
    b->at_entry = entry;
    b->at_kept = 0;
    b->at_skip = 0;
    batch_reader_init(&b->reader, b->entries[entry].entry.batch);
}

static bool is_in_entry(const struct ferry_batch *b, size_t entry, size_t i)
{
    return entry < b->entry_count && i >= b->entries[entry].first &&
           i - b->entries[entry].first < b->entries[entry].visible;
}

static size_t find_entry(const struct ferry_batch *b, size_t i)
{
    size_t low = 0;
    size_t high = b->entry_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (b->entries[middle].first <= i) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The next record of the entry that was not dropped as a duplicate. */
static void next_kept(struct ferry_batch *b, struct batch_record *record)
{
    const struct fetch_entry *entry = &b->entries[b->at_entry].entry;
    enum ferry_err err;
    for (;;) { /* Bounded by the records of the batch, which were all read before. */
        uint32_t index = b->reader.index;
        bool more = batch_reader_next(&b->reader, record, &err);
        must(more);
        if (b->at_skip >= entry->skip_count || fetch_entry_skip(entry, b->at_skip) != index) {
            b->at_kept++;
            return;
        }
        b->at_skip++;
    }
}

void ferry_batch_record(struct ferry_batch *batch, size_t i, struct ferry_record *record)
{
    struct batch_record r;
    must(i < batch->count);
    if (!is_in_entry(batch, batch->at_entry, i)) {
        bool next =
            batch->at_entry < batch->entry_count && is_in_entry(batch, batch->at_entry + 1, i);
        go_to_entry(batch, next ? batch->at_entry + 1 : find_entry(batch, i));
    }
    const struct view_entry *v = &batch->entries[batch->at_entry];
    uint32_t wanted = v->cut + (uint32_t)(i - v->first);
    if (batch->at_kept > wanted) {
        go_to_entry(batch, batch->at_entry);
    }
    do {
        next_kept(batch, &r);
    } while (batch->at_kept <= wanted);
    *record = (struct ferry_record){.topic = batch->holder->topic,
                                    .partition = batch->partition,
                                    .offset = v->entry.base_offset + wanted,
                                    .timestamp_ms = r.timestamp_ms,
                                    .append_time_ms = v->entry.append_time_ms,
                                    .key = r.has_key ? r.key.data : NULL,
                                    .key_bytes = r.key.size,
                                    .payload = r.payload.data,
                                    .payload_bytes = r.payload.size,
                                    .headers = r.headers.data,
                                    .headers_bytes = r.headers.size,
                                    .id = r.id};
}

bool ferry_record_next_header(const struct ferry_record *record, size_t *position,
                              const char **name, size_t *name_bytes, const void **value,
                              size_t *value_bytes)
{
    struct bytes n;
    struct bytes v;
    if (!batch_next_header(bytes_of(record->headers, record->headers_bytes), position, &n, &v)) {
        return false;
    }
    *name = (const char *)n.data;
    *name_bytes = n.size;
    *value = v.data;
    *value_bytes = v.size;
    return true;
}

bool ferry_record_header(const struct ferry_record *record, const char *name, const void **value,
                         size_t *value_bytes)
{
    const char *found;
    size_t found_bytes;
    size_t position = 0;
    size_t wanted_bytes = strlen(name);
    const void *v;
    size_t v_bytes;
    while (ferry_record_next_header(record, &position, &found, &found_bytes, &v, &v_bytes)) {
        if (found_bytes == wanted_bytes && memcmp(found, name, wanted_bytes) == 0) {
            *value = v;
            *value_bytes = v_bytes;
            return true;
        }
    }
    return false;
}
