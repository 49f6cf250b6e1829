/* The shard's life and its loop. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

#define WATCH_US          100000
#define MESSAGES_TURN_MAX 8192u
#define HANDSHAKE_MS      5000
#define QUEUE_MAX         32          /* Requests of a connection that wait to be received. */
#define REPLIES_SLACK     16          /* Replies to what was no request. */
#define UNREAD_MAX_BYTES  (64u << 20) /* Replies that a connection has not read. */

/* ---- Seats ---- */

static bool seat_has_group(const void *item, const void *key)
{
    return ((const struct seat *)item)->group == *(const uint64_t *)key;
}

struct seat *shard_find_seat(const struct shard *s, uint64_t group)
{
    return map_find(&s->seats, map_hash_u64(group), seat_has_group, &group);
}

enum ferry_err shard_unknown_group(const struct shard *s)
{
    return s->knows_catalog ? FERRY_ERR_UNKNOWN_PARTITION : FERRY_ERR_NOT_READY;
}

void shard_touch(struct shard *s, struct seat *seat)
{
    if (list_is_empty(&seat->touched)) {
        list_push_back(&s->touched, &seat->touched);
    }
}

enum ferry_err shard_add_seat(struct shard *s, uint64_t group, struct seat **seat)
{
    struct seat *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->group = group;
    list_init(&made->touched);
    list_init(&made->fetches);
    heap_node_init(&made->timer);
    if (!heap_reserve(&s->timers, s->seats.count + 1) ||
        !map_add(&s->seats, map_hash_u64(group), made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    *seat = made;
    return FERRY_OK;
}

void shard_remove_seat(struct shard *s, struct seat *seat)
{
    must(list_is_empty(&seat->fetches));
    if (!list_is_empty(&seat->touched)) {
        list_remove(&seat->touched);
    }
    heap_remove(&s->timers, &seat->timer);
    map_remove(&s->seats, map_hash_u64(seat->group), seat);
    partition_close(&seat->partition);
    mem_free(seat);
}

bool shard_is_first(const struct shard *s)
{
    return s->config.index == 0;
}

enum ferry_err shard_view(struct shard *s)
{
    if (s->view_open) {
        return FERRY_OK;
    }
    enum ferry_err err = store_read_begin(s->store);
    s->view_open = err == FERRY_OK;
    return err;
}

void shard_end_view(struct shard *s)
{
    if (s->view_open) {
        store_read_end(s->store);
        s->view_open = false;
    }
}

/* ---- The turn ---- */

static void receive_all(struct shard *s)
{
    struct net_message m;
    net_message_init(&m);
    s->received_bytes = 0;
    for (uint32_t i = 0; i < MESSAGES_TURN_MAX; i++) {
        net_peer peer;
        if (s->received_bytes >= (size_t)s->config.options->turn_bytes ||
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

static void set_timer(struct shard *s, struct seat *seat)
{
    int64_t due = seat->partition != NULL ? partition_deadline_us(seat->partition)
                                          : replica_deadline_us(seat->replica);
    if (due == RAFT_NEVER) {
        heap_remove(&s->timers, &seat->timer);
    } else {
        heap_set(&s->timers, &seat->timer, due);
    }
}

static struct seat *seat_of(struct list *node)
{
    return list_entry(node, struct seat, touched);
}

static bool wants_write(const struct shard *s)
{
    for (const struct list *n = s->touched.next; n != &s->touched; n = n->next) {
        const struct seat *seat = list_entry(n, struct seat, touched);
        if (replica_wants_write(seat->replica, s->now_us)) {
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
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica != NULL) {
            replica_fail(seat->replica, FERRY_ERR_STORE_FAILED);
            shard_touch(s, seat);
        }
    }
}

static void after_commit(struct shard *s)
{
    for (struct list *n = s->touched.next; n != &s->touched; n = n->next) {
        struct seat *seat = seat_of(n);
        if (replica_has_written(seat->replica)) {
            enum ferry_err ignored = replica_stored(seat->replica, s->now_us);
            (void)ignored; /* It has failed itself, logged why, and answered who waited. */
        }
    }
}

static void write_and_apply(struct shard *s)
{
    if (atomic_load(&s->failure) != FERRY_OK || !wants_write(s)) {
        return;
    }
    enum ferry_err err = write_transaction(s);
    if (err != FERRY_OK) {
        shard_fail_store(s, err);
        return;
    }
    after_commit(s);
}

/* Answers, wakes readers, sets timers. A seat that has more to write stays touched. */
static void settle_seat(struct shard *s, struct seat *seat)
{
    list_remove(&seat->touched);
    if (seat->partition != NULL) {
        shard_answer_partition(s, seat);
        shard_wake_fetches(s, seat);
        shard_announce_ready(s, seat);
    }
    set_timer(s, seat);
    if (replica_wants_write(seat->replica, s->now_us)) {
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
    }
    shard_fire_fetch_deadlines(s);
    shard_end_view(s);
}

static void read_clocks(struct shard *s)
{
    s->now_us = clock_monotonic_us();
    s->now_ms = clock_wall_ms();
}

void shard_turn(struct shard *s)
{
    read_clocks(s);
    s->counters.turns++;
    receive_all(s);
    shard_take_mail(s);
    fire_timers(s);
    write_and_apply(s);
    read_clocks(s);
    settle(s);
    if (s->now_us >= s->watch_due_us) {
        net_server_watch(s->server);
        s->watch_due_us = s->now_us + WATCH_US;
    }
}

int shard_wait_ms(const struct shard *s)
{
    bool drops = shard_wants_drop(s) && atomic_load(&s->failure) == FERRY_OK;
    if (drops || !list_is_empty(&s->touched)) {
        return 0;
    }
    int64_t due = s->watch_due_us;
    const struct heap_node *timer = heap_first(&s->timers);
    const struct heap_node *fetch = heap_first(&s->fetch_deadlines);
    due = timer != NULL && timer->due < due ? timer->due : due;
    due = fetch != NULL && fetch->due < due ? fetch->due : due;
    int64_t left_us = due - clock_monotonic_us();
    return left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
}

static void *run(void *arg)
{
    struct shard *s = arg;
    while (!atomic_load(&s->stop)) {
        struct net_poll_item items[] = {{.server = s->server, .fd = -1},
                                        {.fd = s->mailbox.wake.fd}};
        (void)net_poll(items, 2, shard_wait_ms(s));
        if (items[1].readable) {
            net_wake_clear(&s->mailbox.wake);
        }
        shard_turn(s);
    }
    return NULL;
}

/* ---- Life ---- */

static enum ferry_err shard_address(const struct shard_config *config, const char *endpoint,
                                    char *address, size_t bytes, struct err_text *e)
{
    uint32_t i = config->index;
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) == 0 && colon != NULL && colon[1] != '*' && i > 0) {
        long port = strtol(colon + 1, NULL, 10);
        (void)snprintf(address, bytes, "%.*s:%ld", (int)(colon - endpoint), endpoint, port + i);
    } else if (strncmp(endpoint, "tcp://", 6) != 0 && i > 0) {
        (void)snprintf(address, bytes, "%s-%u", endpoint, i);
    } else {
        (void)snprintf(address, bytes, "%s", endpoint);
    }
    return strlen(address) < bytes - 1
               ? FERRY_OK
               : err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "listen.endpoint: %s: too long", endpoint);
}

static enum ferry_err open_server(struct shard *s, struct err_text *e)
{
    const struct broker_options *o = s->config.options;
    struct net_server_config config = {.message_max_bytes =
                                           (size_t)o->message_max_bytes + BATCH_ROOM_BYTES +
                                           FRAME_BODY_MAX_BYTES + FRAME_HEADER_BYTES,
                                       .connections_max = (int)o->connections_max,
                                       .queue_max = QUEUE_MAX,
                                       .replies_max = (int)o->inflight_max + REPLIES_SLACK,
                                       .unread_max_bytes = UNREAD_MAX_BYTES,
                                       .handshake_ms = HANDSHAKE_MS};
    char address[sizeof(o->endpoint) + 16];
    enum ferry_err err = shard_address(&s->config, o->endpoint, address, sizeof(address), e);
    if (err == FERRY_OK) {
        err = net_server_open(s->config.context, address, &config, &s->server, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (o->advertise[0] == '\0') {
        (void)snprintf(s->endpoint, sizeof(s->endpoint), "%s", net_server_endpoint(s->server));
        return FERRY_OK;
    }
    return shard_address(&s->config, o->advertise, s->endpoint, sizeof(s->endpoint), e);
}

static enum ferry_err open_store(struct shard *s, struct err_text *e)
{
    const struct broker_options *o = s->config.options;
    char path[PATH_MAX_BYTES + 32];
    (void)snprintf(path, sizeof(path), "%s/shard-%u", o->data, s->config.index);
    struct store_config config = {.path = path,
                                  .cluster_id = s->config.cluster_id,
                                  .node_id = (uint32_t)o->node_id,
                                  .shard = s->config.index,
                                  .shards = (uint32_t)o->shards,
                                  .max_bytes = o->store_max_bytes,
                                  .grow_bytes = o->store_grow_bytes,
                                  .reserve_bytes = o->store_reserve_bytes};
    return store_open(&config, &s->store, e);
}

static enum ferry_err open_meta(struct shard *s, struct err_text *e)
{
    struct meta_config config = {
        .store = s->store, .node_id = (uint32_t)s->config.options->node_id, .seed = s->config.seed};
    enum ferry_err err = shard_add_seat(s, META_GROUP, &s->meta_seat);
    if (err == FERRY_OK) {
        err = meta_open(&config, s->now_us, &s->meta, e);
    }
    if (err == FERRY_OK) {
        s->meta_seat->replica = meta_replica(s->meta);
        shard_touch(s, s->meta_seat);
        heap_set(&s->timers, &s->meta_seat->timer, s->now_us);
    }
    return err;
}

static enum ferry_err allocate_scratch(struct shard *s)
{
    s->metadata = mem_zalloc(1, sizeof(*s->metadata));
    s->names = mem_zalloc(1, sizeof(*s->names));
    s->fetch = mem_zalloc(1, sizeof(*s->fetch));
    s->fetch_answer = mem_zalloc(1, sizeof(*s->fetch_answer));
    bool ok =
        s->metadata != NULL && s->names != NULL && s->fetch != NULL && s->fetch_answer != NULL;
    return ok ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static enum ferry_err open_parts(struct shard *s, struct err_text *e)
{
    enum ferry_err err = allocate_scratch(s);
    if (err == FERRY_OK) {
        err = mailbox_init(&s->mailbox);
    }
    if (err == FERRY_OK) {
        err = id_gen_init(&s->ids, 0);
    }
    if (err == FERRY_OK) {
        err = open_store(s, e);
    }
    if (err == FERRY_OK && shard_is_first(s)) {
        err = open_meta(s, e);
    }
    if (err == FERRY_OK) {
        err = open_server(s, e);
    }
    return err;
}

enum ferry_err shard_new(const struct shard_config *config, struct shard **out, struct err_text *e)
{
    struct shard *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->config = *config;
    s->mailbox.wake.fd = -1;
    map_init(&s->seats);
    map_init(&s->loads);
    heap_init(&s->timers);
    heap_init(&s->fetch_deadlines);
    list_init(&s->touched);
    list_init(&s->live);
    list_init(&s->pool);
    list_init(&s->drops);
    list_init(&s->rollouts);
    read_clocks(s);
    s->started_us = s->now_us;
    enum ferry_err err = open_parts(s, e);
    if (err != FERRY_OK) {
        shard_free(&s);
        return err;
    }
    *out = s;
    return FERRY_OK;
}

/* Rows that are only in memory are written once more, so that the next start replays nothing. */
static void flush_rows(struct shard *s)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica != NULL) {
            shard_touch(s, seat);
        }
    }
    /* Far enough ahead that every flush is due; no timer fires any more. */
    s->now_us += (int64_t)REPLICA_FLUSH_MS * 1000;
    write_and_apply(s);
    while (list_pop_front(&s->touched) != NULL) {
        /* No turn comes any more that would settle them. */
    }
}

static void fail_seats(struct shard *s)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica == NULL) {
            continue;
        }
        replica_fail(seat->replica, FERRY_ERR_SHUTTING_DOWN);
        if (seat->partition != NULL) {
            shard_answer_partition(s, seat);
        }
    }
}

