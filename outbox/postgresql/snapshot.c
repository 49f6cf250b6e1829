#include "outbox/postgresql/snapshot.h"

#include "base/mem.h"
#include "wire/varint.h"

static struct snapshot *make(size_t count)
{
    must(count <= SNAPSHOT_XIPS_MAX);
    struct snapshot *s = mem_alloc(sizeof(*s) + count * sizeof(s->xips[0]));
    if (s != NULL) {
        *s = (struct snapshot){.holders = 1, .count = (uint32_t)count};
    }
    return s;
}

struct snapshot *snapshot_empty(void)
{
    return make(0);
}

struct snapshot *snapshot_hold(struct snapshot *s)
{
    if (s != NULL) {
        s->holders++;
    }
    return s;
}

void snapshot_release(struct snapshot **s)
{
    if (*s == NULL) {
        return;
    }
    must((*s)->holders > 0);
    if (--(*s)->holders == 0) {
        mem_free(*s);
    }
    *s = NULL;
}

void snapshot_set(struct snapshot **to, struct snapshot *from)
{
    struct snapshot *held = snapshot_hold(from);
    snapshot_release(to);
    *to = held;
}

/* ---- Text. */

static const uint8_t *parse_number(const uint8_t *p, const uint8_t *end, uint64_t *v)
{
    const uint8_t *start = p;
    *v = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (*v > (UINT64_MAX - digit) / 10) {
            return NULL;
        }
        *v = *v * 10 + digit;
    }
    return p == start ? NULL : p;
}

static const uint8_t *parse_bound(const uint8_t *p, const uint8_t *end, uint64_t *v)
{
    p = parse_number(p, end, v);
    return p == NULL || p == end || *p != ':' ? NULL : p + 1;
}

static size_t count_listed(const uint8_t *p, const uint8_t *end)
{
    size_t count = p < end;
    for (; p < end; p++) {
        count += *p == ',';
    }
    return count;
}

enum ferry_err snapshot_parse(struct bytes text, struct snapshot **s)
{
    const uint8_t *end = text.data + text.size;
    uint64_t xmin = 0;
    uint64_t xmax = 0;
    const uint8_t *p = parse_bound(text.data, end, &xmin);
    p = p == NULL ? NULL : parse_bound(p, end, &xmax);
    if (p == NULL || xmin > xmax) {
        return FERRY_ERR_CORRUPT;
    }
    size_t count = count_listed(p, end);
    if (count > SNAPSHOT_XIPS_MAX) {
        return FERRY_ERR_TOO_LARGE;
    }
    struct snapshot *made = make(count);
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->xmax = xmax;
    for (size_t i = 0; i < count; i++) {
        p = parse_number(p, end, &made->xips[i]);
        bool rises = p != NULL && made->xips[i] >= xmin && made->xips[i] < xmax &&
                     (i == 0 || made->xips[i] > made->xips[i - 1]);
        if (!rises || (i + 1 == count ? p != end : p == end || *p++ != ',')) {
            snapshot_release(&made);
            return FERRY_ERR_CORRUPT;
        }
    }
    if (snapshot_bytes(made) > SNAPSHOT_BYTES_MAX) {
        snapshot_release(&made);
        return FERRY_ERR_TOO_LARGE;
    }
    *s = made;
    return FERRY_OK;
}

void snapshot_text(const struct snapshot *s, struct buf *out)
{
    uint64_t xmax =
        s->xmax > 0 ? s->xmax : 1; /* PostgreSQL takes no 0; no transaction is below 1. */
    uint64_t xmin = s->count > 0 ? s->xips[0] : xmax;
    buf_printf(out, "%llu:%llu:", (unsigned long long)xmin, (unsigned long long)xmax);
    for (uint32_t i = 0; i < s->count; i++) {
        buf_printf(out, i == 0 ? "%llu" : ",%llu", (unsigned long long)s->xips[i]);
    }
}

