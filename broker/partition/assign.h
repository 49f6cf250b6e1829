/* assign: which member of a group shall have which partition.
 *
 * Pure: no I/O, clock, randomness or allocation; the same question has the same answer.
 *
 * What it gives is
 *  (1) whole: every partition has one owner, if there are members;
 *  (2) balanced: counts of two members differ by at most 1;
 *  (3) sticky: as many partitions stay where they are as (1) and (2) allow;
 *  (4) by zone, where (1) to (3) leave a choice: a partition goes to a member in the zone of its
 *      leader, and a member that must give some up keeps those of its own zone;
 *  (5) else by number of partition and place of member, so by nothing that is random. */
#ifndef FERRY_PARTITION_ASSIGN_H
#define FERRY_PARTITION_ASSIGN_H

#include "base/bytes.h"
#include "wire/command.h"

#define ASSIGN_NOBODY (-1)

struct assign {
    uint32_t member_count; /* At most MEMBERS_MAX. */
    uint32_t partition_count;
    const struct bytes *member_zones;    /* Of each member; empty: none. */
    const struct bytes *partition_zones; /* Of each partition's leader; empty: not known. NULL: of
                                            none is anything known. */
};
/* `owners` has one place a partition: who has it, by place in the members, or ASSIGN_NOBODY; and
 * afterwards who shall have it. */
void assign_balance(const struct assign *a, int32_t *owners);

#endif
