/* nemesis: which faults a seed has, and when they strike.
 *
 * Swarm testing: each seed draws which kinds of fault exist in its world at all, and how often; so
 * some worlds have only one kind, and some many at a time. Everything drawn is printed.
 *
 * What may destroy data (a wiped, rotten or older folder) strikes only nodes of one minority,
 * chosen at the start: the promise is kept through the loss of any minority, not of more. */
#ifndef FERRY_SIM_NEMESIS_H
#define FERRY_SIM_NEMESIS_H

#include "sim/sim_net.h"
#include "sim/sim_node.h"

enum cut_kind {
    CUT_HALVES,
    CUT_ISOLATE,
    CUT_RING,
    CUT_BRIDGE,
    CUT_ONE_WAY,
    CUT_DEAF,
    CUT_CLIENTS,
    CUT_KINDS
};

struct swarm {
    uint32_t nodes;
    uint32_t shards_max;
    int64_t seconds; /* Of faults. */
    struct net_path peers, clients;
    int64_t cut_every_ms, cut_longest_ms; /* 0: never. */
    uint32_t cut_kinds;                   /* A bit each. */
    bool flapping, stormy, stale;
    int64_t slow_every_ms;
    int64_t crash_every_ms, down_longest_ms;
    uint32_t crash_all_permille; /* Of crashes. */
    bool storms;                 /* Several restarts in a row. */
    int64_t pause_every_ms, pause_longest_ms;
    int64_t clock_every_ms;
    bool skew, jumps, drift, frozen;
    int64_t disk_every_ms;
    bool commit_slow, commit_stalls, commit_fails, disk_full, rot, wipe, old_folder;
    int64_t client_crash_every_ms;
};

struct nemesis {
    const struct swarm *swarm;
    struct sim_node **nodes;
    uint32_t node_count;
    uint32_t first_client; /* Hosts from here on are clients. */
    uint32_t victims;      /* Nodes 0.. below it may lose data. */
    struct sim_disk *images[SIM_NODES_MAX][SIM_SHARDS_MAX];
    bool over;
    int64_t spared_until_us; /* Nobody is crashed, paused or cut off before. */
    uint64_t crashes, cuts, pauses, clocks, disks, wipes, rots, restores, client_crashes;
};

void swarm_draw(struct swarm *s, uint32_t nodes, bool faults);
void swarm_print(const struct swarm *s, FILE *out);

void nemesis_start(struct nemesis *n, const struct swarm *s, struct sim_node **nodes,
                   uint32_t node_count, uint32_t victims);
/* Ends all faults; `dead` nodes (a minority, from the end of the array) stay dead for good. */
void nemesis_heal(struct nemesis *n, uint32_t dead);
void nemesis_fini(struct nemesis *n);

#endif
