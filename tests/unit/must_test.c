/* The assertion that stays on: it says where, and the process ends. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/must.h"

static void what_holds_goes_on(void **state)
{
    (void)state;
    int evaluated = 0;
    must(++evaluated == 1);
    assert_int_equal(evaluated, 1);
}

/* The child's standard error is a pipe: the text is what somebody will report. */
static void what_does_not_hold_says_where_and_aborts(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(ends[1], STDERR_FILENO);
        must(1 + 1 == 3);
        _exit(0);
    }
    (void)close(ends[1]);
    char text[512] = {0};
    size_t used = 0;
    ssize_t got;
    while ((got = read(ends[0], text + used, sizeof(text) - 1 - used)) > 0) {
        used += (size_t)got;
    }
    (void)close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "must(1 + 1 == 3) does not hold"));
    assert_non_null(strstr(text, "must_test.c:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_holds_goes_on),
        cmocka_unit_test(what_does_not_hold_says_where_and_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
