/* The producer against a broker that misbehaves: one report per message, whatever happens. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "lib/fake_broker.h"

#define MESSAGES_MAX 200000

/* What the reports said, by the message's number. */
struct told {
    int reports[MESSAGES_MAX];
    enum ferry_outcome outcome[MESSAGES_MAX];
    enum ferry_err err[MESSAGES_MAX];
    int64_t offset[MESSAGES_MAX];
    int32_t partition[MESSAGES_MAX];
    int count, stored, unknown, not_stored;
};

struct fixture {
    struct fake_broker *broker;
    struct ferry_conf *conf;
    struct ferry_client *client;
    struct told *told;
};

static void on_report(const struct ferry_report *report, void *arg)
{
    struct told *t = arg;
    size_t i = (size_t)(uintptr_t)report->opaque;
    assert_true(i < MESSAGES_MAX);
    assert_string_equal(report->topic[0] == 't' ? FAKE_TOPIC : "missing", report->topic);
    t->reports[i]++;
    t->outcome[i] = report->outcome;
    t->err[i] = report->err;
    t->offset[i] = report->offset;
    t->partition[i] = report->partition;
    t->count++;
    t->stored += report->outcome == FERRY_STORED;
    t->unknown += report->outcome == FERRY_UNKNOWN;
    t->not_stored += report->outcome == FERRY_NOT_STORED;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->told = calloc(1, sizeof(*f->told));
    f->broker = fake_broker_start(4, NULL, NULL);
    f->conf = fake_conf(f->broker);
    ferry_conf_on_report(f->conf, on_report, f->told);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    fake_broker_stop(&f->broker);
    free(f->told);
    free(f);
    return 0;
}

static void open_client(struct fixture *f)
{
    char detail[512];
    if (ferry_open(&f->client, &f->conf, detail, sizeof(detail)) != FERRY_OK) {
        fail_msg("%s", detail);
    }
}

/* The payload is the number, the key its low part, so order by key can be seen in the log. */
static enum ferry_err try_send(struct fixture *f, int number, int32_t partition)
{
    char payload[16];
    char key[8];
    int size = snprintf(payload, sizeof(payload), "%d", number);
    int key_size = snprintf(key, sizeof(key), "k%d", number % 7);
    struct ferry_message m = {.topic = FAKE_TOPIC,
                              .partition = partition,
                              .key = key,
                              .key_bytes = (size_t)key_size,
                              .payload = payload,
                              .payload_bytes = (size_t)size,
                              .opaque = (void *)(uintptr_t)number};
    return ferry_send(f->client, &m);
}

static void send_all(struct fixture *f, int count)
{
    for (int i = 0; i < count; i++) {
        enum ferry_err err = try_send(f, i, FERRY_PARTITION_ANY);
        while (err == FERRY_ERR_QUEUE_FULL) {
            (void)ferry_poll(f->client, 100);
            err = try_send(f, i, FERRY_PARTITION_ANY);
        }
        assert_int_equal(err, FERRY_OK);
    }
}

static void assert_told_once(const struct told *t, int count)
{
    assert_int_equal(t->count, count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(t->reports[i], 1);
    }
}

struct log_check {
    const struct told *told;
    int32_t partition;
    int last_of_key[7];
    int found;
};

static void check_record(const struct batch_record *record, int64_t offset, void *arg)
{
    struct log_check *c = arg;
    char text[16] = "";
    assert_true(record->payload.size < sizeof(text));
    memcpy(text, record->payload.data, record->payload.size);
    int number = atoi(text);
    c->found++;
    if (c->told->outcome[number] == FERRY_STORED) {
        assert_int_equal(c->told->offset[number], offset);
        assert_int_equal(c->told->partition[number], c->partition);
    }
    assert_int_not_equal(c->told->outcome[number] == FERRY_NOT_STORED, 1);
    assert_true(number > c->last_of_key[number % 7]);
    c->last_of_key[number % 7] = number;
}

