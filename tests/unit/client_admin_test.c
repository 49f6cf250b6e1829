/* The administration of a cluster: what brokers answer is taken page by page and told as it is;
 * what they do not answer is an error and never a zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/fake_broker.h"

#define WAIT_MS 10000

struct fixture {
    struct fake_broker *brokers[2];
    struct ferry_conf *conf;
    struct ferry_client *client;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->brokers[0] = fake_broker_start(2, NULL, NULL);
    f->brokers[1] = fake_broker_join(f->brokers[0]);
    f->conf = fake_conf(f->brokers[0]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    fake_broker_stop(&f->brokers[1]);
    fake_broker_stop(&f->brokers[0]);
    free(f);
    return 0;
}

static void open_client(struct fixture *f)
{
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
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

static void can_empty(struct fake_broker *broker, enum command command)
{
    struct buf body;
    buf_init(&body, 16);
    empty_encode(&body);
    fake_can(broker, command, buf_bytes(&body));
    buf_fini(&body);
}

/* ---- Nodes. */

static void can_nodes(struct fixture *f)
{
    CAN(f->brokers[0], COMMAND_NODE_LIST, node_list_reply, .leader_node = 1, .count = 2,
        .items = {{.node_id = 1,
                   .member = 0xa00000001,
                   .zone = bytes_of_string("rack-\x1b[2J"),
                   .weight = 100,
                   .state = NODE_UP,
                   .metadata_role = METADATA_LEADER,
                   .shards = 1,
                   .endpoint = bytes_of_string("tcp://10.0.0.1:7400"),
                   .replicas = 5,
                   .leaders = 3,
                   .ring_permille = 500},
                  {.node_id = 2, .state = NODE_SILENT, .silent_ms = 73000}});
}

/* And nothing that a broker says reaches the terminal as it is. */
static void nodes_are_listed_with_all_their_shards(void **state)
{
    struct fixture *f = *state;
    struct ferry_nodes *nodes = NULL;
    can_nodes(f);
    open_client(f);
    assert_int_equal(ferry_nodes_list(f->client, WAIT_MS, &nodes), FERRY_OK);
    assert_int_equal(nodes->count, 2);
    assert_int_equal(nodes->leader_node, 1);
    assert_string_equal(nodes->nodes[0].zone, "rack-?[2J");
    assert_string_equal(nodes->nodes[0].endpoint, "tcp://10.0.0.1:7400");
    assert_int_equal(nodes->nodes[0].metadata_role, FERRY_METADATA_LEADER);
    assert_int_equal(nodes->nodes[0].leaders, 3);
    assert_int_equal(nodes->nodes[1].state, FERRY_NODE_SILENT);
    assert_int_equal(nodes->nodes[1].silent_ms, 73000);
    assert_int_equal(nodes->shard_count, 2);
    assert_string_equal(nodes->shards[1].endpoint, fake_broker_endpoint(f->brokers[1]));
    ferry_nodes_free(&nodes);
    assert_null(nodes);
}

static void a_node_change_is_asked_of_the_controller(void **state)
{
    struct fixture *f = *state;
    fake_control(f->brokers[0], 1);
    can_empty(f->brokers[1], COMMAND_NODE_CHANGE);
    fake_rule(f->brokers[1], COMMAND_NODE_CHANGE, 1, 1, FAKE_REFUSE, FERRY_ERR_NODE_NOT_EMPTY);
    fake_rule(f->brokers[1], COMMAND_NODE_CHANGE, 0, 1, FAKE_DROP_REPLY, 0);
    fake_rule(f->brokers[1], COMMAND_NODE_CHANGE, 0, 1, FAKE_REFUSE, FERRY_ERR_UNKNOWN_NODE);
    open_client(f);
    assert_int_equal(ferry_node_change(f->client, 2, FERRY_NODE_DRAIN, 0, WAIT_MS), FERRY_OK);
    assert_int_equal(ferry_node_change(f->client, 2, FERRY_NODE_REMOVE, 0, WAIT_MS),
                     FERRY_ERR_NODE_NOT_EMPTY);
    /* Removed by the first try, whose answer was lost: done, not unknown. */
    assert_int_equal(ferry_node_change(f->client, 2, FERRY_NODE_REMOVE, 0, WAIT_MS), FERRY_OK);
    assert_int_equal(ferry_node_change(f->client, 0, FERRY_NODE_DRAIN, 0, WAIT_MS),
                     FERRY_ERR_UNKNOWN_NODE);
    assert_int_equal(ferry_node_change(f->client, 65536, FERRY_NODE_DRAIN, 0, WAIT_MS),
                     FERRY_ERR_UNKNOWN_NODE);
}

