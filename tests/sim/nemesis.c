#include "sim/nemesis.h"

#include "sim/checkers.h"
#include "sim/coverage.h"
#include "sim/observe.h"
#include "sim/sim_disk.h"

#define SPARED_US (10 * SIM_SECOND)

/* ---- What a seed draws ---- */

static bool some(uint64_t permille, bool faults)
{
    bool yes = chance_permille(permille); /* Drawn all the same: the rest of the seed stays. */
    return yes && faults;
}

static int64_t every(uint64_t permille, bool faults, int64_t low_ms, int64_t high_ms)
{
    int64_t ms = chance_between(low_ms, high_ms);
    return some(permille, faults) ? ms : 0;
}

static void draw_path(struct net_path *p, bool faults, bool peers)
{
    *p = (struct net_path){.delay_min_us = chance_between(20, 500),
                           .delay_mean_us = chance_between(20, 1000)};
    if (some(300, faults)) {
        p->delay_min_us = chance_between(0, 30) * SIM_MS;
        p->delay_mean_us = chance_between(1, 70) * SIM_MS;
    }
    if (some(300, faults)) {
        p->tail_permille = chance_between(1, 50);
        p->tail_us = chance_between(100, 5000) * SIM_MS;
    }
    if (some(500, faults)) {
        p->loss_permille = chance_permille(500) ? chance_between(1, 30) : chance_between(1, 300);
    }
    p->datagrams = some(peers ? 600 : 300, faults);
    if (some(peers ? 500 : 0, faults)) { /* TCP doubles nothing, and clients rely on it. */
        p->double_permille = chance_between(1, 500);
    }
    if (some(peers ? 500 : 0, faults)) {
        p->old_permille = chance_between(1, 200);
    }
    if (some(300, faults)) {
        p->flip_permille = chance_between(1, 20);
    }
}

/* Elections all the time, with messages of all ages on the way: what takes several terms to go
 * wrong goes wrong here. */
static void make_stormy(struct swarm *s)
{
    s->stormy = true;
    s->peers.datagrams = true;
    s->peers.loss_permille = chance_between(10, 250);
    s->peers.double_permille = chance_between(0, 300);
    s->peers.old_permille = chance_between(0, 200);
    s->peers.tail_permille = chance_between(0, 50);
    s->peers.tail_us = chance_between(100, 3000) * SIM_MS;
    s->cut_every_ms = chance_between(200, 1500);
    s->cut_longest_ms = chance_between(500, 4000);
    s->cut_kinds = (1u << CUT_KINDS) - 1;
    s->crash_every_ms = chance_between(500, 4000);
    s->down_longest_ms = chance_between(100, 2000);
    s->pause_every_ms = chance_between(1000, 5000);
    s->pause_longest_ms = chance_between(500, 3000);
    s->seconds = chance_between(15, 40);
}

/* Leaders whose clock hardly runs, cut off from their peers and not from clients: they take
 * themselves for leaders long after there is another. */
static void make_stale(struct swarm *s)
{
    s->stale = true;
    s->clock_every_ms = chance_between(300, 1500);
    s->drift = s->frozen = true;
    s->cut_every_ms = chance_between(2000, 6000);
    s->cut_longest_ms = chance_between(4000, 12000);
    s->cut_kinds = 1u << CUT_ISOLATE;
    s->crash_every_ms = 0;
    s->clients.loss_permille = 0;
    s->disk_every_ms = 0;
}

