/* consume_dead: dead letters of the inbox, for the loop of ferry_consume_tx. All work in the
 * caller's transaction but consume_requeued(). */
#ifndef FERRY_OUTBOX_CONSUME_DEAD_H
#define FERRY_OUTBOX_CONSUME_DEAD_H

#include "outbox/app/db.h"

#define CONSUME_REASON_MAX 400

/* Whether the connection is gone: whatever a handler says then is no failure of its own. */
bool consume_lost(const struct ferry_db *db);
/* What a handler has answered; DB where it has not told that a statement of its failed, after which
 * PostgreSQL does nothing more in the transaction. */
MUST_CHECK enum ferry_err consume_handled(struct ferry_db *db, enum ferry_err answer);
/* "DENIED: no such account", of an error and what the database said with it. */
void consume_reason(char reason[CONSUME_REASON_MAX], const struct ferry_db *db, enum ferry_err err);

/* When the message was new, for ferry_inbox_claim: a record that a rebase has put once more is as
 * old as its message, not as its place in the log. */
int64_t consume_claim_time(const struct ferry_record *record);

/* Keeps the record among the dead letters; `parked`: behind those of its key, to be handled again
 * when they are: `requeued`. */
MUST_CHECK enum ferry_err consume_bury(struct ferry_db *db, const struct db_chain *chain,
                                       const struct ferry_record *record, const char *reason,
                                       bool parked, bool requeued);
/* Whether earlier records of its key are there. */
MUST_CHECK enum ferry_err consume_is_parked(struct ferry_db *db, const struct db_chain *chain,
                                            const struct ferry_record *record, bool *parked,
                                            bool *requeued);

/* Puts the first dead letter that a person asks for before the handler, in a transaction of its
 * own. *worked: there was one, and it was handled, or put back among the dead letters because the
 * handler failed again. Errors: the database's. */
MUST_CHECK enum ferry_err consume_requeued(struct ferry_db *db, const char *group,
                                           const struct ferry_id *topic_id, const char *topic,
                                           ferry_handler *handler, void *arg, bool *worked);

#endif
