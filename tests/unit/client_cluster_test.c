/* The client in a cluster whose leaders move: nothing lost, doubled or out of order, nobody asked
 * who is a stranger, and little time lost beside the election. Three fake brokers with one log. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "lib/fake_broker.h"

#define NODES        3
#define PARTITIONS   2
#define MESSAGES_MAX 20000
#define WAIT_MS      20000

struct fixture {
    struct fake_broker *brokers[NODES];
    struct fake_broker *stranger; /* Of another cluster. */
    struct ferry_conf *conf;
    struct ferry_client *client;
    int sent, stored, others;
    int64_t offset[MESSAGES_MAX];
    int64_t stored_us; /* When the last was told. */
};

static void on_report(const struct ferry_report *report, void *arg)
{
    struct fixture *f = arg;
    size_t number = (size_t)(uintptr_t)report->opaque;
    f->stored += report->outcome == FERRY_STORED;
    f->others += report->outcome != FERRY_STORED;
    f->offset[number] = report->offset;
    f->stored_us = clock_monotonic_us();
}

/* All brokers in `servers`; times as they are by default. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char servers[3 * 64] = "";
    f->brokers[0] = fake_broker_start(PARTITIONS, NULL, NULL);
    f->brokers[1] = fake_broker_join(f->brokers[0]);
    f->brokers[2] = fake_broker_join(f->brokers[0]);
    f->stranger = fake_broker_start(PARTITIONS, NULL, NULL);
    assert_int_equal(ferry_conf_new(&f->conf), FERRY_OK);
    for (int i = 0; i < NODES; i++) {
        size_t used = strlen(servers);
        (void)snprintf(servers + used, sizeof(servers) - used, "%s,",
                       fake_broker_endpoint(f->brokers[i]));
    }
    fake_set(f->conf, "servers", servers);
    ferry_conf_on_report(f->conf, on_report, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    for (int i = NODES - 1; i >= 0; i--) {
        fake_broker_stop(&f->brokers[i]);
    }
    fake_broker_stop(&f->stranger);
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

static void pause_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L};
    (void)nanosleep(&t, NULL);
}

static void send_one(struct fixture *f)
{
    char payload[16];
    int size = snprintf(payload, sizeof(payload), "%d", f->sent);
    struct ferry_message m = {.topic = FAKE_TOPIC,
                              .partition = f->sent % PARTITIONS,
                              .payload = payload,
                              .payload_bytes = (size_t)size,
                              .opaque = (void *)(uintptr_t)f->sent};
    assert_true(f->sent < MESSAGES_MAX);
    assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    f->sent++;
}

static void send_some(struct fixture *f, int count)
{
    for (int i = 0; i < count; i++) {
        send_one(f);
    }
}

/* Sends and polls for so long. */
static void send_for(struct fixture *f, int ms)
{
    int64_t end_us = clock_monotonic_us() + ms * INT64_C(1000);
    while (clock_monotonic_us() < end_us) {
        send_some(f, 4);
        (void)ferry_poll(f->client, 0);
        pause_ms(2);
    }
}

struct seen {
    struct fixture *f;
    int32_t partition;
    int last;
    int count;
};

static void on_record(const struct batch_record *record, int64_t offset, void *arg)
{
    struct seen *seen = arg;
    char text[16] = "";
    memcpy(text, record->payload.data, record->payload.size);
    int number = atoi(text);
    assert_int_equal(number, seen->count * PARTITIONS + seen->partition); /* None lost or twice. */
    assert_true(number > seen->last);
    assert_int_equal(seen->f->offset[number], offset);
    seen->last = number;
    seen->count++;
}

/* Every message is told stored, and is in the log once and in its place. */
static void assert_all_stored(struct fixture *f)
{
    int found = 0;
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
    assert_int_equal(f->others, 0);
    assert_int_equal(f->stored, f->sent);
    for (int32_t p = 0; p < PARTITIONS; p++) {
        struct seen seen = {.f = f, .partition = p, .last = -1};
        fake_each_record(f->brokers[0], p, on_record, &seen);
        found += seen.count;
    }
    assert_int_equal(found, f->sent);
    assert_int_equal(fake_retries_that_differ(f->brokers[0]), 0);
}

static void begin(struct fixture *f)
{
    open_client(f);
    send_some(f, 10);
    assert_all_stored(f);
}

