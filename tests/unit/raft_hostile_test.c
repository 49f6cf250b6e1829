/* Random events and messages, sound and unsound, from peers that keep no promise: whatever comes, a
 * step answers or refuses, and the invariants hold. Safety among liars is not to be had; a core
 * that dies of them would be a way to stop a broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "lib/raft_fixture.h"

#define SEEDS        60
#define STEPS        4000
#define RUNS_MAX     3
#define EVENTS_COUNT (RAFT_WAKE + 1)

struct hostile {
    struct prng prng;
    struct raft *r;
    uint64_t read_number;
    int64_t now_us;
    uint64_t number;
    uint64_t sequence; /* Of the last message sent that has one. */
    struct raft_run runs[RUNS_MAX];
    struct raft_config_entry configs[2];
    struct raft_message message;
    struct raft_members members;
};

static uint64_t below(struct hostile *h, uint64_t bound)
{
    return prng_below(&h->prng, bound);
}

static struct raft_members random_members(struct hostile *h)
{
    struct raft_members m = {0};
    for (raft_id id = 1; id <= 8; id++) {
        switch (below(h, 3)) {
        case 0:
            m.voters[m.voter_count % RAFT_VOTERS_MAX] = id;
            m.voter_count += m.voter_count < RAFT_VOTERS_MAX ? 1 : 0;
            break;
        case 1:
            m.learners[m.learner_count] = id;
            m.learner_count++;
            break;
        default:
            break;
        }
    }
    return m;
}

static void random_entries(struct hostile *h, struct raft_message *m)
{
    m->entry_count = (uint32_t)below(h, 6);
    m->run_count = m->entry_count > 0 ? 1 + below(h, RUNS_MAX) : 0;
    raft_index first = m->prev_index + 1;
    raft_term term = m->prev_term + below(h, 2);
    for (size_t i = 0; i < m->run_count; i++) {
        h->runs[i] = (struct raft_run){.first = first, .term = term > 0 ? term : 1};
        first += 1 + below(h, 2);
        term += 1 + below(h, 2);
    }
    m->runs = h->runs;
    m->config_count = m->entry_count > 0 ? below(h, 3) : 0;
    raft_index at = m->prev_index;
    for (size_t i = 0; i < m->config_count; i++) {
        at += 1 + below(h, 3);
        h->configs[i] = (struct raft_config_entry){.index = at, .members = random_members(h)};
    }
    m->configs = h->configs;
}

/* Mostly of now, sometimes of before or later. */
static raft_term random_term(struct hostile *h, raft_term now)
{
    switch (below(h, 12)) {
    case 0:
        return now + 1;
    case 1:
        return now > 0 ? now - 1 : 0;
    case 2:
        return below(h, 4) == 0 ? now + 3 : now;
    default:
        return now;
    }
}

/* Near what the core has, so that much of it is taken. */
static const struct raft_message *random_message(struct hostile *h)
{
    raft_index last = raft_last_index(h->r);
    raft_term term = raft_current_term(h->r);
    raft_index index = below(h, 4) == 0 ? below(h, last + 3) : last;
    raft_term index_term = raft_term_at(h->r, index);
    h->message = (struct raft_message){.type = (enum raft_message_type)below(h, 8),
                                       .from = below(h, 8),
                                       .to = FIXTURE_SELF,
                                       .term = random_term(h, term),
                                       .prev_index = index,
                                       .prev_term = below(h, 8) == 0 ? below(h, 9) : index_term,
                                       .commit = below(h, last + 4),
                                       .match_index = below(h, last + 2),
                                       .match_term = below(h, term + 2),
                                       .success = below(h, 2) == 0,
                                       .quiet = below(h, 3) == 0,
                                       .transfer = below(h, 6) == 0,
                                       .sequence = h->sequence - below(h, 3) % (h->sequence + 1)};
    if (h->message.type == RAFT_APPEND_REQUEST) {
        random_entries(h, &h->message);
    }
    return &h->message;
}

static struct raft_event random_event(struct hostile *h)
{
    raft_index last = raft_last_index(h->r);
    struct raft_event event = {.type = (enum raft_event_type)below(h, EVENTS_COUNT),
                               .now_us = h->now_us,
                               .count = (uint32_t)below(h, 4),
                               .index = below(h, last + 2),
                               .peer = below(h, 8)};
    if (below(h, 2) == 0) {
        event.type = RAFT_RECEIVE;
    }
    event.term = raft_term_at(h->r, event.index);
    h->members = random_members(h);
    event.members = &h->members;
    event.message = random_message(h);
    if (event.type == RAFT_MUTE && below(h, 4) != 0) {
        event.index = 0;
    }
    if (event.type == RAFT_READ) {
        h->read_number++;
        event.number = h->read_number;
    } else if (event.type == RAFT_STORED) {
        event.number = below(h, 3) == 0 ? below(h, h->number + 2) : 0;
        event.index = event.number == 0 ? last : event.index;
        event.term = raft_term_at(h->r, event.index);
    }
    return event;
}

static void run_seed(uint64_t seed, uint64_t *led, uint64_t *appended, uint64_t *refused)
{
    struct hostile h = {0};
    prng_init(&h.prng, seed);
    struct raft_members members = fixture_members(1 + seed % 4, seed % 3);
    h.r = fixture_new_with(&members, 0, NULL, 0);
    for (int i = 0; i < STEPS; i++) {
        h.now_us += (int64_t)below(&h, 200000);
        struct raft_event event = random_event(&h);
        struct raft_update u;
        enum ferry_err err = raft_step(h.r, &event, &u);
        raft_check(h.r);
        h.number = err == FERRY_OK ? u.number : h.number;
        for (size_t k = 0; k < u.send_now_count; k++) {
            h.sequence = u.send_now[k].sequence > 0 ? u.send_now[k].sequence : h.sequence;
        }
        *led += u.became_leader ? 1 : 0;
        *appended += u.append_kind == RAFT_APPENDED_RECEIVED ? 1 : 0;
        *refused += err != FERRY_OK ? 1 : 0;
    }
    raft_free(&h.r);
}

static void no_event_and_no_message_breaks_an_invariant(void **state)
{
    (void)state;
    uint64_t led = 0;
    uint64_t appended = 0;
    uint64_t refused = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        run_seed(seed, &led, &appended, &refused);
    }
    assert_true(led > SEEDS);
    assert_true(appended > SEEDS * 10);
    assert_true(refused > SEEDS * 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_event_and_no_message_breaks_an_invariant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
