"""One interpreter's part in the test of item fidelity.

driver.py dump FILE            writes requests that put all kinds of objects: records of name, request
driver.py check FILE           reads records of name, request, reply: does the reply bring what the request
                               says? Prints how many were compared.
driver.py pairs FILE SEED N    writes N records of two requests and what Python says to `a < b`
A record is a row of fields, each with 4 bytes of length in front; a record's first field counts them.
"""
import os
import pickle
import random
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import objects  # noqa: E402

IDENT = 'ident'
RAW_PLACE = 'here the opcodes go'
DEFAULT_PROTOCOLS = (3, 4, 5)  # of the versions of Python

FORMS = [
    ('put(x)', True, lambda x: ('put', (x,), {})),
    ('put(x, True, 3)', False, lambda x: ('put', (x, True, 3), {})),
    ('put(item=x)', False, lambda x: ('put', (), {'item': x})),
    ('put(block, item, timeout)', True, lambda x: ('put', (), {'block': True, 'item': x, 'timeout': 2.5})),
    ('put(x, timeout=5)', False, lambda x: ('put', (x,), {'timeout': 5})),
    ('put(x, block=x)', False, lambda x: ('put', (x,), {'block': x})),
    ('put(block=x, item=x)', True, lambda x: ('put', (), {'block': x, 'item': x})),
    ('put(block=[x], item=x)', False, lambda x: ('put', (), {'block': [x, x], 'item': [x, 1]})),
    ('put_nowait(x)', False, lambda x: ('put_nowait', (x,), {})),
]


def write_record(f, *fields):
    for field in fields:
        f.write(struct.pack('!I', len(field)))
        f.write(field)


def read_fields(f, count):
    """None at the end."""
    fields = []
    for _ in range(count):
        head = f.read(4)
        if not head:
            return None
        n, = struct.unpack('!I', head)
        fields.append(f.read(n))
    return fields


def raw_request(shape, opcodes, protocol):
    """The request with opcodes of our own where the item is."""
    data = pickle.dumps((IDENT,) + shape(RAW_PLACE), protocol)
    place = RAW_PLACE.encode()
    for head, tail in ((b'V', b'\n'), (b'X' + struct.pack('<I', len(place)), b''),
                       (b'\x8c' + struct.pack('B', len(place)), b'')):
        if data.count(head + place + tail) == 1:
            return data.replace(head + place + tail, opcodes)
    raise AssertionError('no place for the opcodes')


def dump(path):
    with open(path, 'wb') as f:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for number, (name, x, large) in enumerate(objects.all_objects()):
                for form, always, shape in FORMS:
                    if not always and (large or protocol not in DEFAULT_PROTOCOLS):
                        continue
                    label = '%d %s|%s|%d' % (number, name, form, protocol)
                    try:
                        if isinstance(x, objects.RawPickle):
                            request = raw_request(shape, bytes(x), protocol)
                        else:
                            request = pickle.dumps((IDENT,) + shape(x), protocol)
                    except TypeError:
                        if protocol >= 2:
                            raise
                        continue  # classes with slots, and some of the library's, need protocol 2
                    except pickle.PicklingError:
                        if protocol >= 4:
                            raise
                        continue  # inner classes below protocol 4
                    write_record(f, label.encode('utf-8', 'surrogatepass'), request)


def load(data):
    """The item of a request or of a reply, described; or the exception."""
    try:
        message = pickle.loads(data)
    except Exception as e:
        return None, e
    if len(message) == 2:
        assert message[0] == '#RETURN', message[0]
        return objects.describe(message[1]), None
    return objects.describe(message[2][0] if message[2] else message[3]['item']), None


def check(path):
    compared = through_older = unloadable = wrong = 0
    older = {}
    with open(path, 'rb') as f:
        while True:
            fields = read_fields(f, 3)
            if fields is None:
                break
            label, request, reply = fields
            label = label.decode('utf-8', 'surrogatepass')
            case, protocol = label.rsplit('|', 1)
            wanted, error = load(request)
            got, reply_error = load(reply)
            if error is not None and int(protocol) > pickle.HIGHEST_PROTOCOL:
                # The request is beyond this version, the reply must not be. Compare with the same object
                # in a request of protocol 4.
                wanted, error = older[case]
                through_older += 1
            older[case] = wanted, error
            if error is not None:
                unloadable += 1
                good = type(error) is type(reply_error) and str(error) == str(reply_error)
            else:
                compared += 1
                good = reply_error is None and got == wanted
            if not good:
                wrong += 1
                if wrong <= 10:
                    print('WRONG %s: %.200r %.200r, %r %r' % (ascii(label), wanted, got, error, reply_error))
    print('compared %d through-older %d unloadable %d wrong %d' % (compared, through_older, unloadable, wrong))


# ---- comparisons ----

