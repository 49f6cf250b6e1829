/* mem: every allocation of Ferry's own code goes through here.
 *
 * So a test can make the n-th one fail (mem_test_fail_after), and so a size from outside is never
 * multiplied unchecked. Every function is thread-safe. NULL means out of memory; callers answer
 * FERRY_ERR_NO_MEMORY. mem_free accepts NULL. */
#ifndef FERRY_BASE_MEM_H
#define FERRY_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/must.h"

MUST_CHECK void *mem_alloc(size_t bytes);
MUST_CHECK void *mem_zalloc(size_t count, size_t bytes_each);
MUST_CHECK void *mem_realloc(void *p, size_t bytes);
MUST_CHECK char *mem_strdup(const char *s);
MUST_CHECK void *mem_dup(const void *p, size_t bytes);
void mem_free(void *p);

/* Doubles an array until it holds `need` elements. Returns false (array unchanged) when memory is
 * out. `*items` and `*capacity` belong together; elements are moved bytewise. */
MUST_CHECK bool mem_grow(void **items, size_t *capacity, size_t need, size_t bytes_each);

/* For the main of our own programs, never for a library: frames of some hundred KiB come and go all
 * the time, and by default each goes back to the kernel and is faulted in anew, page by page. Kept
 * in the heap, produce of 1 KiB records is 4 % faster by the broker's half of it and 10 % by both
 * (medians of 7, alternating), and a broker under load is smaller by a third. */
void mem_keep_frames(void);

/* Tests only: the n-th allocation from now fails, once (1 is the next); 0 switches it off. */
void mem_test_fail_after(long n);

#endif
