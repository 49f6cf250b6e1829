/* The folder and the file: whose they are, and what is refused before LMDB maps them. */
#include <sys/wait.h>

#include "base/mem.h"
#include "store_fixture.h"

/* ---- Touching the file as a bad disk would ---- */

static void data_name(const struct fixture *f, char out[400])
{
    (void)snprintf(out, 400, "%s/data.mdb", f->folder);
}

static void write_data(const struct fixture *f, off_t at, const void *bytes, size_t size)
{
    char name[400];
    data_name(f, name);
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, at), (ssize_t)size);
    (void)close(fd);
}

static void cut_data(const struct fixture *f, off_t size)
{
    char name[400];
    data_name(f, name);
    assert_int_equal(truncate(name, size), 0);
}

/* Where `needle` is first in the file at or after `from`; -1: nowhere. */
static off_t find_data(const struct fixture *f, off_t from, const void *needle, size_t size)
{
    char name[400];
    struct stat st;
    data_name(f, name);
    int fd = open(name, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *all = malloc((size_t)st.st_size);
    assert_non_null(all);
    assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
    const uint8_t *found = memmem(all + from, (size_t)(st.st_size - from), needle, size);
    off_t at = found != NULL ? found - all : -1;
    free(all);
    (void)close(fd);
    return at;
}

static void flip_data(const struct fixture *f, off_t at)
{
    char name[400];
    uint8_t byte;
    data_name(f, name);
    int fd = open(name, O_RDONLY);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    (void)close(fd);
    byte ^= 0x10;
    write_data(f, at, &byte, 1);
}

/* Every copy of the identity row, in use or not. */
static void patch_identities(const struct fixture *f, off_t field, const void *bytes, size_t size)
{
    size_t patched = 0;
    for (off_t at = 0; (at = find_data(f, at, "FRID", 4)) >= 0; at++) {
        write_data(f, at + field, bytes, size);
        patched++;
    }
    assert_true(patched > 0);
}

/* ---- Whose folder ---- */

static void a_folder_is_made_for_its_owner_only(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char name[400];
    fixture_open(f);
    assert_int_equal(stat(f->folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    data_name(f, name);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_second_open_is_refused_while_the_first_lasts(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    fixture_refuses(f, FERRY_ERR_LOCKED, "stop it first");
    fixture_reopen(f);
}

static void another_process_is_refused_until_this_one_ends(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct store *other = NULL;
        _exit(store_open(&f->config, &other, NULL) == FERRY_ERR_LOCKED ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_folder_of_another_node_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct ferry_id own = store_cluster_id(f->store);
    store_close(&f->store);
    f->config.node_id = 2;
    fixture_refuses(f, FERRY_ERR_WRONG_NODE, "belongs to node 1");
    f->config.node_id = 1;
    f->config.shards = 4;
    fixture_refuses(f, FERRY_ERR_WRONG_NODE, "shard 0 of 4");
    f->config.shard = 2;
    fixture_refuses(f, FERRY_ERR_WRONG_NODE, "shard 2 of 4");
    f->config.shard = 0;
    f->config.shards = 1;
    f->config.cluster_id = own;
    f->config.cluster_id.bytes[3] ^= 1;
    fixture_refuses(f, FERRY_ERR_WRONG_NODE, "belongs to cluster");
    f->config.cluster_id = own;
    fixture_open(f);
}

static void a_new_folder_gets_a_cluster_id_and_keeps_it(void **state)
{
    struct fixture *f = *state;
    static const struct ferry_id zero;
    fixture_open(f);
    struct ferry_id made = store_cluster_id(f->store);
    assert_memory_not_equal(&made, &zero, sizeof(zero));
    fixture_reopen(f);
    struct ferry_id kept = store_cluster_id(f->store);
    assert_memory_equal(&made, &kept, sizeof(kept));
}

/* Two lives of one node never look alike: what the first one promised is not known to the second.
 */
static void a_folder_made_anew_is_another_incarnation(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    uint32_t first = store_incarnation(f->store);
    assert_int_not_equal(first, 0);
    fixture_reopen(f);
    assert_int_equal(store_incarnation(f->store), first);
    store_close(&f->store);
    fixture_remove(f->folder);
    fixture_open(f);
    assert_int_not_equal(store_incarnation(f->store), first);
    assert_int_not_equal(store_incarnation(f->store), 0);
}

/* All shards of a node are of one life: a folder from another one is not taken for it. */
static void a_folder_of_another_incarnation_is_refused(void **state)
{
    struct fixture *f = *state;
    f->config.incarnation = 0xabcdef;
    fixture_open(f);
    assert_int_equal(store_incarnation(f->store), 0xabcdef);
    store_close(&f->store);
    f->config.incarnation = 0xabcdee;
    fixture_refuses(f, FERRY_ERR_WRONG_NODE, "another life of node 1");
    f->config.incarnation = 0;
    fixture_open(f);
    assert_int_equal(store_incarnation(f->store), 0xabcdef);
}

static void expect_cluster(struct fixture *f, const struct ferry_id *id)
{
    struct ferry_id has = store_cluster_id(f->store);
    assert_memory_equal(&has, id, sizeof(has));
}

/* A node that waits to be told which cluster it is of stays of none until that is on its disk. */
static void a_folder_may_be_of_no_cluster_until_it_is_told(void **state)
{
    struct fixture *f = *state;
    static const struct ferry_id zero, id = {{1, 2, 3}};
    f->config.no_cluster = true;
    fixture_open(f);
    expect_cluster(f, &zero);
    fixture_reopen(f);
    expect_cluster(f, &zero);
    uint32_t incarnation = store_incarnation(f->store);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_set_cluster(f->store, &id), FERRY_OK);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    expect_cluster(f, &id);
    fixture_reopen(f);
    expect_cluster(f, &id);
    assert_int_equal(store_incarnation(f->store), incarnation);
}

static void a_newer_format_is_refused_untouched(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    store_close(&f->store);
    static const uint8_t newer[4] = {STORE_FORMAT + 1, 0, 0, 0};
    patch_identities(f, 4, newer, sizeof(newer));
    fixture_refuses(f, FERRY_ERR_NEWER_FORMAT, "newer version");
}

static void a_damaged_identity_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    store_close(&f->store);
    patch_identities(f, 24, "\7", 1);
    fixture_refuses(f, FERRY_ERR_CORRUPT, "identity");
}

static void what_is_not_a_folder_is_refused(void **state)
{
    struct fixture *f = *state;
    int fd = open(f->folder, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    fixture_refuses(f, FERRY_ERR_IO, "not a folder");
    (void)unlink(f->folder);
    (void)snprintf(f->folder, sizeof(f->folder), "%s/no/such/parent", f->root);
    fixture_refuses(f, FERRY_ERR_IO, "No such file");
}

static void a_limit_below_the_reserve_is_refused(void **state)
{
    struct fixture *f = *state;
    f->config.max_bytes = f->config.reserve_bytes;
    fixture_refuses(f, FERRY_ERR_STORAGE_FULL, "reserve");
}

/* ---- What state the file is in ---- */

/* A first start that a power cut ended leaves data.new, of any content, and no data.mdb. */
static void an_interrupted_first_start_is_begun_again(void **state)
{
    struct fixture *f = *state;
    char name[400];
    assert_int_equal(mkdir(f->folder, 0700), 0);
    (void)snprintf(name, sizeof(name), "%s/data.new", f->folder);
    for (size_t size = 0; size < 20000; size += 5000) {
        int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        assert_int_equal(pwrite(fd, "half", 4, 0), 4);
        (void)close(fd);
        fixture_open(f);
        append_one(f->store, 1, 1, 10);
        store_close(&f->store);
        data_name(f, name);
        assert_int_equal(unlink(name), 0);
        (void)snprintf(name, sizeof(name), "%s/data.new", f->folder);
        assert_int_equal(access(name, F_OK), -1);
    }
}

/* data.mdb is never empty by our own doing: it had data once. */
static void an_empty_data_file_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    append_one(f->store, 1, 1, 10);
    store_close(&f->store);
    cut_data(f, 0);
    fixture_refuses(f, FERRY_ERR_CORRUPT, "backup");
}

static void a_truncated_file_is_refused_at_every_length(void **state)
{
    struct fixture *f = *state;
    struct store_stats stats;
    fixture_open(f);
    for (uint64_t i = 1; i <= 20; i++) {
        append_one(f->store, 1, i, 10000);
    }
    store_stats(f->store, &stats);
    store_close(&f->store);
    for (off_t size = stats.used_bytes - 1; size > 0; size -= size > 5000 ? 4999 : 97) {
        cut_data(f, size);
        fixture_refuses(f, FERRY_ERR_CORRUPT, "cut short");
    }
}

/* Cut exactly behind the last page in use, as a compacting backup does: nothing is missing. */
static void a_file_without_spare_room_is_whole(void **state)
{
    struct fixture *f = *state;
    struct store_stats stats;
    fixture_open(f);
    append_one(f->store, 1, 1, 10000);
    store_stats(f->store, &stats);
    store_close(&f->store);
    cut_data(f, stats.used_bytes);
    fixture_open(f);
    append_one(f->store, 1, 2, 10000);
    assert_true(store_has_room(f->store, 1000));
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    expect_entry(f->store, 1, 1, 10000);
    expect_entry(f->store, 1, 2, 10000);
    store_read_end(f->store);
}

static void a_file_of_garbage_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t garbage[20000];
    payload_fill(garbage, sizeof(garbage), 1, 1);
    assert_int_equal(mkdir(f->folder, 0700), 0);
    write_data(f, 0, garbage, sizeof(garbage));
    fixture_refuses(f, FERRY_ERR_CORRUPT, "not a Ferry data file");
    memset(garbage, 0, sizeof(garbage));
    write_data(f, 0, garbage, sizeof(garbage));
    fixture_refuses(f, FERRY_ERR_CORRUPT, "not a Ferry data file");
}

/* A bad field in either meta page: magic, version, page size, last page. */
static void a_bad_meta_page_is_refused(void **state)
{
    struct fixture *f = *state;
    static const off_t fields[] = {16, 20, 40, 143};
    fixture_open(f);
    append_one(f->store, 1, 1, 10);
    store_close(&f->store);
    for (size_t i = 0; i < 4; i++) {
        for (off_t page = 0; page <= 4096; page += 4096) {
            flip_data(f, page + fields[i]);
            struct store *store = NULL;
            struct err_text e = {{0}};
            assert_int_equal(store_open(&f->config, &store, &e), FERRY_ERR_CORRUPT);
            assert_non_null(strstr(e.text, f->folder));
            flip_data(f, page + fields[i]);
        }
    }
    fixture_open(f);
}

static void both_metas_bad_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    append_one(f->store, 1, 1, 10);
    store_close(&f->store);
    flip_data(f, 16);
    flip_data(f, 4096 + 16);
    fixture_refuses(f, FERRY_ERR_CORRUPT, "backup");
}

/* ---- Flipped bits in entries ---- */

/* Flips each byte of the header, the skips and the covered payload in turn; each is found. */
static void a_flipped_bit_in_an_entry_is_found_when_it_is_read(void **state)
{
    struct fixture *f = *state;
    struct store_entry entry = entry_of(STORE_ENTRY_BATCH, "BATCHHEADER_HERE and the rest", 29);
    struct store_entry got;
    static const uint8_t skips[8] = {'s', 'k', 'i', 'p', 's', 'k', 'i', 'q'};
    entry.skip_count = 2;
    entry.skips = skips;
    fixture_open(f);
    append_one(f->store, 1, 1, 50);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_append(f->store, 1, 2, &entry), FERRY_OK);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    off_t at = find_data(f, 0, "skipskiqBATCHHEADER_HERE", 24) - 48;
    assert_true(at > 0);
    for (off_t i = 0; i < 48 + 8 + 16; i++) {
        flip_data(f, at + i);
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        assert_int_equal(store_get_entry(f->store, 1, 2, &got), FERRY_ERR_CORRUPT);
        struct store_cursor c = {0};
        uint64_t index;
        assert_int_equal(store_cursor_open(f->store, 1, 1, &c), FERRY_OK);
        assert_int_equal(store_cursor_next(&c, &index, &got), FERRY_OK);
        assert_int_equal(store_cursor_next(&c, &index, &got), FERRY_ERR_CORRUPT);
        store_cursor_close(&c);
        store_read_end(f->store);
        flip_data(f, at + i);
    }
    /* A batch's own checksum watches the rest of it; the store does not read that. */
    flip_data(f, at + 48 + 8 + 16);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_get_entry(f->store, 1, 2, &got), FERRY_OK);
    store_read_end(f->store);
}

