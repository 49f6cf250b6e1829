/* The databases a relay is to serve: lists with commas inside URLs, files, and no password
 * anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "outbox/relay/relay_urls.h"

struct fixture {
    struct relay_urls urls;
    struct config_problems problems;
    char path[64]; /* Of a file, if the test wrote one. */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    setenv("FERRY_DRIVERS", getenv("FERRY_BIN"), 1);
    assert_int_equal(relay_urls_init(&f->urls), FERRY_OK);
    config_problems_init(&f->problems);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    relay_urls_fini(&f->urls);
    config_problems_fini(&f->problems);
    if (f->path[0] != '\0') {
        unlink(f->path);
    }
    free(f);
    return 0;
}

static void write_file(struct fixture *f, const char *text)
{
    (void)snprintf(f->path, sizeof(f->path), "/tmp/ferry_urls_XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static bool told(const struct fixture *f, const char *text)
{
    return f->problems.lines.size > 0 &&
           memmem(f->problems.lines.data, f->problems.lines.size, text, strlen(text)) != NULL;
}

/* A comma that no URL follows is part of the path before it. */
static void a_list_may_have_commas_inside_its_urls(void **state)
{
    struct fixture *f = *state;
    relay_urls_add_list(&f->urls, "relay.db", " sqlite:/a,b.db , sqlite:/c.db,sqlite:/d,e,f.db,",
                        &f->problems);
    assert_int_equal(f->problems.count, 0);
    assert_int_equal(f->urls.count, 3);
    assert_string_equal(f->urls.items[0].url, "sqlite:/a,b.db");
    assert_string_equal(f->urls.items[1].url, "sqlite:/c.db");
    assert_string_equal(f->urls.items[2].url, "sqlite:/d,e,f.db");
}

/* The same database from two places is served once. */
static void a_database_is_added_once(void **state)
{
    struct fixture *f = *state;
    relay_urls_add(&f->urls, "--db", "sqlite:/a.db", &f->problems);
    relay_urls_add_list(&f->urls, "relay.db", "sqlite:/a.db,sqlite:/b.db", &f->problems);
    assert_int_equal(f->problems.count, 0);
    assert_int_equal(f->urls.count, 2);
}

/* A file has a URL a line, blank lines and comments. */
static void a_file_names_urls(void **state)
{
    struct fixture *f = *state;
    char list[100];
    write_file(f, "# ours\n\n  sqlite:/a,b.db  \r\nsqlite:/c.db\n");
    (void)snprintf(list, sizeof(list), "@%s, sqlite:/d.db", f->path);
    relay_urls_add_list(&f->urls, "relay.db", list, &f->problems);
    assert_int_equal(f->problems.count, 0);
    assert_int_equal(f->urls.count, 3);
    assert_string_equal(f->urls.items[0].url, "sqlite:/a,b.db");
    assert_string_equal(f->urls.items[2].url, "sqlite:/d.db");
}

/* Everything that is wrong is told at once; the secret is in none of it. */
static void what_is_wrong_is_told_without_passwords(void **state)
{
    struct fixture *f = *state;
    write_file(f, "# nothing\n");
    char list[200];
    (void)snprintf(list, sizeof(list), "shop.db,@%s,@/nowhere/urls,sqlite:", f->path);
    relay_urls_add_list(&f->urls, "relay.db", list, &f->problems);
    relay_urls_add(&f->urls, "--db", "oracle://u:geheim@h/d", &f->problems);
    assert_int_equal(f->urls.count, 0);
    assert_int_equal(f->problems.count, 5);
    assert_true(told(f, "has no URL"));
    assert_true(told(f, "/nowhere/urls: No such file"));
    assert_true(told(f, "sqlite:PATH"));
    assert_false(told(f, "geheim"));
}

static void too_many_databases_are_refused(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i <= RELAY_DATABASES_MAX; i++) {
        char url[40];
        (void)snprintf(url, sizeof(url), "sqlite:/%d.db", i);
        relay_urls_add(&f->urls, "--db", url, &f->problems);
    }
    assert_int_equal(f->urls.count, RELAY_DATABASES_MAX);
    assert_int_equal(f->problems.count, 1);
    assert_true(told(f, "at most 64"));
}

static void expect_only(struct fixture *f, const char *file, enum ferry_err wanted,
                        const char *words)
{
    char text[80];
    char url[OUTBOX_URL_MAX + 1] = "";
    struct err_text e = {.text = ""};
    write_file(f, file);
    (void)snprintf(text, sizeof(text), "@%s", f->path);
    assert_int_equal(relay_url_only(text, url, &e), wanted);
    assert_non_null(strstr(wanted == FERRY_OK ? url : e.text, words));
    assert_null(strstr(e.text, "geheim"));
    unlink(f->path);
}

/* What the command line takes: one URL, as it is or in a file. */
static void one_url_is_taken_from_a_file(void **state)
{
    struct fixture *f = *state;
    char url[OUTBOX_URL_MAX + 1];
    char *long_url = malloc(OUTBOX_URL_MAX + 2);
    struct err_text e = {.text = ""};
    assert_int_equal(relay_url_only("sqlite:/a.db", url, &e), FERRY_OK);
    assert_string_equal(url, "sqlite:/a.db");
    expect_only(f, "# the shop's\n\n \tmariadb://u:geheim@h/d \r\n", FERRY_OK,
                "mariadb://u:geheim@h/d");
    expect_only(f, "# nothing\n", FERRY_ERR_INVALID_ARGUMENT, "has no URL");
    expect_only(f, "sqlite:/a.db\nmariadb://u:geheim@h/d\n", FERRY_ERR_INVALID_ARGUMENT,
                "several URLs");
    assert_int_equal(relay_url_only("@/no/such/file", url, &e), FERRY_ERR_INVALID_ARGUMENT);
    assert_string_equal(e.text, "/no/such/file: No such file or directory");
    assert_non_null(long_url);
    memset(long_url, 'x', OUTBOX_URL_MAX + 1);
    long_url[OUTBOX_URL_MAX + 1] = '\0';
    assert_int_equal(relay_url_only(long_url, url, &e), FERRY_ERR_INVALID_ARGUMENT);
    expect_only(f, long_url, FERRY_ERR_INVALID_ARGUMENT, "at most 4000 bytes");
    free(long_url);
}

static void expect_hidden(const char *url, const char *wanted)
{
    char text[100];
    (void)snprintf(text, sizeof(text), "%s", url);
    relay_url_hide(text);
    assert_string_equal(text, wanted);
}

/* In the list of processes the password is stars, wherever it stands. */
static void a_password_in_an_argument_is_overwritten(void **state)
{
    (void)state;
    expect_hidden("postgresql://u:geheim@h:5432/d", "postgresql://u:******@h:5432/d");
    expect_hidden("mariadb://u:a/b@c@h/d", "mariadb://u:*****@h/d");
    expect_hidden("postgresql://u@h/d?password=xyz&x=1", "postgresql://u@h/d?password=***&x=1");
    expect_hidden("postgresql://u@h:5432/d", "postgresql://u@h:5432/d");
    expect_hidden("sqlite:/a:b@c.db", "sqlite:/a:b@c.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_list_may_have_commas_inside_its_urls, setup, teardown),
        cmocka_unit_test_setup_teardown(a_database_is_added_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_names_urls, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_told_without_passwords, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_databases_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(one_url_is_taken_from_a_file, setup, teardown),
        cmocka_unit_test(a_password_in_an_argument_is_overwritten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
