#include "lib/raft_cluster.h"

#include <string.h>

#include "base/mem.h"
#include "lib/raft_cluster_inner.h"

#define REST_US       1000000 /* In a run that rests, load comes every other one of these. */
#define ALONE_SLACK   (ELECTION_MIN_US + ELECTION_MAX_US + 3 * HEARTBEAT_US)
#define SETTLED_AFTER (HEALED_FOR_US / 3)

bool cluster_happens(struct cluster *c, uint64_t per_mille)
{
    return prng_below(&c->prng, PER_MILLE) < per_mille;
}

void cluster_trace(struct cluster *c, uint64_t word)
{
    c->result->trace_hash = (c->result->trace_hash ^ word) * UINT64_C(0x100000001b3);
}

bool cluster_is_cut(const struct cluster *c, raft_id from, raft_id to)
{
    return c->nodes[from].is_cut_off || c->nodes[to].is_cut_off || c->is_cut[from][to];
}

/* ---- Faults and load ---- */

/* Swarm: each kind of trouble is in some runs and not in others. */
static uint64_t draw(struct cluster *c, uint64_t chance, uint64_t most)
{
    uint64_t rate = prng_below(&c->prng, most);
    return cluster_happens(c, chance) ? rate : 0;
}

static void draw_faults(struct cluster *c)
{
    c->loss = draw(c, 800, 200);
    c->doubling = draw(c, 700, 100);
    c->lateness = draw(c, 600, 100);
    c->cutting = draw(c, 500, 300);
    c->crash_rate = draw(c, 800, 20);
    c->cut_rate = draw(c, 700, 20);
    c->link_rate = draw(c, 500, 20);
    c->pause_rate = draw(c, 400, 8);
    c->propose_rate = prng_below(&c->prng, 300);
    c->trim_rate = draw(c, 600, 30);
    c->configure_rate = draw(c, 700, 40);
    c->transfer_rate = draw(c, 500, 30);
    c->read_rate = draw(c, 700, 300);
    c->mute_rate = draw(c, 300, 3);
    c->sync_max_us = 1 + prng_below(&c->prng, cluster_happens(c, 300) ? 200000 : 5000);
    c->delay_max_us = 1 + prng_below(&c->prng, 20000);
    c->window =
        (uint32_t)(cluster_happens(c, 300) ? 1 + prng_below(&c->prng, 20) : RAFT_APPEND_WINDOW_MAX);
    c->never_quiet = cluster_happens(c, 200);
    c->rests = cluster_happens(c, 600);
}

/* A node without which every configuration that may be in force still has its quorums; 0: none. */
static raft_id pick_dispensable(struct cluster *c)
{
    raft_id id = 1 + prng_below(&c->prng, c->node_count);
    uint32_t others = ~(UINT32_C(1) << id);
    bool is_dispensable = c->node_count > 1;
    for (uint32_t i = 0; i < c->checker.config_count; i++) {
        is_dispensable = is_dispensable && raft_checker_is_quorum(&c->checker.configs[i], others);
    }
    return is_dispensable ? id : 0;
}

static void heal(struct cluster *c)
{
    c->loss = c->doubling = c->lateness = c->crash_rate = c->cut_rate = c->link_rate = 0;
    c->pause_rate = c->trim_rate = c->configure_rate = c->transfer_rate = c->mute_rate = 0;
    c->propose_rate = 100;
    c->rests = false;
    c->sync_max_us = 2000;
    c->delay_max_us = 2000;
    c->dead = cluster_happens(c, 400) ? pick_dispensable(c) : 0;
    memset(c->is_cut, 0, sizeof(c->is_cut));
    for (size_t id = 1; id <= c->node_count; id++) {
        struct node *n = &c->nodes[id];
        n->is_cut_off = false;
        if (id == c->dead) {
            node_crash(c, id);
            continue;
        }
        if (n->r == NULL) {
            node_start(c, id);
        }
        if (n->mute != 0) {
            (void)node_step(c, id, (struct raft_event){.type = RAFT_MUTE}, NULL);
        }
    }
}

/* What is trimmed here may be all that another lacks: then it needs a snapshot. */
static void trim_one(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_index most = n->disk.commit;
    most = raft_stored_index(n->r) < most ? raft_stored_index(n->r) : most;
    if (most <= n->now.trim_index) {
        return;
    }
    raft_index index = n->now.trim_index + 1 + prng_below(&c->prng, most - n->now.trim_index);
    n->now.trim_index = index;
    n->is_dirty = true;
    c->result->trims++;
    (void)node_step(c, id, (struct raft_event){.type = RAFT_TRIM, .index = index}, NULL);
}

