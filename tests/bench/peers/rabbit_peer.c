/* rabbit_peer: publishes to a RabbitMQ quorum queue with publisher confirms. See peer.h.
 *
 * URL is HOST:PORT. The queue `ferry-bench` is declared anew, as a quorum queue over all nodes of
 * the cluster, and deleted at the end. Messages are persistent (delivery mode 2). */
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
    peer_sends(r);
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
              publish_all(&r, connection);
    int code = ok ? peer_end(&r, amqp_version()) : 1;
    if (ok) {
        amqp_queue_delete(connection, CHANNEL, amqp_cstring_bytes(QUEUE), 0, 0);
        amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    }
    amqp_destroy_connection(connection);
    return code;
}
