"""task-worker against a manager made by hand: the order of its requests, what it does when replies fail to come,
and peers that mean it ill."""
import os
import pickle
import queue
import signal
import struct
import subprocess

import harness
import wire
from worker import TASK_WORKER, Hangup, WorkerCase

JOIN = ['dummy', 'create', 'incref', 'decref', 'create', 'incref', 'decref', 'accept_connection']


def result(n):
    return '%d * %d = %d' % (n, n, n * n)


def once(action):
    """A hook that acts the first time only."""
    acted = []

    def hook(fake, ident, args, kwds):
        if acted:
            return None
        acted.append(True)
        return action(fake, ident, args, kwds)
    return hook


def hang_up(fake, ident, args, kwds):
    raise Hangup


class Conversation(WorkerCase):
    def requests(self, fake):
        return [e for e in fake.events if e[0] != 'end']

    def test_requests_in_stock_order(self):
        fake = self.fake()
        fake.queues['get_task_queue'].put(6)
        worker = self.start_worker(fake, '--count', 2)
        self.finish(worker)
        fake.close()
        self.assertEqual([e[0] for e in self.requests(fake)], JOIN + ['get', 'put', 'get', 'decref', 'decref'])
        arguments = [e[1] for e in self.requests(fake)]
        self.assertEqual(arguments[:8], [(), ('get_task_queue',), ('get_task_queue',), ('get_task_queue',),
                                         ('get_result_queue',), ('get_result_queue',), ('get_result_queue',),
                                         ('MainProcess',)])
        self.assertEqual(arguments[-2:], [('get_task_queue',), ('get_result_queue',)])
        # Both decrefs stand before the end of the session: by them a master knows that it was left.
        last_decref = len(fake.events) - 1 - [e[0] for e in reversed(fake.events)].index('decref')
        self.assertGreater(fake.events.index(('end', 'session')), last_decref)
        self.assertEqual(fake.queues['get_result_queue'].get_nowait(), result(6))

    def test_the_get_carries_the_timeout(self):
        seen = []

        def get(fake, ident, args, kwds):
            seen.append((args, kwds))
        for options, expected in (((), 0.1), (('--poll-timeout', 1), 1.0)):
            fake = self.fake(hooks={'get': get})
            self.finish(self.start_worker(fake, '--count', 1, *options))
            self.assertEqual(seen.pop(), ((), {'timeout': expected}))

    def test_names(self):
        fake = self.fake(typeids=('work', 'get_done'))
        fake.queues['work'].put(3)
        worker = self.start_worker(fake, '--from', 'work', '--to', 'done', '--count', 1, '--name', 'node-7')
        self.finish(worker)
        self.assertEqual(fake.queues['get_done'].get_nowait(), result(3))
        self.assertIn(('create', ('get_work',)), fake.events)
        self.assertIn(('accept_connection', ('node-7',)), fake.events)

    def test_no_such_queue(self):
        fake = self.fake(typeids=('get_task_queue',))
        worker = self.start_worker(fake)
        self.finish(worker, status=1)
        self.assertRegex(worker.stderr, r"\Atask-worker: \S+ has no queue 'result_queue' \(KeyError: 'result_queue'\): "
                                        r".*--to\Z")

    def test_empty_is_told_at_the_change(self):
        fake = self.fake()
        worker = self.start_worker(fake, '--poll-timeout', '0.01')
        fake.wait_for(lambda f: [e[0] for e in f.events].count('get') >= 5, 'five gets')
        fake.queues['get_task_queue'].put(7)
        worker.expect('^run task 7')
        worker.expect('^task queue is empty')
        gets = fake.count('get')
        fake.wait_for(lambda f: [e[0] for e in f.events].count('get') >= gets + 5, 'five more gets')
        self.stop(worker)
        self.assertEqual(worker.lines(), ['Connect to server 127.0.0.1...', 'task queue is empty.',
                                          'run task 7 * 7...', 'task queue is empty.', 'worker exit.'])

    def test_one_handshake_at_a_time(self):
        fake = self.fake()
        fake.queues['get_task_queue'].put(1)
        worker = self.start_worker(fake, '--jobs', 8)
        fake.wait_for(lambda f: [e[0] for e in f.events].count('accept_connection') == 8, 'eight sessions')
        self.stop(worker)
        self.assertEqual(fake.overlaps, 0)
        self.assertEqual(fake.count('accept_connection'), 8)

    def test_dialects(self):
        for dialect in ('modern', 'legacy', 'rhel', 'sha384'):
            with self.subTest(dialect=dialect):
                fake = self.fake(dialect=dialect)
                fake.queues['get_task_queue'].put(5)
                worker = self.start_worker(fake, '--count', 1)
                self.finish(worker)
                self.assertEqual(fake.queues['get_result_queue'].get_nowait(), result(5))
                # A digest that nothing announces is guessed wrong once.
                self.assertEqual(fake.refused, 1 if dialect == 'rhel' else 0)

    def test_wrong_key_is_tried_in_both_old_ways(self):
        fake = self.fake(dialect='legacy')
        worker = self.start_worker(fake, key='another key')
        self.finish(worker, status=1)
        self.assertIn('refused the key', worker.stderr)
        self.assertEqual(fake.handshakes, 2)

    def test_server_without_the_key(self):
        """It welcomes anybody, but cannot answer our challenge."""
        class Impostor(type(self.fake())):
            def _handshake(self, peer, number):
                peer.send(wire.CHALLENGE + b'{sha256}' + bytes(40))
                peer.receive()
                peer.send(wire.WELCOME)
                peer.receive_challenge()
                peer.send(b'{sha256}' + bytes(32))
                self.note('verdict', peer.receive())
                raise wire.Closed
        fake = Impostor()
        self.addCleanup(fake.close)
        worker = self.start_worker(fake)
        self.finish(worker, status=1)
        self.assertIn('does not know the key itself', worker.stderr)
        fake.wait_for(lambda f: ('verdict', wire.FAILURE) in f.events, '#FAILURE#')


