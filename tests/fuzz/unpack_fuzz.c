/* msgpack values: what unpack_check accepts msgpack-c's own unpacker accepts too, as one value of
 * that size; and any order of reads ends with an answer and stays inside. */
#include <msgpack.h>

#include "wire/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Only after our check: msgpack-c allocates what the counts say. */
static void compare(struct bytes bytes)
{
    msgpack_unpacked result;
    size_t at = 0;
    msgpack_unpacked_init(&result);
    must(msgpack_unpack_next(&result, (const char *)bytes.data, bytes.size, &at) ==
         MSGPACK_UNPACK_SUCCESS);
    must(at == bytes.size);
    msgpack_unpacked_destroy(&result);
}

static void read_one(struct unpack *u, uint8_t which)
{
    struct bytes run = bytes_of(NULL, 0);
    switch (which % 9) {
    case 0:
        must(unpack_uint(u, 1000) <= 1000);
        break;
    case 1:
        (void)unpack_int(u);
        break;
    case 2:
        (void)unpack_bool(u);
        break;
    case 3:
        run = unpack_str(u, 100);
        break;
    case 4:
        run = unpack_bin(u, 100);
        break;
    case 5:
        (void)unpack_id(u);
        break;
    case 6:
        (void)unpack_array(u, 100);
        break;
    case 7:
        if (u->depth > 0) {
            unpack_array_end(u);
        }
        break;
    default:
        unpack_skip(u);
    }
    must(run.size <= 100);
    must(run.size == 0 || run.data + run.size <= u->rest.data);
}

/* The first bytes say which reads, the rest is read. */
static void read_in_some_order(const uint8_t *order, size_t count, struct bytes body)
{
    struct unpack u;
    unpack_begin(&u, body);
    for (size_t i = 0; i < count; i++) {
        read_one(&u, order[i]);
        must(u.failed || u.rest.data + u.rest.size == body.data + body.size);
    }
    while (u.depth > 0 && !u.failed) {
        unpack_array_end(&u);
    }
    (void)unpack_end(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (unpack_check(bytes_of(data, size))) {
        compare(bytes_of(data, size));
    }
    size_t order = size < 8 ? size : 8;
    read_in_some_order(data, order, bytes_of(data + order, size - order));
    return 0;
}
