/* Leases: tokens, lines, clocks; worker ids. */
#include <stdio.h>

#include "base/mem.h"
#include "base/prng.h"
#include "cluster/meta_internal.h"
#include "lib/meta_fixture.h"

#define NAME "jobs"

/* A ticket that lives until the end of the test's function. */
struct asked {
    struct meta_ticket t;
    enum ferry_err err;
};

static void acquire(struct meta_fixture *f, struct asked *a, const char *holder, uint32_t ttl_ms,
                    uint32_t wait_ms)
{
    meta_ticket_init(&a->t);
    a->err = meta_lease_acquire(f->m, bytes_of_string(NAME), bytes_of_string(holder), ttl_ms,
                                wait_ms, f->now_ms, f->now_us, &a->t);
    if (a->err == FERRY_OK) {
        assert_true(a->t.waits);
    }
}

/* Acquires without waiting; the token, or 0 when somebody else has it. */
static uint64_t take(struct meta_fixture *f, const char *holder, uint32_t ttl_ms)
{
    struct asked a;
    acquire(f, &a, holder, ttl_ms, 0);
    if (a.err == FERRY_OK) {
        meta_turn(f);
        meta_expect_done(f, &a.t, FERRY_OK);
    } else {
        assert_int_equal(a.err, FERRY_ERR_LEASE_HELD);
    }
    uint64_t token = a.err == FERRY_OK ? a.t.token : 0;
    meta_ticket_fini(&a.t);
    return token;
}

static enum ferry_err renew(struct meta_fixture *f, const char *holder, uint64_t token,
                            uint32_t ttl_ms)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    enum ferry_err err = meta_lease_renew(f->m, bytes_of_string(NAME), bytes_of_string(holder),
                                          token, ttl_ms, f->now_ms, f->now_us, &t);
    if (err == FERRY_OK) {
        meta_turn(f);
        assert_ptr_equal(meta_next_done(f->m), &t);
        err = t.base.err;
    }
    meta_ticket_fini(&t);
    return err;
}

static enum ferry_err release(struct meta_fixture *f, const char *holder, uint64_t token)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    enum ferry_err err = meta_lease_release(f->m, bytes_of_string(NAME), bytes_of_string(holder),
                                            token, f->now_ms, f->now_us, &t);
    if (err == FERRY_OK) {
        meta_turn(f);
        struct meta_ticket *done = meta_next_done(f->m);
        assert_ptr_equal(done, &t);
        err = t.base.err;
    }
    meta_ticket_fini(&t);
    return err;
}

static bool is_held_by(struct meta_fixture *f, const char *holder)
{
    struct meta_lease_view view;
    return meta_lease_find(f->m, bytes_of_string(NAME), f->now_us, &view) &&
           bytes_equal(view.holder, bytes_of_string(holder));
}

static void start(struct meta_fixture *f)
{
    meta_start(f);
    meta_join_all(f, 1, 1);
}

/* ---- Holding ---- */

static void a_lease_has_one_holder_until_its_time_is_over(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    uint64_t first = take(f, "a", 1000);
    assert_true(first > 0);
    meta_pass_ms(f, 999);
    assert_int_equal(take(f, "b", 1000), 0);
    struct meta_lease_view view;
    assert_true(meta_lease_find(f->m, bytes_of_string(NAME), f->now_us, &view));
    assert_true(view.token == first && view.ttl_ms == 1000 && view.waiting == 0);
    assert_in_range(view.left_ms, 1, 2);
    meta_pass_ms(f, 1);
    uint64_t second = take(f, "b", 1000);
    assert_true(second > first);
    assert_int_equal(renew(f, "a", first, 1000), FERRY_ERR_LEASE_LOST);
    assert_int_equal(release(f, "a", first), FERRY_ERR_LEASE_LOST);
    assert_true(is_held_by(f, "b"));
}

