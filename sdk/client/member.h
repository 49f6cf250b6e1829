/* member: this process's membership of a subscription: heartbeats to the leader of partition 0.
 *
 * The io thread's alone. The owner says what it holds (`fill`) and is told of each answer
 * (`answer`). A heartbeat goes out every heartbeat_ms of the last answer, at once with
 * member_hurry, and with a back-off after a failure; one is out at a time.
 *
 * An answer with a lower epoch than one before it is of a leader that is none any more: it is
 * passed over, as if it had not come. After a session in which no other came, any is believed.
 *
 * States: idle → started (heartbeats) → stopped. A member that was fenced stops by itself. */
#ifndef FERRY_CLIENT_MEMBER_H
#define FERRY_CLIENT_MEMBER_H

#include "client/call.h"

#define MEMBER_SESSION_DEFAULT_MS 10000u
#define MEMBER_SESSION_MIN_MS     500u
#define MEMBER_SESSION_MAX_MS     3600000u
#define MEMBER_HEARTBEAT_MIN_MS   20u

struct member;
typedef void member_fill(struct member *m, struct member_heartbeat_request *request);
/* `reply` is NULL unless err is FERRY_OK. */
typedef void member_answer(struct member *m, enum ferry_err err,
                           const struct member_heartbeat_reply *reply);

struct member {
    struct ferry_client *client;
    struct topic *topic;
    const char *subscription; /* The owner's. */
    const char *name;
    const char *zone;
    struct ferry_id instance;
    uint32_t session_ms;
    uint32_t partitions;
    member_fill *fill; /* NULL: holds nothing. */
    member_answer *answer;
    struct timer timer;
    struct call call;
    struct member_heartbeat_request *request; /* Of the call. */
    bool started;
    bool out;         /* The call is on its way. */
    bool again;       /* Another one at once when it is answered. */
    int64_t sent_us;  /* When the heartbeat that is out began. */
    int64_t heard_us; /* When the last answered one began. */
    uint64_t epoch;   /* The greatest that an answer told. */
    unsigned attempts;
};

/* Any thread, before the start. Draws the instance; `name` empty: makes one up, at least
 * MEMBER_NAME_BYTES. */
#define MEMBER_NAME_BYTES 64u
void member_make_name(struct ferry_client *c, char *name, size_t name_bytes);
void member_init(struct member *m, struct ferry_client *c, struct topic *t);
MUST_CHECK bool member_start(struct member *m); /* False: no memory. */
void member_hurry(struct member *m);
void member_stop(struct member *m); /* No heartbeats any more. */

/* Leaving, any thread: begins a call that says so; the member was stopped. */
struct member_leaving {
    struct call call;
    struct member_leave_request request;
};
void member_leave_begin(struct member *m, const char *reason, int timeout_ms,
                        struct member_leaving *leaving);
void member_leave_end(struct member_leaving *leaving); /* Once it is finished. */

#endif
