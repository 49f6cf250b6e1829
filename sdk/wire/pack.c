#include "wire/pack.h"

#include <msgpack/pack.h>

/* msgpack-c calls this for every piece of a value. It is told that all is well even when the buffer
 * is full, because the buffer remembers that itself and is asked once at the end. */
static int write_piece(void *data, const char *piece, size_t size)
{
    buf_append(data, piece, size);
    return 0;
}

static msgpack_packer packer_of(struct buf *b)
{
    return (msgpack_packer){.data = b, .callback = write_piece};
}

void pack_array(struct buf *b, uint32_t count)
{
    msgpack_packer p = packer_of(b);
    (void)msgpack_pack_array(&p, count);
}

void pack_map(struct buf *b, uint32_t count)
{
    msgpack_packer p = packer_of(b);
    (void)msgpack_pack_map(&p, count);
}

void pack_uint(struct buf *b, uint64_t v)
{
    msgpack_packer p = packer_of(b);
    (void)msgpack_pack_uint64(&p, v);
}

void pack_int(struct buf *b, int64_t v)
{
    msgpack_packer p = packer_of(b);
    (void)msgpack_pack_int64(&p, v);
}

void pack_bool(struct buf *b, bool v)
{
    msgpack_packer p = packer_of(b);
    (void)(v ? msgpack_pack_true(&p) : msgpack_pack_false(&p));
}

void pack_nil(struct buf *b)
{
    msgpack_packer p = packer_of(b);
    (void)msgpack_pack_nil(&p);
}

void pack_str(struct buf *b, struct bytes s)
{
    msgpack_packer p = packer_of(b);
    must(s.size <= UINT32_MAX);
    (void)msgpack_pack_str(&p, s.size);
    buf_append_bytes(b, s);
}

void pack_bin(struct buf *b, struct bytes s)
{
    msgpack_packer p = packer_of(b);
    must(s.size <= UINT32_MAX);
    (void)msgpack_pack_bin(&p, s.size);
    buf_append_bytes(b, s);
}

void pack_id(struct buf *b, const struct ferry_id *id)
{
    pack_bin(b, bytes_of(id->bytes, sizeof(id->bytes)));
}
