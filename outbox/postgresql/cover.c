#include "outbox/postgresql/cover.h"

#define FORMAT      1u
#define FLAG_UPPER  1u
#define FLAG_LAST   2u
#define FIXED_BYTES 60u

/* An upper is coded against the base: a bit for each that the base lists, and its own as alone. */
_Static_assert(FIXED_BYTES + 2 * SNAPSHOT_BYTES_MAX + SNAPSHOT_XIPS_MAX / 8 + 16 <= SOURCE_BLOB_MAX,
               "two snapshots fit a blob");

void cover_fini(struct cover *c)
{
    snapshot_release(&c->base);
    snapshot_release(&c->upper);
}

void cover_set(struct cover *c, struct snapshot *base, struct snapshot *upper, int64_t seq_hi)
{
    must(base != NULL);
    snapshot_set(&c->base, base);
    snapshot_set(&c->upper, upper);
    c->seq_hi = upper == NULL ? COVER_SEQ_NONE : seq_hi;
}

bool cover_has(const struct cover *c, uint64_t xid, int64_t seq)
{
    return snapshot_sees(c->base, xid) ||
           (c->upper != NULL && seq <= c->seq_hi && snapshot_sees(c->upper, xid));
}

void cover_raise(struct cover *c, const struct cover *settled)
{
    if (c->upper != NULL && snapshot_covers(settled->base, c->upper)) {
        snapshot_release(&c->upper);
        c->seq_hi = COVER_SEQ_NONE;
    }
    if (snapshot_covers(settled->base, c->base)) {
        snapshot_set(&c->base, settled->base);
    }
    if (c->upper != NULL && settled->upper != NULL && settled->seq_hi > c->seq_hi &&
        snapshot_equal(c->upper, settled->upper)) {
        c->seq_hi = settled->seq_hi;
    }
}

void cover_encode(const struct cover *c, const struct cover_place *place, struct source_blob *blob)
{
    uint8_t fixed[FIXED_BYTES] = {FORMAT};
    fixed[1] = (uint8_t)((c->upper != NULL ? FLAG_UPPER : 0u) | (place->has_last ? FLAG_LAST : 0u));
    put_le32(fixed + 4, place->timeline);
    put_le64(fixed + 8, place->system);
    put_le64(fixed + 16, place->lsn);
    if (place->has_last) {
        put_le64(fixed + 24, (uint64_t)place->last_seq);
        memcpy(fixed + 32, place->last_id.bytes, sizeof(place->last_id.bytes));
    }
    put_le64(fixed + 48, (uint64_t)(c->upper != NULL ? c->seq_hi : 0));
    put_le32(fixed + 56, place->database);
    struct buf out;
    buf_init(&out, sizeof(blob->data));
    buf_append(&out, fixed, sizeof(fixed));
    snapshot_encode(c->base, &out);
    if (c->upper != NULL) {
        snapshot_encode_step(c->base, c->upper, &out);
    }
    blob->size = 0;
    if (buf_ok(&out)) {
        memcpy(blob->data, out.data, out.size);
        blob->size = out.size;
    }
    buf_fini(&out);
}

static enum ferry_err decode_snapshots(struct bytes in, bool has_upper, struct snapshot **base,
                                       struct snapshot **upper)
{
    enum ferry_err err = snapshot_decode(&in, base);
    if (err == FERRY_OK && has_upper) {
        err = snapshot_decode_step(*base, &in, upper);
    }
    if (err == FERRY_OK && in.size > 0) {
        err = FERRY_ERR_CORRUPT;
    }
    return err;
}

enum ferry_err cover_decode(struct bytes blob, struct cover *c, struct cover_place *place,
                            struct err_text *e)
{
    const uint8_t *p = blob.data;
    if (blob.size > 0 && p[0] > FORMAT) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "a cursor of this source was written by a newer Ferry (format %u): start "
                       "that one",
                       p[0]);
    }
    if (blob.size <= FIXED_BYTES || p[0] != FORMAT || p[1] > (FLAG_UPPER | FLAG_LAST) ||
        get_le16(p + 2) != 0) {
        return err_set(e, FERRY_ERR_CORRUPT, "a cursor of this source is damaged");
    }
    struct snapshot *base = NULL;
    struct snapshot *upper = NULL;
    bool has_upper = (p[1] & FLAG_UPPER) != 0;
    enum ferry_err err = decode_snapshots(bytes_of(p + FIXED_BYTES, blob.size - FIXED_BYTES),
                                          has_upper, &base, &upper);
    if (err == FERRY_OK) {
        *place = (struct cover_place){.timeline = get_le32(p + 4),
                                      .database = get_le32(p + 56),
                                      .system = get_le64(p + 8),
                                      .lsn = get_le64(p + 16),
                                      .has_last = (p[1] & FLAG_LAST) != 0,
                                      .last_seq = (int64_t)get_le64(p + 24)};
        memcpy(place->last_id.bytes, p + 32, sizeof(place->last_id.bytes));
        cover_set(c, base, upper, (int64_t)get_le64(p + 48));
    } else {
        err_set(e, err,
                err == FERRY_ERR_CORRUPT ? "a cursor of this source is damaged" : "out of memory");
    }
    snapshot_release(&base);
    snapshot_release(&upper);
    return err;
}
