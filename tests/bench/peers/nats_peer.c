/* nats_peer: publishes to a NATS JetStream stream of three file replicas. See peer.h.
 *
 * URL is nats://HOST:PORT of any server. The stream FERRYBENCH is made anew, and deleted at the
 * end. Confirmations are counted on a thread of the library, under a lock. As a queue: a pull
 * consumer with explicit acks on a stream of work-queue retention, FETCH_MAX messages at a time;
 * acks are sent and not confirmed (the usual way). */
#include <nats/nats.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "peer.h"

#define STREAM      "FERRYBENCH"
#define SUBJECT     "ferrybench"
#define REPLICAS    3
#define WAIT_MS     30000
#define DURABLE     "ferrybench"
#define FETCH_MAX   500
#define PENDING_MAX 20000 /* Of the consumer: messages not acked. */

struct publisher {
    struct peer_run run;
    natsConnection *connection;
    jsCtx *stream;
    natsSubscription *subscription; /* As a queue. */
    pthread_mutex_t lock;           /* Over the run's counts. */
    pthread_cond_t changed;
    int64_t
        first; /* The stream's sequence before the first message: sequence n is message n - 1. */
};

static bool failed(const struct publisher *p, const char *what, natsStatus status)
{
    if (status != NATS_OK) {
        peer_failed(&p->run, what, natsStatus_GetText(status));
    }
    return status != NATS_OK;
}

/* The stream is new and one connection has one order: sequence n is message n - 1. */
static void on_ack(jsCtx *stream, natsMsg *message, jsPubAck *ack, jsPubAckErr *error, void *arg)
{
    struct publisher *p = arg;
    (void)stream;
    pthread_mutex_lock(&p->lock);
    if (error != NULL || ack == NULL) {
        p->run.refused++;
    } else if (!p->run.queue && (int64_t)ack->Sequence <= p->run.sent) {
        peer_confirmed(&p->run, (int64_t)ack->Sequence - 1);
    }
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    natsMsg_Destroy(message);
}

static bool open_stream(struct publisher *p)
{
    jsStreamConfig config;
    jsOptions options;
    const char *subjects[] = {SUBJECT};
    jsStreamConfig_Init(&config);
    jsOptions_Init(&options);
    config.Name = STREAM;
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Storage = js_FileStorage;
    config.Replicas = REPLICAS;
    config.Retention = p->run.queue ? js_WorkQueuePolicy : js_LimitsPolicy;
    options.Wait = WAIT_MS;
    options.PublishAsync.MaxPending = p->run.in_flight + 1; /* We keep count ourselves. */
    options.PublishAsync.StallWait = WAIT_MS;
    options.PublishAsync.AckHandler = on_ack;
    options.PublishAsync.AckHandlerClosure = p;
    if (failed(p, p->run.url, natsConnection_ConnectTo(&p->connection, p->run.url)) ||
        failed(p, "JetStream", natsConnection_JetStream(&p->stream, p->connection, &options))) {
        return false;
    }
    natsStatus status = js_DeleteStream(p->stream, STREAM, NULL, NULL);
    return (status == NATS_OK || status == NATS_NOT_FOUND || !failed(p, "deleting", status)) &&
           !failed(p, "making the stream", js_AddStream(NULL, p->stream, &config, NULL, NULL));
}

/* Until fewer than `limit` messages are under way. */
static bool wait_below(struct publisher *p, int64_t limit)
{
    bool ok = true;
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&p->lock);
    while (ok && p->run.refused == 0 && peer_under_way(&p->run) >= limit) {
        ok = pthread_cond_timedwait(&p->changed, &p->lock, &deadline) == 0;
    }
    ok = ok && p->run.refused == 0;
    pthread_mutex_unlock(&p->lock);
    return ok;
}

/* With one in flight there is nothing to keep count of: the call that a program would use. */
static bool publish_and_wait(struct publisher *p)
{
    jsPubAck *ack = NULL;
    int64_t n = peer_sends(&p->run);
    if (failed(
            p, "publishing",
            js_Publish(&ack, p->stream, SUBJECT, p->run.payload, (int)p->run.bytes, NULL, NULL))) {
        return false;
    }
    jsPubAck_Destroy(ack);
    peer_confirmed(&p->run, n);
    return true;
}

static bool publish_one(struct publisher *p)
{
    peer_number(&p->run, peer_sends(&p->run));
    return !failed(p, "publishing",
                   js_PublishAsync(p->stream, SUBJECT, p->run.payload, (int)p->run.bytes, NULL)) &&
           wait_below(p, p->run.in_flight);
}

/* ---- As a queue ---- */

static bool subscribe(struct publisher *p)
{
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Config.AckPolicy = js_AckExplicit;
    options.Config.MaxAckPending = PENDING_MAX;
    return !failed(
        p, "subscribing",
        js_PullSubscribe(&p->subscription, p->stream, SUBJECT, DURABLE, NULL, &options, NULL));
}

static void take(struct publisher *p, natsMsg *message)
{
    int64_t n =
        peer_read_number(&p->run, natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message));
    if (n >= 0 && natsMsg_Ack(message, NULL) == NATS_OK) {
        peer_confirmed(&p->run, n);
    }
}

static void *consume(void *arg)
{
    struct publisher *p = arg;
    while (!peer_is_over(&p->run)) {
        natsMsgList list = {0};
        natsStatus status = natsSubscription_Fetch(&list, p->subscription, FETCH_MAX, 1000, NULL);
        for (int i = 0; i < list.Count; i++) {
            take(p, list.Msgs[i]);
        }
        natsMsgList_Destroy(&list);
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->changed);
        pthread_mutex_unlock(&p->lock);
        if (status != NATS_OK && status != NATS_TIMEOUT) {
            (void)failed(p, "fetching", status);
            peer_stop(&p->run);
        }
    }
    return NULL;
}

static bool publish_all(struct publisher *p)
{
    pthread_t consumer;
    bool ok = !p->run.queue || (subscribe(p) && pthread_create(&consumer, NULL, consume, p) == 0);
    bool consumes = ok && p->run.queue;
    peer_start(&p->run);
    while (ok && peer_goes_on(&p->run) && !peer_is_over(&p->run)) {
        ok = p->run.in_flight == 1 && !p->run.queue ? publish_and_wait(p) : publish_one(p);
    }
    ok = ok && (p->run.queue ? peer_wait_for_all(&p->run) : wait_below(p, 1));
    if (consumes) {
        peer_stop(&p->run);
        pthread_join(consumer, NULL);
    }
    return ok;
}

int main(int argc, char **argv)
{
    struct publisher p = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    if (!peer_begin(&p.run, argc, argv)) {
        return 2;
    }
    bool ok = open_stream(&p) && publish_all(&p);
    char version[64];
    snprintf(version, sizeof(version), "%s", nats_GetVersion());
    int code =
        ok ? peer_end(&p.run, version) : peer_failed(&p.run, "publishing", "not all confirmed");
    if (p.stream != NULL) {
        js_DeleteStream(p.stream, STREAM, NULL, NULL);
    }
    natsSubscription_Destroy(p.subscription);
    jsCtx_Destroy(p.stream);
    natsConnection_Destroy(p.connection);
    nats_Close();
    return code;
}
