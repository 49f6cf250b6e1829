/* Fetch: reads at once what there is, or waits until there is enough (long poll). */
#include "base/mem.h"
#include "server/shard_internal.h"

#define FETCH_WAIT_MAX_MS 60000u
#define FETCHES_MAX       65536u /* Waiting ones of a shard. */
/* Nobody is told of a new dead letter: who waits for one looks so often. */
#define DEAD_LOOK_US 200000

struct fetch_link {
    struct list node; /* In the seat's fetches. */
    struct waiting_fetch *fetch;
};

struct waiting_fetch {
    struct request *request;
    struct heap_node deadline; /* Or when to look for dead letters. */
    int64_t until_us;
    bool reads_dead; /* One of its items at least. */
    uint32_t min_bytes, max_bytes, count;
    uint64_t readable_before; /* Sum over its partitions when it began to wait. */
    size_t had_bytes;         /* What there was then. */
    struct fetch_item *items;
    struct fetch_link *links;
};

struct seat *shard_find_readable(const struct shard *s, uint64_t group)
{
    struct seat *seat = shard_find_seat(s, group);
    return seat != NULL && seat->partition != NULL && !seat->dropping &&
                   shard_check_leads(s, seat) == FERRY_OK
               ? seat
               : NULL;
}

enum ferry_err shard_why_not_readable(const struct shard *s, uint64_t group)
{
    const struct seat *seat = shard_find_seat(s, group);
    if (seat == NULL || group == META_GROUP) {
        return shard_unknown_group(s);
    }
    if (seat->err != FERRY_OK) {
        return seat->err;
    }
    return seat->dropping ? shard_dropping_error(s) : shard_check_leads(s, seat);
}

/* ---- Reading ---- */

struct fetch_result {
    size_t bytes;
    bool failed; /* An item has an error, which is worth telling at once. */
};

static uint32_t count_with_data(const struct shard *s, const struct fetch_item *items,
                                uint32_t count)
{
    uint32_t with_data = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct seat *seat = shard_find_readable(s, items[i].group);
        bool has = items[i].dead_of.size > 0 ||
                   (seat != NULL && items[i].offset < partition_end_offset(seat->partition));
        with_data += seat != NULL && has ? 1 : 0;
    }
    return with_data > 0 ? with_data : 1;
}

/* As long as it has not been read. Numbers of dead letters are given from 1 on; there may be more.
 */
static void tell_bounds(const struct seat *seat, const struct fetch_item *asked,
                        struct fetch_reply_item *item)
{
    if (asked->dead_of.size == 0) {
        item->start_offset = partition_start_offset(seat->partition);
        item->end_offset = partition_end_offset(seat->partition);
    } else {
        item->start_offset = 1;
        item->end_offset = asked->offset < INT64_MAX ? asked->offset + 1 : asked->offset;
    }
}

/* Of the log, or of a subscription's dead letters. */
static enum ferry_err read_item(const struct seat *seat, const struct fetch_item *asked,
                                uint32_t max_bytes, struct buf *out, struct fetch_reply_item *item)
{
    if (asked->dead_of.size == 0) {
        return partition_read(seat->partition, asked->offset, max_bytes, out);
    }
    int64_t next = 1;
    size_t before = out->size;
    item->end_offset = 1;
    if (asked->offset < 0) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    enum ferry_err err = partition_read_dead(seat->partition, asked->dead_of, asked->offset,
                                             max_bytes, out, &next, &item->end_offset);
    if (err == FERRY_OK && out->size == before) {
        item->start_offset = next; /* None is left before: the reader passes over the gap. */
    }
    return err;
}

/* Each partition gets an equal share, so that one with much to give does not starve the others;
 * what one leaves over goes to those after it. */
static struct fetch_result read_items(struct shard *s, const struct fetch_item *items,
                                      uint32_t count, uint32_t max_bytes, struct buf *out)
{
    struct fetch_result result = {0};
    uint32_t left = count_with_data(s, items, count);
    s->fetch_answer->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct fetch_reply_item *item = &s->fetch_answer->items[i];
        *item = (struct fetch_reply_item){.group = items[i].group};
        const struct seat *seat = shard_find_readable(s, items[i].group);
        if (seat == NULL) {
            item->status = (uint16_t)shard_why_not_readable(s, items[i].group);
            result.failed = true;
            continue;
        }
        tell_bounds(seat, &items[i], item);
        size_t before = out->size;
        if (result.bytes < max_bytes) {
            uint32_t share = (max_bytes - (uint32_t)result.bytes) / left;
            bool counted = items[i].dead_of.size > 0 || items[i].offset < item->end_offset;
            left -= left > 1 && counted ? 1 : 0;
            item->status = (uint16_t)read_item(seat, &items[i], share, out, item);
            if (!buf_ok(out) && before > 0) {
                /* Each gives a batch even if it is larger than its share; this one no frame holds
                 * beside the others. It comes with the next fetch. */
                out->size = before;
                out->failed = false;
                item->status = FERRY_OK;
                max_bytes = 0;
            }
        }
        item->data_bytes = (uint32_t)(out->size - before);
        result.bytes += item->data_bytes;
        result.failed = result.failed || item->status != FERRY_OK;
    }
    return result;
}

