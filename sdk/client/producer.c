#include "client/producer.h"

#include "base/clock.h"
#include "client/metadata.h"

/* A place that brokers do not know: metadata may be behind, here or there, for some moments. */
#define MISPLACED_MAX 20u
/* So long after a change of leader a missing batch is not taken as a forgotten producer. */
#define GAP_PATIENCE_US INT64_C(3000000)

static void on_timer(struct timer *timer);

static struct ferry_client *client_of(const struct partition *p)
{
    return p->topic->client;
}

static struct parcel *first_of(const struct list *parcels)
{
    return list_is_empty(parcels) ? NULL : list_entry(parcels->next, struct parcel, node);
}

bool stream_init(struct partition *p)
{
    struct stream *s = &p->stream;
    *s = (struct stream){.hungry = true};
    list_init(&s->closed);
    list_init(&s->work_node);
    list_init(&s->pending);
    list_init(&s->sent);
    list_init(&s->identity_node);
    return timer_add(&client_of(p)->timers, &s->timer, on_timer);
}

void stream_fini(struct partition *p)
{
    struct stream *s = &p->stream;
    must(s->open == NULL);
    must(s->open_delayed == NULL);
    must(list_is_empty(&s->closed));
    must(list_is_empty(&s->pending));
    must(list_is_empty(&s->sent));
    timer_drop(&client_of(p)->timers, &s->timer);
}

static void on_timer(struct timer *timer)
{
    stream_pump(list_entry(timer, struct partition, stream.timer));
}

/* ---- Ends. */

/* Why a parcel that nobody refused did not get there. */
static enum ferry_err reason(const struct partition *p, const struct parcel *parcel)
{
    if (parcel->last_err != FERRY_OK) {
        return parcel->last_err;
    }
    bool reached = p->leader != NULL && p->leader->greeted;
    return reached ? FERRY_ERR_TIMEOUT : FERRY_ERR_UNREACHABLE;
}

static void stop_waiting_for_answer(struct stream *s, struct parcel *parcel)
{
    if (parcel->state == PARCEL_OUT) {
        parcel->doubtful = parcel->doubtful || parcel->request.written;
        request_cancel(&parcel->request);
        parcel->state = PARCEL_WAITING;
        s->in_flight--;
    }
}

/* Takes a numbered parcel that is not known to be stored out of `sent`. Its numbers are used up,
 * unless it was the last and surely is not stored: then they are free again. */
static void drop_numbers(struct stream *s, struct parcel *parcel)
{
    must(parcel->state == PARCEL_WAITING);
    bool last = parcel->node.next == &s->sent;
    list_remove(&parcel->node);
    if (last && !parcel->doubtful) {
        s->next_sequence = parcel->first_sequence;
    } else {
        s->broken = true;
    }
}

static void end_numbered(struct stream *s, struct parcel *parcel, enum ferry_err err)
{
    drop_numbers(s, parcel);
    parcel_end(parcel, parcel->doubtful ? FERRY_UNKNOWN : FERRY_NOT_STORED, err);
}

/* Refused, so in the log neither now nor later: back among the unnumbered, in its old place. */
static void requeue(struct stream *s, struct parcel *parcel)
{
    must(!parcel->doubtful);
    drop_numbers(s, parcel);
    parcel->state = PARCEL_FILLING;
    struct list *after = &s->pending;
    while (after->next != &s->pending &&
           list_entry(after->next, struct parcel, node)->ordinal < parcel->ordinal) {
        after = after->next;
    }
    list_push_front(after, &parcel->node);
}

static void requeue_or_end(struct stream *s, struct parcel *parcel, enum ferry_err err)
{
    if (parcel->doubtful) {
        end_numbered(s, parcel, err);
    } else {
        requeue(s, parcel);
    }
}

static void expire(struct partition *p, int64_t now_us)
{
    struct stream *s = &p->stream;
    struct parcel *parcel;
    while ((parcel = first_of(&s->sent)) != NULL && parcel->deadline_us <= now_us) {
        stop_waiting_for_answer(s, parcel);
        end_numbered(s, parcel, parcel->doubtful ? FERRY_ERR_TIMEOUT : reason(p, parcel));
    }
    while ((parcel = first_of(&s->pending)) != NULL && parcel->deadline_us <= now_us) {
        list_remove(&parcel->node);
        parcel_end(parcel, FERRY_NOT_STORED, reason(p, parcel));
    }
}

