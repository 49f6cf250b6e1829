/* Sending a snapshot: the group's rows as of `flushed`, then the entries from the trim to there.
 *
 * Small tables and marks are read in one view when it begins; large ones by key, a chunk a view: a
 * row there may be newer than the rest (replica.h, large_tables). Chunks are kept until they are
 * answered and sent again when the answer is late. */
#include "base/log.h"
#include "base/mem.h"
#include "partition/replica_internal.h"

#define UNANSWERED_MAX_BYTES (2u << 20)
/* Beside a chunk's goal, the largest thing in it. */
#define CHUNK_LIMIT_BYTES (PEER_FRAME_MAX_BYTES - PEER_FRAME_GOAL_BYTES - 4096u)

/* ---- Places ---- */

static void clear(struct snapshot_out *s)
{
    buf_fini(&s->small);
    for (size_t i = 0; i < s->chunk_count; i++) {
        buf_fini(&s->chunks[i].body);
    }
    *s = (struct snapshot_out){0};
}

static void take_place(struct replica *r, struct snapshot_out *s, raft_id peer)
{
    must(s->to == 0);
    s->to = peer;
    s->heard_us = r->now_us;
    r->flush_asked = true; /* The newer the rows, the less is to follow. */
}

static bool is_known(const struct replica *r, raft_id peer)
{
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        if (r->out[i].to == peer) {
            return true;
        }
    }
    for (size_t i = 0; i < r->wanted_count; i++) {
        if (r->wanted[i] == peer) {
            return true;
        }
    }
    return false;
}

void snapshot_want(struct replica *r, raft_id peer)
{
    if (is_known(r, peer)) {
        return;
    }
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        if (r->out[i].to == 0) {
            take_place(r, &r->out[i], peer);
            return;
        }
    }
    must(r->wanted_count < RAFT_PEERS_MAX);
    r->wanted[r->wanted_count++] = peer;
}

void snapshot_cancel_all(struct replica *r)
{
    r->wanted_count = 0;
    snapshot_fini(r);
}

void snapshot_fini(struct replica *r)
{
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        clear(&r->out[i]);
    }
}

/* It ended: the peer has all up to `index`, or 0: it failed. The place is free before the core is
 * told, as the core may ask for another one at once. */
static void finish(struct replica *r, struct snapshot_out *s, raft_index index)
{
    struct raft_event done = {
        .type = RAFT_SNAPSHOT_DONE, .now_us = r->now_us, .peer = s->to, .index = index};
    clear(s);
    enum ferry_err err = replica_step(r, &done);
    if (err == FERRY_ERR_NO_MEMORY) {
        snapshot_want(r, done.peer); /* Begun anew: the core waits for its end. */
    }
    if (s->to == 0 && r->wanted_count > 0) {
        raft_id next = r->wanted[0];
        memmove(r->wanted, r->wanted + 1, --r->wanted_count * sizeof(r->wanted[0]));
        take_place(r, s, next);
    }
}

raft_index snapshot_delete_bound(const struct replica *r)
{
    raft_index bound = RAFT_INDEX_MAX;
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        const struct snapshot_out *s = &r->out[i];
        if (s->begun && s->phase < SNAPSHOT_END && s->next_entry - 1 < bound) {
            bound = s->next_entry - 1;
        }
    }
    return bound;
}

/* ---- Making chunks ---- */

static struct buf *begin_chunk(struct replica *r, struct snapshot_out *s, enum peer_kind kind)
{
    must(s->chunk_count < REPLICA_SNAPSHOT_WINDOW);
    struct snapshot_chunk *c = &s->chunks[s->chunk_count];
    struct peer_snapshot name = {
        .term = raft_current_term(r->raft), .id = s->id, .chunk = s->first_chunk + s->chunk_count};
    *c = (struct snapshot_chunk){.kind = (uint8_t)kind};
    buf_init(&c->body, CHUNK_LIMIT_BYTES);
    peer_put_snapshot(&c->body, &name);
    return &c->body;
}

