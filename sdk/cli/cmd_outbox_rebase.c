/* cmd_outbox_rebase: an outbox that was set back in time, or copied, made publishable again.
 *
 * The relay has halted: what the brokers know under the outbox's id does not fit the database any
 * more. So the source's election is taken here, under the holder's name "rebase", that nobody
 * publishes meanwhile, and every partition of the topics that rows are for is told of it (a fence):
 * a relay that was stopped in the middle of an append, and wakes later, is refused there. Then the
 * logs of these topics are read, and the rows whose ids are in them (or wait there as delayed
 * messages) are deleted; then the source has a new id, under which the brokers know nothing, and
 * the relay publishes what is left.
 *
 * What cannot be known: a row that is older than the beginning of a log whose start was dropped may
 * have been in it. Such rows are told, and published only with --accept-duplicates, marked so that
 * consumers claim their ids. Clocks of database and broker are compared here, so a row counts as
 * older up to REBASE_SKEW_MS.
 *
 * Topics that no row is for are not fenced: what a stopped relay still has for them is of rows that
 * the database does not have any more, and cannot be doubled by what it has.
 *
 * Memory: 17 bytes a row of the outbox, at most REBASE_ROWS_MAX rows. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/id_list.h"
#include "cli/log_walk.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/relay_view.h"

#define REBASE_ROWS_MAX    20000000
#define REBASE_TOPICS_MAX  1000
#define REBASE_SKEW_MS     60000
#define REBASE_LEASE_MS    60000
#define REBASE_WAIT_MS     3000 /* For a relay that is gone, whose lease has not ended. */
#define REBASE_SCHEDULED   1000 /* Delayed messages of one page. */
#define REBASE_HOLDER      "rebase"
#define REBASE_ROWS_A_LOOK 4096 /* Records between two looks at the clock. */

struct topic {
    char name[PLACE_TOPIC_BYTES];
    int64_t dropped_until_ms; /* As log_walk's. */
};

struct rebasing {
    struct cli *cli;
    struct database db;
    struct outbox_status status;
    struct ferry_source *lanes[SOURCE_LANES_MAX];
    size_t lane_count;
    int64_t renew_us;

    struct topic *topics;
    size_t topic_count, topic_capacity;
    struct id_list rows;     /* Sorted once all are there. */
    uint8_t *in_log;         /* By place in `rows`. */
    struct id_list doubtful; /* Not in a log, and older than what is left of one. Sorted. */
    int64_t records;
    enum ferry_err err;
};

/* ---- The election --------------------------------------------------------------------------- */

static enum cli_exit refuse_active(struct rebasing *r)
{
    struct relay_view view = {.asked = false};
    char detail[400];
    const char *holder = "another relay";
    if (relay_view_ask(r->cli, &r->status.source_id, r->status.lanes, &view) != CLI_EXIT_OK) {
        return CLI_EXIT_FAILED;
    }
    for (uint32_t lane = 0; view.infos != NULL && lane < view.lanes; lane++) {
        if (view.infos[lane].left_ms > 0 && strcmp(view.infos[lane].holder, REBASE_HOLDER) != 0) {
            holder = view.infos[lane].holder;
        }
    }
    (void)snprintf(detail, sizeof(detail),
                   "%s is active: stop it first, or let it publish; a relay that needs a rebase "
                   "has halted",
                   holder);
    relay_view_fini(&view);
    return cli_fail(r->cli, FERRY_ERR_LOCKED, r->db.shown, detail);
}

