#include "outbox/relay/serve.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/relay_policy.h"

#define END_LOOK_US   (10 * 1000)
#define TELL_EVERY_US (100 * 1000)

/* One thread's. */
struct serve_item {
    struct serve *serve;
    const struct relay_url *url;
    uint32_t lane;
    pthread_t thread;
    struct relay_tally *tally;
    int wake_fd; /* Written by serve_stop, and with `announced`. */
    bool scout;  /* The first lane of its outbox: finds out how many there are. */
    bool spread; /* The others were started. The main thread's. */

    atomic_bool stop, ended;
    atomic_bool announced; /* Another lane of the outbox was woken. */
    atomic_llong beat_us;
    pthread_mutex_t lock; /* Of what follows. */
    struct served_status status;
};

struct serve {
    const struct relay_options *options;
    const struct relay_urls *urls;
    bool once;
    int changed_fd;
    struct serve_item *items; /* SERVE_MAX of them; those below `count` are complete. */
    atomic_size_t count;
    atomic_size_t tally_room;
};

/* ---- Lanes. */

static bool next_lane(const char **at, uint32_t *lane, bool *valid)
{
    const char *text = *at + strspn(*at, " ,\t");
    char *end = NULL;
    if (*text == '\0') {
        return false;
    }
    unsigned long value = strtoul(text, &end, 10);
    *valid = end != text && (*end == '\0' || strchr(" ,\t", *end) != NULL) && *text != '-' &&
             value < SOURCE_LANES_MAX;
    *lane = (uint32_t)value;
    *at = *valid ? end : text + strlen(text);
    return true;
}

bool serve_lane_listed(const char *lanes, uint32_t lane)
{
    uint32_t listed = 0;
    bool valid = false;
    if (strcmp(lanes, "all") == 0) {
        return lane < SOURCE_LANES_MAX;
    }
    for (const char *at = lanes; next_lane(&at, &listed, &valid);) {
        if (valid && listed == lane) {
            return true;
        }
    }
    return false;
}

enum ferry_err serve_lanes_check(const char *lanes, struct err_text *e)
{
    uint32_t lane = 0;
    bool valid = false, any = false;
    for (const char *at = lanes; strcmp(lanes, "all") != 0 && next_lane(&at, &lane, &valid);) {
        any = true;
        if (!valid) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "relay.lanes: \"%.100s\": say all, or numbers from 0 to %u separated by "
                           "commas",
                           lanes, SOURCE_LANES_MAX - 1);
        }
    }
    if (!any && strcmp(lanes, "all") != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "relay.lanes: no lane is named");
    }
    return FERRY_OK;
}

static uint32_t first_lane(const char *lanes)
{
    uint32_t lane = 0;
    while (!serve_lane_listed(lanes, lane)) {
        lane++;
        must(lane < SOURCE_LANES_MAX); /* serve_lanes_check. */
    }
    return lane;
}

/* ---- A thread. */

static void drain(int fd)
{
    uint64_t count = 0;
    ssize_t bytes = read(fd, &count, sizeof(count));
    (void)bytes; /* Nothing there: all the same. */
}

static void tell(int fd)
{
    uint64_t one = 1;
    ssize_t bytes = write(fd, &one, sizeof(one));
    (void)bytes; /* Full: it was told. */
}

static void rest(struct serve_item *item, struct served *served, int64_t due_us)
{
    int64_t wait_us = due_us - clock_monotonic_us();
    if (wait_us <= 0) {
        return;
    }
    struct pollfd fds[2] = {{.fd = served_fd(served), .events = POLLIN},
                            {.fd = item->wake_fd, .events = POLLIN}};
    struct timespec timeout = {wait_us / 1000000, wait_us % 1000000 * 1000};
    if (ppoll(fds, 2, &timeout, NULL) > 0 && fds[1].revents != 0) {
        drain(item->wake_fd);
    }
}

/* What its thread remembers of what it has told. */
struct told {
    enum served_phase phase;
    enum relay_state state;
    uint32_t lanes;
    int64_t again_at_us; /* 0: it has told nothing yet. */
};

