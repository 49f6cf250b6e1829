/* varint: unsigned LEB128, as in a record batch. Seven bits a byte, low ones first; the top bit
 * says that more follow. Inline because a batch has some four of them a record. */
#ifndef FERRY_WIRE_VARINT_H
#define FERRY_WIRE_VARINT_H

#include "base/bytes.h"

static inline size_t varint_size(uint64_t v)
{
    return (size_t)(70 - __builtin_clzll(v | 1)) / 7;
}

/* Writes varint_size(v) bytes and returns the place after them. */
static inline uint8_t *varint_write(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* The place after the varint; NULL when it runs past `end`, is larger than `max`, or is longer than
 * its value needs: one value has one form, so that bytes cannot hide in padding. */
static inline const uint8_t *varint_read(const uint8_t *p, const uint8_t *end, uint64_t max,
                                         uint64_t *v)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
        uint64_t bits = *p & 0x7fu;
        bool more = (*p++ & 0x80u) != 0;
        if (shift == 63 && bits > 1) {
            return NULL;
        }
        value |= bits << shift;
        if (!more) {
            *v = value;
            return (bits == 0 && shift > 0) || value > max ? NULL : p;
        }
    }
    return NULL;
}

/* Small magnitudes of either sign become small unsigned numbers. Both wrap, never overflow. */
static inline uint64_t varint_zigzag(uint64_t difference)
{
    return (difference << 1) ^ (0 - (difference >> 63));
}

static inline uint64_t varint_unzigzag(uint64_t v)
{
    return (v >> 1) ^ (0 - (v & 1));
}

#endif