static enum cli_exit elect_lane(struct rebasing *r, uint32_t lane)
{
    struct ferry_source_grant grant = {.standby = true};
    int64_t until_us = clock_monotonic_us() + REBASE_WAIT_MS * INT64_C(1000);
    enum ferry_err err = ferry_source_open(&r->lanes[lane], r->cli->client, &r->status.source_id,
                                           lane, REBASE_HOLDER);
    r->lane_count = lane + 1;
    while (err == FERRY_OK && grant.standby) {
        err = ferry_source_elect(r->lanes[lane], REBASE_LEASE_MS, r->cli->timeout_ms, &grant);
        if (err == FERRY_OK && grant.standby) {
            if (clock_monotonic_us() > until_us || cli_is_interrupted(r->cli)) {
                return refuse_active(r);
            }
            cli_pause(CLI_TURN_MS);
        }
    }
    return err != FERRY_OK ? cli_fail(r->cli, err, r->db.shown, NULL) : CLI_EXIT_OK;
}

static enum cli_exit elect(struct rebasing *r)
{
    enum cli_exit code = CLI_EXIT_OK;
    for (uint32_t lane = 0; code == CLI_EXIT_OK && lane < r->status.lanes; lane++) {
        code = elect_lane(r, lane);
    }
    r->renew_us = clock_monotonic_us() + REBASE_LEASE_MS * INT64_C(1000) / 3;
    return code;
}

/* LEASE_LOST: another took over, which only happens when this stood still for long. */
static enum ferry_err renew(struct rebasing *r, bool now)
{
    enum ferry_err err = FERRY_OK;
    if (!now && clock_monotonic_us() < r->renew_us) {
        return FERRY_OK;
    }
    for (size_t lane = 0; err == FERRY_OK && lane < r->lane_count; lane++) {
        struct ferry_source_grant grant = {.standby = true};
        err = ferry_source_elect(r->lanes[lane], REBASE_LEASE_MS, r->cli->timeout_ms, &grant);
        err = err == FERRY_OK && grant.standby ? FERRY_ERR_LEASE_LOST : err;
    }
    r->renew_us = clock_monotonic_us() + REBASE_LEASE_MS * INT64_C(1000) / 3;
    return err;
}

static void resign(struct rebasing *r)
{
    for (size_t lane = 0; lane < r->lane_count; lane++) {
        if (r->lanes[lane] != NULL) {
            (void)ferry_source_resign(r->lanes[lane], r->cli->timeout_ms);
        }
        ferry_source_close(&r->lanes[lane]);
    }
}

/* ---- The rows ------------------------------------------------------------------------------- */

static struct topic *find_topic(struct rebasing *r, const char *name)
{
    for (size_t i = 0; i < r->topic_count; i++) {
        if (strcmp(r->topics[i].name, name) == 0) {
            return &r->topics[i];
        }
    }
    return NULL;
}

static enum ferry_err add_topic(struct rebasing *r, const char *name)
{
    if (find_topic(r, name) != NULL) {
        return FERRY_OK;
    }
    if (r->topic_count == REBASE_TOPICS_MAX || strlen(name) >= sizeof(r->topics[0].name)) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    if (!mem_grow((void **)&r->topics, &r->topic_capacity, r->topic_count + 1,
                  sizeof(r->topics[0]))) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct topic *topic = &r->topics[r->topic_count++];
    *topic = (struct topic){.dropped_until_ms = 0};
    (void)snprintf(topic->name, sizeof(topic->name), "%s", name);
    return FERRY_OK;
}

static bool gather_row(const struct outbox_row *row, void *arg)
{
    struct rebasing *r = arg;
    r->err = r->rows.count == REBASE_ROWS_MAX ? FERRY_ERR_LIMIT_REACHED : add_topic(r, row->topic);
    if (r->err == FERRY_OK && !id_list_add(&r->rows, &row->id)) {
        r->err = FERRY_ERR_NO_MEMORY;
    }
    if (r->err == FERRY_OK && r->rows.count % REBASE_ROWS_A_LOOK == 0) {
        r->err = renew(r, false);
    }
    return r->err == FERRY_OK;
}

