/* What the files of raft_cluster share: raft_cluster.c has time and faults, raft_cluster_net.c the
 * network, raft_cluster_node.c the driver of one node. */
#ifndef FERRY_TEST_RAFT_CLUSTER_INNER_H
#define FERRY_TEST_RAFT_CLUSTER_INNER_H

#include "base/prng.h"
#include "lib/raft_checker.h"
#include "lib/raft_cluster.h"

#define PACKETS_MAX     768
#define READS_MAX       64
#define SNAPSHOTS_MAX   64
#define PROPOSALS_ROOM  512 /* Entries kept free for no-ops and the last proposals. */
#define CHAOS_EVERY_US  5000
#define FAULTS_FOR_US   6000000
#define HEALED_FOR_US   6000000
#define LATE_DELAY_US   900000
#define OLD_DELAY_US    5000000
#define MATCH_EVERY     64 /* Steps between comparisons of whole logs. */
#define ELECTION_MIN_US 150000
#define ELECTION_MAX_US 300000
#define HEARTBEAT_US    40000
#define PER_MILLE       1000

/* The payload of an entry. */
struct payload {
    uint64_t value;
    uint32_t config;
};

struct packet {
    struct raft_message message;
    struct raft_run runs[RAFT_APPEND_RUNS_MAX];
    struct payload *payloads; /* Owned: of the entries. */
    int64_t at_us;            /* On the network: arrives then. */
    uint64_t number;          /* Waiting for an fsync: of this update. */
};

/* What is on disk, or will be when the fsync under way returns. */
struct image {
    struct checker_log log;
    raft_term term;
    raft_id vote;
    raft_index commit, trim_index;
    bool knows_group; /* Of the configuration from before the log. */
    uint64_t number;
};

struct waiting_read {
    uint64_t number;
    raft_index floor; /* Committed when it was asked: what it must show. */
};

struct node {
    struct raft *r; /* NULL: crashed. */
    struct image now, syncing, disk;
    bool is_dirty, is_syncing, is_cut_off;
    bool was_quiet;
    uint64_t truncate_number;
    int64_t sync_done_us, paused_until_us;
    int64_t reached_us[CHECKER_NODES_MAX + 1]; /* When each other could last ask it and answer. */
    int64_t leads_alone_us; /* Since when it leads and nobody can answer; 0: not so. */
    raft_index mute;        /* It cannot read this entry; 0: all. */
    uint64_t boot;
    uint64_t heard_boot[CHECKER_NODES_MAX + 1]; /* Of each other node, when it was last heard. */
    int64_t heard_us[CHECKER_NODES_MAX + 1];
    bool told_silent[CHECKER_NODES_MAX + 1];
    struct packet waiting[PACKETS_MAX]; /* send_after_sync. */
    size_t waiting_count;
    struct waiting_read reads[READS_MAX];
    size_t read_count;
    uint64_t read_number;
};

/* A snapshot on its way: all entries up to `index`. */
struct snapshot {
    raft_id from, to;
    uint64_t from_boot;
    raft_index index;
    int64_t at_us;
    bool is_lost;
};

struct cluster {
    struct prng prng;
    size_t node_count;
    struct node nodes[CHECKER_NODES_MAX + 1];                  /* By id, from 1. */
    bool is_cut[CHECKER_NODES_MAX + 1][CHECKER_NODES_MAX + 1]; /* From, to. */
    struct packet packets[PACKETS_MAX];
    size_t packet_count;
    struct snapshot snapshots[SNAPSHOTS_MAX];
    size_t snapshot_count;
    int64_t now_us, chaos_us;
    uint64_t next_value;
    raft_id dead; /* After the healing: stays down for good; 0: nobody. */
    /* Drawn for this seed, in thousandths, or microseconds. */
    uint64_t loss, doubling, lateness, cutting, crash_rate, cut_rate, link_rate, pause_rate;
    uint64_t propose_rate, trim_rate, configure_rate, transfer_rate, read_rate, mute_rate;
    uint64_t sync_max_us, delay_max_us;
    uint32_t window;
    bool never_quiet, rests;
    struct raft_checker checker;
    struct raft_cluster_result *result;
};

/* ---- raft_cluster.c ---- */
bool cluster_happens(struct cluster *c, uint64_t per_mille);
void cluster_trace(struct cluster *c, uint64_t word);
bool cluster_is_cut(const struct cluster *c, raft_id from, raft_id to);

/* ---- raft_cluster_net.c ---- */
void packet_fini(struct packet *p);
/* The driver's part of a message: runs are copied, payloads go with it. */
struct packet packet_of(const struct raft_message *m, const struct checker_log *log);
void network_send(struct cluster *c, const struct packet *p);
void network_deliver_due(struct cluster *c);
void snapshot_begin(struct cluster *c, raft_id from, raft_id to);
void snapshot_deliver_due(struct cluster *c);

/* ---- raft_cluster_node.c ---- */
const struct raft_members *image_members(const struct cluster *c, const struct image *image);
void image_copy(struct image *to, const struct image *from);
/* What the core answered; whatever may not be refused is a violation. */
enum ferry_err node_step(struct cluster *c, raft_id id, struct raft_event event,
                         const struct packet *received);
void node_sync_begin(struct cluster *c, struct node *n);
void node_sync_end(struct cluster *c, raft_id id);
void node_start(struct cluster *c, raft_id id);
void node_stop(struct cluster *c, raft_id id);
void node_crash(struct cluster *c, raft_id id);
/* True when it took the snapshot, or has all of it already. */
bool node_install(struct cluster *c, raft_id id, const struct checker_log *log, raft_index index);

#endif
