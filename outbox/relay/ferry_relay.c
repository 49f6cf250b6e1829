/* The relay for applications: the lanes of one outbox (served.h), stepped in turn by one thread. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ferry_outbox.h"
#include "outbox/relay/relay_setup.h"
#include "outbox/relay/relay_urls.h"
#include "outbox/relay/serve.h"
#include "outbox/relay/served.h"

#define US_PER_MS     1000
#define US_PER_S      1000000
#define CLOSE_LOOK_MS 100 /* How long a step of close waits for something to do. */

struct ferry_relay {
    struct relay_options options;
    struct relay_urls urls; /* One. */
    struct served *lanes[SOURCE_LANES_MAX];
    size_t count;  /* Of `lanes`; the first finds out how many the outbox has. */
    bool spread;   /* The others were started. */
    bool closing;  /* Every step looks at how the lanes do. */
    uint32_t next; /* The lowest lane that was not looked at yet. */
    int fd;        /* An epoll of the two below and of all lanes'. */
    int timer_fd;  /* When a lane wants to be stepped though nothing happened. */
    int wake_fd;

    pthread_mutex_t lock; /* Of what follows. */
    struct ferry_relay_status status;
};

/* ---- Options. */

static enum ferry_err set_one(struct relay_options *options, const char *assignment,
                              struct err_text *e)
{
    char name[64];
    const char *equals = strchr(assignment, '=');
    size_t bytes = equals == NULL ? 0 : (size_t)(equals - assignment);
    if (bytes == 0 || bytes >= sizeof(name)) {
        return err_set(e, FERRY_ERR_UNKNOWN_OPTION,
                       "\"%.60s\": write relay.KEY=VALUE, as relay.db=sqlite:shop.db",
                       equals == NULL ? "(an option without =)" : assignment);
    }
    memcpy(name, assignment, bytes);
    name[bytes] = '\0';
    return option_set(relay_options_table(), options, name, equals + 1, e);
}

/* The first problem is the detail. */
static enum ferry_err first_problem(const struct config_problems *problems, struct err_text *e)
{
    const char *text = (const char *)problems->lines.data;
    if (problems->count == 0) {
        return FERRY_OK;
    }
    if (problems->lines.size == 0) {
        return FERRY_ERR_NO_MEMORY;
    }
    const char *end = memchr(text, '\n', problems->lines.size);
    size_t bytes = end == NULL ? problems->lines.size : (size_t)(end - text);
    return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "%.*s", (int)bytes, text);
}

static enum ferry_err check_all(struct ferry_relay *r, struct err_text *e)
{
    struct config_problems problems;
    if (r->options.http[0] != '\0') {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "relay.http is for the program ferry-outbox: here ask ferry_relay_status()");
    }
    config_problems_init(&problems);
    relay_urls_add_list(&r->urls, "relay.db", r->options.db, &problems);
    relay_setup_check(&r->options, &problems);
    if (problems.count == 0 && r->urls.count != 1) {
        config_problem(&problems, "relay.db: name one database; a second one takes a second relay");
    }
    enum ferry_err err = first_problem(&problems, e);
    config_problems_fini(&problems);
    return err;
}

static enum ferry_err read_options(struct ferry_relay *r, const char *const *options, size_t count,
                                   struct err_text *e)
{
    option_defaults(relay_options_table(), &r->options);
    enum ferry_err err = relay_urls_init(&r->urls);
    for (size_t i = 0; err == FERRY_OK && i < count; i++) {
        err = set_one(&r->options, options[i], e);
    }
    return err == FERRY_OK ? check_all(r, e) : err;
}

/* ---- Lanes. */

static enum ferry_err watch(const struct ferry_relay *r, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(r->fd, EPOLL_CTL_ADD, fd, &event) == 0 ? FERRY_OK : FERRY_ERR_IO;
}

static void wake_lanes(void *arg)
{
    struct ferry_relay *r = arg;
    for (size_t i = 0; i < r->count; i++) {
        served_wake(r->lanes[i]);
    }
}

