/* ferry-outbox: publishes what applications put into their outbox tables. Parses, wires, runs. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/driver.h"
#include "outbox/relay/relay.h"
#include "outbox/relay/relay_policy.h"
#include "outbox/relay/relay_report.h"
#include "outbox/sqlite/open_sqlite.h"

#define EXIT_USAGE     2
#define EXIT_NOT_FOUND 3
#define EXIT_TIMEOUT   5

#define DATABASES_MAX     64
#define STOP_GRACE_US     (10 * 1000 * 1000) /* For what is in flight when asked to stop. */
#define JSON_EVERY_US     (1000 * 1000)
#define TERMINAL_EVERY_US (250 * 1000)
#define ONCE_LOOK_US      (20 * 1000)
#define CLOSE_TIMEOUT_MS  1000
#define DELIVERY_TIMEOUT  "5s" /* Then the relay asks for the cursor and decides anew. */

extern char **environ;

static volatile sig_atomic_t stop_asked; /* Set by SIGINT and SIGTERM. */

static void on_stop(int signal_number)
{
    (void)signal_number;
    stop_asked = 1;
}

/* One database with its relay. */
struct served {
    const char *url;  /* As it was given. */
    const char *path; /* In it. */
    struct source source;
    struct relay_broker broker;
    struct relay *relay;
    struct relay_rate rate;
};

struct program {
    struct relay_options options;
    struct served served[DATABASES_MAX];
    size_t count;
    struct ferry_client *client;
    bool once, json, check_only, server_given;
    const char *config_path;
    struct buf out; /* Scratch of the reports. */
};

