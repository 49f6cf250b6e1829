#include "system/crash/fleet.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"

#define READY_TIMEOUT_MS 20000
#define CLIENT_PORT      7400
#define PEER_PORT        7500
#define SHARDS_MAX       3
#define LINE_BYTES       2048

static void describe_alone(struct fleet *f, const char *ferryd, struct child *child)
{
    const char *args[] = {ferryd, "--data", f->data[0], "--listen", f->client[0], NULL};
    (void)snprintf(f->client[0], sizeof(f->client[0]), "tcp://127.0.0.1:*");
    (void)snprintf(f->name[0], sizeof(f->name[0]), "ferryd");
    (void)snprintf(f->data[0], sizeof(f->data[0]), "data");
    child_describe(child, f->name[0], args);
}

static void add_to_list(char *list, size_t bytes, const char *prefix, const char *endpoint)
{
    size_t used = strlen(list);
    int n = snprintf(list + used, bytes - used, "%s%s%s", used == 0 ? "" : ",", prefix, endpoint);
    must(n > 0 && (size_t)n < bytes - used);
}

static void place_node(struct fleet *f, int i)
{
    char prefix[8];
    char host[32];
    unsigned pid = (unsigned)getpid(); /* 22 bits at most; 127.0 is everybody's. */
    (void)snprintf(host, sizeof(host), "127.%u.%u.%u", 1 + (pid >> 16 & 63), pid >> 8 & 255,
                   pid & 255);
    (void)snprintf(f->client[i], sizeof(f->client[i]), "tcp://%s:%d", host, CLIENT_PORT + 10 * i);
    (void)snprintf(f->peer[i], sizeof(f->peer[i]), "tcp://%s:%d", host, PEER_PORT + 10 * i);
    (void)snprintf(f->name[i], sizeof(f->name[i]), "ferryd-%d", i + 1);
    (void)snprintf(f->data[i], sizeof(f->data[i]), "data-%d", i + 1);
    (void)snprintf(f->number[i], sizeof(f->number[i]), "%d", i + 1);
    (void)snprintf(f->shards[i], sizeof(f->shards[i]), "node.shards=%d",
                   i + 1 < SHARDS_MAX ? i + 1 : SHARDS_MAX);
    (void)snprintf(prefix, sizeof(prefix), "%d=", i + 1);
    add_to_list(f->servers, sizeof(f->servers), "", f->client[i]);
    add_to_list(f->founders, sizeof(f->founders), prefix, f->peer[i]);
}

static void describe_node(struct fleet *f, int i, const char *ferryd, struct child *child)
{
    const char *args[] = {ferryd,
                          "--data",
                          f->data[i],
                          "--node",
                          f->number[i],
                          "--listen",
                          f->client[i],
                          "--peer-listen",
                          f->peer[i],
                          "--bootstrap",
                          f->founders,
                          "--set",
                          "store.grow_bytes=4M",
                          "--set",
                          f->shards[i],
                          NULL};
    child_describe(child, f->name[i], args);
}

void fleet_describe(struct fleet *f, int count, const char *ferryd, struct child *children)
{
    must(count >= 1 && count <= FLEET_MAX);
    *f = (struct fleet){.count = count};
    if (count == 1) {
        describe_alone(f, ferryd, &children[0]);
        return;
    }
    for (int i = 0; i < count; i++) {
        place_node(f, i);
    }
    for (int i = 0; i < count; i++) {
        describe_node(f, i, ferryd, &children[i]);
    }
}

/* The endpoint in the broker's first ready line; false when there is none yet. */
static bool read_endpoint(const struct child *child, char endpoint[64])
{
    char line[LINE_BYTES] = "";
    bool ready = false;
    FILE *log = fopen(child->log, "re");
    while (log != NULL && !ready && fgets(line, sizeof(line), log) != NULL) {
        ready = sscanf(line, "ferryd: ready: %63[^ ,]", endpoint) == 1;
    }
    if (log != NULL) {
        (void)fclose(log);
    }
    return ready;
}

bool fleet_start(struct fleet *f, struct child *children)
{
    int64_t until_us = clock_monotonic_us() + READY_TIMEOUT_MS * 1000LL;
    for (int i = 0; i < f->count; i++) {
        child_start(&children[i]);
    }
    for (int i = 0; i < f->count; i++) {
        while (!read_endpoint(&children[i], f->client[i])) {
            if (clock_monotonic_us() > until_us || child_has_died(&children[i])) {
                return false;
            }
            (void)poll(NULL, 0, 5);
        }
    }
    if (f->count == 1) {
        (void)snprintf(f->servers, sizeof(f->servers), "%s", f->client[0]);
    }
    return true;
}
