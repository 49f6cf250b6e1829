/* The pure parts of MariaDB's source: id lists, the set of what was handed out, and URLs. */
#include <stdio.h>

#if FERRY_HAVE_MARIADB

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "outbox/mariadb/handout.h"
#include "outbox/mariadb/id_list.h"
#include "outbox/mariadb/maria_url.h"

#define IDS 3000

/* ---- id_list. */

static size_t random_ids(struct prng *p, uint64_t *ids)
{
    size_t count = (size_t)prng_below(p, IDS);
    uint64_t spread = 1 + prng_below(p, 200);
    uint64_t id = prng_below(p, 4) == 0 ? prng_next(p) >> 3 : 0;
    for (size_t i = 0; i < count; i++) {
        id += 1 + (prng_below(p, 2) == 0 ? prng_below(p, spread) : 0);
        ids[i] = id;
    }
    return count;
}

/* What is encoded is decoded to the same, in as many bytes as were told. */
static void lists_come_back(void **state)
{
    (void)state;
    static uint64_t ids[IDS];
    static uint64_t back[IDS];
    static uint8_t bytes[10 * IDS];
    struct prng p;
    prng_init(&p, 7);
    for (int round = 0; round < 300; round++) {
        size_t count = random_ids(&p, ids);
        size_t size = id_list_bytes(ids, count);
        assert_true(size <= sizeof(bytes));
        memset(bytes, 0xee, sizeof(bytes));
        id_list_encode(ids, count, bytes);
        assert_true(size == sizeof(bytes) || bytes[size] == 0xee);
        size_t count_back = 0;
        assert_int_equal(id_list_decode(bytes_of(bytes, size), back, IDS, &count_back), FERRY_OK);
        assert_int_equal(count_back, count);
        assert_memory_equal(back, ids, count * sizeof(ids[0]));
        if (count > 0) {
            assert_int_equal(id_list_decode(bytes_of(bytes, size), back, count - 1, &count_back),
                             FERRY_ERR_CORRUPT);
        }
    }
}

/* Ids close together take a byte each; a run of any length takes few. */
static void lists_are_short(void **state)
{
    (void)state;
    static uint64_t ids[IDS];
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = 1000000 + i;
    }
    assert_true(id_list_bytes(ids, IDS) <= 6);
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = 1000000 + 16 * i;
    }
    assert_true(id_list_bytes(ids, IDS) <= IDS + 3);
}

/* Whatever bytes come, decoding ends; what it takes encodes to the same bytes. */
static void garbage_is_refused_or_the_only_form(void **state)
{
    (void)state;
    static uint64_t ids[IDS];
    uint8_t bytes[24];
    uint8_t again[240];
    struct prng p;
    prng_init(&p, 8);
    size_t taken = 0;
    for (int round = 0; round < 200000; round++) {
        size_t size = (size_t)prng_below(&p, sizeof(bytes));
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (uint8_t)(prng_next(&p) >> (prng_below(&p, 3) == 0 ? 8 : 57));
        }
        size_t count = 0;
        if (id_list_decode(bytes_of(bytes, size), ids, IDS, &count) == FERRY_OK) {
            taken++;
            assert_int_equal(id_list_bytes(ids, count), size);
            id_list_encode(ids, count, again);
            assert_memory_equal(again, bytes, size);
        }
    }
    assert_true(taken > 1000);
}

/* ---- handout, against a table and a twin. */

#define ROWS 400

enum twin { TWIN_ABSENT, TWIN_WAITS, TWIN_HANDED, TWIN_DONE, TWIN_GONE };

struct world {
    struct handout h;
    struct prng p;
    enum twin rows[ROWS + 1]; /* By id. WAITS: in the table, not handed out. */
    int64_t positions[ROWS + 1];
    bool published[ROWS + 1];
    int64_t position;
    uint64_t deleting[16];
    size_t deleting_count;
};

static struct handout_sum table_sum(const struct world *w, bool recent, uint64_t through,
                                    bool handed_only)
{
    struct handout_sum sum = {0};
    for (uint64_t id = 1; id <= through && id <= ROWS; id++) {
        bool there = w->rows[id] == TWIN_HANDED || w->rows[id] == TWIN_DONE ||
                     (!handed_only && w->rows[id] == TWIN_WAITS);
        if (there && (!recent || id > w->h.low)) {
            handout_sum_add(&sum, id);
        }
    }
    return sum;
}

static void world_hand_out(struct world *w)
{
    for (int i = 0; i < 5; i++) {
        uint64_t id = 1 + prng_below(&w->p, ROWS);
        if (w->rows[id] == TWIN_WAITS && handout_find(&w->h, id) == NULL &&
            handout_room(&w->h) > 0) {
            struct ferry_id msg_id = {{(uint8_t)id}};
            w->positions[id] = ++w->position;
            handout_add(&w->h, id, w->position, &msg_id);
            w->rows[id] = TWIN_HANDED;
        }
    }
}

