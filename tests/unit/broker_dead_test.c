/* Dead letters over the wire: their names, lists, changes, and reading them like a topic. */
#include <stdio.h>

#include "base/mem.h"
#include "lib/broker_deliver.h"

static struct wire_delivery d;
static struct dead_list_reply list;
static struct fetch_reply fetched;
static uint64_t contents[64];

static uint64_t start(struct broker_fixture *f, struct wire_client *c)
{
    broker_up(f);
    wire_connect(f, c, NULL);
    wire_hello(c, "tester");
    uint64_t g = wire_new_topic(c, "t");
    assert_int_equal(wire_subscribe(c, g, "s", SUBSCRIPTION_QUEUE), FERRY_OK);
    return g;
}

/* Sends messages and rejects them all. */
static void kill_some(struct wire_client *c, uint64_t group, uint32_t count, uint64_t content)
{
    struct receive_request q = wire_receive_of(group, "s", "m", count, 10000);
    assert_int_equal(wire_produce(c, group, count, content, NULL), FERRY_OK);
    assert_int_equal(wire_receive_now(c, &q, &d), FERRY_OK);
    assert_int_equal(d.count, count);
    assert_int_equal(wire_settle(c, group, "s", &d, SETTLE_REJECT, d.offsets[0], count, 0),
                     FERRY_OK);
}

/* ---- Names ---- */

static enum ferry_err ask_metadata(struct wire_client *c, const char *name, char dead_of[64],
                                   uint64_t *group)
{
    struct metadata_request q = {.topic = bytes_of_string(name)};
    struct metadata_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct wire_reply r;
    struct buf b;
    assert_non_null(reply);
    wire_begin(c, &b, COMMAND_METADATA);
    metadata_request_encode(&b, &q);
    enum ferry_err status = wire_call(c, &b, bytes_of(NULL, 0), &r);
    if (status == FERRY_OK) {
        assert_int_equal(metadata_reply_decode(r.frame.body, reply), FERRY_OK);
        assert_int_equal(reply->partition_count, 1);
        (void)snprintf(dead_of, 64, "%.*s", (int)reply->dead_of.size,
                       (const char *)reply->dead_of.data);
        *group = reply->partitions[0].group;
    }
    wire_reply_close(&r);
    mem_free(reply);
    return status;
}

