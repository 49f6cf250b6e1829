/* The bytes between nodes: what goes in comes out; what is cut, flipped or invented is refused and
 * read nowhere outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/prng.h"
#include "partition/peer_item.h"
#include "wire/batch.h"

#define SELF  0x100000001u
#define OTHER 0x200000002u

static struct peer_outbox *new_outbox(uint32_t shards)
{
    struct peer_outbox_config config = {
        .cluster_id = {{7, 7, 7}}, .self = SELF, .shard = 3, .boot = 99};
    struct peer_outbox *out = NULL;
    assert_int_equal(peer_outbox_new(&config, &out), FERRY_OK);
    struct peer_route route = {.member = OTHER, .shards = shards};
    assert_int_equal(peer_outbox_route(out, &route), FERRY_OK);
    return out;
}

static void put_item(struct peer_outbox *out, uint64_t group, uint8_t kind, const char *text)
{
    struct buf *b = peer_outbox_begin(out, OTHER, group, kind);
    assert_non_null(b);
    buf_append_bytes(b, bytes_of_string(text));
    peer_outbox_end(out);
}

/* Memory of exactly the size, so that a sanitizer sees a read past the end. */
static uint8_t *exactly(const void *data, size_t size)
{
    uint8_t *p = mem_alloc(size > 0 ? size : 1);
    assert_non_null(p);
    memcpy(p, data, size);
    return p;
}

/* ---- Frames ---- */

static void items_of_one_turn_share_a_frame_for_each_shard(void **state)
{
    (void)state;
    struct peer_outbox *out = new_outbox(2);
    put_item(out, 4, PEER_RAFT, "four");
    put_item(out, 5, PEER_NODE_FIRST, "five");
    put_item(out, 6, 255, "");
    raft_id member = 0;
    uint32_t shard = 9;
    struct buf frame;
    struct peer_header h;
    struct peer_item item;
    struct err_text e;
    size_t at = 0;
    assert_true(peer_outbox_next(out, false, &member, &shard, &frame));
    assert_int_equal(member, OTHER);
    assert_int_equal(shard, 0);
    assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
    assert_int_equal(h.from, SELF);
    assert_int_equal(h.to, OTHER);
    assert_int_equal(h.from_shard, 3);
    assert_int_equal(h.to_shard, 0);
    assert_int_equal(h.boot, 99);
    assert_int_equal(h.sequence, 1);
    assert_int_equal(h.cluster_id.bytes[2], 7);
    assert_int_equal(h.item_count, 2);
    assert_true(peer_frame_next(buf_bytes(&frame), &h, &at, &item));
    assert_int_equal(item.group, 4);
    assert_int_equal(item.from, SELF);
    assert_true(bytes_equal(item.body, bytes_of_string("four")));
    assert_true(peer_frame_next(buf_bytes(&frame), &h, &at, &item));
    assert_int_equal(item.group, 6);
    assert_int_equal(item.kind, 255);
    assert_int_equal(item.body.size, 0);
    assert_false(peer_frame_next(buf_bytes(&frame), &h, &at, &item));
    buf_fini(&frame);
    assert_true(peer_outbox_next(out, false, &member, &shard, &frame));
    assert_int_equal(shard, 1);
    assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
    assert_int_equal(h.sequence, 2);
    buf_fini(&frame);
    assert_false(peer_outbox_next(out, false, &member, &shard, &frame));
    peer_outbox_free(&out);
}

