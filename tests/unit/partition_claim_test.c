/* Subscriptions with settings and members: claims fence, resets start over, deleted ones leave
 * nothing behind, and what was written before there were any of these still loads. */
#include "lib/partition_fixture.h"

#include "partition/subscription_entry.h"
#include "partition/tables.h"
#include "wire/pack.h"

static const struct bytes nobody = {0};

static struct partition_ticket *make(struct part_fixture *f,
                                     const struct subscription_create_request *q)
{
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(partition_subscription_make(f->p, q, nobody, f->now_ms, f->now_us, t),
                     FERRY_OK);
    part_turn(f);
    return t;
}

static void make_stream(struct part_fixture *f, const char *name)
{
    struct subscription_create_request q = {
        .name = bytes_of_string(name), .mode = SUBSCRIPTION_STREAM, .from = FERRY_FROM_START};
    (void)make(f, &q);
}

static void make_queue(struct part_fixture *f, const char *name)
{
    struct subscription_create_request q = {.name = bytes_of_string(name),
                                            .mode = SUBSCRIPTION_QUEUE,
                                            .from = FERRY_FROM_START,
                                            .priority_age_ms = SETTING_AS_IS};
    (void)make(f, &q);
}

static enum ferry_err claim(struct part_fixture *f, uint64_t epoch, struct partition_ticket **t)
{
    struct subscription_claim_request q = {
        .name = bytes_of_string("s"), .member = bytes_of_string("m"), .epoch = epoch};
    *t = part_ticket(f);
    return partition_subscription_claim(f->p, &q, f->now_ms, f->now_us, *t);
}

static void claims(struct part_fixture *f, uint64_t epoch)
{
    struct partition_ticket *t;
    assert_int_equal(claim(f, epoch, &t), FERRY_OK);
    part_turn(f);
    assert_int_equal(t->base.err, FERRY_OK);
}

static enum ferry_err commit(struct part_fixture *f, int64_t position, uint64_t epoch,
                             struct partition_ticket **t)
{
    *t = part_ticket(f);
    return partition_subscription_commit_as(f->p, bytes_of_string("s"), position, epoch, f->now_ms,
                                            f->now_us, *t);
}

/* The error at once, or of the ticket. */
static enum ferry_err commits(struct part_fixture *f, int64_t position, uint64_t epoch)
{
    struct partition_ticket *t;
    enum ferry_err err = commit(f, position, epoch, &t);
    part_turn(f);
    return err != FERRY_OK ? err : t->base.err;
}

static struct partition_ticket *reset(struct part_fixture *f, const char *name, int64_t to,
                                      bool dry_run)
{
    struct subscription_reset_request q = {
        .name = bytes_of_string(name), .to = to, .dry_run = dry_run};
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(partition_subscription_reset(f->p, &q, nobody, f->now_ms, f->now_us, t),
                     FERRY_OK);
    part_turn(f);
    return t;
}

static void get(struct part_fixture *f, const char *name, struct subscription_get_reply *reply)
{
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_subscription_get(f->p, bytes_of_string(name), f->now_ms, reply),
                     FERRY_OK);
    store_read_end(f->store);
}

static int64_t position_of(struct part_fixture *f, const char *name)
{
    struct subscription_get_reply reply;
    get(f, name, &reply);
    return reply.position;
}

static void open_with_records(struct part_fixture *f, uint32_t count)
{
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.count = count});
}

