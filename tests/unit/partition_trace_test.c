/* The life of a message as the log tells it: who appended it, who committed past it, when it was
 * trimmed, with nodes and times. */
#include "lib/hand_fixture.h"

#include "partition/tables.h"

static const struct bytes nobody = {0};
static struct trace_reply reply;

static enum ferry_err try_trace(struct part_fixture *f, int64_t offset, uint64_t after)
{
    struct trace_request q = {.offset = offset, .after = after};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_trace(f->p, &q, &reply);
    store_read_end(f->store);
    return err;
}

static void trace(struct part_fixture *f, int64_t offset, uint64_t after)
{
    assert_int_equal(try_trace(f, offset, after), FERRY_OK);
}

static void make_stream(struct part_fixture *f)
{
    assert_int_equal(partition_subscription_create(f->p, bytes_of_string("s"), SUBSCRIPTION_STREAM,
                                                   FERRY_FROM_START, f->now_ms, f->now_us,
                                                   part_ticket(f)),
                     FERRY_OK);
    part_turn(f);
}

static void commit(struct part_fixture *f, int64_t position, uint64_t epoch)
{
    (void)!partition_subscription_commit_as(f->p, bytes_of_string("s"), position, epoch, f->now_ms,
                                            f->now_us, part_ticket(f));
}

static void claim(struct part_fixture *f, const char *member, uint64_t epoch)
{
    struct subscription_claim_request q = {
        .name = bytes_of_string("s"), .member = bytes_of_string(member), .epoch = epoch};
    assert_int_equal(partition_subscription_claim(f->p, &q, f->now_ms, f->now_us, part_ticket(f)),
                     FERRY_OK);
}

static void a_message_is_appended_and_committed_past_once(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    make_stream(f);
    (void)part_produce(f, &(struct batch_of){.count = 5});
    int64_t appended_ms = f->now_ms;
    (void)part_produce(f, &(struct batch_of){.count = 5});
    part_pass_ms(f, 1000);
    claim(f, "worker-1", 4);
    part_turn(f);
    commit(f, 3, 4);
    part_turn(f);
    commit(f, 7, 4);
    part_turn(f);
    commit(f, 9, 4);
    part_turn(f);
    trace(f, 4, 0);
    assert_true(reply.count == 2 && reply.next == 0);
    assert_int_equal(reply.end, replica_applied(partition_replica(f->p)));
    assert_true(reply.events[0].kind == TRACE_APPENDED && reply.events[0].time_ms == appended_ms);
    const struct trace_event *e = &reply.events[1];
    assert_int_equal(e->kind, TRACE_COMMITTED);
    assert_int_equal(e->time_ms, appended_ms + 1000);
    assert_true(bytes_equal(e->subscription, bytes_of_string("s")));
    assert_true(bytes_equal(e->member, bytes_of_string("worker-1")));
    assert_true(e->index > reply.events[0].index);
    trace(f, 9, 0);
    assert_int_equal(reply.count, 1);
}

/* It is in the log, as it was asked for, and refused when it was applied. */
static void a_commit_that_was_fenced_is_not_told(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    make_stream(f);
    (void)part_produce(f, &(struct batch_of){.count = 5});
    claim(f, "a", 1);
    part_turn(f);
    claim(f, "b", 2);
    commit(f, 5, 1);
    part_turn(f);
    trace(f, 0, 0);
    assert_int_equal(reply.count, 1);
}

