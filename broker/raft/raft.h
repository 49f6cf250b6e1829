/* raft: the consensus core of one group, pure.
 *
 * After Ongaro, "Consensus: Bridging Theory and Practice" (2014); sections are cited in the code.
 * It never does I/O, reads a clock, logs, starts threads, or keeps globals; it links `base` alone.
 * Work goes in as one event at a time (raft_step) and comes out as data (struct raft_update). It
 * holds (index, term) runs, not payloads: the driver keeps those and writes them where the update
 * says. One node is a group of one and takes the same path.
 *
 * Invariants, checked by raft_check and by the tests:
 *  (1) At most one leader a term (3.2). A node grants at most one vote a term (3.4).
 *  (2) term and commit never decrease.
 *  (3) A leader never truncates or overwrites its own log; nobody truncates at or below commit.
 *  (4) The node counts itself for an index only after RAFT_STORED covered it.
 *  (5) Only an entry of the leader's own term is committed by counting (5.4.2 of the paper; the
 *      no-op at the start of a term, 6.4).
 *  (6) first_index <= commit + 1 <= last_index + 1; stored <= last_index.
 *  (7) Votes, and replies that say "stored", leave only through send_after_sync.
 *  (8) Same state and same event give the same update: peers are kept sorted by id.
 *  (9) The configuration in force is the last one in the log, committed or not (4.1). At most one
 *      is uncommitted; none is proposed before an entry of the leader's own term is committed.
 *      Truncating it restores the one before, exactly.
 * (10) A joint configuration decides by a majority of the old and a majority of the new voters
 *      (4.3). A leader leaves it by itself once it is committed. Learners never count.
 * (11) A muted node (see RAFT_MUTE) grants no vote, does not campaign or lead, and acknowledges
 *      nothing at or past the bound.
 * (12) A pre-vote changes no term and no vote (9.6).
 * (13) A member whose log was deleted votes as if it still had it: for nobody whose log ends before
 *      the floor that its disk tells; and it does not campaign before it has so much again.
 *
 * Roles: FOLLOWER (become_follower: any message of a later term, or of this term's leader),
 * PRE_CANDIDATE (become_pre_candidate: the election timer fired), CANDIDATE (become_candidate: a
 * quorum would vote), LEADER (become_leader: a quorum voted). A leader that has not heard from a
 * quorum for election_max steps down without a new term (check-quorum, 6.2).
 *
 * When things are sent. RAFT_PROPOSE and replies only change what peers lack. RAFT_SEND, once a
 * turn of the driver's loop, makes the appends: so a turn's proposals travel together. What peers
 * can lack is entries, the news of a commit (see raft_set_notice),
 * and the question of a READ.
 *
 * What "stored" means. Every successful step gives its update a number: 1, 2, 3, … The driver makes
 * updates durable in that order, many with one fsync, and sends one RAFT_STORED an fsync: `number`
 * is the last update it covers, (index, term) the last entry on disk after it. A driver that steps
 * nothing between its fsync and its RAFT_STORED leaves `number` 0: all updates so far. The hard
 * state counts when its update is covered. The log counts up to `index` when the entry there still
 * has `term` and no truncation came after the updates covered; else the event is late (the entry
 * was cut away, perhaps even written again: the storage ABA) and says nothing about the log.
 *
 * Behind the trim. A peer whose next entry is trimmed cannot be fed from the log: the update names
 * it in `snapshot_to`, once; it then gets heartbeats only, until RAFT_SNAPSHOT_DONE (or until it
 * turns out to have what it needs; a RAFT_SNAPSHOT_DONE after that changes nothing). If what it has
 * then is trimmed meanwhile, or the snapshot failed, it is named again. How a snapshot travels is
 * the driver's. The receiver's driver installs it and makes a new core with raft_new.
 *
 * Quiet groups. A leader whose entries are all committed and stored at every peer, and that has
 * been asked nothing for RAFT_QUIET_ROUNDS heartbeats, says so in a heartbeat (`quiet`); leader and
 * followers that agree stop their timers (raft_deadline_us: RAFT_NEVER). From then on the driver
 * watches the peers' nodes for all its groups at once, and sends RAFT_WAKE to each quiet group when
 * the node of its leader (a follower), or any node of the group (a leader), goes silent or
 * restarts. Any proposal, transfer, configuration or message that is not quiet wakes the group by
 * itself.
 *
 * Threads: one at a time. The struct owns all its memory; the arrays in an update live until the
 * next raft_step. */
#ifndef FERRY_RAFT_RAFT_H
#define FERRY_RAFT_RAFT_H

#include "base/err.h"
#include "base/prng.h"

