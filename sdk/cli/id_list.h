/* id_list: many message ids, sorted, 16 bytes each; for comparing sets of them.
 *
 * Grows without a limit of its own: ten million ids are 160 MB, and sorting takes as much again for
 * a moment. Ids are kept as two big-endian numbers, so that order is byte order and comparing is
 * two instructions. Lists are compared by one walk over both, never by searching. */
#ifndef FERRY_CLI_ID_LIST_H
#define FERRY_CLI_ID_LIST_H

#include "base/err.h"

struct id_pair {
    uint64_t high, low;
};

struct id_list {
    struct id_pair *ids; /* Owned. */
    size_t count;
    size_t capacity;
    bool sorted;
};

void id_list_fini(struct id_list *l); /* Accepts zeroed memory. */
MUST_CHECK bool id_list_add(struct id_list *l, const struct ferry_id *id); /* False: no memory. */
void id_list_sort(struct id_list *l);

/* What is found is told one id at a time, in order. */
typedef void id_list_cb(const struct ferry_id *id, void *arg);
/* Ids that are in `l` more than once, each told once. Returns how many. `l` is sorted. */
size_t id_list_repeated(const struct id_list *l, id_list_cb *callback, void *arg);
/* Ids that are in `a` and not in `b`, each told once. Both are sorted. */
size_t id_list_missing(const struct id_list *a, const struct id_list *b, id_list_cb *callback,
                       void *arg);
/* Ids that are in both, each told once. Both are sorted. */
size_t id_list_shared(const struct id_list *a, const struct id_list *b, id_list_cb *callback,
                      void *arg);
bool id_list_has(const struct id_list *l, const struct ferry_id *id); /* `l` is sorted. */
/* The place of one that equals it; false when there is none. `l` is sorted. */
bool id_list_find(const struct id_list *l, const struct ferry_id *id, size_t *place);
/* How many different ids there are. */
size_t id_list_distinct(const struct id_list *l);

#endif
