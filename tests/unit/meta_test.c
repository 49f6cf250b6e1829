/* The metadata group: topics, producers' epochs, elections, its own log; crashes anywhere. */
#include "cluster/meta.h"

#include <stdio.h>

#include "base/mem.h"
#include "lib/partition_fixture.h"

struct fixture {
    char root[256];
    char folder[300];
    struct store *store;
    struct meta *m;
    int64_t now_ms, now_us;
    struct err_text detail;
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL || fixture_make_folder(f->root, sizeof(f->root), "meta") != 0) {
        mem_free(f);
        return -1;
    }
    (void)snprintf(f->folder, sizeof(f->folder), "%s/shard", f->root);
    f->now_ms = PART_START_MS;
    f->now_us = 1000000;
    *state = f;
    return 0;
}

static void turn(struct fixture *f)
{
    struct replica *r = meta_replica(f->m);
    if (replica_deadline_us(r) <= f->now_us) {
        assert_int_equal(replica_tick(r, f->now_us), FERRY_OK);
    }
    for (int i = 0; replica_wants_write(r, f->now_us); i++) {
        uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
        assert_true(i < 100000);
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(replica_write(r, f->now_us, &rows_left), FERRY_OK);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(replica_stored(r, f->now_us), FERRY_OK);
        meta_check(f->m);
    }
}

static void open_meta(struct fixture *f)
{
    struct store_config sc = {.path = f->folder,
                              .node_id = 1,
                              .shards = 1,
                              .max_bytes = 1LL << 30,
                              .grow_bytes = 4 << 20,
                              .reserve_bytes = 1 << 20};
    if (store_open(&sc, &f->store, &f->detail) != FERRY_OK) {
        fail_msg("%s", f->detail.text);
    }
    struct meta_config config = {
        .store = f->store, .self = 1, .initial = {.voter_count = 1, .voters = {1}}, .seed = 1};
    enum ferry_err err = meta_open(&config, f->now_us, &f->m, &f->detail);
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), f->detail.text);
    }
    turn(f);
    assert_true(replica_is_ready(meta_replica(f->m)));
    for (struct meta_change *c; (c = meta_next_change(f->m)) != NULL;) {
        mem_free(c);
    }
}

static void crash(struct fixture *f)
{
    if (f->m != NULL) {
        replica_fail(meta_replica(f->m), FERRY_ERR_SHUTTING_DOWN);
        while (meta_next_done(f->m) != NULL) {
        }
        meta_close(&f->m);
    }
    store_close(&f->store);
}

static void flush(struct fixture *f)
{
    f->now_us += REPLICA_FLUSH_MS * 1000;
    turn(f);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    crash(f);
    fixture_remove_tree(f->root);
    mem_free(f);
    return 0;
}

/* Crashes at each point of the turn in which something is proposed; true when that survived. */
static bool crash_in_turn(struct fixture *f, int round)
{
    enum crash_point point = (enum crash_point)(round % CRASH_POINTS);
    f->now_us += round / CRASH_POINTS % 2 == 0 ? 0 : REPLICA_FLUSH_MS * 1000;
    uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
    if (point != CRASH_BEFORE_WRITE) {
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(replica_write(meta_replica(f->m), f->now_us, &rows_left), FERRY_OK);
    }
    if (point == CRASH_BEFORE_COMMIT) {
        store_abort(f->store);
    } else if (point == CRASH_BEFORE_STORED) {
        assert_int_equal(store_commit(f->store), FERRY_OK);
    }
    crash(f);
    open_meta(f);
    return point == CRASH_BEFORE_STORED;
}

static void expect_done(struct fixture *f, const struct meta_ticket *t)
{
    assert_ptr_equal(meta_next_done(f->m), t);
    assert_int_equal(t->base.err, FERRY_OK);
}

/* ---- Topics ---- */

static struct topic_create_request spec_of(const char *name, uint32_t partitions)
{
    return (struct topic_create_request){.name = bytes_of_string(name),
                                         .partitions = partitions,
                                         .replicas = 1,
                                         .retention_ms = -1,
                                         .retention_bytes = -1,
                                         .dedupe_window_ms = -1};
}

static enum ferry_err propose_topic(struct fixture *f, const struct topic_create_request *spec,
                                    uint64_t id, struct meta_ticket *t)
{
    struct ferry_id topic_id = part_id(id);
    return meta_topic_create(f->m, spec, &topic_id, f->now_ms, f->now_us, t, &f->detail);
}

