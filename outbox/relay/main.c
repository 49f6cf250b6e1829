/* ferry-outbox: publishes what applications put into their outbox tables. Parses, wires, runs. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/driver.h"
#include "outbox/relay/http.h"
#include "outbox/relay/relay_report.h"
#include "outbox/relay/relay_setup.h"
#include "outbox/relay/status_pages.h"

#define EXIT_USAGE     2
#define EXIT_NOT_FOUND 3
#define EXIT_TIMEOUT   5

#define STOP_GRACE_US     (10 * 1000 * 1000) /* For what is in flight when asked to stop. */
#define END_GRACE_US      (5 * 1000 * 1000)  /* For threads that have nothing to do any more. */
#define JSON_EVERY_US     (1000 * 1000)
#define TERMINAL_EVERY_US (250 * 1000)
#define LOOK_EVERY_US     (20 * 1000)

extern char **environ;

static volatile sig_atomic_t stop_asked; /* Set by SIGINT and SIGTERM. */

static void on_stop(int signal_number)
{
    (void)signal_number;
    stop_asked = 1;
}

struct program {
    struct relay_options options;
    struct relay_urls urls;
    struct serve *serve;
    struct figures *figures;
    struct http *http;
    struct status_pages pages;
    struct relay_rate rates[SERVE_MAX];
    bool once, json, check_only, server_given;
    const char *config_path;
    struct buf out; /* Scratch of the reports. */
};

static void print_help(FILE *to)
{
    fprintf(to, "ferry-outbox: publishes what applications put into their outbox tables.\n"
                "\n"
                "  ferry-outbox --db URL [--db …] [--server EP[,EP…]]\n"
                "\n"
                "Several may serve one database: one is active, the others stand by and take over\n"
                "when it has not been heard of for relay.lease_ms. One that cannot be reached is\n"
                "tried again and holds up none of the others.\n"
                "\n"
                "  --db URL        a database to serve; may be given more than once:\n"
                "                  sqlite:PATH, postgresql://USER@HOST/DATABASE,\n"
                "                  mariadb://USER@HOST/DATABASE; @FILE reads URLs from a file,\n"
                "                  so that a password is not seen in the list of processes\n"
                "  --server EP     brokers, default tcp://127.0.0.1:7400\n"
                "  --config FILE   options from a file; conf/ferry-outbox.conf shows all of them\n"
                "  --set KEY=VAL   one option, after the file and the environment\n"
                "  --once          publish what is there, then exit; a database that cannot be\n"
                "                  reached fails, brokers and another relay are waited for\n"
                "  --json          one JSON object a line and second on standard output\n"
                "  --check         check options and databases, publish nothing\n"
                "  --help, --version\n"
                "\n"
                "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 5 timeout.\n");
}

/* ---- Options. */

enum { OPT_DB = 256, OPT_SERVER, OPT_CONFIG, OPT_SET, OPT_ONCE, OPT_JSON, OPT_CHECK };

static const struct option long_options[] = {
    {"db", required_argument, NULL, OPT_DB},
    {"server", required_argument, NULL, OPT_SERVER},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"set", required_argument, NULL, OPT_SET},
    {"once", no_argument, NULL, OPT_ONCE},
    {"json", no_argument, NULL, OPT_JSON},
    {"check", no_argument, NULL, OPT_CHECK},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* The file is named by an argument but read before the others take effect: two passes. */
static int find_config(struct program *p, int argc, char **argv)
{
    int option = 0;
    while ((option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
        switch (option) {
        case 'h':
            print_help(stdout);
            return EXIT_SUCCESS;
        case 'V':
            printf("ferry-outbox %s\n", FERRY_VERSION);
            return EXIT_SUCCESS;
        case OPT_CONFIG:
            p->config_path = optarg;
            break;
        case '?':
            fprintf(stderr, "Try ferry-outbox --help.\n");
            return EXIT_USAGE;
        default:
            break;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "ferry-outbox: \"%s\" is no option: try ferry-outbox --help.\n",
                argv[optind]);
        return EXIT_USAGE;
    }
    return -1;
}

static void add_server(struct program *p, const char *endpoint, struct config_problems *problems)
{
    char value[RELAY_SERVERS_MAX + 1];
    struct err_text e = {{0}};
    int n = p->server_given ? snprintf(value, sizeof(value), "%s,%s", p->options.servers, endpoint)
                            : snprintf(value, sizeof(value), "%s", endpoint);
    if (n < 0 || (size_t)n >= sizeof(value) ||
        option_set(relay_options_table(), &p->options, "relay.servers", value, &e) != FERRY_OK) {
        config_problem(problems, "--server %s: %s", endpoint, e.text);
    }
    p->server_given = true;
}

static void read_arguments(struct program *p, int argc, char **argv,
                           struct config_problems *problems)
{
    int option = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
        switch (option) {
        case OPT_DB:
            relay_urls_add(&p->urls, "--db", optarg, problems);
            relay_url_hide(optarg);
            break;
        case OPT_SERVER:
            add_server(p, optarg, problems);
            break;
        case OPT_SET:
            config_set_assignment(relay_options_table(), &p->options, optarg, problems);
            break;
        case OPT_ONCE:
            p->once = true;
            break;
        case OPT_JSON:
            p->json = true;
            break;
        case OPT_CHECK:
            p->check_only = true;
            break;
        default:
            break;
        }
    }
}

