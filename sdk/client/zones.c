#include "client/zones.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/metadata.h"

#define ZONES_TRY_MS 1000

void zones_init(struct zones *z, struct ferry_client *c, struct topic *t, zones_told *told)
{
    *z = (struct zones){.client = c, .topic = t, .told = told};
    buf_init(&z->text, ZONES_MAX_BYTES);
}

void zones_stop(struct zones *z)
{
    if (z->out) {
        call_cancel(z->client, &z->call);
        z->out = false;
    }
    buf_fini(&z->text);
}

/* ---- Asking. */

static void encode(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    (void)group;
    empty_encode(b);
}

static void take(struct zones *z, const struct node_list_reply *reply)
{
    z->count = 0;
    for (uint32_t i = 0; i < reply->count; i++) {
        struct zone_of_node *n = &z->nodes[z->count++];
        const struct bytes zone = reply->items[i].zone;
        must(zone.size <= sizeof(n->zone)); /* The decoder saw to it. */
        n->node_id = reply->items[i].node_id;
        n->zone_bytes = (uint32_t)zone.size;
        if (zone.size > 0) {
            memcpy(n->zone, zone.data, zone.size);
        }
    }
}

static void take_answer(struct zones *z, const struct call *call)
{
    struct node_list_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return;
    }
    if (node_list_reply_decode(call->frame.body, reply) == FERRY_OK) {
        take(z, reply);
    } else {
        z->client->bad_replies++;
    }
    mem_free(reply);
}

static void on_done(struct ferry_client *c, struct call *call)
{
    struct zones *z = call->arg;
    enum ferry_err err = call->err;
    (void)c;
    if (err == FERRY_OK) {
        take_answer(z, call);
    }
    call_fini(call);
    z->out = false;
    z->heard = true;
    if (err != FERRY_ERR_CLOSED) {
        z->told(z);
    }
}

static void ask(struct zones *z, int64_t now_us)
{
    z->asked_us = now_us;
    z->out = true;
    call_init(&z->call, COMMAND_NODE_LIST, ROUTE_CONTROLLER, encode, NULL, ZONES_TRY_MS);
    z->call.done = on_done;
    z->call.arg = z;
    call_start(z->client, &z->call);
}

/* ---- Which leader is where. */

static const struct zone_of_node *node_of(const struct zones *z, const struct partition *p)
{
    const struct connection *leader = p->leader != NULL ? p->leader : p->before;
    uint32_t node_id = leader != NULL ? route_node_of(z->client, leader) : 0;
    for (uint32_t i = 0; i < z->count; i++) {
        if (z->nodes[i].node_id == node_id) {
            return &z->nodes[i];
        }
    }
    return NULL;
}

static bool lacks_a_leader(const struct zones *z)
{
    for (int32_t i = 0; i < z->topic->partition_count; i++) {
        if (node_of(z, z->topic->partitions[i]) == NULL) {
            return true;
        }
    }
    return false;
}

bool zones_are_known(struct zones *z)
{
    int64_t now_us = clock_monotonic_us();
    int64_t age_us = now_us - z->asked_us;
    bool old = age_us >= ZONES_AGE_MS * INT64_C(1000) ||
               (age_us >= ZONES_PAUSE_MS * INT64_C(1000) && lacks_a_leader(z));
    if (!z->out && (!z->heard || old)) {
        ask(z, now_us);
    }
    return z->heard;
}

/* Zones stand with spaces between. */
static bool is_sayable(const struct zone_of_node *n)
{
    return n != NULL && n->zone_bytes > 0 && memchr(n->zone, ' ', n->zone_bytes) == NULL;
}

struct bytes zones_text(struct zones *z)
{
    bool any = false;
    buf_clear(&z->text);
    for (int32_t i = 0; i < z->topic->partition_count; i++) {
        const struct zone_of_node *n = node_of(z, z->topic->partitions[i]);
        bool sayable = is_sayable(n);
        any = any || sayable;
        if (i > 0) {
            buf_append_u8(&z->text, ' ');
        }
        buf_append_bytes(&z->text, sayable ? bytes_of(n->zone, n->zone_bytes) : bytes_of("-", 1));
    }
    return any && buf_ok(&z->text) ? buf_bytes(&z->text) : bytes_of(NULL, 0);
}
