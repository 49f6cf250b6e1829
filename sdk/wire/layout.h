/* layout: how a command's struct becomes a msgpack array and back, told by a table.
 *
 * A row for each element, in the order of the wire. The kind of a number comes from the type of the
 * member itself, so that table and struct cannot disagree. The same tables write the test vectors
 * and drive the fuzz targets, so nothing that travels is left out there. Does no I/O, allocates
 * nothing.
 *
 * Changing a layout: rows are only ever added at the end, with LAYOUT_ADDED, which says what a
 * message without that element means. Nothing is removed, reordered or given another kind. */
#ifndef FERRY_WIRE_LAYOUT_H
#define FERRY_WIRE_LAYOUT_H

#include "wire/pack.h"

enum layout_kind {
    LAYOUT_BOOL,
    LAYOUT_U16,
    LAYOUT_U32,
    LAYOUT_U64,
    LAYOUT_I64,
    LAYOUT_ID,    /* struct ferry_id; bin of 16. */
    LAYOUT_TEXT,  /* struct bytes; str. */
    LAYOUT_BLOB,  /* struct bytes; bin. */
    LAYOUT_TEXTS, /* struct bytes[max] and its count; array of str. */
    LAYOUT_U32S,  /* uint32_t[max] and its count; array of integers. */
    LAYOUT_LIST,  /* struct[max] and its count; array of arrays. */
};

struct layout;
struct layout_row {
    const char *name;
    enum layout_kind kind;
    size_t offset;
    uint32_t max;              /* Bytes of TEXT, BLOB and of each of TEXTS. */
    uint32_t count_max;        /* TEXTS, U32S, LIST. */
    size_t count_offset;       /* TEXTS, U32S, LIST: where the uint32_t count is. */
    const struct layout *item; /* LIST: rows of one element; a LIST in it holds no further one. */
    bool added;                /* May be missing, */
    int64_t absent;            /* and then has this value. */
};

struct layout {
    const char *name;
    size_t bytes; /* sizeof the struct. */
    const struct layout_row *rows;
    uint32_t count;
    bool (*check)(const void *v); /* What rows cannot say; may be NULL. */
};

#define LAYOUT_MEMBER(type, member) (((const struct type *)0)->member)
#define LAYOUT_KIND_OF(type, member)                                                               \
    _Generic(LAYOUT_MEMBER(type, member), bool                                                     \
             : LAYOUT_BOOL, uint16_t                                                               \
             : LAYOUT_U16, uint32_t                                                                \
             : LAYOUT_U32, uint64_t                                                                \
             : LAYOUT_U64, int64_t                                                                 \
             : LAYOUT_I64, struct ferry_id                                                         \
             : LAYOUT_ID)
#define LAYOUT_VALUE(type, member)                                                                 \
    .name = #member, .kind = LAYOUT_KIND_OF(type, member), .offset = offsetof(struct type, member)
#define LAYOUT_RUN(type, member, kind_, max_)                                                      \
    .name = #member, .kind = (kind_), .max = (max_), .offset = offsetof(struct type, member)
#define LAYOUT_ARRAY(type, member, kind_, count_)                                                  \
    .name = #member, .kind = (kind_), .offset = offsetof(struct type, member),                     \
    .count_offset = offsetof(struct type, count_),                                                 \
    .count_max = sizeof(LAYOUT_MEMBER(type, member)) / sizeof(LAYOUT_MEMBER(type, member)[0])
#define LAYOUT_ADDED(absent_) .added = true, .absent = (absent_)

/* Counts above their maximum are a bug of the caller. */
void layout_encode(struct buf *b, const struct layout *layout, const void *v);
/* Errors: BAD_FRAME; `v` then holds nothing of use. */
MUST_CHECK enum ferry_err layout_decode(struct bytes body, const struct layout *layout, void *v);

#endif