/* With the lock: everything closed, and with `open` the open parcel too, becomes pending. */
static void take_closed(struct stream *s, bool open)
{
    struct list *node;
    while ((node = list_pop_front(&s->closed)) != NULL) {
        list_entry(node, struct parcel, node)->ordinal = s->next_ordinal++;
        list_push_back(&s->pending, node);
    }
    struct parcel **opens[] = {&s->open, &s->open_delayed};
    for (size_t i = 0; open && i < sizeof(opens) / sizeof(opens[0]); i++) {
        struct parcel *parcel = *opens[i];
        if (parcel != NULL) {
            parcel->ordinal = s->next_ordinal++;
            list_push_back(&s->pending, &parcel->node);
            *opens[i] = NULL;
        }
    }
}

/* With the lock: of the two, the one that was opened first; NULL: none is open. */
static const struct parcel *oldest_open(const struct stream *s)
{
    if (s->open == NULL || s->open_delayed == NULL) {
        return s->open != NULL ? s->open : s->open_delayed;
    }
    return s->open->opened_us <= s->open_delayed->opened_us ? s->open : s->open_delayed;
}

void stream_end_unsent(struct partition *p, enum ferry_err err)
{
    struct stream *s = &p->stream;
    struct list *node;
    pthread_mutex_lock(&client_of(p)->lock);
    take_closed(s, true);
    s->hungry = true;
    pthread_mutex_unlock(&client_of(p)->lock);
    struct list *n = s->sent.next;
    while (n != &s->sent) {
        struct parcel *parcel = list_entry(n, struct parcel, node);
        n = n->next;
        if (parcel->state == PARCEL_WAITING) {
            end_numbered(s, parcel, err);
        }
    }
    while ((node = list_pop_front(&s->pending)) != NULL) {
        parcel_end(list_entry(node, struct parcel, node), FERRY_NOT_STORED, err);
    }
}

void stream_fail(struct partition *p, enum ferry_err err)
{
    struct stream *s = &p->stream;
    for (struct list *n = s->sent.next; n != &s->sent; n = n->next) {
        stop_waiting_for_answer(s, list_entry(n, struct parcel, node));
    }
    stream_end_unsent(p, err);
    list_remove(&s->identity_node);
}

void stream_regroup(struct partition *p)
{
    struct stream *s = &p->stream;
    struct parcel *parcel;
    while (!list_is_empty(&s->sent)) {
        /* From the back, so that requeued parcels keep their order and cost no search. */
        parcel = list_entry(s->sent.prev, struct parcel, node);
        stop_waiting_for_answer(s, parcel);
        requeue_or_end(s, parcel, FERRY_ERR_UNKNOWN_TOPIC);
    }
    s->broken = false;
    s->has_identity = false;
}

/* ---- Identity. */

static bool has_present_identity(const struct partition *p)
{
    const struct stream *s = &p->stream;
    const struct producer *producer = &client_of(p)->producer;
    return s->has_identity && s->producer_id == producer->id &&
           s->producer_epoch == producer->epoch;
}

/* Spoiled for one stream: everyone gets a new one. It is of the same producer id and a higher
 * epoch, so that what is still on its way under the old one is refused where the new one has been
 * seen, and cannot come in behind what was sent after it. An id without a name is this client's
 * alone. */
static void renew_identity(struct ferry_client *c)
{
    struct producer *producer = &c->producer;
    if (c->options.producer_name[0] == '\0' && producer->epoch < UINT32_MAX) {
        producer->epoch++;
    } else {
        producer->state = PRODUCER_NONE;
    }
}

/* True when new batches may be numbered. Otherwise they wait: for the numbered ones to end, or for
 * an identity. */
