/* Outbox, relay, broker, consumer and inbox together, in one process: a real broker, a real client.
 */
#include "outbox_fixture.h"

#include "base/clock.h"
#include "ferry_broker.h"
#include "outbox/relay/relay.h"
#include "outbox/sqlite/open_sqlite.h"

#define ROWS        500
#define PARTITIONS  3
#define PATIENCE_US (30 * 1000 * 1000)

struct stage {
    struct fixture *f; /* The producer's database. */
    struct ferry_broker *broker;
    struct ferry_client *client;
    struct relay_options options;
    struct source source;
    struct relay_broker seam;
    struct relay *relay;
};

static void broker_up(struct stage *s)
{
    char data[128];
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    snprintf(data, sizeof(data), "node.data=%s/broker", s->f->folder);
    const char *const options[] = {data};
    if (ferry_broker_start(&s->broker, options, 1, detail, sizeof(detail)) != FERRY_OK) {
        fail_msg("%s", detail);
    }
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_broker_conf(s->broker, conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "delivery.timeout_ms", "2s", detail, sizeof(detail)),
                     FERRY_OK);
    assert_int_equal(ferry_open(&s->client, &conf, detail, sizeof(detail)), FERRY_OK);
}

static void broker_down(struct stage *s)
{
    ferry_close(&s->client, 1000);
    ferry_broker_stop(&s->broker);
}

static void relay_up(struct stage *s, const char *holder)
{
    struct err_text e = {{0}};
    char url[160];
    const struct source_options options = {.barrier = true,
                                           .tidy = true,
                                           .delete_rows = s->options.delete_rows,
                                           .delete_backlog_rows = s->options.delete_backlog_rows};
    snprintf(url, sizeof(url), "sqlite:%s", s->f->path);
    if (source_sqlite_open(&s->source, url, &options, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    struct ferry_id id = s->source.ops->id(s->source.driver);
    assert_int_equal(relay_broker_open(&s->seam, s->client, &id, 0, holder), FERRY_OK);
    assert_int_equal(relay_new(&s->relay, &s->options, &s->source, &s->seam, NULL, 1), FERRY_OK);
}

/* As it dies: nothing is settled, resigned or checkpointed. The client goes with it, as its process
 * would. */
static void relay_down_with_client(struct stage *s)
{
    relay_broker_close(&s->seam);
    ferry_close(&s->client, 0);
    relay_free(&s->relay);
    source_close(&s->source);
}

static void step(struct stage *s)
{
    (void)!relay_step(s->relay, clock_monotonic_us());
    ferry_poll(s->client, 1);
}

static void drain(struct stage *s)
{
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    struct relay_status status;
    do {
        step(s);
        relay_check(s->relay);
        relay_status(s->relay, &status);
        if (clock_monotonic_us() > until_us) {
            fail_msg("not drained: %s %s", relay_state_name(status.state), status.error.text);
        }
    } while (!status.caught_up || status.backlog_rows > 0);
}

static void put_rows(struct stage *s, int first, int last)
{
    fixture_exec(s->f, "BEGIN");
    for (int i = first; i <= last; i++) {
        char key[16];
        char payload[16];
        snprintf(key, sizeof(key), "k%d", i % 7);
        snprintf(payload, sizeof(payload), "%d", i);
        struct ferry_header header = {"traceparent", "00-ab-cd-01", 11};
        struct ferry_message m = {.topic = "orders",
                                  .key = key,
                                  .key_bytes = strlen(key),
                                  .payload = payload,
                                  .payload_bytes = strlen(payload),
                                  .headers = &header,
                                  .header_count = 1};
        assert_int_equal(ferry_outbox_put(s->f->db, &m, NULL), FERRY_OK);
    }
    fixture_exec(s->f, "COMMIT");
}

static enum ferry_err apply(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    sqlite3 *ledger = arg;
    char sql[160];
    const void *value = NULL;
    size_t value_bytes = 0;
    (void)db;
    assert_true(ferry_record_header(record, "traceparent", &value, &value_bytes));
    assert_int_equal(value_bytes, 11);
    snprintf(sql, sizeof(sql), "INSERT INTO effect (n, k) VALUES (%.*s, '%.*s')",
             (int)record->payload_bytes, (const char *)record->payload, (int)record->key_bytes,
             (const char *)record->key);
    fixture_exec_on(ledger, sql);
    return FERRY_OK;
}

/* Consumes to the end through the inbox of `ledger`; `from_start` ignores what the broker knows. */
static void consume(struct stage *s, struct fixture *ledger, bool from_start)
{
    struct ferry_consumer *consumer = NULL;
    struct ferry_consume_options options = {.group = "ledger", .idle_exit_ms = 300};
    assert_int_equal(ferry_consumer_open(&consumer, s->client, "orders",
                                         from_start ? NULL : "ledger", FERRY_FROM_START, 5000),
                     FERRY_OK);
    enum ferry_err err =
        ferry_consume_tx(consumer, ledger->db, apply, ledger->connection, &options);
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), ferry_db_detail(ledger->db));
    }
    ferry_consumer_close(&consumer);
}

