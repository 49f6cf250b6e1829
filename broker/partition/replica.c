#include "partition/replica.h"

#include "base/log.h"
#include "base/mem.h"

/* An entry on its way to the disk; the payload belongs to the proposer until replica_stored. */
struct pending_entry {
    uint64_t index;
    struct store_entry entry;
};

struct replica {
    struct replica_config config;
    struct raft *raft;
    struct store_group marks; /* As they should be on disk. */
    bool marks_dirty;
    bool ready_told; /* The machine was told that it may take requests. */
    enum ferry_err failed;

    uint64_t applied;
    uint64_t flushed;
    uint64_t flushing;      /* Covered by the flush in the open transaction; 0: none. */
    bool flush_asked;       /* By the machine: do not wait until it is due. */
    int64_t dirty_since_us; /* When the first entry after `flushed` was applied; 0: clean. */
    int64_t last_append_time_ms;
    int64_t next_offset; /* After the last entry, proposed ones included. */

    struct pending_entry *pending; /* Consecutive, ending at the last index. */
    size_t pending_count, pending_capacity;
    size_t written;      /* Of pending, in the open transaction. */
    bool in_transaction; /* The open transaction holds something of this replica. */
};

/* ---- Opening ---- */

struct run_list {
    struct raft_run *runs;
    size_t count, capacity;
};

static enum ferry_err add_run(struct run_list *l, uint64_t index, uint64_t term)
{
    if (l->count > 0 && l->runs[l->count - 1].term == term) {
        return FERRY_OK;
    }
    if (!mem_grow((void **)&l->runs, &l->capacity, l->count + 1, sizeof(*l->runs))) {
        return FERRY_ERR_NO_MEMORY;
    }
    l->runs[l->count++] = (struct raft_run){.first = index, .term = term};
    return FERRY_OK;
}

/* Finds where the terms change. Terms never decrease along a log, so the next change is found by
 * bisection: a log of 10 million entries and a few terms costs a few dozen reads, not a scan. */
static enum ferry_err read_runs(const struct replica *r, uint64_t first, uint64_t last,
                                struct run_list *l)
{
    struct store *store = r->config.store;
    struct store_entry entry;
    for (uint64_t at = first; at != 0 && at <= last;) {
        enum ferry_err err = store_get_entry(store, r->config.group, at, &entry);
        if (err != FERRY_OK) {
            return err;
        }
        uint64_t term = entry.term;
        if ((err = add_run(l, at, term)) != FERRY_OK) {
            return err;
        }
        uint64_t low = at, high = last + 1; /* low has the term; high has another or is past. */
        while (high - low > 1) {
            uint64_t middle = low + (high - low) / 2;
            if ((err = store_get_entry(store, r->config.group, middle, &entry)) != FERRY_OK) {
                return err;
            }
            if (entry.term < term) {
                return FERRY_ERR_CORRUPT;
            }
            *(entry.term == term ? &low : &high) = middle;
        }
        at = high;
    }
    return FERRY_OK;
}

static enum ferry_err open_raft(struct replica *r, int64_t now_us)
{
    uint64_t first = 0, last = 0;
    enum ferry_err err = store_log_bounds(r->config.store, r->config.group, &first, &last);
    if (err != FERRY_OK) {
        return err;
    }
    if (first != 0 && first <= r->marks.trim_index) {
        first = r->marks.trim_index + 1;
    }
    last = last < r->marks.trim_index ? r->marks.trim_index : last;
    struct run_list runs = {0};
    err = read_runs(r, first, last, &runs);
    if (err == FERRY_OK && last > 0 && last > r->marks.trim_index) {
        struct store_entry entry;
        err = store_get_entry(r->config.store, r->config.group, last, &entry);
        if (err == FERRY_OK) {
            r->last_append_time_ms = entry.append_time_ms;
            r->next_offset = r->config.ops->next_offset(&entry);
        }
    }
    if (err == FERRY_OK) {
        struct raft_config config = {.self = r->config.self,
                                     .seed = r->config.seed,
                                     .election_min_us = RAFT_ELECTION_MIN_US,
                                     .election_max_us = RAFT_ELECTION_MAX_US,
                                     .heartbeat_us = RAFT_HEARTBEAT_US};
        struct raft_members alone = {.voters = {r->config.self}, .voter_count = 1};
        struct raft_disk disk = {.config = {.members = alone},
                                 .previous_config = {.members = alone},
                                 .term = r->marks.term,
                                 .vote = r->marks.vote,
                                 .commit = r->marks.commit,
                                 .trim_index = r->marks.trim_index,
                                 .trim_term = r->marks.trim_term,
                                 .last_index = last,
                                 .runs = runs.runs,
                                 .run_count = runs.count};
        err = raft_new(&config, &disk, now_us, &r->raft);
    }
    mem_free(runs.runs);
    return err;
}

