#include "sim/checkers.h"

#include "base/checksum.h"
#include "base/mem.h"
#include "partition/peer_item.h"
#include "sim/coverage.h"
#include "sim/observe.h"
#include "wire/batch.h"

#define GROUPS_MAX 64

/* What the world agrees on about one group. */
struct truth_entry {
    uint64_t term, hash;
    uint64_t by_term; /* A term in which it was committed, at the latest. */
};

struct leader {
    uint64_t term;
    raft_id member;
};

struct vote {
    uint64_t term;
    raft_id voter, candidate;
};

struct truth {
    uint64_t group;
    uint64_t first; /* Of entries[0]. */
    struct truth_entry *entries;
    size_t count, capacity;
    struct leader *leaders;
    size_t leader_count, leader_capacity;
    struct vote *votes; /* That left a node. */
    size_t vote_count, vote_capacity;
};

/* What one member has said of itself and its group. */
struct claim {
    raft_id member;
    uint64_t group;
    uint64_t term, commit;    /* The greatest, in this start. */
    uint64_t checked;         /* Entries up to here have been compared with the truth. */
    uint64_t led_term;        /* Of which it has been looked at as leader. */
    uint64_t acked;           /* The greatest entry it has acknowledged, ever. */
    struct store_group marks; /* As last seen durable. */
    bool has_marks;
    enum replica_state state;
    uint64_t drops; /* Of the shadow, as last seen. */
};

static struct {
    struct sim_node **nodes;
    uint32_t node_count;
    struct truth truths[GROUPS_MAX];
    size_t truth_count;
    struct claim **claims; /* Each owned. */
    size_t claim_count, claim_capacity;
    struct shadow *shadows[SIM_NODES_MAX + 1][SIM_SHARDS_MAX];
    struct check_counters counters;
    bool frames; /* Shown. */
} all;

#define ULL(x) ((unsigned long long)(x))

const struct check_counters *check_counters(void)
{
    return &all.counters;
}

static struct truth *truth_of(uint64_t group)
{
    for (size_t i = 0; i < all.truth_count; i++) {
        if (all.truths[i].group == group) {
            return &all.truths[i];
        }
    }
    must(all.truth_count < GROUPS_MAX);
    struct truth *t = &all.truths[all.truth_count++];
    *t = (struct truth){.group = group, .first = 1};
    return t;
}

static struct claim *claim_of(raft_id member, uint64_t group)
{
    for (size_t i = 0; i < all.claim_count; i++) {
        if (all.claims[i]->member == member && all.claims[i]->group == group) {
            return all.claims[i];
        }
    }
    must(mem_grow((void **)&all.claims, &all.claim_capacity, all.claim_count + 1,
                  sizeof(struct claim *)));
    struct claim *c = mem_zalloc(1, sizeof(*c));
    must(c != NULL);
    c->member = member;
    c->group = group;
    all.claims[all.claim_count++] = c;
    return c;
}

static struct truth_entry *truth_at(const struct truth *t, uint64_t index)
{
    return index >= t->first && index - t->first < t->count ? &t->entries[index - t->first] : NULL;
}

/* By node and shard, once found: a shadow stays where it is. */
static struct shadow *shadow_of_shard(const struct sim_node *n, uint32_t shard)
{
    struct shadow **known = &all.shadows[n->id % (SIM_NODES_MAX + 1)][shard];
    if (*known == NULL) {
        char path[PATH_MAX_BYTES + 32];
        sim_node_path(n, shard, path, sizeof(path));
        *known = observe_disk(path);
    }
    return *known;
}

static struct shadow *shadow_of(const struct sim_node *n, uint64_t group)
{
    return shadow_of_shard(n, (uint32_t)(group % n->shard_count));
}

static struct sim_node *host_of_member(raft_id member)
{
    for (uint32_t i = 0; i < all.node_count; i++) {
        if (all.nodes[i]->id == (uint32_t)(member & UINT32_MAX)) {
            return all.nodes[i];
        }
    }
    return NULL;
}

/* ---- Commits ---- */

