#include <string.h>

#include "base/mem.h"
#include "lib/raft_cluster_inner.h"

void packet_fini(struct packet *p)
{
    mem_free(p->payloads);
    *p = (struct packet){0};
}

struct packet packet_of(const struct raft_message *m, const struct checker_log *log)
{
    struct packet p = {.message = *m};
    if (m->entry_count > 0) {
        memcpy(p.runs, m->runs, m->run_count * sizeof(p.runs[0]));
        p.payloads = mem_zalloc(m->entry_count, sizeof(p.payloads[0]));
        must(p.payloads != NULL);
    }
    for (uint32_t i = 0; i < m->entry_count; i++) {
        const struct checker_entry *entry = &log->entries[m->prev_index + 1 + i];
        p.payloads[i] = (struct payload){.value = entry->value, .config = entry->config};
    }
    return p;
}

static raft_term term_in(const struct packet *p, raft_index index)
{
    raft_term term = p->message.prev_term;
    for (size_t i = 0; i < p->message.run_count && p->runs[i].first <= index; i++) {
        term = p->runs[i].term;
    }
    return term;
}

/* Entries first..last of an append, as a message of its own. */
static struct packet slice(const struct packet *p, raft_index first, raft_index last)
{
    struct packet s = {.message = p->message};
    s.message.prev_index = first - 1;
    s.message.prev_term = term_in(p, first - 1);
    s.message.entry_count = (uint32_t)(last + 1 - first);
    s.message.run_count = 0;
    for (raft_index i = first; i <= last; i++) {
        raft_term term = term_in(p, i);
        if (s.message.run_count == 0 || s.runs[s.message.run_count - 1].term != term) {
            s.runs[s.message.run_count] = (struct raft_run){.first = i, .term = term};
            s.message.run_count++;
        }
    }
    size_t skipped = first - p->message.prev_index - 1;
    s.payloads = mem_dup(p->payloads + skipped, s.message.entry_count * sizeof(s.payloads[0]));
    must(s.payloads != NULL);
    return s;
}

static void network_add(struct cluster *c, const struct packet *p)
{
    if (c->packet_count == PACKETS_MAX) {
        return; /* Lost. */
    }
    struct packet *copy = &c->packets[c->packet_count];
    *copy = *p;
    if (p->payloads != NULL) {
        copy->payloads = mem_dup(p->payloads, p->message.entry_count * sizeof(p->payloads[0]));
        must(copy->payloads != NULL);
    }
    uint64_t delay_us = 500 + prng_below(&c->prng, c->delay_max_us);
    if (cluster_happens(c, c->lateness)) {
        delay_us += prng_below(&c->prng, cluster_happens(c, 50) ? OLD_DELAY_US : LATE_DELAY_US);
    }
    copy->at_us = c->now_us + (int64_t)delay_us;
    c->packet_count++;
}

/* What a message vouches for must be on the disk that it leaves from. */
static void check_promise(struct cluster *c, const struct raft_message *m)
{
    const struct image *disk = &c->nodes[m->from].disk;
    bool asks = m->type == RAFT_VOTE_REQUEST;
    if (asks || (m->type == RAFT_VOTE_REPLY && m->success)) {
        raft_id candidate = asks ? m->from : m->to;
        raft_checker_vote(&c->checker, m->from, m->term, candidate);
        bool is_durable =
            disk->term > m->term || (disk->term == m->term && disk->vote == candidate);
        if (!is_durable) {
            raft_checker_fail(&c->checker, "a vote left before its fsync", m->from, m->term);
        }
    }
    /* In a later term the entry may be gone again; then it was not committed. */
    bool vouches = m->type == RAFT_APPEND_REPLY && m->success && disk->term <= m->term;
    if (vouches && disk->log.last < m->match_index) {
        raft_checker_fail(&c->checker, "an entry acknowledged before its fsync", m->from,
                          m->match_index);
    }
    c->result->refusals += m->type == RAFT_APPEND_REPLY && !m->success ? 1 : 0;
    c->result->timeout_nows += m->type == RAFT_TIMEOUT_NOW ? 1 : 0;
}

static void send_one(struct cluster *c, const struct packet *p)
{
    network_add(c, p);
    if (cluster_happens(c, c->doubling)) {
        network_add(c, p);
    }
}

