/* frame: the envelope of every request and reply. One ZeroMQ message part is one frame.
 *
 * Does no I/O and keeps no state. All integers little-endian:
 *
 *   0  u16 magic 0x5946 ("FY")
 *   2  u8  version, FRAME_VERSION
 *   3  u8  kind: 1 request, 2 reply
 *   4  u16 command (command.h)
 *   6  u16 status: 0 in a request; in a reply 0 or a FERRY_ERR number
 *   8  u64 request id, chosen by the requester, repeated in the reply
 *  16  u32 body_bytes: one msgpack array
 *  20  u32 attachment_bytes: record batches, or fetch entries
 *  24  u32 timeout_ms: how long the requester waits (request), 0 (reply)
 *  28  u32 checksum: low 32 bits of XXH3-64 over bytes 0..27 followed by the body. Attachments
 *          carry checksums of their own.
 *  32  body, then attachment; the frame ends where they end.
 *
 * Invariants: (1) 32 + body_bytes + attachment_bytes is exactly the size of the message part;
 * (2) no field is looked at before magic, version and sizes have been checked. */
#ifndef FERRY_WIRE_FRAME_H
#define FERRY_WIRE_FRAME_H

#include "base/buf.h"
#include "base/err.h"

#define FRAME_MAGIC          0x5946u
#define FRAME_VERSION        1u
#define FRAME_HEADER_BYTES   32u
#define FRAME_BODY_MAX_BYTES (512u << 10)
#define FRAME_MAX_BYTES      (18u << 20) /* Header, body and the largest attachment. */

enum frame_kind { FRAME_REQUEST = 1, FRAME_REPLY = 2 };

struct frame {
    uint8_t version;
    uint8_t kind;
    uint16_t command;
    uint16_t status;
    uint64_t request_id;
    uint32_t timeout_ms;
    struct bytes body;       /* Borrowed from the message. */
    struct bytes attachment; /* Borrowed from the message. */
};

/* Checks and splits a message part. On BAD_VERSION the request id and command are filled in, so
 * that the reply can say so. Errors: BAD_FRAME, BAD_VERSION, BAD_CHECKSUM, each with a detail. */
MUST_CHECK enum ferry_err frame_parse(struct bytes message, struct frame *f, struct err_text *e);

/* Building: frame_begin, then the body's encoder, then frame_begin_attachment and the attachment
 * (if there is one), then frame_end. `b` starts empty. frame_end fills in sizes and checksum and
 * returns false when something did not fit (buf_ok). */
void frame_begin_request(struct buf *b, uint16_t command, uint64_t request_id, uint32_t timeout_ms);
void frame_begin_reply(struct buf *b, uint16_t command, uint64_t request_id, enum ferry_err status);
void frame_begin_attachment(struct buf *b);
MUST_CHECK bool frame_end(struct buf *b);

#endif
