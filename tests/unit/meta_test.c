/* The metadata group: topics, producers' epochs, elections, its own log; crashes anywhere. */
#include <stdio.h>

#include "base/mem.h"
#include "lib/meta_fixture.h"

/* One node, as it always was before there were more. */
static void open_meta(struct meta_fixture *f)
{
    struct meta_node node = meta_node_with(1, "");
    meta_start(f);
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    meta_forget_changes(f);
}

/* ---- Topics ---- */

static const struct meta_topic *find(struct meta_fixture *f, const char *name)
{
    return meta_topic_find(f->m, bytes_of_string(name));
}

static void a_group_is_given_to_one_partition_ever(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    uint64_t next = 1;
    for (int round = 0; round < 12; round++) {
        (void)meta_make_topic(f, "t", 3, 1, (uint64_t)round + 1);
        assert_int_equal(find(f, "t")->first_group, next);
        next += 3;
        struct meta_change *c = meta_next_change(f->m);
        assert_true(c != NULL && c->kind == META_TOPIC_CREATED);
        mem_free(c);
        if (round % 3 == 0) {
            meta_flush(f);
        }
        meta_drop_topic(f, "t");
        assert_null(find(f, "t"));
        c = meta_next_change(f->m);
        assert_true(c != NULL && c->kind == META_TOPIC_DELETED && c->topic.first_group == next - 3);
        mem_free(c);
        if (round % 3 == 1) {
            meta_flush(f);
        }
        meta_crash(f);
        open_meta(f);
        assert_null(find(f, "t"));
    }
}

static void the_same_topic_again_is_answered_with_its_id(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    (void)meta_make_topic(f, "t", 2, 1, 7);
    struct meta_ticket t;
    meta_ticket_init(&t);
    struct topic_create_request spec = meta_spec("t", 2, 1);
    struct ferry_id id = part_id(7);
    assert_int_equal(meta_try_topic(f, &spec, 8, &t), FERRY_OK);
    assert_int_equal(t.base.index, 0);
    assert_memory_equal(&t.topic_id, &id, sizeof(id));
    spec.partitions = 3;
    assert_int_equal(meta_try_topic(f, &spec, 8, &t), FERRY_ERR_TOPIC_EXISTS);
    meta_ticket_fini(&t);
}

