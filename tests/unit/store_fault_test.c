/* Crashes and failing writes: what was committed stays, what failed is final. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "store_fixture.h"

#define KILLS 20

/* ---- kill -9 ---- */

/* The child: appends to two groups, trims the first, and tells each index that is committed. */
static void write_until_killed(struct fixture *f, int out)
{
    struct store *s = NULL;
    uint64_t first;
    uint64_t last;
    if (store_open(&f->config, &s, NULL) != FERRY_OK || store_read_begin(s) != FERRY_OK ||
        store_log_bounds(s, 1, &first, &last) != FERRY_OK) {
        _exit(2);
    }
    store_read_end(s);
    for (uint64_t index = last + 1;; index++) {
        uint8_t data[9000];
        uint32_t deleted;
        uint64_t bytes;
        size_t size = (size_t)(index * 631 % sizeof(data));
        payload_fill(data, size, 1, index);
        struct store_entry entry = entry_of(STORE_ENTRY_BATCH, data, size);
        struct store_group g = {.group = 1, .term = 1, .commit = index};
        if (store_begin(s) != FERRY_OK || store_append(s, 1, index, &entry) != FERRY_OK ||
            store_append(s, 2, index, &entry) != FERRY_OK || store_put_group(s, &g) != FERRY_OK ||
            (index > 50 &&
             store_delete_entries(s, 1, index - 50, index - 50, 1, &deleted, &bytes) != FERRY_OK) ||
            store_commit(s) != FERRY_OK || write(out, &index, sizeof(index)) != sizeof(index)) {
            _exit(3);
        }
    }
}

/* Reads what the child says until `count` are told, kills it, and reads the rest. */
static uint64_t kill_after(pid_t pid, int in, uint64_t count)
{
    uint64_t acked = 0;
    uint64_t index = 0;
    for (uint64_t told = 0; read(in, &index, sizeof(index)) == sizeof(index);) {
        acked = index;
        if (++told == count) {
            assert_int_equal(kill(pid, SIGKILL), 0);
        }
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return acked;
}

static void expect_all_up_to(struct store *s, uint64_t acked)
{
    uint64_t first;
    uint64_t last;
    struct store_group g;
    assert_int_equal(store_read_begin(s), FERRY_OK);
    assert_int_equal(store_log_bounds(s, 1, &first, &last), FERRY_OK);
    assert_true(last >= acked && last <= acked + 1);
    assert_int_equal(store_get_group(s, 1, &g), FERRY_OK);
    assert_true(g.commit == last);
    for (uint64_t i = first; i <= last; i++) {
        expect_entry(s, 1, i, (size_t)(i * 631 % 9000));
    }
    assert_int_equal(store_log_bounds(s, 2, &first, &last), FERRY_OK);
    assert_true(first == 1 && last == g.commit);
    store_read_end(s);
}

/* The kill comes while the child goes on: anywhere in a turn. Every commit it told is there. */
static void what_was_acked_survives_kill_9(void **state)
{
    struct fixture *f = *state;
    struct prng p;
    uint64_t seed = 20;
    print_message("seed %llu\n", (unsigned long long)seed);
    prng_init(&p, seed);
    fixture_open(f);
    for (int round = 0; round < KILLS; round++) {
        int ends[2];
        store_close(&f->store);
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(ends[0]);
            write_until_killed(f, ends[1]);
        }
        (void)close(ends[1]);
        uint64_t acked = kill_after(pid, ends[0], 1 + prng_below(&p, 40));
        (void)close(ends[0]);
        fixture_open(f);
        expect_all_up_to(f->store, acked);
    }
}

/* ---- A write that fails ---- */

/* No write past `bytes` of any file succeeds (EFBIG). RLIM_INFINITY ends it. */
static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static enum ferry_err ignore_group(const struct store_group *g, void *arg)
{
    (void)g;
    (void)arg;
    return FERRY_OK;
}