/* Stored ones are where the report says, in order by key, once; NOT_STORED ones are nowhere. */
static int check_log(struct fixture *f)
{
    struct log_check c = {.told = f->told};
    for (int i = 0; i < 7; i++) {
        c.last_of_key[i] = -1;
    }
    for (c.partition = 0; c.partition < 4; c.partition++) {
        fake_each_record(f->broker, c.partition, check_record, &c);
    }
    assert_int_equal(fake_retries_that_differ(f->broker), 0);
    return c.found;
}

static void finish(struct fixture *f, int count)
{
    assert_int_equal(ferry_flush(f->client, 30000), FERRY_OK);
    assert_int_equal(ferry_queued(f->client), 0);
    assert_told_once(f->told, count);
}

static void every_message_is_stored_once_and_in_order_of_its_key(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    send_all(f, 100000);
    finish(f, 100000);
    assert_int_equal(f->told->stored, 100000);
    assert_int_equal(check_log(f), 100000);
}

static void lost_answers_are_asked_for_again_and_store_nothing_twice(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_PRODUCE, 1, 3, FAKE_DROP_REPLY, 0);
    fake_rule(f->broker, COMMAND_PRODUCE, 2, 2, FAKE_DROP_REPLY, 0);
    open_client(f);
    send_all(f, 5000);
    finish(f, 5000);
    assert_int_equal(f->told->stored, 5000);
    assert_int_equal(check_log(f), 5000);
}

/* As when a TCP connection breaks and is mended, and another partition is led by the same broker:
 * it is answered all the time, so there is no silence from which the loss could be told. */
static void a_lost_request_is_noticed_though_others_are_answered(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "request.timeout_ms", "60s");
    open_client(f);
    assert_int_equal(try_send(f, 0, 1), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 1, FAKE_DROP_REQUEST, 0);
    assert_int_equal(try_send(f, 1, 0), FERRY_OK);
    int sent = 2;
    while (f->told->reports[1] == 0) {
        assert_true(sent < 1000); /* Ten seconds. */
        (void)poll(NULL, 0, 10);
        (void)ferry_poll(f->client, 0);
        assert_int_equal(try_send(f, sent++, 1), FERRY_OK);
    }
    finish(f, sent);
}

/* The batches behind a lost one are refused as a gap and must follow it again in order. */
static void lost_requests_are_sent_again_in_order(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_PRODUCE, 2, 2, FAKE_DROP_REQUEST, 0);
    fake_rule(f->broker, COMMAND_PRODUCE, 3, 1, FAKE_DROP_REQUEST, 0);
    fake_set(f->conf, "producer.batch_bytes", "1K");
    open_client(f);
    send_all(f, 5000);
    finish(f, 5000);
    assert_int_equal(f->told->stored, 5000);
    assert_int_equal(check_log(f), 5000);
}

static void answers_that_are_late_double_or_out_of_order_are_told_once(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) {
        fake_rule(f->broker, COMMAND_PRODUCE, 2, 1, FAKE_DUPLICATE, 0);
        fake_rule(f->broker, COMMAND_PRODUCE, 1, 1, FAKE_HOLD, 0);
        fake_rule(f->broker, COMMAND_PRODUCE, 1, 1, FAKE_DELAY, 400);
    }
    fake_set(f->conf, "producer.batch_bytes", "1K");
    open_client(f);
    send_all(f, 5000);
    finish(f, 5000);
    assert_int_equal(f->told->stored, 5000);
    assert_int_equal(check_log(f), 5000);
}

static void a_broker_that_asks_for_patience_gets_it(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 4, FAKE_REFUSE, FERRY_ERR_THROTTLED);
    fake_rule(f->broker, COMMAND_PRODUCE, 3, 2, FAKE_REFUSE, FERRY_ERR_STORAGE_FULL);
    fake_rule(f->broker, COMMAND_PRODUCE, 1, 2, FAKE_REFUSE, FERRY_ERR_NOT_LEADER);
    fake_rule(f->broker, COMMAND_PRODUCE, 1, 1, FAKE_REFUSE, FERRY_ERR_BAD_CHECKSUM);
    open_client(f);
    send_all(f, 2000);
    finish(f, 2000);
    assert_int_equal(f->told->stored, 2000);
    assert_int_equal(check_log(f), 2000);
}

