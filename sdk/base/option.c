#include "base/option.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/must.h"

#define NAME_MAX_BYTES     64  /* Longest option name; longer ones from outside are unknown. */
#define SHOWN_VALUE_MAX    80  /* Of a refused value, how much a message repeats. */
#define ALLOWED_TEXT_BYTES 256 /* "from 4K to 2G", or the words of a choice. */

struct unit {
    const char *suffix;
    int64_t factor;
};

/* The first of each factor is what option_format writes; in rising order. */
static const struct unit byte_units[] = {
    {"", 1},
    {"K", INT64_C(1) << 10},
    {"KiB", INT64_C(1) << 10},
    {"M", INT64_C(1) << 20},
    {"MiB", INT64_C(1) << 20},
    {"G", INT64_C(1) << 30},
    {"GiB", INT64_C(1) << 30},
};
static const struct unit ms_units[] = {
    {"ms", 1}, {"", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000},
};
static const struct unit int_units[] = {{"", 1}};

struct unit_list {
    const struct unit *units;
    size_t count;
};

#define UNIT_LIST(array) ((struct unit_list){(array), sizeof(array) / sizeof((array)[0])})

static struct unit_list units_of(enum option_type type)
{
    switch (type) {
    case OPTION_BYTES:
        return UNIT_LIST(byte_units);
    case OPTION_MS:
        return UNIT_LIST(ms_units);
    default:
        return UNIT_LIST(int_units);
    }
}

/* ---- Values to and from text ---------------------------------------------------------------- */

/* The digits at the start of `text`, negative when it starts with '-'; NULL when there are none or
 * they do not fit. Returns what follows them. */
static const char *parse_digits(const char *text, int64_t *number)
{
    bool negative = *text == '-';
    text += negative ? 1 : 0;
    if (*text < '0' || *text > '9') {
        return NULL;
    }
    int64_t total = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(total, 10, &total) ||
            __builtin_add_overflow(total, *text - '0', &total)) {
            return NULL;
        }
    }
    *number = negative ? -total : total;
    return text;
}

static bool parse_number(enum option_type type, const char *text, int64_t *number)
{
    int64_t digits;
    const char *suffix = parse_digits(text, &digits);
    if (suffix == NULL) {
        return false;
    }
    struct unit_list list = units_of(type);
    for (size_t i = 0; i < list.count; i++) {
        if (strcmp(suffix, list.units[i].suffix) == 0) {
            return !__builtin_mul_overflow(digits, list.units[i].factor, number);
        }
    }
    return false;
}

static void format_number(enum option_type type, int64_t number, char *text, size_t bytes)
{
    struct unit_list list = units_of(type);
    const struct unit *best = &list.units[0];
    for (size_t i = 0; i < list.count; i++) {
        const struct unit *u = &list.units[i];
        if (u->factor > best->factor && number % u->factor == 0) {
            best = u;
        }
    }
    /* 0 and the negative special values ("-1: no limit") read best without a unit. */
    bool bare = number <= 0;
    (void)snprintf(text, bytes, "%" PRId64 "%s", bare ? number : number / best->factor,
                   bare ? "" : best->suffix);
}

/* The place of `word` in "a|b|c"; -1 when it is not there. */
static int64_t find_choice(const char *choices, const char *word)
{
    size_t length = strlen(word);
    int64_t place = 0;
    for (const char *at = choices; at != NULL; place++) {
        size_t size = strcspn(at, "|");
        if (size == length && memcmp(at, word, size) == 0) {
            return place;
        }
        at = at[size] == '|' ? at + size + 1 : NULL;
    }
    return -1;
}

static bool parse_bool(const char *text, bool *value)
{
    int64_t place = find_choice("false|true|no|yes|off|on|0|1", text);
    *value = place % 2 == 1;
    return place >= 0;
}

