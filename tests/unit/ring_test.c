/* The ring: placement is a pure function of the nodes, spread, bounded and stable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/prng.h"
#include "ring/ring.h"

#define SEED 0x52494e47u
#define KEYS 20000

static const uint8_t topic[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

struct spec {
    struct ring_node nodes[RING_NODES_MAX];
    size_t count;
    uint32_t partitions;
    uint32_t replicas;
    uint32_t load_percent;
};

/* `count` nodes of weight 1 in `zones` zones by turns; 0 zones: none is named. */
static struct spec even_spec(size_t count, uint32_t zones, uint32_t partitions, uint32_t replicas,
                             uint32_t load_percent)
{
    struct spec s = {.count = count,
                     .partitions = partitions,
                     .replicas = replicas,
                     .load_percent = load_percent};
    for (uint32_t i = 0; i < count; i++) {
        s.nodes[i].id = i + 1;
        s.nodes[i].weight = 1;
        if (zones > 0) {
            (void)snprintf(s.nodes[i].zone, RING_ZONE_BYTES, "zone-%u", i % zones);
        }
    }
    return s;
}

static uint32_t *place(const struct spec *s)
{
    struct ring *ring = NULL;
    uint32_t *replicas = mem_zalloc((size_t)s->partitions * s->replicas, sizeof(*replicas));
    assert_non_null(replicas);
    assert_int_equal(ring_new(s->nodes, s->count, &ring), FERRY_OK);
    assert_int_equal(ring_place(ring, topic, sizeof(topic), s->partitions, s->replicas,
                                s->load_percent, replicas),
                     FERRY_OK);
    ring_free(&ring);
    assert_null(ring);
    return replicas;
}

static const struct ring_node *node_of(const struct spec *s, uint32_t id)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->nodes[i].id == id) {
            return &s->nodes[i];
        }
    }
    fail_msg("node %u is not in the ring", id);
    return NULL;
}

static uint32_t load_of(const struct spec *s, const uint32_t *replicas, uint32_t id)
{
    uint32_t load = 0;
    for (size_t i = 0; i < (size_t)s->partitions * s->replicas; i++) {
        load += replicas[i] == id ? 1 : 0;
    }
    return load;
}

static bool is_same_zone(const struct ring_node *a, const struct ring_node *b)
{
    return a->id == b->id || (a->zone[0] != '\0' && strcmp(a->zone, b->zone) == 0);
}

/* Of the first `count` ids: how many zones. */
static uint32_t count_zones(const struct spec *s, const uint32_t *ids, size_t count)
{
    uint32_t zones = 0;
    for (size_t i = 0; i < count; i++) {
        bool is_new = true;
        for (size_t j = 0; j < i; j++) {
            is_new = is_new && !is_same_zone(node_of(s, ids[i]), node_of(s, ids[j]));
        }
        zones += is_new ? 1 : 0;
    }
    return zones;
}

static size_t usable_ids(const struct spec *s, uint32_t *ids)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->nodes[i].weight > 0) {
            ids[count++] = s->nodes[i].id;
        }
    }
    return count;
}

/* Invariant 2, and that what cannot be placed is 0 and stands last. */
static void check_spread(const struct spec *s, const uint32_t *replicas)
{
    uint32_t ids[RING_NODES_MAX];
    size_t usable = usable_ids(s, ids);
    uint32_t zones = count_zones(s, ids, usable);
    size_t expected = s->replicas < usable ? s->replicas : usable;
    for (uint32_t p = 0; p < s->partitions; p++) {
        const uint32_t *own = replicas + (size_t)p * s->replicas;
        for (size_t k = 0; k < s->replicas; k++) {
            assert_true((own[k] == 0) == (k >= expected));
            for (size_t j = 0; j < k && k < expected; j++) {
                assert_int_not_equal(own[j], own[k]);
            }
        }
        for (size_t k = 0; k < expected; k++) {
            assert_int_not_equal(node_of(s, own[k])->weight, 0);
        }
        assert_int_equal(count_zones(s, own, expected), zones < expected ? zones : expected);
    }
}

