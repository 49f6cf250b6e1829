#include "sim/sim_node.h"

#include "base/mem.h"
#include "sim/checkers.h"
#include "sim/coverage.h"
#include "sim/observe.h"
#include "sim/sim_disk.h"

static struct sim_node *nodes[SIM_HOSTS_MAX]; /* By host. */

struct sim_node *sim_node_current(void)
{
    return sim != NULL && sim->current != NULL ? nodes[sim->current->host->number] : NULL;
}

void sim_node_founder(uint32_t id, char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "%u=tcp://10.0.0.%u:7500", id, id);
}

static void set_options(struct sim_node *n, const char *founders)
{
    option_defaults(broker_option_table(), &n->options);
    n->options.node_id = n->id;
    n->options.shards = n->shard_count;
    n->options.insecure = true;
    n->options.topic_retention_ms = 0;
    (void)snprintf(n->options.data, sizeof(n->options.data), "%s/%u", sim_disks_root(), n->id);
    sim_disks_make_folder(n->options.data);
    n->options.weight = 1;
    n->options.store_grow_bytes = 1 << 20;
    n->options.store_reserve_bytes = 1 << 20;
    (void)snprintf(n->options.endpoint, sizeof(n->options.endpoint), "tcp://10.0.0.%u:7400", n->id);
    if (founders[0] != '\0') {
        (void)snprintf(n->options.peer_listen, sizeof(n->options.peer_listen),
                       "tcp://10.0.0.%u:7500", n->id);
        (void)snprintf(n->options.bootstrap, sizeof(n->options.bootstrap), "%s", founders);
        (void)snprintf(n->options.zone, sizeof(n->options.zone), "z%u", n->id % 3);
    }
}

struct sim_node *sim_node_new(uint32_t id, uint32_t shards, const char *founders)
{
    must(shards <= SIM_SHARDS_MAX);
    struct sim_node *n = mem_zalloc(1, sizeof(*n));
    must(n != NULL);
    char name[16];
    (void)snprintf(name, sizeof(name), "node%u", id);
    n->id = id;
    n->shard_count = shards;
    n->host = world_host(name, true);
    n->host->dead = true;
    nodes[n->host->number] = n;
    set_options(n, founders);
    return n;
}

void sim_node_path(const struct sim_node *n, uint32_t shard, char *path, size_t bytes)
{
    (void)snprintf(path, bytes, "%s/shard-%u", n->options.data, shard);
}

const char *sim_node_endpoint(const struct sim_node *n)
{
    return n->options.endpoint;
}

/* ---- Turns ---- */

static void bury(struct sim_node *n, int64_t when_us);

/* What a turn did is there when its time is over, and the node still is. */
static void check_later(void *arg, uint64_t number)
{
    struct sim_node *n = arg;
    if (n->up && n->starts == number >> 8) {
        check_turn(n, (uint32_t)(number & 0xff));
    }
}

static void turn(struct task *t)
{
    struct sim_node *n = nodes[t->host->number];
    uint32_t i = 0;
    while (n->tasks[i] != t) {
        i++;
    }
    struct shard *s = n->shards[i];
    shard_turn(s);
    if (n->host->dead) {
        bury(n, world_now());
        return;
    }
    world_at(world_now(), check_later, n, n->starts << 8 | i);
    if (shard_failure(s) != FERRY_OK) {
        n->ended = shard_failure(s);
        sim_say("the process ends: %s", ferry_err_name(n->ended));
        n->host->dead = true;
        bury(n, world_now());
        return;
    }
    int wait = shard_wait_ms(s);
    task_sleep(t, sim->now_us + t->spent_us + wait * SIM_MS);
}

/* ---- Life ---- */

