/* receiving: the io thread's half of a receiver: long polls and what they bring. Declared in
 * receiver.h. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/receiver.h"

#define RECEIVE_LEAST_BYTES (64 << 10) /* What a RECEIVE asks for however many there are. */
/* An answer that is given up costs its messages a lease: the broker has so much longer for it. */
#define GRACE_MS         5000
#define SCARCE_WAIT_MS   20   /* Of a poll while there is not credit for all endpoints. */
#define IDLE_SHARE       8u   /* An endpoint that had nothing is asked for so much less. */
#define MISSING_PAUSE_MS 1000 /* Of a partition that lacks the subscription. */

/* A RECEIVE. */
struct asking {
    struct request request;
    struct asker *asker;
    uint32_t messages; /* Asked for; 0: idle. */
    size_t bytes;
    int64_t began_us;
    int64_t wait_ms;
    uint32_t count;
    int32_t partitions[FETCH_ITEMS_MAX];
};

/* One receiver at one endpoint. */
struct asker {
    struct list node;
    struct ferry_receiver *receiver;
    struct connection *connection;
    bool productive; /* The last answer brought something. */
    struct asking askings[RECEIVES_OUT_MAX];
};

static void on_reply(struct request *request, const struct reply *reply);

static void on_timer(struct timer *timer)
{
    receiver_pump(list_entry(timer, struct ferry_receiver, timer));
}

enum ferry_err receiver_attach(struct ferry_receiver *r)
{
    struct ferry_client *c = r->client;
    if (!timer_add(&c->timers, &r->timer, on_timer)) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (!member_start(&r->member)) {
        timer_drop(&c->timers, &r->timer);
        return FERRY_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < r->partition_count; i++) {
        r->partitions[i].group = r->topic->partitions[i]->group;
    }
    list_push_back(&c->receivers, &r->node);
    receiver_pump(r);
    return FERRY_OK;
}

void receiver_detach(struct ferry_receiver *r)
{
    struct list *node;
    while ((node = list_pop_front(&r->askers)) != NULL) {
        struct asker *a = list_entry(node, struct asker, node);
        for (size_t i = 0; i < RECEIVES_OUT_MAX; i++) {
            request_fini(&a->askings[i].request);
        }
        mem_free(a);
    }
    settler_detach(r);
    member_stop(&r->member);
    timer_drop(&r->client->timers, &r->timer);
    list_remove(&r->node);
    pthread_mutex_lock(&r->client->lock);
    list_remove(&r->work_node);
    pthread_mutex_unlock(&r->client->lock);
}

static struct asker *asker_for(struct ferry_receiver *r, struct connection *k)
{
    for (struct list *n = r->askers.next; n != &r->askers; n = n->next) {
        struct asker *a = list_entry(n, struct asker, node);
        if (a->connection == k) {
            return a;
        }
    }
    struct asker *a = mem_zalloc(1, sizeof(*a));
    if (a == NULL) {
        return NULL;
    }
    a->receiver = r;
    a->connection = k;
    for (size_t i = 0; i < RECEIVES_OUT_MAX; i++) {
        a->askings[i].asker = a;
        request_init(&a->askings[i].request, on_reply);
    }
    list_init(&a->node);
    list_push_back(&r->askers, &a->node);
    r->asker_count++;
    return a;
}

/* With the lock: what it asked for is credit again. */
static void give_back_credit(struct asking *asking)
{
    struct ferry_receiver *r = asking->asker->receiver;
    must(r->asked >= asking->messages && r->asked_bytes >= asking->bytes);
    r->asked -= asking->messages;
    r->asked_bytes -= asking->bytes;
    asking->messages = 0;
    asking->bytes = 0;
}

/* The request is idle. */
static void end_asking(struct asking *asking)
{
    struct ferry_receiver *r = asking->asker->receiver;
    pthread_mutex_lock(&r->client->lock);
    give_back_credit(asking);
    must(r->receives_out > 0);
    r->receives_out--;
    if (r->stopping) {
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->client->lock);
    asking->count = 0;
}

/* ---- Asking. */