static void print_help(FILE *to)
{
    fprintf(to, "ferry-outbox: publishes what applications put into their outbox tables.\n"
                "\n"
                "  ferry-outbox --db sqlite:PATH [--db …] [--server EP[,EP…]]\n"
                "\n"
                "Several may serve one database: one is active, the others stand by and take over\n"
                "when it has not been heard of for relay.lease_ms.\n"
                "\n"
                "  --db URL        a database to serve; may be given more than once\n"
                "  --server EP     brokers, default tcp://127.0.0.1:7400\n"
                "  --config FILE   options from a file; conf/ferry-outbox.conf shows all of them\n"
                "  --set KEY=VAL   one option, after the file and the environment\n"
                "  --once          publish what is there, then exit\n"
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

static void add_database(struct program *p, const char *url, struct config_problems *problems)
{
    struct err_text e = {{0}};
    char scheme[OUTBOX_SCHEME_MAX + 1];
    if (p->count == DATABASES_MAX) {
        config_problem(problems, "--db %s: at most %d databases", url, DATABASES_MAX);
    } else if (outbox_url_scheme(url, scheme, &e) != FERRY_OK) {
        config_problem(problems, "--db: %s", e.text);
    } else {
        p->served[p->count].url = url;
        p->served[p->count++].path = strchr(url, ':') + 1;
    }
}

static void add_listed_databases(struct program *p, struct config_problems *problems)
{
    char list[RELAY_DB_MAX + 1];
    char *rest = list;
    snprintf(list, sizeof(list), "%s", p->options.db);
    for (char *url = strsep(&rest, ","); url != NULL; url = strsep(&rest, ",")) {
        url += strspn(url, " \t");
        if (url[0] != '\0') {
            add_database(p, url, problems);
        }
    }
}

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
            add_database(p, optarg, problems);
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
    if (p->options.poll_min_ms > p->options.poll_max_ms) {
        config_problem(problems, "relay.poll_min_ms is larger than relay.poll_max_ms");
    }
    struct err_text e = {{0}};
    if (relay_policy_check(&p->options, &e) != FERRY_OK) {
        config_problem(problems, "%s", e.text);
    }
    if (p->options.retry_min_ms > p->options.retry_max_ms) {
        config_problem(problems, "relay.retry_min_ms is larger than relay.retry_max_ms");
    }
    if (p->count == 0) {
        config_problem(problems, "no database is given: use --db sqlite:PATH or relay.db");
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
    option_defaults(relay_options_table(), &p->options);
    config_problems_init(&problems);
    if (p->config_path != NULL) {
        config_load_file(relay_options_table(), &p->options, p->config_path, &problems);
    }
    config_load_environment(relay_options_table(), &p->options, "FERRY_OUTBOX", environ, &problems);
    read_arguments(p, argc, argv, &problems);
    add_listed_databases(p, &problems);
    check_together(p, &problems);
    if (problems.count > 0) {
        fprintf(stderr, "%.*s", (int)problems.lines.size, (const char *)problems.lines.data);
        code = EXIT_USAGE;
    }
    config_problems_fini(&problems);
    return code;
}

/* ---- Opening. */

static int exit_code_of(enum ferry_err err, const char *path)
{
    if (err == FERRY_ERR_IO && access(path, F_OK) != 0 && errno == ENOENT) {
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

static int check_databases(const struct program *p)
{
    int code = EXIT_SUCCESS;
    for (size_t i = 0; i < p->count; i++) {
        const char *path = p->served[i].path;
        const char *url = p->served[i].url;
        const struct outbox_driver *driver = NULL;
        struct outbox_status status;
        struct err_text e = {{0}};
        enum ferry_err err = outbox_driver_load(url, &driver, &e);
        if (err == FERRY_OK) {
            err = driver->admin->status(url, bytes_of(NULL, 0), &status, &e);
        }
        if (err != FERRY_OK) {
            fprintf(stderr, "%s\n", e.text);
            code = exit_code_of(err, path);
        } else {
            printf("%s: ok, schema %lld, %lld rows\n", path, (long long)status.schema_version,
                   (long long)status.stored_rows);
        }
    }
    return code;
}

static enum ferry_err open_client(struct program *p, struct err_text *e)
{
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", p->options.servers, e->text, sizeof(e->text));
    }
    if (err == FERRY_OK) {
        err =
            ferry_conf_set(conf, "delivery.timeout_ms", DELIVERY_TIMEOUT, e->text, sizeof(e->text));
    }
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "client.name", "ferry-outbox", e->text, sizeof(e->text));
    }
    if (err == FERRY_OK) {
        err = ferry_open(&p->client, &conf, e->text, sizeof(e->text));
    }
    ferry_conf_free(&conf);
    return err;
}

/* Who holds the source: the host and the relay's place at the database, so that a relay that is
 * started again takes over from itself at once. Names have letters, digits, `.`, `_` and `-` only.
 */
static void holder_name(const struct source *source, char *name, size_t bytes)
{
    char place[SOURCE_PLACE_MAX + 1];
    char host[64] = "host";
    source_place(source, place);
    (void)gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c != '\0'; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '.' || *c == '-';
        *c = plain ? *c : '_';
    }
    (void)snprintf(name, bytes, "ferry-outbox.%s.%016llx", host,
                   (unsigned long long)checksum_of(place, strlen(place)));
}

static enum ferry_err open_served(struct program *p, struct served *s, struct err_text *e)
{
    char holder[128];
    const struct source_options options = {
        .barrier = p->options.barrier,
        .stand_by = !p->once, /* Once would wait for ever. */
        .tidy = p->options.tidy,
        .strict = p->options.strict,
        .notify = p->options.notify,
        .delete_rows = p->options.delete_rows,
        .delete_backlog_rows = p->options.delete_backlog_rows,
        .copy_rows = p->options.copy_rows,
        .connect_timeout_ms = p->options.connect_timeout_ms,
        .statement_timeout_ms = p->options.statement_timeout_ms,
    };
    enum ferry_err err = source_sqlite_open(&s->source, s->url, &options, e);
    if (err != FERRY_OK) {
        return err;
    }
    holder_name(&s->source, holder, sizeof(holder));
    struct ferry_id id = s->source.ops->id(s->source.driver);
    err = relay_broker_open(&s->broker, p->client, &id, holder);
    if (err == FERRY_OK) {
        uint64_t seed = (uint64_t)clock_monotonic_us() ^ (uint64_t)getpid();
        err = relay_new(&s->relay, &p->options, &s->source, &s->broker, NULL, seed);
    }
    return err;
}