/* ---- Moves. */

#define MOVE(group_, partition_)                                                                   \
    {                                                                                              \
        .group = (group_), .topic = bytes_of_string("orders"), .partition = (partition_),          \
        .from_count = 2, .to_count = 2, .from = {1, 2}, .to = {3, 2}, .bytes = 1000                \
    }

/* Two pages of different plans are no plan: it is asked for from the start. */
static void a_plan_is_taken_in_pages_that_belong_together(void **state)
{
    struct fixture *f = *state;
    struct ferry_moves *plan;
    struct fake_broker *b = f->brokers[0];
    CAN(b, COMMAND_CLUSTER_PLAN, cluster_plan_reply, .plan_id = 7, .total = 3, .count = 2,
        .moves = {MOVE(10, 0), MOVE(11, 1)});
    CAN(b, COMMAND_CLUSTER_PLAN, cluster_plan_reply, .plan_id = 8, .total = 3, .count = 1,
        .moves = {MOVE(12, 2)});
    CAN(b, COMMAND_CLUSTER_PLAN, cluster_plan_reply, .plan_id = 8, .total = 2, .total_bytes = 2000,
        .count = 1, .moves = {MOVE(12, 2)});
    CAN(b, COMMAND_CLUSTER_PLAN, cluster_plan_reply, .plan_id = 8, .total = 2, .total_bytes = 2000,
        .count = 1, .moves = {MOVE(13, 3)});
    open_client(f);
    assert_int_equal(ferry_cluster_plan(f->client, WAIT_MS, &plan), FERRY_OK);
    assert_int_equal(plan->plan_id, 8);
    assert_int_equal(plan->total_bytes, 2000);
    assert_int_equal(plan->count, 2);
    assert_int_equal(plan->moves[0].group, 12);
    assert_int_equal(plan->moves[1].group, 13);
    assert_string_equal(plan->moves[1].topic, "orders");
    assert_int_equal(plan->moves[1].to[0], 3);
    assert_int_equal(plan->moves[1].state, FERRY_MOVE_PROPOSED);
    ferry_moves_free(&plan);
}

static void an_apply_whose_answer_was_lost_is_not_an_error(void **state)
{
    struct fixture *f = *state;
    struct fake_broker *b = f->brokers[0];
    uint32_t moves;
    CAN(b, COMMAND_CLUSTER_APPLY, cluster_apply_reply, .moves = 3);
    CAN(b, COMMAND_MOVE_LIST, move_list_reply, .total = 1, .done_since_apply = 4, .count = 1,
        .items = {{.move = MOVE(10, 0), .state = MOVE_ACTIVE}});
    open_client(f);
    assert_int_equal(ferry_cluster_apply(f->client, 8, WAIT_MS, &moves), FERRY_OK);
    assert_int_equal(moves, 3);
    fake_rule(b, COMMAND_CLUSTER_APPLY, 0, 1, FAKE_DROP_REPLY, 0);
    fake_rule(b, COMMAND_CLUSTER_APPLY, 0, 2, FAKE_REFUSE, FERRY_ERR_MOVES_RUNNING);
    fake_rule(b, COMMAND_CLUSTER_APPLY, 0, 1, FAKE_REFUSE, FERRY_ERR_PLAN_CHANGED);
    assert_int_equal(ferry_cluster_apply(f->client, 8, WAIT_MS, &moves), FERRY_OK);
    assert_int_equal(moves, 5);
    assert_int_equal(ferry_cluster_apply(f->client, 8, WAIT_MS, &moves), FERRY_ERR_MOVES_RUNNING);
    assert_int_equal(ferry_cluster_apply(f->client, 8, WAIT_MS, &moves), FERRY_ERR_PLAN_CHANGED);
}

