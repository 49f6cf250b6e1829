#include "outbox/relay/relay_metrics.h"

#include <inttypes.h>
#include <math.h>

#include "outbox/relay/metric_text.h"

#define SECONDS_OF(us) ((double)(us) / 1e6)

/* ---- Text. */

/* `name{source="…",lane="0"`: the caller closes it. */
static void series(struct buf *out, const char *name, const char *suffix,
                   const struct serve_view *view)
{
    metric_begin(out, name, suffix);
    metric_label(out, "source", view->shown);
    buf_printf(out, ",lane=\"%" PRIu32 "\"", view->lane);
}

/* ---- Counters: fields of struct relay_stats. */

struct counter {
    const char *name;
    size_t offset;
    const char *help;
};

#define STAT(field) offsetof(struct relay_stats, field)

static const struct counter counters[] = {
    {"rows_read_total", STAT(rows_read), "Rows handed out by the database, again ones too."},
    {"rows_moved_total", STAT(moved_rows), "Rows dropped because unparking put them anew."},
    {"rows_deleted_total", STAT(deleted_rows), "Published rows deleted from the database."},
    {"dup_filtered_total", STAT(covered_rows), "Rows read again that the brokers had already."},
    {"cas_conflict_total", STAT(conflicts), "Appends that met another version of the mark."},
    {"fenced_total", STAT(fenced), "Appends refused because another relay took over."},
    {"append_failures_total", STAT(failures), "Appends that failed for any reason."},
    {"elections_total", STAT(elections), "Times that this relay became the active one."},
    {"timetravel_total", STAT(timetravel),
     "Times that the database was found set back, or another one."},
};

static void write_counters(struct buf *out, const struct serve_view *views, size_t count)
{
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
        metric_head(out, counters[i].name, "counter", counters[i].help);
        for (size_t v = 0; v < count; v++) {
            uint64_t value = 0;
            memcpy(&value, (const char *)&views[v].status.relay.stats + counters[i].offset,
                   sizeof(value));
            series(out, counters[i].name, "", &views[v]);
            buf_printf(out, "} %" PRIu64 "\n", value);
        }
    }
}

/* ---- Histograms: struct relay_times of struct relay_stats. */

static const struct counter histograms[] = {
    {"read_seconds", STAT(read_times), "How long reading a page of rows took."},
};

static void topic_series(struct buf *out, const char *name, const char *suffix,
                         const struct serve_view *view, const char *topic)
{
    series(out, name, suffix, view);
    if (topic != NULL) {
        buf_printf(out, ",topic=\"%s\"", topic); /* relay_tally.h: nothing in it to escape. */
    }
}

static void write_times(struct buf *out, const char *name, const struct serve_view *view,
                        const char *topic, const struct relay_times *times)
{
    uint64_t below = 0;
    for (size_t i = 0; i + 1 < RELAY_BUCKETS; i++) {
        below += times->counts[i];
        topic_series(out, name, "_bucket", view, topic);
        buf_printf(out, ",le=\"%g\"} %" PRIu64 "\n", (double)relay_bucket_ms[i] / 1000, below);
    }
    topic_series(out, name, "_bucket", view, topic);
    buf_printf(out, ",le=\"+Inf\"} %" PRIu64 "\n", times->count);
    topic_series(out, name, "_sum", view, topic);
    buf_append_u8(out, '}');
    metric_number(out, SECONDS_OF(times->sum_us));
    topic_series(out, name, "_count", view, topic);
    buf_printf(out, "} %" PRIu64 "\n", times->count);
}

static void write_histogram(struct buf *out, const struct counter *h, const struct serve_view *view)
{
    struct relay_times times;
    memcpy(&times, (const char *)&view->status.relay.stats + h->offset, sizeof(times));
    write_times(out, h->name, view, NULL, &times);
}

static void write_histograms(struct buf *out, const struct serve_view *views, size_t count)
{
    for (size_t i = 0; i < sizeof(histograms) / sizeof(histograms[0]); i++) {
        metric_head(out, histograms[i].name, "histogram", histograms[i].help);
        for (size_t v = 0; v < count; v++) {
            write_histogram(out, &histograms[i], &views[v]);
        }
    }
}

/* ---- Of single topics: fields of struct relay_topic_figures. */

#define OF_TOPIC(field) offsetof(struct relay_topic_figures, field)

static const struct counter topic_counters[] = {
    {"rows_published_total", OF_TOPIC(published_rows), "Rows that are in a topic's log."},
    {"rows_delayed_total", OF_TOPIC(delayed_rows), "Published rows with a due time."},
    {"batches_published_total", OF_TOPIC(published_batches), "Batches that are in a topic's log."},
    {"rows_refused_total", OF_TOPIC(refused_rows), "Rows refused for what they are."},
    {"rows_dead_total", OF_TOPIC(dead_rows), "Rows set aside because they were refused."},
    {"rows_parked_total", OF_TOPIC(parked_rows), "Rows set aside because their key is parked."},
};

