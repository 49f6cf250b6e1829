/* Room: the file grows ahead, a full disk is told before, and room comes back by itself. */
#include <errno.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "store_fixture.h"

#define WAIT_US 5000000

static int64_t file_size(const struct fixture *f)
{
    char name[400];
    struct stat st;
    (void)snprintf(name, sizeof(name), "%s/data.mdb", f->folder);
    assert_int_equal(stat(name, &st), 0);
    return st.st_size;
}

/* The blocks are there, not only the size. */
static void a_new_file_has_its_reserve_allocated(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char name[400];
    f->config.grow_bytes = 3 * MIB;
    f->config.reserve_bytes = 5 * MIB;
    fixture_open(f);
    (void)snprintf(name, sizeof(name), "%s/data.mdb", f->folder);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_size, 6 * MIB);
    assert_true(st.st_blocks * 512 >= 6 * MIB);
}

static void the_file_grows_in_steps_up_to_its_limit(void **state)
{
    struct fixture *f = *state;
    f->config.grow_bytes = 4 * MIB;
    f->config.max_bytes = 50 * MIB;
    f->config.reserve_bytes = 2 * MIB;
    fixture_open(f);
    uint64_t index = 0;
    int64_t before = file_size(f);
    while (store_has_room(f->store, 500000)) {
        append_one(f->store, 1, ++index, 500000);
        int64_t now = file_size(f);
        assert_true(now == before || now % (4 * MIB) == 0 || now == 50 * MIB);
        assert_true(now <= 50 * MIB);
        before = now;
    }
    struct store_stats stats;
    store_stats(f->store, &stats);
    assert_int_equal(stats.file_bytes, 50 * MIB);
    assert_true(stats.used_bytes > 46 * MIB);
    assert_true(stats.file_bytes - stats.used_bytes >= 2 * MIB);
    fixture_reopen(f);
    assert_false(store_has_room(f->store, 500000));
}

/* As cp and rsync leave it when told to save space. */
static void a_sparse_file_gets_its_blocks_at_open(void **state)
{
    struct fixture *f = *state;
    struct store_stats stats;
    struct stat st;
    char name[400];
    fixture_open(f);
    append_one(f->store, 1, 1, 1000);
    store_stats(f->store, &stats);
    store_close(&f->store);
    (void)snprintf(name, sizeof(name), "%s/data.mdb", f->folder);
    assert_int_equal(truncate(name, stats.used_bytes), 0);
    assert_int_equal(truncate(name, stats.file_bytes), 0);
    fixture_open(f);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_size, stats.file_bytes);
    assert_true(st.st_blocks * 512 >= stats.file_bytes);
}

/* Without a view or a write in the way; a view keeps the map where it is, and the answer honest. */
static void a_view_keeps_the_file_from_growing_under_it(void **state)
{
    struct fixture *f = *state;
    f->config.grow_bytes = 4 * MIB;
    fixture_open(f);
    int64_t before = file_size(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_false(store_has_room(f->store, STORE_TURN_BYTES));
    assert_int_equal(file_size(f), before);
    store_read_end(f->store);
    assert_true(store_has_room(f->store, STORE_TURN_BYTES));
    assert_true(file_size(f) > before);
}

static void delete_up_to(struct store *s, uint64_t first, uint64_t last)
{
    uint32_t deleted;
    uint64_t bytes;
    assert_int_equal(store_begin(s), FERRY_OK);
    assert_int_equal(store_delete_entries(s, 1, first, last, 1000000, &deleted, &bytes), FERRY_OK);
    assert_int_equal(store_commit(s), FERRY_OK);
}

static void await_room(struct store *s, size_t bytes)
{
    int64_t deadline = clock_monotonic_us() + WAIT_US;
    while (!store_has_room(s, bytes)) {
        assert_true(clock_monotonic_us() < deadline);
    }
}

static void write_rows(struct store *s, uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++) {
        struct store_group g = {.group = i % 7, .term = i};
        assert_int_equal(store_begin(s), FERRY_OK);
        assert_int_equal(store_put_group(s, &g), FERRY_OK);
        assert_int_equal(store_put(s, 1, 1, bytes_of(&i, 1), bytes_of(&i, 8)), FERRY_OK);
        assert_int_equal(store_commit(s), FERRY_OK);
    }
}

