/* timer: what the io thread does later. One heap for all deadlines of a client.
 *
 * Room for a timer is reserved when its owner is made (timer_add), so setting one cannot fail.
 * Invariant: the heap has room for every timer that was added. The io thread's alone. */
#ifndef FERRY_CLIENT_TIMER_H
#define FERRY_CLIENT_TIMER_H

#include "base/heap.h"
#include "base/list.h"

struct timer {
    struct heap_node node;
    void (*fire)(struct timer *timer); /* NULL: not added. */
};

struct timers {
    struct heap heap;
    size_t added;
};

void timers_init(struct timers *ts);
void timers_fini(struct timers *ts);
MUST_CHECK bool timer_add(struct timers *ts, struct timer *t, void (*fire)(struct timer *timer));
void timer_drop(struct timers *ts, struct timer *t); /* Undoes timer_add; accepts one not added. */
void timer_set(struct timers *ts, struct timer *t, int64_t due_us);
void timer_set_sooner(struct timers *ts, struct timer *t,
                      int64_t due_us); /* Never moves it back. */
void timer_stop(struct timers *ts, struct timer *t);
void timers_run(struct timers *ts, int64_t now_us); /* Fires all that is due, in order. */
int64_t
timers_next_us(const struct timers *ts); /* When the next is due; INT64_MAX: there is none. */
int timers_wait_ms(const struct timers *ts,
                   int64_t now_us); /* Until the next; -1: there is none. */

#endif