static void check_load(const struct spec *s, const uint32_t *replicas)
{
    uint64_t total = (uint64_t)s->partitions * s->replicas;
    uint64_t limit = (total * s->load_percent + s->count * 100 - 1) / (s->count * 100);
    for (size_t i = 0; i < s->count; i++) {
        assert_true(load_of(s, replicas, s->nodes[i].id) <= limit);
    }
}

static void shuffle(struct spec *s, struct prng *prng)
{
    for (size_t i = s->count; i > 1; i--) {
        size_t j = prng_below(prng, i);
        struct ring_node kept = s->nodes[i - 1];
        s->nodes[i - 1] = s->nodes[j];
        s->nodes[j] = kept;
    }
}

/* ---- Placement ------------------------------------------------------------------------------ */

/* Invariant 1: the order in which nodes are named does not matter. */
static void the_same_nodes_in_any_order_give_the_same_placement(void **state)
{
    (void)state;
    struct prng prng;
    prng_init(&prng, SEED);
    struct spec s = even_spec(9, 3, 100, 3, 110);
    s.nodes[4].weight = 3;
    uint32_t *first = place(&s);
    for (int i = 0; i < 20; i++) {
        shuffle(&s, &prng);
        uint32_t *again = place(&s);
        assert_memory_equal(again, first, 300 * sizeof(*first));
        mem_free(again);
    }
    mem_free(first);
}

/* Fixed for ever: brokers of two versions must agree. A change here is a change of the protocol. */
static void a_known_placement_stays_as_it_is(void **state)
{
    (void)state;
    static const uint32_t known[] = {3, 1, 2, 2, 5, 3, 4, 2, 1, 5, 3, 4};
    struct spec s = even_spec(5, 0, 4, 3, 125);
    uint32_t *replicas = place(&s);
    assert_memory_equal(replicas, known, sizeof(known));
    mem_free(replicas);
}

/* The most partitions that one node is the first of. */
static uint32_t most_leads(const struct spec *s, const uint32_t *replicas)
{
    uint32_t most = 0;
    for (size_t i = 0; i < s->count; i++) {
        uint32_t leads = 0;
        for (uint32_t p = 0; p < s->partitions; p++) {
            leads += replicas[(size_t)p * s->replicas] == s->nodes[i].id;
        }
        most = leads > most ? leads : most;
    }
    return most;
}

/* Invariant 4, where every node could lead each partition, and where three of more could. */
static void leaders_are_spread_over_the_nodes_that_have_replicas(void **state)
{
    (void)state;
    for (size_t count = 2; count <= 12; count++) {
        for (uint32_t partitions = 1; partitions <= 100; partitions++) {
            struct spec s = even_spec(count, 0, partitions, count < 3 ? (uint32_t)count : 3, 125);
            uint32_t *replicas = place(&s);
            uint64_t limit = (partitions + count - 1) / count;
            assert_true(most_leads(&s, replicas) <= limit + (count > 3 ? limit / 4 + 1 : 0));
            check_spread(&s, replicas);
            mem_free(replicas);
        }
    }
}

static void another_topic_is_placed_otherwise(void **state)
{
    (void)state;
    struct spec s = even_spec(10, 0, 100, 1, 125);
    struct ring *ring = NULL;
    uint32_t other[100];
    uint32_t *one = place(&s);
    assert_int_equal(ring_new(s.nodes, s.count, &ring), FERRY_OK);
    assert_int_equal(ring_place(ring, "another", 7, 100, 1, 125, other), FERRY_OK);
    uint32_t equal = 0;
    for (int p = 0; p < 100; p++) {
        equal += one[p] == other[p] ? 1 : 0;
    }
    assert_true(equal < 40);
    ring_free(&ring);
    mem_free(one);
}

/* Invariants 2 and 3 over all small shapes, also where the load may not exceed the fair share. */
static void replicas_are_distinct_and_loads_are_bounded_in_every_shape(void **state)
{
    (void)state;
    static const uint32_t percents[] = {100, 101, 125, 300};
    for (size_t count = 1; count <= 9; count++) {
        for (uint32_t replicas = 1; replicas <= 5; replicas++) {
            for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
                for (uint32_t partitions = 1; partitions <= 61; partitions += 12) {
                    struct spec s = even_spec(count, 0, partitions, replicas, percents[i]);
                    uint32_t *placed = place(&s);
                    check_spread(&s, placed);
                    check_load(&s, placed);
                    mem_free(placed);
                }
            }
        }
    }
}

