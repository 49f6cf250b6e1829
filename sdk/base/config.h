/* config: fills an option table from a file, the environment and the command line.
 *
 * Order, later wins: defaults, file, environment, --set. The file is INI (read by inih: small, in
 * every distribution, and `section.key` is exactly what it parses; libconfig's nesting would buy
 * nothing here). Every problem is collected, not only the first, so that one run of --check shows
 * them all; any problem means: do not start. */
#ifndef FERRY_BASE_CONFIG_H
#define FERRY_BASE_CONFIG_H

#include "base/buf.h"
#include "base/option.h"

/* Lines for a person, one a problem: "broker.conf:12: shard.bogus: no option has that name …". */
struct config_problems {
    struct buf lines;
    size_t count;
};

void config_problems_init(struct config_problems *p);
void config_problems_fini(struct config_problems *p);
void config_problem(struct config_problems *p, const char *format, ...) PRINTF(2, 3);

/* Reads the file into `values`. A file that cannot be read, a line that cannot be parsed or is too
 * long, a key set twice: each a problem with its line number. */
void config_load_file(const struct option_table *t, void *values, const char *path,
                      struct config_problems *p);
/* PREFIX_SECTION_KEY: for prefix FERRYD and option store.max_bytes, FERRYD_STORE_MAX_BYTES. A
 * variable with the prefix that names no option is a problem. */
void config_load_environment(const struct option_table *t, void *values, const char *prefix,
                             char *const *environment, struct config_problems *p);
/* "section.key=value", from --set. */
void config_set_assignment(const struct option_table *t, void *values, const char *assignment,
                           struct config_problems *p);
/* Writes the table as a commented file: each option with its paragraph and default. */
void config_print_reference(const struct option_table *t, struct buf *out);

#endif
