#include "partition/cron.h"

#include <ctype.h>

#define MINUTE_MS 60000LL
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
#define EVERY_MAX (365 * DAY_MS)
/* February 29th may be eight years away (1896 to 1904). */
#define DAYS_AHEAD (9 * 366)
/* A repeated stretch of wall clock is at most a day long. */
#define STEPS_MAX (24 * 60 + 1)

/* ---- Reading a line ---- */

struct field {
    const char *name;
    const char *values; /* Names of three letters, from `min` on; NULL: none. */
    uint32_t min, max;
};
static const struct field fields[] = {
    {"minute", NULL, 0, 59},
    {"hour", NULL, 0, 23},
    {"day of month", NULL, 1, 31},
    {"month", "janfebmaraprmayjunjulaugsepoctnovdec", 1, 12},
    {"day of week", "sunmontuewedthufrisat", 0, 7},
};
enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELDS };

static bool take_number(struct bytes *rest, uint32_t *value)
{
    size_t digits = 0;
    *value = 0;
    for (; digits < rest->size && digits < 6 && isdigit(rest->data[digits]); digits++) {
        *value = *value * 10 + (uint32_t)(rest->data[digits] - '0');
    }
    *rest = bytes_of(rest->data + digits, rest->size - digits);
    return digits > 0;
}

static bool take_name(const struct field *f, struct bytes *rest, uint32_t *value)
{
    for (uint32_t i = 0; f->values != NULL && rest->size >= 3 && f->values[i] != '\0'; i += 3) {
        const char *name = f->values + i;
        if (tolower(rest->data[0]) == name[0] && tolower(rest->data[1]) == name[1] &&
            tolower(rest->data[2]) == name[2]) {
            *value = f->min + i / 3;
            *rest = bytes_of(rest->data + 3, rest->size - 3);
            return true;
        }
    }
    return false;
}

static bool take_value(const struct field *f, struct bytes *rest, uint32_t *value)
{
    return (take_number(rest, value) || take_name(f, rest, value)) && *value >= f->min &&
           *value <= f->max;
}

static bool take_char(struct bytes *rest, char c)
{
    if (rest->size == 0 || rest->data[0] != (uint8_t)c) {
        return false;
    }
    *rest = bytes_of(rest->data + 1, rest->size - 1);
    return true;
}

/* One of a list: *, a value or a range, and a step behind the two that have more than one. */
static bool take_item(const struct field *f, struct bytes *rest, uint64_t *bits)
{
    uint32_t first = f->min;
    uint32_t last = f->max;
    uint32_t step = 1;
    bool many = take_char(rest, '*');
    if (!many) {
        if (!take_value(f, rest, &first)) {
            return false;
        }
        many = take_char(rest, '-');
        last = first;
        if (many && !take_value(f, rest, &last)) {
            return false;
        }
        if (many && f->max == 7 && last == 0 && first > 0) {
            last = 7; /* sat-sun */
        }
    }
    if (take_char(rest, '/') && (!many || !take_number(rest, &step) || step == 0)) {
        return false;
    }
    for (uint32_t value = first; value <= last; value += step) {
        *bits |= 1ull << value;
    }
    return first <= last;
}

