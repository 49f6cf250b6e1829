/* maria_url: the parts of mariadb://user:password@host:port/database?socket=/path&ssl=… (mysql://
 * too).
 *
 * Pure. Every part is percent-decoded and has a limit. All but the database may be left out: the
 * user is then the process's own, the host localhost by its unix socket. */
#ifndef FERRY_OUTBOX_MARIA_URL_H
#define FERRY_OUTBOX_MARIA_URL_H

#include "base/err.h"

#define MARIA_URL_PART_MAX   255
#define MARIA_URL_SOCKET_MAX 107 /* As an address holds. */
#define MARIA_URL_SHOWN_MAX  1023

enum maria_ssl {
    MARIA_SSL_OFF,
    MARIA_SSL_ON,     /* Encrypted; the server's certificate is not looked at. */
    MARIA_SSL_VERIFY, /* And its certificate and name have to be right. */
};

struct maria_url {
    char user[MARIA_URL_PART_MAX + 1];
    char password[MARIA_URL_PART_MAX + 1];
    char host[MARIA_URL_PART_MAX + 1]; /* Empty: localhost. */
    char socket[MARIA_URL_SOCKET_MAX + 1];
    char database[MARIA_URL_PART_MAX + 1];
    char ssl_ca[MARIA_URL_PART_MAX + 1];
    unsigned port; /* 0: the usual one. */
    enum maria_ssl ssl;
    char shown[MARIA_URL_SHOWN_MAX + 1]; /* For people: without the password. */
};

/* Errors: INVALID_ARGUMENT, with a detail that shows the right form and no password. */
MUST_CHECK enum ferry_err maria_url_parse(const char *text, struct maria_url *url,
                                          struct err_text *e);

#endif