static void bad_topics_are_refused(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    struct meta_ticket t;
    meta_ticket_init(&t);
    static const char *const names[] = {"", ".a", "a b", "../etc"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct topic_create_request spec = meta_spec(names[i], 1, 1);
        assert_int_equal(meta_try_topic(f, &spec, 1, &t), FERRY_ERR_BAD_NAME);
    }
    struct topic_create_request s = meta_spec("t", 0, 1);
    assert_int_equal(meta_try_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = meta_spec("t", PARTITIONS_MAX + 1, 1);
    assert_int_equal(meta_try_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = meta_spec("t", 1, 1);
    s.replicas = 3;
    assert_int_equal(meta_try_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = meta_spec("t", 1, 1);
    s.retention_ms = -2;
    assert_int_equal(meta_try_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    /* Times that no arithmetic on them survives. */
    s.retention_ms = INT64_MAX;
    assert_int_equal(meta_try_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = meta_spec("t", 1, 1);
    s.dedupe_window_ms = INT64_MAX / 1000;
    assert_int_equal(meta_try_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(meta_topic_delete(f->m, bytes_of(NULL, 0), f->now_ms, f->now_us, &t),
                     FERRY_ERR_UNKNOWN_TOPIC);
    assert_null(meta_topic_find(f->m, bytes_of(NULL, 0)));
    meta_ticket_fini(&t);
}

static void topics_survive_every_crash(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        char name[16];
        struct meta_ticket t;
        (void)snprintf(name, sizeof(name), "t%d", round);
        struct topic_create_request spec = meta_spec(name, 1 + (uint32_t)round, 1);
        meta_ticket_init(&t);
        assert_int_equal(meta_try_topic(f, &spec, (uint64_t)round + 1, &t), FERRY_OK);
        bool survived = meta_crash_in_turn(f, round);
        meta_ticket_fini(&t);
        assert_true((find(f, name) != NULL) == survived);
        if (survived) {
            struct ferry_id id = part_id((uint64_t)round + 1);
            assert_memory_equal(&find(f, name)->id, &id, sizeof(id));
            assert_int_equal(find(f, name)->partitions, 1 + round);
        }
    }
}

/* ---- Producers ---- */

static enum ferry_err init(struct meta_fixture *f, const char *name, struct meta_ticket *t)
{
    return meta_producer_init(f->m, bytes_of_string(name), f->now_ms, f->now_us, t);
}

static uint64_t init_now(struct meta_fixture *f, const char *name, uint32_t *epoch)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    assert_int_equal(init(f, name, &t), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &t, FERRY_OK);
    *epoch = t.producer_epoch;
    uint64_t id = t.producer_id;
    meta_ticket_fini(&t);
    return id;
}

static void a_named_producer_keeps_its_id_and_its_epoch_rises(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t epoch = 0, before = 0;
    open_meta(f);
    uint64_t id = init_now(f, "p", &before);
    uint64_t others = 0;
    for (int round = 0; round < 3 * CRASH_POINTS; round++) {
        assert_int_equal(init_now(f, "p", &epoch), id);
        assert_true(epoch > before);
        before = epoch;
        uint64_t other = init_now(f, "", &epoch);
        assert_true(other > others && other != id && epoch == 0);
        others = other;
        struct meta_ticket t;
        meta_ticket_init(&t);
        assert_int_equal(init(f, "p", &t), FERRY_OK);
        bool survived = meta_crash_in_turn(f, round);
        before += survived ? 1 : 0;
        meta_ticket_fini(&t);
    }
    struct meta_ticket t;
    meta_ticket_init(&t);
    assert_int_equal(init(f, "not good", &t), FERRY_ERR_BAD_NAME);
    meta_ticket_fini(&t);
}

static void two_lives_of_one_name_in_one_turn_have_two_epochs(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket a, b;
    open_meta(f);
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    assert_int_equal(init(f, "p", &a), FERRY_OK);
    assert_int_equal(init(f, "p", &b), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &a, FERRY_OK);
    meta_expect_done(f, &b, FERRY_OK);
    assert_int_equal(a.producer_id, b.producer_id);
    assert_true(b.producer_epoch > a.producer_epoch);
    meta_ticket_fini(&a);
    meta_ticket_fini(&b);
}

/* ---- Sources ---- */

static const struct ferry_id source = {{5}};

struct election {
    enum ferry_err err;
    bool granted;
    uint64_t epoch;
    struct source_elect_reply shown;
};

static struct election elect(struct meta_fixture *f, const char *holder, uint32_t ttl_ms,
                             uint64_t epoch)
{
    struct election e = {0};
    struct meta_ticket t;
    struct source_elect_request r = {
        .source = source, .holder = bytes_of_string(holder), .ttl_ms = ttl_ms, .epoch = epoch};
    meta_ticket_init(&t);
    e.err = meta_source_elect(f->m, &r, f->now_ms, f->now_us, &t, &e.granted);
    meta_turn(f);
    if (e.err == FERRY_OK && t.base.index != 0) {
        meta_expect_done(f, &t, FERRY_OK);
    }
    e.epoch = t.source_epoch;
    meta_source_show(f->m, &source, 0, f->now_us, &e.shown);
    meta_ticket_fini(&t);
    return e;
}

static void a_lease_is_renewed_awaited_and_taken_over(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    struct election e = elect(f, "a", 1000, 0);
    assert_true(e.granted && e.epoch == 1);
    f->now_us += 900000;
    e = elect(f, "a", 1000, 1);
    assert_true(e.granted && e.epoch == 1);
    f->now_us += 900000;
    e = elect(f, "b", 1000, 0);
    assert_true(e.err == FERRY_OK && !e.granted && e.shown.epoch == 1);
    assert_in_range(e.shown.retry_ms, 99, 102);
    assert_true(bytes_equal(e.shown.holder, bytes_of_string("a")));
    f->now_us += 100000;
    e = elect(f, "b", 1000, 0);
    assert_true(e.granted && e.epoch == 2);
    e = elect(f, "a", 1000, 1); /* Its epoch is over. */
    assert_false(e.granted);
    e = elect(f, "b", 1000, 0); /* The same holder, restarted, need not wait. */
    assert_true(e.granted && e.epoch == 3);
}

static void bad_elections_are_refused(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    assert_int_equal(elect(f, "a b", 1000, 0).err, FERRY_ERR_BAD_NAME);
    assert_int_equal(elect(f, "", 1000, 0).err, FERRY_ERR_BAD_NAME);
    assert_int_equal(elect(f, "a", 0, 0).err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(elect(f, "a", UINT32_MAX, 0).err, FERRY_ERR_INVALID_ARGUMENT);
    struct source_resign_request resign = {.source = source, .epoch = 1};
    assert_int_equal(meta_source_resign(f->m, &resign, f->now_us), FERRY_ERR_SOURCE_FENCED);
}

static void a_resigned_lease_is_free_at_once(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    (void)elect(f, "a", 60000, 0);
    struct source_resign_request resign = {.source = source, .epoch = 1};
    assert_int_equal(meta_source_resign(f->m, &resign, f->now_us), FERRY_OK);
    struct election e = elect(f, "b", 60000, 0);
    assert_true(e.granted && e.epoch == 2);
    assert_int_equal(meta_source_resign(f->m, &resign, f->now_us), FERRY_ERR_SOURCE_FENCED);
}

static void after_a_restart_a_lease_is_waited_out(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    (void)elect(f, "a", 5000, 0);
    for (int round = 0; round < 2; round++) {
        meta_crash(f);
        f->now_us += 100;
        open_meta(f);
        f->now_us += 4900000;
        assert_false(elect(f, "b", 5000, 0).granted);
        meta_flush(f);
    }
    struct election e = elect(f, "b", 5000, 0);
    assert_true(e.granted && e.epoch == 2);
}

/* Invariant 4: a lease renewed for longer than it was won for is waited out as well. */
static void after_a_restart_a_longer_renewal_is_waited_out(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    struct election e = elect(f, "a", 1000, 0);
    e = elect(f, "a", 30000, e.epoch);
    assert_true(e.granted);
    meta_crash(f);
    open_meta(f);
    f->now_us += 29000000;
    assert_false(elect(f, "b", 1000, 0).granted);
    assert_true(elect(f, "a", 30000, e.epoch).granted);
}

static void epochs_rise_through_every_crash(void **state)
{
    struct meta_fixture *f = *state;
    uint64_t epoch = 0;
    open_meta(f);
    for (int round = 0; round < 3 * CRASH_POINTS; round++) {
        struct election e = elect(f, "a", 1000, 0);
        assert_true(e.granted && e.epoch > epoch);
        epoch = e.epoch;
        struct meta_ticket t;
        bool granted = false;
        struct source_elect_request r = {
            .source = source, .holder = bytes_of_string("a"), .ttl_ms = 1000};
        meta_ticket_init(&t);
        assert_int_equal(meta_source_elect(f->m, &r, f->now_ms, f->now_us, &t, &granted), FERRY_OK);
        epoch += meta_crash_in_turn(f, round) ? 1 : 0;
        meta_ticket_fini(&t);
        struct source_elect_reply shown;
        meta_source_show(f->m, &source, 0, f->now_us, &shown);
        assert_int_equal(shown.epoch, epoch);
    }
}

static void checkpoints_are_the_holder_s_and_survive(void **state)
{
    struct meta_fixture *f = *state;
    struct source_elect_reply shown;
    open_meta(f);
    (void)elect(f, "a", 1000, 0);
    for (int round = 0; round < 3 * CRASH_POINTS; round++) {
        char text[16];
        (void)snprintf(text, sizeof(text), "c%d", round);
        struct source_checkpoint_request r = {
            .source = source, .epoch = 1, .checkpoint = bytes_of_string(text)};
        struct meta_ticket t;
        meta_ticket_init(&t);
        r.epoch = 2;
        assert_int_equal(meta_source_checkpoint(f->m, &r, f->now_ms, f->now_us, &t),
                         FERRY_ERR_SOURCE_FENCED);
        r.epoch = 1;
        assert_int_equal(meta_source_checkpoint(f->m, &r, f->now_ms, f->now_us, &t), FERRY_OK);
        bool survived = meta_crash_in_turn(f, round);
        meta_ticket_fini(&t);
        meta_source_show(f->m, &source, 0, f->now_us, &shown);
        assert_true(bytes_equal(shown.checkpoint, bytes_of_string(text)) == survived);
    }
}

/* ---- Its own log ---- */

static void the_log_is_trimmed_and_nothing_is_lost(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t epoch = 0;
    open_meta(f);
    (void)meta_make_topic(f, "t", 3, 1, 1);
    for (int i = 0; i < 3000; i++) {
        (void)init_now(f, "p", &epoch);
        if (i % 500 == 250) {
            meta_flush(f);
        }
        if (i % 1000 == 999) {
            meta_crash(f);
            open_meta(f);
        }
    }
    assert_int_equal(epoch, 3000);
    meta_flush(f);
    meta_flush(f);
    uint64_t first = 0, last = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, META_GROUP, &first, &last), FERRY_OK);
    store_read_end(f->store);
    assert_true(last - first < META_LOG_KEEP + 600);
    meta_crash(f);
    open_meta(f);
    assert_int_equal(find(f, "t")->partitions, 3);
    (void)init_now(f, "p", &epoch);
    assert_int_equal(epoch, 3001);
}

static void the_log_s_time_does_not_step_back_with_the_clock(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t epoch = 0;
    open_meta(f);
    for (int i = 0; i < 10; i++) {
        (void)init_now(f, "p", &epoch);
        f->now_ms -= HOUR_MS;
        if (i % 3 == 0) {
            meta_flush(f);
        }
        meta_crash(f);
        open_meta(f);
    }
    assert_int_equal(epoch, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        meta_unit(a_group_is_given_to_one_partition_ever),
        meta_unit(the_same_topic_again_is_answered_with_its_id),
        meta_unit(bad_topics_are_refused),
        meta_unit(topics_survive_every_crash),
        meta_unit(a_named_producer_keeps_its_id_and_its_epoch_rises),
        meta_unit(two_lives_of_one_name_in_one_turn_have_two_epochs),
        meta_unit(a_lease_is_renewed_awaited_and_taken_over),
        meta_unit(bad_elections_are_refused),
        meta_unit(a_resigned_lease_is_free_at_once),
        meta_unit(after_a_restart_a_lease_is_waited_out),
        meta_unit(after_a_restart_a_longer_renewal_is_waited_out),
        meta_unit(epochs_rise_through_every_crash),
        meta_unit(checkpoints_are_the_holder_s_and_survive),
        meta_unit(the_log_is_trimmed_and_nothing_is_lost),
        meta_unit(the_log_s_time_does_not_step_back_with_the_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
