#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/must.h"

#define PROBLEMS_MAX_BYTES (64 * 1024)   /* Of text; more problems are counted, not told. */
#define PROBLEM_MAX_BYTES  1024          /* One line. */
#define FILE_MAX_BYTES     (1024 * 1024) /* More is not a configuration of ours. */
#define NAME_MAX_BYTES     256           /* "section.key" as given, right or wrong. */
#define COMMENT_COLUMNS    78            /* Where the reference wraps its comments. */

void config_problems_init(struct config_problems *p)
{
    *p = (struct config_problems){0};
    buf_init(&p->lines, PROBLEMS_MAX_BYTES);
}

void config_problems_fini(struct config_problems *p)
{
    buf_fini(&p->lines);
}

/* Names and values come from outside: their control bytes must not reach a terminal. */
static void blank_control_bytes(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            *text = '?';
        }
    }
}

void config_problem(struct config_problems *p, const char *format, ...)
{
    char line[PROBLEM_MAX_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    blank_control_bytes(line);
    buf_printf(&p->lines, "%s\n", line);
    p->count++;
}

/* ---- File ----------------------------------------------------------------------------------- */

enum line_kind {
    LINE_ASSIGNMENT, /* Must be `key = value`: inih calls take_assignment, or it is a problem. */
    LINE_NOTHING     /* Empty, a comment, a section, or refused already. */
};

/* What travels through inih, which gives its callbacks one pointer. */
struct file_load {
    const struct option_table *table;
    void *values;
    const char *path;
    struct config_problems *problems;
    FILE *file;
    size_t bytes;        /* Read so far. */
    int read_errno;      /* 0, or why reading ended before the end. */
    int line;            /* Number of the line that inih has, from 1. */
    enum line_kind kind; /* Of that line. */
    bool taken;          /* take_assignment ran for that line. */
    int *set_on_line;    /* By row of the table: the line that set it, 0 for none. */
};

/* inih skips a line it cannot use and tells only the first such line; so each line is looked at
 * before the next is read. */
static void finish_line(struct file_load *f)
{
    if (f->kind == LINE_ASSIGNMENT && !f->taken) {
        config_problem(f->problems, "%s:%d: neither [section] nor key = value", f->path, f->line);
    }
    f->kind = LINE_NOTHING;
    f->taken = false;
}

/* One line without its newline, cut to fit `text`; false at the end of the file. `*length` is the
 * whole length, so that a cut is seen. */
static bool read_raw_line(struct file_load *f, char *text, size_t bytes, size_t *length,
                          bool *has_nul)
{
    int c = EOF;
    *length = 0;
    *has_nul = false;
    while (f->bytes < FILE_MAX_BYTES && (c = getc(f->file)) != EOF && c != '\n') {
        *has_nul = *has_nul || c == '\0';
        if (*length < bytes - 1) {
            text[*length] = (char)c;
        }
        (*length)++;
        f->bytes++;
    }
    f->bytes += c == '\n' ? 1 : 0;
    if (c == EOF && ferror(f->file)) {
        f->read_errno = errno;
    }
    text[*length < bytes - 1 ? *length : bytes - 1] = '\0';
    return c == '\n' || *length > 0;
}

/* Without a byte order mark and without indentation: to inih an indented line is the value before
 * it, continued, which would hide a misspelt key. */
static void strip_start(const struct file_load *f, char *text)
{
    const char *start = text;
    if (f->line == 1 && strncmp(start, "\xEF\xBB\xBF", 3) == 0) {
        start += 3;
    }
    start += strspn(start, " \t\r\v\f");
    memmove(text, start, strlen(start) + 1);
}

static bool is_comment_or_empty(const char *text)
{
    return *text == '\0' || *text == '#' || *text == ';';
}

/* A section line is `[name]`, and after it at most a comment. */
static bool is_whole_section(const char *text)
{
    size_t name = strcspn(text, "]; \t");
    if (text[name] != ']' || name < 2) {
        return false;
    }
    const char *rest = text + name + 1;
    rest += strspn(rest, " \t\r\v\f");
    return is_comment_or_empty(rest);
}

/* Refuses what inih would cut or misread in silence; true when inih may have the line. */
static bool check_line(struct file_load *f, const char *text, size_t length, size_t length_max,
                       bool has_nul)
{
    if (has_nul) {
        config_problem(f->problems, "%s:%d: holds a NUL byte; is this a text file?", f->path,
                       f->line);
        return false;
    }
    if (is_comment_or_empty(text)) {
        return false;
    }
    if (length > length_max) {
        config_problem(f->problems,
                       "%s:%d: the line has %zu bytes; at most %zu are read, so shorten it",
                       f->path, f->line, length, length_max);
        return false;
    }
    if (*text == '[' && !is_whole_section(text)) {
        config_problem(f->problems, "%s:%d: a section is written [name], alone on its line",
                       f->path, f->line);
        return false;
    }
    return true;
}

/* An ini_reader: like fgets, but counts lines and never splits one. */
static char *read_line(char *text, int text_bytes, void *stream)
{
    struct file_load *f = stream;
    size_t room = (size_t)text_bytes - 1; /* The newline takes one. */
    size_t length;
    bool has_nul;
    finish_line(f);
    if (!read_raw_line(f, text, room, &length, &has_nul)) {
        return NULL;
    }
    f->line++;
    strip_start(f, text);
    if (!check_line(f, text, length, room - 1, has_nul)) {
        text[0] = '\0';
    }
    if (*text != '\0' && *text != '[') {
        f->kind = LINE_ASSIGNMENT;
    }
    size_t end = strlen(text);
    text[end] = '\n';
    text[end + 1] = '\0';
    return text;
}

static bool is_set_again(struct file_load *f, const char *name)
{
    const struct option_row *row = option_find(f->table, name);
    if (row == NULL) {
        return false;
    }
    int *line = &f->set_on_line[row - f->table->rows];
    if (*line != 0) {
        config_problem(f->problems, "%s:%d: %s: is already set on line %d; keep one of them",
                       f->path, f->line, name, *line);
        return true;
    }
    *line = f->line;
    return false;
}

/* An ini_handler. Returns 1, "go on", whatever it finds: all problems are wanted. */
static int take_assignment(void *user, const char *section, const char *key, const char *value)
{
    struct file_load *f = user;
    char name[NAME_MAX_BYTES];
    struct err_text e;
    f->taken = true;
    if (*section == '\0') {
        config_problem(f->problems, "%s:%d: %s stands before the first [section]", f->path, f->line,
                       key);
        return 1;
    }
    (void)snprintf(name, sizeof(name), "%s.%s", section, key);
    if (!is_set_again(f, name) && option_set(f->table, f->values, name, value, &e) != FERRY_OK) {
        config_problem(f->problems, "%s:%d: %s", f->path, f->line, e.text);
    }
    return 1;
}

static void parse_file(struct file_load *f)
{
    /* Each line inih cannot use has been told by finish_line; its own number adds nothing. */
    (void)ini_parse_stream(read_line, f, take_assignment, f);
    finish_line(f);
    if (f->read_errno != 0) {
        config_problem(f->problems, "%s: cannot be read: %s", f->path, strerror(f->read_errno));
    } else if (f->bytes >= FILE_MAX_BYTES) {
        config_problem(f->problems, "%s: has %d bytes or more; is this a configuration file?",
                       f->path, FILE_MAX_BYTES);
    }
}

void config_load_file(const struct option_table *t, void *values, const char *path,
                      struct config_problems *p)
{
    struct file_load f = {.table = t,
                          .values = values,
                          .path = path,
                          .problems = p,
                          .kind = LINE_NOTHING,
                          .set_on_line = mem_zalloc(t->count, sizeof(*f.set_on_line))};
    if (f.set_on_line == NULL) {
        config_problem(p, "%s: %s", path, ferry_err_text(FERRY_ERR_NO_MEMORY));
        return;
    }
    f.file = fopen(path, "re");
    if (f.file == NULL) {
        config_problem(p, "%s: cannot be opened: %s", path, strerror(errno));
    } else {
        parse_file(&f);
        (void)fclose(f.file);
    }
    mem_free(f.set_on_line);
}

/* ---- Environment and command line ----------------------------------------------------------- */

/* True when `variable` is the row's name in capitals with '_' for '.'. */
static bool is_variable_of(const struct option_row *row, const char *variable, size_t length)
{
    if (strlen(row->name) != length) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        char c = row->name[i];
        if (variable[i] != (c == '.' ? '_' : (char)toupper((unsigned char)c))) {
            return false;
        }
    }
    return true;
}