static enum ferry_err end_chunk(struct snapshot_out *s)
{
    struct buf *body = &s->chunks[s->chunk_count].body;
    if (!buf_ok(body)) {
        buf_fini(body);
        return FERRY_ERR_NO_MEMORY;
    }
    s->bytes_done += body->size;
    s->chunk_count++;
    return FERRY_OK;
}

static void drop_chunk(struct snapshot_out *s)
{
    buf_fini(&s->chunks[s->chunk_count].body);
}

/* {u32 count, u32 0} at `at`, counted afterwards. */
static size_t put_count(struct buf *b)
{
    size_t at = b->size;
    buf_append_le64(b, 0);
    return at;
}

static void set_count(struct buf *b, size_t at, uint32_t count)
{
    if (buf_ok(b)) {
        put_le32(b->data + at, count);
    }
}

static bool is_large(const struct replica *r, uint8_t table)
{
    for (size_t i = 0; i < sizeof(r->config.ops->large_tables); i++) {
        if (r->config.ops->large_tables[i] == table) {
            return true;
        }
    }
    return false;
}

struct collecting {
    struct buf *out;
    struct snapshot_out *s;
    uint8_t table;
    uint32_t count;
    size_t goal_bytes; /* A row that comes when so much is there begins the next chunk. */
    bool stopped;
};

static enum ferry_err collect_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct collecting *c = arg;
    if (c->out->size >= c->goal_bytes) {
        memcpy(c->s->large_key, key.data, key.size);
        c->s->large_key_bytes = key.size;
        c->stopped = true;
        *stop = true;
        return FERRY_OK;
    }
    struct peer_row row = {.table = c->table, .key = key, .value = value};
    peer_put_row(c->out, &row);
    c->count++;
    return buf_ok(c->out) ? FERRY_OK : FERRY_ERR_LIMIT_REACHED;
}

/* All small tables, in the view that is open. */
static enum ferry_err collect_small(struct replica *r, struct snapshot_out *s)
{
    buf_init(&s->small, REPLICA_SNAPSHOT_CORE_MAX_BYTES);
    enum ferry_err err = FERRY_OK;
    for (uint32_t table = 1; table <= PEER_ROWS_TABLE_MAX && err == FERRY_OK; table++) {
        struct collecting c = {
            .out = &s->small, .s = s, .table = (uint8_t)table, .goal_bytes = SIZE_MAX};
        if (!is_large(r, (uint8_t)table)) {
            err = store_each_row(r->config.store, r->config.group, c.table, bytes_of(NULL, 0),
                                 collect_row, &c);
            s->rows += c.count;
        }
    }
    if (err == FERRY_ERR_LIMIT_REACHED && !r->limit_told) {
        r->limit_told = true;
        log_line(LOG_ERROR, "replica",
                 "group %llu: its tables take more than %u bytes, so no snapshot of it can be sent",
                 (unsigned long long)r->config.group, REPLICA_SNAPSHOT_CORE_MAX_BYTES);
    }
    return err;
}

static bool can_begin(const struct replica *r)
{
    return r->flushed > 0 && r->flushed >= r->marks.trim_index;
}

/* The configuration that goes with the rows: the one in force at `flushed`, or, when that is not
 * known any more, the one before the last, which is committed (raft.h, invariant 9), as if it had
 * been in force there. It cannot mislead: a majority of it has a log that goes on to where it was
 * committed, and votes for nobody whose log ends before. To wait until `flushed` has passed it
 * would be to wait for ever, if the commit needs the very member that is to be fed. */
static void choose_configs(const struct replica *r, struct peer_snapshot_begin *s)
{
    bool in_force = r->members.index <= s->index;
    s->config = in_force ? r->members : r->previous_members;
    s->previous_config = r->previous_members;
    if (s->config.index > s->index) {
        s->config.index = s->index;
        s->previous_config.index = s->index;
    }
}

