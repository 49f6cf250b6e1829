/* rabbit_peer: publishes to a RabbitMQ quorum queue with publisher confirms. See peer.h.
 *
 * URL is HOST:PORT. The queue `ferry-bench` is declared anew, as a quorum queue over all nodes of
 * the cluster, and deleted at the end. Messages are persistent (delivery mode 2). As a queue: a
 * second connection consumes with a prefetch of PREFETCH and acks up to ACK_EVERY messages with one
 * frame; AMQP confirms no ack, so it counts when it was sent. */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "peer.h"

#define CHANNEL             1
#define QUEUE               "ferry-bench"
#define HOST_BYTES          64
#define FRAME_MAX           131072
#define WAIT_S              30 /* No confirmation for so long: it broke. */
#define DELIVERY_PERSISTENT 2
#define PREFETCH            2000
#define ACK_EVERY           64
#define SOON_US             500

static bool call_failed(const struct peer_run *r, const char *what, amqp_rpc_reply_t reply)
{
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
        return false;
    }
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        peer_failed(r, what, amqp_error_string2(reply.library_error));
    } else {
        peer_failed(r, what, "refused by the broker");
    }
    return true;
}

static bool open_connection(const struct peer_run *r, amqp_connection_state_t connection)
{
    char host[HOST_BYTES];
    const char *colon = strrchr(r->url, ':');
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (colon == NULL || socket == NULL) {
        peer_failed(r, r->url, "not HOST:PORT");
        return false;
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - r->url), r->url);
    int failed = amqp_socket_open(socket, host, (int)strtol(colon + 1, NULL, 10));
    if (failed != AMQP_STATUS_OK) {
        peer_failed(r, r->url, amqp_error_string2(failed));
        return false;
    }
    if (call_failed(r, "login",
                    amqp_login(connection, "/", 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, "guest",
                               "guest"))) {
        return false;
    }
    amqp_channel_open(connection, CHANNEL);
    return !call_failed(r, "opening a channel", amqp_get_rpc_reply(connection));
}

static bool declare_queue(const struct peer_run *r, amqp_connection_state_t connection)
{
    amqp_table_entry_t entry = {
        .key = amqp_cstring_bytes("x-queue-type"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("quorum")}};
    amqp_table_t arguments = {.num_entries = 1, .entries = &entry};
    amqp_queue_delete(connection, CHANNEL, amqp_cstring_bytes(QUEUE), 0, 0);
    if (call_failed(r, "deleting the queue", amqp_get_rpc_reply(connection))) {
        return false;
    }
    amqp_queue_declare(connection, CHANNEL, amqp_cstring_bytes(QUEUE), 0, 1, 0, 0, arguments);
    if (call_failed(r, "declaring the queue", amqp_get_rpc_reply(connection))) {
        return false;
    }
    amqp_confirm_select(connection, CHANNEL);
    return !call_failed(r, "asking for confirms", amqp_get_rpc_reply(connection));
}

static bool publish_one(struct peer_run *r, amqp_connection_state_t connection)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                          .delivery_mode = DELIVERY_PERSISTENT};
    peer_number(r, peer_sends(r));
    int failed =
        amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(QUEUE), 0, 0,
                           &properties, (amqp_bytes_t){.len = r->bytes, .bytes = r->payload});
    if (failed != AMQP_STATUS_OK) {
        peer_failed(r, "publishing", amqp_error_string2(failed));
    }
    return failed == AMQP_STATUS_OK;
}

/* Tag n is message n - 1; `multiple` means all up to it. `*floor`: all below are confirmed. */
static void take_ack(struct peer_run *r, const amqp_basic_ack_t *ack, int64_t *floor)
{
    int64_t last = (int64_t)ack->delivery_tag - 1;
    if (last < r->sent) {
        peer_confirmed(r, last);
    }
    for (; *floor < r->sent && (r->latencies_us[*floor] != 0 || (ack->multiple && *floor <= last));
         (*floor)++) {
        peer_confirmed(r, *floor);
    }
}

/* The next confirmation, waiting for it; false when none came or something else did. */
static bool wait_for_ack(struct peer_run *r, amqp_connection_state_t connection, int64_t *floor)
{
    amqp_frame_t frame;
    struct timeval patience = {.tv_sec = WAIT_S};
    int failed = amqp_simple_wait_frame_noblock(connection, &frame, &patience);
    if (failed != AMQP_STATUS_OK) {
        peer_failed(r, "waiting for a confirmation", amqp_error_string2(failed));
        return false;
    }
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
        peer_failed(r, "waiting for a confirmation", "something else came");
        return false;
    }
    take_ack(r, frame.payload.method.decoded, floor);
    amqp_maybe_release_buffers(connection);
    return true;
}

