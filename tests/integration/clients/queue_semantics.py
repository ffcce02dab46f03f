"""The whole of queue.Queue through proxies. Run under each interpreter against task-master and against
Python's own server, which has to agree."""
import queue
import random
import sys
import threading
import time
import unittest
from decimal import Decimal
from fractions import Fraction

import common

SHUTDOWN = queue.ShutDown if hasattr(queue, 'ShutDown') else queue.Empty


class Case(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.m = common.connect('get_task_queue', 'Queue', 'JoinableQueue', 'lifo', 'lifo2', 'prio', 'prio2')

    def tearDown(self):
        for name in ('lifo', 'lifo2', 'prio', 'prio2'):
            self.drain(getattr(self.m, name)())

    def drain(self, q):
        items = []
        while True:
            try:
                items.append(q.get_nowait())
            except queue.Empty:
                return items

    def raises(self, kind, text, function, *args, **kwds):
        """The class must be exactly that one, the text match as a whole."""
        with self.assertRaises(kind) as caught:
            function(*args, **kwds)
        self.assertIs(type(caught.exception), kind)
        self.assertEqual(len(caught.exception.args), 1 if text else 0)
        if text:
            self.assertRegex(str(caught.exception), '^(?:%s)$' % text)

    def takes(self, least_s, function, *args, **kwds):
        """Calls it: Empty or Full comes, after at least so many seconds."""
        start = time.monotonic()
        with self.assertRaises((queue.Empty, queue.Full)):
            function(*args, **kwds)
        elapsed = time.monotonic() - start
        self.assertGreaterEqual(elapsed, least_s * 0.98)
        self.assertLess(elapsed, least_s + 10)


class Binding(Case):

    def test_put(self):
        q = self.m.Queue()
        q.put(1)
        q.put(2, True)
        q.put(3, True, None)
        q.put(4, False, 'x')
        q.put(item=5)
        q.put(block=True, item=6)
        q.put(7, timeout=5, block=False)
        q.put(timeout=None, block=True, item=8)
        q.put_nowait(9)
        q.put_nowait(item=10)
        self.assertEqual(self.drain(q), list(range(1, 11)))

    def test_get(self):
        q = self.m.Queue()
        for i in range(9):
            q.put(i)
        self.assertEqual([q.get(), q.get(True), q.get(True, None), q.get(False), q.get(False, 3), q.get(block=False),
                          q.get(timeout=3), q.get(timeout=0.5, block=True), q.get_nowait()], list(range(9)))

    def test_results(self):
        q = self.m.Queue(2)
        self.assertIsNone(q.put(1))
        self.assertIsNone(q.put_nowait(1))
        self.assertIs(q.full(), True)
        self.assertIs(q.empty(), False)
        self.assertIs(type(q.qsize()), int)
        self.assertEqual(q.qsize(), 2)
        self.drain(q)
        self.assertIs(q.full(), False)
        self.assertIs(q.empty(), True)
        self.assertIsNone(q.task_done())
        self.assertIsNone(q.task_done())
        self.assertIsNone(q.join())

    def test_type_errors(self):
        q = self.m.Queue()
        name = r'(?:Queue\.)?'
        unexpected = r"\(\) got an unexpected keyword argument '%s'.*"
        for method, args, kwds, text in (
                ('get', (), {'foo': 1}, 'get' + unexpected % 'foo'),
                ('get', (1, 2, 3), {}, r'get\(\) takes from 1 to 3 positional arguments but 4 were given'),
                ('get', (1,), {'block': 1}, r"get\(\) got multiple values for argument 'block'"),
                ('get', (1, 2), {'timeout': 1}, r"get\(\) got multiple values for argument 'timeout'"),
                ('put', (), {}, r"put\(\) missing 1 required positional argument: 'item'"),
                ('put', (), {'block': 1}, r"put\(\) missing 1 required positional argument: 'item'"),
                ('put', (1,), {'item': 1}, r"put\(\) got multiple values for argument 'item'"),
                ('put', (1,), {'Timeout': 1}, 'put' + unexpected % 'Timeout'),
                ('put', (1, 2, 3, 4), {}, r'put\(\) takes from 2 to 4 positional arguments but 5 were given'),
                ('put_nowait', (), {}, r"put_nowait\(\) missing 1 required positional argument: 'item'"),
                ('put_nowait', (1, 2), {}, r'put_nowait\(\) takes 2 positional arguments but 3 were given'),
                ('put_nowait', (1,), {'block': 1}, 'put_nowait' + unexpected % 'block'),
                ('get_nowait', (1,), {}, r'get_nowait\(\) takes 1 positional argument but 2 were given'),
                ('get_nowait', (), {'block': 1}, 'get_nowait' + unexpected % 'block'),
                ('qsize', (1,), {}, r'qsize\(\) takes 1 positional argument but 2 were given'),
                ('empty', (1, 2), {}, r'empty\(\) takes 1 positional argument but 3 were given'),
                ('full', (), {'x': 1}, 'full' + unexpected % 'x'),
                ('join', (), {'timeout': 1}, 'join' + unexpected % 'timeout'),
                ('join', (1,), {}, r'join\(\) takes 1 positional argument but 2 were given'),
                ('task_done', (1,), {}, r'task_done\(\) takes 1 positional argument but 2 were given')):
            with self.subTest(method=method, args=args, kwds=kwds):
                self.raises(TypeError, name + text, getattr(q, method), *args, **kwds)
        self.assertEqual(q.qsize(), 0)


class Timeouts(Case):
    LATE = 'timestamp (?:out of range for platform time_t|too large to convert to C _PyTime_t)'

    def test_block_goes_by_truth_value(self):
        q = self.m.Queue()
        for block in (False, 0, None, '', [], (), {}, 0.0, b'', set(), frozenset()):
            start = time.monotonic()
            self.raises(queue.Empty, None, q.get, block, 20)
            self.raises(queue.Empty, None, q.get, timeout=20, block=block)
            self.assertLess(time.monotonic() - start, 15, repr(block))
        for block in (True, 1, 'x', [0], (0,), {0: 0}, 0.1, b'\0', -1, {1}):
            self.raises(queue.Empty, None, q.get, block, 0.001)
            self.raises(ValueError, "'timeout' must be a non-negative number", q.get, block, -1)

    def test_timeout_is_not_looked_at_without_block(self):
        q = self.m.Queue()
        for timeout in (-1, 'x', [], float('nan'), float('inf'), 10 ** 400):
            self.raises(queue.Empty, None, q.get, False, timeout)
        q.put(1)
        self.assertEqual(q.get(False, 'x'), 1)

    def test_negative_timeout(self):
        q = self.m.Queue()
        text = "'timeout' must be a non-negative number"
        for filled in (False, True):
            for timeout in (-1, -0.5, -1e-300, -10 ** 400, float('-inf')):
                self.raises(ValueError, text, q.get, True, timeout)
            q.put('stays')
        self.assertEqual(q.qsize(), 2)

    def test_timeout_of_the_wrong_type(self):
        q = self.m.Queue()
        for filled in (False, True):
            for timeout, kind in (('1', 'str'), (b'1', 'bytes'), ([1], 'list'), ({}, 'dict'), ((), 'tuple')):
                self.raises(TypeError, "'<' not supported between instances of '%s' and 'int'" % kind,
                            q.get, True, timeout)
            q.put('stays')
        self.assertEqual(q.qsize(), 2)

    def test_waiting(self):
        q = self.m.Queue()
        self.takes(0, q.get, True, 0)
        self.takes(0, q.get, True, -0.0)
        self.takes(0, q.get, True, 0.0)
        self.takes(0, q.get, True, False)
        self.takes(0, q.get, True, 1e-300)
        self.takes(0.05, q.get, True, 0.05)
        self.takes(0.2, q.get, timeout=0.2)
        self.takes(1, q.get, timeout=True)

    def test_endless_and_huge_timeouts(self):
        q = self.m.Queue()
        for timeout in (None, 1e9, 10 ** 9, 9e9, float('inf'), 1e10, 10 ** 30, 1e300):
            q.put(1)
            self.assertEqual(q.get(True, timeout), 1)
        for timeout in (float('inf'), 1e10, 1e300):
            self.raises(OverflowError, self.LATE, q.get, True, timeout)
        self.raises(OverflowError, '.+', q.get, True, 10 ** 400)
        for timeout in (1e9, 10 ** 9):  # it waits
            thread = threading.Thread(target=q.put, args=(2,))
            thread.start()
            self.assertEqual(q.get(True, timeout), 2)
            thread.join()

    if not common.REFERENCE:  # Python's own server spins for ever
        def test_nan(self):
            q = self.m.Queue(1)
            with self.assertRaises(ValueError):
                q.get(True, float('nan'))
            q.put(1)
            with self.assertRaises(ValueError):
                q.put(2, True, float('nan'))

    def test_put_to_an_unbounded_queue_looks_at_nothing(self):
        for q in (self.m.Queue(), self.m.Queue(-5)):
            for timeout in (-1, 'x', float('nan'), float('inf'), [], 10 ** 400):
                q.put(1, True, timeout)
                q.put(1, False, timeout)
            q.put(1, 'x', -1)
            self.assertEqual(q.qsize(), 13)
            self.assertFalse(q.full())

    def test_put_to_a_bounded_queue(self):
        q = self.m.Queue(1)
        self.raises(ValueError, "'timeout' must be a non-negative number", q.put, 1, True, -1)
        self.raises(TypeError, "'<' not supported between instances of 'str' and 'int'", q.put, 1, True, 'x')
        self.assertEqual(q.qsize(), 0)
        q.put(1, False, -1)
        self.raises(queue.Full, None, q.put, 2, False)
        self.raises(queue.Full, None, q.put, 2, False, 'x')
        self.raises(queue.Full, None, q.put_nowait, 2)
        self.raises(queue.Full, None, q.put, 2, 0)
        self.raises(ValueError, "'timeout' must be a non-negative number", q.put, 2, True, -1)
        self.raises(OverflowError, self.LATE, q.put, 2, True, float('inf'))
        self.takes(0, q.put, 2, True, 0)
        self.takes(0.1, q.put, 2, timeout=0.1)
        self.assertEqual(self.drain(q), [1])
        q.put(3, True, float('inf'))
        self.assertEqual(self.drain(q), [3])

    def test_blocked_put_goes_on(self):
        q = self.m.Queue(1)
        q.put(1)
        thread = threading.Thread(target=q.put, args=(2,))
        thread.start()
        self.assertEqual([q.get(), q.get()], [1, 2])
        thread.join()

    def test_numbers_that_are_no_plain_ones(self):
        """Decimal is refused by Python too; Fraction is good there, and a TypeError is what an
        interpreter-free server answers."""
        q = self.m.Queue()
        with self.assertRaises(TypeError):
            q.get(True, Decimal('0.01'))
        with self.assertRaises(queue.Empty if common.REFERENCE else (queue.Empty, TypeError)):
            q.get(True, Fraction(1, 100))
        self.assertEqual(q.qsize(), 0)


class Unfinished(Case):

    def test_task_done_and_join(self):
        q = self.m.JoinableQueue()
        self.raises(ValueError, r'task_done\(\) called too many times', q.task_done)
        q.join()
        for i in range(3):
            q.put(i)
        q.get(), q.get(), q.get()
        order = []

        def join():
            q.join()
            order.append('joined')
        thread = threading.Thread(target=join)
        thread.start()
        for i in range(3):
            order.append(i)
            q.task_done()
        thread.join()
        self.assertEqual(order, [0, 1, 2, 'joined'])
        self.raises(ValueError, r'task_done\(\) called too many times', q.task_done)

    def test_done_before_taken(self):
        """The count goes by puts alone."""
        q = self.m.Queue()
        q.put(1)
        q.task_done()
        q.join()
        self.assertEqual(q.get(), 1)
        self.raises(ValueError, r'task_done\(\) called too many times', q.task_done)

    def test_workers(self):
        q = self.m.JoinableQueue()
        done = []

        def work():
            while True:
                item = q.get()
                if item is None:
                    q.task_done()
                    return
                done.append(item)
                q.task_done()
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(200):
            q.put(i)
        q.join()
        self.assertEqual(sorted(done), list(range(200)))
        for _ in threads:
            q.put(None)
        q.join()
        for thread in threads:
            thread.join()


class Kinds(Case):

    def test_fifo(self):
        q = self.m.Queue()
        for i in range(100):
            q.put(i)
        self.assertEqual(self.drain(q), list(range(100)))

    def test_lifo(self):
        q = self.m.lifo()
        for i in range(100):
            q.put(i)
        self.assertEqual([q.get() for _ in range(50)], list(range(99, 49, -1)))
        q.put('x')
        self.assertEqual(self.drain(q), ['x'] + list(range(49, -1, -1)))

    def test_bounded_kinds(self):
        for q in (self.m.lifo2(), self.m.prio2()):
            q.put(1)
            q.put(2)
            self.assertTrue(q.full())
            self.raises(queue.Full, None, q.put_nowait, 3)
            self.raises(queue.Full, None, q.put, 3, True, 0.01)
            self.drain(q)

    def same_order(self, seed, make, steps=300):
        """Puts and gets at random: the served queue must do what a local one does."""
        rng = random.Random(seed)
        local, served = queue.PriorityQueue(), self.m.prio()
        for step in range(steps):
            if local.qsize() and rng.random() < 0.45:
                self.assertEqual(repr(served.get()), repr(local.get()), 'step %d' % step)
            else:
                item = make(rng, step)
                local.put(item)
                served.put(item)
        while local.qsize():
            self.assertEqual(repr(served.get()), repr(local.get()))
        self.assertTrue(served.empty())

    def test_priority_numbers(self):
        self.same_order(1, lambda rng, step: rng.randrange(-1000, 1000))
        big = [1 << 53, (1 << 53) + 1, float(1 << 53), 10 ** 400, float('inf'), -10 ** 400, float('-inf'), 0.1,
               1e308, -1e-308, 0, -0.0, (1 << 63) - 1, 1 << 63, float(1 << 63), -(1 << 63), (1 << 64) + 1, 2 ** 1023]
        self.same_order(2, lambda rng, step: rng.choice(big))

    def test_priority_equal_keys(self):
        """Heap order, not arrival order, where items are equal but not the same."""
        self.same_order(3, lambda rng, step: rng.choice([0, 0.0, False, 1, 1.0, True, -0.0]))
        self.same_order(4, lambda rng, step: (rng.randrange(3), rng.choice([1, 1.0, True])))

    def test_priority_texts_and_bytes(self):
        letters = 'aZ\u00e9\u20ac\uffff\U00010000\U0010ffff\0'
        self.same_order(5, lambda rng, step: ''.join(rng.choice(letters) for _ in range(rng.randrange(5))))
        self.same_order(6, lambda rng, step: bytes(rng.randrange(256) for _ in range(rng.randrange(4))))

    def test_priority_tuples_and_lists(self):
        self.same_order(7, lambda rng, step: (rng.randrange(5), step, {'work': step}))
        self.same_order(8, lambda rng, step: tuple(rng.randrange(2) for _ in range(rng.randrange(5))))
        self.same_order(9, lambda rng, step: [rng.choice('ab'), (rng.random(), None), [step]])

    def refused(self, q, item, text):
        before = q.qsize()
        self.raises(TypeError, text, q.put, item)
        if common.REFERENCE:  # keeps the refused item, a slip of Python's
            self.assertEqual(q.qsize(), before + 1)
        else:
            self.assertEqual(q.qsize(), before)

    def test_incomparable(self):
        for first, second, a, b in ((1, 'a', 'str', 'int'), ('a', b'a', 'bytes', 'str'),
                                    (None, None, 'NoneType', 'NoneType'),
                                    ({}, {}, 'dict', 'dict'), ((1, 'a'), (1, 2), 'int', 'str'),
                                    ([1], (1,), 'tuple', 'list'), (1j, 2j, 'complex', 'complex'),
                                    ((1, {'a': 1}), (1, {'a': 2}), 'dict', 'dict'), (1.5, 'x', 'str', 'float'),
                                    (True, 'x', 'str', 'bool')):
            with self.subTest(first=first, second=second):
                q = self.m.prio()
                q.put(first)
                self.refused(q, second, "'<' not supported between instances of '%s' and '%s'" % (a, b))
                if common.REFERENCE:  # taking from such a heap may fail as well
                    while q.qsize():
                        try:
                            q.get()
                        except TypeError:
                            pass
                else:
                    self.assertEqual(self.drain(q), [first])

    if not common.REFERENCE:
        def test_refused_item_is_not_to_be_joined_for(self):
            q = self.m.prio2()
            with self.assertRaises(ValueError):  # what other tests left undone
                while True:
                    q.task_done()
            q.put(1)
            self.assertRaises(TypeError, q.put, 'a')
            q.put(2)
            self.assertEqual(self.drain(q), [1, 2])
            q.task_done()
            q.task_done()
            q.join()

    def test_equal_dictionaries_are_no_obstacle(self):
        q = self.m.prio()
        q.put((1, {'a': 1}, 2))
        q.put((1, {'a': 1}, 1))
        self.assertEqual(self.drain(q), [(1, {'a': 1}, 1), (1, {'a': 1}, 2)])


if not common.REFERENCE or sys.version_info >= (3, 13):
    class ShutDown(Case):

        def test_drains_and_refuses(self):
            q = self.m.Queue(2)
            q.put(1)
            q.put(2)
            self.assertIsNone(q.shutdown())
            self.raises(SHUTDOWN, None, q.put, 3)
            self.raises(SHUTDOWN, None, q.put_nowait, 3)
            self.raises(SHUTDOWN, None, q.put, 3, True, -1)
            self.assertEqual([q.get(), q.get(timeout=5)], [1, 2])
            for args in ((), (False,), (True, 1), (True, -1)):
                self.raises(SHUTDOWN, None, q.get, *args)
            q.task_done()
            q.task_done()
            q.join()
            q.shutdown()

        def test_immediate(self):
            q = self.m.Queue()
            for i in range(3):
                q.put(i)
            q.get()
            q.shutdown(immediate=True)
            self.assertEqual(q.qsize(), 0)
            self.raises(SHUTDOWN, None, q.get)
            q.task_done()
            q.join()
            self.raises(ValueError, r'task_done\(\) called too many times', q.task_done)

        def test_immediate_by_position_and_after_the_mild_one(self):
            q = self.m.Queue()
            q.put(1)
            q.shutdown()
            self.assertEqual(q.qsize(), 1)
            q.shutdown(True)
            self.assertEqual(q.qsize(), 0)

        def test_arguments(self):
            q = self.m.Queue()
            self.raises(TypeError, r'(?:Queue\.)?shutdown\(\) takes from 1 to 2 positional arguments but 3 were given',
                        q.shutdown, 1, 2)
            self.raises(TypeError, r"(?:Queue\.)?shutdown\(\) got an unexpected keyword argument 'now'",
                        q.shutdown, now=True)
            q.put(1)
            self.assertEqual(q.get(), 1)

        def test_wakes_the_blocked(self):
            for immediate in (False, True):
                q, full = self.m.Queue(), self.m.Queue(1)
                full.put(1)
                ends = queue.Queue()

                def blocked(function, *args):
                    try:
                        ends.put(function(*args))
                    except BaseException as error:
                        ends.put(type(error))
                threads = [threading.Thread(target=blocked, args=a)
                           for a in ((q.get,), (q.get, True, 30), (full.put, 2), (full.put, 2, True, 30))]
                for thread in threads:
                    thread.start()
                q.shutdown(immediate)
                full.shutdown(immediate)
                self.assertEqual([ends.get(timeout=20) for _ in threads], [SHUTDOWN] * 4)
                for thread in threads:
                    thread.join()

        def test_immediate_wakes_join(self):
            q = self.m.Queue()
            q.put(1)
            thread = threading.Thread(target=q.join)
            thread.start()
            q.shutdown(immediate=True)
            thread.join(30)
            self.assertFalse(thread.is_alive())


if __name__ == '__main__':
    unittest.main()
