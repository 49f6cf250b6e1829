/* due: what ferry_poll has to run. Queued by the io thread (or at close), run on the caller's.
 *
 * Ownership: the queue owns what is on it; `run` runs the callbacks, without the lock, and disposes
 * of it. Invariant: ferry_fd is readable exactly while the queue is not empty. */
#ifndef FERRY_CLIENT_DUE_H
#define FERRY_CLIENT_DUE_H

#include "client/client.h"

struct due {
    struct list node;
    int (*run)(struct ferry_client *c, struct due *due); /* Returns how many callbacks ran. */
};

void due_push(struct ferry_client *c, struct due *due); /* With the lock. */
/* With the lock: messages or appends were told; wakes who waits for the queue to be empty. */
void due_told(struct ferry_client *c, size_t messages, size_t bytes);
/* Runs all that is due now; waits for the first until deadline_us (0: not at all). */
int due_run(struct ferry_client *c, int64_t deadline_us);

#endif
