/* cmd_produce: standard input, a record a line.
 *
 * Every line that was read ends in exactly one outcome: a line that the client did not accept is
 * not stored; for the others the client reports. The line's number rides in the message's `opaque`.
 * Reading stops at the end, at an interrupt, or at a refusal that every further line would meet. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/lines.h"
#include "cli/output.h"
#include "cli/schedule_text.h"

#define HEADERS_MAX     64
#define LINE_BYTES_MAX  (64u << 20) /* The client's message.max_bytes is what usually refuses. */
#define REASONS_MAX     16
#define LINES_NAMED_MAX 20  /* Further refused lines are only counted. */
#define POLL_EVERY      256 /* Lines between two looks at the reports. */

struct reason {
    enum ferry_err err;
    int64_t count;
};

struct producing {
    struct cli *cli;
    const char *topic;
    const char *key;
    const char *key_field;
    int64_t due_ms, delay_ms; /* Of delayed ones. */
    int32_t partition;
    uint32_t priority;
    bool tell_schedules; /* A line each on standard output. */
    struct ferry_header headers[HEADERS_MAX];
    char *header_names[HEADERS_MAX]; /* Owned. */
    size_t header_count;

    int64_t lines; /* Read; each gets one outcome. */
    int64_t bytes; /* Of the lines that the client accepted. */
    int64_t stored, duplicates, not_stored, unknown;
    int lines_named; /* Refused lines told one by one so far. */
    struct reason reasons[REASONS_MAX];
    size_t reason_count;
    bool refused;       /* Every further line would be refused alike. */
    bool output_failed; /* A report could not be printed. */
};

/* ---- Outcomes ------------------------------------------------------------------------------- */

static void count_reason(struct producing *p, enum ferry_err err)
{
    size_t i = 0;
    while (i < p->reason_count && p->reasons[i].err != err) {
        i++;
    }
    if (i == p->reason_count && p->reason_count < REASONS_MAX) {
        p->reasons[p->reason_count++] = (struct reason){.err = err};
    }
    if (i < p->reason_count) {
        p->reasons[i].count++;
    }
    enum ferry_class class_ = ferry_err_class(err);
    p->refused = p->refused || class_ == FERRY_CLASS_NOT_FOUND || class_ == FERRY_CLASS_DENIED ||
                 class_ == FERRY_CLASS_FATAL || err == FERRY_ERR_BAD_NAME;
}

static const char *outcome_name(enum ferry_outcome outcome)
{
    static const char *const names[] = {
        [FERRY_STORED] = "stored",
        [FERRY_NOT_STORED] = "not_stored",
        [FERRY_UNKNOWN] = "unknown",
    };
    return names[outcome];
}

static void print_report(struct producing *p, const struct ferry_report *report)
{
    bool stored = report->outcome == FERRY_STORED;
    char schedule[SCHEDULE_TEXT_BYTES];
    json_t *object = output_object();
    output_set(object, "partition",
               report->partition >= 0 ? json_integer(report->partition) : json_null());
    output_set(object, "offset",
               stored && report->offset >= 0 ? json_integer(report->offset) : json_null());
    output_set_bool(object, "duplicate", report->duplicate);
    output_set_text(object, "outcome", outcome_name(report->outcome));
    output_set_int(object, "line", (int64_t)(uintptr_t)report->opaque);
    if (stored && report->schedule.due_ms != 0) {
        schedule_format(&report->schedule, schedule);
        output_set_text(object, "schedule", schedule);
        output_set_int(object, "due_ms", report->schedule.due_ms);
    }
    if (report->err != FERRY_OK) {
        output_set_text(object, "error", ferry_err_name(report->err));
    }
    p->output_failed = !output_json(object) || p->output_failed;
}

/* The schedule is what `schedule cancel` asks for. */
static void print_schedule(struct producing *p, const struct ferry_report *report)
{
    char schedule[SCHEDULE_TEXT_BYTES];
    if (report->outcome == FERRY_STORED && report->schedule.due_ms != 0) {
        schedule_format(&report->schedule, schedule);
        p->output_failed = puts(schedule) == EOF || p->output_failed;
    }
}