static void check_together(const struct program *p, struct config_problems *problems)
{
    if (p->urls.count == 0 && problems->count == 0) {
        config_problem(problems, "no database is given: use --db URL or relay.db");
    }
    relay_setup_check(&p->options, problems);
    if (p->options.http_stuck_ms <= p->options.statement_timeout_ms) {
        config_problem(problems, "relay.http_stuck_ms is to be larger than "
                                 "relay.statement_timeout_ms");
    }
}

/* Returns an exit code, or -1 to go on. */
static int configure(struct program *p, int argc, char **argv)
{
    struct config_problems problems;
    int code = find_config(p, argc, argv);
    if (code >= 0) {
        return code;
    }
    if (relay_urls_init(&p->urls) != FERRY_OK) {
        fprintf(stderr, "ferry-outbox: out of memory\n");
        return EXIT_FAILURE;
    }
    option_defaults(relay_options_table(), &p->options);
    config_problems_init(&problems);
    if (p->config_path != NULL) {
        config_load_file(relay_options_table(), &p->options, p->config_path, &problems);
    }
    config_load_environment(relay_options_table(), &p->options, "FERRY_OUTBOX", environ, &problems);
    read_arguments(p, argc, argv, &problems);
    relay_urls_add_list(&p->urls, "relay.db", p->options.db, &problems);
    check_together(p, &problems);
    if (problems.count > 0) {
        fprintf(stderr, "%.*s", (int)problems.lines.size, (const char *)problems.lines.data);
        code = EXIT_USAGE;
    }
    config_problems_fini(&problems);
    return code;
}

/* ---- What an error comes to. */

static int exit_code_of(enum ferry_err err, const char *url)
{
    const char *path = strncmp(url, "sqlite:", 7) == 0 ? url + 7 : NULL;
    if (err == FERRY_ERR_IO && path != NULL && access(path, F_OK) != 0 && errno == ENOENT) {
        return EXIT_NOT_FOUND;
    }
    switch (ferry_err_class(err)) {
    case FERRY_CLASS_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case FERRY_CLASS_USAGE:
        return err == FERRY_ERR_DB_SCHEMA ? EXIT_FAILURE : EXIT_USAGE;
    default:
        return EXIT_FAILURE;
    }
}

/* As the relay will open it, with the checks of its settings. */
static enum ferry_err check_one(const struct program *p, const struct relay_url *url,
                                struct err_text *e)
{
    struct source source = {0};
    uint32_t lanes = 0;
    struct source_options options = {.stand_by = true,
                                     .barrier = p->options.barrier,
                                     .tidy = p->options.tidy,
                                     .strict = p->options.strict,
                                     .notify = p->options.notify,
                                     .connect_timeout_ms = p->options.connect_timeout_ms,
                                     .statement_timeout_ms = p->options.statement_timeout_ms};
    enum ferry_err err = url->driver->source_open(&source, url->url, &options, e);
    if (err == FERRY_OK) {
        err = url->driver->lanes(url->url, &lanes, e);
    }
    source_close(&source);
    struct outbox_status status = {0};
    if (err == FERRY_OK && url->driver->admin != NULL) {
        err = url->driver->admin->status(url->url, NULL, 0, &status, e);
    }
    if (err == FERRY_OK) {
        printf("%s: ok, schema %" PRId64 ", %" PRIu32 " lane%s\n", url->shown,
               status.schema_version, lanes, lanes == 1 ? "" : "s");
    }
    return err;
}

static int check_databases(const struct program *p)
{
    int code = EXIT_SUCCESS;
    for (size_t i = 0; i < p->urls.count; i++) {
        const struct relay_url *url = &p->urls.items[i];
        struct err_text e = {{0}};
        enum ferry_err err = check_one(p, url, &e);
        if (err != FERRY_OK) {
            fprintf(stderr, "%s: %s\n", url->shown,
                    e.text[0] == '\0' ? ferry_err_text(err) : source_words(url->shown, e.text));
            code = exit_code_of(err, url->url);
        }
    }
    return code;
}