static enum ferry_err begin(struct replica *r, struct snapshot_out *s)
{
    s->id = ++r->snapshot_ids;
    s->marks = (struct peer_snapshot_begin){
        .index = r->flushed,
        .index_term = raft_term_at(r->raft, r->flushed),
        .trim_index = r->marks.trim_index,
        .trim_term = r->marks.trim_term,
    };
    choose_configs(r, &s->marks);
    must(s->marks.index_term != 0);
    s->next_entry = s->marks.trim_index + 1;
    enum ferry_err err = collect_small(r, s);
    if (err != FERRY_OK) {
        return err;
    }
    s->begun = true;
    s->phase = SNAPSHOT_SMALL;
    s->marks.bytes =
        s->small.size + (s->marks.index - s->marks.trim_index) * (uint64_t)r->entry_bytes;
    struct buf *b = begin_chunk(r, s, PEER_SNAPSHOT_BEGIN);
    peer_put_snapshot_begin(b, &s->marks);
    return end_chunk(s);
}

static enum ferry_err make_small(struct replica *r, struct snapshot_out *s)
{
    struct bytes rest = bytes_of(s->small.data + s->small_at, s->small.size - s->small_at);
    if (rest.size == 0) {
        buf_fini(&s->small);
        s->phase = SNAPSHOT_LARGE;
        return FERRY_OK;
    }
    struct buf *b = begin_chunk(r, s, PEER_SNAPSHOT_ROWS);
    size_t at = put_count(b);
    const uint8_t *start = rest.data;
    uint32_t count = 0;
    while (rest.size > 0 && (size_t)(rest.data - start) < PEER_CHUNK_BYTES) {
        struct peer_row row;
        must(peer_take_row(&rest, &row) == FERRY_OK);
        count++;
    }
    size_t bytes = (size_t)(rest.data - start);
    buf_append(b, start, bytes);
    set_count(b, at, count);
    s->small_at += bytes;
    return end_chunk(s);
}

static enum ferry_err make_large(struct replica *r, struct snapshot_out *s)
{
    const uint8_t *tables = r->config.ops->large_tables;
#ifdef MUT_32 /* a snapshot goes without the tables that know which messages are repeats */
    s->large = sizeof(r->config.ops->large_tables);
#endif
    if (s->large >= sizeof(r->config.ops->large_tables) || tables[s->large] == 0) {
        s->phase = SNAPSHOT_ENTRIES;
        return FERRY_OK;
    }
    struct buf *b = begin_chunk(r, s, PEER_SNAPSHOT_ROWS);
    size_t at = put_count(b);
    struct collecting c = {
        .out = b, .s = s, .table = tables[s->large], .goal_bytes = PEER_CHUNK_BYTES};
    uint8_t from[STORE_KEY_MAX_BYTES + 1];
    memcpy(from, s->large_key, s->large_key_bytes);
    enum ferry_err err = store_each_row(r->config.store, r->config.group, c.table,
                                        bytes_of(from, s->large_key_bytes), collect_row, &c);
    if (!c.stopped) {
        s->large++;
        s->large_key_bytes = 0;
    }
    if (err != FERRY_OK || c.count == 0) {
        drop_chunk(s);
        return err;
    }
    set_count(b, at, c.count);
    s->rows += c.count;
    return end_chunk(s);
}

static enum ferry_err put_entries(struct replica *r, struct snapshot_out *s, struct buf *b,
                                  uint32_t *count)
{
    struct store_cursor cursor = {0};
    enum ferry_err err =
        store_cursor_open(r->config.store, r->config.group, s->next_entry, &cursor);
    while (err == FERRY_OK && s->next_entry <= s->marks.index && b->size < PEER_CHUNK_BYTES) {
        struct store_entry entry;
        uint64_t index = 0;
        err = store_cursor_next(&cursor, &index, &entry);
        if (err == FERRY_OK) {
            err = peer_entry_check(&entry);
        }
        if (err == FERRY_OK) {
            peer_put_entry(b, &entry);
            s->next_entry++;
            *count += 1;
        }
    }
    store_cursor_close(&cursor);
    return err;
}

static enum ferry_err make_entries(struct replica *r, struct snapshot_out *s)
{
    if (s->next_entry > s->marks.index) {
        s->phase = SNAPSHOT_END;
        return FERRY_OK;
    }
    struct buf *b = begin_chunk(r, s, PEER_SNAPSHOT_ENTRIES);
    size_t at = put_count(b);
    uint32_t count = 0;
    buf_append_le64(b, s->next_entry);
    enum ferry_err err = put_entries(r, s, b, &count);
    if (err != FERRY_OK) {
        drop_chunk(s);
        return err;
    }
    set_count(b, at, count);
    s->entries += count;
    return end_chunk(s);
}