static void create_topic(struct fixture *f, const char *name, uint32_t partitions, uint64_t id)
{
    struct meta_ticket t;
    struct topic_create_request spec = spec_of(name, partitions);
    meta_ticket_init(&t);
    assert_int_equal(propose_topic(f, &spec, id, &t), FERRY_OK);
    turn(f);
    expect_done(f, &t);
    meta_ticket_fini(&t);
}

static void delete_topic(struct fixture *f, const char *name)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    assert_int_equal(meta_topic_delete(f->m, bytes_of_string(name), f->now_ms, f->now_us, &t),
                     FERRY_OK);
    turn(f);
    expect_done(f, &t);
    meta_ticket_fini(&t);
}

static const struct meta_topic *find(struct fixture *f, const char *name)
{
    return meta_topic_find(f->m, bytes_of_string(name));
}

static void a_group_is_given_to_one_partition_ever(void **state)
{
    struct fixture *f = *state;
    open_meta(f);
    uint64_t next = 1;
    for (int round = 0; round < 12; round++) {
        create_topic(f, "t", 3, (uint64_t)round + 1);
        assert_int_equal(find(f, "t")->first_group, next);
        next += 3;
        struct meta_change *c = meta_next_change(f->m);
        assert_true(c != NULL && c->created);
        mem_free(c);
        if (round % 3 == 0) {
            flush(f);
        }
        delete_topic(f, "t");
        assert_null(find(f, "t"));
        c = meta_next_change(f->m);
        assert_true(c != NULL && !c->created && c->topic.first_group == next - 3);
        mem_free(c);
        if (round % 3 == 1) {
            flush(f);
        }
        crash(f);
        open_meta(f);
        assert_null(find(f, "t"));
    }
}

static void the_same_topic_again_is_answered_with_its_id(void **state)
{
    struct fixture *f = *state;
    open_meta(f);
    create_topic(f, "t", 2, 7);
    struct meta_ticket t;
    meta_ticket_init(&t);
    struct topic_create_request spec = spec_of("t", 2);
    struct ferry_id id = part_id(7);
    assert_int_equal(propose_topic(f, &spec, 8, &t), FERRY_OK);
    assert_int_equal(t.base.index, 0);
    assert_memory_equal(&t.topic_id, &id, sizeof(id));
    spec.partitions = 3;
    assert_int_equal(propose_topic(f, &spec, 8, &t), FERRY_ERR_TOPIC_EXISTS);
    meta_ticket_fini(&t);
}

