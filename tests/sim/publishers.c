/* Publishers: read a key's version and publish on condition that it is still that one, several of
 * them on few keys. What is published together is stored together. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define PUBLISH_MS   6000
#define TOGETHER_MAX 3
#define SOME_KEYS    5
#define FIRST_KEY    20 /* In the history: behind those of producers. */

static size_t key_text(uint32_t key, char text[16])
{
    return (size_t)snprintf(text, 16, "v%u", key);
}

static bool read_version(struct session *s, uint32_t key, uint64_t *version)
{
    struct workload *w = s->p->load;
    char text[16];
    uint64_t known = chains_reading(&w->versions, key);
    enum ferry_err err = ferry_key_version(s->client, w->history.topics[w->versions_topic].name,
                                           text, key_text(key, text), PUBLISH_MS, version);
    program_note(s->p, "key version", err);
    if (err == FERRY_OK) {
        chains_read(&w->versions, key, known, *version);
    }
    return err == FERRY_OK;
}

static enum ferry_outcome outcome_of(enum ferry_err err)
{
    switch (err) {
    case FERRY_OK:
        return FERRY_STORED;
    case FERRY_ERR_VERSION_CONFLICT:
        return FERRY_NOT_STORED;
    default:
        return FERRY_UNKNOWN;
    }
}

/* The first message has the key and its expectation, the others have neither. */
static void publish(struct session *s, uint32_t key, uint64_t expected)
{
    uint8_t payloads[TOGETHER_MAX][HISTORY_PAYLOAD_MAX];
    struct workload *w = s->p->load;
    struct history *h = &w->history;
    const struct history_topic *t = &h->topics[w->versions_topic];
    struct ferry_message m[TOGETHER_MAX] = {{0}};
    uint64_t versions[TOGETHER_MAX] = {expected, FERRY_ANY_VERSION, FERRY_ANY_VERSION};
    uint64_t numbers[TOGETHER_MAX] = {0};
    size_t count = 1 + chance_below(TOGETHER_MAX);
    char text[16];
    size_t bytes = key_text(key, text);
    int32_t partition = ferry_partition_of_key(text, bytes, (int32_t)t->partitions);
    s->p->producer = ++w->next_producer;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = history_new(h, w->versions_topic, s->p->producer);
        m[i] = (struct ferry_message){.topic = t->name,
                                      .partition = partition,
                                      .key = i == 0 ? text : NULL,
                                      .key_bytes = i == 0 ? bytes : 0,
                                      .payload = payloads[i],
                                      .payload_bytes = history_payload(numbers[i], payloads[i])};
        h->messages[numbers[i]].key = i == 0 ? FIRST_KEY + key : 0;
        history_sending(h, numbers[i]);
    }
    struct publishing p = chains_publishing(&w->versions, numbers[0], key, expected);
    struct ferry_publish_result result = {0};
    enum ferry_err err = ferry_publish(s->client, m, count, versions, PUBLISH_MS, &result);
    program_note(s->p, "publish", err);
    for (size_t i = 0; i < count && !sim->ended; i++) {
        int64_t offset = result.base_offset >= 0 ? result.base_offset + (int64_t)i : -1;
        history_outcome(h, numbers[i], outcome_of(err), partition, err == FERRY_OK ? offset : -1,
                        err == FERRY_OK && result.duplicate);
    }
    chains_published(&w->versions, &p, err, result.version);
}

void publisher_session(struct program *p)
{
    struct session s;
    int64_t until = world_now() + chance_between(5, 40) * SIM_SECOND;
    if (!session_open(&s, p, NULL)) {
        return;
    }
    while (session_may_go_on(p, until)) {
        uint32_t key = (uint32_t)chance_below(SOME_KEYS);
        uint64_t version;
        if (read_version(&s, key, &version) && version + 1 < KEY_VERSIONS_MAX && !sim->ended) {
            fiber_sleep(chance_between(0, 50) * SIM_MS);
            publish(&s, key, version);
            p->done++;
        }
        fiber_sleep(chance_between(0, p->load->pause_us));
    }
    ferry_close(&s.client, 0);
}

void verify_versions(struct session *s)
{
    struct key_chains *v = &s->p->load->versions;
    for (uint32_t key = 0; key < SOME_KEYS && v->count > 0 && !sim->ended; key++) {
        uint64_t version;
        while (!sim->ended && !read_version(s, key, &version)) {
            fiber_sleep(200 * SIM_MS);
        }
        if (!sim->ended) {
            chains_check_end(v, key, version);
        }
    }
}
