/* Every command in good and in bad form, from a client that is not ours. */
#include <stdio.h>

#include "base/prng.h"
#include "lib/broker_fixture.h"

static const struct bytes nothing = {0};

static void start(struct broker_fixture *f, struct wire_client *c)
{
    broker_up(f);
    wire_connect(f, c, NULL);
}

static void hello_tells_the_limits(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    struct hello_reply reply;
    struct buf b;
    start(f, &c);
    struct hello_request q = {.client_name = bytes_of_string("t"),
                              .client_version = bytes_of_string("0")};
    wire_begin(&c, &b, COMMAND_HELLO);
    hello_request_encode(&b, &q);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(hello_reply_decode(r.frame.body, &reply), FERRY_OK);
    assert_int_equal(reply.message_max_bytes, f->options.message_max_bytes);
    assert_int_equal(reply.inflight_max, f->options.inflight_max);
    assert_int_equal(reply.node_id, 1);
    wire_reply_close(&r);
    wire_close(&c);
}

static void an_unknown_command_is_answered_as_such(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct buf b;
    start(f, &c);
    static const unsigned commands[] = {0, COMMAND_SOURCE_FENCE + 1, 1000, 65535};
    for (size_t i = 0; i < 4; i++) {
        wire_begin(&c, &b, (enum command)commands[i]);
        empty_encode(&b);
        assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_UNKNOWN_COMMAND);
    }
    wire_close(&c);
}

/* A body that is no array, is empty, holds the wrong types, or ends early. */
static void every_command_survives_a_body_that_is_not_its_own(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    start(f, &c);
    static const struct {
        const char *bytes;
        size_t size;
    } bodies[] = {{"", 0},
                  {"\xc0", 1},
                  {"\x91\xc0", 2},
                  {"\x9f", 1},
                  {"\xdd\xff\xff\xff\xff", 5},
                  {"\x93\xa1x\xa1x\xa1x", 7},
                  {"\x96\xff\xff\xff\xff\xff\xff", 7},
                  {"\xdc\xff\xff\xdc\xff\xff\xdc\xff\xff", 9}};
    for (uint32_t command = 1; command <= 21; command++) {
        for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
            struct buf b;
            struct wire_reply r;
            wire_begin(&c, &b, (enum command)command);
            buf_append(&b, bodies[i].bytes, bodies[i].size);
            enum ferry_err err = wire_call(&c, &b, nothing, &r);
            /* Status reads no body; the words of 5 may be right for some. */
            bool fine = command == COMMAND_BROKER_STATUS || i == 5;
            if (!fine && err != FERRY_ERR_BAD_FRAME) {
                fail_msg("%s, body %zu: %s", command_name((uint16_t)command), i,
                         ferry_err_name(err));
            }
            wire_reply_close(&r);
        }
    }
    assert_int_equal(wire_topic_create(&c, "t", 1, NULL), FERRY_OK);
    wire_close(&c);
}

static void begin_valid_frame(struct wire_client *c, struct buf *b)
{
    struct metadata_request q = {.topic = bytes_of_string("t")};
    wire_begin(c, b, COMMAND_METADATA);
    metadata_request_encode(b, &q);
    assert_true(frame_end(b));
    c->next_id++;
}

static void another_version_and_a_bad_checksum_are_told(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    struct buf b;
    start(f, &c);
    begin_valid_frame(&c, &b);
    b.data[2] = FRAME_VERSION + 1;
    wire_send_raw(&c, b.data, b.size);
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_BAD_VERSION);
    assert_int_equal(r.frame.request_id, c.next_id - 1);
    wire_reply_close(&r);
    b.data[2] = FRAME_VERSION;
    b.data[b.size - 1] ^= 1;
    wire_send_raw(&c, b.data, b.size);
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_BAD_CHECKSUM);
    wire_reply_close(&r);
    buf_fini(&b);
    wire_close(&c);
}

