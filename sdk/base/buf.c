#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"

#define BUF_FIRST_BYTES 256

void buf_init(struct buf *b, size_t limit)
{
    *b = (struct buf){.limit = limit};
}

void buf_fini(struct buf *b)
{
    mem_free(b->data);
    *b = (struct buf){.limit = b->limit};
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    b->failed = false;
}

static size_t grown_capacity(const struct buf *b, size_t need)
{
    size_t wanted = b->capacity ? b->capacity : BUF_FIRST_BYTES;
    while (wanted < need && wanted <= b->limit / 2) {
        wanted *= 2;
    }
    /* Past half the limit doubling could wrap: the limit itself is room enough. */
    return wanted >= need && wanted < b->limit ? wanted : b->limit;
}

bool buf_reserve(struct buf *b, size_t bytes)
{
    must(b->size <= b->limit);
    if (b->failed || bytes > b->limit - b->size) {
        b->failed = true;
        return false;
    }
    /* Memory even for no bytes, so that what buf_extend returns is never NULL by success. */
    if (b->data != NULL && b->size + bytes <= b->capacity) {
        return true;
    }
    size_t capacity = grown_capacity(b, b->size + bytes);
    uint8_t *data = mem_realloc(b->data, capacity);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    return true;
}

uint8_t *buf_extend(struct buf *b, size_t bytes)
{
    if (!buf_reserve(b, bytes)) {
        return NULL;
    }
    uint8_t *at = b->data + b->size;
    b->size += bytes;
    return at;
}

void buf_append(struct buf *b, const void *data, size_t bytes)
{
    uint8_t *at = buf_extend(b, bytes);
    if (at != NULL && bytes > 0) {
        memcpy(at, data, bytes);
    }
}

void buf_append_bytes(struct buf *b, struct bytes bytes)
{
    buf_append(b, bytes.data, bytes.size);
}

void buf_append_u8(struct buf *b, uint8_t v)
{
    buf_append(b, &v, 1);
}

void buf_append_le32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof(v));
}

void buf_append_le64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof(v));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    must(length >= 0);
    if (!buf_reserve(b, (size_t)length + 1)) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf((char *)b->data + b->size, (size_t)length + 1, format, args);
    va_end(args);
    b->size += (size_t)length;
}

uint8_t *buf_steal(struct buf *b, size_t *size)
{
    uint8_t *data = b->data;
    *size = b->size;
    *b = (struct buf){.limit = b->limit};
    return data;
}
