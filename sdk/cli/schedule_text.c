#include "cli/schedule_text.h"

#include <stdio.h>
#include <string.h>

#include "cli/format.h"

void schedule_format(const struct ferry_schedule_id *id, char text[SCHEDULE_TEXT_BYTES])
{
    (void)snprintf(text, SCHEDULE_TEXT_BYTES, "%d/%lld/%llu", id->partition, (long long)id->due_ms,
                   (unsigned long long)id->number);
}

bool schedule_parse(const char *text, struct ferry_schedule_id *id)
{
    int64_t parts[3];
    for (int i = 0; i < 3; i++) {
        char digits[FORMAT_TEXT_BYTES];
        size_t length = strcspn(text, "/");
        if (length >= sizeof(digits) || (text[length] == '/') != (i < 2)) {
            return false;
        }
        (void)snprintf(digits, sizeof(digits), "%.*s", (int)length, text);
        if (!format_parse_number(digits, &parts[i])) {
            return false;
        }
        text += length + (i < 2);
    }
    if (parts[0] > INT32_MAX) {
        return false;
    }
    *id = (struct ferry_schedule_id){
        .partition = (int32_t)parts[0], .due_ms = parts[1], .number = (uint64_t)parts[2]};
    return true;
}
