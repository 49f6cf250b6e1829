/* The shard's struct, for its own files.
 *
 *   shard.c           the turn            shard_life.c      opening, closing, threads
 *   shard_seats.c     seats and views     shard_requests.c  taking requests, dispatch, replies
 *   shard_produce.c   produce, append_cas; all commands to a partition and their answers
 *   shard_subscribe.c subscriptions     shard_members.c   members, events
 *   shard_deliver.c   settling, dead letters   shard_receive.c   receive, long poll
 *   shard_schedule.c  delayed and recurring messages
 *   shard_publish.c   publish, versions, finding, tracing
 *   shard_ask.c       questions to a partition, and reads that wait to be confirmed
 *   shard_fetch.c     fetch, long poll    shard_status.c    what it is, as JSON
 *   shard_limits.c    what one client and one topic may take
 *   shard_partitions.c partitions opened, dropped, announced; shard_drop.c data deleted
 *   shard_nodes.c     who is in the cluster   shard_peers.c   frames to and from other nodes
 *   shard_moves.c     bringing a group to where it should be
 * and of shard 0 alone:
 *   shard_join.c      founding, joining, registering   shard_register.c   the other side of it
 *   shard_folder.c    what the folder remembers of it
 *   shard_catalog.c   topics rolled out to the shards  shard_leaders.c    who leads what
 *   shard_admin.c     commands of the metadata group   shard_metadata.c   where things are
 *   shard_cluster.c   nodes, plans, moves              shard_groups.c     groups, transfer
 *   shard_leases.c    leases and worker ids            shard_quotas.c     quotas set and listed */
#ifndef FERRY_SERVER_SHARD_INTERNAL_H
#define FERRY_SERVER_SHARD_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/heap.h"
#include "base/id.h"
#include "base/map.h"
#include "cluster/meta.h"
#include "partition/rows.h"
#include "server/node_wire.h"
#include "server/shard.h"
#include "wire/command.h"
#include "wire/frame.h"

#define REQUEST_POOL_MAX 1024u
/* A batch may hold one message of the greatest size and what surrounds it. */
#define BATCH_ROOM_BYTES (64u << 10)
/* What a turn may take in from clients and peers together; the rest of STORE_TURN_MAX_BYTES is for
 * what partitions append on their own account (messages that are due; the last that crosses it may
 * be of the greatest size), rows, headers and flushes. */
#define TURN_MAX_BYTES     (20u << 20)
#define TURN_OWN_MAX_BYTES (4u << 20)
_Static_assert(TURN_MAX_BYTES + TURN_OWN_MAX_BYTES + (10u << 20) + 2 * ROWS_PENDING_MAX_BYTES +
                       (4u << 20) <=
                   STORE_TURN_MAX_BYTES,
               "a turn fits a transaction");
_Static_assert(PEER_FRAME_MAX_BYTES <= TURN_MAX_BYTES, "the largest frame has a turn to itself");
_Static_assert(TURN_MAX_BYTES / 2 + (8u << 20) + BATCH_ROOM_BYTES + FRAME_BODY_MAX_BYTES +
                       FRAME_HEADER_BYTES <=
                   TURN_MAX_BYTES,
               "half a turn, and the largest request that crosses it");

/* A replica's seat in the shard: a partition's, or the metadata group's. */
struct seat {
    uint64_t group;
    struct replica *replica;     /* NULL: it could not be opened; err says why. */
    struct partition *partition; /* NULL for the metadata group. */
    enum ferry_err err;
    struct ferry_id topic_id;
    char topic[NAME_MAX_BYTES + 1]; /* Its name, and which partition of it this is. */
    int32_t index;
    uint32_t generation; /* Of the catalog that named it last. */
    bool announced;      /* Shard 0 knows that it is open. */
    bool dropping;
    struct mail *waiting;    /* It is opened once its old data is deleted; owned. */
    bool is_over;            /* ... and its topic is gone everywhere. */
    int64_t told_end_offset; /* Waiting fetches have been looked at up to here. */
    struct list touched;
    struct heap_node timer;
    struct list fetches;  /* struct fetch_link */
    struct list receives; /* struct receive_queue */
    struct list reads;    /* Requests that wait until a read is confirmed, in the order asked. */

