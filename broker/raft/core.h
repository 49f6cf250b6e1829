/* core: what the files of the Raft core share; nobody outside broker/raft includes it.
 *
 * raft.c is the door: it checks an event, reserves the memory the event can need, and only then
 * lets a handler change state; so handlers cannot fail for memory. roles.c has the roles, one file
 * recv_*.c each kind of message, replicate.c the leader's side of appends, members.c the
 * configurations; leader.c (heartbeats, check-quorum), transfer.c, read_index.c and quiet.c one
 * concern each. */
#ifndef FERRY_RAFT_CORE_H
#define FERRY_RAFT_CORE_H

#include "raft/quorum.h"
#include "raft/raft.h"
#include "raft/runs.h"

#define RAFT_PEER_MESSAGES_MAX (RAFT_APPEND_WINDOW_MAX / RAFT_APPEND_ENTRIES_MAX)
#define RAFT_MESSAGE_CONFIGS   2 /* Of one append, as told by the driver. */
#define RAFT_READ_ROUNDS       2 /* One on its way, one gathering. */

_Static_assert(RAFT_APPEND_WINDOW_MAX % RAFT_APPEND_ENTRIES_MAX == 0, "a window of whole messages");
_Static_assert(RAFT_HEARTBEAT_US < RAFT_ELECTION_MIN_US, "heartbeats keep followers quiet");

/* How a leader feeds one peer. */
enum peer_state {
    PEER_PROBE,     /* `next` is a guess: one message at a time until one is accepted. */
    PEER_REPLICATE, /* `next` is known good: messages follow each other unanswered. */
    PEER_SNAPSHOT,  /* What it lacks is trimmed: heartbeats only, until RAFT_SNAPSHOT_DONE. */
    PEER_STOPPED,   /* It lost what it had acknowledged: nothing more in this term. */
};

struct raft_peer {
    raft_id id;
    /* Of the configuration in force. */
    bool in_new, in_old; /* Voter of either set. */
    bool is_learner;     /* And no voter. */
    /* Candidates only. */
    bool vote_granted; /* Or, of a pre-candidate, would be. */
    /* Leader only. */
    enum peer_state state;
    bool probe_unanswered; /* PROBE: a message is on the way; wait for its reply or a heartbeat. */
    bool agreed_quiet;     /* Answered a quiet heartbeat with yes since the last wake. */
    uint64_t probe_sequence; /* Refusals of messages sent before this one are late: ignored. */
    uint64_t sent_sequence;  /* Of the last append to it. */
    uint64_t heard_sequence; /* Greatest it answered in this term. */
    uint64_t match_sequence; /* The last one sent to anybody when `match` was told: a refusal of a
                              *   later one was written after the peer had stored `match`. */
    raft_index match;        /* Stored at the peer, as it told in this term. */
    raft_index next;         /* The next entry to send. */
    raft_index told_commit;  /* Of the last append to it. */
    int64_t heard_us;        /* When it last answered in this term; 0: never. */
    int64_t alive_us;        /* The same for check-quorum, which gives it time to answer first. */
};

/* Messages of one list of an update, with the runs they point at. */
struct outbox {
    struct raft_message *messages;                 /* Owned, fixed capacity. */
    struct raft_run (*runs)[RAFT_APPEND_RUNS_MAX]; /* Owned; one row a message. NULL: no appends. */
    size_t count;
    size_t capacity;
};

/* READs that one round of heartbeats confirms (6.4). */
struct read_round {
    uint64_t number;   /* Of its last READ; 0: no such round. */
    raft_index index;  /* The commit index when that was asked. */
    uint64_t sequence; /* Answers to later appends confirm it. */
};

struct raft {
    /* Fixed. */
    raft_id self;
    int64_t election_min_us, election_max_us, heartbeat_us;
    bool never_quiet;
    int64_t notice_us;
    uint32_t window; /* Entries on the way to one peer. */
    bool learners_paused;

    /* Of the configuration in force: voters of both sets and learners, without self. */
    bool self_in_new, self_in_old;
    size_t peer_count;
    size_t peer_capacity;    /* Of both arrays; the outboxes are made for as many. */
    struct raft_peer *peers; /* Owned. Sorted by id. */
    struct raft_peer *spare; /* Owned. Where the next configuration's peers are put together. */

    /* Persistent: changed here, told in the update, durable after RAFT_STORED. */
    raft_term term;
    raft_id vote;
    struct runs log;
    struct raft_config_entry config, previous_config;
    raft_index floor_index; /* The end of a log that was deleted here; 0: none. */
    raft_term floor_term;