static enum ferry_err start_lane(struct ferry_relay *r, uint32_t lane)
{
    const struct relay_url *url = &r->urls.items[0];
    struct served_conf conf = {.options = &r->options,
                               .driver = url->driver,
                               .url = url->url,
                               .shown = url->shown,
                               .lane = lane,
                               .announced = wake_lanes,
                               .arg = r};
    must(r->count < SOURCE_LANES_MAX);
    enum ferry_err err = served_new(&r->lanes[r->count], &conf);
    if (err == FERRY_OK) {
        err = watch(r, served_fd(r->lanes[r->count]));
    }
    if (err != FERRY_OK) {
        served_free(&r->lanes[r->count]);
        return err;
    }
    r->count++;
    r->next = lane + 1;
    return FERRY_OK;
}

static enum ferry_err start_first(struct ferry_relay *r)
{
    uint32_t lane = 0;
    while (!serve_lane_listed(r->options.lanes, lane)) {
        lane++;
        must(lane < SOURCE_LANES_MAX); /* relay_setup_check. */
    }
    return start_lane(r, lane);
}

/* The other lanes, once the first has said how many there are. */
static enum ferry_err spread(struct ferry_relay *r)
{
    enum ferry_err err = FERRY_OK;
    uint32_t lanes = served_status(r->lanes[0])->lanes;
    while (err == FERRY_OK && r->next < lanes) {
        if (serve_lane_listed(r->options.lanes, r->next)) {
            err = start_lane(r, r->next);
        } else {
            r->next++;
        }
    }
    r->spread = err == FERRY_OK && lanes > 0;
    return err;
}

/* ---- Status. */

static enum ferry_relay_state state_of(const struct served_status *s)
{
    if (s->phase != SERVED_RELAYING) {
        return s->phase == SERVED_STOPPED  ? FERRY_RELAY_STOPPED
               : s->phase == SERVED_HALTED ? FERRY_RELAY_HALTED
                                           : FERRY_RELAY_CONNECTING;
    }
    switch (s->relay.state) {
    case RELAY_ELECTING:
        return FERRY_RELAY_CONNECTING;
    case RELAY_STANDBY:
        return FERRY_RELAY_STANDBY;
    case RELAY_ACTIVE:
        return FERRY_RELAY_ACTIVE;
    case RELAY_PAUSED:
        return FERRY_RELAY_PAUSED;
    case RELAY_BLOCKED:
        return FERRY_RELAY_BLOCKED;
    case RELAY_OUTAGE:
        return FERRY_RELAY_OUTAGE;
    case RELAY_HALTED:
        return FERRY_RELAY_HALTED;
    default:
        return FERRY_RELAY_STOPPED;
    }
}

/* Who holds the lease, and so knows what is pending. */
static bool in_office(enum ferry_relay_state state)
{
    return state == FERRY_RELAY_ACTIVE || state == FERRY_RELAY_PAUSED ||
           state == FERRY_RELAY_BLOCKED;
}

static void add_pending(struct ferry_relay_status *sum, const struct relay_status *s, bool office)
{
    int64_t oldest_ms = s->oldest_known                            ? s->oldest_ms
                        : s->backlog_known && s->backlog_rows == 0 ? 0
                                                                   : -1;
    if (!office || !s->backlog_known) {
        sum->pending_known = false;
    } else {
        sum->pending_rows += s->backlog_rows;
    }
    if (!office || oldest_ms < 0) {
        sum->oldest_ms = -1;
    } else if (sum->oldest_ms >= 0 && oldest_ms > sum->oldest_ms) {
        sum->oldest_ms = oldest_ms;
    }
}

static void add_lane(struct ferry_relay_status *sum, const struct served_status *s)
{
    enum ferry_relay_state state = state_of(s);
    if (state >= sum->state) {
        sum->state = state;
        sum->err = s->phase == SERVED_CONNECTING ? s->err : FERRY_OK;
        (void)snprintf(sum->error, sizeof(sum->error), "%s", s->error.text);
    }
    sum->lanes_active += state == FERRY_RELAY_ACTIVE;
    sum->caught_up = sum->caught_up && state == FERRY_RELAY_ACTIVE && s->relay.caught_up &&
                     s->relay.blocked_topics == 0;
    sum->blocked_topics += s->phase == SERVED_RELAYING ? s->relay.blocked_topics : 0;
    sum->published_rows += s->relay.stats.published_rows;
    sum->dead_rows += s->relay.stats.dead_rows;
    sum->parked_rows += s->relay.stats.parked_rows;
    sum->elections += s->relay.stats.elections;
    sum->connects += s->connects;
    add_pending(sum, &s->relay, in_office(state));
}

