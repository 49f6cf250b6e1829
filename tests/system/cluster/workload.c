/* workload: a client that goes on through everything and writes down what it saw.
 *
 *   workload produce|consume|work|join NAME OPTION=VALUE…
 *
 * Options: history (a file), servers, topics (A,B,… ; all but a producer take one), subscription,
 * seed, rate, keys, bytes, delivery_ms, stop_at_end, lease_ms, no_extend, faithful, session_ms. See
 * workload.h for the history. */
#include "system/cluster/workload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "system/cluster/message.h"

static volatile sig_atomic_t stop_asked;

static void on_term(int signal_number)
{
    (void)signal_number;
    stop_asked = 1;
}

static void split_topics(struct workload *w, char *list)
{
    char *rest = list;
    while (rest != NULL && w->topic_count < TOPICS_MAX) {
        w->topics[w->topic_count++] = strsep(&rest, ",");
    }
}

/* Sets one option; false when there is none of that name. */
static bool set_option(struct workload *w, const char *name, char *value)
{
    if (strcmp(name, "servers") == 0) {
        w->servers = value;
    } else if (strcmp(name, "topics") == 0) {
        split_topics(w, value);
    } else if (strcmp(name, "subscription") == 0) {
        w->subscription = value;
    } else if (strcmp(name, "seed") == 0) {
        w->seed = strtoull(value, NULL, 10);
    } else if (strcmp(name, "rate") == 0) {
        w->rate = strtoull(value, NULL, 10);
    } else if (strcmp(name, "keys") == 0) {
        w->keys = strtoull(value, NULL, 10);
    } else if (strcmp(name, "bytes") == 0) {
        w->bytes = strtoull(value, NULL, 10);
    } else if (strcmp(name, "delivery_ms") == 0) {
        w->delivery_ms = value;
    } else if (strcmp(name, "stop_at_end") == 0) {
        w->stop_at_end = strcmp(value, "1") == 0;
    } else if (strcmp(name, "lease_ms") == 0) {
        w->lease_ms = strtoull(value, NULL, 10);
    } else if (strcmp(name, "session_ms") == 0) {
        w->session_ms = strtoull(value, NULL, 10);
    } else if (strcmp(name, "no_extend") == 0) {
        w->no_extend = strcmp(value, "1") == 0;
    } else if (strcmp(name, "faithful") == 0) {
        w->faithful = strcmp(value, "1") == 0;
    } else if (strcmp(name, "history") == 0) {
        w->history = fopen(value, "ae");
        return w->history != NULL && setvbuf(w->history, NULL, _IOLBF, BUFSIZ) == 0;
    } else {
        return false;
    }
    return true;
}

static bool set_options(struct workload *w, int count, char **words)
{
    for (int i = 0; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (value == NULL) {
            return false;
        }
        *value++ = '\0';
        if (!set_option(w, words[i], value)) {
            fprintf(stderr, "workload: %s=%s\n", words[i], value);
            return false;
        }
    }
    return w->servers != NULL && w->topic_count > 0 && w->history != NULL && w->rate > 0 &&
           w->keys > 0;
}

void workload_note_record(const struct workload *w, const char *before,
                          const struct ferry_record *r)
{
    struct message m;
    char line[96];
    message_parse(&m, w->topics[0], r->key, r->key_bytes, r->payload, r->payload_bytes);
    (void)snprintf(line, sizeof(line), "r %" PRId64 " %" PRId32 " %" PRId64, clock_monotonic_us(),
                   r->partition, r->offset);
    fprintf(w->history, "%s %s %" PRIu64 " %.*s %" PRIu64 " %016" PRIx64 " %d\n",
            before != NULL ? before : line, m.producer[0] == '\0' ? "?" : m.producer, m.sequence,
            (int)r->key_bytes, r->key_bytes == 0 ? "?" : (const char *)r->key, m.key_sequence,
            m.sum, m.good);
}

void workload_note_error(const struct workload *w, enum ferry_err err)
{
    fprintf(w->history, "e %" PRId64 " %s\n", clock_monotonic_us(), ferry_err_name(err));
}

struct ferry_client *workload_open(struct workload *w, ferry_report_cb *report)
{
    const char *const options[][2] = {{"servers", w->servers},
                                      {"client.name", w->name},
                                      {"delivery.timeout_ms", w->delivery_ms},
                                      {"retry.backoff_max_ms", "200ms"}};
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    for (size_t i = 0; err == FERRY_OK && i < sizeof(options) / sizeof(options[0]); i++) {
        err = ferry_conf_set(conf, options[i][0], options[i][1], detail, sizeof(detail));
    }
    if (err == FERRY_OK && report != NULL) {
        ferry_conf_on_report(conf, report, w);
    }
    if (err == FERRY_OK) {
        err = ferry_open(&client, &conf, detail, sizeof(detail));
    }
    if (err != FERRY_OK) {
        fprintf(stderr, "workload: %s: %s\n", ferry_err_name(err), detail);
        ferry_conf_free(&conf);
    }
    return client;
}

static const struct role {
    const char *name;
    int (*run)(struct workload *w);
} roles[] = {{"produce", producer_run},
             {"consume", consumer_run},
             {"work", worker_run},
             {"join", member_run}};

static const struct role *find_role(const char *name)
{
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(roles[i].name, name) == 0) {
            return &roles[i];
        }
    }
    return NULL;
}

int main(int count, char **words)
{
    struct workload w = {.seed = 1,
                         .rate = 500,
                         .keys = 20,
                         .bytes = 300,
                         .delivery_ms = "120s",
                         .session_ms = 3000,
                         .stopped = &stop_asked};
    const struct sigaction action = {.sa_handler = on_term};
    const struct role *role = count > 2 ? find_role(words[1]) : NULL;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sigaction(SIGTERM, &action, NULL);
    if (role == NULL || !set_options(&w, count - 3, words + 3)) {
        fprintf(stderr, "usage: workload produce|consume|work|join NAME history=FILE "
                        "servers=ENDPOINTS topics=NAMES [OPTION=VALUE...]\n");
        return 2;
    }
    w.name = words[2];
    int status = role->run(&w);
    (void)fclose(w.history);
    return status;
}
