/* A saga's plan in its row, and on its slip. */
#include "base/mem.h"
#include "outbox/app/saga.h"
#include "wire/command.h"
#include "wire/pack.h"

#define PLAN_ELEMENTS 7u
#define STEP_ELEMENTS 3u

enum ferry_err saga_plan_encode(const struct saga_plan *plan, struct buf *data)
{
    pack_array(data, PLAN_ELEMENTS);
    pack_uint(data, SAGA_DATA_FORMAT);
    pack_uint(data, (uint64_t)plan->kind);
    pack_str(data, bytes_of_string(plan->reply_topic));
    pack_bin(data, plan->key);
    pack_int(data, plan->attempt);
    pack_array(data, plan->count);
    for (uint32_t i = 0; i < plan->count; i++) {
        pack_array(data, STEP_ELEMENTS);
        pack_str(data, bytes_of_string(plan->steps[i].topic));
        pack_int(data, plan->steps[i].deadline_ms);
        pack_bool(data, plan->steps[i].no_undo);
    }
    pack_bin(data, plan->payload);
    return buf_ok(data) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static void copy_name(struct bytes from, char to[SAGA_NAME_BYTES])
{
    if (from.size > 0 && from.size < SAGA_NAME_BYTES) {
        memcpy(to, from.data, from.size);
        to[from.size] = '\0';
    } else {
        to[0] = '\0';
    }
}

static void decode_steps(struct unpack *u, struct saga_plan *plan)
{
    plan->count = unpack_array(u, FERRY_SAGA_STEPS_MAX);
    for (uint32_t i = 0; i < plan->count && !u->failed; i++) {
        (void)unpack_array(u, UNPACK_OBJECTS_MAX);
        copy_name(unpack_str(u, SAGA_NAME_BYTES - 1), plan->steps[i].topic);
        plan->steps[i].deadline_ms = unpack_int(u);
        plan->steps[i].no_undo = unpack_bool(u);
        unpack_array_end(u);
    }
    unpack_array_end(u);
}

enum ferry_err saga_plan_decode(struct bytes data, struct saga_plan *plan, struct err_text *e)
{
    struct unpack u;
    *plan = (struct saga_plan){.count = 0};
    unpack_begin(&u, data);
    uint64_t format = unpack_uint(&u, UINT32_MAX);
    if (!u.failed && format > SAGA_DATA_FORMAT) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "the saga was written by a newer Ferry (format %llu): use that version",
                       (unsigned long long)format);
    }
    plan->kind = (enum ferry_saga_kind)unpack_uint(&u, FERRY_SAGA_CHOREOGRAPHED);
    copy_name(unpack_str(&u, SAGA_NAME_BYTES - 1), plan->reply_topic);
    plan->key = unpack_bin(&u, FERRY_SAGA_KEY_MAX_BYTES);
    plan->attempt = unpack_int(&u);
    decode_steps(&u, plan);
    plan->payload = unpack_bin(&u, FERRY_SAGA_DATA_MAX_BYTES);
    while (unpack_has_more(&u) && !u.failed) {
        unpack_skip(&u);
    }
    if (unpack_end(&u) != FERRY_OK || plan->count == 0 || plan->reply_topic[0] == '\0') {
        return err_set(e, FERRY_ERR_CORRUPT,
                       "the data of the saga's row is not what Ferry writes: was it edited?");
    }
    return FERRY_OK;
}

int32_t saga_plan_undoable(const struct saga_plan *plan, int32_t step)
{
    while (step >= 0 && plan->steps[step].no_undo) {
        step--;
    }
    return step;
}

void saga_slip_write(const struct saga_plan *plan, struct buf *slip)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        buf_printf(slip, "%s%s%s", i == 0 ? "" : " ", plan->steps[i].no_undo ? "!" : "",
                   plan->steps[i].topic);
    }
}

/* Cuts the first entry off; false: it is none. */
static bool slip_next(struct bytes *rest, struct bytes *name, bool *no_undo)
{
    size_t size = 0;
    while (size < rest->size && rest->data[size] != ' ') {
        size++;
    }
    *no_undo = size > 0 && rest->data[0] == '!';
    *name = bytes_of(rest->data + (*no_undo ? 1 : 0), size - (*no_undo ? 1 : 0));
    size_t cut = size < rest->size ? size + 1 : size;
    bool trailing = cut == rest->size && cut != size;
    *rest = bytes_of(rest->data + cut, rest->size - cut);
    return name_is_valid(*name) && !trailing;
}

uint32_t saga_slip_count(struct bytes slip)
{
    uint32_t count = 0;
    struct bytes name;
    bool no_undo;
    while (slip.size > 0) {
        if (count == FERRY_SAGA_STEPS_MAX || !slip_next(&slip, &name, &no_undo)) {
            return 0;
        }
        count++;
    }
    return count;
}

bool saga_slip_at(struct bytes slip, uint32_t step, char topic[SAGA_NAME_BYTES], bool *no_undo)
{
    struct bytes name = {NULL, 0};
    for (uint32_t i = 0; i <= step; i++) {
        if (slip.size == 0 || !slip_next(&slip, &name, no_undo)) {
            return false;
        }
    }
    copy_name(name, topic);
    return topic[0] != '\0';
}

/* How many bytes the UTF-8 character at `s` has; 0: it is none. */
static size_t utf8_bytes(const uint8_t *s, size_t left)
{
    size_t size = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (size == 0 || s[0] > 0xf4 || size > left) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    /* Over-long forms, halves of surrogate pairs, and what is past the last code point. */
    bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
               (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : size;
}

void saga_text_copy(struct bytes from, char *to, size_t to_bytes)
{
    size_t at = 0;
    size_t used = 0;
    while (at < from.size) {
        size_t size = utf8_bytes(from.data + at, from.size - at);
        bool plain = size > 1 || (size == 1 && from.data[at] >= 0x20 && from.data[at] != 0x7f);
        size_t take = plain ? size : 1;
        if (used + take >= to_bytes) {
            break;
        }
        memcpy(to + used, plain ? (const char *)from.data + at : size == 1 ? " " : "?", take);
        used += take;
        at += take;
    }
    to[used] = '\0';
}