typedef uint64_t raft_term;
typedef uint64_t raft_index; /* 0: none; the first entry is 1. */
typedef uint64_t raft_id;    /* A member: one life of one node's data folder; 0: none. */

#define RAFT_VOTERS_MAX         7 /* Of one configuration; a joint one has two sets. */
#define RAFT_LEARNERS_MAX       64
#define RAFT_PEERS_MAX          (2 * RAFT_VOTERS_MAX + RAFT_LEARNERS_MAX)
#define RAFT_ELECTION_MIN_US    500000
#define RAFT_ELECTION_MAX_US    1000000
#define RAFT_HEARTBEAT_US       100000
#define RAFT_UNCOMMITTED_MAX    65536 /* Entries a leader may have uncommitted. */
#define RAFT_APPEND_ENTRIES_MAX 1024  /* In one append message. */
#define RAFT_APPEND_RUNS_MAX    8     /* Terms in one append message. */
#define RAFT_APPEND_WINDOW_MAX  4096  /* Entries on the way to one peer, not yet answered. */
#define RAFT_QUIET_ROUNDS       10    /* Heartbeats without anything to do, before it goes quiet. */
#define RAFT_TERM_MAX           (UINT64_MAX / 2) /* Greater ones from a peer are refused. */
#define RAFT_INDEX_MAX          (UINT64_MAX / 2)
#define RAFT_NEVER              INT64_MAX

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

struct raft;

/* A stretch of consecutive entries of one term: from `first` to the next run, or last_index. */
struct raft_run {
    raft_index first;
    raft_term term;
};

/* Who decides, and who listens. Each list sorted, without repeats; no learner is of `voters`. In a
 * joint configuration a learner may be of `old_voters`: it votes until that is left. */
struct raft_members {
    uint32_t voter_count;
    uint32_t old_voter_count; /* 0: not joint. Else C_old: both sets must agree. */
    uint32_t learner_count;
    raft_id voters[RAFT_VOTERS_MAX];
    raft_id old_voters[RAFT_VOTERS_MAX];
    raft_id learners[RAFT_LEARNERS_MAX];
};
/* Errors: INVALID_ARGUMENT (unsorted, repeated, 0, counts past their limits, a learner that votes,
 * voters missing while there are old voters). All counts 0 is sound: a member that knows nobody. */
MUST_CHECK enum ferry_err raft_members_check(const struct raft_members *m);
bool raft_members_equal(const struct raft_members *a, const struct raft_members *b);
bool raft_members_has_voter(const struct raft_members *m, raft_id id); /* Of either set. */
bool raft_members_has(const struct raft_members *m, raft_id id);       /* Voter or learner. */

/* A configuration entry of the log. */
struct raft_config_entry {
    raft_index index; /* 0: from before the log, the group's first. */
    struct raft_members members;
};

struct raft_config {
    raft_id self;
    uint64_t seed;
    int64_t election_min_us, election_max_us, heartbeat_us; /* All 0: the defaults above. */
    bool never_quiet;
};

/* What was on disk. All of it must have been fsynced. */
struct raft_disk {
    raft_term term;
    raft_id vote;
    raft_index commit;           /* A lower bound; 0 is always right (then trim_index is taken). */
    raft_index trim_index;       /* Entries up to here are gone; 0: none. */
    raft_term trim_term;         /* Term of the entry at trim_index. */
    raft_index last_index;       /* == trim_index when the log is empty. */
    const struct raft_run *runs; /* Covering trim_index+1..last_index, ascending. Copied. */
    size_t run_count;
    struct raft_config_entry config;          /* The one in force: the last in the log. */
    struct raft_config_entry previous_config; /* The one before it; equal to `config` if none. */
    /* The end of a log that this member once had here and that was deleted; 0: none. What it let
     * be committed by having it, it must not help to undo: see invariant 13. */
    raft_index floor_index;
    raft_term floor_term;
};

/* Errors: INVALID_ARGUMENT (members or times unsound, …), CORRUPT (runs do not cover the log, a
 * configuration past its end), NO_MEMORY. `now_us` starts the election timer. A group of one voter
 * campaigns at its first tick. A member that is no voter never campaigns, unless it was one until a
 * configuration that it does not know to be committed (4.2.2). One that knows nobody
 * takes any leader that feeds it. */
MUST_CHECK enum ferry_err raft_new(const struct raft_config *config, const struct raft_disk *disk,
                                   int64_t now_us, struct raft **r);
void raft_free(struct raft **r);

enum raft_message_type {
    RAFT_VOTE_REQUEST,
    RAFT_VOTE_REPLY,
    RAFT_APPEND_REQUEST,
    RAFT_APPEND_REPLY,
    RAFT_PRE_VOTE_REQUEST,
    RAFT_PRE_VOTE_REPLY,
    RAFT_TIMEOUT_NOW, /* Leadership transfer (3.10): campaign at once. */
};

