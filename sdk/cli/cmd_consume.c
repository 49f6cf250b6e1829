/* cmd_consume: records to standard output.
 *
 * A position is committed only after the records before it were written out: a crash in between
 * prints some records again and loses none. Output is written when the buffer is full, when nothing
 * more is there at once, and at the end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/cmd_receive.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/record_text.h"
#include "cli/subscription_words.h"

#define COMMIT_EVERY_US INT64_C(1000000)

struct consuming {
    struct cli *cli;
    struct ferry_consumer *consumer;
    const char *topic;
    const char *subscription; /* NULL: positions are not kept. */
    const char *member;       /* NULL: not in a group. */
    struct place from;
    int64_t count_max;    /* INT64_MAX: no limit. */
    int64_t idle_exit_us; /* 0: never. */

    int32_t partitions;
    int64_t *positions; /* By partition: one past the last record printed; -1: none since commit. */
    int64_t records, bytes;
    int64_t last_record_us;
    int64_t next_commit_us;
    bool unwritten;  /* Records are in the buffer. */
    int write_errno; /* Why standard output failed. */
};

static void on_assignment(struct ferry_consumer *consumer, int32_t partition, bool given,
                          void *arg);

/* ---- Where to begin ------------------------------------------------------------------------- */

static enum cli_exit parse_from(struct consuming *c)
{
    const char *text = args_text(c->cli->args, OPT_FROM, "start");
    return place_parse(text, clock_wall_ms(), &c->from)
               ? CLI_EXIT_OK
               : cli_fail(c->cli, FERRY_ERR_BAD_OPTION_VALUE, text, "--from " PLACE_FORMS);
}

/* A committed position goes before --from; by the time the consumer is open nobody can tell whether
 * there was one, so it is asked before. */
static enum ferry_err has_position(struct consuming *c, bool *has)
{
    struct ferry_subscription_info *info = NULL;
    *has = false;
    if (c->subscription == NULL) {
        return FERRY_OK;
    }
    enum ferry_err err = ferry_subscription_info(c->cli->client, c->topic, c->subscription,
                                                 c->cli->timeout_ms, &info);
    *has = err == FERRY_OK;
    ferry_subscription_info_free(&info);
    return err == FERRY_ERR_UNKNOWN_SUBSCRIPTION ? FERRY_OK : err;
}

static enum ferry_err seek_to_time(struct consuming *c)
{
    enum ferry_err err = FERRY_OK;
    for (int32_t i = 0; err == FERRY_OK && i < c->partitions; i++) {
        err = ferry_consumer_seek_time(c->consumer, i, c->from.time_ms, c->cli->timeout_ms);
    }
    return err;
}

/* With a name it joins the group of those who read for the subscription. */
static enum ferry_err open_or_join(struct consuming *c)
{
    const struct ferry_join_spec spec = {.member = c->member};
    if (c->member == NULL) {
        return ferry_consumer_open(&c->consumer, c->cli->client, c->topic, c->subscription,
                                   c->from.offset, c->cli->timeout_ms);
    }
    enum ferry_err err =
        ferry_consumer_join(&c->consumer, c->cli->client, c->topic, c->subscription, c->from.offset,
                            &spec, c->cli->timeout_ms);
    if (err == FERRY_OK) {
        ferry_consumer_on_assignment(c->consumer, on_assignment, c);
    }
    return err;
}

static enum ferry_err open_consumer(struct consuming *c)
{
    bool positioned = false;
    enum ferry_err err = FERRY_OK;
    if (c->from.is_time) {
        err = has_position(c, &positioned);
    }
    if (err == FERRY_OK) {
        err = open_or_join(c);
    }
    if (err != FERRY_OK) {
        return err;
    }
    c->partitions = ferry_consumer_partitions(c->consumer);
    c->positions = mem_zalloc((size_t)c->partitions, sizeof(c->positions[0]));
    if (c->positions == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < c->partitions; i++) {
        c->positions[i] = -1;
    }
    return c->from.is_time && !positioned ? seek_to_time(c) : FERRY_OK;
}

/* ---- Printing ------------------------------------------------------------------------------- */

