"""task-worker against a task-master played by hand: every frame that it sends, what it does when the connection
ends at each point, and masters that mean it ill. proto/PROTOCOL.md, section 5."""
import pickle
import re
import signal
import socket
import struct
import time

import harness
import native
import wire
from worker import Peer, WorkerCase

msgpack = native.msgpack
TOKEN = bytes(range(16))


def result(n):
    return '%d * %d = %d' % (n, n, n * n)


class Master:
    """Accepts one connection after the other; the test itself says what it answers."""

    host = '127.0.0.1'

    def __init__(self, key=harness.KEY):
        self.key = key
        self.connections = []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.settimeout(wire.TIMEOUT_S)
        self.listener.bind((self.host, 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        """The next connection, after the handshake; hello is read next."""
        sock, _ = self.listener.accept()
        connection = Connection(sock, self.key.encode())
        self.connections.append(connection)
        connection.handshake('modern')
        return connection

    def welcome(self, **more):
        """The next connection, with its hello answered."""
        connection = self.accept()
        connection.hello = connection.expect('hello')
        connection.answer_hello(**more)
        return connection

    def close(self):
        for connection in self.connections:
            connection.close()
        self.listener.close()


class Connection(Peer):
    def pack(self, message):
        self.send(msgpack.packb(message, use_bin_type=True))

    def message(self):
        return msgpack.unpackb(self.receive(), raw=False, strict_map_key=False)

    def expect(self, method):
        """The next message must be this request, or notification; its params."""
        message = self.message()
        if message[-2] != method:
            raise AssertionError('not %s but %r' % (method, message))
        self.msgid = message[1] if message[0] == 0 else None
        return message[-1]

    def reply(self, msgid=None, **fields):
        self.pack([1, self.msgid if msgid is None else msgid, None, fields])

    def refuse(self, code, text='why', msgid=None):
        self.pack([1, self.msgid if msgid is None else msgid, [code, text], None])

    def answer_hello(self, **more):
        fields = dict(version=1, server='task-master/0', features=[], now_ms=1, key='authkey', role='admin',
                      max_frame_bytes=1 << 26, max_calls=64, max_batch=1000, worker=self.hello['worker'],
                      token=TOKEN, resumed=False, leases=[])
        fields.update(more)
        self.reply(**fields)

    def tasks(self, *tasks, **more):
        self.reply(tasks=list(tasks), **more)


class NativeWorkerCase(WorkerCase):
    def start(self, *options, **kwargs):
        """A master and a worker at it."""
        master = Master()
        self.addCleanup(master.close)
        return master, self.start_worker(master, *options, **dict({'peer': 'taskq'}, **kwargs))

    def leave(self, worker, connection, msgid=None, status=0):
        """SIGTERM with nothing in hand: the get that waits is canceled, and bye."""
        worker.signal(signal.SIGTERM)
        while True:
            message = connection.message()
            if message[-2] == 'bye':
                connection.reply(message[1])
                break
            self.assertIn(message[-2], ('cancel', 'ping'))
        connection.close()
        self.finish(worker, status)


class Conversation(NativeWorkerCase):
    def test_the_example(self):
        master, worker = self.start('--count', 3, '--worker-id', 'node/7:a@b_c-d.e')
        c = master.accept()
        c.hello = c.expect('hello')
        client = c.hello.pop('client')
        self.assertRegex(client, r'\Atask-worker/\d+\.\d+\.\d+\Z')
        self.assertEqual(c.hello, {'version': 1, 'worker': 'node/7:a@b_c-d.e', 'heartbeat_ms': 5000})
        c.answer_hello()
        get = {'q': 'task_queue', 'max': 1, 'wait_ms': 100}
        self.assertEqual(c.expect('get'), get)
        c.tasks([7, 3, 1, 4321])
        self.assertEqual(c.expect('done'), {'done': [[7, 3, result(4321)]], 'or_to': 'result_queue', 'get': get})
        c.tasks(ok=1)
        self.assertEqual(c.expect('get'), get)
        c.tasks([8, 1, 2, 5, {'key': 'k', 'trace': '00-aa-bb-00', 'priority': -1, 'error': 'x', 'expires_ms': 9}])
        self.assertEqual(c.expect('done'), {'done': [[8, 1, result(5)]], 'or_to': 'result_queue'})
        c.reply(ok=1)
        self.assertEqual(c.expect('bye'), {})
        c.reply()
        c.close()
        self.finish(worker)
        self.assertEqual(worker.lines(), ['Connect to server 127.0.0.1...', 'run task 4321 * 4321...',
                                          'task queue is empty.', 'run task 5 * 5...', 'worker exit.'])
        self.assertEqual(worker.stderr, '')

    def test_worker_id_by_default(self):
        master, worker = self.start()
        c = master.welcome()
        self.assertRegex(c.hello['worker'], r'\A[A-Za-z0-9.-]+:%d:[0-9a-f]{4}\Z' % worker.pid)
        c.expect('get')
        self.leave(worker, c)

    def test_credit_is_free_slots_and_results_travel_together(self):
        master, worker = self.start('--jobs', 3, '--sleep', '0.2')
        c = master.welcome()
        self.assertEqual(c.expect('get')['max'], 3)
        c.tasks([1, 1, 1, 11], [2, 1, 1, 12])
        self.assertEqual(c.expect('get')['max'], 1)
        waiting = c.msgid
        done = c.expect('done')
        self.assertEqual(done['done'], [[1, 1, result(11)], [2, 1, result(12)]])
        self.assertEqual(done['get']['max'], 2)
        c.tasks([3, 1, 1, 13], msgid=waiting)
        done = c.expect('done')
        self.assertEqual((done['done'], done['get']['max']), ([[3, 1, result(13)]], 1))
        self.leave(worker, c)

    def test_few_gets_wait_at_once(self):
        """Jobs end one by one while nothing is to be had: the fifth get would be one too many, so a small one is
        canceled and asked again, larger; no result waits for it."""
        master, worker = self.start('--jobs', 6, '--poll-timeout', 3600)
        c = master.welcome()
        self.assertEqual(c.expect('get')['max'], 6)
        waiting = {c.msgid: 6}
        n = 0
        for _ in range(6):  # one after the other is answered with one task; its slot asks again with the result
            n += 1
            msgid = max(waiting, key=waiting.get)
            credit = waiting.pop(msgid)
            c.tasks([n, 1, 1, n], msgid=msgid)
            asked = 0
            while asked < credit:
                message = c.message()
                if message[-2] == 'cancel':
                    canceled = message[-1]['call']
                    credit += waiting.pop(canceled)
                    c.refuse('canceled', msgid=canceled)
                    continue
                self.assertIn(message[-2], ('get', 'done'))
                get = message[-1] if message[-2] == 'get' else message[-1].get('get')
                if get:
                    asked += get['max']
                    waiting[message[1]] = get['max']
                else:
                    c.reply(msgid=message[1], ok=1)
            self.assertLessEqual(len(waiting), 4)
            self.assertEqual(sum(waiting.values()), 6)
        self.leave(worker, c)

    def test_what_cannot_be_squared_is_a_failure_for_good(self):
        master, worker = self.start('--jobs', 9, '--to', 'other')
        c = master.welcome()
        self.assertEqual(c.expect('done'), {'done': [], 'to': 'other'})
        c.reply(ok=0)
        self.assertEqual(c.expect('get')['max'], 9)
        big = 3 ** 100
        c.tasks(*[[n, 1, 1, body] for n, body in enumerate((
            'abc', b'\0', None, [1], {}, 2.5, 2 ** 63, msgpack.ExtType(80, pickle.dumps(big, 2)),
            msgpack.ExtType(80, pickle.dumps(1j, 2))))])
        done = c.expect('done')
        self.assertEqual(done['to'], 'other')
        self.assertEqual(done['done'], [[5, 1, '2 * 2 = 6'], [6, 1, result(2 ** 63)], [7, 1, result(big)]])
        self.assertEqual([f[:2] for f in done['fail']], [[n, 1] for n in (0, 1, 2, 3, 4, 8)])
        self.assertEqual([f[2] for f in done['fail']],
                         [{'error': 'error: cannot square ' + text, 'final': True} for text in (
                             "'abc' (str)", "b'\\x00' (bytes)", 'None (NoneType)', 'a value (list)', 'a value (dict)',
                             'a value (complex)')])
        c.tasks(ok=9)
        c.expect('get')
        self.leave(worker, c)

    def test_empty_is_told_at_the_change(self):
        master, worker = self.start('--poll-timeout', '0.2')
        c = master.welcome()
        self.assertEqual(c.expect('get')['wait_ms'], 200)
        c.tasks()
        # What was told once need not be asked for every 200 ms.
        self.assertGreaterEqual(c.expect('get')['wait_ms'], 10000)
        c.tasks()
        c.expect('get')
        c.tasks([1, 1, 1, 6])
        self.assertEqual(c.expect('done')['get']['wait_ms'], 200)
        c.tasks(ok=1)
        c.expect('get')
        self.leave(worker, c)
        self.assertEqual(worker.lines(), ['Connect to server 127.0.0.1...', 'task queue is empty.',
                                          'run task 6 * 6...', 'task queue is empty.', 'worker exit.'])

    def test_count_with_jobs(self):
        """Each turn is told; an empty answer ends as many as it was asked for."""
        master, worker = self.start('--jobs', 4, '--count', 6)
        c = master.welcome()
        self.assertEqual(c.expect('get')['max'], 4)
        c.tasks([1, 1, 1, 2])
        self.assertEqual(c.expect('done')['get']['max'], 4)
        c.tasks(ok=1)
        self.assertEqual(c.expect('get')['max'], 1)
        c.tasks()
        c.expect('bye')
        c.close()
        self.finish(worker)
        self.assertEqual(worker.lines()[1:], ['run task 2 * 2...'] + ['task queue is empty.'] * 5 + ['worker exit.'])


class Liveness(NativeWorkerCase):
    def test_pings_when_idle(self):
        master, worker = self.start('--heartbeat', 1)
        c = master.welcome(heartbeat_ms=1000, silent_ms=3000)
        self.assertEqual(c.hello['heartbeat_ms'], 1000)
        c.expect('get')
        for _ in range(3):
            self.assertEqual(c.expect('ping'), {})
            c.reply(now_ms=1)
        self.leave(worker, c)

    def test_a_silent_master_is_given_up(self):
        """Half-open: it takes everything and says nothing."""
        master, worker = self.start('--heartbeat', 1)
        c = master.welcome(heartbeat_ms=1000, silent_ms=3000)
        c.expect('get')
        again = master.welcome()
        worker.expect_stderr('did not answer for 3 s; trying again')
        self.assertEqual(again.hello['token'], TOKEN)
        again.expect('get')
        self.leave(worker, again)

    def test_no_heartbeat(self):
        master, worker = self.start('--heartbeat', 0)
        c = master.welcome()
        self.assertNotIn('heartbeat_ms', c.hello)
        c.expect('get')
        self.leave(worker, c)

    def test_stopped_and_continued(self):
        """After SIGCONT the worker is not the one that blames the master for the silence."""
        master, worker = self.start('--heartbeat', 1)
        c = master.welcome(heartbeat_ms=1000, silent_ms=3000)
        c.expect('get')
        worker.signal(signal.SIGSTOP)
        harness.poll_until(lambda: harness.proc_state(worker.pid) == 'T', 'it is stopped')
        end = time.monotonic() + 4  # longer than the silence that is allowed: it is time that is tested here
        harness.poll_until(lambda: time.monotonic() > end, 'four seconds')
        worker.signal(signal.SIGCONT)
        c.expect('ping')
        c.reply(now_ms=1)
        self.leave(worker, c)
        self.assertEqual(worker.stderr, '')


class Resuming(NativeWorkerCase):
    def cut_during_a_task(self, sleep_s, *options):
        master, worker = self.start('--sleep', sleep_s, *options)
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        worker.expect('^run task 5')
        c.reset()
        return master, worker

    def test_a_task_goes_on_over_a_cut(self):
        master, worker = self.cut_during_a_task('0.4')
        c = master.accept()
        c.hello = c.expect('hello')
        self.assertEqual((c.hello['token'], c.hello['leases']), (TOKEN, [[7, 3]]))
        c.answer_hello(token=bytes(16), resumed=True, leases=[[7, 3]])
        done = c.expect('done')
        self.assertEqual(done['done'], [[7, 3, result(5)]])
        c.tasks(ok=1)
        c.expect('get')
        c.reset()  # the token is new each time
        c = master.welcome(resumed=True)
        self.assertEqual((c.hello['token'], c.hello['leases']), (bytes(16), []))
        c.expect('get')
        self.leave(worker, c)
        self.assertEqual(worker.stdout.count('run task'), 1)

    def test_a_result_of_the_time_between_is_handed_in(self):
        master, worker = self.cut_during_a_task('0.05')
        c = master.accept()
        c.hello = c.expect('hello')
        self.assertEqual(c.hello['leases'], [[7, 3]])
        c.answer_hello(resumed=True, leases=[[7, 3]])
        self.assertEqual(c.expect('done')['done'], [[7, 3, result(5)]])
        c.tasks(ok=1)
        c.expect('get')
        self.leave(worker, c)

    def test_the_master_does_not_know_the_task_any_more(self):
        """It was restarted, or somebody else has the task: the job is given up, which one line tells. It would run
        for an hour: that its slot asks for a task again shows it."""
        for resumed in (False, True):
            with self.subTest(resumed=resumed):
                master, worker = self.cut_during_a_task(3600)
                c = master.welcome(resumed=resumed)
                self.assertEqual(c.expect('get')['max'], 1)
                self.leave(worker, c)
                self.assertEqual(worker.stderr.count(' LEASES-LOST '), 1)
                self.assertRegex(worker.stderr, r'LEASES-LOST .*resumed=%d tasks=1 ' % resumed)

    def cut_before_the_answer(self):
        master, worker = self.start()
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        c.expect('done')
        c.reset()
        c = master.accept()
        c.hello = c.expect('hello')
        self.assertEqual(c.hello['leases'], [[7, 3]])
        return worker, c

    def test_a_result_that_did_not_arrive_is_sent_again(self):
        worker, c = self.cut_before_the_answer()
        c.answer_hello(resumed=True, leases=[[7, 3]])
        self.assertEqual(c.expect('done')['done'], [[7, 3, result(5)]])
        c.tasks(ok=1)
        c.expect('get')
        self.leave(worker, c)

    def test_a_result_that_arrived_is_not_sent_again(self):
        worker, c = self.cut_before_the_answer()
        c.answer_hello(resumed=True, leases=[])
        c.expect('get')
        self.leave(worker, c)
        self.assertNotIn('LEASES-LOST', worker.stderr)

    def test_leases_that_we_do_not_have(self):
        master, worker = self.start()
        c = master.welcome(leases=[[99, 1]])
        c.expect('get')
        self.leave(worker, c)

    def test_lost(self):
        master, worker = self.start('--sleep', 3600, '--jobs', 2)
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5], [8, 1, 1, 6])
        worker.expect('^run task 6')
        c.pack([2, 'lost', {'leases': [[7, 2], [7, 3], [9, 9]]}])
        self.assertEqual(c.expect('get')['max'], 1)
        c.tasks([7, 4, 2, 5])  # it may come back to the same worker
        worker.expect('^run task 5')
        c.pack([2, 'lost', {'leases': [[7, 4], [8, 1]]}])
        self.assertEqual(c.expect('get')['max'], 2)
        self.leave(worker, c)
        self.assertEqual(len(re.findall('LEASES-LOST', worker.stderr)), 2)

    def test_stale(self):
        master, worker = self.start()
        c = master.welcome()
        c.expect('get')
        for n in range(1, 4):
            c.tasks([n, 1, 1, 5], **({'ok': 0, 'refused': [[n - 1, 'stale']]} if n > 1 else {}))
            self.assertEqual(c.expect('done')['done'], [[n, 1, result(5)]])
        c.tasks(ok=0, refused=[[3, 'unknown']])
        c.expect('get')
        self.leave(worker, c)
        self.assertEqual(re.findall(r'RESULT-STALE id=(\d) epoch=1 code="(\w+)" count=(\d)', worker.stderr),
                         [('1', 'stale', '1'), ('2', 'stale', '2'), ('3', 'unknown', '3')])

    def test_master_says_bye(self):
        master, worker = self.start()
        c = master.welcome()
        c.expect('get')
        c.pack([2, 'bye', {'text': 'stopping'}])
        c.close()
        c = master.welcome()
        c.expect('get')
        self.leave(worker, c)
        self.assertRegex(worker.stderr, r'MASTER-BYE .*text="stopping"')


