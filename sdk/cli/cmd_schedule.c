/* cmd_schedule: schedule list, add and cancel. Delayed messages are added as by produce. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/schedule_text.h"

#define LIST_COUNT_DEFAULT 100
#define PAGE               1000
#define PAYLOAD_BYTES_MAX  (64u << 20)
#define HEADERS_MAX        64

static const char *topic_of(const struct cli *cli)
{
    return cli->args->positionals[0];
}

/* ---- The list ------------------------------------------------------------------------------- */

struct listing {
    struct ferry_scheduled *scheduled;
    size_t count;
    uint64_t total; /* Waiting, listed or not. */
    struct ferry_recurring *recurring;
    size_t recurring_count;
};

static void print_scheduled(const struct listing *l)
{
    struct output_table table;
    char word[SCHEDULE_TEXT_BYTES], due[FORMAT_TEXT_BYTES], added[FORMAT_TEXT_BYTES];
    output_table_init(&table, "schedule|due|added|>bytes|key");
    for (size_t i = 0; i < l->count; i++) {
        const struct ferry_scheduled *s = &l->scheduled[i];
        schedule_format(&s->schedule, word);
        format_time_ms(s->schedule.due_ms, due);
        format_time_ms(s->added_ms, added);
        output_table_cell(&table, "%s", word);
        output_table_cell(&table, "%s", due);
        output_table_cell(&table, "%s", added);
        output_table_count(&table, s->record_bytes);
        output_table_cell(&table, "%s", s->key[0] != '\0' ? s->key : "-");
    }
    output_table_print(&table);
    output_table_fini(&table);
    if (l->total > l->count) {
        char total[FORMAT_TEXT_BYTES];
        format_count((int64_t)l->total, total);
        printf("(%zu of %s; --count N shows more)\n", l->count, total);
    }
}

