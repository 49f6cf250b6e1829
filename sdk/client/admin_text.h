/* admin_text: words of a broker on their way to a person. */
#ifndef FERRY_CLIENT_ADMIN_TEXT_H
#define FERRY_CLIENT_ADMIN_TEXT_H

#include "base/bytes.h"

/* Copies what fits, always terminated; a byte that is no printable ASCII becomes '?', so that no
 * broker writes to the terminal of whoever asks. */
static inline void admin_copy_text(char *to, size_t to_bytes, struct bytes text)
{
    size_t size = text.size < to_bytes - 1 ? text.size : to_bytes - 1;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = text.data[i];
        to[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    to[size] = '\0';
}

#endif