void network_send(struct cluster *c, const struct packet *p)
{
    const struct raft_message *m = &p->message;
    check_promise(c, m);
    if (cluster_is_cut(c, m->from, m->to) || cluster_happens(c, c->loss)) {
        return;
    }
    if (m->entry_count < 2 || !cluster_happens(c, c->cutting)) {
        send_one(c, p);
        return;
    }
    raft_index middle = m->prev_index + 1 + prng_below(&c->prng, m->entry_count - 1);
    struct packet first = slice(p, m->prev_index + 1, middle);
    struct packet second = slice(p, middle + 1, m->prev_index + m->entry_count);
    send_one(c, &first);
    send_one(c, &second);
    packet_fini(&first);
    packet_fini(&second);
}

/* The configuration entries among the entries, of them the last two. */
static size_t configs_of(const struct cluster *c, const struct packet *p,
                         struct raft_config_entry configs[2])
{
    size_t count = 0;
    for (uint32_t i = 0; i < p->message.entry_count; i++) {
        if (p->payloads[i].config == 0) {
            continue;
        }
        if (count == 2) {
            configs[0] = configs[1];
            count--;
        }
        configs[count] =
            (struct raft_config_entry){.index = p->message.prev_index + 1 + i,
                                       .members = c->checker.configs[p->payloads[i].config]};
        count++;
    }
    return count;
}

static void deliver(struct cluster *c, struct packet *p)
{
    struct raft_config_entry configs[2];
    p->message.runs = p->runs;
    p->message.configs = configs;
    p->message.config_count = configs_of(c, p, configs);
    if (c->nodes[p->message.to].r != NULL) {
        (void)node_step(c, p->message.to,
                        (struct raft_event){.type = RAFT_RECEIVE, .message = &p->message}, p);
    }
    packet_fini(p);
}

void network_deliver_due(struct cluster *c)
{
    for (size_t i = 0; i < c->packet_count;) {
        struct packet *at = &c->packets[i];
        const struct node *to = &c->nodes[at->message.to];
        if (at->at_us <= c->now_us && to->paused_until_us > c->now_us) {
            at->at_us = to->paused_until_us;
        }
        if (at->at_us > c->now_us) {
            i++;
            continue;
        }
        struct packet p = *at;
        c->packet_count--;
        c->packets[i] = c->packets[c->packet_count];
        deliver(c, &p);
    }
}

/* ---- Snapshots, by name only: what they would carry is the committed log itself ---- */

void snapshot_begin(struct cluster *c, raft_id from, raft_id to)
{
    if (c->snapshot_count == SNAPSHOTS_MAX) {
        raft_checker_fail(&c->checker, "too many snapshots on their way", from, to);
        return;
    }
    const struct node *n = &c->nodes[from];
    c->snapshots[c->snapshot_count] = (struct snapshot){
        .from = from,
        .to = to,
        .from_boot = n->boot,
        .index = n->disk.commit > n->now.trim_index ? n->disk.commit : n->now.trim_index,
        .at_us = c->now_us + 1000 + (int64_t)prng_below(&c->prng, 50 * c->delay_max_us),
        .is_lost = cluster_happens(c, c->loss)};
    c->snapshot_count++;
}

static void snapshot_arrives(struct cluster *c, const struct snapshot *s)
{
    const struct node *from = &c->nodes[s->from];
    const struct node *to = &c->nodes[s->to];
    bool source_is_there = from->r != NULL && from->boot == s->from_boot;
    if (!source_is_there) {
        return;
    }
    bool arrives = !s->is_lost && to->r != NULL && to->paused_until_us <= c->now_us &&
                   !cluster_is_cut(c, s->from, s->to);
    bool ok = arrives && node_install(c, s->to, &from->now.log, s->index);
    (void)node_step(
        c, s->from,
        (struct raft_event){.type = RAFT_SNAPSHOT_DONE, .peer = s->to, .index = ok ? s->index : 0},
        NULL);
}

void snapshot_deliver_due(struct cluster *c)
{
    for (size_t i = 0; i < c->snapshot_count;) {
        struct snapshot s = c->snapshots[i];
        if (s.at_us > c->now_us) {
            i++;
            continue;
        }
        c->snapshot_count--;
        c->snapshots[i] = c->snapshots[c->snapshot_count];
        snapshot_arrives(c, &s);
    }
}
