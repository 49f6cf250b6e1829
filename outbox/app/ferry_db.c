#include "outbox/app/db.h"

#include "base/mem.h"

enum ferry_err db_new(struct ferry_db **db, const struct db_ops *ops, void *driver)
{
    struct ferry_db *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = id_gen_init(&made->ids, 0);
    if (err != FERRY_OK) {
        mem_free(made);
        return err;
    }
    made->ops = ops;
    made->driver = driver;
    buf_init(&made->headers, DB_HEADERS_MAX_BYTES);
    wake_sender_init(&made->wake);
    *db = made;
    return FERRY_OK;
}

void ferry_db_free(struct ferry_db **db)
{
    if (db == NULL || *db == NULL) {
        return;
    }
    (*db)->ops->close((*db)->driver);
    buf_fini(&(*db)->headers);
    mem_free((*db)->rows);
    mem_free((*db)->entered);
    wake_sender_fini(&(*db)->wake);
    mem_free(*db);
    *db = NULL;
}

const char *ferry_db_detail(const struct ferry_db *db)
{
    return db->error.text;
}

enum ferry_err ferry_migrate(struct ferry_db *db)
{
    db->error.text[0] = '\0';
    if (db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "a transaction is open: call ferry_migrate before BEGIN");
    }
    return db->ops->migrate(db->driver, &db->error);
}

void ferry_outbox_committed(struct ferry_db *db)
{
    const char *path = db->ops->path(db->driver);
    if (path != NULL) {
        wake_sender_send(&db->wake, path);
    }
}
