#include "outbox/relay/metric_text.h"

#include <inttypes.h>
#include <math.h>

#define EXACT_MAX 9007199254740992.0 /* Whole numbers below are exact in a double. */

void metric_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP " METRIC_PREFIX "%s %s\n# TYPE " METRIC_PREFIX "%s %s\n", name, help,
               name, type);
}

void metric_begin(struct buf *out, const char *name, const char *suffix)
{
    buf_printf(out, METRIC_PREFIX "%s%s{", name, suffix);
}

void metric_label(struct buf *out, const char *label, const char *value)
{
    bool first = out->size > 0 && out->data[out->size - 1] == '{';
    buf_printf(out, "%s%s=\"", first ? "" : ",", label);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\n') {
            buf_printf(out, "\\n");
            continue;
        }
        if (*c == '\\' || *c == '"') {
            buf_append_u8(out, '\\');
        }
        buf_append_u8(out, (uint8_t)*c);
    }
    buf_append_u8(out, '"');
}

void metric_number(struct buf *out, double value)
{
    if (isnan(value)) {
        buf_printf(out, " NaN\n");
    } else if (value == floor(value) && fabs(value) < EXACT_MAX) {
        buf_printf(out, " %" PRId64 "\n", (int64_t)value);
    } else {
        buf_printf(out, " %.9g\n", value);
    }
}
