/* cmd_dlq_change: dlq replay and drop.
 *
 * Which letters is decided before the first is touched: one that is replayed and dies again
 * meanwhile is not replayed again by the same command. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/dead_letters.h"
#include "cli/format.h"
#include "cli/output.h"

#define AT_ONCE        100
#define EDIT_BYTES_MAX (64u << 20)
#define HEADERS_MAX    64
#define OWN_HEADERS    "ferry-dlq-" /* Of the letter, not of the message. */

struct changing {
    struct cli *cli;
    bool replay; /* Else drop. */
    const char *reason;
    int64_t rate; /* Letters a second; 0: no limit. */
    bool dry_run;
    struct ferry_dead_place *places;
    size_t count, capacity;
    int64_t revived; /* Left alone: on their way already. */
    size_t asked;    /* Of the places. */
    size_t done;     /* Were there. */
};

/* ---- Which ones ----------------------------------------------------------------------------- */

static enum ferry_err add_place(struct changing *c, struct ferry_dead_place place)
{
    if (!mem_grow((void **)&c->places, &c->capacity, c->count + 1, sizeof(*c->places))) {
        return FERRY_ERR_NO_MEMORY;
    }
    c->places[c->count++] = place;
    return FERRY_OK;
}

static enum ferry_err choose(const struct ferry_dead *dead, void *arg)
{
    struct changing *c = arg;
    if (dead->revived) {
        c->revived++;
        return FERRY_OK;
    }
    return add_place(c, (struct ferry_dead_place){dead->partition, dead->number});
}

/* Everything takes a word: --all, or a reason. */
static enum cli_exit check_choice(const struct changing *c, bool named)
{
    const struct args *args = c->cli->args;
    int ways = (named ? 1 : 0) + (c->reason != NULL) + args_has(args, OPT_ALL);
    if (ways != 1) {
        return cli_fail(c->cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "which ones? give one of --partition with --number, --reason, or --all");
    }
    if (args_has(args, OPT_EDIT) && !named) {
        return cli_fail(c->cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "--edit is for one letter: name it with --partition and --number");
    }
    return CLI_EXIT_OK;
}

/* ---- Doing it ------------------------------------------------------------------------------- */

static enum ferry_err change(struct changing *c, size_t at, size_t count, size_t *done)
{
    const char *const *names = c->cli->args->positionals;
    return c->replay ? ferry_dead_replay(c->cli->client, names[0], names[1], c->places + at, count,
                                         NULL, c->cli->timeout_ms, done)
                     : ferry_dead_drop(c->cli->client, names[0], names[1], c->places + at, count,
                                       c->cli->timeout_ms, done);
}

/* As many as the rate allows by now, at most AT_ONCE; 0: wait. */
static size_t allowed(const struct changing *c, int64_t began_us)
{
    size_t left = c->count - c->asked;
    size_t batch = left < AT_ONCE ? left : AT_ONCE;
    if (c->rate == 0) {
        return batch;
    }
    int64_t elapsed_us = clock_monotonic_us() - began_us;
    int64_t due = (int64_t)((double)elapsed_us * (double)c->rate / 1e6) + 1 - (int64_t)c->asked;
    return due < 1 ? 0 : (size_t)due < batch ? (size_t)due : batch;
}

static enum ferry_err change_all(struct changing *c)
{
    enum { PAUSE_MS = 20 };
    struct output_progress progress;
    enum ferry_err err = FERRY_OK;
    int64_t began_us = clock_monotonic_us();
    output_progress_init(&progress, !c->cli->quiet);
    while (err == FERRY_OK && c->asked < c->count && !cli_is_interrupted(c->cli)) {
        size_t done = 0, batch = allowed(c, began_us);
        if (batch == 0) {
            cli_pause(PAUSE_MS);
            continue;
        }
        char text[64];
        err = change(c, c->asked, batch, &done);
        c->asked += err == FERRY_OK ? batch : 0;
        c->done += done;
        (void)snprintf(text, sizeof(text), "%zu of %zu", c->asked, c->count);
        output_progress_show(&progress, clock_monotonic_us(), (double)c->asked / (double)c->count,
                             text);
    }
    output_progress_clear(&progress);
    return err;
}

/* ---- An edited one -------------------------------------------------------------------------- */

static enum ferry_err read_file(const char *path, struct buf *to)
{
    uint8_t block[65536];
    ssize_t n;
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FERRY_ERR_IO;
    }
    while ((n = read(fd, block, sizeof(block))) > 0 && buf_ok(to)) {
        buf_append(to, block, (size_t)n);
    }
    (void)close(fd);
    return n < 0 ? FERRY_ERR_IO : buf_ok(to) ? FERRY_OK : FERRY_ERR_TOO_LARGE;
}

/* The message's own headers, as they were; `names` holds the texts. */
static size_t take_headers(const struct ferry_record *record, struct ferry_header *headers,
                           char names[][256])
{
    const char *name;
    const void *value;
    size_t position = 0, count = 0, name_bytes, value_bytes;
    while (count < HEADERS_MAX &&
           ferry_record_next_header(record, &position, &name, &name_bytes, &value, &value_bytes)) {
        bool own = name_bytes >= strlen(OWN_HEADERS) &&
                   memcmp(name, OWN_HEADERS, strlen(OWN_HEADERS)) == 0;
        if (!own && name_bytes < sizeof(names[0])) {
            (void)snprintf(names[count], sizeof(names[0]), "%.*s", (int)name_bytes, name);
            headers[count] = (struct ferry_header){
                .name = names[count], .value = value, .value_bytes = value_bytes};
            count++;
        }
    }
    return count;
}