/* Garbage of one connection does not hurt another. Over TCP its sender is cut off. */
static void garbage_gets_no_answer_and_hurts_nobody(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client good, bad;
    struct prng p;
    prng_init(&p, 5);
    broker_set(f, "listen.endpoint", "tcp://127.0.0.1:*");
    start(f, &good);
    assert_int_equal(wire_topic_create(&good, "t", 1, NULL), FERRY_OK);
    for (int round = 0; round < 20; round++) {
        uint8_t bytes[300];
        struct buf b;
        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)prng_next(&p);
        }
        wire_connect(f, &bad, NULL);
        if (round % 2 == 0) {
            wire_send_raw(&bad, bytes, 1 + prng_below(&p, sizeof(bytes)));
        } else {
            begin_valid_frame(&bad, &b);
            wire_send_raw(&bad, b.data, 1 + prng_below(&p, b.size - 1)); /* Cut short. */
            buf_fini(&b);
        }
        struct wire_topic t;
        assert_int_equal(wire_metadata(&good, "t", &t), FERRY_OK);
        wire_close(&bad);
    }
    wire_close(&good);
}

/* Each command that names a group, with groups that are not there, and the metadata group. */
static void unknown_groups_are_told_by_every_command(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct buf b, batch;
    struct bytes name = bytes_of_string("s");
    start(f, &c);
    wire_batch(&batch, 0, 0, 1, 8, 1);
    static const uint64_t groups[] = {0, 999, UINT64_MAX};
    for (size_t i = 0; i < 3; i++) {
        uint64_t g = groups[i];
#define EXPECT_UNKNOWN(NAME, request, attachment, ...)                                             \
    do {                                                                                           \
        struct request q = {.group = g, __VA_ARGS__};                                              \
        wire_begin(&c, &b, COMMAND_##NAME);                                                        \
        request##_encode(&b, &q);                                                                  \
        assert_int_equal(wire_call(&c, &b, attachment, NULL), FERRY_ERR_UNKNOWN_PARTITION);        \
    } while (0)
        EXPECT_UNKNOWN(PRODUCE, produce_request, buf_bytes(&batch), );
        EXPECT_UNKNOWN(APPEND_CAS, append_cas_request, buf_bytes(&batch), );
        EXPECT_UNKNOWN(CURSOR_GET, cursor_get_request, nothing, );
        EXPECT_UNKNOWN(SOURCE_FENCE, source_fence_request, nothing, .epoch = 1);
        EXPECT_UNKNOWN(OFFSET_FIND, offset_find_request, nothing, );
        EXPECT_UNKNOWN(SUBSCRIPTION_CREATE, subscription_create_request, nothing, .name = name);
        EXPECT_UNKNOWN(SUBSCRIPTION_DELETE, subscription_delete_request, nothing, .name = name);
        EXPECT_UNKNOWN(SUBSCRIPTION_COMMIT, subscription_commit_request, nothing, .name = name);
        EXPECT_UNKNOWN(SUBSCRIPTION_GET, subscription_get_request, nothing, .name = name);
        EXPECT_UNKNOWN(SUBSCRIPTION_LIST, subscription_list_request, nothing, );
        EXPECT_UNKNOWN(PARTITION_INFO, partition_info_request, nothing, );
        struct wire_reply r;
        struct fetch_reply reply;
        struct fetch_request q = wire_fetch_of(g, 0, 5000);
        (void)wire_send_fetch(&c, &q);
        wire_receive(&c, &r);
        wire_fetch_reply(&r, &reply);
        assert_int_equal(reply.items[0].status, FERRY_ERR_UNKNOWN_PARTITION);
        wire_reply_close(&r);
    }
    buf_fini(&batch);
    wire_close(&c);
}

static void a_partition_s_commands_work_over_the_wire(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    struct buf b, batch;
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t");
    int64_t offset = -1;
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(wire_produce(&c, g, 2, (uint64_t)i * 2, &offset), FERRY_OK);
        assert_int_equal(offset, i * 2);
    }
    /* Subscriptions. */
    struct subscription_create_request sc = {
        .group = g, .name = bytes_of_string("s"), .mode = SUBSCRIPTION_STREAM, .from = 2};
    struct subscription_create_reply created;
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_CREATE);
    subscription_create_request_encode(&b, &sc);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(subscription_create_reply_decode(r.frame.body, &created), FERRY_OK);
    assert_int_equal(created.position, 2);
    wire_reply_close(&r);
    struct subscription_commit_request cm = {.group = g, .name = sc.name, .position = 5};
    struct subscription_commit_reply committed;
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_COMMIT);
    subscription_commit_request_encode(&b, &cm);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(subscription_commit_reply_decode(r.frame.body, &committed), FERRY_OK);
    assert_int_equal(committed.position, 5);
    wire_reply_close(&r);
    cm.position = 7;
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_COMMIT);
    subscription_commit_request_encode(&b, &cm);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    struct subscription_get_request sg = {.group = g, .name = sc.name};
    struct subscription_get_reply got;
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_GET);
    subscription_get_request_encode(&b, &sg);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(subscription_get_reply_decode(r.frame.body, &got), FERRY_OK);
    assert_true(got.position == 5 && got.end_offset == 6);
    wire_reply_close(&r);
    struct subscription_delete_request sd = {.group = g, .name = sc.name};
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_DELETE);
    subscription_delete_request_encode(&b, &sd);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_OK);
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_GET);
    subscription_get_request_encode(&b, &sg);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    /* Offsets. */
    struct offset_find_request of = {.group = g, .kind = OFFSET_END};
    struct offset_find_reply found;
    wire_begin(&c, &b, COMMAND_OFFSET_FIND);
    offset_find_request_encode(&b, &of);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(offset_find_reply_decode(r.frame.body, &found), FERRY_OK);
    assert_int_equal(found.offset, 6);
    wire_reply_close(&r);
    of.kind = 3;
    wire_begin(&c, &b, COMMAND_OFFSET_FIND);
    offset_find_request_encode(&b, &of);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_INVALID_ARGUMENT);
    /* A source. */
    struct append_cas_request ac = {
        .group = g, .epoch = 1, .cursor = bytes_of_string("x"), .source = {{1}}};
    wire_batch(&batch, 0, 0, 2, 8, 6);
    for (int i = 0; i < 2; i++) {
        wire_begin(&c, &b, COMMAND_APPEND_CAS);
        append_cas_request_encode(&b, &ac);
        enum ferry_err err = wire_call(&c, &b, buf_bytes(&batch), &r);
        assert_int_equal(err, i == 0 ? FERRY_OK : FERRY_ERR_CURSOR_CONFLICT);
        struct append_cas_refusal refusal;
        if (i == 1) {
            assert_int_equal(append_cas_refusal_decode(r.frame.body, &refusal), FERRY_OK);
            assert_int_equal(refusal.version, 1);
        }
        wire_reply_close(&r);
    }
    buf_fini(&batch);
    struct partition_info_request pi = {.group = g};
    struct partition_info_reply info;
    wire_begin(&c, &b, COMMAND_PARTITION_INFO);
    partition_info_request_encode(&b, &pi);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(partition_info_reply_decode(r.frame.body, &info), FERRY_OK);
    assert_true(info.end_offset == 8 && info.leader_node == 1 && info.size_bytes > 0);
    wire_reply_close(&r);
    wire_close(&c);
}

