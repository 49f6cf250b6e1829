/* Shard 0's commands on topics, producers and sources; and who answers the commands of the metadata
 * group: its leader alone, but for questions that any copy can answer. */
#include "base/mem.h"
#include "server/shard_internal.h"

/* ---- Who leads the metadata ---- */

uint32_t shard_metadata_leader(const struct shard *s)
{
    return s->meta != NULL ? node_of_member(replica_leader(s->meta_seat->replica)) : 0;
}

const char *shard_controller_hint(const struct shard *s, char text[ENDPOINT_MAX_BYTES + 1])
{
    uint32_t leader = shard_metadata_leader(s);
    const struct node *n = leader != 0 ? shard_find_node(s, leader) : NULL;
    text[0] = '\0';
    if (n != NULL && n->member != s->self) {
        (void)node_endpoint(bytes_of_string(n->client), 0, text);
    }
    return text;
}

bool shard_leads_metadata(struct shard *s, struct request *r)
{
    enum ferry_err err =
        s->meta != NULL ? replica_check_leader(s->meta_seat->replica) : FERRY_ERR_NOT_READY;
    char hint[ENDPOINT_MAX_BYTES + 1];
    if (err == FERRY_OK) {
        return true;
    }
    shard_reply_error(s, r, err, err == FERRY_ERR_NOT_LEADER ? shard_controller_hint(s, hint) : "");
    return false;
}

void shard_settle_meta(struct shard *s, struct request *r, enum ferry_err err, const char *detail)
{
    shard_touch(s, s->meta_seat);
    if (err == FERRY_ERR_NOT_LEADER) {
        char hint[ENDPOINT_MAX_BYTES + 1];
        shard_reply_error(s, r, err, shard_controller_hint(s, hint));
    } else if (err != FERRY_OK) {
        shard_reply_error(s, r, err, detail);
    }
}

/* ---- Topics ---- */

static int64_t or_no_limit(int64_t configured)
{
    return configured == 0 ? -1 : configured;
}

/* What the request leaves open is the broker's default; -1 is "no limit" in both. */
static void complete_spec(const struct shard *s, struct topic_create_request *q)
{
    const struct broker_options *o = s->config.options;
    q->partitions = q->partitions == 0 ? (uint32_t)o->topic_partitions : q->partitions;
    q->retention_ms = q->retention_ms == 0 ? or_no_limit(o->topic_retention_ms) : q->retention_ms;
    q->retention_bytes =
        q->retention_bytes == 0 ? or_no_limit(o->topic_retention_bytes) : q->retention_bytes;
    q->dedupe_window_ms =
        q->dedupe_window_ms == 0 ? or_no_limit(o->topic_dedupe_window_ms) : q->dedupe_window_ms;
}

void shard_finish_topic(struct shard *s, struct request *r, enum ferry_err err,
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
        shard_dispatch_again(s, r);
    } else {
        shard_reply_empty(s, r);
    }
}

/* What the log says exists; if it is still being opened, wait for that. */
static void answer_existing(struct shard *s, struct request *r)
{
    struct rollout *rollout = shard_find_rollout(s, &r->meta_ticket.topic_id);
    if (rollout == NULL) {
        rollout = shard_roll_out_again(s, &r->meta_ticket.topic_id);
    }
    if (rollout != NULL && rollout->request != NULL) {
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "the topic is being opened");
    } else if (rollout != NULL) {
        shard_await_rollout(s, r);
    } else {
        shard_finish_topic(s, r, FERRY_OK, &r->meta_ticket.topic_id);
    }
}

void shard_create_topic(struct shard *s, struct request *r, struct topic_create_request *q)
{
    struct err_text e = {{0}};
    struct ferry_id id = id_gen_uuid7(&s->ids, s->now_ms);
    complete_spec(s, q);
    /* Before this node is registered there is nowhere to place it. */
    enum ferry_err err =
        s->swept ? meta_topic_create(s->meta, q, &id, s->now_ms, s->now_us, &r->meta_ticket, &e)
                 : FERRY_ERR_NOT_READY;
    bool waits = r->meta_ticket.waits;
    shard_settle_meta(s, r, err, e.text);
    if (err == FERRY_OK && !waits) {
        answer_existing(s, r);
    }
}

static void handle_topic_create(struct shard *s, struct request *r, const struct frame *f)
{
    struct topic_create_request q;
    enum ferry_err err = topic_create_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    shard_create_topic(s, r, &q);
}

static void handle_topic_delete(struct shard *s, struct request *r, const struct frame *f)
{
    struct topic_delete_request q;
    enum ferry_err err = topic_delete_request_decode(f->body, &q);
    const struct meta_topic *topic = err == FERRY_OK ? meta_topic_find(s->meta, q.name) : NULL;
    if (err == FERRY_OK && !atomic_load(&s->ready)) {
        err = FERRY_ERR_NOT_READY; /* The start counts partitions as they open: none may go. */
    }
    if (topic != NULL && shard_find_rollout(s, &topic->id) != NULL) {
        err = FERRY_ERR_NOT_READY; /* It is being made or deleted right now. */
    }
    if (err == FERRY_OK) {
        r->meta_ticket.topic_id = topic != NULL ? topic->id : (struct ferry_id){{0}};
        err = meta_topic_delete(s->meta, q.name, s->now_ms, s->now_us, &r->meta_ticket);
    }
    shard_settle_meta(s, r, err, "");
}

