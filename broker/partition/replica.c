/* Life and asking. */
#include "base/log.h"
#include "base/mem.h"
#include "partition/replica_internal.h"

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- Life ---- */

static enum ferry_err open_from_store(struct replica *r, int64_t now_us)
{
    enum ferry_err err = store_read_begin(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    err = replica_read_store(r, now_us);
    store_read_end(r->config.store);
    /* The trim's mark may be ahead of the rows (a crash before the flush): the entries between are
     * still there and are applied again. They are deleted only after the rows that replace them. */
    if (err == FERRY_OK && r->raft != NULL && r->applied < r->marks.deleted_index) {
        err = FERRY_ERR_CORRUPT;
    }
    return err;
}

enum ferry_err replica_open(const struct replica_config *config, int64_t now_us,
                            struct replica **out, struct err_text *e)
{
    must(config->self != 0);
    struct replica *r = mem_zalloc(1, sizeof(*r));
    if (r == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    r->config = *config;
    r->now_us = now_us;
    r->applied = config->applied;
    r->flushed = config->applied;
    r->next_offset = config->next_offset;
    r->members.members = config->initial;
    enum ferry_err err = raft_members_check(&config->initial);
    if (err == FERRY_OK) {
        err = open_from_store(r, now_us);
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

static void free_messages(struct message_list *l)
{
    mem_free(l->items);
    *l = (struct message_list){0};
}

void replica_close(struct replica **rr)
{
    struct replica *r = *rr;
    if (r == NULL) {
        return;
    }
    raft_free(&r->raft);
    replica_drop_pending(r, 0);
    mem_free(r->pending);
    free_messages(&r->now);
    free_messages(&r->after_sync);
    free_messages(&r->durable);
    snapshot_fini(r);
    mem_free(r->in.taken);
    mem_free(r);
    *rr = NULL;
}

void replica_fail(struct replica *r, enum ferry_err err)
{
    must(err != FERRY_OK);
    if (r->failed != FERRY_OK) {
        return;
    }
    r->failed = err;
    r->ready_told = false;
    snapshot_cancel_all(r);
    r->now.count = 0;
    r->after_sync.count = 0;
    r->durable.count = 0;
    r->config.ops->role_changed(r->config.machine, false);
}

/* ---- Time ---- */

enum ferry_err replica_tick(struct replica *r, int64_t now_us)
{
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    r->now_us = now_us;
    if (r->raft == NULL) {
        install_tick(r, now_us);
        return FERRY_OK;
    }
    snapshot_tick(r, now_us);
    struct raft_event tick = {.type = RAFT_TICK, .now_us = now_us};
    return replica_step(r, &tick);
}

bool replica_must_not_copy(const struct replica *r)
{
    bool copies = replica_members(r)->learner_count > 0 || r->out[0].to != 0 || r->out[1].to != 0;
    return copies && r->config.copy_bytes != NULL && *r->config.copy_bytes <= 0;
}

int64_t replica_deadline_us(const struct replica *r)
{
    if (r->failed != FERRY_OK) {
        return RAFT_NEVER;
    }
    if (r->raft == NULL) {
        return install_deadline_us(r);
    }
    int64_t due = raft_deadline_us(r->raft);
    if (replica_must_not_copy(r) && replica_is_leader(r)) {
        due = sooner(due, r->now_us + REPLICA_COPY_WAIT_US);
    }
    if (r->dirty_since_us != 0) {
        due = sooner(due, r->dirty_since_us + REPLICA_FLUSH_MS * 1000);
    }
    due = sooner(due, snapshot_deadline_us(r));
    return sooner(due, repair_deadline_us(r));
}

/* ---- Asking ---- */

bool replica_is_ready(const struct replica *r)
{
    return r->failed == FERRY_OK && r->ready_told;
}

enum ferry_err replica_failure(const struct replica *r)
{
    return r->failed;
}

uint64_t replica_flushed(const struct replica *r)
{
    return r->flushed;
}

uint64_t replica_applied(const struct replica *r)
{
    return r->applied;
}

uint64_t replica_commit(const struct replica *r)
{
    return r->raft != NULL ? raft_commit_index(r->raft) : 0;
}

uint64_t replica_last_index(const struct replica *r)
{
    return r->raft != NULL ? raft_last_index(r->raft) : 0;
}

uint64_t replica_term(const struct replica *r)
{
    return r->raft != NULL ? raft_current_term(r->raft) : r->marks.term;
}

uint64_t replica_first_index(const struct replica *r)
{
    return r->marks.trim_index + 1;
}

uint64_t replica_group(const struct replica *r)
{
    return r->config.group;
}

raft_id replica_leader(const struct replica *r)
{
    return r->raft != NULL ? raft_leader(r->raft) : r->in.from;
}

enum replica_state replica_state(const struct replica *r)
{
    if (r->failed != FERRY_OK) {
        return REPLICA_FAILED;
    }
    if (r->raft == NULL) {
        return REPLICA_INSTALLING;
    }
    if (repair_is_damaged(r)) {
        return REPLICA_DAMAGED;
    }
    if (!replica_is_leader(r)) {
        return REPLICA_FOLLOWING;
    }
    return r->ready_told ? REPLICA_READY : REPLICA_LEADING;
}

bool replica_is_quiet(const struct replica *r)
{
    return r->failed == FERRY_OK && r->raft != NULL && raft_is_quiet(r->raft);
}

const struct raft_members *replica_members(const struct replica *r)
{
    return &r->members.members;
}

bool replica_members_are_final(const struct replica *r)
{
    return r->raft != NULL && r->members.index <= raft_commit_index(r->raft);
}

size_t replica_progress(const struct replica *r, struct raft_progress *out, size_t max)
{
    return r->raft != NULL && r->failed == FERRY_OK ? raft_progress(r->raft, out, max) : 0;
}

raft_id replica_regressed(const struct replica *r)
{
    return r->regressed;
}

bool replica_snapshot_bytes(const struct replica *r, uint64_t *done, uint64_t *all)
{
    if (r->raft == NULL) {
        *done = r->in.bytes_done;
        *all = r->in.from != 0 ? r->in.marks.bytes : 0;
        return true;
    }
    *done = 0;
    *all = 0;
    bool any = false;
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        const struct snapshot_out *s = &r->out[i];
        if (s->to != 0) {
            *done += s->bytes_done;
            *all += s->marks.bytes;
            any = true;
        }
    }
    return any;
}

uint64_t replica_dropped(const struct replica *r)
{
    return r->dropped;
}

void replica_check(const struct replica *r)
{
    must(r->flushed <= r->applied || r->raft == NULL);
    must(r->written <= r->pending_count);
    must(r->raft != NULL || r->marks.installing || r->failed != FERRY_OK);
    must(r->marks.deleted_index <= r->marks.trim_index);
    if (r->raft == NULL) {
        must(!r->ready_told && r->pending_count == 0);
        return;
    }
    raft_check(r->raft);
    must(!r->marks.installing || r->failed != FERRY_OK);
    must(r->applied <= raft_commit_index(r->raft) || r->failed != FERRY_OK);
    /* Until it has caught up with its log it may not have applied what it once trimmed. */
    must(r->marks.trim_index <= r->applied || !r->ready_told);
    must(r->marks.deleted_index <= r->flushed);
    must(r->pending_count == 0 ||
         r->pending[r->pending_count - 1].index == raft_last_index(r->raft));
    must(!r->ready_told || !repair_is_damaged(r) || r->failed != FERRY_OK);
    must(raft_members_equal(&raft_configuration(r->raft)->members, &r->members.members));
}
