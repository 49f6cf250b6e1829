#include "partition/control.h"

#include "wire/command.h"
#include "wire/pack.h"

void control_encode(struct buf *b, const struct control *c)
{
    switch (c->kind) {
    case CONTROL_TRIM:
        pack_array(b, 4);
        pack_uint(b, c->kind);
        pack_uint(b, c->trim_index);
        pack_uint(b, c->trim_bytes);
        pack_int(b, c->start_offset);
        return;
    case CONTROL_EXPIRE_IDS:
        pack_array(b, 2);
        pack_uint(b, c->kind);
        pack_int(b, c->before_ms);
        return;
    case CONTROL_REMOVE_PRODUCER:
        pack_array(b, 2);
        pack_uint(b, c->kind);
        pack_uint(b, c->producer_id);
        return;
    case CONTROL_SOURCE_CURSOR:
        pack_array(b, 6);
        pack_uint(b, c->kind);
        pack_id(b, &c->source);
        pack_uint(b, c->lane);
        pack_uint(b, c->epoch);
        pack_uint(b, c->version);
        pack_bin(b, c->blob);
        return;
    case CONTROL_SOURCE_FENCE:
        pack_array(b, 5);
        pack_uint(b, c->kind);
        pack_id(b, &c->source);
        pack_uint(b, c->lane);
        pack_uint(b, c->epoch);
        pack_uint(b, c->version);
        return;
    default:
        break; /* Of other modules. */
    }
    must(false);
}

static void decode_fields(struct unpack *u, struct control *c)
{
    switch (c->kind) {
    case CONTROL_TRIM:
        c->trim_index = unpack_uint(u, UINT64_MAX);
        c->trim_bytes = unpack_uint(u, UINT64_MAX);
        c->start_offset = unpack_int(u);
        return;
    case CONTROL_EXPIRE_IDS:
        c->before_ms = unpack_int(u);
        return;
    case CONTROL_REMOVE_PRODUCER:
        c->producer_id = unpack_uint(u, UINT64_MAX);
        return;
    case CONTROL_SOURCE_CURSOR:
        c->source = unpack_id(u);
        c->lane = (uint32_t)unpack_uint(u, UINT32_MAX);
        c->epoch = unpack_uint(u, UINT64_MAX);
        c->version = unpack_uint(u, UINT64_MAX);
        c->blob = unpack_bin(u, CURSOR_MAX_BYTES);
        return;
    case CONTROL_SOURCE_FENCE:
        c->source = unpack_id(u);
        c->lane = (uint32_t)unpack_uint(u, UINT32_MAX);
        c->epoch = unpack_uint(u, UINT64_MAX);
        c->version = unpack_has_more(u) ? unpack_uint(u, UINT64_MAX) : 0; /* Not in older logs. */
        return;
    default:
        u->failed = true; /* Of other modules, or of none. */
    }
}

enum ferry_err control_kind_of(struct bytes payload, enum control_kind *kind)
{
    struct unpack u;
    unpack_begin(&u, payload);
    *kind = (enum control_kind)unpack_uint(&u, UINT8_MAX);
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

enum ferry_err control_decode(struct bytes payload, struct control *c)
{
    *c = (struct control){0};
    struct unpack u;
    unpack_begin(&u, payload);
    c->kind = (enum control_kind)unpack_uint(&u, UINT8_MAX);
    decode_fields(&u, c);
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

enum ferry_err control_split_cas(struct bytes payload, struct bytes *control, struct bytes *batch)
{
    if (payload.size < 4) {
        return FERRY_ERR_CORRUPT;
    }
    uint32_t control_bytes = get_le32(payload.data);
    if (control_bytes > payload.size - 4) {
        return FERRY_ERR_CORRUPT;
    }
    *control = bytes_of(payload.data + 4, control_bytes);
    *batch = bytes_of(payload.data + 4 + control_bytes, payload.size - 4 - control_bytes);
    return FERRY_OK;
}
