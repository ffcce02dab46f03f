"""A master with a data directory that is killed or stopped, and started again: what is there, in both dialects;
what is refused; what becomes of damaged files."""
import os
import re
import shutil
import signal
import struct
import unittest

import durable
import harness
import wire
from durable import DurableCase, taskq_native
from harness import expand, old_middle_new, per_interpreter, poll_until

HOUR_MS = 3600 * 1000


@expand
class StockPython(DurableCase):

    @per_interpreter(old_middle_new)
    def test_items(self, interpreter):
        """Items of all kinds, small and large, in their order, out of the hands of a stock Python."""
        self.start()
        self.run_client(interpreter, 'durable_items.py', 'put', 40, server=self.master)
        self.again()
        self.assertEqual(self.recovered()['tasks'], '40')
        self.assertEqual(self.run_client(interpreter, 'durable_items.py', 'get', 40, server=self.master),
                         ['get 40 0'])
        self.again()
        # the last one was acknowledged by the clean exit
        self.assertEqual(self.recovered()['tasks'], '0')


class Kept(DurableCase):

    def bodies(self, client, q, count):
        return [task.body for task in client.get(q, max=count)]

    def test_order(self):
        self.start(queues=['stack,kind=lifo', 'heap,kind=priority'])
        native, python = self.native(), self.python()
        native.put('task_queue', *range(50))
        native.put('stack', *range(50))
        for n in (5, 1, 4):
            native.put('heap', n, priority=n)
        python.call(self.queue('heap'), 'put', (2, 'b'))
        python.call(self.queue('heap'), 'put', (2, 'a'))
        a, b, c = native.get('task_queue', max=3)
        native.release([c])
        native.release([b])  # each comes to the front
        self.again()  # a is in no session's hands any more, and comes back before them
        native = self.native()
        self.assertEqual(self.bodies(native, 'task_queue', 60), [0, 1, 2] + list(range(3, 50)))
        self.assertEqual(self.bodies(native, 'stack', 60), list(range(49, -1, -1)))
        self.assertEqual(self.bodies(native, 'heap', 60), [[2, 'a'], [2, 'b'], 1, 4, 5])

    def test_results(self):
        """Results in a queue, results that are kept, and what is told of them."""
        self.start(queues=['quiet,retention_ms=1h'])
        submitter, worker = self.native(), self.native(worker='w')
        first, second = submitter.put('task_queue', 3, 4, trace='00-trace')
        kept, = submitter.put('quiet', 'x')
        for task in worker.get('task_queue', max=2):
            worker.done([(task, task.body ** 2)])
        task, = worker.get('quiet')
        worker.done([(task, {'answer': 42})])
        before = submitter.wait(id=kept)['result']
        self.again()
        submitter = self.native()
        results = submitter.get('result_queue', max=5)
        self.assertEqual([(r.id, r.body) for r in results], [(first, 9), (second, 16)])
        info = results[0].info
        self.assertEqual((info['outcome'], info['worker'], info['from'], info['trace']),
                         ('ok', 'w', 'task_queue', '00-trace'))
        self.assertEqual(submitter.wait(id=kept)['result'], before)
        self.assertEqual(before['value'], {'answer': 42})

    def test_python_result_ends_its_task(self):
        """What a stock worker puts is the result of the task in its hand, in one record."""
        self.start()
        task_id, = self.native().put('task_queue', 7)
        python = self.python()
        self.assertEqual(python.call(self.queue('task_queue'), 'get'), 7)
        python.call(self.queue('result_queue'), 'put', '7 * 7 = 49')
        self.again()
        result, = self.native().get('result_queue', max=5)
        self.assertEqual((result.id, result.body, result.info['outcome']), (task_id, '7 * 7 = 49', 'ok'))
        self.assertEqual(self.native().stats('task_queue')['ready'], 0)

    def test_keys(self):
        """A put that is repeated after the restart has its first id, or its result."""
        self.start()
        native = self.native()
        put = {'q': 'task_queue', 'tasks': [['a', {'key': 'order-1'}], ['b', {'key': 'order-2'}]]}
        ids = native.call('put', **put)['ids']
        task, = native.get('task_queue')
        native.done([(task, 'made')])
        self.again()
        native = self.native()
        again = native.call('put', **put)
        self.assertEqual(again['ids'], ids)
        self.assertEqual(self.bodies(native, 'task_queue', 5), ['b'])
        self.assertEqual(native.wait(q='task_queue', key='order-1')['result']['value'], 'made')
        # an id is never given again
        self.assertGreater(native.put('task_queue', 'c')[0], max(ids))

    def test_delayed(self):
        self.start()
        native = self.native()
        late, = native.put('task_queue', 'late', delay_ms=HOUR_MS)
        soon, = native.put('task_queue', 'soon', delay_ms=1500)
        due = {t['id']: t['due_ms'] for t in native.tasks('task_queue')}
        self.again()
        native = self.native()
        tasks = {t['id']: t for t in native.tasks('task_queue')}
        self.assertEqual(tasks[late]['state'], 'delayed')
        self.assertEqual(tasks[late]['due_ms'], due[late])
        task, = native.get('task_queue', wait_ms=60000)
        self.assertEqual((task.id, task.body), (soon, 'soon'))

    def test_failures(self):
        """Attempts, a retry that waits, a dead letter with its reason, and its way back."""
        self.start(queues=['mail,max_attempts=2,retry_ms=1h,dead=graveyard', 'once,dead=graveyard'])
        native = self.native()
        native.put('mail', 'letter')
        dead, = native.put('once', 'parcel')
        native.fail(native.get('mail')[0], 'no such street', code=7)
        native.fail(native.get('once')[0], 'too heavy')
        self.again()
        native = self.native()
        letter, = native.tasks('mail')
        self.assertEqual((letter['state'], letter['attempt'], letter['error'], letter['code']),
                         ('delayed', 2, 'no such street', 7))
        parcel, = native.tasks('graveyard')
        self.assertEqual((parcel['id'], parcel['error'], parcel['from']), (dead, 'too heavy', 'once'))
        self.assertEqual(native.retry(ids=[dead])['ok'], 1)
        self.again()
        self.assertEqual(self.bodies(self.native(), 'once', 5), ['parcel'])

    def test_what_goes_stays_gone(self):
        self.start(queues=['old'])
        native = self.native()
        native.put('task_queue', *range(20))
        native.put('old', 1, 2)
        removed = [t.id for t in native.get('task_queue', max=3)]
        native.remove(removed)
        native.get('task_queue', max=2, take=True)
        native.declare('brief')
        native.delete('brief')
        self.assertEqual(native.purge('old'), 2)
        self.again()
        native = self.native()
        self.assertEqual(self.bodies(native, 'task_queue', 30), list(range(5, 20)))
        self.assertEqual({q['q']: q['ready'] for q in native.queues()},
                         {'task_queue': 0, 'result_queue': 0, 'old': 0})
        self.assertEqual(native.stats('old')['dropped'], 2)

    def test_leases_of_native_workers(self):
        """After kill -9 and after SIGTERM: the worker comes back with its token, and hands in what it has."""
        for end in (self.again, lambda: (self.stop(), self.start())):
            with self.subTest(end=end):
                self.start()
                worker = self.native(worker='w')
                ids = worker.put('task_queue', 'a', 'b', 'c')
                tasks = worker.get('task_queue', max=2)
                end()
                self.assertEqual(self.recovered()['leased'], '2')
                back = self.resume(worker)
                self.assertTrue(back.hello['resumed'])
                self.assertEqual(back.leases, {t.id: t.epoch for t in tasks})
                self.assertEqual(back.done([(t, t.body.upper()) for t in tasks])['ok'], 2)
                results = self.native().get('result_queue', max=5)
                self.assertEqual([(r.id, r.body, r.info['attempt']) for r in results],
                                 [(ids[0], 'A', 1), (ids[1], 'B', 1)])
                self.stop()
                shutil.rmtree(self.folder)

    def test_hands_of_python(self):
        """A Python session is its connection: what it had goes to the front, attempt + 1."""
        self.start()
        python = self.python()
        for n in range(3):
            python.call(self.queue('task_queue'), 'put', n)
        self.assertEqual(python.call(self.queue('task_queue'), 'get'), 0)
        self.again()
        tasks = self.native().get('task_queue', max=5)
        self.assertEqual([(t.body, t.attempt) for t in tasks], [(0, 2), (1, 1), (2, 1)])

    def test_hands_at_a_stop(self):
        """A master that stops in good order is no attempt of whoever had something in hand, however often."""
        self.start(queues=['once,max_deliveries=1'])
        self.python().call(self.queue('once'), 'put', 'a')
        for _ in range(3):
            native = self.native()
            self.python().request(self.queue('once'), 'get')
            poll_until(lambda: native.stats('once')['leased'] == 1, 'it is handed out')
            self.stop()
            self.start()
        self.assertEqual([(t.body, t.attempt) for t in self.native().get('once')], [('a', 1)])

    def test_clean_stop(self):
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'never')
        self.native().put('task_queue', *range(10))
        self.stop()
        self.assertIn(' ITEMS-KEPT items=10 ', self.master.stderr)
        self.assertIn(' LOG-CLOSED ', self.master.stderr)
        self.assertNotIn('ITEMS-DROPPED', self.master.stderr)
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'cleanly')
        self.assertEqual(self.bodies(self.native(), 'task_queue', 20), list(range(10)))
        self.again()
        self.assertEqual(self.recovered()['stopped'], 'suddenly')

    def test_many_lives(self):
        """Small segments: the log goes round, its files are used again, and it stays small."""
        options = ('--log-segment-bytes', '65536')
        self.start(*options)
        kept = self.native().put('task_queue', 'stays', delay_ms=HOUR_MS)
        for life in range(6):
            native = self.native()
            for _ in range(40):
                native.put('task_queue', *[b'x' * 500] * 20)
                tasks = native.get('task_queue', max=20)
                self.assertEqual(len(tasks), 20)
                native.done([(t,) for t in tasks])
                native.get('result_queue', max=20, take=True)
            self.assertLess(native.stats()['disk_bytes'], 8 * 65536)
            self.again(*options)
            task, = self.native().tasks('task_queue')
            self.assertEqual(task['id'], kept[0])
        self.assertLess(sum(os.path.getsize(os.path.join(self.folder, f)) for f in os.listdir(self.folder)),
                        10 * 65536)

    def test_half_closed(self):
        """A client that sends nothing more gets the reply of what it sent, which waits for the disk."""
        self.start()
        native = self.native()
        call = native.start('put', q='task_queue', tasks=[['last words']])
        native.frames.sock.shutdown(taskq_native.socket.SHUT_WR)
        self.assertEqual(len(call.result()['ids']), 1)
        self.assertEqual(native.notice(), (None, {}))

    def test_demo(self):
        self.start('--demo', '3')
        python = self.python()
        for _ in range(3):
            n = python.call(self.queue('task_queue'), 'get', timeout=30)
            python.call(self.queue('result_queue'), 'put', '%d is a number' % n)
        self.master.expect('^master exit')
        self.master.stopped = True
        self.assertEqual(self.master.wait(), 0)


