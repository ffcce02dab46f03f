"""No word before the disk has it: a master whose syncs wait at a gate of the test, or fail (preload/sync_gate.c)."""
import os
import select
import signal
import threading

import harness
import wire
from durable import DurableCase, taskq_native
from harness import poll_until

GATE = os.path.join(harness.BUILD, 'bin', 'sync_gate.so')


class GateCase(DurableCase):

    def setUp(self):
        super().setUp()
        self.gate = os.path.join(self.temp, 'gate')
        os.mkdir(self.gate)
        # the gate must not outlive the test: a master that waits there would, too
        self.addCleanup(lambda: self.open_gate())

    def start(self, *options, later_s=0, only='', **kwargs):
        env = {'LD_PRELOAD': GATE, 'SYNC_GATE': self.gate, 'SYNC_GATE_LATER_S': str(later_s), 'SYNC_GATE_ONLY': only,
               'ASAN_OPTIONS': 'verify_asan_link_order=0:' + os.environ.get('ASAN_OPTIONS', '')}
        return super().start(*options, env=env, **kwargs)

    def mark(self, name):
        with open(os.path.join(self.gate, name), 'w'):
            pass

    def close_gate(self):
        self.mark('closed')

    def open_gate(self):
        if os.path.exists(os.path.join(self.gate, 'closed')):
            os.remove(os.path.join(self.gate, 'closed'))

    def wait_blocked(self):
        """A sync waits: what it is for is written, and the loop goes on."""
        poll_until(lambda: os.path.exists(os.path.join(self.gate, 'blocked')), 'a sync waits at the gate')

    def settled(self):
        """All connections that were made before this have been looked at by now: this one's handshake, which
        is answered whatever the disk does, came behind them."""
        for _ in range(3):
            with wire.Wire(self.master) as peer:
                peer.handshake()

    def quiet(self, sock):
        return not select.select([sock], [], [], 0)[0]


