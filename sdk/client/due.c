#include "client/due.h"

#include <time.h>

#include "base/clock.h"

void due_push(struct ferry_client *c, struct due *due)
{
    list_push_back(&c->due, &due->node);
    if (!c->due_signalled) {
        c->due_signalled = true;
        net_wake_signal(&c->due_wake);
    }
    if (c->due_waiters > 0) {
        pthread_cond_broadcast(&c->due_changed);
    }
}

void due_told(struct ferry_client *c, size_t messages, size_t bytes)
{
    must(c->queued_messages >= messages);
    must(c->queued_bytes >= bytes);
    c->queued_messages -= messages;
    c->queued_bytes -= bytes;
    if (c->queued_messages == 0 && c->due_waiters > 0) {
        pthread_cond_broadcast(&c->due_changed);
    }
}

static struct timespec to_timespec(int64_t us)
{
    return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = (us % 1000000) * 1000};
}

/* With the lock. False when the time is up. */
static bool wait_for_due(struct ferry_client *c, int64_t deadline_us)
{
    if (clock_monotonic_us() >= deadline_us) {
        return false;
    }
    must(!c->stepped); /* Nobody would end the wait. */
    struct timespec until = to_timespec(deadline_us);
    c->due_waiters++;
    (void)pthread_cond_timedwait(&c->due_changed, &c->lock, &until);
    c->due_waiters--;
    return true;
}

/* With the lock: all that is due now. */
static void take_all(struct ferry_client *c, struct list *taken)
{
    list_init(taken);
    if (!list_is_empty(&c->due)) {
        taken->next = c->due.next;
        taken->prev = c->due.prev;
        taken->next->prev = taken;
        taken->prev->next = taken;
        list_init(&c->due);
    }
    if (c->due_signalled) {
        c->due_signalled = false;
        net_wake_clear(&c->due_wake);
    }
}

int due_run(struct ferry_client *c, int64_t deadline_us)
{
    struct list taken;
    struct list *node;
    int ran = 0;
    pthread_mutex_lock(&c->lock);
    while (list_is_empty(&c->due) && wait_for_due(c, deadline_us)) {
        if (c->flushing > 0 && c->queued_messages == 0) {
            break;
        }
    }
    take_all(c, &taken);
    pthread_mutex_unlock(&c->lock);
    while ((node = list_pop_front(&taken)) != NULL) {
        struct due *due = list_entry(node, struct due, node);
        ran += due->run(c, due);
    }
    return ran;
}
