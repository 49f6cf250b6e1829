#include "server/node_wire.h"

#define RECORD_BYTES 40u
#define LED_BYTES    24u
#define LEADERS_HEAD 8u

/* ---- Reading off the front ---- */

static bool take(struct bytes *rest, size_t bytes, const uint8_t **at)
{
    if (rest->size < bytes) {
        return false;
    }
    *at = rest->data;
    *rest = bytes_of(rest->data + bytes, rest->size - bytes);
    return true;
}

static bool take_text(struct bytes *rest, size_t max, struct bytes *text)
{
    const uint8_t *at;
    if (!take(rest, 2, &at)) {
        return false;
    }
    size_t size = get_le16(at);
    if (size > max || !take(rest, size, &at)) {
        return false;
    }
    *text = bytes_of(at, size);
    return true;
}

static void put_u16(struct buf *b, uint16_t v)
{
    uint8_t bytes[2];
    put_le16(bytes, v);
    buf_append(b, bytes, sizeof(bytes));
}

static void put_text(struct buf *b, struct bytes text, size_t max)
{
    must(text.size <= max);
    put_u16(b, (uint16_t)text.size);
    buf_append_bytes(b, text);
}

/* ---- Endpoints ---- */

bool node_endpoint(struct bytes endpoints, uint32_t shard, char text[ENDPOINT_MAX_BYTES + 1])
{
    size_t at = 0;
    for (uint32_t i = 0; at <= endpoints.size; i++) {
        const uint8_t *space =
            endpoints.size > at ? memchr(endpoints.data + at, ' ', endpoints.size - at) : NULL;
        size_t end = space != NULL ? (size_t)(space - endpoints.data) : endpoints.size;
        size_t size = end - at;
        if (i == shard) {
            bool fits = size > 0 && size <= ENDPOINT_MAX_BYTES;
            memcpy(text, endpoints.data + at, fits ? size : 0);
            text[fits ? size : 0] = '\0';
            return fits;
        }
        at = end + 1;
    }
    text[0] = '\0';
    return false;
}

/* Printable, one for each shard, each of a length that its users have room for. */
static bool endpoints_are_sound(struct bytes endpoints, uint32_t shards)
{
    uint32_t count = 1;
    size_t length = 0;
    for (size_t i = 0; i < endpoints.size; i++) {
        uint8_t c = endpoints.data[i];
        if (c < ' ' || c > '~' || (c == ' ' && length == 0)) {
            return false;
        }
        length = c == ' ' ? 0 : length + 1;
        count += c == ' ' ? 1 : 0;
        if (length > ENDPOINT_MAX_BYTES) {
            return false;
        }
    }
    return length > 0 && count == shards;
}

static bool is_printable(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~') {
            return false;
        }
    }
    return true;
}

/* ---- A record ---- */

void node_record_encode(struct buf *b, const struct node_record *r)
{
    must(r->zone.size <= ZONE_MAX_BYTES && r->client.size <= NODE_ENDPOINTS_BYTES &&
         r->peer.size <= NODE_ENDPOINTS_BYTES);
    buf_append_le64(b, r->member);
    buf_append_le64(b, r->boot);
    buf_append_le64(b, r->boot_id);
    buf_append_le32(b, r->weight);
    buf_append_le32(b, r->shards);
    buf_append_u8(b, (uint8_t)r->zone.size);
    buf_append_u8(b, 0);
    put_u16(b, (uint16_t)r->client.size);
    put_u16(b, (uint16_t)r->peer.size);
    put_u16(b, 0);
    buf_append_bytes(b, r->zone);
    buf_append_bytes(b, r->client);
    buf_append_bytes(b, r->peer);
}