/* ---- Reports. */

static void report(struct program *p, bool terminal)
{
    struct serve_view view;
    size_t count = serve_count(p->serve);
    buf_clear(&p->out);
    for (size_t i = 0; i < count; i++) {
        serve_view(p->serve, i, &view);
        relay_rate_update(&p->rates[i], view.status.relay.stats.published_rows,
                          clock_monotonic_us());
        if (p->json) {
            relay_report_json(&p->out, &view, &p->rates[i]);
            continue;
        }
        buf_printf(&p->out, "%s", terminal && i == 0 ? "\r\033[K" : terminal ? "  ||  " : "");
        relay_report_line(&p->out, &view, &p->rates[i]);
        if (!terminal) {
            buf_append_u8(&p->out, '\n');
        }
    }
    fwrite(p->out.data, 1, p->out.size, stdout);
    fflush(stdout);
}

/* ---- Running. */

/* What all have come to. */
struct progress {
    bool all_stopped, all_drained, any_halted, topics_missing;
    bool any_paused; /* By a person: with --once there is nothing to wait for. */
    int failed;      /* Exit code of one that was never reached; 0: none. */
};

static void look_at(struct program *p, size_t at, struct progress *now)
{
    struct serve_view view;
    serve_view(p->serve, at, &view);
    const struct served_status *s = &view.status;
    bool stopped = s->phase == SERVED_STOPPED;
    bool halted = s->relay_known && s->relay.state == RELAY_HALTED && s->phase != SERVED_RELAYING;
    now->any_halted = now->any_halted || halted;
    now->all_stopped = now->all_stopped && stopped;
    bool relaying = s->phase == SERVED_RELAYING && s->relay_known;
    bool paused = relaying && s->relay.state == RELAY_PAUSED;
    now->any_paused = now->any_paused || paused;
    now->all_drained = now->all_drained && (stopped || paused || (relaying && s->relay.caught_up));
    now->topics_missing = now->topics_missing || s->relay.blocked_topics > 0;
    if (stopped && !s->relay_known && s->err != FERRY_OK) {
        now->failed = exit_code_of(s->err, "");
        for (size_t i = 0; i < p->urls.count; i++) {
            if (p->urls.items[i].shown == view.shown) {
                now->failed = exit_code_of(s->err, p->urls.items[i].url);
            }
        }
    }
}

static struct progress look(struct program *p)
{
    struct progress now = {.all_stopped = true, .all_drained = true};
    for (size_t i = 0; i < serve_count(p->serve); i++) {
        look_at(p, i, &now);
    }
    return now;
}

struct run {
    int64_t report_at_us, report_every_us;
    int64_t stop_by_us; /* 0: not stopping. */
    bool terminal;
    int code;
};

static void stop_all(struct program *p, struct run *run, int64_t now_us)
{
    run->stop_by_us = now_us + STOP_GRACE_US;
    serve_stop(p->serve);
}

/* True: done. */
static bool decide(struct program *p, struct run *run, int64_t now_us)
{
    if (stop_asked && run->stop_by_us == 0) {
        stop_all(p, run, now_us);
    }
    struct progress now = look(p);
    bool over = now.all_stopped || (p->once && now.all_drained && serve_all_started(p->serve));
    if (run->stop_by_us == 0 && over) {
        run->code = now.failed != 0      ? now.failed
                    : now.any_halted     ? EXIT_FAILURE
                    : now.any_paused     ? EXIT_FAILURE
                    : now.topics_missing ? EXIT_NOT_FOUND
                                         : EXIT_SUCCESS;
        if (now.any_paused) {
            log_line(LOG_ERROR, "relay",
                     "paused by a person: not all is published: `ferry outbox resume`, then start "
                     "this again");
        }
        stop_all(p, run, now_us);
    }
    if (now.all_stopped) {
        run->code = now.any_halted ? EXIT_FAILURE : run->code;
        return true;
    }
    if (run->stop_by_us != 0 && now_us >= run->stop_by_us) {
        log_line(LOG_WARN, "relay",
                 "what was in flight was not answered in time; the next start "
                 "finds out what became of it");
        run->code = EXIT_TIMEOUT;
        return true;
    }
    return false;
}

