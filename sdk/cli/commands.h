/* commands: the one table of what the `ferry` command can do.
 *
 * Parsing, --help of all and of each command, and the manual pages come from these rows; there is
 * no second list. Pure data and printing: no client, no allocation.
 * Invariants: (1) row i of the command table has id i, likewise for options; (2) every command
 * takes the options of command_global_options() besides its own. */
#ifndef FERRY_CLI_COMMANDS_H
#define FERRY_CLI_COMMANDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum command_id {
    COMMAND_TOPIC_CREATE,
    COMMAND_TOPIC_LIST,
    COMMAND_TOPIC_INFO,
    COMMAND_TOPIC_DELETE,
    COMMAND_PRODUCE,
    COMMAND_CONSUME,
    COMMAND_PEEK,
    COMMAND_TRACE,
    COMMAND_SUBSCRIPTION_CREATE,
    COMMAND_SUBSCRIPTION_LIST,
    COMMAND_SUBSCRIPTION_INFO,
    COMMAND_SUBSCRIPTION_ALTER,
    COMMAND_SUBSCRIPTION_PAUSE,
    COMMAND_SUBSCRIPTION_RESUME,
    COMMAND_SUBSCRIPTION_RESET,
    COMMAND_SUBSCRIPTION_MEMBERS,
    COMMAND_SUBSCRIPTION_HISTORY,
    COMMAND_SUBSCRIPTION_DELETE,
    COMMAND_DLQ_LIST,
    COMMAND_DLQ_SHOW,
    COMMAND_DLQ_REPLAY,
    COMMAND_DLQ_DROP,
    COMMAND_DLQ_EXPORT,
    COMMAND_SCHEDULE_LIST,
    COMMAND_SCHEDULE_ADD,
    COMMAND_SCHEDULE_CANCEL,
    COMMAND_QUOTA_SET,
    COMMAND_QUOTA_SHOW,
    COMMAND_CLUSTER_STATUS,
    COMMAND_CLUSTER_PLAN,
    COMMAND_CLUSTER_APPLY,
    COMMAND_CLUSTER_ABORT,
    COMMAND_NODE_LIST,
    COMMAND_NODE_DRAIN,
    COMMAND_NODE_UNDRAIN,
    COMMAND_NODE_REMOVE,
    COMMAND_NODE_CHECK,
    COMMAND_PARTITION_INFO,
    COMMAND_PARTITION_TRANSFER,
    COMMAND_LEASE_ACQUIRE,
    COMMAND_LEASE_RENEW,
    COMMAND_LEASE_RELEASE,
    COMMAND_LEASE_LIST,
    COMMAND_OUTBOX_INIT,
    COMMAND_OUTBOX_STATUS,
    COMMAND_OUTBOX_PEEK,
    COMMAND_OUTBOX_DEAD,
    COMMAND_OUTBOX_REQUEUE,
    COMMAND_OUTBOX_SKIP,
    COMMAND_OUTBOX_PARK,
    COMMAND_OUTBOX_UNPARK,
    COMMAND_OUTBOX_PARKED,
    COMMAND_OUTBOX_LANES,
    COMMAND_OUTBOX_PAUSE,
    COMMAND_OUTBOX_RESUME,
    COMMAND_OUTBOX_REBASE,
    COMMAND_OUTBOX_BENCH,
    COMMAND_INBOX_STATUS,
    COMMAND_INBOX_DEAD,
    COMMAND_INBOX_REQUEUE,
    COMMAND_SAGA_LIST,
    COMMAND_SAGA_SHOW,
    COMMAND_SAGA_RETRY,
    COMMAND_SAGA_ABORT,
    COMMAND_VERIFY_EFFECTS,
    COMMAND_BENCH_PRODUCE,
    COMMAND_BENCH_CONSUME,
    COMMAND_BENCH_E2E,
    COMMAND_BENCH_IOTEST,
    COMMAND_COUNT
};

