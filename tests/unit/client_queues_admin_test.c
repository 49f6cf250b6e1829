/* The administration of subscriptions, dead letters, schedules, quotas and traces: every partition
 * is asked for what it has to say, pages go on where the last one ended, and what is not answered
 * is an error and never a zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "lib/fake_broker.h"

#define WAIT_MS    10000
#define PARTITIONS 2

struct fixture {
    struct fake_broker *broker;
    struct ferry_conf *conf;
    struct ferry_client *client;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(PARTITIONS, NULL, NULL);
    f->conf = fake_conf(f->broker);
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 0);
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

#define CAN(broker, command, type, ...)                                                            \
    do {                                                                                           \
        struct type *value_ = mem_zalloc(1, sizeof(*value_));                                      \
        struct buf body_;                                                                          \
        assert_non_null(value_);                                                                   \
        *value_ = (struct type){__VA_ARGS__};                                                      \
        buf_init(&body_, 1u << 20);                                                                \
        type##_encode(&body_, value_);                                                             \
        fake_can(broker, command, buf_bytes(&body_));                                              \
        buf_fini(&body_);                                                                          \
        mem_free(value_);                                                                          \
    } while (0)

/* The n-th request of the command, decoded. */
#define ASKED(broker, command, n, type, into)                                                      \
    assert_int_equal(type##_decode(fake_asked(broker, command, n), into), FERRY_OK)

static void can_empty(struct fake_broker *broker, enum command command)
{
    struct buf body;
    buf_init(&body, 16);
    empty_encode(&body);
    fake_can(broker, command, buf_bytes(&body));
    buf_fini(&body);
}

static bool is_text(struct bytes bytes, const char *text)
{
    return bytes_equal(bytes, bytes_of_string(text));
}

/* ---- Topics and subscriptions. */

static void a_topic_may_drop_what_is_acked(void **state)
{
    struct fixture *f = *state;
    struct topic_create_request asked;
    const struct ferry_topic_spec spec = {.name = "jobs", .retention_acked = true};
    CAN(f->broker, COMMAND_TOPIC_CREATE, topic_create_reply, .topic_id = {{1}});
    assert_int_equal(ferry_topic_create(f->client, &spec, WAIT_MS), FERRY_OK);
    ASKED(f->broker, COMMAND_TOPIC_CREATE, 0, topic_create_request, &asked);
    assert_true(asked.retention_acked);
}

static void a_subscription_is_made_on_every_partition_as_it_was_asked(void **state)
{
    struct fixture *f = *state;
    struct subscription_create_request asked;
    const struct ferry_subscription_spec spec = {.mode = FERRY_MODE_KEYED,
                                                 .from = FERRY_FROM_END,
                                                 .lease_ms = 5000,
                                                 .max_deliveries = 3,
                                                 .backoff_min_ms = 100,
                                                 .backoff_max_ms = 2000,
                                                 .key_policy = FERRY_KEY_PARK,
                                                 .inflight_max = 7};
    CAN(f->broker, COMMAND_SUBSCRIPTION_CREATE, subscription_create_reply, .position = 4);
    assert_int_equal(ferry_subscription_make(f->client, "t", "s", &spec, WAIT_MS), FERRY_OK);
    assert_int_equal(fake_requests(f->broker, COMMAND_SUBSCRIPTION_CREATE), PARTITIONS);
    ASKED(f->broker, COMMAND_SUBSCRIPTION_CREATE, 0, subscription_create_request, &asked);
    assert_int_equal(asked.mode, SUBSCRIPTION_KEYED);
    assert_int_equal(asked.from, FERRY_FROM_END);
    assert_int_equal(asked.lease_ms, 5000);
    assert_int_equal(asked.max_deliveries, 3);
    assert_int_equal(asked.backoff_min_ms, 100);
    assert_int_equal(asked.backoff_max_ms, 2000);
    assert_int_equal(asked.key_policy, KEY_POLICY_PARK);
    assert_int_equal(asked.inflight_max, 7);
    assert_int_equal(asked.priority_age_ms, UINT32_MAX); /* The default. */
}

static void what_cannot_be_is_not_asked(void **state)
{
    struct fixture *f = *state;
    const struct ferry_subscription_spec bad[] = {
        {.from = -3},
        {.lease_ms = 50},
        {.lease_ms = LEASE_MAX_MS + 1},
        {.backoff_min_ms = 10, .backoff_max_ms = 5},
        {.mode = (enum ferry_mode)4},
        {.key_policy = (enum ferry_key_policy)3},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ferry_subscription_make(f->client, "t", "s", &bad[i], WAIT_MS),
                         FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_int_equal(ferry_subscription_make(f->client, "t", "!", &bad[1], WAIT_MS),
                     FERRY_ERR_INVALID_ARGUMENT);
    const struct ferry_subscription_spec good = {.mode = FERRY_MODE_QUEUE};
    assert_int_equal(ferry_subscription_make(f->client, "t", "!", &good, WAIT_MS),
                     FERRY_ERR_BAD_NAME);
    assert_int_equal(fake_requests(f->broker, COMMAND_SUBSCRIPTION_CREATE), 0);
}

/* And the broker's own words of a refusal are kept. */
static void settings_are_altered_and_pauses_told(void **state)
{
    struct fixture *f = *state;
    char detail[100];
    struct subscription_alter_request asked;
    const struct ferry_subscription_spec spec = {.lease_ms = 9000, .key_policy = FERRY_KEY_WAIT};
    can_empty(f->broker, COMMAND_SUBSCRIPTION_ALTER);
    assert_int_equal(ferry_subscription_alter(f->client, "t", "s", &spec, WAIT_MS), FERRY_OK);
    ASKED(f->broker, COMMAND_SUBSCRIPTION_ALTER, 0, subscription_alter_request, &asked);
    assert_int_equal(asked.lease_ms, 9000);
    assert_int_equal(asked.priority_age_ms, UINT32_MAX); /* As it is. */
    assert_int_equal(asked.key_policy, 1);
    assert_int_equal(asked.pause, 0);
    assert_int_equal(ferry_subscription_pause(f->client, "t", "s", true, WAIT_MS), FERRY_OK);
    assert_int_equal(ferry_subscription_pause(f->client, "t", "s", false, WAIT_MS), FERRY_OK);
    ASKED(f->broker, COMMAND_SUBSCRIPTION_ALTER, 2, subscription_alter_request, &asked);
    assert_int_equal(asked.pause, 1);
    assert_int_equal(asked.lease_ms, 0);
    ASKED(f->broker, COMMAND_SUBSCRIPTION_ALTER, 5, subscription_alter_request, &asked);
    assert_int_equal(asked.pause, 2);
    fake_rule(f->broker, COMMAND_SUBSCRIPTION_ALTER, 1, 1, FAKE_REFUSE, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_subscription_alter(f->client, "t", "s", &spec, WAIT_MS),
                     FERRY_ERR_INVALID_ARGUMENT);
    ferry_error_detail(f->client, detail, sizeof(detail));
    assert_string_equal(detail, "told to refuse");
}

static void the_state_of_a_queue_is_told_by_partition(void **state)
{
    struct fixture *f = *state;
    struct ferry_subscription_info *info = NULL;
    CAN(f->broker, COMMAND_SUBSCRIPTION_GET, subscription_get_reply, .mode = SUBSCRIPTION_KEYED,
        .position = 10, .end_offset = 100, .lag_ms = 1500, .paused = true, .lease_ms = 30000,
        .max_deliveries = 10, .key_policy = KEY_POLICY_PARK, .ready = 5, .leased = 4, .waiting = 3,
        .dead = 2, .acked = 80, .died = 6, .expired = 1, .revived = 4, .handed_out = 90,
        .failed = 9, .released = 8);
    fake_rule(f->broker, COMMAND_SUBSCRIPTION_GET, 1, 1, FAKE_REFUSE, FERRY_ERR_CORRUPT);
    assert_int_equal(ferry_subscription_info(f->client, "t", "s", WAIT_MS, &info), FERRY_OK);
    assert_string_equal(info->mode, "keyed");
    assert_true(info->paused);
    assert_int_equal(info->spec.mode, FERRY_MODE_KEYED);
    assert_int_equal(info->spec.lease_ms, 30000);
    assert_int_equal(info->spec.key_policy, FERRY_KEY_PARK);
    size_t told = info->partitions[0].err == FERRY_OK ? 0 : 1;
    const struct ferry_subscription_partition *p = &info->partitions[told];
    assert_int_equal(p->ready, 5);
    assert_int_equal(p->leased, 4);
    assert_int_equal(p->waiting, 3);
    assert_int_equal(p->dead, 2);
    assert_int_equal(p->acked, 80);
    assert_int_equal(p->died, 6);
    assert_int_equal(p->expired, 1);
    assert_int_equal(p->revived, 4);
    assert_int_equal(p->handed_out, 90);
    assert_int_equal(p->failed, 9);
    assert_int_equal(p->released, 8);
    assert_int_equal(p->lag_messages, 12);
    assert_int_equal(info->partitions[1 - told].err, FERRY_ERR_CORRUPT);
    ferry_subscription_info_free(&info);
}

static void a_reset_tells_where_each_partition_was_and_is(void **state)
{
    struct fixture *f = *state;
    struct ferry_reset_partition *partitions;
    struct subscription_reset_request asked;
    size_t count;
    CAN(f->broker, COMMAND_SUBSCRIPTION_RESET, subscription_reset_reply, .from = 90, .to = 7);
    CAN(f->broker, COMMAND_OFFSET_FIND, offset_find_reply, .offset = 7, .end_offset = 100);
    assert_int_equal(ferry_subscription_reset(f->client, "t", "s", FERRY_FROM_START, -1, true,
                                              WAIT_MS, &partitions, &count),
                     FERRY_OK);
    assert_int_equal(count, PARTITIONS);
    assert_int_equal(partitions[1].partition, 1);
    assert_int_equal(partitions[1].from, 90);
    assert_int_equal(partitions[1].to, 7);
    ferry_reset_free(&partitions);
    ASKED(f->broker, COMMAND_SUBSCRIPTION_RESET, 0, subscription_reset_request, &asked);
    assert_true(asked.dry_run);
    assert_int_equal(asked.to, FERRY_FROM_START);
    assert_int_equal(ferry_subscription_reset(f->client, "t", "s", 0, 1700000000000, false, WAIT_MS,
                                              &partitions, &count),
                     FERRY_OK);
    ferry_reset_free(&partitions);
    ASKED(f->broker, COMMAND_SUBSCRIPTION_RESET, PARTITIONS, subscription_reset_request, &asked);
    assert_false(asked.dry_run);
    assert_int_equal(asked.to, 7);
    /* Members are given partitions anew by that of partition 0: it comes last. */
    struct subscription_reset_request last;
    ASKED(f->broker, COMMAND_SUBSCRIPTION_RESET, 2 * PARTITIONS - 1, subscription_reset_request,
          &last);
    for (int i = PARTITIONS; i < 2 * PARTITIONS - 1; i++) {
        ASKED(f->broker, COMMAND_SUBSCRIPTION_RESET, i, subscription_reset_request, &asked);
        assert_true(asked.group > last.group);
    }
    fake_rule(f->broker, COMMAND_SUBSCRIPTION_RESET, 0, PARTITIONS, FAKE_REFUSE,
              FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(
        ferry_subscription_reset(f->client, "t", "s", 0, -1, false, WAIT_MS, &partitions, &count),
        FERRY_ERR_UNKNOWN_SUBSCRIPTION);
}

static void members_and_events_come_from_partition_0(void **state)
{
    struct fixture *f = *state;
    struct ferry_member *members;
    struct ferry_event *events;
    struct event_list_request asked;
    size_t count;
    CAN(f->broker, COMMAND_MEMBER_LIST, member_list_reply, .epoch = 4, .count = 1,
        .items = {{.member = bytes_of_string("w\x1b"),
                   .client = bytes_of_string("shop"),
                   .joined_ms = 1000,
                   .session_ms = 10000,
                   .silent_ms = 20,
                   .assigned = 3,
                   .held = 2}});
    CAN(f->broker, COMMAND_EVENT_LIST, event_list_reply, .more = true, .count = 1,
        .items = {{.number = 8, .kind = bytes_of_string("joined"), .who = bytes_of_string("w")}});
    CAN(f->broker, COMMAND_EVENT_LIST, event_list_reply, .count = 1,
        .items = {{.number = 9, .kind = bytes_of_string("left"), .why = bytes_of_string("bye")}});
    assert_int_equal(ferry_members_list(f->client, "t", "s", WAIT_MS, &members, &count), FERRY_OK);
    assert_int_equal(count, 1);
    assert_string_equal(members[0].name, "w?");
    assert_string_equal(members[0].client, "shop");
    assert_int_equal(members[0].held, 2);
    ferry_members_free(&members);
    assert_int_equal(ferry_events_list(f->client, "t", "s", 5, WAIT_MS, &events, &count), FERRY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(events[0].kind, "joined");
    assert_string_equal(events[1].why, "bye");
    ferry_events_free(&events);
    ASKED(f->broker, COMMAND_EVENT_LIST, 0, event_list_request, &asked);
    assert_int_equal(asked.after, 5);
    ASKED(f->broker, COMMAND_EVENT_LIST, 1, event_list_request, &asked);
    assert_int_equal(asked.after, 8);
}

/* ---- Dead letters. */

static void dead_letters_are_listed_partition_by_partition(void **state)
{
    struct fixture *f = *state;
    struct ferry_dead *dead;
    struct dead_list_request asked;
    struct ferry_dead_place place = {.partition = 0};
    size_t count;
    bool more;
    CAN(f->broker, COMMAND_DEAD_LIST, dead_list_reply, .next = 6, .total = 2, .count = 1,
        .items = {{.number = 5,
                   .offset = 50,
                   .failed = 3,
                   .reason = bytes_of_string("no"),
                   .failure_count = 1,
                   .failures = {{.kind = FAILURE_REJECT, .member = bytes_of_string("w")}}}});
    CAN(f->broker, COMMAND_DEAD_LIST, dead_list_reply, .next = 0, .count = 0);
    CAN(f->broker, COMMAND_DEAD_LIST, dead_list_reply, .next = 3, .total = 9, .count = 1,
        .items = {{.number = 2, .revived = true}});
    assert_int_equal(
        ferry_dead_list(f->client, "t", "s", "no", &place, 2, WAIT_MS, &dead, &count, &more),
        FERRY_OK);
    assert_int_equal(count, 2);
    assert_true(more);
    assert_int_equal(dead[0].partition, 0);
    assert_int_equal(dead[0].number, 5);
    assert_string_equal(dead[0].reason, "no");
    assert_int_equal(dead[0].failures[0].kind, FERRY_FAILURE_REJECT);
    assert_string_equal(dead[0].failures[0].member, "w");
    assert_int_equal(dead[1].partition, 1);
    assert_true(dead[1].revived);
    assert_int_equal(place.partition, 1);
    assert_int_equal(place.number, 3);
    ferry_dead_free(&dead);
    ASKED(f->broker, COMMAND_DEAD_LIST, 1, dead_list_request, &asked);
    assert_int_equal(asked.from, 6);
    assert_int_equal(asked.count_max, 1);
    assert_true(is_text(asked.reason, "no"));
}

/* A page that leads back would be asked for for ever, one that is too long would be too much. */
static void a_list_that_leads_nowhere_is_not_followed(void **state)
{
    struct fixture *f = *state;
    struct ferry_dead *dead;
    struct ferry_dead_place place = {.partition = 0, .number = 7};
    size_t count;
    bool more;
    CAN(f->broker, COMMAND_DEAD_LIST, dead_list_reply, .next = 7);
    CAN(f->broker, COMMAND_DEAD_LIST, dead_list_reply, .count = 2,
        .items = {{.number = 8}, {.number = 9}});
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            ferry_dead_list(f->client, "t", "s", NULL, &place, 1, WAIT_MS, &dead, &count, &more),
            FERRY_ERR_BAD_FRAME);
    }
}

static void dead_letters_are_replayed_and_dropped_where_they_are(void **state)
{
    struct fixture *f = *state;
    struct dead_change_request asked;
    const struct ferry_dead_place places[] = {{0, 5}, {0, 6}, {1, 2}};
    size_t done;
    CAN(f->broker, COMMAND_DEAD_CHANGE, dead_change_reply, .done = 2);
    CAN(f->broker, COMMAND_DEAD_CHANGE, dead_change_reply, .done = 0);
    assert_int_equal(ferry_dead_replay(f->client, "t", "s", places, 3, NULL, WAIT_MS, &done),
                     FERRY_OK);
    assert_int_equal(done, 2);
    ASKED(f->broker, COMMAND_DEAD_CHANGE, 0, dead_change_request, &asked);
    assert_int_equal(asked.kind, DEAD_REPLAY);
    assert_int_equal(asked.count, 2);
    assert_int_equal(asked.items[1].number, 6);
    assert_int_equal(fake_asked_attachment(f->broker, COMMAND_DEAD_CHANGE, 0).size, 0);
    fake_rule(f->broker, COMMAND_DEAD_CHANGE, 0, 1, FAKE_DROP_REPLY, 0);
    assert_int_equal(ferry_dead_drop(f->client, "t", "s", &places[2], 1, WAIT_MS, &done), FERRY_OK);
    assert_int_equal(done, 1); /* Our own first try did it. */
    ASKED(f->broker, COMMAND_DEAD_CHANGE, 2, dead_change_request, &asked);
    assert_int_equal(asked.kind, DEAD_DROP);
}

static void an_edited_dead_letter_travels_as_a_batch(void **state)
{
    struct fixture *f = *state;
    struct batch_header h;
    struct batch_reader reader;
    struct batch_record record;
    struct err_text e;
    enum ferry_err err;
    size_t done;
    const struct ferry_dead_place places[] = {{0, 5}, {0, 6}};
    const struct ferry_header header = {.name = "n", .value = "v", .value_bytes = 1};
    const struct ferry_message edited = {.key = "k",
                                         .key_bytes = 1,
                                         .payload = "better",
                                         .payload_bytes = 6,
                                         .headers = &header,
                                         .header_count = 1};
    CAN(f->broker, COMMAND_DEAD_CHANGE, dead_change_reply, .done = 1);
    assert_int_equal(ferry_dead_replay(f->client, "t", "s", places, 2, &edited, WAIT_MS, &done),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_dead_replay(f->client, "t", "s", places, 1, &edited, WAIT_MS, &done),
                     FERRY_OK);
    assert_int_equal(done, 1);
    struct bytes batch = fake_asked_attachment(f->broker, COMMAND_DEAD_CHANGE, 0);
    assert_int_equal(batch_check(batch, &h, &e), FERRY_OK);
    assert_int_equal(h.count, 1);
    batch_reader_init(&reader, batch);
    assert_true(batch_reader_next(&reader, &record, &err));
    assert_true(is_text(record.payload, "better"));
    assert_true(is_text(record.key, "k"));
}

/* ---- Schedules. */

static void delayed_messages_are_listed_and_counted(void **state)
{
    struct fixture *f = *state;
    struct ferry_scheduled *scheduled;
    struct ferry_schedule_id after = {.partition = 0};
    struct schedule_list_request asked;
    uint64_t total;
    size_t count;
    bool more;
    CAN(f->broker, COMMAND_SCHEDULE_LIST, schedule_list_reply, .total = 3, .more = true, .count = 2,
        .items = {{.due_ms = 1000, .number = 1, .key = bytes_of_string("k")},
                  {.due_ms = 1000, .number = 2}});
    CAN(f->broker, COMMAND_SCHEDULE_LIST, schedule_list_reply, .total = 3, .count = 1,
        .items = {{.due_ms = 2000, .number = 3}});
    CAN(f->broker, COMMAND_SCHEDULE_LIST, schedule_list_reply, .total = 3);
    assert_int_equal(
        ferry_schedule_list(f->client, "t", &after, 10, WAIT_MS, &scheduled, &count, &more, &total),
        FERRY_OK);
    assert_int_equal(count, 3);
    assert_false(more);
    assert_int_equal(total, 3 * PARTITIONS);
    assert_string_equal(scheduled[0].key, "k");
    assert_int_equal(scheduled[2].schedule.due_ms, 2000);
    assert_int_equal(scheduled[2].schedule.number, 3);
    ferry_scheduled_free(&scheduled);
    ASKED(f->broker, COMMAND_SCHEDULE_LIST, 1, schedule_list_request, &asked);
    assert_int_equal(asked.after_due_ms, 1000);
    assert_int_equal(asked.after_number, 2);
}

/* The rest of a page that was larger than what was wanted is not passed over. */
static void a_short_page_goes_on_where_it_ended(void **state)
{
    struct fixture *f = *state;
    struct ferry_scheduled *scheduled;
    struct ferry_schedule_id after = {.partition = 0};
    size_t count;
    bool more;
    CAN(f->broker, COMMAND_SCHEDULE_LIST, schedule_list_reply, .total = 2, .count = 2,
        .items = {{.due_ms = 1000, .number = 1}, {.due_ms = 1000, .number = 2}});
    assert_int_equal(
        ferry_schedule_list(f->client, "t", &after, 1, WAIT_MS, &scheduled, &count, &more, NULL),
        FERRY_OK);
    assert_int_equal(count, 1);
    assert_true(more);
    assert_int_equal(after.partition, 0);
    assert_int_equal(after.number, 1);
    ferry_scheduled_free(&scheduled);
}

static void only_what_was_still_waiting_counts_as_cancelled(void **state)
{
    struct fixture *f = *state;
    const struct ferry_schedule_id schedules[] = {{0, 1000, 1}, {0, 1000, 2}, {1, 500, 7}};
    struct schedule_cancel_request asked;
    size_t done;
    CAN(f->broker, COMMAND_SCHEDULE_CANCEL, schedule_cancel_reply, .done = 1);
    assert_int_equal(ferry_schedule_cancel(f->client, "t", schedules, 3, WAIT_MS, &done), FERRY_OK);
    assert_int_equal(done, 2);
    ASKED(f->broker, COMMAND_SCHEDULE_CANCEL, 0, schedule_cancel_request, &asked);
    assert_int_equal(asked.count, 2);
    ASKED(f->broker, COMMAND_SCHEDULE_CANCEL, 1, schedule_cancel_request, &asked);
    assert_int_equal(asked.items[0].number, 7);
}

/* Set again with another key it would be in two partitions: it goes from the other. */
static void a_recurring_message_is_in_one_partition(void **state)
{
    struct fixture *f = *state;
    struct recurring_set_request asked;
    const struct ferry_message message = {
        .topic = "t", .partition = 1, .payload = "tick", .payload_bytes = 4};
    can_empty(f->broker, COMMAND_RECURRING_SET);
    CAN(f->broker, COMMAND_RECURRING_LIST, recurring_list_reply, .count = 1,
        .items = {{.name = bytes_of_string("tick"), .spec = bytes_of_string("@every 10s")}});
    assert_int_equal(
        ferry_recurring_set(f->client, "tick", "0 9 * * 1", "Europe/Berlin", &message, WAIT_MS),
        FERRY_OK);
    assert_int_equal(fake_requests(f->broker, COMMAND_RECURRING_SET), 2);
    ASKED(f->broker, COMMAND_RECURRING_SET, 0, recurring_set_request, &asked);
    assert_int_equal(asked.group, FAKE_GROUP + 1);
    assert_true(is_text(asked.zone, "Europe/Berlin"));
    assert_int_not_equal(fake_asked_attachment(f->broker, COMMAND_RECURRING_SET, 0).size, 0);
    ASKED(f->broker, COMMAND_RECURRING_SET, 1, recurring_set_request, &asked);
    assert_int_equal(asked.group, FAKE_GROUP);
    assert_int_equal(fake_asked_attachment(f->broker, COMMAND_RECURRING_SET, 1).size, 0);
}

static void recurring_messages_are_listed_and_removed(void **state)
{
    struct fixture *f = *state;
    struct ferry_recurring *recurring;
    size_t count;
    can_empty(f->broker, COMMAND_RECURRING_SET);
    CAN(f->broker, COMMAND_RECURRING_LIST, recurring_list_reply, .count = 1,
        .items = {{.name = bytes_of_string("tick"),
                   .spec = bytes_of_string("@every 10s"),
                   .next_ms = 5000,
                   .fired = 3}});
    assert_int_equal(ferry_recurring_list(f->client, "t", WAIT_MS, &recurring, &count), FERRY_OK);
    assert_int_equal(count, PARTITIONS);
    assert_int_equal(recurring[1].partition, 1);
    assert_string_equal(recurring[1].spec, "@every 10s");
    assert_int_equal(recurring[1].fired, 3);
    ferry_recurring_free(&recurring);
    assert_int_equal(ferry_recurring_remove(f->client, "t", "tick", WAIT_MS), FERRY_OK);
    assert_int_equal(fake_requests(f->broker, COMMAND_RECURRING_SET), PARTITIONS);
    assert_int_equal(ferry_recurring_remove(f->client, "t", "tock", WAIT_MS),
                     FERRY_ERR_UNKNOWN_MESSAGE);
}

/* ---- Finding, tracing, quotas. */

static void not_found_is_said_only_when_all_have_answered(void **state)
{
    struct fixture *f = *state;
    const struct ferry_id id = {{9}};
    int32_t partition;
    int64_t offset;
    CAN(f->broker, COMMAND_MESSAGE_FIND, message_find_reply, .found = false);
    assert_int_equal(ferry_message_find(f->client, "t", &id, WAIT_MS, &partition, &offset),
                     FERRY_ERR_UNKNOWN_MESSAGE);
    fake_rule(f->broker, COMMAND_MESSAGE_FIND, 0, 1, FAKE_REFUSE, FERRY_ERR_CORRUPT);
    assert_int_equal(ferry_message_find(f->client, "t", &id, WAIT_MS, &partition, &offset),
                     FERRY_ERR_CORRUPT);
    const struct ferry_id none = {{0}};
    assert_int_equal(ferry_message_find(f->client, "t", &none, WAIT_MS, &partition, &offset),
                     FERRY_ERR_INVALID_ARGUMENT);
}

static void found_in_one_partition_is_found(void **state)
{
    struct fixture *f = *state;
    const struct ferry_id id = {{9}};
    int32_t partition;
    int64_t offset;
    CAN(f->broker, COMMAND_MESSAGE_FIND, message_find_reply, .found = true, .offset = 77);
    fake_rule(f->broker, COMMAND_MESSAGE_FIND, 0, 1, FAKE_REFUSE, FERRY_ERR_CORRUPT);
    assert_int_equal(ferry_message_find(f->client, "t", &id, WAIT_MS, &partition, &offset),
                     FERRY_OK);
    assert_int_equal(offset, 77);
}

static void a_trace_goes_on_until_the_end_of_the_log(void **state)
{
    struct fixture *f = *state;
    struct ferry_trace_event *events;
    struct trace_request asked;
    uint64_t next = 0, end = 0;
    size_t count;
    CAN(f->broker, COMMAND_TRACE, trace_reply, .next = 40, .end = 90, .count = 1,
        .events = {{.index = 12,
                    .kind = TRACE_NACKED,
                    .time_ms = 5,
                    .node = 2,
                    .subscription = bytes_of_string("s"),
                    .member = bytes_of_string("w"),
                    .reason = bytes_of_string("because\n"),
                    .due_ms = 1000}});
    CAN(f->broker, COMMAND_TRACE, trace_reply, .next = 30, .end = 90);
    assert_int_equal(ferry_trace(f->client, "t", 1, 7, WAIT_MS, &next, &end, &events, &count),
                     FERRY_OK);
    assert_int_equal(next, 40);
    assert_int_equal(end, 90);
    assert_int_equal(events[0].kind, FERRY_TRACE_NACKED);
    assert_int_equal(events[0].node, 2);
    assert_string_equal(events[0].reason, "because?");
    ferry_trace_free(&events);
    assert_int_equal(ferry_trace(f->client, "t", 1, 7, WAIT_MS, &next, &end, &events, &count),
                     FERRY_ERR_BAD_FRAME); /* It leads back. */
    ASKED(f->broker, COMMAND_TRACE, 1, trace_request, &asked);
    assert_int_equal(asked.after, 40);
    assert_int_equal(asked.offset, 7);
}

static void quotas_are_set_and_listed(void **state)
{
    struct fixture *f = *state;
    struct ferry_quota *quotas;
    struct quota_set_request set;
    struct quota_list_request asked;
    size_t count;
    const struct ferry_quota quota = {
        .client = "shop", .bytes_per_second = 1000, .requests_per_second = 10};
    can_empty(f->broker, COMMAND_QUOTA_SET);
    CAN(f->broker, COMMAND_QUOTA_LIST, quota_list_reply, .more = true, .count = 1,
        .items = {{.client = bytes_of_string("a"), .topic = bytes_of_string("t")}});
    CAN(f->broker, COMMAND_QUOTA_LIST, quota_list_reply, .count = 1,
        .items = {{.client = bytes_of_string("b"), .messages_per_second = 5}});
    assert_int_equal(ferry_quota_set(f->client, &quota, WAIT_MS), FERRY_OK);
    ASKED(f->broker, COMMAND_QUOTA_SET, 0, quota_set_request, &set);
    assert_true(is_text(set.quota.client, "shop"));
    assert_int_equal(set.quota.bytes_per_second, 1000);
    assert_int_equal(set.quota.requests_per_second, 10);
    assert_int_equal(ferry_quota_list(f->client, WAIT_MS, &quotas, &count), FERRY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(quotas[0].topic, "t");
    assert_int_equal(quotas[1].messages_per_second, 5);
    ferry_quotas_free(&quotas);
    ASKED(f->broker, COMMAND_QUOTA_LIST, 1, quota_list_request, &asked);
    assert_true(is_text(asked.after_client, "a"));
    assert_true(is_text(asked.after_topic, "t"));
    const struct ferry_quota bad = {.topic = "!"};
    assert_int_equal(ferry_quota_set(f->client, &bad, WAIT_MS), FERRY_ERR_BAD_NAME);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_topic_may_drop_what_is_acked),
        TEST(a_subscription_is_made_on_every_partition_as_it_was_asked),
        TEST(what_cannot_be_is_not_asked),
        TEST(settings_are_altered_and_pauses_told),
        TEST(the_state_of_a_queue_is_told_by_partition),
        TEST(a_reset_tells_where_each_partition_was_and_is),
        TEST(members_and_events_come_from_partition_0),
        TEST(dead_letters_are_listed_partition_by_partition),
        TEST(a_list_that_leads_nowhere_is_not_followed),
        TEST(dead_letters_are_replayed_and_dropped_where_they_are),
        TEST(an_edited_dead_letter_travels_as_a_batch),
        TEST(delayed_messages_are_listed_and_counted),
        TEST(a_short_page_goes_on_where_it_ended),
        TEST(only_what_was_still_waiting_counts_as_cancelled),
        TEST(a_recurring_message_is_in_one_partition),
        TEST(recurring_messages_are_listed_and_removed),
        TEST(not_found_is_said_only_when_all_have_answered),
        TEST(found_in_one_partition_is_found),
        TEST(a_trace_goes_on_until_the_end_of_the_log),
        TEST(quotas_are_set_and_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
