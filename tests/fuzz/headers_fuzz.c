/* A record's headers, as another program's row or record brings them: walking ends, stays inside,
 * and of a blob that passed the check it gives every pair. */
#include "wire/batch.h"
#include "wire/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes headers = bytes_of(data, size);
    struct bytes name, value;
    size_t position = 0;
    size_t pairs = 0;
    while (batch_next_header(headers, &position, &name, &value)) {
        must(position <= size);
        must(name.data > data && name.size > 0);
        must(value.data + value.size == data + position);
        pairs++;
    }
    if (batch_check_headers(headers) == FERRY_OK && size > 0) {
        struct token map;
        must(token_next(&headers, &map) && map.kind == TOKEN_MAP);
        must(pairs == map.values / 2);
        must(pairs == 0 || position == size);
    }
    return 0;
}