class Queues(DurableCase):

    def policies(self, q):
        return self.native().stats(q)['policies']

    def test_declared_while_it_ran(self):
        self.start()
        native = self.native()
        native.declare('mail', kind='priority', ack='explicit', maxsize=7, full='reject', max_attempts=5,
                       dead='grave', lease_ms=1234, ttl_ms=2 ** 40, rate_per_s=9, durability='interval')
        native.declare('task_queue', update=True, max_attempts=3)
        native.pause('mail')
        before = self.policies('mail')
        self.again()
        self.assertEqual(self.policies('mail'), before)
        self.assertTrue(before['paused'])
        self.assertEqual(self.policies('task_queue')['max_attempts'], 3)
        self.assertEqual(self.policies('task_queue')['result'], 'result_queue')
        self.assertEqual(self.python().call(self.queue('mail'), 'qsize'), 0)  # Python finds it, too

    def test_command_line(self):
        """A queue keeps what it has, unless the command line names it."""
        self.start(queues=['a,max_attempts=5', 'b,max_attempts=5'])
        self.native().put('a', 'kept')
        self.again(queues=['a,max_attempts=2,typeid=also_a'])
        self.assertEqual(self.policies('a')['max_attempts'], 2)
        self.assertEqual(self.policies('b')['max_attempts'], 5)
        self.assertEqual(self.python().call(wire.create(self.master, 'also_a'), 'get'), 'kept')

    def test_another_kind(self):
        """Only of a queue that is empty."""
        self.start(queues=['a'])
        self.native().put('a', 1)
        self.kill()
        for option in ('a,kind=lifo', 'a,ack=get'):
            said = self.refused('--data-dir', self.folder, '--queue', option)
            self.assertRegex(said, r'--queue a,.*1 tasks are in it.*kind=fifo,ack=auto')
        self.start()
        self.native().get('a', take=True)
        self.again(queues=['a,kind=lifo,ack=get'])
        self.assertEqual(self.policies('a')['kind'], 'lifo')
        self.again()
        self.assertEqual(self.policies('a')['ack'], 'get')

    def test_names_taken(self):
        self.start(queues=['get_a'])
        self.stop()
        self.assertRegex(self.refused('--data-dir', self.folder, '--queue', 'a'), "'a' is taken by another queue")
        self.start()

    def test_made_by_python(self):
        """manager.Queue(): its ident goes on, and the first decref does not take it from others."""
        self.start()
        token = wire.create(self.master, 'Queue', 5)
        python = self.python()
        python.call(token, 'put', 'in it')
        self.again()
        python = self.python()
        self.assertEqual(python.call(token, 'qsize'), 1)
        wire.control(self.master, 'incref', token)
        wire.control(self.master, 'decref', token)
        self.assertEqual(python.call(token, 'get'), 'in it')
        # who holds it is not known any more: it goes when nobody has used it for a week
        made, = [q for q in self.native().queues() if q['q'].startswith('made-')]
        self.assertEqual((made['policies']['expires_ms'], made['policies']['maxsize']), (7 * 24 * HOUR_MS, 5))

    def test_join(self):
        """task_done counts against what was put before the restart."""
        self.start()
        python = self.python()
        for n in range(3):
            python.call(self.queue('task_queue'), 'put', n)
        self.again()
        python, waits = self.python(), self.python('waits')
        waits.request(self.queue('task_queue'), 'join')
        for _ in range(3):
            python.call(self.queue('task_queue'), 'get')
            python.call(self.queue('task_queue'), 'task_done')
        self.assertIsNone(waits.result())

    def test_durability(self):
        """Queues beside each other, each with its own."""
        self.start(queues=['memory,durability=memory', 'interval,durability=interval'])
        for q in ('task_queue', 'memory', 'interval'):
            self.assertRegex(self.master.stderr, ' QUEUE name=%s .* durability=%s ' % (
                q, {'task_queue': 'fsync'}.get(q, q)))
        self.assertIn('MODE durability=fsync data_dir=', self.master.stderr)
        native = self.native()
        for q in ('task_queue', 'memory', 'interval'):
            native.put(q, 1, 2)
        self.again()
        native = self.native()
        self.assertEqual({q['q']: q['ready'] for q in native.queues()},
                         {'task_queue': 2, 'result_queue': 0, 'interval': 2, 'memory': 0})
        self.assertEqual(self.policies('memory')['durability'], 'memory')
        native.put('memory', 3)
        self.stop()
        self.assertIn(' ITEMS-KEPT items=4 ', self.master.stderr)
        self.assertIn(' ITEMS-DROPPED items=1: ', self.master.stderr)

    def test_default_durability(self):
        self.start('--durability', 'interval', queues=['a', 'b,durability=fsync'])
        native = self.native()
        native.declare('c')
        wire.create(self.master, 'Queue')
        self.assertEqual({q['q'].partition('-')[0]: q['policies']['durability'] for q in native.queues()},
                         {'task_queue': 'interval', 'result_queue': 'interval', 'a': 'interval', 'b': 'fsync',
                          'c': 'interval', 'made': 'interval'})

    def test_memory_mode_says_so(self):
        master = self.master = self.start_master()
        native = self.native()
        self.assertIn('MODE durability=memory: ', master.stderr)
        self.assertEqual(self.policies('task_queue')['durability'], 'memory')
        native.declare('a', durability='memory')
        for word in ('fsync', 'interval'):
            with self.assertRaises(taskq_native.Error) as raised:
                native.declare('b', durability=word)
            self.assertEqual(raised.exception.code, 'refused')
            self.assertIn('--data-dir', raised.exception.text)
        native.put('task_queue', 1)
        self.stop_master(master)
        self.assertIn(' ITEMS-DROPPED items=1: ', master.stderr)


