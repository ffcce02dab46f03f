"""Both dialects on the same port and the same queues: every mix of a stock Python side and a native one."""
import os
import random
import signal
import socket
import time

import harness
import rights
from harness import ServerCase
from native import Native, NativeError, msgpack
from wire import Closed, Session, create


class NativeCase(ServerCase):

    def native(self, server, *args, **kwargs):
        peer = Native(server, *args, **kwargs)
        self.addCleanup(peer.close)
        return peer

    def python(self, server, name='MainProcess'):
        session = Session(server, name)
        self.addCleanup(session.close)
        return session


class Mixes(NativeCase):

    def test_native_alone(self):
        server = self.start_master()
        producer, worker = self.native(server), self.native(server, worker='w1')
        self.assertEqual(producer.welcome['version'], 1)
        self.assertEqual(worker.welcome['worker'], 'w1')
        ids = producer.put('task_queue', {'n': 7}, b'bytes')
        tasks = worker.get('task_queue', max=10)
        self.assertEqual([(t[0], t[2], t[3]) for t in tasks], [(ids[0], 1, {'n': 7}), (ids[1], 1, b'bytes')])
        self.assertEqual(worker.done((ids[0], tasks[0][1], 49), (ids[1], tasks[1][1]))['ok'], 2)
        results = producer.get('result_queue', max=10)
        self.assertEqual([r[0] for r in results], ids)
        self.assertEqual([r[3] for r in results], [49, None])
        info = results[0][4]
        self.assertEqual((info['outcome'], info['worker'], info['from']), ('ok', 'w1', 'task_queue'))
        self.assertLess(abs(info['ended_ms'] - time.time() * 1000), 60000)
        self.assertEqual(producer.done(*[r[:2] for r in results])['ok'], 2)
        self.assertEqual(producer.call('stats', q='result_queue')['ready'], 0)

    def test_native_worker_for_python(self):
        """A stock producer and collector; what the native worker says is in result_queue."""
        server = self.start_master()
        python, worker = self.python(server), self.native(server, worker='w1')
        tasks, results = create(server, 'get_task_queue'), create(server, 'get_result_queue')
        waits = worker.start('get', q='task_queue', max=2, wait_ms=-1)
        python.call(tasks, 'put', 21)
        task, = worker.finish(waits)['tasks']
        self.assertEqual(task[3], 21)
        more = worker.done((task[0], task[1], '21 * 2 = 42'), get={'q': 'task_queue', 'wait_ms': 0})
        self.assertEqual((more['ok'], more['tasks']), (1, []))
        self.assertEqual(python.call(results, 'get', timeout=30), '21 * 2 = 42')

    def test_plain_and_opaque_items(self):
        server = self.start_master()
        python, worker = self.python(server), self.native(server)
        tasks = create(server, 'get_task_queue')
        python.call(tasks, 'put', [1, 2.5, 'x', b'y', None, {'k': True}])
        python.call(tasks, 'put', {1, 2})
        plain, opaque = worker.get('task_queue', max=2)
        self.assertEqual(plain[3], [1, 2.5, 'x', b'y', None, {'k': True}])
        self.assertEqual(opaque[3].code, 80)
        worker.call('release', leases=[plain[:2], opaque[:2]])
        self.assertEqual(python.call(tasks, 'get', timeout=30), [1, 2.5, 'x', b'y', None, {'k': True}])
        self.assertEqual(python.call(tasks, 'get', timeout=30), {1, 2})

    def test_python_worker_for_native(self):
        """A native submitter; the stock worker's loop ends the task, and its put is the result."""
        server = self.start_master()
        submitter, python = self.native(server), self.python(server)
        tasks, results = create(server, 'get_task_queue'), create(server, 'get_result_queue')
        one, = submitter.put('task_queue', {'n': 3, 'list': [1, (2 ** 40)]})
        waits = submitter.start('wait', id=one, wait_ms=-1)
        self.assertEqual(python.call(tasks, 'get', timeout=30), {'n': 3, 'list': [1, 2 ** 40]})
        python.call(results, 'put', 'three')
        answer = submitter.finish(waits)
        self.assertEqual(answer['state'], 'done')
        self.assertEqual(answer['result']['value'], 'three')
        self.assertEqual(answer['result']['outcome'], 'ok')

    def test_failed_result_is_a_dict_in_python(self):
        server = self.start_master()
        python, worker = self.python(server), self.native(server, worker='w1')
        tasks, results = create(server, 'get_task_queue'), create(server, 'get_result_queue')
        python.call(tasks, 'put', 'x')
        (ident, epoch, _, _), = worker.get('task_queue')
        worker.call('fail', fail=[[ident, epoch, {'error': 'it broke', 'code': -9}]])
        record = python.call(results, 'get', timeout=30)
        self.assertEqual({k: record[k] for k in ('id', 'outcome', 'error', 'code', 'attempt', 'worker', 'from')},
                         {'id': ident, 'outcome': 'failed', 'error': 'it broke', 'code': -9, 'attempt': 1,
                          'worker': 'w1', 'from': 'task_queue'})
        python.call(tasks, 'put', 'y')
        (ident, epoch, _, _), = worker.get('task_queue')
        worker.done((ident, epoch))
        self.assertIsNone(python.call(results, 'get', timeout=30))

    def test_values_without_a_python_form(self):
        """They neither get lost nor stop the queue."""
        server = self.start_master()
        native, python = self.native(server), self.python(server)
        tasks = create(server, 'get_task_queue')
        broken = {'n': msgpack.ExtType(80, b'no pickle')}
        native.put('task_queue', broken, 'next')
        self.assertEqual(python.call(tasks, 'get', timeout=30), msgpack.packb(broken, use_bin_type=True))
        self.assertEqual(python.call(tasks, 'get', timeout=30), 'next')


