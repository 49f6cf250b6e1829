/* ferryd: reads its options, runs a broker, says when it is ready, stops when it is told to.
 *
 * Exit codes: 0 stopped as asked, 1 failed, 2 usage or configuration. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "server/broker.h"

#define EXIT_USAGE      2
#define ASSIGNMENTS_MAX 64
#define WATCH_MS        100
#define READY_MS        1

extern char **environ;

/* The first ones are short forms of --set. */
enum {
    OPT_DATA,
    OPT_LISTEN,
    OPT_NODE,
    OPT_PEER_LISTEN,
    OPT_BOOTSTRAP,
    OPT_JOIN,
    OPT_ZONE,
    OPT_SHORT_END,
    OPT_CONFIG,
    OPT_SET,
    OPT_CHECK,
    OPT_PRINT,
    OPT_VERSION,
    OPT_HELP
};

static const char *const short_names[OPT_SHORT_END] = {
    "node.data",      "listen.endpoint", "node.id",  "node.peer_listen",
    "node.bootstrap", "node.join",       "node.zone"};

struct arguments {
    const char *config_file;
    const char *assignments[ASSIGNMENTS_MAX]; /* --set and its short forms, in order. */
    size_t assignment_count;
    /* The assignments that the short forms stand for. */
    char shorts[OPT_SHORT_END][SEEDS_MAX_BYTES + 64];
    bool check;
    bool reference;
};

static const char *const usage_text =
    "usage: ferryd --data DIR [--listen EP] [--node ID --peer-listen EP (--bootstrap ID=EP,... | "
    "--join EP)] [--config FILE] [--set section.key=value]... "
    "[--check]\n"
    "\n"
    "Runs a Ferry broker. Prints one line when it is ready to serve; stops on SIGINT or SIGTERM.\n"
    "\n"
    "  --data DIR       the data folder (node.data); made when missing\n"
    "  --listen EP      where clients connect (listen.endpoint), tcp://127.0.0.1:7400 by default\n"
    "  --node ID        this node's number in its cluster (node.id)\n"
    "  --peer-listen EP where the other nodes connect (node.peer_listen)\n"
    "  --bootstrap LIST the nodes that found the cluster: ID=EP,ID=EP,... (node.bootstrap)\n"
    "  --join EP        a peer endpoint of any node of a living cluster (node.join)\n"
    "  --zone NAME      what fails together with this node (node.zone)\n"
    "  --config FILE    options from a file; see conf/ferryd.conf\n"
    "  --set K=V        one option; wins over the environment, which wins over the file\n"
    "  --check          reads the configuration, lists every problem, starts nothing\n"
    "  --print-config   writes all options with their meaning and defaults, as a file\n"
    "  --version        prints the version\n"
    "\n"
    "An option section.key is FERRYD_SECTION_KEY in the environment.\n";

static bool add_assignment(struct arguments *a, const char *assignment)
{
    if (a->assignment_count == ASSIGNMENTS_MAX) {
        fprintf(stderr, "ferryd: more than %d --set: put them into a file\n", ASSIGNMENTS_MAX);
        return false;
    }
    a->assignments[a->assignment_count++] = assignment;
    return true;
}

static const struct option long_options[] = {
    {"data", required_argument, NULL, OPT_DATA},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"node", required_argument, NULL, OPT_NODE},
    {"peer-listen", required_argument, NULL, OPT_PEER_LISTEN},
    {"bootstrap", required_argument, NULL, OPT_BOOTSTRAP},
    {"join", required_argument, NULL, OPT_JOIN},
    {"zone", required_argument, NULL, OPT_ZONE},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"set", required_argument, NULL, OPT_SET},
    {"check", no_argument, NULL, OPT_CHECK},
    {"print-config", no_argument, NULL, OPT_PRINT},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {0}};

/* -1: go on; otherwise the exit code. */
static int take_option(struct arguments *a, int option)
{
    if (option >= 0 && option < OPT_SHORT_END) {
        (void)snprintf(a->shorts[option], sizeof(a->shorts[option]), "%s=%s", short_names[option],
                       optarg);
        return add_assignment(a, a->shorts[option]) ? -1 : EXIT_USAGE;
    }
    switch (option) {
    case OPT_CONFIG:
        a->config_file = optarg;
        return -1;
    case OPT_SET:
        return add_assignment(a, optarg) ? -1 : EXIT_USAGE;
    case OPT_CHECK:
        a->check = true;
        return -1;
    case OPT_PRINT:
        a->reference = true;
        return -1;
    case OPT_VERSION:
        printf("ferryd %s\n", FERRY_VERSION);
        return EXIT_SUCCESS;
    case OPT_HELP:
        fputs(usage_text, stdout);
        return EXIT_SUCCESS;
    default:
        fputs("ferryd: see ferryd --help\n", stderr);
        return EXIT_USAGE;
    }
}