static void propose(struct cluster *c, raft_id id)
{
    bool has_room = c->nodes[id].now.log.last + PROPOSALS_ROOM < CHECKER_LOG_MAX;
    bool rests = c->rests && (c->now_us / REST_US) % 2 == 1;
    if (has_room && !rests && cluster_happens(c, c->propose_rate)) {
        uint32_t count = 1 + (uint32_t)prng_below(&c->prng, 4);
        (void)node_step(c, id, (struct raft_event){.type = RAFT_PROPOSE, .count = count}, NULL);
    }
}

/* Anybody may become a voter, a learner, or nothing. */
static void configure(struct cluster *c, raft_id id)
{
    struct raft_members m = {0};
    uint64_t voter_chance = 200 + prng_below(&c->prng, 600);
    for (raft_id other = 1; other <= c->node_count; other++) {
        bool votes = m.voter_count < RAFT_VOTERS_MAX && cluster_happens(c, voter_chance);
        if (votes) {
            m.voters[m.voter_count] = other;
            m.voter_count++;
        } else if (cluster_happens(c, 300)) {
            m.learners[m.learner_count] = other;
            m.learner_count++;
        }
    }
    bool has_room = c->checker.config_count + 4 * CHECKER_NODES_MAX < CHECKER_CONFIGS_MAX;
    if (m.voter_count > 0 && has_room) {
        (void)node_step(c, id, (struct raft_event){.type = RAFT_CONFIGURE, .members = &m}, NULL);
    }
}

static void transfer(struct cluster *c, raft_id id)
{
    const struct raft_members *m = image_members(c, &c->nodes[id].now);
    if (m->voter_count == 0) {
        return;
    }
    raft_id target = m->voters[prng_below(&c->prng, m->voter_count)];
    target = cluster_happens(c, 100) ? 0 : target;
    if (target == id) {
        return;
    }
    struct raft_event event = {.type = RAFT_TRANSFER, .peer = target};
    bool ok = node_step(c, id, event, NULL) == FERRY_OK;
    c->result->transfers += ok && target != 0 ? 1 : 0;
}

static void read_one(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    if (n->read_count == READS_MAX) {
        return;
    }
    uint64_t number = n->read_number + 1;
    /* Kept before it is asked: a leader that decides alone answers in the same update. */
    n->reads[n->read_count] =
        (struct waiting_read){.number = number, .floor = c->checker.committed.last};
    n->read_count++;
    struct raft_event event = {.type = RAFT_READ, .number = number};
    if (node_step(c, id, event, NULL) == FERRY_OK) {
        n->read_number = number;
    } else {
        n->read_count--;
    }
}

static void mute_one(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_index index = 0;
    if (n->mute == 0 && n->now.log.last > n->now.trim_index) {
        index = n->now.trim_index + 1 + prng_below(&c->prng, n->now.log.last - n->now.trim_index);
        c->result->mutes++;
    }
    (void)node_step(c, id, (struct raft_event){.type = RAFT_MUTE, .index = index}, NULL);
}

static void cut_something(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    if (cluster_happens(c, c->cut_rate)) {
        n->is_cut_off = !n->is_cut_off;
    }
    raft_id other = 1 + prng_below(&c->prng, c->node_count);
    if (cluster_happens(c, c->link_rate)) {
        c->is_cut[id][other] = !c->is_cut[id][other];
    }
    if (cluster_happens(c, c->link_rate)) { /* Both ways: a bridge, a ring. */
        c->is_cut[id][other] = c->is_cut[other][id] = !c->is_cut[id][other];
    }
    if (n->r != NULL && cluster_happens(c, c->pause_rate)) {
        n->paused_until_us = c->now_us + (int64_t)prng_below(&c->prng, 1500000);
    }
}

static void load(struct cluster *c, raft_id id)
{
    propose(c, id);
    if (cluster_happens(c, c->read_rate)) {
        read_one(c, id);
    }
    if (cluster_happens(c, c->trim_rate)) {
        trim_one(c, id);
    }
    if (cluster_happens(c, c->configure_rate)) {
        configure(c, id);
    }
    if (cluster_happens(c, c->transfer_rate)) {
        transfer(c, id);
    }
    if (cluster_happens(c, c->mute_rate)) {
        mute_one(c, id);
    }
}

/* Mostly somebody who leads, or thinks so: the others only refuse. */
static raft_id pick(struct cluster *c)
{
    raft_id id = 1 + prng_below(&c->prng, c->node_count);
    bool wants_leader = cluster_happens(c, 600);
    for (size_t i = 0; wants_leader && i < c->node_count; i++) {
        raft_id other = 1 + (id + i) % c->node_count;
        if (c->nodes[other].r != NULL && raft_role(c->nodes[other].r) == RAFT_LEADER) {
            return other;
        }
    }
    return id;
}