class Losses(WorkerCase):
    """The session ends at each point; what becomes of the task."""

    def rounds(self, fake):
        return fake.count('accept_connection')

    def test_put_without_reply_is_not_repeated(self):
        fake = self.fake(hooks={'put': once(hang_up)})
        fake.queues['get_task_queue'].put(5)
        worker = self.start_worker(fake)
        worker.expect_stderr('PUT-UNKNOWN')
        fake.wait_for(lambda f: self.rounds(f) == 2, 'a second session')
        fake.queues['get_task_queue'].put(6)
        self.assertEqual(fake.queues['get_result_queue'].get(timeout=20), result(6))
        self.stop(worker)
        self.assertEqual([e[1] for e in fake.events if e[0] == 'put'], [(result(5),), (result(6),)])

    def end_session_during_a_task(self, sleep_s, *options):
        """Closes the session once the task runs; the fake and the worker."""
        fake = self.fake(hooks={'get': once(lambda *_: ('#RETURN', 5))})
        worker = self.start_worker(fake, '--sleep', sleep_s, *options)
        worker.expect('^run task 5')
        with fake.news:
            for sock in fake.peers:
                sock.shutdown(2)
        return fake, worker

    def test_python_forgot_the_task_so_its_result_is_kept(self):
        fake, worker = self.end_session_during_a_task('0.2')
        self.assertEqual(fake.queues['get_result_queue'].get(timeout=20), result(5))
        self.stop(worker)
        self.assertEqual(self.rounds(fake), 2)

    def test_refused_put(self):
        """For certain not done, and Python forgot the task: put again."""
        def refuse(fake, ident, args, kwds):
            return '#ERROR', queue.Full()
        fake = self.fake(hooks={'put': once(refuse)})
        fake.queues['get_task_queue'].put(5)
        worker = self.start_worker(fake)
        worker.expect_stderr('refused a put: Full; trying again')
        fake.wait_for(lambda f: self.rounds(f) == 2, 'a second session')
        fake.wait_for(lambda f: [e[0] for e in f.events].count('put') == 2, 'the puts')
        gets = fake.count('get')
        fake.wait_for(lambda f: [e[0] for e in f.events].count('get') > gets, 'another get')
        self.stop(worker)
        self.assertEqual(fake.count('put'), 2)

    def test_master_that_ends_after_its_last_result(self):
        """The example's master shuts down as soon as it has what it wants; the worker wanted no more either."""
        fake = self.fake(hooks={'put': hang_up})
        fake.queues['get_task_queue'].put(5)
        worker = self.start_worker(fake, '--count', 1)
        self.finish(worker)
        self.assertEqual(worker.lines()[-1], 'worker exit.')

    def test_each_request_without_reply_once(self):
        """The connection ends instead of a reply, at each kind of request: the worker comes back and works."""
        for name in ('dummy', 'create', 'incref', 'decref', 'accept_connection', 'get'):
            with self.subTest(request=name):
                fake = self.fake(hooks={name: once(hang_up)})
                fake.queues['get_task_queue'].put(5)
                worker = self.start_worker(fake)
                self.assertEqual(fake.queues['get_result_queue'].get(timeout=20), result(5))
                self.stop(worker)
                self.assertIn('closed the connection; trying again', worker.stderr)

    def test_sigterm_while_the_result_cannot_be_put(self):
        """The result is all there is of the task: it is waited for, but not for ever."""
        fake, worker = self.end_session_during_a_task('0.2', '--drain-timeout', '0.3')
        fake.close()
        worker.expect_stderr('trying again')
        self.stop(worker, status=1)
        self.assertIn('gave up 1 unfinished task(s)', worker.stderr)


