/* output: everything that commands print: tables, JSON, the progress bar.
 *
 * Standard output holds results only: text for people, or with --json nothing but JSON, one object
 * a line. Standard error holds errors, summaries and progress. Standard output is buffered in one
 * large block; output_flush() decides when it leaves. JSON objects are built by jansson: a value
 * that could not be built (memory) makes its object a missing one, which output_json() counts as a
 * failed write. One thread at a time. */
#ifndef FERRY_CLI_OUTPUT_H
#define FERRY_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Gives standard output its buffer and jansson our allocator. Call first. */
void output_init(void);
/* Writes what is buffered. False when that failed, now or before, with errno of now. */
bool output_flush(void);

/* ---- JSON. Setters accept a NULL object; a value of NULL becomes null. ---- */
json_t *output_object(void);
void output_set(json_t *object, const char *name, json_t *value); /* Takes `value`. */
void output_set_text(json_t *object, const char *name, const char *text);
void output_set_int(json_t *object, const char *name, int64_t n);
void output_set_real(json_t *object, const char *name, double n);
void output_set_bool(json_t *object, const char *name, bool b);
/* `name` holds the text where the bytes are UTF-8, else `name`_base64 holds them encoded. NULL data
 * becomes null. */
void output_set_bytes(json_t *object, const char *name, const void *data, size_t bytes);
void output_set_id(json_t *object, const char *name, const struct ferry_id *id); /* Zero: null. */
/* Prints the object on a line of its own and frees it. False when it could not be printed. */
bool output_json(json_t *object);

/* A list of names: one a line, or {"<what>":[…]}. */
void output_names(const char *what, char *const *names, size_t count, bool json);

/* ---- Tables for people: columns as wide as their widest cell, numbers to the right. ---- */
#define OUTPUT_COLUMNS_MAX 10
#define OUTPUT_CELL_MAX    64

struct output_table {
    size_t columns;
    bool right[OUTPUT_COLUMNS_MAX]; /* Aligned to the right. */
    char (*cells)[OUTPUT_CELL_MAX]; /* Row by row, the first row the headings. Owned. */
    size_t count;                   /* Cells in use. */
    size_t capacity;
    bool failed; /* Memory ran out: the table is printed up to there, with a note. */
};

/* `headings` are parted by '|'; one that begins with '>' makes its column right-aligned. */
void output_table_init(struct output_table *t, const char *headings);
void output_table_fini(struct output_table *t);
void output_table_cell(struct output_table *t, const char *format, ...) PRINTF(2, 3);
void output_table_count(struct output_table *t, int64_t n); /* With thousands separators. */
void output_table_print(const struct output_table *t);

/* ---- Progress: a bar on standard error, when that is a terminal. ---- */
struct output_progress {
    bool on;
    bool drawn;
    int64_t next_us; /* When it is drawn next. */
};

void output_progress_init(struct output_progress *p, bool wanted);
/* `part` is 0 to 1, or negative when the end is not known; `text` stands beside the bar. */
void output_progress_show(struct output_progress *p, int64_t now_us, double part, const char *text);
void output_progress_clear(struct output_progress *p);

#endif
