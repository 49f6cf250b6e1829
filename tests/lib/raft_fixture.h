/* raft_fixture: one core, stepped by hand, for tests that play its peers. */
#ifndef FERRY_TEST_RAFT_FIXTURE_H
#define FERRY_TEST_RAFT_FIXTURE_H

#include "raft/raft.h"

#define FIXTURE_SELF 1

/* Node 1 of `voter_count`, with a log of one run a term: entry i has terms[i - 1]. The hard state
 * is `term`, no vote. */
struct raft *fixture_new(size_t voter_count, raft_term term, const raft_term *terms, size_t count);
struct raft *fixture_new_with(const struct raft_members *members, raft_term term,
                              const raft_term *terms, size_t count);
/* Voters 1, 2, …; the learners follow. */
struct raft_members fixture_members(size_t voter_count, size_t learner_count);

/* Steps that must succeed; raft_check follows each. */
struct raft_update fixture_step(struct raft *r, struct raft_event event);
struct raft_update fixture_receive(struct raft *r, struct raft_message m);
struct raft_update fixture_tick(struct raft *r); /* At its deadline. */
struct raft_update fixture_stored(struct raft *r);
struct raft_update fixture_propose(struct raft *r, uint32_t count);
struct raft_update fixture_send(struct raft *r);
/* `from` has everything. */
struct raft_update fixture_acknowledge(struct raft *r, raft_id from);
/* What a step answers that must fail; the update must be empty. */
enum ferry_err fixture_refused(struct raft *r, struct raft_message m);

/* Gets the pre-votes of 2, 3, …; the update that makes it a candidate. */
struct raft_update fixture_campaign(struct raft *r, size_t voter_count);
/* Wins the next election with the votes of 2, 3, …, sends and stores the no-op. */
void fixture_lead(struct raft *r, size_t voter_count);
/* A leader in term 1 whose peers all have its no-op, entry 1, and know that it is committed. */
struct raft *fixture_new_leader(size_t voter_count, size_t learner_count);

struct raft_message fixture_pre_vote_request(raft_id from, raft_term term, raft_index last_index,
                                             raft_term last_term);
struct raft_message fixture_pre_vote_reply(raft_id from, raft_term term, bool granted,
                                           uint64_t attempt);

struct raft_message fixture_vote_request(raft_id from, raft_term term, raft_index last_index,
                                         raft_term last_term);
struct raft_message fixture_vote_reply(raft_id from, raft_term term, bool granted);
/* Entries prev_index + 1.. with the terms of the runs, which the caller keeps. */
struct raft_message fixture_append(raft_id from, raft_term term, raft_index prev_index,
                                   raft_term prev_term, uint32_t entry_count,
                                   const struct raft_run *runs, size_t run_count,
                                   raft_index commit);
struct raft_message fixture_append_reply(raft_id from, raft_term term, bool success,
                                         raft_index match_index, raft_term match_term,
                                         uint64_t sequence);
/* The message to `to` in the list; must be there, and once. */
const struct raft_message *fixture_message_to(const struct raft_message *messages, size_t count,
                                              raft_id to);

#endif