static void on_report(const struct ferry_report *report, void *arg)
{
    struct producing *p = arg;
    switch (report->outcome) {
    case FERRY_STORED:
        p->stored++;
        p->duplicates += report->duplicate;
        break;
    case FERRY_NOT_STORED:
        p->not_stored++;
        count_reason(p, report->err);
        break;
    case FERRY_UNKNOWN:
        p->unknown++;
        count_reason(p, report->err);
        break;
    }
    if (p->cli->json) {
        print_report(p, report);
    } else if (p->tell_schedules) {
        print_schedule(p, report);
    }
}

/* A line that never reached the client ends here, like one that the broker refused. */
static void refuse_line(struct producing *p, uint64_t number, enum ferry_err err, const char *why)
{
    if (p->lines_named < LINES_NAMED_MAX) {
        char subject[64];
        snprintf(subject, sizeof(subject), "line %llu", (unsigned long long)number);
        cli_warn(p->cli, err, subject, why);
        p->lines_named++;
    }
    const struct ferry_report report = {.outcome = FERRY_NOT_STORED,
                                        .err = err,
                                        .topic = p->topic,
                                        .partition = -1,
                                        .offset = -1,
                                        .opaque = (void *)(uintptr_t)number};
    on_report(&report, p);
}

/* ---- Sending -------------------------------------------------------------------------------- */

/* Sends one line, waiting while the queue is full. False when it was given up (interrupt). */
static bool send_line(struct producing *p, struct ferry_message *message, uint64_t number)
{
    message->opaque = (void *)(uintptr_t)number;
    enum ferry_err err = ferry_send(p->cli->client, message);
    while (err == FERRY_ERR_QUEUE_FULL && !cli_is_interrupted(p->cli)) {
        ferry_poll(p->cli->client, CLI_TURN_MS);
        err = ferry_send(p->cli->client, message);
    }
    if (err == FERRY_OK) {
        p->bytes += (int64_t)message->payload_bytes;
    } else if (err == FERRY_ERR_QUEUE_FULL) {
        p->lines--; /* Taken back: it was not sent, and the summary counts lines sent. */
        return false;
    } else {
        refuse_line(p, number, err, NULL);
    }
    return true;
}

/* The key from the line's own JSON. `*object` keeps the text alive and must be released. NULL, with
 * the reason, when there is none. */
static const char *key_from_json(struct bytes line, const char *field, json_t **object,
                                 char number[FORMAT_TEXT_BYTES], const char **why)
{
    json_error_t error;
    *object = json_loadb((const char *)line.data, line.size, JSON_ALLOW_NUL, &error);
    const json_t *value = json_object_get(*object, field);
    if (!json_is_object(*object)) {
        *why = "not a JSON object, so it has no key; the line is not stored";
    } else if (json_is_string(value)) {
        return json_string_value(value);
    } else if (json_is_integer(value)) {
        snprintf(number, FORMAT_TEXT_BYTES, "%lld", (long long)json_integer_value(value));
        return number;
    } else {
        *why = value == NULL ? "the object lacks the field of --key-json; the line is not stored"
                             : "the field of --key-json is neither text nor a whole number; the "
                               "line is not stored";
    }
    return NULL;
}

static bool send_keyed(struct producing *p, struct ferry_message *message, struct bytes line,
                       uint64_t number)
{
    json_t *object = NULL;
    const char *why = NULL;
    char text[FORMAT_TEXT_BYTES];
    bool go_on = true;
    const char *key = key_from_json(line, p->key_field, &object, text, &why);
    if (key == NULL) {
        refuse_line(p, number, FERRY_ERR_INVALID_ARGUMENT, why);
    } else {
        message->key = key;
        message->key_bytes =
            key == text ? strlen(text) : json_string_length(json_object_get(object, p->key_field));
        go_on = send_line(p, message, number);
    }
    json_decref(object);
    return go_on;
}

