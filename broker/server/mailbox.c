#include "server/mailbox.h"

#include "base/mem.h"

enum ferry_err mailbox_init(struct mailbox *m)
{
    *m = (struct mailbox){.wake = {.fd = -1}};
    list_init(&m->messages);
    enum ferry_err err = net_wake_init(&m->wake);
    if (err != FERRY_OK) {
        return err;
    }
    must(pthread_mutex_init(&m->lock, NULL) == 0);
    return FERRY_OK;
}

void mailbox_fini(struct mailbox *m)
{
    if (m->wake.fd < 0) {
        return;
    }
    for (struct mail *mail; (mail = mailbox_take(m)) != NULL;) {
        mail_free(mail);
    }
    must(pthread_mutex_destroy(&m->lock) == 0);
    net_wake_fini(&m->wake);
    m->wake.fd = -1;
}

enum ferry_err mailbox_post(struct mailbox *m, struct mail *mail)
{
    struct mail *copy = mem_dup(mail, sizeof(*mail));
    if (copy == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    mail->text = (struct buf){0};
    list_init(&copy->node);
    must(pthread_mutex_lock(&m->lock) == 0);
    list_push_back(&m->messages, &copy->node);
    must(pthread_mutex_unlock(&m->lock) == 0);
    net_wake_signal(&m->wake);
    return FERRY_OK;
}

struct mail *mailbox_take(struct mailbox *m)
{
    must(pthread_mutex_lock(&m->lock) == 0);
    struct list *node = list_pop_front(&m->messages);
    must(pthread_mutex_unlock(&m->lock) == 0);
    return node != NULL ? list_entry(node, struct mail, node) : NULL;
}

void mail_free(struct mail *mail)
{
    buf_fini(&mail->text);
    mem_free(mail);
}
