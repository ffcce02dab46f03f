"""What becomes of items when programs are killed, are interrupted, and when they end as they should."""
import collections
import queue
import random
import re
import signal
import threading

import wire
from harness import (ServerCase, all_clients, expand, main, old_middle_new, per_interpreter, poll_until,
                     run_parallel)

SETTLED_S = 3.0  # a master may think this long about how a program ended


class RobustnessCase(ServerCase):

    def serve(self, *queues):
        server = self.start_master(queues=('small,maxsize=1',) + queues)
        probe = wire.Probe(server)
        self.addCleanup(probe.close)
        return server, probe

    def blocked(self, interpreter, server, probe, what):
        """A stock client in its blocked call, known to the server."""
        client = self.start_client(interpreter, 'blocked.py', what, server=server, stdin=True)
        client.expect('blocks')
        client.wait_blocked()
        probe.settle()
        return client

    def drain(self, probe, typeid):
        items = []
        try:
            while True:
                items.append(probe.call(typeid, 'get_nowait'))
        except queue.Empty:
            return items


@expand
class KilledTest(RobustnessCase):

    @per_interpreter()
    def test_in_get(self, interpreter):
        """Swallows nothing, alone or among others."""
        server, probe = self.serve()
        for what in ('get', 'timeout'):
            victims = [self.blocked(interpreter, server, probe, what) for _ in range(2)]
            living = wire.Session(server)
            self.addCleanup(living.close)
            living.request(probe.ident('task_queue'), 'get')
            for victim in victims:
                victim.kill()
            probe.settle()
            for n in range(2):
                probe.call('task_queue', 'put', n)
            self.assertEqual(living.result(), 0)
            self.assertEqual(probe.call('task_queue', 'get', timeout=10), 1)

    @per_interpreter()
    def test_in_put(self, interpreter):
        """Puts nothing."""
        server, probe = self.serve()
        probe.call('small', 'put', 'first')
        self.blocked(interpreter, server, probe, 'put').kill()
        probe.settle()
        self.assertEqual(probe.call('small', 'get'), 'first')
        self.assertEqual(probe.call('small', 'qsize'), 0)
        probe.call('small', 'put', 'second', False)
        self.assertEqual(probe.call('small', 'get'), 'second')

    @per_interpreter(old_middle_new)
    def test_in_join(self, interpreter):
        server, probe = self.serve()
        probe.call('task_queue', 'put', 1)
        self.blocked(interpreter, server, probe, 'join').kill()
        probe.settle()
        self.assertEqual(probe.call('task_queue', 'get'), 1)
        self.assertIsNone(probe.call('task_queue', 'task_done'))

    @per_interpreter()
    def test_with_an_item(self, interpreter):
        """The item goes back to the front."""
        server, probe = self.serve()
        for n in range(3):
            probe.call('task_queue', 'put', n)
        client = self.start_client(interpreter, 'blocked.py', 'hold', server=server, stdin=True)
        client.expect('took 0')
        self.assertEqual(probe.call('task_queue', 'qsize'), 2)
        client.kill()
        poll_until(lambda: probe.call('task_queue', 'qsize') == 3, 'the item is back')
        self.assertEqual([probe.call('task_queue', 'get') for _ in range(3)], [0, 1, 2])

    @per_interpreter(old_middle_new)
    def test_with_an_item_that_others_wait_for(self, interpreter):
        server, probe = self.serve()
        probe.call('task_queue', 'put', 'the one')
        client = self.start_client(interpreter, 'blocked.py', 'hold', server=server, stdin=True)
        client.expect('took the one')
        waiting = wire.Session(server)
        self.addCleanup(waiting.close)
        waiting.request(probe.ident('task_queue'), 'get')
        probe.settle()
        client.kill()
        self.assertEqual(waiting.result(), 'the one')

    def test_again_and_again_with_the_same_item(self):
        server, probe = self.serve()
        probe.call('task_queue', 'put', 'the one')
        for interpreter in old_middle_new():
            client = self.start_client(interpreter, 'blocked.py', 'hold', server=server, stdin=True)
            client.expect('took the one')
            client.kill()
        self.assertEqual(probe.call('task_queue', 'get', timeout=30), 'the one')

    def test_returned_item_to_a_full_queue(self):
        """There is room for what comes back, whatever maxsize says."""
        server, probe = self.serve('bounded,maxsize=1')
        holder = wire.Session(server)
        probe.call('bounded', 'put', 'a')
        self.assertEqual(holder.call(probe.ident('bounded'), 'get'), 'a')
        probe.call('bounded', 'put', 'b')
        holder.reset()
        poll_until(lambda: probe.call('bounded', 'qsize') == 2, 'the item is back')
        self.assertTrue(probe.call('bounded', 'full'))
        self.assertRaises(queue.Full, probe.call, 'bounded', 'put_nowait', 'c')
        self.assertEqual([probe.call('bounded', 'get'), probe.call('bounded', 'get')], ['a', 'b'])