/* What it took is paid when it is known: more than there was is a debt. */
static void charge(struct shard *s, const struct request *r)
{
    for (uint32_t i = 0; i < s->fetch_answer->count && s->quota_count > 0; i++) {
        const struct fetch_reply_item *item = &s->fetch_answer->items[i];
        const struct seat *seat = shard_find_seat(s, item->group);
        struct quota_cost cost = {.bytes = item->data_bytes};
        if (seat != NULL && item->data_bytes > 0) {
            shard_charge_quota(s, r, seat->topic, &cost);
        }
    }
}

static void send_answer(struct shard *s, struct request *r, struct buf *data)
{
    struct buf b;
    charge(s, r);
    shard_begin_reply(r, &b, FERRY_OK);
    fetch_reply_encode(&b, s->fetch_answer);
    if (data->size > 0) {
        frame_begin_attachment(&b);
        buf_append_bytes(&b, buf_bytes(data));
    }
    s->counters.fetch_bytes_out += data->size;
    shard_send_reply(s, r, &b);
}

/* ---- Waiting ---- */

static void free_fetch(struct shard *s, struct waiting_fetch *w)
{
    heap_remove(&s->fetch_deadlines, &w->deadline);
    for (uint32_t i = 0; w->links != NULL && i < w->count; i++) {
        if (!list_is_empty(&w->links[i].node)) {
            list_remove(&w->links[i].node);
        }
    }
    mem_free(w->links);
    mem_free(w->items);
    mem_free(w);
}

static uint64_t sum_readable(const struct shard *s, const struct waiting_fetch *w)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        const struct seat *seat = shard_find_readable(s, w->items[i].group);
        bool counts = seat != NULL && w->items[i].dead_of.size == 0;
        sum += counts ? partition_readable_bytes(seat->partition) : 0;
    }
    return sum;
}

static struct waiting_fetch *new_fetch(struct shard *s, struct request *r,
                                       const struct fetch_request *q)
{
    struct waiting_fetch *w = mem_zalloc(1, sizeof(*w));
    if (w == NULL) {
        return NULL;
    }
    heap_node_init(&w->deadline);
    w->request = r;
    w->min_bytes = q->min_bytes;
    w->max_bytes = q->max_bytes;
    w->count = q->count;
    for (uint32_t i = 0; i < q->count; i++) {
        w->reads_dead = w->reads_dead || q->items[i].dead_of.size > 0;
    }
    w->items = mem_dup(q->items, q->count * sizeof(*q->items));
    w->links = mem_zalloc(q->count, sizeof(*w->links));
    bool ok = w->items != NULL && w->links != NULL && s->fetch_deadlines.count < FETCHES_MAX &&
              heap_reserve(&s->fetch_deadlines, s->fetch_deadlines.count + 1);
    for (uint32_t i = 0; w->links != NULL && i < w->count; i++) {
        list_init(&w->links[i].node);
        w->links[i].fetch = w;
    }
    if (!ok) {
        free_fetch(s, w);
        return NULL;
    }
    return w;
}

static void set_deadline(struct shard *s, struct waiting_fetch *w)
{
    int64_t look_us = w->reads_dead ? s->now_us + DEAD_LOOK_US : w->until_us;
    heap_set(&s->fetch_deadlines, &w->deadline, look_us < w->until_us ? look_us : w->until_us);
}

static void begin_to_wait(struct shard *s, struct request *r, const struct fetch_request *q,
                          size_t had_bytes)
{
    struct waiting_fetch *w = new_fetch(s, r, q);
    if (w == NULL) {
        shard_reply_error(s, r, FERRY_ERR_NO_MEMORY, "no room for one more waiting fetch");
        return;
    }
    uint32_t wait_ms = q->max_wait_ms < FETCH_WAIT_MAX_MS ? q->max_wait_ms : FETCH_WAIT_MAX_MS;
    w->had_bytes = had_bytes;
    w->readable_before = sum_readable(s, w);
    w->until_us = s->now_us + (int64_t)wait_ms * 1000;
    set_deadline(s, w);
    for (uint32_t i = 0; i < w->count; i++) {
        struct seat *seat = shard_find_readable(s, w->items[i].group);
        must(seat != NULL); /* Else it was answered at once. */
        list_push_back(&seat->fetches, &w->links[i].node);
    }
}

