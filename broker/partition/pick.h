/* pick: which message goes next to whom: a leader's index over one subscription of mode queue or
 * keyed. Volatile: it is made anew from delivery.h's state by each leader, and forgotten with the
 * office.
 *
 * It decides; nothing it says is true before the entry that says so is applied. What it has picked
 * is out of the index at once, so several hand-outs may be on their way; a proposal that is refused
 * is given back (pick_give_back).
 *
 * Order: what waits and is due goes first, oldest due time first; then fresh messages: by offset;
 * of mode queue by priority, where there are any among the PICK_AHEAD fresh messages looked at:
 * level
 * + time waited / priority_age_ms, highest first, then by offset (so nothing starves); of mode
 * keyed by offset, passing over those whose key has a message out or waiting: they queue behind it
 * in memory, PICK_KEYED_MAX of them; then it stops looking ahead until some are gone.
 *
 * Reads the log (batches are opened only where keys or priorities matter), at most PICK_READ_BYTES
 * in one call, and goes on with the next: `pick_wants_more`.
 *
 * Time: leases by the leader's monotonic clock (now_us), back-off by the remaining part of due_ms
 * when it was learned, so that a wall clock that jumps moves neither.
 *
 * Invariants (pick_check): (1) nothing picked is LEASED or DONE in the delivery, or on its way; (2)
 * of one key at most one message is picked, leased or waiting; (3) a member's count is what it
 * holds and what is on its way to it. */
#ifndef FERRY_PARTITION_PICK_H
#define FERRY_PARTITION_PICK_H

#include "partition/delivery_entry.h"

#define PICK_AHEAD      65536u
#define PICK_KEYED_MAX  1000000u
#define PICK_READ_BYTES (4u << 20)

#endif
