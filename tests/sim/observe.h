/* observe: what each disk holds for each group, seen from outside.
 *
 * store.h's functions are wrapped at link time (--wrap), whichever store runs below: what is
 * appended, cut away and marked in a transaction is noted, and becomes the shadow when the commit
 * has returned success. So the checkers know what is durable without asking the code. At every
 * open the shadow is read anew from the store, and compared: a start must find what was durable. */
#ifndef FERRY_SIM_OBSERVE_H
#define FERRY_SIM_OBSERVE_H

#include "sim/sim_node.h"
#include "store/store.h"

struct shadow_entry {
    uint64_t term;
    uint64_t hash; /* Of everything in it but the term. */
    enum store_entry_type type;
};

struct shadow_group {
    uint64_t id;
    bool has_marks;
    struct store_group marks;
    uint64_t first; /* The log is first..first + count - 1. */
    uint64_t drops; /* How often the group was deleted from this disk. */
    struct shadow_entry *entries;
    size_t count, capacity;
};

/* One disk's, kept over crashes by path. */
struct shadow {
    char path[128];
    const struct host *host;
    struct store *store; /* NULL: not open. */
    struct shadow_group **groups;
    size_t group_count, group_capacity;
    struct shadow_op *ops; /* Of the open transaction. */
    size_t op_count, op_capacity;
    bool changed_below; /* Wiped, restored, or a commit undone: the next open is not compared. */
    uint64_t commits;
};

void observe_init(void);
void observe_fini(void);
struct shadow *observe_disk(const char *path); /* NULL: never opened. */
struct shadow *observe_store(const struct store *s);
struct shadow_group *shadow_find(const struct shadow *d, uint64_t group);
const struct shadow_entry *shadow_at(const struct shadow_group *g, uint64_t index);
uint64_t shadow_last(const struct shadow_group *g); /* 0: empty. */

#endif
