/* Delayed messages: they come once, when they are due and not before, whatever happens meanwhile.
 */
#include <stdio.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "lib/partition_fixture.h"
#include "partition/rows.h"

#define READ_ALL 10000u

static size_t read_all(struct part_fixture *f, struct part_record *records)
{
    return part_read_all(f, 1 << 20, records, READ_ALL);
}

/* The contents in the log, in its order. */
static void expect_contents(struct part_fixture *f, const uint64_t *contents, size_t count)
{
    struct part_record *records = mem_zalloc(READ_ALL, sizeof(*records));
    assert_non_null(records);
    size_t got = read_all(f, records);
    assert_int_equal(got, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(records[i].content, contents[i]);
    }
    mem_free(records);
}

static void expect_nothing(struct part_fixture *f)
{
    assert_int_equal(partition_end_offset(f->p), partition_start_offset(f->p));
}

static int64_t due_of(const struct partition_ticket *t, uint32_t i)
{
    return (int64_t)get_le64(t->dues.data + (size_t)i * PRODUCE_DUE_BYTES);
}

static struct schedule_list_reply *list_after(struct part_fixture *f, int64_t due, uint64_t number)
{
    struct schedule_list_reply *reply = mem_zalloc(1, sizeof(*reply));
    assert_non_null(reply);
    struct schedule_list_request q = {.after_due_ms = due, .after_number = number};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_schedule_list(f->p, &q, reply), FERRY_OK);
    store_read_end(f->store);
    return reply;
}

static uint64_t waiting(struct part_fixture *f)
{
    struct schedule_list_reply *reply = list_after(f, 0, 0);
    uint64_t total = reply->total;
    assert_int_equal(reply->count, total < SCHEDULE_LIST_MAX ? total : SCHEDULE_LIST_MAX);
    mem_free(reply);
    return total;
}

/* Proposes to cancel; the ticket waits, or has its answer. */
static struct partition_ticket *cancel(struct part_fixture *f, int64_t due, uint64_t number)
{
    struct schedule_cancel_request q = {.count = 1, .items = {{.due_ms = due, .number = number}}};
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_schedule_cancel(f->p, &q, f->now_ms, f->now_us, t), FERRY_OK);
    store_read_end(f->store);
    return t;
}

/* ---- When ---- */

static void a_delayed_message_comes_when_it_is_due_and_not_before(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 1, .content = 7, .due = f->now_ms + 5000};
    struct partition_ticket *t = part_produce(f, &later);
    assert_true(t->scheduled);
    assert_int_equal(t->base_offset, 1);
    assert_int_equal(due_of(t, 0), f->now_ms + 5000);
    expect_nothing(f);
    part_pass_ms(f, 4999);
    expect_nothing(f);
    assert_int_equal(waiting(f), 1);
    part_pass_ms(f, 1);
    expect_contents(f, (uint64_t[]){7}, 1);
    assert_int_equal(waiting(f), 0);
    part_pass_seconds(f, 10);
    expect_contents(f, (uint64_t[]){7}, 1);
}

/* Within a second, though nothing else happens: the deadline says when to look. */
static void a_partition_that_waits_says_when_to_look(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 1, .due = f->now_ms + 300};
    (void)part_produce(f, &later);
    assert_true(partition_deadline_us(f->p) <= f->now_us + 300000);
    struct batch_of far = {.count = 1, .due = f->now_ms + 60 * 60 * 1000};
    part_pass_ms(f, 300);
    (void)part_produce(f, &far);
    assert_true(partition_deadline_us(f->p) <= f->now_us + 1000000);
    assert_true(partition_deadline_us(f->p) > f->now_us);
}

static void a_delay_counts_from_the_append(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    f->now_ms += 123;
    struct batch_of later = {.count = 1, .content = 1, .due = -2000};
    struct partition_ticket *t = part_produce(f, &later);
    assert_int_equal(due_of(t, 0), f->now_ms + 2000);
    part_pass_ms(f, 1999);
    expect_nothing(f);
    part_pass_ms(f, 1);
    expect_contents(f, (uint64_t[]){1}, 1);
}

