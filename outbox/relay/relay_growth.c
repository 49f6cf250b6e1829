/* By how many partitions of its topic a row is placed, when topics grow.
 *
 * A row's partition is its key's by the number of partitions, and what was appended there is
 * covered by the mark of that partition only. So a relay that began with a new number would append
 * rows twice that an earlier one had placed by the old, and one that changed over at once would
 * have two rows of a key on their way to two partitions. Therefore the number is the relay's own,
 * not the broker's: each mark carries the number by which its rows were placed, and the greatest in
 * any mark of the topic is *in force*. Who is elected looks for it before it places the first row:
 * a mark with the broker's number ends the search, since numbers only grow. If there is none, an
 * append of an earlier relay may still be on its way to say otherwise: every partition is fenced
 * and looked at again.
 *
 * A greater number comes into force when everything that was handed out is settled, the source has
 * no more just then, the checkpoint says so, and what is published is deleted as far as the source
 * deletes: then no row that was placed by the old number is ever handed out again. Until a row was
 * appended by the new one a relay that takes over finds the old in force, and nothing behind the
 * checkpoint was placed by either. While a row waits for its topic or partition nothing changes. */
#include "base/log.h"
#include "outbox/relay/relay_state.h"

#define LOOKS_BY_STEP 32                 /* Questions to brokers; then the lease may be due. */
#define LOOK_US       (1000 * US_PER_MS) /* How often topics are asked whether they have grown. */

/* ---- What is in force. */

static enum ferry_err look(struct relay *r, struct relay_topic *topic, int32_t partition)
{
    struct ferry_cursor cursor = {0};
    struct err_text e = {{0}};
    struct bytes mark;
    int32_t partitions = 0;
    enum ferry_err err = FERRY_OK;
    if (topic->fencing && r->broker->fence != NULL) {
        err = r->broker->fence(r->broker->ctx, topic->name, partition, 0, relay_ask_ms(r));
        err = err == FERRY_ERR_UNKNOWN_COMMAND ? FERRY_OK : err; /* An older broker. */
    }
    if (err == FERRY_OK) {
        err = r->broker->cursor(r->broker->ctx, topic->name, partition, relay_ask_ms(r), &cursor);
    }
    if (err != FERRY_OK || cursor.version == 0) {
        return err;
    }
    err = relay_kept_mark_decode(bytes_of(cursor.blob, cursor.blob_bytes), &partitions, &mark, &e);
    if (err != FERRY_OK) {
        relay_halt(r, e.text);
        return err;
    }
    topic->found = partitions > topic->found ? partitions : topic->found;
    return FERRY_OK;
}

enum ferry_err relay_growth_find(struct relay *r, struct relay_topic *topic, int32_t now,
                                 int32_t *in_force)
{
    for (int i = 0; i < LOOKS_BY_STEP && topic->found < now; i++) {
        if (topic->looked >= now && topic->fencing) {
            break;
        }
        if (topic->looked >= now) {
            topic->fencing = true;
            topic->looked = 0;
        }
        enum ferry_err err = look(r, topic, topic->looked);
        /* Another partition may tell; if none does, this one is asked until it answers. */
        topic->looked += err == FERRY_OK || !topic->fencing;
        if (err == FERRY_ERR_SOURCE_FENCED) {
            r->stats.fenced++;
            r->elect_at_us = r->now_us;
            relay_lease_lost(r, RELAY_ELECTING);
        }
        r->silent = r->silent || err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_UNREACHABLE;
        if (err != FERRY_OK) {
            err_set(&r->error, err, "%s: asking by how many partitions it is placed: %s",
                    topic->name, ferry_err_text(err));
            return err;
        }
    }
    if (topic->found < now && !(topic->fencing && topic->looked >= now)) {
        return FERRY_ERR_NOT_READY; /* Goes on where it was. */
    }
    *in_force = topic->found > 0 && topic->found < now ? topic->found : now;
    relay_growth_forget(topic);
    return FERRY_OK;
}

void relay_growth_forget(struct relay_topic *topic)
{
    topic->found = 0;
    topic->looked = 0;
    topic->fencing = false;
}

void relay_growth_note(struct relay *r, struct relay_topic *topic, int32_t now)
{
    if (topic->grown == now) {
        return;
    }
    topic->grown = now;
    r->growing = true;
    log_line(LOG_INFO, "relay",
             "%s: topic %s has grown from %d to %d partitions: the new ones are used once "
             "everything before is settled",
             relay_name(r), topic->name, topic->partitions, now);
}

/* ---- Coming into force. */

static void ask_all(struct relay *r)
{
    r->growth_at_us = r->now_us + LOOK_US;
    for (size_t i = 0; i < r->topic_count; i++) {
        struct relay_topic *topic = r->topics[i];
        int32_t now = 0;
        if (topic->state != RELAY_TOPIC_KNOWN) {
            continue;
        }
        /* The client mostly knows. */
        enum ferry_err err =
            r->broker->partitions(r->broker->ctx, topic->name, relay_timeout_ms(r), &now);
        if (err == FERRY_OK && now > topic->partitions) {
            relay_growth_note(r, topic, now);
        } else if (err == FERRY_ERR_UNREACHABLE || err == FERRY_ERR_TIMEOUT) {
            return; /* Others would be waited for as long. */
        }
    }
}

static void put_in_force(struct relay *r)
{
    r->growing = false;
    r->settling = false;
    for (size_t i = 0; i < r->topic_count; i++) {
        struct relay_topic *topic = r->topics[i];
        if (topic->grown <= topic->partitions || topic->state != RELAY_TOPIC_KNOWN) {
            topic->grown = 0;
        } else if (relay_topic_place(r, topic, topic->grown)) {
            log_line(LOG_INFO, "relay", "%s: topic %s: rows are placed by %d partitions from here",
                     relay_name(r), topic->name, topic->partitions);
        } else {
            r->growing = true; /* No memory now. */
        }
    }
}

bool relay_growth_hold(struct relay *r)
{
    if (r->now_us >= r->growth_at_us) {
        ask_all(r);
    }
    r->settling = false;
    if (!r->growing || !r->caught_up || r->read_failed || r->blocked > 0) {
        return false;
    }
    if (r->inflight > 0 || r->queued > 0) {
        return true;
    }
    if (r->tidy_failed) {
        return false; /* Nothing can be deleted now: goes on as it was, and tries again. */
    }
    r->settling = true; /* Deletes are due. */
    if (!relay_checkpoint_write(r)) {
        r->settling = false;
        return false;
    }
    if (r->settled_at != r->read_pos) {
        return true; /* Until a deletion after this finds nothing more. */
    }
    put_in_force(r);
    return false;
}
