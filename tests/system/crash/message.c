#include "system/crash/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/prng.h"

#define NUMBER_BYTES 10 /* Of "%09d " at the head of each payload. */

int message_key_of(int64_t n)
{
    return (int)(n % MESSAGE_KEYS);
}

void message_make(uint64_t seed, int64_t n, struct made_message *m)
{
    struct prng prng;
    prng_init(&prng, seed ^ ((uint64_t)n << 20));
    m->key_bytes = (size_t)snprintf(m->key, sizeof(m->key), "key-%d", message_key_of(n));
    (void)snprintf(m->payload, sizeof(m->payload), "%09lld ", (long long)n);
    m->payload_bytes = NUMBER_BYTES + prng_below(&prng, MESSAGE_BYTES_MAX - NUMBER_BYTES);
    for (size_t i = NUMBER_BYTES; i < m->payload_bytes; i++) {
        m->payload[i] = (char)prng_next(&prng);
    }
}

int64_t message_number(const void *payload, size_t bytes)
{
    char digits[NUMBER_BYTES + 1] = "";
    if (bytes < NUMBER_BYTES) {
        return -1;
    }
    memcpy(digits, payload, NUMBER_BYTES);
    char *end = NULL;
    long long n = strtoll(digits, &end, 10);
    return end == digits + NUMBER_BYTES - 1 && *end == ' ' ? n : -1;
}

uint64_t message_sum(const void *key, size_t key_bytes, const void *payload, size_t payload_bytes)
{
    return checksum_of_two(key, key_bytes, payload, payload_bytes);
}

uint64_t message_sum_of(uint64_t seed, int64_t n)
{
    struct made_message m;
    message_make(seed, n, &m);
    return message_sum(m.key, m.key_bytes, m.payload, m.payload_bytes);
}
