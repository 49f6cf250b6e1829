/* record_text: a record on standard output: its payload and a newline, or a JSON object. */
#ifndef FERRY_CLI_RECORD_TEXT_H
#define FERRY_CLI_RECORD_TEXT_H

#include "cli/output.h"
#include "ferry.h"

/* Topic, partition, offset, key, id, timestamp, append_time, headers and payload. */
json_t *record_json(const struct ferry_record *record);
/* Each returns false when it could not be printed. */
bool record_print_json(const struct ferry_record *record);
bool record_print_payload(const struct ferry_record *record);
/* partition/offset, the time it was stored, key and payload, parted by tabs. */
bool record_print_place(const struct ferry_record *record);

#endif