static bool take_line(struct producing *p, struct bytes line, uint64_t number)
{
    struct ferry_message message = {
        .topic = p->topic,
        .partition = p->partition,
        .due_ms = p->due_ms,
        .delay_ms = p->delay_ms,
        .priority = p->priority,
        .key = p->key,
        .key_bytes = p->key != NULL ? strlen(p->key) : 0,
        .payload = line.data,
        .payload_bytes = line.size,
        .headers = p->headers,
        .header_count = p->header_count,
    };
    p->lines++;
    return p->key_field != NULL ? send_keyed(p, &message, line, number)
                                : send_line(p, &message, number);
}

/* Waits until there is input or a report, and takes what there is. */
static enum ferry_err wait_for_input(struct producing *p, struct lines *lines)
{
    struct pollfd fds[2] = {{.fd = lines->fd, .events = POLLIN},
                            {.fd = ferry_fd(p->cli->client), .events = POLLIN}};
    int ready = poll(fds, 2, CLI_TURN_MS);
    ferry_poll(p->cli->client, 0);
    if (fds[0].revents == 0 && p->cli->json) {
        p->output_failed = !output_flush() || p->output_failed; /* A report "as it comes". */
    }
    return ready > 0 && fds[0].revents != 0 ? lines_fill(lines) : FERRY_OK;
}

static enum ferry_err read_all(struct producing *p, struct lines *lines)
{
    enum ferry_err err = FERRY_OK;
    bool go_on = true;
    while (err == FERRY_OK && go_on && !p->refused && !cli_is_interrupted(p->cli)) {
        struct bytes line;
        switch (lines_next(lines, &line)) {
        case LINES_LINE:
            go_on = take_line(p, line, lines->number);
            break;
        case LINES_TOO_LONG:
            p->lines++;
            refuse_line(p, lines->number, FERRY_ERR_TOO_LARGE, NULL);
            break;
        case LINES_MORE:
            err = wait_for_input(p, lines);
            break;
        case LINES_END:
            return FERRY_OK;
        }
        if (lines->number % POLL_EVERY == 0) {
            ferry_poll(p->cli->client, 0);
        }
    }
    return err;
}

