/* source_headers: a row's headers as the message's, for drivers.
 *
 * A column holds either the msgpack map of strings that ferry_outbox_put() writes, or, from other
 * languages, a JSON object of strings. The first byte tells: a map's is 0x80 or above. Pure. */
#ifndef FERRY_OUTBOX_RELAY_SOURCE_HEADERS_H
#define FERRY_OUTBOX_RELAY_SOURCE_HEADERS_H

#include "outbox/relay/source.h"

/* Sets the row's headers, copied into the page; where they are none that a message may have, sets
 * row->invalid instead. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err source_headers(struct source_page *page, struct source_row *row,
                                         struct bytes column);
/* Marks the row as one that cannot be a message. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err source_row_invalid(struct source_page *page, struct source_row *row,
                                             const char *why);

#endif