void snapshot_late_text(const struct snapshot *lower, const struct snapshot *upper, struct buf *out)
{
    bool first = true;
    buf_append(out, "{", 1);
    for (uint32_t i = 0; i < lower->count; i++) {
        if (snapshot_sees(upper, lower->xips[i])) {
            buf_printf(out, first ? "%llu" : ",%llu", (unsigned long long)lower->xips[i]);
            first = false;
        }
    }
    buf_append(out, "}", 1);
}

void snapshot_listed_text(const struct snapshot *s, struct buf *out)
{
    buf_append(out, "{", 1);
    for (uint32_t i = 0; i < s->count; i++) {
        buf_printf(out, i == 0 ? "%llu" : ",%llu", (unsigned long long)s->xips[i]);
    }
    buf_append(out, "}", 1);
}

/* ---- Questions. */

static bool lists(const struct snapshot *s, uint64_t xid)
{
    size_t low = 0;
    size_t high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->xips[middle] == xid) {
            return true;
        }
        if (s->xips[middle] < xid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

bool snapshot_sees(const struct snapshot *s, uint64_t xid)
{
    return xid < s->xmax && !lists(s, xid);
}

bool snapshot_covers(const struct snapshot *a, const struct snapshot *b)
{
    if (a == b) {
        return true;
    }
    if (a->xmax < b->xmax) {
        return false;
    }
    for (uint32_t i = 0; i < a->count; i++) {
        if (snapshot_sees(b, a->xips[i])) {
            return false;
        }
    }
    return true;
}

bool snapshot_equal(const struct snapshot *a, const struct snapshot *b)
{
    return a == b || (a->xmax == b->xmax && a->count == b->count &&
                      memcmp(a->xips, b->xips, a->count * sizeof(a->xips[0])) == 0);
}

/* ---- Bytes. */

static void put_varint(struct buf *out, uint64_t v)
{
    uint8_t bytes[10];
    buf_append(out, bytes, (size_t)(varint_write(bytes, v) - bytes));
}

static bool take_varint(struct bytes *in, uint64_t max, uint64_t *v)
{
    const uint8_t *end = in->data + in->size;
    const uint8_t *p = varint_read(in->data, end, max, v);
    if (p == NULL) {
        return false;
    }
    *in = bytes_of(p, (size_t)(end - p));
    return true;
}

/* How a listed transaction is written behind the one before it (first: i is 0). */
static uint64_t distance(uint64_t xmax, bool first, uint64_t before, uint64_t xid)
{
    return first ? xmax - xid - 1 : xid - before - 1;
}

size_t snapshot_bytes(const struct snapshot *s)
{
    size_t bytes = varint_size(s->xmax) + varint_size(s->count);
    for (uint32_t i = 0; i < s->count; i++) {
        bytes += varint_size(distance(s->xmax, i == 0, i == 0 ? 0 : s->xips[i - 1], s->xips[i]));
    }
    return bytes;
}

void snapshot_encode(const struct snapshot *s, struct buf *out)
{
    put_varint(out, s->xmax);
    put_varint(out, s->count);
    for (uint32_t i = 0; i < s->count; i++) {
        put_varint(out, distance(s->xmax, i == 0, i == 0 ? 0 : s->xips[i - 1], s->xips[i]));
    }
}

void snapshot_encode_step(const struct snapshot *base, const struct snapshot *s, struct buf *out)
{
    uint8_t kept[SNAPSHOT_XIPS_MAX / 8] = {0};
    put_varint(out, varint_zigzag(s->xmax - base->xmax));
    for (uint32_t i = 0; i < base->count; i++) {
        kept[i / 8] |= (uint8_t)((unsigned)lists(s, base->xips[i]) << (i % 8));
    }
    buf_append(out, kept, (base->count + 7u) / 8u);
    uint32_t fresh = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        fresh += !lists(base, s->xips[i]);
    }
    put_varint(out, fresh);
    uint64_t before = 0;
    bool first = true;
    for (uint32_t i = 0; i < s->count; i++) {
        if (!lists(base, s->xips[i])) {
            put_varint(out, distance(s->xmax, first, before, s->xips[i]));
            before = s->xips[i];
            first = false;
        }
    }
}

