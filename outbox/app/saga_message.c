/* The headers of a saga's messages: written, and read of records that anybody may have made. */
#include <stdio.h>

#include "base/mem.h"
#include "outbox/app/saga.h"
#include "wire/command.h"

#define NUMBER_BYTES 24
#define HEADERS_MAX  16

static const char *const op_names[SAGA_OP_COUNT] = {
    [SAGA_DO] = "do",         [SAGA_UNDO] = "undo",       [SAGA_DONE] = "done",
    [SAGA_UNDONE] = "undone", [SAGA_REFUSED] = "refused", [SAGA_UNDO_REFUSED] = "undo-refused",
    [SAGA_TIMER] = "timer",   [SAGA_END] = "end",
};

const char *ferry_saga_state_name(enum ferry_saga_state state)
{
    switch (state) {
    case FERRY_SAGA_RUNNING:
        return "running";
    case FERRY_SAGA_COMPENSATING:
        return "compensating";
    case FERRY_SAGA_DONE:
        return "done";
    case FERRY_SAGA_COMPENSATED:
        return "compensated";
    case FERRY_SAGA_STUCK:
        return "stuck";
    case FERRY_SAGA_ABORTED:
        return "aborted";
    }
    return "unknown";
}

/* ---- Reading --------------------------------------------------------------------------------- */

static struct bytes header_of(const struct ferry_record *record, const char *name)
{
    const void *value = NULL;
    size_t size = 0;
    return ferry_record_header(record, name, &value, &size) ? bytes_of(value, size)
                                                            : bytes_of(NULL, 0);
}

static bool text_of(struct bytes from, char *to, size_t to_bytes)
{
    if (from.size == 0 || from.size >= to_bytes) {
        return false;
    }
    memcpy(to, from.data, from.size);
    to[from.size] = '\0';
    return true;
}

/* A missing number is 0. */
static bool number_of(struct bytes text, int64_t max, int64_t *number)
{
    int64_t value = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || value > (INT64_MAX - 9) / 10) {
            return false;
        }
        value = value * 10 + (text.data[i] - '0');
    }
    *number = value;
    return value <= max;
}

static bool op_of(struct bytes text, enum saga_op *op)
{
    for (int i = 0; i < SAGA_OP_COUNT; i++) {
        if (bytes_equal(text, bytes_of_string(op_names[i]))) {
            *op = (enum saga_op)i;
            return true;
        }
    }
    return false;
}

static enum ferry_saga_state outcome_of(struct bytes text)
{
    static const enum ferry_saga_state outcomes[] = {FERRY_SAGA_DONE, FERRY_SAGA_COMPENSATED,
                                                     FERRY_SAGA_STUCK};
    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++) {
        if (bytes_equal(text, bytes_of_string(ferry_saga_state_name(outcomes[i])))) {
            return outcomes[i];
        }
    }
    return 0;
}

static bool id_of(const struct ferry_record *record, struct ferry_id *id)
{
    char text[ID_TEXT_BYTES];
    return text_of(header_of(record, FERRY_HEADER_SAGA), text, sizeof(text)) &&
           id_parse(text, id) && !id_is_zero(id);
}

bool saga_note_read(const struct ferry_record *record, struct saga_note *note)
{
    int64_t step = 0;
    *note = (struct saga_note){.reason = header_of(record, FERRY_HEADER_SAGA_REASON),
                               .slip = header_of(record, FERRY_HEADER_SAGA_SLIP)};
    bool good =
        id_of(record, &note->saga) &&
        text_of(header_of(record, FERRY_HEADER_SAGA_TYPE), note->type, sizeof(note->type)) &&
        name_is_valid(bytes_of_string(note->type)) &&
        op_of(header_of(record, FERRY_HEADER_SAGA_OP), &note->op) &&
        number_of(header_of(record, FERRY_HEADER_SAGA_STEP), FERRY_SAGA_STEPS_MAX - 1, &step) &&
        number_of(header_of(record, FERRY_HEADER_SAGA_ATTEMPT), SAGA_ATTEMPTS_MAX,
                  &note->attempt) &&
        number_of(header_of(record, FERRY_HEADER_SAGA_VERSION), INT64_MAX, &note->version);
    if (!good) {
        return false;
    }
    note->step = (int32_t)step;
    note->outcome = outcome_of(header_of(record, FERRY_HEADER_SAGA_OUTCOME));
    (void)text_of(header_of(record, FERRY_HEADER_REPLY_TO), note->reply_to, sizeof(note->reply_to));
    note->choreographed = note->slip.size > 0;
    return !note->choreographed || saga_slip_count(note->slip) > (uint32_t)step;
}

