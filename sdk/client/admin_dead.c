/* admin_dead: the calls of ferry.h about dead letters. They live in the partition where they were
 * messages, so a list walks the partitions one after another. */
#include "base/mem.h"
#include "client/admin_ask.h"
#include "client/admin_text.h"
#include "wire/batch.h"

_Static_assert(FERRY_HISTORY_MAX == HISTORY_MAX, "the public header says the same");
_Static_assert(FERRY_REASON_BYTES == REASON_MAX_BYTES + 1, "likewise");
_Static_assert((int)FERRY_FAILURE_PARKED == (int)FAILURE_PARKED, "likewise");

static bool are_names(const char *topic, const char *subscription)
{
    return name_is_valid(bytes_of_string(topic)) && name_is_valid(bytes_of_string(subscription));
}

/* ---- The list. */

struct listing {
    struct bytes subscription;
    struct bytes reason;
    struct ferry_dead_place place;
    size_t max;
    struct ferry_dead *items;
    size_t count, capacity;
};

static uint32_t page_max(const struct listing *l)
{
    size_t left = l->max - l->count;
    return (uint32_t)(left < DEAD_LIST_MAX ? left : DEAD_LIST_MAX);
}

static void encode_list(struct buf *b, const struct call *call, uint64_t group)
{
    const struct listing *l = call->request;
    struct dead_list_request request = {.group = group,
                                        .subscription = l->subscription,
                                        .from = l->place.number,
                                        .count_max = page_max(l),
                                        .with_history = true,
                                        .reason = l->reason};
    dead_list_request_encode(b, &request);
}

static void fill_dead(struct ferry_dead *dead, int32_t partition, const struct dead_item *item)
{
    *dead = (struct ferry_dead){.partition = partition,
                                .number = item->number,
                                .offset = item->offset,
                                .append_time_ms = item->append_time_ms,
                                .died_ms = item->died_ms,
                                .handed_out = item->handed_out,
                                .failed = item->failed,
                                .record_bytes = item->record_bytes,
                                .id = item->id,
                                .revived = item->revived,
                                .failure_count = item->failure_count};
    admin_copy_text(dead->reason, sizeof(dead->reason), item->reason);
    for (uint32_t i = 0; i < item->failure_count; i++) {
        struct ferry_failure *failure = &dead->failures[i];
        failure->time_ms = item->failures[i].time_ms;
        failure->kind = (enum ferry_failure_kind)item->failures[i].kind;
        admin_copy_text(failure->member, sizeof(failure->member), item->failures[i].member);
        admin_copy_text(failure->reason, sizeof(failure->reason), item->failures[i].reason);
    }
}

static enum ferry_err take_page(struct listing *l, struct bytes body)
{
    struct dead_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = dead_list_reply_decode(body, page);
    bool forward = err != FERRY_OK || page->next == 0 || page->next > l->place.number;
    if (err == FERRY_OK && (page->count > l->max - l->count || !forward)) {
        err = FERRY_ERR_BAD_FRAME;
    }
    if (err == FERRY_OK && !mem_grow((void **)&l->items, &l->capacity, l->count + page->count + 1,
                                     sizeof(*l->items))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        fill_dead(&l->items[l->count++], l->place.partition, &page->items[i]);
    }
    if (err == FERRY_OK) {
        l->place.partition += page->next == 0;
        l->place.number = page->next;
    }
    mem_free(page);
    return err;
}

/* Pages of one partition after another, until there are enough. A page may be empty: what has
 * another reason was passed over. */
static enum ferry_err list_all(struct ferry_client *c, struct topic *t, struct listing *l,
                               int64_t deadline_us)
{
    int32_t partitions = admin_partition_count(t);
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && l->count < l->max && l->place.partition < partitions) {
        struct call call;
        err = admin_ask_partition(c, &call, COMMAND_DEAD_LIST, t, l->place.partition, encode_list,
                                  l, deadline_us);
        if (err == FERRY_OK) {
            err = take_page(l, call.frame.body);
        }
        call_fini(&call);
    }
    return err;
}

