#include "sim/run.h"

#include "sim/checkers.h"
#include "sim/coverage.h"
#include "sim/fiber.h"
#include "sim/nemesis.h"
#include "sim/observe.h"
#include "sim/sim_disk.h"
#include "sim/workload.h"

#define START_US    (60 * SIM_SECOND)
#define LIVENESS_US (180 * SIM_SECOND)
/* Leaderships go to the preferred replicas once, by transfer; nobody else is elected any more. */
#define CALM_ELECTIONS_MAX 24
#define SETTLE_US          (12 * SIM_SECOND) /* Until rows are on all disks. */

struct run {
    const struct run_options *options;
    struct world world;
    struct swarm swarm;
    struct nemesis nemesis;
    struct workload load;
    struct sim_node *nodes[SIM_NODES_MAX];
    uint32_t node_count;
};

static bool topics_made(const struct run *r)
{
    return r->load.topics_made;
}

static bool verified(const struct run *r)
{
    return r->load.verified;
}

static bool programs_over(const struct run *r)
{
    return workload_is_over(&r->load);
}

/* Runs until it holds; false: not within `most_us`. */
static bool run_until(struct run *r, bool (*holds)(const struct run *), int64_t most_us)
{
    int64_t until = r->world.now_us + most_us;
    while (!r->world.ended && !holds(r) && r->world.now_us < until) {
        world_run(&r->world, r->world.now_us + 100 * SIM_MS);
    }
    return holds(r);
}

/* ---- Queues, groups, … ---- */

static void add_queue(struct run *r, const char *name, uint32_t topic, enum ferry_mode mode)
{
    struct load_queue *q = &r->load.queues[r->load.queue_count];
    bool there = chance_permille(600);
    uint32_t backoff_ms = (uint32_t)chance_between(1, 500);
    *q = (struct load_queue){
        .spec = {.mode = mode,
                 .from = FERRY_FROM_START,
                 .lease_ms = (uint32_t)chance_between(500, 5000),
                 .max_deliveries = (uint32_t)chance_between(2, 6),
                 .backoff_min_ms = backoff_ms,
                 .backoff_max_ms = backoff_ms * (uint32_t)chance_between(1, 8),
                 .key_policy = strcmp(name, "parked") == 0 ? FERRY_KEY_PARK : FERRY_KEY_WAIT,
                 .inflight_max = (uint32_t)chance_between(5, 100),
                 .priority_age_ms = (uint32_t)chance_between(100, 5000)},
        .resets = strcmp(name, "over") == 0};
    (void)snprintf(q->name, sizeof(q->name), "%s", name);
    deliveries_init(&q->deliveries, &r->load.history, q->name, topic, mode == FERRY_MODE_KEYED,
                    q->spec.max_deliveries);
    q->deliveries.exact_clocks = r->swarm.clock_every_ms == 0 || !r->swarm.drift;
    q->deliveries.exact_times = r->swarm.clock_every_ms == 0;
    r->load.queue_count += there;
}

static void draw_queues(struct run *r)
{
    struct workload *w = &r->load;
    w->delays = chance_permille(400);
    w->group_topic = 0;
    w->versions_topic = 1;
    if (chance_permille(300)) {
        return;
    }
    add_queue(r, "work", 0, FERRY_MODE_QUEUE);
    add_queue(r, "keyed", 0, FERRY_MODE_KEYED);
    add_queue(r, "parked", 1, FERRY_MODE_KEYED);
    add_queue(r, "over", 1, FERRY_MODE_QUEUE);
    add_queue(r, "old", 2, FERRY_MODE_QUEUE);
}

static void start_queue_programs(struct run *r)
{
    for (uint64_t i = 2 + chance_below(3); i-- > 0 && r->load.queue_count > 0;) {
        workload_start(&r->load, PROGRAM_WORKER);
    }
    if (r->load.queue_count > 0 && chance_permille(600)) {
        workload_start(&r->load, PROGRAM_STEWARD);
    }
    if (chance_permille(500)) {
        for (uint64_t i = 2 + chance_below(2); i-- > 0;) {
            workload_start(&r->load, PROGRAM_MEMBER);
        }
    }
    if (chance_permille(400)) {
        workload_start(&r->load, PROGRAM_PUBLISHER);
        workload_start(&r->load, PROGRAM_PUBLISHER);
    }
}