void swarm_draw(struct swarm *s, uint32_t nodes, bool faults)
{
    static const uint32_t sizes[] = {3, 3, 3, 5, 4};
    uint32_t drawn = sizes[chance_below(sizeof(sizes) / sizeof(sizes[0]))];
    *s = (struct swarm){.nodes = nodes > 0 ? nodes : drawn,
                        .shards_max = 1 + (uint32_t)chance_below(3),
                        .seconds = chance_between(15, 75)};
    draw_path(&s->peers, faults, true);
    draw_path(&s->clients, faults, false);
    s->cut_every_ms = every(500, faults, 500, 15000);
    s->cut_longest_ms = chance_permille(300) ? 900 : 12000;
    s->cut_kinds = 1 + (uint32_t)chance_below((1u << CUT_KINDS) - 1);
    s->flapping = some(150, faults);
    s->slow_every_ms = every(150, faults, 2000, 15000);
    s->crash_every_ms = every(650, faults, 500, 20000);
    s->down_longest_ms = chance_permille(500) ? 500 : 10000;
    s->crash_all_permille = some(300, faults) ? (uint32_t)chance_below(300) : 0;
    s->storms = some(150, faults);
    s->pause_every_ms = every(300, faults, 1000, 15000);
    s->pause_longest_ms = chance_permille(500) ? 1500 : 8000;
    s->clock_every_ms = every(300, faults, 1000, 15000);
    s->skew = some(500, faults);
    s->jumps = some(500, faults);
    s->drift = some(500, faults);
    s->frozen = some(200, faults);
    s->disk_every_ms = every(500, faults, 1000, 15000);
    s->commit_slow = some(400, faults);
    s->commit_stalls = some(300, faults);
    s->commit_fails = some(400, faults);
    s->disk_full = some(200, faults);
    s->rot = some(300, faults);
    s->wipe = some(250, faults);
    s->old_folder = some(250, faults);
    s->client_crash_every_ms = every(300, faults, 3000, 20000);
    if (some(350, faults)) {
        make_stormy(s);
    } else if (some(80, faults)) {
        make_stale(s);
    }
}

static void print_path(const char *name, const struct net_path *p, FILE *out)
{
    (void)fprintf(
        out,
        "  %s: %s, delay %lld+%lld us, tail %lld/1000 to %lld ms, loss %lld/1000, doubled "
        "%lld/1000, old %lld/1000, flips %lld/1000\n",
        name, p->datagrams ? "datagrams" : "streams", (long long)p->delay_min_us,
        (long long)p->delay_mean_us, (long long)p->tail_permille, (long long)(p->tail_us / SIM_MS),
        (long long)p->loss_permille, (long long)p->double_permille, (long long)p->old_permille,
        (long long)p->flip_permille);
}

void swarm_print(const struct swarm *s, FILE *out)
{
    (void)fprintf(out, "  %u nodes of up to %u shards, %lld s of faults%s\n", s->nodes,
                  s->shards_max, (long long)s->seconds,
                  s->stormy  ? ", stormy"
                  : s->stale ? ", stale"
                             : "");
    print_path("peers", &s->peers, out);
    print_path("clients", &s->clients, out);
    (void)fprintf(out, "  cuts every %lld ms up to %lld ms, kinds %x%s, slow hosts every %lld ms\n",
                  (long long)s->cut_every_ms, (long long)s->cut_longest_ms, s->cut_kinds,
                  s->flapping ? ", flapping" : "", (long long)s->slow_every_ms);
    (void)fprintf(out, "  crashes every %lld ms, down up to %lld ms, all %u/1000%s\n",
                  (long long)s->crash_every_ms, (long long)s->down_longest_ms,
                  s->crash_all_permille, s->storms ? ", storms" : "");
    (void)fprintf(out, "  pauses every %lld ms up to %lld ms, clients crash every %lld ms\n",
                  (long long)s->pause_every_ms, (long long)s->pause_longest_ms,
                  (long long)s->client_crash_every_ms);
    (void)fprintf(out, "  clocks every %lld ms:%s%s%s%s\n", (long long)s->clock_every_ms,
                  s->skew ? " skew" : "", s->jumps ? " jumps" : "", s->drift ? " drift" : "",
                  s->frozen ? " frozen" : "");
    (void)fprintf(out, "  disks every %lld ms:%s%s%s%s%s%s%s\n", (long long)s->disk_every_ms,
                  s->commit_slow ? " slow" : "", s->commit_stalls ? " stalls" : "",
                  s->commit_fails ? " fails" : "", s->disk_full ? " full" : "",
                  s->rot ? " rot" : "", s->wipe ? " wipe" : "", s->old_folder ? " old" : "");
}

/* ---- Again and again ---- */

static void again(struct nemesis *n, int64_t every_ms, event_run *run)
{
    if (every_ms > 0 && !n->over) {
        world_at(sim->now_us + chance_between(every_ms / 4, 2 * every_ms) * SIM_MS, run, n, 0);
    }
}

