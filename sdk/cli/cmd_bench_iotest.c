/* cmd_bench_iotest: what the disk below can promise: write and fdatasync, piece by piece. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/prng.h"
#include "cli/bench.h"
#include "cli/format.h"

#define SECONDS_DEFAULT 2
#define FILE_BYTES      (64 << 20) /* Preallocated, then written round and round, as a log is. */
#define PIECE_BYTES_MAX (1 << 20)

static const int pieces[] = {4 << 10, 64 << 10, PIECE_BYTES_MAX};
#define PIECES (sizeof(pieces) / sizeof(pieces[0]))

struct iotest {
    struct cli *cli;
    const char *folder;
    int fd;
    uint8_t *data; /* Owned, PIECE_BYTES_MAX. */
    int64_t seconds;
    struct output_progress progress;
};

struct io_result {
    int piece_bytes;
    int64_t writes, elapsed_us;
    struct histogram latency; /* Owned: of one write with its fdatasync. */
};

/* The file has no name from the beginning: nothing is left behind however this ends. */
static enum ferry_err open_file(struct iotest *t)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/ferry-iotest-XXXXXX", t->folder) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        return FERRY_ERR_IO;
    }
    t->fd = mkostemp(path, O_CLOEXEC);
    if (t->fd < 0) {
        return FERRY_ERR_IO;
    }
    unlink(path);
    int failed = posix_fallocate(t->fd, 0, FILE_BYTES);
    if (failed != 0 || fsync(t->fd) != 0) {
        errno = failed != 0 ? failed : errno;
        return FERRY_ERR_IO;
    }
    return FERRY_OK;
}

static enum ferry_err write_piece(struct iotest *t, const struct io_result *r)
{
    off_t at = (off_t)(r->writes * r->piece_bytes % FILE_BYTES);
    ssize_t n = pwrite(t->fd, t->data, (size_t)r->piece_bytes, at);
    if (n >= 0 && n != r->piece_bytes) {
        errno = ENOSPC;
    }
    return n == r->piece_bytes && fdatasync(t->fd) == 0 ? FERRY_OK : FERRY_ERR_IO;
}

static enum ferry_err measure(struct iotest *t, struct io_result *r)
{
    char text[FORMAT_TEXT_BYTES];
    enum ferry_err err = histogram_init(&r->latency);
    int64_t began_us = clock_monotonic_us();
    int64_t now_us = began_us;
    format_size(r->piece_bytes, text);
    while (err == FERRY_OK && now_us - began_us < t->seconds * 1000000 &&
           !cli_is_interrupted(t->cli)) {
        err = write_piece(t, r);
        int64_t done_us = clock_monotonic_us();
        histogram_record(&r->latency, (uint64_t)(done_us - now_us));
        r->writes++;
        now_us = done_us;
        output_progress_show(&t->progress, now_us,
                             (double)(now_us - began_us) / ((double)t->seconds * 1e6), text);
    }
    r->elapsed_us = now_us - began_us;
    return err;
}

/* ---- The report ----------------------------------------------------------------------------- */

static double mb_per_second(const struct io_result *r)
{
    return r->elapsed_us > 0 ? (double)r->writes * (double)r->piece_bytes / (double)r->elapsed_us
                             : 0;
}

static void report_text(const struct iotest *t, const struct io_result *results)
{
    static const double percents[] = {50, 90, 99, 99.9, 100};
    struct output_table table;
    char text[FORMAT_TEXT_BYTES];
    output_table_init(&table, ">piece|>writes/s|>MB/s|>p50|>p90|>p99|>p99.9|>max");
    for (size_t i = 0; i < PIECES && results[i].writes > 0;
         i++) { /* An interrupt leaves some out. */
        const struct io_result *r = &results[i];
        format_size(r->piece_bytes, text);
        output_table_cell(&table, "%s", text);
        output_table_count(&table, r->elapsed_us > 0 ? r->writes * 1000000 / r->elapsed_us : 0);
        output_table_cell(&table, "%.1f", mb_per_second(r));
        for (size_t j = 0; j < sizeof(percents) / sizeof(percents[0]); j++) {
            format_duration_us((int64_t)histogram_percentile(&r->latency, percents[j]), text);
            output_table_cell(&table, "%s", text);
        }
    }
    printf("write and fdatasync in %s\n", t->folder);
    output_table_print(&table);
    output_table_fini(&table);
}

static void report_json(const struct iotest *t, const struct io_result *results)
{
    json_t *object = output_object();
    json_t *array = json_array();
    for (size_t i = 0; i < PIECES && results[i].writes > 0; i++) {
        json_t *piece = output_object();
        output_set_int(piece, "piece_bytes", results[i].piece_bytes);
        output_set_int(piece, "writes", results[i].writes);
        output_set_real(piece, "seconds", (double)results[i].elapsed_us / 1e6);
        output_set_real(piece, "bytes_per_second", mb_per_second(&results[i]) * 1e6);
        output_set(piece, "latency_us", bench_latency_json(&results[i].latency));
        json_array_append_new(array, piece);
    }
    output_set_text(object, "bench", "iotest");
    output_set_text(object, "folder", t->folder);
    output_set(object, "pieces", array);
    output_set(object, "machine", bench_machine_json(t->folder));
    output_json(object);
}

static enum ferry_err run(struct iotest *t, struct io_result *results)
{
    struct prng prng;
    t->data = mem_alloc(PIECE_BYTES_MAX);
    if (t->data == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    prng_init(&prng, 1);
    for (size_t i = 0; i < PIECE_BYTES_MAX; i += sizeof(uint64_t)) {
        put_le64(t->data + i, prng_next(&prng));
    }
    enum ferry_err err = open_file(t);
    for (size_t i = 0; err == FERRY_OK && i < PIECES; i++) {
        results[i].piece_bytes = pieces[i];
        err = measure(t, &results[i]);
    }
    return err;
}

enum cli_exit cmd_bench_iotest(struct cli *cli)
{
    struct io_result results[PIECES] = {0};
    struct iotest t = {
        .cli = cli,
        .folder = args_text(cli->args, OPT_DIR, "."),
        .fd = -1,
        .seconds = args_number(cli->args, OPT_SECONDS, SECONDS_DEFAULT),
    };
    output_progress_init(&t.progress, !cli->json && !cli->quiet);
    enum ferry_err err = run(&t, results);
    int reason = errno;
    output_progress_clear(&t.progress);
    enum cli_exit code = CLI_EXIT_OK;
    if (err != FERRY_OK) {
        code = cli_fail(cli, err, t.folder, err == FERRY_ERR_IO ? strerror(reason) : NULL);
    } else if (cli->json) {
        report_json(&t, results);
    } else {
        report_text(&t, results);
    }
    if (t.fd >= 0) {
        close(t.fd);
    }
    mem_free(t.data);
    for (size_t i = 0; i < PIECES; i++) {
        histogram_fini(&results[i].latency);
    }
    return code;
}
