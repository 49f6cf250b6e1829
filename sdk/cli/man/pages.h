/* pages: the manual pages of `ferry` and of each of its commands, from the table in commands.
 *
 * Writes man(7) macros; no I/O but to the given file. The text is the one of --help. */
#ifndef FERRY_CLI_MAN_PAGES_H
#define FERRY_CLI_MAN_PAGES_H

#include "cli/commands.h"

#define PAGE_NAME_BYTES 64

/* "ferry-topic-create", of a command's name. */
void page_name(const struct command_spec *command, char name[PAGE_NAME_BYTES]);
void page_print_command(FILE *out, const struct command_spec *command);
void page_print_overview(FILE *out);

#endif
