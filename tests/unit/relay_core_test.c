/* The relay between a SQLite outbox and a broker that fails: every row in the log once, in order.
 */
#include "relay_fixture.h"

#include "outbox/relay/relay_policy.h"

#include "base/mem.h"
#include "base/prng.h"
#include "outbox/sqlite/admin_sqlite.h"

static void a_backlog_is_published_once_and_in_order(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 4);
    rig_put(g, "orders", 1, 1000, 9);
    rig_drain(g);
    rig_expect(g, "orders", 1, 1000, 0);
}

static void rows_without_a_key_are_spread_over_the_partitions(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 4);
    rig_put(g, "orders", 1, 400, 0);
    rig_drain(g);
    rig_expect(g, "orders", 1, 400, 0);
    for (int p = 0; p < 4; p++) {
        assert_int_equal(t->partition[p].count, 100);
    }
}

static void json_and_map_headers_arrive(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    fixture_exec(g->f, "INSERT INTO ferry_outbox (topic, headers, payload) VALUES "
                       "('orders', '{\"a\":\"1\",\"b\":\"2\"}', 'row 1')");
    struct ferry_header headers[] = {{"x", "1", 1}, {"y", "", 0}, {"z", "3", 1}};
    struct ferry_message m = {.topic = "orders",
                              .payload = "row 2",
                              .payload_bytes = 5,
                              .headers = headers,
                              .header_count = 3};
    fixture_exec(g->f, "BEGIN");
    assert_int_equal(ferry_outbox_put(g->f->db, &m, NULL), FERRY_OK);
    fixture_exec(g->f, "COMMIT");
    rig_drain(g);
    rig_expect(g, "orders", 1, 2, 0);
    assert_int_equal(t->partition[0].records[0].headers, 2);
    assert_int_equal(t->partition[0].records[1].headers, 3);
}

static void published_rows_are_deleted_when_it_is_quiet(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 100, 3);
    rig_drain(g);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox"), 100);
    rig_run(g, g->options.delete_idle_ms + 100);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox"), 0);
}

/* What is in flight is not settled: it is neither deleted nor behind the checkpoint. */
static void nothing_is_deleted_before_it_is_acknowledged(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    g->options.delete_backlog_rows = 1;
    rig_put(g, "orders", 1, 50, 3);
    for (int i = 0; i < 1500; i++) {
        rig_step(g);
    }
    assert_true(g->link.pending_count > 0);
    assert_int_equal(rig_status(g).settled, 0);
    assert_int_equal(g->fake.checkpoint_bytes, RELAY_KEPT_HEAD); /* Who is in office, no place. */
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox"), 50);
}

/* kill -9 at every count of steps; what was in flight arrives or not. */
static void a_relay_killed_at_any_step_leaves_no_loss_and_no_double(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 3);
    rig_put(g, "orders", 1, 600, 7);
    int last = 600;
    for (int steps = 1; steps < 40; steps++) {
        for (int i = 0; i < steps; i++) {
            rig_step(g);
            if (i % 3 == 2) {
                fake_answer(&g->link);
            }
        }
        rig_kill_relay(g, steps % 2 == 0);
        g->fake.now_us = g->fake.lease_until_us + 1;
        rig_put(g, "orders", last + 1, last + 10, 7);
        last += 10;
        rig_start_relay(g, 10 + steps);
    }
    rig_drain(g);
    rig_expect(g, "orders", 1, last, 0);
}

/* The append was stored, its reply lost, the row not deleted: the next relay finds it covered. */
static void a_crash_after_append_and_before_delete_doubles_nothing(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 10, 3);
    rig_step(g);
    assert_int_equal(g->link.pending_count, 1);
    rig_kill_relay(g, true);
    g->fake.now_us = g->fake.lease_until_us + 1;
    rig_start_relay(g, 2);
    rig_drain(g);
    rig_expect(g, "orders", 1, 10, 0);
    assert_int_equal(rig_status(g).stats.covered_rows, 10);
}

static void lost_replies_double_nothing(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 500, 5);
    g->fake.lose_replies = 5;
    rig_drain(g);
    rig_expect(g, "orders", 1, 500, 0);
}

static void an_outage_ends_and_no_row_becomes_poison(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 300, 5);
    rig_step(g);
    g->fake.down = true;
    rig_run(g, 60000);
    assert_int_equal(rig_status(g).state, RELAY_OUTAGE);
    g->fake.down = false;
    rig_run(g, 20000);
    rig_drain(g);
    rig_expect(g, "orders", 1, 300, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 0);
}

static void the_pause_between_attempts_grows_in_an_outage(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 5, 1);
    g->fake.down = true;
    int64_t due_us = 0;
    int attempts = 0;
    int64_t until_us = g->fake.now_us + 60 * 1000 * 1000;
    while (g->fake.now_us < until_us) {
        int64_t before_us = g->fake.now_us;
        due_us = relay_step(g->relay, g->fake.now_us);
        attempts++;
        assert_true(due_us > before_us);
        g->fake.now_us = due_us;
    }
    assert_true(attempts < 200); /* One a second of them is the beat. */
}

