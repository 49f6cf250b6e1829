#include "lib/broker_cluster.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/partition_fixture.h"
#include "net/net.h"

#define PORTS      (2 * CLUSTER_NODES)
#define SHARDS     4 /* Ports in a row that a node may need. */
#define PAUSE_MS   10
#define PORT_FIRST 20000
#define PORT_LAST  32000 /* Below those that the system gives to connections going out. */

/* ---- Ports ---- */

static bool is_free(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    bool bound = bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
    (void)close(fd);
    return bound;
}

/* Runs of free ports; where to look first differs from process to process, so that tests that run
 * beside each other do not want the same ones. */
static void choose_ports(int ports[PORTS])
{
    int span = PORT_LAST - PORT_FIRST;
    int at = (int)(getpid() * 97 + clock_monotonic_us() % 1009) % span;
    for (int i = 0; i < PORTS; at = (at + SHARDS) % span) {
        bool free_run = true;
        for (int k = 0; k < SHARDS && free_run; k++) {
            free_run = is_free(PORT_FIRST + at + k);
        }
        if (free_run) {
            ports[i++] = PORT_FIRST + at;
        }
    }
}

/* ---- Setting up ---- */

void cluster_set(struct broker_cluster *c, uint32_t node, const char *option, const char *value)
{
    if (option_set(broker_option_table(), &c->nodes[node].options, option, value, &c->detail) !=
        FERRY_OK) {
        fail_msg("%s", c->detail.text);
    }
}

static void set_number(struct broker_cluster *c, uint32_t node, const char *option,
                       const char *format, int number)
{
    char value[320];
    (void)snprintf(value, sizeof(value), format, number);
    cluster_set(c, node, option, value);
}

static void set_options(struct broker_cluster *c, uint32_t node, const int *ports)
{
    char path[320];
    option_defaults(broker_option_table(), &c->nodes[node].options);
    (void)snprintf(path, sizeof(path), "%s/%u", c->root, node);
    cluster_set(c, node, "node.data", path);
    set_number(c, node, "node.id", "%d", (int)node);
    set_number(c, node, "listen.endpoint", "tcp://127.0.0.1:%d", ports[0]);
    set_number(c, node, "node.peer_listen", "tcp://127.0.0.1:%d", ports[1]);
    cluster_set(c, node, "store.grow_bytes", "4M");
}

int cluster_setup(void **state)
{
    struct broker_cluster *c = mem_zalloc(1, sizeof(*c));
    if (c == NULL || fixture_make_folder(c->root, sizeof(c->root), "cluster") != 0) {
        mem_free(c);
        return -1;
    }
    int ports[PORTS];
    char list[512] = "";
    choose_ports(ports);
    for (uint32_t i = 1; i <= CLUSTER_NODES; i++) {
        set_options(c, i, &ports[2 * (i - 1)]);
    }
    for (uint32_t i = 1; i <= CLUSTER_FOUNDERS; i++) {
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof(list) - used, "%s%u=%s", i > 1 ? "," : "", i,
                       c->nodes[i].options.peer_listen);
    }
    for (uint32_t i = 1; i <= CLUSTER_NODES; i++) {
        if (i <= CLUSTER_FOUNDERS) {
            cluster_set(c, i, "node.bootstrap", list);
        } else {
            cluster_set(c, i, "node.join", c->nodes[1 + i % CLUSTER_FOUNDERS].options.peer_listen);
        }
    }
    *state = c;
    return 0;
}

int cluster_teardown(void **state)
{
    struct broker_cluster *c = *state;
    ferry_close(&c->client, 0);
    for (uint32_t i = 1; i <= CLUSTER_NODES; i++) {
        broker_abandon(&c->nodes[i].broker);
    }
    fixture_remove_tree(c->root);
    mem_free(c);
    return 0;
}

/* ---- Nodes ---- */

static void pause_a_little(void)
{
    (void)net_poll(NULL, 0, PAUSE_MS);
}

static int64_t until(void)
{
    return clock_monotonic_us() + (int64_t)CLUSTER_WAIT_MS * 1000;
}

void cluster_up(struct broker_cluster *c, uint32_t node)
{
    enum ferry_err err = broker_open(&c->nodes[node].options, &c->nodes[node].broker, &c->detail);
    if (err != FERRY_OK) {
        fail_msg("node %u: %s: %s", node, ferry_err_name(err), c->detail.text);
    }
}

