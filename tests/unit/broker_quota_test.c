/* Quotas of clients and topics, what a topic may have on the way, and who a client is. */
#include <stdio.h>

#include "base/clock.h"
#include "lib/broker_fixture.h"

static struct quota_list_reply list;

static void start(struct broker_fixture *f, struct wire_client *c, const char *name)
{
    if (f->broker == NULL) {
        broker_up(f);
    }
    wire_connect(f, c, NULL);
    if (name[0] != '\0') {
        wire_hello(c, name);
    }
}

/* A batch of so many records; what it was told when it was not taken. */
static enum ferry_err produce(struct wire_client *c, uint64_t group, uint32_t count, size_t bytes,
                              uint32_t *retry_ms)
{
    struct buf batch;
    struct wire_reply r;
    wire_batch(&batch, 0, 0, count, bytes, 1);
    (void)wire_send_produce(c, group, buf_bytes(&batch));
    buf_fini(&batch);
    wire_receive(c, &r);
    enum ferry_err status = r.status;
    *retry_ms = status != FERRY_OK ? r.error.retry_after_ms : 0;
    wire_reply_close(&r);
    return status;
}

static void list_quotas(struct wire_client *c, const char *client, const char *topic)
{
    struct quota_list_request q = {.after_client = bytes_of_string(client),
                                   .after_topic = bytes_of_string(topic)};
    struct wire_reply r;
    struct buf b;
    wire_begin(c, &b, COMMAND_QUOTA_LIST);
    quota_list_request_encode(&b, &q);
    assert_int_equal(wire_call(c, &b, bytes_of(NULL, 0), &r), FERRY_OK);
    assert_int_equal(quota_list_reply_decode(r.frame.body, &list), FERRY_OK);
    wire_reply_close(&r);
}

static void quotas_are_listed_page_by_page(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    char name[32];
    start(f, &c, "");
    list_quotas(&c, "", "");
    assert_int_equal(list.count, 0);
    assert_int_equal(wire_quota_set(&c, "", "", 1, 2, 3), FERRY_OK);
    for (unsigned i = 0; i < QUOTA_LIST_MAX; i++) {
        (void)snprintf(name, sizeof(name), "c%04u", i);
        assert_int_equal(wire_quota_set(&c, name, "t", 100 + i, 0, 0), FERRY_OK);
    }
    for (int life = 0; life < 2; life++) {
        list_quotas(&c, "", "");
        assert_int_equal(list.count, QUOTA_LIST_MAX);
        assert_true(list.more);
        assert_int_equal(list.items[0].client.size, 0);
        assert_int_equal(list.items[0].requests_per_second, 3);
        assert_int_equal(list.items[2].bytes_per_second, 101);
        (void)snprintf(name, sizeof(name), "c%04u", QUOTA_LIST_MAX - 2);
        list_quotas(&c, name, "t");
        assert_int_equal(list.count, 1);
        assert_false(list.more);
        wire_close(&c);
        broker_down(f);
        start(f, &c, "");
    }
    assert_int_equal(wire_quota_set(&c, "a\x01", "", 1, 0, 0), FERRY_ERR_BAD_NAME);
    assert_int_equal(wire_quota_set(&c, "", "no topic", 1, 0, 0), FERRY_ERR_BAD_NAME);
    wire_close(&c);
}

static void who_asks_too_often_is_told_when_to_come_back(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    uint32_t retry_ms;
    start(f, &c, "a");
    start(f, &other, "b");
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(wire_quota_set(&c, "a", "", 0, 10, 0), FERRY_OK);
    assert_int_equal(produce(&c, g, 6, 8, &retry_ms), FERRY_OK);
    assert_int_equal(produce(&c, g, 4, 8, &retry_ms), FERRY_OK);
    assert_int_equal(produce(&c, g, 10, 8, &retry_ms), FERRY_ERR_THROTTLED);
    assert_in_range(retry_ms, 1, 1000);
    (void)net_poll(NULL, 0, (int)retry_ms);
    assert_int_equal(produce(&c, g, 10, 8, &retry_ms), FERRY_OK);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(produce(&other, g, 100, 8, &retry_ms), FERRY_OK);
    }
    assert_int_equal(wire_quota_set(&c, "a", "", 0, 0, 0), FERRY_OK);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(produce(&c, g, 100, 8, &retry_ms), FERRY_OK);
    }
    wire_close(&other);
    wire_close(&c);
}

