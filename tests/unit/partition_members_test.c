/* Groups of members: joining, leaving, dying, handing over one by one, fencing, and the events that
 * tell of it; on one replica, by hand. */
#include "lib/partition_fixture.h"

#include <stdio.h>

#include "partition/members.h"

#define SESSION_MS 6000

static const struct bytes nobody = {0};

/* A client of the group: what it has is what it was told last; letting go takes one beat. */
struct client {
    const char *name, *zone, *zones;
    uint64_t instance;
    uint32_t partitions, session_ms;
    uint32_t held_count;
    struct assigned_partition held[PARTITIONS_MAX];
    struct member_heartbeat_reply reply;
};

static void make(struct part_fixture *f, const char *name, uint32_t mode)
{
    struct subscription_create_request q = {
        .name = bytes_of_string(name), .mode = mode, .from = FERRY_FROM_START};
    assert_int_equal(partition_subscription_make(f->p, &q, bytes_of_string("admin"), f->now_ms,
                                                 f->now_us, part_ticket(f)),
                     FERRY_OK);
    part_turn(f);
}

static struct client client(const char *name, uint64_t instance)
{
    return (struct client){
        .name = name, .instance = instance, .partitions = 8, .session_ms = SESSION_MS};
}

static enum ferry_err send(struct part_fixture *f, const char *group, const struct client *c,
                           struct partition_ticket **t)
{
    static struct member_heartbeat_request q;
    q = (struct member_heartbeat_request){.subscription = bytes_of_string(group),
                                          .member = bytes_of_string(c->name),
                                          .instance = part_id(c->instance),
                                          .session_ms = c->session_ms,
                                          .partitions = c->partitions,
                                          .held_count = c->held_count};
    q.zone = c->zone != NULL ? bytes_of_string(c->zone) : nobody;
    q.zones = c->zones != NULL ? bytes_of_string(c->zones) : nobody;
    memcpy(q.held, c->held, c->held_count * sizeof(c->held[0]));
    *t = part_ticket(f);
    return partition_member_heartbeat(f->p, &q, bytes_of_string("client"), f->now_ms, f->now_us,
                                      *t);
}

static enum ferry_err answer(struct part_fixture *f, const char *group, struct client *c)
{
    struct ferry_id instance = part_id(c->instance);
    return partition_member_assignment(f->p, bytes_of_string(group), bytes_of_string(c->name),
                                       &instance, &c->reply);
}

static enum ferry_err try_beat_of(struct part_fixture *f, const char *group, struct client *c)
{
    struct partition_ticket *t;
    enum ferry_err err = send(f, group, c, &t);
    part_turn(f);
    if (err == FERRY_OK) {
        err = t->base.err != FERRY_OK ? t->base.err : answer(f, group, c);
    }
    return err;
}

/* A beat, and what it says is done before the next one. */
static void beat(struct part_fixture *f, struct client *c)
{
    assert_int_equal(try_beat_of(f, "s", c), FERRY_OK);
    c->held_count = c->reply.count;
    memcpy(c->held, c->reply.assigned, c->reply.count * sizeof(c->held[0]));
}

/* A beat after which it goes on with what it had. */
static void beat_and_keep(struct part_fixture *f, struct client *c)
{
    assert_int_equal(try_beat_of(f, "s", c), FERRY_OK);
}

static bool has(const struct client *c, uint32_t partition, uint64_t *epoch)
{
    for (uint32_t i = 0; i < c->reply.count; i++) {
        if (c->reply.assigned[i].partition == partition) {
            *epoch = c->reply.assigned[i].epoch;
            return true;
        }
    }
    return false;
}

static void leave(struct part_fixture *f, const struct client *c, const char *why)
{
    struct member_leave_request q = {.subscription = bytes_of_string("s"),
                                     .member = bytes_of_string(c->name),
                                     .instance = part_id(c->instance),
                                     .reason = bytes_of_string(why)};
    assert_int_equal(partition_member_leave(f->p, &q, f->now_ms, f->now_us, part_ticket(f)),
                     FERRY_OK);
    part_turn(f);
}

static void open_group(struct part_fixture *f)
{
    part_open(f);
    make(f, "s", SUBSCRIPTION_STREAM);
}

