/* runs: the log as Raft sees it, (index, term) runs without payloads.
 *
 * Invariants:
 *  (1) The first run begins at trim_index + 1; firsts and terms strictly rise; no run is empty.
 *  (2) count is 0 exactly when the log is empty: last_index == trim_index.
 *  (3) trim_term is the term of the entry at trim_index; 0 exactly when trim_index is 0.
 *
 * Cost: appending is O(1), finding a term O(log runs); there are as many runs as elections won.
 * Only runs_load and runs_reserve allocate. One thread at a time. */
#ifndef FERRY_RAFT_RUNS_H
#define FERRY_RAFT_RUNS_H

#include "raft/raft.h"

struct runs {
    struct raft_run *items; /* Owned. */
    size_t count;
    size_t capacity;
    raft_index trim_index; /* Entries up to here are gone. */
    raft_term trim_term;   /* Term of the entry at trim_index. */
    raft_index last_index; /* == trim_index when empty. */
};

/* Errors: CORRUPT (the runs do not cover trim_index + 1..last_index), NO_MEMORY. */
MUST_CHECK enum ferry_err runs_load(struct runs *l, const struct raft_disk *disk);
void runs_fini(struct runs *l);

/* Room for `extra` more runs, so that the appends after it cannot fail. */
MUST_CHECK bool runs_reserve(struct runs *l, size_t extra);
/* `count` > 0 entries of `term`, not below the last term. Room was reserved (must). */
void runs_append(struct runs *l, uint64_t count, raft_term term);
/* Drops entries >= from; from is in trim_index + 1..last_index + 1. */
void runs_truncate(struct runs *l, raft_index from);
/* Drops entries <= index; index is in trim_index..last_index. */
void runs_trim(struct runs *l, raft_index index);

/* Term of the entry; 0 when it is below trim_index or past the end. */
raft_term runs_term_at(const struct runs *l, raft_index index);
raft_term runs_last_term(const struct runs *l);
/* Last entry of the run that holds `index`, which is in trim_index + 1..last_index. */
raft_index runs_stretch_end(const struct runs *l, raft_index index);
/* Greatest index <= `index` whose term is <= `term`; trim_index when there is none above it. */
raft_index runs_find_term(const struct runs *l, raft_index index, raft_term term);
/* Copies the runs of first..last, the first one cut to begin at `first`, at most `max`. Returns how
 * many; `*covered` is the last index they cover. */
size_t runs_copy(const struct runs *l, raft_index first, raft_index last, struct raft_run *out,
                 size_t max, raft_index *covered);
void runs_check(const struct runs *l);

#endif