enum ferry_err node_record_decode(struct bytes *rest, struct node_record *r)
{
    const uint8_t *at, *zone, *client, *peer;
    if (!take(rest, RECORD_BYTES, &at)) {
        return FERRY_ERR_BAD_FRAME;
    }
    *r = (struct node_record){.member = get_le64(at),
                              .boot = get_le64(at + 8),
                              .boot_id = get_le64(at + 16),
                              .weight = get_le32(at + 24),
                              .shards = get_le32(at + 28)};
    size_t zone_bytes = at[32], client_bytes = get_le16(at + 34), peer_bytes = get_le16(at + 36);
    bool sound = at[33] == 0 && get_le16(at + 38) == 0 && node_of_member(r->member) != 0 &&
                 r->shards > 0 && r->shards <= NODE_SHARDS_MAX && zone_bytes <= ZONE_MAX_BYTES &&
                 client_bytes <= NODE_ENDPOINTS_BYTES && peer_bytes <= NODE_ENDPOINTS_BYTES;
    if (!sound || !take(rest, zone_bytes, &zone) || !take(rest, client_bytes, &client) ||
        !take(rest, peer_bytes, &peer)) {
        return FERRY_ERR_BAD_FRAME;
    }
    r->zone = bytes_of(zone, zone_bytes);
    r->client = bytes_of(client, client_bytes);
    r->peer = bytes_of(peer, peer_bytes);
    sound = is_printable(r->zone) && endpoints_are_sound(r->client, r->shards) &&
            endpoints_are_sound(r->peer, r->shards);
    return sound ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

static enum ferry_err decode_last_record(struct bytes rest, struct node_record *r)
{
    enum ferry_err err = node_record_decode(&rest, r);
    return err == FERRY_OK && rest.size > 0 ? FERRY_ERR_BAD_FRAME : err;
}

/* ---- HELLO ---- */

void node_hello_encode(struct buf *b, const struct node_hello *h)
{
    buf_append_u8(b, NODE_WIRE_VERSION);
    buf_append_u8(b, h->is_member);
    put_u16(b, 0);
    buf_append_le32(b, h->founders_hash);
    node_record_encode(b, &h->record);
}

enum ferry_err node_hello_decode(struct bytes body, struct node_hello *h)
{
    const uint8_t *at;
    if (!take(&body, 8, &at) || at[0] != NODE_WIRE_VERSION || at[1] > 1 || get_le16(at + 2) != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *h = (struct node_hello){.is_member = at[1] == 1, .founders_hash = get_le32(at + 4)};
    return decode_last_record(body, &h->record);
}

void node_hello_reply_encode(struct buf *b, const struct node_hello_reply *h)
{
    must(h->founder_count <= NODE_FOUNDERS_MAX);
    buf_append_u8(b, NODE_WIRE_VERSION);
    buf_append_u8(b, h->is_member);
    put_u16(b, (uint16_t)h->founder_count);
    buf_append_le32(b, h->founders_hash);
    buf_append(b, h->cluster_id.bytes, sizeof(h->cluster_id.bytes));
    for (uint32_t i = 0; i < h->founder_count; i++) {
        buf_append_le64(b, h->founders[i]);
    }
    put_text(b, h->leader, ENDPOINT_MAX_BYTES);
    node_record_encode(b, &h->record);
}

enum ferry_err node_hello_reply_decode(struct bytes body, struct node_hello_reply *h)
{
    const uint8_t *at;
    if (!take(&body, 24, &at) || at[0] != NODE_WIRE_VERSION || at[1] > 1 ||
        get_le16(at + 2) > NODE_FOUNDERS_MAX) {
        return FERRY_ERR_BAD_FRAME;
    }
    *h = (struct node_hello_reply){.is_member = at[1] == 1,
                                   .founder_count = get_le16(at + 2),
                                   .founders_hash = get_le32(at + 4)};
    memcpy(h->cluster_id.bytes, at + 8, sizeof(h->cluster_id.bytes));
    for (uint32_t i = 0; i < h->founder_count; i++) {
        if (!take(&body, 8, &at)) {
            return FERRY_ERR_BAD_FRAME;
        }
        h->founders[i] = get_le64(at);
    }
    if (!take_text(&body, ENDPOINT_MAX_BYTES, &h->leader) || !is_printable(h->leader)) {
        return FERRY_ERR_BAD_FRAME;
    }
    return decode_last_record(body, &h->record);
}

/* ---- REGISTER ---- */

void node_register_encode(struct buf *b, const struct node_register *r)
{
    buf_append_le32(b, r->attempt);
    buf_append_le32(b, 0);
    node_record_encode(b, &r->record);
}

enum ferry_err node_register_decode(struct bytes body, struct node_register *r)
{
    const uint8_t *at;
    if (!take(&body, 8, &at) || get_le32(at + 4) != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *r = (struct node_register){.attempt = get_le32(at)};
    return decode_last_record(body, &r->record);
}

void node_register_reply_encode(struct buf *b, const struct node_register_reply *r)
{
    must(r->record_count <= NODE_RECORDS_MAX);
    buf_append_le32(b, r->attempt);
    put_u16(b, (uint16_t)r->answer);
    put_u16(b, (uint16_t)r->err);
    buf_append(b, r->cluster_id.bytes, sizeof(r->cluster_id.bytes));
    buf_append_le64(b, r->meta_index);
    put_text(b, r->detail, NODE_TEXT_MAX);
    buf_append_le32(b, r->record_count);
}

enum ferry_err node_register_reply_decode(struct bytes body, struct node_register_reply *r)
{
    const uint8_t *at;
    if (!take(&body, 32, &at)) {
        return FERRY_ERR_BAD_FRAME;
    }
    uint32_t answer = get_le16(at + 4), code = get_le16(at + 6);
    if (answer < NODE_REGISTERED || answer > NODE_LATER || (code != 0 && !err_is_known(code))) {
        return FERRY_ERR_BAD_FRAME;
    }
    *r = (struct node_register_reply){.attempt = get_le32(at),
                                      .answer = (enum node_answer)answer,
                                      .err = (enum ferry_err)code,
                                      .meta_index = get_le64(at + 24)};
    memcpy(r->cluster_id.bytes, at + 8, sizeof(r->cluster_id.bytes));
    if (!take_text(&body, NODE_TEXT_MAX, &r->detail) || !is_printable(r->detail) ||
        !take(&body, 4, &at)) {
        return FERRY_ERR_BAD_FRAME;
    }
    r->record_count = get_le32(at);
    r->records = body;
    if (r->record_count > NODE_RECORDS_MAX) {
        return FERRY_ERR_BAD_FRAME;
    }
    for (uint32_t i = 0; i < r->record_count; i++) {
        struct node_record record;
        if (node_record_decode(&body, &record) != FERRY_OK) {
            return FERRY_ERR_BAD_FRAME;
        }
    }
    return body.size == 0 ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

/* ---- LEADERS ---- */

void node_leaders_encode(struct buf *b, const struct node_led *led, uint32_t count)
{
    must(count <= NODE_LEADERS_MAX);
    buf_append_le32(b, count);
    buf_append_le32(b, 0);
    for (uint32_t i = 0; i < count; i++) {
        buf_append_le64(b, led[i].group);
        buf_append_le64(b, led[i].term);
        buf_append_le64(b, led[i].bytes);
    }
}

enum ferry_err node_leaders_decode(struct bytes body, uint32_t *count)
{
    if (body.size < LEADERS_HEAD || get_le32(body.data + 4) != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *count = get_le32(body.data);
    bool fits = *count <= NODE_LEADERS_MAX && body.size == LEADERS_HEAD + *count * LED_BYTES;
    return fits ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

struct node_led node_leaders_at(struct bytes body, uint32_t i)
{
    const uint8_t *at = body.data + LEADERS_HEAD + (size_t)i * LED_BYTES;
    must(LEADERS_HEAD + ((size_t)i + 1) * LED_BYTES <= body.size);
    return (struct node_led){
        .group = get_le64(at), .term = get_le64(at + 8), .bytes = get_le64(at + 16)};
}

/* ---- MOVE_DONE ---- */

void node_moved_encode(struct buf *b, const uint32_t *nodes, uint32_t count)
{
    must(count <= REPLICAS_MAX);
    buf_append_le32(b, count);
    for (uint32_t i = 0; i < count; i++) {
        buf_append_le32(b, nodes[i]);
    }
}

enum ferry_err node_moved_decode(struct bytes body, uint32_t nodes[REPLICAS_MAX], uint32_t *count)
{
    const uint8_t *at;
    if (!take(&body, 4, &at)) {
        return FERRY_ERR_BAD_FRAME;
    }
    *count = get_le32(at);
    if (*count == 0 || *count > REPLICAS_MAX || body.size != *count * 4) {
        return FERRY_ERR_BAD_FRAME;
    }
    for (uint32_t i = 0; i < *count; i++) {
        nodes[i] = get_le32(body.data + i * 4);
    }
    return FERRY_OK;
}

/* ---- FENCED ---- */

void node_fenced_encode(struct buf *b, const struct node_fenced *f)
{
    put_u16(b, (uint16_t)f->err);
    put_text(b, f->text, NODE_TEXT_MAX);
}

enum ferry_err node_fenced_decode(struct bytes body, struct node_fenced *f)
{
    const uint8_t *at;
    if (!take(&body, 2, &at)) {
        return FERRY_ERR_BAD_FRAME;
    }
    uint32_t code = get_le16(at);
    if (code == 0 || !err_is_known(code) || !take_text(&body, NODE_TEXT_MAX, &f->text) ||
        !is_printable(f->text) || body.size > 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    f->err = (enum ferry_err)code;
    return FERRY_OK;
}