@expand
class InterruptedTest(RobustnessCase):

    def interrupt(self, interpreter, what, prepare=None):
        server, probe = self.serve()
        if prepare:
            prepare(probe)
        client = self.start_client(interpreter, 'blocked.py', 'interrupted-' + what, server=server, stdin=True)
        for _ in range(3):
            client.expect('^blocks$')
            client.wait_blocked()
            probe.settle()
            client.signal(signal.SIGINT)
            client.expect('^interrupted$')
        client.expect('^in step$')
        return client, probe

    @per_interpreter()
    def test_get(self, interpreter):
        client, probe = self.interrupt(interpreter, 'get')
        probe.call('task_queue', 'put', 'not for the interrupted')
        self.assertEqual(probe.call('task_queue', 'get', timeout=10), 'not for the interrupted')
        client.tell('end')
        self.assertEqual(client.wait(), 0, client.describe())

    @per_interpreter(old_middle_new)
    def test_get_with_timeout(self, interpreter):
        client, probe = self.interrupt(interpreter, 'timeout')
        client.tell('end')
        self.assertEqual(client.wait(), 0, client.describe())

    @per_interpreter(old_middle_new)
    def test_put(self, interpreter):
        client, probe = self.interrupt(interpreter, 'put', lambda probe: probe.call('small', 'put', 'first'))
        self.assertEqual(self.drain(probe, 'small'), ['first'])
        client.tell('end')
        self.assertEqual(client.wait(), 0, client.describe())

    @per_interpreter(old_middle_new)
    def test_join(self, interpreter):
        client, probe = self.interrupt(interpreter, 'join', lambda probe: probe.call('task_queue', 'put', 1))
        client.tell('end')
        self.assertEqual(client.wait(), 0, client.describe())

    def test_pipelining_peers_may_ask_to_wait(self):
        server = self.start_master('--wait-pipelined')
        session = wire.Session(server)
        self.addCleanup(session.close)
        ident = wire.create(server, 'task_queue')
        session.request(ident, 'get')
        session.request(ident, 'qsize')
        probe = wire.Probe(server)
        self.addCleanup(probe.close)
        probe.settle()
        probe.call('task_queue', 'put', 'item')
        self.assertEqual([session.result(), session.result()], ['item', 0])


class WellBehavedTest(RobustnessCase):

    def check(self, interpreter):
        server, probe = self.serve()
        modes = self.run_client(interpreter, 'wellbehaved.py', '--list', server=server)
        self.assertGreater(len(modes), 20)
        count = 10 * len(modes)
        for n in range(count):
            probe.call('task_queue', 'put', n)
        clients = {}
        lock = threading.Lock()

        def run(mode):
            client = self.start_client(interpreter, 'wellbehaved.py', mode, server=server)
            client.wait()
            with lock:
                clients[mode] = client
        run_parallel([lambda m=m: run(m) for m in modes], at_once=6)
        seen = collections.Counter()
        for mode, client in clients.items():
            wanted = {'ends_by_an_exception': 1, 'exits_with_a_status': 1, 'exits_in_a_loop_after_work': 1}
            if client.wait() != wanted.get(mode, 0):
                self.fail('%s: %s' % (mode, client.describe()))
            items = [int(n) for n in re.findall(r'^seen (\d+)$', client.stdout, re.M)]
            self.assertTrue(items, client.describe())
            seen.update(items)
        # Nothing comes back, and what nobody took is all there.
        left = self.drain(probe, 'task_queue')
        try:
            left.append(probe.call('task_queue', 'get', timeout=SETTLED_S))
        except queue.Empty:
            pass
        twice = [n for n in left if n in seen] + [n for n, times in seen.items() if times > 1]
        self.assertEqual([(n, m) for n in twice for m, c in clients.items()
                          if re.search('^seen %d$' % n, c.stdout, re.M)], [], interpreter.name)
        self.assertEqual(sorted(left + list(seen)), list(range(count)), interpreter.name)
        self.assertNotIn('WORKER-DIED', server.stderr)

    def test_no_item_is_seen_twice(self):
        run_parallel([lambda i=i: self.check(i) for i in all_clients()], at_once=3)


