/* Receive: hands out at once what there is, or waits until there is something (long poll).
 *
 * Who waits stands in a queue of each partition and subscription asked for, in order of arrival,
 * and is looked at only when the partition's wake sequence says that something may have become
 * available; then one after another is served until there is nothing more. Who got something leaves
 * all its queues. The answer goes out once the hand-out is applied. */
#include "base/mem.h"
#include "server/shard_internal.h"

#define RECEIVE_WAIT_MAX_MS 60000u
#define RECEIVES_MAX        65536u     /* Waiting ones of a shard, */
#define RECEIVE_PLACES_MAX  (1u << 20) /* and their places in queues. */
/* Members that are full are asked once a round, as far as this many are remembered. */
#define RECEIVE_FULL_MAX 64u

/* Who waits for one subscription of a partition. There while somebody does. */
struct receive_queue {
    struct list node; /* In the seat's. */
    struct seat *seat;
    struct list places; /* struct receive_place, first come first. */
    uint64_t seen;      /* The wake sequence at which there was nothing for the first of them. */
    bool serving;       /* Not to be freed now. */
    uint32_t name_bytes;
    char name[];
};

/* One partition of a request. */
struct receive_place {
    struct list node; /* In the queue's. */
    struct receive_queue *queue;
    struct waiting_receive *receive;
    uint64_t group;
    uint64_t sequence; /* The wake sequence before it was asked. */
    uint16_t status;   /* Why it does not serve; 0: it does. */
};

/* Owned by its request. */
struct waiting_receive {
    struct request *request;
    struct heap_node deadline;
    struct receive asked;       /* Its texts are in the request's message. */
    struct receive_place *took; /* Hands out; NULL: none yet. */
    uint32_t count;
    struct receive_place places[];
};

/* ---- Queues ---- */

static struct receive_queue *find_queue(const struct seat *seat, struct bytes name)
{
    for (const struct list *n = seat->receives.next; n != &seat->receives; n = n->next) {
        struct receive_queue *q = list_entry(n, struct receive_queue, node);
        if (bytes_equal(bytes_of(q->name, q->name_bytes), name)) {
            return q;
        }
    }
    return NULL;
}

static struct receive_queue *add_queue(struct seat *seat, struct bytes name, uint64_t sequence)
{
    struct receive_queue *q = mem_zalloc(1, sizeof(*q) + name.size);
    if (q == NULL) {
        return NULL;
    }
    list_init(&q->node);
    list_init(&q->places);
    q->seat = seat;
    q->seen = sequence;
    q->name_bytes = (uint32_t)name.size;
    memcpy(q->name, name.data, name.size);
    list_push_back(&seat->receives, &q->node);
    return q;
}

static void free_if_empty(struct receive_queue *q)
{
    if (list_is_empty(&q->places) && !q->serving) {
        list_remove(&q->node);
        mem_free(q);
    }
}

static void leave(struct shard *s, struct receive_place *place)
{
    struct receive_queue *q = place->queue;
    if (q != NULL) {
        must(s->receive_places > 0);
        s->receive_places--;
        list_remove(&place->node);
        place->queue = NULL;
        free_if_empty(q);
    }
}

static void leave_all(struct shard *s, struct waiting_receive *w)
{
    heap_remove(&s->receive_deadlines, &w->deadline);
    for (uint32_t i = 0; i < w->count; i++) {
        leave(s, &w->places[i]);
    }
}

void shard_free_receive(struct shard *s, struct request *r)
{
    if (r->receive != NULL) {
        leave_all(s, r->receive);
        mem_free(r->receive);
        r->receive = NULL;
    }
}

/* ---- Answers ---- */

static void fill_refused(const struct shard *s, const struct waiting_receive *w,
                         struct receive_reply *reply)
{
    for (uint32_t i = 0; i < w->count; i++) {
        const struct receive_place *place = &w->places[i];
        uint16_t status = place->status;
        if (status == FERRY_OK) {
            status = (uint16_t)shard_why_not_readable(s, place->group);
        }
        if (status != FERRY_OK) {
            reply->refused[reply->refused_count++] =
                (struct receive_refusal){.group = place->group, .status = status};
        }
    }
}

static void send_answer(struct shard *s, struct request *r, const struct receive_reply *reply,
                        const struct buf *data)
{
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    receive_reply_encode(&b, reply);
    if (data != NULL && data->size > 0) {
        frame_begin_attachment(&b);
        buf_append_bytes(&b, buf_bytes(data));
    }
    shard_send_reply(s, r, &b);
}

