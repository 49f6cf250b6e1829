/* The client's options: table and conf/client.conf say the same; opening refuses what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/conf.h"

static const char *conf_path(char *path, size_t bytes)
{
    const char *source = getenv("FERRY_SOURCE");
    (void)snprintf(path, bytes, "%s/conf/client.conf", source != NULL ? source : ".");
    return path;
}

static void every_default_is_within_its_own_bounds(void **state)
{
    (void)state;
    struct client_options options;
    option_defaults(&conf_table, &options);
    assert_int_equal(options.queue_bytes, 32 << 20);
    assert_int_equal(options.delivery_timeout_ms, 120000);
}

/* Reads the file as its head explains it: `servers` has no section. */
static void load_file(struct client_options *options)
{
    char path[1024];
    char line[1024];
    char section[64] = "";
    FILE *file = fopen(conf_path(path, sizeof(path)), "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        char key[64];
        char value[256] = "";
        char name[160];
        struct err_text e;
        if (sscanf(line, "[%63[a-z]]", section) == 1 || line[0] == '#' ||
            sscanf(line, "%63[a-z_] = %255[^\n]", key, value) < 1) {
            continue;
        }
        (void)snprintf(name, sizeof(name), "%s%s%s", section, section[0] != '\0' ? "." : "", key);
        if (option_set(&conf_table, options, name, value, &e) != FERRY_OK) {
            fail_msg("%s: %s", name, e.text);
        }
    }
    (void)fclose(file);
}

/* Read into other values, the file restores every default: so it names all and says them right. */
static void the_file_shows_every_option_with_its_default(void **state)
{
    (void)state;
    struct client_options defaults;
    option_defaults(&conf_table, &defaults);
    for (size_t i = 0; i < conf_table.count; i++) {
        const struct option_row *row = &conf_table.rows[i];
        struct client_options read;
        char expected[CONF_SERVERS_BYTES_MAX + 1];
        char text[CONF_SERVERS_BYTES_MAX + 1];
        option_defaults(&conf_table, &read);
        if (row->type == OPTION_TEXT) {
            strcpy((char *)&read + row->offset, "other");
        } else {
            int64_t other = row->max;
            memcpy((char *)&read + row->offset, &other, sizeof(other));
        }
        load_file(&read);
        option_format(row, &defaults, expected, sizeof(expected));
        option_format(row, &read, text, sizeof(text));
        if (strcmp(expected, text) != 0) {
            fail_msg("%s: the file says %s, the table %s", row->name, text, expected);
        }
    }
}

/* Every option line stands under a comment of its own. */
static void the_file_explains_every_option(void **state)
{
    (void)state;
    char path[1024];
    char line[1024];
    char before[1024] = "";
    FILE *file = fopen(conf_path(path, sizeof(path)), "r");
    assert_non_null(file);
    size_t options = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (line[0] != '#' && strchr(line, '=') != NULL) {
            options++;
            assert_int_equal(before[0], '#');
        }
        memcpy(before, line, sizeof(before));
    }
    (void)fclose(file);
    assert_int_equal(options, conf_table.count);
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
        cmocka_unit_test(the_file_shows_every_option_with_its_default),
        cmocka_unit_test(the_file_explains_every_option),
        cmocka_unit_test(a_wrong_option_is_refused_with_a_remedy),
        cmocka_unit_test(opening_refuses_what_does_not_go_together),
        cmocka_unit_test(a_client_opens_without_a_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
