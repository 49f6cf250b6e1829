/* workload: client programs over the production SDK, each a host of its own with fibers.
 *
 * A program lives in sessions: it opens a client, works for a while, closes it and opens another.
 * Everything it does and sees goes into the history. At the end the verifier reads everything. */
#ifndef FERRY_SIM_WORKLOAD_H
#define FERRY_SIM_WORKLOAD_H

#include "sim/chains.h"
#include "sim/deliveries.h"
#include "sim/groups.h"

#define PROGRAMS_MAX 26

enum program_kind {
    PROGRAM_PRODUCER,
    PROGRAM_READER,
    PROGRAM_SUBSCRIBER,
    PROGRAM_RELAY,
    PROGRAM_WATCHER,
    PROGRAM_ADMIN,
    PROGRAM_WORKER,
    PROGRAM_MEMBER,
    PROGRAM_PUBLISHER,
    PROGRAM_STEWARD
};

struct workload;

struct program {
    struct workload *load;
    enum program_kind kind;
    uint32_t number;
    struct host *host;
    struct task *task;
    uint32_t producer; /* Of this session; another with each. */
    uint64_t sent, done;
    enum ferry_err last_err; /* For people. */
};

/* What a subscription's partition was committed to, by any of its readers. */
struct subscription_state {
    int64_t acked, attempted;
};

/* A subscription of mode queue or keyed. */
#define QUEUES_MAX 5
struct load_queue {
    char name[16];
    struct ferry_subscription_spec spec;
    bool resets; /* It may be reset. */
    struct deliveries deliveries;
};

/* Delayed messages that were told to wait: some of them. */
#define WAITING_MAX 32
struct load_waiting {
    uint64_t message;
    struct ferry_schedule_id schedule;
};

#define RELAY_ROWS_MAX 4000

/* A table that relays read in order: row i of a partition is message rows[i]. The cursor in the
 * partition counts the rows that are there. */
struct relay_table {
    uint64_t rows[RELAY_ROWS_MAX + 1]; /* From 1; 0: not made yet. */
    uint64_t cursor;                   /* The greatest that was read from the broker. */
};

/* What happened, for coverage. */
struct load_counters {
    uint64_t paused_workers, died_with_messages, worked_late, zombie_commits;
    uint64_t pauses, resets, replayed, dropped, cancelled, quotas, expired, independent, recurring,
        traced;
};

struct workload {
    struct history history;
    char servers[400];
    struct program programs[PROGRAMS_MAX];
    uint32_t program_count;
    uint32_t next_producer;
    bool stop;        /* Programs end their sessions and themselves. */
    bool topics_made; /* Once, at the start. */
    bool verified;
    uint32_t replicas;
    struct subscription_state subscriptions[HISTORY_TOPICS_MAX][HISTORY_PARTITIONS_MAX];
    int64_t pause_us; /* A producer's, between bursts: the greatest. */
    uint64_t temp_deleted;
    uint32_t nodes;
    uint64_t lease_token;  /* The greatest granted, */
    uint32_t lease_holder; /*   and to which program. */
    uint64_t leases, moves, drains;
    bool delays; /* Some messages are delayed. */
    struct load_waiting waiting[WAITING_MAX];
    uint32_t waiting_count;
    struct load_queue queues[QUEUES_MAX];
    uint32_t queue_count;
    uint32_t next_worker; /* Receivers that were opened. */
    struct group group;
    uint32_t group_topic;
    struct key_chains versions;
    uint32_t versions_topic;
    struct load_counters counters;
    uint32_t relay_topic;
    struct relay_table relay[HISTORY_PARTITIONS_MAX];
};

/* ---- For the programs (workload.c, relay.c, admin.c) ---- */

struct session {
    struct program *p;
    struct ferry_client *client;
    uint64_t outstanding;
};
/* In the program's fiber. False: no client, which is said. */
bool session_open(struct session *s, struct program *p, const char *producer_name);
bool session_may_go_on(const struct program *p, int64_t until_us);
void program_note(struct program *p, const char *what, enum ferry_err err); /* For people. */
void relay_session(struct program *p);
void watch_session(struct program *p);
/* After everything has been read out: the cursors and the logs say the same. */
void relay_verify(struct session *s);
void admin_session(struct program *p);
void worker_session(struct program *p);
void member_session(struct program *p);
void publisher_session(struct program *p);
void steward_session(struct program *p);
/* The program's machine stands still for so long; returns when it goes on. */
void program_pause(struct program *p, int64_t us);
/* The program's machine dies, and another one takes its place if there is room. Does not return. */
_Noreturn void program_die(struct program *p);
void set_number(struct ferry_conf *conf, const char *name, int64_t number);
/* One attempt at the message, by ferry_send. */
void session_send(struct session *s, uint64_t number, int32_t partition, bool with_id);
void session_id(uint64_t number, struct ferry_id *id); /* Of a message that has one. */
uint32_t session_key(uint64_t number, char *text, size_t bytes);
/* At the end: what is delayed comes or is cancelled, and queues are drained; then, all logs read
 * out, what queues, groups and versions have to say. */
void verify_schedules(struct session *s);
void verify_no_recurring(struct session *s);
void verify_drained(struct session *s);
void verify_queues(struct session *s);
void verify_group(struct session *s);
void verify_versions(struct session *s);

void workload_init(struct workload *w, const char *servers, uint32_t replicas);
void workload_fini(struct workload *w);
/* Makes the topics, in a fiber; topics_made tells when. */
void workload_make_topics(struct workload *w);
void workload_start(struct workload *w, enum program_kind kind);
bool workload_is_over(const struct workload *w);
/* Writes to every partition, reads every log out; `verified` tells when. */
void workload_verify(struct workload *w);

#endif