/* Fills until produce is refused, shows that rows still commit, trims, and fills again. */
static void fill_and_free(struct fixture *f)
{
    uint64_t last = 0;
    uint64_t first = 1;
    while (store_has_room(f->store, 60000)) {
        append_one(f->store, 1, ++last, 60000);
        assert_true(last < 10000);
    }
    assert_true(last > 50);
    write_rows(f->store, 300);
    assert_false(store_has_room(f->store, 60000));
    for (int round = 0; round < 5; round++) {
        uint64_t before = last;
        delete_up_to(f->store, first, last - 20);
        first = last - 19;
        write_rows(f->store, 2);
        await_room(f->store, 60000);
        while (store_has_room(f->store, 60000)) {
            append_one(f->store, 1, ++last, 60000);
        }
        assert_true(last > before + 10);
        write_rows(f->store, 50);
    }
    assert_int_equal(store_failure(f->store, NULL), FERRY_OK);
    fixture_reopen(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (uint64_t i = first; i <= last; i++) {
        expect_entry(f->store, 1, i, 60000);
    }
    store_read_end(f->store);
}

static void a_log_at_its_limit_refuses_then_takes_again_what_trims_free(void **state)
{
    struct fixture *f = *state;
    f->config.max_bytes = 16 * MIB;
    f->config.grow_bytes = 2 * MIB;
    fixture_open(f);
    fill_and_free(f);
}

/* ---- A disk that is really full ---- */

static bool mount_small(struct fixture *f)
{
    char disk[300];
    (void)snprintf(disk, sizeof(disk), "%s/disk", f->root);
    assert_int_equal(mkdir(disk, 0700), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=16m") != 0) {
        print_message("SKIPPED: cannot mount a tmpfs (%s); run as root to test a full disk\n",
                      strerror(errno));
        return false;
    }
    (void)snprintf(f->folder, sizeof(f->folder), "%s/disk/shard", f->root);
    return true;
}

static int teardown_mounted(void **state)
{
    struct fixture *f = *state;
    char disk[300];
    store_close(&f->store);
    (void)snprintf(disk, sizeof(disk), "%s/disk", f->root);
    (void)umount(disk);
    return fixture_teardown(state);
}

static void a_full_disk_refuses_produce_and_commits_the_rest(void **state)
{
    struct fixture *f = *state;
    if (!mount_small(f)) {
        skip();
    }
    f->config.grow_bytes = 2 * MIB;
    fixture_open(f);
    fill_and_free(f);
}

static void room_returns_when_others_free_the_disk(void **state)
{
    struct fixture *f = *state;
    char name[400];
    uint64_t last = 0;
    if (!mount_small(f)) {
        skip();
    }
    (void)snprintf(name, sizeof(name), "%s/disk/ballast", f->root);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fallocate(fd, 0, 0, 8 * MIB), 0);
    (void)close(fd);
    f->config.grow_bytes = 1 * MIB;
    fixture_open(f);
    while (store_has_room(f->store, 60000)) {
        append_one(f->store, 1, ++last, 60000);
    }
    struct store_stats stats;
    store_stats(f->store, &stats);
    assert_true(stats.file_bytes >= 7 * MIB && stats.file_bytes <= 8 * MIB);
    assert_int_equal(file_size(f), stats.file_bytes);
    assert_int_equal(unlink(name), 0);
    await_room(f->store, 60000);
    append_one(f->store, 1, ++last, 60000);
}

static void a_disk_too_small_for_the_reserve_is_refused_at_open(void **state)
{
    struct fixture *f = *state;
    char name[400];
    if (!mount_small(f)) {
        skip();
    }
    f->config.reserve_bytes = 20 * MIB;
    fixture_refuses(f, FERRY_ERR_STORAGE_FULL, "free space");
    /* Nothing half-made stays. */
    (void)snprintf(name, sizeof(name), "%s/data.new", f->folder);
    assert_int_equal(access(name, F_OK), -1);
    f->config.reserve_bytes = 1 * MIB;
    fixture_open(f);
}

#define mounted_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, teardown_mounted)

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(a_new_file_has_its_reserve_allocated),
        store_test(the_file_grows_in_steps_up_to_its_limit),
        store_test(a_sparse_file_gets_its_blocks_at_open),
        store_test(a_view_keeps_the_file_from_growing_under_it),
        store_test(a_log_at_its_limit_refuses_then_takes_again_what_trims_free),
        mounted_test(a_full_disk_refuses_produce_and_commits_the_rest),
        mounted_test(room_returns_when_others_free_the_disk),
        mounted_test(a_disk_too_small_for_the_reserve_is_refused_at_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
