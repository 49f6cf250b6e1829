/* Configuration: from the file, the environment and the command line; every problem, exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/config.h"
#include "base/mem.h"

struct values {
    int64_t max_bytes;
    int64_t keep_ms;
    int64_t count;
    int64_t mode;
    bool sync;
    char name[9];
};

static const struct option_row rows[] = {
    {"store.max_bytes", OPTION_BYTES, offsetof(struct values, max_bytes), 4096, INT64_C(1) << 40,
     "1M", NULL,
     "Most bytes of the log on disk. Raise it where messages must be kept for longer than the disk "
     "space of the default allows."},
    {"store.keep", OPTION_MS, offsetof(struct values, keep_ms), -1, INT64_MAX, "7d", NULL,
     "How long messages are kept; -1 is for ever."},
    {"shard.count", OPTION_INT, offsetof(struct values, count), 1, 64, "2", NULL,
     "Threads that own partitions."},
    {"shard.mode", OPTION_CHOICE, offsetof(struct values, mode), 0, 0, "fair", "fast|fair|far",
     "Who goes first."},
    {"shard.sync", OPTION_BOOL, offsetof(struct values, sync), 0, 0, "true", NULL,
     "Whether writes reach the disk."},
    {"shard.name", OPTION_TEXT, offsetof(struct values, name), 0, 8, "", NULL,
     "What people call it."},
};
static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

#define PATH_BYTES 256

/* A folder of its own for each test, with one file in it. */
struct fixture {
    char folder[PATH_BYTES];
    char path[PATH_BYTES + 16];
    struct values values;
    struct config_problems problems;
};

static int make_folder(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL) {
        return -1;
    }
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(f->folder, sizeof(f->folder), "%s/ferry-config-XXXXXX",
                   tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(f->folder) == NULL) {
        mem_free(f);
        return -1;
    }
    (void)snprintf(f->path, sizeof(f->path), "%s/broker.conf", f->folder);
    option_defaults(&table, &f->values);
    config_problems_init(&f->problems);
    *state = f;
    return 0;
}

static int remove_folder(void **state)
{
    struct fixture *f = *state;
    (void)unlink(f->path);
    (void)rmdir(f->folder);
    config_problems_fini(&f->problems);
    mem_free(f);
    return 0;
}