enum option_id {
    OPT_NONE, /* No option: the end of a command's list. */
    OPT_SERVER,
    OPT_JSON,
    OPT_TIMEOUT,
    OPT_SET,
    OPT_QUIET,
    OPT_HELP,
    OPT_VERSION,
    OPT_PARTITIONS,
    OPT_REPLICAS,
    OPT_RETENTION,
    OPT_RETENTION_BYTES,
    OPT_DEDUPE_WINDOW,
    OPT_KEY,
    OPT_KEY_JSON,
    OPT_HEADER,
    OPT_SUBSCRIPTION,
    OPT_MODE,
    OPT_FROM,
    OPT_COUNT,
    OPT_IDLE_EXIT,
    OPT_COMMITTED,
    OPT_ROLLED_BACK,
    OPT_ROLLED_BACK_FILE,
    OPT_TOPIC,
    OPT_EFFECTS,
    OPT_INBOX,
    OPT_SIZE,
    OPT_INPUT,
    OPT_RECORDS,
    OPT_SECONDS,
    OPT_RATE,
    OPT_IN_FLIGHT,
    OPT_SYNC,
    OPT_DIR,
    OPT_PLAN,
    OPT_NO_WAIT,
    OPT_HOLDER,
    OPT_TTL,
    OPT_WAIT,
    OPT_TOKEN,
    OPT_RETENTION_ACKED,
    OPT_AT,
    OPT_IN,
    OPT_PRIORITY,
    OPT_ACK,
    OPT_NACK_EVERY,
    OPT_MEMBER,
    OPT_LEASE,
    OPT_MAX_DELIVERIES,
    OPT_BACKOFF,
    OPT_KEY_POLICY,
    OPT_TO,
    OPT_DRY_RUN,
    OPT_OFFSET,
    OPT_TIME,
    OPT_ID,
    OPT_PARTITION,
    OPT_NUMBER,
    OPT_REASON,
    OPT_ALL,
    OPT_EDIT,
    OPT_SCHEDULE,
    OPT_EVERY,
    OPT_CRON,
    OPT_TZ,
    OPT_NAME,
    OPT_CLIENT,
    OPT_BYTES,
    OPT_MESSAGES,
    OPT_REQUESTS,
    OPT_PRINT_SQL,
    OPT_OFFLINE,
    OPT_YES,
    OPT_ACCEPT_DUPLICATES,
    OPT_KEYS,
    OPT_PER_COMMIT,
    OPT_GROUP,
    OPT_STATE,
    OPT_DB,
    OPT_COUNT_OF_OPTIONS
};

enum option_kind {
    KIND_FLAG,     /* No value. */
    KIND_TEXT,     /* Any text, not empty. */
    KIND_NUMBER,   /* A whole number within min and max. */
    KIND_DURATION, /* Milliseconds: 250, 250ms, 5s, 10m, 2h, 7d. */
    KIND_SIZE,     /* Bytes: 4096, 64K, 1M, 2G. */
};

#define COMMAND_OPTION_VALUES_MAX 3
#define COMMAND_POSITIONALS_MAX   3
#define COMMAND_WORDS_MAX         3  /* Of a command's name. */
#define COMMAND_OPTIONS_MAX       16 /* Of one command, besides those of all. */

struct option_spec {
    const char *name;   /* Without the dashes. */
    const char *values; /* What stands for the values in a usage line; NULL for a flag. */
    int value_count;    /* 0 for a flag. */
    bool repeats;       /* May be given more than once. */
    enum option_kind kind;
    int64_t min, max; /* Of numbers, durations and sizes. */
    const char *text; /* One sentence. */
};

struct command_spec {
    const char *name;                                /* One to three words. */
    const char *positionals;                         /* As shown in the usage line; "" for none. */
    int positional_count;                            /* All are required. */
    enum option_id options[COMMAND_OPTIONS_MAX + 1]; /* As shown; OPT_NONE ends the list. */
    const char *summary;                             /* One line, for the list of commands. */
    const char *text;                                /* The paragraph of --help. */
};

const struct command_spec *command_spec_of(enum command_id id);
const struct option_spec *command_option_of(enum option_id id);
/* The options of every command; OPT_NONE ends the list. */
const enum option_id *command_global_options(void);
bool command_takes(const struct command_spec *command, enum option_id option);

/* The exit codes, a line for people. */
const char *command_exit_codes(void);
void command_print_overview(FILE *out);
void command_print_help(FILE *out, const struct command_spec *command);

#endif
