/* admin_sqlite: outbox_admin.h for a SQLite file. */
#ifndef FERRY_OUTBOX_ADMIN_SQLITE_H
#define FERRY_OUTBOX_ADMIN_SQLITE_H

#include "outbox/sqlite/outbox_admin.h"

MUST_CHECK enum ferry_err admin_sqlite_status(const char *path, struct outbox_status *status,
                                              struct err_text *e);
MUST_CHECK enum ferry_err admin_sqlite_inbox(const char *path, inbox_status_cb *callback, void *arg,
                                             struct err_text *e);
MUST_CHECK enum ferry_err admin_sqlite_init(const char *path, bool *created, struct err_text *e);
MUST_CHECK enum ferry_err admin_sqlite_ids(const char *path, const char *sql,
                                           outbox_ids_cb *callback, void *arg, struct err_text *e);

#endif
