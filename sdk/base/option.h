/* option: options by name, described by one table.
 *
 * A table row gives name, type, bounds, default, and the sentence a person reads; --help, --check,
 * conf/ and their test all come from it. Values land in a plain struct of the caller at `offset`.
 * Never allocates: text options are char arrays with a named size. One thread at a time. */
#ifndef FERRY_BASE_OPTION_H
#define FERRY_BASE_OPTION_H

#include "base/err.h"

enum option_type {
    OPTION_BOOL,  /* bool; true|false|yes|no|on|off|1|0 */
    OPTION_INT,   /* int64_t */
    OPTION_BYTES, /* int64_t; 4096, 64K, 1M, 2G (powers of 1024), also KiB MiB GiB */
    OPTION_MS,    /* int64_t milliseconds; 250, 250ms, 5s, 10m, 2h, 7d */
    OPTION_TEXT,  /* char[max + 1]: `max` is the longest length, `min` the shortest */
    OPTION_CHOICE /* int64_t: the place of the word in `choices`, counted from 0 */
};

struct option_row {
    const char *name; /* "section.key", as in the file and in --set. */
    enum option_type type;
    size_t offset;
    int64_t min, max;
    const char *initial; /* The default, in the words a file would use. */
    const char *choices; /* OPTION_CHOICE: "a|b|c"; otherwise NULL. */
    const char *text;    /* One sentence: what it does and when to change it. */
};

struct option_table {
    const struct option_row *rows;
    size_t count;
};

/* Fills `values` with the defaults. The table itself is ours: a bad default is a bug (must). */
void option_defaults(const struct option_table *t, void *values);
const struct option_row *option_find(const struct option_table *t, const char *name);
/* Errors: UNKNOWN_OPTION (the detail offers the nearest name), BAD_OPTION_VALUE (the detail gives
 * what is allowed). */
MUST_CHECK enum ferry_err option_set(const struct option_table *t, void *values, const char *name,
                                     const char *value, struct err_text *e);
/* What the row takes, for a person: "a whole number from 1 to 64". */
void option_describe_allowed(const struct option_row *row, char *text, size_t bytes);
/* The present value in the words a file would use. */
void option_format(const struct option_row *row, const void *values, char *text, size_t bytes);

#endif