enum ferry_err ferry_dead_list(struct ferry_client *client, const char *topic,
                               const char *subscription, const char *reason,
                               struct ferry_dead_place *place, size_t max, int timeout_ms,
                               struct ferry_dead **dead, size_t *count, bool *more)
{
    struct topic *t;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    struct listing l = {.subscription = bytes_of_string(subscription),
                        .place = *place,
                        .max = max,
                        .reason = bytes_of_string(reason != NULL ? reason : "")};
    if (!are_names(topic, subscription)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (max == 0 || place->partition < 0 || l.reason.size > REASON_MAX_BYTES) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = admin_topic(client, topic, timeout_ms, &t);
    if (err == FERRY_OK) {
        err = list_all(client, t, &l, deadline_us);
    }
    if (err != FERRY_OK) {
        mem_free(l.items);
        return err;
    }
    *place = l.place;
    *dead = l.items;
    *count = l.count;
    *more = l.place.partition < admin_partition_count(t);
    return FERRY_OK;
}

void ferry_dead_free(struct ferry_dead **dead)
{
    mem_free(*dead);
    *dead = NULL;
}

/* ---- Replaying and dropping. */

/* Those of one partition, at most DEAD_CHANGE_MAX at a time. */
struct change {
    struct dead_change_request request;
    struct bytes batch; /* Of an edited one. */
};

static void encode_change(struct buf *b, const struct call *call, uint64_t group)
{
    const struct change *change = call->request;
    struct dead_change_request request = change->request;
    request.group = group;
    dead_change_request_encode(b, &request);
    if (change->batch.size > 0) {
        frame_begin_attachment(b);
        buf_append_bytes(b, change->batch);
    }
}

static enum ferry_err change_some(struct ferry_client *c, struct topic *t, int32_t partition,
                                  const struct change *change, int64_t deadline_us, size_t *done)
{
    struct call call;
    struct dead_change_reply reply;
    enum ferry_err err = admin_ask_partition(c, &call, COMMAND_DEAD_CHANGE, t, partition,
                                             encode_change, change, deadline_us);
    if (err == FERRY_OK) {
        err = dead_change_reply_decode(call.frame.body, &reply);
    }
    if (err == FERRY_OK) { /* What an earlier try of ours did is not counted by the last one. */
        *done += call.doubtful ? change->request.count : reply.done;
    }
    call_fini(&call);
    return err;
}

/* Takes the next ones of the same partition off the places. */
static size_t take_places(struct change *change, const struct ferry_dead_place *places,
                          size_t count)
{
    size_t taken = 0;
    while (taken < count && taken < DEAD_CHANGE_MAX &&
           places[taken].partition == places[0].partition) {
        change->request.items[taken].number = places[taken].number;
        taken++;
    }
    change->request.count = (uint32_t)taken;
    return taken;
}

static enum ferry_err change_all(struct ferry_client *c, const char *topic, struct change *change,
                                 const struct ferry_dead_place *places, size_t count,
                                 int timeout_ms, size_t *done)
{
    struct topic *t;
    size_t all_done = 0;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    enum ferry_err err = admin_topic(c, topic, timeout_ms, &t);
    for (size_t at = 0; err == FERRY_OK && at < count;) {
        int32_t partition = places[at].partition;
        at += take_places(change, places + at, count - at);
        err = change_some(c, t, partition, change, deadline_us, &all_done);
    }
    if (err == FERRY_OK) {
        *done = all_done;
    }
    return err;
}

static enum ferry_err replay_edited(struct ferry_client *c, const char *topic,
                                    struct change *change, const struct ferry_dead_place *place,
                                    const struct ferry_message *edited, int timeout_ms,
                                    size_t *done)
{
    struct batch_writer w;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    enum ferry_err err = admin_batch_of(c, &w, edited, &change->batch);
    if (err == FERRY_OK) {
        err = change_all(c, topic, change, place, 1, timeout_ms, done);
    }
    batch_writer_fini(&w);
    return err;
}

enum ferry_err ferry_dead_replay(struct ferry_client *client, const char *topic,
                                 const char *subscription, const struct ferry_dead_place *places,
                                 size_t count, const struct ferry_message *edited, int timeout_ms,
                                 size_t *done)
{
    struct change change = {
        .request = {.subscription = bytes_of_string(subscription), .kind = DEAD_REPLAY}};
    if (!are_names(topic, subscription)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (edited == NULL) {
        return change_all(client, topic, &change, places, count, timeout_ms, done);
    }
    return count == 1 ? replay_edited(client, topic, &change, places, edited, timeout_ms, done)
                      : FERRY_ERR_INVALID_ARGUMENT;
}

enum ferry_err ferry_dead_drop(struct ferry_client *client, const char *topic,
                               const char *subscription, const struct ferry_dead_place *places,
                               size_t count, int timeout_ms, size_t *done)
{
    struct change change = {
        .request = {.subscription = bytes_of_string(subscription), .kind = DEAD_DROP}};
    return are_names(topic, subscription)
               ? change_all(client, topic, &change, places, count, timeout_ms, done)
               : FERRY_ERR_BAD_NAME;
}
