/* cmd_trace: the life of one message: from its row in an outbox, through the log, to an inbox. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/log_walk.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/trace_database.h"

struct tracing {
    struct cli *cli;
    char topic[PLACE_TOPIC_BYTES];
    int32_t partition;
    int64_t offset;
    bool begun;    /* An event was told. */
    bool complete; /* From when it was stored. */
};

/* ---- Where it is ---------------------------------------------------------------------------- */

/* In one topic. UNKNOWN_MESSAGE: not here. */
static enum ferry_err find_in(struct tracing *t, const char *topic, const struct ferry_id *id)
{
    enum ferry_err err = ferry_message_find(t->cli->client, topic, id, t->cli->timeout_ms,
                                            &t->partition, &t->offset);
    if (err == FERRY_OK) {
        (void)snprintf(t->topic, sizeof(t->topic), "%s", topic);
    }
    return err;
}

/* In all topics. "Not found" is only said when all have been searched: the first error of one that
 * could not be is remembered. */
static enum ferry_err find_anywhere(struct tracing *t, const struct ferry_id *id)
{
    char **names = NULL;
    size_t count = 0;
    enum ferry_err not_searched = FERRY_OK;
    enum ferry_err err = ferry_topic_list(t->cli->client, t->cli->timeout_ms, &names, &count);
    if (err != FERRY_OK) {
        return err;
    }
    err = FERRY_ERR_UNKNOWN_MESSAGE;
    for (size_t i = 0; i < count && err != FERRY_OK && !cli_is_interrupted(t->cli); i++) {
        err = find_in(t, names[i], id);
        bool searched = err == FERRY_OK || err == FERRY_ERR_UNKNOWN_MESSAGE ||
                        err == FERRY_ERR_UNKNOWN_TOPIC; /* Deleted meanwhile. */
        not_searched = !searched && not_searched == FERRY_OK ? err : not_searched;
    }
    ferry_names_free(&names);
    if (err == FERRY_OK) {
        return FERRY_OK;
    }
    return not_searched != FERRY_OK ? not_searched : FERRY_ERR_UNKNOWN_MESSAGE;
}

static enum ferry_err find(struct tracing *t, const struct ferry_id *id)
{
    const char *topic = args_text(t->cli->args, OPT_TOPIC, NULL);
    return topic != NULL ? find_in(t, topic, id) : find_anywhere(t, id);
}

/* ---- In the log itself ---------------------------------------------------------------------- */

#define SEARCH_BEFORE_MS 600000 /* Before the time in the id: clocks differ. */

/* Of messages that a relay has published the brokers keep no index of ids: the log is read. */
struct searching {
    struct tracing *t;
    const struct ferry_id *id;
    struct log_walk walk;
    bool found;
};

static enum ferry_err look_at(const struct ferry_record *record, void *arg)
{
    struct searching *s = arg;
    if (id_equal(&record->id, s->id)) {
        s->found = true;
        s->walk.stop = true;
        s->t->partition = record->partition;
        s->t->offset = record->offset;
        (void)snprintf(s->t->topic, sizeof(s->t->topic), "%s", record->topic);
    }
    return FERRY_OK;
}

/* A UUIDv7 begins with the time it was made at; it cannot have been stored long before. One of 16
 * ids of random bytes looks like one: they mostly name a time that has not come. */
static int64_t search_from_ms(const struct ferry_id *id)
{
    int64_t made_ms = 0;
    for (size_t i = 0; i < 6; i++) {
        made_ms = made_ms << 8 | id->bytes[i];
    }
    int64_t from_ms = made_ms - SEARCH_BEFORE_MS;
    bool is_time = id->bytes[6] >> 4 == 7 && from_ms > 0 && from_ms <= clock_wall_ms();
    return is_time ? from_ms : 0;
}

static enum cli_exit search_topic(struct searching *s, const char *topic)
{
    s->walk.from_ms = search_from_ms(s->id);
    return log_walk(s->t->cli, topic, "it was not found so far", look_at, s, &s->walk);
}

static enum cli_exit search(struct tracing *t, const struct ferry_id *id, bool *found)
{
    struct searching s = {.t = t, .id = id};
    const char *topic = args_text(t->cli->args, OPT_TOPIC, NULL);
    char **names = NULL;
    size_t count = 0;
    enum cli_exit code = CLI_EXIT_OK;
    if (topic != NULL) {
        code = search_topic(&s, topic);
    } else {
        enum ferry_err err = ferry_topic_list(t->cli->client, t->cli->timeout_ms, &names, &count);
        code = err != FERRY_OK ? cli_fail(t->cli, err, NULL, NULL) : CLI_EXIT_OK;
    }
    for (size_t i = 0; code == CLI_EXIT_OK && !s.found && i < count; i++) {
        code = search_topic(&s, names[i]);
    }
    ferry_names_free(&names);
    *found = s.found;
    return code;
}

/* ---- Telling -------------------------------------------------------------------------------- */

