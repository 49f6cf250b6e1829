/* The bytes on disk. To change one of them: raise STORE_FORMAT, keep reading the old number, and
 * write the new one only after every node of the cluster reads it. */
#include "base/checksum.h"
#include "store/store_core.h"

#define IDENTITY_MAGIC 0x44495246u /* "FRID" */

enum entry_offset {
    ENTRY_TERM = 0,
    ENTRY_BASE_OFFSET = 8,
    ENTRY_APPEND_TIME = 16,
    ENTRY_TYPE = 24, /* u8, then three zero bytes. */
    ENTRY_SKIP_COUNT = 28,
    ENTRY_PAYLOAD_BYTES = 32,
    ENTRY_ZERO = 36,
    ENTRY_CHECKSUM = 40,
    ENTRY_SKIPS = 48,
};
_Static_assert(ENTRY_CHECKSUM + 8 == STORE_ENTRY_HEADER_BYTES, "the checksum ends the header");
_Static_assert(ENTRY_SKIPS == STORE_ENTRY_HEADER_BYTES, "skips follow the header");
_Static_assert(STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES <= 511, "LMDB's longest key");

/* Group row: u64 term, vote, commit, trim_index, trim_term, deleted_index, flags, checksum. */
enum group_offset { GROUP_FLAGS = 48, GROUP_CHECKSUM = 56 };
#define GROUP_INSTALLING 1u /* The only flag. */
_Static_assert(GROUP_CHECKSUM + 8 == STORE_GROUP_BYTES, "the checksum ends the row");

/* Identity row: u32 magic, format; 16 bytes cluster id; u32 node, shard, shards,
 * incarnation; checksum. */
enum identity_offset {
    IDENTITY_FORMAT = 4,
    IDENTITY_CLUSTER = 8,
    IDENTITY_NODE = 24,
    IDENTITY_SHARD = 28,
    IDENTITY_SHARDS = 32,
    IDENTITY_INCARNATION = 36,
    IDENTITY_CHECKSUM = 40,
};
_Static_assert(IDENTITY_CHECKSUM + 8 == STORE_IDENTITY_BYTES, "the checksum ends the row");

void layout_log_key(uint8_t key[STORE_LOG_KEY_BYTES], uint64_t group, uint64_t index)
{
    put_be64(key, group);
    put_be64(key + 8, index);
}

size_t layout_state_key(uint8_t out[STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES], uint64_t group,
                        uint8_t table, struct bytes key)
{
    must(key.size <= STORE_KEY_MAX_BYTES);
    put_be64(out, group);
    out[STORE_GROUP_KEY_BYTES] = table;
    if (key.size > 0) {
        memcpy(out + STORE_STATE_PREFIX_BYTES, key.data, key.size);
    }
    return STORE_STATE_PREFIX_BYTES + key.size;
}

/* ---- Entries ---- */

static size_t skip_bytes(uint32_t skip_count)
{
    return (size_t)skip_count * sizeof(uint32_t);
}

/* How much of the payload the entry's own checksum covers: a batch brings its own. */
static size_t cover_bytes(uint8_t type, size_t payload_bytes)
{
    if (type == STORE_ENTRY_BATCH && payload_bytes > STORE_ENTRY_COVER_BYTES) {
        return STORE_ENTRY_COVER_BYTES;
    }
    return payload_bytes;
}

static uint64_t entry_checksum(const uint8_t *value, uint32_t skip_count, size_t payload_bytes)
{
    size_t covered = skip_bytes(skip_count) + cover_bytes(value[ENTRY_TYPE], payload_bytes);
    return checksum_of_two(value, ENTRY_CHECKSUM, value + ENTRY_SKIPS, covered);
}

size_t store_entry_bytes(const struct store_entry *entry)
{
    return STORE_ENTRY_HEADER_BYTES + skip_bytes(entry->skip_count) + entry->payload.size;
}

void store_entry_encode(uint8_t *out, const struct store_entry *entry)
{
    must(entry->type >= STORE_ENTRY_NOOP && entry->type <= STORE_ENTRY_CONFIG);
    must(entry->payload.size <= UINT32_MAX);
    put_le64(out + ENTRY_TERM, entry->term);
    put_le64(out + ENTRY_BASE_OFFSET, (uint64_t)entry->base_offset);
    put_le64(out + ENTRY_APPEND_TIME, (uint64_t)entry->append_time_ms);
    put_le32(out + ENTRY_TYPE, (uint32_t)entry->type);
    put_le32(out + ENTRY_SKIP_COUNT, entry->skip_count);
    put_le32(out + ENTRY_PAYLOAD_BYTES, (uint32_t)entry->payload.size);
    put_le32(out + ENTRY_ZERO, 0);
    uint8_t *payload = out + ENTRY_SKIPS + skip_bytes(entry->skip_count);
    if (entry->skip_count > 0) {
        memcpy(out + ENTRY_SKIPS, entry->skips, skip_bytes(entry->skip_count));
    }
    if (entry->payload.size > 0) {
        memcpy(payload, entry->payload.data, entry->payload.size);
    }
    put_le64(out + ENTRY_CHECKSUM, entry_checksum(out, entry->skip_count, entry->payload.size));
}

/* The lengths are believed only once they fill the value exactly. */
static bool entry_lengths_hold(struct bytes value)
{
    if (value.size < STORE_ENTRY_HEADER_BYTES) {
        return false;
    }
    uint64_t skips = get_le32(value.data + ENTRY_SKIP_COUNT);
    uint64_t payload = get_le32(value.data + ENTRY_PAYLOAD_BYTES);
    return STORE_ENTRY_HEADER_BYTES + skips * sizeof(uint32_t) + payload == value.size;
}

