/* checksum: XXH3 of the xxHash library, the one hash of Ferry, mostly its 64 bits.
 *
 * It covers frames, record batches and log entries, and places keys on partitions and partitions
 * on the ring, so every implementation must agree on it (seed 0, canonical 64-bit value). It finds
 * accidents, not forgers. */
#ifndef FERRY_BASE_CHECKSUM_H
#define FERRY_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t checksum_of(const void *data, size_t bytes);
uint64_t checksum_of_two(const void *a, size_t a_bytes, const void *b, size_t b_bytes);
/* XXH3-128, seed 0, canonical (big-endian): for keys and ids, where 64 bits would meet. */
void checksum_128_of(const void *data, size_t bytes, uint8_t out[16]);

#endif
