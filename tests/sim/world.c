#include "sim/world.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"

struct world *sim;

void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){.seed = seed, .now_us = SIM_SECOND};
    prng_init(&w->prng, seed);
    sim = w;
}

void world_fini(struct world *w)
{
    for (struct task *t = w->tasks; t != NULL;) {
        struct task *next = t->next;
        mem_free(t);
        t = next;
    }
    mem_free(w->heap);
    sim = NULL;
}

/* ---- The heap ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void push(struct world *w, struct event e)
{
    must(mem_grow((void **)&w->heap, &w->capacity, w->count + 1, sizeof(*w->heap)));
    size_t at = w->count++;
    while (at > 0 && before(&e, &w->heap[(at - 1) / 2])) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = e;
}

static struct event pop(struct world *w)
{
    struct event first = w->heap[0];
    struct event last = w->heap[--w->count];
    size_t at = 0;
    for (size_t child = 1; child < w->count; child = 2 * at + 1) {
        if (child + 1 < w->count && before(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (!before(&w->heap[child], &last)) {
            break;
        }
        w->heap[at] = w->heap[child];
        at = child;
    }
    w->heap[at] = last;
    return first;
}

void world_at(int64_t at_us, event_run *run, void *arg, uint64_t number)
{
    push(sim, (struct event){.at_us = at_us > sim->now_us ? at_us : sim->now_us,
                             .seq = ++sim->next_seq,
                             .run = run,
                             .arg = arg,
                             .number = number});
}

void world_run(struct world *w, int64_t until_us)
{
    while (!w->ended && w->count > 0 && w->heap[0].at_us <= until_us) {
        struct event e = pop(w);
        w->now_us = e.at_us;
        w->events++;
        e.run(e.arg, e.number);
    }
    if (!w->ended && w->now_us < until_us) {
        w->now_us = until_us;
    }
}

void trace(uint64_t a, uint64_t b)
{
    sim->hash = map_hash_u64(sim->hash ^ map_hash_u64(a ^ (b << 1)) ^ (uint64_t)sim->now_us);
}

/* ---- Ends ---- */

void sim_fail(enum sim_end end, const char *format, ...)
{
    if (sim->ended) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sim->verdict, sizeof(sim->verdict), format, args);
    va_end(args);
    sim->ended = true;
    sim->end = end;
}

void sim_say(const char *format, ...)
{
    if (!sim->verbose) {
        return;
    }
    int64_t now = world_now();
    (void)fprintf(stderr, "%4lld.%06lld %-10s ", (long long)(now / SIM_SECOND),
                  (long long)(now % SIM_SECOND), sim->current != NULL ? sim->current->name : "-");
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
}

/* ---- Hosts and their clocks ---- */

struct host *world_host(const char *name, bool is_node)
{
    must(sim->host_count < SIM_HOSTS_MAX);
    struct host *h = &sim->hosts[sim->host_count];
    *h = (struct host){.number = sim->host_count++,
                       .is_node = is_node,
                       .since_us = sim->now_us,
                       .local_us = 1000 * SIM_SECOND,
                       .rate_ppm = 1000000,
                       .wall_ms = 1700000000000 - 1000000};
    (void)snprintf(h->name, sizeof(h->name), "%s", name);
    return h;
}

int64_t world_now(void)
{
    return sim->now_us + (sim->current != NULL ? sim->current->spent_us : 0);
}

int64_t host_local_us(const struct host *h, int64_t world_us)
{
    int64_t passed = world_us - h->since_us;
    return h->local_us + passed / 1000000 * h->rate_ppm + passed % 1000000 * h->rate_ppm / 1000000;
}

int64_t host_wall_ms(const struct host *h, int64_t world_us)
{
    return h->wall_ms + host_local_us(h, world_us) / 1000;
}

void host_set_rate(struct host *h, int64_t rate_ppm)
{
    h->local_us = host_local_us(h, sim->now_us);
    h->since_us = sim->now_us;
    h->rate_ppm = rate_ppm;
}

void host_pause(struct host *h, bool paused)
{
    h->paused = paused;
    for (struct task *t = sim->tasks; t != NULL && !paused; t = t->next) {
        if (t->host == h && t->missed) {
            t->missed = false;
            task_wake(t);
        }
    }
}

/* ---- Tasks ---- */

static void run_turn(void *arg, uint64_t number)
{
    (void)number;
    struct task *t = arg;
    if (t->over || t->wake_seq != number || t->host->dead) {
        return;
    }
    t->wake_us = SIM_NEVER;
    if (t->host->paused) {
        t->missed = true;
        return;
    }
    t->spent_us = 0;
    sim->current = t;
    t->turn(t);
    t->busy_us = sim->now_us + t->spent_us;
    t->spent_us = 0;
    sim->current = NULL;
    if (t->wake_us < t->busy_us) {
        int64_t at = t->busy_us;
        t->wake_us = SIM_NEVER;
        task_sleep(t, at);
    }
}

struct task *task_new(struct host *h, const char *name, void (*turn)(struct task *), void *arg)
{
    struct task *t = mem_zalloc(1, sizeof(*t));
    must(t != NULL);
    *t = (struct task){.host = h, .turn = turn, .arg = arg, .wake_us = SIM_NEVER};
    (void)snprintf(t->name, sizeof(t->name), "%s", name);
    t->next = sim->tasks;
    sim->tasks = t;
    return t;
}

void task_sleep(struct task *t, int64_t until_us)
{
    until_us = until_us > t->busy_us ? until_us : t->busy_us;
    until_us = until_us > sim->now_us ? until_us : sim->now_us;
    if (t->over || until_us >= t->wake_us) {
        return;
    }
    t->wake_us = until_us;
    t->wake_seq = sim->next_seq + 1;
    world_at(until_us, run_turn, t, t->wake_seq);
}

void task_wake(struct task *t)
{
    task_sleep(t, sim->now_us);
}

void task_spend(int64_t us)
{
    must(us >= 0);
    if (sim->current != NULL) {
        sim->current->spent_us += us;
    }
}

void task_end(struct task *t)
{
    t->over = true;
}

/* ---- Chance ---- */

uint64_t chance_below(uint64_t bound)
{
    return prng_below(&sim->prng, bound);
}

bool chance_permille(uint64_t permille)
{
    return permille > 0 && prng_below(&sim->prng, 1000) < permille;
}

int64_t chance_between(int64_t low, int64_t high)
{
    return low + (int64_t)prng_below(&sim->prng, (uint64_t)(high - low) + 1);
}
