/* Inboxes and sagas as Prometheus reads them. Pure. */
#include <inttypes.h>
#include <math.h>

#include "outbox/relay/metric_text.h"
#include "outbox/relay/relay_metrics.h"

#define AT_LEAST "; 10001: at least so many."

static const char *const saga_states[OUTBOX_SAGA_STATES] = {
    "running", "compensating", "done", "compensated", "stuck", "aborted"};

struct family {
    const char *name, *help;
    /* The series of one database whose figures are known. */
    void (*write)(struct buf *out, const char *name, const struct figures_view *view);
    double (*value)(const struct figures_view *view); /* Instead, NaN where not known; or NULL. */
};

static void begin(struct buf *out, const char *name, const struct figures_view *view)
{
    metric_begin(out, name, "");
    metric_label(out, "source", view->shown);
}

static void end(struct buf *out, int64_t value)
{
    buf_append_u8(out, '}');
    metric_number(out, (double)value);
}

/* ---- Inboxes. */

static void each_group(struct buf *out, const char *name, const struct figures_view *view,
                       size_t offset)
{
    for (size_t i = 0; i < view->figures.group_count; i++) {
        const struct outbox_group_figures *group = &view->figures.groups[i];
        int64_t value = 0;
        memcpy(&value, (const char *)group + offset, sizeof(value));
        begin(out, name, view);
        metric_label(out, "group", group->group);
        end(out, value);
    }
}

static void chain_rows(struct buf *out, const char *name, const struct figures_view *view)
{
    each_group(out, name, view, offsetof(struct outbox_group_figures, chain_rows));
}

static void id_rows(struct buf *out, const char *name, const struct figures_view *view)
{
    each_group(out, name, view, offsetof(struct outbox_group_figures, id_rows));
}

static void dead_rows(struct buf *out, const char *name, const struct figures_view *view)
{
    each_group(out, name, view, offsetof(struct outbox_group_figures, dead_rows));
}

/* ---- Sagas. */

static void open_steps(struct buf *out, const char *name, const struct figures_view *view)
{
    for (size_t i = 0; i < view->figures.step_count; i++) {
        const struct outbox_step_figures *step = &view->figures.steps[i];
        begin(out, name, view);
        metric_label(out, "type", step->type);
        buf_printf(out, ",step=\"%" PRId32 "\"", step->step);
        end(out, step->open);
    }
}

static double oldest(const struct figures_view *view)
{
    return (double)view->figures.oldest_open_ms / 1000;
}

static double overdue(const struct figures_view *view)
{
    return (double)view->figures.overdue;
}

static double hidden(const struct figures_view *view)
{
    return view->figures.groups_more || view->figures.steps_more;
}

static const struct family families[] = {
    {"inbox_chain_rows", "Rows of a group's offset chains that are kept" AT_LEAST, chain_rows,
     NULL},
    {"inbox_id_rows", "Ids of messages that a group remembers" AT_LEAST, id_rows, NULL},
    {"inbox_dead_rows", "Dead letters of a group" AT_LEAST, dead_rows, NULL},
    {"saga_open", "Sagas that run or compensate, by the step they are at" AT_LEAST, open_steps,
     NULL},
    {"saga_oldest_open_seconds",
     "Age of the oldest saga that runs or compensates, by the database's clock; 0: none.", NULL,
     oldest},
    {"saga_overdue",
     "Open sagas whose step's deadline is over, among 10001 that run and 10001 that compensate.",
     NULL, overdue},
    {"figures_cut",
     "1: there are more than 64 groups, or more than 64 types and steps: not all are "
     "told.",
     NULL, hidden},
};

static void write_states(struct buf *out, const struct figures_view *views, size_t count)
{
    metric_head(out, "sagas", "gauge", "Sagas that began in this database, by state" AT_LEAST);
    for (size_t v = 0; v < count * OUTBOX_SAGA_STATES; v++) {
        const struct figures_view *view = &views[v / OUTBOX_SAGA_STATES];
        size_t state = v % OUTBOX_SAGA_STATES;
        begin(out, "sagas", view);
        metric_label(out, "state", saga_states[state]);
        buf_append_u8(out, '}');
        metric_number(out, view->known ? (double)view->figures.sagas[state] : (double)NAN);
    }
}

static void write_one(struct buf *out, const struct family *f, const struct figures_view *view)
{
    if (f->value == NULL) {
        if (view->known) {
            f->write(out, f->name, view);
        }
        return;
    }
    begin(out, f->name, view);
    buf_append_u8(out, '}');
    metric_number(out, view->known ? f->value(view) : (double)NAN);
}

void figures_metrics_write(struct buf *out, const struct figures_view *views, size_t count)
{
    if (count == 0) {
        return;
    }
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        metric_head(out, families[i].name, "gauge", families[i].help);
        for (size_t v = 0; v < count; v++) {
            write_one(out, &families[i], &views[v]);
        }
    }
    write_states(out, views, count);
}
