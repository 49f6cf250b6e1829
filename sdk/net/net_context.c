#include "net/net_inner.h"

#include <errno.h>
#include <stdio.h>

#include "base/mem.h"

_Static_assert(sizeof(struct net_message) >= sizeof(zmq_msg_t), "a message fits its opaque room");
_Static_assert(_Alignof(struct net_message) >= _Alignof(zmq_msg_t), "and its alignment");

/* The compiled-in and the loaded library agree in the first two numbers, or it would not have
 * linked; the header's own are what this was tested with. */
const char *net_library_version(void)
{
#define VERSION_TEXT(x)  #x
#define VERSION(a, b, c) VERSION_TEXT(a) "." VERSION_TEXT(b) "." VERSION_TEXT(c)
    return VERSION(ZMQ_VERSION_MAJOR, ZMQ_VERSION_MINOR, ZMQ_VERSION_PATCH);
#undef VERSION
#undef VERSION_TEXT
}

enum ferry_err net_context_new(int io_threads, struct ferry_context **context)
{
    must(io_threads > 0);
    struct ferry_context *c = mem_zalloc(1, sizeof(*c));
    if (c == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    c->zmq = zmq_ctx_new();
    if (c->zmq == NULL) {
        enum ferry_err err = errno == ENOMEM ? FERRY_ERR_NO_MEMORY : FERRY_ERR_IO;
        mem_free(c);
        return err;
    }
    must(zmq_ctx_set(c->zmq, ZMQ_IO_THREADS, io_threads) == 0);
    *context = c;
    return FERRY_OK;
}

void net_context_free(struct ferry_context **context)
{
    if (*context == NULL) {
        return;
    }
    /* Every socket is closed without linger, so this waits for the I/O threads only. */
    while (zmq_ctx_term((*context)->zmq) != 0) {
        must(errno == EINTR);
    }
    mem_free(*context);
    *context = NULL;
}

void net_context_name(struct ferry_context *context, char name[NET_INNER_NAME_BYTES])
{
    (void)snprintf(name, NET_INNER_NAME_BYTES, "inproc://net-inner-%u",
                   atomic_fetch_add(&context->next_name, 1));
}

void net_set_int(void *socket, int option, int value)
{
    must(zmq_setsockopt(socket, option, &value, sizeof(value)) == 0);
}

void net_set_keepalive(void *socket, int dead_peer_ms)
{
    net_set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    net_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, NET_KEEPALIVE_IDLE_S);
    net_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, NET_KEEPALIVE_INTERVAL_S);
    net_set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, NET_KEEPALIVE_COUNT);
    net_set_int(socket, ZMQ_TCP_MAXRT, dead_peer_ms);
}

/* ---- Messages -------------------------------------------------------------------------------- */

static zmq_msg_t *inner(struct net_message *m)
{
    return (zmq_msg_t *)(void *)m->opaque;
}

void net_message_init(struct net_message *m)
{
    must(zmq_msg_init(inner(m)) == 0);
}

void net_message_close(struct net_message *m)
{
    must(zmq_msg_close(inner(m)) == 0);
    net_message_init(m);
}

void net_message_move(struct net_message *to, struct net_message *from)
{
    must(to != from);
    must(zmq_msg_move(inner(to), inner(from)) == 0);
}

struct bytes net_message_bytes(struct net_message *m)
{
    return bytes_of(zmq_msg_data(inner(m)), zmq_msg_size(inner(m)));
}

static void free_stolen(void *data, void *hint)
{
    (void)hint;
    mem_free(data);
}

static enum ferry_err message_copy(zmq_msg_t *message, struct buf *frame)
{
    if (zmq_msg_init_size(message, frame->size) != 0) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (frame->size > 0) {
        memcpy(zmq_msg_data(message), frame->data, frame->size);
    }
    buf_clear(frame);
    return FERRY_OK;
}

enum ferry_err net_message_take(zmq_msg_t *message, struct buf *frame)
{
    if (frame->size <= NET_COPY_MAX_BYTES) {
        return message_copy(message, frame);
    }
    if (zmq_msg_init_data(message, frame->data, frame->size, free_stolen, NULL) != 0) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t size;
    (void)buf_steal(frame, &size);
    return FERRY_OK;
}