class Held(GateCase):

    def test_native_put(self):
        self.start()
        native = self.native()
        self.close_gate()
        call = native.start('put', q='task_queue', tasks=[['a']])
        self.wait_blocked()
        self.settled()
        self.assertFalse(call.answered())
        self.open_gate()
        self.assertEqual(len(call.result()['ids']), 1)

    def test_python_put(self):
        self.start()
        python = self.python()
        queue = self.queue('task_queue')
        self.close_gate()
        python.request(queue, 'put', 'a')
        self.wait_blocked()
        self.settled()
        self.assertTrue(self.quiet(python.sock))
        self.open_gate()
        self.assertIsNone(python.result())

    def test_all_share_a_sync(self):
        """What comes while one sync is on its way is one group, of both dialects."""
        self.start()
        peers = [self.native() for _ in range(20)]
        pythons = [self.python('thread-%d' % n) for n in range(20)]
        queue = self.queue('task_queue')
        before = peers[0].stats()
        self.close_gate()
        first = peers[0].start('put', q='task_queue', tasks=[['first']])
        self.wait_blocked()
        calls = [p.start('put', q='task_queue', tasks=[[n]]) for n, p in enumerate(peers[1:])]
        for n, python in enumerate(pythons):
            python.request(queue, 'put', n)
        self.settled()
        self.assertFalse(any(c.answered() for c in [first] + calls))
        self.assertTrue(all(self.quiet(p.sock) for p in pythons))
        self.open_gate()
        for call in [first] + calls:
            call.result()
        for python in pythons:
            self.assertIsNone(python.result())
        after = peers[0].stats()
        self.assertEqual(after['puts'] - before['puts'], 40)
        self.assertEqual(after['log_syncs'] - before['log_syncs'], 2)
        self.assertEqual(after['tasks'], 40)

    def test_order_of_one_connection(self):
        """Replies of later turns stand behind those that wait; none overtakes another."""
        self.start()
        native = self.native()
        self.close_gate()
        calls = [native.start('put', q='task_queue', tasks=[[0]])]
        self.wait_blocked()
        for n in range(1, 30):
            calls.append(native.start('put', q='task_queue', tasks=[[n]]))
            calls.append(native.start('stats', q='task_queue'))
            self.settled()
        self.assertFalse(any(c.answered() for c in calls))
        self.open_gate()
        ids = [call.result()['ids'][0] for call in calls if call.method == 'put']
        self.assertEqual(ids, sorted(ids))
        sizes = [call.result()['ready'] for call in calls if call.method == 'stats']
        self.assertEqual(sizes, list(range(2, 31)))

    def test_killed_while_it_waits(self):
        """What was not answered is there or not; here the write was done, so kill -9 leaves it there."""
        self.start()
        native = self.native()
        self.close_gate()
        call = native.start('put', q='task_queue', tasks=[['a', {'key': 'k'}]])
        self.wait_blocked()
        self.kill()
        with self.assertRaises(taskq_native.Closed):
            call.result()
        self.open_gate()
        self.start()
        self.assertEqual(len(self.native().call('put', q='task_queue', tasks=[['a', {'key': 'k'}]])['ids']), 1)
        self.assertEqual(self.native().stats('task_queue')['ready'], 1)

    def test_what_does_not_wait_for_a_sync(self):
        """Hand-outs wait for the write alone, and so does all of a queue with durability=interval; a queue with
        memory waits for nothing."""
        self.start('--log-interval', '3600', queues=['interval,durability=interval', 'memory,durability=memory'])
        native, python = self.native(), self.python()
        native.put('task_queue', 1, 2)
        interval, memory = self.queue('interval'), self.queue('memory')
        self.close_gate()
        for n in range(5):
            self.assertEqual(len(native.put('interval', n)), 1)
            self.assertEqual(len(native.put('memory', n)), 1)
            self.assertIsNone(python.call(interval, 'put', n))
            self.assertIsNone(python.call(memory, 'put', n))
        task, = native.get('task_queue')
        self.assertEqual(task.body, 1)
        self.kill()  # nothing of this was synced, all of it was written
        self.open_gate()
        self.start()
        self.assertEqual(self.native().stats('interval')['ready'], 10)
        self.assertEqual(self.native().get('task_queue')[0].attempt, 2)

    def test_python_queue_goes(self):
        """The last proxy's farewell is answered when it is on the disk that the queue has gone."""
        self.start()
        token = wire.create(self.master, 'Queue')
        with wire.Wire(self.master) as peer:
            peer.handshake()
            self.close_gate()
            peer.request(None, 'decref', token)
            self.wait_blocked()
            self.settled()
            self.assertTrue(self.quiet(peer.sock))
            self.kill()
        self.open_gate()
        self.start()  # all that was written is there
        self.assertEqual(self.recovered()['queues'], '2')
        self.assertEqual(wire.control(self.master, 'decref', token)[0], '#TRACEBACK')

    def test_dead_while_it_waits(self):
        """A client that dies with its reply held back: nobody else waits for it, and what it was to get goes
        back, not handed out to anybody."""
        self.start()
        native, python = self.native(), self.python()
        queue = self.queue('task_queue')
        native.put('task_queue', 'x')
        self.close_gate()
        other = native.start('put', q='result_queue', tasks=[['y']])
        self.wait_blocked()
        python.request(queue, 'get')
        self.settled()
        self.assertTrue(self.quiet(python.sock))
        python.reset()
        self.settled()
        self.open_gate()
        other.result()
        task, = native.get('task_queue', wait_ms=60000)
        self.assertEqual((task.body, task.attempt), ('x', 1))

    def test_connections_go_on(self):
        """The handshake is answered whatever the disk does."""
        self.start()
        native = self.native()
        self.close_gate()
        call = native.start('put', q='task_queue', tasks=[['a']])
        self.wait_blocked()
        self.settled()
        self.assertFalse(call.answered())
        self.open_gate()
        call.result()


