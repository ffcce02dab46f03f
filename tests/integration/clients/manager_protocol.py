"""The manager protocol as a stock client sees it. Run under each interpreter against task-master and
against Python's own server."""
import gc
import re
import threading
import unittest
from multiprocessing import managers
from multiprocessing.managers import RemoteError

import common

METHODS = ['empty', 'full', 'get', 'get_nowait', 'join', 'put', 'put_nowait', 'qsize', 'task_done']


class ManagerProtocol(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.m = common.connect('get_task_queue', 'task_queue', 'get_result_queue', 'get_nothing', 'Queue',
                               'JoinableQueue', 'mine')

    def setUp(self):
        for q in (self.m.get_task_queue(), self.m.get_result_queue(), self.m.mine()):
            self.assertTrue(q.empty(), 'an item of an earlier test came back, or that test failed')

    def test_connect_again_and_again(self):
        for _ in range(5):
            self.m.connect()

    def test_names_of_a_queue(self):
        one, other = self.m.get_task_queue(), self.m.task_queue()
        one.put('by one name')
        self.assertEqual(other.get(), 'by one name')
        self.assertTrue(self.m.get_result_queue().empty())

    def test_name_by_option(self):
        self.m.mine().put(1)
        self.assertEqual(self.m.mine().get(), 1)

    def test_exposed(self):
        exposed = list(self.m.get_task_queue()._exposed_)
        self.assertEqual([n for n in exposed if n != 'shutdown'], METHODS)
        self.assertEqual(exposed, sorted(exposed))

    def test_unknown_typeid(self):
        with self.assertRaisesRegex(RemoteError, 'get_nothing'):
            self.m.get_nothing()

    def test_arguments_for_a_registered_queue(self):
        with self.assertRaisesRegex(RemoteError, 'TypeError'):
            self.m.get_task_queue(1)
        with self.assertRaisesRegex(RemoteError, 'TypeError'):
            self.m.get_task_queue(maxsize=1)

    def test_factories(self):
        for make in (self.m.Queue, self.m.JoinableQueue):
            small, other, named = make(2), make(), make(maxsize=1)
            self.assertNotEqual(small._token.id, other._token.id)
            small.put(1)
            self.assertFalse(small.full())
            small.put(2)
            self.assertTrue(small.full())
            named.put(1)
            self.assertTrue(named.full())
            for i in range(20):
                other.put(i)
            self.assertFalse(other.full())
            self.assertEqual(other.qsize(), 20)
            make(-1).put(1)

    def test_wrong_arguments_for_a_factory(self):
        with self.assertRaisesRegex(RemoteError, 'TypeError'):
            self.m.Queue(1, 2)
        with self.assertRaisesRegex(RemoteError, 'TypeError'):
            self.m.Queue(size=1)

    def test_factory_made_object_goes_with_its_last_proxy(self):
        q = self.m.Queue()
        q.put(1)
        token = q._token
        again = managers.AutoProxy(token, 'pickle', authkey=common.KEY)  # get_methods, incref
        self.assertEqual(sorted(n for n in again._exposed_ if n != 'shutdown'), METHODS)
        del q
        gc.collect()
        self.assertEqual(again.qsize(), 1)
        del again
        gc.collect()
        with self.assertRaisesRegex(RemoteError, token.id):
            managers.AutoProxy(token, 'pickle', authkey=common.KEY)

    def test_number_of_objects_and_debug_info(self):
        gc.collect()
        before = self.m._number_of_objects()
        self.assertIs(type(before), int)
        one = self.m.Queue()
        two = self.m.Queue()
        self.assertEqual(self.m._number_of_objects(), before + 2)
        info = self.m._debug_info()
        self.assertIs(type(info), str)
        entries = dict((ident, (int(count), text)) for ident, count, text in
                       re.findall(r'^  (\S+): +refcount=(\d+)\n    (.*)$', info, re.M))
        self.assertEqual(len(entries), len(info.splitlines()) / 2, info)
        self.assertGreaterEqual(sum(count for count, _ in entries.values()), before + 2)
        del one, two
        gc.collect()
        self.assertEqual(self.m._number_of_objects(), before)

    def test_refcount_of_a_registered_queue(self):
        def count():
            return sum(int(n) for n in re.findall(r'^  \S+: +refcount=(\d+)$', self.m._debug_info(), re.M))
        gc.collect()
        q = self.m.get_result_queue()
        before = count()
        another = self.m.get_result_queue()
        self.assertEqual(count(), before + 1)
        another.put(1)
        del another
        gc.collect()
        self.assertEqual(count(), before)
        self.assertEqual(q.get(), 1)

    def test_str_and_value(self):
        q = self.m.get_task_queue()
        self.assertNotIn('failed', str(q))
        self.assertRegex(str(q), '(?i)queue')
        self.assertRegex(q._callmethod('__repr__'), '(?i)queue')
        self.assertRegex(q._callmethod('__str__'), '(?i)queue')
        with self.assertRaisesRegex(RemoteError, 'Unserializable'):
            q._getvalue()
        self.assertEqual(q.qsize(), 0)

    def test_method_not_exposed(self):
        q = self.m.get_task_queue()
        for name in ('clear', '_put', '__class__', '__getattribute__', 'mutex', ''):
            with self.assertRaisesRegex(RemoteError, re.escape(repr(name))):
                q._callmethod(name)
        self.assertEqual(q.qsize(), 0)  # the same session

    def test_unknown_ident(self):
        q = self.m.get_task_queue()
        self.assertEqual(q.qsize(), 0)
        conn = q._tls.connection
        for ident in ('7f00deadbeef', 'task_queuf', ''):
            conn.send((ident, 'get', (), {}))
            kind, text = conn.recv()
            self.assertEqual(kind, '#TRACEBACK')
            self.assertIn(repr(ident), text)
        self.assertEqual(q.qsize(), 0)
        self.assertIs(q._tls.connection, conn)

    def test_bad_envelopes(self):
        q = self.m.get_task_queue()
        self.assertEqual(q.qsize(), 0)
        conn = q._tls.connection
        ident = q._token.id
        for request in (5, None, 'text', (), (ident, 'qsize', ()), (ident, 'qsize', (), {}, 1),
                        (None, 'qsize', (), {}), ([], 'qsize', (), {}), (ident, 5, (), {})):
            conn.send(request)
            kind, text = conn.recv()
            self.assertEqual(kind, '#TRACEBACK', request)
            self.assertIs(type(text), str)
        self.assertEqual(q.qsize(), 0)

    def test_a_list_of_four_is_a_request(self):
        q = self.m.get_task_queue()
        self.assertEqual(q.qsize(), 0)
        conn = q._tls.connection
        conn.send([q._token.id, 'qsize', [], {}])
        self.assertEqual(conn.recv(), ('#RETURN', 0))

    def test_exceptions_leave_the_session_usable(self):
        q = self.m.get_task_queue()
        for _ in range(3):
            self.assertRaises(TypeError, q.get, foo=1)
            self.assertRaises(ValueError, q.get, timeout=-1)
            self.assertRaises(RemoteError, q._callmethod, 'nothing')
            q.put(1)
            self.assertEqual(q.get(), 1)

    def test_one_session_serves_all_proxies_of_a_thread(self):
        a, b = self.m.get_task_queue(), self.m.get_result_queue()
        a.put('a'), b.put('b')
        self.assertIs(a._tls.connection, b._tls.connection)
        self.assertEqual((b.get(), a.get()), ('b', 'a'))

    def test_threads_have_their_own_sessions(self):
        q = self.m.get_task_queue()
        results = self.m.get_result_queue()

        def square():
            n = q.get(timeout=30)
            results.put(n * n)
        threads = [threading.Thread(target=square) for _ in range(8)]
        for thread in threads:
            thread.start()
        for n in range(8):
            q.put(n)
        self.assertEqual(sorted(results.get(timeout=30) for _ in range(8)), [n * n for n in range(8)])
        for thread in threads:
            thread.join()


if __name__ == '__main__':
    unittest.main()
