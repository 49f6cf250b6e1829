#include "client/metadata.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"
#include "client/consumer.h"
#include "client/receiver.h"
#include "client/source.h"

/* One try at one broker: short, so that a dead first server does not cost request.timeout_ms; and
 * shorter where another can be asked. */
#define METADATA_TRY_MS       2000
#define METADATA_SHORT_TRY_MS 300
/* So many brokers must deny that there is such a topic, unless the controller does: what a broker
 * knows of new topics may be some moments old. */
#define METADATA_DENIALS 4u

static void on_reply(struct request *r, const struct reply *reply);
static void on_timer(struct timer *timer);

/* ---- Topics by name. */

static struct list *bucket_of(struct ferry_client *c, struct bytes name)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a: names are short. */
    for (size_t i = 0; i < name.size; i++) {
        hash = (hash ^ name.data[i]) * UINT64_C(1099511628211);
    }
    return &c->buckets[hash % CLIENT_TOPIC_BUCKETS];
}

static struct topic *topic_new(struct ferry_client *c, struct bytes name)
{
    struct topic *t = mem_zalloc(1, sizeof(*t));
    if (t == NULL) {
        return NULL;
    }
    t->client = c;
    memcpy(t->name, name.data, name.size);
    t->name_bytes = name.size;
    t->of_dead = name_is_of_dead(name);
    t->deadline_us = INT64_MAX;
    list_init(&t->bucket);
    list_init(&t->work_node);
    list_init(&t->staged);
    list_init(&t->calls);
    request_init(&t->request, on_reply);
    return t;
}

/* A topic's, or that of the dead letters of one of its subscriptions. */
static bool is_topic_name(struct bytes name)
{
    struct bytes topic, subscription;
    size_t next = 0;
    if (!name_is_of_dead(name)) {
        return name_is_valid(name);
    }
    while (dead_name_split(name, next, &topic, &subscription, &next)) {
        if (name_is_valid(topic) && name_is_valid(subscription)) {
            return true;
        }
    }
    return false;
}

