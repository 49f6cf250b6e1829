/* admin_schedule: the calls of ferry.h about messages that wait for their time, once or again and
 * again. */
#include "base/mem.h"
#include "client/admin_ask.h"
#include "client/admin_text.h"
#include "wire/batch.h"

/* ---- Delayed messages. */

struct listing {
    struct ferry_schedule_id after;
    size_t max;
    struct ferry_scheduled *items;
    size_t count, capacity;
};

static void encode_list(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ferry_schedule_id *after = call->request;
    struct schedule_list_request request = {
        .group = group, .after_due_ms = after->due_ms, .after_number = after->number};
    schedule_list_request_encode(b, &request);
}

static void add_scheduled(struct listing *l, const struct schedule_item *item)
{
    struct ferry_scheduled *s = &l->items[l->count++];
    l->after.due_ms = item->due_ms;
    l->after.number = item->number;
    *s = (struct ferry_scheduled){.schedule = l->after,
                                  .added_ms = item->added_ms,
                                  .id = item->id,
                                  .record_bytes = item->record_bytes};
    admin_copy_text(s->key, sizeof(s->key), item->key);
}

/* Takes as many as are wanted; the place then says where the rest of the page begins. */
static enum ferry_err take_page(struct listing *l, struct bytes body)
{
    struct schedule_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = schedule_list_reply_decode(body, page);
    if (err == FERRY_OK && !mem_grow((void **)&l->items, &l->capacity, l->count + page->count + 1,
                                     sizeof(*l->items))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count && l->count < l->max; i++) {
        add_scheduled(l, &page->items[i]);
    }
    bool last = err == FERRY_OK && (!page->more || page->count == 0);
    if (last && l->count < l->max) {
        l->after = (struct ferry_schedule_id){.partition = l->after.partition + 1};
    }
    mem_free(page);
    return err;
}

static enum ferry_err list_all(struct ferry_client *c, struct topic *t, struct listing *l,
                               int64_t deadline_us)
{
    int32_t partitions = admin_partition_count(t);
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && l->count < l->max && l->after.partition < partitions) {
        struct call call;
        err = admin_ask_partition(c, &call, COMMAND_SCHEDULE_LIST, t, l->after.partition,
                                  encode_list, &l->after, deadline_us);
        if (err == FERRY_OK) {
            err = take_page(l, call.frame.body);
        }
        call_fini(&call);
    }
    return err;
}

/* Asked for what is due after the end of time, each partition tells only how many there are. */
static enum ferry_err count_all(struct ferry_client *c, const char *topic, int64_t deadline_us,
                                uint64_t *total)
{
    const struct ferry_schedule_id end = {.due_ms = INT64_MAX, .number = UINT64_MAX};
    struct admin_survey s;
    struct schedule_list_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    uint64_t sum = 0;
    enum ferry_err err =
        admin_survey_run(&s, c, topic, COMMAND_SCHEDULE_LIST, encode_list, &end, deadline_us);
    if (err == FERRY_OK) {
        err = admin_survey_error(&s, FERRY_OK);
        for (int32_t i = 0; err == FERRY_OK && i < s.count; i++) {
            err = schedule_list_reply_decode(s.calls[i].frame.body, reply);
            sum += err == FERRY_OK ? reply->total : 0;
        }
        admin_survey_free(&s);
    }
    mem_free(reply);
    if (err == FERRY_OK) {
        *total = sum;
    }
    return err;
}

