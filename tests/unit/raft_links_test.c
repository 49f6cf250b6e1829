/* Real cores over links that are up or down, in both directions or one; nothing else goes wrong.
 * Liveness under partial connectivity: INV-V01, INV-V02. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "raft/raft.h"

#define NODES_MAX  5
#define QUEUE_MAX  256
#define LATENCY_US 1000
#define TURN_US    1000
#define SECOND_US  INT64_C(1000000)

struct letter {
    struct raft_message message;
    struct raft_run runs[RAFT_APPEND_RUNS_MAX];
    int64_t at_us;
};

struct links {
    size_t count;
    struct raft *nodes[NODES_MAX + 1];
    bool is_down[NODES_MAX + 1][NODES_MAX + 1]; /* From, to. */
    struct letter queue[QUEUE_MAX];
    size_t queued;
    struct letter due[QUEUE_MAX];        /* Being delivered. */
    struct raft_config_entry configs[2]; /* Of the one leader that proposes some. */
    size_t config_count;
    int64_t now_us;
    uint64_t elections;
};

static void links_open(struct links *l, size_t count)
{
    *l = (struct links){.count = count};
    struct raft_members m = {.voter_count = (uint32_t)count};
    for (size_t i = 0; i < count; i++) {
        m.voters[i] = i + 1;
    }
    struct raft_disk disk = {.config = {.members = m}, .previous_config = {.members = m}};
    for (raft_id id = 1; id <= count; id++) {
        struct raft_config config = {.self = id, .seed = id};
        assert_int_equal(raft_new(&config, &disk, 0, &l->nodes[id]), FERRY_OK);
    }
}

static void links_close(struct links *l)
{
    for (raft_id id = 1; id <= l->count; id++) {
        raft_free(&l->nodes[id]);
    }
}

static void post(struct links *l, const struct raft_message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct raft_message *m = &messages[i];
        if (l->is_down[m->from][m->to]) {
            continue;
        }
        assert_true(l->queued < QUEUE_MAX);
        struct letter *letter = &l->queue[l->queued];
        *letter = (struct letter){.message = *m, .at_us = l->now_us + LATENCY_US};
        for (size_t k = 0; k < m->run_count; k++) {
            letter->runs[k] = m->runs[k];
        }
        l->queued++;
    }
}

static enum ferry_err step_once(struct links *l, raft_id id, struct raft_event event)
{
    event.now_us = l->now_us;
    struct raft_update u;
    enum ferry_err err = raft_step(l->nodes[id], &event, &u);
    if (err != FERRY_OK) {
        return err;
    }
    raft_check(l->nodes[id]);
    l->elections += u.became_leader ? 1 : 0;
    if (u.append_kind == RAFT_APPENDED_CONFIG) {
        l->configs[l->config_count] = u.config;
        l->config_count++;
    }
    post(l, u.send_now, u.send_now_count);
    post(l, u.send_after_sync, u.send_after_sync_count);
    return FERRY_OK;
}

/* The disk is as fast as the step: all is stored at once, and what that brings (a no-op) too. */
static enum ferry_err step(struct links *l, raft_id id, struct raft_event event)
{
    enum ferry_err err = step_once(l, id, event);
    for (int i = 0; err == FERRY_OK && i < 2; i++) {
        raft_index last = raft_last_index(l->nodes[id]);
        struct raft_event stored = {
            .type = RAFT_STORED, .index = last, .term = raft_term_at(l->nodes[id], last)};
        err = step_once(l, id, stored);
    }
    return err;
}

/* The configurations among a message's entries. */
static void attach_configs(const struct links *l, struct raft_message *m)
{
    m->config_count = 0;
    for (size_t i = 0; i < l->config_count; i++) {
        raft_index index = l->configs[i].index;
        if (index > m->prev_index && index <= m->prev_index + m->entry_count) {
            m->configs = m->config_count == 0 ? &l->configs[i] : m->configs;
            m->config_count++;
        }
    }
}

