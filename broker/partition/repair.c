/* Repair: an entry that does not match its checksum is asked for at the peers, checked, and written
 * in its place (invariant 7). Until then the core is muted: this member may not promise by a log
 * that it cannot read.
 *
 * Which entry a peer may give: the same one, not only one of the same index. By log matching (paper
 * 5.3) it is, when (a) the peer's log has an entry at or after it of which the asker knows index
 * and term (the witness), or (b) the asker has none, so that nothing follows the damaged entry
 * there: the logs agree before it and the peer's is committed. */
#include "base/log.h"
#include "partition/replica_internal.h"

bool repair_is_damaged(const struct replica *r)
{
    return r->repair.damaged_count > 0;
}

static bool is_noted(const struct replica *r, raft_index index)
{
    for (size_t i = 0; i < r->repair.damaged_count; i++) {
        if (r->repair.damaged[i] == index) {
            return true;
        }
    }
    return false;
}

static void withdraw_request(struct replica *r)
{
    r->repair.requested = 0;
    r->repair.have = false;
    r->repair.nonce++;
}

void repair_note(struct replica *r, raft_index index)
{
    struct repair *p = &r->repair;
    if (is_noted(r, index)) {
        return;
    }
    if (p->damaged_count == REPLICA_DAMAGED_MAX) {
        if (index > p->damaged[p->damaged_count - 1]) {
            return; /* Met again by whoever reads it. */
        }
        p->damaged_count--;
    }
    size_t at = p->damaged_count++;
    while (at > 0 && p->damaged[at - 1] > index) {
        p->damaged[at] = p->damaged[at - 1];
        at--;
    }
    p->damaged[at] = index;
    if (at == 0) {
        withdraw_request(r); /* The lowest goes first: what is before it is then known. */
    }
    log_line(LOG_ERROR, "replica",
             "group %llu: the entry at index %llu does not match its checksum: it is asked for at "
             "the other replicas; check this node's disk",
             (unsigned long long)r->config.group, (unsigned long long)index);
}

enum ferry_err repair_mute(struct replica *r, int64_t now_us)
{
    struct raft_event mute = {.type = RAFT_MUTE,
                              .now_us = now_us,
                              .index = repair_is_damaged(r) ? r->repair.damaged[0] : 0};
    r->repair.remute = false;
#ifdef MUT_37 /* a member that cannot read its log goes on to vote and to lead */
    mute.index = 0;
#endif
    return replica_step(r, &mute);
}

void replica_damaged(struct replica *r, uint64_t index)
{
    if (r->failed != FERRY_OK || r->raft == NULL || !replica_has_peers(r) ||
        index <= r->marks.trim_index || index > raft_last_index(r->raft) || is_noted(r, index)) {
        return;
    }
    repair_note(r, index);
    if (repair_mute(r, r->now_us) == FERRY_ERR_NO_MEMORY) {
        r->repair.remute = true;
    }
}

/* Forgets those in first..last. */
static void forget(struct replica *r, raft_index first, raft_index last)
{
    struct repair *p = &r->repair;
    size_t kept = 0;
    for (size_t i = 0; i < p->damaged_count; i++) {
        if (p->damaged[i] < first || p->damaged[i] > last) {
            p->damaged[kept++] = p->damaged[i];
        }
    }
    if (kept != p->damaged_count) {
        p->damaged_count = kept;
        p->remute = true;
    }
}

void repair_truncated(struct replica *r, raft_index from)
{
    forget(r, from, RAFT_INDEX_MAX);
    withdraw_request(r);
}

void repair_trimmed(struct replica *r, raft_index to)
{
    if (repair_is_damaged(r) && r->repair.damaged[0] <= to) {
        forget(r, 1, to);
        withdraw_request(r);
    }
}

/* ---- Asking ---- */