static void the_first_member_has_everything_with_its_first_beat(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    open_group(f);
    a = client("a", 1);
    beat(f, &a);
    assert_int_equal(a.reply.count, 8);
    uint64_t epoch = a.reply.epoch;
    assert_int_equal(a.reply.assigned[7].epoch, epoch);
    assert_int_equal(a.reply.heartbeat_ms, SESSION_MS / 3);
    beat(f, &a);
    assert_int_equal(a.reply.epoch, epoch); /* Nothing changes by itself. */
    assert_int_equal(a.reply.count, 8);
}

static void a_partition_is_given_only_when_the_one_who_had_it_has_let_go(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    uint64_t old = 0, anew = 0;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    beat(f, &a);
    beat(f, &b);
    assert_int_equal(b.reply.count, 0); /* All of it is still a's. */
    for (int i = 0; i < 3; i++) {
        beat_and_keep(f, &a); /* It is slow to stop. */
        assert_int_equal(a.reply.count, 4);
        beat(f, &b);
        assert_int_equal(b.reply.count, 0);
        assert_int_equal(b.reply.heartbeat_ms, 500);
    }
    beat(f, &a); /* Learns it, stops, */
    beat(f, &a); /* and says so. */
    beat(f, &b);
    assert_int_equal(a.reply.count, 4);
    assert_int_equal(b.reply.count, 4);
    for (uint32_t p = 0; p < 8; p++) {
        assert_true(has(&a, p, &old) != has(&b, p, &anew));
    }
    assert_true(anew > old);
}

/* An answer that names it may be on its way while the report without it arrives. */
static void a_report_from_before_the_answer_does_not_let_go(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    beat_and_keep(f, &a); /* Told of all eight; holds nothing yet. */
    beat(f, &b);
    assert_int_equal(b.reply.count, 0);
    beat_and_keep(f, &a); /* Without them, but it may have been sent before the answer came. */
    beat(f, &b);
    assert_int_equal(b.reply.count, 0);
    a.held_count = a.reply.count;
    memcpy(a.held, a.reply.assigned, a.reply.count * sizeof(a.held[0]));
    beat_and_keep(f, &a); /* This one was sent after the answer that names only four. */
    beat(f, &b);
    assert_int_equal(b.reply.count, 4);
}

static void one_that_leaves_makes_room_at_once(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    beat(f, &a);
    beat(f, &b);
    leave(f, &a, "shutting down");
    beat(f, &b);
    assert_int_equal(b.reply.count, 8);
    leave(f, &a, "again");
}

static void one_that_is_silent_for_its_session_is_out(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    beat(f, &a);
    beat(f, &b);
    for (int i = 0; i < 5; i++) {
        part_pass_ms(f, 1000);
        beat(f, &b);
        assert_int_equal(b.reply.count, 0);
    }
    part_pass_ms(f, 1000);
    beat(f, &b);
    assert_int_equal(b.reply.count, 8);
    uint64_t epoch = 0;
    assert_true(has(&b, 0, &epoch) && epoch > a.reply.epoch);
    beat(f, &a); /* It is back: as a new one. */
    assert_int_equal(a.reply.count, 0);
}

static void a_newer_instance_takes_over_and_the_older_one_is_fenced(void **state)
{
    struct part_fixture *f = *state;
    static struct client old, young;
    uint64_t epoch = 0;
    open_group(f);
    old = client("a", 1);
    young = client("a", 2);
    beat(f, &old);
    beat(f, &young);
    assert_int_equal(young.reply.count, 8);
    assert_true(has(&young, 3, &epoch) && epoch > old.reply.epoch);
    assert_int_equal(try_beat_of(f, "s", &old), FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(try_beat_of(f, "s", &old), FERRY_ERR_MEMBER_FENCED);
    beat(f, &young);
    part_flush(f);
    part_crash(f);
    part_open(f);
    assert_int_equal(try_beat_of(f, "s", &old), FERRY_ERR_MEMBER_FENCED);
    beat(f, &young);
    assert_int_equal(young.reply.count, 8);
}

static void many_that_come_in_one_turn_are_in_with_two_entries(void **state)
{
    struct part_fixture *f = *state;
    static struct client clients[40];
    static char names[40][8];
    open_group(f);
    uint64_t before = replica_applied(partition_replica(f->p));
    for (uint64_t i = 0; i < 40; i++) {
        struct partition_ticket *t;
        (void)snprintf(names[i], sizeof(names[i]), "m%02u", (unsigned)i);
        clients[i] = client(names[i], i + 1);
        clients[i].partitions = 256;
        assert_int_equal(send(f, "s", &clients[i], &t), FERRY_OK);
    }
    part_turn(f);
    part_turn(f);
    assert_true(replica_applied(partition_replica(f->p)) - before <= 3);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 40; i++) {
            beat(f, &clients[i]);
        }
    }
    for (int i = 0; i < 40; i++) {
        assert_true(clients[i].reply.count == 6 || clients[i].reply.count == 7);
    }
}