static enum cli_exit walk_rows(struct rebasing *r, outbox_row_cb *callback)
{
    const struct database_choice all = {.any = false};
    enum cli_exit code =
        database_walk(r->cli, &r->db, OUTBOX_TABLE_PENDING, &all, INT64_MAX, callback, r, NULL);
    if (code == CLI_EXIT_OK && r->err != FERRY_OK) {
        code = cli_fail(r->cli, r->err, r->db.shown,
                        r->err == FERRY_ERR_LIMIT_REACHED
                            ? "over 20,000,000 rows or 1,000 topics: more than a rebase can hold"
                            : NULL);
    }
    if (code == CLI_EXIT_OK && cli_is_interrupted(r->cli)) {
        fputs("ferry: interrupted: nothing was changed\n", stderr);
        code = CLI_EXIT_FAILED;
    }
    return code;
}

static enum cli_exit gather_rows(struct rebasing *r)
{
    enum cli_exit code = walk_rows(r, gather_row);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    id_list_sort(&r->rows);
    r->in_log = mem_zalloc(r->rows.count + 1, sizeof(r->in_log[0]));
    return r->in_log == NULL ? cli_fail(r->cli, FERRY_ERR_NO_MEMORY, NULL, NULL) : CLI_EXIT_OK;
}

/* ---- The logs ------------------------------------------------------------------------------- */

/* An id may be that of several rows: all of them are marked. */
static void note_in_log(struct rebasing *r, const struct ferry_id *id)
{
    size_t place = 0;
    if (id_list_find(&r->rows, id, &place)) {
        r->in_log[place] = 1;
    }
}

static enum ferry_err take_record(const struct ferry_record *record, void *arg)
{
    struct rebasing *r = arg;
    note_in_log(r, &record->id);
    return ++r->records % REBASE_ROWS_A_LOOK == 0 ? renew(r, false) : FERRY_OK;
}

/* Delayed messages are with the broker, but not in the log yet. */
static enum ferry_err take_scheduled(struct rebasing *r, const char *topic)
{
    struct ferry_schedule_id after = {0};
    bool more = true;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && more && !cli_is_interrupted(r->cli)) {
        struct ferry_scheduled *scheduled = NULL;
        size_t count = 0;
        err = ferry_schedule_list(r->cli->client, topic, &after, REBASE_SCHEDULED,
                                  r->cli->timeout_ms, &scheduled, &count, &more, NULL);
        for (size_t i = 0; err == FERRY_OK && i < count; i++) {
            note_in_log(r, &scheduled[i].id);
        }
        ferry_scheduled_free(&scheduled);
        err = err == FERRY_OK ? renew(r, false) : err;
    }
    return err;
}

/* Delayed ones first: one that comes due meanwhile is found in the log after it. A topic that is
 * not there has nothing. */
static enum cli_exit read_topic(struct rebasing *r, struct topic *topic)
{
    struct log_walk walk = {.from_ms = 0};
    int32_t partitions = 0;
    enum ferry_err err =
        ferry_topic_partitions(r->cli->client, topic->name, r->cli->timeout_ms, &partitions);
    if (err == FERRY_ERR_UNKNOWN_TOPIC) {
        return CLI_EXIT_OK;
    }
    err = err == FERRY_OK ? take_scheduled(r, topic->name) : err;
    if (err != FERRY_OK) {
        return cli_fail(r->cli, err, topic->name, NULL);
    }
    enum cli_exit code =
        log_walk(r->cli, topic->name, "nothing was changed", take_record, r, &walk);
    topic->dropped_until_ms = walk.dropped_until_ms;
    return code;
}

static bool is_in_log(const struct rebasing *r, const struct ferry_id *id)
{
    size_t place = 0;
    return id_list_find(&r->rows, id, &place) && r->in_log[place] != 0;
}

static bool gather_doubtful(const struct outbox_row *row, void *arg)
{
    struct rebasing *r = arg;
    const struct topic *topic = find_topic(r, row->topic);
    int64_t until_ms = topic == NULL ? 0 : topic->dropped_until_ms;
    bool older =
        until_ms > 0 && (!row->created_known || row->created_ms - REBASE_SKEW_MS <= until_ms);
    if (older && !is_in_log(r, &row->id) && !id_list_add(&r->doubtful, &row->id)) {
        r->err = FERRY_ERR_NO_MEMORY;
    }
    return r->err == FERRY_OK;
}

