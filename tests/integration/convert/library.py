"""The part of the test of bodies that needs msgpack's own Python package.

library.py unpack FROM TO   reads values of 4 bytes of length each, writes as many pickles of what they are;
                            for an ext that is the whole value: nothing
library.py values TO SEED N  writes N records of label, random value, pickle of what Python should see of it
"""
import collections
import datetime
import decimal
import io
import os
import pickle
import random
import struct
import sys

import msgpack

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from bodies import PICKLE_EXT, Values, nested, read_fields, write_record  # noqa: E402

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def as_key(x):
    if isinstance(x, list):
        return tuple(as_key(v) for v in x)
    if isinstance(x, dict):
        return tuple((as_key(k), as_key(v)) for k, v in x.items())
    return x


def unpack(source, target):
    with open(source, 'rb') as f, open(target, 'wb') as out:
        while True:
            fields = read_fields(f, 1)
            if fields is None:
                return
            x = msgpack.unpackb(fields[0], strict_map_key=False, timestamp=0,
                                object_pairs_hook=lambda pairs: {as_key(k): v for k, v in pairs})
            write_record(out, b'' if isinstance(x, msgpack.ExtType) else pickle.dumps(x, 3))


class Wild(Values):
    """Values as a native peer may send them: (bytes of msgpack, what Python sees)."""

    def when(self):
        r = self.r
        # The lowest and highest that there are, and the last second before each form ends.
        s = r.choice([0, 1, -1, 2 ** 32 - 1, 2 ** 32, 2 ** 34 - 1, 2 ** 34, -62135596800, 253402300799,
                      r.randrange(-62135596800, 253402300800), r.randrange(2 ** 33)])
        ns = r.choice([0, 1, 999, 1000, 999999999, r.randrange(10 ** 9)])
        packed = msgpack.packb(msgpack.Timestamp(s, ns))
        return packed, EPOCH + datetime.timedelta(seconds=s, microseconds=ns // 1000)

    def not_a_time(self):
        data = self.r.choice([b'', b'abc', struct.pack('!Iq', 10 ** 9, 0), struct.pack('!Iq', 0, 253402300800),
                              struct.pack('!Iq', 0, -62135596801), struct.pack('!Iq', 0, -2 ** 63),
                              struct.pack('!Q', 2 ** 64 - 1)])
        return msgpack.packb(msgpack.ExtType(127, data)).replace(b'\x7f', b'\xff', 1), (-1, data)

    def pickled(self):
        r = self.r
        inner = [1, 2]
        loop = ['loop']
        loop.append(loop)
        x = r.choice([
            {1, 'two'}, frozenset([3]), 2 ** 200, -2 ** 64, bytearray(b'ab' * 200), 1 + 2j, loop, [inner, (inner, {4})],
            decimal.Decimal('1.5'), collections.OrderedDict([('a', 1)]), collections.Counter('abca'), '\ud800',
            [[str(i)] * 2 for i in range(300)], datetime.date(2020, 1, 2), range(5), {'plain': [1, (2,)]}, 'x' * 70000,
            [collections.deque([i]) for i in range(5)], ValueError('bad'), b'bytes', collections.UserList([1]),
        ])
        data = pickle.dumps(x, r.randrange(pickle.HIGHEST_PROTOCOL + 1))
        # A copy of its own: what two pickles say is never the same object.
        return msgpack.packb(msgpack.ExtType(PICKLE_EXT, data)), pickle.loads(data)

    def leaf(self):
        r = self.r
        kind = r.randrange(12)
        if kind < 2:
            return self.when()
        if kind == 2:
            return self.not_a_time()
        if kind == 3:
            data = bytes(r.randrange(256) for _ in range(r.choice([0, 1, 2, 3, 4, 8, 16, 17, 300])))
            code = r.choice([0, 1, 79, 81, 127])
            return msgpack.packb(msgpack.ExtType(code, data)), (code, data)
        if kind == 4:
            x = r.choice([0.5, -2.0, float('inf'), 2.0 ** 100])
            return msgpack.packb(x, use_single_float=True), x
        if kind == 5:
            data = r.choice([b'\xff', b'a\x80', b'\xed\xa0\x80', b'\xc0\x80', b'\xf4\x90\x80\x80' * 20, b'\xe2\x82'])
            return msgpack.packb(data, use_bin_type=False), data
        x = self.scalar()
        return msgpack.packb(x, use_bin_type=True), x

    def wild(self, depth=0, in_key=False):
        r = self.r
        kind = r.randrange(10 if depth < 5 else 5)
        if kind < 4 or (kind == 4 and in_key):
            return self.leaf()
        if kind == 4:
            return self.pickled()
        packer = msgpack.Packer(autoreset=False)
        out = io.BytesIO()
        count = r.choice([0, 1, 2, 3, 4, 5, 16])
        if kind < 8:
            parts = [self.wild(depth + 1, in_key) for _ in range(count)]
            packer.pack_array_header(count)
            out.write(packer.bytes() + b''.join(p for p, _ in parts))
            x = [v for _, v in parts]
            return out.getvalue(), tuple(x) if in_key else x
        pairs = {}
        for _ in range(count):
            key, k = self.wild(depth + 2, True)
            if k not in pairs:  # also not as another type: 1, 1.0, True
                pairs[k] = key, self.wild(depth + 1, in_key)
        packer.pack_map_header(len(pairs))
        out.write(packer.bytes() + b''.join(key + packed for key, (packed, _) in pairs.values()))
        x = {k: v for k, (_, (_, v)) in pairs.items()}
        return out.getvalue(), tuple(x.items()) if in_key else x


def write_values(path, seed, count):
    wild = Wild(random.Random(seed).random())
    with open(path, 'wb') as f:
        for i in range(int(count)):
            packed, x = wild.wild(depth=0 if i % 3 else 5)
            write_record(f, b'wild %d' % i, packed, pickle.dumps(x, 3))
        for depth in (31, 32):
            x = nested(depth)
            write_record(f, b'nested %d' % depth, msgpack.packb(x), pickle.dumps(msgpack.unpackb(msgpack.packb(x)), 3))


if __name__ == '__main__':
    {'unpack': unpack, 'values': write_values}[sys.argv[1]](*sys.argv[2:])
