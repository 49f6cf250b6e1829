#include "cli/lines.h"

#include <errno.h>
#include <unistd.h>

#include "base/mem.h"

#define READ_BYTES (256u << 10)

void lines_init(struct lines *l, int fd, size_t line_bytes_max)
{
    *l = (struct lines){.fd = fd, .line_bytes_max = line_bytes_max};
}

void lines_fini(struct lines *l)
{
    mem_free(l->data);
    *l = (struct lines){.fd = -1};
}

/* Hands out the `bytes` at `begin`, followed by `newline` bytes (0 or 1) that are dropped. */
static enum lines_next take(struct lines *l, size_t bytes, size_t newline, struct bytes *line)
{
    bool too_long = l->skipping || bytes > l->line_bytes_max;
    *line = bytes_of(l->data + l->begin, bytes);
    l->begin += bytes + newline;
    l->searched = l->begin;
    l->skipping = false;
    l->number++;
    return too_long ? LINES_TOO_LONG : LINES_LINE;
}

enum lines_next lines_next(struct lines *l, struct bytes *line)
{
    if (l->searched < l->end) {
        const uint8_t *newline = memchr(l->data + l->searched, '\n', l->end - l->searched);
        if (newline != NULL) {
            return take(l, (size_t)(newline - l->data) - l->begin, 1, line);
        }
        l->searched = l->end;
    }
    size_t held = l->end - l->begin;
    if (l->at_end) {
        return held > 0 || l->skipping ? take(l, held, 0, line) : LINES_END;
    }
    if (held > l->line_bytes_max) {
        /* Too long already: forget what is there and look for its end. */
        l->skipping = true;
        l->begin = l->end;
    }
    return LINES_MORE;
}

/* Room for one read, at `end`. */
static bool make_room(struct lines *l)
{
    size_t held = l->end - l->begin;
    if (l->begin > 0) {
        memmove(l->data, l->data + l->begin, held);
        l->searched -= l->begin;
        l->begin = 0;
        l->end = held;
    }
    return mem_grow((void **)&l->data, &l->capacity, held + READ_BYTES, 1);
}

enum ferry_err lines_fill(struct lines *l)
{
    must(!l->at_end);
    if (!make_room(l)) {
        return FERRY_ERR_NO_MEMORY;
    }
    ssize_t n = read(l->fd, l->data + l->end, l->capacity - l->end);
    if (n < 0) {
        return errno == EINTR || errno == EAGAIN ? FERRY_OK : FERRY_ERR_IO;
    }
    l->at_end = n == 0;
    l->end += (size_t)n;
    return FERRY_OK;
}

enum ferry_err lines_each(struct lines *l, enum ferry_err too_long, lines_cb *callback, void *arg)
{
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK) {
        struct bytes line;
        switch (lines_next(l, &line)) {
        case LINES_LINE:
            err = callback(line, arg);
            break;
        case LINES_TOO_LONG:
            err = too_long;
            break;
        case LINES_MORE:
            err = lines_fill(l);
            break;
        case LINES_END:
            return FERRY_OK;
        }
    }
    return err;
}
