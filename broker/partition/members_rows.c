/* Members and events as rows. */
#include "base/mem.h"
#include "partition/members.h"
#include "partition/tables.h"
#include "wire/pack.h"

#define ROW_MAX_BYTES (64u << 10)

static struct bytes row_key(uint8_t key[8 + NAME_MAX_BYTES], uint64_t number, struct bytes name)
{
    put_be64(key, number);
    if (name.size > 0) {
        memcpy(key + 8, name.data, name.size);
    }
    return bytes_of(key, 8 + name.size);
}

static struct bytes event_key(uint8_t key[16], uint64_t subscription, uint64_t number)
{
    put_be64(key, subscription);
    put_be64(key + 8, number);
    return bytes_of(key, 16);
}

/* ---- Writing ---- */

static uint32_t place_of(const struct members *m, const struct member *member)
{
    for (size_t i = 0; member != NULL && i < m->count; i++) {
        if (m->items[i] == member) {
            return (uint32_t)i + 1;
        }
    }
    return 0;
}

static void pack_group(struct buf *row, const struct members *m)
{
    pack_array(row, 5);
    pack_uint(row, m->epoch);
    pack_uint(row, m->partitions);
    pack_uint(row, m->first_event);
    pack_uint(row, m->next_event);
    pack_array(row, m->partitions);
    for (uint32_t p = 0; p < m->partitions; p++) {
        pack_array(row, 3);
        pack_uint(row, place_of(m, m->shares[p].target));
        pack_uint(row, place_of(m, m->shares[p].holder));
        pack_uint(row, m->shares[p].epoch);
    }
}

static void pack_member(struct buf *row, const struct member *member)
{
    pack_array(row, 6);
    pack_id(row, &member->instance);
    pack_str(row, bytes_of(member->zone, member->zone_bytes));
    pack_str(row, bytes_of(member->client, member->client_bytes));
    pack_uint(row, member->session_ms);
    pack_int(row, member->joined_ms);
    pack_array(row, member->fenced_count);
    for (uint32_t i = 0; i < member->fenced_count; i++) {
        pack_id(row, &member->fenced[i]);
    }
}

static void pack_event(struct buf *row, const struct member_event *e)
{
    pack_array(row, 5);
    pack_int(row, e->time_ms);
    pack_uint(row, e->kind);
    pack_str(row, bytes_of(e->text, e->who_bytes));
    pack_str(row, bytes_of(e->text + e->who_bytes, e->why_bytes));
    pack_uint(row, e->epoch);
}

/* Puts the row and empties the buffer. */
static enum ferry_err put(struct store *store, uint64_t group, uint8_t table, struct bytes key,
                          struct buf *row)
{
    enum ferry_err err =
        buf_ok(row) ? store_put(store, group, table, key, buf_bytes(row)) : FERRY_ERR_NO_MEMORY;
    buf_clear(row);
    return err;
}

static enum ferry_err delete_removed(struct members *m, struct store *store, uint64_t group)
{
    uint8_t key[8 + NAME_MAX_BYTES];
    enum ferry_err err = FERRY_OK;
    for (size_t at = 0; at < m->removed.size && err == FERRY_OK;) {
        size_t length = m->removed.data[at];
        err = store_delete(store, group, TABLE_MEMBERS,
                           row_key(key, m->number, bytes_of(m->removed.data + at + 1, length)));
        at += length + 1;
    }
    buf_clear(&m->removed);
    return err;
}

static enum ferry_err flush_members(struct members *m, struct store *store, uint64_t group,
                                    struct buf *row)
{
    uint8_t key[8 + NAME_MAX_BYTES];
    enum ferry_err err = delete_removed(m, store, group);
    for (size_t i = 0; i < m->count && err == FERRY_OK; i++) {
        struct member *member = m->items[i];
        if (member->dirty) {
            pack_member(row, member);
            err =
                put(store, group, TABLE_MEMBERS, row_key(key, m->number, member_name(member)), row);
            member->dirty = false;
        }
    }
    if (err == FERRY_OK) {
        pack_group(row, m);
        err = put(store, group, TABLE_MEMBERS, row_key(key, m->number, bytes_of(NULL, 0)), row);
    }
    return err;
}