static void make_nodes(struct run *r)
{
    char servers[400] = "";
    char founders[400] = "";
    size_t used = 0;
    r->node_count = r->swarm.nodes;
    for (uint32_t i = 0; i < r->node_count && r->node_count > 1; i++) {
        char one[64];
        sim_node_founder(i + 1, one, sizeof(one));
        used += (size_t)snprintf(founders + used, sizeof(founders) - used, "%s%s", i > 0 ? "," : "",
                                 one);
    }
    used = 0;
    for (uint32_t i = 0; i < r->node_count; i++) {
        r->nodes[i] =
            sim_node_new(i + 1, 1 + (uint32_t)chance_below(r->swarm.shards_max), founders);
        used += (size_t)snprintf(servers + used, sizeof(servers) - used, "%s%s", i > 0 ? "," : "",
                                 sim_node_endpoint(r->nodes[i]));
    }
    uint32_t most = r->node_count >= 5 && chance_permille(500) ? 5 : 3;
    workload_init(&r->load, servers, r->node_count < 3 ? 1 : most);
    r->load.nodes = r->node_count;
    r->load.history.lie = (enum history_lie)r->options->lie;
    for (uint32_t i = 0; i < 3; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "topic%u", i);
        uint32_t t = history_add_topic(&r->load.history, name, 1 + (uint32_t)chance_below(3));
        r->load.history.topics[t].retained = i == 2;
        r->load.history.topics[t].by_acks = i == 2 && chance_permille(500);
    }
    r->load.relay_topic =
        history_add_topic(&r->load.history, "relayed", 1 + (uint32_t)chance_below(2));
    r->load.history.topics[history_add_topic(&r->load.history, "temp", 1)].loose = true;
    draw_queues(r);
}

static void start_programs(struct run *r)
{
    for (uint64_t i = 1 + chance_below(3); i-- > 0;) {
        workload_start(&r->load, PROGRAM_PRODUCER);
    }
    for (uint64_t i = 1 + chance_below(2); i-- > 0;) {
        workload_start(&r->load, PROGRAM_READER);
    }
    workload_start(&r->load, PROGRAM_SUBSCRIBER);
    for (uint64_t i = chance_below(3), first = i; i-- > 0;) {
        workload_start(&r->load, PROGRAM_RELAY);
        for (uint64_t k = i + 1 < first ? 0 : r->swarm.stale ? 3 : 1; k-- > 0;) {
            workload_start(&r->load, PROGRAM_WATCHER);
        }
    }
    for (uint64_t i = chance_below(3); i-- > 0;) {
        workload_start(&r->load, PROGRAM_ADMIN);
    }
    start_queue_programs(r);
}

static void run_world(struct run *r)
{
    for (uint32_t i = 0; i < r->node_count; i++) {
        must(sim_node_start(r->nodes[i]));
    }
    workload_make_topics(&r->load);
    if (!run_until(r, topics_made, START_US)) {
        sim_fail(SIM_LIVENESS, "no topics after the start");
        return;
    }
    start_programs(r);
    nemesis_start(&r->nemesis, &r->swarm, r->nodes, r->node_count, (r->load.replicas - 1) / 2);
    world_run(&r->world, r->world.now_us + r->swarm.seconds * SIM_SECOND);
    if (r->world.ended) {
        return;
    }
    r->load.stop = true;
    uint32_t minority = (r->load.replicas - 1) / 2;
    nemesis_heal(&r->nemesis, (uint32_t)chance_below(minority + 1));
    if (!run_until(r, programs_over, LIVENESS_US)) {
        sim_fail(SIM_LIVENESS, "INV-V04: a client program does not end in the healed phase");
        return;
    }
    workload_verify(&r->load);
    if (!run_until(r, verified, LIVENESS_US)) {
        sim_fail(SIM_LIVENESS, "INV-V01: not everything could be written and read in time");
        return;
    }
    history_check_end(&r->load.history);
    for (uint32_t i = 0; i < r->load.queue_count && !r->world.ended; i++) {
        deliveries_check_end(&r->load.queues[i].deliveries);
    }
    uint64_t elections = check_counters()->elections;
    world_run(&r->world, r->world.now_us + SETTLE_US);
    if (check_counters()->elections > elections + CALM_ELECTIONS_MAX) {
        sim_fail(SIM_LIVENESS, "INV-V02: %llu elections in %lld s of a healed cluster",
                 (unsigned long long)(check_counters()->elections - elections),
                 (long long)(SETTLE_US / SIM_SECOND));
    }
    check_caught_up();
    check_same_state();
}

static uint64_t delayed_that_came(const struct history *h)
{
    uint64_t count = 0;
    for (uint64_t n = 1; n < h->count; n++) {
        count += h->messages[n].delayed && h->messages[n].offset >= 0;
    }
    return count;
}

