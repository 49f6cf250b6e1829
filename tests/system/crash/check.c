#include "system/crash/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "system/crash/message.h"
#include "system/crash/reader.h"

#define NAMED_MAX  20 /* Findings printed; the rest is counted. */
#define TIMEOUT_MS 30000

/* What is in the log: by partition and offset, the number of the message and its sum. */
struct found {
    int64_t *numbers;
    uint64_t *sums;
    int64_t count, capacity;
};

struct checking {
    const struct traffic *traffic;
    struct found found[CHECK_PARTITIONS_MAX];
    int32_t partitions;
    int *times; /* How often message n is in the log. */
    int64_t findings;
};

static PRINTF(2, 3) void find(struct checking *c, const char *format, ...)
{
    va_list args;
    if (c->findings++ < NAMED_MAX) {
        va_start(args, format);
        printf("crash: %s: ", c->traffic->topic);
        vprintf(format, args);
        puts("");
        va_end(args);
    }
}

/* ---- The log ------------------------------------------------------------------------------------
 */

static void append_found(struct found *f, int64_t number, uint64_t sum)
{
    if (f->count == f->capacity) {
        f->capacity = f->capacity == 0 ? 4096 : f->capacity * 2;
        f->numbers = realloc(f->numbers, (size_t)f->capacity * sizeof(*f->numbers));
        f->sums = realloc(f->sums, (size_t)f->capacity * sizeof(*f->sums));
        must(f->numbers != NULL && f->sums != NULL);
    }
    f->numbers[f->count] = number;
    f->sums[f->count++] = sum;
}

static void take_record(struct checking *c, const struct ferry_record *record)
{
    struct found *f = &c->found[record->partition];
    int64_t number = message_number(record->payload, record->payload_bytes);
    uint64_t sum =
        message_sum(record->key, record->key_bytes, record->payload, record->payload_bytes);
    if (record->offset != f->count) {
        find(c, "partition %d: offset %lld comes after %lld", record->partition,
             (long long)record->offset, (long long)f->count - 1);
    }
    if (number < 0 || number >= c->traffic->count) {
        find(c, "unexpected: partition %d offset %lld holds what nobody sent", record->partition,
             (long long)record->offset);
        number = -1;
    } else if (sum != message_sum_of(c->traffic->seed, number)) {
        find(c, "changed: message %lld at partition %d offset %lld has other bytes",
             (long long)number, record->partition, (long long)record->offset);
    }
    append_found(f, number, sum);
}

static enum ferry_err read_log(struct checking *c, struct ferry_client *client)
{
    struct ferry_consumer *consumer = NULL;
    struct ferry_topic_info *info = NULL;
    enum ferry_err err = ferry_topic_info(client, c->traffic->topic, TIMEOUT_MS, &info);
    if (err != FERRY_OK) {
        return err;
    }
    int64_t left = 0;
    c->partitions = (int32_t)info->partition_count;
    must(c->partitions <= CHECK_PARTITIONS_MAX);
    for (size_t i = 0; i < info->partition_count; i++) {
        left += info->partitions[i].end_offset;
    }
    ferry_topic_info_free(&info);
    err = ferry_consumer_open(&consumer, client, c->traffic->topic, NULL, FERRY_FROM_START,
                              TIMEOUT_MS);
    while (err == FERRY_OK && left > 0) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(consumer, TIMEOUT_MS, &batch);
        if (err != FERRY_OK) {
            break;
        }
        for (size_t i = 0; i < ferry_batch_count(batch); i++, left--) {
            struct ferry_record record;
            ferry_batch_record(batch, i, &record);
            take_record(c, &record);
        }
        ferry_batch_free(&batch);
    }
    ferry_consumer_close(&consumer);
    return err;
}

/* ---- Against the senders ------------------------------------------------------------------------
 */

