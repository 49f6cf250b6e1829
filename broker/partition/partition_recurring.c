/* Recurring messages: setting them, and bringing them when their time has come.
 *
 * A firing is one entry {name and next time, batch}. One of a name is on its way at a time, and
 * none while a change of that name is: what fires is what is applied. */
#include "base/log.h"
#include "partition/cron.h"
#include "partition/partition_internal.h"

/* While there are some their leader looks at least so often: its wall clock may have been set. */
#define RECURRING_LOOK_US  1000000
#define RECURRING_AGAIN_US 1000

/* ---- When ---- */

static enum ferry_err open_times(struct bytes spec, struct bytes zone, struct cron *c,
                                 struct cron_zone **z, struct err_text *e)
{
    *z = NULL;
    enum ferry_err err = cron_parse(spec, c, e);
    if (err != FERRY_OK || c->every_ms > 0) {
        return err;
    }
    err = cron_zone_open(zone, z);
    if (err == FERRY_ERR_INVALID_ARGUMENT) {
        return err_set(e, err,
                       "'%.*s' is no zone of the tz database: give one such as Europe/Berlin or "
                       "UTC, whose clock the line is about",
                       zone.size < 64 ? (int)zone.size : 64, (const char *)zone.data);
    }
    return err;
}

/* ---- Setting ---- */

static enum ferry_err check_record(struct bytes record, struct err_text *e)
{
    struct batch_header h;
    struct batch_reader reader;
    struct batch_record r;
    if (record.size > RECURRING_RECORD_MAX_BYTES) {
        return err_set(e, FERRY_ERR_TOO_LARGE, "a recurring message has at most %u bytes",
                       RECURRING_RECORD_MAX_BYTES);
    }
    enum ferry_err err = batch_check(record, &h, e);
    if (err != FERRY_OK) {
        return err;
    }
    batch_reader_init(&reader, record);
    if (!batch_reader_next(&reader, &r, &err)) {
        return err_set(e, FERRY_ERR_BAD_BATCH, "the recurring message is malformed");
    }
    if (h.count != 1 || r.due != 0 || h.producer_id != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "a recurring message is one message, without due time or producer");
    }
    return FERRY_OK;
}

static enum ferry_err judge_set(struct partition *p, const struct recurring_set_request *q,
                                struct bytes record, int64_t now_ms, int64_t *next_ms,
                                struct err_text *e)
{
    const struct recurring *t = &p->recurring;
    struct cron c;
    struct cron_zone *z = NULL;
    if (recurring_find(t, q->name) == NULL && t->count + t->proposed >= RECURRING_MAX) {
        return err_set(e, FERRY_ERR_LIMIT_REACHED,
                       "a partition has at most %u recurring messages: remove one", RECURRING_MAX);
    }
    enum ferry_err err = check_record(record, e);
    if (err == FERRY_OK) {
        err = open_times(q->spec, q->zone, &c, &z, e);
    }
    if (err == FERRY_OK) {
        *next_ms = cron_next(&c, z, now_ms);
        err = *next_ms != CRON_NEVER ? err
                                     : err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                                               "no day has that day of month and month");
    }
    cron_zone_close(&z);
    return err;
}

