/* buf: bytes that grow, up to a limit with a name.
 *
 * Appending past `limit` or past memory sets `failed` and changes nothing else; the error is asked
 * for once at the end (buf_ok), so that encoders stay straight lines. One thread at a time. */
#ifndef FERRY_BASE_BUF_H
#define FERRY_BASE_BUF_H

#include "base/bytes.h"
#include "base/must.h"

struct buf {
    uint8_t *data;   /* Owned. NULL until the first append. */
    size_t size;     /* Bytes in use. */
    size_t capacity; /* Bytes allocated. */
    size_t limit;    /* Never grows past this. */
    bool failed;     /* An append did not fit; the content is what fitted before. */
};

void buf_init(struct buf *b, size_t limit);
void buf_fini(struct buf *b);                  /* Accepts zeroed memory; may be called twice. */
void buf_clear(struct buf *b);                 /* Keeps the memory. */
bool buf_reserve(struct buf *b, size_t bytes); /* Room for `bytes` more; false sets `failed`. */
void buf_append(struct buf *b, const void *data, size_t bytes);
void buf_append_bytes(struct buf *b, struct bytes bytes);
void buf_append_u8(struct buf *b, uint8_t v);
void buf_append_le32(struct buf *b, uint32_t v);
void buf_append_le64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *format, ...) PRINTF(2, 3);

/* Room for `bytes` more, uninitialised, counted as used; NULL when it does not fit. The pointer
 * lives until the next append. */
uint8_t *buf_extend(struct buf *b, size_t bytes);

static inline bool buf_ok(const struct buf *b)
{
    return !b->failed;
}

static inline struct bytes buf_bytes(const struct buf *b)
{
    return bytes_of(b->data, b->size);
}

/* Hands the memory to the caller (free with mem_free) and empties the buffer. */
uint8_t *buf_steal(struct buf *b, size_t *size);

#endif