static void load_bytes(struct fixture *f, const char *content, size_t bytes)
{
    FILE *file = fopen(f->path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    config_load_file(&table, &f->values, f->path, &f->problems);
}

static void load(struct fixture *f, const char *content)
{
    load_bytes(f, content, strlen(content));
}

static void load_environment(struct fixture *f, const char *entry)
{
    char *environment[] = {(char *)(uintptr_t) "PATH=/bin", (char *)(uintptr_t)entry, NULL};
    config_load_environment(&table, &f->values, "FERRYD", environment, &f->problems);
}

/* The problems are exactly `expected`, where '@' stands for the path of the file. */
static void check_problems(const struct fixture *f, const char *expected)
{
    struct buf text;
    size_t count = 0;
    buf_init(&text, 64 * 1024);
    for (const char *c = expected; *c != '\0'; c++) {
        if (*c == '@') {
            buf_printf(&text, "%s", f->path);
        } else {
            buf_append_u8(&text, (uint8_t)*c);
        }
        count += *c == '\n' ? 1 : 0;
    }
    buf_append_u8(&text, 0);
    char shown[16 * 1024];
    (void)snprintf(shown, sizeof(shown), "%.*s", (int)f->problems.lines.size,
                   f->problems.lines.data != NULL ? (const char *)f->problems.lines.data : "");
    assert_string_equal(shown, (const char *)text.data);
    assert_int_equal(f->problems.count, count);
    buf_fini(&text);
}

/* ---- The file ------------------------------------------------------------------------------- */

static void a_good_file_sets_what_it_names(void **state)
{
    struct fixture *f = *state;
    load(f, "\xEF\xBB\xBF# by hand\n"
            "\n"
            "[store]\r\n"
            "max_bytes = 2G ; plenty\r\n"
            "   keep: 3d\n"
            "; a remark\n"
            "[shard] # two\n"
            "count=4\n"
            "\tmode =far\n"
            "name = a = b\n"
            "sync = off");
    check_problems(f, "");
    assert_int_equal(f->values.max_bytes, INT64_C(2) << 30);
    assert_int_equal(f->values.keep_ms, 3 * 24 * 3600 * 1000);
    assert_int_equal(f->values.count, 4);
    assert_int_equal(f->values.mode, 2);
    assert_string_equal(f->values.name, "a = b");
    assert_false(f->values.sync);
}

static void an_empty_file_changes_nothing(void **state)
{
    struct fixture *f = *state;
    load(f, "");
    check_problems(f, "");
    assert_int_equal(f->values.count, 2);
}

static void every_problem_is_told_with_its_line(void **state)
{
    struct fixture *f = *state;
    load(f, "count = 1\n"
            "[shard]\n"
            "bogus = 1\n"
            "cuont = 3\n"
            "mode = slow\n"
            "what is this\n"
            "count = 3\n"
            "count = 4\n"
            "[store\n"
            "[sto re]\n"
            "[] \n"
            "[store] max_bytes = 1\n"
            "= 5\n"
            "[shop]\n"
            "name = x\n"
            "sync\n");
    check_problems(f, "@:1: count stands before the first [section]\n"
                      "@:3: shard.bogus: no option has that name; conf/ shows them all\n"
                      "@:4: shard.cuont: no option has that name; did you mean shard.count?\n"
                      "@:5: shard.mode: \"slow\" is not allowed; give one of fast|fair|far\n"
                      "@:6: neither [section] nor key = value\n"
                      "@:8: shard.count: is already set on line 7; keep one of them\n"
                      "@:9: a section is written [name], alone on its line\n"
                      "@:10: a section is written [name], alone on its line\n"
                      "@:11: a section is written [name], alone on its line\n"
                      "@:12: a section is written [name], alone on its line\n"
                      "@:13: shard.: no option has that name; conf/ shows them all\n"
                      "@:15: shop.name: no option has that name; did you mean shard.name?\n"
                      "@:16: neither [section] nor key = value\n");
    assert_int_equal(f->values.count, 3);
}

/* INIH would take it for more of the value before, and hide what it says. */
static void an_indented_line_is_a_line_of_its_own(void **state)
{
    struct fixture *f = *state;
    load(f, "[shard]\nname = a\n  bogus = b\n");
    check_problems(f, "@:3: shard.bogus: no option has that name; conf/ shows them all\n");
    assert_string_equal(f->values.name, "a");
}

/* The longest line is read whole; one byte more is a problem, and the next line is read again. */
static void a_line_too_long_is_refused_with_the_limit(void **state)
{
    struct fixture *f = *state;
    char content[1024];
    char padding[200];
    memset(padding, ' ', sizeof(padding));
    (void)snprintf(content, sizeof(content), "[shard]\ncount =%.*s5\nmode =%.*sfar\nsync = no\n",
                   198 - 8, padding, 199 - 9, padding);
    load(f, content);
    check_problems(f, "@:3: the line has 199 bytes; at most 198 are read, so shorten it\n");
    assert_int_equal(f->values.count, 5);
    assert_int_equal(f->values.mode, 1);
    assert_false(f->values.sync);
}

static void a_long_comment_is_no_problem(void **state)
{
    struct fixture *f = *state;
    char content[5000];
    memset(content, 'x', sizeof(content));
    memcpy(content, "[shard]\n#", 9);
    memcpy(content + sizeof(content) - 9, "\ncount=7\n", 9);
    load_bytes(f, content, sizeof(content));
    check_problems(f, "");
    assert_int_equal(f->values.count, 7);
}

static void a_nul_byte_is_a_problem_and_not_the_end(void **state)
{
    struct fixture *f = *state;
    static const char content[] = "[shard]\nco\0unt = 5\n#\0\ncount = 6\n";
    load_bytes(f, content, sizeof(content) - 1);
    check_problems(f, "@:2: holds a NUL byte; is this a text file?\n"
                      "@:3: holds a NUL byte; is this a text file?\n");
    assert_int_equal(f->values.count, 6);
}

static void control_bytes_do_not_reach_the_terminal(void **state)
{
    struct fixture *f = *state;
    load(f, "[shard]\n\x1b[31m = 1\n");
    check_problems(f, "@:2: shard.?[31m: no option has that name; conf/ shows them all\n");
}

static void a_file_that_is_not_there_is_a_problem(void **state)
{
    struct fixture *f = *state;
    config_load_file(&table, &f->values, f->path, &f->problems);
    check_problems(f, "@: cannot be opened: No such file or directory\n");
}

static void a_folder_is_a_problem(void **state)
{
    struct fixture *f = *state;
    config_load_file(&table, &f->values, f->folder, &f->problems);
    assert_int_equal(f->problems.count, 1);
    assert_non_null(
        strstr((const char *)f->problems.lines.data, ": cannot be read: Is a directory\n"));
}

static void a_file_without_end_is_a_problem(void **state)
{
    struct fixture *f = *state;
    config_load_file(&table, &f->values, "/dev/zero", &f->problems);
    check_problems(f, "/dev/zero:1: holds a NUL byte; is this a text file?\n"
                      "/dev/zero: has 1048576 bytes or more; is this a configuration file?\n");
}

static void no_memory_is_a_problem(void **state)
{
    struct fixture *f = *state;
    buf_printf(&f->problems.lines, "%s", ""); /* So that the report itself has room. */
    mem_test_fail_after(1);
    config_load_file(&table, &f->values, f->path, &f->problems);
    mem_test_fail_after(0);
    check_problems(f, "@: out of memory: try again later or lower the limits\n");
}

/* All are counted, also those past the room for their texts. */
static void very_many_problems_are_counted_and_bounded(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 10000; i++) {
        config_problem(&f->problems, "problem %d with a text of some length", i);
    }
    assert_int_equal(f->problems.count, 10000);
    assert_true(f->problems.lines.size <= 64 * 1024);
}

