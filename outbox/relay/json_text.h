/* json_text: the few pieces of JSON that the relay writes. Pure; appends to the buffer. */
#ifndef FERRY_OUTBOX_RELAY_JSON_TEXT_H
#define FERRY_OUTBOX_RELAY_JSON_TEXT_H

#include "base/buf.h"

void json_text(struct buf *out, const char *text); /* Quoted; control bytes escaped. */
void json_base64(struct buf *out, const void *data, size_t bytes); /* Quoted. */

#endif