/* Once a round, and only to who was given nothing. */
static void an_empty_frame_says_that_the_node_is_there(void **state)
{
    (void)state;
    struct peer_outbox *out = new_outbox(3);
    raft_id member = 0;
    uint32_t shard = 0;
    struct buf frame;
    struct peer_header h;
    struct err_text e;
    put_item(out, 1, PEER_RAFT, "x"); /* To shard 1. */
    assert_true(peer_outbox_next(out, false, &member, &shard, &frame));
    buf_fini(&frame);
    assert_false(peer_outbox_next(out, false, &member, &shard, &frame));
    int given[3] = {0};
    while (peer_outbox_next(out, true, &member, &shard, &frame)) {
        assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
        assert_int_equal(h.item_count, 0);
        given[shard]++;
        buf_fini(&frame);
    }
    assert_true(given[0] == 1 && given[1] == 0 && given[2] == 1);
    while (peer_outbox_next(out, true, &member, &shard, &frame)) {
        given[shard]++;
        buf_fini(&frame);
    }
    assert_true(given[0] == 2 && given[1] == 1 && given[2] == 2);
    peer_outbox_free(&out);
}

static void what_has_no_route_is_dropped_and_counted(void **state)
{
    (void)state;
    struct peer_outbox *out = new_outbox(1);
    assert_null(peer_outbox_begin(out, 77, 1, PEER_RAFT));
    assert_null(peer_outbox_begin_to(out, OTHER, 1, 1, PEER_RAFT));
    peer_outbox_forget(out, OTHER);
    assert_null(peer_outbox_begin(out, OTHER, 1, PEER_RAFT));
    assert_int_equal(peer_outbox_dropped(out), 3);
    struct peer_route bad = {.member = 5, .shards = 0};
    assert_int_equal(peer_outbox_route(out, &bad), FERRY_ERR_LIMIT_REACHED);
    peer_outbox_free(&out);
}

static void a_frame_past_its_goal_is_closed_and_another_begun(void **state)
{
    (void)state;
    struct peer_outbox *out = new_outbox(1);
    for (int i = 0; i < 40; i++) {
        struct buf *b = peer_outbox_begin(out, OTHER, 1, PEER_RAFT);
        assert_non_null(b);
        assert_non_null(buf_extend(b, 100000));
        peer_outbox_end(out);
    }
    raft_id member = 0;
    uint32_t shard = 0, items = 0, frames = 0;
    struct buf frame;
    struct peer_header h;
    struct err_text e;
    while (peer_outbox_next(out, false, &member, &shard, &frame)) {
        assert_true(frame.size <= PEER_FRAME_GOAL_BYTES + 100200);
        assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
        items += h.item_count;
        frames++;
        buf_fini(&frame);
    }
    assert_int_equal(items, 40);
    assert_int_equal(frames, 4);
    /* One that does not fit at all is dropped; what was there before stays. */
    put_item(out, 1, PEER_RAFT, "before");
    struct buf *b = peer_outbox_begin(out, OTHER, 1, PEER_RAFT);
    assert_null(buf_extend(b, PEER_FRAME_MAX_BYTES));
    peer_outbox_end(out);
    put_item(out, 1, PEER_RAFT, "after");
    assert_true(peer_outbox_next(out, false, &member, &shard, &frame));
    assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
    assert_int_equal(h.item_count, 2);
    buf_fini(&frame);
    peer_outbox_free(&out);
}

static void a_single_item_needs_no_route(void **state)
{
    (void)state;
    struct peer_outbox *out = new_outbox(1);
    struct buf frame;
    struct peer_header h;
    struct peer_item item;
    struct err_text e;
    size_t at = 0;
    assert_int_equal(
        peer_outbox_single(out, 0, 0, 0, PEER_NODE_FIRST, bytes_of_string("join"), &frame),
        FERRY_OK);
    assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
    assert_int_equal(h.to, 0);
    assert_true(peer_frame_next(buf_bytes(&frame), &h, &at, &item));
    assert_true(bytes_equal(item.body, bytes_of_string("join")));
    buf_fini(&frame);
    peer_outbox_free(&out);
}