/* The members to ask, in turn; 0 when there are none. */
static raft_id next_peer(struct replica *r)
{
    const struct raft_members *m = &r->members.members;
    const raft_id *lists[] = {m->voters, m->old_voters, m->learners};
    uint32_t counts[] = {m->voter_count, m->old_voter_count, m->learner_count};
    uint32_t all = counts[0] + counts[1] + counts[2];
    for (uint32_t tries = 0; tries < all; tries++) {
        uint32_t at = r->repair.turn++ % all;
        size_t list = at < counts[0] ? 0 : at < counts[0] + counts[1] ? 1 : 2;
        uint32_t before = list == 0 ? 0 : list == 1 ? counts[0] : counts[0] + counts[1];
        raft_id peer = lists[list][at - before];
        if (peer != r->config.self) {
            return peer;
        }
    }
    raft_id leader = replica_leader(r);
    return leader != r->config.self ? leader : 0;
}

/* The entry's own header may still be good; else the next entry that is not known as bad. */
static void find_witness(const struct replica *r, struct peer_repair_request *q)
{
    struct store_entry entry;
    if (store_get_entry(r->config.store, r->config.group, q->index, &entry) == FERRY_OK) {
        q->witness_index = q->index;
        q->witness_term = entry.term;
        return;
    }
    raft_index last = raft_last_index(r->raft);
    raft_index at = q->index + 1;
    while (at <= last && is_noted(r, at)) {
        at++;
    }
    if (at <= last) {
        q->witness_index = at;
        q->witness_term = raft_term_at(r->raft, at);
    }
}

static void send_request(struct replica *r, struct peer_outbox *out)
{
    struct repair *p = &r->repair;
    raft_id peer = next_peer(r);
    if (peer == 0 || store_read_begin(r->config.store) != FERRY_OK) {
        return;
    }
    struct peer_repair_request q = {.nonce = ++p->nonce,
                                    .index = p->damaged[0],
                                    .previous_term = raft_term_at(r->raft, p->damaged[0] - 1)};
    find_witness(r, &q);
    store_read_end(r->config.store);
    p->requested = q.index;
    p->term = q.witness_index == q.index ? q.witness_term : 0;
    struct buf *b = peer_outbox_begin(out, peer, r->config.group, PEER_REPAIR_REQUEST);
    if (b != NULL) {
        peer_put_repair_request(b, &q);
        peer_outbox_end(out);
    }
}

/* ---- Answering ---- */

static bool may_give(const struct replica *r, const struct peer_repair_request *q)
{
    if (q->index <= raft_trim_index(r->raft) || q->index > raft_stored_index(r->raft) ||
        is_noted(r, q->index)) {
        return false;
    }
    if (q->witness_index != 0) {
        return !is_noted(r, q->witness_index) &&
               raft_term_at(r->raft, q->witness_index) == q->witness_term;
    }
    return q->index <= raft_commit_index(r->raft) && !is_noted(r, q->index - 1) &&
           raft_term_at(r->raft, q->index - 1) == q->previous_term;
}

static void answer(struct replica *r, const struct repair_request_in *asked, size_t *budget,
                   struct peer_outbox *out)
{
    struct peer_repair_reply reply = {.nonce = asked->request.nonce, .index = asked->request.index};
    if (store_read_begin(r->config.store) != FERRY_OK) {
        return;
    }
    bool damaged = false;
    if (may_give(r, &asked->request)) {
        enum ferry_err err =
            store_get_entry(r->config.store, r->config.group, reply.index, &reply.entry);
        if (err == FERRY_OK) {
            err = peer_entry_check(&reply.entry);
        }
        reply.given = err == FERRY_OK;
        damaged = err == FERRY_ERR_CORRUPT;
    }
    struct buf *b = peer_outbox_begin(out, asked->from, r->config.group, PEER_REPAIR_REPLY);
    if (b != NULL) {
        size_t before = b->size;
        peer_put_repair_reply(b, &reply);
        size_t bytes = b->size - before;
        *budget -= bytes < *budget ? bytes : *budget;
        peer_outbox_end(out);
    }
    store_read_end(r->config.store);
    if (damaged) {
        replica_damaged(r, reply.index);
    }
}

static bool wants_request(const struct replica *r, int64_t now_us)
{
    return repair_is_damaged(r) && !r->repair.have && now_us >= r->repair.retry_us;
}

bool repair_wants_send(const struct replica *r, int64_t now_us)
{
    return r->asked_count > 0 || wants_request(r, now_us);
}

