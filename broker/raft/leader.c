/* What a leader does by the clock: heartbeats, and whether it still is one (check-quorum, 6.2). */
#include "raft/core.h"

static uint64_t peer_alive_us(const struct raft_peer *peer)
{
    return (uint64_t)peer->alive_us;
}

/* 6.2: a leader that no quorum answers would keep its clients waiting, while the rest may long have
 * elected another. */
static bool is_heard_by_a_quorum(const struct raft *r)
{
#ifdef MUT_19 /* a leader that no quorum answers leads on */
    return true;
#endif
    uint64_t heard_us = raft_quorum_value(r, (uint64_t)r->now_us, peer_alive_us);
    return r->now_us - (int64_t)heard_us < r->election_max_us;
}

void raft_tick_leader(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_LEADER);
    must(!r->is_quiet);
    if (!is_heard_by_a_quorum(r)) {
        raft_become_follower(r, r->term, 0, u);
        return;
    }
    if (r->transfer_to != 0 && r->now_us >= r->transfer_until_us) {
        r->transfer_to = 0; /* 3.10: after an election timeout clients are served again. */
    }
    raft_count_quiet_round(r);
    raft_send_heartbeats(r);
    raft_go_on_with_transfer(r);
    r->timer_us = r->now_us + r->heartbeat_us;
}

/* The voter to be that has most of the log. */
static const struct raft_peer *best_successor(const struct raft *r)
{
    const struct raft_peer *best = NULL;
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
        bool is_candidate = peer->in_new && peer->state == PEER_REPLICATE;
        if (is_candidate && (best == NULL || peer->match > best->match)) {
            best = peer;
        }
    }
    return best;
}

/* The heartbeats wake followers that are quiet: nobody else tells them that they have no leader. */
void raft_resign(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_LEADER);
    raft_wake(r);
    raft_send_heartbeats(r);
    const struct raft_peer *best = best_successor(r);
    if (best != NULL) {
        raft_outbox_add(r, &r->send_now, RAFT_TIMEOUT_NOW, best->id);
    }
    must(!u->became_leader);
}