/* ---- Environment and --set ------------------------------------------------------------------ */

static void a_variable_overrides(void **state)
{
    struct fixture *f = *state;
    load_environment(f, "FERRYD_STORE_MAX_BYTES=64K");
    load_environment(f, "FERRYD_SHARD_NAME=a=b");
    check_problems(f, "");
    assert_int_equal(f->values.max_bytes, 65536);
    assert_string_equal(f->values.name, "a=b");
}

static void variables_of_others_are_left_alone(void **state)
{
    struct fixture *f = *state;
    load_environment(f, "FERRYDX_SHARD_COUNT=9");
    load_environment(f, "FERRY_SHARD_COUNT=9");
    load_environment(f, "ferryd_shard_count=9");
    load_environment(f, "FERRYD=9");
    load_environment(f, "FERRYD_SHARD_COUNT");
    check_problems(f, "");
    assert_int_equal(f->values.count, 2);
}

static void a_variable_that_names_no_option_is_a_problem(void **state)
{
    struct fixture *f = *state;
    load_environment(f, "FERRYD_STORE_MAX_BYTE=1");
    load_environment(f, "FERRYD_=1");
    load_environment(f, "FERRYD_shard_count=1");
    load_environment(f, "FERRYD_SHARD_COUNT=lots");
    check_problems(f,
                   "environment: FERRYD_STORE_MAX_BYTE: store.max_byte: no option has that name; "
                   "did you mean store.max_bytes?\n"
                   "environment: FERRYD_: : no option has that name; conf/ shows them all\n"
                   "environment: FERRYD_shard_count: for shard.count write it in capitals, with "
                   "'_' for '.'\n"
                   "environment: FERRYD_SHARD_COUNT: shard.count: \"lots\" is not allowed; give a "
                   "whole number from 1 to 64\n");
}

static void an_assignment_sets(void **state)
{
    struct fixture *f = *state;
    config_set_assignment(&table, &f->values, "shard.count=8", &f->problems);
    config_set_assignment(&table, &f->values, "shard.name=x=y", &f->problems);
    check_problems(f, "");
    assert_int_equal(f->values.count, 8);
    assert_string_equal(f->values.name, "x=y");
}

