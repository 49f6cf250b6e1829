#include "outbox/mariadb/schema_mariadb.h"

#include <stddef.h>

/* The assembler copies the file in, so that the DDL is one readable file and needs no generator. It
 * looks for it in the -I folders, of which the top of the sources is one. A test compares both. */
__asm__(".pushsection .rodata\n"
        ".global schema_mariadb_1_text\n"
        "schema_mariadb_1_text:\n"
        ".incbin \"outbox/mariadb/schema/mariadb_1.sql\"\n"
        ".byte 0\n"
        ".popsection\n");

extern const char schema_mariadb_1_text[];

const char *schema_mariadb_step(int version)
{
    return version == 1 ? schema_mariadb_1_text : NULL;
}
