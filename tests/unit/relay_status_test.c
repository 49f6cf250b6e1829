/* What the relay says of itself: the line, the JSON object, the metrics, whether it is ready. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "outbox/relay/relay_metrics.h"
#include "outbox/relay/relay_report.h"
#include "outbox/relay/status_pages.h"

static struct serve_view view_of(enum served_phase phase, enum relay_state state)
{
    struct serve_view view = {.shown = "postgresql://u@h/d", .lane = 2};
    view.status.phase = phase;
    view.status.lanes = 4;
    view.status.relay_known = phase != SERVED_CONNECTING;
    view.status.relay.state = state;
    return view;
}

static bool has(const struct buf *out, const char *text)
{
    return memmem(out->data, out->size, text, strlen(text)) != NULL;
}

static void the_report_is_one_json_object_with_null_for_the_unknown(void **state)
{
    (void)state;
    struct serve_view view = view_of(SERVED_RELAYING, RELAY_OUTAGE);
    struct relay_rate rate = {0};
    struct buf out;
    (void)snprintf(view.status.error.text, sizeof(view.status.error.text), "a \"quoted\"\nline");
    buf_init(&out, RELAY_REPORT_MAX_BYTES);
    relay_report_json(&out, &view, &rate);
    assert_true(buf_ok(&out));
    assert_true(has(&out, "{\"database\":\"postgresql://u@h/d\",\"lane\":2,\"lanes\":4,"));
    assert_true(has(&out, "\"state\":\"outage\""));
    assert_true(has(&out, "\"backlog\":null"));
    assert_true(has(&out, "\"oldest_ms\":null"));
    assert_true(has(&out, "\"error\":\"a \\\"quoted\\\"\\u000aline\"}\n"));
    buf_fini(&out);
}

/* A line names the lane where there are several, and the file of a path. */
static void the_line_is_short(void **state)
{
    (void)state;
    struct serve_view view = view_of(SERVED_CONNECTING, RELAY_ELECTING);
    struct relay_rate rate = {0};
    struct buf out;
    (void)snprintf(view.status.error.text, sizeof(view.status.error.text), "nobody answers");
    buf_init(&out, RELAY_REPORT_MAX_BYTES);
    relay_report_line(&out, &view, &rate);
    assert_true(has(&out, "postgresql://u@h/d#2: connecting | nobody answers"));
    buf_clear(&out);
    view = view_of(SERVED_RELAYING, RELAY_ACTIVE);
    view.shown = "sqlite:/var/lib/shop.db";
    view.status.lanes = 1;
    view.status.relay.stats.published_rows = 12;
    relay_report_line(&out, &view, &rate);
    assert_memory_equal(out.data, "shop.db: active | 12 published", 30);
    buf_fini(&out);
}

/* Unknown figures are NaN, known ones are numbers, labels are escaped, and the states exclude each
 * other. */
