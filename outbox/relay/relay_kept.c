#include "outbox/relay/relay_kept.h"

#define KIND_FIRST      0xF0u /* No driver's blob begins so. */
#define KIND_CHECKPOINT 0xF1u
#define KIND_MARK       0xF2u
#define VERSION         1u
#define FLAG_AT_RISK    1u

_Static_assert(RELAY_KEPT_HEAD + SOURCE_BLOB_MAX <= RELAY_KEPT_MAX_BYTES,
               "the driver's and ours fit what a broker keeps");

void relay_kept_encode(const struct relay_kept *kept, struct relay_kept_blob *blob)
{
    uint8_t *p = blob->data;
    must(kept->deaths <= UINT8_MAX);
    must(kept->checkpoint.size <= SOURCE_BLOB_MAX);
    p[0] = KIND_CHECKPOINT;
    p[1] = VERSION;
    p[2] = kept->at_risk ? FLAG_AT_RISK : 0u;
    p[3] = (uint8_t)kept->deaths;
    put_le32(p + 4, kept->blamed);
    put_le32(p + 8, kept->rows);
    put_le64(p + 12, (uint64_t)kept->suspect);
    put_le64(p + 20, (uint64_t)kept->tried);
    put_le64(p + 28, kept->who);
    if (kept->checkpoint.size > 0) {
        memcpy(p + RELAY_KEPT_HEAD, kept->checkpoint.data, kept->checkpoint.size);
    }
    blob->size = RELAY_KEPT_HEAD + kept->checkpoint.size;
}

static enum ferry_err newer(struct bytes blob, const char *what, struct err_text *e)
{
    return err_set(e, FERRY_ERR_NEWER_FORMAT,
                   "the %s in the broker was written by a newer Ferry (%u, format %u): start that "
                   "one",
                   what, blob.data[0], blob.size < 2 ? 0u : blob.data[1]);
}

void relay_kept_mark_encode(int32_t partitions, struct bytes mark, struct relay_kept_blob *blob)
{
    must(partitions > 0);
    must(mark.size <= SOURCE_BLOB_MAX);
    blob->data[0] = KIND_MARK;
    blob->data[1] = VERSION;
    put_le16(blob->data + 2, 0);
    put_le32(blob->data + 4, (uint32_t)partitions);
    if (mark.size > 0) {
        memcpy(blob->data + RELAY_KEPT_MARK_HEAD, mark.data, mark.size);
    }
    blob->size = RELAY_KEPT_MARK_HEAD + mark.size;
}

enum ferry_err relay_kept_mark_decode(struct bytes blob, int32_t *partitions, struct bytes *mark,
                                      struct err_text *e)
{
    const uint8_t *p = blob.data;
    *partitions = 0;
    *mark = blob;
    if (blob.size == 0 || p[0] < KIND_FIRST) {
        return FERRY_OK;
    }
    if (p[0] != KIND_MARK || blob.size < 2 || p[1] > VERSION) {
        return newer(blob, "cursor", e);
    }
    uint32_t count = blob.size < RELAY_KEPT_MARK_HEAD ? 0 : get_le32(p + 4);
    if (p[1] != VERSION || count == 0 || count > INT32_MAX || get_le16(p + 2) != 0) {
        return err_set(e, FERRY_ERR_CORRUPT, "the cursor in the broker makes no sense");
    }
    *partitions = (int32_t)count;
    *mark = bytes_of(p + RELAY_KEPT_MARK_HEAD, blob.size - RELAY_KEPT_MARK_HEAD);
    return FERRY_OK;
}

enum ferry_err relay_kept_decode(struct bytes blob, struct relay_kept *kept, struct err_text *e)
{
    const uint8_t *p = blob.data;
    *kept = (struct relay_kept){.checkpoint = blob};
    if (blob.size == 0 || p[0] < KIND_FIRST) {
        return FERRY_OK;
    }
    if (p[0] != KIND_CHECKPOINT || blob.size < 2 || p[1] > VERSION) {
        return newer(blob, "checkpoint", e);
    }
    if (blob.size < RELAY_KEPT_HEAD || p[1] != VERSION || p[2] > FLAG_AT_RISK) {
        return err_set(e, FERRY_ERR_CORRUPT, "the checkpoint in the broker makes no sense");
    }
    kept->at_risk = p[2] != 0;
    kept->deaths = p[3];
    kept->blamed = get_le32(p + 4);
    kept->rows = get_le32(p + 8);
    kept->suspect = (int64_t)get_le64(p + 12);
    kept->tried = (int64_t)get_le64(p + 20);
    kept->who = get_le64(p + 28);
    kept->checkpoint = bytes_of(p + RELAY_KEPT_HEAD, blob.size - RELAY_KEPT_HEAD);
    return FERRY_OK;
}
