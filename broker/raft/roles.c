/* Roles: the only place where they change (3.3, 3.4; pre-vote 9.6). */
#include "raft/core.h"

/* 3.4: drawn anew each time, so that two candidates do not split the votes for ever. */
void raft_restart_election_timer(struct raft *r)
{
    uint64_t spread = (uint64_t)(r->election_max_us - r->election_min_us) + 1;
    r->timer_us = r->now_us + r->election_min_us + (int64_t)prng_below(&r->prng, spread);
}

/* 4.2.2: who is left out by a configuration that is not committed, as far as it knows, may be the
 * only one who can bring it to the others; it does not count itself then. */
bool raft_may_campaign(const struct raft *r)
{
    bool is_still_needed =
        r->config.index > r->commit && raft_members_has_voter(&r->previous_config.members, r->self);
    return (raft_is_voter(r) || is_still_needed) && r->mute == 0 && !raft_is_below_floor(r);
}

static void leave_leadership(struct raft *r, struct raft_update *u)
{
    u->lost_leadership = true;
    r->transfer_to = 0;
    r->quiet_rounds = 0;
    raft_fail_reads(r, u);
}

void raft_become_follower(struct raft *r, raft_term term, raft_id leader, struct raft_update *u)
{
    must(term >= r->term);
    must(r->role != RAFT_LEADER || term > r->term || leader == 0);
    if (term > r->term) {
        r->term = term;
        r->vote = 0;
        raft_touch_hard_state(r, u);
    }
#ifdef MUT_01 /* stepping down within a term frees the vote */
    r->vote = 0;
#endif
    if (r->role == RAFT_LEADER) {
        leave_leadership(r, u);
    }
    if (r->role == RAFT_LEADER || r->is_quiet) {
        raft_restart_election_timer(r); /* It held the heartbeat's time, or one long past. */
    }
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
    r->is_quiet = false;
}

static void clear_votes(struct raft *r)
{
    for (size_t i = 0; i < r->peer_count; i++) {
        r->peers[i].vote_granted = false;
    }
}

void raft_become_pre_candidate(struct raft *r, struct raft_update *u)
{
    must(r->role != RAFT_LEADER);
    must(raft_may_campaign(r));
    r->role = RAFT_PRE_CANDIDATE;
    r->leader = 0;
    r->is_quiet = false;
    r->attempt++;
    clear_votes(r);
    raft_restart_election_timer(r);
    raft_send_pre_vote_requests(r);
    raft_count_pre_votes(r, u);
}

void raft_become_candidate(struct raft *r, bool transfer, struct raft_update *u)
{
    must(r->role != RAFT_LEADER);
    must(raft_may_campaign(r));
    r->role = RAFT_CANDIDATE;
    r->leader = 0;
    r->is_quiet = false;
    r->term++;
    r->vote = r->self;
    raft_touch_hard_state(r, u);
    clear_votes(r);
    raft_restart_election_timer(r);
    raft_send_vote_requests(r, transfer);
}

/* 6.4: the no-op lets the leader commit, by counting, whatever its predecessors left. */
static void become_leader(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_CANDIDATE);
    must(r->vote == r->self);
    must(r->mute == 0);
    r->role = RAFT_LEADER;
    r->leader = r->self;
    runs_append(&r->log, 1, r->term);
    r->noop_index = r->log.last_index;
    u->became_leader = true;
    u->append_kind = RAFT_APPENDED_NOOP;
    u->append_first = r->noop_index;
    u->append_last = r->noop_index;
    u->append_term = r->term;
    r->timer_us = r->now_us + r->heartbeat_us;
    r->notice_due_us = RAFT_NEVER;
    r->quiet_rounds = 0;
    r->quiet_sequence = r->sequence;
    for (size_t i = 0; i < r->peer_count; i++) {
        raft_begin_feeding(r, &r->peers[i]);
    }
}

static uint64_t peer_vote(const struct raft_peer *peer)
{
    return peer->vote_granted ? 1 : 0;
}

void raft_count_votes(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_CANDIDATE);
    bool own_vote_is_stored = r->hard_stored >= r->hard_number;
    if (own_vote_is_stored && raft_quorum_value(r, 1, peer_vote) == 1) {
        become_leader(r, u);
    }
}

void raft_count_pre_votes(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_PRE_CANDIDATE);
    if (raft_quorum_value(r, 1, peer_vote) == 1) {
        raft_become_candidate(r, false, u);
    }
}