    /* Leading. */
    raft_term led_term; /* The term in which it was found ready; 0: it does not lead. */
    int64_t led_since_us;
    struct list led;       /* In the shard's list of those. */
    bool told;             /* Its leadership was told to the others. */
    struct heap_node move; /* When its members are to be looked at. */
    uint32_t target_count;
    uint32_t target[REPLICAS_MAX]; /* Nodes that it should be on, preferred leader first. */
    bool moving;                   /* The metadata waits to hear that it is there. */
    bool filling;                  /* It counts among the active moves. */
    int64_t transfer_due_us;       /* Not before. */
    int64_t fenced_us;             /* When a member that went back was told so. */
    struct request *transfer;      /* PARTITION_TRANSFER under way, */
    raft_id transfer_to;
    struct list transferring; /* in the shard's list of those. */
    int64_t transfer_until_us;
};

struct request {
    struct list node; /* In the shard's live list, or the pool. */
    net_peer peer;
    uint64_t id;
    uint16_t command; /* 0: of a node, by a peer item or this node's own. */
    uint32_t timeout_ms;
    struct net_message message;
    struct partition_ticket ticket;
    struct meta_ticket meta_ticket;
    struct list parked; /* In a seat's reads, or the shard's unknown topics. */
    uint64_t read_number;
    bool confirmed;                  /* What the seat says now is as new as the question. */
    struct waiting_receive *receive; /* Of RECEIVE; owned. */
    size_t credit_bytes;             /* What it counts for among those of its topic: */
    struct ferry_id credit_topic;    /*   see shard_take_credit. */
    int64_t due_us;                  /* Of an unknown topic: answered at the latest. */
    struct node_task {
        enum node_kind kind; /* NODE_REGISTER, NODE_MOVE_DONE. */
        bool own;            /* This node's own: no answer over the net. */
        raft_id member;      /* Who asked. */
        uint32_t attempt;
    } task;
};

/* A connection: its requests without an answer, and who it said it is. Without either it is
 * forgotten; with a name alone once there are too many such (nobody tells when one is closed), and
 * then it has no name until its next HELLO. */
struct peer_load {
    struct list idle; /* In the shard's idle_loads: no request, only a name. */
    net_peer peer;
    uint32_t inflight;
    char *name; /* NULL: it said none. */
};

/* A topic being made or deleted, where somebody asked for it. */
struct rollout {
    struct list node;
    struct ferry_id topic_id;
    bool created;
    uint64_t first_group;
    uint32_t partitions;
    uint32_t remaining; /* Partitions without a leader yet; or not closed here yet. */
    enum ferry_err err;
    struct request *request; /* Who asked; NULL when the asker is answered. */
    int64_t until_us;
};

/* ---- Nodes (shard_nodes.c) ---- */

/* A shard of another node, as this shard sees it. */
struct far_shard {
    struct net_link *link;
    int64_t retry_us;       /* No new link before. */
    uint64_t unheard_bytes; /* Sent since it was last heard. */
    uint64_t boot;          /* Of its process; 0: never heard. */
    int64_t heard_us;
    bool silent;
};

struct node {
    uint32_t id;
    raft_id member;
    uint64_t boot, boot_id;
    uint32_t shards;
    char *client, *peer;   /* Endpoints of its shards, joined by ' '. */
    struct far_shard *far; /* `shards` of them; not used for this node itself. */
};

/* ---- Joining (shard_join.c) ---- */

enum join_step {
    JOIN_SEEK,     /* The folder is of no cluster: ask around, found one or find one. */
    JOIN_REGISTER, /* Of a cluster; the metadata leader is to know this start. */
    JOIN_CATCH_UP, /* Registered; the copy of the metadata is older than that. */
    JOIN_DONE,
};