/* Cut at every byte, and every bit of every byte turned. */
static void a_frame_cut_or_flipped_anywhere_is_refused(void **state)
{
    (void)state;
    struct peer_outbox *out = new_outbox(1);
    put_item(out, 1, PEER_RAFT, "some bytes");
    put_item(out, 2, PEER_NODE_FIRST, "more");
    raft_id member = 0;
    uint32_t shard = 0;
    struct buf frame;
    struct peer_header h;
    struct err_text e;
    assert_true(peer_outbox_next(out, false, &member, &shard, &frame));
    for (size_t size = 0; size < frame.size; size++) {
        uint8_t *cut = exactly(frame.data, size);
        assert_int_not_equal(peer_frame_parse(bytes_of(cut, size), &h, &e), FERRY_OK);
        mem_free(cut);
    }
    for (size_t bit = 0; bit < frame.size * 8; bit++) {
        frame.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_not_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
        frame.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(peer_frame_parse(buf_bytes(&frame), &h, &e), FERRY_OK);
    buf_fini(&frame);
    peer_outbox_free(&out);
}

/* ---- Items ---- */

typedef enum ferry_err decoder(struct bytes body);

/* Cut at every byte it is refused; with any byte turned it is refused or is something else that is
 * sound: never a read outside (the sanitizer is the judge), never a crash. */
static void hurt(struct bytes body, decoder *decode)
{
    assert_int_equal(decode(body), FERRY_OK);
    for (size_t size = 0; size < body.size; size++) {
        uint8_t *cut = exactly(body.data, size);
        assert_int_not_equal(decode(bytes_of(cut, size)), FERRY_OK);
        mem_free(cut);
    }
    uint8_t *longer = mem_alloc(body.size + 1);
    assert_non_null(longer);
    memcpy(longer, body.data, body.size);
    longer[body.size] = 0;
    assert_int_not_equal(decode(bytes_of(longer, body.size + 1)), FERRY_OK);
    mem_free(longer);
    for (size_t at = 0; at < body.size; at++) {
        for (int k = 0; k < 3; k++) {
            uint8_t *bad = exactly(body.data, body.size);
            bad[at] = (uint8_t)(k == 0 ? bad[at] ^ 1 : (k == 1 ? 0xff : bad[at] ^ 0x80));
            (void)!decode(bytes_of(bad, body.size));
            mem_free(bad);
        }
    }
}

static struct bytes a_batch(struct batch_writer *w, uint32_t records)
{
    struct bytes batch;
    batch_writer_init(w, 1 << 20);
    for (uint32_t i = 0; i < records; i++) {
        struct batch_record r = {.payload = bytes_of_string("a record's payload")};
        assert_int_equal(batch_writer_add(w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(w, 5, 0, 0, &batch), FERRY_OK);
    return batch;
}

static const struct raft_members some_members = {.voter_count = 3,
                                                 .old_voter_count = 1,
                                                 .learner_count = 2,
                                                 .voters = {1, 2, 9},
                                                 .old_voters = {4},
                                                 .learners = {5, 6}};

static enum ferry_err decode_raft(struct bytes body)
{
    struct peer_raft m;
    struct peer_item item = {.kind = PEER_RAFT, .from = OTHER, .body = body};
    return peer_take_raft(&item, SELF, &m);
}

static void append_entries(struct buf *b, struct bytes batch)
{
    struct raft_message m = {.type = RAFT_APPEND_REQUEST,
                             .term = 9,
                             .prev_index = 40,
                             .prev_term = 3,
                             .entry_count = 4,
                             .commit = 41,
                             .quiet = false,
                             .sequence = 77};
    struct buf members;
    buf_init(&members, 4096);
    peer_put_members(&members, &some_members);
    static const uint8_t skips[8] = {0, 0, 0, 0, 1, 0, 0, 0};
    struct store_entry entries[4] = {
        {.term = 3, .type = STORE_ENTRY_NOOP, .base_offset = 5, .append_time_ms = 1},
        {.term = 5, .type = STORE_ENTRY_BATCH, .skip_count = 2, .skips = skips, .payload = batch},
        {.term = 5, .type = STORE_ENTRY_CONFIG, .payload = buf_bytes(&members)},
        {.term = 9, .type = STORE_ENTRY_CONTROL, .payload = bytes_of_string("control")}};
    peer_put_raft(b, &m);
    for (int i = 0; i < 4; i++) {
        peer_put_entry(b, &entries[i]);
    }
    buf_fini(&members);
}

static void an_append_comes_out_with_its_entries_terms_and_members(void **state)
{
    (void)state;
    struct batch_writer w;
    struct bytes batch = a_batch(&w, 3);
    struct buf b;
    buf_init(&b, 1 << 20);
    append_entries(&b, batch);
    struct peer_raft m;
    struct peer_item item = {.kind = PEER_RAFT, .from = OTHER, .body = buf_bytes(&b)};
    assert_int_equal(peer_take_raft(&item, SELF, &m), FERRY_OK);
    assert_int_equal(m.message.from, OTHER);
    assert_int_equal(m.message.to, SELF);
    assert_int_equal(m.message.entry_count, 4);
    assert_int_equal(m.message.sequence, 77);
    assert_int_equal(m.message.run_count, 3);
    assert_int_equal(m.runs[1].first, 42);
    assert_int_equal(m.runs[2].first, 44);
    assert_int_equal(m.runs[2].term, 9);
    assert_int_equal(m.message.config_count, 1);
    assert_int_equal(m.configs[0].index, 43);
    assert_true(raft_members_equal(&m.configs[0].members, &some_members));
    struct store_entry entry;
    assert_int_equal(peer_take_entry(&m.entries, &entry), FERRY_OK);
    assert_int_equal(peer_take_entry(&m.entries, &entry), FERRY_OK);
    assert_int_equal(entry.skip_count, 2);
    assert_true(bytes_equal(entry.payload, batch));
    hurt(buf_bytes(&b), decode_raft);
    buf_fini(&b);
    batch_writer_fini(&w);
}

/* A batch's payload is covered by its own checksum only: it is looked at, too. */
static void an_entry_with_a_damaged_batch_is_refused(void **state)
{
    (void)state;
    struct batch_writer w;
    struct bytes batch = a_batch(&w, 3);
    struct raft_message m = {
        .type = RAFT_APPEND_REQUEST, .term = 9, .entry_count = 1, .sequence = 1};
    struct store_entry entry = {.term = 9, .type = STORE_ENTRY_BATCH, .payload = batch};
    struct buf b;
    buf_init(&b, 1 << 20);
    peer_put_raft(&b, &m);
    peer_put_entry(&b, &entry);
    assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_OK);
    for (size_t at = b.size - batch.size; at < b.size; at++) {
        b.data[at] ^= 4;
        assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_ERR_CORRUPT);
        b.data[at] ^= 4;
    }
    buf_fini(&b);
    batch_writer_fini(&w);
}

static void every_kind_of_message_comes_out_as_it_went_in(void **state)
{
    (void)state;
    for (int type = RAFT_VOTE_REQUEST; type <= RAFT_TIMEOUT_NOW; type++) {
        struct raft_message m = {.type = (enum raft_message_type)type,
                                 .term = RAFT_TERM_MAX,
                                 .prev_index = RAFT_INDEX_MAX,
                                 .prev_term = 3,
                                 .commit = 4,
                                 .match_index = 5,
                                 .match_term = 6,
                                 .success = type % 2 == 0,
                                 .quiet = type % 3 == 0,
                                 .transfer = type == RAFT_VOTE_REQUEST,
                                 .sequence = UINT64_MAX};
        struct buf b;
        buf_init(&b, 1024);
        peer_put_raft(&b, &m);
        struct peer_raft got;
        struct peer_item item = {.kind = PEER_RAFT, .from = OTHER, .body = buf_bytes(&b)};
        assert_int_equal(peer_take_raft(&item, SELF, &got), FERRY_OK);
        assert_int_equal(got.message.type, m.type);
        assert_int_equal(got.message.term, m.term);
        assert_int_equal(got.message.prev_index, m.prev_index);
        assert_int_equal(got.message.prev_term, m.prev_term);
        assert_int_equal(got.message.commit, m.commit);
        assert_int_equal(got.message.match_index, m.match_index);
        assert_int_equal(got.message.match_term, m.match_term);
        assert_int_equal(got.message.success, m.success);
        assert_int_equal(got.message.quiet, m.quiet);
        assert_int_equal(got.message.transfer, m.transfer);
        assert_int_equal(got.message.sequence, m.sequence);
        hurt(buf_bytes(&b), decode_raft);
        buf_fini(&b);
    }
}

/* Counts that would make a reader run, wait or allocate. */
static void hostile_counts_are_refused(void **state)
{
    (void)state;
    struct raft_message m = {
        .type = RAFT_APPEND_REQUEST, .term = 9, .entry_count = UINT32_MAX, .sequence = 1};
    struct buf b;
    buf_init(&b, 1 << 20);
    peer_put_raft(&b, &m);
    assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_ERR_BAD_FRAME);
    peer_set_raft_entries(&b, 0, RAFT_APPEND_ENTRIES_MAX);
    assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_ERR_BAD_FRAME);
    buf_append_le32(&b, UINT32_MAX); /* An entry's size. */
    assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_ERR_BAD_FRAME);
    /* A vote with entries; terms that fall; terms past the message's; too many runs. */
    buf_clear(&b);
    m = (struct raft_message){.type = RAFT_VOTE_REPLY, .term = 9, .entry_count = 1};
    peer_put_raft(&b, &m);
    assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_ERR_BAD_FRAME);
    for (int k = 0; k < 3; k++) {
        uint32_t count = k == 2 ? RAFT_APPEND_RUNS_MAX + 1 : 1;
        buf_clear(&b);
        m = (struct raft_message){.type = RAFT_APPEND_REQUEST,
                                  .term = k == 2 ? 100 : 9,
                                  .prev_index = 7,
                                  .prev_term = 5,
                                  .entry_count = count};
        peer_put_raft(&b, &m);
        for (uint32_t i = 0; i < count; i++) {
            struct store_entry entry = {.term = k == 0 ? 4 : 10 + i, .type = STORE_ENTRY_NOOP};
            peer_put_entry(&b, &entry);
        }
        assert_int_equal(decode_raft(buf_bytes(&b)), FERRY_ERR_BAD_FRAME);
    }
    buf_clear(&b);
    for (int i = 0; i < 4; i++) {
        buf_append_le32(&b, i == 3 ? 0 : UINT32_MAX / 3 + 1); /* Members. */
    }
    struct bytes rest = buf_bytes(&b);
    struct raft_members members;
    assert_int_equal(peer_take_members(&rest, &members), FERRY_ERR_BAD_FRAME);
    buf_fini(&b);
}

