/* ferry_receive_tx: the loop on a real receiver. */
#include <poll.h>

#include "base/clock.h"
#include "outbox/app/receive_loop.h"

#define BACKOFF_OF_SUBSCRIPTION (-1)

static enum ferry_err source_receive(void *ctx, int timeout_ms, struct ferry_delivery *deliveries,
                                     size_t max, size_t *count)
{
    return ferry_receive(ctx, timeout_ms, deliveries, max, count);
}

static enum ferry_err source_settle(void *ctx, struct ferry_delivery *delivery,
                                    enum ferry_settle settle, const char *reason)
{
    return ferry_settle(ctx, delivery, settle, settle == FERRY_NACK ? BACKOFF_OF_SUBSCRIPTION : 0,
                        reason, NULL);
}

static enum ferry_err source_flush(void *ctx, int timeout_ms)
{
    return ferry_receiver_flush(ctx, timeout_ms, NULL);
}

static int64_t source_now_ms(void *ctx)
{
    (void)ctx;
    return clock_monotonic_us() / 1000;
}

static void source_pause(void *ctx, int ms)
{
    (void)ctx;
    poll(NULL, 0, ms);
}

enum ferry_err ferry_receive_tx(struct ferry_receiver *receiver, struct ferry_db *db,
                                ferry_handler *handler, void *arg,
                                const struct ferry_consume_options *options)
{
    const struct receive_source source = {
        .ctx = receiver,
        .receive = source_receive,
        .settle = source_settle,
        .flush = source_flush,
        .now_ms = source_now_ms,
        .pause = source_pause,
    };
    return receive_loop(&source, db, handler, arg, options);
}