static size_t productive_askers(const struct ferry_receiver *r)
{
    size_t count = 0;
    for (struct list *n = r->askers.next; n != &r->askers; n = n->next) {
        count += list_entry(n, struct asker, node)->productive ? 1 : 0;
    }
    return count > 0 ? count : 1;
}

/* What one request may take of the credit. */
static uint32_t message_share(const struct ferry_receiver *r, const struct asker *a)
{
    uint32_t share = r->inflight_max / (uint32_t)(RECEIVES_OUT_MAX * productive_askers(r));
    share = share < r->batch_max ? share : r->batch_max;
    share = a->productive ? share : share / IDLE_SHARE;
    return share > 0 ? share : 1;
}

static size_t byte_share(const struct ferry_receiver *r)
{
    const struct client_options *o = &r->client->options;
    size_t share = (size_t)o->fetch_queue_bytes / (2 * RECEIVES_OUT_MAX * productive_askers(r));
    share = share < RECEIVE_LEAST_BYTES ? RECEIVE_LEAST_BYTES : share;
    return share < (size_t)o->fetch_max_bytes ? share : (size_t)o->fetch_max_bytes;
}

/* With the lock: how many messages to ask for now; 0: wait. While the application has something to
 * do, requests are worth their trouble; when it has nothing, whatever credit there is will do. */
static uint32_t wanted_messages(struct ferry_receiver *r, const struct asker *a, size_t bytes)
{
    size_t here = r->ready_bytes + r->asked_bytes;
    r->credit_wanted = 0;
    if (r->stopping || r->failed != FERRY_OK ||
        r->unanswered > (uint64_t)SETTLES_TIMES * r->inflight_max ||
        (here > 0 && here + bytes > (size_t)r->client->options.fetch_queue_bytes)) {
        return 0;
    }
    uint32_t credit = receiver_credit(r);
    uint32_t share = message_share(r, a);
    uint32_t least = r->ready_count > 0 ? share : 1;
    if (credit < least) {
        r->credit_wanted = least;
        return 0;
    }
    return credit < share ? credit : share;
}

static int64_t poll_ms(const struct ferry_receiver *r)
{
    int64_t wait_ms = r->client->options.fetch_max_wait_ms;
    int64_t lease_part_ms = r->usual_ms / 4; /* Leases are counted from when we asked. */
    wait_ms = wait_ms < lease_part_ms ? wait_ms : lease_part_ms;
    return r->inflight_max < r->asker_count && wait_ms > SCARCE_WAIT_MS ? SCARCE_WAIT_MS : wait_ms;
}

/* The partitions that the endpoint leads; each time from another one on. */
static void collect(struct asking *asking, int64_t now_us, int64_t *next_us)
{
    struct ferry_receiver *r = asking->asker->receiver;
    asking->count = 0;
    r->first_asked = (r->first_asked + 1) % r->partition_count;
    for (int32_t n = 0; n < r->partition_count && asking->count < FETCH_ITEMS_MAX; n++) {
        int32_t i = (r->first_asked + n) % r->partition_count;
        const struct receiver_partition *p = &r->partitions[i];
        if (r->topic->partitions[i]->leader != asking->asker->connection) {
            continue;
        }
        if (p->retry_at_us > now_us) {
            *next_us = p->retry_at_us < *next_us ? p->retry_at_us : *next_us;
            continue;
        }
        asking->partitions[asking->count++] = i;
    }
}

static enum ferry_err submit(struct asking *asking)
{
    struct asker *a = asking->asker;
    struct ferry_receiver *r = a->receiver;
    const struct client_options *o = &r->client->options;
    struct receive_request request = {.subscription = bytes_of_string(r->subscription),
                                      .member = bytes_of_string(r->name),
                                      .max_messages = asking->messages,
                                      .max_bytes = (uint32_t)asking->bytes,
                                      .max_wait_ms = (uint32_t)asking->wait_ms,
                                      .lease_ms = r->lease_ms,
                                      .count = asking->count};
    for (uint32_t i = 0; i < asking->count; i++) {
        request.items[i].group = r->topic->partitions[asking->partitions[i]]->group;
    }
    int64_t grace_ms = r->usual_ms / 2 < GRACE_MS ? r->usual_ms / 2 : GRACE_MS;
    enum ferry_err err = request_begin(&asking->request, a->connection, COMMAND_RECEIVE,
                                       o->request_timeout_ms + asking->wait_ms + grace_ms);
    if (err != FERRY_OK) {
        return err;
    }
    asking->request.patience_us = (asking->wait_ms + grace_ms) * 1000;
    receive_request_encode(&asking->request.frame, &request);
    return request_submit(&asking->request);
}

