/* sim: runs seeds.
 *
 *   sim --seed N [--verbose [--frames]] [--nodes N] [--seconds N] [--no-faults] [--twice]
 *       [--lie lost|moved|forged|reordered|unsaid|again|undone]
 *   sim --seeds FROM..TO [--jobs N] [--cover] [--ledger FILE] [--stop-after FAILURES]
 *
 * One seed is one process. The exit code of one seed is its end (world.h); of many it is the first
 * failure's, or 13 when --cover was asked for and a required mark was never reached. */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim/run.h"
#include "sim/sim_disk.h"

#define JOBS_MAX         64
#define NOT_COVERED      13
#define SEED_CPU_SECONDS 20 /* A seed that takes longer hangs. */

_Noreturn void must_fail(const char *expression, const char *file, int line)
{
    (void)fprintf(stderr, "sim: seed %llu at %lld us: %s:%d: must(%s) does not hold\n",
                  sim != NULL ? (unsigned long long)sim->seed : 0,
                  sim != NULL ? (long long)sim->now_us : 0, file, line, expression);
    abort();
}

struct options {
    struct run_options run;
    uint64_t from, to; /* `to` is the last one. */
    bool many, cover, twice;
    int jobs;
    int stop_after;
    const char *ledger;
};

static void print_end(const struct run_result *r, uint64_t seed)
{
    static const struct {
        enum sim_end end;
        const char *name;
    } names[] = {{SIM_PASSED, "passed"},
                 {SIM_INVARIANT, "FAILED (invariant)"},
                 {SIM_LIVENESS, "FAILED (liveness)"},
                 {SIM_CRASH, "FAILED (crash)"}};
    const char *name = "?";
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        name = names[i].end == r->end ? names[i].name : name;
    }
    (void)printf("seed %llu: %s, trace %016llx, %llu events, %lld s simulated%s%s\n",
                 (unsigned long long)seed, name, (unsigned long long)r->hash,
                 (unsigned long long)r->events, (long long)(r->simulated_us / SIM_SECOND),
                 r->verdict[0] != '\0' ? ": " : "", r->verdict);
    (void)fflush(stdout);
}

/* ---- A seed in a process of its own ---- */

static struct run_result *shared_results(size_t count)
{
    struct run_result *r =
        mmap(NULL, count * sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(r != MAP_FAILED);
    return r;
}

static pid_t spawn(const struct run_options *o, struct run_result *result)
{
    (void)fflush(stdout);
    *result = (struct run_result){.end = SIM_CRASH};
    (void)snprintf(result->verdict, sizeof(result->verdict), "died, see stderr");
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        struct rlimit cpu = {SEED_CPU_SECONDS, SEED_CPU_SECONDS};
        (void)setrlimit(RLIMIT_CPU, &cpu);
        run_seed(o, result);
        (void)fflush(stdout);
        _exit(0);
    }
    return pid;
}

static void run_alone(const struct run_options *o, struct run_result *result)
{
    int status;
    pid_t pid = spawn(o, result);
    must(waitpid(pid, &status, 0) == pid);
    sim_disks_remove(pid);
}

static int run_one(const struct options *o)
{
    struct run_result *r = shared_results(2);
    run_alone(&o->run, &r[0]);
    print_end(&r[0], o->run.seed);
    if (o->twice) {
        run_alone(&o->run, &r[1]);
        print_end(&r[1], o->run.seed);
        if (r[0].hash != r[1].hash) {
            (void)printf("seed %llu: two runs differ\n", (unsigned long long)o->run.seed);
            return SIM_CRASH;
        }
    }
    return (int)r[0].end;
}

/* ---- Many seeds ---- */

struct batch {
    const struct options *o;
    struct run_result *slots, *again; /* One a job. */
    pid_t pids[JOBS_MAX];
    uint64_t seeds[JOBS_MAX];
    uint64_t next, done, failures;
    int64_t simulated_us;
    uint64_t acked, read, events;
    uint64_t marks[MARKS]; /* Seeds that set it. */
    int first_failure;
    struct timespec started;
};

static double seconds_since(const struct timespec *t)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static void start_job(struct batch *b, int job)
{
    b->pids[job] = 0;
    bool stop = b->o->stop_after > 0 && b->failures >= (uint64_t)b->o->stop_after;
    if (b->next > b->o->to || stop) {
        return;
    }
    struct run_options o = b->o->run;
    o.seed = b->next++;
    o.print = false;
    b->seeds[job] = o.seed;
    b->pids[job] = spawn(&o, &b->slots[job]);
}

static void count(struct batch *b, int job)
{
    const struct run_result *r = &b->slots[job];
    b->done++;
    b->simulated_us += r->simulated_us;
    b->acked += r->acked;
    b->read += r->read;
    b->events += r->events;
    for (int i = 0; i < MARKS; i++) {
        b->marks[i] += r->marks[i];
    }
    if (r->end != SIM_PASSED) {
        b->failures++;
        b->first_failure = b->first_failure == 0 ? (int)r->end : b->first_failure;
        print_end(r, b->seeds[job]);
    }
}

static void check_twice(struct batch *b, int job)
{
    struct run_options o = b->o->run;
    o.seed = b->seeds[job];
    o.print = false;
    run_alone(&o, &b->again[job]);
    if (b->again[job].hash != b->slots[job].hash) {
        (void)printf("seed %llu: two runs differ: %016llx and %016llx\n",
                     (unsigned long long)o.seed, (unsigned long long)b->slots[job].hash,
                     (unsigned long long)b->again[job].hash);
        b->failures++;
        b->first_failure = b->first_failure == 0 ? SIM_CRASH : b->first_failure;
    }
}

