/* Message ids: what is stored once stays once, within the window (invariant 4 of partition.h). */
#include "lib/partition_fixture.h"

#define WINDOW_MS 60000
#define ALL_MAX   65536

static struct part_record records[ALL_MAX];

static void open_with_window(struct part_fixture *f)
{
    f->config.settings.dedupe_window_ms = WINDOW_MS;
    part_open(f);
}

static struct partition_ticket *send_ids(struct part_fixture *f, uint64_t first, uint32_t count,
                                         bool now)
{
    struct ferry_id ids[64];
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = part_id(first + i);
    }
    struct batch_of b = {.ids = ids, .count = count, .content = first};
    return now ? part_produce(f, &b) : part_send(f, &b);
}

static int64_t duplicate_of(const struct partition_ticket *t, uint32_t i, uint32_t *record)
{
    *record = get_le32(t->duplicates.data + (size_t)i * PRODUCE_DUPLICATE_BYTES);
    return (int64_t)get_le64(t->duplicates.data + (size_t)i * PRODUCE_DUPLICATE_BYTES + 4);
}

static void expect_duplicate(const struct partition_ticket *t, uint32_t i, uint32_t record,
                             int64_t offset)
{
    uint32_t got = 0;
    assert_true(i < t->duplicate_count);
    assert_int_equal(duplicate_of(t, i, &got), offset);
    assert_int_equal(got, record);
}

static void an_id_twice_in_one_batch_is_stored_once(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    struct ferry_id ids[] = {part_id(1), part_id(2), part_id(1), {{0}}, {{0}}, part_id(2)};
    struct partition_ticket *t =
        part_produce(f, &(struct batch_of){.ids = ids, .count = 6, .content = 10});
    assert_int_equal(t->base_offset, 0);
    assert_int_equal(t->duplicate_count, 2);
    expect_duplicate(t, 0, 2, 0);
    expect_duplicate(t, 1, 5, 1);
    assert_int_equal(part_read_all(f, 100, records, ALL_MAX), 4); /* No id is never the same. */
    assert_int_equal(records[2].content, 13);
    assert_int_equal(records[3].content, 14);
}

static void an_id_twice_in_one_turn_is_stored_once(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    struct partition_ticket *a = send_ids(f, 1, 2, false);
    struct partition_ticket *b = send_ids(f, 2, 2, false);
    part_turn(f);
    assert_int_equal(a->duplicate_count, 0);
    assert_int_equal(b->duplicate_count, 1);
    expect_duplicate(b, 0, 0, 1);
    assert_int_equal(b->base_offset, 2);
    assert_int_equal(partition_end_offset(f->p), 3);
}

static void an_id_is_known_across_flush_and_crash(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    (void)send_ids(f, 1, 3, true);
    for (int round = 0; round < 4; round++) {
        if (round % 2 == 1) {
            part_flush(f);
        }
        if (round >= 1) {
            part_crash(f);
            part_open(f);
        }
        struct partition_ticket *t = send_ids(f, 2, 2, true);
        assert_int_equal(t->duplicate_count, 2);
        assert_int_equal(t->base_offset, -1);
        expect_duplicate(t, 0, 0, 1);
        expect_duplicate(t, 1, 1, 2);
        assert_int_equal(partition_end_offset(f->p), 3);
    }
}

static void a_proposal_that_crashed_leaves_no_ids_behind(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    for (int round = 0; round < 2 * CRASH_POINTS; round++) {
        uint64_t first = (uint64_t)round * 100 + 1;
        int64_t end = partition_end_offset(f->p);
        (void)send_ids(f, first, 3, false);
        f->now_us += round % 2 == 0 ? 0 : REPLICA_FLUSH_MS * 1000;
        enum crash_point point = (enum crash_point)(round / 2);
        part_crash_at(f, point);
        part_open(f);
        struct partition_ticket *t = send_ids(f, first, 3, true);
        bool survived = point == CRASH_BEFORE_STORED;
        assert_int_equal(t->duplicate_count, survived ? 3 : 0);
        assert_int_equal(partition_end_offset(f->p), end + 3);
        assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX), end + 3);
    }
}

static void an_id_counts_as_new_after_the_window(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    for (int round = 0; round < 3; round++) {
        struct partition_ticket *t = send_ids(f, 1, 2, true);
        assert_int_equal(t->duplicate_count, 0);
        assert_int_equal(t->base_offset, round * 2);
        if (round == 1) {
            part_flush(f);
        }
        f->now_ms += WINDOW_MS; /* The last moment that counts. */
        assert_int_equal(send_ids(f, 1, 2, true)->duplicate_count, 2);
        f->now_ms += 1;
    }
}

/* Whatever a crash keeps of the expiry, an id stored again is known by its new time. */
static void an_id_stored_again_after_expiry_is_known_again(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    (void)send_ids(f, 1, 40, true);
    for (int round = 0; round < 4; round++) {
        part_pass_ms(f, WINDOW_MS + WINDOW_MS / 16);
        part_pass_seconds(f, 2);
        int64_t end = partition_end_offset(f->p);
        assert_int_equal(send_ids(f, 1, 40, true)->base_offset, end);
        if (round % 2 == 0) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        part_pass_seconds(f, 3);
        assert_int_equal(send_ids(f, 1, 40, true)->duplicate_count, 40);
        assert_int_equal(partition_end_offset(f->p), end + 40);
    }
}