/* The time counts, not the order in which they were sent; what is due long since comes at once. */
static void messages_come_in_the_order_of_their_times(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of third = {.count = 1, .content = 3, .due = f->now_ms + 3000};
    struct batch_of pair = {.count = 2, .content = 1, .due = f->now_ms + 1000, .due_step = 1000};
    struct batch_of past = {.count = 1, .content = 9, .due = 1};
    struct batch_of now = {.count = 1, .content = 5};
    (void)part_produce(f, &third);
    (void)part_produce(f, &pair);
    (void)part_produce(f, &now);
    (void)part_produce(f, &past);
    part_pass_seconds(f, 4);
    expect_contents(f, (uint64_t[]){5, 9, 1, 2, 3}, 5);
}

static void a_wall_clock_that_jumps_is_followed_and_nothing_comes_twice(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of a = {.count = 1, .content = 1, .due = f->now_ms + HOUR_MS};
    struct batch_of b = {.count = 1, .content = 2, .due = f->now_ms + 2 * HOUR_MS};
    (void)part_produce(f, &a);
    (void)part_produce(f, &b);
    f->now_ms -= 5 * HOUR_MS;
    part_pass_seconds(f, 3);
    expect_nothing(f);
    f->now_ms += 6 * HOUR_MS; /* The first is due; seen within a second of the other clock. */
    part_pass_ms(f, 1000);
    expect_contents(f, (uint64_t[]){1}, 1);
    f->now_ms -= 3 * HOUR_MS;
    part_pass_seconds(f, 3);
    expect_contents(f, (uint64_t[]){1}, 1);
    f->now_ms += 5 * HOUR_MS;
    part_pass_ms(f, 1000);
    expect_contents(f, (uint64_t[]){1, 2}, 2);
    f->now_ms -= 9 * HOUR_MS;
    part_pass_seconds(f, 3);
    expect_contents(f, (uint64_t[]){1, 2}, 2);
}

/* ---- What ---- */

static struct bytes full_batch(struct part_fixture *f)
{
    static const uint8_t headers[] = {0x81, 0xa1, 'h', 0xc4, 0x01, 'v'};
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, 1 << 20);
    for (uint32_t i = 0; i < 3; i++) {
        struct batch_record r = {.timestamp_ms = 1000 + i,
                                 .has_key = i > 0,
                                 .key = i == 1 ? bytes_of_string("key") : bytes_of(NULL, 0),
                                 .payload = bytes_of_string("12345678"),
                                 .due = f->now_ms + 10,
                                 .priority = i == 2 ? 7 : 0};
        r.headers = i == 1 ? bytes_of(headers, sizeof(headers)) : r.headers;
        r.id = i == 0 ? part_id(4) : r.id;
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    batch = bytes_of(part_keep(f, batch.data, batch.size), batch.size);
    batch_writer_fini(&w);
    return batch;
}

static void what_comes_is_what_was_sent(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct bytes sent = full_batch(f);
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(partition_produce(f->p, sent, f->now_ms, f->now_us, t, NULL), FERRY_OK);
    part_flush(f);
    part_pass_ms(f, 10);
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_read(f->p, 0, 1 << 20, &out), FERRY_OK);
    store_read_end(f->store);
    struct bytes rest = buf_bytes(&out);
    struct fetch_entry entry;
    struct batch_header h;
    struct batch_reader a, b;
    struct batch_record x, y;
    enum ferry_err err;
    assert_int_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_OK);
    assert_int_equal(h.flags, BATCH_HAS_IDS | BATCH_HAS_PRIORITIES);
    assert_true(entry.append_time_ms >= due_of(t, 0));
    batch_reader_init(&a, sent);
    batch_reader_init(&b, entry.batch);
    while (batch_reader_next(&a, &x, &err)) {
        assert_true(batch_reader_next(&b, &y, &err));
        assert_int_equal(x.timestamp_ms, y.timestamp_ms);
        assert_int_equal(x.has_key, y.has_key);
        assert_true(bytes_equal(x.key, y.key) && bytes_equal(x.headers, y.headers));
        assert_true(bytes_equal(x.payload, y.payload));
        assert_memory_equal(&x.id, &y.id, sizeof(x.id));
        assert_int_equal(x.priority, y.priority);
        assert_int_equal(y.due, 0);
    }
    assert_false(batch_reader_next(&b, &y, &err));
    buf_fini(&out);
}

