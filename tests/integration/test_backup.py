"""Backups of a running master: what the copy holds when it was made under load, and what is refused by name."""
import json
import os
import signal
import stat
import subprocess
import threading
import unittest

import harness
from durable import DurableCase, taskq_native
from harness import ServerCase, TempDir, poll_until
from test_durable_replies import GateCase

TASK_CTL = os.path.join(harness.BUILD, 'bin', 'task-ctl')
SMALL = ('--log-segment-bytes', '256k')


class Load:
    """Producers that put numbers, workers that answer n with -n. What was acknowledged, as it comes."""

    def __init__(self, test, producers=3, workers=2):
        self.test = test
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.put, self.done = set(), set()
        self.next = 0
        self.failures = []
        clients = [test.native() for _ in range(producers + workers)]
        self.threads = [threading.Thread(target=self.run, args=(self.produce if i < producers else self.work, c))
                        for i, c in enumerate(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, function, client):
        try:
            while not self.stop.is_set():
                function(client)
        except Exception as e:  # told by end()
            self.failures.append(e)

    def produce(self, client):
        with self.lock:
            first, self.next = self.next, self.next + 50
        numbers = range(first, first + 50)
        client.put('task_queue', *numbers)
        with self.lock:
            self.put.update(numbers)

    def work(self, client):
        tasks = client.get('task_queue', max=40, wait_ms=100)
        if not tasks:
            return
        client.done([(task, -task.body) for task in tasks])
        with self.lock:
            self.done.update(task.body for task in tasks)

    def acknowledged(self):
        with self.lock:
            return set(self.put), set(self.done)

    def reach(self, puts, dones):
        poll_until(lambda: self.failures or (len(self.put) >= puts and len(self.done) >= dones), 'the load goes on')

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        if self.failures:
            raise self.failures[0]


class BackupCase(DurableCase):

    def contents(self, master):
        """Numbers in task_queue, and those that were answered; each list as it comes out."""
        client = taskq_native.Client((master.host, master.port), master.key.encode())
        try:
            lists = []
            for q in ('task_queue', 'result_queue'):
                lists.append([])
                while True:
                    got = client.get(q, max=1000, take=True)
                    if not got:
                        break
                    lists[-1] += [task.body for task in got]
            return lists[0], [-n for n in lists[1]]
        finally:
            client.close()

    def check(self, master, put, done, all_put):
        """What was acknowledged before is there, nothing twice, nothing that nobody put."""
        tasks, results = self.contents(master)
        self.assertEqual(len(tasks), len(set(tasks)), 'a task is there twice')
        self.assertEqual(len(results), len(set(results)), 'a result is there twice')
        tasks, results = set(tasks), set(results)
        self.assertEqual(tasks & results, set(), 'answered, and still to be done')
        self.assertEqual(put - tasks - results, set(), 'acknowledged puts are lost')
        self.assertEqual(done - results, set(), 'acknowledged results are lost')
        self.assertEqual((tasks | results) - set(range(all_put)), set(), 'nobody put these')
        return tasks, results

    def name(self, what):
        return os.path.join(self.temp, what)

    def backup_error(self, client, code, word, **params):
        with self.assertRaises(taskq_native.Error) as caught:
            client.call('backup', **params)
        self.assertEqual(caught.exception.code, code, caught.exception)
        self.assertIn(word, caught.exception.text)


class UnderLoad(BackupCase):

    def test_backups_hold_what_was_acknowledged(self):
        """Three of them, one after the other, while space is reclaimed; then the master itself is killed."""
        self.start(*SMALL)
        load = Load(self)
        admin = self.native()
        copies = []
        for i in range(3):
            load.reach(4000 * (i + 1), 2000 * (i + 1))
            before = load.acknowledged()
            copy = self.name('copy-%d' % i)
            result = admin.call('backup', dir=copy)
            copies.append((copy, before))
            self.assertGreaterEqual(result['index'], 1)
            names = sorted(os.listdir(copy))
            self.assertEqual(len([n for n in names if n.endswith('.log')]), result['files'], names)
            self.assertEqual(sorted({n.rsplit('.', 1)[-1] for n in names}), ['lock', 'log', 'spare'])
            self.assertEqual(stat.S_IMODE(os.stat(copy).st_mode), 0o700)
            for name in names:
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(copy, name)).st_mode), 0o600)
        load.reach(16000, 8000)
        load.end()
        stats = admin.call('stats')
        self.assertEqual((stats['backups'], stats['backups_failed'], stats['backup_running']), (3, 0, 0))
        all_put, all_done = load.acknowledged()
        for copy, (put, done) in copies:
            master = self.start_master('--data-dir', copy)
            self.check(master, put, done, load.next)
            self.stop_master(master)
        self.again()
        tasks, results = self.check(self.master, all_put, all_done, load.next)
        self.assertEqual(tasks | results, all_put, 'the master itself is none the worse for it')

    def test_a_copy_is_gone_on_with(self):
        """It is a data directory like any other: puts, kill -9, and a backup of it."""
        self.start(*SMALL)
        client = self.native()
        client.put('task_queue', *range(100))
        client.call('backup', dir=self.name('a'))
        self.stop()
        self.folder = self.name('a')
        self.start(*SMALL)
        client = self.native()
        for i in range(1, 60):
            client.put('task_queue', *range(100 * i, 100 * i + 100))
        self.again(*SMALL)
        client = self.native()
        client.call('backup', dir=self.name('b'))
        self.stop()
        self.folder = self.name('b')
        self.start(*SMALL)
        self.check(self.master, set(range(6000)), set(), 6000)

    def test_sessions_and_leases_are_in_it(self):
        """A worker of the copied master resumes its lease at the copy, as after a restart."""
        self.start()
        worker = self.native(worker='w1')
        worker.put('task_queue', 'a')
        [task] = worker.get('task_queue')
        worker.call('backup', dir=self.name('copy'))
        self.kill()
        self.folder = self.name('copy')
        self.start()
        again = self.resume(worker)
        self.assertTrue(again.hello['resumed'])
        self.assertEqual(again.done([(task, 'A')])['ok'], 1)
        self.assertEqual([t.body for t in again.get('result_queue')], ['A'])

    def test_interval_queues_are_in_it(self):
        """What was acknowledged and not yet synced is in the copy, too."""
        self.start('--queue', 'quick,durability=interval', '--log-interval', '3600')
        client = self.native()
        client.put('quick', *range(10))
        client.call('backup', dir=self.name('copy'))
        self.folder = self.name('copy')
        master = self.start_master('--data-dir', self.folder)
        with taskq_native.Client((master.host, master.port), master.key.encode()) as other:
            self.assertEqual([t.body for t in other.get('quick', max=100)], list(range(10)))


