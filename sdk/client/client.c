#include "client/client.h"

#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"
#include "client/consumer.h"
#include "client/metadata.h"
#include "client/receiver.h"
#include "client/source.h"
#include "client/worker.h"

#define MESSAGES_A_TURN_MAX 256   /* Taken from one link before the others have their turn. */
#define ROUNDS_A_TURN_MAX   10000 /* Of a stepped client: more is a client that spins. */

/* ---- Work for the io thread. */

bool client_add_work(struct ferry_client *c, struct list *work, struct list *node)
{
    if (!list_is_empty(node)) {
        return false;
    }
    list_push_back(work, node);
    bool wake = c->asleep;
    c->asleep = false;
    return wake;
}

void client_wake(struct ferry_client *c, bool needed)
{
    if (needed) {
        net_wake_signal(&c->wake);
    }
}

void client_run_task(struct ferry_client *c, void (*run)(struct ferry_client *c, void *arg),
                     void *arg)
{
    struct task task = {.run = run, .arg = arg};
    if (c->stepped) {
        run(c, arg); /* This thread is the io thread too. */
        return;
    }
    list_init(&task.node);
    pthread_mutex_lock(&c->lock);
    bool wake = client_add_work(c, &c->work_tasks, &task.node);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    pthread_mutex_lock(&c->lock);
    while (!task.done) {
        pthread_cond_wait(&c->task_changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

static void run_tasks(struct ferry_client *c, struct list *tasks)
{
    struct list *node;
    while ((node = list_pop_front(tasks)) != NULL) {
        struct task *task = list_entry(node, struct task, node);
        task->run(c, task->arg);
        pthread_mutex_lock(&c->lock);
        task->done = true;
        pthread_cond_broadcast(&c->task_changed);
        pthread_mutex_unlock(&c->lock);
    }
}

/* Moves all nodes; nodes stay linked, so that they are not queued twice meanwhile. */
static bool splice(struct list *to, struct list *from)
{
    list_init(to);
    if (list_is_empty(from)) {
        return false;
    }
    list_push_front(from, to);
    list_remove(from);
    return true;
}

struct work {
    struct list streams, topics, calls, appends, consumers, receivers, tasks;
};

/* Takes what there is. When there is nothing the thread may sleep: whoever comes next wakes it. */
static bool take_work(struct ferry_client *c, struct work *w, bool may_sleep, bool *stopping)
{
    pthread_mutex_lock(&c->lock);
    bool any = splice(&w->streams, &c->work_streams);
    any = splice(&w->topics, &c->work_topics) || any;
    any = splice(&w->calls, &c->work_calls) || any;
    any = splice(&w->appends, &c->work_appends) || any;
    any = splice(&w->consumers, &c->work_consumers) || any;
    any = splice(&w->receivers, &c->work_receivers) || any;
    any = splice(&w->tasks, &c->work_tasks) || any;
    *stopping = c->stopping;
    c->asleep = !any && may_sleep;
    pthread_mutex_unlock(&c->lock);
    return any;
}

/* Unlinks the first node under the lock: from then on it may be queued again. */
static struct list *next_work(struct ferry_client *c, struct list *work)
{
    pthread_mutex_lock(&c->lock);
    struct list *node = list_pop_front(work);
    pthread_mutex_unlock(&c->lock);
    return node;
}

static void do_work(struct ferry_client *c, struct work *w)
{
    struct list *node;
    while ((node = next_work(c, &w->topics)) != NULL) {
        metadata_adopt(list_entry(node, struct topic, work_node));
    }
    while ((node = next_work(c, &w->streams)) != NULL) {
        stream_pump(list_entry(node, struct partition, stream.work_node));
    }
    while ((node = next_work(c, &w->calls)) != NULL) {
        call_start(c, list_entry(node, struct call, node));
    }
    while ((node = next_work(c, &w->appends)) != NULL) {
        append_start(list_entry(node, struct append, node));
    }
    while ((node = next_work(c, &w->consumers)) != NULL) {
        consumer_pump(list_entry(node, struct ferry_consumer, work_node));
    }
    while ((node = next_work(c, &w->receivers)) != NULL) {
        receiver_pump(list_entry(node, struct ferry_receiver, work_node));
    }
    run_tasks(c, &w->tasks);
}

/* ---- The io thread. */

int64_t client_backoff_us(struct ferry_client *c, unsigned attempts)
{
    int64_t longest_us = c->options.backoff_max_ms * 1000;
    int64_t pause_us = c->options.backoff_ms * 1000;
    for (unsigned i = 1; i < attempts && pause_us < longest_us; i++) {
        pause_us *= 2;
    }
    pause_us = pause_us < longest_us ? pause_us : longest_us;
    return 1000 + (int64_t)prng_below(&c->prng, (uint64_t)pause_us);
}

void client_learn_limits(struct ferry_client *c, const struct hello_reply *h)
{
    pthread_mutex_lock(&c->lock);
    if (h->message_max_bytes < c->message_max_bytes) {
        c->message_max_bytes = (size_t)h->message_max_bytes;
    }
    if (h->batch_max_bytes < c->batch_max_bytes) {
        c->batch_max_bytes = (size_t)h->batch_max_bytes;
    }
    pthread_mutex_unlock(&c->lock);
}

static void each_partition(struct ferry_client *c, void (*visit)(struct partition *p))
{
    for (size_t i = 0; i < CLIENT_TOPIC_BUCKETS; i++) {
        pthread_mutex_lock(&c->lock);
        struct list *n = c->buckets[i].next;
        pthread_mutex_unlock(&c->lock);
        while (n != &c->buckets[i]) {
            struct topic *t = list_entry(n, struct topic, bucket);
            for (int32_t k = 0; k < t->partition_count; k++) {
                visit(t->partitions[k]);
            }
            pthread_mutex_lock(&c->lock);
            n = n->next;
            pthread_mutex_unlock(&c->lock);
        }
    }
}

void client_pump_all(struct ferry_client *c)
{
    each_partition(c, stream_pump);
}

static bool receive_all(struct ferry_client *c)
{
    bool more = false;
    struct list *n = c->connections.next;
    while (n != &c->connections) {
        struct connection *k = list_entry(n, struct connection, node);
        n = n->next;
        more = connection_receive(k, MESSAGES_A_TURN_MAX) || more;
    }
    return more;
}

_Static_assert(CONNECTIONS_MAX + 1 <= NET_POLL_ITEMS_MAX, "all are polled");

static void sleep_until_something(struct ferry_client *c, int timeout_ms)
{
    size_t count = 0;
    if (!mem_grow((void **)&c->items, &c->item_capacity, c->connection_count + 1,
                  sizeof(*c->items))) {
        timeout_ms = timeout_ms < 0 || timeout_ms > 10 ? 10 : timeout_ms; /* Some must do. */
    }
    if (c->item_capacity > 0) {
        c->items[count++] = (struct net_poll_item){.fd = c->wake.fd};
    }
    for (struct list *n = c->connections.next; n != &c->connections; n = n->next) {
        struct connection *k = list_entry(n, struct connection, node);
        if (k->link != NULL && count < c->item_capacity) {
            c->items[count++] = (struct net_poll_item){.link = k->link, .fd = -1};
        }
    }
    (void)net_poll(c->items, count, timeout_ms);
}

/* Takes what has come and does what is due. True when there was work: what it caused may be more
 * work, or an earlier timer. False: nothing is to be done for *timeout_ms. */
static bool run_once(struct ferry_client *c, int *timeout_ms, bool *stopping)
{
    struct work w;
    bool more = receive_all(c);
    timers_run(&c->timers, clock_monotonic_us());
    *timeout_ms = more ? 0 : timers_wait_ms(&c->timers, clock_monotonic_us());
    if (!take_work(c, &w, *timeout_ms != 0, stopping)) {
        return false;
    }
    do_work(c, &w);
    return true;
}

static void *io_run(void *arg)
{
    struct ferry_client *c = arg;
    bool stopping = false;
    while (!stopping) {
        int timeout_ms;
        if (!run_once(c, &timeout_ms, &stopping) && !stopping) {
            sleep_until_something(c, timeout_ms);
            net_wake_clear(&c->wake);
        }
    }
    return NULL;
}

int64_t client_turn(struct ferry_client *c)
{
    bool stopping;
    int timeout_ms = 0;
    must(c->stepped);
    net_wake_clear(&c->wake);
    for (int round = 0; timeout_ms == 0; round++) {
        must(round < ROUNDS_A_TURN_MAX);
        if (run_once(c, &timeout_ms, &stopping)) {
            timeout_ms = 0;
        }
    }
    return timers_next_us(&c->timers);
}

/* ---- Open. */

static enum ferry_err split_servers(struct ferry_client *c, struct err_text *e)
{
    const char *at = c->options.servers;
    while (*at != '\0') {
        size_t length = strcspn(at, ", \t");
        if (length > 0 && c->server_count == CLIENT_SERVERS_MAX) {
            return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "servers: name at most %u",
                           CLIENT_SERVERS_MAX);
        }
        if (length > 0) {
            c->servers[c->server_count++] = bytes_of(at, length);
        }
        at += length;
        at += strspn(at, ", \t");
    }
    if (c->server_count == 0) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "servers: name at least one, like tcp://127.0.0.1:7400");
    }
    return FERRY_OK;
}

