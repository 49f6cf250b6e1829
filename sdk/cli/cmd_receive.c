/* cmd_receive: `consume` of subscriptions of mode queue and keyed.
 *
 * A message is acked only after its line was written out: a crash in between prints it again and
 * loses nothing. With --ack none nothing is settled, and the command ends as a reader that dies:
 * what it held comes again when the leases end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cmd_receive.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/record_text.h"

#define AT_ONCE     256
#define NACK_REASON "consume --nack-every"

struct receiving {
    struct cli *cli;
    struct ferry_receiver *receiver;
    const char *topic, *subscription;
    bool settles; /* Not --ack none. */
    int64_t nack_every, count_max, idle_exit_us;

    int64_t records, bytes, nacked, not_settled;
    enum ferry_err settle_err; /* Of the first that failed. */
    int64_t last_record_us;
    int write_errno; /* Why standard output failed. */
};

/* ---- One turn ------------------------------------------------------------------------------- */

static bool print_delivery(const struct receiving *r, const struct ferry_delivery *delivery)
{
    if (!r->cli->json) {
        return record_print_payload(&delivery->record);
    }
    json_t *object = record_json(&delivery->record);
    output_set_int(object, "handed_out", delivery->handed_out);
    output_set_int(object, "failed", delivery->failed);
    return output_json(object);
}

/* Lines first, all of them on their way out of the process, then the acks. */
static enum ferry_err print_all(struct receiving *r, const struct ferry_delivery *deliveries,
                                size_t count)
{
    bool printed = true;
    for (size_t i = 0; i < count && printed; i++) {
        printed = print_delivery(r, &deliveries[i]);
        r->bytes += (int64_t)deliveries[i].record.payload_bytes;
    }
    if (!printed || !output_flush()) {
        r->write_errno = errno;
        return FERRY_ERR_IO;
    }
    return FERRY_OK;
}

static enum ferry_err settle_all(struct receiving *r, struct ferry_delivery *deliveries,
                                 size_t count)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < count && err == FERRY_OK; i++) {
        bool nack = r->nack_every > 0 && (r->records + (int64_t)i + 1) % r->nack_every == 0;
        r->nacked += nack;
        err = nack ? ferry_nack(r->receiver, &deliveries[i], -1, NACK_REASON)
                   : ferry_ack(r->receiver, &deliveries[i]);
    }
    return err;
}

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct receiving *r = arg;
    if (settled->err != FERRY_OK) {
        r->not_settled++;
        r->settle_err = r->settle_err == FERRY_OK ? settled->err : r->settle_err;
    }
}

static enum ferry_err receive_once(struct receiving *r, bool *done)
{
    struct ferry_delivery deliveries[AT_ONCE];
    int64_t left = r->count_max - r->records;
    size_t count = 0;
    enum ferry_err err = ferry_receive(r->receiver, CLI_TURN_MS, deliveries,
                                       left < AT_ONCE ? (size_t)left : AT_ONCE, &count);
    ferry_poll(r->cli->client, 0);
    if (err == FERRY_ERR_TIMEOUT) {
        int64_t idle_us = clock_monotonic_us() - r->last_record_us;
        *done = r->idle_exit_us > 0 && idle_us >= r->idle_exit_us;
        return FERRY_OK;
    }
    if (err != FERRY_OK) {
        return err;
    }
    err = print_all(r, deliveries, count);
    if (err == FERRY_OK && r->settles) {
        err = settle_all(r, deliveries, count);
    }
    r->records += (int64_t)count;
    r->last_record_us = clock_monotonic_us();
    *done = r->records >= r->count_max;
    return err;
}

static enum ferry_err receive_all(struct receiving *r)
{
    bool done = false;
    enum ferry_err err = FERRY_OK;
    r->last_record_us = clock_monotonic_us();
    while (err == FERRY_OK && !done && !cli_is_interrupted(r->cli)) {
        err = receive_once(r, &done);
    }
    if (r->settles) { /* What was acked is told even if something failed meanwhile. */
        enum ferry_err flushed = ferry_receiver_flush(r->receiver, r->cli->timeout_ms, NULL);
        err = err == FERRY_OK ? flushed : err;
    }
    return err;
}

/* ---- Beginning and end ---------------------------------------------------------------------- */

/* Made if it is not there; one of the same mode stays as it is. */
static enum ferry_err make_subscription(struct receiving *r, enum ferry_mode mode, int64_t from)
{
    const struct ferry_subscription_spec spec = {.mode = mode, .from = from};
    return ferry_subscription_make(r->cli->client, r->topic, r->subscription, &spec,
                                   r->cli->timeout_ms);
}

