/* Installing a snapshot. First the mark on disk (installing), with which nothing else of the group
 * counts any more but term, vote and the floor, where the log ended; then the old rows and entries
 * go, a bounded number a transaction; then the chunks come in, in order; at last one transaction
 * writes the marks and takes the mark away, and the core is made anew from disk. A crash in the
 * middle leaves the mark.
 *
 * A voter that installs still votes: without it a group of three with one member behind would lose
 * its leader for good when that dies in the middle, though a majority is there (INV-V01). It votes
 * by the end that its log had (the floor, see replica_drop.h): nobody wins with less than it has
 * acknowledged. What it throws away, others have: its log ended before the leader's trim, and the
 * entry that moved the trim there was committed by a majority without it. */
#include "base/log.h"
#include "base/mem.h"
#include "partition/replica_internal.h"

/* Of chunks in one transaction; more wait at the sender. */
#define TAKEN_MAX_BYTES (4u << 20)

static bool same_name(const struct peer_snapshot *a, const struct peer_snapshot *b)
{
    return a->term == b->term && a->id == b->id;
}

static void answer(struct replica *r, raft_id to, const struct peer_snapshot *name,
                   enum peer_snapshot_status status, raft_index index)
{
    r->refuse_to = to;
    r->refuse = *name;
    r->refusal = (struct peer_snapshot_reply){.status = status, .index = index};
}

/* ---- Beginning ---- */

/* True when this log holds all that the snapshot does: then what follows it stays, too. */
static bool has_all(const struct replica *r, const struct peer_snapshot_begin *s)
{
#ifdef MUT_42 /* a snapshot older than the log takes the log's place */
    return r == NULL;
#endif
    return raft_commit_index(r->raft) >= s->index ||
           raft_term_at(r->raft, s->index) == s->index_term;
}

static void forget_group(struct replica *r, raft_term term)
{
    if (r->raft != NULL) {
        raft_index end = raft_last_index(r->raft);
        bool is_trimmed = end == raft_trim_index(r->raft);
        replica_floor_raise(&r->floor, end,
                            is_trimmed ? r->marks.trim_term : raft_term_at(r->raft, end));
    }
    replica_free_core(r);
    bool newer = term > r->marks.term;
    r->marks = (struct store_group){.group = r->config.group,
                                    .term = newer ? term : r->marks.term,
                                    .vote = newer ? 0 : r->marks.vote,
                                    .installing = true};
    r->marks_dirty = true;
    r->members_dirty = false;
    r->repair = (struct repair){.nonce = r->repair.nonce};
    r->asked_count = 0;
    r->read_lost = r->read_asked;
    r->dirty_since_us = 0;
    r->flush_asked = false;
}

static void begin_install(struct replica *r, raft_id from, const struct peer_snapshot *name,
                          const struct peer_snapshot_begin *s, int64_t now_us)
{
    log_line(LOG_INFO, "replica", "group %llu: a snapshot up to %llu comes from member %llx",
             (unsigned long long)r->config.group, (unsigned long long)s->index,
             (unsigned long long)from);
    forget_group(r, name->term);
    struct snapshot_in *in = &r->in;
    struct peer_item *taken = in->taken;
    size_t capacity = in->taken_capacity;
    *in = (struct snapshot_in){.from = from,
                               .name = *name,
                               .marks = *s,
                               .emptying = true,
                               .next_chunk = 1,
                               .taken = taken,
                               .taken_capacity = capacity,
                               .heard_us = now_us};
}

static void receive_begin(struct replica *r, const struct peer_item *item,
                          const struct peer_snapshot *name, struct bytes rest, int64_t now_us)
{
    struct peer_snapshot_begin s;
    if (peer_take_snapshot_begin(rest, &s) != FERRY_OK || name->chunk != 0 ||
        name->term < replica_term(r)) {
        r->dropped++;
        return;
    }
    if (r->raft != NULL && has_all(r, &s)) {
        if (raft_stored_index(r->raft) >= s.index) {
            answer(r, item->from, name, PEER_SNAPSHOT_DONE, s.index);
        }
        return;
    }
    if (r->raft == NULL && r->in.from == item->from && same_name(&r->in.name, name)) {
        r->in.reply_owed = true;
        return;
    }
    bool older = r->raft == NULL && r->in.from != 0 && name->term < r->in.name.term;
    if (older || (replica_is_leader(r) && name->term == replica_term(r))) {
        r->dropped++;
        return;
    }
    begin_install(r, item->from, name, &s, now_us);
}

/* ---- Chunks ---- */

