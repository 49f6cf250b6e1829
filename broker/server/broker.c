#include "server/broker.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/shard.h"

#define READY_POLL_MS 1
/* For others to take over the leaderships of a node that stops; who does not get them in time finds
 * by the election timeout that they are gone. */
#define LEAVE_US   2000000
#define LEAVE_POLL 5

struct broker {
    struct broker_options options;
    struct ferry_context *context;
    struct shard **shards;
    uint32_t count;
};

/* Only the owner may look in: the folder holds everybody's messages. */
static enum ferry_err make_data_folder(const char *path, struct err_text *e)
{
    struct stat st;
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return err_set(e, FERRY_ERR_IO, "%s: cannot make the data folder: %s", path,
                       strerror(errno));
    }
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return err_set(e, FERRY_ERR_IO, "%s: is not a folder: choose another node.data", path);
    }
    if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return err_set(e, FERRY_ERR_IO,
                       "%s: others may read it, and messages are in it: chmod 700 %s", path, path);
    }
    return FERRY_OK;
}

static enum ferry_err make_shards(struct broker *b, struct err_text *e)
{
    struct shard_config config = {.options = &b->options, .context = b->context};
    for (uint32_t i = 0; i < (uint32_t)b->options.shards; i++) {
        config.index = i;
        enum ferry_err err = shard_new(&config, &b->shards[i], e);
        if (err != FERRY_OK) {
            return err;
        }
        b->count++;
        config.cluster_id = shard_cluster_id(b->shards[0]);
        config.incarnation = shard_incarnation(b->shards[0]);
        config.must_exist = shard_is_whole(b->shards[0]);
    }
    return shard_remember_whole(b->shards[0]);
}

static enum ferry_err start_shards(struct broker *b)
{
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < b->count; i++) {
        shard_connect(b->shards[i], b->shards, b->count);
    }
    for (uint32_t i = 0; i < b->count && err == FERRY_OK; i++) {
        err = shard_start(b->shards[i]);
    }
    return err;
}

enum ferry_err broker_open(const struct broker_options *options, struct broker **out,
                           struct err_text *e)
{
    struct broker *b = mem_zalloc(1, sizeof(*b));
    if (b == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    b->options = *options;
    b->shards = mem_zalloc((size_t)options->shards, sizeof(struct shard *));
    enum ferry_err err = b->shards != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    if (err == FERRY_OK) {
        err = make_data_folder(options->data, e);
    }
    if (err == FERRY_OK) {
        err = net_context_new((int)options->io_threads, &b->context);
    }
    if (err == FERRY_OK) {
        err = make_shards(b, e);
    }
    if (err == FERRY_OK) {
        err = start_shards(b);
    }
    if (err != FERRY_OK) {
        broker_stop(&b);
        return err;
    }
    *out = b;
    return FERRY_OK;
}

bool broker_is_ready(const struct broker *b)
{
    return shard_is_ready(b->shards[0]);
}

enum ferry_err broker_start(const struct broker_options *options, struct broker **out,
                            struct err_text *e)
{
    struct broker *b = NULL;
    enum ferry_err err = broker_open(options, &b, e);
    while (err == FERRY_OK && !broker_is_ready(b)) {
        err = broker_failure(b);
        if (err != FERRY_OK) {
            (void)err_set(e, err, "%s: %s", b->options.data, ferry_err_text(err));
        } else {
            (void)net_poll(NULL, 0, READY_POLL_MS);
        }
    }
    if (err != FERRY_OK) {
        broker_stop(&b);
        return err;
    }
    *out = b;
    return FERRY_OK;
}

enum ferry_err broker_failure(const struct broker *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        enum ferry_err err = shard_failure(b->shards[i]);
        if (err != FERRY_OK) {
            return err;
        }
    }
    return FERRY_OK;
}

uint32_t broker_unserved(const struct broker *b)
{
    return shard_unserved(b->shards[0]);
}

const char *broker_peer_endpoint(const struct broker *b)
{
    return shard_peer_endpoint(b->shards[0]);
}

const char *broker_endpoint(const struct broker *b)
{
    return shard_endpoint(b->shards[0]);
}

struct ferry_context *broker_context(const struct broker *b)
{
    return b->context;
}

static bool have_left(const struct broker *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        if (!shard_has_left(b->shards[i]) && shard_failure(b->shards[i]) == FERRY_OK) {
            return false;
        }
    }
    return true;
}

/* Others lead before this node is gone, so that clients do not wait for an election. */
static void leave(const struct broker *b)
{
    if (!broker_options_clustered(&b->options) || b->count == 0 || !broker_is_ready(b)) {
        return;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        shard_leave(b->shards[i]);
    }
    int64_t until_us = clock_monotonic_us() + LEAVE_US;
    while (!have_left(b) && clock_monotonic_us() < until_us) {
        (void)net_poll(NULL, 0, LEAVE_POLL);
    }
}

static void stop(struct broker *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        shard_stop(b->shards[i]);
    }
    for (uint32_t i = 0; i < b->count; i++) {
        shard_join(b->shards[i]);
    }
    for (uint32_t i = 0; i < b->count; i++) {
        shard_free(&b->shards[i]);
    }
    net_context_free(&b->context);
    mem_free(b->shards);
    mem_free(b);
}

void broker_stop(struct broker **b)
{
    if (*b != NULL) {
        leave(*b);
        stop(*b);
        *b = NULL;
    }
}

void broker_abandon(struct broker **b)
{
    if (*b != NULL) {
        stop(*b);
        *b = NULL;
    }
}