static enum ferry_err propose_set(struct partition *p, const struct recurring_entry *e,
                                  int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    buf_clear(&t->payload);
    recurring_entry_encode(&t->payload, e);
    if (!buf_ok(&t->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct store_entry entry = {.type = STORE_ENTRY_CONTROL,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&t->payload)};
    enum ferry_err err = partition_propose(p, &entry, now_us, t);
    struct recurring_message *m = recurring_find(&p->recurring, e->name);
    if (err == FERRY_OK && m != NULL) {
        m->busy_index = t->base.index;
    }
    p->recurring.proposed += err == FERRY_OK;
    return err;
}

enum ferry_err partition_recurring_set(struct partition *p, const struct recurring_set_request *q,
                                       struct bytes record, int64_t now_ms, int64_t now_us,
                                       struct partition_ticket *t, struct err_text *e)
{
    struct recurring_entry entry = {.kind = CONTROL_RECURRING_SET, .name = q->name};
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    if (!name_is_valid(q->name)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (record.size == 0) {
        return recurring_find(&p->recurring, q->name) == NULL
                   ? FERRY_ERR_UNKNOWN_MESSAGE
                   : propose_set(p, &entry, now_ms, now_us, t);
    }
    err = judge_set(p, q, record, now_ms, &entry.next_ms, e);
    if (err != FERRY_OK) {
        return err;
    }
    entry.spec = q->spec;
    entry.zone = q->zone;
    entry.record = record;
    return propose_set(p, &entry, now_ms, now_us, t);
}

/* ---- Firing ---- */

static enum ferry_err build_batch(const struct partition *p, const struct recurring_message *m,
                                  int64_t time_ms, struct batch_writer *w, struct bytes *batch)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    batch_reader_init(&reader, buf_bytes(&m->record));
    if (!batch_reader_next(&reader, &r, &err)) {
        return FERRY_ERR_CORRUPT;
    }
    r.timestamp_ms = time_ms;
    r.id = recurring_id(&p->config.topic_id, bytes_of(m->name, m->name_bytes), time_ms);
    err = batch_writer_add(w, &r);
    return err == FERRY_OK ? batch_writer_finish(w, 0, 0, 0, batch) : err;
}

static enum ferry_err build_payload(const struct partition *p, struct recurring_message *m,
                                    int64_t time_ms, int64_t next_ms)
{
    struct batch_writer w;
    struct bytes batch = {0};
    struct recurring_entry e = {.kind = CONTROL_RECURRING_FIRE,
                                .name = bytes_of(m->name, m->name_bytes),
                                .next_ms = next_ms};
    batch_writer_init(&w, BATCH_MAX_BYTES);
    enum ferry_err err = build_batch(p, m, time_ms, &w, &batch);
    buf_clear(&m->payload);
    buf_append_le32(&m->payload, 0);
    recurring_entry_encode(&m->payload, &e);
    if (err == FERRY_OK && buf_ok(&m->payload)) {
        put_le32(m->payload.data, (uint32_t)(m->payload.size - 4));
        buf_append_bytes(&m->payload, batch);
    }
    batch_writer_fini(&w);
    return err == FERRY_OK && !buf_ok(&m->payload) ? FERRY_ERR_NO_MEMORY : err;
}

/* Times that passed while nobody led are one: the latest. */
static enum ferry_err fire(struct partition *p, struct recurring_message *m, int64_t now_ms,
                           int64_t now_us)
{
    struct cron c;
    struct cron_zone *z = NULL;
    struct err_text e = {{0}};
    uint64_t index = replica_last_index(p->replica) + 1;
    enum ferry_err err =
        open_times(bytes_of(m->spec, m->spec_bytes), bytes_of(m->zone, m->zone_bytes), &c, &z, &e);
    if (err != FERRY_OK) {
        log_line(LOG_ERROR, "partition",
                 "group %llu: recurring message %.*s does not come any more: %s: set it anew",
                 (unsigned long long)p->config.group, (int)m->name_bytes, m->name,
                 e.text[0] != '\0' ? e.text : ferry_err_text(err));
        m->busy_index = UINT64_MAX;
        return FERRY_OK;
    }
    int64_t time_ms = cron_latest(&c, z, m->next_ms, now_ms);
    err = build_payload(p, m, time_ms, cron_next(&c, z, time_ms));
    cron_zone_close(&z);
    struct store_entry entry = {.type = STORE_ENTRY_BATCH_CAS,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&m->payload)};
    if (err == FERRY_OK) {
        err = partition_propose(p, &entry, now_us, NULL);
    }
    if (err == FERRY_OK) {
        m->busy_index = index;
        partition_spend(p, entry.payload.size);
    }
    return err;
}

enum ferry_err partition_recurring_tick(struct partition *p, int64_t now_ms, int64_t now_us)
{
    struct recurring *t = &p->recurring;
    enum ferry_err err = FERRY_OK;
    int64_t wait_us = RECURRING_LOOK_US;
    if (t->look_us > now_us) {
        return FERRY_OK;
    }
    if (!replica_is_ready(p->replica) || t->count == 0) {
        t->look_us = INT64_MAX;
        return FERRY_OK;
    }
    for (size_t i = 0; i < t->count && err == FERRY_OK; i++) {
        struct recurring_message *m = t->items[i];
        int64_t left_ms = m->next_ms - now_ms;
        if (m->busy_index != 0) {
            continue; /* Looked at when that is applied. */
        }
        if (left_ms > 0) {
            wait_us = left_ms * 1000 < wait_us ? left_ms * 1000 : wait_us;
        } else if (!partition_may_spend(p) || p->ids.count >= IDS_PENDING_MAX) {
            replica_ask_flush(p->replica);
            wait_us = RECURRING_AGAIN_US;
        } else {
            err = fire(p, m, now_ms, now_us);
        }
    }
    t->look_us = now_us + wait_us;
    return err == FERRY_ERR_NO_MEMORY ? FERRY_OK : err;
}

/* ---- Listing ---- */

enum ferry_err partition_recurring_list(const struct partition *p,
                                        struct recurring_list_reply *reply)
{
    enum ferry_err err = partition_check_leader(p);
    reply->count = 0;
    for (size_t i = 0; i < p->recurring.count && err == FERRY_OK; i++) {
        const struct recurring_message *m = p->recurring.items[i];
        must(reply->count < RECURRING_MAX);
        reply->items[reply->count++] =
            (struct recurring_item){.name = bytes_of(m->name, m->name_bytes),
                                    .spec = bytes_of(m->spec, m->spec_bytes),
                                    .zone = bytes_of(m->zone, m->zone_bytes),
                                    .next_ms = m->next_ms,
                                    .fired = m->fired};
    }
    return err;
}