/* Of all queues. */
struct queue_sums {
    uint64_t again, late, close, unseen, dead, poison;
};

static struct queue_sums sum_queues(const struct workload *w)
{
    struct queue_sums sum = {0};
    for (uint32_t i = 0; i < w->queue_count; i++) {
        const struct deliveries *d = &w->queues[i].deliveries;
        sum.again += d->again;
        sum.late += d->late;
        sum.close += d->close;
        sum.unseen += deliveries_unseen(d);
        sum.dead += d->dead;
        sum.poison += d->poison;
    }
    return sum;
}

static bool dropped_by_acks(const struct history *h)
{
    bool dropped = false;
    for (uint32_t i = 0; i < h->topic_count; i++) {
        for (uint32_t p = 0; p < h->topics[i].partitions; p++) {
            dropped |= h->topics[i].by_acks && h->topics[i].logs[p].first_kept > 0;
        }
    }
    return dropped;
}

static void mark_queues(const struct run *r)
{
    const struct workload *w = &r->load;
    const struct load_counters *c = &w->counters;
    const struct queue_sums sum = sum_queues(w);
    const struct check_counters *e = check_counters();
    uint64_t delayed = delayed_that_came(&w->history);
    const struct {
        enum mark mark;
        bool was;
    } marks[] = {{MARK_F01_AT_THE_END, sum.close > 0},
                 {MARK_F02_TOO_LATE, sum.late > 0},
                 {MARK_F02_PAUSED, c->paused_workers > 0},
                 {MARK_F03_UNSEEN, sum.unseen > 0},
                 {MARK_F04_FAILOVER, sum.again > 0 && e->elections > 12},
                 {MARK_F04_SNAPSHOT, sum.again > 0 && e->snapshots > 0},
                 {MARK_F05_DEAD_READ, sum.dead > 0},
                 {MARK_F05_REPLAYED, c->replayed > 0},
                 {MARK_F05_DROPPED, c->dropped > 0},
                 {MARK_F06_POISON, sum.poison > 0},
                 {MARK_F07_REBALANCE, w->group.given > HISTORY_PARTITIONS_MAX},
                 {MARK_F07_ZOMBIE, c->zombie_commits > 0},
                 {MARK_F08_STUCK, c->independent > 0},
                 {MARK_F10_OVERTAKEN, c->expired > 0},
                 {MARK_F11_DELAYED, delayed > 0},
                 {MARK_F11_CLOCKS, delayed > 0 && r->nemesis.clocks > 0 && r->swarm.jumps},
                 {MARK_F11_CANCELLED, c->cancelled > 0},
                 {MARK_Q_RESET, c->resets > 0},
                 {MARK_Q_PAUSED, c->pauses > 0},
                 {MARK_Q_BY_ACKS, dropped_by_acks(&w->history)},
                 {MARK_Q_RECURRING, c->recurring > 0},
                 {MARK_Q_TRACED, c->traced > 0},
                 {MARK_Q_QUOTA, c->quotas > 0},
                 {MARK_Q_DIED, c->died_with_messages > 0},
                 {MARK_Q_CONFLICT, w->versions.conflicts > 0}};
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (marks[i].was) {
            mark(marks[i].mark);
        }
    }
}

static void mark_what_was(const struct run *r)
{
    mark_queues(r);
    const struct net_counters *c = sim_net_counters();
    const struct history *h = &r->load.history;
    const struct nemesis *n = &r->nemesis;
    const struct check_counters *e = check_counters();
    const struct {
        enum mark mark;
        bool was;
    } marks[] = {{MARK_N01_LOST, c->lost > 0},
                 {MARK_N02_DOUBLED, c->doubled > 0},
                 {MARK_N02_OLD, c->old > 0},
                 {MARK_N05_CUT, n->cuts > 0},
                 {MARK_N09_RESET, c->resets > 0},
                 {MARK_N10_FLIP, c->flipped > 0},
                 {MARK_P07_WIPE, n->wipes > 0},
                 {MARK_P08_OLD_FOLDER, n->restores > 0},
                 {MARK_T01_CLOCK, n->clocks > 0},
                 {MARK_D06_ROT, n->rots > 0},
                 {MARK_E_ELECTION, e->elections > 12},
                 {MARK_E11_PRE_VOTE, e->pre_votes > 0},
                 {MARK_E13_STEP_DOWN, e->step_downs > 0},
                 {MARK_E16_JOINT, e->joint > 0},
                 {MARK_E18_LEARNER, e->learners > 0},
                 {MARK_E20_NEW_LIFE, n->wipes > 0 && e->learners > 0},
                 {MARK_E23_SNAPSHOT, e->snapshots > 0},
                 {MARK_E23_INSTALLING_CRASH, e->install_crashes > 0},
                 {MARK_E26_TRANSFER, e->transfers > 0},
                 {MARK_E32_DAMAGED, e->damaged > 0},
                 {MARK_D04_REPAIRED, e->repairs > 0},
                 {MARK_QUIET, e->quiet > 0},
                 {MARK_R18_COMPARED, e->compared > 0},
                 {MARK_F15_MOVED, r->load.moves > 0},
                 {MARK_F15_DRAINED, r->load.drains > 0},
                 {MARK_LEASE, r->load.leases > 1},
                 {MARK_F13_RELAY, r->load.relay[0].cursor > 0},
                 {MARK_F09_TOPIC_DELETED, r->load.temp_deleted > 0},
                 {MARK_L_UNKNOWN, h->unknown > 0},
                 {MARK_L_DUPLICATE, h->duplicates > 0}};
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (marks[i].was) {
            mark(marks[i].mark);
        }
    }
}