class Ending(NativeWorkerCase):
    def test_sigterm_lets_a_task_end(self):
        master, worker = self.start('--sleep', '0.4', '--jobs', 2, '--poll-timeout', 3600)
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        c.expect('get')
        get = c.msgid
        worker.expect('^run task 5')
        worker.signal(signal.SIGTERM)
        self.assertEqual(c.expect('cancel'), {'call': get})
        c.tasks([8, 1, 1, 6], msgid=get)  # it crossed the cancel: it never ran here
        self.assertEqual(c.expect('release'), {'leases': [[8, 1]]})
        c.reply(ok=1)
        self.assertEqual(c.expect('done'), {'done': [[7, 3, result(5)]], 'or_to': 'result_queue'})
        c.reply(ok=1)
        c.expect('bye')
        c.close()
        self.finish(worker)
        self.assertNotIn('run task 6', worker.stdout)

    def test_second_signal(self):
        master, worker = self.start('--sleep', 3600, '--drain-timeout', 3600)
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        worker.expect('^run task 5')
        worker.signal(signal.SIGTERM)
        worker.signal(signal.SIGINT)
        c.expect('bye')
        self.finish(worker, status=1)

    def test_drain_timeout(self):
        master, worker = self.start('--sleep', 3600, '--drain-timeout', '0.2')
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        worker.expect('^run task 5')
        worker.signal(signal.SIGTERM)
        c.expect('bye')
        self.finish(worker, status=1)
        self.assertIn('gave up 1 unfinished task(s)', worker.stderr)

    def test_a_result_that_cannot_be_handed_in_is_waited_for_but_not_for_ever(self):
        master, worker = self.start('--sleep', '0.2', '--drain-timeout', '0.4')
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        worker.expect('^run task 5')
        master.close()
        worker.expect_stderr('trying again')
        worker.signal(signal.SIGTERM)
        self.finish(worker, status=1)
        self.assertIn('gave up 1 unfinished task(s)', worker.stderr)

    def test_a_master_that_ends_after_the_last_result(self):
        master, worker = self.start('--count', 1)
        c = master.welcome()
        c.expect('get')
        c.tasks([7, 3, 1, 5])
        c.expect('done')
        master.close()
        self.finish(worker)
        self.assertEqual((worker.lines()[-1], worker.stderr), ('worker exit.', ''))

    def test_a_master_that_does_not_close_after_bye(self):
        master, worker = self.start()
        c = master.welcome()
        c.expect('get')
        worker.signal(signal.SIGTERM)
        c.expect('cancel')
        c.expect('bye')
        self.finish(worker)


