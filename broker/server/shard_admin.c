/* Shard 0's commands on topics, producers and sources; and the mail between shards that opens and
 * drops partitions. */
#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

#define REPLICAS_DEFAULT 1u

/* ---- Rollouts: a topic made or deleted on all shards ---- */

static struct rollout *find_rollout(struct shard *s, const struct ferry_id *topic_id)
{
    for (struct list *n = s->rollouts.next; n != &s->rollouts; n = n->next) {
        struct rollout *r = list_entry(n, struct rollout, node);
        if (id_equal(&r->topic_id, topic_id)) {
            return r;
        }
    }
    return NULL;
}

void shard_forget_rollouts(struct shard *s)
{
    for (struct list *n; (n = list_pop_front(&s->rollouts)) != NULL;) {
        mem_free(list_entry(n, struct rollout, node));
    }
}

static void reply_metadata(struct shard *s, struct request *r, const struct meta_topic *topic);

static void finish_rollout_request(struct shard *s, struct request *r, enum ferry_err err,
                                   const struct ferry_id *topic_id)
{
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "a partition could not be opened: see the broker's log");
        return;
    }
    if (r->command == COMMAND_TOPIC_CREATE) {
        struct topic_create_reply reply = {.topic_id = *topic_id};
        struct buf b;
        shard_begin_reply(r, &b, FERRY_OK);
        topic_create_reply_encode(&b, &reply);
        shard_send_reply(s, r, &b);
    } else if (r->command == COMMAND_METADATA) {
        struct frame f;
        struct metadata_request q;
        struct err_text e;
        must(frame_parse(net_message_bytes(&r->message), &f, &e) == FERRY_OK);
        must(metadata_request_decode(f.body, &q) == FERRY_OK);
        const struct meta_topic *topic = meta_topic_find(s->meta, q.topic);
        if (topic == NULL) {
            shard_reply_error(s, r, FERRY_ERR_UNKNOWN_TOPIC, "");
        } else {
            reply_metadata(s, r, topic);
        }
    } else {
        shard_reply_empty(s, r);
    }
}

static void finish_rollout(struct shard *s, struct rollout *rollout)
{
    list_remove(&rollout->node);
    if (rollout->request != NULL) {
        finish_rollout_request(s, rollout->request, rollout->err, &rollout->topic_id);
    }
    mem_free(rollout);
}

/* ---- Mail to the shards ---- */

static void post(struct shard *s, const struct mail *mail)
{
    struct shard *to = s->peers[mail->kind == MAIL_OPENED || mail->kind == MAIL_DROPPED
                                    ? 0
                                    : mail->group % s->peer_count];
    if (mailbox_post(&to->mailbox, mail) != FERRY_OK) {
        /* Without it a topic would be half there. Reopening from disk repeats it all. */
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
    }
}

static void post_partitions(struct shard *s, const struct meta_topic *topic, enum mail_kind kind)
{
    for (uint32_t p = 0; p < topic->partitions; p++) {
        struct mail mail = {.kind = kind,
                            .group = topic->first_group + p,
                            .topic_id = topic->id,
                            .partition = (int32_t)p,
                            .settings = topic->settings};
        post(s, &mail);
    }
}

/* Every partition of the catalog is opened, and what the catalog does not know is deleted. */
void shard_send_catalog(struct shard *s)
{
    s->catalog_sent = true;
    const struct meta_topic *topic;
    for (size_t i = 0; (topic = meta_topic_at(s->meta, i)) != NULL; i++) {
        s->opening += topic->partitions;
        post_partitions(s, topic, MAIL_OPEN);
    }
    for (uint32_t i = 0; i < s->peer_count; i++) {
        struct mail sweep = {.kind = MAIL_SWEEP, .group = i};
        post(s, &sweep);
    }
    atomic_store(&s->ready, s->opening == 0);
}

