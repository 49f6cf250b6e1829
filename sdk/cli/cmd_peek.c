/* cmd_peek: shows records, and no subscription knows of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/record_text.h"

#define COUNT_DEFAULT 10

struct peeking {
    struct cli *cli;
    struct ferry_consumer *consumer;
    const char *topic;
    const char *key;   /* NULL: any. */
    int32_t partition; /* -1: all. */
    int64_t offset;    /* FERRY_FROM_START or an offset. */
    int64_t time_ms;   /* -1: by offset. */
    int64_t left;      /* Records still wanted. */
    bool output_failed;
};

/* ---- Where ---------------------------------------------------------------------------------- */

/* At most one of the ways to say where. */
static enum cli_exit take_place(struct peeking *p)
{
    const struct args *args = p->cli->args;
    const char *time = args_text(args, OPT_TIME, NULL);
    if (args_has(args, OPT_OFFSET) + (time != NULL) + args_has(args, OPT_ID) > 1) {
        return cli_fail(p->cli, FERRY_ERR_INVALID_ARGUMENT, p->topic,
                        "--offset, --time and --id exclude each other: give one");
    }
    p->offset = args_number(args, OPT_OFFSET, FERRY_FROM_START);
    if (time != NULL && !format_parse_time_ms(time, clock_wall_ms(), &p->time_ms)) {
        return cli_fail(p->cli, FERRY_ERR_BAD_OPTION_VALUE, time,
                        "--time takes a time such as 2026-01-31T09:00:00Z, or an age such as 10m");
    }
    return CLI_EXIT_OK;
}

/* By id: it is in one place. */
static enum cli_exit find_id(struct peeking *p, const char *text)
{
    struct ferry_id id;
    if (!ferry_id_parse(text, &id)) {
        return cli_fail(p->cli, FERRY_ERR_BAD_OPTION_VALUE, text,
                        "--id takes a message id such as 018f2d4c-7b1a-7c3e-9f00-0123456789ab");
    }
    enum ferry_err err = ferry_message_find(p->cli->client, p->topic, &id, p->cli->timeout_ms,
                                            &p->partition, &p->offset);
    p->left = 1;
    return err != FERRY_OK
               ? cli_fail(p->cli, err, err == FERRY_ERR_UNKNOWN_TOPIC ? p->topic : text, NULL)
               : CLI_EXIT_OK;
}

static enum ferry_err seek(struct peeking *p, int32_t partition)
{
    return p->time_ms >= 0
               ? ferry_consumer_seek_time(p->consumer, partition, p->time_ms, p->cli->timeout_ms)
               : ferry_consumer_seek(p->consumer, partition, p->offset);
}

/* Opened at the end, so that partitions not asked for are not read. Dead letters have no end to be
 * opened at: there they are read and passed over. */
static enum ferry_err open_consumer(struct peeking *p)
{
    enum ferry_err err = ferry_consumer_open(&p->consumer, p->cli->client, p->topic, NULL,
                                             FERRY_FROM_END, p->cli->timeout_ms);
    if (err == FERRY_ERR_INVALID_ARGUMENT) {
        err = ferry_consumer_open(&p->consumer, p->cli->client, p->topic, NULL, FERRY_FROM_START,
                                  p->cli->timeout_ms);
    }
    if (err != FERRY_OK) {
        return err;
    }
    int32_t count = ferry_consumer_partitions(p->consumer);
    if (p->key != NULL && p->partition < 0) {
        p->partition = ferry_partition_of_key(p->key, strlen(p->key), count);
    }
    if (p->partition >= count) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    for (int32_t i = 0; err == FERRY_OK && i < count; i++) {
        err = p->partition < 0 || p->partition == i ? seek(p, i) : FERRY_OK;
    }
    return err;
}

/* ---- Showing -------------------------------------------------------------------------------- */

static bool is_wanted(const struct peeking *p, const struct ferry_record *record)
{
    if (p->partition >= 0 && record->partition != p->partition) {
        return false;
    }
    return p->key == NULL || (record->key_bytes == strlen(p->key) && record->key != NULL &&
                              memcmp(record->key, p->key, record->key_bytes) == 0);
}

static void show_batch(struct peeking *p, struct ferry_batch *batch)
{
    for (size_t i = 0; i < ferry_batch_count(batch) && p->left > 0 && !p->output_failed; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        if (is_wanted(p, &record)) {
            p->output_failed =
                !(p->cli->json ? record_print_json(&record) : record_print_place(&record));
            p->left--;
        }
    }
}

/* Records may be dropped between asking and reading: who did not name one goes on at the start as
 * it is then. */
static bool is_harmless(const struct peeking *p, enum ferry_err err)
{
    bool named = args_has(p->cli->args, OPT_OFFSET) || args_has(p->cli->args, OPT_ID);
    return err == FERRY_ERR_TIMEOUT || (err == FERRY_ERR_OFFSET_OUT_OF_RANGE && !named);
}

static enum ferry_err show_all(struct peeking *p)
{
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && p->left > 0 && !p->output_failed &&
           !ferry_consumer_at_end(p->consumer) && !cli_is_interrupted(p->cli)) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(p->consumer, CLI_TURN_MS, &batch);
        if (err == FERRY_OK) {
            show_batch(p, batch);
            ferry_batch_free(&batch);
        } else if (is_harmless(p, err)) {
            err = FERRY_OK;
        }
    }
    return err;
}

static enum cli_exit peek(struct peeking *p)
{
    enum ferry_err err = open_consumer(p);
    if (err == FERRY_OK) {
        err = show_all(p);
    }
    ferry_consumer_close(&p->consumer);
    if (p->output_failed && errno == EPIPE) {
        return CLI_EXIT_OK;
    }
    return err != FERRY_OK ? cli_fail(p->cli, err, p->topic, NULL) : CLI_EXIT_OK;
}

enum cli_exit cmd_peek(struct cli *cli)
{
    struct peeking p = {.cli = cli,
                        .topic = cli->args->positionals[0],
                        .key = args_text(cli->args, OPT_KEY, NULL),
                        .partition = (int32_t)args_number(cli->args, OPT_PARTITION, -1),
                        .time_ms = -1,
                        .left = args_number(cli->args, OPT_COUNT, COUNT_DEFAULT)};
    const char *id = args_text(cli->args, OPT_ID, NULL);
    enum cli_exit code = take_place(&p);
    if (code == CLI_EXIT_OK) {
        code = cli_connect(cli, NULL, NULL);
    }
    if (code == CLI_EXIT_OK && id != NULL) {
        code = find_id(&p, id);
    }
    return code == CLI_EXIT_OK ? peek(&p) : code;
}
