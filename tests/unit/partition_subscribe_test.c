/* Subscriptions: created, committed, deleted; never back (INV-P04); the same after a crash. */
#include "lib/partition_fixture.h"

#include <stdio.h>

static struct partition_ticket *create(struct part_fixture *f, const char *name, int64_t from)
{
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(partition_subscription_create(f->p, bytes_of_string(name), SUBSCRIPTION_STREAM,
                                                   from, f->now_ms, f->now_us, t),
                     FERRY_OK);
    return t;
}

static struct partition_ticket *commit(struct part_fixture *f, const char *name, int64_t position)
{
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(partition_subscription_commit(f->p, bytes_of_string(name), position, f->now_ms,
                                                   f->now_us, t),
                     FERRY_OK);
    return t;
}

static enum ferry_err commit_error(struct part_fixture *f, const char *name, int64_t position)
{
    return partition_subscription_commit(f->p, bytes_of_string(name), position, f->now_ms,
                                         f->now_us, part_ticket(f));
}

static void delete (struct part_fixture *f, const char *name)
{
    assert_int_equal(partition_subscription_delete(f->p, bytes_of_string(name), f->now_ms,
                                                   f->now_us, part_ticket(f)),
                     FERRY_OK);
}

static enum ferry_err get(struct part_fixture *f, const char *name,
                          struct subscription_get_reply *reply)
{
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_subscription_get(f->p, bytes_of_string(name), f->now_ms, reply);
    store_read_end(f->store);
    return err;
}

static int64_t position_of(struct part_fixture *f, const char *name)
{
    struct subscription_get_reply reply = {0};
    assert_int_equal(get(f, name, &reply), FERRY_OK);
    return reply.position;
}

static void open_with_records(struct part_fixture *f, uint32_t count)
{
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.count = count});
}

static void a_subscription_begins_where_it_was_asked_to(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    struct partition_ticket *a = create(f, "start", FERRY_FROM_START);
    struct partition_ticket *b = create(f, "end", FERRY_FROM_END);
    struct partition_ticket *c = create(f, "five", 5);
    struct partition_ticket *d = create(f, "far", 500);
    part_turn(f);
    assert_int_equal(a->position, 0);
    assert_int_equal(b->position, 10);
    assert_int_equal(c->position, 5);
    assert_int_equal(d->position, 10);
    assert_int_equal(position_of(f, "end"), 10);
    struct partition_ticket *again = create(f, "five", FERRY_FROM_START);
    assert_true(again->base.index == 0 && again->position == 5);
}