static enum ferry_err flush_events(struct members *m, struct store *store, uint64_t group,
                                   struct buf *row)
{
    uint8_t key[16];
    enum ferry_err err = FERRY_OK;
    /* What a snapshot may have brought, newer than the rest, is overwritten with the same. */
    for (uint64_t n = m->disk_first; n < m->first_event && err == FERRY_OK; n++) {
        err = store_delete(store, group, TABLE_EVENTS, event_key(key, m->number, n));
    }
    uint64_t from = m->disk_next > m->first_event ? m->disk_next : m->first_event;
    for (uint64_t n = from; n < m->next_event && err == FERRY_OK; n++) {
        pack_event(row, members_event(m, n));
        err = put(store, group, TABLE_EVENTS, event_key(key, m->number, n), row);
    }
    m->disk_first = m->first_event;
    m->disk_next = m->next_event;
    return err;
}

uint32_t members_dirty_rows(const struct members *m)
{
    return (uint32_t)(m->next_event - m->disk_next) + (m->dirty ? 1 : 0);
}

enum ferry_err members_flush(struct members *m, struct store *store, uint64_t group)
{
    if (!m->dirty) {
        return FERRY_OK;
    }
    struct buf row;
    buf_init(&row, ROW_MAX_BYTES);
    m->dirty = false;
    enum ferry_err err = flush_members(m, store, group, &row);
    if (err == FERRY_OK) {
        err = flush_events(m, store, group, &row);
    }
    buf_fini(&row);
    return err;
}

/* ---- Reading ---- */

static enum ferry_err load_member(struct members *m, struct bytes name, struct bytes value)
{
    struct unpack u;
    unpack_begin(&u, value);
    struct member_in in = {.name = name};
    in.instance = unpack_id(&u);
    in.zone = unpack_str(&u, ZONE_MAX_BYTES);
    in.client = unpack_str(&u, NAME_MAX_BYTES);
    in.session_ms = (uint32_t)unpack_uint(&u, UINT32_MAX);
    struct member *member = member_new(&in);
    if (member == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    member->joined_ms = unpack_int(&u);
    member->fenced_count = unpack_array(&u, MEMBER_FENCED_KEPT);
    for (uint32_t i = 0; i < member->fenced_count; i++) {
        member->fenced[i] = unpack_id(&u);
    }
    unpack_array_end(&u);
    member->dirty = false;
    bool fits = unpack_end(&u) == FERRY_OK && m->count < MEMBERS_MAX;
    enum ferry_err err = fits ? members_insert(m, member) : FERRY_ERR_CORRUPT;
    if (err != FERRY_OK) {
        mem_free(member);
    }
    return err;
}

static enum ferry_err load_member_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct members *m = arg;
    if (key.size < 8 || get_be64(key.data) != m->number) {
        *stop = true;
        return FERRY_OK;
    }
    if (key.size == 8) {
        return FERRY_OK; /* The group's: read when the members are known. */
    }
    bool name = key.size <= 8 + NAME_MAX_BYTES;
    return name ? load_member(m, bytes_of(key.data + 8, key.size - 8), value) : FERRY_ERR_CORRUPT;
}

static struct member *member_at(const struct members *m, struct unpack *u)
{
    uint64_t place = unpack_uint(u, m->count);
    return place > 0 ? m->items[place - 1] : NULL;
}

