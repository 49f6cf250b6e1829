/* Every command to a partition against every state that a partition may be in, and with bodies that
 * are none (BAD-P). The states: one that is not here, the metadata group, one that others lead, one
 * whose topic is gone; and what each says to arguments that are wrong. */
#include <stdio.h>

#include "base/mem.h"
#include "lib/broker_samples.h"

static const struct bytes nothing = {0};

static void expect(struct wire_client *c, const struct wire_sample *s, uint64_t group,
                   enum ferry_err wanted)
{
    enum ferry_err got = wire_ask_sample(c, s, group);
    if (got != wanted) {
        fail_msg("%s: %s, not %s", command_name((uint16_t)s->command), ferry_err_name(got),
                 ferry_err_name(wanted));
    }
}

static void no_command_reaches_a_partition_that_is_not_here(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    for (size_t i = 0; i < wire_sample_count; i++) {
        expect(&c, &wire_samples[i], g + 1, FERRY_ERR_UNKNOWN_PARTITION);
        expect(&c, &wire_samples[i], 0, FERRY_ERR_UNKNOWN_PARTITION);
        expect(&c, &wire_samples[i], UINT64_MAX, FERRY_ERR_UNKNOWN_PARTITION);
    }
    assert_int_equal(wire_topic_delete(&c, "t"), FERRY_OK);
    for (size_t i = 0; i < wire_sample_count; i++) {
        expect(&c, &wire_samples[i], g, FERRY_ERR_UNKNOWN_PARTITION);
    }
    wire_close(&c);
}

/* Each is served by a partition that is led here, and says so of a subscription that is not there.
 */
static void every_command_is_served(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(wire_produce(&c, g, 1, 1, NULL), FERRY_OK);
    for (size_t i = 0; i < wire_sample_count; i++) {
        enum command command = wire_samples[i].command;
        bool of_subscription = command <= COMMAND_DEAD_CHANGE;
        expect(&c, &wire_samples[i], g,
               of_subscription ? FERRY_ERR_UNKNOWN_SUBSCRIPTION : FERRY_OK);
    }
    assert_int_equal(wire_subscribe(&c, g, "s", SUBSCRIPTION_QUEUE), FERRY_OK);
    assert_int_equal(wire_subscribe(&c, g, "stream", SUBSCRIPTION_STREAM), FERRY_OK);
    for (size_t i = 0; i < wire_sample_count; i++) {
        expect(&c, &wire_samples[i], g, FERRY_OK);
    }
    wire_close(&c);
}

/* A body cut short anywhere, and one that is no body. */
static void a_body_that_is_cut_short_is_refused(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    for (size_t i = 0; i < wire_sample_count; i++) {
        struct buf body, b;
        buf_init(&body, FRAME_BODY_MAX_BYTES);
        wire_samples[i].encode(&body, g);
        for (size_t cut = 0; cut < body.size; cut++) {
            wire_begin(&c, &b, wire_samples[i].command);
            buf_append(&b, body.data, cut);
            assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_BAD_FRAME);
        }
        wire_begin(&c, &b, wire_samples[i].command);
        buf_append(&b, "\xc1\xff\x00", 3);
        assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_BAD_FRAME);
        buf_fini(&body);
    }
    wire_close(&c);
}

/* Lists of nothing are mistakes of the caller. */
static void lists_of_nothing_are_refused(void **state)
{
    static struct settle_request settle;
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct buf b;
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    settle = (struct settle_request){.group = g, .subscription = bytes_of_string("s")};
    wire_begin(&c, &b, COMMAND_SETTLE);
    settle_request_encode(&b, &settle);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_INVALID_ARGUMENT);
    struct dead_change_request dead = {
        .group = g, .subscription = bytes_of_string("s"), .kind = DEAD_DROP};
    wire_begin(&c, &b, COMMAND_DEAD_CHANGE);
    dead_change_request_encode(&b, &dead);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_INVALID_ARGUMENT);
    struct schedule_cancel_request cancel = {.group = g};
    wire_begin(&c, &b, COMMAND_SCHEDULE_CANCEL);
    schedule_cancel_request_encode(&b, &cancel);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_INVALID_ARGUMENT);
    wire_close(&c);
}

/* Offsets at the ends of their range. */
static void offsets_that_are_nowhere_are_refused(void **state)
{
    static const int64_t offsets[] = {-1, INT64_MIN, INT64_MAX, 1};
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct buf b;
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(wire_produce(&c, g, 1, 1, NULL), FERRY_OK);
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        struct trace_request q = {.group = g, .offset = offsets[i]};
        wire_begin(&c, &b, COMMAND_TRACE);
        trace_request_encode(&b, &q);
        assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    }
    assert_int_equal(wire_subscribe(&c, g, "s", SUBSCRIPTION_QUEUE), FERRY_OK);
    static const int64_t wrong[] = {-3, INT64_MIN};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct subscription_reset_request q = {
            .group = g, .name = bytes_of_string("s"), .to = wrong[i]};
        wire_begin(&c, &b, COMMAND_SUBSCRIPTION_RESET);
        subscription_reset_request_encode(&b, &q);
        assert_int_not_equal(wire_call(&c, &b, nothing, NULL), FERRY_OK);
    }
    wire_close(&c);
}

