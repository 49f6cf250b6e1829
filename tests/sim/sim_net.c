#include "sim/sim_net.h"

#include <stdlib.h>

#include "base/checksum.h"
#include "base/list.h"
#include "base/mem.h"
#include "sim/coverage.h"
#include "sim/fiber.h"
#include "wire/command.h"
#include "wire/frame.h"

#define WAKE_FD_FIRST    1000000
#define LINK_QUEUE_MAX   256
#define RECONNECT_MIN_US (50 * SIM_MS)
#define RECONNECT_MAX_US (1000 * SIM_MS)
#define OLD_MAX_US       (40 * SIM_SECOND)
#define UNNOTICED_MAX_US (10 * SIM_SECOND)
#define SOME_PORT_BYTES  256

struct ferry_context {
    struct host *host;
};

struct parcel {
    struct list node;
    net_peer peer;
    uint8_t *data; /* Owned. */
    size_t size;
};

/* One connection's life. Never freed before the end: events may still name it. */
struct conn {
    struct net_server *server; /* NULL: closed on this side. */
    struct net_link *link;     /* Likewise. */
    const struct host *server_host, *link_host;
    char endpoint[SOME_PORT_BYTES];
    net_peer peer;
    bool broken; /* A stream that has lost something: nothing arrives any more. */
    int64_t last_up_us, last_down_us;
};

struct net_server {
    struct host *host;
    struct task *task;
    char endpoint[SOME_PORT_BYTES];
    size_t message_max_bytes;
    net_peer next_peer;
    struct list inbox;
    struct net_server_stats stats;
    struct net_server *next;
};

struct net_link {
    struct host *host;
    struct task *task;
    char endpoint[SOME_PORT_BYTES];
    size_t message_max_bytes;
    struct conn *conn; /* NULL: not connected. */
    struct list inbox;
    struct list queue; /* Until it is connected. */
    size_t queued;
    int64_t backoff_us;
    uint64_t number; /* Links are named by number in events: they may be closed meanwhile. */
    struct net_link *next;
};

struct wake_slot {
    struct task *task;
    bool signalled;
};

/* A message on its way. */
struct flight {
    struct conn *conn;
    bool up; /* To the server. */
    bool old;
    int64_t left_us;
    uint8_t *data;
    size_t size;
};

/* What net.h's functions share; they have no argument to reach it by. */
static struct {
    struct net_path nodes, clients;
    struct net_counters counters;
    bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
    int64_t slow_us[SIM_HOSTS_MAX];
    int64_t died_us[SIM_HOSTS_MAX]; /* What left later never left; 0: lives. */
    struct net_server *servers;
    struct net_link *links;
    struct conn **conns;
    size_t conn_count, conn_capacity;
    struct wake_slot *wakes;
    size_t wake_count, wake_capacity;
    uint64_t next_link;
    sim_net_watch *watch;
} net;

void sim_net_init(void)
{
    memset(&net, 0, sizeof(net));
    struct net_path good = {.delay_min_us = 100, .delay_mean_us = 200};
    net.nodes = good;
    net.clients = good;
}

void sim_net_fini(void)
{
    for (size_t i = 0; i < net.conn_count; i++) {
        mem_free(net.conns[i]);
    }
    mem_free(net.conns);
    mem_free(net.wakes);
    memset(&net, 0, sizeof(net));
}

struct net_path *sim_net_path(bool between_nodes)
{
    return between_nodes ? &net.nodes : &net.clients;
}

struct net_counters *sim_net_counters(void)
{
    return &net.counters;
}

void sim_net_cut(uint32_t from, uint32_t to, bool cut)
{
    net.cut[from][to] = cut;
}

void sim_net_heal(void)
{
    memset(net.cut, 0, sizeof(net.cut));
    memset(net.slow_us, 0, sizeof(net.slow_us));
}

void sim_net_slow(uint32_t host, int64_t us)
{
    net.slow_us[host] = us;
}

void sim_net_on_send(sim_net_watch *watch)
{
    net.watch = watch;
}

/* ---- Contexts, versions, messages ---- */

enum ferry_err net_context_new(int io_threads, struct ferry_context **context)
{
    (void)io_threads;
    *context = mem_zalloc(1, sizeof(**context));
    must(*context != NULL);
    (*context)->host = sim->current->host;
    return FERRY_OK;
}

void net_context_free(struct ferry_context **context)
{
    mem_free(*context);
    *context = NULL;
}

