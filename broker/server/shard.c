/* The shard's turn. */
#include "base/clock.h"
#include "base/log.h"
#include "server/shard_internal.h"

#define WATCH_US          100000
#define MESSAGES_TURN_MAX 8192u
/* What a turn sends to peers, all phases together, and at most of one group in one phase: so that
 * one with much to give does not starve the others. */
#define SEND_TURN_BYTES (16u << 20)
#define SEND_SEAT_BYTES (4u << 20)

void shard_read_clocks(struct shard *s)
{
    s->now_us = clock_monotonic_us();
    s->now_ms = clock_wall_ms();
}

static struct seat *seat_of(const struct list *node)
{
    return list_entry(node, struct seat, touched);
}

static bool works(const struct shard *s)
{
    return atomic_load(&s->failure) == FERRY_OK;
}

/* ---- Receiving ---- */

static void receive_clients(struct shard *s)
{
    struct net_message m;
    net_message_init(&m);
    size_t limit = (size_t)s->config.options->turn_bytes;
    size_t before = s->received_bytes; /* Of peers, who have the turn's first half at most. */
    for (uint32_t i = 0; i < MESSAGES_TURN_MAX; i++) {
        net_peer peer;
        if (s->received_bytes - before >= limit || s->received_bytes >= TURN_MAX_BYTES / 2 ||
            !net_server_receive(s->server, &peer, &m)) {
            break;
        }
        s->received_bytes += net_message_bytes(&m).size;
        shard_take_message(s, peer, &m);
    }
    net_message_close(&m);
    shard_end_view(s);
}

static void fire_timers(struct shard *s)
{
    for (;;) {
        struct heap_node *node = heap_first(&s->timers);
        if (node == NULL || node->due > s->now_us) {
            return;
        }
        struct seat *seat = list_entry(node, struct seat, timer);
        heap_remove(&s->timers, node);
        enum ferry_err err = seat->partition != NULL
                                 ? partition_tick(seat->partition, s->now_ms, s->now_us)
                                 : replica_tick(seat->replica, s->now_us);
        if (err != FERRY_OK) {
            replica_fail(seat->replica, err);
        }
        shard_touch(s, seat);
    }
}

/* ---- Sending to peers ---- */

static void send_seats(struct shard *s, enum peer_phase phase)
{
    if (s->outbox == NULL || !works(s)) {
        return;
    }
    for (struct list *n = s->touched.next; n != &s->touched; n = n->next) {
        struct seat *seat = seat_of(n);
        size_t budget = s->send_bytes_left < SEND_SEAT_BYTES ? s->send_bytes_left : SEND_SEAT_BYTES;
        size_t before = budget;
        enum ferry_err err = replica_send(seat->replica, phase, s->now_us, &budget, s->outbox);
        s->send_bytes_left -= before - budget;
        if (err != FERRY_OK && replica_failure(seat->replica) == FERRY_OK) {
            replica_fail(seat->replica, err);
        }
    }
}

/* ---- Writing ---- */

static bool wants_write(const struct shard *s)
{
    for (const struct list *n = s->touched.next; n != &s->touched; n = n->next) {
        if (replica_wants_write(seat_of(n)->replica, s->now_us)) {
            return true;
        }
    }
    return shard_wants_drop(s);
}

static enum ferry_err write_transaction(struct shard *s)
{
    enum ferry_err err = shard_prepare_drop(s);
    if (err == FERRY_OK) {
        err = store_begin(s->store);
    }
    if (err != FERRY_OK) {
        return err;
    }
    uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
    for (struct list *n = s->touched.next; n != &s->touched && err == FERRY_OK; n = n->next) {
        if (replica_wants_write(seat_of(n)->replica, s->now_us)) {
            err = replica_write(seat_of(n)->replica, s->now_us, &rows_left);
        }
    }
    if (err == FERRY_OK) {
        err = shard_write_drop(s);
    }
    if (err != FERRY_OK) {
        store_abort(s->store);
        return err;
    }
    return store_commit(s->store);
}

static void fail_replicas(struct shard *s, enum ferry_err err)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica != NULL) {
            replica_fail(seat->replica, err);
            shard_touch(s, seat);
        }
    }
}

/* What was accepted is not on disk and will not be: nothing here may lead or answer any more. */
void shard_fail_store(struct shard *s, enum ferry_err err)
{
    struct err_text text = {{0}};
    (void)store_failure(s->store, &text);
    log_line(
        LOG_ERROR, "shard",
        "shard %u stops: %s (%s). What was acknowledged is on disk. Check the disk, then restart "
        "ferryd",
        s->config.index, ferry_err_text(err), text.text);
    atomic_store(&s->failure, (int)err);
    fail_replicas(s, FERRY_ERR_STORE_FAILED);
}

void shard_end(struct shard *s, enum ferry_err err, const char *text)
{
    if (!works(s)) {
        return;
    }
    log_line(LOG_ERROR, "shard", "node %lld stops: %s%s%s", (long long)s->config.options->node_id,
             ferry_err_text(err), text[0] != '\0' ? ": " : "", text);
    atomic_store(&s->failure, (int)err);
    fail_replicas(s, FERRY_ERR_SHUTTING_DOWN);
}