/* Zones of unequal size, fewer zones than replicas, heavy nodes, draining nodes, all at random. */
static void zones_are_distinct_while_there_are_zones_left(void **state)
{
    (void)state;
    struct prng prng;
    prng_init(&prng, SEED);
    printf("seed %#x\n", SEED);
    for (int round = 0; round < 600; round++) {
        uint32_t zones = 1 + (uint32_t)prng_below(&prng, 6);
        struct spec s = even_spec(1 + prng_below(&prng, 14), 0, 1 + (uint32_t)prng_below(&prng, 80),
                                  1 + (uint32_t)prng_below(&prng, RING_REPLICAS_MAX),
                                  100 + (uint32_t)prng_below(&prng, 40));
        for (size_t i = 0; i < s.count; i++) {
            uint32_t zone = (uint32_t)prng_below(&prng, zones + 1);
            bool heavy = prng_below(&prng, 4) == 0;
            s.nodes[i].weight = (uint32_t)prng_below(&prng, heavy ? RING_WEIGHT_MAX + 1 : 3);
            if (zone > 0) {
                (void)snprintf(s.nodes[i].zone, RING_ZONE_BYTES, "z%u", zone);
            }
        }
        uint32_t *placed = place(&s);
        check_spread(&s, placed);
        mem_free(placed);
    }
}

/* One node alone in its zone must hold every partition; the others share the rest evenly. */
static void a_lonely_zone_carries_one_of_each_partition(void **state)
{
    (void)state;
    struct spec s = even_spec(9, 0, 60, 3, 100);
    for (size_t i = 0; i < s.count; i++) {
        (void)snprintf(s.nodes[i].zone, RING_ZONE_BYTES, "%s",
                       i == 0 ? "small" : (i < 5 ? "big" : "large"));
    }
    uint32_t *placed = place(&s);
    check_spread(&s, placed);
    assert_int_equal(load_of(&s, placed, 1), 60);
    for (uint32_t id = 2; id <= 9; id++) {
        assert_int_equal(load_of(&s, placed, id), 15);
    }
    mem_free(placed);
}

static void weights_are_respected(void **state)
{
    (void)state;
    struct spec s = even_spec(6, 0, 1400, 1, 105);
    uint32_t total = 0;
    for (uint32_t i = 0; i < 6; i++) {
        s.nodes[i].weight = i < 3 ? 1 : 4;
        total += s.nodes[i].weight;
    }
    uint32_t *placed = place(&s);
    for (uint32_t i = 0; i < 6; i++) {
        double share = 1400.0 * s.nodes[i].weight / total;
        double load = load_of(&s, placed, i + 1);
        assert_true(load <= share * 1.05 + 1);
        assert_true(load >= share * 0.75);
    }
    mem_free(placed);
}

/* A weight no node could use (more than every partition) gives what it cannot take to the others.
 */
static void a_very_heavy_node_holds_each_partition_once(void **state)
{
    (void)state;
    struct spec s = even_spec(3, 0, 100, 2, 100);
    s.nodes[0].weight = RING_WEIGHT_MAX;
    uint32_t *placed = place(&s);
    check_spread(&s, placed);
    assert_int_equal(load_of(&s, placed, 1), 100);
    assert_int_equal(load_of(&s, placed, 2), 50);
    assert_int_equal(load_of(&s, placed, 3), 50);
    mem_free(placed);
}

static void a_node_of_weight_0_takes_nothing(void **state)
{
    (void)state;
    struct spec s = even_spec(4, 0, 50, 3, 125);
    s.nodes[2].weight = 0;
    uint32_t *placed = place(&s);
    assert_int_equal(load_of(&s, placed, 3), 0);
    check_spread(&s, placed);
    mem_free(placed);
}