static void expect_effects(struct fixture *ledger, int64_t count)
{
    assert_int_equal(fixture_number(ledger, "SELECT count(*) FROM effect"), count);
    assert_int_equal(fixture_number(ledger, "SELECT count(DISTINCT n) FROM effect"), count);
    /* In order of arrival, the rows of a key rise. */
    assert_int_equal(fixture_number(ledger,
                                    "SELECT count(*) FROM (SELECT n, lag(n) OVER (PARTITION "
                                    "BY k ORDER BY rowid) AS p FROM effect) WHERE n < p"),
                     0);
}

static int stage_setup(void **state)
{
    struct stage *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    void *f = NULL;
    fixture_setup(&f);
    s->f = f;
    option_defaults(relay_options_table(), &s->options);
    s->options.batch_rows = 20;
    s->options.lease_ms = 1000;
    broker_up(s);
    struct ferry_topic_spec spec = {.name = "orders", .partitions = PARTITIONS};
    assert_int_equal(ferry_topic_create(s->client, &spec, 5000), FERRY_OK);
    *state = s;
    return 0;
}

static int stage_teardown(void **state)
{
    struct stage *s = *state;
    if (s->relay != NULL) {
        relay_down_with_client(s);
    }
    broker_down(s);
    void *f = s->f;
    fixture_teardown(&f);
    free(s);
    return 0;
}

static struct fixture *ledger_new(void)
{
    void *f = NULL;
    fixture_setup(&f);
    fixture_exec(f, "CREATE TABLE effect (n INTEGER, k TEXT)");
    return f;
}

static void ledger_free(struct fixture *ledger)
{
    void *f = ledger;
    fixture_teardown(&f);
}

static void a_committed_row_has_one_effect_at_the_other_end(void **state)
{
    struct stage *s = *state;
    struct fixture *ledger = ledger_new();
    relay_up(s, "one");
    put_rows(s, 1, ROWS);
    drain(s);
    consume(s, ledger, false);
    expect_effects(ledger, ROWS);
    consume(s, ledger, true); /* The whole log once more: no second effect. */
    expect_effects(ledger, ROWS);
    put_rows(s, ROWS + 1, ROWS + 50);
    drain(s);
    consume(s, ledger, false);
    expect_effects(ledger, ROWS + 50);
    ledger_free(ledger);
}

static void relays_that_die_at_any_step_double_nothing(void **state)
{
    struct stage *s = *state;
    struct fixture *ledger = ledger_new();
    put_rows(s, 1, ROWS);
    for (int steps = 1; steps <= 6; steps++) {
        relay_up(s, "the-same-holder");
        for (int i = 0; i < steps; i++) {
            step(s);
        }
        relay_down_with_client(s);
        broker_down(s);
        broker_up(s); /* And the broker was restarted meanwhile. */
    }
    relay_up(s, "the-same-holder");
    drain(s);
    consume(s, ledger, false);
    expect_effects(ledger, ROWS);
    ledger_free(ledger);
}

static void a_standby_waits_for_the_lease_and_takes_over(void **state)
{
    struct stage *s = *state;
    struct fixture *ledger = ledger_new();
    relay_up(s, "one");
    put_rows(s, 1, 50);
    drain(s);
    relay_down_with_client(s); /* Without a word to the broker. */
    struct ferry_conf *conf = NULL;
    char detail[512] = "";
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_broker_conf(s->broker, conf), FERRY_OK);
    assert_int_equal(ferry_open(&s->client, &conf, detail, sizeof(detail)), FERRY_OK);
    relay_up(s, "two");
    put_rows(s, 51, 100);
    step(s);
    struct relay_status status;
    relay_status(s->relay, &status);
    assert_int_equal(status.state, RELAY_STANDBY);
    drain(s);
    consume(s, ledger, false);
    expect_effects(ledger, 100);
    ledger_free(ledger);
}

static void a_relay_told_to_stop_before_it_began_publishes_nothing(void **state)
{
    struct stage *s = *state;
    relay_up(s, "one");
    put_rows(s, 1, 10);
    relay_stop(s->relay);
    struct relay_status status;
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    do {
        step(s);
        relay_status(s->relay, &status);
        assert_true(clock_monotonic_us() < until_us);
    } while (status.state != RELAY_STOPPED);
    assert_int_equal(fixture_number(s->f, "SELECT count(*) FROM ferry_outbox"), 10);
}

#define STAGE_TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(a_committed_row_has_one_effect_at_the_other_end),
        STAGE_TEST(relays_that_die_at_any_step_double_nothing),
        STAGE_TEST(a_standby_waits_for_the_lease_and_takes_over),
        STAGE_TEST(a_relay_told_to_stop_before_it_began_publishes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
