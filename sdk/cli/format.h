/* format: numbers for people, both ways, and text encodings.
 *
 * No I/O, no allocation, no clock: "now" is an argument. All text goes to the caller's array, which
 * FORMAT_TEXT_BYTES is long enough for. */
#ifndef FERRY_CLI_FORMAT_H
#define FERRY_CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/must.h"

#define FORMAT_TEXT_BYTES 40

void format_count(int64_t n, char text[FORMAT_TEXT_BYTES]);         /* 1,234,567 */
void format_size(int64_t bytes, char text[FORMAT_TEXT_BYTES]);      /* 999 B, 1.50 MiB */
void format_duration_us(int64_t us, char text[FORMAT_TEXT_BYTES]);  /* 350 us, 1.25 ms, 2 h 5 min */
void format_time_ms(int64_t unix_ms, char text[FORMAT_TEXT_BYTES]); /* 2026-01-02T03:04:05.678Z */

/* Each returns false when the text is not of the form or the number does not fit. */
MUST_CHECK bool format_parse_number(const char *text, int64_t *n); /* 42; no sign, no blanks */
MUST_CHECK bool format_parse_duration_ms(const char *text, int64_t *ms); /* 250, 250ms, 5s, 10m … */
MUST_CHECK bool format_parse_size(const char *text, int64_t *bytes);     /* 4096, 64K, 1M, 2GiB */
/* RFC 3339 with Z or an offset, or an age such as 10m or -10m counted back from `now_ms`. */
MUST_CHECK bool format_parse_time_ms(const char *text, int64_t now_ms, int64_t *unix_ms);

/* How many single-character edits part the two words; at most `limit` + 1. For "did you mean". */
#define FORMAT_WORD_MAX 40
size_t format_distance(const char *a, const char *b, size_t limit);

/* Base64 (RFC 4648, padded). `text` has format_base64_bytes(bytes) room, the NUL included. */
size_t format_base64_bytes(size_t bytes);
void format_base64(const void *data, size_t bytes, char *text);

#endif
