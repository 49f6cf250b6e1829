#include "wire/batch.h"
#include "wire/pack.h"
#include "wire/token.h"

#define HEADER_NAME_MAX_BYTES 255u

enum ferry_err batch_encode_headers(struct buf *b, const struct ferry_header *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t name_bytes = headers[i].name == NULL ? 0 : strlen(headers[i].name);
        if (name_bytes == 0 || name_bytes > HEADER_NAME_MAX_BYTES) {
            return FERRY_ERR_INVALID_ARGUMENT;
        }
        if (headers[i].value_bytes > UINT32_MAX) {
            return FERRY_ERR_TOO_LARGE;
        }
    }
    if (count > UINT32_MAX) {
        return FERRY_ERR_TOO_LARGE;
    }
    if (count > 0) {
        pack_map(b, (uint32_t)count);
    }
    for (size_t i = 0; i < count && buf_ok(b); i++) {
        pack_str(b, bytes_of_string(headers[i].name));
        pack_bin(b, bytes_of(headers[i].value, headers[i].value_bytes));
    }
    return buf_ok(b) ? FERRY_OK : FERRY_ERR_TOO_LARGE;
}

/* A name and a value off the front. */
static bool take_pair(struct bytes *rest, struct bytes *name, struct bytes *value)
{
    struct token n;
    struct token v;
    if (!token_next(rest, &n) || n.kind != TOKEN_STR || n.bytes.size == 0 ||
        n.bytes.size > HEADER_NAME_MAX_BYTES) {
        return false;
    }
    if (!token_next(rest, &v) || (v.kind != TOKEN_BIN && v.kind != TOKEN_STR)) {
        return false;
    }
    *name = n.bytes;
    *value = v.bytes;
    return true;
}

enum ferry_err batch_check_headers(struct bytes headers)
{
    struct token map;
    struct bytes name;
    struct bytes value;
    if (headers.size == 0) {
        return FERRY_OK;
    }
    if (!token_next(&headers, &map) || map.kind != TOKEN_MAP) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    for (uint32_t i = 0; i < map.values / 2; i++) {
        if (!take_pair(&headers, &name, &value)) {
            return FERRY_ERR_INVALID_ARGUMENT;
        }
    }
    return headers.size == 0 ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

/* Pairs are taken until the bytes end. The map's count is looked at by batch_check_headers only: a
 * blob with more or fewer pairs than it says reads as the pairs that are there. */
bool batch_next_header(struct bytes headers, size_t *position, struct bytes *name,
                       struct bytes *value)
{
    if (*position >= headers.size) {
        return false;
    }
    struct bytes rest = bytes_of(headers.data + *position, headers.size - *position);
    struct token map;
    if (*position == 0 && (!token_next(&rest, &map) || map.kind != TOKEN_MAP)) {
        return false;
    }
    if (!take_pair(&rest, name, value)) {
        return false;
    }
    *position = headers.size - rest.size;
    return true;
}

enum ferry_err batch_add_header(struct buf *b, struct bytes headers, const char *name,
                                const char *value)
{
    struct bytes added = bytes_of_string(name);
    struct bytes n;
    struct bytes v;
    uint32_t others = 0;
    if (batch_check_headers(headers) != FERRY_OK) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    for (size_t at = 0; batch_next_header(headers, &at, &n, &v);) {
        others += !bytes_equal(n, added);
    }
    pack_map(b, others + 1);
    for (size_t at = 0; batch_next_header(headers, &at, &n, &v);) {
        if (!bytes_equal(n, added)) {
            pack_str(b, n);
            pack_bin(b, v);
        }
    }
    pack_str(b, added);
    pack_bin(b, bytes_of_string(value));
    return buf_ok(b) ? FERRY_OK : FERRY_ERR_TOO_LARGE;
}