static void a_poison_row_is_set_aside_and_the_rest_goes_on(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    g->fake.refused = "row 137";
    rig_put(g, "orders", 1, 300, 5);
    rig_drain(g);
    rig_expect(g, "orders", 1, 300, 137);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead WHERE payload = "
                                          "CAST('row 137' AS BLOB) AND reason LIKE 'BAD_BATCH: the "
                                          "record is bad%'"),
                     1);
    assert_int_equal(rig_status(g).stats.dead_rows, 1);
}

static void a_named_poison_row_is_found_at_once(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    g->fake.refused = "row 10";
    g->fake.name_refused = true;
    rig_put(g, "orders", 1, 16, 1);
    rig_drain(g);
    rig_expect(g, "orders", 1, 16, 10);
    assert_int_equal(g->fake.appends, 4); /* All, those before it, it alone, those after it. */
}

/* The row stays, nothing of the outbox goes on, and the lease is kept until somebody decides. */
static void with_poison_block_nothing_goes_on_until_the_row_is_skipped(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    fake_create(&g->fake, "audit", 1);
    g->options.poison = RELAY_POISON_BLOCK;
    g->fake.refused = "row 3";
    rig_put(g, "orders", 1, 10, 1);
    rig_run(g, 2000);
    rig_put(g, "audit", 21, 25, 1);
    rig_run(g, 5000);
    struct relay_status status = rig_status(g);
    assert_int_equal(status.state, RELAY_BLOCKED);
    assert_int_equal(status.undecided, 3);
    assert_non_null(strstr(status.error.text, "row 3 "));
    assert_non_null(strstr(status.error.text, "ferry outbox skip"));
    assert_int_equal(g->fake.topics[0].partition[0].count, 2);
    assert_int_equal(g->fake.topics[1].partition[0].count, 0);
    assert_int_equal(g->fake.holder, 1);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox WHERE id >= 3"), 13);
    fixture_exec(g->f, "INSERT INTO ferry_outbox_dead (id, topic, mkey, msg_id, headers, payload, "
                       "created_ms, reason, dead_ms) SELECT id, topic, mkey, msg_id, headers, "
                       "payload, created_ms, 'skipped', 0 FROM ferry_outbox WHERE id = 3; "
                       "DELETE FROM ferry_outbox WHERE id = 3");
    rig_run(g, g->options.topic_retry_ms + 10);
    rig_drain(g);
    assert_int_equal(rig_status(g).state, RELAY_ACTIVE);
    rig_expect(g, "orders", 1, 10, 3);
    rig_expect(g, "audit", 21, 25, 0);
}

static void a_parked_key_sets_its_later_rows_aside_until_it_is_free(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    snprintf(g->options.poison_topics, sizeof(g->options.poison_topics), "x=dead, orders=park_key");
    g->fake.refused = "row 4";
    rig_put(g, "orders", 1, 12, 3); /* Key k1 has 1, 4, 7, 10. */
    rig_drain(g);
    struct relay_status status = rig_status(g);
    assert_int_equal(status.parked_keys, 1);
    assert_int_equal(status.stats.parked_rows, 2);
    assert_int_equal(g->fake.topics[0].partition[0].count, 9);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead WHERE parked = 1 "
                                          "AND id IN (7, 10)"),
                     2);
    rig_kill_relay(g, false); /* The next one knows, too. */
    g->fake.holder = 0;
    rig_start_relay(g, 2);
    rig_put(g, "orders", 13, 15, 3);
    rig_drain(g);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead WHERE parked = "
                                          "1 AND id = 13"),
                     1);
    fixture_exec(g->f,
                 "BEGIN; INSERT INTO ferry_outbox (topic, mkey, msg_id, headers, payload) SELECT "
                 "topic, mkey, msg_id, headers, payload FROM ferry_outbox_dead WHERE parked = 1 "
                 "ORDER BY id; DELETE FROM ferry_outbox_dead WHERE parked = 1; UPDATE "
                 "ferry_parked_key SET until_no = 16; COMMIT");
    rig_put(g, "orders", 16, 18, 3);
    rig_run(g, 100);
    rig_drain(g);
    assert_int_equal(rig_status(g).parked_keys, 0);
    rig_expect(g, "orders", 1, 18, 4);
}

static void a_key_parked_by_a_person_is_noticed_within_a_second(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 2, 2);
    rig_drain(g);
    fixture_exec(g->f, "INSERT INTO ferry_parked_key (lane, topic, mkey) VALUES (0, 'orders', "
                       "CAST('k1' AS BLOB))");
    rig_run(g, 1001);
    rig_put(g, "orders", 3, 6, 2);
    rig_drain(g);
    assert_int_equal(rig_status(g).stats.parked_rows, 2);
    assert_int_equal(g->fake.topics[0].partition[0].count, 4);
}