static enum ferry_err count_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)key;
    (void)value;
    (void)stop;
    ++*(uint32_t *)arg;
    return FERRY_OK;
}

static uint32_t count_rows(struct part_fixture *f, uint8_t table)
{
    uint32_t count = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(
        store_each_row(f->store, PART_GROUP, table, bytes_of(NULL, 0), count_row, &count),
        FERRY_OK);
    store_read_end(f->store);
    return count;
}

#define IDS_TABLE      5
#define ID_TIMES_TABLE 6

static void send_many(struct part_fixture *f, uint64_t first, uint32_t count)
{
    struct ferry_id *ids = test_calloc(count, sizeof(*ids));
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = part_id(first + i);
    }
    (void)part_produce(f, &(struct batch_of){.ids = ids, .count = count, .content = first});
    test_free(ids);
}

/* More than one transaction's worth of rows expires; none stays behind. */
static void expired_ids_leave_the_disk(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    for (uint64_t i = 0; i < 5; i++) {
        send_many(f, 1 + i * 10000, 1000);
    }
    part_flush(f);
    assert_int_equal(count_rows(f, IDS_TABLE), 5000);
    assert_int_equal(count_rows(f, ID_TIMES_TABLE), 5000);
    part_pass_ms(f, 2 * WINDOW_MS);
    part_pass_seconds(f, 3);
    assert_int_equal(count_rows(f, IDS_TABLE), 0);
    assert_int_equal(count_rows(f, ID_TIMES_TABLE), 0);
    /* And then it is quiet: nothing more is written. */
    uint64_t last = replica_last_index(partition_replica(f->p));
    part_pass_seconds(f, 20);
    assert_true(replica_last_index(partition_replica(f->p)) <= last + 5);
}

/* What is only in memory is bounded by a number of ids, not of entries. */
static void many_ids_are_flushed_before_they_fill_the_memory(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    for (uint64_t i = 0; i < 9; i++) {
        send_many(f, 1 + i * 10000, 4000);
    }
    assert_true(count_rows(f, IDS_TABLE) >= 32000);
}

static struct batch_of with_producer(const struct ferry_id *ids, uint64_t sequence, uint32_t count)
{
    return (struct batch_of){
        .producer = 3, .first_sequence = sequence, .count = count, .ids = ids, .content = sequence};
}

/* INV-I02: the repeat is told what the first was told, record by record, whatever lies between. */
static void a_repeat_names_its_duplicates_again(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    struct ferry_id ids[] = {part_id(1), part_id(2), part_id(3), part_id(1)};
    struct batch_of a = with_producer(ids, 0, 2), b = with_producer(ids + 1, 2, 3);
    struct batch_of c = with_producer(ids, 5, 2); /* All of it was stored before. */
    (void)part_produce(f, &a);
    (void)part_produce(f, &b);
    (void)part_produce(f, &c);
    for (int round = 0; round < 3; round++) {
        struct partition_ticket *t = part_produce(f, &b);
        assert_true(t->duplicate && t->base_offset == 2 && t->duplicate_count == 2);
        expect_duplicate(t, 0, 0, 1);
        expect_duplicate(t, 1, 2, 0);
        t = part_produce(f, &c);
        assert_true(t->duplicate && t->duplicate_count == 2);
        assert_int_equal(t->base_offset, -1);
        t = part_produce(f, &a);
        assert_true(t->duplicate && t->base_offset == 0 && t->duplicate_count == 0);
        if (round == 1) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
    }
    assert_int_equal(partition_end_offset(f->p), 3);
}

static void a_batch_of_nothing_but_duplicates_is_never_shown(void **state)
{
    struct part_fixture *f = *state;
    open_with_window(f);
    (void)send_ids(f, 1, 2, true);
    (void)send_ids(f, 1, 2, true);
    (void)send_ids(f, 3, 1, true);
    (void)send_ids(f, 1, 2, true);
    for (uint32_t max_bytes = 1; max_bytes < 2000; max_bytes += 499) {
        assert_int_equal(part_read_all(f, max_bytes, records, ALL_MAX), 3);
    }
    assert_int_equal(part_read(f, 3, 1000, records, ALL_MAX), 0);
}

static void without_a_window_ids_are_only_carried(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    assert_int_equal(send_ids(f, 1, 2, true)->duplicate_count, 0);
    assert_int_equal(send_ids(f, 1, 2, true)->duplicate_count, 0);
    assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX), 4);
    struct ferry_id id = part_id(2);
    assert_memory_equal(&records[3].id, &id, sizeof(id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(an_id_twice_in_one_batch_is_stored_once),
        part_test(an_id_twice_in_one_turn_is_stored_once),
        part_test(an_id_is_known_across_flush_and_crash),
        part_test(a_proposal_that_crashed_leaves_no_ids_behind),
        part_test(an_id_counts_as_new_after_the_window),
        part_test(an_id_stored_again_after_expiry_is_known_again),
        part_test(expired_ids_leave_the_disk),
        part_test(many_ids_are_flushed_before_they_fill_the_memory),
        part_test(a_repeat_names_its_duplicates_again),
        part_test(a_batch_of_nothing_but_duplicates_is_never_shown),
        part_test(without_a_window_ids_are_only_carried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