static enum ferry_err decode_begin(struct bytes body)
{
    struct peer_snapshot name;
    struct peer_snapshot_begin s;
    enum ferry_err err = peer_take_snapshot(&body, &name);
    return err == FERRY_OK ? peer_take_snapshot_begin(body, &s) : err;
}

static void a_snapshots_begin_comes_out_as_it_went_in(void **state)
{
    (void)state;
    struct peer_snapshot name = {.term = 4, .id = 5, .chunk = 6};
    struct peer_snapshot_begin s = {.index = 100,
                                    .index_term = 4,
                                    .trim_index = 50,
                                    .trim_term = 3,
                                    .bytes = 1 << 30,
                                    .config = {.index = 70, .members = some_members},
                                    .previous_config = {.index = 20, .members = some_members}};
    s.previous_config.members.old_voter_count = 0;
    struct buf b;
    buf_init(&b, 4096);
    peer_put_snapshot(&b, &name);
    peer_put_snapshot_begin(&b, &s);
    struct bytes rest = buf_bytes(&b);
    struct peer_snapshot got_name;
    struct peer_snapshot_begin got;
    assert_int_equal(peer_take_snapshot(&rest, &got_name), FERRY_OK);
    assert_int_equal(got_name.id, 5);
    assert_int_equal(got_name.chunk, 6);
    assert_int_equal(peer_take_snapshot_begin(rest, &got), FERRY_OK);
    assert_int_equal(got.index, 100);
    assert_int_equal(got.trim_index, 50);
    assert_int_equal(got.config.index, 70);
    assert_true(raft_members_equal(&got.config.members, &some_members));
    hurt(buf_bytes(&b), decode_begin);
    /* Marks that no log has. */
    struct peer_snapshot_begin bad[] = {s, s, s, s, s};
    bad[0].index = 0;
    bad[1].trim_index = 101;
    bad[2].trim_term = 5;
    bad[3].config.index = 101;
    bad[4].previous_config.index = 71;
    for (size_t i = 0; i < 5; i++) {
        buf_clear(&b);
        peer_put_snapshot_begin(&b, &bad[i]);
        assert_int_equal(peer_take_snapshot_begin(buf_bytes(&b), &got), FERRY_ERR_BAD_FRAME);
    }
    buf_fini(&b);
}

