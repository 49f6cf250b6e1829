#include "lib/partition_fixture.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"

#define TURNS_MAX      4000
#define READ_MAX_BYTES (64u << 20)

struct kept {
    struct list node;
    struct partition_ticket *ticket; /* Or bytes behind this struct. */
};

/* ---- Folders ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void fixture_remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int fixture_make_folder(char *root, size_t bytes, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(root, bytes, "%s/ferry-%s-XXXXXX", tmp != NULL ? tmp : "/tmp", name);
    return mkdtemp(root) != NULL ? 0 : -1;
}

/* ---- Life ---- */

int part_setup(void **state)
{
    struct part_fixture *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL || fixture_make_folder(f->root, sizeof(f->root), "partition") != 0) {
        mem_free(f);
        return -1;
    }
    (void)snprintf(f->folder, sizeof(f->folder), "%s/shard", f->root);
    f->store_config = (struct store_config){.path = f->folder,
                                            .node_id = 1,
                                            .shards = 1,
                                            .max_bytes = 1LL << 30,
                                            .grow_bytes = 4 << 20,
                                            .reserve_bytes = 1 << 20};
    f->config = (struct partition_config){
        .group = PART_GROUP,
        .self = 1,
        .initial = {.voter_count = 1, .voters = {1}},
        .seed = 1,
        .settings = {.retention_ms = -1, .retention_bytes = -1, .dedupe_window_ms = -1},
        .message_max_bytes = 1 << 20,
        .batch_max_bytes = (1 << 20) + (64 << 10)};
    f->now_ms = PART_START_MS;
    f->now_us = 1000000;
    list_init(&f->memory);
    *state = f;
    return 0;
}

int part_teardown(void **state)
{
    struct part_fixture *f = *state;
    part_crash(f);
    for (struct list *n; (n = list_pop_front(&f->memory)) != NULL;) {
        struct kept *k = list_entry(n, struct kept, node);
        if (k->ticket != NULL) {
            partition_ticket_fini(k->ticket);
            mem_free(k->ticket);
        }
        mem_free(k);
    }
    fixture_remove_tree(f->root);
    mem_free(f);
    return 0;
}

enum ferry_err part_try_open(struct part_fixture *f)
{
    enum ferry_err err = store_open(&f->store_config, &f->store, &f->detail);
    if (err == FERRY_OK) {
        f->config.store = f->store;
        err = partition_open(&f->config, f->now_us, &f->p, &f->detail);
    }
    if (err == FERRY_OK) {
        f->now_us += RAFT_ELECTION_MAX_US;
        err = partition_tick(f->p, f->now_ms, f->now_us);
    }
    return err;
}

void part_open(struct part_fixture *f)
{
    enum ferry_err err = part_try_open(f);
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), f->detail.text);
    }
    part_turn(f);
    assert_true(replica_is_ready(partition_replica(f->p)));
}

static void drain_tickets(struct part_fixture *f)
{
    while (partition_next_done(f->p) != NULL) {
    }
}

void part_crash(struct part_fixture *f)
{
    if (f->p != NULL) {
        replica_fail(partition_replica(f->p), FERRY_ERR_SHUTTING_DOWN);
        drain_tickets(f);
        partition_close(&f->p);
    }
    store_close(&f->store);
}

/* ---- Turns ---- */

void part_begin_write(struct part_fixture *f)
{
    uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(replica_write(partition_replica(f->p), f->now_us, &rows_left), FERRY_OK);
}

static void end_turn(struct part_fixture *f)
{
    assert_int_equal(store_commit(f->store), FERRY_OK);
    enum ferry_err err = replica_stored(partition_replica(f->p), f->now_us);
    if (err != FERRY_OK) {
        fail_msg("replica_stored: %s", ferry_err_name(err));
    }
    drain_tickets(f);
    partition_check(f->p);
}

static void tick(struct part_fixture *f)
{
    if (partition_deadline_us(f->p) <= f->now_us) {
        assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
    }
}

void part_turn_once(struct part_fixture *f)
{
    tick(f);
    part_begin_write(f);
    end_turn(f);
}

void part_turn(struct part_fixture *f)
{
    for (int i = 0; i < TURNS_MAX; i++) {
        tick(f);
        if (!replica_wants_write(partition_replica(f->p), f->now_us)) {
            return;
        }
        part_begin_write(f);
        end_turn(f);
    }
    fail_msg("the partition writes for ever");
}