/* Nothing was handed out. */
static void answer_nothing(struct shard *s, struct request *r)
{
    struct receive_reply reply = {0};
    fill_refused(s, r->receive, &reply);
    send_answer(s, r, &reply, NULL);
}

static void refuse(struct shard *s, struct receive_place *place, enum ferry_err err)
{
    place->status = (uint16_t)err;
    answer_nothing(s, place->receive->request);
}

void shard_refuse_receive(struct shard *s, struct request *r, enum ferry_err err)
{
    must(r->receive != NULL && r->receive->took != NULL);
    refuse(s, r->receive->took, err);
}

static void send_hand_out(struct shard *s, struct seat *seat, struct request *r,
                          const struct buf *repeats, const struct buf *data)
{
    const struct partition_ticket *t = &r->ticket;
    struct quota_cost cost = {.bytes = data->size, .messages = t->count};
    struct receive_reply reply = {.group = seat->group,
                                  .lease = t->lease,
                                  .token = t->token,
                                  .lease_ms = t->lease_ms,
                                  .count = t->count,
                                  .repeats = buf_bytes(repeats)};
    shard_charge_quota(s, r, seat->topic, &cost);
    s->counters.hand_outs++;
    s->counters.handed_out += t->count;
    s->counters.receive_bytes_out += data->size;
    fill_refused(s, r->receive, &reply);
    send_answer(s, r, &reply, data);
}

/* The hand-out is applied. */
void shard_finish_receive(struct shard *s, struct seat *seat, struct request *r)
{
    struct partition_ticket *t = &r->ticket;
    struct buf repeats, data;
    buf_init(&repeats, RECEIVE_MESSAGES_MAX * DELIVERY_REPEAT_BYTES);
    buf_init(&data, FRAME_MAX_BYTES - FRAME_BODY_MAX_BYTES - FRAME_HEADER_BYTES);
    enum ferry_err err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_read_delivery(seat->partition, t, &repeats, &data);
    }
    if (err == FERRY_OK && t->cut) {
        enum ferry_err released = partition_release_rest(seat->partition, t, s->now_ms, s->now_us);
        (void)released; /* Else it comes back when the lease ends. */
        shard_touch(s, seat);
    }
    if (err != FERRY_OK) {
        shard_refuse_receive(s, r, err); /* What it was handed comes back when the lease ends. */
    } else if (t->count == 0) {
        answer_nothing(s, r); /* All of it went meanwhile: trimmed, reset, deleted. */
    } else {
        send_hand_out(s, seat, r, &repeats, &data);
    }
    buf_fini(&repeats);
    buf_fini(&data);
}

/* ---- Handing out ---- */

static enum ferry_err ask(struct shard *s, struct seat *seat, struct receive_place *place,
                          enum receive_answer *answer)
{
    struct waiting_receive *w = place->receive;
    enum ferry_err err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_receive(seat->partition, &w->asked, s->now_ms, s->now_us,
                                &w->request->ticket, answer);
    }
    if (err == FERRY_OK && *answer == RECEIVE_PROPOSED) {
        w->took = place;
        leave_all(s, w);
        shard_touch(s, seat);
    }
    return err;
}

/* Members found full in one round. */
struct full_members {
    uint32_t count;
    struct bytes names[RECEIVE_FULL_MAX];
};

static bool is_full(const struct full_members *full, struct bytes member)
{
    for (uint32_t i = 0; i < full->count; i++) {
        if (bytes_equal(full->names[i], member)) {
            return true;
        }
    }
    return false;
}

/* Serves one; false when there is nothing for those behind it, either. */
static bool serve_place(struct shard *s, struct receive_queue *q, struct receive_place *place,
                        struct full_members *full)
{
    struct request *r = place->receive->request;
    enum receive_answer answer = RECEIVE_NOTHING;
    if (!net_server_has_peer(s->server, r->peer)) {
        shard_free_request(s, r); /* Nobody would settle what it got. */
        return true;
    }
    struct bytes member = place->receive->asked.member;
    if (is_full(full, member)) {
        return true;
    }
    enum ferry_err err = ask(s, q->seat, place, &answer);
    if (err == FERRY_ERR_THROTTLED) {
        q->seen = 0; /* The partition takes no more entries now: again when something has come. */
        return false;
    }
    if (err != FERRY_OK) {
        refuse(s, place, err);
        return true;
    }
    if (answer == RECEIVE_MEMBER_FULL && full->count < RECEIVE_FULL_MAX) {
        full->names[full->count++] = member; /* Its request stays where it is. */
    }
    return answer != RECEIVE_NOTHING;
}

