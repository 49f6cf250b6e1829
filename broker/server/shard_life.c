/* The shard's life: opening, closing, its thread. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "server/shard_internal.h"

#define HANDSHAKE_MS     5000
#define QUEUE_MAX        32          /* Requests of a connection that wait to be received. */
#define REPLIES_SLACK    16          /* Replies to what was no request. */
#define UNREAD_MAX_BYTES (64u << 20) /* Replies that a connection has not read. */
#define PEER_CONNECTIONS 4096        /* Every shard of every node, and nodes that come and go. */
#define PEER_REPLIES     64          /* Answers to HELLO and REGISTER that wait to be read. */
#define POLL_ITEMS       3           /* Clients, peers, mail; contacts come on top. */

_Static_assert(POLL_ITEMS + CONTACTS_MAX <= NET_POLL_ITEMS_MAX, "all are waited for together");

/* ---- Addresses ---- */

static enum ferry_err shard_address(const struct shard_config *config, const char *option,
                                    const char *endpoint, char *address, size_t bytes,
                                    struct err_text *e)
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
               : err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "%s: %s: too long", option, endpoint);
}

static enum ferry_err open_listener(const struct shard *s, const char *option,
                                    const char *listen_at, const char *advertise,
                                    const struct net_server_config *config,
                                    struct net_server **server, char told[ENDPOINT_MAX_BYTES + 1],
                                    struct err_text *e)
{
    char address[ENDPOINT_MAX_BYTES + 16];
    enum ferry_err err = shard_address(&s->config, option, listen_at, address, sizeof(address), e);
    if (err == FERRY_OK) {
        err = net_server_open(s->config.context, address, config, server, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (advertise[0] == '\0') {
        (void)snprintf(told, ENDPOINT_MAX_BYTES + 1, "%s", net_server_endpoint(*server));
        return FERRY_OK;
    }
    return shard_address(&s->config, option, advertise, told, ENDPOINT_MAX_BYTES + 1, e);
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
    return open_listener(s, "listen.endpoint", o->endpoint, o->advertise, &config, &s->server,
                         s->endpoint, e);
}

static enum ferry_err open_peer_server(struct shard *s, struct err_text *e)
{
    const struct broker_options *o = s->config.options;
    struct net_server_config config = {.message_max_bytes = PEER_FRAME_MAX_BYTES,
                                       .connections_max = PEER_CONNECTIONS,
                                       .queue_max = QUEUE_MAX,
                                       .replies_max = PEER_REPLIES,
                                       .unread_max_bytes = UNREAD_MAX_BYTES,
                                       .handshake_ms = HANDSHAKE_MS};
    if (!broker_options_clustered(o)) {
        return FERRY_OK;
    }
    return open_listener(s, "node.peer_listen", o->peer_listen, o->peer_advertise, &config,
                         &s->peer_server, s->peer_endpoint, e);
}

/* ---- The store ---- */

/* The node was let into a cluster, and this shard did not hear of it before the end. */
static enum ferry_err adopt_cluster(struct shard *s, struct err_text *e)
{
    struct ferry_id has = store_cluster_id(s->store);
    const struct ferry_id *wanted = &s->config.cluster_id;
    if (id_is_zero(wanted) || id_equal(&has, wanted)) {
        s->cluster_id = has;
        return FERRY_OK;
    }
    if (!id_is_zero(&has)) {
        return err_set(e, FERRY_ERR_WRONG_NODE,
                       "%s/shard-%u belongs to another cluster than %s/shard-0: restore the folder "
                       "that is wrong, or empty the data folder",
                       s->config.options->data, s->config.index, s->config.options->data);
    }
    enum ferry_err err = store_begin(s->store);
    if (err == FERRY_OK) {
        err = store_set_cluster(s->store, wanted);
    }
    if (err == FERRY_OK) {
        err = store_commit(s->store);
    }
    s->cluster_id = *wanted;
    return err;
}

/* Who founds a cluster or joins one begins without; all others are one by themselves. */
static bool begins_without_cluster(const struct broker_options *o)
{
    return broker_options_clustered(o) && (o->bootstrap[0] != '\0' || o->join[0] != '\0');
}

static enum ferry_err open_store(struct shard *s, struct err_text *e)
{
    const struct broker_options *o = s->config.options;
    char path[PATH_MAX_BYTES + 32];
    (void)snprintf(path, sizeof(path), "%s/shard-%u", o->data, s->config.index);
    struct store_config config = {.path = path,
                                  .no_cluster = begins_without_cluster(o) || !shard_is_first(s),
                                  .incarnation = s->config.incarnation,
                                  .must_exist = s->config.must_exist,
                                  .node_id = (uint32_t)o->node_id,
                                  .shard = s->config.index,
                                  .shards = (uint32_t)o->shards,
                                  .max_bytes = o->store_max_bytes,
                                  .grow_bytes = o->store_grow_bytes,
                                  .reserve_bytes = o->store_reserve_bytes};
    enum ferry_err err = store_open(&config, &s->store, e);
    if (err != FERRY_OK) {
        return err;
    }
    s->self = member_of_node((uint32_t)o->node_id, store_incarnation(s->store));
    return adopt_cluster(s, e);
}

/* ---- Parts ---- */

static enum ferry_err seed_random(struct shard *s)
{
    enum ferry_err err = FERRY_OK;
    if (s->config.seed == 0) {
        err = id_gen_init(&s->ids, 0);
        s->seed = prng_next(&s->ids.prng);
    } else {
        s->seed = map_hash_u64(s->config.seed + s->config.index);
        id_gen_init_seeded(&s->ids, s->seed);
    }
    prng_init(&s->prng, map_hash_u64(s->seed));
    s->boot = prng_next(&s->prng) | 1;
    return err;
}

static enum ferry_err allocate_scratch(struct shard *s)
{
    s->metadata = mem_zalloc(1, sizeof(*s->metadata));
    s->names = mem_zalloc(1, sizeof(*s->names));
    s->fetch = mem_zalloc(1, sizeof(*s->fetch));
    s->fetch_answer = mem_zalloc(1, sizeof(*s->fetch_answer));
    s->node_list = mem_zalloc(1, sizeof(*s->node_list));
    s->plan_reply = mem_zalloc(1, sizeof(*s->plan_reply));
    s->move_list = mem_zalloc(1, sizeof(*s->move_list));
    s->group_list = mem_zalloc(1, sizeof(*s->group_list));
    s->lease_list = mem_zalloc(1, sizeof(*s->lease_list));
    s->asked = mem_zalloc(1, sizeof(*s->asked));
    s->replies = mem_zalloc(1, sizeof(*s->replies));
    bool ok = s->metadata != NULL && s->names != NULL && s->fetch != NULL &&
              s->fetch_answer != NULL && s->node_list != NULL && s->plan_reply != NULL &&
              s->move_list != NULL && s->group_list != NULL && s->lease_list != NULL &&
              s->asked != NULL && s->replies != NULL;
    return ok ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static void free_scratch(struct shard *s)
{
    mem_free(s->metadata);
    mem_free(s->names);
    mem_free(s->fetch);
    mem_free(s->fetch_answer);
    mem_free(s->node_list);
    mem_free(s->plan_reply);
    mem_free(s->move_list);
    mem_free(s->group_list);
    mem_free(s->lease_list);
    mem_free(s->asked);
    mem_free(s->replies);
}

static enum ferry_err open_outbox(struct shard *s)
{
    if (!shard_is_clustered(s)) {
        return FERRY_OK;
    }
    struct peer_outbox_config config = {
        .cluster_id = s->cluster_id, .self = s->self, .shard = s->config.index, .boot = s->boot};
    return peer_outbox_new(&config, &s->outbox);
}

static enum ferry_err open_parts(struct shard *s, struct err_text *e)
{
    enum ferry_err err = allocate_scratch(s);
    if (err == FERRY_OK) {
        err = mailbox_init(&s->mailbox);
    }
    if (err == FERRY_OK) {
        err = seed_random(s);
    }
    if (err == FERRY_OK) {
        err = open_store(s, e);
    }
    if (err == FERRY_OK) {
        err = open_server(s, e);
    }
    if (err == FERRY_OK) {
        err = open_peer_server(s, e);
    }
    if (err == FERRY_OK) {
        err = open_outbox(s);
    }
    if (err == FERRY_OK && shard_is_first(s)) {
        err = shard_begin_join(s, e);
    }
    return err;
}

static void init_parts(struct shard *s)
{
    s->mailbox.wake.fd = -1;
    map_init(&s->seats);
    map_init(&s->loads);
    map_init(&s->leaders);
    heap_init(&s->timers);
    heap_init(&s->moves);
    heap_init(&s->fetch_deadlines);
    heap_init(&s->receive_deadlines);
    list_init(&s->touched);
    list_init(&s->led);
    map_init(&s->quota_buckets);
    map_init(&s->topic_loads);
    list_init(&s->idle_loads);
    list_init(&s->quota_uses);
    list_init(&s->transfers);
    list_init(&s->live);
    list_init(&s->pool);
    list_init(&s->drops);
    list_init(&s->rollouts);
    list_init(&s->unflushed);
    list_init(&s->unknown_topics);
    net_message_init(&s->held_over);
}

enum ferry_err shard_new(const struct shard_config *config, struct shard **out, struct err_text *e)
{
    struct shard *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->config = *config;
    init_parts(s);
    shard_read_clocks(s);
    s->started_us = s->now_us;
    enum ferry_err err = open_parts(s, e);
    if (err != FERRY_OK) {
        shard_free(&s);
        return err;
    }
    *out = s;
    return FERRY_OK;
}

/* ---- The end ---- */

static void fail_seats(struct shard *s)
{
    size_t at = 0;
    for (struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->replica == NULL) {
            continue;
        }
        replica_fail(seat->replica, FERRY_ERR_SHUTTING_DOWN);
        shard_stop_driving(s, seat);
        if (seat->partition != NULL) {
            shard_answer_partition(s, seat);
            shard_answer_reads(s, seat);
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

static void end_work(struct shard *s)
{
    shard_flush_rows(s);
    fail_seats(s);
    shard_check_transfers(s);
    shard_forget_fetches(s);
    if (s->meta != NULL) {
        shard_answer_meta(s);
    }
    shard_expire_rollouts(s, true); /* Answers may have begun some. */
    shard_answer_unknown_topics(s, true);
}

void shard_free(struct shard **out)
{
    struct shard *s = *out;
    if (s == NULL) {
        return;
    }
    if (s->counters.turns > 0) {
        end_work(s);
    }
    shard_forget_requests(s);
    shard_forget_rollouts(s);
    shard_forget_leaders(s);
    shard_forget_unflushed(s);
    shard_forget_drops(s);
    close_seats(s);
    meta_close(&s->meta);
    shard_release_frames(s);
    mem_free(s->frames);
    net_message_close(&s->held_over);
    shard_end_join(s);
    shard_forget_nodes(s);
    peer_outbox_free(&s->outbox);
    net_server_close(&s->server);
    net_server_close(&s->peer_server);
    store_close(&s->store);
    mailbox_fini(&s->mailbox);
    heap_fini(&s->timers);
    heap_fini(&s->moves);
    heap_fini(&s->fetch_deadlines);
    heap_fini(&s->receive_deadlines);
    map_fini(&s->seats);
    map_fini(&s->loads);
    map_fini(&s->topic_loads);
    shard_forget_quotas(s);
    map_fini(&s->leaders);
    free_scratch(s);
    mem_free(s);
    *out = NULL;
}

/* ---- The thread ---- */

void shard_connect(struct shard *s, struct shard *const *peers, uint32_t count)
{
    s->peers = peers;
    s->peer_count = count;
}

static void *run(void *arg)
{
    struct shard *s = arg;
    while (!atomic_load(&s->stop)) {
        struct net_poll_item items[POLL_ITEMS + CONTACTS_MAX] = {{.server = s->server, .fd = -1},
                                                                 {.fd = s->mailbox.wake.fd}};
        size_t count = 2;
        if (s->peer_server != NULL) {
            items[count++] = (struct net_poll_item){.server = s->peer_server, .fd = -1};
        }
        count += shard_join_links(s, items + count, CONTACTS_MAX);
        (void)net_poll(items, count, shard_wait_ms(s));
        if (items[1].readable) {
            net_wake_clear(&s->mailbox.wake);
        }
        shard_turn(s);
    }
    return NULL;
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

void shard_leave(struct shard *s)
{
    atomic_store(&s->leaving, true);
    net_wake_signal(&s->mailbox.wake);
}

void shard_join(struct shard *s)
{
    if (s->started) {
        must(pthread_join(s->thread, NULL) == 0);
    }
}

/* ---- Asking ---- */

bool shard_is_ready(const struct shard *s)
{
    return atomic_load(&s->ready);
}

bool shard_has_left(const struct shard *s)
{
    return atomic_load(&s->left);
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
    return s->cluster_id;
}

uint32_t shard_incarnation(const struct shard *s)
{
    return store_incarnation(s->store);
}

const char *shard_endpoint(const struct shard *s)
{
    return s->endpoint;
}

const char *shard_peer_endpoint(const struct shard *s)
{
    return s->peer_endpoint;
}
