/* The metadata group's quotas, and what topics of acked retention are. */
#include <stdio.h>

#include "base/mem.h"
#include "lib/meta_fixture.h"

static void open_meta(struct meta_fixture *f)
{
    struct meta_node node = meta_node_with(1, "");
    meta_start(f);
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    meta_forget_changes(f);
}

static struct quota quota_of(const char *client, const char *topic, uint64_t bytes)
{
    return (struct quota){.client = bytes_of_string(client),
                          .topic = bytes_of_string(topic),
                          .bytes_per_second = bytes,
                          .messages_per_second = bytes / 10};
}

static enum ferry_err set(struct meta_fixture *f, const char *client, const char *topic,
                          uint64_t bytes)
{
    struct meta_ticket t;
    struct quota q = quota_of(client, topic, bytes);
    meta_ticket_init(&t);
    enum ferry_err err = meta_quota_set(f->m, &q, f->now_ms, f->now_us, &t, &f->detail);
    if (err == FERRY_OK) {
        meta_turn(f);
        assert_ptr_equal(meta_next_done(f->m), &t);
        err = t.base.err;
    }
    meta_ticket_fini(&t);
    return err;
}

static void expect(struct meta_fixture *f, size_t i, const char *client, const char *topic,
                   uint64_t bytes)
{
    const struct meta_quota *q = meta_quota_at(f->m, i);
    assert_non_null(q);
    assert_string_equal(q->client, client);
    assert_string_equal(q->topic, topic);
    assert_int_equal(q->bytes_per_second, bytes);
    assert_int_equal(q->messages_per_second, bytes / 10);
}

/* Sorted, replaced, removed, through every restart. */
static void quotas_are_kept_in_order_and_survive(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    assert_int_equal(set(f, "b", "", 100), FERRY_OK);
    assert_int_equal(set(f, "", "orders", 200), FERRY_OK);
    assert_int_equal(set(f, "b", "a", 300), FERRY_OK);
    assert_int_equal(set(f, "", "", 400), FERRY_OK);
    assert_int_equal(set(f, "ba", "", 500), FERRY_OK);
    for (int round = 0; round < 4; round++) {
        expect(f, 0, "", "", 400);
        expect(f, 1, "", "orders", 200);
        expect(f, 2, "b", "", 100);
        expect(f, 3, "b", "a", 300);
        expect(f, 4, "ba", "", 500);
        assert_null(meta_quota_at(f->m, 5));
        if (round % 2 == 1) {
            meta_flush(f);
        }
        meta_crash(f);
        open_meta(f);
    }
    assert_int_equal(set(f, "b", "", 101), FERRY_OK);
    assert_int_equal(set(f, "b", "a", 0), FERRY_OK);
    assert_int_equal(set(f, "none", "none", 0), FERRY_OK);
    meta_flush(f);
    meta_crash(f);
    open_meta(f);
    expect(f, 2, "b", "", 101);
    expect(f, 3, "ba", "", 500);
    assert_null(meta_quota_at(f->m, 4));
    struct bytes b = bytes_of_string("b"), none = bytes_of(NULL, 0);
    assert_int_equal(meta_quota_after(f->m, b, none), 3);
    assert_int_equal(meta_quota_after(f->m, b, b), 3);
    assert_int_equal(meta_quota_after(f->m, none, none), 1);
}

/* Each change is told, so that the shards can be. */
static void a_change_of_a_quota_is_told(void **state)
{
    struct meta_fixture *f = *state;
    open_meta(f);
    assert_int_equal(set(f, "b", "", 100), FERRY_OK);
    struct meta_change *c = meta_next_change(f->m);
    assert_true(c != NULL && c->kind == META_QUOTAS_CHANGED);
    mem_free(c);
    assert_null(meta_next_change(f->m));
}

