/* world: virtual time, the machines that live in it, and one heap of everything that will happen.
 *
 * One process, one thread, one generator. An event runs at its time; two of one time run in the
 * order in which they were queued, so a seed tells a run completely. Production code never knows:
 * it reads the clock of the machine whose task runs (sim_clock.c), sends into sim_net.c and stores
 * into sim_store.c or the real store.
 *
 *   host    a machine: a broker node or a client process. Has clocks, and may be paused or dead.
 *   task    what takes turns on a host: a shard, or a fiber (fiber.h) that runs straight-line code.
 *   event   a call of a function at a time. A task's next turn is one.
 *
 * Time passes in a task only where the simulator says so (task_spend: a commit that takes a while).
 * What it does after that happens that much later, and it takes no other turn before.
 *
 * Invariants: (1) now never steps back; (2) a task takes one turn at a time, none while its host is
 * paused or dead; (3) every decision comes from `prng`, which nobody but the simulator uses.
 *
 * The one mutable global, `sim`, is here because clock_monotonic_us and its like have no argument
 * to reach the world by. */
#ifndef FERRY_SIM_WORLD_H
#define FERRY_SIM_WORLD_H

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/prng.h"

#define SIM_HOSTS_MAX 32
#define SIM_NEVER     INT64_MAX
#define SIM_MS        1000LL
#define SIM_SECOND    1000000LL

/* How a run ended; the program's exit code. */
enum sim_end {
    SIM_PASSED = 0,
    SIM_INVARIANT = 10, /* Something happened that must never happen. */
    SIM_LIVENESS = 11,  /* The healed cluster did not come back. */
    SIM_CRASH = 12,     /* `must`, a signal, a leak of the simulator's own. */
};

struct host {
    uint32_t number; /* Place in the world's array. */
    char name[16];
    bool is_node, paused, dead;
    int64_t local_us, since_us; /* Its monotonic clock was local_us at since_us, */
    int64_t rate_ppm;           /*   and has run at this rate since; 1000000 is true time. */
    int64_t wall_ms;            /* Its wall clock is its monotonic clock plus this. */
};

struct task {
    struct host *host;
    char name[24];
    void (*turn)(struct task *t); /* Ends with task_sleep, or the task is over. */
    void *arg;
    int64_t wake_us;   /* SIM_NEVER: only task_wake does. */
    uint64_t wake_seq; /* Of the event that is queued for it; others are stale. */
    int64_t busy_us;   /* No turn before. */
    int64_t spent_us;  /* In this turn so far. */
    bool missed;       /* Woken while its host was paused. */
    bool over;
    struct task *next; /* All tasks; freed with the world. */
};

typedef void event_run(void *arg, uint64_t number);

struct event {
    int64_t at_us;
    uint64_t seq;
    event_run *run;
    void *arg;
    uint64_t number;
};

struct world {
    uint64_t seed;
    struct prng prng;
    int64_t now_us;
    struct event *heap;
    size_t count, capacity;
    uint64_t next_seq;
    uint64_t events; /* Run so far. */
    struct host hosts[SIM_HOSTS_MAX];
    uint32_t host_count;
    struct task *tasks;
    struct task *current; /* Whose turn it is; NULL: the simulator's own. */
    uint64_t hash;        /* Of the trace. */
    bool verbose;
    bool ended;
    enum sim_end end;
    char verdict[600]; /* Why it ended so. */
};

extern struct world *sim;

void world_init(struct world *w, uint64_t seed);
void world_fini(struct world *w);
/* Runs events up to `until_us`, or until sim_end was called. */
void world_run(struct world *w, int64_t until_us);
void world_at(int64_t at_us, event_run *run, void *arg, uint64_t number);
struct host *world_host(const char *name, bool is_node);
/* Mixes a fact into the trace. */
void trace(uint64_t a, uint64_t b);

/* Ends the run; the first call counts. */
void sim_fail(enum sim_end end, const char *format, ...) PRINTF(2, 3);
void sim_say(const char *format, ...) PRINTF(1, 2); /* With the time; only when verbose. */

/* Time as the current task sees it, and on the world's clock. */
int64_t world_now(void);
int64_t host_local_us(const struct host *h, int64_t world_us);
int64_t host_wall_ms(const struct host *h, int64_t world_us);
void host_set_rate(struct host *h, int64_t rate_ppm);
void host_pause(struct host *h, bool paused);

struct task *task_new(struct host *h, const char *name, void (*turn)(struct task *), void *arg);
void task_sleep(struct task *t, int64_t until_us); /* World time. An earlier wake stays. */
void task_wake(struct task *t);                    /* As soon as it may. */
void task_spend(int64_t us);                       /* The current task is busy so long. */
void task_end(struct task *t);

/* ---- Chance ---- */
uint64_t chance_below(uint64_t bound);
bool chance_permille(uint64_t permille);
int64_t chance_between(int64_t low, int64_t high); /* Both included. */

#endif
