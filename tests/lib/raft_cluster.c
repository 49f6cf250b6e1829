#include "lib/raft_cluster.h"

#include <string.h>

#include "base/mem.h"
#include "base/prng.h"
#include "lib/raft_checker.h"
#include "raft/raft.h"

#define PACKETS_MAX     512
#define PROPOSALS_ROOM  512 /* Entries kept free for no-ops and the last proposals. */
#define CHAOS_EVERY_US  5000
#define FAULTS_FOR_US   6000000
#define HEALED_FOR_US   4000000
#define LATE_DELAY_US   900000
#define MATCH_EVERY     64 /* Steps between comparisons of whole logs. */
#define ELECTION_MIN_US 150000
#define ELECTION_MAX_US 300000
#define HEARTBEAT_US    40000
#define PER_MILLE       1000

struct packet {
    struct raft_message message;
    struct raft_run runs[RAFT_APPEND_RUNS_MAX];
    uint64_t *values; /* Owned: payloads of the entries. */
    int64_t at_us;    /* On the network: arrives then. */
    uint64_t number;  /* Waiting for an fsync: of this update. */
};

/* What is on disk, or will be when the fsync under way returns. */
struct image {
    struct checker_log log;
    raft_term term;
    raft_id vote;
    raft_index commit, trim_index;
    uint64_t number;
};

struct node {
    struct raft *r; /* NULL: crashed. */
    struct image now, syncing, disk;
    bool is_dirty, is_syncing, is_cut_off;
    uint64_t truncate_number;
    int64_t sync_done_us;
    struct packet waiting[PACKETS_MAX]; /* send_after_sync. */
    size_t waiting_count;
};

struct cluster {
    struct prng prng;
    size_t node_count;
    struct node nodes[CHECKER_NODES_MAX + 1]; /* By id, from 1. */
    struct packet packets[PACKETS_MAX];
    size_t packet_count;
    int64_t now_us, chaos_us;
    uint64_t next_value;
    /* Drawn for this seed, in thousandths, or microseconds. */
    uint64_t loss, doubling, lateness, crash_rate, cut_rate, propose_rate, trim_rate;
    uint64_t sync_max_us, delay_max_us;
    struct raft_checker checker;
    struct raft_cluster_result *result;
};

static bool happens(struct cluster *c, uint64_t per_mille)
{
    return prng_below(&c->prng, PER_MILLE) < per_mille;
}

static void trace(struct cluster *c, uint64_t word)
{
    c->result->trace_hash = (c->result->trace_hash ^ word) * UINT64_C(0x100000001b3);
}

/* ---- Network ---- */

static void packet_fini(struct packet *p)
{
    mem_free(p->values);
    *p = (struct packet){0};
}

/* The driver's part of a message: runs are copied, payloads go with it. */
static struct packet packet_of(const struct raft_message *m, const struct checker_log *log)
{
    struct packet p = {.message = *m};
    if (m->entry_count > 0) {
        memcpy(p.runs, m->runs, m->run_count * sizeof(p.runs[0]));
        p.values = mem_zalloc(m->entry_count, sizeof(p.values[0]));
        must(p.values != NULL);
    }
    for (uint32_t i = 0; i < m->entry_count; i++) {
        p.values[i] = log->entries[m->prev_index + 1 + i].value;
    }
    return p;
}

static void network_add(struct cluster *c, const struct packet *p)
{
    if (c->packet_count == PACKETS_MAX) {
        return; /* Lost. */
    }
    struct packet *copy = &c->packets[c->packet_count];
    *copy = *p;
    if (p->values != NULL) {
        copy->values = mem_dup(p->values, p->message.entry_count * sizeof(p->values[0]));
        must(copy->values != NULL);
    }
    uint64_t delay_us = 500 + prng_below(&c->prng, c->delay_max_us);
    if (happens(c, c->lateness)) {
        delay_us += prng_below(&c->prng, LATE_DELAY_US);
    }
    copy->at_us = c->now_us + (int64_t)delay_us;
    c->packet_count++;
}