static void more_partitions_are_shared_out_when_a_member_knows_of_them(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    open_group(f);
    a = client("a", 1);
    beat(f, &a);
    a.partitions = 12;
    beat(f, &a);
    assert_int_equal(a.reply.count, 12);
    a.partitions = 8; /* Another one that knows less changes nothing. */
    beat(f, &a);
    assert_int_equal(a.reply.count, 12);
}

static void members_have_the_partitions_of_their_zone(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    uint64_t epoch;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    a.zone = "east";
    b.zone = "west";
    a.zones = b.zones = "west west west west east east east -";
    beat(f, &a);
    beat(f, &b);
    for (int i = 0; i < 3; i++) {
        beat(f, &a);
        beat(f, &b);
    }
    for (uint32_t p = 0; p < 4; p++) {
        assert_true(has(&b, p, &epoch));
    }
    assert_int_equal(a.reply.count, 4);
}

static void everybody_of_a_queue_has_all_partitions(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    part_open(f);
    make(f, "q", SUBSCRIPTION_QUEUE);
    a = client("a", 1);
    b = client("b", 2);
    assert_int_equal(try_beat_of(f, "q", &a), FERRY_OK);
    assert_int_equal(try_beat_of(f, "q", &b), FERRY_OK);
    assert_int_equal(a.reply.count, 8);
    assert_int_equal(b.reply.count, 8);
}

static void what_a_member_may_not_say_is_refused(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    struct partition_ticket *t;
    open_group(f);
    a = client("a", 1);
    assert_int_equal(send(f, "other", &a, &t), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    a.name = "a b";
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_BAD_NAME);
    a = client("a", 1);
    a.session_ms = MEMBER_SESSION_MIN_MS - 1;
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    a.session_ms = MEMBER_SESSION_MAX_MS + 1;
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    a = client("a", 1);
    a.partitions = 0;
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    a.partitions = PARTITIONS_MAX + 1;
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    a.partitions = 1;
    a.held_count = 1;
    a.held[0].partition = PARTITIONS_MAX;
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    a.held_count = 0;
    a.zone = "a-zone-with-a-name-of-more-than-31-bytes";
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    assert_false(replica_wants_write(partition_replica(f->p), f->now_us));
}

static void a_group_has_room_for_so_many_members(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    struct partition_ticket *t;
    char name[16];
    open_group(f);
    for (uint64_t i = 0; i <= MEMBERS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "m%04u", (unsigned)i);
        a = client(name, i + 1);
        enum ferry_err err = send(f, "s", &a, &t);
        assert_int_equal(err, i < MEMBERS_MAX ? FERRY_OK : FERRY_ERR_LIMIT_REACHED);
        part_turn(f);
    }
    a = client("m0000", 5000); /* A name that is there is no more than before. */
    assert_int_equal(send(f, "s", &a, &t), FERRY_OK);
}

