/* Thousands of random steps of delivery, with crashes at every point of a turn, against a naive
 * twin that knows of each message who has it and what became of it. After each step all counters
 * are the twin's, so nothing is lost, doubled or in two states (INV-Q01 to INV-Q06). */
#include "lib/hand_fixture.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/prng.h"

#define S              "s"
#define STEPS          1200
#define MESSAGES_MAX   30000
#define HANDS_MAX      6000
#define LEASE_MS       4000
#define MAX_DELIVERIES 3
#define KEYS           9

enum twin_state { FREE, HELD, ACKED, DEAD, EXPIRED };

struct twin_message {
    enum twin_state state;
    uint32_t handed, failed;
    int hand; /* HELD: by which. */
    int key;  /* 0: none. */
    bool has_letter, revived;
};
struct twin_hand {
    struct hand *hand;
    int64_t end_us;
};
struct twin {
    struct part_fixture *f;
    struct prng random;
    bool keyed, replays;
    int64_t start; /* Retention has dropped what is before. */
    int64_t count;
    struct twin_message m[MESSAGES_MAX];
    int hand_count;
    struct twin_hand hands[HANDS_MAX];
    uint64_t letters; /* Ever made. */
    uint64_t acked, died, revived, failed, released, handed_out;
};

static const struct bytes nobody = {0};

static uint64_t below(struct twin *t, uint64_t bound)
{
    return prng_below(&t->random, bound);
}

/* ---- The twin ---- */

static void end_message(struct twin_message *m, enum twin_state state)
{
    m->state = state;
    m->has_letter = state == DEAD;
    m->revived = false;
}

static void die(struct twin *t, struct twin_message *m)
{
    t->letters += m->has_letter ? 0 : 1;
    t->died++;
    end_message(m, DEAD);
}

static void fail_message(struct twin *t, struct twin_message *m)
{
    t->failed++;
    m->failed++;
    m->state = FREE;
    if (m->failed >= MAX_DELIVERIES) {
        die(t, m);
    }
}

static void expire_hands(struct twin *t)
{
    for (int64_t i = 0; i < t->count; i++) {
        struct twin_message *m = &t->m[i];
        if (m->state == HELD && t->hands[m->hand].end_us <= t->f->now_us) {
            fail_message(t, m);
        }
    }
}

static void renew_hands(struct twin *t)
{
    for (int i = 0; i < t->hand_count; i++) {
        t->hands[i].end_us = t->f->now_us + LEASE_MS * 1000;
    }
}

/* ---- Checks ---- */

static void check_key(const struct twin *t, int64_t offset)
{
    for (int64_t i = t->start; t->keyed && t->m[offset].key != 0 && i < t->count; i++) {
        const struct twin_message *m = &t->m[i];
        if (i == offset || m->key != t->m[offset].key) {
            continue;
        }
        assert_int_not_equal(m->state, HELD);
        if (i < offset && !m->revived && !t->m[offset].revived) {
            assert_int_not_equal(m->state, FREE);
        }
    }
}

static void check_counters(struct twin *t)
{
    uint64_t by[5] = {0};
    uint64_t letters = 0;
    for (int64_t i = 0; i < t->count; i++) {
        by[t->m[i].state]++;
        letters += t->m[i].has_letter;
    }
    struct subscription_get_reply r = hand_get(t->f, S);
    assert_int_equal(r.acked, t->acked);
    assert_int_equal(r.died, t->died);
    assert_int_equal(r.revived, t->revived);
    assert_int_equal(r.failed, t->failed);
    assert_int_equal(r.released, t->released);
    assert_int_equal(r.handed_out, t->handed_out);
    assert_int_equal(r.leased, by[HELD]);
    assert_int_equal(r.ready + r.waiting, by[FREE]);
    assert_int_equal(r.dead, letters);
    hand_conserves(t->f, S, 0);
}

/* ---- Steps ---- */

static void turn(struct twin *t)
{
    part_turn(t->f);
    expire_hands(t);
}

