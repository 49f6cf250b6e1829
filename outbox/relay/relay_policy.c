#include "outbox/relay/relay_policy.h"

#include <string.h>

#define SPACES " \t"

static bool policy_parse(const char *text, size_t bytes, enum relay_poison *policy)
{
    static const char *const names[] = {
        [RELAY_POISON_DEAD] = "dead",
        [RELAY_POISON_PARK_KEY] = "park_key",
        [RELAY_POISON_BLOCK] = "block",
        [RELAY_POISON_CALLBACK] = "callback",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == bytes && memcmp(names[i], text, bytes) == 0) {
            *policy = (enum relay_poison)i;
            return true;
        }
    }
    return false;
}

/* One "topic=policy" of the list. */
struct pair {
    const char *topic;
    size_t topic_bytes;
    enum relay_poison policy;
    bool valid;
};

/* The pair at `*at`, which moves behind it. False: there is none. */
static bool next_pair(const char **at, struct pair *pair)
{
    const char *text = *at + strspn(*at, SPACES ",");
    size_t bytes = strcspn(text, ",");
    if (bytes == 0) {
        return false;
    }
    *at = text + bytes;
    while (memchr(SPACES, text[bytes - 1], sizeof(SPACES) - 1) != NULL) {
        bytes--;
    }
    const char *equals = memchr(text, '=', bytes);
    *pair = (struct pair){.topic = text, .topic_bytes = bytes};
    if (equals != NULL && equals != text) {
        pair->topic_bytes = (size_t)(equals - text);
        pair->valid = policy_parse(equals + 1, bytes - pair->topic_bytes - 1, &pair->policy);
    }
    return true;
}

enum relay_poison relay_policy_of(const struct relay_options *options, const char *topic)
{
    const char *at = options->poison_topics;
    struct pair pair;
    while (next_pair(&at, &pair)) {
        if (pair.valid && strlen(topic) == pair.topic_bytes &&
            memcmp(topic, pair.topic, pair.topic_bytes) == 0) {
            return pair.policy;
        }
    }
    return (enum relay_poison)options->poison;
}

enum ferry_err relay_policy_check(const struct relay_options *options, struct err_text *e)
{
    const char *at = options->poison_topics;
    struct pair pair;
    while (next_pair(&at, &pair)) {
        if (!pair.valid) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "relay.poison_topics: \"%.*s\": say topic=dead, topic=park_key, "
                           "topic=block or topic=callback",
                           (int)pair.topic_bytes, pair.topic);
        }
    }
    return FERRY_OK;
}

bool relay_policy_next_topic(const char **at, struct bytes *topic)
{
    struct pair pair;
    if (!next_pair(at, &pair)) {
        return false;
    }
    *topic = bytes_of(pair.topic, pair.topic_bytes);
    return true;
}
