/* Receivers against a broker that does as it is told, honest and not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/receiver.h"
#include "lib/fake_broker.h"

#define WAIT_MS      30000
#define MESSAGES_MAX 2000

struct fixture {
    struct fake_broker *broker, *second;
    struct ferry_conf *conf;
    struct ferry_client *client;
    struct ferry_receiver *receiver;
    int told[2];
    enum ferry_err last_err;
    void *last_opaque;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(2, NULL, NULL);
    fake_subscribe(f->broker, SUBSCRIPTION_QUEUE);
    f->conf = fake_conf(f->broker);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_receiver_close(&f->receiver, 0);
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    if (f->second != NULL) {
        fake_broker_stop(&f->second);
    }
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

/* The payload of each is its offset. */
static void store_batch(struct fixture *f, int partition, int count)
{
    struct batch_writer w;
    struct bytes batch;
    char payload[32];
    int64_t base = fake_end(f->broker, partition);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (int i = 0; i < count; i++) {
        int size = snprintf(payload, sizeof(payload), "%lld", (long long)base + i);
        struct batch_record r = {.timestamp_ms = 5, .payload = bytes_of(payload, (size_t)size + 1)};
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    fake_store(f->broker, partition, batch);
    batch_writer_fini(&w);
}

/* In batches that the broker finds its way in quickly. */
static void store(struct fixture *f, int partition, int count)
{
    for (int left = count; left > 0; left -= 20) {
        store_batch(f, partition, left < 20 ? left : 20);
    }
}

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct fixture *f = arg;
    f->told[settled->partition]++;
    f->last_err = settled->err;
    f->last_opaque = settled->opaque;
}

static void open_receiver(struct fixture *f, const struct ferry_receiver_spec *spec)
{
    if (f->client == NULL) {
        assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    }
    assert_int_equal(
        ferry_receiver_open(&f->receiver, f->client, FAKE_TOPIC, "work", spec, WAIT_MS), FERRY_OK);
    ferry_receiver_on_settled(f->receiver, on_settled, f);
}

/* Receives exactly `count`, each once, into `deliveries`. */
static void receive(struct fixture *f, struct ferry_delivery *deliveries, size_t count)
{
    size_t have = 0;
    while (have < count) {
        size_t got = 0;
        assert_int_equal(ferry_receive(f->receiver, WAIT_MS, deliveries + have, count - have, &got),
                         FERRY_OK);
        assert_true(got >= 1 && got <= count - have);
        receiver_check(f->receiver);
        have += got;
    }
    for (size_t i = 0; i < count; i++) {
        const struct ferry_record *r = &deliveries[i].record;
        assert_int_equal(strtoll((const char *)r->payload, NULL, 10), r->offset);
        assert_string_equal(r->topic, FAKE_TOPIC);
        assert_true(deliveries[i].lease_ms_left > 0);
    }
}

static void ack_all(struct fixture *f, struct ferry_delivery *deliveries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(ferry_ack(f->receiver, &deliveries[i]), FERRY_OK);
    }
}

static void flush(struct fixture *f, uint64_t expected_failed)
{
    uint64_t failed = 99;
    assert_int_equal(ferry_receiver_flush(f->receiver, WAIT_MS, &failed), FERRY_OK);
    assert_int_equal(failed, expected_failed);
    receiver_check(f->receiver);
}

/* Everything comes once, and every ack is told once; many go in few items. */
static void messages_are_received_and_acked(void **state)
{
    static struct ferry_delivery deliveries[MESSAGES_MAX];
    struct fixture *f = *state;
    store(f, 0, 1500);
    store(f, 1, 500);
    fake_set(f->conf, "request.timeout_ms", "5s"); /* No answer is given up on a slow machine. */
    open_receiver(f, NULL);
    for (size_t done = 0; done < MESSAGES_MAX; done += 100) {
        receive(f, deliveries, 100);
        ack_all(f, deliveries, 100);
    }
    flush(f, 0);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 1500);
    assert_int_equal(fake_queue_count(f->broker, 1, FAKE_ACKED), 500);
    assert_int_equal(f->told[0], 1500);
    assert_int_equal(f->told[1], 500);
    assert_in_range(fake_items_settled(f->broker), 2, 400);
    size_t got;
    assert_int_equal(ferry_receive(f->receiver, 100, deliveries, 1, &got), FERRY_ERR_TIMEOUT);
}

