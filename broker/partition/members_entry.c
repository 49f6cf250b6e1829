#include "partition/members_entry.h"

#include "partition/control.h"
#include "wire/pack.h"

void members_entry_encode(struct buf *b, const struct members_entry *e)
{
    pack_array(b, 8);
    pack_uint(b, CONTROL_MEMBERS);
    pack_uint(b, e->subscription);
    pack_uint(b, e->epoch);
    pack_uint(b, e->partitions);
    pack_array(b, e->out_count);
    for (uint32_t i = 0; i < e->out_count; i++) {
        pack_array(b, 3);
        pack_str(b, e->out[i].name);
        pack_uint(b, e->out[i].cause);
        pack_str(b, e->out[i].reason);
    }
    pack_array(b, e->in_count);
    for (uint32_t i = 0; i < e->in_count; i++) {
        pack_array(b, 5);
        pack_str(b, e->in[i].name);
        pack_id(b, &e->in[i].instance);
        pack_str(b, e->in[i].zone);
        pack_str(b, e->in[i].client);
        pack_uint(b, e->in[i].session_ms);
    }
    pack_array(b, e->target_count);
    for (uint32_t i = 0; i < e->target_count; i++) {
        pack_uint(b, e->targets[i]);
    }
    pack_array(b, e->give_count);
    for (uint32_t i = 0; i < e->give_count; i++) {
        pack_uint(b, e->gives[i]);
    }
}

static void unpack_outs(struct unpack *u, struct members_entry *e)
{
    e->out_count = unpack_array(u, MEMBERS_ENTRY_OUT_MAX);
    for (uint32_t i = 0; i < e->out_count; i++) {
        (void)unpack_array(u, UINT32_MAX);
        e->out[i].name = unpack_str(u, NAME_MAX_BYTES);
        e->out[i].cause = (uint32_t)unpack_uint(u, UINT32_MAX);
        e->out[i].reason = unpack_str(u, REASON_MAX_BYTES);
        unpack_array_end(u);
    }
    unpack_array_end(u);
}

static void unpack_ins(struct unpack *u, struct members_entry *e)
{
    e->in_count = unpack_array(u, MEMBERS_ENTRY_IN_MAX);
    for (uint32_t i = 0; i < e->in_count; i++) {
        (void)unpack_array(u, UINT32_MAX);
        e->in[i].name = unpack_str(u, NAME_MAX_BYTES);
        e->in[i].instance = unpack_id(u);
        e->in[i].zone = unpack_str(u, ZONE_MAX_BYTES);
        e->in[i].client = unpack_str(u, NAME_MAX_BYTES);
        e->in[i].session_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
        unpack_array_end(u);
        u->failed = u->failed || e->in[i].name.size == 0;
    }
    unpack_array_end(u);
}

static uint32_t unpack_numbers(struct unpack *u, uint32_t numbers[PARTITIONS_MAX])
{
    uint32_t count = unpack_array(u, PARTITIONS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = (uint32_t)unpack_uint(u, MEMBERS_MAX);
    }
    unpack_array_end(u);
    return count;
}

enum ferry_err members_entry_decode(struct bytes payload, struct members_entry *e)
{
    struct unpack u;
    unpack_begin(&u, payload);
    bool kind = unpack_uint(&u, UINT8_MAX) == CONTROL_MEMBERS;
    e->subscription = unpack_uint(&u, UINT64_MAX);
    e->epoch = unpack_uint(&u, UINT64_MAX);
    e->partitions = (uint32_t)unpack_uint(&u, PARTITIONS_MAX);
    unpack_outs(&u, e);
    unpack_ins(&u, e);
    e->target_count = unpack_numbers(&u, e->targets);
    e->give_count = unpack_numbers(&u, e->gives);
    bool targets = e->target_count == 0 || e->target_count == e->partitions;
    return unpack_end(&u) == FERRY_OK && kind && targets ? FERRY_OK : FERRY_ERR_CORRUPT;
}
