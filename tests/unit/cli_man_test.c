/* The manual pages of `ferry`: every command and every option is in them, and they are sound. The
 * sources under test are included; see cli_args_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/commands.c"
#include "cli/man/pages.c"

#define ALL_PAGES (COMMAND_COUNT + 1) /* The last one is that of `ferry` itself. */

/* The caller frees it. */
static char *page(enum command_id id)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    if (id == COMMAND_COUNT) {
        page_print_overview(out);
    } else {
        page_print_command(out, command_spec_of(id));
    }
    fclose(out);
    return text;
}

/* As it stands in a page. */
static void escape(const char *from, char *to)
{
    for (; *from != '\0'; from++) {
        if (*from == '-') {
            *to++ = '\\';
        }
        *to++ = *from;
    }
    *to = '\0';
}

static void every_command_is_in_the_overview(void **state)
{
    (void)state;
    char *text = page(COMMAND_COUNT);
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        char name[128] = "\\fB";
        escape(command_spec_of(id)->name, name + strlen(name));
        if (strstr(text, name) == NULL) {
            fail_msg("%s is not in ferry(1)", command_spec_of(id)->name);
        }
    }
    free(text);
}

static void every_option_is_in_the_page_of_its_command(void **state)
{
    (void)state;
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        char *text = page(id);
        for (enum option_id option = OPT_NONE + 1; option < OPT_COUNT_OF_OPTIONS; option++) {
            char name[128] = "\n\\fB\\-\\-";
            escape(command_option_of(option)->name, name + strlen(name));
            (void)snprintf(name + strlen(name), sizeof(name) - strlen(name), "\\fR");
            assert_int_equal(strstr(text, name) != NULL,
                             command_takes(command_spec_of(id), option));
        }
        free(text);
    }
}

static void a_page_has_its_name_and_its_relatives(void **state)
{
    (void)state;
    char *text = page(COMMAND_DLQ_LIST);
    assert_non_null(strstr(text, ".TH FERRY-DLQ-LIST 1 "));
    assert_non_null(strstr(text, "ferry\\-dlq\\-list \\- lists dead letters"));
    assert_non_null(strstr(text, "\\fBferry dlq list\\fR \\fITOPIC S\\fR [\\fIOPTIONS\\fR]"));
    assert_non_null(strstr(text, "\\fBferry\\-dlq\\-replay\\fR(1)"));
    assert_null(strstr(text, "\\fBferry\\-dlq\\-list\\fR(1)"));
    assert_null(strstr(text, "\\fBferry\\-topic"));
    free(text);
}

static void no_text_is_taken_for_a_request(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    print_line(out, ".so /etc/passwd \\n `a-b`");
    print_line(out, "'quoted");
    fclose(out);
    assert_string_equal(text, "\\&.so /etc/passwd \\en \\fBa\\-b\\fR\n\\&'quoted\n");
    free(text);
}

/* groff names what is wrong on its standard error; a machine without it has nothing to say. */
static void the_formatter_has_no_warnings(void **state)
{
    (void)state;
    if (access("/usr/bin/groff", X_OK) != 0 ||
        system("echo .TH A 1 | groff -man -ww -z >/dev/null 2>&1") != 0) {
        skip();
    }
    char command[256], path[] = "/tmp/ferry-man-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (enum command_id id = 0; id < ALL_PAGES; id++) {
        char *text = page(id);
        size_t bytes = strlen(text);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, text, bytes, 0), bytes);
        (void)snprintf(command, sizeof(command), "! groff -man -ww -z %s 2>&1 | grep .", path);
        if (system(command) != 0) {
            fail_msg("groff complains about page %d", (int)id);
        }
        free(text);
    }
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_is_in_the_overview),
        cmocka_unit_test(every_option_is_in_the_page_of_its_command),
        cmocka_unit_test(a_page_has_its_name_and_its_relatives),
        cmocka_unit_test(no_text_is_taken_for_a_request),
        cmocka_unit_test(the_formatter_has_no_warnings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
