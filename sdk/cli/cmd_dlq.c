/* cmd_dlq: dlq list, show and export: what was given up, and why. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/id.h"
#include "base/mem.h"
#include "cli/dead_letters.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/record_text.h"

/* ---- The list ------------------------------------------------------------------------------- */

#define GROUPS_MAX 1000 /* Of reasons; further ones are counted together. */

struct group {
    char reason[FERRY_REASON_BYTES];
    int64_t count, revived;
    int64_t oldest_ms, newest_ms; /* When they died. */
};

struct grouping {
    struct group *groups;
    size_t count, capacity;
};

static struct group *find_group(struct grouping *g, const char *reason)
{
    for (size_t i = 0; i < g->count; i++) {
        if (strcmp(g->groups[i].reason, reason) == 0) {
            return &g->groups[i];
        }
    }
    if (g->count == GROUPS_MAX) {
        return &g->groups[GROUPS_MAX - 1];
    }
    if (!mem_grow((void **)&g->groups, &g->capacity, g->count + 1, sizeof(*g->groups))) {
        return NULL;
    }
    struct group *group = &g->groups[g->count++];
    *group = (struct group){.oldest_ms = INT64_MAX};
    (void)snprintf(group->reason, sizeof(group->reason), "%s",
                   g->count == GROUPS_MAX ? "(other reasons)" : reason);
    return group;
}

