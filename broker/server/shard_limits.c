/* What one client and one topic may take of this shard: quotas by the second, and bytes of messages
 * that have no answer yet. */
#include "base/checksum.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

/* Buckets of a shard; the one that was not used for longest goes when there are more. */
#define QUOTA_BUCKETS_MAX 16384u
#define SECOND_NS         1000000000
#define BACKLOG_MAX_NS    (INT64_MAX / 4)

/* A bucket holds what a second gives, and is kept as the time that filling it up would take: full
 * at 0, empty at a second, in debt beyond. Integers, and the same for every rate. */
struct quota_bucket {
    struct list node; /* In the shard's, the one used last at the end. */
    uint64_t hash;
    const struct meta_quota *row; /* That counts for it; one of the shard's. */
    int64_t at_us;                /* When the backlogs were so: */
    int64_t bytes_ns, messages_ns, requests_ns;
    char client[NAME_MAX_BYTES + 1];
    char topic[NAME_MAX_BYTES + 1];
};

/* ---- The rows ---- */

static int compare_row(const struct meta_quota *q, const char *client, const char *topic)
{
    int order = strcmp(q->client, client);
    return order != 0 ? order : strcmp(q->topic, topic);
}

static const struct meta_quota *find_row(const struct shard *s, const char *client,
                                         const char *topic)
{
    size_t low = 0, high = s->quota_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_row(&s->quotas[middle], client, topic);
        if (order == 0) {
            return &s->quotas[middle];
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return NULL;
}

/* The most specific one. */
static const struct meta_quota *row_for(const struct shard *s, const char *client,
                                        const char *topic)
{
    const char *const names[][2] = {{client, topic}, {client, ""}, {"", topic}, {"", ""}};
    const struct meta_quota *row = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && row == NULL; i++) {
        row = find_row(s, names[i][0], names[i][1]);
    }
    return row;
}

static void free_bucket(struct shard *s, struct quota_bucket *b)
{
    list_remove(&b->node);
    map_remove(&s->quota_buckets, b->hash, b);
    mem_free(b);
}

static bool same_rates(const struct meta_quota *a, const struct meta_quota *b)
{
    return a->bytes_per_second == b->bytes_per_second &&
           a->messages_per_second == b->messages_per_second &&
           a->requests_per_second == b->requests_per_second;
}

/* Debts are times at the rate of then: where the rate is another one now, they are forgiven. The
 * rows of before are still there. */
static void bind_again(struct shard *s)
{
    for (struct list *n = s->quota_uses.next; n != &s->quota_uses;) {
        struct quota_bucket *b = list_entry(n, struct quota_bucket, node);
        n = n->next;
        const struct meta_quota *before = b->row;
        b->row = row_for(s, b->client, b->topic);
        if (b->row == NULL) {
            free_bucket(s, b);
        } else if (!same_rates(before, b->row)) {
            b->bytes_ns = b->messages_ns = b->requests_ns = 0;
        }
    }
}

void shard_take_quotas(struct shard *s, struct bytes rows)
{
    struct meta_quota *quotas = NULL;
    must(rows.size % sizeof(*quotas) == 0);
    if (rows.size > 0) {
        quotas = mem_dup(rows.data, rows.size);
        if (quotas == NULL) {
            log_line(LOG_WARN, "shard", "no memory for the new quotas: those before still count");
            return;
        }
    }
    struct meta_quota *before = s->quotas;
    s->quotas = quotas;
    s->quota_count = rows.size / sizeof(*quotas);
    bind_again(s);
    mem_free(before);
}

void shard_forget_quotas(struct shard *s)
{
    while (!list_is_empty(&s->quota_uses)) {
        free_bucket(s, list_entry(s->quota_uses.next, struct quota_bucket, node));
    }
    map_fini(&s->quota_buckets);
    mem_free(s->quotas);
    s->quotas = NULL;
    s->quota_count = 0;
}

/* ---- Buckets ---- */

struct bucket_key {
    const char *client, *topic;
};

static bool bucket_has_key(const void *item, const void *key)
{
    const struct quota_bucket *b = item;
    const struct bucket_key *k = key;
    return strcmp(b->client, k->client) == 0 && strcmp(b->topic, k->topic) == 0;
}