static void network_send(struct cluster *c, const struct packet *p)
{
    const struct raft_message *m = &p->message;
    if (m->type == RAFT_VOTE_REQUEST) {
        raft_checker_vote(&c->checker, m->from, m->term, m->from);
    } else if (m->type == RAFT_VOTE_REPLY && m->success) {
        raft_checker_vote(&c->checker, m->from, m->term, m->to);
    } else if (m->type == RAFT_APPEND_REPLY && !m->success) {
        c->result->refusals++;
    }
    bool is_cut = c->nodes[m->from].is_cut_off || c->nodes[m->to].is_cut_off;
    if (is_cut || happens(c, c->loss)) {
        return;
    }
    network_add(c, p);
    if (happens(c, c->doubling)) {
        network_add(c, p);
    }
}

/* ---- The driver of one node ---- */

static size_t holders_of(const struct cluster *c, raft_index index, struct checker_entry entry)
{
    size_t holders = 0;
    for (size_t id = 1; id <= c->node_count; id++) {
        const struct checker_log *log = &c->nodes[id].disk.log;
        bool has = index <= log->last && log->entries[index].term == entry.term &&
                   log->entries[index].value == entry.value;
        holders += has ? 1 : 0;
    }
    return holders;
}

static raft_term message_term_at(const struct raft_message *m, raft_index index)
{
    raft_term term = 0;
    for (size_t i = 0; i < m->run_count && m->runs[i].first <= index; i++) {
        term = m->runs[i].term;
    }
    return term;
}

static void write_log(struct cluster *c, raft_id id, const struct raft_update *u,
                      const struct packet *received)
{
    struct node *n = &c->nodes[id];
    if (u->truncate_from != 0) {
        if (raft_role(n->r) == RAFT_LEADER || u->truncate_from <= n->now.commit) {
            raft_checker_fail(&c->checker, "a forbidden truncation", id, u->truncate_from);
        }
        n->now.log.last = u->truncate_from - 1;
        n->truncate_number = u->number;
        c->result->truncations++;
    }
    for (raft_index i = u->append_first; i != 0 && i <= u->append_last; i++) {
        struct checker_entry *entry = &n->now.log.entries[i];
        must(i == n->now.log.last + 1 && i < CHECKER_LOG_MAX);
        n->now.log.last = i;
        if (received != NULL && received->message.type == RAFT_APPEND_REQUEST) {
            const struct raft_message *m = &received->message;
            *entry = (struct checker_entry){.term = message_term_at(m, i),
                                            .value = received->values[i - m->prev_index - 1]};
        } else {
            *entry = (struct checker_entry){.term = u->append_term, .value = c->next_value};
            c->next_value++;
        }
    }
}

static void write_commit(struct cluster *c, raft_id id, raft_index commit)
{
    struct node *n = &c->nodes[id];
    for (raft_index i = n->now.commit + 1; i <= commit; i++) {
        struct checker_entry entry = n->now.log.entries[i];
        raft_checker_commit(&c->checker, id, i, entry, holders_of(c, i, entry), c->node_count);
    }
    if (commit < n->now.commit || commit > n->now.log.last) {
        raft_checker_fail(&c->checker, "commit went back, or past the log", id, commit);
    }
    n->now.commit = commit;
}

static void take_messages(struct cluster *c, raft_id id, const struct raft_update *u)
{
    struct node *n = &c->nodes[id];
    for (size_t i = 0; i < u->send_now_count; i++) {
        if (u->send_now[i].type == RAFT_VOTE_REPLY || u->send_now[i].type == RAFT_VOTE_REQUEST ||
            u->send_now[i].type == RAFT_APPEND_REPLY) {
            raft_checker_fail(&c->checker, "a promise left before its fsync", id, u->number);
        }
        struct packet p = packet_of(&u->send_now[i], &n->now.log);
        network_send(c, &p);
        packet_fini(&p);
    }
    for (size_t i = 0; i < u->send_after_sync_count; i++) {
        must(n->waiting_count < PACKETS_MAX);
        struct packet *p = &n->waiting[n->waiting_count];
        *p = packet_of(&u->send_after_sync[i], &n->now.log);
        p->number = u->number;
        n->waiting_count++;
    }
}

