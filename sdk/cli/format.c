#include "cli/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Numbers to text ------------------------------------------------------------------------ */

void format_count(int64_t n, char text[FORMAT_TEXT_BYTES])
{
    char digits[FORMAT_TEXT_BYTES];
    int length = snprintf(digits, sizeof(digits), "%llu",
                          n < 0 ? 0ULL - (unsigned long long)n : (unsigned long long)n);
    size_t at = 0;
    if (n < 0) {
        text[at++] = '-';
    }
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            text[at++] = ',';
        }
        text[at++] = digits[i];
    }
    text[at] = '\0';
}

/* Three significant digits below 1000: 1.25, 12.5, 125. */
static void format_scaled(double value, const char *unit, char text[FORMAT_TEXT_BYTES])
{
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    snprintf(text, FORMAT_TEXT_BYTES, "%.*f %s", decimals, value, unit);
}

void format_size(int64_t bytes, char text[FORMAT_TEXT_BYTES])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 1024) {
        snprintf(text, FORMAT_TEXT_BYTES, "%lld B", (long long)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1023.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    format_scaled(value, units[unit], text);
}

void format_duration_us(int64_t us, char text[FORMAT_TEXT_BYTES])
{
    if (us < 1000) {
        snprintf(text, FORMAT_TEXT_BYTES, "%lld us", (long long)us);
    } else if (us < 999500) {
        format_scaled((double)us / 1e3, "ms", text);
    } else if (us < 120 * INT64_C(1000000)) {
        format_scaled((double)us / 1e6, "s", text);
    } else {
        long long minutes = us / 60000000;
        if (minutes < 120) {
            snprintf(text, FORMAT_TEXT_BYTES, "%lld min %lld s", minutes,
                     (long long)(us / 1000000 % 60));
        } else if (minutes < 48 * 60) {
            snprintf(text, FORMAT_TEXT_BYTES, "%lld h %lld min", minutes / 60, minutes % 60);
        } else {
            snprintf(text, FORMAT_TEXT_BYTES, "%lld d %lld h", minutes / 1440, minutes / 60 % 24);
        }
    }
}

void format_time_ms(int64_t unix_ms, char text[FORMAT_TEXT_BYTES])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    int64_t ms = unix_ms % 1000;
    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    struct tm tm;
    size_t n = gmtime_r(&seconds, &tm) != NULL
                   ? strftime(text, FORMAT_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm)
                   : 0;
    snprintf(text + n, FORMAT_TEXT_BYTES - n, ".%03dZ", (int)ms);
}

/* ---- Text to numbers ------------------------------------------------------------------------ */

/* Reads digits; returns what follows them, or NULL when there are none or too many. */
static const char *parse_digits(const char *text, int64_t *n)
{
    int64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *p - '0', &value)) {
            return NULL;
        }
    }
    *n = value;
    return p == text ? NULL : p;
}

bool format_parse_number(const char *text, int64_t *n)
{
    int64_t value;
    const char *rest = parse_digits(text, &value);
    if (rest == NULL || *rest != '\0') {
        return false;
    }
    *n = value;
    return true;
}

struct unit {
    const char *name;
    int64_t factor;
};

static bool parse_with_unit(const char *text, const struct unit *units, size_t count, int64_t *n)
{
    int64_t value;
    const char *rest = parse_digits(text, &value);
    for (size_t i = 0; rest != NULL && i < count; i++) {
        if (strcmp(rest, units[i].name) == 0) {
            int64_t product;
            if (__builtin_mul_overflow(value, units[i].factor, &product)) {
                return false;
            }
            *n = product;
            return true;
        }
    }
    return false;
}

