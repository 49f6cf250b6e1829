#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/net_server_inner.h"

/* Beside one whole message a connection may have this much on the way: the handshake, the library's
 * read buffer, the frame headers, heartbeats that a foreign client sends. */
#define NET_HOARD_SLACK_BYTES 65536

/* What may wait for a peer that reads nothing: so many messages of the largest size, and not less
 * than this. The library's own mark counts messages, of whatever size (BAD-Z03). */
#define NET_UNREAD_MESSAGES  4
#define NET_UNREAD_BYTES_MIN (4 << 20)

/* After a hoard is cut; by then the library has let go of it. */
#define NET_TRIM_AFTER_US 300000

#define NET_WATCH_SLICE        2048  /* Connections that one watch looks at. */
#define NET_EVENTS_MAX         65536 /* Events that one call reads: more means failing accepts. */
#define NET_TURN_AWAY_MAX      (2 * NET_BACKLOG)
#define NET_CLOSE_WAIT_MS      1000 /* For the library to close its listening socket. */
#define NET_SILENCE_HANDSHAKES 2    /* First message within so many times handshake_ms. */

/* ---- Cutting --------------------------------------------------------------------------------- */

static void count_cut(struct net_server_stats *stats, enum net_cut why)
{
    switch (why) {
    case NET_CUT_HOARDING:
        stats->cut_hoarding++;
        break;
    case NET_CUT_MULTIPART:
        stats->cut_multipart++;
        break;
    case NET_CUT_NOT_READING:
        stats->cut_not_reading++;
        break;
    case NET_CUT_LIMIT:
        stats->cut_limit++;
        break;
    case NET_CUT_PROTOCOL:
        stats->cut_protocol++;
        break;
    }
}

/* The library cannot disconnect one peer, but drops a connection whose socket is shut down.
 *
 * The descriptor is the library's and may be closed and reused by its thread at any moment. Story:
 * (1) `fd` is accepted, its inode noted; (2) the library closes it, another connection or file of
 * this process gets the number; (3) we shut down the innocent. Prevented by: the duplicate below is
 * ours and cannot change under us; when its inode is not the noted one, nothing happens. The inode
 * noted is the right one, or the connection's DISCONNECTED event, queued before its close, has been
 * read since and the entry is gone. What remains: the events read before this call are all that
 * were queued, so a connection that ends right now is shut down twice, which is harmless. */
static void shut_down(int fd, ino_t inode)
{
    int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (ours < 0) {
        /* Out of descriptors: the only case in which the check and the act are two steps. */
        struct stat now;
        if (errno == EMFILE && fstat(fd, &now) == 0 && now.st_ino == inode) {
            (void)shutdown(fd, SHUT_RDWR);
        }
        return;
    }
    struct stat st;
    if (fstat(ours, &st) == 0 && st.st_ino == inode) {
        (void)shutdown(ours, SHUT_RDWR);
    }
    (void)close(ours);
}

void net_watch_cut(struct net_server *server, int fd, enum net_cut why)
{
    net_server_read_monitor(server);
    struct net_conn *conn = net_conns_of_fd(&server->conns, fd);
    if (conn == NULL || conn->cut) {
        return;
    }
    conn->cut = true;
    count_cut(&server->stats, why);
    shut_down(fd, conn->inode);
}

/* ---- Events of the socket -------------------------------------------------------------------- */

enum ferry_err net_watch_start(struct net_server *server, struct ferry_context *context,
                               struct err_text *e)
{
    char name[NET_INNER_NAME_BYTES];
    net_context_name(context, name);
    int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_ACCEPT_FAILED | ZMQ_EVENT_DISCONNECTED |
                 ZMQ_EVENT_CLOSED | ZMQ_EVENT_CLOSE_FAILED;
    server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    server->monitor = zmq_socket(context->zmq, ZMQ_PAIR);
    if (server->monitor == NULL) {
        return err_set(e, FERRY_ERR_IO, "opening the monitor: %s", zmq_strerror(errno));
    }
    /* No mark: at one, the library's thread would wait for us inside the call that reports an
     * event, and closing the socket would wait for that thread. Events are read at every poll and
     * watch, and come no faster than connections are accepted. */
    net_set_int(server->monitor, ZMQ_RCVHWM, 0);
    net_set_int(server->monitor, ZMQ_LINGER, 0);
    if (zmq_socket_monitor(server->socket, name, events) != 0 ||
        zmq_connect(server->monitor, name) != 0) {
        return err_set(e, FERRY_ERR_IO, "starting the monitor: %s", zmq_strerror(errno));
    }
    return FERRY_OK;
}

