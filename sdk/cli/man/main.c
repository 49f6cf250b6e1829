/* main: writes the manual pages into a folder, at build time.
 *
 *   ferry_man FOLDER */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/man/pages.h"

static int fail(const char *path)
{
    fprintf(stderr, "ferry_man: %s: %s\n", path, strerror(errno));
    return 1;
}

static FILE *open_page(const char *folder, const char *name, char *path, size_t path_bytes)
{
    (void)snprintf(path, path_bytes, "%s/%s.1", folder, name);
    return fopen(path, "w");
}

int main(int argc, char **argv)
{
    char path[4096], name[PAGE_NAME_BYTES];
    if (argc != 2) {
        fputs("usage: ferry_man FOLDER\n", stderr);
        return 2;
    }
    FILE *out = open_page(argv[1], "ferry", path, sizeof(path));
    if (out == NULL) {
        return fail(path);
    }
    page_print_overview(out);
    bool written = fclose(out) == 0;
    for (enum command_id id = 0; id < COMMAND_COUNT && written; id++) {
        page_name(command_spec_of(id), name);
        out = open_page(argv[1], name, path, sizeof(path));
        if (out == NULL) {
            return fail(path);
        }
        page_print_command(out, command_spec_of(id));
        written = fclose(out) == 0;
    }
    return written ? 0 : fail(path);
}
