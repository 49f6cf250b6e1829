#include "outbox/mariadb/id_list.h"

#define VARINT_MAX 10u

static size_t varint_bytes(uint64_t v)
{
    size_t bytes = 1;
    while (v >= 0x80) {
        v >>= 7;
        bytes++;
    }
    return bytes;
}

static uint8_t *varint_put(uint8_t *out, uint64_t v)
{
    while (v >= 0x80) {
        *out++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *out++ = (uint8_t)v;
    return out;
}

static bool varint_take(struct bytes *list, uint64_t *v)
{
    *v = 0;
    for (size_t i = 0; i < list->size && i < VARINT_MAX; i++) {
        uint8_t byte = list->data[i];
        if (i == VARINT_MAX - 1 && byte > 1) {
            return false;
        }
        *v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *list = bytes_of(list->data + i + 1, list->size - i - 1);
            return i == 0 || byte != 0; /* One form a number. */
        }
    }
    return false;
}

/* How many ids from `at` follow one after another, itself not counted. */
static size_t run_after(const uint64_t *ids, size_t count, size_t at)
{
    size_t end = at;
    while (end + 1 < count && ids[end + 1] == ids[end] + 1) {
        end++;
    }
    return end - at;
}

size_t id_list_bytes(const uint64_t *ids, size_t count)
{
    size_t bytes = 0;
    uint64_t before = 0;
    for (size_t i = 0; i < count;) {
        must(ids[i] > before && ids[i] <= INT64_MAX);
        size_t run = run_after(ids, count, i);
        bytes += varint_bytes((ids[i] - before) << 1);
        bytes += run > 0 ? varint_bytes(run - 1) : 0;
        i += run;
        before = ids[i++];
    }
    return bytes;
}

void id_list_encode(const uint64_t *ids, size_t count, uint8_t *out)
{
    uint64_t before = 0;
    for (size_t i = 0; i < count;) {
        size_t run = run_after(ids, count, i);
        out = varint_put(out, (ids[i] - before) << 1 | (run > 0 ? 1u : 0u));
        if (run > 0) {
            out = varint_put(out, run - 1);
        }
        i += run;
        before = ids[i++];
    }
}

enum ferry_err id_list_decode(struct bytes list, uint64_t *ids, size_t max, size_t *count)
{
    uint64_t before = 0;
    *count = 0;
    while (list.size > 0) {
        uint64_t head = 0;
        uint64_t more = 0;
        if (!varint_take(&list, &head) || ((head & 1) != 0 && !varint_take(&list, &more))) {
            return FERRY_ERR_CORRUPT;
        }
        uint64_t distance = head >> 1;
        uint64_t length = (head & 1) == 0 ? 1 : more > max ? UINT64_MAX : more + 2;
        bool joins = *count > 0 && distance == 1; /* It would have been one run. */
        if (distance == 0 || joins || length > max - *count || distance > INT64_MAX - before ||
            length - 1 > INT64_MAX - before - distance) {
            return FERRY_ERR_CORRUPT;
        }
        for (uint64_t i = 0; i < length; i++) {
            ids[(*count)++] = before + distance + i;
        }
        before = before + distance + length - 1;
    }
    return FERRY_OK;
}