static struct fake_append late; /* It lands right before its partition is fenced. */

static enum ferry_err late_lands(void *ctx, const char *topic, int32_t partition, uint64_t version,
                                 int timeout_ms)
{
    struct fake_link *link = ctx;
    struct ferry_append_result result;
    if (late.records != NULL) {
        late.epoch = link->fake->epoch; /* The partition does not know of a later one. */
        fake_store(link->fake, &late, &result);
        free(late.records);
        late.records = NULL;
    }
    return fake_fence(ctx, topic, partition, version, timeout_ms);
}

/* Sent by a relay that died, and still on its way when the next one finds its key parked. */
static void a_row_that_may_come_late_is_not_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 1, 1);
    rig_drain(g);
    rig_put(g, "orders", 2, 2, 1);
    rig_step(g);
    assert_int_equal(g->link.pending_count, 1);
    late = g->link.pending[--g->link.pending_count];
    struct ferry_append_result lost = {.err = FERRY_ERR_CLOSED, .refused_index = SIZE_MAX};
    late.callback(&lost, late.arg);
    rig_kill_relay(g, false);
    fixture_exec(g->f, "INSERT INTO ferry_parked_key (lane, topic, mkey) VALUES (0, 'orders', "
                       "CAST('k0' AS BLOB))");
    g->fake.holder = 0;
    rig_start_relay(g, 2);
    g->broker.fence = late_lands;
    rig_put(g, "orders", 3, 3, 1);
    rig_drain(g);
    assert_null(late.records);
    rig_expect(g, "orders", 1, 2, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 1);
    assert_int_equal(fixture_number(g->f, "SELECT id FROM ferry_outbox_dead"), 3);
}

/* Two batches have no answer. What is sent for the first holds the rows of both, so the second must
 * not find its version behind it. */
static void a_chained_batch_that_comes_late_is_not_taken(void **state)
{
    struct rig *g = *state;
    struct ferry_append_result result;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 1, 1);
    rig_drain(g);
    int64_t batch_bytes = g->options.batch_bytes;
    g->options.batch_bytes = 1;
    rig_put(g, "orders", 2, 3, 1);
    rig_step(g);
    assert_int_equal(g->link.pending_count, 2);
    struct fake_append second = g->link.pending[1];
    second.records = malloc(sizeof(*second.records));
    assert_non_null(second.records);
    second.records[0] = g->link.pending[1].records[0];
    g->fake.down = true;
    fake_answer(&g->link);
    g->fake.down = false;
    g->options.batch_bytes = batch_bytes;
    for (int i = 0; g->link.pending_count == 0 && i < 1000; i++) {
        rig_step(g);
    }
    assert_int_equal(g->link.pending[0].count, 2);
    fake_answer(&g->link);
    fake_store(&g->fake, &second, &result);
    free(second.records);
    assert_int_equal(result.err, FERRY_ERR_CURSOR_CONFLICT);
    rig_put(g, "orders", 4, 5, 1);
    rig_drain(g);
    rig_expect(g, "orders", 1, 5, 0);
}

static void a_paused_relay_keeps_its_lease_and_publishes_nothing(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_drain(g);
    fixture_exec(g->f, "UPDATE ferry_meta SET value = 1 WHERE name = 'paused'");
    rig_run(g, 1001);
    rig_put(g, "orders", 1, 5, 2);
    rig_run(g, 5000);
    assert_int_equal(rig_status(g).state, RELAY_PAUSED);
    assert_int_equal(rig_status(g).stats.elections, 1);
    assert_int_equal(g->fake.topics[0].partition[0].count, 0);
    assert_int_equal(g->fake.holder, 1);
    fixture_exec(g->f, "UPDATE ferry_meta SET value = 0 WHERE name = 'paused'");
    rig_run(g, 1001);
    rig_drain(g);
    rig_expect(g, "orders", 1, 5, 0);
}

static enum relay_poison decide(const struct relay_refusal *refusal, void *arg)
{
    int *asked = arg;
    assert_int_equal(refusal->number, 3);
    assert_memory_equal(refusal->message->payload, "row 3", 5);
    assert_non_null(strstr(refusal->reason, "the record is bad"));
    return ++*asked < 3 ? RELAY_POISON_CALLBACK : RELAY_POISON_DEAD;
}

static void the_program_decides_about_a_poison_row(void **state)
{
    struct rig *g = *state;
    int asked = 0;
    struct relay_hooks hooks = {.poison = decide, .arg = &asked};
    fake_create(&g->fake, "orders", 1);
    relay_free(&g->relay);
    assert_int_equal(relay_new(&g->relay, &g->options, &g->source, &g->broker, &hooks, 7),
                     FERRY_OK);
    g->options.poison = RELAY_POISON_CALLBACK;
    g->fake.refused = "row 3";
    rig_put(g, "orders", 1, 10, 1);
    rig_run(g, 5000);
    rig_drain(g);
    assert_int_equal(asked, 3);
    rig_expect(g, "orders", 1, 10, 3);
    assert_int_equal(rig_status(g).stats.dead_rows, 1);
}