/* The node serves the group: it is not deleting it. */
static bool serves(const struct sim_node *n, uint64_t group)
{
    const struct shard *s = n->shards[group % n->shard_count];
    const struct seat *seat = s != NULL ? shard_find_seat(s, group) : NULL;
    return seat != NULL && seat->replica != NULL && !seat->dropping;
}

/* The member's disk holds this very entry, durably, in this life of the folder. */
static bool holds(raft_id member, uint64_t group, uint64_t index, const struct truth_entry *e)
{
    const struct sim_node *n = host_of_member(member);
    const struct shadow *d = n != NULL ? shadow_of(n, group) : NULL;
    if (d == NULL || n->member != member) {
        /* That folder is gone; it had what it said it had. */
        return claim_of(member, group)->acked >= index;
    }
    const struct shadow_group *g = shadow_find(d, group);
    const struct shadow_entry *s = shadow_at(g, index);
    bool trimmed =
        g != NULL && g->has_marks && !g->marks.installing && g->marks.trim_index >= index;
    bool there = trimmed || (s != NULL && s->term == e->term && s->hash == e->hash);
    /* A topic is deleted here a little earlier than there. */
    return there || (!serves(n, group) && claim_of(member, group)->acked >= index);
}

static bool majority_holds(const raft_id *voters, uint32_t count, uint64_t group, uint64_t index,
                           const struct truth_entry *e)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < count; i++) {
        held += holds(voters[i], group, index, e);
    }
    return count == 0 || held > count / 2;
}

/* The members in force may have come in the same turn, behind the entry. */
static bool changes_behind(const struct shadow_group *g, uint64_t index)
{
    for (uint64_t i = index + 1; i <= shadow_last(g); i++) {
        const struct shadow_entry *s = shadow_at(g, i);
        if (s != NULL && s->type == STORE_ENTRY_CONFIG) {
            return true;
        }
    }
    return false;
}

static void first_commit(struct truth *t, const struct replica *r, const struct shadow_group *g,
                         uint64_t index, const struct truth_entry *e)
{
    const struct raft_members *m = replica_members(r);
    all.counters.commits++;
    bool was = m->old_voter_count > 0 && changes_behind(g, index);
    bool quorum = (was || majority_holds(m->voters, m->voter_count, t->group, index, e)) &&
                  majority_holds(m->old_voters, m->old_voter_count, t->group, index, e);
    for (uint32_t i = 0; i < m->voter_count && !quorum; i++) {
        const struct sim_node *n = host_of_member(m->voters[i]);
        const struct shadow *d = shadow_of(n, t->group);
        const struct shadow_group *theirs = d != NULL ? shadow_find(d, t->group) : NULL;
        const struct shadow_entry *s = shadow_at(theirs, index);
        sim_say(
            "  node%u: %s, log ends at %llu, there it has term %llu hash %llx; wanted %llu %llx",
            n->id, n->member == m->voters[i] ? "same life" : "another life",
            ULL(shadow_last(theirs)), ULL(s != NULL ? s->term : 0), ULL(s != NULL ? s->hash : 0),
            ULL(e->term), ULL(e->hash));
    }
    if (!quorum) {
        sim_fail(SIM_INVARIANT,
                 "INV-R09: entry %llu of group %llu is called committed, but no majority of its %u "
                 "voters has it on disk",
                 ULL(index), ULL(t->group), m->voter_count);
    }
    if (t->count == 0) {
        t->first = index;
    }
    must(index == t->first + t->count);
    must(mem_grow((void **)&t->entries, &t->capacity, t->count + 1, sizeof(*t->entries)));
    t->entries[t->count++] = *e;
}

static void compare_entry(const struct truth *t, const struct claim *c, uint64_t index,
                          const struct shadow_entry *s)
{
    const struct truth_entry *e = truth_at(t, index);
    if (e != NULL && (e->term != s->term || e->hash != s->hash)) {
        sim_fail(SIM_INVARIANT,
                 "INV-R05: entry %llu of group %llu: node %u calls one of term %llu committed, "
                 "another did one of term %llu",
                 ULL(index), ULL(t->group), (uint32_t)c->member, ULL(s->term), ULL(e->term));
    }
}

