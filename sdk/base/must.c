#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void must_fail(const char *expression, const char *file, int line)
{
    fprintf(stderr, "ferry: bug: %s:%d: must(%s) does not hold; please report this line\n", file,
            line, expression);
    abort();
}
