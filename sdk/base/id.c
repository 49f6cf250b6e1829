#include "base/id.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/must.h"

#define COUNTER_BITS       12 /* Of both kinds: RFC 9562's rand_a, and the snowflake's sequence. */
#define COUNTER_END        (1u << COUNTER_BITS)
#define UUID7_MS_MAX       ((INT64_C(1) << 48) - 1)
#define SNOWFLAKE_EPOCH_MS INT64_C(1577836800000) /* 2020-01-01T00:00:00Z */
#define SNOWFLAKE_MS_MAX   (SNOWFLAKE_EPOCH_MS + (INT64_C(1) << 41) - 1)
#define SNOWFLAKE_MS_SHIFT 22

_Static_assert(sizeof(struct ferry_id) == 16, "an id is 16 bytes");
_Static_assert(ID_TEXT_BYTES == FERRY_ID_TEXT_BYTES, "the public header says the same");
_Static_assert(ID_WORKERS_MAX == 1 << (SNOWFLAKE_MS_SHIFT - COUNTER_BITS), "10 bits of worker");

static enum ferry_err fill_random(void *out, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = getrandom((uint8_t *)out + done, bytes - done, 0);
        if (got < 0 && errno != EINTR) {
            return FERRY_ERR_IO;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return FERRY_OK;
}

enum ferry_err id_gen_init(struct id_gen *g, uint32_t worker_id)
{
    if (worker_id >= ID_WORKERS_MAX) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    *g = (struct id_gen){.worker_id = worker_id, .is_secret = true};
    /* All 256 bits of the state, not a 64-bit seed: among four thousand million generators two
     * 64-bit seeds would be equal, and with them their ids. */
    enum ferry_err err = fill_random(g->prng.state, sizeof(g->prng.state));
    g->prng.state[0] |= 1; /* xoshiro cannot leave the all-zero state. */
    return err;
}

void id_gen_init_seeded(struct id_gen *g, uint64_t seed)
{
    *g = (struct id_gen){0};
    prng_init(&g->prng, seed);
}

/* Moves (last_ms, counter) to the next pair, which is greater than every pair before. A clock
 * outside first_ms..last is not believed: the generator counts on from what it has used, into the
 * next millisecond when one is full. */
static void advance(struct id_gen *g, int64_t now_ms, int64_t first_ms, int64_t max_ms)
{
    if (now_ms < first_ms || now_ms > max_ms) {
        now_ms = first_ms;
    }
    if (now_ms > g->last_ms) {
        g->last_ms = now_ms;
        g->counter = 0;
        return;
    }
    g->counter++;
    if (g->counter == COUNTER_END) {
        g->last_ms++;
        g->counter = 0;
    }
    must(g->last_ms <= max_ms);
}

/* RFC 9562 5.7: 48 bits of Unix milliseconds, version 7, 12 bits of counter (6.2, method 1),
 * variant 2, 62 random bits. */
struct ferry_id id_gen_uuid7(struct id_gen *g, int64_t now_ms)
{
    advance(g, now_ms, 0, UUID7_MS_MAX);
    struct ferry_id id;
    put_be64(id.bytes, (uint64_t)g->last_ms << 16 | 0x7000u | g->counter);
    put_be64(id.bytes + 8, UINT64_C(2) << 62 | prng_next(&g->prng) >> 2);
    return id;
}

struct ferry_id id_gen_snowflake(struct id_gen *g, int64_t now_ms)
{
    advance(g, now_ms, SNOWFLAKE_EPOCH_MS, SNOWFLAKE_MS_MAX);
    struct ferry_id id = {0};
    uint64_t ms = (uint64_t)(g->last_ms - SNOWFLAKE_EPOCH_MS);
    put_be64(id.bytes + 8,
             ms << SNOWFLAKE_MS_SHIFT | (uint64_t)g->worker_id << COUNTER_BITS | g->counter);
    return id;
}

struct ferry_id id_random(struct id_gen *g)
{
    struct ferry_id id;
    if (!g->is_secret) {
        put_be64(id.bytes, prng_next(&g->prng));
        put_be64(id.bytes + 8, prng_next(&g->prng));
        return id;
    }
    if (g->secret_left < sizeof(id.bytes)) {
        must(fill_random(g->secret, sizeof(g->secret)) == FERRY_OK); /* It could before. */
        g->secret_left = sizeof(g->secret);
    }
    g->secret_left -= (uint32_t)sizeof(id.bytes);
    memcpy(id.bytes, g->secret + g->secret_left, sizeof(id.bytes));
    memset(g->secret + g->secret_left, 0, sizeof(id.bytes));
    return id;
}

/* ---- Text: 8-4-4-4-12 hexadecimal digits ---------------------------------------------------- */

static bool is_dash_before_byte(size_t i)
{
    return i == 4 || i == 6 || i == 8 || i == 10;
}

void id_format(const struct ferry_id *id, char text[ID_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    char *out = text;
    for (size_t i = 0; i < sizeof(id->bytes); i++) {
        if (is_dash_before_byte(i)) {
            *out++ = '-';
        }
        *out++ = digits[id->bytes[i] >> 4];
        *out++ = digits[id->bytes[i] & 15];
    }
    *out++ = '\0';
    must(out - text == ID_TEXT_BYTES);
}

/* -1 when it is not a hexadecimal digit, so also at the end of the text. */
static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool id_parse(const char *text, struct ferry_id *id)
{
    struct ferry_id parsed;
    for (size_t i = 0; i < sizeof(parsed.bytes); i++) {
        if (is_dash_before_byte(i) && *text++ != '-') {
            return false;
        }
        int high = digit_value(text[0]);
        int low = high >= 0 ? digit_value(text[1]) : -1;
        if (low < 0) {
            return false;
        }
        parsed.bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text != '\0') {
        return false;
    }
    *id = parsed;
    return true;
}

bool id_is_zero(const struct ferry_id *id)
{
    return (get_le64(id->bytes) | get_le64(id->bytes + 8)) == 0;
}

bool id_equal(const struct ferry_id *a, const struct ferry_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

void ferry_id_format(const struct ferry_id *id, char text[FERRY_ID_TEXT_BYTES])
{
    id_format(id, text);
}

bool ferry_id_parse(const char *text, struct ferry_id *id)
{
    return text != NULL && id_parse(text, id);
}
