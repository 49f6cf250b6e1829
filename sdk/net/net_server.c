#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/net_server_inner.h"

#define NET_ROUTING_ID_MAX_BYTES 255
#define NET_OWN_ID_BYTES         5  /* A zero byte and the number the library counted to. */
#define NET_SKIP_MAX             64 /* Messages that one receive drops before it pauses. */
#define NET_FD_MARGIN            64 /* Descriptors that connections leave to the rest of us. */

/* ---- Opening and closing --------------------------------------------------------------------- */

/* Connections may not take the last descriptors of the process: files and sockets of ours would
 * fail, and the library aborts where it needs one (BAD-Z14). */
static int affordable_connections(int wanted)
{
    struct rlimit limit;
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > (rlim_t)wanted + NET_FD_MARGIN) {
        return wanted;
    }
    int room = (int)limit.rlim_cur;
    int affordable = room > 2 * NET_FD_MARGIN ? room - NET_FD_MARGIN : room / 2;
    log_line(LOG_WARN, "net",
             "%d connections are allowed but only %d files may be open: taking %d connections; "
             "raise the limit (ulimit -n, LimitNOFILE=)",
             wanted, room, affordable);
    return affordable;
}

static void set_options(struct net_server *server)
{
    void *socket = server->socket;
    const struct net_server_config *config = &server->config;
    int64_t largest = (int64_t)config->message_max_bytes;
    must(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof(largest)) == 0);
    net_set_int(socket, ZMQ_LINGER, 0);
    net_set_int(socket, ZMQ_SNDHWM, config->replies_max);
    net_set_int(socket, ZMQ_RCVHWM, config->queue_max);
    net_set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    net_set_int(socket, ZMQ_HANDSHAKE_IVL, config->handshake_ms);
    /* Later than the watch finds a peer that does not read: the kernel gives those up by the same
     * option, but counts nothing. */
    net_set_keepalive(socket, 2 * config->handshake_ms);
}

static enum ferry_err socket_error(const char *what, struct err_text *e)
{
    if (errno == ENOMEM) {
        return FERRY_ERR_NO_MEMORY;
    }
    return err_set(e, FERRY_ERR_IO, "%s: %s", what, zmq_strerror(errno));
}

static bool receive_id(struct net_server *server, unsigned char id[NET_ROUTING_ID_MAX_BYTES],
                       int *bytes)
{
    *bytes = zmq_recv(server->socket, id, NET_ROUTING_ID_MAX_BYTES, ZMQ_DONTWAIT);
    return *bytes >= 0;
}

/* The library counts its ids up from a number of rand(), and aborts the process when a peer has
 * already claimed the next one for itself (libzmq 4.3.4, router.cpp by way of add_out_pipe). It
 * seeds rand() by the time and the process id, which can be guessed; this seed cannot. What is left
 * to an attacker is 1 : 2^32 for each connection made while one that claimed an id is open, and
 * such a connection is cut by its first message, or for sending none (net_watch.c). */
static void make_ids_unguessable(void)
{
    unsigned seed;
    if (getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed)) {
        srandom(seed); /* The same state as rand() in glibc; the library has seeded it before us. */
    }
}

/* Learns where the library starts to count its ids, by a connection of our own, before anyone else
 * can connect: an id that was never given out is a peer's invention. */
static enum ferry_err learn_first_peer(struct net_server *server, struct ferry_context *context,
                                       struct err_text *e)
{
    char name[NET_INNER_NAME_BYTES];
    net_context_name(context, name);
    if (zmq_bind(server->socket, name) != 0) {
        return socket_error("binding the probe", e);
    }
    enum ferry_err err = FERRY_OK;
    void *probe = zmq_socket(context->zmq, ZMQ_DEALER);
    if (probe == NULL) {
        return socket_error("opening the probe", e);
    }
    net_set_int(probe, ZMQ_LINGER, 0);
    unsigned char id[NET_ROUTING_ID_MAX_BYTES], empty[1];
    if (zmq_connect(probe, name) != 0 || zmq_send(probe, "", 0, 0) != 0 ||
        zmq_recv(server->socket, id, sizeof(id), 0) != NET_OWN_ID_BYTES ||
        zmq_recv(server->socket, empty, sizeof(empty), 0) != 0) {
        err = socket_error("reading the probe", e);
    } else {
        server->first_peer = get_be32(id + 1);
    }
    must(zmq_close(probe) == 0);
    must(zmq_unbind(server->socket, name) == 0);
    return err;
}