/* Connects wait, and accepting them fails for want of a descriptor: the library would try again for
 * ever, at full speed. The reserve makes room to accept them here and close them at once, which is
 * an answer to the peer and the end of the spin. */
static void turn_away(struct net_server *server)
{
    if (server->reserve_fd >= 0) {
        (void)close(server->reserve_fd);
        server->reserve_fd = -1;
    }
    for (int i = 0; i < NET_TURN_AWAY_MAX; i++) {
        int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            break;
        }
        (void)close(fd);
        server->stats.cut_limit++;
    }
    server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accepted(struct net_server *server, int fd)
{
    server->stats.connections_accepted++;
    struct net_conn *conn = net_conns_open(&server->conns, fd, clock_monotonic_us());
    if (conn == NULL) {
        (void)shutdown(fd, SHUT_RDWR); /* No memory even to remember it. */
        server->stats.cut_limit++;
        return;
    }
    if (server->reserve_fd < 0) {
        server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    /* Without the reserve this connection took the last descriptor: it has to give it back. */
    if (server->reserve_fd < 0 || server->conns.count > (size_t)server->config.connections_max) {
        conn->cut = true;
        server->stats.cut_limit++;
        shut_down(fd, conn->inode);
    }
}

static bool read_event(struct net_server *server, int *event, int *value)
{
    unsigned char first[6];
    char address[1];
    if (zmq_recv(server->monitor, first, sizeof(first), ZMQ_DONTWAIT) != (int)sizeof(first)) {
        return false;
    }
    (void)zmq_recv(server->monitor, address, sizeof(address), ZMQ_DONTWAIT);
    *event = get_le16(first);
    *value = (int)get_le32(first + 2);
    return true;
}

void net_server_read_monitor(struct net_server *server)
{
    int event, value, failed = 0;
    for (int i = 0; i < NET_EVENTS_MAX && server->monitor != NULL; i++) {
        if (!read_event(server, &event, &value)) {
            break;
        }
        if (event == ZMQ_EVENT_ACCEPTED) {
            accepted(server, value);
        } else if (event == ZMQ_EVENT_DISCONNECTED) {
            net_conns_close(&server->conns, value);
        } else if (event == ZMQ_EVENT_ACCEPT_FAILED) {
            failed = value;
        } else {
            server->listener_closed = true;
        }
    }
    if (failed == EMFILE || failed == ENFILE) {
        turn_away(server);
    }
}

/* Waits until the library has closed its listening socket, so that the port is free when the server
 * is closed. */
static void await_closed_listener(struct net_server *server)
{
    if (zmq_unbind(server->socket, server->listener.endpoint) != 0) {
        return; /* It was never bound. */
    }
    int64_t deadline_us = clock_monotonic_us() + NET_CLOSE_WAIT_MS * 1000;
    while (!server->listener_closed && clock_monotonic_us() < deadline_us) {
        zmq_pollitem_t item = {.socket = server->monitor, .events = ZMQ_POLLIN};
        (void)zmq_poll(&item, 1, 10);
        net_server_read_monitor(server);
    }
}

void net_watch_stop(struct net_server *server)
{
    if (server->monitor != NULL) {
        await_closed_listener(server);
        must(zmq_socket_monitor(server->socket, NULL, 0) == 0);
        must(zmq_close(server->monitor) == 0);
        server->monitor = NULL;
    }
    if (server->reserve_fd >= 0) {
        (void)close(server->reserve_fd);
        server->reserve_fd = -1;
    }
}

/* ---- Hoarding -------------------------------------------------------------------------------- */

static bool read_tcp_info(int fd, struct tcp_info *info)
{
    socklen_t bytes = sizeof(*info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &bytes) == 0 &&
           bytes >=
               offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info->tcpi_bytes_received);
}

/* Bytes of a connection that the library has taken from the kernel. The second question is asked
 * only when the answer matters. */
static int64_t taken_by_library(const struct tcp_info *info, int fd, int64_t enough)
{
    int64_t received = (int64_t)info->tcpi_bytes_received;
    int unread = 0;
    if (received > enough && ioctl(fd, FIONREAD, &unread) != 0) {
        unread = 0;
    }
    return received - unread;
}

static bool has_message_waiting(struct net_server *server)
{
    int events;
    size_t bytes = sizeof(events);
    must(zmq_getsockopt(server->socket, ZMQ_EVENTS, &events, &bytes) == 0);
    return (events & ZMQ_POLLIN) != 0;
}

/* A whole message is delivered as soon as it is there, so what the library holds of a connection is
 * at most one unfinished message, or it is parts of one that never ends. Held too much is proven at
 * once when no message waits at all. While some do it is a suspicion, and proven when since then
 * either receive has found nothing, or more messages came in than there are connections (the
 * library serves them in turn) and none from this one. */