static struct sim_node *some_node(const struct nemesis *n)
{
    return n->nodes[chance_below(n->node_count)];
}

/* ---- The network ---- */

static void cut_pair(uint32_t a, uint32_t b)
{
    sim_net_cut(a, b, true);
    sim_net_cut(b, a, true);
}

/* Nodes' hosts are numbered from 0 in the order of their ids. */
static void cut_sides(const struct nemesis *n, uint64_t side)
{
    for (uint32_t a = 0; a < n->node_count; a++) {
        for (uint32_t b = 0; b < a; b++) {
            if ((side >> a & 1) != (side >> b & 1)) {
                cut_pair(a, b);
            }
        }
    }
    /* Clients are on one side or the other. */
    for (uint32_t c = n->first_client; c < sim->host_count; c++) {
        uint64_t mine = chance_below(3); /* 2: sees both. */
        for (uint32_t a = 0; a < n->node_count && mine < 2; a++) {
            if ((side >> a & 1) != mine) {
                cut_pair(a, c);
            }
        }
    }
}

static void cut_bridge(const struct nemesis *n)
{
    uint32_t bridge = (uint32_t)chance_below(n->node_count);
    uint64_t side = chance_below(1u << n->node_count);
    for (uint32_t a = 0; a < n->node_count; a++) {
        for (uint32_t b = 0; b < a; b++) {
            if (a != bridge && b != bridge && (side >> a & 1) != (side >> b & 1)) {
                cut_pair(a, b);
            }
        }
    }
}

/* Each node sees a majority, no two the same. */
static void cut_ring(const struct nemesis *n)
{
    uint32_t reach = n->node_count / 4 + 1;
    for (uint32_t a = 0; a < n->node_count; a++) {
        for (uint32_t b = 0; b < a; b++) {
            uint32_t apart = a - b < n->node_count - (a - b) ? a - b : n->node_count - (a - b);
            if (apart > reach) {
                cut_pair(a, b);
            }
        }
    }
}

static void cut_kind(const struct nemesis *n, enum cut_kind kind)
{
    uint32_t a = (uint32_t)chance_below(n->node_count);
    uint32_t b = (uint32_t)chance_below(n->node_count);
    switch (kind) {
    case CUT_HALVES:
        cut_sides(n, chance_below(1u << n->node_count));
        break;
    case CUT_ISOLATE:
        cut_sides(n, 1ull << a);
        break;
    case CUT_RING:
        cut_ring(n);
        break;
    case CUT_BRIDGE:
        cut_bridge(n);
        break;
    case CUT_ONE_WAY:
        sim_net_cut(a, b, a != b);
        break;
    case CUT_DEAF: /* Hears nobody, or is heard by nobody. */
        for (uint32_t i = 0; i < n->node_count; i++) {
            sim_net_cut(b & 1 ? a : i, b & 1 ? i : a, i != a);
        }
        break;
    case CUT_CLIENTS:
        for (uint32_t c = n->first_client; c < sim->host_count; c++) {
            if (chance_permille(500)) {
                cut_pair(a, c);
            }
        }
        break;
    case CUT_KINDS:
        break;
    }
}

/* A node with an old folder is being told that it is old. */
static bool spares(const struct nemesis *n)
{
    return sim->now_us < n->spared_until_us;
}

static void heal_cut(void *arg, uint64_t number)
{
    (void)arg;
    (void)number;
    sim_net_heal();
    trace(2, 0);
}

static void cut(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    (void)number;
    if (n->over) {
        return;
    }
    uint32_t kind = (uint32_t)chance_below(CUT_KINDS);
    if ((n->swarm->cut_kinds >> kind & 1) && !spares(n)) {
        n->cuts++;
        sim_say("cut of kind %u", kind);
        trace(1, kind);
        cut_kind(n, (enum cut_kind)kind);
        int64_t longest = n->swarm->flapping ? 500 : n->swarm->cut_longest_ms;
        world_at(sim->now_us + chance_between(50, longest) * SIM_MS, heal_cut, n, 0);
    }
    again(n, n->swarm->flapping ? 600 : n->swarm->cut_every_ms, cut);
}

static void slow(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    (void)number;
    if (!n->over) {
        sim_net_slow(some_node(n)->host->number, chance_between(0, 300) * SIM_MS);
        again(n, n->swarm->slow_every_ms, slow);
    }
}