static void world_publish(struct world *w)
{
    uint64_t id = 1 + prng_below(&w->p, ROWS);
    if (w->rows[id] == TWIN_HANDED) {
        assert_true(handout_publish(&w->h, id));
        w->rows[id] = TWIN_DONE;
    }
}

static void world_rewind(struct world *w)
{
    int64_t after = w->h.settled + (int64_t)prng_below(&w->p, 50);
    uint64_t least = handout_rewind(&w->h, after);
    uint64_t expected = 0;
    for (uint64_t id = 1; id <= ROWS; id++) {
        if (w->rows[id] == TWIN_HANDED && w->positions[id] > after) {
            w->rows[id] = TWIN_WAITS;
            expected = expected == 0 ? id : expected;
            assert_null(handout_find(&w->h, id));
        }
    }
    assert_int_equal(least, expected);
}

static void world_settle(struct world *w)
{
    int64_t to = w->h.settled + (int64_t)prng_below(&w->p, 10);
    to = to > w->position ? w->position : to;
    handout_settle(&w->h, to);
    for (uint64_t id = 1; id <= ROWS; id++) {
        if (w->rows[id] == TWIN_HANDED && w->positions[id] <= to) {
            w->rows[id] = TWIN_DONE;
        }
    }
}

static void world_delete(struct world *w)
{
    if (w->deleting_count == 0) {
        w->deleting_count = handout_take(&w->h, w->deleting, 16);
        for (size_t i = 1; i < w->deleting_count; i++) {
            assert_true(w->deleting[i] > w->deleting[i - 1]);
        }
        return;
    }
    if (prng_below(&w->p, 3) == 0) {
        handout_not_deleted(&w->h, w->deleting, w->deleting_count);
    } else {
        handout_deleted(&w->h, w->deleting, w->deleting_count);
        for (size_t i = 0; i < w->deleting_count; i++) {
            assert_int_equal(w->rows[w->deleting[i]], TWIN_DONE);
            w->rows[w->deleting[i]] = TWIN_GONE;
        }
    }
    w->deleting_count = 0;
}

static void world_sweep(struct world *w)
{
    uint64_t through = prng_below(&w->p, ROWS + 1);
    bool late = false;
    handout_sweep_begin(&w->h);
    for (uint64_t id = 1; id <= through; id++) {
        if (w->rows[id] == TWIN_WAITS) {
            assert_false(handout_sweep_id(&w->h, id));
            late = true;
        } else if (w->rows[id] == TWIN_HANDED || w->rows[id] == TWIN_DONE) {
            assert_true(handout_sweep_id(&w->h, id));
        }
    }
    handout_sweep_end(&w->h, 0, through);
    struct handout_sum is = table_sum(w, false, through, false);
    struct handout_sum should = handout_expected(&w->h, false, through);
    assert_int_equal(late, is.count != should.count);
}

static void world_check(struct world *w)
{
    handout_check(&w->h);
    bool recent = prng_below(&w->p, 2) == 0;
    uint64_t through = prng_below(&w->p, 2) == 0 ? ROWS : prng_below(&w->p, ROWS);
    struct handout_sum is = table_sum(w, recent, through, true);
    struct handout_sum should = handout_expected(&w->h, recent, through);
    assert_int_equal(is.count, should.count);
    assert_int_equal(is.ids, should.ids);
    for (uint64_t id = 1; id <= ROWS; id++) {
        const struct handout_row *row = handout_find(&w->h, id);
        if (w->rows[id] == TWIN_HANDED) {
            assert_int_equal(row->state, HANDOUT_HANDED);
        } else if (w->rows[id] == TWIN_DONE) {
            assert_true(row->state == HANDOUT_DUE || row->state == HANDOUT_DELETING);
        } else if (w->rows[id] == TWIN_GONE) {
            /* While its position is not settled it is known to be done. */
            assert_true(row == NULL ? w->positions[id] <= w->h.settled
                                    : row->state == HANDOUT_DELETED);
        } else {
            assert_null(row);
        }
    }
}

