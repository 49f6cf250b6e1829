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
 *
 * Roles: FOLLOWER (become_follower: any message of a later term, or of this term's leader),
 * CANDIDATE (become_candidate: the election timer fired), LEADER (become_leader: a quorum voted).
 *
 * What "stored" means. Every successful step gives its update a number: 1, 2, 3, … The driver makes
 * updates durable in that order, many with one fsync, and sends one RAFT_STORED an fsync: `number`
 * is the last update it covers, (index, term) the last entry on disk after it. A driver that steps
 * nothing between its fsync and its RAFT_STORED leaves `number` 0: all updates so far. The hard
 * state counts when its update is covered. The log counts up to `index` when the entry there still
 * has `term` and no truncation came after the updates covered; else the event is late (the entry
 * was cut away, perhaps even written again: the storage ABA) and says nothing about the log.
 *
 * Behind the trim: there are no snapshots here. A follower whose log ends before the leader's
 * trim_index cannot be advanced; it gets heartbeats (so it does not campaign) and refuses them. Do
 * not trim what a live peer still needs.
 *
 * Threads: one at a time. The struct owns all its memory; the arrays in an update live until the
 * next raft_step. */
#ifndef FERRY_RAFT_RAFT_H
#define FERRY_RAFT_RAFT_H

#include "base/err.h"
#include "base/prng.h"

typedef uint64_t raft_term;
typedef uint64_t raft_index; /* 0: none; the first entry is 1. */
typedef uint64_t raft_id;    /* A node; 0: none. */

#define RAFT_VOTERS_MAX         9
#define RAFT_ELECTION_MIN_US    500000
#define RAFT_ELECTION_MAX_US    1000000
#define RAFT_HEARTBEAT_US       100000
#define RAFT_UNCOMMITTED_MAX    65536 /* Entries a leader may have uncommitted. */
#define RAFT_APPEND_ENTRIES_MAX 1024  /* In one append message. */
#define RAFT_APPEND_RUNS_MAX    8     /* Terms in one append message. */
#define RAFT_APPEND_WINDOW_MAX  4096  /* Entries on the way to one peer, not yet answered. */
#define RAFT_TERM_MAX           (UINT64_MAX / 2) /* Greater ones from a peer are refused. */
#define RAFT_INDEX_MAX          (UINT64_MAX / 2)
#define RAFT_NEVER              INT64_MAX

enum raft_role { RAFT_FOLLOWER, RAFT_CANDIDATE, RAFT_LEADER };

struct raft;

/* A stretch of consecutive entries of one term: from `first` to the next run, or last_index. */
struct raft_run {
    raft_index first;
    raft_term term;
};

struct raft_config {
    raft_id self;
    raft_id voters[RAFT_VOTERS_MAX]; /* Includes self. */
    size_t voter_count;
    uint64_t seed;
    int64_t election_min_us, election_max_us, heartbeat_us; /* All 0: the defaults above. */
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
};

/* Errors: INVALID_ARGUMENT (self is no voter, …), CORRUPT (runs do not cover the log), NO_MEMORY.
 * `now_us` starts the election timer. A group of one campaigns at its first tick. */
MUST_CHECK enum ferry_err raft_new(const struct raft_config *config, const struct raft_disk *disk,
                                   int64_t now_us, struct raft **r);
void raft_free(struct raft **r);

enum raft_message_type {
    RAFT_VOTE_REQUEST,
    RAFT_VOTE_REPLY,
    RAFT_APPEND_REQUEST,
    RAFT_APPEND_REPLY,
};

/* A message between two cores. Entries travel beside it: the driver adds the payloads of
 * prev_index+1..prev_index+entry_count on the way out and keeps them on the way in. */
struct raft_message {
    enum raft_message_type type;
    raft_id from, to;
    raft_term term;
    raft_index prev_index;       /* APPEND_REQUEST. VOTE_REQUEST: the candidate's last index. */
    raft_term prev_term;         /*   and its term. */
    uint32_t entry_count;        /* APPEND_REQUEST. */
    const struct raft_run *runs; /* Terms of those entries, the first at prev_index + 1, terms
                                  *   rising. Borrowed for the step, or the update. */
    size_t run_count;
    raft_index commit;      /* APPEND_REQUEST: the leader's. */
    raft_index match_index; /* APPEND_REPLY: on success the last stored; on refusal a hint where */
    raft_term match_term;   /*   to try, and the term there (fast back-up, paper 5.3). */
    bool success;           /* Replies. */
    uint64_t sequence;      /* APPEND: rises; repeated in the reply (heartbeat rounds). */
};

enum raft_event_type {
    RAFT_TICK,    /* Time has passed. */
    RAFT_PROPOSE, /* Append `count` entries; leader only. */
    RAFT_STORED,  /* Updates up to `number` are fsynced; (index, term) is the last entry there. */
    RAFT_RECEIVE, /* A message from a peer. */
    RAFT_TRIM,    /* Forget entries up to `index` (<= commit, stored): the driver dropped them. */
};

struct raft_event {
    enum raft_event_type type;
    int64_t now_us;                     /* Monotonic; every event carries it. */
    uint32_t count;                     /* PROPOSE. */
    raft_index index;                   /* STORED (0: no entries), TRIM. */
    raft_term term;                     /* STORED. */
    uint64_t number;                    /* STORED: the last update covered; 0: all so far. */
    const struct raft_message *message; /* RECEIVE. Borrowed. */
};

/* What the driver must do, in this order: truncate, append, write the hard state, send `send_now`
 * meanwhile, fsync, tell RAFT_STORED, then send `send_after_sync`, then apply up to `commit`.
 * `send_after_sync` waits until this update and all before it are durable, even when this one has
 * nothing to write: what it vouches for may still be in an earlier one. */
struct raft_update {
    uint64_t number;          /* Of this update; see "stored" above. */
    raft_index truncate_from; /* Drop entries >= this; 0: none. */
    raft_index append_first;  /* Entries append_first..append_last of term append_term are new; */
    raft_index append_last;   /*   0: none. A proposal's, a received message's, or the no-op. */
    raft_term append_term;    /*   (PROPOSE and no-op; 0 for a received append, whose entries,
                               *   perhaps only the last ones, come with their runs). */
    bool append_is_noop;      /* The one entry is a no-op of a new leader. */
    bool hard_state_changed;  /* Persist term and vote, before send_after_sync. */
    raft_term term;
    raft_id vote;
    raft_index commit; /* The commit index now. */
    bool became_leader, lost_leadership;
    const struct raft_message *send_now;
    size_t send_now_count;
    const struct raft_message *send_after_sync;
    size_t send_after_sync_count;
};

/* The one door. Errors, which leave the state as it was and the update empty: NOT_LEADER (PROPOSE),
 * THROTTLED (PROPOSE: RAFT_UNCOMMITTED_MAX; try again after a commit), INVALID_ARGUMENT (a message
 * that no correct peer sends: drop it; a count of 0 or past RAFT_UNCOMMITTED_MAX, a trim above
 * commit, a number not given yet), CORRUPT (RECEIVE: an append that contradicts a committed entry:
 * this node must stop), NO_MEMORY (any event, rarely: step it again; a STORED is not to be lost).
 */
MUST_CHECK enum ferry_err raft_step(struct raft *r, const struct raft_event *event,
                                    struct raft_update *update);

/* When raft_step(RAFT_TICK) has something to do; RAFT_NEVER when nothing. */
int64_t raft_deadline_us(const struct raft *r);

enum raft_role raft_role(const struct raft *r);
raft_term raft_current_term(const struct raft *r);
raft_id raft_leader(const struct raft *r); /* 0: not known. */
raft_index raft_commit_index(const struct raft *r);
raft_index raft_last_index(const struct raft *r);
raft_index raft_trim_index(const struct raft *r);
/* The term of an entry; 0 when it is trimmed away or not there. */
raft_term raft_term_at(const struct raft *r, raft_index index);
/* True when the leader's own no-op is committed: from here on its state is current (6.4). */
bool raft_is_ready(const struct raft *r);
void raft_check(const struct raft *r);

#endif