static void after_commit(struct shard *s)
{
    for (struct list *n = s->touched.next; n != &s->touched; n = n->next) {
        struct seat *seat = seat_of(n);
        if (replica_has_written(seat->replica) || replica_wants_stored(seat->replica)) {
            enum ferry_err ignored = replica_stored(seat->replica, s->now_us);
            (void)ignored; /* It has failed itself, logged why, and answered who waited. */
        }
    }
}

static void write_and_apply(struct shard *s)
{
    if (!works(s)) {
        return;
    }
    if (wants_write(s)) {
        enum ferry_err err = write_transaction(s);
        if (err != FERRY_OK) {
            shard_fail_store(s, err);
            return;
        }
    }
    after_commit(s);
    if (s->meta != NULL) {
        meta_tick(s->meta, s->now_ms, s->now_us);
        if (replica_wants_write(s->meta_seat->replica, s->now_us)) {
            shard_touch(s, s->meta_seat);
        }
    }
}

/* ---- Settling ---- */

/* Answers, wakes readers, sets timers. A seat that has more to do stays touched. */
static void settle_seat(struct shard *s, struct seat *seat)
{
    list_remove(&seat->touched);
    if (seat->partition != NULL) {
        shard_answer_partition(s, seat);
        shard_answer_reads(s, seat);
        shard_wake_fetches(s, seat);
        shard_wake_receives(s, seat);
    }
    shard_announce(s, seat);
    shard_set_timer(s, seat);
    if (works(s) && (replica_wants_write(seat->replica, s->now_us) ||
                     replica_wants_stored(seat->replica) || replica_wants_send(seat->replica))) {
        shard_touch(s, seat);
    }
    if (seat->dropping) {
        shard_close_dropped(s, seat);
    }
}

static void settle(struct shard *s)
{
    struct list settling;
    list_init(&settling);
    for (struct list *n; (n = list_pop_front(&s->touched)) != NULL;) {
        list_push_back(&settling, n);
    }
    while (!list_is_empty(&settling)) {
        settle_seat(s, seat_of(settling.next));
    }
    if (s->meta != NULL) {
        shard_answer_meta(s);
        shard_post_flushed(s);
    }
    shard_check_transfers(s);
    shard_tell_leaders(s, false);
    shard_fire_fetch_deadlines(s);
    shard_fire_receive_deadlines(s);
    shard_end_view(s);
}

static void housekeep(struct shard *s)
{
    if (s->now_us >= s->heartbeat_due_us && shard_is_clustered(s)) {
        shard_tick_peers(s);
    }
    if (s->now_us >= s->watch_due_us) {
        net_server_watch(s->server);
        shard_expire_rollouts(s, false);
        if (s->waiting > 0) {
            shard_open_waiting(s);
        }
        shard_answer_unknown_topics(s, false);
        if (shard_is_clustered(s)) {
            net_server_watch(s->peer_server);
            shard_hand_over(s);
        }
        s->watch_due_us = s->now_us + WATCH_US;
    }
}

/* The order is the promise: see shard.h and replica.h. */
void shard_turn(struct shard *s)
{
    shard_read_clocks(s);
    s->counters.turns++;
    s->received_bytes = 0;
    s->send_bytes_left = SEND_TURN_BYTES;
    s->own_bytes = TURN_OWN_MAX_BYTES;
    shard_fill_copies(s);
    shard_take_mail(s); /* First: it says what is here, and what came in is judged by it. */
    shard_receive_peers(s);
    receive_clients(s);
    if (shard_is_first(s)) {
        shard_step_join(s);
    }
    fire_timers(s);
    shard_drive_moves(s);
    send_seats(s, PEER_NOW);
    shard_flush_outbox(s);
    write_and_apply(s);
    shard_read_clocks(s);
    send_seats(s, PEER_AFTER_SYNC);
    send_seats(s, PEER_NOW);
    shard_flush_outbox(s);
    shard_release_frames(s);
    settle(s);
    housekeep(s);
    shard_flush_outbox(s); /* What settling told other nodes. */
}

static int64_t earlier(int64_t due, const struct heap *h)
{
    const struct heap_node *first = heap_first(h);
    return first != NULL && first->due < due ? first->due : due;
}

int shard_wait_ms(const struct shard *s)
{
    bool drops = shard_wants_drop(s) && works(s);
    if (drops || s->has_held_over || !list_is_empty(&s->touched)) {
        return 0;
    }
    int64_t due = s->watch_due_us;
    due = earlier(due, &s->timers);
    due = earlier(due, &s->moves);
    due = earlier(due, &s->fetch_deadlines);
    due = earlier(due, &s->receive_deadlines);
    if (shard_is_clustered(s)) {
        due = s->heartbeat_due_us < due ? s->heartbeat_due_us : due;
    }
    if (shard_is_first(s)) {
        int64_t join_due = shard_join_deadline_us(s);
        due = join_due < due ? join_due : due;
    }
    int64_t left_us = due - clock_monotonic_us();
    return left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
}

/* Far enough ahead that every flush is due; no timer fires any more. */
void shard_flush_rows(struct shard *s)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica != NULL) {
            shard_touch(s, seat);
        }
    }
    s->now_us += (int64_t)REPLICA_FLUSH_MS * 1000;
    write_and_apply(s);
    while (list_pop_front(&s->touched) != NULL) {
        /* No turn comes any more that would settle them. */
    }
}
