/* The entries of deliveries: what is accepted is written again to bytes that say the same, and does
 * no harm to a delivery that applies it. */
#include "base/mem.h"
#include "partition/dead.h"
#include "partition/delivery_entry.h"

#define ENTRY_MAX_BYTES (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bench {
    struct delivery *d;
    struct rows dead_rows;
    struct buf scratch, once, twice;
};

static struct bench bench_made(void)
{
    static const struct delivery_settings settings = {.lease_ms = 1000};
    static const struct delivery_range range = {.first = 90, .count = 30};
    const struct delivery_hand_out h = {.lease = 1, .range_count = 1, .ranges = &range};
    struct bench b = {.d = delivery_new(1, true, 0, &settings)};
    must(b.d != NULL);
    must(delivery_apply_hand_out(b.d, &h) == FERRY_OK);
    rows_init(&b.dead_rows, 9);
    buf_init(&b.scratch, ENTRY_SCRATCH_MAX_BYTES);
    buf_init(&b.once, ENTRY_MAX_BYTES);
    buf_init(&b.twice, ENTRY_MAX_BYTES);
    return b;
}

static void bench_end(struct bench *b)
{
    delivery_check(b->d, INT64_MAX);
    delivery_free(&b->d);
    rows_fini(&b->dead_rows);
    buf_fini(&b->scratch);
    buf_fini(&b->once);
    buf_fini(&b->twice);
}

static void same_again(const struct bench *b)
{
    must(buf_ok(&b->once) && buf_ok(&b->twice));
    must(bytes_equal(buf_bytes(&b->once), buf_bytes(&b->twice)));
}

static void try_hand_outs(struct bytes payload)
{
    static struct hand_out_entry e;
    struct bench b = bench_made();
    if (hand_out_decode(payload, &b.scratch, &e) == FERRY_OK) {
        for (uint32_t i = 0; i < e.count; i++) {
            must(delivery_apply_hand_out(b.d, &e.hand_outs[i]) == FERRY_OK);
        }
        hand_out_encode(&b.once, &e);
        must(hand_out_decode(buf_bytes(&b.once), &b.scratch, &e) == FERRY_OK);
        hand_out_encode(&b.twice, &e);
        same_again(&b);
    }
    bench_end(&b);
}

static void try_settlement(struct bytes payload)
{
    static uint16_t status[SETTLE_ITEMS_MAX];
    struct delivery_settlement s;
    struct bench b = bench_made();
    if (settlement_decode(payload, &b.scratch, &s) == FERRY_OK) {
        must(delivery_apply_settlement(b.d, &s, 1000, &b.dead_rows, status) == FERRY_OK);
        settlement_encode(&b.once, CONTROL_SETTLE, &s);
        must(settlement_decode(buf_bytes(&b.once), &b.scratch, &s) == FERRY_OK);
        settlement_encode(&b.twice, CONTROL_SETTLE, &s);
        same_again(&b);
    }
    bench_end(&b);
}

static void try_dead_change(struct bytes payload)
{
    static struct dead_change_entry e;
    struct bench b = bench_made();
    uint32_t done;
    if (dead_change_decode(payload, &e) == FERRY_OK) {
        enum ferry_err err = delivery_apply_dead_change(b.d, &e, 1000, &b.dead_rows, &done);
        must(err == FERRY_OK || err == FERRY_ERR_CORRUPT);
        dead_change_encode(&b.once, &e);
        must(dead_change_decode(buf_bytes(&b.once), &e) == FERRY_OK);
        dead_change_encode(&b.twice, &e);
        same_again(&b);
    }
    bench_end(&b);
}

static void try_letter(struct bytes payload)
{
    static const uint8_t key[16] = {0};
    struct dead_letter letter;
    struct buf out;
    if (dead_decode(bytes_of(key, sizeof(key)), payload, &letter) != FERRY_OK) {
        return;
    }
    buf_init(&out, ENTRY_MAX_BYTES);
    enum ferry_err err = dead_append_entry(&letter, &out);
    must(err == FERRY_OK || err == FERRY_ERR_CORRUPT);
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes payload = bytes_of(data, size);
    try_hand_outs(payload);
    try_settlement(payload);
    try_dead_change(payload);
    try_letter(payload);
    return 0;
}