static void a_ring_without_usable_nodes_places_nobody(void **state)
{
    (void)state;
    struct spec s = even_spec(2, 0, 3, 2, 125);
    s.nodes[0].weight = 0;
    s.nodes[1].weight = 0;
    uint32_t *placed = place(&s);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(placed[i], 0);
    }
    mem_free(placed);
    s.count = 0;
    placed = place(&s);
    assert_int_equal(placed[0], 0);
    mem_free(placed);
}

/* ---- Stability ------------------------------------------------------------------------------ */

/* Replicas of `after` that were not on that node for that partition in `before`. */
static uint32_t count_moved(const struct spec *s, const uint32_t *before, const uint32_t *after)
{
    uint32_t moved = 0;
    for (size_t i = 0; i < (size_t)s->partitions * s->replicas; i++) {
        const uint32_t *own = before + i / s->replicas * s->replicas;
        bool was_there = false;
        for (uint32_t k = 0; k < s->replicas; k++) {
            was_there = was_there || own[k] == after[i];
        }
        moved += was_there ? 0 : 1;
    }
    return moved;
}

static void check_growth(size_t count, uint32_t zones, uint32_t replicas)
{
    struct spec small = even_spec(count, zones, 2000, replicas, 125);
    struct spec large = even_spec(count + 1, zones, 2000, replicas, 125);
    uint32_t *before = place(&small);
    uint32_t *after = place(&large);
    double moved = (double)count_moved(&small, before, after) / (2000.0 * replicas);
    double allowed = 1.0 / (double)(count + 1) + 0.05;
    printf("%zu nodes, %u zones, %u replicas: adding one moves %.1f %%, allowed %.1f %%\n", count,
           zones, replicas, moved * 100, allowed * 100);
    assert_true(moved <= allowed);
    mem_free(before);
    mem_free(after);
}

static void a_new_node_moves_at_most_its_part_and_5_percent(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        check_growth(counts[i], 0, 1);
        if (counts[i] >= 3) {
            check_growth(counts[i], 0, 3);
            check_growth(counts[i], 3, 3);
        }
    }
}

/* ---- Keys ----------------------------------------------------------------------------------- */

static void jump_agrees_with_published_vectors(void **state)
{
    (void)state;
    assert_int_equal(ring_jump(0, 1), 0);
    assert_int_equal(ring_jump(1, 1), 0);
    assert_int_equal(ring_jump(42, 57), 43);
    assert_int_equal(ring_jump(0xDEAD10CC, 1), 0);
    assert_int_equal(ring_jump(0xDEAD10CC, 666), 361);
    assert_int_equal(ring_jump(256, 1024), 520);
}

/* From n to n + 1 partitions a key stays or goes to the new one, and about 1/(n+1) go. */
static void jump_moves_only_to_the_new_bucket_and_about_its_part(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 40; n++) {
        uint32_t moved = 0;
        for (uint32_t key = 0; key < KEYS; key++) {
            uint32_t before = ring_partition_of_key(&key, sizeof(key), n);
            uint32_t after = ring_partition_of_key(&key, sizeof(key), n + 1);
            assert_true(before < n);
            assert_true(after == before || after == n);
            moved += after != before ? 1 : 0;
        }
        double expected = (double)KEYS / (n + 1);
        assert_true(moved > expected * 0.8 && moved < expected * 1.2);
    }
}

static void keys_spread_evenly(void **state)
{
    (void)state;
    uint32_t counts[16] = {0};
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[24];
        int length = snprintf(key, sizeof(key), "customer-%u", i);
        counts[ring_partition_of_key(key, (size_t)length, 16)]++;
    }
    for (int p = 0; p < 16; p++) {
        assert_in_range(counts[p], KEYS / 16 * 85 / 100, KEYS / 16 * 115 / 100);
    }
}

static void the_empty_key_has_a_partition(void **state)
{
    (void)state;
    assert_true(ring_partition_of_key("", 0, 7) < 7);
    assert_int_equal(ring_partition_of_key("", 0, 1), 0);
}

static void the_greatest_number_of_buckets_works(void **state)
{
    (void)state;
    for (uint64_t hash = 0; hash < 1000; hash++) {
        assert_true(ring_jump(hash * 0x9e3779b97f4a7c15u, UINT32_MAX) < UINT32_MAX);
    }
}