static enum ferry_err load_group(struct members *m, struct bytes value)
{
    struct unpack u;
    unpack_begin(&u, value);
    m->epoch = unpack_uint(&u, UINT64_MAX);
    uint32_t partitions = (uint32_t)unpack_uint(&u, PARTITIONS_MAX);
    m->first_event = unpack_uint(&u, UINT64_MAX);
    m->next_event = unpack_uint(&u, UINT64_MAX);
    if (members_grow_shares(m, partitions) != FERRY_OK) {
        m->next_event = m->first_event;
        return FERRY_ERR_NO_MEMORY;
    }
    bool all = unpack_array(&u, PARTITIONS_MAX) == partitions;
    for (uint32_t p = 0; p < partitions && all; p++) {
        (void)unpack_array(&u, UINT32_MAX);
        m->shares[p].target = member_at(m, &u);
        m->shares[p].holder = member_at(m, &u);
        m->shares[p].epoch = unpack_uint(&u, UINT64_MAX);
        unpack_array_end(&u);
    }
    unpack_array_end(&u);
    bool ring = m->next_event >= m->first_event && m->next_event - m->first_event <= EVENTS_MAX;
    if (unpack_end(&u) != FERRY_OK || !all || !ring) {
        m->next_event = m->first_event;
        return FERRY_ERR_CORRUPT;
    }
    m->disk_first = m->first_event;
    m->disk_next = m->next_event;
    return FERRY_OK;
}

static enum ferry_err load_event(struct members *m, uint64_t number, struct bytes value)
{
    struct unpack u;
    unpack_begin(&u, value);
    struct member_event like = {.number = number};
    like.time_ms = unpack_int(&u);
    like.kind = (enum member_event_kind)unpack_uint(&u, UINT8_MAX);
    struct bytes who = unpack_str(&u, NAME_MAX_BYTES);
    struct bytes why = unpack_str(&u, REASON_MAX_BYTES);
    like.epoch = unpack_uint(&u, UINT64_MAX);
    return unpack_end(&u) == FERRY_OK ? members_put_event(m, &like, who, why) : FERRY_ERR_CORRUPT;
}

static enum ferry_err load_event_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct members *m = arg;
    if (key.size != 16 || get_be64(key.data) != m->number) {
        *stop = true;
        return FERRY_OK;
    }
    uint64_t number = get_be64(key.data + 8);
    bool kept = number >= m->first_event && number < m->next_event;
    return kept ? load_event(m, number, value) : FERRY_OK; /* Newer: it comes with its entry. */
}

/* In a snapshot the oldest events may be gone already, because newer ones were there. */
static void skip_lost_events(struct members *m)
{
    for (uint64_t n = m->first_event; n < m->next_event; n++) {
        bool there = m->events != NULL && m->events[n % EVENTS_MAX] != NULL;
        m->first_event = there ? m->first_event : n + 1;
    }
}

static enum ferry_err load_rows(struct members *m, struct store *store, uint64_t group,
                                struct bytes group_row)
{
    uint8_t key[8];
    put_be64(key, m->number);
    struct bytes from = bytes_of(key, sizeof(key));
    enum ferry_err err = store_each_row(store, group, TABLE_MEMBERS, from, load_member_row, m);
    if (err == FERRY_OK) {
        err = load_group(m, group_row);
    }
    if (err == FERRY_OK) {
        err = store_each_row(store, group, TABLE_EVENTS, from, load_event_row, m);
        skip_lost_events(m);
    }
    m->dirty = false;
    return err;
}

enum ferry_err members_load(uint64_t number, struct store *store, uint64_t group,
                            struct members **mm)
{
    uint8_t key[8];
    struct bytes row;
    bool found = false;
    put_be64(key, number);
    enum ferry_err err =
        store_get(store, group, TABLE_MEMBERS, bytes_of(key, sizeof(key)), &found, &row);
    if (err != FERRY_OK || !found) {
        return err;
    }
    struct members *m = members_new(number);
    if (m == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    err = load_rows(m, store, group, row);
    if (err != FERRY_OK) {
        members_free(&m);
    }
    *mm = m;
    return err;
}