static void roll_out(struct shard *s, const struct meta_change *change)
{
    struct rollout *rollout = mem_zalloc(1, sizeof(*rollout));
    if (rollout == NULL) {
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
        return;
    }
    list_init(&rollout->node);
    rollout->topic_id = change->topic.id;
    rollout->remaining = change->topic.partitions;
    list_push_back(&s->rollouts, &rollout->node);
    post_partitions(s, &change->topic, change->created ? MAIL_OPEN : MAIL_DROP);
}

/* ---- Mail from the shards ---- */

static void take_opened(struct shard *s, const struct mail *mail)
{
    struct rollout *rollout = find_rollout(s, &mail->topic_id);
    if (rollout != NULL) {
        rollout->err = mail->err != FERRY_OK ? mail->err : rollout->err;
        if (--rollout->remaining == 0) {
            finish_rollout(s, rollout);
        }
        return;
    }
    if (s->opening > 0 && mail->err != FERRY_OK) {
        (void)atomic_fetch_add(&s->unserved, 1);
    }
    if (s->opening > 0 && --s->opening == 0) {
        atomic_store(&s->ready, true);
    }
}

static void reply_opened(struct shard *s, const struct seat *seat, enum mail_kind kind)
{
    struct mail mail = {
        .kind = kind, .group = seat->group, .topic_id = seat->topic_id, .err = seat->err};
    post(s, &mail);
}

void shard_announce_ready(struct shard *s, struct seat *seat)
{
    enum ferry_err err = replica_failure(seat->replica);
    bool gave_up = err != FERRY_OK && atomic_load(&s->failure) == FERRY_OK;
    if (!seat->announced && (gave_up || replica_is_ready(seat->replica))) {
        /* One that cannot apply its log is told as such: nobody waits for it for ever. */
        seat->announced = true;
        seat->err = err;
        seat->told_end_offset = partition_end_offset(seat->partition);
        reply_opened(s, seat, MAIL_OPENED);
    }
}

static void open_partition(struct shard *s, const struct mail *mail)
{
    if (shard_find_seat(s, mail->group) != NULL) {
        return;
    }
    struct seat *seat = NULL;
    enum ferry_err err = shard_add_seat(s, mail->group, &seat);
    if (err != FERRY_OK) {
        shard_fail_store(s, err);
        return;
    }
    const struct broker_options *o = s->config.options;
    struct partition_config config = {
        .group = mail->group,
        .topic_id = mail->topic_id,
        .partition = mail->partition,
        .self = (raft_id)o->node_id,
        .initial = {.voter_count = 1, .voters = {(raft_id)o->node_id}},
        .seed = s->config.seed ^ mail->group,
        .store = s->store,
        .settings = mail->settings,
        .message_max_bytes = (size_t)o->message_max_bytes,
        .batch_max_bytes = (size_t)o->message_max_bytes + BATCH_ROOM_BYTES};
    struct err_text e = {{0}};
    seat->topic_id = mail->topic_id;
    seat->err = partition_open(&config, s->now_us, &seat->partition, &e);
    if (seat->err != FERRY_OK) {
        log_line(LOG_ERROR, "shard", "partition %d (group %llu) is not served: %s", mail->partition,
                 (unsigned long long)mail->group, e.text);
        seat->announced = true;
        reply_opened(s, seat, MAIL_OPENED);
        return;
    }
    seat->replica = partition_replica(seat->partition);
    heap_set(&s->timers, &seat->timer, s->now_us);
}

static void drop_partition(struct shard *s, const struct mail *mail)
{
    struct seat *seat = shard_find_seat(s, mail->group);
    if (seat == NULL) {
        return;
    }
    seat->dropping = true;
    if (seat->replica == NULL) {
        shard_close_dropped(s, seat);
    } else {
        shard_touch(s, seat); /* Closed when the turn settles and nothing waits any more. */
    }
}

static void take(struct shard *s, const struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_OPEN:
        open_partition(s, mail);
        return;
    case MAIL_DROP:
        drop_partition(s, mail);
        return;
    case MAIL_SWEEP:
        s->knows_catalog = true;
        if (shard_sweep(s) != FERRY_OK) {
            log_line(LOG_WARN, "shard",
                     "what deleted topics left behind was not found now; the "
                     "next start looks again");
        }
        return;
    case MAIL_OPENED:
    case MAIL_DROPPED:
        take_opened(s, mail);
        return;
    }
}

