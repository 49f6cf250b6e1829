/* Writing: one transaction at a time, made durable by one commit. */
#include <stdio.h>

#include "base/clock.h"
#include "base/id.h"
#include "store/store_core.h"

/* What a turn may need at the file's end, with pages filled to four fifths. The reserve bears the
 * rest of the few that write large tables at once. */
#define TURN_TAIL_BYTES ((int64_t)STORE_TURN_BYTES + (int64_t)STORE_TURN_BYTES / 4)

/* A put or delete that failed. A positive code is the system's: a page could not be written, and a
 * failed write is never tried again. */
static enum ferry_err write_error(struct store *s, int rc, const char *what)
{
    enum ferry_err err = store_err_of(rc);
    if (rc == MDB_PANIC || (rc > 0 && err == FERRY_ERR_IO)) {
        return store_latch(s, err, what, mdb_strerror(rc));
    }
    return err;
}

static void count_bytes(struct store *s, size_t bytes)
{
    s->turn_bytes += bytes;
    must(s->turn_bytes <= STORE_TURN_MAX_BYTES);
}

/* Before a turn, and after it for has_room, which may be asked while a view is open. As good as it
 * gets: without room has_room says no, and at last the puts answer STORAGE_FULL. */
static void make_room(struct store *s)
{
    (void)room_ensure(s, TURN_TAIL_BYTES + s->reserve_bytes);
}

enum ferry_err store_begin(struct store *store)
{
    struct store *s = store;
    must(s->write == NULL);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    make_room(s);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    int rc = mdb_txn_begin(s->env, NULL, 0, &s->write);
    if (rc == 0) {
        rc = mdb_cursor_open(s->write, s->log, &s->write_log);
        if (rc != 0) {
            mdb_txn_abort(s->write);
        }
    }
    if (rc != 0) {
        s->write = NULL;
        return write_error(s, rc, "beginning a transaction");
    }
    s->turn_bytes = 0;
    return FERRY_OK;
}

static void end_turn(struct store *s)
{
    s->write = NULL;
    s->write_log = NULL;
}

enum ferry_err store_commit(struct store *store)
{
    struct store *s = store;
    must(s->write != NULL);
    if (s->failed) {
        store_abort(s);
        return FERRY_ERR_STORE_FAILED;
    }
    int64_t start = clock_monotonic_us();
    int rc = mdb_txn_commit(s->write); /* Frees the transaction whatever happens. */
    end_turn(s);
    if (rc != 0) {
        tails_forget_all(&s->tails);
        (void)store_latch(s, store_err_of(rc), "a commit", mdb_strerror(rc));
        return FERRY_ERR_STORE_FAILED;
    }
    uint64_t us = (uint64_t)(clock_monotonic_us() - start);
    s->commits++;
    s->commit_us_total += us;
    s->commit_us_max = us > s->commit_us_max ? us : s->commit_us_max;
    s->written_bytes += s->turn_bytes;
    room_refresh(s);
    room_used(s, s->turn_bytes);
    make_room(s);
    return FERRY_OK;
}

void store_abort(struct store *store)
{
    struct store *s = store;
    if (s->write == NULL) {
        return;
    }
    mdb_txn_abort(s->write);
    end_turn(s);
    tails_forget_all(&s->tails);
}

/* ---- Entries ---- */

