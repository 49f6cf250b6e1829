#include "wire/layout.h"

static const void *member_of(const void *v, size_t offset)
{
    return (const uint8_t *)v + offset;
}

static uint32_t count_of(const struct layout_row *row, const void *v)
{
    uint32_t count;
    memcpy(&count, member_of(v, row->count_offset), sizeof(count));
    must(count <= row->count_max);
    return count;
}

/* Everything but the arrays, which have values inside. */
static void encode_value(struct buf *b, enum layout_kind kind, const void *member)
{
    switch (kind) {
    case LAYOUT_BOOL:
        pack_bool(b, *(const bool *)member);
        break;
    case LAYOUT_U16:
        pack_uint(b, *(const uint16_t *)member);
        break;
    case LAYOUT_U32:
        pack_uint(b, *(const uint32_t *)member);
        break;
    case LAYOUT_U64:
        pack_uint(b, *(const uint64_t *)member);
        break;
    case LAYOUT_I64:
        pack_int(b, *(const int64_t *)member);
        break;
    case LAYOUT_ID:
        pack_id(b, member);
        break;
    case LAYOUT_TEXT:
        pack_str(b, *(const struct bytes *)member);
        break;
    case LAYOUT_BLOB:
        pack_bin(b, *(const struct bytes *)member);
        break;
    case LAYOUT_TEXTS:
    case LAYOUT_U32S:
    case LAYOUT_LIST:
        must_fail("a list holds plain values", __FILE__, __LINE__);
    }
}

static void encode_texts(struct buf *b, const struct layout_row *row, const void *v)
{
    uint32_t count = count_of(row, v);
    const struct bytes *texts = member_of(v, row->offset);
    pack_array(b, count);
    for (uint32_t i = 0; i < count; i++) {
        pack_str(b, texts[i]);
    }
}

static void encode_numbers(struct buf *b, const struct layout_row *row, const void *v)
{
    uint32_t count = count_of(row, v);
    const uint32_t *numbers = member_of(v, row->offset);
    pack_array(b, count);
    for (uint32_t i = 0; i < count; i++) {
        pack_uint(b, numbers[i]);
    }
}

/* Everything but LIST. */
static void encode_plain(struct buf *b, const struct layout_row *row, const void *v)
{
    if (row->kind == LAYOUT_TEXTS) {
        encode_texts(b, row, v);
    } else if (row->kind == LAYOUT_U32S) {
        encode_numbers(b, row, v);
    } else {
        encode_value(b, row->kind, member_of(v, row->offset));
    }
}

/* A LIST inside a LIST: its items are plain. */
static void encode_inner_list(struct buf *b, const struct layout_row *row, const void *v)
{
    const struct layout *item = row->item;
    uint32_t count = count_of(row, v);
    pack_array(b, count);
    for (uint32_t i = 0; i < count; i++) {
        pack_array(b, item->count);
        for (uint32_t k = 0; k < item->count; k++) {
            encode_plain(b, &item->rows[k], member_of(v, row->offset + i * item->bytes));
        }
    }
}

static void encode_list_item(struct buf *b, const struct layout *item, const void *element)
{
    pack_array(b, item->count);
    for (uint32_t k = 0; k < item->count; k++) {
        if (item->rows[k].kind == LAYOUT_LIST) {
            encode_inner_list(b, &item->rows[k], element);
        } else {
            encode_plain(b, &item->rows[k], element);
        }
    }
}

static void encode_list(struct buf *b, const struct layout_row *row, const void *v)
{
    uint32_t count = count_of(row, v);
    pack_array(b, count);
    for (uint32_t i = 0; i < count; i++) {
        encode_list_item(b, row->item, member_of(v, row->offset + i * row->item->bytes));
    }
}

void layout_encode(struct buf *b, const struct layout *layout, const void *v)
{
    pack_array(b, layout->count);
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct layout_row *row = &layout->rows[i];
        if (row->kind == LAYOUT_LIST) {
            encode_list(b, row, v);
        } else {
            encode_plain(b, row, v);
        }
    }
}

static void decode_value(struct unpack *u, const struct layout_row *row, void *member)
{
    switch (row->kind) {
    case LAYOUT_BOOL:
        *(bool *)member = unpack_bool(u);
        break;
    case LAYOUT_U16:
        *(uint16_t *)member = (uint16_t)unpack_uint(u, UINT16_MAX);
        break;
    case LAYOUT_U32:
        *(uint32_t *)member = (uint32_t)unpack_uint(u, UINT32_MAX);
        break;
    case LAYOUT_U64:
        *(uint64_t *)member = unpack_uint(u, UINT64_MAX);
        break;
    case LAYOUT_I64:
        *(int64_t *)member = unpack_int(u);
        break;
    case LAYOUT_ID:
        *(struct ferry_id *)member = unpack_id(u);
        break;
    case LAYOUT_TEXT:
        *(struct bytes *)member = unpack_str(u, row->max);
        break;
    case LAYOUT_BLOB:
        *(struct bytes *)member = unpack_bin(u, row->max);
        break;
    case LAYOUT_TEXTS:
    case LAYOUT_U32S:
    case LAYOUT_LIST:
        must_fail("a list holds plain values", __FILE__, __LINE__);
    }
}

