#include "partition/replica_drop.h"

#include "base/checksum.h"
#include "partition/replica_internal.h"

#define DROP_ENTRIES_MAX 512u
#define DROP_ROWS_MAX    512u

/* ---- The floor's row, beside the configurations': index, term, checksum ---- */

#define FLOOR_BYTES 24u

static struct bytes floor_key(void)
{
    return bytes_of("floor", 5);
}

enum ferry_err replica_floor_read(struct store *store, uint64_t group, struct replica_floor *floor)
{
    struct bytes row;
    bool found = false;
    *floor = (struct replica_floor){0};
    enum ferry_err err = store_get(store, group, REPLICA_TABLE_CONFIG, floor_key(), &found, &row);
    if (err != FERRY_OK || !found) {
        return err;
    }
    if (row.size != FLOOR_BYTES || get_le64(row.data + 16) != checksum_of(row.data, 16)) {
        return FERRY_ERR_CORRUPT;
    }
    *floor = (struct replica_floor){.index = get_le64(row.data), .term = get_le64(row.data + 8)};
    return FERRY_OK;
}

enum ferry_err replica_floor_write(struct store *store, uint64_t group,
                                   const struct replica_floor *floor)
{
#ifdef MUT_43 /* a replica's data is deleted, and nothing tells later where its log ended */
    return FERRY_OK;
#endif
    uint8_t row[FLOOR_BYTES];
    if (floor->index == 0) {
        return FERRY_OK;
    }
    put_le64(row, floor->index);
    put_le64(row + 8, floor->term);
    put_le64(row + 16, checksum_of(row, 16));
    return store_put(store, group, REPLICA_TABLE_CONFIG, floor_key(), bytes_of(row, sizeof(row)));
}

void replica_floor_raise(struct replica_floor *floor, uint64_t index, uint64_t term)
{
    if (term > floor->term || (term == floor->term && index > floor->index)) {
        *floor = (struct replica_floor){.index = index, .term = term};
    }
}

/* ---- Before the first transaction ---- */

/* The last entry's term; of one that cannot be read, the latest that it can have. */
static enum ferry_err raise_to_log(struct replica_drop *d, struct store *store)
{
    uint64_t first = 0, last = 0;
    enum ferry_err err = store_log_bounds(store, d->group, &first, &last);
    if (err != FERRY_OK || last == 0) {
        return err;
    }
    struct store_entry entry;
    err = store_get_entry(store, d->group, last, &entry);
    if (err == FERRY_OK || err == FERRY_ERR_CORRUPT) {
        replica_floor_raise(&d->floor, last, err == FERRY_OK ? entry.term : d->row.term);
        return FERRY_OK;
    }
    return err;
}

static enum ferry_err begin(struct replica_drop *d, struct store *store)
{
    struct store_group g;
    enum ferry_err err = store_get_group(store, d->group, &g);
    if (err == FERRY_ERR_UNKNOWN_PARTITION) {
        d->begun = true; /* Rows without their group: of no replica that ever voted. */
        return FERRY_OK;
    }
    if (err == FERRY_OK) {
        d->has_row = true;
        d->row = (struct store_group){.group = d->group, .term = g.term, .vote = g.vote};
        err = replica_floor_read(store, d->group, &d->floor);
    }
    if (err == FERRY_OK && !g.installing) {
        replica_floor_raise(&d->floor, g.trim_index, g.trim_term);
        err = raise_to_log(d, store);
    }
    d->begun = err == FERRY_OK;
    return err;
}

enum ferry_err replica_drop_prepare(struct replica_drop *d, struct store *store)
{
    enum ferry_err err = store_read_begin(store);
    if (err != FERRY_OK) {
        return err;
    }
    err = d->begun ? FERRY_OK : begin(d, store);
    if (err == FERRY_OK) {
        err = store_log_bounds(store, d->group, &d->first, &d->last);
    }
    store_read_end(store);
    return err;
}

/* ---- The transactions ---- */

static enum ferry_err write_remains(const struct replica_drop *d, struct store *store,
                                    bool installing)
{
    struct store_group row = d->row;
    row.installing = installing;
    enum ferry_err err = store_put_group(store, &row);
    return err == FERRY_OK ? replica_floor_write(store, d->group, &d->floor) : err;
}

static enum ferry_err write_rows(struct replica_drop *d, struct store *store, bool *done)
{
    uint32_t deleted = 0;
    enum ferry_err err = store_delete_rows(store, d->group, 0, DROP_ROWS_MAX, &deleted);
    bool stays = d->has_row && !d->is_over;
    *done = deleted < DROP_ROWS_MAX;
    if (err == FERRY_OK && stays) {
        err = write_remains(d, store, !*done);
    } else if (err == FERRY_OK && *done) {
        err = store_delete_group(store, d->group);
    }
    return err;
}

enum ferry_err replica_drop_write(struct replica_drop *d, struct store *store, bool *done)
{
    uint32_t deleted = 0;
    uint64_t bytes = 0;
    *done = false;
    if (!d->marked) {
        d->marked = true;
        return d->has_row ? write_remains(d, store, true) : FERRY_OK;
    }
    return d->first != 0 ? store_delete_entries(store, d->group, d->first, d->last,
                                                DROP_ENTRIES_MAX, &deleted, &bytes)
                         : write_rows(d, store, done);
}
