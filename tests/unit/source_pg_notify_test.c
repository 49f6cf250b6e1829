/* NOTIFY as a wake of the PostgreSQL source, on a real server. */
#include "source_pg_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "outbox/app/wake.h"
#include "outbox/postgresql/source_postgresql.h"

#define TRIGGER                                                                                    \
    "CREATE TRIGGER outbox_notify AFTER INSERT ON ferry.outbox FOR EACH STATEMENT "                \
    "EXECUTE FUNCTION ferry.notify()"

static void open_listening(struct fixture *f)
{
    struct source_options options = twin_options();
    options.notify = true;
    twin_kill(&f->twin);
    twin_open_with(&f->twin, f->db.url, &options);
}

/* As the relay's loop: looks at the descriptor, and once in a while at the source. */
static bool woken(struct fixture *f, int timeout_ms)
{
    struct pollfd fd = {.fd = source_wake_fd(&f->twin.source), .events = POLLIN};
    bool is = poll(&fd, 1, timeout_ms) > 0;
    if (is) {
        source_wake_drain(&f->twin.source);
    }
    return is;
}

static bool listener_comes_to(struct fixture *f, enum pg_notify_state state)
{
    for (int i = 0; i < 300 && inside(f)->notify.state != state; i++) {
        bool same = false;
        struct err_text e = {{0}};
        assert_int_equal(f->twin.source.ops->verify(f->twin.source.driver, &same, &e), FERRY_OK);
        (void)woken(f, 10);
    }
    return inside(f)->notify.state == state;
}

static uint64_t notifies(struct fixture *f)
{
    struct err_text e;
    struct source_figures figures;
    assert_int_equal(f->twin.source.ops->figures(f->twin.source.driver, 0, &figures, &e), FERRY_OK);
    return figures.notifies;
}

static const char *const listener_pid =
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'ferry-outbox listener' "
    "AND datname = current_database()";