static bool publish_all(struct peer_run *r, amqp_connection_state_t connection)
{
    int64_t floor = 0;
    bool ok = true;
    peer_start(r);
    while (ok && peer_goes_on(r)) {
        ok = r->sent - r->confirmed < r->in_flight ? publish_one(r, connection)
                                                   : wait_for_ack(r, connection, &floor);
    }
    while (ok && r->confirmed < r->sent) {
        ok = wait_for_ack(r, connection, &floor);
    }
    return ok;
}

/* ---- As a queue ---- */

static bool start_consuming(const struct peer_run *r, amqp_connection_state_t connection)
{
    amqp_basic_qos(connection, CHANNEL, 0, PREFETCH, 0);
    if (call_failed(r, "asking for a prefetch", amqp_get_rpc_reply(connection))) {
        return false;
    }
    amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(QUEUE), amqp_empty_bytes, 0, 0, 0,
                       amqp_empty_table);
    return !call_failed(r, "consuming", amqp_get_rpc_reply(connection));
}

/* Taken and not acked yet. */
struct taken {
    int64_t numbers[ACK_EVERY];
    uint32_t count;
    uint64_t last_tag;
};

static void ack_taken(struct peer_run *r, amqp_connection_state_t connection, struct taken *t)
{
    if (t->count > 0 && amqp_basic_ack(connection, CHANNEL, t->last_tag, 1) == AMQP_STATUS_OK) {
        for (uint32_t i = 0; i < t->count; i++) {
            peer_confirmed(r, t->numbers[i]);
        }
    }
    t->count = 0;
}

static void consume_all(struct peer_run *r, amqp_connection_state_t connection)
{
    struct taken t = {.count = 0};
    while (!peer_is_over(r)) {
        amqp_envelope_t envelope;
        struct timeval patience = {.tv_usec = SOON_US};
        amqp_maybe_release_buffers(connection);
        amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, &patience, 0);
        bool nothing = reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
                       reply.library_error == AMQP_STATUS_TIMEOUT;
        if (nothing) {
            ack_taken(r, connection, &t);
            continue;
        }
        if (call_failed(r, "consuming", reply)) {
            peer_stop(r);
            return;
        }
        int64_t n = peer_read_number(r, envelope.message.body.bytes, envelope.message.body.len);
        t.last_tag = envelope.delivery_tag;
        amqp_destroy_envelope(&envelope);
        if (n >= 0) {
            t.numbers[t.count++] = n;
        }
        if (t.count == ACK_EVERY) {
            ack_taken(r, connection, &t);
        }
    }
}

static void *consume(void *arg)
{
    struct peer_run *r = arg;
    amqp_connection_state_t connection = amqp_new_connection();
    if (connection != NULL && open_connection(r, connection) && start_consuming(r, connection)) {
        consume_all(r, connection);
    }
    peer_stop(r);
    if (connection != NULL) {
        amqp_destroy_connection(connection);
    }
    return NULL;
}

/* The broker's confirmations of publishes are read and not counted: the acks are. */
static bool drain_confirms(struct peer_run *r, amqp_connection_state_t connection, int64_t wait_us)
{
    for (;;) {
        amqp_frame_t frame;
        struct timeval patience = {.tv_usec = wait_us};
        int failed = amqp_simple_wait_frame_noblock(connection, &frame, &patience);
        if (failed == AMQP_STATUS_TIMEOUT) {
            amqp_maybe_release_buffers(connection);
            return true;
        }
        if (failed != AMQP_STATUS_OK) {
            peer_failed(r, "waiting for a confirmation", amqp_error_string2(failed));
            return false;
        }
        wait_us = 0;
    }
}

static bool queue_all(struct peer_run *r, amqp_connection_state_t connection)
{
    pthread_t consumer;
    if (pthread_create(&consumer, NULL, consume, r) != 0) {
        peer_failed(r, "starting", "no thread");
        return false;
    }
    bool ok = true;
    peer_start(r);
    while (ok && peer_goes_on(r) && !peer_is_over(r)) {
        bool room = peer_under_way(r) < r->in_flight;
        ok = room ? publish_one(r, connection) : drain_confirms(r, connection, SOON_US);
        if (ok && room && r->sent % ACK_EVERY == 0) {
            ok = drain_confirms(r, connection, 0);
        }
    }
    ok = ok && peer_wait_for_all(r);
    peer_stop(r);
    pthread_join(consumer, NULL);
    return ok;
}

int main(int argc, char **argv)
{
    struct peer_run r;
    if (!peer_begin(&r, argc, argv)) {
        return 2;
    }
    amqp_connection_state_t connection = amqp_new_connection();
    if (connection == NULL) {
        return peer_failed(&r, "starting", "out of memory");
    }
    bool ok = open_connection(&r, connection) && declare_queue(&r, connection) &&
              (r.queue ? queue_all(&r, connection) : publish_all(&r, connection));
    int code = ok ? peer_end(&r, amqp_version()) : 1;
    if (ok) {
        amqp_queue_delete(connection, CHANNEL, amqp_cstring_bytes(QUEUE), 0, 0);
        amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    }
    amqp_destroy_connection(connection);
    return code;
}
