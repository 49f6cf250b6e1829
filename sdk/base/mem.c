#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The one mutable static of the base layer. It exists for tests, is off at 0 and read relaxed: in
 * production the cost is one load of a line nobody writes. */
static atomic_long fail_countdown;

static bool injected_failure(void)
{
    long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    /* Never below 0, however many threads count down at once. */
    while (left > 0) {
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) {
            return left == 1;
        }
    }
    return false;
}

void mem_test_fail_after(long n)
{
    atomic_store(&fail_countdown, n);
}

void *mem_alloc(size_t bytes)
{
    return injected_failure() ? NULL : malloc(bytes ? bytes : 1);
}

void *mem_zalloc(size_t count, size_t bytes_each)
{
    if (bytes_each > 0 && count > SIZE_MAX / bytes_each) {
        return NULL;
    }
    return injected_failure() ? NULL : calloc(count ? count : 1, bytes_each ? bytes_each : 1);
}

void *mem_realloc(void *p, size_t bytes)
{
    return injected_failure() ? NULL : realloc(p, bytes ? bytes : 1);
}

void *mem_dup(const void *p, size_t bytes)
{
    void *copy = mem_alloc(bytes);
    if (copy != NULL && bytes > 0) {
        memcpy(copy, p, bytes);
    }
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_dup(s, strlen(s) + 1);
}

void mem_free(void *p)
{
    free(p);
}

bool mem_grow(void **items, size_t *capacity, size_t need, size_t bytes_each)
{
    must(bytes_each > 0);
    if (need <= *capacity) {
        return true;
    }
    size_t wanted = *capacity ? *capacity : 8;
    while (wanted < need) {
        if (wanted > SIZE_MAX / 2) {
            return false;
        }
        wanted *= 2;
    }
    if (wanted > SIZE_MAX / bytes_each) {
        return false;
    }
    void *grown = mem_realloc(*items, wanted * bytes_each);
    if (grown == NULL) {
        return false;
    }
    *items = grown;
    *capacity = wanted;
    return true;
}

#define KEPT_ALLOCATION_BYTES (16 << 20) /* Larger ones are mapped and unmapped. */
#define KEPT_FREE_BYTES       (32 << 20) /* More at a heap's end goes back to the kernel. */

void mem_keep_frames(void)
{
    /* Refused values leave the defaults, which only cost time. */
    (void)mallopt(M_MMAP_THRESHOLD, KEPT_ALLOCATION_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
}
