/* Assertions for our own bugs. They stay on in release builds: a broken invariant must stop the
 * process before it can answer OK to anything. What a peer or the system can cause is never asserted. */
#ifndef TQ_COMMON_ASSERT_H
#define TQ_COMMON_ASSERT_H

/* Prints file, line and expression to stderr and aborts. */
_Noreturn void tq_assert_fail(const char *file, int line, const char *expr);

#define TQ_ASSERT(expr) ((expr) ? (void)0 : tq_assert_fail(__FILE__, __LINE__, #expr))

#endif
