#include "outbox/relay/poison_command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/mem.h"
#include "outbox/relay/json_text.h"

#define QUESTION_MAX_BYTES (SOURCE_ROW_MAX_BYTES * 2) /* Base64 is 4/3 of it, and the rest. */
#define ANSWER_MAX_BYTES   4096u
#define ARGUMENTS_MAX      32
#define ENVIRONMENT_MAX    1024
#define OWN_PREFIX         "FERRY_OUTBOX_"
#define END_LOOK_US        2000 /* Between two looks whether the program has ended. */

extern char **environ;

/* ---- The question. */

void poison_question_json(struct buf *out, const struct poison_question *question)
{
    const struct relay_refusal *refusal = question->refusal;
    const struct ferry_message *m = refusal->message;
    char id[ID_TEXT_BYTES];
    buf_printf(out, "{\"database\":");
    json_text(out, question->database);
    buf_printf(out, ",\"lane\":%" PRIu32 ",\"number\":%" PRId64 ",\"reason\":", question->lane,
               refusal->number);
    json_text(out, refusal->reason);
    buf_printf(out, ",\"topic\":");
    json_text(out, m->topic == NULL ? "" : m->topic);
    if (refusal->invalid) { /* What is wrong with it is in the reason. */
        buf_printf(out, "}\n");
        return;
    }
    id_format(&m->id, id);
    buf_printf(out, ",\"id\":\"%s\",\"key\":", id);
    if (m->key == NULL) {
        buf_printf(out, "null");
    } else {
        json_base64(out, m->key, m->key_bytes);
    }
    buf_printf(out, ",\"headers\":[");
    for (size_t i = 0; i < m->header_count; i++) {
        buf_printf(out, "%s{\"name\":", i == 0 ? "" : ",");
        json_text(out, m->headers[i].name);
        buf_printf(out, ",\"value\":");
        json_base64(out, m->headers[i].value, m->headers[i].value_bytes);
        buf_append_u8(out, '}');
    }
    buf_printf(out, "],\"payload\":");
    json_base64(out, m->payload, m->payload_bytes);
    buf_printf(out, "}\n");
}

/* ---- The program. */

struct asking {
    pid_t pid;
    int to, from; /* Its standard input and output; -1: closed. */
    int64_t deadline_us;
    char answer[ANSWER_MAX_BYTES];
    size_t answered;
    int status; /* Of waitpid. */
};

static void close_end(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
    *fd = -1;
}

/* The words of the command, cut in `copy`. */
static void split_words(char *copy, char *words[ARGUMENTS_MAX + 1])
{
    size_t count = 0;
    char *rest = copy;
    for (char *word = strsep(&rest, " \t"); word != NULL && count < ARGUMENTS_MAX;
         word = strsep(&rest, " \t")) {
        if (word[0] != '\0') {
            words[count++] = word;
        }
    }
    words[count] = NULL;
}

static void foreign_environment(char *kept[ENVIRONMENT_MAX + 1])
{
    size_t count = 0;
    for (char **at = environ; *at != NULL && count < ENVIRONMENT_MAX; at++) {
        if (strncmp(*at, OWN_PREFIX, sizeof(OWN_PREFIX) - 1) != 0) {
            kept[count++] = *at;
        }
    }
    kept[count] = NULL;
}

static int spawn_with(char *const words[], const int in[2], const int out[2], pid_t *pid)
{
    char *environment[ENVIRONMENT_MAX + 1];
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, all;
    foreign_environment(environment);
    sigemptyset(&none);
    sigfillset(&all);
    if (posix_spawn_file_actions_init(&files) != 0) {
        return ENOMEM;
    }
    if (posix_spawnattr_init(&how) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return ENOMEM;
    }
    posix_spawn_file_actions_adddup2(&files, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                       POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &all);
    int code = posix_spawn(pid, words[0], &files, &how, words, environment);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return code;
}

static enum ferry_err start_program(struct asking *a, const char *command, struct err_text *e)
{
    char copy[RELAY_COMMAND_MAX + 1];
    char *words[ARGUMENTS_MAX + 1];
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    (void)snprintf(copy, sizeof(copy), "%s", command);
    split_words(copy, words);
    int code = words[0] == NULL ? ENOENT : 0;
    if (code == 0 && (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)) {
        code = errno;
    }
    if (code == 0) {
        code = spawn_with(words, in, out, &a->pid);
    }
    close_end(&in[0]);
    close_end(&out[1]);
    if (code != 0) {
        close_end(&in[1]);
        close_end(&out[0]);
        return err_set(e, FERRY_ERR_IO, "relay.poison_command %.200s: %s",
                       words[0] == NULL ? "(none is given)" : words[0], strerror(code));
    }
    a->to = in[1];
    a->from = out[0];
    (void)fcntl(a->to, F_SETFL, O_NONBLOCK);
    (void)fcntl(a->from, F_SETFL, O_NONBLOCK);
    return FERRY_OK;
}