static void a_name_of_dead_letters_is_answered_with_its_topic(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    char dead_of[64];
    uint64_t group = 0;
    uint64_t g = start(f, &c);
    uint64_t other = wire_new_topic(&c, "t.dlq");
    assert_int_equal(ask_metadata(&c, "t", dead_of, &group), FERRY_OK);
    assert_string_equal(dead_of, "");
    assert_int_equal(ask_metadata(&c, "t.dlq.s", dead_of, &group), FERRY_OK);
    assert_string_equal(dead_of, "s");
    assert_int_equal(group, g);
    assert_int_equal(ask_metadata(&c, "t.dlq.a.dlq.b", dead_of, &group), FERRY_OK);
    assert_string_equal(dead_of, "a.dlq.b");
    assert_int_equal(group, g);
    /* Two marks that overlap: the first that makes a topic counts. */
    assert_int_equal(ask_metadata(&c, "t.dlq.dlq.s", dead_of, &group), FERRY_OK);
    assert_string_equal(dead_of, "dlq.s");
    assert_int_equal(wire_topic_delete(&c, "t"), FERRY_OK);
    assert_int_equal(ask_metadata(&c, "t.dlq.dlq.s", dead_of, &group), FERRY_OK);
    assert_string_equal(dead_of, "s");
    assert_int_equal(group, other);
    assert_int_equal(ask_metadata(&c, "t.dlq.s", dead_of, &group), FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(ask_metadata(&c, "u.dlq.s", dead_of, &group), FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(wire_topic_create(&c, "t.dlq.s", 1, NULL), FERRY_ERR_BAD_NAME);
    wire_close(&c);
}

/* Not even where topics are made when they are first asked for. */
static void a_name_of_dead_letters_makes_no_topic(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    char dead_of[64];
    uint64_t group = 0;
    broker_set(f, "topic.auto_create", "true");
    (void)start(f, &c);
    assert_int_equal(ask_metadata(&c, "u.dlq.s", dead_of, &group), FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(ask_metadata(&c, "u", dead_of, &group), FERRY_OK);
    assert_int_equal(ask_metadata(&c, "u.dlq.s", dead_of, &group), FERRY_OK);
    assert_string_equal(dead_of, "s");
    wire_close(&c);
}

/* ---- Lists and changes ---- */

static enum ferry_err list_dead(struct wire_client *c, const struct dead_list_request *q,
                                struct wire_reply *r)
{
    struct buf b;
    wire_begin(c, &b, COMMAND_DEAD_LIST);
    dead_list_request_encode(&b, q);
    enum ferry_err status = wire_call(c, &b, bytes_of(NULL, 0), r);
    if (status == FERRY_OK) {
        assert_int_equal(dead_list_reply_decode(r->frame.body, &list), FERRY_OK);
    }
    return status;
}

static enum ferry_err change_dead(struct wire_client *c, uint64_t group, uint32_t kind,
                                  const uint64_t *numbers, uint32_t count, uint32_t *done)
{
    struct dead_change_request q = {
        .group = group, .subscription = bytes_of_string("s"), .kind = kind, .count = count};
    struct dead_change_reply reply = {0};
    struct wire_reply r;
    struct buf b;
    for (uint32_t i = 0; i < count; i++) {
        q.items[i].number = numbers[i];
    }
    wire_begin(c, &b, COMMAND_DEAD_CHANGE);
    dead_change_request_encode(&b, &q);
    enum ferry_err status = wire_call(c, &b, bytes_of(NULL, 0), &r);
    if (status == FERRY_OK) {
        assert_int_equal(dead_change_reply_decode(r.frame.body, &reply), FERRY_OK);
    }
    *done = reply.done;
    wire_reply_close(&r);
    return status;
}

static void dead_letters_are_listed_replayed_and_dropped(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    uint32_t done = 0;
    uint64_t numbers[3] = {0};
    uint64_t g = start(f, &c);
    kill_some(&c, g, 3, 100);
    struct dead_list_request q = {
        .group = g, .subscription = bytes_of_string("s"), .count_max = 2, .with_history = true};
    assert_int_equal(list_dead(&c, &q, &r), FERRY_OK);
    assert_int_equal(list.total, 3);
    assert_int_equal(list.count, 2);
    assert_true(bytes_equal(list.items[0].reason, bytes_of_string("because")));
    assert_int_equal(list.items[0].failure_count, 1);
    numbers[0] = list.items[0].number;
    numbers[1] = list.items[1].number;
    q.from = list.next;
    wire_reply_close(&r);
    assert_int_equal(list_dead(&c, &q, &r), FERRY_OK);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.next, 0);
    numbers[2] = list.items[0].number;
    wire_reply_close(&r);
    assert_int_equal(change_dead(&c, g, DEAD_DROP, &numbers[2], 1, &done), FERRY_OK);
    assert_int_equal(done, 1);
    assert_int_equal(change_dead(&c, g, DEAD_DROP, &numbers[2], 1, &done), FERRY_OK);
    assert_int_equal(done, 0);
    assert_int_equal(change_dead(&c, g, DEAD_REPLAY, numbers, 2, &done), FERRY_OK);
    assert_int_equal(done, 2);
    struct receive_request receive = wire_receive_of(g, "s", "m", 10, 10000);
    assert_int_equal(wire_receive_now(&c, &receive, &d), FERRY_OK);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.contents[0], 100);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, d.offsets[0], 2, 0), FERRY_OK);
    q.from = 0;
    assert_int_equal(list_dead(&c, &q, &r), FERRY_OK);
    assert_int_equal(list.total, 0);
    wire_reply_close(&r);
    wire_close(&c);
}