/* Offsets are dense, and delayed batches between them take none. */
static void delayed_batches_in_the_log_take_no_offsets(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    uint64_t contents[40];
    for (uint64_t i = 0; i < 20; i++) {
        struct batch_of now = {.count = 1, .content = i, .producer = 5, .first_sequence = 3 * i};
        struct batch_of later = {.count = 2,
                                 .content = 100,
                                 .due = f->now_ms + HOUR_MS,
                                 .producer = 5,
                                 .first_sequence = 3 * i + 1};
        assert_int_equal(part_produce(f, &now)->base_offset, i);
        assert_int_equal(part_produce(f, &later)->base_offset, 1 + 2 * i);
        contents[i] = i;
    }
    expect_contents(f, contents, 20);
    assert_int_equal(partition_end_offset(f->p), 20);
    part_crash(f);
    part_open(f);
    expect_contents(f, contents, 20);
    assert_int_equal(waiting(f), 40);
}

/* ---- Refusals ---- */

static void a_time_too_far_ahead_is_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of last = {.count = 1, .due = f->now_ms + DELAY_MAX_MS};
    struct batch_of too_far = {.count = 1, .due = f->now_ms + DELAY_MAX_MS + 1};
    struct batch_of too_long = {.count = 2, .due = -1, .due_step = -DELAY_MAX_MS};
    struct batch_of absurd = {.count = 1, .due = INT64_MIN};
    (void)part_produce(f, &last);
    part_refuses(f, &too_far, FERRY_ERR_INVALID_ARGUMENT);
    part_refuses(f, &too_long, FERRY_ERR_INVALID_ARGUMENT);
    part_refuses(f, &absurd, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(waiting(f), 1);
}

/* It would be met when it is due, alone with others that are good. */
static void a_malformed_record_is_refused_at_once(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 1, .due = f->now_ms + 1};
    struct bytes batch = part_batch(f, &later);
    uint8_t *bytes = part_keep(f, batch.data, batch.size);
    bytes[BATCH_HEADER_BYTES + 2] = 0x7f; /* A key that is longer than the record. */
    put_le64(bytes + 8, checksum_of(bytes + 16, batch.size - 16));
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(
        partition_produce(f->p, bytes_of(bytes, batch.size), f->now_ms, f->now_us, t, &f->detail),
        FERRY_ERR_BAD_BATCH);
    assert_int_equal(waiting(f), 0);
}

static void what_is_on_its_way_to_the_table_is_bounded(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 4096, .due = f->now_ms + HOUR_MS};
    for (int i = 0; i < 4; i++) {
        (void)part_send(f, &later);
    }
    part_refuses(f, &later, FERRY_ERR_THROTTLED);
    part_flush(f);
    (void)part_produce(f, &later);
    assert_int_equal(waiting(f), 5 * 4096);
}

/* ---- Repeats ---- */

static void a_repeat_by_sequence_gets_the_first_answer(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {
        .producer = 9, .count = 2, .content = 1, .due = -5000, .due_step = -1000};
    struct partition_ticket *first = part_produce(f, &later);
    f->now_ms += 77;
    struct partition_ticket *again = part_produce(f, &later);
    assert_true(again->duplicate && again->scheduled);
    assert_int_equal(again->base_offset, first->base_offset);
    assert_int_equal(due_of(again, 0), due_of(first, 0));
    assert_int_equal(due_of(again, 1), due_of(first, 1));
    assert_int_equal(waiting(f), 2);
    part_crash(f);
    part_open(f);
    assert_int_equal(part_produce(f, &later)->base_offset, first->base_offset);
    part_pass_seconds(f, 7);
    expect_contents(f, (uint64_t[]){1, 2}, 2);
}

static void expect_found(struct part_fixture *f, const struct ferry_id *id, int64_t expected)
{
    bool found = false;
    int64_t offset = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_message_find(f->p, id, &found, &offset), FERRY_OK);
    store_read_end(f->store);
    assert_true(found);
    assert_int_equal(offset, expected);
}

