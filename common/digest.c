#include "common/digest.h"

#include "common/assert.h"
#include "common/err.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#endif

static const struct {
    const char *name;    /* Python's */
    const char *library; /* OpenSSL's */
    size_t bytes;
} digests[TQ_DIGEST_COUNT] = {
    [TQ_MD5] = {"md5", "MD5", 16},
    [TQ_SHA256] = {"sha256", "SHA256", 32},
    [TQ_SHA384] = {"sha384", "SHA384", 48},
    [TQ_SHA3_256] = {"sha3_256", "SHA3-256", 32},
    [TQ_SHA3_384] = {"sha3_384", "SHA3-384", 48},
};

static unsigned long hmac_count;

const char *tq_digest_name(enum tq_digest d)
{
    TQ_ASSERT((unsigned)d < TQ_DIGEST_COUNT);
    return digests[d].name;
}

size_t tq_digest_bytes(enum tq_digest d)
{
    TQ_ASSERT((unsigned)d < TQ_DIGEST_COUNT);
    return digests[d].bytes;
}

int tq_digest_by_name(struct tq_span name, enum tq_digest *ret_d)
{
    for (unsigned d = 0; d < TQ_DIGEST_COUNT; d++) {
        if (tq_span_is(name, digests[d].name)) {
            *ret_d = (enum tq_digest)d;
            return TQ_OK;
        }
    }
    return TQ_ENOTFOUND;
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L

/* A digest's context keeps its digest when it is keyed again, which spares a fetch by name (and its
 * lock) for each HMAC. */
static struct {
    OSSL_LIB_CTX *lib;
    OSSL_PROVIDER *provider;
    EVP_MAC *mac;
    EVP_MAC_CTX *contexts[TQ_DIGEST_COUNT];
} crypto;

/* The system's configuration is not read into this context; "provider=default" says so once more where
 * a distribution forces FIPS properties on every context. */
static const char properties[] = "provider=default";

static int load_library(void)
{
    if (crypto.mac != NULL)
        return TQ_OK;
    crypto.lib = OSSL_LIB_CTX_new();
    if (crypto.lib == NULL)
        return TQ_ECRYPTO;
    crypto.provider = OSSL_PROVIDER_load(crypto.lib, "default");
    if (crypto.provider != NULL)
        crypto.mac = EVP_MAC_fetch(crypto.lib, OSSL_MAC_NAME_HMAC, properties);
    if (crypto.mac == NULL) {
        tq_digest_cleanup();
        return TQ_ECRYPTO;
    }
    return TQ_OK;
}

static EVP_MAC_CTX *context_of(enum tq_digest d)
{
    OSSL_PARAM params[3];
    EVP_MAC_CTX *context;

    if (crypto.contexts[d] != NULL)
        return crypto.contexts[d];
    if (load_library() != TQ_OK)
        return NULL;
    context = EVP_MAC_CTX_new(crypto.mac);
    if (context == NULL)
        return NULL;
    /* The library takes these texts as char * and does not write to them. */
    params[0] =
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)digests[d].library, 0);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_PROPERTIES, (char *)(uintptr_t)properties, 0);
    params[2] = OSSL_PARAM_construct_end();
    if (EVP_MAC_CTX_set_params(context, params) != 1) {
        EVP_MAC_CTX_free(context);
        return NULL;
    }
    crypto.contexts[d] = context;
    return context;
}

int tq_hmac(enum tq_digest d, struct tq_span key, struct tq_span message, uint8_t *out)
{
    /* A NULL key would mean "the key of before". */
    const uint8_t *key_data = key.len > 0 ? key.data : (const uint8_t *)"";
    EVP_MAC_CTX *context;
    size_t n = 0;

    TQ_ASSERT((unsigned)d < TQ_DIGEST_COUNT);
    hmac_count++;
    context = context_of(d);
    if (context == NULL || EVP_MAC_init(context, key_data, key.len, NULL) != 1 ||
        (message.len > 0 && EVP_MAC_update(context, message.data, message.len) != 1) ||
        EVP_MAC_final(context, out, &n, digests[d].bytes) != 1 || n != digests[d].bytes)
        return TQ_ECRYPTO;
    return TQ_OK;
}

void tq_digest_cleanup(void)
{
    for (unsigned d = 0; d < TQ_DIGEST_COUNT; d++) {
        EVP_MAC_CTX_free(crypto.contexts[d]);
        crypto.contexts[d] = NULL;
    }
    EVP_MAC_free(crypto.mac);
    crypto.mac = NULL;
    if (crypto.provider != NULL)
        OSSL_PROVIDER_unload(crypto.provider);
    crypto.provider = NULL;
    OSSL_LIB_CTX_free(crypto.lib);
    crypto.lib = NULL;
}

#else /* OpenSSL 1.1.1 */

static HMAC_CTX *hmac_context;

static const EVP_MD *library_digest(enum tq_digest d)
{
    switch (d) {
    case TQ_MD5:
        return EVP_md5();
    case TQ_SHA256:
        return EVP_sha256();
    case TQ_SHA384:
        return EVP_sha384();
    case TQ_SHA3_256:
        return EVP_sha3_256();
    case TQ_SHA3_384:
        return EVP_sha3_384();
    default:
        return NULL;
    }
}

int tq_hmac(enum tq_digest d, struct tq_span key, struct tq_span message, uint8_t *out)
{
    const uint8_t *key_data = key.len > 0 ? key.data : (const uint8_t *)"";
    unsigned n = 0;

    TQ_ASSERT((unsigned)d < TQ_DIGEST_COUNT);
    hmac_count++;
    if (key.len > INT32_MAX)
        return TQ_ECRYPTO;
    if (hmac_context == NULL)
        hmac_context = HMAC_CTX_new();
    if (hmac_context == NULL || HMAC_CTX_reset(hmac_context) != 1)
        return TQ_ECRYPTO;
    HMAC_CTX_set_flags(hmac_context, EVP_MD_CTX_FLAG_NON_FIPS_ALLOW);
    if (HMAC_Init_ex(hmac_context, key_data, (int)key.len, library_digest(d), NULL) != 1 ||
        (message.len > 0 && HMAC_Update(hmac_context, message.data, message.len) != 1) ||
        HMAC_Final(hmac_context, out, &n) != 1 || n != digests[d].bytes)
        return TQ_ECRYPTO;
    return TQ_OK;
}

void tq_digest_cleanup(void)
{
    HMAC_CTX_free(hmac_context);
    hmac_context = NULL;
}

#endif

unsigned long tq_hmac_count(void)
{
    return hmac_count;
}

int tq_random_bytes(void *out, size_t n)
{
    uint8_t *p = out;

    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);

        if (got < 0) {
            if (errno == EINTR)
                continue;
            return TQ_ECRYPTO;
        }
        p += got;
        n -= (size_t)got;
    }
    return TQ_OK;
}

bool tq_equal_constant_time(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}
