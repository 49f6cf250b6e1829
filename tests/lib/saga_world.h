/* saga_world: services with databases in memory, and the messages between them, for the model of
 * sagas.
 *
 * The databases do what db.h asks of a driver and nothing that a real one would not: unique keys,
 * compare-and-set, and a rollback that leaves nothing. What real databases do besides (locks,
 * snapshots) is saga_database_test's. Which message is delivered next, and whether it comes again,
 * is lost, or its transaction fails, is asked of `choose`, so that a run can be random or one of
 * all.
 *
 * The checker knows effects only: see saga_world_check. */
#ifndef FERRY_TESTS_SAGA_WORLD_H
#define FERRY_TESTS_SAGA_WORLD_H

#include "outbox/app/saga.h"

#define WORLD_STEPS_MAX     6
#define WORLD_SAGAS_MAX     3
#define WORLD_MESSAGES_MAX  256
#define WORLD_ROWS_MAX      256
#define WORLD_DATABASES_MAX (WORLD_STEPS_MAX + 1)
#define WORLD_DATA_MAX      64

struct world_message {
    char topic[32];
    char key[64];
    struct ferry_id id;
    uint8_t headers[1024];
    size_t headers_bytes;
    bool timer;
    char payload[WORLD_DATA_MAX];
    size_t payload_bytes;
};

struct world_barrier {
    struct ferry_id saga;
    int32_t step, op, why;
};

struct world_effect {
    struct ferry_id saga;
    int32_t step;
    bool undo;
};

struct world_saga_row {
    struct db_saga row;
    char type[32];
    char reason[SAGA_REASON_BYTES];
    uint8_t data[2048];
};

/* Tables; a transaction works on a copy. */
struct world_tables {
    struct world_barrier barrier[WORLD_ROWS_MAX];
    struct world_effect effects[WORLD_ROWS_MAX];
    struct world_message outbox[16]; /* Of this transaction. */
    struct world_saga_row sagas[WORLD_SAGAS_MAX];
    size_t barrier_count, effect_count, outbox_count, saga_count;
};

struct world;
struct world_database {
    struct world *world;
    struct ferry_db *db;
    struct world_tables tables;
    size_t barrier_before, effects_before; /* At BEGIN. */
    struct world_saga_row sagas_before[WORLD_SAGAS_MAX];
    size_t saga_count_before;
    bool open;
    int fail_at; /* The n-th call from now fails with DB_RETRY; 0: none. */
};

/* What the participants of one saga will do. */
struct world_plan {
    enum ferry_saga_kind kind;
    size_t steps;
    bool no_undo[WORLD_STEPS_MAX];
    bool refuse[WORLD_STEPS_MAX];
    int undo_refusals[WORLD_STEPS_MAX]; /* So often its undo is refused, then it works. */
    int64_t deadline_ms[WORLD_STEPS_MAX];
    int64_t whole_ms; /* Choreographed. */
};

struct world_saga {
    struct ferry_id id;
    struct world_plan plan;
    int done[WORLD_STEPS_MAX], undone[WORLD_STEPS_MAX]; /* Committed effects. */
    int ends;                                           /* Changes to a state that is the end. */
};

/* What may happen besides deliveries, how often in the run. */
struct world_budget {
    int repeats, losses, failures, timers, retries, aborts;
    bool in_order; /* Messages of one key and topic. */
};

struct world {
    uint64_t (*choose)(void *arg, uint64_t bound);
    void *arg;
    bool all; /* Every run is tried: `choose` is asked as little as possible. */
    struct world_budget budget;
    struct world_database databases[WORLD_DATABASES_MAX];
    size_t database_count; /* 0 is the starter's; step k is of 1 + k % (count - 1). */
    struct world_message messages[WORLD_MESSAGES_MAX];
    size_t message_count;
    struct world_saga sagas[WORLD_SAGAS_MAX];
    size_t saga_count;
    bool settling;       /* No faults any more. */
    bool barrier_broken; /* Negative control: every barrier row is fresh. */
    char wrong[256];     /* What the checker found first. */
};

/* Heap: a world is large, and used again after reset. */
struct world *saga_world_new(void);
void saga_world_free(struct world *w);
void saga_world_reset(struct world *w);

void saga_world_start(struct world *w, const struct world_plan *plan);
/* Runs with faults as budgeted, then without until every saga is over and no message is left;
 * checks all the time. False: w->wrong says what is wrong. */
bool saga_world_run(struct world *w);

#endif