const char *net_library_version(void)
{
    return "simulated";
}

struct message_inside {
    uint8_t *data;
    size_t size;
};

static struct message_inside *inside(struct net_message *m)
{
    return (struct message_inside *)(void *)m->opaque;
}

void net_message_init(struct net_message *m)
{
    memset(m, 0, sizeof(*m));
}

void net_message_close(struct net_message *m)
{
    mem_free(inside(m)->data);
    net_message_init(m);
}

void net_message_move(struct net_message *to, struct net_message *from)
{
    net_message_close(to);
    *to = *from;
    net_message_init(from);
}

struct bytes net_message_bytes(struct net_message *m)
{
    return bytes_of(inside(m)->data, inside(m)->size);
}

static void give(struct net_message *m, struct parcel *p)
{
    net_message_close(m);
    inside(m)->data = p->data;
    inside(m)->size = p->size;
    mem_free(p);
}

static void free_parcels(struct list *l)
{
    for (struct list *n; (n = list_pop_front(l)) != NULL;) {
        struct parcel *p = list_entry(n, struct parcel, node);
        mem_free(p->data);
        mem_free(p);
    }
}

static struct parcel *parcel_of(struct buf *frame)
{
    struct parcel *p = mem_zalloc(1, sizeof(*p));
    must(p != NULL);
    list_init(&p->node);
    p->data = buf_steal(frame, &p->size);
    return p;
}

/* ---- Connections ---- */

static struct net_server *find_server(const char *endpoint)
{
    struct net_server *s = net.servers;
    while (s != NULL && strcmp(s->endpoint, endpoint) != 0) {
        s = s->next;
    }
    return s;
}

static struct net_link *find_link(uint64_t number)
{
    struct net_link *l = net.links;
    while (l != NULL && l->number != number) {
        l = l->next;
    }
    return l;
}

static bool reachable(const struct host *a, const struct host *b)
{
    return !net.cut[a->number][b->number] && !net.cut[b->number][a->number];
}

static event_run try_connect;

static void connect_later(struct net_link *l)
{
    int64_t pause = l->backoff_us + (int64_t)chance_below((uint64_t)l->backoff_us);
    l->backoff_us = l->backoff_us * 2 > RECONNECT_MAX_US ? RECONNECT_MAX_US : l->backoff_us * 2;
    world_at(sim->now_us + pause, try_connect, NULL, l->number);
}

/* The link's side learns that the connection is gone. */
static void notice(void *arg, uint64_t number)
{
    struct conn *c = arg;
    struct net_link *l = find_link(number);
    if (l == NULL || l->conn != c) {
        return;
    }
    l->conn = NULL;
    c->link = NULL;
    l->backoff_us = RECONNECT_MIN_US;
    connect_later(l);
}

/* Both sides lose it: at once, or, where nothing gets through, when they find out. */
static void close_conn(struct conn *c)
{
    c->server = NULL;
    c->broken = true;
    if (c->link == NULL) {
        return;
    }
    int64_t after = reachable(c->server_host, c->link_host) && !c->server_host->paused
                        ? 500
                        : chance_between(SIM_SECOND, UNNOTICED_MAX_US);
    world_at(sim->now_us + after, notice, c, c->link->number);
}

static void reset_conn(void *arg, uint64_t number)
{
    (void)number;
    struct conn *c = arg;
    net.counters.resets++;
    close_conn(c);
}

static void take_off(struct net_link *l, struct parcel *p);

static void try_connect(void *arg, uint64_t number)
{
    (void)arg;
    struct net_link *l = find_link(number);
    if (l == NULL || l->conn != NULL) {
        return;
    }
    struct net_server *s = find_server(l->endpoint);
    if (s == NULL || s->host->dead || l->host->dead || !reachable(s->host, l->host)) {
        connect_later(l);
        return;
    }
    struct conn *c = mem_zalloc(1, sizeof(*c));
    must(c != NULL);
    must(mem_grow((void **)&net.conns, &net.conn_capacity, net.conn_count + 1,
                  sizeof(struct conn *)));
    net.conns[net.conn_count++] = c;
    *c = (struct conn){.server = s,
                       .link = l,
                       .server_host = s->host,
                       .link_host = l->host,
                       .peer = ++s->next_peer};
    (void)snprintf(c->endpoint, sizeof(c->endpoint), "%s", l->endpoint);
    s->stats.connections_accepted++;
    s->stats.connections_open++;
    l->conn = c;
    l->backoff_us = RECONNECT_MIN_US;
    for (struct list *n; (n = list_pop_front(&l->queue)) != NULL;) {
        l->queued--;
        take_off(l, list_entry(n, struct parcel, node));
    }
}

