/* admin: the calls of ferry.h that ask and change what the brokers keep. */
#include <stdio.h>

#include "base/mem.h"
#include "client/admin_ask.h"

#define TOPIC_PATIENCE_MS 2000 /* Until every partition has a leader. */
#define LIST_PAGES_MAX    10000

static enum ferry_err find_topic(struct ferry_client *c, const char *name, struct topic **topic)
{
    pthread_mutex_lock(&c->lock);
    enum ferry_err err = topic_get(c, name, topic);
    pthread_mutex_unlock(&c->lock);
    return err;
}

/* ---- Topics. */

static void encode_create(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    topic_create_request_encode(b, call->request);
}

static void encode_delete(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    topic_delete_request_encode(b, call->request);
}

enum ferry_err ferry_topic_create(struct ferry_client *client, const struct ferry_topic_spec *spec,
                                  int timeout_ms)
{
    struct call call;
    struct topic_create_request request = {.name = bytes_of_string(spec->name),
                                           .partitions = spec->partitions,
                                           .replicas = spec->replicas,
                                           .retention_ms = spec->retention_ms,
                                           .retention_bytes = spec->retention_bytes,
                                           .dedupe_window_ms = spec->dedupe_window_ms,
                                           .retention_acked = spec->retention_acked};
    if (!name_is_valid(request.name)) {
        return FERRY_ERR_BAD_NAME;
    }
    call_init(&call, COMMAND_TOPIC_CREATE, ROUTE_CONTROLLER, encode_create, &request, timeout_ms);
    call.patience_ms = TOPIC_PATIENCE_MS;
    enum ferry_err err = call_run_one(client, &call);
    call_fini(&call);
    return err;
}

enum ferry_err ferry_topic_delete(struct ferry_client *client, const char *name, int timeout_ms)
{
    struct call call;
    struct topic_delete_request request = {.name = bytes_of_string(name)};
    if (!name_is_valid(request.name)) {
        return FERRY_ERR_BAD_NAME;
    }
    call_init(&call, COMMAND_TOPIC_DELETE, ROUTE_CONTROLLER, encode_delete, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_ERR_UNKNOWN_TOPIC && call.doubtful) {
        err = FERRY_OK; /* Our own first try deleted it. */
    }
    call_fini(&call);
    return err;
}

enum ferry_err ferry_topic_partitions(struct ferry_client *client, const char *topic,
                                      int timeout_ms, int32_t *partitions)
{
    struct topic *t;
    enum ferry_err err = find_topic(client, topic, &t);
    if (err != FERRY_OK) {
        return err;
    }
    pthread_mutex_lock(&client->lock);
    bool known = t->known;
    pthread_mutex_unlock(&client->lock);
    if (!known) {
        err = topic_await(t, false, timeout_ms);
    }
    if (err == FERRY_OK) {
        pthread_mutex_lock(&client->lock);
        *partitions = t->partition_count;
        pthread_mutex_unlock(&client->lock);
    }
    return err;
}

/* ---- What a topic is. */

static void encode_partition_info(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    struct partition_info_request request = {.group = group};
    partition_info_request_encode(b, &request);
}

static void take_partition_info(const struct call *call, struct ferry_partition_info *info)
{
    struct partition_info_reply reply;
    info->partition = call->partition;
    info->err = call->err;
    if (call->err != FERRY_OK) {
        return;
    }
    info->err = partition_info_reply_decode(call->frame.body, &reply);
    if (info->err == FERRY_OK) {
        info->leader_node = reply.leader_node;
        info->start_offset = reply.start_offset;
        info->end_offset = reply.end_offset;
        info->size_bytes = reply.size_bytes;
    }
}

static struct ferry_topic_info *topic_info_new(struct topic *t, int32_t count)
{
    struct ferry_topic_info *info = mem_zalloc(1, sizeof(*info));
    if (info == NULL) {
        return NULL;
    }
    info->partitions = mem_zalloc((size_t)count, sizeof(*info->partitions));
    if (info->partitions == NULL) {
        mem_free(info);
        return NULL;
    }
    info->partition_count = (size_t)count;
    memcpy(info->name, t->name, t->name_bytes);
    pthread_mutex_lock(&t->client->lock);
    info->id = t->id;
    info->replicas = t->replicas;
    info->retention_ms = t->retention_ms;
    info->retention_bytes = t->retention_bytes;
    info->dedupe_window_ms = t->dedupe_window_ms;
    info->retention_acked = t->retention_acked;
    pthread_mutex_unlock(&t->client->lock);
    return info;
}

enum ferry_err ferry_topic_info(struct ferry_client *client, const char *name, int timeout_ms,
                                struct ferry_topic_info **info)
{
    struct admin_survey s;
    enum ferry_err err =
        admin_survey_run(&s, client, name, COMMAND_PARTITION_INFO, encode_partition_info, NULL,
                         admin_deadline_us(timeout_ms));
    if (err != FERRY_OK) {
        return err;
    }
    struct ferry_topic_info *made = topic_info_new(s.topic, s.count);
    for (int32_t i = 0; made != NULL && i < s.count; i++) {
        take_partition_info(&s.calls[i], &made->partitions[i]);
    }
    admin_survey_free(&s);
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    *info = made;
    return FERRY_OK;
}

