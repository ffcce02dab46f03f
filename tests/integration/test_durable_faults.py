"""A disk that fails, is slow, or gives less than it was asked for; the log's thread alone stopped; a directory that
cannot be read. Disks that fill up: test_durable_full.py; kills in the middle of it all: test_durable_rounds.py."""
import errno
import os
import re
import signal
import subprocess
import threading

import disk
import harness
import wire
from durable import taskq_native
from harness import poll_until

BODY = b'x' * 1000


class Putter(threading.Thread):
    """Puts numbers one after the other until the master is gone; `acknowledged` has those that were answered."""

    def __init__(self, client, first):
        super().__init__(daemon=True)
        self.client = client
        self.first = first
        self.acknowledged = []
        self.failure = None
        self.stopping = False
        self.start()

    def run(self):
        n = self.first
        try:
            while not self.stopping:
                self.client.put('task_queue', [n, BODY])
                self.acknowledged.append(n)
                n += 1
        except (taskq_native.Closed, OSError):
            pass
        except Exception as error:  # looked at by ended()
            self.failure = error

    def ended(self):
        self.join(harness.DEADLINE_S)
        if self.is_alive() or self.failure:
            raise AssertionError('a put: %s' % (self.failure or 'no answer'))
        return self.acknowledged


class LoadCase(disk.FaultyCase):

    def put_from(self, count):
        return [Putter(self.native(), 10 ** 6 * n) for n in range(count)]

    def numbers(self):
        """All that is there, in the order of each producer."""
        found, client = [], self.native()
        while True:
            tasks = client.get('task_queue', max=1000, take=True)
            if not tasks:
                return found
            found += [task.body[0] for task in tasks]

    def check(self, putters):
        """All that was acknowledged is there, in its order, and at most one more of each producer."""
        found = self.numbers()
        for putter in putters:
            own = [n for n in found if n // 10 ** 6 == putter.first // 10 ** 6]
            told = putter.ended()
            self.assertIn(own, (told, told + [putter.first + len(told)]))
        self.assertEqual(len(found), len(set(found)))


class Failing(LoadCase):
    """The n-th call fails, and all of its kind behind it. When a sync does, what it was for is gone: had it been
    acknowledged, it would be missed."""

    def fails(self, kinds, error, counts, words):
        for n in counts:
            with self.subTest(n=n):
                self.faults.nothing()
                self.start('--log-factor', '120')
                putters = self.put_from(3)
                worker = self.native()
                poll_until(lambda: sum(len(p.acknowledged) for p in putters) > 20, 'the load is there')
                worker.get('task_queue', max=5, take=True)  # what nobody waits for is written, too
                before = sum(len(p.acknowledged) for p in putters)
                self.faults.fail(n, *kinds, error=error)
                self.master.stopped = True
                self.assertEqual(self.master.wait(), 1, self.master.describe())
                line = re.search(r' error LOG-FAILED err="([^"]*)": nothing more is acknowledged.*remedy: ',
                                 self.master.stderr)
                self.assertTrue(line, self.master.describe())
                self.assertRegex(line.group(1), words)
                self.assertIn(os.strerror(error), line.group(1))
                self.assertNotIn(' STOP why=', self.master.stderr)
                self.assertIsNone(harness.BROKEN.search(self.master.stderr), self.master.describe())
                for putter in putters:
                    putter.ended()
                self.assertGreaterEqual(sum(len(p.acknowledged) for p in putters), before)
                self.faults.nothing()
                self.start()
                found = self.numbers()
                for putter in putters:
                    own = [m for m in found if m // 10 ** 6 == putter.first // 10 ** 6]
                    told = putter.acknowledged
                    gone = own[0] - putter.first  # taken, in the order of their coming
                    self.assertLessEqual(gone, 5)
                    self.assertIn(own, (told[gone:], told[gone:] + [putter.first + len(told)]))
                self.stop()

    def test_sync(self):
        self.fails((disk.SYNC,), errno.EIO, (1, 2, 3, 7, 20), r'sync.*\.(log|spare)')

    def test_sync_no_room(self):
        """Not even then is it to be tried again: nobody knows what is on the disk."""
        self.fails((disk.SYNC,), errno.ENOSPC, (2,), r'sync.*\.(log|spare)')

    def test_write(self):
        self.fails((disk.WRITE,), errno.EIO, (1, 2, 3, 7, 20), r'write.*\.(log|spare)')

    def test_names(self):
        """Of the next segments: their allocation, their renaming, the directory's sync."""
        self.fails((disk.ALLOCATE,), errno.EIO, (1, 2), r'allocate.*\.spare')
        self.fails((disk.RENAME,), errno.EIO, (1, 2), r'rename.*\.(log|spare)')
        self.fails((disk.SYNC_DIR,), errno.EIO, (1, 2, 3), 'sync the directory')

    def test_while_it_stops(self):
        """The last sync: no word of a good end, and status 1."""
        self.start()
        putters = self.put_from(2)
        poll_until(lambda: all(len(p.acknowledged) > 5 for p in putters), 'the load is there')
        for putter in putters:
            putter.stopping = True
        for putter in putters:
            putter.ended()
        self.faults.fail(1, disk.SYNC, error=errno.EIO)
        self.master.stopped = True
        self.master.signal(signal.SIGTERM)
        self.assertEqual(self.master.wait(), 1)
        self.assertIn(' LOG-FAILED ', self.master.stderr)
        self.assertNotIn(' LOG-CLOSED ', self.master.stderr)
        self.faults.nothing()
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'suddenly')
        self.check(putters)

    def test_while_it_starts(self):
        """Whatever fails when a log is opened: it is said, nothing is served, and nothing is lost by it."""
        self.start()
        self.native().put('task_queue', *range(100))
        self.kill()
        for kind in (disk.READ, disk.WRITE, disk.SYNC, disk.SYNC_DIR):
            for n in (1, 2, 3):
                with self.subTest(kind=kind, n=n):
                    self.faults.nothing()
                    calls = self.faults.calls(kind)
                    self.faults.fail(n, kind, error=errno.EIO)
                    process = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:0', '--data-dir', self.folder,
                                               '--log-segment-bytes', str(disk.SEGMENT_BYTES)],
                                              env=harness.clean_env(**self.faults.env))
                    self.addCleanup(process.clear)
                    if n > 1:  # so many calls there may not be before it serves
                        poll_until(lambda: 'RECOVERED' in process.stderr or not process.alive(), 'it is through')
                        process.kill()
                    self.assertEqual(self.faults.calls(kind) - calls >= n, self.faults.failed > 0)
                    if self.faults.failed:
                        self.assertNotEqual(process.wait(), 0)
                    if n == 1:
                        self.assertEqual(process.wait(), 1, process.describe())
                        self.assertEqual(process.stdout, '')
                        self.assertIn(os.strerror(errno.EIO), process.stderr)
        self.faults.nothing()
        self.start()
        client = self.native()
        self.assertEqual([t.body for t in client.get('task_queue', max=200)][:100], list(range(100)))


