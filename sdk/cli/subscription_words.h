/* subscription_words: the modes of subscriptions as words. */
#ifndef FERRY_CLI_SUBSCRIPTION_WORDS_H
#define FERRY_CLI_SUBSCRIPTION_WORDS_H

#include <stdbool.h>
#include <string.h>

#include "ferry.h"

#define SUBSCRIPTION_MODE_FORMS "--mode takes stream, queue or keyed"

static inline bool subscription_parse_mode(const char *text, enum ferry_mode *mode)
{
    static const char *const names[] = {
        [FERRY_MODE_STREAM] = "stream", [FERRY_MODE_QUEUE] = "queue", [FERRY_MODE_KEYED] = "keyed"};
    for (int i = FERRY_MODE_STREAM; i <= FERRY_MODE_KEYED; i++) {
        if (strcmp(text, names[i]) == 0) {
            *mode = (enum ferry_mode)i;
            return true;
        }
    }
    return false;
}

#endif
