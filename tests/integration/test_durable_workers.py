"""A master with a data directory that is killed over and over under load, and workers with it. An external journal
says what was acknowledged: in the end each of these has exactly one result, seen once, and what a native worker
that lived has begun was begun nowhere else.

TASKQ_KILL_ROUNDS: so many rounds (default 50; 8 with a sanitizer). TASKQ_KILL_SEED: another order of events."""
import collections
import os
import random
import re
import signal
import threading

import harness
from native import msgpack  # noqa: F401  first: finds it for interpreters that have none
import taskq_native
import worker
from harness import TempDir, poll_until

GRACE_MS = 10000  # workers come back within 5 s, and a little
NATIVE_WORKERS, JOBS = 3, 4
TASKS_AT_ONCE = 300
GONE = (taskq_native.Closed, OSError)


def rounds():
    return int(os.environ.get('TASKQ_KILL_ROUNDS') or (8 if harness.sanitized() else 50))


def square(n):
    return '%d * %d = %d' % (n, n, n * n)


class Actor(threading.Thread):
    """A thread of the test; what it fails with is raised in the end."""

    def __init__(self, address, key):
        super().__init__(daemon=True)
        self.address = address
        self.key = key.encode()
        self.stopping = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            self.act()
        except BaseException as error:  # told in the test's own thread
            self.failure = error

    def connect(self, connect):
        """What that gives, as soon as there is a master."""
        pause = threading.Event()
        while True:
            try:
                return connect()
            except GONE:
                pause.wait(0.02)

    def check(self):
        if self.failure is not None:
            raise self.failure


class Producer(Actor):
    """Puts numbers natively, each under a key, and again until it is told their ids. acknowledged: n -> id."""

    def __init__(self, address, key, first, seed):
        self.first = first
        self.rng = random.Random(seed)
        self.acknowledged = {}
        self.repeated = 0
        super().__init__(address, key)

    def put(self, client, numbers):
        ids = client.call('put', q='task_queue', wait_ms=-1, tasks=[[n, {'key': 'n%d' % n}] for n in numbers])['ids']
        for n, task_id in zip(numbers, ids):
            if self.acknowledged.setdefault(n, task_id) != task_id:
                raise AssertionError('task %d was %d, and is %d now' % (n, self.acknowledged[n], task_id))
        return numbers[len(ids):]

    def act(self):
        left, n = [], self.first
        client = None
        while left or not self.stopping.is_set():
            if client is None:
                client = self.connect(lambda: taskq_native.Client(self.address, self.key))
            if not left:
                count = self.rng.randrange(1, 12)
                left = list(range(n, n + count))
                n += count
            try:
                left = self.put(client, left)
                # what was put long ago is put once more now and then: it has its first id still, done or not
                if not left and self.rng.random() < 0.1:
                    self.put(client, [self.rng.randrange(self.first, n)])
                    self.repeated += 1
            except GONE:
                client.close()
                client = None
        if client is not None:
            client.close()


class Collector(Actor):
    """Takes results with a session of its own, and goes on with it after each restart. seen: task id -> how often;
    results: those, with what they say."""

    def __init__(self, address, key):
        self.seen = collections.Counter()
        self.results = {}
        self.resumed = 0
        super().__init__(address, key)

    def take(self, tasks):
        for task in tasks:
            self.seen[task.id] += 1
            self.results[task.id] = task

    def resume(self, client):
        ended, client = client, self.connect(client.resume)
        ended.close()
        if not client.hello['resumed']:
            raise AssertionError('the master has forgotten a session')
        self.resumed += 1
        return client

    def act(self):
        client = self.connect(lambda: taskq_native.Client(self.address, self.key, worker='collector'))
        in_hand = []
        while True:
            try:
                # those which the master does not count as ours any more were done before the connection ended
                in_hand = [task for task in in_hand if client.leases.get(task.id) == task.epoch]
                wait_ms = 0 if self.stopping.is_set() else 200
                reply = client.call('done', done=[[t.id, t.epoch] for t in in_hand],
                                    get={'q': 'result_queue', 'max': 20, 'wait_ms': wait_ms})
                if reply.get('refused'):
                    raise AssertionError('refused: %r' % reply['refused'])
                for task in in_hand:
                    client.leases.pop(task.id, None)
                in_hand = client.tasks_of(reply)
                self.take(in_hand)
                if not in_hand and self.stopping.is_set():
                    client.close()
                    return
            except GONE:
                client = self.resume(client)


