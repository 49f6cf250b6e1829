/* Fetch entries as a client meets them: one after another until the bytes end. What is accepted has
 * skips and offsets that fit its batch, and is written again to the same bytes. */
#include "base/checksum.h"
#include "base/mem.h"
#include "wire/batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_again(const struct fetch_entry *entry, struct bytes taken)
{
    struct buf b;
    buf_init(&b, taken.size);
    must(fetch_entry_size(entry) == taken.size);
    fetch_entry_append(&b, entry);
    must(bytes_equal(buf_bytes(&b), taken));
    buf_fini(&b);
}

static void take_all(struct bytes rest)
{
    struct fetch_entry entry;
    struct batch_header h;
    struct err_text e;
    struct bytes before = rest;
    while (rest.size > 0 && fetch_entry_next(&rest, &entry, &h, &e) == FERRY_OK) {
        must(rest.size < before.size);
        must(entry.skip_count <= h.count);
        must(entry.skip_count == 0 || fetch_entry_skip(&entry, entry.skip_count - 1) < h.count);
        must(entry.base_offset >= 0 && entry.base_offset <= INT64_MAX - (int64_t)h.count);
        write_again(&entry, bytes_of(before.data, before.size - rest.size));
        before = rest;
    }
}

/* One entry whose sizes and checksums are right, whatever the rest is. */
static void take_signed(const uint8_t *data, size_t size)
{
    uint8_t *copy = mem_dup(data, size);
    must(copy != NULL);
    size_t skips = (size_t)(get_le32(copy + 16) % 8) * 4;
    if (size >= FETCH_ENTRY_BYTES + skips + BATCH_HEADER_BYTES) {
        uint8_t *batch = copy + FETCH_ENTRY_BYTES + skips;
        size_t batch_bytes = size - FETCH_ENTRY_BYTES - skips;
        put_le32(copy + 16, (uint32_t)(skips / 4));
        put_le32(copy + 20, (uint32_t)batch_bytes);
        put_le64(copy + 24, checksum_of_two(copy, 24, copy + FETCH_ENTRY_BYTES, skips));
        put_le32(batch, BATCH_MAGIC);
        put_le32(batch + 4, (uint32_t)batch_bytes);
        put_le64(batch + 8, checksum_of(batch + 16, batch_bytes - 16));
        take_all(bytes_of(copy, size));
    }
    mem_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    take_all(bytes_of(data, size));
    if (size >= FETCH_ENTRY_BYTES) {
        take_signed(data, size);
    }
    return 0;
}
