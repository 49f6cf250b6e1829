/* Reading the log: by offset, by time. Offsets and times never decrease along the index, so places
 * are found by bisection over the entries themselves; no second table can disagree with the log. */
#include "base/log.h"
#include "partition/partition_internal.h"

enum ferry_err partition_damaged(const struct partition *p, uint64_t index)
{
    replica_damaged(p->replica, index);
    enum ferry_err err = partition_check_leader(p);
    return err != FERRY_OK ? err : FERRY_ERR_CORRUPT;
}

static enum ferry_err get_entry(const struct partition *p, uint64_t index,
                                struct store_entry *entry)
{
    enum ferry_err err = store_get_entry(p->config.store, p->config.group, index, entry);
    err = err == FERRY_ERR_OFFSET_OUT_OF_RANGE ? FERRY_ERR_CORRUPT : err;
    return err == FERRY_ERR_CORRUPT ? partition_damaged(p, index) : err;
}

/* True when the entry is at or before the place that is looked for. */
typedef bool entry_is_before(const struct store_entry *entry, int64_t goal);

static bool begins_at_or_before_offset(const struct store_entry *entry, int64_t goal)
{
    return entry->base_offset <= goal;
}

static bool is_older_than(const struct store_entry *entry, int64_t goal)
{
    return entry->append_time_ms < goal;
}

/* The last index in (low, high) for which `is_before` holds; low when there is none. */
static enum ferry_err bisect(const struct partition *p, uint64_t low, uint64_t high,
                             entry_is_before *is_before, int64_t goal, uint64_t *index)
{
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        struct store_entry entry;
        enum ferry_err err = get_entry(p, middle, &entry);
        if (err != FERRY_OK) {
            return err;
        }
        *(is_before(&entry, goal) ? &low : &high) = middle;
    }
    *index = low;
    return FERRY_OK;
}

static const struct read_hint *find_hint(const struct partition *p, int64_t offset)
{
    for (uint32_t i = 0; i < READ_HINTS; i++) {
        if (p->hints[i].index != 0 && p->hints[i].offset == offset &&
            p->hints[i].index >= replica_first_index(p->replica)) {
            return &p->hints[i];
        }
    }
    return NULL;
}

static void keep_hint(struct partition *p, int64_t offset, uint64_t index)
{
    for (uint32_t i = 0; i < READ_HINTS; i++) {
        if (p->hints[i].index != 0 && p->hints[i].offset == offset) {
            p->hints[i].index = index;
            return;
        }
    }
    p->hints[p->next_hint] = (struct read_hint){.offset = offset, .index = index};
    p->next_hint = (p->next_hint + 1) % READ_HINTS;
}

/* The index from which a reader of `offset` walks on. A reader that comes back for more finds the
 * place where it stopped; others bisect. */
static enum ferry_err find_index(const struct partition *p, int64_t offset, uint64_t *index)
{
    const struct read_hint *hint = find_hint(p, offset);
    if (hint != NULL) {
        *index = hint->index;
        return FERRY_OK;
    }
    uint64_t first = replica_first_index(p->replica);
    uint64_t end = replica_applied(p->replica) + 1;
    enum ferry_err err = bisect(p, first - 1, end, begins_at_or_before_offset, offset, index);
    *index = *index < first ? first : *index;
    return err;
}

enum ferry_err partition_index_of(const struct partition *p, int64_t offset, uint64_t *index)
{
    return find_index(p, offset, index);
}

enum ferry_err partition_time_of(const struct partition *p, int64_t offset, int64_t *time_ms)
{
    uint64_t index = 0;
    struct store_entry entry;
    enum ferry_err err = find_index(p, offset, &index);
    if (err == FERRY_OK) {
        err = get_entry(p, index, &entry);
    }
    if (err == FERRY_OK) {
        *time_ms = entry.append_time_ms;
    }
    return err;
}

enum ferry_err partition_find_time(struct partition *p, int64_t time_ms, int64_t *offset)
{
    uint64_t first = replica_first_index(p->replica);
    uint64_t end = replica_applied(p->replica) + 1;
    uint64_t index = 0;
    enum ferry_err err = bisect(p, first - 1, end, is_older_than, time_ms, &index);
    if (err != FERRY_OK) {
        return err;
    }
    if (index + 1 >= end) {
        *offset = p->next_offset;
        return FERRY_OK;
    }
    struct store_entry entry;
    err = get_entry(p, index + 1, &entry);
    *offset = entry.base_offset > p->start_offset ? entry.base_offset : p->start_offset;
    return err;
}