static const char *kind_name(enum ferry_trace_kind kind)
{
    static const char *const names[] = {
        [FERRY_TRACE_APPENDED] = "stored",
        [FERRY_TRACE_HANDED_OUT] = "handed out",
        [FERRY_TRACE_ACKED] = "acked",
        [FERRY_TRACE_NACKED] = "nacked",
        [FERRY_TRACE_RELEASED] = "released",
        [FERRY_TRACE_REJECTED] = "rejected",
        [FERRY_TRACE_LEASE_EXPIRED] = "lease ended",
        [FERRY_TRACE_DEAD] = "dead letter",
        [FERRY_TRACE_REVIVED] = "replayed",
        [FERRY_TRACE_DROPPED] = "dropped",
        [FERRY_TRACE_EXTENDED] = "extended",
        [FERRY_TRACE_TRIMMED] = "trimmed",
        [FERRY_TRACE_SCHEDULED] = "scheduled",
        [FERRY_TRACE_COMMITTED] = "committed",
    };
    return kind >= FERRY_TRACE_APPENDED && kind <= FERRY_TRACE_COMMITTED ? names[kind] : "unknown";
}

static void print_event(const struct ferry_trace_event *e)
{
    char time[FORMAT_TEXT_BYTES];
    format_time_ms(e->time_ms, time);
    printf("%s  %-11s", time, kind_name(e->kind));
    if (e->node != 0) {
        printf("  node %u", e->node);
    }
    if (e->subscription[0] != '\0') {
        printf("  %s", e->subscription);
    }
    if (e->member[0] != '\0') {
        printf("  by %s", e->member);
    }
    if (e->reason[0] != '\0') {
        printf(": %s", e->reason);
    }
    if (e->due_ms > 0) {
        format_time_ms(e->due_ms, time);
        printf("  (%s %s)", e->kind == FERRY_TRACE_SCHEDULED ? "due" : "not before", time);
    }
    putchar('\n');
}

static void print_event_json(const struct ferry_trace_event *e)
{
    json_t *object = output_object();
    output_set_int(object, "time_ms", e->time_ms);
    output_set_text(object, "event", kind_name(e->kind));
    output_set(object, "node", e->node != 0 ? json_integer(e->node) : json_null());
    output_set_text(object, "subscription", e->subscription[0] != '\0' ? e->subscription : NULL);
    output_set_text(object, "member", e->member[0] != '\0' ? e->member : NULL);
    output_set_text(object, "reason", e->reason[0] != '\0' ? e->reason : NULL);
    output_set(object, "lease", e->lease != 0 ? json_integer((json_int_t)e->lease) : json_null());
    output_set(object, "due_ms", e->due_ms > 0 ? json_integer(e->due_ms) : json_null());
    output_set_int(object, "index", (int64_t)e->index);
    output_json(object);
}

static void print_head(const struct tracing *t)
{
    if (t->cli->json) {
        json_t *object = output_object();
        output_set_text(object, "topic", t->topic);
        output_set_int(object, "partition", t->partition);
        output_set_int(object, "offset", t->offset);
        output_json(object);
    } else {
        printf("%s/%d/%lld\n", t->topic, t->partition, (long long)t->offset);
    }
}

static void tell(struct tracing *t, const struct ferry_trace_event *e)
{
    if (!t->begun) {
        t->begun = true;
        t->complete = e->kind == FERRY_TRACE_APPENDED || e->kind == FERRY_TRACE_SCHEDULED;
    }
    if (t->cli->json) {
        print_event_json(e);
    } else {
        print_event(e);
    }
}

/* To the log's end; `next` is the broker's word, and 0 when there is no more. */
static enum ferry_err tell_all(struct tracing *t)
{
    uint64_t next = 0;
    enum ferry_err err = FERRY_OK;
    do {
        struct ferry_trace_event *events = NULL;
        uint64_t end = 0;
        size_t count = 0;
        err = ferry_trace(t->cli->client, t->topic, t->partition, t->offset, t->cli->timeout_ms,
                          &next, &end, &events, &count);
        for (size_t i = 0; err == FERRY_OK && i < count; i++) {
            tell(t, &events[i]);
        }
        ferry_trace_free(&events);
    } while (err == FERRY_OK && next != 0 && !cli_is_interrupted(t->cli));
    return err;
}

/* What is not known is said, so that nobody takes silence for an answer. */
static void tell_what_is_missing(const struct tracing *t)
{
    const char *text = !t->begun ? "the log says nothing of it any more: retention has dropped it, "
                                   "or it was never there"
                                 : "the log does not go back to when it was stored: what came "
                                   "before is not known any more";
    if (!t->complete) {
        cli_warn(t->cli, FERRY_ERR_OFFSET_OUT_OF_RANGE, t->topic, text);
    }
}

static enum cli_exit trace(struct tracing *t)
{
    print_head(t);
    enum ferry_err err = tell_all(t);
    if (err != FERRY_OK) {
        return cli_fail(t->cli, err, t->topic, NULL);
    }
    tell_what_is_missing(t);
    return t->begun ? CLI_EXIT_OK : CLI_EXIT_NOT_FOUND;
}