/* ---- Refusals ------------------------------------------------------------------------------- */

static void bad_nodes_are_refused(void **state)
{
    (void)state;
    struct ring *ring = NULL;
    struct spec s = even_spec(3, 0, 1, 1, 125);
    s.nodes[2].id = 1;
    assert_int_equal(ring_new(s.nodes, 3, &ring), FERRY_ERR_INVALID_ARGUMENT);
    s.nodes[2].id = 0;
    assert_int_equal(ring_new(s.nodes, 3, &ring), FERRY_ERR_INVALID_ARGUMENT);
    s.nodes[2].id = 3;
    s.nodes[1].weight = RING_WEIGHT_MAX + 1;
    assert_int_equal(ring_new(s.nodes, 3, &ring), FERRY_ERR_INVALID_ARGUMENT);
    s.nodes[1].weight = 1;
    memset(s.nodes[1].zone, 'z', RING_ZONE_BYTES);
    assert_int_equal(ring_new(s.nodes, 3, &ring), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ring_new(s.nodes, RING_NODES_MAX + 1, &ring), FERRY_ERR_INVALID_ARGUMENT);
    assert_null(ring);
}

static void numbers_outside_their_limits_are_refused(void **state)
{
    (void)state;
    struct ring *ring = NULL;
    uint32_t out[RING_REPLICAS_MAX + 1];
    struct spec s = even_spec(3, 0, 1, 1, 125);
    assert_int_equal(ring_new(s.nodes, 3, &ring), FERRY_OK);
    assert_int_equal(ring_place(ring, topic, 16, 0, 1, 125, out), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ring_place(ring, topic, 16, RING_PARTITIONS_MAX + 1, 1, 125, out),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ring_place(ring, topic, 16, 1, 0, 125, out), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ring_place(ring, topic, 16, 1, RING_REPLICAS_MAX + 1, 125, out),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ring_place(ring, topic, 16, 1, 1, 99, out), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ring_place(ring, topic, 16, 1, 1, RING_LOAD_PERCENT_MAX + 1, out),
                     FERRY_ERR_INVALID_ARGUMENT);
    ring_free(&ring);
    ring_free(&ring);
}

static void a_failed_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    struct spec s = even_spec(3, 0, 1, 1, 125);
    for (long n = 1; n <= 2; n++) {
        struct ring *ring = NULL;
        mem_test_fail_after(n);
        enum ferry_err err = ring_new(s.nodes, 3, &ring);
        mem_test_fail_after(0);
        assert_int_equal(err, FERRY_ERR_NO_MEMORY);
        assert_null(ring);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_nodes_in_any_order_give_the_same_placement),
        cmocka_unit_test(a_known_placement_stays_as_it_is),
        cmocka_unit_test(leaders_are_spread_over_the_nodes_that_have_replicas),
        cmocka_unit_test(another_topic_is_placed_otherwise),
        cmocka_unit_test(replicas_are_distinct_and_loads_are_bounded_in_every_shape),
        cmocka_unit_test(zones_are_distinct_while_there_are_zones_left),
        cmocka_unit_test(a_lonely_zone_carries_one_of_each_partition),
        cmocka_unit_test(weights_are_respected),
        cmocka_unit_test(a_very_heavy_node_holds_each_partition_once),
        cmocka_unit_test(a_node_of_weight_0_takes_nothing),
        cmocka_unit_test(a_ring_without_usable_nodes_places_nobody),
        cmocka_unit_test(a_new_node_moves_at_most_its_part_and_5_percent),
        cmocka_unit_test(jump_agrees_with_published_vectors),
        cmocka_unit_test(jump_moves_only_to_the_new_bucket_and_about_its_part),
        cmocka_unit_test(keys_spread_evenly),
        cmocka_unit_test(the_empty_key_has_a_partition),
        cmocka_unit_test(the_greatest_number_of_buckets_works),
        cmocka_unit_test(bad_nodes_are_refused),
        cmocka_unit_test(numbers_outside_their_limits_are_refused),
        cmocka_unit_test(a_failed_allocation_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
