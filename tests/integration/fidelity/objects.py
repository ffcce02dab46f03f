"""Objects of some hundred kinds, and a description of any object that keeps its structure: who is whom.

Runs on Python 3.6 and newer; every interpreter of the test imports it, so its classes can be loaded."""
import array
import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import operator
import pathlib
import random
import re
import uuid

Point = collections.namedtuple('Point', 'x y')


class Plain:
    def __init__(self, **kwargs):
        self.__dict__.update(kwargs)


class Slots:
    __slots__ = ('a', 'b')

    def __init__(self, a, b):
        self.a, self.b = a, b


class WithArgs:
    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.made_of = args, kwargs
        return self

    def __getnewargs__(self):
        return self.made_of[0]


class WithKeywords(WithArgs):
    def __getnewargs_ex__(self):
        return self.made_of


class State:
    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return ('state', self.state)

    def __setstate__(self, state):
        self.state = state[1]


class Reduced:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return Reduced, self.args, {'extra': [1, 2]}


class ListChild(list):
    pass


class DictChild(dict):
    pass


class IntChild(int):
    pass


class StrChild(str):
    pass


class TupleChild(tuple):
    pass


class Outer:
    class Inner:
        def __init__(self, v):
            self.v = v


class Colour(enum.Enum):
    RED = 1
    BLUE = 'b'


class Number(enum.IntEnum):
    ONE = 1


