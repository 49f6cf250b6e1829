/* Timers: the heap against a naive twin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/heap.h"
#include "base/mem.h"
#include "base/prng.h"

#define SEED  0x48454150u
#define NODES 64
#define STEPS 20000

/* The twin: what is queued, found by looking at all. */
struct twin {
    bool queued[NODES];
    int64_t due[NODES];
    uint64_t sequence[NODES];
    uint64_t next_sequence;
};

static int twin_first(const struct twin *t)
{
    int first = -1;
    for (int i = 0; i < NODES; i++) {
        if (t->queued[i] && (first < 0 || t->due[i] < t->due[first] ||
                             (t->due[i] == t->due[first] && t->sequence[i] < t->sequence[first]))) {
            first = i;
        }
    }
    return first;
}

static void twin_set(struct twin *t, size_t i, int64_t due)
{
    if (!t->queued[i]) {
        t->queued[i] = true;
        t->sequence[i] = t->next_sequence++;
    }
    t->due[i] = due;
}

/* Few different times, so that ties are common. */
static void it_agrees_with_a_naive_twin(void **state)
{
    (void)state;
    struct prng prng;
    struct heap h;
    struct heap_node nodes[NODES];
    struct twin twin = {0};
    prng_init(&prng, SEED);
    printf("seed %#x\n", SEED);
    heap_init(&h);
    assert_true(heap_reserve(&h, NODES));
    for (size_t i = 0; i < NODES; i++) {
        heap_node_init(&nodes[i]);
    }
    for (int step = 0; step < STEPS; step++) {
        size_t i = prng_below(&prng, NODES);
        if (prng_below(&prng, 3) > 0) {
            int64_t due = (int64_t)prng_below(&prng, 20) - 10;
            heap_set(&h, &nodes[i], due);
            twin_set(&twin, i, due);
        } else {
            heap_remove(&h, &nodes[i]);
            twin.queued[i] = false;
        }
        heap_check(&h);
        int first = twin_first(&twin);
        assert_ptr_equal(heap_first(&h), first < 0 ? NULL : &nodes[first]);
    }
    heap_fini(&h);
}

static void ties_fire_in_the_order_they_were_queued(void **state)
{
    (void)state;
    struct heap h;
    struct heap_node nodes[10];
    heap_init(&h);
    assert_true(heap_reserve(&h, 10));
    for (size_t i = 0; i < 10; i++) {
        heap_node_init(&nodes[i]);
        heap_set(&h, &nodes[i], 5);
    }
    for (size_t i = 0; i < 10; i++) {
        assert_ptr_equal(heap_first(&h), &nodes[i]);
        heap_remove(&h, &nodes[i]);
        assert_int_equal(nodes[i].at, HEAP_NOT_QUEUED);
    }
    assert_null(heap_first(&h));
    heap_fini(&h);
}

static void a_reserve_without_memory_fails_and_changes_nothing(void **state)
{
    (void)state;
    struct heap h;
    heap_init(&h);
    mem_test_fail_after(1);
    assert_false(heap_reserve(&h, 10));
    assert_int_equal(h.capacity, 0);
    assert_null(heap_first(&h));
    heap_fini(&h);
    heap_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_agrees_with_a_naive_twin),
        cmocka_unit_test(ties_fire_in_the_order_they_were_queued),
        cmocka_unit_test(a_reserve_without_memory_fails_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
