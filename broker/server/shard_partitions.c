/* Partitions of this shard: opened and dropped by mail of shard 0, and what it is told of them. */
#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

/* ---- Mail out ---- */

static uint32_t shard_for(const struct shard *s, const struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_OPENED:
    case MAIL_DROPPED:
    case MAIL_FOUND:
    case MAIL_LED:
    case MAIL_MOVED:
        return 0;
    case MAIL_KEEP:
    case MAIL_CLUSTER:
    case MAIL_NODE:
    case MAIL_NODE_GONE:
    case MAIL_QUOTAS:
        return (uint32_t)mail->group; /* The shard itself. */
    case MAIL_OPEN:
    case MAIL_DROP:
        break;
    }
    return (uint32_t)(mail->group % s->peer_count);
}

void shard_post(struct shard *s, struct mail *mail)
{
    struct shard *to = s->peers[shard_for(s, mail)];
    if (!buf_ok(&mail->text) || mailbox_post(&to->mailbox, mail) != FERRY_OK) {
        buf_fini(&mail->text);
        /* Without it a topic would be half there. Reopening from disk repeats it all. */
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
    }
}

static void post_of(struct shard *s, const struct seat *seat, enum mail_kind kind)
{
    struct mail mail = {
        .kind = kind, .group = seat->group, .topic_id = seat->topic_id, .err = seat->err};
    shard_post(s, &mail);
}

/* ---- What a seat has become ---- */

static bool is_alone(const struct shard *s, const struct seat *seat)
{
    const struct raft_members *m = replica_members(seat->replica);
    return m->voter_count == 1 && m->voters[0] == s->self && m->old_voter_count == 0;
}

/* Told once: it is open; where nobody else could lead it, only when it is led. One that cannot
 * apply its log is told as such: nobody waits for it for ever. */
static void announce_open(struct shard *s, struct seat *seat)
{
    enum ferry_err err = replica_failure(seat->replica);
    bool gave_up = err != FERRY_OK && atomic_load(&s->failure) == FERRY_OK;
    if (seat->announced || !(gave_up || replica_is_ready(seat->replica) || !is_alone(s, seat))) {
        return;
    }
    seat->announced = true;
    seat->err = err;
    post_of(s, seat, MAIL_OPENED);
}

static void begin_to_lead(struct shard *s, struct seat *seat)
{
    seat->led_term = replica_term(seat->replica);
    seat->led_since_us = s->now_us;
    seat->told = false;
    if (list_is_empty(&seat->led)) {
        list_push_back(&s->led, &seat->led);
    }
    if (seat->partition != NULL) {
        seat->told_end_offset = partition_end_offset(seat->partition);
    }
    shard_look_at_members(s, seat);
}

/* A member that went back on what it had acknowledged runs on an old copy of its folder. */
static void fence_regressed(struct shard *s, struct seat *seat)
{
    raft_id member = seat->led_term != 0 ? replica_regressed(seat->replica) : 0;
    if (member == 0 || s->outbox == NULL || s->now_us < seat->fenced_us + 1000000) {
        return;
    }
    struct buf *b = peer_outbox_begin(s->outbox, member, seat->group, NODE_FENCED);
    if (b != NULL) {
        struct node_fenced f = {.err = FERRY_ERR_OLD_FOLDER};
        node_fenced_encode(b, &f);
        peer_outbox_end(s->outbox);
    }
    seat->fenced_us = s->now_us;
}

void shard_announce(struct shard *s, struct seat *seat)
{
    bool ready = replica_is_ready(seat->replica);
    if (seat->partition != NULL) {
        announce_open(s, seat);
    }
    if (ready && seat->led_term != replica_term(seat->replica)) {
        shard_stop_driving(s, seat);
        begin_to_lead(s, seat);
    } else if (!ready && seat->led_term != 0) {
        shard_stop_driving(s, seat);
    }
    if (ready) {
        fence_regressed(s, seat);
    }
}

/* ---- Opening ---- */

static void set_target(struct shard *s, struct seat *seat, const struct mail *mail)
{
    bool same = seat->target_count == mail->target_count && seat->moving == mail->moving &&
                memcmp(seat->target, mail->target, sizeof(seat->target)) == 0;
    seat->generation = mail->generation;
    seat->target_count = mail->target_count;
    seat->moving = mail->moving;
    memcpy(seat->target, mail->target, sizeof(seat->target));
    if (!same) {
        shard_look_at_members(s, seat);
    }
}

