/* append_cas: a source's records and its cursor in one entry (invariant 3 of partition.h). */
#include "base/checksum.h"
#include "base/mem.h"
#include "lib/partition_fixture.h"
#include "partition/control.h"
#include "wire/pack.h"

#define ALL_MAX 1024

static struct part_record records[ALL_MAX];
static const struct ferry_id source = {{1, 2, 3}};

struct outcome {
    enum ferry_err err;
    struct partition_ticket *ticket;
    struct append_cas_refusal refusal;
};

static struct outcome send_bytes(struct part_fixture *f, uint64_t version, uint64_t epoch,
                                 const char *cursor, struct bytes batch)
{
    struct outcome o = {.ticket = part_ticket(f)};
    struct append_cas c = {.source = source,
                           .lane = 1,
                           .epoch = epoch,
                           .expect_version = version,
                           .cursor = bytes_of_string(cursor),
                           .batch = batch};
    o.err = partition_append_cas(f->p, &c, f->now_ms, f->now_us, o.ticket, &o.refusal, &f->detail);
    return o;
}

static struct outcome send(struct part_fixture *f, uint64_t version, uint64_t epoch,
                           const char *cursor)
{
    struct bytes batch = part_batch(f, &(struct batch_of){.count = 2, .content = version * 2});
    return send_bytes(f, version, epoch, cursor, batch);
}

static void expect_cursor(struct part_fixture *f, uint64_t version, uint64_t epoch,
                          const char *cursor)
{
    struct cursor_get_reply reply;
    partition_cursor_get(f->p, &source, 1, &reply);
    assert_int_equal(reply.version, version);
    assert_int_equal(reply.epoch, epoch);
    assert_true(bytes_equal(reply.cursor, bytes_of_string(cursor)));
}

static void the_cursor_moves_with_the_records(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    expect_cursor(f, 0, 0, "");
    struct outcome o = send(f, 0, 3, "a");
    assert_int_equal(o.err, FERRY_OK);
    expect_cursor(f, 0, 0, ""); /* Not before it is on disk. */
    part_turn(f);
    assert_int_equal(o.ticket->version, 1);
    assert_int_equal(o.ticket->base_offset, 0);
    expect_cursor(f, 1, 3, "a");
    assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX), 2);
    struct cursor_get_reply reply;
    partition_cursor_get(f->p, &source, 2, &reply); /* Another lane is another cursor. */
    assert_int_equal(reply.version, 0);
}