static bool make_shards(struct sim_node *n, struct err_text *e)
{
    struct shard_config config = {
        .options = &n->options, .context = n->context, .seed = 1 + chance_below(UINT64_MAX - 1)};
    for (uint32_t i = 0; i < n->shard_count; i++) {
        char name[48];
        (void)snprintf(name, sizeof(name), "%s.%u", n->host->name, i);
        n->tasks[i] = task_new(n->host, name, turn, n);
        sim->current = n->tasks[i];
        config.index = i;
        if (shard_new(&config, &n->shards[i], e) != FERRY_OK) {
            return false;
        }
        config.cluster_id = shard_cluster_id(n->shards[0]);
        config.incarnation = shard_incarnation(n->shards[0]);
    }
    return true;
}

static void free_shards(struct sim_node *n)
{
    for (uint32_t i = 0; i < n->shard_count; i++) {
        struct shard *s = n->shards[i];
        if (n->tasks[i] != NULL) {
            task_end(n->tasks[i]);
            sim->current = n->tasks[i];
        }
        if (s != NULL && shard_failure(s) == FERRY_OK) {
            shard_fail_store(s, FERRY_ERR_STORE_FAILED);
        }
        shard_free(&n->shards[i]);
        n->tasks[i] = NULL;
    }
    net_context_free(&n->context);
}

bool sim_node_start(struct sim_node *n)
{
    must(!n->up);
    struct err_text e = {{0}};
    if (n->ended == FERRY_ERR_OLD_FOLDER || n->ended == FERRY_ERR_NODE_REPLACED) {
        sim_say("%s gets an empty folder, as its last words asked for", n->host->name);
        sim_node_wipe(n);
    }
    n->host->dead = false;
    n->host->paused = false;
    n->starts++;
    struct task *before = sim->current;
    struct task starter = {.host = n->host, .name = "start"};
    sim->current = &starter;
    must(net_context_new(1, &n->context) == FERRY_OK);
    n->up = make_shards(n, &e);
    sim->current = before;
    if (!n->up) {
        sim_say("%s cannot start: %s", n->host->name, e.text);
        n->host->dead = true;
        free_shards(n);
        sim->current = before;
        return false;
    }
    for (uint32_t i = 0; i < n->shard_count; i++) {
        shard_connect(n->shards[i], n->shards, n->shard_count);
        task_wake(n->tasks[i]);
    }
    n->member = (raft_id)shard_incarnation(n->shards[0]) << 32 | n->id;
    n->ended = FERRY_OK;
    check_started(n);
    trace(n->id, n->starts);
    sim_say("%s starts", n->host->name);
    return true;
}

static void bury(struct sim_node *n, int64_t when_us)
{
    struct task *before = sim->current;
    sim_say("%s dies", n->host->name);
    n->host->dead = true;
    n->up = false;
    n->doom = DOOM_NONE;
    sim_net_host_died(n->host, when_us);
    free_shards(n);
    sim->current = before;
    for (uint32_t i = 0; i < n->shard_count; i++) {
        char path[PATH_MAX_BYTES + 32];
        sim_node_path(n, i, path, sizeof(path));
        struct shadow *d = observe_disk(path);
        if (sim_disk_crash(path, when_us, n->keeps) && d != NULL) {
            d->changed_below = true;
            mark(MARK_D01_UNSYNCED);
        }
    }
    trace(n->id, 0);
}

void sim_node_crash(struct sim_node *n)
{
    if (n->up) {
        n->keeps = chance_permille(500);
        bury(n, sim->now_us);
    }
}

void sim_node_wipe(struct sim_node *n)
{
    must(!n->up);
    n->ended = FERRY_OK;
    for (uint32_t i = 0; i < n->shard_count; i++) {
        char path[PATH_MAX_BYTES + 32];
        sim_node_path(n, i, path, sizeof(path));
        struct shadow *d = observe_disk(path);
        sim_disk_wipe(path);
        if (d != NULL) {
            d->changed_below = true;
        }
    }
}

void sim_node_doom(struct sim_node *n, enum doom doom)
{
    n->keeps = true;
    n->doom = doom;
}

void sim_node_free(struct sim_node **node)
{
    struct sim_node *n = *node;
    if (n == NULL) {
        return;
    }
    sim_node_crash(n);
    nodes[n->host->number] = NULL;
    mem_free(n);
    *node = NULL;
}