/* ---- With databases ------------------------------------------------------------------------- */

/* The id of the record at a place, for the databases; zero when it cannot be read. */
static struct ferry_id id_at(struct tracing *t)
{
    struct ferry_consumer *consumer = NULL;
    struct ferry_batch *batch = NULL;
    struct ferry_id id = {{0}};
    enum ferry_err err = ferry_consumer_open(&consumer, t->cli->client, t->topic, NULL,
                                             FERRY_FROM_END, t->cli->timeout_ms);
    if (err == FERRY_OK) {
        err = ferry_consumer_seek(consumer, t->partition, t->offset);
    }
    if (err == FERRY_OK) {
        err = ferry_consumer_fetch(consumer, t->cli->timeout_ms, &batch);
    }
    if (err == FERRY_OK && ferry_batch_partition(batch) == t->partition) {
        struct ferry_record record;
        ferry_batch_record(batch, 0, &record);
        id = record.offset == t->offset ? record.id : id;
    }
    ferry_batch_free(&batch);
    ferry_consumer_close(&consumer);
    return id;
}

static struct ferry_id topic_id_of(struct tracing *t)
{
    struct ferry_topic_info *info = NULL;
    struct ferry_id id = {{0}};
    if (ferry_topic_info(t->cli->client, t->topic, t->cli->timeout_ms, &info) == FERRY_OK) {
        id = info->id;
    }
    ferry_topic_info_free(&info);
    return id;
}

static void tell_not_in_log(const struct tracing *t)
{
    if (t->cli->json) {
        json_t *object = output_object();
        output_set_text(object, "topic", NULL);
        output_json(object);
    } else {
        puts("the log: it is not there, or not any more");
    }
}

/* The log's part. What is found is noted in `traced`; not to be there is no failure here. */
static enum cli_exit trace_log(struct tracing *t, bool placed, struct traced *traced, bool *found)
{
    enum ferry_err err = placed ? FERRY_OK : find(t, &traced->id);
    if (err == FERRY_ERR_UNKNOWN_MESSAGE) {
        bool there = false;
        enum cli_exit code = search(t, &traced->id, &there);
        if (code != CLI_EXIT_OK || !there) {
            tell_not_in_log(t);
            return code;
        }
        err = FERRY_OK;
    }
    if (err != FERRY_OK) {
        return cli_fail(t->cli, err, t->cli->args->positionals[0], NULL);
    }
    traced->topic_id = topic_id_of(t);
    traced->partition = t->partition;
    traced->offset = t->offset;
    enum cli_exit code = trace(t);
    *found = *found || code == CLI_EXIT_OK;
    return code == CLI_EXIT_NOT_FOUND ? CLI_EXIT_OK : code;
}

/* Whoever cannot be asked does not keep the others from telling. */
static enum cli_exit trace_everywhere(struct tracing *t, bool placed, struct traced *traced)
{
    bool found = false;
    if (placed) {
        traced->id = id_at(t);
    }
    enum cli_exit outboxes = trace_outboxes(t->cli, traced, &found);
    enum cli_exit log = trace_log(t, placed, traced, &found);
    enum cli_exit inboxes = trace_inboxes(t->cli, traced, &found);
    enum cli_exit code = outboxes != CLI_EXIT_OK ? outboxes : log != CLI_EXIT_OK ? log : inboxes;
    return code != CLI_EXIT_OK ? code : found ? CLI_EXIT_OK : CLI_EXIT_NOT_FOUND;
}

static enum cli_exit trace_log_only(struct tracing *t, bool placed, const struct ferry_id *id)
{
    const char *message = t->cli->args->positionals[0];
    enum ferry_err err = placed ? FERRY_OK : find(t, id);
    if (err == FERRY_ERR_UNKNOWN_TOPIC) {
        return cli_fail(t->cli, err, args_text(t->cli->args, OPT_TOPIC, NULL), NULL);
    }
    if (err == FERRY_ERR_UNKNOWN_MESSAGE && args_has(t->cli->args, OPT_TOPIC)) {
        bool there = false;
        enum cli_exit code = search(t, id, &there);
        if (code != CLI_EXIT_OK) {
            return code;
        }
        err = there ? FERRY_OK : err;
    }
    return err != FERRY_OK ? cli_fail(t->cli, err, message, NULL) : trace(t);
}

enum cli_exit cmd_trace(struct cli *cli)
{
    struct tracing t = {.cli = cli};
    struct traced traced = {.offset = -1};
    const char *message = cli->args->positionals[0];
    bool placed = place_parse_record(message, t.topic, &t.partition, &t.offset);
    if (!placed && !ferry_id_parse(message, &traced.id)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, message,
                        "neither a message id nor TOPIC/PARTITION/OFFSET");
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    return args_has(cli->args, OPT_DB) ? trace_everywhere(&t, placed, &traced)
                                       : trace_log_only(&t, placed, &traced.id);
}