static uint64_t sequence_of(const struct receive_queue *q)
{
    return partition_wake_sequence(q->seat->partition, bytes_of(q->name, q->name_bytes));
}

/* When something may have become available. */
static void serve(struct shard *s, struct receive_queue *q)
{
    uint64_t sequence = sequence_of(q);
    if (sequence == q->seen && sequence != 0) {
        return;
    }
    struct full_members full = {0};
    q->seen = sequence;
    q->serving = true;
    bool more = true;
    for (struct list *n = q->places.next; more && n != &q->places;) {
        struct receive_place *place = list_entry(n, struct receive_place, node);
        n = n->next; /* A request has one place in a queue: only its own goes. */
        more = serve_place(s, q, place, &full);
    }
    if (q->seen != 0 && sequence_of(q) != q->seen) {
        shard_touch(s, q->seat); /* The partition looks a little further each time it is asked. */
    }
    q->serving = false;
    free_if_empty(q);
}

static void refuse_all(struct shard *s, struct receive_queue *q, enum ferry_err err)
{
    q->serving = true;
    while (!list_is_empty(&q->places)) {
        refuse(s, list_entry(q->places.next, struct receive_place, node), err);
    }
    q->serving = false;
    free_if_empty(q);
}

void shard_fail_receives(struct shard *s, struct seat *seat)
{
    while (!list_is_empty(&seat->receives)) {
        refuse_all(s, list_entry(seat->receives.next, struct receive_queue, node),
                   shard_why_not_readable(s, seat->group));
    }
}

void shard_wake_receives(struct shard *s, struct seat *seat)
{
    if (list_is_empty(&seat->receives)) {
        return;
    }
    if (shard_why_not_readable(s, seat->group) != FERRY_OK) {
        shard_fail_receives(s, seat);
        return;
    }
    for (struct list *n = seat->receives.next; n != &seat->receives;) {
        struct receive_queue *q = list_entry(n, struct receive_queue, node);
        n = n->next; /* A request is in one queue of a seat: no other one goes. */
        serve(s, q);
    }
}

void shard_fire_receive_deadlines(struct shard *s)
{
    for (;;) {
        struct heap_node *node = heap_first(&s->receive_deadlines);
        if (node == NULL || node->due > s->now_us) {
            return;
        }
        answer_nothing(s, list_entry(node, struct waiting_receive, deadline)->request);
    }
}

/* ---- Requests ---- */

static struct waiting_receive *new_receive(struct shard *s, struct request *r,
                                           const struct receive_request *q)
{
    struct waiting_receive *w = mem_zalloc(1, sizeof(*w) + q->count * sizeof(w->places[0]));
    if (w == NULL || !heap_reserve(&s->receive_deadlines, s->receive_deadlines.count + 1)) {
        mem_free(w);
        return NULL;
    }
    uint32_t bytes_max = (uint32_t)s->config.options->fetch_max_bytes;
    w->request = r;
    heap_node_init(&w->deadline);
    w->asked = (struct receive){.subscription = q->subscription,
                                .member = q->member,
                                .max_messages = q->max_messages,
                                .max_bytes = q->max_bytes < bytes_max ? q->max_bytes : bytes_max,
                                .lease_ms = q->lease_ms};
    w->count = q->count;
    for (uint32_t i = 0; i < q->count; i++) {
        list_init(&w->places[i].node);
        w->places[i].receive = w;
        w->places[i].group = q->items[i].group;
    }
    return w;
}