static void a_produce_that_is_no_good_is_refused_with_its_reason(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    struct buf batch;
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t");
    (void)wire_send_produce(&c, g, nothing);
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_BAD_BATCH);
    wire_reply_close(&r);
    wire_batch(&batch, 0, 0, 3, 100, 0);
    batch.data[batch.size - 5] ^= 4;
    (void)wire_send_produce(&c, g, buf_bytes(&batch));
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_BAD_CHECKSUM);
    assert_true(r.error.detail.size > 0);
    wire_reply_close(&r);
    buf_fini(&batch);
    wire_batch(&batch, 0, 0, 1, (size_t)f->options.message_max_bytes + (64 << 10), 0);
    (void)wire_send_produce(&c, g, buf_bytes(&batch));
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_TOO_LARGE);
    wire_reply_close(&r);
    buf_fini(&batch);
    wire_batch(&batch, 8, 5, 1, 8, 0);
    (void)wire_send_produce(&c, g, buf_bytes(&batch));
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_SEQUENCE_GAP);
    wire_reply_close(&r);
    buf_fini(&batch);
    int64_t offset = -1;
    assert_int_equal(wire_produce(&c, g, 1, 0, &offset), FERRY_OK);
    assert_int_equal(offset, 0);
    wire_close(&c);
}