    /* Volatile. */
    enum raft_role role;
    raft_id leader;
    raft_index commit;
    raft_index stored;        /* Own entries known to be on disk. */
    raft_index mute;          /* An entry here cannot be read; 0: all can. */
    uint64_t number;          /* Of the last update. */
    uint64_t hard_number;     /* Update that last changed term or vote. */
    uint64_t hard_stored;     /* Last update known to be durable. */
    uint64_t truncate_number; /* Update that last truncated the log; 0: none. */
    int64_t timer_us;         /* Election timer, or heartbeat timer of a leader. */
    int64_t heard_us;         /* Follower: when `leader` was last heard. */
    bool is_quiet;
    uint64_t attempt; /* Of the last pre-vote; never reset. */
    struct prng prng;

    /* Leader only. */
    raft_index noop_index;   /* The first entry of the leader's term. */
    uint64_t sequence;       /* Of the last append message; never reset. */
    uint32_t quiet_rounds;   /* Heartbeats in a row with nothing to do. */
    uint64_t quiet_sequence; /* Quiet answers to appends up to this one came before a wake. */
    raft_id transfer_to;     /* 0: no transfer. */
    int64_t transfer_until_us;
    struct read_round reads[RAFT_READ_ROUNDS]; /* The older first. */
    uint64_t read_number;                      /* Of the last READ; never reset. */
    int64_t notice_due_us; /* Until then a commit waits for entries; RAFT_NEVER: none waits. */

    /* Of the step at hand. */
    int64_t now_us;
    struct outbox send_now;
    struct outbox send_after_sync;
};

/* ---- raft.c: what all handlers use ---- */

/* Marks term and vote as changed in this update. */
void raft_touch_hard_state(struct raft *r, struct raft_update *u);
/* A blank message of the current term, to be filled. There is always room (must). */
struct raft_message *raft_outbox_add(struct raft *r, struct outbox *o, enum raft_message_type type,
                                     raft_id to);
struct raft_peer *raft_find_peer(const struct raft *r, raft_id id); /* NULL: no such member. */
bool raft_outboxes_make(struct outbox *now, struct outbox *after_sync, size_t peer_count);
void raft_outbox_fini(struct outbox *o);

/* ---- roles.c ---- */
/* 3.3, 3.4: any message of a later term, or of this term's leader; or a leader that gives up, with
 * no later term. `leader` may be 0. */
void raft_become_follower(struct raft *r, raft_term term, raft_id leader, struct raft_update *u);
void raft_become_pre_candidate(struct raft *r, struct raft_update *u);
/* `transfer`: asked for by the leader (3.10). */
void raft_become_candidate(struct raft *r, bool transfer, struct raft_update *u);
/* Becomes leader if the own vote is durable and a quorum has voted (3.4). */
void raft_count_votes(struct raft *r, struct raft_update *u);
/* The same for pre-votes (9.6): then it becomes candidate. */
void raft_count_pre_votes(struct raft *r, struct raft_update *u);
void raft_restart_election_timer(struct raft *r);
/* A voter, in force or until this one is committed, whose log can be read. */
bool raft_may_campaign(const struct raft *r);

/* ---- message.c ---- */
/* What bytes from a peer must look like, whatever our state. Errors: INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err raft_check_message(const struct raft *r, const struct raft_message *m);

/* ---- recv_vote.c, recv_pre_vote.c ---- */
void raft_send_vote_requests(struct raft *r, bool transfer);
void raft_receive_vote_request(struct raft *r, const struct raft_message *m, struct raft_update *u);
void raft_receive_vote_reply(struct raft *r, const struct raft_message *m, struct raft_update *u);
/* 3.6.1: whether the candidate's log is as good as ours. */
bool raft_log_is_up_to_date(const struct raft *r, const struct raft_message *m);
bool raft_is_below_floor(const struct raft *r); /* Invariant 13. */
void raft_send_pre_vote_requests(struct raft *r);
void raft_receive_pre_vote_request(struct raft *r, const struct raft_message *m);
void raft_receive_pre_vote_reply(struct raft *r, const struct raft_message *m,
                                 struct raft_update *u);
/* 6.4.1, 9.6, 4.2.3: true while there is a leader that this node hears, so that a candidate would
 * only disturb it. */
bool raft_has_live_leader(const struct raft *r, raft_id candidate);

/* ---- recv_append.c ---- */
/* What an append would do, found without changing anything. Errors: CORRUPT (it contradicts a
 * committed entry), INVALID_ARGUMENT (a second leader in this term). */
