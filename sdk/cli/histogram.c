#include "cli/histogram.h"

#include <math.h>

#include "base/mem.h"

#define HALF_BITS  10 /* Each power of two is cut into 2^HALF_BITS parts. */
#define HALF_COUNT (1u << HALF_BITS)
#define COUNTERS   ((HISTOGRAM_VALUE_BITS - HALF_BITS + 1) * HALF_COUNT)

_Static_assert(HALF_COUNT > 1000, "three significant digits");

/* How many low bits of the value are not kept. */
static unsigned dropped_bits(uint64_t value)
{
    unsigned length = 64u - (unsigned)__builtin_clzll(value | 1);
    return length > HALF_BITS + 1 ? length - (HALF_BITS + 1) : 0;
}

/* Values with d dropped bits have d * HALF_COUNT counters before them, and their leading bits are
 * HALF_COUNT to 2 * HALF_COUNT - 1 (or less when d is 0). */
static size_t counter_of(uint64_t value)
{
    unsigned dropped = dropped_bits(value);
    return (size_t)dropped * HALF_COUNT + (size_t)(value >> dropped);
}

/* The greatest value that the counter stands for. */
static uint64_t greatest_of(size_t counter)
{
    size_t dropped = counter < 2 * HALF_COUNT ? 0 : counter / HALF_COUNT - 1;
    uint64_t leading = counter - dropped * HALF_COUNT;
    return ((leading + 1) << dropped) - 1;
}

enum ferry_err histogram_init(struct histogram *h)
{
    *h = (struct histogram){.min = UINT64_MAX};
    h->counts = mem_zalloc(COUNTERS, sizeof(h->counts[0]));
    return h->counts != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

void histogram_fini(struct histogram *h)
{
    mem_free(h->counts);
    *h = (struct histogram){0};
}

void histogram_record(struct histogram *h, uint64_t value)
{
    value = value > HISTOGRAM_VALUE_MAX ? HISTOGRAM_VALUE_MAX : value;
    size_t counter = counter_of(value);
    must(counter < COUNTERS);
    h->counts[counter]++;
    h->total++;
    h->sum += (double)value;
    h->max = value > h->max ? value : h->max;
    h->min = value < h->min ? value : h->min;
}

void histogram_add(struct histogram *h, const struct histogram *from)
{
    for (size_t i = 0; i < COUNTERS; i++) {
        h->counts[i] += from->counts[i];
    }
    h->total += from->total;
    h->sum += from->sum;
    h->max = from->max > h->max ? from->max : h->max;
    h->min = from->min < h->min ? from->min : h->min;
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
    must(percent >= 0 && percent <= 100);
    if (h->total == 0) {
        return 0;
    }
    /* 99.9 % of 1000 is 999, not the 999.0000000000001 that binary fractions make of it. */
    uint64_t wanted = (uint64_t)ceil(percent / 100 * (double)h->total * (1 - 1e-12));
    wanted = wanted < 1 ? 1 : wanted > h->total ? h->total : wanted;
    uint64_t seen = 0;
    size_t counter = 0;
    while (seen + h->counts[counter] < wanted) {
        seen += h->counts[counter++];
        must(counter < COUNTERS);
    }
    uint64_t value = greatest_of(counter);
    return value < h->max ? value : h->max;
}

double histogram_mean(const struct histogram *h)
{
    return h->total > 0 ? h->sum / (double)h->total : 0;
}