static void a_paused_stream_tells_its_members(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    open_group(f);
    a = client("a", 1);
    beat(f, &a);
    assert_false(a.reply.paused);
    struct subscription_alter_request q = {.name = bytes_of_string("s"), .pause = 1};
    assert_int_equal(
        partition_subscription_alter(f->p, &q, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_OK);
    beat(f, &a);
    assert_true(a.reply.paused);
}

static void a_reset_gives_everything_anew(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    uint64_t before = 0, after = 0;
    open_group(f);
    a = client("a", 1);
    beat(f, &a);
    assert_true(has(&a, 5, &before));
    struct subscription_reset_request q = {.name = bytes_of_string("s"), .to = FERRY_FROM_START};
    assert_int_equal(
        partition_subscription_reset(f->p, &q, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_OK);
    beat(f, &a);
    assert_true(has(&a, 5, &after) && after > before);
}

/* ---- Lists ---- */

static void members_are_listed_with_what_they_have(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    static struct member_list_reply reply;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    a.zone = "east";
    beat(f, &a);
    beat(f, &b);
    beat_and_keep(f, &a);
    part_pass_ms(f, 700);
    struct member_list_request q = {.subscription = bytes_of_string("s")};
    assert_int_equal(partition_member_list(f->p, &q, f->now_us, &reply), FERRY_OK);
    assert_true(reply.count == 2 && reply.epoch == a.reply.epoch);
    assert_true(bytes_equal(reply.items[0].member, bytes_of_string("a")));
    assert_true(bytes_equal(reply.items[0].zone, bytes_of_string("east")));
    assert_true(bytes_equal(reply.items[0].client, bytes_of_string("client")));
    assert_true(reply.items[0].assigned == 4 && reply.items[0].held == 8);
    assert_true(reply.items[0].silent_ms >= 700 && reply.items[0].session_ms == SESSION_MS);
    assert_true(reply.items[1].assigned == 4 && reply.items[1].held == 0);
}

static bool event_is(const struct event_list_item *e, const char *kind, const char *who)
{
    return bytes_equal(e->kind, bytes_of_string(kind)) && bytes_equal(e->who, bytes_of_string(who));
}

static void events_tell_who_came_went_and_why(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b, c;
    static struct event_list_reply reply;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    c = client("b", 3);
    beat(f, &a);
    beat(f, &b);
    beat(f, &c);
    leave(f, &a, "shutting down");
    part_flush(f);
    part_pass_ms(f, SESSION_MS);
    part_crash(f);
    part_open(f);
    struct event_list_request q = {.subscription = bytes_of_string("s")};
    assert_int_equal(partition_event_list(f->p, &q, &reply), FERRY_OK);
    const struct event_list_item *e = reply.items;
    static const struct {
        const char *kind, *who;
    } expected[] = {{"created", "admin"}, {"joined", "a"},   {"assigned", "a"},
                    {"joined", "b"},      {"fenced", "b"},   {"joined", "b"},
                    {"left", "a"},        {"assigned", "b"}, {"expired", "b"}};
    assert_int_equal(reply.count, sizeof(expected) / sizeof(expected[0]));
    for (uint32_t i = 0; i < reply.count; i++) {
        assert_true(event_is(&e[i], expected[i].kind, expected[i].who));
        assert_int_equal(e[i].number, i + 1);
    }
    assert_true(bytes_equal(e[2].why, bytes_of_string("partitions 0 1 2 3 4 5 6 7")));
    assert_true(bytes_equal(e[6].why, bytes_of_string("shutting down")));
    assert_false(reply.more);
    q.after = 5;
    assert_int_equal(partition_event_list(f->p, &q, &reply), FERRY_OK);
    assert_true(reply.count == 4 && reply.items[0].number == 6);
}

static void only_the_last_events_are_kept(void **state)
{
    struct part_fixture *f = *state;
    static struct event_list_reply reply;
    open_group(f);
    struct subscription_alter_request a = {.name = bytes_of_string("s")};
    for (uint32_t i = 0; i < EVENTS_MAX + 50; i++) {
        a.pause = 1 + i % 2;
        assert_int_equal(
            partition_subscription_alter(f->p, &a, nobody, f->now_ms, f->now_us, part_ticket(f)),
            FERRY_OK);
        i % 300 == 0 ? part_flush(f) : part_turn(f);
    }
    part_flush(f);
    part_crash(f);
    part_open(f);
    uint32_t count = 0;
    struct event_list_request q = {.subscription = bytes_of_string("s")};
    do {
        assert_int_equal(partition_event_list(f->p, &q, &reply), FERRY_OK);
        assert_int_equal(reply.items[0].number, count == 0 ? 52 : q.after + 1);
        count += reply.count;
        q.after = reply.items[reply.count - 1].number;
    } while (reply.more);
    assert_int_equal(count, EVENTS_MAX);
    assert_int_equal(q.after, EVENTS_MAX + 51);
}

static void a_group_is_the_same_after_every_crash(void **state)
{
    struct part_fixture *f = *state;
    static struct client a, b;
    uint64_t epoch = 0;
    open_group(f);
    a = client("a", 1);
    b = client("b", 2);
    beat(f, &a);
    beat(f, &b);
    uint64_t first = b.reply.epoch;
    for (int round = 0; round < 8; round++) {
        if (round % 2 == 1) {
            part_flush(f);
        }
        part_crash(f);
        part_open(f);
        beat(f, &a);
        beat(f, &a);
        beat(f, &b);
        assert_true(a.reply.epoch >= epoch);
        epoch = a.reply.epoch;
    }
    assert_true(a.reply.count == 4 && b.reply.count == 4);
    assert_int_equal(epoch, first);
}

/* The new leader has heard of nobody yet. */
static void a_new_leader_gives_each_member_its_whole_session(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    open_group(f);
    a = client("a", 1);
    beat(f, &a);
    uint64_t epoch = a.reply.epoch;
    part_crash(f);
    part_open(f);
    part_pass_ms(f, SESSION_MS - 1);
    beat(f, &a);
    assert_int_equal(a.reply.count, 8);
    assert_int_equal(a.reply.epoch, epoch);
}

static void a_subscription_deleted_meanwhile_is_told(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    struct partition_ticket *t;
    open_group(f);
    a = client("a", 1);
    assert_int_equal(partition_subscription_delete(f->p, bytes_of_string("s"), f->now_ms, f->now_us,
                                                   part_ticket(f)),
                     FERRY_OK);
    assert_int_equal(send(f, "s", &a, &t), FERRY_OK);
    part_turn(f);
    assert_int_equal(t->base.err, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(answer(f, "s", &a), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    part_flush(f);
    make(f, "s", SUBSCRIPTION_STREAM);
    beat(f, &a);
    assert_int_equal(a.reply.count, 8);
}

/* Members that did not notice look at nothing with a lower epoch than they have seen. */
static void epochs_go_on_rising_when_a_subscription_is_made_anew(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    open_group(f);
    uint64_t epoch = 0;
    for (uint64_t i = 1; i < 20; i++) {
        a = client("a", i);
        beat(f, &a);
        assert_true(a.reply.epoch > epoch);
        epoch = a.reply.epoch;
        if (i % 5 == 0) {
            assert_int_equal(partition_subscription_delete(f->p, bytes_of_string("s"), f->now_ms,
                                                           f->now_us, part_ticket(f)),
                             FERRY_OK);
            part_turn(f);
            make(f, "s", SUBSCRIPTION_STREAM);
        }
    }
}

static void only_partition_0_coordinates(void **state)
{
    struct part_fixture *f = *state;
    static struct client a;
    static struct event_list_reply reply;
    struct partition_ticket *t;
    f->config.partition = 3;
    open_group(f);
    a = client("a", 1);
    assert_int_equal(send(f, "s", &a, &t), FERRY_ERR_INVALID_ARGUMENT);
    struct event_list_request q = {.subscription = bytes_of_string("s")};
    assert_int_equal(partition_event_list(f->p, &q, &reply), FERRY_ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(the_first_member_has_everything_with_its_first_beat),
        part_test(a_partition_is_given_only_when_the_one_who_had_it_has_let_go),
        part_test(a_report_from_before_the_answer_does_not_let_go),
        part_test(one_that_leaves_makes_room_at_once),
        part_test(one_that_is_silent_for_its_session_is_out),
        part_test(a_newer_instance_takes_over_and_the_older_one_is_fenced),
        part_test(many_that_come_in_one_turn_are_in_with_two_entries),
        part_test(more_partitions_are_shared_out_when_a_member_knows_of_them),
        part_test(members_have_the_partitions_of_their_zone),
        part_test(everybody_of_a_queue_has_all_partitions),
        part_test(what_a_member_may_not_say_is_refused),
        part_test(a_group_has_room_for_so_many_members),
        part_test(a_paused_stream_tells_its_members),
        part_test(a_reset_gives_everything_anew),
        part_test(members_are_listed_with_what_they_have),
        part_test(events_tell_who_came_went_and_why),
        part_test(only_the_last_events_are_kept),
        part_test(a_group_is_the_same_after_every_crash),
        part_test(a_new_leader_gives_each_member_its_whole_session),
        part_test(a_subscription_deleted_meanwhile_is_told),
        part_test(epochs_go_on_rising_when_a_subscription_is_made_anew),
        part_test(only_partition_0_coordinates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