static void store_priorities(struct fixture *f, const uint32_t *priorities, int count)
{
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (int i = 0; i < count; i++) {
        char payload[2] = {(char)('0' + i), '\0'};
        struct batch_record r = {
            .timestamp_ms = 5, .payload = bytes_of(payload, 2), .priority = priorities[i]};
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    fake_store(f->broker, 0, batch);
    batch_writer_fini(&w);
}

/* The messages of a hand-out, with the mode: in which order they come. */
static void expect_order(struct fixture *f, uint32_t mode, const int64_t *offsets)
{
    static const uint32_t priorities[6] = {1, 0, 7, 1, 0, 7};
    struct ferry_delivery d[6];
    fake_subscribe(f->broker, mode);
    store_priorities(f, priorities, 6);
    open_receiver(f, NULL);
    receive(f, d, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(d[i].record.offset, offsets[i]);
    }
    ack_all(f, d, 6);
    flush(f, 0);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 6);
}

static void messages_of_a_queue_come_by_priority(void **state)
{
    expect_order(*state, SUBSCRIPTION_QUEUE, (const int64_t[]){2, 5, 0, 3, 1, 4});
}

/* Or the messages of a key would change places. */
static void messages_of_keys_come_by_offset(void **state)
{
    expect_order(*state, SUBSCRIPTION_KEYED, (const int64_t[]){0, 1, 2, 3, 4, 5});
}

/* No more than inflight_max is held, and what is settled makes room. */
static void no_more_is_received_than_may_be_in_flight(void **state)
{
    struct ferry_delivery deliveries[8];
    struct fixture *f = *state;
    size_t got;
    store(f, 0, 20);
    open_receiver(f, &(struct ferry_receiver_spec){.inflight_max = 4, .member = "m"});
    receive(f, deliveries, 4);
    assert_int_equal(ferry_receive(f->receiver, 150, deliveries + 4, 4, &got), FERRY_ERR_TIMEOUT);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_LEASED), 4);
    assert_int_equal(ferry_ack(f->receiver, &deliveries[2]), FERRY_OK);
    receive(f, deliveries + 4, 1);
    flush(f, 0);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 1);
}

/* Nack, release and reject; what failed comes again and says so. */
static void other_ends_than_ack(void **state)
{
    struct ferry_delivery d[4], again[2];
    struct fixture *f = *state;
    store(f, 0, 4);
    open_receiver(f, NULL);
    receive(f, d, 4);
    assert_int_equal(d[0].handed_out, 1);
    assert_int_equal(ferry_nack(f->receiver, &d[0], -1, "no"), FERRY_OK);
    assert_int_equal(ferry_settle(f->receiver, &d[1], FERRY_RELEASE, 0, NULL, NULL), FERRY_OK);
    assert_int_equal(ferry_settle(f->receiver, &d[2], FERRY_REJECT, 0, "never", f), FERRY_OK);
    flush(f, 0);
    assert_ptr_equal(f->last_opaque, f);
    receive(f, again, 2);
    int failed_one = again[0].record.offset == 0 ? 0 : 1;
    assert_int_equal(again[failed_one].handed_out, 2);
    assert_int_equal(again[failed_one].failed, 1);
    assert_int_equal(again[1 - failed_one].failed, 0);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_DEAD), 1);
}

static void settling_twice_is_refused(void **state)
{
    struct ferry_delivery d, copy;
    struct fixture *f = *state;
    store(f, 0, 1);
    open_receiver(f, NULL);
    receive(f, &d, 1);
    copy = d;
    char long_reason[REASON_MAX_BYTES + 2];
    memset(long_reason, 'x', sizeof(long_reason));
    long_reason[REASON_MAX_BYTES + 1] = '\0';
    assert_int_equal(ferry_nack(f->receiver, &d, -1, long_reason), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_nack(f->receiver, &d, -2, NULL), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_settle(f->receiver, &d, (enum ferry_settle)5, 0, NULL, NULL),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_ack(f->receiver, &d), FERRY_OK);
    assert_int_equal(ferry_ack(f->receiver, &d), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_ack(f->receiver, &copy), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_extend(f->receiver, &copy, 5000, 1000), FERRY_ERR_INVALID_ARGUMENT);
    flush(f, 0);
}

/* Of messages settled together one has been taken away: the others are acked all the same. */
static void each_message_of_an_item_has_its_own_outcome(void **state)
{
    struct ferry_delivery d[10];
    struct fixture *f = *state;
    store(f, 0, 10);
    open_receiver(f, NULL);
    receive(f, d, 10);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 100, FAKE_DELAY, 30); /* So that they gather. */
    fake_expire(f->broker, 0, 4, 1);
    ack_all(f, d, 10);
    flush(f, 1);
    assert_int_equal(f->told[0], 10);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 9);
}