static const struct counter topic_histograms[] = {
    {"append_seconds", OF_TOPIC(append_times), "From sending a batch to its answer."},
    {"commit_to_append_seconds", OF_TOPIC(commit_to_append),
     "From a batch's first row's time, by the clock of who put it, to the answer, by the relay's; "
     "off by what the two differ."},
};

typedef void topic_writer(struct buf *out, const struct counter *c, const struct serve_view *view,
                          const struct relay_topic_figures *topic);

static void write_topic_count(struct buf *out, const struct counter *c,
                              const struct serve_view *view,
                              const struct relay_topic_figures *topic)
{
    uint64_t value = 0;
    memcpy(&value, (const char *)topic + c->offset, sizeof(value));
    topic_series(out, c->name, "", view, topic->name);
    buf_printf(out, "} %" PRIu64 "\n", value);
}

static void write_topic_times(struct buf *out, const struct counter *c,
                              const struct serve_view *view,
                              const struct relay_topic_figures *topic)
{
    struct relay_times times;
    memcpy(&times, (const char *)topic + c->offset, sizeof(times));
    write_times(out, c->name, view, topic->name, &times);
}

static void write_topic_rows(struct buf *out, const struct counter *c,
                             const struct serve_view *view, const struct relay_topic_figures *topic)
{
    uint64_t below = 0;
    for (size_t i = 0; i < RELAY_ROW_BUCKETS; i++) {
        below += topic->batch_rows[i];
        topic_series(out, c->name, "_bucket", view, topic->name);
        if (i + 1 < RELAY_ROW_BUCKETS) {
            buf_printf(out, ",le=\"%" PRIu32 "\"} %" PRIu64 "\n", relay_bucket_rows[i], below);
        } else {
            buf_printf(out, ",le=\"+Inf\"} %" PRIu64 "\n", below);
        }
    }
    topic_series(out, c->name, "_sum", view, topic->name);
    buf_printf(out, "} %" PRIu64 "\n", topic->published_rows);
    topic_series(out, c->name, "_count", view, topic->name);
    buf_printf(out, "} %" PRIu64 "\n", below);
}

static void write_topic_family(struct buf *out, const struct counter *c, const char *type,
                               topic_writer *writer, const struct serve_view *views, size_t count)
{
    metric_head(out, c->name, type, c->help);
    for (size_t v = 0; v < count; v++) {
        size_t topics = relay_tally_count(views[v].tally);
        for (size_t t = 0; t < topics; t++) {
            struct relay_topic_figures topic;
            relay_tally_copy(views[v].tally, t, &topic);
            writer(out, c, &views[v], &topic);
        }
    }
}

static void write_topics(struct buf *out, const struct serve_view *views, size_t count)
{
    static const struct counter batch_rows = {"batch_rows", 0, "Rows of a published batch."};
    for (size_t i = 0; i < sizeof(topic_counters) / sizeof(topic_counters[0]); i++) {
        write_topic_family(out, &topic_counters[i], "counter", write_topic_count, views, count);
    }
    write_topic_family(out, &batch_rows, "histogram", write_topic_rows, views, count);
    for (size_t i = 0; i < sizeof(topic_histograms) / sizeof(topic_histograms[0]); i++) {
        write_topic_family(out, &topic_histograms[i], "histogram", write_topic_times, views, count);
    }
}

/* ---- What has to be worked out, and gauges. */

static double known(bool is_known, double value)
{
    return is_known ? value : (double)NAN;
}

static const struct relay_status *relay_of(const struct serve_view *view)
{
    return &view->status.relay;
}

static double reachable(const struct serve_view *view, size_t at)
{
    (void)at;
    return view->status.phase == SERVED_RELAYING && !relay_of(view)->database_failed;
}

static double relay_state(const struct serve_view *view, size_t at)
{
    bool halted = view->status.phase == SERVED_HALTED;
    if (view->status.phase != SERVED_RELAYING && !halted) {
        return 0;
    }
    return relay_of(view)->state == (enum relay_state)at;
}

static double pending_rows(const struct serve_view *view, size_t at)
{
    (void)at;
    return known(relay_of(view)->backlog_known, (double)relay_of(view)->backlog_rows);
}

/* Nothing pending is no age: 0. */
static double oldest_pending(const struct serve_view *view, size_t at)
{
    (void)at;
    const struct relay_status *r = relay_of(view);
    if (!r->oldest_known && r->backlog_known && r->backlog_rows == 0) {
        return 0;
    }
    return known(r->oldest_known, (double)r->oldest_ms / 1000);
}

static double open_transactions(const struct serve_view *view, size_t at)
{
    (void)at;
    const struct source_figures *f = &relay_of(view)->figures;
    return known(relay_of(view)->figures_known && f->open_tx_known, (double)f->open_transactions);
}

static double longest_open(const struct serve_view *view, size_t at)
{
    (void)at;
    const struct source_figures *f = &relay_of(view)->figures;
    return known(relay_of(view)->figures_known && f->open_tx_known,
                 (double)f->longest_open_tx_ms / 1000);
}

static double leaf_rows(const struct serve_view *view, size_t at)
{
    const struct source_figures *f = &relay_of(view)->figures;
    return known(relay_of(view)->figures_known && f->leaves_known, (double)f->leaf_rows[at]);
}