void cluster_ready(struct broker_cluster *c, uint32_t node)
{
    const struct broker *b = c->nodes[node].broker;
    for (int64_t end_us = until(); !broker_is_ready(b); pause_a_little()) {
        if (broker_failure(b) != FERRY_OK || clock_monotonic_us() > end_us) {
            fail_msg("node %u is not ready: %s", node, ferry_err_name(broker_failure(b)));
        }
    }
}

enum ferry_err cluster_failure(struct broker_cluster *c, uint32_t node)
{
    const struct broker *b = c->nodes[node].broker;
    for (int64_t end_us = until(); broker_failure(b) == FERRY_OK; pause_a_little()) {
        if (clock_monotonic_us() > end_us) {
            fail_msg("node %u does not end", node);
        }
    }
    return broker_failure(b);
}

void cluster_down(struct broker_cluster *c, uint32_t node)
{
    broker_stop(&c->nodes[node].broker);
}

void cluster_crash(struct broker_cluster *c, uint32_t node)
{
    broker_abandon(&c->nodes[node].broker);
}

void cluster_wipe(struct broker_cluster *c, uint32_t node)
{
    assert_null(c->nodes[node].broker);
    fixture_remove_tree(c->nodes[node].options.data);
}

static void copy_tree(const char *from, const char *to)
{
    char command[PATH_MAX_BYTES * 2 + 64];
    (void)snprintf(command, sizeof(command), "cp -a '%s' '%s'", from, to);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): our own folders. */
}

void cluster_copy_folder(struct broker_cluster *c, uint32_t node, const char *name)
{
    char to[320];
    (void)snprintf(to, sizeof(to), "%s/%s", c->root, name);
    assert_null(c->nodes[node].broker);
    copy_tree(c->nodes[node].options.data, to);
}

void cluster_restore_folder(struct broker_cluster *c, uint32_t node, const char *name)
{
    char from[320];
    (void)snprintf(from, sizeof(from), "%s/%s", c->root, name);
    cluster_wipe(c, node);
    copy_tree(from, c->nodes[node].options.data);
}

void cluster_client(struct broker_cluster *c)
{
    struct ferry_conf *conf;
    char servers[512] = "", detail[512] = "";
    for (uint32_t i = 1; i <= CLUSTER_FOUNDERS; i++) {
        size_t used = strlen(servers);
        (void)snprintf(servers + used, sizeof(servers) - used, "%s%s", i > 1 ? "," : "",
                       c->nodes[i].options.endpoint);
    }
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "servers", servers, NULL, 0), FERRY_OK);
    if (ferry_open(&c->client, &conf, detail, sizeof(detail)) != FERRY_OK) {
        fail_msg("%s", detail);
    }
}

void cluster_found(struct broker_cluster *c)
{
    for (uint32_t i = 1; i <= CLUSTER_FOUNDERS; i++) {
        cluster_up(c, i);
    }
    for (uint32_t i = 1; i <= CLUSTER_FOUNDERS; i++) {
        cluster_ready(c, i);
    }
    cluster_client(c);
}

/* ---- What a client sees ---- */

void cluster_topic(struct broker_cluster *c, const char *name, uint32_t partitions,
                   uint32_t replicas)
{
    struct ferry_topic_spec spec = {.name = name, .partitions = partitions, .replicas = replicas};
    assert_int_equal(ferry_topic_create(c->client, &spec, CLUSTER_WAIT_MS), FERRY_OK);
}

void cluster_produce(struct broker_cluster *c, const char *topic, uint32_t count)
{
    assert_true(c->sent + count <= CLUSTER_MAX);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = c->sent + i;
        struct ferry_report report;
        struct ferry_message m = {.topic = topic,
                                  .partition = FERRY_PARTITION_ANY,
                                  .key = &number,
                                  .key_bytes = sizeof(number),
                                  .payload = &number,
                                  .payload_bytes = sizeof(number)};
        assert_int_equal(ferry_send_sync(c->client, &m, &report), FERRY_OK);
        if (report.outcome != FERRY_STORED) {
            fail_msg("message %llu: %s", (unsigned long long)number, ferry_err_name(report.err));
        }
    }
    c->sent += count;
}

static uint64_t take_batch(struct ferry_batch *batch, uint8_t *seen, uint64_t sent)
{
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record r;
        uint64_t number;
        ferry_batch_record(batch, i, &r);
        assert_int_equal(r.payload_bytes, sizeof(number));
        memcpy(&number, r.payload, sizeof(number));
        assert_true(number < sent);
        if (seen[number]++ != 0) {
            fail_msg("message %llu is there twice", (unsigned long long)number);
        }
    }
    return ferry_batch_count(batch);
}

