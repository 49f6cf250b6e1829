#include "client/member.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/metadata.h"

#define MEMBER_LEAST_MS 100 /* What a heartbeat may take however late it is. */

static void on_timer(struct timer *timer);

void member_make_name(struct ferry_client *c, char *name, size_t name_bytes)
{
    must(name_bytes >= MEMBER_NAME_BYTES);
    pthread_mutex_lock(&c->lock);
    struct ferry_id id = id_random(&c->ids);
    pthread_mutex_unlock(&c->lock);
    (void)snprintf(name, name_bytes, "member-%016" PRIx64, get_le64(id.bytes));
}

void member_init(struct member *m, struct ferry_client *c, struct topic *t)
{
    *m = (struct member){
        .client = c, .topic = t, .zone = c->options.zone, .session_ms = MEMBER_SESSION_DEFAULT_MS};
    pthread_mutex_lock(&c->lock);
    m->instance = id_random(&c->ids);
    pthread_mutex_unlock(&c->lock);
}

static void encode(struct buf *b, const struct call *call, uint64_t group)
{
    struct member *m = call->arg;
    m->request->group = group;
    member_heartbeat_request_encode(b, m->request);
}

static int64_t heartbeat_us(const struct member *m, uint32_t wished_ms)
{
    uint32_t longest_ms = m->session_ms / 3;
    uint32_t ms = wished_ms > 0 && wished_ms < longest_ms ? wished_ms : longest_ms;
    return (ms > MEMBER_HEARTBEAT_MIN_MS ? ms : MEMBER_HEARTBEAT_MIN_MS) * INT64_C(1000);
}

/* Whether trying again may help. A subscription that is not there may be made yet. */
static bool is_over(enum ferry_err err)
{
    return err == FERRY_ERR_MEMBER_FENCED || err == FERRY_ERR_CLOSED ||
           err == FERRY_ERR_UNKNOWN_COMMAND || err == FERRY_ERR_UNKNOWN_TOPIC;
}

static void plan_next(struct member *m, enum ferry_err err, uint32_t wished_ms)
{
    struct ferry_client *c = m->client;
    int64_t now_us = clock_monotonic_us();
    if (err != FERRY_OK) {
        timer_set(&c->timers, &m->timer, now_us + client_backoff_us(c, ++m->attempts));
    } else if (m->again) {
        timer_set(&c->timers, &m->timer, now_us);
    } else {
        timer_set(&c->timers, &m->timer, m->sent_us + heartbeat_us(m, wished_ms));
    }
}

/* Each partition is there, once. */
static bool is_sane(const struct member *m, const struct member_heartbeat_reply *reply)
{
    bool seen[PARTITIONS_MAX] = {false};
    for (uint32_t i = 0; i < reply->count; i++) {
        uint32_t partition = reply->assigned[i].partition;
        if (partition >= m->partitions || seen[partition]) {
            return false;
        }
        seen[partition] = true;
    }
    return true;
}

/* Whoever answers is asked for anew, for others may say otherwise. */
static enum ferry_err take_epoch(struct member *m, const struct member_heartbeat_reply *reply)
{
    int64_t silent_us = clock_monotonic_us() - m->heard_us;
    if (reply->epoch < m->epoch && silent_us < m->session_ms * INT64_C(1000)) {
        m->topic->partitions[0]->leader = NULL;
        metadata_want(m->topic);
        return FERRY_ERR_NOT_LEADER;
    }
    m->epoch = reply->epoch;
    return FERRY_OK;
}

