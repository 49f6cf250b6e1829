/* Produce, append_cas and source_fence; and what comes of requests that wait for their entry. */
#include "server/shard_internal.h"

/* ---- Produce ---- */

static void finish_produce(struct shard *s, struct seat *seat, struct request *r)
{
    struct partition_ticket *t = &r->ticket;
    struct produce_reply reply = {.base_offset = t->base_offset,
                                  .duplicate = t->duplicate,
                                  .duplicate_count = t->duplicate_count,
                                  .scheduled = t->scheduled};
    struct buf b;
    (void)seat;
    s->counters.duplicates += t->duplicate_count + (t->duplicate ? 1 : 0);
    shard_begin_reply(r, &b, FERRY_OK);
    produce_reply_encode(&b, &reply);
    if (t->duplicates.size > 0 || t->dues.size > 0) {
        frame_begin_attachment(&b);
        buf_append_bytes(&b, buf_bytes(&t->duplicates));
        buf_append_bytes(&b, buf_bytes(&t->dues));
    }
    shard_send_reply(s, r, &b);
}

/* Where there is none, a replica that has some may lead: the next try goes there. */
enum ferry_err shard_check_room(struct shard *s, struct seat *seat, size_t bytes,
                                struct err_text *e)
{
    if (store_has_room(s->store, s->received_bytes + bytes)) {
        return FERRY_OK;
    }
    shard_lead_elsewhere(s, seat);
    return err_set(e, FERRY_ERR_STORAGE_FULL,
                   "%s has no room for %zu bytes more: free space or lower retention",
                   s->config.options->data, bytes);
}

/* Records of a batch that is not checked yet. */
uint32_t shard_count_records(struct bytes batch)
{
    struct batch_header h = {0};
    if (batch.size >= BATCH_HEADER_BYTES) {
        batch_header_read(batch, &h);
    }
    return h.count < BATCH_RECORDS_MAX ? h.count : BATCH_RECORDS_MAX;
}

static void handle_produce(struct shard *s, struct request *r, const struct frame *f)
{
    struct produce_request q;
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = produce_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = shard_check_room(s, seat, f->attachment.size, &e);
    }
    struct quota_cost cost = {
        .bytes = f->attachment.size, .messages = shard_count_records(f->attachment), .requests = 1};
    if (err == FERRY_OK && shard_is_over_quota(s, r, seat->topic, &cost)) {
        return;
    }
    if (err == FERRY_OK) {
        err = shard_take_credit(s, r, seat, f->attachment.size, &e);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
    if (err == FERRY_OK) {
        err =
            partition_produce(seat->partition, f->attachment, s->now_ms, s->now_us, &r->ticket, &e);
        shard_touch(s, seat);
    }
    if (err == FERRY_OK) {
        shard_charge_quota(s, r, seat->topic, &cost);
        s->counters.batches_in++;
        s->counters.bytes_in += f->attachment.size;
    }
    shard_settle_partition(s, r, seat, err, e.text);
}

/* ---- append_cas ---- */

static void finish_append_cas(struct shard *s, struct seat *seat, struct request *r)
{
    (void)seat;
    struct append_cas_reply reply = {.version = r->ticket.version,
                                     .base_offset = r->ticket.base_offset};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    append_cas_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void refuse_append_cas(struct shard *s, struct request *r, enum ferry_err err,
                              struct append_cas_refusal *refusal, const char *detail)
{
    struct buf b;
    s->counters.errors++;
    refusal->error = (struct error_reply){.detail = bytes_of_string(detail),
                                          .retry_after_ms = shard_retry_after(err)};
    shard_begin_reply(r, &b, err);
    append_cas_refusal_encode(&b, refusal);
    shard_send_reply(s, r, &b);
}

static void handle_append_cas(struct shard *s, struct request *r, const struct frame *f)
{
    struct append_cas_request q;
    struct append_cas_refusal refusal = {.refused_index = -1};
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = append_cas_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = shard_check_room(s, seat, f->attachment.size, &e);
    }
    if (err == FERRY_OK) {
        err = shard_take_credit(s, r, seat, f->attachment.size, &e);
    }
    if (err == FERRY_OK) {
        struct append_cas c = {.source = q.source,
                               .lane = q.lane,
                               .epoch = q.epoch,
                               .expect_version = q.expect_version,
                               .cursor = q.cursor,
                               .batch = f->attachment};
        err = partition_append_cas(seat->partition, &c, s->now_ms, s->now_us, &r->ticket, &refusal,
                                   &e);
        shard_touch(s, seat);
    }
    if (err != FERRY_OK) {
        char hint[ENDPOINT_MAX_BYTES + 1] = "";
        bool elsewhere = err == FERRY_ERR_NOT_LEADER && seat != NULL;
        refuse_append_cas(s, r, err, &refusal,
                          elsewhere ? shard_leader_hint(s, seat, hint) : e.text);
        return;
    }
    s->counters.batches_in++;
    s->counters.bytes_in += f->attachment.size;
}

