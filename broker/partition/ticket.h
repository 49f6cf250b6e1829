/* ticket: a request that waits until a log entry is applied. Never allocates.
 *
 * A state machine embeds one ticket_queue; whoever asks embeds a ticket in its request. A ticket is
 * in nobody's hands (new), waiting, or done; it becomes done when its entry is applied, or when the
 * replica loses its office (NOT_LEADER: the outcome is not known here).
 * Invariant: waiting is sorted by index. */
#ifndef FERRY_PARTITION_TICKET_H
#define FERRY_PARTITION_TICKET_H

#include "base/err.h"
#include "base/list.h"

struct ticket {
    struct list node;
    uint64_t index; /* The entry waited for; 0: answered at once. */
    enum ferry_err err;
};

struct ticket_queue {
    struct list waiting;
    struct list done;
};

void ticket_init(struct ticket *t);
void ticket_queue_init(struct ticket_queue *q);
bool ticket_queue_is_empty(const struct ticket_queue *q);
void ticket_queue_wait(struct ticket_queue *q, struct ticket *t, uint64_t index);
/* Everything that waits for an index up to this one is done, with FERRY_OK. */
void ticket_queue_applied(struct ticket_queue *q, uint64_t index);
/* The one that waits for this very index, when nothing before it does any more; NULL: none, as on
 * every replica but the proposer. It may be given its answer before it is done. */
struct ticket *ticket_queue_find(const struct ticket_queue *q, uint64_t index);
/* It is done, with this error. */
void ticket_queue_refuse(struct ticket_queue *q, struct ticket *t, enum ferry_err err);
void ticket_queue_fail(struct ticket_queue *q, enum ferry_err err);
struct ticket *ticket_queue_next_done(struct ticket_queue *q); /* NULL when there is none. */
void ticket_queue_check(const struct ticket_queue *q, uint64_t applied);

#endif