/* How many requests of one record are taken before the first is not. */
static uint32_t count_taken(struct wire_client *c, uint64_t group)
{
    uint32_t taken = 0, retry_ms;
    while (taken < 100 && produce(c, group, 1, 8, &retry_ms) == FERRY_OK) {
        taken++;
    }
    return taken;
}

static void the_most_specific_quota_counts(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client a, b, nobody;
    start(f, &a, "a");
    start(f, &b, "b");
    start(f, &nobody, "");
    uint64_t t = wire_new_topic(&a, "t"), u = wire_new_topic(&a, "u");
    assert_int_equal(wire_quota_set(&a, "", "", 0, 0, 2), FERRY_OK);
    assert_int_equal(wire_quota_set(&a, "", "t", 0, 0, 8), FERRY_OK);
    assert_int_equal(wire_quota_set(&a, "a", "", 0, 0, 32), FERRY_OK);
    assert_int_equal(wire_quota_set(&a, "a", "t", 0, 0, 90), FERRY_OK);
    /* Some more may have come in by the time that passes meanwhile. */
    assert_in_range(count_taken(&a, t), 90, 100);
    assert_in_range(count_taken(&a, u), 32, 60);
    assert_in_range(count_taken(&b, t), 8, 24);
    assert_in_range(count_taken(&b, u), 2, 7);
    assert_in_range(count_taken(&nobody, u), 2, 7);
    wire_close(&nobody);
    wire_close(&b);
    wire_close(&a);
}

static void more_than_a_second_gives_is_a_debt(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint32_t retry_ms;
    start(f, &c, "a");
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(wire_quota_set(&c, "a", "t", 1000, 0, 0), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 5000, &retry_ms), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 8, &retry_ms), FERRY_ERR_THROTTLED);
    assert_in_range(retry_ms, 3500, 5100);
    /* Whoever raises it wants to be let in now. */
    assert_int_equal(wire_quota_set(&c, "a", "t", 1000000, 0, 0), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 8, &retry_ms), FERRY_OK);
    wire_close(&c);
}

static enum ferry_err fetch(struct wire_client *c, uint64_t group, uint32_t *retry_ms)
{
    struct fetch_request q = wire_fetch_of(group, 0, 0);
    struct wire_reply r;
    (void)wire_send_fetch(c, &q);
    wire_receive(c, &r);
    enum ferry_err status = r.status;
    *retry_ms = status != FERRY_OK ? r.error.retry_after_ms : 0;
    wire_reply_close(&r);
    return status;
}

static void a_fetch_pays_for_what_it_got(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    uint32_t retry_ms;
    start(f, &c, "reader");
    start(f, &producer, "writer");
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(produce(&producer, g, 1, 50000, &retry_ms), FERRY_OK);
    assert_int_equal(wire_quota_set(&c, "reader", "", 10000, 0, 0), FERRY_OK);
    assert_int_equal(fetch(&c, g, &retry_ms), FERRY_OK);
    assert_int_equal(fetch(&c, g, &retry_ms), FERRY_ERR_THROTTLED);
    assert_in_range(retry_ms, 3500, 5100);
    assert_int_equal(fetch(&producer, g, &retry_ms), FERRY_OK);
    wire_close(&producer);
    wire_close(&c);
}

/* Debts are not forgotten when some quota changes; buckets of rows that are gone are. */
static void a_change_of_a_quota_forgives_nobody(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint32_t retry_ms;
    start(f, &c, "a");
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(wire_quota_set(&c, "a", "", 1000, 0, 0), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 9000, &retry_ms), FERRY_OK);
    assert_int_equal(wire_quota_set(&c, "b", "", 1000, 0, 0), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 8, &retry_ms), FERRY_ERR_THROTTLED);
    assert_int_equal(wire_quota_set(&c, "a", "", 0, 0, 0), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 8, &retry_ms), FERRY_OK);
    wire_close(&c);
}

