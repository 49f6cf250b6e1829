/* Configuration files: any bytes end in values within their bounds or in problems for a person. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct values {
    bool flag;
    int64_t number, bytes, wait_ms, choice;
    char text[17];
};

static const struct option_row rows[] = {
    {"node.flag", OPTION_BOOL, offsetof(struct values, flag), 0, 0, "false", NULL, "A flag."},
    {"node.number", OPTION_INT, offsetof(struct values, number), -5, 100, "7", NULL, "A number."},
    {"node.bytes", OPTION_BYTES, offsetof(struct values, bytes), 1, 1 << 30, "1M", NULL, "A size."},
    {"log.wait_ms", OPTION_MS, offsetof(struct values, wait_ms), 0, 60000, "5s", NULL, "A time."},
    {"log.choice", OPTION_CHOICE, offsetof(struct values, choice), 0, 0, "b", "a|b|c", "A word."},
    {"log.text", OPTION_TEXT, offsetof(struct values, text), 1, 16, "hello", NULL, "A text."},
};
static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static void check_values(const struct values *v)
{
    must(v->number >= -5 && v->number <= 100);
    must(v->bytes >= 1 && v->bytes <= 1 << 30);
    must(v->wait_ms >= 0 && v->wait_ms <= 60000);
    must(v->choice >= 0 && v->choice <= 2);
    must(memchr(v->text, '\0', sizeof(v->text)) != NULL);
    must(v->text[0] != '\0');
}

/* The loader takes a path: a file in memory has one too. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct values values;
    struct config_problems problems;
    int fd = memfd_create("config", MFD_CLOEXEC);
    must(fd >= 0);
    must(write(fd, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    option_defaults(&table, &values);
    config_problems_init(&problems);
    config_load_file(&table, &values, path, &problems);
    must((problems.count == 0) == (problems.lines.size == 0));
    check_values(&values);
    config_problems_fini(&problems);
    (void)close(fd);
    return 0;
}