static void bad_questions_about_dead_letters_are_refused(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    uint32_t done = 0;
    uint64_t number = 1;
    uint64_t g = start(f, &c);
    assert_int_equal(wire_subscribe(&c, g, "stream", SUBSCRIPTION_STREAM), FERRY_OK);
    struct dead_list_request q = {.group = g, .subscription = bytes_of_string("s")};
    assert_int_equal(list_dead(&c, &q, &r), FERRY_ERR_INVALID_ARGUMENT);
    wire_reply_close(&r);
    q.count_max = UINT32_MAX;
    q.from = UINT64_MAX;
    assert_int_equal(list_dead(&c, &q, &r), FERRY_OK);
    assert_int_equal(list.count, 0);
    wire_reply_close(&r);
    q.subscription = bytes_of_string("none");
    assert_int_equal(list_dead(&c, &q, &r), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    wire_reply_close(&r);
    q.subscription = bytes_of_string("stream");
    assert_int_not_equal(list_dead(&c, &q, &r), FERRY_OK);
    wire_reply_close(&r);
    assert_int_equal(change_dead(&c, g, DEAD_DROP, &number, 0, &done), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(change_dead(&c, g, 9, &number, 1, &done), FERRY_ERR_INVALID_ARGUMENT);
    number = UINT64_MAX;
    assert_int_equal(change_dead(&c, g, DEAD_REPLAY, &number, 1, &done), FERRY_OK);
    assert_int_equal(done, 0);
    wire_close(&c);
}

/* ---- Reading them ---- */

static struct fetch_request fetch_of(uint64_t group, int64_t number, uint32_t wait_ms)
{
    struct fetch_request q = wire_fetch_of(group, number, wait_ms);
    q.items[0].dead_of = bytes_of_string("s");
    return q;
}

static size_t fetch(struct wire_client *c, const struct fetch_request *q)
{
    struct wire_reply r;
    (void)wire_send_fetch(c, q);
    wire_receive(c, &r);
    wire_fetch_reply(&r, &fetched);
    size_t count = wire_contents(&r, 0, contents, 64);
    wire_reply_close(&r);
    return count;
}

static void dead_letters_are_read_like_a_topic(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, reader;
    struct wire_reply r;
    uint64_t g = start(f, &c);
    wire_connect(f, &reader, NULL);
    kill_some(&c, g, 3, 100);
    struct fetch_request q = fetch_of(g, 0, 0);
    assert_int_equal(fetch(&reader, &q), 3);
    assert_int_equal(fetched.items[0].status, FERRY_OK);
    assert_int_equal(contents[0], 100);
    assert_int_equal(contents[2], 102);
    int64_t end = fetched.items[0].end_offset;
    assert_true(end > fetched.items[0].start_offset);
    /* From the end on: waits for the next one, and messages of the topic are none. */
    q = fetch_of(g, end, 20000);
    (void)wire_send_fetch(&reader, &q);
    assert_int_equal(wire_produce(&c, g, 1, 7, NULL), FERRY_OK);
    assert_false(wire_receive_within(&reader, &r, 300));
    wire_reply_close(&r);
    struct receive_request receive = wire_receive_of(g, "s", "m", 1, 10000);
    assert_int_equal(wire_receive_now(&c, &receive, &d), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_REJECT, d.offsets[0], 1, 0), FERRY_OK);
    wire_receive(&reader, &r);
    assert_int_equal(wire_contents(&r, 0, contents, 64), 1);
    assert_int_equal(contents[0], 7);
    wire_reply_close(&r);
    q = fetch_of(g, end + 1, 300); /* Its time is over before anything comes. */
    assert_int_equal(fetch(&reader, &q), 0);
    wire_close(&reader);
    wire_close(&c);
}

static void bad_reads_of_dead_letters_are_refused(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c);
    struct fetch_request q = fetch_of(g, -1, 20000);
    assert_int_equal(fetch(&c, &q), 0);
    assert_int_equal(fetched.items[0].status, FERRY_ERR_OFFSET_OUT_OF_RANGE);
    q = fetch_of(g, INT64_MAX, 100);
    assert_int_equal(fetch(&c, &q), 0);
    q = fetch_of(g, 0, 20000);
    q.items[0].dead_of = bytes_of_string("none");
    assert_int_equal(fetch(&c, &q), 0);
    assert_int_equal(fetched.items[0].status, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    q = fetch_of(g + 5, 0, 20000);
    assert_int_equal(fetch(&c, &q), 0);
    assert_int_equal(fetched.items[0].status, FERRY_ERR_UNKNOWN_PARTITION);
    wire_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(a_name_of_dead_letters_is_answered_with_its_topic),
        broker_test(a_name_of_dead_letters_makes_no_topic),
        broker_test(dead_letters_are_listed_replayed_and_dropped),
        broker_test(bad_questions_about_dead_letters_are_refused),
        broker_test(dead_letters_are_read_like_a_topic),
        broker_test(bad_reads_of_dead_letters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