class NeighbourTest(RobustnessCase):
    """A death beside a clean exit of another process of the same machine: told apart by what a stock client
    does last, which is to close its session when its decref was answered, and then the decref's connection."""

    def process(self, server, probe):
        """A stock program so far: a proxy, a session, an item."""
        ident = wire.create(server, 'task_queue')
        wire.control(server, 'incref', ident)
        wire.control(server, 'decref', ident)
        session = wire.Session(server)
        self.addCleanup(session.close)
        return session, ident, session.call(ident, 'get')

    def test_death_between_decref_and_close(self):
        server, probe = self.serve()
        for n in range(2):
            probe.call('task_queue', 'put', n)
        leaving, ident, _ = self.process(server, probe)
        dying, _, item = self.process(server, probe)
        farewell = wire.Wire(server)
        self.addCleanup(farewell.close)
        self.assertEqual(farewell.handshake().ask(None, 'decref', ident), ('#RETURN', None))
        dying.close()
        probe.settle()
        leaving.close()
        farewell.close()
        self.assertEqual(probe.call('task_queue', 'get', timeout=30), item)
        self.assertRaises(queue.Empty, probe.call, 'task_queue', 'get', timeout=SETTLED_S)

    def test_death_while_another_process_makes_its_proxy(self):
        """The decref that ends the making of a proxy is nobody's farewell."""
        server, probe = self.serve()
        probe.call('task_queue', 'put', 'item')
        dying, _, item = self.process(server, probe)
        ident = wire.create(server, 'task_queue')
        wire.control(server, 'incref', ident)
        making = wire.Wire(server)
        self.addCleanup(making.close)
        self.assertEqual(making.handshake().ask(None, 'decref', ident), ('#RETURN', None))
        dying.close()
        probe.settle()
        making.close()
        self.assertEqual(probe.call('task_queue', 'get', timeout=10), 'item')


