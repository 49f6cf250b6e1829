/* Rows of a binary result, into a page. */
#include <stdlib.h>

#include "outbox/postgresql/source_postgresql.h"
#include "wire/batch.h"

enum column { SEQ, XID, TLI, CREATED, MSG_ID, TOPIC, KEY, HEADERS, HEADERS_JSON, PAYLOAD };

#define JSON_ARRAY_HEADER_BYTES 20u /* Dimensions, flags, type; length and lower bound of one. */
/* More than any page: the server counted the whole payload, and may have ended the page there. */
#define UNFETCHED_BYTES (INT64_C(1) << 40)
#define DUE_DIGITS_MAX  18u

static enum ferry_err row_invalid(struct source_page *page, struct source_row *row, const char *why)
{
    row->invalid = source_page_text(page, bytes_of_string(why));
    return row->invalid == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
}

static bool due_of(struct bytes value, int64_t *due_ms)
{
    int64_t v = 0;
    if (value.size == 0 || value.size > DUE_DIGITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return false;
        }
        v = v * 10 + (value.data[i] - '0');
    }
    *due_ms = v;
    return true;
}

/* One header, or why it is none. */
static enum ferry_err add_header(struct source_pg *d, struct source_page *page,
                                 struct source_row *row, struct bytes name, struct bytes value)
{
    size_t *count = &row->message.header_count;
    if (*count == SOURCE_HEADERS_MAX || name.size < 1 || name.size > 255 ||
        memchr(name.data, 0, name.size) != NULL) {
        return row_invalid(page, row, "headers: more than 256, or a name not of 1 to 255 bytes");
    }
    if (bytes_equal(name, bytes_of_string(SOURCE_HEADER_DUE))) {
        return due_of(value, &row->message.due_ms)
                   ? FERRY_OK
                   : row_invalid(page, row, "headers: " SOURCE_HEADER_DUE " is not Unix ms");
    }
    char *copy = source_page_take(page, name.size + 1 + value.size);
    if (copy == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(copy, name.data, name.size);
    copy[name.size] = '\0';
    if (value.size > 0) {
        memcpy(copy + name.size + 1, value.data, value.size);
    }
    d->headers[(*count)++] = (struct ferry_header){copy, copy + name.size + 1, value.size};
    return FERRY_OK;
}

static enum ferry_err headers_from_map(struct source_pg *d, struct source_page *page,
                                       struct source_row *row, struct bytes map)
{
    if (batch_check_headers(map) != FERRY_OK) {
        return row_invalid(page, row, "headers: the bytea is not a msgpack map of strings");
    }
    size_t position = 0;
    struct bytes name;
    struct bytes value;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && row->invalid == NULL &&
           batch_next_header(map, &position, &name, &value)) {
        err = add_header(d, page, row, name, value);
    }
    return err;
}

/* An element of a text array; *size -1: NULL. False: the bytes end. */
static bool array_next(struct bytes *in, struct bytes *value, bool *is_null)
{
    if (in->size < 4) {
        return false;
    }
    uint32_t size = get_be32(in->data);
    *is_null = size == UINT32_MAX;
    size = *is_null ? 0 : size;
    if (size > in->size - 4) {
        return false;
    }
    *value = bytes_of(in->data + 4, size);
    *in = bytes_of(in->data + 4 + size, in->size - 4 - size);
    return true;
}

static enum ferry_err headers_from_json(struct source_pg *d, struct source_page *page,
                                        struct source_row *row, struct bytes array)
{
    if (array.size < JSON_ARRAY_HEADER_BYTES) {
        return FERRY_OK; /* An empty array has no dimensions. */
    }
    struct bytes in =
        bytes_of(array.data + JSON_ARRAY_HEADER_BYTES, array.size - JSON_ARRAY_HEADER_BYTES);
    struct bytes name;
    struct bytes value;
    bool name_is_null = false;
    bool value_is_null = false;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && row->invalid == NULL && array_next(&in, &name, &name_is_null) &&
           array_next(&in, &value, &value_is_null)) {
        err = value_is_null
                  ? row_invalid(page, row, "headers: the JSON object has a value that is no string")
                  : add_header(d, page, row, name, value);
    }
    return err;
}