void shard_take_mail(struct shard *s)
{
    for (struct mail *mail; (mail = mailbox_take(&s->mailbox)) != NULL;) {
        take(s, mail);
        mem_free(mail);
    }
}

/* ---- Metadata ---- */

static void fill_endpoints(const struct shard *s, struct metadata_reply *reply)
{
    reply->cluster_id = store_cluster_id(s->store);
    reply->endpoint_count = s->peer_count;
    for (uint32_t i = 0; i < s->peer_count; i++) {
        reply->endpoints[i] =
            (struct metadata_endpoint){.node_id = (uint32_t)s->config.options->node_id,
                                       .shard = i,
                                       .endpoint = bytes_of_string(shard_endpoint(s->peers[i]))};
    }
}

static void reply_metadata(struct shard *s, struct request *r, const struct meta_topic *topic)
{
    struct metadata_reply *reply = s->metadata;
    *reply = (struct metadata_reply){0};
    fill_endpoints(s, reply);
    if (topic != NULL) {
        reply->topic_id = topic->id;
        reply->replicas = topic->replicas;
        reply->retention_ms = topic->settings.retention_ms;
        reply->retention_bytes = topic->settings.retention_bytes;
        reply->dedupe_window_ms = topic->settings.dedupe_window_ms;
        reply->partition_count = topic->partitions;
        for (uint32_t p = 0; p < topic->partitions; p++) {
            uint64_t group = topic->first_group + p;
            reply->partitions[p] = (struct metadata_partition){
                .group = group, .endpoint = (uint32_t)(group % s->peer_count)};
        }
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    metadata_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static int64_t or_no_limit(int64_t configured)
{
    return configured == 0 ? -1 : configured;
}

/* What the request leaves open is the broker's default; -1 is "no limit" in both. */
static void complete_spec(const struct shard *s, struct topic_create_request *q)
{
    const struct broker_options *o = s->config.options;
    q->partitions = q->partitions == 0 ? (uint32_t)o->topic_partitions : q->partitions;
    q->replicas = q->replicas == 0 ? REPLICAS_DEFAULT : q->replicas;
    q->retention_ms = q->retention_ms == 0 ? or_no_limit(o->topic_retention_ms) : q->retention_ms;
    q->retention_bytes =
        q->retention_bytes == 0 ? or_no_limit(o->topic_retention_bytes) : q->retention_bytes;
    q->dedupe_window_ms =
        q->dedupe_window_ms == 0 ? or_no_limit(o->topic_dedupe_window_ms) : q->dedupe_window_ms;
}

static void create_topic(struct shard *s, struct request *r, struct topic_create_request *q)
{
    struct err_text e = {{0}};
    struct ferry_id id = id_gen_uuid7(&s->ids, s->now_ms);
    complete_spec(s, q);
    enum ferry_err err =
        meta_topic_create(s->meta, q, &id, s->now_ms, s->now_us, &r->meta_ticket, &e);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, e.text);
        return;
    }
    shard_touch(s, s->meta_seat);
    if (r->meta_ticket.base.index != 0) {
        return;
    }
    /* It exists. If it is still being opened, wait for that. */
    struct rollout *rollout = find_rollout(s, &r->meta_ticket.topic_id);
    if (rollout != NULL && rollout->request != NULL) {
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "the topic is being opened");
    } else if (rollout != NULL) {
        rollout->request = r;
    } else {
        finish_rollout_request(s, r, FERRY_OK, &r->meta_ticket.topic_id);
    }
}