/* ---- Flights ---- */

/* A frame of long ago comes out of some buffer, into whatever connection there is now. */
static struct conn *present_conn(const struct conn *old)
{
    for (size_t i = net.conn_count; i-- > 0;) {
        struct conn *c = net.conns[i];
        if (c->server != NULL && c->link != NULL && c->link_host == old->link_host &&
            strcmp(c->endpoint, old->endpoint) == 0) {
            return c;
        }
    }
    return NULL;
}

static void arrive(struct flight *f, struct conn *c)
{
    struct parcel *p = mem_zalloc(1, sizeof(*p));
    must(p != NULL);
    list_init(&p->node);
    p->data = f->data;
    p->size = f->size;
    p->peer = c->peer;
    f->data = NULL;
    net.counters.delivered++;
    net.counters.bytes += p->size;
    trace((uint64_t)c->peer << 32 | p->size, checksum_of(p->data, p->size < 64 ? p->size : 64));
    list_push_back(f->up ? &c->server->inbox : &c->link->inbox, &p->node);
    struct task *t = f->up ? c->server->task : c->link->task;
    if (t != NULL) {
        task_wake(t);
    }
}

static void land(void *arg, uint64_t number)
{
    (void)number;
    struct flight *f = arg;
    struct conn *c = f->conn;
    const struct host *from = f->up ? c->link_host : c->server_host;
    if (f->old && (c->broken || c->server == NULL || c->link == NULL)) {
        c = present_conn(c);
    }
    bool gone = c == NULL || (c->broken && !f->old) || c->server == NULL || c->link == NULL;
    /* Its host died before it would have left. */
    bool never_left =
        !f->old && net.died_us[from->number] != 0 && f->left_us >= net.died_us[from->number];
    if (!gone && !never_left) {
        arrive(f, c);
    }
    mem_free(f->data);
    mem_free(f);
}

static void fly(struct conn *c, bool up, bool old, const uint8_t *data, size_t size, int64_t at_us)
{
    struct flight *f = mem_zalloc(1, sizeof(*f));
    must(f != NULL);
    *f = (struct flight){.conn = c, .up = up, .old = old, .left_us = world_now(), .size = size};
    f->data = mem_dup(data, size);
    must(f->data != NULL);
    world_at(at_us, land, f, 0);
}

static int64_t delay_of(const struct net_path *path, const struct host *a, const struct host *b)
{
    int64_t us = path->delay_min_us + chance_between(0, 2 * path->delay_mean_us);
    if (chance_permille((uint64_t)path->tail_permille)) {
        us += chance_between(0, path->tail_us);
    }
    return us + net.slow_us[a->number] + net.slow_us[b->number];
}

/* The list of duplicates in the reply to a produce carries no checksum: a known gap of the
 * protocol, which TCP's own covers; such replies stay whole. */
static bool is_unprotected(const uint8_t *data, size_t size)
{
    return size >= FRAME_HEADER_BYTES && get_le16(data) == FRAME_MAGIC && data[3] == FRAME_REPLY &&
           get_le16(data + 4) == COMMAND_PRODUCE;
}

static void maybe_flip(const struct net_path *path, uint8_t *data, size_t size)
{
    if (size > 0 && !is_unprotected(data, size) && chance_permille((uint64_t)path->flip_permille)) {
        net.counters.flipped++;
        data[chance_below(size)] ^= (uint8_t)(1u << chance_below(8));
    }
}

static void stream_lost(struct conn *c)
{
    c->broken = true;
    world_at(sim->now_us + chance_between(1000, 2 * SIM_SECOND), reset_conn, c, 0);
}