static void a_bad_assignment_is_a_problem(void **state)
{
    struct fixture *f = *state;
    config_set_assignment(&table, &f->values, "shard.count", &f->problems);
    config_set_assignment(&table, &f->values, "shard.count=", &f->problems);
    config_set_assignment(&table, &f->values, "=8", &f->problems);
    config_set_assignment(&table, &f->values, "shard.coumt=8", &f->problems);
    check_problems(f, "--set shard.count: has no value; write --set section.key=value\n"
                      "--set: shard.count: \"\" is not allowed; give a whole number from 1 to 64\n"
                      "--set: : no option has that name; conf/ shows them all\n"
                      "--set: shard.coumt: no option has that name; did you mean shard.count?\n");
}

static void huge_names_are_only_unknown(void **state)
{
    struct fixture *f = *state;
    static char huge[70000];
    memset(huge, 'A', sizeof(huge) - 1);
    memcpy(huge, "FERRYD_", 7);
    memcpy(huge + sizeof(huge) - 3, "=1", 2);
    load_environment(f, huge);
    config_set_assignment(&table, &f->values, huge, &f->problems);
    assert_int_equal(f->problems.count, 2);
    assert_true(f->problems.lines.size < 2048);
}

/* ---- The reference -------------------------------------------------------------------------- */

static void the_reference_has_a_paragraph_for_every_option(void **state)
{
    struct fixture *f = *state;
    static const struct option_table two = {rows, 3};
    struct buf out;
    assert_int_equal(f->problems.count, 0);
    buf_init(&out, 4096);
    config_print_reference(&two, &out);
    buf_append_u8(&out, 0);
    assert_string_equal(
        (const char *)out.data,
        "[store]\n\n"
        "# Most bytes of the log on disk. Raise it where messages must be kept for\n"
        "# longer than the disk space of the default allows.\n"
        "# Takes a size (bytes, or with K, M or G) from 4K to 1024G.\n"
        "#max_bytes = 1M\n\n"
        "# How long messages are kept; -1 is for ever.\n"
        "# Takes a time (with ms, s, m, h or d), at least -1.\n"
        "#keep = 7d\n\n"
        "[shard]\n\n"
        "# Threads that own partitions.\n"
        "# Takes a whole number from 1 to 64.\n"
        "#count = 2\n");
    buf_fini(&out);
}

/* As printed it sets nothing; with every option uncommented it sets the defaults. */
static void the_reference_is_a_good_file(void **state)
{
    struct fixture *f = *state;
    struct buf out;
    buf_init(&out, 16 * 1024);
    config_print_reference(&table, &out);
    assert_true(buf_ok(&out));
    load_bytes(f, (const char *)out.data, out.size);
    check_problems(f, "");
    for (size_t i = 0; i + 1 < out.size; i++) {
        if (out.data[i] == '#' && out.data[i + 1] != ' ') {
            out.data[i] = ' ';
        }
    }
    struct values before = f->values;
    memset(&f->values.max_bytes, 0, sizeof(f->values.max_bytes));
    load_bytes(f, (const char *)out.data, out.size);
    check_problems(f, "");
    assert_memory_equal(&f->values, &before, sizeof(before));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_good_file_sets_what_it_names, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_empty_file_changes_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(every_problem_is_told_with_its_line, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(an_indented_line_is_a_line_of_its_own, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_line_too_long_is_refused_with_the_limit, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_long_comment_is_no_problem, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_nul_byte_is_a_problem_and_not_the_end, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(control_bytes_do_not_reach_the_terminal, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_there_is_a_problem, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_folder_is_a_problem, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_without_end_is_a_problem, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(no_memory_is_a_problem, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(very_many_problems_are_counted_and_bounded, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_variable_overrides, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(variables_of_others_are_left_alone, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_variable_that_names_no_option_is_a_problem, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(an_assignment_sets, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_bad_assignment_is_a_problem, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(huge_names_are_only_unknown, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(the_reference_has_a_paragraph_for_every_option, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(the_reference_is_a_good_file, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
