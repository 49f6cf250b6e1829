/* The administrator: makes a topic and deletes it again while others use it, asks for things. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define ADMIN_MS 5000

static void make_temp(struct session *s)
{
    struct ferry_topic_spec spec = {
        .name = "temp", .partitions = 1, .replicas = s->p->load->replicas, .retention_ms = -1};
    program_note(s->p, "create temp", ferry_topic_create(s->client, &spec, ADMIN_MS));
}

static void look_around(struct session *s)
{
    struct ferry_topic_info *info;
    char **names;
    size_t count;
    const struct history *h = &s->p->load->history;
    const struct history_topic *t = &h->topics[chance_below(h->topic_count)];
    enum ferry_err err = ferry_topic_info(s->client, t->name, ADMIN_MS, &info);
    program_note(s->p, "info", err);
    if (err == FERRY_OK) {
        ferry_topic_info_free(&info);
    }
    err = ferry_topic_list(s->client, ADMIN_MS, &names, &count);
    program_note(s->p, "list", err);
    if (err == FERRY_OK) {
        ferry_names_free(&names);
    }
}

void admin_session(struct program *p)
{
    struct session s;
    int64_t until = world_now() + chance_between(3, 30) * SIM_SECOND;
    if (!session_open(&s, p, NULL)) {
        return;
    }
    while (session_may_go_on(p, until)) {
        switch (chance_below(4)) {
        case 0:
            make_temp(&s);
            break;
        case 1:
            program_note(p, "delete temp", ferry_topic_delete(s.client, "temp", ADMIN_MS));
            break;
        default:
            look_around(&s);
            break;
        }
        p->done++;
        fiber_sleep(chance_between(100, 4000) * SIM_MS);
    }
    ferry_close(&s.client, 0);
}