class Directories(DurableCase):

    def test_second_master(self):
        self.start()
        said = self.refused('--data-dir', self.folder)
        self.assertRegex(said, r'another task-master \(pid %d\) uses it; ' % self.master.pid)
        self.assertRegex(self.refused('--log-check', self.folder), 'another task-master')
        self.native().put('task_queue', 'the first one goes on')

    def test_modes_and_links(self):
        self.start()
        self.stop()
        os.chmod(self.folder, 0o770)
        self.assertRegex(self.refused('--data-dir', self.folder), r'others may write to it \(mode 0770\); chmod 700')
        os.chmod(self.folder, 0o700)
        link = os.path.join(self.temp, 'link')
        os.symlink(self.folder, link)
        self.assertRegex(self.refused('--data-dir', link), 'symbolic link')
        segment = self.segments()[0]
        os.chmod(segment, 0o666)
        self.assertIn(os.path.basename(segment), self.refused('--data-dir', self.folder))
        os.chmod(segment, 0o600)
        os.rename(segment, segment + '.away')
        os.symlink(segment + '.away', segment)
        self.assertIn(os.path.basename(segment), self.refused('--data-dir', self.folder))
        os.rename(segment + '.away', segment)
        self.start()

    def test_what_is_no_folder(self):
        path = os.path.join(self.temp, 'file')
        with open(path, 'w') as f:
            f.write('not a folder')
        self.assertRegex(self.refused('--data-dir', path), 'ot a directory')
        self.assertRegex(self.refused('--data-dir', os.path.join(self.temp, 'no', 'where')), 'cannot be made')
        self.assertRegex(self.refused('--data-dir', '/proc/taskq'), 'cannot be made')
        self.assertRegex(self.refused('--log-check', os.path.join(self.temp, 'nothing')), 'cannot be opened')
        self.assertFalse(os.path.exists(os.path.join(self.temp, 'nothing')))

    def test_no_log(self):
        os.mkdir(self.folder, 0o700)
        self.assertIn('there is no log in it', self.refused('--log-check', self.folder))

    def test_owner(self):
        if os.geteuid() != 0:  # cannot give one away: somebody else's, then
            self.assertRegex(self.refused('--data-dir', '/'), 'it belongs to user 0, |cannot be')
            return
        self.start()
        self.stop()
        names = [self.folder] + [os.path.join(self.folder, f) for f in os.listdir(self.folder)]
        for name in names:
            os.chown(name, 4711, 4711)
        self.assertRegex(self.refused('--data-dir', self.folder), 'it belongs to user 4711, ')
        # root may look at it, as its owner
        self.assertIn('0 damaged places', self.refused('--log-check', self.folder, status=0))
        for name in names:
            if name != self.segments()[0]:
                os.chown(name, 0, 0)
        self.assertIn(os.path.basename(self.segments()[0]), self.refused('--data-dir', self.folder))

    def test_usage(self):
        for options, said in ((['--data-dir', self.folder, '--memory'], 'contradict'),
                              (['--durability', 'fsync'], 'give --data-dir'),
                              (['--queue', 'a,durability=interval'], 'give --data-dir'),
                              (['--durability', 'always'], 'fsync, interval or memory'),
                              (['--log-check', 'a', '--log-repair', 'b'], 'one at a time')):
            with self.subTest(options=options):
                self.assertIn(said, self.refused(*options, status=2))

    def test_port_that_is_taken(self):
        """The directory was opened, and is left in good order."""
        self.start()
        other = os.path.join(self.temp, 'other')
        process = harness.Process([harness.TASK_MASTER, '--data-dir', other, '--listen',
                                   '127.0.0.1:%d' % self.master.port])
        self.addCleanup(process.clear)
        self.assertEqual(process.wait(), 1)
        self.assertIn('another program has it', process.stderr)
        self.assertIn(' LOG-CLOSED ', process.stderr)