static int metadata_requests(struct fixture *f)
{
    int sum = 0;
    for (int i = 0; i < NODES; i++) {
        sum += fake_requests(f->brokers[i], COMMAND_METADATA);
    }
    return sum;
}

/* ---- Leaders that move and say so. */

/* NOT_LEADER names the next one: no question, no pause. */
static void a_hint_is_followed_without_asking_for_metadata(void **state)
{
    struct fixture *f = *state;
    begin(f);
    int asked = metadata_requests(f);
    for (int node = 1; node < NODES; node++) {
        fake_lead(f->brokers[0], -1, node, 0);
        send_some(f, 100);
        assert_all_stored(f);
    }
    assert_int_equal(metadata_requests(f), asked);
}

static void without_a_hint_metadata_is_asked(void **state)
{
    struct fixture *f = *state;
    begin(f);
    fake_hint(f->brokers[0], "");
    fake_lead(f->brokers[0], -1, 2, 2);
    send_some(f, 100);
    assert_all_stored(f);
    assert_true(fake_requests(f->brokers[2], COMMAND_PRODUCE) > 0);
}

/* A broker must not be able to send a client anywhere. */
static void a_hint_to_a_stranger_is_not_followed(void **state)
{
    struct fixture *f = *state;
    begin(f);
    fake_hint(f->brokers[0], fake_broker_endpoint(f->stranger));
    fake_lead(f->brokers[0], -1, 1, 1);
    fake_control(f->brokers[0], 2);
    send_some(f, 100);
    assert_all_stored(f);
    struct ferry_id id = {.bytes = {1}};
    struct ferry_source *source;
    struct ferry_source_grant grant;
    assert_int_equal(ferry_source_open(&source, f->client, &id, 0, "test"), FERRY_OK);
    assert_int_equal(ferry_source_elect(source, 10000, WAIT_MS, &grant), FERRY_OK);
    ferry_source_close(&source);
    assert_int_equal(fake_requests(f->stranger, COMMAND_HELLO), 0);
    assert_int_equal(fake_requests(f->stranger, COMMAND_PRODUCE), 0);
}

/* Each hints at the other, and neither leads: it is asked around with pauses, not at full speed. */
static void brokers_that_point_at_each_other_are_not_asked_in_a_storm(void **state)
{
    struct fixture *f = *state;
    begin(f);
    int before = fake_requests(f->brokers[1], COMMAND_PRODUCE);
    fake_hint(f->brokers[0], fake_broker_endpoint(f->brokers[1]));
    fake_lead(f->brokers[0], -1, -1, 0);
    send_some(f, PARTITIONS);
    pause_ms(500);
    assert_true(fake_requests(f->brokers[1], COMMAND_PRODUCE) - before < 200);
    fake_hint(f->brokers[0], NULL);
    fake_lead(f->brokers[0], -1, 2, 2);
    assert_all_stored(f);
}

static void leaders_that_flap_cost_no_message(void **state)
{
    struct fixture *f = *state;
    begin(f);
    for (int i = 0; i < 60; i++) {
        fake_hint(f->brokers[0], i % 3 == 0 ? "" : NULL);
        fake_lead(f->brokers[0], i % PARTITIONS, i % NODES, (i + i / 7) % NODES);
        send_for(f, 25);
    }
    fake_hint(f->brokers[0], NULL);
    assert_all_stored(f);
}

static void nobody_leads_for_a_while_and_then_somebody_does(void **state)
{
    struct fixture *f = *state;
    begin(f);
    fake_lead(f->brokers[0], -1, -1, 0);
    send_some(f, 50);
    pause_ms(1500);
    fake_lead(f->brokers[0], -1, 1, 1);
    int64_t elected_us = clock_monotonic_us();
    assert_all_stored(f);
    print_message("stored %lld ms after the election\n",
                  (long long)(f->stored_us - elected_us) / 1000);
    assert_true(f->stored_us - elected_us < 1000000);
}

/* A new leader that is not ready yet, and one whose tables are behind for a moment. */
static void a_leader_that_is_not_ready_is_asked_again(void **state)
{
    struct fixture *f = *state;
    begin(f);
    fake_rule(f->brokers[1], COMMAND_PRODUCE, 0, 10, FAKE_REFUSE, FERRY_ERR_NOT_READY);
    fake_rule(f->brokers[1], COMMAND_PRODUCE, 0, 4, FAKE_REFUSE, FERRY_ERR_SEQUENCE_GAP);
    fake_rule(f->brokers[1], COMMAND_PRODUCE, 0, 4, FAKE_REFUSE, FERRY_ERR_UNKNOWN_PARTITION);
    fake_lead(f->brokers[0], -1, 1, 1);
    send_for(f, 100);
    assert_all_stored(f);
    assert_int_equal(fake_requests(f->brokers[0], COMMAND_PRODUCER_INIT), 1);
}

