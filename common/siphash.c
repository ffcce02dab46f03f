#include "common/siphash.h"

struct state {
    uint64_t v0, v1, v2, v3;
};

/* n <= 8 bytes, little-endian. */
static uint64_t load(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static uint64_t rotate(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

static void mix(struct state *s)
{
    s->v0 += s->v1, s->v1 = rotate(s->v1, 13) ^ s->v0, s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3, s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3, s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1, s->v1 = rotate(s->v1, 17) ^ s->v2, s->v2 = rotate(s->v2, 32);
}

static void take(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    mix(s);
    mix(s);
    s->v0 ^= word;
}

uint64_t tq_siphash(const uint8_t key[TQ_SIPHASH_KEY_BYTES], const void *data, size_t len)
{
    uint64_t k0 = load(key, 8), k1 = load(key + 8, 8);
    struct state s = {0x736f6d6570736575u ^ k0, 0x646f72616e646f6du ^ k1, 0x6c7967656e657261u ^ k0,
                      0x7465646279746573u ^ k1};
    const uint8_t *p = data;
    size_t left = len;

    for (; left >= 8; p += 8, left -= 8)
        take(&s, load(p, 8));
    take(&s, load(p, left) | (uint64_t)len << 56);
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; i++)
        mix(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
