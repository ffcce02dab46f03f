"""One interpreter's part in the test of bodies across the dialects.

bodies.py dump FILE SEED      writes requests that put plain values and others, in all protocols: records of
                              label, request
bodies.py items FILE          reads records of label, request, the item as msgpack, the reply that was made
                              of that, a pickle of what another msgpack library reads (empty for an ext)
bodies.py values FILE         reads records of label, a pickle of what the value is, the reply made of it
The last two print how many were compared and what was wrong.
"""
import os
import pickle
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'fidelity'))
import objects  # noqa: E402
from driver import IDENT, read_fields, write_record  # noqa: E402  (that of the fidelity test)

PICKLE_EXT = 80
DEPTH_MAX = 32
EXPANSION_FREE = 1 << 20


# ---- values ----

class Values:
    """Random plain data."""

    LETTERS = ['a', 'b', '\x00', '\x7f', '\x80', '\xff', '\u07ff', '\u0800', '\ud7ff', '\ue000', '\uffff', '\U00010000',
               '\U0010ffff', '\\', '\n', "'", '\\u1234', '\r', '\x1a']

    def __init__(self, seed):
        self.r = random.Random(seed)

    def size(self):
        return self.r.choice([0, 1, 2, 3, 4, 5, 15, 16, 31, 32, 40])

    def int(self):
        r = self.r
        n = r.choice([1, -1]) * (2 ** r.choice([0, 3, 5, 7, 8, 15, 16, 31, 32, 53, 62, 63, 64]) + r.randrange(-2, 3))
        return min(max(n, -2 ** 63), 2 ** 64 - 1)

    def scalar(self):
        r = self.r
        kind = r.randrange(12)
        if kind < 4:
            return self.int()
        if kind < 6:
            return r.choice([0.0, -0.0, 1.5, float('inf'), float('-inf'), float('nan'), 5e-324, r.random() * 1e9])
        if kind < 9:
            return ''.join(r.choice(self.LETTERS) for _ in range(self.size()))
        if kind < 11:
            return bytes(r.randrange(256) for _ in range(r.choice([0, 1, 2, 30, 255, 256, 300])))
        return r.choice([None, True, False])

    def key(self):
        r = self.r
        kind = r.randrange(8)
        if kind == 0:
            return (r.randrange(5), 'k%d' % r.randrange(5), (b'x', None))
        return 'key%d' % r.randrange(100) if kind < 5 else r.choice([None, True, 2.5, b'b', -1, 2 ** 64 - 1, (), ''])

    def value(self, depth=0):
        r = self.r
        kind = r.randrange(10 if depth < 4 else 4)
        if kind < 4:
            return self.scalar()
        if kind < 6:
            return [self.value(depth + 1) for _ in range(r.choice([0, 1, 2, 3, 4, 17]))]
        if kind < 8:
            return tuple(self.value(depth + 1) for _ in range(r.randrange(6)))
        return {self.key(): self.value(depth + 1) for _ in range(r.choice([0, 1, 2, 3, 17]))}


def nested(depth):
    x = 5
    for i in range(depth):
        x = ([x], (x, None), {'k': x})[i % 3] if i % 7 else [x, 1]
    return x


def chain(depth):
    """Each level refers to the one below twice."""
    x = ['leaf']
    for _ in range(depth):
        x = [x, x]
    return x


def texts():
    """Each way to write a str, around the lengths where it changes."""
    for n in (0, 1, 31, 32, 255, 256, 65535, 65536):
        yield 'a' * n
        yield '\xe9' * n
        yield b'\xe9' * n
        yield [None] * n if n < 70 else {'k': 'b' * n, 'l': b'b' * n}


