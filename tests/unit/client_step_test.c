/* A client without its thread: everything happens in client_turn, from one seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/consumer.h"
#include "client/receiver.h"
#include "lib/fake_broker.h"

#define MESSAGES 100
#define WAIT_US  INT64_C(10000000)

struct fixture {
    struct fake_broker *broker;
    struct ferry_client *client;
    int stored;
};

static void on_report(const struct ferry_report *report, void *arg)
{
    struct fixture *f = arg;
    assert_int_equal(report->outcome, FERRY_STORED);
    f->stored++;
}

static struct ferry_client *open_stepped(struct fixture *f, uint64_t seed)
{
    struct err_text e;
    struct ferry_client *client;
    struct ferry_conf *conf = fake_conf(f->broker);
    ferry_conf_on_report(conf, on_report, f);
    assert_int_equal(client_open_stepped(&conf, seed, &client, &e), FERRY_OK);
    return client;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(2, NULL, NULL);
    f->client = open_stepped(f, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 0);
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

/* One turn, and a little of the brokers' time. */
static void turn(struct fixture *f)
{
    struct net_wake never;
    (void)client_turn(f->client);
    (void)ferry_poll(f->client, 0);
    assert_int_equal(net_wake_init(&never), FERRY_OK);
    struct net_poll_item item = {.fd = never.fd};
    (void)net_poll(&item, 1, 1);
    net_wake_fini(&never);
}

static void send_all(struct fixture *f)
{
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    for (int i = 0; i < MESSAGES; i++) {
        struct ferry_message m = {
            .topic = FAKE_TOPIC, .partition = i % 2, .payload = "x", .payload_bytes = 1};
        assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    }
    while (f->stored < MESSAGES && clock_monotonic_us() < give_up_us) {
        turn(f);
    }
    assert_int_equal(f->stored, MESSAGES);
}

/* Send, open, read, commit and close, all on this thread. */
static void a_stepped_client_does_all_on_the_callers_thread(void **state)
{
    struct fixture *f = *state;
    struct consumer_opening *opening;
    struct ferry_consumer *consumer;
    struct ferry_batch *batch;
    struct consumer_commit commit;
    send_all(f);
    assert_int_equal(
        consumer_opening_begin(f->client, FAKE_TOPIC, "reader", FERRY_FROM_START, 5000, &opening),
        FERRY_OK);
    while (!consumer_opening_step(opening)) { /* Its deadline ends it. */
        turn(f);
    }
    assert_int_equal(consumer_opening_end(&opening, &consumer), FERRY_OK);
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    size_t records = 0;
    while (records < MESSAGES && clock_monotonic_us() < give_up_us) {
        turn(f);
        if (ferry_consumer_fetch(consumer, 0, &batch) == FERRY_OK) {
            records += ferry_batch_count(batch);
            ferry_batch_free(&batch);
        }
    }
    assert_int_equal(records, MESSAGES);
    assert_int_equal(consumer_commit_begin(consumer, 1, 7, 5000, &commit), FERRY_OK);
    while (!call_all_finished(f->client, &commit.call, 1)) {
        turn(f);
    }
    assert_int_equal(commit.call.err, FERRY_OK);
    call_fini(&commit.call);
    assert_int_equal(fake_committed(f->broker, 1), 7);
    ferry_consumer_close(&consumer);
}

static void open_stepped_receiver(struct fixture *f, struct ferry_receiver **receiver)
{
    struct receiver_opening *opening;
    const struct ferry_receiver_spec spec = {.member = "m"};
    assert_int_equal(receiver_opening_begin(f->client, FAKE_TOPIC, "work", &spec, 5000, &opening),
                     FERRY_OK);
    while (!receiver_opening_step(opening)) { /* Its deadline ends it. */
        turn(f);
    }
    assert_int_equal(receiver_opening_end(&opening, receiver), FERRY_OK);
}

static void a_stepped_receiver_never_waits(void **state)
{
    struct fixture *f = *state;
    struct ferry_receiver *receiver;
    struct ferry_delivery deliveries[10];
    struct receiver_extension extension;
    size_t count, acked = 0;
    fake_subscribe(f->broker, SUBSCRIPTION_KEYED);
    send_all(f);
    open_stepped_receiver(f, &receiver);
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (acked < MESSAGES - 10 && clock_monotonic_us() < give_up_us) {
        turn(f);
        if (ferry_receive(receiver, 0, deliveries, 10, &count) == FERRY_OK) {
            for (size_t i = 0; i < count; i++, acked++) {
                assert_int_equal(ferry_ack(receiver, &deliveries[i]), FERRY_OK);
            }
        }
    }
    while (ferry_receive(receiver, 0, deliveries, 1, &count) == FERRY_ERR_TIMEOUT) {
        turn(f);
    }
    assert_int_equal(receiver_extend_begin(receiver, &deliveries[0], 5000, 5000, &extension),
                     FERRY_OK);
    while (!call_all_finished(f->client, &extension.call, 1)) {
        turn(f);
    }
    assert_int_equal(receiver_extend_end(&extension), FERRY_OK);
    receiver_stop(receiver);
    while (!receiver_is_idle(receiver) && clock_monotonic_us() < give_up_us) {
        turn(f);
    }
    assert_int_equal(ferry_receiver_flush(receiver, 0, NULL), FERRY_OK);
    ferry_receiver_close(&receiver, 0);
    int left =
        fake_queue_count(f->broker, 0, FAKE_LEASED) + fake_queue_count(f->broker, 1, FAKE_LEASED);
    assert_int_equal(left, 0);
}

static void an_opening_that_fails_says_why(void **state)
{
    struct fixture *f = *state;
    struct consumer_opening *opening;
    struct ferry_consumer *consumer = NULL;
    assert_int_equal(
        consumer_opening_begin(f->client, "missing", NULL, FERRY_FROM_START, 5000, &opening),
        FERRY_OK);
    while (!consumer_opening_step(opening)) {
        turn(f);
    }
    assert_int_equal(consumer_opening_end(&opening, &consumer), FERRY_ERR_UNKNOWN_TOPIC);
    assert_null(consumer);
}

/* The random parts: ids of the same seed differ in their time alone. */
static void the_same_seed_gives_the_same_numbers(void **state)
{
    struct fixture *f = *state;
    struct ferry_client *clients[3] = {open_stepped(f, 7), open_stepped(f, 7), open_stepped(f, 8)};
    struct ferry_id ids[3];
    int64_t pauses[3];
    for (int i = 0; i < 3; i++) {
        ids[i] = ferry_id_new(clients[i]);
        pauses[i] = client_backoff_us(clients[i], 3);
        ferry_close(&clients[i], 0);
    }
    assert_memory_equal(ids[0].bytes + 8, ids[1].bytes + 8, 8);
    assert_memory_not_equal(ids[0].bytes + 8, ids[2].bytes + 8, 8);
    assert_int_equal(pauses[0], pauses[1]);
    assert_int_not_equal(pauses[0], pauses[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_stepped_client_does_all_on_the_callers_thread, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_stepped_receiver_never_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(an_opening_that_fails_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_seed_gives_the_same_numbers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
