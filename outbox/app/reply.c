/* ferry_reply: an answer that says what it answers. */
#include "outbox/app/db.h"

#define OWN_HEADERS 5u /* Correlation, causation, trace, saga, its type. */
#define TOPIC_BYTES 256u

struct reply {
    struct ferry_header items[FERRY_REPLY_HEADERS_MAX + OWN_HEADERS];
    size_t count;
    char cause_id[ID_TEXT_BYTES];
    char topic[TOPIC_BYTES];
};

/* The message's own headers go first. */
static bool has(const struct reply *r, const char *name)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->items[i].name != NULL && strcmp(r->items[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void add(struct reply *r, const char *name, const void *value, size_t value_bytes)
{
    if (!has(r, name)) {
        r->items[r->count++] = (struct ferry_header){name, value, value_bytes};
    }
}

static bool add_copy(struct reply *r, const struct ferry_record *cause, const char *name)
{
    const void *value = NULL;
    size_t value_bytes = 0;
    if (!ferry_record_header(cause, name, &value, &value_bytes)) {
        return false;
    }
    add(r, name, value, value_bytes);
    return true;
}

/* A conversation has the id of its first message, which is the cause when it names no other. */
static void add_identity(struct reply *r, const struct ferry_record *cause)
{
    bool has_id = !id_is_zero(&cause->id);
    if (has_id) {
        id_format(&cause->id, r->cause_id);
        add(r, FERRY_HEADER_CAUSATION, r->cause_id, strlen(r->cause_id));
    }
    if (!add_copy(r, cause, FERRY_HEADER_CORRELATION) && has_id) {
        add(r, FERRY_HEADER_CORRELATION, r->cause_id, strlen(r->cause_id));
    }
}

static bool reply_topic(struct reply *r, const struct ferry_record *cause)
{
    const void *value = NULL;
    size_t value_bytes = 0;
    if (!ferry_record_header(cause, FERRY_HEADER_REPLY_TO, &value, &value_bytes) ||
        value_bytes == 0 || value_bytes >= sizeof(r->topic) ||
        memchr(value, '\0', value_bytes) != NULL) {
        return false;
    }
    memcpy(r->topic, value, value_bytes);
    r->topic[value_bytes] = '\0';
    return true;
}

enum ferry_err ferry_reply(struct ferry_db *db, const struct ferry_record *cause,
                           const struct ferry_message *message, struct ferry_id *id)
{
    struct reply r = {.count = message->header_count};
    if (message->header_count > FERRY_REPLY_HEADERS_MAX ||
        (message->headers == NULL && message->header_count > 0)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "an answer has at most %d headers of its own", FERRY_REPLY_HEADERS_MAX);
    }
    if (message->topic == NULL && !reply_topic(&r, cause)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the answer has no topic, and the record has no header %s",
                       FERRY_HEADER_REPLY_TO);
    }
    if (r.count > 0) {
        memcpy(r.items, message->headers, r.count * sizeof(r.items[0]));
    }
    add_identity(&r, cause);
    (void)add_copy(&r, cause, FERRY_HEADER_TRACE);
    (void)add_copy(&r, cause, FERRY_HEADER_SAGA);
    (void)add_copy(&r, cause, FERRY_HEADER_SAGA_TYPE);
    struct ferry_message answer = *message;
    answer.topic = message->topic == NULL ? r.topic : message->topic;
    answer.headers = r.items;
    answer.header_count = r.count;
    return ferry_outbox_put(db, &answer, id);
}
