"""A master with a data directory beside one that keeps all in memory and is never killed: both are told the same,
one request after the other. The first is killed: in the middle of a write, a sync, a rename, while it reads its log,
while old segments are emptied, while it stops. Afterwards it holds what the other one holds, before or behind the
request that was not answered: nothing lost, nothing invented.

TASKQ_ROUNDS: so many rounds (default 20; 6 with a sanitizer). TASKQ_ROUNDS_SEED: another history."""
import os
import random

import disk
import harness
import wire
from durable import taskq_native
from harness import poll_until

HOUR_MS = 3600 * 1000
QUEUES = ('task_queue', 'heap', 'stack', 'dead')
# Of the clock, of the connection, or counted by the process.
CLOCKS = {'put_ms', 'started_ms', 'ended_ms', 'due_ms', 'expires_ms', 'oldest_ms', 'lease_ms', 'since_ms', 'heard_ms'}
GAUGES = ('ready', 'delayed', 'leased', 'dead')


def rounds():
    return int(os.environ.get('TASKQ_ROUNDS') or (6 if harness.sanitized() else 20))


class Side:
    """A master, and the clients through which it is told things: a native worker with a session, and a Python one.
    Its answers, without what is of the clock."""

    def __init__(self, case, master):
        self.case = case
        self.master = master
        self.worker = None
        self.own = {}  # the other side's ids -> this one's: after a kill some are left out
        self.epochs = {}  # id -> of the lease: one that was handed out in vain counts
        self.connect()

    def connect(self):
        if self.worker is None:
            self.worker = taskq_native.Client((self.master.host, self.master.port), self.master.key.encode(), worker='w')
        else:
            self.close()
            self.worker = self.worker.resume((self.master.host, self.master.port))
            self.case.assertTrue(self.worker.hello['resumed'])
        self.python = wire.Session(self.master)
        self.idents = {}  # of queues, for Python

    def close(self):
        self.worker.close()
        self.python.close()

    def do(self, step):
        """The answer to one request: what it says, or the error's code."""
        dialect, method, params = step
        try:
            if dialect == 'python':
                q, args = params
                if q not in self.idents:
                    self.idents[q] = wire.create(self.master, 'get_' + q)
                return self.python.call(self.idents[q], method, *args)
            reply = self.worker.call(method, **self.with_own_ids(params))
            for field in (method, 'leases'):
                if method in ('done', 'fail', 'release'):
                    self.worker._forget(self.with_own_ids(params).get(field, ()))
            return without_clock(reply)
        except taskq_native.Error as error:
            return error.code
        except wire.RemoteCallError as error:
            return str(error)

    def with_own_ids(self, params):
        def own(n):
            return self.own.get(n, n)

        def lease(n, epoch, *more):
            return [own(n), self.epochs.get(n, epoch), *more]
        return {k: [own(n) for n in v] if k == 'ids' else [lease(*x) for x in v] if k in ('done', 'fail', 'leases') else v
                for k, v in params.items()}

    def state(self):
        """All that can be seen of it; instead of ids their order."""
        queues = {}
        for entry in self.worker.queues(max=1000):
            queues[entry['q']] = {'policies': dict(entry['policies'], durability=None),
                                  'sizes': {name: entry[name] for name in GAUGES}}
        tasks = {q: list(self.worker.tasks(q, max=1000, bodies=True)) for q in queues}
        self.ids = sorted(task['id'] for of in tasks.values() for task in of)
        order = {n: at for at, n in enumerate(self.ids)}
        return {'queues': queues,
                'tasks': {q: [dict(without_clock(task), id=order[task['id']], of=order.get(task.get('of'))) for task in of]
                          for q, of in tasks.items()},
                'counts': {q: {k: v for k, v in self.worker.stats(q).items()
                               if k in ('puts', 'done', 'failed', 'retried', 'dropped', 'unfinished')} for q in queues}}

    def times(self):
        return {(task['id'], task['state'], task.get('attempt')): {k: task[k] for k in ('put_ms', 'due_ms') if k in task}
                for entry in self.worker.queues(max=1000) for task in self.worker.tasks(entry['q'], max=1000)}


