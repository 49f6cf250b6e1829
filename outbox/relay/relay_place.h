/* relay_place: a place of its own at a server's database, for the `place` of a source.
 *
 * A relay that is killed and started again at once would wait for its own lease to end, unless the
 * broker takes it for the same holder; which it may be only if no other relay has that name. Where
 * a file is served its lock decides. At a server an abstract unix socket does: one process of the
 * machine (of its network namespace) can bind "ferry-relay-HASH", of the database's name as wake.h
 * has it and of the lane, and the system frees it when the process ends, however it ends. */
#ifndef FERRY_OUTBOX_RELAY_RELAY_PLACE_H
#define FERRY_OUTBOX_RELAY_RELAY_PLACE_H

#include <stddef.h>
#include <stdint.h>

/* A descriptor that holds the place as long as it is open; -1: another relay has it, or none can be
 * had. */
int relay_place_take(const char *name, uint32_t lane);
/* What tells the place that `fd` holds from all others, of other machines too; empty: not known, or
 * nothing is held. */
void relay_place_text(int fd, const char *name, char *text, size_t bytes);

#endif