static void fill_initial(const struct mail *mail, struct raft_members *m)
{
    *m = (struct raft_members){.voter_count = mail->initial_count};
    /* Sorted, as the core wants them; there are few. */
    for (uint32_t i = 0; i < mail->initial_count; i++) {
        uint32_t at = i;
        for (; at > 0 && m->voters[at - 1] > mail->initial[i]; at--) {
            m->voters[at] = m->voters[at - 1];
        }
        m->voters[at] = mail->initial[i];
    }
}

static enum ferry_err open_replica(struct shard *s, struct seat *seat, const struct mail *mail,
                                   struct err_text *e)
{
    const struct broker_options *o = s->config.options;
    struct partition_config config = {.group = mail->group,
                                      .topic_id = mail->topic_id,
                                      .partition = mail->partition,
                                      .self = s->self,
                                      .seed = s->seed ^ map_hash_u64(mail->group),
                                      .random = &s->ids,
                                      .store = s->store,
                                      .settings = mail->settings,
                                      .election_min_us = o->election_min_ms * 1000,
                                      .election_max_us = o->election_max_ms * 1000,
                                      .heartbeat_us = o->heartbeat_ms * 1000,
                                      .copy_bytes = &s->copy_bytes,
                                      .own_bytes = &s->own_bytes,
                                      .message_max_bytes = (size_t)o->message_max_bytes,
                                      .batch_max_bytes =
                                          (size_t)o->message_max_bytes + BATCH_ROOM_BYTES};
    fill_initial(mail, &config.initial);
    enum ferry_err err = partition_open(&config, s->now_us, &seat->partition, e);
    if (err != FERRY_OK) {
        return err;
    }
    seat->replica = partition_replica(seat->partition);
    if (mail->campaign && mail->initial_count > 1) {
        err = replica_campaign(seat->replica, s->now_us);
    }
    return err;
}

static void open_seat(struct shard *s, struct seat *seat, const struct mail *mail)
{
    struct err_text e = {{0}};
    seat->err = open_replica(s, seat, mail, &e);
    if (seat->err != FERRY_OK) {
        log_line(LOG_ERROR, "shard", "partition %d of %s (group %llu) is not served: %s",
                 mail->partition, mail->topic, (unsigned long long)mail->group,
                 e.text[0] != '\0' ? e.text : ferry_err_text(seat->err));
        seat->announced = true;
        post_of(s, seat, MAIL_OPENED);
        return;
    }
    heap_set(&s->timers, &seat->timer, s->now_us);
    shard_touch(s, seat);
}

/* It was moved away and comes back before all of it is deleted: the old data has to go first. */
static void wait_for_drop(struct shard *s, struct seat *seat, const struct mail *mail)
{
    seat->err = FERRY_ERR_NOT_READY;
    seat->waiting = mem_dup(mail, sizeof(*mail));
    if (seat->waiting == NULL) {
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
        return;
    }
    seat->waiting->initial_count = 0; /* Whatever it was once: now it is fed. */
    seat->waiting->campaign = false;
    s->waiting++;
}

void shard_stop_waiting(struct shard *s, struct seat *seat)
{
    if (seat->waiting != NULL) {
        mem_free(seat->waiting);
        seat->waiting = NULL;
        s->waiting--;
    }
}

void shard_open_waiting(struct shard *s)
{
    size_t at = 0;
    for (struct seat *seat; s->waiting > 0 && (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->waiting == NULL || seat->dropping || shard_is_dropped(s, seat->group)) {
            continue;
        }
        struct mail *mail = seat->waiting;
        seat->waiting = NULL;
        s->waiting--;
        open_seat(s, seat, mail);
        mem_free(mail);
    }
}

static void open_partition(struct shard *s, const struct mail *mail)
{
    struct seat *seat = shard_find_seat(s, mail->group);
    if (seat != NULL && !seat->dropping) {
        set_target(s, seat, mail);
        return;
    }
    if (seat != NULL) {
        shard_close_dropped(s, seat); /* What waits there is answered; then it is made anew. */
    }
    enum ferry_err err = shard_add_seat(s, mail->group, &seat);
    if (err != FERRY_OK) {
        shard_fail_store(s, err);
        return;
    }
    seat->topic_id = mail->topic_id;
    seat->index = mail->partition;
    memcpy(seat->topic, mail->topic, sizeof(seat->topic));
    set_target(s, seat, mail);
    if (shard_is_dropped(s, mail->group)) {
        wait_for_drop(s, seat, mail);
    } else {
        open_seat(s, seat, mail);
    }
}

