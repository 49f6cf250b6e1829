/* Members that say where they are, and brokers in two zones: who reads what is led where. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "lib/broker_cluster.h"

#define PARTITIONS 12
#define TRIES      5 /* Leaders may move meanwhile. */

static const char *const zones[CLUSTER_FOUNDERS + 1] = {"", "east", "west", "west"};

struct zoned_member {
    struct ferry_client *client;
    struct ferry_consumer *consumer;
};

static void join(struct broker_cluster *c, struct zoned_member *m, const char *zone)
{
    struct ferry_conf *conf;
    struct ferry_join_spec spec = {.member = zone};
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "servers", c->nodes[1].options.endpoint, NULL, 0),
                     FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "client.zone", zone, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_open(&m->client, &conf, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_consumer_join(&m->consumer, m->client, "t", "readers", FERRY_FROM_START,
                                         &spec, CLUSTER_WAIT_MS),
                     FERRY_OK);
}

static void part(struct zoned_member *m)
{
    ferry_consumer_close(&m->consumer);
    ferry_close(&m->client, CLUSTER_WAIT_MS);
}

static int held(const struct zoned_member *m)
{
    int count = 0;
    for (int32_t i = 0; i < PARTITIONS; i++) {
        count += ferry_consumer_has(m->consumer, i) ? 1 : 0;
    }
    return count;
}

static void turn(struct zoned_member *m)
{
    struct ferry_batch *batch;
    if (ferry_consumer_fetch(m->consumer, 10, &batch) == FERRY_OK) {
        ferry_batch_free(&batch);
    }
}

/* Until the first holds so many, and the second the others. */
static void wait_until_held(struct zoned_member *a, struct zoned_member *b, int of_a)
{
    int64_t end_us = clock_monotonic_us() + CLUSTER_WAIT_MS * INT64_C(1000);
    bool done = false;
    while (!done && clock_monotonic_us() < end_us) {
        turn(a);
        if (b != NULL) {
            turn(b);
        }
        done = held(a) == of_a && (b == NULL || held(b) == PARTITIONS - of_a);
    }
    assert_true(done);
}

static void find_leaders(struct broker_cluster *c, uint32_t *leaders)
{
    for (int32_t i = 0; i < PARTITIONS; i++) {
        leaders[i] = cluster_leader(c, "t", i);
    }
}

/* How many are led in the zone, and how many of them the member has. */
static void count_zone(const struct zoned_member *m, const char *zone, const uint32_t *leaders,
                       int *all, int *ours)
{
    *all = 0;
    *ours = 0;
    for (int32_t i = 0; i < PARTITIONS; i++) {
        if (strcmp(zones[leaders[i]], zone) == 0) {
            (*all)++;
            *ours += ferry_consumer_has(m->consumer, i) ? 1 : 0;
        }
    }
}

/* Each has of its zone what it can have: all there is, or nothing else. */
static bool has_its_zone(const struct zoned_member *m, const char *zone, const uint32_t *leaders)
{
    int all, ours;
    count_zone(m, zone, leaders, &all, &ours);
    assert_true(all > 0);
    return ours == (all < PARTITIONS / 2 ? all : PARTITIONS / 2);
}

static void members_are_given_what_is_led_in_their_zone(void **state)
{
    struct broker_cluster *c = *state;
    uint32_t before[PARTITIONS], after[PARTITIONS];
    bool near = false;
    for (uint32_t i = 1; i <= CLUSTER_FOUNDERS; i++) {
        cluster_set(c, i, "node.zone", zones[i]);
    }
    cluster_found(c);
    cluster_topic(c, "t", PARTITIONS, 1);
    for (int i = 0; i < TRIES && !near; i++) {
        struct zoned_member first = {0}, second = {0};
        find_leaders(c, before);
        join(c, &first, i % 2 == 0 ? "west" : "east");
        wait_until_held(&first, NULL, PARTITIONS);
        join(c, &second, i % 2 == 0 ? "east" : "west");
        wait_until_held(&first, &second, PARTITIONS / 2);
        find_leaders(c, after);
        near = has_its_zone(&first, i % 2 == 0 ? "west" : "east", after) &&
               has_its_zone(&second, i % 2 == 0 ? "east" : "west", after);
        assert_true(near || memcmp(before, after, sizeof(before)) != 0);
        part(&second);
        part(&first);
    }
    assert_true(near);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(members_are_given_what_is_led_in_their_zone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