static void a_commit_of_an_older_epoch_is_fenced(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    make_stream(f, "s");
    claims(f, 3);
    assert_int_equal(commits(f, 2, 3), FERRY_OK);
    claims(f, 5);
    assert_int_equal(commits(f, 4, 3), FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(commits(f, 4, 5), FERRY_OK);
    struct partition_ticket *t;
    assert_int_equal(claim(f, 4, &t), FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(claim(f, 0, &t), FERRY_ERR_INVALID_ARGUMENT);
    claims(f, 5); /* Again: as the first time. */
    assert_int_equal(position_of(f, "s"), 4);
    part_flush(f);
    part_crash(f);
    part_open(f);
    assert_int_equal(commits(f, 6, 3), FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(commits(f, 6, 5), FERRY_OK);
}

/* The order in the log decides, not who was let in when it was asked. */
static void of_a_claim_and_a_commit_in_one_turn_the_first_in_the_log_counts(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    make_stream(f, "s");
    claims(f, 1);
    struct partition_ticket *before, *taking, *after;
    assert_int_equal(commit(f, 4, 1, &before), FERRY_OK);
    assert_int_equal(claim(f, 2, &taking), FERRY_OK);
    assert_int_equal(commit(f, 8, 1, &after), FERRY_OK);
    part_turn(f);
    assert_int_equal(before->base.err, FERRY_OK);
    assert_int_equal(taking->base.err, FERRY_OK);
    assert_int_equal(taking->position, 4);
    assert_int_equal(after->base.err, FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(position_of(f, "s"), 4);
}

static void a_commit_by_hand_counts_until_a_member_claims_and_after_a_reset(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    make_stream(f, "s");
    assert_int_equal(commits(f, 2, 0), FERRY_OK);
    claims(f, 1);
    assert_int_equal(commits(f, 3, 0), FERRY_ERR_MEMBER_FENCED);
    (void)reset(f, "s", FERRY_FROM_START, false);
    assert_int_equal(commits(f, 1, 0), FERRY_OK);
    claims(f, 1);
    assert_int_equal(commits(f, 5, 0), FERRY_ERR_MEMBER_FENCED);
}

static void after_a_reset_a_member_must_claim_again(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    make_stream(f, "s");
    claims(f, 7);
    assert_int_equal(commits(f, 9, 7), FERRY_OK);
    struct partition_ticket *t = reset(f, "s", 2, false);
    assert_true(t->base_offset == 9 && t->position == 2);
    assert_int_equal(commits(f, 10, 7), FERRY_ERR_MEMBER_FENCED);
    part_flush(f);
    part_crash(f);
    part_open(f);
    assert_int_equal(commits(f, 10, 7), FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(position_of(f, "s"), 2);
    claims(f, 7);
    assert_int_equal(commits(f, 3, 7), FERRY_OK);
}

static void a_dry_reset_tells_and_changes_nothing(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    make_stream(f, "s");
    assert_int_equal(commits(f, 6, 0), FERRY_OK);
    struct partition_ticket *t = reset(f, "s", FERRY_FROM_END, true);
    assert_true(t->base.index == 0 && t->base_offset == 6 && t->position == 10);
    assert_int_equal(position_of(f, "s"), 6);
    t = reset(f, "s", 400, false);
    assert_true(t->base_offset == 6 && t->position == 10);
    assert_int_equal(position_of(f, "s"), 10);
}

static void settings_have_defaults_bounds_and_are_altered_one_by_one(void **state)
{
    struct part_fixture *f = *state;
    struct subscription_get_reply reply;
    open_with_records(f, 1);
    make_queue(f, "q");
    get(f, "q", &reply);
    assert_true(reply.lease_ms == 30000 && reply.max_deliveries == 10);
    assert_true(reply.backoff_min_ms == 1000 && reply.backoff_max_ms == 600000);
    assert_true(reply.inflight_max == 1000 && reply.priority_age_ms == 10000);
    struct subscription_alter_request a = {.name = bytes_of_string("q"),
                                           .pause = 1,
                                           .lease_ms = 500,
                                           .key_policy = 2,
                                           .priority_age_ms = SETTING_AS_IS};
    struct subscription_alter_request b = {
        .name = a.name, .max_deliveries = 3, .priority_age_ms = 0};
    assert_int_equal(
        partition_subscription_alter(f->p, &a, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_OK);
    assert_int_equal(
        partition_subscription_alter(f->p, &b, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_OK);
    part_flush(f);
    part_crash(f);
    part_open(f);
    get(f, "q", &reply);
    assert_true(reply.paused && reply.lease_ms == 500 && reply.max_deliveries == 3);
    assert_true(reply.key_policy == KEY_POLICY_PARK && reply.priority_age_ms == 0);
    assert_int_equal(reply.backoff_max_ms, 600000);
}

static void bad_settings_are_refused(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 1);
    static const struct subscription_create_request bad[] = {
        {.lease_ms = LEASE_MIN_MS - 1},
        {.lease_ms = LEASE_MAX_MS + 1},
        {.max_deliveries = MAX_DELIVERIES_MAX + 1},
        {.backoff_min_ms = 10, .backoff_max_ms = 9},
        {.key_policy = 2},
        {.inflight_max = INFLIGHT_MAX_MAX + 1},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct subscription_create_request q = bad[i];
        q.name = bytes_of_string("q");
        q.mode = SUBSCRIPTION_KEYED;
        assert_int_equal(
            partition_subscription_make(f->p, &q, nobody, f->now_ms, f->now_us, part_ticket(f)),
            FERRY_ERR_INVALID_ARGUMENT);
    }
    make_queue(f, "q");
    struct subscription_alter_request a = {.name = bytes_of_string("q"), .pause = 3};
    assert_int_equal(
        partition_subscription_alter(f->p, &a, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_ERR_INVALID_ARGUMENT);
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(partition_subscription_commit(f->p, a.name, 0, f->now_ms, f->now_us, t),
                     FERRY_ERR_INVALID_ARGUMENT);
    struct subscription_claim_request c = {.name = a.name, .member = a.name, .epoch = 1};
    assert_int_equal(partition_subscription_claim(f->p, &c, f->now_ms, f->now_us, t),
                     FERRY_ERR_INVALID_ARGUMENT);
}

/* ---- Deletion ---- */

static const uint8_t numbered[] = {TABLE_RUNS,      TABLE_LEASES,      TABLE_DEAD,
                                   TABLE_PARKED,    TABLE_MEMBERS,     TABLE_EVENTS,
                                   TABLE_HISTORIES, TABLE_DEAD_NUMBERS};

static void put_rows(struct part_fixture *f, uint64_t number, uint8_t table, uint32_t count)
{
    assert_int_equal(store_begin(f->store), FERRY_OK);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t key[16];
        put_be64(key, number);
        put_be64(key + 8, i);
        assert_int_equal(
            store_put(f->store, PART_GROUP, table, bytes_of(key, sizeof(key)), bytes_of("row", 3)),
            FERRY_OK);
    }
    assert_int_equal(store_commit(f->store), FERRY_OK);
}

struct row_count {
    uint64_t number;
    uint32_t rows;
};

static enum ferry_err count_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)value;
    (void)stop;
    struct row_count *c = arg;
    c->rows += key.size >= 8 && get_be64(key.data) == c->number ? 1 : 0;
    return FERRY_OK;
}

/* Of the subscription in all tables that know it by its number; and marks of deleted ones. */
static uint32_t count_rows(struct part_fixture *f, uint64_t number)
{
    struct row_count c = {.number = number};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (size_t i = 0; i < sizeof(numbered); i++) {
        assert_int_equal(store_each_row(f->store, PART_GROUP, numbered[i], nobody, count_row, &c),
                         FERRY_OK);
    }
    store_read_end(f->store);
    return c.rows;
}

static enum ferry_err count_mark(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)value;
    (void)stop;
    *(uint32_t *)arg += key.size > 0 && key.data[0] == 0 ? 1 : 0;
    return FERRY_OK;
}

static uint32_t count_marks(struct part_fixture *f)
{
    uint32_t marks = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(
        store_each_row(f->store, PART_GROUP, TABLE_SUBSCRIPTIONS, nobody, count_mark, &marks),
        FERRY_OK);
    store_read_end(f->store);
    return marks;
}

static void delete_queue(struct part_fixture *f, const char *name)
{
    assert_int_equal(partition_subscription_delete(f->p, bytes_of_string(name), f->now_ms,
                                                   f->now_us, part_ticket(f)),
                     FERRY_OK);
}

static void a_deleted_subscription_leaves_no_rows(void **state)
{
    struct part_fixture *f = *state;
    struct subscription_get_reply gone;
    open_with_records(f, 1);
    make_queue(f, "gone");
    part_flush(f);
    get(f, "gone", &gone);
    uint64_t other = gone.number + 1; /* Rows of nobody: not looked at by anybody. */
    for (size_t i = 0; i < sizeof(numbered); i++) {
        put_rows(f, gone.number, numbered[i], SUBSCRIPTION_DELETE_MAX / 2 + 10);
        put_rows(f, other, numbered[i], 3);
    }
    uint32_t before = count_rows(f, other);
    uint32_t all = count_rows(f, gone.number), left = all;
    delete_queue(f, "gone");
    part_turn(f);
    make_queue(f, "gone");
    for (int crash = 0; crash < 3; crash++) { /* The mark, then in steps. */
        f->now_us += REPLICA_FLUSH_MS * 1000;
        part_crash_at(f, CRASH_BEFORE_STORED);
        part_open(f);
        uint32_t now = count_rows(f, gone.number);
        assert_int_equal(left - now, crash == 0 ? 0 : SUBSCRIPTION_DELETE_MAX);
        assert_int_equal(count_marks(f), 1);
        left = now;
    }
    assert_true(left > 0);
    part_flush(f);
    assert_int_equal(count_rows(f, gone.number), 0);
    assert_int_equal(count_rows(f, other), before);
    assert_int_equal(count_marks(f), 0);
    struct subscription_get_reply anew;
    get(f, "gone", &anew);
    assert_true(anew.number != gone.number);
}

/* ---- From before ---- */

static void write_old_rows(struct part_fixture *f)
{
    struct buf row;
    buf_init(&row, 64);
    pack_array(&row, 2);
    pack_uint(&row, SUBSCRIPTION_STREAM);
    pack_int(&row, 4);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(
        store_put(f->store, PART_GROUP, TABLE_SUBSCRIPTIONS, bytes_of_string("s"), buf_bytes(&row)),
        FERRY_OK);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    buf_fini(&row);
}

static void rows_from_before_load_and_are_written_anew(void **state)
{
    struct part_fixture *f = *state;
    open_with_records(f, 10);
    part_flush(f);
    write_old_rows(f);
    part_crash(f);
    part_open(f);
    for (int round = 0; round < 2; round++) {
        struct subscription_get_reply reply;
        get(f, "s", &reply);
        assert_true(reply.position == 4 && reply.epoch == 0 && !reply.paused);
        assert_true(reply.number == subscription_old_number(bytes_of_string("s")));
        assert_true(reply.number >> 63 == 1);
        part_flush(f);
        part_crash(f);
        part_open(f);
    }
    assert_int_equal(commits(f, 6, 0), FERRY_OK);
}

static void entries_from_before_mean_what_they_meant(void **state)
{
    (void)state;
    struct buf b;
    struct subscription_entry e;
    buf_init(&b, 256);
    pack_array(&b, 4);
    pack_uint(&b, CONTROL_SUBSCRIPTION_CREATE);
    pack_str(&b, bytes_of_string("s"));
    pack_uint(&b, SUBSCRIPTION_STREAM);
    pack_int(&b, 7);
    assert_int_equal(subscription_entry_decode(buf_bytes(&b), &e), FERRY_OK);
    assert_true(!e.has_settings && e.position == 7 && e.mode == SUBSCRIPTION_STREAM);
    buf_clear(&b);
    pack_array(&b, 3);
    pack_uint(&b, CONTROL_SUBSCRIPTION_COMMIT);
    pack_str(&b, bytes_of_string("s"));
    pack_int(&b, 8);
    assert_int_equal(subscription_entry_decode(buf_bytes(&b), &e), FERRY_OK);
    assert_true(e.epoch == 0 && e.position == 8);
    buf_fini(&b);
}

static void entries_come_back_as_they_were_and_cut_ones_do_not(void **state)
{
    (void)state;
    struct subscription_entry in = {.name = bytes_of_string("s"),
                                    .mode = SUBSCRIPTION_KEYED,
                                    .position = 12,
                                    .settings = {1, 2, 3, 4, 1, 6, 7},
                                    .pause = 2,
                                    .epoch = 9,
                                    .member = bytes_of_string("m"),
                                    .who = bytes_of_string("w")};
    for (int kind = 1; kind <= CONTROL_SUBSCRIPTION_CLAIM; kind++) {
        in.kind = (enum control_kind)kind;
        if (!subscription_entry_is(in.kind)) {
            continue;
        }
        struct buf a, b;
        struct subscription_entry out;
        buf_init(&a, 256);
        buf_init(&b, 256);
        subscription_entry_encode(&a, &in);
        assert_int_equal(subscription_entry_decode(buf_bytes(&a), &out), FERRY_OK);
        subscription_entry_encode(&b, &out);
        assert_true(bytes_equal(buf_bytes(&a), buf_bytes(&b)));
        for (size_t size = 0; size < a.size; size++) {
            assert_int_equal(subscription_entry_decode(bytes_of(a.data, size), &out),
                             FERRY_ERR_CORRUPT);
        }
        buf_fini(&a);
        buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_commit_of_an_older_epoch_is_fenced),
        part_test(of_a_claim_and_a_commit_in_one_turn_the_first_in_the_log_counts),
        part_test(a_commit_by_hand_counts_until_a_member_claims_and_after_a_reset),
        part_test(after_a_reset_a_member_must_claim_again),
        part_test(a_dry_reset_tells_and_changes_nothing),
        part_test(settings_have_defaults_bounds_and_are_altered_one_by_one),
        part_test(bad_settings_are_refused),
        part_test(a_deleted_subscription_leaves_no_rows),
        part_test(rows_from_before_load_and_are_written_anew),
        cmocka_unit_test(entries_from_before_mean_what_they_meant),
        cmocka_unit_test(entries_come_back_as_they_were_and_cut_ones_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
