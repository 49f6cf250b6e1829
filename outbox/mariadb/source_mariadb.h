/* source_mariadb: what the files of MariaDB's source share; nobody else includes it.
 *
 * source_open.c opens and verifies, source_read.c reads, source_mark.c keeps marks, source_write.c
 * deletes and sets aside, source_ask.c answers the rest.
 *
 * MariaDB shows no order of commits. So the table is a set: what was put and is not deleted is
 * pending, unless it was handed out (handout.h) or a target's mark has it. Rows are read by id from
 * `cursor`. What was committed late lies below it and is noticed by comparing how many rows the
 * table has, and their ids by exclusive or, with what they should be; if that differs, all ids are
 * listed and the cursor goes back before the first that is new.
 *
 * Order of a key. Who waited for the key's row took its id after the other had committed, so ids
 * rise as the key's transactions do. But a read may see the second row and not the first: InnoDB
 * collects the transactions that are open one after another while others end (10.11: 4 of 17,804
 * reads, with 12 writers of one key and 700 idle open transactions). Such a first row is seen by
 * every read that begins later. So the comparison is made after the read, with the page in
 * hand, and rows behind one that came meanwhile are given back. Where comparing the whole table
 * takes more than 5 ms (many rows deleted and not yet purged), only its recent part is compared
 * each time: there the order could still be missed for a transaction that took its id long before,
 * and in those microseconds alone.
 *
 * Durability. A row can be seen before its commit is on disk. So a page is handed out when a commit
 * of our own that began after the read has come back: the deletion of published rows where there
 * are some, else nothing but the new stamp. innodb_flush_log_at_trx_commit has to be 1.
 *
 * Time travel. Each of our transactions raises `delete_stamp` in ferry_meta by one, compare and
 * set; marks and checkpoints carry it with the newest id they know and its message id. A lower
 * stamp, an AUTO_INCREMENT not above that id, or another message under it: the database was set
 * back. */
#ifndef FERRY_OUTBOX_SOURCE_MARIADB_H
#define FERRY_OUTBOX_SOURCE_MARIADB_H

#include "outbox/mariadb/handout.h"
#include "outbox/mariadb/maria_link.h"
#include "outbox/relay/source.h"

#define SOURCE_HANDOUT_MAX  65536u /* Rows handed out and not yet deleted. */
#define SOURCE_MARK_IDS_MAX 32768u /* Of one target. */
#define SOURCE_DELETE_MAX   4096u  /* Rows of one deletion. */
#define SOURCE_KEY_MAX      1024u  /* Longer ones are not parked. */
#define SOURCE_SWEEP_US     (5 * 1000 * 1000)

/* Blobs, little-endian: 0 u8 version, 1 u8 kind, 2 u64 stamp, 10 u64 newest id known, 18 16 bytes
 * of its message id; of marks follow the ids (id_list.h). */
#define SOURCE_BLOB_VERSION 1u
#define SOURCE_BLOB_KIND    3u /* MariaDB's. */
#define SOURCE_BLOB_HEAD    34u

struct source_spot {
    uint64_t stamp;
    uint64_t newest; /* 0: none. */
    struct ferry_id newest_id;
};

struct source_mark {
    struct list all;
    uint64_t *ids; /* The target has them, or they are on their way to it; rising. */
    size_t count, capacity;
    uint64_t *flight; /* Of them on their way, in order of sending, from `flight_first`. */
    size_t flight_first, flight_count, flight_capacity;
    uint64_t newest;
    struct ferry_id newest_id;
};

struct source_mariadb {
    struct maria_url url;
    struct source_options options;
    struct ferry_id id;
    char stamp_name[32]; /* In ferry_meta: of this lane. */
    const char *index;   /* Of ferry_outbox, for this lane's rows. */
    struct maria_link reader, writer;
    uint64_t reconnects_before; /* Connections made by open. */

    struct handout handout;
    uint64_t cursor;  /* Rows with greater ids are read next. */
    int64_t position; /* Last given. */
    bool suspect;     /* The sums differ: the next read sweeps, */
    bool suspect_all; /* from the first id; else what is recent. */
    int64_t full_us;  /* How long the last comparison of the whole table took. */
    int64_t full_at_us;
    size_t row_bytes; /* Of a row on average, to know how many to ask for. */