static void bad_creations_are_refused(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 1);
    struct partition_ticket *t = part_ticket(f);
    static const char *const names[] = {"", "-a", "a b", "a/b", "a\n"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(partition_subscription_create(f->p, bytes_of_string(names[i]),
                                                       SUBSCRIPTION_STREAM, 0, f->now_ms, f->now_us,
                                                       t),
                         FERRY_ERR_BAD_NAME);
    }
    struct bytes name = bytes_of_string("a");
    assert_int_equal(partition_subscription_create(f->p, name, 4, 0, f->now_ms, f->now_us, t),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(
        partition_subscription_create(f->p, name, SUBSCRIPTION_STREAM, -3, f->now_ms, f->now_us, t),
        FERRY_ERR_INVALID_ARGUMENT);
    struct subscription_get_reply reply;
    assert_int_equal(get(f, "a", &reply), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(get(f, "", &reply), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(commit_error(f, "", 0), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(
        partition_subscription_delete(f->p, bytes_of(NULL, 0), f->now_ms, f->now_us, t),
        FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_false(replica_wants_write(partition_replica(f->p), f->now_us));
}

static void a_position_never_goes_back(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    (void)create(f, "s", FERRY_FROM_START);
    part_turn(f);
    (void)commit(f, "s", 7);
    part_turn(f);
    struct partition_ticket *t = commit(f, "s", 3);
    assert_true(t->base.index == 0 && t->position == 7);
    assert_int_equal(commit_error(f, "s", 11), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(commit_error(f, "s", -1), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(commit_error(f, "other", 1), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(position_of(f, "s"), 7);
}

/* Several requests in one turn: each is told how things are when its entry is applied. */
static void answers_of_one_turn_tell_what_became_of_it(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    struct partition_ticket *first = create(f, "s", 4);
    struct partition_ticket *second = create(f, "s", FERRY_FROM_END);
    part_turn(f);
    assert_int_equal(first->position, 4);
    assert_int_equal(second->position, 4);
    struct partition_ticket *far = commit(f, "s", 9), *near = commit(f, "s", 6);
    part_turn(f);
    assert_int_equal(far->position, 9);
    assert_int_equal(near->position, 9); /* The greatest committed. */
    delete (f, "s");
    struct partition_ticket *late = commit(f, "s", 10);
    part_turn(f);
    assert_int_equal(late->base.err, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(partition_end_offset(f->p), 10);
}

static void subscriptions_survive_every_crash(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 100);
    (void)create(f, "kept", FERRY_FROM_START);
    part_turn(f);
    int64_t position = 0;
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        if (round % 4 >= 2) {
            part_flush(f);
        }
        f->now_us += round % 2 == 0 ? 0 : REPLICA_FLUSH_MS * 1000;
        char name[16];
        (void)snprintf(name, sizeof(name), "n%d", round);
        (void)commit(f, "kept", position + 2);
        (void)create(f, name, 1);
        enum crash_point point = (enum crash_point)(round / 4);
        part_crash_at(f, point);
        part_open(f);
        bool survived = point == CRASH_BEFORE_STORED;
        position += survived ? 2 : 0;
        assert_int_equal(position_of(f, "kept"), position);
        struct subscription_get_reply reply;
        assert_int_equal(get(f, name, &reply),
                         survived ? FERRY_OK : FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    }
}

static void a_name_deleted_and_made_again_is_new(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    for (int round = 0; round < 6; round++) {
        (void)create(f, "s", FERRY_FROM_START);
        part_turn(f);
        assert_int_equal(position_of(f, "s"), 0);
        (void)commit(f, "s", 8);
        round % 2 == 0 ? part_flush(f) : part_turn(f);
        delete (f, "s");
        part_turn(f);
        struct subscription_get_reply reply;
        assert_int_equal(get(f, "s", &reply), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
        if (round % 3 == 0) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        assert_int_equal(get(f, "s", &reply), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    }
}

static void the_lag_is_the_age_of_the_first_record_not_read(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 5);
    (void)create(f, "s", FERRY_FROM_START);
    part_pass_ms(f, 3000);
    (void)part_produce(f, &(struct batch_of){.count = 5});
    part_pass_ms(f, 2000);
    struct subscription_get_reply reply;
    assert_int_equal(get(f, "s", &reply), FERRY_OK);
    assert_int_equal(reply.lag_ms, 5000);
    assert_true(reply.start_offset == 0 && reply.end_offset == 10);
    (void)commit(f, "s", 4);
    part_turn(f);
    assert_int_equal(get(f, "s", &reply), FERRY_OK);
    assert_int_equal(reply.lag_ms, 5000);
    (void)commit(f, "s", 5);
    part_turn(f);
    assert_int_equal(get(f, "s", &reply), FERRY_OK);
    assert_int_equal(reply.lag_ms, 2000);
    (void)commit(f, "s", 10);
    part_turn(f);
    assert_int_equal(get(f, "s", &reply), FERRY_OK);
    assert_int_equal(reply.lag_ms, 0);
}

static void names_are_listed_sorted_and_in_pages(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 1);
    static struct names_reply reply;
    for (uint32_t i = 0; i < PARTITION_SUBSCRIPTIONS_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "s%04u", (i * 7) % PARTITION_SUBSCRIPTIONS_MAX);
        (void)create(f, name, 0);
    }
    part_turn(f);
    struct bytes name = bytes_of_string("one-more");
    assert_int_equal(partition_subscription_create(f->p, name, SUBSCRIPTION_STREAM, 0, f->now_ms,
                                                   f->now_us, part_ticket(f)),
                     FERRY_ERR_LIMIT_REACHED);
    part_crash(f);
    part_open(f);
    partition_subscription_list(f->p, bytes_of(NULL, 0), &reply);
    assert_int_equal(reply.count, PARTITION_SUBSCRIPTIONS_MAX);
    assert_false(reply.more);
    assert_true(bytes_equal(reply.names[0], bytes_of_string("s0000")));
    assert_true(bytes_equal(reply.names[999], bytes_of_string("s0999")));
    partition_subscription_list(f->p, bytes_of_string("s0500"), &reply);
    assert_int_equal(reply.count, 499);
    assert_true(bytes_equal(reply.names[0], bytes_of_string("s0501")));
    partition_subscription_list(f->p, bytes_of_string("s05"), &reply);
    assert_true(bytes_equal(reply.names[0], bytes_of_string("s0500")));
    partition_subscription_list(f->p, bytes_of_string("z"), &reply);
    assert_int_equal(reply.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_subscription_begins_where_it_was_asked_to),
        part_test(bad_creations_are_refused),
        part_test(a_position_never_goes_back),
        part_test(answers_of_one_turn_tell_what_became_of_it),
        part_test(subscriptions_survive_every_crash),
        part_test(a_name_deleted_and_made_again_is_new),
        part_test(the_lag_is_the_age_of_the_first_record_not_read),
        part_test(names_are_listed_sorted_and_in_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
