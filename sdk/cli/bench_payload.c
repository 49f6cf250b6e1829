/* bench_payload: what the benches send: made-up bytes of one size, or the lines of a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/prng.h"
#include "cli/bench.h"
#include "cli/lines.h"

#define SIZE_DEFAULT    100
#define VARIANTS_MAX    1024
#define BLOCK_BYTES_MAX (64 << 20)
#define LINE_BYTES_MAX  (64u << 20)
#define FILE_BYTES_MAX  (INT64_C(1) << 30)
#define SEED            20260101

/* Payloads differ, so that nothing below is quick because it has seen them; letters and digits, so
 * that they compress about as text does. */
static bool make_up(struct bench_payloads *p, size_t size)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,";
    _Static_assert(sizeof(letters) == 65, "64 letters");
    size_t variants = BLOCK_BYTES_MAX / size;
    variants = variants < 1 ? 1 : variants > VARIANTS_MAX ? VARIANTS_MAX : variants;
    p->block = mem_alloc(size * variants);
    if (p->block == NULL ||
        !mem_grow((void **)&p->items, &p->capacity, variants, sizeof(p->items[0]))) {
        return false;
    }
    struct prng prng;
    prng_init(&prng, SEED);
    for (size_t i = 0; i < size * variants; i++) {
        p->block[i] = (uint8_t)letters[prng_next(&prng) >> 58];
    }
    for (p->count = 0; p->count < variants; p->count++) {
        p->items[p->count] =
            (struct bench_payload){.data = bytes_of(p->block + p->count * size, size)};
    }
    p->total_bytes = (int64_t)(size * variants);
    return true;
}

/* ---- From a file ---------------------------------------------------------------------------- */

static bool keep(struct bytes from, struct bytes *kept)
{
    void *copy = mem_dup(from.data, from.size);
    *kept = bytes_of(copy, from.size);
    return copy != NULL;
}

/* {"key":"…","payload":…}: the payload as compact JSON, or as it is when it is text. False when the
 * line is something else and is taken as it is. */
static bool take_event(struct bytes line, struct bench_payload *item)
{
    json_error_t error;
    json_t *object = json_loadb((const char *)line.data, line.size, 0, &error);
    const json_t *key = json_object_get(object, "key");
    const json_t *payload = json_object_get(object, "payload");
    char *text = json_is_string(payload) ? NULL : json_dumps(payload, JSON_COMPACT);
    bool taken = false;
    if (json_is_string(payload)) {
        taken =
            keep(bytes_of(json_string_value(payload), json_string_length(payload)), &item->data);
    } else if (text != NULL) {
        taken = keep(bytes_of_string(text), &item->data);
    }
    if (taken && json_is_string(key)) {
        taken = keep(bytes_of(json_string_value(key), json_string_length(key)), &item->key);
    }
    mem_free(text);
    json_decref(object);
    return taken;
}

static enum ferry_err take_line(struct bytes line, void *arg)
{
    struct bench_payloads *p = arg;
    if (!mem_grow((void **)&p->items, &p->capacity, p->count + 1, sizeof(p->items[0]))) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct bench_payload *item = &p->items[p->count];
    *item = (struct bench_payload){0};
    p->count++; /* From here bench_payloads_fini() frees what the item holds. */
    if (!take_event(line, item) && !keep(line, &item->data)) {
        return FERRY_ERR_NO_MEMORY;
    }
    p->total_bytes += (int64_t)item->data.size;
    return p->total_bytes > FILE_BYTES_MAX ? FERRY_ERR_LIMIT_REACHED : FERRY_OK;
}

static enum cli_exit read_file(const struct cli *cli, struct bench_payloads *p, const char *path)
{
    struct lines lines;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return cli_fail(cli, FERRY_ERR_IO, path, strerror(errno));
    }
    p->from_file = true;
    lines_init(&lines, fd, LINE_BYTES_MAX);
    enum ferry_err err = lines_each(&lines, FERRY_ERR_TOO_LARGE, take_line, p);
    const char *why = err == FERRY_ERR_IO              ? strerror(errno)
                      : err == FERRY_ERR_LIMIT_REACHED ? "more than 1 GiB of payloads: give less"
                                                       : NULL;
    lines_fini(&lines);
    close(fd);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, path, why);
    }
    return p->count > 0 ? CLI_EXIT_OK
                        : cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, path, "the file is empty");
}

enum cli_exit bench_payloads_init(const struct cli *cli, struct bench_payloads *p)
{
    const char *path = args_text(cli->args, OPT_INPUT, NULL);
    *p = (struct bench_payloads){0};
    if (path != NULL) {
        return read_file(cli, p, path);
    }
    return make_up(p, (size_t)args_number(cli->args, OPT_SIZE, SIZE_DEFAULT))
               ? CLI_EXIT_OK
               : cli_fail(cli, FERRY_ERR_NO_MEMORY, NULL, NULL);
}

void bench_payloads_fini(struct bench_payloads *p)
{
    for (size_t i = 0; p->from_file && i < p->count; i++) {
        mem_free((void *)(uintptr_t)p->items[i].key.data);
        mem_free((void *)(uintptr_t)p->items[i].data.data);
    }
    mem_free(p->items);
    mem_free(p->block);
    *p = (struct bench_payloads){0};
}