static int open_all(struct program *p)
{
    struct err_text e = {{0}};
    enum ferry_err err = open_client(p, &e);
    if (err != FERRY_OK) {
        fprintf(stderr, "ferry-outbox: relay.servers: %s\n",
                e.text[0] == '\0' ? ferry_err_text(err) : e.text);
        return exit_code_of(err, "/");
    }
    for (size_t i = 0; i < p->count; i++) {
        err = open_served(p, &p->served[i], &e);
        if (err != FERRY_OK) {
            fprintf(stderr, "ferry-outbox: %s\n", e.text[0] == '\0' ? ferry_err_text(err) : e.text);
            return exit_code_of(err, p->served[i].path);
        }
    }
    return -1;
}

/* Sources before the client, which then runs the callbacks that are left, and the relays last. */
static void close_all(struct program *p)
{
    for (size_t i = 0; i < p->count; i++) {
        relay_broker_close(&p->served[i].broker);
    }
    ferry_close(&p->client, CLOSE_TIMEOUT_MS);
    for (size_t i = 0; i < p->count; i++) {
        relay_free(&p->served[i].relay);
        source_close(&p->served[i].source);
    }
    buf_fini(&p->out);
}

/* ---- Reports. */

static void report(struct program *p, bool terminal)
{
    buf_clear(&p->out);
    for (size_t i = 0; i < p->count; i++) {
        struct served *s = &p->served[i];
        struct relay_status status;
        relay_status(s->relay, &status);
        relay_rate_update(&s->rate, status.stats.published_rows, clock_monotonic_us());
        if (p->json) {
            relay_report_json(&p->out, relay_name(s->relay), &status, &s->rate);
            continue;
        }
        buf_printf(&p->out, "%s", terminal && i == 0 ? "\r\033[K" : terminal ? "  ||  " : "");
        relay_report_line(&p->out, relay_name(s->relay), &status, &s->rate);
        if (!terminal) {
            buf_append_u8(&p->out, '\n');
        }
    }
    fwrite(p->out.data, 1, p->out.size, stdout);
    fflush(stdout);
}

/* ---- Running. */

/* What the relays have come to. */
struct progress {
    bool all_stopped, all_halted, any_halted, all_drained, topics_missing;
};

static struct progress look(struct program *p)
{
    struct progress now = {true, true, false, true, false};
    for (size_t i = 0; i < p->count; i++) {
        struct relay_status status;
        relay_status(p->served[i].relay, &status);
        bool halted = status.state == RELAY_HALTED;
        now.any_halted = now.any_halted || halted;
        now.all_halted = now.all_halted && halted;
        now.all_stopped = now.all_stopped && (halted || status.state == RELAY_STOPPED);
        now.all_drained = now.all_drained && (halted || status.caught_up);
        now.topics_missing = now.topics_missing || status.blocked_topics > 0;
    }
    return now;
}

