#include "lib/raft_fixture.h"

#include "base/mem.h"

struct raft_members fixture_members(size_t voter_count, size_t learner_count)
{
    struct raft_members m = {.voter_count = (uint32_t)voter_count,
                             .learner_count = (uint32_t)learner_count};
    for (size_t i = 0; i < voter_count; i++) {
        m.voters[i] = i + 1;
    }
    for (size_t i = 0; i < learner_count; i++) {
        m.learners[i] = voter_count + i + 1;
    }
    return m;
}

struct raft *fixture_new_with(const struct raft_members *members, raft_term term,
                              const raft_term *terms, size_t count)
{
    struct raft_config config = {.self = FIXTURE_SELF, .seed = 42};
    struct raft_run *runs = mem_zalloc(count, sizeof(runs[0]));
    must(runs != NULL || count == 0);
    size_t run_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || terms[i] != terms[i - 1]) {
            runs[run_count] = (struct raft_run){.first = i + 1, .term = terms[i]};
            run_count++;
        }
    }
    struct raft_disk disk = {.term = term,
                             .last_index = count,
                             .runs = runs,
                             .run_count = run_count,
                             .config = {.members = *members},
                             .previous_config = {.members = *members}};
    struct raft *r = NULL;
    enum ferry_err err = raft_new(&config, &disk, 0, &r);
    must(err == FERRY_OK);
    mem_free(runs);
    return r;
}

struct raft *fixture_new(size_t voter_count, raft_term term, const raft_term *terms, size_t count)
{
    struct raft_members members = fixture_members(voter_count, 0);
    return fixture_new_with(&members, term, terms, count);
}

struct raft_update fixture_step(struct raft *r, struct raft_event event)
{
    struct raft_update u;
    enum ferry_err err = raft_step(r, &event, &u);
    must(err == FERRY_OK);
    raft_check(r);
    return u;
}

struct raft_update fixture_receive(struct raft *r, struct raft_message m)
{
    return fixture_step(r, (struct raft_event){.type = RAFT_RECEIVE, .message = &m});
}

struct raft_update fixture_tick(struct raft *r)
{
    return fixture_step(r, (struct raft_event){.type = RAFT_TICK, .now_us = raft_deadline_us(r)});
}

struct raft_update fixture_stored(struct raft *r)
{
    raft_index last = raft_last_index(r);
    return fixture_step(
        r, (struct raft_event){.type = RAFT_STORED, .index = last, .term = raft_term_at(r, last)});
}

struct raft_update fixture_propose(struct raft *r, uint32_t count)
{
    return fixture_step(r, (struct raft_event){.type = RAFT_PROPOSE, .count = count});
}

enum ferry_err fixture_refused(struct raft *r, struct raft_message m)
{
    struct raft_event event = {.type = RAFT_RECEIVE, .message = &m};
    struct raft_update u;
    enum ferry_err err = raft_step(r, &event, &u);
    raft_check(r);
    must(err == FERRY_OK || (u.number == 0 && u.append_first == 0 && !u.hard_state_changed &&
                             u.send_now_count == 0 && u.send_after_sync_count == 0));
    return err;
}

struct raft_update fixture_send(struct raft *r)
{
    return fixture_step(r, (struct raft_event){.type = RAFT_SEND});
}

struct raft_update fixture_campaign(struct raft *r, size_t voter_count)
{
    struct raft_update u = fixture_tick(r);
    uint64_t attempt = u.send_now_count > 0 ? u.send_now[0].sequence : 0;
    for (raft_id voter = 2; voter <= voter_count / 2 + 1; voter++) {
        u = fixture_receive(r, fixture_pre_vote_reply(voter, raft_current_term(r), true, attempt));
    }
    must(raft_role(r) == RAFT_CANDIDATE);
    return u;
}