static void after_a_reset_a_message_may_be_passed_again(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    make_stream(f);
    (void)part_produce(f, &(struct batch_of){.count = 5});
    commit(f, 5, 0);
    part_turn(f);
    struct subscription_reset_request q = {.name = bytes_of_string("s"), .to = FERRY_FROM_START};
    assert_int_equal(
        partition_subscription_reset(f->p, &q, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_OK);
    part_turn(f);
    commit(f, 2, 0);
    part_turn(f);
    trace(f, 1, 0);
    assert_int_equal(reply.count, 3);
    trace(f, 3, 0);
    assert_int_equal(reply.count, 2);
}

static void every_event_names_the_node_that_led(void **state)
{
    struct part_fixture *f = *state;
    f->config.self = (UINT64_C(3) << 32) | 12; /* The third life of node 12's folder. */
    f->config.initial.voters[0] = f->config.self;
    f->config.settings.retention_ms = 1000000000; /* The no-op that names it stays, too. */
    part_open(f);
    make_stream(f);
    (void)part_produce(f, &(struct batch_of){.count = 1});
    part_pass_seconds(f, 3);
    part_crash(f);
    part_open(f); /* Another term. */
    commit(f, 1, 0);
    part_turn(f);
    trace(f, 0, 0);
    assert_int_equal(reply.count, 2);
    assert_int_equal(reply.events[0].node, 12);
    assert_int_equal(reply.events[1].node, 12);
}

static void what_is_not_there_is_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    assert_int_equal(try_trace(f, 0, 0), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    (void)part_produce(f, &(struct batch_of){.count = 2});
    assert_int_equal(try_trace(f, -1, 0), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(try_trace(f, 2, 0), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    trace(f, 1, 0);
}

static void a_trim_is_told_once(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.retention_ms = HOUR_MS;
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.count = 2});
    part_pass_ms(f, HOUR_MS / 2);
    (void)part_produce(f, &(struct batch_of){.count = 2});
    part_pass_ms(f, HOUR_MS / 2 + 2000);
    part_pass_ms(f, 2000);
    assert_int_equal(partition_start_offset(f->p), 2);
    part_pass_ms(f, HOUR_MS);
    part_pass_ms(f, 2000);
    assert_int_equal(partition_start_offset(f->p), 4);
    trace(f, 1, 0);
    uint32_t trims = 0;
    for (uint32_t i = 0; i < reply.count; i++) {
        trims += reply.events[i].kind == TRACE_TRIMMED ? 1 : 0;
    }
    assert_int_equal(trims, 1);
}

/* A stretch is bounded; the next call goes on where it ended. */
static void a_long_log_is_told_in_stretches(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    make_stream(f);
    (void)part_produce(f, &(struct batch_of){.count = 1});
    for (int i = 0; i < 40; i++) {
        for (int k = 0; k < 500; k++) {
            (void)part_send(f, &(struct batch_of){.count = 1});
        }
        part_turn(f);
    }
    commit(f, 100, 0);
    part_turn(f);
    trace(f, 0, 0);
    assert_true(reply.count == 1 && reply.events[0].kind == TRACE_APPENDED);
    assert_true(reply.next != 0);
    trace(f, 0, reply.next);
    assert_true(reply.count == 1 && reply.events[0].kind == TRACE_COMMITTED);
    assert_int_equal(reply.next, 0);
}

/* ---- Deliveries ---- */

struct expected {
    uint32_t kind;
    const char *member;
};

static void expect(const struct expected *expected, uint32_t count)
{
    assert_int_equal(reply.count, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct trace_event *e = &reply.events[i];
        assert_int_equal(e->kind, expected[i].kind);
        struct bytes member =
            expected[i].member != NULL ? bytes_of_string(expected[i].member) : nobody;
        assert_true(bytes_equal(e->member, member));
        assert_int_equal(e->node, 1);
        assert_true(i == 0 || e->index >= reply.events[i - 1].index);
        assert_true(e->kind == TRACE_APPENDED ||
                    bytes_equal(e->subscription, bytes_of_string("q")));
    }
}

static void open_queue(struct part_fixture *f)
{
    f->config.self = 1;
    f->config.initial.voters[0] = 1;
    part_open(f);
    struct subscription_create_request settings = {
        .lease_ms = 5000, .max_deliveries = 3, .backoff_min_ms = 1000, .backoff_max_ms = 1000};
    hand_make(f, "q", SUBSCRIPTION_QUEUE, &settings);
    (void)part_produce(f, &(struct batch_of){.count = 3});
}

/* Handed out, nacked, handed out, its lease ends, handed out, rejected, replayed, acked. */
static void a_message_is_followed_through_all_its_hands(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f);
    struct hand *h = hand_take(f, "q", "a", 3);
    assert_int_equal(hand_settle(f, "q", h, SETTLE_NACK, 1, 1, -1), FERRY_OK);
    assert_int_equal(hand_settle(f, "q", h, SETTLE_ACK, 0, 1, -1), FERRY_OK);
    int64_t nacked_ms = f->now_ms;
    part_pass_seconds(f, 2);
    h = hand_take(f, "q", "b", 1);
    assert_int_equal(h->messages[0].offset, 1);
    part_pass_seconds(f, 8);
    h = hand_receive(f, "q", "c", 1);
    while (h->count > 0 && h->messages[0].offset != 1) {
        h = hand_receive(f, "q", "c", 1);
    }
    assert_int_equal(h->messages[0].offset, 1);
    assert_int_equal(hand_settle(f, "q", h, SETTLE_REJECT, 1, 1, -1), FERRY_OK);
    assert_int_equal(hand_dead_change(f, "q", DEAD_REPLAY, 1, nobody), 1);
    h = hand_receive(f, "q", "d", 1);
    assert_int_equal(h->messages[0].offset, 1);
    assert_int_equal(hand_settle(f, "q", h, SETTLE_ACK, 1, 1, -1), FERRY_OK);
    trace(f, 1, 0);
    for (uint32_t i = 0; i < reply.count; i++) { /* Who replayed it is the fixture's. */
        reply.events[i].member =
            reply.events[i].kind == TRACE_REVIVED ? nobody : reply.events[i].member;
    }
    static const struct expected life[] = {
        {TRACE_APPENDED, NULL},      {TRACE_HANDED_OUT, "a"},    {TRACE_NACKED, "settler"},
        {TRACE_HANDED_OUT, "b"},     {TRACE_LEASE_EXPIRED, "b"}, {TRACE_HANDED_OUT, "c"},
        {TRACE_REJECTED, "settler"}, {TRACE_DEAD, "settler"},    {TRACE_REVIVED, NULL},
        {TRACE_HANDED_OUT, "d"},     {TRACE_ACKED, "settler"}};
    expect(life, sizeof(life) / sizeof(life[0]));
    const struct trace_event *nack = &reply.events[2];
    assert_true(nack->due_ms > nacked_ms && nack->due_ms <= nacked_ms + 1000);
    assert_true(nack->reason.size > 0 && nack->lease == reply.events[1].lease);
    trace(f, 0, 0);
    static const struct expected other[] = {
        {TRACE_APPENDED, NULL}, {TRACE_HANDED_OUT, "a"}, {TRACE_ACKED, "settler"}};
    expect(other, 3);
}

