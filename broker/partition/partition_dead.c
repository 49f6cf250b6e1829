/* Dead letters: listed, read like a topic, replayed and dropped. */
#include "base/checksum.h"
#include "partition/partition_internal.h"

/* Rows that one list looks at, and one read; more with the next. */
#define LIST_ROWS_MAX 10000u

enum ferry_err dead_read(struct partition *p, const struct subscription *s, uint64_t number,
                         struct dead_letter *d)
{
    uint8_t key[16];
    struct bytes row;
    bool found = false;
    dead_key(s->number, number, key);
    enum ferry_err err = rows_get(&p->dead, p->config.store, p->config.group,
                                  bytes_of(key, sizeof(key)), &found, &row);
    if (err == FERRY_OK) {
        err = found ? dead_decode(bytes_of(key, sizeof(key)), row, d) : FERRY_ERR_CORRUPT;
    }
    return err;
}

/* ---- Walking the letters of one subscription ---- */

typedef enum ferry_err letter_cb(const struct dead_letter *d, bool *stop, void *arg);

struct walk {
    uint64_t subscription;
    letter_cb *callback;
    void *arg;
};

static enum ferry_err walk_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct walk *w = arg;
    struct dead_letter d;
    if (key.size == 16 && get_be64(key.data) != w->subscription) {
        *stop = true;
        return FERRY_OK;
    }
    enum ferry_err err = dead_decode(key, value, &d);
    return err == FERRY_OK ? w->callback(&d, stop, w->arg) : err;
}

static enum ferry_err walk_letters(struct partition *p, const struct subscription *s, uint64_t from,
                                   letter_cb *callback, void *arg)
{
    uint8_t key[16];
    struct walk w = {.subscription = s->number, .callback = callback, .arg = arg};
    dead_key(s->number, from, key);
    return rows_each(&p->dead, p->config.store, p->config.group, bytes_of(key, sizeof(key)),
                     walk_row, &w);
}

/* ---- Listing ---- */

struct listing {
    const struct delivery *delivery;
    const struct dead_list_request *q;
    struct dead_list_reply *reply;
    uint32_t count_max, looked;
};

static struct ferry_id id_of(struct bytes record)
{
    struct batch_header h;
    batch_header_read(record, &h);
    return (h.flags & BATCH_HAS_IDS) != 0 ? batch_id(record, &h, 0) : (struct ferry_id){{0}};
}