/* True when it hands something out. Who waits there already comes first. */
static bool try_place(struct shard *s, struct receive_place *place)
{
    struct seat *seat = shard_find_readable(s, place->group);
    enum receive_answer answer = RECEIVE_NOTHING;
    if (seat == NULL) {
        place->status = (uint16_t)shard_why_not_readable(s, place->group);
        return false;
    }
    struct bytes name = place->receive->asked.subscription;
    struct receive_queue *q = find_queue(seat, name);
    if (q != NULL) {
        serve(s, q);
    }
    shard_touch(s, seat); /* Its timer may be another one afterwards. */
    place->sequence = partition_wake_sequence(seat->partition, name);
    enum ferry_err err = ask(s, seat, place, &answer);
    place->status = (uint16_t)(err == FERRY_ERR_THROTTLED ? FERRY_OK : err);
    place->sequence = err == FERRY_ERR_THROTTLED ? 0 : place->sequence;
    return err == FERRY_OK && answer == RECEIVE_PROPOSED;
}

static uint32_t count_serving(const struct waiting_receive *w)
{
    uint32_t serving = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        serving += w->places[i].status == FERRY_OK ? 1 : 0;
    }
    return serving;
}

static enum ferry_err join_queues(struct shard *s, struct waiting_receive *w)
{
    if (s->receive_deadlines.count >= RECEIVES_MAX ||
        s->receive_places + w->count > RECEIVE_PLACES_MAX) {
        return FERRY_ERR_THROTTLED;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        struct receive_place *place = &w->places[i];
        struct seat *seat = place->status == FERRY_OK ? shard_find_readable(s, place->group) : NULL;
        if (seat == NULL) {
            continue;
        }
        struct receive_queue *q = find_queue(seat, w->asked.subscription);
        if (q == NULL) {
            q = add_queue(seat, w->asked.subscription, place->sequence);
        }
        if (q == NULL) {
            return FERRY_ERR_NO_MEMORY;
        }
        place->queue = q;
        list_push_back(&q->places, &place->node);
        s->receive_places++;
    }
    return FERRY_OK;
}

static void begin_to_wait(struct shard *s, struct request *r, uint32_t wait_ms)
{
    enum ferry_err err = join_queues(s, r->receive);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "no room for one more waiting receive");
        return;
    }
    wait_ms = wait_ms < RECEIVE_WAIT_MAX_MS ? wait_ms : RECEIVE_WAIT_MAX_MS;
    heap_set(&s->receive_deadlines, &r->receive->deadline, s->now_us + (int64_t)wait_ms * 1000);
}

static bool names_a_group_twice(const struct receive_request *q)
{
    for (uint32_t i = 1; i < q->count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (q->items[i].group == q->items[k].group) {
                return true;
            }
        }
    }
    return false;
}

static enum ferry_err check(const struct receive_request *q, struct err_text *e)
{
    if (q->count == 0 || q->max_bytes == 0 || q->max_messages == 0 ||
        q->max_messages > RECEIVE_MESSAGES_MAX || names_a_group_twice(q)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "a receive names at least one partition, each once, some bytes, and 1 to %u "
                       "messages",
                       RECEIVE_MESSAGES_MAX);
    }
    if (q->lease_ms != 0 && (q->lease_ms < LEASE_MIN_MS || q->lease_ms > LEASE_MAX_MS)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "a lease has %u to %u ms, or 0", LEASE_MIN_MS,
                       LEASE_MAX_MS);
    }
    return name_is_valid(q->member) ? FERRY_OK
                                    : err_set(e, FERRY_ERR_BAD_NAME, "the member's name");
}

static bool is_over_quota(struct shard *s, struct request *r, const struct receive_request *q)
{
    const struct quota_cost least = {.bytes = 1, .messages = 1, .requests = 1};
    const struct seat *last = NULL;
    for (uint32_t i = 0; i < q->count && s->quota_count > 0; i++) {
        if (shard_is_topic_over_quota(s, r, q->items[i].group, &least, &last)) {
            return true;
        }
    }
    return false;
}

void shard_handle_receive(struct shard *s, struct request *r, const struct frame *f)
{
    struct receive_request q;
    struct err_text e = {{0}};
    enum ferry_err err = receive_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = check(&q, &e);
    }
    if (err == FERRY_OK && is_over_quota(s, r, &q)) {
        return;
    }
    if (err == FERRY_OK) {
        r->receive = new_receive(s, r, &q);
        err = r->receive != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, e.text);
        return;
    }
    struct waiting_receive *w = r->receive;
    for (uint32_t i = 0; i < w->count; i++) {
        if (try_place(s, &w->places[i])) {
            return;
        }
    }
    if (q.max_wait_ms == 0 || count_serving(w) == 0) {
        answer_nothing(s, r);
    } else {
        begin_to_wait(s, r, q.max_wait_ms);
    }
}