static void check_commit(struct truth *t, struct claim *c, const struct replica *r,
                         const struct shadow_group *g)
{
    uint64_t commit = replica_commit(r);
    if (commit < c->commit) {
        sim_fail(SIM_INVARIANT, "INV-R06: node %u, group %llu: commit went from %llu to %llu",
                 (uint32_t)c->member, ULL(t->group), ULL(c->commit), ULL(commit));
    }
    c->commit = commit;
    uint64_t last = shadow_last(g);
    uint64_t from = g->count > 0 && c->checked + 1 < g->first ? g->first : c->checked + 1;
    for (uint64_t i = from; g->count > 0 && i <= commit && i <= last; i++) {
        const struct shadow_entry *s = shadow_at(g, i);
        struct truth_entry e = {.term = s->term, .hash = s->hash, .by_term = replica_term(r)};
        if (truth_at(t, i) == NULL && (t->count == 0 || i == t->first + t->count)) {
            first_commit(t, r, g, i, &e);
        }
        compare_entry(t, c, i, s);
        c->checked = i;
    }
}

/* ---- Leaders ---- */

static void check_election(struct truth *t, struct claim *c, const struct replica *r,
                           const struct shadow_group *g)
{
    uint64_t term = replica_term(r);
    for (size_t i = t->leader_count; i-- > 0;) {
        const struct leader *l = &t->leaders[i];
        if (l->term == term && l->member != c->member) {
            sim_fail(SIM_INVARIANT,
                     "INV-R01: group %llu has two leaders in term %llu: nodes %u, %u",
                     ULL(t->group), ULL(term), (uint32_t)l->member, (uint32_t)c->member);
        }
        if (l->term == term) {
            return;
        }
    }
    must(mem_grow((void **)&t->leaders, &t->leader_capacity, t->leader_count + 1,
                  sizeof(*t->leaders)));
    t->leaders[t->leader_count++] = (struct leader){.term = term, .member = c->member};
    all.counters.elections++;
    if (!raft_members_has_voter(replica_members(r), c->member)) {
        sim_fail(SIM_INVARIANT, "INV-R14: node %u leads group %llu in term %llu and is no voter",
                 (uint32_t)c->member, ULL(t->group), ULL(term));
    }
    for (size_t i = 0; i < t->count; i++) {
        const struct truth_entry *e = &t->entries[i];
        uint64_t index = t->first + i;
        const struct shadow_entry *s = shadow_at(g, index);
        bool dropped = g->count > 0 ? index < g->first : index <= g->marks.trim_index;
        if (e->by_term >= term || dropped || index <= g->marks.trim_index) {
            continue;
        }
        if (s == NULL || s->term != e->term || s->hash != e->hash) {
            sim_fail(SIM_INVARIANT,
                     "INV-R04: node %u leads group %llu in term %llu without entry %llu, committed "
                     "in term %llu",
                     (uint32_t)c->member, ULL(t->group), ULL(term), ULL(index), ULL(e->by_term));
            return;
        }
    }
}

static void check_replica(const struct sim_node *n, const struct replica *r)
{
    static const struct shadow_group nothing;
    uint64_t group = replica_group(r);
    struct truth *t = truth_of(group);
    struct claim *c = claim_of(n->member, group);
    const struct shadow *d = shadow_of(n, group);
    const struct shadow_group *g = d != NULL ? shadow_find(d, group) : NULL;
    enum replica_state state = replica_state(r);
    g = g != NULL ? g : &nothing;
    bool led = c->state == REPLICA_LEADING || c->state == REPLICA_READY;
    all.counters.step_downs += led && state == REPLICA_FOLLOWING;
    if (c->state == REPLICA_DAMAGED && state != REPLICA_DAMAGED) {
        c->commit = 0; /* Its core may have been made anew, as at a start. */
    }
    c->state = state;
    if (state == REPLICA_FAILED || state == REPLICA_INSTALLING || g->marks.installing) {
        c->commit = 0; /* Begins anew with what the snapshot brings. */
        return;
    }
    all.counters.damaged += state == REPLICA_DAMAGED;
    all.counters.quiet += replica_is_quiet(r);
    if (replica_term(r) < c->term) {
        sim_fail(SIM_INVARIANT, "INV-R06: node %u, group %llu: term went from %llu to %llu", n->id,
                 ULL(group), ULL(c->term), ULL(replica_term(r)));
    }
    c->term = replica_term(r);
    check_commit(t, c, r, g);
    bool leads = state == REPLICA_LEADING || state == REPLICA_READY;
    if (leads && c->led_term != c->term) {
        c->led_term = c->term;
        check_election(t, c, r, g);
    }
    const struct raft_members *m = replica_members(r);
    all.counters.joint += m->old_voter_count > 0;
    all.counters.learners += m->learner_count > 0;
}

