/* workload: client programs over the production SDK, each a host of its own with fibers.
 *
 * A program lives in sessions: it opens a client, works for a while, closes it and opens another.
 * Everything it does and sees goes into the history. At the end the verifier reads everything. */
#ifndef FERRY_SIM_WORKLOAD_H
#define FERRY_SIM_WORKLOAD_H

#include "sim/history.h"

#define PROGRAMS_MAX 20

enum program_kind {
    PROGRAM_PRODUCER,
    PROGRAM_READER,
    PROGRAM_SUBSCRIBER,
    PROGRAM_RELAY,
    PROGRAM_WATCHER,
    PROGRAM_ADMIN
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

#define RELAY_ROWS_MAX 4000

/* A table that relays read in order: row i of a partition is message rows[i]. The cursor in the
 * partition counts the rows that are there. */
struct relay_table {
    uint64_t rows[RELAY_ROWS_MAX + 1]; /* From 1; 0: not made yet. */
    uint64_t cursor;                   /* The greatest that was read from the broker. */
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

void workload_init(struct workload *w, const char *servers, uint32_t replicas);
void workload_fini(struct workload *w);
/* Makes the topics, in a fiber; topics_made tells when. */
void workload_make_topics(struct workload *w);
void workload_start(struct workload *w, enum program_kind kind);
bool workload_is_over(const struct workload *w);
/* Writes to every partition, reads every log out; `verified` tells when. */
void workload_verify(struct workload *w);

#endif