class Refused(BackupCase):

    def test_by_name(self):
        self.start()
        client = self.native()
        os.mkdir(self.name('full'))
        with open(self.name('full/file'), 'w'):
            pass
        with open(self.name('file'), 'w'):
            pass
        os.mkdir(self.name('empty'), 0o755)
        os.symlink(self.name('empty'), self.name('link'))
        self.backup_error(client, 'bad_request', 'dir is missing')
        self.backup_error(client, 'bad_request', 'absolute', dir='copy')
        self.backup_error(client, 'bad_request', 'absolute', dir='/tmp/a\0b')
        self.backup_error(client, 'bad_request', '4000', dir='/' + 'x' * 4000)
        self.backup_error(client, 'bad_request', 'string', dir=7)
        self.backup_error(client, 'exists', 'not empty', dir=self.name('full'))
        self.backup_error(client, 'exists', 'not empty', dir=self.folder)
        self.backup_error(client, 'io', 'symbolic link', dir=self.name('link'))
        self.backup_error(client, 'io', 'symbolic link', dir=self.name('link') + '//')
        self.backup_error(client, 'io', 'folder', dir=self.name('file'))
        self.backup_error(client, 'io', 'folder above', dir=self.name('no/where'))
        self.backup_error(client, 'permission', 'own user', dir='/sys/taskq-backup')
        self.assertEqual(os.listdir(self.name('empty')), [])
        # and it works all the same
        client.call('backup', dir=self.name('empty') + '/')
        self.assertEqual(stat.S_IMODE(os.stat(self.name('empty')).st_mode), 0o700)
        self.backup_error(client, 'exists', 'not empty', dir=self.name('empty'))

    def test_another_user(self):
        """A master that is not root: a folder where it may not write, and one that is root's."""
        if os.geteuid() != 0:
            self.fail('this test becomes another user: run it as root')
        os.chmod(self.temp, 0o711)
        os.mkdir(self.name('open'))
        os.chmod(self.name('open'), 0o777)
        os.mkdir(self.name('open/queues'))
        os.chown(self.name('open/queues'), 65534, 65534)
        os.chmod(self.name('open/queues'), 0o700)
        os.mkdir(self.name('roots'))
        process = harness.Process([harness.TASK_MASTER, '--listen', '127.0.0.1:0', '--data-dir',
                                   self.name('open/queues')],
                                  env=harness.clean_env(TASKQ_AUTHKEY=harness.KEY),
                                  preexec_fn=lambda: (os.setgroups([]), os.setgid(65534), os.setuid(65534)))
        self.addCleanup(process.clear)
        host, port = process.expect(r'^task-master ready on (\S+):(\d+)$').groups()
        with taskq_native.Client((host, int(port)), harness.KEY.encode()) as client:
            self.backup_error(client, 'permission', 'own user', dir=self.name('mine'))
            self.backup_error(client, 'permission', 'another user', dir=self.name('open') + '/../roots')
            client.call('backup', dir=self.name('open/copy'))
        self.assertEqual(os.stat(self.name('open/copy')).st_uid, 65534)

    def test_one_at_a_time(self):
        self.start()
        client = self.native()
        calls = [client.start('backup', dir=self.name('one')), client.start('backup', dir=self.name('two'))]
        with self.assertRaises(taskq_native.Error) as caught:
            calls[1].result()
        self.assertEqual(caught.exception.code, 'refused')
        self.assertIn('another backup', caught.exception.text)
        self.assertEqual(calls[0].result()['files'], 1)
        self.assertFalse(os.path.exists(self.name('two')))

    def test_who_asked_may_go(self):
        """Its connection closes, or it cancels: the copy is made all the same."""
        self.start()
        client = self.native()
        call = client.start('backup', dir=self.name('one'))
        client.close()
        del call
        self.master.expect_stderr(r' BACKUP-DONE dir="[^"]*one"')
        client = self.native()
        call = client.start('backup', dir=self.name('two'))
        if call.cancel():
            with self.assertRaises(taskq_native.Error) as caught:
                call.result()
            self.assertEqual(caught.exception.code, 'canceled')
        self.master.expect_stderr(r' BACKUP-DONE dir="[^"]*two"')

    def test_a_stop_ends_it(self):
        """SIGTERM in the middle: the master ends well; the copy is whole, or there is none."""
        self.start()
        client = self.native()
        for i in range(20):
            client.put('task_queue', *[b'x' * 10000] * 100)
        client.start('backup', dir=self.name('copy'))
        poll_until(lambda: os.path.exists(self.name('copy')), 'the copy begins')
        self.stop()
        if os.path.exists(self.name('copy')):
            self.folder = self.name('copy')
            self.start()
            self.assertEqual(self.recovered()['tasks'], '2000')

    def test_damage_is_not_copied(self):
        self.start(*SMALL)
        client = self.native()
        for i in range(40):
            client.put('task_queue', *range(1000))
        segments = self.segments()
        self.assertGreater(len(segments), 2)
        self.flip(segments[1], 5000)
        self.backup_error(client, 'io', os.path.basename(segments[1]), dir=self.name('copy'))
        self.assertFalse(os.path.exists(self.name('copy')))
        self.flip(segments[1], 5000)
        client.call('backup', dir=self.name('copy'))


