/* store_ops SEED FOLDER: random operations on whichever store it is linked with, and a line for
 * each turn: what came back and a hash of all that can be read. Two stores that behave alike print
 * the same (store_twin.sh). */
#include <stdlib.h>

#include "base/checksum.h"
#include "base/prng.h"
#include "sim/sim_disk.h"
#include "sim/world.h"

#define TURNS  120
#define GROUPS 4
#define TABLES 3

_Noreturn void must_fail(const char *expression, const char *file, int line)
{
    (void)fprintf(stderr, "store_ops: %s:%d: must(%s) does not hold\n", file, line, expression);
    abort();
}

struct run {
    struct store *store;
    struct store_config config;
    struct prng prng;
    uint64_t first[GROUPS], last[GROUPS]; /* As appended and deleted here. */
    uint64_t hash;
    uint8_t bytes[9000];
};

static uint64_t below(struct run *r, uint64_t bound)
{
    return prng_below(&r->prng, bound);
}

static void note(struct run *r, uint64_t v)
{
    r->hash = checksum_of_two(&r->hash, 8, &v, 8);
}

static void note_bytes(struct run *r, struct bytes b)
{
    note(r, b.size);
    note(r, checksum_of(b.data, b.size));
}

static struct bytes some_bytes(struct run *r, size_t most)
{
    size_t size = (size_t)below(r, most + 1);
    for (size_t i = 0; i < size; i++) {
        r->bytes[i] = (uint8_t)prng_next(&r->prng);
    }
    return bytes_of(r->bytes, size);
}

/* ---- Writing ---- */

static void append(struct run *r, size_t g)
{
    uint32_t skips[2] = {1, 3};
    struct store_entry e = {.term = 1 + below(r, 5),
                            .base_offset = (int64_t)below(r, 1000),
                            .append_time_ms = (int64_t)below(r, 100000),
                            .type = (enum store_entry_type)(1 + below(r, 5)),
                            .skip_count = below(r, 4) == 0 ? 2 : 0,
                            .skips = (const uint8_t *)skips,
                            .payload = some_bytes(r, below(r, 5) == 0 ? 8000 : 200)};
    if (r->last[g] == 0) {
        r->first[g] = r->last[g] = 1 + below(r, 100);
    } else {
        r->last[g]++;
    }
    note(r, store_append(r->store, g, r->last[g], &e));
}

static void replace(struct run *r, size_t g)
{
    struct store_entry e = {.term = 9, .type = STORE_ENTRY_NOOP, .payload = some_bytes(r, 100)};
    uint64_t index = r->last[g] > 0 ? r->first[g] + below(r, r->last[g] - r->first[g] + 1) : 1;
    note(r, store_replace_entry(r->store, g, index, &e));
}

static void delete_front(struct run *r, size_t g)
{
    uint32_t deleted;
    uint64_t bytes;
    uint64_t to = r->first[g] + below(r, 10);
    note(r, store_delete_entries(r->store, g, r->first[g], to, (uint32_t)below(r, 8), &deleted,
                                 &bytes));
    note(r, deleted);
    note(r, bytes);
    r->first[g] += deleted;
    if (r->first[g] > r->last[g]) {
        r->last[g] = 0;
    }
}

static void truncate_back(struct run *r, size_t g)
{
    uint32_t deleted;
    uint64_t from = r->last[g] > 5 ? r->last[g] - below(r, 5) : 1;
    note(r, store_truncate(r->store, g, from, (uint32_t)below(r, 8), &deleted));
    note(r, deleted);
    r->last[g] -= deleted;
    if (r->last[g] < r->first[g]) {
        r->last[g] = 0;
    }
}

static struct bytes some_key(struct run *r, uint8_t key[STORE_KEY_MAX_BYTES])
{
    size_t size = (size_t)below(r, 3);
    for (size_t i = 0; i < size; i++) {
        key[i] = (uint8_t)below(r, 4);
    }
    return bytes_of(key, size);
}

static void change_row(struct run *r, size_t g)
{
    uint8_t key[STORE_KEY_MAX_BYTES];
    uint8_t table = (uint8_t)(1 + below(r, TABLES));
    struct bytes k = some_key(r, key);
    uint32_t deleted = 0;
    switch (below(r, 4)) {
    case 0:
        note(r, store_delete(r->store, g, table, k));
        break;
    case 1:
        note(r, store_delete_rows(r->store, g, below(r, 3) == 0 ? 0 : table, (uint32_t)below(r, 4),
                                  &deleted));
        note(r, deleted);
        break;
    default:
        note(r, store_put(r->store, g, table, k, some_bytes(r, 100)));
        break;
    }
}