def without_clock(value):
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in CLOCKS}
    if isinstance(value, (list, tuple)):
        return [without_clock(v) for v in value]
    return value


class History:
    """What is told to both, out of a seed; it knows what was answered, so that what it asks for is mostly there."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.leases = []  # [id, epoch]
        self.ids = []
        self.keys = 0

    def body(self):
        return self.rng.choice((None, 1, 'text', [1, {'a': 2}], b'x' * self.rng.randrange(4000), 'y' * 1200))

    def options(self, q):
        rng, options = self.rng, {}
        if q == 'heap':
            options['priority'] = rng.randrange(-3, 4)
        if rng.random() < 0.2:
            self.keys += rng.random() < 0.7
            options['key'] = 'key-%d' % self.keys
        if rng.random() < 0.15:
            options['delay_ms'] = HOUR_MS
        if rng.random() < 0.2:
            options['ttl_ms'] = 24 * HOUR_MS
        if rng.random() < 0.2:
            options['result'] = rng.choice((None, 'result_queue'))
        if rng.random() < 0.2:
            options['max_attempts'] = rng.randrange(1, 4)
        return options

    def some(self, things, most):
        things = list(things)
        return self.rng.sample(things, min(len(things), self.rng.randrange(1, most + 1)))

    def put(self):
        q = self.rng.choice(QUEUES[:3])
        return 'native', 'put', {'q': q, 'tasks': [[self.body(), self.options(q)] for _ in range(self.rng.randrange(1, 8))]}

    def get(self):
        q = self.rng.choice(('task_queue', 'heap', 'stack', 'result_queue', 'dead'))
        params = {'q': q, 'max': self.rng.randrange(1, 6)}
        if self.rng.random() < 0.2:
            params['take'] = True
        return 'native', 'get', params

    def done(self):
        leases = self.some(self.leases, 4)
        return 'native', 'done', {'done': [lease + ([self.body()] if self.rng.random() < 0.8 else []) for lease in leases]}

    def fail(self):
        return 'native', 'fail', {'fail': [lease + [{'error': 'why %d' % self.rng.randrange(9), 'final': self.rng.random() < 0.5,
                                                     'delay_ms': HOUR_MS}] for lease in self.some(self.leases, 3)]}

    def release(self):
        return 'native', 'release', {'leases': self.some(self.leases, 4)}

    def extend(self):
        return 'native', 'extend', {'leases': self.some(self.leases, 4), 'ms': HOUR_MS}

    def remove(self):
        return 'native', 'remove', {'ids': self.some(self.ids, 3)}

    def retry(self):
        return 'native', 'retry', {'q': 'dead', 'max': self.rng.randrange(1, 5)}

    def purge(self):  # not the heap: in which order its records come to the result queue is not said
        return 'native', 'purge', {'q': self.rng.choice(('task_queue', 'stack', 'dead', 'result_queue', 'side-1'))}

    def declare(self):
        policies = {'maxsize': self.rng.choice((0, 1000)), 'max_attempts': self.rng.randrange(1, 9),
                    'ttl_ms': self.rng.choice((0, 24 * HOUR_MS)), 'dead': self.rng.choice((None, 'dead'))}
        if self.rng.random() < 0.5:
            return 'native', 'declare', dict(policies, q=self.rng.choice(QUEUES[:3]), update=True)
        return 'native', 'declare', dict(policies, q='side-%d' % self.rng.randrange(4), kind=self.rng.choice(('fifo', 'lifo')))

    def delete(self):
        return 'native', 'delete', {'q': 'side-%d' % self.rng.randrange(4)}

    def to_side(self):
        return 'native', 'put', {'q': 'side-%d' % self.rng.randrange(4), 'tasks': [[self.body()]]}

    def pause(self):
        return 'native', self.rng.choice(('pause', 'resume', 'resume')), {'q': self.rng.choice(QUEUES[:3])}

    def python_put(self):
        return 'python', 'put', (self.rng.choice(('task_queue', 'stack')), ((self.rng.randrange(100), self.body()),))

    def next(self):
        kinds = [self.put] * 8 + [self.get] * 6 + [self.python_put] * 2 + \
            [self.purge, self.declare, self.delete, self.to_side, self.to_side, self.pause, self.retry]
        if self.leases:
            kinds += [self.done] * 5 + [self.fail] * 3 + [self.release, self.extend]
        if self.ids:
            kinds += [self.remove]
        return self.rng.choice(kinds)()

    def told(self, step, reply):
        """Both have answered this."""
        _, method, params = step
        if not isinstance(reply, dict):
            return
        if method == 'put':
            self.ids = (self.ids + reply['ids'])[-300:]
        elif method == 'get' and not params.get('take'):
            self.leases += [task[:2] for task in reply['tasks']]
        elif method in ('done', 'fail', 'release'):
            gone = [lease[:2] for lease in params.get(method, params.get('leases', []))]
            self.leases = [lease for lease in self.leases if lease not in gone]


class Rounds(disk.BoundedCase):

    OPTIONS = ('--log-segment-bytes', str(disk.SEGMENT_BYTES), '--log-factor', '110', '--log-interval', '3600')
    WHERE = ['heap,kind=priority,max_attempts=3,retry_ms=1h,dead=dead,result=result_queue,grace_ms=1h',
             'stack,kind=lifo,max_attempts=2,retry_ms=1h,dead=dead,grace_ms=1h,retention_ms=2h', 'dead']

    def setUp(self):
        super().setUp()
        self.faults = disk.Faults(os.path.join(self.temp, 'faults'))
        self.history = History(int(os.environ.get('TASKQ_ROUNDS_SEED', '1')))
        self.rng = random.Random(self.history.rng.random())
        self.moved = self.segments_seen = self.lives = self.in_the_middle = 0

    def begin(self):
        self.lives += 1
        return self.start(*self.OPTIONS, queues=self.WHERE if self.lives == 1 else (), env=self.faults.env)

    def begin_and_die(self):
        """Lives that end while the log is read, or opened."""
        for _ in range(self.rng.randrange(1, 4)):
            self.faults.die(self.rng.randrange(1, 40), *disk.ALL_KINDS)
            process = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:0', '--data-dir', self.folder,
                                       '--authkey', harness.KEY, *self.OPTIONS], env=harness.clean_env(**self.faults.env))
            self.addCleanup(process.clear)
            poll_until(lambda: not process.alive() or process.stdout, 'it dies, or serves')
            process.kill()
            self.assertNotRegex(process.stderr, harness.BROKEN)
            self.assertNotIn('error', process.stderr)
            self.faults.nothing()

    def tell(self, step):
        """To both. False: the durable one ended meanwhile."""
        try:
            reply = self.durable.do(step)
        except (taskq_native.Closed, wire.Closed, OSError):
            self.unanswered = step
            return False
        expected = self.steady.do(step)
        self.learn(expected, reply)
        self.assertEqual(self.seen(reply), self.comparable(expected), step)
        self.history.told(step, expected)
        return True

    def learn(self, expected, reply):
        """Which id of the one is which of the other."""
        if not isinstance(expected, dict) or not isinstance(reply, dict):
            return
        for field in ('ids', 'tasks'):
            for theirs, own in zip(expected.get(field, ()), reply.get(field, ())):
                if field == 'tasks':
                    self.durable.epochs[theirs[0]] = own[1]
                    theirs, own = theirs[0], own[0]
                self.durable.own.setdefault(theirs, own)

    @staticmethod
    def comparable(reply):
        """Without epochs, and the id where a page ends."""
        if not isinstance(reply, dict):
            return reply
        reply = dict(reply, next=reply.get('next') is not None)
        if 'tasks' in reply:
            reply['tasks'] = [task[:1] + task[2:] for task in reply['tasks']]
        return reply

    def seen(self, reply):
        """The durable one's answer with the other one's ids."""
        if not isinstance(reply, dict):
            return reply
        theirs = {own: n for n, own in self.durable.own.items()}

        def of(n):
            return theirs.get(n, n)

        def record(value):
            if not isinstance(value, dict):
                return value
            return {k: of(v) if k in ('id', 'of') else v for k, v in value.items()}
        changed = self.comparable(reply)
        if 'ids' in reply:
            changed['ids'] = [of(n) for n in reply['ids']]
        if 'tasks' in reply:
            changed['tasks'] = [[of(task[0])] + task[1:3] + [record(info) for info in task[3:]]
                                for task in changed['tasks']]
        if isinstance(reply.get('refused'), list):
            changed['refused'] = [[of(lease[0])] + lease[1:] if isinstance(lease, list) else lease
                                  for lease in reply['refused']]
        if 'known' in reply:
            changed['known'] = [[at, state, record(value)] for at, state, value in reply['known']]
        return changed

    def tell_some(self, count):
        for _ in range(count):
            if not self.tell(self.history.next()):
                return False
        return True

    def look(self):
        stats = self.durable.worker.stats()
        self.moved += stats['log_moved_bytes']
        self.segments_seen = max(self.segments_seen, stats['log_index'])

    def end_in_the_middle(self):
        """Of something that the disk is asked for by one of the next requests, or behind it."""
        kinds = self.rng.choice((disk.ALL_KINDS, (disk.WRITE,), (disk.SYNC,), (disk.RENAME, disk.REMOVE, disk.ALLOCATE),
                                 (disk.SYNC_DIR, disk.RENAME)))
        self.faults.die(self.rng.choice((1, 2, 3, 5, 9, 20)), *kinds)
        self.in_the_middle += 1
        while self.tell_some(50):
            pass

    def end_while_it_stops(self):
        self.faults.die(self.rng.choice((1, 2, 3)), disk.WRITE, disk.SYNC)
        self.master.signal(15)

    def end(self):
        how = self.rng.choice((self.end_in_the_middle,) * 5 + (self.end_while_it_stops, self.kill, self.stop))
        how()
        self.master.stopped = True
        self.master.wait()
        self.assertNotRegex(self.master.stderr, harness.BROKEN)
        self.faults.nothing()

    def same(self, state, expected, when):
        for part in ('queues', 'counts', 'tasks'):
            self.assertEqual(sorted(state[part]), sorted(expected[part]), when)
            for q in expected[part]:
                self.assertEqual(state[part][q], expected[part][q], '%s of %s %s' % (part, q, when))

    def compare(self):
        """The restarted one is as the other, as it is now, or behind what was not answered."""
        state, expected = self.durable.state(), self.steady.state()
        if self.unanswered is None or state == expected:
            self.same(state, expected, 'after %d lives' % self.lives)
            if self.unanswered is not None:  # it was not done: it is asked for again, as a client would
                self.assertTrue(self.tell(self.unanswered))
            return
        self.history.told(self.unanswered, self.steady.do(self.unanswered))
        self.same(state, self.steady.state(), 'behind %r' % (self.unanswered,))
        self.durable.own.update(zip(self.steady.ids, self.durable.ids))

    def round(self):
        self.unanswered = None
        alive = self.tell_some(self.rng.randrange(20, 80))
        self.assertTrue(alive, self.master.describe())
        self.look()
        times = self.durable.times()
        self.end()
        if self.rng.random() < 0.5:
            self.begin_and_die()
        self.durable.master = self.begin()
        self.durable.connect()
        self.compare()
        for key, value in self.durable.times().items():
            self.assertEqual(times.get(key, value), value, key)
        self.assertEqual(self.tell_some(5), True)

    def test_rounds(self):
        steady = self.start_master(queues=self.WHERE)
        self.steady = Side(self, steady)
        self.addCleanup(self.steady.close)
        self.durable = Side(self, self.begin())
        self.addCleanup(self.durable.close)
        for _ in range(rounds()):
            self.round()
        self.look()
        self.assertGreater(self.in_the_middle, 0)
        self.assertGreater(self.moved, 0)
        self.stop()


if __name__ == '__main__':
    harness.main()