static void too_many_requests_without_an_answer_are_throttled(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    struct wire_reply r;
    broker_set(f, "limit.inflight_max", "4");
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t");
    struct fetch_request q = wire_fetch_of(g, 0, 30000);
    uint64_t ids[5];
    for (int i = 0; i < 5; i++) {
        ids[i] = wire_send_fetch(&c, &q);
    }
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_THROTTLED);
    assert_int_equal(r.frame.request_id, ids[4]);
    wire_reply_close(&r);
    wire_connect(f, &other, NULL); /* Another connection has its own. */
    assert_int_equal(wire_produce(&other, g, 1, 3, NULL), FERRY_OK);
    for (int i = 0; i < 4; i++) {
        wire_receive(&c, &r);
        assert_int_equal(r.status, FERRY_OK);
        wire_reply_close(&r);
    }
    assert_int_equal(wire_produce(&c, g, 1, 3, NULL), FERRY_OK);
    wire_close(&other);
    wire_close(&c);
}

static void producers_and_sources_work_over_the_wire(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    struct buf b;
    start(f, &c);
    uint64_t id = 0;
    for (uint32_t i = 1; i <= 2; i++) {
        struct producer_init_request q = {.name = bytes_of_string("p")};
        struct producer_init_reply reply;
        wire_begin(&c, &b, COMMAND_PRODUCER_INIT);
        producer_init_request_encode(&b, &q);
        assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
        assert_int_equal(producer_init_reply_decode(r.frame.body, &reply), FERRY_OK);
        assert_true(i == 1 || reply.producer_id == id);
        assert_int_equal(reply.epoch, i);
        id = reply.producer_id;
        wire_reply_close(&r);
    }
    struct source_elect_request q = {
        .source = {{3}}, .holder = bytes_of_string("a"), .ttl_ms = 60000};
    struct source_elect_reply reply;
    for (int i = 0; i < 2; i++) {
        wire_begin(&c, &b, COMMAND_SOURCE_ELECT);
        source_elect_request_encode(&b, &q);
        assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
        assert_int_equal(source_elect_reply_decode(r.frame.body, &reply), FERRY_OK);
        assert_int_equal(reply.granted, i == 0);
        assert_int_equal(reply.epoch, 1);
        wire_reply_close(&r);
        q.holder = bytes_of_string("b");
    }
    struct source_checkpoint_request cp = {
        .source = {{3}}, .epoch = 2, .checkpoint = bytes_of_string("x")};
    wire_begin(&c, &b, COMMAND_SOURCE_CHECKPOINT);
    source_checkpoint_request_encode(&b, &cp);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_ERR_SOURCE_FENCED);
    cp.epoch = 1;
    wire_begin(&c, &b, COMMAND_SOURCE_CHECKPOINT);
    source_checkpoint_request_encode(&b, &cp);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_OK);
    struct source_resign_request rs = {.source = {{3}}, .epoch = 1};
    wire_begin(&c, &b, COMMAND_SOURCE_RESIGN);
    source_resign_request_encode(&b, &rs);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_OK);
    wire_begin(&c, &b, COMMAND_SOURCE_ELECT);
    source_elect_request_encode(&b, &q);
    assert_int_equal(wire_call(&c, &b, nothing, &r), FERRY_OK);
    assert_int_equal(source_elect_reply_decode(r.frame.body, &reply), FERRY_OK);
    assert_true(reply.granted && reply.epoch == 2);
    assert_true(bytes_equal(reply.checkpoint, bytes_of_string("x")));
    wire_reply_close(&r);
    wire_begin(&c, &b, COMMAND_BROKER_STATUS);
    empty_encode(&b);
    assert_int_equal(wire_call(&c, &b, nothing, NULL), FERRY_OK);
    wire_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(hello_tells_the_limits),
        broker_test(an_unknown_command_is_answered_as_such),
        broker_test(every_command_survives_a_body_that_is_not_its_own),
        broker_test(another_version_and_a_bad_checksum_are_told),
        broker_test(garbage_gets_no_answer_and_hurts_nobody),
        broker_test(unknown_groups_are_told_by_every_command),
        broker_test(a_partition_s_commands_work_over_the_wire),
        broker_test(a_produce_that_is_no_good_is_refused_with_its_reason),
        broker_test(too_many_requests_without_an_answer_are_throttled),
        broker_test(producers_and_sources_work_over_the_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