/* Rejected one by one and put together on the way: too large together, they go one by one. */
static void what_is_too_much_in_one_item_goes_one_by_one(void **state)
{
    struct ferry_delivery d[10];
    struct fixture *f = *state;
    store(f, 0, 10);
    open_receiver(f, NULL);
    receive(f, d, 10);
    fake_reject_max(f->broker, 0, 1);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 100, FAKE_DELAY, 30); /* So that they gather. */
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ferry_settle(f->receiver, &d[i], FERRY_REJECT, 0, "never", NULL),
                         FERRY_OK);
    }
    flush(f, 0);
    assert_int_equal(f->told[0], 10);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_DEAD), 10);
}

/* Answers of all kinds are lost: nothing is settled twice, and each is told once. */
static void lost_settlements_are_sent_again(void **state)
{
    static struct ferry_delivery d[200];
    struct fixture *f = *state;
    store(f, 0, 200);
    open_receiver(f, NULL);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 2, FAKE_DROP_REPLY, 0);
    fake_rule(f->broker, COMMAND_SETTLE, 1, 2, FAKE_DROP_REQUEST, 0);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 2, FAKE_REFUSE, FERRY_ERR_NOT_READY);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 1, FAKE_REFUSE, FERRY_ERR_THROTTLED);
    for (int i = 0; i < 200; i += 50) {
        receive(f, d, 50);
        ack_all(f, d, 50);
    }
    flush(f, 0);
    assert_int_equal(f->told[0], 200);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 200);
}

/* The leader changes with settlements on their way. */
static void settlements_follow_the_leader(void **state)
{
    static struct ferry_delivery d[100];
    struct fixture *f = *state;
    f->second = fake_broker_join(f->broker);
    store(f, 0, 100);
    open_receiver(f, NULL);
    receive(f, d, 50);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 1, FAKE_DROP_REPLY, 0);
    ack_all(f, d, 50);
    fake_lead(f->broker, 0, 1, 1);
    receive(f, d, 50);
    ack_all(f, d, 50);
    flush(f, 0);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 100);
}

/* Items that the broker has no room for now are sent again; nothing is told before. */
static void throttled_items_are_sent_again(void **state)
{
    static struct ferry_delivery d[40];
    struct fixture *f = *state;
    store(f, 0, 40);
    open_receiver(f, NULL);
    receive(f, d, 40);
    fake_refuse_items(f->broker, 5, FERRY_ERR_THROTTLED);
    for (size_t i = 0; i < 40; i += 2) { /* No two in a row: an item each. */
        assert_int_equal(ferry_ack(f->receiver, &d[i]), FERRY_OK);
    }
    for (size_t i = 1; i < 40; i += 2) {
        assert_int_equal(ferry_settle(f->receiver, &d[i], FERRY_REJECT, 0, "no", NULL), FERRY_OK);
    }
    flush(f, 0);
    assert_int_equal(f->told[0], 40);
    assert_in_range(fake_items_settled(f->broker), 45, 200);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 20);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_DEAD), 20);
}

static void wait_for_settles(struct fixture *f, int count)
{
    int64_t until_us = clock_monotonic_us() + WAIT_MS * INT64_C(1000);
    while (fake_items_settled(f->broker) < count && clock_monotonic_us() < until_us) {
        (void)ferry_poll(f->client, 1);
    }
    assert_int_equal(fake_items_settled(f->broker), count);
}

/* An item that is refused for one of its messages: the others are settled all the same. */
static void an_item_that_is_refused_is_taken_apart(void **state)
{
    struct ferry_delivery d[10];
    struct fixture *f = *state;
    store(f, 0, 10);
    fake_set(f->conf, "request.timeout_ms", "5s");
    open_receiver(f, NULL);
    receive(f, d, 10);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 2, FAKE_DELAY, 300); /* The others gather. */
    ack_all(f, d, 1);
    wait_for_settles(f, 1);
    ack_all(f, d + 1, 1);
    wait_for_settles(f, 2);
    fake_refuse_items(f->broker, 1, FERRY_ERR_INVALID_ARGUMENT);
    for (int i = 2; i < 10; i++) {
        assert_int_equal(ferry_nack(f->receiver, &d[i], 60000, "no"), FERRY_OK);
    }
    flush(f, 0);
    assert_int_equal(fake_items_settled(f->broker), 11);
    assert_int_equal(f->told[0], 10);
}