void repair_send(struct replica *r, int64_t now_us, size_t *budget, struct peer_outbox *out)
{
    while (r->asked_count > 0 && *budget > 0) {
        struct repair_request_in asked = r->asked[--r->asked_count];
        answer(r, &asked, budget, out);
    }
    if (wants_request(r, now_us)) {
        r->repair.retry_us = now_us + REPLICA_REPAIR_RETRY_US;
        send_request(r, out);
    }
}

int64_t repair_deadline_us(const struct replica *r)
{
    return repair_is_damaged(r) && !r->repair.have ? r->repair.retry_us : RAFT_NEVER;
}

/* ---- What comes in ---- */

static void receive_request(struct replica *r, const struct peer_item *item)
{
    struct peer_repair_request q;
    if (peer_take_repair_request(item->body, &q) != FERRY_OK ||
        r->asked_count == REPLICA_REPAIR_REQUESTS_MAX) {
        r->dropped++;
        return;
    }
    r->asked[r->asked_count++] = (struct repair_request_in){.from = item->from, .request = q};
}

/* It must be an entry that can be there: its term known, or between its neighbours'. */
static bool fits(const struct replica *r, const struct peer_repair_reply *reply)
{
    raft_term term = reply->entry.term;
    raft_index next = reply->index + 1;
    raft_term after = next <= raft_last_index(r->raft) && !is_noted(r, next)
                          ? raft_term_at(r->raft, next)
                          : RAFT_TERM_MAX;
    return term >= raft_term_at(r->raft, reply->index - 1) && term <= after &&
           (r->repair.term == 0 || term == r->repair.term);
}

static bool is_sound(const struct replica *r, const struct peer_repair_reply *reply)
{
#ifdef MUT_38 /* what a peer gives as a repair is taken as it is */
    return r != NULL && reply->given;
#else
    return peer_entry_check(&reply->entry) == FERRY_OK && fits(r, reply);
#endif
}

static void receive_reply(struct replica *r, const struct peer_item *item)
{
    struct repair *p = &r->repair;
    struct peer_repair_reply reply;
    if (peer_take_repair_reply(item->body, &reply) != FERRY_OK || p->have || p->requested == 0 ||
        reply.nonce != p->nonce || reply.index != p->requested) {
        r->dropped++;
        return;
    }
    if (!reply.given || !is_sound(r, &reply)) {
        return; /* The next member is asked. */
    }
    p->entry = reply.entry;
    p->have = true;
}

void repair_receive(struct replica *r, const struct peer_item *item)
{
    if (r->raft == NULL) {
        r->dropped++;
    } else if (item->kind == PEER_REPAIR_REQUEST) {
        receive_request(r, item);
    } else {
        receive_reply(r, item);
    }
}

/* ---- Writing ---- */

enum ferry_err repair_write(struct replica *r)
{
    must(r->repair.requested != 0);
    return store_replace_entry(r->config.store, r->config.group, r->repair.requested,
                               &r->repair.entry);
}

/* The entry at `index` is good again. Its term may not be what was guessed: then the core is made
 * anew from disk. */
static enum ferry_err take_repaired(struct replica *r, raft_index index, int64_t now_us)
{
    const struct store_entry *entry = &r->repair.entry;
    log_line(LOG_INFO, "replica", "group %llu: the entry at index %llu is repaired",
             (unsigned long long)r->config.group, (unsigned long long)index);
    forget(r, index, index);
    if (entry->term != raft_term_at(r->raft, index)) {
        r->repair.remute = false;
        return replica_reopen_core(r, now_us);
    }
    if (index == raft_last_index(r->raft)) {
        r->next_offset = r->config.ops->next_offset(entry);
        r->last_append_time_ms = entry->append_time_ms;
    }
    return FERRY_OK;
}

enum ferry_err repair_stored(struct replica *r, int64_t now_us)
{
    enum ferry_err err = FERRY_OK;
    if (r->repair.written) {
        raft_index index = r->repair.requested;
        r->repair.written = false;
        r->repair.requested = 0;
        r->repair.retry_us = now_us;
        err = take_repaired(r, index, now_us);
    }
    if (err == FERRY_OK && r->repair.remute) {
        err = repair_mute(r, now_us);
    }
    return err;
}