/* Its id is another after `ferry outbox rebase`. */
static void a_source_with_another_id_halts_the_relay(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_drain(g);
    fixture_exec(g->f, "UPDATE ferry_meta SET value = randomblob(16) WHERE name = 'source_uuid'");
    rig_run(g, 1001);
    assert_int_equal(rig_status(g).state, RELAY_HALTED);
    assert_true(rig_status(g).set_back);
    assert_int_equal(rig_status(g).stats.timetravel, 1);
}

static void a_policy_that_makes_no_sense_is_told(void **state)
{
    struct rig *g = *state;
    struct err_text e = {{0}};
    struct relay_options *o = &g->options;
    assert_int_equal(relay_policy_check(o, &e), FERRY_OK);
    snprintf(o->poison_topics, sizeof(o->poison_topics), " a=block ,b=park_key,");
    assert_int_equal(relay_policy_check(o, &e), FERRY_OK);
    assert_int_equal(relay_policy_of(o, "a"), RELAY_POISON_BLOCK);
    assert_int_equal(relay_policy_of(o, "b"), RELAY_POISON_PARK_KEY);
    assert_int_equal(relay_policy_of(o, "c"), RELAY_POISON_DEAD);
    const char *const wrong[] = {"a", "a=", "=dead", "a=dead,b=drop"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(o->poison_topics, sizeof(o->poison_topics), "%s", wrong[i]);
        assert_int_equal(relay_policy_check(o, &e), FERRY_ERR_INVALID_ARGUMENT);
    }
}

static void a_row_whose_headers_are_no_strings_is_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 1, 1);
    fixture_exec(g->f, "INSERT INTO ferry_outbox (topic, headers, payload) VALUES "
                       "('orders', '{\"a\":1}', 'row 2'), ('orders', x'ff', 'row 3')");
    rig_put(g, "orders", 4, 5, 1);
    rig_drain(g);
    assert_int_equal(g->fake.topics[0].partition[0].count, 3);
    assert_int_equal(
        fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead WHERE reason LIKE 'headers%'"),
        2);
}

/* In batches of their own, because the broker delays a batch as a whole. */
static void rows_with_a_due_time_go_in_their_own_batches(void **state)
{
    struct rig *g = *state;
    const struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 3, 1);
    fixture_exec(g->f, "INSERT INTO ferry_outbox (topic, mkey, headers, payload) VALUES "
                       "('orders', 'k0', '{\"a\":\"1\",\"ferry-deliver-at\":\"1800000000000\"}', "
                       "'row 4'), ('orders', 'k0', "
                       "'{\"ferry-deliver-at\":\"1800000000001\"}', 'row 5'), "
                       "('orders', 'k0', '{\"ferry-deliver-at\":\"soon\"}', 'row 6'), "
                       "('orders', 'k0', '{\"ferry-deliver-at\":\"0\"}', 'row 7')");
    rig_put(g, "orders", 8, 9, 1);
    rig_drain(g);
    assert_int_equal(t->partition[0].count, 7);
    assert_int_equal(g->fake.appends, 3);
    assert_int_equal(t->partition[0].records[3].due_ms, 1800000000000);
    assert_int_equal(t->partition[0].records[3].headers, 1);
    assert_int_equal(t->partition[0].records[4].due_ms, 1800000000001);
    assert_int_equal(t->partition[0].records[5].due_ms, 0);
    assert_int_equal(rig_status(g).stats.delayed_rows, 2);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead WHERE reason "
                                          "LIKE '%no time%'"),
                     2);
}

static void batches_the_client_finds_too_large_are_split(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    g->fake.batch_rows_max = 3;
    rig_put(g, "orders", 1, 100, 4);
    rig_drain(g);
    rig_expect(g, "orders", 1, 100, 0);
}

static void rows_of_an_unknown_topic_wait_and_others_go_on(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 50, 5);
    rig_put(g, "audit", 1, 50, 5);
    rig_put(g, "orders", 51, 100, 5);
    rig_run(g, 3000);
    rig_expect(g, "orders", 1, 100, 0);
    struct relay_status status = rig_status(g);
    assert_int_equal(status.blocked_topics, 1);
    assert_int_equal(status.settled, 50); /* Nothing after the first that waits is deleted. */
    assert_non_null(strstr(status.error.text, "ferry topic create audit"));
    fake_create(&g->fake, "audit", 3);
    rig_run(g, g->options.topic_retry_ms);
    rig_drain(g);
    rig_expect(g, "audit", 1, 50, 0);
    rig_expect(g, "orders", 1, 100, 0);
}

