/* commands: the one table of what the `ferry` command can do.
 *
 * Parsing, --help of all and of each command, and the manual pages come from these rows; there is
 * no second list. Pure data and printing: no client, no allocation.
 * Invariants: (1) row i of the command table has id i, likewise for options; (2) every command
 * takes the options of COMMAND_GLOBAL_OPTIONS besides its own. */
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
    COMMAND_SUBSCRIPTION_LIST,
    COMMAND_SUBSCRIPTION_INFO,
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
    COMMAND_INBOX_STATUS,
    COMMAND_VERIFY_EFFECTS,
    COMMAND_BENCH_PRODUCE,
    COMMAND_BENCH_CONSUME,
    COMMAND_BENCH_E2E,
    COMMAND_BENCH_IOTEST,
    COMMAND_COUNT
};

enum option_id {
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
#define COMMAND_WORDS_MAX         3 /* Of a command's name. */

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
    const char *name;        /* One to three words. */
    const char *positionals; /* As shown in the usage line; "" for none. */
    int positional_count;    /* All are required. */
    uint64_t options;        /* One bit an option. */
    const char *summary;     /* One line, for the list of commands. */
    const char *text;        /* The paragraph of --help. */
};

_Static_assert(OPT_COUNT_OF_OPTIONS <= 64, "one bit an option");
#define COMMAND_BIT(option) (UINT64_C(1) << (option))
#define COMMAND_GLOBAL_OPTIONS                                                                     \
    (COMMAND_BIT(OPT_SERVER) | COMMAND_BIT(OPT_JSON) | COMMAND_BIT(OPT_TIMEOUT) |                  \
     COMMAND_BIT(OPT_SET) | COMMAND_BIT(OPT_QUIET) | COMMAND_BIT(OPT_HELP) |                       \
     COMMAND_BIT(OPT_VERSION))

const struct command_spec *command_spec_of(enum command_id id);
const struct option_spec *command_option_of(enum option_id id);
bool command_takes(const struct command_spec *command, enum option_id option);

void command_print_overview(FILE *out);
void command_print_help(FILE *out, const struct command_spec *command);

#endif
