#include "cli/dead_letters.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define PAGE 1000

static const char *topic_of(const struct cli *cli)
{
    return cli->args->positionals[0];
}

static const char *subscription_of(const struct cli *cli)
{
    return cli->args->positionals[1];
}

enum ferry_err dead_letters_walk(struct cli *cli, const char *reason, dead_visit *visit, void *arg)
{
    struct ferry_dead_place place = {.partition = 0};
    enum ferry_err err = FERRY_OK;
    bool more = true;
    while (err == FERRY_OK && more && !cli_is_interrupted(cli)) {
        struct ferry_dead *dead = NULL;
        size_t count = 0;
        err = ferry_dead_list(cli->client, topic_of(cli), subscription_of(cli), reason, &place,
                              PAGE, cli->timeout_ms, &dead, &count, &more);
        for (size_t i = 0; err == FERRY_OK && i < count; i++) {
            err = visit(&dead[i], arg);
        }
        ferry_dead_free(&dead);
    }
    return err;
}

enum ferry_err dead_letters_find(struct cli *cli, struct ferry_dead_place place,
                                 struct ferry_dead *dead)
{
    struct ferry_dead *list = NULL;
    struct ferry_dead_place from = place;
    size_t count = 0;
    bool more;
    enum ferry_err err = ferry_dead_list(cli->client, topic_of(cli), subscription_of(cli), NULL,
                                         &from, 1, cli->timeout_ms, &list, &count, &more);
    if (err == FERRY_OK &&
        (count != 1 || list[0].partition != place.partition || list[0].number != place.number)) {
        err = FERRY_ERR_UNKNOWN_MESSAGE;
    }
    if (err == FERRY_OK) {
        *dead = list[0];
    }
    ferry_dead_free(&list);
    return err;
}

void dead_letters_topic(const struct cli *cli, char text[DEAD_TOPIC_BYTES])
{
    (void)snprintf(text, DEAD_TOPIC_BYTES, "%s.dlq.%s", topic_of(cli), subscription_of(cli));
}

static enum ferry_err read_at(struct ferry_consumer *consumer, struct ferry_dead_place place,
                              int timeout_ms, struct ferry_batch **batch,
                              struct ferry_record *record)
{
    enum ferry_err err = FERRY_ERR_UNKNOWN_PARTITION;
    if (place.partition < ferry_consumer_partitions(consumer)) {
        err = ferry_consumer_seek(consumer, place.partition, (int64_t)place.number);
    }
    int64_t deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    bool found = false;
    while (err == FERRY_OK && !found) { /* Those of other partitions come, too. */
        int64_t left_us = deadline_us - clock_monotonic_us();
        ferry_batch_free(batch);
        err = ferry_consumer_fetch(consumer, left_us > 0 ? (int)(left_us / 1000) : 0, batch);
        found = err == FERRY_OK && ferry_batch_partition(*batch) == place.partition;
    }
    if (err != FERRY_OK) {
        return err;
    }
    ferry_batch_record(*batch, 0, record);
    if (record->partition != place.partition || record->offset != (int64_t)place.number) {
        ferry_batch_free(batch);
        return FERRY_ERR_UNKNOWN_MESSAGE;
    }
    return FERRY_OK;
}

enum ferry_err dead_letters_read(struct cli *cli, struct ferry_dead_place place,
                                 struct ferry_batch **batch, struct ferry_record *record)
{
    char topic[DEAD_TOPIC_BYTES];
    struct ferry_consumer *consumer = NULL;
    dead_letters_topic(cli, topic);
    enum ferry_err err =
        ferry_consumer_open(&consumer, cli->client, topic, NULL, FERRY_FROM_START, cli->timeout_ms);
    if (err == FERRY_OK) {
        err = read_at(consumer, place, cli->timeout_ms, batch, record);
    }
    ferry_consumer_close(&consumer);
    return err;
}

enum cli_exit dead_letters_place(const struct cli *cli, struct ferry_dead_place *place, bool *named)
{
    bool has_partition = args_has(cli->args, OPT_PARTITION);
    bool has_number = args_has(cli->args, OPT_NUMBER);
    *named = has_partition && has_number;
    if (has_partition != has_number) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "--partition and --number name a letter together: give both");
    }
    place->partition = (int32_t)args_number(cli->args, OPT_PARTITION, 0);
    place->number = (uint64_t)args_number(cli->args, OPT_NUMBER, 0);
    return CLI_EXIT_OK;
}

enum cli_exit dead_letters_fail(const struct cli *cli, enum ferry_err err)
{
    if (err == FERRY_ERR_UNKNOWN_MESSAGE) {
        return cli_fail(cli, err, subscription_of(cli),
                        "no such dead letter: it was replayed and acked, or dropped");
    }
    char said[8] = "";
    ferry_error_detail(cli->client, said, sizeof(said));
    if (err == FERRY_ERR_INVALID_ARGUMENT && said[0] == '\0') {
        return cli_fail(cli, err, subscription_of(cli),
                        "a stream has no dead letters: they are of --mode queue and keyed");
    }
    return cli_fail(cli, err, err == FERRY_ERR_UNKNOWN_TOPIC ? topic_of(cli) : subscription_of(cli),
                    NULL);
}
