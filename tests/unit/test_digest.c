/* HMAC against vectors of Python's hmac module. The whole program runs under a library configuration that
 * allows FIPS algorithms only, as a hardened machine has it: MD5 must be there all the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/digest.h"
#include "common/err.h"
#include "tests/lib/guard.h"

static uint8_t long_key[300];
static uint8_t payload[48]; /* "{sha256}", then 0 ... 39 */

static const struct {
    enum tq_digest digest;
    const char *key;     /* NULL: long_key */
    const char *message; /* NULL: payload */
    const char *hex;
} vectors[] = {
    {TQ_MD5, "abc", "is-twenty-bytes-long", "a8ffc73077b1bea8bbf0da363d42dbcb"},
    {TQ_SHA256, "abc", "is-twenty-bytes-long",
     "311f2ce97023585cbb688ee7b8ee35c7bfb87d44e857294aea959a20e9f88ba9"},
    {TQ_SHA256, "abc", NULL, "ee2b4cd766c1e0f5eb564525d250361f729d00e3948c83c5651d1cefdb97de31"},
    {TQ_MD5, "abc", NULL, "3e4faf2fc53f133cd76571e5d3fb9fd5"},
    {TQ_MD5, "", NULL, "ce41ab84017ef3f9983d4f85bdc11d08"},
    {TQ_MD5, "", "", "74e6f7298a9c2d168935f58c001bad88"},
    {TQ_MD5, NULL, NULL, "159753c3dc7641747407d9e87b992f7c"},
    {TQ_SHA256, "", NULL, "d18b190a737f779d3125c4a2dfddcebf933e2f2713bc92fbe386ca25df9fd7af"},
    {TQ_SHA256, "", "", "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"},
    {TQ_SHA256, NULL, NULL, "c3a6e5bbd73998d394e4df1c800c4ca548d36b67d73360bcb88ecebce792abc7"},
    {TQ_SHA384, "abc", NULL,
     "2d32bf2730ff075bad53a6d7651eab6fbf775bab939b493f38d5a653f15a4df2"
     "35a2c0f44c5de12a1aa7e38baf661bc3"},
    {TQ_SHA384, NULL, NULL,
     "df3d18841484b65409ce838ad4d7d59ffef2f849c5b0f8416ba01007713698dd"
     "80730d5127daac5918fe0e04df069ae9"},
    {TQ_SHA3_256, "abc", NULL, "c9ebbab20481d215e498d1a84c14a5c55c4c4ff84bac93e0de7ded75d48ee128"},
    {TQ_SHA3_256, "", "", "e841c164e5b4f10c9f3985587962af72fd607a951196fc92fb3a5251941784ea"},
    {TQ_SHA3_256, NULL, NULL, "a32e0c27d3941b2292a4896ab1702f49c3959f8eef150f7a7ff0d0fd80241b26"},
    {TQ_SHA3_384, "abc", NULL,
     "807ce4908a470029ede6af46bc99c060211a759624af7dcb7912b7e890a163fc"
     "a98b96152ac079000af3e1c45dce8f33"},
    {TQ_SHA3_384, NULL, NULL,
     "2371eca7af35b90618773e93994e2aa8064a08b132b2b2e3b1117e863988b0c6"
     "df011fc90e88e3391a6063b06334dda8"},
};

static const size_t vector_count = sizeof(vectors) / sizeof(vectors[0]);

static void check_vector(size_t i)
{
    struct tq_span key = vectors[i].key ? tq_span_str(vectors[i].key) : tq_span(long_key, sizeof(long_key));
    struct tq_span message =
        vectors[i].message ? tq_span_str(vectors[i].message) : tq_span(payload, sizeof(payload));
    size_t n = tq_digest_bytes(vectors[i].digest);
    uint8_t zero[TQ_DIGEST_MAX_BYTES] = {0};
    char hex[2 * TQ_DIGEST_MAX_BYTES + 1];
    uint8_t *k, *m, *out; /* each ends at an unreadable page */

    k = guard_copy(key.data, key.len);
    m = guard_copy(message.data, message.len);
    out = guard_copy(zero, n);
    assert_int_equal(tq_hmac(vectors[i].digest, tq_span(k, key.len), tq_span(m, message.len), out), TQ_OK);
    for (size_t b = 0; b < n; b++)
        snprintf(hex + 2 * b, 3, "%02x", out[b]);
    assert_string_equal(hex, vectors[i].hex);
    guard_free(k, key.len);
    guard_free(m, message.len);
    guard_free(out, n);
}

static void test_vectors_in_any_order(void **state)
{
    unsigned long before = tq_hmac_count();

    (void)state;
    /* Contexts are kept and keyed again: nothing of one call may show in the next. */
    for (size_t step = 1; step <= vector_count; step++) {
        for (size_t i = 0; i < vector_count; i++)
            check_vector(i * step % vector_count);
    }
    assert_int_equal(tq_hmac_count() - before, vector_count * vector_count);
}