static void publish(struct serve_item *item, const struct served_status *now, struct told *told,
                    int64_t now_us)
{
    bool changed = told->again_at_us == 0 || now->phase != told->phase ||
                   now->relay.state != told->state || now->lanes != told->lanes;
    if (!changed && now_us < told->again_at_us) {
        return;
    }
    pthread_mutex_lock(&item->lock);
    item->status = *now;
    pthread_mutex_unlock(&item->lock);
    *told = (struct told){now->phase, now->relay.state, now->lanes, now_us + TELL_EVERY_US};
    if (changed) {
        tell(item->serve->changed_fd);
    }
}

/* Applications wake one relay of an outbox, and do not say which lane they mean. */
static void wake_other_lanes(void *arg)
{
    struct serve_item *item = arg;
    size_t count = atomic_load(&item->serve->count);
    for (size_t i = 0; i < count; i++) {
        struct serve_item *other = &item->serve->items[i];
        if (other != item && other->url == item->url) {
            atomic_store(&other->announced, true);
            tell(other->wake_fd);
        }
    }
}

static void serve_one(struct serve_item *item, struct served *served)
{
    const struct served_status *status = served_status(served);
    struct told told = {0};
    bool stopping = false;
    for (;;) {
        if (!stopping && atomic_load(&item->stop)) {
            stopping = true;
            served_stop(served);
        }
        if (atomic_exchange(&item->announced, false)) {
            served_wake(served);
        }
        int64_t now_us = clock_monotonic_us();
        atomic_store(&item->beat_us, now_us);
        int64_t due_us = served_step(served, now_us);
        publish(item, status, &told, now_us);
        if (status->phase == SERVED_STOPPED) {
            return;
        }
        rest(item, served, due_us);
    }
}

static void *run(void *arg)
{
    struct serve_item *item = arg;
    struct served *served = NULL;
    struct served_conf conf = {.options = item->serve->options,
                               .driver = item->url->driver,
                               .url = item->url->url,
                               .shown = item->url->shown,
                               .lane = item->lane,
                               .once = item->serve->once,
                               .tally = item->tally,
                               .announced = wake_other_lanes,
                               .arg = item};
    enum ferry_err err = served_new(&served, &conf);
    if (err == FERRY_OK) {
        serve_one(item, served);
    } else {
        pthread_mutex_lock(&item->lock);
        item->status.phase = SERVED_STOPPED;
        item->status.err = err;
        pthread_mutex_unlock(&item->lock);
    }
    served_free(&served);
    atomic_store(&item->ended, true);
    tell(item->serve->changed_fd);
    return NULL;
}

/* Topics that the options name have their figures from the start. */
static enum ferry_err tally_topics(struct serve *s, struct serve_item *item)
{
    const char *at = s->options->poison_topics;
    struct bytes topic;
    enum ferry_err err = relay_tally_new(&item->tally, &s->tally_room);
    while (err == FERRY_OK && relay_policy_next_topic(&at, &topic)) {
        char name[RELAY_TALLY_NAME_MAX + 1];
        (void)snprintf(name, sizeof(name), "%.*s", (int)topic.size, (const char *)topic.data);
        (void)relay_tally_topic(item->tally, name);
    }
    return err;
}

static enum ferry_err start_one(struct serve *s, const struct relay_url *url, uint32_t lane,
                                bool scout, struct err_text *e)
{
    size_t at = atomic_load(&s->count);
    if (at == SERVE_MAX) {
        return err_set(e, FERRY_ERR_NO_MEMORY,
                       "at most %u lanes are served by one process: see relay.lanes", SERVE_MAX);
    }
    struct serve_item *item = &s->items[at];
    item->serve = s;
    item->url = url;
    item->lane = lane;
    item->scout = scout;
    atomic_store(&item->beat_us, clock_monotonic_us());
    if (tally_topics(s, item) != FERRY_OK) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "out of memory");
    }
    item->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (item->wake_fd < 0 || pthread_mutex_init(&item->lock, NULL) != 0) {
        relay_tally_free(&item->tally);
        return err_set(e, FERRY_ERR_IO, "no descriptor is left for another outbox");
    }
    if (pthread_create(&item->thread, NULL, run, item) != 0) {
        pthread_mutex_destroy(&item->lock);
        (void)close(item->wake_fd);
        relay_tally_free(&item->tally);
        return err_set(e, FERRY_ERR_IO, "the system gives no thread for another outbox");
    }
    atomic_store(&s->count, at + 1);
    return FERRY_OK;
}

/* ---- All of them. */

