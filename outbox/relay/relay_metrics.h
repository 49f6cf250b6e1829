/* relay_metrics: what served outboxes tell, as Prometheus reads it (text format 0.0.4). Pure.
 *
 * Every series is there from the start; what is not known is NaN, never 0. Labels: source (the URL
 * without its password) and lane, and what the metric says. Figures of a topic have its name in
 * `topic`, from when it is met or the options name it; those beyond RELAY_METRIC_TOPICS_MAX are
 * summed under topic="other". */
#ifndef FERRY_OUTBOX_RELAY_RELAY_METRICS_H
#define FERRY_OUTBOX_RELAY_RELAY_METRICS_H

#include "base/buf.h"
#include "outbox/relay/figures.h"
#include "outbox/relay/serve.h"

void relay_metrics_write(struct buf *out, const struct serve_view *views, size_t count);
/* Inboxes and sagas, one view of each database. `count` 0: nothing. */
void figures_metrics_write(struct buf *out, const struct figures_view *views, size_t count);

#endif