static void a_renewal_prolongs_and_only_the_present_token_renews(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    uint64_t token = take(f, "a", 1000);
    for (int i = 0; i < 5; i++) {
        meta_pass_ms(f, 900);
        assert_int_equal(renew(f, "a", token, 1000), FERRY_OK);
    }
    assert_int_equal(renew(f, "a", token + 1, 1000), FERRY_ERR_LEASE_LOST);
    assert_int_equal(renew(f, "b", token, 1000), FERRY_ERR_LEASE_LOST);
    assert_int_equal(renew(f, "a", 0, 1000), FERRY_ERR_LEASE_LOST);
    assert_int_equal(renew(f, "a", token, 0), FERRY_ERR_INVALID_ARGUMENT);
    meta_pass_ms(f, 999);
    assert_int_equal(take(f, "b", 1000), 0);
    meta_pass_ms(f, 5000);
    assert_int_equal(renew(f, "a", token, 1000), FERRY_OK); /* Late, but nobody else came. */
    assert_int_equal(take(f, "b", 1000), 0);
}

/* A renewal for longer than the log knows goes through the log, so that it is waited out. */
static void a_longer_renewal_is_waited_out_too(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    uint64_t token = take(f, "a", 1000);
    assert_int_equal(renew(f, "a", token, 30000), FERRY_OK);
    meta_crash(f);
    meta_start(f);
    meta_pass_ms(f, 29000);
    assert_int_equal(take(f, "b", 1000), 0);
    assert_int_equal(renew(f, "a", token, 30000), FERRY_OK);
}

static void the_same_holder_again_fences_its_former_life(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    uint64_t first = take(f, "a", 60000);
    uint64_t second = take(f, "a", 60000);
    assert_true(second > first);
    assert_int_equal(renew(f, "a", first, 60000), FERRY_ERR_LEASE_LOST);
    assert_int_equal(renew(f, "a", second, 60000), FERRY_OK);
}

/* Invariant 9, also across names, restarts, and names that were forgotten. */
static void tokens_only_rise(void **state)
{
    struct meta_fixture *f = *state;
    uint64_t last = 0;
    start(f);
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        uint64_t token = take(f, round % 2 == 0 ? "a" : "b", 200);
        assert_true(token > last);
        last = token;
        if (round % 3 == 0) {
            assert_int_equal(release(f, round % 2 == 0 ? "a" : "b", token), FERRY_OK);
        }
        struct asked a;
        meta_pass_ms(f, 300);
        acquire(f, &a, "c", 200, 0);
        assert_int_equal(a.err, FERRY_OK);
        uint64_t asked = a.t.token;
        bool survived = meta_crash_in_turn(f, round);
        assert_true(asked > last);
        last = survived ? asked : last;
        meta_ticket_fini(&a.t);
        meta_pass_ms(f, 300); /* Waited out. */
    }
}

