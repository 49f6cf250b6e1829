/* maria_error: MariaDB's errors as Ferry's, for the files that include mysql.h. */
#ifndef FERRY_OUTBOX_MARIA_ERROR_H
#define FERRY_OUTBOX_MARIA_ERROR_H

#include "base/err.h"

#define MARIA_DUPLICATE    1062u /* A unique key is taken. The statement is undone, no more. */
#define MARIA_NO_SAVEPOINT 1305u

/* By the number of the error: 1020, 1205, 1213, a lost connection, a server that stops or has no
 * room for a connection: DB_RETRY. A missing table or column: DB_SCHEMA. Anything else: DB. `doing`
 * says what was being done; the server's words follow. */
enum ferry_err maria_error(unsigned number, const char *words, const char *doing,
                           struct err_text *e);
/* Whether the connection is gone after it. */
bool maria_lost(unsigned number);

#endif