static void garbage_instead_of_answers_neither_crashes_nor_loses(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 2, FAKE_GARBLE, 0);
    fake_rule(f->broker, COMMAND_PRODUCE, 1, 1, FAKE_GARBAGE, 100);
    fake_rule(f->broker, COMMAND_METADATA, 0, 3, FAKE_GARBLE, 0);
    fake_rule(f->broker, COMMAND_PRODUCER_INIT, 0, 3, FAKE_GARBLE, 0);
    fake_rule(f->broker, COMMAND_HELLO, 0, 1, FAKE_GARBLE, 0);
    open_client(f);
    send_all(f, 2000);
    finish(f, 2000);
    assert_int_equal(f->told->stored, 2000);
    assert_int_equal(check_log(f), 2000);
}

static void a_refusal_for_good_is_not_stored_and_the_rest_goes_on(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_PRODUCE, 1, 1, FAKE_REFUSE, FERRY_ERR_DENIED);
    fake_rule(f->broker, COMMAND_PRODUCE, 2, 1, FAKE_REFUSE, FERRY_ERR_BAD_BATCH);
    fake_set(f->conf, "producer.batch_bytes", "1K");
    open_client(f);
    send_all(f, 3000);
    finish(f, 3000);
    assert_true(f->told->not_stored > 0);
    assert_int_equal(f->told->unknown, 0);
    assert_int_equal(check_log(f), f->told->stored);
}

static void an_unknown_topic_is_told_in_the_report(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    struct ferry_message m = {.topic = "missing",
                              .partition = FERRY_PARTITION_ANY,
                              .payload = "x",
                              .payload_bytes = 1,
                              .opaque = (void *)1};
    assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->reports[1], 1);
    assert_int_equal(f->told->outcome[1], FERRY_NOT_STORED);
    assert_int_equal(f->told->err[1], FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(try_send(f, 2, 9), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->err[2], FERRY_ERR_UNKNOWN_PARTITION);
}

static void a_deleted_topic_ends_what_is_waiting(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    send_all(f, 10);
    finish(f, 10);
    fake_drop_topic(f->broker);
    assert_int_equal(try_send(f, 10, 0), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->outcome[10], FERRY_NOT_STORED);
}

static void what_was_sent_and_never_answered_is_unknown(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "delivery.timeout_ms", "700ms");
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 1000, FAKE_DROP_REPLY, 0);
    open_client(f);
    assert_int_equal(try_send(f, 0, 0), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->outcome[0], FERRY_UNKNOWN);
    assert_int_equal(f->told->err[0], FERRY_ERR_TIMEOUT);
}

static void what_never_left_is_not_stored(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "delivery.timeout_ms", "500ms");
    fake_broker_kill(f->broker);
    open_client(f);
    assert_int_equal(try_send(f, 0, 0), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->outcome[0], FERRY_NOT_STORED);
    assert_int_equal(f->told->err[0], FERRY_ERR_UNREACHABLE);
}

/* The story in producer.h: a batch of unknown fate is followed by others under the next epoch of
 * the same id, not under another id: only so is it refused when it comes late. */
static void after_an_unknown_outcome_the_stream_goes_on_under_the_next_epoch(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "delivery.timeout_ms", "700ms");
    open_client(f);
    assert_int_equal(try_send(f, 0, 0), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    int identities = fake_requests(f->broker, COMMAND_PRODUCER_INIT);
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 1000, FAKE_DROP_REQUEST, 0);
    assert_int_equal(try_send(f, 1, 0), FERRY_OK);
    while (f->told->count < 2) {
        (void)ferry_poll(f->client, 1000);
    }
    assert_int_equal(f->told->outcome[1], FERRY_UNKNOWN);
    fake_rules_clear(f->broker);
    assert_int_equal(try_send(f, 2, 0), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->outcome[2], FERRY_STORED);
    assert_int_equal(fake_requests(f->broker, COMMAND_PRODUCER_INIT), identities);
}

static void a_broker_that_forgot_the_producer_costs_no_message(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    send_all(f, 100);
    finish(f, 100);
    fake_forget_producers(f->broker);
    for (int i = 100; i < 200; i++) {
        assert_int_equal(try_send(f, i, FERRY_PARTITION_ANY), FERRY_OK);
    }
    finish(f, 200);
    assert_int_equal(f->told->stored, 200);
    assert_int_equal(check_log(f), 200);
}

