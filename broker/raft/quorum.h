/* quorum: the arithmetic of majorities. Pure functions over small arrays.
 *
 * Any two majorities of one voter set share a voter: every safety argument of the core rests on
 * that, so it lives alone in a file small enough to check by hand. */
#ifndef FERRY_RAFT_QUORUM_H
#define FERRY_RAFT_QUORUM_H

#include "raft/raft.h"

/* The smallest majority of `voter_count` > 0 voters. */
size_t quorum_size(size_t voter_count);
/* The greatest index that a majority has reached, from what each voter has. The order of `matched`
 * does not matter; it is not changed. 1..RAFT_VOTERS_MAX of them. */
raft_index quorum_index(const raft_index *matched, size_t voter_count);

#endif