/* ---- Entries by offset ---- */

/* Entries that a reader walks over, from one with records to the next, before it bisects. */
#define READER_WALK_MAX 64

static enum ferry_err reader_bad(struct log_reader *r, uint64_t index)
{
    r->has_entry = false;
    return partition_damaged(r->p, index);
}

static enum ferry_err reader_open(struct log_reader *r, int64_t offset)
{
    uint64_t index = 0;
    log_reader_close(r);
    enum ferry_err err = find_index(r->p, offset, &index);
    if (err == FERRY_OK) {
        err = store_cursor_open(r->p->config.store, r->p->config.group, index, &r->cursor);
    }
    r->open = err == FERRY_OK;
    return err;
}

static enum ferry_err reader_step(struct log_reader *r)
{
    uint64_t place = r->cursor.next_index;
    r->has_entry = false;
    if (place > replica_applied(r->p->replica)) {
        return reader_bad(r, place);
    }
    enum ferry_err err = store_cursor_next(&r->cursor, &r->index, &r->entry);
    r->has_entry = err == FERRY_OK;
    bool bad = err == FERRY_ERR_CORRUPT || err == FERRY_ERR_OFFSET_OUT_OF_RANGE;
    return bad ? reader_bad(r, place) : err;
}

static bool reader_holds(const struct log_reader *r, int64_t offset)
{
    return r->has_entry && r->entry.base_offset <= offset &&
           offset < partition_offset_after(&r->entry);
}

static enum ferry_err reader_show(struct log_reader *r, bool whole)
{
    struct pick_piece *piece = &r->piece;
    *piece = (struct pick_piece){.first = r->entry.base_offset,
                                 .append_time_ms = r->entry.append_time_ms,
                                 .skip_count = r->entry.skip_count,
                                 .skips = r->entry.skips};
    must(partition_entry_batch(&r->entry, &piece->batch));
    batch_header_read(piece->batch, &piece->header);
    piece->count = (uint32_t)(partition_offset_after(&r->entry) - r->entry.base_offset);
    bool opened = whole || (piece->header.flags & BATCH_HAS_PRIORITIES) != 0;
    if (opened && batch_check_sum(piece->batch, &piece->header, NULL) != FERRY_OK) {
        return reader_bad(r, r->index);
    }
    return FERRY_OK;
}

enum ferry_err log_reader_seek(struct log_reader *r, int64_t offset, bool whole)
{
    enum ferry_err err = FERRY_OK;
    if (offset < r->p->start_offset || offset >= r->p->next_offset) {
        return FERRY_ERR_CORRUPT; /* The log is well: it is asked for what it does not have. */
    }
    bool walks = r->open && r->has_entry && r->entry.base_offset <= offset;
    for (int i = 0; walks && !reader_holds(r, offset) && err == FERRY_OK; i++) {
        err = reader_step(r);
        walks = i < READER_WALK_MAX;
    }
    if (err == FERRY_OK && !reader_holds(r, offset)) {
        err = reader_open(r, offset);
    }
    /* The place that was found is of the entry itself, or of those without records before it. */
    while (err == FERRY_OK && !reader_holds(r, offset)) {
        err = reader_step(r);
        if (err == FERRY_OK && r->entry.base_offset > offset) {
            return reader_bad(r, r->index);
        }
    }
    return err == FERRY_OK ? reader_show(r, whole) : err;
}

