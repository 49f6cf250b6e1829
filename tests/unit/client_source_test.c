/* Sources: appends in order, each told once, cursors compared and set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/fake_broker.h"

#define APPENDS_MAX 256

struct fixture {
    struct fake_broker *broker;
    struct ferry_conf *conf;
    struct ferry_client *client;
    struct ferry_source *source;
    int results;
    enum ferry_err err[APPENDS_MAX];
    uint64_t version[APPENDS_MAX];
};

struct slot {
    struct fixture *f;
    int index;
};

static struct slot slots[APPENDS_MAX];

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(2, NULL, NULL);
    f->conf = fake_conf(f->broker);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_source_close(&f->source);
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

static void open_source(struct fixture *f)
{
    struct ferry_id id = {.bytes = {1}};
    struct ferry_source_grant grant;
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_source_open(&f->source, f->client, &id, 0, "test"), FERRY_OK);
    assert_int_equal(ferry_source_elect(f->source, 10000, 5000, &grant), FERRY_OK);
    assert_false(grant.standby);
}

static void on_append(const struct ferry_append_result *result, void *arg)
{
    struct slot *s = arg;
    s->f->results++;
    s->f->err[s->index] = result->err;
    s->f->version[s->index] = result->version;
    assert_non_null(result->detail);
    if (result->err == FERRY_ERR_CURSOR_CONFLICT) {
        assert_non_null(result->cursor);
        assert_int_equal(result->cursor->version, result->version);
    }
}

static enum ferry_err append(struct fixture *f, int index, int32_t partition, uint64_t expect)
{
    char cursor[16];
    int size = snprintf(cursor, sizeof(cursor), "c%d", index);
    struct ferry_message messages[2] = {{.payload = "a", .payload_bytes = 1},
                                        {.payload = "b", .payload_bytes = 1, .id.bytes = {9}}};
    slots[index] = (struct slot){f, index};
    return ferry_source_append(f->source, FAKE_TOPIC, partition, expect, cursor, (size_t)size,
                               messages, 2, on_append, &slots[index]);
}

static void run_all(struct fixture *f, int count)
{
    assert_int_equal(ferry_flush(f->client, 20000), FERRY_OK);
    assert_int_equal(f->results, count);
}

static void a_chain_is_appended_in_order(void **state)
{
    struct fixture *f = *state;
    struct ferry_cursor cursor;
    open_source(f);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(append(f, i, i % 2, (uint64_t)i / 2), FERRY_OK);
    }
    run_all(f, 100);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(f->err[i], FERRY_OK);
        assert_int_equal(f->version[i], i / 2 + 1);
    }
    assert_int_equal(fake_end(f->broker, 0), 100);
    assert_int_equal(ferry_source_cursor(f->source, FAKE_TOPIC, 0, 5000, &cursor), FERRY_OK);
    assert_int_equal(cursor.version, 50);
    assert_memory_equal(cursor.blob, "c98", 3);
}

static void a_lost_request_is_repeated_before_those_behind_it(void **state)
{
    struct fixture *f = *state;
    open_source(f);
    fake_rule(f->broker, COMMAND_APPEND_CAS, 2, 1, FAKE_DROP_REQUEST, 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(append(f, i, 0, (uint64_t)i), FERRY_OK);
    }
    run_all(f, 20);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(f->err[i], FERRY_OK);
    }
    assert_int_equal(fake_end(f->broker, 0), 40);
}

/* The first try was stored though nobody heard: the second finds the cursor moved. */
static void a_lost_answer_ends_in_a_conflict_and_stores_nothing_twice(void **state)
{
    struct fixture *f = *state;
    open_source(f);
    fake_rule(f->broker, COMMAND_APPEND_CAS, 0, 1, FAKE_DROP_REPLY, 0);
    assert_int_equal(append(f, 0, 0, 0), FERRY_OK);
    run_all(f, 1);
    assert_int_equal(f->err[0], FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(f->version[0], 1);
    assert_int_equal(fake_end(f->broker, 0), 2);
}

static void when_one_fails_those_behind_it_conflict(void **state)
{
    struct fixture *f = *state;
    open_source(f);
    fake_rule(f->broker, COMMAND_APPEND_CAS, 1, 1, FAKE_REFUSE, FERRY_ERR_TOO_LARGE);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(append(f, i, 0, (uint64_t)i), FERRY_OK);
    }
    run_all(f, 4);
    assert_int_equal(f->err[0], FERRY_OK);
    assert_int_equal(f->err[1], FERRY_ERR_TOO_LARGE);
    assert_int_equal(f->err[2], FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(f->err[3], FERRY_ERR_CURSOR_CONFLICT);
}

static void an_unanswered_append_ends_unknown(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "delivery.timeout_ms", "600ms");
    open_source(f);
    fake_rule(f->broker, COMMAND_APPEND_CAS, 0, 100, FAKE_DROP_REPLY, 0);
    assert_int_equal(append(f, 0, 0, 0), FERRY_OK);
    run_all(f, 1);
    assert_int_equal(f->err[0], FERRY_ERR_TIMEOUT);
}

static void a_closed_source_tells_what_is_open(void **state)
{
    struct fixture *f = *state;
    open_source(f);
    fake_rule(f->broker, COMMAND_APPEND_CAS, 0, 100, FAKE_DROP_REPLY, 0);
    assert_int_equal(append(f, 0, 0, 0), FERRY_OK);
    assert_int_equal(append(f, 1, 0, 1), FERRY_OK);
    ferry_source_close(&f->source);
    run_all(f, 2);
    assert_int_equal(f->err[1], FERRY_ERR_CLOSED);
}

static void a_checkpoint_comes_back_with_the_next_grant(void **state)
{
    struct fixture *f = *state;
    struct ferry_source_grant grant;
    open_source(f);
    assert_int_equal(ferry_source_checkpoint(f->source, "here", 4, 5000), FERRY_OK);
    assert_int_equal(ferry_source_elect(f->source, 10000, 5000, &grant), FERRY_OK);
    assert_int_equal(grant.checkpoint_bytes, 4);
    assert_memory_equal(grant.checkpoint, "here", 4);
    assert_int_equal(ferry_source_resign(f->source, 5000), FERRY_OK);
}

static void what_cannot_be_appended_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    static uint8_t blob[FERRY_CURSOR_MAX_BYTES + 1];
    struct ferry_message m = {.payload = "a", .payload_bytes = 1};
    open_source(f);
    assert_int_equal(ferry_source_append(f->source, FAKE_TOPIC, 0, 0, blob, sizeof(blob), &m, 1,
                                         on_append, NULL),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_source_append(f->source, "a/b", 0, 0, blob, 1, &m, 1, on_append, NULL),
                     FERRY_ERR_BAD_NAME);
    assert_int_equal(
        ferry_source_append(f->source, FAKE_TOPIC, 0, 0, blob, 1, &m, 0, on_append, NULL),
        FERRY_ERR_INVALID_ARGUMENT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_chain_is_appended_in_order),
        T(a_lost_request_is_repeated_before_those_behind_it),
        T(a_lost_answer_ends_in_a_conflict_and_stores_nothing_twice),
        T(when_one_fails_those_behind_it_conflict),
        T(an_unanswered_append_ends_unknown),
        T(a_closed_source_tells_what_is_open),
        T(a_checkpoint_comes_back_with_the_next_grant),
        T(what_cannot_be_appended_is_refused_at_once),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