static void a_repeat_is_a_conflict_that_shows_the_cursor(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    (void)send(f, 0, 1, "a");
    part_turn(f);
    struct outcome o = send(f, 0, 1, "b");
    assert_int_equal(o.err, FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(o.refusal.version, 1);
    assert_int_equal(o.refusal.refused_index, -1);
    assert_true(bytes_equal(o.refusal.cursor, bytes_of_string("a")));
    o = send(f, 2, 1, "b"); /* Nor may one be left out. */
    assert_int_equal(o.err, FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(partition_end_offset(f->p), 2);
}

static void an_older_epoch_is_fenced_a_newer_one_takes_over(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    (void)send(f, 0, 5, "a");
    part_turn(f);
    struct outcome o = send(f, 1, 4, "b");
    assert_int_equal(o.err, FERRY_ERR_SOURCE_FENCED);
    assert_int_equal(o.refusal.epoch, 5);
    assert_int_equal(send(f, 1, 6, "c").err, FERRY_OK);
    assert_int_equal(send(f, 2, 5, "d").err, FERRY_ERR_SOURCE_FENCED); /* Even on its way. */
    part_turn(f);
    expect_cursor(f, 2, 6, "c");
    part_crash(f);
    part_open(f);
    assert_int_equal(send(f, 2, 5, "d").err, FERRY_ERR_SOURCE_FENCED);
}

/* ---- Fenced ---- */

static enum ferry_err fence_past(struct part_fixture *f, uint64_t version, uint64_t epoch,
                                 struct partition_ticket **ticket)
{
    struct source_fence_request q = {
        .source = source, .lane = 1, .epoch = epoch, .version = version};
    *ticket = part_ticket(f);
    return partition_source_fence(f->p, &q, f->now_ms, f->now_us, *ticket, &f->detail);
}

static enum ferry_err fence(struct part_fixture *f, uint64_t epoch,
                            struct partition_ticket **ticket)
{
    return fence_past(f, 0, epoch, ticket);
}

static void fence_past_now(struct part_fixture *f, uint64_t version, uint64_t epoch)
{
    struct partition_ticket *ticket;
    assert_int_equal(fence_past(f, version, epoch, &ticket), FERRY_OK);
    part_turn(f);
    assert_int_equal(ticket->base.err, FERRY_OK);
}

static void fence_now(struct part_fixture *f, uint64_t epoch)
{
    fence_past_now(f, 0, epoch);
}

static void a_fence_raises_the_epoch_and_nothing_else(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    (void)send(f, 0, 3, "a");
    part_turn(f);
    fence_now(f, 5);
    expect_cursor(f, 1, 5, "a");
    struct outcome o = send(f, 1, 4, "b");
    assert_int_equal(o.err, FERRY_ERR_SOURCE_FENCED);
    assert_int_equal(o.refusal.version, 1);
    assert_int_equal(o.refusal.epoch, 5);
    assert_true(bytes_equal(o.refusal.cursor, bytes_of_string("a")));
    assert_int_equal(send(f, 1, 5, "c").err, FERRY_OK); /* Who fenced may append. */
    part_turn(f);
    expect_cursor(f, 2, 5, "c");
    assert_int_equal(partition_end_offset(f->p), 4);
}

static void a_fence_makes_a_cursor_where_there_is_none(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    fence_now(f, 5);
    expect_cursor(f, 0, 5, "");
    assert_int_equal(send(f, 0, 4, "a").err, FERRY_ERR_SOURCE_FENCED);
    assert_int_equal(send(f, 0, 6, "b").err, FERRY_OK);
    part_turn(f);
    expect_cursor(f, 1, 6, "b");
}

/* The log's order decides, not that of the answers. */
static void a_fence_holds_from_its_place_in_the_log(void **state)
{
    struct part_fixture *f = *state;
    struct partition_ticket *fenced;
    part_open(f);
    struct outcome before = send(f, 0, 3, "a");
    assert_int_equal(before.err, FERRY_OK);
    assert_int_equal(fence(f, 5, &fenced), FERRY_OK);
    assert_int_equal(send(f, 1, 3, "b").err, FERRY_ERR_SOURCE_FENCED); /* It is on its way. */
    struct outcome after = send(f, 1, 5, "c");
    assert_int_equal(after.err, FERRY_OK);
    expect_cursor(f, 0, 0, "");
    part_turn(f);
    assert_int_equal(before.ticket->base.err, FERRY_OK);
    assert_int_equal(fenced->base.err, FERRY_OK);
    assert_true(fenced->base.index > before.ticket->base.index);
    assert_true(after.ticket->base.index > fenced->base.index);
    expect_cursor(f, 2, 5, "c");
}

static void a_fence_may_be_repeated_but_not_lowered(void **state)
{
    struct part_fixture *f = *state;
    struct partition_ticket *first, *second, *third;
    part_open(f);
    assert_int_equal(fence(f, 0, &first), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(fence(f, 5, &first), FERRY_OK);
    assert_int_equal(fence(f, 5, &second), FERRY_OK);
    assert_true(second->base.index > 0); /* Not answered before the log has it. */
    assert_int_equal(fence(f, 4, &third), FERRY_ERR_SOURCE_FENCED);
    part_turn(f);
    uint64_t last = replica_last_index(partition_replica(f->p));
    assert_int_equal(fence(f, 5, &third), FERRY_OK);
    assert_int_equal(third->base.index, 0); /* It has. */
    assert_int_equal(fence(f, 4, &third), FERRY_ERR_SOURCE_FENCED);
    assert_int_equal(replica_last_index(partition_replica(f->p)), last);
    assert_int_equal(fence(f, 6, &first), FERRY_OK);
    assert_int_equal(fence(f, 5, &third), FERRY_ERR_SOURCE_FENCED); /* 6 is on its way. */
    part_turn(f);
}

static void a_fence_survives_a_restart(void **state)
{
    struct part_fixture *f = *state;
    for (int flushed = 0; flushed < 2; flushed++) { /* From the log, and from the rows. */
        uint64_t epoch = 5 + (uint64_t)flushed;
        part_open(f);
        fence_now(f, epoch);
        if (flushed == 1) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        expect_cursor(f, 0, epoch, "");
        assert_int_equal(send(f, 0, epoch - 1, "a").err, FERRY_ERR_SOURCE_FENCED);
        part_crash(f);
    }
    part_open(f);
    assert_int_equal(send(f, 0, 6, "a").err, FERRY_OK);
    part_turn(f);
    expect_cursor(f, 1, 6, "a");
}

/* Two appends of the same epoch may be on their way, expecting 1 and 2. */
static void a_fence_passes_what_is_on_its_way(void **state)
{
    struct part_fixture *f = *state;
    struct partition_ticket *again;
    part_open(f);
    (void)send(f, 0, 3, "a");
    part_turn(f);
    fence_past_now(f, 3, 3);
    expect_cursor(f, 3, 3, "a");
    for (uint64_t expected = 1; expected < 3; expected++) {
        struct outcome late = send(f, expected, 3, "late");
        assert_int_equal(late.err, FERRY_ERR_CURSOR_CONFLICT);
        assert_int_equal(late.refusal.version, 3);
        assert_true(bytes_equal(late.refusal.cursor, bytes_of_string("a")));
    }
    uint64_t last = replica_last_index(partition_replica(f->p));
    assert_int_equal(fence_past(f, 3, 3, &again), FERRY_OK); /* It is passed, */
    assert_int_equal(fence_past(f, 2, 3, &again), FERRY_OK); /* and never goes back. */
    assert_int_equal(replica_last_index(partition_replica(f->p)), last);
    assert_int_equal(fence_past(f, (uint64_t)INT64_MAX + 1, 3, &again), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(send(f, 3, 3, "b").err, FERRY_OK);
    assert_int_equal(fence_past(f, 9, 3, &again), FERRY_OK);
    assert_int_equal(send(f, 4, 3, "late").err, FERRY_ERR_CURSOR_CONFLICT); /* 9 is proposed. */
    assert_int_equal(send(f, 9, 3, "c").err, FERRY_OK);
    part_turn(f);
    expect_cursor(f, 10, 3, "c");
    assert_int_equal(partition_end_offset(f->p), 6);
}

static void what_a_fence_has_passed_survives_a_restart(void **state)
{
    struct part_fixture *f = *state;
    for (uint64_t flushed = 0; flushed < 2; flushed++) { /* From the log, and from the rows. */
        part_open(f);
        fence_past_now(f, 7 + flushed, 5);
        if (flushed == 1) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        expect_cursor(f, 7 + flushed, 5, "");
        assert_int_equal(send(f, 6 + flushed, 5, "late").err, FERRY_ERR_CURSOR_CONFLICT);
        part_crash(f);
    }
    part_open(f);
    assert_int_equal(send(f, 8, 5, "a").err, FERRY_OK);
    part_turn(f);
    expect_cursor(f, 9, 5, "a");
}

/* Of logs that were written before fences had one. */
static void a_fence_without_a_version_is_read(void **state)
{
    (void)state;
    struct buf b;
    struct control c;
    buf_init(&b, 64);
    pack_array(&b, 4);
    pack_uint(&b, CONTROL_SOURCE_FENCE);
    pack_id(&b, &source);
    pack_uint(&b, 1);
    pack_uint(&b, 6);
    assert_int_equal(control_decode(buf_bytes(&b), &c), FERRY_OK);
    assert_int_equal(c.epoch, 6);
    assert_int_equal(c.version, 0);
    buf_fini(&b);
}

static void a_chain_goes_in_one_turn(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct outcome o[3];
    static const char *const cursors[] = {"a", "b", "c"};
    for (uint64_t i = 0; i < 3; i++) {
        o[i] = send(f, i, 1, cursors[i]);
        assert_int_equal(o[i].err, FERRY_OK);
    }
    struct outcome late = send(f, 1, 1, "x");
    assert_int_equal(late.err, FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(late.refusal.version, 3);
    part_turn(f);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(o[i].ticket->version, i + 1);
        assert_int_equal(o[i].ticket->base_offset, 2 * i);
    }
    expect_cursor(f, 3, 1, "c");
    assert_int_equal(part_read_all(f, 1, records, ALL_MAX), 6);
    for (uint64_t i = 0; i < 6; i++) {
        assert_int_equal(records[i].content, i);
    }
}

/* Records and cursor are both there or both not, wherever the crash came. */
static void a_crash_keeps_records_and_cursor_together(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    uint64_t version = 0;
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        if (round % 4 >= 2) {
            part_flush(f);
        }
        f->now_us += round % 2 == 0 ? 0 : REPLICA_FLUSH_MS * 1000;
        assert_int_equal(send(f, version, 1, "one").err, FERRY_OK);
        assert_int_equal(send(f, version + 1, 1, "two").err, FERRY_OK);
        enum crash_point point = (enum crash_point)(round / 4);
        part_crash_at(f, point);
        part_open(f);
        version += point == CRASH_BEFORE_STORED ? 2 : 0;
        expect_cursor(f, version, version > 0 ? 1 : 0, version > 0 ? "two" : "");
        assert_int_equal(partition_end_offset(f->p), version * 2);
        assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX), version * 2);
    }
}

static struct bytes batch_of_records(struct part_fixture *f, const struct batch_record *items,
                                     size_t count)
{
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(batch_writer_add(&w, &items[i]), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    batch = bytes_of(part_keep(f, batch.data, batch.size), batch.size);
    batch_writer_fini(&w);
    return batch;
}

static void a_refusal_names_the_first_bad_record(void **state)
{
    struct part_fixture *f = *state;
    f->config.message_max_bytes = 1024;
    part_open(f);
    uint8_t large[1025] = {0};
    struct batch_record items[] = {{.payload = bytes_of(large, 1024)},
                                   {.payload = bytes_of(large, 10)},
                                   {.payload = bytes_of(large, 1025)}};
    struct outcome o = send_bytes(f, 0, 1, "a", batch_of_records(f, items, 3));
    assert_int_equal(o.err, FERRY_ERR_TOO_LARGE);
    assert_int_equal(o.refusal.refused_index, 2);
    items[1].headers = bytes_of("\x81\x01", 2); /* A map whose name is a number. */
    o = send_bytes(f, 0, 1, "a", batch_of_records(f, items, 3));
    assert_int_equal(o.err, FERRY_ERR_BAD_BATCH);
    assert_int_equal(o.refusal.refused_index, 1);
    items[1].headers = bytes_of(NULL, 0);
    assert_int_equal(send_bytes(f, 0, 1, "a", batch_of_records(f, items, 2)).err, FERRY_OK);
    part_turn(f);
    expect_cursor(f, 1, 1, "a");
}

/* The checksum holds, the records' sizes add up, and inside a record there is nonsense. */
static void a_refusal_names_a_record_that_cannot_be_read(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    uint8_t ff[30];
    memset(ff, 0xff, sizeof(ff));
    struct batch_record items[] = {{.payload = bytes_of("good", 4)},
                                   {.payload = bytes_of(ff, sizeof(ff))}};
    struct bytes good = batch_of_records(f, items, 2);
    uint8_t *bad = part_keep(f, good.data, good.size);
    bad[good.size - sizeof(ff) - 2] = 0xff; /* The key's size runs on and on. */
    struct batch_header h;
    put_le64(bad + 8, checksum_of(bad + 16, good.size - 16));
    assert_int_equal(batch_check(bytes_of(bad, good.size), &h, NULL), FERRY_OK);
    struct outcome o = send_bytes(f, 0, 1, "a", bytes_of(bad, good.size));
    assert_int_equal(o.err, FERRY_ERR_BAD_BATCH);
    assert_int_equal(o.refusal.refused_index, 1);
}

static void a_batch_with_a_producer_is_no_source_s(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct bytes batch = part_batch(f, &(struct batch_of){.producer = 4});
    assert_int_equal(send_bytes(f, 0, 1, "a", batch).err, FERRY_ERR_BAD_BATCH);
    part_turn(f);
    expect_cursor(f, 0, 0, "");
}

/* ---- Delayed ---- */

static struct outcome send_delayed(struct part_fixture *f, uint64_t version, uint64_t content,
                                   int64_t due_ms, const char *cursor)
{
    struct bytes batch =
        part_batch(f, &(struct batch_of){.count = 2, .content = content, .due = due_ms});
    return send_bytes(f, version, 1, cursor, batch);
}

static uint64_t waiting(struct part_fixture *f)
{
    struct schedule_list_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct schedule_list_request q = {0};
    assert_non_null(reply);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_schedule_list(f->p, &q, reply), FERRY_OK);
    store_read_end(f->store);
    uint64_t total = reply->total;
    mem_free(reply);
    return total;
}

static void expect_contents(struct part_fixture *f, const uint64_t *contents, size_t count)
{
    assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX), count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(records[i].content, contents[i]);
    }
}