enum ferry_err topic_get(struct ferry_client *c, const char *name, struct topic **topic)
{
    struct bytes wanted = bytes_of_string(name);
    struct list *bucket = bucket_of(c, wanted);
    for (struct list *n = bucket->next; n != bucket; n = n->next) {
        struct topic *t = list_entry(n, struct topic, bucket);
        if (bytes_equal(bytes_of(t->name, t->name_bytes), wanted)) {
            *topic = t;
            return FERRY_OK;
        }
    }
    if (!is_topic_name(wanted)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (c->topic_count >= CLIENT_TOPICS_MAX) {
        return FERRY_ERR_QUEUE_FULL;
    }
    struct topic *t = topic_new(c, wanted);
    if (t == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_push_back(bucket, &t->bucket);
    c->topic_count++;
    *topic = t;
    return FERRY_OK;
}

static void topic_free(struct topic *t)
{
    for (int32_t i = 0; i < t->partition_count; i++) {
        stream_fini(t->partitions[i]);
        mem_free(t->partitions[i]);
    }
    mem_free(t->partitions);
    request_fini(&t->request);
    timer_drop(&t->client->timers, &t->timer);
    list_remove(&t->bucket);
    mem_free(t);
}

void topics_free(struct ferry_client *c)
{
    for (size_t i = 0; i < CLIENT_TOPIC_BUCKETS; i++) {
        struct list *node;
        while ((node = list_pop_front(&c->buckets[i])) != NULL) {
            topic_free(list_entry(node, struct topic, bucket));
        }
    }
}

/* ---- Asking. */

void metadata_adopt(struct topic *t)
{
    if (!t->adopted && !timer_add(&t->client->timers, &t->timer, on_timer)) {
        accumulator_fail_staged(t, FERRY_ERR_NO_MEMORY);
        return;
    }
    t->adopted = true;
    t->deadline_us = accumulator_expire_staged(t, clock_monotonic_us());
    if (t->deadline_us != INT64_MAX) {
        metadata_want(t);
        timer_set_sooner(&t->client->timers, &t->timer, t->deadline_us);
    }
}

/* A topic that is not known may be newer than what most brokers know: the controller knows. */
static struct connection *whom_to_ask(struct topic *t)
{
    struct ferry_client *c = t->client;
    struct connection *k = t->hinted;
    t->hinted = NULL;
    if (k == NULL && !t->known && c->controller != NULL && t->attempts <= t->denials) {
        k = c->controller;
    }
    return k != NULL && !k->suspect ? k : route_any(c, t->attempts + t->hunts);
}

static int64_t try_ms(struct ferry_client *c, const struct connection *k)
{
    int64_t longest_ms = route_has_other(c, k) ? METADATA_SHORT_TRY_MS : METADATA_TRY_MS;
    return c->options.request_timeout_ms < longest_ms ? c->options.request_timeout_ms : longest_ms;
}

static void ask_later(struct topic *t)
{
    timer_set_sooner(&t->client->timers, &t->timer,
                     clock_monotonic_us() + route_pause_us(t->client, t->attempts));
}

static void ask(struct topic *t)
{
    struct ferry_client *c = t->client;
    struct connection *k = whom_to_ask(t);
    t->attempts++;
    t->asked = k;
    if (k == NULL || request_begin(&t->request, k, COMMAND_METADATA, try_ms(c, k)) != FERRY_OK) {
        ask_later(t);
        return;
    }
    struct metadata_request wanted = {.topic = bytes_of(t->name, t->name_bytes)};
    metadata_request_encode(&t->request.frame, &wanted);
    if (request_submit(&t->request) != FERRY_OK) {
        ask_later(t);
    }
}

void metadata_want(struct topic *t)
{
    if (!t->adopted) {
        metadata_adopt(t);
        if (!t->adopted) {
            return;
        }
    }
    if (t->wanted) {
        return; /* A request is out, or the timer brings the next. */
    }
    t->wanted = true;
    struct ferry_client *c = t->client;
    int64_t now_us = clock_monotonic_us();
    int64_t soonest_us = t->fetched_us + route_pause_us(c, t->hunts + 1);
    if (t->fetched_us == 0 || now_us >= soonest_us) {
        ask(t);
    } else {
        timer_set_sooner(&c->timers, &t->timer, soonest_us);
    }
}

void metadata_age(struct topic *t, int64_t now_us)
{
    if (t->known && now_us - t->fetched_us > t->client->options.metadata_max_age_ms * 1000) {
        metadata_want(t);
    }
}

static void on_timer(struct timer *timer)
{
    struct topic *t = list_entry(timer, struct topic, timer);
    int64_t now_us = clock_monotonic_us();
    t->deadline_us = accumulator_expire_staged(t, now_us);
    if (t->deadline_us != INT64_MAX) {
        timer_set_sooner(&t->client->timers, &t->timer, t->deadline_us);
    }
    if (t->wanted && request_is_idle(&t->request)) {
        ask(t);
    }
}

/* ---- Answers. */

static struct partition *partition_new(struct topic *t, int32_t index)
{
    struct partition *p = mem_zalloc(1, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    p->topic = t;
    p->index = index;
    if (!stream_init(p)) {
        mem_free(p);
        return NULL;
    }
    return p;
}

/* A new array with the old partitions in front. */
static enum ferry_err grow_partitions(struct topic *t, const struct metadata_reply *m)
{
    int32_t count = (int32_t)m->partition_count;
    if (count <= t->partition_count) {
        return FERRY_OK;
    }
    struct partition **grown = mem_zalloc((size_t)count, sizeof(struct partition *));
    if (grown == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < t->partition_count; i++) {
        grown[i] = t->partitions[i];
    }
    for (int32_t i = t->partition_count; i < count; i++) {
        grown[i] = partition_new(t, i);
        if (grown[i] == NULL) {
            for (int32_t made = t->partition_count; made < i; made++) {
                stream_fini(grown[made]);
                mem_free(grown[made]);
            }
            mem_free(grown);
            return FERRY_ERR_NO_MEMORY;
        }
        grown[i]->group = m->partitions[i].group;
    }
    pthread_mutex_lock(&t->client->lock);
    struct partition **old = t->partitions;
    t->partitions = grown;
    t->partition_count = count;
    pthread_mutex_unlock(&t->client->lock);
    mem_free(old);
    return FERRY_OK;
}

static void publish(struct topic *t, const struct metadata_reply *m)
{
    pthread_mutex_lock(&t->client->lock);
    t->id = m->topic_id;
    t->replicas = m->replicas;
    t->retention_ms = m->retention_ms;
    t->retention_acked = m->retention_acked;
    t->retention_bytes = m->retention_bytes;
    t->dedupe_window_ms = m->dedupe_window_ms;
    if (t->of_dead) {
        memcpy(t->dead_of, m->dead_of.data, m->dead_of.size);
        t->dead_of[m->dead_of.size] = '\0';
    }
    pthread_mutex_unlock(&t->client->lock);
}

/* The topic is gone or not for us: what is sent from now on is staged and asked about anew. */
static void forget(struct topic *t)
{
    pthread_mutex_lock(&t->client->lock);
    t->known = false;
    pthread_mutex_unlock(&t->client->lock);
}

void partition_set_leader(struct partition *p, struct connection *leader)
{
    p->leader = leader;
    if (leader == NULL || leader == p->before) {
        return;
    }
    if (p->before != NULL) {
        p->moved_us = clock_monotonic_us();
        stream_moved(p);
    }
    p->before = leader;
}

bool partition_follow(struct partition *p, struct bytes hint)
{
    struct connection *k = route_hint(p->topic->client, hint);
    if (k == NULL || k == p->leader || p->hops >= ROUTE_HOPS_MAX) {
        return false;
    }
    p->hops++;
    partition_set_leader(p, k);
    return true;
}

/* True when a partition is said to be led by who has just been asked in vain. So speaks a broker
 * that is cut off from the others and still reached by us: somebody else is asked next. */
static bool set_leaders(struct topic *t, const struct metadata_reply *m)
{
    struct connection *found[ENDPOINTS_MAX] = {NULL};
    bool in_vain = false;
    for (int32_t i = 0; i < t->partition_count && (uint32_t)i < m->partition_count; i++) {
        struct partition *p = t->partitions[i];
        uint32_t e = m->partitions[i].endpoint;
        if (e < m->endpoint_count && found[e] == NULL) {
            (void)!connection_get(t->client, m->endpoints[e].endpoint, &found[e], NULL);
        }
        if (p->leader == NULL && p->before != NULL && e < m->endpoint_count) {
            in_vain = in_vain || found[e] == p->before;
        }
        partition_set_leader(p, e < m->endpoint_count ? found[e] : NULL);
        if (p->group != m->partitions[i].group) {
            p->group = m->partitions[i].group;
            stream_regroup(p);
        }
    }
    return in_vain;
}

/* Groups are numbered upwards, so a reply with lower ones is of a topic that was, told by a broker
 * that is behind. */
static bool is_outdated(const struct topic *t, const struct metadata_reply *m)
{
    for (int32_t i = 0; i < t->partition_count && (uint32_t)i < m->partition_count; i++) {
        if (m->partitions[i].group < t->partitions[i]->group) {
            return true;
        }
    }
    return false;
}

static enum ferry_err take_answer(struct topic *t, const struct reply *reply)
{
    struct metadata_reply m;
    if (reply->err != FERRY_OK) {
        return reply->err;
    }
    if (metadata_reply_decode(reply->frame.body, &m) != FERRY_OK || m.partition_count == 0 ||
        m.endpoint_count == 0 || t->of_dead != (m.dead_of.size > 0)) {
        t->client->bad_replies++;
        return FERRY_ERR_NOT_READY; /* Not an answer: asked again. */
    }
    if (is_outdated(t, &m)) {
        return FERRY_ERR_NOT_READY;
    }
    enum ferry_err err = grow_partitions(t, &m);
    if (err != FERRY_OK) {
        return err;
    }
    route_learn(t->client, &m);
    t->in_vain = set_leaders(t, &m);
    publish(t, &m);
    return FERRY_OK;
}

/* Everyone who waited goes on; each asks again where the answer was none. */
static void tell_all(struct topic *t)
{
    if (t->err == FERRY_OK) {
        accumulator_unstage(t);
    } else {
        accumulator_fail_staged(t, t->err);
    }
    struct list calls;
    list_init(&calls);
    struct list *node;
    while ((node = list_pop_front(&t->calls)) != NULL) {
        list_push_back(&calls, node);
    }
    while ((node = list_pop_front(&calls)) != NULL) {
        call_resume(list_entry(node, struct call, node));
    }
    for (int32_t i = 0; i < t->partition_count; i++) {
        stream_pump(t->partitions[i]);
    }
    calls_metadata_changed(t);
    consumers_metadata_changed(t);
    receivers_metadata_changed(t);
    sources_metadata_changed(t);
}

/* Whether a broker that may be behind says that there is no such topic. */
static bool is_doubted(struct topic *t, const struct reply *reply)
{
    if (reply->err != FERRY_ERR_UNKNOWN_TOPIC || t->asked == t->client->controller) {
        t->denials = 0;
        return false;
    }
    t->denials++;
    return t->denials < METADATA_DENIALS;
}

/* Whether the last answer leads nowhere, as far as is known. */
static bool leads_nowhere(const struct topic *t)
{
    if (t->in_vain) {
        return true;
    }
    for (int32_t i = 0; i < t->partition_count; i++) {
        if (t->partitions[i]->leader != NULL && t->partitions[i]->leader->suspect) {
            return true;
        }
    }
    return false;
}

static void on_reply(struct request *r, const struct reply *reply)
{
    struct topic *t = list_entry(r, struct topic, request);
    enum ferry_err err = take_answer(t, reply);
    if (is_doubted(t, reply) || (err != FERRY_OK && ferry_err_is_retriable(err))) {
        t->err = ferry_err_is_retriable(err) ? err : FERRY_ERR_NOT_READY;
        if (err == FERRY_ERR_NOT_LEADER) {
            t->hinted = route_hint(t->client, reply->detail);
        }
        if (t->hinted != NULL && t->attempts <= ROUTE_HOPS_MAX) {
            ask(t);
        } else {
            ask_later(t);
        }
        return;
    }
    t->wanted = false;
    t->attempts = 0;
    t->denials = 0;
    t->err = err;
    if (err != FERRY_ERR_CLOSED) { /* Connections go one by one: leaders may be gone. */
        t->hunts = leads_nowhere(t) ? t->hunts + 1 : 0;
    }
    if (err != FERRY_OK) {
        forget(t);
    }
    t->fetched_us = clock_monotonic_us();
    if (err != FERRY_ERR_CLOSED) {
        tell_all(t);
    }
}

/* ---- Silence. */

static bool is_waited_for(const struct topic *t, const struct connection *k)
{
    for (int32_t i = 0; i < t->partition_count; i++) {
        const struct partition *p = t->partitions[i];
        if (p->leader == k && !list_is_empty(&p->stream.sent)) {
            return true;
        }
    }
    return false;
}

static void look_elsewhere(struct topic *t, const struct connection *k)
{
    if (t->request.connection == k && route_has_other(t->client, k)) {
        request_cancel(&t->request);
        ask(t);
    }
    if (is_waited_for(t, k)) {
        metadata_want(t);
    }
}

void metadata_suspect(struct ferry_client *c, const struct connection *k)
{
    for (size_t i = 0; i < CLIENT_TOPIC_BUCKETS; i++) {
        pthread_mutex_lock(&c->lock);
        struct list *n = c->buckets[i].next;
        pthread_mutex_unlock(&c->lock);
        while (n != &c->buckets[i]) {
            struct topic *t = list_entry(n, struct topic, bucket);
            look_elsewhere(t, k);
            pthread_mutex_lock(&c->lock);
            n = n->next;
            pthread_mutex_unlock(&c->lock);
        }
    }
}

/* ---- For callers that wait. */

static void encode_partition_info(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    struct partition_info_request request = {.group = group};
    partition_info_request_encode(b, &request);
}

static void forget_metadata(struct ferry_client *c, void *arg)
{
    struct topic *t = arg;
    (void)c;
    if (t->partition_count > 0) {
        t->partitions[0]->leader = NULL;
    }
}

void topic_forget_leader(struct topic *t)
{
    client_run_task(t->client, forget_metadata, t);
}

enum ferry_err topic_await(struct topic *t, bool fresh, int timeout_ms)
{
    struct call call;
    if (fresh) {
        topic_forget_leader(t);
    }
    /* A question to partition 0 is answered once the topic is known; any leader's answer will do.
     */
    call_init(&call, COMMAND_PARTITION_INFO, ROUTE_PARTITION, encode_partition_info, NULL,
              timeout_ms);
    call_to_partition(&call, t, 0);
    enum ferry_err err = call_run_one(t->client, &call);
    call_fini(&call);
    return err;
}