static int parse_arguments(int argc, char **argv, struct arguments *a)
{
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int code = take_option(a, option);
        if (code >= 0) {
            return code;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "ferryd: %s: unexpected; see ferryd --help\n", argv[optind]);
        return EXIT_USAGE;
    }
    return -1;
}

static void print_problems(const struct config_problems *p)
{
    fprintf(stderr, "%.*s", (int)p->lines.size, (const char *)p->lines.data);
    fprintf(stderr, "ferryd: %zu problem%s in the configuration\n", p->count,
            p->count == 1 ? "" : "s");
}

static bool read_options(const struct arguments *a, struct broker_options *o)
{
    const struct option_table *table = broker_option_table();
    struct config_problems problems;
    config_problems_init(&problems);
    option_defaults(table, o);
    if (a->config_file != NULL) {
        config_load_file(table, o, a->config_file, &problems);
    }
    config_load_environment(table, o, "FERRYD", environ, &problems);
    for (size_t i = 0; i < a->assignment_count; i++) {
        config_set_assignment(table, o, a->assignments[i], &problems);
    }
    broker_options_check(o, &problems);
    bool ok = problems.count == 0;
    if (!ok) {
        print_problems(&problems);
    }
    config_problems_fini(&problems);
    return ok;
}

static int print_reference(void)
{
    struct buf text;
    buf_init(&text, 1u << 20);
    config_print_reference(broker_option_table(), &text);
    bool ok = buf_ok(&text) && fwrite(text.data, 1, text.size, stdout) == text.size;
    buf_fini(&text);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static bool is_asked_to_stop(const sigset_t *signals, long wait_ms)
{
    struct timespec pause = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000L};
    int signal = sigtimedwait(signals, NULL, &pause);
    return signal == SIGINT || signal == SIGTERM;
}

/* Until it is ready, a signal asks to stop, or the broker fails by itself; the exit code, or -1
 * when it is ready. */
static int wait_ready(const struct broker *b, const sigset_t *signals)
{
    while (!broker_is_ready(b)) {
        enum ferry_err err = broker_failure(b);
        if (err != FERRY_OK) {
            fprintf(stderr, "ferryd: %s: %s\n", ferry_err_name(err), ferry_err_text(err));
            return EXIT_FAILURE;
        }
        if (is_asked_to_stop(signals, READY_MS)) {
            return EXIT_SUCCESS;
        }
    }
    return -1;
}

/* Until a signal asks to stop, or the broker fails by itself. */
static int wait_for_end(const struct broker *b, const sigset_t *signals)
{
    for (;;) {
        if (is_asked_to_stop(signals, WATCH_MS)) {
            return EXIT_SUCCESS;
        }
        enum ferry_err err = broker_failure(b);
        if (err != FERRY_OK) {
            fprintf(stderr, "ferryd: %s: %s\n", ferry_err_name(err), ferry_err_text(err));
            return EXIT_FAILURE;
        }
    }
}

static void say_ready(const struct broker *b, const struct broker_options *o, int64_t began_us)
{
    char node[ENDPOINT_MAX_BYTES + 64] = "";
    if (broker_options_clustered(o)) {
        (void)snprintf(node, sizeof(node), "node %lld, peers %s, ", (long long)o->node_id,
                       broker_peer_endpoint(b));
    }
    printf("ferryd: ready: %s, %sdata %s, started in %.0f ms\n", broker_endpoint(b), node, o->data,
           (double)(clock_monotonic_us() - began_us) / 1000.0);
    (void)fflush(stdout);
    if (broker_unserved(b) > 0) {
        fprintf(
            stderr,
            "ferryd: %u partition(s) are damaged and not served; the lines above say which. The "
            "others are. Restore the data folder from a backup, or delete their topics\n",
            broker_unserved(b));
    }
}

static int run(const struct broker_options *o)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL); /* Before the threads, which inherit it. */
    (void)signal(SIGPIPE, SIG_IGN);
    /* A file that grows past a limit is an error to report, not a reason to die. */
    (void)signal(SIGXFSZ, SIG_IGN);

    int64_t began_us = clock_monotonic_us();
    struct broker *b = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = broker_open(o, &b, &e);
    if (err != FERRY_OK) {
        fprintf(stderr, "ferryd: %s: %s\n", ferry_err_name(err),
                e.text[0] != '\0' ? e.text : ferry_err_text(err));
        return EXIT_FAILURE;
    }
    int code = wait_ready(b, &signals);
    if (code < 0) {
        say_ready(b, o, began_us);
        code = wait_for_end(b, &signals);
    }
    broker_stop(&b);
    return code;
}

int main(int argc, char **argv)
{
    static struct arguments a;
    mem_keep_frames();
    int code = parse_arguments(argc, argv, &a);
    if (code >= 0) {
        return code;
    }
    if (a.reference) {
        return print_reference();
    }
    struct broker_options options = {0};
    if (!read_options(&a, &options)) {
        return EXIT_USAGE;
    }
    if (a.check) {
        puts("ferryd: the configuration is good");
        return EXIT_SUCCESS;
    }
    return run(&options);
}