class Lives(harness.ServerCase):
    """One data directory, one port, one master after the other."""

    def setUp(self):
        folder = TempDir()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__)
        self.master = None
        self.port = worker.free_port()
        self.address = ('127.0.0.1', self.port)
        self.key = harness.KEY
        self.host = '127.0.0.1'
        self.kind = 'master'
        self.native_workers = []  # all that there ever were; `killed` says which did not live

    def options(self):
        """Small segments, so that the log is emptied and its files are used again all the time."""
        return ['--data-dir', os.path.join(self.folder, 'data'), '--log-segment-bytes', '65536', '--log-factor', '120']

    def begin(self):
        self.master = harness.MasterUnderTest(
            *self.options(), port=self.port,
            queues=['task_queue,maxsize=%d,grace_ms=%d,result=result_queue' % (TASKS_AT_ONCE, GRACE_MS)])
        self.addCleanup(self.master.clear)

    def begin_and_kill(self, in_recovery):
        """One that does not get to serve: killed while it reads the log, or when it just has."""
        master = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:%d' % self.port, '--authkey', self.key] +
                                 self.options(), name='task-master')
        self.addCleanup(master.clear)
        if not in_recovery:
            master.expect_stderr(' RECOVERED ')
        master.kill()
        master.clear()
        self.assertNotRegex(master.stderr, harness.BROKEN)

    def kill(self):
        self.assertTrue(self.master.alive(), self.master.describe())
        self.master.kill()
        self.master.clear()
        self.assertNotRegex(self.master.stderr, harness.BROKEN)

    def stop(self):
        self.master.check_and_stop()

    def start_native_worker(self, *options):
        process = worker.Worker(self, '--jobs', JOBS, '--sleep', '0.01', '--drain-timeout', 60, *options, peer='taskq')
        process.killed = False
        self.addCleanup(process.clear)
        self.native_workers.append(process)
        return process

    def kill_worker(self, process):
        process.kill()
        process.killed = True

    def client(self, **session):
        client = taskq_native.Client(self.address, self.key.encode(), **session)
        self.addCleanup(client.close)
        return client

    def admin(self):
        return self.client()

    def executions(self):
        """n -> the native workers that began it."""
        begun = collections.defaultdict(list)
        for process in self.native_workers:
            for line in process.lines():
                match = re.match(r'run task (\d+) ', line)
                if match:
                    begun[int(match.group(1))].append(process)
        return begun

    def check_executions(self, results):
        """What a worker that lived has begun, it has answered, and nobody else has begun it."""
        workers = {n: task.info.get('worker') for n, task in results.items()}
        for n, processes in self.executions().items():
            lived = [p for p in processes if not p.killed]
            self.assertLessEqual(len(lived), 1, 'task %d was begun %d times by workers that live' % (n, len(lived)))
            if lived and n in workers:
                self.assertEqual(workers[n], lived[0].worker_id,
                                 'task %d was begun by a worker that lives, and answered by another one' % n)


