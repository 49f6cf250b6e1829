/* histogram: counts values so that any percentile can be told to three significant digits.
 *
 * Log-linear, after HdrHistogram: values below 2048 have a counter each; above, each power of two
 * is cut into 1024 equal parts, so a value is known to within 1/1024. The memory is fixed at the
 * start (about 250 KB) and recording never fails or allocates. Values are microseconds here; the
 * greatest is HISTOGRAM_VALUE_MAX (twelve days), and greater ones count as that.
 *
 * There is no correction for coordinated omission: callers record latencies from the time a thing
 * was meant to happen, and then there is nothing to correct. One thread at a time. */
#ifndef FERRY_CLI_HISTOGRAM_H
#define FERRY_CLI_HISTOGRAM_H

#include <stdint.h>

#include "base/err.h"

#define HISTOGRAM_VALUE_BITS 40
#define HISTOGRAM_VALUE_MAX  ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)

struct histogram {
    uint64_t *counts; /* Owned. */
    uint64_t total;   /* Values recorded. */
    uint64_t max;     /* The greatest, exactly. */
    uint64_t min;     /* The least, exactly; UINT64_MAX when there is none. */
    double sum;       /* For the mean. */
};

MUST_CHECK enum ferry_err histogram_init(struct histogram *h); /* NO_MEMORY. */
void histogram_fini(struct histogram *h);                      /* Accepts zeroed memory. */
void histogram_record(struct histogram *h, uint64_t value);
/* Adds what `from` has recorded. */
void histogram_add(struct histogram *h, const struct histogram *from);
/* The least value that at least `percent` (0..100) of all values do not exceed, rounded up to its
 * counter's greatest value, but never past the greatest recorded; 0 when nothing was recorded. */
uint64_t histogram_percentile(const struct histogram *h, double percent);
double histogram_mean(const struct histogram *h);

#endif