class Less(LoadCase):

    def test_pieces(self):
        """Reads and writes that do a part of what they were asked for."""
        self.faults.pieces = 97
        self.start('--log-factor', '120')
        for _ in range(3):
            putters = self.put_from(3)
            poll_until(lambda: all(len(p.acknowledged) > 20 for p in putters), 'the load is there')
            self.again('--log-factor', '120')
            self.assertNotIn('LOG-CUT', self.master.stderr)
            self.check(putters)

    def test_clock_set_back(self):
        """A log out of the future: the master's clock goes on from there."""
        self.faults.ahead_s = 3600
        self.start()
        client = self.native()
        client.put('task_queue', 'late', delay_ms=1800 * 1000)
        client.put('task_queue', 'now', ttl_ms=60 * 1000)
        told = client.ping()
        self.faults.ahead_s = 0
        self.again()
        self.assertRegex(self.master.stderr, r' warn CLOCK-BACK by_ms=3[56]\d{5}: ')
        client = self.native()
        self.assertIn(client.ping() - told, range(0, 60 * 1000))
        self.assertEqual([t.body for t in client.get('task_queue', max=5)], ['now'])
        self.assertEqual(client.stats('task_queue')['delayed'], 1)
        self.faults.ahead_s = 3600  # and right again: it does not jump
        self.again()
        self.assertNotIn('CLOCK-BACK', self.master.stderr)
        self.faults.ahead_s = 7200
        self.again()
        self.assertEqual([t.body for t in self.native().get('task_queue', max=5, wait_ms=60000)], ['late'])


