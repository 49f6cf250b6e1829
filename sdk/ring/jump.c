#include "base/checksum.h"
#include "base/must.h"
#include "ring/ring.h"

/* Figure 1 of Lamping and Veach. The division is in IEEE doubles with numbers of at most 31 bits of
 * quotient, so every machine gets the same answer. Expected turns: ln(buckets). */
uint32_t ring_jump(uint64_t hash, uint32_t buckets)
{
    must(buckets > 0);
    int64_t bucket = -1;
    int64_t next = 0;
    while (next < (int64_t)buckets) {
        bucket = next;
        hash = hash * 2862933555777941757u + 1;
        next = (int64_t)((double)(bucket + 1) *
                         ((double)(INT64_C(1) << 31) / (double)((hash >> 33) + 1)));
    }
    return (uint32_t)bucket;
}

uint32_t ring_partition_of_key(const void *key, size_t key_bytes, uint32_t partitions)
{
    return ring_jump(checksum_of(key, key_bytes), partitions);
}