static void handle_topic_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct topic_list_request q;
    enum ferry_err err = topic_list_request_decode(f->body, &q);
    if (err == FERRY_OK && !s->catalog_sent) {
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
    shard_settle_meta(s, r, err, "");
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
    if (err == FERRY_OK && !r->meta_ticket.waits) {
        reply_elect(s, r, &q, granted);
        return;
    }
    shard_settle_meta(s, r, err, "");
}

static void handle_source_show(struct shard *s, struct request *r, const struct frame *f)
{
    struct source_show_request q;
    struct source_elect_reply reply;
    enum ferry_err err = source_show_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    meta_source_show(s->meta, &q.source, q.lane, s->now_us, &reply);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    source_elect_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
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
    shard_settle_meta(s, r, err, "");
}

/* ---- Dispatch and answers ---- */

/* Any copy of the metadata answers these. */
static request_handler *find_question(uint16_t command)
{
    switch (command) {
    case COMMAND_METADATA:
        return shard_handle_metadata;
    case COMMAND_TOPIC_LIST:
        return handle_topic_list;
    case COMMAND_QUOTA_LIST:
        return shard_find_quota_handler(command);
    case COMMAND_NODE_LIST:
    case COMMAND_MOVE_LIST:
        return shard_find_cluster_handler(command);
    default:
        return NULL;
    }
}

static request_handler *find_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_TOPIC_CREATE:
        return handle_topic_create;
    case COMMAND_TOPIC_DELETE:
        return handle_topic_delete;
    case COMMAND_PRODUCER_INIT:
        return handle_producer_init;
    case COMMAND_SOURCE_ELECT:
        return handle_source_elect;
    case COMMAND_SOURCE_SHOW:
        return handle_source_show;
    case COMMAND_SOURCE_RESIGN:
        return handle_source_resign;
    case COMMAND_SOURCE_CHECKPOINT:
        return handle_source_checkpoint;
    case COMMAND_QUOTA_SET:
        return shard_find_quota_handler(command);
    default:
        break;
    }
    request_handler *handler = shard_find_cluster_handler(command);
    return handler != NULL ? handler : shard_find_lease_handler(command);
}

bool shard_handle_admin(struct shard *s, struct request *r, const struct frame *f)
{
    request_handler *question = find_question(f->command);
    request_handler *handler = question != NULL ? question : find_handler(f->command);
    if (handler == NULL) {
        return false;
    }
    if (!shard_is_first(s)) {
        shard_reply_error(s, r, FERRY_ERR_NOT_LEADER, shard_endpoint(s->peers[0]));
    } else if (s->meta == NULL) {
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "this node has not found its cluster yet");
    } else if (question != NULL || shard_leads_metadata(s, r)) {
        handler(s, r, f);
    }
    return true;
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
    case COMMAND_QUOTA_SET:
        shard_reply_empty(s, r);
        return;
    default:
        shard_await_rollout(s, r);
    }
}

static void answer_done(struct shard *s, struct request *r, enum ferry_err err)
{
    if (r->task.kind != 0) {
        shard_finish_task(s, r);
    } else if (shard_finish_cluster(s, r, err) || shard_finish_lease(s, r, err)) {
        return;
    } else if (err == FERRY_ERR_NOT_LEADER) {
        char hint[ENDPOINT_MAX_BYTES + 1];
        shard_reply_error(s, r, err, shard_controller_hint(s, hint));
    } else if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
    } else {
        answer(s, r);
    }
}

static void look_at_role(struct shard *s)
{
    bool leads = replica_is_ready(s->meta_seat->replica);
    if (s->meta_leads && !leads) {
        shard_expire_rollouts(s, true);
    }
    if (leads && !s->meta_leads) {
        s->join.due_us = s->now_us; /* It registers itself. */
    }
    s->meta_leads = leads;
}

void shard_answer_meta(struct shard *s)
{
    look_at_role(s);
    for (struct meta_change *c; (c = meta_next_change(s->meta)) != NULL;) {
        shard_take_change(s, c);
        mem_free(c);
    }
    for (struct meta_ticket *t; (t = meta_next_done(s->meta)) != NULL;) {
        answer_done(s, list_entry(t, struct request, meta_ticket), t->base.err);
    }
    enum ferry_err err = replica_failure(s->meta_seat->replica);
    if (err != FERRY_OK && atomic_load(&s->failure) == FERRY_OK && !atomic_load(&s->stop)) {
        shard_fail_store(s, err); /* Without its catalog the shard cannot serve anything. */
    }
}
