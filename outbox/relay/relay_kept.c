#include "outbox/relay/relay_kept.h"

#define KIND_FIRST      0xF0u /* No driver's blob begins so. */
#define KIND_CHECKPOINT 0xF1u
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

enum ferry_err relay_kept_decode(struct bytes blob, struct relay_kept *kept, struct err_text *e)
{
    const uint8_t *p = blob.data;
    *kept = (struct relay_kept){.checkpoint = blob};
    if (blob.size == 0 || p[0] < KIND_FIRST) {
        return FERRY_OK;
    }
    if (p[0] != KIND_CHECKPOINT || blob.size < 2 || p[1] > VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "the checkpoint in the broker was written by a newer Ferry (%u, format %u): "
                       "start that one",
                       p[0], blob.size < 2 ? 0u : p[1]);
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
