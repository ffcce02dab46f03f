/* A pickle inside another one. Its opcodes are put in place: without PROTO, FRAME and STOP, and with memo
 * entries that are numbered anew, explicitly, so that those of several pickles do not meet; entries that
 * nothing refers to go. A scan has shown that it neither touches what is below it on the stack nor refers to
 * entries that are not its own.
 *
 * That is not possible for pickles of protocols 0 to 2 that name globals: Python maps the names of its second
 * age to those of today by the number that PROTO says, there is one for the whole frame, and the others may
 * need the later one. Such a pickle goes as bytes and a call of pickle.loads. */
#include "proto/native/convert_pickle.h"

#include "common/err.h"
#include "common/mem.h"
#include "proto/python/pickle_ops.h"

#define MAP_SMALL 64

/* Names by number, of the reader's copyreg. */
#define OP_EXT1 0x82
#define OP_EXT4 0x84

/* Entry in the map of memo indices: the new index + 1, or: */
#define UNUSED      0u
#define REFERRED_TO UINT32_MAX

struct survey {
    bool globals;
    bool gets;
};

static void emit_le(struct tq_emit *e, uint8_t opcode, uint32_t v, unsigned bytes)
{
    uint8_t out[5] = {opcode};

    for (unsigned i = 0; i < bytes; i++)
        out[1 + i] = (uint8_t)(v >> (8 * i));
    tq_emit_raw(e, tq_span(out, 1 + bytes));
}

void tq_embed_put(struct tq_embed *embed, uint32_t index)
{
    if (index <= 0xff)
        emit_le(embed->e, 'q', index, 1);
    else
        emit_le(embed->e, 'r', index, 4);
}

void tq_embed_get(struct tq_embed *embed, uint32_t index)
{
    if (index <= 0xff)
        emit_le(embed->e, 'h', index, 1);
    else
        emit_le(embed->e, 'j', index, 4);
}

void tq_embed_bytes(struct tq_embed *embed, struct tq_span bytes)
{
    if (bytes.len <= 0xff)
        emit_le(embed->e, 'C', (uint32_t)bytes.len, 1);
    else if (bytes.len <= INT32_MAX)
        emit_le(embed->e, PK_BINBYTES, (uint32_t)bytes.len, 4);
    else if (embed->e->err == TQ_OK)
        embed->e->err = TQ_ELIMIT;
    tq_emit_raw(embed->e, bytes);
}

static struct survey survey_opcodes(const struct tq_pickle *p)
{
    struct survey found = {.globals = false};
    uint32_t end = (uint32_t)p->input.len;

    for (uint32_t pos = 0; pos < end;) {
        uint8_t opcode = p->input.data[pos];

        found.globals |= opcode == PK_GLOBAL || opcode == PK_INST || opcode == PK_STACK_GLOBAL ||
                         (opcode >= OP_EXT1 && opcode <= OP_EXT4);
        found.gets |= tq_pk_ops[opcode].act == PK_ACT_GET;
        pos = tq_pk_op_end(p->input.data, pos, end, &tq_pk_ops[opcode]);
    }
    return found;
}

static void mark_references(const struct tq_pickle *p, uint32_t *map)
{
    const uint8_t *data = p->input.data;
    uint32_t end = (uint32_t)p->input.len;

    for (uint32_t pos = 0; pos < end;) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);

        if (op->act == PK_ACT_GET)
            map[tq_pk_memo_index(data, pos, next)] = REFERRED_TO;
        pos = next;
    }
}

/* BYTEARRAY8 is of protocol 5, which 3.6 and 3.7 cannot read. */
static void emit_bytearray(struct tq_embed *embed, struct tq_span bytes)
{
    tq_emit_global(embed->e, "builtins", "bytearray");
    tq_embed_bytes(embed, bytes);
    tq_emit_tuple_n(embed->e, 1);
    tq_emit_reduce(embed->e);
}

/* map: NULL when there are no references. */
static void emit_opcodes(struct tq_embed *embed, const struct tq_pickle *p, uint32_t *map)
{
    const uint8_t *data = p->input.data;
    uint32_t end = (uint32_t)p->input.len - 1; /* STOP */
    uint32_t kept = 0;                         /* what is kept as it is begins here */
    uint32_t puts = 0;

    for (uint32_t pos = 0; pos < end;) {
        const struct tq_pk_op *op = &tq_pk_ops[data[pos]];
        uint32_t next = tq_pk_op_end(data, pos, end, op);
        bool put = op->act == PK_ACT_PUT || op->act == PK_ACT_MEMOIZE;

        if (put || op->act == PK_ACT_GET || op->act == PK_ACT_PROTO || op->act == PK_ACT_FRAME ||
            data[pos] == PK_BYTEARRAY8) {
            tq_emit_raw(embed->e, tq_span(data + kept, pos - kept));
            kept = next;
        }
        if (put) {
            uint32_t index = op->act == PK_ACT_MEMOIZE ? puts : tq_pk_memo_index(data, pos, next);

            puts++;
            if (map != NULL && map[index] == REFERRED_TO) {
                map[index] = ++embed->memo_count;
                tq_embed_put(embed, map[index] - 1);
            }
        } else if (op->act == PK_ACT_GET && map != NULL) {
            tq_embed_get(embed, map[tq_pk_memo_index(data, pos, next)] - 1);
        } else if (data[pos] == PK_BYTEARRAY8) {
            emit_bytearray(embed, tq_span(data + pos + 9, next - pos - 9));
        }
        pos = next;
    }
    tq_emit_raw(embed->e, tq_span(data + kept, end - kept));
}

static int embed_scanned(struct tq_embed *embed, const struct tq_pickle *p)
{
    struct survey found = survey_opcodes(p);
    uint32_t small[MAP_SMALL] = {UNUSED};
    uint32_t *map = small;

    if (found.globals && p->proto < 3) {
        tq_emit_global(embed->e, "pickle", "loads");
        tq_embed_bytes(embed, p->input);
        tq_emit_tuple_n(embed->e, 1);
        tq_emit_reduce(embed->e);
        return TQ_OK;
    }
    if (p->proto > 3)
        embed->proto = 4; /* nothing of protocol 5 is kept */
    if (!found.gets) {
        emit_opcodes(embed, p, NULL);
        return TQ_OK;
    }
    if (p->memo_size > MAP_SMALL) {
        map = tq_calloc(p->memo_size, sizeof(*map));
        if (map == NULL)
            return TQ_ENOMEM;
    }
    mark_references(p, map);
    emit_opcodes(embed, p, map);
    if (map != small)
        tq_free(map);
    return TQ_OK;
}

int tq_embed_pickle(struct tq_embed *embed, struct tq_span pickle)
{
    struct tq_pickle p;
    const char *why;
    int rv = tq_pickle_scan(&p, pickle, &why);

    if (rv != TQ_OK)
        return rv == TQ_ENOMEM ? rv : TQ_EPROTO;
    rv = embed_scanned(embed, &p);
    tq_pickle_deinit(&p);
    return rv;
}