static void handle_metadata(struct shard *s, struct request *r, const struct frame *f)
{
    struct metadata_request q;
    enum ferry_err err = metadata_request_decode(f->body, &q);
    if (err == FERRY_OK && !replica_is_ready(s->meta_seat->replica)) {
        err = FERRY_ERR_NOT_READY;
    }
    const struct meta_topic *topic = NULL;
    if (err == FERRY_OK && q.topic.size > 0) {
        topic = meta_topic_find(s->meta, q.topic);
        if (topic == NULL && s->config.options->topic_auto_create && name_is_valid(q.topic)) {
            struct topic_create_request create = {.name = q.topic};
            create_topic(s, r, &create);
            return;
        }
        err = topic == NULL ? FERRY_ERR_UNKNOWN_TOPIC : FERRY_OK;
        if (topic != NULL && find_rollout(s, &topic->id) != NULL) {
            err = FERRY_ERR_NOT_READY; /* Its partitions are not all open yet. */
        }
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    reply_metadata(s, r, topic);
}

static void handle_topic_create(struct shard *s, struct request *r, const struct frame *f)
{
    struct topic_create_request q;
    enum ferry_err err = topic_create_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    create_topic(s, r, &q);
}

static void settle_meta(struct shard *s, struct request *r, enum ferry_err err)
{
    shard_touch(s, s->meta_seat);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
    }
}

static void handle_topic_delete(struct shard *s, struct request *r, const struct frame *f)
{
    struct topic_delete_request q;
    enum ferry_err err = topic_delete_request_decode(f->body, &q);
    const struct meta_topic *topic = err == FERRY_OK ? meta_topic_find(s->meta, q.name) : NULL;
    if (err == FERRY_OK && !atomic_load(&s->ready)) {
        err = FERRY_ERR_NOT_READY; /* The start counts partitions as they open: none may go. */
    }
    if (topic != NULL && find_rollout(s, &topic->id) != NULL) {
        err = FERRY_ERR_NOT_READY; /* It is being made or deleted right now. */
    }
    if (err == FERRY_OK) {
        r->meta_ticket.topic_id = topic != NULL ? topic->id : (struct ferry_id){{0}};
        err = meta_topic_delete(s->meta, q.name, s->now_ms, s->now_us, &r->meta_ticket);
    }
    settle_meta(s, r, err);
}

static void handle_topic_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct topic_list_request q;
    enum ferry_err err = topic_list_request_decode(f->body, &q);
    if (err == FERRY_OK && !replica_is_ready(s->meta_seat->replica)) {
        err = FERRY_ERR_NOT_READY;
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct names_reply *reply = s->names;
    size_t at = meta_topic_after(s->meta, q.after);
    const struct meta_topic *topic;
    reply->count = 0;
    for (; reply->count < LIST_NAMES_MAX && (topic = meta_topic_at(s->meta, at)) != NULL; at++) {
        reply->names[reply->count++] = bytes_of_string(topic->name);
    }
    reply->more = meta_topic_at(s->meta, at) != NULL;
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    names_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

/* ---- Producers and sources ---- */

static void handle_producer_init(struct shard *s, struct request *r, const struct frame *f)
{
    struct producer_init_request q;
    enum ferry_err err = producer_init_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = meta_producer_init(s->meta, q.name, s->now_ms, s->now_us, &r->meta_ticket);
    }
    settle_meta(s, r, err);
}

