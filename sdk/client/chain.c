/* chain: the io thread's half of a source. Declared in source.h. */
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/source.h"

#define MISPLACED_MAX 20u /* As of streams: metadata may be behind for some moments. */

static void pump(struct chain *chain);

static void on_timer(struct timer *timer)
{
    pump(list_entry(timer, struct chain, timer));
}

static struct chain *chain_for(const struct append *a)
{
    struct ferry_client *c = a->client;
    for (struct list *n = c->chains.next; n != &c->chains; n = n->next) {
        struct chain *chain = list_entry(n, struct chain, node);
        if (chain->source == a->source && chain->topic == a->topic &&
            chain->partition == a->partition) {
            return chain;
        }
    }
    struct chain *chain = mem_zalloc(1, sizeof(*chain));
    if (chain == NULL) {
        return NULL;
    }
    if (!timer_add(&c->timers, &chain->timer, on_timer)) {
        mem_free(chain);
        return NULL;
    }
    chain->client = c;
    chain->source = a->source;
    chain->topic = a->topic;
    chain->partition = a->partition;
    list_init(&chain->node);
    list_init(&chain->appends);
    list_push_front(&c->chains, &chain->node);
    return chain;
}

/* ---- Ends. */

void append_free(struct append *a)
{
    request_fini(&a->request);
    batch_writer_fini(&a->writer);
    mem_free(a);
}

static void end(struct append *a, enum ferry_err err)
{
    struct ferry_client *c = a->client;
    if (a->out) {
        must(a->chain != NULL);
        a->out = false;
        a->chain->in_flight--;
    }
    request_cancel(&a->request);
    list_remove(&a->node);
    a->chain = NULL;
    a->result.err = err;
    if (err != FERRY_OK && a->detail.text[0] == '\0') {
        (void)err_set(&a->detail, err, "%s", ferry_err_text(err));
    }
    a->result.detail = a->detail.text;
    pthread_mutex_lock(&c->lock);
    due_push(c, &a->due);
    pthread_mutex_unlock(&c->lock);
}

static void end_all(struct chain *chain, enum ferry_err err)
{
    while (!list_is_empty(&chain->appends)) {
        end(list_entry(chain->appends.next, struct append, node), err);
    }
}

void chains_close(struct ferry_client *c, const struct ferry_source *source)
{
    struct list *n = c->chains.next;
    while (n != &c->chains) {
        struct chain *chain = list_entry(n, struct chain, node);
        n = n->next;
        if (chain->source == source) {
            end_all(chain, FERRY_ERR_CLOSED);
            timer_drop(&c->timers, &chain->timer);
            list_remove(&chain->node);
            mem_free(chain);
        }
    }
}

/* ---- Sending. */

static void pause_chain(struct chain *chain, int64_t at_least_us)
{
    int64_t pause_us = client_backoff_us(chain->client, ++chain->attempts);
    chain->retry_at_us = clock_monotonic_us() + (pause_us > at_least_us ? pause_us : at_least_us);
}

/* A pause while it is not known who leads. */
static void pause_looking(struct chain *chain)
{
    chain->retry_at_us = clock_monotonic_us() + route_pause_us(chain->client, ++chain->attempts);
}

static bool put_on_wire(struct chain *chain, struct append *a, const struct partition *p)
{
    struct request *r = &a->request;
    if (request_begin(r, p->leader, COMMAND_APPEND_CAS,
                      chain->client->options.request_timeout_ms) != FERRY_OK) {
        pause_chain(chain, 0);
        return false;
    }
    struct append_cas_request request = {.group = p->group,
                                         .source = a->source_id,
                                         .lane = a->lane,
                                         .epoch = a->epoch,
                                         .expect_version = a->expect_version,
                                         .cursor = bytes_of(a->cursor, a->cursor_bytes)};
    append_cas_request_encode(&r->frame, &request);
    frame_begin_attachment(&r->frame);
    buf_append_bytes(&r->frame, a->bytes);
    if (request_submit(r) != FERRY_OK) {
        pause_chain(chain, 0);
        return false;
    }
    a->out = true;
    chain->in_flight++;
    return true;
}

