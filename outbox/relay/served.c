#include "outbox/relay/served.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/prng.h"
#include "outbox/relay/poison_command.h"

#define US_PER_MS        1000
#define CLOSE_TIMEOUT_MS 1000
#define DELIVERY_TIMEOUT "5s" /* Then the relay asks for the mark and decides anew. */
#define STATUS_EVERY_US  (100 * 1000)
#define STEP_MAX_US      (500 * 1000)       /* The longest rest, so that a beat is fresh. */
#define HALTED_LOOK_US   (2 * 1000 * 1000)  /* How often a halted one is looked at. */
#define HALTED_AGAIN_US  (60 * 1000 * 1000) /* How often it is tried though it is the same. */
#define SAY_AGAIN_US     (60 * 1000 * 1000) /* The same trouble is told so often. */
#define BACKOFF_DOUBLES  20u
#define HOLDER_MAX       128

struct served {
    struct served_conf conf;
    struct served_status status; /* As last looked at. */
    struct relay_stats before;   /* Of relays that are no more. */
    int64_t status_at_us;        /* When to look next. */
    int epoll_fd;
    bool stopping;
    struct prng prng;

    /* RELAYING. */
    struct ferry_client *client;
    struct source source;
    struct relay_broker broker;
    struct relay *relay;
    struct ferry_id source_id; /* Of the last one. */

    /* CONNECTING and HALTED. */
    uint32_t failures; /* In a row. */
    int64_t connect_at_us;
    int64_t halted_until_us;
    int64_t said_at_us;
};

/* ---- Together and apart. */

/* Counts add up over the relays of a source; all of them are 64 bits wide. */
static void stats_add(struct relay_stats *sum, const struct relay_stats *more)
{
    uint64_t a[sizeof(*sum) / sizeof(uint64_t)], b[sizeof(*sum) / sizeof(uint64_t)];
    _Static_assert(sizeof(*sum) % sizeof(uint64_t) == 0, "counts only");
    memcpy(a, sum, sizeof(*sum));
    memcpy(b, more, sizeof(*more));
    for (size_t i = 0; i < sizeof(a) / sizeof(a[0]); i++) {
        a[i] += b[i];
    }
    memcpy(sum, a, sizeof(*sum));
}

/* It is shown beside the database's name. */
static void set_error(struct served *s, const char *text)
{
    (void)snprintf(s->status.error.text, sizeof(s->status.error.text), "%s",
                   source_words(s->conf.shown, text));
}

static void look_at_relay(struct served *s)
{
    struct relay_stats now;
    relay_status(s->relay, &s->status.relay);
    now = s->before;
    stats_add(&now, &s->status.relay.stats);
    s->status.relay.stats = now;
    s->status.relay_known = true;
    set_error(s, s->status.relay.error.text);
}

/* The client before the relay: it runs the callbacks that are left. */
static void disconnect(struct served *s)
{
    if (s->relay != NULL) {
        look_at_relay(s);
        s->before = s->status.relay.stats;
    }
    relay_broker_close(&s->broker);
    ferry_close(&s->client, CLOSE_TIMEOUT_MS);
    relay_free(&s->relay);
    source_close(&s->source);
}

static enum ferry_err open_client(struct served *s, struct err_text *e)
{
    struct ferry_conf *conf = NULL;
    const char *const pairs[][2] = {{"servers", s->conf.options->servers},
                                    {"delivery.timeout_ms", DELIVERY_TIMEOUT},
                                    {"client.name", "ferry-outbox"}};
    enum ferry_err err = ferry_conf_new(&conf);
    for (size_t i = 0; err == FERRY_OK && i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        err = ferry_conf_set(conf, pairs[i][0], pairs[i][1], e->text, sizeof(e->text));
    }
    if (err == FERRY_OK) {
        err = ferry_open(&s->client, &conf, e->text, sizeof(e->text));
    }
    ferry_conf_free(&conf);
    return err;
}

/* Who holds the source, to the brokers and to people. A relay is named by its host and its place at
 * the database, not by its process: the broker lets the same holder take over at once, so one that
 * was killed and started again does not wait for its own lease to end. Names have letters, digits,
 * `.`, `_` and `-` only. */
static void holder_name(const struct served *s, char name[HOLDER_MAX])
{
    char place[SOURCE_PLACE_MAX + 1] = "";
    char host[64] = "host";
    (void)gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c != '\0'; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '.' || *c == '-';
        *c = plain ? *c : '_';
    }
    source_place(&s->source, place);
    if (place[0] == '\0') { /* No place of its own: each start is another. */
        (void)snprintf(place, sizeof(place), "%ld.%" PRId64, (long)getpid(), clock_monotonic_us());
    }
    (void)snprintf(name, HOLDER_MAX, "ferry-outbox.%s.%016llx", host,
                   (unsigned long long)checksum_of_two(place, strlen(place), &s->conf.lane,
                                                       sizeof(s->conf.lane)));
}

