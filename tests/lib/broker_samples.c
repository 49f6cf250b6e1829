#include "lib/broker_samples.h"

static void encode_receive(struct buf *b, uint64_t group)
{
    struct receive_request q = wire_receive_of(group, "s", "m", 1, 0);
    receive_request_encode(b, &q);
}

static void encode_settle(struct buf *b, uint64_t group)
{
    static struct settle_request q;
    q = (struct settle_request){.group = group,
                                .subscription = bytes_of_string("s"),
                                .member = bytes_of_string("m"),
                                .count = 1};
    q.items[0] = (struct settle_item){.lease = 1, .kind = SETTLE_ACK, .count = 1};
    settle_request_encode(b, &q);
}

static void encode_alter(struct buf *b, uint64_t group)
{
    struct subscription_alter_request q = {.group = group, .name = bytes_of_string("s")};
    subscription_alter_request_encode(b, &q);
}

static void encode_reset(struct buf *b, uint64_t group)
{
    struct subscription_reset_request q = {
        .group = group, .name = bytes_of_string("s"), .to = FERRY_FROM_START, .dry_run = true};
    subscription_reset_request_encode(b, &q);
}

static void encode_claim(struct buf *b, uint64_t group)
{
    struct subscription_claim_request q = {.group = group,
                                           .name = bytes_of_string("stream"),
                                           .member = bytes_of_string("m"),
                                           .epoch = 1};
    subscription_claim_request_encode(b, &q);
}

static void encode_heartbeat(struct buf *b, uint64_t group)
{
    static struct member_heartbeat_request q;
    q = (struct member_heartbeat_request){.group = group,
                                          .subscription = bytes_of_string("s"),
                                          .member = bytes_of_string("m"),
                                          .instance = {{1}},
                                          .session_ms = 10000,
                                          .partitions = 1};
    member_heartbeat_request_encode(b, &q);
}

static void encode_leave(struct buf *b, uint64_t group)
{
    struct member_leave_request q = {.group = group,
                                     .subscription = bytes_of_string("s"),
                                     .member = bytes_of_string("m"),
                                     .instance = {{1}}};
    member_leave_request_encode(b, &q);
}

static void encode_member_list(struct buf *b, uint64_t group)
{
    struct member_list_request q = {.group = group, .subscription = bytes_of_string("s")};
    member_list_request_encode(b, &q);
}

static void encode_event_list(struct buf *b, uint64_t group)
{
    struct event_list_request q = {.group = group, .subscription = bytes_of_string("s")};
    event_list_request_encode(b, &q);
}

static void encode_dead_list(struct buf *b, uint64_t group)
{
    struct dead_list_request q = {
        .group = group, .subscription = bytes_of_string("s"), .count_max = 10};
    dead_list_request_encode(b, &q);
}

static void encode_dead_change(struct buf *b, uint64_t group)
{
    struct dead_change_request q = {.group = group,
                                    .subscription = bytes_of_string("s"),
                                    .kind = DEAD_DROP,
                                    .count = 1,
                                    .items = {{.number = 1}}};
    dead_change_request_encode(b, &q);
}

static void encode_schedule_list(struct buf *b, uint64_t group)
{
    struct schedule_list_request q = {.group = group};
    schedule_list_request_encode(b, &q);
}

static void encode_schedule_cancel(struct buf *b, uint64_t group)
{
    struct schedule_cancel_request q = {
        .group = group, .count = 1, .items = {{.due_ms = 1, .number = 1}}};
    schedule_cancel_request_encode(b, &q);
}

static void encode_recurring_set(struct buf *b, uint64_t group)
{
    struct recurring_set_request q = {.group = group,
                                      .name = bytes_of_string("r"),
                                      .spec = bytes_of_string("@every 1h"),
                                      .zone = bytes_of_string("UTC")};
    recurring_set_request_encode(b, &q);
}

static void encode_recurring_list(struct buf *b, uint64_t group)
{
    struct recurring_list_request q = {.group = group};
    recurring_list_request_encode(b, &q);
}

static void encode_publish(struct buf *b, uint64_t group)
{
    static struct publish_request q;
    q = (struct publish_request){.group = group};
    publish_request_encode(b, &q);
}

static void encode_key_version(struct buf *b, uint64_t group)
{
    struct key_version_request q = {.group = group, .key = bytes_of_string("k")};
    key_version_request_encode(b, &q);
}

static void encode_message_find(struct buf *b, uint64_t group)
{
    struct message_find_request q = {.group = group, .id = {{1, 2, 3}}};
    message_find_request_encode(b, &q);
}

static void encode_trace(struct buf *b, uint64_t group)
{
    struct trace_request q = {.group = group};
    trace_request_encode(b, &q);
}

const struct wire_sample wire_samples[] = {
    {COMMAND_RECEIVE, encode_receive, false},
    {COMMAND_SETTLE, encode_settle, false},
    {COMMAND_SUBSCRIPTION_ALTER, encode_alter, false},
    {COMMAND_SUBSCRIPTION_RESET, encode_reset, false},
    {COMMAND_SUBSCRIPTION_CLAIM, encode_claim, false},
    {COMMAND_MEMBER_HEARTBEAT, encode_heartbeat, false},
    {COMMAND_MEMBER_LEAVE, encode_leave, false},
    {COMMAND_MEMBER_LIST, encode_member_list, false},
    {COMMAND_EVENT_LIST, encode_event_list, false},
    {COMMAND_DEAD_LIST, encode_dead_list, false},
    {COMMAND_DEAD_CHANGE, encode_dead_change, false},
    {COMMAND_SCHEDULE_LIST, encode_schedule_list, false},
    {COMMAND_SCHEDULE_CANCEL, encode_schedule_cancel, false},
    {COMMAND_RECURRING_SET, encode_recurring_set, true},
    {COMMAND_RECURRING_LIST, encode_recurring_list, false},
    {COMMAND_PUBLISH, encode_publish, true},
    {COMMAND_KEY_VERSION, encode_key_version, false},
    {COMMAND_MESSAGE_FIND, encode_message_find, false},
    {COMMAND_TRACE, encode_trace, false},
};
const size_t wire_sample_count = sizeof(wire_samples) / sizeof(wire_samples[0]);

enum ferry_err wire_ask_sample(struct wire_client *c, const struct wire_sample *s, uint64_t group)
{
    struct buf b, batch;
    struct wire_reply r;
    wire_batch(&batch, 0, 0, 1, 8, 1);
    wire_begin(c, &b, s->command);
    s->encode(&b, group);
    enum ferry_err status =
        wire_call(c, &b, s->with_batch ? buf_bytes(&batch) : bytes_of(NULL, 0), &r);
    if (status == FERRY_OK && s->command == COMMAND_RECEIVE) {
        struct receive_reply reply;
        assert_int_equal(receive_reply_decode(r.frame.body, &reply), FERRY_OK);
        status = reply.refused_count > 0 ? (enum ferry_err)reply.refused[0].status : FERRY_OK;
    }
    wire_reply_close(&r);
    buf_fini(&batch);
    return status;
}

const struct wire_sample *wire_sample_of(enum command command)
{
    size_t i = 0;
    while (wire_samples[i].command != command) {
        i++;
        assert_true(i < wire_sample_count);
    }
    return &wire_samples[i];
}