static void metrics_know_what_is_not_known(void **state)
{
    (void)state;
    struct serve_view views[2] = {view_of(SERVED_RELAYING, RELAY_ACTIVE),
                                  view_of(SERVED_CONNECTING, RELAY_ELECTING)};
    struct relay_status *relay = &views[0].status.relay;
    struct buf out;
    views[1].shown = "sqlite:/a\\b\"c\nd";
    relay->figures_known = relay->backlog_known = relay->figures.leaves_known = true;
    relay->backlog_rows = 17;
    relay->figures.leaf_rows[3] = 1234567;
    relay->stats.rows_read = 1ull << 60;
    relay->stats.read_times.counts[0] = 2;
    relay->stats.read_times.counts[RELAY_BUCKETS - 1] = 1;
    relay->stats.read_times.count = 3;
    relay->stats.read_times.sum_us = 1500000;
    buf_init(&out, STATUS_PAGE_MAX_BYTES);
    relay_metrics_write(&out, views, 2);
    assert_true(buf_ok(&out));
    assert_true(has(&out, "pending_rows{source=\"postgresql://u@h/d\",lane=\"2\"} 17\n"));
    assert_true(has(&out, "pending_rows{source=\"sqlite:/a\\\\b\\\"c\\nd\",lane=\"2\"} NaN\n"));
    assert_true(has(&out, "in_flight_xips{source=\"postgresql://u@h/d\",lane=\"2\"} NaN\n"));
    assert_true(has(&out, "lane=\"2\",leaf=\"3\"} 1234567\n"));
    assert_true(has(&out, "rows_read_total{source=\"postgresql://u@h/d\",lane=\"2\"} "
                          "1152921504606846976\n"));
    assert_true(has(&out, "d\",lane=\"2\",state=\"active\"} 1\n"));
    assert_true(has(&out, "d\",lane=\"2\",state=\"electing\"} 0\n"));
    assert_true(has(&out, "read_seconds_bucket{source=\"postgresql://u@h/d\",lane=\"2\","
                          "le=\"+Inf\"} 3\n"));
    assert_true(has(&out, "read_seconds_sum{source=\"postgresql://u@h/d\",lane=\"2\"} 1.5\n"));
    buf_fini(&out);
}

/* Each line is a comment of a family that was not there before, or a sample of the family in hand;
 * no sample comes twice. */
static void assert_exposition(const struct buf *out)
{
    char *text = strndup((const char *)out->data, out->size);
    char family[200] = "";
    char heads[32768] = "\n";
    assert_non_null(text);
    assert_true(out->size > 0 && text[out->size - 1] == '\n');
    for (char *rest = text, *line = NULL; (line = strsep(&rest, "\n")) != NULL && rest != NULL;) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            char mark[220];
            (void)snprintf(family, sizeof(family), "%.*s", (int)strcspn(line + 7, " "), line + 7);
            (void)snprintf(mark, sizeof(mark), "\n%s\n", family);
            assert_null(strstr(heads, mark));
            assert_true(strlen(heads) + strlen(mark) < sizeof(heads));
            (void)snprintf(heads + strlen(heads), sizeof(heads) - strlen(heads), "%s", mark + 1);
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_int_equal(strncmp(line + 7, family, strlen(family)), 0);
        } else {
            assert_int_equal(strncmp(line, family, strlen(family)), 0);
            assert_non_null(strstr(line, "} "));
        }
    }
    free(text);
}

/* Figures of a topic have its label and add up; beyond the limit they are of the others, and a name
 * that no topic can have is, too. */
static void topics_have_their_own_figures_up_to_a_limit(void **state)
{
    (void)state;
    struct serve_view view = view_of(SERVED_RELAYING, RELAY_ACTIVE);
    atomic_size_t room = 3;
    struct buf out;
    buf_init(&out, STATUS_PAGE_MAX_BYTES);
    assert_int_equal(relay_tally_new(&view.tally, &room), FERRY_OK);
    size_t orders = relay_tally_topic(view.tally, "orders");
    size_t bills = relay_tally_topic(view.tally, "bills");
    assert_true(orders != bills && relay_tally_topic(view.tally, "orders") == orders);
    relay_tally_batch(view.tally, orders, 5, 5, 1500, 3000);
    relay_tally_batch(view.tally, orders, 5000, 0, 20000000, -1);
    relay_tally_row(view.tally, bills, RELAY_TALLY_REFUSED);
    relay_tally_row(view.tally, bills, RELAY_TALLY_DEAD);
    relay_tally_row(view.tally, relay_tally_topic(view.tally, "a\"b"), RELAY_TALLY_PARKED);
    assert_true(relay_tally_topic(view.tally, "third") != 0);
    relay_tally_batch(view.tally, relay_tally_topic(view.tally, "fourth"), 7, 0, 1, 1);
    relay_metrics_write(&out, &view, 1);
    assert_true(buf_ok(&out));
    assert_exposition(&out);
    assert_true(has(&out, "rows_published_total{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"orders\"} 5005\n"));
    assert_true(has(&out, "rows_delayed_total{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"orders\"} 5\n"));
    assert_true(has(&out, "batches_published_total{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"orders\"} 2\n"));
    assert_true(has(&out, "rows_refused_total{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"bills\"} 1\n"));
    assert_true(has(&out, "rows_parked_total{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"other\"} 1\n"));
    assert_true(has(&out, "rows_published_total{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"other\"} 7\n"));
    assert_true(has(&out, "topic=\"orders\",le=\"4\"} 0\n"));
    assert_true(has(&out, "topic=\"orders\",le=\"16\"} 1\n"));
    assert_true(has(&out, "topic=\"orders\",le=\"4096\"} 1\n"));
    assert_true(has(&out, "batch_rows_sum{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"orders\"} 5005\n"));
    assert_true(has(&out, "append_seconds_count{source=\"postgresql://u@h/d\",lane=\"2\","
                          "topic=\"orders\"} 2\n"));
    assert_true(has(&out, "commit_to_append_seconds_count{source=\"postgresql://u@h/d\","
                          "lane=\"2\",topic=\"orders\"} 1\n"));
    assert_false(has(&out, "fourth"));
    relay_tally_free(&view.tally);
    buf_fini(&out);
}