static void send_on(struct conn *c, bool up, uint8_t *data, size_t size)
{
    const struct host *from = up ? c->link_host : c->server_host;
    const struct host *to = up ? c->server_host : c->link_host;
    const struct net_path *path = sim_net_path(from->is_node && to->is_node);
    net.counters.sent++;
    if (net.watch != NULL) {
        net.watch(from, to, bytes_of(data, size), up);
    }
    if (c->broken) {
        return;
    }
    bool cut = net.cut[from->number][to->number];
    if (cut || chance_permille((uint64_t)path->loss_permille)) {
        net.counters.cut += cut;
        net.counters.lost += !cut;
        if (!path->datagrams) {
            stream_lost(c);
        }
        return;
    }
    int64_t at = world_now() + delay_of(path, from, to);
    int64_t *last = up ? &c->last_up_us : &c->last_down_us;
    if (at - world_now() > SIM_SECOND) {
        mark(MARK_N03_LATE);
    }
    if (!path->datagrams) {
        at = at > *last ? at : *last;
        *last = at;
    }
    if (path->datagrams && chance_permille((uint64_t)path->double_permille)) {
        net.counters.doubled++;
        fly(c, up, false, data, size, world_now() + delay_of(path, from, to));
    }
    if (path->datagrams && chance_permille((uint64_t)path->old_permille)) {
        net.counters.old++;
        fly(c, up, true, data, size, world_now() + chance_between(0, OLD_MAX_US));
    }
    maybe_flip(path, data, size);
    fly(c, up, false, data, size, at);
}

/* ---- Servers ---- */

enum ferry_err net_server_open(struct ferry_context *context, const char *endpoint,
                               const struct net_server_config *config, struct net_server **server,
                               struct err_text *e)
{
    if (find_server(endpoint) != NULL) {
        return err_set(e, FERRY_ERR_LOCKED, "%s: in use", endpoint);
    }
    struct net_server *s = mem_zalloc(1, sizeof(*s));
    must(s != NULL);
    s->host = context->host;
    s->task = sim->current;
    s->message_max_bytes = config->message_max_bytes;
    (void)snprintf(s->endpoint, sizeof(s->endpoint), "%s", endpoint);
    list_init(&s->inbox);
    s->next_peer = (net_peer)chance_below(1u << 30);
    s->next = net.servers;
    net.servers = s;
    net.died_us[s->host->number] = 0;
    *server = s;
    return FERRY_OK;
}

void net_server_close(struct net_server **server)
{
    struct net_server *s = *server;
    if (s == NULL) {
        return;
    }
    struct net_server **at = &net.servers;
    while (*at != s) {
        at = &(*at)->next;
    }
    *at = s->next;
    for (size_t i = 0; i < net.conn_count; i++) {
        if (net.conns[i]->server == s) {
            close_conn(net.conns[i]);
        }
    }
    free_parcels(&s->inbox);
    mem_free(s);
    *server = NULL;
}

const char *net_server_endpoint(const struct net_server *server)
{
    return server->endpoint;
}

bool net_server_receive(struct net_server *server, net_peer *peer, struct net_message *m)
{
    struct list *n = list_pop_front(&server->inbox);
    if (n == NULL) {
        return false;
    }
    struct parcel *p = list_entry(n, struct parcel, node);
    *peer = p->peer;
    server->stats.received++;
    server->stats.received_bytes += p->size;
    give(m, p);
    return true;
}

static struct conn *conn_of(const struct net_server *s, net_peer peer)
{
    for (size_t i = net.conn_count; i-- > 0;) {
        if (net.conns[i]->server == s && net.conns[i]->peer == peer) {
            return net.conns[i];
        }
    }
    return NULL;
}

enum ferry_err net_server_send(struct net_server *server, net_peer peer, struct buf *frame)
{
    size_t size;
    uint8_t *data = buf_steal(frame, &size);
    struct conn *c = conn_of(server, peer);
    enum ferry_err err = c != NULL ? FERRY_OK : FERRY_ERR_UNREACHABLE;
    if (c != NULL && !server->host->dead) {
        server->stats.sent++;
        server->stats.sent_bytes += size;
        send_on(c, false, data, size);
    }
    mem_free(data);
    return err;
}

void net_server_cut(struct net_server *server, net_peer peer, const char *reason)
{
    struct conn *c = conn_of(server, peer);
    sim_say("cuts %s off: %s", c != NULL ? c->link_host->name : "?", reason);
    if (c != NULL) {
        server->stats.cut_protocol++;
        close_conn(c);
    }
}

/* A peer that died is known to be gone once its connection is. */
bool net_server_has_peer(struct net_server *server, net_peer peer)
{
    return conn_of(server, peer) != NULL;
}

void net_server_watch(struct net_server *server)
{
    (void)server;
}

void net_server_stats(const struct net_server *server, struct net_server_stats *stats)
{
    *stats = server->stats;
}

/* ---- Links ---- */

static void take_off(struct net_link *l, struct parcel *p)
{
    if (!l->host->dead) {
        send_on(l->conn, true, p->data, p->size);
    }
    mem_free(p->data);
    mem_free(p);
}