static void expect_nothing_answers(struct store *s)
{
    struct err_text e = {{0}};
    assert_int_equal(store_begin(s), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_read_begin(s), FERRY_ERR_STORE_FAILED);
    assert_false(store_has_room(s, 1));
    assert_int_equal(store_failure(s, &e), FERRY_ERR_STORE_FAILED);
    assert_non_null(strstr(e.text, "commit"));
    assert_non_null(strstr(e.text, "restart ferryd"));
}

static void a_failed_commit_is_final_until_the_store_is_opened_again(void **state)
{
    struct fixture *f = *state;
    struct err_text e;
    fixture_open(f);
    append_one(f->store, 1, 1, 1000);
    assert_int_equal(store_failure(f->store, &e), FERRY_OK);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    append_in_turn(f->store, 1, 2, 100000);
    limit_file_size(8192);
    enum ferry_err err = store_commit(f->store);
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(err, FERRY_ERR_STORE_FAILED);
    /* The disk is well again, and still nothing is tried. */
    expect_nothing_answers(f->store);
    fixture_reopen(f);
    struct store_entry entry;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    expect_entry(f->store, 1, 1, 1000);
    assert_int_equal(store_get_entry(f->store, 1, 2, &entry), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    store_read_end(f->store);
    append_one(f->store, 1, 2, 100000);
}

/* A view that was open when the commit failed: its bytes stay, every further question is refused.
 */
static void a_view_answers_nothing_after_a_failed_commit(void **state)
{
    struct fixture *f = *state;
    struct store_entry entry;
    struct store_group g;
    struct bytes value;
    struct store_cursor c = {0};
    struct store_cursor other = {0};
    uint64_t a;
    uint64_t b;
    bool found;
    fixture_open(f);
    append_one(f->store, 1, 1, 1000);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_cursor_open(f->store, 1, 1, &c), FERRY_OK);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    append_in_turn(f->store, 1, 2, 100000);
    limit_file_size(8192);
    enum ferry_err err = store_commit(f->store);
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(err, FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_get_entry(f->store, 1, 1, &entry), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_cursor_next(&c, &a, &entry), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_cursor_open(f->store, 1, 1, &other), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_log_bounds(f->store, 1, &a, &b), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_get_group(f->store, 1, &g), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_each_group(f->store, ignore_group, NULL), FERRY_ERR_STORE_FAILED);
    assert_int_equal(store_get(f->store, 1, 1, bytes_of("k", 1), &found, &value),
                     FERRY_ERR_STORE_FAILED);
    store_cursor_close(&c);
    store_read_end(f->store);
    expect_nothing_answers(f->store);
}

/* A turn that could not be written whole is not written at all. */
static void a_turn_that_met_a_full_map_is_aborted_and_the_store_goes_on(void **state)
{
    struct fixture *f = *state;
    f->config.max_bytes = 4 * MIB;
    fixture_open(f);
    append_one(f->store, 1, 1, 1000);
    uint8_t *data = calloc(1, MIB);
    assert_non_null(data);
    struct store_entry entry = entry_of(STORE_ENTRY_BATCH, data, MIB);
    enum ferry_err err = FERRY_OK;
    assert_int_equal(store_begin(f->store), FERRY_OK);
    for (uint64_t index = 2; err == FERRY_OK && index < 10; index++) {
        err = store_append(f->store, 1, index, &entry);
    }
    free(data);
    assert_int_equal(err, FERRY_ERR_STORAGE_FULL);
    store_abort(f->store);
    assert_int_equal(store_failure(f->store, NULL), FERRY_OK);
    append_one(f->store, 1, 2, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(what_was_acked_survives_kill_9),
        store_test(a_failed_commit_is_final_until_the_store_is_opened_again),
        store_test(a_view_answers_nothing_after_a_failed_commit),
        store_test(a_turn_that_met_a_full_map_is_aborted_and_the_store_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
