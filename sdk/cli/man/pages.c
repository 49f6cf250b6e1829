#include "cli/man/pages.h"

#include <string.h>

#include "ferry.h"

void page_name(const struct command_spec *command, char name[PAGE_NAME_BYTES])
{
    (void)snprintf(name, PAGE_NAME_BYTES, "ferry-%s", command->name);
    for (char *c = name; *c != '\0'; c++) {
        *c = *c == ' ' ? '-' : *c;
    }
}

/* ---- Text ----------------------------------------------------------------------------------- */

/* Words that a terminal shows as they are: no dash becomes a hyphen, no line begins a request.
 * `like this` becomes bold. */
static void print_text(FILE *out, const char *text)
{
    bool bold = false;
    if (text[0] == '.' || text[0] == '\'') {
        fputs("\\&", out);
    }
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '`':
            bold = !bold;
            fputs(bold ? "\\fB" : "\\fR", out);
            break;
        case '-':
            fputs("\\-", out);
            break;
        case '\\':
            fputs("\\e", out);
            break;
        default:
            fputc(*text, out);
        }
    }
}

static void print_line(FILE *out, const char *text)
{
    print_text(out, text);
    fputc('\n', out);
}

static void print_in(FILE *out, char font, const char *text)
{
    fprintf(out, "\\f%c", font);
    print_text(out, text);
    fputs("\\fR", out);
}

static void print_title(FILE *out, const char *name)
{
    fputs(".TH ", out);
    for (const char *c = name; *c != '\0'; c++) {
        fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, out);
    }
    fprintf(out, " 1 \"\" \"Ferry %s\" \"Ferry\"\n", FERRY_VERSION);
}

static void print_name(FILE *out, const char *name, const char *summary)
{
    fputs(".SH NAME\n", out);
    print_text(out, name);
    fputs(" \\- ", out);
    print_line(out, summary);
}

/* ---- Parts ---------------------------------------------------------------------------------- */

static void print_tagged(FILE *out, const enum option_id *ids)
{
    for (; *ids != OPT_NONE; ids++) {
        const struct option_spec *option = command_option_of(*ids);
        fputs(".TP\n\\fB\\-\\-", out);
        print_text(out, option->name);
        fputs("\\fR", out);
        if (option->values != NULL) {
            fputc(' ', out);
            print_in(out, 'I', option->values);
        }
        fputc('\n', out);
        print_line(out, option->text);
    }
}

static void print_exit_codes(FILE *out)
{
    fputs(".SH EXIT STATUS\n", out);
    print_line(out, command_exit_codes());
}

/* What is named in the same words first: topic create with topic list. */
static bool is_related(const struct command_spec *a, const struct command_spec *b)
{
    size_t length = strcspn(a->name, " ");
    return a != b && a->name[length] == ' ' && strncmp(a->name, b->name, length + 1) == 0;
}

static void print_see_also(FILE *out, const struct command_spec *command)
{
    fputs(".SH SEE ALSO\n\\fBferry\\fR(1)", out);
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        char name[PAGE_NAME_BYTES];
        if (is_related(command, command_spec_of(id))) {
            page_name(command_spec_of(id), name);
            fputs(",\n", out);
            print_in(out, 'B', name);
            fputs("(1)", out);
        }
    }
    fputc('\n', out);
}

/* ---- Pages ---------------------------------------------------------------------------------- */

void page_print_command(FILE *out, const struct command_spec *command)
{
    char name[PAGE_NAME_BYTES];
    page_name(command, name);
    print_title(out, name);
    print_name(out, name, command->summary);
    fputs(".SH SYNOPSIS\n\\fBferry ", out);
    print_text(out, command->name);
    fputs("\\fR ", out);
    if (command->positionals[0] != '\0') {
        print_in(out, 'I', command->positionals);
        fputc(' ', out);
    }
    fputs("[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n", out);
    print_line(out, command->text);
    if (command->options[0] != OPT_NONE) {
        fputs(".SH OPTIONS\n", out);
        print_tagged(out, command->options);
    }
    fputs(".SH OPTIONS OF EVERY COMMAND\n", out);
    print_tagged(out, command_global_options());
    print_exit_codes(out);
    print_see_also(out, command);
}

void page_print_overview(FILE *out)
{
    print_title(out, "ferry");
    print_name(out, "ferry", "the command line of the Ferry message queue");
    fputs(".SH SYNOPSIS\n\\fBferry\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]\n"
          ".SH DESCRIPTION\n",
          out);
    print_line(out, "Produces, consumes, and looks after topics, subscriptions, dead letters, "
                    "schedules, quotas and nodes. Results go to standard output, all else to "
                    "standard error. Each command has a page of its own.");
    fputs(".SH COMMANDS\n", out);
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        const struct command_spec *command = command_spec_of(id);
        fputs(".TP\n", out);
        print_in(out, 'B', command->name);
        if (command->positionals[0] != '\0') {
            fputc(' ', out);
            print_in(out, 'I', command->positionals);
        }
        fputc('\n', out);
        print_line(out, command->summary);
    }
    fputs(".SH OPTIONS OF EVERY COMMAND\n", out);
    print_tagged(out, command_global_options());
    print_exit_codes(out);
    fputs(".SH SEE ALSO\n\\fBferryd\\fR(8), \\fBferry\\-outbox\\fR(8)\n", out);
}
