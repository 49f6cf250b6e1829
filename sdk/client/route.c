#include "client/route.h"

#include "base/mem.h"
#include "client/call.h"
#include "client/consumer.h"
#include "client/metadata.h"
#include "client/receiver.h"
#include "client/source.h"

void route_learn(struct ferry_client *c, const struct metadata_reply *m)
{
    struct connection *k;
    struct book *book = &c->book;
    book->count = m->endpoint_count;
    for (uint32_t i = 0; i < m->endpoint_count; i++) {
        struct book_entry *entry = &book->entries[i];
        const struct bytes endpoint = m->endpoints[i].endpoint;
        must(endpoint.size <= ENDPOINT_MAX_BYTES); /* The decoder saw to it. */
        entry->node_id = m->endpoints[i].node_id;
        entry->shard = m->endpoints[i].shard;
        entry->endpoint_bytes = (uint32_t)endpoint.size;
        memcpy(entry->endpoint, endpoint.data, endpoint.size);
        entry->endpoint[endpoint.size] = '\0';
    }
    if (m->endpoint_count > 0 &&
        connection_get(c, m->endpoints[0].endpoint, &k, NULL) == FERRY_OK) {
        c->controller = k;
    }
}

static struct bytes entry_endpoint(const struct book_entry *entry)
{
    return bytes_of(entry->endpoint, entry->endpoint_bytes);
}

uint32_t route_node_of(const struct ferry_client *c, const struct connection *k)
{
    for (uint32_t i = 0; i < c->book.count; i++) {
        if (strcmp(c->book.entries[i].endpoint, k->endpoint) == 0) {
            return c->book.entries[i].node_id;
        }
    }
    return 0;
}

/* ---- Asking for the book alone: who has no topic to ask about. */

#define REFRESH_TRY_MS 1000

static void on_refresh(struct request *r, const struct reply *reply)
{
    struct ferry_client *c = list_entry(r, struct ferry_client, refresh);
    struct metadata_reply *m = reply->err == FERRY_OK ? mem_alloc(sizeof(*m)) : NULL;
    if (m == NULL) {
        return; /* Whoever needs it asks again. */
    }
    if (metadata_reply_decode(reply->frame.body, m) == FERRY_OK) {
        route_learn(c, m);
    } else {
        c->bad_replies++;
    }
    mem_free(m);
}

void route_init(struct ferry_client *c)
{
    request_init(&c->refresh, on_refresh);
}

void route_fini(struct ferry_client *c)
{
    request_fini(&c->refresh);
}

void route_refresh(struct ferry_client *c)
{
    struct metadata_request all = {.topic = bytes_of(NULL, 0)};
    struct connection *k = request_is_idle(&c->refresh) ? route_any(c, 1) : NULL;
    if (k == NULL || request_begin(&c->refresh, k, COMMAND_METADATA, REFRESH_TRY_MS) != FERRY_OK) {
        return;
    }
    metadata_request_encode(&c->refresh.frame, &all);
    (void)!request_submit(&c->refresh); /* No memory: asked again by whoever needs it. */
}

/* ---- Places. */

/* Servers first, then the book. */
static size_t place_count(const struct ferry_client *c)
{
    return c->server_count + c->book.count;
}

static struct bytes place_endpoint(const struct ferry_client *c, size_t place)
{
    return place < c->server_count ? c->servers[place]
                                   : entry_endpoint(&c->book.entries[place - c->server_count]);
}

/* The servers that the administrator gives out are shards 0. */
static bool place_is_first_shard(const struct ferry_client *c, size_t place)
{
    return place < c->server_count || c->book.entries[place - c->server_count].shard == 0;
}

static bool is_known(const struct ferry_client *c, struct bytes endpoint)
{
    for (size_t i = 0; i < place_count(c); i++) {
        if (bytes_equal(place_endpoint(c, i), endpoint)) {
            return true;
        }
    }
    return false;
}

static bool is_first_shard(const struct ferry_client *c, struct bytes endpoint)
{
    for (size_t i = 0; i < place_count(c); i++) {
        if (place_is_first_shard(c, i) && bytes_equal(place_endpoint(c, i), endpoint)) {
            return true;
        }
    }
    return false;
}

struct connection *route_hint(struct ferry_client *c, struct bytes endpoint)
{
    struct connection *k;
    if (endpoint.size == 0 || !is_known(c, endpoint) ||
        connection_get(c, endpoint, &k, NULL) != FERRY_OK || k->suspect) {
        return NULL;
    }
    return k;
}

static struct connection *first_ready(struct ferry_client *c)
{
    for (struct list *n = c->connections.next; n != &c->connections; n = n->next) {
        struct connection *k = list_entry(n, struct connection, node);
        if (k->state == CONNECTION_READY && !k->suspect &&
            is_first_shard(c, bytes_of_string(k->endpoint))) {
            return k;
        }
    }
    return NULL;
}

static struct connection *next_in_turn(struct ferry_client *c, bool suspects_too)
{
    size_t count = place_count(c);
    for (size_t i = 0; i < count; i++) {
        struct connection *k;
        size_t place = c->next_server++ % count;
        if (place_is_first_shard(c, place) &&
            connection_get(c, place_endpoint(c, place), &k, NULL) == FERRY_OK &&
            (suspects_too || !k->suspect)) {
            return k;
        }
    }
    return NULL;
}

struct connection *route_any(struct ferry_client *c, unsigned attempts)
{
    struct connection *k = attempts == 0 ? first_ready(c) : NULL;
    k = k != NULL ? k : next_in_turn(c, false);
    return k != NULL ? k : next_in_turn(c, true);
}

bool route_has_other(struct ferry_client *c, const struct connection *k)
{
    struct bytes own = bytes_of_string(k->endpoint);
    for (size_t i = 0; i < place_count(c); i++) {
        struct bytes endpoint = place_endpoint(c, i);
        if (!place_is_first_shard(c, i) || bytes_equal(endpoint, own)) {
            continue;
        }
        const struct connection *other = connection_find(c, endpoint);
        if (other == NULL || !other->suspect) {
            return true;
        }
    }
    return false;
}

int64_t route_pause_us(struct ferry_client *c, unsigned attempts)
{
    if (attempts > ROUTE_SHORT_PAUSES) {
        return client_backoff_us(c, attempts - ROUTE_SHORT_PAUSES);
    }
    int64_t unit_us = c->options.backoff_ms * 400;
    return unit_us + (int64_t)prng_below(&c->prng, (uint64_t)unit_us * 4);
}

void route_suspect(struct ferry_client *c, struct connection *k)
{
    if (c->controller == k) {
        c->controller = NULL;
    }
    if (c->refresh.connection == k && route_has_other(c, k)) {
        request_cancel(&c->refresh);
    }
    metadata_suspect(c, k);
    consumers_suspect(c);
    receivers_suspect(c);
    sources_suspect(c);
    calls_suspect(c, k);
}