void ferry_topic_info_free(struct ferry_topic_info **info)
{
    if (*info != NULL) {
        mem_free((*info)->partitions);
        mem_free(*info);
        *info = NULL;
    }
}

/* ---- Lists of names. */

struct names {
    struct buf text; /* NUL-terminated names, one after another. */
    size_t count;
    char last[NAME_MAX_BYTES + 1];
};

static enum ferry_err add_page(struct names *names, struct bytes body, bool *more)
{
    struct names_reply page;
    if (names_reply_decode(body, &page) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    for (uint32_t i = 0; i < page.count; i++) {
        struct bytes name = page.names[i];
        if (!name_is_valid(name)) {
            return FERRY_ERR_BAD_FRAME;
        }
        memcpy(names->last, name.data, name.size);
        names->last[name.size] = '\0';
        buf_append(&names->text, names->last, name.size + 1);
        names->count++;
    }
    *more = page.more && page.count > 0;
    return buf_ok(&names->text) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

/* One block: the pointers, then the text. */
static enum ferry_err names_build(const struct names *names, char ***out)
{
    size_t pointers_bytes = (names->count + 1) * sizeof(char *);
    char **block = mem_alloc(pointers_bytes + names->text.size);
    if (block == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    char *text = (char *)block + pointers_bytes;
    if (names->text.size > 0) {
        memcpy(text, names->text.data, names->text.size);
    }
    for (size_t i = 0; i < names->count; i++) {
        block[i] = text;
        text += strlen(text) + 1;
    }
    block[names->count] = NULL;
    *out = block;
    return FERRY_OK;
}

static void encode_topic_list(struct buf *b, const struct call *call, uint64_t group)
{
    const struct names *names = call->request;
    (void)group;
    struct topic_list_request request = {.after = bytes_of_string(names->last)};
    topic_list_request_encode(b, &request);
}

static void encode_subscription_list(struct buf *b, const struct call *call, uint64_t group)
{
    const struct names *names = call->request;
    struct subscription_list_request request = {.group = group,
                                                .after = bytes_of_string(names->last)};
    subscription_list_request_encode(b, &request);
}

/* Page after page; with a topic from its partition 0, else from the controller. */
static enum ferry_err list_names(struct ferry_client *c, struct topic *t, int64_t deadline_us,
                                 char ***out, size_t *count)
{
    struct names names = {.count = 0, .last = ""};
    bool more = true;
    enum ferry_err err = FERRY_OK;
    buf_init(&names.text, (size_t)LIST_PAGES_MAX * LIST_NAMES_MAX * (NAME_MAX_BYTES + 1));
    for (int page = 0; page < LIST_PAGES_MAX && more && err == FERRY_OK; page++) {
        struct call call;
        call_init(&call, t != NULL ? COMMAND_SUBSCRIPTION_LIST : COMMAND_TOPIC_LIST,
                  t != NULL ? ROUTE_PARTITION : ROUTE_CONTROLLER,
                  t != NULL ? encode_subscription_list : encode_topic_list, &names,
                  admin_left_ms(deadline_us));
        call_to_partition(&call, t, 0);
        err = call_run_one(c, &call);
        if (err == FERRY_OK) {
            err = add_page(&names, call.frame.body, &more);
        }
        call_fini(&call);
    }
    if (err == FERRY_OK) {
        err = names_build(&names, out);
    }
    if (err == FERRY_OK) {
        *count = names.count;
    }
    buf_fini(&names.text);
    return err;
}

enum ferry_err ferry_topic_list(struct ferry_client *client, int timeout_ms, char ***names,
                                size_t *count)
{
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    return list_names(client, NULL, deadline_us, names, count);
}

enum ferry_err ferry_subscription_list(struct ferry_client *client, const char *topic,
                                       int timeout_ms, char ***names, size_t *count)
{
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    struct topic *t;
    enum ferry_err err = admin_topic(client, topic, timeout_ms, &t);
    return err != FERRY_OK ? err : list_names(client, t, deadline_us, names, count);
}

void ferry_names_free(char ***names)
{
    mem_free(*names);
    *names = NULL;
}

/* ---- The broker itself. */

static void encode_empty(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    (void)group;
    empty_encode(b);
}

static enum ferry_err take_status(const struct call *call, char **json)
{
    struct broker_status_reply reply;
    if (broker_status_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    char *text = mem_alloc(reply.json.size + 1);
    if (text == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(text, reply.json.data, reply.json.size);
    text[reply.json.size] = '\0';
    *json = text;
    return FERRY_OK;
}

enum ferry_err ferry_broker_status(struct ferry_client *client, int timeout_ms, char **json)
{
    struct call call;
    call_init(&call, COMMAND_BROKER_STATUS, ROUTE_ANY, encode_empty, NULL, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_OK) {
        err = take_status(&call, json);
    }
    call_fini(&call);
    return err;
}

void ferry_text_free(char **text)
{
    mem_free(*text);
    *text = NULL;
}
