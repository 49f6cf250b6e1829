#include "outbox/sqlite/cursor.h"

#define CURSOR_VERSION  1u
#define CURSOR_KIND_ROW 1u

_Static_assert(CURSOR_BYTES == 1 + 1 + 8 + sizeof(struct ferry_id), "the layout has no gaps");

void cursor_encode(const struct source_cursor *cursor, uint8_t out[CURSOR_BYTES])
{
    must(cursor->position >= 0);
    out[0] = CURSOR_VERSION;
    out[1] = CURSOR_KIND_ROW;
    put_le64(out + 2, (uint64_t)cursor->position);
    memcpy(out + 10, cursor->id.bytes, sizeof(cursor->id.bytes));
}

enum ferry_err cursor_decode(struct bytes blob, struct source_cursor *cursor, struct err_text *e)
{
    if (blob.size < 2) {
        return err_set(e, FERRY_ERR_CORRUPT, "the cursor in the broker has %zu bytes", blob.size);
    }
    if (blob.data[0] != CURSOR_VERSION || blob.data[1] != CURSOR_KIND_ROW) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "the cursor in the broker has version %u, kind %u: a newer ferry-outbox, or "
                       "one for another database, has written it",
                       blob.data[0], blob.data[1]);
    }
    uint64_t position = blob.size == CURSOR_BYTES ? get_le64(blob.data + 2) : UINT64_MAX;
    if (position > INT64_MAX) {
        return err_set(e, FERRY_ERR_CORRUPT, "the cursor in the broker makes no sense");
    }
    cursor->position = (int64_t)position;
    memcpy(cursor->id.bytes, blob.data + 10, sizeof(cursor->id.bytes));
    return FERRY_OK;
}