enum ferry_err log_reader_repack(const struct log_reader *r, int64_t first, uint32_t count,
                                 struct buf *out)
{
    const struct pick_piece *piece = &r->piece;
    struct batch_writer writer;
    struct batch_reader reader;
    struct batch_record record;
    struct bytes batch;
    enum ferry_err bad = FERRY_OK, err = FERRY_OK;
    int64_t offset = piece->first;
    uint32_t skip = 0;
    batch_writer_init(&writer, BATCH_MAX_BYTES);
    batch_reader_init(&reader, piece->batch);
    for (uint32_t i = 0; err == FERRY_OK && offset < first + count; i++) {
        if (!batch_reader_next(&reader, &record, &bad)) {
            err = FERRY_ERR_CORRUPT;
        } else if (skip < piece->skip_count && get_le32(piece->skips + (size_t)skip * 4) == i) {
            skip++;
        } else if (offset++ >= first) {
            record.due = 0; /* It has been. */
            err = batch_writer_add(&writer, &record);
        }
    }
    if (err == FERRY_OK) {
        err = batch_writer_finish(&writer, 0, 0, 0, &batch);
    }
    if (err == FERRY_OK) {
        buf_append_bytes(out, batch);
        err = buf_ok(out) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    batch_writer_fini(&writer);
    return err == FERRY_ERR_TOO_LARGE ? FERRY_ERR_CORRUPT : err;
}

void log_reader_leave(struct log_reader *r, int64_t offset)
{
    if (r->has_entry && r->entry.base_offset <= offset) {
        bool inside = offset < partition_offset_after(&r->entry);
        keep_hint(r->p, offset, inside ? r->index : r->index + 1);
    }
    log_reader_close(r);
}

void log_reader_close(struct log_reader *r)
{
    store_cursor_close(&r->cursor);
    r->open = false;
    r->has_entry = false;
}

/* ---- Fetch ---- */

enum read_step { READ_ADDED, READ_PASSED, READ_FULL, READ_BAD };

static enum read_step add_entry(const struct store_entry *entry, int64_t offset, uint32_t max_bytes,
                                size_t before, struct buf *out, int64_t *next)
{
    struct bytes batch;
    struct batch_header h;
    if (!partition_entry_batch(entry, &batch)) {
        bool batch_is_missing =
            (entry->type == STORE_ENTRY_BATCH || entry->type == STORE_ENTRY_BATCH_CAS) &&
            !partition_entry_is_delayed(entry);
        return batch_is_missing ? READ_BAD : READ_PASSED;
    }
    if (batch_check_sum(batch, &h, NULL) != FERRY_OK || entry->skip_count > h.count) {
        return READ_BAD;
    }
    int64_t end = entry->base_offset + h.count - entry->skip_count;
    if (end <= offset || entry->skip_count == h.count) {
        return READ_PASSED;
    }
    struct fetch_entry fetched = {.base_offset = entry->base_offset,
                                  .append_time_ms = entry->append_time_ms,
                                  .skip_count = entry->skip_count,
                                  .skips = entry->skips,
                                  .batch = batch};
    size_t used = out->size - before;
    if (used > 0 && used + fetch_entry_size(&fetched) > max_bytes) {
        return READ_FULL;
    }
    fetch_entry_append(out, &fetched);
    *next = end;
    return READ_ADDED;
}

static void tell_corrupt(const struct partition *p, uint64_t index)
{
    log_line(LOG_ERROR, "partition",
             "group %llu: the entry at index %llu does not match its checksum: it is not served; "
             "check the disk; without other replicas restore the folder from a backup",
             (unsigned long long)p->config.group, (unsigned long long)index);
}

static enum ferry_err read_entries(struct partition *p, struct store_cursor *cursor, int64_t offset,
                                   uint32_t max_bytes, struct buf *out)
{
    size_t before = out->size;
    uint64_t applied = replica_applied(p->replica);
    int64_t next = offset;
    for (;;) {
        uint64_t index = 0;
        uint64_t place = cursor->next_index;
        struct store_entry entry;
        enum ferry_err err = place > applied ? FERRY_ERR_OFFSET_OUT_OF_RANGE
                                             : store_cursor_next(cursor, &index, &entry);
        if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
            keep_hint(p, next, applied + 1);
            return FERRY_OK;
        }
        enum read_step step = READ_BAD;
        if (err == FERRY_OK) {
            step = add_entry(&entry, offset, max_bytes, before, out, &next);
        } else if (err != FERRY_ERR_CORRUPT) {
            return err;
        }
        if (!buf_ok(out)) {
            return FERRY_ERR_NO_MEMORY;
        }
        if (step == READ_FULL) {
            keep_hint(p, next, index);
            return FERRY_OK;
        }
        if (step == READ_BAD) {
            tell_corrupt(p, place);
            err = partition_damaged(p, place);
            return out->size > before ? FERRY_OK : err;
        }
    }
}

enum ferry_err partition_read(struct partition *p, int64_t offset, uint32_t max_bytes,
                              struct buf *out)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    if (offset < p->start_offset || offset > p->next_offset) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    if (offset == p->next_offset) {
        return FERRY_OK;
    }
    uint64_t index = 0;
    err = find_index(p, offset, &index);
    if (err != FERRY_OK) {
        return err;
    }
    struct store_cursor cursor = {0};
    err = store_cursor_open(p->config.store, p->config.group, index, &cursor);
    if (err == FERRY_OK) {
        err = read_entries(p, &cursor, offset, max_bytes, out);
    }
    store_cursor_close(&cursor);
    return err;
}
