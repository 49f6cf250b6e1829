#include "outbox/mariadb/maria_error.h"

bool maria_lost(unsigned number)
{
    switch (number) {
    case 1053: /* The server shuts down. */
    case 1927: /* The connection was killed. */
    case 2002: /* No server at the socket, */
    case 2003: /* or at the address. */
    case 2006: /* The server has gone away. */
    case 2013: /* Lost during the query. */
    case 2055: /* The same, with the reason. */
    case 4031: /* Idle for too long. */
        return true;
    default:
        return false;
    }
}

enum ferry_err maria_error(unsigned number, const char *words, const char *doing,
                           struct err_text *e)
{
    if (maria_lost(number)) {
        return err_set(e, FERRY_ERR_DB_RETRY,
                       "%s: the connection was lost (%s): connect again and repeat the transaction",
                       doing, words);
    }
    switch (number) {
    case 1020: /* The row has changed since the snapshot. */
    case 1040: /* Too many connections. */
    case 1205: /* Lock wait timeout. */
    case 1213: /* Deadlock. */
    case 1180: /* The commit failed (Galera: certification). */
        return err_set(e, FERRY_ERR_DB_RETRY, "%s: %s: roll back and repeat the transaction", doing,
                       words);
    case 1054: /* Column. */
    case 1146: /* Table. */
        return err_set(e, FERRY_ERR_DB_SCHEMA, "%s: %s: run `ferry outbox init`", doing, words);
    case 2008: /* The client has no memory. */
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", doing);
    default:
        return err_set(e, FERRY_ERR_DB, "%s: %s (error %u)", doing, words, number);
    }
}