/* The entry is in the log; when it was applied the lease had ended. */
static void a_settlement_that_was_refused_is_not_told(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f);
    struct hand *h = hand_take(f, "q", "a", 3);
    struct settle_item ack = hand_item(h, SETTLE_ACK, 0, 1, -1);
    struct settle_item release = hand_item(h, SETTLE_RELEASE, 0, 1, -1);
    struct partition_ticket *first = hand_propose(f, "q", &release, 1);
    struct partition_ticket *second = hand_propose(f, "q", &ack, 1);
    part_turn(f);
    assert_int_equal(hand_status(first, 0), FERRY_OK);
    assert_int_equal(hand_status(second, 0), FERRY_ERR_LEASE_EXPIRED);
    trace(f, 0, 0);
    static const struct expected life[] = {
        {TRACE_APPENDED, NULL}, {TRACE_HANDED_OUT, "a"}, {TRACE_RELEASED, "settler"}};
    expect(life, 3);
}

static void a_dead_letter_that_is_dropped_is_told(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f);
    struct hand *h = hand_take(f, "q", "a", 3);
    assert_int_equal(hand_settle(f, "q", h, SETTLE_REJECT, 2, 1, -1), FERRY_OK);
    assert_int_equal(hand_dead_change(f, "q", DEAD_DROP, 1, nobody), 1);
    trace(f, 2, 0);
    assert_int_equal(reply.count, 5);
    assert_int_equal(reply.events[4].kind, TRACE_DROPPED);
    trace(f, 1, 0);
    assert_int_equal(reply.count, 2);
}

static void a_scheduled_message_tells_when_it_was_due(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.count = 2});
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (int64_t i = 0; i < 3; i++) {
        struct batch_record r = {.timestamp_ms = f->now_ms, .payload = bytes_of_string("later")};
        r.due = f->now_ms + 5000 + i * 10;
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    int64_t due_ms = f->now_ms + 5010;
    assert_int_equal(
        partition_produce(f->p, batch, f->now_ms, f->now_us, part_ticket(f), &f->detail), FERRY_OK);
    part_turn(f);
    part_pass_seconds(f, 8);
    batch_writer_fini(&w);
    assert_int_equal(partition_end_offset(f->p), 5);
    trace(f, 3, 0);
    assert_int_equal(reply.count, 2);
    assert_true(reply.events[0].kind == TRACE_SCHEDULED && reply.events[0].due_ms == due_ms);
    assert_int_equal(reply.events[1].kind, TRACE_APPENDED);
    trace(f, 1, 0); /* The delayed batch lies behind this one, and has no offsets. */
    assert_int_equal(reply.count, 1);
    assert_int_equal(reply.events[0].kind, TRACE_APPENDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_message_is_appended_and_committed_past_once),
        part_test(a_commit_that_was_fenced_is_not_told),
        part_test(after_a_reset_a_message_may_be_passed_again),
        part_test(every_event_names_the_node_that_led),
        part_test(what_is_not_there_is_refused),
        part_test(a_trim_is_told_once),
        part_test(a_long_log_is_told_in_stretches),
        part_test(a_message_is_followed_through_all_its_hands),
        part_test(a_settlement_that_was_refused_is_not_told),
        part_test(a_dead_letter_that_is_dropped_is_told),
        part_test(a_scheduled_message_tells_when_it_was_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