class KillTest(Lives):
    def start_native_worker(self, *options):
        name = 'tw-%d' % len(self.native_workers)
        process = super().start_native_worker('--worker-id', name, *options)
        process.worker_id = name
        return process

    def start_all(self):
        pythons = harness.old_middle_new()
        old, middle, new = pythons[0], pythons[len(pythons) // 2], pythons[-1]
        self.producers = [Producer(self.address, self.key, 10 ** 6 * (i + 1), i) for i in range(2)]
        self.collector = Collector(self.address, self.key)
        self.python_producers = [self.start_client(python, 'durable_producer.py', 10 ** 7 * (i + 1), server=self)
                                 for i, python in enumerate((old, new))]
        self.python_workers = [self.start_client(python, 'durable_worker.py', server=self) for python in (middle, new)]
        self.alive = [self.start_native_worker() for _ in range(NATIVE_WORKERS)]

    def seen_more(self, count):
        """Until so many more results have been seen."""
        target = len(self.collector.results) + count

        def there():
            self.collector.check()
            for producer in self.producers:
                producer.check()
            return len(self.collector.results) >= target
        poll_until(there, 'there are %d results more' % count)

    def kill_some_worker(self):
        victim = self.rng.randrange(len(self.alive))
        self.kill_worker(self.alive[victim])
        self.alive[victim] = self.start_native_worker()

    def round(self):
        self.seen_more(self.rng.choice((0, 1, 10, 40, 80)))
        if self.rng.random() < 0.3:
            self.kill_some_worker()
        if self.rng.random() < 0.1:
            self.stop()
        else:
            self.kill()
        if self.rng.random() < 0.2:
            self.kill_some_worker()
        if self.rng.random() < 0.1:
            victim = self.rng.randrange(2)
            self.python_workers[victim].kill()
            self.python_workers[victim] = self.start_client(harness.interpreters()[0], 'durable_worker.py', server=self)
        if self.rng.random() < 0.15:
            self.begin_and_kill(in_recovery=self.rng.random() < 0.5)
        self.begin()

    def drain(self):
        for producer in self.producers:
            producer.stopping.set()
        for process in self.python_producers:
            process.signal(signal.SIGTERM)
        for producer in self.producers:
            producer.join(harness.DEADLINE_S)
            producer.check()
            self.assertFalse(producer.is_alive())
        for process in self.python_producers:
            self.assertEqual(process.wait(), 0, process.describe())
        admin = self.admin()

        def empty():
            self.collector.check()
            return all(admin.stats(q)[field] == 0 for q in ('task_queue', 'result_queue')
                       for field in ('ready', 'delayed', 'leased'))
        poll_until(empty, 'all is done')
        self.collector.stopping.set()
        self.collector.join(harness.DEADLINE_S)
        self.collector.check()
        self.assertTrue(empty())
        admin.close()

    def check_all(self):
        acknowledged, unknown = {}, set()
        for producer in self.producers:
            acknowledged.update(producer.acknowledged)
        for process in self.python_producers:
            for line in process.lines():
                word, _, n = line.partition(' ')
                if word == 'ok':
                    acknowledged[int(n)] = None
                elif word == 'unknown':
                    unknown.add(int(n))
        self.assertEqual([i for i, count in self.collector.seen.items() if count > 1], [], 'seen twice')
        results, twice = {}, []
        for task in self.collector.results.values():
            n = int(task.body.split(' ')[0])
            self.assertEqual(task.body, square(n))
            self.assertEqual(task.info['outcome'], 'ok')
            if n in results:
                twice.append(n)
            results[n] = task
        self.assertEqual(twice, [], 'answered twice')
        self.assertEqual(sorted(set(acknowledged) - set(results)), [], 'acknowledged and lost')
        self.assertEqual(sorted(set(results) - set(acknowledged) - unknown), [], 'never put')
        for n, task_id in acknowledged.items():
            if task_id is not None:
                self.assertEqual(results[n].id, task_id)
        self.check_executions(results)
        return acknowledged

    def test_killed_again_and_again(self):
        self.rng = random.Random(int(os.environ.get('TASKQ_KILL_SEED', '20')))
        self.begin()
        self.start_all()
        for _ in range(rounds()):
            self.round()
        self.seen_more(20)
        self.drain()
        acknowledged = self.check_all()
        self.stop()
        self.assertGreater(len(acknowledged), 10 * rounds())
        self.assertGreaterEqual(self.collector.resumed, rounds() // 2)
        for process in self.alive:
            self.assertTrue(process.alive(), process.describe())
            process.signal(signal.SIGTERM)
            self.assertEqual(process.wait(), 0, process.describe())
        for process in self.native_workers:
            process.check_sound()


class RunningWorkTest(Lives):
    """One worker, step by step."""

    def start_native_worker(self, *options):
        process = super().start_native_worker('--worker-id', 'w', *options)
        process.worker_id = 'w'
        return process

    def results(self, client, count):
        seen = []
        while len(seen) < count:
            tasks = client.get('result_queue', max=count, wait_ms=60000)
            self.assertNotEqual(tasks, [])
            seen += tasks
            client.done([(t,) for t in tasks])
        return {int(t.body.split(' ')[0]): t for t in seen}

    def begun(self, process, count):
        poll_until(lambda: sum(line.startswith('run task') for line in process.lines()) >= count,
                   '%d tasks run' % count)

    def test_what_runs_goes_on_and_is_handed_in(self):
        """Four run when the master is killed; they end while there is none, or after the new one has come."""
        for end in (self.kill, self.stop):
            with self.subTest(end=end.__name__):
                self.begin()
                process = self.start_native_worker('--sleep', '0.5')
                client = self.admin()
                ids = client.put('task_queue', *range(10, 16))
                self.begun(process, 4)
                end()
                self.assertEqual(len([x for x in process.lines() if x.startswith('run task')]), 4)
                self.begin()
                client = self.admin()
                results = self.results(client, 6)
                self.assertEqual({n: t.id for n, t in results.items()}, dict(zip(range(10, 16), ids)))
                self.assertEqual({t.info['attempt'] for t in results.values()}, {1})
                self.check_executions(results)
                begun = self.executions()
                self.assertEqual({n: len(begun[n]) for n in range(10, 16)}, dict.fromkeys(range(10, 16), 1))
                self.assertEqual(client.stats('task_queue')['leased'], 0)
                self.assertNotRegex(process.stderr, 'LEASES-LOST|RESULT-STALE')
                self.stop_worker(process)
                self.stop()
                self.native_workers.remove(process)

    def stop_worker(self, process):
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(), 0, process.describe())
        process.check_sound()

    def test_a_worker_that_does_not_come_back(self):
        """Its tasks wait for the grace, then others have them."""
        self.begin()
        process = self.start_native_worker('--sleep', 60)
        client = self.admin()
        client.declare('task_queue', update=True, grace_ms=500)
        [task_id] = client.put('task_queue', 7)
        self.begun(process, 1)
        self.kill()
        self.kill_worker(process)
        self.begin()
        client = self.admin()
        self.assertEqual(client.stats('task_queue')['leased'], 1)
        self.assertEqual([w['connected'] for w in client.workers() if w.get('worker') == 'w'], [False])
        [task] = client.get('task_queue', wait_ms=60000)
        self.assertEqual((task.id, task.attempt, task.body), (task_id, 2, 7))
        client.done([(task, square(7))])
        self.assertEqual(list(self.results(client, 1)), [7])
        self.stop()

    def test_a_worker_that_comes_before_its_master(self):
        process = self.start_native_worker()
        process.expect_stderr('trying again')
        self.begin()
        client = self.admin()
        client.put('task_queue', 3)
        self.assertEqual(list(self.results(client, 1)), [3])
        self.stop_worker(process)
        self.stop()

    def test_tokens(self):
        """Through restarts: the last token is good, and the one before it as long as its reply may have been lost."""
        self.begin()
        client = self.client(worker='t')
        admin = self.admin()
        admin.put('task_queue', 1)
        [task] = client.get('task_queue')
        tokens = [client.hello['token']]
        for life in range(4):
            self.kill()
            self.begin()
            again = None
            for _ in range(2):  # the second time as if the first one's reply had been lost
                again = self.client(worker='t', token=tokens[-1], leases={task.id: task.epoch})
                self.assertTrue(again.hello['resumed'])
                self.assertEqual(again.leases, {task.id: task.epoch})
            if life % 2:
                again.ping()  # and now it is known to have come
                self.kill()
                self.begin()
                other = self.client(worker='t', token=again.hello['token'],
                                    leases={task.id: task.epoch})
                self.assertTrue(other.hello['resumed'])
                with self.assertRaises(taskq_native.Error) as caught:
                    self.client(worker='t', token=tokens[-1])
                self.assertEqual(caught.exception.code, 'worker_taken')
                again = other
            tokens.append(again.hello['token'])
        self.assertEqual(again.done([(task, square(1))]), {'ok': 1})
        self.kill()
        self.begin()
        self.assertEqual(list(self.results(self.admin(), 1)), [1])
        self.stop()

    def test_a_master_that_keeps_nothing(self):
        """It does not know the worker: what that has in hand is dropped, and new tasks are run."""
        self.begin()
        process = self.start_native_worker('--sleep', '0.2')
        self.admin().put('task_queue', 1, 2)
        self.begun(process, 2)
        self.kill()
        self.master = harness.MasterUnderTest('--memory', port=self.port)
        self.addCleanup(self.master.clear)
        process.expect_stderr('LEASES-LOST .*resumed=0')
        client = self.admin()
        client.put('task_queue', 3)
        self.assertEqual(list(self.results(client, 1)), [3])
        self.assertEqual(client.get('result_queue'), [])
        self.stop_worker(process)
        self.stop()


if __name__ == '__main__':
    harness.main()