/* ---- Processes ---- */

static void start_again(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    struct sim_node *node = n->nodes[number];
    if (!node->up && !n->over && !sim_node_start(node)) {
        world_at(sim->now_us + SIM_SECOND, start_again, n, number);
    }
}

static void crash_one(struct nemesis *n, uint32_t i)
{
    struct sim_node *node = n->nodes[i];
    if (!node->up) {
        return;
    }
    n->crashes++;
    uint64_t how = chance_below(4);
    if (how < 2) {
        sim_node_doom(node, how == 0 ? DOOM_BEFORE_COMMIT : DOOM_AFTER_COMMIT);
    } else {
        sim_node_crash(node);
    }
}

static void crash(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    (void)number;
    if (n->over) {
        return;
    }
    bool everyone = chance_permille(n->swarm->crash_all_permille);
    if (everyone) {
        mark(MARK_P02_ALL);
    }
    uint32_t one = (uint32_t)chance_below(n->node_count);
    for (uint32_t i = 0; i < n->node_count && !spares(n); i++) {
        if (everyone || i == one) {
            crash_one(n, i);
        }
    }
    again(n, n->swarm->storms && chance_permille(500) ? 300 : n->swarm->crash_every_ms, crash);
}

/* Whoever is down, by whatever fault, is started again some time. */
static void revive(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    (void)number;
    if (n->over) {
        return;
    }
    for (uint32_t i = 0; i < n->node_count; i++) {
        if (!n->nodes[i]->up) {
            world_at(sim->now_us + chance_between(0, n->swarm->down_longest_ms) * SIM_MS,
                     start_again, n, i);
        }
    }
    world_at(sim->now_us + 500 * SIM_MS + n->swarm->down_longest_ms * SIM_MS, revive, n, 0);
}

static void resume(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    if (n->nodes[number]->host->paused) {
        sim_say("%s resumes", n->nodes[number]->host->name);
        host_pause(n->nodes[number]->host, false);
    }
}

static void pause_node(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    (void)number;
    if (n->over) {
        return;
    }
    uint32_t i = (uint32_t)chance_below(n->node_count);
    if (n->nodes[i]->up && !n->nodes[i]->host->paused && !spares(n)) {
        n->pauses++;
        sim_say("%s pauses", n->nodes[i]->host->name);
        trace(3, i);
        host_pause(n->nodes[i]->host, true);
        int64_t ms = chance_between(50, n->swarm->pause_longest_ms);
        if (ms > 1500) {
            mark(MARK_P04_PAUSE);
        }
        world_at(sim->now_us + ms * SIM_MS, resume, n, i);
    }
    again(n, n->swarm->pause_every_ms, pause_node);
}

static void crash_client(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    (void)number;
    if (n->over || n->first_client >= sim->host_count) {
        return;
    }
    uint64_t i = n->first_client + chance_below(sim->host_count - n->first_client);
    struct host *h = &sim->hosts[i];
    if (!h->dead && n->client_crashes < 3) {
        n->client_crashes++;
        sim_say("%s dies", h->name);
        trace(4, i);
        h->dead = true;
        sim_net_host_died(h, sim->now_us);
    }
    again(n, n->swarm->client_crash_every_ms, crash_client);
}

/* ---- Clocks ---- */

static void clock_fault(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    const struct swarm *s = n->swarm;
    (void)number;
    if (n->over) {
        return;
    }
    struct host *h = some_node(n)->host;
    n->clocks++;
    switch (chance_below(4)) {
    case 0:
        h->wall_ms += s->skew ? chance_between(-20000, 20000) : 0;
        break;
    case 1:
        h->wall_ms += s->jumps ? chance_between(-3600000, 3600000) : 0;
        break;
    case 2:
        host_set_rate(h, s->drift ? chance_between(500000, 2000000) : 1000000);
        break;
    default:
        host_set_rate(h, s->frozen && chance_permille(500) ? 0 : 1000000);
        break;
    }
    again(n, s->clock_every_ms, clock_fault);
}

/* ---- Disks ---- */

static struct sim_disk_faults *faults_of(const struct sim_node *node, uint32_t shard)
{
    char path[PATH_MAX_BYTES + 32];
    sim_node_path(node, shard, path, sizeof(path));
    return sim_disk_faults(path);
}

