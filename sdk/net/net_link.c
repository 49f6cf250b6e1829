#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "net/net_inner.h"
#include "net/net_listen.h"

/* Messages that wait in each direction. Small, because the mark counts messages and not bytes: the
 * memory of a link is bounded by NET_LINK_QUEUE_MAX messages of the largest size (BAD-Z03). */
#define NET_LINK_QUEUE_MAX 256

#define NET_LINK_TIMEOUT_MS       5000  /* To connect and to shake hands. */
#define NET_LINK_DEAD_MS          10000 /* Sent bytes not taken for so long: connect again. */
#define NET_LINK_RECONNECT_MS     50    /* First; doubled up to the maximum. */
#define NET_LINK_RECONNECT_MAX_MS 1000

struct net_link {
    void *socket;
};

static void set_options(void *socket, const struct net_endpoint *endpoint, size_t message_max_bytes)
{
    int64_t largest = (int64_t)message_max_bytes;
    must(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof(largest)) == 0);
    net_set_int(socket, ZMQ_LINGER, 0);
    net_set_int(socket, ZMQ_SNDHWM, NET_LINK_QUEUE_MAX);
    net_set_int(socket, ZMQ_RCVHWM, NET_LINK_QUEUE_MAX);
    /* Messages may wait for the first connection and for a reconnect: the caller would have to
     * queue them otherwise, and what is lost or late its deadlines and retries find (BAD-Z11). */
    net_set_int(socket, ZMQ_IMMEDIATE, 0);
    net_set_int(socket, ZMQ_HANDSHAKE_IVL, NET_LINK_TIMEOUT_MS);
    net_set_int(socket, ZMQ_CONNECT_TIMEOUT, NET_LINK_TIMEOUT_MS);
    net_set_int(socket, ZMQ_RECONNECT_IVL, NET_LINK_RECONNECT_MS);
    net_set_int(socket, ZMQ_RECONNECT_IVL_MAX, NET_LINK_RECONNECT_MAX_MS);
    /* An empty message on each new connection, so that the server knows at once whose connection
     * it is; a connection that says nothing is cut (net_watch.c). */
    net_set_int(socket, ZMQ_PROBE_ROUTER, 1);
    net_set_int(socket, ZMQ_IPV6, strchr(endpoint->host, ':') != NULL);
    net_set_keepalive(socket, NET_LINK_DEAD_MS);
}

static enum ferry_err connect_error(const char *text, struct err_text *e)
{
    switch (errno) {
    case EINVAL:
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "%s: the library does not take it: write tcp://HOST:PORT, ipc://PATH or "
                       "inproc://NAME",
                       text);
    case ENOMEM:
        return FERRY_ERR_NO_MEMORY;
    default:
        return err_set(e, FERRY_ERR_IO, "cannot connect to %s: %s", text, zmq_strerror(errno));
    }
}

enum ferry_err net_link_open(struct ferry_context *context, const char *endpoint,
                             size_t message_max_bytes, struct net_link **link, struct err_text *e)
{
    struct net_endpoint parsed;
    enum ferry_err err = net_endpoint_parse(endpoint, false, &parsed, e);
    if (err != FERRY_OK) {
        return err;
    }
    struct net_link *l = mem_zalloc(1, sizeof(*l));
    if (l == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    l->socket = zmq_socket(context->zmq, ZMQ_DEALER);
    if (l->socket == NULL) {
        err = connect_error(endpoint, e);
        goto fail;
    }
    set_options(l->socket, &parsed, message_max_bytes);
    if (zmq_connect(l->socket, endpoint) != 0) {
        err = connect_error(endpoint, e);
        goto fail;
    }
    *link = l;
    return FERRY_OK;
fail:
    net_link_close(&l);
    return err;
}

void net_link_close(struct net_link **link)
{
    if (*link == NULL) {
        return;
    }
    if ((*link)->socket != NULL) {
        must(zmq_close((*link)->socket) == 0);
    }
    mem_free(*link);
    *link = NULL;
}

static enum ferry_err send_error(void)
{
    return errno == EAGAIN   ? FERRY_ERR_THROTTLED
           : errno == ENOMEM ? FERRY_ERR_NO_MEMORY
                             : FERRY_ERR_IO;
}

/* The memory of a large frame is handed over, and cannot be taken back when the queue is full:
 * therefore the question first. */
static enum ferry_err send_large(struct net_link *link, struct buf *frame)
{
    int events;
    size_t bytes = sizeof(events);
    must(zmq_getsockopt(link->socket, ZMQ_EVENTS, &events, &bytes) == 0);
    if ((events & ZMQ_POLLOUT) == 0) {
        return FERRY_ERR_THROTTLED;
    }
    zmq_msg_t message;
    enum ferry_err err = net_message_take(&message, frame);
    if (err != FERRY_OK) {
        return err;
    }
    if (zmq_msg_send(&message, link->socket, ZMQ_DONTWAIT) < 0) {
        must(zmq_msg_close(&message) == 0);
        return FERRY_ERR_IO; /* Not THROTTLED: there was room a moment ago, and it is ours. */
    }
    return FERRY_OK;
}

enum ferry_err net_link_send(struct net_link *link, struct buf *frame)
{
    if (frame->size > NET_COPY_MAX_BYTES) {
        return send_large(link, frame);
    }
    if (zmq_send(link->socket, frame->data, frame->size, ZMQ_DONTWAIT) < 0) {
        return send_error();
    }
    buf_clear(frame);
    return FERRY_OK;
}

/* A server speaks in single parts too. The parts of a longer message are read to its end (they are
 * all there, the library hands over whole messages) and dropped. */
static bool drop_parts(void *socket, zmq_msg_t *m)
{
    bool many = false;
    while (zmq_msg_more(m)) {
        many = true;
        if (zmq_msg_recv(m, socket, ZMQ_DONTWAIT) < 0) {
            break;
        }
    }
    return many;
}

bool net_link_receive(struct net_link *link, struct net_message *m)
{
    zmq_msg_t *inner = (zmq_msg_t *)(void *)m->opaque;
    while (zmq_msg_recv(inner, link->socket, ZMQ_DONTWAIT) >= 0) {
        if (!drop_parts(link->socket, inner)) {
            return true;
        }
    }
    return false;
}

void *net_link_socket(struct net_link *link)
{
    return link->socket;
}
