/* main: parses, dispatches, ends. The only file with mutable globals: those of the signal. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "outbox/relay/relay_urls.h"

static volatile sig_atomic_t interrupted;
static struct timespec interrupted_at;

#define SECOND_SIGNAL_AFTER_S 1

/* The first interrupt finishes the report; one that comes later ends the process. What comes at the
 * same moment is the first again: a terminal and a wrapper such as timeout(1) each send one. */
static void on_signal(int number)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (interrupted == 0) {
        interrupted_at = now;
        interrupted = 1;
    } else if (now.tv_sec - interrupted_at.tv_sec > SECOND_SIGNAL_AFTER_S) {
        signal(number, SIG_DFL);
        raise(number);
    }
}

/* No SA_RESTART: a wait must end. A closed pipe is an error of write(2), not a death. */
static void install_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    must(sigaction(SIGINT, &action, NULL) == 0);
    must(sigaction(SIGTERM, &action, NULL) == 0);
    action = (struct sigaction){.sa_handler = SIG_IGN};
    must(sigaction(SIGPIPE, &action, NULL) == 0);
}

typedef enum cli_exit command_fn(struct cli *cli);

static command_fn *const handlers[COMMAND_COUNT] = {
    [COMMAND_TOPIC_CREATE] = cmd_topic_create,
    [COMMAND_TOPIC_LIST] = cmd_topic_list,
    [COMMAND_TOPIC_INFO] = cmd_topic_info,
    [COMMAND_TOPIC_DELETE] = cmd_topic_delete,
    [COMMAND_PRODUCE] = cmd_produce,
    [COMMAND_CONSUME] = cmd_consume,
    [COMMAND_PEEK] = cmd_peek,
    [COMMAND_TRACE] = cmd_trace,
    [COMMAND_SUBSCRIPTION_CREATE] = cmd_subscription_create,
    [COMMAND_SUBSCRIPTION_LIST] = cmd_subscription_list,
    [COMMAND_SUBSCRIPTION_INFO] = cmd_subscription_info,
    [COMMAND_SUBSCRIPTION_ALTER] = cmd_subscription_alter,
    [COMMAND_SUBSCRIPTION_PAUSE] = cmd_subscription_pause,
    [COMMAND_SUBSCRIPTION_RESUME] = cmd_subscription_resume,
    [COMMAND_SUBSCRIPTION_RESET] = cmd_subscription_reset,
    [COMMAND_SUBSCRIPTION_MEMBERS] = cmd_subscription_members,
    [COMMAND_SUBSCRIPTION_HISTORY] = cmd_subscription_history,
    [COMMAND_SUBSCRIPTION_DELETE] = cmd_subscription_delete,
    [COMMAND_DLQ_LIST] = cmd_dlq_list,
    [COMMAND_DLQ_SHOW] = cmd_dlq_show,
    [COMMAND_DLQ_REPLAY] = cmd_dlq_replay,
    [COMMAND_DLQ_DROP] = cmd_dlq_drop,
    [COMMAND_DLQ_EXPORT] = cmd_dlq_export,
    [COMMAND_SCHEDULE_LIST] = cmd_schedule_list,
    [COMMAND_SCHEDULE_ADD] = cmd_schedule_add,
    [COMMAND_SCHEDULE_CANCEL] = cmd_schedule_cancel,
    [COMMAND_QUOTA_SET] = cmd_quota_set,
    [COMMAND_QUOTA_SHOW] = cmd_quota_show,
    [COMMAND_CLUSTER_STATUS] = cmd_cluster_status,
    [COMMAND_CLUSTER_PLAN] = cmd_cluster_plan,
    [COMMAND_CLUSTER_APPLY] = cmd_cluster_apply,
    [COMMAND_CLUSTER_ABORT] = cmd_cluster_abort,
    [COMMAND_NODE_LIST] = cmd_node_list,
    [COMMAND_NODE_DRAIN] = cmd_node_drain,
    [COMMAND_NODE_UNDRAIN] = cmd_node_undrain,
    [COMMAND_NODE_REMOVE] = cmd_node_remove,
    [COMMAND_NODE_CHECK] = cmd_node_check,
    [COMMAND_PARTITION_INFO] = cmd_partition_info,
    [COMMAND_PARTITION_TRANSFER] = cmd_partition_transfer,
    [COMMAND_LEASE_ACQUIRE] = cmd_lease_acquire,
    [COMMAND_LEASE_RENEW] = cmd_lease_renew,
    [COMMAND_LEASE_RELEASE] = cmd_lease_release,
    [COMMAND_LEASE_LIST] = cmd_lease_list,
    [COMMAND_OUTBOX_INIT] = cmd_outbox_init,
    [COMMAND_OUTBOX_STATUS] = cmd_outbox_status,
    [COMMAND_OUTBOX_PEEK] = cmd_outbox_peek,
    [COMMAND_OUTBOX_DEAD] = cmd_outbox_dead,
    [COMMAND_OUTBOX_REQUEUE] = cmd_outbox_requeue,
    [COMMAND_OUTBOX_SKIP] = cmd_outbox_skip,
    [COMMAND_OUTBOX_PARK] = cmd_outbox_park,
    [COMMAND_OUTBOX_UNPARK] = cmd_outbox_unpark,
    [COMMAND_OUTBOX_PARKED] = cmd_outbox_parked,
    [COMMAND_OUTBOX_LANES] = cmd_outbox_lanes,
    [COMMAND_OUTBOX_PAUSE] = cmd_outbox_pause,
    [COMMAND_OUTBOX_RESUME] = cmd_outbox_resume,
    [COMMAND_OUTBOX_REBASE] = cmd_outbox_rebase,
    [COMMAND_OUTBOX_BENCH] = cmd_outbox_bench,
    [COMMAND_INBOX_STATUS] = cmd_inbox_status,
    [COMMAND_INBOX_DEAD] = cmd_inbox_dead,
    [COMMAND_INBOX_REQUEUE] = cmd_inbox_requeue,
    [COMMAND_SAGA_LIST] = cmd_saga_list,
    [COMMAND_SAGA_SHOW] = cmd_saga_show,
    [COMMAND_SAGA_RETRY] = cmd_saga_retry,
    [COMMAND_SAGA_ABORT] = cmd_saga_abort,
    [COMMAND_VERIFY_EFFECTS] = cmd_verify_effects,
    [COMMAND_BENCH_PRODUCE] = cmd_bench_produce,
    [COMMAND_BENCH_CONSUME] = cmd_bench_consume,
    [COMMAND_BENCH_E2E] = cmd_bench_e2e,
    [COMMAND_BENCH_IOTEST] = cmd_bench_iotest,
};