static void quotas_count_on_every_shard(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    struct wire_topic t;
    uint32_t retry_ms;
    broker_set(f, "node.shards", "2");
    start(f, &c, "a");
    assert_int_equal(wire_topic_create(&c, "t", 2, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    assert_int_equal(wire_quota_set(&c, "a", "", 1000, 0, 0), FERRY_OK);
    wire_connect(f, &other, t.endpoints[1]);
    wire_hello(&other, "a");
    uint32_t far = t.endpoint[0] == 1 ? 0 : 1;
    enum ferry_err err = FERRY_OK; /* Told by mail: soon. */
    for (int i = 0; i < 100 && err == FERRY_OK; i++) {
        err = produce(&other, t.groups[far], 1, 900, &retry_ms);
    }
    assert_int_equal(err, FERRY_ERR_THROTTLED);
    /* A second for each shard. */
    assert_int_equal(produce(&c, t.groups[1 - far], 1, 800, &retry_ms), FERRY_OK);
    assert_int_equal(wire_quota_set(&other, "a", "", 0, 0, 0), FERRY_ERR_NOT_LEADER);
    wire_close(&other);
    wire_close(&c);
}

/* ---- What a topic has on its way ---- */

/* Sends several at once; how many were refused. */
static uint32_t burst(struct wire_client *c, uint64_t group, const struct buf *batch,
                      uint32_t count)
{
    uint32_t refused = 0;
    for (uint32_t i = 0; i < count; i++) {
        (void)wire_send_produce(c, group, buf_bytes(batch));
    }
    for (uint32_t i = 0; i < count; i++) {
        struct wire_reply r;
        wire_receive(c, &r);
        assert_true(r.status == FERRY_OK || r.status == FERRY_ERR_THROTTLED);
        if (r.status == FERRY_ERR_THROTTLED) {
            assert_true(r.error.retry_after_ms > 0);
            refused++;
        }
        wire_reply_close(&r);
    }
    return refused;
}

static void a_topic_may_have_so_much_on_the_way(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct buf batch, large;
    uint32_t refused = 0;
    broker_set(f, "limit.topic_inflight_bytes", "1M");
    broker_set(f, "limit.message_max_bytes", "4M");
    start(f, &c, "");
    uint64_t t = wire_new_topic(&c, "t"), u = wire_new_topic(&c, "u");
    wire_batch(&batch, 0, 0, 1, 400000, 1);
    wire_batch(&large, 0, 0, 1, 3000000, 1);
    for (int i = 0; i < 100 && refused == 0; i++) { /* Some come in one turn. */
        refused += burst(&c, t, &batch, 8);
    }
    assert_true(refused > 0);
    for (int i = 0; i < 5; i++) { /* What was answered is on the way no longer. */
        assert_int_equal(burst(&c, t, &batch, 1), 0);
        assert_int_equal(burst(&c, u, &large, 1), 0);
    }
    buf_fini(&large);
    buf_fini(&batch);
    wire_close(&c);
}

/* ---- Who is who ---- */

/* Names of more connections than are remembered come and go; those that work keep theirs. */
static void names_of_connections_are_bounded(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint32_t retry_ms;
    broker_set(f, "listen.connections_max", "4");
    start(f, &c, "a");
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(wire_quota_set(&c, "a", "", 1000, 0, 0), FERRY_OK);
    for (int i = 0; i < 40; i++) {
        struct wire_client visitor;
        start(f, &visitor, "visitor");
        wire_close(&visitor);
        wire_hello(&c, "a");
    }
    assert_int_equal(produce(&c, g, 1, 1000, &retry_ms), FERRY_OK);
    assert_int_equal(produce(&c, g, 1, 1000, &retry_ms), FERRY_ERR_THROTTLED);
    wire_hello(&c, "b");
    assert_int_equal(produce(&c, g, 1, 1000, &retry_ms), FERRY_OK);
    wire_hello(&c, "");
    assert_int_equal(produce(&c, g, 1, 1000, &retry_ms), FERRY_OK);
    wire_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(quotas_are_listed_page_by_page),
        broker_test(who_asks_too_often_is_told_when_to_come_back),
        broker_test(the_most_specific_quota_counts),
        broker_test(more_than_a_second_gives_is_a_debt),
        broker_test(a_fetch_pays_for_what_it_got),
        broker_test(a_change_of_a_quota_forgives_nobody),
        broker_test(quotas_count_on_every_shard),
        broker_test(a_topic_may_have_so_much_on_the_way),
        broker_test(names_of_connections_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