/* Partition 0 alone coordinates. */
static void members_are_of_partition_0(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_topic t;
    broker_up(f);
    wire_connect(f, &c, NULL);
    assert_int_equal(wire_topic_create(&c, "t", 2, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    for (uint32_t p = 0; p < 2; p++) {
        assert_int_equal(wire_subscribe(&c, t.groups[p], "s", SUBSCRIPTION_QUEUE), FERRY_OK);
    }
    const struct wire_sample *heartbeat = wire_sample_of(COMMAND_MEMBER_HEARTBEAT);
    const struct wire_sample *leave = wire_sample_of(COMMAND_MEMBER_LEAVE);
    expect(&c, heartbeat, t.groups[1], FERRY_ERR_INVALID_ARGUMENT);
    expect(&c, leave, t.groups[1], FERRY_ERR_INVALID_ARGUMENT);
    expect(&c, heartbeat, t.groups[0], FERRY_OK);
    expect(&c, leave, t.groups[0], FERRY_OK);
    wire_close(&c);
}

/* ---- Publish and schedules by raw frames ---- */

static enum ferry_err publish(struct wire_client *c, uint64_t group, uint64_t version,
                              struct publish_refusal *refusal, struct publish_reply *reply)
{
    static struct publish_request q;
    struct batch_writer w;
    struct bytes batch;
    struct wire_reply r;
    struct buf b;
    struct batch_record record = {
        .has_key = true, .key = bytes_of_string("k"), .payload = bytes_of_string("12345678")};
    q = (struct publish_request){
        .group = group, .count = 1, .expect = {{.record = 0, .version = version}}};
    batch_writer_init(&w, BATCH_MAX_BYTES);
    assert_int_equal(batch_writer_add(&w, &record), FERRY_OK);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    wire_begin(c, &b, COMMAND_PUBLISH);
    publish_request_encode(&b, &q);
    enum ferry_err status = wire_call(c, &b, batch, &r);
    if (status == FERRY_OK) {
        assert_int_equal(publish_reply_decode(r.frame.body, reply), FERRY_OK);
    } else {
        assert_int_equal(publish_refusal_decode(r.frame.body, refusal), FERRY_OK);
    }
    wire_reply_close(&r);
    batch_writer_fini(&w);
    return status;
}

static uint64_t version_of(struct wire_client *c, uint64_t group)
{
    struct key_version_request q = {.group = group, .key = bytes_of_string("k")};
    struct key_version_reply reply;
    struct wire_reply r;
    struct buf b;
    wire_begin(c, &b, COMMAND_KEY_VERSION);
    key_version_request_encode(&b, &q);
    assert_int_equal(wire_call(c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(key_version_reply_decode(r.frame.body, &reply), FERRY_OK);
    wire_reply_close(&r);
    return reply.version;
}

static void a_publish_of_an_old_version_is_refused_with_the_present_one(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct publish_refusal refusal = {0};
    struct publish_reply reply = {0};
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(version_of(&c, g), 0);
    assert_int_equal(publish(&c, g, 0, &refusal, &reply), FERRY_OK);
    assert_int_equal(reply.base_offset, 0);
    assert_true(reply.append_time_ms > 0);
    assert_int_equal(publish(&c, g, 0, &refusal, &reply), FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(refusal.record, 0);
    assert_int_equal(refusal.version, version_of(&c, g));
    assert_int_equal(publish(&c, g, refusal.version, &refusal, &reply), FERRY_OK);
    assert_int_equal(reply.base_offset, 1);
    wire_close(&c);
}

/* A batch with due times: what comes back are numbers and times, and then the messages. */
static void delayed_messages_are_told_listed_cancelled_and_come(void **state)
{
    static struct schedule_list_reply list;
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct batch_writer w;
    struct bytes batch;
    struct wire_reply r;
    struct produce_reply reply;
    struct buf b;
    broker_up(f);
    wire_connect(f, &c, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (int i = 0; i < 2; i++) {
        struct batch_record record = {.payload = bytes_of_string("12345678"),
                                      .due = i == 0 ? -200 : -3600000};
        assert_int_equal(batch_writer_add(&w, &record), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    (void)wire_send_produce(&c, g, batch);
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_OK);
    assert_int_equal(produce_reply_decode(r.frame.body, &reply), FERRY_OK);
    assert_true(reply.scheduled);
    assert_int_equal(r.frame.attachment.size, 2 * PRODUCE_DUE_BYTES);
    int64_t due_ms = (int64_t)get_le64(r.frame.attachment.data + PRODUCE_DUE_BYTES);
    wire_reply_close(&r);
    batch_writer_fini(&w);
    struct fetch_request q = wire_fetch_of(g, 0, 10000);
    (void)wire_send_fetch(&c, &q);
    wire_receive(&c, &r);
    wire_reply_close(&r);
    struct schedule_list_request ask_list = {.group = g};
    wire_begin(&c, &b, COMMAND_SCHEDULE_LIST);
    schedule_list_request_encode(&b, &ask_list);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(schedule_list_reply_decode(r.frame.body, &list), FERRY_OK);
    assert_int_equal(list.total, 1);
    assert_int_equal(list.items[0].due_ms, due_ms);
    struct schedule_cancel_request cancel = {
        .group = g,
        .count = 2,
        .items = {{.due_ms = due_ms, .number = list.items[0].number}, {.due_ms = 5, .number = 5}}};
    wire_reply_close(&r);
    wire_begin(&c, &b, COMMAND_SCHEDULE_CANCEL);
    schedule_cancel_request_encode(&b, &cancel);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    struct schedule_cancel_reply cancelled;
    assert_int_equal(schedule_cancel_reply_decode(r.frame.body, &cancelled), FERRY_OK);
    assert_int_equal(cancelled.done, 1);
    wire_reply_close(&r);
    wire_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(no_command_reaches_a_partition_that_is_not_here),
        broker_test(every_command_is_served),
        broker_test(a_body_that_is_cut_short_is_refused),
        broker_test(lists_of_nothing_are_refused),
        broker_test(offsets_that_are_nowhere_are_refused),
        broker_test(members_are_of_partition_0),
        broker_test(a_publish_of_an_old_version_is_refused_with_the_present_one),
        broker_test(delayed_messages_are_told_listed_cancelled_and_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