static void check_disk(const struct sim_node *n, uint32_t shard);

void check_turn(struct sim_node *n, uint32_t shard)
{
    const struct shard *s = n->shards[shard];
    check_disk(n, shard);
    size_t at = 0;
    for (const struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL && !sim->ended;) {
        if (seat->replica != NULL) {
            check_replica(n, seat->replica);
        }
    }
}

void check_started(const struct sim_node *n)
{
    for (size_t i = 0; i < all.claim_count; i++) {
        struct claim *c = all.claims[i];
        if (c->member == n->member) {
            /* The commit index in the folder is a lower bound; a term that was not durable yet was
             * not told to anybody. */
            c->commit = 0;
            c->term = 0;
            all.counters.install_crashes += c->state == REPLICA_INSTALLING;
            c->state = REPLICA_FOLLOWING;
            c->led_term = 0;
        }
    }
}

void check_restored(const struct sim_node *n)
{
    for (size_t i = 0; i < all.claim_count; i++) {
        struct claim *c = all.claims[i];
        if ((uint32_t)c->member == n->id) {
            *c = (struct claim){.member = c->member, .group = c->group, .acked = c->acked};
        }
    }
}

/* ---- Disks ---- */

static void check_marks(const struct shadow *d, struct claim *c, const struct shadow_group *g)
{
    const struct store_group *m = &g->marks;
    const struct store_group *was = &c->marks;
    if (c->has_marks && m->term < was->term) {
        sim_fail(SIM_INVARIANT, "INV-R06: %s, group %llu: durable term went from %llu to %llu",
                 d->path, ULL(g->id), ULL(was->term), ULL(m->term));
    }
    if (c->has_marks && m->term == was->term && was->vote != 0 && m->vote != was->vote) {
        sim_fail(SIM_INVARIANT, "INV-R08: %s, group %llu: two votes in term %llu", d->path,
                 ULL(g->id), ULL(m->term));
    }
    c->marks = *m;
    c->has_marks = true;
}

static void check_disk(const struct sim_node *n, uint32_t shard)
{
    const struct shadow *d = shadow_of_shard(n, shard);
    for (size_t i = 0; d != NULL && i < d->group_count; i++) {
        const struct shadow_group *g = d->groups[i];
        struct claim *c = claim_of(n->member, g->id);
        if (!g->has_marks || g->drops != c->drops) {
            /* Deleted, or moved away. Should it come back, it begins anew. */
            *c = (struct claim){
                .member = c->member, .group = c->group, .acked = c->acked, .drops = g->drops};
        }
        if (!g->has_marks) {
            continue;
        }
        check_marks(d, c, g);
        uint64_t end = g->count > 0 ? shadow_last(g) : g->marks.trim_index;
        bool whole = !g->marks.installing && c->state != REPLICA_INSTALLING;
        if (serves(n, g->id) && whole && end > 0 && c->checked > end) {
            sim_fail(SIM_INVARIANT,
                     "INV-R11: %s, group %llu: committed entries up to %llu, now the log ends at "
                     "%llu",
                     d->path, ULL(g->id), ULL(c->checked), ULL(end));
        }
        /* What remains of one that was moved away: its term and vote count on, its log does not. */
        bool remains = g->count == 0 && g->marks.commit == 0 && g->marks.trim_index == 0;
        if (g->marks.installing || remains) {
            c->checked = 0;
            c->commit = 0;
        }
    }
}

