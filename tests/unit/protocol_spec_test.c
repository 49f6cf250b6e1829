/* The specification (sdk/wire/PROTOCOL.md) says what the code does, as far as tables can tell:
 * layouts, command numbers, error numbers and classes.
 *
 *   protocol_spec_test              checks
 *   protocol_spec_test --layouts    prints the layouts as PROTOCOL.md has them */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "wire/command_layouts.h"

#define SPEC_MAX_BYTES (1u << 20)

/* ---- The lines that come from the layouts ---- */

static void type_line(struct buf *out, const struct layout_row *row)
{
    static const char *const names[] = {"bool", "u16", "u32", "u64", "i64", "id", "str", "bin"};
    switch (row->kind) {
    case LAYOUT_TEXT:
    case LAYOUT_BLOB:
        buf_printf(out, "%s(%" PRIu32 ")", names[row->kind], row->max);
        break;
    case LAYOUT_TEXTS:
        buf_printf(out, "array(%" PRIu32 ") of str(%" PRIu32 ")", row->count_max, row->max);
        break;
    case LAYOUT_U32S:
        buf_printf(out, "array(%" PRIu32 ") of u32", row->count_max);
        break;
    default:
        must(row->kind < LAYOUT_TEXT);
        buf_printf(out, "%s", names[row->kind]);
    }
}

/* "from" of "move.from". */
static void name_line(struct buf *out, const struct layout_row *row, uint32_t place)
{
    const char *dot = strrchr(row->name, '.');
    buf_printf(out, "%s%s%s ", place > 0 ? ", " : "", dot == NULL ? row->name : dot + 1,
               row->added ? "?" : "");
}

static void inner_list_line(struct buf *out, const struct layout_row *row)
{
    buf_printf(out, "array(%" PRIu32 ") of [", row->count_max);
    for (uint32_t i = 0; i < row->item->count; i++) {
        name_line(out, &row->item->rows[i], i);
        type_line(out, &row->item->rows[i]);
    }
    buf_printf(out, "]");
}

static void list_line(struct buf *out, const struct layout_row *row)
{
    buf_printf(out, "array(%" PRIu32 ") of [", row->count_max);
    for (uint32_t i = 0; i < row->item->count; i++) {
        const struct layout_row *inner = &row->item->rows[i];
        name_line(out, inner, i);
        if (inner->kind == LAYOUT_LIST) {
            inner_list_line(out, inner);
        } else {
            type_line(out, inner);
        }
    }
    buf_printf(out, "]");
}

static void layout_line(struct buf *out, const struct layout *layout)
{
    buf_printf(out, "%s = [", layout->name);
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct layout_row *row = &layout->rows[i];
        name_line(out, row, i);
        if (row->kind == LAYOUT_LIST) {
            list_line(out, row);
        } else {
            type_line(out, row);
        }
    }
    buf_printf(out, "]\n");
}

static void assert_told(const char *text, struct buf *line)
{
    buf_append_u8(line, 0);
    assert_true(buf_ok(line));
    if (strstr(text, (const char *)line->data) == NULL) {
        fail_msg("PROTOCOL.md lacks this: %s", (const char *)line->data);
    }
    buf_clear(line);
}

/* Every layout, command and error number stands in the specification as the code has it. */
static void the_specification_says_what_the_code_does(void **state)
{
    (void)state;
    char path[1024];
    const char *source = getenv("FERRY_SOURCE");
    char *text = mem_zalloc(1, SPEC_MAX_BYTES);
    struct buf line;
    assert_non_null(text);
    buf_init(&line, SPEC_MAX_BYTES);
    (void)snprintf(path, sizeof(path), "%s/sdk/wire/PROTOCOL.md", source != NULL ? source : ".");
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail_msg("%s cannot be opened", path);
    }
    assert_true(fread(text, 1, SPEC_MAX_BYTES - 1, file) > 0);
    (void)fclose(file);
    for (size_t i = 0; i < COMMAND_STRUCTS; i++) {
        layout_line(&line, &command_layouts[i]);
        assert_told(text, &line);
    }
#define TELL_COMMAND(name, number)                                                                 \
    buf_printf(&line, "\n| %d | %s |", number, #name);                                             \
    assert_told(text, &line);
#define TELL_ERR(name, number, class_, words)                                                      \
    buf_printf(&line, "\n| %d | %s | %s |", number, #name, #class_);                               \
    assert_told(text, &line);
    COMMAND_MAP(TELL_COMMAND)
    FERRY_ERR_MAP(TELL_ERR)
#undef TELL_COMMAND
#undef TELL_ERR
    buf_fini(&line);
    mem_free(text);
}

static void print_layouts(void)
{
    struct buf out;
    buf_init(&out, SPEC_MAX_BYTES);
    for (size_t i = 0; i < COMMAND_STRUCTS; i++) {
        layout_line(&out, &command_layouts[i]);
    }
    (void)printf("%.*s", (int)out.size, (const char *)out.data);
    buf_fini(&out);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_specification_says_what_the_code_does),
    };
    if (argc == 2 && strcmp(argv[1], "--layouts") == 0) {
        print_layouts();
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
