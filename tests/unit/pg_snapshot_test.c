/* Snapshots and covers of the PostgreSQL source against naive twins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "outbox/postgresql/cover.h"

#define XIDS 400u

static struct snapshot *parse(const char *text)
{
    struct snapshot *s = NULL;
    assert_int_equal(snapshot_parse(bytes_of_string(text), &s), FERRY_OK);
    return s;
}

/* A random snapshot near `start`, and what it sees, by brute force. */
static struct snapshot *random_snapshot(struct prng *p, uint64_t start, bool sees[XIDS])
{
    struct buf text;
    buf_init(&text, 1 << 16);
    uint64_t xmax = 1 + prng_below(p, XIDS - 1);
    uint64_t xmin = xmax;
    uint64_t density = 1 + prng_below(p, 20);
    bool open[XIDS] = {false};
    for (uint64_t i = 0; i < XIDS; i++) {
        open[i] = i + 1 < xmax && prng_below(p, density) == 0; /* The last one has finished. */
        sees[i] = i < xmax && !open[i];
        xmin = open[i] && i < xmin ? i : xmin;
    }
    buf_printf(&text, "%llu:%llu:", (unsigned long long)(start + xmin),
               (unsigned long long)(start + xmax));
    bool first = true;
    for (uint64_t i = 0; i < xmax; i++) {
        if (open[i]) {
            buf_printf(&text, first ? "%llu" : ",%llu", (unsigned long long)(start + i));
            first = false;
        }
    }
    struct snapshot *s = NULL;
    assert_int_equal(snapshot_parse(buf_bytes(&text), &s), FERRY_OK);
    struct buf again;
    buf_init(&again, 1 << 16);
    snapshot_text(s, &again);
    assert_true(bytes_equal(buf_bytes(&text), buf_bytes(&again)));
    buf_fini(&text);
    buf_fini(&again);
    return s;
}

/* What is coded comes back, alone and as a step; what is visible is what a list says. */
static void snapshots_are_what_a_list_says(void **state)
{
    (void)state;
    struct prng p;
    uint64_t seed = (uint64_t)(uintptr_t)&p;
    print_message("seed %llu\n", (unsigned long long)seed);
    prng_init(&p, seed);
    for (int round = 0; round < 500; round++) {
        bool a_sees[XIDS];
        bool b_sees[XIDS];
        uint64_t start = prng_next(&p) >> (1 + prng_below(&p, 60));
        struct snapshot *a = random_snapshot(&p, start, a_sees);
        struct snapshot *b = random_snapshot(&p, start, b_sees);
        bool covers = true;
        for (uint64_t i = 0; i < XIDS; i++) {
            assert_int_equal(snapshot_sees(a, start + i), a_sees[i]);
            covers = covers && (a_sees[i] || !b_sees[i]);
        }
        assert_int_equal(snapshot_covers(a, b), covers);
        struct buf out;
        buf_init(&out, 1 << 16);
        snapshot_encode(a, &out);
        assert_int_equal(out.size, snapshot_bytes(a));
        snapshot_encode_step(a, b, &out);
        struct bytes in = buf_bytes(&out);
        struct snapshot *a2 = NULL;
        struct snapshot *b2 = NULL;
        assert_int_equal(snapshot_decode(&in, &a2), FERRY_OK);
        assert_int_equal(snapshot_decode_step(a2, &in, &b2), FERRY_OK);
        assert_int_equal(in.size, 0);
        assert_true(snapshot_equal(a, a2));
        assert_true(snapshot_equal(b, b2));
        buf_fini(&out);
        snapshot_release(&a);
        snapshot_release(&b);
        snapshot_release(&a2);
        snapshot_release(&b2);
    }
}

/* Bytes that are none are refused, never read past their end. */
static void damaged_bytes_are_refused_or_make_sense(void **state)
{
    (void)state;
    struct prng p;
    prng_init(&p, 7);
    struct cover c = {.base = parse("10:20:10,15"), .upper = parse("15:40:15,33,39"), .seq_hi = 5};
    struct cover_place place = {.system = 1, .timeline = 2, .lsn = 3, .database = 4};
    struct source_blob blob;
    cover_encode(&c, &place, &blob);
    for (int round = 0; round < 20000; round++) {
        struct source_blob bad = blob;
        bad.size = prng_below(&p, 4) == 0 ? (size_t)prng_below(&p, blob.size + 1) : blob.size;
        bad.data[prng_below(&p, blob.size)] = (uint8_t)prng_next(&p);
        uint8_t *exact = malloc(bad.size == 0 ? 1 : bad.size);
        assert_non_null(exact);
        memcpy(exact, bad.data, bad.size);
        struct cover back = {0};
        struct cover_place where;
        if (cover_decode(bytes_of(exact, bad.size), &back, &where, NULL) == FERRY_OK) {
            for (uint32_t i = 1; i < back.base->count; i++) {
                assert_true(back.base->xips[i] > back.base->xips[i - 1]);
            }
        }
        cover_fini(&back);
        free(exact);
    }
    cover_fini(&c);
}

/* What a cover has: all of the base, and of the upper up to a number. */
static void a_cover_has_its_base_and_a_part_of_its_upper(void **state)
{
    (void)state;
    struct cover c = {.base = parse("10:20:10,15"), .upper = parse("15:40:15"), .seq_hi = 100};
    assert_true(cover_has(&c, 9, 500));
    assert_false(cover_has(&c, 15, 1));
    assert_true(cover_has(&c, 10, 100));
    assert_false(cover_has(&c, 10, 101));
    assert_true(cover_has(&c, 39, 100));
    assert_false(cover_has(&c, 40, 1));
    struct cover settled = {.base = parse("15:40:15")};
    cover_raise(&c, &settled);
    assert_null(c.upper);
    assert_true(cover_has(&c, 39, 101));
    cover_fini(&c);
    cover_fini(&settled);
}

/* Two snapshots with as many open transactions as are allowed fit a blob. */
static void the_largest_snapshots_fit_a_blob(void **state)
{
    (void)state;
    for (uint64_t step = 1; step < 300; step += 37) {
        struct snapshot *largest[2] = {NULL, NULL};
        for (uint64_t which = 0; which < 2; which++) {
            for (uint64_t count = 100; count <= SNAPSHOT_XIPS_MAX; count += 10) {
                struct buf text;
                struct snapshot *s = NULL;
                uint64_t start = 1000000000 + which * 1000000;
                buf_init(&text, 1 << 20);
                buf_printf(&text, "%llu:%llu:", (unsigned long long)start,
                           (unsigned long long)(start + count * step + 1));
                for (uint64_t i = 0; i < count; i++) {
                    buf_printf(&text, i == 0 ? "%llu" : ",%llu",
                               (unsigned long long)(start + i * step));
                }
                if (snapshot_parse(buf_bytes(&text), &s) == FERRY_OK) {
                    snapshot_set(&largest[which], s);
                }
                snapshot_release(&s);
                buf_fini(&text);
            }
        }
        assert_true(largest[0]->count >= 900);
        struct cover c = {.base = largest[0], .upper = largest[1], .seq_hi = 1};
        struct cover_place place = {.has_last = true};
        struct source_blob blob;
        cover_encode(&c, &place, &blob);
        assert_true(blob.size > 0);
        cover_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_are_what_a_list_says),
        cmocka_unit_test(damaged_bytes_are_refused_or_make_sense),
        cmocka_unit_test(a_cover_has_its_base_and_a_part_of_its_upper),
        cmocka_unit_test(the_largest_snapshots_fit_a_blob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