static void heal_disk(const struct sim_node *node)
{
    for (uint32_t i = 0; i < node->shard_count; i++) {
        *faults_of(node, i) = (struct sim_disk_faults){.commit_min_us = 200, .commit_max_us = 800};
    }
}

static void end_full(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    for (uint32_t i = 0; i < n->nodes[number]->shard_count; i++) {
        faults_of(n->nodes[number], i)->full = false;
    }
}

/* A shard waits for a commit that never ends. */
static bool hangs(const struct sim_node *node)
{
    bool hung = false;
    for (uint32_t i = 0; i < node->shard_count; i++) {
        hung = hung || (node->up && node->tasks[i]->busy_us > sim->now_us + 3600 * SIM_SECOND);
    }
    return hung;
}

/* A process whose write hangs is killed in the end, by people if not by the kernel. */
static void end_stall(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    struct sim_node *node = n->nodes[number];
    heal_disk(node);
    if (hangs(node)) {
        n->crashes++;
        mark(MARK_D14_STALL);
        sim_node_crash(node);
    }
}

static void rot_some(struct nemesis *n, struct sim_node *node)
{
    char path[PATH_MAX_BYTES + 32];
    sim_node_path(node, (uint32_t)chance_below(node->shard_count), path, sizeof(path));
    const struct shadow *d = observe_disk(path);
    if (d == NULL || d->group_count == 0) {
        return;
    }
    const struct shadow_group *g = d->groups[chance_below(d->group_count)];
    if (g->count > 0) {
        uint64_t index = g->first + chance_below(g->count);
        n->rots += sim_disk_rot(path, g->id, index, chance_below(UINT64_MAX));
        sim_say("%s: entry %llu of group %llu rots", path, (unsigned long long)index,
                (unsigned long long)g->id);
    }
}

static void each_disk(struct nemesis *n, uint32_t i, bool wipe, bool restore)
{
    for (uint32_t k = 0; k < n->nodes[i]->shard_count; k++) {
        char path[PATH_MAX_BYTES + 32];
        sim_node_path(n->nodes[i], k, path, sizeof(path));
        struct shadow *d = observe_disk(path);
        if (wipe) {
            sim_disk_wipe(path);
        } else if (restore && n->images[i][k] != NULL) {
            sim_disk_restore(path, &n->images[i][k]);
        } else if (n->images[i][k] == NULL) {
            n->images[i][k] = sim_disk_copy(path);
            continue;
        }
        if (d != NULL) {
            d->changed_below = true;
        }
    }
}

static bool others_are_up(const struct nemesis *n, uint32_t i)
{
    bool up = true;
    for (uint32_t k = 0; k < n->node_count; k++) {
        up = up && (k == i || (n->nodes[k]->up && !n->nodes[k]->host->paused));
    }
    return up;
}

/* Before the others have told it, a node with an old folder votes as if it knew everything. Nothing
 * prevents that yet (RESULTS.md, SIM-P08): so they are all there, and stay so, until it has asked.
 */
static void put_old_folder(struct nemesis *n, uint32_t i)
{
    struct sim_node *node = n->nodes[i];
    n->restores++;
    sim_node_crash(node);
    sim_say("%s gets an old folder", node->host->name);
    each_disk(n, i, false, true);
    check_restored(node);
    n->spared_until_us = sim->now_us + SPARED_US;
    sim_net_heal();
    for (uint32_t k = 0; k < n->node_count; k++) {
        n->nodes[k]->doom = DOOM_NONE;
        resume(n, k);
    }
    start_again(n, i);
}

