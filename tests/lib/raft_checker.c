#include "lib/raft_checker.h"

#include <inttypes.h>
#include <stdio.h>

bool raft_checker_ok(const struct raft_checker *c)
{
    return c->violation[0] == 0;
}

void raft_checker_fail(struct raft_checker *c, const char *what, uint64_t node, uint64_t number)
{
    if (raft_checker_ok(c)) {
        (void)snprintf(c->violation, sizeof(c->violation), "%s (node %" PRIu64 ", at %" PRIu64 ")",
                       what, node, number);
    }
}

void raft_checker_append(struct raft_checker *c, struct checker_log *log, uint64_t term,
                         uint64_t value, uint32_t config)
{
    uint64_t index = log->last + 1;
    if (index >= CHECKER_LOG_MAX) {
        raft_checker_fail(c, "the test's log is full", 0, index);
        return;
    }
    uint32_t config_index = log->last > 0 ? log->entries[log->last].config_index : 0;
    log->entries[index] =
        (struct checker_entry){.term = term,
                               .value = value,
                               .config = config,
                               .config_index = config != 0 ? (uint32_t)index : config_index};
    log->last = index;
}

uint32_t raft_checker_keep(struct raft_checker *c, const struct raft_members *m)
{
    if (c->config_count == CHECKER_CONFIGS_MAX) {
        raft_checker_fail(c, "the test's table of configurations is full", 0, c->config_count);
        return 0;
    }
    c->configs[c->config_count] = *m;
    c->config_count++;
    return c->config_count - 1;
}

static bool is_majority(const raft_id *voters, uint32_t count, uint32_t nodes)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        found += (nodes >> voters[i]) & 1;
    }
    return found * 2 > count;
}

bool raft_checker_is_quorum(const struct raft_members *m, uint32_t nodes)
{
    return is_majority(m->voters, m->voter_count, nodes) &&
           (m->old_voter_count == 0 || is_majority(m->old_voters, m->old_voter_count, nodes));
}

static bool entries_equal(struct checker_entry a, struct checker_entry b)
{
    return a.term == b.term && a.value == b.value;
}

void raft_checker_leader(struct raft_checker *c, const struct checker_view *v)
{
    if (c->leader_of_term[v->term] != 0) {
        raft_checker_fail(c, "a second leader in a term", v->node, v->term);
    }
    c->leader_of_term[v->term] = v->node;
    bool was_voter = v->previous != NULL && raft_members_has_voter(v->previous, v->node);
    if (!raft_members_has_voter(v->members, v->node) && !was_voter) {
        raft_checker_fail(c, "a leader that is no voter", v->node, v->term);
    }
    for (uint64_t i = 1; i <= c->committed.last; i++) {
        bool is_due = c->committed_in[i] < v->term;
        if (is_due &&
            (i > v->log->last || !entries_equal(v->log->entries[i], c->committed.entries[i]))) {
            raft_checker_fail(c, "a leader lacks a committed entry", v->node, i);
            return;
        }
    }
}

void raft_checker_vote(struct raft_checker *c, uint64_t node, uint64_t term, uint64_t candidate)
{
    uint64_t *vote = &c->vote[node][term];
    if (*vote != 0 && *vote != candidate) {
        raft_checker_fail(c, "two votes in a term", node, term);
    }
    *vote = candidate;
}

static void check_new_commit(struct raft_checker *c, const struct checker_view *v, uint64_t index,
                             uint32_t holders)
{
    if (!v->is_leader) {
        raft_checker_fail(c, "committed before any leader did", v->node, index);
    }
    if (!raft_checker_is_quorum(v->members, holders)) {
        raft_checker_fail(c, "committed without a quorum on disk", v->node, index);
    }
}

void raft_checker_commit(struct raft_checker *c, const struct checker_view *v, uint64_t commit,
                         uint32_t (*holders)(void *context, uint64_t index), void *context)
{
    if (commit < v->commit || commit > v->log->last) {
        raft_checker_fail(c, "commit went back, or past the log", v->node, commit);
        return;
    }
    for (uint64_t i = v->commit + 1; i <= commit; i++) {
        struct checker_entry entry = v->log->entries[i];
        if (i > c->committed.last) {
            check_new_commit(c, v, i, holders(context, i));
            c->committed.entries[i] = entry;
            c->committed_in[i] = v->term;
            c->committed.last = i;
        } else if (!entries_equal(c->committed.entries[i], entry)) {
            raft_checker_fail(c, "two entries committed at an index", v->node, i);
        }
    }
    if (v->is_leader && commit > v->commit && v->log->entries[commit].term != v->term) {
        raft_checker_fail(c, "an entry of an earlier term committed by counting", v->node, commit);
    }
}

static bool same_voters(const raft_id *a, uint32_t a_count, const raft_id *b, uint32_t b_count)
{
    bool same = a_count == b_count;
    for (uint32_t i = 0; same && i < a_count; i++) {
        same = a[i] == b[i];
    }
    return same;
}

/* Any quorum of the one meets any quorum of the other. */
static bool quorums_meet(const struct raft_members *now, const struct raft_members *next)
{
    if (now->old_voter_count > 0) {
        return next->old_voter_count == 0 &&
               same_voters(now->voters, now->voter_count, next->voters, next->voter_count);
    }
    const raft_id *goes_on = next->old_voter_count > 0 ? next->old_voters : next->voters;
    uint32_t count = next->old_voter_count > 0 ? next->old_voter_count : next->voter_count;
    return same_voters(now->voters, now->voter_count, goes_on, count);
}

void raft_checker_propose_config(struct raft_checker *c, const struct checker_view *v,
                                 const struct raft_members *next)
{
    uint64_t last_config = v->log->last > 0 ? v->log->entries[v->log->last].config_index : 0;
    if (!v->is_leader || v->commit == 0 || v->log->entries[v->commit].term != v->term) {
        raft_checker_fail(c, "a configuration before an entry of the own term is committed",
                          v->node, v->log->last + 1);
    }
    if (last_config > v->commit) {
        raft_checker_fail(c, "a second configuration on its way", v->node, v->log->last + 1);
    }
    if (!quorums_meet(v->members, next)) {
        raft_checker_fail(c, "quorums that do not meet", v->node, v->log->last + 1);
    }
}

void raft_checker_match(struct raft_checker *c, const struct checker_log *a,
                        const struct checker_log *b)
{
    uint64_t i = a->last < b->last ? a->last : b->last;
    while (i > 0 && a->entries[i].term != b->entries[i].term) {
        i--;
    }
    for (; i > 0; i--) {
        if (!entries_equal(a->entries[i], b->entries[i])) {
            raft_checker_fail(c, "logs that agree in a term differ before", 0, i);
            return;
        }
    }
}