static void bad_leases_are_refused(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t;
    start(f);
    meta_ticket_init(&t);
    struct bytes good = bytes_of_string("n"), bad = bytes_of_string("a b"), none = {0};
    assert_int_equal(meta_lease_acquire(f->m, bad, good, 1000, 0, f->now_ms, f->now_us, &t),
                     FERRY_ERR_BAD_NAME);
    assert_int_equal(meta_lease_acquire(f->m, good, none, 1000, 0, f->now_ms, f->now_us, &t),
                     FERRY_ERR_BAD_NAME);
    assert_int_equal(
        meta_lease_acquire(f->m, good, good, META_LEASE_MIN_MS - 1, 0, f->now_ms, f->now_us, &t),
        FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(
        meta_lease_acquire(f->m, good, good, META_LEASE_MAX_MS + 1, 0, f->now_ms, f->now_us, &t),
        FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(meta_lease_release(f->m, good, good, 1, f->now_ms, f->now_us, &t),
                     FERRY_ERR_LEASE_LOST);
    assert_int_equal(meta_lease_renew(f->m, good, good, 1, 1000, f->now_ms, f->now_us, &t),
                     FERRY_ERR_LEASE_LOST);
    meta_ticket_fini(&t);
}

/* ---- Waiting ---- */

static void those_who_wait_are_served_in_their_order(void **state)
{
    struct meta_fixture *f = *state;
    static const char *const names[] = {"b", "c", "d", "e"};
    struct asked a[4];
    start(f);
    uint64_t token = take(f, "a", 1000);
    const char *holder = "a";
    for (int i = 0; i < 4; i++) {
        acquire(f, &a[i], names[i], 500, 60000);
        assert_int_equal(a[i].err, FERRY_OK);
    }
    struct meta_lease_view view;
    assert_true(meta_lease_find(f->m, bytes_of_string(NAME), f->now_us, &view));
    assert_int_equal(view.waiting, 4);
    for (int i = 0; i < 4; i++) {
        assert_null(meta_next_done(f->m));
        if (i % 2 == 0) { /* By turns: it is released, or its time runs out. */
            assert_int_equal(release(f, holder, token), FERRY_OK);
            meta_turn(f);
        } else {
            meta_pass_ms(f, 499);
            assert_null(meta_next_done(f->m));
            assert_int_equal(meta_deadline_us(f->m), f->now_us + 1000);
            meta_pass_ms(f, 1);
        }
        meta_expect_done(f, &a[i].t, FERRY_OK);
        assert_true(a[i].t.token > token);
        token = a[i].t.token;
        holder = names[i];
        assert_true(is_held_by(f, holder));
    }
    for (int i = 0; i < 4; i++) {
        meta_ticket_fini(&a[i].t);
    }
}

static void nobody_overtakes_the_line(void **state)
{
    struct meta_fixture *f = *state;
    struct asked b;
    start(f);
    (void)take(f, "a", 1000);
    acquire(f, &b, "b", 1000, 60000);
    f->now_us += 1000000; /* It is free, and meta_tick has not looked yet. */
    assert_int_equal(take(f, "c", 1000), 0);
    meta_turn(f);
    meta_expect_done(f, &b.t, FERRY_OK);
    assert_int_equal(take(f, "a", 1000), 0); /* Its time was over: it has no right left. */
    meta_ticket_fini(&b.t);
}

static void a_wait_ends_and_the_place_is_kept_for_a_while(void **state)
{
    struct meta_fixture *f = *state;
    struct asked b, c, again;
    start(f);
    uint64_t token = take(f, "a", 60000);
    acquire(f, &b, "b", 1000, 200);
    acquire(f, &c, "c", 1000, 60000);
    meta_pass_ms(f, 200);
    meta_expect_done(f, &b.t, FERRY_ERR_LEASE_HELD);
    meta_pass_ms(f, META_LEASE_PLACE_MS - 1);
    acquire(f, &again, "b", 1000, 60000); /* Still before c. */
    assert_int_equal(release(f, "a", token), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &again.t, FERRY_OK);
    assert_null(meta_next_done(f->m));
    meta_pass_ms(f, 1000);
    meta_expect_done(f, &c.t, FERRY_OK);
    meta_ticket_fini(&b.t);
    meta_ticket_fini(&c.t);
    meta_ticket_fini(&again.t);
}

static void a_place_nobody_asks_for_again_holds_nobody_up(void **state)
{
    struct meta_fixture *f = *state;
    struct asked b, c;
    start(f);
    uint64_t token = take(f, "a", 60000);
    acquire(f, &b, "b", 1000, 200);
    meta_pass_ms(f, 200);
    meta_expect_done(f, &b.t, FERRY_ERR_LEASE_HELD);
    acquire(f, &c, "c", 1000, 60000);
    assert_int_equal(release(f, "a", token), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &c.t, FERRY_OK);
    meta_pass_ms(f, META_LEASE_PLACE_MS);
    struct meta_lease_view view;
    assert_true(meta_lease_find(f->m, bytes_of_string(NAME), f->now_us, &view));
    assert_int_equal(view.waiting, 0);
    meta_ticket_fini(&b.t);
    meta_ticket_fini(&c.t);
}

static void asking_again_while_waiting_answers_the_ticket_before(void **state)
{
    struct meta_fixture *f = *state;
    struct asked b, again;
    start(f);
    uint64_t token = take(f, "a", 60000);
    acquire(f, &b, "b", 1000, 60000);
    acquire(f, &again, "b", 1000, 60000);
    meta_expect_done(f, &b.t, FERRY_ERR_LEASE_HELD);
    assert_int_equal(release(f, "a", token), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &again.t, FERRY_OK);
    assert_true(is_held_by(f, "b"));
    meta_ticket_fini(&b.t);
    meta_ticket_fini(&again.t);
}

/* Two acquires of one holder on the way: the second finds that it has it already, and gets it anew.
 */
static void a_holder_in_line_behind_itself_need_not_wait(void **state)
{
    struct meta_fixture *f = *state;
    struct asked a, again;
    start(f);
    acquire(f, &a, "a", 60000, 1000);
    acquire(f, &again, "a", 60000, 1000);
    meta_turn(f);
    meta_expect_done(f, &a.t, FERRY_OK);
    meta_expect_done(f, &again.t, FERRY_OK);
    assert_true(again.t.token > a.t.token);
    assert_int_equal(renew(f, "a", again.t.token, 60000), FERRY_OK);
    meta_ticket_fini(&a.t);
    meta_ticket_fini(&again.t);
}

static void who_waits_is_told_when_the_office_is_lost(void **state)
{
    struct meta_fixture *f = *state;
    struct asked b, c;
    start(f);
    (void)take(f, "a", 60000);
    acquire(f, &b, "b", 1000, 60000);
    acquire(f, &c, "c", 1000, 60000);
    replica_fail(meta_replica(f->m), FERRY_ERR_SHUTTING_DOWN);
    meta_expect_done(f, &b.t, FERRY_ERR_NOT_LEADER);
    meta_expect_done(f, &c.t, FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_deadline_us(f->m), RAFT_NEVER);
    meta_check(f->m);
    meta_ticket_fini(&b.t);
    meta_ticket_fini(&c.t);
}

static void lines_are_bounded(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    (void)take(f, "a", 60000);
    struct asked *a = mem_zalloc(META_LEASE_WAITERS_MAX + 1, sizeof(*a));
    assert_non_null(a);
    for (uint32_t i = 0; i <= META_LEASE_WAITERS_MAX; i++) {
        char holder[16];
        (void)snprintf(holder, sizeof(holder), "w%u", i);
        acquire(f, &a[i], holder, 1000, 60000);
        assert_int_equal(a[i].err, i < META_LEASE_WAITERS_MAX ? FERRY_OK : FERRY_ERR_LIMIT_REACHED);
    }
    meta_pass_ms(f, 60000); /* a's time and their waits are over together. */
    uint32_t granted = 0, held = 0;
    for (struct meta_ticket *t; (t = meta_next_done(f->m)) != NULL;) {
        granted += t->base.err == FERRY_OK ? 1 : 0;
        held += t->base.err == FERRY_ERR_LEASE_HELD ? 1 : 0;
    }
    assert_int_equal(granted + held, META_LEASE_WAITERS_MAX);
    assert_true(granted <= 1);
    for (uint32_t i = 0; i <= META_LEASE_WAITERS_MAX; i++) {
        meta_ticket_fini(&a[i].t);
    }
    mem_free(a);
}

/* ---- A new leader ---- */

static void after_a_restart_a_lease_is_waited_out(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    uint64_t token = take(f, "a", 5000);
    for (int round = 0; round < 3; round++) {
        meta_pass_ms(f, 4000);
        meta_flush(f);
        meta_crash(f);
        meta_start(f);
        assert_int_equal(take(f, "b", 5000), 0);
        meta_pass_ms(f, 4999);
        assert_int_equal(take(f, "b", 5000), 0);
        assert_int_equal(renew(f, "a", token, 5000), FERRY_OK);
    }
    meta_pass_ms(f, 5000);
    assert_true(take(f, "b", 5000) > token);
}

/* ---- Forgetting and listing ---- */

static void a_lease_that_ran_out_is_forgotten_and_a_released_one_at_once(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    uint64_t token = take(f, "a", 1000);
    assert_int_equal(release(f, "a", token), FERRY_OK);
    assert_int_equal(f->m->lease_count, 0);
    token = take(f, "a", 1000);
    meta_pass_ms(f, 1000 + META_LEASE_LINGER_MS - 1);
    assert_int_equal(f->m->lease_count, 1);
    meta_pass_ms(f, 1);
    assert_int_equal(f->m->lease_count, 0);
    assert_int_equal(renew(f, "a", token, 1000), FERRY_ERR_LEASE_LOST);
    meta_flush(f);
    meta_crash(f);
    meta_start(f);
    assert_int_equal(f->m->lease_count, 0);
    assert_true(take(f, "b", 1000) > token);
    assert_int_equal(meta_deadline_us(f->m), f->now_us + (1000 + META_LEASE_LINGER_MS) * 1000);
}

static void leases_are_listed_by_name(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_lease_view view;
    start(f);
    for (int i = 0; i < 30; i++) {
        char name[16];
        struct meta_ticket t;
        (void)snprintf(name, sizeof(name), "n%02d", (i * 7) % 30);
        meta_ticket_init(&t);
        assert_int_equal(meta_lease_acquire(f->m, bytes_of_string(name), bytes_of_string("h"),
                                            60000, 0, f->now_ms, f->now_us, &t),
                         FERRY_OK);
        meta_turn(f);
        meta_expect_done(f, &t, FERRY_OK);
        meta_ticket_fini(&t);
    }
    meta_flush(f);
    meta_crash(f);
    meta_start(f);
    char after[16] = "";
    for (int i = 0; i < 30; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "n%02d", i);
        assert_true(meta_lease_after(f->m, bytes_of_string(after), f->now_us, &view));
        assert_true(bytes_equal(view.name, bytes_of_string(name)));
        (void)snprintf(after, sizeof(after), "%s", name);
    }
    assert_false(meta_lease_after(f->m, bytes_of_string(after), f->now_us, &view));
    assert_true(meta_lease_after(f->m, bytes_of_string("n05x"), f->now_us, &view));
    assert_true(bytes_equal(view.name, bytes_of_string("n06")));
}

static void there_are_only_so_many_leases(void **state)
{
    struct meta_fixture *f = *state;
    start(f);
    struct meta_ticket *t = mem_zalloc(META_LEASES_MAX + 1, sizeof(*t));
    assert_non_null(t);
    for (uint32_t i = 0; i <= META_LEASES_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "n%u", i);
        meta_ticket_init(&t[i]);
        enum ferry_err err = meta_lease_acquire(f->m, bytes_of_string(name), bytes_of_string("h"),
                                                1000, 0, f->now_ms, f->now_us, &t[i]);
        assert_int_equal(err, i < META_LEASES_MAX ? FERRY_OK : FERRY_ERR_LIMIT_REACHED);
    }
    meta_turn(f);
    while (meta_next_done(f->m) != NULL) {
    }
    for (uint32_t i = 0; i <= META_LEASES_MAX; i++) {
        meta_ticket_fini(&t[i]);
    }
    for (int i = 0; i < 100 && f->m->lease_count > 0; i++) {
        meta_pass_ms(f, META_LEASE_LINGER_MS + 1000);
    }
    assert_int_equal(f->m->lease_count, 0); /* Forgotten a few at a time. */
    mem_free(t);
}