static bool parse_field(const struct field *f, struct bytes text, uint64_t *bits)
{
    *bits = 0;
    do {
        if (!take_item(f, &text, bits)) {
            return false;
        }
    } while (take_char(&text, ','));
    return text.size == 0;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* The next word off the front; empty at the end. */
static struct bytes take_word(struct bytes *rest)
{
    size_t from = 0;
    while (from < rest->size && is_blank(rest->data[from])) {
        from++;
    }
    size_t to = from;
    while (to < rest->size && !is_blank(rest->data[to])) {
        to++;
    }
    struct bytes word = bytes_of(rest->data + from, to - from);
    *rest = bytes_of(rest->data + to, rest->size - to);
    return word;
}

static enum ferry_err parse_line(struct bytes spec, struct cron *c, struct err_text *e)
{
    uint64_t bits[FIELDS];
    bool any[FIELDS];
    for (size_t i = 0; i < FIELDS; i++) {
        struct bytes word = take_word(&spec);
        if (word.size == 0) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "the %s is missing: a line has minute, hour, day of month, month and "
                           "day of week",
                           fields[i].name);
        }
        any[i] = word.data[0] == '*';
        if (!parse_field(&fields[i], word, &bits[i])) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "the %s is not * nor values from %u to %u, as 1,2 or 1-5 or */2",
                           fields[i].name, fields[i].min, fields[i].max);
        }
    }
    if (take_word(&spec).size > 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "there is something behind five fields");
    }
    c->minutes = bits[MINUTE];
    c->hours = (uint32_t)bits[HOUR];
    c->days = (uint32_t)bits[DAY];
    c->months = (uint32_t)bits[MONTH];
    c->weekdays = (uint32_t)((bits[WEEKDAY] | bits[WEEKDAY] >> 7) & 0x7f);
    c->both_days = any[DAY] || any[WEEKDAY];
    return FERRY_OK;
}

static int64_t unit_ms(uint8_t unit)
{
    switch (unit) {
    case 's':
        return 1000;
    case 'm':
        return MINUTE_MS;
    case 'h':
        return HOUR_MS;
    case 'd':
        return DAY_MS;
    default:
        return 0;
    }
}

static enum ferry_err parse_every(struct bytes spec, struct cron *c, struct err_text *e)
{
    struct bytes text = take_word(&spec);
    int64_t every_ms = 0;
    bool good = text.size > 0 && take_word(&spec).size == 0;
    while (good && text.size > 0) {
        uint32_t number = 0;
        good = take_number(&text, &number) && text.size > 0 && unit_ms(text.data[0]) > 0;
        if (good) {
            every_ms += number * unit_ms(text.data[0]);
            text = bytes_of(text.data + 1, text.size - 1);
            good = every_ms <= EVERY_MAX;
        }
    }
    if (!good || every_ms <= 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "@every is followed by a time from 1s to 365d, with s, m, h or d");
    }
    c->every_ms = every_ms;
    return FERRY_OK;
}

enum ferry_err cron_parse(struct bytes spec, struct cron *c, struct err_text *e)
{
    static const struct {
        const char *name, *line;
    } names[] = {{"@hourly", "0 * * * *"},
                 {"@daily", "0 0 * * *"},
                 {"@weekly", "0 0 * * 0"},
                 {"@monthly", "0 0 1 * *"}};
    *c = (struct cron){0};
    struct bytes rest = spec;
    struct bytes word = take_word(&rest);
    if (bytes_equal(word, bytes_of_string("@every"))) {
        return parse_every(rest, c, e);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (bytes_equal(word, bytes_of_string(names[i].name)) && take_word(&rest).size == 0) {
            return parse_line(bytes_of_string(names[i].line), c, e);
        }
    }
    return parse_line(spec, c, e);
}

/* ---- The calendar. Days are counted from 1970-01-01, a Thursday. ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

struct date {
    uint32_t month, day, weekday;
};

/* The Gregorian calendar in eras of 400 years that begin in March, so that a leap day is the last
 * of its year. */
static struct date date_of(int64_t days)
{
    int64_t z = days + 719468; /* From 0000-03-01. */
    int64_t day_of_era = z - floor_div(z, 146097) * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153; /* 0: March. */
    int64_t weekday = days + 4 - floor_div(days + 4, 7) * 7;
    return (struct date){.month = (uint32_t)(month < 10 ? month + 3 : month - 9),
                         .day = (uint32_t)(day_of_year - (153 * month + 2) / 5 + 1),
                         .weekday = (uint32_t)weekday};
}

static bool day_matches(const struct cron *c, int64_t days)
{
    struct date d = date_of(days);
    bool day = (c->days >> d.day & 1) != 0;
    bool weekday = (c->weekdays >> d.weekday & 1) != 0;
    return (c->months >> d.month & 1) != 0 && (c->both_days ? day && weekday : day || weekday);
}

