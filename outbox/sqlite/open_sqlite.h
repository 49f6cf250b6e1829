/* open_sqlite: the outbox of a SQLite file as a source. */
#ifndef FERRY_OUTBOX_OPEN_SQLITE_H
#define FERRY_OUTBOX_OPEN_SQLITE_H

#include "outbox/relay/source.h"

/* As source_open of driver.h; "sqlite:PATH". */
MUST_CHECK enum ferry_err source_sqlite_open(struct source *source, const char *url,
                                             const struct source_options *options,
                                             struct err_text *e);

#endif