/* How many messages the items of a kind had, at most. */
static uint32_t longest_item(struct fixture *f, enum settle_kind kind)
{
    uint32_t longest = 0;
    struct settle_request *request = malloc(sizeof(*request));
    for (int i = 0; i < fake_requests(f->broker, COMMAND_SETTLE); i++) {
        assert_int_equal(settle_request_decode(fake_asked(f->broker, COMMAND_SETTLE, i), request),
                         FERRY_OK);
        for (uint32_t k = 0; k < request->count; k++) {
            const struct settle_item *item = &request->items[k];
            longest = item->kind == kind && item->count > longest ? item->count : longest;
        }
    }
    free(request);
    return longest;
}

static void store_large(struct fixture *f, int count, size_t bytes)
{
    char *payload = calloc(1, bytes);
    for (int i = 0; i < count; i++) {
        struct batch_writer w;
        struct bytes batch;
        struct batch_record r = {.timestamp_ms = 5, .payload = bytes_of(payload, bytes)};
        (void)snprintf(payload, bytes, "%lld", (long long)fake_end(f->broker, 0));
        batch_writer_init(&w, BATCH_MAX_BYTES);
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
        assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
        fake_store(f->broker, 0, batch);
        batch_writer_fini(&w);
    }
    free(payload);
}

/* What may become dead letters is joined so far as their messages take 1 MiB; acks are not. */
static void what_may_become_dead_letters_is_not_joined_without_end(void **state)
{
    struct ferry_delivery d[24];
    struct fixture *f = *state;
    store_large(f, 24, 300 << 10);
    fake_set(f->conf, "request.timeout_ms", "5s");
    open_receiver(f, NULL);
    receive(f, d, 24);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 2, FAKE_DELAY, 100); /* So that they gather. */
    for (int i = 0; i < 8; i++) {
        assert_int_equal(ferry_nack(f->receiver, &d[i], 60000, "no"), FERRY_OK);
        assert_int_equal(ferry_settle(f->receiver, &d[8 + i], FERRY_REJECT, 0, "never", NULL),
                         FERRY_OK);
    }
    ack_all(f, d + 16, 8);
    flush(f, 0);
    assert_in_range(longest_item(f, SETTLE_NACK), 1, 3);
    assert_in_range(longest_item(f, SETTLE_REJECT), 1, 3);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_DEAD), 8);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 8);
}

/* After delivery.timeout_ms it is not known. */
static void a_settlement_without_an_answer_is_not_known(void **state)
{
    struct ferry_delivery d;
    struct fixture *f = *state;
    store(f, 0, 1);
    fake_set(f->conf, "delivery.timeout_ms", "400ms");
    open_receiver(f, NULL);
    receive(f, &d, 1);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 1000, FAKE_DROP_REPLY, 0);
    ack_all(f, &d, 1);
    flush(f, 1);
    assert_int_equal(f->last_err, FERRY_ERR_TIMEOUT);
}

static void leases_are_extended_while_messages_are_held(void **state)
{
    struct ferry_delivery d;
    struct fixture *f = *state;
    store(f, 0, 1);
    open_receiver(f, &(struct ferry_receiver_spec){.lease_ms = 200});
    receive(f, &d, 1);
    assert_int_equal(ferry_extend(f->receiver, &d, 300, WAIT_MS), FERRY_OK);
    int64_t until_us = clock_monotonic_us() + WAIT_MS * INT64_C(1000);
    while (fake_extended(f->broker, 0) < 4 && clock_monotonic_us() < until_us) {
        size_t got;
        assert_int_equal(ferry_receive(f->receiver, 20, &d + 0, 1, &got), FERRY_ERR_TIMEOUT);
    }
    assert_true(fake_extended(f->broker, 0) >= 4);
}

/* Without extension what waits here is given back before it counts as failed. */
static void what_was_not_taken_is_released_when_leases_are_not_extended(void **state)
{
    struct ferry_delivery d;
    struct fixture *f = *state;
    store(f, 0, 2);
    open_receiver(f, &(struct ferry_receiver_spec){.lease_ms = 400, .no_extend = true});
    receive(f, &d, 1);
    int64_t until_us = clock_monotonic_us() + WAIT_MS * INT64_C(1000);
    while (fake_items_settled(f->broker) == 0 && clock_monotonic_us() < until_us) {
        (void)ferry_poll(f->client, 20);
    }
    assert_int_equal(fake_extended(f->broker, 0), 0);
    assert_int_equal(fake_items_settled(f->broker), 1);
}