static enum ferry_err row_headers(struct source_pg *d, struct source_page *page,
                                  struct source_row *row, const PGresult *r, int at)
{
    enum ferry_err err = FERRY_OK;
    struct bytes map = pg_value(r, at, HEADERS);
    if (map.size > 0) {
        err = headers_from_map(d, page, row, map);
    } else if (PQgetisnull(r, at, HEADERS_JSON) == 0) {
        err = headers_from_json(d, page, row, pg_value(r, at, HEADERS_JSON));
    }
    size_t bytes = row->message.header_count * sizeof(struct ferry_header);
    if (err != FERRY_OK || bytes == 0) {
        return err;
    }
    struct ferry_header *headers = source_page_take(page, bytes);
    if (headers == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(headers, d->headers, bytes);
    row->message.headers = headers;
    return FERRY_OK;
}

/* Rows next to each other mostly have one topic: its name is kept once. */
static const char *row_topic(struct source_page *page, struct bytes topic)
{
    if (page->count >= 2) {
        const char *before = page->rows[page->count - 2].message.topic;
        if (before != NULL && strlen(before) == topic.size &&
            memcmp(before, topic.data, topic.size) == 0) {
            return before;
        }
    }
    return source_page_text(page, topic);
}

static enum ferry_err row_key_and_payload(struct source_page *page, struct source_row *row,
                                          const PGresult *r, int at)
{
    struct bytes key = pg_value(r, at, KEY);
    struct bytes payload = pg_value(r, at, PAYLOAD);
    char *memory = source_page_take(page, key.size + payload.size + 1);
    if (memory == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (key.size > 0) {
        memcpy(memory, key.data, key.size);
    }
    if (payload.size > 0) {
        memcpy(memory + key.size, payload.data, payload.size);
    }
    row->message.key = PQgetisnull(r, at, KEY) == 0 ? memory : NULL;
    row->message.key_bytes = key.size;
    row->message.payload = memory + key.size;
    row->message.payload_bytes = payload.size;
    return FERRY_OK;
}

static enum ferry_err add_row(struct source_pg *d, struct source_page *page, const PGresult *r,
                              int at)
{
    struct source_row *row = source_page_add(page);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    row->number = pg_int(r, at, SEQ);
    row->transaction = (uint64_t)pg_int(r, at, XID);
    row->era = (uint32_t)pg_int(r, at, TLI);
    row->message.partition = FERRY_PARTITION_ANY;
    row->message.timestamp_ms = pg_int(r, at, CREATED);
    row->message.topic = row_topic(page, pg_value(r, at, TOPIC));
    if (row->message.topic == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct bytes id = pg_value(r, at, MSG_ID);
    if (id.size == sizeof(row->message.id.bytes)) {
        memcpy(row->message.id.bytes, id.data, id.size);
    }
    size_t bytes = pg_value(r, at, KEY).size + pg_value(r, at, HEADERS).size +
                   pg_value(r, at, HEADERS_JSON).size + pg_value(r, at, PAYLOAD).size;
    if (bytes > SOURCE_ROW_MAX_BYTES || PQgetisnull(r, at, PAYLOAD) == 1) {
        return row_invalid(page, row, "the message is larger than any batch");
    }
    enum ferry_err err = row_headers(d, page, row, r, at);
    return err == FERRY_OK ? row_key_and_payload(page, row, r, at) : err;
}

enum ferry_err source_pg_rows(struct source_pg *d, const PGresult *r, struct source_page *page,
                              int64_t *bytes)
{
    enum ferry_err err = FERRY_OK;
    *bytes = 0;
    for (int at = 0; err == FERRY_OK && at < PQntuples(r); at++) {
        err = add_row(d, page, r, at);
        *bytes += PQgetisnull(r, at, PAYLOAD) == 1 ? UNFETCHED_BYTES : PQgetlength(r, at, PAYLOAD);
        *bytes += PQgetlength(r, at, HEADERS);
    }
    return err;
}
