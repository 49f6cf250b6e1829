/* message.h: what the workload's messages carry, so that each can be told from every other and from
 * everything that nobody sent.
 *
 * The payload is text, `PRODUCER SEQUENCE KEY_SEQUENCE SUM FILLER`. The sum is over the topic, the
 * key and all of the payload but itself: a message in the wrong topic, under another key or with
 * one byte changed does not match. No I/O, no allocation. */
#ifndef FERRY_SYSTEM_CLUSTER_MESSAGE_H
#define FERRY_SYSTEM_CLUSTER_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_NAME_BYTES 32 /* Of a producer or a key, with the NUL. */
#define MESSAGE_BYTES_MAX  16384

struct message {
    char producer[MESSAGE_NAME_BYTES];
    uint64_t sequence;     /* Counts what the producer sends. */
    uint64_t key_sequence; /* Counts what the producer sends under this key. */
    uint64_t sum;
    bool good; /* Parsed, and the sum is what it should be. */
};

/* Writes the payload into `payload` and the sum into m->sum; its length, at least `bytes` where
 * there is room for that. */
size_t message_make(struct message *m, const char *topic, const char *key, size_t bytes,
                    char payload[MESSAGE_BYTES_MAX]);

/* Parses a payload; what cannot be parsed is left empty and not good. */
void message_parse(struct message *m, const char *topic, const void *key, size_t key_bytes,
                   const void *payload, size_t payload_bytes);

#endif