    uint64_t stamp;         /* In the database, as far as is known. */
    struct err_text behind; /* The database was found set back; empty: not. */
    uint64_t deleting[SOURCE_DELETE_MAX];
    size_t deleting_count;
    bool writing;         /* A deletion was sent. */
    bool deletion_failed; /* The last one: the next goes by single rows. */
    int64_t deleted_at_us;
    size_t removed; /* Not yet told to the core. */
    uint64_t barriers, barrier_us;

    struct list marks;
    uint64_t *scratch; /* For lists of ids: SOURCE_MARK_IDS_MAX + a batch. */
    size_t scratch_capacity;
    struct source_spot begun; /* The checkpoint's. */

    int wake_fd;                     /* -1: it polls. */
    char place[MARIA_FIELD_MAX + 1]; /* For wake.h; empty: not known. */
    int place_fd;                    /* Held by relay_place.h; -1: not. */
};

/* source_open.c */
enum ferry_err source_open_mariadb(struct source *source, const char *url,
                                   const struct source_options *options, struct err_text *e);
enum ferry_err source_maria_lanes(const char *url, uint32_t *lanes, struct err_text *e);
/* Compares the database with what is known of it. *same false: with a detail. Reads the stamp. */
enum ferry_err source_maria_compare(struct source_mariadb *s, const struct source_spot *spot,
                                    bool *same, struct err_text *e);

/* source_read.c */
enum ferry_err source_maria_read(void *driver, size_t rows_max, size_t bytes_max,
                                 struct source_page *page, bool *more, struct err_text *e);
enum ferry_err source_maria_fetch(void *driver, struct source_page *page, bool *there,
                                  struct err_text *e);
enum ferry_err source_maria_changed(void *driver, bool *changed, struct err_text *e);
void source_maria_rewind(void *driver, int64_t after);

/* source_mark.c */
void source_blob_head(struct source_blob *blob, const struct source_spot *spot);
enum ferry_err source_blob_read(struct bytes blob, const char *name, struct source_spot *spot,
                                struct bytes *list, struct err_text *e);
enum ferry_err source_maria_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                      bool *same, bool *again, struct err_text *e);
void source_maria_mark_close(void *driver, struct source_mark *mark);
bool source_maria_wants(void *driver, const struct source_mark *mark, const struct source_row *row);
size_t source_maria_mark_encode(void *driver, const struct source_mark *mark,
                                const struct source_row *const *rows, size_t count, bool last,
                                struct source_blob *blob);
enum ferry_err source_maria_mark_add(void *driver, struct source_mark *mark,
                                     const struct source_row *const *rows, size_t count, bool last);
void source_maria_mark_acked(void *driver, struct source_mark *mark, size_t count);
void source_marks_forget(struct source_mariadb *s, const uint64_t *ids, size_t count);

/* source_write.c */
/* Sends a transaction that deletes what is due (nothing, maybe; at most `most` rows, and those of
 * relay.delete_rows) and raises the stamp. None is on its way. */
enum ferry_err source_delete_send(struct source_mariadb *s, size_t most, struct err_text *e);
/* Takes the result of the one that was sent. */
enum ferry_err source_delete_take(struct source_mariadb *s, struct err_text *e);
enum ferry_err source_maria_tidy(void *driver, const struct source_progress *progress,
                                 size_t *removed, bool *again, struct err_text *e);
enum ferry_err source_maria_set_aside(void *driver, const struct source_row *row,
                                      enum source_aside why, const char *reason, bool *done,
                                      struct err_text *e);

/* source_ask.c */
enum ferry_err source_maria_decided(void *driver, int64_t number, bool *decided,
                                    struct err_text *e);
enum ferry_err source_maria_parked(void *driver, source_parked_cb *callback, void *arg,
                                   struct err_text *e);
enum ferry_err source_maria_paused(void *driver, bool *paused, struct err_text *e);
enum ferry_err source_maria_figures(void *driver, int64_t settled, struct source_figures *figures,
                                    struct err_text *e);

#endif