static struct quota_bucket *add_bucket(struct shard *s, const struct bucket_key *key, uint64_t hash,
                                       const struct meta_quota *row)
{
    if (s->quota_buckets.count >= QUOTA_BUCKETS_MAX) {
        free_bucket(s, list_entry(s->quota_uses.next, struct quota_bucket, node));
    }
    struct quota_bucket *b = mem_zalloc(1, sizeof(*b));
    if (b == NULL || !map_add(&s->quota_buckets, hash, b)) {
        mem_free(b);
        return NULL;
    }
    list_init(&b->node);
    list_push_back(&s->quota_uses, &b->node);
    b->hash = hash;
    b->row = row;
    b->at_us = s->now_us;
    memcpy(b->client, key->client, strlen(key->client));
    memcpy(b->topic, key->topic, strlen(key->topic));
    return b;
}

static int64_t after_a_while(int64_t backlog_ns, int64_t passed_us)
{
    return passed_us < backlog_ns / 1000 ? backlog_ns - passed_us * 1000 : 0;
}

static void let_time_pass(struct shard *s, struct quota_bucket *b)
{
    int64_t passed_us = s->now_us - b->at_us;
    b->at_us = s->now_us;
    b->bytes_ns = after_a_while(b->bytes_ns, passed_us);
    b->messages_ns = after_a_while(b->messages_ns, passed_us);
    b->requests_ns = after_a_while(b->requests_ns, passed_us);
    list_remove(&b->node);
    list_push_back(&s->quota_uses, &b->node);
}

/* NULL: nothing limits them. Where there is no memory for a bucket nothing does, either: it is for
 * fairness, and that is not the time to refuse who does no harm. */
static struct quota_bucket *bucket_of(struct shard *s, const struct request *r, const char *topic)
{
    if (s->quota_count == 0) {
        return NULL;
    }
    struct bucket_key key = {.client = shard_client_name(s, r), .topic = topic};
    uint64_t hash = checksum_of(key.client, strlen(key.client)) ^
                    map_hash_u64(checksum_of(topic, strlen(topic)));
    struct quota_bucket *b = map_find(&s->quota_buckets, hash, bucket_has_key, &key);
    if (b == NULL) {
        const struct meta_quota *row = row_for(s, key.client, topic);
        b = row != NULL ? add_bucket(s, &key, hash, row) : NULL;
    }
    if (b != NULL) {
        let_time_pass(s, b);
    }
    return b;
}

/* What so much takes of a bucket that `rate` a second fills; 0: no limit. */
static int64_t time_of(uint64_t amount, uint64_t rate)
{
    if (rate == 0 || amount == 0) {
        return 0;
    }
    must(amount <= UINT64_MAX / SECOND_NS);
    uint64_t ns = amount * SECOND_NS / rate;
    return (int64_t)ns + (amount * SECOND_NS % rate != 0 ? 1 : 0);
}

/* How long it takes until the bucket holds so much; more than it ever holds is let in when it is
 * full, and makes a debt. */
static int64_t wait_for(int64_t backlog_ns, uint64_t amount, uint64_t rate)
{
    int64_t wanted = time_of(amount, rate);
    wanted = wanted < SECOND_NS ? wanted : SECOND_NS;
    return wanted > 0 ? backlog_ns + wanted - SECOND_NS : 0;
}

static void add(int64_t *backlog_ns, uint64_t amount, uint64_t rate)
{
    int64_t more = time_of(amount, rate);
    *backlog_ns = more < BACKLOG_MAX_NS - *backlog_ns ? *backlog_ns + more : BACKLOG_MAX_NS;
}

void shard_charge_quota(struct shard *s, const struct request *r, const char *topic,
                        const struct quota_cost *cost)
{
    struct quota_bucket *b = bucket_of(s, r, topic);
    if (b != NULL) {
        add(&b->bytes_ns, cost->bytes, b->row->bytes_per_second);
        add(&b->messages_ns, cost->messages, b->row->messages_per_second);
        add(&b->requests_ns, cost->requests, b->row->requests_per_second);
    }
}

