#include "cli/cli.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/format.h"
#include "cli/output.h"

#define DETAIL_BYTES 512

/* How long closing waits for what is still on its way; commands that care have flushed before. */
#define CLOSE_TIMEOUT_MS 1000

/* ---- Errors --------------------------------------------------------------------------------- */

enum cli_exit cli_exit_of(enum ferry_err err)
{
    if (err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_UNREACHABLE) {
        return CLI_EXIT_TIMEOUT;
    }
    switch (ferry_err_class(err)) {
    case FERRY_CLASS_NONE:
        return CLI_EXIT_OK;
    case FERRY_CLASS_USAGE:
        return CLI_EXIT_USAGE;
    case FERRY_CLASS_NOT_FOUND:
        return CLI_EXIT_NOT_FOUND;
    case FERRY_CLASS_DENIED:
        return CLI_EXIT_DENIED;
    case FERRY_CLASS_RETRIABLE:
    case FERRY_CLASS_THROTTLED:
    case FERRY_CLASS_FATAL:
        break;
    }
    return CLI_EXIT_FAILED;
}

static const char *class_name(enum ferry_err err)
{
    static const char *const names[] = {
        [FERRY_CLASS_NONE] = "none",           [FERRY_CLASS_RETRIABLE] = "retriable",
        [FERRY_CLASS_THROTTLED] = "throttled", [FERRY_CLASS_USAGE] = "usage",
        [FERRY_CLASS_NOT_FOUND] = "not_found", [FERRY_CLASS_DENIED] = "denied",
        [FERRY_CLASS_FATAL] = "fatal",
    };
    return names[ferry_err_class(err)];
}

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* One line on standard error. A detail replaces the general text: it says the same of this case. */
static void print_for_people(const struct cli *cli, enum ferry_err err, const char *subject,
                             const char *detail)
{
    const char *command = cli->args->has_command ? command_spec_of(cli->args->command)->name : "";
    output_flush();
    fprintf(stderr, "ferry: %s%s%s%s%s: %s\n", command, command[0] != '\0' ? ": " : "",
            is_given(subject) ? subject : "", is_given(subject) ? ": " : "", ferry_err_name(err),
            is_given(detail) ? detail : ferry_err_text(err));
}

void cli_warn(const struct cli *cli, enum ferry_err err, const char *subject, const char *detail)
{
    print_for_people(cli, err, subject, detail);
}

enum cli_exit cli_fail(const struct cli *cli, enum ferry_err err, const char *subject,
                       const char *detail)
{
    char said[DETAIL_BYTES] = "";
    must(err != FERRY_OK);
    if (!is_given(detail) && cli->client != NULL) {
        ferry_error_detail(cli->client, said, sizeof(said)); /* By the broker, to this call. */
        detail = said;
    }
    print_for_people(cli, err, subject, detail);
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "error", ferry_err_name(err));
        output_set_text(object, "class", class_name(err));
        output_set_text(object, "text", ferry_err_text(err));
        output_set_text(object, "subject", is_given(subject) ? subject : NULL);
        output_set_text(object, "detail", is_given(detail) ? detail : NULL);
        output_json(object);
    }
    return cli_exit_of(err);
}

enum cli_exit cli_tell_done(const struct cli *cli, const char *what, const char *name,
                            const char *done)
{
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, what, name);
        output_set_bool(object, done, true);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "%s %s %s\n", what, name, done);
    }
    return CLI_EXIT_OK;
}

bool cli_number(const struct cli *cli, int place, const char *what, int64_t min, int64_t max,
                int64_t *n)
{
    char detail[DETAIL_BYTES];
    const char *text = cli->args->positionals[place];
    if (format_parse_number(text, n) && *n >= min && *n <= max) {
        return true;
    }
    (void)snprintf(detail, sizeof(detail), "%s must be a number from %lld to %lld", what,
                   (long long)min, (long long)max);
    (void)cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, text, detail);
    return false;
}

void cli_pause(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L};
    (void)nanosleep(&t, NULL);
}

/* ---- The client ----------------------------------------------------------------------------- */

static enum cli_exit set_option(struct cli *cli, struct ferry_conf *conf, const char *name,
                                const char *value)
{
    char detail[DETAIL_BYTES] = "";
    enum ferry_err err = ferry_conf_set(conf, name, value, detail, sizeof(detail));
    return err != FERRY_OK ? cli_fail(cli, err, name, detail) : CLI_EXIT_OK;
}

/* "name=value" of one --set. */
static enum cli_exit set_assignment(struct cli *cli, struct ferry_conf *conf, const char *text)
{
    char name[128];
    size_t length = strcspn(text, "=");
    if (text[length] != '=' || length == 0 || length >= sizeof(name)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, text, "--set takes NAME=VALUE");
    }
    memcpy(name, text, length);
    name[length] = '\0';
    return set_option(cli, conf, name, text + length + 1);
}

static enum cli_exit configure(struct cli *cli, struct ferry_conf *conf)
{
    enum cli_exit code = CLI_EXIT_OK;
    const char *servers = args_text(cli->args, OPT_SERVER, NULL);
    if (servers != NULL) {
        code = set_option(cli, conf, "servers", servers);
    }
    for (size_t i = 0; code == CLI_EXIT_OK && args_find(cli->args, OPT_SET, i) != NULL; i++) {
        code = set_assignment(cli, conf, args_find(cli->args, OPT_SET, i)->values[0]);
    }
    return code;
}

/* The client's own threads must not be the ones that a signal interrupts: a wait of the command has
 * to end with EINTR. They inherit the mask that holds while they are made. */
static enum ferry_err open_with_signals_blocked(struct cli *cli, struct ferry_conf **conf,
                                                char *detail, size_t detail_bytes)
{
    sigset_t all, before;
    sigfillset(&all);
    must(pthread_sigmask(SIG_BLOCK, &all, &before) == 0);
    enum ferry_err err = ferry_open(&cli->client, conf, detail, detail_bytes);
    must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return err;
}

enum cli_exit cli_connect(struct cli *cli, ferry_report_cb *callback, void *arg)
{
    must(cli->client == NULL);
    struct ferry_conf *conf = NULL;
    char detail[DETAIL_BYTES] = "";
    enum ferry_err err = ferry_conf_new(&conf);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    enum cli_exit code = configure(cli, conf);
    if (code == CLI_EXIT_OK) {
        if (callback != NULL) {
            ferry_conf_on_report(conf, callback, arg);
        }
        err = open_with_signals_blocked(cli, &conf, detail, sizeof(detail));
        code = err != FERRY_OK ? cli_fail(cli, err, NULL, detail) : CLI_EXIT_OK;
    }
    ferry_conf_free(&conf);
    return code;
}

enum cli_exit cli_finish(struct cli *cli, enum cli_exit code)
{
    ferry_close(&cli->client, CLOSE_TIMEOUT_MS);
    if (!output_flush() && errno != EPIPE && code == CLI_EXIT_OK) {
        fprintf(stderr, "ferry: writing to standard output failed: %s\n", strerror(errno));
        return CLI_EXIT_FAILED;
    }
    return code;
}