/* Whom a node asks before it has routes: by endpoint. */
struct contact {
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct net_link *link;
    int64_t asked_us, answered_us;
    /* Its last HELLO_REPLY. */
    uint32_t node_id; /* 0: none yet. */
    raft_id member;
    bool is_member;
    uint32_t founders_hash;
};
#define CONTACTS_MAX (SEEDS_MAX + 4)

struct join {
    enum join_step step;
    int64_t due_us;
    struct contact contacts[CONTACTS_MAX]; /* Seeds first, then whom they named. */
    size_t seed_count, contact_count, next_contact;
    struct seed_option seeds[SEEDS_MAX];
    size_t founder_count; /* Of the seeds: those of node.bootstrap. */
    uint32_t founders_hash;
    struct raft_members founders; /* Of group 0, where this node is one of them. */
    uint32_t first_attempt; /* Random, so that no answer to an earlier start of this node, or to
                             * what it had sent then, is taken for one to this. */
    uint32_t attempt;
    bool own_running; /* This node leads the metadata and registers itself. */
    bool redirected;
    int64_t followed_us; /* When the last one was followed, or will be. */
    char redirect[ENDPOINT_MAX_BYTES + 1];
    uint64_t meta_index; /* CATCH_UP: the metadata must be applied so far. */
    int64_t said_us;     /* When the log last said what it waits for. */
};

struct shard_counters {
    uint64_t requests, errors, records_in, bytes_in, batches_in, fetch_bytes_out, turns;
    uint64_t duplicates, throttled, throttled_by_quota, unsendable;
    uint64_t hand_outs, handed_out, receive_bytes_out, settlements, settlements_refused;
    uint64_t peer_frames_in, peer_bytes_in, peer_frames_out, peer_bytes_out;
    uint64_t peer_refused; /* Malformed, or of another cluster or life. */
    uint64_t peer_dropped; /* Not sent: no endpoint, or the link is full. */
    uint64_t peer_no_room; /* Entries not taken because the disk is full. */
};

/* Scratch for requests and replies that are too large for a stack: one a time. */
union shard_requests {
    struct settle_request settle;
    struct member_heartbeat_request heartbeat;
    struct publish_request publish;
};
union shard_replies {
    struct settle_reply settle;
    struct member_heartbeat_reply heartbeat;
    struct member_list_reply member_list;
    struct event_list_reply event_list;
    struct dead_list_reply dead_list;
    struct schedule_list_reply schedule_list;
    struct recurring_list_reply recurring_list;
    struct trace_reply trace;
    struct quota_list_reply quota_list;
};

struct shard {
    struct shard_config config;
    uint64_t seed;
    struct prng prng;
    struct store *store;
    struct net_server *server;
    struct mailbox mailbox;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    struct shard *const *peers; /* This node's shards. */
    uint32_t peer_count;
    pthread_t thread;
    bool started;
    atomic_bool stop;
    atomic_bool leaving; /* Leaderships are to be handed over. */
    atomic_bool ready;
    atomic_uint unserved; /* Shard 0: partitions that could not be opened at the start. */
    atomic_int failure;   /* enum ferry_err */
    atomic_bool left;     /* While leaving: no leadership is here that another could have. */

