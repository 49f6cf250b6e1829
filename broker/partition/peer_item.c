#include "partition/peer_item.h"

#include "wire/batch.h"

#define MEMBERS_PREFIX_BYTES 16u

enum raft_offset {
    RAFT_AT_FLAGS = 1, /* u8, then two zero bytes. */
    RAFT_AT_ENTRIES = 4,
    RAFT_AT_TERM = 8,
    RAFT_AT_PREV_INDEX = 16,
    RAFT_AT_PREV_TERM = 24,
    RAFT_AT_COMMIT = 32,
    RAFT_AT_MATCH_INDEX = 40,
    RAFT_AT_MATCH_TERM = 48,
    RAFT_AT_SEQUENCE = 56,
};
_Static_assert(RAFT_AT_SEQUENCE + 8 == PEER_RAFT_BYTES, "the sequence ends the fixed part");
enum raft_flag { FLAG_SUCCESS = 1, FLAG_QUIET = 2, FLAG_TRANSFER = 4, FLAGS_ALL = 7 };

/* Takes `size` bytes off the front; NULL when there are fewer. */
static const uint8_t *take(struct bytes *rest, size_t size)
{
    if (rest->size < size) {
        return NULL;
    }
    const uint8_t *p = rest->data;
    *rest = bytes_of(p + size, rest->size - size);
    return p;
}

/* ---- Members ---- */

static void put_ids(struct buf *b, const raft_id *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        buf_append_le64(b, ids[i]);
    }
}

void peer_put_members(struct buf *b, const struct raft_members *m)
{
    buf_append_le32(b, m->voter_count);
    buf_append_le32(b, m->old_voter_count);
    buf_append_le32(b, m->learner_count);
    buf_append_le32(b, 0);
    put_ids(b, m->voters, m->voter_count);
    put_ids(b, m->old_voters, m->old_voter_count);
    put_ids(b, m->learners, m->learner_count);
}

void peer_put_config(struct buf *b, const struct raft_config_entry *c)
{
    buf_append_le64(b, c->index);
    peer_put_members(b, &c->members);
}

static const uint8_t *get_ids(const uint8_t *p, raft_id *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = get_le64(p);
        p += sizeof(raft_id);
    }
    return p;
}