static void lose_data(struct nemesis *n)
{
    uint32_t i = (uint32_t)chance_below(n->victims);
    struct sim_node *node = n->nodes[i];
    const struct swarm *s = n->swarm;
    uint64_t kind = chance_below(3); /* The next one that this world has. */
    for (int k = 0; k < 3 && !(kind == 0 ? s->rot : kind == 1 ? s->wipe : s->old_folder); k++) {
        kind = (kind + 1) % 3;
    }
    switch (kind) {
    case 0:
        if (s->rot && node->up) {
            rot_some(n, node);
        }
        break;
    case 1:
        if (s->wipe && n->wipes < 3) {
            n->wipes++;
            sim_node_crash(node);
            sim_say("%s is wiped", node->host->name);
            each_disk(n, i, true, false);
        }
        break;
    default:
        if (s->old_folder && n->images[i][0] != NULL &&
            !(others_are_up(n, i) && check_others_have(node))) {
            break; /* Nobody could tell it: see RESULTS.md. */
        }
        if (s->old_folder && n->images[i][0] == NULL) {
            if (node->up) {
                each_disk(n, i, false, false);
            }
        } else if (s->old_folder) {
            put_old_folder(n, i);
        }
        break;
    }
}

static void disk_fault(void *arg, uint64_t number)
{
    struct nemesis *n = arg;
    const struct swarm *s = n->swarm;
    (void)number;
    if (n->over) {
        return;
    }
    uint32_t i = (uint32_t)chance_below(n->node_count);
    uint32_t k = (uint32_t)chance_below(n->nodes[i]->shard_count);
    struct sim_disk_faults *f = faults_of(n->nodes[i], k);
    n->disks++;
    switch (chance_below(5)) {
    case 0:
        f->slow_permille = s->commit_slow ? chance_between(1, 1000) : 0;
        f->slow_us = chance_between(1, 1000) * SIM_MS;
        break;
    case 1:
        if (s->commit_stalls) {
            sim_say("the disk of %s stalls", n->nodes[i]->host->name);
            f->stalled = true;
            world_at(sim->now_us + chance_between(1, 20) * SIM_SECOND, end_stall, n, i);
        }
        break;
    case 2:
        f->fail_next = s->commit_fails;
        f->fail_keeps = chance_permille(500);
        break;
    case 3:
        f->full = s->disk_full;
        if (f->full) {
            mark(MARK_D11_FULL);
        }
        world_at(sim->now_us + chance_between(1, 10) * SIM_SECOND, end_full, n, i);
        break;
    default:
        if (n->victims > 0) {
            lose_data(n);
        }
        break;
    }
    again(n, s->disk_every_ms, disk_fault);
}

/* ---- Beginning and end ---- */

void nemesis_start(struct nemesis *n, const struct swarm *s, struct sim_node **nodes,
                   uint32_t node_count, uint32_t victims)
{
    *n = (struct nemesis){.swarm = s,
                          .nodes = nodes,
                          .node_count = node_count,
                          .first_client = node_count,
                          .victims = victims};
    *sim_net_path(true) = s->peers;
    *sim_net_path(false) = s->clients;
    again(n, s->flapping ? 600 : s->cut_every_ms, cut);
    again(n, s->slow_every_ms, slow);
    again(n, s->crash_every_ms, crash);
    again(n, s->pause_every_ms, pause_node);
    again(n, s->clock_every_ms, clock_fault);
    again(n, s->disk_every_ms, disk_fault);
    again(n, s->client_crash_every_ms, crash_client);
    world_at(sim->now_us + SIM_SECOND, revive, n, 0);
}

static void heal_path(struct net_path *p)
{
    *p = (struct net_path){.delay_min_us = 100, .delay_mean_us = 200};
}

void nemesis_heal(struct nemesis *n, uint32_t dead)
{
    n->over = true;
    if (n->wipes + n->restores + n->rots > 0) {
        dead = 0; /* A minority has lost its data already, and needs all others to get it back. */
    }
    sim_net_heal();
    heal_path(sim_net_path(true));
    heal_path(sim_net_path(false));
    for (uint32_t i = 0; i < n->node_count; i++) {
        struct sim_node *node = n->nodes[i];
        heal_disk(node);
        host_set_rate(node->host, 1000000);
        host_pause(node->host, false);
        node->doom = DOOM_NONE;
        if (i + dead >= n->node_count || hangs(node)) {
            sim_node_crash(node);
        }
        if (i + dead < n->node_count && !node->up) {
            (void)sim_node_start(node);
        }
    }
    sim_say("healed, %u nodes stay dead", dead);
}

void nemesis_fini(struct nemesis *n)
{
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        for (uint32_t k = 0; k < SIM_SHARDS_MAX; k++) {
            sim_disk_free(&n->images[i][k]);
        }
    }
}