/* Prints the batch, or as much of it as --count allows. */
static enum ferry_err print_batch(struct consuming *c, struct ferry_batch *batch)
{
    size_t count = ferry_batch_count(batch);
    int64_t left = c->count_max - c->records;
    size_t wanted = (int64_t)count < left ? count : (size_t)left;
    for (size_t i = 0; i < wanted; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        if (!(c->cli->json ? record_print_json(&record) : record_print_payload(&record))) {
            c->write_errno = errno;
            return FERRY_ERR_IO;
        }
        c->records++;
        c->bytes += (int64_t)record.payload_bytes;
        c->positions[record.partition] = record.offset + 1;
    }
    if (wanted == count) { /* Offsets after the last record may have been dropped. */
        c->positions[ferry_batch_partition(batch)] = ferry_batch_next_offset(batch);
    }
    c->unwritten = true;
    c->last_record_us = clock_monotonic_us();
    return FERRY_OK;
}

/* ---- Writing out and committing ------------------------------------------------------------- */

static enum ferry_err write_out(struct consuming *c)
{
    if (c->unwritten && !output_flush()) {
        c->write_errno = errno;
        return FERRY_ERR_IO;
    }
    c->unwritten = false;
    return FERRY_OK;
}

/* What was printed of a partition that another member has now was theirs to print again: it is not
 * committed, and that is no failure. */
static enum ferry_err commit_partition(struct consuming *c, int32_t partition)
{
    if (c->positions[partition] < 0) {
        return FERRY_OK;
    }
    enum ferry_err err =
        ferry_consumer_commit(c->consumer, partition, c->positions[partition], c->cli->timeout_ms);
    bool gone = err == FERRY_ERR_MEMBER_FENCED && c->member != NULL &&
                !ferry_consumer_has(c->consumer, partition);
    if (err == FERRY_OK || gone) {
        c->positions[partition] = -1;
        err = FERRY_OK;
    }
    return err;
}

static enum ferry_err commit(struct consuming *c)
{
    enum ferry_err err = write_out(c);
    for (int32_t i = 0; err == FERRY_OK && c->subscription != NULL && i < c->partitions; i++) {
        err = commit_partition(c, i);
    }
    c->next_commit_us = clock_monotonic_us() + COMMIT_EVERY_US;
    return err;
}

/* A partition that is to go is committed first: who has it next goes on where this one stops. An
 * error is met again by the next commit, which tells it. */
static void on_assignment(struct ferry_consumer *consumer, int32_t partition, bool given, void *arg)
{
    struct consuming *c = arg;
    (void)consumer;
    if (!given && c->positions != NULL && write_out(c) == FERRY_OK) {
        (void)commit_partition(c, partition);
    }
}

/* ---- The loop ------------------------------------------------------------------------------- */

static bool is_idle_too_long(const struct consuming *c)
{
    return c->idle_exit_us > 0 && clock_monotonic_us() - c->last_record_us >= c->idle_exit_us;
}

/* Nothing was there at once: what is buffered leaves, and only then is waiting worth anything. */
static enum ferry_err handle_quiet(struct consuming *c, bool *done)
{
    bool had = c->unwritten;
    enum ferry_err err = had ? commit(c) : FERRY_OK;
    *done = err == FERRY_OK && is_idle_too_long(c);
    return err;
}

/* Records that retention dropped before they were read are a loss for this reader: say so. Only one
 * who asked for that very offset is stopped by it. */
static enum ferry_err handle_jump(struct consuming *c)
{
    bool asked = !c->from.is_time && c->from.offset >= 0 && c->records == 0;
    if (asked && args_has(c->cli->args, OPT_FROM)) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    cli_warn(c->cli, FERRY_ERR_OFFSET_OUT_OF_RANGE, c->topic,
             "records were dropped by retention before they were read here; going on at the log's "
             "start");
    return FERRY_OK;
}

static enum ferry_err consume_once(struct consuming *c, bool *done)
{
    struct ferry_batch *batch = NULL;
    enum ferry_err err = ferry_consumer_fetch(c->consumer, c->unwritten ? 0 : CLI_TURN_MS, &batch);
    if (err == FERRY_ERR_TIMEOUT) {
        return handle_quiet(c, done);
    }
    if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
        return handle_jump(c);
    }
    if (err != FERRY_OK) {
        return err;
    }
    err = print_batch(c, batch);
    ferry_batch_free(&batch);
    if (err == FERRY_OK && clock_monotonic_us() >= c->next_commit_us) {
        err = commit(c);
    }
    *done = c->records >= c->count_max;
    return err;
}

static enum ferry_err consume_all(struct consuming *c)
{
    bool done = false;
    enum ferry_err err = FERRY_OK;
    c->last_record_us = clock_monotonic_us();
    c->next_commit_us = c->last_record_us + COMMIT_EVERY_US;
    while (err == FERRY_OK && !done && !cli_is_interrupted(c->cli)) {
        err = consume_once(c, &done);
    }
    return err == FERRY_OK ? commit(c) : err;
}