static void bad_topics_are_refused(void **state)
{
    struct fixture *f = *state;
    open_meta(f);
    struct meta_ticket t;
    meta_ticket_init(&t);
    static const char *const names[] = {"", ".a", "a b", "../etc"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct topic_create_request spec = spec_of(names[i], 1);
        assert_int_equal(propose_topic(f, &spec, 1, &t), FERRY_ERR_BAD_NAME);
    }
    struct topic_create_request s = spec_of("t", 0);
    assert_int_equal(propose_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = spec_of("t", PARTITIONS_MAX + 1);
    assert_int_equal(propose_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = spec_of("t", 1);
    s.replicas = 3;
    assert_int_equal(propose_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = spec_of("t", 1);
    s.retention_ms = -2;
    assert_int_equal(propose_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    /* Times that no arithmetic on them survives. */
    s.retention_ms = INT64_MAX;
    assert_int_equal(propose_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    s = spec_of("t", 1);
    s.dedupe_window_ms = INT64_MAX / 1000;
    assert_int_equal(propose_topic(f, &s, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(meta_topic_delete(f->m, bytes_of(NULL, 0), f->now_ms, f->now_us, &t),
                     FERRY_ERR_UNKNOWN_TOPIC);
    assert_null(meta_topic_find(f->m, bytes_of(NULL, 0)));
    meta_ticket_fini(&t);
}

static void topics_survive_every_crash(void **state)
{
    struct fixture *f = *state;
    open_meta(f);
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        char name[16];
        struct meta_ticket t;
        (void)snprintf(name, sizeof(name), "t%d", round);
        struct topic_create_request spec = spec_of(name, 1 + (uint32_t)round);
        meta_ticket_init(&t);
        assert_int_equal(propose_topic(f, &spec, (uint64_t)round + 1, &t), FERRY_OK);
        bool survived = crash_in_turn(f, round);
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

static enum ferry_err init(struct fixture *f, const char *name, struct meta_ticket *t)
{
    return meta_producer_init(f->m, bytes_of_string(name), f->now_ms, f->now_us, t);
}

static uint64_t init_now(struct fixture *f, const char *name, uint32_t *epoch)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    assert_int_equal(init(f, name, &t), FERRY_OK);
    turn(f);
    expect_done(f, &t);
    *epoch = t.producer_epoch;
    uint64_t id = t.producer_id;
    meta_ticket_fini(&t);
    return id;
}

static void a_named_producer_keeps_its_id_and_its_epoch_rises(void **state)
{
    struct fixture *f = *state;
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
        bool survived = crash_in_turn(f, round);
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
    struct fixture *f = *state;
    struct meta_ticket a, b;
    open_meta(f);
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    assert_int_equal(init(f, "p", &a), FERRY_OK);
    assert_int_equal(init(f, "p", &b), FERRY_OK);
    turn(f);
    expect_done(f, &a);
    expect_done(f, &b);
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

static struct election elect(struct fixture *f, const char *holder, uint32_t ttl_ms, uint64_t epoch)
{
    struct election e = {0};
    struct meta_ticket t;
    struct source_elect_request r = {
        .source = source, .holder = bytes_of_string(holder), .ttl_ms = ttl_ms, .epoch = epoch};
    meta_ticket_init(&t);
    e.err = meta_source_elect(f->m, &r, f->now_ms, f->now_us, &t, &e.granted);
    turn(f);
    if (e.err == FERRY_OK && t.base.index != 0) {
        expect_done(f, &t);
    }
    e.epoch = t.source_epoch;
    meta_source_show(f->m, &source, 0, f->now_us, &e.shown);
    meta_ticket_fini(&t);
    return e;
}

static void a_lease_is_renewed_awaited_and_taken_over(void **state)
{
    struct fixture *f = *state;
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
    struct fixture *f = *state;
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
    struct fixture *f = *state;
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
    struct fixture *f = *state;
    open_meta(f);
    (void)elect(f, "a", 5000, 0);
    for (int round = 0; round < 2; round++) {
        crash(f);
        f->now_us += 100;
        open_meta(f);
        f->now_us += 4900000;
        assert_false(elect(f, "b", 5000, 0).granted);
        flush(f);
    }
    struct election e = elect(f, "b", 5000, 0);
    assert_true(e.granted && e.epoch == 2);
}

/* Invariant 4: a lease renewed for longer than it was won for is waited out as well. */
static void after_a_restart_a_longer_renewal_is_waited_out(void **state)
{
    struct fixture *f = *state;
    open_meta(f);
    struct election e = elect(f, "a", 1000, 0);
    e = elect(f, "a", 30000, e.epoch);
    assert_true(e.granted);
    crash(f);
    open_meta(f);
    f->now_us += 29000000;
    assert_false(elect(f, "b", 1000, 0).granted);
    assert_true(elect(f, "a", 30000, e.epoch).granted);
}

static void epochs_rise_through_every_crash(void **state)
{
    struct fixture *f = *state;
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
        epoch += crash_in_turn(f, round) ? 1 : 0;
        meta_ticket_fini(&t);
        struct source_elect_reply shown;
        meta_source_show(f->m, &source, 0, f->now_us, &shown);
        assert_int_equal(shown.epoch, epoch);
    }
}

static void checkpoints_are_the_holder_s_and_survive(void **state)
{
    struct fixture *f = *state;
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
        bool survived = crash_in_turn(f, round);
        meta_ticket_fini(&t);
        meta_source_show(f->m, &source, 0, f->now_us, &shown);
        assert_true(bytes_equal(shown.checkpoint, bytes_of_string(text)) == survived);
    }
}

/* ---- Its own log ---- */

static void the_log_is_trimmed_and_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    uint32_t epoch = 0;
    open_meta(f);
    create_topic(f, "t", 3, 1);
    for (int i = 0; i < 3000; i++) {
        (void)init_now(f, "p", &epoch);
        if (i % 500 == 250) {
            flush(f);
        }
        if (i % 1000 == 999) {
            crash(f);
            open_meta(f);
        }
    }
    assert_int_equal(epoch, 3000);
    flush(f);
    flush(f);
    uint64_t first = 0, last = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, META_GROUP, &first, &last), FERRY_OK);
    store_read_end(f->store);
    assert_true(last - first < META_LOG_KEEP + 600);
    crash(f);
    open_meta(f);
    assert_int_equal(find(f, "t")->partitions, 3);
    (void)init_now(f, "p", &epoch);
    assert_int_equal(epoch, 3001);
}

static void the_log_s_time_does_not_step_back_with_the_clock(void **state)
{
    struct fixture *f = *state;
    uint32_t epoch = 0;
    open_meta(f);
    for (int i = 0; i < 10; i++) {
        (void)init_now(f, "p", &epoch);
        f->now_ms -= HOUR_MS;
        if (i % 3 == 0) {
            flush(f);
        }
        crash(f);
        open_meta(f);
    }
    assert_int_equal(epoch, 10);
}

#define meta_unit(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
