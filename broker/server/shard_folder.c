/* What the folder of a node remembers of its cluster, in the store of shard 0: the cluster's id in
 * its identity, and rows of a group that is no Raft group (NODE_GROUP):
 *   "boot"      how often it was started: u64; raised and fsynced before anything is said
 *   "founders"  members that founded the cluster, this one among them: u64 each
 *   "joined"    it was let into a cluster that lived: group 0 is to be fed from others
 *   "whole"     all shards of the node have had their folders
 * All are written before they are acted on. */
#include "server/shard_internal.h"

#define NODE_GROUP UINT64_MAX
#define NODE_TABLE 1u

static enum ferry_err read_row(struct shard *s, const char *key, struct buf *value)
{
    bool found = false;
    struct bytes row;
    enum ferry_err err = store_read_begin(s->store);
    if (err != FERRY_OK) {
        return err;
    }
    err = store_get(s->store, NODE_GROUP, NODE_TABLE, bytes_of_string(key), &found, &row);
    if (err == FERRY_OK && found) {
        buf_append_bytes(value, row);
    }
    store_read_end(s->store);
    return err == FERRY_OK && !buf_ok(value) ? FERRY_ERR_NO_MEMORY : err;
}

static enum ferry_err put_row(struct shard *s, const char *key, struct bytes value)
{
    return store_put(s->store, NODE_GROUP, NODE_TABLE, bytes_of_string(key), value);
}

enum ferry_err shard_count_boot(struct shard *s)
{
    struct buf row;
    uint8_t value[8];
    buf_init(&row, sizeof(value));
    enum ferry_err err = read_row(s, "boot", &row);
    s->boot_count = (row.size == sizeof(value) ? get_le64(row.data) : 0) + 1;
    buf_fini(&row);
    if (err == FERRY_OK) {
        err = store_begin(s->store);
    }
    put_le64(value, s->boot_count);
    if (err == FERRY_OK) {
        err = put_row(s, "boot", bytes_of(value, sizeof(value)));
    }
    return err == FERRY_OK ? store_commit(s->store) : err;
}

enum ferry_err shard_read_founders(struct shard *s, struct raft_members *m)
{
    struct buf row;
    buf_init(&row, RAFT_VOTERS_MAX * sizeof(uint64_t));
    *m = (struct raft_members){0};
    enum ferry_err err = read_row(s, "founders", &row);
    for (size_t i = 0; i < row.size / sizeof(uint64_t); i++) {
        m->voters[m->voter_count++] = get_le64(row.data + i * sizeof(uint64_t));
    }
    buf_fini(&row);
    return err;
}

enum ferry_err shard_has_mark(struct shard *s, const char *key, bool *has)
{
    struct buf row;
    buf_init(&row, 8);
    enum ferry_err err = read_row(s, key, &row);
    *has = row.size > 0;
    buf_fini(&row);
    return err;
}

bool shard_is_whole(const struct shard *s)
{
    return s->is_whole;
}

enum ferry_err shard_remember_whole(struct shard *s)
{
    if (s->is_whole) {
        return FERRY_OK;
    }
    enum ferry_err err = store_begin(s->store);
    if (err == FERRY_OK) {
        err = put_row(s, "whole", bytes_of("1", 1));
    }
    s->is_whole = err == FERRY_OK;
    return err == FERRY_OK ? store_commit(s->store) : err;
}

/* The cluster's id and how this node came to it, in one transaction. */
enum ferry_err shard_remember_cluster(struct shard *s, const struct ferry_id *cluster_id,
                                      const struct raft_members *founders)
{
    uint8_t row[RAFT_VOTERS_MAX * sizeof(uint64_t)];
    for (uint32_t i = 0; i < founders->voter_count; i++) {
        put_le64(row + i * sizeof(uint64_t), founders->voters[i]);
    }
    enum ferry_err err = store_begin(s->store);
    if (err != FERRY_OK) {
        return err;
    }
    err = store_set_cluster(s->store, cluster_id);
    if (err == FERRY_OK && founders->voter_count > 0) {
        err = put_row(s, "founders", bytes_of(row, founders->voter_count * sizeof(uint64_t)));
    } else if (err == FERRY_OK) {
        err = put_row(s, "joined", bytes_of("1", 1));
    }
    if (err != FERRY_OK) {
        store_abort(s->store);
        return err;
    }
    return store_commit(s->store);
}
