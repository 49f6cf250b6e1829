/* relay_state: the inside of struct relay, shared by the relay_*.c files and by nobody else.
 *
 * relay.c steps and tells; relay_lease.c is elected and keeps the checkpoint; relay_topics.c knows
 * topics, their targets and their marks; relay_publish.c moves rows from a page into batches;
 * relay_outcome.c takes the answers; relay_aside.c decides about rows that are refused or parked;
 * relay_deaths.c finds rows that end the process; relay_growth.c says by how many partitions rows
 * are placed.
 */
#ifndef FERRY_OUTBOX_RELAY_STATE_H
#define FERRY_OUTBOX_RELAY_STATE_H

#include "base/prng.h"
#include "outbox/relay/relay.h"
#include "outbox/relay/relay_kept.h"

#define RELAY_TOPICS_MAX  10000u /* Different topics in one outbox table. */
#define RELAY_NOT_BLOCKED INT64_MAX
#define RELAY_NO_ROW      SIZE_MAX
#define RELAY_NO_SUSPECT  (-1)

struct relay_target;

/* A batch on its way. */
struct relay_flight {
    struct relay_target *target;
    int64_t first; /* Position of its first row. */
    size_t count;
    uint64_t expects;            /* The target's version. */
    int64_t number;              /* Of its first row. */
    int64_t sent_us, created_ms; /* For the figures: real clocks. */
    size_t delayed;
    bool done;  /* Answered; waits for those before it. */
    bool stale; /* Of an earlier time in office: it holds nothing back any more. */
};

enum relay_target_state {
    RELAY_TARGET_LOST,  /* The mark is not known: ask for it when nothing is in flight. */
    RELAY_TARGET_READY, /* `version` and `mark` are right; rows that the mark wants may go. */
};

/* One partition of one topic. */
struct relay_target {
    struct relay *relay;
    struct relay_topic *topic;
    int32_t partition;
    enum relay_target_state state;
    uint64_t version;         /* READY: what the next append expects. */
    struct source_mark *mark; /* READY: what it has, with what is in flight; else NULL. */
    bool fenced;   /* In this time in office: nothing that was sent before the mark was asked for
                      can come any more. */
    bool unsure;   /* It is to be fenced before its mark is asked for. */
    uint64_t past; /* Above what each append of ours expects that may still come. */
    bool full;     /* The mark takes nothing more until the source was tidied up. */
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
    bool poisoned;         /* A row was refused alone: it is decided about when it comes again. */
    int64_t poison;        /* Its number. */
    struct err_text poison_reason;
};

enum relay_topic_state {
    RELAY_TOPIC_UNKNOWN, /* Not asked for, or the broker does not know it. */
    RELAY_TOPIC_KNOWN,
};

struct relay_topic {
    char *name;
    enum relay_topic_state state;
    int32_t partitions;    /* In force (relay_growth.c). */
    int32_t grown;         /* What the broker has, if that is more; else 0. */
    int32_t found, looked; /* While what is in force is looked for. */
    bool fencing;
    struct relay_target *targets; /* `partitions` of them; flights point here, so it is replaced
                                     only when nothing is in flight. */
    int64_t blocked_from;         /* First row that waits for the topic. */
    int64_t retry_at_us;
    int64_t missing_until_us; /* How long the answer "no such topic" holds. */
    int64_t said_at_us;       /* When a person was last told that it is missing; 0: never. */
    size_t tally;             /* Where its figures are counted. */
};

/* A row that was set aside, and where it was seen last. */
struct relay_aside {
    int64_t number, position;
};

struct relay_parked {
    char *topic; /* Owned; the key is behind its NUL. */
    uint8_t *key;
    size_t key_bytes;
    int64_t until; /* 0: it is parked; else rows from this number on are free, without asking. */
};

/* Sorted by topic and key. */
struct relay_parked_set {
    struct relay_parked *keys;
    size_t count, capacity;
    size_t parked; /* Those that are; the others were freed lately. */
};

/* See relay_deaths.c; the first seven as in relay_kept.h. */
struct relay_care {
    uint64_t who;
    bool at_risk;
    uint32_t deaths, blamed;
    uint32_t rows;          /* 0: the ordinary way, and nothing below matters but `began`. */
    int64_t suspect, tried; /* `tried` stays when it is not at risk any more. */
    bool survived;          /* It did not end the process when it was tried last. */
    int64_t began;          /* Position at which this time in office began. */
    bool in_hand;           /* A page was read; once it is settled the next may be. */
    int64_t in_hand_us;     /* When at risk: since then; 0: since this step. */
    int64_t pause_until_us; /* Nothing is read before. */
    int64_t rest_us;        /* Everything is settled since then; 0: it is not. */
    uint32_t passed;        /* Pages of this size that went well. */
};

struct relay {
    const struct relay_options *options;
    const struct source *source;
    const struct relay_broker *broker;
    struct relay_hooks hooks;
    struct prng prng;
    int64_t now_us; /* Of the current step. */

