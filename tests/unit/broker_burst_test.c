/* Many requests in flight at once, and their answers in one burst: nobody is cut off for it. */
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

static void send_all(struct ferry_client *client)
{
    char payload[100] = {0};
    struct ferry_message m = {.topic = "burst",
                              .partition = FERRY_PARTITION_ANY,
                              .payload = payload,
                              .payload_bytes = sizeof(payload)};
    for (int i = 0; i < MESSAGES; i++) {
        enum ferry_err err;
        while ((err = ferry_send(client, &m)) == FERRY_ERR_QUEUE_FULL) {
            (void)ferry_poll(client, 100);
        }
        assert_int_equal(err, FERRY_OK);
    }
    assert_int_equal(ferry_flush(client, 60000), FERRY_OK);
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

static void answers_that_come_in_one_burst_cut_nobody_off(void **state)
{
    (void)state;
    char folder[] = "/tmp/ferry-burst-XXXXXX", data[64], remove[96];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(data, sizeof(data), "node.data=%s/data", folder);
    const char *options[] = {data, "listen.endpoint=tcp://127.0.0.1:*", "store.grow_bytes=16M"};
    char detail[512] = "";
    struct ferry_broker *broker = NULL;
    assert_int_equal(ferry_broker_start(&broker, options, 3, detail, sizeof(detail)), FERRY_OK);

    long stored = 0;
    struct ferry_client *client = connect_to(broker, &stored);
    struct ferry_topic_spec spec = {.name = "burst", .partitions = PARTITIONS};
    assert_int_equal(ferry_topic_create(client, &spec, 10000), FERRY_OK);
    send_all(client);
    assert_int_equal(stored, MESSAGES);
    assert_int_equal(status_number(client, "cut_not_reading"), 0);
    assert_int_equal(status_number(client, "accepted"), 1);
    assert_int_equal(status_number(client, "duplicates"), 0);

    ferry_close(&client, 5000);
    ferry_broker_stop(&broker);
    (void)snprintf(remove, sizeof(remove), "rm -rf %s", folder);
    assert_int_equal(system(remove), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_that_come_in_one_burst_cut_nobody_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
