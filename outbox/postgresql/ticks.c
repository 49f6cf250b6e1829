#include "outbox/postgresql/ticks.h"

#include "base/mem.h"

/* ---- Ends and pages. */

static void ends_drop(struct ticks *t, size_t from)
{
    while (t->end_count > from) {
        snapshot_release(&t->ends[--t->end_count].seen);
    }
}

static void ends_remove(struct ticks *t, size_t at, size_t count)
{
    for (size_t i = at; i < at + count; i++) {
        snapshot_release(&t->ends[i].seen);
    }
    memmove(&t->ends[at], &t->ends[at + count], (t->end_count - at - count) * sizeof(t->ends[0]));
    t->end_count -= count;
}

/* Notes that all of `seen` was handed out up to now. Every second note goes when there is no room:
 * then a checkpoint or a rewind is a little further back. The first and the last stay. */
static void ends_add(struct ticks *t, struct snapshot *seen)
{
    if (t->ends[t->end_count - 1].position == t->position) {
        snapshot_set(&t->ends[t->end_count - 1].seen, seen);
        t->ends[t->end_count - 1].last = t->last;
        return;
    }
    if (t->end_count == TICKS_ENDS_MAX) {
        for (size_t i = 1; i + 1 < t->end_count; i++) {
            ends_remove(t, i, 1);
        }
    }
    must(t->end_count < TICKS_ENDS_MAX);
    t->ends[t->end_count++] = (struct tick_end){t->position, snapshot_hold(seen), t->last};
}

static void pages_add(struct ticks *t)
{
    struct tick_page page = {t->position, t->seq_at, t->last};
    if (t->page_count > 0 && t->pages[t->page_count - 1].position == t->position) {
        t->pages[t->page_count - 1] = page;
        return;
    }
    if (t->page_count == TICKS_PAGES_MAX) {
        size_t kept = 0;
        for (size_t i = 0; i < t->page_count; i += 2) {
            t->pages[kept++] = t->pages[i];
        }
        t->page_count = kept;
    }
    t->pages[t->page_count++] = page;
}

/* The last end that is not behind `position`; the first is the base and always is. */
static size_t end_at(const struct ticks *t, int64_t position)
{
    size_t at = 0;
    while (at + 1 < t->end_count && t->ends[at + 1].position <= position) {
        at++;
    }
    return at;
}

/* ---- Life. */