/* What waits for the answer of one that does not lead any more. */
static void withdraw_strays(struct chain *chain, const struct partition *p)
{
    for (struct list *n = chain->appends.next; n != &chain->appends; n = n->next) {
        struct append *a = list_entry(n, struct append, node);
        if (a->out && a->request.connection != p->leader) {
            request_cancel(&a->request);
            a->last_err = FERRY_ERR_TIMEOUT; /* It may have been stored. */
            a->out = false;
            chain->in_flight--;
        }
    }
}

static void send_in_order(struct chain *chain, const struct partition *p)
{
    bool again = false; /* One before it goes out again now. */
    for (struct list *n = chain->appends.next; n != &chain->appends; n = n->next) {
        struct append *a = list_entry(n, struct append, node);
        if (a->out) {
            continue;
        }
        bool oldest = n == chain->appends.next;
        bool unproven = a->last_err == FERRY_ERR_CURSOR_CONFLICT && !oldest && !again;
        if (unproven || chain->in_flight >= CHAIN_INFLIGHT_MAX || !put_on_wire(chain, a, p)) {
            return;
        }
        again = true;
    }
}

static void expire(struct chain *chain, int64_t now_us)
{
    while (!list_is_empty(&chain->appends)) {
        struct append *a = list_entry(chain->appends.next, struct append, node);
        if (a->deadline_us > now_us) {
            return;
        }
        end(a, a->last_err == FERRY_ERR_UNREACHABLE || a->last_err == FERRY_OK
                   ? FERRY_ERR_UNREACHABLE
                   : FERRY_ERR_TIMEOUT);
    }
}

/* The partition, when its leader is known. Ends the chain's appends when there is none such. */
static struct partition *find_leader(struct chain *chain)
{
    struct topic *t = chain->topic;
    if (t->known && chain->partition >= t->partition_count) {
        end_all(chain, FERRY_ERR_UNKNOWN_PARTITION);
        return NULL;
    }
    if (!t->known || t->partitions[chain->partition]->leader == NULL) {
        metadata_want(t);
        return NULL;
    }
    if (t->partitions[chain->partition]->leader->suspect) {
        metadata_want(t);
    }
    return t->partitions[chain->partition];
}

static void arm_timer(struct chain *chain)
{
    struct timers *timers = &chain->client->timers;
    if (list_is_empty(&chain->appends)) {
        timer_stop(timers, &chain->timer);
        return;
    }
    int64_t next_us = list_entry(chain->appends.next, struct append, node)->deadline_us;
    if (chain->retry_at_us != 0 && chain->retry_at_us < next_us) {
        next_us = chain->retry_at_us;
    }
    timer_set(timers, &chain->timer, next_us);
}

static void pump(struct chain *chain)
{
    int64_t now_us = clock_monotonic_us();
    expire(chain, now_us);
    if (chain->retry_at_us <= now_us && !list_is_empty(&chain->appends)) {
        chain->retry_at_us = 0;
        const struct partition *p = find_leader(chain);
        if (p != NULL) {
            withdraw_strays(chain, p);
            send_in_order(chain, p);
        }
    }
    arm_timer(chain);
}

void append_start(struct append *a)
{
    struct chain *chain = chain_for(a);
    a->chain = chain;
    if (chain == NULL) {
        end(a, FERRY_ERR_NO_MEMORY);
        return;
    }
    list_push_back(&chain->appends, &a->node);
    pump(chain);
}

void sources_metadata_changed(struct topic *t)
{
    struct list *n = t->client->chains.next;
    while (n != &t->client->chains) {
        struct chain *chain = list_entry(n, struct chain, node);
        n = n->next;
        if (chain->topic == t && t->err != FERRY_OK) {
            end_all(chain, t->err);
        }
        if (chain->topic == t) {
            pump(chain);
        }
    }
}

void sources_suspect(struct ferry_client *c)
{
    for (struct list *n = c->chains.next; n != &c->chains; n = n->next) {
        pump(list_entry(n, struct chain, node)); /* Looks for another leader. */
    }
}

/* ---- Answers. */

