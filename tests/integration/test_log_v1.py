"""A data directory that the first version of the format has written (log_v1/make.py) is read by this one: everything
in it is as it was, and the log goes on from there."""
import hashlib
import json
import os
import tarfile

import disk
import harness
from durable import taskq_native

WRITTEN = os.path.join(harness.HERE, 'log_v1')
# What does not outlast its master: hands of Python's clients, a worker that does not come back in time.
CHANGED = ('by_hand', 'hasty')
GAUGES = ('ready', 'delayed', 'leased', 'dead', 'puts', 'done', 'failed', 'retried', 'expired', 'dropped')


def plain(value):
    """As JSON has it: bytes as text, keys as text, what is long by its digest."""
    if isinstance(value, (bytes, str)) and len(value) > 200:
        data = value if isinstance(value, bytes) else value.encode()
        return 'long:%d:%s' % (len(data), hashlib.sha256(data).hexdigest())
    if isinstance(value, bytes):
        return 'bytes:' + value.decode('latin-1')
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return 'other:' + repr(value)


def state_of(client):
    """All that an administrator can see, times of tasks included."""
    queues, tasks = {}, {}
    for entry in client.queues(max=1000):
        q = entry['q']
        if q in CHANGED:
            continue
        stats = client.stats(q)
        queues[q] = {'policies': plain(stats['policies']), 'counts': {name: stats[name] for name in GAUGES}}
        tasks[q] = [plain(task) for task in client.tasks(q, max=1000, bodies=True)]
    return {'queues': queues, 'tasks': tasks}


def as_far_as(expected, value):
    """Without fields that later versions have more."""
    if isinstance(expected, dict) and isinstance(value, dict):
        return {k: as_far_as(expected[k], v) for k, v in value.items() if k in expected}
    if isinstance(expected, list) and isinstance(value, list) and len(expected) == len(value):
        return [as_far_as(e, v) for e, v in zip(expected, value)]
    return value


class Format1(disk.BoundedCase):

    def setUp(self):
        super().setUp()
        with open(os.path.join(WRITTEN, 'expected.json')) as f:
            self.expected = json.load(f)
        os.mkdir(self.folder, 0o700)
        with tarfile.open(os.path.join(WRITTEN, 'queues.tar.gz')) as tar:
            for member in tar.getmembers():
                with open(os.path.join(self.folder, os.path.basename(member.name)), 'wb') as f:
                    f.write(tar.extractfile(member).read())
                os.chmod(f.name, 0o600)

    def begin(self):
        return self.start('--log-segment-bytes', str(disk.SEGMENT_BYTES))

    def check_state(self):
        expected = {name: self.expected[name] for name in ('queues', 'tasks')}
        state = as_far_as(expected, state_of(self.native()))
        # the tasks of a queue with durability=memory have gone with the master, the queue has not
        self.assertEqual(expected['queues']['fleeting']['counts']['ready'], 1)
        self.assertEqual(state['queues']['fleeting']['counts']['ready'], 0)
        self.assertEqual(state['queues']['fleeting']['policies'], expected['queues']['fleeting']['policies'])
        for q in expected['queues']:
            if q.startswith('made-'):  # by Python: who holds it is not known any more
                expected['queues'][q]['policies']['expires_ms'] = 7 * 24 * 3600 * 1000
            if q != 'fleeting':
                with self.subTest(q=q):
                    self.assertEqual(state['queues'][q], expected['queues'][q])
                    self.assertEqual(state['tasks'][q], expected['tasks'][q])
        self.assertEqual(sorted(state['queues']), sorted(expected['queues']))

    def test_check(self):
        process = harness.Process([harness.TASK_MASTER, '--log-check', self.folder])
        self.addCleanup(process.clear)
        self.assertEqual(process.wait(), 0, process.describe())
        self.assertEqual(process.stdout, '')

    def test_state(self):
        self.begin()
        self.assertEqual(self.recovered()['stopped'], 'suddenly')
        self.assertEqual(self.recovered()['sessions'], '2')
        self.check_state()
        self.kill()  # and once more, out of what this version has added
        self.begin()
        self.check_state()

    def test_work_goes_on(self):
        """Leases, keys, dead letters, order, in both dialects."""
        self.begin()
        client, python = self.native(), self.python()
        token, lease = bytes.fromhex(self.expected['token']), self.expected['lease']
        worker = taskq_native.Client((self.master.host, self.master.port), self.master.key.encode(), worker='returns',
                                     token=token, leases=dict([lease]))
        self.addCleanup(worker.close)
        self.assertTrue(worker.hello['resumed'])
        self.assertEqual(list(worker.leases.items()), [tuple(lease)])
        self.assertEqual(worker.call('done', done=[lease + ['made']]), {'ok': 1})
        late, = client.get('hasty', wait_ms=60000)
        self.assertEqual((late.body, late.attempt), ('comes back', 2))
        hand, = client.get('by_hand')
        self.assertEqual((hand.body, hand.attempt), ('python had it', 2))
        self.assertEqual([t.body for t in client.get('heap', max=9)], ['first', 'middle', 'last'])
        self.assertEqual([t.body for t in client.get('stack', max=9)], ['three', 'two', 'one'])
        known = client.call('put', q='kept', tasks=[['a', {'key': 'done'}], ['b', {'key': 'ready'}]])['known']
        self.assertEqual([(at, state) for at, state, _ in known], [(0, 'done'), (1, 'ready')])
        self.assertEqual(known[0][2]['value'], {'answer': 42})
        self.assertEqual(client.retry(q='graveyard')['ok'], 1)
        ready, dead = client.get('mail', max=2, take=True)
        self.assertEqual((ready.body, dead.body), ('ready', 'dead'))
        bodies = [python.call(self.queue('task_queue'), 'get') for _ in range(15)]
        self.assertEqual(bodies[:9], [None, True, -7, 2 ** 63, 1.5, 'text \u00e4', b'bytes \xff', [1, [2]], {'a': {'b': None}}])
        self.assertEqual(bodies[9:], [b'large ' * 1000, 3, 'text', (1, 'tuple'), {'set': {1}}, 'x' * 3000])
        self.assertEqual(python.call(self.expected['queue'], 'get'), 'made by python')
        ids = [task['id'] for q in self.expected['tasks'].values() for task in q]
        self.assertGreater(client.put('task_queue', 'new')[0], max(ids))


if __name__ == '__main__':
    harness.main()