/* Every accepted message gets its outcome: delivery.timeout_ms of the client bounds the wait. */
static void flush_all(struct producing *p)
{
    while (ferry_flush(p->cli->client, CLI_TURN_MS) == FERRY_ERR_TIMEOUT) {
        if (p->cli->json) {
            p->output_failed = !output_flush() || p->output_failed;
        }
    }
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

static enum cli_exit take_headers(struct producing *p)
{
    const struct args_option *option;
    while ((option = args_find(p->cli->args, OPT_HEADER, p->header_count)) != NULL) {
        const char *text = option->values[0];
        const char *equals = strchr(text, '=');
        if (equals == NULL || equals == text) {
            return cli_fail(p->cli, FERRY_ERR_BAD_OPTION_VALUE, text, "--header takes k=v");
        }
        if (p->header_count == HEADERS_MAX) {
            return cli_fail(p->cli, FERRY_ERR_LIMIT_REACHED, text, "more than 64 headers");
        }
        char *name = mem_strdup(text);
        if (name == NULL) {
            return cli_fail(p->cli, FERRY_ERR_NO_MEMORY, NULL, NULL);
        }
        name[equals - text] = '\0';
        p->header_names[p->header_count] = name;
        p->headers[p->header_count++] = (struct ferry_header){
            .name = name, .value = equals + 1, .value_bytes = strlen(equals + 1)};
    }
    return CLI_EXIT_OK;
}

static void print_summary(const struct producing *p, int64_t elapsed_us)
{
    char stored[FORMAT_TEXT_BYTES], size[FORMAT_TEXT_BYTES], rate[FORMAT_TEXT_BYTES];
    double seconds = elapsed_us > 0 ? (double)elapsed_us / 1e6 : 1e-6;
    char lines[FORMAT_TEXT_BYTES];
    format_count(p->stored, stored);
    format_count(p->lines, lines);
    format_size(p->bytes, size);
    format_count((int64_t)((double)p->stored / seconds), rate);
    fprintf(stderr, "%s of %s records stored, %s in %.3f s, %s records/s", stored, lines, size,
            seconds, rate);
    fprintf(stderr, "; %lld duplicates, %lld not stored, %lld unknown\n", (long long)p->duplicates,
            (long long)p->not_stored, (long long)p->unknown);
}

/* One reason for all failures is the command's own; several are "failed". */
static enum cli_exit conclude(const struct producing *p, int64_t elapsed_us)
{
    output_flush();
    if (!p->cli->quiet) {
        print_summary(p, elapsed_us);
    }
    for (size_t i = 0; i < p->reason_count; i++) {
        char detail[ERR_TEXT_MAX];
        snprintf(detail, sizeof(detail), "%lld lines: %s", (long long)p->reasons[i].count,
                 ferry_err_text(p->reasons[i].err));
        cli_warn(p->cli, p->reasons[i].err, p->topic, detail);
    }
    if (p->output_failed) {
        fputs("ferry: produce: standard output could not be written: reports are missing\n",
              stderr);
        return CLI_EXIT_FAILED;
    }
    if (p->reason_count == 1 && ferry_err_class(p->reasons[0].err) != FERRY_CLASS_USAGE) {
        return cli_exit_of(p->reasons[0].err);
    }
    return p->not_stored + p->unknown > 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

static enum cli_exit produce(struct producing *p)
{
    int32_t partitions;
    enum cli_exit code = cli_connect(p->cli, on_report, p);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    /* Ask before reading: with no broker there, standard input stays unread. An unknown topic is
     * told by the first report, for a broker may make topics on first use. */
    enum ferry_err err =
        ferry_topic_partitions(p->cli->client, p->topic, p->cli->timeout_ms, &partitions);
    if (err != FERRY_OK && err != FERRY_ERR_UNKNOWN_TOPIC) {
        return cli_fail(p->cli, err, p->topic, NULL);
    }
    struct lines lines;
    lines_init(&lines, STDIN_FILENO, LINE_BYTES_MAX);
    int64_t began_us = clock_monotonic_us();
    err = read_all(p, &lines);
    const char *why = err == FERRY_ERR_IO ? strerror(errno) : NULL;
    flush_all(p);
    lines_fini(&lines);
    code = conclude(p, clock_monotonic_us() - began_us);
    return err != FERRY_OK ? cli_fail(p->cli, err, "standard input", why) : code;
}

static enum cli_exit take_time(struct producing *p)
{
    const char *at = args_text(p->cli->args, OPT_AT, NULL);
    int64_t now_ms = clock_wall_ms();
    p->delay_ms = args_number(p->cli->args, OPT_IN, 0);
    if (at == NULL) {
        return CLI_EXIT_OK;
    }
    if (p->delay_ms != 0) {
        return cli_fail(p->cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "--at and --in exclude each other: give one");
    }
    if (!format_parse_time_ms(at, now_ms, &p->due_ms) || p->due_ms <= now_ms) {
        return cli_fail(p->cli, FERRY_ERR_BAD_OPTION_VALUE, at,
                        "--at takes a time to come such as 2026-12-31T09:00:00Z; for a while from "
                        "now: --in 10m");
    }
    return CLI_EXIT_OK;
}

enum cli_exit cmd_produce(struct cli *cli)
{
    struct producing p = {
        .cli = cli,
        .partition = (int32_t)args_number(cli->args, OPT_PARTITION, FERRY_PARTITION_ANY),
        .priority = (uint32_t)args_number(cli->args, OPT_PRIORITY, 0),
        .tell_schedules = cli->args->command == COMMAND_SCHEDULE_ADD,
        .topic = cli->args->positionals[0],
        .key = args_text(cli->args, OPT_KEY, NULL),
        .key_field = args_text(cli->args, OPT_KEY_JSON, NULL),
    };
    if (p.key != NULL && p.key_field != NULL) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "--key and --key-json exclude each "
                        "other: give one");
    }
    enum cli_exit code = take_time(&p);
    if (code == CLI_EXIT_OK) {
        code = take_headers(&p);
    }
    if (code == CLI_EXIT_OK) {
        code = produce(&p);
    }
    ferry_close(&cli->client, 0); /* Its reports would come to `p`. */
    for (size_t i = 0; i < p.header_count; i++) {
        mem_free(p.header_names[i]);
    }
    return code;
}