static void a_second_producer_of_the_same_name_fences_the_first(void **state)
{
    struct fixture *f = *state;
    struct ferry_client *second;
    struct ferry_conf *conf = fake_conf(f->broker);
    fake_set(f->conf, "producer.name", "one");
    fake_set(conf, "producer.name", "one");
    open_client(f);
    assert_int_equal(try_send(f, 0, 0), FERRY_OK);
    finish(f, 1);
    assert_int_equal(ferry_open(&second, &conf, NULL, 0), FERRY_OK);
    struct ferry_message m = {.topic = FAKE_TOPIC, .payload = "99", .payload_bytes = 2};
    struct ferry_report report;
    assert_int_equal(ferry_send_sync(second, &m, &report), FERRY_OK);
    assert_int_equal(report.outcome, FERRY_STORED);
    ferry_close(&second, 1000);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(try_send(f, i, 0), FERRY_OK);
        finish(f, i + 1);
        assert_int_equal(f->told->outcome[i], FERRY_NOT_STORED);
        assert_int_equal(f->told->err[i], FERRY_ERR_PRODUCER_FENCED);
    }
}

static void a_broker_that_dies_and_comes_back_has_every_message_once(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(try_send(f, i, FERRY_PARTITION_ANY), FERRY_OK);
        if (i % 1000 == 500) {
            (void)ferry_poll(f->client, 20);
            fake_broker_kill(f->broker);
        }
        if (i % 1000 == 700) {
            fake_broker_revive(f->broker);
        }
    }
    finish(f, 3000);
    assert_int_equal(f->told->stored, 3000);
    assert_int_equal(check_log(f), 3000);
}

static void a_full_queue_is_an_answer_and_drains(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "queue.bytes", "64K");
    fake_set(f->conf, "message.max_bytes", "32K");
    fake_broker_kill(f->broker);
    open_client(f);
    int accepted = 0;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK) {
        err = try_send(f, accepted, FERRY_PARTITION_ANY);
        accepted += err == FERRY_OK;
    }
    assert_int_equal(err, FERRY_ERR_QUEUE_FULL);
    fake_broker_revive(f->broker);
    finish(f, accepted);
    assert_int_equal(f->told->stored, accepted);
    assert_int_equal(try_send(f, accepted, FERRY_PARTITION_ANY), FERRY_OK);
}

static void close_tells_every_message_its_outcome(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 1000, FAKE_DROP_REPLY, 0);
    fake_set(f->conf, "producer.linger_ms", "10s");
    open_client(f);
    send_all(f, 1000);
    ferry_close(&f->client, 200);
    assert_told_once(f->told, 1000);
    assert_int_equal(f->told->stored, 0);
    assert_true(f->told->unknown > 0);
    (void)check_log(f);
}

static void flush_ends_the_lingering(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "producer.linger_ms", "60s");
    open_client(f);
    send_all(f, 10);
    int64_t begun_us = clock_monotonic_us();
    finish(f, 10);
    assert_true(clock_monotonic_us() - begun_us < 20000000);
}

static void lingering_messages_travel_together(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "producer.linger_ms", "100ms");
    open_client(f);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(try_send(f, i, 0), FERRY_OK);
    }
    while (f->told->count < 50) {
        assert_true(ferry_poll(f->client, 5000) > 0);
    }
    assert_int_equal(fake_requests(f->broker, COMMAND_PRODUCE), 1);
}

static void a_synchronous_send_returns_its_own_outcome_only(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    struct ferry_message m = {.topic = FAKE_TOPIC,
                              .partition = 2,
                              .payload = "1",
                              .payload_bytes = 1,
                              .opaque = (void *)77};
    struct ferry_report report;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
        assert_int_equal(report.outcome, FERRY_STORED);
        assert_int_equal(report.partition, 2);
        assert_int_equal(report.offset, i);
        assert_ptr_equal(report.topic, m.topic);
        assert_ptr_equal(report.opaque, m.opaque);
    }
    assert_int_equal(f->told->count, 0);
    assert_int_equal(ferry_poll(f->client, 0), 0);
    m.topic = "missing";
    assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
    assert_int_equal(report.err, FERRY_ERR_UNKNOWN_TOPIC);
}

