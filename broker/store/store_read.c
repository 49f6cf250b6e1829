/* Reading: a view is an LMDB read transaction; what it shows lives in the map until it ends.
 *
 * Bytes from the file are checked before use: that a value lies within the file's used pages, and
 * the checksum of an entry or group row. */
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/store_core.h"

/* LMDB does not tell, but every page begins with its own number, so a small value that is known to
 * be there tells where page 0 is. Where that cannot be found out (a file made on a machine with
 * larger pages) the whole address space is allowed, that is, the check is left out. */
void read_find_map(struct store *s)
{
    MDB_txn *txn;
    MDB_val key = store_val("identity", strlen("identity"));
    MDB_val value;
    size_t page_bytes = (size_t)s->room.page_bytes;
    s->map_start = 0;
    s->map_known = false;
    if (page_bytes != (size_t)sysconf(_SC_PAGESIZE) ||
        mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0) {
        return;
    }
    if (mdb_get(txn, s->meta, &key, &value) == 0) {
        const uint8_t *at = value.mv_data;
        const uint8_t *page = at - (uintptr_t)at % page_bytes;
        uint64_t number = get_le64(page);
        s->map_known = number < (uint64_t)s->room.used_bytes / page_bytes;
        s->map_start = s->map_known ? (uintptr_t)page - (uintptr_t)(number * page_bytes) : 0;
    }
    mdb_txn_abort(txn);
}