static enum ferry_err bind_listener(struct net_server *server, const struct net_endpoint *endpoint,
                                    struct err_text *e)
{
    enum ferry_err err = net_listener_open(endpoint, &server->listener, e);
    if (err != FERRY_OK) {
        return err;
    }
    int given = dup(server->listener.fd);
    if (given < 0) {
        return socket_error("duplicating the listening socket", e);
    }
    net_set_int(server->socket, ZMQ_USE_FD, given);
    if (zmq_bind(server->socket, server->listener.endpoint) != 0) {
        err = socket_error(server->listener.endpoint, e);
        (void)close(given);
    }
    return err;
}

static enum ferry_err bind_inproc(struct net_server *server, const struct net_endpoint *endpoint,
                                  struct err_text *e)
{
    server->listener = (struct net_listener){.fd = -1};
    memcpy(server->listener.endpoint, endpoint->text, sizeof(endpoint->text));
    if (zmq_bind(server->socket, endpoint->text) == 0) {
        return FERRY_OK;
    }
    if (errno == EADDRINUSE) {
        return err_set(e, FERRY_ERR_LOCKED,
                       "%s is taken in this process: close the other broker or choose another name",
                       endpoint->text);
    }
    return socket_error(endpoint->text, e);
}

static enum ferry_err start(struct net_server *server, struct ferry_context *context,
                            const struct net_endpoint *endpoint, struct err_text *e)
{
    make_ids_unguessable();
    server->socket = zmq_socket(context->zmq, ZMQ_ROUTER);
    if (server->socket == NULL) {
        return socket_error("opening a socket", e);
    }
    set_options(server);
    if (endpoint->transport == NET_INPROC) {
        return bind_inproc(server, endpoint, e);
    }
    enum ferry_err err = learn_first_peer(server, context, e);
    if (err == FERRY_OK) {
        err = net_watch_start(server, context, e);
    }
    return err == FERRY_OK ? bind_listener(server, endpoint, e) : err;
}

enum ferry_err net_server_open(struct ferry_context *context, const char *endpoint,
                               const struct net_server_config *config, struct net_server **server,
                               struct err_text *e)
{
    must(config->connections_max > 0 && config->queue_max > 0 && config->handshake_ms > 0);
    must(config->replies_max > 0 && config->unread_max_bytes >= config->message_max_bytes);
    struct net_endpoint parsed;
    enum ferry_err err = net_endpoint_parse(endpoint, true, &parsed, e);
    if (err != FERRY_OK) {
        return err;
    }
    struct net_server *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->config = *config;
    s->config.connections_max = affordable_connections(config->connections_max);
    s->transport = parsed.transport;
    s->listener.fd = -1;
    s->reserve_fd = -1;
    err = FERRY_ERR_NO_MEMORY;
    if (net_conns_init(&s->conns, (size_t)s->config.connections_max)) {
        err = start(s, context, &parsed, e);
    }
    if (err != FERRY_OK) {
        net_server_close(&s);
        return err;
    }
    *server = s;
    return FERRY_OK;
}

void net_server_close(struct net_server **server)
{
    struct net_server *s = *server;
    if (s == NULL) {
        return;
    }
    net_watch_stop(s);
    if (s->socket != NULL) {
        must(zmq_close(s->socket) == 0);
    }
    net_listener_close(&s->listener);
    net_conns_fini(&s->conns);
    mem_free(s);
    *server = NULL;
}

