/* What members of a group say to each other: taking it in, sending it out. */
#include "partition/replica_internal.h"

/* An append with more is cut: several items, each with the same sequence. */
#define APPEND_ITEM_BYTES (256u << 10)

/* ---- Receiving ---- */

static enum ferry_err receive_raft(struct replica *r, const struct peer_item *item, int64_t now_us)
{
    struct peer_raft m;
    if (peer_take_raft(item, r->config.self, &m) != FERRY_OK) {
        r->dropped++;
        return FERRY_OK;
    }
    if (r->raft == NULL) {
        install_hear(r, &m.message);
        return FERRY_OK;
    }
    struct raft_event receive = {.type = RAFT_RECEIVE, .now_us = now_us, .message = &m.message};
    enum ferry_err err = replica_step_received(r, &receive, m.entries, m.message.entry_count);
    if (err == FERRY_ERR_CORRUPT && !repair_is_damaged(r)) {
        replica_fail(r, err); /* It contradicts what is committed here. */
        return err;
    }
    /* With a damaged entry, what it contradicts may be the guess of that one's term. */
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    r->dropped += err != FERRY_OK;
    return FERRY_OK;
}

static enum ferry_err receive_snapshot_reply(struct replica *r, const struct peer_item *item,
                                             int64_t now_us)
{
    struct peer_snapshot name;
    struct peer_snapshot_reply reply;
    struct bytes rest = item->body;
    if (r->raft == NULL || peer_take_snapshot(&rest, &name) != FERRY_OK ||
        peer_take_snapshot_reply(rest, &reply) != FERRY_OK) {
        r->dropped++;
        return FERRY_OK;
    }
    snapshot_take_reply(r, item->from, &name, &reply, now_us);
    return r->failed;
}

enum ferry_err replica_receive(struct replica *r, const struct peer_item *item, int64_t now_us)
{
    must(!r->in_transaction);
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    r->now_us = now_us;
    switch ((enum peer_kind)item->kind) {
    case PEER_RAFT:
        return receive_raft(r, item, now_us);
    case PEER_SNAPSHOT_BEGIN:
    case PEER_SNAPSHOT_ROWS:
    case PEER_SNAPSHOT_ENTRIES:
    case PEER_SNAPSHOT_END:
        return install_receive(r, item, now_us);
    case PEER_SNAPSHOT_REPLY:
        return receive_snapshot_reply(r, item, now_us);
    case PEER_REPAIR_REQUEST:
    case PEER_REPAIR_REPLY:
        repair_receive(r, item);
        return r->failed;
    case PEER_NODE_FIRST:
        break;
    }
    r->dropped++;
    return FERRY_OK;
}

/* ---- Sending ---- */

struct sender {
    struct replica *r;
    struct peer_outbox *out;
    size_t *budget;
    int64_t now_us;
    bool viewing;
};

static enum ferry_err need_view(struct sender *s)
{
    if (s->viewing) {
        return FERRY_OK;
    }
    enum ferry_err err = store_read_begin(s->r->config.store);
    s->viewing = err == FERRY_OK;
    return err;
}

/* The entry, from memory or from the store; nothing leaves that is not as it was written. */
static enum ferry_err find_entry(struct sender *s, raft_index index, struct store_entry *entry)
{
    struct replica *r = s->r;
    const struct store_entry *pending = replica_pending_entry(r, index);
    if (pending != NULL) {
        *entry = *pending;
        return FERRY_OK;
    }
    enum ferry_err err = need_view(s);
    if (err == FERRY_OK) {
        err = store_get_entry(r->config.store, r->config.group, index, entry);
    }
    if (err == FERRY_OK) {
        err = peer_entry_check(entry);
    }
    if (err == FERRY_ERR_CORRUPT) {
        replica_damaged(r, index);
    }
    return err;
}

