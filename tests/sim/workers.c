/* Workers: receivers of queue and keyed subscriptions, of all manners: they ack, nack, release,
 * reject and extend, or just stop; they work past their lease and ack late; they stand still, die
 * with messages in hand, or close as they should. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define OPEN_MS  8000
#define HELD_MAX 40
#define TAKE_MAX 8

/* A message in hand: it is settled when its work is done, and its work may take too long. */
struct held {
    struct ferry_delivery delivery;
    uint32_t hand_out;
    enum ferry_settle settle;
    int64_t done_us; /* SIM_NEVER: it is left to lie. */
};

struct worker {
    struct session s;
    struct load_queue *queue;
    struct ferry_receiver *receiver;
    uint32_t number; /* Of this receiver. */
    int64_t opened_us;
    struct held held[HELD_MAX];
    size_t held_count;
};

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct worker *w = arg;
    struct deliveries *d = &w->queue->deliveries;
    uint32_t hand_out = (uint32_t)(uintptr_t)settled->opaque;
    const struct hand_out *h = &d->all[hand_out];
    const struct history_message *m = &d->history->messages[h->message];
    if (h->state != OUT_ASKED || h->asked != settled->settle ||
        m->partition != settled->partition || m->offset != settled->offset) {
        sim_fail(SIM_INVARIANT, "INV-Q02: settlement %u of %s/%d/%lld is answered out of turn",
                 settled->settle, d->name, settled->partition, (long long)settled->offset);
        return;
    }
    if (settled->err != FERRY_OK) {
        sim_say("settlement %u of %s/%d/%lld: %s", settled->settle, d->name, settled->partition,
                (long long)settled->offset, ferry_err_name(settled->err));
    }
    deliveries_told(d, hand_out, settled->err);
    w->s.p->load->counters.worked_late += settled->err == FERRY_ERR_LEASE_EXPIRED;
}

static void settle(struct worker *w, struct held *h)
{
    static const char *const reasons[] = {NULL, "busy", "bad input"};
    int64_t delay = h->settle != FERRY_NACK || chance_permille(500) ? -1 : chance_between(0, 2000);
    deliveries_asked(&w->queue->deliveries, h->hand_out, h->settle, delay);
    enum ferry_err err = ferry_settle(w->receiver, &h->delivery, h->settle, delay,
                                      reasons[chance_below(3)], (void *)(uintptr_t)h->hand_out);
    if (err != FERRY_OK) {
        sim_fail(SIM_INVARIANT, "a settlement is not taken: %s", ferry_err_name(err));
    }
}

static void extend(struct worker *w, const struct held *h)
{
    uint32_t lease_ms = (uint32_t)chance_between(200, 5000);
    int64_t asked_us = world_now();
    enum ferry_err err = ferry_extend(w->receiver, &h->delivery, lease_ms, 3000);
    program_note(w->s.p, "extend", err);
    deliveries_extended(&w->queue->deliveries, h->hand_out, asked_us, lease_ms, err);
}

/* What becomes of it, and when. */
static struct held decide(const struct worker *w)
{
    int64_t lease_us = w->queue->spec.lease_ms * SIM_MS;
    uint64_t dice = chance_below(1000);
    struct held h = {.settle = FERRY_ACK, .done_us = world_now()};
    if (dice < 120) {
        h.settle = FERRY_NACK;
    } else if (dice < 180) {
        h.settle = FERRY_RELEASE;
    } else if (dice < 200) {
        h.settle = FERRY_REJECT;
    } else if (dice < 240) {
        h.done_us = SIM_NEVER;
    }
    if (h.done_us != SIM_NEVER && chance_permille(200)) {
        h.done_us += chance_between(0, 2 * lease_us);
    }
    return h;
}