static void wait_for_work(struct program *p, int64_t due_us, const sigset_t *unblocked)
{
    struct pollfd fds[DATABASES_MAX + 1];
    fds[0] = (struct pollfd){.fd = ferry_fd(p->client), .events = POLLIN};
    for (size_t i = 0; i < p->count; i++) {
        int fd = source_wake_fd(&p->served[i].source);
        fds[i + 1] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    int64_t wait_us = due_us - clock_monotonic_us();
    wait_us = wait_us < 0 ? 0 : wait_us;
    struct timespec timeout = {wait_us / 1000000, wait_us % 1000000 * 1000};
    if (ppoll(fds, (nfds_t)p->count + 1, &timeout, unblocked) > 0) {
        for (size_t i = 0; i < p->count; i++) {
            if ((fds[i + 1].revents & POLLIN) != 0) {
                relay_wake(p->served[i].relay);
            }
        }
    }
    ferry_poll(p->client, 0);
}

struct run {
    int64_t report_at_us, report_every_us;
    int64_t look_at_us;
    int64_t stop_by_us; /* 0: not stopping. */
    bool terminal;
    int code;
};

static void stop_all(struct program *p, struct run *run, int64_t now_us)
{
    run->stop_by_us = now_us + STOP_GRACE_US;
    for (size_t i = 0; i < p->count; i++) {
        relay_stop(p->served[i].relay);
    }
}

/* True: done. */
static bool decide(struct program *p, struct run *run, int64_t now_us)
{
    if (stop_asked && run->stop_by_us == 0) {
        stop_all(p, run, now_us);
    }
    if (now_us < run->look_at_us) {
        return false;
    }
    run->look_at_us = now_us + ONCE_LOOK_US;
    struct progress now = look(p);
    if (run->stop_by_us == 0 && (now.all_halted || (p->once && now.all_drained))) {
        run->code = now.any_halted       ? EXIT_FAILURE
                    : now.topics_missing ? EXIT_NOT_FOUND
                                         : EXIT_SUCCESS;
        stop_all(p, run, now_us);
    }
    if (run->stop_by_us != 0 && now.all_stopped) {
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

static int serve(struct program *p, const sigset_t *unblocked)
{
    struct run run = {.terminal = !p->json && isatty(STDOUT_FILENO) != 0};
    run.report_every_us = p->json        ? JSON_EVERY_US
                          : run.terminal ? TERMINAL_EVERY_US
                                         : p->options.report_ms * 1000;
    run.report_at_us = clock_monotonic_us() + run.report_every_us;
    for (;;) {
        int64_t now_us = clock_monotonic_us();
        int64_t due_us = run.report_at_us;
        for (size_t i = 0; i < p->count; i++) {
            int64_t relay_due_us = relay_step(p->served[i].relay, clock_monotonic_us());
            due_us = relay_due_us < due_us ? relay_due_us : due_us;
        }
        if (decide(p, &run, now_us)) {
            break;
        }
        if (p->once || run.stop_by_us != 0) {
            due_us = run.look_at_us < due_us ? run.look_at_us : due_us;
        }
        if (now_us >= run.report_at_us) {
            report(p, run.terminal);
            run.report_at_us = now_us + run.report_every_us;
        }
        wait_for_work(p, due_us, unblocked);
    }
    report(p, run.terminal);
    if (run.terminal) {
        printf("\n");
    }
    return run.code;
}

/* Signals arrive only while the loop waits, so that none is missed between a look and the wait. A
 * second one ends the process at once. */
static void catch_signals(sigset_t *unblocked)
{
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, unblocked);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    static struct program p; /* Too large for a stack. */
    sigset_t unblocked;
    mem_keep_frames();
    buf_init(&p.out, (size_t)DATABASES_MAX * RELAY_REPORT_MAX_BYTES);
    int code = configure(&p, argc, argv);
    if (code < 0 && p.check_only) {
        code = check_databases(&p);
    }
    if (code >= 0) {
        buf_fini(&p.out);
        return code;
    }
    catch_signals(&unblocked);
    code = open_all(&p);
    if (code < 0) {
        if (!p.json) {
            printf("ferry-outbox %s: serving %zu database%s, brokers %s\n", FERRY_VERSION, p.count,
                   p.count == 1 ? "" : "s", p.options.servers);
            fflush(stdout);
        }
        code = serve(&p, &unblocked);
    }
    close_all(&p);
    return code;
}