/* Reads and answers; true when the request is gone. With `must_answer` it answers what there is. */
static bool try_answer(struct shard *s, struct request *r, const struct fetch_item *items,
                       uint32_t count, uint32_t min_bytes, uint32_t max_bytes, bool must_answer,
                       size_t *had_bytes)
{
    struct buf data;
    buf_init(&data, FRAME_MAX_BYTES - FRAME_BODY_MAX_BYTES - FRAME_HEADER_BYTES);
    enum ferry_err err = shard_view(s);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return true;
    }
    struct fetch_result result = read_items(s, items, count, max_bytes, &data);
    bool answer = must_answer || result.failed || result.bytes >= min_bytes;
    *had_bytes = result.bytes;
    if (answer) {
        send_answer(s, r, &data);
    }
    buf_fini(&data);
    return answer;
}

/* True when it is gone. */
static bool answer_waiting(struct shard *s, struct waiting_fetch *w, bool must_answer)
{
    size_t had = 0;
    if (try_answer(s, w->request, w->items, w->count, w->min_bytes, w->max_bytes, must_answer,
                   &had)) {
        free_fetch(s, w);
        return true;
    }
    return false;
}

static bool is_over_quota(struct shard *s, struct request *r, const struct fetch_request *q)
{
    const struct quota_cost least = {.bytes = 1, .requests = 1};
    const struct seat *last = NULL;
    for (uint32_t i = 0; i < q->count && s->quota_count > 0; i++) {
        if (shard_is_topic_over_quota(s, r, q->items[i].group, &least, &last)) {
            return true;
        }
    }
    return false;
}

void shard_handle_fetch(struct shard *s, struct request *r, const struct frame *f)
{
    struct fetch_request *q = s->fetch;
    enum ferry_err err = fetch_request_decode(f->body, q);
    if (err == FERRY_OK && (q->count == 0 || q->max_bytes == 0)) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "a fetch names at least one partition and some bytes");
        return;
    }
    if (is_over_quota(s, r, q)) {
        return;
    }
    uint32_t limit = (uint32_t)s->config.options->fetch_max_bytes;
    q->max_bytes = q->max_bytes < limit ? q->max_bytes : limit;
    q->min_bytes = q->min_bytes < q->max_bytes ? q->min_bytes : q->max_bytes;
    bool at_once = q->max_wait_ms == 0 || q->min_bytes == 0;
    size_t had = 0;
    if (!try_answer(s, r, q->items, q->count, q->min_bytes, q->max_bytes, at_once, &had)) {
        begin_to_wait(s, r, q, had);
    }
}

/* Called when something was appended to the seat's partition. */
void shard_wake_fetches(struct shard *s, struct seat *seat)
{
    int64_t end = partition_end_offset(seat->partition);
    bool ready = replica_is_ready(seat->replica);
    if (ready && end == seat->told_end_offset) {
        return;
    }
    seat->told_end_offset = end;
    for (struct list *n = seat->fetches.next; n != &seat->fetches;) {
        struct fetch_link *link = list_entry(n, struct fetch_link, node);
        struct waiting_fetch *w = link->fetch;
        n = n->next;
        /* One partition asked for twice in a fetch has two links here: skip both. */
        while (n != &seat->fetches && list_entry(n, struct fetch_link, node)->fetch == w) {
            n = n->next;
        }
        if (!ready || w->had_bytes + sum_readable(s, w) - w->readable_before >= w->min_bytes) {
            (void)answer_waiting(s, w, true);
        }
    }
}

void shard_fire_fetch_deadlines(struct shard *s)
{
    for (;;) {
        struct heap_node *node = heap_first(&s->fetch_deadlines);
        if (node == NULL || node->due > s->now_us) {
            return;
        }
        struct waiting_fetch *w = list_entry(node, struct waiting_fetch, deadline);
        if (!answer_waiting(s, w, s->now_us >= w->until_us)) {
            set_deadline(s, w);
        }
    }
}

void shard_fail_fetches(struct shard *s, struct seat *seat)
{
    must(seat->dropping);
    while (!list_is_empty(&seat->fetches)) {
        struct fetch_link *link = list_entry(seat->fetches.next, struct fetch_link, node);
        (void)answer_waiting(s, link->fetch, true); /* The item says UNKNOWN_TOPIC. */
    }
}

void shard_forget_fetches(struct shard *s)
{
    for (struct heap_node *n; (n = heap_first(&s->fetch_deadlines)) != NULL;) {
        free_fetch(s, list_entry(n, struct waiting_fetch, deadline));
    }
}
