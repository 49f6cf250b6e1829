/* The run list against a naive twin (a plain array of terms), and the arithmetic of majorities. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "raft/quorum.h"
#include "raft/runs.h"

#define TWIN_MAX 400
#define ROUNDS   4000

struct twin {
    raft_term terms[TWIN_MAX + 1]; /* By index. */
    raft_index trim, last;
};

static raft_term twin_term_at(const struct twin *t, raft_index index)
{
    bool known = index >= t->trim && index <= t->last;
    return known ? t->terms[index] : 0;
}

static raft_index twin_find_term(const struct twin *t, raft_index index, raft_term term)
{
    raft_index i = index < t->last ? index : t->last;
    while (i > t->trim && t->terms[i] > term) {
        i--;
    }
    return i > t->trim ? i : t->trim;
}

static void change_both(struct runs *l, struct twin *t, struct prng *p)
{
    uint64_t what = prng_below(p, 10);
    if (what < 7 && t->last + 5 < TWIN_MAX) {
        raft_term term = t->terms[t->last] + prng_below(p, 3);
        term = term > 0 ? term : 1;
        uint64_t count = 1 + prng_below(p, 4);
        assert_true(runs_reserve(l, 1));
        runs_append(l, count, term);
        for (uint64_t i = 0; i < count; i++) {
            t->last++;
            t->terms[t->last] = term;
        }
    } else if (what < 9) {
        raft_index from = t->trim + 1 + prng_below(p, t->last - t->trim + 1);
        runs_truncate(l, from);
        t->last = from - 1;
    } else {
        raft_index index = t->trim + prng_below(p, (t->last - t->trim) / 4 + 1);
        runs_trim(l, index);
        t->trim = index;
    }
}

static void compare_both(const struct runs *l, const struct twin *t, struct prng *p)
{
    runs_check(l);
    assert_int_equal(l->last_index, t->last);
    raft_index index = prng_below(p, t->last + 3);
    assert_int_equal(runs_term_at(l, index), twin_term_at(t, index));
    raft_term term = prng_below(p, t->terms[t->last] + 2);
    assert_int_equal(runs_find_term(l, index, term), twin_find_term(t, index, term));
    if (t->last == t->trim) {
        return;
    }
    raft_index first = t->trim + 1 + prng_below(p, t->last - t->trim);
    raft_index last = first + prng_below(p, t->last - first + 1);
    struct raft_run copied[4];
    raft_index covered = 0;
    size_t count = runs_copy(l, first, last, copied, 4, &covered);
    assert_int_equal(copied[0].first, first);
    assert_true(covered <= last && (covered == last || count == 4));
    for (raft_index i = first, run = 0; i <= covered; i++) {
        run += run + 1 < count && copied[run + 1].first <= i ? 1 : 0;
        assert_int_equal(copied[run].term, t->terms[i]);
    }
}

static void runs_agree_with_a_plain_array(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct prng p;
        prng_init(&p, seed);
        struct runs l;
        struct twin t = {0};
        struct raft_disk empty = {0};
        assert_int_equal(runs_load(&l, &empty), FERRY_OK);
        for (int i = 0; i < ROUNDS; i++) {
            change_both(&l, &t, &p);
            compare_both(&l, &t, &p);
        }
        runs_fini(&l);
    }
}

static void a_majority_is_more_than_half(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 2, 3, 3, 4, 4, 5, 5};
    for (size_t voters = 1; voters <= RAFT_VOTERS_MAX; voters++) {
        assert_int_equal(quorum_size(voters), sizes[voters - 1]);
    }
}

/* The index is reached by a majority, and the next greater one is not. */
static void the_quorum_index_is_the_greatest_a_majority_reached(void **state)
{
    (void)state;
    struct prng p;
    prng_init(&p, 7);
    for (int round = 0; round < ROUNDS; round++) {
        size_t voters = 1 + prng_below(&p, RAFT_VOTERS_MAX);
        raft_index matched[RAFT_VOTERS_MAX];
        for (size_t i = 0; i < voters; i++) {
            matched[i] = prng_below(&p, 12);
        }
        raft_index index = quorum_index(matched, voters);
        size_t reached = 0;
        size_t beyond = 0;
        for (size_t i = 0; i < voters; i++) {
            reached += matched[i] >= index ? 1 : 0;
            beyond += matched[i] > index ? 1 : 0;
        }
        assert_true(reached * 2 > voters);
        assert_false(beyond * 2 > voters);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_agree_with_a_plain_array),
        cmocka_unit_test(a_majority_is_more_than_half),
        cmocka_unit_test(the_quorum_index_is_the_greatest_a_majority_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