static void what_cannot_be_sent_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    static char large[(1 << 20) + 1];
    struct ferry_message m = {.topic = "bad/name", .partition = FERRY_PARTITION_ANY};
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_BAD_NAME);
    m.topic = FAKE_TOPIC;
    m.payload = large;
    m.payload_bytes = sizeof(large);
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_TOO_LARGE);
    m.payload = NULL;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    m.payload_bytes = 0;
    m.partition = -2;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    m.topic = NULL;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_queued(f->client), 0);
    m = (struct ferry_message){.topic = FAKE_TOPIC,
                               .partition = 0,
                               .payload = large,
                               .payload_bytes = 1 << 20,
                               .opaque = (void *)5};
    assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(f->told->outcome[5], FERRY_STORED);
}

static void sends_from_a_report_are_accepted(const struct ferry_report *report, void *arg)
{
    struct fixture *f = arg;
    on_report(report, f->told);
    int number = (int)(uintptr_t)report->opaque;
    if (number < 10) {
        assert_int_equal(try_send(f, number + 10, 0), FERRY_OK);
    }
}

static void a_report_may_send_again(void **state)
{
    struct fixture *f = *state;
    ferry_conf_on_report(f->conf, sends_from_a_report_are_accepted, f);
    open_client(f);
    send_all(f, 10);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_told_once(f->told, 20);
}

struct sender {
    struct fixture *f;
    int first, count;
};

static void *send_range(void *arg)
{
    struct sender *s = arg;
    for (int i = s->first; i < s->first + s->count; i++) {
        while (try_send(s->f, i, i % 4) == FERRY_ERR_QUEUE_FULL) {
            struct ferry_message m = {
                .topic = FAKE_TOPIC, .partition = 0, .payload = "0", .payload_bytes = 1};
            struct ferry_report report;
            (void)ferry_send_sync(s->f->client, &m, &report);
        }
    }
    return NULL;
}

static void four_threads_send_and_a_fifth_polls(void **state)
{
    struct fixture *f = *state;
    struct sender senders[4];
    pthread_t threads[4];
    open_client(f);
    for (int i = 0; i < 4; i++) {
        senders[i] = (struct sender){f, i * 20000, 20000};
        assert_int_equal(pthread_create(&threads[i], NULL, send_range, &senders[i]), 0);
    }
    while (f->told->count < 80000) {
        (void)ferry_poll(f->client, 1000);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_told_once(f->told, 80000);
    assert_int_equal(f->told->stored, 80000);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_message_is_stored_once_and_in_order_of_its_key),
        T(lost_answers_are_asked_for_again_and_store_nothing_twice),
        T(lost_requests_are_sent_again_in_order),
        T(a_lost_request_is_noticed_though_others_are_answered),
        T(answers_that_are_late_double_or_out_of_order_are_told_once),
        T(a_broker_that_asks_for_patience_gets_it),
        T(garbage_instead_of_answers_neither_crashes_nor_loses),
        T(a_refusal_for_good_is_not_stored_and_the_rest_goes_on),
        T(an_unknown_topic_is_told_in_the_report),
        T(a_deleted_topic_ends_what_is_waiting),
        T(what_was_sent_and_never_answered_is_unknown),
        T(what_never_left_is_not_stored),
        T(after_an_unknown_outcome_the_stream_goes_on_under_the_next_epoch),
        T(a_broker_that_forgot_the_producer_costs_no_message),
        T(a_second_producer_of_the_same_name_fences_the_first),
        T(a_broker_that_dies_and_comes_back_has_every_message_once),
        T(a_full_queue_is_an_answer_and_drains),
        T(close_tells_every_message_its_outcome),
        T(flush_ends_the_lingering),
        T(lingering_messages_travel_together),
        T(a_synchronous_send_returns_its_own_outcome_only),
        T(what_cannot_be_sent_is_refused_at_once),
        T(a_report_may_send_again),
        T(four_threads_send_and_a_fifth_polls),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