/* ---- Leaders that die. */

static void report_failover(struct fixture *f, int64_t from_us, int64_t bound_us)
{
    int64_t took_us = f->stored_us - from_us;
    print_message("stored again %lld ms after the leader died\n", (long long)took_us / 1000);
    assert_true(took_us < bound_us);
}

/* The others elect for 700 ms; the client must not add its request.timeout_ms. */
static void elect(struct fixture *f, int node)
{
    pause_ms(700);
    fake_control(f->brokers[0], node);
    fake_lead(f->brokers[0], -1, node, node);
}

static void a_dead_leader_costs_little_more_than_the_election(void **state)
{
    struct fixture *f = *state;
    begin(f);
    int64_t died_us = clock_monotonic_us();
    fake_broker_kill(f->brokers[0]);
    send_some(f, 20);
    elect(f, 1);
    assert_all_stored(f);
    report_failover(f, died_us, 2500000);
    fake_broker_revive(f->brokers[0]);
    send_some(f, 20);
    assert_all_stored(f);
}

/* As by SIGSTOP: what it held is said twice when it wakes, and is in the log once. */
static void a_frozen_leader_is_left_and_does_no_harm_when_it_wakes(void **state)
{
    struct fixture *f = *state;
    begin(f);
    int64_t died_us = clock_monotonic_us();
    fake_broker_freeze(f->brokers[0], true);
    send_for(f, 100);
    elect(f, 2);
    assert_all_stored(f);
    report_failover(f, died_us, 2500000);
    fake_broker_freeze(f->brokers[0], false);
    send_for(f, 200);
    assert_all_stored(f);
}

/* Stored by the old leader, and the answer died with it. */
static void what_the_old_leader_stored_is_not_stored_again(void **state)
{
    struct fixture *f = *state;
    begin(f);
    fake_rule(f->brokers[0], COMMAND_PRODUCE, 0, 100, FAKE_DROP_REPLY, 0);
    send_for(f, 50);
    fake_broker_kill(f->brokers[0]);
    elect(f, 1);
    assert_all_stored(f);
}

/* Metadata is behind: it goes on naming the dead one. */
static void metadata_that_names_a_dead_node_is_asked_again(void **state)
{
    struct fixture *f = *state;
    begin(f);
    fake_broker_kill(f->brokers[0]);
    fake_lead(f->brokers[0], -1, 1, 0);
    fake_control(f->brokers[0], 1);
    send_some(f, 20);
    pause_ms(1200);
    int64_t corrected_us = clock_monotonic_us();
    fake_lead(f->brokers[0], -1, 1, 1);
    assert_all_stored(f);
    assert_true(f->stored_us - corrected_us < 1500000);
}

static void every_node_dies_once_under_load(void **state)
{
    struct fixture *f = *state;
    begin(f);
    for (int i = 0; i < NODES; i++) {
        send_for(f, 50);
        fake_broker_kill(f->brokers[i]);
        send_for(f, 50);
        fake_control(f->brokers[0], (i + 1) % NODES);
        fake_lead(f->brokers[0], -1, (i + 1) % NODES, (i + 1) % NODES);
        send_for(f, 900);
        fake_broker_revive(f->brokers[i]);
    }
    assert_all_stored(f);
}

static void a_dead_first_server_costs_little_at_the_start(void **state)
{
    struct fixture *f = *state;
    fake_broker_kill(f->brokers[0]);
    fake_lead(f->brokers[0], -1, 1, 1);
    fake_control(f->brokers[0], 1);
    int64_t opened_us = clock_monotonic_us();
    begin(f);
    print_message("stored %lld ms after opening\n", (long long)(f->stored_us - opened_us) / 1000);
    assert_true(f->stored_us - opened_us < 2500000);
}

/* What one broker has not heard of yet, another has. */
static void a_broker_that_is_behind_does_not_make_a_topic_unknown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < NODES; i++) {
        fake_rule(f->brokers[i], COMMAND_METADATA, 0, 1, FAKE_REFUSE, FERRY_ERR_UNKNOWN_TOPIC);
    }
    begin(f);
}

