/* Subscriptions: made, changed, reset, claimed, committed, deleted. */
#include "server/shard_internal.h"

static struct bytes who(const struct shard *s, const struct request *r)
{
    return bytes_of_string(shard_client_name(s, r));
}

static void handle_create(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_create_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_create_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_make(seat->partition, &q, who(s, r), s->now_ms, s->now_us,
                                          &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void handle_delete(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_delete_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_delete_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_delete(seat->partition, q.name, s->now_ms, s->now_us,
                                            &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void handle_commit(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_commit_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_commit_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_commit_as(seat->partition, q.name, q.position, q.epoch,
                                               s->now_ms, s->now_us, &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void handle_alter(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_alter_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_alter_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_alter(seat->partition, &q, who(s, r), s->now_ms, s->now_us,
                                           &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void handle_reset(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_reset_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_reset_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_reset(seat->partition, &q, who(s, r), s->now_ms, s->now_us,
                                           &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void handle_claim(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_claim_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_claim_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_claim(seat->partition, &q, s->now_ms, s->now_us, &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void encode_answer(struct buf *b, uint16_t command, const struct partition_ticket *t)
{
    struct subscription_create_reply created = {.position = t->position};
    struct subscription_commit_reply committed = {.position = t->position};
    struct subscription_claim_reply claimed = {.position = t->position};
    struct subscription_reset_reply reset = {.from = t->base_offset, .to = t->position};
    switch (command) {
    case COMMAND_SUBSCRIPTION_CREATE:
        subscription_create_reply_encode(b, &created);
        return;
    case COMMAND_SUBSCRIPTION_COMMIT:
        subscription_commit_reply_encode(b, &committed);
        return;
    case COMMAND_SUBSCRIPTION_CLAIM:
        subscription_claim_reply_encode(b, &claimed);
        return;
    case COMMAND_SUBSCRIPTION_RESET:
        subscription_reset_reply_encode(b, &reset);
        return;
    default:
        empty_encode(b);
    }
}

static void finish(struct shard *s, struct seat *seat, struct request *r)
{
    struct buf b;
    (void)seat;
    shard_begin_reply(r, &b, FERRY_OK);
    encode_answer(&b, r->command, &r->ticket);
    shard_send_reply(s, r, &b);
}

static const struct partition_command commands[] = {
    {COMMAND_SUBSCRIPTION_CREATE, handle_create, finish},
    {COMMAND_SUBSCRIPTION_DELETE, handle_delete, finish},
    {COMMAND_SUBSCRIPTION_COMMIT, handle_commit, finish},
    {COMMAND_SUBSCRIPTION_ALTER, handle_alter, finish},
    {COMMAND_SUBSCRIPTION_RESET, handle_reset, finish},
    {COMMAND_SUBSCRIPTION_CLAIM, handle_claim, finish},
};
const struct partition_commands shard_subscribe_commands = {commands,
                                                            sizeof(commands) / sizeof(commands[0])};
