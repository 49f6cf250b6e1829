#include "sim/chains.h"

#include "base/mem.h"

#define ULL(x) ((unsigned long long)(x))

void chains_init(struct key_chains *v, struct history *h)
{
    *v = (struct key_chains){.history = h};
}

void chains_fini(struct key_chains *v)
{
    mem_free(v->all);
    v->count = v->capacity = 0;
}

static void learn(struct key_chains *v, uint32_t key, uint64_t version)
{
    v->known[key] = version > v->known[key] ? version : v->known[key];
}

/* The message was stored that expected this version. */
static void win(struct key_chains *v, uint32_t key, uint64_t expected, uint64_t message)
{
    uint64_t *winner = &v->winners[key][expected];
    if (*winner != 0 && *winner != message) {
        sim_fail(SIM_INVARIANT,
                 "INV-R16: key %u: messages %llu and %llu are both stored at version %llu", key,
                 ULL(*winner), ULL(message), ULL(expected));
    }
    *winner = message;
}

struct publishing chains_publishing(struct key_chains *v, uint64_t message, uint32_t key,
                                    uint64_t expected)
{
    must(key < KEYS_MAX && expected < KEY_VERSIONS_MAX);
    struct publishing p = {
        .message = message, .key = key, .expected = expected, .known = v->known[key]};
    v->most[key] = expected + 1 > v->most[key] ? expected + 1 : v->most[key];
    must(mem_grow((void **)&v->all, &v->capacity, v->count + 1, sizeof(*v->all)));
    v->all[v->count++] = p;
    return p;
}

void chains_published(struct key_chains *v, const struct publishing *p, enum ferry_err err,
                      uint64_t version)
{
    if (err == FERRY_OK) {
        v->stored++;
        win(v, p->key, p->expected, p->message);
        learn(v, p->key, p->expected + 1);
    } else if (err == FERRY_ERR_VERSION_CONFLICT) {
        v->conflicts++;
        if (version == p->expected || version < p->known || version > v->most[p->key]) {
            sim_fail(SIM_INVARIANT,
                     "INV-R16: key %u: a publish at version %llu is refused for it is at %llu; "
                     "%llu was known before, %llu is the most there can be",
                     p->key, ULL(p->expected), ULL(version), ULL(p->known), ULL(v->most[p->key]));
        }
        learn(v, p->key, version);
    } else {
        v->unknown++;
    }
}

uint64_t chains_reading(const struct key_chains *v, uint32_t key)
{
    return v->known[key];
}

void chains_read(struct key_chains *v, uint32_t key, uint64_t known, uint64_t version)
{
    v->reads++;
    if (version < known || version > v->most[key]) {
        sim_fail(SIM_INVARIANT,
                 "INV-R16: key %u is read at version %llu; %llu was known before, %llu is the most "
                 "there can be",
                 key, ULL(version), ULL(known), ULL(v->most[key]));
    }
    learn(v, key, version);
}

void chains_check_end(struct key_chains *v, uint32_t key, uint64_t version)
{
    int64_t before = -1;
    chains_read(v, key, v->known[key], version);
    for (size_t i = 0; i < v->count; i++) { /* Those whose answer did not come, too. */
        const struct publishing *p = &v->all[i];
        if (p->key == key && v->history->messages[p->message].offset >= 0) {
            win(v, key, p->expected, p->message);
        }
    }
    for (uint64_t i = 0; i < version && !sim->ended; i++) {
        uint64_t winner = v->winners[key][i];
        int64_t offset = winner != 0 ? v->history->messages[winner].offset : -1;
        if (offset <= before) {
            sim_fail(SIM_INVARIANT,
                     "INV-R16: key %u is at version %llu, and the message that expected %llu is at "
                     "offset %lld, behind %lld",
                     key, ULL(version), ULL(i), (long long)offset, (long long)before);
        }
        before = offset;
    }
    if (version < KEY_VERSIONS_MAX && v->winners[key][version] != 0) {
        sim_fail(SIM_INVARIANT,
                 "INV-R16: key %u is at version %llu, and one that expected it is "
                 "stored",
                 key, ULL(version));
    }
}
