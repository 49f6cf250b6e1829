/* What the fake broker was asked, for the tests to look at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lib/fake_broker_inner.h"

static bool is_remembered(uint16_t command)
{
    return command != COMMAND_HELLO && command != COMMAND_METADATA && command != COMMAND_PRODUCE &&
           command != COMMAND_FETCH;
}

static void keep_bytes(struct buf *to, struct bytes from)
{
    buf_init(to, FRAME_LIMIT);
    buf_append_bytes(to, from);
}

void fake_remember(struct fake_broker *b, const struct frame *f)
{
    if (is_remembered(f->command) && b->asked_count < ASKED_MAX) {
        struct asked *asked = &b->asked[b->asked_count++];
        asked->command = f->command;
        keep_bytes(&asked->body, f->body);
        keep_bytes(&asked->attachment, f->attachment);
    }
}

void fake_forget_asked(struct fake_broker *b)
{
    for (size_t i = 0; i < b->asked_count; i++) {
        buf_fini(&b->asked[i].body);
        buf_fini(&b->asked[i].attachment);
    }
    b->asked_count = 0;
}

static const struct asked *find(struct fake_broker *b, enum command command, int n)
{
    const struct asked *found = NULL;
    pthread_mutex_lock(&b->shared->lock);
    for (size_t i = 0; i < b->asked_count && found == NULL; i++) {
        if (b->asked[i].command == command && n-- == 0) {
            found = &b->asked[i];
        }
    }
    pthread_mutex_unlock(&b->shared->lock);
    if (found == NULL) {
        fail_msg("%s was not asked so often", command_name((uint16_t)command));
    }
    return found;
}

struct bytes fake_asked(struct fake_broker *broker, enum command command, int n)
{
    return buf_bytes(&find(broker, command, n)->body);
}

struct bytes fake_asked_attachment(struct fake_broker *broker, enum command command, int n)
{
    return buf_bytes(&find(broker, command, n)->attachment);
}