static enum ferry_err make_end(struct replica *r, struct snapshot_out *s)
{
    struct buf *b = begin_chunk(r, s, PEER_SNAPSHOT_END);
    buf_append_le64(b, s->rows);
    buf_append_le64(b, s->entries);
    s->phase = SNAPSHOT_SENT;
    return end_chunk(s);
}

/* One step towards the next chunk; within a view. */
static enum ferry_err advance(struct replica *r, struct snapshot_out *s)
{
    switch (s->phase) {
    case SNAPSHOT_BEGIN:
        return begin(r, s);
    case SNAPSHOT_SMALL:
        return make_small(r, s);
    case SNAPSHOT_LARGE:
        return make_large(r, s);
    case SNAPSHOT_ENTRIES:
        return make_entries(r, s);
    case SNAPSHOT_END:
        return make_end(r, s);
    case SNAPSHOT_SENT:
        break;
    }
    must(false);
    return FERRY_ERR_INVALID_ARGUMENT;
}

/* ---- Sending ---- */

static size_t unanswered_bytes(const struct snapshot_out *s)
{
    size_t bytes = 0;
    for (size_t i = 0; i < s->chunk_count; i++) {
        bytes += s->chunks[i].body.size;
    }
    return bytes;
}

/* The receiver empties itself before it takes more than the first chunk. */
static bool wants_chunk(const struct replica *r, const struct snapshot_out *s)
{
    if (replica_must_not_copy(r) || s->to == 0 || s->phase == SNAPSHOT_SENT ||
        (!s->begun && !can_begin(r))) {
        return false;
    }
    bool waits = s->begun && s->first_chunk == 0;
    return !waits && s->chunk_count < REPLICA_SNAPSHOT_WINDOW &&
           unanswered_bytes(s) < UNANSWERED_MAX_BYTES;
}

static bool has_unsent(const struct snapshot_out *s)
{
    for (size_t i = 0; i < s->chunk_count; i++) {
        if (!s->chunks[i].sent) {
            return true;
        }
    }
    return false;
}

bool snapshot_wants_send(const struct replica *r)
{
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        if (wants_chunk(r, &r->out[i]) || has_unsent(&r->out[i])) {
            return true;
        }
    }
    return false;
}

static void send_chunks(struct replica *r, struct snapshot_out *s, size_t *budget,
                        struct peer_outbox *out)
{
    for (size_t i = 0; i < s->chunk_count; i++) {
        struct snapshot_chunk *c = &s->chunks[i];
        if (c->sent) {
            continue;
        }
        struct buf *b = peer_outbox_begin(out, s->to, r->config.group, c->kind);
        if (b != NULL) {
            buf_append_bytes(b, buf_bytes(&c->body));
            peer_outbox_end(out);
        }
        c->sent = true; /* Dropped or not: the answer tells. */
        *budget -= c->body.size < *budget ? c->body.size : *budget;
        s->resend_us = r->now_us + REPLICA_SNAPSHOT_RESEND_US;
    }
}

/* Makes chunks while there is room for them; each step in a view that lives no longer. */
static enum ferry_err make_chunks(struct replica *r, struct snapshot_out *s, size_t budget)
{
    enum ferry_err err = FERRY_OK;
    size_t before = unanswered_bytes(s);
    while (err == FERRY_OK && wants_chunk(r, s) && unanswered_bytes(s) - before < budget) {
        err = store_read_begin(r->config.store);
        if (err == FERRY_OK) {
            size_t made = unanswered_bytes(s);
            err = advance(r, s);
            store_read_end(r->config.store);
            made = unanswered_bytes(s) - made;
            if (r->config.copy_bytes != NULL && s->to != 0) {
                *r->config.copy_bytes -= (int64_t)made;
            }
        }
    }
    return err;
}