enum ferry_err ferry_schedule_list(struct ferry_client *client, const char *topic,
                                   struct ferry_schedule_id *after, size_t max, int timeout_ms,
                                   struct ferry_scheduled **scheduled, size_t *count, bool *more,
                                   uint64_t *total)
{
    struct topic *t;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    struct listing l = {.after = *after, .max = max};
    if (max == 0 || after->partition < 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = admin_topic(client, topic, timeout_ms, &t);
    if (err == FERRY_OK) {
        err = list_all(client, t, &l, deadline_us);
    }
    if (err == FERRY_OK && total != NULL) {
        err = count_all(client, topic, deadline_us, total);
    }
    if (err != FERRY_OK) {
        mem_free(l.items);
        return err;
    }
    *after = l.after;
    *scheduled = l.items;
    *count = l.count;
    *more = l.after.partition < admin_partition_count(t);
    return FERRY_OK;
}

void ferry_scheduled_free(struct ferry_scheduled **scheduled)
{
    mem_free(*scheduled);
    *scheduled = NULL;
}

static void encode_cancel(struct buf *b, const struct call *call, uint64_t group)
{
    struct schedule_cancel_request request = *(const struct schedule_cancel_request *)call->request;
    request.group = group;
    schedule_cancel_request_encode(b, &request);
}

/* What an earlier try of ours cancelled is not counted: it could as well have come due. */
static enum ferry_err cancel_some(struct ferry_client *c, struct topic *t, int32_t partition,
                                  const struct schedule_cancel_request *request,
                                  int64_t deadline_us, size_t *done)
{
    struct call call;
    struct schedule_cancel_reply reply;
    enum ferry_err err = admin_ask_partition(c, &call, COMMAND_SCHEDULE_CANCEL, t, partition,
                                             encode_cancel, request, deadline_us);
    if (err == FERRY_OK) {
        err = schedule_cancel_reply_decode(call.frame.body, &reply);
    }
    if (err == FERRY_OK) {
        *done += reply.done;
    }
    call_fini(&call);
    return err;
}

/* Takes the next ones of the same partition off the schedules. */
static size_t take_schedules(struct schedule_cancel_request *request,
                             const struct ferry_schedule_id *schedules, size_t count)
{
    size_t taken = 0;
    while (taken < count && taken < SCHEDULE_CANCEL_MAX &&
           schedules[taken].partition == schedules[0].partition) {
        request->items[taken] = (struct schedule_cancel_item){.due_ms = schedules[taken].due_ms,
                                                              .number = schedules[taken].number};
        taken++;
    }
    request->count = (uint32_t)taken;
    return taken;
}

enum ferry_err ferry_schedule_cancel(struct ferry_client *client, const char *topic,
                                     const struct ferry_schedule_id *schedules, size_t count,
                                     int timeout_ms, size_t *done)
{
    struct topic *t;
    size_t all_done = 0;
    struct schedule_cancel_request request = {.count = 0};
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    enum ferry_err err = admin_topic(client, topic, timeout_ms, &t);
    for (size_t at = 0; err == FERRY_OK && at < count;) {
        int32_t partition = schedules[at].partition;
        at += take_schedules(&request, schedules + at, count - at);
        err = cancel_some(client, t, partition, &request, deadline_us, &all_done);
    }
    if (err == FERRY_OK) {
        *done = all_done;
    }
    return err;
}

/* ---- Messages that come again and again. */

struct recurring {
    struct recurring_set_request request;
    struct bytes batch; /* Empty: it is removed. */
    int32_t but;        /* Of a removal: not from this partition; -1: from all. */
};

static void encode_set(struct buf *b, const struct call *call, uint64_t group)
{
    const struct recurring *r = call->request;
    struct recurring_set_request request = r->request;
    request.group = group;
    recurring_set_request_encode(b, &request);
    if (r->batch.size > 0) {
        frame_begin_attachment(b);
        buf_append_bytes(b, r->batch);
    }
}

static void encode_recurring_list(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    struct recurring_list_request request = {.group = group};
    recurring_list_request_encode(b, &request);
}

/* Where the message is to be; the name says it when nothing else does, so that the same name is at
 * the same place. */
static enum ferry_err find_place(struct topic *t, const char *name, const struct ferry_message *m,
                                 int32_t *partition)
{
    int32_t count = admin_partition_count(t);
    if (m->partition >= count) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    if (m->partition >= 0) {
        *partition = m->partition;
    } else if (m->key != NULL) {
        *partition = ferry_partition_of_key(m->key, m->key_bytes, count);
    } else {
        *partition = ferry_partition_of_key(name, strlen(name), count);
    }
    return FERRY_OK;
}

static bool has_name(const struct recurring_list_reply *reply, struct bytes name)
{
    for (uint32_t i = 0; i < reply->count; i++) {
        if (bytes_equal(reply->items[i].name, name)) {
            return true;
        }
    }
    return false;
}

static enum ferry_err remove_from(struct ferry_client *c, struct topic *t, int32_t partition,
                                  const struct recurring *r, int64_t deadline_us)
{
    struct call call;
    struct recurring removal = {.request = {.name = r->request.name}};
    enum ferry_err err = admin_ask_partition(c, &call, COMMAND_RECURRING_SET, t, partition,
                                             encode_set, &removal, deadline_us);
    call_fini(&call);
    return err;
}

/* Removes it wherever it is but in partition `but`; says whether it was anywhere. */
static enum ferry_err remove_all(struct ferry_client *c, const char *topic,
                                 const struct recurring *r, int64_t deadline_us, bool *found)
{
    struct admin_survey s;
    struct recurring_list_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = admin_survey_run(&s, c, topic, COMMAND_RECURRING_LIST,
                                          encode_recurring_list, NULL, deadline_us);
    if (err == FERRY_OK) {
        err = admin_survey_error(&s, FERRY_OK);
        for (int32_t i = 0; err == FERRY_OK && i < s.count; i++) {
            err = recurring_list_reply_decode(s.calls[i].frame.body, reply);
            if (err == FERRY_OK && i != r->but && has_name(reply, r->request.name)) {
                err = remove_from(c, s.topic, i, r, deadline_us);
                *found = true;
            }
        }
        admin_survey_free(&s);
    }
    mem_free(reply);
    return err;
}

static enum ferry_err set_at(struct ferry_client *c, struct topic *t, int32_t partition,
                             struct recurring *r, const struct ferry_message *m,
                             int64_t deadline_us)
{
    struct call call;
    struct batch_writer w;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    enum ferry_err err = admin_batch_of(c, &w, m, &r->batch);
    if (err == FERRY_OK) {
        err = admin_ask_partition(c, &call, COMMAND_RECURRING_SET, t, partition, encode_set, r,
                                  deadline_us);
        call_fini(&call);
    }
    batch_writer_fini(&w);
    return err;
}

enum ferry_err ferry_recurring_set(struct ferry_client *client, const char *name, const char *spec,
                                   const char *zone, const struct ferry_message *message,
                                   int timeout_ms)
{
    struct topic *t;
    bool found = false;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    struct recurring r = {.request = {.name = bytes_of_string(name),
                                      .spec = bytes_of_string(spec),
                                      .zone = bytes_of_string(zone != NULL ? zone : "")}};
    if (!name_is_valid(r.request.name)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (r.request.spec.size == 0 || r.request.spec.size > RECURRING_SPEC_MAX_BYTES ||
        r.request.zone.size > NAME_MAX_BYTES || message->due_ms != 0 || message->delay_ms != 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = admin_topic(client, message->topic, timeout_ms, &t);
    if (err == FERRY_OK) {
        err = find_place(t, name, message, &r.but);
    }
    if (err == FERRY_OK) {
        err = set_at(client, t, r.but, &r, message, deadline_us);
    }
    /* Set with another key before, it may be in another partition, too. */
    return err == FERRY_OK ? remove_all(client, message->topic, &r, deadline_us, &found) : err;
}

enum ferry_err ferry_recurring_remove(struct ferry_client *client, const char *topic,
                                      const char *name, int timeout_ms)
{
    bool found = false;
    const struct recurring r = {.request = {.name = bytes_of_string(name)}, .but = -1};
    if (!name_is_valid(r.request.name)) {
        return FERRY_ERR_BAD_NAME;
    }
    enum ferry_err err = remove_all(client, topic, &r, admin_deadline_us(timeout_ms), &found);
    return err == FERRY_OK && !found ? FERRY_ERR_UNKNOWN_MESSAGE : err;
}

struct recurrings {
    struct ferry_recurring *items;
    size_t count, capacity;
};

static enum ferry_err add_recurring(struct recurrings *all, int32_t partition,
                                    const struct recurring_list_reply *reply)
{
    if (!mem_grow((void **)&all->items, &all->capacity, all->count + reply->count + 1,
                  sizeof(*all->items))) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < reply->count; i++) {
        const struct recurring_item *item = &reply->items[i];
        struct ferry_recurring *r = &all->items[all->count++];
        *r = (struct ferry_recurring){
            .partition = partition, .next_ms = item->next_ms, .fired = item->fired};
        admin_copy_text(r->name, sizeof(r->name), item->name);
        admin_copy_text(r->spec, sizeof(r->spec), item->spec);
        admin_copy_text(r->zone, sizeof(r->zone), item->zone);
    }
    return FERRY_OK;
}

enum ferry_err ferry_recurring_list(struct ferry_client *client, const char *topic, int timeout_ms,
                                    struct ferry_recurring **recurring, size_t *count)
{
    struct admin_survey s;
    struct recurrings all = {.items = NULL};
    struct recurring_list_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err =
        admin_survey_run(&s, client, topic, COMMAND_RECURRING_LIST, encode_recurring_list, NULL,
                         admin_deadline_us(timeout_ms));
    if (err == FERRY_OK) {
        err = admin_survey_error(&s, FERRY_OK);
        for (int32_t i = 0; err == FERRY_OK && i < s.count; i++) {
            err = recurring_list_reply_decode(s.calls[i].frame.body, reply);
            err = err == FERRY_OK ? add_recurring(&all, i, reply) : err;
        }
        admin_survey_free(&s);
    }
    mem_free(reply);
    if (err != FERRY_OK) {
        mem_free(all.items);
        return err;
    }
    *recurring = all.items;
    *count = all.count;
    return FERRY_OK;
}

void ferry_recurring_free(struct ferry_recurring **recurring)
{
    mem_free(*recurring);
    *recurring = NULL;
}
