/* prng: xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64.
 *
 * For jitter, timeouts and tests; never for keys or tokens. State is the caller's, so the same seed
 * gives the same run. */
#ifndef FERRY_BASE_PRNG_H
#define FERRY_BASE_PRNG_H

#include <stdint.h>

struct prng {
    uint64_t state[4];
};

void prng_init(struct prng *p, uint64_t seed);
uint64_t prng_next(struct prng *p);
uint64_t prng_below(struct prng *p, uint64_t bound); /* Uniform in [0, bound); bound > 0. */

#endif
