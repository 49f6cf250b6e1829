/* Record batches: what batch_check accepts is read without leaving its bytes, and what is read
 * whole is written again and read as the same records. */
#include "base/checksum.h"
#include "base/mem.h"
#include "wire/batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_headers(struct bytes headers)
{
    struct bytes name, value;
    size_t position = 0;
    (void)batch_check_headers(headers);
    while (batch_next_header(headers, &position, &name, &value)) {
        must(name.data >= headers.data && value.data + value.size <= headers.data + headers.size);
    }
}

static bool is_same(const struct batch_record *a, const struct batch_record *b)
{
    return a->timestamp_ms == b->timestamp_ms && a->has_key == b->has_key &&
           bytes_equal(a->key, b->key) && bytes_equal(a->headers, b->headers) &&
           bytes_equal(a->payload, b->payload) && memcmp(&a->id, &b->id, sizeof(a->id)) == 0 &&
           a->due == b->due && a->priority == b->priority;
}

/* The batch written anew, or one too large for that. */
static void write_again(struct bytes batch, const struct batch_header *h)
{
    struct batch_writer w;
    struct batch_reader first, second;
    struct batch_record a, b;
    struct batch_header again;
    struct bytes written;
    enum ferry_err err;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    batch_reader_init(&first, batch);
    while (batch_reader_next(&first, &a, &err)) {
        must(batch_writer_add(&w, &a) == FERRY_OK);
    }
    must(batch_writer_finish(&w, h->producer_id, h->producer_epoch, h->first_sequence, &written) ==
         FERRY_OK);
    must(batch_check(written, &again, NULL) == FERRY_OK);
    must(again.count == h->count);
    batch_reader_init(&first, batch);
    batch_reader_init(&second, written);
    while (batch_reader_next(&first, &a, &err)) {
        must(batch_reader_next(&second, &b, &err));
        must(is_same(&a, &b));
    }
    batch_writer_fini(&w);
}

static void read_all(struct bytes batch)
{
    struct batch_header h;
    struct batch_reader r;
    struct batch_record record;
    struct err_text e;
    enum ferry_err err;
    uint32_t read = 0;
    if (batch_check(batch, &h, &e) != FERRY_OK) {
        return;
    }
    batch_reader_init(&r, batch);
    while (batch_reader_next(&r, &record, &err)) {
        read_headers(record.headers);
        read++;
    }
    must((read == h.count) == (err == FERRY_OK));
    if (err == FERRY_OK) {
        write_again(batch, &h);
    }
}

/* With the fields made right that chance never meets: magic, size, reserved ones and checksum. */
static void read_signed(const uint8_t *data, size_t size)
{
    uint8_t *copy = mem_dup(data, size);
    must(copy != NULL);
    put_le32(copy, BATCH_MAGIC);
    put_le32(copy + 4, (uint32_t)size);
    put_le16(copy + 18, 0);
    put_le64(copy + 56, 0);
    put_le64(copy + 8, checksum_of(copy + 16, size - 16));
    read_all(bytes_of(copy, size));
    mem_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_all(bytes_of(data, size));
    if (size >= BATCH_HEADER_BYTES) {
        read_signed(data, size);
    }
    return 0;
}