static void change_marks(struct run *r, size_t g)
{
    struct store_group m = {.group = g,
                            .term = below(r, 100),
                            .vote = below(r, 5),
                            .commit = below(r, 100),
                            .trim_index = 50 + below(r, 10),
                            .deleted_index = below(r, 50),
                            .installing = below(r, 4) == 0};
    note(r, below(r, 8) == 0 ? store_delete_group(r->store, g) : store_put_group(r->store, &m));
}

static enum ferry_err see_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct run *r = arg;
    note_bytes(r, key);
    note_bytes(r, value);
    *stop = r->hash % 23 == 0;
    return FERRY_OK;
}

/* As flushes do: rows are read while the transaction is open. */
static void read_rows_meanwhile(struct run *r, size_t g)
{
    uint8_t key[STORE_KEY_MAX_BYTES];
    struct bytes value;
    bool found;
    must(store_read_begin(r->store) == FERRY_OK);
    note(r, store_each_row(r->store, g, 1, some_key(r, key), see_row, r));
    note(r, store_get(r->store, g, 1, some_key(r, key), &found, &value));
    note(r, found);
    if (found) {
        note_bytes(r, value);
    }
    store_read_end(r->store);
}

/* ---- Reading ---- */

static void see_log(struct run *r, size_t g)
{
    uint64_t first;
    uint64_t last;
    note(r, store_log_bounds(r->store, g, &first, &last));
    note(r, first);
    note(r, last);
    struct store_cursor c = {0};
    uint64_t index;
    struct store_entry e;
    must(store_cursor_open(r->store, g, first, &c) == FERRY_OK);
    while (store_cursor_next(&c, &index, &e) == FERRY_OK) {
        note(r, index);
        note(r, e.term);
        note(r, (uint64_t)e.base_offset);
        note_bytes(r, bytes_of(e.skips, (size_t)e.skip_count * 4));
        note_bytes(r, e.payload);
    }
    store_cursor_close(&c);
    note(r, store_get_entry(r->store, g, last + 1, &e));
}

static enum ferry_err see_group(const struct store_group *g, void *arg)
{
    struct run *r = arg;
    note(r, g->group);
    note(r, g->term ^ g->vote << 8 ^ g->commit << 16 ^ g->trim_index << 24);
    note(r, g->deleted_index);
    note(r, g->installing);
    return FERRY_OK;
}

static void see_all(struct run *r)
{
    struct store_group m;
    must(store_read_begin(r->store) == FERRY_OK);
    note(r, store_each_group(r->store, see_group, r));
    for (size_t g = 0; g < GROUPS; g++) {
        note(r, store_get_group(r->store, g, &m));
        see_log(r, g);
        for (uint8_t t = 0; t <= TABLES; t++) {
            note(r, store_each_row(r->store, g, t, bytes_of(NULL, 0), see_row, r));
        }
    }
    store_read_end(r->store);
}

/* ---- Turns ---- */

static void open_store(struct run *r)
{
    struct err_text e;
    must(store_open(&r->config, &r->store, &e) == FERRY_OK);
    note(r, store_incarnation(r->store));
}

static void turn(struct run *r)
{
    uint64_t first[GROUPS];
    uint64_t last[GROUPS];
    memcpy(first, r->first, sizeof(first));
    memcpy(last, r->last, sizeof(last));
    must(store_begin(r->store) == FERRY_OK);
    for (uint64_t i = below(r, 40); i-- > 0;) {
        static void (*const steps[])(struct run *, size_t) = {
            append,       append,     append,     delete_front,       truncate_back,
            change_row,   change_row, change_row, change_marks,       replace,
            change_marks, append,     append,     read_rows_meanwhile};
        steps[below(r, sizeof(steps) / sizeof(steps[0]))](r, (size_t)below(r, GROUPS));
    }
    if (below(r, 4) == 0) {
        store_abort(r->store);
        memcpy(r->first, first, sizeof(first));
        memcpy(r->last, last, sizeof(last));
    } else {
        note(r, store_commit(r->store));
    }
    store_check(r->store);
    see_all(r);
    if (below(r, 10) == 0) {
        store_close(&r->store);
        open_store(r);
    }
}

int main(int argc, char **argv)
{
    static struct run r;
    must(argc == 3);
    sim_disks_init();
    r.config = (struct store_config){.path = argv[2],
                                     .cluster_id = {{1, 2, 3}},
                                     .node_id = 1,
                                     .shards = 1,
                                     .incarnation = 77,
                                     .max_bytes = 1 << 28,
                                     .grow_bytes = 1 << 22,
                                     .reserve_bytes = 1 << 20};
    prng_init(&r.prng, strtoull(argv[1], NULL, 10));
    open_store(&r);
    for (int i = 0; i < TURNS; i++) {
        turn(&r);
        (void)printf("turn %d: %016llx\n", i, (unsigned long long)r.hash);
    }
    store_close(&r.store);
    sim_disks_fini();
    return 0;
}