static void print_recurring(const struct listing *l)
{
    struct output_table table;
    char next[FORMAT_TEXT_BYTES];
    output_table_init(&table, "name|>partition|times|zone|next|>fired");
    for (size_t i = 0; i < l->recurring_count; i++) {
        const struct ferry_recurring *r = &l->recurring[i];
        format_time_ms(r->next_ms, next);
        output_table_cell(&table, "%s", r->name);
        output_table_cell(&table, "%d", r->partition);
        output_table_cell(&table, "%s", r->spec);
        output_table_cell(&table, "%s", r->zone[0] != '\0' ? r->zone : "-");
        output_table_cell(&table, "%s", next);
        output_table_count(&table, (int64_t)r->fired);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static json_t *scheduled_json(const struct ferry_scheduled *s)
{
    char word[SCHEDULE_TEXT_BYTES];
    json_t *row = output_object();
    schedule_format(&s->schedule, word);
    output_set_text(row, "schedule", word);
    output_set_int(row, "partition", s->schedule.partition);
    output_set_int(row, "due_ms", s->schedule.due_ms);
    output_set_int(row, "added_ms", s->added_ms);
    output_set_id(row, "id", &s->id);
    output_set_text(row, "key", s->key[0] != '\0' ? s->key : NULL);
    output_set_int(row, "record_bytes", s->record_bytes);
    return row;
}

static json_t *recurring_json(const struct ferry_recurring *r)
{
    json_t *row = output_object();
    output_set_text(row, "name", r->name);
    output_set_int(row, "partition", r->partition);
    output_set_text(row, "times", r->spec);
    output_set_text(row, "zone", r->zone[0] != '\0' ? r->zone : NULL);
    output_set_int(row, "next_ms", r->next_ms);
    output_set_int(row, "fired", (int64_t)r->fired);
    return row;
}

static void print_json(const struct cli *cli, const struct listing *l)
{
    json_t *object = output_object();
    json_t *delayed = json_array(), *recurring = json_array();
    for (size_t i = 0; i < l->count; i++) {
        json_array_append_new(delayed, scheduled_json(&l->scheduled[i]));
    }
    for (size_t i = 0; i < l->recurring_count; i++) {
        json_array_append_new(recurring, recurring_json(&l->recurring[i]));
    }
    output_set_text(object, "topic", topic_of(cli));
    output_set_int(object, "waiting", (int64_t)l->total);
    output_set(object, "delayed", delayed);
    output_set(object, "recurring", recurring);
    output_json(object);
}

enum cli_exit cmd_schedule_list(struct cli *cli)
{
    struct listing l = {.count = 0};
    struct ferry_schedule_id after = {.partition = 0};
    bool more;
    size_t max = (size_t)args_number(cli->args, OPT_COUNT, LIST_COUNT_DEFAULT);
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_schedule_list(cli->client, topic_of(cli), &after, max, cli->timeout_ms, &l.scheduled,
                            &l.count, &more, &l.total);
    if (err == FERRY_OK) {
        err = ferry_recurring_list(cli->client, topic_of(cli), cli->timeout_ms, &l.recurring,
                                   &l.recurring_count);
    }
    if (err == FERRY_OK && cli->json) {
        print_json(cli, &l);
    } else if (err == FERRY_OK) {
        print_scheduled(&l);
        putchar('\n');
        print_recurring(&l);
    }
    ferry_scheduled_free(&l.scheduled);
    ferry_recurring_free(&l.recurring);
    return err != FERRY_OK ? cli_fail(cli, err, topic_of(cli), NULL) : CLI_EXIT_OK;
}

/* ---- Adding a recurring one ----------------------------------------------------------------- */

static enum ferry_err read_payload(struct buf *to)
{
    uint8_t block[65536];
    ssize_t n;
    while ((n = read(STDIN_FILENO, block, sizeof(block))) > 0 && buf_ok(to)) {
        buf_append(to, block, (size_t)n);
    }
    return n < 0 ? FERRY_ERR_IO : buf_ok(to) ? FERRY_OK : FERRY_ERR_TOO_LARGE;
}

/* Headers of the command line; `names` holds their names. */
static bool take_headers(const struct cli *cli, struct ferry_header *headers, char names[][256],
                         size_t *count)
{
    const struct args_option *option;
    for (*count = 0; (option = args_find(cli->args, OPT_HEADER, *count)) != NULL; ++*count) {
        const char *equals = strchr(option->values[0], '=');
        if (equals == NULL || equals == option->values[0] || *count == HEADERS_MAX ||
            equals - option->values[0] > 255) {
            (void)cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, option->values[0],
                           "--header takes k=v, at most 64 times");
            return false;
        }
        (void)snprintf(names[*count], 256, "%.*s", (int)(equals - option->values[0]),
                       option->values[0]);
        headers[*count] = (struct ferry_header){
            .name = names[*count], .value = equals + 1, .value_bytes = strlen(equals + 1)};
    }
    return true;
}

static enum cli_exit set_recurring(struct cli *cli, const char *spec, const char *zone,
                                   struct bytes payload)
{
    struct ferry_header headers[HEADERS_MAX];
    char names[HEADERS_MAX][256];
    size_t header_count;
    const char *name = args_text(cli->args, OPT_NAME, NULL);
    const char *key = args_text(cli->args, OPT_KEY, NULL);
    if (!take_headers(cli, headers, names, &header_count)) {
        return CLI_EXIT_USAGE;
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    const struct ferry_message message = {
        .topic = topic_of(cli),
        .partition = (int32_t)args_number(cli->args, OPT_PARTITION, FERRY_PARTITION_ANY),
        .key = key,
        .key_bytes = key != NULL ? strlen(key) : 0,
        .payload = payload.data,
        .payload_bytes = payload.size,
        .headers = headers,
        .header_count = header_count,
        .priority = (uint32_t)args_number(cli->args, OPT_PRIORITY, 0)};
    enum ferry_err err =
        ferry_recurring_set(cli->client, name, spec, zone, &message, cli->timeout_ms);
    return err != FERRY_OK
               ? cli_fail(cli, err, err == FERRY_ERR_UNKNOWN_TOPIC ? topic_of(cli) : name, NULL)
               : cli_tell_done(cli, "recurring message", name, "set");
}

/* One newline at the end is the shell's, not the message's. */
static enum cli_exit read_and_set(struct cli *cli, const char *spec, const char *zone)
{
    struct buf payload;
    buf_init(&payload, PAYLOAD_BYTES_MAX);
    enum ferry_err err = read_payload(&payload);
    enum cli_exit code;
    if (err != FERRY_OK) {
        code = cli_fail(cli, err, "standard input",
                        err == FERRY_ERR_IO ? strerror(errno) : "longer than any message");
    } else {
        struct bytes bytes = buf_bytes(&payload);
        bytes.size -= bytes.size > 0 && bytes.data[bytes.size - 1] == '\n';
        code = set_recurring(cli, spec, zone, bytes);
    }
    buf_fini(&payload);
    return code;
}

static enum cli_exit add_recurring(struct cli *cli, const char *cron)
{
    char every[64];
    const char *zone = args_text(cli->args, OPT_TZ, NULL);
    if (!args_has(cli->args, OPT_NAME)) {
        return cli_fail(
            cli, FERRY_ERR_INVALID_ARGUMENT, topic_of(cli),
            "a recurring message needs a --name, by which it is replaced and cancelled");
    }
    if (cron != NULL && zone == NULL) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, cron,
                        "--cron needs the clock it is meant by: --tz UTC, or --tz Europe/Berlin");
    }
    if (cron == NULL && zone != NULL) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, zone, "--tz is of --cron");
    }
    int64_t every_ms = args_number(cli->args, OPT_EVERY, 0);
    if (every_ms % 1000 != 0) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, args_text(cli->args, OPT_EVERY, NULL),
                        "--every takes whole seconds");
    }
    (void)snprintf(every, sizeof(every), "@every %llds", (long long)every_ms / 1000);
    return read_and_set(cli, cron != NULL ? cron : every, zone != NULL ? zone : "");
}

