#include "cli/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/id.h"
#include "base/mem.h"
#include "cli/format.h"

#define BUFFER_BYTES (1u << 20)

void output_init(void)
{
    json_set_alloc_funcs(mem_alloc, mem_free);
    /* With NULL the C library owns the buffer; a refusal leaves the default one. */
    setvbuf(stdout, NULL, _IOFBF, BUFFER_BYTES);
}

bool output_flush(void)
{
    return fflush(stdout) == 0 && !ferror(stdout);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

json_t *output_object(void)
{
    return json_object();
}

void output_set(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}

void output_set_text(json_t *object, const char *name, const char *text)
{
    json_t *value = text != NULL ? json_string(text) : json_null();
    if (value == NULL) { /* Not UTF-8: a path, say. */
        output_set_bytes(object, name, text, strlen(text));
        return;
    }
    output_set(object, name, value);
}

void output_set_int(json_t *object, const char *name, int64_t n)
{
    output_set(object, name, json_integer(n));
}

void output_set_real(json_t *object, const char *name, double n)
{
    output_set(object, name, json_real(n));
}

void output_set_bool(json_t *object, const char *name, bool b)
{
    output_set(object, name, json_boolean(b));
}

static void set_base64(json_t *object, const char *name, const void *data, size_t bytes)
{
    char field[OUTPUT_CELL_MAX];
    char *text = mem_alloc(format_base64_bytes(bytes));
    if (text == NULL) {
        return;
    }
    format_base64(data, bytes, text);
    snprintf(field, sizeof(field), "%s_base64", name);
    output_set(object, field, json_string(text));
    mem_free(text);
}

void output_set_bytes(json_t *object, const char *name, const void *data, size_t bytes)
{
    json_t *text = data != NULL ? json_stringn(data, bytes) : json_null();
    if (text != NULL) {
        output_set(object, name, text);
    } else {
        set_base64(object, name, data, bytes);
    }
}

void output_set_id(json_t *object, const char *name, const struct ferry_id *id)
{
    static const struct ferry_id zero;
    char text[FERRY_ID_TEXT_BYTES];
    if (memcmp(id, &zero, sizeof(zero)) == 0) {
        output_set(object, name, json_null());
        return;
    }
    id_format(id, text);
    output_set_text(object, name, text);
}

bool output_json(json_t *object)
{
    enum { DIGITS = 9 };
    bool printed = object != NULL &&
                   json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) == 0 &&
                   putc('\n', stdout) != EOF;
    json_decref(object);
    return printed;
}

void output_names(const char *what, char *const *names, size_t count, bool json)
{
    json_t *array = json ? json_array() : NULL;
    for (size_t i = 0; i < count; i++) {
        if (json) {
            json_array_append_new(array, json_string(names[i]));
        } else {
            puts(names[i]);
        }
    }
    if (json) {
        json_t *object = output_object();
        output_set(object, what, array);
        output_json(object);
    }
}

/* ---- Tables --------------------------------------------------------------------------------- */

/* A new cell; NULL when memory is out. */
static char *new_cell(struct output_table *t)
{
    if (t->failed || !mem_grow((void **)&t->cells, &t->capacity, t->count + 1, OUTPUT_CELL_MAX)) {
        t->failed = true;
        return NULL;
    }
    return t->cells[t->count++];
}

void output_table_init(struct output_table *t, const char *headings)
{
    *t = (struct output_table){0};
    while (headings != NULL) {
        must(t->columns < OUTPUT_COLUMNS_MAX);
        const char *end = strchr(headings, '|');
        t->right[t->columns] = headings[0] == '>';
        headings += headings[0] == '>';
        int length = (int)(end != NULL ? (size_t)(end - headings) : strlen(headings));
        output_table_cell(t, "%.*s", length, headings);
        t->columns++;
        headings = end != NULL ? end + 1 : NULL;
    }
}

void output_table_fini(struct output_table *t)
{
    mem_free(t->cells);
    *t = (struct output_table){0};
}

void output_table_cell(struct output_table *t, const char *format, ...)
{
    char *cell = new_cell(t);
    if (cell != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(cell, OUTPUT_CELL_MAX, format, args);
        va_end(args);
    }
}

void output_table_count(struct output_table *t, int64_t n)
{
    char text[FORMAT_TEXT_BYTES];
    format_count(n, text);
    output_table_cell(t, "%s", text);
}

static void measure(const struct output_table *t, int widths[OUTPUT_COLUMNS_MAX])
{
    memset(widths, 0, OUTPUT_COLUMNS_MAX * sizeof(widths[0]));
    for (size_t i = 0; i < t->count; i++) {
        int width = (int)strlen(t->cells[i]);
        int *widest = &widths[i % t->columns];
        *widest = width > *widest ? width : *widest;
    }
}

void output_table_print(const struct output_table *t)
{
    int widths[OUTPUT_COLUMNS_MAX];
    measure(t, widths);
    for (size_t i = 0; i < t->count; i++) {
        size_t column = i % t->columns;
        bool last = column + 1 == t->columns || i + 1 == t->count;
        int width = t->right[column] ? widths[column] : -widths[column];
        if (last && (!t->right[column] || t->cells[i][0] == '\0')) {
            width = 0; /* No blanks at the end of a line. */
        }
        printf("%*s%s", width, t->cells[i], last ? "\n" : "  ");
    }
    if (t->failed) {
        puts("(out of memory: the rest is not shown)");
    }
}

/* ---- Progress ------------------------------------------------------------------------------- */

#define PROGRESS_EVERY_US 200000
#define PROGRESS_WIDTH    30

void output_progress_init(struct output_progress *p, bool wanted)
{
    *p = (struct output_progress){.on = wanted && isatty(STDERR_FILENO)};
}

void output_progress_show(struct output_progress *p, int64_t now_us, double part, const char *text)
{
    static const char full[] = "##############################";
    static const char none[] = "..............................";
    if (!p->on || now_us < p->next_us) {
        return;
    }
    p->next_us = now_us + PROGRESS_EVERY_US;
    p->drawn = true;
    if (part < 0) {
        fprintf(stderr, "\r\033[K%s", text);
        return;
    }
    int filled = (int)((part > 1 ? 1 : part) * PROGRESS_WIDTH);
    fprintf(stderr, "\r\033[K[%.*s%.*s] %3d %%  %s", filled, full, PROGRESS_WIDTH - filled, none,
            filled * 100 / PROGRESS_WIDTH, text);
}

void output_progress_clear(struct output_progress *p)
{
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        p->drawn = false;
    }
}