/* What is active, stands by or was paused by a person is ready, if its database answers. */
static void ready_is_who_does_his_work(void **state)
{
    (void)state;
    const char *why = NULL;
    struct serve_view view = view_of(SERVED_RELAYING, RELAY_ACTIVE);
    assert_true(status_ready(&view, &why));
    view.status.relay.database_failed = true;
    assert_false(status_ready(&view, &why));
    assert_string_equal(why, "the database does not answer");
    view = view_of(SERVED_RELAYING, RELAY_STANDBY);
    assert_true(status_ready(&view, NULL));
    view = view_of(SERVED_RELAYING, RELAY_PAUSED);
    assert_true(status_ready(&view, NULL));
    const enum relay_state waiting[] = {RELAY_ELECTING, RELAY_BLOCKED, RELAY_OUTAGE};
    for (size_t i = 0; i < sizeof(waiting) / sizeof(waiting[0]); i++) {
        view = view_of(SERVED_RELAYING, waiting[i]);
        assert_false(status_ready(&view, &why));
        assert_string_equal(why, relay_state_name(waiting[i]));
    }
    view = view_of(SERVED_HALTED, RELAY_HALTED);
    assert_false(status_ready(&view, &why));
    assert_string_equal(why, "halted");
    view = view_of(SERVED_CONNECTING, RELAY_ACTIVE);
    assert_false(status_ready(&view, &why));
}

/* relay.lanes: all, or a list; nothing else. */
static void lanes_are_all_or_listed(void **state)
{
    (void)state;
    struct err_text e;
    assert_true(serve_lane_listed("all", 0));
    assert_true(serve_lane_listed("all", 63));
    assert_false(serve_lane_listed("all", 64));
    assert_true(serve_lane_listed("0, 2,3", 2));
    assert_false(serve_lane_listed("0, 2,3", 1));
    assert_int_equal(serve_lanes_check("all", &e), FERRY_OK);
    assert_int_equal(serve_lanes_check("0, 2,63", &e), FERRY_OK);
    const char *const wrong[] = {"", ",", "x", "1;2", "64", "-1", "1,two"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(serve_lanes_check(wrong[i], &e), FERRY_ERR_INVALID_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_report_is_one_json_object_with_null_for_the_unknown),
        cmocka_unit_test(the_line_is_short),
        cmocka_unit_test(metrics_know_what_is_not_known),
        cmocka_unit_test(topics_have_their_own_figures_up_to_a_limit),
        cmocka_unit_test(ready_is_who_does_his_work),
        cmocka_unit_test(lanes_are_all_or_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
