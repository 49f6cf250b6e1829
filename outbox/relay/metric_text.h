/* metric_text: pieces of Prometheus' text format 0.0.4. Pure. */
#ifndef FERRY_OUTBOX_RELAY_METRIC_TEXT_H
#define FERRY_OUTBOX_RELAY_METRIC_TEXT_H

#include "base/buf.h"

#define METRIC_PREFIX "ferry_outbox_"

void metric_head(struct buf *out, const char *name, const char *type, const char *help);
/* `name{`, then labels, then `}` by the caller, then the number and the line's end. */
void metric_begin(struct buf *out, const char *name, const char *suffix);
void metric_label(struct buf *out, const char *label, const char *value);
void metric_number(struct buf *out, double value);

#endif