static bool ensure_identity(struct partition *p)
{
    struct stream *s = &p->stream;
    struct producer *producer = &client_of(p)->producer;
    bool present = has_present_identity(p);
    if (producer->state == PRODUCER_READY && present && !s->broken) {
        return true;
    }
    if (!list_is_empty(&s->sent)) {
        return false;
    }
    if (producer->state == PRODUCER_READY && present) {
        renew_identity(client_of(p));
    }
    if (producer->state == PRODUCER_READY) {
        s->has_identity = true;
        s->producer_id = producer->id;
        s->producer_epoch = producer->epoch;
        s->next_sequence = 0;
        s->broken = false;
        return true;
    }
    if (list_is_empty(&s->identity_node)) {
        list_push_back(&producer->waiting, &s->identity_node);
    }
    if (producer->state == PRODUCER_NONE && producer->timer.node.at == HEAP_NOT_QUEUED) {
        producer_ask(client_of(p));
    }
    return false;
}

void stream_moved(struct partition *p)
{
    if (p->stream.attempts <= ROUTE_SHORT_PAUSES) {
        p->stream.retry_at_us = 0; /* Unless leaders have been changing for long. */
    }
}

static void producer_failed(struct ferry_client *c, enum ferry_err err)
{
    c->producer.state = PRODUCER_FAILED;
    c->producer.err = err;
    client_pump_all(c);
}

/* ---- Sending. */

static void pause_stream(struct partition *p, int64_t at_least_us)
{
    struct stream *s = &p->stream;
    int64_t pause_us = client_backoff_us(client_of(p), ++s->attempts);
    s->retry_at_us = clock_monotonic_us() + (pause_us > at_least_us ? pause_us : at_least_us);
}

/* A pause while it is not known who leads, or whether the leader can yet. */
static void pause_looking(struct partition *p)
{
    int64_t pause_us = route_pause_us(client_of(p), ++p->stream.attempts);
    p->stream.retry_at_us = clock_monotonic_us() + pause_us;
}

/* Puts a numbered parcel on the wire. False: not now, the stream pauses. */
static bool put_on_wire(struct partition *p, struct parcel *parcel)
{
    struct stream *s = &p->stream;
    struct request *r = &parcel->request;
    int64_t timeout_ms = client_of(p)->options.request_timeout_ms;
    must(parcel->state == PARCEL_WAITING);
    if (request_begin(r, p->leader, COMMAND_PRODUCE, timeout_ms) != FERRY_OK) {
        pause_stream(p, 0);
        return false;
    }
    struct produce_request request = {.group = p->group};
    (void)!buf_reserve(&r->frame, parcel->bytes.size + FRAME_HEADER_BYTES);
    produce_request_encode(&r->frame, &request);
    frame_begin_attachment(&r->frame);
    buf_append_bytes(&r->frame, parcel->bytes);
    if (request_submit(r) != FERRY_OK) {
        pause_stream(p, 0);
        return false;
    }
    parcel->state = PARCEL_OUT;
    parcel->attempts++;
    s->in_flight++;
    return true;
}

static bool number(struct partition *p, struct parcel *parcel)
{
    struct stream *s = &p->stream;
    if (batch_writer_finish(&parcel->writer, s->producer_id, s->producer_epoch, s->next_sequence,
                            &parcel->bytes) != FERRY_OK) {
        pause_stream(p, 0);
        return false;
    }
    parcel->first_sequence = s->next_sequence;
    s->next_sequence += parcel->writer.count;
    parcel->state = PARCEL_WAITING;
    list_remove(&parcel->node);
    list_push_back(&s->sent, &parcel->node);
    return true;
}

/* What waits for the answer of one that does not lead any more. */
static void withdraw_strays(struct partition *p)
{
    struct stream *s = &p->stream;
    for (struct list *n = s->sent.next; n != &s->sent; n = n->next) {
        struct parcel *parcel = list_entry(n, struct parcel, node);
        if (parcel->state == PARCEL_OUT && parcel->request.connection != p->leader) {
            stop_waiting_for_answer(s, parcel);
        }
    }
}

/* Everything numbered goes out in order. A batch that was refused because one before it was missing
 * waits until that one goes out again or it is the oldest, so that it is not refused in circles. */
static bool send_numbered(struct partition *p)
{
    struct stream *s = &p->stream;
    bool again = false; /* One before it goes out again now. */
    for (struct list *n = s->sent.next; n != &s->sent; n = n->next) {
        struct parcel *parcel = list_entry(n, struct parcel, node);
        if (parcel->state == PARCEL_OUT) {
            continue;
        }
        bool oldest = n == s->sent.next;
        bool circles = parcel->last_err == FERRY_ERR_SEQUENCE_GAP && !oldest && !again;
        if (circles || !put_on_wire(p, parcel)) {
            return false;
        }
        again = true;
    }
    return true;
}