static void look_at_lanes(const struct ferry_relay *r, struct ferry_relay_status *sum)
{
    *sum = (struct ferry_relay_status){
        .lanes = r->spread ? (uint32_t)r->count : 0,
        .caught_up = r->spread,
        .pending_known = r->spread,
        .oldest_ms = r->spread ? 0 : -1,
    };
    for (size_t i = 0; i < r->count; i++) {
        add_lane(sum, served_status(r->lanes[i]));
    }
    sum->pending_rows = sum->pending_known ? sum->pending_rows : -1;
}

static void publish(struct ferry_relay *r)
{
    struct ferry_relay_status now;
    look_at_lanes(r, &now);
    pthread_mutex_lock(&r->lock);
    r->status = now;
    pthread_mutex_unlock(&r->lock);
}

void ferry_relay_status(struct ferry_relay *relay, struct ferry_relay_status *status)
{
    pthread_mutex_lock(&relay->lock);
    *status = relay->status;
    pthread_mutex_unlock(&relay->lock);
}

const char *ferry_relay_state_name(enum ferry_relay_state state)
{
    static const char *const names[] = {"stopped",    "active", "standby", "paused",
                                        "connecting", "outage", "blocked", "halted"};
    return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

/* ---- Steps. */

/* At once when it is past: a timer of 0 would never ring. */
static void ring_at(const struct ferry_relay *r, int64_t due_us)
{
    int64_t at_us = due_us > 0 ? due_us : 1;
    struct itimerspec when = {
        .it_value = {.tv_sec = at_us / US_PER_S, .tv_nsec = at_us % US_PER_S * 1000}};
    must(timerfd_settime(r->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

static bool drain(int fd)
{
    uint64_t count = 0;
    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count);
}

static enum ferry_err turn(struct ferry_relay *r)
{
    int64_t due_us = INT64_MAX;
    (void)drain(r->timer_fd);
    if (drain(r->wake_fd)) {
        wake_lanes(r);
    }
    for (size_t i = 0; r->closing && i < r->count; i++) {
        served_look(r->lanes[i]);
    }
    for (size_t i = 0; i < r->count; i++) {
        int64_t lane_us = served_step(r->lanes[i], clock_monotonic_us());
        due_us = lane_us < due_us ? lane_us : due_us;
    }
    bool was_spread = r->spread;
    enum ferry_err err = r->spread ? FERRY_OK : spread(r);
    ring_at(r, r->spread == was_spread ? due_us : 0);
    publish(r);
    return err;
}

enum ferry_err ferry_relay_step(struct ferry_relay *relay, int timeout_ms)
{
    struct pollfd fd = {.fd = relay->fd, .events = POLLIN};
    if (timeout_ms < 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (poll(&fd, 1, timeout_ms) < 0 && errno != EINTR) {
        return FERRY_ERR_IO;
    }
    return turn(relay);
}

int ferry_relay_fd(const struct ferry_relay *relay)
{
    return relay->fd;
}

void ferry_relay_wake(struct ferry_relay *relay)
{
    uint64_t one = 1;
    int kept = errno; /* Signal handlers call this. */
    ssize_t bytes = write(relay->wake_fd, &one, sizeof(one));
    (void)bytes; /* Full: it was told. */
    errno = kept;
}

/* ---- Open and close. */

static void free_all(struct ferry_relay **relay)
{
    struct ferry_relay *r = *relay;
    int fds[] = {r->fd, r->timer_fd, r->wake_fd};
    for (size_t i = 0; i < r->count; i++) {
        served_free(&r->lanes[i]);
    }
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    relay_urls_fini(&r->urls);
    explicit_bzero(r->options.db, sizeof(r->options.db)); /* Passwords. */
    pthread_mutex_destroy(&r->lock);
    mem_free(r);
    *relay = NULL;
}

static enum ferry_err open_fds(struct ferry_relay *r)
{
    r->fd = epoll_create1(EPOLL_CLOEXEC);
    r->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->fd < 0 || r->timer_fd < 0 || r->wake_fd < 0) {
        return FERRY_ERR_IO;
    }
    enum ferry_err err = watch(r, r->timer_fd);
    return err == FERRY_OK ? watch(r, r->wake_fd) : err;
}

static enum ferry_err open_all(struct ferry_relay *r, const char *const *options, size_t count,
                               struct err_text *e)
{
    enum ferry_err err = read_options(r, options, count, e);
    if (err == FERRY_OK) {
        err = open_fds(r);
    }
    if (err == FERRY_OK) {
        err = start_first(r);
    }
    if (err == FERRY_OK) {
        ring_at(r, 0);
        publish(r);
    }
    return err;
}

enum ferry_err ferry_relay_open(struct ferry_relay **relay, const char *const *options,
                                size_t count, char *detail, size_t detail_bytes)
{
    struct err_text e = {{0}};
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    struct ferry_relay *r = mem_zalloc(1, sizeof(*r));
    if (r != NULL) {
        r->fd = r->timer_fd = r->wake_fd = -1;
        must(pthread_mutex_init(&r->lock, NULL) == 0);
        err = open_all(r, options, count, &e);
    }
    if (detail != NULL && detail_bytes > 0) {
        const char *text = e.text[0] == '\0' && err != FERRY_OK ? ferry_err_text(err) : e.text;
        (void)snprintf(detail, detail_bytes, "%s", text);
    }
    if (err != FERRY_OK && r != NULL) {
        free_all(&r);
    }
    *relay = r;
    return err;
}

/* Whether something may come of waiting: what is committed is not out yet, and this relay is, or
 * may become, the one to publish it. */
static bool may_publish(const struct ferry_relay *r)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct served_status *s = served_status(r->lanes[i]);
        enum ferry_relay_state state = state_of(s);
        bool waits = state == FERRY_RELAY_CONNECTING || state == FERRY_RELAY_OUTAGE;
        if (waits || (state == FERRY_RELAY_ACTIVE && !s->relay.caught_up)) {
            return true;
        }
    }
    return false;
}

static bool all_stopped(const struct ferry_relay *r)
{
    for (size_t i = 0; i < r->count; i++) {
        if (served_status(r->lanes[i])->phase != SERVED_STOPPED) {
            return false;
        }
    }
    return true;
}

/* True: it came to an end in time. */
static bool step_while(struct ferry_relay *r, bool (*goes_on)(const struct ferry_relay *),
                       int64_t until_us)
{
    while (goes_on(r)) {
        int64_t left_ms = (until_us - clock_monotonic_us()) / US_PER_MS;
        if (left_ms <= 0) {
            return false;
        }
        (void)ferry_relay_step(r, left_ms < CLOSE_LOOK_MS ? (int)left_ms : CLOSE_LOOK_MS);
    }
    return true;
}

static bool not_stopped(const struct ferry_relay *r)
{
    return !all_stopped(r);
}

enum ferry_err ferry_relay_close(struct ferry_relay **relay, int patience_ms)
{
    struct ferry_relay *r = *relay;
    if (r == NULL) {
        return FERRY_OK;
    }
    int64_t until_us =
        clock_monotonic_us() + (int64_t)(patience_ms > 0 ? patience_ms : 0) * US_PER_MS;
    r->closing = true;
    ferry_relay_wake(r); /* What was committed just now is looked for, wherever it was told. */
    (void)ferry_relay_step(r, 0);
    bool published = step_while(r, may_publish, until_us);
    bool no_topic = r->status.state == FERRY_RELAY_ACTIVE && r->status.blocked_topics > 0;
    for (size_t i = 0; i < r->count; i++) {
        served_stop(r->lanes[i]);
    }
    (void)ferry_relay_step(r, 0); /* Also without patience: it may be all that is needed. */
    bool stopped = step_while(r, not_stopped, until_us);
    free_all(relay);
    if (!published || !stopped) {
        return FERRY_ERR_TIMEOUT;
    }
    return no_topic ? FERRY_ERR_UNKNOWN_TOPIC : FERRY_OK;
}
