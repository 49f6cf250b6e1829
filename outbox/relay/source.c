#include "outbox/relay/source.h"

#include <string.h>

#include "base/mem.h"

#define CHUNK_BYTES (256u << 10)
#define CHUNK_ALIGN 16u
#define DUE_DIGITS  15u /* Of Unix ms: 33,658 years. */

struct source_chunk {
    struct source_chunk *next;
    size_t size, used;
    _Alignas(CHUNK_ALIGN) uint8_t data[];
};

void source_page_init(struct source_page *p)
{
    *p = (struct source_page){0};
}

static void free_chunks(struct source_chunk *chunk)
{
    while (chunk != NULL) {
        struct source_chunk *next = chunk->next;
        mem_free(chunk);
        chunk = next;
    }
}

void source_page_fini(struct source_page *p)
{
    free_chunks(p->chunks);
    free_chunks(p->spare);
    mem_free(p->rows);
    source_page_init(p);
}

void source_page_clear(struct source_page *p)
{
    while (p->chunks != NULL) {
        struct source_chunk *chunk = p->chunks;
        p->chunks = chunk->next;
        if (chunk->size > CHUNK_BYTES) {
            mem_free(chunk); /* One large row does not stay in memory for ever. */
            continue;
        }
        chunk->used = 0;
        chunk->next = p->spare;
        p->spare = chunk;
    }
    p->count = 0;
    p->bytes = 0;
}

struct source_row *source_page_add(struct source_page *p)
{
    if (!mem_grow((void **)&p->rows, &p->capacity, p->count + 1, sizeof(*p->rows))) {
        return NULL;
    }
    struct source_row *row = &p->rows[p->count++];
    *row = (struct source_row){0};
    return row;
}

static struct source_chunk *chunk_for(struct source_page *p, size_t bytes)
{
    struct source_chunk *chunk = p->spare;
    if (bytes <= CHUNK_BYTES && chunk != NULL) {
        p->spare = chunk->next;
    } else {
        size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        chunk = mem_alloc(sizeof(*chunk) + size);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->size = size;
        chunk->used = 0;
    }
    chunk->next = p->chunks;
    p->chunks = chunk;
    return chunk;
}

void *source_page_take(struct source_page *p, size_t bytes)
{
    must(bytes <= SIZE_MAX / 2);
    size_t need = (bytes + CHUNK_ALIGN - 1) / CHUNK_ALIGN * CHUNK_ALIGN;
    struct source_chunk *chunk = p->chunks;
    if (chunk == NULL || chunk->size - chunk->used < need) {
        chunk = chunk_for(p, need);
        if (chunk == NULL) {
            return NULL;
        }
    }
    void *at = chunk->data + chunk->used;
    chunk->used += need;
    p->bytes += need;
    return at;
}

char *source_page_text(struct source_page *p, struct bytes text)
{
    char *copy = source_page_take(p, text.size + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (text.size > 0) {
        memcpy(copy, text.data, text.size);
    }
    copy[text.size] = '\0';
    return copy;
}

bool source_due(struct bytes value, int64_t *due_ms)
{
    int64_t ms = 0;
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9' || i == DUE_DIGITS) {
            return false;
        }
        ms = ms * 10 + (value.data[i] - '0');
    }
    *due_ms = ms;
    return ms > 0;
}

void source_close(struct source *source)
{
    if (source->ops != NULL) {
        source->ops->close(source->driver);
    }
    *source = (struct source){0};
}

enum ferry_err source_verify(const struct source *source, bool *same, struct err_text *e)
{
    *same = true;
    return source->ops->verify == NULL ? FERRY_OK : source->ops->verify(source->driver, same, e);
}

enum ferry_err source_tidy(const struct source *source, const struct source_progress *progress,
                           size_t *removed, bool *again, struct err_text *e)
{
    *removed = 0;
    *again = false;
    return source->ops->tidy == NULL
               ? FERRY_OK
               : source->ops->tidy(source->driver, progress, removed, again, e);
}

bool source_wants_lane(const struct source *source, uint32_t *lane)
{
    return source->ops->wants_lane != NULL && source->ops->wants_lane(source->driver, lane);
}

enum ferry_err source_fetch(const struct source *source, struct source_page *page, bool *there,
                            struct err_text *e)
{
    must(page->count == 1);
    *there = true;
    return source->ops->fetch == NULL ? FERRY_OK
                                      : source->ops->fetch(source->driver, page, there, e);
}

enum ferry_err source_decided(const struct source *source, int64_t number, bool *decided,
                              struct err_text *e)
{
    *decided = false;
    return source->ops->decided == NULL ? FERRY_OK
                                        : source->ops->decided(source->driver, number, decided, e);
}

enum ferry_err source_parked(const struct source *source, source_parked_cb *callback, void *arg,
                             struct err_text *e)
{
    return source->ops->parked == NULL ? FERRY_OK
                                       : source->ops->parked(source->driver, callback, arg, e);
}

enum ferry_err source_paused(const struct source *source, bool *paused, struct err_text *e)
{
    *paused = false;
    return source->ops->paused == NULL ? FERRY_OK : source->ops->paused(source->driver, paused, e);
}

enum ferry_err source_figures(const struct source *source, int64_t settled,
                              struct source_figures *figures, struct err_text *e)
{
    *figures = (struct source_figures){0};
    return source->ops->figures == NULL ? FERRY_OK
                                        : source->ops->figures(source->driver, settled, figures, e);
}

int source_wake_fd(const struct source *source)
{
    return source->ops->wake_fd == NULL ? -1 : source->ops->wake_fd(source->driver);
}

void source_wake_drain(const struct source *source)
{
    if (source->ops->wake_drain != NULL) {
        source->ops->wake_drain(source->driver);
    }
}

void source_leave_word(const struct source *source, const struct source_word *word)
{
    if (source->ops->leave_word != NULL) {
        source->ops->leave_word(source->driver, word);
    }
}

void source_place(const struct source *source, char text[SOURCE_PLACE_MAX + 1])
{
    text[0] = '\0';
    if (source->ops->place != NULL) {
        source->ops->place(source->driver, text, SOURCE_PLACE_MAX + 1);
    }
}

static const char *words_after(const char *name, const char *detail)
{
    size_t bytes = strlen(name);
    bool named = bytes > 0 && strncmp(detail, name, bytes) == 0;
    return named && strncmp(detail + bytes, ": ", 2) == 0 ? detail + bytes + 2 : NULL;
}

const char *source_words(const char *name, const char *detail)
{
    const char *path = strchr(name, ':');
    const char *words = words_after(name, detail);
    if (words == NULL && path != NULL) {
        words = words_after(path + 1, detail);
    }
    return words == NULL ? detail : words;
}