static enum ferry_err add_to_group(const struct ferry_dead *dead, void *arg)
{
    struct group *group = find_group(arg, dead->reason);
    if (group == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    group->count++;
    group->revived += dead->revived;
    group->oldest_ms = dead->died_ms < group->oldest_ms ? dead->died_ms : group->oldest_ms;
    group->newest_ms = dead->died_ms > group->newest_ms ? dead->died_ms : group->newest_ms;
    return FERRY_OK;
}

/* The reason stands last: it may be long. */
static void print_groups(const struct grouping *g)
{
    struct output_table table;
    char oldest[FORMAT_TEXT_BYTES], newest[FORMAT_TEXT_BYTES];
    output_table_init(&table, ">letters|>replayed|oldest|newest|reason");
    for (size_t i = 0; i < g->count; i++) {
        const struct group *group = &g->groups[i];
        format_time_ms(group->oldest_ms, oldest);
        format_time_ms(group->newest_ms, newest);
        output_table_count(&table, group->count);
        output_table_count(&table, group->revived);
        output_table_cell(&table, "%s", oldest);
        output_table_cell(&table, "%s", newest);
        output_table_cell(&table, "%s", group->reason[0] != '\0' ? group->reason : "(none given)");
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static void print_groups_json(const struct cli *cli, const struct grouping *g)
{
    int64_t total = 0;
    json_t *object = output_object();
    json_t *array = json_array();
    for (size_t i = 0; i < g->count; i++) {
        json_t *row = output_object();
        output_set_text(row, "reason", g->groups[i].reason);
        output_set_int(row, "letters", g->groups[i].count);
        output_set_int(row, "replayed", g->groups[i].revived);
        output_set_int(row, "oldest_ms", g->groups[i].oldest_ms);
        output_set_int(row, "newest_ms", g->groups[i].newest_ms);
        json_array_append_new(array, row);
        total += g->groups[i].count;
    }
    output_set_text(object, "topic", cli->args->positionals[0]);
    output_set_text(object, "subscription", cli->args->positionals[1]);
    output_set_int(object, "letters", total);
    output_set(object, "reasons", array);
    output_json(object);
}

static enum cli_exit list_groups(struct cli *cli)
{
    struct grouping g = {.groups = NULL};
    enum ferry_err err = dead_letters_walk(cli, NULL, add_to_group, &g);
    if (err == FERRY_OK && cli->json) {
        print_groups_json(cli, &g);
    } else if (err == FERRY_OK) {
        print_groups(&g);
    }
    mem_free(g.groups);
    return err != FERRY_OK ? dead_letters_fail(cli, err) : CLI_EXIT_OK;
}

/* ---- Each one ------------------------------------------------------------------------------- */

static const char *failure_name(enum ferry_failure_kind kind)
{
    switch (kind) {
    case FERRY_FAILURE_NACK:
        return "nacked";
    case FERRY_FAILURE_EXPIRED:
        return "lease ended";
    case FERRY_FAILURE_REJECT:
        return "rejected";
    case FERRY_FAILURE_PARKED:
        return "parked";
    }
    return "failed";
}

static json_t *dead_json(const struct ferry_dead *dead)
{
    json_t *object = output_object();
    json_t *failures = json_array();
    for (size_t i = 0; i < dead->failure_count; i++) {
        const struct ferry_failure *f = &dead->failures[i];
        json_t *row = output_object();
        output_set_int(row, "time_ms", f->time_ms);
        output_set_text(row, "kind", failure_name(f->kind));
        output_set_text(row, "member", f->member);
        output_set_text(row, "reason", f->reason);
        json_array_append_new(failures, row);
    }
    output_set_int(object, "partition", dead->partition);
    output_set_int(object, "number", (int64_t)dead->number);
    output_set_int(object, "offset", dead->offset);
    output_set_id(object, "id", &dead->id);
    output_set_int(object, "append_time", dead->append_time_ms);
    output_set_int(object, "died_ms", dead->died_ms);
    output_set_int(object, "handed_out", dead->handed_out);
    output_set_int(object, "failed", dead->failed);
    output_set_int(object, "record_bytes", dead->record_bytes);
    output_set_text(object, "reason", dead->reason);
    output_set_bool(object, "replayed", dead->revived);
    output_set(object, "failures", failures);
    return object;
}

/* Partition, number, offset, when it died, how often it failed. */
static enum ferry_err print_letter(const struct ferry_dead *dead, void *arg)
{
    const struct cli *cli = arg;
    char time[FORMAT_TEXT_BYTES];
    if (cli->json) {
        return output_json(dead_json(dead)) ? FERRY_OK : FERRY_ERR_IO;
    }
    format_time_ms(dead->died_ms, time);
    int printed =
        printf("%d\t%llu\t%lld\t%s\t%u%s\n", dead->partition, (unsigned long long)dead->number,
               (long long)dead->offset, time, dead->failed, dead->revived ? "\treplayed" : "");
    return printed > 0 ? FERRY_OK : FERRY_ERR_IO;
}

enum cli_exit cmd_dlq_list(struct cli *cli)
{
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    const char *reason = args_text(cli->args, OPT_REASON, NULL);
    if (reason == NULL) {
        return list_groups(cli);
    }
    enum ferry_err err = dead_letters_walk(cli, reason, print_letter, cli);
    return err != FERRY_OK ? dead_letters_fail(cli, err) : CLI_EXIT_OK;
}

/* ---- One, whole ----------------------------------------------------------------------------- */

static void print_failures(const struct ferry_dead *dead)
{
    char time[FORMAT_TEXT_BYTES];
    for (size_t i = 0; i < dead->failure_count; i++) {
        const struct ferry_failure *f = &dead->failures[i];
        format_time_ms(f->time_ms, time);
        printf("%s  %-11s  %s%s%s\n", time, failure_name(f->kind), f->member,
               f->reason[0] != '\0' ? ": " : "", f->reason);
    }
}

static void print_dead(const struct ferry_dead *dead, const struct ferry_record *record)
{
    char time[FORMAT_TEXT_BYTES], id[FERRY_ID_TEXT_BYTES];
    format_time_ms(dead->died_ms, time);
    if (id_is_zero(&dead->id)) {
        (void)snprintf(id, sizeof(id), "-");
    } else {
        ferry_id_format(&dead->id, id);
    }
    printf("%-16s %d\n%-16s %llu\n%-16s %lld\n", "partition", dead->partition, "number",
           (unsigned long long)dead->number, "offset", (long long)dead->offset);
    printf("%-16s %s\n%-16s %s\n", "id", id, "died", time);
    format_time_ms(dead->append_time_ms, time);
    printf("%-16s %s\n%-16s %u\n%-16s %u\n", "stored", time, "handed out", dead->handed_out,
           "failed", dead->failed);
    printf("%-16s %s\n", "reason", dead->reason[0] != '\0' ? dead->reason : "(none given)");
    printf("%-16s %s\n\n", "state", dead->revived ? "replayed, on its way again" : "dead");
    print_failures(dead);
    putchar('\n');
    (void)record_print_payload(record);
}

static void print_whole_json(const struct ferry_dead *dead, const struct ferry_record *record)
{
    json_t *object = dead_json(dead);
    output_set(object, "message", record_json(record));
    output_json(object);
}

enum cli_exit cmd_dlq_show(struct cli *cli)
{
    struct ferry_dead_place place;
    struct ferry_dead dead;
    struct ferry_record record;
    struct ferry_batch *batch = NULL;
    bool named;
    enum cli_exit code = dead_letters_place(cli, &place, &named);
    if (code == CLI_EXIT_OK && !named) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "which one? --partition and --number, as `dlq list --reason R` shows them");
    }
    if (code == CLI_EXIT_OK) {
        code = cli_connect(cli, NULL, NULL);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = dead_letters_find(cli, place, &dead);
    if (err == FERRY_OK) {
        err = dead_letters_read(cli, place, &batch, &record);
    }
    if (err != FERRY_OK) {
        return dead_letters_fail(cli, err);
    }
    if (cli->json) {
        print_whole_json(&dead, &record);
    } else {
        print_dead(&dead, &record);
    }
    ferry_batch_free(&batch);
    return CLI_EXIT_OK;
}

/* ---- Export --------------------------------------------------------------------------------- */

static enum ferry_err export_batch(struct ferry_batch *batch, int64_t partition, int64_t *count)
{
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        if (partition >= 0 && record.partition != partition) {
            continue;
        }
        if (!record_print_json(&record)) {
            return FERRY_ERR_IO;
        }
        ++*count;
    }
    return FERRY_OK;
}

/* Up to the end as it is now. */
static enum ferry_err export_all(struct cli *cli, struct ferry_consumer *consumer, int64_t *count)
{
    int64_t partition = args_number(cli->args, OPT_PARTITION, -1);
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && !ferry_consumer_at_end(consumer) && !cli_is_interrupted(cli)) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(consumer, CLI_TURN_MS, &batch);
        if (err == FERRY_OK) {
            err = export_batch(batch, partition, count);
            ferry_batch_free(&batch);
        } else if (err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
            err = FERRY_OK; /* Numbers have holes. */
        }
    }
    return err;
}

enum cli_exit cmd_dlq_export(struct cli *cli)
{
    char topic[DEAD_TOPIC_BYTES];
    struct ferry_consumer *consumer = NULL;
    int64_t count = 0;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    dead_letters_topic(cli, topic);
    enum ferry_err err =
        ferry_consumer_open(&consumer, cli->client, topic, NULL, FERRY_FROM_START, cli->timeout_ms);
    if (err == FERRY_OK) {
        err = export_all(cli, consumer, &count);
    }
    ferry_consumer_close(&consumer);
    if (err == FERRY_ERR_IO && errno == EPIPE) {
        return CLI_EXIT_OK;
    }
    if (err == FERRY_OK && !cli->quiet) {
        fprintf(stderr, "%lld dead letters\n", (long long)count);
    }
    return err != FERRY_OK ? dead_letters_fail(cli, err) : CLI_EXIT_OK;
}
