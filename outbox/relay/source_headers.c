#include "outbox/relay/source_headers.h"

#include "wire/batch.h"

#define NAME_MAX_BYTES 255u

struct headers {
    struct source_page *page;
    struct ferry_header list[SOURCE_HEADERS_MAX];
    size_t count;
    int64_t due_ms;
    const char *invalid;
    bool no_memory;
};

enum ferry_err source_row_invalid(struct source_page *page, struct source_row *row, const char *why)
{
    row->invalid = source_page_text(page, bytes_of_string(why));
    return row->invalid == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
}

/* Both texts are in the page already. The header that asks for a delay is not the message's: it is
 * obeyed. */
static bool add(struct headers *h, char *name, size_t name_bytes, char *value, size_t value_bytes)
{
    if (h->count == SOURCE_HEADERS_MAX || name_bytes < 1 || name_bytes > NAME_MAX_BYTES ||
        memchr(name, 0, name_bytes) != NULL) {
        h->invalid = "headers: more than 256, or a name not of 1 to 255 bytes";
        return false;
    }
    if (bytes_equal(bytes_of(name, name_bytes), bytes_of_string(SOURCE_HEADER_DUE))) {
        if (!source_due(bytes_of(value, value_bytes), &h->due_ms)) {
            h->invalid = "headers: " SOURCE_HEADER_DUE " is not Unix ms";
        }
        return h->invalid == NULL;
    }
    h->list[h->count++] = (struct ferry_header){name, value, value_bytes};
    return true;
}

static void from_map(struct headers *h, struct bytes map)
{
    if (batch_check_headers(map) != FERRY_OK) {
        h->invalid = "headers: neither a JSON object nor a msgpack map of strings";
        return;
    }
    size_t position = 0;
    struct bytes name;
    struct bytes value;
    bool going = true;
    while (going && batch_next_header(map, &position, &name, &value)) {
        char *name_copy = source_page_text(h->page, name);
        char *value_copy = source_page_text(h->page, value);
        h->no_memory = name_copy == NULL || value_copy == NULL;
        going = !h->no_memory && add(h, name_copy, name.size, value_copy, value.size);
    }
}

/* ---- JSON: one object, its values strings. */

struct json {
    const uint8_t *at, *end;
};

static void skip_blanks(struct json *j)
{
    while (j->at < j->end &&
           (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) {
        j->at++;
    }
}

static bool take(struct json *j, char c)
{
    skip_blanks(j);
    if (j->at == j->end || *j->at != (uint8_t)c) {
        return false;
    }
    j->at++;
    return true;
}

static bool take_hex4(struct json *j, uint32_t *v)
{
    *v = 0;
    if (j->end - j->at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        uint8_t c = *j->at++;
        uint32_t digit = 16;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)c - '0';
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            digit = ((uint32_t)c | 0x20) - 'a' + 10;
        }
        if (digit == 16) {
            return false;
        }
        *v = *v << 4 | digit;
    }
    return true;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* After "\u". A half of a pair alone is an error. */
static bool take_unicode(struct json *j, char **out)
{
    uint32_t c = 0;
    uint32_t low = 0;
    if (!take_hex4(j, &c) || (c >= 0xdc00 && c <= 0xdfff)) {
        return false;
    }
    if (c >= 0xd800 && c <= 0xdbff) {
        if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u') {
            return false;
        }
        j->at += 2;
        if (!take_hex4(j, &low) || low < 0xdc00 || low > 0xdfff) {
            return false;
        }
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    *out = put_utf8(*out, c);
    return true;
}

static bool take_escape(struct json *j, char **out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    if (j->at == j->end) {
        return false;
    }
    char c = (char)*j->at++;
    if (c == 'u') {
        return take_unicode(j, out);
    }
    const char *found = c == '\0' ? NULL : strchr(from, c);
    if (found == NULL) {
        return false;
    }
    *(*out)++ = to[found - from];
    return true;
}

/* The text, decoded into the page: it is never longer than what stands for it. */
static char *take_string(struct headers *h, struct json *j, size_t *bytes)
{
    if (!take(j, '"')) {
        return NULL;
    }
    const uint8_t *close = j->at;
    while (close < j->end && *close != '"') {
        close += *close == '\\' ? 2 : 1;
    }
    if (close >= j->end) {
        return NULL;
    }
    char *text = source_page_take(h->page, (size_t)(close - j->at) + 1);
    h->no_memory = text == NULL;
    char *out = text;
    while (out != NULL && j->at < close) {
        uint8_t c = *j->at++;
        if (c < 0x20 || (c == '\\' && !take_escape(j, &out))) {
            return NULL;
        }
        if (c != '\\') {
            *out++ = (char)c;
        }
    }
    if (out != NULL) {
        *out = '\0';
        *bytes = (size_t)(out - text);
        j->at = close + 1;
    }
    return text;
}

static bool take_pair(struct headers *h, struct json *j)
{
    size_t name_bytes = 0;
    size_t value_bytes = 0;
    char *name = take_string(h, j, &name_bytes);
    char *value = name != NULL && take(j, ':') ? take_string(h, j, &value_bytes) : NULL;
    return value != NULL && add(h, name, name_bytes, value, value_bytes);
}

static void from_json(struct headers *h, struct bytes text)
{
    struct json j = {text.data, text.data + text.size};
    bool good = take(&j, '{');
    if (good && !take(&j, '}')) {
        do {
            good = take_pair(h, &j);
        } while (good && take(&j, ','));
        good = good && take(&j, '}');
    }
    skip_blanks(&j);
    if (h->invalid == NULL && (!good || j.at != j.end)) {
        h->invalid = "headers: not a JSON object whose values are strings";
    }
}

enum ferry_err source_headers(struct source_page *page, struct source_row *row, struct bytes column)
{
    if (column.size == 0) {
        return FERRY_OK;
    }
    struct headers h;
    h.page = page;
    h.count = 0;
    h.due_ms = 0;
    h.invalid = NULL;
    h.no_memory = false;
    if (column.data[0] >= 0x80) {
        from_map(&h, column);
    } else {
        from_json(&h, column);
    }
    if (h.no_memory) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (h.invalid != NULL) {
        return source_row_invalid(page, row, h.invalid);
    }
    row->message.due_ms = h.due_ms;
    if (h.count == 0) {
        return FERRY_OK;
    }
    size_t bytes = h.count * sizeof(h.list[0]);
    struct ferry_header *headers = source_page_take(page, bytes);
    if (headers == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(headers, h.list, bytes);
    row->message.headers = headers;
    row->message.header_count = h.count;
    return FERRY_OK;
}