bool ferry_saga_of(const struct ferry_record *record, struct ferry_id *saga)
{
    struct saga_note note;
    if (!saga_note_read(record, &note)) {
        return false;
    }
    *saga = note.saga;
    return true;
}

bool ferry_saga_command_of(const struct ferry_record *record, struct ferry_saga_command *command)
{
    struct saga_note note;
    if (!saga_note_read(record, &note) || (note.op != SAGA_DO && note.op != SAGA_UNDO)) {
        return false;
    }
    *command = (struct ferry_saga_command){
        .saga = note.saga, .step = note.step, .undo = note.op == SAGA_UNDO};
    memcpy(command->type, note.type, sizeof(note.type));
    return true;
}

/* ---- Writing --------------------------------------------------------------------------------- */

struct headers {
    struct ferry_header items[HEADERS_MAX];
    size_t count;
    char saga[ID_TEXT_BYTES], cause[ID_TEXT_BYTES];
    char step[NUMBER_BYTES], attempt[NUMBER_BYTES], version[NUMBER_BYTES];
};

static void add(struct headers *h, const char *name, struct bytes value)
{
    must(h->count < HEADERS_MAX);
    h->items[h->count++] = (struct ferry_header){name, value.data, value.size};
}

static void add_text(struct headers *h, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0') {
        add(h, name, bytes_of_string(value));
    }
}

static void add_number(struct headers *h, const char *name, int64_t value, char text[NUMBER_BYTES])
{
    (void)snprintf(text, NUMBER_BYTES, "%lld", (long long)value);
    add(h, name, bytes_of_string(text));
}

static void add_cause(struct headers *h, const struct ferry_record *cause)
{
    if (cause == NULL) {
        return;
    }
    if (!id_is_zero(&cause->id)) {
        id_format(&cause->id, h->cause);
        add_text(h, FERRY_HEADER_CAUSATION, h->cause);
    }
    struct bytes trace = header_of(cause, FERRY_HEADER_TRACE);
    if (trace.size > 0) {
        add(h, FERRY_HEADER_TRACE, trace);
    }
}

static void fill_headers(struct headers *h, const struct saga_out *out)
{
    id_format(out->saga, h->saga);
    add_text(h, FERRY_HEADER_SAGA, h->saga);
    add_text(h, FERRY_HEADER_SAGA_TYPE, out->type);
    add_number(h, FERRY_HEADER_SAGA_STEP, out->step, h->step);
    add_text(h, FERRY_HEADER_SAGA_OP, op_names[out->op]);
    if (out->attempt > 0) {
        add_number(h, FERRY_HEADER_SAGA_ATTEMPT, out->attempt, h->attempt);
    }
    if (out->op == SAGA_TIMER) {
        add_number(h, FERRY_HEADER_SAGA_VERSION, out->version, h->version);
    }
    if (out->outcome != 0) {
        add_text(h, FERRY_HEADER_SAGA_OUTCOME, ferry_saga_state_name(out->outcome));
    }
    add_text(h, FERRY_HEADER_SAGA_REASON, out->reason);
    add_text(h, FERRY_HEADER_REPLY_TO, out->reply_to);
    if (out->slip.size > 0) {
        add(h, FERRY_HEADER_SAGA_SLIP, out->slip);
    }
    add_text(h, FERRY_HEADER_CORRELATION, h->saga); /* The conversation is the saga. */
    add_cause(h, out->cause);
}

enum ferry_err saga_put(struct ferry_db *db, const struct saga_out *out)
{
    struct headers h = {.count = 0};
    fill_headers(&h, out);
    const struct ferry_message message = {
        .topic = out->topic,
        .key = out->key.size > 0 ? out->key.data : NULL,
        .key_bytes = out->key.size,
        .payload = out->payload.data,
        .payload_bytes = out->payload.size,
        .headers = h.items,
        .header_count = h.count,
        .due_ms = out->due_ms,
    };
    return ferry_outbox_put(db, &message, NULL);
}