const char *net_server_endpoint(const struct net_server *server)
{
    return server->listener.endpoint;
}

void net_server_stats(const struct net_server *server, struct net_server_stats *stats)
{
    *stats = server->stats;
    stats->connections_open = server->conns.count;
}

/* ---- Receiving ------------------------------------------------------------------------------- */

/* What a message of one part took on the wire: ZMTP 3.0, flags and length before the content. */
static int64_t wire_bytes(size_t size)
{
    return (int64_t)size + (size < 256 ? 2 : 9);
}

/* The parts of one message are all there (the library hands over whole messages), and what a peer
 * can pile up in one is bounded by the watch: so this ends. */
static bool drop_further_parts(struct net_server *server, zmq_msg_t *m)
{
    if (!zmq_msg_more(m)) {
        return false;
    }
    while (zmq_msg_more(m)) {
        if (zmq_msg_recv(m, server->socket, ZMQ_DONTWAIT) < 0) {
            break;
        }
    }
    return true;
}

/* Ids are counted up from our probe's, one a connection. */
static bool id_was_given(const struct net_server *server, const unsigned char *id, int bytes)
{
    if (bytes != NET_OWN_ID_BYTES || id[0] != 0) {
        return false;
    }
    uint32_t serial = get_be32(id + 1) - server->first_peer;
    return serial >= 1 && serial <= server->stats.connections_accepted;
}

/* The first message of a peer tells which connection is its own. False: it must be dropped.
 *
 * The descriptor in the message is the one it came by, and that may have been closed and reused
 * since. Then the peer is bound to a newer connection until that one's own first message comes,
 * with a later id, and takes the place; the worst outcome is a cut that hits the newer connection,
 * whose owner connects again. */
static bool meet_peer(struct net_server *server, const unsigned char *id, int id_bytes, int fd)
{
    net_server_read_monitor(server);
    struct net_conn *conn = net_conns_of_fd(&server->conns, fd);
    if (conn == NULL || conn->cut) {
        return false; /* Its connection is gone: there is nobody to answer. */
    }
    if (!id_was_given(server, id, id_bytes)) {
        net_watch_cut(server, fd, NET_CUT_PROTOCOL);
        return false;
    }
    net_peer peer = get_be32(id + 1);
    if (conn->has_peer) {
        if ((int32_t)(peer - conn->peer) < 0) {
            return false; /* A late message of the connection before this one. */
        }
        conn->delivered = 0;
        conn->sent = 0;
    }
    if (!net_conns_bind(&server->conns, fd, peer)) {
        net_watch_cut(server, fd, NET_CUT_LIMIT);
        return false;
    }
    return true;
}

/* True when the message is for the caller. */
static bool admit(struct net_server *server, const unsigned char *id, int id_bytes, zmq_msg_t *m)
{
    bool many = drop_further_parts(server, m);
    if (server->transport == NET_INPROC) { /* Our own process: nothing to be cut. */
        return !many && id_bytes == NET_OWN_ID_BYTES && zmq_msg_size(m) > 0;
    }
    bool own_form = id_bytes == NET_OWN_ID_BYTES && id[0] == 0;
    int fd = own_form ? net_conns_fd_of_peer(&server->conns, get_be32(id + 1)) : -1;
    bool first = fd < 0;
    if (first) {
        fd = zmq_msg_get(m, ZMQ_SRCFD);
        if (!meet_peer(server, id, id_bytes, fd)) {
            return false;
        }
    }
    struct net_conn *conn = net_conns_of_fd(&server->conns, fd);
    must(conn != NULL);
    conn->delivered += wire_bytes(zmq_msg_size(m));
    if (conn->cut) {
        return false;
    }
    if (many) {
        net_watch_cut(server, fd, NET_CUT_MULTIPART);
        return false;
    }
    if (zmq_msg_size(m) == 0) { /* A link's greeting, once; no frame is empty. */
        if (!first) {
            net_watch_cut(server, fd, NET_CUT_PROTOCOL);
        }
        return false;
    }
    return true;
}

