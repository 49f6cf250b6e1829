#include "wire/pack.h"
#include "wire/token.h"

static bool is_container(const struct token *t)
{
    return t->kind == TOKEN_ARRAY || t->kind == TOKEN_MAP;
}

/* Walks the value with a stack of counts, so that nesting costs no C stack; the loop ends after
 * UNPACK_OBJECTS_MAX tokens at the latest. */
bool unpack_check(struct bytes bytes)
{
    uint32_t left[UNPACK_DEPTH_MAX + 1] = {1}; /* Values still to come, by depth. */
    uint32_t depth = 0;
    for (uint32_t objects = 0; objects <= UNPACK_OBJECTS_MAX; objects++) {
        while (depth > 0 && left[depth] == 0) {
            depth--;
        }
        if (left[depth] == 0) {
            return bytes.size == 0;
        }
        struct token t;
        left[depth]--;
        if (!token_next(&bytes, &t) || (is_container(&t) && depth == UNPACK_DEPTH_MAX)) {
            return false;
        }
        if (is_container(&t)) {
            left[++depth] = t.values;
        }
    }
    return false;
}

/* The next value of the array, of the kind asked for; sets `failed` otherwise. */
static bool take(struct unpack *u, enum token_kind kind, struct token *t)
{
    if (!u->failed && u->left > 0 && token_next(&u->rest, t) && t->kind == kind) {
        u->left--;
        return true;
    }
    u->failed = true;
    return false;
}

void unpack_begin(struct unpack *u, struct bytes body)
{
    struct token t;
    *u = (struct unpack){.rest = body, .left = 1};
    if (!unpack_check(body)) {
        u->failed = true;
    }
    if (take(u, TOKEN_ARRAY, &t)) {
        u->left = t.values;
    }
}

uint64_t unpack_uint(struct unpack *u, uint64_t max)
{
    struct token t;
    if (!take(u, TOKEN_UINT, &t)) {
        return 0;
    }
    if (t.number > max) {
        u->failed = true;
        return 0;
    }
    return t.number;
}

int64_t unpack_int(struct unpack *u)
{
    struct token t;
    struct bytes ahead = u->rest;
    if (!u->failed && u->left > 0 && token_next(&ahead, &t) && t.kind == TOKEN_INT) {
        u->rest = ahead;
        u->left--;
        return (int64_t)t.number;
    }
    return (int64_t)unpack_uint(u, INT64_MAX);
}

bool unpack_bool(struct unpack *u)
{
    struct token t;
    return take(u, TOKEN_BOOL, &t) && t.number != 0;
}

static struct bytes take_run(struct unpack *u, enum token_kind kind, size_t max_bytes)
{
    struct token t;
    if (!take(u, kind, &t)) {
        return bytes_of(NULL, 0);
    }
    if (t.bytes.size > max_bytes) {
        u->failed = true;
        return bytes_of(NULL, 0);
    }
    return t.bytes;
}

struct bytes unpack_str(struct unpack *u, size_t max_bytes)
{
    return take_run(u, TOKEN_STR, max_bytes);
}

struct bytes unpack_bin(struct unpack *u, size_t max_bytes)
{
    return take_run(u, TOKEN_BIN, max_bytes);
}

struct ferry_id unpack_id(struct unpack *u)
{
    struct ferry_id id = {{0}};
    struct bytes run = unpack_bin(u, sizeof(id.bytes));
    if (run.size == sizeof(id.bytes)) {
        memcpy(id.bytes, run.data, sizeof(id.bytes));
    } else {
        u->failed = true;
    }
    return id;
}

uint32_t unpack_array(struct unpack *u, uint32_t max_count)
{
    struct token t;
    if (!take(u, TOKEN_ARRAY, &t)) {
        return 0;
    }
    if (t.values > max_count) {
        u->failed = true;
        return 0;
    }
    must(u->depth < UNPACK_DEPTH_MAX); /* unpack_check refused what is deeper. */
    u->outer_left[u->depth++] = u->left;
    u->left = t.values;
    return t.values;
}

void unpack_array_end(struct unpack *u)
{
    while (!u->failed && u->left > 0) {
        unpack_skip(u);
    }
    if (!u->failed) {
        must(u->depth > 0);
        u->left = u->outer_left[--u->depth];
    }
}

bool unpack_has_more(const struct unpack *u)
{
    return !u->failed && u->left > 0;
}

/* Bounded by the tokens that unpack_check has counted. */
void unpack_skip(struct unpack *u)
{
    if (u->failed || u->left == 0) {
        u->failed = true;
        return;
    }
    u->left--;
    for (uint64_t values = 1; values > 0; values--) {
        struct token t;
        if (!token_next(&u->rest, &t)) {
            u->failed = true;
            return;
        }
        values += t.values;
    }
}

enum ferry_err unpack_end(struct unpack *u)
{
    must(u->failed || u->depth == 0);
    return u->failed ? FERRY_ERR_BAD_FRAME : FERRY_OK;
}
