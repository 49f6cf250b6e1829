/* Votes: the two messages of an election (3.4, 3.6.1). */
#include "raft/core.h"

/* The request waits for the fsync as the replies do: a candidate that forgot its own vote in a
 * crash could otherwise vote again in a term where others have already voted for it. */
void raft_send_vote_requests(struct raft *r)
{
    must(r->role == RAFT_CANDIDATE);
    must(r->vote == r->self);
    for (size_t i = 0; i < r->peer_count; i++) {
        struct raft_message *m =
            raft_outbox_add(r, &r->send_after_sync, RAFT_VOTE_REQUEST, r->peers[i].id);
        m->prev_index = r->log.last_index;
        m->prev_term = runs_last_term(&r->log);
    }
}

/* 3.6.1: the later last term wins; in the same term, the longer log. */
static bool log_is_up_to_date(const struct raft *r, const struct raft_message *m)
{
    raft_term own_last_term = runs_last_term(&r->log);
    if (m->prev_term != own_last_term) {
        return m->prev_term > own_last_term;
    }
    return m->prev_index >= r->log.last_index;
}

void raft_receive_vote_request(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    if (m->term > r->term) {
        raft_become_follower(r, m->term, 0, u);
    }
    /* The vote outlives a step-down within its term: a leader or candidate voted for itself. */
    bool is_free = r->vote == 0 || r->vote == m->from;
    bool granted = m->term == r->term && is_free && log_is_up_to_date(r, m);
    if (granted) {
        must(r->role == RAFT_FOLLOWER);
        if (r->vote == 0) {
            r->vote = m->from;
            raft_touch_hard_state(r, u);
        }
        raft_restart_election_timer(r);
    }
    struct raft_message *reply = raft_outbox_add(r, &r->send_after_sync, RAFT_VOTE_REPLY, m->from);
    reply->success = granted;
}

void raft_receive_vote_reply(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    if (m->term > r->term) {
        raft_become_follower(r, m->term, 0, u);
        return;
    }
    if (m->term < r->term || r->role != RAFT_CANDIDATE || !m->success) {
        return;
    }
    raft_find_peer(r, m->from)->vote_granted = true;
    raft_count_votes(r, u);
}
