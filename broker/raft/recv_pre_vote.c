/* Pre-votes (9.6): would you vote for me? Nothing is promised, so nothing waits for an fsync. */
#include "raft/core.h"

void raft_send_pre_vote_requests(struct raft *r)
{
    must(r->role == RAFT_PRE_CANDIDATE);
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
        if (!peer->in_new && !peer->in_old) {
            continue;
        }
        struct raft_message *m = raft_outbox_add(r, &r->send_now, RAFT_PRE_VOTE_REQUEST, peer->id);
        m->term = r->term + 1; /* That it would ask for. */
        m->prev_index = r->log.last_index;
        m->prev_term = runs_last_term(&r->log);
        m->sequence = r->attempt;
    }
}

/* A leader that asks for votes leads no more, whatever its followers still believe: without this a
 * group whose followers are quiet would wait for a leader that waits for them. */
bool raft_has_live_leader(const struct raft *r, raft_id candidate)
{
#ifdef MUT_20 /* followers do not stand by the leader they hear */
    return false;
#endif
    if (r->role == RAFT_LEADER) {
        return true;
    }
    bool follows_another = r->leader != 0 && r->leader != candidate;
#ifdef MUT_24 /* a quiet follower stands by a leader that leads no more */
    follows_another = r->leader != 0;
#endif
    return follows_another && (r->is_quiet || r->now_us - r->heard_us < r->election_min_us);
}

/* The reply carries our own term. A candidate that is behind learns it from a refusal, and asks for
 * a later one next time (etcd #8243; openraft #1796: a later term with a shorter log here, an
 * earlier one with a longer log there). */
void raft_receive_pre_vote_request(struct raft *r, const struct raft_message *m)
{
    bool is_good_enough = raft_log_is_up_to_date(r, m);
#ifdef MUT_09 /* a pre-vote does not look at the log */
    is_good_enough = true;
#endif
    bool granted =
        m->term > r->term && is_good_enough && r->mute == 0 && !raft_has_live_leader(r, m->from);
    raft_wake_for(r, m);
#ifdef MUT_21 /* a pre-vote takes the candidate's term */
    r->term = r->role == RAFT_FOLLOWER && granted ? m->term : r->term;
#endif
    struct raft_message *reply = raft_outbox_add(r, &r->send_now, RAFT_PRE_VOTE_REPLY, m->from);
    reply->success = granted;
    reply->sequence = m->sequence;
}

void raft_receive_pre_vote_reply(struct raft *r, const struct raft_message *m,
                                 struct raft_update *u)
{
    struct raft_peer *peer = raft_find_peer(r, m->from);
    if (peer == NULL) {
        return;
    }
    if (m->term > r->term) {
        raft_become_follower(r, m->term, 0, u);
        return;
    }
    /* Of this attempt only: a grant from before a leader came and went is worth nothing. */
    if (r->role != RAFT_PRE_CANDIDATE || m->sequence != r->attempt || !m->success) {
        return;
    }
    peer->vote_granted = true;
    raft_count_pre_votes(r, u);
}