/* The value of an element that an older sender does not know. */
static void set_absent(const struct layout_row *row, uint8_t *v)
{
    void *member = v + row->offset;
    switch (row->kind) {
    case LAYOUT_BOOL:
        *(bool *)member = row->absent != 0;
        break;
    case LAYOUT_U32:
        *(uint32_t *)member = (uint32_t)row->absent;
        break;
    case LAYOUT_U64:
        *(uint64_t *)member = (uint64_t)row->absent;
        break;
    case LAYOUT_I64:
        *(int64_t *)member = row->absent;
        break;
    case LAYOUT_TEXT:
    case LAYOUT_BLOB:
        *(struct bytes *)member = bytes_of(NULL, 0);
        break;
    case LAYOUT_U32S:
        memset(v + row->count_offset, 0, sizeof(uint32_t));
        break;
    default:
        must_fail("the kind has its line here once a layout adds one", __FILE__, __LINE__);
    }
}

/* Enters the array of the row and keeps its count. */
static uint32_t decode_count(struct unpack *u, const struct layout_row *row, uint8_t *v)
{
    uint32_t count = unpack_array(u, row->count_max);
    memcpy(v + row->count_offset, &count, sizeof(count));
    return count;
}

static void decode_texts(struct unpack *u, const struct layout_row *row, uint8_t *v)
{
    uint32_t count = decode_count(u, row, v);
    for (uint32_t i = 0; i < count && !u->failed; i++) {
        struct bytes text = unpack_str(u, row->max);
        memcpy(v + row->offset + i * sizeof(text), &text, sizeof(text));
    }
    unpack_array_end(u);
}

static void decode_numbers(struct unpack *u, const struct layout_row *row, uint8_t *v)
{
    uint32_t count = decode_count(u, row, v);
    for (uint32_t i = 0; i < count && !u->failed; i++) {
        uint32_t number = (uint32_t)unpack_uint(u, UINT32_MAX);
        memcpy(v + row->offset + i * sizeof(number), &number, sizeof(number));
    }
    unpack_array_end(u);
}

/* Everything but LIST. */
static void decode_plain(struct unpack *u, const struct layout_row *row, uint8_t *v)
{
    if (row->added && !unpack_has_more(u)) {
        set_absent(row, v);
    } else if (row->kind == LAYOUT_TEXTS) {
        decode_texts(u, row, v);
    } else if (row->kind == LAYOUT_U32S) {
        decode_numbers(u, row, v);
    } else {
        decode_value(u, row, v + row->offset);
    }
}

static void decode_inner_list(struct unpack *u, const struct layout_row *row, uint8_t *v)
{
    const struct layout *item = row->item;
    uint32_t count = decode_count(u, row, v);
    for (uint32_t i = 0; i < count && !u->failed; i++) {
        (void)unpack_array(u, UNPACK_OBJECTS_MAX);
        for (uint32_t k = 0; k < item->count; k++) {
            decode_plain(u, &item->rows[k], v + row->offset + i * item->bytes);
        }
        unpack_array_end(u);
    }
    unpack_array_end(u);
}

static void decode_list_item(struct unpack *u, const struct layout *item, uint8_t *element)
{
    (void)unpack_array(u, UNPACK_OBJECTS_MAX);
    for (uint32_t k = 0; k < item->count; k++) {
        if (item->rows[k].kind == LAYOUT_LIST) {
            decode_inner_list(u, &item->rows[k], element);
        } else {
            decode_plain(u, &item->rows[k], element);
        }
    }
    unpack_array_end(u);
}

static void decode_list(struct unpack *u, const struct layout_row *row, uint8_t *v)
{
    uint32_t count = decode_count(u, row, v);
    for (uint32_t i = 0; i < count && !u->failed; i++) {
        decode_list_item(u, row->item, v + row->offset + i * row->item->bytes);
    }
    unpack_array_end(u);
}

enum ferry_err layout_decode(struct bytes body, const struct layout *layout, void *v)
{
    struct unpack u;
    unpack_begin(&u, body);
    for (uint32_t i = 0; i < layout->count && !u.failed; i++) {
        const struct layout_row *row = &layout->rows[i];
        if (row->kind == LAYOUT_LIST) {
            decode_list(&u, row, v);
        } else {
            decode_plain(&u, row, v);
        }
    }
    enum ferry_err err = unpack_end(&u);
    if (err == FERRY_OK && layout->check != NULL && !layout->check(v)) {
        return FERRY_ERR_BAD_FRAME;
    }
    return err;
}