static void chaos(struct cluster *c)
{
    c->chaos_us = c->now_us + CHAOS_EVERY_US;
    raft_id id = 1 + prng_below(&c->prng, c->node_count);
    struct node *n = &c->nodes[id];
    cut_something(c, id);
    if (n->r == NULL && id != c->dead && cluster_happens(c, 100)) {
        node_start(c, id);
    } else if (n->r != NULL && cluster_happens(c, c->crash_rate)) {
        node_crash(c, id);
    }
    id = pick(c);
    if (c->nodes[id].r != NULL && c->nodes[id].paused_until_us <= c->now_us) {
        load(c, id);
    }
}

/* ---- What a node's driver sees of the other nodes, for all groups at once ---- */

static bool is_up(const struct cluster *c, raft_id id)
{
    return c->nodes[id].r != NULL && c->nodes[id].paused_until_us <= c->now_us;
}

static bool concerns(const struct cluster *c, raft_id id, raft_id other)
{
    const struct node *n = &c->nodes[id];
    bool is_its_peer =
        raft_role(n->r) == RAFT_LEADER && raft_members_has(image_members(c, &n->now), other);
    return raft_is_quiet(n->r) && (is_its_peer || raft_leader(n->r) == other);
}

static void watch_one(struct cluster *c, raft_id id, raft_id other)
{
    struct node *n = &c->nodes[id];
    bool restarted = false;
    if (is_up(c, other) && !cluster_is_cut(c, other, id)) {
        restarted = n->heard_boot[other] != c->nodes[other].boot;
        n->heard_boot[other] = c->nodes[other].boot;
        n->heard_us[other] = c->now_us;
    }
    bool is_silent = c->now_us - n->heard_us[other] > ELECTION_MIN_US;
    if ((restarted || is_silent) && concerns(c, id, other)) {
        c->result->wakes++;
        (void)node_step(c, id, (struct raft_event){.type = RAFT_WAKE}, NULL);
    }
}

/* 6.2: a leader that no quorum can answer must notice. Links flap: who could answer a while ago may
 * have, so the time counts from when even that is no quorum. */
static void check_lonely_leader(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    uint32_t reachable = UINT32_C(1) << id;
    for (raft_id other = 1; other <= c->node_count; other++) {
        if (is_up(c, other) && !cluster_is_cut(c, id, other) && !cluster_is_cut(c, other, id)) {
            n->reached_us[other] = c->now_us;
        }
        bool may_have_answered = c->now_us - n->reached_us[other] < ALONE_SLACK;
        reachable |= may_have_answered ? UINT32_C(1) << other : 0;
    }
    bool alone = raft_role(n->r) == RAFT_LEADER &&
                 !raft_checker_is_quorum(image_members(c, &n->now), reachable);
    if (!alone) {
        n->leads_alone_us = 0;
    } else if (n->leads_alone_us == 0) {
        n->leads_alone_us = c->now_us;
    } else if (c->lateness == 0 && c->now_us - n->leads_alone_us > ALONE_SLACK) {
        raft_checker_fail(&c->checker, "leads though no quorum can answer", id, n->now.term);
    }
}

static void watch(struct cluster *c)
{
    for (raft_id id = 1; id <= c->node_count; id++) {
        if (!is_up(c, id)) {
            c->nodes[id].leads_alone_us = 0;
            continue;
        }
        for (raft_id other = 1; other <= c->node_count; other++) {
            if (other != id) {
                watch_one(c, id, other);
            }
        }
        check_lonely_leader(c, id);
    }
}