    struct map seats; /* struct seat, by group. */
    struct list touched;
    struct heap timers;            /* Seats. */
    struct heap moves;             /* Seats whose members are to be looked at. */
    struct heap fetch_deadlines;   /* Waiting fetches. */
    struct heap receive_deadlines; /* Waiting receives. */
    size_t receive_places;         /* That they have in queues. */
    struct list led;               /* Seats. */
    struct list transfers;         /* Seats. */
    struct list live;              /* Requests without an answer. */
    struct list pool;
    size_t pool_count;
    struct map loads;          /* struct peer_load, by peer. */
    struct list idle_loads;    /* The one used last at the end. */
    struct meta_quota *quotas; /* Sorted by client, then topic. */
    size_t quota_count;
    struct map quota_buckets; /* struct quota_bucket, by client and topic. */
    struct list quota_uses;   /* The same, the one used last at the end. */
    struct map topic_loads;   /* struct topic_load, by topic. */
    struct list drops;
    uint32_t waiting;   /* Seats that wait for one. */
    bool is_whole;      /* Shard 0: see shard_is_whole. */
    bool knows_catalog; /* Every partition of this shard has its seat: what has none is unknown. */
    bool view_open;
    int64_t now_us, now_ms;
    int64_t watch_due_us;
    size_t received_bytes;  /* This turn. */
    size_t send_bytes_left; /* This turn. */
    uint32_t filling;       /* Seats that count among the active moves. */
    int64_t own_bytes;      /* What partitions may append on their own account in this turn. */
    int64_t copy_bytes; /* What may be given to replicas that are being made; filled up by time. */
    int64_t copy_filled_us;
    struct shard_counters counters;
    int64_t started_us;

    /* Peers. */
    raft_id self;
    struct ferry_id cluster_id;     /* Zero: of none yet. */
    struct net_server *peer_server; /* NULL: a node of its own. */
    char peer_endpoint[ENDPOINT_MAX_BYTES + 1];
    struct peer_outbox *outbox;
    uint64_t boot;       /* Of this shard's frames: random. */
    struct node **nodes; /* Sorted by id. */
    size_t node_count, node_capacity;
    struct net_message *frames; /* Held until the turn's commit. */
    size_t frame_count, frame_capacity;
    struct net_message held_over; /* Did not fit into the turn before. */
    net_peer held_over_peer;
    bool has_held_over;
    int64_t heartbeat_due_us, leaders_due_us, refused_said_us;
    uint64_t refused_unsaid;

    /* Shard 0 only. */
    struct meta *meta; /* NULL until the node is of a cluster. */
    struct seat *meta_seat;
    bool meta_leads;
    uint64_t boot_count, boot_id;
    struct join join;
    struct map leaders; /* struct leader, by group. */
    struct list rollouts;
    struct list unflushed;      /* struct unflushed: mail that waits for the metadata's rows. */
    struct list unknown_topics; /* Requests: METADATA of a topic that may only be new. */
    uint32_t opening;           /* Partitions not yet open at start-up. */
    uint32_t generation;
    bool catalog_sent; /* At least once. */
    bool swept;        /* The catalog was complete when it was sent. */
    int64_t gone_said_us;
    struct id_gen ids;
    struct metadata_reply *metadata; /* Scratch: too large for a stack. */
    struct names_reply *names;       /* Likewise. */
    struct fetch_request *fetch;     /* Likewise. */
    struct fetch_reply *fetch_answer;
    struct node_list_reply *node_list;
    struct cluster_plan_reply *plan_reply;
    struct move_list_reply *move_list;
    struct group_list_reply *group_list;
    struct lease_list_reply *lease_list;
    union shard_requests *asked;
    union shard_replies *replies;
};

/* ---- shard.c ---- */
void shard_fail_store(struct shard *s, enum ferry_err err);
/* Ends the shard for a reason that is not its store: `text` says what to do. */
void shard_end(struct shard *s, enum ferry_err err, const char *text);
void shard_read_clocks(struct shard *s);
void shard_flush_rows(struct shard *s); /* At the end: what is only in memory is written. */

/* ---- shard_seats.c ---- */
struct seat *shard_find_seat(const struct shard *s, uint64_t group);
void shard_touch(struct shard *s, struct seat *seat);
void shard_set_timer(struct shard *s, struct seat *seat);
/* A read view of the store, for this phase of the turn. */
enum ferry_err shard_view(struct shard *s);
void shard_end_view(struct shard *s);
enum ferry_err shard_add_seat(struct shard *s, uint64_t group, struct seat **seat);
void shard_remove_seat(struct shard *s, struct seat *seat);
bool shard_is_first(const struct shard *s);
bool shard_is_clustered(const struct shard *s);
/* What to say of a group that has no seat: just started, the shard may not have been told yet of
 * all that it has; in a cluster it may be elsewhere. */