static void produce(struct twin *t)
{
    static const char *const names[KEYS] = {"", "a", "b", "c", "d", "e", "f", "g", "h"};
    const char *keys[30];
    uint32_t priorities[30];
    uint32_t count = 1 + (uint32_t)below(t, 30);
    if (t->count + count > MESSAGES_MAX) {
        return;
    }
    bool flat = below(t, 2) == 0;
    for (uint32_t i = 0; i < count; i++) {
        int key = (int)below(t, KEYS);
        keys[i] = names[key];
        priorities[i] = flat ? 0 : (uint32_t)below(t, 8);
        t->m[t->count + i] = (struct twin_message){.key = key};
    }
    hand_produce(t->f, &(struct keyed_of){.count = count,
                                          .keys = keys,
                                          .priorities = t->keyed ? NULL : priorities,
                                          .content = (uint64_t)t->count});
    t->count += count;
    expire_hands(t);
}

static void take_hand(struct twin *t, struct hand *h)
{
    assert_true(t->hand_count < HANDS_MAX);
    t->hands[t->hand_count] =
        (struct twin_hand){.hand = h, .end_us = t->f->now_us + LEASE_MS * 1000};
    for (uint32_t i = 0; i < h->count; i++) {
        struct twin_message *m = &t->m[h->messages[i].offset];
        assert_int_equal(m->state, FREE);
        assert_int_equal(h->messages[i].content, h->messages[i].offset);
        check_key(t, h->messages[i].offset);
        m->state = HELD;
        m->hand = t->hand_count;
        m->handed++;
        t->handed_out++;
        assert_int_equal(h->messages[i].handed, m->handed);
        assert_int_equal(h->messages[i].failed, m->handed > 1 ? m->failed : 0);
    }
    t->hand_count++;
}

static void receive(struct twin *t)
{
    char member[2] = {(char)('a' + below(t, 5)), 0};
    expire_hands(t);
    struct hand *h = hand_receive(t->f, S, member, 1 + (uint32_t)below(t, 40));
    if (h->answer == RECEIVE_PROPOSED) {
        take_hand(t, h);
    }
}

/* What it should be answered, and what it does. */
static enum ferry_err settle_twin(struct twin *t, int hand, uint32_t kind, int64_t offset)
{
    struct twin_message *m = &t->m[offset];
    if (m->state != HELD || m->hand != hand) {
        return FERRY_ERR_LEASE_EXPIRED; /* Or it is the same again; not asked for here. */
    }
    switch (kind) {
    case SETTLE_ACK:
        t->acked++;
        end_message(m, ACKED);
        break;
    case SETTLE_NACK:
        fail_message(t, m);
        break;
    case SETTLE_RELEASE:
        t->released++;
        m->state = FREE;
        break;
    default:
        t->failed++;
        m->failed++;
        die(t, m);
    }
    return FERRY_OK;
}

static int pick_hand(struct twin *t)
{
    int back = t->hand_count < 40 ? t->hand_count : 40;
    return t->hand_count - 1 - (int)below(t, (uint64_t)back);
}

/* One message of a hand-out, maybe of an old one. */
static void settle(struct twin *t)
{
    static const uint32_t kinds[] = {SETTLE_ACK,  SETTLE_ACK,    SETTLE_ACK,     SETTLE_NACK,
                                     SETTLE_NACK, SETTLE_REJECT, SETTLE_RELEASE, SETTLE_ACK};
    if (t->hand_count == 0) {
        return;
    }
    int at = pick_hand(t);
    const struct hand *h = t->hands[at].hand;
    uint32_t kind = kinds[below(t, 8)];
    for (uint32_t i = 0; i < h->count; i++) {
        int64_t offset = h->messages[i].offset;
        if (below(t, 3) == 0 || t->m[offset].state != HELD || t->m[offset].hand != at) {
            continue;
        }
        expire_hands(t);
        enum ferry_err want = settle_twin(t, at, kind, offset);
        int64_t delay_ms = below(t, 2) == 0 ? -1 : (int64_t)below(t, 3000);
        enum ferry_err got = hand_settle(t->f, S, h, kind, offset, 1, delay_ms);
        assert_string_equal(ferry_err_name(got), ferry_err_name(want));
    }
}