static enum ferry_err check_options(const struct client_options *o, struct err_text *e)
{
    if (o->message_max_bytes > o->queue_bytes) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "queue.bytes must be at least message.max_bytes");
    }
    if (o->backoff_max_ms < o->backoff_ms) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "retry.backoff_max_ms must be at least retry.backoff_ms");
    }
    bool named = o->producer_name[0] != '\0';
    if (named && !name_is_valid(bytes_of_string(o->producer_name))) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "producer.name: %s",
                       ferry_err_text(FERRY_ERR_BAD_NAME));
    }
    return FERRY_OK;
}

static void init_lists(struct ferry_client *c)
{
    struct list *lists[] = {&c->work_streams,   &c->work_topics, &c->work_calls, &c->work_appends,
                            &c->work_consumers, &c->work_tasks,  &c->pool,       &c->due,
                            &c->connections,    &c->consumers,   &c->chains,     &c->calls,
                            &c->work_receivers, &c->receivers};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        list_init(lists[i]);
    }
    for (size_t i = 0; i < CLIENT_TOPIC_BUCKETS; i++) {
        list_init(&c->buckets[i]);
    }
}

static void init_locks(struct ferry_client *c)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->task_changed, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->due_changed, &attr);
    pthread_condattr_destroy(&attr);
}