class Hanging(GateCase, BackupCase):
    """The folder takes nothing: the copy's sync waits, and with it its thread."""

    def begin(self, *options):
        self.start(*options, only='.copy')
        client = self.native()
        client.put('task_queue', *range(100))
        self.close_gate()
        call = client.start('backup', dir=self.name('copy'))
        self.wait_blocked()
        return client, call

    def test_it_is_given_up(self):
        client, call = self.begin('--backup-timeout', '0.5')
        with self.assertRaises(taskq_native.Error) as caught:
            call.result()
        self.assertEqual(caught.exception.code, 'io')
        self.assertIn('--backup-timeout', caught.exception.text)
        # all goes on meanwhile; the next backup has to wait for this thread
        client.put('task_queue', *range(100, 200))
        self.backup_error(client, 'refused', 'another backup', dir=self.name('other'))
        stats = client.call('stats')
        self.assertEqual((stats['backups_failed'], stats['backup_running']), (1, 1))
        self.open_gate()
        poll_until(lambda: not client.call('stats')['backup_running'], 'the thread comes to its end')
        self.assertFalse(os.path.exists(self.name('copy')))
        client.call('backup', dir=self.name('copy'))
        self.assertEqual(client.call('stats')['backups'], 1)

    def test_slow_is_not_hanging(self):
        _, call = self.begin()
        self.assertFalse(call.answered())
        self.open_gate()
        self.assertEqual(call.result()['files'], 1)

    def test_a_stop_does_not_wait_for_it(self):
        """The log is whole, the master ends well; and a second SIGTERM changes nothing."""
        self.begin('--stop-timeout', '1')
        self.master.signal(signal.SIGTERM)
        self.master.expect_stderr(' LOG-CLOSED ')
        self.master.expect_stderr(' BACKUP-ABANDONED ')
        self.assertEqual(self.master.wait(), 0, self.master.describe())
        self.master.stopped = True
        self.assertIsNone(harness.BROKEN.search(self.master.stderr), self.master.describe())
        self.open_gate()
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'cleanly')
        self.assertEqual(self.recovered()['tasks'], '100')

    def test_a_stop_waits_a_little(self):
        """What was begun is removed."""
        self.begin()
        self.master.signal(signal.SIGTERM)
        self.master.expect_stderr(' LOG-CLOSED ')
        self.open_gate()
        self.assertEqual(self.master.wait(), 0, self.master.describe())
        self.master.stopped = True
        self.assertNotIn('BACKUP-ABANDONED', self.master.stderr)
        self.assertFalse(os.path.exists(self.name('copy')))