static bool is_hoarding(struct net_server *server, struct net_conn *conn,
                        const struct tcp_info *info, int fd)
{
    int64_t held_max = (int64_t)server->config.message_max_bytes + NET_HOARD_SLACK_BYTES;
    int64_t taken = taken_by_library(info, fd, conn->delivered + held_max);
    if (conn->delivered > taken) {
        conn->delivered = taken; /* No credit: see meet_peer. */
    }
    if (taken - conn->delivered <= held_max) {
        conn->suspect = false;
        return false;
    }
    if (!has_message_waiting(server)) {
        return true;
    }
    if (!conn->suspect || conn->delivered != conn->suspect_delivered) {
        conn->suspect = true;
        conn->suspect_delivered = conn->delivered;
        conn->suspect_drains = server->drains;
        conn->suspect_received = server->stats.received;
        return false;
    }
    return server->drains > conn->suspect_drains ||
           server->stats.received - conn->suspect_received > server->conns.count;
}

/* Much is waiting for the peer, and it has not taken a byte for as long as a handshake may last. */
static bool is_not_reading(const struct net_server *server, struct net_conn *conn,
                           const struct tcp_info *info, int64_t now_us)
{
    int64_t unread_max = (int64_t)server->config.message_max_bytes * NET_UNREAD_MESSAGES;
    unread_max = unread_max > NET_UNREAD_BYTES_MIN ? unread_max : NET_UNREAD_BYTES_MIN;
    int64_t acked = (int64_t)info->tcpi_bytes_acked;
    if (acked != conn->acked || conn->sent - acked <= unread_max) {
        conn->acked = acked;
        conn->acked_us = now_us;
        return false;
    }
    return now_us - conn->acked_us > (int64_t)server->config.handshake_ms * 1000;
}

/* What was acknowledged is asked only when what was last known does not do: at most once for each
 * unread_max_bytes that are sent. */
bool net_watch_is_flooded(const struct net_server *server, const struct net_conn *conn, int fd)
{
    int64_t unread_max = (int64_t)server->config.unread_max_bytes;
    struct tcp_info info;
    if (conn->sent - conn->acked <= unread_max || server->transport != NET_TCP ||
        !read_tcp_info(fd, &info)) {
        return false;
    }
    return conn->sent - (int64_t)info.tcpi_bytes_acked > unread_max;
}

/* Who connects and says nothing holds a place and a descriptor, and an id that it may have chosen
 * itself. */
static bool is_silent(const struct net_server *server, const struct net_conn *conn, int64_t now_us)
{
    int64_t patience_us = (int64_t)server->config.handshake_ms * 1000 * NET_SILENCE_HANDSHAKES;
    return !conn->has_peer && now_us - conn->accepted_us > patience_us;
}

static void watch_connection(struct net_server *server, int fd, int64_t now_us)
{
    struct net_conn *conn = net_conns_of_fd(&server->conns, fd);
    if (conn == NULL || conn->cut) {
        return;
    }
    if (is_silent(server, conn, now_us)) {
        net_watch_cut(server, fd, NET_CUT_PROTOCOL);
        return;
    }
    /* ipc has no such counts, and its peers have the rights of our own user. */
    struct tcp_info info;
    if (server->transport != NET_TCP || !read_tcp_info(fd, &info)) {
        return;
    }
    if (is_hoarding(server, conn, &info, fd)) {
        log_line(LOG_WARN, "net", "cutting off a peer of %s: it sends a message that never ends",
                 server->listener.endpoint);
        net_watch_cut(server, fd, NET_CUT_HOARDING);
        server->trim_at_us = now_us + NET_TRIM_AFTER_US;
    } else if (is_not_reading(server, conn, &info, now_us)) {
        net_watch_cut(server, fd, NET_CUT_NOT_READING);
    }
}

void net_server_watch(struct net_server *server)
{
    if (server->monitor == NULL) {
        return;
    }
    net_server_read_monitor(server);
    if (server->reserve_fd < 0) {
        server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    int64_t now_us = clock_monotonic_us();
    if (server->trim_at_us != 0 && now_us > server->trim_at_us) {
        server->trim_at_us = 0;
        (void)malloc_trim(0); /* Or the allocator keeps what the hoard took. */
    }
    int fds = (int)server->conns.capacity;
    int looks = fds < NET_WATCH_SLICE ? fds : NET_WATCH_SLICE;
    for (int i = 0; i < looks; i++) {
        server->watch_from = server->watch_from < fds ? server->watch_from : 0;
        watch_connection(server, server->watch_from++, now_us);
    }
}