static void check_against_mirror(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_check(n->r);
    raft_index last = n->now.log.last;
    raft_index spot = prng_below(&c->prng, last + 1);
    bool term_is_right =
        spot <= n->now.trim_index || raft_term_at(n->r, spot) == n->now.log.entries[spot].term;
    if (raft_last_index(n->r) != last || !term_is_right) {
        raft_checker_fail(&c->checker, "the core's runs are not its log", id, spot);
    }
    if (c->result->steps % MATCH_EVERY == 0) {
        for (size_t other = 1; other <= c->node_count; other++) {
            raft_checker_match(&c->checker, &n->now.log, &c->nodes[other].now.log);
        }
    }
}

static void trace_step(struct cluster *c, raft_id id, const struct raft_event *event,
                       const struct raft_update *u)
{
    uint64_t words[] = {id,
                        (uint64_t)event->type,
                        (uint64_t)c->now_us,
                        u->number,
                        u->truncate_from,
                        u->append_first,
                        u->append_last,
                        u->term,
                        u->vote,
                        u->commit,
                        u->send_now_count,
                        u->send_after_sync_count,
                        (uint64_t)raft_deadline_us(c->nodes[id].r)};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        trace(c, words[i]);
    }
    c->result->steps++;
}

static void node_step(struct cluster *c, raft_id id, struct raft_event event,
                      const struct packet *received)
{
    struct node *n = &c->nodes[id];
    struct raft_update u;
    event.now_us = c->now_us;
    enum ferry_err err = raft_step(n->r, &event, &u);
    bool may_be_refused =
        event.type == RAFT_PROPOSE && (err == FERRY_ERR_NOT_LEADER || err == FERRY_ERR_THROTTLED);
    if (err != FERRY_OK) {
        if (!may_be_refused) {
            raft_checker_fail(&c->checker, "a step failed with this error", id, (uint64_t)err);
        }
        return;
    }
    trace_step(c, id, &event, &u);
    if (u.term < n->now.term || u.term >= CHECKER_TERMS_MAX) {
        raft_checker_fail(&c->checker, "a term went back, or too far", id, u.term);
        return;
    }
    n->now.term = u.term;
    n->now.vote = u.vote;
    n->now.number = u.number;
    n->is_dirty = n->is_dirty || u.hard_state_changed || u.append_first != 0;
    write_log(c, id, &u, received);
    if (u.became_leader) {
        c->result->elections++;
        raft_checker_leader(&c->checker, id, u.term, &n->now.log);
    }
    write_commit(c, id, u.commit);
    take_messages(c, id, &u);
    check_against_mirror(c, id);
}

/* The core goes on while this is under way; that is what update numbers are for. */
static void sync_begin(struct cluster *c, struct node *n)
{
    n->syncing = n->now;
    n->is_syncing = true;
    n->is_dirty = false;
    n->sync_done_us = c->now_us + 100 + (int64_t)prng_below(&c->prng, c->sync_max_us);
}

static void sync_end(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    n->is_syncing = false;
    n->disk = n->syncing;
    raft_index last = n->disk.log.last;
    c->result->late_stored += n->disk.number < n->truncate_number ? 1 : 0;
    node_step(c, id,
              (struct raft_event){.type = RAFT_STORED,
                                  .number = n->disk.number,
                                  .index = last,
                                  .term = last > 0 ? n->disk.log.entries[last].term : 0},
              NULL);
    size_t kept = 0;
    for (size_t i = 0; i < n->waiting_count; i++) {
        if (n->waiting[i].number <= n->disk.number) {
            network_send(c, &n->waiting[i]);
            packet_fini(&n->waiting[i]);
        } else {
            n->waiting[kept] = n->waiting[i];
            kept++;
        }
    }
    n->waiting_count = kept;
}

/* ---- Crash, restart ---- */

