/* The life of a message as the log tells it: who appended it, who committed past it, when it was
 * trimmed, with nodes and times. */
#include "lib/partition_fixture.h"

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
    part_open(f);
    make_stream(f);
    (void)part_produce(f, &(struct batch_of){.count = 1});
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
