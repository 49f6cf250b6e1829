/* workload: a producer or a consumer that goes on through everything and writes down what it saw.
 *
 *   workload produce NAME OPTION=VALUE…
 *   workload consume NAME OPTION=VALUE…
 *
 * Options: history (a file), servers, topics (A,B,… ; a consumer takes one), subscription, seed,
 * rate, keys, bytes, delivery_ms, stop_at_end. See workload.h for the history. */
#include "system/cluster/workload.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

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

int main(int count, char **words)
{
    struct workload w = {.seed = 1,
                         .rate = 500,
                         .keys = 20,
                         .bytes = 300,
                         .delivery_ms = "120s",
                         .stopped = &stop_asked};
    const struct sigaction action = {.sa_handler = on_term};
    bool produces = count > 2 && strcmp(words[1], "produce") == 0;
    bool consumes = count > 2 && strcmp(words[1], "consume") == 0;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sigaction(SIGTERM, &action, NULL);
    if ((!produces && !consumes) || !set_options(&w, count - 3, words + 3)) {
        fprintf(stderr, "usage: workload produce|consume NAME history=FILE servers=ENDPOINTS "
                        "topics=NAMES [OPTION=VALUE...]\n");
        return 2;
    }
    w.name = words[2];
    int status = produces ? producer_run(&w) : consumer_run(&w);
    (void)fclose(w.history);
    return status;
}
