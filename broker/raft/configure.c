/* Changes of the configuration: joint consensus (4.3), in force from the append on (4.1). */
#include "raft/core.h"

/* The two guards of 4.1 and of the fix of 2015: one change at a time, and none before an entry of
 * the own term is committed; else two leaders could each count on a configuration of which the
 * other's quorum knows nothing. */
static bool may_change(const struct raft *r)
{
#ifdef MUT_13 /* a configuration is changed before the own no-op is committed */
    return r->config.index <= r->commit && r->config.members.old_voter_count == 0;
#endif
#ifdef MUT_14 /* a second change while one is on its way */
    return raft_is_ready(r) && r->config.members.old_voter_count == 0;
#endif
    return raft_is_ready(r) && r->config.index <= r->commit &&
           r->config.members.old_voter_count == 0 && r->transfer_to == 0;
}

enum ferry_err raft_check_configure(const struct raft *r, const struct raft_members *m)
{
    bool is_target = m != NULL && raft_members_check(m) == FERRY_OK && m->voter_count > 0 &&
                     m->old_voter_count == 0;
    if (!is_target) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (r->role != RAFT_LEADER) {
        return FERRY_ERR_NOT_LEADER;
    }
    return may_change(r) ? FERRY_OK : FERRY_ERR_NOT_READY;
}

static bool same_voters(const struct raft_members *a, const struct raft_members *b)
{
    if (a->voter_count != b->voter_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->voter_count; i++) {
        if (a->voters[i] != b->voters[i]) {
            return false;
        }
    }
    return true;
}

/* C_old,new, or the target itself when the voters stay who they are: then no quorum changes. */
static struct raft_members first_step(const struct raft_members *now, const struct raft_members *to)
{
    struct raft_members m = *to;
    if (!same_voters(now, to)) {
        m.old_voter_count = now->voter_count;
        for (uint32_t i = 0; i < now->voter_count; i++) {
            m.old_voters[i] = now->voters[i];
        }
    }
    return m;
}

bool raft_reserve_configure(struct raft *r, const struct raft_members *m)
{
    struct raft_members step = first_step(&r->config.members, m);
    return raft_reserve_peers(r, raft_count_peers(&step, r->self));
}

void raft_adopt_config(struct raft *r, const struct raft_config_entry *entry, struct raft_update *u)
{
    must(entry->index > r->config.index);
    r->previous_config = r->config;
    r->config = *entry;
    u->config_changed = true;
    raft_refresh_peers(r);
}

/* One step back is enough: the one before is committed, or the leader had not proposed this one. */
void raft_roll_back_config(struct raft *r, raft_index truncate_from, struct raft_update *u)
{
    if (r->config.index < truncate_from) {
        return;
    }
#ifdef MUT_15 /* a configuration that was cut away stays in force */
    return;
#endif
    must(r->previous_config.index < truncate_from);
    r->config = r->previous_config;
    u->config_changed = true;
    raft_refresh_peers(r);
}

static void append_config(struct raft *r, const struct raft_members *m, struct raft_update *u)
{
    must(r->role == RAFT_LEADER);
    must(u->append_kind == RAFT_APPENDED_NOTHING);
    runs_append(&r->log, 1, r->term);
    u->append_kind = RAFT_APPENDED_CONFIG;
    u->append_first = r->log.last_index;
    u->append_last = r->log.last_index;
    u->append_term = r->term;
    struct raft_config_entry entry = {.index = r->log.last_index, .members = *m};
    raft_adopt_config(r, &entry, u);
}

void raft_configure(struct raft *r, const struct raft_members *m, struct raft_update *u)
{
    raft_wake(r);
    struct raft_members step = first_step(&r->config.members, m);
    append_config(r, &step, u);
}

static void leave_joint(struct raft *r, struct raft_update *u)
{
    struct raft_members target = r->config.members;
    for (uint32_t i = 0; i < target.old_voter_count; i++) {
        target.old_voters[i] = 0;
    }
    target.old_voter_count = 0;
    append_config(r, &target, u);
}

/* 4.3: C_old,new is left by itself, also by a leader that found it in its log. 4.2.2: a leader that
 * is not in C_new goes on until that is committed, and steps down. */
void raft_after_commit(struct raft *r, struct raft_update *u)
{
    if (r->config.index > r->commit || !raft_is_ready(r)) {
        return;
    }
    if (r->config.members.old_voter_count > 0) {
        leave_joint(r, u);
    } else if (!raft_is_voter(r)) {
#ifndef MUT_28 /* a leader that is no member leads on */
        raft_resign(r, u);
        raft_become_follower(r, r->term, 0, u);
#endif
    }
}
