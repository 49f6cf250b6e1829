/* args: the command line, parsed and checked against the table in commands.
 *
 * Options stand anywhere; `--` ends them; `--name=value` and `--name value` are alike, and the word
 * after an option that takes a value is the value even when it begins with a dash. Numbers are
 * checked here, so that a command may read them without a failing path. Text is borrowed from argv.
 * No I/O, no allocation. */
#ifndef FERRY_CLI_ARGS_H
#define FERRY_CLI_ARGS_H

#include "base/err.h"
#include "cli/commands.h"

#define ARGS_OPTIONS_MAX 128

struct args_option {
    enum option_id id;
    const char *values[COMMAND_OPTION_VALUES_MAX];
    int64_t number; /* Of numbers, durations and sizes. */
};

struct args {
    bool has_command; /* False only with --help or --version alone. */
    enum command_id command;
    const char *positionals[COMMAND_POSITIONALS_MAX];
    struct args_option options[ARGS_OPTIONS_MAX];
    size_t option_count;
};

/* Errors, each with a detail that offers the nearest name: INVALID_ARGUMENT, UNKNOWN_OPTION,
 * BAD_OPTION_VALUE. What was parsed until then stays in `a`, so that --json is known. */
MUST_CHECK enum ferry_err args_parse(struct args *a, int argc, char *const *argv,
                                     struct err_text *e);
bool args_has(const struct args *a, enum option_id id);
/* The n-th time the option was given, counted from 0; NULL when it was not. */
const struct args_option *args_find(const struct args *a, enum option_id id, size_t n);
/* The value of a single text or number, or `otherwise`. */
const char *args_text(const struct args *a, enum option_id id, const char *otherwise);
int64_t args_number(const struct args *a, enum option_id id, int64_t otherwise);

#endif
