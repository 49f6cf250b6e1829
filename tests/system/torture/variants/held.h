/* held: a copy of an append, for the broken relays here that send it later or once more. */
#ifndef FERRY_TORTURE_HELD_H
#define FERRY_TORTURE_HELD_H

#include "ferry.h"

struct held {
    struct held *next; /* The user's, as is when it is due. */
    int64_t due_ms;
    struct ferry_source *source;
    int32_t partition;
    uint64_t expect_version;
    void *cursor;
    size_t cursor_bytes;
    struct ferry_message *messages;
    size_t count;
    ferry_append_cb *callback;
    void *arg;
    char topic[256];
};

/* Ends the process when memory is out: this is a test. */
struct held *held_new(struct ferry_source *source, const char *topic, int32_t partition,
                      uint64_t expect_version, const void *cursor, size_t cursor_bytes,
                      const struct ferry_message *messages, size_t count, ferry_append_cb *callback,
                      void *arg);
void held_free(struct held *h);
/* Tells the relay that all of it is stored. */
void held_report_ok(const struct held *h);

#endif