enum ferry_err net_link_open(struct ferry_context *context, const char *endpoint,
                             size_t message_max_bytes, struct net_link **link, struct err_text *e)
{
    (void)e;
    struct net_link *l = mem_zalloc(1, sizeof(*l));
    must(l != NULL);
    l->host = context->host;
    l->task = sim->current;
    l->message_max_bytes = message_max_bytes;
    l->backoff_us = RECONNECT_MIN_US;
    l->number = ++net.next_link;
    (void)snprintf(l->endpoint, sizeof(l->endpoint), "%s", endpoint);
    list_init(&l->inbox);
    list_init(&l->queue);
    l->next = net.links;
    net.links = l;
    world_at(world_now() + chance_between(50, 500), try_connect, NULL, l->number);
    *link = l;
    return FERRY_OK;
}

void net_link_close(struct net_link **link)
{
    struct net_link *l = *link;
    if (l == NULL) {
        return;
    }
    struct net_link **at = &net.links;
    while (*at != l) {
        at = &(*at)->next;
    }
    *at = l->next;
    if (l->conn != NULL) {
        l->conn->link = NULL;
        /* What was on its way is lost; the server learns it with its next answer. */
        l->conn->server = NULL;
    }
    free_parcels(&l->inbox);
    free_parcels(&l->queue);
    mem_free(l);
    *link = NULL;
}

enum ferry_err net_link_send(struct net_link *link, struct buf *frame)
{
    if (link->conn != NULL) {
        take_off(link, parcel_of(frame));
        return FERRY_OK;
    }
    if (link->queued >= LINK_QUEUE_MAX) {
        return FERRY_ERR_THROTTLED;
    }
    link->queued++;
    list_push_back(&link->queue, &parcel_of(frame)->node);
    return FERRY_OK;
}

bool net_link_receive(struct net_link *link, struct net_message *m)
{
    link->task = sim->current;
    struct list *n = list_pop_front(&link->inbox);
    if (n != NULL) {
        give(m, list_entry(n, struct parcel, node));
    }
    return n != NULL;
}

void sim_net_host_died(struct host *h, int64_t when_us)
{
    net.died_us[h->number] = when_us;
}

/* ---- Wakes and polling ---- */

static struct wake_slot *slot_of(int fd)
{
    must(fd >= WAKE_FD_FIRST && (size_t)(fd - WAKE_FD_FIRST) < net.wake_count);
    return &net.wakes[fd - WAKE_FD_FIRST];
}

enum ferry_err net_wake_init(struct net_wake *w)
{
    must(mem_grow((void **)&net.wakes, &net.wake_capacity, net.wake_count + 1, sizeof(*net.wakes)));
    net.wakes[net.wake_count] = (struct wake_slot){.task = sim->current};
    w->fd = WAKE_FD_FIRST + (int)net.wake_count++;
    return FERRY_OK;
}

void net_wake_fini(struct net_wake *w)
{
    w->fd = -1;
}

void net_wake_signal(struct net_wake *w)
{
    if (w->fd >= WAKE_FD_FIRST && sim != NULL) {
        struct wake_slot *slot = slot_of(w->fd);
        slot->signalled = true;
        if (slot->task != NULL && slot->task != sim->current) {
            task_wake(slot->task);
        }
    }
}

void net_wake_clear(struct net_wake *w)
{
    slot_of(w->fd)->signalled = false;
}

static int count_readable(struct net_poll_item *items, size_t count)
{
    int readable = 0;
    for (size_t i = 0; i < count; i++) {
        struct net_poll_item *item = &items[i];
        if (item->server != NULL) {
            item->server->task = sim->current;
            item->readable = !list_is_empty(&item->server->inbox);
        } else if (item->link != NULL) {
            item->link->task = sim->current;
            item->readable = !list_is_empty(&item->link->inbox);
        } else {
            slot_of(item->fd)->task = sim->current;
            item->readable = slot_of(item->fd)->signalled;
        }
        readable += item->readable;
    }
    return readable;
}

int net_poll(struct net_poll_item *items, size_t count, int timeout_ms)
{
    int64_t until = timeout_ms < 0 ? SIM_NEVER : world_now() + timeout_ms * SIM_MS;
    int readable = count_readable(items, count);
    while (readable == 0 && world_now() < until) {
        fiber_wait(until);
        readable = count_readable(items, count);
    }
    return readable;
}