static void test_empty_key_without_memory_behind_it(void **state)
{
    uint8_t a[16], b[16], c[16];

    (void)state;
    /* A key of before must not be taken for the empty one. */
    assert_int_equal(tq_hmac(TQ_MD5, tq_span("abc", 3), tq_span("m", 1), a), TQ_OK);
    assert_int_equal(tq_hmac(TQ_MD5, tq_span(NULL, 0), tq_span("m", 1), b), TQ_OK);
    assert_int_equal(tq_hmac(TQ_MD5, tq_span("", 0), tq_span("m", 1), c), TQ_OK);
    assert_memory_equal(b, c, 16);
    assert_memory_not_equal(a, b, 16);
    assert_int_equal(tq_hmac(TQ_MD5, tq_span(NULL, 0), tq_span(NULL, 0), a), TQ_OK);
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
static void test_system_configuration_has_no_say(void **state)
{
    EVP_MD *md5 = EVP_MD_fetch(NULL, "MD5", NULL);

    (void)state;
    assert_null(md5); /* the configuration works */
    EVP_MD_free(md5);
    check_vector(0);
}
#endif

static void test_names(void **state)
{
    static const char *const wrong[] = {"",        "sha1",    "sha512",  "md5 ",      "MD5",
                                        "sha25",   "sha2566", "sha3",    "sha3-256",  "{sha256}",
                                        "sha256}", "ha256",   "sha3_38", "sha3_3844", "sha999"};
    static const char *const right[] = {"md5", "sha256", "sha384", "sha3_256", "sha3_384"};
    static const size_t bytes[] = {16, 32, 48, 32, 48};
    enum tq_digest d;

    (void)state;
    for (unsigned i = 0; i < TQ_DIGEST_COUNT; i++) {
        assert_int_equal(tq_digest_by_name(tq_span_str(right[i]), &d), TQ_OK);
        assert_int_equal(d, i);
        assert_string_equal(tq_digest_name(d), right[i]);
        assert_int_equal(tq_digest_bytes(d), bytes[i]);
        assert_true(tq_digest_bytes(d) <= TQ_DIGEST_MAX_BYTES);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(tq_digest_by_name(tq_span_str(wrong[i]), &d), TQ_ENOTFOUND);
    assert_int_equal(tq_digest_by_name(tq_span("md5\0", 4), &d), TQ_ENOTFOUND);
}

static void test_equal(void **state)
{
    uint8_t a[64], b[64];

    (void)state;
    memset(a, 7, sizeof(a));
    memcpy(b, a, sizeof(a));
    assert_true(tq_equal_constant_time(a, b, sizeof(a)));
    assert_true(tq_equal_constant_time(a, b, 0));
    for (size_t i = 0; i < sizeof(a) * 8; i++) {
        b[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_false(tq_equal_constant_time(a, b, sizeof(a)));
        assert_true(tq_equal_constant_time(a, b, i / 8));
        b[i / 8] ^= (uint8_t)(1u << i % 8);
    }
}

/* Every byte is written, and no value is favoured grossly. */
static void test_random_bytes(void **state)
{
    enum { N = 64 * 1024 };
    static uint8_t buf[N + 1];
    unsigned seen[256] = {0};

    (void)state;
    buf[N] = 0xa5;
    assert_int_equal(tq_random_bytes(buf, N), TQ_OK);
    assert_int_equal(buf[N], 0xa5);
    for (size_t i = 0; i < N; i++)
        seen[buf[i]]++;
    for (unsigned v = 0; v < 256; v++)
        assert_in_range(seen[v], 256 - 128, 256 + 128); /* eight standard deviations */
    assert_int_equal(tq_random_bytes(NULL, 0), TQ_OK);
}

static void test_cleanup_and_again(void **state)
{
    (void)state;
    tq_digest_cleanup();
    tq_digest_cleanup();
    for (size_t i = 0; i < vector_count; i++)
        check_vector(i);
}

static int end(void **state)
{
    (void)state;
    tq_digest_cleanup();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
        cmocka_unit_test(test_system_configuration_has_no_say),
#endif
        cmocka_unit_test(test_vectors_in_any_order),
        cmocka_unit_test(test_empty_key_without_memory_behind_it),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_cleanup_and_again),
    };
    static const char config[] = "openssl_conf = all\n[all]\nalg_section = algorithms\n"
                                 "[algorithms]\ndefault_properties = fips=yes\n";
    char path[] = "/tmp/taskq-test-digest-XXXXXX";
    int fd = mkstemp(path);
    int rv;

    for (size_t i = 0; i < sizeof(long_key); i++)
        long_key[i] = (uint8_t)i;
    memcpy(payload, "{sha256}", 8);
    for (size_t i = 8; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(i - 8);
    if (fd < 0 || write(fd, config, sizeof(config) - 1) != (ssize_t)sizeof(config) - 1 || close(fd) != 0 ||
        setenv("OPENSSL_CONF", path, 1) != 0) {
        perror(path);
        return 1;
    }
    rv = cmocka_run_group_tests(tests, NULL, end);
    unlink(path);
    return rv;
}