static void wait_for_change(struct program *p, const struct run *run, const sigset_t *unblocked)
{
    struct pollfd fd = {.fd = serve_fd(p->serve), .events = POLLIN};
    int64_t now_us = clock_monotonic_us();
    int64_t due_us = run->report_at_us;
    if (p->once || run->stop_by_us != 0) {
        due_us = now_us + LOOK_EVERY_US < due_us ? now_us + LOOK_EVERY_US : due_us;
    }
    int64_t wait_us = due_us > now_us ? due_us - now_us : 0;
    struct timespec timeout = {wait_us / 1000000, wait_us % 1000000 * 1000};
    (void)ppoll(&fd, 1, &timeout, unblocked);
}

static int run_all(struct program *p, const sigset_t *unblocked)
{
    struct run run = {.terminal = !p->json && isatty(STDOUT_FILENO) != 0};
    run.report_every_us = p->json        ? JSON_EVERY_US
                          : run.terminal ? TERMINAL_EVERY_US
                                         : p->options.report_ms * 1000;
    run.report_at_us = clock_monotonic_us() + run.report_every_us;
    for (;;) {
        int64_t now_us = clock_monotonic_us();
        serve_turn(p->serve);
        if (decide(p, &run, now_us)) {
            break;
        }
        if (now_us >= run.report_at_us) {
            report(p, run.terminal);
            run.report_at_us = now_us + run.report_every_us;
        }
        wait_for_change(p, &run, unblocked);
    }
    report(p, run.terminal);
    if (run.terminal) {
        printf("\n");
    }
    return run.code;
}

/* Signals arrive only while the main thread waits, so that none is missed between a look and the
 * wait. A second one ends the process at once. */
static void catch_signals(sigset_t *unblocked)
{
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, unblocked); /* Threads that come later have it so too. */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- Start and end. */

static enum ferry_err start_http(struct program *p, struct err_text *e)
{
    uint16_t port = 0;
    enum ferry_err err = FERRY_OK;
    if (p->options.figures) {
        err = figures_start(&p->figures, &p->urls, p->options.figures_ms);
    }
    if (err != FERRY_OK) {
        return err_set(e, err, "no thread is left for the figures: relay.figures=off");
    }
    p->pages = (struct status_pages){p->serve, p->figures, p->options.http_stuck_ms * 1000};
    err = http_start(&p->http, p->options.http, STATUS_PAGE_MAX_BYTES, status_page, &p->pages,
                     &port, e);
    if (err == FERRY_OK) {
        log_line(LOG_INFO, "relay", "status at http://%.*s:%u/metrics, /livez, /readyz",
                 (int)(strrchr(p->options.http, ':') - p->options.http), p->options.http,
                 (unsigned)port);
    }
    return err;
}

/* An exit code, or -1 to go on. */
static int start(struct program *p)
{
    struct err_text e = {{0}};
    const char *what = "relay";
    enum ferry_err err = serve_start(&p->serve, &p->options, &p->urls, p->once, &e);
    if (err == FERRY_OK && p->options.http[0] != '\0') {
        what = "relay.http";
        err = start_http(p, &e);
    }
    if (err != FERRY_OK) {
        fprintf(stderr, "ferry-outbox: %s: %s\n", what,
                e.text[0] == '\0' ? ferry_err_text(err) : e.text);
        return exit_code_of(err, "");
    }
    if (!p->json) {
        printf("ferry-outbox %s: serving %zu database%s, brokers %s\n", FERRY_VERSION,
               p->urls.count, p->urls.count == 1 ? "" : "s", p->options.servers);
        fflush(stdout);
    }
    return -1;
}

/* The status port before what it looks at. */
static void end(struct program *p, int code)
{
    http_stop(&p->http);
    if (p->serve != NULL) {
        serve_stop(p->serve);
    }
    int64_t until_us = clock_monotonic_us() + END_GRACE_US;
    bool relays_ended = serve_end(&p->serve, until_us);
    if (!figures_end(&p->figures, until_us) || !relays_ended) {
        fflush(NULL);
        _exit(code == EXIT_SUCCESS ? EXIT_TIMEOUT : code); /* A database holds a thread. */
    }
}

int main(int argc, char **argv)
{
    static struct program p; /* Too large for a stack. */
    sigset_t unblocked;
    mem_keep_frames();
    buf_init(&p.out, (size_t)SERVE_MAX * RELAY_REPORT_MAX_BYTES);
    int code = configure(&p, argc, argv);
    if (code < 0 && p.check_only) {
        code = check_databases(&p);
    }
    if (code < 0) {
        catch_signals(&unblocked);
        code = start(&p);
        if (code < 0) {
            code = run_all(&p, &unblocked);
        }
        end(&p, code);
    }
    relay_urls_fini(&p.urls);
    buf_fini(&p.out);
    return code;
}