static void ask(struct asking *asking, int64_t now_us, int64_t *next_us)
{
    struct ferry_receiver *r = asking->asker->receiver;
    struct ferry_client *c = r->client;
    collect(asking, now_us, next_us);
    if (asking->count == 0) {
        return;
    }
    size_t bytes = byte_share(r);
    pthread_mutex_lock(&c->lock);
    uint32_t messages = wanted_messages(r, asking->asker, bytes);
    if (messages > 0) {
        r->asked += messages;
        r->asked_bytes += bytes;
        r->receives_out++;
    }
    pthread_mutex_unlock(&c->lock);
    if (messages == 0) {
        return;
    }
    asking->messages = messages;
    asking->bytes = bytes;
    asking->began_us = now_us;
    asking->wait_ms = poll_ms(r);
    if (submit(asking) != FERRY_OK) {
        end_asking(asking);
        int64_t again_us = now_us + client_backoff_us(c, 1);
        *next_us = again_us < *next_us ? again_us : *next_us;
    }
}

/* Everybody's first request, then everybody's second. */
static void ask_all(struct ferry_receiver *r, int64_t now_us, int64_t *next_us)
{
    for (size_t i = 0; i < RECEIVES_OUT_MAX; i++) {
        for (struct list *n = r->askers.next; n != &r->askers; n = n->next) {
            struct asker *a = list_entry(n, struct asker, node);
            bool wanted = i == 0 || a->productive;
            if (wanted && request_is_idle(&a->askings[i].request) && !a->connection->suspect) {
                ask(&a->askings[i], now_us, next_us);
            }
        }
    }
    if (!list_is_empty(&r->askers)) { /* The next time another one is first. */
        struct list *first = list_pop_front(&r->askers);
        list_push_back(&r->askers, first);
    }
}

/* An asker for each endpoint that leads something. True when some partition lacks its leader. */
static bool look_for_leaders(struct ferry_receiver *r)
{
    bool lacks = false;
    const struct connection *last = NULL;
    for (int32_t i = 0; i < r->partition_count; i++) {
        struct connection *leader = r->topic->partitions[i]->leader;
        lacks = lacks || leader == NULL || leader->suspect;
        if (leader != NULL && leader != last) {
            (void)asker_for(r, leader); /* Without memory: at the next turn. */
            last = leader;
        }
    }
    return lacks;
}

void receiver_pump(struct ferry_receiver *r)
{
    struct ferry_client *c = r->client;
    int64_t now_us = clock_monotonic_us();
    int64_t next_us = INT64_MAX;
    if (list_is_empty(&r->node)) {
        return; /* Not attached. */
    }
    settler_extend(r, now_us, &next_us);
    settler_pump(r, now_us, &next_us);
    if (look_for_leaders(r)) {
        metadata_want(r->topic);
    }
    metadata_age(r->topic, now_us);
    ask_all(r, now_us, &next_us);
    if (next_us != INT64_MAX) {
        timer_set_sooner(&c->timers, &r->timer, next_us);
    }
}

/* ---- Topics that changed, and brokers that fell silent. */

/* Nobody there leads any of what was asked for, and nobody there answers. */
static bool is_in_vain(const struct asking *asking)
{
    const struct asker *a = asking->asker;
    for (uint32_t i = 0; i < asking->count; i++) {
        const struct connection *leader =
            a->receiver->topic->partitions[asking->partitions[i]]->leader;
        if (leader == NULL || leader == a->connection) {
            return false;
        }
    }
    return a->connection->suspect;
}

