/* lines: a file descriptor, cut into lines.
 *
 * Bytes are handed out as they came, without the newline; the last line counts without one too. A
 * line longer than `line_bytes_max` is not cut: it is read past and told as too long. The buffer
 * grows to twice that limit and no further. Reading waits only in lines_fill(). */
#ifndef FERRY_CLI_LINES_H
#define FERRY_CLI_LINES_H

#include "base/bytes.h"
#include "base/err.h"

struct lines {
    int fd;                /* Borrowed. */
    size_t line_bytes_max; /* Longer lines are told as too long. */
    uint8_t *data;         /* Owned. */
    size_t capacity;
    size_t begin;    /* First byte not handed out. */
    size_t end;      /* One past the last byte read. */
    size_t searched; /* No newline before this place. */
    bool at_end;     /* The file has no more. */
    bool skipping;   /* Inside a line that is too long. */
    uint64_t number; /* Of the line handed out last, counted from 1. */
};

enum lines_next {
    LINES_LINE,     /* `line` holds one; it lives until the next call. */
    LINES_TOO_LONG, /* A line was passed over. */
    LINES_MORE,     /* Call lines_fill(). */
    LINES_END,
};

void lines_init(struct lines *l, int fd, size_t line_bytes_max);
void lines_fini(struct lines *l);
enum lines_next lines_next(struct lines *l, struct bytes *line);
/* Reads once. Errors: IO (errno says what), NO_MEMORY. An interrupted read is no error: nothing
 * came. */
MUST_CHECK enum ferry_err lines_fill(struct lines *l);

/* Calls back for each line to the end of the file; stops at the first error, also the callback's.
 * `too_long`: the error of a line that is. */
typedef enum ferry_err lines_cb(struct bytes line, void *arg);
MUST_CHECK enum ferry_err lines_each(struct lines *l, enum ferry_err too_long, lines_cb *callback,
                                     void *arg);

#endif
