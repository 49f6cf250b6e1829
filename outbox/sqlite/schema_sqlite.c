#include "outbox/sqlite/schema_sqlite.h"

#include <stddef.h>

/* The assembler copies the file in, so that the DDL is one readable file and needs no generator. It
 * looks for it in the -I folders, of which the top of the sources is one. A test compares both. */
__asm__(".pushsection .rodata\n"
        ".global schema_sqlite_1_text\n"
        "schema_sqlite_1_text:\n"
        ".incbin \"outbox/sqlite/schema/sqlite_1.sql\"\n"
        ".byte 0\n"
        ".global schema_sqlite_2_text\n"
        "schema_sqlite_2_text:\n"
        ".incbin \"outbox/sqlite/schema/sqlite_2.sql\"\n"
        ".byte 0\n"
        ".global schema_sqlite_3_text\n"
        "schema_sqlite_3_text:\n"
        ".incbin \"outbox/sqlite/schema/sqlite_3.sql\"\n"
        ".byte 0\n"
        ".popsection\n");

extern const char schema_sqlite_1_text[];
extern const char schema_sqlite_2_text[];
extern const char schema_sqlite_3_text[];

static const char *const steps[SCHEMA_SQLITE_VERSION] = {schema_sqlite_1_text, schema_sqlite_2_text,
                                                         schema_sqlite_3_text};

const char *schema_sqlite_step(int version)
{
    return version >= 1 && version <= SCHEMA_SQLITE_VERSION ? steps[version - 1] : NULL;
}