/* ---- Frames ---- */

/* What a node says in a frame that leaves when its turn's time is over, if the node still lives. */
struct saying {
    struct sim_node *node;
    raft_id member, to;
    uint64_t starts, group, term, match;
    bool vote;
};

/* Over all lives of one folder, also when it was put back to what it was: one vote a term. */
static void count_vote(const struct saying *v)
{
    struct truth *t = truth_of(v->group);
    for (size_t i = t->vote_count; i-- > 0;) {
        const struct vote *known = &t->votes[i];
        if (known->term == v->term && known->voter == v->member) {
            if (known->candidate != v->to) {
                sim_fail(SIM_INVARIANT,
                         "INV-R08: node %u votes for nodes %u and %u in term %llu of group %llu",
                         v->node->id, (uint32_t)known->candidate, (uint32_t)v->to, ULL(v->term),
                         ULL(v->group));
            }
            return;
        }
    }
    must(mem_grow((void **)&t->votes, &t->vote_capacity, t->vote_count + 1, sizeof(*t->votes)));
    t->votes[t->vote_count++] =
        (struct vote){.term = v->term, .voter = v->member, .candidate = v->to};
}

static void count_said(void *arg, uint64_t number)
{
    struct saying *v = arg;
    (void)number;
    struct claim *c = claim_of(v->member, v->group);
    if (!v->node->up || v->node->starts != v->starts) {
        /* It died before. */
    } else if (v->vote) {
        count_vote(v);
    } else {
        c->acked = v->match > c->acked ? v->match : c->acked;
    }
    mem_free(v);
}

static void note_said(struct sim_node *n, const struct raft_message *m, uint64_t group)
{
    struct saying v = {.node = n,
                       .member = n->member,
                       .to = m->to,
                       .starts = n->starts,
                       .group = group,
                       .term = m->term,
                       .match = m->match_index,
                       .vote = m->type == RAFT_VOTE_REPLY};
    void *copy = mem_dup(&v, sizeof(v));
    must(copy != NULL);
    world_at(world_now(), count_said, copy, 0);
}

static void check_vote(const struct sim_node *n, const struct raft_message *m, uint64_t group)
{
    const struct shadow *d = shadow_of(n, group);
    const struct shadow_group *g = d != NULL ? shadow_find(d, group) : NULL;
    all.counters.votes++;
    bool durable =
        g != NULL && g->has_marks &&
        (g->marks.term > m->term || (g->marks.term == m->term && g->marks.vote == m->to));
    if (!durable) {
        sim_fail(SIM_INVARIANT,
                 "INV-R08: node %u votes for node %u in term %llu of group %llu before that is "
                 "durable",
                 n->id, (uint32_t)m->to, ULL(m->term), ULL(group));
    }
}

static void check_ack(const struct sim_node *n, const struct raft_message *m, uint64_t group)
{
    const struct shadow *d = shadow_of(n, group);
    const struct shadow_group *g = d != NULL ? shadow_find(d, group) : NULL;
    uint64_t end = g == NULL ? 0 : g->count > 0 ? shadow_last(g) : g->marks.trim_index;
    /* One fsync may cover both the entries of an older term's leader and their going for those of a
     * later one: then the older one is answered as if it had been two. It can do nothing with it,
     * for the later one was elected without this node. */
    bool has_moved_on = g != NULL && g->has_marks && g->marks.term > m->term;
    if (m->match_index > end && !has_moved_on) {
        sim_fail(SIM_INVARIANT,
                 "INV-R09: node %u acknowledges entry %llu of group %llu, on its disk the log ends "
                 "at %llu",
                 n->id, ULL(m->match_index), ULL(group), ULL(end));
    }
}

