#include "cli/record_text.h"

#include <stdio.h>
#include <string.h>

#include "cli/format.h"

static json_t *headers_json(const struct ferry_record *record)
{
    json_t *object = output_object();
    const char *name;
    const void *value;
    size_t position = 0, name_bytes, value_bytes;
    char text[256];
    while (ferry_record_next_header(record, &position, &name, &name_bytes, &value, &value_bytes)) {
        if (name_bytes < sizeof(text)) {
            memcpy(text, name, name_bytes);
            text[name_bytes] = '\0';
            output_set_bytes(object, text, value_bytes > 0 ? value : "", value_bytes);
        }
    }
    return object;
}

json_t *record_json(const struct ferry_record *record)
{
    json_t *object = output_object();
    output_set_text(object, "topic", record->topic);
    output_set_int(object, "partition", record->partition);
    output_set_int(object, "offset", record->offset);
    output_set_bytes(object, "key", record->key, record->key_bytes);
    output_set_id(object, "id", &record->id);
    output_set_int(object, "timestamp", record->timestamp_ms);
    output_set_int(object, "append_time", record->append_time_ms);
    output_set(object, "headers", headers_json(record));
    output_set_bytes(object, "payload", record->payload_bytes > 0 ? record->payload : "",
                     record->payload_bytes);
    return object;
}

bool record_print_json(const struct ferry_record *record)
{
    return output_json(record_json(record));
}

static bool print_bytes(const void *data, size_t bytes)
{
    return bytes == 0 || fwrite_unlocked(data, bytes, 1, stdout) == 1;
}

bool record_print_payload(const struct ferry_record *record)
{
    return print_bytes(record->payload, record->payload_bytes) &&
           putc_unlocked('\n', stdout) != EOF;
}

bool record_print_place(const struct ferry_record *record)
{
    char time[FORMAT_TEXT_BYTES];
    format_time_ms(record->append_time_ms, time);
    bool printed = printf("%d/%lld\t%s\t", record->partition, (long long)record->offset, time) > 0;
    if (record->key != NULL) {
        printed = printed && print_bytes(record->key, record->key_bytes);
    } else {
        printed = printed && putc_unlocked('-', stdout) != EOF;
    }
    return printed && putc_unlocked('\t', stdout) != EOF && record_print_payload(record);
}
