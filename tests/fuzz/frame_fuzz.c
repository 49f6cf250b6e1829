/* Frames, and every command's decoder on their bodies. What one decodes must be encoded, decoded
 * and encoded again to the same bytes: reader and writer mean the same. */
#include "base/checksum.h"
#include "base/mem.h"
#include "wire/command_layouts.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Room for any of the structs. */
union any_struct {
#define MEMBER(name) struct name name;
    COMMAND_STRUCT_MAP(MEMBER)
#undef MEMBER
};

static void round_trip(const struct layout *layout, struct bytes body)
{
    union any_struct first, second;
    struct buf a, b;
    if (layout_decode(body, layout, &first) != FERRY_OK) {
        return;
    }
    buf_init(&a, FRAME_BODY_MAX_BYTES * 2);
    buf_init(&b, FRAME_BODY_MAX_BYTES * 2);
    layout_encode(&a, layout, &first);
    must(buf_ok(&a));
    must(layout_decode(buf_bytes(&a), layout, &second) == FERRY_OK);
    layout_encode(&b, layout, &second);
    must(bytes_equal(buf_bytes(&a), buf_bytes(&b)));
    buf_fini(&a);
    buf_fini(&b);
}

static void parse(struct bytes message)
{
    struct frame f;
    struct err_text e;
    if (frame_parse(message, &f, &e) != FERRY_OK) {
        return;
    }
    must(FRAME_HEADER_BYTES + f.body.size + f.attachment.size == message.size);
    (void)empty_decode(f.body);
    for (size_t i = 0; i < COMMAND_STRUCTS; i++) {
        round_trip(&command_layouts[i], f.body);
    }
}

/* The same bytes with a right magic, version and checksum, so that what lies behind is reached. */
static void parse_signed(const uint8_t *data, size_t size)
{
    uint8_t *copy = mem_dup(data, size);
    must(copy != NULL);
    put_le16(copy, FRAME_MAGIC);
    copy[2] = FRAME_VERSION;
    size_t body = get_le32(copy + 16);
    body = body <= size - FRAME_HEADER_BYTES ? body : size - FRAME_HEADER_BYTES;
    put_le32(copy + 16, (uint32_t)body);
    put_le32(copy + 20, (uint32_t)(size - FRAME_HEADER_BYTES - body));
    put_le32(copy + 28, (uint32_t)checksum_of_two(copy, 28, copy + FRAME_HEADER_BYTES, body));
    parse(bytes_of(copy, size));
    mem_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(bytes_of(data, size));
    if (size >= FRAME_HEADER_BYTES) {
        parse_signed(data, size);
    }
    return 0;
}