class Damage(DurableCase):

    def filled(self, puts=30):
        """A master that was killed after so many puts, each in a record of its own."""
        self.start()
        native = self.native()
        for n in range(puts):
            native.put('task_queue', 'task %d' % n)
        self.kill()
        path, = self.segments()
        return path, self.records(path)

    def test_torn_end(self):
        """The last record is cut short: it is as if it had never come, and the log goes on behind the others."""
        path, records = self.filled()
        offset, index, size = records[-1]
        self.overwrite(path, offset + size // 2, bytes(size - size // 2))
        self.start()
        cut = self.master.expect_stderr(r' LOG-CUT file=(\S+) offset=(\d+) bytes=(\d+) why="(.+)"')
        self.assertEqual((cut.group(1), int(cut.group(2))), (os.path.basename(path), offset))
        native = self.native()
        self.assertEqual([t.body for t in native.get('task_queue', max=50)], ['task %d' % n for n in range(29)])
        native.put('task_queue', 'goes on')
        self.again()
        self.assertNotIn('LOG-CUT', self.master.stderr)
        self.assertEqual(self.recovered()['tasks'], '30')

    def test_flipped_byte(self):
        path, records = self.filled()
        offset, index, _ = records[len(records) // 2]
        self.flip(path, offset + durable.RECORD_HEADER_BYTES + 3)
        before = open(path, 'rb').read()
        for _ in range(2):
            said = self.refused('--data-dir', self.folder)
            self.assertIn(os.path.basename(path), said)
            self.assertRegex(said, r'\b%d\b' % offset)
        self.assertEqual(open(path, 'rb').read(), before)

    def check(self, verb='--log-check'):
        process = harness.Process([harness.TASK_MASTER, verb, self.folder])
        self.addCleanup(process.clear)
        status = process.wait()
        self.assertIsNone(harness.BROKEN.search(process.stderr), process.describe())
        return status, [dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line)) for line in process.lines()], process.stderr

    def test_check_and_repair(self):
        path, records = self.filled()
        status, found, said = self.check()
        self.assertEqual((status, found), (0, []), said)
        offset, index, _ = records[len(records) // 2]
        self.flip(path, offset + durable.RECORD_HEADER_BYTES + 3)
        before = open(path, 'rb').read()
        status, found, said = self.check()
        self.assertEqual(status, 1, said)
        self.assertEqual([(f['file'], int(f['offset']), int(f['first_index'])) for f in found],
                         [(os.path.basename(path), offset, index)])
        self.assertEqual(open(path, 'rb').read(), before)
        self.assertEqual(self.refused('--data-dir', self.folder).count('\n'), 0)
        status, found, said = self.check('--log-repair')
        self.assertEqual(status, 0, said)
        self.assertEqual(int(found[0]['offset']), offset)
        sides = [f for f in os.listdir(self.folder) if f.endswith('.cut')]
        self.assertEqual(len(sides), 1)
        with open(os.path.join(self.folder, sides[0]), 'rb') as f:
            side = f.read()
        end = records[-1][0] + records[-1][2]
        self.assertEqual(side[:end - offset], before[offset:end])
        self.assertEqual(self.check()[0], 0)
        self.start()
        tasks = [t.body for t in self.native().get('task_queue', max=50)]
        self.assertEqual(tasks, ['task %d' % n for n in range(len(tasks))])
        self.assertIn(len(tasks), range(10, 20))
        status, found, said = self.check()
        self.assertEqual(status, 1)
        self.assertIn('another task-master', said)

    def test_tasks_without_their_queue(self):
        """What a log tells of tasks, but no longer of their queue, is dropped, and a word is said of it."""
        self.start()
        native = self.native()
        native.declare('lost_queue')
        native.put('lost_queue', 1, 2, 3)
        native.put('task_queue', 4)
        self.kill()
        path, = self.segments()
        self.assertTrue(self.silence(path, b'lost_queue'))
        self.start()
        self.master.expect_stderr(r' warn ORPHANS-DROPPED tasks=3: ')
        native = self.native()
        self.assertEqual(native.stats()['recovered_orphans'], 3)
        self.assertEqual(sorted(q['q'] for q in native.queues()), ['result_queue', 'task_queue'])
        self.assertEqual([t.body for t in native.get('task_queue', max=5)], [4])

    def silence(self, path, words):
        """Records with these words say nothing any more (type 4); how many."""
        with open(path, 'rb') as f:
            data = f.read()
        seed = durable.crc32c(data[16:40])
        count = 0
        for at, _, size in self.records(path):
            if words not in data[at:at + size]:
                continue
            record = bytearray(data[at:at + durable.RECORD_HEADER_BYTES + struct.unpack_from('<I', data, at)[0]])
            crc, = struct.unpack_from('<I', record, 4)
            struct.pack_into('<I', record, 4, 0)
            self.assertEqual(durable.crc32c(record, seed), crc)
            struct.pack_into('<H', record, 32, 4)
            struct.pack_into('<I', record, 4, durable.crc32c(record, seed))
            self.overwrite(path, at, record)
            count += 1
        return count

    def test_missing_and_short_files(self):
        path, records = self.filled()
        spares = [f for f in os.listdir(self.folder) if f.endswith('.spare')]
        away = os.path.join(self.temp, 'away')
        os.rename(path, away)
        self.assertNotEqual(self.refused('--data-dir', self.folder), '')
        shutil.copy(away, path)
        os.chmod(path, 0o600)
        os.truncate(path, records[-1][0])
        self.assertIn(os.path.basename(path), self.refused('--data-dir', self.folder))
        os.rename(away, path)
        self.assertGreater(len(spares), 0)
        self.start()
        self.assertEqual(self.recovered()['tasks'], '30')

    def test_newer_version(self):
        path, _ = self.filled(1)
        self.overwrite(path, 8, struct.pack('<I', 2))
        self.assertIn(os.path.basename(path), self.refused('--data-dir', self.folder))


class Stopping(DurableCase):

    def test_signals_that_come_late(self):
        """However many, and whenever they come: they do not kill a stop that is under way."""
        for _ in range(5):
            self.start()
            self.native().put('task_queue', 1)
            self.master.stopped = True
            while self.master.alive():
                self.master.signal(signal.SIGTERM)
                self.master.signal(signal.SIGINT)
                self.master.signal(signal.SIGHUP)
            self.assertEqual(self.master.wait(), 0, self.master.describe())
            self.assertIn(' LOG-CLOSED ', self.master.stderr)


if __name__ == '__main__':
    harness.main()