static void check_once_and_in_order(struct checking *c)
{
    for (int32_t p = 0; p < c->partitions; p++) {
        int64_t last[MESSAGE_KEYS];
        memset(last, -1, sizeof(last));
        for (int64_t offset = 0; offset < c->found[p].count; offset++) {
            int64_t n = c->found[p].numbers[offset];
            if (n < 0) {
                continue;
            }
            if (++c->times[n] == 2) {
                find(c, "doubled: message %lld, again at partition %d offset %lld", (long long)n, p,
                     (long long)offset);
            }
            int64_t *before = &last[message_key_of(n)];
            if (n < *before) {
                find(c, "disordered: message %lld after %lld of the same key", (long long)n,
                     (long long)*before);
            }
            *before = n;
        }
    }
}

static void check_place(struct checking *c, int64_t n, const struct fate *fate)
{
    const struct found *f = &c->found[fate->partition];
    if (fate->partition >= c->partitions || fate->offset >= f->count ||
        f->numbers[fate->offset] != n) {
        find(c, "moved: message %lld is not at partition %d offset %lld, as was told", (long long)n,
             fate->partition, (long long)fate->offset);
    }
}

static void check_fates(struct checking *c)
{
    for (int64_t n = 0; n < c->traffic->count; n++) {
        const struct fate *fate = &c->traffic->fates[n];
        if (fate->kind == FATE_STORED && c->times[n] == 0) {
            find(c, "lost: message %lld", (long long)n);
        } else if (fate->kind == FATE_STORED && fate->partition >= 0) {
            check_place(c, n, fate);
        } else if (fate->kind == FATE_NOT_STORED && c->times[n] != 0) {
            find(c, "unexpected: message %lld is there", (long long)n);
        } else if (fate->kind == FATE_NONE) {
            find(c, "message %lld never got its outcome", (long long)n);
        }
    }
}

/* ---- Against the readers ------------------------------------------------------------------------
 */

static void check_sight(struct checking *c, const struct sight *s, int64_t *next)
{
    if (s->partition < 0 || s->partition >= c->partitions) {
        find(c, "the reader saw partition %lld", (long long)s->partition);
        return;
    }
    const struct found *f = &c->found[s->partition];
    if (s->offset > next[s->partition]) {
        find(c, "skipped: the reader went from %lld to %lld in partition %lld",
             (long long)next[s->partition] - 1, (long long)s->offset, (long long)s->partition);
    }
    if (s->offset >= f->count || f->numbers[s->offset] != s->number ||
        f->sums[s->offset] != s->sum) {
        find(c, "changed: partition %lld offset %lld was read otherwise before",
             (long long)s->partition, (long long)s->offset);
    }
    if (s->offset + 1 > next[s->partition]) {
        next[s->partition] = s->offset + 1;
    }
}

static void check_reader(struct checking *c, const char *file)
{
    int64_t next[CHECK_PARTITIONS_MAX] = {0};
    struct sight sight;
    FILE *sights = fopen(file, "re");
    if (sights == NULL) {
        find(c, "the reader left no %s", file);
        return;
    }
    while (fread(&sight, sizeof(sight), 1, sights) == 1) {
        check_sight(c, &sight, next);
    }
    (void)fclose(sights);
    for (int32_t p = 0; p < c->partitions; p++) {
        if (next[p] < c->found[p].count) {
            find(c, "missed: the reader ended at %lld of %lld in partition %d", (long long)next[p],
                 (long long)c->found[p].count, p);
        }
    }
}

int64_t check_traffic(struct ferry_client *client, const struct traffic *t, const char *file)
{
    struct checking c = {.traffic = t};
    c.times = calloc((size_t)t->count + 1, sizeof(*c.times));
    must(c.times != NULL);
    enum ferry_err err = read_log(&c, client);
    if (err != FERRY_OK) {
        printf("crash: %s: the log cannot be read: %s\n", t->topic, ferry_err_name(err));
        c.findings = -1;
    } else {
        check_once_and_in_order(&c);
        check_fates(&c);
        check_reader(&c, file);
    }
    for (int32_t p = 0; p < CHECK_PARTITIONS_MAX; p++) {
        free(c.found[p].numbers);
        free(c.found[p].sums);
    }
    free(c.times);
    return c.findings;
}
