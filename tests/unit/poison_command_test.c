/* relay.poison_command: real programs are asked, and whatever they do there is an answer in time.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "outbox/relay/poison_command.h"

struct fixture {
    char folder[40];
    char script[60];
    struct relay_options options;
    struct ferry_message message;
    struct ferry_header header;
    struct relay_refusal refusal;
    struct poison_question question;
    struct err_text e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    signal(SIGPIPE, SIG_IGN);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/ferry_poison_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->script, sizeof(f->script), "%s/decide", f->folder);
    option_defaults(relay_options_table(), &f->options);
    (void)snprintf(f->options.poison_command, sizeof(f->options.poison_command), "  %s  a  b ",
                   f->script);
    f->header = (struct ferry_header){"trace", "\x01\x02", 2};
    f->message = (struct ferry_message){.topic = "or\"ders",
                                        .key = "k",
                                        .key_bytes = 1,
                                        .payload = "paid",
                                        .payload_bytes = 4,
                                        .headers = &f->header,
                                        .header_count = 1};
    f->refusal =
        (struct relay_refusal){.number = 7, .message = &f->message, .reason = "too\nlarge"};
    f->question = (struct poison_question){.database = "shop", .lane = 3, .refusal = &f->refusal};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char path[80];
    unlink(f->script);
    (void)snprintf(path, sizeof(path), "%s/seen", f->folder);
    unlink(path);
    rmdir(f->folder);
    free(f);
    return 0;
}

static enum relay_poison ask(struct fixture *f, const char *script)
{
    FILE *file = fopen(f->script, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", script);
    fclose(file);
    assert_int_equal(chmod(f->script, 0700), 0);
    f->e.text[0] = '\0';
    return poison_command_ask(&f->options, &f->question, &f->e);
}

/* The first word decides; without one the exit code does. */
static void a_word_or_an_exit_code_is_the_answer(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, "cat >/dev/null; echo dead because"), RELAY_POISON_DEAD);
    assert_int_equal(ask(f, "echo ' park'; exit 77"), RELAY_POISON_PARK_KEY);
    assert_int_equal(ask(f, "echo block"), RELAY_POISON_BLOCK);
    assert_int_equal(ask(f, "exit 0"), RELAY_POISON_DEAD);
    assert_int_equal(ask(f, "exit 1"), RELAY_POISON_PARK_KEY);
    assert_int_equal(ask(f, "cat >/dev/null; exit 2"), RELAY_POISON_BLOCK);
    assert_string_equal(f->e.text, "");
}

/* Anything else is no answer: the row waits, and a person reads why. */
static void no_answer_is_to_ask_again(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, "echo maybe"), RELAY_POISON_CALLBACK);
    assert_non_null(strstr(f->e.text, "maybe"));
    assert_int_equal(ask(f, "exit 3"), RELAY_POISON_CALLBACK);
    assert_non_null(strstr(f->e.text, "exit code 3"));
    assert_int_equal(ask(f, "kill -9 $$"), RELAY_POISON_CALLBACK);
    assert_non_null(strstr(f->e.text, "signal 9"));
    (void)snprintf(f->options.poison_command, sizeof(f->options.poison_command), "/nowhere/at/all");
    assert_int_equal(ask(f, ""), RELAY_POISON_CALLBACK);
    assert_non_null(strstr(f->e.text, "/nowhere/at/all"));
}

/* A program that hangs, or that leaves a child with the pipe, is ended with all it started. */
static void a_program_that_hangs_is_ended(void **state)
{
    struct fixture *f = *state;
    f->options.poison_command_ms = 200;
    int64_t from_us = clock_monotonic_us();
    assert_int_equal(ask(f, "sleep 60 & sleep 60"), RELAY_POISON_CALLBACK);
    assert_non_null(strstr(f->e.text, "200 ms"));
    assert_int_equal(ask(f, "exec >&-; sleep 60"), RELAY_POISON_CALLBACK);
    assert_true(clock_monotonic_us() - from_us < 10 * 1000 * 1000);
}

/* The question reaches the program whole, its arguments are words, and our options stay with us. */
static void the_program_gets_the_row_and_no_secrets(void **state)
{
    struct fixture *f = *state;
    char seen[800] = "", path[80], script[200];
    setenv("FERRY_OUTBOX_RELAY_DB", "postgresql://u:geheim@h/d", 1);
    (void)snprintf(path, sizeof(path), "%s/seen", f->folder);
    (void)snprintf(script, sizeof(script), "{ cat; echo \"$1$2$#\"; env; } > %s; echo park", path);
    assert_int_equal(ask(f, script), RELAY_POISON_PARK_KEY);
    unsetenv("FERRY_OUTBOX_RELAY_DB");
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t bytes = fread(seen, 1, sizeof(seen) - 1, file);
    fclose(file);
    assert_true(bytes > 0);
    assert_null(strstr(seen, "geheim"));
    static const char *const wanted[] = {
        "\"database\":\"shop\",\"lane\":3,\"number\":7,\"reason\":\"too\\u000alarge\"",
        "\"topic\":\"or\\\"ders\"",
        "\"key\":\"aw==\"",
        "{\"name\":\"trace\",\"value\":\"AQI=\"}",
        "\"payload\":\"cGFpZA==\"}\nab2\n",
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        assert_non_null(strstr(seen, wanted[i]));
    }
}

/* A row larger than a pipe, and a program that reads none of it. */
static void a_large_row_does_not_hang_anything(void **state)
{
    struct fixture *f = *state;
    char *payload = calloc(1, 1u << 20);
    assert_non_null(payload);
    f->message.payload = payload;
    f->message.payload_bytes = 1u << 20;
    assert_int_equal(ask(f, "echo dead"), RELAY_POISON_DEAD);
    assert_int_equal(ask(f, "[ $(wc -c) -gt 1398100 ] && echo block"), RELAY_POISON_BLOCK);
    free(payload);
}

/* Of what cannot be a message only its number, topic and reason are told. */
static void an_invalid_row_is_told_without_its_content(void **state)
{
    struct fixture *f = *state;
    struct buf out;
    f->refusal.invalid = true;
    buf_init(&out, 10000);
    poison_question_json(&out, &f->question);
    assert_true(buf_ok(&out));
    assert_null(memmem(out.data, out.size, "payload", 7));
    assert_non_null(memmem(out.data, out.size, "\"number\":7", 10));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_word_or_an_exit_code_is_the_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(no_answer_is_to_ask_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_program_that_hangs_is_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(the_program_gets_the_row_and_no_secrets, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_row_does_not_hang_anything, setup, teardown),
        cmocka_unit_test_setup_teardown(an_invalid_row_is_told_without_its_content, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