static enum ferry_err decode_rows(struct bytes body)
{
    uint32_t count = 0;
    return peer_take_rows(&body, &count);
}

static enum ferry_err decode_entries(struct bytes body)
{
    uint32_t count = 0;
    raft_index first = 0;
    return peer_take_entries(&body, &count, &first);
}

static void rows_and_entries_of_a_snapshot_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_append_le64(&b, 3);
    for (uint8_t i = 1; i <= 3; i++) {
        struct peer_row row = {
            .table = i, .key = bytes_of("key", i - 1u), .value = bytes_of_string("a value")};
        peer_put_row(&b, &row);
    }
    uint32_t count = 0;
    struct bytes rest = buf_bytes(&b);
    struct peer_row row;
    assert_int_equal(peer_take_rows(&rest, &count), FERRY_OK);
    assert_int_equal(count, 3);
    for (uint8_t i = 1; i <= 3; i++) {
        assert_int_equal(peer_take_row(&rest, &row), FERRY_OK);
        assert_int_equal(row.table, i);
        assert_int_equal(row.key.size, i - 1u);
        assert_true(bytes_equal(row.value, bytes_of_string("a value")));
    }
    hurt(buf_bytes(&b), decode_rows);
    /* The replica's own table does not travel. */
    b.data[8] = 250;
    assert_int_equal(decode_rows(buf_bytes(&b)), FERRY_ERR_BAD_FRAME);
    struct batch_writer w;
    struct store_entry entries[2] = {
        {.term = 1, .type = STORE_ENTRY_NOOP},
        {.term = 2, .type = STORE_ENTRY_BATCH, .payload = a_batch(&w, 2)}};
    buf_clear(&b);
    buf_append_le64(&b, 2);
    buf_append_le64(&b, 51);
    peer_put_entry(&b, &entries[0]);
    peer_put_entry(&b, &entries[1]);
    hurt(buf_bytes(&b), decode_entries);
    buf_fini(&b);
    batch_writer_fini(&w);
}

