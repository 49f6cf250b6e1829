/* Append replies: what a peer has, or where to try (3.5; paper 5.3). */
#include "raft/core.h"

enum ferry_err raft_check_append_reply(const struct raft *r, const struct raft_message *m)
{
    bool counts = r->role == RAFT_LEADER && m->term == r->term;
    bool is_past_our_end = counts && m->success && m->match_index > r->log.last_index;
    bool answers_nothing = counts && m->sequence > r->sequence;
    return is_past_our_end || answers_nothing ? FERRY_ERR_INVALID_ARGUMENT : FERRY_OK;
}

static void take_success(struct raft *r, struct raft_peer *peer, const struct raft_message *m)
{
    if (m->match_index > peer->match) {
        peer->match = m->match_index;
        peer->match_sequence = r->sequence;
    }
    bool next_is_known = peer->match >= r->log.trim_index;
    bool is_guess = peer->state == PEER_PROBE || peer->state == PEER_SNAPSHOT;
    if (is_guess && next_is_known) {
        peer->state = PEER_REPLICATE;
        peer->next = peer->match + 1;
        peer->probe_sequence = r->sequence + 1;
    } else if (peer->next <= peer->match) {
        peer->next = peer->match + 1;
    }
}

/* The message it refuses was sent after it had told us of `match`, and asked for no less; so its
 * log is not what it was: an old copy of its folder, or a disk that lied. Feeding it again would
 * let the same entries be counted twice over. */
static bool peer_has_regressed(const struct raft_peer *peer, const struct raft_message *m)
{
#ifdef MUT_25 /* a peer that lost what it had acknowledged is fed again */
    return false;
#endif
    return m->sequence > peer->match_sequence && m->match_index < peer->match;
}

static void stop_regressed(struct raft_peer *peer, struct raft_update *u)
{
    peer->state = PEER_STOPPED;
    peer->match = 0;
    u->regressed = peer->id;
}

static void take_refusal(struct raft *r, struct raft_peer *peer, const struct raft_message *m,
                         struct raft_update *u)
{
    if (peer_has_regressed(peer, m)) {
        stop_regressed(peer, u);
        return;
    }
    if (m->sequence < peer->probe_sequence || peer->state == PEER_SNAPSHOT) {
        return; /* It answers a message from before the present guess. */
    }
    raft_index found = runs_find_term(&r->log, m->match_index, m->match_term);
#ifdef MUT_16 /* the hint is taken whatever its term */
    found = m->match_index < r->log.last_index ? m->match_index : r->log.last_index;
#endif
    raft_index trim = r->log.trim_index;
    bool is_trimmed = m->match_index < trim || (found == trim && r->log.trim_term > m->match_term);
    /* Nothing can be missing before the first entry: it waits for a snapshot, whatever we have. */
    bool wants_snapshot = peer->next == 1 && m->match_index == 0 && m->match_term == 0;
    /* It was asked from the trim point on, says that it has that, and refuses all the same: it
     * takes a snapshot that we gave up, and its acks from before told us that it needs none. */
    wants_snapshot =
        wants_snapshot || (peer->state == PEER_PROBE && peer->next == trim + 1 && trim > 0 &&
                           m->match_index == trim && m->match_term == r->log.trim_term);
    if ((is_trimmed && peer->match < trim) || wants_snapshot) {
        raft_begin_snapshot(r, peer, u);
        return;
    }
    raft_index last_guess = peer->next;
    bool was_probe = peer->state == PEER_PROBE;
    raft_probe_from(r, peer, found + 1 < last_guess ? found + 1 : last_guess);
    /* No better guess: the next heartbeat is soon enough. */
    peer->probe_unanswered = was_probe && peer->next == last_guess;
}

static void note_answer(struct raft *r, struct raft_peer *peer, const struct raft_message *m)
{
    peer->heard_us = r->now_us;
    peer->alive_us = r->now_us;
    if (m->sequence > peer->heard_sequence) {
        peer->heard_sequence = m->sequence;
    }
}

void raft_receive_append_reply(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    struct raft_peer *peer = raft_find_peer(r, m->from);
    if (peer == NULL) {
        return; /* No member any more. */
    }
    if (m->term > r->term) {
        raft_become_follower(r, m->term, 0, u);
        return;
    }
    if (m->term < r->term || r->role != RAFT_LEADER || peer->state == PEER_STOPPED) {
        return;
    }
    raft_wake_for(r, m);
    note_answer(r, peer, m);
    raft_confirm_reads(r, u);
    if (!m->success) {
        take_refusal(r, peer, m, u);
        return;
    }
    take_success(r, peer, m);
    raft_receive_quiet(r, peer, m);
    if (peer->id == r->transfer_to) {
        raft_go_on_with_transfer(r);
    }
    raft_advance_commit(r, u);
}