static struct source_options source_options_of(const struct served *s)
{
    const struct relay_options *o = s->conf.options;
    return (struct source_options){
        .lane = s->conf.lane,
        .barrier = o->barrier,
        .stand_by = !s->conf.once, /* Once would wait for ever. */
        .tidy = o->tidy,
        .strict = o->strict,
        .notify = o->notify,
        .delete_rows = o->delete_rows,
        .delete_backlog_rows = o->delete_backlog_rows,
        .copy_rows = o->copy_rows,
        .connect_timeout_ms = o->connect_timeout_ms,
        .statement_timeout_ms = o->statement_timeout_ms,
    };
}

static enum ferry_err open_source(struct served *s, struct err_text *e)
{
    struct source_options options = source_options_of(s);
    enum ferry_err err = FERRY_OK;
    if (s->status.lanes == 0) {
        uint32_t lanes = 0;
        err = s->conf.driver->lanes(s->conf.url, &lanes, e);
        s->status.lanes = err == FERRY_OK ? lanes : 0;
    }
    if (err == FERRY_OK && s->conf.lane >= s->status.lanes) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "it has no lane %" PRIu32 " (relay.lanes): its lanes are 0 to %" PRIu32,
                       s->conf.lane, s->status.lanes - 1);
    }
    return err == FERRY_OK ? s->conf.driver->source_open(&s->source, s->conf.url, &options, e)
                           : err;
}

/* ---- Poison rows. */

static enum relay_poison ask_command(const struct relay_refusal *refusal, void *arg)
{
    struct served *s = arg;
    struct err_text e = {{0}};
    struct poison_question question = {
        .database = s->conf.shown, .lane = s->conf.lane, .refusal = refusal};
    enum relay_poison answer = poison_command_ask(s->conf.options, &question, &e);
    if (e.text[0] != '\0') {
        log_line(LOG_WARN, "relay", "%s: row %" PRId64 " waits: %s", s->conf.shown, refusal->number,
                 e.text);
    }
    return answer;
}

/* ---- Connecting. */