static enum ferry_err check_terms(const struct snapshot_in *in, struct bytes entries,
                                  uint32_t count)
{
    raft_term last = in->marks.trim_term;
    for (uint32_t i = 0; i < count; i++) {
        struct store_entry entry;
        enum ferry_err err = peer_take_entry(&entries, &entry);
        if (err != FERRY_OK || entry.term < last || entry.term > in->marks.index_term) {
            return FERRY_ERR_BAD_FRAME;
        }
        last = entry.term;
    }
    return FERRY_OK;
}

/* Everything about the chunk is checked before anything of it is believed. */
static enum ferry_err check_chunk(struct snapshot_in *in, const struct peer_item *item,
                                  struct bytes rest)
{
    uint32_t count = 0;
    uint64_t rows = 0, entries = 0;
    raft_index first = 0;
    enum ferry_err err = FERRY_ERR_BAD_FRAME;
    switch ((enum peer_kind)item->kind) {
    case PEER_SNAPSHOT_ROWS:
        err = peer_take_rows(&rest, &count);
        in->rows += err == FERRY_OK ? count : 0;
        return err;
    case PEER_SNAPSHOT_ENTRIES:
        err = peer_take_entries(&rest, &count, &first);
        if (err == FERRY_OK && (first != in->marks.trim_index + 1 + in->entries ||
                                count > in->marks.index + 1 - first)) {
            err = FERRY_ERR_BAD_FRAME;
        }
        if (err == FERRY_OK) {
            err = check_terms(in, rest, count);
        }
        in->entries += err == FERRY_OK ? count : 0;
        return err;
    case PEER_SNAPSHOT_END:
        err = peer_take_snapshot_end(rest, &rows, &entries);
        if (err == FERRY_OK && (rows != in->rows || entries != in->entries ||
                                entries != in->marks.index - in->marks.trim_index)) {
            err = FERRY_ERR_BAD_FRAME;
        }
        in->ended = err == FERRY_OK;
        return err;
    default:
        return err;
    }
}

static bool take_chunk(struct replica *r, const struct peer_item *item, struct bytes rest)
{
    struct snapshot_in *in = &r->in;
    if ((in->taken_count > 0 && in->taken_bytes + item->body.size > TAKEN_MAX_BYTES) ||
        !mem_grow((void **)&in->taken, &in->taken_capacity, in->taken_count + 1,
                  sizeof(*in->taken)) ||
        check_chunk(in, item, rest) != FERRY_OK) {
        return false;
    }
    struct peer_item *kept = &in->taken[in->taken_count++];
    *kept = *item;
    kept->body = rest;
    in->taken_bytes += item->body.size;
    in->bytes_done += item->body.size;
    in->next_chunk++;
    return true;
}

static void receive_chunk(struct replica *r, const struct peer_item *item,
                          const struct peer_snapshot *name, struct bytes rest, int64_t now_us)
{
    struct snapshot_in *in = &r->in;
    if (r->raft == NULL && in->from == item->from && same_name(&in->name, name)) {
        in->heard_us = now_us;
        if (name->term >= r->marks.term) {
            r->install_leader = item->from;
            r->install_heard_us = now_us;
        }
        /* Another than the next: a repeat, or one before it was lost. The answer tells. */
        if (in->emptying || in->ended || name->chunk != in->next_chunk ||
            !take_chunk(r, item, rest)) {
            in->reply_owed = true;
        }
        return;
    }
    if (r->installed_from == item->from && same_name(&r->installed, name)) {
        answer(r, item->from, name, PEER_SNAPSHOT_DONE, r->installed_index);
    } else if (name->term >= replica_term(r)) {
        answer(r, item->from, name, PEER_SNAPSHOT_REFUSED, 0);
    } else {
        r->dropped++;
    }
}

enum ferry_err install_receive(struct replica *r, const struct peer_item *item, int64_t now_us)
{
    struct peer_snapshot name;
    struct bytes rest = item->body;
    if (peer_take_snapshot(&rest, &name) != FERRY_OK) {
        r->dropped++;
    } else if (item->kind == PEER_SNAPSHOT_BEGIN) {
        receive_begin(r, item, &name, rest, now_us);
    } else {
        receive_chunk(r, item, &name, rest, now_us);
    }
    return r->failed;
}

/* Refuses, with a hint of no term: nothing is found in the leader's log for it but its trim, so it
 * sends a snapshot. The hint's index is as high as a refusal's may be, for this member may have
 * acknowledged entries in this term before it began to install. It promises nothing: no later term
 * has been heard of than the leader's. */
static void hear_leader(struct replica *r, const struct raft_message *m)
{
    if (m->term < r->marks.term) {
        return;
    }
    r->install_leader = m->from;
    r->install_heard_us = r->now_us;
    if (r->in.from != 0 && m->term > r->in.name.term) {
        r->in.from = 0; /* Another leader: it begins anew. */
        r->in.taken_count = 0;
    }
    if (r->in.from == 0) {
        struct raft_message reply = {.type = RAFT_APPEND_REPLY,
                                     .from = r->config.self,
                                     .to = m->from,
                                     .term = m->term,
                                     .match_index = m->prev_index,
                                     .sequence = m->sequence};
        replica_queue_message(r, &r->now, &reply);
    }
}

