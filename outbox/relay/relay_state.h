/* relay_state: the inside of struct relay, shared by the relay_*.c files and by nobody else.
 *
 * relay.c steps and tells; relay_lease.c is elected and keeps the checkpoint; relay_topics.c knows
 * topics, their targets and their cursors; relay_publish.c moves rows from a page into batches;
 * relay_outcome.c takes the answers. */
#ifndef FERRY_OUTBOX_RELAY_STATE_H
#define FERRY_OUTBOX_RELAY_STATE_H

#include "base/prng.h"
#include "outbox/relay/relay.h"

#define RELAY_TOPICS_MAX  10000u /* Different topics in one outbox table. */
#define RELAY_NOT_BLOCKED INT64_MAX
#define RELAY_NO_ROW      SIZE_MAX
#define RELAY_NO_SUSPECT  (-1)

struct relay_target;

/* A batch on its way. */
struct relay_flight {
    struct relay_target *target;
    int64_t first, last; /* Positions of its first and last row. */
    size_t count;
    bool done; /* Answered with OK; waits for those before it. */
};

enum relay_target_state {
    RELAY_TARGET_LOST,  /* The cursor is not known: ask for it when nothing is in flight. */
    RELAY_TARGET_READY, /* `version` and `sent` are right; rows after `sent` may go. */
};

/* One partition of one topic. */
struct relay_target {
    struct relay *relay;
    struct relay_topic *topic;
    int32_t partition;
    enum relay_target_state state;
    uint64_t version;     /* READY: what the next append expects. */
    int64_t sent;         /* READY: position of the last row sent, or covered by the cursor. */
    int64_t blocked_from; /* First row that waits for this target; RELAY_NOT_BLOCKED: none. */
    int64_t retry_at_us;  /* When LOST: not before. */
    uint32_t failures;    /* In a row; the pause grows with it. */
    bool half_open;       /* After a failure: one batch at a time until one is through. */

    struct relay_flight flights[RELAY_WINDOW_MAX]; /* A ring, oldest at flight_first. */
    size_t flight_first, flight_count;

    size_t queue_first, queue_last; /* Rows of the page that wait: indexes linked by page_next. */
    size_t queue_count;

    /* Looking for a row that the broker refuses. */
    size_t limit;          /* Rows in a batch, at most; halved by refusals, doubled by success. */
    int64_t suspect_after; /* Rows to go before the one that was named; RELAY_NO_SUSPECT: none. */
    int64_t poison;        /* Position of a row to set aside; 0: none. */
    struct err_text poison_reason;
};

enum relay_topic_state {
    RELAY_TOPIC_UNKNOWN, /* Not asked for, or the broker does not know it. */
    RELAY_TOPIC_KNOWN,
};

struct relay_topic {
    char *name;
    enum relay_topic_state state;
    int32_t partitions;
    struct relay_target *targets; /* `partitions` of them; flights point here, so it is replaced
                                     only when nothing is in flight. */
    int64_t blocked_from;         /* First row that waits for the topic. */
    int64_t retry_at_us;
    int64_t missing_until_us; /* How long the answer "no such topic" holds. */
    int64_t said_at_us;       /* When a person was last told that it is missing; 0: never. */
};

struct relay {
    const struct relay_options *options;
    const struct old_source *source;
    const struct relay_broker *broker;
    struct prng prng;
    int64_t now_us; /* Of the current step. */

    enum relay_state state;
    bool stopping;
    uint64_t epoch;
    int64_t elect_at_us;   /* When to ask (again, or to renew). */
    int64_t lease_ends_us; /* By our clock, counted from before the question. */
    uint32_t elect_failures;
    int64_t checkpoint_at_us;
    int64_t checkpointed; /* The low mark that the broker keeps. */

    struct relay_topic **topics; /* Sorted by name. */
    size_t topic_count, topic_capacity;
    struct relay_topic *topic_last; /* Of the last row: the next is mostly of the same. */
    size_t inflight;                /* Batches, of all targets. */
    size_t blocked;                 /* Topics and targets with a blocked_from. */
    size_t queued;                  /* Rows of the page that are in a target's queue. */

