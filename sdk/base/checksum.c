#include "base/checksum.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

uint64_t checksum_of(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

uint64_t checksum_of_two(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, a, a_bytes);
    XXH3_64bits_update(&state, b, b_bytes);
    return XXH3_64bits_digest(&state);
}
