/* cli: what every command is given, and the door of each command.
 *
 * A command returns the exit code. It has told the user what went wrong (cli_fail) before it
 * returns anything but 0. One thread runs a command; main.c owns the flag that a signal sets. */
#ifndef FERRY_CLI_CLI_H
#define FERRY_CLI_CLI_H

#include <signal.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/args.h"

/* Scripts rely on these numbers. */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1,
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_NOT_FOUND = 3,
    CLI_EXIT_DENIED = 4,
    CLI_EXIT_TIMEOUT = 5,
    CLI_EXIT_NOT_SAFE = 6, /* Of `node check` and `outbox rebase`. */
    CLI_EXIT_UNKNOWN = 7, /* Of it and of `outbox status`: whoever must be asked does not answer. */
};

struct cli {
    const struct args *args;
    const volatile sig_atomic_t *interrupted; /* Not 0: finish the report and end. */
    struct ferry_client *client;              /* NULL until cli_connect(). */
    int timeout_ms;                           /* For one answer. */
    bool json;
    bool quiet;
};

#define CLI_TIMEOUT_MS_DEFAULT 10000
/* How often a wait is cut to look at `interrupted`. */
#define CLI_TURN_MS 100

/* The one place that maps an error to an exit code. */
enum cli_exit cli_exit_of(enum ferry_err err);
/* Tells the user, `ferry: topic info: orders: UNKNOWN_TOPIC: no such topic: …`, and with --json an
 * object on standard output. `subject` names the thing, `detail` is what is known besides the
 * error's own text; both may be NULL or "". Returns the exit code. */
enum cli_exit cli_fail(const struct cli *cli, enum ferry_err err, const char *subject,
                       const char *detail);
/* The same for something that does not end the command. */
void cli_warn(const struct cli *cli, enum ferry_err err, const char *subject, const char *detail);

/* Tells that the command has worked, when that is its whole result: `topic orders created` on
 * standard error, or {"topic":"orders","created":true}. Returns CLI_EXIT_OK. */
enum cli_exit cli_tell_done(const struct cli *cli, const char *what, const char *name,
                            const char *done);

/* A positional that is a whole number from `min` to `max`; `what` is its name in the usage line.
 * Tells the user when it is not. */
MUST_CHECK bool cli_number(const struct cli *cli, int place, const char *what, int64_t min,
                           int64_t max, int64_t *n);
/* Waits, or less when a signal comes. */
void cli_pause(int ms);

/* Opens the client with the options of the command line. `callback` may be NULL. Tells the user
 * when it fails. */
MUST_CHECK enum cli_exit cli_connect(struct cli *cli, ferry_report_cb *callback, void *arg);
/* Ends the command: closes the client if there is one, and makes sure of standard output. Returns
 * `code`, or CLI_EXIT_FAILED when standard output could not be written. */
enum cli_exit cli_finish(struct cli *cli, enum cli_exit code);

static inline bool cli_is_interrupted(const struct cli *cli)
{
    return *cli->interrupted != 0;
}

enum cli_exit cmd_topic_create(struct cli *cli);
enum cli_exit cmd_topic_list(struct cli *cli);
enum cli_exit cmd_topic_info(struct cli *cli);
enum cli_exit cmd_topic_delete(struct cli *cli);
enum cli_exit cmd_produce(struct cli *cli);
enum cli_exit cmd_consume(struct cli *cli);
enum cli_exit cmd_peek(struct cli *cli);
enum cli_exit cmd_trace(struct cli *cli);
enum cli_exit cmd_subscription_create(struct cli *cli);
enum cli_exit cmd_subscription_list(struct cli *cli);
enum cli_exit cmd_subscription_info(struct cli *cli);
enum cli_exit cmd_subscription_alter(struct cli *cli);
enum cli_exit cmd_subscription_pause(struct cli *cli);
enum cli_exit cmd_subscription_resume(struct cli *cli);
enum cli_exit cmd_subscription_reset(struct cli *cli);
enum cli_exit cmd_subscription_members(struct cli *cli);
enum cli_exit cmd_subscription_history(struct cli *cli);
enum cli_exit cmd_subscription_delete(struct cli *cli);
enum cli_exit cmd_dlq_list(struct cli *cli);
enum cli_exit cmd_dlq_show(struct cli *cli);
enum cli_exit cmd_dlq_replay(struct cli *cli);
enum cli_exit cmd_dlq_drop(struct cli *cli);
enum cli_exit cmd_dlq_export(struct cli *cli);
enum cli_exit cmd_schedule_list(struct cli *cli);
enum cli_exit cmd_schedule_add(struct cli *cli);
enum cli_exit cmd_schedule_cancel(struct cli *cli);
enum cli_exit cmd_quota_set(struct cli *cli);
enum cli_exit cmd_quota_show(struct cli *cli);
enum cli_exit cmd_cluster_status(struct cli *cli);
enum cli_exit cmd_cluster_plan(struct cli *cli);
enum cli_exit cmd_cluster_apply(struct cli *cli);
enum cli_exit cmd_cluster_abort(struct cli *cli);
enum cli_exit cmd_node_list(struct cli *cli);
enum cli_exit cmd_node_drain(struct cli *cli);
enum cli_exit cmd_node_undrain(struct cli *cli);
enum cli_exit cmd_node_remove(struct cli *cli);
enum cli_exit cmd_node_check(struct cli *cli);
enum cli_exit cmd_partition_info(struct cli *cli);
enum cli_exit cmd_partition_transfer(struct cli *cli);
enum cli_exit cmd_lease_acquire(struct cli *cli);
enum cli_exit cmd_lease_renew(struct cli *cli);
enum cli_exit cmd_lease_release(struct cli *cli);
enum cli_exit cmd_lease_list(struct cli *cli);
enum cli_exit cmd_outbox_init(struct cli *cli);
enum cli_exit cmd_outbox_status(struct cli *cli);
enum cli_exit cmd_outbox_peek(struct cli *cli);
enum cli_exit cmd_outbox_dead(struct cli *cli);
enum cli_exit cmd_outbox_requeue(struct cli *cli);
enum cli_exit cmd_outbox_skip(struct cli *cli);
enum cli_exit cmd_outbox_park(struct cli *cli);
enum cli_exit cmd_outbox_unpark(struct cli *cli);
enum cli_exit cmd_outbox_parked(struct cli *cli);
enum cli_exit cmd_outbox_lanes(struct cli *cli);
enum cli_exit cmd_outbox_pause(struct cli *cli);
enum cli_exit cmd_outbox_resume(struct cli *cli);
enum cli_exit cmd_outbox_rebase(struct cli *cli);
enum cli_exit cmd_outbox_bench(struct cli *cli);
enum cli_exit cmd_inbox_status(struct cli *cli);
enum cli_exit cmd_inbox_dead(struct cli *cli);
enum cli_exit cmd_inbox_requeue(struct cli *cli);
enum cli_exit cmd_saga_list(struct cli *cli);
enum cli_exit cmd_saga_show(struct cli *cli);
enum cli_exit cmd_saga_retry(struct cli *cli);
enum cli_exit cmd_saga_abort(struct cli *cli);
enum cli_exit cmd_verify_effects(struct cli *cli);
enum cli_exit cmd_bench_produce(struct cli *cli);
enum cli_exit cmd_bench_consume(struct cli *cli);
enum cli_exit cmd_bench_e2e(struct cli *cli);
enum cli_exit cmd_bench_iotest(struct cli *cli);

#endif