/* Credit that is out there is of no use. But a broker that is only slow has handed out, maybe, and
 * what it says then must be heard, or the messages wait until their lease ends. */
static void withdraw_strays(struct ferry_receiver *r)
{
    for (struct list *n = r->askers.next; n != &r->askers; n = n->next) {
        struct asker *a = list_entry(n, struct asker, node);
        for (size_t i = 0; i < RECEIVES_OUT_MAX; i++) {
            struct asking *asking = &a->askings[i];
            if (!request_is_idle(&asking->request) && is_in_vain(asking)) {
                request_cancel(&asking->request);
                end_asking(asking);
            }
        }
    }
}

void receivers_suspect(struct ferry_client *c)
{
    for (struct list *n = c->receivers.next; n != &c->receivers; n = n->next) {
        struct ferry_receiver *r = list_entry(n, struct ferry_receiver, node);
        withdraw_strays(r);
        receiver_pump(r); /* Looks for another leader. */
    }
}

static bool is_another_topic(const struct ferry_receiver *r)
{
    for (int32_t i = 0; i < r->partition_count; i++) {
        if (r->topic->partitions[i]->group != r->partitions[i].group) {
            return true;
        }
    }
    return false;
}

static void fail(struct ferry_receiver *r, enum ferry_err err)
{
    pthread_mutex_lock(&r->client->lock);
    r->failed = err;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->client->lock);
}

void receivers_metadata_changed(struct topic *t)
{
    struct ferry_client *c = t->client;
    struct list *n = c->receivers.next;
    while (n != &c->receivers) {
        struct ferry_receiver *r = list_entry(n, struct ferry_receiver, node);
        n = n->next;
        if (r->topic != t) {
            continue;
        }
        enum ferry_err err = t->err;
        if (err == FERRY_OK && is_another_topic(r)) {
            err = FERRY_ERR_UNKNOWN_TOPIC;
        }
        if (err != FERRY_OK) {
            fail(r, err);
        }
        withdraw_strays(r);
        receiver_pump(r);
    }
}

/* ---- Reading what came. */

static bool skips_are_sane(const struct fetch_entry *entry, uint32_t count)
{
    for (uint32_t i = 0; i < entry->skip_count; i++) {
        uint32_t skip = fetch_entry_skip(entry, i);
        if (skip >= count || (i > 0 && skip <= fetch_entry_skip(entry, i - 1))) {
            return false;
        }
    }
    return entry->base_offset >= 0 && entry->base_offset <= INT64_MAX - (int64_t)BATCH_RECORDS_MAX;
}

static void set_message(struct handout *h, uint32_t n, const struct batch_record *record,
                        int64_t offset, int64_t append_time_ms)
{
    h->messages[n] = (struct message){.handed_out = 1,
                                      .priority = record->priority,
                                      .record = {.topic = h->holder->topic,
                                                 .partition = h->partition,
                                                 .offset = offset,
                                                 .timestamp_ms = record->timestamp_ms,
                                                 .append_time_ms = append_time_ms,
                                                 .key = record->has_key ? record->key.data : NULL,
                                                 .key_bytes = record->key.size,
                                                 .payload = record->payload.data,
                                                 .payload_bytes = record->payload.size,
                                                 .headers = record->headers.data,
                                                 .headers_bytes = record->headers.size,
                                                 .id = record->id}};
}

/* Reads the entry's messages to `*n` on. False: more than was told, or malformed. */
static bool read_entry(struct handout *h, const struct fetch_entry *entry,
                       const struct batch_header *header, uint32_t *n)
{
    struct batch_reader reader;
    struct batch_record record;
    enum ferry_err err = FERRY_OK;
    uint32_t skipped = 0;
    if (!skips_are_sane(entry, header->count)) {
        return false;
    }
    batch_reader_init(&reader, entry->batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &record, &err); i++) {
        if (skipped < entry->skip_count && fetch_entry_skip(entry, skipped) == i) {
            skipped++;
            continue;
        }
        if (*n == h->count) {
            return false;
        }
        set_message(h, *n, &record, entry->base_offset + (int64_t)(i - skipped),
                    entry->append_time_ms);
        (*n)++;
    }
    return err == FERRY_OK;
}

