/* message: what the crash test sends. Key and payload of the n-th message follow from the run's
 * seed and n alone, so that whoever reads one can say whether a single byte of it has changed. No
 * state. */
#ifndef FERRY_TESTS_CRASH_MESSAGE_H
#define FERRY_TESTS_CRASH_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_BYTES_MAX 640
#define MESSAGE_KEYS      16

struct made_message {
    char key[16];
    size_t key_bytes;
    char payload[MESSAGE_BYTES_MAX];
    size_t payload_bytes;
};

void message_make(uint64_t seed, int64_t n, struct made_message *m);
int message_key_of(int64_t n);
/* The n in a payload; -1 when it is not one of ours. */
int64_t message_number(const void *payload, size_t bytes);
/* Of key and payload together. */
uint64_t message_sum(const void *key, size_t key_bytes, const void *payload, size_t payload_bytes);
/* What the sum of the n-th must be. */
uint64_t message_sum_of(uint64_t seed, int64_t n);

#endif
