/* raft_checker: what a Raft group must never do, told from outside.
 *
 * It knows nothing of the core but the type in which configurations are written: only who led, who
 * voted for whom, which log each node has, who has what on disk, what each node called committed,
 * and what reads were answered. The first violation is kept as a sentence; the rest is not looked
 * at. */
#ifndef FERRY_TEST_RAFT_CHECKER_H
#define FERRY_TEST_RAFT_CHECKER_H

#include "raft/raft.h"

#define CHECKER_NODES_MAX   9
#define CHECKER_TERMS_MAX   4096
#define CHECKER_LOG_MAX     4096
#define CHECKER_CONFIGS_MAX 512

struct checker_entry {
    uint64_t term;
    uint64_t value;        /* Unique to each proposal. */
    uint32_t config;       /* A configuration entry: its place in the checker's table; else 0. */
    uint32_t config_index; /* The last configuration entry at or before this one; 0: none. */
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
    uint64_t committed_in[CHECKER_LOG_MAX]; /* The term of the leader that committed it first. */
    struct raft_members configs[CHECKER_CONFIGS_MAX]; /* 0: from before the log. */
    uint32_t config_count;
    char violation[200]; /* Empty: none so far. */
};

/* What a node was when it took a step. */
struct checker_view {
    uint64_t node, term;
    bool is_leader;
    const struct raft_members *members;  /* In force, by its log. */
    const struct raft_members *previous; /* While that is not committed: the one before; or NULL. */
    const struct checker_log *log;
    uint64_t commit;
};

bool raft_checker_ok(const struct raft_checker *c);
void raft_checker_fail(struct raft_checker *c, const char *what, uint64_t node, uint64_t number);

/* Appends to a log, which says then which configuration is in force. */
void raft_checker_append(struct raft_checker *c, struct checker_log *log, uint64_t term,
                         uint64_t value, uint32_t config);
/* Keeps a configuration; its place. */
uint32_t raft_checker_keep(struct raft_checker *c, const struct raft_members *m);
/* By the nodes of a set (bit `id`), whether they are a quorum (4.3: of both, when joint). */
bool raft_checker_is_quorum(const struct raft_members *m, uint32_t nodes);

/* Election safety (3.2) and leader completeness (3.6.3): at most one leader a term, once, a voter
 * (4.2.2: or one until what is not committed yet), and it has all that was committed in earlier
 * terms. (A node that was paused can win late, in a term that is over.) */
void raft_checker_leader(struct raft_checker *c, const struct checker_view *v);
/* One vote a term (3.4), over crashes. Told when a vote leaves the node. */
void raft_checker_vote(struct raft_checker *c, uint64_t node, uint64_t term, uint64_t candidate);
/* State machine safety (3.2). What nobody committed before, a leader commits, up to an entry of its
 * own term (3.6.2), which a quorum of its configuration has on disk: `holders`. */
void raft_checker_commit(struct raft_checker *c, const struct checker_view *v, uint64_t commit,
                         uint32_t (*holders)(void *context, uint64_t index), void *context);
/* A leader proposes a configuration (4.1, 4.3): an entry of its own term is committed, no other
 * configuration is on its way, and the quorums of this one and the last intersect. */
void raft_checker_propose_config(struct raft_checker *c, const struct checker_view *v,
                                 const struct raft_members *next);
/* Log matching (3.2): where two logs agree in a term, they agree in all before. */
void raft_checker_match(struct raft_checker *c, const struct checker_log *a,
                        const struct checker_log *b);

#endif
