/* served: one lane of one outbox being served: connected to, again and again when it cannot be
 * reached, relayed, and connected to anew when it has become another source (`ferry outbox
 * rebase`).
 *
 * One thread at a time; it owns a client, a source and a relay, and shares nothing with others. It
 * may block on its database (relay.connect_timeout_ms, relay.statement_timeout_ms) and its brokers
 * (relay.call_timeout_ms), for a few such times a step.
 *
 * States: CONNECTING (tries; the pause between grows and is random) → RELAYING, until the relay has
 * halted → HALTED: nothing is held open, the reason is kept, and now and then the source is looked
 * at: when it has another id than the one that halted, and once a minute anyway, it is CONNECTING
 * again. STOPPED: after served_stop. With `once` the first failure to connect, or a halt, ends in
 * STOPPED too. */
#ifndef FERRY_OUTBOX_RELAY_SERVED_H
#define FERRY_OUTBOX_RELAY_SERVED_H

#include "outbox/relay/driver.h"
#include "outbox/relay/relay.h"

enum served_phase { SERVED_CONNECTING, SERVED_RELAYING, SERVED_HALTED, SERVED_STOPPED };

/* All is borrowed until served_free. */
struct served_conf {
    const struct relay_options *options;
    const struct outbox_driver *driver;
    const char *url;
    const char *shown; /* The URL for people: no password. */
    uint32_t lane;
    bool once;
    struct relay_tally *tally; /* Of single topics' figures; or NULL. */
    /* An application has announced rows, of whichever lane; or NULL. */
    void (*announced)(void *arg);
    void *arg;
};

struct served_status {
    enum served_phase phase;
    uint32_t lanes;            /* Of the outbox; 0: not known yet. */
    uint64_t connects;         /* That succeeded. */
    bool relay_known;          /* Whether it was ever connected. */
    struct relay_status relay; /* Its last; `stats` are sums over all that there were. */
    enum ferry_err err;        /* Why it is CONNECTING, or STOPPED without having relayed. */
    struct err_text error;     /* The same, or why it is HALTED, or what the relay says. */
};

struct served;

MUST_CHECK enum ferry_err served_new(struct served **s, const struct served_conf *conf);
void served_free(struct served **s); /* What is in flight is waited for, a second at most. */

/* Does what can be done now; returns when it wants to be stepped again though nothing happened. */
MUST_CHECK int64_t served_step(struct served *s, int64_t now_us);
/* Readable when there is something to do before that time. */
int served_fd(const struct served *s);
void served_wake(struct served *s); /* Rows may have come: another lane heard it. */
void served_look(struct served *s); /* The next step renews the status, however new it is. */
void served_stop(struct served *s);
/* Lives as long as `s`; changes in served_step. */
const struct served_status *served_status(const struct served *s);

#endif