static void close_seats(struct shard *s)
{
    for (;;) {
        size_t at = 0;
        struct seat *seat = map_next(&s->seats, &at);
        if (seat == NULL) {
            return;
        }
        shard_remove_seat(s, seat);
    }
}

void shard_free(struct shard **out)
{
    struct shard *s = *out;
    if (s == NULL) {
        return;
    }
    if (s->counters.turns > 0) {
        flush_rows(s);
        fail_seats(s);
        shard_forget_fetches(s);
        if (s->meta != NULL) {
            shard_answer_meta(s);
        }
        shard_forget_rollouts(s); /* Answers may have begun some. */
    }
    shard_forget_requests(s);
    shard_forget_drops(s);
    close_seats(s);
    meta_close(&s->meta);
    net_server_close(&s->server);
    store_close(&s->store);
    mailbox_fini(&s->mailbox);
    heap_fini(&s->timers);
    heap_fini(&s->fetch_deadlines);
    map_fini(&s->seats);
    map_fini(&s->loads);
    mem_free(s->metadata);
    mem_free(s->names);
    mem_free(s->fetch);
    mem_free(s->fetch_answer);
    mem_free(s);
    *out = NULL;
}

void shard_connect(struct shard *s, struct shard *const *peers, uint32_t count)
{
    s->peers = peers;
    s->peer_count = count;
}

enum ferry_err shard_start(struct shard *s)
{
    must(s->peers != NULL && !s->started);
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->started = true;
    return FERRY_OK;
}

void shard_stop(struct shard *s)
{
    atomic_store(&s->stop, true);
    net_wake_signal(&s->mailbox.wake);
}

void shard_join(struct shard *s)
{
    if (s->started) {
        must(pthread_join(s->thread, NULL) == 0);
    }
}

bool shard_is_ready(const struct shard *s)
{
    return atomic_load(&s->ready);
}

uint32_t shard_unserved(const struct shard *s)
{
    return atomic_load(&s->unserved);
}

enum ferry_err shard_failure(const struct shard *s)
{
    return (enum ferry_err)atomic_load(&s->failure);
}

struct ferry_id shard_cluster_id(const struct shard *s)
{
    return store_cluster_id(s->store);
}

const char *shard_endpoint(const struct shard *s)
{
    return s->endpoint;
}