class Backpressure(GateCase):

    GROUP_BYTES = 1 << 18

    def test_reading_stops(self):
        """A disk that stands still: the master takes in so much and no more, whatever is sent, and loses nothing
        of it; then it goes on."""
        self.start('--log-group-bytes', str(self.GROUP_BYTES))
        native = self.native()
        body = b'x' * 50000
        self.close_gate()
        calls = [native.start('put', q='task_queue', tasks=[['first']])]
        self.wait_blocked()
        sent = []

        def send():
            for _ in range(400):  # 20 MB
                sent.append(native.start('put', q='task_queue', tasks=[[body]]))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        # it takes what it may have, and a frame's rest; then the sender's socket is full
        last = [None]

        def stands():
            before, last[0] = last[0], len(sent)
            return before == last[0] and before > self.GROUP_BYTES // len(body) and \
                not select.select([], [native.frames.sock], [], 0)[1]
        poll_until(stands, 'the sender is held up')
        self.settled()  # others still get in
        self.assertTrue(sender.is_alive())
        taken = harness.proc_status(self.master.pid, 'VmRSS')
        self.assertFalse(any(c.answered() for c in calls + sent))
        self.open_gate()
        sender.join(60)
        self.assertFalse(sender.is_alive())
        for call in calls + sent:
            self.assertEqual(len(call.result()['ids']), 1)
        self.assertEqual(native.stats('task_queue')['ready'], 401)
        self.assertLess(taken, harness.memory_bound(64 << 20))

    def test_many_peers(self):
        """Peers of both dialects that were not read from go on when it is over."""
        self.start('--log-group-bytes', '65536')
        natives = [self.native() for _ in range(10)]
        pythons = [self.python('thread-%d' % n) for n in range(10)]
        queue = self.queue('task_queue')
        self.close_gate()
        calls = [natives[0].start('put', q='task_queue', tasks=[['first']])]
        self.wait_blocked()
        calls.append(natives[0].start('put', q='task_queue', tasks=[[b'x' * 70000]]))
        self.settled()
        for n, native in enumerate(natives):  # they wait in their sockets
            calls.append(native.start('put', q='task_queue', tasks=[[n]]))
        for n, python in enumerate(pythons):
            python.request(queue, 'put', n)
        self.settled()
        self.open_gate()
        for call in calls:
            call.result()
        for python in pythons:
            self.assertIsNone(python.result())
        self.assertEqual(natives[0].stats('task_queue')['ready'], 22)


    def test_nobody_is_silent_meanwhile(self):
        """Whoever is not read from cannot be heard: it keeps its connection and its leases, for longer than its
        silence and its grace are, and one that has just come may wait with its first request."""
        self.start('--log-group-bytes', '65536', '--preauth-timeout', '5', '--first-request-timeout', '1',
                   queues=['work,grace_ms=1000', 'short,lease_ms=1000'])
        worker, gone, other = self.native(worker='w', heartbeat_ms=1000), self.native(worker='gone'), self.native()
        other.put('work', 'a')
        other.put('short', 'b')
        task, = worker.get('work')
        short, = worker.get('short')
        waits = [other.start('get', q=q, max=1, wait_ms=-1) for q in ('work', 'short')]
        filler = self.native()
        self.close_gate()
        calls = [filler.start('put', q='task_queue', tasks=[['first']])]
        self.wait_blocked()
        calls.append(filler.start('put', q='task_queue', tasks=[[b'x' * 70000]]))
        self.settled()
        extended = worker.start('extend', leases=[[short.id, short.epoch]], ms=60000)
        with wire.Wire(self.master) as first, wire.Wire(self.master) as clock:
            first.handshake()
            first.request(None, 'dummy')
            clock.receive_challenge()
            self.assertEqual(clock.rest(), b'')  # five seconds are over
            self.assertFalse(any(c.answered() for c in calls + [extended]))
            self.open_gate()
            for call in calls:
                call.result()
            self.assertEqual(first.reply(), ('#RETURN', None))
        self.assertEqual(extended.result(), {'ok': 1})
        self.assertEqual(worker.done([(task, 'A'), (short, 'B')]), {'ok': 2})
        self.assertFalse(any(c.answered() for c in waits))
        self.assertNotIn('WORKER-SILENT', self.master.stderr)
        self.assertFalse(gone.ended.is_set())


class Clock(GateCase):

    def test_set_back(self):
        """A log from the future: the master's clock goes on from there, never back, and says so."""
        self.start()
        native = self.native()
        kept, = native.put('task_queue', 'x', delay_ms=3600 * 1000)
        due = [t['due_ms'] for t in native.tasks('task_queue')]
        last = native.ping()
        self.stop()
        self.assertNotIn('CLOCK-BACK', self.master.stderr)
        self.start(later_s=-1000)
        behind = int(self.master.expect_stderr(r' CLOCK-BACK by_ms=(\d+): ').group(1))
        self.assertIn(behind, range(900000, 1000001))
        native = self.native()
        self.assertGreaterEqual(native.ping(), last)
        self.assertEqual([t['due_ms'] for t in native.tasks('task_queue')], due)
        self.again(later_s=4000)  # and in the far future what is due is due
        self.assertNotIn('CLOCK-BACK', self.master.stderr)
        task, = self.native().get('task_queue', wait_ms=60000)
        self.assertEqual(task.id, kept)