bool net_server_receive(struct net_server *server, net_peer *peer, struct net_message *m)
{
    zmq_msg_t *inner = (zmq_msg_t *)(void *)m->opaque;
    for (int i = 0; i < NET_SKIP_MAX; i++) {
        unsigned char id[NET_ROUTING_ID_MAX_BYTES];
        int id_bytes;
        if (!receive_id(server, id, &id_bytes) ||
            zmq_msg_recv(inner, server->socket, ZMQ_DONTWAIT) < 0) {
            server->drains++;
            return false;
        }
        if (admit(server, id, id_bytes, inner)) {
            *peer = get_be32(id + 1);
            server->stats.received++;
            server->stats.received_bytes += zmq_msg_size(inner);
            return true;
        }
    }
    return false;
}

/* ---- Sending --------------------------------------------------------------------------------- */

/* Both parts of a message to a connected peer. */
static enum ferry_err send_parts(struct net_server *server, net_peer peer, zmq_msg_t *message)
{
    unsigned char id[NET_OWN_ID_BYTES] = {0};
    put_be32(id + 1, peer);
    if (zmq_send(server->socket, id, sizeof(id), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        return errno == EAGAIN ? FERRY_ERR_THROTTLED : FERRY_ERR_UNREACHABLE;
    }
    /* After the id the second part always has room: the queue counts whole messages. */
    if (zmq_msg_send(message, server->socket, ZMQ_DONTWAIT) < 0) {
        return FERRY_ERR_UNREACHABLE;
    }
    return FERRY_OK;
}

enum ferry_err net_server_send(struct net_server *server, net_peer peer, struct buf *frame)
{
    int fd = net_conns_fd_of_peer(&server->conns, peer);
    struct net_conn *conn = net_conns_of_fd(&server->conns, fd);
    if (server->transport != NET_INPROC && (conn == NULL || conn->cut)) {
        buf_fini(frame); /* Taken whatever happens. */
        return FERRY_ERR_UNREACHABLE;
    }
    if (conn != NULL && net_watch_is_flooded(server, conn, fd)) {
        buf_fini(frame);
        net_watch_cut(server, fd, NET_CUT_NOT_READING);
        return FERRY_ERR_THROTTLED;
    }
    size_t bytes = frame->size;
    zmq_msg_t message;
    if (net_message_take(&message, frame) != FERRY_OK) {
        buf_fini(frame);
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = send_parts(server, peer, &message);
    if (err != FERRY_OK) {
        must(zmq_msg_close(&message) == 0);
        if (err == FERRY_ERR_THROTTLED && conn != NULL) { /* Its queue is full: it does not read. */
            net_watch_cut(server, fd, NET_CUT_NOT_READING);
        }
        return err;
    }
    if (conn != NULL) {
        conn->sent += wire_bytes(bytes);
    }
    server->stats.sent++;
    server->stats.sent_bytes += bytes;
    return FERRY_OK;
}

bool net_server_has_peer(struct net_server *server, net_peer peer)
{
    if (server->transport == NET_INPROC) {
        return true;
    }
    net_server_read_monitor(server);
    const struct net_conn *conn =
        net_conns_of_fd(&server->conns, net_conns_fd_of_peer(&server->conns, peer));
    return conn != NULL && !conn->cut;
}

void net_server_cut(struct net_server *server, net_peer peer, const char *reason)
{
    int fd = net_conns_fd_of_peer(&server->conns, peer);
    if (fd < 0) {
        return;
    }
    log_line(LOG_WARN, "net", "cutting off a peer of %s: %s", server->listener.endpoint, reason);
    net_watch_cut(server, fd, NET_CUT_PROTOCOL);
}

void *net_server_socket(struct net_server *server)
{
    return server->socket;
}

void *net_server_monitor(struct net_server *server)
{
    return server->monitor;
}