static bool take_refusal(struct append *a, const struct reply *reply)
{
    struct append_cas_refusal refusal;
    a->result.refused_index = SIZE_MAX;
    size_t size = reply->detail.size < ERR_TEXT_MAX - 1 ? reply->detail.size : ERR_TEXT_MAX - 1;
    (void)snprintf(a->detail.text, sizeof(a->detail.text), "%.*s", (int)size,
                   size > 0 ? (const char *)reply->detail.data : "");
    if (append_cas_refusal_decode(reply->frame.body, &refusal) != FERRY_OK) {
        return reply->err != FERRY_ERR_CURSOR_CONFLICT; /* Some refusals have no cursor. */
    }
    if (refusal.refused_index >= 0 && (uint64_t)refusal.refused_index < a->message_count) {
        a->result.refused_index = (size_t)refusal.refused_index;
    }
    if (refusal.cursor.size > FERRY_CURSOR_MAX_BYTES) {
        return false;
    }
    a->conflict.version = refusal.version;
    a->conflict.epoch = refusal.epoch;
    a->conflict.blob_bytes = refusal.cursor.size;
    if (refusal.cursor.size > 0) {
        memcpy(a->conflict.blob, refusal.cursor.data, refusal.cursor.size);
    }
    a->result.version = refusal.version;
    a->result.cursor = reply->err == FERRY_ERR_CURSOR_CONFLICT ? &a->conflict : NULL;
    return true;
}

static bool take_stored(struct append *a, const struct reply *reply)
{
    struct append_cas_reply stored;
    if (append_cas_reply_decode(reply->frame.body, &stored) != FERRY_OK) {
        return false;
    }
    a->result.version = stored.version;
    a->result.base_offset = stored.base_offset;
    a->chain->attempts = 0;
    a->chain->misplaced = 0;
    a->chain->topic->partitions[a->chain->partition]->hops = 0;
    end(a, FERRY_OK);
    return true;
}

static void on_retriable(struct append *a, const struct reply *reply)
{
    struct chain *chain = a->chain;
    bool busy = reply->err == FERRY_ERR_THROTTLED || reply->err == FERRY_ERR_STORAGE_FULL;
    struct topic *t = chain->topic;
    struct partition *p =
        chain->partition < t->partition_count ? t->partitions[chain->partition] : NULL;
    if (p != NULL && reply->err == FERRY_ERR_NOT_LEADER && partition_follow(p, reply->detail)) {
        chain->retry_at_us = 0;
        return;
    }
    if (!busy && p != NULL) {
        p->leader = NULL;
    }
    if (busy) {
        pause_chain(chain, (int64_t)reply->retry_after_ms * 1000);
    } else if (chain->retry_at_us == 0) {
        pause_looking(chain);
    }
}

static void on_refused(struct append *a, const struct reply *reply)
{
    struct chain *chain = a->chain;
    bool oldest = chain->appends.next == &a->node;
    a->last_err = reply->err;
    bool misplaced =
        reply->err == FERRY_ERR_UNKNOWN_TOPIC || reply->err == FERRY_ERR_UNKNOWN_PARTITION;
    bool broken = reply->err == FERRY_ERR_STORE_FAILED || reply->err == FERRY_ERR_IO;
    if (!take_refusal(a, reply)) {
        chain->client->bad_replies++;
        pause_chain(chain, 0);
    } else if (reply->err == FERRY_ERR_CURSOR_CONFLICT) {
        if (oldest) {
            end(a, FERRY_ERR_CURSOR_CONFLICT);
        }
    } else if (ferry_err_is_retriable(reply->err) || broken ||
               (misplaced && ++chain->misplaced <= MISPLACED_MAX)) {
        on_retriable(a, reply);
    } else {
        end(a, reply->err);
    }
}

void append_on_reply(struct request *r, const struct reply *reply)
{
    struct append *a = list_entry(r, struct append, request);
    struct chain *chain = a->chain;
    a->out = false;
    chain->in_flight--;
    if (reply->err == FERRY_OK) {
        if (!take_stored(a, reply)) {
            chain->client->bad_replies++;
            a->last_err = FERRY_ERR_TIMEOUT;
            pause_chain(chain, 0);
        }
    } else if (reply->answered) {
        on_refused(a, reply);
    } else {
        a->last_err = reply->written ? FERRY_ERR_TIMEOUT : reply->err;
        on_retriable(a, reply);
    }
    pump(chain);
}