/* In the order in which they were sent. */
static void deliver(struct links *l)
{
    size_t due = 0;
    for (; due < l->queued && l->queue[due].at_us <= l->now_us; due++) {
        l->due[due] = l->queue[due];
    }
    memmove(l->queue, l->queue + due, (l->queued - due) * sizeof(l->queue[0]));
    l->queued -= due;
    for (size_t i = 0; i < due; i++) {
        struct raft_message *m = &l->due[i].message;
        m->runs = l->due[i].runs;
        attach_configs(l, m);
        assert_int_equal(step(l, m->to, (struct raft_event){.type = RAFT_RECEIVE, .message = m}),
                         FERRY_OK);
    }
}

static void run_for(struct links *l, int64_t us)
{
    for (int64_t end_us = l->now_us + us; l->now_us < end_us; l->now_us += TURN_US) {
        deliver(l);
        for (raft_id id = 1; id <= l->count; id++) {
            if (raft_deadline_us(l->nodes[id]) <= l->now_us) {
                assert_int_equal(step(l, id, (struct raft_event){.type = RAFT_TICK}), FERRY_OK);
            }
            if (raft_wants_send(l->nodes[id])) {
                assert_int_equal(step(l, id, (struct raft_event){.type = RAFT_SEND}), FERRY_OK);
            }
        }
    }
}

/* The one leader; 0 when there is none. Two at once are a failure here. */
static raft_id leader_of(const struct links *l)
{
    raft_id leader = 0;
    for (raft_id id = 1; id <= l->count; id++) {
        if (raft_role(l->nodes[id]) == RAFT_LEADER) {
            assert_int_equal(leader, 0);
            leader = id;
        }
    }
    return leader;
}

static void lead(struct links *l, raft_id id)
{
    assert_int_equal(step(l, id, (struct raft_event){.type = RAFT_CAMPAIGN}), FERRY_OK);
    run_for(l, SECOND_US / 10);
    assert_int_equal(leader_of(l), id);
}

static void assert_commits(struct links *l)
{
    raft_id leader = leader_of(l);
    assert_true(leader != 0);
    assert_int_equal(step(l, leader, (struct raft_event){.type = RAFT_PROPOSE, .count = 1}),
                     FERRY_OK);
    run_for(l, SECOND_US / 10);
    assert_int_equal(raft_commit_index(l->nodes[leader]), raft_last_index(l->nodes[leader]));
}

static void set_link(struct links *l, raft_id a, raft_id b, bool is_up)
{
    l->is_down[a][b] = !is_up;
    l->is_down[b][a] = !is_up;
}

/* E12, the bridge: 1 - 2 - 3, and 1 and 3 cannot hear each other. The leader stays, whoever it is.
 */
static void a_missing_link_deposes_nobody(void **state)
{
    (void)state;
    for (raft_id leader = 1; leader <= 3; leader++) {
        struct links l;
        links_open(&l, 3);
        lead(&l, leader);
        set_link(&l, 1, 3, false);
        uint64_t elections = l.elections;
        raft_term term = raft_current_term(l.nodes[leader]);
        run_for(&l, 30 * SECOND_US);
        assert_int_equal(leader_of(&l), leader);
        assert_int_equal(l.elections, elections);
        assert_int_equal(raft_current_term(l.nodes[leader]), term);
        assert_commits(&l);
        links_close(&l);
    }
}

/* E12, Cloudflare 2020: one node of five hears all the others, each of which hears only that one.
 * The leader, who is not that one, steps down, and that one is elected. */
static void the_only_node_with_a_quorum_becomes_leader(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 5);
    lead(&l, 1);
    for (raft_id a = 1; a <= 5; a++) {
        for (raft_id b = a + 1; b <= 5; b++) {
            set_link(&l, a, b, a == 3 || b == 3);
        }
    }
    run_for(&l, 20 * SECOND_US);
    assert_int_equal(leader_of(&l), 3);
    uint64_t elections = l.elections;
    run_for(&l, 20 * SECOND_US);
    assert_int_equal(l.elections, elections);
    assert_commits(&l);
    links_close(&l);
}

/* SIM-N06: a leader that is heard and hears nobody gives way. */
static void a_leader_that_hears_nobody_gives_way(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 3);
    lead(&l, 1);
    l.is_down[2][1] = l.is_down[3][1] = true;
    run_for(&l, 10 * SECOND_US);
    raft_id leader = leader_of(&l);
    assert_true(leader == 2 || leader == 3);
    assert_commits(&l);
    links_close(&l);
}