static void with_unknown_topic_dead_its_rows_are_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    g->options.unknown_topic = RELAY_UNKNOWN_TOPIC_DEAD;
    rig_put(g, "audit", 1, 5, 5);
    rig_put(g, "orders", 1, 5, 5);
    rig_drain(g);
    rig_expect(g, "orders", 1, 5, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 5);
}

/* The topic goes away with batches in flight, and comes back with other partitions. */
static void a_topic_made_anew_gets_the_rows_that_were_not_acknowledged(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 20, 5);
    rig_drain(g);
    t->partitions = 0;
    free(t->partition[0].records);
    memset(t, 0, sizeof(*t));
    rig_put(g, "orders", 21, 60, 5);
    rig_run(g, 500);
    assert_int_equal(rig_status(g).blocked_topics, 1);
    fake_create(&g->fake, "orders", 3);
    rig_run(g, g->options.topic_retry_ms);
    rig_drain(g);
    rig_expect(g, "orders", 21, 60, 0);
}

static void a_standby_takes_over_when_the_lease_ends(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    g->fake.holder = 99;
    g->fake.epoch = 5;
    g->fake.lease_until_us = g->fake.now_us + 2000 * 1000;
    rig_put(g, "orders", 1, 20, 2);
    rig_run(g, 1900);
    assert_int_equal(rig_status(g).state, RELAY_STANDBY);
    assert_int_equal(g->fake.appends, 0);
    rig_run(g, 200);
    rig_drain(g);
    rig_expect(g, "orders", 1, 20, 0);
}

static enum ferry_err read_fails(void *driver, size_t rows_max, size_t bytes_max,
                                 struct source_page *page, bool *more, struct err_text *e)
{
    (void)driver, (void)rows_max, (void)bytes_max, (void)more;
    source_page_clear(page);
    return err_set(e, FERRY_ERR_DB_RETRY, "the wire to the database is cut");
}

/* Else it would keep the lease, and one with a better wire would stand by for ever. */
static void a_relay_that_cannot_read_gives_its_office_up(void **state)
{
    struct rig *g = *state;
    const struct source_ops *working = g->source.ops;
    struct source_ops cut = *working;
    cut.read = read_fails;
    fake_create(&g->fake, "orders", 1);
    rig_drain(g);
    g->source.ops = &cut;
    rig_put(g, "orders", 1, 5, 1);
    rig_run(g, 2000);
    assert_int_equal(g->fake.holder, 1); /* Short trouble changes nothing. */
    for (int ms = 0; g->fake.holder != 0 && ms < 2000; ms++) {
        rig_run(g, 1);
    }
    assert_int_equal(g->fake.holder, 0);
    assert_int_equal(rig_status(g).state, RELAY_OUTAGE);
    assert_non_null(strstr(rig_status(g).error.text, "wire"));
    g->source.ops = working;
    rig_run(g, g->options.lease_ms + 10);
    rig_drain(g);
    rig_expect(g, "orders", 1, 5, 0);
}

/* It slept past its lease with a batch in its hands, and another relay went on. */
static void a_fenced_zombie_writes_nothing_and_steps_back(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 10, 1);
    rig_step(g);
    assert_int_equal(g->link.pending_count, 1);
    g->fake.epoch++;
    g->fake.holder = 99;
    g->fake.lease_until_us = g->fake.now_us + 60 * 1000 * 1000;
    fake_answer(&g->link);
    assert_int_equal(t->partition[0].count, 0);
    assert_int_equal(rig_status(g).stats.fenced, 1);
    rig_run(g, 100);
    assert_int_equal(rig_status(g).state, RELAY_STANDBY);
    assert_int_equal(t->partition[0].count, 0);
    g->fake.holder = 0;
    rig_run(g, 3000);
    rig_drain(g);
    rig_expect(g, "orders", 1, 10, 0);
}

/* A rival moved the cursor: the relay continues from where it is. */
static void a_conflict_continues_from_the_new_cursor(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 5, 1);
    rig_drain(g);
    t->partition[0].cursor.version += 7;
    rig_put(g, "orders", 6, 10, 1);
    rig_drain(g);
    rig_expect(g, "orders", 1, 10, 0);
    assert_int_equal(rig_status(g).stats.conflicts, 1);
}

/* ids go on from a backup's and meet the cursor: same id, another message. */
static void a_database_set_back_in_time_halts_the_relay(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 10, 1);
    rig_drain(g);
    rig_kill_relay(g, false);
    fixture_exec(g->f, "DELETE FROM ferry_outbox WHERE id > 5; UPDATE sqlite_sequence SET seq = 5 "
                       "WHERE name = 'ferry_outbox'");
    g->fake.now_us = g->fake.lease_until_us + 1;
    rig_start_relay(g, 2);
    rig_run(g, 100);
    assert_int_equal(rig_status(g).state, RELAY_HALTED);
    assert_non_null(strstr(rig_status(g).error.text, "set back in time"));
    rig_kill_relay(g, false);
    rig_put(g, "orders", 11, 30, 1); /* Now its ids are past the cursor again. */
    g->fake.now_us = g->fake.lease_until_us + 1;
    rig_start_relay(g, 3);
    rig_run(g, 100);
    assert_int_equal(rig_status(g).state, RELAY_HALTED);
    assert_non_null(strstr(rig_status(g).error.text, "another message"));
    assert_int_equal(t->partition[0].count, 10);
}

