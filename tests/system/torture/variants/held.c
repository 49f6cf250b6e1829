#include "held.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *copy(const void *data, size_t bytes)
{
    void *made = malloc(bytes + 1);
    if (made == NULL) {
        abort();
    }
    if (bytes > 0) {
        memcpy(made, data, bytes);
    }
    return made;
}

static void copy_headers(struct ferry_message *m)
{
    struct ferry_header *headers = copy(m->headers, m->header_count * sizeof(*headers));
    for (size_t i = 0; i < m->header_count; i++) {
        headers[i].name = copy(headers[i].name, strlen(headers[i].name) + 1);
        headers[i].value = copy(headers[i].value, headers[i].value_bytes);
    }
    m->headers = headers;
}

struct held *held_new(struct ferry_source *source, const char *topic, int32_t partition,
                      uint64_t expect_version, const void *cursor, size_t cursor_bytes,
                      const struct ferry_message *messages, size_t count, ferry_append_cb *callback,
                      void *arg)
{
    struct held h = {.source = source,
                     .partition = partition,
                     .expect_version = expect_version,
                     .cursor = copy(cursor, cursor_bytes),
                     .cursor_bytes = cursor_bytes,
                     .messages = copy(messages, count * sizeof(*messages)),
                     .count = count,
                     .callback = callback,
                     .arg = arg};
    (void)snprintf(h.topic, sizeof(h.topic), "%s", topic);
    for (size_t i = 0; i < count; i++) {
        struct ferry_message *m = &h.messages[i];
        m->key = m->key == NULL ? NULL : copy(m->key, m->key_bytes);
        m->payload = copy(m->payload, m->payload_bytes);
        copy_headers(m);
    }
    return copy(&h, sizeof(h));
}

static void drop(const void *data)
{
    free((void *)(uintptr_t)data);
}

void held_free(struct held *h)
{
    for (size_t i = 0; i < h->count; i++) {
        struct ferry_message *m = &h->messages[i];
        for (size_t k = 0; k < m->header_count; k++) {
            drop(m->headers[k].name);
            drop(m->headers[k].value);
        }
        drop(m->headers);
        drop(m->key);
        drop(m->payload);
    }
    free(h->messages);
    free(h->cursor);
    free(h);
}

void held_report_ok(const struct held *h)
{
    const struct ferry_append_result ok = {
        .refused_index = SIZE_MAX, .version = h->expect_version + 1, .detail = ""};
    h->callback(&ok, h->arg);
}
