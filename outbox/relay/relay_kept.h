/* relay_kept: what the relay keeps in the brokers around what the driver says: in the checkpoint,
 * how the times in office since then have ended; in a mark, by how many partitions of the topic
 * rows were placed. Pure.
 *
 * Layout of a mark, little-endian: 0 u8 0xF2, 1 u8 version (1), 2 u16 zero, 4 u32 partitions, 8 the
 * driver's blob. Layout of a checkpoint, little-endian: 0 u8 0xF1, 1 u8 version (1), 2 u8 flags (1:
 * at risk), 3 u8 deaths, 4 u32 blamed, 8 u32 rows, 12 u64 suspect, 20 u64 tried, 28 u64 who, 36 the
 * driver's checkpoint. A checkpoint that begins with a lesser byte than 0xF0 is the driver's alone:
 * of a relay that ended well, or of one that knew nothing of this. A relay of before takes 0xF1 for
 * the format of a newer one and says so. To change the layout: another version, and reading this
 * one stays. */
#ifndef FERRY_OUTBOX_RELAY_RELAY_KEPT_H
#define FERRY_OUTBOX_RELAY_RELAY_KEPT_H

#include "outbox/relay/source.h"

#define RELAY_KEPT_HEAD      36u
#define RELAY_KEPT_MARK_HEAD 8u
#define RELAY_KEPT_MAX_BYTES FERRY_CURSOR_MAX_BYTES

struct relay_kept {
    bool at_risk;    /* If `who` ended without another word, it died of what it had in hand. */
    uint32_t deaths; /* Before this: here, or of `suspect` when `rows` is 1. At most 255. */
    uint32_t blamed; /* Rows set aside one after another because they ended the relay. */
    uint32_t rows;   /* So many are taken in hand at a time, with a checkpoint after each; 0: as
                        many as there are, which is the ordinary way. */
    int64_t suspect; /* Number of the row that may end the process; 0: none. */
    int64_t tried;   /* When at risk and `rows` is 1: the row in hand; else 0. */
    uint64_t who;    /* The relay that wrote it: a random number of this start. */
    struct bytes checkpoint; /* The driver's. */
};

struct relay_kept_blob {
    size_t size;
    uint8_t data[RELAY_KEPT_MAX_BYTES];
};

void relay_kept_encode(const struct relay_kept *kept, struct relay_kept_blob *blob);
/* kept->checkpoint points into `blob`. Errors, with a detail: NEWER_FORMAT, CORRUPT. */
MUST_CHECK enum ferry_err relay_kept_decode(struct bytes blob, struct relay_kept *kept,
                                            struct err_text *e);

void relay_kept_mark_encode(int32_t partitions, struct bytes mark, struct relay_kept_blob *blob);
/* *mark points into `blob`. *partitions 0: not known, of a relay of before. Errors, with a detail:
 * NEWER_FORMAT, CORRUPT. */
MUST_CHECK enum ferry_err relay_kept_mark_decode(struct bytes blob, int32_t *partitions,
                                                 struct bytes *mark, struct err_text *e);

#endif
