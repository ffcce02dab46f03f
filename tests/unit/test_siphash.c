/* SipHash-2-4 against the vectors of its authors: key 00 01 .. 0f, input 00 01 .. of each length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/siphash.h"
#include "tests/lib/guard.h"

/* As bytes, read from the left. */
static const uint64_t vectors[] = {
    0x310E0EDD47DB6F72, 0xFD67DC93C539F874, 0x5A4FA9D909806C0D, 0x2D7EFBD796666785, 0xB7877127E09427CF,
    0x8DA699CD64557618, 0xCEE3FE586E46C9CB, 0x37D1018BF50002AB, 0x6224939A79F5F593, 0xB0E4A90BDF82009E,
    0xF3B9DD94C5BB5D7A, 0xA7AD6B22462FB3F4, 0xFBE50E86BC8F1E75, 0x903D84C02756EA14, 0xEEF27A8E90CA23F7,
    0xE545BE4961CA29A1, 0xDB9BC2577FCC2A3F, 0x9447BE2CF5E99A69, 0x9CD38D96F0B3C14B, 0xBD6179A71DC96DBB,
    0x98EEA21AF25CD6BE, 0xC7673B2EB0CBF2D0, 0x883EA3E395675393, 0xC8CE5CCD8C030CA8,
};

static void it_is_the_authors_hash(void **state)
{
    uint8_t key[TQ_SIPHASH_KEY_BYTES], data[sizeof(vectors) / sizeof(vectors[0])];

    (void)state;
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)i;
    for (size_t n = 0; n < sizeof(data); n++) {
        data[n] = (uint8_t)n;

        uint8_t *copy = guard_copy(data, n);

        assert_int_equal(tq_siphash(key, copy, n), __builtin_bswap64(vectors[n]));
        guard_free(copy, n);
    }
}

static void another_key_is_another_hash(void **state)
{
    uint8_t a[TQ_SIPHASH_KEY_BYTES] = {0}, b[TQ_SIPHASH_KEY_BYTES] = {0};

    (void)state;
    b[TQ_SIPHASH_KEY_BYTES - 1] = 1;
    assert_int_not_equal(tq_siphash(a, "key", 3), tq_siphash(b, "key", 3));
    assert_int_not_equal(tq_siphash(a, "key", 3), tq_siphash(a, "kez", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_authors_hash),
        cmocka_unit_test(another_key_is_another_hash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