static bool read_messages(struct handout *h, struct bytes data)
{
    uint32_t n = 0;
    h->bytes = sizeof(*h) + h->count * sizeof(struct message) + data.size;
    while (data.size > 0) {
        struct fetch_entry entry;
        struct batch_header header;
        struct err_text e;
        if (fetch_entry_next(&data, &entry, &header, &e) != FERRY_OK ||
            !read_entry(h, &entry, &header, &n)) {
            return false;
        }
    }
    return n == h->count;
}

/* Repeats come in the order of the messages, so the search goes on where it found the last. */
static bool read_repeats(struct handout *h, struct bytes repeats)
{
    uint32_t at = 0;
    if (repeats.size % DELIVERY_REPEAT_BYTES != 0 ||
        repeats.size / DELIVERY_REPEAT_BYTES > h->count) {
        return false;
    }
    for (size_t i = 0; i < repeats.size; i += DELIVERY_REPEAT_BYTES) {
        const uint8_t *one = repeats.data + i;
        int64_t offset = (int64_t)get_le64(one);
        uint32_t tried = 0;
        while (tried < h->count && h->messages[at].record.offset != offset) {
            at = (at + 1) % h->count;
            tried++;
        }
        if (tried == h->count) {
            return false;
        }
        h->messages[at].handed_out = get_le32(one + 8);
        h->messages[at].failed = get_le32(one + 12);
    }
    return true;
}

static int compare_priority(const void *a, const void *b)
{
    const struct message *x = a;
    const struct message *y = b;
    if (x->priority != y->priority) {
        return x->priority > y->priority ? -1 : 1;
    }
    return x->record.offset < y->record.offset ? -1 : x->record.offset > y->record.offset;
}

/* They came by offset. */
static void sort_by_priority(struct handout *h)
{
    bool mixed = false;
    for (uint32_t i = 1; i < h->count && !mixed; i++) {
        mixed = h->messages[i].priority != h->messages[0].priority;
    }
    if (mixed) {
        qsort(h->messages, h->count, sizeof(h->messages[0]), compare_priority);
    }
}

static struct handout *handout_new(const struct receive_reply *reply, int32_t partition,
                                   int64_t began_us)
{
    struct handout *h = mem_zalloc(1, sizeof(*h) + (size_t)reply->count * sizeof(struct message));
    if (h == NULL) {
        return NULL;
    }
    list_init(&h->node);
    list_init(&h->ready_node);
    h->partition = partition;
    h->lease = reply->lease;
    h->token = reply->token;
    h->lease_ms = reply->lease_ms;
    h->ends_us = began_us + reply->lease_ms * INT64_C(1000);
    h->extend_us = began_us + reply->lease_ms * INT64_C(1000) / 2;
    h->count = reply->count;
    h->live = reply->count;
    return h;
}

static void handout_free(struct handout *h)
{
    holder_release(h->holder);
    mem_free(h);
}

/* With the lock. The slots are there: what was asked for was credit. */
static void push_handout(struct ferry_receiver *r, struct handout *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        must(r->first_free < r->inflight_max);
        struct slot *slot = &r->slots[r->first_free];
        h->messages[i].slot = r->first_free;
        r->first_free = slot->index;
        slot->handout = h;
        slot->index = i;
    }
    if (r->no_extend) {
        h->extend_us += h->lease_ms * INT64_C(1000) / 4;
    }
    r->extend_us = h->extend_us < r->extend_us ? h->extend_us : r->extend_us;
    list_push_back(&r->handouts, &h->node);
    list_push_back(&r->ready, &h->ready_node);
    r->ready_count += h->count;
    r->ready_bytes += h->bytes;
    if (r->stopping) {
        receiver_drop_ready(r, h, true);
    }
    pthread_cond_broadcast(&r->changed);
}

static int32_t partition_of(const struct asking *asking, uint64_t group)
{
    const struct topic *t = asking->asker->receiver->topic;
    for (uint32_t i = 0; i < asking->count; i++) {
        if (t->partitions[asking->partitions[i]]->group == group) {
            return asking->partitions[i];
        }
    }
    return -1;
}