class Slow(LoadCase):
    SYNC_US = 20000

    def test_producers_share_syncs(self):
        """64 of them, each waiting for its answers: far fewer syncs than puts."""
        self.start()
        clients = [self.native() for _ in range(64)]
        self.faults.sync_us = self.SYNC_US
        before = self.faults.calls(disk.SYNC)
        failures = []

        def produce(client):
            try:
                for n in range(8):
                    client.put('task_queue', n)
            except Exception as error:  # looked at below
                failures.append(error)

        threads = [threading.Thread(target=produce, args=(client,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(harness.DEADLINE_S)
        self.assertEqual(failures, [])
        syncs = self.faults.calls(disk.SYNC) - before
        self.assertLess(syncs, 64 * 8 / 4)
        self.assertGreaterEqual(syncs, 8)  # each of a producer's puts has one of its own
        self.faults.sync_us = 0
        self.again()
        self.assertEqual(self.recovered()['tasks'], str(64 * 8))
        self.assertGreater(self.native().stats()['recovered_tasks'], 0)

    def test_stop_under_load(self):
        self.start('--drain-timeout', '1')
        putters = self.put_from(16)
        self.faults.sync_us = self.SYNC_US
        poll_until(lambda: all(len(p.acknowledged) > 3 for p in putters), 'the load is there')
        self.stop()  # within its time: its status is 0
        self.assertIn(' LOG-CLOSED ', self.master.stderr)
        self.faults.sync_us = 0
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'cleanly')
        self.check(putters)


class StoppedThread(disk.BoundedCase):
    """The thread that writes the log stands still, all else goes on."""

    def setUp(self):
        super().setUp()
        self.stopper = disk.Stopper(self.temp)
        self.addCleanup(self.stopper.go_on)

    def start(self, *options):
        return super().start(*options, env=self.stopper.env)

    def stop_log(self):
        self.stopper.stop(self.master)

    def settled(self):
        """New connections are accepted and proved, which takes turns of the loop behind all that came before."""
        for _ in range(3):
            with wire.Wire(self.master) as peer:
                peer.handshake()

    def test_nothing_is_acknowledged(self):
        """Puts, results, failures and declarations wait in both dialects; what changes nothing does not, as long as
        it tells of nothing that waits."""
        self.start('--first-request-timeout', '600')
        client, other, python = self.native(), self.native(), self.python()
        tasks = self.queue('task_queue')
        client.put('task_queue', 1, 2, 3)
        held = client.get('task_queue', max=2)
        self.stop_log()
        self.assertGreater(other.ping(), 0)
        self.assertEqual(other.stats('task_queue')['ready'], 1)
        self.assertEqual(python.call(tasks, 'qsize'), 1)
        calls = [client.start('put', q='task_queue', tasks=[['a']]),
                 client.start('done', done=[[held[0].id, held[0].epoch, 'x']]),
                 client.start('fail', fail=[[held[1].id, held[1].epoch, {'error': 'no'}]]),
                 other.start('declare', q='new'),
                 other.start('get', q='task_queue')]
        python.request(tasks, 'put', 'b')
        self.settled()
        self.assertFalse(any(call.answered() for call in calls))
        self.settled()
        self.assertFalse(any(call.answered() for call in calls))
        self.assertTrue(self.master.alive())
        self.stopper.go_on()
        results = [call.result() for call in calls]
        self.assertIsNone(python.result())
        self.assertEqual([results[1]['ok'], results[2]['ok'], results[3]['created']], [1, 1, True])
        self.again()
        client = self.native()
        self.assertEqual([t[3] for t in results[4]['tasks']], [3])
        got = client.get('task_queue', max=9)
        self.assertEqual((got[0].body, got[0].attempt), (3, 2))  # whoever had it has gone with the master
        self.assertEqual(sorted(t.body for t in got[1:]), ['a', 'b'])
        self.assertEqual(sorted(q['q'] for q in client.queues()), ['new', 'result_queue', 'task_queue'])

    def test_killed_meanwhile(self):
        """kill -9 with the thread stopped: what was answered is there, what was not may be."""
        self.start()
        client = self.native()
        ids = client.put('task_queue', *range(50))
        self.stop_log()
        calls = [client.start('put', q='task_queue', tasks=[[n]]) for n in range(50, 80)]
        self.settled()
        self.assertFalse(any(call.answered() for call in calls))
        self.kill()
        self.stopper.go_on()
        self.start()
        found = self.native().get('task_queue', max=100)
        self.assertEqual([t.id for t in found][:50], ids)
        self.assertEqual([t.body for t in found], list(range(len(found))))

    def test_flood(self):
        """It takes in no more than it may, and all is answered when it goes on; beats of workers that it does not
        read meanwhile are not missed."""
        self.start('--log-group-bytes', '262144')
        clients = [self.native() for _ in range(4)]
        self.stop_log()
        body = b'x' * 50000
        sent = [[] for _ in clients]

        def send(client, calls):
            for _ in range(100):  # 20 MB in all
                calls.append(client.start('put', q='task_queue', tasks=[[body]]))

        threads = [threading.Thread(target=send, args=pair, daemon=True) for pair in zip(clients, sent)]
        for thread in threads:
            thread.start()
        last = [None]

        def stands():
            before, last[0] = last[0], [len(calls) for calls in sent]
            self.settled()
            return before == last[0] and sum(before) * len(body) > 262144
        poll_until(stands, 'the producers are held up')
        taken = harness.proc_status(self.master.pid, 'VmRSS')
        self.assertTrue(any(thread.is_alive() for thread in threads))
        self.assertFalse(any(call.answered() for calls in sent for call in calls))
        self.assertLess(taken, harness.memory_bound(64 << 20))
        self.stopper.go_on()
        for thread in threads:
            thread.join(harness.DEADLINE_S)
        for calls in sent:
            self.assertEqual(len(calls), 100)
            for call in calls:
                self.assertEqual(len(call.result()['ids']), 1)
        self.again()
        self.assertEqual(self.recovered()['tasks'], '400')

    def test_stop_timeout(self):
        """SIGTERM: it waits for the log so long, and says that it was in vain."""
        self.start('--drain-timeout', '0', '--stop-timeout', '0.3')
        client = self.native()
        ids = client.put('task_queue', 1, 2)
        self.stop_log()
        client.start('put', q='task_queue', tasks=[[3]])
        self.settled()
        self.master.stopped = True
        self.master.signal(signal.SIGTERM)
        self.assertEqual(self.master.wait(), 1, self.master.describe())
        self.assertIn(' error STOP-TIMEOUT seconds=0.3: ', self.master.stderr)
        self.assertNotIn(' LOG-CLOSED ', self.master.stderr)
        self.stopper.go_on()
        self.start()
        self.assertEqual([t.id for t in self.native().get('task_queue', max=9)][:2], ids)


class Unreadable(disk.BoundedCase):
    """As a user who is not root, whom nothing is forbidden."""

    def refused_to(self, folder, words):
        def become():
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
        for option in ('--data-dir', '--log-check', '--log-repair'):
            process = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:0', option, folder],
                                      preexec_fn=become)
            self.addCleanup(process.clear)
            self.assertEqual(process.wait(), 1, process.describe())
            self.assertRegex(process.stderr, words)
            self.assertIsNone(harness.BROKEN.search(process.stderr), process.describe())

    def own(self, path):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)

    def test_modes(self):
        """A directory, or a file in it, that may not be read, or not be written."""
        os.chmod(self.temp, 0o711)
        self.start()
        self.native().put('task_queue', 'precious')
        self.stop()
        files = [self.folder] + [os.path.join(self.folder, name) for name in os.listdir(self.folder)]
        for path in files:
            self.own(path)
        for mode in (0o000, 0o300, 0o600):
            os.chmod(self.folder, mode)
            self.refused_to(self.folder, re.escape(self.folder) + '.*(cannot be opened|cannot open|cannot list).*: Permission denied')
        os.chmod(self.folder, 0o700)
        segment = self.segments()[0]
        for mode in (0o000, 0o200):
            os.chmod(segment, mode)
            self.refused_to(self.folder, os.path.basename(segment) + '.*: Permission denied')
        os.chmod(segment, 0o600)
        for path in files:
            os.chown(path, os.geteuid(), os.getegid())
        self.start()
        self.assertEqual([t.body for t in self.native().get('task_queue')], ['precious'])

    def test_a_segment_that_is_a_folder(self):
        self.start()
        self.stop()
        segment = self.segments()[0]
        os.rename(segment, segment + '.away')
        os.mkdir(segment, 0o700)
        self.assertRegex(self.refused('--data-dir', self.folder), os.path.basename(segment) + '.*(not a plain file|s a directory)')
        os.rmdir(segment)
        os.mkfifo(segment, 0o600)
        self.assertRegex(self.refused('--data-dir', self.folder), os.path.basename(segment) + '.*not a plain file')
        os.remove(segment)
        os.rename(segment + '.away', segment)
        os.link(segment, os.path.join(self.temp, 'second name'))
        self.assertRegex(self.refused('--data-dir', self.folder), os.path.basename(segment) + '.*hard link')

    def test_read_only(self):
        """A file system that has become read-only, as Linux does with one that has errors."""
        if not disk.can_mount():  # then one that cannot be written for another reason
            self.assertRegex(self.refused('--data-dir', '/proc/taskq'), 'cannot be made')
            return
        mounted = disk.Mounted(self.temp, 1 << 20)
        self.addCleanup(mounted.clear)
        self.folder = mounted.folder
        self.start('--log-segment-bytes', str(disk.SEGMENT_BYTES))
        self.native().put('task_queue', 'precious')
        self.kill()
        subprocess.run(mounted.inside('mount', '-o', 'remount,ro', mounted.where), check=True)
        self.assertRegex(self.refused('--data-dir', self.folder), 'Read-only file system')
        self.assertEqual(self.refused('--log-check', self.folder, status=1).count('Read-only file system'), 1)
        subprocess.run(mounted.inside('mount', '-o', 'remount,rw', mounted.where), check=True)
        self.start('--log-segment-bytes', str(disk.SEGMENT_BYTES))
        self.assertEqual([t.body for t in self.native().get('task_queue')], ['precious'])


if __name__ == '__main__':
    harness.main()
