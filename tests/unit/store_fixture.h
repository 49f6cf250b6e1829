/* What the store's tests share: a folder of their own, a small configuration, entries to write. */
#ifndef FERRY_STORE_FIXTURE_H
#define FERRY_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/prng.h"
#include "store/store.h"

#define MIB (1 << 20)

struct fixture {
    char root[256];   /* Made for the test, removed after it. */
    char folder[300]; /* The shard's, inside. */
    struct store_config config;
    struct store *store; /* Closed after the test if it is still open. */
};

static inline int fixture_remove_one(const char *path, const struct stat *st, int type,
                                     struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static inline void fixture_remove(const char *path)
{
    (void)nftw(path, fixture_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline void fixture_name(struct fixture *f, const char *root)
{
    (void)snprintf(f->root, sizeof(f->root), "%s", root);
    (void)snprintf(f->folder, sizeof(f->folder), "%s/shard", root);
    f->config = (struct store_config){
        .path = f->folder,
        .node_id = 1,
        .shard = 0,
        .shards = 1,
        .max_bytes = 1024LL * MIB,
        .grow_bytes = 4LL * MIB,
        .reserve_bytes = 1LL * MIB,
    };
}

static inline int fixture_setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char root[256];
    (void)snprintf(root, sizeof(root), "%s/ferry-store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    struct fixture *f = calloc(1, sizeof(*f));
    if (f == NULL || mkdtemp(root) == NULL) {
        free(f);
        return -1;
    }
    fixture_name(f, root);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    store_close(&f->store);
    fixture_remove(f->root);
    free(f);
    return 0;
}

static inline void fixture_open(struct fixture *f)
{
    struct err_text e = {{0}};
    enum ferry_err err = store_open(&f->config, &f->store, &e);
    if (err != FERRY_OK) {
        fail_msg("store_open: %s: %s", ferry_err_name(err), e.text);
    }
}

static inline void fixture_reopen(struct fixture *f)
{
    store_close(&f->store);
    fixture_open(f);
}

/* Expects that opening fails with `err` and that the detail names the folder. */
static inline void fixture_refuses(struct fixture *f, enum ferry_err err, const char *word)
{
    struct store *store = NULL;
    struct err_text e = {{0}};
    assert_string_equal(ferry_err_name(store_open(&f->config, &store, &e)), ferry_err_name(err));
    assert_null(store);
    if (strstr(e.text, f->folder) == NULL || strstr(e.text, word) == NULL) {
        fail_msg("the detail lacks the folder or '%s': %s", word, e.text);
    }
}

static inline struct store_entry entry_of(enum store_entry_type type, const void *data, size_t size)
{
    return (struct store_entry){
        .term = 3,
        .base_offset = 7,
        .append_time_ms = 11,
        .type = type,
        .payload = bytes_of(data, size),
    };
}

/* A payload that tells its group and index, so that any mix-up shows. */
static inline void payload_fill(uint8_t *out, size_t size, uint64_t group, uint64_t index)
{
    struct prng p;
    prng_init(&p, group * 1000003u + index);
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)prng_next(&p);
    }
}

static inline void append_in_turn(struct store *s, uint64_t group, uint64_t index, size_t size)
{
    uint8_t *data = malloc(size + 1);
    assert_non_null(data);
    payload_fill(data, size, group, index);
    struct store_entry entry = entry_of(STORE_ENTRY_BATCH, data, size);
    assert_int_equal(store_append(s, group, index, &entry), FERRY_OK);
    free(data);
}

static inline void append_one(struct store *s, uint64_t group, uint64_t index, size_t size)
{
    assert_int_equal(store_begin(s), FERRY_OK);
    append_in_turn(s, group, index, size);
    assert_int_equal(store_commit(s), FERRY_OK);
}

/* Within a view. */
static inline void expect_entry(struct store *s, uint64_t group, uint64_t index, size_t size)
{
    struct store_entry got;
    uint8_t *data = malloc(size + 1);
    assert_non_null(data);
    payload_fill(data, size, group, index);
    assert_int_equal(store_get_entry(s, group, index, &got), FERRY_OK);
    assert_int_equal(got.payload.size, size);
    assert_memory_equal(got.payload.data, data, size);
    free(data);
}

#define store_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

#endif