/* ---- Consumers. */

static void read_to(struct ferry_consumer *s, int64_t offset[PARTITIONS], int64_t until)
{
    int64_t give_up_us = clock_monotonic_us() + WAIT_MS * INT64_C(1000);
    while ((offset[0] < until || offset[1] < until) && clock_monotonic_us() < give_up_us) {
        struct ferry_batch *batch;
        enum ferry_err err = ferry_consumer_fetch(s, 1000, &batch);
        if (err == FERRY_ERR_TIMEOUT) {
            continue;
        }
        assert_int_equal(err, FERRY_OK);
        int32_t p = ferry_batch_partition(batch);
        assert_int_equal(ferry_batch_first_offset(batch), offset[p]);
        offset[p] = ferry_batch_next_offset(batch);
        ferry_batch_free(&batch);
    }
    assert_int_equal(offset[0], until);
    assert_int_equal(offset[1], until);
}

static void a_consumer_reads_on_where_it_was_whoever_leads(void **state)
{
    struct fixture *f = *state;
    struct ferry_consumer *s;
    int64_t offset[PARTITIONS] = {0};
    begin(f);
    assert_int_equal(
        ferry_consumer_open(&s, f->client, FAKE_TOPIC, "reader", FERRY_FROM_START, WAIT_MS),
        FERRY_OK);
    read_to(s, offset, 5);
    fake_lead(f->brokers[0], -1, 1, 1); /* Alive: says NOT_LEADER. */
    send_some(f, 10);
    assert_all_stored(f);
    read_to(s, offset, 10);
    fake_broker_kill(f->brokers[1]); /* A long poll is out there. */
    int64_t died_us = clock_monotonic_us();
    fake_lead(f->brokers[0], -1, 2, 2);
    send_some(f, 10);
    assert_all_stored(f);
    read_to(s, offset, 15);
    assert_true(clock_monotonic_us() - died_us < 3000000);
    fake_lead(f->brokers[0], -1, 0, 2); /* METADATA is behind, the hint is not. */
    assert_int_equal(ferry_consumer_commit(s, 0, 15, WAIT_MS), FERRY_OK);
    assert_int_equal(fake_committed(f->brokers[0], 0), 15);
    ferry_consumer_close(&s);
}

/* The new leader does not know yet how far the log is committed. */
static void an_end_that_is_behind_after_a_failover_is_not_told(void **state)
{
    struct fixture *f = *state;
    struct ferry_consumer *s;
    int64_t offset[PARTITIONS] = {0};
    begin(f);
    assert_int_equal(
        ferry_consumer_open(&s, f->client, FAKE_TOPIC, NULL, FERRY_FROM_START, WAIT_MS), FERRY_OK);
    read_to(s, offset, 5);
    fake_lag(f->brokers[0], 2);
    fake_lead(f->brokers[0], -1, 1, 1);
    struct ferry_batch *batch;
    assert_int_equal(ferry_consumer_fetch(s, 1200, &batch), FERRY_ERR_TIMEOUT);
    fake_lag(f->brokers[0], 0);
    send_some(f, 10);
    read_to(s, offset, 10);
    ferry_consumer_close(&s);
}

/* ---- Sources. */

static void on_append(const struct ferry_append_result *result, void *arg)
{
    struct fixture *f = arg;
    f->stored += result->err == FERRY_OK;
    f->others += result->err != FERRY_OK;
}

static void append(struct fixture *f, struct ferry_source *source, uint64_t version)
{
    struct ferry_message m = {.payload = "x", .payload_bytes = 1};
    assert_int_equal(
        ferry_source_append(source, FAKE_TOPIC, 0, version, "c", 1, &m, 1, on_append, f), FERRY_OK);
}

