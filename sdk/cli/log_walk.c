#include "cli/log_walk.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/format.h"
#include "cli/output.h"

struct reading {
    struct cli *cli;
    struct log_walk *walk;
    log_record_cb *take;
    void *arg;
    struct ferry_consumer *consumer;
    struct ferry_topic_info *info; /* The ends, as they were at the beginning. */
    int64_t *next;                 /* By partition: the first offset not read. Owned. */
    int64_t *first_ms; /* By partition: of the first record read behind what was dropped;
                          0: none yet. Owned. */
    bool *gaps;        /* By partition: something was dropped. Owned. */
    int64_t wanted;    /* Records between the starts and the ends. */
    struct output_progress progress;
};

static enum ferry_err begin(struct reading *r)
{
    size_t count = r->info->partition_count;
    r->next = mem_zalloc(count, sizeof(r->next[0]));
    r->first_ms = mem_zalloc(count, sizeof(r->first_ms[0]));
    r->gaps = mem_zalloc(count, sizeof(r->gaps[0]));
    if (r->next == NULL || r->first_ms == NULL || r->gaps == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    r->walk->topic_id = r->info->id;
    for (size_t i = 0; i < count; i++) {
        const struct ferry_partition_info *p = &r->info->partitions[i];
        if (p->err != FERRY_OK) {
            return p->err;
        }
        r->next[i] = p->start_offset;
        r->wanted += p->end_offset - p->start_offset;
        r->walk->dropped += p->start_offset;
        r->gaps[i] = p->start_offset > 0;
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

static enum ferry_err take_batch(struct reading *r, struct ferry_batch *batch)
{
    size_t partition = (size_t)ferry_batch_partition(batch);
    int64_t end = r->info->partitions[partition].end_offset;
    size_t count = ferry_batch_count(batch);
    for (size_t i = 0; i < count; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        if (record.offset >= end) {
            break;
        }
        if (r->first_ms[partition] == 0) {
            r->first_ms[partition] = record.append_time_ms;
        }
        r->walk->records++;
        enum ferry_err err = r->take(&record, r->arg);
        if (err != FERRY_OK || r->walk->stop) {
            return err;
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
            r->walk->dropped += position - r->next[i];
            r->next[i] = position;
            r->gaps[i] = true;
            r->first_ms[i] = 0;
        }
    }
}

static void show_progress(struct reading *r)
{
    char text[2 * FORMAT_TEXT_BYTES], records[FORMAT_TEXT_BYTES];
    format_count(r->walk->records, records);
    snprintf(text, sizeof(text), "%s records read", records);
    output_progress_show(&r->progress, clock_monotonic_us(),
                         (double)r->walk->records / (double)(r->wanted > 0 ? r->wanted : 1), text);
}

/* Reads until the ends; `timeout_ms` without anything new ends it. */
static enum ferry_err read_all(struct reading *r)
{
    int quiet_ms = 0;
    while (!is_complete(r) && !r->walk->stop && !cli_is_interrupted(r->cli)) {
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

static void tell_dropped(struct reading *r)
{
    for (size_t i = 0; i < r->info->partition_count; i++) {
        int64_t until_ms = r->first_ms[i] == 0 ? INT64_MAX : r->first_ms[i];
        if (r->gaps[i] && until_ms > r->walk->dropped_until_ms) {
            r->walk->dropped_until_ms = until_ms;
        }
    }
}

static enum ferry_err read_topic(struct reading *r, const char *topic, bool *complete)
{
    enum ferry_err err = ferry_topic_info(r->cli->client, topic, r->cli->timeout_ms, &r->info);
    if (err == FERRY_OK) {
        err = begin(r);
    }
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&r->consumer, r->cli->client, topic, NULL, FERRY_FROM_START,
                                  r->cli->timeout_ms);
    }
    for (size_t i = 0; err == FERRY_OK && r->walk->from_ms > 0 && i < r->info->partition_count;
         i++) {
        err =
            ferry_consumer_seek_time(r->consumer, (int32_t)i, r->walk->from_ms, r->cli->timeout_ms);
        int64_t position = ferry_consumer_position(r->consumer, (int32_t)i);
        if (err == FERRY_OK && position > r->next[i]) {
            r->wanted -= position - r->next[i];
            r->next[i] = position;
        }
    }
    if (err == FERRY_OK) {
        err = read_all(r);
    }
    *complete = err == FERRY_OK && (r->walk->stop || is_complete(r));
    if (*complete) {
        tell_dropped(r);
    }
    ferry_consumer_close(&r->consumer);
    ferry_topic_info_free(&r->info);
    return err;
}

enum cli_exit log_walk(struct cli *cli, const char *topic, const char *undone, log_record_cb *take,
                       void *arg, struct log_walk *walk)
{
    struct reading r = {.cli = cli, .walk = walk, .take = take, .arg = arg};
    bool complete = false;
    *walk = (struct log_walk){.from_ms = walk->from_ms};
    output_progress_init(&r.progress, !cli->json && !cli->quiet);
    enum ferry_err err = read_topic(&r, topic, &complete);
    output_progress_clear(&r.progress);
    mem_free(r.next);
    mem_free(r.first_ms);
    mem_free(r.gaps);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, topic, NULL);
    }
    if (!complete) {
        fprintf(stderr, "ferry: interrupted before the log was read: %s\n", undone);
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}