class Hostile(WorkerCase):
    def check_survives(self, name, reply, **kwargs):
        """One such reply; then the peer behaves, and the worker still works."""
        fake = self.fake(hooks={name: once(lambda *_: reply)})
        fake.queues['get_task_queue'].put(5)
        worker = self.start_worker(fake, **kwargs)
        self.assertEqual(fake.queues['get_result_queue'].get(timeout=20), result(5), worker.describe())
        self.stop(worker)
        return worker

    def test_replies_that_are_none(self):
        deep = b'\x80\x02' + b'(' * 50000 + b't' * 50000 + b'.'
        bad = {
            'no pickle': wire.frame(b'hello'),
            'nothing': wire.frame(b''),
            'not a pair': wire.frame(pickle.dumps(5, 2)),
            'unknown kind': wire.frame(pickle.dumps(('#HELLO', 5), 2)),
            'kind of bytes': wire.frame(pickle.dumps((5, 5), 2)),
            'truncated': wire.frame(pickle.dumps(('#RETURN', 5), 2)[:-3]),
            'deep': wire.frame(deep),
            'memo bomb': wire.frame(b'\x80\x02Nr\xff\xff\xff\xff.'),
            'huge': struct.pack('!i', 0x7fffffff),
            'huge, long form': struct.pack('!iQ', -1, 1 << 62),
            'negative': struct.pack('!i', -5),
            'two replies': wire.frame(pickle.dumps(('#RETURN', None), 2)) * 2,
            'code': wire.frame(b"\x80\x02U\x07#RETURNcos\nsystem\nU\x04ls /\x85R\x86."),
        }
        for name, reply in bad.items():
            with self.subTest(reply=name, request='create'):
                self.check_survives('create', reply)
            if name not in ('two replies', 'code'):
                with self.subTest(reply=name, request='accept_connection'):
                    self.check_survives('accept_connection', reply)
            if name not in ('two replies', 'code'):
                with self.subTest(reply=name, request='get'):
                    self.check_survives('get', reply)

    def test_code_in_a_task_does_not_run(self):
        with harness.TempDir() as folder:
            command = ('touch %s/ran' % folder).encode()
            task = wire.frame(b"\x80\x02U\x07#RETURNcposix\nsystem\nU" + bytes([len(command)]) + command + b'\x85R\x86.')
            fake = self.fake(hooks={'get': once(lambda *_: task)})
            worker = self.start_worker(fake)
            self.assertEqual(fake.queues['get_result_queue'].get(timeout=20),
                             'error: cannot square a value (system)')
            self.stop(worker)
            self.assertEqual(os.listdir(folder), [])

    def test_idents_and_texts_of_any_kind(self):
        for ident in ('', 'x' * 300, 5, None):
            with self.subTest(ident=ident):
                self.check_survives('create', ('#RETURN', (ident, ())))
        worker = self.check_survives('get', ('#TRACEBACK', 'line\n\x1b[2J\nevil\x07 "text"\n' + 'x' * 5000))
        self.assertNotIn('\x1b', worker.stderr)
        self.assertNotIn('\x07', worker.stderr)

    def test_no_manager_at_all(self):
        """It speaks, but something else, or hangs up at once."""
        for greeting in (b'HTTP/1.1 400 Bad Request\r\n\r\n', b'', wire.frame(b'#WELCOME#'), wire.frame(b'x' * 300),
                         wire.frame(wire.CHALLENGE + b'short'), wire.frame(wire.CHALLENGE + b'{md4}' + bytes(40)),
                         wire.frame(wire.CHALLENGE + bytes(21))):
            class Stranger(type(self.fake())):
                def _handshake(self, peer, number, greeting=greeting):
                    peer.send_bytes(greeting)
                    raise wire.Closed
            with self.subTest(greeting=greeting):
                fake = Stranger()
                self.addCleanup(fake.close)
                worker = self.start_worker(fake, '--no-retry')
                self.finish(worker, status=1)
                self.assertRegex(worker.stderr, r'\Atask-worker: 127.0.0.1:\d+ .*\Z')