class Values:
    """Random values that can often be compared, and often differ late."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def number(self):
        r = self.r
        kind = r.randrange(9)
        if kind == 0:
            return r.choice([True, False, 0, 1, -1, 0.0, -0.0, 1.0])
        if kind == 1:
            return r.choice([1, -1]) * (2 ** r.choice([31, 32, 53, 62, 63, 64, 65, 100, 1023, 1024]) + r.randrange(-2, 3))
        if kind == 2:
            return r.choice([1, -1]) * float(2 ** r.choice([31, 52, 53, 54, 62, 63, 64, 65, 100, 1023]))
        if kind == 3:
            return r.choice([float('inf'), float('-inf'), 10 ** 400, -10 ** 400, 1.7e308, 5e-324, -5e-324])
        if kind == 4:
            return float('nan') if r.random() < 0.3 else r.random() * 10
        if kind == 5:
            n = r.choice([1, -1]) * r.getrandbits(r.choice([8, 70, 200, 1000]))
            return float(n) if r.random() < 0.5 and abs(n) < 2 ** 1000 else n
        return r.randrange(-3, 4) if kind < 8 else r.randrange(-6, 7) / 2

    def text(self):
        letters = ['a', 'b', '\x00', '\x7f', '\x80', '\xff', '\u07ff', '\u0800', '\ud7ff', '\ud800', '\udfff', '\ue000',
                   '\uffff', '\U00010000', '\U0010ffff', '\\', '\n', "'"]
        return ''.join(self.r.choice(letters) for _ in range(self.r.randrange(4)))

    def value(self, depth=0):
        r = self.r
        kind = r.randrange(14 if depth < 3 else 8)
        if kind < 4:
            return self.number()
        if kind < 6:
            return self.text()
        if kind == 6:
            return bytes(r.choice(b'\x00\x7f\x80\xffab') for _ in range(r.randrange(4)))
        if kind == 7:
            return None
        if kind < 10:
            return tuple(self.value(depth + 1) for _ in range(r.randrange(4)))
        if kind < 12:
            return [self.value(depth + 1) for _ in range(r.randrange(4))]
        if kind == 12:
            return {self.key(): self.value(depth + 1) for _ in range(r.randrange(4))}
        return {self.key() for _ in range(r.randrange(5))}

    def key(self):
        r = self.r
        return r.choice([self.text(), r.randrange(5), float(r.randrange(5)), (1, r.randrange(2)), None, True])

    def near(self, x):
        """Something like x."""
        r = self.r
        if r.random() < 0.1:
            return self.value()
        if isinstance(x, (tuple, list)):
            items = [self.near(v) if r.random() < 0.4 else v for v in x]
            if r.random() < 0.2:
                items = items[:-1] if r.random() < 0.5 else items + [self.value(2)]
            return type(x)(items)
        if isinstance(x, dict):
            items = list(x.items())
            r.shuffle(items)
            return {k: self.near(v) if r.random() < 0.1 else v for k, v in items}
        if isinstance(x, set):
            return set(x) if r.random() < 0.8 else {self.key()} | x
        if isinstance(x, (int, float)) and r.random() < 0.5 and x == x and abs(x) < 1e300:
            return r.choice([x, int(x), float(x), x + 1, x - 1])
        if isinstance(x, str) and r.random() < 0.5:
            return x + self.text()
        return x if r.random() < 0.6 else self.value()


def shared_pair(values):
    """Values in which parts are shared, so that their pickles have memo references."""
    part = (values.text() + 'shared', [values.value(2)], values.text())
    return (part, part[1], [part, part[0]], values.near(part)), (part, part[1], [part, part[2]], part)


def less(a, b):
    """a < b, except that sets have no order: Python's is that of subsets, which is none for a queue."""
    if type(a) is type(b) and isinstance(a, (tuple, list)):
        for x, y in zip(a, b):
            if x != y:
                return less(x, y)
    elif isinstance(a, set) and isinstance(b, set):
        raise TypeError("'<' not supported between instances of 'set' and 'set'")
    return a < b


def pairs(path, seed, count):
    values = Values(seed)
    with open(path, 'wb') as f:
        for i in range(int(count)):
            a = values.value()
            b = values.near(a) if values.r.random() < 0.7 else values.value()
            if i % 10 == 0:
                a, b = shared_pair(values)
            protocol = values.r.randrange(pickle.HIGHEST_PROTOCOL + 1)
            if protocol < 3 and ("b'" in repr((a, b)) or 'b"' in repr((a, b))):
                protocol = 3  # below it, bytes are calls of _codecs.encode
            requests = [pickle.dumps((IDENT, 'put', (), {'block': 'shared', 'item': x}), protocol) for x in (a, b)]
            # As in the queue: two objects from two messages, that share nothing.
            a, b = [pickle.loads(request)[3]['item'] for request in requests]
            try:
                said = '<' if less(a, b) else '-'
            except TypeError as e:
                said = 'T' + str(e)
            write_record(f, requests[0], requests[1], said.encode(),
                         ascii((a, b))[:300].encode())


if __name__ == '__main__':
    {'dump': dump, 'check': check, 'pairs': pairs}[sys.argv[1]](*sys.argv[2:])
