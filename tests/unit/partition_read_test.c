/* Reading: from any offset, through skips, in small bites, by time; and what is damaged is not
 * served (INV-D04). */
#include "lib/partition_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define ALL_MAX 1024

static struct part_record records[ALL_MAX];

static void a_read_may_begin_within_a_batch(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    for (uint64_t i = 0; i < 10; i++) {
        (void)part_produce(f, &(struct batch_of){.count = 7, .content = i * 7});
    }
    for (int64_t offset = 0; offset < 70; offset++) {
        size_t count = part_read(f, offset, 1, records, ALL_MAX); /* One batch at least. */
        assert_int_equal(count, 7 - offset % 7);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(records[i].offset, offset + (int64_t)i);
            assert_int_equal(records[i].content, offset + (int64_t)i);
        }
    }
    assert_int_equal(part_read(f, 70, 1000, records, ALL_MAX), 0);
    assert_int_equal(part_read_error(f, 71), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(part_read_error(f, INT64_MAX), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(part_read_error(f, INT64_MIN), FERRY_ERR_OFFSET_OUT_OF_RANGE);
}

static void a_read_may_begin_within_a_batch_with_skips(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    struct ferry_id ids[8];
    for (uint64_t i = 0; i < 8; i++) {
        ids[i] = part_id(i % 3 == 0 ? 1 : i + 10);
    }
    /* Kept: 0 1 2 4 5 7; then 4 of 8 again, of which nothing is kept; then others. */
    (void)part_produce(f, &(struct batch_of){.ids = ids, .count = 8, .content = 0});
    (void)part_produce(f, &(struct batch_of){.ids = ids, .count = 4, .content = 100});
    (void)part_produce(f, &(struct batch_of){.count = 2, .content = 200});
    static const uint64_t contents[] = {0, 1, 2, 4, 5, 7, 200, 201};
    assert_int_equal(partition_end_offset(f->p), 8);
    for (int64_t offset = 0; offset < 8; offset++) {
        size_t count = part_read(f, offset, 1 << 20, records, ALL_MAX);
        assert_int_equal(count, 8 - offset);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(records[i].content, contents[offset + (int64_t)i]);
        }
    }
}

static void several_readers_go_on_where_each_stopped(void **state)
{
    struct part_fixture *f = *state;
    int64_t at[12] = {0};
    uint64_t next = 0;
    part_open(f);
    for (int round = 0; round < 200; round++) {
        if (round < 150) {
            uint32_t count = 1 + (uint32_t)round % 4;
            (void)part_produce(f, &(struct batch_of){.count = count, .content = next});
            next += count;
        }
        for (int i = 0; i < 12; i++) { /* More readers than hints. */
            size_t count = part_read(f, at[i], 100 + 200 * (uint32_t)(i % 5), records, ALL_MAX);
            for (size_t k = 0; k < count; k++) {
                assert_int_equal(records[k].offset, at[i]);
                assert_int_equal(records[k].content, at[i]);
                at[i]++;
            }
        }
    }
    assert_int_equal(at[4], next);
}

static int64_t find_time(struct part_fixture *f, int64_t time_ms)
{
    int64_t offset = -1;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_find_time(f->p, time_ms, &offset), FERRY_OK);
    store_read_end(f->store);
    return offset;
}

static void a_time_is_the_first_message_not_older(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    assert_int_equal(find_time(f, 0), 0);
    assert_int_equal(find_time(f, INT64_MAX), 0);
    for (int i = 0; i < 10; i++) {
        (void)part_produce(f, &(struct batch_of){.count = 2});
        (void)part_produce(f, &(struct batch_of){.count = 1});
        part_pass_ms(f, 100);
    }
    assert_int_equal(find_time(f, INT64_MIN), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(find_time(f, PART_START_MS + i * 100), i * 3);
        assert_int_equal(find_time(f, PART_START_MS + i * 100 + 1), (i + 1) * 3);
    }
    assert_int_equal(find_time(f, INT64_MAX), 30);
}

/* Flips one bit in every copy of `needle` in the store's file. */
static void damage(struct part_fixture *f, const void *needle, size_t size)
{
    char path[320];
    (void)snprintf(path, sizeof(path), "%s/data.mdb", f->folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    off_t end = lseek(fd, 0, SEEK_END);
    uint8_t *all = test_malloc((size_t)end);
    assert_int_equal(pread(fd, all, (size_t)end, 0), end);
    int found = 0;
    for (uint8_t *at = all; (at = memmem(at, (size_t)(all + end - at), needle, size)) != NULL;) {
        *at ^= 1;
        assert_int_equal(pwrite(fd, at, 1, at - all), 1);
        found++;
    }
    assert_true(found > 0);
    test_free(all);
    (void)close(fd);
}

static void a_damaged_batch_is_not_served_and_hides_no_other(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    const uint64_t marks[] = {0x1111222233334444, 0x5555666677778888, 0x9999aaaabbbbcccc};
    for (int i = 0; i < 3; i++) {
        (void)part_produce(f, &(struct batch_of){.count = 1, .content = marks[i]});
    }
    part_flush(f); /* The start need not apply the damaged entry again. */
    part_crash(f);
    damage(f, &marks[1], sizeof(marks[1]));
    part_open(f);
    assert_int_equal(part_read(f, 0, 1 << 20, records, ALL_MAX), 1); /* The good one first. */
    assert_int_equal(records[0].content, marks[0]);
    assert_int_equal(part_read_error(f, 1), FERRY_ERR_CORRUPT);
    assert_int_equal(part_read(f, 2, 1 << 20, records, ALL_MAX), 1);
    assert_int_equal(records[0].content, marks[2]);
    (void)part_produce(f, &(struct batch_of){.count = 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_read_may_begin_within_a_batch),
        part_test(a_read_may_begin_within_a_batch_with_skips),
        part_test(several_readers_go_on_where_each_stopped),
        part_test(a_time_is_the_first_message_not_older),
        part_test(a_damaged_batch_is_not_served_and_hides_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
