/* broker_cluster: several brokers in this process, each with its own folder, ports and context, and
 * real sockets between them; and the SDK's client to talk to them. Nodes are named by their ids. */
#ifndef FERRY_TEST_BROKER_CLUSTER_H
#define FERRY_TEST_BROKER_CLUSTER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ferry.h"
#include "server/broker.h"

#define CLUSTER_NODES    5
#define CLUSTER_FOUNDERS 3
#define CLUSTER_WAIT_MS  60000 /* Longer than anything takes; what works never waits it. */
#define CLUSTER_MAX      20000 /* Messages of a test. */

struct cluster_node {
    struct broker_options options;
    struct broker *broker; /* NULL: it is down. */
};

struct broker_cluster {
    char root[256];
    struct cluster_node nodes[CLUSTER_NODES + 1]; /* By id, from 1. */
    struct ferry_client *client;
    uint64_t sent; /* Messages stored so far: their payloads are 0 .. sent - 1. */
    struct err_text detail;
};

int cluster_setup(void **state); /* Options for all; nothing is started. */
int cluster_teardown(void **state);
#define cluster_test(name) cmocka_unit_test_setup_teardown(name, cluster_setup, cluster_teardown)

void cluster_set(struct broker_cluster *c, uint32_t node, const char *option, const char *value);
/* The founders, until they are ready; and a client to them. */
void cluster_found(struct broker_cluster *c);
void cluster_client(struct broker_cluster *c);               /* A client to the founders. */
void cluster_up(struct broker_cluster *c, uint32_t node);    /* Starts; does not wait. */
void cluster_ready(struct broker_cluster *c, uint32_t node); /* Waits until it is. */
/* Waits until the node has ended by itself; why. */
enum ferry_err cluster_failure(struct broker_cluster *c, uint32_t node);
void cluster_down(struct broker_cluster *c, uint32_t node);  /* As on SIGTERM. */
void cluster_crash(struct broker_cluster *c, uint32_t node); /* Without a good-bye. */
void cluster_wipe(struct broker_cluster *c, uint32_t node);  /* Its folder, while it is down. */
void cluster_copy_folder(struct broker_cluster *c, uint32_t node, const char *name);
void cluster_restore_folder(struct broker_cluster *c, uint32_t node, const char *name);

/* ---- What a client sees ---- */

void cluster_topic(struct broker_cluster *c, const char *name, uint32_t partitions,
                   uint32_t replicas);
/* Sends `count` messages to the topic; all must be stored. */
void cluster_produce(struct broker_cluster *c, const char *topic, uint32_t count);
/* Reads the topic from its start: each message that was sent is there, once. */
void cluster_check(struct broker_cluster *c, const char *topic);
/* The leader of a partition, once there is one that answers. */
uint32_t cluster_leader(struct broker_cluster *c, const char *topic, int32_t partition);
/* Until `is_so` holds of the nodes. Fails when it does not come to that. */
typedef bool cluster_condition(const struct ferry_nodes *nodes, uint32_t argument);
void cluster_wait(struct broker_cluster *c, cluster_condition *is_so, uint32_t argument,
                  const char *what);
/* Until no move is under way, and every voter has what its leader has. */
void cluster_settle(struct broker_cluster *c);

#endif
