#include "cli/args.h"

#include <stdio.h>
#include <string.h>

#include "cli/format.h"

#define WORDS_MAX      (COMMAND_WORDS_MAX + COMMAND_POSITIONALS_MAX)
#define SUGGEST_WITHIN 3

/* The words that are not options, before it is known which command they name. */
struct words {
    const char *items[WORDS_MAX];
    size_t count;
    const char *surplus; /* The first word for which there was no room. */
};

/* ---- Suggestions ---------------------------------------------------------------------------- */

struct nearest {
    const char *name;
    size_t distance;
};

static void consider(struct nearest *nearest, const char *given, const char *name)
{
    size_t distance = format_distance(given, name, SUGGEST_WITHIN);
    if (distance <= SUGGEST_WITHIN && distance < strlen(name) && distance < nearest->distance) {
        *nearest = (struct nearest){.name = name, .distance = distance};
    }
}

static const char *nearest_option(const struct command_spec *command, const char *given)
{
    struct nearest nearest = {.name = NULL, .distance = SUGGEST_WITHIN + 1};
    for (enum option_id id = OPT_NONE + 1; id < OPT_COUNT_OF_OPTIONS; id++) {
        if (command == NULL || command_takes(command, id)) {
            consider(&nearest, given, command_option_of(id)->name);
        }
    }
    return nearest.name;
}

static const char *nearest_command(const char *given)
{
    struct nearest nearest = {.name = NULL, .distance = SUGGEST_WITHIN + 1};
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        consider(&nearest, given, command_spec_of(id)->name);
    }
    return nearest.name;
}

static enum ferry_err unknown_option(const struct command_spec *command, const char *given,
                                     struct err_text *e)
{
    const char *near = nearest_option(command, given);
    if (near != NULL) {
        return err_set(e, FERRY_ERR_UNKNOWN_OPTION, "--%.40s: no such option; did you mean --%s?",
                       given, near);
    }
    return err_set(e, FERRY_ERR_UNKNOWN_OPTION, "--%.40s: no such option; see ferry%s%s --help",
                   given, command != NULL ? " " : "", command != NULL ? command->name : "");
}

/* ---- Options -------------------------------------------------------------------------------- */

static bool find_option(const char *name, size_t length, enum option_id *found)
{
    for (enum option_id id = OPT_NONE + 1; id < OPT_COUNT_OF_OPTIONS; id++) {
        const char *candidate = command_option_of(id)->name;
        if (strlen(candidate) == length && memcmp(candidate, name, length) == 0) {
            *found = id;
            return true;
        }
    }
    return false;
}

static enum ferry_err check_number(const struct option_spec *spec, struct args_option *option,
                                   struct err_text *e)
{
    const char *text = option->values[0];
    bool read = true;
    const char *form = "";
    switch (spec->kind) {
    case KIND_FLAG:
    case KIND_TEXT:
        return FERRY_OK;
    case KIND_NUMBER:
        read = format_parse_number(text, &option->number);
        form = "a whole number";
        break;
    case KIND_DURATION:
        read = format_parse_duration_ms(text, &option->number);
        form = "a time such as 500, 500ms, 10s, 5m, 2h or 7d";
        break;
    case KIND_SIZE:
        read = format_parse_size(text, &option->number);
        form = "a size such as 4096, 64K, 1M or 2G";
        break;
    }
    if (!read) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "--%s %.40s: not %s", spec->name, text, form);
    }
    if (option->number < spec->min || option->number > spec->max) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "--%s %.40s: must be %lld to %lld",
                       spec->name, text, (long long)spec->min, (long long)spec->max);
    }
    return FERRY_OK;
}

/* Reads the option at argv[*at] with its values; *at is left on the last word used. */
static enum ferry_err take_option(struct args *a, int argc, char *const *argv, int *at,
                                  struct err_text *e)
{
    const char *name = argv[*at] + 2;
    size_t length = strcspn(name, "=");
    enum option_id id;
    if (!find_option(name, length, &id)) {
        char given[FORMAT_WORD_MAX + 1] = {0};
        memcpy(given, name, length < FORMAT_WORD_MAX ? length : FORMAT_WORD_MAX);
        return unknown_option(NULL, given, e);
    }
    const struct option_spec *spec = command_option_of(id);
    if (a->option_count == ARGS_OPTIONS_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "more than %d options", ARGS_OPTIONS_MAX);
    }
    if (!spec->repeats && spec->value_count > 0 && args_has(a, id)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "--%s is given twice", spec->name);
    }
    struct args_option option = {.id = id};
    bool inline_value = name[length] == '=';
    if (inline_value && spec->value_count != 1) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "--%s takes %s", spec->name,
                       spec->value_count == 0 ? "no value" : "its values as separate words");
    }
    if (!inline_value && argc - *at - 1 < spec->value_count) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "--%s needs %s", spec->name, spec->values);
    }
    for (int i = 0; i < spec->value_count; i++) {
        option.values[i] = inline_value ? name + length + 1 : argv[++*at];
        if (option.values[i][0] == '\0') {
            return err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "--%s: the value is empty", spec->name);
        }
    }
    enum ferry_err err = check_number(spec, &option, e);
    if (err == FERRY_OK) {
        a->options[a->option_count++] = option;
    }
    return err;
}

