#include "system/cluster/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"

#define HEAD_BYTES 128 /* Of the payload before the filler. */

static uint64_t sum_of(const struct message *m, const char *topic, const void *key,
                       size_t key_bytes, const void *filler, size_t filler_bytes)
{
    char head[HEAD_BYTES + 256];
    int bytes = snprintf(head, sizeof(head), "%s %s %" PRIu64 " %" PRIu64 " %.*s", topic,
                         m->producer, m->sequence, m->key_sequence, (int)key_bytes,
                         key == NULL ? "" : (const char *)key);
    size_t kept = bytes < (int)sizeof(head) ? (size_t)bytes : sizeof(head) - 1;
    return checksum_of_two(head, kept, filler, filler_bytes);
}

size_t message_make(struct message *m, const char *topic, const char *key, size_t bytes,
                    char payload[MESSAGE_BYTES_MAX])
{
    char filler[MESSAGE_BYTES_MAX];
    size_t filler_bytes = bytes < HEAD_BYTES ? 1 : bytes - HEAD_BYTES;
    if (filler_bytes > MESSAGE_BYTES_MAX - HEAD_BYTES) {
        filler_bytes = MESSAGE_BYTES_MAX - HEAD_BYTES;
    }
    memset(filler, 'a' + (int)(m->sequence % 26), filler_bytes);
    m->sum = sum_of(m, topic, key, strlen(key), filler, filler_bytes);
    int head = snprintf(payload, HEAD_BYTES, "%s %" PRIu64 " %" PRIu64 " %016" PRIx64 " ",
                        m->producer, m->sequence, m->key_sequence, m->sum);
    memcpy(payload + head, filler, filler_bytes);
    return (size_t)head + filler_bytes;
}

void message_parse(struct message *m, const char *topic, const void *key, size_t key_bytes,
                   const void *payload, size_t payload_bytes)
{
    char head[HEAD_BYTES + 1] = "";
    int filler = 0;
    *m = (struct message){.good = false};
    size_t kept = payload_bytes < HEAD_BYTES ? payload_bytes : HEAD_BYTES;
    memcpy(head, payload, kept);
    if (sscanf(head, "%31s %" SCNu64 " %" SCNu64 " %" SCNx64 " %n", m->producer, &m->sequence,
               &m->key_sequence, &m->sum, &filler) != 4 ||
        filler == 0) {
        return;
    }
    uint64_t sum = sum_of(m, topic, key, key_bytes, (const char *)payload + filler,
                          payload_bytes - (size_t)filler);
    m->good = sum == m->sum;
}