static void appends_stay_in_order_and_single_when_the_leader_moves(void **state)
{
    struct fixture *f = *state;
    struct ferry_id id = {.bytes = {1}};
    struct ferry_source *source;
    struct ferry_source_grant grant;
    open_client(f);
    assert_int_equal(ferry_source_open(&source, f->client, &id, 0, "test"), FERRY_OK);
    assert_int_equal(ferry_source_elect(source, 10000, WAIT_MS, &grant), FERRY_OK);
    for (uint64_t i = 0; i < 30; i++) {
        append(f, source, i);
        if (i == 10) {
            fake_lead(f->brokers[0], -1, 1, 1);
        } else if (i == 20) {
            fake_broker_kill(f->brokers[1]);
            fake_control(f->brokers[0], 2);
            fake_lead(f->brokers[0], -1, 2, 2);
        }
        (void)ferry_poll(f->client, 2);
    }
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
    assert_int_equal(fake_end(f->brokers[0], 0), 30);
    /* One that was stored by the leader that died with the answer conflicts with itself. */
    assert_int_equal(f->stored + f->others, 30);
    assert_true(f->others <= 8);
    assert_int_equal(ferry_source_elect(source, 10000, WAIT_MS, &grant), FERRY_OK);
    ferry_source_close(&source);
}

/* ---- The controller. */

static void the_controller_is_found_by_its_hint_and_when_it_dies(void **state)
{
    struct fixture *f = *state;
    struct ferry_topic_spec spec = {.name = FAKE_TOPIC, .partitions = PARTITIONS};
    fake_control(f->brokers[0], 2);
    open_client(f);
    assert_int_equal(ferry_topic_create(f->client, &spec, WAIT_MS), FERRY_OK);
    assert_int_equal(fake_requests(f->brokers[2], COMMAND_TOPIC_CREATE), 1);
    fake_broker_freeze(f->brokers[2], true);
    fake_control(f->brokers[0], 1);
    int64_t died_us = clock_monotonic_us();
    assert_int_equal(ferry_topic_create(f->client, &spec, WAIT_MS), FERRY_OK);
    print_message("answered %lld ms after the controller froze\n",
                  (long long)(clock_monotonic_us() - died_us) / 1000);
    assert_true(clock_monotonic_us() - died_us < 2500000);
    fake_broker_freeze(f->brokers[2], false);
}

/* A long poll is out at a controller that freezes: it is asked elsewhere long before the poll ends.
 */
static void a_long_poll_does_not_wait_for_a_frozen_broker(void **state)
{
    struct fixture *f = *state;
    struct ferry_topic_spec spec = {.name = FAKE_TOPIC, .partitions = PARTITIONS};
    struct lease_reply granted = {.granted = true, .token = 5};
    struct ferry_lease lease;
    struct buf body;
    open_client(f);
    assert_int_equal(ferry_topic_create(f->client, &spec, WAIT_MS), FERRY_OK);
    buf_init(&body, 1024);
    lease_reply_encode(&body, &granted);
    fake_can(f->brokers[1], COMMAND_LEASE_ACQUIRE, buf_bytes(&body));
    buf_fini(&body);
    fake_broker_freeze(f->brokers[0], true);
    fake_control(f->brokers[0], 1);
    int64_t asked_us = clock_monotonic_us();
    assert_int_equal(ferry_lease_acquire(f->client, "job", "me", 5000, 9000, WAIT_MS, &lease),
                     FERRY_OK);
    assert_int_equal(lease.token, 5);
    assert_true(clock_monotonic_us() - asked_us < 4000000);
    fake_broker_freeze(f->brokers[0], false);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_hint_is_followed_without_asking_for_metadata),
        CASE(without_a_hint_metadata_is_asked),
        CASE(a_hint_to_a_stranger_is_not_followed),
        CASE(brokers_that_point_at_each_other_are_not_asked_in_a_storm),
        CASE(leaders_that_flap_cost_no_message),
        CASE(nobody_leads_for_a_while_and_then_somebody_does),
        CASE(a_leader_that_is_not_ready_is_asked_again),
        CASE(a_dead_leader_costs_little_more_than_the_election),
        CASE(a_frozen_leader_is_left_and_does_no_harm_when_it_wakes),
        CASE(what_the_old_leader_stored_is_not_stored_again),
        CASE(metadata_that_names_a_dead_node_is_asked_again),
        CASE(every_node_dies_once_under_load),
        CASE(a_dead_first_server_costs_little_at_the_start),
        CASE(a_broker_that_is_behind_does_not_make_a_topic_unknown),
        CASE(a_consumer_reads_on_where_it_was_whoever_leads),
        CASE(an_end_that_is_behind_after_a_failover_is_not_told),
        CASE(appends_stay_in_order_and_single_when_the_leader_moves),
        CASE(the_controller_is_found_by_its_hint_and_when_it_dies),
        CASE(a_long_poll_does_not_wait_for_a_frozen_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