/* As the core's rules (raft_receive_vote_request, raft_receive_pre_vote_request). */
static bool stands_by_another(const struct replica *r, raft_id candidate)
{
    int64_t patience = r->config.election_min_us;
    patience = patience != 0 ? patience : RAFT_ELECTION_MIN_US;
    return r->install_heard_us != 0 && r->install_leader != candidate &&
           r->now_us - r->install_heard_us < patience;
}

static bool has_all_that_was_here(const struct replica *r, const struct raft_message *m)
{
    if (m->prev_term != r->floor.term) {
        return m->prev_term > r->floor.term;
    }
    return m->prev_index >= r->floor.index;
}

static void vote(struct replica *r, const struct raft_message *m)
{
    bool disturbs = !m->transfer && stands_by_another(r, m->from);
    if (m->term > r->marks.term && !disturbs) {
        r->marks.term = m->term;
        r->marks.vote = 0;
    }
    bool free = r->marks.vote == 0 || r->marks.vote == m->from;
    bool granted = !disturbs && m->term == r->marks.term && free && has_all_that_was_here(r, m);
    r->marks.vote = granted ? m->from : r->marks.vote;
    r->marks_dirty = true; /* The reply waits for this fsync. */
    struct raft_message reply = {.type = RAFT_VOTE_REPLY,
                                 .from = r->config.self,
                                 .to = m->from,
                                 .term = r->marks.term,
                                 .success = granted};
    replica_queue_message(r, &r->after_sync, &reply);
}

static void pre_vote(struct replica *r, const struct raft_message *m)
{
    bool granted =
        m->term > r->marks.term && has_all_that_was_here(r, m) && !stands_by_another(r, m->from);
    struct raft_message reply = {.type = RAFT_PRE_VOTE_REPLY,
                                 .from = r->config.self,
                                 .to = m->from,
                                 .term = r->marks.term,
                                 .success = granted,
                                 .sequence = m->sequence};
    replica_queue_message(r, &r->now, &reply);
}

void install_hear(struct replica *r, const struct raft_message *m)
{
    bool sound =
        m->from != 0 && m->term > 0 && m->term <= RAFT_TERM_MAX && m->prev_index <= RAFT_INDEX_MAX;
    if (sound && m->type == RAFT_APPEND_REQUEST) {
        hear_leader(r, m);
    } else if (sound && m->prev_term < m->term && m->type == RAFT_VOTE_REQUEST) {
        vote(r, m);
    } else if (sound && m->prev_term < m->term && m->type == RAFT_PRE_VOTE_REQUEST) {
        pre_vote(r, m);
    }
}

/* ---- The transaction ---- */

bool install_wants_write(const struct replica *r)
{
    return r->raft == NULL && (r->in.emptying || r->in.taken_count > 0);
}

static enum ferry_err write_emptying(struct replica *r)
{
    uint32_t rows = 0, entries = 0;
    uint64_t bytes = 0;
    enum ferry_err err =
        store_delete_rows(r->config.store, r->config.group, 0, REPLICA_DELETE_MAX, &rows);
    if (err == FERRY_OK) {
        err = store_delete_entries(r->config.store, r->config.group, 1, RAFT_INDEX_MAX,
                                   REPLICA_DELETE_MAX, &entries, &bytes);
    }
    if (err == FERRY_OK) {
        err = replica_floor_write(r->config.store, r->config.group, &r->floor);
    }
    r->in.emptied_written = rows < REPLICA_DELETE_MAX && entries < REPLICA_DELETE_MAX;
    return err;
}

static enum ferry_err write_rows(struct replica *r, struct bytes rest)
{
    uint32_t count = 0;
    enum ferry_err err = peer_take_rows(&rest, &count);
    for (uint32_t i = 0; i < count && err == FERRY_OK; i++) {
        struct peer_row row;
        err = peer_take_row(&rest, &row);
        if (err == FERRY_OK) {
            err = store_put(r->config.store, r->config.group, row.table, row.key, row.value);
        }
    }
    return err;
}

static enum ferry_err write_entries(struct replica *r, struct bytes rest)
{
    uint32_t count = 0;
    raft_index first = 0;
    enum ferry_err err = peer_take_entries(&rest, &count, &first);
    for (uint32_t i = 0; i < count && err == FERRY_OK; i++) {
        struct store_entry entry;
        err = peer_take_entry(&rest, &entry);
        if (err == FERRY_OK) {
            err = store_append(r->config.store, r->config.group, first + i, &entry);
        }
    }
    return err;
}

