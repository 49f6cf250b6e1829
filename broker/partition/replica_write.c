/* What a replica puts into the shard's transaction. */
#include "base/checksum.h"
#include "partition/replica_internal.h"

#define TRUNCATE_STEP 4096u

static bool wants_flush(const struct replica *r, int64_t now_us)
{
    if (r->raft == NULL) {
        return false;
    }
    return r->flush_asked || r->applied - r->flushed >= REPLICA_FLUSH_ENTRIES ||
           r->config.ops->flush_rows(r->config.machine) >= REPLICA_FLUSH_ROWS ||
           (r->dirty_since_us != 0 && now_us - r->dirty_since_us >= REPLICA_FLUSH_MS * 1000);
}

void replica_ask_flush(struct replica *r)
{
    r->flush_asked = true;
}

static uint64_t delete_goal(const struct replica *r)
{
    uint64_t goal = r->marks.trim_index < r->flushed ? r->marks.trim_index : r->flushed;
    raft_index bound = snapshot_delete_bound(r);
    return goal < bound ? goal : bound;
}

static bool wants_delete(const struct replica *r)
{
    return r->raft != NULL && r->marks.deleted_index < delete_goal(r);
}

bool replica_wants_write(const struct replica *r, int64_t now_us)
{
    if (r->failed != FERRY_OK) {
        return false;
    }
    return r->pending_count > r->written || r->marks_dirty || r->members_dirty ||
           r->truncate_from != 0 || r->repair.have || install_wants_write(r) ||
           wants_flush(r, now_us) || wants_delete(r);
}

/* All of it at once: what is appended next must find the end where the core believes it. An
 * uncommitted tail has at most RAFT_UNCOMMITTED_MAX entries. */
static enum ferry_err write_truncation(struct replica *r)
{
    enum ferry_err err = FERRY_OK;
    uint32_t deleted = TRUNCATE_STEP;
    while (r->truncate_from != 0 && err == FERRY_OK && deleted == TRUNCATE_STEP) {
        err = store_truncate(r->config.store, r->config.group, r->truncate_from, TRUNCATE_STEP,
                             &deleted);
    }
    r->truncate_from = 0;
    return err;
}

static enum ferry_err write_entries(struct replica *r)
{
    for (size_t i = r->written; i < r->pending_count; i++) {
        enum ferry_err err = store_append(r->config.store, r->config.group, r->pending[i].index,
                                          &r->pending[i].entry);
        if (err != FERRY_OK) {
            return err;
        }
    }
    r->written = r->pending_count;
    return FERRY_OK;
}

static enum ferry_err write_configs(struct replica *r)
{
#ifdef MUT_41 /* the members in force are not on disk with the entry that named them */
    return FERRY_OK;
#endif
    struct buf row;
    buf_init(&row, 4096);
    peer_put_config(&row, &r->members);
    peer_put_config(&row, &r->previous_members);
    buf_append_le64(&row, checksum_of(row.data, row.size));
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = store_put(r->config.store, r->config.group, REPLICA_TABLE_CONFIG, bytes_of(NULL, 0),
                        buf_bytes(&row));
    }
    buf_fini(&row);
    r->members_dirty = false;
    return err;
}

static enum ferry_err write_deletes(struct replica *r)
{
    uint64_t goal = delete_goal(r);
    uint64_t first = r->marks.deleted_index + 1;
    uint64_t last = first + REPLICA_DELETE_MAX - 1 < goal ? first + REPLICA_DELETE_MAX - 1 : goal;
    uint32_t deleted = 0;
    uint64_t bytes = 0;
    enum ferry_err err = store_delete_entries(r->config.store, r->config.group, first, last,
                                              REPLICA_DELETE_MAX, &deleted, &bytes);
    if (err == FERRY_OK) {
        r->marks.deleted_index = last;
        r->marks_dirty = true;
    }
    return err;
}

static enum ferry_err write_flush(struct replica *r, uint32_t *rows_left)
{
    uint32_t rows = r->config.ops->flush_rows(r->config.machine);
    *rows_left -= rows < *rows_left ? rows : *rows_left;
    r->flushing = r->applied;
    r->flush_asked = false; /* The machine may ask again from within. */
    r->marks.commit = raft_commit_index(r->raft);
    r->marks_dirty = true;
    return r->config.ops->flush(r->config.machine, r->config.store);
}

static enum ferry_err write_log(struct replica *r)
{
    enum ferry_err err = write_truncation(r);
    if (err == FERRY_OK && r->repair.have) {
        err = repair_write(r);
    }
    return err == FERRY_OK ? write_entries(r) : err;
}

enum ferry_err replica_write(struct replica *r, int64_t now_us, uint32_t *rows_left)
{
    r->in_transaction = true;
    enum ferry_err err = install_wants_write(r) ? install_write(r) : FERRY_OK;
    if (err == FERRY_OK) {
        err = write_log(r);
    }
    if (err == FERRY_OK && r->members_dirty) {
        err = write_configs(r);
    }
    if (err == FERRY_OK && *rows_left > 0 && wants_flush(r, now_us)) {
        err = write_flush(r, rows_left);
    }
    if (err == FERRY_OK && wants_delete(r)) {
        err = write_deletes(r);
    }
    if (err == FERRY_OK && r->marks_dirty) {
        err = store_put_group(r->config.store, &r->marks);
    }
    return err;
}