static void print_summary(const struct consuming *c, int64_t elapsed_us)
{
    char records[FORMAT_TEXT_BYTES], size[FORMAT_TEXT_BYTES], rate[FORMAT_TEXT_BYTES];
    double seconds = elapsed_us > 0 ? (double)elapsed_us / 1e6 : 1e-6;
    format_count(c->records, records);
    format_size(c->bytes, size);
    format_count((int64_t)((double)c->records / seconds), rate);
    fprintf(stderr, "%s records, %s in %.3f s, %s records/s\n", records, size, seconds, rate);
}

/* A reader that has seen enough closes the pipe (`| head`): the end, but not a failure. What it did
 * not take is not committed. */
static enum cli_exit conclude(struct consuming *c, enum ferry_err err, int64_t elapsed_us)
{
    if (c->write_errno == EPIPE) {
        return CLI_EXIT_OK;
    }
    if (c->write_errno != 0) {
        return cli_fail(c->cli, err, "standard output", strerror(c->write_errno));
    }
    output_flush();
    if (!c->cli->quiet) {
        print_summary(c, elapsed_us);
    }
    return err != FERRY_OK ? cli_fail(c->cli, err, c->topic, NULL) : CLI_EXIT_OK;
}

/* ---- Which mode ----------------------------------------------------------------------------- */

/* What is of leases only, or of a group only, is refused elsewhere. */
static enum cli_exit check_options(const struct consuming *c, enum ferry_mode mode)
{
    const struct args *args = c->cli->args;
    if (mode == FERRY_MODE_STREAM &&
        (args_has(args, OPT_ACK) || args_has(args, OPT_NACK_EVERY) || args_has(args, OPT_LEASE))) {
        return cli_fail(c->cli, FERRY_ERR_INVALID_ARGUMENT, c->topic,
                        "--ack, --nack-every and --lease are of --mode queue and keyed");
    }
    if (c->subscription == NULL && (mode != FERRY_MODE_STREAM || c->member != NULL)) {
        return cli_fail(c->cli, FERRY_ERR_INVALID_ARGUMENT, c->topic,
                        "--subscription is needed: whose messages are shared?");
    }
    return CLI_EXIT_OK;
}

/* As the command line says, else as the subscription is, else a stream. */
static enum cli_exit find_mode(struct consuming *c, enum ferry_mode *mode)
{
    struct ferry_subscription_info *info = NULL;
    const char *given = args_text(c->cli->args, OPT_MODE, NULL);
    *mode = FERRY_MODE_STREAM;
    if (given != NULL) {
        return subscription_parse_mode(given, mode)
                   ? CLI_EXIT_OK
                   : cli_fail(c->cli, FERRY_ERR_BAD_OPTION_VALUE, given, SUBSCRIPTION_MODE_FORMS);
    }
    if (c->subscription != NULL &&
        ferry_subscription_info(c->cli->client, c->topic, c->subscription, c->cli->timeout_ms,
                                &info) == FERRY_OK) {
        *mode = info->spec.mode != 0 ? info->spec.mode : FERRY_MODE_STREAM;
        ferry_subscription_info_free(&info);
    }
    return CLI_EXIT_OK;
}

static enum cli_exit consume_stream(struct consuming *c)
{
    int64_t began_us = clock_monotonic_us();
    enum cli_exit code = parse_from(c);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = open_consumer(c);
    if (err != FERRY_OK) {
        code = cli_fail(c->cli, err, c->topic, NULL);
    } else {
        err = consume_all(c);
        code = conclude(c, err, clock_monotonic_us() - began_us);
    }
    ferry_consumer_close(&c->consumer);
    mem_free(c->positions);
    return code;
}

enum cli_exit cmd_consume(struct cli *cli)
{
    struct consuming c = {
        .cli = cli,
        .topic = cli->args->positionals[0],
        .subscription = args_text(cli->args, OPT_SUBSCRIPTION, NULL),
        .member = args_text(cli->args, OPT_MEMBER, NULL),
        .count_max = args_number(cli->args, OPT_COUNT, INT64_MAX),
        .idle_exit_us = args_number(cli->args, OPT_IDLE_EXIT, 0) * 1000,
    };
    enum ferry_mode mode;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code == CLI_EXIT_OK) {
        code = find_mode(&c, &mode);
    }
    if (code == CLI_EXIT_OK) {
        code = check_options(&c, mode);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    return mode == FERRY_MODE_STREAM ? consume_stream(&c) : receive_run(cli, mode);
}