void cluster_check(struct broker_cluster *c, const char *topic)
{
    struct ferry_consumer *consumer;
    uint8_t *seen = mem_zalloc(CLUSTER_MAX, 1);
    assert_non_null(seen);
    assert_int_equal(
        ferry_consumer_open(&consumer, c->client, topic, NULL, FERRY_FROM_START, CLUSTER_WAIT_MS),
        FERRY_OK);
    uint64_t got = 0;
    int64_t end_us = until();
    while (got < c->sent && clock_monotonic_us() < end_us) {
        struct ferry_batch *batch;
        if (ferry_consumer_fetch(consumer, 100, &batch) == FERRY_OK) {
            got += take_batch(batch, seen, c->sent);
            ferry_batch_free(&batch);
        }
    }
    assert_int_equal(got, c->sent);
    ferry_consumer_close(&consumer);
    mem_free(seen);
}

uint32_t cluster_leader(struct broker_cluster *c, const char *topic, int32_t partition)
{
    for (int64_t end_us = until(); clock_monotonic_us() < end_us; pause_a_little()) {
        struct ferry_topic_info *info;
        if (ferry_topic_info(c->client, topic, CLUSTER_WAIT_MS, &info) != FERRY_OK) {
            continue;
        }
        const struct ferry_partition_info *p = &info->partitions[partition];
        uint32_t leader = p->err == FERRY_OK ? p->leader_node : 0;
        ferry_topic_info_free(&info);
        if (leader != 0) {
            return leader;
        }
    }
    fail_msg("%s/%d has no leader", topic, (int)partition);
    return 0;
}

void cluster_wait(struct broker_cluster *c, cluster_condition *is_so, uint32_t argument,
                  const char *what)
{
    for (int64_t end_us = until(); clock_monotonic_us() < end_us; pause_a_little()) {
        struct ferry_nodes *nodes;
        if (ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes) != FERRY_OK) {
            continue;
        }
        bool so = is_so(nodes, argument);
        ferry_nodes_free(&nodes);
        if (so) {
            return;
        }
    }
    fail_msg("it does not come to that: %s", what);
}

static bool moves_run(struct broker_cluster *c)
{
    struct ferry_moves *moves;
    if (ferry_moves_list(c->client, CLUSTER_WAIT_MS, &moves) != FERRY_OK) {
        return true;
    }
    bool run = moves->count > 0;
    ferry_moves_free(&moves);
    return run;
}

/* As its leader sees it: nobody is on the way in or out, and all have all. */
static bool group_is_settled(const struct ferry_group *g)
{
    for (uint32_t i = 0; i < g->member_count; i++) {
        const struct ferry_group_member *m = &g->members[i];
        bool still = m->kind == FERRY_MEMBER_VOTER || g->topic[0] == '\0';
        if (!still || m->match < g->commit || m->snapshotting) {
            return false;
        }
    }
    return true;
}

static bool shard_is_settled(const struct ferry_shard_groups *shard, size_t *led)
{
    for (size_t i = 0; i < shard->count; i++) {
        const struct ferry_group *g = &shard->groups[i];
        bool leads = g->state == FERRY_GROUP_LEADER;
        *led += leads && g->topic[0] != '\0' ? 1 : 0;
        if (leads ? !group_is_settled(g) : g->state != FERRY_GROUP_FOLLOWER) {
            return false;
        }
    }
    return true;
}

static size_t count_partitions(struct broker_cluster *c)
{
    struct ferry_placements *placements;
    if (ferry_placements_list(c->client, NULL, CLUSTER_WAIT_MS, &placements) != FERRY_OK) {
        return SIZE_MAX;
    }
    size_t count = placements->count;
    ferry_placements_free(&placements);
    return count;
}

static bool groups_are_settled(struct broker_cluster *c)
{
    struct ferry_nodes *nodes;
    struct ferry_groups *groups;
    size_t led = 0;
    if (ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes) != FERRY_OK) {
        return false;
    }
    bool settled = ferry_groups_list(c->client, nodes, CLUSTER_WAIT_MS, &groups) == FERRY_OK;
    ferry_nodes_free(&nodes);
    if (!settled) {
        return false;
    }
    for (size_t i = 0; i < groups->count; i++) {
        settled = settled && shard_is_settled(&groups->shards[i], &led);
    }
    ferry_groups_free(&groups);
    return settled && led == count_partitions(c);
}

void cluster_settle(struct broker_cluster *c)
{
    for (int64_t end_us = until(); moves_run(c) || !groups_are_settled(c); pause_a_little()) {
        if (clock_monotonic_us() > end_us) {
            fail_msg("the cluster does not come to rest");
        }
    }
}