enum ferry_err shard_unknown_group(const struct shard *s);
enum ferry_err shard_dropping_error(const struct shard *s); /* Of one that is being closed. */
/* Who leads the seat's group, as an endpoint for clients; "" when not known. */
const char *shard_leader_hint(const struct shard *s, const struct seat *seat,
                              char text[ENDPOINT_MAX_BYTES + 1]);
/* FERRY_OK when the seat serves as leader; else why not. */
enum ferry_err shard_check_leads(const struct shard *s, const struct seat *seat);

/* ---- shard_requests.c ---- */
void shard_take_message(struct shard *s, net_peer peer, struct net_message *m);
/* Again, for a request that was parked. */
void shard_dispatch_again(struct shard *s, struct request *r);
/* Finish the reply begun by shard_begin_reply, and the request with it. */
void shard_begin_reply(const struct request *r, struct buf *b, enum ferry_err status);
void shard_send_reply(struct shard *s, struct request *r, struct buf *b);
void shard_reply_error(struct shard *s, struct request *r, enum ferry_err err, const char *detail);
void shard_reply_empty(struct shard *s, struct request *r);
/* As shard_reply_error, and when to try again. */
void shard_reply_later(struct shard *s, struct request *r, enum ferry_err err, const char *detail,
                       uint32_t retry_after_ms);
/* As above, and when it is NOT_LEADER the detail is the leader's endpoint. */
void shard_reply_seat_error(struct shard *s, struct request *r, const struct seat *seat,
                            enum ferry_err err, const char *detail);
/* Who sent it, as its HELLO said; "" when it did not. Live until the next request. */
const char *shard_client_name(const struct shard *s, const struct request *r);
/* A request that no client sent; NULL: no memory. */
struct request *shard_new_task(struct shard *s, enum node_kind kind);
void shard_free_request(struct shard *s, struct request *r);
void shard_forget_requests(struct shard *s); /* At the end: no answers any more. */
uint32_t shard_retry_after(enum ferry_err err);
/* Why this shard does not serve the group; FERRY_OK when it has it, leading or not. */
enum ferry_err shard_find_partition(struct shard *s, uint64_t group, struct seat **seat);

/* The same, when the partition is led here. */
enum ferry_err shard_find_leader(struct shard *s, uint64_t group, struct seat **seat);
struct bytes shard_body_of(struct request *r);

typedef void request_handler(struct shard *s, struct request *r, const struct frame *f);
/* Answers a request whose entry is applied, or that needed none. */
typedef void request_finisher(struct shard *s, struct seat *seat, struct request *r);

/* A command to a partition. */
struct partition_command {
    uint16_t command;
    request_handler *handle;
    request_finisher *finish; /* NULL: it is answered as it is handled. */
};
struct partition_commands {
    const struct partition_command *rows;
    size_t count;
};
extern const struct partition_commands shard_deliver_commands, shard_subscribe_commands,
    shard_member_commands, shard_schedule_commands, shard_publish_commands;

/* ---- shard_produce.c ---- */
const struct partition_command *shard_find_partition_command(uint16_t command); /* NULL: none. */
/* What a partition said to a request: it waits, or is answered. */
void shard_settle_partition(struct shard *s, struct request *r, struct seat *seat,
                            enum ferry_err err, const char *detail);
/* Room on disk for so much more. Errors: STORAGE_FULL. */
enum ferry_err shard_check_room(struct shard *s, struct seat *seat, size_t bytes,
                                struct err_text *e);
void shard_answer_partition(struct shard *s, struct seat *seat);
uint32_t shard_count_records(struct bytes batch);