class CommandLine(WorkerCase):
    def run_it(self, *args, env=()):
        done = subprocess.run([TASK_WORKER] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=harness.clean_env(**dict(env)), timeout=harness.DEADLINE_S)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def test_help_and_version(self):
        status, out, err = self.run_it('--help')
        self.assertEqual((status, err), (0, ''))
        for option in ('--master', '--peer', '--authkey-file', '--authkey', '--from', '--to', '--jobs', '--builtin',
                       '--sleep', '--count', '--poll-timeout', '--name', '--log-level', '--drain-timeout',
                       '--no-retry', '--connect-timeout', '--worker-id', '--heartbeat', '--version', '--help'):
            self.assertIn(option, out)
        self.assertRegex(self.run_it('--version')[1], r'\Atask-worker \d+\.\d+\.\d+\n\Z')

    def test_usage_errors(self):
        square = ('--builtin', 'square')
        for args, told in ((('--bultin', 'square'), "did you mean '--builtin'"),
                           ((), 'add --builtin square'),
                           (('--builtin', 'cube'), 'there is: square'),
                           (square + ('--peer', 'ruby'), 'taskq'),
                           (square + ('--master', 'localhost'), 'HOST:PORT'),
                           (square + ('--master', '127.0.0.1:0'), 'port 0'),
                           (square + ('--jobs', '0'), 'out of range'),
                           (square + ('--name', 'a|b'), "no '|'"),
                           (square + ('--worker-id', 'a b'), 'A-Z a-z 0-9'),
                           (square + ('--worker-id', 'x' * 129), '1 to 128'),
                           (square + ('--heartbeat', '0.5'), 'at least 1 second'),
                           (square + ('--log-level', 'loud'), 'debug, info, warn or error'),
                           (square + ('--authkey-file', '/nonexistent/key'), '/nonexistent/key')):
            with self.subTest(args=args):
                status, out, err = self.run_it(*args)
                # the last one is no wrong usage: the key is not to be had
                self.assertEqual((status, out), (1 if '/nonexistent/key' in args else 2, ''))
                self.assertIn(told, err)
                self.assertRegex(err, r'\Atask-worker: .*\n\Z')

    def test_key_from_file_option_and_environment(self):
        with harness.TempDir() as folder:
            path = folder + '/key'
            with open(path, 'w') as f:
                f.write(harness.KEY + '\n')
            fake = self.fake()
            address = ['--master', '127.0.0.1:%d' % fake.port, '--builtin', 'square', '--count', '1',
                       '--poll-timeout', '0.01', '--peer', 'python']
            for args, env in ((['--authkey-file', path], {}), (['--authkey', harness.KEY], {}),
                              ([], {'TASKQ_AUTHKEY': harness.KEY})):
                with self.subTest(args=args):
                    self.assertEqual(self.run_it(*address, *args, env=env)[0], 0)
            self.assertEqual(self.run_it(*address)[0], 1)

    def test_empty_key(self):
        """A master without a key has the empty one."""
        fake = self.fake(key='')
        self.assertEqual(self.run_it('--master', '127.0.0.1:%d' % fake.port, '--builtin', 'square', '--count', '1',
                                     '--poll-timeout', '0.01', '--peer', 'python')[0], 0)


if __name__ == '__main__':
    harness.main()