static void print_counts(const struct run *r)
{
    const struct history *h = &r->load.history;
    const struct nemesis *n = &r->nemesis;
    swarm_print(&r->swarm, stdout);
    for (uint32_t i = 0; i < r->load.queue_count; i++) {
        const struct deliveries *d = &r->load.queues[i].deliveries;
        (void)printf("  %s: %u hand-outs, %llu of them again; acked %llu, nacked %llu, released "
                     "%llu, rejected %llu, refused %llu, unknown %llu; %llu dead\n",
                     d->name, d->count - 1, (unsigned long long)d->again,
                     (unsigned long long)d->confirmed[FERRY_ACK],
                     (unsigned long long)d->confirmed[FERRY_NACK],
                     (unsigned long long)d->confirmed[FERRY_RELEASE],
                     (unsigned long long)d->confirmed[FERRY_REJECT], (unsigned long long)d->refused,
                     (unsigned long long)d->unknown, (unsigned long long)d->dead);
    }
    (void)printf("  group: %u members joined, %llu partitions given, %zu commits, %llu fenced; "
                 "versions: %llu stored, %llu conflicts, %llu unknown\n",
                 r->load.group.members, (unsigned long long)r->load.group.given,
                 r->load.group.commit_count, (unsigned long long)r->load.group.fenced,
                 (unsigned long long)r->load.versions.stored,
                 (unsigned long long)r->load.versions.conflicts,
                 (unsigned long long)r->load.versions.unknown);
    (void)printf("  acked %llu, unknown %llu, not stored %llu, read %llu, duplicates %llu\n",
                 (unsigned long long)h->acked, (unsigned long long)h->unknown,
                 (unsigned long long)h->not_stored, (unsigned long long)h->read,
                 (unsigned long long)h->duplicates);
    (void)printf(
        "  crashes %llu, cuts %llu, pauses %llu, clocks %llu, disks %llu, wipes %llu, rots "
        "%llu, old folders %llu\n",
        (unsigned long long)n->crashes, (unsigned long long)n->cuts, (unsigned long long)n->pauses,
        (unsigned long long)n->clocks, (unsigned long long)n->disks, (unsigned long long)n->wipes,
        (unsigned long long)n->rots, (unsigned long long)n->restores);
}

void run_seed(const struct run_options *options, struct run_result *result)
{
    static struct run run; /* Large; a process runs one. */
    struct run *r = &run;
    r->options = options;
    world_init(&r->world, options->seed);
    r->world.verbose = options->verbose;
    marks_clear();
    sim_net_init();
    sim_disks_init();
    observe_init();
    swarm_draw(&r->swarm, options->nodes, !options->no_faults);
    if (options->seconds > 0) {
        r->swarm.seconds = options->seconds;
    }
    make_nodes(r);
    checkers_init(r->nodes, r->node_count, options->frames);
    run_world(r);
    mark_what_was(r);
    if (r->world.ended && options->verbose) {
        check_show();
    }
    *result = (struct run_result){.end = r->world.end,
                                  .hash = r->world.hash,
                                  .events = r->world.events,
                                  .simulated_us = r->world.now_us,
                                  .acked = r->load.history.acked,
                                  .read = r->load.history.read};
    memcpy(result->verdict, r->world.verdict, sizeof(result->verdict));
    for (int i = 0; i < MARKS; i++) {
        result->marks[i] = mark_is_set((enum mark)i);
    }
    if (options->print) {
        print_counts(r);
    }
    /* What fibers and nodes still hold goes with the process: a seed has one of its own. */
}