def edges():
    shared = ['shared', {'of': (1, 2)}]
    return list(texts()) + [
        list(range(-200, 200)), {i: str(i) for i in range(1500)}, list(range(2500)), (None,) * 1001,
        [shared, shared, {'again': shared}], ('word', ['word', 'word'], {'word': 'word'}),
        ['put', 'item', IDENT, ('timeout', 'block')], [(b'x' * 40,) * 3, b'x' * 40], [b'', b'', (b'',)],
        nested(32), nested(33), chain(5), chain(12), chain(25), chain(31), chain(32), chain(40),
        ['long text ' * 30] * 20000, {(): (), (1,): {(2, (3,)): []}}, 2 ** 64, -2 ** 63 - 1, [2 ** 64], '\udc80', ['\ud800'],
        {'k': '\udfff'}, [{1, 2}], ({},) * 3,
    ]


FORMS = [
    lambda x: ('put', (x,), {}),
    lambda x: ('put', (x, True, 3), {}),
    lambda x: ('put', (), {'item': x}),
    lambda x: ('put', (), {'block': True, 'item': x, 'timeout': 2.5}),
    lambda x: ('put', (), {'block': x, 'item': x}),
    lambda x: ('put', (), {'block': [x, x], 'item': [x, 1]}),
]


def dump(path, seed):
    values = Values(seed)
    plain = [('random %d' % i, values.value()) for i in range(300)]
    plain += [('edge %d' % i, x) for i, x in enumerate(edges())]
    others = [('object ' + name, x) for name, x, large in objects.all_objects()
              if not large and not isinstance(x, objects.RawPickle)]
    with open(path, 'wb') as f:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for number, (name, x) in enumerate(plain + others):
                message = (IDENT,) + FORMS[number % len(FORMS)](x)
                try:
                    request = pickle.dumps(message, protocol)
                except (TypeError, pickle.PicklingError):
                    if protocol >= 4:
                        raise
                    continue  # what the older protocols cannot do
                label = '%s|%d' % (name, protocol)
                write_record(f, label.encode('utf-8', 'surrogatepass'), request)


# ---- what is plain ----

class NotPlain(Exception):
    pass


def packed_size(x, left=DEPTH_MAX, sizes=None):
    """The bytes of x as msgpack, shared parts as often as they are referred to. NotPlain."""
    sizes = {} if sizes is None else sizes
    kind = type(x)
    if x is None or kind is bool:
        return 1
    if kind is int:
        if not -2 ** 63 <= x < 2 ** 64:
            raise NotPlain
        return next(n for n, low, high in ((1, -32, 127), (2, -128, 255), (3, -2 ** 15, 2 ** 16 - 1),
                                           (5, -2 ** 31, 2 ** 32 - 1), (9, -2 ** 63, 2 ** 64)) if low <= x <= high)
    if kind is float:
        return 9
    if kind is str:
        try:
            n = len(x.encode())
        except UnicodeEncodeError:
            raise NotPlain
        return n + (1 if n < 32 else 2 if n < 256 else 3 if n < 65536 else 5)
    if kind is bytes:
        return len(x) + (2 if len(x) < 256 else 3 if len(x) < 65536 else 5)
    if kind not in (list, tuple, dict) or left == 0:
        raise NotPlain
    if (id(x), left) not in sizes:
        parts = x if kind is not dict else [v for pair in x.items() for v in pair]
        head = 1 if len(x) < 16 else 3 if len(x) < 65536 else 5
        sizes[id(x), left] = head + sum(packed_size(v, left - 1, sizes) for v in parts)
    return sizes[id(x), left]


def as_plain(x, frame_bytes):
    """x as it comes back, or NotPlain."""
    if packed_size(x) > EXPANSION_FREE + 16 * frame_bytes:
        raise NotPlain
    return listed(x)


def listed(x):
    if type(x) in (list, tuple):
        return [listed(v) for v in x]
    if type(x) is dict:
        return {k: listed(v) for k, v in x.items()}
    return x


