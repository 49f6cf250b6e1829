#include "sim/fiber.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "base/mem.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES (512u << 10)

struct fiber {
    struct task *task;
    ucontext_t context, scheduler;
    void *stack;
    void (*run)(void *arg);
    void *arg;
    void *(*thread_run)(void *arg); /* Of a pthread; then `run` is NULL. */
    const void *waits_for;          /* A condition variable. */
    bool signalled;
    struct task *joiner;
    void *fake_stack; /* AddressSanitizer's. */
    struct fiber *next;
};

/* All fibers, for conditions and for the end. Kept here and not in the world, which knows none. */
static struct fiber *all;

static struct fiber *fiber_of(const struct task *t)
{
    return t->arg;
}

/* ---- Switching ---- */

#ifdef __SANITIZE_ADDRESS__
static const void *main_stack;
static size_t main_stack_bytes;
static void leave(void **save, const void *to, size_t bytes)
{
    __sanitizer_start_switch_fiber(save, to, bytes);
}
static void arrive(void *saved, bool from_main)
{
    __sanitizer_finish_switch_fiber(saved, from_main ? &main_stack : NULL,
                                    from_main ? &main_stack_bytes : NULL);
}
#endif

static void to_scheduler(struct fiber *f, bool last)
{
#ifdef __SANITIZE_ADDRESS__
    leave(last ? NULL : &f->fake_stack, main_stack, main_stack_bytes);
#else
    (void)last;
#endif
    must(swapcontext(&f->context, &f->scheduler) == 0);
#ifdef __SANITIZE_ADDRESS__
    arrive(f->fake_stack, true);
#endif
}

static void turn(struct task *t)
{
    struct fiber *f = fiber_of(t);
#ifdef __SANITIZE_ADDRESS__
    void *mine = NULL;
    leave(&mine, f->stack, STACK_BYTES);
#endif
    must(swapcontext(&f->scheduler, &f->context) == 0);
#ifdef __SANITIZE_ADDRESS__
    arrive(mine, false);
#endif
    if (t->over && f->joiner != NULL) {
        task_wake(f->joiner);
    }
}

static void entry(unsigned high, unsigned low)
{
    struct fiber *f = (struct fiber *)(((uintptr_t)high << 32) | (uintptr_t)low);
#ifdef __SANITIZE_ADDRESS__
    arrive(NULL, true);
#endif
    if (f->run != NULL) {
        f->run(f->arg);
    } else {
        (void)f->thread_run(f->arg);
    }
    task_end(f->task);
    to_scheduler(f, true);
}

static struct fiber *start(struct host *h, const char *name)
{
    struct fiber *f = mem_zalloc(1, sizeof(*f));
    must(f != NULL);
    f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(f->stack != MAP_FAILED);
    must(getcontext(&f->context) == 0);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    uintptr_t at = (uintptr_t)f;
    makecontext(&f->context, (void (*)(void))entry, 2, (unsigned)(at >> 32), (unsigned)at);
    f->task = task_new(h, name, turn, f);
    f->next = all;
    all = f;
    task_wake(f->task);
    return f;
}

struct task *fiber_start(struct host *h, const char *name, void (*run)(void *arg), void *arg)
{
    struct fiber *f = start(h, name);
    f->run = run;
    f->arg = arg;
    return f->task;
}

void fiber_wait(int64_t until_us)
{
    struct task *t = sim->current;
    if (until_us != SIM_NEVER) {
        task_sleep(t, until_us);
    }
    to_scheduler(fiber_of(t), false);
}

void fiber_sleep(int64_t us)
{
    int64_t until = world_now() + us;
    while (world_now() < until) {
        fiber_wait(until);
    }
}

bool fiber_is_over(const struct task *t)
{
    return t->over;
}

void fiber_free_all(void)
{
    while (all != NULL) {
        struct fiber *f = all;
        all = f->next;
        (void)munmap(f->stack, STACK_BYTES);
        mem_free(f);
    }
}

/* ---- Threads ---- */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *at);
int __wrap_pthread_cond_signal(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    (void)attr;
    char name[24];
    (void)snprintf(name, sizeof(name), "%.16s.io", sim->current->host->name);
    struct fiber *f = start(sim->current->host, name);
    f->thread_run = run;
    f->arg = arg;
    *thread = (pthread_t)f;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    struct fiber *f = (struct fiber *)thread;
    (void)result;
    while (!f->task->over) {
        f->joiner = sim->current;
        fiber_wait(SIM_NEVER);
    }
    return 0;
}

static int wait_for(pthread_cond_t *c, pthread_mutex_t *m, int64_t until_local_us)
{
    struct host *h = sim->current->host;
    struct fiber *f = fiber_of(sim->current);
    f->waits_for = c;
    f->signalled = false;
    must(pthread_mutex_unlock(m) == 0);
    int status = 0;
    while (!f->signalled && status == 0) {
        int64_t left = until_local_us - host_local_us(h, world_now());
        if (until_local_us != SIM_NEVER && left <= 0) {
            status = ETIMEDOUT;
            break;
        }
        /* The machine's timers run on true time; a slow or frozen clock only looks again. */
        fiber_wait(until_local_us == SIM_NEVER ? SIM_NEVER : world_now() + left);
    }
    f->waits_for = NULL;
    must(pthread_mutex_lock(m) == 0);
    return status;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    return wait_for(c, m, SIM_NEVER);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *at)
{
    return wait_for(c, m, (int64_t)at->tv_sec * SIM_SECOND + at->tv_nsec / 1000);
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    for (struct fiber *f = all; f != NULL; f = f->next) {
        if (f->waits_for == c && !f->task->over) {
            f->signalled = true;
            task_wake(f->task);
        }
    }
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
    return __wrap_pthread_cond_broadcast(c); /* A wake for nothing is allowed. */
}
