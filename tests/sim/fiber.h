/* fiber: straight-line code that takes turns: a client program and the threads of its SDK client.
 *
 * The production client starts an io thread and blocks callers on condition variables. The
 * simulator is linked with --wrap for those pthread functions, so that a thread becomes a fiber of
 * the same host and a wait becomes the end of a turn. Mutexes stay the real ones: nothing switches
 * while one is held but pthread_cond_wait, which releases it.
 *
 * A fiber that is not over when the world ends is thrown away with what it holds. */
#ifndef FERRY_SIM_FIBER_H
#define FERRY_SIM_FIBER_H

#include "sim/world.h"

/* Starts `run` on the host; it begins at once, that is, as an event of now. */
struct task *fiber_start(struct host *h, const char *name, void (*run)(void *arg), void *arg);
/* In a fiber: the turn ends and another begins at `until_us`, or when somebody wakes the task. */
void fiber_wait(int64_t until_us);
void fiber_sleep(int64_t us); /* True time; whoever wakes it is not heard. */
bool fiber_is_over(const struct task *t);
void fiber_free_all(void);

#endif