static void the_cursor_moves_with_delayed_records(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct outcome o = send_delayed(f, 0, 7, f->now_ms + 5000, "a");
    assert_int_equal(o.err, FERRY_OK);
    struct outcome now = send(f, 1, 1, "b"); /* Contents 2 and 3: not held back. */
    assert_int_equal(now.err, FERRY_OK);
    part_turn(f);
    assert_int_equal(o.ticket->version, 1);
    assert_int_equal(o.ticket->base_offset, -1);
    assert_int_equal(now.ticket->base_offset, 0);
    expect_cursor(f, 2, 1, "b");
    assert_int_equal(waiting(f), 2);
    expect_contents(f, (uint64_t[]){2, 3}, 2);
    part_pass_ms(f, 4999);
    expect_contents(f, (uint64_t[]){2, 3}, 2);
    part_pass_ms(f, 1);
    expect_contents(f, (uint64_t[]){2, 3, 7, 8}, 4);
    assert_int_equal(waiting(f), 0);
    part_pass_seconds(f, 10);
    assert_int_equal(partition_end_offset(f->p), 4);
    expect_cursor(f, 2, 1, "b");
}

static void a_repeat_of_delayed_records_is_a_conflict(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    int64_t due_ms = f->now_ms + 5000;
    (void)send_delayed(f, 0, 7, due_ms, "a");
    struct outcome o = send_delayed(f, 0, 7, due_ms, "a"); /* Even on its way. */
    assert_int_equal(o.err, FERRY_ERR_CURSOR_CONFLICT);
    part_turn(f);
    o = send_delayed(f, 0, 7, due_ms, "a");
    assert_int_equal(o.err, FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(o.refusal.version, 1);
    assert_true(bytes_equal(o.refusal.cursor, bytes_of_string("a")));
    part_pass_ms(f, 5000);
    o = send_delayed(f, 0, 7, due_ms, "a"); /* And after it has come. */
    assert_int_equal(o.err, FERRY_ERR_CURSOR_CONFLICT);
    expect_contents(f, (uint64_t[]){7, 8}, 2);
}

/* Table and cursor both have it or both do not, from the log and from flushed rows. */
static void a_crash_keeps_table_and_cursor_together(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    uint64_t version = 0;
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        if (round % 4 >= 2) {
            part_flush(f);
        }
        f->now_us += round % 2 == 0 ? 0 : REPLICA_FLUSH_MS * 1000;
        struct outcome o = send_delayed(f, version, version * 2, f->now_ms + HOUR_MS, "late");
        assert_int_equal(o.err, FERRY_OK);
        enum crash_point point = (enum crash_point)(round / 4);
        part_crash_at(f, point);
        part_open(f);
        version += point == CRASH_BEFORE_STORED ? 1 : 0;
        expect_cursor(f, version, version > 0 ? 1 : 0, version > 0 ? "late" : "");
        assert_int_equal(waiting(f), version * 2);
        assert_int_equal(partition_end_offset(f->p), 0);
    }
    part_flush(f);
    part_crash(f);
    f->now_ms += HOUR_MS;
    part_open(f);
    part_pass_seconds(f, 2);
    assert_int_equal(waiting(f), 0);
    assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX), version * 2);
    for (uint64_t i = 0; i < version * 2; i++) {
        assert_int_equal(records[i].content, i);
    }
    assert_int_equal(send_delayed(f, version - 1, 0, 1, "x").err, FERRY_ERR_CURSOR_CONFLICT);
}