/* The next of a run of listed transactions. */
static bool take_listed(struct bytes *in, uint64_t xmax, bool first, uint64_t *xid)
{
    uint64_t v = 0;
    if (!take_varint(in, UINT64_MAX, &v)) {
        return false;
    }
    if (first) {
        if (v >= xmax) {
            return false;
        }
        *xid = xmax - 1 - v;
        return true;
    }
    if (v >= xmax - 1 - *xid) {
        return false;
    }
    *xid += v + 1;
    return true;
}

enum ferry_err snapshot_decode(struct bytes *in, struct snapshot **s)
{
    uint64_t xmax = 0;
    uint64_t count = 0;
    if (!take_varint(in, UINT64_MAX, &xmax) || !take_varint(in, SNAPSHOT_XIPS_MAX, &count)) {
        return FERRY_ERR_CORRUPT;
    }
    struct snapshot *made = make(count);
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->xmax = xmax;
    uint64_t xid = 0;
    for (size_t i = 0; i < count; i++) {
        if (!take_listed(in, xmax, i == 0, &xid)) {
            snapshot_release(&made);
            return FERRY_ERR_CORRUPT;
        }
        made->xips[i] = xid;
    }
    *s = made;
    return FERRY_OK;
}

/* Puts two rising lists into one. False: one transaction is in both, or too large. */
static bool merge(const struct snapshot *base, struct bytes kept, const uint64_t *fresh,
                  size_t fresh_count, struct snapshot *s)
{
    size_t at = 0;
    for (uint32_t i = 0; i < base->count; i++) {
        if ((kept.data[i / 8] & (1u << (i % 8))) == 0) {
            continue;
        }
        while (at < fresh_count && fresh[at] < base->xips[i]) {
            s->xips[s->count++] = fresh[at++];
        }
        if (base->xips[i] >= s->xmax || (at < fresh_count && fresh[at] == base->xips[i])) {
            return false;
        }
        s->xips[s->count++] = base->xips[i];
    }
    while (at < fresh_count) {
        s->xips[s->count++] = fresh[at++];
    }
    return true;
}

enum ferry_err snapshot_decode_step(const struct snapshot *base, struct bytes *in,
                                    struct snapshot **s)
{
    uint64_t fresh[SNAPSHOT_XIPS_MAX];
    uint64_t step = 0;
    uint64_t count = 0;
    size_t kept_bytes = (base->count + 7u) / 8u;
    if (!take_varint(in, UINT64_MAX, &step) || in->size < kept_bytes) {
        return FERRY_ERR_CORRUPT;
    }
    uint64_t xmax = base->xmax + varint_unzigzag(step);
    struct bytes kept = bytes_of(in->data, kept_bytes);
    *in = bytes_of(in->data + kept_bytes, in->size - kept_bytes);
    size_t total = 0;
    for (size_t i = 0; i < kept_bytes; i++) {
        total += (size_t)__builtin_popcount(kept.data[i]);
    }
    if (!take_varint(in, SNAPSHOT_XIPS_MAX - total, &count)) {
        return FERRY_ERR_CORRUPT;
    }
    for (size_t i = 0; i < count; i++) {
        fresh[i] = i == 0 ? 0 : fresh[i - 1];
        if (!take_listed(in, xmax, i == 0, &fresh[i])) {
            return FERRY_ERR_CORRUPT;
        }
    }
    struct snapshot *made = make(total + count);
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->xmax = xmax;
    made->count = 0;
    if (!merge(base, kept, fresh, count, made)) {
        snapshot_release(&made);
        return FERRY_ERR_CORRUPT;
    }
    *s = made;
    return FERRY_OK;
}
