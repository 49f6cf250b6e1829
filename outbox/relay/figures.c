#include "outbox/relay/figures.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/driver.h"

#define US_PER_MS   1000
#define REST_US     (100 * 1000)
#define OLD_ROUNDS  3 /* An answer so many rounds old says nothing any more. */
#define GRACE_US    (30 * 1000 * US_PER_MS)
#define END_LOOK_US (10 * 1000)

struct figures {
    const struct relay_urls *urls;
    int64_t every_us;
    pthread_t thread;
    atomic_bool stop, ended;
    struct outbox_figures answer; /* The thread's. */
    bool *said;                   /* The thread's: of each database, that it does not answer. */
    pthread_mutex_t lock;         /* Of what follows. */
    struct figures_view *views;   /* One of each database. */
};

static void ask(struct figures *f, size_t at)
{
    const struct relay_url *url = &f->urls->items[at];
    struct err_text e = {{0}};
    enum ferry_err err = url->driver->admin->figures(url->url, &f->answer, &e);
    if (err != FERRY_OK && !f->said[at]) {
        log_line(LOG_WARN, "relay", "%s: no figures of its inbox and sagas: %s", url->shown,
                 e.text[0] == '\0' ? ferry_err_text(err) : e.text);
    }
    f->said[at] = err != FERRY_OK;
    pthread_mutex_lock(&f->lock);
    f->views[at].known = err == FERRY_OK;
    f->views[at].asked_at_us = clock_monotonic_us();
    if (err == FERRY_OK) {
        f->views[at].figures = f->answer;
    }
    pthread_mutex_unlock(&f->lock);
}

static void *run(void *arg)
{
    struct figures *f = arg;
    int64_t due_us = 0;
    while (!atomic_load(&f->stop)) {
        int64_t now_us = clock_monotonic_us();
        if (now_us < due_us) {
            (void)usleep(REST_US);
            continue;
        }
        for (size_t i = 0; i < f->urls->count && !atomic_load(&f->stop); i++) {
            ask(f, i);
        }
        due_us = now_us + f->every_us;
    }
    atomic_store(&f->ended, true);
    return NULL;
}

static void release(struct figures *f)
{
    mem_free(f->said);
    mem_free(f->views);
    mem_free(f);
}

enum ferry_err figures_start(struct figures **figures, const struct relay_urls *urls,
                             int64_t every_ms)
{
    struct figures *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    f->urls = urls;
    f->every_us = every_ms * US_PER_MS;
    f->said = mem_zalloc(urls->count + 1, sizeof(*f->said));
    f->views = mem_zalloc(urls->count + 1, sizeof(*f->views));
    if (f->said == NULL || f->views == NULL) {
        release(f);
        return FERRY_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < urls->count; i++) {
        f->views[i].shown = urls->items[i].shown;
    }
    if (pthread_mutex_init(&f->lock, NULL) != 0) {
        release(f);
        return FERRY_ERR_IO;
    }
    if (pthread_create(&f->thread, NULL, run, f) != 0) {
        pthread_mutex_destroy(&f->lock);
        release(f);
        return FERRY_ERR_IO;
    }
    *figures = f;
    return FERRY_OK;
}

const struct figures_view *figures_lock(struct figures *f, int64_t now_us, size_t *count)
{
    *count = 0;
    if (f == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&f->lock);
    *count = f->urls->count;
    for (size_t i = 0; i < *count; i++) {
        int64_t age_us = now_us - f->views[i].asked_at_us;
        f->views[i].known = f->views[i].known && age_us <= OLD_ROUNDS * f->every_us + GRACE_US;
    }
    return f->views;
}

void figures_unlock(struct figures *f)
{
    if (f != NULL) {
        pthread_mutex_unlock(&f->lock);
    }
}

bool figures_end(struct figures **figures, int64_t until_us)
{
    struct figures *f = *figures;
    if (f == NULL) {
        return true;
    }
    atomic_store(&f->stop, true);
    while (!atomic_load(&f->ended)) {
        if (clock_monotonic_us() >= until_us) {
            return false;
        }
        (void)usleep(END_LOOK_US);
    }
    pthread_join(f->thread, NULL);
    pthread_mutex_destroy(&f->lock);
    release(f);
    *figures = NULL;
    return true;
}
