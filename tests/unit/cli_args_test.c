/* The command line of `ferry`. The sources under test are included: the command is a program, not a
 * library, and these three files need nothing of it but the base layer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/args.c"
#include "cli/commands.c"
#include "cli/format.c"

struct parsed {
    struct args args;
    struct err_text detail;
    enum ferry_err err;
};

#define PARSE(...) parse((char *[]){"ferry", __VA_ARGS__, NULL})

static struct parsed parse(char **argv)
{
    struct parsed p = {.err = FERRY_OK};
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    p.err = args_parse(&p.args, argc, argv, &p.detail);
    return p;
}

static void a_command_is_found_by_its_words(void **state)
{
    (void)state;
    struct parsed p = PARSE("topic", "create", "orders", "--partitions", "4");
    assert_int_equal(p.err, FERRY_OK);
    assert_int_equal(p.args.command, COMMAND_TOPIC_CREATE);
    assert_string_equal(p.args.positionals[0], "orders");
    assert_int_equal(args_number(&p.args, OPT_PARTITIONS, 0), 4);
    p = PARSE("consume", "orders");
    assert_int_equal(p.args.command, COMMAND_CONSUME);
}

static void every_command_of_the_table_is_reachable(void **state)
{
    (void)state;
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        char words[64];
        char *argv[8] = {"ferry"};
        int argc = 1;
        snprintf(words, sizeof(words), "%s", command_spec_of(id)->name);
        argv[argc++] = words;
        for (char *blank = strchr(words, ' '); blank != NULL; blank = strchr(blank + 1, ' ')) {
            *blank = '\0';
            argv[argc++] = blank + 1;
        }
        for (int i = 0; i < command_spec_of(id)->positional_count; i++) {
            argv[argc++] = "word";
        }
        struct args args;
        struct err_text e;
        assert_int_equal(args_parse(&args, argc, argv, &e), FERRY_OK);
        assert_int_equal(args.command, id);
    }
}

static void global_options_stand_before_or_after_the_command(void **state)
{
    (void)state;
    struct parsed before = PARSE("--json", "--server", "tcp://h:1", "topic", "info", "orders");
    struct parsed after = PARSE("topic", "info", "orders", "--server=tcp://h:1", "--json");
    struct parsed between = PARSE("topic", "--json", "info", "--server", "tcp://h:1", "orders");
    const struct parsed *all[] = {&before, &after, &between};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(all[i]->err, FERRY_OK);
        assert_int_equal(all[i]->args.command, COMMAND_TOPIC_INFO);
        assert_true(args_has(&all[i]->args, OPT_JSON));
        assert_string_equal(args_text(&all[i]->args, OPT_SERVER, ""), "tcp://h:1");
        assert_string_equal(all[i]->args.positionals[0], "orders");
    }
}

static void a_mistyped_option_is_refused_and_the_right_one_offered(void **state)
{
    (void)state;
    struct parsed p = PARSE("topic", "create", "orders", "--partition", "4");
    assert_int_equal(p.err, FERRY_ERR_UNKNOWN_OPTION);
    assert_non_null(strstr(p.detail.text, "did you mean --partitions?"));
}

static void an_option_of_another_command_is_refused(void **state)
{
    (void)state;
    struct parsed p = PARSE("topic", "list", "--count", "4");
    assert_int_equal(p.err, FERRY_ERR_UNKNOWN_OPTION);
    assert_non_null(strstr(p.detail.text, "--count"));
}

static void a_mistyped_command_is_refused_and_the_right_one_offered(void **state)
{
    (void)state;
    struct parsed p = PARSE("topic", "crate", "orders");
    assert_int_equal(p.err, FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(p.detail.text, "did you mean topic create?"));
    p = PARSE("prodce", "orders");
    assert_non_null(strstr(p.detail.text, "did you mean produce?"));
}

static void numbers_out_of_bounds_or_with_letters_are_refused(void **state)
{
    (void)state;
    static char *const values[] = {"0", "-1", "4x", "99999999999999999999", "1.5", " 4"};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct parsed p = PARSE("topic", "create", "orders", "--partitions", values[i]);
        assert_int_equal(p.err, FERRY_ERR_BAD_OPTION_VALUE);
        assert_non_null(strstr(p.detail.text, "--partitions"));
    }
}

static void a_missing_word_a_surplus_word_and_a_missing_value_are_refused(void **state)
{
    (void)state;
    assert_int_equal(PARSE("topic", "create").err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(PARSE("topic", "create", "a", "b").err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(PARSE("topic", "create", "a", "b", "c", "d").err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(PARSE("topic", "create", "a", "--partitions").err, FERRY_ERR_BAD_OPTION_VALUE);
    assert_int_equal(PARSE("topic", "create", "").err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(PARSE("--json=1", "topic", "list").err, FERRY_ERR_BAD_OPTION_VALUE);
}

static void an_option_may_repeat_only_where_that_means_something(void **state)
{
    (void)state;
    struct parsed p = PARSE("produce", "t", "--header", "a=1", "--header", "b=2");
    assert_int_equal(p.err, FERRY_OK);
    assert_string_equal(args_find(&p.args, OPT_HEADER, 1)->values[0], "b=2");
    assert_null(args_find(&p.args, OPT_HEADER, 2));
    p = PARSE("produce", "t", "--key", "a", "--key", "b");
    assert_int_equal(p.err, FERRY_ERR_INVALID_ARGUMENT);
}

static void an_option_with_several_values_takes_the_words_after_it(void **state)
{
    (void)state;
    struct parsed p =
        PARSE("verify", "effects", "--effects", "ledger", "sqlite:x", "SELECT id", "--topic", "t");
    assert_int_equal(p.err, FERRY_OK);
    const struct args_option *option = args_find(&p.args, OPT_EFFECTS, 0);
    assert_string_equal(option->values[0], "ledger");
    assert_string_equal(option->values[2], "SELECT id");
    assert_string_equal(args_text(&p.args, OPT_TOPIC, ""), "t");
}

/* `--from -10m` is an age, and a key may begin with a dash. */
static void a_value_may_begin_with_a_dash(void **state)
{
    (void)state;
    struct parsed p = PARSE("consume", "t", "--from", "-10m");
    assert_int_equal(p.err, FERRY_OK);
    assert_string_equal(args_text(&p.args, OPT_FROM, ""), "-10m");
    p = PARSE("topic", "info", "--", "--odd");
    assert_int_equal(p.err, FERRY_OK);
    assert_string_equal(p.args.positionals[0], "--odd");
}

