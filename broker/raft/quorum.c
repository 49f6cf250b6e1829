#include "raft/quorum.h"

size_t quorum_size(size_t voter_count)
{
    must(voter_count > 0);
    return voter_count / 2 + 1;
}

raft_index quorum_index(const raft_index *matched, size_t voter_count)
{
    must(voter_count > 0 && voter_count <= RAFT_VOTERS_MAX);
    raft_index falling[RAFT_VOTERS_MAX];
    for (size_t i = 0; i < voter_count; i++) {
        size_t place = i;
        for (; place > 0 && falling[place - 1] < matched[i]; place--) {
            falling[place] = falling[place - 1];
        }
        falling[place] = matched[i];
    }
    return falling[quorum_size(voter_count) - 1];
}