/* While it waits the first one has no offset; when it has come it has. */
static void a_repeat_by_id_is_dropped_before_and_after_it_is_due(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    struct ferry_id ids[] = {part_id(1), part_id(2)};
    struct batch_of now = {.count = 1, .content = 50};
    struct batch_of later = {.count = 2, .content = 1, .ids = ids, .due = f->now_ms + 1000};
    (void)part_produce(f, &now);
    (void)part_produce(f, &later);
    struct batch_of repeat = {.count = 1, .content = 9, .ids = ids + 1};
    struct partition_ticket *t = part_produce(f, &repeat);
    assert_int_equal(t->duplicate_count, 1);
    assert_int_equal((int64_t)get_le64(t->duplicates.data + 4), -1);
    assert_int_equal(t->base_offset, -1);
    struct batch_of again = {.count = 2, .content = 1, .ids = ids, .due = f->now_ms + 9000};
    t = part_produce(f, &again);
    assert_int_equal(t->duplicate_count, 2);
    assert_int_equal(due_of(t, 0), 0);
    expect_found(f, &ids[1], -1);
    part_pass_ms(f, 1000);
    part_flush(f);
    t = part_produce(f, &repeat);
    assert_int_equal((int64_t)get_le64(t->duplicates.data + 4), 2);
    expect_found(f, &ids[1], 2);
    part_crash(f);
    part_open(f);
    expect_found(f, &ids[0], 1);
    part_pass_seconds(f, 20);
    expect_contents(f, (uint64_t[]){50, 1, 2}, 3);
}

/* ---- Crashes ---- */

static void due_exactly_once_wherever_a_turn_ends(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    for (int point = 0; point < CRASH_POINTS; point++) {
        struct batch_of later = {
            .count = 2, .content = (uint64_t)point * 2, .due = f->now_ms + 1000};
        (void)part_produce(f, &later);
        if (point == 1) {
            part_flush(f);
        }
        f->now_ms += 1000;
        f->now_us += 1000000;
        assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
        part_crash_at(f, (enum crash_point)point);
        part_open(f);
        part_pass_seconds(f, 2);
    }
    expect_contents(f, (uint64_t[]){0, 1, 2, 3, 4, 5}, 6);
    assert_int_equal(waiting(f), 0);
}

/* One release, applied: the table has it no more, before anybody looks again. */
static void a_released_message_is_off_the_table_in_the_same_step(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 3, .content = 1, .due = f->now_ms + 100};
    (void)part_produce(f, &later);
    f->now_ms += 100;
    f->now_us += 100000;
    part_turn_once(f);
    assert_int_equal(partition_end_offset(f->p), 3);
    assert_int_equal(waiting(f), 0);
}

/* What was proposed and never written is proposed again by the next life; what waits is on disk. */
static void what_waits_survives_restarts(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 300, .content = 0, .due = f->now_ms + HOUR_MS};
    (void)part_produce(f, &later);
    part_crash(f); /* Rows not flushed: from the log. */
    part_open(f);
    assert_int_equal(waiting(f), 300);
    part_flush(f);
    part_crash(f); /* From the rows. */
    part_open(f);
    assert_int_equal(waiting(f), 300);
    f->now_ms += HOUR_MS;
    part_crash(f); /* Due while nobody looked. */
    part_open(f);
    assert_int_equal(partition_end_offset(f->p), 300);
    assert_int_equal(waiting(f), 0);
}

/* A delayed message does not pin the log: its entry goes, the message comes all the same. */
static void retention_passes_what_waits(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = 1000;
    part_open(f);
    struct batch_of later = {.producer = 3, .count = 1, .content = 42, .due = -60000};
    struct batch_of now = {.count = 1, .content = 1};
    int64_t number = part_produce(f, &later)->base_offset;
    (void)part_produce(f, &now);
    part_flush(f);
    part_pass_seconds(f, 30);
    part_flush(f);
    assert_int_equal(partition_start_offset(f->p), 1);
    struct partition_ticket *again = part_produce(f, &later);
    assert_true(again->duplicate && again->scheduled);
    assert_int_equal(again->base_offset, number);
    assert_int_equal(due_of(again, 0), 0); /* Not known any more. */
    f->config.settings.retention_ms = -1;
    partition_configure(f->p, &f->config.settings);
    part_pass_seconds(f, 31);
    expect_contents(f, (uint64_t[]){42}, 1);
}