/* SIM-N06: a follower that hears nobody and is heard by all disturbs nobody (9.6). */
static void a_follower_that_hears_nobody_disturbs_nobody(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 3);
    lead(&l, 1);
    l.is_down[1][3] = l.is_down[2][3] = true;
    uint64_t elections = l.elections;
    run_for(&l, 20 * SECOND_US);
    assert_int_equal(leader_of(&l), 1);
    assert_int_equal(l.elections, elections);
    assert_int_equal(raft_current_term(l.nodes[1]), 1);
    assert_commits(&l);
    links_close(&l);
}

/* 9.6: who was away comes back as it went; its term has not run on. */
static void a_node_that_was_cut_off_comes_back_without_an_election(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 3);
    lead(&l, 1);
    set_link(&l, 1, 3, false);
    set_link(&l, 2, 3, false);
    run_for(&l, 20 * SECOND_US);
    assert_commits(&l);
    uint64_t elections = l.elections;
    set_link(&l, 1, 3, true);
    set_link(&l, 2, 3, true);
    run_for(&l, 3 * SECOND_US);
    assert_int_equal(l.elections, elections);
    assert_int_equal(leader_of(&l), 1);
    assert_int_equal(raft_commit_index(l.nodes[3]), raft_commit_index(l.nodes[1]));
    links_close(&l);
}

/* E17, 4.2.3: a removed node that never learned of it asks for votes for ever. */
static void a_removed_node_disturbs_nobody(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 3);
    lead(&l, 1);
    set_link(&l, 1, 3, false); /* It hears of nothing, and asks the others. */
    struct raft_members two = {.voters = {1, 2}, .voter_count = 2};
    assert_int_equal(step(&l, 1, (struct raft_event){.type = RAFT_CONFIGURE, .members = &two}),
                     FERRY_OK);
    run_for(&l, SECOND_US);
    assert_int_equal(raft_configuration(l.nodes[1])->members.voter_count, 2);
    uint64_t elections = l.elections;
    set_link(&l, 1, 3, true);
    run_for(&l, 20 * SECOND_US);
    assert_int_equal(l.elections, elections);
    assert_int_equal(leader_of(&l), 1);
    assert_int_equal(raft_current_term(l.nodes[1]), 1);
    assert_int_equal(raft_role(l.nodes[3]), RAFT_PRE_CANDIDATE);
    links_close(&l);
}

/* 3.10: leadership goes to the target within a few round trips, not after a timeout. */
static void a_transfer_takes_a_few_round_trips(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 3);
    lead(&l, 1);
    assert_int_equal(step(&l, 1, (struct raft_event){.type = RAFT_PROPOSE, .count = 50}), FERRY_OK);
    assert_int_equal(step(&l, 1, (struct raft_event){.type = RAFT_TRANSFER, .peer = 3}), FERRY_OK);
    run_for(&l, 30 * LATENCY_US);
    assert_int_equal(leader_of(&l), 3);
    assert_commits(&l);
    links_close(&l);
}

/* With nothing to do the whole group falls silent, and the first proposal finds it ready. */
static void an_idle_group_sends_nothing_and_takes_the_next_proposal(void **state)
{
    (void)state;
    struct links l;
    links_open(&l, 3);
    lead(&l, 2);
    run_for(&l, 3 * SECOND_US);
    for (raft_id id = 1; id <= 3; id++) {
        assert_true(raft_is_quiet(l.nodes[id]));
        assert_true(raft_deadline_us(l.nodes[id]) == RAFT_NEVER);
    }
    assert_int_equal(l.queued, 0);
    run_for(&l, 60 * SECOND_US);
    assert_commits(&l);
    links_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_link_deposes_nobody),
        cmocka_unit_test(the_only_node_with_a_quorum_becomes_leader),
        cmocka_unit_test(a_leader_that_hears_nobody_gives_way),
        cmocka_unit_test(a_follower_that_hears_nobody_disturbs_nobody),
        cmocka_unit_test(a_node_that_was_cut_off_comes_back_without_an_election),
        cmocka_unit_test(a_removed_node_disturbs_nobody),
        cmocka_unit_test(a_transfer_takes_a_few_round_trips),
        cmocka_unit_test(an_idle_group_sends_nothing_and_takes_the_next_proposal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
