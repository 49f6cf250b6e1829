/* GROUP_LIST: the groups of one shard, as it sees them. PARTITION_TRANSFER. */
#include <stdlib.h>

#include "base/mem.h"
#include "server/shard_internal.h"

#define TRANSFER_MS 5000

/* ---- GROUP_LIST ---- */

static enum group_state state_of(const struct seat *seat)
{
    if (seat->replica == NULL) {
        return seat->waiting != NULL ? GROUP_INSTALLING : GROUP_FAILED;
    }
    switch (replica_state(seat->replica)) {
    case REPLICA_FOLLOWING:
        return GROUP_FOLLOWER;
    case REPLICA_LEADING:
        return GROUP_LEADER_NOT_READY;
    case REPLICA_READY:
        return GROUP_LEADER;
    case REPLICA_INSTALLING:
        return GROUP_INSTALLING;
    case REPLICA_DAMAGED:
        return GROUP_DAMAGED;
    case REPLICA_FAILED:
        break;
    }
    return GROUP_FAILED;
}

static void add_member(const struct shard *s, struct group_list_item *item, raft_id id,
                       enum group_member_kind kind, const struct raft_progress *peers, size_t count,
                       bool leads)
{
    if (item->member_count == GROUP_MEMBERS_MAX) {
        return; /* Of group 0 with many learners: the first ones. */
    }
    struct group_member *m = &item->members[item->member_count++];
    *m = (struct group_member){.node_id = node_of_member(id), .member = id, .kind = kind};
    m->match = leads && id == s->self ? item->last : 0;
    for (size_t i = 0; i < count; i++) {
        if (peers[i].id == id) {
            m->match = peers[i].match;
            m->snapshotting = peers[i].snapshotting;
            m->silent_ms = peers[i].heard_us == 0 ? -1 : (s->now_us - peers[i].heard_us) / 1000;
        }
    }
    /* A quiet group is silent by agreement: then it is the node that is listened to. */
    const struct node *n = shard_find_member(s, id);
    if (item->quiet && n != NULL && id != s->self) {
        m->silent_ms = (s->now_us - n->far[item->group % n->shards].heard_us) / 1000;
    }
}

static void add_members(const struct shard *s, const struct seat *seat,
                        struct group_list_item *item)
{
    struct raft_progress peers[RAFT_PEERS_MAX];
    const struct raft_members *m = replica_members(seat->replica);
    size_t count = replica_progress(seat->replica, peers, RAFT_PEERS_MAX);
    bool leads = item->state == GROUP_LEADER || item->state == GROUP_LEADER_NOT_READY;
    for (uint32_t i = 0; i < m->voter_count; i++) {
        add_member(s, item, m->voters[i], GROUP_VOTER, peers, count, leads);
    }
    for (uint32_t i = 0; i < m->old_voter_count; i++) {
        bool stays = false;
        for (uint32_t k = 0; k < m->voter_count; k++) {
            stays = stays || m->voters[k] == m->old_voters[i];
        }
        if (!stays) {
            add_member(s, item, m->old_voters[i], GROUP_LEAVING, peers, count, leads);
        }
    }
    for (uint32_t i = 0; i < m->learner_count; i++) {
        add_member(s, item, m->learners[i], GROUP_LEARNER, peers, count, leads);
    }
}

static void fill_group(const struct shard *s, const struct seat *seat, struct group_list_item *item)
{
    *item = (struct group_list_item){.group = seat->group,
                                     .partition = (uint32_t)seat->index,
                                     .state = (uint32_t)state_of(seat)};
    if (seat->replica == NULL) {
        return;
    }
    item->term = replica_term(seat->replica);
    item->commit = replica_commit(seat->replica);
    item->applied = replica_applied(seat->replica);
    item->last = replica_last_index(seat->replica);
    item->leader_node = node_of_member(replica_leader(seat->replica));
    item->quiet = replica_is_quiet(seat->replica);
    (void)replica_snapshot_bytes(seat->replica, &item->copied_bytes, &item->copy_total_bytes);
    if (seat->partition != NULL) {
        item->topic = bytes_of_string(seat->topic);
        item->start_offset = partition_start_offset(seat->partition);
        item->end_offset = partition_end_offset(seat->partition);
        item->size_bytes = partition_size_bytes(seat->partition);
    }
    add_members(s, seat, item);
}

static int compare_groups(const void *a, const void *b)
{
    const struct seat *const *x = a, *const *y = b;
    return ((*x)->group > (*y)->group) - ((*x)->group < (*y)->group);
}