/* A log of delayed batches alone is dropped like any other; what waits is in the table. */
static void a_log_of_nothing_but_delayed_batches_is_trimmed(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_bytes = 100000;
    part_open(f);
    struct batch_of later = {.count = 1000, .payload_bytes = 100, .due = f->now_ms + HOUR_MS};
    for (int i = 0; i < 20; i++) {
        (void)part_produce(f, &later);
        part_flush(f);
    }
    part_pass_seconds(f, 10);
    part_flush(f);
    assert_true(partition_size_bytes(f->p) < (256 << 10) + 130000);
    assert_true(part_count_entries_on_disk(f) < 20);
    assert_int_equal(waiting(f), 20000);
}

/* ---- Lists ---- */

static void what_waits_is_listed_in_pages(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 450, .due = f->now_ms + 450000, .due_step = -1000};
    (void)part_produce(f, &later);
    part_flush(f);
    struct batch_of more = {.count = 10, .due = f->now_ms + 500};
    (void)part_produce(f, &more); /* In memory, the others on disk. */
    int64_t due = 0;
    uint64_t number = 0;
    uint64_t seen = 0;
    for (bool go_on = true; go_on;) {
        struct schedule_list_reply *reply = list_after(f, due, number);
        assert_int_equal(reply->total, 460);
        for (uint32_t i = 0; i < reply->count; i++) {
            const struct schedule_item *item = &reply->items[i];
            assert_true(item->due_ms > due || (item->due_ms == due && item->number > number));
            assert_int_equal(item->record_bytes, 8);
            due = item->due_ms;
            number = item->number;
        }
        seen += reply->count;
        go_on = reply->more;
        mem_free(reply);
    }
    assert_int_equal(seen, 460);
    assert_int_equal(due, f->now_ms - 1000 + 450000 + 1000);
}

/* ---- Cancelling ---- */

static void a_cancelled_message_does_not_come(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 3, .content = 1, .due = f->now_ms + 3000};
    struct partition_ticket *sent = part_produce(f, &later);
    struct partition_ticket *t = cancel(f, due_of(sent, 1), (uint64_t)sent->base_offset + 1);
    part_turn(f);
    assert_true(part_is_done(f, t));
    assert_int_equal(t->count, 1);
    assert_int_equal(waiting(f), 2);
    assert_int_equal(cancel(f, due_of(sent, 1), (uint64_t)sent->base_offset + 1)->count, 0);
    assert_int_equal(cancel(f, due_of(sent, 1) + 1, (uint64_t)sent->base_offset)->count, 0);
    part_crash(f);
    part_open(f);
    part_pass_seconds(f, 4);
    expect_contents(f, (uint64_t[]){1, 3}, 2);
    assert_int_equal(cancel(f, due_of(sent, 0), (uint64_t)sent->base_offset)->count, 0);
}

static void two_cancellations_on_their_way_count_it_once(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 1, .due = f->now_ms + 3000};
    struct partition_ticket *sent = part_produce(f, &later);
    struct partition_ticket *first = cancel(f, due_of(sent, 0), 1);
    struct partition_ticket *second = cancel(f, due_of(sent, 0), 1);
    part_turn(f);
    assert_int_equal(first->count + second->count, 1);
    assert_int_equal(waiting(f), 0);
}

/* Whichever of the two was first in the log has it. */
static void a_cancellation_and_a_release_do_not_both_have_a_message(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 2, .content = 1, .due = f->now_ms + 3000};
    struct partition_ticket *sent = part_produce(f, &later);
    f->now_ms += 3000;
    f->now_us += 3000000;
    struct partition_ticket *early = cancel(f, due_of(sent, 0), 1);
    assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
    struct partition_ticket *late = cancel(f, due_of(sent, 1), 2);
    assert_int_equal(early->count, 1);
    assert_int_equal(late->count, 0);
    part_turn_once(f);
    part_turn(f);
    expect_contents(f, (uint64_t[]){2}, 1);
    assert_int_equal(waiting(f), 0);
}