@expand
class AcknowledgeTest(RobustnessCase):

    def hold(self, interpreter, server, end):
        client = self.start_client(interpreter, 'acknowledge.py', end, server=server, stdin=True)
        client.expect('took 0')
        if end == 'die':
            client.kill()
        else:
            client.tell('end')
            self.assertEqual(client.wait(), 0, client.describe())

    @per_interpreter(old_middle_new)
    def test_explicit(self, interpreter):
        """Only task_done() acknowledges: neither a clean exit nor the next request does."""
        def ends(end):
            server, probe = self.serve('jobs,ack=explicit')
            probe.call('jobs', 'put', 0)
            probe.call('jobs', 'put', 1)
            self.hold(interpreter, server, end)
            if end == 'done':
                self.assertEqual(probe.call('jobs', 'get'), 1)
                self.assertRaises(queue.Empty, probe.call, 'jobs', 'get', timeout=SETTLED_S)
            else:
                poll_until(lambda: probe.call('jobs', 'qsize') == 2, 'the item is back after ' + end)
                self.assertEqual([probe.call('jobs', 'get'), probe.call('jobs', 'get')], [0, 1])
        run_parallel([lambda e=e: ends(e) for e in ('exit', 'next', 'thread', 'die', 'done')], at_once=5)

    @per_interpreter(old_middle_new)
    def test_get(self, interpreter):
        """Python's own at-most-once: what was handed over is gone."""
        server, probe = self.serve('jobs,ack=get')
        probe.call('jobs', 'put', 0)
        self.hold(interpreter, server, 'die')
        self.assertRaises(queue.Empty, probe.call, 'jobs', 'get', timeout=SETTLED_S)

    def test_explicit_order_of_task_done(self):
        """task_done() is for the oldest item that the session holds."""
        server, probe = self.serve('jobs,ack=explicit')
        for n in range(3):
            probe.call('jobs', 'put', n)
        session = wire.Session(server)
        self.assertEqual([session.call(probe.ident('jobs'), 'get') for _ in range(3)], [0, 1, 2])
        session.call(probe.ident('jobs'), 'task_done')
        session.close()
        poll_until(lambda: probe.call('jobs', 'qsize') == 2, 'two items are back')
        self.assertEqual([probe.call('jobs', 'get') for _ in range(2)], [1, 2])

    def test_auto_signs_of_progress(self):
        """After a put, a get, or task_done, the item before is done; after other calls it is not."""
        def check(method, args, comes_back):
            server, probe = self.serve()
            probe.call('task_queue', 'put', 'item')
            session = wire.Session(server)
            self.assertEqual(session.call(probe.ident('task_queue'), 'get'), 'item')
            target = 'task_queue' if method == 'task_done' else 'result_queue'
            session.call(probe.ident(target), method, *args)
            session.reset()
            if comes_back:
                self.assertEqual(probe.call('task_queue', 'get', timeout=30), 'item', method)
            else:
                with self.assertRaises(queue.Empty, msg=method):
                    probe.call('task_queue', 'get', timeout=SETTLED_S)
        run_parallel([lambda c=c: check(*c) for c in (
            ('put', ('x',), False), ('task_done', (), False), ('qsize', (), True), ('empty', (), True),
            ('full', (), True), ('put_nowait', ('x',), False))], at_once=6)

    def test_auto_next_get(self):
        server, probe = self.serve()
        for n in range(3):
            probe.call('task_queue', 'put', n)
        session = wire.Session(server)
        self.assertEqual([session.call(probe.ident('task_queue'), 'get') for _ in range(2)], [0, 1])
        session.reset()
        poll_until(lambda: probe.call('task_queue', 'qsize') == 2, 'one item is back')
        self.assertEqual([probe.call('task_queue', 'get') for _ in range(2)], [1, 2])

    def test_auto_failed_put_is_no_progress(self):
        server, probe = self.serve()
        probe.call('small', 'put', 'full now')
        probe.call('task_queue', 'put', 'item')
        session = wire.Session(server)
        self.assertEqual(session.call(probe.ident('task_queue'), 'get'), 'item')
        self.assertRaises(queue.Full, session.call, probe.ident('small'), 'put', 'x', False)
        session.reset()
        self.assertEqual(probe.call('task_queue', 'get', timeout=30), 'item')


@expand
class KillLoopTest(RobustnessCase):
    """Unmodified workers, killed at random and started again: one result for every task."""

    TASKS = 1000
    WORKERS = 4

    @per_interpreter(old_middle_new)
    def test_exactly_one_result_each(self, interpreter):
        server, probe = self.serve()
        for n in range(self.TASKS):
            probe.call('task_queue', 'put', n)
        over = threading.Event()
        lives, failures = [], []

        def slot(seed):
            rng = random.Random(seed)
            while not over.is_set():
                worker = self.start_client(interpreter, 'endless_worker.py', server=server)
                if rng.random() < 0.8:
                    worker.expect('^up$')
                    over.wait(rng.expovariate(1 / 0.012))
                else:
                    over.wait(rng.uniform(0.02, 0.25))  # while it starts and logs in
                worker.kill()
                lives.append(seed)
                if worker.stderr:
                    failures.append(worker.describe())
        slots = [threading.Thread(target=slot, args=(n,)) for n in range(self.WORKERS)]
        for thread in slots:
            thread.start()
        results = []
        try:
            while len(results) < self.TASKS and not failures:
                results.append(probe.call('result_queue', 'get', timeout=25))
        finally:
            over.set()
            for thread in slots:
                thread.join()
        self.assertEqual(failures, [])
        # All workers are dead: what they held would come back now.
        try:
            results.append(probe.call('result_queue', 'get', timeout=SETTLED_S))
        except queue.Empty:
            pass
        self.assertEqual(sorted(results), sorted('%d * %d = %d' % (n, n, n * n) for n in range(self.TASKS)))
        self.assertEqual(probe.call('task_queue', 'qsize'), 0)
        self.assertGreater(len(lives), 20)


if __name__ == '__main__':
    main()