static enum ferry_err decode_end(struct bytes body)
{
    uint64_t rows = 0, entries = 0;
    return peer_take_snapshot_end(body, &rows, &entries);
}

static enum ferry_err decode_snapshot_reply(struct bytes body)
{
    struct peer_snapshot_reply reply;
    return peer_take_snapshot_reply(body, &reply);
}

static enum ferry_err decode_repair_request(struct bytes body)
{
    struct peer_repair_request request;
    return peer_take_repair_request(body, &request);
}

static enum ferry_err decode_repair_reply(struct bytes body)
{
    struct peer_repair_reply reply;
    return peer_take_repair_reply(body, &reply);
}

static void answers_and_repairs_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_append_le64(&b, 12);
    buf_append_le64(&b, 13);
    hurt(buf_bytes(&b), decode_end);
    buf_clear(&b);
    struct peer_snapshot_reply reply = {.status = PEER_SNAPSHOT_DONE, .index = 9};
    peer_put_snapshot_reply(&b, &reply);
    hurt(buf_bytes(&b), decode_snapshot_reply);
    buf_clear(&b);
    struct peer_repair_request request = {
        .nonce = 1, .index = 10, .witness_index = 11, .witness_term = 3, .previous_term = 2};
    struct peer_repair_request got;
    peer_put_repair_request(&b, &request);
    assert_int_equal(peer_take_repair_request(buf_bytes(&b), &got), FERRY_OK);
    assert_memory_equal(&got, &request, sizeof(got));
    hurt(buf_bytes(&b), decode_repair_request);
    struct batch_writer w;
    struct peer_repair_reply given = {
        .nonce = 1,
        .index = 10,
        .given = true,
        .entry = {.term = 2, .type = STORE_ENTRY_BATCH, .payload = a_batch(&w, 2)}};
    struct peer_repair_reply got_reply;
    buf_clear(&b);
    peer_put_repair_reply(&b, &given);
    assert_int_equal(peer_take_repair_reply(buf_bytes(&b), &got_reply), FERRY_OK);
    assert_true(bytes_equal(got_reply.entry.payload, given.entry.payload));
    hurt(buf_bytes(&b), decode_repair_reply);
    given.given = false;
    buf_clear(&b);
    peer_put_repair_reply(&b, &given);
    hurt(buf_bytes(&b), decode_repair_reply);
    buf_fini(&b);
    batch_writer_fini(&w);
}

