/* admin_lease: the calls of ferry.h about leases and worker ids. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/admin_text.h"
#include "client/call.h"

#define PAGES_MAX 10000 /* A broker that never says it was the last page is not believed. */
/* One wait in line: shorter than the whole, so that a leader that died is noticed meanwhile. The
 * place in line is kept by asking again. */
#define WAIT_SLICE_MS 10000

static int left_ms(int64_t deadline_us)
{
    int64_t left_us = deadline_us - clock_monotonic_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

static bool ttl_is_sane(int64_t ttl_ms)
{
    return ttl_ms > 0 && ttl_ms <= UINT32_MAX;
}

static bool are_names(const char *name, const char *holder)
{
    return name_is_valid(bytes_of_string(name)) && name_is_valid(bytes_of_string(holder));
}

static void encode_acquire(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    lease_acquire_request_encode(b, call->request);
}

static void encode_renew(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    lease_renew_request_encode(b, call->request);
}

static void encode_release(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    lease_release_request_encode(b, call->request);
}

/* LEASE_HELD when it is another's; `lease` is filled in both cases. */
static enum ferry_err take_lease(const struct call *call, const char *name,
                                 struct ferry_lease *lease)
{
    struct lease_reply reply;
    if (lease_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    *lease = (struct ferry_lease){.token = reply.token,
                                  .ttl_ms = reply.ttl_ms,
                                  .left_ms = reply.left_ms,
                                  .waiting = reply.waiting};
    admin_copy_text(lease->name, sizeof(lease->name), bytes_of_string(name));
    admin_copy_text(lease->holder, sizeof(lease->holder), reply.holder);
    return reply.granted ? FERRY_OK : FERRY_ERR_LEASE_HELD;
}

static enum ferry_err acquire_once(struct ferry_client *client,
                                   const struct lease_acquire_request *request, const char *name,
                                   int timeout_ms, struct ferry_lease *lease)
{
    struct call call;
    call_init(&call, COMMAND_LEASE_ACQUIRE, ROUTE_CONTROLLER, encode_acquire, request, timeout_ms);
    call.patience_ms = request->wait_ms;
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_OK) {
        err = take_lease(&call, name, lease);
    }
    call_fini(&call);
    return err;
}

enum ferry_err ferry_lease_acquire(struct ferry_client *client, const char *name,
                                   const char *holder, int64_t ttl_ms, int64_t wait_ms,
                                   int timeout_ms, struct ferry_lease *lease)
{
    if (!are_names(name, holder)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!ttl_is_sane(ttl_ms) || wait_ms < 0 || wait_ms > INT32_MAX) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    int64_t until_us = clock_monotonic_us() + wait_ms * 1000;
    struct lease_acquire_request request = {.name = bytes_of_string(name),
                                            .holder = bytes_of_string(holder),
                                            .ttl_ms = (uint32_t)ttl_ms};
    enum ferry_err err = FERRY_ERR_LEASE_HELD;
    bool last = false;
    while (err == FERRY_ERR_LEASE_HELD && !last) { /* Until the wait is over. */
        int left = left_ms(until_us);
        last = left <= WAIT_SLICE_MS;
        request.wait_ms = (uint32_t)(last ? left : WAIT_SLICE_MS);
        err = acquire_once(client, &request, name, timeout_ms + (int)request.wait_ms, lease);
    }
    return err;
}

enum ferry_err ferry_lease_renew(struct ferry_client *client, const char *name, const char *holder,
                                 uint64_t token, int64_t ttl_ms, int timeout_ms,
                                 struct ferry_lease *lease)
{
    struct call call;
    if (!are_names(name, holder)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!ttl_is_sane(ttl_ms)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct lease_renew_request request = {.name = bytes_of_string(name),
                                          .holder = bytes_of_string(holder),
                                          .token = token,
                                          .ttl_ms = (uint32_t)ttl_ms};
    call_init(&call, COMMAND_LEASE_RENEW, ROUTE_CONTROLLER, encode_renew, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_OK) {
        err = take_lease(&call, name, lease);
        err = err == FERRY_ERR_LEASE_HELD ? FERRY_ERR_LEASE_LOST : err;
    }
    call_fini(&call);
    return err;
}

enum ferry_err ferry_lease_release(struct ferry_client *client, const char *name,
                                   const char *holder, uint64_t token, int timeout_ms)
{
    struct call call;
    if (!are_names(name, holder)) {
        return FERRY_ERR_BAD_NAME;
    }
    struct lease_release_request request = {
        .name = bytes_of_string(name), .holder = bytes_of_string(holder), .token = token};
    call_init(&call, COMMAND_LEASE_RELEASE, ROUTE_CONTROLLER, encode_release, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_ERR_LEASE_LOST && call.doubtful) {
        err = FERRY_OK; /* Our own first try released it. */
    }
    call_fini(&call);
    return err;
}

/* ---- The list. */

struct leases {
    struct ferry_lease *items;
    size_t count, capacity;
};

static void encode_list(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    lease_list_request_encode(b, call->request);
}

static enum ferry_err take_page(struct leases *leases, struct bytes body, bool *more)
{
    struct lease_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = lease_list_reply_decode(body, page);
    if (err == FERRY_OK && !mem_grow((void **)&leases->items, &leases->capacity,
                                     leases->count + page->count + 1, sizeof(*leases->items))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        const struct lease_list_item *item = &page->items[i];
        struct ferry_lease *lease = &leases->items[leases->count++];
        *lease = (struct ferry_lease){.token = item->token,
                                      .ttl_ms = item->ttl_ms,
                                      .left_ms = item->left_ms,
                                      .waiting = item->waiting};
        admin_copy_text(lease->name, sizeof(lease->name), item->name);
        admin_copy_text(lease->holder, sizeof(lease->holder), item->holder);
    }
    *more = err == FERRY_OK && page->more && page->count > 0;
    mem_free(page);
    return err;
}

enum ferry_err ferry_leases_list(struct ferry_client *client, int timeout_ms,
                                 struct ferry_lease **leases, size_t *count)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    struct leases made = {.items = NULL};
    bool more = true;
    enum ferry_err err = FERRY_OK;
    for (int page = 0; err == FERRY_OK && more && page < PAGES_MAX; page++) {
        struct call call;
        struct lease_list_request request = {.after = bytes_of(NULL, 0)};
        if (made.count > 0) {
            request.after = bytes_of_string(made.items[made.count - 1].name);
        }
        call_init(&call, COMMAND_LEASE_LIST, ROUTE_CONTROLLER, encode_list, &request,
                  left_ms(deadline_us));
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
    *leases = made.items;
    *count = made.count;
    return FERRY_OK;
}

void ferry_leases_free(struct ferry_lease **leases)
{
    mem_free(*leases);
    *leases = NULL;
}

/* ---- Worker ids. */

static void encode_worker(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    worker_id_request_encode(b, call->request);
}

enum ferry_err ferry_worker_id(struct ferry_client *client, const char *holder, int64_t ttl_ms,
                               int timeout_ms, uint32_t *worker_id)
{
    struct call call;
    struct worker_id_reply reply;
    if (!name_is_valid(bytes_of_string(holder))) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!ttl_is_sane(ttl_ms)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct worker_id_request request = {.holder = bytes_of_string(holder),
                                        .ttl_ms = (uint32_t)ttl_ms};
    call_init(&call, COMMAND_WORKER_ID, ROUTE_CONTROLLER, encode_worker, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_OK && (worker_id_reply_decode(call.frame.body, &reply) != FERRY_OK ||
                            reply.worker_id >= WORKER_IDS_MAX)) {
        err = FERRY_ERR_BAD_FRAME;
    }
    call_fini(&call);
    if (err == FERRY_OK) {
        *worker_id = reply.worker_id;
    }
    return err;
}