static void handout_is_its_twin(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct world w = {0};
        prng_init(&w.p, seed);
        assert_int_equal(handout_init(&w.h, 300), FERRY_OK);
        for (int step = 0; step < 3000; step++) {
            uint64_t id = 1 + prng_below(&w.p, ROWS);
            switch (prng_below(&w.p, 9)) {
            case 0:
            case 1:
                w.rows[id] = w.rows[id] == TWIN_ABSENT ? TWIN_WAITS : w.rows[id];
                break;
            case 2:
                world_hand_out(&w);
                break;
            case 3:
                world_publish(&w);
                break;
            case 4:
                world_settle(&w);
                break;
            case 5:
                world_delete(&w);
                break;
            case 6:
                world_sweep(&w);
                break;
            case 7:
                if (prng_below(&w.p, 10) == 0) {
                    world_rewind(&w);
                }
                break;
            default:
                handout_set_low(&w.h, prng_below(&w.p, ROWS));
                break;
            }
            world_check(&w);
        }
        handout_fini(&w.h);
    }
}

/* A row that somebody else deleted is not expected any more, and is when it is there after all. */
static void a_sweep_notices_what_is_gone(void **state)
{
    (void)state;
    struct handout h;
    struct ferry_id id = {{1}};
    assert_int_equal(handout_init(&h, 10), FERRY_OK);
    handout_add(&h, 3, 1, &id);
    handout_add(&h, 5, 2, &id);
    handout_sweep_begin(&h);
    assert_true(handout_sweep_id(&h, 5));
    handout_sweep_end(&h, 0, 5);
    assert_int_equal(handout_expected(&h, false, 9).count, 1);
    handout_sweep_begin(&h);
    assert_true(handout_sweep_id(&h, 3));
    assert_true(handout_sweep_id(&h, 5));
    handout_sweep_end(&h, 0, 5);
    assert_int_equal(handout_expected(&h, false, 9).count, 2);
    handout_check(&h);
    handout_fini(&h);
}

/* ---- maria_url. */

static void urls_are_taken_apart(void **state)
{
    (void)state;
    struct maria_url u;
    struct err_text e = {{0}};
    assert_int_equal(maria_url_parse("mariadb://me:p%40%2fss@db.example:3307/shop", &u, &e),
                     FERRY_OK);
    assert_string_equal(u.user, "me");
    assert_string_equal(u.password, "p@/ss");
    assert_string_equal(u.host, "db.example");
    assert_int_equal(u.port, 3307);
    assert_string_equal(u.database, "shop");
    assert_string_equal(u.shown, "mariadb://me@db.example:3307/shop");
    assert_int_equal(
        maria_url_parse("mysql:///shop?socket=/run/x%20y&ssl=verify&ssl_ca=/ca", &u, &e), FERRY_OK);
    assert_string_equal(u.socket, "/run/x y");
    assert_int_equal(u.ssl, MARIA_SSL_VERIFY);
    assert_string_equal(u.ssl_ca, "/ca");
    assert_string_equal(u.host, "");
    assert_int_equal(maria_url_parse("mariadb://a@[::1]:3306/x", &u, &e), FERRY_OK);
    assert_string_equal(u.host, "::1");
    assert_string_equal(u.shown, "mariadb://a@[::1]:3306/x");
    assert_int_equal(maria_url_parse("mariadb://a:s@cret@h/x", &u, &e), FERRY_OK);
    assert_string_equal(u.password, "s@cret");
}

static void bad_urls_are_refused_without_the_password(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "mariadb:",
        "mariadb://",
        "mariadb://me:hushhush@host",
        "mariadb://me:hushhush@host/",
        "mariadb://me:hushhush@host:0/x",
        "mariadb://me:hushhush@host:65536/x",
        "mariadb://me:hushhush@host:/x",
        "mariadb://me:hushhush@host:12a/x",
        "mariadb://me:hushhush%4@host/x",
        "mariadb://me:hushhush%zz@host/x",
        "mariadb://me:hushhush%00@host/x",
        "mariadb://me:hushhush@[::1/x",
        "mariadb://me:hushhush@[::1]x/x",
        "mariadb://me:hushhush@host/x?ssl=maybe",
        "mariadb://me:hushhush@host/x?password=hushhush",
        "postgresql://me:hushhush@host/x",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct maria_url u;
        struct err_text e = {{0}};
        assert_int_equal(maria_url_parse(bad[i], &u, &e), FERRY_ERR_INVALID_ARGUMENT);
        assert_null(strstr(e.text, "hushhush"));
        assert_non_null(strstr(e.text, "mariadb://user"));
    }
    char text[1000] = "mariadb://h/";
    memset(text + strlen(text), 'x', 256);
    struct maria_url u;
    assert_int_equal(maria_url_parse(text, &u, NULL), FERRY_ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_come_back),
        cmocka_unit_test(lists_are_short),
        cmocka_unit_test(garbage_is_refused_or_the_only_form),
        cmocka_unit_test(handout_is_its_twin),
        cmocka_unit_test(a_sweep_notices_what_is_gone),
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(bad_urls_are_refused_without_the_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    fprintf(stderr, "SKIPPED: built without libmariadb\n");
    return 0;
}

#endif