/* ---- Worker ids ---- */

static enum ferry_err worker(struct meta_fixture *f, const char *holder, uint32_t ttl_ms,
                             uint32_t *id)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    enum ferry_err err =
        meta_worker_id(f->m, bytes_of_string(holder), ttl_ms, f->now_ms, f->now_us, &t);
    if (err == FERRY_OK) {
        meta_turn(f);
        assert_ptr_equal(meta_next_done(f->m), &t);
        err = t.base.err;
    }
    *id = t.worker_id;
    meta_ticket_fini(&t);
    return err;
}

static void a_worker_id_is_its_holder_s_while_it_renews(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t a = 0, b = 0, again = 0;
    start(f);
    assert_int_equal(worker(f, "a", 1000, &a), FERRY_OK);
    assert_int_equal(worker(f, "b", 1000, &b), FERRY_OK);
    assert_true(a != b && a < META_WORKERS && b < META_WORKERS);
    for (int i = 0; i < 4; i++) {
        meta_pass_ms(f, 900);
        assert_int_equal(worker(f, "a", 1000, &again), FERRY_OK);
        assert_int_equal(again, a);
        if (i == 1) {
            meta_crash(f);
            meta_start(f);
        }
    }
    assert_int_equal(worker(f, "a", 5000, &again), FERRY_OK); /* For longer: by the log. */
    assert_int_equal(again, a);
    assert_int_equal(worker(f, "a b", 1000, &again), FERRY_ERR_BAD_NAME);
    assert_int_equal(worker(f, "a", 1, &again), FERRY_ERR_INVALID_ARGUMENT);
}