enum ferry_err store_read_begin(struct store *store)
{
    struct store *s = store;
    must(!s->viewing);
    if (s->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    int rc = mdb_txn_renew(s->view);
    if (rc != 0) {
        return store_err_of(rc);
    }
    s->viewing = true;
    s->map_bytes = s->map_known ? (size_t)s->room.used_bytes : SIZE_MAX;
    rc = mdb_cursor_renew(s->view, s->view_log);
    if (rc != 0) {
        store_read_end(s);
        return store_err_of(rc);
    }
    return FERRY_OK;
}

void store_read_end(struct store *store)
{
    if (store->viewing) {
        mdb_txn_reset(store->view);
        store->viewing = false;
    }
}

/* What every reading function asks first. */
static enum ferry_err check_view(const struct store *s)
{
    must(s->viewing);
    return s->failed ? FERRY_ERR_STORE_FAILED : FERRY_OK;
}

/* Tells a person where bad bytes are, not once for every reader that meets them. */
static enum ferry_err corrupt(struct store *s, const char *what, uint64_t group, uint64_t index)
{
    int64_t now = clock_monotonic_us();
    if (s->corrupt_logged_us == 0 || now - s->corrupt_logged_us >= STORE_CORRUPT_LOG_US) {
        s->corrupt_logged_us = now;
        log_line(LOG_ERROR, "store",
                 "%s/data.mdb: %s of group %llu at %llu does not match its checksum: restore the "
                 "folder from a backup, or replace this node",
                 s->path, what, (unsigned long long)group, (unsigned long long)index);
    }
    return FERRY_ERR_CORRUPT;
}

/* A damaged page may give a value any length; only what lies in the file is touched. */
static bool value_in_file(const struct store *s, const MDB_val *v)
{
    uintptr_t start = s->map_start;
    uintptr_t at = (uintptr_t)v->mv_data;
    return at >= start && at - start <= s->map_bytes && v->mv_size <= s->map_bytes - (at - start);
}

static struct bytes bytes_of_val(const MDB_val *v)
{
    return bytes_of(v->mv_data, v->mv_size);
}

/* ---- Groups ---- */

static enum ferry_err decode_group(struct store *s, const MDB_val *key, const MDB_val *value,
                                   struct store_group *g)
{
    if (!value_in_file(s, key) || !value_in_file(s, value) ||
        layout_group_decode(bytes_of_val(key), bytes_of_val(value), g) != FERRY_OK) {
        return corrupt(s, "the row", key->mv_size == 8 ? get_be64(key->mv_data) : 0, 0);
    }
    return FERRY_OK;
}

enum ferry_err store_get_group(struct store *store, uint64_t group, struct store_group *g)
{
    struct store *s = store;
    uint8_t at[STORE_GROUP_KEY_BYTES];
    MDB_val value;
    enum ferry_err err = check_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    put_be64(at, group);
    MDB_val key = store_val(at, sizeof(at));
    int rc = mdb_get(s->view, s->group, &key, &value);
    if (rc == MDB_NOTFOUND) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    if (rc != 0) {
        return store_err_of(rc);
    }
    if (!value_in_file(s, &value) ||
        layout_group_decode(bytes_of(at, sizeof(at)), bytes_of_val(&value), g) != FERRY_OK) {
        return corrupt(s, "the row", group, 0);
    }
    return FERRY_OK;
}

enum ferry_err store_each_group(struct store *store, store_group_cb *callback, void *arg)
{
    struct store *s = store;
    MDB_cursor *cursor;
    MDB_val key;
    MDB_val value;
    enum ferry_err err = check_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    int rc = mdb_cursor_open(s->view, s->group, &cursor);
    if (rc != 0) {
        return store_err_of(rc);
    }
    while (err == FERRY_OK && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        struct store_group g;
        err = decode_group(s, &key, &value, &g);
        if (err == FERRY_OK) {
            err = callback(&g, arg);
        }
    }
    mdb_cursor_close(cursor);
    return err != FERRY_OK || rc == MDB_NOTFOUND ? err : store_err_of(rc);
}

/* ---- Entries ---- */

static enum ferry_err decode_entry(struct store *s, uint64_t group, uint64_t index,
                                   const MDB_val *value, struct store_entry *entry)
{
    if (!value_in_file(s, value) || store_entry_decode(bytes_of_val(value), entry) != FERRY_OK) {
        return corrupt(s, "the entry", group, index);
    }
    return FERRY_OK;
}

enum ferry_err store_get_entry(struct store *store, uint64_t group, uint64_t index,
                               struct store_entry *entry)
{
    struct store *s = store;
    uint8_t at[STORE_LOG_KEY_BYTES];
    MDB_val value;
    enum ferry_err err = check_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    layout_log_key(at, group, index);
    MDB_val key = store_val(at, sizeof(at));
    /* The kept cursor finds the neighbour of what it found last without a walk from the root. */
    int rc = mdb_cursor_get(s->view_log, &key, &value, MDB_SET_KEY);
    if (rc == MDB_NOTFOUND) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    return rc == 0 ? decode_entry(s, group, index, &value, entry) : store_err_of(rc);
}

/* The index in a log key, if it is one of the group. */
static bool key_index(const struct store *s, const MDB_val *key, uint64_t group, uint64_t *index)
{
    if (!value_in_file(s, key) || key->mv_size != STORE_LOG_KEY_BYTES ||
        get_be64(key->mv_data) != group) {
        return false;
    }
    *index = get_be64((const uint8_t *)key->mv_data + 8);
    return true;
}

enum ferry_err store_log_bounds(struct store *store, uint64_t group, uint64_t *first,
                                uint64_t *last)
{
    struct store *s = store;
    uint8_t at[STORE_LOG_KEY_BYTES];
    MDB_val key = store_val(at, sizeof(at));
    MDB_val value;
    enum ferry_err err = check_view(s);
    *first = 0;
    *last = 0;
    if (err != FERRY_OK) {
        return err;
    }
    layout_log_key(at, group, 0);
    int rc = mdb_cursor_get(s->view_log, &key, &value, MDB_SET_RANGE);
    if (rc == MDB_NOTFOUND || (rc == 0 && !key_index(s, &key, group, first))) {
        return FERRY_OK;
    }
    if (rc == 0) {
        layout_log_key(at, group, UINT64_MAX);
        key = store_val(at, sizeof(at));
        rc = mdb_cursor_get(s->view_log, &key, &value, MDB_SET_RANGE);
        if (rc == 0 || rc == MDB_NOTFOUND) {
            rc = mdb_cursor_get(s->view_log, &key, &value, rc == 0 ? MDB_PREV : MDB_LAST);
        }
    }
    if (rc == 0 && !key_index(s, &key, group, last)) {
        return corrupt(s, "the end of the log", group, *first);
    }
    return store_err_of(rc);
}

enum ferry_err store_cursor_open(struct store *store, uint64_t group, uint64_t index,
                                 struct store_cursor *c)
{
    struct store *s = store;
    enum ferry_err err = check_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(s->view, s->log, &cursor);
    if (rc != 0) {
        return store_err_of(rc);
    }
    *c = (struct store_cursor){.cursor = cursor, .store = s, .group = group, .next_index = index};
    return FERRY_OK;
}

enum ferry_err store_cursor_next(struct store_cursor *c, uint64_t *index, struct store_entry *entry)
{
    struct store *s = c->store;
    uint8_t at[STORE_LOG_KEY_BYTES];
    MDB_val value;
    enum ferry_err err = check_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    /* By key, not MDB_NEXT: the neighbour is in the cursor's page, and a gap is not stepped over.
     */
    layout_log_key(at, c->group, c->next_index);
    MDB_val key = store_val(at, sizeof(at));
    int rc = mdb_cursor_get(c->cursor, &key, &value, MDB_SET_KEY);
    if (rc == MDB_NOTFOUND) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    err = rc == 0 ? decode_entry(s, c->group, c->next_index, &value, entry) : store_err_of(rc);
    if (err == FERRY_OK) {
        *index = c->next_index++;
    }
    return err;
}

void store_cursor_close(struct store_cursor *c)
{
    if (c->cursor != NULL) {
        mdb_cursor_close(c->cursor);
    }
    *c = (struct store_cursor){0};
}

/* ---- Rows ---- */

enum ferry_err store_get(struct store *store, uint64_t group, uint8_t table, struct bytes key,
                         bool *found, struct bytes *value)
{
    struct store *s = store;
    uint8_t at[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES];
    MDB_val got;
    enum ferry_err err = check_view(s);
    *found = false;
    if (err != FERRY_OK) {
        return err;
    }
    MDB_val row = store_val(at, layout_state_key(at, group, table, key));
    int rc = mdb_get(s->view, s->state, &row, &got);
    if (rc == MDB_NOTFOUND) {
        return FERRY_OK;
    }
    if (rc != 0) {
        return store_err_of(rc);
    }
    if (!value_in_file(s, &got)) {
        return corrupt(s, "a row", group, table);
    }
    *found = true;
    *value = bytes_of_val(&got);
    return FERRY_OK;
}

static bool is_row_of(const MDB_val *key, const uint8_t prefix[STORE_STATE_PREFIX_BYTES])
{
    return key->mv_size >= STORE_STATE_PREFIX_BYTES &&
           memcmp(key->mv_data, prefix, STORE_STATE_PREFIX_BYTES) == 0;
}

/* The rows from the cursor's on, while they are of the table. */
static enum ferry_err walk_rows(struct store *s, MDB_cursor *cursor,
                                const uint8_t prefix[STORE_STATE_PREFIX_BYTES], MDB_val key,
                                store_row_cb *callback, void *arg)
{
    MDB_val value;
    bool stop = false;
    enum ferry_err err = FERRY_OK;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && value_in_file(s, &key) && is_row_of(&key, prefix)) {
        if (!value_in_file(s, &value)) {
            return corrupt(s, "a row", get_be64(prefix), prefix[STORE_GROUP_KEY_BYTES]);
        }
        struct bytes name = bytes_of((const uint8_t *)key.mv_data + STORE_STATE_PREFIX_BYTES,
                                     key.mv_size - STORE_STATE_PREFIX_BYTES);
        err = callback(name, bytes_of_val(&value), &stop, arg);
        if (err != FERRY_OK || stop) {
            return err;
        }
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    return rc == MDB_NOTFOUND ? FERRY_OK : store_err_of(rc);
}

enum ferry_err store_each_row(struct store *store, uint64_t group, uint8_t table, struct bytes from,
                              store_row_cb *callback, void *arg)
{
    struct store *s = store;
    uint8_t at[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES];
    MDB_cursor *cursor;
    enum ferry_err err = check_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    MDB_val key = store_val(at, layout_state_key(at, group, table, from));
    int rc = mdb_cursor_open(s->view, s->state, &cursor);
    if (rc != 0) {
        return store_err_of(rc);
    }
    err = walk_rows(s, cursor, at, key, callback, arg);
    mdb_cursor_close(cursor);
    return err;
}