/* One item: as many entries as fit. False: the rest is not to be had. */
static bool send_piece(struct sender *s, struct raft_message *piece, raft_index last)
{
    struct buf *b = peer_outbox_begin(s->out, piece->to, s->r->config.group, PEER_RAFT);
    if (b == NULL) {
        return false;
    }
    size_t at = b->size;
    uint32_t count = 0;
    bool going = true;
    raft_index index = piece->prev_index + 1;
    piece->entry_count = 0;
    peer_put_raft(b, piece);
    while (index <= last && b->size - at < APPEND_ITEM_BYTES && buf_ok(b)) {
        struct store_entry entry;
        if (find_entry(s, index, &entry) != FERRY_OK) {
            going = false;
            break;
        }
        peer_put_entry(b, &entry);
        piece->prev_index = index++;
        piece->prev_term = entry.term;
        count++;
    }
    going = going && buf_ok(b);
    size_t bytes = b->size - at;
    int64_t *copy_bytes = s->r->config.copy_bytes;
    if (count > 0 && copy_bytes != NULL &&
        !raft_members_has_voter(replica_members(s->r), piece->to)) {
        *copy_bytes -= (int64_t)bytes;
    }
    *s->budget -= bytes < *s->budget ? bytes : *s->budget;
    peer_set_raft_entries(b, at, count);
    peer_outbox_end(s->out);
    return going;
}

static void send_message(struct sender *s, const struct raft_message *m)
{
    struct raft_message piece = *m;
    raft_index last = m->prev_index + m->entry_count;
    bool entries = m->type == RAFT_APPEND_REQUEST && m->entry_count > 0;
    if (entries && (!replica_is_leader(s->r) || raft_current_term(s->r->raft) != m->term)) {
        return; /* What it meant to send may have been cut away since. */
    }
    while (send_piece(s, &piece, entries ? last : 0) && entries && piece.prev_index < last) {
    }
}

/* Messages may come while these are sent (damage is found): they are sent too. */
static void send_list(struct sender *s, struct message_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        struct raft_message m = l->items[i];
        send_message(s, &m);
    }
    l->count = 0;
}

/* As many entries on the way as make REPLICA_WINDOW_BYTES. */
static void set_window(struct replica *r)
{
    uint32_t each = r->entry_bytes > 0 ? r->entry_bytes : 1;
    uint32_t window = REPLICA_WINDOW_BYTES / each;
    window = window < 1 ? 1 : window;
    window = window > RAFT_APPEND_WINDOW_MAX ? RAFT_APPEND_WINDOW_MAX : window;
    if (window != r->window) {
        r->window = window;
        raft_set_window(r->raft, window);
    }
}

static enum ferry_err make_appends(struct sender *s)
{
    struct replica *r = s->r;
    if (*s->budget == 0 || !raft_wants_send(r->raft)) {
        return FERRY_OK;
    }
    set_window(r);
    struct raft_event send = {.type = RAFT_SEND, .now_us = s->now_us};
    enum ferry_err err = replica_step(r, &send);
    return err == FERRY_ERR_NO_MEMORY ? FERRY_OK : err;
}

static void end_view(struct sender *s)
{
    if (s->viewing) {
        store_read_end(s->r->config.store);
        s->viewing = false;
    }
}

static enum ferry_err send_now(struct sender *s)
{
    struct replica *r = s->r;
    if (r->raft != NULL) {
        enum ferry_err err = make_appends(s);
        if (err != FERRY_OK) {
            return err;
        }
    }
    send_list(s, &r->now);
    end_view(s);
    if (r->raft != NULL) {
        snapshot_send(r, s->now_us, s->budget, s->out);
        repair_send(r, s->now_us, s->budget, s->out);
    }
    return r->failed;
}

bool replica_wants_send(const struct replica *r)
{
    if (r->failed != FERRY_OK) {
        return false;
    }
    if (r->now.count > 0 || r->durable.count > 0 || r->in.reply_owed || r->refuse_to != 0) {
        return true;
    }
    return r->raft != NULL &&
           (raft_wants_send(r->raft) || snapshot_wants_send(r) || repair_wants_send(r, r->now_us));
}

enum ferry_err replica_send(struct replica *r, enum peer_phase phase, int64_t now_us,
                            size_t *budget_bytes, struct peer_outbox *out)
{
    r->now_us = now_us;
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    if (r->raft != NULL) {
        raft_pause_learners(r->raft, replica_must_not_copy(r));
    }
    if (!replica_wants_send(r)) {
        return FERRY_OK;
    }
    struct sender s = {.r = r, .out = out, .budget = budget_bytes, .now_us = now_us};
    if (phase == PEER_NOW) {
        return send_now(&s);
    }
    must(!r->in_transaction);
    send_list(&s, &r->durable);
    end_view(&s);
    install_send(r, out);
    return r->failed;
}