/* The broker remembers so many batches back that it knows every one of the window again: counted
 * from the oldest without an answer, not by how many are out (answers may come out of order). */
static bool is_in_window(const struct partition *p, const struct parcel *parcel)
{
    const struct parcel *oldest = first_of(&p->stream.sent);
    uint64_t window = (uint64_t)client_of(p)->options.producer_inflight;
    return oldest == NULL || parcel->ordinal - oldest->ordinal < window;
}

static void send_pending(struct partition *p)
{
    struct stream *s = &p->stream;
    while (!list_is_empty(&s->pending) && is_in_window(p, first_of(&s->pending))) {
        struct parcel *parcel = first_of(&s->pending);
        if (!number(p, parcel) || !put_on_wire(p, parcel)) {
            return;
        }
    }
}

struct open_times {
    int64_t deadline_us; /* INT64_MAX: no open parcel. */
    int64_t ripe_us;     /* When it may be taken however small. */
};

/* Takes closed parcels, and the open one when the stream has nothing better to do. */
static struct open_times take_parcels(struct partition *p, int64_t now_us, bool ready)
{
    struct ferry_client *c = client_of(p);
    struct stream *s = &p->stream;
    struct open_times times = {INT64_MAX, INT64_MAX};
    pthread_mutex_lock(&c->lock);
    take_closed(s, false);
    const struct parcel *open = oldest_open(s);
    if (open != NULL) {
        int64_t linger_us = c->flushing > 0 || c->closing ? 0 : c->options.linger_ms * 1000;
        int64_t ripe_us = open->opened_us + linger_us;
        bool idle = list_is_empty(&s->pending) && s->in_flight < STREAM_EAGER_INFLIGHT && ready;
        if ((idle && ripe_us <= now_us) || open->deadline_us <= now_us) {
            take_closed(s, true);
        } else {
            times.deadline_us = open->deadline_us;
            times.ripe_us = idle ? ripe_us : INT64_MAX;
        }
    }
    bool busy = s->in_flight + (list_is_empty(&s->pending) ? 0 : 1) >= STREAM_EAGER_INFLIGHT;
    s->hungry = oldest_open(s) == NULL && !(busy && ready);
    pthread_mutex_unlock(&c->lock);
    return times;
}

static void arm_timer(struct partition *p, struct open_times open)
{
    struct stream *s = &p->stream;
    struct timers *timers = &client_of(p)->timers;
    int64_t next_us = open.deadline_us < open.ripe_us ? open.deadline_us : open.ripe_us;
    const struct list *lists[] = {&s->sent, &s->pending};
    for (size_t i = 0; i < 2; i++) {
        const struct parcel *parcel = first_of(lists[i]);
        if (parcel != NULL && parcel->deadline_us < next_us) {
            next_us = parcel->deadline_us;
        }
    }
    if (next_us == INT64_MAX) {
        timer_stop(timers, &s->timer);
        return;
    }
    if (s->retry_at_us != 0 && s->retry_at_us < next_us) {
        next_us = s->retry_at_us;
    }
    timer_set(timers, &s->timer, next_us);
}

/* Whether the way is free for batches that have no numbers yet. Asks for what is missing. */
static bool way_is_free(struct partition *p, int64_t now_us)
{
    struct stream *s = &p->stream;
    if (s->retry_at_us > now_us) {
        return false;
    }
    s->retry_at_us = 0;
    if (p->leader == NULL) {
        metadata_want(p->topic);
        return false;
    }
    if (p->leader->suspect) {
        metadata_want(p->topic);
    }
    metadata_age(p->topic, now_us);
    withdraw_strays(p);
    return send_numbered(p) && ensure_identity(p);
}

static bool has_work(struct partition *p)
{
    struct stream *s = &p->stream;
    pthread_mutex_lock(&client_of(p)->lock);
    bool open = oldest_open(s) != NULL || !list_is_empty(&s->closed);
    s->hungry = !open;
    pthread_mutex_unlock(&client_of(p)->lock);
    return open || !list_is_empty(&s->pending) || !list_is_empty(&s->sent);
}