static void a_record_due_too_late_is_named(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct bytes batch = part_batch(
        f, &(struct batch_of){.count = 3, .due = f->now_ms + DELAY_MAX_MS - 1, .due_step = 1});
    struct outcome o = send_bytes(f, 0, 1, "a", batch);
    assert_int_equal(o.err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(o.refusal.refused_index, 2);
    part_turn(f);
    expect_cursor(f, 0, 0, "");
    assert_int_equal(waiting(f), 0);
}

static void delayed_records_on_their_way_are_bounded(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of later = {.count = 4096, .due = f->now_ms + HOUR_MS};
    enum ferry_err err = FERRY_OK;
    uint64_t version = 0;
    for (; err == FERRY_OK && version < 100; version += err == FERRY_OK) {
        err = send_bytes(f, version, 1, "a", part_batch(f, &later)).err;
    }
    assert_int_equal(err, FERRY_ERR_THROTTLED);
    part_turn(f);
    expect_cursor(f, version, 1, "a");
    part_flush(f);
    assert_int_equal(send_bytes(f, version, 1, "b", part_batch(f, &later)).err, FERRY_OK);
    part_turn(f);
    expect_cursor(f, version + 1, 1, "b");
}

static void cursors_have_a_limit(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    for (uint32_t lane = 0; lane <= PARTITION_CURSORS_MAX; lane++) {
        struct append_cas c = {.source = source,
                               .lane = lane,
                               .epoch = 1,
                               .cursor = bytes_of_string("x"),
                               .batch = part_batch(f, &(struct batch_of){.count = 1})};
        struct append_cas_refusal refusal;
        enum ferry_err err = partition_append_cas(f->p, &c, f->now_ms, f->now_us, part_ticket(f),
                                                  &refusal, &f->detail);
        assert_int_equal(err, lane < PARTITION_CURSORS_MAX ? FERRY_OK : FERRY_ERR_LIMIT_REACHED);
    }
    part_flush(f);
    part_crash(f);
    part_open(f);
    expect_cursor(f, 1, 1, "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(the_cursor_moves_with_the_records),
        part_test(a_repeat_is_a_conflict_that_shows_the_cursor),
        part_test(an_older_epoch_is_fenced_a_newer_one_takes_over),
        part_test(a_fence_raises_the_epoch_and_nothing_else),
        part_test(a_fence_makes_a_cursor_where_there_is_none),
        part_test(a_fence_holds_from_its_place_in_the_log),
        part_test(a_fence_may_be_repeated_but_not_lowered),
        part_test(a_fence_survives_a_restart),
        part_test(a_fence_passes_what_is_on_its_way),
        part_test(what_a_fence_has_passed_survives_a_restart),
        cmocka_unit_test(a_fence_without_a_version_is_read),
        part_test(a_chain_goes_in_one_turn),
        part_test(a_crash_keeps_records_and_cursor_together),
        part_test(a_refusal_names_the_first_bad_record),
        part_test(a_refusal_names_a_record_that_cannot_be_read),
        part_test(a_batch_with_a_producer_is_no_source_s),
        part_test(the_cursor_moves_with_delayed_records),
        part_test(a_repeat_of_delayed_records_is_a_conflict),
        part_test(a_crash_keeps_table_and_cursor_together),
        part_test(a_record_due_too_late_is_named),
        part_test(delayed_records_on_their_way_are_bounded),
        part_test(cursors_have_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