static void moves_under_way_are_listed_and_aborted(void **state)
{
    struct fixture *f = *state;
    struct fake_broker *b = f->brokers[0];
    struct ferry_moves *moves;
    uint32_t dropped, reverting;
    CAN(b, COMMAND_MOVE_LIST, move_list_reply, .total = 2, .more = true, .count = 1,
        .items = {{.move = MOVE(10, 0), .state = MOVE_ACTIVE}});
    CAN(b, COMMAND_MOVE_LIST, move_list_reply, .total = 2, .done_since_apply = 4, .count = 1,
        .items = {{.move = MOVE(11, 1), .state = MOVE_PLANNED}});
    CAN(b, COMMAND_CLUSTER_ABORT, cluster_abort_reply, .dropped = 1, .reverting = 2);
    open_client(f);
    assert_int_equal(ferry_moves_list(f->client, WAIT_MS, &moves), FERRY_OK);
    assert_int_equal(moves->count, 2);
    assert_int_equal(moves->done, 4);
    assert_int_equal(moves->total_bytes, 2000);
    assert_int_equal(moves->moves[0].state, FERRY_MOVE_ACTIVE);
    assert_int_equal(moves->moves[1].state, FERRY_MOVE_PLANNED);
    ferry_moves_free(&moves);
    assert_int_equal(ferry_cluster_abort(f->client, WAIT_MS, &dropped, &reverting), FERRY_OK);
    assert_int_equal(dropped, 1);
    assert_int_equal(reverting, 2);
}

/* ---- Groups, placement, transfer. */

static void a_shard_that_does_not_answer_is_an_error_and_no_zero(void **state)
{
    struct fixture *f = *state;
    struct ferry_nodes *nodes;
    struct ferry_groups *groups;
    can_nodes(f);
    CAN(f->brokers[0], COMMAND_GROUP_LIST, group_list_reply, .node_id = 1, .more = true, .count = 1,
        .items = {{.group = 0, .state = GROUP_LEADER, .commit = 9}});
    CAN(f->brokers[0], COMMAND_GROUP_LIST, group_list_reply, .node_id = 1, .count = 1,
        .items = {{.group = 100,
                   .topic = bytes_of_string("t"),
                   .state = GROUP_LEADER,
                   .last = 78,
                   .member_count = 2,
                   .members = {{.node_id = 1, .kind = GROUP_VOTER, .match = 78},
                               {.node_id = 2, .kind = GROUP_LEARNER, .silent_ms = -1}}}});
    open_client(f);
    assert_int_equal(ferry_nodes_list(f->client, WAIT_MS, &nodes), FERRY_OK);
    fake_broker_freeze(f->brokers[1], true);
    int64_t asked_us = clock_monotonic_us();
    assert_int_equal(ferry_groups_list(f->client, nodes, 600, &groups), FERRY_OK);
    assert_true(clock_monotonic_us() - asked_us < 2000000);
    assert_int_equal(groups->count, 2);
    assert_int_equal(groups->shards[0].err, FERRY_OK);
    assert_int_equal(groups->shards[0].count, 2);
    assert_int_equal(groups->shards[0].groups[0].group, 0);
    assert_int_equal(groups->shards[0].groups[1].members[0].match, 78);
    assert_int_equal(groups->shards[0].groups[1].members[1].kind, FERRY_MEMBER_LEARNER);
    assert_int_equal(groups->shards[0].groups[1].members[1].silent_ms, -1);
    assert_int_equal(groups->shards[1].node_id, 2);
    assert_int_not_equal(groups->shards[1].err, FERRY_OK);
    ferry_groups_free(&groups);
    ferry_nodes_free(&nodes);
    fake_broker_freeze(f->brokers[1], false);
}