void stream_pump(struct partition *p)
{
    struct ferry_client *c = client_of(p);
    int64_t now_us = clock_monotonic_us();
    if (c->producer.state == PRODUCER_FAILED) {
        stream_end_unsent(p, c->producer.err);
    } else if (!p->topic->known && p->topic->err != FERRY_OK) {
        stream_end_unsent(p, p->topic->err);
    }
    expire(p, now_us);
    if (!has_work(p)) {
        timer_stop(&c->timers, &p->stream.timer);
        return;
    }
    bool ready = way_is_free(p, now_us);
    struct open_times open = take_parcels(p, now_us, ready);
    if (ready) {
        send_pending(p);
    }
    expire(p, now_us);
    arm_timer(p, open);
}

/* ---- Answers. */

static bool duplicates_are_sane(const struct parcel *parcel, const struct produce_reply *reply,
                                struct bytes attachment)
{
    uint32_t count = reply->duplicate_count;
    bool delayed = parcel_is_delayed(parcel);
    size_t dues_bytes = delayed ? (size_t)parcel->writer.count * PRODUCE_DUE_BYTES : 0;
    if (count > parcel->writer.count || reply->scheduled != delayed ||
        attachment.size != (size_t)count * PRODUCE_DUPLICATE_BYTES + dues_bytes ||
        (reply->base_offset < 0 && count != parcel->writer.count)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *at = attachment.data + (size_t)i * PRODUCE_DUPLICATE_BYTES;
        bool ascends = i == 0 || get_le32(at) > get_le32(at - PRODUCE_DUPLICATE_BYTES);
        if (!ascends || get_le32(at) >= parcel->writer.count) {
            return false;
        }
    }
    return true;
}

static bool take_stored(struct partition *p, struct parcel *parcel, const struct reply *reply)
{
    struct produce_reply stored;
    if (produce_reply_decode(reply->frame.body, &stored) != FERRY_OK ||
        !duplicates_are_sane(parcel, &stored, reply->frame.attachment)) {
        return false;
    }
    size_t duplicates_bytes = (size_t)stored.duplicate_count * PRODUCE_DUPLICATE_BYTES;
    struct bytes attachment = reply->frame.attachment;
    buf_append_bytes(&parcel->duplicates, bytes_of(attachment.data, duplicates_bytes));
    buf_append_bytes(&parcel->dues, bytes_of(attachment.data + duplicates_bytes,
                                             attachment.size - duplicates_bytes));
    if (!buf_ok(&parcel->duplicates) || !buf_ok(&parcel->dues)) {
        return false; /* No memory: asked again, and answered as a duplicate. */
    }
    parcel->base_offset = stored.base_offset;
    parcel->duplicate = stored.duplicate;
    p->stream.attempts = 0;
    p->stream.misplaced = 0;
    p->hops = 0;
    list_remove(&parcel->node);
    parcel_end(parcel, FERRY_STORED, FERRY_OK);
    return true;
}

/* These leave open whether the batch was or will be stored. */
static bool leaves_doubt(enum ferry_err err)
{
    return err == FERRY_ERR_NOT_LEADER || err == FERRY_ERR_SHUTTING_DOWN ||
           err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_STORE_FAILED || err == FERRY_ERR_IO;
}

static void look_again(struct partition *p)
{
    p->leader = NULL;
    metadata_want(p->topic);
}

static void on_gap(struct partition *p, struct parcel *parcel)
{
    struct stream *s = &p->stream;
    bool oldest = s->sent.next == &parcel->node;
    bool moved = p->moved_us != 0 && clock_monotonic_us() - p->moved_us < GAP_PATIENCE_US;
    if (oldest && moved && !s->broken) {
        pause_looking(p); /* The new leader may not have all in its tables yet. */
        return;
    }
    if (oldest && !s->broken) {
        s->broken = true; /* The broker has forgotten the producer. */
        pause_stream(p, 0);
    }
    if (s->broken) {
        requeue_or_end(s, parcel, FERRY_ERR_SEQUENCE_GAP);
        s->broken = true; /* Also when the numbers came free: they are of the old identity. */
    }
}