static void watch(struct served *s, int fd, bool listen)
{
    struct epoll_event event = {.events = listen ? EPOLLIN : 0, .data.fd = fd};
    /* A driver that connected again may have a new descriptor under an old number. */
    if (fd >= 0 && epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0) {
        (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static enum ferry_err open_relay(struct served *s, struct err_text *e)
{
    char holder[HOLDER_MAX];
    struct relay_hooks hooks = {ask_command, s, s->conf.tally};
    enum ferry_err err = open_client(s, e);
    holder_name(s, holder);
    if (err == FERRY_OK) {
        err = relay_broker_open(&s->broker, s->client, &s->source_id, s->conf.lane, holder);
    }
    if (err == FERRY_OK) {
        err = relay_new(&s->relay, s->conf.options, &s->source, &s->broker, &hooks,
                        prng_next(&s->prng));
    }
    if (err == FERRY_OK) {
        watch(s, ferry_fd(s->client), true);
    }
    return err;
}

static void say_trouble(struct served *s, enum ferry_err err, const struct err_text *e,
                        int64_t now_us)
{
    const char *text =
        source_words(s->conf.shown, e->text[0] == '\0' ? ferry_err_text(err) : e->text);
    bool same = strcmp(s->status.error.text, text) == 0 && s->said_at_us != 0;
    if (!same || now_us - s->said_at_us >= SAY_AGAIN_US) {
        log_line(LOG_WARN, "relay", "%s: cannot be served now, tried again: %s", s->conf.shown,
                 text);
        s->said_at_us = now_us;
    }
    s->status.err = err;
    set_error(s, text);
}

static int64_t backoff_us(struct served *s)
{
    int64_t bound_ms = s->conf.options->retry_min_ms;
    uint32_t doubles = s->failures < BACKOFF_DOUBLES ? s->failures : BACKOFF_DOUBLES;
    for (uint32_t i = 1; i < doubles && bound_ms < s->conf.options->retry_max_ms; i++) {
        bound_ms *= 2;
    }
    bound_ms = bound_ms < s->conf.options->retry_max_ms ? bound_ms : s->conf.options->retry_max_ms;
    return 1 + (int64_t)prng_below(&s->prng, (uint64_t)(bound_ms * US_PER_MS));
}

static void connect_step(struct served *s, int64_t now_us)
{
    struct err_text e = {{0}};
    enum ferry_err err = open_source(s, &e);
    if (err == FERRY_OK) {
        s->source_id = s->source.ops->id(s->source.driver);
        err = open_relay(s, &e);
    }
    if (err == FERRY_OK) {
        if (s->said_at_us != 0) {
            log_line(LOG_INFO, "relay", "%s: reached", s->conf.shown);
        }
        s->status.phase = SERVED_RELAYING;
        s->status.connects++;
        s->status.err = FERRY_OK;
        s->failures = 0;
        s->said_at_us = 0;
        look_at_relay(s);
        return;
    }
    disconnect(s);
    s->failures++;
    if (!s->conf.once) {
        say_trouble(s, err, &e, now_us);
    }
    s->status.err = err;
    set_error(s, e.text[0] == '\0' ? ferry_err_text(err) : e.text);
    s->status.phase = s->conf.once ? SERVED_STOPPED : SERVED_CONNECTING;
    s->connect_at_us = now_us + backoff_us(s);
}

/* ---- Halted. */

static void halt(struct served *s, int64_t now_us)
{
    disconnect(s);
    s->status.phase = s->conf.once || s->stopping ? SERVED_STOPPED : SERVED_HALTED;
    s->connect_at_us = now_us; /* It may be another one already: that is one reason to halt. */
    s->halted_until_us = now_us + HALTED_AGAIN_US;
}

/* Another id: somebody has decided what is to become of it. The same one is tried now and then:
 * what was wrong may have been mended in place, or it halts again. */
static void halted_step(struct served *s, int64_t now_us)
{
    struct err_text e = {{0}};
    s->connect_at_us = now_us + HALTED_LOOK_US;
    if (open_source(s, &e) != FERRY_OK) {
        source_close(&s->source);
        return;
    }
    struct ferry_id id = s->source.ops->id(s->source.driver);
    source_close(&s->source);
    bool same = id_equal(&id, &s->source_id);
    if (!same || now_us >= s->halted_until_us) {
        log_line(LOG_INFO, "relay", "%s: %s", s->conf.shown,
                 same ? "halted: tried again" : "it has a new identity: served again");
        s->status.phase = SERVED_CONNECTING;
        s->status.lanes = 0;
        s->connect_at_us = now_us;
    }
}

/* ---- The steps. */

enum ferry_err served_new(struct served **served, const struct served_conf *conf)
{
    struct served *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->conf = *conf;
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll_fd < 0) {
        mem_free(s);
        return FERRY_ERR_IO;
    }
    prng_init(&s->prng, (uint64_t)clock_monotonic_us() ^ (uint64_t)getpid() << 32 ^
                            checksum_of(conf->url, strlen(conf->url)) ^ conf->lane);
    *served = s;
    return FERRY_OK;
}

void served_free(struct served **served)
{
    struct served *s = *served;
    if (s != NULL) {
        disconnect(s);
        (void)close(s->epoll_fd);
        mem_free(s);
    }
    *served = NULL;
}

static int64_t relaying_step(struct served *s, int64_t now_us)
{
    struct epoll_event events[4];
    /* While it is paced, a wake would change nothing. */
    watch(s, source_wake_fd(&s->source), !relay_is_paced(s->relay, now_us));
    int count = epoll_wait(s->epoll_fd, events, 4, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == source_wake_fd(&s->source)) {
            relay_wake(s->relay);
            if (s->conf.announced != NULL) {
                s->conf.announced(s->conf.arg);
            }
        }
    }
    (void)ferry_poll(s->client, 0);
    int64_t due_us = relay_step(s->relay, now_us);
    if (now_us >= s->status_at_us || s->stopping) {
        s->status_at_us = now_us + STATUS_EVERY_US;
        look_at_relay(s);
    }
    if (s->status.relay.state == RELAY_HALTED) {
        halt(s, now_us);
        return now_us;
    }
    if (s->status.relay.state == RELAY_STOPPED) {
        s->status.phase = SERVED_STOPPED;
    }
    return due_us < s->status_at_us ? due_us : s->status_at_us;
}

int64_t served_step(struct served *s, int64_t now_us)
{
    int64_t due_us = now_us;
    if (s->stopping && s->status.phase != SERVED_RELAYING) {
        s->status.phase = SERVED_STOPPED;
    }
    if (s->status.phase == SERVED_RELAYING) {
        due_us = relaying_step(s, now_us);
    } else if (s->status.phase != SERVED_STOPPED) {
        if (now_us >= s->connect_at_us) {
            if (s->status.phase == SERVED_HALTED) {
                halted_step(s, now_us);
            } else {
                connect_step(s, now_us);
            }
        }
        due_us = s->status.phase == SERVED_RELAYING ? now_us : s->connect_at_us;
    }
    return due_us < now_us + STEP_MAX_US ? due_us : now_us + STEP_MAX_US;
}

int served_fd(const struct served *s)
{
    return s->epoll_fd;
}

void served_wake(struct served *s)
{
    if (s->relay != NULL) {
        relay_wake(s->relay);
    }
}

void served_look(struct served *s)
{
    s->status_at_us = 0;
}

void served_stop(struct served *s)
{
    s->stopping = true;
    if (s->relay != NULL) {
        relay_stop(s->relay);
    }
}

const struct served_status *served_status(const struct served *s)
{
    return &s->status;
}