static enum ferry_err open_receiver(struct receiving *r)
{
    const struct args *args = r->cli->args;
    bool few = r->count_max < AT_ONCE; /* What is not wanted is left to others. */
    const struct ferry_receiver_spec spec = {.batch_max = few ? (uint32_t)r->count_max : 0,
                                             .inflight_max = few ? (uint32_t)r->count_max : 0,
                                             .member = args_text(args, OPT_MEMBER, NULL),
                                             .lease_ms = (uint32_t)args_number(args, OPT_LEASE, 0),
                                             .no_extend = !r->settles};
    enum ferry_err err = ferry_receiver_open(&r->receiver, r->cli->client, r->topic,
                                             r->subscription, &spec, r->cli->timeout_ms);
    if (err == FERRY_OK) {
        ferry_receiver_on_settled(r->receiver, on_settled, r);
    }
    return err;
}

static void print_summary(const struct receiving *r, int64_t elapsed_us)
{
    char records[FORMAT_TEXT_BYTES], size[FORMAT_TEXT_BYTES], rate[FORMAT_TEXT_BYTES];
    double seconds = elapsed_us > 0 ? (double)elapsed_us / 1e6 : 1e-6;
    format_count(r->records, records);
    format_size(r->bytes, size);
    format_count((int64_t)((double)r->records / seconds), rate);
    fprintf(stderr, "%s records, %s in %.3f s, %s records/s", records, size, seconds, rate);
    if (!r->settles) {
        fputs("; none acked", stderr);
    } else if (r->nacked > 0) {
        fprintf(stderr, "; %lld nacked", (long long)r->nacked);
    }
    fputc('\n', stderr);
}

/* A reader that has seen enough closes the pipe: the end, but not a failure. What it did not take
 * is not acked. */
static enum cli_exit conclude(struct receiving *r, enum ferry_err err, int64_t elapsed_us)
{
    if (r->write_errno == EPIPE) {
        return CLI_EXIT_OK;
    }
    if (r->write_errno != 0) {
        return cli_fail(r->cli, err, "standard output", strerror(r->write_errno));
    }
    if (!r->cli->quiet) {
        print_summary(r, elapsed_us);
    }
    if (err != FERRY_OK) {
        return cli_fail(r->cli, err, r->topic, NULL);
    }
    if (r->not_settled > 0) {
        char detail[ERR_TEXT_MAX];
        (void)snprintf(detail, sizeof(detail), "%lld messages were printed and not acked: %s",
                       (long long)r->not_settled, ferry_err_text(r->settle_err));
        (void)cli_fail(r->cli, r->settle_err, r->subscription, detail);
        return CLI_EXIT_FAILED; /* Whatever it was: the lines are out, and may come again. */
    }
    return CLI_EXIT_OK;
}

/* As a reader that dies: closing would give the messages back at once, and the leases are to end by
 * themselves. */
static void leave_unsettled(struct receiving *r)
{
    output_flush();
    r->receiver = NULL;
    r->cli->client = NULL;
}

static enum cli_exit run(struct receiving *r, enum ferry_mode mode, int64_t from)
{
    int64_t began_us = clock_monotonic_us();
    enum ferry_err err = make_subscription(r, mode, from);
    if (err == FERRY_OK) {
        err = open_receiver(r);
    }
    if (err != FERRY_OK) {
        bool topic = err == FERRY_ERR_UNKNOWN_TOPIC;
        return cli_fail(r->cli, err, topic ? r->topic : r->subscription, NULL);
    }
    err = receive_all(r);
    enum cli_exit code = conclude(r, err, clock_monotonic_us() - began_us);
    if (r->settles) {
        ferry_receiver_close(&r->receiver, r->cli->timeout_ms);
    } else {
        leave_unsettled(r);
    }
    return code;
}

enum cli_exit receive_run(struct cli *cli, enum ferry_mode mode)
{
    const struct args *args = cli->args;
    struct receiving r = {.cli = cli,
                          .topic = args->positionals[0],
                          .subscription = args_text(args, OPT_SUBSCRIPTION, NULL),
                          .settles = true,
                          .nack_every = args_number(args, OPT_NACK_EVERY, 0),
                          .count_max = args_number(args, OPT_COUNT, INT64_MAX),
                          .idle_exit_us = args_number(args, OPT_IDLE_EXIT, 0) * 1000};
    struct place from;
    const char *ack = args_text(args, OPT_ACK, "auto");
    const char *text = args_text(args, OPT_FROM, "start");
    if (strcmp(ack, "auto") != 0 && strcmp(ack, "none") != 0) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, ack, "--ack takes auto or none");
    }
    r.settles = strcmp(ack, "auto") == 0;
    if (!r.settles && r.nack_every > 0) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "--ack none settles nothing, so --nack-every cannot: give one");
    }
    if (!place_parse(text, 0, &from) || from.is_time) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, text,
                        "--from takes start, end or an offset here; for a time: `subscription "
                        "reset --to TIME`");
    }
    return run(&r, mode, from.offset);
}