/* What another has by now cannot be acked with the lease of before. */
static void settle_late(struct twin *t)
{
    if (t->hand_count == 0) {
        return;
    }
    int at = pick_hand(t);
    const struct hand *h = t->hands[at].hand;
    for (uint32_t i = 0; i < h->count && i < 5; i++) {
        int64_t offset = h->messages[i].offset;
        const struct twin_message *m = &t->m[offset];
        if (m->state == HELD && m->hand != at) {
            assert_int_equal(hand_settle(t->f, S, h, SETTLE_ACK, offset, 1, -1),
                             FERRY_ERR_LEASE_EXPIRED);
        }
    }
}

static void extend(struct twin *t)
{
    if (t->hand_count == 0) {
        return;
    }
    int at = pick_hand(t);
    const struct hand *h = t->hands[at].hand;
    bool held = false;
    for (uint32_t i = 0; i < h->count; i++) {
        const struct twin_message *m = &t->m[h->messages[i].offset];
        held = held || (m->state == HELD && m->hand == at);
    }
    if (held) {
        assert_int_equal(hand_settle(t->f, S, h, SETTLE_EXTEND, 0, 0, LEASE_MS), FERRY_OK);
        t->hands[at].end_us = t->f->now_us + LEASE_MS * 1000;
    }
}

static void change_dead(struct twin *t)
{
    static struct dead_list_reply reply;
    struct dead_list_request q = {
        .subscription = bytes_of_string(S), .from = below(t, t->letters + 1), .count_max = 1};
    bool replay = below(t, 3) > 0;
    assert_int_equal(store_read_begin(t->f->store), FERRY_OK);
    assert_int_equal(partition_dead_list(t->f->p, &q, &reply), FERRY_OK);
    store_read_end(t->f->store);
    if (!t->replays || reply.count == 0 || reply.items[0].revived) {
        return;
    }
    struct twin_message *m = &t->m[reply.items[0].offset];
    assert_true(m->state == DEAD && m->has_letter);
    assert_int_equal(
        hand_dead_change(t->f, S, replay ? DEAD_REPLAY : DEAD_DROP, reply.items[0].number, nobody),
        1);
    if (replay) {
        t->revived++;
        m->state = FREE;
        m->handed = m->failed = 0;
        m->revived = true;
    } else {
        m->has_letter = false;
    }
}

/* A hand-out and an ack are proposed, and the process ends: both count, or none. */
static void crash(struct twin *t)
{
    enum crash_point point = (enum crash_point)below(t, CRASH_POINTS);
    bool counts = point == CRASH_BEFORE_STORED;
    struct partition_ticket *acks = NULL, *hands = part_ticket(t->f);
    enum receive_answer answer;
    int at = t->hand_count > 0 ? pick_hand(t) : -1;
    int64_t offset = at >= 0 ? t->hands[at].hand->messages[0].offset : 0;
    turn(t);
    if (at >= 0 && t->m[offset].state == HELD && t->m[offset].hand == at) {
        struct settle_item item = hand_item(t->hands[at].hand, SETTLE_ACK, offset, 1, -1);
        acks = hand_propose(t->f, S, &item, 1);
    }
    struct receive r = {.subscription = bytes_of_string(S),
                        .member = bytes_of_string("x"),
                        .max_messages = 5,
                        .max_bytes = 1 << 20};
    assert_int_equal(store_read_begin(t->f->store), FERRY_OK);
    assert_int_equal(partition_receive(t->f->p, &r, t->f->now_ms, t->f->now_us, hands, &answer),
                     FERRY_OK);
    store_read_end(t->f->store);
    part_crash_at(t->f, point);
    part_open(t->f);
    renew_hands(t);
    if (counts && acks != NULL) {
        assert_int_equal(settle_twin(t, at, SETTLE_ACK, offset), FERRY_OK);
    }
    const struct delivery_range_seen {
        int64_t first;
        uint32_t count;
        uint64_t key_hash;
    } *ranges = (const void *)hands->ranges.data;
    struct hand none = {.answer = answer, .lease = hands->lease, .token = hands->token};
    struct hand *h = part_keep(t->f, &none, sizeof(none));
    for (uint32_t done = 0; counts && answer == RECEIVE_PROPOSED && h->count < hands->count;
         done++) {
        for (uint32_t i = 0; i < ranges[done].count; i++) {
            int64_t given = ranges[done].first + i;
            h->messages[h->count++] =
                (struct hand_message){.offset = given,
                                      .content = (uint64_t)given,
                                      .handed = t->m[given].handed + 1,
                                      .failed = t->m[given].handed > 0 ? t->m[given].failed : 0};
        }
    }
    if (h->count > 0) {
        take_hand(t, h);
        t->hands[t->hand_count - 1].end_us = t->f->now_us + LEASE_MS * 1000;
    }
}