static void on_fenced(struct partition *p, struct parcel *parcel)
{
    struct stream *s = &p->stream;
    if (!has_present_identity(p)) {
        /* By ourselves: another stream took a new epoch. */
        requeue_or_end(s, parcel, FERRY_ERR_PRODUCER_FENCED);
        s->broken = true;
        return;
    }
    end_numbered(s, parcel, FERRY_ERR_PRODUCER_FENCED);
    producer_failed(client_of(p), FERRY_ERR_PRODUCER_FENCED);
}

/* Stored so long ago that the broker no longer knows where. */
static void on_stale(struct partition *p, struct parcel *parcel)
{
    if (!parcel->doubtful) {
        parcel->doubtful = true; /* It cannot be: the numbers were somebody else's. */
        end_numbered(&p->stream, parcel, FERRY_ERR_SEQUENCE_STALE);
        return;
    }
    parcel->base_offset = -1;
    parcel->duplicate = true;
    list_remove(&parcel->node);
    parcel_end(parcel, FERRY_STORED, FERRY_OK);
}

/* Replicas move; only a topic that is gone stays unknown, and that METADATA tells. */
static void on_unknown_place(struct partition *p, struct parcel *parcel)
{
    if (++p->stream.misplaced > MISPLACED_MAX) {
        end_numbered(&p->stream, parcel, parcel->last_err);
        return;
    }
    look_again(p);
    pause_looking(p);
}

/* Not there: the hint is followed at once, or metadata asked. */
static void on_not_leader(struct partition *p, const struct reply *reply)
{
    if (reply->err == FERRY_ERR_NOT_LEADER && partition_follow(p, reply->detail)) {
        return;
    }
    look_again(p);
    pause_looking(p);
}

static void on_refused(struct partition *p, struct parcel *parcel, const struct reply *reply)
{
    parcel->last_err = reply->err;
    parcel->doubtful = parcel->doubtful || leaves_doubt(reply->err);
    switch (reply->err) {
    case FERRY_ERR_SEQUENCE_GAP:
        on_gap(p, parcel);
        return;
    case FERRY_ERR_PRODUCER_FENCED:
        on_fenced(p, parcel);
        return;
    case FERRY_ERR_SEQUENCE_STALE:
        on_stale(p, parcel);
        return;
    case FERRY_ERR_UNKNOWN_TOPIC:
    case FERRY_ERR_UNKNOWN_PARTITION:
        on_unknown_place(p, parcel);
        return;
    case FERRY_ERR_NOT_LEADER:
    case FERRY_ERR_SHUTTING_DOWN:
    case FERRY_ERR_STORE_FAILED:
    case FERRY_ERR_IO:
        on_not_leader(p, reply);
        return;
    case FERRY_ERR_NOT_READY:
        pause_looking(p);
        return;
    default:
        if (!ferry_err_is_retriable(reply->err)) {
            end_numbered(&p->stream, parcel, reply->err);
            return;
        }
        break;
    }
    pause_stream(p, (int64_t)reply->retry_after_ms * 1000);
}

static void on_silence(struct partition *p, struct parcel *parcel, const struct reply *reply)
{
    struct stream *s = &p->stream;
    parcel->doubtful = parcel->doubtful || reply->written;
    parcel->last_err = reply->err;
    look_again(p);
    if (s->retry_at_us == 0) {
        pause_looking(p); /* Once for all that were lost together. */
    }
}

void stream_on_reply(struct request *r, const struct reply *reply)
{
    struct parcel *parcel = list_entry(r, struct parcel, request);
    struct partition *p = parcel->partition;
    must(parcel->state == PARCEL_OUT);
    parcel->state = PARCEL_WAITING;
    p->stream.in_flight--;
    if (reply->err == FERRY_ERR_CLOSED && !reply->answered) {
        parcel->doubtful = parcel->doubtful || reply->written;
        return; /* The client is closing: stream_fail ends it. */
    }
    if (reply->err == FERRY_OK) {
        if (!take_stored(p, parcel, reply)) {
            client_of(p)->bad_replies++;
            parcel->doubtful = true;
            parcel->last_err = FERRY_ERR_BAD_FRAME;
            pause_stream(p, 0);
        }
    } else if (reply->answered) {
        on_refused(p, parcel, reply);
    } else {
        on_silence(p, parcel, reply);
    }
    stream_pump(p);
}
