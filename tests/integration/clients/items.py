"""Items of many kinds. usage: items.py put QUEUE... | items.py take QUEUE | items.py own

put:  puts the same list of items into each queue.
take: takes them and compares each with what the same list is here.
own:  what needs one process on both ends.
"""
import array
import collections
import copy
import datetime
import decimal
import enum
import fractions
import math
import os
import queue
import sys
import uuid
from multiprocessing.process import current_process

import common


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__

    class Inner(list):
        pass


class Slotted:
    __slots__ = ('a', 'b')

    def __init__(self, a=None, b=None):
        self.a, self.b = a, b

    def __eq__(self, other):
        return (self.a, self.b) == (other.a, other.b)


class Reduced(Point):
    def __reduce__(self):
        return Reduced, (self.x, self.y), {'x': self.x, 'y': self.y}


class NewArgs(tuple):
    def __new__(cls, *values, key=None):
        self = super().__new__(cls, values)
        self.key = key
        return self

    def __getnewargs_ex__(self):
        return tuple(self), {'key': self.key}


class Colour(enum.Enum):
    RED = 1


class OwnError(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


Named = collections.namedtuple('Named', 'a b')


def checks():
    """(name, item, check(taken)) of everything that every version can read."""
    yield from ((repr(v), v, None) for v in (
        None, True, False, 0, 1, -1, 127, 128, 255, 256, 65535, 65536, -128, -129, -(1 << 31), (1 << 31) - 1, 1 << 31,
        -(1 << 31) - 1, (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 64, -1 << 2039, 1 << 2040, 0.0, -0.0, 1.5, 5e-324,
        1.7976931348623157e308, float('inf'), float('-inf'), 1j, '', 'text', b'', b'bytes', (), (1,), (1, 2), (1, 2, 3),
        (1, 2, 3, 4), [], [1], {}, {'a': 1}, set(), {1, 2}, frozenset(), frozenset([1]), bytearray(),
        bytearray(b'bytes'), 'n\u00efn\u00f6 \u20ac \U0001f600 \0 \ud800', 'q' * 255, 'q' * 256, b'q' * 255,
        b'q' * 256, range(3), slice(1, 2), Ellipsis, NotImplemented, int, len, queue.Queue, Point.Inner,
        datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.timedelta(1, 2, 3), datetime.timezone.utc,
        datetime.date(1, 1, 1), decimal.Decimal('1.10'), fractions.Fraction(1, 3), uuid.UUID(int=5), Colour.RED,
        collections.OrderedDict([('b', 1), ('a', 2)]), collections.deque([1, 2], 5), collections.Counter('abca'),
        collections.defaultdict(list, a=[1]), array.array('d', [1.5, 2.5]), array.array('B', b'abc'), Named(1, [2]),
        Point(1, [2]), Slotted(1, 2), Reduced(3, 4), Point.Inner([1]), os.stat_result(range(10))))
    # The words of the envelope as items: references out of the item.
    yield from ((repr(v), v, None) for v in (
        'put', 'get', 'item', 'block', 'timeout', '#RETURN', 'task_queue', ('put', 'put'), {'timeout': 'timeout'},
        {'item': 'item', 'put': ['put', ('block',)]}, ['get_task_queue'], ((), {}), {'block': {'timeout': {}}}))
    # More than a batch, more than a frame, more than a byte of memo.
    yield 'long list', list(range(3500)), None
    yield 'long dict', {str(n): (n,) for n in range(2500)}, None
    yield 'long set', set(range(2500)), None
    yield 'many strings', ['s%d' % n for n in range(1000)] * 2, None
    yield 'large bytes', bytes(range(256)) * 1024, None
    yield 'large text', '\u00e4\u20ac' * 100000, None
    yield 'list of large', [b'a' * 70000, 'b' * 70000, b'a' * 70000, bytearray(b'c' * 70000)], None
    yield 'large bytearray', bytearray(b'c' * 200000), None
    yield '1 MiB', b'm' * (1 << 20), None
    yield 'nan', float('nan'), lambda v: type(v) is float and math.isnan(v)
    # Exceptions.
    for error in (ValueError('text'), KeyError('k'), OSError(2, 'gone', 'file'), queue.Full('x', 1), StopIteration(3),
                  UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'bad'), OwnError(7, 'own')):
        yield repr(error), error, lambda v, e=error: type(v) is type(e) and v.args == e.args and str(v) == str(e)
    # Identity within an item.
    shared = ['shared']
    yield 'shared', (shared, shared, {'s': shared}), lambda v: (
        v == (shared, shared, {'s': shared}) and v[0] is v[1] and v[0] is v[2]['s'])
    loop = []
    loop.append(loop)
    yield 'list in itself', loop, lambda v: type(v) is list and len(v) == 1 and v[0] is v
    inner = []
    twisted = (inner, 1)
    inner.append(twisted)
    yield 'tuple in itself', twisted, lambda v: type(v) is tuple and v[1] == 1 and v[0][0] is v
    ring = {}
    ring['me'] = ring
    yield 'dict in itself', ring, lambda v: type(v) is dict and v['me'] is v
    point = Point(1, None)
    point.y = {'point': [point]}
    yield 'object in itself', point, lambda v: type(v) is Point and v.x == 1 and v.y['point'][0] is v
    deep = None
    for _ in range(100):
        deep = [deep]
    yield 'deep', deep, None
    word = 'word %d' % 1
    yield 'one text twice', [word, word], lambda v: v == [word, word] and v[0] is v[1]
    new = NewArgs(1, 2, key='k')
    yield 'keyword arguments of __new__', new, lambda v: v == (1, 2) and type(v) is NewArgs and v.key == 'k'
    yield 'view', {'a': 1}.keys(), lambda v: list(v) == ['a']
    yield 'function', os.path.join, lambda v: v is os.path.join
    yield 'method of a class', Point.__init__, lambda v: v is Point.__init__
    yield 'bound method', 'text'.upper, lambda v: v() == 'TEXT'
    yield 'partly', copy.deepcopy([Named(Point(1, 2), Slotted(3, shared)), shared]), None


def all_checks():
    return list(checks())


def verify(name, item, check, taken):
    if check is None:
        good = type(taken) is type(item) and (taken == item) and repr(type(item)) == repr(type(taken))
        if isinstance(item, float):
            good = good and math.copysign(1, item) == math.copysign(1, taken)
    else:
        good = check(taken)
    if not good:
        raise AssertionError('%s came as %.200r' % (name, taken))


def ways(q, n, item):
    """The n-th way to say put(item)."""
    way = n % 7
    if way == 0:
        q.put(item)
    elif way == 1:
        q.put(item, True, 3)
    elif way == 2:
        q.put(item=item)
    elif way == 3:
        q.put(block=True, item=item, timeout=5)
    elif way == 4:
        q.put(item, timeout=5)
    elif way == 5:
        q.put_nowait(item)
    else:
        q.put(item, block=False)


def put(names):
    m = common.connect(*names)
    listed = all_checks()
    for shift, name in enumerate(names):
        q = getattr(m, name)()
        for n, (_, item, _) in enumerate(listed):
            ways(q, n + shift, item)
    common.say('put %d' % len(listed))


def take(name):
    q = getattr(common.connect(name), name)()
    listed = all_checks()
    for n, (what, item, check) in enumerate(listed):
        verify(what, item, check, q.get(timeout=10) if n % 2 else q.get_nowait())
    assert q.empty()
    common.say('took %d' % len(listed))


def own():
    m = common.connect('get_task_queue', 'get_result_queue', 'prio')
    q, r = m.get_task_queue(), m.get_result_queue()
    # 64 MiB at once.
    large = os.urandom(1 << 20) * 64
    q.put(large)
    assert q.get() == large
    del large
    # What the envelope is made of.
    for item in (q._token.id, {'timeout': 1}, {'item': q._token.id, 'block': ['timeout', 'put']}):
        q.put(item, timeout=5)
        q.put(item=item, timeout=5, block=True)
        assert q.get() == item and q.get() == item
    # A proxy in its own queue, and in another.
    current_process().authkey = common.KEY
    if not (common.REFERENCE and sys.version_info < (3, 9)):
        for target in (q, r):
            target.put(q)
            again = target.get()
            again.put('through a proxy that was an item')
            assert q.get() == 'through a proxy that was an item'
            del again
    # An item that breaks when it is loaded leaves the session in order: here at the taker, for Python's own
    # server at the putter.
    try:
        r.put(Bomb())
        assert not common.REFERENCE
        r.get()
    except common.RemoteError as error:
        assert common.REFERENCE
    except ValueError as error:
        assert str(error) == 'no' and not common.REFERENCE
    else:
        raise AssertionError('no exception')
    r.put('after')
    assert r.get() == 'after'
    # An item that cannot be pickled is the sender's problem.
    for bad in (lambda: 0, sys.stdin):
        try:
            q.put(bad)
        except Exception:
            pass
        else:
            raise AssertionError('no exception')
    assert q.qsize() == 0
    common.say('good')


def refuse():
    raise ValueError('no')


class Bomb:
    def __reduce__(self):
        return refuse, ()


if __name__ == '__main__':
    if sys.argv[1] == 'put':
        put(sys.argv[2:])
    elif sys.argv[1] == 'take':
        take(sys.argv[2])
    else:
        own()