static double inflight(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)relay_of(view)->inflight_batches;
}

static double blocked_topics(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)relay_of(view)->blocked_topics;
}

static double blocked_partitions(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)relay_of(view)->blocked_partitions;
}

static double parked_keys(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)relay_of(view)->parked_keys;
}

static double connects(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)view->status.connects + (double)relay_of(view)->figures.reconnects;
}

static double truncates(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)relay_of(view)->figures.truncates;
}

static double barriers(const struct serve_view *view, size_t at)
{
    (void)at;
    return (double)relay_of(view)->figures.barriers;
}

static double barrier_seconds(const struct serve_view *view, size_t at)
{
    (void)at;
    return SECONDS_OF(relay_of(view)->figures.barrier_us);
}

enum wake_kind { WAKE_DATAGRAM, WAKE_NOTIFY, WAKE_POLL, WAKE_KINDS };

static double wakes(const struct serve_view *view, size_t at)
{
    const struct relay_stats *stats = &relay_of(view)->stats;
    uint64_t notifies = relay_of(view)->figures.notifies;
    switch ((enum wake_kind)at) {
    case WAKE_DATAGRAM:
        return (double)(stats->wakes > notifies ? stats->wakes - notifies : 0);
    case WAKE_NOTIFY:
        return (double)notifies;
    default:
        return (double)stats->poll_wakes;
    }
}

struct figure {
    const char *name, *type;
    double (*value)(const struct serve_view *view, size_t at);
    const char *label; /* A further label, with these values; NULL: none. */
    const char *const *values;
    size_t values_count;
    const char *help;
};

static const char *const states[] = {
#define STATE_TEXT(name, text) text,
    RELAY_STATE_MAP(STATE_TEXT)
#undef STATE_TEXT
};
static const char *const leaves[] = {"0", "1", "2", "3"};
static const char *const kinds[WAKE_KINDS] = {"datagram", "notify", "poll"};

static const struct figure figures[] = {
    {"database_reachable", "gauge", reachable, NULL, NULL, 1,
     "1: the database is connected and answers."},
    {"relay_state", "gauge", relay_state, "state", states, sizeof(states) / sizeof(states[0]),
     "1 for the state that the relay is in; all 0 while it is not connected."},
    {"pending_rows", "gauge", pending_rows, NULL, NULL, 1,
     "Committed rows that are not published: an estimate."},
    {"oldest_pending_seconds", "gauge", oldest_pending, NULL, NULL, 1,
     "Age of the oldest row that is not published, by the database's clock."},
    {"in_flight_xips", "gauge", open_transactions, NULL, NULL, 1,
     "Open transactions whose rows come late."},
    {"longest_open_tx_seconds", "gauge", longest_open, NULL, NULL, 1,
     "Age of the oldest transaction that may hold rows back."},
    {"inflight_batches", "gauge", inflight, NULL, NULL, 1, "Batches sent and not answered."},
    {"blocked_topics", "gauge", blocked_topics, NULL, NULL, 1,
     "Topics whose rows wait: they do not exist, or a row of theirs is not decided."},
    {"blocked_partitions", "gauge", blocked_partitions, NULL, NULL, 1,
     "Partitions whose rows wait."},
    {"parked_keys", "gauge", parked_keys, NULL, NULL, 1, "Keys that are parked."},
    {"wakes_total", "counter", wakes, "kind", kinds, WAKE_KINDS,
     "What made the relay find something."},
    {"connects_total", "counter", connects, NULL, NULL, 1, "Connections made to the database."},
    {"ring_leaf_rows", "gauge", leaf_rows, "leaf", leaves, sizeof(leaves) / sizeof(leaves[0]),
     "Rows of each leaf of PostgreSQL's outbox: estimates."},
    {"ring_truncate_total", "counter", truncates, NULL, NULL, 1,
     "Leaves truncated since the last connection."},
    {"barriers_total", "counter", barriers, NULL, NULL, 1,
     "Times that the relay flushed the database since the last connection."},
    {"barrier_wait_seconds_total", "counter", barrier_seconds, NULL, NULL, 1,
     "Time spent on that."},
};

static void write_figures(struct buf *out, const struct serve_view *views, size_t count)
{
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        const struct figure *f = &figures[i];
        metric_head(out, f->name, f->type, f->help);
        for (size_t v = 0; v < count * f->values_count; v++) {
            const struct serve_view *view = &views[v / f->values_count];
            size_t at = v % f->values_count;
            series(out, f->name, "", view);
            if (f->label != NULL) {
                buf_printf(out, ",%s=\"%s\"", f->label, f->values[at]);
            }
            buf_append_u8(out, '}');
            metric_number(out, f->value(view, at));
        }
    }
}

void relay_metrics_write(struct buf *out, const struct serve_view *views, size_t count)
{
    metric_head(out, "build_info", "gauge", "1; its label is the version.");
    buf_printf(out, METRIC_PREFIX "build_info{version=\"%s\"} 1\n", FERRY_VERSION);
    write_figures(out, views, count);
    write_counters(out, views, count);
    write_histograms(out, views, count);
    write_topics(out, views, count);
}