class Failing(GateCase):

    def test_failed_sync(self):
        """The first sync that fails ends the process, loudly, and no OK is sent after it."""
        self.start()
        native, python = self.native(), self.python()
        queue = self.queue('task_queue')
        native.put('task_queue', 'safe')
        self.close_gate()
        calls = [native.start('put', q='task_queue', tasks=[['a']])]
        self.wait_blocked()
        calls.append(native.start('put', q='task_queue', tasks=[['b']]))
        python.request(queue, 'put', 'c')
        self.settled()
        self.master.stopped = True
        self.mark('fails')
        self.open_gate()
        self.assertEqual(self.master.wait(), 1, self.master.describe())
        self.assertRegex(self.master.stderr, r' error LOG-FAILED err="[^"]*\.log[^"]*": .*remedy: ')
        for call in calls:
            with self.assertRaises(taskq_native.Closed):
                call.result()
        with self.assertRaises(wire.Closed):
            python.result()
        os.remove(os.path.join(self.gate, 'fails'))
        self.start()
        bodies = [t.body for t in self.native().get('task_queue', max=10)]
        self.assertEqual(bodies[0], 'safe')

    def test_failing_from_the_start(self):
        """Not even a ready line."""
        self.mark('fails')
        process = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:0', '--data-dir', self.folder],
                                  env=harness.clean_env(LD_PRELOAD=GATE, SYNC_GATE=self.gate,
                                                        ASAN_OPTIONS='verify_asan_link_order=0'))
        self.addCleanup(process.clear)
        self.assertEqual(process.wait(), 1)
        self.assertEqual(process.stdout, '')
        self.assertIn('task-master: ', process.stderr)


class Stopping(GateCase):

    def test_replies_drain(self):
        """SIGTERM while replies wait for the disk: they go out, then it ends."""
        self.start('--drain-timeout', '60')
        native = self.native()
        self.close_gate()
        call = native.start('put', q='task_queue', tasks=[['a']])
        self.wait_blocked()
        self.master.stopped = True
        self.master.signal(signal.SIGTERM)
        self.master.expect_stderr(' STOP why="SIGTERM"')
        self.open_gate()
        self.assertEqual(len(call.result()['ids']), 1)
        self.assertEqual(self.master.wait(), 0)
        self.assertIn(' LOG-CLOSED ', self.master.stderr)

    def test_second_signal(self):
        """It waits for nobody any more, but for the log."""
        self.start('--drain-timeout', '600')
        native = self.native()
        self.close_gate()
        call = native.start('put', q='task_queue', tasks=[['a']])
        self.wait_blocked()
        self.master.stopped = True
        self.master.signal(signal.SIGTERM)
        self.master.expect_stderr(' STOP why="SIGTERM"')
        self.master.signal(signal.SIGTERM)
        self.assertTrue(native.ended.wait(60))
        self.assertTrue(self.master.alive())
        self.assertNotIn(' LOG-CLOSED ', self.master.stderr)
        self.master.signal(signal.SIGTERM)  # and a third one does not kill it
        self.master.signal(signal.SIGINT)
        self.open_gate()
        self.assertEqual(self.master.wait(), 0)
        self.assertIn(' LOG-CLOSED ', self.master.stderr)
        with self.assertRaises(taskq_native.Closed):
            call.result()
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'cleanly')
        self.assertEqual(self.native().stats('task_queue')['ready'], 1)

    def test_timeout(self):
        self.start('--drain-timeout', '0', '--stop-timeout', '0.2')
        native = self.native()
        self.close_gate()
        native.start('put', q='task_queue', tasks=[['a']])
        self.wait_blocked()
        self.master.stopped = True
        self.master.signal(signal.SIGTERM)
        self.assertEqual(self.master.wait(), 1)
        self.assertRegex(self.master.stderr, r' error STOP-TIMEOUT seconds=0\.2: .*--stop-timeout')
        self.assertNotIn(' LOG-CLOSED ', self.master.stderr)
        self.open_gate()
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'suddenly')


if __name__ == '__main__':
    harness.main()