class Queues(NativeCase):

    def test_declared_and_deleted(self):
        server = self.start_master()
        native, python = self.native(server), self.python(server)
        self.assertTrue(native.call('declare', q='mine', maxsize=2)['created'])
        self.assertFalse(native.call('declare', q='mine', maxsize=2)['created'])
        mine = create(server, 'get_mine')
        python.call(mine, 'put', 1)
        self.assertEqual(native.call('stats', q='mine')['ready'], 1)
        native.call('delete', q='mine')
        with self.assertRaisesRegex(Exception, 'no such object'):
            python.call(mine, 'qsize')
        with self.assertRaisesRegex(AssertionError, 'no queue of this task-master'):
            create(server, 'get_mine')
        self.assertTrue(native.call('declare', q='mine')['created'])
        self.assertEqual(python.call(create(server, 'mine'), 'qsize'), 0)
        for name in 'task_queue', 'result_queue':
            with self.assertRaises(NativeError):
                native.call('delete', q=name)
        for name in 'get_task_queue', 'Queue':  # names that Python has taken
            with self.assertRaises(NativeError):
                native.call('declare', q=name)

    def test_expired(self):
        server = self.start_master()
        native = self.native(server)
        native.call('declare', q='brief', expires_ms=50)
        harness.poll_until(lambda: 'brief' not in [q['q'] for q in native.call('queues')['queues']], 'expiry')
        with self.assertRaisesRegex(AssertionError, 'no queue of this task-master'):
            create(server, 'get_brief')
        self.assertTrue(native.call('declare', q='brief')['created'])

    def test_policies_of_the_command_line(self):
        server = self.start_master(queues=['jobs,maxsize=2,full=reject,dead=grave,max_attempts=2,retry_ms=0,'
                                           'ttl_ms=1h,retention_ms=5min,result='])
        native = self.native(server)
        stats = native.call('stats', q='jobs')
        for name, value in {'maxsize': 2, 'full': 'reject', 'dead': 'grave', 'max_attempts': 2, 'retry_ms': 0,
                            'ttl_ms': 3600000, 'retention_ms': 300000}.items():
            self.assertEqual(stats['policies'][name], value, name)
        self.assertFalse(stats['policies'].get('result'))
        self.assertEqual(native.call('stats', q='task_queue')['policies']['result'], 'result_queue')
        one, = native.put('jobs', 'x')
        for attempt in 1, 2:
            (ident, epoch, told, _, *_), = native.get('jobs')
            self.assertEqual((ident, told), (one, attempt))
            native.call('fail', fail=[[ident, epoch, {'error': 'no'}]])
        self.assertEqual(native.get('grave')[0][3], 'x')