static enum ferry_err read_from_store(struct replica *r, int64_t now_us)
{
    enum ferry_err err = store_read_begin(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    err = store_get_group(r->config.store, r->config.group, &r->marks);
    if (err == FERRY_ERR_UNKNOWN_PARTITION) {
        r->marks = (struct store_group){.group = r->config.group};
        r->marks_dirty = true;
        err = FERRY_OK;
    }
    if (err == FERRY_OK) {
        err = open_raft(r, now_us);
    }
    store_read_end(r->config.store);
    return err;
}

enum ferry_err replica_open(const struct replica_config *config, int64_t now_us,
                            struct replica **out, struct err_text *e)
{
    struct replica *r = mem_zalloc(1, sizeof(*r));
    if (r == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    r->config = *config;
    r->applied = config->applied;
    r->flushed = config->applied;
    r->next_offset = config->next_offset;
    enum ferry_err err = read_from_store(r, now_us);
    /* The trim's mark may be ahead of the rows (a crash before the flush): the entries between are
     * still there and are applied again. They are deleted only after the rows that replace them. */
    if (err == FERRY_OK && r->applied < r->marks.deleted_index) {
        err = FERRY_ERR_CORRUPT;
    }
    if (err != FERRY_OK) {
        err = err_set(e, err, "group %llu: %s", (unsigned long long)config->group,
                      ferry_err_text(err));
        replica_close(&r);
        return err;
    }
    *out = r;
    return FERRY_OK;
}

void replica_close(struct replica **r)
{
    if (*r == NULL) {
        return;
    }
    raft_free(&(*r)->raft);
    mem_free((*r)->pending);
    mem_free(*r);
    *r = NULL;
}

/* ---- Stepping the core ---- */

static bool reserve_pending(struct replica *r)
{
    return mem_grow((void **)&r->pending, &r->pending_capacity, r->pending_count + 2,
                    sizeof(*r->pending));
}

static void push_pending(struct replica *r, uint64_t index, const struct store_entry *entry)
{
    must(r->pending_count < r->pending_capacity);
    must(r->pending_count == 0 || r->pending[r->pending_count - 1].index + 1 == index);
    r->pending[r->pending_count++] = (struct pending_entry){.index = index, .entry = *entry};
}

/* Takes from an update what does not concern a proposal: marks, and a new leader's no-op. */
static void take_update(struct replica *r, const struct raft_update *update)
{
    /* A group of one has nobody to send to and nothing to truncate; a cluster adds it here. */
    must(update->send_now_count == 0 && update->send_after_sync_count == 0);
    must(update->truncate_from == 0);
    if (update->hard_state_changed) {
        r->marks.term = update->term;
        r->marks.vote = update->vote;
        r->marks_dirty = true;
    }
    if (update->append_kind == RAFT_APPENDED_NOOP) {
        struct store_entry noop = {.term = update->append_term,
                                   .type = STORE_ENTRY_NOOP,
                                   .base_offset = r->next_offset,
                                   .append_time_ms = r->last_append_time_ms};
        push_pending(r, update->append_first, &noop);
    }
    if (update->lost_leadership && r->ready_told) {
        r->ready_told = false;
        r->config.ops->role_changed(r->config.machine, false);
    }
}

static enum ferry_err step(struct replica *r, const struct raft_event *event,
                           struct raft_update *update)
{
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    if (!reserve_pending(r)) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = raft_step(r->raft, event, update);
    if (err == FERRY_OK) {
        take_update(r, update);
    }
    return err;
}

enum ferry_err replica_tick(struct replica *r, int64_t now_us)
{
    struct raft_event tick = {.type = RAFT_TICK, .now_us = now_us};
    struct raft_update update;
    return step(r, &tick, &update);
}

int64_t replica_deadline_us(const struct replica *r)
{
    if (r->failed != FERRY_OK) {
        return RAFT_NEVER;
    }
    int64_t due = raft_deadline_us(r->raft);
    if (r->dirty_since_us != 0) {
        int64_t flush_due = r->dirty_since_us + REPLICA_FLUSH_MS * 1000;
        due = flush_due < due ? flush_due : due;
    }
    return due;
}

enum ferry_err replica_propose(struct replica *r, struct store_entry *entry, int64_t now_us,
                               uint64_t *index)
{
    must(entry->append_time_ms >= r->last_append_time_ms);
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    if (!replica_is_ready(r)) {
        return FERRY_ERR_NOT_READY;
    }
    struct raft_event propose = {.type = RAFT_PROPOSE, .now_us = now_us, .count = 1};
    struct raft_update update;
    enum ferry_err err = step(r, &propose, &update);
    if (err != FERRY_OK) {
        return err;
    }
    must(update.append_kind == RAFT_APPENDED_PROPOSAL && update.append_first == update.append_last);
    entry->term = update.append_term;
    push_pending(r, update.append_first, entry);
    r->last_append_time_ms = entry->append_time_ms;
    r->next_offset = r->config.ops->next_offset(entry);
    *index = update.append_first;
    return FERRY_OK;
}

void replica_trim(struct replica *r, uint64_t index)
{
    must(index <= r->applied);
    if (index <= r->marks.trim_index) {
        return;
    }
    r->marks.trim_term = raft_term_at(r->raft, index);
    r->marks.trim_index = index;
    r->marks_dirty = true;
    struct raft_event trim = {.type = RAFT_TRIM, .index = index};
    struct raft_update update;
    must(raft_step(r->raft, &trim, &update) == FERRY_OK);
}

/* ---- Writing ---- */

static bool wants_flush(const struct replica *r, int64_t now_us)
{
    return r->flush_asked || r->applied - r->flushed >= REPLICA_FLUSH_ENTRIES ||
           r->config.ops->flush_rows(r->config.machine) >= REPLICA_FLUSH_ROWS ||
           (r->dirty_since_us != 0 && now_us - r->dirty_since_us >= REPLICA_FLUSH_MS * 1000);
}

void replica_ask_flush(struct replica *r)
{
    r->flush_asked = true;
}

static bool wants_delete(const struct replica *r)
{
    uint64_t goal = r->marks.trim_index < r->flushed ? r->marks.trim_index : r->flushed;
    return r->marks.deleted_index < goal;
}

bool replica_wants_write(const struct replica *r, int64_t now_us)
{
    if (r->failed != FERRY_OK) {
        return false;
    }
    return r->pending_count > r->written || r->marks_dirty || wants_flush(r, now_us) ||
           wants_delete(r);
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

static enum ferry_err write_deletes(struct replica *r)
{
    uint64_t goal = r->marks.trim_index < r->flushed ? r->marks.trim_index : r->flushed;
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

enum ferry_err replica_write(struct replica *r, int64_t now_us, uint32_t *rows_left)
{
    r->in_transaction = true;
    enum ferry_err err = write_entries(r);
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

/* ---- After the commit ---- */

static void finish_flush(struct replica *r)
{
    if (r->flushing == 0) {
        return;
    }
    r->flushed = r->flushing;
    r->flushing = 0;
    r->dirty_since_us = 0;
}

static enum ferry_err apply_one(struct replica *r, uint64_t index, const struct store_entry *entry)
{
    must(index == r->applied + 1);
    enum ferry_err err = FERRY_OK;
    if (entry->type != STORE_ENTRY_NOOP) {
        err = r->config.ops->apply(r->config.machine, index, entry);
    }
    if (err == FERRY_OK) {
        r->applied = index;
    }
    return err;
}

/* Entries that this turn did not bring: after a restart, or (in a cluster) committed late. */
static enum ferry_err apply_from_store(struct replica *r, uint64_t until)
{
    enum ferry_err err = store_read_begin(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    struct store_cursor cursor = {0};
    err = store_cursor_open(r->config.store, r->config.group, r->applied + 1, &cursor);
    while (err == FERRY_OK && r->applied < until) {
        uint64_t index = 0;
        struct store_entry entry;
        err = store_cursor_next(&cursor, &index, &entry);
        if (err == FERRY_OK) {
            err = index == r->applied + 1 ? apply_one(r, index, &entry) : FERRY_ERR_CORRUPT;
        }
    }
    store_cursor_close(&cursor);
    store_read_end(r->config.store);
    return err == FERRY_ERR_OFFSET_OUT_OF_RANGE ? FERRY_ERR_CORRUPT : err;
}

static enum ferry_err apply_committed(struct replica *r)
{
    uint64_t commit = raft_commit_index(r->raft);
    uint64_t in_memory = r->pending_count > 0 ? r->pending[0].index : commit + 1;
    enum ferry_err err = FERRY_OK;
    if (r->applied + 1 < in_memory && r->applied < commit) {
        err = apply_from_store(r, commit < in_memory - 1 ? commit : in_memory - 1);
    }
    for (size_t i = 0; i < r->pending_count && err == FERRY_OK; i++) {
        uint64_t index = r->pending[i].index;
        if (index > r->applied && index <= commit) {
            err = apply_one(r, index, &r->pending[i].entry);
        }
    }
    return err;
}

static void tell_ready(struct replica *r)
{
    bool ready = replica_is_ready(r);
    if (ready && !r->ready_told) {
        r->ready_told = true;
        r->config.ops->role_changed(r->config.machine, true);
    }
}

static enum ferry_err tell_stored(struct replica *r, int64_t now_us)
{
    /* What the transaction held: everything pending was written (one write a turn). */
    uint64_t last = raft_last_index(r->raft);
    struct raft_event stored = {
        .type = RAFT_STORED, .now_us = now_us, .index = last, .term = raft_term_at(r->raft, last)};
    struct raft_update update;
    return step(r, &stored, &update);
}

bool replica_has_written(const struct replica *r)
{
    return r->in_transaction;
}

enum ferry_err replica_stored(struct replica *r, int64_t now_us)
{
    r->in_transaction = false;
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    must(r->written == r->pending_count);
    size_t written = r->written;
    r->marks_dirty = false;
    finish_flush(r);
    uint64_t applied = r->applied;
    enum ferry_err err = tell_stored(r, now_us);
    if (err == FERRY_OK) {
        err = apply_committed(r);
    }
    if (err != FERRY_OK) {
        log_line(LOG_ERROR, "replica", "group %llu stops at index %llu: %s",
                 (unsigned long long)r->config.group, (unsigned long long)r->applied + 1,
                 ferry_err_text(err));
        replica_fail(r, err);
        return err;
    }
    if (r->applied > applied && r->dirty_since_us == 0) {
        r->dirty_since_us = now_us;
    }
    /* A vote just stored may have made it leader and added the no-op, which is not written yet. */
    size_t rest = r->pending_count - written;
    memmove(r->pending, r->pending + written, rest * sizeof(*r->pending));
    r->pending_count = rest;
    r->written = 0;
    tell_ready(r);
    return FERRY_OK;
}

void replica_fail(struct replica *r, enum ferry_err err)
{
    if (r->failed != FERRY_OK) {
        return;
    }
    r->failed = err;
    r->ready_told = false;
    r->config.ops->role_changed(r->config.machine, false);
}

/* ---- Asking ---- */

bool replica_is_ready(const struct replica *r)
{
    return r->failed == FERRY_OK && raft_role(r->raft) == RAFT_LEADER && raft_is_ready(r->raft) &&
           r->applied == raft_commit_index(r->raft);
}

enum ferry_err replica_failure(const struct replica *r)
{
    return r->failed;
}

uint64_t replica_applied(const struct replica *r)
{
    return r->applied;
}

uint64_t replica_commit(const struct replica *r)
{
    return raft_commit_index(r->raft);
}

uint64_t replica_last_index(const struct replica *r)
{
    return raft_last_index(r->raft);
}

uint64_t replica_term(const struct replica *r)
{
    return raft_current_term(r->raft);
}

uint64_t replica_first_index(const struct replica *r)
{
    return r->marks.trim_index + 1;
}

uint64_t replica_group(const struct replica *r)
{
    return r->config.group;
}

void replica_check(const struct replica *r)
{
    raft_check(r->raft);
    must(r->applied <= raft_commit_index(r->raft) || r->failed != FERRY_OK);
    must(r->flushed <= r->applied);
    /* Until it has caught up with its log it may not have applied what it once trimmed. */
    must(r->marks.trim_index <= r->applied || !r->ready_told);
    must(r->marks.deleted_index <= r->marks.trim_index);
    must(r->marks.deleted_index <= r->flushed);
}
