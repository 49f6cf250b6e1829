#include "sim/coverage.h"

static bool set[MARKS];

static const struct {
    const char *name, *what;
    bool required;
} table[MARKS] = {
#define COVERAGE_ROW(name, required, what) {#name, what, required},
    COVERAGE_MAP(COVERAGE_ROW)
#undef COVERAGE_ROW
};

void mark(enum mark m)
{
    set[m] = true;
}

bool mark_is_set(enum mark m)
{
    return set[m];
}

void marks_clear(void)
{
    for (int i = 0; i < MARKS; i++) {
        set[i] = false;
    }
}

const char *mark_name(enum mark m)
{
    return table[m].name;
}

const char *mark_what(enum mark m)
{
    return table[m].what;
}

bool mark_is_required(enum mark m)
{
    return table[m].required;
}
