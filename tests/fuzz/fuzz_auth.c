/* The handshake, frame by frame. Byte 0: flags; byte 1: how many keys, and which one the peer has; then
 * frames, each behind its length in one byte (0xff: 256). */
#include "common/mem.h"
#include "proto/auth.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SERVER = 1, MD5_REFUSED = 2, RHEL = 4, REPAIR = 8, REFLECT = 16 };

static const char *const secrets[] = {"abc", "",
                                      "a longer key, of more than one block of any digest here: "
                                      "................................................."
                                      "................................................."};

static void check_out(const struct tq_auth *a, int rv, const struct tq_auth_out *out)
{
    TQ_ASSERT(out->count <= 1);
    TQ_ASSERT(rv == TQ_OK || a->state == TQ_AUTH_FAILED);
    TQ_ASSERT(rv != TQ_OK || a->state != TQ_AUTH_FAILED);
    if (rv != TQ_OK && out->count > 0)
        TQ_ASSERT(rv == TQ_EAUTH && tq_span_is(tq_span(out->msg[0].data, out->msg[0].len), "#FAILURE#"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tq_auth_key keys[3];
    struct tq_auth_registry registry;
    struct tq_auth a;
    struct tq_auth_out out;
    uint8_t challenge[TQ_AUTH_CHALLENGE_MAX_BYTES] = {0};
    size_t key_count, peer_key, at = 2;
    uint8_t flags;
    bool repaired = false;

    if (size < 2)
        return 0;
    flags = data[0];
    key_count = flags & SERVER ? 1 + data[1] % 3 : 1;
    peer_key = data[1] / 3 % key_count;
    for (size_t i = 0; i < 3; i++)
        keys[i] = (struct tq_auth_key){.secret = tq_span_str(secrets[i]), .name = "key"};
    tq_auth_registry_init(&registry);
    if (flags & SERVER)
        tq_auth_init_server(&a, &registry, keys, key_count);
    else
        tq_auth_init_client(&a, &registry, keys);
    a.md5_refused = flags & MD5_REFUSED;
    a.rhel = flags & RHEL;
    TQ_ASSERT(tq_auth_start(&a, &out) == TQ_OK);
    while (at < size) {
        enum tq_auth_state before = a.state;
        unsigned long macs;
        size_t len = data[at] == 0xff ? 256 : data[at];
        uint8_t *frame;
        int rv;

        at++;
        len = len < size - at ? len : size - at;
        frame = malloc(len > 0 ? len : 1);
        TQ_ASSERT(frame != NULL);
        memcpy(frame, data + at, len);
        at += len;
        if (out.count > 0 && out.msg[0].len == 59)
            memcpy(challenge, out.msg[0].data + 11, 48);
        if (before == TQ_AUTH_WAIT_ANSWER && flags & REPAIR)
            repaired = repair_answer(frame, len, tq_span(challenge, 48), keys[peer_key].secret);
        if (before == TQ_AUTH_WAIT_CHALLENGE && flags & REFLECT && flags & SERVER && len >= 11 + 40)
            memcpy(frame + len - 40, challenge + 8, 40);
        macs = tq_hmac_count();
        rv = tq_auth_feed(&a, tq_span(frame, len), &out);
        check_out(&a, rv, &out);
        if (before == TQ_AUTH_WAIT_ANSWER) {
            TQ_ASSERT(tq_hmac_count() - macs == key_count); /* the same work for every answer */
            TQ_ASSERT(repaired || rv == TQ_EAUTH);          /* nobody gets in without the key */
            TQ_ASSERT(rv != TQ_OK || a.key_index == peer_key);
        }
        if (before == TQ_AUTH_WAIT_CHALLENGE && flags & REFLECT && flags & SERVER && len >= 11 + 40)
            TQ_ASSERT(rv != TQ_OK && out.count == 0);
        if (before == TQ_AUTH_DONE || before == TQ_AUTH_FAILED)
            TQ_ASSERT(rv == TQ_EPROTO && out.count == 0);
        free(frame);
    }
    tq_auth_deinit(&a);
    tq_auth_registry_deinit(&registry);
    return 0;
}