static void fini_locks(struct ferry_client *c)
{
    pthread_cond_destroy(&c->due_changed);
    pthread_cond_destroy(&c->task_changed);
    pthread_mutex_destroy(&c->lock);
}

static enum ferry_err open_connections(struct ferry_client *c, struct err_text *e)
{
    for (size_t i = 0; i < c->server_count; i++) {
        struct connection *k;
        enum ferry_err err = connection_get(c, c->servers[i], &k, e);
        if (err != FERRY_OK) {
            return err;
        }
    }
    return FERRY_OK;
}

static void free_connections(struct ferry_client *c)
{
    c->controller = NULL;
    route_fini(c);
    while (!list_is_empty(&c->connections)) {
        connection_free(list_entry(c->connections.next, struct connection, node));
    }
}

static struct ferry_client *client_new(const struct ferry_conf *conf)
{
    struct ferry_client *c = mem_zalloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    if (conf != NULL) {
        c->options = conf->options;
        c->report = conf->report;
        c->report_arg = conf->report_arg;
        c->context = conf->context;
    } else {
        option_defaults(&conf_table, &c->options);
    }
    c->owns_context = c->context == NULL;
    c->message_max_bytes = (size_t)c->options.message_max_bytes;
    c->batch_max_bytes = BATCH_MAX_BYTES;
    buf_init(&c->headers, c->message_max_bytes);
    timers_init(&c->timers);
    init_lists(c);
    route_init(c);
    return c;
}

static enum ferry_err seed_ids(struct ferry_client *c, const uint64_t *seed)
{
    bool given = c->options.snowflake_worker_id >= 0; /* Else the cluster gives it (worker.h). */
    uint32_t worker_id = given ? (uint32_t)c->options.snowflake_worker_id : 0;
    c->worker_until_us = given ? INT64_MAX : 0;
    enum ferry_err err = FERRY_OK;
    if (seed != NULL) {
        id_gen_init_seeded(&c->ids, *seed);
        c->ids.worker_id = worker_id;
    } else {
        err = id_gen_init(&c->ids, worker_id);
    }
    if (err == FERRY_OK) {
        prng_init(&c->prng, prng_next(&c->ids.prng));
    }
    return err;
}

