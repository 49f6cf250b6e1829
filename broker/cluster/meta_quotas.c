/* Quotas: what one client may do to one topic in a second. Kept here, enforced by the shards. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

/* ---- In memory: sorted by client, then topic ---- */

static int compare_text(const char *a, struct bytes b)
{
    size_t length = strlen(a);
    size_t common = length < b.size ? length : b.size;
    int order = common > 0 ? memcmp(a, b.data, common) : 0;
    if (order != 0) {
        return order;
    }
    return length < b.size ? -1 : length > b.size;
}

static int compare(const struct meta_quota *q, struct bytes client, struct bytes topic)
{
    int order = compare_text(q->client, client);
    return order != 0 ? order : compare_text(q->topic, topic);
}

static size_t lower_bound(const struct meta *m, struct bytes client, struct bytes topic)
{
    size_t low = 0, high = m->quota_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&m->quotas[middle].quota, client, topic) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_at(const struct meta *m, size_t at, struct bytes client, struct bytes topic)
{
    return at < m->quota_count && compare(&m->quotas[at].quota, client, topic) == 0;
}

size_t meta_quota_after(const struct meta *m, struct bytes client, struct bytes topic)
{
    size_t at = lower_bound(m, client, topic);
    return is_at(m, at, client, topic) ? at + 1 : at;
}

const struct meta_quota *meta_quota_at(const struct meta *m, size_t i)
{
    return i < m->quota_count ? &m->quotas[i].quota : NULL;
}

static bool limits_nothing(const struct quota *q)
{
    return q->bytes_per_second == 0 && q->messages_per_second == 0 && q->requests_per_second == 0;
}

/* Finds its place, or makes it. */
static enum ferry_err reserve(struct meta *m, const struct quota *q, struct quota_row **row)
{
    size_t at = lower_bound(m, q->client, q->topic);
    if (!is_at(m, at, q->client, q->topic)) {
        if (m->quota_count >= QUOTAS_MAX) {
            return FERRY_ERR_LIMIT_REACHED;
        }
        if (!mem_grow((void **)&m->quotas, &m->quota_capacity, m->quota_count + 1,
                      sizeof(*m->quotas))) {
            return FERRY_ERR_NO_MEMORY;
        }
        memmove(m->quotas + at + 1, m->quotas + at, (m->quota_count - at) * sizeof(*m->quotas));
        m->quota_count++;
        m->quotas[at] = (struct quota_row){0};
        meta_take_text(m->quotas[at].quota.client, q->client);
        meta_take_text(m->quotas[at].quota.topic, q->topic);
    }
    *row = &m->quotas[at];
    return FERRY_OK;
}

enum ferry_err meta_quota_put(struct meta *m, const struct quota *q, bool dirty)
{
    struct quota_row *row = NULL;
    enum ferry_err err = reserve(m, q, &row);
    if (err != FERRY_OK) {
        return err;
    }
    row->quota.bytes_per_second = q->bytes_per_second;
    row->quota.messages_per_second = q->messages_per_second;
    row->quota.requests_per_second = q->requests_per_second;
    row->dirty = dirty;
    return FERRY_OK;
}

static enum ferry_err drop(struct meta *m, const struct quota *q)
{
    size_t at = lower_bound(m, q->client, q->topic);
    if (!is_at(m, at, q->client, q->topic)) {
        return FERRY_OK;
    }
    struct buf key;
    meta_quota_key(&m->quotas[at].quota, &key);
    enum ferry_err err =
        buf_ok(&key) ? meta_kill_row(m, META_TABLE_QUOTAS, buf_bytes(&key)) : FERRY_ERR_NO_MEMORY;
    buf_fini(&key);
    if (err == FERRY_OK) {
        m->quota_count--;
        memmove(m->quotas + at, m->quotas + at + 1, (m->quota_count - at) * sizeof(*m->quotas));
    }
    return err;
}

void meta_quotas_free(struct meta *m)
{
    mem_free(m->quotas);
    m->quotas = NULL;
    m->quota_count = m->quota_capacity = 0;
}

void meta_quotas_check(const struct meta *m)
{
    must(m->quota_count <= QUOTAS_MAX);
    for (size_t i = 1; i < m->quota_count; i++) {
        const struct meta_quota *q = &m->quotas[i].quota;
        must(compare(&m->quotas[i - 1].quota, bytes_of_string(q->client),
                     bytes_of_string(q->topic)) < 0);
    }
}

/* ---- Rows: the length of the client's name keeps the two apart ---- */

void meta_quota_key(const struct meta_quota *q, struct buf *key)
{
    buf_init(key, META_QUOTA_KEY_MAX_BYTES);
    buf_append_u8(key, (uint8_t)strlen(q->client));
    buf_append_bytes(key, bytes_of_string(q->client));
    buf_append_bytes(key, bytes_of_string(q->topic));
}

bool meta_quota_of_key(struct bytes key, struct quota *q)
{
    if (key.size < 1 || key.size - 1 < key.data[0] || key.data[0] > NAME_MAX_BYTES ||
        key.size - 1 - key.data[0] > NAME_MAX_BYTES) {
        return false;
    }
    q->client = bytes_of(key.data + 1, key.data[0]);
    q->topic = bytes_of(key.data + 1 + key.data[0], key.size - 1 - key.data[0]);
    return true;
}

/* ---- Requests and entries ---- */

/* A client's name is what HELLO said, which may be any text. */
static bool is_text(struct bytes name)
{
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] < ' ') {
            return false;
        }
    }
    return name.size <= NAME_MAX_BYTES;
}

enum ferry_err meta_quota_set(struct meta *m, const struct quota *q, int64_t now_ms, int64_t now_us,
                              struct meta_ticket *t, struct err_text *e)
{
    if (!is_text(q->client) || (q->topic.size > 0 && !name_is_valid(q->topic))) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    size_t at = lower_bound(m, q->client, q->topic);
    if (m->quota_count >= QUOTAS_MAX && !is_at(m, at, q->client, q->topic) && !limits_nothing(q)) {
        return err_set(e, FERRY_ERR_LIMIT_REACHED, "there are %u quotas already", QUOTAS_MAX);
    }
    pack_array(&t->payload, 6);
    pack_uint(&t->payload, META_QUOTA_SET);
    pack_str(&t->payload, q->client);
    pack_str(&t->payload, q->topic);
    pack_uint(&t->payload, q->bytes_per_second);
    pack_uint(&t->payload, q->messages_per_second);
    pack_uint(&t->payload, q->requests_per_second);
    return meta_propose(m, t, now_ms, now_us);
}

enum ferry_err meta_apply_quota(struct meta *m, struct unpack *u)
{
    struct quota q = {.client = unpack_str(u, NAME_MAX_BYTES),
                      .topic = unpack_str(u, NAME_MAX_BYTES)};
    q.bytes_per_second = unpack_uint(u, UINT64_MAX);
    q.messages_per_second = unpack_uint(u, UINT64_MAX);
    q.requests_per_second = unpack_uint(u, UINT64_MAX);
    if (unpack_end(u) != FERRY_OK || !is_text(q.client) || !is_text(q.topic)) {
        return FERRY_ERR_CORRUPT;
    }
    enum ferry_err err = limits_nothing(&q) ? drop(m, &q) : meta_quota_put(m, &q, true);
    if (err == FERRY_ERR_LIMIT_REACHED) {
        return meta_refuse(m, err); /* Several were under way. */
    }
    return err == FERRY_OK ? meta_push_change(m, META_QUOTAS_CHANGED, NULL, 0, 0) : err;
}