static enum cli_exit read_logs(struct rebasing *r)
{
    enum cli_exit code = CLI_EXIT_OK;
    bool dropped = false;
    for (size_t i = 0; code == CLI_EXIT_OK && i < r->topic_count; i++) {
        code = read_topic(r, &r->topics[i]);
        dropped = dropped || r->topics[i].dropped_until_ms > 0;
    }
    if (code == CLI_EXIT_OK && dropped) {
        code = walk_rows(r, gather_doubtful);
    }
    id_list_sort(&r->doubtful);
    return code;
}

/* ---- The fence ------------------------------------------------------------------------------ */

static const char *why_not_fenced(enum ferry_err err)
{
    switch (err) {
    case FERRY_ERR_UNKNOWN_COMMAND:
        return "its broker cannot hold off a relay that was stopped while it appended: bring the "
               "brokers up to date first";
    case FERRY_ERR_SOURCE_FENCED:
    case FERRY_ERR_LEASE_LOST:
        return "the election was lost: nothing was changed";
    default:
        return NULL;
    }
}

/* LIMIT_REACHED: the partition has no cursor of this source and no room for one, so that an append
 * under it is refused as well. */
static enum cli_exit fence_partition(struct rebasing *r, const char *topic, int32_t partition)
{
    enum ferry_err err = FERRY_OK;
    for (size_t lane = 0; err == FERRY_OK && lane < r->lane_count; lane++) {
        err = ferry_source_fence(r->lanes[lane], topic, partition, 0, r->cli->timeout_ms);
        err = err == FERRY_ERR_LIMIT_REACHED ? FERRY_OK : err;
    }
    err = err == FERRY_OK ? renew(r, false) : err;
    if (err != FERRY_OK) {
        return cli_fail(r->cli, err, topic, why_not_fenced(err));
    }
    if (cli_is_interrupted(r->cli)) {
        fputs("ferry: interrupted: nothing was changed\n", stderr);
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}

/* What is in the logs from here on is all that there will be of the source's old id. */
static enum cli_exit fence(struct rebasing *r)
{
    enum cli_exit code = CLI_EXIT_OK;
    for (size_t i = 0; code == CLI_EXIT_OK && i < r->topic_count; i++) {
        const char *topic = r->topics[i].name;
        int32_t partitions = 0;
        enum ferry_err err =
            ferry_topic_partitions(r->cli->client, topic, r->cli->timeout_ms, &partitions);
        if (err != FERRY_OK && err != FERRY_ERR_UNKNOWN_TOPIC) {
            return cli_fail(r->cli, err, topic, NULL);
        }
        for (int32_t p = 0; code == CLI_EXIT_OK && p < partitions; p++) {
            code = fence_partition(r, topic, p);
        }
    }
    return code;
}

/* ---- The change ----------------------------------------------------------------------------- */

static enum outbox_verdict judge(const struct ferry_id *id, int64_t created_ms, void *arg)
{
    const struct rebasing *r = arg;
    (void)created_ms;
    return is_in_log(r, id)                ? OUTBOX_VERDICT_DELETE
           : id_list_has(&r->doubtful, id) ? OUTBOX_VERDICT_MARK
                                           : OUTBOX_VERDICT_KEEP;
}

static enum cli_exit change(struct rebasing *r, bool dry_run, struct outbox_rebased *rebased)
{
    struct err_text e = {.text = ""};
    enum ferry_err err = dry_run ? FERRY_OK : renew(r, true);
    if (err != FERRY_OK) {
        return cli_fail(r->cli, err, r->db.shown, "the election was lost: nothing was changed");
    }
    err = r->db.admin->rebase(r->db.url, judge, r, dry_run, rebased, &e);
    return err != FERRY_OK ? database_fail(r->cli, &r->db, err, &e) : CLI_EXIT_OK;
}

static void tell(const struct rebasing *r, bool dry_run, const struct outbox_rebased *rebased)
{
    char id[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&rebased->new_id, id);
    if (r->cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", r->db.shown);
        output_set_bool(object, "dry_run", dry_run);
        output_set_int(object, "records_read", r->records);
        output_set_int(object, "deleted", rebased->deleted);
        output_set_int(object, "kept", rebased->kept);
        output_set_int(object, "possible_duplicates", rebased->marked);
        output_set_text(object, "source_id", dry_run ? NULL : id);
        output_json(object);
        return;
    }
    printf("%lld rows %s in the logs %s, %lld %s\n", (long long)rebased->deleted,
           dry_run ? "that are" : "that were", dry_run ? "would be deleted" : "are deleted",
           (long long)rebased->kept, dry_run ? "would be published" : "will be published");
    if (rebased->marked > 0) {
        printf("%lld of these may have been published before: the logs do not go back so far\n",
               (long long)rebased->marked);
    }
    if (!dry_run) {
        printf("the outbox is source %s from now on\n", id);
    }
}

static enum cli_exit refuse_doubtful(const struct rebasing *r, int64_t marked)
{
    char detail[300];
    (void)snprintf(detail, sizeof(detail),
                   "%lld rows are older than what is left of their topics' logs, so nobody knows "
                   "whether they were published: with --accept-duplicates they are published, "
                   "marked by the header " FERRY_HEADER_POSSIBLE_DUPLICATE,
                   (long long)marked);
    (void)cli_fail(r->cli, FERRY_ERR_OFFSET_OUT_OF_RANGE, r->db.shown, detail);
    return CLI_EXIT_NOT_SAFE;
}

static enum cli_exit decide(struct rebasing *r, bool dry_run)
{
    char question[200];
    struct outbox_rebased rebased = {0};
    enum cli_exit code = change(r, true, &rebased);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (dry_run) {
        tell(r, true, &rebased);
        return CLI_EXIT_OK;
    }
    if (rebased.marked > 0 && !args_has(r->cli->args, OPT_ACCEPT_DUPLICATES)) {
        return refuse_doubtful(r, rebased.marked);
    }
    (void)snprintf(question, sizeof(question),
                   "Delete %lld rows that are in the logs, and publish %lld under a new source id?",
                   (long long)rebased.deleted, (long long)rebased.kept);
    code = database_confirm(r->cli, question);
    if (code == CLI_EXIT_OK) {
        code = change(r, false, &rebased);
    }
    if (code == CLI_EXIT_OK) {
        tell(r, false, &rebased);
    }
    return code;
}

static enum cli_exit rebase(struct rebasing *r, bool dry_run)
{
    struct err_text e = {.text = ""};
    enum ferry_err err = r->db.admin->status(r->db.url, NULL, 0, &r->status, &e);
    if (err != FERRY_OK) {
        return database_fail(r->cli, &r->db, err, &e);
    }
    must(r->status.lanes <= SOURCE_LANES_MAX);
    enum cli_exit code = cli_connect(r->cli, NULL, NULL);
    if (code == CLI_EXIT_OK && !dry_run) {
        code = elect(r);
    }
    code = code == CLI_EXIT_OK ? gather_rows(r) : code;
    code = code == CLI_EXIT_OK && !dry_run ? fence(r) : code;
    code = code == CLI_EXIT_OK ? read_logs(r) : code;
    return code == CLI_EXIT_OK ? decide(r, dry_run) : code;
}

enum cli_exit cmd_outbox_rebase(struct cli *cli)
{
    struct rebasing r = {.cli = cli};
    bool dry_run = args_has(cli->args, OPT_DRY_RUN);
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &r.db);
    if (code == CLI_EXIT_OK) {
        code = rebase(&r, dry_run);
    }
    resign(&r);
    id_list_fini(&r.rows);
    id_list_fini(&r.doubtful);
    mem_free(r.in_log);
    mem_free(r.topics);
    return code;
}