enum ferry_err ticks_init(struct ticks *t)
{
    *t = (struct ticks){0};
    struct snapshot *none = snapshot_empty();
    if (none == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct cover all = {.base = none};
    ticks_begin(t, &all);
    snapshot_release(&none);
    return FERRY_OK;
}

void ticks_fini(struct ticks *t)
{
    must(t->marks == NULL);
    ends_drop(t, 0);
    snapshot_release(&t->lower);
    snapshot_release(&t->upper);
}

void ticks_begin(struct ticks *t, const struct cover *from)
{
    must(t->marks == NULL);
    must(from->base != NULL);
    ends_drop(t, 0);
    t->last = (struct tick_last){0};
    t->ends[t->end_count++] = (struct tick_end){t->position, snapshot_hold(from->base), t->last};
    snapshot_set(&t->lower, from->base);
    snapshot_set(&t->upper, from->upper);
    t->seq_at = from->upper != NULL ? from->seq_hi : COVER_SEQ_NONE;
    t->pass_seq = t->seq_at;
    t->pass_start = t->position;
    t->settled = t->position;
    t->ended = false;
    t->page_count = 0;
    t->extra = NULL;
    t->page_is_extra = false;
    t->page_is_last = false;
}

/* ---- Reading. */

static void come_to_rest(struct source_mark *mark)
{
    must(mark->cover.upper != NULL);
    snapshot_set(&mark->cover.base, mark->cover.upper);
    snapshot_release(&mark->cover.upper);
    mark->cover.seq_hi = COVER_SEQ_NONE;
    mark->extra = false;
}

/* The tick was handed out and sent: the next one begins where it ended. */
static void tick_over(struct ticks *t)
{
    for (struct source_mark *mark = t->marks; mark != NULL; mark = mark->next) {
        if (!mark->extra && mark->cover.upper == t->upper) {
            come_to_rest(mark);
        }
    }
    snapshot_set(&t->lower, t->upper);
    snapshot_release(&t->upper);
    t->seq_at = COVER_SEQ_NONE;
    t->pass_seq = COVER_SEQ_NONE;
    t->pass_start = t->position;
    t->page_count = 0;
    t->ended = false;
}

static void page_over(struct ticks *t)
{
    if (t->page_is_last && t->page_is_extra && t->extra != NULL) {
        if (t->extra->cover.upper != NULL) {
            come_to_rest(t->extra);
        }
        t->extra = NULL;
    }
    t->page_is_last = false;
    t->page_is_extra = false;
}

static struct source_mark *next_extra(const struct ticks *t)
{
    struct source_mark *mark = t->marks;
    while (mark != NULL && !mark->extra) {
        mark = mark->next;
    }
    return mark;
}

void ticks_next(struct ticks *t, struct ticks_job *job)
{
    page_over(t);
    if (t->extra == NULL) {
        t->extra = next_extra(t);
        t->extra_seq = t->extra == NULL ? COVER_SEQ_NONE : t->extra->cover.seq_hi;
    }
    if (t->extra != NULL) {
        const struct cover *c = &t->extra->cover;
        must(c->upper != NULL);
        *job = (struct ticks_job){c->base, c->upper, t->extra_seq, true};
        return;
    }
    if (t->ended) {
        tick_over(t);
    }
    *job = (struct ticks_job){t->lower, t->upper, t->seq_at, false};
}

void ticks_peek(const struct ticks *t, struct ticks_job *job)
{
    must(!t->page_is_last);
    *job = t->extra != NULL
               ? (struct ticks_job){t->extra->cover.base, t->extra->cover.upper, t->extra_seq, true}
               : (struct ticks_job){t->lower, t->upper, t->seq_at, false};
    must(job->upper != NULL);
}

void ticks_open(struct ticks *t, struct snapshot *upper)
{
    must(t->upper == NULL && !t->ended);
    must(upper != NULL);
    snapshot_set(&t->upper, upper);
    t->pass_start = t->position;
}

void ticks_skip(struct ticks *t, struct snapshot *seen)
{
    must(t->upper == NULL && !t->ended);
    snapshot_set(&t->lower, seen);
    ends_add(t, seen);
}

int64_t ticks_page(struct ticks *t, size_t rows, int64_t seq, const struct tick_last *last,
                   bool ended)
{
    int64_t before = t->position;
    t->position += (int64_t)rows;
    t->page_is_extra = t->extra != NULL;
    t->page_is_last = ended;
    if (t->extra != NULL) {
        must(seq >= t->extra_seq);
        t->extra_seq = seq;
        return before;
    }
    must(t->upper != NULL && !t->ended);
    must(seq >= t->seq_at);
    t->seq_at = seq;
    if (last->known) {
        t->last = *last;
    }
    if (ended) {
        t->ended = true;
        ends_add(t, t->upper);
    } else {
        pages_add(t);
    }
    return before;
}

/* Back to a page of this pass, or to its start. */
static void rewind_in_pass(struct ticks *t, int64_t after)
{
    while (t->page_count > 0 && t->pages[t->page_count - 1].position > after) {
        t->page_count--;
    }
    t->seq_at = t->page_count > 0 ? t->pages[t->page_count - 1].seq : t->pass_seq;
    t->ended = false;
}

void ticks_rewind(struct ticks *t, int64_t after)
{
    t->page_is_last = false;
    t->page_is_extra = false;
    t->extra = NULL; /* Begun anew, behind what its mark has. */
    size_t end = end_at(t, after);
    bool ended = t->ended && end + 1 == t->end_count;
    ends_drop(t, end + 1);
    if (after >= t->position || ended) {
        return;
    }
    if (after >= t->pass_start) {
        rewind_in_pass(t, after);
        return;
    }
    /* A longer tick up to the same upper, all of it. */
    snapshot_set(&t->lower, t->ends[end].seen);
    t->page_count = 0;
    t->seq_at = COVER_SEQ_NONE;
    t->pass_seq = COVER_SEQ_NONE;
    t->pass_start = t->position;
    t->ended = false;
}

/* ---- What is settled. */

void ticks_settled(struct ticks *t, int64_t settled, struct cover *cover, struct tick_last *last)
{
    t->settled = settled > t->settled ? settled : t->settled;
    ends_remove(t, 0, end_at(t, t->settled));
    const struct tick_end *end = &t->ends[0];
    *cover = (struct cover){end->seen, NULL, COVER_SEQ_NONE};
    *last = end->last;
    if (t->upper == NULL || (t->ended && end->seen == t->upper)) {
        return;
    }
    cover->upper = t->upper;
    if (t->pass_start > t->settled || end->seen != t->lower) {
        return;
    }
    cover->seq_hi = t->pass_seq;
    for (size_t i = 0; i < t->page_count && t->pages[i].position <= t->settled; i++) {
        cover->seq_hi = t->pages[i].seq;
        *last = t->pages[i].last;
    }
}

const struct snapshot *ticks_seen_at(const struct ticks *t, int64_t position)
{
    return t->ends[end_at(t, position)].seen;
}

/* ---- Marks. */

enum ferry_err ticks_mark_open(struct ticks *t, struct cover *cover, struct source_mark **mark,
                               bool *again)
{
    struct source_mark *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct cover settled;
    struct tick_last ignored;
    ticks_settled(t, t->settled, &settled, &ignored);
    made->cover = *cover;
    *cover = (struct cover){0};
    struct cover *c = &made->cover;
    cover_raise(c, &settled);
    if (c->upper != NULL && t->upper != NULL && snapshot_equal(c->upper, t->upper)) {
        snapshot_set(&c->upper, t->upper);
    } else {
        made->extra = c->upper != NULL;
    }
    *again = made->extra;
    made->next = t->marks;
    if (t->marks != NULL) {
        t->marks->before = made;
    }
    t->marks = made;
    *mark = made;
    return FERRY_OK;
}

void ticks_mark_close(struct ticks *t, struct source_mark *mark)
{
    if (mark == NULL) {
        return;
    }
    if (t->extra == mark) {
        t->extra = NULL;
    }
    if (mark->before != NULL) {
        mark->before->next = mark->next;
    } else {
        must(t->marks == mark);
        t->marks = mark->next;
    }
    if (mark->next != NULL) {
        mark->next->before = mark->before;
    }
    cover_fini(&mark->cover);
    mem_free(mark);
}

bool ticks_wants(const struct ticks *t, const struct source_mark *mark, uint64_t xid, int64_t seq)
{
    if (t->page_is_extra && mark != t->extra) {
        return false;
    }
    return !cover_has(&mark->cover, xid, seq);
}

bool ticks_mark_after(const struct ticks *t, const struct source_mark *mark, int64_t seq, bool last,
                      struct cover *cover)
{
    const struct cover *c = &mark->cover;
    if (t->page_is_extra ? mark != t->extra : mark->extra) {
        return false;
    }
    struct snapshot *upper = t->page_is_extra ? c->upper : t->upper;
    must(upper != NULL);
    if (last && t->page_is_last) {
        *cover = (struct cover){upper, NULL, COVER_SEQ_NONE};
        return true;
    }
    *cover = (struct cover){c->base, upper, seq};
    if (c->upper != NULL) {
        must(c->upper == upper);
        cover->seq_hi = seq > c->seq_hi ? seq : c->seq_hi;
    } else if (snapshot_covers(t->lower, c->base)) {
        cover->base = t->lower;
    }
    return true;
}

bool ticks_mark_add(const struct ticks *t, struct source_mark *mark, int64_t seq, bool last)
{
    struct cover after;
    if (!ticks_mark_after(t, mark, seq, last, &after)) {
        return false;
    }
    cover_set(&mark->cover, after.base, after.upper, after.seq_hi);
    mark->extra = mark->extra && after.upper != NULL;
    return true;
}

void ticks_check(const struct ticks *t)
{
    must(t->end_count > 0 && t->end_count <= TICKS_ENDS_MAX);
    must(t->lower != NULL);
    must(t->upper == NULL || snapshot_covers(t->upper, t->lower));
    must(!t->ended || t->upper != NULL);
    for (size_t i = 1; i < t->end_count; i++) {
        must(t->ends[i].position > t->ends[i - 1].position);
        must(snapshot_covers(t->ends[i].seen, t->ends[i - 1].seen));
    }
    for (size_t i = 1; i < t->page_count; i++) {
        must(t->pages[i].position > t->pages[i - 1].position);
        must(t->pages[i].seq >= t->pages[i - 1].seq);
    }
    for (const struct source_mark *mark = t->marks; mark != NULL; mark = mark->next) {
        must(mark->cover.base != NULL);
        must(mark->extra || mark->cover.upper == NULL || mark->cover.upper == t->upper);
        must(!mark->extra || mark->cover.upper != NULL);
    }
}