/* ---- shard_ask.c ---- */
request_handler *shard_find_ask_handler(uint16_t command);
/* True when the answer may be given now. Else the request is parked until a quorum has confirmed
 * that the partition is led here, or answered with the error. `err` is what was wrong before. */
bool shard_confirm_read(struct shard *s, struct request *r, uint64_t group, struct seat **seat,
                        enum ferry_err err);
void shard_answer_reads(struct shard *s, struct seat *seat);

/* ---- shard_receive.c ---- */
request_handler shard_handle_receive;
request_finisher shard_finish_receive;
/* Its hand-out came to nothing. */
void shard_refuse_receive(struct shard *s, struct request *r, enum ferry_err err);
void shard_free_receive(struct shard *s, struct request *r);
void shard_wake_receives(struct shard *s, struct seat *seat);
void shard_fire_receive_deadlines(struct shard *s);
void shard_fail_receives(struct shard *s, struct seat *seat); /* It does not serve any more. */

/* ---- shard_fetch.c ---- */
/* The seat of a group that is led here and can be read; NULL: shard_why_not_readable. */
struct seat *shard_find_readable(const struct shard *s, uint64_t group);
enum ferry_err shard_why_not_readable(const struct shard *s, uint64_t group);
void shard_handle_fetch(struct shard *s, struct request *r, const struct frame *f);
void shard_wake_fetches(struct shard *s, struct seat *seat);
void shard_fire_fetch_deadlines(struct shard *s);
void shard_fail_fetches(struct shard *s, struct seat *seat);
void shard_forget_fetches(struct shard *s);

/* ---- shard_limits.c ---- */

struct quota_cost {
    uint64_t bytes, messages, requests;
};
/* The whole table: struct meta_quota, one after another. */
void shard_take_quotas(struct shard *s, struct bytes rows);
void shard_forget_quotas(struct shard *s);
/* True when it is more than the client may now; then the request is answered. */
bool shard_is_over_quota(struct shard *s, struct request *r, const char *topic,
                         const struct quota_cost *cost);
void shard_charge_quota(struct shard *s, const struct request *r, const char *topic,
                        const struct quota_cost *cost);
/* For a request over several groups, one after another: counts it for the group's topic (those of
 * one topic stand together; `*last` starts as NULL), unless that is in debt or has less than
 * `least`; then it is answered. What it takes is paid when it is known. */
bool shard_is_topic_over_quota(struct shard *s, struct request *r, uint64_t group,
                               const struct quota_cost *least, const struct seat **last);
/* The request's bytes count among those of its topic until it is answered. Errors: THROTTLED,
 * NO_MEMORY. */
enum ferry_err shard_take_credit(struct shard *s, struct request *r, const struct seat *seat,
                                 size_t bytes, struct err_text *e);
void shard_give_credit_back(struct shard *s, struct request *r);

/* ---- shard_partitions.c ---- */
void shard_take_mail(struct shard *s);
void shard_post(struct shard *s, struct mail *mail); /* To the shard that the kind says. */
void shard_open_waiting(struct shard *s);            /* Those whose old data is gone. */
void shard_stop_waiting(struct shard *s, struct seat *seat);
/* Looks at what the seat has become: open, leading, no longer leading. */
void shard_announce(struct shard *s, struct seat *seat);

/* ---- shard_drop.c ---- */
/* Closes seats that are to go, once nothing waits for them. */
void shard_close_dropped(struct shard *s, struct seat *seat);
/* `is_over`: the group is gone everywhere, nothing of it stays. */
enum ferry_err shard_add_drop(struct shard *s, uint64_t group, bool is_over);
enum ferry_err shard_drop_found(struct shard *s, uint64_t group, bool is_over);
bool shard_is_dropped(const struct shard *s, uint64_t group);
enum ferry_err shard_sweep(struct shard *s);
bool shard_wants_drop(const struct shard *s);
enum ferry_err shard_prepare_drop(struct shard *s); /* Before store_begin. */
enum ferry_err shard_write_drop(struct shard *s);   /* In the transaction. */
void shard_forget_drops(struct shard *s);

