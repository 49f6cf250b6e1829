/* Log lines: one a call, whatever is in the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

/* Runs log_line with standard error in a file and gives what it wrote. */
static size_t capture(const char *area, const char *text, char *line, size_t bytes)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int kept = dup(STDERR_FILENO);
    assert_true(kept >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    log_line(LOG_WARN, area, "%s", text);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(kept);
    rewind(file);
    size_t got = fread(line, 1, bytes - 1, file);
    line[got] = '\0';
    (void)fclose(file);
    return got;
}

static void a_line_has_time_level_area_and_text(void **state)
{
    (void)state;
    char line[4096];
    size_t got = capture("store", "disk is nearly full", line, sizeof(line));
    int year, month, day, hour, minute, second, ms, used = 0;
    assert_int_equal(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ %n", &year, &month, &day, &hour,
                            &minute, &second, &ms, &used),
                     7);
    assert_int_equal(used, strlen("2026-01-02T03:04:05.678Z "));
    assert_string_equal(line + used, "warn store: disk is nearly full\n");
    assert_int_equal(got, strlen(line));
}

static void a_text_too_long_is_cut_and_still_ends_the_line(void **state)
{
    (void)state;
    char text[5000];
    char line[8192];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    size_t got = capture("a", text, line, sizeof(line));
    assert_true(got <= 2048);
    assert_int_equal(line[got - 1], '\n');
    assert_ptr_equal(strchr(line, '\n'), line + got - 1);
    /* An area that long is our mistake, but no reason to crash while telling something. */
    got = capture(text, text, line, sizeof(line));
    assert_true(got <= 2048 && line[got - 1] == '\n');
}

static void control_bytes_cannot_forge_a_second_line(void **state)
{
    (void)state;
    char line[4096];
    size_t got = capture("a", "one\n2026 error: \x1b[31mtwo", line, sizeof(line));
    assert_ptr_equal(strchr(line, '\n'), line + got - 1);
    assert_non_null(strstr(line, "one?2026 error: ?[31mtwo"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_area_and_text),
        cmocka_unit_test(a_text_too_long_is_cut_and_still_ends_the_line),
        cmocka_unit_test(control_bytes_cannot_forge_a_second_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