static void take_word(struct words *words, const char *word)
{
    if (words->count < WORDS_MAX) {
        words->items[words->count++] = word;
    } else if (words->surplus == NULL) {
        words->surplus = word;
    }
}

static enum ferry_err split(struct args *a, struct words *words, int argc, char *const *argv,
                            struct err_text *e)
{
    bool only_words = false;
    bool help = false;
    enum ferry_err first_err = FERRY_OK;
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && strcmp(argv[i], "-h") == 0) {
            help = true;
        } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
            /* The first error is told, but --json after it is still seen. */
            enum ferry_err err = take_option(a, argc, argv, &i, first_err ? NULL : e);
            first_err = first_err != FERRY_OK ? first_err : err;
        } else {
            take_word(words, argv[i]);
        }
    }
    if (help && a->option_count < ARGS_OPTIONS_MAX) {
        a->options[a->option_count++] = (struct args_option){.id = OPT_HELP};
    }
    return first_err;
}

/* ---- Commands ------------------------------------------------------------------------------- */

/* How many of the words name the command; 0 when they do not. */
static size_t match_command(const struct command_spec *command, const struct words *words)
{
    const char *name = command->name;
    for (size_t i = 0; i < words->count && i < COMMAND_WORDS_MAX; i++) {
        size_t length = strcspn(name, " ");
        if (strlen(words->items[i]) != length || memcmp(words->items[i], name, length) != 0) {
            return 0;
        }
        name += length;
        if (*name == '\0') {
            return i + 1;
        }
        name++;
    }
    return 0;
}

static enum ferry_err unknown_command(const struct words *words, struct err_text *e)
{
    if (words->count == 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "no command given; see ferry --help");
    }
    char given[2 * FORMAT_WORD_MAX];
    snprintf(given, sizeof(given), "%.30s%s%.30s", words->items[0], words->count > 1 ? " " : "",
             words->count > 1 ? words->items[1] : "");
    const char *near = nearest_command(given);
    near = near != NULL ? near : nearest_command(words->items[0]);
    if (near != NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s: no such command; did you mean %s?",
                       given, near);
    }
    return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s: no such command; see ferry --help", given);
}

static enum ferry_err take_positionals(struct args *a, const struct words *words, size_t used,
                                       struct err_text *e)
{
    const struct command_spec *command = command_spec_of(a->command);
    size_t given = words->count - used;
    size_t wanted = (size_t)command->positional_count;
    if (given < wanted) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "needs %s; see ferry %s --help",
                       command->positionals, command->name);
    }
    if (given > wanted || words->surplus != NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "%.60s: one word too many; quote words that belong together",
                       given > wanted ? words->items[used + wanted] : words->surplus);
    }
    for (size_t i = 0; i < wanted; i++) {
        a->positionals[i] = words->items[used + i];
        if (a->positionals[i][0] == '\0') {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s: empty", command->positionals);
        }
    }
    return FERRY_OK;
}

static enum ferry_err check_options(const struct args *a, struct err_text *e)
{
    const struct command_spec *command = command_spec_of(a->command);
    for (size_t i = 0; i < a->option_count; i++) {
        if (!command_takes(command, a->options[i].id)) {
            return unknown_option(command, command_option_of(a->options[i].id)->name, e);
        }
    }
    return FERRY_OK;
}

enum ferry_err args_parse(struct args *a, int argc, char *const *argv, struct err_text *e)
{
    *a = (struct args){0};
    struct words words = {.count = 0};
    enum ferry_err split_err = split(a, &words, argc, argv, e);
    size_t used = 0;
    for (enum command_id id = 0; id < COMMAND_COUNT && used == 0; id++) {
        used = match_command(command_spec_of(id), &words);
        a->command = id;
    }
    a->has_command = used > 0;
    if (split_err != FERRY_OK) {
        return split_err;
    }
    if (args_has(a, OPT_HELP) || args_has(a, OPT_VERSION)) {
        return FERRY_OK;
    }
    if (!a->has_command) {
        return unknown_command(&words, e);
    }
    enum ferry_err err = check_options(a, e);
    return err != FERRY_OK ? err : take_positionals(a, &words, used, e);
}

/* ---- Reading -------------------------------------------------------------------------------- */

const struct args_option *args_find(const struct args *a, enum option_id id, size_t n)
{
    for (size_t i = 0; i < a->option_count; i++) {
        if (a->options[i].id == id && n-- == 0) {
            return &a->options[i];
        }
    }
    return NULL;
}

bool args_has(const struct args *a, enum option_id id)
{
    return args_find(a, id, 0) != NULL;
}

const char *args_text(const struct args *a, enum option_id id, const char *otherwise)
{
    const struct args_option *option = args_find(a, id, 0);
    return option != NULL ? option->values[0] : otherwise;
}

int64_t args_number(const struct args *a, enum option_id id, int64_t otherwise)
{
    const struct args_option *option = args_find(a, id, 0);
    return option != NULL ? option->number : otherwise;
}
