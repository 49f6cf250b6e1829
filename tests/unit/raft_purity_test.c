/* The core is pure by its text: it includes base headers and its own, and names nothing that does
 * I/O, reads a clock, draws foreign randomness, or starts a thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096
#define LINE_BYTES 1024

static bool has_suffix(const char *text, const char *suffix)
{
    size_t length = strlen(text);
    size_t wanted = strlen(suffix);
    return length >= wanted && strcmp(text + length - wanted, suffix) == 0;
}

static bool is_word_byte(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* True when the line calls `name`, as a whole word followed by a parenthesis. */
static bool calls(const char *line, const char *name)
{
    for (const char *at = strstr(line, name); at != NULL; at = strstr(at + 1, name)) {
        bool begins = at == line || !is_word_byte(at[-1]);
        if (begins && at[strlen(name)] == '(') {
            return true;
        }
    }
    return false;
}

static bool include_is_allowed(const char *line)
{
    static const char *const allowed[] = {"\"base/",     "\"raft/",    "<string.h>",
                                          "<stdbool.h>", "<stddef.h>", "<stdint.h>"};
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
        if (strncmp(line + strlen("#include "), allowed[i], strlen(allowed[i])) == 0) {
            return strstr(line, "base/log.h") == NULL && strstr(line, "base/clock.h") == NULL;
        }
    }
    return false;
}

static void check_line(const char *path, int number, const char *line)
{
    static const char *const banned[] = {
        "printf",        "fprintf",      "snprintf",      "puts",           "fopen",       "open",
        "read",          "write",        "send",          "recv",           "time",        "clock",
        "clock_gettime", "gettimeofday", "clock_mono_us", "clock_wall_ms",  "rand",        "random",
        "srand",         "getrandom",    "id_gen_init",   "pthread_create", "thrd_create", "getenv",
        "log_line",      "malloc",       "calloc",        "realloc",        "free",        "sleep",
        "usleep",        "nanosleep"};
    if (strncmp(line, "#include ", strlen("#include ")) == 0 && !include_is_allowed(line)) {
        fail_msg("%s:%d: not for the core: %s", path, number, line);
    }
    for (size_t i = 0; i < sizeof(banned) / sizeof(banned[0]); i++) {
        if (calls(line, banned[i])) {
            fail_msg("%s:%d: calls %s", path, number, banned[i]);
        }
    }
    if (strstr(line, "float ") != NULL || strstr(line, "double ") != NULL) {
        fail_msg("%s:%d: floating point: %s", path, number, line);
    }
}

static void check_file(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[LINE_BYTES];
    for (int number = 1; fgets(line, sizeof(line), file) != NULL; number++) {
        check_line(path, number, line);
    }
    fclose(file);
}

static void the_core_includes_base_alone_and_calls_nothing_outside(void **state)
{
    (void)state;
    const char *source = getenv("FERRY_SOURCE");
    if (source == NULL) {
        print_message("FERRY_SOURCE is not set: run by ctest\n");
        skip();
    }
    char folder[PATH_BYTES];
    (void)snprintf(folder, sizeof(folder), "%s/broker/raft", source);
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int files = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (has_suffix(entry->d_name, ".c") || has_suffix(entry->d_name, ".h")) {
            char path[2 * PATH_BYTES];
            (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
            check_file(path);
            files++;
        }
    }
    closedir(dir);
    assert_true(files >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_core_includes_base_alone_and_calls_nothing_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