/* ---- Dropping ---- */

static void drop_seat(struct shard *s, struct seat *seat)
{
    seat->dropping = true;
    if (seat->replica == NULL) {
        shard_close_dropped(s, seat);
    } else {
        shard_touch(s, seat); /* Closed when the turn settles and nothing waits any more. */
    }
}

static void drop_partition(struct shard *s, const struct mail *mail)
{
    struct seat *seat = shard_find_seat(s, mail->group);
    if (seat != NULL) {
        seat->is_over = mail->is_over;
        drop_seat(s, seat);
    } else {
        if (shard_drop_found(s, mail->group, mail->is_over) != FERRY_OK) {
            log_line(LOG_WARN, "shard", "group %llu: what is left of it stays until the next start",
                     (unsigned long long)mail->group);
        }
        struct mail answer = {
            .kind = MAIL_DROPPED, .group = mail->group, .topic_id = mail->topic_id};
        shard_post(s, &answer);
    }
}

/* Seats that the last catalog did not name. Those without a replica are closed at once, which
 * changes the map: then from the start again. */
static void drop_older(struct shard *s, uint32_t generation)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->group == META_GROUP || seat->generation >= generation || seat->dropping) {
            continue;
        }
        bool closed = seat->replica == NULL;
        drop_seat(s, seat);
        at = closed ? 0 : at;
    }
}

static void keep(struct shard *s, const struct mail *mail)
{
    if (!mail->sweep) {
        return;
    }
    s->knows_catalog = true;
    drop_older(s, mail->generation);
    if (shard_sweep(s) != FERRY_OK) {
        log_line(LOG_WARN, "shard",
                 "what deleted topics left behind was not found now; the next start looks again");
    }
}

/* ---- The cluster ---- */

static void take_cluster(struct shard *s, const struct ferry_id *cluster_id)
{
    struct ferry_id has = store_cluster_id(s->store);
    s->cluster_id = *cluster_id;
    peer_outbox_set_cluster(s->outbox, cluster_id);
    if (!id_is_zero(&has)) {
        return;
    }
    enum ferry_err err = store_begin(s->store);
    if (err == FERRY_OK) {
        err = store_set_cluster(s->store, cluster_id);
    }
    if (err == FERRY_OK) {
        err = store_commit(s->store);
    }
    if (err != FERRY_OK) {
        shard_fail_store(s, err);
    }
}

static void take_node(struct shard *s, const struct mail *mail)
{
    struct node_record r;
    struct bytes rest = buf_bytes(&mail->text);
    must(node_record_decode(&rest, &r) == FERRY_OK);
    enum ferry_err err = shard_set_node(s, &r);
    if (err != FERRY_OK) {
        log_line(LOG_WARN, "shard", "node %u cannot be taken in: %s", node_of_member(r.member),
                 ferry_err_text(err));
    }
}

/* ---- Mail in ---- */

static void take_shard_mail(struct shard *s, const struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_OPEN:
        open_partition(s, mail);
        return;
    case MAIL_DROP:
        drop_partition(s, mail);
        return;
    case MAIL_KEEP:
        keep(s, mail);
        return;
    case MAIL_CLUSTER:
        take_cluster(s, &mail->topic_id);
        return;
    case MAIL_NODE:
        take_node(s, mail);
        return;
    case MAIL_NODE_GONE:
        shard_remove_node(s, mail->node_id);
        return;
    case MAIL_QUOTAS:
        shard_take_quotas(s, buf_bytes(&mail->text));
        return;
    case MAIL_OPENED:
    case MAIL_DROPPED:
        shard_take_opened(s, mail);
        return;
    case MAIL_FOUND:
        shard_take_found(s, mail->group);
        return;
    case MAIL_LED: {
        struct node_led led = {.group = mail->group, .term = mail->term, .bytes = mail->bytes};
        shard_learn_leader(s, &led, node_of_member(s->self));
        return;
    }
    case MAIL_MOVED:
        shard_report_move(s, mail->group, mail->target, mail->target_count);
        return;
    }
}

void shard_take_mail(struct shard *s)
{
    for (struct mail *mail; (mail = mailbox_take(&s->mailbox)) != NULL;) {
        take_shard_mail(s, mail);
        mail_free(mail);
    }
}
