/* core: what the files of the Raft core share; nobody outside broker/raft includes it.
 *
 * raft.c is the door: it checks an event, reserves the memory the event can
 * need, and only then lets a handler change state; so handlers cannot fail for memory. recv_vote.c
 * and recv_append.c handle the messages, replicate.c is the leader's side of appends. */
#ifndef FERRY_RAFT_CORE_H
#define FERRY_RAFT_CORE_H

#include "raft/quorum.h"
#include "raft/raft.h"
#include "raft/runs.h"

#define RAFT_PEER_MESSAGES_MAX (RAFT_APPEND_WINDOW_MAX / RAFT_APPEND_ENTRIES_MAX)

_Static_assert(RAFT_APPEND_WINDOW_MAX % RAFT_APPEND_ENTRIES_MAX == 0, "a window of whole messages");
_Static_assert(RAFT_HEARTBEAT_US < RAFT_ELECTION_MIN_US, "heartbeats keep followers quiet");

/* How a leader feeds one peer. */
enum peer_state {
    PEER_PROBE,     /* `next` is a guess: one message at a time until one is accepted. */
    PEER_REPLICATE, /* `next` is known good: messages follow each other unanswered. */
};

struct raft_peer {
    raft_id id;
    /* Candidate only. */
    bool vote_granted;
    /* Leader only. */
    enum peer_state state;
    bool probe_unanswered; /* PROBE: a message is on the way; wait for its reply or a heartbeat. */
    uint64_t probe_sequence; /* Refusals of messages sent before this one are late: ignored. */
    raft_index match;        /* Stored at the peer, as it told in this term. */
    raft_index next;         /* The next entry to send. */
};

/* Messages of one list of an update, with the runs they point at. */
struct outbox {
    struct raft_message *messages;                 /* Owned, fixed capacity. */
    struct raft_run (*runs)[RAFT_APPEND_RUNS_MAX]; /* Owned; one row a message. NULL: no appends. */
    size_t count;
    size_t capacity;
};

struct raft {
    /* Fixed. */
    raft_id self;
    size_t voter_count;
    size_t peer_count;                       /* Voters other than self. */
    struct raft_peer peers[RAFT_VOTERS_MAX]; /* Sorted by id. */
    int64_t election_min_us, election_max_us, heartbeat_us;

    /* Persistent: changed here, told in the update, durable after RAFT_STORED. */
    raft_term term;
    raft_id vote;
    struct runs log;

    /* Volatile. */
    enum raft_role role;
    raft_id leader;
    raft_index commit;
    raft_index stored;        /* Own entries known to be on disk. */
    uint64_t number;          /* Of the last update. */
    uint64_t hard_number;     /* Update that last changed term or vote. */
    uint64_t hard_stored;     /* Last update known to be durable. */
    uint64_t truncate_number; /* Update that last truncated the log; 0: none. */
    int64_t deadline_us;      /* Election timer, or heartbeat timer of a leader. */
    struct prng prng;

    /* Leader only. */
    raft_index noop_index; /* The first entry of the leader's term. */
    uint64_t sequence;     /* Of the last append message; never reset. */

    /* Of the step at hand. */
    bool stepping;
    int64_t now_us;
    struct outbox send_now;
    struct outbox send_after_sync;
};

/* ---- raft.c: roles and what all handlers use ---- */

/* 3.3, 3.4: any message of a later term, or of this term's leader. `leader` may be 0. */
void raft_become_follower(struct raft *r, raft_term term, raft_id leader, struct raft_update *u);
/* Becomes leader if the own vote is durable and a majority has voted (3.4). */
void raft_count_votes(struct raft *r, struct raft_update *u);
void raft_restart_election_timer(struct raft *r);
/* Marks term and vote as changed in this update. */
void raft_touch_hard_state(struct raft *r, struct raft_update *u);
/* A blank message of the current term, to be filled. There is always room (must). */
struct raft_message *raft_outbox_add(struct raft *r, struct outbox *o, enum raft_message_type type,
                                     raft_id to);
struct raft_peer *raft_find_peer(struct raft *r, raft_id id); /* NULL: no such voter. */

/* ---- message.c ---- */
/* What bytes from a peer must look like, whatever our state. Errors: INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err raft_check_message(const struct raft *r, const struct raft_message *m);

/* ---- recv_vote.c ---- */
void raft_send_vote_requests(struct raft *r);
void raft_receive_vote_request(struct raft *r, const struct raft_message *m, struct raft_update *u);
void raft_receive_vote_reply(struct raft *r, const struct raft_message *m, struct raft_update *u);

/* ---- recv_append.c ---- */
/* What an append would do, found without changing anything. Errors: CORRUPT (it contradicts a
 * committed entry), INVALID_ARGUMENT (a second leader in this term). */
MUST_CHECK enum ferry_err raft_check_append(const struct raft *r, const struct raft_message *m);
void raft_receive_append_request(struct raft *r, const struct raft_message *m,
                                 struct raft_update *u);

/* ---- replicate.c ---- */
MUST_CHECK enum ferry_err raft_check_append_reply(const struct raft *r,
                                                  const struct raft_message *m);
void raft_receive_append_reply(struct raft *r, const struct raft_message *m, struct raft_update *u);
void raft_start_replication(struct raft *r); /* A new leader knows nothing of its peers. */
void raft_replicate(struct raft *r);         /* Sends what peers lack and may get now. */
void raft_send_heartbeats(struct raft *r);
void raft_replicate_past_trim(struct raft *r); /* After a trim: nobody is fed from below it. */
void raft_advance_commit(struct raft *r);

#endif
