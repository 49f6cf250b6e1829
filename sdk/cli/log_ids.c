#include "cli/log_ids.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/format.h"
#include "cli/output.h"

struct reading {
    struct cli *cli;
    struct log_ids *log;
    struct ferry_consumer *consumer;
    struct ferry_topic_info *info; /* The ends, as they were at the beginning. */
    int64_t *next;                 /* By partition: the first offset not read. Owned. */
    int64_t wanted;                /* Records between the starts and the ends. */
    struct output_progress progress;
};

void log_ids_fini(struct log_ids *log)
{
    id_list_fini(&log->ids);
    *log = (struct log_ids){0};
}

static enum ferry_err begin(struct reading *r)
{
    r->next = mem_zalloc(r->info->partition_count, sizeof(r->next[0]));
    if (r->next == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < r->info->partition_count; i++) {
        const struct ferry_partition_info *p = &r->info->partitions[i];
        if (p->err != FERRY_OK) {
            return p->err;
        }
        r->next[i] = p->start_offset;
        r->wanted += p->end_offset - p->start_offset;
        r->log->dropped += p->start_offset;
    }
    return FERRY_OK;
}

static bool is_complete(const struct reading *r)
{
    for (size_t i = 0; i < r->info->partition_count; i++) {
        if (r->next[i] < r->info->partitions[i].end_offset) {
            return false;
        }
    }
    return true;
}

static bool take_id(struct log_ids *log, const struct ferry_id *id)
{
    static const struct ferry_id none;
    log->records++;
    if (memcmp(id, &none, sizeof(none)) == 0) {
        log->without_id++;
        return true;
    }
    return id_list_add(&log->ids, id);
}

static enum ferry_err take_batch(struct reading *r, struct ferry_batch *batch)
{
    size_t partition = (size_t)ferry_batch_partition(batch);
    int64_t end = r->info->partitions[partition].end_offset;
    size_t count = ferry_batch_count(batch);
    for (size_t i = 0; i < count; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        if (record.offset < end && !take_id(r->log, &record.id)) {
            return FERRY_ERR_NO_MEMORY;
        }
    }
    r->next[partition] = ferry_batch_next_offset(batch);
    return FERRY_OK;
}

/* Retention was faster than this reader: go on where the log begins now. */
static void take_jump(struct reading *r)
{
    for (size_t i = 0; i < r->info->partition_count; i++) {
        int64_t position = ferry_consumer_position(r->consumer, (int32_t)i);
        if (position > r->next[i]) {
            r->log->dropped += position - r->next[i];
            r->next[i] = position;
        }
    }
}

static void show_progress(struct reading *r)
{
    char text[2 * FORMAT_TEXT_BYTES], records[FORMAT_TEXT_BYTES];
    format_count(r->log->records, records);
    snprintf(text, sizeof(text), "%s records read", records);
    output_progress_show(&r->progress, clock_monotonic_us(),
                         (double)r->log->records / (double)(r->wanted > 0 ? r->wanted : 1), text);
}

/* Reads until the ends; `timeout_ms` without anything new ends it. */
static enum ferry_err read_all(struct reading *r)
{
    int quiet_ms = 0;
    while (!is_complete(r) && !cli_is_interrupted(r->cli)) {
        struct ferry_batch *batch = NULL;
        enum ferry_err err = ferry_consumer_fetch(r->consumer, CLI_TURN_MS, &batch);
        if (err == FERRY_OK) {
            err = take_batch(r, batch);
            quiet_ms = 0;
        } else if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
            take_jump(r);
            err = FERRY_OK;
        } else if (err == FERRY_ERR_TIMEOUT && (quiet_ms += CLI_TURN_MS) < r->cli->timeout_ms) {
            err = FERRY_OK;
        }
        ferry_batch_free(&batch);
        if (err != FERRY_OK) {
            return err;
        }
        show_progress(r);
    }
    return FERRY_OK;
}

enum cli_exit log_ids_read(struct cli *cli, const char *topic, struct log_ids *log)
{
    struct reading r = {.cli = cli, .log = log};
    output_progress_init(&r.progress, !cli->json && !cli->quiet);
    enum ferry_err err = ferry_topic_info(cli->client, topic, cli->timeout_ms, &r.info);
    if (err == FERRY_OK) {
        err = begin(&r);
    }
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&r.consumer, cli->client, topic, NULL, FERRY_FROM_START,
                                  cli->timeout_ms);
    }
    if (err == FERRY_OK) {
        err = read_all(&r);
    }
    output_progress_clear(&r.progress);
    bool complete = err == FERRY_OK && is_complete(&r);
    ferry_consumer_close(&r.consumer);
    ferry_topic_info_free(&r.info);
    mem_free(r.next);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, topic, NULL);
    }
    if (!complete) {
        fputs("ferry: interrupted before the log was read: nothing was compared\n", stderr);
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}