static uint32_t in_ms(int64_t ns)
{
    int64_t ms = ns / 1000000 + (ns % 1000000 != 0 ? 1 : 0);
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

static void refuse(struct shard *s, struct request *r, const struct quota_bucket *b,
                   const char *what, uint64_t rate, int64_t wait_ns)
{
    struct err_text e;
    (void)err_set(&e, FERRY_ERR_THROTTLED, "quota: %llu %s a second for client '%s' on topic '%s'",
                  (unsigned long long)rate, what, b->client, b->topic);
    s->counters.throttled_by_quota++;
    shard_reply_later(s, r, FERRY_ERR_THROTTLED, e.text, in_ms(wait_ns));
}

bool shard_is_over_quota(struct shard *s, struct request *r, const char *topic,
                         const struct quota_cost *cost)
{
    const struct quota_bucket *b = bucket_of(s, r, topic);
    if (b == NULL) {
        return false;
    }
    const struct meta_quota *q = b->row;
    int64_t bytes = wait_for(b->bytes_ns, cost->bytes, q->bytes_per_second);
    int64_t messages = wait_for(b->messages_ns, cost->messages, q->messages_per_second);
    int64_t requests = wait_for(b->requests_ns, cost->requests, q->requests_per_second);
    if (bytes <= 0 && messages <= 0 && requests <= 0) {
        return false;
    }
    if (bytes >= messages && bytes >= requests) {
        refuse(s, r, b, "bytes", q->bytes_per_second, bytes);
    } else if (messages >= requests) {
        refuse(s, r, b, "messages", q->messages_per_second, messages);
    } else {
        refuse(s, r, b, "requests", q->requests_per_second, requests);
    }
    return true;
}

bool shard_is_topic_over_quota(struct shard *s, struct request *r, uint64_t group,
                               const struct quota_cost *least, const struct seat **last)
{
    const struct quota_cost one = {.requests = 1};
    const struct seat *seat = shard_find_seat(s, group);
    if (seat == NULL || (*last != NULL && id_equal(&(*last)->topic_id, &seat->topic_id))) {
        return false;
    }
    if (shard_is_over_quota(s, r, seat->topic, least)) {
        return true;
    }
    shard_charge_quota(s, r, seat->topic, &one);
    *last = seat;
    return false;
}

/* ---- Bytes of a topic without an answer ---- */

struct topic_load {
    struct ferry_id topic_id;
    uint64_t bytes;
};

static uint64_t hash_of_topic(const struct ferry_id *id)
{
    return checksum_of(id->bytes, sizeof(id->bytes));
}

static bool load_has_topic(const void *item, const void *key)
{
    return id_equal(&((const struct topic_load *)item)->topic_id, key);
}

enum ferry_err shard_take_credit(struct shard *s, struct request *r, const struct seat *seat,
                                 size_t bytes, struct err_text *e)
{
    const struct ferry_id *id = &seat->topic_id;
    uint64_t limit = (uint64_t)s->config.options->topic_inflight_bytes;
    must(r->credit_bytes == 0);
    if (bytes == 0) {
        return FERRY_OK;
    }
    struct topic_load *load = map_find(&s->topic_loads, hash_of_topic(id), load_has_topic, id);
    if (load != NULL && load->bytes + bytes > limit) {
        return err_set(e, FERRY_ERR_THROTTLED,
                       "limit.topic_inflight_bytes: %llu bytes for topic '%s' have no answer yet",
                       (unsigned long long)load->bytes, seat->topic);
    }
    if (load == NULL) { /* The first is let in, however large it is. */
        load = mem_zalloc(1, sizeof(*load));
        if (load == NULL || !map_add(&s->topic_loads, hash_of_topic(id), load)) {
            mem_free(load);
            return FERRY_ERR_NO_MEMORY;
        }
        load->topic_id = *id;
    }
    load->bytes += bytes;
    r->credit_bytes = bytes;
    r->credit_topic = *id;
    return FERRY_OK;
}

void shard_give_credit_back(struct shard *s, struct request *r)
{
    if (r->credit_bytes == 0) {
        return;
    }
    uint64_t hash = hash_of_topic(&r->credit_topic);
    struct topic_load *load = map_find(&s->topic_loads, hash, load_has_topic, &r->credit_topic);
    must(load != NULL && load->bytes >= r->credit_bytes);
    load->bytes -= r->credit_bytes;
    r->credit_bytes = 0;
    if (load->bytes == 0) {
        map_remove(&s->topic_loads, hash, load);
        mem_free(load);
    }
}
