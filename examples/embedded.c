/* embedded: a broker inside the program itself. Same files, same interface, no second process and
 * no socket; `ferryd --data FOLDER` can open the folder afterwards.
 *
 *   embedded FOLDER COUNT      stores COUNT messages, reads them back, prints how many it saw */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_broker.h"

#define TOPIC   "embedded"
#define WAIT_MS 10000

static int complain(const char *what, enum ferry_err err, const char *detail)
{
    fprintf(stderr, "embedded: %s: %s: %s\n", what, ferry_err_name(err),
            detail[0] != '\0' ? detail : ferry_err_text(err));
    return EXIT_FAILURE;
}

/* One call a message, told exactly once: stored, not stored, or unknown. */
static void count_stored(const struct ferry_report *report, void *arg)
{
    long *stored = arg;
    *stored += report->outcome == FERRY_STORED;
}

static enum ferry_err send_all(struct ferry_client *client, long count)
{
    enum ferry_err err = FERRY_OK;
    for (long i = 0; i < count && err == FERRY_OK; i++) {
        char text[32];
        int length = snprintf(text, sizeof(text), "message %ld", i);
        struct ferry_message message = {.topic = TOPIC,
                                        .partition = FERRY_PARTITION_ANY,
                                        .payload = text,
                                        .payload_bytes = (size_t)length};
        err = ferry_send(client, &message);
        while (err == FERRY_ERR_QUEUE_FULL) { /* Back-pressure: let some be reported first. */
            (void)ferry_poll(client, 100);
            err = ferry_send(client, &message);
        }
    }
    return err == FERRY_OK ? ferry_flush(client, WAIT_MS) : err;
}

static enum ferry_err read_all(struct ferry_client *client, long *read)
{
    struct ferry_consumer *consumer = NULL;
    enum ferry_err err =
        ferry_consumer_open(&consumer, client, TOPIC, NULL, FERRY_FROM_START, WAIT_MS);
    while (err == FERRY_OK && !(*read > 0 && ferry_consumer_at_end(consumer))) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(consumer, WAIT_MS, &batch);
        if (err == FERRY_OK) {
            *read += (long)ferry_batch_count(batch);
            ferry_batch_free(&batch);
        }
    }
    ferry_consumer_close(&consumer);
    return err;
}

static int use(struct ferry_broker *broker, long count)
{
    char detail[512] = "";
    long stored = 0, read = 0;
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        ferry_conf_on_report(conf, count_stored, &stored);
        err = ferry_broker_conf(broker, conf);
    }
    if (err == FERRY_OK) {
        err = ferry_open(&client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf); /* NULL once the client has taken it. */
    if (err != FERRY_OK) {
        return complain("client", err, detail);
    }
    err = send_all(client, count);
    if (err == FERRY_OK) {
        err = read_all(client, &read);
    }
    ferry_close(&client, WAIT_MS);
    if (err != FERRY_OK) {
        return complain(TOPIC, err, "");
    }
    printf("stored %ld, read %ld\n", stored, read);
    return stored == count ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    char data[1024], detail[512] = "";
    long count = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    if (count < 1) {
        fputs("usage: embedded FOLDER COUNT\n", stderr);
        return 2;
    }
    (void)snprintf(data, sizeof(data), "node.data=%s", argv[1]);
    const char *options[] = {data};
    struct ferry_broker *broker = NULL;
    enum ferry_err err = ferry_broker_start(&broker, options, 1, detail, sizeof(detail));
    if (err != FERRY_OK) {
        return complain(argv[1], err, detail);
    }
    int code = use(broker, count);
    ferry_broker_stop(&broker); /* After its clients are closed. */
    return code;
}
