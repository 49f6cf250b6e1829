/* Votes: the two messages of an election (3.4, 3.6.1). */
#include "raft/core.h"

/* The request waits for the fsync as the replies do: a candidate that forgot its own vote in a
 * crash could otherwise vote again in a term where others have already voted for it. */
void raft_send_vote_requests(struct raft *r, bool transfer)
{
    must(r->role == RAFT_CANDIDATE);
    must(r->vote == r->self);
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
        if (!peer->in_new && !peer->in_old) {
            continue;
        }
        struct raft_message *m =
            raft_outbox_add(r, &r->send_after_sync, RAFT_VOTE_REQUEST, peer->id);
        m->prev_index = r->log.last_index;
        m->prev_term = runs_last_term(&r->log);
        m->transfer = transfer;
    }
}

/* What it has now is less than what it had. */
bool raft_is_below_floor(const struct raft *r)
{
    raft_term last_term = runs_last_term(&r->log);
    return last_term < r->floor_term ||
           (last_term == r->floor_term && r->log.last_index < r->floor_index);
}

/* 3.6.1: the later last term wins; in the same term, the longer log. */
bool raft_log_is_up_to_date(const struct raft *r, const struct raft_message *m)
{
#ifdef MUT_27 /* votes look at the length of the log only */
    return m->prev_index >= r->log.last_index;
#endif
    bool below = raft_is_below_floor(r);
    raft_term own_last_term = below ? r->floor_term : runs_last_term(&r->log);
    raft_index own_last_index = below ? r->floor_index : r->log.last_index;
    if (m->prev_term != own_last_term) {
        return m->prev_term > own_last_term;
    }
    return m->prev_index >= own_last_index;
}

static bool grants_vote(const struct raft *r, const struct raft_message *m)
{
    /* The vote outlives a step-down within its term: a leader or candidate voted for itself. */
    bool is_free = r->vote == 0 || r->vote == m->from;
#ifdef MUT_22 /* a node that cannot read its log votes */
    return m->term == r->term && is_free && raft_log_is_up_to_date(r, m);
#endif
    return m->term == r->term && is_free && r->mute == 0 && raft_log_is_up_to_date(r, m);
}

/* Who the voter is, in its own opinion, does not matter (4.1): the candidate's configuration is the
 * newer one, or it does not win. So a learner answers too: it may have been made a voter by entries
 * that it has yet to get. */
void raft_receive_vote_request(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    bool disturbs = !m->transfer && raft_has_live_leader(r, m->from);
    raft_wake_for(r, m);
    if (m->term > r->term && !disturbs) {
        raft_become_follower(r, m->term, 0, u);
    }
    bool granted = !disturbs && grants_vote(r, m);
    if (granted) {
        /* A pre-candidate asks no more once it has given its vote away. */
        raft_become_follower(r, r->term, 0, u);
        if (r->vote == 0) {
            r->vote = m->from;
            raft_touch_hard_state(r, u);
        }
        raft_restart_election_timer(r);
    }
    struct outbox *o = &r->send_after_sync;
#ifdef MUT_02 /* a vote leaves before its fsync */
    o = &r->send_now;
#endif
    raft_outbox_add(r, o, RAFT_VOTE_REPLY, m->from)->success = granted;
}

void raft_receive_vote_reply(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    struct raft_peer *peer = raft_find_peer(r, m->from);
    if (peer == NULL) {
        return;
    }
    if (m->term > r->term) {
        raft_become_follower(r, m->term, 0, u);
        return;
    }
    if (m->term < r->term || r->role != RAFT_CANDIDATE || !m->success) {
        return;
    }
    peer->vote_granted = true;
    raft_count_votes(r, u);
}
