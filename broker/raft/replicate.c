/* The leader's side of replication: what each peer has, what it gets next, what is committed
 * (3.5, 3.6.2; pipelining 10.2.1). */
#include "raft/core.h"

void raft_probe_from(struct raft *r, struct raft_peer *peer, raft_index next)
{
    peer->state = PEER_PROBE;
    peer->next = next > peer->match ? next : peer->match + 1;
    must(peer->next > r->log.trim_index);
    peer->probe_unanswered = false;
    peer->probe_sequence = r->sequence + 1;
}

/* 3.5: next begins at the leader's end; the entry just appended (a no-op, or the configuration that
 * brought the peer) is the first probe. */
void raft_begin_feeding(struct raft *r, struct raft_peer *peer)
{
    must(r->role == RAFT_LEADER);
    peer->agreed_quiet = false;
    peer->sent_sequence = 0;
    peer->heard_sequence = 0;
    peer->match_sequence = 0;
    peer->match = 0;
    peer->told_commit = 0;
    peer->heard_us = 0;
    peer->alive_us = r->now_us;
    raft_probe_from(r, peer, r->log.last_index);
}

/* The entry before `next` cannot be named any more. Told once; until the end of it, heartbeats. */
void raft_begin_snapshot(struct raft *r, struct raft_peer *peer, struct raft_update *u)
{
    if (peer->state != PEER_SNAPSHOT) {
        must(u->snapshot_to_count < RAFT_PEERS_MAX);
        u->snapshot_to[u->snapshot_to_count] = peer->id;
        u->snapshot_to_count++;
    }
    peer->state = PEER_SNAPSHOT;
    peer->next = r->log.trim_index + 1;
}

void raft_end_snapshot(struct raft *r, raft_id id, raft_index index, struct raft_update *u)
{
    struct raft_peer *peer = raft_find_peer(r, id);
    if (r->role != RAFT_LEADER || peer == NULL || peer->state != PEER_SNAPSHOT) {
        return; /* Of another leadership, or the peer turned out not to need it. */
    }
    raft_index has = index < r->log.last_index ? index : r->log.last_index;
    bool failed = index == 0;
    if (!failed && has < r->log.trim_index) {
        peer->state = PEER_PROBE; /* It took too long: the log was trimmed past it. */
        raft_begin_snapshot(r, peer, u);
        return;
    }
#ifdef MUT_29 /* after a snapshot the peer is fed from where it was before */
    has = peer->match;
#endif
    raft_probe_from(r, peer, failed ? r->log.trim_index + 1 : has + 1);
    /* If it failed, the next heartbeat is soon enough to find out again. */
    peer->probe_unanswered = failed;
}

/* The entries after prev_index, at most `count`; fewer when their terms change too often for one
 * message. Returns how many. */
static uint32_t send_append(struct raft *r, struct raft_peer *peer, uint64_t count)
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
    m->quiet = count == 0 && raft_offers_quiet(r);
    peer->sent_sequence = r->sequence;
    peer->told_commit = r->commit;
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
    uint64_t unanswered = peer->next - 1 - peer->match;
    uint64_t room = unanswered < r->window ? r->window - unanswered : 0;
    switch (peer->state) {
    case PEER_PROBE:
        room = peer->probe_unanswered ? 0 : r->window;
        break;
    case PEER_REPLICATE:
        break;
    case PEER_SNAPSHOT:
    case PEER_STOPPED:
        room = 0;
        break;
    }
    if (peer->is_learner && r->learners_paused) {
        room = 0;
    }
    return smaller(smaller(lacking, room), RAFT_APPEND_ENTRIES_MAX);
}

/* The next append may bring the news of a commit; it does not come after all. */
static void begin_notice(struct raft *r)
{
    if (r->notice_us > 0 && r->notice_due_us == RAFT_NEVER) {
        r->notice_due_us = r->now_us + r->notice_us;
    }
}

void raft_end_notice(struct raft *r)
{
    if (r->now_us >= r->notice_due_us) {
        r->notice_due_us = RAFT_NEVER;
    }
}

/* It has all entries but does not know that more of them are committed. */
static bool lacks_commit(const struct raft *r, const struct raft_peer *peer)
{
    return r->notice_due_us == RAFT_NEVER && peer->state == PEER_REPLICATE &&
           peer->next > r->log.last_index && peer->told_commit < r->commit;
}

static bool lacks_something(const struct raft *r, const struct raft_peer *peer)
{
    return peer->state != PEER_STOPPED &&
           (sendable_count(r, peer) > 0 || lacks_commit(r, peer) || raft_reads_want(r, peer));
}

static void replicate_to(struct raft *r, struct raft_peer *peer)
{
    for (int i = 0; i < RAFT_PEER_MESSAGES_MAX && lacks_something(r, peer); i++) {
        uint32_t sent = send_append(r, peer, sendable_count(r, peer));
        if (sent > 0 && peer->state == PEER_PROBE) {
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

bool raft_wants_send(const struct raft *r)
{
    bool wants = false;
    for (size_t i = 0; r->role == RAFT_LEADER && i < r->peer_count; i++) {
        wants = wants || lacks_something(r, &r->peers[i]);
    }
    return wants;
}

/* An empty append where the peer is thought to be: it keeps the peer from campaigning, and its
 * refusal shows that messages were lost. */
void raft_send_heartbeats(struct raft *r)
{
    must(r->role == RAFT_LEADER);
    for (size_t i = 0; i < r->peer_count; i++) {
        if (r->peers[i].state != PEER_STOPPED) {
            (void)send_append(r, &r->peers[i], 0);
        }
    }
}

void raft_replicate_past_trim(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_LEADER);
    for (size_t i = 0; i < r->peer_count; i++) {
        struct raft_peer *peer = &r->peers[i];
        if (peer->next > r->log.trim_index) {
            continue;
        }
        if (peer->state == PEER_STOPPED) {
            peer->next = r->log.trim_index + 1;
        } else {
            raft_begin_snapshot(r, peer, u);
        }
    }
}

static uint64_t peer_match(const struct raft_peer *peer)
{
    return peer->match;
}

/* 3.6.2 (fig. 8): an older term's entry that a majority holds can still be overwritten, so only an
 * entry of the own term is committed by counting; those before it come along. The leader's own copy
 * counts like any other: from its fsync on (10.2.1). */
void raft_advance_commit(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_LEADER);
    raft_index own = r->stored;
#ifdef MUT_05 /* the leader counts its own copy before its fsync */
    own = r->log.last_index;
#endif
    raft_index index = raft_quorum_value(r, own, peer_match);
    bool is_own_term = runs_term_at(&r->log, index) == r->term;
#ifdef MUT_04 /* an entry of an earlier term is committed by counting */
    is_own_term = true;
#endif
    if (index > r->commit && is_own_term) {
        r->commit = index;
        begin_notice(r);
        raft_after_commit(r, u);
    }
}