    enum relay_state state; /* Never PAUSED or BLOCKED, which are told of an ACTIVE one. */
    bool stopping;
    uint64_t epoch;
    int64_t elect_at_us;   /* When to ask (again, or to renew). */
    int64_t lease_ends_us; /* By our clock, counted from before the question. */
    uint32_t elect_failures;
    int64_t checkpoint_at_us;
    int64_t checkpointed;              /* The low mark that the broker keeps. */
    struct relay_kept_blob checkpoint; /* The driver's part of what it keeps. */
    struct relay_kept_blob kept;       /* What it keeps. */
    struct relay_care care;

    struct relay_topic **topics; /* Sorted by name. */
    size_t topic_count, topic_capacity;
    struct relay_topic *topic_last; /* Of the last row: the next is mostly of the same. */
    size_t inflight;                /* Batches, of all targets. */
    size_t blocked;                 /* Topics and targets with a blocked_from. */
    size_t queued;                  /* Rows of the page that are in a target's queue. */
    bool starved;                   /* Some target's mark is full. */
    bool growing;                   /* Some topic has grown. */
    bool silent;                    /* A partition was waited for in vain in this step: no other. */
    size_t retry_from;              /* The topic that is tried again first. */
    bool settling;                  /* Nothing is read until all that is published is deleted. */
    int64_t growth_at_us;           /* When to ask the topics. */
    int64_t settled_at; /* Position at which a deletion last found nothing while settling. */

    struct source_page page;
    size_t *page_next;             /* page_rows long: for each row, the next of its queue. */
    struct relay_target **waiting; /* page_rows long: targets with a queue. */
    size_t waiting_count;
    struct ferry_message *scratch;          /* batch_rows long: the batch being sent. */
    const struct source_row **scratch_rows; /* The same rows in the page. */
    int64_t read_pos;        /* Last row taken from a page: sent, queued, noted or dropped. */
    int64_t given;           /* Last row that the source handed out. */
    bool caught_up;          /* The last read reached the end. */
    bool read_failed;        /* The last read did. */
    int64_t unread_since_us; /* read_failed: since then. */
    bool rewound;            /* The page was dropped while its rows were being looked at. */
    bool look;               /* A wake, or a reason of our own, to read now. */
    int64_t poll_at_us, poll_pause_us;
    unsigned crowded_pages; /* One after the other that held some rows, and no backlog. */
    int64_t pace_until_us;  /* Not read before. */

    /* Rows set aside in this time in office that may come again; sorted by number. */
    struct relay_aside *aside;
    size_t aside_count, aside_capacity;
    struct relay_parked_set parked;
    bool paused;       /* By a person. */
    bool stuck;        /* relay.poison = block: nobody has decided about this row yet. */
    int64_t undecided; /* Its number. */
    int64_t undecided_position;
    int64_t ask_at_us; /* Whether somebody has. */

    int64_t beat_at_us;    /* When to look at the source and leave word. */
    int64_t stop_until_us; /* When stopping: deletes go on until then. */
    int64_t tidy_at_us;    /* Not before: the database was busy. */
    bool tidy_again, tidy_failed;
    int64_t busy_at_us; /* When something was read or acknowledged last. */

    bool figures_known;
    struct source_figures figures;
    int64_t figures_at_us, figures_settled;
    bool set_back;
    struct relay_stats stats;
    struct err_text error;
};

#define US_PER_MS 1000

static inline int relay_timeout_ms(const struct relay *r)
{
    return (int)r->options->call_timeout_ms;
}

/* For a question to one partition: while it waits the lease is not renewed. */
static inline int relay_ask_ms(const struct relay *r)
{
    int64_t part_ms = r->options->lease_ms / 4;
    return (int)(part_ms < r->options->call_timeout_ms ? part_ms : r->options->call_timeout_ms);
}

/* relay.c */
void relay_halt(struct relay *r, const char *why);
void relay_halt_set_back(struct relay *r, const char *why); /* The source is not what it was. */
/* Something went well: the last error does not matter any more, unless something still waits. */
void relay_error_over(struct relay *r);
/* A random pause whose bound doubles with each failure in a row. */
int64_t relay_backoff_us(struct relay *r, uint32_t failures);
int64_t relay_low_mark(const struct relay *r);
void relay_page_drop(struct relay *r); /* What waits in it is not read any more. */
/* Reads again from the low mark: what waits in the page is dropped. ACTIVE. */
void relay_rewind(struct relay *r);

/* relay_lease.c */
void relay_lease_step(struct relay *r);
void relay_lease_lost(struct relay *r, enum relay_state state); /* Stops publishing at once. */
void relay_outage(struct relay *r, enum ferry_err err, const char *doing);
/* The database cannot be read from here: resigns, and asks again after a while. */
void relay_give_up_office(struct relay *r, const struct err_text *why);
void relay_checkpoint_step(struct relay *r, bool now);
/* Both: false: the broker does not keep it now, or the relay is not active any more. */
bool relay_checkpoint_write(struct relay *r); /* Up to the low mark. */
bool relay_checkpoint_say(struct relay *r);   /* The same place; how things stand is told. */

