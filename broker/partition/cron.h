/* cron: when something comes again: "@every 10s", or a line of five fields in a zone's wall clock.
 *
 * Pure but for the zone (cron_zone.h). Fields: minute hour day-of-month month day-of-week; each *,
 * a value, a range a-b, any of them as a list with commas, ranges and * with a step: *\/5. Months
 * and weekdays also by the first three letters of their English names; Sunday is 0 and 7. Both days
 * given (neither begins with *): either will do, as in every cron. @hourly, @daily, @weekly,
 * @monthly stand for such lines. @every takes s, m, h, d, also together (1h30m).
 *
 * Wall clocks are changed. A time that is left out (02:30 in spring) comes at the change itself;
 * one that comes twice (02:30 in autumn) counts the first time only. So instants rise with
 * wall-clock times, and two that fall on the same instant are one. */
#ifndef FERRY_PARTITION_CRON_H
#define FERRY_PARTITION_CRON_H

#include "base/bytes.h"
#include "base/err.h"
#include "partition/cron_zone.h"

#define CRON_NEVER INT64_MAX

struct cron {
    int64_t every_ms; /* 0: a line. */
    /* Bits of the values that match. */
    uint64_t minutes;
    uint32_t hours;
    uint32_t days;     /* 1..31 */
    uint32_t months;   /* 1..12 */
    uint32_t weekdays; /* 0..6 */
    bool both_days;    /* Day and weekday must match; else one of them. */
};

/* Errors: INVALID_ARGUMENT (`e` says what is wrong). */
MUST_CHECK enum ferry_err cron_parse(struct bytes spec, struct cron *c, struct err_text *e);
/* The first time after `after_ms`; CRON_NEVER when there is none (the 30th of February). `z` is not
 * used with @every, which counts from `after_ms`. */
int64_t cron_next(const struct cron *c, struct cron_zone *z, int64_t after_ms);
/* The last time up to now_ms, when first_ms, one of its times, has come. */
int64_t cron_latest(const struct cron *c, struct cron_zone *z, int64_t first_ms, int64_t now_ms);

#endif