static bool reply_is_sane(const struct asking *asking, const struct receive_reply *reply,
                          struct bytes attachment)
{
    for (uint32_t i = 0; i < reply->refused_count; i++) {
        if (partition_of(asking, reply->refused[i].group) < 0) {
            return false;
        }
    }
    if (reply->group == 0) {
        return reply->count == 0 && reply->repeats.size == 0 && attachment.size == 0;
    }
    return partition_of(asking, reply->group) >= 0 && reply->count > 0 &&
           reply->count <= asking->messages && reply->lease_ms >= LEASE_MIN_MS &&
           reply->lease_ms <= LEASE_MAX_MS;
}

/* The messages, with the reply's memory. NULL: it is not what it should be, or no memory. */
static struct handout *read_handout(struct asking *asking, const struct reply *reply, bool *corrupt)
{
    struct ferry_receiver *r = asking->asker->receiver;
    struct receive_reply told;
    struct frame frame;
    struct err_text e;
    struct holder *holder = holder_new(r->topic->name);
    *corrupt = false;
    if (holder == NULL) {
        return NULL;
    }
    net_message_move(&holder->message, reply->message);
    bool parsed = frame_parse(net_message_bytes(&holder->message), &frame, &e) == FERRY_OK &&
                  receive_reply_decode(frame.body, &told) == FERRY_OK;
    must(parsed); /* As before the move. */
    struct handout *h = handout_new(&told, partition_of(asking, told.group), asking->began_us);
    if (h == NULL) {
        holder_release(holder);
        return NULL;
    }
    h->holder = holder;
    if (!read_messages(h, frame.attachment) || !read_repeats(h, told.repeats)) {
        *corrupt = true;
        handout_free(h);
        return NULL;
    }
    if (r->by_priority) {
        sort_by_priority(h);
    }
    return h;
}

/* ---- Answers. */

static void pause_partition(struct ferry_receiver *r, int32_t partition, int64_t pause_us)
{
    struct receiver_partition *p = &r->partitions[partition];
    p->attempts++;
    p->retry_at_us = clock_monotonic_us() + pause_us;
}

static void look_again(struct ferry_receiver *r, int32_t partition)
{
    pause_partition(r, partition, route_pause_us(r->client, r->partitions[partition].attempts + 1));
    r->topic->partitions[partition]->leader = NULL;
    metadata_want(r->topic);
}

/* The broker's word that the subscription is not there is believed when all say so. */
static void lacks_subscription(struct ferry_receiver *r, int32_t partition)
{
    bool all = true;
    r->partitions[partition].missing = true;
    for (int32_t i = 0; i < r->partition_count; i++) {
        all = all && r->partitions[i].missing;
    }
    if (all) {
        fail(r, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    }
    pause_partition(r, partition, MISSING_PAUSE_MS * INT64_C(1000));
}

static void take_refusal(struct ferry_receiver *r, int32_t partition, uint16_t status)
{
    switch (status) {
    case FERRY_ERR_UNKNOWN_SUBSCRIPTION:
        lacks_subscription(r, partition);
        break;
    case FERRY_ERR_SUBSCRIPTION_EXISTS: /* Made anew, with mode stream. */
        fail(r, FERRY_ERR_SUBSCRIPTION_EXISTS);
        break;
    case FERRY_ERR_NOT_LEADER:
    case FERRY_ERR_UNKNOWN_PARTITION:
    case FERRY_ERR_NOT_READY:
        look_again(r, partition);
        break;
    default:
        pause_partition(r, partition,
                        client_backoff_us(r->client, r->partitions[partition].attempts + 1));
    }
}

/* Those that were not refused are served. */
static void take_refusals(struct asking *asking, const struct receive_reply *reply)
{
    struct ferry_receiver *r = asking->asker->receiver;
    bool refused[FETCH_ITEMS_MAX] = {false};
    for (uint32_t i = 0; i < reply->refused_count; i++) {
        for (uint32_t k = 0; k < asking->count; k++) {
            uint64_t group = r->topic->partitions[asking->partitions[k]]->group;
            if (group == reply->refused[i].group && !refused[k]) {
                refused[k] = true;
                take_refusal(r, asking->partitions[k], reply->refused[i].status);
            }
        }
    }
    for (uint32_t k = 0; k < asking->count; k++) {
        if (!refused[k]) {
            r->partitions[asking->partitions[k]].missing = false;
            r->partitions[asking->partitions[k]].attempts = 0;
        }
    }
}

static void pause_all(struct asking *asking, bool elsewhere, int64_t asked_us)
{
    struct ferry_receiver *r = asking->asker->receiver;
    for (uint32_t i = 0; i < asking->count; i++) {
        int32_t partition = asking->partitions[i];
        int64_t pause_us = client_backoff_us(r->client, r->partitions[partition].attempts + 1);
        if (elsewhere) {
            look_again(r, partition);
        } else {
            pause_partition(r, partition, pause_us > asked_us ? pause_us : asked_us);
        }
    }
}

static void take_corrupt(struct ferry_receiver *r)
{
    r->client->bad_replies++;
    if (++r->corrupt_tries >= RECEIVER_CORRUPT_TRIES) {
        r->corrupt_tries = 0;
        pthread_mutex_lock(&r->client->lock);
        r->told_once = FERRY_ERR_CORRUPT;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->client->lock);
    }
}