static void placements_say_who_leads_and_who_holds(void **state)
{
    struct fixture *f = *state;
    struct ferry_placements *placements;
    fake_lead(f->brokers[0], 1, 1, 1);
    open_client(f);
    assert_int_equal(ferry_placements_list(f->client, "t", WAIT_MS, &placements), FERRY_OK);
    assert_int_equal(placements->count, 2);
    assert_string_equal(placements->placements[1].topic, "t");
    assert_int_equal(placements->placements[0].leader_node, 1);
    assert_int_equal(placements->placements[1].leader_node, 2);
    assert_int_equal(placements->placements[1].group, FAKE_GROUP + 1);
    ferry_placements_free(&placements);
    assert_int_equal(ferry_placements_list(f->client, "x", WAIT_MS, &placements),
                     FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(ferry_placements_list(f->client, "!", WAIT_MS, &placements),
                     FERRY_ERR_BAD_NAME);
    /* Of all topics; the fake lists two that are not there: they were deleted meanwhile. */
    assert_int_equal(ferry_placements_list(f->client, NULL, WAIT_MS, &placements), FERRY_OK);
    assert_int_equal(placements->count, 0);
    ferry_placements_free(&placements);
}

static void a_transfer_is_asked_of_the_leader(void **state)
{
    struct fixture *f = *state;
    fake_lead(f->brokers[0], 1, 1, 0);
    can_empty(f->brokers[1], COMMAND_PARTITION_TRANSFER);
    open_client(f);
    assert_int_equal(ferry_partition_transfer(f->client, "t", 1, 1, WAIT_MS), FERRY_OK);
    assert_int_equal(fake_requests(f->brokers[1], COMMAND_PARTITION_TRANSFER), 1);
    assert_int_equal(ferry_partition_transfer(f->client, "t", 9, 1, WAIT_MS),
                     FERRY_ERR_UNKNOWN_PARTITION);
}

/* ---- Leases and worker ids. */

static void a_lease_is_granted_or_its_holder_told(void **state)
{
    struct fixture *f = *state;
    struct fake_broker *b = f->brokers[0];
    struct ferry_lease lease;
    CAN(b, COMMAND_LEASE_ACQUIRE, lease_reply, .granted = true, .token = 8, .ttl_ms = 5000,
        .left_ms = 5000, .holder = bytes_of_string("me"));
    CAN(b, COMMAND_LEASE_ACQUIRE, lease_reply, .token = 9, .left_ms = 700, .waiting = 2,
        .holder = bytes_of_string("other"));
    CAN(b, COMMAND_LEASE_RENEW, lease_reply, .granted = true, .token = 8, .left_ms = 6000,
        .holder = bytes_of_string("me"));
    can_empty(b, COMMAND_LEASE_RELEASE);
    open_client(f);
    assert_int_equal(ferry_lease_acquire(f->client, "job", "me", 5000, 0, WAIT_MS, &lease),
                     FERRY_OK);
    assert_int_equal(lease.token, 8);
    assert_string_equal(lease.name, "job");
    assert_int_equal(ferry_lease_acquire(f->client, "job", "me", 5000, 20, WAIT_MS, &lease),
                     FERRY_ERR_LEASE_HELD);
    assert_string_equal(lease.holder, "other");
    assert_int_equal(lease.left_ms, 700);
    assert_int_equal(lease.waiting, 2);
    assert_int_equal(ferry_lease_renew(f->client, "job", "me", 8, 6000, WAIT_MS, &lease), FERRY_OK);
    assert_int_equal(lease.left_ms, 6000);
    fake_rule(b, COMMAND_LEASE_RENEW, 0, 1, FAKE_REFUSE, FERRY_ERR_LEASE_LOST);
    assert_int_equal(ferry_lease_renew(f->client, "job", "me", 8, 6000, WAIT_MS, &lease),
                     FERRY_ERR_LEASE_LOST);
    assert_int_equal(ferry_lease_release(f->client, "job", "me", 8, WAIT_MS), FERRY_OK);
    fake_rule(b, COMMAND_LEASE_RELEASE, 0, 1, FAKE_DROP_REPLY, 0);
    fake_rule(b, COMMAND_LEASE_RELEASE, 0, 2, FAKE_REFUSE, FERRY_ERR_LEASE_LOST);
    assert_int_equal(ferry_lease_release(f->client, "job", "me", 8, WAIT_MS), FERRY_OK);
    assert_int_equal(ferry_lease_release(f->client, "job", "me", 8, WAIT_MS), FERRY_ERR_LEASE_LOST);
    assert_int_equal(ferry_lease_acquire(f->client, "a b", "me", 5000, 0, WAIT_MS, &lease),
                     FERRY_ERR_BAD_NAME);
    assert_int_equal(ferry_lease_acquire(f->client, "job", "me", 0, 0, WAIT_MS, &lease),
                     FERRY_ERR_INVALID_ARGUMENT);
}

static void leases_are_listed_page_by_page(void **state)
{
    struct fixture *f = *state;
    struct ferry_lease *leases;
    size_t count;
    CAN(f->brokers[0], COMMAND_LEASE_LIST, lease_list_reply, .more = true, .count = 1,
        .items = {{.name = bytes_of_string("a"), .holder = bytes_of_string("x"), .token = 1}});
    CAN(f->brokers[0], COMMAND_LEASE_LIST, lease_list_reply, .count = 1,
        .items = {{.name = bytes_of_string("b"), .holder = bytes_of_string("y"), .left_ms = 5}});
    open_client(f);
    assert_int_equal(ferry_leases_list(f->client, WAIT_MS, &leases, &count), FERRY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(leases[0].name, "a");
    assert_string_equal(leases[1].holder, "y");
    ferry_leases_free(&leases);
}

static enum ferry_err try_send(struct fixture *f)
{
    struct ferry_message m = {
        .topic = "t", .partition = 0, .payload = "x", .payload_bytes = 1, .timestamp_ms = 1};
    return ferry_send(f->client, &m);
}

static void on_record(const struct batch_record *record, int64_t offset, void *arg)
{
    int *worker_id = arg;
    (void)offset;
    *worker_id = (int)(get_be64(record->id.bytes + 8) >> 12 & 1023);
}

/* No id is made before the cluster has given a number, and then with that one. */
static void the_cluster_gives_the_worker_id(void **state)
{
    struct fixture *f = *state;
    int worker_id = -1;
    uint32_t asked;
    fake_set(f->conf, "snowflake.worker_id", "-1");
    fake_set(f->conf, "message.ids", "snowflake");
    fake_rule(f->brokers[0], COMMAND_WORKER_ID, 0, 3, FAKE_REFUSE, FERRY_ERR_LIMIT_REACHED);
    CAN(f->brokers[0], COMMAND_WORKER_ID, worker_id_reply, .worker_id = 17, .ttl_ms = 60000);
    open_client(f);
    enum ferry_err err = try_send(f);
    assert_int_equal(err, FERRY_ERR_NOT_READY);
    int64_t give_up_us = clock_monotonic_us() + WAIT_MS * INT64_C(1000);
    while (err == FERRY_ERR_NOT_READY && clock_monotonic_us() < give_up_us) {
        struct timespec t = {.tv_nsec = 2000000};
        (void)nanosleep(&t, NULL);
        err = try_send(f);
    }
    assert_int_equal(err, FERRY_OK);
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
    fake_each_record(f->brokers[0], 0, on_record, &worker_id);
    assert_int_equal(worker_id, 17);
    assert_int_equal(ferry_worker_id(f->client, "me", 1000, WAIT_MS, &asked), FERRY_OK);
    assert_int_equal(asked, 17);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nodes_are_listed_with_all_their_shards),
        CASE(a_node_change_is_asked_of_the_controller),
        CASE(a_plan_is_taken_in_pages_that_belong_together),
        CASE(an_apply_whose_answer_was_lost_is_not_an_error),
        CASE(moves_under_way_are_listed_and_aborted),
        CASE(a_shard_that_does_not_answer_is_an_error_and_no_zero),
        CASE(placements_say_who_leads_and_who_holds),
        CASE(a_transfer_is_asked_of_the_leader),
        CASE(a_lease_is_granted_or_its_holder_told),
        CASE(leases_are_listed_page_by_page),
        CASE(the_cluster_gives_the_worker_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