/* What the variable was probably meant to name, so that option_set can offer the nearest. */
static void guess_name(const char *variable, size_t length, char *name, size_t bytes)
{
    (void)snprintf(name, bytes, "%.*s", (int)length, variable);
    for (char *c = name; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    char *first = strchr(name, '_');
    if (first != NULL) {
        *first = '.';
    }
}

static const struct option_row *find_variable(const struct option_table *t, const char *variable,
                                              size_t length)
{
    for (size_t i = 0; i < t->count; i++) {
        if (is_variable_of(&t->rows[i], variable, length)) {
            return &t->rows[i];
        }
    }
    return NULL;
}

/* One spelling sets an option; what only comes near is told, never taken. */
static void refuse_variable(const struct option_table *t, void *values, const char *entry,
                            const char *variable, size_t length, struct config_problems *p)
{
    char name[NAME_MAX_BYTES];
    struct err_text e;
    /* Cut to what a name may be; what is cut names no option either way. */
    size_t kept = length < sizeof(name) ? length : sizeof(name) - 1;
    int shown = (int)((size_t)(variable - entry) + kept);
    guess_name(variable, kept, name, sizeof(name));
    if (option_find(t, name) != NULL) {
        config_problem(p, "environment: %.*s: for %s write it in capitals, with '_' for '.'", shown,
                       entry, name);
    } else {
        must(option_set(t, values, name, "", &e) == FERRY_ERR_UNKNOWN_OPTION);
        config_problem(p, "environment: %.*s: %s", shown, entry, e.text);
    }
}

static void load_variable(const struct option_table *t, void *values, const char *entry,
                          const char *variable, struct config_problems *p)
{
    struct err_text e;
    size_t length = strcspn(variable, "=");
    const struct option_row *row = find_variable(t, variable, length);
    if (row == NULL) {
        refuse_variable(t, values, entry, variable, length, p);
    } else if (option_set(t, values, row->name, variable + length + 1, &e) != FERRY_OK) {
        config_problem(p, "environment: %.*s: %s", (int)((size_t)(variable - entry) + length),
                       entry, e.text);
    }
}

void config_load_environment(const struct option_table *t, void *values, const char *prefix,
                             char *const *environment, struct config_problems *p)
{
    size_t prefix_length = strlen(prefix);
    for (; *environment != NULL; environment++) {
        const char *entry = *environment;
        if (strncmp(entry, prefix, prefix_length) == 0 && entry[prefix_length] == '_' &&
            strchr(entry, '=') != NULL) {
            load_variable(t, values, entry, entry + prefix_length + 1, p);
        }
    }
}

void config_set_assignment(const struct option_table *t, void *values, const char *assignment,
                           struct config_problems *p)
{
    char name[NAME_MAX_BYTES];
    struct err_text e;
    size_t length = strcspn(assignment, "=");
    if (assignment[length] != '=') {
        config_problem(p, "--set %s: has no value; write --set section.key=value", assignment);
        return;
    }
    (void)snprintf(name, sizeof(name), "%.*s",
                   length < sizeof(name) ? (int)length : (int)sizeof(name), assignment);
    if (option_set(t, values, name, assignment + length + 1, &e) != FERRY_OK) {
        config_problem(p, "--set: %s", e.text);
    }
}

/* ---- Reference ------------------------------------------------------------------------------ */

/* The text as comment lines, broken at spaces. */
static void print_comment(struct buf *out, const char *text)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > COMMENT_COLUMNS) {
            buf_printf(out, "\n");
            column = 0;
        }
        buf_printf(out, "%s%.*s", column == 0 ? "# " : " ", (int)word, text);
        column += word + (column == 0 ? 2 : 1);
        text += word;
        text += strspn(text, " ");
    }
    buf_printf(out, "\n");
}

static void print_option(struct buf *out, const struct option_row *row, const char *key)
{
    char allowed[256];
    option_describe_allowed(row, allowed, sizeof(allowed));
    print_comment(out, row->text);
    buf_printf(out, "# Takes %s.\n", allowed);
    buf_printf(out, "#%s =%s%s\n", key, *row->initial != '\0' ? " " : "", row->initial);
}

void config_print_reference(const struct option_table *t, struct buf *out)
{
    const char *section = "";
    size_t section_length = 0;
    for (size_t i = 0; i < t->count; i++) {
        const char *name = t->rows[i].name;
        size_t length = strcspn(name, ".");
        must(name[length] == '.');
        if (i > 0) {
            buf_printf(out, "\n");
        }
        if (length != section_length || memcmp(name, section, length) != 0) {
            buf_printf(out, "[%.*s]\n\n", (int)length, name);
            section = name;
            section_length = length;
        }
        print_option(out, &t->rows[i], name + length + 1);
    }
}
