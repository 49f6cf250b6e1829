/* group: a consumer that reads the partitions which the broker assigns to it, as they come and go.
 *
 * Heartbeats (member.h) bring the assignment. A partition comes: it is claimed with the epoch of
 * the assignment, which fences whoever had it and tells the position; it is read ahead, and the
 * application is told. A partition goes: it is not read any more, the application is told and may
 * commit what is done, its commits are answered, and only then do the heartbeats not name it any
 * more, so that it is handed on. A member that was not heard for its session lets go of all, for
 * others may have them.
 *
 * States of a partition (share), and who moves it on:
 *   NONE      another's or nobody's         → CLAIMING  an answer names it (io)
 *   CLAIMING  SUBSCRIPTION_CLAIM is out     → GIVEN     it was answered (io)
 *   GIVEN     read ahead; an event waits    → HELD      the application is told (application)
 *   HELD      the application knows         → GOING     an answer does not name it (io)
 *   GOING     not read; an event waits      → GONE      the application was told (application)
 *   GONE      commits may be out            → NONE      they are answered (application, io)
 *
 * Invariants: (1) the partition is fetched only while GIVEN or HELD; (2) heartbeats name what is
 * GIVEN to GONE; (3) a share is on the events list exactly while GIVEN or GOING; (4) a commit
 * carries the epoch it was claimed with. */
#ifndef FERRY_CLIENT_GROUP_H
#define FERRY_CLIENT_GROUP_H

#include "client/consumer.h"
#include "client/member.h"

enum share_state { SHARE_NONE, SHARE_CLAIMING, SHARE_GIVEN, SHARE_HELD, SHARE_GOING, SHARE_GONE };

struct share {
    /* Locked. */
    enum share_state state;
    uint64_t epoch;
    struct list event_node;
    unsigned commits; /* Without an answer. */
    /* Io. */
    struct group *group;
    struct call claim; /* While CLAIMING. */
    struct subscription_claim_request request;
};

struct group {
    struct ferry_consumer *consumer;
    struct member member;
    char name[NAME_MAX_BYTES + 1];
    uint32_t session_ms;
    /* Locked. */
    struct share *shares;
    struct list events;
    bool paused;
    bool hurry; /* Something was let go: a heartbeat says so at once. */
    ferry_assignment_cb *callback;
    void *arg;
};

/* Any thread. Errors: BAD_NAME, INVALID_ARGUMENT, NO_MEMORY. */
MUST_CHECK enum ferry_err group_new(struct ferry_client *c, const struct ferry_join_spec *spec,
                                    struct group **group);
void group_free(struct group *g);
/* Once the consumer is there. False: no memory. */
MUST_CHECK bool group_bind(struct group *g, struct ferry_consumer *s);

/* With the lock. */
bool group_reads(const struct group *g, int32_t partition);
bool group_has(const struct group *g, int32_t partition);
/* Begins a commit: the epoch it carries. False: the partition is not ours. */
MUST_CHECK bool group_commit_begin(struct group *g, int32_t partition, uint64_t *epoch);
void group_commit_end(struct group *g, int32_t partition, enum ferry_err err);

/* The application's thread: tells it of what came and goes. True when something was told. */
bool group_tell(struct group *g);
/* At close: all goes, told. */
void group_tell_all_gone(struct group *g);

/* The io thread. */
MUST_CHECK bool group_start(struct group *g);
void group_stop(struct group *g);
void group_pump(struct group *g);

#endif
