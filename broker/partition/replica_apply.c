/* After the commit: the core is told, and what is committed goes to the machine. */
#include "base/log.h"
#include "base/mem.h"
#include "partition/replica_internal.h"

static void finish_flush(struct replica *r)
{
    if (r->flushing == 0) {
        return;
    }
    r->flushed = r->flushing;
    r->flushing = 0;
    r->dirty_since_us = 0;
}

static bool is_machines(const struct store_entry *entry)
{
    return entry->type != STORE_ENTRY_NOOP && entry->type != STORE_ENTRY_CONFIG;
}

static enum ferry_err apply_one(struct replica *r, uint64_t index, const struct store_entry *entry)
{
    must(index == r->applied + 1);
    enum ferry_err err = FERRY_OK;
    if (is_machines(entry)) {
        err = r->config.ops->apply(r->config.machine, index, entry);
    }
    if (err == FERRY_OK) {
        r->applied = index;
    }
    return err;
}

/* The entry, if all of it is as it was written. *bad: it is not, and peers may help. */
static enum ferry_err read_sound(struct replica *r, struct store_cursor *cursor,
                                 struct store_entry *entry, bool *bad)
{
    uint64_t index = 0;
    enum ferry_err err = store_cursor_next(cursor, &index, entry);
    if (err == FERRY_OK) {
        err = index == r->applied + 1 ? peer_entry_check(entry) : FERRY_ERR_CORRUPT;
#ifdef MUT_40 /* an entry is applied that does not match its checksum */
        err = FERRY_OK;
#endif
    }
    *bad = err == FERRY_ERR_CORRUPT && replica_has_peers(r);
    return err == FERRY_ERR_OFFSET_OUT_OF_RANGE ? FERRY_ERR_CORRUPT : err;
}