class Refusals(NativeWorkerCase):
    def test_wrong_key(self):
        master, worker = self.start(key='another key')
        with self.assertRaises(wire.Closed):
            master.accept()
        self.finish(worker, status=1)
        self.assertIn('refused the key', worker.stderr)

    def test_hello_refused(self):
        for code, text in (('version', 'too new'), ('bad_request', 'worker: no'), ('denied', 'no')):
            with self.subTest(code=code):
                master, worker = self.start()
                c = master.accept()
                c.expect('hello')
                c.refuse(code, text)
                self.finish(worker, status=1)
                self.assertRegex(worker.stderr, r'\Atask-worker: \S+ refused this worker: %s\Z' % text)

    def test_worker_id_is_taken(self):
        master, worker = self.start('--worker-id', 'x')
        c = master.accept()
        c.expect('hello')
        c.refuse('worker_taken', 'another connection has "x"')
        c = master.welcome()
        c.expect('get')
        self.leave(worker, c)
        self.assertIn('another connection has \\"x\\"; trying again', worker.stderr)

    def test_no_such_queue(self):
        for options, told in ((('--from', 'nothing'), "no queue 'nothing' .*--from"),
                              (('--to', 'nowhere'), "no queue 'nowhere' .*--to")):
            with self.subTest(options=options):
                master, worker = self.start(*options)
                c = master.welcome()
                c.expect('get' if '--from' in options else 'done')
                c.refuse('queue_unknown', 'there is none')
                self.finish(worker, status=1)
                self.assertRegex(worker.stderr, r'\Atask-worker: \S+ has %s\Z' % told)

    def test_a_queue_that_goes_later(self):
        """It may come back: asked again after a pause, without a new connection."""
        master, worker = self.start()
        c = master.welcome()
        c.expect('get')
        c.tasks()
        c.expect('get')
        c.refuse('queue_closed', 'it was deleted')
        worker.expect_stderr('refused a request: it was deleted; trying again')
        c.expect('get')
        c.tasks([1, 1, 1, 3])
        c.expect('done')
        c.tasks(ok=1, get_error=['queue_unknown', 'gone'])
        worker.expect_stderr('CONNECTED')
        c.expect('get')
        self.leave(worker, c)

    def test_done_refused_for_now(self):
        master, worker = self.start()
        c = master.welcome()
        c.expect('get')
        c.tasks([1, 1, 1, 3])
        for _ in range(3):
            self.assertEqual(c.expect('done')['done'], [[1, 1, result(3)]])
            c.refuse('memory', 'later')
        self.assertEqual(c.expect('done')['done'], [[1, 1, result(3)]])
        c.tasks(ok=0, refused=[[1, 'memory']])
        self.assertEqual(c.expect('done')['done'], [[1, 1, result(3)]])
        c.refuse('no_space', 'the disk is full')
        worker.expect_stderr('refused a request: (later|the disk is full); trying again')
        self.assertEqual(c.expect('done')['done'], [[1, 1, result(3)]])
        c.tasks(ok=0, refused=[[1, 'no_space']])
        self.assertEqual(c.expect('done')['done'], [[1, 1, result(3)]])
        c.tasks(ok=1)
        c.expect('get')
        self.leave(worker, c)

    def test_done_refused_for_good(self):
        """What is wrong with one result is told as its failure, and the others go out without it."""
        master, worker = self.start('--jobs', 2)
        c = master.welcome()
        c.expect('get')
        c.tasks([1, 1, 1, 3], [2, 1, 1, 4])
        self.assertEqual(len(c.expect('done')['done']), 2)
        c.refuse('bad_request', 'done[0]: no')
        self.assertEqual(c.expect('done')['done'], [[1, 1, result(3)]])
        first = c.msgid
        self.assertEqual(c.expect('done')['done'], [[2, 1, result(4)]])
        second = c.msgid
        c.refuse('bad_request', 'no', msgid=first)
        c.tasks(msgid=second, ok=1)
        done = c.expect('done')
        self.assertEqual(done['fail'], [[1, 1, {'error': 'the master refused the result: no', 'final': True}]])
        c.refuse('bad_request', 'not this either')
        c.expect('get')
        self.leave(worker, c)

    def test_result_that_no_frame_holds(self):
        master, worker = self.start()
        c = master.welcome(max_frame_bytes=2000)
        c.expect('get')
        c.tasks([1, 1, 1, msgpack.ExtType(80, pickle.dumps(7 ** 1000, 2))])
        done = c.expect('done')
        self.assertEqual(done['done'], [])
        self.assertRegex(done['fail'][0][2]['error'], r'\d+ bytes and the master takes 2000: raise its --max-frame')
        c.tasks(ok=1)
        c.expect('get')
        self.leave(worker, c)