enum ferry_err peer_take_members(struct bytes *rest, struct raft_members *m)
{
    *m = (struct raft_members){0};
    const uint8_t *p = take(rest, MEMBERS_PREFIX_BYTES);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    uint32_t voters = get_le32(p), old_voters = get_le32(p + 4), learners = get_le32(p + 8);
    if (voters > RAFT_VOTERS_MAX || old_voters > RAFT_VOTERS_MAX || learners > RAFT_LEARNERS_MAX ||
        get_le32(p + 12) != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    p = take(rest, (size_t)(voters + old_voters + learners) * sizeof(raft_id));
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    m->voter_count = voters;
    m->old_voter_count = old_voters;
    m->learner_count = learners;
    p = get_ids(p, m->voters, voters);
    p = get_ids(p, m->old_voters, old_voters);
    (void)get_ids(p, m->learners, learners);
    return raft_members_check(m) == FERRY_OK ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

enum ferry_err peer_take_config(struct bytes *rest, struct raft_config_entry *c)
{
    const uint8_t *p = take(rest, sizeof(uint64_t));
    if (p == NULL || get_le64(p) > RAFT_INDEX_MAX) {
        return FERRY_ERR_BAD_FRAME;
    }
    c->index = get_le64(p);
    return peer_take_members(rest, &c->members);
}

enum ferry_err peer_config_members(const struct store_entry *entry, struct raft_members *m)
{
    struct bytes rest = entry->payload;
    bool sound = entry->type == STORE_ENTRY_CONFIG && peer_take_members(&rest, m) == FERRY_OK &&
                 rest.size == 0 && m->voter_count > 0;
    return sound ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- Entries ---- */

size_t peer_entry_bytes(const struct store_entry *entry)
{
    return PEER_ENTRY_PREFIX_BYTES + store_entry_bytes(entry);
}

void peer_put_entry(struct buf *b, const struct store_entry *entry)
{
    size_t bytes = store_entry_bytes(entry);
    uint8_t *p = buf_extend(b, PEER_ENTRY_PREFIX_BYTES + bytes);
    if (p != NULL) {
        put_le32(p, (uint32_t)bytes);
        store_entry_encode(p + PEER_ENTRY_PREFIX_BYTES, entry);
    }
}

enum ferry_err peer_take_entry(struct bytes *rest, struct store_entry *entry)
{
    const uint8_t *p = take(rest, PEER_ENTRY_PREFIX_BYTES);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    size_t bytes = get_le32(p);
    p = take(rest, bytes);
    return p != NULL ? store_entry_decode(bytes_of(p, bytes), entry) : FERRY_ERR_BAD_FRAME;
}

enum ferry_err peer_entry_check(const struct store_entry *entry)
{
    struct batch_header h;
    struct raft_members m;
    if (entry->type == STORE_ENTRY_CONFIG) {
        return peer_config_members(entry, &m);
    }
    if (entry->type != STORE_ENTRY_BATCH) {
        return FERRY_OK;
    }
    bool sound =
        batch_check_sum(entry->payload, &h, NULL) == FERRY_OK && entry->skip_count <= h.count;
    return sound ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- Raft ---- */

void peer_put_raft(struct buf *b, const struct raft_message *m)
{
    uint8_t *p = buf_extend(b, PEER_RAFT_BYTES);
    if (p == NULL) {
        return;
    }
    uint32_t flags = (m->success ? (uint32_t)FLAG_SUCCESS : 0u) |
                     (m->quiet ? (uint32_t)FLAG_QUIET : 0u) |
                     (m->transfer ? (uint32_t)FLAG_TRANSFER : 0u);
    put_le32(p, (uint32_t)m->type | flags << 8);
    put_le32(p + RAFT_AT_ENTRIES, m->entry_count);
    put_le64(p + RAFT_AT_TERM, m->term);
    put_le64(p + RAFT_AT_PREV_INDEX, m->prev_index);
    put_le64(p + RAFT_AT_PREV_TERM, m->prev_term);
    put_le64(p + RAFT_AT_COMMIT, m->commit);
    put_le64(p + RAFT_AT_MATCH_INDEX, m->match_index);
    put_le64(p + RAFT_AT_MATCH_TERM, m->match_term);
    put_le64(p + RAFT_AT_SEQUENCE, m->sequence);
}

void peer_set_raft_entries(struct buf *b, size_t at, uint32_t count)
{
    if (buf_ok(b)) {
        must(at + PEER_RAFT_BYTES <= b->size);
        put_le32(b->data + at + RAFT_AT_ENTRIES, count);
    }
}

static enum ferry_err take_fixed(struct bytes *rest, struct raft_message *m)
{
    const uint8_t *p = take(rest, PEER_RAFT_BYTES);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    uint32_t type = p[0], flags = p[RAFT_AT_FLAGS];
    m->type = (enum raft_message_type)type;
    m->success = (flags & FLAG_SUCCESS) != 0;
    m->quiet = (flags & FLAG_QUIET) != 0;
    m->transfer = (flags & FLAG_TRANSFER) != 0;
    m->entry_count = get_le32(p + RAFT_AT_ENTRIES);
    m->term = get_le64(p + RAFT_AT_TERM);
    m->prev_index = get_le64(p + RAFT_AT_PREV_INDEX);
    m->prev_term = get_le64(p + RAFT_AT_PREV_TERM);
    m->commit = get_le64(p + RAFT_AT_COMMIT);
    m->match_index = get_le64(p + RAFT_AT_MATCH_INDEX);
    m->match_term = get_le64(p + RAFT_AT_MATCH_TERM);
    m->sequence = get_le64(p + RAFT_AT_SEQUENCE);
    bool sound = type <= RAFT_TIMEOUT_NOW && flags <= FLAGS_ALL && get_le16(p + 2) == 0 &&
                 m->term <= RAFT_TERM_MAX && m->prev_term <= RAFT_TERM_MAX &&
                 m->match_term <= RAFT_TERM_MAX && m->prev_index <= RAFT_INDEX_MAX &&
                 m->commit <= RAFT_INDEX_MAX && m->match_index <= RAFT_INDEX_MAX &&
                 m->entry_count <= (type == RAFT_APPEND_REQUEST ? RAFT_APPEND_ENTRIES_MAX : 0);
    return sound ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

/* Adds what one entry means for the core. */
static enum ferry_err see_entry(struct peer_raft *m, raft_index index,
                                const struct store_entry *entry)
{
    struct raft_message *msg = &m->message;
    raft_term last = msg->run_count > 0 ? m->runs[msg->run_count - 1].term : msg->prev_term;
    if (entry->term == 0 || entry->term < last || entry->term > msg->term) {
        return FERRY_ERR_BAD_FRAME;
    }
    if (msg->run_count == 0 || entry->term > last) {
        if (msg->run_count == RAFT_APPEND_RUNS_MAX) {
            return FERRY_ERR_BAD_FRAME;
        }
        m->runs[msg->run_count++] = (struct raft_run){.first = index, .term = entry->term};
    }
    if (entry->type != STORE_ENTRY_CONFIG) {
        return FERRY_OK;
    }
    if (msg->config_count == 2) {
        m->configs[0] = m->configs[1];
        msg->config_count = 1;
    }
    struct raft_config_entry *c = &m->configs[msg->config_count++];
    c->index = index;
    return peer_config_members(entry, &c->members);
}

enum ferry_err peer_take_raft(const struct peer_item *item, raft_id self, struct peer_raft *m)
{
    struct bytes rest = item->body;
    m->message = (struct raft_message){0};
    enum ferry_err err = take_fixed(&rest, &m->message);
    m->entries = rest;
    for (uint32_t i = 0; i < m->message.entry_count && err == FERRY_OK; i++) {
        struct store_entry entry;
        err = peer_take_entry(&rest, &entry);
        if (err == FERRY_OK) {
            err = peer_entry_check(&entry);
        }
        if (err == FERRY_OK) {
            err = see_entry(m, m->message.prev_index + 1 + i, &entry);
        }
    }
    if (err == FERRY_OK && rest.size != 0) {
        err = FERRY_ERR_BAD_FRAME;
    }
    m->message.from = item->from;
    m->message.to = self;
    m->message.runs = m->runs;
    m->message.configs = m->configs;
    return err;
}

/* ---- Snapshots ---- */

void peer_put_snapshot(struct buf *b, const struct peer_snapshot *s)
{
    buf_append_le64(b, s->term);
    buf_append_le64(b, s->id);
    buf_append_le64(b, s->chunk);
}

enum ferry_err peer_take_snapshot(struct bytes *rest, struct peer_snapshot *s)
{
    const uint8_t *p = take(rest, 24);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    *s = (struct peer_snapshot){
        .term = get_le64(p), .id = get_le64(p + 8), .chunk = get_le64(p + 16)};
    return s->term > 0 && s->term <= RAFT_TERM_MAX ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

void peer_put_snapshot_begin(struct buf *b, const struct peer_snapshot_begin *s)
{
    buf_append_le64(b, s->index);
    buf_append_le64(b, s->index_term);
    buf_append_le64(b, s->trim_index);
    buf_append_le64(b, s->trim_term);
    buf_append_le64(b, s->bytes);
    peer_put_config(b, &s->config);
    peer_put_config(b, &s->previous_config);
}

enum ferry_err peer_take_snapshot_begin(struct bytes rest, struct peer_snapshot_begin *s)
{
    const uint8_t *p = take(&rest, 40);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    s->index = get_le64(p);
    s->index_term = get_le64(p + 8);
    s->trim_index = get_le64(p + 16);
    s->trim_term = get_le64(p + 24);
    s->bytes = get_le64(p + 32);
    enum ferry_err err = peer_take_config(&rest, &s->config);
    if (err == FERRY_OK) {
        err = peer_take_config(&rest, &s->previous_config);
    }
    bool sound = err == FERRY_OK && rest.size == 0 && s->index > 0 && s->index <= RAFT_INDEX_MAX &&
                 s->index_term > 0 && s->index_term <= RAFT_TERM_MAX && s->trim_index <= s->index &&
                 s->trim_term <= s->index_term && (s->trim_index == 0) == (s->trim_term == 0) &&
                 s->config.index <= s->index && s->previous_config.index <= s->config.index &&
                 s->config.members.voter_count > 0;
    return sound ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

void peer_put_row(struct buf *b, const struct peer_row *row)
{
    must(row->table != 0 && row->table <= PEER_ROWS_TABLE_MAX);
    must(row->key.size <= STORE_KEY_MAX_BYTES && row->value.size <= UINT32_MAX);
    buf_append_le32(b, row->table | (uint32_t)row->key.size << 16);
    buf_append_le32(b, (uint32_t)row->value.size);
    buf_append_bytes(b, row->key);
    buf_append_bytes(b, row->value);
}

enum ferry_err peer_take_row(struct bytes *rest, struct peer_row *row)
{
    const uint8_t *p = take(rest, PEER_ROW_PREFIX_BYTES);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    size_t key_bytes = get_le16(p + 2), value_bytes = get_le32(p + 4);
    row->table = p[0];
    if (p[0] == 0 || p[0] > PEER_ROWS_TABLE_MAX || p[1] != 0 || key_bytes > STORE_KEY_MAX_BYTES ||
        value_bytes > rest->size) {
        return FERRY_ERR_BAD_FRAME;
    }
    p = take(rest, key_bytes + value_bytes);
    if (p == NULL) {
        return FERRY_ERR_BAD_FRAME;
    }
    row->key = bytes_of(p, key_bytes);
    row->value = bytes_of(p + key_bytes, value_bytes);
    return FERRY_OK;
}

/* {u32 count, u32 0} */
static enum ferry_err take_count(struct bytes *rest, uint32_t *count)
{
    const uint8_t *p = take(rest, 8);
    if (p == NULL || get_le32(p) == 0 || get_le32(p + 4) != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *count = get_le32(p);
    return FERRY_OK;
}

enum ferry_err peer_take_rows(struct bytes *rest, uint32_t *count)
{
    enum ferry_err err = take_count(rest, count);
    struct bytes walk = *rest;
    for (uint32_t i = 0; err == FERRY_OK && i < *count; i++) {
        struct peer_row row;
        err = peer_take_row(&walk, &row);
    }
    return err == FERRY_OK && walk.size != 0 ? FERRY_ERR_BAD_FRAME : err;
}

enum ferry_err peer_take_entries(struct bytes *rest, uint32_t *count, raft_index *first)
{
    enum ferry_err err = take_count(rest, count);
    const uint8_t *p = err == FERRY_OK ? take(rest, 8) : NULL;
    if (p == NULL || get_le64(p) == 0 || get_le64(p) > RAFT_INDEX_MAX) {
        return FERRY_ERR_BAD_FRAME;
    }
    *first = get_le64(p);
    struct bytes walk = *rest;
    for (uint32_t i = 0; err == FERRY_OK && i < *count; i++) {
        struct store_entry entry;
        err = peer_take_entry(&walk, &entry);
        if (err == FERRY_OK) {
            err = peer_entry_check(&entry);
        }
    }
    return err == FERRY_OK && walk.size != 0 ? FERRY_ERR_BAD_FRAME : err;
}

enum ferry_err peer_take_snapshot_end(struct bytes rest, uint64_t *rows, uint64_t *entries)
{
    const uint8_t *p = take(&rest, 16);
    if (p == NULL || rest.size != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *rows = get_le64(p);
    *entries = get_le64(p + 8);
    return FERRY_OK;
}

void peer_put_snapshot_reply(struct buf *b, const struct peer_snapshot_reply *r)
{
    buf_append_le32(b, (uint32_t)r->status);
    buf_append_le32(b, 0);
    buf_append_le64(b, r->index);
}

enum ferry_err peer_take_snapshot_reply(struct bytes rest, struct peer_snapshot_reply *r)
{
    const uint8_t *p = take(&rest, 16);
    if (p == NULL || rest.size != 0 || get_le32(p) < PEER_SNAPSHOT_GOING ||
        get_le32(p) > PEER_SNAPSHOT_REFUSED || get_le32(p + 4) != 0 ||
        get_le64(p + 8) > RAFT_INDEX_MAX) {
        return FERRY_ERR_BAD_FRAME;
    }
    r->status = (enum peer_snapshot_status)get_le32(p);
    r->index = get_le64(p + 8);
    return FERRY_OK;
}

/* ---- Repair ---- */

void peer_put_repair_request(struct buf *b, const struct peer_repair_request *r)
{
    buf_append_le64(b, r->nonce);
    buf_append_le64(b, r->index);
    buf_append_le64(b, r->witness_index);
    buf_append_le64(b, r->witness_term);
    buf_append_le64(b, r->previous_term);
}

enum ferry_err peer_take_repair_request(struct bytes body, struct peer_repair_request *r)
{
    const uint8_t *p = take(&body, 40);
    if (p == NULL || body.size != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *r = (struct peer_repair_request){.nonce = get_le64(p),
                                      .index = get_le64(p + 8),
                                      .witness_index = get_le64(p + 16),
                                      .witness_term = get_le64(p + 24),
                                      .previous_term = get_le64(p + 32)};
    bool sound = r->index > 0 && r->index <= RAFT_INDEX_MAX &&
                 (r->witness_index == 0) == (r->witness_term == 0) &&
                 (r->witness_index == 0 || r->witness_index >= r->index) &&
                 r->witness_index <= RAFT_INDEX_MAX && r->witness_term <= RAFT_TERM_MAX &&
                 r->previous_term <= RAFT_TERM_MAX;
    return sound ? FERRY_OK : FERRY_ERR_BAD_FRAME;
}

void peer_put_repair_reply(struct buf *b, const struct peer_repair_reply *r)
{
    buf_append_le64(b, r->nonce);
    buf_append_le64(b, r->index);
    buf_append_le32(b, r->given ? 1 : 0);
    buf_append_le32(b, 0);
    if (r->given) {
        peer_put_entry(b, &r->entry);
    }
}

enum ferry_err peer_take_repair_reply(struct bytes body, struct peer_repair_reply *r)
{
    const uint8_t *p = take(&body, 24);
    if (p == NULL || get_le64(p + 8) == 0 || get_le64(p + 8) > RAFT_INDEX_MAX ||
        get_le32(p + 16) > 1 || get_le32(p + 20) != 0) {
        return FERRY_ERR_BAD_FRAME;
    }
    *r = (struct peer_repair_reply){
        .nonce = get_le64(p), .index = get_le64(p + 8), .given = get_le32(p + 16) == 1};
    enum ferry_err err = r->given ? peer_take_entry(&body, &r->entry) : FERRY_OK;
    return err == FERRY_OK && body.size != 0 ? FERRY_ERR_BAD_FRAME : err;
}
