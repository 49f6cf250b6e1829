/* raft_checker: what a Raft group must never do, told from outside.
 *
 * It knows nothing of the core: only who led, who voted for whom, which log each node has and what
 * each node called committed. The first violation is kept as a sentence; the rest is not looked at.
 */
#ifndef FERRY_TEST_RAFT_CHECKER_H
#define FERRY_TEST_RAFT_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECKER_NODES_MAX 9
#define CHECKER_TERMS_MAX 4096
#define CHECKER_LOG_MAX   4096

struct checker_entry {
    uint64_t term;
    uint64_t value; /* Unique to each proposal. */
};

/* Entries 1..last; place 0 is not used. */
struct checker_log {
    struct checker_entry entries[CHECKER_LOG_MAX];
    uint64_t last;
};

struct raft_checker {
    uint64_t leader_of_term[CHECKER_TERMS_MAX];
    uint64_t vote[CHECKER_NODES_MAX + 1][CHECKER_TERMS_MAX];
    struct checker_log committed;
    char violation[200]; /* Empty: none so far. */
};

bool raft_checker_ok(const struct raft_checker *c);
void raft_checker_fail(struct raft_checker *c, const char *what, uint64_t node, uint64_t number);

/* Election safety (3.2) and leader completeness (3.6.3): at most one leader a term, once, and it
 * has all that is committed. */
void raft_checker_leader(struct raft_checker *c, uint64_t node, uint64_t term,
                         const struct checker_log *log);
/* One vote a term (3.4), over crashes. Told when a vote leaves the node. */
void raft_checker_vote(struct raft_checker *c, uint64_t node, uint64_t term, uint64_t candidate);
/* State machine safety (3.2), and: nothing is committed that `holders` < majority have on disk. */
void raft_checker_commit(struct raft_checker *c, uint64_t node, uint64_t index,
                         struct checker_entry entry, size_t holders, size_t node_count);
/* Log matching (3.2): where two logs agree in a term, they agree in all before. */
void raft_checker_match(struct raft_checker *c, const struct checker_log *a,
                        const struct checker_log *b);

#endif