static void a_database_set_back_under_a_running_relay_halts_it(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 10, 1);
    rig_drain(g);
    fixture_exec(g->f, "DELETE FROM ferry_outbox WHERE id > 5; UPDATE sqlite_sequence SET seq = 5 "
                       "WHERE name = 'ferry_outbox'");
    rig_run(g, 1500);
    assert_int_equal(rig_status(g).state, RELAY_HALTED);
}

static void a_file_put_in_the_place_of_the_database_halts_the_relay(void **state)
{
    struct rig *g = *state;
    char other[128];
    fake_create(&g->fake, "orders", 1);
    rig_run(g, 10);
    snprintf(other, sizeof(other), "%s/other", g->f->folder);
    FILE *file = fopen(other, "we");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(rename(other, g->f->path), 0);
    rig_run(g, 1500);
    assert_int_equal(rig_status(g).state, RELAY_HALTED);
    assert_non_null(strstr(rig_status(g).error.text, "replaced"));
}

static void a_second_relay_on_the_same_file_is_refused(void **state)
{
    struct rig *g = *state;
    struct source second = {0};
    struct err_text e = {{0}};
    assert_int_equal(rig_open_source(g, &second, false, &e), FERRY_ERR_LOCKED);
    assert_non_null(strstr(e.text, "another ferry-outbox"));
}

static void a_relay_that_stands_by_becomes_the_first_when_that_one_is_gone(void **state)
{
    struct rig *g = *state;
    struct source second = {0};
    struct err_text e = {{0}};
    struct source_word word;
    rig_run(g, 1500);
    assert_int_equal(rig_open_source(g, &second, true, &e), FERRY_OK);
    char first[SOURCE_PLACE_MAX + 1];
    char place[SOURCE_PLACE_MAX + 1];
    source_place(&g->source, first);
    source_place(&second, place);
    assert_string_not_equal(place, first);
    assert_int_equal(second.ops->wake_fd(second.driver), -1);
    struct source_word ours = {.pid = -7, .state = "standby"};
    assert_true(relay_lock_read(g->f->path, &word));
    ours.beat_ms = word.beat_ms + 1000;
    second.ops->leave_word(second.driver, &ours);
    source_place(&second, place);
    assert_string_not_equal(place, first);
    assert_true(relay_lock_read(g->f->path, &word));
    assert_int_equal(word.pid, getpid()); /* The active one's stays. */
    rig_kill_relay(g, true);
    ours.active = true;
    second.ops->leave_word(second.driver, &ours);
    source_place(&second, place);
    assert_string_equal(place, first);
    assert_true(second.ops->wake_fd(second.driver) >= 0);
    assert_true(relay_lock_read(g->f->path, &word));
    assert_int_equal(word.pid, -7);
    source_close(&second);
    rig_start_relay(g, 1);
}

static void a_stopped_relay_settles_checkpoints_and_resigns(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 40, 2);
    rig_step(g); /* The first batch of each partition goes alone; the rest waits in the page. */
    relay_stop(g->relay);
    rig_step(g);
    assert_int_equal(rig_status(g).state, RELAY_ACTIVE); /* Batches are in flight. */
    fake_answer(&g->link);
    rig_run(g, 10);
    assert_int_equal(rig_status(g).state, RELAY_STOPPED);
    assert_int_equal(g->fake.holder, 0);
    assert_true(g->fake.checkpoint_bytes > 0);
    rig_expect(g, "orders", 1, 32, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox"), 8);
}

static void a_commit_wakes_the_relay(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_drain(g);
    rig_put(g, "orders", 1, 1, 1);
    ferry_outbox_committed(g->f->db);
    relay_wake(g->relay);
    rig_step(g);
    assert_int_equal(g->link.pending_count, 1);
    fake_answer(&g->link);
    rig_expect(g, "orders", 1, 1, 0);
}

static uint64_t reads_of_a_crowd(struct rig *g, int64_t pace_ms, int first)
{
    g->options.pace_ms = pace_ms;
    uint64_t reads = rig_status(g).stats.reads;
    for (int i = 0; i < 200; i++) {
        rig_put(g, "orders", first + 3 * i, first + 3 * i + 2, 1);
        relay_wake(g->relay);
        rig_step(g);
        fake_answer(&g->link);
    }
    reads = rig_status(g).stats.reads - reads;
    rig_drain(g);
    return reads;
}