static void check_message(struct sim_node *n, const struct raft_message *m, uint64_t group)
{
    all.counters.pre_votes += m->type == RAFT_PRE_VOTE_REQUEST;
    all.counters.transfers += m->type == RAFT_TIMEOUT_NOW;
    bool vote = m->type == RAFT_VOTE_REPLY && m->success;
    bool ack = m->type == RAFT_APPEND_REPLY && m->success;
    if (vote) {
        check_vote(n, m, group);
    }
    if (ack) {
        check_ack(n, m, group);
    }
    if (vote || ack) {
        note_said(n, m, group);
    }
}

static void show_message(const struct raft_message *m, uint64_t group)
{
    static const char *const names[] = {"vote?", "vote", "append", "ack", "pre?", "pre", "now!"};
    sim_say("group %llu to node%u: %s%s%s term %llu prev %llu.%llu +%u commit %llu match %llu seq "
            "%llu",
            ULL(group), (uint32_t)m->to, names[m->type], m->success ? " yes" : "",
            m->quiet ? " quiet" : "", ULL(m->term), ULL(m->prev_index), ULL(m->prev_term),
            m->entry_count, ULL(m->commit), ULL(m->match_index), ULL(m->sequence));
}

static void show_client_frame(const struct host *to, struct bytes frame)
{
    struct frame f;
    struct err_text e;
    if (frame_parse(frame, &f, &e) == FERRY_OK) {
        struct batch_header h;
        if (f.kind == FRAME_REQUEST && f.command == COMMAND_PRODUCE &&
            batch_check(f.attachment, &h, &e) == FERRY_OK) {
            sim_say("batch of producer %llu epoch %u, %u from sequence %llu", ULL(h.producer_id),
                    h.producer_epoch, h.count, ULL(h.first_sequence));
        }
        sim_say("%s %s %llu to %s: %s, %zu+%zu bytes", command_name(f.command),
                f.kind == FRAME_REQUEST ? "request" : "reply", ULL(f.request_id), to->name,
                ferry_err_name((enum ferry_err)f.status), f.body.size, f.attachment.size);
    }
}

static void on_frame(const struct host *from, const struct host *to, struct bytes frame, bool up)
{
    (void)up;
    struct sim_node *n = sim_node_current();
    struct peer_header h;
    struct err_text e;
    if (all.frames && (!from->is_node || !to->is_node)) {
        show_client_frame(to, frame);
    }
    if (!from->is_node || !to->is_node || n == NULL || n->host != from ||
        peer_frame_parse(frame, &h, &e) != FERRY_OK) {
        return;
    }
    size_t at = 0;
    struct peer_item item;
    while (peer_frame_next(frame, &h, &at, &item) && !sim->ended) {
        static struct peer_raft m; /* Large. */
        all.counters.repairs += item.kind == PEER_REPAIR_REPLY;
        all.counters.snapshots += item.kind == PEER_SNAPSHOT_END;
        if (all.frames && item.kind != PEER_RAFT) {
            sim_say("group %llu to %s: item of kind %u, %zu bytes", ULL(item.group), to->name,
                    item.kind, item.body.size);
        }
        if (item.kind == PEER_RAFT && peer_take_raft(&item, h.to, &m) == FERRY_OK) {
            check_message(n, &m.message, item.group);
            if (all.frames) {
                show_message(&m.message, item.group);
            }
        }
    }
}

/* ---- The same state ---- */

static enum ferry_err hash_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    uint64_t *hash = arg;
    (void)stop;
    *hash = checksum_of_two(hash, sizeof(*hash), key.data, key.size);
    *hash = checksum_of_two(hash, sizeof(*hash), value.data, value.size);
    return FERRY_OK;
}

/* Of all rows of one table that travel in snapshots. */
static uint64_t hash_table(struct store *s, uint64_t group, uint8_t table)
{
    uint64_t hash = 0;
    enum ferry_err err = store_each_row(s, group, table, bytes_of(NULL, 0), hash_row, &hash);
    return err == FERRY_OK ? hash : 1;
}

