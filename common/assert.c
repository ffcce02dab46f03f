#include "common/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void tq_assert_fail(const char *file, int line, const char *expr)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    fflush(stderr);
    abort();
}
