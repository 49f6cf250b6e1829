/* A driver in place of the real one, in which a certain row ends the process: as a crash in the
 * client library, or in Ferry, when it meets that row's bytes. All else is the real driver's.
 *
 * FERRY_DEADLY_DRIVER is the real one's library, FERRY_DEADLY_ROW what the payload begins with
 * (empty: no row is deadly), FERRY_DEADLY_AT when it is: "read", as it is handed out whole; "send",
 * before it is appended; "sent", when it is in the
 * log and the answer comes. */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox/relay/driver.h"

#define TEXT_OF(x)       #x
#define NAME_OF(x)       TEXT_OF(x)
#define JOINED(a, b)     a##b
#define ENTRY_OF(scheme) JOINED(ferry_outbox_driver_, scheme)

outbox_driver_fn ENTRY_OF(DEADLY_SCHEME);

static const struct source_ops *real_ops;
static const struct outbox_driver *real_driver;
static struct source_ops ops;
static struct outbox_driver driver;
static bool on_its_way; /* Of those that are deadly when they are in the log. */

static bool is_deadly(const struct source_row *row, const char *when)
{
    const char *text = getenv("FERRY_DEADLY_ROW");
    const char *at = getenv("FERRY_DEADLY_AT");
    size_t bytes = text == NULL ? 0 : strlen(text);
    return bytes > 0 && at != NULL && strcmp(at, when) == 0 &&
           row->message.payload_bytes >= bytes && memcmp(row->message.payload, text, bytes) == 0;
}

static void meet(const struct source_row *row, const char *when)
{
    if (is_deadly(row, when)) {
        (void)raise(SIGKILL);
    }
}

static void meet_page(const struct source_page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        meet(&page->rows[i], "read");
    }
}

static enum ferry_err deadly_read(void *source, size_t rows_max, size_t bytes_max,
                                  struct source_page *page, bool *more, struct err_text *e)
{
    enum ferry_err err = real_ops->read(source, rows_max, bytes_max, page, more, e);
    if (err == FERRY_OK) {
        meet_page(page);
    }
    return err;
}

static enum ferry_err deadly_fetch(void *source, struct source_page *page, bool *there,
                                   struct err_text *e)
{
    enum ferry_err err = real_ops->fetch(source, page, there, e);
    if (err == FERRY_OK && *there) {
        meet_page(page);
    }
    return err;
}

static size_t deadly_mark_encode(void *source, const struct source_mark *mark,
                                 const struct source_row *const *rows, size_t count, bool last,
                                 struct source_blob *blob)
{
    for (size_t i = 0; i < count; i++) {
        meet(rows[i], "send");
    }
    return real_ops->mark_encode(source, mark, rows, count, last, blob);
}

static enum ferry_err deadly_mark_add(void *source, struct source_mark *mark,
                                      const struct source_row *const *rows, size_t count, bool last)
{
    for (size_t i = 0; i < count; i++) {
        on_its_way = on_its_way || is_deadly(rows[i], "sent");
    }
    return real_ops->mark_add(source, mark, rows, count, last);
}

static void deadly_mark_acked(void *source, struct source_mark *mark, size_t count)
{
    if (on_its_way) {
        (void)raise(SIGKILL);
    }
    real_ops->mark_acked(source, mark, count);
}

static enum ferry_err deadly_open(struct source *source, const char *url,
                                  const struct source_options *options, struct err_text *e)
{
    enum ferry_err err = real_driver->source_open(source, url, options, e);
    if (err == FERRY_OK) {
        real_ops = source->ops;
        ops = *real_ops;
        ops.read = deadly_read;
        ops.fetch = deadly_fetch;
        ops.mark_encode = deadly_mark_encode;
        ops.mark_add = deadly_mark_add;
        ops.mark_acked = deadly_mark_acked;
        source->ops = &ops;
    }
    return err;
}

const struct outbox_driver *ENTRY_OF(DEADLY_SCHEME)(void)
{
    const char *path = getenv("FERRY_DEADLY_DRIVER");
    void *library = path == NULL ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void *address = library == NULL ? NULL : dlsym(library, NAME_OF(ENTRY_OF(DEADLY_SCHEME)));
    outbox_driver_fn *entry = NULL;
    if (address == NULL) {
        fprintf(stderr, "FERRY_DEADLY_DRIVER: %s\n", dlerror());
        return NULL;
    }
    memcpy(&entry, &address, sizeof(entry));
    real_driver = entry();
    driver = *real_driver;
    driver.source_open = deadly_open;
    return &driver;
}
