/* pack: msgpack values into a buffer, and out of bytes that nobody has vouched for.
 *
 * The writer is msgpack-c's packer on a struct buf. The reader first scans the bytes without
 * allocating (unpack_check: depth, object count, every count and length against the bytes left) and
 * then takes values where they lie (token.h); msgpack-c's unpacker, which allocates a tree, is not
 * used. So a lying count costs nothing. Also used by the state machines for what they keep in
 * control entries and tables: one encoding everywhere. Any of msgpack's formats of an integer is
 * accepted; the writer always takes the shortest. */
#ifndef FERRY_WIRE_PACK_H
#define FERRY_WIRE_PACK_H

#include "base/buf.h"
#include "base/err.h"

#define UNPACK_DEPTH_MAX   8u
#define UNPACK_OBJECTS_MAX 65536u

void pack_array(struct buf *b, uint32_t count);
void pack_map(struct buf *b, uint32_t count);
void pack_uint(struct buf *b, uint64_t v);
void pack_int(struct buf *b, int64_t v);
void pack_bool(struct buf *b, bool v);
void pack_nil(struct buf *b);
void pack_str(struct buf *b, struct bytes s);
void pack_bin(struct buf *b, struct bytes s);
void pack_id(struct buf *b, const struct ferry_id *id);

/* True when the bytes are exactly one well-formed value within the limits above. */
bool unpack_check(struct bytes bytes);

/* Reads the elements of one top-level array in order. After the first mismatch `failed` is set and
 * every further read gives zero, so that decoders are straight lines; asked once at the end by
 * unpack_end. Nested arrays: unpack_array, then their elements; elements that are not known are
 * skipped with unpack_skip. Text and bin point into the bytes. */
struct unpack {
    struct bytes rest;
    uint32_t left; /* Elements of the top-level array not read. */
    uint32_t depth;
    uint32_t outer_left[UNPACK_DEPTH_MAX];
    bool failed;
};

void unpack_begin(struct unpack *u, struct bytes body); /* Runs unpack_check; enters the array. */
uint64_t unpack_uint(struct unpack *u, uint64_t max);
int64_t unpack_int(struct unpack *u);
bool unpack_bool(struct unpack *u);
struct bytes unpack_str(struct unpack *u, size_t max_bytes);
struct bytes unpack_bin(struct unpack *u, size_t max_bytes);
struct ferry_id unpack_id(struct unpack *u);
uint32_t unpack_array(struct unpack *u, uint32_t max_count); /* Enters; returns its count. */
void unpack_array_end(struct unpack *u);                     /* Skips the rest of it and leaves. */
bool unpack_has_more(const struct unpack *u);                /* In the array it is in. */
void unpack_skip(struct unpack *u);
MUST_CHECK enum ferry_err unpack_end(struct unpack *u); /* BAD_FRAME when anything failed. */

#endif
