#include "cli/progress_text.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/format.h"

#define ESTIMATE_FROM 0.02 /* Less done is no base for an estimate. */

double progress_part(const struct progress *p)
{
    if (p->bytes_total > 0) {
        double part = (double)p->bytes_done / (double)p->bytes_total;
        return part < 1 ? part : 1;
    }
    return p->moves_total > 0 ? (double)p->moves_done / (double)p->moves_total : 0;
}

void progress_describe(const struct progress *p, char text[PROGRESS_TEXT_BYTES])
{
    char done[FORMAT_TEXT_BYTES], total[FORMAT_TEXT_BYTES], left[FORMAT_TEXT_BYTES];
    char bytes[2 * FORMAT_TEXT_BYTES + 8] = "";
    char estimate[FORMAT_TEXT_BYTES + 16] = "";
    double part = progress_part(p);
    if (p->bytes_total > 0) {
        format_size((int64_t)p->bytes_done, done);
        format_size((int64_t)p->bytes_total, total);
        (void)snprintf(bytes, sizeof(bytes), ", %s of %s", done, total);
    }
    if (part >= ESTIMATE_FROM && part < 1) {
        int64_t whole_s = (int64_t)((double)p->elapsed_us / 1e6 * (1 - part) / part) + 1;
        format_duration_us(whole_s * 1000000, left);
        (void)snprintf(estimate, sizeof(estimate), ", about %s left", left);
    }
    (void)snprintf(text, PROGRESS_TEXT_BYTES, "%" PRIu64 " of %" PRIu64 " moves%s%s", p->moves_done,
                   p->moves_total, bytes, estimate);
}