/* ---- source_fence ---- */

static void finish_source_fence(struct shard *s, struct seat *seat, struct request *r)
{
    (void)seat;
    shard_reply_empty(s, r);
}

static void handle_source_fence(struct shard *s, struct request *r, const struct frame *f)
{
    struct source_fence_request q;
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = source_fence_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_source_fence(seat->partition, &q, s->now_ms, s->now_us, &r->ticket, &e);
    }
    shard_settle_partition(s, r, seat, err, e.text);
}

static const struct partition_command commands[] = {
    {COMMAND_PRODUCE, handle_produce, finish_produce},
    {COMMAND_APPEND_CAS, handle_append_cas, finish_append_cas},
    {COMMAND_SOURCE_FENCE, handle_source_fence, finish_source_fence},
};
static const struct partition_commands produce_commands = {commands,
                                                           sizeof(commands) / sizeof(commands[0])};

/* ---- All commands to a partition ---- */

const struct partition_command *shard_find_partition_command(uint16_t command)
{
    static const struct partition_commands *const all[] = {
        &produce_commands,      &shard_deliver_commands,  &shard_subscribe_commands,
        &shard_member_commands, &shard_schedule_commands, &shard_publish_commands,
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        for (size_t k = 0; k < all[i]->count; k++) {
            if (all[i]->rows[k].command == command) {
                return &all[i]->rows[k];
            }
        }
    }
    return NULL;
}

/* ---- Answers of a partition ---- */

static void finish(struct shard *s, struct seat *seat, struct request *r)
{
    const struct partition_command *row = shard_find_partition_command(r->command);
    must(row != NULL && row->finish != NULL);
    row->finish(s, seat, r);
}

void shard_settle_partition(struct shard *s, struct request *r, struct seat *seat,
                            enum ferry_err err, const char *detail)
{
    if (seat != NULL && err == FERRY_OK) {
        shard_touch(s, seat);
    }
    if (err != FERRY_OK) {
        shard_reply_seat_error(s, r, seat, err, detail);
    } else if (r->ticket.base.index == 0) {
        finish(s, seat, r);
    }
}

/* The outcome is not known: asked again with the same sequence, it is recognised. The detail is for
 * programs: where to ask. */
static void answer_lost(struct shard *s, struct seat *seat, struct request *r, enum ferry_err err)
{
    if (r->command == COMMAND_APPEND_CAS) {
        char hint[ENDPOINT_MAX_BYTES + 1] = "";
        struct append_cas_refusal refusal = {.refused_index = -1};
        refuse_append_cas(s, r, err, &refusal,
                          err == FERRY_ERR_NOT_LEADER ? shard_leader_hint(s, seat, hint) : "");
    } else if (r->command == COMMAND_RECEIVE) {
        shard_refuse_receive(s, r, err);
    } else {
        shard_reply_seat_error(s, r, seat, err, "");
    }
}

void shard_answer_partition(struct shard *s, struct seat *seat)
{
    for (struct partition_ticket *t; (t = partition_next_done(seat->partition)) != NULL;) {
        struct request *r = list_entry(t, struct request, ticket);
        if (t->base.err != FERRY_OK) {
            answer_lost(s, seat, r, t->base.err);
        } else {
            finish(s, seat, r);
        }
    }
}