static void on_done(struct ferry_client *c, struct call *call)
{
    struct member *m = call->arg;
    struct member_heartbeat_reply reply = {0};
    enum ferry_err err = call->err;
    if (err == FERRY_OK && (member_heartbeat_reply_decode(call->frame.body, &reply) != FERRY_OK ||
                            !is_sane(m, &reply))) {
        c->bad_replies++;
        err = FERRY_ERR_BAD_FRAME;
    }
    call_fini(call);
    m->out = false;
    if (!m->started) {
        return;
    }
    if (err == FERRY_OK) {
        err = take_epoch(m, &reply);
    }
    if (err == FERRY_OK) {
        m->attempts = 0;
        m->heard_us = m->sent_us;
    }
    if (is_over(err)) {
        m->started = false;
    } else {
        plan_next(m, err, reply.heartbeat_ms);
    }
    m->again = false;
    if (m->answer != NULL) {
        m->answer(m, err, err == FERRY_OK ? &reply : NULL);
    }
}

/* A failure is told half a session after the heartbeat began, or when the session is over. */
static int patience_ms(const struct member *m)
{
    int64_t half_ms = m->session_ms / 2;
    int64_t left_ms = m->session_ms - (m->sent_us - m->heard_us) / 1000;
    left_ms = left_ms < half_ms ? left_ms : half_ms;
    return left_ms > MEMBER_LEAST_MS ? (int)left_ms : MEMBER_LEAST_MS;
}

static void send(struct member *m)
{
    struct ferry_client *c = m->client;
    *m->request = (struct member_heartbeat_request){
        .subscription = bytes_of_string(m->subscription),
        .member = bytes_of_string(m->name),
        .instance = m->instance,
        .zone = bytes_of_string(m->zone),
        .session_ms = m->session_ms,
        .partitions = m->partitions,
    };
    if (m->fill != NULL) {
        m->fill(m, m->request);
    }
    m->out = true;
    m->sent_us = clock_monotonic_us();
    call_init(&m->call, COMMAND_MEMBER_HEARTBEAT, ROUTE_PARTITION, encode, m->request,
              patience_ms(m));
    call_to_partition(&m->call, m->topic, 0);
    m->call.done = on_done;
    m->call.arg = m;
    call_start(c, &m->call);
}

static void on_timer(struct timer *timer)
{
    struct member *m = list_entry(timer, struct member, timer);
    if (m->started && !m->out) {
        send(m);
    }
}

bool member_start(struct member *m)
{
    struct ferry_client *c = m->client;
    m->request = mem_zalloc(1, sizeof(*m->request));
    if (m->request == NULL || !timer_add(&c->timers, &m->timer, on_timer)) {
        mem_free(m->request);
        m->request = NULL;
        return false;
    }
    m->started = true;
    m->heard_us = clock_monotonic_us();
    timer_set(&c->timers, &m->timer, m->heard_us);
    return true;
}

void member_hurry(struct member *m)
{
    if (!m->started) {
        return;
    }
    if (m->out) {
        m->again = true;
    } else {
        timer_set_sooner(&m->client->timers, &m->timer, clock_monotonic_us());
    }
}

void member_stop(struct member *m)
{
    m->started = false;
    if (m->out) {
        call_cancel(m->client, &m->call);
        m->out = false;
    }
    timer_drop(&m->client->timers, &m->timer);
    mem_free(m->request);
    m->request = NULL;
}

/* ---- Leaving. */

static void encode_leave(struct buf *b, const struct call *call, uint64_t group)
{
    struct member_leave_request request = *(const struct member_leave_request *)call->request;
    request.group = group;
    member_leave_request_encode(b, &request);
}

void member_leave_begin(struct member *m, const char *reason, int timeout_ms,
                        struct member_leaving *leaving)
{
    leaving->request =
        (struct member_leave_request){.subscription = bytes_of_string(m->subscription),
                                      .member = bytes_of_string(m->name),
                                      .instance = m->instance,
                                      .reason = bytes_of_string(reason)};
    call_init(&leaving->call, COMMAND_MEMBER_LEAVE, ROUTE_PARTITION, encode_leave,
              &leaving->request, timeout_ms);
    call_to_partition(&leaving->call, m->topic, 0);
    call_begin(m->client, &leaving->call, 1);
}

void member_leave_end(struct member_leaving *leaving)
{
    call_fini(&leaving->call);
}
