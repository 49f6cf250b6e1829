/* Many requests in flight at once: their answers in one burst cut nobody off, and a restart in the
 * middle of them is only a delay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ferry_broker.h"

#define PARTITIONS 300
#define MESSAGES   200000
#define RESTARTS   5

static void count_stored(const struct ferry_report *report, void *arg)
{
    assert_int_equal(report->outcome, FERRY_STORED);
    (*(long *)arg)++;
}

static struct ferry_client *connect_to(const struct ferry_broker *broker, long *stored)
{
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "servers", ferry_broker_endpoint(broker), NULL, 0),
                     FERRY_OK);
    ferry_conf_on_report(conf, count_stored, stored);
    assert_int_equal(ferry_open(&client, &conf, NULL, 0), FERRY_OK);
    return client;
}

static void send_some(struct ferry_client *client, int count)
{
    char payload[100] = {0};
    struct ferry_message m = {.topic = "burst",
                              .partition = FERRY_PARTITION_ANY,
                              .payload = payload,
                              .payload_bytes = sizeof(payload)};
    for (int i = 0; i < count; i++) {
        enum ferry_err err;
        while ((err = ferry_send(client, &m)) == FERRY_ERR_QUEUE_FULL) {
            (void)ferry_poll(client, 100);
        }
        assert_int_equal(err, FERRY_OK);
    }
}

/* A number in the broker's own account of itself. */
static long status_number(struct ferry_client *client, const char *name)
{
    char *json = NULL, key[64];
    assert_int_equal(ferry_broker_status(client, 5000, &json), FERRY_OK);
    (void)snprintf(key, sizeof(key), "\"%s\":", name);
    const char *at = strstr(json, key);
    assert_non_null(at);
    long number = strtol(at + strlen(key), NULL, 10);
    ferry_text_free(&json);
    return number;
}

struct fixture {
    char folder[64];
    struct ferry_broker *broker;
    struct ferry_client *client;
    long stored;
};

static void start_broker(struct fixture *f, const char *endpoint)
{
    char data[96], listen[320], detail[512] = "";
    (void)snprintf(data, sizeof(data), "node.data=%s/data", f->folder);
    (void)snprintf(listen, sizeof(listen), "listen.endpoint=%s", endpoint);
    const char *options[] = {data, listen, "store.grow_bytes=16M"};
    if (ferry_broker_start(&f->broker, options, 3, detail, sizeof(detail)) != FERRY_OK) {
        fail_msg("%s", detail);
    }
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/ferry-burst-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    start_broker(f, "tcp://127.0.0.1:*");
    f->client = connect_to(f->broker, &f->stored);
    struct ferry_topic_spec spec = {.name = "burst", .partitions = PARTITIONS};
    assert_int_equal(ferry_topic_create(f->client, &spec, 10000), FERRY_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char remove[96];
    ferry_close(&f->client, 5000);
    ferry_broker_stop(&f->broker);
    (void)snprintf(remove, sizeof(remove), "rm -rf %s", f->folder);
    assert_int_equal(system(remove), 0);
    free(f);
    return 0;
}

static void answers_that_come_in_one_burst_cut_nobody_off(void **state)
{
    struct fixture *f = *state;
    send_some(f->client, MESSAGES);
    assert_int_equal(ferry_flush(f->client, 60000), FERRY_OK);
    assert_int_equal(f->stored, MESSAGES);
    assert_int_equal(status_number(f->client, "cut_not_reading"), 0);
    assert_int_equal(status_number(f->client, "accepted"), 1);
    assert_int_equal(status_number(f->client, "duplicates"), 0);
}

/* Everything ends stored, once, through restarts with requests on their way. That a shard's first
 * turn refuses nothing for good is broker_start_test's: here the moment is rarely met. */
static void a_producer_goes_on_through_restarts(void **state)
{
    struct fixture *f = *state;
    char endpoint[300];
    (void)snprintf(endpoint, sizeof(endpoint), "%s", ferry_broker_endpoint(f->broker));
    for (int i = 0; i < RESTARTS; i++) {
        send_some(f->client, MESSAGES / RESTARTS);
        ferry_broker_stop(&f->broker);
        start_broker(f, endpoint);
    }
    assert_int_equal(ferry_flush(f->client, 60000), FERRY_OK);
    assert_int_equal(f->stored, MESSAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_that_come_in_one_burst_cut_nobody_off, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_producer_goes_on_through_restarts, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
