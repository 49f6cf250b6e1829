/* batch_view: struct ferry_batch: what a consumer gets, records seen through their wire form.
 *
 * A view covers consecutive fetch entries of one partition in one reply. The reply's memory is
 * counted and shared by the views of all its partitions; payloads are never copied. Everything in
 * it was checked before the application sees it, so reading a record cannot fail.
 *
 * Invariants: (1) offsets in a view are dense: record i has first_offset + i, but for views of dead
 * letters, where they only ascend; (2) every record of
 * every entry has been read once without an error; (3) a holder is freed with its last view. */
#ifndef FERRY_CLIENT_BATCH_VIEW_H
#define FERRY_CLIENT_BATCH_VIEW_H

#include <stdatomic.h>

#include "base/list.h"
#include "net/net.h"
#include "wire/batch.h"
#include "wire/command.h"

/* A received reply, shared. */
struct holder {
    atomic_uint references;
    struct net_message message;
    char topic[DEAD_NAME_MAX_BYTES + 1];
};

struct view_entry {
    struct fetch_entry entry; /* Into the holder's message. */
    uint32_t cut;             /* Kept records before the offset asked for. */
    uint32_t visible;         /* Records seen of this entry. */
    size_t first;             /* Place of its first visible record in the view. */
};

struct ferry_batch {
    struct list node;      /* In the consumer's ready list. */
    struct holder *holder; /* NULL in an event. */
    enum ferry_err event;  /* Not a batch but something to tell: the error. */
    int32_t partition;
    int64_t first_offset;
    int64_t next_offset; /* Where reading goes on. */
    size_t count;
    size_t bytes; /* What it counts for in fetch.queue_bytes. */
    struct view_entry *entries;
    size_t entry_count;
    size_t entry_capacity;
    /* Where the last ferry_batch_record stood. */
    size_t at_entry;
    uint32_t at_kept; /* Kept records read of that entry. */
    uint32_t at_skip; /* Skips passed of that entry. */
    struct batch_reader reader;
};

MUST_CHECK struct holder *holder_new(const char *topic); /* With one reference; NULL: no memory. */
void holder_release(struct holder *h);

/* A view of the entries in `data` (inside the holder's message), from offset `from` on; with `gaps`
 * offsets may be missing (numbers of dead letters), but they ascend. On an error
 * `*batch` has what is good before the bad entry, or is NULL; it is NULL too when nothing is to be
 * seen. Errors: NO_MEMORY; CORRUPT (an entry that is malformed, fails its checksum, or leaves a
 * hole in the offsets). */
MUST_CHECK enum ferry_err batch_view_new(struct holder *h, int32_t partition, struct bytes data,
                                         int64_t from, bool gaps, struct ferry_batch **batch,
                                         int64_t *next_offset);
MUST_CHECK struct ferry_batch *batch_view_event(enum ferry_err event, int32_t partition,
                                                int64_t next_offset);

#endif