class Hostile(NativeWorkerCase):
    def test_what_is_no_answer(self):
        deep = b'\x91' * 100 + b'\xc0'
        good = [1, 2, None, {}]
        bad = {
            'no msgpack': wire.frame(b'\xc1'),
            'nothing': wire.frame(b''),
            'a pickle': wire.frame(pickle.dumps(('#RETURN', None), 2)),
            'truncated': wire.frame(msgpack.packb(good)[:-1] + b'\x81'),
            'trailing': wire.frame(msgpack.packb(good) + b'\xc0'),
            'deep': wire.frame(deep),
            'bomb': wire.frame(b'\x94\x01\x02\xc0\xdf\xff\xff\xff\xff'),
            'huge': struct.pack('!i', 0x7fffffff),
            'huge, long form': struct.pack('!iQ', -1, 1 << 62),
            'negative': struct.pack('!i', -5),
            'a request': wire.frame(msgpack.packb([0, 1, 'get', {}])),
            'unknown kind': wire.frame(msgpack.packb([3, 2, None, {}])),
            'no map': wire.frame(msgpack.packb([1, 2, None, 5])),
            'nobody asked': wire.frame(msgpack.packb([1, 77, None, {}])),
            'msgid of 64 bits': wire.frame(msgpack.packb([1, 1 << 40, None, {}])),
            'error of one part': wire.frame(msgpack.packb([1, 2, ['x'], None])),
            'tasks no array': wire.frame(msgpack.packb([1, 2, None, {'tasks': 5}])),
            'task too short': wire.frame(msgpack.packb([1, 2, None, {'tasks': [[1, 1, 1]]}])),
            'task of texts': wire.frame(msgpack.packb([1, 2, None, {'tasks': [['1', 1, 1, 1]]}])),
            'negative epoch': wire.frame(msgpack.packb([1, 2, None, {'tasks': [[1, -1, 1, 1]]}])),
            'info no map': wire.frame(msgpack.packb([1, 2, None, {'tasks': [[1, 1, 1, 1, 5]]}])),
            'second task bad': wire.frame(msgpack.packb([1, 2, None, {'tasks': [[1, 1, 1, 1], 5]}])),
            'too many tasks': wire.frame(msgpack.packb([1, 2, None, {'tasks': [[n, 1, 1, 1] for n in range(4)]}])),
            'one task twice': wire.frame(msgpack.packb([1, 2, None, {'tasks': [[1, 1, 1, 1]] * 2}])),
            'refused what was not sent': wire.frame(msgpack.packb([1, 2, None, {'refused': [[1, 'stale']]}])),
            'lost no array': wire.frame(msgpack.packb([2, 'lost', {'leases': 5}])),
            'an error': wire.frame(msgpack.packb([2, 'error', {'code': 'x', 'text': 'bad \x1b[2J'}])),
            'notification without map': wire.frame(msgpack.packb([2, 'lost', 5])),
        }
        master, worker = self.start('--jobs', 3)
        for name, data in bad.items():
            with self.subTest(answer=name):
                c = master.welcome()
                self.assertEqual(c.expect('get')['max'], 3, name)
                c.tasks()  # a good answer makes the next pause a short one
                self.assertEqual(c.expect('get')['max'], 3, name)
                # The msgid of this get, where the answer is meant for it.
                data = data.replace(b'\x94\x01\x02', b'\x94\x01' + msgpack.packb(c.msgid), 1)
                body = data[4:]
                if not name.startswith(('huge', 'negative')) or name == 'negative epoch':
                    data = wire.frame(body)
                c.send_bytes(data)
                c.rest()  # the worker closes
                c.close()
                self.assertTrue(worker.alive())
        c = master.welcome()
        c.expect('get')
        self.leave(worker, c)
        self.assertNotIn('\x1b', worker.stderr)

    def test_what_is_no_welcome(self):
        master, worker = self.start()
        for fields in ({'version': 2}, {'version': 0}, {'version': '1'}, {'version': None}, {'token': b'short'},
                       {'max_batch': 0}, {'max_frame_bytes': -1}, {'leases': [[1]]}, {'leases': 5}, {'resumed': 1},
                       {'heartbeat_ms': 1 << 40}, {'role': 5}):
            with self.subTest(fields=fields):
                c = master.welcome(**fields)
                c.rest()
                c.close()
                c = master.welcome()
                c.expect('get')
                c.tasks()
                c.expect('get')
                c.close()
        c = master.accept()
        c.expect('hello')
        c.reply(msgid=c.msgid + 1)
        c.rest()
        c = master.welcome(max_batch=1, more={'a': [1]})
        self.assertEqual(c.expect('get')['max'], 1)
        self.leave(worker, c)

    def test_what_is_unknown_is_ignored(self):
        master, worker = self.start()
        c = master.welcome(shoe_size=43)
        c.expect('get')
        c.pack([2, 'weather', {'rain': True}])
        c.tasks([1, 1, 1, 3, {'colour': 'blue'}, 'more'], later=[1, 2])
        c.expect('done')
        self.leave(worker, c)

    def test_pythons_own_manager(self):
        """--peer python was forgotten: the server hangs up at our hello, and the remedy is told."""
        server = self.start_reference()
        worker = self.start_worker(server, '--no-retry', peer='taskq')
        self.finish(worker, status=1)
        self.assertIn('add --peer python', worker.stderr)


if __name__ == '__main__':
    harness.main()
