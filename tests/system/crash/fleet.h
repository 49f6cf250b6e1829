/* fleet: the brokers of a run: one alone, or a cluster of several that founds itself. Knows where
 * they listen and how they are started; starting and killing is child's. A lone broker takes a free
 * port and keeps it. Those of a cluster have fixed ports on an address of 127.0.0.0/8 that follows
 * from the process's number, so that runs beside each other do not meet; node n has n shards, at
 * most three. One thread. */
#ifndef FERRY_TESTS_CRASH_FLEET_H
#define FERRY_TESTS_CRASH_FLEET_H

#include <stdbool.h>

#include "system/crash/child.h"

#define FLEET_MAX 5

struct fleet {
    int count;
    char servers[512]; /* For clients: all of them. */
    char client[FLEET_MAX][64], peer[FLEET_MAX][64];
    char name[FLEET_MAX][16], data[FLEET_MAX][16], number[FLEET_MAX][4];
    char shards[FLEET_MAX][24];
    char founders[512];
};

/* Describes broker i as children[i], in the current folder. `ferryd` is borrowed. */
void fleet_describe(struct fleet *f, int count, const char *ferryd, struct child *children);
/* Starts all of them and waits until each has said that it is ready; false when one does not. */
bool fleet_start(struct fleet *f, struct child *children);

#endif