/* Entries that this turn did not bring: after a restart, or committed late. */
static enum ferry_err apply_from_store(struct replica *r, uint64_t until)
{
    enum ferry_err err = store_read_begin(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    struct store_cursor cursor = {0};
    bool bad = false;
    err = store_cursor_open(r->config.store, r->config.group, r->applied + 1, &cursor);
    while (err == FERRY_OK && r->applied < until) {
        struct store_entry entry;
        err = read_sound(r, &cursor, &entry, &bad);
        if (err == FERRY_OK) {
            err = apply_one(r, r->applied + 1, &entry);
        }
    }
    store_cursor_close(&cursor);
    store_read_end(r->config.store);
    if (bad) {
        replica_damaged(r, r->applied + 1);
        return r->failed;
    }
    return err;
}

static enum ferry_err apply_committed(struct replica *r)
{
#ifdef MUT_31 /* what is only stored is applied */
    uint64_t commit = raft_last_index(r->raft);
#else
    uint64_t commit = raft_commit_index(r->raft);
#endif
    uint64_t in_memory = r->pending_count > 0 ? r->pending[0].index : commit + 1;
    enum ferry_err err = FERRY_OK;
    if (r->applied + 1 < in_memory && r->applied < commit) {
        uint64_t until = commit < in_memory - 1 ? commit : in_memory - 1;
        err = apply_from_store(r, until);
    }
    for (size_t i = 0; i < r->pending_count && err == FERRY_OK; i++) {
        uint64_t index = r->pending[i].index;
        if (index == r->applied + 1 && index <= commit) {
            err = apply_one(r, index, &r->pending[i].entry);
        }
    }
    return err;
}

static void tell_ready(struct replica *r)
{
    bool ready = replica_is_leader(r) && r->noop_index != 0 && r->applied >= r->noop_index &&
                 raft_is_ready(r->raft);
    if (ready && !r->ready_told) {
        r->ready_told = true;
        r->config.ops->role_changed(r->config.machine, true);
    }
}

/* What a message may vouch for and is not on disk. */
static bool has_unwritten(const struct replica *r)
{
    return r->pending_count > r->written || r->marks_dirty || r->members_dirty ||
           r->truncate_from != 0 || r->repair.have;
}

/* What waited for this fsync may leave now. */
void replica_release_after_sync(struct replica *r)
{
    for (size_t i = 0; i < r->after_sync.count; i++) {
        replica_queue_message(r, &r->durable, &r->after_sync.items[i]);
    }
    r->after_sync.count = 0;
}

static enum ferry_err tell_stored(struct replica *r, int64_t now_us)
{
    /* What the transaction held: everything pending was written (one write a turn). */
    uint64_t last = raft_last_index(r->raft);
    struct raft_event stored = {
        .type = RAFT_STORED, .now_us = now_us, .index = last, .term = raft_term_at(r->raft, last)};
    replica_release_after_sync(r);
    enum ferry_err err = replica_step(r, &stored);
    if (err == FERRY_OK && !has_unwritten(r)) {
        replica_release_after_sync(r); /* All that they vouch for is on disk already. */
    }
    return err;
}

bool replica_has_written(const struct replica *r)
{
    return r->in_transaction;
}

bool replica_wants_stored(const struct replica *r)
{
    if (r->failed != FERRY_OK) {
        return false;
    }
    if (r->raft == NULL) {
        return false;
    }
    bool stuck = repair_is_damaged(r) && r->repair.damaged[0] == r->applied + 1;
    bool applies = r->applied < raft_commit_index(r->raft) && !stuck;
    bool confirms = r->read_confirmed > r->read_done && r->applied >= r->read_index;
    return applies || confirms || r->after_sync.count > 0 || r->repair.remute;
}

static enum ferry_err stored_with_core(struct replica *r, int64_t now_us)
{
    size_t written = r->written;
    uint64_t applied = r->applied;
    enum ferry_err err = tell_stored(r, now_us);
    if (err == FERRY_OK) {
        err = apply_committed(r);
    }
    if (r->applied > applied && r->dirty_since_us == 0) {
        r->dirty_since_us = now_us;
    }
    if (err != FERRY_OK) {
        return err;
    }
    /* A vote just stored may have made it leader and added the no-op, which is not written yet. */
    size_t rest = r->pending_count - written;
    for (size_t i = 0; i < written; i++) {
        mem_free(r->pending[i].owned);
    }
    memmove(r->pending, r->pending + written, rest * sizeof(*r->pending));
    r->pending_count = rest;
    r->written = 0;
    replica_settle_reads(r);
    tell_ready(r);
    return FERRY_OK;
}

/* One transaction carries many groups: none of them may take a failed one for a success. */
static bool store_is_well(const struct replica *r)
{
#ifdef MUT_39 /* a group does not look whether the fsync succeeded */
    return r != NULL;
#else
    return store_failure(r->config.store, NULL) == FERRY_OK;
#endif
}

enum ferry_err replica_stored(struct replica *r, int64_t now_us)
{
    bool wrote = r->in_transaction;
    r->in_transaction = false;
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    if (!store_is_well(r)) {
        replica_fail(r, FERRY_ERR_STORE_FAILED);
        return FERRY_ERR_STORE_FAILED;
    }
    r->now_us = now_us;
    r->marks_dirty = r->marks_dirty && !wrote;
    r->repair.written = r->repair.have && wrote;
    r->repair.have = r->repair.have && !wrote;
    must(r->written == r->pending_count && !has_unwritten(r));
    finish_flush(r);
    enum ferry_err err = FERRY_OK;
    if (r->raft != NULL) {
        err = repair_stored(r, now_us);
    } else {
        err = install_stored(r, now_us);
    }
    if (err == FERRY_OK && r->raft != NULL) {
        err = stored_with_core(r, now_us);
    }
    if (err != FERRY_OK) {
        log_line(LOG_ERROR, "replica", "group %llu stops at index %llu: %s",
                 (unsigned long long)r->config.group, (unsigned long long)r->applied + 1,
                 ferry_err_text(err));
        replica_fail(r, err);
    }
    return err;
}