def ext_payload(value):
    """The bytes of a value that is nothing but an ext 80."""
    first = value[0]
    if first in (0xd4, 0xd5, 0xd6, 0xd7, 0xd8):
        n, head = 1 << (first - 0xd4), 1
    elif first in (0xc7, 0xc8, 0xc9):
        width = {0xc7: 1, 0xc8: 2, 0xc9: 4}[first]
        n, head = int.from_bytes(value[1:1 + width], 'big'), 1 + width
    else:
        raise AssertionError('no ext: %r' % value[:20])
    code, = struct.unpack('b', value[head:head + 1])
    assert code == PICKLE_EXT, code
    assert len(value) == head + 1 + n, (len(value), n)
    return value[head + 1:]


# ---- checks ----

class Report:
    def __init__(self):
        self.plain = self.opaque = self.unloadable = self.wrong = 0

    def bad(self, label, *what):
        self.wrong += 1
        if self.wrong <= 10:
            print('WRONG %s: %s' % (ascii(label.decode('utf-8', 'surrogatepass')),
                                    ' | '.join('%.300s' % ascii(w) for w in what)))

    def __str__(self):
        return 'plain %d opaque %d unloadable %d wrong %d' % (self.plain, self.opaque, self.unloadable, self.wrong)


def item_of(message):
    return message[2][0] if message[2] else message[3]['item']


def returned(reply):
    kind, value = pickle.loads(reply)
    assert kind == '#RETURN', kind
    return value


def compare(report, label, got, wanted):
    """wanted is described already."""
    got = objects.describe(got)
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        report.bad(label, 'part %d' % at, wanted[max(at - 5, 0):at + 3], got[max(at - 5, 0):at + 3])


def check_item(report, label, request, value, reply, other):
    try:
        x = item_of(pickle.loads(request))
    except Exception as e:
        # Of a later version: a protocol or a name. The reply's names are the same, its protocol may do.
        if not label.endswith(b'|5') or pickle.HIGHEST_PROTOCOL > 4:
            try:
                got = returned(reply)
            except Exception as reply_error:
                if (type(e), str(e)) == (type(reply_error), str(reply_error)):
                    report.unloadable += 1
                    return
                got = reply_error
            report.bad(label, e, got)
        else:
            report.unloadable += 1
        return
    try:
        wanted = as_plain(x, len(reply))
    except (NotPlain, RecursionError):
        report.opaque += 1
        wanted = objects.describe(x)
        for got in (pickle.loads(ext_payload(value)), returned(reply)):
            compare(report, label, got, wanted)
        return
    report.plain += 1
    if not other:
        report.bad(label, 'an ext')
        return
    if len(value) != packed_size(x):
        report.bad(label, 'size', packed_size(x), len(value))
    wanted = objects.describe(unshared(wanted))
    for got in (pickle.loads(other), returned(reply)):
        compare(report, label, got, wanted)


def unshared(x):
    if type(x) is list:
        return [unshared(v) for v in x]
    if type(x) is tuple:
        return tuple(unshared(v) for v in x) if x else ()
    if type(x) is dict:
        return {unshared(k): unshared(v) for k, v in x.items()}
    return x


def check_value(report, label, wanted, reply):
    try:
        wanted = pickle.loads(wanted)
    except Exception as e:
        try:
            report.bad(label, e, returned(reply))
        except Exception as reply_error:
            # A name that this version does not have.
            report.unloadable += 1
            if type(e) is not type(reply_error):
                report.bad(label, e, reply_error)
        return
    report.plain += 1
    got = returned(reply)
    compare(report, label, got, objects.describe(wanted))


def check(path, count, function):
    report = Report()
    with open(path, 'rb') as f:
        while True:
            fields = read_fields(f, count)
            if fields is None:
                break
            try:
                function(report, *fields)
            except Exception as e:
                report.bad(fields[0], e)
    print(report)


if __name__ == '__main__':
    if sys.argv[1] == 'dump':
        dump(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == 'items':
        check(sys.argv[2], 5, check_item)
    elif sys.argv[1] == 'values':
        check(sys.argv[2], 3, check_value)
    else:
        sys.exit('say dump, items or values')