static void node_start(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    struct raft_config config = {.self = id,
                                 .seed = prng_next(&c->prng),
                                 .election_min_us = ELECTION_MIN_US,
                                 .election_max_us = ELECTION_MAX_US,
                                 .heartbeat_us = HEARTBEAT_US};
    struct raft_members members = {.voter_count = (uint32_t)c->node_count};
    for (size_t i = 0; i < c->node_count; i++) {
        members.voters[i] = i + 1;
    }
    struct raft_run *runs = mem_zalloc(CHECKER_LOG_MAX, sizeof(runs[0]));
    must(runs != NULL);
    const struct image *disk = &n->disk;
    size_t run_count = 0;
    for (raft_index i = disk->trim_index + 1; i <= disk->log.last; i++) {
        raft_term term = disk->log.entries[i].term;
        if (run_count == 0 || runs[run_count - 1].term != term) {
            runs[run_count] = (struct raft_run){.first = i, .term = term};
            run_count++;
        }
    }
    struct raft_disk found = {.term = disk->term,
                              .vote = disk->vote,
                              .commit = disk->commit,
                              .trim_index = disk->trim_index,
                              .trim_term = disk->log.entries[disk->trim_index].term,
                              .last_index = disk->log.last,
                              .runs = runs,
                              .run_count = run_count,
                              .config = {.members = members},
                              .previous_config = {.members = members}};
    enum ferry_err err = raft_new(&config, &found, c->now_us, &n->r);
    must(err == FERRY_OK);
    mem_free(runs);
    n->now = n->disk;
    n->now.number = 0;
}

static void node_crash(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_free(&n->r);
    if (n->is_syncing && happens(c, PER_MILLE / 2)) {
        n->disk = n->syncing; /* It reached the disk; nobody was told. */
    }
    for (size_t i = 0; i < n->waiting_count; i++) {
        packet_fini(&n->waiting[i]);
    }
    n->waiting_count = 0;
    n->is_syncing = false;
    n->is_dirty = false;
    n->truncate_number = 0;
    n->now = n->disk;
    c->result->crashes++;
}

/* ---- Faults and load ---- */

static void draw_faults(struct cluster *c)
{
    c->loss = prng_below(&c->prng, 200);
    c->doubling = prng_below(&c->prng, 100);
    c->lateness = prng_below(&c->prng, 100);
    c->crash_rate = prng_below(&c->prng, 20);
    c->cut_rate = prng_below(&c->prng, 20);
    c->propose_rate = prng_below(&c->prng, 600);
    c->trim_rate = prng_below(&c->prng, 30);
    c->sync_max_us = 1 + prng_below(&c->prng, happens(c, 300) ? 200000 : 5000);
    c->delay_max_us = 1 + prng_below(&c->prng, 20000);
}

static void heal(struct cluster *c)
{
    c->loss = c->doubling = c->lateness = c->crash_rate = c->cut_rate = c->trim_rate = 0;
    c->propose_rate = 100;
    c->sync_max_us = 2000;
    c->delay_max_us = 2000;
    for (size_t id = 1; id <= c->node_count; id++) {
        c->nodes[id].is_cut_off = false;
        if (c->nodes[id].r == NULL) {
            node_start(c, id);
        }
    }
}

/* No peer may need what is trimmed: there are no snapshots to help it. */
static void trim_one(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_index index = n->disk.commit;
    for (size_t other = 1; other <= c->node_count; other++) {
        raft_index has = c->nodes[other].disk.commit;
        index = has < index ? has : index;
    }
    if (index > n->now.trim_index) {
        n->now.trim_index = index;
        n->is_dirty = true;
        c->result->trims++;
        node_step(c, id, (struct raft_event){.type = RAFT_TRIM, .index = index}, NULL);
    }
}

static void chaos(struct cluster *c)
{
    c->chaos_us = c->now_us + CHAOS_EVERY_US;
    raft_id id = 1 + prng_below(&c->prng, c->node_count);
    struct node *n = &c->nodes[id];
    if (happens(c, c->cut_rate)) {
        n->is_cut_off = !n->is_cut_off;
    }
    if (n->r == NULL) {
        if (happens(c, 100)) {
            node_start(c, id);
        }
        return;
    }
    if (happens(c, c->crash_rate)) {
        node_crash(c, id);
        return;
    }
    bool has_room = n->now.log.last + PROPOSALS_ROOM < CHECKER_LOG_MAX;
    if (has_room && happens(c, c->propose_rate)) {
        uint32_t count = 1 + (uint32_t)prng_below(&c->prng, 4);
        node_step(c, id, (struct raft_event){.type = RAFT_PROPOSE, .count = count}, NULL);
    }
    if (happens(c, c->trim_rate)) {
        trim_one(c, id);
    }
}

/* ---- Virtual time ---- */