static void bad_quotas_are_refused(void **state)
{
    struct meta_fixture *f = *state;
    char name[32], longest[NAME_MAX_BYTES + 1] = {0};
    open_meta(f);
    memset(longest, 'x', NAME_MAX_BYTES);
    assert_int_equal(set(f, "a\nb", "", 1), FERRY_ERR_BAD_NAME);
    assert_int_equal(set(f, "", "no topic", 1), FERRY_ERR_BAD_NAME);
    assert_int_equal(set(f, longest, longest, 1), FERRY_OK);
    for (unsigned i = 1; i < QUOTAS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "client %u", i);
        assert_int_equal(set(f, name, "", i * 10), FERRY_OK);
    }
    assert_int_equal(set(f, "one more", "", 1), FERRY_ERR_LIMIT_REACHED);
    assert_int_equal(set(f, "one more", "", 0), FERRY_OK);
    assert_int_equal(set(f, "client 7", "", 1), FERRY_OK);
    assert_int_equal(set(f, longest, longest, 0), FERRY_OK);
    assert_int_equal(set(f, "one more", "", 1), FERRY_OK);
    meta_flush(f);
    meta_crash(f);
    open_meta(f);
    assert_non_null(meta_quota_at(f->m, QUOTAS_MAX - 1));
    meta_check(f->m);
}

/* Two under way when there is room for one: the later one is refused as it is applied. */
static void the_last_place_is_given_once(void **state)
{
    struct meta_fixture *f = *state;
    char name[32];
    open_meta(f);
    for (unsigned i = 1; i < QUOTAS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "c%u", i);
        assert_int_equal(set(f, name, "", 10), FERRY_OK);
    }
    struct meta_ticket t[2];
    for (int i = 0; i < 2; i++) {
        struct quota q = quota_of(i == 0 ? "x" : "y", "", 10);
        meta_ticket_init(&t[i]);
        assert_int_equal(meta_quota_set(f->m, &q, f->now_ms, f->now_us, &t[i], &f->detail),
                         FERRY_OK);
    }
    meta_turn(f);
    meta_expect_done(f, &t[0], FERRY_OK);
    meta_expect_done(f, &t[1], FERRY_ERR_LIMIT_REACHED);
    meta_ticket_fini(&t[0]);
    meta_ticket_fini(&t[1]);
}

/* ---- Topics ---- */

static void acked_retention_is_a_setting_that_survives(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t;
    open_meta(f);
    struct topic_create_request spec = meta_spec("t", 2, 1);
    spec.retention_acked = true;
    meta_ticket_init(&t);
    assert_int_equal(meta_try_topic(f, &spec, 7, &t), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &t, FERRY_OK);
    meta_ticket_fini(&t);
    for (int round = 0; round < 4; round++) {
        const struct meta_topic *topic = meta_topic_find(f->m, spec.name);
        assert_true(topic != NULL && topic->settings.retention_acked);
        meta_ticket_init(&t);
        assert_int_equal(meta_try_topic(f, &spec, 8, &t), FERRY_OK);
        assert_false(t.waits);
        spec.retention_acked = false;
        assert_int_equal(meta_try_topic(f, &spec, 8, &t), FERRY_ERR_TOPIC_EXISTS);
        spec.retention_acked = true;
        meta_ticket_fini(&t);
        if (round % 2 == 1) {
            meta_flush(f);
        }
        meta_crash(f);
        open_meta(f);
    }
    (void)meta_make_topic(f, "plain", 2, 1, 9);
    assert_false(meta_topic_find(f->m, bytes_of_string("plain"))->settings.retention_acked);
}

static void a_name_of_dead_letters_makes_no_topic(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t;
    open_meta(f);
    meta_ticket_init(&t);
    struct topic_create_request spec = meta_spec("orders.dlq.s", 1, 1);
    assert_int_equal(meta_try_topic(f, &spec, 1, &t), FERRY_ERR_BAD_NAME);
    assert_non_null(strstr(f->detail.text, "dead letters"));
    meta_ticket_fini(&t);
    (void)meta_make_topic(f, "orders.dlq", 1, 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        meta_unit(quotas_are_kept_in_order_and_survive),
        meta_unit(a_change_of_a_quota_is_told),
        meta_unit(bad_quotas_are_refused),
        meta_unit(the_last_place_is_given_once),
        meta_unit(acked_retention_is_a_setting_that_survives),
        meta_unit(a_name_of_dead_letters_makes_no_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