/* A message between two cores. Entries travel beside it: the driver adds the payloads of
 * prev_index+1..prev_index+entry_count on the way out and keeps them on the way in. A driver may
 * cut an append in several, each with the same sequence. */
struct raft_message {
    enum raft_message_type type;
    raft_id from, to;
    raft_term term;
    raft_index prev_index; /* APPEND_REQUEST. (PRE_)VOTE_REQUEST: the candidate's last index. */
    raft_term prev_term;   /*   and its term. */
    uint32_t entry_count;  /* APPEND_REQUEST. */
    const struct raft_run *runs; /* Terms of those entries, the first at prev_index + 1, terms
                                  *   rising. Borrowed for the step, or the update. */
    size_t run_count;
    /* Inbound APPEND_REQUEST only: the configuration entries among the entries, of them the last
     * two at most, ascending. The driver reads them out of the payloads. Borrowed for the step. */
    const struct raft_config_entry *configs;
    size_t config_count;
    raft_index commit;      /* APPEND_REQUEST: the leader's. */
    raft_index match_index; /* APPEND_REPLY: on success the last stored; on refusal a hint where */
    raft_term match_term;   /*   to try, and the term there (fast back-up, paper 5.3). */
    bool success;           /* Replies. */
    bool quiet;             /* APPEND: the leader proposes to go quiet; the follower agrees. */
    bool transfer;     /* VOTE_REQUEST: asked for by the leader, so its lease does not refuse. */
    uint64_t sequence; /* APPEND: rises; repeated in the reply (heartbeat rounds). PRE_VOTE: the
                        *   candidate's attempt, repeated in the reply. (The term of a
                        *   PRE_VOTE_REQUEST is the one it would ask for; of the reply, the
                        *   voter's own, perhaps 0.) */
};

enum raft_event_type {
    RAFT_TICK,      /* Time has passed. */
    RAFT_PROPOSE,   /* Append `count` entries; leader only. */
    RAFT_STORED,    /* Updates up to `number` are fsynced; (index, term) is the last entry there. */
    RAFT_RECEIVE,   /* A message from a peer. */
    RAFT_TRIM,      /* Forget entries up to `index` (<= commit, stored): the driver dropped them. */
    RAFT_SEND,      /* Make the appends that peers lack; once a turn. */
    RAFT_CONFIGURE, /* Go to `members` (not joint: the core goes through joint by itself). */
    RAFT_TRANSFER,  /* Hand leadership to `peer`, a voter; `peer` 0 cancels. */
    RAFT_CAMPAIGN,  /* Do not wait for the timer (a new group's preferred leader). */
    RAFT_READ,      /* Ask for a read index (6.4); `number` rises with each; leader only. */
    RAFT_SNAPSHOT_DONE, /* The snapshot to `peer` ended; `index`: what it has now, 0: it failed. */
    RAFT_MUTE,          /* `index` > 0: an entry there cannot be read; 0: repaired. */
    RAFT_WAKE,          /* Quiet no longer: a node went silent or came back. */
};

struct raft_event {
    enum raft_event_type type;
    int64_t now_us;                     /* Monotonic; every event carries it. */
    uint32_t count;                     /* PROPOSE. */
    raft_index index;                   /* STORED (0: no entries), TRIM, SNAPSHOT_DONE, MUTE. */
    raft_term term;                     /* STORED. */
    uint64_t number;                    /* STORED: the last update covered, 0: all so far. READ. */
    raft_id peer;                       /* TRANSFER, SNAPSHOT_DONE. */
    const struct raft_message *message; /* RECEIVE. Borrowed. */
    const struct raft_members *members; /* CONFIGURE. Borrowed. */
};

enum raft_append_kind {
    RAFT_APPENDED_NOTHING,
    RAFT_APPENDED_PROPOSAL, /* PROPOSE: the entries are the proposer's. */
    RAFT_APPENDED_NOOP,     /* One entry: a new leader's no-op. */
    RAFT_APPENDED_CONFIG,   /* One entry: update->config.members. Not only by CONFIGURE: a joint
                             *   configuration is left in the update that commits it. */
    RAFT_APPENDED_RECEIVED, /* A message's entries from append_first on. */
};

/* What the driver must do, in this order: truncate, append, write the hard state and the
 * configurations, send `send_now` meanwhile, fsync, tell RAFT_STORED, then send `send_after_sync`,
 * then apply up to `commit`. `send_after_sync` waits until this update and all before it are
 * durable, even when this one has nothing to write: what it vouches for may still be in an earlier
 * one. */