/* relay_topics.c */
void relay_topics_free(struct relay *r);
void relay_topics_lose(struct relay *r);    /* Every cursor is to be asked for again. */
void relay_topics_unblock(struct relay *r); /* All are lost, and everything is read again. */
void relay_topics_retry(struct relay *r);
/* Something waits for a partition and no partition is ready: reading on would be for nothing. */
bool relay_topics_all_down(const struct relay *r);
/* The broker does not know the topic any more: its targets are lost and its rows wait. */
void relay_topic_forget(struct relay_topic *topic, int64_t from);
/* The topic has so many partitions from now on; nothing of it is queued or in flight. False: no
 * memory, and nothing has changed. */
bool relay_topic_place(struct relay *r, struct relay_topic *topic, int32_t partitions);
/* The target of a row, with a queue and READY, or NULL when the row has to wait (it is then noted
 * as blocked), is covered, or was set aside; or when the page is gone. */
struct relay_target *relay_topics_route(struct relay *r, const struct source_row *row);
enum relay_found {
    RELAY_FOUND_NOT, /* It is not in the log, and will not be. */
    RELAY_FOUND_IN_LOG,
    RELAY_FOUND_PERHAPS, /* Its key is too long to say, and its topic has later rows. */
    RELAY_FOUND_NOT_NOW, /* The row is noted as blocked; or the page is gone. */
};
/* About a bare row that an earlier relay may have sent. */
enum relay_found relay_topics_find(struct relay *r, const struct source_row *row);
void relay_target_block(struct relay_target *t, int64_t from, int64_t retry_at_us);
void relay_topic_block(struct relay *r, struct relay_topic *topic, int64_t from,
                       int64_t retry_at_us);
/* The row at that position, and what is queued or in flight of the target, have to wait: it is LOST
 * and blocked from the first of them. */
void relay_target_put_off(struct relay_target *t, int64_t position, int64_t retry_at_us);

/* relay_aside.c */
enum relay_verdict {
    RELAY_PUBLISH,
    RELAY_DROP, /* Set aside, or put anew elsewhere. */
    RELAY_WAIT, /* Cannot be decided now (noted as error). */
};
/* About a row that is refused or cannot be a message: DROP, or WAIT. */
enum relay_verdict relay_refuse(struct relay *r, const struct source_row *row, const char *reason);
/* About a row that ends the process when it is read, and came bare. `perhaps`: it may be in the
 * log. DROP, or WAIT. */
enum relay_verdict relay_blame(struct relay *r, const struct source_row *row, bool perhaps);
/* Whether the row's key may be parked; `until` as in struct relay_parked. */
bool relay_key_is_asked(const struct relay *r, const struct source_row *row, int64_t *until);
/* About a row for whose key that is so. */
enum relay_verdict relay_judge_key(struct relay *r, const struct source_row *row, int64_t until);
bool relay_was_set_aside(struct relay *r, const struct source_row *row);
void relay_aside_clear(struct relay *r);
void relay_aside_prune(struct relay *r); /* Forgets what cannot come again. */
MUST_CHECK enum ferry_err relay_parked_load(struct relay *r, struct err_text *e);
void relay_undecided_step(struct relay *r);
void relay_aside_fini(struct relay *r);

/* relay_deaths.c */
#define RELAY_DEATHS_MAX                                                                           \
    3u                      /* At one place without progress: then with care. Of one row: blame.   \
                             */
#define RELAY_NARROW     8u /* A page that was in hand at a death is made so much smaller. */
#define RELAY_BLAMED_MAX 3u /* Rows in a row: more, and a person decides. */
void relay_kept_now(const struct relay *r, struct relay_kept *kept); /* All but `checkpoint`. */
void relay_deaths_begin(struct relay *r, const struct relay_kept *kept);
void relay_deaths_forget(struct relay *r, int64_t low);
void relay_deaths_step(struct relay *r);
/* Before an office is given up by a relay that lives. */
void relay_deaths_leave(struct relay *r);
/* The next page, with as much care as is due. False: no row, or not now. */
bool relay_deaths_read(struct relay *r);
/* Whether care has reading wait, and until when. */
bool relay_deaths_wait(const struct relay *r, int64_t *until_us);

/* relay_growth.c */
/* The number of partitions in force of a topic that has `now`. Errors: NOT_READY (call again),
 * those of the broker's cursor and fence, and of marks (halted). */
MUST_CHECK enum ferry_err relay_growth_find(struct relay *r, struct relay_topic *topic, int32_t now,
                                            int32_t *in_force);
void relay_growth_forget(struct relay_topic *topic); /* What was found so far. */
void relay_growth_note(struct relay *r, struct relay_topic *topic, int32_t now);
/* Before reading. True: nothing is read now, so that what was handed out becomes settled. */
bool relay_growth_hold(struct relay *r);

/* relay_publish.c */
bool relay_read(struct relay *r, size_t rows_max, size_t bytes_max);
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
