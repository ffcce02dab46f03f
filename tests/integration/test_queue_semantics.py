"""queue.Queue through proxies: by stock clients, and who waits for what by hand."""
import queue
import select
import threading

import wire
from harness import ServerCase, expand, main, old_middle_new, per_interpreter

QUEUES = ['lifo,kind=lifo', 'lifo2,kind=lifo,maxsize=2', 'prio,kind=priority', 'prio2,kind=priority,maxsize=2',
          'small,maxsize=1']


@expand
class StockClientTest(ServerCase):

    @per_interpreter()
    def test_master(self, interpreter):
        server = self.start_master(queues=QUEUES)
        self.run_unittest_client(interpreter, 'queue_semantics.py', server=server, least=30)

    @per_interpreter(old_middle_new)
    def test_reference(self, interpreter):
        server = self.start_reference(interpreter=interpreter, queues=QUEUES)
        self.run_unittest_client(interpreter, 'queue_semantics.py', server=server, least=22)


class Waiting:
    """Blocked calls of raw sessions, so that the test knows who came first. Both kinds of server."""

    turns = 3

    def setUp(self):
        self.server = self.start()
        self.probe = wire.Probe(self.server)
        self.addCleanup(self.probe.close)

    def session(self, **kwargs):
        session = wire.Session(self.server, **kwargs)
        self.addCleanup(session.close)
        return session

    def settle(self):
        self.probe.settle(turns=self.turns)

    def blocked(self, typeid, method, *args, **kwds):
        """A session whose call the server has seen and not answered."""
        session = self.session()
        session.request(self.probe.ident(typeid), method, *args, **kwds)
        self.settle()
        self.assertTrue(self.silent(session))
        return session

    def silent(self, session):
        return not select.select([session.sock], [], [], 0)[0]

    def test_empty_and_full_come_after_the_time(self):
        getter = self.session()
        self.assertRaises(queue.Empty, getter.call, self.probe.ident('task_queue'), 'get', True, 0.05)
        self.probe.call('small', 'put', 1)
        self.assertRaises(queue.Full, getter.call, self.probe.ident('small'), 'put', 2, True, 0.05)
        self.assertRaises(queue.Empty, getter.call, self.probe.ident('task_queue'), 'get', timeout=0.05)
        self.assertEqual(self.probe.call('small', 'get'), 1)

    def test_a_waiter_whose_time_is_over_takes_nothing(self):
        early = self.session()
        self.assertRaises(queue.Empty, early.call, self.probe.ident('task_queue'), 'get', True, 0.02)
        late = self.blocked('task_queue', 'get')
        self.probe.call('task_queue', 'put', 'item')
        self.assertEqual(late.result(), 'item')
        self.assertTrue(self.silent(early))

    def test_join_waits_for_the_last_and_wakes_all(self):
        for n in range(3):
            self.probe.call('task_queue', 'put', n)
        joiners = [self.blocked('task_queue', 'join') for _ in range(4)]
        for n in range(3):
            self.settle()
            for joiner in joiners:
                self.assertTrue(self.silent(joiner))
            self.assertEqual(self.probe.call('task_queue', 'get'), n)
            self.probe.call('task_queue', 'task_done')
        self.assertEqual([j.result() for j in joiners], [None] * 4)

    def test_put_reaches_a_getter_of_each_kind(self):
        for typeid in ('task_queue', 'lifo', 'prio', 'small'):
            getter = self.blocked(typeid, 'get')
            self.probe.call(typeid, 'put', typeid)
            self.assertEqual(getter.result(), typeid)
            self.assertTrue(self.probe.call(typeid, 'empty'))

    def test_many_producers_and_consumers(self):
        """Every item once, each producer's items in their order."""
        ident = self.probe.ident('small')
        sessions = [self.session() for _ in range(8)]
        taken, lock = [], threading.Lock()

        def produce(session, name):
            for n in range(100):
                session.call(ident, 'put', (name, n))

        def consume(session):
            for _ in range(100):
                item = session.call(ident, 'get')
                with lock:
                    taken.append(item)
        threads = [threading.Thread(target=produce, args=(s, k)) for k, s in enumerate(sessions[:4])]
        threads += [threading.Thread(target=consume, args=(s,)) for s in sessions[4:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(taken), [(k, n) for k in range(4) for n in range(100)])
        self.assertTrue(self.probe.call('small', 'empty'))


class Order:
    """Who waited first is served first. Not asked of Python's own server: its threads race for the lock, and on
    a busy machine a later one may win."""

    def test_getters_are_served_in_their_order(self):
        getters = [self.blocked('task_queue', 'get', *args) for args in
                   ((), (True,), (True, None), (True, 60), (1, 60.5), ('yes', 60))]
        for n in range(6):
            self.probe.call('task_queue', 'put', n)
        self.assertEqual([g.result() for g in getters], list(range(6)))

    def test_getters_are_served_one_by_one(self):
        getters = [self.blocked('task_queue', 'get') for _ in range(6)]
        for n, getter in enumerate(getters):
            self.probe.call('task_queue', 'put', n)
            self.assertEqual(getter.result(), n)
            self.settle()
            for later in getters[n + 1:]:
                self.assertTrue(self.silent(later))
            self.assertEqual(self.probe.call('task_queue', 'qsize'), 0)

    def test_putters_are_served_in_their_order(self):
        self.probe.call('small', 'put', 'first')
        putters = [self.blocked('small', 'put', n) for n in range(6)]
        self.assertEqual(self.probe.call('small', 'get'), 'first')
        for n, putter in enumerate(putters):
            self.assertIsNone(putter.result())
            self.settle()
            for later in putters[n + 1:]:
                self.assertTrue(self.silent(later))
            self.assertEqual(self.probe.call('small', 'get'), n)
        self.assertEqual(self.probe.call('small', 'qsize'), 0)


class MasterWaitingTest(Waiting, Order, ServerCase):

    def start(self):
        return self.start_master(queues=QUEUES)

    def test_waiters_of_queues_do_not_disturb_each_other(self):
        getters = [self.blocked(typeid, 'get') for typeid in ('task_queue', 'result_queue', 'lifo', 'prio')]
        for typeid, getter in zip(('prio', 'lifo', 'result_queue', 'task_queue'), reversed(getters)):
            self.probe.call(typeid, 'put', typeid)
            self.assertEqual(getter.result(), typeid)

    def test_removed_queue_releases_its_waiters(self):
        """A factory-made queue goes with its last reference, whoever waits there."""
        ident = wire.create(self.server, 'Queue')
        getter = self.session()
        getter.request(ident, 'get')
        self.settle()
        self.assertEqual(wire.control(self.server, 'decref', ident), ('#RETURN', None))
        self.assertEqual(getter.reply()[0], '#ERROR')
        self.assertEqual(getter.ask(ident, 'qsize')[0], '#TRACEBACK')


class ReferenceWaitingTest(Waiting, ServerCase):

    turns = 60  # threads need a moment to reach their wait

    def start(self):
        return self.start_reference(queues=QUEUES)


if __name__ == '__main__':
    main()