/* All at once, with the last chunk: from here on the group is what the snapshot says. */
static void write_end(struct replica *r)
{
    const struct peer_snapshot_begin *s = &r->in.marks;
    r->marks.commit = s->index;
    r->marks.trim_index = s->trim_index;
    r->marks.trim_term = s->trim_term;
    r->marks.deleted_index = s->trim_index;
    r->marks.installing = false;
    r->install_heard_us = 0;
    r->marks_dirty = true;
    r->members = s->config;
    r->previous_members = s->previous_config;
    r->members_dirty = true;
}

enum ferry_err install_write(struct replica *r)
{
    struct snapshot_in *in = &r->in;
    if (in->emptying) {
        return write_emptying(r);
    }
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < in->taken_count && err == FERRY_OK; i++) {
        const struct peer_item *item = &in->taken[i];
        if (item->kind == PEER_SNAPSHOT_ROWS) {
            err = write_rows(r, item->body);
        } else if (item->kind == PEER_SNAPSHOT_ENTRIES) {
            err = write_entries(r, item->body);
        }
    }
#ifdef MUT_33 /* what is installed counts before all of it is there */
    write_end(r);
#endif
    if (in->ended) {
        write_end(r);
    }
    return err;
}

/* ---- After the commit ---- */

static enum ferry_err load_machine(struct replica *r)
{
    uint64_t applied = 0;
    int64_t next_offset = 0;
    enum ferry_err err =
        r->config.ops->load(r->config.machine, r->config.store, &applied, &next_offset);
    if (err == FERRY_OK && applied != r->marks.commit) {
        err = FERRY_ERR_CORRUPT; /* The rows are not those of the snapshot's index. */
    }
    r->applied = applied;
    r->flushed = applied;
    r->next_offset = next_offset;
    r->last_append_time_ms = 0;
    return err;
}

static enum ferry_err finish_install(struct replica *r, int64_t now_us)
{
    enum ferry_err err = store_read_begin(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    err = load_machine(r);
    if (err == FERRY_OK) {
        err = replica_read_store(r, now_us);
    }
    store_read_end(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    struct snapshot_in *in = &r->in;
    r->installed_from = in->from;
    r->installed = in->name;
    r->installed_index = in->marks.index;
    answer(r, in->from, &in->name, PEER_SNAPSHOT_DONE, in->marks.index);
    mem_free(in->taken);
    *in = (struct snapshot_in){0};
    return FERRY_OK;
}

enum ferry_err install_stored(struct replica *r, int64_t now_us)
{
    struct snapshot_in *in = &r->in;
    if (in->emptied_written) {
        in->emptied_written = false;
        in->emptying = false;
        in->stored_chunk = 1;
    }
    if (in->taken_count > 0) {
        in->stored_chunk = in->next_chunk;
        in->taken_count = 0;
        in->taken_bytes = 0;
    }
    in->reply_owed = in->from != 0;
    r->members_dirty = false;
    replica_release_after_sync(r);
    return in->ended && in->from != 0 ? finish_install(r, now_us) : FERRY_OK;
}

static void send_reply(const struct replica *r, raft_id to, const struct peer_snapshot *name,
                       const struct peer_snapshot_reply *reply, struct peer_outbox *out)
{
    struct buf *b = peer_outbox_begin(out, to, r->config.group, PEER_SNAPSHOT_REPLY);
    if (b != NULL) {
        peer_put_snapshot(b, name);
        peer_put_snapshot_reply(b, reply);
        peer_outbox_end(out);
    }
}

void install_send(struct replica *r, struct peer_outbox *out)
{
    if (r->refuse_to != 0) {
        send_reply(r, r->refuse_to, &r->refuse, &r->refusal, out);
        r->refuse_to = 0;
    }
    if (r->in.reply_owed && r->in.from != 0) {
        struct peer_snapshot name = r->in.name;
        struct peer_snapshot_reply going = {.status = PEER_SNAPSHOT_GOING};
        name.chunk = r->in.stored_chunk;
        send_reply(r, r->in.from, &name, &going, out);
    }
    r->in.reply_owed = false;
}

/* ---- Time ---- */

int64_t install_deadline_us(const struct replica *r)
{
    return r->in.from != 0 ? r->in.heard_us + REPLICA_SNAPSHOT_SILENCE_MS * 1000 : RAFT_NEVER;
}

void install_tick(struct replica *r, int64_t now_us)
{
    if (install_deadline_us(r) <= now_us) {
        log_line(LOG_WARN, "replica", "group %llu: the sender of the snapshot is silent",
                 (unsigned long long)r->config.group);
        r->in.from = 0;
        r->in.taken_count = 0;
    }
}
