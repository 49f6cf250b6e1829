/* Leadership transfer (3.10). */
#include "raft/core.h"

enum ferry_err raft_check_transfer(const struct raft *r, raft_id id)
{
    if (r->role != RAFT_LEADER) {
        return FERRY_ERR_NOT_LEADER;
    }
    if (id == 0) {
        return FERRY_OK;
    }
    const struct raft_peer *peer = raft_find_peer(r, id);
    if (peer == NULL || !peer->in_new) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    return r->transfer_to == 0 ? FERRY_OK : FERRY_ERR_NOT_READY;
}

void raft_transfer(struct raft *r, raft_id peer)
{
    if (peer == 0) {
        r->transfer_to = 0;
        return;
    }
    raft_wake(r);
    r->transfer_to = peer;
    r->transfer_until_us = r->now_us + r->election_max_us;
    raft_go_on_with_transfer(r);
}

/* Again at each heartbeat: the message may be lost. Doubled it does no harm, for the target's term
 * has gone on. */
void raft_go_on_with_transfer(struct raft *r)
{
    if (r->transfer_to == 0) {
        return;
    }
    const struct raft_peer *peer = raft_find_peer(r, r->transfer_to);
    must(peer != NULL);
    bool has_everything = peer->match == r->log.last_index;
#ifdef MUT_23 /* a transfer does not wait until the target has everything */
    has_everything = true;
#endif
    if (has_everything) {
        raft_outbox_add(r, &r->send_now, RAFT_TIMEOUT_NOW, peer->id);
    }
}

/* Only the leader of a term sends this in it; a late one finds the term gone. */
void raft_receive_timeout_now(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    bool is_of_now = m->term == r->term;
    bool is_waiting = r->role == RAFT_FOLLOWER || r->role == RAFT_PRE_CANDIDATE;
    if (is_of_now && is_waiting && raft_may_campaign(r)) {
        raft_become_candidate(r, true, u);
    }
}
