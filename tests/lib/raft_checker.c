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

static bool entries_equal(struct checker_entry a, struct checker_entry b)
{
    return a.term == b.term && a.value == b.value;
}

void raft_checker_leader(struct raft_checker *c, uint64_t node, uint64_t term,
                         const struct checker_log *log)
{
    if (c->leader_of_term[term] != 0) {
        raft_checker_fail(c, "a second leader in a term", node, term);
    }
    c->leader_of_term[term] = node;
    for (uint64_t i = 1; i <= c->committed.last; i++) {
        if (i > log->last || !entries_equal(log->entries[i], c->committed.entries[i])) {
            raft_checker_fail(c, "a leader lacks a committed entry", node, i);
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

void raft_checker_commit(struct raft_checker *c, uint64_t node, uint64_t index,
                         struct checker_entry entry, size_t holders, size_t node_count)
{
    if (index <= c->committed.last) {
        if (!entries_equal(c->committed.entries[index], entry)) {
            raft_checker_fail(c, "two entries committed at an index", node, index);
        }
        return;
    }
    if (index != c->committed.last + 1) {
        raft_checker_fail(c, "a gap in what is committed", node, index);
        return;
    }
    if (holders * 2 <= node_count) {
        raft_checker_fail(c, "committed without a majority on disk", node, index);
    }
    c->committed.entries[index] = entry;
    c->committed.last = index;
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