static void progress(const struct batch *b, bool last)
{
    if (!last && (!isatty(STDOUT_FILENO) ? b->done % 200 != 0 : b->done % 10 != 0)) {
        return;
    }
    (void)printf("%s%llu seeds, %.2f h simulated in %.0f s, %llu messages acked, %llu read, %llu "
                 "failures%s",
                 isatty(STDOUT_FILENO) ? "\r" : "", (unsigned long long)b->done,
                 (double)b->simulated_us / 3.6e9, seconds_since(&b->started),
                 (unsigned long long)b->acked, (unsigned long long)b->read,
                 (unsigned long long)b->failures, isatty(STDOUT_FILENO) && !last ? "" : "\n");
    (void)fflush(stdout);
}

static bool print_marks(const struct batch *b)
{
    bool all = true;
    for (int i = 0; i < MARKS; i++) {
        bool missing = b->marks[i] == 0 && mark_is_required((enum mark)i);
        (void)printf("  %-24s %6llu  %s%s\n", mark_name((enum mark)i),
                     (unsigned long long)b->marks[i], mark_what((enum mark)i),
                     missing ? ": NEVER REACHED" : "");
        all = all && !missing;
    }
    return all;
}

static void write_ledger(const struct batch *b)
{
    FILE *f = b->o->ledger != NULL ? fopen(b->o->ledger, "a") : NULL;
    if (f != NULL) {
        (void)fprintf(f, "%llu %llu %llu %.4f %llu %llu\n", (unsigned long long)b->o->from,
                      (unsigned long long)b->o->to, (unsigned long long)b->done,
                      (double)b->simulated_us / 3.6e9, (unsigned long long)b->acked,
                      (unsigned long long)b->failures);
        (void)fclose(f);
    }
}

static int run_many(const struct options *o)
{
    static struct batch b;
    b.o = o;
    b.next = o->from;
    b.slots = shared_results(JOBS_MAX);
    b.again = shared_results(JOBS_MAX);
    (void)clock_gettime(CLOCK_MONOTONIC, &b.started);
    for (int i = 0; i < o->jobs; i++) {
        start_job(&b, i);
    }
    for (;;) {
        int status;
        pid_t pid = wait(&status);
        if (pid < 0) {
            break;
        }
        for (int i = 0; i < o->jobs; i++) {
            if (b.pids[i] == pid) {
                sim_disks_remove(pid);
                count(&b, i);
                if (o->twice) {
                    check_twice(&b, i);
                }
                progress(&b, false);
                start_job(&b, i);
            }
        }
    }
    progress(&b, true);
    write_ledger(&b);
    bool covered = !o->cover || print_marks(&b);
    return b.failures > 0 ? b.first_failure : covered ? 0 : NOT_COVERED;
}

/* ---- Options ---- */

static bool parse_range(const char *text, struct options *o)
{
    char *end;
    o->from = strtoull(text, &end, 10);
    o->to = o->from;
    if (strncmp(end, "..", 2) == 0) {
        o->to = strtoull(end + 2, &end, 10);
    }
    o->many = true;
    return *end == '\0' && o->to >= o->from;
}

/* An option without a value; false: it is none. */
static bool take_flag(const char *name, struct options *o)
{
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"--verbose", &o->run.verbose},
                 {"--frames", &o->run.frames},
                 {"--no-faults", &o->run.no_faults},
                 {"--cover", &o->cover},
                 {"--twice", &o->twice}};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *flags[i].flag = true;
            return true;
        }
    }
    return false;
}

static bool parse_lie(const char *text, struct options *o)
{
    static const char *const lies[] = {"none",      "lost",   "moved", "forged",
                                       "reordered", "unsaid", "again", "undone"};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        if (strcmp(text, lies[i]) == 0) {
            o->run.lie = (int)i;
            return true;
        }
    }
    return false;
}

static bool take_value(const char *name, const char *value, struct options *o)
{
    if (strcmp(name, "--seed") == 0) {
        o->run.seed = strtoull(value, NULL, 10);
    } else if (strcmp(name, "--seeds") == 0) {
        return parse_range(value, o);
    } else if (strcmp(name, "--nodes") == 0) {
        o->run.nodes = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--seconds") == 0) {
        o->run.seconds = strtoll(value, NULL, 10);
    } else if (strcmp(name, "--jobs") == 0) {
        o->jobs = (int)strtol(value, NULL, 10);
    } else if (strcmp(name, "--stop-after") == 0) {
        o->stop_after = (int)strtol(value, NULL, 10);
    } else if (strcmp(name, "--lie") == 0) {
        return parse_lie(value, o);
    } else if (strcmp(name, "--ledger") == 0) {
        o->ledger = value;
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options o = {.run = {.seed = 1, .print = true}, .jobs = 1};
    for (int i = 1; i < argc; i++) {
        if (take_flag(argv[i], &o)) {
            continue;
        }
        if (i + 1 == argc || !take_value(argv[i], argv[i + 1], &o)) {
            (void)fprintf(stderr, "sim: %s: see the head of tests/sim/main.c\n", argv[i]);
            return 2;
        }
        i++;
    }
    o.jobs = o.jobs < 1 ? 1 : o.jobs > JOBS_MAX ? JOBS_MAX : o.jobs;
    return o.many ? run_many(&o) : run_one(&o);
}
