#include "wire/frame.h"

#include <inttypes.h>

#include "base/checksum.h"

enum offset {
    AT_MAGIC = 0,
    AT_VERSION = 2,
    AT_KIND = 3,
    AT_COMMAND = 4,
    AT_STATUS = 6,
    AT_REQUEST_ID = 8,
    AT_BODY_BYTES = 16,
    AT_ATTACHMENT_BYTES = 20,
    AT_TIMEOUT = 24,
    AT_CHECKSUM = 28,
};
_Static_assert(AT_CHECKSUM + 4 == FRAME_HEADER_BYTES, "the checksum ends the header");

/* In a frame that is being built: the body has not ended. No body can be so long. */
#define BODY_OPEN UINT32_MAX
_Static_assert(FRAME_BODY_MAX_BYTES < BODY_OPEN, "BODY_OPEN is no size");

static uint32_t frame_checksum(const uint8_t *frame, size_t body_bytes)
{
    return (uint32_t)checksum_of_two(frame, AT_CHECKSUM, frame + FRAME_HEADER_BYTES, body_bytes);
}

/* The fields whose place is the same in every version of the protocol. */
static void read_prefix(const uint8_t *at, struct frame *f)
{
    f->version = at[AT_VERSION];
    f->kind = at[AT_KIND];
    f->command = get_le16(at + AT_COMMAND);
    f->status = get_le16(at + AT_STATUS);
    f->request_id = get_le64(at + AT_REQUEST_ID);
}

static enum ferry_err check_sizes(struct bytes message, struct err_text *e)
{
    uint32_t body = get_le32(message.data + AT_BODY_BYTES);
    uint32_t attachment = get_le32(message.data + AT_ATTACHMENT_BYTES);
    if (message.size > FRAME_MAX_BYTES || body > FRAME_BODY_MAX_BYTES) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "a frame of %zu bytes with a body of %" PRIu32
                       " is too large: at most %u, the body %u; send smaller batches",
                       message.size, body, FRAME_MAX_BYTES, FRAME_BODY_MAX_BYTES);
    }
    if ((uint64_t)FRAME_HEADER_BYTES + body + attachment != message.size) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "a frame says %u + %" PRIu32 " + %" PRIu32
                       " bytes and has %zu: the sender is at fault",
                       FRAME_HEADER_BYTES, body, attachment, message.size);
    }
    return FERRY_OK;
}

static enum ferry_err check_kind(const struct frame *f, struct err_text *e)
{
    if (f->kind != FRAME_REQUEST && f->kind != FRAME_REPLY) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "a frame of kind %u: 1 is a request, 2 a reply; the sender is at fault",
                       f->kind);
    }
    if (f->kind == FRAME_REQUEST && f->status != 0) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "a request with status %u, which only replies have: the sender is at fault",
                       f->status);
    }
    return FERRY_OK;
}

enum ferry_err frame_parse(struct bytes message, struct frame *f, struct err_text *e)
{
    *f = (struct frame){.version = 0};
    if (message.size < FRAME_HEADER_BYTES || get_le16(message.data + AT_MAGIC) != FRAME_MAGIC) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "%zu bytes that are no Ferry frame: does the other side speak Ferry?",
                       message.size);
    }
    read_prefix(message.data, f);
    if (f->version != FRAME_VERSION) {
        return err_set(
            e, FERRY_ERR_BAD_VERSION,
            "a frame of protocol version %u, this side speaks %u: upgrade the older side",
            f->version, FRAME_VERSION);
    }
    enum ferry_err err = check_sizes(message, e);
    if (err == FERRY_OK) {
        err = check_kind(f, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    uint32_t body_bytes = get_le32(message.data + AT_BODY_BYTES);
    if (get_le32(message.data + AT_CHECKSUM) != frame_checksum(message.data, body_bytes)) {
        return err_set(e, FERRY_ERR_BAD_CHECKSUM,
                       "a frame of %zu bytes was changed on the way: send it again", message.size);
    }
    f->timeout_ms = get_le32(message.data + AT_TIMEOUT);
    f->body = bytes_of(message.data + FRAME_HEADER_BYTES, body_bytes);
    f->attachment =
        bytes_of(f->body.data + body_bytes, message.size - FRAME_HEADER_BYTES - body_bytes);
    return FERRY_OK;
}

static void begin(struct buf *b, const struct frame *f)
{
    must(b->size == 0);
    uint8_t *at = buf_extend(b, FRAME_HEADER_BYTES);
    if (at == NULL) {
        return;
    }
    memset(at, 0, FRAME_HEADER_BYTES);
    put_le16(at + AT_MAGIC, FRAME_MAGIC);
    at[AT_VERSION] = FRAME_VERSION;
    at[AT_KIND] = f->kind;
    put_le16(at + AT_COMMAND, f->command);
    put_le16(at + AT_STATUS, f->status);
    put_le64(at + AT_REQUEST_ID, f->request_id);
    put_le32(at + AT_BODY_BYTES, BODY_OPEN);
    put_le32(at + AT_TIMEOUT, f->timeout_ms);
}

void frame_begin_request(struct buf *b, uint16_t command, uint64_t request_id, uint32_t timeout_ms)
{
    begin(b, &(struct frame){.kind = FRAME_REQUEST,
                             .command = command,
                             .request_id = request_id,
                             .timeout_ms = timeout_ms});
}

void frame_begin_reply(struct buf *b, uint16_t command, uint64_t request_id, enum ferry_err status)
{
    begin(b, &(struct frame){.kind = FRAME_REPLY,
                             .command = command,
                             .request_id = request_id,
                             .status = (uint16_t)status});
}

void frame_begin_attachment(struct buf *b)
{
    if (!buf_ok(b)) {
        return;
    }
    must(b->size >= FRAME_HEADER_BYTES);
    must(get_le32(b->data + AT_BODY_BYTES) == BODY_OPEN);
    size_t body = b->size - FRAME_HEADER_BYTES;
    if (body > FRAME_BODY_MAX_BYTES) {
        b->failed = true;
        return;
    }
    put_le32(b->data + AT_BODY_BYTES, (uint32_t)body);
}

bool frame_end(struct buf *b)
{
    if (buf_ok(b) && get_le32(b->data + AT_BODY_BYTES) == BODY_OPEN) {
        frame_begin_attachment(b);
    }
    if (!buf_ok(b) || b->size > FRAME_MAX_BYTES) {
        return false;
    }
    uint32_t body = get_le32(b->data + AT_BODY_BYTES);
    put_le32(b->data + AT_ATTACHMENT_BYTES, (uint32_t)(b->size - FRAME_HEADER_BYTES - body));
    put_le32(b->data + AT_CHECKSUM, frame_checksum(b->data, body));
    return true;
}