/* What is held at close is free for others at once. */
static void closing_releases_what_is_held(void **state)
{
    struct ferry_delivery d[3];
    struct fixture *f = *state;
    store(f, 0, 10);
    open_receiver(f, &(struct ferry_receiver_spec){.member = "closes"});
    receive(f, d, 3);
    ack_all(f, d, 1);
    ferry_receiver_close(&f->receiver, WAIT_MS);
    assert_null(f->receiver);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 1);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_READY), 9);
    assert_int_equal(f->told[0], 1);
    assert_int_equal(fake_members(f->broker), 0);
}

static void openings_that_fail_say_why(void **state)
{
    struct fixture *f = *state;
    struct ferry_receiver *r;
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_receiver_open(&r, f->client, "no", "work", NULL, WAIT_MS),
                     FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(ferry_receiver_open(&r, f->client, FAKE_TOPIC, "-", NULL, WAIT_MS),
                     FERRY_ERR_BAD_NAME);
    struct ferry_receiver_spec spec = {.member = "a b"};
    assert_int_equal(ferry_receiver_open(&r, f->client, FAKE_TOPIC, "work", &spec, WAIT_MS),
                     FERRY_ERR_BAD_NAME);
    spec = (struct ferry_receiver_spec){.lease_ms = 10};
    assert_int_equal(ferry_receiver_open(&r, f->client, FAKE_TOPIC, "work", &spec, WAIT_MS),
                     FERRY_ERR_INVALID_ARGUMENT);
    spec = (struct ferry_receiver_spec){.inflight_max = RECEIVER_INFLIGHT_MAX + 1};
    assert_int_equal(ferry_receiver_open(&r, f->client, FAKE_TOPIC, "work", &spec, WAIT_MS),
                     FERRY_ERR_INVALID_ARGUMENT);
    fake_subscribe(f->broker, SUBSCRIPTION_STREAM);
    assert_int_equal(ferry_receiver_open(&r, f->client, FAKE_TOPIC, "work", NULL, WAIT_MS),
                     FERRY_ERR_SUBSCRIPTION_EXISTS);
    fake_subscribe(f->broker, 0);
    assert_int_equal(ferry_receiver_open(&r, f->client, FAKE_TOPIC, "work", NULL, WAIT_MS),
                     FERRY_ERR_UNKNOWN_SUBSCRIPTION);
}

static void a_subscription_that_is_deleted_ends_it(void **state)
{
    struct ferry_delivery d;
    struct fixture *f = *state;
    size_t got;
    open_receiver(f, NULL);
    fake_subscribe(f->broker, 0);
    assert_int_equal(ferry_receive(f->receiver, WAIT_MS, &d, 1, &got),
                     FERRY_ERR_UNKNOWN_SUBSCRIPTION);
}

/* ---- Brokers that lie. */

static void can_receive(struct fixture *f, const struct receive_reply *reply)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    receive_reply_encode(&b, reply);
    fake_can(f->broker, COMMAND_RECEIVE, buf_bytes(&b));
    buf_fini(&b);
}

/* Counts, groups, leases and repeats that do not fit: nothing reaches the application, and the
 * broker is not asked in a spin. */
static void hand_outs_that_do_not_fit_are_dropped(void **state)
{
    struct ferry_delivery d;
    struct fixture *f = *state;
    size_t got;
    uint8_t repeat[DELIVERY_REPEAT_BYTES] = {9};
    const struct receive_reply lies[] = {
        {.group = FAKE_GROUP, .lease = 1, .lease_ms = 1000, .count = 5},
        {.group = FAKE_GROUP, .lease = 1, .lease_ms = 1000, .count = 0},
        {.group = FAKE_GROUP, .lease = 1, .lease_ms = 1000, .count = UINT32_MAX},
        {.group = FAKE_GROUP, .lease = 1, .lease_ms = UINT32_MAX, .count = 1},
        {.group = FAKE_GROUP, .lease = 1, .lease_ms = 0, .count = 1},
        {.group = 7, .lease = 1, .lease_ms = 1000, .count = 1},
        {.group = 0, .count = 1},
        {.group = 0, .repeats = bytes_of(repeat, sizeof(repeat))},
        {.refused_count = 1, .refused = {{7, FERRY_ERR_NOT_LEADER}}},
        {.group = 0},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        can_receive(f, &lies[i]);
    }
    open_receiver(f, NULL);
    for (int i = 0; i < 3; i++) { /* CORRUPT may be told, and nothing else. */
        enum ferry_err err = ferry_receive(f->receiver, 200, &d, 1, &got);
        assert_true(err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_CORRUPT);
    }
    assert_in_range(fake_requests(f->broker, COMMAND_RECEIVE), 10, 400);
    receiver_check(f->receiver);
}