/* ---- shard_nodes.c ---- */
struct node *shard_find_node(const struct shard *s, uint32_t id);
struct node *shard_find_member(const struct shard *s, raft_id member);
/* Adds a node, or takes in what has changed. Errors: NO_MEMORY, LIMIT_REACHED. */
enum ferry_err shard_set_node(struct shard *s, const struct node_record *r);
void shard_remove_node(struct shard *s, uint32_t id);
void shard_forget_nodes(struct shard *s);
/* Shard 0: as shard_set_node and shard_remove_node on all shards of this node. An older record
 * than the one known is ignored. */
void shard_learn_node(struct shard *s, const struct node_record *r);
void shard_unlearn_node(struct shard *s, uint32_t id);
/* Borrows the node's texts. */
struct node_record shard_record_of(const struct meta_node *n);
/* This node, as it tells of itself; the texts live in `client` and `peer`. Shard 0. */
enum ferry_err shard_own_record(const struct shard *s, struct buf *client, struct buf *peer,
                                struct node_record *r);

/* ---- shard_peers.c ---- */
void shard_receive_peers(struct shard *s);
void shard_release_frames(struct shard *s);
/* Quiet groups that the node is in look around. */
void shard_wake_groups_of(struct shard *s, const struct node *n);
void shard_flush_outbox(struct shard *s);
void shard_tick_peers(struct shard *s); /* When heartbeat_due_us has come. */
/* Answers on the connection that a frame came by. */
void shard_answer_peer(struct shard *s, net_peer peer, raft_id to, enum node_kind kind,
                       struct bytes body);
/* A frame that came back on a link of ours; `asked`: one by which HELLO and REGISTER went out. */
void shard_take_link_frame(struct shard *s, struct bytes frame, bool asked);
void shard_close_links(struct node *n);

/* ---- shard_moves.c ---- */
void shard_look_at_members(struct shard *s, struct seat *seat); /* Soon. */
void shard_drive_moves(struct shard *s);
void shard_fill_copies(struct shard *s); /* cluster.move_bytes_per_second, for the time passed. */
void shard_stop_driving(struct shard *s, struct seat *seat); /* It leads no more. */
void shard_hand_over(struct shard *s); /* While leaving: leaderships go to others. */
/* This node cannot take what clients send to the group: another replica leads it, where one can. */
void shard_lead_elsewhere(struct shard *s, struct seat *seat);

/* ---- shard_folder.c ---- */
enum ferry_err shard_count_boot(struct shard *s);
enum ferry_err shard_read_founders(struct shard *s, struct raft_members *founders);
enum ferry_err shard_has_mark(struct shard *s, const char *key, bool *has);
/* The cluster's id and how this node came to it, in one transaction; no founders: it was let in. */
enum ferry_err shard_remember_cluster(struct shard *s, const struct ferry_id *cluster_id,
                                      const struct raft_members *founders);

/* ---- shard_join.c ---- */
enum ferry_err shard_begin_join(struct shard *s, struct err_text *e);
void shard_step_join(struct shard *s);
int64_t shard_join_deadline_us(const struct shard *s);
size_t shard_join_links(struct shard *s, struct net_poll_item *items, size_t max);
void shard_end_join(struct shard *s);
void shard_take_hello_reply(struct shard *s, struct bytes body);
void shard_take_register_reply(struct shard *s, const struct node_register_reply *r);

/* ---- shard_register.c ---- */
void shard_take_hello(struct shard *s, net_peer peer, const struct peer_header *h,
                      struct bytes body);
void shard_take_register(struct shard *s, net_peer peer, const struct peer_header *h,
                         struct bytes body);
void shard_take_move_done(struct shard *s, const struct peer_header *h,
                          const struct peer_item *item);
void shard_register_self(struct shard *s);
/* The group's members are where they should be: tells the metadata leader. */
void shard_report_move(struct shard *s, uint64_t group, const uint32_t *nodes, uint32_t count);
void shard_finish_task(struct shard *s, struct request *r);

