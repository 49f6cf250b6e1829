/* relay_report: a served outbox as a line for a person and as a JSON object for a program. Pure.
 */
#ifndef FERRY_OUTBOX_RELAY_REPORT_H
#define FERRY_OUTBOX_RELAY_REPORT_H

#include "base/buf.h"
#include "outbox/relay/serve.h"

#define RELAY_REPORT_MAX_BYTES 16384u

/* Rows published, a second: between two looks. */
struct relay_rate {
    uint64_t rows;
    int64_t at_us;
    uint64_t rows_per_second;
};

/* Call at each report. */
void relay_rate_update(struct relay_rate *rate, uint64_t published_rows, int64_t now_us);

/* "shop.db: active | 12345 published, 6000/s | backlog 17, oldest 0.2 s". No newline. */
void relay_report_line(struct buf *out, const struct serve_view *view,
                       const struct relay_rate *rate);
/* One object on one line, newline included. What is not known is null. */
void relay_report_json(struct buf *out, const struct serve_view *view,
                       const struct relay_rate *rate);

#endif