static enum ferry_err client_start(struct ferry_client *c, const uint64_t *seed, struct err_text *e)
{
    enum ferry_err err = split_servers(c, e);
    if (err == FERRY_OK) {
        err = check_options(&c->options, e);
    }
    if (err == FERRY_OK) {
        err = seed_ids(c, seed);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (c->owns_context) {
        err = net_context_new(1, &c->context);
        if (err != FERRY_OK) {
            return err;
        }
    }
    err = net_wake_init(&c->wake);
    if (err != FERRY_OK) {
        goto no_wake;
    }
    err = net_wake_init(&c->due_wake);
    if (err != FERRY_OK) {
        goto no_due;
    }
    init_locks(c);
    err = open_connections(c, e);
    if (err != FERRY_OK) {
        goto no_connections;
    }
    err = FERRY_ERR_NO_MEMORY;
    if (!producer_init(c)) {
        goto no_connections;
    }
    if (c->options.snowflake_worker_id < 0 && !worker_start(c)) {
        goto no_thread;
    }
    if (!c->stepped && pthread_create(&c->thread, NULL, io_run, c) != 0) {
        goto no_thread;
    }
    return FERRY_OK;

no_thread:
    worker_fini(c);
    producer_fini(c);
no_connections:
    free_connections(c);
    fini_locks(c);
    net_wake_fini(&c->due_wake);
no_due:
    net_wake_fini(&c->wake);
no_wake:
    if (c->owns_context) {
        net_context_free(&c->context);
    }
    return err;
}

static void client_free(struct ferry_client *c)
{
    route_fini(c); /* Once more, for a client that was never started. */
    timers_fini(&c->timers);
    buf_fini(&c->headers);
    mem_free(c->items);
    mem_free(c);
}

/* A seed makes it a stepped one. */
static enum ferry_err open_client(struct ferry_client **client, struct ferry_conf **conf,
                                  const uint64_t *seed, struct err_text *e)
{
    struct ferry_client *c = client_new(conf != NULL ? *conf : NULL);
    if (c == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    c->stepped = seed != NULL;
    enum ferry_err err = client_start(c, seed, e);
    if (err != FERRY_OK) {
        client_free(c);
        return err;
    }
    if (conf != NULL) {
        ferry_conf_free(conf);
    }
    *client = c;
    return FERRY_OK;
}

enum ferry_err client_open_stepped(struct ferry_conf **conf, uint64_t seed,
                                   struct ferry_client **client, struct err_text *e)
{
    return open_client(client, conf, &seed, e);
}

enum ferry_err ferry_open(struct ferry_client **client, struct ferry_conf **conf, char *detail,
                          size_t detail_bytes)
{
    struct err_text e = {.text = ""};
    enum ferry_err err = open_client(client, conf, NULL, &e);
    if (err != FERRY_OK && detail != NULL && detail_bytes > 0) {
        (void)snprintf(detail, detail_bytes, "%s",
                       e.text[0] != '\0' ? e.text : ferry_err_text(err));
    }
    return err;
}

/* ---- Close. */

static void fail_stream(struct partition *p)
{
    stream_fail(p, FERRY_ERR_CLOSED);
}

static void fail_topics(struct ferry_client *c)
{
    for (size_t i = 0; i < CLIENT_TOPIC_BUCKETS; i++) {
        for (struct list *n = c->buckets[i].next; n != &c->buckets[i]; n = n->next) {
            accumulator_fail_staged(list_entry(n, struct topic, bucket), FERRY_ERR_CLOSED);
        }
    }
    each_partition(c, fail_stream);
}

void ferry_close(struct ferry_client **client, int timeout_ms)
{
    struct ferry_client *c = *client;
    if (c == NULL) {
        return;
    }
    *client = NULL;
    pthread_mutex_lock(&c->lock);
    c->closing = true;
    pthread_mutex_unlock(&c->lock);
    (void)ferry_flush(c, timeout_ms);
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_mutex_unlock(&c->lock);
    if (!c->stepped) {
        net_wake_signal(&c->wake);
        pthread_join(c->thread, NULL);
    }

    must(list_is_empty(&c->consumers));
    must(list_is_empty(&c->receivers));
    must(list_is_empty(&c->chains));
    calls_fail(c);
    free_connections(c);
    fail_topics(c);
    (void)due_run(c, 0);
    must(c->queued_messages == 0);
    worker_fini(c);
    producer_fini(c);
    topics_free(c);
    parcel_pool_free(c);
    fini_locks(c);
    net_wake_fini(&c->due_wake);
    net_wake_fini(&c->wake);
    if (c->owns_context) {
        net_context_free(&c->context);
    }
    client_free(c);
}

/* ---- Small things. */

int ferry_fd(const struct ferry_client *client)
{
    return client->due_wake.fd;
}

size_t ferry_queued(struct ferry_client *client)
{
    pthread_mutex_lock(&client->lock);
    size_t queued = client->queued_messages;
    pthread_mutex_unlock(&client->lock);
    return queued;
}

struct ferry_id ferry_id_new(struct ferry_client *client)
{
    pthread_mutex_lock(&client->lock);
    struct ferry_id id = id_gen_uuid7(&client->ids, clock_wall_ms());
    pthread_mutex_unlock(&client->lock);
    return id;
}