static void no_worker_id_is_given_twice_and_1024_are_all(void **state)
{
    struct meta_fixture *f = *state;
    bool seen[META_WORKERS] = {false};
    uint32_t id = 0;
    char holder[16];
    start(f);
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        (void)snprintf(holder, sizeof(holder), "w%u", i);
        assert_int_equal(worker(f, holder, 60000, &id), FERRY_OK);
        assert_false(seen[id]);
        seen[id] = true;
        if (i % 300 == 299) {
            meta_flush(f);
            meta_crash(f);
            meta_start(f);
        }
    }
    assert_int_equal(worker(f, "late", 1000, &id), FERRY_ERR_LIMIT_REACHED);
    meta_pass_ms(f, 30000);
    assert_int_equal(worker(f, "w7", 60000, &id), FERRY_OK);
    meta_pass_ms(f, 30001);
    uint32_t late = 0;
    assert_int_equal(worker(f, "late", 1000, &late), FERRY_OK);
    assert_int_not_equal(late, id); /* The one that renewed keeps its own. */
    assert_int_equal(worker(f, "w7", 60000, &id), FERRY_OK);
}

/* The answer is lost and the holder asks again before the entry is there: no second id. */
static void a_worker_that_asks_twice_at_once_has_one_id(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t, again;
    start(f);
    meta_ticket_init(&t);
    meta_ticket_init(&again);
    struct bytes holder = bytes_of_string("a");
    assert_int_equal(meta_worker_id(f->m, holder, 1000, f->now_ms, f->now_us, &t), FERRY_OK);
    assert_int_equal(meta_worker_id(f->m, holder, 1000, f->now_ms, f->now_us, &again),
                     FERRY_ERR_NOT_READY);
    meta_turn(f);
    meta_expect_done(f, &t, FERRY_OK);
    uint32_t id = 0, taken = 0;
    assert_int_equal(worker(f, "a", 1000, &id), FERRY_OK);
    assert_int_equal(id, t.worker_id);
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        taken += f->m->workers[i].holder[0] != '\0' ? 1 : 0;
    }
    assert_int_equal(taken, 1);
    meta_ticket_fini(&t);
    meta_ticket_fini(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        meta_unit(a_lease_has_one_holder_until_its_time_is_over),
        meta_unit(a_renewal_prolongs_and_only_the_present_token_renews),
        meta_unit(a_longer_renewal_is_waited_out_too),
        meta_unit(the_same_holder_again_fences_its_former_life),
        meta_unit(tokens_only_rise),
        meta_unit(bad_leases_are_refused),
        meta_unit(those_who_wait_are_served_in_their_order),
        meta_unit(nobody_overtakes_the_line),
        meta_unit(a_wait_ends_and_the_place_is_kept_for_a_while),
        meta_unit(a_place_nobody_asks_for_again_holds_nobody_up),
        meta_unit(asking_again_while_waiting_answers_the_ticket_before),
        meta_unit(a_holder_in_line_behind_itself_need_not_wait),
        meta_unit(who_waits_is_told_when_the_office_is_lost),
        meta_unit(lines_are_bounded),
        meta_unit(after_a_restart_a_lease_is_waited_out),
        meta_unit(a_lease_that_ran_out_is_forgotten_and_a_released_one_at_once),
        meta_unit(leases_are_listed_by_name),
        meta_unit(there_are_only_so_many_leases),
        meta_unit(a_worker_id_is_its_holder_s_while_it_renews),
        meta_unit(no_worker_id_is_given_twice_and_1024_are_all),
        meta_unit(a_worker_that_asks_twice_at_once_has_one_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