enum cli_exit cmd_schedule_add(struct cli *cli)
{
    const char *cron = args_text(cli->args, OPT_CRON, NULL);
    int ways = args_has(cli->args, OPT_AT) + args_has(cli->args, OPT_IN) +
               args_has(cli->args, OPT_EVERY) + (cron != NULL);
    if (ways != 1) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, topic_of(cli),
                        "when? give one of --at, --in, --every and --cron");
    }
    bool recurring = cron != NULL || args_has(cli->args, OPT_EVERY);
    if (!recurring && (args_has(cli->args, OPT_NAME) || args_has(cli->args, OPT_TZ))) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, topic_of(cli),
                        "--name and --tz are of recurring messages");
    }
    return recurring ? add_recurring(cli, cron) : cmd_produce(cli);
}

/* ---- Cancelling ----------------------------------------------------------------------------- */

static enum cli_exit tell_cancelled(const struct cli *cli, size_t asked, size_t done)
{
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "topic", topic_of(cli));
        output_set_int(object, "cancelled", (int64_t)done);
        output_json(object);
    } else {
        printf("%zu of %zu delayed messages cancelled\n", done, asked);
    }
    return done > 0 || asked == 0 ? CLI_EXIT_OK : CLI_EXIT_NOT_FOUND;
}

static enum cli_exit cancel_named(struct cli *cli)
{
    struct ferry_schedule_id schedules[ARGS_OPTIONS_MAX];
    const struct args_option *option;
    size_t count = 0, done = 0;
    while ((option = args_find(cli->args, OPT_SCHEDULE, count)) != NULL) {
        if (!schedule_parse(option->values[0], &schedules[count])) {
            return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, option->values[0],
                            "--schedule takes PARTITION/DUE/NUMBER, as `schedule list` shows it");
        }
        count++;
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_schedule_cancel(cli->client, topic_of(cli), schedules, count, cli->timeout_ms, &done);
    return err != FERRY_OK ? cli_fail(cli, err, topic_of(cli), NULL)
                           : tell_cancelled(cli, count, done);
}

/* A page at a time; what was cancelled is gone from the list. */
static enum ferry_err cancel_page(struct cli *cli, struct ferry_schedule_id *after, size_t *asked,
                                  size_t *done, bool *more)
{
    struct ferry_scheduled *scheduled = NULL;
    struct ferry_schedule_id schedules[PAGE];
    size_t count = 0, page_done = 0;
    enum ferry_err err = ferry_schedule_list(cli->client, topic_of(cli), after, PAGE,
                                             cli->timeout_ms, &scheduled, &count, more, NULL);
    for (size_t i = 0; err == FERRY_OK && i < count; i++) {
        schedules[i] = scheduled[i].schedule;
    }
    if (err == FERRY_OK) {
        err = ferry_schedule_cancel(cli->client, topic_of(cli), schedules, count, cli->timeout_ms,
                                    &page_done);
    }
    *asked += count;
    *done += page_done;
    ferry_scheduled_free(&scheduled);
    return err;
}

static enum cli_exit cancel_all(struct cli *cli)
{
    struct ferry_schedule_id after = {.partition = 0};
    size_t asked = 0, done = 0;
    bool more = true;
    enum ferry_err err = FERRY_OK;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    while (err == FERRY_OK && more && !cli_is_interrupted(cli)) {
        err = cancel_page(cli, &after, &asked, &done, &more);
    }
    return err != FERRY_OK ? cli_fail(cli, err, topic_of(cli), NULL)
                           : tell_cancelled(cli, asked, done);
}

static enum cli_exit cancel_recurring(struct cli *cli)
{
    const char *name = args_text(cli->args, OPT_NAME, NULL);
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_recurring_remove(cli->client, topic_of(cli), name, cli->timeout_ms);
    if (err == FERRY_ERR_UNKNOWN_MESSAGE) {
        return cli_fail(cli, err, name, "the topic has no recurring message of that name");
    }
    return err != FERRY_OK
               ? cli_fail(cli, err, err == FERRY_ERR_UNKNOWN_TOPIC ? topic_of(cli) : name, NULL)
               : cli_tell_done(cli, "recurring message", name, "cancelled");
}

enum cli_exit cmd_schedule_cancel(struct cli *cli)
{
    bool named = args_has(cli->args, OPT_SCHEDULE), all = args_has(cli->args, OPT_ALL);
    bool recurring = args_has(cli->args, OPT_NAME);
    if (named + all + recurring != 1) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, topic_of(cli),
                        "which ones? give --schedule, --all or --name");
    }
    return named ? cancel_named(cli) : all ? cancel_all(cli) : cancel_recurring(cli);
}