static enum ferry_err show_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    char text[400];
    size_t used = 0;
    (void)stop;
    for (size_t i = 0; i < key.size && used + 4 < sizeof(text); i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%02x", key.data[i]);
    }
    used += (size_t)snprintf(text + used, sizeof(text) - used, ": ");
    for (size_t i = 0; i < value.size && used + 4 < sizeof(text); i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%02x", value.data[i]);
    }
    sim_say("  %s %s", (const char *)arg, text);
    return FERRY_OK;
}

static void show_table(struct store *s, uint64_t group, uint8_t table)
{
    enum ferry_err err = store_each_row(s, group, table, bytes_of(NULL, 0), show_row, "row");
    if (err != FERRY_OK) {
        sim_say("  %s", ferry_err_name(err));
    }
}

/* The other replica of the group that has applied as much. */
static void compare_state(const struct shard *a, const struct seat *x, const struct shard *b)
{
    uint64_t group = x->group;
    const struct seat *y = shard_find_seat(b, group);
    bool comparable = y != NULL && y->replica != NULL && !x->dropping && !y->dropping &&
                      replica_applied(x->replica) == replica_applied(y->replica) &&
                      replica_flushed(x->replica) == replica_applied(x->replica) &&
                      replica_flushed(y->replica) == replica_applied(y->replica) &&
                      replica_state(x->replica) <= REPLICA_READY &&
                      replica_state(y->replica) <= REPLICA_READY;
    if (!comparable || store_read_begin(a->store) != FERRY_OK) {
        return;
    }
    must(store_read_begin(b->store) == FERRY_OK);
    all.counters.compared++;
    for (unsigned t = 1; t <= PEER_ROWS_TABLE_MAX && !sim->ended; t++) {
        if (hash_table(a->store, group, (uint8_t)t) != hash_table(b->store, group, (uint8_t)t)) {
            show_table(a->store, group, (uint8_t)t);
            show_table(b->store, group, (uint8_t)t);
            sim_fail(
                SIM_INVARIANT,
                "INV-R18: nodes %lld and %lld have applied group %llu up to %llu, and table %u "
                "differs",
                (long long)a->config.options->node_id, (long long)b->config.options->node_id,
                ULL(group), ULL(replica_applied(x->replica)), t);
        }
    }
    if (replica_first_index(x->replica) != replica_first_index(y->replica)) {
        sim_fail(SIM_INVARIANT,
                 "INV-R18: nodes %lld and %lld have applied group %llu up to %llu, and drop up to "
                 "%llu and %llu",
                 (long long)a->config.options->node_id, (long long)b->config.options->node_id,
                 ULL(group), ULL(replica_applied(x->replica)), ULL(replica_first_index(x->replica)),
                 ULL(replica_first_index(y->replica)));
    }
    store_read_end(a->store);
    store_read_end(b->store);
}

/* The most that any live replica of the group has applied. */
static uint64_t most_applied(uint64_t group)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < all.node_count; i++) {
        const struct sim_node *n = all.nodes[i];
        const struct seat *seat =
            n->up ? shard_find_seat(n->shards[group % n->shard_count], group) : NULL;
        if (seat != NULL && seat->replica != NULL && replica_applied(seat->replica) > most) {
            most = replica_applied(seat->replica);
        }
    }
    return most;
}

void check_caught_up(void)
{
    for (uint32_t i = 0; i < all.node_count; i++) {
        const struct sim_node *n = all.nodes[i];
        for (uint32_t k = 0; n->up && k < n->shard_count; k++) {
            size_t at = 0;
            for (const struct seat *x; (x = map_next(&n->shards[k]->seats, &at)) != NULL;) {
                bool counts = x->replica != NULL && !x->dropping &&
                              raft_members_has(replica_members(x->replica), n->member);
                if (counts && replica_applied(x->replica) < most_applied(x->group)) {
                    sim_fail(SIM_LIVENESS,
                             "INV-V03: node %u has applied group %llu up to %llu, another up to "
                             "%llu, and does not catch up",
                             n->id, ULL(x->group), ULL(replica_applied(x->replica)),
                             ULL(most_applied(x->group)));
                }
            }
        }
    }
}

