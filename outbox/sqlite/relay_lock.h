/* relay_lock: which relay of this machine was first at a database file, and the word that relays
 * leave for people.
 *
 * `PATH-ferry-relay` is locked by the first relay that is there; the lock dies with the process. It
 * gives the first one its name at the broker and the wakes. Which of several publishes is decided
 * by the lease alone. The same file holds a few lines, rewritten each second, so that `ferry outbox
 * status` can tell how the relay does without writing to the database or asking a broker: the
 * active relay's, and another's only where none was active lately. It is an open-file-description
 * lock, because that kind can be asked about without being taken. */
#ifndef FERRY_OUTBOX_RELAY_LOCK_H
#define FERRY_OUTBOX_RELAY_LOCK_H

#include "outbox/relay/source.h"

/* Errors: IO, with a detail. */
MUST_CHECK enum ferry_err relay_lock_open(const char *database_path, int *fd, struct err_text *e);
/* False: another relay has it. Never waits. */
MUST_CHECK bool relay_lock_try(int fd);
void relay_lock_release(int *fd); /* Accepts -1. The file stays, with the last word. */
/* A word that is not the active relay's does not replace another relay's fresh one. */
void relay_lock_write(int fd, const struct source_word *word);

/* Whether a relay holds the lock. False as result: cannot be known. */
MUST_CHECK bool relay_lock_ask(const char *database_path, bool *held);
/* The last word; false when there is none or it cannot be read. */
MUST_CHECK bool relay_lock_read(const char *database_path, struct source_word *word);

#endif