    struct source_page page;
    size_t *page_next;             /* page_rows long: for each row, the next of its queue. */
    struct relay_target **waiting; /* page_rows long: targets with a queue. */
    size_t waiting_count;
    struct ferry_message *scratch; /* batch_rows long: the batch being sent. */
    int64_t read_pos;              /* Last row taken from a page: sent, queued, noted or dropped. */
    struct ferry_id read_id;       /* Its message id. */
    bool caught_up;                /* The last read reached the end. */
    bool read_failed;              /* The last read did. */
    bool look;                     /* A wake, or a reason of our own, to read now. */
    int64_t poll_at_us, poll_pause_us;

    int64_t beat_at_us;    /* When to look at the source and leave word. */
    int64_t stop_until_us; /* When stopping: deletes go on until then. */
    int64_t deleted;       /* Nothing is left up to here. */
    int64_t delete_at_us;  /* Not before. */
    int64_t busy_at_us;    /* When something was last read or answered. */

    struct relay_stats stats;
    struct err_text error;
};

#define US_PER_MS 1000

static inline int relay_timeout_ms(const struct relay *r)
{
    return (int)r->options->call_timeout_ms;
}

/* relay.c */
void relay_halt(struct relay *r, const char *why);
/* Something went well: the last error does not matter any more, unless something still waits. */
void relay_error_over(struct relay *r);
/* A random pause whose bound doubles with each failure in a row. */
int64_t relay_backoff_us(struct relay *r, uint32_t failures);
int64_t relay_low_mark(const struct relay *r);
/* Reads again from the low mark: what waits in the page is dropped. */
void relay_rewind(struct relay *r);

/* relay_lease.c */
void relay_lease_step(struct relay *r);
void relay_lease_lost(struct relay *r, enum relay_state state); /* Stops publishing at once. */
void relay_outage(struct relay *r, enum ferry_err err, const char *doing);
void relay_checkpoint_step(struct relay *r, bool now);

/* relay_topics.c */
void relay_topics_free(struct relay *r);
void relay_topics_lose(struct relay *r);    /* Every cursor is to be asked for again. */
void relay_topics_unblock(struct relay *r); /* All are lost, and everything is read again. */
void relay_topics_retry(struct relay *r);
/* Something waits for a partition and no partition is ready: reading on would be for nothing. */
bool relay_topics_all_down(const struct relay *r);
/* The broker does not know the topic any more: its targets are lost and its rows wait. */
void relay_topic_forget(struct relay_topic *topic, int64_t from);
/* The target of a row, with a queue and READY, or NULL when the row has to wait (it is then noted
 * as blocked), was sent before, or was set aside. */
struct relay_target *relay_topics_route(struct relay *r, const struct source_row *row);
void relay_target_block(struct relay_target *t, int64_t from, int64_t retry_at_us);
void relay_topic_block(struct relay *r, struct relay_topic *topic, int64_t from,
                       int64_t retry_at_us);
/* Sets one row aside, or halts, by relay.poison. False: try again later. */
MUST_CHECK bool relay_set_aside(struct relay *r, int64_t position, const char *topic,
                                const char *reason);

/* relay_publish.c */
void relay_publish_step(struct relay *r);
void relay_queue_drop(struct relay *r); /* Empties every queue and the page. */
void relay_target_queue_drop(struct relay_target *t);
/* The topic's targets go away; none has a queue. */
void relay_waiting_forget(struct relay *r, const struct relay_topic *topic);

/* relay_outcome.c */
ferry_append_cb relay_outcome;
/* The batch was not appended: decides what becomes of the target. The page's rows for it are
 * dropped. */
void relay_target_fail(struct relay_target *t, const struct relay_flight *flight,
                       const struct ferry_append_result *result);

#endif