static enum cli_exit run(struct cli *cli)
{
    const struct args *args = cli->args;
    if (args_has(args, OPT_VERSION)) {
        puts("ferry " FERRY_VERSION);
        return CLI_EXIT_OK;
    }
    if (args_has(args, OPT_HELP)) {
        if (args->has_command) {
            command_print_help(stdout, command_spec_of(args->command));
        } else {
            command_print_overview(stdout);
        }
        return CLI_EXIT_OK;
    }
    return handlers[args->command](cli);
}

static void free_words(char **words, int argc, char **argv)
{
    for (int i = 0; words != NULL && i < argc; i++) {
        if (words[i] != argv[i]) {
            mem_free(words[i]);
        }
    }
    mem_free(words);
}

/* Arguments are seen by everybody on the machine: those that hold a URL are copied for this
 * process, and the password is taken out of what others see. NULL: no memory. */
static char **private_words(int argc, char **argv)
{
    char **words = mem_zalloc((size_t)argc + 1, sizeof(*words));
    for (int i = 0; words != NULL && i < argc; i++) {
        bool holds_url = strstr(argv[i], "://") != NULL;
        words[i] = holds_url ? mem_strdup(argv[i]) : argv[i];
        if (words[i] == NULL) {
            free_words(words, i, argv);
            return NULL;
        }
        if (holds_url) {
            relay_url_hide(argv[i]);
        }
    }
    return words;
}

int main(int argc, char **argv)
{
    struct args args;
    struct err_text detail = {.text = ""};
    mem_keep_frames();
    output_init();
    install_signals();
    char **words = private_words(argc, argv);
    if (words == NULL) {
        fputs("ferry: out of memory\n", stderr);
        return CLI_EXIT_FAILED;
    }
    enum ferry_err err = args_parse(&args, argc, words, &detail);
    struct cli cli = {
        .args = &args,
        .interrupted = &interrupted,
        .timeout_ms = (int)args_number(&args, OPT_TIMEOUT, CLI_TIMEOUT_MS_DEFAULT),
        .json = args_has(&args, OPT_JSON),
        .quiet = args_has(&args, OPT_QUIET),
    };
    enum cli_exit code = err != FERRY_OK ? cli_fail(&cli, err, NULL, detail.text) : run(&cli);
    code = cli_finish(&cli, code);
    free_words(words, argc, argv);
    return (int)code;
}