static bool has_control_bytes(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

static bool text_fits(const struct option_row *row, const char *text)
{
    int64_t length = (int64_t)strlen(text);
    return length >= row->min && length <= row->max && !has_control_bytes(text);
}

static bool store_number(const struct option_row *row, char *at, const char *text)
{
    int64_t number;
    if (!parse_number(row->type, text, &number) || number < row->min || number > row->max) {
        return false;
    }
    memcpy(at, &number, sizeof(number));
    return true;
}

/* False, and nothing stored, when the row does not take the text. */
static bool store_value(const struct option_row *row, void *values, const char *text)
{
    char *at = (char *)values + row->offset;
    bool flag;
    int64_t place;
    switch (row->type) {
    case OPTION_BOOL:
        if (!parse_bool(text, &flag)) {
            return false;
        }
        memcpy(at, &flag, sizeof(flag));
        return true;
    case OPTION_TEXT:
        if (!text_fits(row, text)) {
            return false;
        }
        memcpy(at, text, strlen(text) + 1);
        return true;
    case OPTION_CHOICE:
        place = find_choice(row->choices, text);
        if (place < 0) {
            return false;
        }
        memcpy(at, &place, sizeof(place));
        return true;
    case OPTION_INT:
    case OPTION_BYTES:
    case OPTION_MS:
        return store_number(row, at, text);
    }
    return false;
}

/* ---- What a person is told ------------------------------------------------------------------ */

static void describe_range(const struct option_row *row, const char *kind, char *out, size_t bytes)
{
    char low[32];
    char high[32];
    format_number(row->type, row->min, low, sizeof(low));
    format_number(row->type, row->max, high, sizeof(high));
    if (row->max == INT64_MAX) {
        (void)snprintf(out, bytes, "%s, at least %s", kind, low);
    } else {
        (void)snprintf(out, bytes, "%s from %s to %s", kind, low, high);
    }
}

void option_describe_allowed(const struct option_row *row, char *text, size_t bytes)
{
    switch (row->type) {
    case OPTION_BOOL:
        (void)snprintf(text, bytes, "true or false");
        break;
    case OPTION_INT:
        describe_range(row, "a whole number", text, bytes);
        break;
    case OPTION_BYTES:
        describe_range(row, "a size (bytes, or with K, M or G)", text, bytes);
        break;
    case OPTION_MS:
        describe_range(row, "a time (with ms, s, m, h or d)", text, bytes);
        break;
    case OPTION_TEXT:
        (void)snprintf(text, bytes,
                       "text of %" PRId64 " to %" PRId64 " bytes without control characters",
                       row->min, row->max);
        break;
    case OPTION_CHOICE:
        (void)snprintf(text, bytes, "one of %s", row->choices);
        break;
    }
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, both texts of at most NAME_MAX_BYTES. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t b_length = strlen(b);
    size_t row[NAME_MAX_BYTES + 1];
    must(b_length <= NAME_MAX_BYTES);
    for (size_t j = 0; j <= b_length; j++) {
        row[j] = j;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_length; j++) {
            size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = least(replaced, least(row[j], row[j + 1]) + 1);
        }
    }
    return row[b_length];
}

/* The option whose name is most like `name`; NULL when none is like enough to be meant: at most a
 * third of the letters differ. */
static const char *nearest_name(const struct option_table *t, const char *name)
{
    size_t length = strlen(name);
    size_t best = length / 3 + 1;
    const char *nearest = NULL;
    if (length > NAME_MAX_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i < t->count; i++) {
        size_t distance = edit_distance(name, t->rows[i].name);
        if (distance < best) {
            best = distance;
            nearest = t->rows[i].name;
        }
    }
    return nearest;
}

static enum ferry_err refuse_name(const struct option_table *t, const char *name,
                                  struct err_text *e)
{
    const char *nearest = nearest_name(t, name);
    if (nearest == NULL) {
        return err_set(e, FERRY_ERR_UNKNOWN_OPTION,
                       "%.*s: no option has that name; conf/ shows them all", NAME_MAX_BYTES, name);
    }
    return err_set(e, FERRY_ERR_UNKNOWN_OPTION, "%.*s: no option has that name; did you mean %s?",
                   NAME_MAX_BYTES, name, nearest);
}

static enum ferry_err refuse_value(const struct option_row *row, const char *value,
                                   struct err_text *e)
{
    char allowed[ALLOWED_TEXT_BYTES];
    option_describe_allowed(row, allowed, sizeof(allowed));
    return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "%s: \"%.*s\" is not allowed; give %s", row->name,
                   SHOWN_VALUE_MAX, value, allowed);
}

/* ---- The table ------------------------------------------------------------------------------ */

const struct option_row *option_find(const struct option_table *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->rows[i].name, name) == 0) {
            return &t->rows[i];
        }
    }
    return NULL;
}

enum ferry_err option_set(const struct option_table *t, void *values, const char *name,
                          const char *value, struct err_text *e)
{
    const struct option_row *row = option_find(t, name);
    if (row == NULL) {
        return refuse_name(t, name, e);
    }
    return store_value(row, values, value) ? FERRY_OK : refuse_value(row, value, e);
}

void option_defaults(const struct option_table *t, void *values)
{
    for (size_t i = 0; i < t->count; i++) {
        must(strlen(t->rows[i].name) <= NAME_MAX_BYTES);
        must(store_value(&t->rows[i], values, t->rows[i].initial));
    }
}

static void format_choice(const char *choices, int64_t place, char *text, size_t bytes)
{
    for (; place > 0; place--) {
        choices = strchr(choices, '|');
        must(choices != NULL);
        choices++;
    }
    (void)snprintf(text, bytes, "%.*s", (int)strcspn(choices, "|"), choices);
}

void option_format(const struct option_row *row, const void *values, char *text, size_t bytes)
{
    const char *at = (const char *)values + row->offset;
    int64_t number;
    bool flag;
    switch (row->type) {
    case OPTION_BOOL:
        memcpy(&flag, at, sizeof(flag));
        (void)snprintf(text, bytes, "%s", flag ? "true" : "false");
        break;
    case OPTION_TEXT:
        (void)snprintf(text, bytes, "%s", at);
        break;
    case OPTION_CHOICE:
        memcpy(&number, at, sizeof(number));
        format_choice(row->choices, number, text, bytes);
        break;
    case OPTION_INT:
    case OPTION_BYTES:
    case OPTION_MS:
        memcpy(&number, at, sizeof(number));
        format_number(row->type, number, text, bytes);
        break;
    }
}