enum ferry_err store_entry_decode(struct bytes value, struct store_entry *entry)
{
    if (!entry_lengths_hold(value)) {
        return FERRY_ERR_CORRUPT;
    }
    const uint8_t *p = value.data;
    uint32_t skip_count = get_le32(p + ENTRY_SKIP_COUNT);
    uint32_t payload_bytes = get_le32(p + ENTRY_PAYLOAD_BYTES);
    uint32_t type = get_le32(p + ENTRY_TYPE);
    if (type < STORE_ENTRY_NOOP || type > STORE_ENTRY_CONFIG || get_le32(p + ENTRY_ZERO) != 0 ||
        get_le64(p + ENTRY_CHECKSUM) != entry_checksum(p, skip_count, payload_bytes)) {
        return FERRY_ERR_CORRUPT;
    }
    *entry = (struct store_entry){
        .term = get_le64(p + ENTRY_TERM),
        .base_offset = (int64_t)get_le64(p + ENTRY_BASE_OFFSET),
        .append_time_ms = (int64_t)get_le64(p + ENTRY_APPEND_TIME),
        .type = (enum store_entry_type)type,
        .skip_count = skip_count,
        .skips = p + ENTRY_SKIPS,
        .payload = bytes_of(p + ENTRY_SKIPS + skip_bytes(skip_count), payload_bytes),
    };
    return FERRY_OK;
}

/* ---- Group rows ---- */

/* Covers the key as well, so that a row in another's place is found. */
static uint64_t group_checksum(const uint8_t *value, uint64_t group)
{
    uint8_t key[STORE_GROUP_KEY_BYTES];
    put_be64(key, group);
    return checksum_of_two(value, GROUP_CHECKSUM, key, sizeof(key));
}

void layout_group_encode(uint8_t out[STORE_GROUP_BYTES], const struct store_group *g)
{
    const uint64_t fields[] = {g->term,       g->vote,      g->commit,
                               g->trim_index, g->trim_term, g->deleted_index};
    _Static_assert(sizeof(fields) == GROUP_FLAGS, "six numbers");
    memcpy(out, fields, sizeof(fields));
    put_le64(out + GROUP_FLAGS, g->installing ? GROUP_INSTALLING : 0);
    put_le64(out + GROUP_CHECKSUM, group_checksum(out, g->group));
}

enum ferry_err layout_group_decode(struct bytes key, struct bytes value, struct store_group *g)
{
    if (key.size != STORE_GROUP_KEY_BYTES || value.size != STORE_GROUP_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    uint64_t group = get_be64(key.data);
    const uint8_t *p = value.data;
    uint64_t flags = get_le64(p + GROUP_FLAGS);
    if (get_le64(p + GROUP_CHECKSUM) != group_checksum(p, group) || flags > GROUP_INSTALLING) {
        return FERRY_ERR_CORRUPT;
    }
    *g = (struct store_group){
        .group = group,
        .term = get_le64(p),
        .vote = get_le64(p + 8),
        .commit = get_le64(p + 16),
        .trim_index = get_le64(p + 24),
        .trim_term = get_le64(p + 32),
        .deleted_index = get_le64(p + 40),
        .installing = flags == GROUP_INSTALLING,
    };
    return FERRY_OK;
}

/* ---- Identity ---- */

void layout_identity_encode(uint8_t out[STORE_IDENTITY_BYTES], const struct store_identity *id)
{
    put_le32(out, IDENTITY_MAGIC);
    put_le32(out + IDENTITY_FORMAT, id->format);
    memcpy(out + IDENTITY_CLUSTER, id->cluster_id.bytes, sizeof(id->cluster_id.bytes));
    put_le32(out + IDENTITY_NODE, id->node_id);
    put_le32(out + IDENTITY_SHARD, id->shard);
    put_le32(out + IDENTITY_SHARDS, id->shards);
    put_le32(out + IDENTITY_INCARNATION, id->incarnation);
    put_le64(out + IDENTITY_CHECKSUM, checksum_of(out, IDENTITY_CHECKSUM));
}

enum ferry_err layout_identity_decode(struct bytes value, struct store_identity *id)
{
    const uint8_t *p = value.data;
    if (value.size < IDENTITY_CLUSTER || get_le32(p) != IDENTITY_MAGIC) {
        return FERRY_ERR_CORRUPT;
    }
    id->format = get_le32(p + IDENTITY_FORMAT);
    /* A newer format may have another row: nothing but the number is ours to read. */
    if (id->format > STORE_FORMAT) {
        return FERRY_ERR_NEWER_FORMAT;
    }
    if (value.size != STORE_IDENTITY_BYTES ||
        get_le64(p + IDENTITY_CHECKSUM) != checksum_of(p, IDENTITY_CHECKSUM)) {
        return FERRY_ERR_CORRUPT;
    }
    memcpy(id->cluster_id.bytes, p + IDENTITY_CLUSTER, sizeof(id->cluster_id.bytes));
    id->node_id = get_le32(p + IDENTITY_NODE);
    id->shard = get_le32(p + IDENTITY_SHARD);
    id->shards = get_le32(p + IDENTITY_SHARDS);
    id->incarnation = get_le32(p + IDENTITY_INCARNATION);
    return FERRY_OK;
}
