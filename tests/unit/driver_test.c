/* Which database's library a URL asks for, and what a person is told when it is not there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outbox/relay/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void expect_scheme(const char *url, const char *wanted)
{
    char scheme[OUTBOX_SCHEME_MAX + 1] = "";
    struct err_text e = {{0}};
    assert_int_equal(outbox_url_scheme(url, scheme, &e), FERRY_OK);
    assert_string_equal(scheme, wanted);
}

/* Both common words of a database lead to its one driver. */
static void a_url_names_its_driver(void **state)
{
    (void)state;
    expect_scheme("sqlite:/var/lib/shop.db", "sqlite");
    expect_scheme("postgresql://ferry@db/shop", "postgresql");
    expect_scheme("postgres://ferry@db/shop", "postgresql");
    expect_scheme("mariadb://ferry@db/shop", "mariadb");
    expect_scheme("mysql://ferry@db/shop", "mariadb");
}

/* What is no URL is told with the right forms, and never with what may be a password. */
static void a_wrong_url_shows_the_right_forms(void **state)
{
    static const char *const wrong[] = {"",
                                        "shop.db",
                                        "oracle://ferry:geheim@db/shop",
                                        "postgresql:geheim",
                                        "ferry:geheim@db",
                                        "mysql:/geheim",
                                        "sqlit:geheim",
                                        "host=db password=geheim"};
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char scheme[OUTBOX_SCHEME_MAX + 1] = "";
        struct err_text e = {{0}};
        const struct outbox_driver *driver = NULL;
        assert_int_equal(outbox_url_scheme(wrong[i], scheme, &e), FERRY_ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(e.text, "sqlite:PATH"));
        assert_non_null(strstr(e.text, "mariadb://"));
        assert_null(strstr(e.text, "geheim"));
        assert_int_equal(outbox_driver_load(wrong[i], &driver, &e), FERRY_ERR_INVALID_ARGUMENT);
        assert_null(driver);
    }
}

/* A password with a '/' or '@' of its own ends up in the name of a host, a port or a database. */
static void a_password_that_is_not_escaped_is_not_shown(void **state)
{
    static const char *const wrong[] = {
        "postgresql://ferry:ge/heim@db/shop", "postgresql://ferry:ge@heim@db/shop",
        "mariadb://ferry:ge/heim@db/shop", "mariadb://ferry:ge/heim@db"};
    (void)state;
    setenv("FERRY_DRIVERS", getenv("FERRY_BIN"), 1);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char shown[200] = "";
        struct err_text e = {{0}};
        const struct outbox_driver *driver = NULL;
        if (outbox_driver_load(wrong[i], &driver, &e) != FERRY_OK) {
            continue; /* Built without this database. */
        }
        assert_int_equal(driver->url_check(wrong[i], shown, sizeof(shown), &e),
                         FERRY_ERR_INVALID_ARGUMENT);
        assert_null(strstr(e.text, "heim"));
        assert_null(strstr(shown, "heim"));
    }
}

/* The built library is found, is of this build, and is the same one however often it is asked for.
 */
static void a_driver_is_loaded_once(void **state)
{
    const struct outbox_driver *driver = NULL, *again = NULL;
    char shown[200];
    struct err_text e = {{0}};
    uint32_t lanes = 0;
    (void)state;
    setenv("FERRY_DRIVERS", getenv("FERRY_BIN"), 1);
    assert_int_equal(outbox_driver_load("sqlite:a.db", &driver, &e), FERRY_OK);
    assert_int_equal(outbox_driver_load("sqlite:b.db", &again, &e), FERRY_OK);
    assert_ptr_equal(driver, again);
    assert_int_equal(driver->abi, OUTBOX_DRIVER_ABI);
    assert_int_equal(driver->url_check("sqlite:a.db", shown, sizeof(shown), &e), FERRY_OK);
    assert_string_equal(shown, "sqlite:a.db");
    assert_int_equal(driver->url_check("sqlite:", shown, sizeof(shown), &e),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(driver->lanes("sqlite:a.db", &lanes, &e), FERRY_OK);
    assert_int_equal(lanes, 1);
}

/* Whoever has said the name takes the words after it. */
static void a_name_is_said_once(void **state)
{
    (void)state;
    assert_string_equal(source_words("mariadb://u@h/d", "mariadb://u@h/d: gone"), "gone");
    assert_string_equal(source_words("sqlite:/a.db", "sqlite:/a.db: gone"), "gone");
    assert_string_equal(source_words("sqlite:/a.db", "/a.db: gone"), "gone");
    assert_string_equal(source_words("sqlite:/a.db", "/a.db-wal: gone"), "/a.db-wal: gone");
    assert_string_equal(source_words("sqlite:/a.db", "gone"), "gone");
    assert_string_equal(source_words("sqlite:/a.db", "/a.db"), "/a.db");
    assert_string_equal(source_words("sqlite:", ": gone"), ": gone");
    assert_string_equal(source_words("", ": gone"), ": gone");
}

/* A library that cannot be loaded hides no other: the person learns what to install. */
static void a_library_that_does_not_load_says_what_to_install(void **state)
{
    char folder[] = "/tmp/ferry_driver_XXXXXX";
    char path[200];
    const struct outbox_driver *driver = NULL;
    struct err_text e = {{0}};
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/libferry_outbox_mariadb.so", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("not a library", file);
    fclose(file);
    setenv("FERRY_DRIVERS", folder, 1);
    assert_int_equal(outbox_driver_load("mariadb://x@y/z", &driver, &e), FERRY_ERR_NOT_READY);
    assert_non_null(strstr(e.text, "libmariadb3"));
    assert_non_null(strstr(e.text, path));
    assert_null(driver);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_url_names_its_driver),
        cmocka_unit_test(a_wrong_url_shows_the_right_forms),
        cmocka_unit_test(a_password_that_is_not_escaped_is_not_shown),
        cmocka_unit_test(a_driver_is_loaded_once),
        cmocka_unit_test(a_name_is_said_once),
        cmocka_unit_test(a_library_that_does_not_load_says_what_to_install),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