/* The first matching minute of a day from `from` on; -1: none. */
static int64_t minute_from(const struct cron *c, int64_t from)
{
    for (int64_t hour = from / 60; hour < 24; hour++) {
        for (int64_t minute = hour == from / 60 ? from % 60 : 0; minute < 60; minute++) {
            if ((c->hours >> hour & 1) != 0 && (c->minutes >> minute & 1) != 0) {
                return hour * 60 + minute;
            }
        }
    }
    return -1;
}

/* The first matching minute of wall-clock time at or after `minute`, both counted from 1970. */
static int64_t wall_next(const struct cron *c, int64_t minute)
{
    int64_t first_day = floor_div(minute, 24 * 60);
    int64_t from = minute - first_day * 24 * 60;
    for (int64_t days = first_day; days < first_day + DAYS_AHEAD; days++) {
        int64_t found = day_matches(c, days) ? minute_from(c, from) : -1;
        if (found >= 0) {
            return days * 24 * 60 + found;
        }
        from = 0;
    }
    return CRON_NEVER;
}

/* ---- From wall clock to instants ---- */

/* The instant at which the offset changes, somewhere in (low, high]. */
static int64_t find_change(struct cron_zone *z, int64_t low, int64_t high)
{
    int64_t before = cron_zone_offset_ms(z, low);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        *(cron_zone_offset_ms(z, middle) == before ? &low : &high) = middle;
    }
    return high;
}

static int64_t instant_of(struct cron_zone *z, int64_t wall_ms)
{
    int64_t before = cron_zone_offset_ms(z, wall_ms - DAY_MS);
    int64_t after = cron_zone_offset_ms(z, wall_ms + DAY_MS);
    int64_t first = wall_ms - before;
    int64_t second = wall_ms - after;
    /* It is there twice: with the offset from before the change it is the first time. */
    if (cron_zone_offset_ms(z, first) == before) {
        return first;
    }
    if (cron_zone_offset_ms(z, second) == after) {
        return second;
    }
    return find_change(z, wall_ms - DAY_MS, wall_ms + DAY_MS); /* It is left out. */
}

int64_t cron_next(const struct cron *c, struct cron_zone *z, int64_t after_ms)
{
    if (c->every_ms > 0) {
        return after_ms + c->every_ms;
    }
    int64_t minute = floor_div(after_ms + cron_zone_offset_ms(z, after_ms), MINUTE_MS);
    for (int i = 0; i < STEPS_MAX; i++) {
        minute = wall_next(c, minute);
        if (minute == CRON_NEVER) {
            return CRON_NEVER;
        }
        int64_t instant = instant_of(z, minute * MINUTE_MS);
        if (instant > after_ms) {
            return instant;
        }
        minute++;
    }
    return CRON_NEVER;
}

/* The last of the times in (from, to]; CRON_NEVER when there is none. */
static int64_t last_within(const struct cron *c, struct cron_zone *z, int64_t from, int64_t to)
{
    int64_t last = CRON_NEVER;
    for (int64_t next = cron_next(c, z, from); next <= to; next = cron_next(c, z, next)) {
        last = next;
    }
    return last;
}

/* Looked for in stretches that grow, so that years of minutes are not walked through: what does not
 * come within one is rare in the next. */
int64_t cron_latest(const struct cron *c, struct cron_zone *z, int64_t first_ms, int64_t now_ms)
{
    static const int64_t stretches_ms[] = {2 * HOUR_MS, 2 * DAY_MS, 40 * DAY_MS, 400 * DAY_MS};
    if (c->every_ms > 0) {
        return first_ms + (now_ms - first_ms) / c->every_ms * c->every_ms;
    }
    for (size_t i = 0; i < sizeof(stretches_ms) / sizeof(stretches_ms[0]); i++) {
        int64_t from = now_ms - stretches_ms[i];
        if (from < first_ms) {
            break;
        }
        int64_t last = last_within(c, z, from, now_ms);
        if (last != CRON_NEVER) {
            return last;
        }
    }
    int64_t later = last_within(c, z, first_ms, now_ms);
    return later != CRON_NEVER ? later : first_ms;
}