static void help_needs_nothing_else(void **state)
{
    (void)state;
    struct parsed p = PARSE("--help");
    assert_int_equal(p.err, FERRY_OK);
    assert_false(p.args.has_command);
    p = PARSE("topic", "create", "--help");
    assert_int_equal(p.err, FERRY_OK);
    assert_true(p.args.has_command);
    assert_int_equal(p.args.command, COMMAND_TOPIC_CREATE);
    p = PARSE("-h");
    assert_true(args_has(&p.args, OPT_HELP));
}

/* So that the error can be told as JSON. */
static void json_is_seen_although_another_option_is_wrong(void **state)
{
    (void)state;
    struct parsed p = PARSE("topic", "list", "--bogus", "--json");
    assert_int_equal(p.err, FERRY_ERR_UNKNOWN_OPTION);
    assert_non_null(strstr(p.detail.text, "--bogus"));
    assert_true(args_has(&p.args, OPT_JSON));
}

static void too_many_options_are_refused_not_written_past_the_end(void **state)
{
    (void)state;
    static char *argv[4 * ARGS_OPTIONS_MAX];
    int argc = 0;
    argv[argc++] = "ferry";
    argv[argc++] = "produce";
    argv[argc++] = "t";
    for (int i = 0; i <= ARGS_OPTIONS_MAX; i++) {
        argv[argc++] = "--header";
        argv[argc++] = "a=b";
        argv[argc++] = "-h";
    }
    struct args args;
    struct err_text e;
    assert_int_equal(args_parse(&args, argc, argv, &e), FERRY_ERR_INVALID_ARGUMENT);
}

/* The table is ours: every row is filled, and help of every command names every option of it. */
static void help_of_every_command_names_its_options(void **state)
{
    (void)state;
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        assert_non_null(out);
        const struct command_spec *command = command_spec_of(id);
        command_print_help(out, command);
        fclose(out);
        assert_non_null(strstr(text, command->summary));
        for (enum option_id option = OPT_NONE + 1; option < OPT_COUNT_OF_OPTIONS; option++) {
            const struct option_spec *spec = command_option_of(option);
            char name[64];
            snprintf(name, sizeof(name), "\n  --%s%s", spec->name,
                     spec->values != NULL ? " " : "\n");
            assert_int_equal(strstr(text, name) != NULL, command_takes(command, option));
        }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_is_found_by_its_words),
        cmocka_unit_test(every_command_of_the_table_is_reachable),
        cmocka_unit_test(global_options_stand_before_or_after_the_command),
        cmocka_unit_test(a_mistyped_option_is_refused_and_the_right_one_offered),
        cmocka_unit_test(an_option_of_another_command_is_refused),
        cmocka_unit_test(a_mistyped_command_is_refused_and_the_right_one_offered),
        cmocka_unit_test(numbers_out_of_bounds_or_with_letters_are_refused),
        cmocka_unit_test(a_missing_word_a_surplus_word_and_a_missing_value_are_refused),
        cmocka_unit_test(an_option_may_repeat_only_where_that_means_something),
        cmocka_unit_test(an_option_with_several_values_takes_the_words_after_it),
        cmocka_unit_test(a_value_may_begin_with_a_dash),
        cmocka_unit_test(help_needs_nothing_else),
        cmocka_unit_test(json_is_seen_although_another_option_is_wrong),
        cmocka_unit_test(too_many_options_are_refused_not_written_past_the_end),
        cmocka_unit_test(help_of_every_command_names_its_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
