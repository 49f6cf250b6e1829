/* pq_params: binary parameters of a statement, and binary values of a result's first row.
 * Parameters point to the caller's bytes; numbers are kept here. */
#ifndef FERRY_OUTBOX_PQ_PARAMS_H
#define FERRY_OUTBOX_PQ_PARAMS_H

#include "base/bytes.h"
#include "base/id.h"

#define PQ_PARAMS_MAX 12

/* Zeroed: none. */
struct pq_params {
    int count;
    const char *values[PQ_PARAMS_MAX];
    int sizes[PQ_PARAMS_MAX];
    int formats[PQ_PARAMS_MAX]; /* All 1: binary. */
    uint8_t numbers[PQ_PARAMS_MAX][8];
};

void pq_add_bytes(struct pq_params *p, const void *data, size_t size);
void pq_add_null(struct pq_params *p);
void pq_add_optional(struct pq_params *p, bool has, struct bytes value); /* Else NULL. */
void pq_add_text(struct pq_params *p, const char *text);
void pq_add_id(struct pq_params *p, const struct ferry_id *id); /* A uuid. */
void pq_add_i32(struct pq_params *p, int32_t value);
void pq_add_i64(struct pq_params *p, int64_t value);

void pq_put_be(uint8_t *out, uint64_t value, size_t bytes); /* In the order of the network. */

struct pg_result;
int64_t pq_get_number(const struct pg_result *result, int column); /* Of any integer type. */
struct bytes pq_get_bytes(const struct pg_result *result, int column);
void pq_get_id(const struct pg_result *result, int column, struct ferry_id *id);

#endif