/* Each allocation of a cancellation, and of a release, fails once in turn. */
static void no_memory_delays_and_loses_nothing(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 3, .content = 1, .due = f->now_ms + 3000};
    struct partition_ticket *sent = part_produce(f, &later);
    struct schedule_cancel_request q = {.count = 1,
                                        .items = {{.due_ms = due_of(sent, 1), .number = 2}}};
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    for (long n = 1; n < 50 && err == FERRY_ERR_NO_MEMORY; n++) {
        struct partition_ticket *t = part_ticket(f);
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        mem_test_fail_after(n);
        err = partition_schedule_cancel(f->p, &q, f->now_ms, f->now_us, t);
        mem_test_fail_after(0);
        store_read_end(f->store);
    }
    assert_int_equal(err, FERRY_OK);
    part_turn(f);
    f->now_ms += 3000;
    for (long n = 1; n < 50 && partition_end_offset(f->p) == 0; n++) {
        f->now_us += 1000000;
        mem_test_fail_after(n);
        err = partition_tick(f->p, f->now_ms, f->now_us);
        mem_test_fail_after(0);
        assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
        if (err == FERRY_OK) {
            part_turn(f);
        }
    }
    expect_contents(f, (uint64_t[]){1, 3}, 2);
}

/* ---- Many ---- */

static int64_t anonymous_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL && sscanf(line, "RssAnon: %ld", &kib) != 1) {
    }
    (void)fclose(file);
    return kib;
}

/* A sanitizer keeps what was freed for a while. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_TELLS false
#else
#define MEMORY_TELLS true
#endif

static void many_that_wait_take_no_memory_and_come_all(void **state)
{
    enum { BATCHES = 50, EACH = 4000 };
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = EACH, .payload_bytes = 100, .due = f->now_ms + HOUR_MS};
    struct bytes batch = part_batch(f, &later);
    int64_t before = anonymous_kib();
    for (int i = 0; i < BATCHES; i++) {
        struct partition_ticket *t = part_ticket(f);
        assert_int_equal(partition_produce(f->p, batch, f->now_ms, f->now_us, t, NULL), FERRY_OK);
        part_flush(f);
    }
    assert_int_equal(waiting(f), BATCHES * EACH);
    /* The payloads alone are 20 MB. */
    assert_true(!MEMORY_TELLS || anonymous_kib() - before < 16 * 1024);
    f->now_ms += HOUR_MS;
    part_pass_seconds(f, 1);
    assert_int_equal(partition_end_offset(f->p), BATCHES * EACH);
    assert_int_equal(waiting(f), 0);
}

/* The shard's turn carries so much: the rest comes with the next turns. */
static void releases_keep_to_what_a_turn_may_append(void **state)
{
    struct part_fixture *f = *state;
    int64_t own_bytes = 0;
    f->config.own_bytes = &own_bytes;
    part_open(f);
    struct batch_of later = {.count = 10, .due = f->now_ms + 1};
    (void)part_produce(f, &later);
    part_pass_seconds(f, 3);
    expect_nothing(f);
    own_bytes = 1;
    part_pass_ms(f, 10);
    assert_int_equal(partition_end_offset(f->p), 10);
    assert_true(own_bytes < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_delayed_message_comes_when_it_is_due_and_not_before),
        part_test(a_partition_that_waits_says_when_to_look),
        part_test(a_delay_counts_from_the_append),
        part_test(messages_come_in_the_order_of_their_times),
        part_test(a_wall_clock_that_jumps_is_followed_and_nothing_comes_twice),
        part_test(what_comes_is_what_was_sent),
        part_test(delayed_batches_in_the_log_take_no_offsets),
        part_test(a_time_too_far_ahead_is_refused),
        part_test(a_malformed_record_is_refused_at_once),
        part_test(what_is_on_its_way_to_the_table_is_bounded),
        part_test(a_repeat_by_sequence_gets_the_first_answer),
        part_test(a_repeat_by_id_is_dropped_before_and_after_it_is_due),
        part_test(due_exactly_once_wherever_a_turn_ends),
        part_test(a_released_message_is_off_the_table_in_the_same_step),
        part_test(what_waits_survives_restarts),
        part_test(retention_passes_what_waits),
        part_test(a_log_of_nothing_but_delayed_batches_is_trimmed),
        part_test(what_waits_is_listed_in_pages),
        part_test(a_cancelled_message_does_not_come),
        part_test(two_cancellations_on_their_way_count_it_once),
        part_test(a_cancellation_and_a_release_do_not_both_have_a_message),
        part_test(no_memory_delays_and_loses_nothing),
        part_test(many_that_wait_take_no_memory_and_come_all),
        part_test(releases_keep_to_what_a_turn_may_append),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