/* Random bytes behind a checksum that is right: what a broken peer could send. */
static void random_bodies_are_refused_or_sound(void **state)
{
    (void)state;
    static decoder *const decoders[] = {
        decode_raft, decode_begin,          decode_rows,           decode_entries,
        decode_end,  decode_snapshot_reply, decode_repair_request, decode_repair_reply};
    struct prng prng;
    prng_init(&prng, 4711);
    for (int i = 0; i < 20000; i++) {
        size_t size = prng_below(&prng, 200);
        uint8_t *body = mem_alloc(size + 1);
        assert_non_null(body);
        for (size_t at = 0; at < size; at++) {
            uint64_t dice = prng_next(&prng);
            body[at] = (uint8_t)(dice % 3 == 0 ? dice >> 8 : (dice >> 8) % 4);
        }
        uint8_t *tight = exactly(body, size);
        (void)!decoders[i % 8](bytes_of(tight, size));
        mem_free(tight);
        mem_free(body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_of_one_turn_share_a_frame_for_each_shard),
        cmocka_unit_test(an_empty_frame_says_that_the_node_is_there),
        cmocka_unit_test(what_has_no_route_is_dropped_and_counted),
        cmocka_unit_test(a_frame_past_its_goal_is_closed_and_another_begun),
        cmocka_unit_test(a_single_item_needs_no_route),
        cmocka_unit_test(a_frame_cut_or_flipped_anywhere_is_refused),
        cmocka_unit_test(an_append_comes_out_with_its_entries_terms_and_members),
        cmocka_unit_test(an_entry_with_a_damaged_batch_is_refused),
        cmocka_unit_test(every_kind_of_message_comes_out_as_it_went_in),
        cmocka_unit_test(hostile_counts_are_refused),
        cmocka_unit_test(a_snapshots_begin_comes_out_as_it_went_in),
        cmocka_unit_test(rows_and_entries_of_a_snapshot_come_out_as_they_went_in),
        cmocka_unit_test(answers_and_repairs_come_out_as_they_went_in),
        cmocka_unit_test(random_bodies_are_refused_or_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