void fixture_lead(struct raft *r, size_t voter_count)
{
    (void)fixture_campaign(r, voter_count);
    (void)fixture_stored(r);
    for (raft_id voter = 2; voter <= voter_count / 2 + 1; voter++) {
        (void)fixture_receive(r, fixture_vote_reply(voter, raft_current_term(r), true));
    }
    (void)fixture_send(r);
    (void)fixture_stored(r);
    must(raft_role(r) == RAFT_LEADER);
}

struct raft_update fixture_acknowledge(struct raft *r, raft_id from)
{
    raft_index last = raft_last_index(r);
    return fixture_receive(
        r, fixture_append_reply(from, raft_current_term(r), true, last, raft_term_at(r, last), 0));
}

struct raft *fixture_new_leader(size_t voter_count, size_t learner_count)
{
    struct raft_members members = fixture_members(voter_count, learner_count);
    struct raft *r = fixture_new_with(&members, 0, NULL, 0);
    fixture_lead(r, voter_count);
    for (raft_id peer = 2; peer <= voter_count + learner_count; peer++) {
        (void)fixture_acknowledge(r, peer);
    }
    (void)fixture_send(r);
    must(raft_is_ready(r));
    return r;
}

struct raft_message fixture_pre_vote_request(raft_id from, raft_term term, raft_index last_index,
                                             raft_term last_term)
{
    return (struct raft_message){.type = RAFT_PRE_VOTE_REQUEST,
                                 .from = from,
                                 .to = FIXTURE_SELF,
                                 .term = term,
                                 .prev_index = last_index,
                                 .prev_term = last_term,
                                 .sequence = 5};
}

struct raft_message fixture_pre_vote_reply(raft_id from, raft_term term, bool granted,
                                           uint64_t attempt)
{
    return (struct raft_message){.type = RAFT_PRE_VOTE_REPLY,
                                 .from = from,
                                 .to = FIXTURE_SELF,
                                 .term = term,
                                 .success = granted,
                                 .sequence = attempt};
}

struct raft_message fixture_vote_request(raft_id from, raft_term term, raft_index last_index,
                                         raft_term last_term)
{
    return (struct raft_message){.type = RAFT_VOTE_REQUEST,
                                 .from = from,
                                 .to = FIXTURE_SELF,
                                 .term = term,
                                 .prev_index = last_index,
                                 .prev_term = last_term};
}

struct raft_message fixture_vote_reply(raft_id from, raft_term term, bool granted)
{
    return (struct raft_message){.type = RAFT_VOTE_REPLY,
                                 .from = from,
                                 .to = FIXTURE_SELF,
                                 .term = term,
                                 .success = granted};
}

struct raft_message fixture_append(raft_id from, raft_term term, raft_index prev_index,
                                   raft_term prev_term, uint32_t entry_count,
                                   const struct raft_run *runs, size_t run_count, raft_index commit)
{
    return (struct raft_message){.type = RAFT_APPEND_REQUEST,
                                 .from = from,
                                 .to = FIXTURE_SELF,
                                 .term = term,
                                 .prev_index = prev_index,
                                 .prev_term = prev_term,
                                 .entry_count = entry_count,
                                 .runs = runs,
                                 .run_count = run_count,
                                 .commit = commit,
                                 .sequence = 1};
}

struct raft_message fixture_append_reply(raft_id from, raft_term term, bool success,
                                         raft_index match_index, raft_term match_term,
                                         uint64_t sequence)
{
    return (struct raft_message){.type = RAFT_APPEND_REPLY,
                                 .from = from,
                                 .to = FIXTURE_SELF,
                                 .term = term,
                                 .success = success,
                                 .match_index = match_index,
                                 .match_term = match_term,
                                 .sequence = sequence};
}

const struct raft_message *fixture_message_to(const struct raft_message *messages, size_t count,
                                              raft_id to)
{
    const struct raft_message *found = NULL;
    for (size_t i = 0; i < count; i++) {
        if (messages[i].to == to) {
            must(found == NULL);
            found = &messages[i];
        }
    }
    must(found != NULL);
    return found;
}
