#include "outbox/postgresql/schema_postgresql.h"

#include <stddef.h>
#include <string.h>

#include "base/must.h"

/* The assembler copies the file in, so that the DDL is one readable file and needs no generator. It
 * looks for it in the -I folders, of which the top of the sources is one. A test compares both. */
__asm__(".pushsection .rodata\n"
        ".global schema_postgresql_1_text\n"
        "schema_postgresql_1_text:\n"
        ".incbin \"outbox/postgresql/schema/postgresql_1.sql\"\n"
        ".byte 0\n"
        ".popsection\n");

extern const char schema_postgresql_1_text[];

/* What stands for the schema's name in the files, and nothing else there does. */
static const char quoted_default[] = "\"" SCHEMA_POSTGRESQL_DEFAULT "\"";

bool schema_postgresql_name_is_valid(const char *name)
{
    if (name == NULL || name[0] < 'a' || name[0] > 'z' || strncmp(name, "pg_", 3) == 0) {
        return false;
    }
    size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return name[size] == '\0' && size <= SCHEMA_POSTGRESQL_NAME_MAX;
}

const char *schema_postgresql_step(int version)
{
    return version == 1 ? schema_postgresql_1_text : NULL;
}

void schema_postgresql_write(struct buf *out, int version, const char *schema)
{
    const char *text = schema_postgresql_step(version);
    must(text != NULL);
    must(schema_postgresql_name_is_valid(schema));
    const char *at = NULL;
    while ((at = strstr(text, quoted_default)) != NULL) {
        buf_append(out, text, (size_t)(at - text));
        buf_printf(out, "\"%s\"", schema);
        text = at + strlen(quoted_default);
    }
    buf_append(out, text, strlen(text));
}