static enum ferry_err list_letter(const struct dead_letter *d, bool *stop, void *arg)
{
    struct listing *l = arg;
    struct bytes reason = dead_reason(d);
    int64_t offset = 0;
    if (l->reply->count == l->count_max || l->looked++ == LIST_ROWS_MAX) {
        l->reply->next = d->number;
        *stop = true;
        return FERRY_OK;
    }
    if (d->record.size < BATCH_HEADER_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    if (l->q->reason.size > 0 && !bytes_equal(reason, l->q->reason)) {
        return FERRY_OK;
    }
    struct dead_item *item = &l->reply->items[l->reply->count++];
    *item = (struct dead_item){.number = d->number,
                               .offset = d->offset,
                               .append_time_ms = d->append_time_ms,
                               .died_ms = d->died_ms,
                               .handed_out = d->handed_out,
                               .failed = d->failed,
                               .record_bytes = (uint32_t)d->record.size,
                               .id = id_of(d->record),
                               .reason = reason,
                               .revived = delivery_is_revived(l->delivery, d->number, &offset)};
    if (l->q->with_history) {
        item->failure_count = d->failure_count;
        memcpy(item->failures, d->failures, d->failure_count * sizeof(d->failures[0]));
    }
    return FERRY_OK;
}

enum ferry_err partition_dead_list(struct partition *p, const struct dead_list_request *q,
                                   struct dead_list_reply *reply)
{
    struct subscription *s = NULL;
    enum ferry_err err = deliver_find(p, q->subscription, &s);
    reply->next = 0;
    reply->count = 0;
    if (err != FERRY_OK) {
        return err;
    }
    bool all = q->count_max == 0 || q->count_max > DEAD_LIST_MAX;
    struct listing l = {.delivery = s->delivery,
                        .q = q,
                        .reply = reply,
                        .count_max = all ? DEAD_LIST_MAX : q->count_max};
    reply->total = delivery_counters(s->delivery)->dead;
    return walk_letters(p, s, q->from, list_letter, &l);
}

/* ---- Reading like a topic ---- */

struct reading {
    struct buf *out;
    size_t before;
    uint32_t max_bytes;
    int64_t next;
};

static enum ferry_err read_letter(const struct dead_letter *d, bool *stop, void *arg)
{
    struct reading *r = arg;
    size_t size = r->out->size;
    if (size > r->before && size - r->before + d->record.size > r->max_bytes) {
        *stop = true;
        return FERRY_OK;
    }
    enum ferry_err err = dead_append_entry(d, r->out);
    if (err == FERRY_OK && size > r->before && r->out->size - r->before > r->max_bytes) {
        r->out->size = size; /* With what was added to it, it is too much. */
        *stop = true;
        return FERRY_OK;
    }
    r->next = (int64_t)d->number + 1;
    return err;
}

enum ferry_err partition_read_dead(struct partition *p, struct bytes subscription, int64_t number,
                                   uint32_t max_bytes, struct buf *out, int64_t *next, int64_t *end)
{
    struct subscription *s = NULL;
    enum ferry_err err = deliver_find(p, subscription, &s);
    if (err != FERRY_OK) {
        return err;
    }
    struct reading r = {.out = out, .before = out->size, .max_bytes = max_bytes};
    uint64_t from = number > 0 ? (uint64_t)number : 1;
    r.next = (int64_t)from;
    *end = (int64_t)delivery_next_dead_number(s->delivery);
    err = walk_letters(p, s, from, read_letter, &r);
    *next = out->size == r.before && *end > r.next ? *end : r.next;
    /* What came out goes; the error comes with the next call. */
    return out->size > r.before ? FERRY_OK : err;
}

/* ---- Replaying and dropping ---- */

static enum ferry_err check_edited(const struct partition *p, const struct dead_change_request *q,
                                   struct bytes record, struct err_text *e)
{
    struct batch_header h;
    if (record.size == 0) {
        return FERRY_OK;
    }
    if (q->kind != DEAD_REPLAY || q->count != 1) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "an edited message takes the place of one");
    }
    enum ferry_err err = batch_check(record, &h, e);
    if (err == FERRY_OK) {
        err = batch_check_records(record, &h, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (h.count != 1 || (h.flags & BATCH_HAS_DUE) != 0) {
        return err_set(e, FERRY_ERR_BAD_BATCH, "it takes one record, without a due time");
    }
    if (record.size > p->config.batch_max_bytes) {
        return err_set(e, FERRY_ERR_TOO_LARGE, "the batch has %zu bytes, %zu are allowed",
                       record.size, p->config.batch_max_bytes);
    }
    return FERRY_OK;
}

static enum ferry_err key_hash_of(struct bytes record, uint64_t *hash)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    batch_reader_init(&reader, record);
    if (!batch_reader_next(&reader, &r, &err)) {
        return FERRY_ERR_CORRUPT;
    }
    *hash = pick_key_hash(&r);
    return FERRY_OK;
}