/* Entries that are no batch have no other checksum: theirs covers all bytes. */
static void a_flipped_bit_at_the_end_of_a_control_entry_is_found(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    for (uint64_t i = 0; i < 2; i++) {
        char text[64];
        struct store_entry got;
        (void)snprintf(text, sizeof(text), "control entry %d, the last of it", (int)i);
        struct store_entry entry =
            entry_of(i == 0 ? STORE_ENTRY_CONTROL : STORE_ENTRY_BATCH_CAS, text, strlen(text));
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(store_append(f->store, 1, i + 1, &entry), FERRY_OK);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        for (off_t at = 0; (at = find_data(f, at, text, strlen(text))) >= 0; at++) {
            flip_data(f, at + (off_t)strlen(text) - 1);
        }
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        assert_int_equal(store_get_entry(f->store, 1, i + 1, &got), FERRY_ERR_CORRUPT);
        store_read_end(f->store);
    }
}

/* ---- Memory ---- */

static void an_open_without_memory_fails_and_leaves_nothing_locked(void **state)
{
    struct fixture *f = *state;
    for (long n = 1; n <= 2; n++) {
        struct store *store = NULL;
        mem_test_fail_after(n);
        assert_int_equal(store_open(&f->config, &store, NULL), FERRY_ERR_NO_MEMORY);
        mem_test_fail_after(0);
    }
    fixture_open(f);
    struct store_entry entry = entry_of(STORE_ENTRY_NOOP, NULL, 0);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    mem_test_fail_after(1);
    assert_int_equal(store_append(f->store, 1, 1, &entry), FERRY_ERR_NO_MEMORY);
    mem_test_fail_after(0);
    store_abort(f->store);
    append_one(f->store, 1, 1, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(a_folder_is_made_for_its_owner_only),
        store_test(a_second_open_is_refused_while_the_first_lasts),
        store_test(another_process_is_refused_until_this_one_ends),
        store_test(a_folder_of_another_node_is_refused),
        store_test(a_new_folder_gets_a_cluster_id_and_keeps_it),
        store_test(a_folder_made_anew_is_another_incarnation),
        store_test(a_folder_of_another_incarnation_is_refused),
        store_test(a_folder_may_be_of_no_cluster_until_it_is_told),
        store_test(a_newer_format_is_refused_untouched),
        store_test(a_damaged_identity_is_refused),
        store_test(what_is_not_a_folder_is_refused),
        store_test(a_limit_below_the_reserve_is_refused),
        store_test(an_interrupted_first_start_is_begun_again),
        store_test(an_empty_data_file_is_refused),
        store_test(a_truncated_file_is_refused_at_every_length),
        store_test(a_file_without_spare_room_is_whole),
        store_test(a_file_of_garbage_is_refused),
        store_test(a_bad_meta_page_is_refused),
        store_test(both_metas_bad_is_refused),
        store_test(a_flipped_bit_in_an_entry_is_found_when_it_is_read),
        store_test(a_flipped_bit_at_the_end_of_a_control_entry_is_found),
        store_test(an_open_without_memory_fails_and_leaves_nothing_locked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
