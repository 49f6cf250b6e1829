/* Members: who decides and who listens, and what is known of each peer. */
#include <string.h>

#include "base/mem.h"
#include "raft/core.h"

/* ---- Lists of ids ---- */

static bool list_is_sound(const raft_id *ids, uint32_t count, uint32_t max)
{
    if (count > max) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] <= (i > 0 ? ids[i - 1] : 0)) {
            return false;
        }
    }
    return true;
}

static bool list_has(const raft_id *ids, uint32_t count, raft_id id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

enum ferry_err raft_members_check(const struct raft_members *m)
{
    bool lists_are_sound = list_is_sound(m->voters, m->voter_count, RAFT_VOTERS_MAX) &&
                           list_is_sound(m->old_voters, m->old_voter_count, RAFT_VOTERS_MAX) &&
                           list_is_sound(m->learners, m->learner_count, RAFT_LEARNERS_MAX);
    if (!lists_are_sound || (m->old_voter_count > 0 && m->voter_count == 0)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    for (uint32_t i = 0; i < m->learner_count; i++) {
        if (list_has(m->voters, m->voter_count, m->learners[i])) {
            return FERRY_ERR_INVALID_ARGUMENT;
        }
    }
    return FERRY_OK;
}

static bool lists_equal(const raft_id *a, uint32_t a_count, const raft_id *b, uint32_t b_count)
{
    return a_count == b_count && memcmp(a, b, a_count * sizeof(a[0])) == 0;
}

bool raft_members_equal(const struct raft_members *a, const struct raft_members *b)
{
    return lists_equal(a->voters, a->voter_count, b->voters, b->voter_count) &&
           lists_equal(a->old_voters, a->old_voter_count, b->old_voters, b->old_voter_count) &&
           lists_equal(a->learners, a->learner_count, b->learners, b->learner_count);
}

bool raft_members_has_voter(const struct raft_members *m, raft_id id)
{
    return list_has(m->voters, m->voter_count, id) ||
           list_has(m->old_voters, m->old_voter_count, id);
}

bool raft_members_has(const struct raft_members *m, raft_id id)
{
    return raft_members_has_voter(m, id) || list_has(m->learners, m->learner_count, id);
}

/* ---- Peers ---- */

static size_t add_id(raft_id *ids, size_t count, raft_id id)
{
    size_t place = count;
    for (; place > 0 && ids[place - 1] >= id; place--) {
        if (ids[place - 1] == id) {
            return count;
        }
    }
    memmove(ids + place + 1, ids + place, (count - place) * sizeof(ids[0]));
    ids[place] = id;
    return count + 1;
}

static size_t add_list(raft_id *ids, size_t count, const raft_id *list, uint32_t list_count,
                       raft_id self)
{
    for (uint32_t i = 0; i < list_count; i++) {
        count = list[i] == self ? count : add_id(ids, count, list[i]);
    }
    return count;
}

/* All other members, sorted. */
static size_t collect_peers(const struct raft_members *m, raft_id self, raft_id ids[RAFT_PEERS_MAX])
{
    size_t count = add_list(ids, 0, m->voters, m->voter_count, self);
    count = add_list(ids, count, m->old_voters, m->old_voter_count, self);
    return add_list(ids, count, m->learners, m->learner_count, self);
}

size_t raft_count_peers(const struct raft_members *m, raft_id self)
{
    raft_id ids[RAFT_PEERS_MAX];
    return collect_peers(m, self, ids);
}

bool raft_reserve_peers(struct raft *r, size_t count)
{
    if (count <= r->peer_capacity && r->send_now.messages != NULL) {
        return true;
    }
    struct raft_peer *peers = mem_zalloc(count, sizeof(peers[0]));
    struct raft_peer *spare = mem_zalloc(count, sizeof(spare[0]));
    struct outbox send_now = {0};
    struct outbox send_after_sync = {0};
    bool ok = (count == 0 || (peers != NULL && spare != NULL)) &&
              raft_outboxes_make(&send_now, &send_after_sync, count);
    if (ok) {
        if (r->peer_count > 0) {
            memcpy(peers, r->peers, r->peer_count * sizeof(peers[0]));
        }
        struct raft_peer *swap = r->peers;
        r->peers = peers;
        peers = swap;
        swap = r->spare;
        r->spare = spare;
        spare = swap;
        struct outbox box = r->send_now;
        r->send_now = send_now;
        send_now = box;
        box = r->send_after_sync;
        r->send_after_sync = send_after_sync;
        send_after_sync = box;
        r->peer_capacity = count;
    }
    mem_free(peers);
    mem_free(spare);
    raft_outbox_fini(&send_now);
    raft_outbox_fini(&send_after_sync);
    return ok;
}

static void refresh_peer(struct raft *r, struct raft_peer *peer, raft_id id)
{
    const struct raft_members *m = &r->config.members;
    const struct raft_peer *known = raft_find_peer(r, id);
    if (known != NULL) {
        *peer = *known;
    } else {
        *peer = (struct raft_peer){.id = id};
        if (r->role == RAFT_LEADER) {
            raft_begin_feeding(r, peer);
        }
    }
    peer->in_new = list_has(m->voters, m->voter_count, id);
    peer->in_old = list_has(m->old_voters, m->old_voter_count, id);
    peer->is_learner = !peer->in_new && !peer->in_old;
}

void raft_refresh_peers(struct raft *r)
{
    const struct raft_members *m = &r->config.members;
    raft_id ids[RAFT_PEERS_MAX];
    size_t count = collect_peers(m, r->self, ids);
    must(count <= r->peer_capacity);
    for (size_t i = 0; i < count; i++) {
        refresh_peer(r, &r->spare[i], ids[i]);
    }
    struct raft_peer *swap = r->peers;
    r->peers = r->spare;
    r->spare = swap;
    r->peer_count = count;
    r->self_in_new = list_has(m->voters, m->voter_count, r->self);
    r->self_in_old = list_has(m->old_voters, m->old_voter_count, r->self);
}

/* ---- Quorums ---- */

bool raft_is_voter(const struct raft *r)
{
    return r->self_in_new || r->self_in_old;
}

bool raft_is_sole_voter(const struct raft *r)
{
    return r->self_in_new && r->config.members.voter_count == 1 &&
           r->config.members.old_voter_count == 0;
}

static uint64_t majority_value(const struct raft *r, bool of_old, uint64_t own,
                               uint64_t (*value)(const struct raft_peer *peer))
{
    uint64_t values[RAFT_VOTERS_MAX];
    size_t count = 0;
    if (of_old ? r->self_in_old : r->self_in_new) {
        values[count] = own;
        count++;
    }
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
#ifdef MUT_12 /* learners count */
        if (!of_old && peer->is_learner && count < RAFT_VOTERS_MAX) {
            values[count++] = value(peer);
        }
#endif
        if (of_old ? peer->in_old : peer->in_new) {
            must(count < RAFT_VOTERS_MAX);
            values[count] = value(peer);
            count++;
        }
    }
    return quorum_index(values, count);
}

uint64_t raft_quorum_value(const struct raft *r, uint64_t own,
                           uint64_t (*value)(const struct raft_peer *peer))
{
    uint64_t reached = majority_value(r, false, own, value);
#ifdef MUT_11 /* a joint configuration decides by its new voters alone */
    return reached;
#endif
    if (r->config.members.old_voter_count == 0) {
        return reached;
    }
    uint64_t reached_by_old = majority_value(r, true, own, value);
    return reached < reached_by_old ? reached : reached_by_old;
}
