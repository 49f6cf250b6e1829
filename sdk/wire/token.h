/* token: one msgpack value's head, taken off bytes that nobody has vouched for.
 *
 * The reader under pack.h and under the headers of a record. It is written here and not taken from
 * msgpack-c, whose unpacker builds a tree in a zone of its own: Ferry's decoders know what comes
 * next and want the value where it lies, with no allocation that a lying count could inflate.
 * Does no I/O and no allocation, keeps no state.
 *
 * Invariant: a token is given only when all its own bytes are there; an array's or map's count is
 * at most the bytes that follow (a value is one byte or more), so no count can ask for more work
 * than the bytes it came with. */
#ifndef FERRY_WIRE_TOKEN_H
#define FERRY_WIRE_TOKEN_H

#include "base/bytes.h"
#include "base/must.h"

enum token_kind {
    TOKEN_NIL,
    TOKEN_BOOL,
    TOKEN_UINT,  /* Not negative, whatever format it came in. */
    TOKEN_INT,   /* Negative. */
    TOKEN_FLOAT, /* Ferry has no use for its value. */
    TOKEN_STR,
    TOKEN_BIN,
    TOKEN_EXT, /* Nor for this one's. */
    TOKEN_ARRAY,
    TOKEN_MAP,
};

struct token {
    enum token_kind kind;
    uint64_t number;    /* BOOL, UINT; INT in two's complement. */
    struct bytes bytes; /* STR, BIN. */
    uint32_t values; /* That belong to it and follow: of an ARRAY its elements, of a MAP twice its
                        pairs, else 0. */
};

/* Takes the next token off `rest`. False, and `rest` in an unknown place, when it is malformed. */
MUST_CHECK bool token_next(struct bytes *rest, struct token *t);

#endif