void part_crash_at(struct part_fixture *f, enum crash_point point)
{
    if (point != CRASH_BEFORE_WRITE && replica_wants_write(partition_replica(f->p), f->now_us)) {
        part_begin_write(f);
        if (point == CRASH_BEFORE_COMMIT) {
            store_abort(f->store);
        } else {
            assert_int_equal(store_commit(f->store), FERRY_OK);
        }
    }
    part_crash(f);
}

void part_flush(struct part_fixture *f)
{
    part_turn(f);
    f->now_us += REPLICA_FLUSH_MS * 1000;
    part_turn(f);
}

void part_pass_ms(struct part_fixture *f, int64_t ms)
{
    f->now_ms += ms;
    f->now_us += ms * 1000;
    part_turn(f);
}

void part_pass_seconds(struct part_fixture *f, int seconds)
{
    for (int i = 0; i < seconds; i++) {
        part_pass_ms(f, 1000);
    }
}

/* ---- Batches and tickets ---- */

static struct kept *keep(struct part_fixture *f, size_t size)
{
    struct kept *k = mem_zalloc(1, sizeof(*k) + size);
    assert_non_null(k);
    list_init(&k->node);
    list_push_back(&f->memory, &k->node);
    return k;
}

void *part_keep(struct part_fixture *f, const void *bytes, size_t size)
{
    struct kept *k = keep(f, size);
    if (size > 0) {
        memcpy(k + 1, bytes, size);
    }
    return k + 1;
}

struct partition_ticket *part_ticket(struct part_fixture *f)
{
    struct kept *k = keep(f, 0);
    k->ticket = mem_zalloc(1, sizeof(*k->ticket));
    assert_non_null(k->ticket);
    partition_ticket_init(k->ticket);
    return k->ticket;
}

struct ferry_id part_id(uint64_t n)
{
    struct ferry_id id = {{0xab}};
    memcpy(id.bytes + 8, &n, sizeof(n));
    return id;
}

struct bytes part_batch(struct part_fixture *f, const struct batch_of *b)
{
    struct batch_writer w;
    size_t size = b->payload_bytes < 8 ? 8 : b->payload_bytes;
    uint8_t *payload = mem_zalloc(1, size);
    assert_non_null(payload);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (uint32_t i = 0; i < (b->count == 0 ? 1 : b->count); i++) {
        put_le64(payload, b->content + i);
        struct batch_record r = {.timestamp_ms = f->now_ms, .payload = bytes_of(payload, size)};
        if (b->ids != NULL) {
            r.id = b->ids[i];
        }
        r.due = b->due == 0 ? 0 : b->due + (int64_t)i * b->due_step;
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    struct bytes batch;
    assert_int_equal(batch_writer_finish(&w, b->producer, b->epoch, b->first_sequence, &batch),
                     FERRY_OK);
    batch = bytes_of(part_keep(f, batch.data, batch.size), batch.size);
    batch_writer_fini(&w);
    mem_free(payload);
    return batch;
}

static enum ferry_err produce(struct part_fixture *f, const struct batch_of *b,
                              struct partition_ticket *t)
{
    struct bytes batch = part_batch(f, b);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_produce(f->p, batch, f->now_ms, f->now_us, t, &f->detail);
    store_read_end(f->store);
    return err;
}

struct partition_ticket *part_send(struct part_fixture *f, const struct batch_of *b)
{
    struct partition_ticket *t = part_ticket(f);
    enum ferry_err err = produce(f, b, t);
    if (err != FERRY_OK) {
        fail_msg("produce: %s: %s", ferry_err_name(err), f->detail.text);
    }
    return t;
}

struct partition_ticket *part_produce(struct part_fixture *f, const struct batch_of *b)
{
    struct partition_ticket *t = part_send(f, b);
    part_turn(f);
    assert_true(part_is_done(f, t));
    assert_int_equal(t->base.err, FERRY_OK);
    return t;
}

void part_refuses(struct part_fixture *f, const struct batch_of *b, enum ferry_err expected)
{
    struct partition_ticket *t = part_ticket(f);
    assert_string_equal(ferry_err_name(produce(f, b, t)), ferry_err_name(expected));
    assert_true(list_is_empty(&t->base.node));
}

bool part_is_done(const struct part_fixture *f, const struct partition_ticket *t)
{
    return t->base.index <= replica_applied(partition_replica(f->p)) &&
           list_is_empty(&t->base.node);
}

/* ---- Reading ---- */

static bool is_skipped(const struct fetch_entry *entry, uint32_t *at, uint32_t record)
{
    if (*at < entry->skip_count && fetch_entry_skip(entry, *at) == record) {
        (*at)++;
        return true;
    }
    return false;
}

static size_t take_entry(const struct fetch_entry *entry, const struct batch_header *h,
                         int64_t from, struct part_record *records, size_t count, size_t max)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    uint32_t skip = 0;
    int64_t offset = entry->base_offset;
    batch_reader_init(&reader, entry->batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &r, &err); i++) {
        if (is_skipped(entry, &skip, i)) {
            continue;
        }
        if (offset >= from) {
            assert_true(count < max);
            records[count++] = (struct part_record){.offset = offset,
                                                    .append_time_ms = entry->append_time_ms,
                                                    .content = get_le64(r.payload.data),
                                                    .id = r.id,
                                                    .producer = h->producer_id,
                                                    .sequence = h->first_sequence + i};
        }
        offset++;
    }
    assert_int_equal(err, FERRY_OK);
    assert_int_equal(skip, entry->skip_count);
    return count;
}