static void garbage_is_survived(void **state)
{
    static struct ferry_delivery d[20];
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_RECEIVE, 0, 2, FAKE_GARBAGE, 40);
    fake_rule(f->broker, COMMAND_RECEIVE, 0, 3, FAKE_GARBLE, 0);
    fake_rule(f->broker, COMMAND_RECEIVE, 0, 1, FAKE_DUPLICATE, 0);
    fake_rule(f->broker, COMMAND_SETTLE, 0, 1, FAKE_GARBAGE, 40);
    fake_rule(f->broker, COMMAND_MEMBER_HEARTBEAT, 0, 5, FAKE_GARBLE, 0);
    open_receiver(f, NULL);
    int64_t until_us = clock_monotonic_us() + WAIT_MS * INT64_C(1000);
    while (fake_requests(f->broker, COMMAND_RECEIVE) < 7 && clock_monotonic_us() < until_us) {
        (void)ferry_poll(f->client, 10);
    }
    store(f, 0, 20);
    receive(f, d, 20);
    ack_all(f, d, 20);
    flush(f, 0);
    assert_int_equal(fake_queue_count(f->broker, 0, FAKE_ACKED), 20);
}

/* A flipped bit in the records: the hand-out is dropped, and comes again when its lease ends. */
static void damaged_messages_are_not_handed_over(void **state)
{
    struct ferry_delivery d;
    struct fixture *f = *state;
    size_t got;
    store(f, 0, 1);
    fake_rule(f->broker, COMMAND_RECEIVE, 0, 1, FAKE_FLIP, 0);
    open_receiver(f, NULL);
    assert_int_equal(ferry_receive(f->receiver, 200, &d, 1, &got), FERRY_ERR_TIMEOUT);
    fake_expire(f->broker, 0, 0, 1);
    receive(f, &d, 1);
    assert_int_equal(d.handed_out, 2);
}

/* Results that are not one for each item: the outcome is not known, and that is told. */
static void results_that_do_not_fit_are_not_believed(void **state)
{
    struct ferry_delivery d[2];
    struct fixture *f = *state;
    struct settle_reply lie = {.count = 7};
    struct buf b;
    store(f, 0, 2);
    open_receiver(f, NULL);
    receive(f, d, 2);
    buf_init(&b, 4096);
    settle_reply_encode(&b, &lie);
    fake_can(f->broker, COMMAND_SETTLE, buf_bytes(&b));
    buf_fini(&b);
    ack_all(f, d, 2);
    flush(f, 2);
    assert_int_equal(f->told[0], 2);
    assert_int_equal(f->last_err, FERRY_ERR_BAD_FRAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(messages_are_received_and_acked),
        TEST(messages_of_a_queue_come_by_priority),
        TEST(messages_of_keys_come_by_offset),
        TEST(no_more_is_received_than_may_be_in_flight),
        TEST(other_ends_than_ack),
        TEST(settling_twice_is_refused),
        TEST(each_message_of_an_item_has_its_own_outcome),
        TEST(what_is_too_much_in_one_item_goes_one_by_one),
        TEST(lost_settlements_are_sent_again),
        TEST(settlements_follow_the_leader),
        TEST(throttled_items_are_sent_again),
        TEST(an_item_that_is_refused_is_taken_apart),
        TEST(what_may_become_dead_letters_is_not_joined_without_end),
        TEST(a_settlement_without_an_answer_is_not_known),
        TEST(leases_are_extended_while_messages_are_held),
        TEST(what_was_not_taken_is_released_when_leases_are_not_extended),
        TEST(closing_releases_what_is_held),
        TEST(openings_that_fail_say_why),
        TEST(a_subscription_that_is_deleted_ends_it),
        TEST(hand_outs_that_do_not_fit_are_dropped),
        TEST(garbage_is_survived),
        TEST(damaged_messages_are_not_handed_over),
        TEST(results_that_do_not_fit_are_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