static void take(struct worker *w, const struct ferry_delivery *delivery, uint32_t hand_out)
{
    struct held h = decide(w);
    h.delivery = *delivery;
    h.hand_out = hand_out;
    if (chance_permille(50)) {
        extend(w, &h);
    }
    if (h.done_us <= world_now() || w->held_count == HELD_MAX) {
        settle(w, &h);
    } else {
        w->held[w->held_count++] = h;
    }
}

/* All are noted before any is worked on, for that takes time. */
static void take_all(struct worker *w, const struct ferry_delivery *got, size_t count)
{
    uint32_t hand_outs[TAKE_MAX];
    for (size_t i = 0; i < count; i++) {
        hand_outs[i] = deliveries_got(&w->queue->deliveries, w->number, w->opened_us, &got[i]);
    }
    for (size_t i = 0; i < count && !sim->ended; i++) {
        take(w, &got[i], hand_outs[i]);
        w->s.p->done++;
    }
}

static void settle_what_is_done(struct worker *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->held_count; i++) {
        if (w->held[i].done_us <= world_now()) {
            settle(w, &w->held[i]);
        } else {
            w->held[kept++] = w->held[i];
        }
    }
    w->held_count = kept;
}

/* What happens to people's machines. */
static void suffer(struct worker *w)
{
    struct program *p = w->s.p;
    if (chance_permille(8)) {
        p->load->counters.paused_workers++;
        program_pause(p, chance_between(1, 3 * w->queue->spec.lease_ms) * SIM_MS);
    } else if (chance_permille(2)) {
        p->load->counters.died_with_messages += w->held_count > 0;
        program_die(p);
    }
}

static void work(struct worker *w, int64_t until)
{
    struct program *p = w->s.p;
    while (session_may_go_on(p, until)) {
        struct ferry_delivery got[TAKE_MAX];
        size_t count = 0;
        enum ferry_err err = ferry_receive(w->receiver, (int)chance_between(0, 800), got,
                                           1 + chance_below(TAKE_MAX), &count);
        if (err != FERRY_OK && err != FERRY_ERR_TIMEOUT) {
            program_note(p, "receive", err);
            return; /* As a program would: with another receiver. */
        }
        if (err == FERRY_OK) {
            take_all(w, got, count);
        }
        settle_what_is_done(w);
        (void)ferry_poll(w->s.client, 0);
        if (chance_permille(50)) {
            program_note(p, "flush", ferry_receiver_flush(w->receiver, 2000, NULL));
        }
        suffer(w);
        fiber_sleep(chance_between(0, p->load->pause_us / 4));
    }
}

static bool open_receiver(struct worker *w)
{
    struct program *p = w->s.p;
    struct ferry_receiver_spec spec = {
        .member = chance_permille(300) ? p->host->name : NULL,
        .inflight_max = (uint32_t)chance_between(1, HELD_MAX),
        .batch_max = (uint32_t)chance_between(1, 20),
        .lease_ms = chance_permille(200) ? (uint32_t)chance_between(500, 4000) : 0,
        .no_extend = chance_permille(500)};
    const struct history *h = &p->load->history;
    w->number = ++p->load->next_worker;
    w->opened_us = world_now();
    enum ferry_err err =
        ferry_receiver_open(&w->receiver, w->s.client, h->topics[w->queue->deliveries.topic].name,
                            w->queue->name, &spec, OPEN_MS);
    if (err != FERRY_OK) {
        program_note(p, "receiver open", err);
        return false;
    }
    ferry_receiver_on_settled(w->receiver, on_settled, w);
    return true;
}

void worker_session(struct program *p)
{
    struct worker w = {.queue = &p->load->queues[chance_below(p->load->queue_count)]};
    int64_t until = world_now() + chance_between(3, 30) * SIM_SECOND;
    if (!session_open(&w.s, p, NULL)) {
        return;
    }
    if (open_receiver(&w)) {
        work(&w, until);
        deliveries_let_go(&w.queue->deliveries, w.number);
        ferry_receiver_close(&w.receiver, chance_permille(300) ? 0 : 3000);
    }
    ferry_close(&w.s.client, 0);
}
