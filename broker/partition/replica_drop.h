/* replica_drop: deletes what a replica has on disk, a little with each transaction.
 *
 * A group may come back to a node that it has left: a later move, or a start with a copy of the
 * metadata from before the group left. The member is the same then, but its log is empty, and by
 * its old one entries were committed, those that changed the members among them. Voting without it,
 * it could make a leader of one who lacks them. So two things stay when all else is deleted, but
 * for groups whose topic is gone, which never come back:
 *  - the group's row, with term and vote: a member votes once a term;
 *  - the floor, where the log ended: raft.h, invariant 13.
 * Both are written before anything is deleted, the row marked as installing, so that no half of the
 * data is ever taken for a replica. */
#ifndef FERRY_PARTITION_REPLICA_DROP_H
#define FERRY_PARTITION_REPLICA_DROP_H

#include "store/store.h"

/* Where the log of a replica ended that was deleted. All 0: there was none. */
struct replica_floor {
    uint64_t index, term;
};

struct replica_drop {
    uint64_t group;
    bool is_over; /* The group is gone everywhere: nothing stays. */
    /* The rest is its own; all 0 at first. */
    bool begun, marked, has_row;
    struct store_group row;
    struct replica_floor floor;
    uint64_t first, last; /* Entries left; 0: none. */
};

/* Before each transaction; opens a view of its own. */
MUST_CHECK enum ferry_err replica_drop_prepare(struct replica_drop *d, struct store *store);
/* Within the transaction. *done: with its commit all is deleted. */
MUST_CHECK enum ferry_err replica_drop_write(struct replica_drop *d, struct store *store,
                                             bool *done);

/* To where another log of the member ended, if that is later. */
void replica_floor_raise(struct replica_floor *floor, uint64_t index, uint64_t term);
/* Within a view. Errors: CORRUPT. */
MUST_CHECK enum ferry_err replica_floor_read(struct store *store, uint64_t group,
                                             struct replica_floor *floor);
/* Within a transaction; nothing when there is none. */
MUST_CHECK enum ferry_err replica_floor_write(struct store *store, uint64_t group,
                                              const struct replica_floor *floor);

#endif
