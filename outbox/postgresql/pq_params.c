#include "outbox/postgresql/pq_params.h"

#include <libpq-fe.h>
#include <string.h>

#include "base/must.h"

void pq_add_bytes(struct pq_params *p, const void *data, size_t size)
{
    must(p->count < PQ_PARAMS_MAX);
    p->values[p->count] = size == 0 ? "" : data;
    p->sizes[p->count] = (int)size;
    p->formats[p->count] = 1;
    p->count++;
}

void pq_add_null(struct pq_params *p)
{
    pq_add_bytes(p, "", 0);
    p->values[p->count - 1] = NULL;
}

void pq_add_text(struct pq_params *p, const char *text)
{
    pq_add_bytes(p, text, strlen(text));
}

void pq_add_id(struct pq_params *p, const struct ferry_id *id)
{
    pq_add_bytes(p, id->bytes, sizeof(id->bytes));
}

void pq_put_be(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    }
}

static void add_number(struct pq_params *p, int64_t value, size_t bytes)
{
    must(p->count < PQ_PARAMS_MAX);
    uint8_t *at = p->numbers[p->count];
    pq_put_be(at, (uint64_t)value, bytes);
    pq_add_bytes(p, at, bytes);
}

void pq_add_i32(struct pq_params *p, int32_t value)
{
    add_number(p, value, 4);
}

void pq_add_i64(struct pq_params *p, int64_t value)
{
    add_number(p, value, 8);
}

int64_t pq_get_number(const PGresult *result, int column)
{
    const uint8_t *at = (const uint8_t *)PQgetvalue(result, 0, column);
    int bytes = PQgetlength(result, 0, column);
    uint64_t value = bytes > 0 && (at[0] & 0x80) != 0 ? UINT64_MAX : 0;
    for (int i = 0; i < bytes && i < 8; i++) {
        value = value << 8 | at[i];
    }
    return (int64_t)value;
}

struct bytes pq_get_bytes(const PGresult *result, int column)
{
    return bytes_of(PQgetvalue(result, 0, column), (size_t)PQgetlength(result, 0, column));
}

void pq_get_id(const PGresult *result, int column, struct ferry_id *id)
{
    if (PQgetlength(result, 0, column) == (int)sizeof(id->bytes)) {
        memcpy(id->bytes, PQgetvalue(result, 0, column), sizeof(id->bytes));
    }
}

void pq_add_optional(struct pq_params *p, bool has, struct bytes value)
{
    if (has) {
        pq_add_bytes(p, value.data, value.size);
    } else {
        pq_add_null(p);
    }
}
