/* bench_load: sends records, at a fixed rate or as fast as it goes, and counts what became of them.
 *
 * The time a record was meant to be sent rides in its `opaque`, as microseconds. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "cli/format.h"

#define SECONDS_DEFAULT 5
/* At full speed the clock is read, and reports are looked for, once in so many records. */
#define BURST 64

enum ferry_err bench_load_init(struct bench_load *load, struct cli *cli)
{
    const struct args *args = cli->args;
    *load = (struct bench_load){
        .cli = cli,
        .records_max = args_number(args, OPT_RECORDS, INT64_MAX),
        .seconds_max = args_number(args, OPT_SECONDS, INT64_MAX),
        .rate = args_number(args, OPT_RATE, 0),
        .in_flight_max = args_number(args, OPT_IN_FLIGHT, INT64_MAX),
        .sync = args_has(args, OPT_SYNC),
    };
    if (load->records_max == INT64_MAX && load->seconds_max == INT64_MAX) {
        load->seconds_max = SECONDS_DEFAULT;
    }
    output_progress_init(&load->progress, !cli->json && !cli->quiet);
    return histogram_init(&load->latency);
}

void bench_load_fini(struct bench_load *load)
{
    histogram_fini(&load->latency);
}

void bench_load_on_report(const struct ferry_report *report, void *arg)
{
    struct bench_load *load = arg;
    load->stored += report->outcome == FERRY_STORED;
    load->not_stored += report->outcome == FERRY_NOT_STORED;
    load->unknown += report->outcome == FERRY_UNKNOWN;
    load->duplicates += report->duplicate;
    if (report->outcome != FERRY_STORED) {
        load->first_err = load->first_err != FERRY_OK ? load->first_err : report->err;
        return;
    }
    int64_t intended_us = (int64_t)(intptr_t)report->opaque;
    int64_t took_us = clock_monotonic_us() - intended_us;
    histogram_record(&load->latency, took_us > 0 ? (uint64_t)took_us : 0);
}

static int64_t in_flight(const struct bench_load *load)
{
    return load->sent - load->stored - load->not_stored - load->unknown;
}

static void fill_message(const struct bench_load *load, struct ferry_message *message,
                         int64_t intended_us)
{
    const struct bench_payload *payload =
        &load->payloads->items[(size_t)load->sent % load->payloads->count];
    *message = (struct ferry_message){
        .topic = load->topic->name,
        .partition = FERRY_PARTITION_ANY,
        .key = payload->key.data,
        .key_bytes = payload->key.size,
        .payload = payload->data.data,
        .payload_bytes = payload->data.size,
        .opaque = (void *)(intptr_t)intended_us,
    };
    if (load->stamp != NULL) {
        load->stamp(message, intended_us, load->stamp_arg);
    }
}

static enum ferry_err send_sync(struct bench_load *load, const struct ferry_message *message)
{
    struct ferry_report report;
    enum ferry_err err = ferry_send_sync(load->cli->client, message, &report);
    if (err == FERRY_OK) {
        report.opaque = message->opaque;
        bench_load_on_report(&report, load);
    }
    return err;
}

/* Sends the next record. QUEUE_FULL is not an error here: `*full` tells it. */
static enum ferry_err send_next(struct bench_load *load, int64_t intended_us, bool *full)
{
    struct ferry_message message;
    fill_message(load, &message, intended_us);
    enum ferry_err err =
        load->sync ? send_sync(load, &message) : ferry_send(load->cli->client, &message);
    *full = err == FERRY_ERR_QUEUE_FULL;
    if (*full) {
        return FERRY_OK;
    }
    if (err == FERRY_OK) {
        load->sent++;
        load->bytes += (int64_t)message.payload_bytes;
    }
    return err;
}

/* Waits for a report, at most until `until_us`, which may be nearer than a millisecond. */
static void wait_until(struct bench_load *load, int64_t now_us, int64_t until_us)
{
    int64_t us = until_us - now_us;
    if (us > 0) {
        us = us < CLI_TURN_MS * 1000 ? us : CLI_TURN_MS * 1000;
        struct timespec timeout = {.tv_sec = 0, .tv_nsec = us * 1000};
        struct pollfd fd = {.fd = ferry_fd(load->cli->client), .events = POLLIN};
        ppoll(&fd, 1, &timeout, NULL);
    }
    ferry_poll(load->cli->client, 0);
}

static void show_progress(struct bench_load *load, int64_t now_us)
{
    char text[2 * FORMAT_TEXT_BYTES], stored[FORMAT_TEXT_BYTES];
    double elapsed_s = (double)(now_us - load->began_us) / 1e6;
    double by_time = load->seconds_max != INT64_MAX ? elapsed_s / (double)load->seconds_max : 0;
    double by_count =
        load->records_max != INT64_MAX ? (double)load->stored / (double)load->records_max : 0;
    format_count(load->stored, stored);
    snprintf(text, sizeof(text), "%s records stored", stored);
    output_progress_show(&load->progress, now_us, by_time > by_count ? by_time : by_count, text);
}

/* How many records may be sent now; negative is none. */
static int64_t room(const struct bench_load *load, int64_t now_us)
{
    int64_t most = load->records_max - load->sent;
    int64_t flight = load->in_flight_max - in_flight(load);
    most = flight < most ? flight : most;
    if (load->rate > 0) {
        double due = (double)(now_us - load->began_us) / 1e6 * (double)load->rate;
        int64_t late = (int64_t)due + 1 - load->sent;
        most = late < most ? late : most;
    }
    return most < BURST ? most : BURST;
}

static int64_t intended_of(const struct bench_load *load, int64_t n, int64_t now_us)
{
    return load->rate > 0 ? load->began_us + (int64_t)((double)n * 1e6 / (double)load->rate)
                          : now_us;
}

static enum ferry_err send_burst(struct bench_load *load, int64_t *now_us)
{
    int64_t count = room(load, *now_us);
    bool full = false;
    enum ferry_err err = FERRY_OK;
    for (int64_t i = 0; err == FERRY_OK && !full && i < count; i++) {
        err = send_next(load, intended_of(load, load->sent, *now_us), &full);
        *now_us = load->sync ? clock_monotonic_us() : *now_us;
    }
    if (count <= 0 || full) {
        /* Nothing may be sent: until the next is due, or until reports make room. */
        bool waits_for_rate = !full && load->rate > 0 && in_flight(load) < load->in_flight_max;
        int64_t until_us =
            waits_for_rate ? intended_of(load, load->sent, *now_us) : *now_us + CLI_TURN_MS * 1000;
        wait_until(load, *now_us, until_us);
    } else {
        ferry_poll(load->cli->client, 0);
    }
    return err;
}

enum ferry_err bench_load_run(struct bench_load *load)
{
    enum ferry_err err = FERRY_OK;
    int64_t now_us = clock_monotonic_us();
    load->began_us = now_us;
    while (err == FERRY_OK && load->first_err == FERRY_OK && load->sent < load->records_max &&
           !cli_is_interrupted(load->cli)) {
        if (load->seconds_max != INT64_MAX &&
            now_us - load->began_us >= load->seconds_max * 1000000) {
            break;
        }
        err = send_burst(load, &now_us);
        now_us = clock_monotonic_us();
        show_progress(load, now_us);
    }
    while (ferry_flush(load->cli->client, CLI_TURN_MS) == FERRY_ERR_TIMEOUT) {
        show_progress(load, clock_monotonic_us());
    }
    load->ended_us = clock_monotonic_us();
    output_progress_clear(&load->progress);
    return err != FERRY_OK ? err : load->first_err;
}
