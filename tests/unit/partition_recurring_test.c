/* Recurring messages: each time brings one message, over restarts, and the times nobody saw one. */
#include <stdio.h>

#include "base/mem.h"
#include "lib/partition_fixture.h"
#include "partition/recurring.h"

#define EVERY "@every 10s"

static enum ferry_err set(struct part_fixture *f, const char *name, const char *spec,
                          const char *zone, struct bytes record, struct partition_ticket **ticket)
{
    struct recurring_set_request q = {.name = bytes_of_string(name),
                                      .spec = bytes_of_string(spec),
                                      .zone = bytes_of_string(zone)};
    struct partition_ticket *t = part_ticket(f);
    enum ferry_err err =
        partition_recurring_set(f->p, &q, record, f->now_ms, f->now_us, t, &f->detail);
    if (ticket != NULL) {
        *ticket = t;
    }
    return err;
}

static struct bytes record_of(struct part_fixture *f, uint64_t content)
{
    struct batch_of b = {.count = 1, .content = content};
    return part_batch(f, &b);
}

static void must_set(struct part_fixture *f, const char *name, const char *spec, const char *zone,
                     uint64_t content)
{
    if (set(f, name, spec, zone, record_of(f, content), NULL) != FERRY_OK) {
        fail_msg("%s", f->detail.text);
    }
    part_turn(f);
}

static struct recurring_list_reply *list(struct part_fixture *f)
{
    struct recurring_list_reply *reply = mem_zalloc(1, sizeof(*reply));
    assert_non_null(reply);
    assert_int_equal(partition_recurring_list(f->p, reply), FERRY_OK);
    return reply;
}

static void expect_one(struct part_fixture *f, int64_t next_ms, uint64_t fired)
{
    struct recurring_list_reply *reply = list(f);
    assert_int_equal(reply->count, 1);
    assert_int_equal(reply->items[0].next_ms, next_ms);
    assert_int_equal(reply->items[0].fired, fired);
    mem_free(reply);
}

static size_t read_all(struct part_fixture *f, struct part_record records[64])
{
    return part_read_all(f, 1 << 20, records, 64);
}

static void a_message_comes_each_time_with_an_id_of_its_own(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    int64_t start = f->now_ms;
    must_set(f, "tick", EVERY, "", 7);
    part_pass_ms(f, 9999);
    assert_int_equal(read_all(f, records), 0);
    part_pass_seconds(f, 26);
    assert_int_equal(read_all(f, records), 3);
    for (int i = 0; i < 3; i++) {
        struct ferry_id id =
            recurring_id(&f->config.topic_id, bytes_of_string("tick"), start + (i + 1) * 10000);
        assert_int_equal(records[i].content, 7);
        assert_memory_equal(&records[i].id, &id, sizeof(id));
    }
    expect_one(f, start + 40000, 3);
    /* Somebody who sends one of those ids sends a repeat. */
    struct batch_of repeat = {.count = 1, .ids = &records[1].id};
    assert_int_equal(part_produce(f, &repeat)->duplicate_count, 1);
}

static void times_that_passed_unseen_come_once(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    part_open(f);
    int64_t start = f->now_ms;
    must_set(f, "tick", EVERY, "", 7);
    part_flush(f);
    part_crash(f);
    f->now_ms = start + 12345678;
    part_open(f);
    part_turn(f);
    assert_int_equal(read_all(f, records), 1);
    struct ferry_id id =
        recurring_id(&f->config.topic_id, bytes_of_string("tick"), start + 12340000);
    assert_memory_equal(&records[0].id, &id, sizeof(id));
    expect_one(f, start + 12350000, 1);
}

static void a_time_comes_once_wherever_a_turn_ends(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    part_open(f);
    int64_t start = f->now_ms;
    must_set(f, "tick", EVERY, "", 7);
    for (int i = 0; i < 6; i++) {
        f->now_ms = start + (i + 1) * 10000;
        f->now_us += 10000000;
        assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
        part_crash_at(f, (enum crash_point)(i % CRASH_POINTS));
        part_open(f);
        part_pass_ms(f, 1000);
        assert_int_equal(read_all(f, records), (size_t)i + 1);
    }
    expect_one(f, start + 70000, 6);
}

static void a_wall_clock_that_jumps_back_brings_nothing_again(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    part_open(f);
    int64_t start = f->now_ms;
    must_set(f, "tick", EVERY, "", 7);
    f->now_ms = start + HOUR_MS;
    part_pass_ms(f, 1000);
    assert_int_equal(read_all(f, records), 1);
    f->now_ms = start;
    part_pass_seconds(f, 60);
    assert_int_equal(read_all(f, records), 1);
}

/* 2023-11-14 22:13:20 UTC is where the fixture begins; 23:13:20 in Berlin. */
static void a_line_is_about_its_zones_clock(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    part_open(f);
    int64_t start = f->now_ms;
    must_set(f, "nightly", "30 23 * * *", "Europe/Berlin", 1);
    expect_one(f, start + 16 * 60000 + 40000, 0);
    part_pass_ms(f, 16 * 60000 + 40000);
    assert_int_equal(read_all(f, records), 1);
    expect_one(f, start + 16 * 60000 + 40000 + 24 * HOUR_MS, 1);
}