/* The last index of the group in this transaction; 0 when its log is empty. */
static int search_last(struct store *s, uint64_t group, uint64_t *last)
{
    uint8_t end[STORE_LOG_KEY_BYTES];
    MDB_val key = store_val(end, sizeof(end));
    MDB_val value;
    layout_log_key(end, group, UINT64_MAX);
    int rc = mdb_cursor_get(s->write_log, &key, &value, MDB_SET_RANGE);
    if (rc == 0 || rc == MDB_NOTFOUND) {
        rc = mdb_cursor_get(s->write_log, &key, &value, rc == 0 ? MDB_PREV : MDB_LAST);
    }
    *last = 0;
    if (rc == 0 && key.mv_size == STORE_LOG_KEY_BYTES && get_be64(key.mv_data) == group) {
        *last = get_be64((const uint8_t *)key.mv_data + 8);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static enum ferry_err find_tail(struct store *s, uint64_t group, struct store_tail **tail)
{
    *tail = tails_find(&s->tails, group);
    if (*tail != NULL) {
        return FERRY_OK;
    }
    uint64_t last = 0;
    int rc = search_last(s, group, &last);
    enum ferry_err err = rc == 0 ? tails_add(&s->tails, group, last) : store_err_of(rc);
    if (err == FERRY_OK) {
        *tail = tails_find(&s->tails, group);
    }
    return err;
}

/* The group with the greatest id fills its pages (MDB_APPEND); the others, whose pages lie between
 * those of groups, are split in halves. `top_group` is a hint: LMDB refuses when it is wrong. */
static int put_entry(struct store *s, uint64_t group, MDB_val *key, MDB_val *value)
{
    if (group >= s->top_group) {
        int rc = mdb_cursor_put(s->write_log, key, value, MDB_RESERVE | MDB_APPEND);
        if (rc != MDB_KEYEXIST || group == UINT64_MAX) {
            s->top_group = group;
            return rc;
        }
        s->top_group = group + 1; /* At least. */
    }
    return mdb_cursor_put(s->write_log, key, value, MDB_RESERVE | MDB_NOOVERWRITE);
}

enum ferry_err store_append(struct store *store, uint64_t group, uint64_t index,
                            const struct store_entry *entry)
{
    struct store *s = store;
    struct store_tail *tail = NULL;
    must(s->write != NULL);
    must(index > 0 && index < UINT64_MAX);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    enum ferry_err err = find_tail(s, group, &tail);
    if (err != FERRY_OK) {
        return err;
    }
    must(tail->last_index == 0 || index == tail->last_index + 1);

    uint8_t at[STORE_LOG_KEY_BYTES];
    layout_log_key(at, group, index);
    MDB_val key = store_val(at, sizeof(at));
    MDB_val value = store_val(NULL, store_entry_bytes(entry));
    count_bytes(s, value.mv_size);
    int rc = put_entry(s, group, &key, &value);
    if (rc != 0) {
        return write_error(s, rc, "appending an entry");
    }
    store_entry_encode(value.mv_data, entry);
    tail->last_index = index;
    return FERRY_OK;
}

enum ferry_err store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                   const struct store_entry *entry)
{
    struct store *s = store;
    must(s->write != NULL);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    uint8_t at[STORE_LOG_KEY_BYTES];
    layout_log_key(at, group, index);
    MDB_val key = store_val(at, sizeof(at));
    MDB_val value;
    int rc = mdb_cursor_get(s->write_log, &key, &value, MDB_SET_KEY);
    if (rc == 0) {
        key = store_val(at, sizeof(at));
        value = store_val(NULL, store_entry_bytes(entry));
        count_bytes(s, value.mv_size);
        rc = mdb_cursor_put(s->write_log, &key, &value, MDB_RESERVE);
    }
    if (rc != 0) {
        return write_error(s, rc, "repairing an entry");
    }
    store_entry_encode(value.mv_data, entry);
    return FERRY_OK;
}

/* Deletes the entry the cursor stands on. */
static enum ferry_err delete_here(struct store *s, size_t value_bytes, uint32_t *deleted,
                                  uint64_t *bytes)
{
    int rc = mdb_cursor_del(s->write_log, 0);
    if (rc != 0) {
        return write_error(s, rc, "deleting an entry");
    }
    *deleted += 1;
    *bytes += value_bytes;
    return FERRY_OK;
}

/* The first entry of the group at or after `index`; `*found` 0 when there is none. */
static enum ferry_err seek_entry(struct store *s, uint64_t group, uint64_t index, uint64_t *found,
                                 size_t *value_bytes)
{
    uint8_t at[STORE_LOG_KEY_BYTES];
    MDB_val key = store_val(at, sizeof(at));
    MDB_val value;
    layout_log_key(at, group, index);
    *found = 0;
    int rc = mdb_cursor_get(s->write_log, &key, &value, MDB_SET_RANGE);
    if (rc == MDB_NOTFOUND) {
        return FERRY_OK;
    }
    if (rc != 0) {
        return write_error(s, rc, "finding an entry");
    }
    if (key.mv_size == STORE_LOG_KEY_BYTES && get_be64(key.mv_data) == group) {
        *found = get_be64((const uint8_t *)key.mv_data + 8);
        *value_bytes = value.mv_size;
    }
    return FERRY_OK;
}

enum ferry_err store_delete_entries(struct store *store, uint64_t group, uint64_t first,
                                    uint64_t last, uint32_t max_count, uint32_t *deleted,
                                    uint64_t *bytes)
{
    struct store *s = store;
    must(s->write != NULL);
    *deleted = 0;
    *bytes = 0;
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    struct store_tail *tail = NULL;
    enum ferry_err err = find_tail(s, group, &tail);
    while (err == FERRY_OK && *deleted < max_count) {
        uint64_t found = 0;
        size_t value_bytes = 0;
        err = seek_entry(s, group, first, &found, &value_bytes);
        if (err != FERRY_OK || found == 0 || found > last) {
            break;
        }
        err = delete_here(s, value_bytes, deleted, bytes);
        if (err == FERRY_OK && found == tail->last_index) {
            tail->last_index = 0;
        }
        first = found + 1;
    }
    return err;
}

enum ferry_err store_truncate(struct store *store, uint64_t group, uint64_t first,
                              uint32_t max_count, uint32_t *deleted)
{
    struct store *s = store;
    must(s->write != NULL);
    must(first > 0);
    *deleted = 0;
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    struct store_tail *tail = NULL;
    uint64_t bytes = 0;
    enum ferry_err err = find_tail(s, group, &tail);
    while (err == FERRY_OK && *deleted < max_count && tail->last_index >= first) {
        uint64_t found = 0;
        size_t value_bytes = 0;
        err = seek_entry(s, group, tail->last_index, &found, &value_bytes);
        if (err == FERRY_OK && found != tail->last_index) {
            err = FERRY_ERR_CORRUPT;
        }
        if (err == FERRY_OK) {
            err = delete_here(s, value_bytes, deleted, &bytes);
        }
        if (err == FERRY_OK) {
            /* One before, or none: the log may begin here. */
            int rc = search_last(s, group, &tail->last_index);
            err = rc == 0 ? FERRY_OK : write_error(s, rc, "finding an entry");
        }
    }
    return err;
}

/* ---- Rows ---- */

static enum ferry_err put_row(struct store *s, MDB_dbi table, MDB_val key, struct bytes row,
                              const char *what)
{
    must(s->write != NULL);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    MDB_val value = store_val(row.data, row.size);
    count_bytes(s, key.mv_size + row.size);
    int rc = mdb_put(s->write, table, &key, &value, 0);
    return rc == 0 ? FERRY_OK : write_error(s, rc, what);
}

static enum ferry_err delete_row(struct store *s, MDB_dbi table, MDB_val key, const char *what)
{
    must(s->write != NULL);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    int rc = mdb_del(s->write, table, &key, NULL);
    return rc == 0 || rc == MDB_NOTFOUND ? FERRY_OK : write_error(s, rc, what);
}

enum ferry_err store_put_group(struct store *store, const struct store_group *g)
{
    uint8_t key[STORE_GROUP_KEY_BYTES];
    uint8_t row[STORE_GROUP_BYTES];
    must(g->deleted_index <= g->trim_index);
    put_be64(key, g->group);
    layout_group_encode(row, g);
    return put_row(store, store->group, store_val(key, sizeof(key)), bytes_of(row, sizeof(row)),
                   "writing a group");
}

enum ferry_err store_delete_group(struct store *store, uint64_t group)
{
    uint8_t key[STORE_GROUP_KEY_BYTES];
    put_be64(key, group);
    return delete_row(store, store->group, store_val(key, sizeof(key)), "deleting a group");
}

enum ferry_err store_set_cluster(struct store *store, const struct ferry_id *cluster_id)
{
    struct store *s = store;
    uint8_t row[STORE_IDENTITY_BYTES];
    must(id_is_zero(&s->identity.cluster_id) && !id_is_zero(cluster_id));
    struct store_identity id = s->identity;
    id.cluster_id = *cluster_id;
    layout_identity_encode(row, &id);
    enum ferry_err err = put_row(s, s->meta, store_val("identity", strlen("identity")),
                                 bytes_of(row, sizeof(row)), "writing the identity");
    if (err == FERRY_OK) {
        s->identity = id;
    }
    return err;
}

enum ferry_err store_put(struct store *store, uint64_t group, uint8_t table, struct bytes key,
                         struct bytes value)
{
    uint8_t row[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES];
    size_t size = layout_state_key(row, group, table, key);
    return put_row(store, store->state, store_val(row, size), value, "writing a row");
}

enum ferry_err store_delete(struct store *store, uint64_t group, uint8_t table, struct bytes key)
{
    uint8_t row[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES];
    size_t size = layout_state_key(row, group, table, key);
    return delete_row(store, store->state, store_val(row, size), "deleting a row");
}

/* Deletes from `prefix` on while keys begin with it. */
static int delete_prefix(MDB_cursor *cursor, struct bytes prefix, uint32_t max_count,
                         uint32_t *deleted)
{
    int rc = 0;
    while (rc == 0 && *deleted < max_count) {
        MDB_val key = store_val(prefix.data, prefix.size);
        MDB_val value;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc != 0 || key.mv_size < prefix.size ||
            memcmp(key.mv_data, prefix.data, prefix.size) != 0) {
            break;
        }
        rc = mdb_cursor_del(cursor, 0);
        if (rc == 0) {
            *deleted += 1;
        }
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

enum ferry_err store_delete_rows(struct store *store, uint64_t group, uint8_t table,
                                 uint32_t max_count, uint32_t *deleted)
{
    struct store *s = store;
    uint8_t prefix[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES];
    MDB_cursor *cursor;
    must(s->write != NULL);
    *deleted = 0;
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    size_t size = layout_state_key(prefix, group, table, bytes_of(NULL, 0));
    size = table == 0 ? STORE_GROUP_KEY_BYTES : size;
    int rc = mdb_cursor_open(s->write, s->state, &cursor);
    if (rc == 0) {
        rc = delete_prefix(cursor, bytes_of(prefix, size), max_count, deleted);
        mdb_cursor_close(cursor);
    }
    return rc == 0 ? FERRY_OK : write_error(s, rc, "deleting rows");
}
