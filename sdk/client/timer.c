#include "client/timer.h"

#include <limits.h>
#include <stddef.h>

#define FIRED_IN_A_RUN_MAX 65536 /* A bound on one turn; what is left fires in the next. */

void timers_init(struct timers *ts)
{
    heap_init(&ts->heap);
    ts->added = 0;
}

void timers_fini(struct timers *ts)
{
    must(ts->added == 0);
    heap_fini(&ts->heap);
}

bool timer_add(struct timers *ts, struct timer *t, void (*fire)(struct timer *timer))
{
    must(t->fire == NULL);
    if (!heap_reserve(&ts->heap, ts->added + 1)) {
        return false;
    }
    ts->added++;
    heap_node_init(&t->node);
    t->fire = fire;
    return true;
}

void timer_drop(struct timers *ts, struct timer *t)
{
    if (t->fire == NULL) {
        return;
    }
    heap_remove(&ts->heap, &t->node);
    t->fire = NULL;
    must(ts->added > 0);
    ts->added--;
}

void timer_set(struct timers *ts, struct timer *t, int64_t due_us)
{
    must(t->fire != NULL);
    heap_set(&ts->heap, &t->node, due_us);
}

void timer_set_sooner(struct timers *ts, struct timer *t, int64_t due_us)
{
    if (t->node.at == HEAP_NOT_QUEUED || due_us < t->node.due) {
        timer_set(ts, t, due_us);
    }
}

void timer_stop(struct timers *ts, struct timer *t)
{
    heap_remove(&ts->heap, &t->node);
}

void timers_run(struct timers *ts, int64_t now_us)
{
    for (int fired = 0; fired < FIRED_IN_A_RUN_MAX; fired++) {
        struct heap_node *first = heap_first(&ts->heap);
        if (first == NULL || first->due > now_us) {
            return;
        }
        struct timer *t = list_entry(first, struct timer, node);
        heap_remove(&ts->heap, first);
        t->fire(t);
    }
}

int64_t timers_next_us(const struct timers *ts)
{
    const struct heap_node *first = heap_first(&ts->heap);
    return first != NULL ? first->due : INT64_MAX;
}

int timers_wait_ms(const struct timers *ts, int64_t now_us)
{
    const struct heap_node *first = heap_first(&ts->heap);
    if (first == NULL) {
        return -1;
    }
    int64_t wait_ms = first->due <= now_us ? 0 : (first->due - now_us + 999) / 1000;
    return wait_ms > INT_MAX ? INT_MAX : (int)wait_ms;
}