static const struct shadow_group *on_disk_of(const struct sim_node *n, uint64_t group)
{
    const struct shadow *d = shadow_of(n, group);
    return d != NULL ? shadow_find(d, group) : NULL;
}

bool check_others_have(const struct sim_node *n)
{
    for (size_t t = 0; t < all.truth_count; t++) {
        uint64_t group = all.truths[t].group;
        const struct shadow_group *mine = on_disk_of(n, group);
        for (uint32_t i = 0; i < all.node_count && mine != NULL; i++) {
            const struct shadow_group *theirs = on_disk_of(all.nodes[i], group);
            bool lacks = theirs != NULL && shadow_last(theirs) < shadow_last(mine);
            if (all.nodes[i] != n && lacks) {
                return false;
            }
        }
    }
    return true;
}

void check_same_state(void)
{
    for (uint32_t i = 0; i < all.node_count; i++) {
        const struct sim_node *n = all.nodes[i];
        for (uint32_t k = 0; n->up && k < n->shard_count; k++) {
            size_t at = 0;
            for (const struct seat *x; (x = map_next(&n->shards[k]->seats, &at)) != NULL;) {
                for (uint32_t j = i + 1; x->replica != NULL && j < all.node_count; j++) {
                    const struct sim_node *o = all.nodes[j];
                    if (o->up && !sim->ended) {
                        compare_state(n->shards[k], x, o->shards[x->group % o->shard_count]);
                    }
                }
            }
        }
    }
}

static void show_replica(const struct sim_node *n, const struct replica *r)
{
    static const char *const states[] = {"following",  "leading", "ready",
                                         "installing", "damaged", "failed"};
    const struct raft_members *m = replica_members(r);
    (void)fprintf(stderr,
                  "  node%u group %llu: %s, term %llu, first %llu, applied %llu, commit %llu, last "
                  "%llu, leader node%u, quiet %d, voters",
                  n->id, ULL(replica_group(r)), states[replica_state(r)], ULL(replica_term(r)),
                  ULL(replica_first_index(r)), ULL(replica_applied(r)), ULL(replica_commit(r)),
                  ULL(replica_last_index(r)), (uint32_t)replica_leader(r), replica_is_quiet(r));
    for (uint32_t i = 0; i < m->voter_count; i++) {
        (void)fprintf(stderr, " %x.%u", (uint32_t)(m->voters[i] >> 32), (uint32_t)m->voters[i]);
    }
    (void)fprintf(stderr, ", old voters %u, learners %u\n", m->old_voter_count, m->learner_count);
}

void check_show(void)
{
    for (uint32_t i = 0; i < all.node_count; i++) {
        const struct sim_node *n = all.nodes[i];
        (void)fprintf(stderr, "node%u is %x.%u, %s%s\n", n->id, (uint32_t)(n->member >> 32), n->id,
                      n->up ? "up" : "down", n->host->paused ? ", paused" : "");
        for (uint32_t k = 0; k < n->shard_count && n->up; k++) {
            size_t at = 0;
            for (const struct seat *seat; (seat = map_next(&n->shards[k]->seats, &at)) != NULL;) {
                if (seat->replica != NULL) {
                    show_replica(n, seat->replica);
                } else {
                    (void)fprintf(stderr, "  node%u group %llu: not open: %s\n", n->id,
                                  ULL(seat->group), ferry_err_name(seat->err));
                }
            }
        }
    }
}

void checkers_init(struct sim_node **nodes, uint32_t node_count, bool frames)
{
    memset(&all, 0, sizeof(all));
    all.frames = frames;
    all.nodes = nodes;
    all.node_count = node_count;
    sim_net_on_send(on_frame);
}

void checkers_fini(void)
{
    for (size_t i = 0; i < all.truth_count; i++) {
        mem_free(all.truths[i].entries);
        mem_free(all.truths[i].leaders);
        mem_free(all.truths[i].votes);
    }
    for (size_t i = 0; i < all.claim_count; i++) {
        mem_free(all.claims[i]);
    }
    mem_free(all.claims);
    memset(&all, 0, sizeof(all));
}
