/* net_poll: waiting for servers, links and descriptors with as few system calls as the library
 * lets.
 *
 * The library's sockets have a descriptor each that only says "ask again": their state changes when
 * they are asked (ZMQ_EVENTS), and by sending and receiving too, without the descriptor showing it.
 * So each is asked before the wait, and after it those whose descriptor spoke. zmq_poll asks all of
 * them twice and after each wait, and each question is a system call: on a broker with little to do
 * at a time that was a fifth of a shard's work.
 *
 * The monitors of servers are asked only when their descriptor speaks: they are read until there is
 * nothing more, or else by the next net_server_watch. */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "net/net_inner.h"

/* Twice as many entries as items: each server is watched by its socket and by its monitor. */
struct wait_set {
    struct pollfd fds[2 * NET_POLL_ITEMS_MAX];
    size_t count;
};

static int descriptor_of(void *socket)
{
    int fd;
    size_t bytes = sizeof(fd);
    must(zmq_getsockopt(socket, ZMQ_FD, &fd, &bytes) == 0);
    return fd;
}

static bool has_message(void *socket)
{
    int events;
    size_t bytes = sizeof(events);
    must(zmq_getsockopt(socket, ZMQ_EVENTS, &events, &bytes) == 0);
    return (events & ZMQ_POLLIN) != 0;
}

/* NULL: a descriptor. */
static void *socket_of(const struct net_poll_item *item)
{
    must((item->server != NULL) + (item->link != NULL) + (item->fd >= 0) == 1);
    if (item->server != NULL) {
        return net_server_socket(item->server);
    }
    return item->link != NULL ? net_link_socket(item->link) : NULL;
}

static void add(struct wait_set *set, int fd)
{
    set->fds[set->count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

/* Items first, in their order; then the monitors, in the order of their servers. */
static void fill(struct wait_set *set, const struct net_poll_item *items, size_t count)
{
    set->count = 0;
    for (size_t i = 0; i < count; i++) {
        void *socket = socket_of(&items[i]);
        add(set, socket != NULL ? descriptor_of(socket) : items[i].fd);
    }
    for (size_t i = 0; i < count; i++) {
        if (items[i].server != NULL && net_server_monitor(items[i].server) != NULL) {
            add(set, descriptor_of(net_server_monitor(items[i].server)));
        }
    }
}

/* Which sockets have something already; how many. */
static int ask_all(struct net_poll_item *items, size_t count)
{
    int readable = 0;
    for (size_t i = 0; i < count; i++) {
        void *socket = socket_of(&items[i]);
        items[i].readable = socket != NULL && has_message(socket);
        readable += items[i].readable;
    }
    return readable;
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
        if (set->fds[at++].revents != 0) {
            net_server_read_monitor(items[i].server);
        }
    }
}

/* After the wait: those whose descriptor spoke; how many are readable now. */
static int collect(const struct wait_set *set, struct net_poll_item *items, size_t count)
{
    int readable = 0;
    for (size_t i = 0; i < count; i++) {
        if (!items[i].readable && set->fds[i].revents != 0) {
            void *socket = socket_of(&items[i]);
            items[i].readable = socket == NULL || has_message(socket);
        }
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
    for (;;) { /* Ends at the deadline; only what is for the library itself makes it turn. */
        bool waits = ask_all(items, count) == 0;
        int ready = poll(set.fds, (nfds_t)set.count, waits ? timeout_ms : 0);
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
