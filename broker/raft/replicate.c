/* The leader's side of replication: what each peer has, what it gets next, what is committed
 * (3.5, 3.6.2; pipelining 10.2.1). */
#include "raft/core.h"

static bool peer_is_behind_trim(const struct raft *r, const struct raft_peer *peer)
{
    return peer->next <= r->log.trim_index;
}

static void probe_from(struct raft *r, struct raft_peer *peer, raft_index next)
{
    peer->state = PEER_PROBE;
    peer->next = next;
    if (peer->next <= peer->match) {
        peer->next = peer->match + 1;
    }
    if (peer_is_behind_trim(r, peer)) {
        peer->next = r->log.trim_index + 1;
    }
    peer->probe_unanswered = false;
    peer->probe_sequence = r->sequence + 1;
}

/* The entries after `next - 1`, at most `count`; fewer when their terms change too often for one
 * message. Returns how many. */
static uint32_t send_append(struct raft *r, const struct raft_peer *peer, uint64_t count)
{
    must(peer->next > r->log.trim_index);
    must(count <= RAFT_APPEND_ENTRIES_MAX);
    struct raft_message *m = raft_outbox_add(r, &r->send_now, RAFT_APPEND_REQUEST, peer->id);
    struct raft_run *runs = r->send_now.runs[r->send_now.count - 1];
    r->sequence++;
    m->sequence = r->sequence;
    m->commit = r->commit;
    m->prev_index = peer->next - 1;
    m->prev_term = runs_term_at(&r->log, m->prev_index);
    if (count > 0) {
        raft_index covered = m->prev_index;
        m->run_count = runs_copy(&r->log, peer->next, m->prev_index + count, runs,
                                 RAFT_APPEND_RUNS_MAX, &covered);
        m->runs = runs;
        m->entry_count = (uint32_t)(covered - m->prev_index);
    }
    return m->entry_count;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Entries of the next message to the peer; 0 when it lacks none or its window is full. */
static uint64_t sendable_count(const struct raft *r, const struct raft_peer *peer)
{
    uint64_t lacking = r->log.last_index + 1 - peer->next;
    if (peer->state == PEER_PROBE) {
        return peer->probe_unanswered ? 0 : smaller(lacking, RAFT_APPEND_ENTRIES_MAX);
    }
    uint64_t unanswered = peer->next - 1 - peer->match;
    uint64_t room = unanswered < RAFT_APPEND_WINDOW_MAX ? RAFT_APPEND_WINDOW_MAX - unanswered : 0;
    return smaller(smaller(lacking, room), RAFT_APPEND_ENTRIES_MAX);
}

static void replicate_to(struct raft *r, struct raft_peer *peer)
{
    for (int i = 0; i < RAFT_PEER_MESSAGES_MAX; i++) {
        uint64_t count = sendable_count(r, peer);
        if (count == 0) {
            return;
        }
        uint32_t sent = send_append(r, peer, count);
        if (peer->state == PEER_PROBE) {
            peer->probe_unanswered = true;
        } else {
            peer->next += sent;
        }
    }
}

void raft_replicate(struct raft *r)
{
    must(r->role == RAFT_LEADER);
    for (size_t i = 0; i < r->peer_count; i++) {
        replicate_to(r, &r->peers[i]);
    }
}

/* An empty append where the peer is thought to be: it keeps the peer from campaigning, and its
 * refusal shows that messages were lost. */
void raft_send_heartbeats(struct raft *r)
{
    must(r->role == RAFT_LEADER);
    for (size_t i = 0; i < r->peer_count; i++) {
        (void)send_append(r, &r->peers[i], 0);
    }
}

/* 3.5: next begins at the leader's end; the no-op, just appended, is the first probe. */
void raft_start_replication(struct raft *r)
{
    must(r->role == RAFT_LEADER);
    for (size_t i = 0; i < r->peer_count; i++) {
        r->peers[i].match = 0;
        probe_from(r, &r->peers[i], r->log.last_index);
    }
    raft_replicate(r);
}

void raft_replicate_past_trim(struct raft *r)
{
    for (size_t i = 0; i < r->peer_count; i++) {
        if (peer_is_behind_trim(r, &r->peers[i])) {
            probe_from(r, &r->peers[i], r->log.trim_index + 1);
        }
    }
}

enum ferry_err raft_check_append_reply(const struct raft *r, const struct raft_message *m)
{
    bool counts = r->role == RAFT_LEADER && m->term == r->term && m->success;
    bool is_past_our_end = counts && m->match_index > r->log.last_index;
    return is_past_our_end ? FERRY_ERR_INVALID_ARGUMENT : FERRY_OK;
}

static void take_success(struct raft *r, struct raft_peer *peer, const struct raft_message *m)
{
    if (m->match_index > peer->match) {
        peer->match = m->match_index;
    }
    bool next_is_known = peer->match >= r->log.trim_index;
    if (peer->state == PEER_PROBE && next_is_known) {
        peer->state = PEER_REPLICATE;
        peer->next = peer->match + 1;
        peer->probe_sequence = r->sequence + 1;
    } else if (peer->next <= peer->match) {
        peer->next = peer->match + 1;
    }
}

static void take_refusal(struct raft *r, struct raft_peer *peer, const struct raft_message *m)
{
    if (m->sequence < peer->probe_sequence) {
        return; /* It answers a message from before the present guess. */
    }
    raft_index guess = runs_find_term(&r->log, m->match_index, m->match_term) + 1;
    raft_index last_guess = peer->next;
    enum peer_state last_state = peer->state;
    probe_from(r, peer, guess < last_guess ? guess : last_guess);
    /* No better guess, for the peer is behind the trim: the next heartbeat is soon enough. */
    peer->probe_unanswered = last_state == PEER_PROBE && peer->next == last_guess;
}

void raft_receive_append_reply(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    if (m->term > r->term) {
        raft_become_follower(r, m->term, 0, u);
        return;
    }
    if (m->term < r->term || r->role != RAFT_LEADER) {
        return;
    }
    struct raft_peer *peer = raft_find_peer(r, m->from);
    if (m->success) {
        take_success(r, peer, m);
        raft_advance_commit(r);
    } else {
        take_refusal(r, peer, m);
    }
    replicate_to(r, peer);
}

/* 3.6.2 (fig. 8): an older term's entry that a majority holds can still be overwritten, so only an
 * entry of the own term is committed by counting; those before it come along. The leader's own copy
 * counts like any other: from its fsync on (10.2.1). */
void raft_advance_commit(struct raft *r)
{
    must(r->role == RAFT_LEADER);
    raft_index matched[RAFT_VOTERS_MAX];
    for (size_t i = 0; i < r->peer_count; i++) {
        matched[i] = r->peers[i].match;
    }
    matched[r->peer_count] = r->stored;
    raft_index index = quorum_index(matched, r->voter_count);
    if (index > r->commit && runs_term_at(&r->log, index) == r->term) {
        r->commit = index;
    }
}