/* Seats are in no order: all that qualify, sorted. The answer to a person's question may cost it.
 */
static struct seat **sorted_seats(const struct shard *s, const struct group_list_request *q,
                                  size_t *count)
{
    struct seat **seats = mem_zalloc(s->seats.count + 1, sizeof(*seats));
    size_t at = 0;
    *count = 0;
    for (struct seat *seat; seats != NULL && (seat = map_next(&s->seats, &at)) != NULL;) {
        bool metadata = seat->group == META_GROUP && q->include_metadata && q->after == 0;
        if (metadata || (seat->group != META_GROUP && seat->group > q->after)) {
            seats[(*count)++] = seat;
        }
    }
    if (seats != NULL) {
        qsort(seats, *count, sizeof(*seats), compare_groups);
    }
    return seats;
}

void shard_handle_group_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct group_list_request q;
    size_t count = 0;
    enum ferry_err err = group_list_request_decode(f->body, &q);
    struct seat **seats = err == FERRY_OK ? sorted_seats(s, &q, &count) : NULL;
    if (seats == NULL) {
        shard_reply_error(s, r, err != FERRY_OK ? err : FERRY_ERR_NO_MEMORY, "");
        return;
    }
    struct group_list_reply *reply = s->group_list;
    reply->node_id = node_of_member(s->self);
    reply->shard = s->config.index;
    reply->more = count > GROUP_LIST_MAX;
    reply->count = (uint32_t)(count < GROUP_LIST_MAX ? count : GROUP_LIST_MAX);
    for (uint32_t i = 0; i < reply->count; i++) {
        fill_group(s, seats[i], &reply->items[i]);
    }
    mem_free(seats);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    group_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

/* ---- PARTITION_TRANSFER ---- */

static void finish_transfer(struct seat *seat, struct shard *s, enum ferry_err err,
                            const char *detail)
{
    struct request *r = seat->transfer;
    seat->transfer = NULL;
    list_remove(&seat->transferring);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, detail);
    } else {
        shard_reply_empty(s, r);
    }
}

/* Done when the other leads, as far as this node has heard. */
static void look_at_transfer(struct shard *s, struct seat *seat)
{
    raft_id leader = replica_leader(seat->replica);
    enum ferry_err err = replica_failure(seat->replica);
    if (err != FERRY_OK || seat->dropping) {
        finish_transfer(seat, s, err != FERRY_OK ? err : FERRY_ERR_NOT_LEADER, "");
    } else if (leader == seat->transfer_to) {
        finish_transfer(seat, s, FERRY_OK, "");
    } else if (s->now_us >= seat->transfer_until_us) {
        finish_transfer(seat, s, FERRY_ERR_TIMEOUT, "the other did not take over");
    }
}

void shard_check_transfers(struct shard *s)
{
    for (struct list *n = s->transfers.next; n != &s->transfers;) {
        struct seat *seat = list_entry(n, struct seat, transferring);
        n = n->next;
        look_at_transfer(s, seat);
    }
}

static void begin_transfer(struct shard *s, struct seat *seat, struct request *r, raft_id to)
{
    int64_t wait_ms =
        r->timeout_ms > 0 && r->timeout_ms < TRANSFER_MS ? r->timeout_ms : TRANSFER_MS;
    seat->transfer = r;
    seat->transfer_to = to;
    seat->transfer_until_us = s->now_us + wait_ms * 1000;
    list_push_back(&s->transfers, &seat->transferring);
    shard_touch(s, seat);
}

void shard_handle_transfer(struct shard *s, struct request *r, const struct frame *f)
{
    struct partition_transfer_request q;
    struct seat *seat = NULL;
    enum ferry_err err = partition_transfer_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = shard_check_leads(s, seat);
    }
    if (err != FERRY_OK) {
        shard_reply_seat_error(s, r, seat, err, "");
        return;
    }
    const struct node *n = shard_find_node(s, q.to_node);
    if (n != NULL && n->member == s->self) {
        shard_reply_empty(s, r);
        return;
    }
    if (n == NULL || !raft_members_has_voter(replica_members(seat->replica), n->member)) {
        shard_reply_error(s, r, FERRY_ERR_UNKNOWN_NODE,
                          "that node has no vote in this partition: see `ferry partition info`");
        return;
    }
    err = seat->transfer != NULL ? FERRY_ERR_NOT_READY
                                 : replica_transfer(seat->replica, n->member, s->now_us);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "another transfer of it is under way");
        return;
    }
    begin_transfer(s, seat, r, n->member);
}