/* As many transactions, a quarter of the looks; and none of it for who comes alone. */
static void a_crowd_is_read_at_a_pace_and_a_single_row_at_once(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_drain(g);
    assert_in_range(reads_of_a_crowd(g, 0, 1), 200, 500);
    assert_in_range(reads_of_a_crowd(g, 4, 601), 40, 70);
    for (int i = 1201; i <= 1210; i++) {
        rig_run(g, 100);
        rig_put(g, "orders", i, i, 1);
        relay_wake(g->relay);
        rig_step(g);
        assert_int_equal(g->link.pending_count, 1);
    }
    rig_run(g, 100);
    rig_expect(g, "orders", 1, 1210, 0);
}

/* A plain INSERT from another program sends no datagram. */
static void without_a_wake_the_poll_finds_it_within_its_longest_pause(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_run(g, 3000);
    uint64_t polls = rig_status(g).stats.polls;
    rig_run(g, 1000);
    assert_in_range(rig_status(g).stats.polls - polls, 10, 40); /* 50 ms each when idle. */
    rig_put(g, "orders", 1, 1, 1);
    rig_run(g, g->options.poll_max_ms + 2);
    rig_expect(g, "orders", 1, 1, 0);
}

static void status_tells_backlog_and_the_word_of_the_relay(void **state)
{
    struct rig *g = *state;
    struct outbox_status status;
    struct err_text e = {{0}};
    char url[128];
    snprintf(url, sizeof(url), "sqlite:%s", g->f->path);
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 10, 1);
    assert_int_equal(admin_sqlite_ops.status(url, NULL, 0, &status, &e), FERRY_OK);
    assert_int_equal(status.pending_rows, 10);
    assert_true(status.oldest_known);
    assert_true(status.relay_known && status.relay_running);
    assert_false(status.word_known); /* It has not said a word yet. */
    rig_drain(g);
    rig_run(g, 1500);
    assert_int_equal(admin_sqlite_ops.status(url, NULL, 0, &status, &e), FERRY_OK);
    assert_true(status.word_known);
    assert_string_equal(status.word.state, "active");
    assert_int_equal(status.word.published_id, 10);
    assert_int_equal(status.pending_rows, 0);
    assert_false(status.oldest_known);
    assert_int_equal(status.last_id, 10);
    rig_kill_relay(g, false);
    assert_int_equal(admin_sqlite_ops.status(url, NULL, 0, &status, &e), FERRY_OK);
    assert_true(status.relay_known);
    assert_false(status.relay_running);
}

/* Each allocation of a start and of a run fails once: told as an error, or waited out. */
static void out_of_memory_at_any_point_loses_nothing(void **state)
{
    struct rig *g = *state;
    int last = 0;
    fake_create(&g->fake, "orders", 2);
    for (long n = 1; n <= 60; n++) {
        struct err_text e = {{0}};
        rig_put(g, "orders", last + 1, last + 20, 3);
        last += 20;
        rig_kill_relay(g, true);
        g->fake.holder = 0;
        mem_test_fail_after(n);
        enum ferry_err err = rig_open_source(g, &g->source, false, &e);
        if (err == FERRY_OK) {
            err = relay_new(&g->relay, &g->options, &g->source, &g->broker, NULL, 7);
            relay_free(&g->relay);
            source_close(&g->source);
        }
        assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
        mem_test_fail_after(0);
        rig_start_relay(g, 1);
        mem_test_fail_after(n);
        for (int i = 0; i < 20; i++) {
            rig_step(g);
            fake_answer(&g->link);
        }
        mem_test_fail_after(0);
    }
    rig_run(g, 2000);
    rig_drain(g);
    rig_expect(g, "orders", 1, last, 0);
}

/* Everything at once, from one seed. */
static void a_storm_of_faults_loses_and_doubles_nothing(void **state)
{
    struct rig *g = *state;
    struct prng prng;
    const uint64_t seed = 20250107;
    print_message("seed %llu\n", (unsigned long long)seed);
    prng_init(&prng, seed);
    fake_create(&g->fake, "orders", 3);
    int last = 0;
    for (int round = 0; round < 600; round++) {
        if (last < 6000) {
            int more = 1 + (int)prng_below(&prng, 40);
            rig_put(g, "orders", last + 1, last + more, 8);
            last += more;
        }
        for (uint64_t steps = prng_below(&prng, 6); steps > 0; steps--) {
            rig_step(g);
            if (prng_below(&prng, 3) > 0) {
                fake_answer(&g->link);
            }
        }
        switch (prng_below(&prng, 12)) {
        case 0:
            g->fake.down = !g->fake.down;
            break;
        case 1:
            g->fake.lose_replies = 1 + (int)prng_below(&prng, 3);
            break;
        case 2:
            rig_kill_relay(g, prng_below(&prng, 2) == 0);
            rig_start_relay(g, round + 2);
            break;
        case 3:
            g->fake.now_us += (int64_t)prng_below(&prng, 5000000);
            break;
        case 4:
            g->fake.epoch++; /* A rival was elected and is gone. */
            g->fake.holder = 0;
            break;
        default:
            break;
        }
    }
    g->fake.down = false;
    g->fake.lose_replies = 0;
    rig_run(g, 30000); /* The longest pauses. */
    rig_drain(g);
    rig_expect(g, "orders", 1, last, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 0);
}

