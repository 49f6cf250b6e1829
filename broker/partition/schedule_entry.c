#include "partition/schedule_entry.h"

#include "wire/command.h"
#include "wire/pack.h"
#include "wire/varint.h"

int schedule_key_compare(const struct schedule_key *a, const struct schedule_key *b)
{
    if (a->due_ms != b->due_ms) {
        return a->due_ms < b->due_ms ? -1 : 1;
    }
    return (a->number > b->number) - (a->number < b->number);
}

/* ---- Keys ---- */

void schedule_keys_init(struct schedule_keys *k)
{
    *k = (struct schedule_keys){0};
    buf_init(&k->bytes, SCHEDULE_KEYS_MAX_BYTES);
}

void schedule_keys_fini(struct schedule_keys *k)
{
    buf_fini(&k->bytes);
}

void schedule_keys_add(struct schedule_keys *k, const struct schedule_key *key)
{
    uint8_t bytes[20];
    must(k->count < SCHEDULE_KEYS_MAX);
    uint8_t *p =
        varint_write(bytes, varint_zigzag((uint64_t)key->due_ms - (uint64_t)k->last.due_ms));
    p = varint_write(p, varint_zigzag(key->number - k->last.number));
    buf_append(&k->bytes, bytes, (size_t)(p - bytes));
    k->last = *key;
    k->count++;
}

void schedule_keys_encode(struct buf *b, enum control_kind kind, const struct schedule_keys *k)
{
    must(kind == CONTROL_SCHEDULE_CANCEL || kind == CONTROL_SCHEDULE_RELEASE);
    b->failed = b->failed || k->bytes.failed;
    pack_array(b, 3);
    pack_uint(b, kind);
    pack_uint(b, k->count);
    pack_bin(b, buf_bytes(&k->bytes));
}

enum ferry_err schedule_keys_decode(struct bytes payload, struct schedule_key_reader *r)
{
    struct unpack u;
    *r = (struct schedule_key_reader){0};
    unpack_begin(&u, payload);
    uint64_t kind = unpack_uint(&u, UINT8_MAX);
    r->left = (uint32_t)unpack_uint(&u, SCHEDULE_KEYS_MAX);
    r->rest = unpack_bin(&u, SCHEDULE_KEYS_MAX_BYTES);
    bool ours = kind == CONTROL_SCHEDULE_CANCEL || kind == CONTROL_SCHEDULE_RELEASE;
    return unpack_end(&u) == FERRY_OK && ours ? FERRY_OK : FERRY_ERR_CORRUPT;
}

static const uint8_t *take(const uint8_t *p, const uint8_t *end, uint64_t *value)
{
    uint64_t difference = 0;
    p = p != NULL ? varint_read(p, end, UINT64_MAX, &difference) : NULL;
    *value += varint_unzigzag(difference);
    return p;
}

bool schedule_keys_next(struct schedule_key_reader *r, struct schedule_key *key,
                        enum ferry_err *err)
{
    *err = FERRY_OK;
    if (r->left == 0) {
        *err = r->rest.size > 0 ? FERRY_ERR_CORRUPT : FERRY_OK;
        return false;
    }
    const uint8_t *end = r->rest.data + r->rest.size;
    uint64_t due = (uint64_t)r->last.due_ms;
    const uint8_t *p = take(r->rest.data, end, &due);
    p = take(p, end, &r->last.number);
    if (p == NULL) {
        *err = FERRY_ERR_CORRUPT;
        return false;
    }
    r->last.due_ms = (int64_t)due;
    r->rest = bytes_of(p, (size_t)(end - p));
    r->left--;
    *key = r->last;
    return true;
}

/* ---- Recurring ---- */

void recurring_entry_encode(struct buf *b, const struct recurring_entry *e)
{
    bool set = e->kind == CONTROL_RECURRING_SET;
    must(set || e->kind == CONTROL_RECURRING_FIRE);
    pack_array(b, set ? 6 : 3);
    pack_uint(b, e->kind);
    pack_str(b, e->name);
    if (set) {
        pack_str(b, e->spec);
        pack_str(b, e->zone);
    }
    pack_int(b, e->next_ms);
    if (set) {
        pack_bin(b, e->record);
    }
}

enum ferry_err recurring_entry_decode(struct bytes payload, struct recurring_entry *e)
{
    struct unpack u;
    *e = (struct recurring_entry){0};
    unpack_begin(&u, payload);
    e->kind = (enum control_kind)unpack_uint(&u, UINT8_MAX);
    e->name = unpack_str(&u, NAME_MAX_BYTES);
    if (e->kind == CONTROL_RECURRING_SET) {
        e->spec = unpack_str(&u, RECURRING_SPEC_MAX_BYTES);
        e->zone = unpack_str(&u, NAME_MAX_BYTES);
        e->next_ms = unpack_int(&u);
        e->record = unpack_bin(&u, RECURRING_RECORD_MAX_BYTES);
    } else {
        e->next_ms = unpack_int(&u);
        u.failed = u.failed || e->kind != CONTROL_RECURRING_FIRE;
    }
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}