struct raft_update {
    uint64_t number;          /* Of this update; see "stored" above. */
    raft_index truncate_from; /* Drop entries >= this; 0: none. */
    enum raft_append_kind append_kind;
    raft_index append_first; /* Entries append_first..append_last are new, */
    raft_index append_last;  /*   perhaps only the last ones of a message; */
    raft_term append_term;   /*   of this term (0 when RECEIVED: they have their runs). */
    bool hard_state_changed; /* Persist term and vote, before send_after_sync. */
    raft_term term;
    raft_id vote;
    bool config_changed; /* Persist both, with this update's entries. */
    struct raft_config_entry config, previous_config;
    raft_index commit; /* The commit index now. */
    bool became_leader, lost_leadership;
    uint64_t read_number;  /* READs up to this number are confirmed, once read_index is applied; */
    raft_index read_index; /*   0: none in this update. */
    bool reads_failed;     /* READs not confirmed yet never will be: leadership is lost. */
    raft_id snapshot_to[RAFT_PEERS_MAX]; /* Peers that newly need a snapshot. */
    size_t snapshot_to_count;
    raft_id regressed; /* A peer that lost what it had acknowledged in this term; 0: none. Its
                        *   folder is an old one, or its disk lies: it is not fed any more. */
    const struct raft_message *send_now;
    size_t send_now_count;
    const struct raft_message *send_after_sync;
    size_t send_after_sync_count;
};

/* The one door. Errors, which leave the state as it was and the update empty: NOT_LEADER (PROPOSE,
 * CONFIGURE, TRANSFER, READ), NOT_READY (PROPOSE during a transfer; CONFIGURE before the own no-op
 * is committed, while another is uncommitted or joint, or during a transfer; READ before the no-op
 * is committed; TRANSFER while one runs), THROTTLED (PROPOSE: RAFT_UNCOMMITTED_MAX; try again after
 * a commit), INVALID_ARGUMENT (a message that no correct peer sends: drop it; a count of 0 or past
 * RAFT_UNCOMMITTED_MAX, a trim above commit, a number not given yet, a READ's number that does not
 * rise, members unsound or without a voter, a transfer to no voter), CORRUPT (RECEIVE: an append
 * that contradicts a committed entry: this node must stop), NO_MEMORY (any event, rarely: step it
 * again; a STORED is not to be lost).
 */
MUST_CHECK enum ferry_err raft_step(struct raft *r, const struct raft_event *event,
                                    struct raft_update *update);

/* When raft_step(RAFT_TICK) has something to do; RAFT_NEVER when nothing. */
int64_t raft_deadline_us(const struct raft *r);
/* Bounds entries on the way to a peer to what fits into bytes, by the driver's knowledge of their
 * size. 1..RAFT_APPEND_WINDOW_MAX. */
void raft_set_window(struct raft *r, uint32_t entries);
/* Learners get no entries while it is paused, only heartbeats: a driver's means to copy slowly. */
void raft_pause_learners(struct raft *r, bool paused);
/* How long the news of a commit may wait for an append with entries to travel with: 0 (the default,
 * it goes with the next RAFT_SEND) to a heartbeat. A busy group saves a message and its answer for
 * every commit. */
void raft_set_notice(struct raft *r, int64_t notice_us);
/* True when a RAFT_SEND would send something. */
bool raft_wants_send(const struct raft *r);

enum raft_role raft_role(const struct raft *r);
raft_term raft_current_term(const struct raft *r);
raft_id raft_self(const struct raft *r);
raft_id raft_leader(const struct raft *r); /* 0: not known. */
raft_index raft_commit_index(const struct raft *r);
raft_index raft_last_index(const struct raft *r);
raft_index raft_stored_index(const struct raft *r);
raft_index raft_trim_index(const struct raft *r);
/* The term of an entry; 0 when it is trimmed away or not there. */
raft_term raft_term_at(const struct raft *r, raft_index index);
/* True when the leader's own no-op is committed: from here on its state is current (6.4). */
bool raft_is_ready(const struct raft *r);
bool raft_is_quiet(const struct raft *r);
bool raft_is_transferring(const struct raft *r);
const struct raft_config_entry *raft_configuration(const struct raft *r); /* In force. */

/* What a leader knows of a peer, for the progress of moves and for people. */
struct raft_progress {
    raft_id id;
    bool voter, learner;
    bool snapshotting;
    raft_index match; /* Stored there, as it told in this term. */
    int64_t heard_us; /* When it last answered in this term; 0: never. */
};
/* Fills at most `max`, sorted by id, without self; returns how many. Leader only (else 0). */
size_t raft_progress(const struct raft *r, struct raft_progress *out, size_t max);
void raft_check(const struct raft *r);

#endif