MUST_CHECK enum ferry_err raft_check_append(const struct raft *r, const struct raft_message *m);
void raft_receive_append_request(struct raft *r, const struct raft_message *m,
                                 struct raft_update *u);

/* ---- recv_append_reply.c ---- */
MUST_CHECK enum ferry_err raft_check_append_reply(const struct raft *r,
                                                  const struct raft_message *m);
void raft_receive_append_reply(struct raft *r, const struct raft_message *m, struct raft_update *u);

/* ---- replicate.c ---- */
void raft_begin_feeding(struct raft *r, struct raft_peer *peer); /* Of it nothing is known yet. */
void raft_probe_from(struct raft *r, struct raft_peer *peer, raft_index next);
void raft_begin_snapshot(struct raft *r, struct raft_peer *peer, struct raft_update *u);
void raft_end_snapshot(struct raft *r, raft_id id, raft_index index, struct raft_update *u);
void raft_replicate(struct raft *r); /* Sends what peers lack and may get now. */
void raft_send_heartbeats(struct raft *r);
void raft_replicate_past_trim(struct raft *r, struct raft_update *u); /* Nobody is fed below it. */
void raft_advance_commit(struct raft *r, struct raft_update *u);
/* The news of a commit waits no longer, if it is due. */
void raft_end_notice(struct raft *r);

/* ---- leader.c ---- */
void raft_tick_leader(struct raft *r, struct raft_update *u);
/* A leader that must not go on tells its peers, and the best of them to campaign. */
void raft_resign(struct raft *r, struct raft_update *u);

/* ---- members.c ---- */
bool raft_is_voter(const struct raft *r);      /* Self, of either set. */
bool raft_is_sole_voter(const struct raft *r); /* Self alone decides. */
size_t raft_count_peers(const struct raft_members *m, raft_id self);
MUST_CHECK bool raft_reserve_peers(struct raft *r, size_t count);
void raft_refresh_peers(struct raft *r); /* After the configuration in force has changed. */
/* The greatest value that a quorum has reached: a majority of each set of voters (4.3). */
uint64_t raft_quorum_value(const struct raft *r, uint64_t own,
                           uint64_t (*value)(const struct raft_peer *peer));

/* ---- configure.c ---- */
MUST_CHECK enum ferry_err raft_check_configure(const struct raft *r, const struct raft_members *m);
/* Room for the peers of what the event brings. */
MUST_CHECK bool raft_reserve_configure(struct raft *r, const struct raft_members *m);
void raft_configure(struct raft *r, const struct raft_members *m, struct raft_update *u);
/* 4.1: the configuration is in force from its append on. */
void raft_adopt_config(struct raft *r, const struct raft_config_entry *entry,
                       struct raft_update *u);
void raft_roll_back_config(struct raft *r, raft_index truncate_from, struct raft_update *u);
/* 4.3, 4.2.2: what a leader does next once its configuration is committed. */
void raft_after_commit(struct raft *r, struct raft_update *u);

/* ---- transfer.c ---- */
MUST_CHECK enum ferry_err raft_check_transfer(const struct raft *r, raft_id peer);
void raft_transfer(struct raft *r, raft_id peer);
void raft_go_on_with_transfer(struct raft *r); /* TIMEOUT_NOW, once the target has everything. */
void raft_receive_timeout_now(struct raft *r, const struct raft_message *m, struct raft_update *u);

/* ---- read_index.c ---- */
MUST_CHECK enum ferry_err raft_check_read(const struct raft *r, uint64_t number);
void raft_read(struct raft *r, uint64_t number, struct raft_update *u);
void raft_confirm_reads(struct raft *r, struct raft_update *u);
void raft_fail_reads(struct raft *r, struct raft_update *u);
bool raft_has_reads(const struct raft *r);
/* A peer that no append has gone to since the last READ. */
bool raft_reads_want(const struct raft *r, const struct raft_peer *peer);

/* ---- quiet.c ---- */
void raft_wake(struct raft *r);
void raft_wake_event(struct raft *r); /* RAFT_WAKE: a node went silent. */
/* A member that asks for votes, or answers other than quietly, wakes a quiet group. */
void raft_wake_for(struct raft *r, const struct raft_message *m);
void raft_count_quiet_round(struct raft *r); /* At a heartbeat. */
bool raft_offers_quiet(const struct raft *r);
void raft_receive_quiet(struct raft *r, struct raft_peer *peer, const struct raft_message *m);
bool raft_agrees_to_quiet(const struct raft *r, const struct raft_message *m);

#endif
