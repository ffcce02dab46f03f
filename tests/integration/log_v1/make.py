"""Writes queues.tar.gz and expected.json: a data directory with a bit of everything, as a master of format 1 leaves it
after kill -9, and what is in it. Later versions must read it (test_log_v1.py), so it is made once, and not again.

The clock of the master that wrote it was set to the year 2100: those that read it go on from there (CLOCK-BACK), so
its times mean the same whenever it is read.

    TASKQ_BUILD=build python3 tests/integration/log_v1/make.py"""
import io
import json
import os
import sys
import tarfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import disk  # noqa: E402
import test_log_v1  # noqa: E402
import wire  # noqa: E402
from durable import taskq_native  # noqa: E402

YEAR_2100_S = 4102444800
HOUR_MS = 3600 * 1000


class Make(disk.FaultyCase):

    def start_all(self):
        self.faults.ahead_s = YEAR_2100_S - int(time.time())
        self.start(queues=['heap,kind=priority', 'stack,kind=lifo', 'graveyard', 'kept,retention_ms=30d',
                           'mail,max_attempts=2,retry_ms=1h,dead=graveyard,result=result_queue', 'hasty,grace_ms=1',
                           'by_hand,ack=explicit', 'patient,grace_ms=30d,result=result_queue'])

    def policies(self, client):
        client.declare('limited', kind='fifo', maxsize=7, full='reject', max_deliveries=3, retry_ms=11, retry_max_ms=22,
                       lease_ms=3333, grace_ms=4444, ttl_ms=2 ** 41, rate_per_s=9, rate_burst=5, concurrency=6,
                       durability='interval', expires_ms=2 ** 32 - 1)
        client.pause('limited')
        client.declare('fleeting', durability='memory')
        client.put('fleeting', 'is gone')
        client.declare('removed')
        client.put('removed', 'gone', 'with it')
        client.delete('removed')
        client.declare('mail', update=True, max_attempts=3)

    def tasks(self, client, python):
        client.call('put', q='heap', tasks=[['middle', {'priority': 0}], ['last', {'priority': 9}], ['first', {'priority': -5}]])
        client.put('stack', *range(5))
        client.put('task_queue', None, True, -7, 2 ** 63, 1.5, 'text \u00e4', b'bytes \xff', [1, [2]], {'a': {'b': None}})
        client.put('task_queue', b'large ' * 1000, trace='00-trace', ttl_ms=2 ** 40, max_attempts=9)
        client.put('task_queue', 'in an hour', delay_ms=HOUR_MS)
        for item in (3, 'text', (1, 'tuple'), {'set': {1}}, 'x' * 3000):
            python.call(self.queue('task_queue'), 'put', item)
        client.call('put', q='kept', tasks=[['a', {'key': 'done'}], ['b', {'key': 'ready'}], ['c', {'key': 'taken'}]])
        done, = client.get('kept')
        client.done([(done, {'answer': 42})])
        client.put('stack', 'purged', 'too')
        self.assertEqual(client.purge('stack'), 7)
        client.put('stack', 'one', 'two', 'three')
        removed = client.put('stack', 'removed')
        client.remove(removed)

    def failures(self, client):
        client.call('put', q='mail', tasks=[['again', {'key': 'mail-1'}], ['dead', {'max_attempts': 1}], ['answered'], ['ready']])
        again, dead, answered = client.get('mail', max=3)
        client.fail(again, 'no such street', code=7)
        client.fail(dead, 'too heavy', code=-9)
        client.done([(answered, ['result', 1])])

    def churn(self, client):
        """So that there are several segments, and what stood in the first ones has been moved."""
        client.declare('bulk', retention_ms=0)
        client.put('bulk', *['%d: ' % n + 'stays ' * 500 for n in range(40)])
        while client.stats()['log_moved_bytes'] < 100000:
            client.put('bulk', b'churn' * 1500, wait_ms=60000)
            task = client.get('bulk', max=41)[-1]
            self.assertEqual(task.body, b'churn' * 1500)
            client.done([(task,)])
            client.release([taskq_native.Task(*lease, 1, None, {}) for lease in sorted(client.leases.items())])

    def sessions(self, client, python):
        """Of a worker that comes back, of one that does not, and of Python."""
        worker = self.native(worker='returns')
        worker.put('patient', 'in hand', 'released', 'and done')
        in_hand, released, done = worker.get('patient', max=3)
        worker.release([released])
        worker.done([(done, 'by returns')])
        hasty = self.native(worker='stays-away')
        hasty.put('hasty', 'comes back')
        self.assertEqual(len(hasty.get('hasty')), 1)
        python.call(self.queue('by_hand'), 'put', 'python had it')
        self.assertEqual(python.call(self.queue('by_hand'), 'get'), 'python had it')
        token = wire.create(self.master, 'Queue', 5)
        python.call(token, 'put', 'made by python')
        return {'token': worker.hello['token'].hex(),
                'lease': [in_hand.id, in_hand.epoch], 'queue': token}

    def test_make(self):
        self.start_all()
        client, python = self.native(), self.python()
        self.policies(client)
        self.tasks(client, python)
        self.failures(client)
        self.churn(client)
        session = self.sessions(client, python)
        expected = dict(test_log_v1.state_of(client), **session)
        self.kill()
        with tarfile.open(os.path.join(HERE, 'queues.tar.gz'), 'w:gz', format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(os.listdir(self.folder)):
                if name == 'lock':
                    continue
                with open(os.path.join(self.folder, name), 'rb') as f:
                    data = f.read()
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o600
                tar.addfile(info, io.BytesIO(data))
        with open(os.path.join(HERE, 'expected.json'), 'w') as f:
            json.dump(expected, f, indent=1, sort_keys=True)
            f.write('\n')
        self.assertGreater(len(self.segments()), 2)


if __name__ == '__main__':
    unittest.main()
