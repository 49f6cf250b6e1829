/* bench_machine: on what a figure was measured, so that it can be compared with another. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/bench.h"

/* The value of the first "model name : …" of /proc/cpuinfo; other machines call it otherwise. */
static void cpu_model(char *text, size_t bytes)
{
    static const char *const names[] = {"model name", "Model", "cpu model", "Hardware"};
    char line[256];
    snprintf(text, bytes, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (f == NULL) {
        return;
    }
    bool found = false;
    while (!found && fgets(line, sizeof(line), f) != NULL) {
        const char *colon = strstr(line, ": ");
        for (size_t i = 0; colon != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
            if (strncmp(line, names[i], strlen(names[i])) == 0) {
                found = true;
                snprintf(text, bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
                break;
            }
        }
    }
    fclose(f);
}

struct file_system {
    uint64_t magic;
    const char *name;
};

/* Of statfs(2); one that is not listed is told as its number. */
static void file_system_name(const char *folder, char *text, size_t bytes)
{
    static const struct file_system known[] = {
        {0xEF53, "ext4"},      {0x58465342, "xfs"},      {0x9123683E, "btrfs"},
        {0x01021994, "tmpfs"}, {0x2FC12FC1, "zfs"},      {0x794C7630, "overlayfs"},
        {0x6969, "nfs"},       {0xF2F52010, "f2fs"},     {0x65735546, "fuse"},
        {0x01021997, "9p"},    {0xCA451A4E, "bcachefs"},
    };
    struct statfs s;
    snprintf(text, bytes, "unknown");
    if (statfs(folder, &s) != 0) {
        return;
    }
    snprintf(text, bytes, "0x%lx", (unsigned long)s.f_type);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if ((uint64_t)s.f_type == known[i].magic) {
            snprintf(text, bytes, "%s", known[i].name);
        }
    }
}

json_t *bench_machine_json(const char *folder)
{
    char text[256];
    struct utsname name;
    json_t *object = output_object();
    cpu_model(text, sizeof(text));
    output_set_text(object, "cpu", text);
    output_set_int(object, "cores", sysconf(_SC_NPROCESSORS_ONLN));
    if (uname(&name) == 0) {
        snprintf(text, sizeof(text), "%s %s", name.sysname, name.release);
        output_set_text(object, "kernel", text);
        output_set_text(object, "machine", name.machine);
    }
    output_set_text(object, "client_version", FERRY_VERSION);
    output_set_text(object, "compiler", __VERSION__);
    output_set_text(object, "jansson", JANSSON_VERSION);
    if (folder != NULL) {
        file_system_name(folder, text, sizeof(text));
        output_set_text(object, "file_system", text);
    }
    return object;
}