static void finish_producer_init(struct shard *s, struct request *r)
{
    struct producer_init_reply reply = {.producer_id = r->meta_ticket.producer_id,
                                        .epoch = r->meta_ticket.producer_epoch};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    producer_init_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void reply_elect(struct shard *s, struct request *r, const struct source_elect_request *q,
                        bool granted)
{
    struct source_elect_reply reply;
    meta_source_show(s->meta, &q->source, q->lane, s->now_us, &reply);
    reply.granted = granted;
    if (granted) {
        reply.epoch = r->meta_ticket.source_epoch;
        reply.retry_ms = 0;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    source_elect_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void finish_elect(struct shard *s, struct request *r)
{
    struct frame f;
    struct source_elect_request q;
    struct err_text e;
    must(frame_parse(net_message_bytes(&r->message), &f, &e) == FERRY_OK);
    must(source_elect_request_decode(f.body, &q) == FERRY_OK);
    reply_elect(s, r, &q, true);
}

static void handle_source_elect(struct shard *s, struct request *r, const struct frame *f)
{
    struct source_elect_request q;
    bool granted = false;
    enum ferry_err err = source_elect_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = meta_source_elect(s->meta, &q, s->now_ms, s->now_us, &r->meta_ticket, &granted);
    }
    if (err == FERRY_OK && r->meta_ticket.base.index == 0) {
        reply_elect(s, r, &q, granted);
        return;
    }
    settle_meta(s, r, err);
}

static void handle_source_resign(struct shard *s, struct request *r, const struct frame *f)
{
    struct source_resign_request q;
    enum ferry_err err = source_resign_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = meta_source_resign(s->meta, &q, s->now_us);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    shard_reply_empty(s, r);
}

static void handle_source_checkpoint(struct shard *s, struct request *r, const struct frame *f)
{
    struct source_checkpoint_request q;
    enum ferry_err err = source_checkpoint_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = meta_source_checkpoint(s->meta, &q, s->now_ms, s->now_us, &r->meta_ticket);
    }
    settle_meta(s, r, err);
}

/* ---- Dispatch and answers ---- */

typedef void admin_handler(struct shard *s, struct request *r, const struct frame *f);

static admin_handler *find_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_METADATA:
        return handle_metadata;
    case COMMAND_TOPIC_CREATE:
        return handle_topic_create;
    case COMMAND_TOPIC_DELETE:
        return handle_topic_delete;
    case COMMAND_TOPIC_LIST:
        return handle_topic_list;
    case COMMAND_PRODUCER_INIT:
        return handle_producer_init;
    case COMMAND_SOURCE_ELECT:
        return handle_source_elect;
    case COMMAND_SOURCE_RESIGN:
        return handle_source_resign;
    case COMMAND_SOURCE_CHECKPOINT:
        return handle_source_checkpoint;
    default:
        return NULL;
    }
}

bool shard_handle_admin(struct shard *s, struct request *r, const struct frame *f)
{
    admin_handler *handler = find_handler(f->command);
    if (handler == NULL) {
        return false;
    }
    if (!shard_is_first(s)) {
        shard_reply_error(s, r, FERRY_ERR_NOT_LEADER, shard_endpoint(s->peers[0]));
    } else {
        handler(s, r, f);
    }
    return true;
}

/* The topic's log entry is applied; the answer waits until its partitions are open, or closed. */
static void await_rollout(struct shard *s, struct request *r)
{
    struct rollout *rollout = find_rollout(s, &r->meta_ticket.topic_id);
    if (rollout == NULL) {
        /* Another request made or deleted it in the same turn. */
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "the topic was just changed: ask again");
    } else if (rollout->request != NULL) {
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "the topic is being changed: ask again");
    } else {
        rollout->request = r;
    }
}

static void answer(struct shard *s, struct request *r)
{
    switch (r->command) {
    case COMMAND_PRODUCER_INIT:
        finish_producer_init(s, r);
        return;
    case COMMAND_SOURCE_ELECT:
        finish_elect(s, r);
        return;
    case COMMAND_SOURCE_CHECKPOINT:
        shard_reply_empty(s, r);
        return;
    default:
        await_rollout(s, r);
    }
}

void shard_answer_meta(struct shard *s)
{
    for (struct meta_change *c; (c = meta_next_change(s->meta)) != NULL;) {
        if (s->catalog_sent) {
            roll_out(s, c);
        } /* Else it is replayed: the catalog has it. */
        mem_free(c);
    }
    for (struct meta_ticket *t; (t = meta_next_done(s->meta)) != NULL;) {
        struct request *r = list_entry(t, struct request, meta_ticket);
        if (t->base.err != FERRY_OK) {
            shard_reply_error(s, r, t->base.err, "the broker was interrupted: ask again");
        } else {
            answer(s, r);
        }
    }
    enum ferry_err err = replica_failure(meta_replica(s->meta));
    if (err != FERRY_OK && atomic_load(&s->failure) == FERRY_OK && !atomic_load(&s->stop)) {
        shard_fail_store(s, err); /* Without its catalog the shard cannot serve anything. */
    }
    if (!s->catalog_sent && replica_is_ready(s->meta_seat->replica)) {
        shard_send_catalog(s);
    }
}