size_t part_read(struct part_fixture *f, int64_t offset, uint32_t max_bytes,
                 struct part_record *records, size_t max)
{
    struct buf out;
    buf_init(&out, READ_MAX_BYTES);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_read(f->p, offset, max_bytes, &out);
    store_read_end(f->store);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    size_t count = 0;
    struct bytes rest = buf_bytes(&out);
    for (size_t entries = 0; rest.size > 0; entries++) {
        struct fetch_entry entry;
        struct batch_header h;
        size_t before = rest.size;
        assert_int_equal(fetch_entry_next(&rest, &entry, &h, &f->detail), FERRY_OK);
        /* Only the first may be larger than what was asked for. */
        assert_true(entries == 0 || out.size - rest.size <= max_bytes);
        assert_true(rest.size < before);
        count = take_entry(&entry, &h, offset, records, count, max);
    }
    buf_fini(&out);
    return count;
}

enum ferry_err part_read_error(struct part_fixture *f, int64_t offset)
{
    struct buf out;
    buf_init(&out, READ_MAX_BYTES);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_read(f->p, offset, 1 << 20, &out);
    store_read_end(f->store);
    buf_fini(&out);
    return err;
}

size_t part_read_all(struct part_fixture *f, uint32_t max_bytes, struct part_record *records,
                     size_t max)
{
    int64_t offset = partition_start_offset(f->p);
    int64_t time_ms = 0;
    size_t count = 0;
    while (offset < partition_end_offset(f->p)) {
        size_t got = part_read(f, offset, max_bytes, records + count, max - count);
        assert_true(got > 0);
        for (size_t i = count; i < count + got; i++) {
            assert_int_equal(records[i].offset, offset);
            assert_true(records[i].append_time_ms >= time_ms);
            time_ms = records[i].append_time_ms;
            offset++;
        }
        count += got;
    }
    return count;
}

int64_t part_count_size(struct part_fixture *f)
{
    struct replica *r = partition_replica(f->p);
    struct store_cursor cursor = {0};
    struct store_entry entry;
    uint64_t index = 0;
    int64_t size = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_cursor_open(f->store, PART_GROUP, replica_first_index(r), &cursor),
                     FERRY_OK);
    while (store_cursor_next(&cursor, &index, &entry) == FERRY_OK) {
        if (entry.type != STORE_ENTRY_NOOP && entry.type != STORE_ENTRY_CONFIG) {
            size += 48 + (int64_t)entry.skip_count * 4 + (int64_t)entry.payload.size;
        }
    }
    store_cursor_close(&cursor);
    store_read_end(f->store);
    return size;
}

uint64_t part_count_entries_on_disk(struct part_fixture *f)
{
    uint64_t first = 0, last = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, PART_GROUP, &first, &last), FERRY_OK);
    store_read_end(f->store);
    return first == 0 ? 0 : last - first + 1;
}