/* ---- Virtual time ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t next_time(const struct cluster *c)
{
    int64_t next_us = c->chaos_us;
    for (size_t i = 0; i < c->packet_count; i++) {
        next_us = earlier(next_us, c->packets[i].at_us);
    }
    for (size_t i = 0; i < c->snapshot_count; i++) {
        next_us = earlier(next_us, c->snapshots[i].at_us);
    }
    for (size_t id = 1; id <= c->node_count; id++) {
        const struct node *n = &c->nodes[id];
        if (n->r != NULL) {
            next_us = earlier(next_us, later(raft_deadline_us(n->r), n->paused_until_us));
        }
        if (n->r != NULL && n->is_syncing) {
            next_us = earlier(next_us, later(n->sync_done_us, n->paused_until_us));
        }
    }
    return later(next_us, c->now_us);
}

static void run_nodes(struct cluster *c)
{
    for (size_t id = 1; id <= c->node_count; id++) {
        struct node *n = &c->nodes[id];
        if (!is_up(c, id)) {
            continue;
        }
        if (n->is_syncing && n->sync_done_us <= c->now_us) {
            node_sync_end(c, id);
        }
        if (raft_deadline_us(n->r) <= c->now_us) {
            (void)node_step(c, id, (struct raft_event){.type = RAFT_TICK}, NULL);
        }
        if (raft_wants_send(n->r)) {
            (void)node_step(c, id, (struct raft_event){.type = RAFT_SEND}, NULL);
        }
        if (!n->is_syncing && (n->is_dirty || n->waiting_count > 0)) {
            node_sync_begin(c, n);
        }
    }
}

static void run_until(struct cluster *c, int64_t end_us)
{
    while (c->now_us < end_us && raft_checker_ok(&c->checker)) {
        c->now_us = next_time(c);
        network_deliver_due(c);
        snapshot_deliver_due(c);
        run_nodes(c);
        if (c->chaos_us <= c->now_us) {
            watch(c);
            chaos(c);
        }
    }
}

/* ---- The whole run ---- */

/* After the healing there must have been progress, and after a quiet while agreement. */
static void check_liveness(struct cluster *c, raft_index committed_before,
                           uint64_t elections_before)
{
    raft_index last = c->checker.committed.last;
    if (last <= committed_before) {
        raft_checker_fail(&c->checker, "no progress after healing", 0, committed_before);
        return;
    }
    if (c->result->elections != elections_before) {
        raft_checker_fail(&c->checker, "elections go on after healing", 0,
                          c->result->elections - elections_before);
    }
    uint32_t config =
        c->checker.committed.entries[last].config_index == 0
            ? 0
            : c->checker.committed.entries[c->checker.committed.entries[last].config_index].config;
    const struct raft_members *m = &c->checker.configs[config];
    if (m->old_voter_count > 0) {
        raft_checker_fail(&c->checker, "a joint configuration is never left", 0, last);
    }
    for (size_t id = 1; id <= c->node_count; id++) {
        const struct node *n = &c->nodes[id];
        if (id != c->dead && raft_members_has(m, id) && n->now.commit != last) {
            raft_checker_fail(&c->checker, "a node lags after healing", id, n->now.commit);
        }
    }
}

static void run_phases(struct cluster *c)
{
    run_until(c, FAULTS_FOR_US);
    if (!raft_checker_ok(&c->checker)) {
        return;
    }
    heal(c);
    raft_index committed_before = c->checker.committed.last;
    run_until(c, FAULTS_FOR_US + SETTLED_AFTER);
    uint64_t elections_before = c->result->elections;
    run_until(c, FAULTS_FOR_US + 2 * SETTLED_AFTER);
    c->propose_rate = 0;
    c->read_rate = 0;
    run_until(c, FAULTS_FOR_US + HEALED_FOR_US);
    if (raft_checker_ok(&c->checker)) {
        check_liveness(c, committed_before, elections_before);
    }
}

static void found_group(struct cluster *c, size_t voter_count)
{
    struct raft_members members = {.voter_count = (uint32_t)voter_count};
    for (size_t i = 0; i < voter_count; i++) {
        members.voters[i] = i + 1;
    }
    (void)raft_checker_keep(&c->checker, &members);
    for (size_t id = 1; id <= c->node_count; id++) {
        c->nodes[id].disk.knows_group = id <= voter_count;
        node_start(c, id);
    }
    if (cluster_happens(c, PER_MILLE / 2)) {
        (void)node_step(c, 1, (struct raft_event){.type = RAFT_CAMPAIGN}, NULL);
    }
}

void raft_cluster_run(uint64_t seed, size_t node_count, size_t voter_count,
                      struct raft_cluster_result *result)
{
    must(node_count >= voter_count && node_count <= CHECKER_NODES_MAX);
    must(voter_count >= 1 && voter_count <= RAFT_VOTERS_MAX);
    struct cluster *c = mem_zalloc(1, sizeof(*c));
    must(c != NULL);
    *result = (struct raft_cluster_result){.trace_hash = UINT64_C(0xcbf29ce484222325)};
    c->result = result;
    c->node_count = node_count;
    c->next_value = 1;
    prng_init(&c->prng, seed);
    draw_faults(c);
    found_group(c, voter_count);
    run_phases(c);
    memcpy(result->violation, c->checker.violation, sizeof(result->violation));
    result->committed = c->checker.committed.last;
    for (size_t id = 1; id <= node_count; id++) {
        node_stop(c, id);
    }
    for (size_t i = 0; i < c->packet_count; i++) {
        packet_fini(&c->packets[i]);
    }
    mem_free(c);
}