bool format_parse_duration_ms(const char *text, int64_t *ms)
{
    static const struct unit units[] = {{"", 1},      {"ms", 1},      {"s", 1000},
                                        {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    return parse_with_unit(text, units, sizeof(units) / sizeof(units[0]), ms);
}

bool format_parse_size(const char *text, int64_t *bytes)
{
    static const struct unit units[] = {
        {"", 1},          {"B", 1},       {"K", 1 << 10},   {"KiB", 1 << 10}, {"M", 1 << 20},
        {"MiB", 1 << 20}, {"G", 1 << 30}, {"GiB", 1 << 30}, {"T", 1LL << 40}, {"TiB", 1LL << 40},
    };
    return parse_with_unit(text, units, sizeof(units) / sizeof(units[0]), bytes);
}

/* "+02:00" or "Z", to minutes east; NULL when it is neither. */
static const char *parse_zone(const char *p, int *minutes)
{
    if (*p == 'Z' || *p == 'z') {
        *minutes = 0;
        return p + 1;
    }
    int hour, minute, used = 0;
    if ((*p != '+' && *p != '-') || sscanf(p + 1, "%2d:%2d%n", &hour, &minute, &used) != 2 ||
        used != 5 || hour > 23 || minute > 59 || hour < 0 || minute < 0) {
        return NULL;
    }
    *minutes = (hour * 60 + minute) * (*p == '-' ? -1 : 1);
    return p + 6;
}

/* ".678" to 678; digits past the third are read and dropped. */
static const char *parse_fraction_ms(const char *p, int64_t *ms)
{
    *ms = 0;
    if (*p != '.') {
        return p;
    }
    p++;
    int64_t weight = 100;
    const char *first = p;
    for (; *p >= '0' && *p <= '9'; p++) {
        *ms += (*p - '0') * weight;
        weight /= 10;
    }
    return p == first ? NULL : p;
}

static bool parse_rfc3339(const char *text, int64_t *unix_ms)
{
    struct tm tm = {0};
    int used = 0;
    char separator;
    if (sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &separator,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 7 ||
        used != 19 || strchr("Tt ", separator) == NULL) {
        return false;
    }
    struct tm given = tm;
    int64_t ms;
    int zone_minutes = 0;
    const char *p = parse_fraction_ms(text + used, &ms);
    p = p != NULL ? parse_zone(p, &zone_minutes) : NULL;
    if (p == NULL || *p != '\0') {
        return false;
    }
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    time_t seconds = timegm(&tm);
    /* timegm() carries a 31 February over into March: such a date is refused. */
    if (tm.tm_mon != given.tm_mon - 1 || tm.tm_mday != given.tm_mday || given.tm_hour > 23 ||
        given.tm_min > 59 || given.tm_sec > 60 || seconds == (time_t)-1) {
        return false;
    }
    *unix_ms = ((int64_t)seconds - zone_minutes * 60) * 1000 + ms;
    return true;
}

bool format_parse_time_ms(const char *text, int64_t now_ms, int64_t *unix_ms)
{
    int64_t age_ms;
    const char *age = text[0] == '-' ? text + 1 : text;
    if (format_parse_duration_ms(age, &age_ms)) {
        if (age_ms > now_ms) {
            return false;
        }
        *unix_ms = now_ms - age_ms;
        return true;
    }
    return parse_rfc3339(text, unix_ms);
}

/* ---- Words and encodings -------------------------------------------------------------------- */

size_t format_distance(const char *a, const char *b, size_t limit)
{
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > FORMAT_WORD_MAX || b_length > FORMAT_WORD_MAX) {
        return limit + 1;
    }
    size_t row[FORMAT_WORD_MAX + 1];
    for (size_t j = 0; j <= b_length; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[b_length] > limit ? limit + 1 : row[b_length];
}

size_t format_base64_bytes(size_t bytes)
{
    return (bytes + 2) / 3 * 4 + 1;
}

void format_base64(const void *data, size_t bytes, char *text)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = data;
    size_t at = 0;
    for (size_t i = 0; i < bytes; i += 3) {
        size_t left = bytes - i;
        uint32_t three = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                         (left > 2 ? (uint32_t)in[i + 2] : 0);
        text[at++] = alphabet[three >> 18];
        text[at++] = alphabet[three >> 12 & 63];
        text[at++] = left > 1 ? alphabet[three >> 6 & 63] : '=';
        text[at++] = left > 2 ? alphabet[three & 63] : '=';
    }
    text[at] = '\0';
}