static enum ferry_err replay_edited(struct changing *c, struct bytes payload)
{
    struct ferry_batch *batch = NULL;
    struct ferry_record record;
    struct ferry_header headers[HEADERS_MAX];
    char names[HEADERS_MAX][256];
    const char *const *words = c->cli->args->positionals;
    enum ferry_err err = dead_letters_read(c->cli, c->places[0], &batch, &record);
    if (err != FERRY_OK) {
        return err;
    }
    const struct ferry_message edited = {.topic = words[0],
                                         .key = record.key,
                                         .key_bytes = record.key_bytes,
                                         .payload = payload.data,
                                         .payload_bytes = payload.size,
                                         .headers = headers,
                                         .header_count = take_headers(&record, headers, names),
                                         .id = record.id,
                                         .timestamp_ms = record.timestamp_ms};
    err = ferry_dead_replay(c->cli->client, words[0], words[1], c->places, 1, &edited,
                            c->cli->timeout_ms, &c->done);
    c->asked += err == FERRY_OK;
    ferry_batch_free(&batch);
    return err;
}

static enum cli_exit edit(struct changing *c, const char *path)
{
    struct buf payload;
    buf_init(&payload, EDIT_BYTES_MAX);
    enum ferry_err err = read_file(path, &payload);
    if (err != FERRY_OK) {
        buf_fini(&payload);
        return cli_fail(c->cli, err, path, err == FERRY_ERR_IO ? "cannot be read" : NULL);
    }
    err = replay_edited(c, buf_bytes(&payload));
    buf_fini(&payload);
    return err != FERRY_OK ? dead_letters_fail(c->cli, err) : CLI_EXIT_OK;
}

/* ---- The result ----------------------------------------------------------------------------- */

static void tell_json(const struct changing *c)
{
    json_t *object = output_object();
    output_set_text(object, "subscription", c->cli->args->positionals[1]);
    output_set_bool(object, "dry_run", c->dry_run);
    output_set_int(object, "letters", (int64_t)c->count);
    output_set_int(object, "already_replayed", c->revived);
    output_set_int(object, c->replay ? "replayed" : "dropped", (int64_t)c->done);
    output_json(object);
}

static void tell(const struct changing *c)
{
    const char *verb = c->replay ? "replayed" : "dropped";
    if (c->cli->json) {
        tell_json(c);
        return;
    }
    if (c->dry_run) {
        printf("%zu dead letters would be %s", c->count, verb);
    } else {
        printf("%zu of %zu dead letters %s", c->done, c->count, verb);
    }
    if (c->revived > 0) {
        printf("; %lld are on their way already", (long long)c->revived);
    }
    puts(!c->dry_run && c->asked < c->count ? "; interrupted: the rest is as it was" : "");
}

static enum cli_exit change_chosen(struct changing *c, bool named)
{
    const char *path = args_text(c->cli->args, OPT_EDIT, NULL);
    if (path != NULL && !c->dry_run) {
        enum cli_exit code = edit(c, path);
        if (code != CLI_EXIT_OK) {
            return code;
        }
    } else if (!c->dry_run) {
        enum ferry_err err = change_all(c);
        if (err != FERRY_OK) {
            return dead_letters_fail(c->cli, err);
        }
    }
    if (named && !c->dry_run && c->done == 0) {
        return dead_letters_fail(c->cli, FERRY_ERR_UNKNOWN_MESSAGE);
    }
    tell(c);
    return !c->dry_run && c->asked < c->count ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

static enum cli_exit run(struct changing *c)
{
    struct ferry_dead_place place;
    struct ferry_dead dead;
    bool named;
    enum cli_exit code = dead_letters_place(c->cli, &place, &named);
    if (code == CLI_EXIT_OK) {
        code = check_choice(c, named);
    }
    if (code == CLI_EXIT_OK) {
        code = cli_connect(c->cli, NULL, NULL);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err;
    if (named) {
        err = dead_letters_find(c->cli, place, &dead);
        err = err == FERRY_OK ? add_place(c, place) : err;
    } else {
        err = dead_letters_walk(c->cli, c->reason, choose, c);
    }
    return err != FERRY_OK ? dead_letters_fail(c->cli, err) : change_chosen(c, named);
}

static enum cli_exit change_letters(struct cli *cli, bool replay)
{
    struct changing c = {.cli = cli,
                         .replay = replay,
                         .reason = args_text(cli->args, OPT_REASON, NULL),
                         .rate = args_number(cli->args, OPT_RATE, 0),
                         .dry_run = args_has(cli->args, OPT_DRY_RUN)};
    enum cli_exit code = run(&c);
    mem_free(c.places);
    return code;
}

enum cli_exit cmd_dlq_replay(struct cli *cli)
{
    return change_letters(cli, true);
}

enum cli_exit cmd_dlq_drop(struct cli *cli)
{
    return change_letters(cli, false);
}
