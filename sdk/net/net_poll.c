#include <errno.h>

#include "base/clock.h"
#include "net/net_inner.h"

/* Twice as many entries as items: each server is watched by its socket and by its monitor. */
struct wait_set {
    zmq_pollitem_t entries[2 * NET_POLL_ITEMS_MAX];
    int count;
};

static void add(struct wait_set *set, void *socket, int fd)
{
    set->entries[set->count++] = (zmq_pollitem_t){.socket = socket, .fd = fd, .events = ZMQ_POLLIN};
}

/* Items first, in their order; then the monitors, in the order of their servers. */
static void fill(struct wait_set *set, const struct net_poll_item *items, size_t count)
{
    set->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct net_poll_item *item = &items[i];
        must((item->server != NULL) + (item->link != NULL) + (item->fd >= 0) == 1);
        if (item->server != NULL) {
            add(set, net_server_socket(item->server), 0);
        } else if (item->link != NULL) {
            add(set, net_link_socket(item->link), 0);
        } else {
            add(set, NULL, item->fd);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (items[i].server != NULL && net_server_monitor(items[i].server) != NULL) {
            add(set, net_server_monitor(items[i].server), 0);
        }
    }
}

/* Connections come and go while the caller waits: they are counted and refused here, so that a
 * flood of them never waits for the next net_server_watch. */
static void read_monitors(const struct wait_set *set, struct net_poll_item *items, size_t count)
{
    size_t at = count;
    for (size_t i = 0; i < count; i++) {
        if (items[i].server == NULL || net_server_monitor(items[i].server) == NULL) {
            continue;
        }
        if (set->entries[at++].revents != 0) {
            net_server_read_monitor(items[i].server);
        }
    }
}

static int collect(const struct wait_set *set, struct net_poll_item *items, size_t count)
{
    int readable = 0;
    for (size_t i = 0; i < count; i++) {
        items[i].readable = set->entries[i].revents != 0;
        readable += items[i].readable;
    }
    return readable;
}

int net_poll(struct net_poll_item *items, size_t count, int timeout_ms)
{
    must(count <= NET_POLL_ITEMS_MAX);
    struct wait_set set;
    fill(&set, items, count);
    int64_t deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    for (;;) { /* Ends at the deadline; only events of monitors make it turn. */
        int ready = zmq_poll(set.entries, set.count, timeout_ms);
        if (ready < 0) {
            must(errno == EINTR);
            for (size_t i = 0; i < count; i++) {
                items[i].readable = false;
            }
            return 0;
        }
        read_monitors(&set, items, count);
        int readable = collect(&set, items, count);
        if (readable > 0 || ready == 0 || timeout_ms == 0) {
            return readable;
        }
        if (timeout_ms > 0) {
            int64_t left_us = deadline_us - clock_monotonic_us();
            timeout_ms = left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
        }
    }
}
