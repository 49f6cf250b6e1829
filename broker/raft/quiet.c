/* Quiet groups: no timers while there is nothing to do; see raft.h. Leadership does not depend on
 * the clock, so this changes nothing about safety; what it could cost is liveness, and for that
 * every message which is not quiet wakes who gets it. */
#include "raft/core.h"

static bool peer_is_idle(const struct raft *r, const struct raft_peer *peer)
{
    return peer->state == PEER_REPLICATE && peer->match == r->log.last_index;
}

static bool is_idle(const struct raft *r)
{
    raft_index last = r->log.last_index;
    bool idle = !r->never_quiet && r->commit == last && r->stored == last && r->transfer_to == 0 &&
                !raft_has_reads(r);
    for (size_t i = 0; idle && i < r->peer_count; i++) {
        idle = peer_is_idle(r, &r->peers[i]);
    }
    return idle;
}

static void forget_agreements(struct raft *r)
{
    r->quiet_rounds = 0;
    r->quiet_sequence = r->sequence;
    for (size_t i = 0; i < r->peer_count; i++) {
        r->peers[i].agreed_quiet = false;
    }
}

/* The leader's next heartbeat is due at once, for followers may be quiet that were not to be; and
 * check-quorum begins anew, for nobody was asked meanwhile. */
void raft_wake(struct raft *r)
{
    if (r->role == RAFT_LEADER) {
        forget_agreements(r);
    }
    if (!r->is_quiet) {
        return;
    }
    r->is_quiet = false;
    if (r->role != RAFT_LEADER) {
        raft_restart_election_timer(r);
        return;
    }
    r->timer_us = r->now_us;
    for (size_t i = 0; i < r->peer_count; i++) {
        r->peers[i].alive_us = r->now_us;
    }
}

/* A follower's driver has already waited for election_min without a sign of the leader's node. */
void raft_wake_event(struct raft *r)
{
    bool was_quiet = r->is_quiet;
    raft_wake(r);
    if (was_quiet && r->role != RAFT_LEADER) {
        r->timer_us -= r->election_min_us;
    }
}

/* A leader that is alive gets the chance to show it before anybody is given a pre-vote. */
void raft_wake_for(struct raft *r, const struct raft_message *m)
{
    bool asks = m->type == RAFT_VOTE_REQUEST || m->type == RAFT_PRE_VOTE_REQUEST;
    bool answers = m->type == RAFT_APPEND_REPLY && r->is_quiet && !m->quiet;
    if (raft_find_peer(r, m->from) == NULL || (!asks && !answers)) {
        return; /* 4.2.3: who was removed wakes nobody. */
    }
    if (r->is_quiet && m->from != r->leader) {
        r->heard_us = r->now_us;
    }
    raft_wake(r);
}

void raft_count_quiet_round(struct raft *r)
{
    if (!is_idle(r)) {
        forget_agreements(r);
    } else if (r->quiet_rounds < RAFT_QUIET_ROUNDS) {
        r->quiet_rounds++;
    }
}

bool raft_offers_quiet(const struct raft *r)
{
    return r->quiet_rounds >= RAFT_QUIET_ROUNDS;
}

/* Quiet once everybody is: a peer that is down keeps the heartbeats going. */
void raft_receive_quiet(struct raft *r, struct raft_peer *peer, const struct raft_message *m)
{
    if (!m->quiet || m->sequence <= r->quiet_sequence || !raft_offers_quiet(r)) {
        return;
    }
    peer->agreed_quiet = true;
    bool all = is_idle(r);
    for (size_t i = 0; i < r->peer_count; i++) {
        all = all && r->peers[i].agreed_quiet;
    }
    r->is_quiet = all;
}

/* The follower's half: it has all there is, committed and on its disk. */
bool raft_agrees_to_quiet(const struct raft *r, const struct raft_message *m)
{
    raft_index last = r->log.last_index;
    return m->quiet && !r->never_quiet && r->mute == 0 && m->entry_count == 0 &&
           m->prev_index == last && r->commit == last && r->stored == last;
}
