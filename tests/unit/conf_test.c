/* conf/ and the option tables say the same: every option has its place, its paragraph and its
 * default in the file, and the file has no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/config.h"
#include "client/conf.h"
#include "outbox/relay/relay_options.h"
#include "server/options.h"

#define LINE_MAX_BYTES      1024
#define OPTION_NAME_BYTES   128
#define OPTIONS_MAX         128
#define PARAGRAPH_MIN_CHARS 32 /* Less is a label, not a paragraph. */

/* A file of conf/ and the table it shows. */
struct shown {
    const char *file;
    const struct option_table *table;
    size_t values_bytes;
};

static struct shown broker_file(void)
{
    return (struct shown){"ferryd.conf", broker_option_table(), sizeof(struct broker_options)};
}

static struct shown client_file(void)
{
    return (struct shown){"client.conf", &conf_table, sizeof(struct client_options)};
}

static struct shown relay_file(void)
{
    return (struct shown){"ferry-outbox.conf", relay_options_table(), sizeof(struct relay_options)};
}

static FILE *open_shown(const struct shown *s, char *path, size_t bytes)
{
    const char *source = getenv("FERRY_SOURCE");
    assert_non_null(source);
    (void)snprintf(path, bytes, "%s/conf/%s", source, s->file);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    return file;
}

/* One line of the file, as this test sees it. */
struct reading {
    char section[OPTION_NAME_BYTES];
    size_t paragraph_chars; /* Of the comment directly above. */
    char name[LINE_MAX_BYTES + OPTION_NAME_BYTES];
    char value[LINE_MAX_BYTES];
};

/* True when the line is an option behind its '#': "#key = value", no blank after the '#'. */
static bool read_line(struct reading *r, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '[') {
        (void)snprintf(r->section, sizeof(r->section), "%.*s.", (int)strcspn(line + 1, "]"),
                       line + 1);
    }
    if (line[0] == '#' && line[1] == ' ') {
        r->paragraph_chars += strlen(line) - 2;
        return false;
    }
    char *equals = strstr(line, " =");
    if (line[0] != '#' || equals == NULL) {
        r->paragraph_chars = 0;
        return false;
    }
    *equals = '\0';
    const char *value = equals[2] == ' ' ? equals + 3 : equals + 2;
    (void)snprintf(r->name, sizeof(r->name), "%s%s", r->section, line + 1);
    (void)snprintf(r->value, sizeof(r->value), "%s", value);
    return true;
}

static void check_names_and_paragraphs(const struct shown *s)
{
    char path[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    bool seen[OPTIONS_MAX] = {false};
    struct reading r = {.section = ""};
    FILE *file = open_shown(s, path, sizeof(path));
    assert_true(s->table->count <= OPTIONS_MAX);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (!read_line(&r, line)) {
            continue;
        }
        const struct option_row *row = option_find(s->table, r.name);
        if (row == NULL) {
            fail_msg("%s shows %s, which no table has", path, r.name);
            return;
        }
        if (strcmp(row->initial, r.value) != 0) {
            fail_msg("%s: %s is %s in the file and %s in the table", path, r.name, r.value,
                     row->initial);
        }
        if (r.paragraph_chars < PARAGRAPH_MIN_CHARS) {
            fail_msg("%s: %s has no paragraph above it", path, r.name);
        }
        assert_false(seen[row - s->table->rows]);
        seen[row - s->table->rows] = true;
        r.paragraph_chars = 0;
    }
    (void)fclose(file);
    for (size_t i = 0; i < s->table->count; i++) {
        if (!seen[i]) {
            fail_msg("%s does not show %s", path, s->table->rows[i].name);
        }
    }
}

/* Writes the file again with every option in force. */
static void write_uncommented(const struct shown *s, const char *to)
{
    char path[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    FILE *file = open_shown(s, path, sizeof(path));
    FILE *out = fopen(to, "we");
    assert_non_null(out);
    while (fgets(line, sizeof(line), file) != NULL) {
        bool is_option = line[0] == '#' && line[1] != ' ' && strstr(line, " =") != NULL;
        (void)fputs(is_option ? line + 1 : line, out);
    }
    (void)fclose(file);
    assert_int_equal(fclose(out), 0);
}

static void check_same_values(const struct option_table *t, const void *a, const void *b)
{
    for (size_t i = 0; i < t->count; i++) {
        char one[LINE_MAX_BYTES], other[LINE_MAX_BYTES];
        option_format(&t->rows[i], a, one, sizeof(one));
        option_format(&t->rows[i], b, other, sizeof(other));
        assert_string_equal(one, other);
    }
}

static void check_file_loads_to_the_defaults(const struct shown *s)
{
    char to[] = "/tmp/ferry-conf-XXXXXX";
    int fd = mkstemp(to);
    assert_true(fd >= 0);
    (void)close(fd);
    write_uncommented(s, to);

    void *defaults = calloc(1, s->values_bytes);
    void *loaded = calloc(1, s->values_bytes);
    assert_true(defaults != NULL && loaded != NULL);
    struct config_problems problems;
    config_problems_init(&problems);
    option_defaults(s->table, defaults);
    option_defaults(s->table, loaded);
    config_load_file(s->table, loaded, to, &problems);
    (void)unlink(to);
    if (problems.count > 0) {
        fail_msg("%.*s", (int)problems.lines.size, (const char *)problems.lines.data);
    }
    check_same_values(s->table, defaults, loaded);
    config_problems_fini(&problems);
    free(defaults);
    free(loaded);
}

/* The broker. */
static void ferryd_conf_shows_every_option_with_its_default(void **state)
{
    (void)state;
    struct shown s = broker_file();
    check_names_and_paragraphs(&s);
}

static void ferryd_conf_loads_and_changes_nothing(void **state)
{
    (void)state;
    struct shown s = broker_file();
    check_file_loads_to_the_defaults(&s);
}

/* The client library, which reads no file: only what it shows can be wrong. */
static void client_conf_shows_every_option_with_its_default(void **state)
{
    (void)state;
    struct shown s = client_file();
    check_names_and_paragraphs(&s);
}

/* The relay. */
static void ferry_outbox_conf_shows_every_option_with_its_default(void **state)
{
    (void)state;
    struct shown s = relay_file();
    check_names_and_paragraphs(&s);
}

static void ferry_outbox_conf_loads_and_changes_nothing(void **state)
{
    (void)state;
    struct shown s = relay_file();
    check_file_loads_to_the_defaults(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ferryd_conf_shows_every_option_with_its_default),
        cmocka_unit_test(ferryd_conf_loads_and_changes_nothing),
        cmocka_unit_test(client_conf_shows_every_option_with_its_default),
        cmocka_unit_test(ferry_outbox_conf_shows_every_option_with_its_default),
        cmocka_unit_test(ferry_outbox_conf_loads_and_changes_nothing),
    };
    return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