/* Answers of its partitions come in any order; what the relay begins at is the first row of all. */
static void a_topic_that_comes_back_loses_no_row(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 2);
    g->options.batch_rows = 4;
    rig_put(g, "orders", 1, 2, 2);
    rig_drain(g);
    rig_put(g, "orders", 3, 40, 2);
    for (int i = 0; i < 5 && g->link.pending_count < 2; i++) {
        rig_step(g);
    }
    assert_true(g->link.pending_count >= 2);
    struct fake_append first = g->link.pending[0];
    assert_int_not_equal(first.partition, g->link.pending[g->link.pending_count - 1].partition);
    g->link.pending[0] = g->link.pending[g->link.pending_count - 1];
    g->link.pending[g->link.pending_count - 1] = first;
    t->partitions = 0; /* Gone... */
    fake_answer(&g->link);
    rig_step(g);
    t->partitions = 2; /* ...and there again, as if after a mistake. */
    rig_run(g, 5000);
    rig_drain(g);
    rig_expect(g, "orders", 1, 40, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_topic_that_comes_back_loses_no_row),
        RIG_TEST(a_backlog_is_published_once_and_in_order),
        RIG_TEST(rows_without_a_key_are_spread_over_the_partitions),
        RIG_TEST(json_and_map_headers_arrive),
        RIG_TEST(published_rows_are_deleted_when_it_is_quiet),
        RIG_TEST(nothing_is_deleted_before_it_is_acknowledged),
        RIG_TEST(a_relay_killed_at_any_step_leaves_no_loss_and_no_double),
        RIG_TEST(a_crash_after_append_and_before_delete_doubles_nothing),
        RIG_TEST(lost_replies_double_nothing),
        RIG_TEST(an_outage_ends_and_no_row_becomes_poison),
        RIG_TEST(the_pause_between_attempts_grows_in_an_outage),
        RIG_TEST(a_poison_row_is_set_aside_and_the_rest_goes_on),
        RIG_TEST(a_named_poison_row_is_found_at_once),
        RIG_TEST(with_poison_block_nothing_goes_on_until_the_row_is_skipped),
        RIG_TEST(a_parked_key_sets_its_later_rows_aside_until_it_is_free),
        RIG_TEST(a_key_parked_by_a_person_is_noticed_within_a_second),
        RIG_TEST(a_row_that_may_come_late_is_not_set_aside),
        RIG_TEST(a_chained_batch_that_comes_late_is_not_taken),
        RIG_TEST(a_paused_relay_keeps_its_lease_and_publishes_nothing),
        RIG_TEST(the_program_decides_about_a_poison_row),
        RIG_TEST(a_source_with_another_id_halts_the_relay),
        RIG_TEST(a_policy_that_makes_no_sense_is_told),
        RIG_TEST(a_row_whose_headers_are_no_strings_is_set_aside),
        RIG_TEST(rows_with_a_due_time_go_in_their_own_batches),
        RIG_TEST(batches_the_client_finds_too_large_are_split),
        RIG_TEST(rows_of_an_unknown_topic_wait_and_others_go_on),
        RIG_TEST(with_unknown_topic_dead_its_rows_are_set_aside),
        RIG_TEST(a_topic_made_anew_gets_the_rows_that_were_not_acknowledged),
        RIG_TEST(a_standby_takes_over_when_the_lease_ends),
        RIG_TEST(a_relay_that_cannot_read_gives_its_office_up),
        RIG_TEST(a_fenced_zombie_writes_nothing_and_steps_back),
        RIG_TEST(a_conflict_continues_from_the_new_cursor),
        RIG_TEST(a_database_set_back_in_time_halts_the_relay),
        RIG_TEST(a_database_set_back_under_a_running_relay_halts_it),
        RIG_TEST(a_file_put_in_the_place_of_the_database_halts_the_relay),
        RIG_TEST(a_second_relay_on_the_same_file_is_refused),
        RIG_TEST(a_relay_that_stands_by_becomes_the_first_when_that_one_is_gone),
        RIG_TEST(a_stopped_relay_settles_checkpoints_and_resigns),
        RIG_TEST(a_commit_wakes_the_relay),
        RIG_TEST(a_crowd_is_read_at_a_pace_and_a_single_row_at_once),
        RIG_TEST(without_a_wake_the_poll_finds_it_within_its_longest_pause),
        RIG_TEST(status_tells_backlog_and_the_word_of_the_relay),
        RIG_TEST(out_of_memory_at_any_point_loses_nothing),
        RIG_TEST(a_storm_of_faults_loses_and_doubles_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