class Connections(NativeCase):

    def test_death_frees_at_once(self):
        server = self.start_master()
        producer, dying, heir = self.native(server), self.native(server, worker='a'), self.native(server, worker='b')
        one, = producer.put('task_queue', 'x')
        dying.get('task_queue')
        waits = heir.start('get', q='task_queue', wait_ms=-1)
        heir.call('ping')  # it waits by now
        dying.close()
        task, = heir.finish(waits)['tasks']
        self.assertEqual((task[0], task[2]), (one, 2))

    def test_many_frames_in_one_write(self):
        server = self.start_master()
        native = self.native(server)
        count = 3000
        frames = b''.join(wire_frame(native.pack([0, i, 'put', {'q': 'task_queue', 'tasks': [[b'x' * 100]]}]))
                          for i in range(1000, 1000 + count))
        native.send_bytes(frames)
        for i in range(1000, 1000 + count):
            self.assertEqual(len(native.finish(i)['ids']), 1)
        self.assertEqual(sum(len(native.get('task_queue', max=1000)) for _ in range(3)), count)

    def test_requests_behind_unread_replies_wait(self):
        """A peer that does not read is not read from, and loses nothing when it reads again."""
        server = self.start_master('--max-output-bytes', '4M')
        producer, slow = self.native(server), self.native(server)
        ids = [producer.put('task_queue', bytes(500000))[0] for _ in range(40)]
        wanted = [slow.start('get', q='task_queue', wait_ms=-1) for _ in ids]
        probe = self.native(server)
        probe.call('ping')
        got = [slow.finish(msgid)['tasks'][0] for msgid in wanted]
        self.assertEqual([task[0] for task in got], ids)

    def test_who_reads_nothing_is_cut(self):
        server = self.start_master('--write-timeout', '0.2')
        producer = self.native(server)
        deaf = Native(server, receive_buffer=4096)
        self.addCleanup(deaf.close)
        ids = [producer.put('task_queue', bytes(1 << 20))[0] for _ in range(6)]
        for _ in ids:
            deaf.start('get', q='task_queue', wait_ms=-1)
        got = []
        while len(got) < len(ids):  # they come back when it is cut
            got += producer.get('task_queue', max=1)
        self.assertEqual(sorted(task[0] for task in got), ids)

    def test_half_closed_after_its_requests(self):
        server = self.start_master()
        native = self.native(server)
        asked = [native.start('put', q='task_queue', tasks=[[i]]) for i in range(5)]
        native.sock.shutdown(socket.SHUT_WR)
        for msgid in asked:
            self.assertEqual(len(native.finish(msgid)['ids']), 1)
        with self.assertRaises(Closed):
            native.receive()

    def test_stop_says_bye(self):
        server = self.start_master()
        native = self.native(server, worker='w')
        waits = native.start('get', q='task_queue', wait_ms=-1)
        native.call('ping')
        server.signal(signal.SIGTERM)
        self.assertEqual(native.notice()[0], 'bye')
        self.assertEqual(server.wait(20), 0)
        self.assertNotIn(waits, native.replies)
        server.stopped = True
        server.clear()

    def test_idle_connections_are_small(self):
        """Above the socket: all that the master keeps for a worker that has said hello."""
        harness.raise_descriptor_limit(4000)
        server = self.start_master()
        for i in range(200):  # what is kept for later is there
            self.native(server, worker='warm-%d' % i).close()
        first = self.native(server)
        harness.poll_until(lambda: first.call('stats')['connections'] == 1, 'the others are gone')
        before = harness.proc_status(server.pid, 'RssAnon')
        count = 1500
        for i in range(count):
            self.native(server, worker='worker-%d.example' % i)
        self.assertEqual(first.call('stats')['connections'], count + 1)
        grown = harness.proc_status(server.pid, 'RssAnon') - before
        self.assertLessEqual(grown, harness.memory_bound(count * 1024 + (64 << 10)))

    def test_hostile_bytes(self):
        """Whatever one connection sends, it is answered or closed, and nobody else notices."""
        server = self.start_master()
        other = self.native(server)
        chance = random.Random(20)
        good = other.pack([0, 7, 'put', {'q': 'task_queue', 'tasks': [[{'a': [1, 2.5, None]}]], 'wait_ms': 0}])
        for turn in range(300):
            data = bytearray(good)
            for _ in range(1 + turn % 4):
                data[chance.randrange(len(data))] = chance.randrange(256)
            peer = Native(server)
            try:
                peer.send(bytes(data[:1 + chance.randrange(len(data))] if turn % 3 == 0 else data))
                peer.sock.shutdown(socket.SHUT_WR)
                while True:  # replies, errors, notices: each is one message
                    peer.next_message()
            except Closed:
                pass
            finally:
                peer.close()
        other.call('ping')

    def test_protocol_errors_close(self):
        server = self.start_master()
        for payload in b'\x90', b'\x94\x00\x01\xa4ping\x80\x00', b'\xdd\xff\xff\xff\xff':
            native = self.native(server)
            native.send(payload)
            method, params = native.notice()
            self.assertEqual(method, 'error', payload)
            with self.assertRaises(Closed):
                native.receive()
        self.native(server).call('ping')


class Rights(NativeCase):

    def test_refused_and_revoked(self):
        with harness.TempDir() as folder:
            path = os.path.join(folder, 'keys')

            def write(lines):
                with open(path, 'w') as f:
                    f.write('\n'.join(lines) + '\n')
                os.chmod(path, 0o600)

            keys = ['boss admin the-secret-of-the-boss', 'mailer worker the-secret-of-the-mailer get=mail']
            write(keys)
            server = self.start_master('--keys-file', path, queues=['mail', 'other'], key=None)
            boss = self.native(rights.As(server.host, server.port, 'the-secret-of-the-boss', 'master'))
            mailer = self.native(rights.As(server.host, server.port, 'the-secret-of-the-mailer', 'master'),
                                 worker='m')
            self.assertEqual((mailer.welcome['key'], mailer.welcome['role']), ('mailer', 'worker'))
            with self.assertRaises(NativeError) as refused:
                mailer.get('other')
            self.assertEqual(refused.exception.code, 'denied')
            self.assertIn('may not', refused.exception.args[1])
            one, = boss.put('mail', 'x')
            self.assertEqual(mailer.get('mail')[0][0], one)
            write(keys[:1])
            waits = boss.start('get', q='mail', wait_ms=-1)
            server.signal(signal.SIGHUP)
            with self.assertRaises(Closed):
                mailer.receive()
            self.assertEqual(boss.finish(waits)['tasks'][0][0], one)


def wire_frame(payload):
    return len(payload).to_bytes(4, 'big') + payload


if __name__ == '__main__':
    harness.main()