static void setting_again_replaces_and_removing_ends(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    part_open(f);
    must_set(f, "tick", EVERY, "", 7);
    part_pass_ms(f, 10000);
    must_set(f, "tick", "@every 1h", "", 8);
    expect_one(f, f->now_ms + HOUR_MS, 0);
    part_flush(f);
    part_crash(f);
    part_open(f);
    part_pass_seconds(f, 30);
    assert_int_equal(read_all(f, records), 1);
    part_pass_ms(f, HOUR_MS);
    assert_int_equal(read_all(f, records), 2);
    assert_int_equal(records[1].content, 8);
    assert_int_equal(set(f, "tick", "", "", bytes_of(NULL, 0), NULL), FERRY_OK);
    part_flush(f);
    assert_int_equal(set(f, "tick", "", "", bytes_of(NULL, 0), NULL), FERRY_ERR_UNKNOWN_MESSAGE);
    part_crash(f);
    part_open(f);
    part_pass_ms(f, 5 * HOUR_MS);
    assert_int_equal(read_all(f, records), 2);
}

/* Removed and set again within what one flush writes: the row is there. */
static void removed_and_set_again_before_a_flush_is_kept(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    must_set(f, "tick", EVERY, "", 7);
    part_flush(f);
    assert_int_equal(set(f, "tick", "", "", bytes_of(NULL, 0), NULL), FERRY_OK);
    must_set(f, "tick", "@every 2h", "", 8);
    int64_t next = f->now_ms + 2 * HOUR_MS;
    part_flush(f);
    part_crash(f);
    part_open(f);
    expect_one(f, next, 0);
}

/* A change that is on its way: the old message does not come in between, with times of its own. */
static void nothing_fires_while_a_change_of_it_is_on_its_way(void **state)
{
    struct part_fixture *f = *state;
    struct part_record records[64];
    part_open(f);
    must_set(f, "tick", EVERY, "", 7);
    f->now_ms += 10000;
    f->now_us += 10000000;
    assert_int_equal(set(f, "tick", "@every 1h", "", record_of(f, 8), NULL), FERRY_OK);
    assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
    part_turn(f);
    expect_one(f, f->now_ms + HOUR_MS, 0);
    assert_int_equal(read_all(f, records), 0);
}

static void what_cannot_come_is_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of two = {.count = 2};
    struct batch_of later = {.count = 1, .due = 5};
    struct batch_of producers = {.count = 1, .producer = 3};
    struct batch_of large = {.count = 1, .payload_bytes = RECURRING_RECORD_MAX_BYTES};
    struct bytes one = record_of(f, 1);
    assert_int_equal(set(f, "a", "61 * * * *", "UTC", one, NULL), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(set(f, "a", "0 0 30 2 *", "UTC", one, NULL), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(set(f, "a", "0 0 * * *", "", one, NULL), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(set(f, "a", "0 0 * * *", "Mars/Base", one, NULL), FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(f->detail.text, "Mars/Base"));
    assert_int_equal(set(f, "../a", EVERY, "", one, NULL), FERRY_ERR_BAD_NAME);
    assert_int_equal(set(f, "a", EVERY, "", part_batch(f, &two), NULL), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(set(f, "a", EVERY, "", part_batch(f, &later), NULL),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(set(f, "a", EVERY, "", part_batch(f, &producers), NULL),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(set(f, "a", EVERY, "", part_batch(f, &large), NULL), FERRY_ERR_TOO_LARGE);
    assert_int_equal(set(f, "a", EVERY, "", bytes_of(one.data, one.size - 1), NULL),
                     FERRY_ERR_BAD_BATCH);
    struct recurring_list_reply *reply = list(f);
    assert_int_equal(reply->count, 0);
    mem_free(reply);
}

static void a_partition_takes_so_many_and_no_more(void **state)
{
    struct part_fixture *f = *state;
    char name[16];
    part_open(f);
    for (uint32_t i = 0; i < RECURRING_MAX; i++) {
        (void)snprintf(name, sizeof(name), "r%u", i * 7 % RECURRING_MAX);
        assert_int_equal(set(f, name, EVERY, "", record_of(f, i), NULL), FERRY_OK);
        if (i == RECURRING_MAX / 2) {
            part_turn(f); /* Half are applied, half on their way. */
        }
    }
    assert_int_equal(set(f, "more", EVERY, "", record_of(f, 1), NULL), FERRY_ERR_LIMIT_REACHED);
    part_turn(f);
    assert_int_equal(set(f, "more", EVERY, "", record_of(f, 1), NULL), FERRY_ERR_LIMIT_REACHED);
    assert_int_equal(set(f, "r5", EVERY, "", record_of(f, 1), NULL), FERRY_OK);
    part_pass_ms(f, 10000);
    assert_int_equal(partition_end_offset(f->p), RECURRING_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_message_comes_each_time_with_an_id_of_its_own),
        part_test(times_that_passed_unseen_come_once),
        part_test(a_time_comes_once_wherever_a_turn_ends),
        part_test(a_wall_clock_that_jumps_back_brings_nothing_again),
        part_test(a_line_is_about_its_zones_clock),
        part_test(setting_again_replaces_and_removing_ends),
        part_test(removed_and_set_again_before_a_flush_is_kept),
        part_test(nothing_fires_while_a_change_of_it_is_on_its_way),
        part_test(what_cannot_come_is_refused),
        part_test(a_partition_takes_so_many_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
