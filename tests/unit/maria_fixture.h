/* maria_fixture: a MariaDB server of the test's own, which it may kill, stop and set back in time;
 * it syncs. Each test has a fresh database. */
#ifndef FERRY_TESTS_MARIA_FIXTURE_H
#define FERRY_TESTS_MARIA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <fcntl.h>
#include <mysql.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "outbox/mariadb/schema_mariadb.h"
#include "outbox/mariadb/source_mariadb.h"

struct maria_server {
    char folder[64];
    char socket[96];
    pid_t pid;
    const char *option; /* One more for the server, or NULL. */
};

struct maria_fixture {
    struct maria_server *server;
    char database[32];
    char url[256];
    MYSQL *connection;
    struct source source;
    struct source_mariadb *s; /* The same. */
};

static inline void maria_shell(const char *format, ...)
{
    char command[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    int status = system(command);
    if (status != 0) {
        fail_msg("%s: status %d", command, status);
    }
}

static inline MYSQL *maria_try_connect(const struct maria_server *m, const char *database)
{
    MYSQL *connection = mysql_init(NULL);
    assert_non_null(connection);
    if (mysql_real_connect(connection, NULL, "root", "", database, 0, m->socket,
                           CLIENT_MULTI_STATEMENTS) == NULL) {
        mysql_close(connection);
        return NULL;
    }
    return connection;
}

static inline void maria_start(struct maria_server *m)
{
    char data[128];
    char socket[128];
    char log[128];
    snprintf(data, sizeof(data), "--datadir=%s/data", m->folder);
    snprintf(socket, sizeof(socket), "--socket=%s", m->socket);
    snprintf(log, sizeof(log), "%s/log", m->folder);
    m->pid = fork();
    if (m->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        dup2(out, 1);
        dup2(out, 2);
        execlp("mariadbd", "mariadbd", "--no-defaults", data, socket, "--skip-networking",
               geteuid() == 0 ? "--user=root" : "--skip-name-resolve",
               "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M",
               m->option == NULL ? "--skip-name-resolve" : m->option, (char *)NULL);
        _exit(127);
    }
    assert_true(m->pid > 0);
    for (int i = 0; i < 600; i++) {
        MYSQL *connection = maria_try_connect(m, NULL);
        if (connection != NULL) {
            mysql_close(connection);
            return;
        }
        usleep(50000);
    }
    fail_msg("mariadbd does not answer: see %s/log", m->folder);
}

static inline void maria_stop(struct maria_server *m, int how)
{
    if (m->pid > 0) {
        kill(m->pid, how);
        waitpid(m->pid, NULL, 0);
        m->pid = 0;
    }
}

/* Stops the server as SIGSTOP does, and returns when all of its threads stand still. */
static inline void maria_pause(const struct maria_server *m)
{
    int status = 0;
    assert_int_equal(kill(m->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(m->pid, &status, WUNTRACED), m->pid);
    assert_true(WIFSTOPPED(status));
}

static inline bool maria_installed(void)
{
    return system("mariadbd --version >/dev/null 2>&1 && command -v mariadb-install-db "
                  ">/dev/null") == 0;
}

static inline int maria_group_setup(void **state)
{
    struct maria_server *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    snprintf(m->folder, sizeof(m->folder), "/tmp/ferry-maria-XXXXXX");
    assert_non_null(mkdtemp(m->folder));
    snprintf(m->socket, sizeof(m->socket), "%s/socket", m->folder);
    maria_shell("mariadb-install-db --no-defaults --datadir=%s/data --skip-test-db "
                "--auth-root-authentication-method=normal --user=$(id -un) >%s/install 2>&1",
                m->folder, m->folder);
    maria_start(m);
    *state = m;
    return 0;
}

static inline int maria_group_teardown(void **state)
{
    struct maria_server *m = *state;
    maria_stop(m, SIGKILL);
    maria_shell("rm -rf %s", m->folder);
    free(m);
    return 0;
}

/* ---- One test. */

static inline void maria_exec_on(MYSQL *connection, const char *sql)
{
    if (mysql_query(connection, sql) != 0) {
        fail_msg("%.200s: %s", sql, mysql_error(connection));
    }
    int more = 0;
    do {
        MYSQL_RES *result = mysql_store_result(connection);
        mysql_free_result(result);
        more = mysql_next_result(connection);
    } while (more == 0);
    if (more > 0) {
        fail_msg("%.200s: %s", sql, mysql_error(connection));
    }
}

static inline void maria_exec(struct maria_fixture *f, const char *format, ...)
{
    char sql[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    maria_exec_on(f->connection, sql);
}

static inline int64_t maria_number(struct maria_fixture *f, const char *sql)
{
    if (mysql_query(f->connection, sql) != 0) {
        fail_msg("%s: %s", sql, mysql_error(f->connection));
    }
    MYSQL_RES *result = mysql_store_result(f->connection);
    assert_non_null(result);
    MYSQL_ROW row = mysql_fetch_row(result);
    int64_t number = row == NULL || row[0] == NULL ? -1 : strtoll(row[0], NULL, 10);
    mysql_free_result(result);
    return number;
}

static inline MYSQL *maria_connect(const struct maria_fixture *f)
{
    MYSQL *connection = maria_try_connect(f->server, f->database);
    assert_non_null(connection);
    return connection;
}

static inline struct source_options maria_options(void)
{
    return (struct source_options){.barrier = true, .tidy = true, .strict = true};
}

static inline void maria_open_source(struct maria_fixture *f)
{
    struct err_text e = {{0}};
    struct source_options options = maria_options();
    if (source_open_mariadb(&f->source, f->url, &options, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    f->s = f->source.driver;
}

static inline int maria_setup(void **state)
{
    static int number;
    struct maria_fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->server = *state;
    snprintf(f->database, sizeof(f->database), "shop%d", ++number);
    snprintf(f->url, sizeof(f->url), "mariadb://root@/%s?socket=%s", f->database,
             f->server->socket);
    f->connection = maria_try_connect(f->server, NULL);
    assert_non_null(f->connection);
    maria_exec(f, "CREATE DATABASE %s", f->database);
    assert_int_equal(mysql_select_db(f->connection, f->database), 0);
    maria_exec_on(f->connection, schema_mariadb_step(1));
    maria_open_source(f);
    *state = f;
    return 0;
}

static inline int maria_teardown(void **state)
{
    struct maria_fixture *f = *state;
    source_close(&f->source);
    mysql_close(f->connection);
    *state = f->server;
    free(f);
    return 0;
}

#define MARIA_TEST(name) cmocka_unit_test_setup_teardown(name, maria_setup, maria_teardown)

#endif