/* ---- shard_catalog.c ---- */
void shard_send_catalog(struct shard *s, bool sweep);
void shard_send_quotas(struct shard *s);
void shard_take_change(struct shard *s, const struct meta_change *change);
struct rollout *shard_find_rollout(const struct shard *s, const struct ferry_id *topic_id);
/* One for a topic that was made before and of which some partition has had no leader yet; NULL: all
 * have. */
struct rollout *shard_roll_out_again(struct shard *s, const struct ferry_id *topic_id);
void shard_await_rollout(struct shard *s, struct request *r);
void shard_take_opened(struct shard *s, const struct mail *mail);
void shard_take_found(struct shard *s, uint64_t group);
void shard_count_led(struct shard *s, uint64_t group); /* It has its first leader. */
void shard_expire_rollouts(struct shard *s, bool all);
void shard_forget_rollouts(struct shard *s);
void shard_post_flushed(struct shard *s); /* Each turn. */
void shard_forget_unflushed(struct shard *s);
void shard_finish_topic(struct shard *s, struct request *r, enum ferry_err err,
                        const struct ferry_id *topic_id);

/* ---- shard_leaders.c ---- */
uint32_t shard_leader_of(const struct shard *s, uint64_t group); /* Node id; 0: not known. */
uint64_t shard_bytes_of(const struct shard *s, uint64_t group);  /* As its leader told last. */
void shard_learn_leader(struct shard *s, const struct node_led *led, uint32_t node_id);
void shard_forget_leader(struct shard *s, uint64_t group);
void shard_take_leaders(struct shard *s, const struct peer_header *h, struct bytes body);
void shard_tell_leaders(struct shard *s, bool all); /* What this shard leads, to all nodes. */
void shard_count_leaders(const struct shard *s, uint32_t counts[META_NODES_MAX]);
void shard_forget_leaders(struct shard *s);

/* ---- shard_admin.c ---- */
/* True when the command is one of the metadata group's; then it is handled. */
bool shard_handle_admin(struct shard *s, struct request *r, const struct frame *f);
void shard_answer_meta(struct shard *s);
/* FERRY_OK: this node is the metadata leader and ready. Else answers the request. */
bool shard_leads_metadata(struct shard *s, struct request *r);
/* Endpoint of shard 0 of the metadata leader, for clients; "" when not known. */
const char *shard_controller_hint(const struct shard *s, char text[ENDPOINT_MAX_BYTES + 1]);
uint32_t shard_metadata_leader(const struct shard *s); /* Node id; 0: not known. */
void shard_settle_meta(struct shard *s, struct request *r, enum ferry_err err, const char *detail);
void shard_create_topic(struct shard *s, struct request *r, struct topic_create_request *q);

/* ---- shard_metadata.c ---- */
void shard_handle_metadata(struct shard *s, struct request *r, const struct frame *f);
void shard_reply_metadata(struct shard *s, struct request *r, const struct meta_topic *topic,
                          struct bytes dead_of);
void shard_answer_unknown_topics(struct shard *s, bool all);

/* ---- shard_cluster.c, shard_groups.c, shard_leases.c ---- */
request_handler *shard_find_cluster_handler(uint16_t command);
bool shard_finish_cluster(struct shard *s, struct request *r, enum ferry_err err);
void shard_handle_group_list(struct shard *s, struct request *r, const struct frame *f);
void shard_handle_transfer(struct shard *s, struct request *r, const struct frame *f);
void shard_check_transfers(struct shard *s);
request_handler *shard_find_quota_handler(uint16_t command); /* shard_quotas.c */
request_handler *shard_find_lease_handler(uint16_t command);
bool shard_finish_lease(struct shard *s, struct request *r, enum ferry_err err);

/* ---- shard_status.c ---- */
void shard_handle_status(struct shard *s, struct request *r);

#endif
