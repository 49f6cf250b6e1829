/* The hash map against a naive twin, with hashes that collide. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/prng.h"

#define SEED  0x4d4150u
#define ITEMS 200
#define STEPS 50000

struct item {
    uint64_t key;
    bool is_in; /* The twin: what should be in the map. */
    bool seen;  /* By the iteration. */
};

static bool has_key(const void *item, const void *key)
{
    return ((const struct item *)item)->key == *(const uint64_t *)key;
}

/* Few homes, some at the end of the slots, so that runs are long and wrap around. */
static uint64_t poor_hash(uint64_t key)
{
    return key % 7 == 0 ? UINT64_MAX - key % 3 : key % 11;
}

static void check_iteration(const struct map *m, struct item *items)
{
    size_t at = 0;
    size_t count = 0;
    struct item *item;
    for (size_t i = 0; i < ITEMS; i++) {
        items[i].seen = false;
    }
    while ((item = map_next(m, &at)) != NULL) {
        assert_true(item->is_in && !item->seen);
        item->seen = true;
        count++;
    }
    assert_int_equal(count, m->count);
    assert_true(m->count <= m->capacity - m->capacity / 4);
}

static void it_agrees_with_a_naive_twin(void **state)
{
    (void)state;
    struct prng prng;
    struct map m;
    struct item items[ITEMS] = {0};
    prng_init(&prng, SEED);
    printf("seed %#x\n", SEED);
    map_init(&m);
    for (int step = 0; step < STEPS; step++) {
        /* The span swings, so that the map is now nearly empty and now full. */
        uint64_t key = prng_below(&prng, 1 + (uint64_t)(step % ITEMS));
        struct item *item = &items[key];
        void *found = map_find(&m, poor_hash(key), has_key, &key);
        assert_ptr_equal(found, item->is_in ? item : NULL);
        item->key = key;
        if (item->is_in) {
            map_remove(&m, poor_hash(key), item);
        } else {
            assert_true(map_add(&m, poor_hash(key), item));
        }
        item->is_in = !item->is_in;
        if (step % 100 == 0) {
            check_iteration(&m, items);
        }
    }
    map_fini(&m);
    map_fini(&m);
}

static void after_a_reserve_adding_needs_no_memory(void **state)
{
    (void)state;
    struct map m;
    struct item items[ITEMS] = {0};
    map_init(&m);
    assert_true(map_reserve(&m, ITEMS));
    mem_test_fail_after(1);
    for (uint64_t i = 0; i < ITEMS; i++) {
        items[i].key = i;
        assert_true(map_add(&m, map_hash_u64(i), &items[i]));
    }
    mem_test_fail_after(0);
    map_fini(&m);
}

static void without_memory_the_map_stays_as_it_is(void **state)
{
    (void)state;
    struct map m;
    struct item items[13] = {0};
    map_init(&m);
    for (uint64_t i = 0; i < 12; i++) {
        items[i].key = i;
        assert_true(map_add(&m, map_hash_u64(i), &items[i]));
    }
    mem_test_fail_after(1);
    assert_false(map_add(&m, map_hash_u64(12), &items[12]));
    assert_false(map_reserve(&m, SIZE_MAX));
    mem_test_fail_after(0);
    for (uint64_t i = 0; i < 12; i++) {
        assert_ptr_equal(map_find(&m, map_hash_u64(i), has_key, &i), &items[i]);
    }
    map_fini(&m);
}

static void an_empty_map_has_nothing(void **state)
{
    (void)state;
    struct map m;
    uint64_t key = 1;
    size_t at = 0;
    map_init(&m);
    assert_null(map_find(&m, 1, has_key, &key));
    assert_null(map_next(&m, &at));
    map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_agrees_with_a_naive_twin),
        cmocka_unit_test(after_a_reserve_adding_needs_no_memory),
        cmocka_unit_test(without_memory_the_map_stays_as_it_is),
        cmocka_unit_test(an_empty_map_has_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