/* NOTIFY and the datagram wake by one descriptor, also after the connection was lost. */
static void a_notify_wakes(void **state)
{
    struct fixture *f = fixture_of(state);
    database_exec(&f->db.a, TRIGGER);
    open_listening(f);
    assert_true(listener_comes_to(f, PG_NOTIFY_WORKS));
    assert_false(woken(f, 0));
    assert_int_equal(notifies(f), 0);
    for (uint64_t round = 1; round <= 3; round++) {
        usleep(10000); /* The trigger announces once in 5 ms. */
        put(&f->db.a, "k", "x");
        assert_true(woken(f, 2000));
        assert_false(woken(f, 0));
        assert_int_equal(notifies(f), round);
        struct wake_sender sender;
        wake_sender_init(&sender);
        wake_sender_send(&sender, inside(f)->wake_name);
        wake_sender_fini(&sender);
        assert_true(woken(f, 2000));
        assert_int_equal(notifies(f), round);
        char sql[256];
        snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend((%s))::int", listener_pid);
        (void)database_text(&f->db.a, sql);
        while (inside(f)->notify.state != PG_NOTIFY_DOWN) {
            (void)woken(f, 100);
        }
        assert_true(listener_comes_to(f, PG_NOTIFY_WORKS));
    }
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* Somebody switched it on and made no trigger: told, too. */
static void a_missing_trigger_is_told(void **state)
{
    struct fixture *f = fixture_of(state);
    open_listening(f);
    assert_true(listener_comes_to(f, PG_NOTIFY_WORKS));
    assert_true(inside(f)->notify.said_trigger);
}

/* A pooler in small: it hands on everything of the server but notifications, as one that lends
 * connections by transaction. One thread for each connection, until it ends. */
struct pooled {
    int client, server;
};

static bool read_all(int fd, uint8_t *at, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = read(fd, at + done, bytes - done);
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

/* One message: type, length with itself, body. */
static bool hand_to_client(const struct pooled *p)
{
    static _Thread_local uint8_t message[1 << 16];
    if (!read_all(p->server, message, 5)) {
        return false;
    }
    size_t size = 1 + (size_t)get_be32(message + 1);
    assert_true(size <= sizeof(message));
    return read_all(p->server, message + 5, size - 5) &&
           (message[0] == 'A' || write(p->client, message, size) == (ssize_t)size);
}

static bool hand_to_server(const struct pooled *p)
{
    uint8_t bytes[4096];
    ssize_t n = read(p->client, bytes, sizeof(bytes));
    return n > 0 && write(p->server, bytes, (size_t)n) == n;
}

static void *pooled_run(void *arg)
{
    struct pooled *p = arg;
    bool goes_on = true;
    while (goes_on) {
        struct pollfd fds[2] = {{.fd = p->client, .events = POLLIN},
                                {.fd = p->server, .events = POLLIN}};
        goes_on = poll(fds, 2, -1) > 0 && (fds[0].revents == 0 || hand_to_server(p)) &&
                  (fds[1].revents == 0 || hand_to_client(p));
    }
    close(p->client);
    close(p->server);
    free(p);
    return NULL;
}

struct pooler {
    int listening;
    char from[64], to[108]; /* Folder, socket of the server. */
    pthread_t thread;
};

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return address;
}

static void *pooler_run(void *arg)
{
    const struct pooler *p = arg;
    int client = -1;
    while ((client = accept(p->listening, NULL, NULL)) >= 0) {
        struct pooled *made = malloc(sizeof(*made));
        struct sockaddr_un to = address_of(p->to);
        pthread_t thread;
        assert_non_null(made);
        *made = (struct pooled){client, socket(AF_UNIX, SOCK_STREAM, 0)};
        assert_int_equal(connect(made->server, (struct sockaddr *)&to, sizeof(to)), 0);
        assert_int_equal(pthread_create(&thread, NULL, pooled_run, made), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static void pooler_start(struct pooler *p, const char *folder)
{
    char path[100];
    snprintf(p->from, sizeof(p->from), "/tmp/ferry-pooler-XXXXXX");
    assert_non_null(mkdtemp(p->from));
    snprintf(p->to, sizeof(p->to), "%s/.s.PGSQL.5432", folder);
    snprintf(path, sizeof(path), "%s/.s.PGSQL.5432", p->from);
    struct sockaddr_un at = address_of(path);
    p->listening = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(p->listening, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(p->listening, 16), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, pooler_run, p), 0);
}

static void pooler_stop(struct pooler *p)
{
    char path[100];
    shutdown(p->listening, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listening);
    snprintf(path, sizeof(path), "%s/.s.PGSQL.5432", p->from);
    unlink(path);
    rmdir(p->from);
}

/* LISTEN is accepted and nothing arrives: it is told, and rows come by polls. */
static void a_silent_notify_is_told(void **state)
{
    struct fixture *f = fixture_of(state);
    struct pooler pooler;
    struct source_options options = twin_options();
    char url[256];
    database_exec(&f->db.a, TRIGGER);
    pooler_start(&pooler, f->db.folder);
    snprintf(url, sizeof(url), "%.*s%s", (int)(strstr(f->db.url, f->db.folder) - f->db.url),
             f->db.url, pooler.from);
    options.notify = true;
    twin_kill(&f->twin);
    twin_open_with(&f->twin, url, &options);
    assert_true(listener_comes_to(f, PG_NOTIFY_SILENT));
    put(&f->db.a, "k", "x");
    assert_false(woken(f, 200));
    bool changed = false;
    struct err_text e = {{0}};
    assert_int_equal(f->twin.source.ops->changed(f->twin.source.driver, &changed, &e), FERRY_OK);
    assert_true(changed);
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
    twin_kill(&f->twin);
    pooler_stop(&pooler);
    twin_open(&f->twin, f->db.url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_notify_wakes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_trigger_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_silent_notify_is_told, setup, teardown),
    };
    cmocka_set_test_filter(getenv("FERRY_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