/* Nothing came, though the broker should have waited: it is not asked again at once. */
static bool is_hasty(const struct asking *asking, const struct receive_reply *reply)
{
    int64_t waited_us = clock_monotonic_us() - asking->began_us;
    return reply->refused_count == 0 && waited_us < asking->wait_ms * 1000 / 2;
}

/* False: it is not an answer, or there is no memory for it. */
static bool take_answer(struct asking *asking, const struct reply *reply)
{
    struct ferry_receiver *r = asking->asker->receiver;
    struct receive_reply told;
    bool corrupt;
    if (receive_reply_decode(reply->frame.body, &told) != FERRY_OK ||
        !reply_is_sane(asking, &told, reply->frame.attachment)) {
        r->client->bad_replies++;
        return false;
    }
    take_refusals(asking, &told);
    asking->asker->productive = told.group != 0;
    if (told.group == 0) {
        return !is_hasty(asking, &told);
    }
    struct handout *h = read_handout(asking, reply, &corrupt);
    if (h == NULL) {
        if (corrupt) {
            take_corrupt(r);
        }
        return false;
    }
    r->corrupt_tries = 0;
    r->usual_ms = h->lease_ms;
    pthread_mutex_lock(&r->client->lock);
    give_back_credit(asking); /* The messages take its place. */
    push_handout(r, h);
    pthread_mutex_unlock(&r->client->lock);
    return true;
}

/* Errors of the whole request. */
static void take_error(struct asking *asking, const struct reply *reply)
{
    struct ferry_receiver *r = asking->asker->receiver;
    switch (reply->err) {
    case FERRY_ERR_UNKNOWN_SUBSCRIPTION:
    case FERRY_ERR_SUBSCRIPTION_EXISTS:
        for (uint32_t i = 0; i < asking->count; i++) {
            take_refusal(r, asking->partitions[i], (uint16_t)reply->err);
        }
        break;
    case FERRY_ERR_BAD_NAME:
    case FERRY_ERR_INVALID_ARGUMENT:
    case FERRY_ERR_UNKNOWN_COMMAND:
    case FERRY_ERR_DENIED:
        fail(r, reply->err);
        break;
    case FERRY_ERR_THROTTLED:
        pause_all(asking, false, reply->retry_after_ms * INT64_C(1000));
        break;
    default:
        pause_all(asking, true, 0);
    }
}

static void on_reply(struct request *request, const struct reply *reply)
{
    struct asking *asking = list_entry(request, struct asking, request);
    struct ferry_receiver *r = asking->asker->receiver;
    if (reply->err != FERRY_OK) {
        take_error(asking, reply);
    } else if (!take_answer(asking, reply)) {
        pause_all(asking, false, 0);
    }
    end_asking(asking);
    receiver_pump(r);
}
