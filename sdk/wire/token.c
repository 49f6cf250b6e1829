#include "wire/token.h"

#define FIRST_TABLED   0xc0u
#define FIRST_NEGATIVE 0xe0u

/* How the formats 0xc0..0xdf are laid out: how many bytes of number or length follow the format
 * byte. Fixed sizes stand in the table themselves. */
enum shape { NEVER, PLAIN, NUMBER, SIGNED, FIXED, LENGTH, LENGTH_AND_TYPE, COUNT };

static const struct format {
    uint8_t shape;
    uint8_t kind;
    uint8_t width; /* FIXED: the bytes themselves; else of the number, length or count. */
} formats[FIRST_NEGATIVE - FIRST_TABLED] = {
    {PLAIN, TOKEN_NIL, 0},           /* c0 */
    {NEVER, TOKEN_NIL, 0},           /* c1 */
    {PLAIN, TOKEN_BOOL, 0},          /* c2 false */
    {PLAIN, TOKEN_BOOL, 0},          /* c3 true */
    {LENGTH, TOKEN_BIN, 1},          /* c4 */
    {LENGTH, TOKEN_BIN, 2},          /* c5 */
    {LENGTH, TOKEN_BIN, 4},          /* c6 */
    {LENGTH_AND_TYPE, TOKEN_EXT, 1}, /* c7 */
    {LENGTH_AND_TYPE, TOKEN_EXT, 2}, /* c8 */
    {LENGTH_AND_TYPE, TOKEN_EXT, 4}, /* c9 */
    {FIXED, TOKEN_FLOAT, 4},         /* ca */
    {FIXED, TOKEN_FLOAT, 8},         /* cb */
    {NUMBER, TOKEN_UINT, 1},         /* cc */
    {NUMBER, TOKEN_UINT, 2},         /* cd */
    {NUMBER, TOKEN_UINT, 4},         /* ce */
    {NUMBER, TOKEN_UINT, 8},         /* cf */
    {SIGNED, TOKEN_INT, 1},          /* d0 */
    {SIGNED, TOKEN_INT, 2},          /* d1 */
    {SIGNED, TOKEN_INT, 4},          /* d2 */
    {SIGNED, TOKEN_INT, 8},          /* d3 */
    {FIXED, TOKEN_EXT, 1 + 1},       /* d4: a type byte and 1, 2, 4, 8, 16 bytes */
    {FIXED, TOKEN_EXT, 1 + 2},       /* d5 */
    {FIXED, TOKEN_EXT, 1 + 4},       /* d6 */
    {FIXED, TOKEN_EXT, 1 + 8},       /* d7 */
    {FIXED, TOKEN_EXT, 1 + 16},      /* d8 */
    {LENGTH, TOKEN_STR, 1},          /* d9 */
    {LENGTH, TOKEN_STR, 2},          /* da */
    {LENGTH, TOKEN_STR, 4},          /* db */
    {COUNT, TOKEN_ARRAY, 2},         /* dc */
    {COUNT, TOKEN_ARRAY, 4},         /* dd */
    {COUNT, TOKEN_MAP, 2},           /* de */
    {COUNT, TOKEN_MAP, 4},           /* df */
};

static bool take(struct bytes *rest, uint64_t size, struct bytes *taken)
{
    if (size > rest->size) {
        return false;
    }
    *taken = bytes_of(rest->data, (size_t)size);
    rest->data += size;
    rest->size -= (size_t)size;
    return true;
}

/* A big-endian number of `width` (1, 2, 4 or 8) bytes. */
static bool take_number(struct bytes *rest, size_t width, uint64_t *number)
{
    struct bytes taken;
    if (!take(rest, width, &taken)) {
        return false;
    }
    *number = 0;
    for (size_t i = 0; i < width; i++) {
        *number = *number << 8 | taken.data[i];
    }
    return true;
}

static void set_signed(struct token *t, uint64_t number, size_t width)
{
    uint64_t sign = UINT64_C(1) << (width * 8 - 1);
    t->number = (number ^ sign) - sign;
    t->kind = (number & sign) != 0 ? TOKEN_INT : TOKEN_UINT;
}

static bool set_count(struct token *t, enum token_kind kind, uint64_t count, struct bytes rest)
{
    uint64_t values = kind == TOKEN_MAP ? count * 2 : count;
    if (values > rest.size || values > UINT32_MAX) {
        return false;
    }
    t->kind = kind;
    t->values = (uint32_t)values;
    return true;
}

static bool tabled_next(struct bytes *rest, uint8_t first, struct token *t)
{
    const struct format *f = &formats[first - FIRST_TABLED];
    uint64_t number = 0;
    t->kind = f->kind;
    switch ((enum shape)f->shape) {
    case NEVER:
        return false;
    case PLAIN:
        t->number = first & 1u; /* c2 is false, c3 is true. */
        return true;
    case FIXED:
        return take(rest, f->width, &t->bytes);
    case NUMBER:
        return take_number(rest, f->width, &t->number);
    case SIGNED:
        if (!take_number(rest, f->width, &number)) {
            return false;
        }
        set_signed(t, number, f->width);
        return true;
    case LENGTH:
        return take_number(rest, f->width, &number) && take(rest, number, &t->bytes);
    case LENGTH_AND_TYPE:
        return take_number(rest, f->width, &number) && take(rest, number + 1, &t->bytes);
    case COUNT:
        return take_number(rest, f->width, &number) && set_count(t, f->kind, number, *rest);
    }
    return false;
}

bool token_next(struct bytes *rest, struct token *t)
{
    struct bytes head;
    *t = (struct token){.kind = TOKEN_NIL};
    if (!take(rest, 1, &head)) {
        return false;
    }
    uint8_t first = head.data[0];
    if (first < 0x80) {
        t->kind = TOKEN_UINT;
        t->number = first;
        return true;
    }
    if (first < 0x90) {
        return set_count(t, TOKEN_MAP, first & 0x0fu, *rest);
    }
    if (first < 0xa0) {
        return set_count(t, TOKEN_ARRAY, first & 0x0fu, *rest);
    }
    if (first < FIRST_TABLED) {
        t->kind = TOKEN_STR;
        return take(rest, first & 0x1fu, &t->bytes);
    }
    if (first < FIRST_NEGATIVE) {
        return tabled_next(rest, first, t);
    }
    set_signed(t, first, 1);
    return true;
}