/* False: the end of what it prints, or an error, which is the same. */
static bool read_some(struct asking *a)
{
    char more[ANSWER_MAX_BYTES]; /* What does not fit is read all the same, or it would wait. */
    ssize_t bytes = read(a->from, more, sizeof(more));
    if (bytes < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    size_t room = sizeof(a->answer) - 1 - a->answered;
    size_t taken = (size_t)bytes < room ? (size_t)bytes : room;
    memcpy(a->answer + a->answered, more, taken);
    a->answered += taken;
    return bytes > 0;
}

/* A program that does not want all of the question is free to close its end. */
static void write_some(struct asking *a, struct bytes question, size_t *written)
{
    ssize_t bytes = write(a->to, question.data + *written, question.size - *written);
    if (bytes > 0) {
        *written += (size_t)bytes;
    }
    if (*written == question.size || (bytes < 0 && errno != EAGAIN && errno != EINTR)) {
        close_end(&a->to);
    }
}

/* Until it closes its output. False: not in time. */
static bool talk(struct asking *a, struct bytes question)
{
    size_t written = 0;
    for (;;) {
        int64_t left_us = a->deadline_us - clock_monotonic_us();
        if (left_us <= 0) {
            return false;
        }
        struct pollfd fds[2] = {{.fd = a->from, .events = POLLIN},
                                {.fd = a->to, .events = POLLOUT}};
        if (poll(fds, 2, (int)(left_us / 1000) + 1) <= 0) {
            continue;
        }
        if (a->to >= 0 && fds[1].revents != 0) {
            write_some(a, question, &written);
        }
        if (fds[0].revents != 0 && !read_some(a)) {
            return true;
        }
    }
}

/* Collects the program; whatever it started in its group ends with it. False: it had to be killed.
 */
static bool collect(struct asking *a, bool in_time)
{
    bool ended = false;
    while (in_time && !ended && clock_monotonic_us() < a->deadline_us) {
        ended = waitpid(a->pid, &a->status, WNOHANG) != 0;
        if (!ended) {
            (void)usleep(END_LOOK_US);
        }
    }
    (void)kill(-a->pid, SIGKILL);
    if (!ended) {
        while (waitpid(a->pid, &a->status, 0) < 0 && errno == EINTR) {
        }
    }
    return ended;
}

/* ---- The answer. */

static enum relay_poison by_word(const char *word, size_t bytes, struct err_text *e)
{
    static const struct {
        const char *word;
        enum relay_poison answer;
    } words[] = {{"dead", RELAY_POISON_DEAD},
                 {"park", RELAY_POISON_PARK_KEY},
                 {"block", RELAY_POISON_BLOCK}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes == strlen(words[i].word) && memcmp(word, words[i].word, bytes) == 0) {
            return words[i].answer;
        }
    }
    err_set(e, FERRY_ERR_INVALID_ARGUMENT,
            "relay.poison_command answered \"%.*s\", which is none of dead, park, block",
            bytes > 40 ? 40 : (int)bytes, word);
    return RELAY_POISON_CALLBACK;
}

static enum relay_poison by_exit(int status, struct err_text *e)
{
    static const enum relay_poison answers[] = {RELAY_POISON_DEAD, RELAY_POISON_PARK_KEY,
                                                RELAY_POISON_BLOCK};
    if (!WIFEXITED(status)) {
        err_set(e, FERRY_ERR_IO, "relay.poison_command was ended by signal %d", WTERMSIG(status));
        return RELAY_POISON_CALLBACK;
    }
    if (WEXITSTATUS(status) > 2) {
        err_set(e, FERRY_ERR_IO, "relay.poison_command failed: exit code %d", WEXITSTATUS(status));
        return RELAY_POISON_CALLBACK;
    }
    return answers[WEXITSTATUS(status)];
}

static enum relay_poison answer_of(const struct asking *a, struct err_text *e)
{
    const char *word = a->answer + strspn(a->answer, " \t\r\n");
    size_t bytes = strcspn(word, " \t\r\n");
    return bytes > 0 ? by_word(word, bytes, e) : by_exit(a->status, e);
}

enum relay_poison poison_command_ask(const struct relay_options *options,
                                     const struct poison_question *question, struct err_text *e)
{
    struct asking a = {.pid = -1, .to = -1, .from = -1};
    struct buf json;
    enum relay_poison answer = RELAY_POISON_CALLBACK;
    buf_init(&json, QUESTION_MAX_BYTES);
    poison_question_json(&json, question);
    a.deadline_us = clock_monotonic_us() + options->poison_command_ms * 1000;
    if (!buf_ok(&json)) {
        err_set(e, FERRY_ERR_NO_MEMORY, "relay.poison_command: the row does not fit into memory");
    } else if (start_program(&a, options->poison_command, e) == FERRY_OK) {
        bool in_time = talk(&a, buf_bytes(&json));
        close_end(&a.to);
        close_end(&a.from);
        if (collect(&a, in_time)) {
            answer = answer_of(&a, e);
        } else {
            err_set(e, FERRY_ERR_TIMEOUT, "relay.poison_command did not end within %" PRId64 " ms",
                    options->poison_command_ms);
        }
    }
    buf_fini(&json);
    return answer;
}