static void give_up(struct replica *r, struct snapshot_out *s, const char *why)
{
    log_line(LOG_WARN, "replica", "group %llu: the snapshot for member %llx ends: %s",
             (unsigned long long)r->config.group, (unsigned long long)s->to, why);
    finish(r, s, 0);
}

static void send_one(struct replica *r, struct snapshot_out *s, size_t *budget,
                     struct peer_outbox *out)
{
    if (!s->begun && !can_begin(r)) {
        r->flush_asked = true;
        return;
    }
    enum ferry_err err = make_chunks(r, s, *budget);
    if (err == FERRY_ERR_CORRUPT && s->begun && s->phase == SNAPSHOT_ENTRIES) {
        replica_damaged(r, s->next_entry); /* Costs the leadership, and this snapshot. */
    }
    if (err != FERRY_OK && s->to != 0) {
        give_up(r, s, ferry_err_text(err));
        return;
    }
    send_chunks(r, s, budget, out);
}

void snapshot_send(struct replica *r, int64_t now_us, size_t *budget, struct peer_outbox *out)
{
    must(r->now_us == now_us);
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        if (r->out[i].to != 0 && *budget > 0 && replica_is_leader(r)) {
            send_one(r, &r->out[i], budget, out);
        }
    }
}

/* ---- Answers and time ---- */

static void take_progress(struct snapshot_out *s, uint64_t next_chunk)
{
    if (next_chunk <= s->first_chunk || next_chunk - s->first_chunk > s->chunk_count) {
        return; /* Old news, or not ours. */
    }
    size_t answered = (size_t)(next_chunk - s->first_chunk);
    for (size_t i = 0; i < answered; i++) {
        buf_fini(&s->chunks[i].body);
    }
    s->chunk_count -= answered;
    memmove(s->chunks, s->chunks + answered, s->chunk_count * sizeof(s->chunks[0]));
    s->first_chunk = next_chunk;
}

void snapshot_take_reply(struct replica *r, raft_id from, const struct peer_snapshot *name,
                         const struct peer_snapshot_reply *reply, int64_t now_us)
{
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        struct snapshot_out *s = &r->out[i];
        if (s->to != from || !s->begun || s->id != name->id ||
            name->term != raft_current_term(r->raft)) {
            continue;
        }
        s->heard_us = now_us;
        if (reply->status == PEER_SNAPSHOT_DONE && reply->index == s->marks.index) {
            finish(r, s, reply->index);
        } else if (reply->status == PEER_SNAPSHOT_GOING) {
            take_progress(s, name->chunk);
        } else {
            give_up(r, s, "the receiver does not take it");
        }
        return;
    }
}

int64_t snapshot_deadline_us(const struct replica *r)
{
    int64_t due = RAFT_NEVER;
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        const struct snapshot_out *s = &r->out[i];
        if (s->to == 0) {
            continue;
        }
        int64_t silent = s->heard_us + REPLICA_SNAPSHOT_SILENCE_MS * 1000;
        due = silent < due ? silent : due;
        if (s->chunk_count > 0 && !has_unsent(s) && s->resend_us < due) {
            due = s->resend_us;
        }
    }
    return due;
}

static void tick_one(struct replica *r, struct snapshot_out *s, int64_t now_us)
{
    if (replica_must_not_copy(r) && s->chunk_count == 0) {
        s->heard_us = now_us; /* It was told nothing that it could answer. */
    }
    if (now_us - s->heard_us >= REPLICA_SNAPSHOT_SILENCE_MS * 1000) {
        give_up(r, s, "the receiver is silent");
        return;
    }
    if (s->begun && s->phase < SNAPSHOT_END && r->marks.trim_index > s->marks.index) {
        give_up(r, s, "the log was trimmed past it");
        return;
    }
    if (s->chunk_count > 0 && now_us >= s->resend_us) {
        for (size_t i = 0; i < s->chunk_count; i++) {
            s->chunks[i].sent = false;
        }
    }
}

void snapshot_tick(struct replica *r, int64_t now_us)
{
    for (size_t i = 0; i < REPLICA_SNAPSHOTS_MAX; i++) {
        if (r->out[i].to != 0) {
            tick_one(r, &r->out[i], now_us);
        }
    }
}
