/* Copies that end at an unreadable page: a parser that reads one byte too many dies. */
#ifndef TESTS_LIB_GUARD_H
#define TESTS_LIB_GUARD_H

#include <stddef.h>
#include <stdint.h>

uint8_t *guard_copy(const void *data, size_t n);
void guard_free(uint8_t *p, size_t n);

#endif