static enum ferry_err start_all(struct serve *s, struct err_text *e)
{
    enum ferry_err err = serve_lanes_check(s->options->lanes, e);
    for (size_t i = 0; err == FERRY_OK && i < s->urls->count; i++) {
        err = start_one(s, &s->urls->items[i], first_lane(s->options->lanes), true, e);
    }
    return err;
}

enum ferry_err serve_start(struct serve **serve, const struct relay_options *options,
                           const struct relay_urls *urls, bool once, struct err_text *e)
{
    struct serve *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->options = options;
    s->urls = urls;
    s->once = once;
    atomic_store(&s->tally_room, SERVE_TALLY_TOPICS_MAX);
    s->items = mem_zalloc(SERVE_MAX, sizeof(*s->items));
    s->changed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum ferry_err err = s->items == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
    if (err == FERRY_OK && s->changed_fd < 0) {
        err = FERRY_ERR_IO;
    }
    if (err == FERRY_OK) {
        err = start_all(s, e);
    }
    *serve = s; /* So that what was started can be ended. */
    return err;
}

/* The other lanes of an outbox, once it has said how many it has. */
static void spread(struct serve *s, struct serve_item *item, uint32_t lanes)
{
    struct err_text e = {{0}};
    item->spread = true;
    for (uint32_t lane = item->lane + 1; lane < lanes; lane++) {
        if (serve_lane_listed(s->options->lanes, lane) &&
            start_one(s, item->url, lane, false, &e) != FERRY_OK) {
            log_line(LOG_ERROR, "relay", "%s: lane %u is not served: %s", item->url->shown,
                     (unsigned)lane, source_words(item->url->shown, e.text));
            return;
        }
    }
}

bool serve_all_started(struct serve *s)
{
    for (size_t i = 0; i < atomic_load(&s->count); i++) {
        struct serve_item *item = &s->items[i];
        if (item->scout && !item->spread && !atomic_load(&item->ended)) {
            return false;
        }
    }
    return true;
}

void serve_turn(struct serve *s)
{
    size_t count = atomic_load(&s->count);
    drain(s->changed_fd);
    for (size_t i = 0; i < count; i++) {
        struct serve_item *item = &s->items[i];
        if (item->scout && !item->spread && !atomic_load(&item->stop)) {
            pthread_mutex_lock(&item->lock);
            uint32_t lanes = item->status.lanes;
            pthread_mutex_unlock(&item->lock);
            if (lanes > 0) {
                spread(s, item, lanes);
            }
        }
    }
}

int serve_fd(const struct serve *s)
{
    return s->changed_fd;
}

size_t serve_count(struct serve *s)
{
    return atomic_load(&s->count);
}

void serve_view(struct serve *s, size_t at, struct serve_view *view)
{
    must(at < atomic_load(&s->count));
    struct serve_item *item = &s->items[at];
    view->shown = item->url->shown;
    view->lane = item->lane;
    view->tally = item->tally;
    view->beat_us = atomic_load(&item->beat_us);
    pthread_mutex_lock(&item->lock);
    view->status = item->status;
    pthread_mutex_unlock(&item->lock);
}

void serve_stop(struct serve *s)
{
    for (size_t i = 0; i < atomic_load(&s->count); i++) {
        atomic_store(&s->items[i].stop, true);
        tell(s->items[i].wake_fd);
    }
}

static bool all_ended(struct serve *s)
{
    for (size_t i = 0; i < atomic_load(&s->count); i++) {
        if (!atomic_load(&s->items[i].ended)) {
            return false;
        }
    }
    return true;
}

bool serve_end(struct serve **serve, int64_t until_us)
{
    struct serve *s = *serve;
    if (s == NULL) {
        return true;
    }
    while (!all_ended(s)) {
        if (clock_monotonic_us() >= until_us) {
            return false;
        }
        (void)usleep(END_LOOK_US);
    }
    for (size_t i = 0; i < atomic_load(&s->count); i++) {
        pthread_join(s->items[i].thread, NULL);
        pthread_mutex_destroy(&s->items[i].lock);
        (void)close(s->items[i].wake_fd);
        relay_tally_free(&s->items[i].tally);
    }
    if (s->changed_fd >= 0) {
        (void)close(s->changed_fd);
    }
    mem_free(s->items);
    mem_free(s);
    *serve = NULL;
    return true;
}