/* A letter that is not there, or is on its way already, is no part of the entry. */
static enum ferry_err add_part(struct partition *p, const struct subscription *s, uint64_t number,
                               struct bytes edited, struct dead_change_entry *e)
{
    struct dead_letter letter;
    struct dead_change_part part = {.number = number};
    int64_t offset = 0;
    bool replay = e->change == DEAD_REPLAY;
    if (!delivery_dead_is_kept(s->delivery, number) ||
        (replay && delivery_is_revived(s->delivery, number, &offset))) {
        return FERRY_OK;
    }
    enum ferry_err err = dead_read(p, s, number, &letter);
    if (err != FERRY_OK) {
        return err;
    }
    part.parked = letter.key_hash;
    if (replay && delivery_is_keyed(s->delivery)) {
        err = key_hash_of(edited.size > 0 ? edited : letter.record, &part.key_hash);
    }
    letter.record = edited;
    letter.failure_count = replay ? letter.failure_count : 0; /* A drop tells traces its offset. */
    size_t before = p->deliver.records.size;
    dead_encode(&p->deliver.records, &letter);
    part.letter = bytes_of(NULL, p->deliver.records.size - before); /* The place follows. */
    e->parts[e->count++] = part;
    return err == FERRY_OK && !buf_ok(&p->deliver.records) ? FERRY_ERR_NO_MEMORY : err;
}

static void place_letters(struct partition *p, struct dead_change_entry *e)
{
    const uint8_t *at = p->deliver.records.data;
    for (uint32_t i = 0; i < e->count && at != NULL; i++) {
        e->parts[i].letter.data = at;
        at += e->parts[i].letter.size;
    }
}

static bool is_named_before(const struct dead_change_request *q, uint32_t at)
{
    for (uint32_t i = 0; i < at; i++) {
        if (q->items[i].number == q->items[at].number) {
            return true;
        }
    }
    return false;
}

static enum ferry_err make_entry(struct partition *p, const struct subscription *s,
                                 const struct dead_change_request *q, struct bytes record,
                                 struct bytes who, struct dead_change_entry *e)
{
    enum ferry_err err = FERRY_OK;
    *e = (struct dead_change_entry){
        .subscription = s->number, .node = partition_node(p), .change = q->kind, .member = who};
    buf_clear(&p->deliver.records);
    for (uint32_t i = 0; i < q->count && err == FERRY_OK; i++) {
        if (!is_named_before(q, i)) {
            err = add_part(p, s, q->items[i].number, record, e);
        }
    }
    place_letters(p, e);
    return err;
}

/* One at a time, and not behind the end of one that was replayed (it may park another key than when
 * it died first), so that what an entry says of a letter is still so when it is applied. */
static enum ferry_err may_change(struct partition *p)
{
    if (rows_is_full(&p->dead)) {
        replica_ask_flush(p->replica);
        return FERRY_ERR_THROTTLED;
    }
    return p->deliver.dead_change_index > replica_applied(p->replica) ? FERRY_ERR_THROTTLED
                                                                      : FERRY_OK;
}

enum ferry_err partition_dead_change(struct partition *p, const struct dead_change_request *q,
                                     struct bytes record, struct bytes who, int64_t now_ms,
                                     int64_t now_us, struct partition_ticket *t, struct err_text *e)
{
    struct subscription *s = NULL;
    struct dead_change_entry entry;
    bool kind = q->kind == DEAD_REPLAY || q->kind == DEAD_DROP;
    enum ferry_err err = deliver_find(p, q->subscription, &s);
    if (err == FERRY_OK &&
        (!kind || q->count == 0 || q->count > DEAD_CHANGE_MAX || who.size > NAME_MAX_BYTES)) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        err = check_edited(p, q, record, e);
    }
    if (err == FERRY_OK) {
        err = may_change(p);
    }
    if (err == FERRY_OK) {
        err = make_entry(p, s, q, record, who, &entry);
    }
    t->count = 0;
    if (err != FERRY_OK || entry.count == 0) {
        return err; /* Nothing to do: answered at once. */
    }
    buf_clear(&t->payload);
    dead_change_encode(&t->payload, &entry);
    deliver_release(&p->deliver.records);
    err = partition_propose_payload(p, now_ms, now_us, t);
    if (err == FERRY_OK) {
        p->deliver.dead_change_index = t->base.index;
    }
    return err;
}
