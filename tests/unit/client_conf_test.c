/* The client's options: bounds, refusals with a remedy, and what opening refuses.
 * That conf/client.conf shows them all is conf_test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/conf.h"

static void every_default_is_within_its_own_bounds(void **state)
{
    (void)state;
    struct client_options options;
    option_defaults(&conf_table, &options);
    assert_int_equal(options.queue_bytes, 32 << 20);
    assert_int_equal(options.delivery_timeout_ms, 120000);
}

static void a_wrong_option_is_refused_with_a_remedy(void **state)
{
    (void)state;
    struct ferry_conf *conf;
    char detail[512] = "";
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "queue.byte", "1M", detail, sizeof(detail)),
                     FERRY_ERR_UNKNOWN_OPTION);
    assert_non_null(strstr(detail, "queue.bytes"));
    assert_int_equal(ferry_conf_set(conf, "queue.bytes", "lots", NULL, 0),
                     FERRY_ERR_BAD_OPTION_VALUE);
    ferry_conf_free(&conf);
    ferry_conf_free(&conf);
}

static void assert_not_opened(const char *name, const char *value)
{
    struct ferry_conf *conf;
    struct ferry_client *client;
    char detail[512] = "";
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, name, value, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_open(&client, &conf, detail, sizeof(detail)),
                     FERRY_ERR_BAD_OPTION_VALUE);
    assert_true(detail[0] != '\0');
    assert_non_null(conf); /* Still the caller's. */
    ferry_conf_free(&conf);
}

static void opening_refuses_what_does_not_go_together(void **state)
{
    (void)state;
    assert_not_opened("servers", "not an endpoint");
    assert_not_opened("servers", ", ,");
    assert_not_opened("queue.bytes", "64K");
    assert_not_opened("retry.backoff_ms", "5s");
    assert_not_opened("producer.name", "a/b");
}

/* A client needs no broker to open and close, and gives new ids in order. */
static void a_client_opens_without_a_broker(void **state)
{
    (void)state;
    struct ferry_client *client;
    assert_int_equal(ferry_open(&client, NULL, NULL, 0), FERRY_OK);
    struct ferry_id a = ferry_id_new(client);
    struct ferry_id b = ferry_id_new(client);
    assert_true(memcmp(a.bytes, b.bytes, sizeof(a.bytes)) < 0);
    assert_true(ferry_fd(client) >= 0);
    assert_int_equal(ferry_poll(client, 0), 0);
    assert_int_equal(ferry_flush(client, 0), FERRY_OK);
    ferry_close(&client, 0);
    assert_null(client);
    ferry_close(&client, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_within_its_own_bounds),
        cmocka_unit_test(a_wrong_option_is_refused_with_a_remedy),
        cmocka_unit_test(opening_refuses_what_does_not_go_together),
        cmocka_unit_test(a_client_opens_without_a_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
