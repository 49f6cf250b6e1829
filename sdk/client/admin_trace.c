/* admin_trace: the calls of ferry.h that find a message and tell its life. */
#include "base/id.h"
#include "base/mem.h"
#include "client/admin_ask.h"
#include "client/admin_text.h"

_Static_assert((int)FERRY_TRACE_APPENDED == (int)TRACE_APPENDED, "the protocol says the same");
_Static_assert((int)FERRY_TRACE_COMMITTED == (int)TRACE_COMMITTED, "likewise");

/* ---- Finding. */

static void encode_find(struct buf *b, const struct call *call, uint64_t group)
{
    struct message_find_request request = {.group = group,
                                           .id = *(const struct ferry_id *)call->request};
    message_find_request_encode(b, &request);
}

/* Found anywhere is found. Not found is only sure when all have answered. */
static enum ferry_err take_find(struct admin_survey *s, int32_t *partition, int64_t *offset)
{
    struct message_find_reply reply;
    enum ferry_err first = FERRY_OK;
    for (int32_t i = 0; i < s->count; i++) {
        enum ferry_err err = s->calls[i].err;
        if (err == FERRY_OK) {
            err = message_find_reply_decode(s->calls[i].frame.body, &reply);
        }
        if (err == FERRY_OK && reply.found) {
            *partition = i;
            *offset = reply.offset;
            return FERRY_OK;
        }
        first = first == FERRY_OK ? err : first;
    }
    return first != FERRY_OK ? first : FERRY_ERR_UNKNOWN_MESSAGE;
}

enum ferry_err ferry_message_find(struct ferry_client *client, const char *topic,
                                  const struct ferry_id *id, int timeout_ms, int32_t *partition,
                                  int64_t *offset)
{
    struct admin_survey s;
    if (id_is_zero(id)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = admin_survey_run(&s, client, topic, COMMAND_MESSAGE_FIND, encode_find, id,
                                          admin_deadline_us(timeout_ms));
    if (err == FERRY_OK) {
        err = take_find(&s, partition, offset);
        admin_survey_free(&s);
    }
    return err;
}

/* ---- Its life. */

struct asking {
    int64_t offset;
    uint64_t after;
};

static void encode_trace(struct buf *b, const struct call *call, uint64_t group)
{
    const struct asking *asking = call->request;
    struct trace_request request = {
        .group = group, .offset = asking->offset, .after = asking->after};
    trace_request_encode(b, &request);
}

static void fill_event(struct ferry_trace_event *event, const struct trace_event *item)
{
    *event = (struct ferry_trace_event){.kind = (enum ferry_trace_kind)item->kind,
                                        .index = item->index,
                                        .time_ms = item->time_ms,
                                        .node = item->node,
                                        .lease = item->lease,
                                        .due_ms = item->due_ms};
    admin_copy_text(event->subscription, sizeof(event->subscription), item->subscription);
    admin_copy_text(event->member, sizeof(event->member), item->member);
    admin_copy_text(event->reason, sizeof(event->reason), item->reason);
}

static enum ferry_err take_events(struct bytes body, uint64_t after, uint64_t *next, uint64_t *end,
                                  struct ferry_trace_event **events, size_t *count)
{
    struct trace_reply *reply = mem_alloc(sizeof(*reply));
    struct ferry_trace_event *made = NULL;
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = trace_reply_decode(body, reply);
    if (err == FERRY_OK && reply->next != 0 && reply->next <= after) {
        err = FERRY_ERR_BAD_FRAME; /* It would never end. */
    }
    if (err == FERRY_OK) {
        made = mem_zalloc(reply->count + 1, sizeof(*made));
        err = made != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < reply->count; i++) {
        fill_event(&made[i], &reply->events[i]);
    }
    if (err == FERRY_OK) {
        *next = reply->next;
        *end = reply->end;
        *events = made;
        *count = reply->count;
    }
    mem_free(reply);
    return err;
}

enum ferry_err ferry_trace(struct ferry_client *client, const char *topic, int32_t partition,
                           int64_t offset, int timeout_ms, uint64_t *next, uint64_t *end,
                           struct ferry_trace_event **events, size_t *count)
{
    struct call call;
    struct topic *t;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    const struct asking asking = {.offset = offset, .after = *next};
    if (offset < 0 || partition < 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = admin_topic(client, topic, timeout_ms, &t);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_ask_partition(client, &call, COMMAND_TRACE, t, partition, encode_trace, &asking,
                              deadline_us);
    if (err == FERRY_OK) {
        err = take_events(call.frame.body, asking.after, next, end, events, count);
    }
    call_fini(&call);
    return err;
}

void ferry_trace_free(struct ferry_trace_event **events)
{
    mem_free(*events);
    *events = NULL;
}
