/* Retention as entries of the log, deletion behind it, and crashes anywhere in between. */
#include "lib/partition_fixture.h"

#define ALL_MAX 20000

static struct part_record records[ALL_MAX];

static int64_t add(struct part_fixture *f, uint32_t count, size_t bytes)
{
    int64_t end = partition_end_offset(f->p);
    return part_produce(
               f,
               &(struct batch_of){.count = count, .payload_bytes = bytes, .content = (uint64_t)end})
        ->base_offset;
}

static void expect_readable(struct part_fixture *f)
{
    size_t count = part_read_all(f, 4096, records, ALL_MAX);
    assert_int_equal(count, partition_end_offset(f->p) - partition_start_offset(f->p));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(records[i].content, records[i].offset);
    }
    assert_int_equal(partition_size_bytes(f->p), part_count_size(f));
}

static void old_messages_go_and_the_start_moves(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 10000;
    part_open(f);
    for (int i = 0; i < 20; i++) {
        (void)add(f, 3, 100);
        part_pass_ms(f, 1000);
    }
    part_pass_seconds(f, 1);
    int64_t start = partition_start_offset(f->p);
    assert_true(start >= 24 && start <= 33 && start % 3 == 0);
    assert_int_equal(part_read_error(f, start - 1), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(part_read_error(f, 61), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(part_read_error(f, -1), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    expect_readable(f);
}

static void the_size_is_kept_below_its_limit(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_bytes = 50000;
    part_open(f);
    for (int i = 0; i < 200; i++) {
        (void)add(f, 1, 1000);
        if (i % 10 == 0) {
            part_pass_ms(f, 1000);
        }
    }
    part_pass_seconds(f, 3);
    assert_true(partition_size_bytes(f->p) <= 50000 + 200);
    assert_true(partition_end_offset(f->p) - partition_start_offset(f->p) >= 40);
    expect_readable(f);
    assert_true(part_count_entries_on_disk(f) < 100);
}

/* No-ops of many terms and subscription entries are trimmed with the rest. */
static void the_size_is_exact_with_control_entries_and_terms(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 3000;
    part_open(f);
    for (int round = 0; round < 12; round++) {
        char name[2] = {(char)('a' + round), 0};
        struct partition_ticket *t = part_ticket(f);
        (void)add(f, 2, 50);
        assert_int_equal(partition_subscription_create(f->p, bytes_of_string(name),
                                                       SUBSCRIPTION_STREAM, 0, f->now_ms, f->now_us,
                                                       t),
                         FERRY_OK);
        part_pass_ms(f, 700);
        expect_readable(f);
        if (round % 2 == 1) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        part_pass_ms(f, 700);
        expect_readable(f);
    }
}

/* The trim's mark reaches the disk before the rows do; the rows are then made up from the log. */
static void a_crash_between_a_trim_and_the_flush_opens_again(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 300;
    part_open(f);
    for (int steps = 1; steps < 40; steps++) {
        int64_t end = partition_end_offset(f->p);
        for (int i = 0; i < steps; i++) {
            assert_int_equal(add(f, 1, 100), end + i);
            part_pass_ms(f, 90);
        }
        int64_t start = partition_start_offset(f->p);
        part_crash(f);
        part_open(f);
        assert_true(partition_start_offset(f->p) >= start); /* Opening looks at retention too. */
        assert_int_equal(partition_end_offset(f->p), end + steps);
        expect_readable(f);
    }
}

static void a_log_trimmed_empty_goes_on_with_its_offsets(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 2000;
    part_open(f);
    for (int round = 0; round < 4; round++) {
        int64_t end = partition_end_offset(f->p);
        assert_int_equal(add(f, 5, 100), end);
        part_pass_seconds(f, 6);
        assert_int_equal(partition_start_offset(f->p), end + 5);
        assert_int_equal(partition_end_offset(f->p), end + 5);
        expect_readable(f);
        uint64_t last = replica_last_index(partition_replica(f->p));
        part_pass_seconds(f, 10);
        assert_int_equal(replica_last_index(partition_replica(f->p)), last); /* It is quiet. */
        if (round % 2 == 1) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        assert_int_equal(partition_start_offset(f->p), end + 5);
    }
}

static void a_long_log_is_deleted_in_steps_and_a_crash_in_between_does_no_harm(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 5000;
    part_open(f);
    for (int i = 0; i < 10000; i++) {
        (void)part_send(f, &(struct batch_of){.content = (uint64_t)i});
        if (i % 2000 == 0) {
            part_turn(f);
        }
    }
    part_flush(f);
    f->now_ms += 10000;
    f->now_us += 10000000;
    struct replica *r = partition_replica(f->p);
    /* One transaction deletes no more than its share. */
    uint64_t on_disk = part_count_entries_on_disk(f);
    assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
    for (int i = 0; i < 8; i++) {
        if (!replica_wants_write(r, f->now_us)) {
            break;
        }
        part_begin_write(f);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(replica_stored(r, f->now_us), FERRY_OK);
        uint64_t left = part_count_entries_on_disk(f);
        assert_true(on_disk - left <= REPLICA_DELETE_MAX || left >= on_disk);
        on_disk = left;
    }
    part_crash(f);
    part_open(f);
    /* Everything is old: it goes at once, not one portion a second. */
    part_pass_ms(f, 1000);
    part_pass_ms(f, 1000);
    assert_int_equal(partition_start_offset(f->p), 10000);
    part_flush(f);
    assert_true(part_count_entries_on_disk(f) < 20);
    expect_readable(f);
    assert_int_equal(add(f, 1, 8), 10000);
}

/* Ids are looked at rarely; that must not hold back the retention of what came after. */
static void ids_with_a_long_window_do_not_hold_back_retention(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 2000;
    f->config.settings.dedupe_window_ms = 24 * HOUR_MS;
    part_open(f);
    for (uint64_t i = 0; i < 5; i++) {
        struct ferry_id id = part_id(i + 1);
        (void)part_produce(f, &(struct batch_of){.ids = &id, .count = 1, .content = i});
        part_pass_seconds(f, 5);
        assert_int_equal(partition_start_offset(f->p), i + 1);
    }
}

static void time_and_offset_are_found_after_a_trim(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_bytes = 3000;
    part_open(f);
    for (int i = 0; i < 30; i++) {
        (void)add(f, 1, 200);
        part_pass_ms(f, 1000);
    }
    int64_t start = partition_start_offset(f->p), offset = -1;
    assert_true(start > 10 && start < 30);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_find_time(f->p, 0, &offset), FERRY_OK);
    assert_int_equal(offset, start);
    assert_int_equal(partition_find_time(f->p, PART_START_MS + 29000, &offset), FERRY_OK);
    assert_int_equal(offset, 29);
    assert_int_equal(partition_find_time(f->p, PART_START_MS + HOUR_MS, &offset), FERRY_OK);
    assert_int_equal(offset, 30);
    store_read_end(f->store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(old_messages_go_and_the_start_moves),
        part_test(the_size_is_kept_below_its_limit),
        part_test(the_size_is_exact_with_control_entries_and_terms),
        part_test(a_crash_between_a_trim_and_the_flush_opens_again),
        part_test(a_log_trimmed_empty_goes_on_with_its_offsets),
        part_test(a_long_log_is_deleted_in_steps_and_a_crash_in_between_does_no_harm),
        part_test(ids_with_a_long_window_do_not_hold_back_retention),
        part_test(time_and_offset_are_found_after_a_trim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
