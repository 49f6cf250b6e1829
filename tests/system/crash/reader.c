#include "system/crash/reader.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system/crash/message.h"

#define OPEN_TIMEOUT_MS   60000
#define FETCH_TIMEOUT_MS  500
#define COMMIT_TIMEOUT_MS 5000
#define SIGHTS_MAX        65536 /* Of one batch. */

static int complain(const char *what, enum ferry_err err)
{
    fprintf(stderr, "reader: %s: %s: %s\n", what, ferry_err_name(err), ferry_err_text(err));
    return EXIT_FAILURE;
}

static int open_file(const char *path)
{
    struct stat status;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &status) != 0) {
        return -1;
    }
    off_t whole = status.st_size - status.st_size % (off_t)sizeof(struct sight);
    return ftruncate(fd, whole) == 0 ? fd : -1;
}

static bool note_batch(int fd, struct ferry_batch *batch, struct sight *sights)
{
    size_t count = ferry_batch_count(batch);
    if (count > SIGHTS_MAX) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        sights[i] = (struct sight){
            .partition = record.partition,
            .offset = record.offset,
            .number = message_number(record.payload, record.payload_bytes),
            .sum = message_sum(record.key, record.key_bytes, record.payload, record.payload_bytes)};
    }
    size_t bytes = count * sizeof(*sights);
    return write(fd, sights, bytes) == (ssize_t)bytes;
}

static int read_for_ever(struct ferry_consumer *consumer, int fd, struct sight *sights)
{
    for (;;) {
        struct ferry_batch *batch = NULL;
        enum ferry_err err = ferry_consumer_fetch(consumer, FETCH_TIMEOUT_MS, &batch);
        if (err != FERRY_OK && ferry_err_is_retriable(err)) {
            continue; /* Nothing new, or the broker is being killed. */
        }
        if (err != FERRY_OK) {
            return complain("fetch", err);
        }
        if (!note_batch(fd, batch, sights)) {
            perror("reader: write");
            return EXIT_FAILURE;
        }
        err = ferry_consumer_commit(consumer, ferry_batch_partition(batch),
                                    ferry_batch_next_offset(batch), COMMIT_TIMEOUT_MS);
        ferry_batch_free(&batch);
        if (err != FERRY_OK && !ferry_err_is_retriable(err)) {
            return complain("commit", err);
        }
    }
}

enum ferry_err reader_open(struct ferry_client **client, struct ferry_consumer **consumer,
                           const char *servers, const char *topic, const char *group)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", servers, detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "retry.backoff_max_ms", "100", detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err = ferry_open(client, &conf, detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err =
            ferry_consumer_open(consumer, *client, topic, group, FERRY_FROM_START, OPEN_TIMEOUT_MS);
    }
    return err;
}

int reader_run(const char *server, const char *topic, const char *file)
{
    struct ferry_client *client = NULL;
    struct ferry_consumer *consumer = NULL;
    struct sight *sights = calloc(SIGHTS_MAX, sizeof(*sights));
    int fd = open_file(file);
    if (sights == NULL || fd < 0) {
        perror(file);
        return EXIT_FAILURE;
    }
    enum ferry_err err = reader_open(&client, &consumer, server, topic, READER_GROUP);
    if (err != FERRY_OK) {
        return complain(topic, err);
    }
    return read_for_ever(consumer, fd, sights);
}
