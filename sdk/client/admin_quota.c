/* admin_quota: the calls of ferry.h about what a client may do to a topic. */
#include "base/mem.h"
#include "client/admin_ask.h"
#include "client/admin_text.h"

static void encode_set(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    quota_set_request_encode(b, call->request);
}

enum ferry_err ferry_quota_set(struct ferry_client *client, const struct ferry_quota *quota,
                               int timeout_ms)
{
    struct call call;
    struct quota_set_request request = {
        .quota = {.client = bytes_of_string(quota->client),
                  .topic = bytes_of_string(quota->topic),
                  .bytes_per_second = quota->bytes_per_second,
                  .messages_per_second = quota->messages_per_second,
                  .requests_per_second = quota->requests_per_second}};
    const struct quota *q = &request.quota;
    if (q->topic.size > 0 && !name_is_valid(q->topic)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (q->client.size > NAME_MAX_BYTES) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    call_init(&call, COMMAND_QUOTA_SET, ROUTE_CONTROLLER, encode_set, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    call_fini(&call);
    return err;
}

struct quotas {
    struct ferry_quota *items;
    size_t count, capacity;
};

static void encode_list(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    quota_list_request_encode(b, call->request);
}

static enum ferry_err take_page(struct quotas *quotas, struct bytes body, bool *more)
{
    struct quota_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = quota_list_reply_decode(body, page);
    if (err == FERRY_OK && !mem_grow((void **)&quotas->items, &quotas->capacity,
                                     quotas->count + page->count + 1, sizeof(*quotas->items))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        const struct quota *item = &page->items[i];
        struct ferry_quota *quota = &quotas->items[quotas->count++];
        *quota = (struct ferry_quota){.bytes_per_second = item->bytes_per_second,
                                      .messages_per_second = item->messages_per_second,
                                      .requests_per_second = item->requests_per_second};
        admin_copy_text(quota->client, sizeof(quota->client), item->client);
        admin_copy_text(quota->topic, sizeof(quota->topic), item->topic);
    }
    *more = err == FERRY_OK && page->more && page->count > 0;
    mem_free(page);
    return err;
}

enum ferry_err ferry_quota_list(struct ferry_client *client, int timeout_ms,
                                struct ferry_quota **quotas, size_t *count)
{
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    struct quotas made = {.items = NULL};
    bool more = true;
    enum ferry_err err = FERRY_OK;
    for (int page = 0; err == FERRY_OK && more && page < ADMIN_PAGES_MAX; page++) {
        struct call call;
        struct quota_list_request request = {.after_client = bytes_of(NULL, 0)};
        if (made.count > 0) {
            request.after_client = bytes_of_string(made.items[made.count - 1].client);
            request.after_topic = bytes_of_string(made.items[made.count - 1].topic);
        }
        call_init(&call, COMMAND_QUOTA_LIST, ROUTE_CONTROLLER, encode_list, &request,
                  admin_left_ms(deadline_us));
        err = call_run_one(client, &call);
        if (err == FERRY_OK) {
            err = take_page(&made, call.frame.body, &more);
        }
        call_fini(&call);
    }
    if (err != FERRY_OK) {
        mem_free(made.items);
        return err;
    }
    *quotas = made.items;
    *count = made.count;
    return FERRY_OK;
}

void ferry_quotas_free(struct ferry_quota **quotas)
{
    mem_free(*quotas);
    *quotas = NULL;
}