class Rights(ServerCase):

    def test_memory_mode_and_roles(self):
        with TempDir() as folder:
            keys = os.path.join(folder, 'keys')
            with open(os.open(keys, os.O_CREAT | os.O_WRONLY, 0o600), 'w') as f:
                f.write('boss admin a-secret-of-the-boss-1\nw worker a-secret-of-a-worker-1\n'
                        'o observer a-secret-of-observer1\n')
            master = self.start_master('--keys-file', keys, key=None)
            for secret, code in ((b'a-secret-of-a-worker-1', 'denied'), (b'a-secret-of-observer1', 'denied'),
                                 (b'a-secret-of-the-boss-1', 'refused')):
                with taskq_native.Client((master.host, master.port), secret) as client:
                    with self.assertRaises(taskq_native.Error) as caught:
                        client.call('backup', dir=os.path.join(folder, 'copy'))
                    self.assertEqual(caught.exception.code, code)
                    self.assertIn('memory' if code == 'refused' else 'role admin', caught.exception.text)
            self.assertFalse(os.path.exists(os.path.join(folder, 'copy')))


class Command(BackupCase):

    def ctl(self, *words, status=0):
        ended = subprocess.run([TASK_CTL, '--master', '%s:%d' % (self.master.host, self.master.port), *words],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60,
                               env=harness.clean_env(TASKQ_AUTHKEY=self.master.key))
        self.assertEqual(ended.returncode, status, ended)
        return ended

    def test_task_ctl(self):
        self.start()
        self.native().put('task_queue', *range(10))
        told = self.ctl('backup', self.name('one'))
        self.assertRegex(told.stdout, r'one: 1 files, .*, all up to record \d+\n$')
        self.assertEqual(told.stderr, '')
        told = json.loads(self.ctl('backup', self.name('two'), '--json').stdout)
        self.assertEqual(told['files'], 1)
        told = self.ctl('backup', self.name('one'), status=1)
        self.assertIn('not empty', told.stderr)
        self.assertEqual(told.stdout, '')
        told = json.loads(self.ctl('backup', self.name('one'), '--json', status=1).stderr)
        self.assertEqual(told['error']['code'], 'exists')
        self.assertIn('absolute', self.ctl('backup', 'three', status=2).stderr)
        self.master.signal(signal.SIGTERM)
        self.assertEqual(self.master.wait(), 0)
        self.master.stopped = True
        self.assertIn('connection refused', self.ctl('backup', self.name('four'), status=1).stderr)
        for copy in ('one', 'two'):
            for command in ('check', 'repair'):
                self.ctl('log', command, self.name(copy))


if __name__ == '__main__':
    unittest.main(verbosity=2)