static void pass(struct twin *t)
{
    int64_t ms = (int64_t)below(t, 2500);
    part_pass_ms(t->f, ms);
    expire_hands(t);
}

static void step(struct twin *t)
{
    switch (below(t, 20)) {
    case 0:
    case 1:
    case 2:
        produce(t);
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        receive(t);
        break;
    case 7:
    case 8:
        pass(t);
        break;
    case 9:
        settle_late(t);
        break;
    case 10:
        extend(t);
        break;
    case 11:
        change_dead(t);
        break;
    case 12:
        crash(t);
        break;
    default:
        settle(t);
    }
}

/* All that is left is handed out and acked: nothing is lost. */
static void drain(struct twin *t)
{
    for (int rounds = 0; rounds < 200; rounds++) {
        part_pass_ms(t->f, 2000);
        expire_hands(t);
        for (struct hand *h; (h = hand_receive(t->f, S, "z", 1000))->answer == RECEIVE_PROPOSED;) {
            take_hand(t, h);
            for (uint32_t i = 0; i < h->count; i++) {
                int64_t offset = h->messages[i].offset;
                assert_int_equal(settle_twin(t, t->hand_count - 1, SETTLE_ACK, offset), FERRY_OK);
            }
            hand_settle_all(t->f, S, h, SETTLE_ACK);
        }
    }
    for (int64_t i = 0; i < t->count; i++) {
        assert_true(t->m[i].state == ACKED || t->m[i].state == DEAD);
    }
    assert_int_equal(hand_get(t->f, S).position, t->count);
}

static void run(struct part_fixture *f, bool keyed, bool replays, uint64_t seed)
{
    struct subscription_create_request q = {.from = FERRY_FROM_START,
                                            .lease_ms = LEASE_MS,
                                            .max_deliveries = MAX_DELIVERIES,
                                            .backoff_min_ms = 500,
                                            .backoff_max_ms = 2000,
                                            .inflight_max = 200,
                                            .priority_age_ms = 1000};
    struct twin *t = mem_zalloc(1, sizeof(*t));
    assert_non_null(t);
    t->f = f;
    t->keyed = keyed;
    t->replays = replays;
    prng_init(&t->random, seed);
    part_open(f);
    hand_make(f, S, keyed ? SUBSCRIPTION_KEYED : SUBSCRIPTION_QUEUE, &q);
    for (int i = 0; i < STEPS; i++) {
        step(t);
        check_counters(t);
    }
    drain(t);
    check_counters(t);
    print_message("%lld messages, %llu hand-outs, %llu failures, %llu deaths\n",
                  (long long)t->count, (unsigned long long)t->handed_out,
                  (unsigned long long)t->failed, (unsigned long long)t->died);
    mem_free(t);
}

static void a_queue_loses_and_doubles_nothing(void **state)
{
    run(*state, false, true, 1);
}

static void keys_are_delivered_in_order(void **state)
{
    run(*state, true, false, 2);
}

static void keys_with_replays_are_out_one_at_a_time(void **state)
{
    run(*state, true, true, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_queue_loses_and_doubles_nothing),
        part_test(keys_are_delivered_in_order),
        part_test(keys_with_replays_are_out_one_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
