/* wake: one datagram from the application to the relay after a commit.
 *
 * The relay binds a unix datagram socket beside the database, `PATH-ferry-wake`; the application
 * sends one empty-handed byte to it. Nothing depends on its arrival: the relay polls as well. An
 * address holds 107 bytes of path; a longer one is reached through its folder, as
 * /proc/self/fd/N/NAME, and a file name that does not fit even so is replaced by .ferry-wake-HASH
 * of the database's file name. Both sides compute the same place from the same (resolved) path.
 *
 * A server's database is named instead: "@NAME", where NAME is postgresql-SYSTEM-OID (the system
 * identifier of pg_control_system() and the oid of pg_database, in decimal) or
 * mariadb-SERVER-DATABASE (see db_mariadb.h). Its address is the abstract socket "ferry-wake-HASH",
 * 16 hexadecimal digits of the checksum of NAME: nothing is left behind in a folder. It belongs to
 * whoever binds first, so the relays of one machine share one wake, and the others poll. Only for
 * servers on the same machine.
 *
 * Sending never blocks and never fails the caller. One thread at a time. */
#ifndef FERRY_OUTBOX_WAKE_H
#define FERRY_OUTBOX_WAKE_H

#include "base/err.h"

struct wake_sender {
    int fd;      /* -1: not connected. */
    int64_t pid; /* Of the process that connected: a forked child connects anew. */
};

void wake_sender_init(struct wake_sender *s);
void wake_sender_fini(struct wake_sender *s);
void wake_sender_send(struct wake_sender *s, const char *database_path);

/* The relay's end. Errors: IO, with a detail. */
MUST_CHECK enum ferry_err wake_listen(const char *database_path, int *fd, struct err_text *e);
void wake_drain(int fd);                             /* Takes all datagrams that are there. */
void wake_close(const char *database_path, int *fd); /* And removes the socket. */

#endif