static int64_t next_time(const struct cluster *c)
{
    int64_t next_us = c->chaos_us;
    for (size_t i = 0; i < c->packet_count; i++) {
        next_us = c->packets[i].at_us < next_us ? c->packets[i].at_us : next_us;
    }
    for (size_t id = 1; id <= c->node_count; id++) {
        const struct node *n = &c->nodes[id];
        if (n->r != NULL && raft_deadline_us(n->r) < next_us) {
            next_us = raft_deadline_us(n->r);
        }
        if (n->r != NULL && n->is_syncing && n->sync_done_us < next_us) {
            next_us = n->sync_done_us;
        }
    }
    return next_us > c->now_us ? next_us : c->now_us;
}

static void deliver_due(struct cluster *c)
{
    for (size_t i = 0; i < c->packet_count;) {
        if (c->packets[i].at_us > c->now_us) {
            i++;
            continue;
        }
        struct packet p = c->packets[i];
        c->packet_count--;
        c->packets[i] = c->packets[c->packet_count];
        p.message.runs = p.runs;
        if (c->nodes[p.message.to].r != NULL) {
            node_step(c, p.message.to,
                      (struct raft_event){.type = RAFT_RECEIVE, .message = &p.message}, &p);
        }
        packet_fini(&p);
    }
}

static void run_nodes(struct cluster *c)
{
    for (size_t id = 1; id <= c->node_count; id++) {
        struct node *n = &c->nodes[id];
        if (n->r == NULL) {
            continue;
        }
        if (n->is_syncing && n->sync_done_us <= c->now_us) {
            sync_end(c, id);
        }
        if (raft_deadline_us(n->r) <= c->now_us) {
            node_step(c, id, (struct raft_event){.type = RAFT_TICK}, NULL);
        }
        if (raft_wants_send(n->r)) {
            node_step(c, id, (struct raft_event){.type = RAFT_SEND}, NULL);
        }
        if (!n->is_syncing && (n->is_dirty || n->waiting_count > 0)) {
            sync_begin(c, n);
        }
    }
}

static void run_until(struct cluster *c, int64_t end_us)
{
    while (c->now_us < end_us && raft_checker_ok(&c->checker)) {
        c->now_us = next_time(c);
        deliver_due(c);
        run_nodes(c);
        if (c->chaos_us <= c->now_us) {
            chaos(c);
        }
    }
}

/* After the healing there must have been progress, and after a quiet while agreement. */
static void check_liveness(struct cluster *c, raft_index committed_before)
{
    if (c->checker.committed.last <= committed_before) {
        raft_checker_fail(&c->checker, "no progress after healing", 0, committed_before);
    }
    for (size_t id = 1; id <= c->node_count; id++) {
        if (c->nodes[id].now.commit != c->checker.committed.last) {
            raft_checker_fail(&c->checker, "a node lags after healing", id,
                              c->nodes[id].now.commit);
        }
    }
}

void raft_cluster_run(uint64_t seed, size_t node_count, struct raft_cluster_result *result)
{
    must(node_count >= 1 && node_count <= CHECKER_NODES_MAX);
    struct cluster *c = mem_zalloc(1, sizeof(*c));
    must(c != NULL);
    *result = (struct raft_cluster_result){.trace_hash = UINT64_C(0xcbf29ce484222325)};
    c->result = result;
    c->node_count = node_count;
    c->next_value = 1;
    prng_init(&c->prng, seed);
    draw_faults(c);
    for (size_t id = 1; id <= node_count; id++) {
        node_start(c, id);
    }
    run_until(c, FAULTS_FOR_US);
    heal(c);
    raft_index committed_before = c->checker.committed.last;
    run_until(c, FAULTS_FOR_US + HEALED_FOR_US / 2);
    c->propose_rate = 0;
    run_until(c, FAULTS_FOR_US + HEALED_FOR_US);
    check_liveness(c, committed_before);
    memcpy(result->violation, c->checker.violation, sizeof(result->violation));
    result->committed = c->checker.committed.last;
    for (size_t id = 1; id <= node_count; id++) {
        if (c->nodes[id].r != NULL) {
            node_crash(c, id);
        }
    }
    for (size_t i = 0; i < c->packet_count; i++) {
        packet_fini(&c->packets[i]);
    }
    mem_free(c);
}