class CustomError(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


class Looped:
    """Its own argument: picklers write POP and a reference for it."""

    def __init__(self, box):
        self.box = box

    def __reduce__(self):
        return Looped, (self.box,), {'more': 1}


class RawPickle(bytes):
    """Opcodes of protocol 1 that a pickler would not get through (too deep): spliced in where the item is."""


def function(x):
    return x


def _self_references():
    items = []
    a = []
    a.append(a)
    items.append(('self list', a))
    d = {}
    d['me'] = d
    items.append(('self dict', d))
    t = ([],)
    t[0].append(t)
    items.append(('self tuple', t))
    t = ([], 1, 2, 3, 4)
    t[0].append(t)
    items.append(('self tuple of five', t))
    t = ({}, 'x')
    t[0]['t'] = t
    items.append(('self tuple in dict', [t, t]))
    p = Plain()
    p.me = p
    p.both = [p, {'p': p}]
    items.append(('self object', p))
    box = []
    o = Looped(box)
    box.append(o)
    items.append(('self reduce', [o, box]))
    x, y = [], []
    x.append(y)
    y.append(x)
    items.append(('two lists', (x, y)))
    return items


def _shared():
    inner = [1, 2]
    text = 'a shared text ' * 3
    key = ('k', 5)
    deep = ('d', (1, 2), [3])
    return [
        ('shared list', [inner, inner, {'a': inner}]),
        ('shared str', [text, text, (text, text)]),
        ('shared tuple', (key, key, [key, (key, key)])),
        ('shared nested tuple', {'a': deep, 'b': deep, 'c': [deep[1], deep[2]]}),
        ('shared class', [Plain(a=1), Plain(a=2), Slots(inner, inner), Plain]),
        ('shared bytes', [b'a shared text', b'a shared text', (b'', b'')]),
        ('words of the envelope', ['put', 'item', 'timeout', 'block', 'ident', ('put', 'ident')]),
        ('300 shared', [[str(i)] * 2 for i in range(300)] + ['0', '299']),
    ]


def _plain():
    yield from [('None', None), ('True', True), ('False', False), ('Ellipsis', Ellipsis),
                ('NotImplemented', NotImplemented)]
    for n in (0, 1, -1, 255, 256, 65535, 65536, -32769, 2 ** 31 - 1, -2 ** 31, 2 ** 31, 2 ** 63, -2 ** 63,
              2 ** 63 - 1, 2 ** 64, -2 ** 64, 10 ** 400, -10 ** 400, 1 << 2100):
        yield 'int %s' % hex(n)[:24], n
    for f in (0.0, -0.0, 1.5, float('inf'), float('-inf'), float('nan'), 5e-324, 1.7e308):
        yield 'float %r' % f, f
    yield 'complex', 1 + 2j
    for s in ('', 'a', 'put', 'x' * 255, 'x' * 256, 'h\xe4\u20ac\U0001f40d', '\ud800', '\x00\n\\u1234', "'\"\\"):
        yield 'str %s' % ascii(s)[:20], s
    for b in (b'', b'a', bytes(range(256)), b'x' * 1000):
        yield 'bytes %d' % len(b), b
    for b in (bytearray(), bytearray(b'abc'), bytearray(range(256)), bytearray(70000)):
        yield 'bytearray %d' % len(b), b
    yield 'bytearray shared', [bytearray(b'x'), (bytearray(b'y'),)] * 2


def _containers():
    yield from [
        ('()', ()), ('tuple 1', (1,)), ('tuple 2', (1, 2)), ('tuple 3', (1, 'b', 3.0)),
        ('tuple 4', (1, 2, 3, 4)), ('tuple in tuple', ((((),),),)), ('[]', []), ('list 1', [1]),
        ('list 2', [1, [2]]), ('{}', {}), ('dict 1', {'a': 1}),
        ('dict like kwds', {'timeout': 1, 'block': True}),
        ('dict of keys', {None: 1, True: 2, 2.5: 3, (1, 2): 4, b'b': 5}), ('set()', set()), ('set', {1, 2, 'c'}),
        ('frozenset()', frozenset()), ('frozenset', frozenset({1, (2, 3)})),
        ('set of frozensets', {frozenset({1}), frozenset({2})}),
        ('tuple of empties', ([], {}, (), set(), '', b'')), ('json', {'rows': [{'id': i, 'v': [1.5, None, True]}
                                                                              for i in range(50)]}),
    ]


def _library():
    utc = datetime.timezone.utc
    yield from [
        ('date', datetime.date(2020, 2, 29)), ('time', datetime.time(1, 2, 3, 4)),
        ('datetime', datetime.datetime(2020, 1, 2, 3, 4, 5, 6)),
        ('datetime utc', datetime.datetime(2020, 1, 2, tzinfo=utc)), ('timedelta', datetime.timedelta(1, 2, 3)),
        ('timezone', datetime.timezone(datetime.timedelta(hours=5), 'x')), ('Decimal', decimal.Decimal('1.50')),
        ('Fraction', fractions.Fraction(22, 7)), ('UUID', uuid.UUID(int=5)),
        ('OrderedDict', collections.OrderedDict([('b', 1), ('a', 2)])),
        ('defaultdict', collections.defaultdict(list, {'a': [1]})), ('deque', collections.deque([1, 2], 5)),
        ('Counter', collections.Counter('abca')), ('ChainMap', collections.ChainMap({'a': 1}, {'b': 2})),
        ('namedtuple', Point(1, 2)), ('namedtuples', [Point(1, 2), Point('a', Point(0, 0))]),
        ('array', array.array('d', [1.0, 2.0])), ('range', range(1, 10, 2)), ('slice', slice(1, None, 2)),
        ('pattern', re.compile('a+', re.I)), ('path', pathlib.PurePosixPath('/a/b')),
        ('ip', ipaddress.ip_address('10.0.0.1')), ('partial', functools.partial(int, base=2)),
        ('itemgetter', operator.itemgetter(1)), ('methodcaller', operator.methodcaller('x', 1, b=2)),
        ('random', random.Random(5)), ('type', int), ('builtin', len),
        ('function', function), ('method', 'abc'.upper), ('class', Plain), ('inner class', Outer.Inner),
        ('iterator', iter([1, 2, 3])),
    ]


def _own():
    yield from [
        ('Plain', Plain(a=1, b='x')), ('Plain empty', Plain()), ('Slots', Slots(1, [2])),
        ('WithArgs', WithArgs(1, 'a')), ('WithKeywords', WithKeywords(1, b=2)), ('State', State([1])),
        ('State None', State(None)), ('Reduced', Reduced(1, 2)), ('ListChild', ListChild([1, 2])),
        ('DictChild', DictChild(a=1)), ('IntChild', IntChild(7)), ('StrChild', StrChild('s')),
        ('TupleChild', TupleChild((1, 2))), ('Inner', Outer.Inner(5)), ('Enum', Colour.RED),
        ('IntEnum', Number.ONE), ('enums', [Colour.RED, Colour.BLUE, Colour.RED]),
        ('ValueError', ValueError('bad', 5)), ('KeyError', KeyError('k')), ('OSError', OSError(2, 'no such')),
        ('CustomError', CustomError(5, 'text')), ('StopIteration', StopIteration(3)),
        ('UnicodeError', UnicodeDecodeError('utf-8', b'x', 0, 1, 'why')),
    ]


def _large():
    """More than a batch of 1000, and above 64 KiB, where a pickler ends its frames."""
    yield from [
        ('list 1000', list(range(1000))), ('list 1001', list(range(1001))), ('list of None', [None] * 3000),
        ('dict 2001', {i: str(i) for i in range(2001)}), ('set 1500', set(range(1500))),
        ('large list', [('row %d' % i, i, float(i), {'k': i}) for i in range(2500)]),
        ('large bytes', b'\x95\x94.' * 30000), ('large str', '\x95\x94.h\x00' * 20000),
        ('large among small', ['a', b'b' * 70000, 'a', bytearray(b'c' * 70000), ['a', 'd' * 70000]]),
        ('large ints', [10 ** 300 + i for i in range(800)]),
        ('many strings', [['name-%d' % (i % 500), 'value-%d' % i] for i in range(2500)]),
        ('deep list', RawPickle(b']' * 5000 + b'a' * 4999)),
        ('deep tuple', RawPickle(b')' + b'\x85' * 5000)),
        ('deep dict', RawPickle(b'}' + b'K\x01}' * 4999 + b's' * 4999)),
    ]


def all_objects():
    """Name, object, and whether it is one to take less often."""
    for group in (_plain(), _containers(), _library(), _own(), _shared(), _self_references()):
        for name, x in group:
            yield name, x, False
    for name, x in _large():
        yield name, x, True


# ---- descriptions ----

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
_SEEN_BY_NAME = (type, type(len), type(function))


def _open(x):
    """The parts of x: a heading, and a list of values."""
    kind = type(x)
    if kind is bytearray:
        return 'bytearray %r' % bytes(x), []
    if kind in (tuple, list):
        return '%s %d' % (kind.__name__, len(x)), list(x)
    if kind is dict:
        return 'dict %d' % len(x), [v for pair in x.items() for v in pair]
    if kind in (set, frozenset):
        return '%s %d' % (kind.__name__, len(x)), sorted(x, key=_flat)
    if isinstance(x, _SEEN_BY_NAME) and getattr(x, '__self__', None) is None or isinstance(x, type):
        return 'name %s' % x.__qualname__, []
    if isinstance(x, re.Pattern if hasattr(re, 'Pattern') else type(re.compile(''))):
        return 'pattern %r %d' % (x.pattern, x.flags), []
    parts = x.__reduce_ex__(2)
    if isinstance(parts, str):
        return 'global %s' % parts, []
    parts = [list(p) if i >= 3 and p is not None else p for i, p in enumerate(parts)]
    while parts and parts[-1] is None:
        parts.pop()
    name = '%s.%s' % (kind.__module__.replace('pathlib._local', 'pathlib'), kind.__qualname__)
    if parts[0] is copyreg.__newobj__:
        parts[:2] = ['new', tuple(parts[1][1:])]
    return 'object %s %d' % (name, len(parts)), parts


def _flat(x):
    return '%s %s' % (type(x).__name__, ' '.join(describe(x)))


def describe(x):
    """A list of words that is the same for two objects when they have the same structure, also where parts
    are shared or refer to themselves (apart from strings and numbers, whose identity means nothing)."""
    words = []
    number = {}
    alive = []  # so that no two objects have one id
    stack = [x]
    while stack:
        x = stack.pop()
        if type(x) in _ATOMS:
            words.append('%s %r' % (type(x).__name__, x))
            continue
        if x != () or type(x) is not tuple:
            if id(x) in number:
                words.append('again %d' % number[id(x)])
                continue
            number[id(x)] = len(number)
            alive.append(x)
        heading, parts = _open(x)
        words.append(heading)
        stack.extend(reversed(parts))
    return words
