"""task-ctl: each command and option against a real master, and what it says when there is none, or a wrong one."""
import json
import os
import shutil
import socket
import subprocess
import threading
import unittest

import harness
from durable import DurableCase, taskq_native
from harness import ServerCase, TempDir
from worker import free_port

TASK_CTL = os.path.join(harness.BUILD, 'bin', 'task-ctl')


def run(*words, status=0, key=harness.KEY, stdin=None, program=TASK_CTL, test=None, **env):
    if key is not None:
        env['TASKQ_AUTHKEY'] = key
    ended = subprocess.run([program, *words], stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, universal_newlines=True, timeout=60, env=harness.clean_env(**env))
    test.assertEqual(ended.returncode, status, ended)
    test.assertIsNone(harness.BROKEN.search(ended.stderr), ended)
    return ended


class CtlCase(ServerCase):

    def ctl(self, *words, status=0, **more):
        """Its stdout if it is to be good, else its stderr; the other one is empty."""
        ended = run(*words, status=status, test=self, **more)
        self.assertEqual(ended.stderr if status == 0 else ended.stdout, '', ended)
        return ended.stdout if status == 0 else ended.stderr

    def at(self, master):
        return ['--master', '%s:%d' % (master.host, master.port)]


class Looking(CtlCase):

    def setUp(self):
        self.master = self.start_master('--queue', 'work,maxsize=7', '--queue', 'odd-name_1.x')
        with taskq_native.Client((self.master.host, self.master.port), harness.KEY.encode()) as client:
            client.put('work', 1, 2, 3)
            client.put('task_queue', 'a', delay_ms=3600000)
            [task] = client.get('work')
            client.done([(task,)])

    def test_ping(self):
        text = self.ctl('ping', *self.at(self.master))
        self.assertRegex(text, r'^127\.0\.0\.1:\d+ \(task-master/\S+\) answers in \d+\.\d+ ms; key authkey, role admin\n$')
        text = self.ctl(*self.at(self.master), 'ping', '--count', '20')
        self.assertRegex(text, r'\(20 times: least \d+\.\d+, most \d+\.\d+\)')
        told = json.loads(self.ctl('--json', *self.at(self.master), 'ping', '--count=3'))
        self.assertEqual((told['count'], told['key'], told['role']), (3, 'authkey', 'admin'))
        self.assertLessEqual(told['least_ms'], told['mean_ms'])
        self.assertLessEqual(told['mean_ms'], told['most_ms'])

    def test_queues(self):
        lines = [line.split() for line in self.ctl('queues', *self.at(self.master)).splitlines()]
        self.assertEqual(lines[0], 'QUEUE READY DELAYED LEASED PUT DONE FAILED DEAD WAITING'.split())
        self.assertEqual([line[0] for line in lines[1:]], ['odd-name_1.x', 'result_queue', 'task_queue', 'work'])
        self.assertEqual(lines[4], ['work', '2', '0', '0', '3', '1', '0', '0', '0'])
        self.assertEqual(lines[3][:4], ['task_queue', '0', '1', '0'])
        told = json.loads(self.ctl('queues', '--json', *self.at(self.master)))
        self.assertEqual([q['q'] for q in told], ['odd-name_1.x', 'result_queue', 'task_queue', 'work'])
        self.assertEqual(told[3]['policies']['maxsize'], 7)

    def test_many_queues(self):
        """More than a page of them, sorted."""
        with taskq_native.Client((self.master.host, self.master.port), harness.KEY.encode()) as client:
            for call in [client.start('declare', q='q%04d' % (i * 7919 % 2500)) for i in range(2500)]:
                call.result()
        names = [q['q'] for q in json.loads(self.ctl('queues', '--json', *self.at(self.master)))]
        self.assertEqual(len(names), 2504)
        self.assertEqual(names, sorted(names))

    def test_stats(self):
        lines = dict(line.split(None, 1) for line in self.ctl('stats', *self.at(self.master)).splitlines())
        self.assertEqual((lines['puts'], lines['tasks'], lines['delayed']), ('4', '4', '1'))
        told = json.loads(self.ctl('stats', '--json', *self.at(self.master)))
        self.assertEqual(told['puts'], 4)
        lines = dict(line.split(None, 1) for line in self.ctl('stats', 'work', *self.at(self.master)).splitlines())
        self.assertEqual((lines['q'], lines['ready'], lines['policies.maxsize']), ('work', '2', '7'))
        told = json.loads(self.ctl(*self.at(self.master), 'stats', 'work', '--json'))
        self.assertEqual((told['ready'], told['policies']['kind']), (2, 'fifo'))

    def test_what_the_master_refuses(self):
        error = self.ctl('stats', 'wrok', *self.at(self.master), status=1)
        self.assertRegex(error, r'^task-ctl: .*wrok.*\n$')
        told = json.loads(self.ctl('stats', 'wrok', '--json', *self.at(self.master), status=1))
        self.assertEqual(told['error']['code'], 'queue_unknown')
        self.assertIn('wrok', told['error']['text'])

    def test_keys(self):
        with TempDir() as folder:
            path = os.path.join(folder, 'key')
            with open(path, 'w') as f:
                f.write(harness.KEY + '\n')
            os.chmod(path, 0o600)
            self.ctl('ping', '--authkey-file', path, *self.at(self.master), key=None)
            error = self.ctl('ping', '--authkey-file', path + 'x', *self.at(self.master), key=None, status=1)
            self.assertIn(path + 'x', error)
        ended = run('ping', '--authkey', harness.KEY, *self.at(self.master), key=None, test=self)
        self.assertIn('in `ps`', ended.stderr)
        self.assertIn('answers in', ended.stdout)
        for key in ('another key than the master has', None):
            error = self.ctl('ping', *self.at(self.master), key=key, status=1)
            self.assertIn('refused the key', error)
            told = json.loads(self.ctl('ping', '--json', *self.at(self.master), key=key, status=1))
            self.assertEqual(told['error']['code'], 'bad_key')


class NoMaster(CtlCase):

    def fake(self, answer):
        """A listener that takes one connection and does `answer` with it."""
        listener = socket.socket()
        listener.bind(('127.0.0.1', 0))
        listener.listen(1)
        over = threading.Event()

        def serve():
            conn, _ = listener.accept()
            answer(conn, over)
            conn.close()
        thread = threading.Thread(target=serve)
        thread.start()

        def clean():
            over.set()
            thread.join()
            listener.close()
        self.addCleanup(clean)
        return '127.0.0.1:%d' % listener.getsockname()[1]

    def error(self, *words):
        told = json.loads(self.ctl(*words, '--json', status=1))['error']
        self.assertEqual(sorted(told), ['code', 'text'])
        return told['code'], told['text']

    def test_nobody_listens(self):
        port = free_port()
        code, text = self.error('ping', '--master', '127.0.0.1:%d' % port)
        self.assertEqual(code, 'no_connection')
        self.assertIn('connection refused', text)
        self.assertIn('start task-master', text)
        code, text = self.error('ping', '--master', 'no-such-host.invalid:5000')
        self.assertEqual(code, 'no_connection')
        self.assertIn('no-such-host.invalid', text)

    def test_silence(self):
        address = self.fake(lambda conn, over: over.wait(60))
        code, text = self.error('ping', '--master', address, '--timeout', '0.3')
        self.assertEqual(code, 'timeout')
        self.assertIn('no handshake', text)

    def test_it_closes(self):
        code, text = self.error('ping', '--master', self.fake(lambda conn, over: None))
        self.assertEqual(code, 'no_connection')
        self.assertIn('closed the connection', text)

    def test_another_protocol(self):
        address = self.fake(lambda conn, over: (conn.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n'), over.wait(60)))
        code, text = self.error('ping', '--master', address)
        self.assertEqual(code, 'bad_peer')
        self.assertIn('is no task-master', text)

    def test_a_master_that_hangs(self):
        """It is asked for a sign of life, and given up."""
        master = self.start_master()
        address = '%s:%d' % (master.host, master.port)
        master.signal(19)  # SIGSTOP: the kernel still takes connections
        try:
            code, _ = self.error('ping', '--master', address, '--timeout', '0.5')
        finally:
            master.signal(18)
        self.assertEqual(code, 'timeout')

    def test_python_own_manager(self):
        reference = self.start_reference()
        code, text = self.error('ping', *self.at(reference), '--timeout', '5')
        self.assertEqual(code, 'bad_peer')
        self.assertIn("Python's own manager", text)


class CommandLine(CtlCase):

    def test_usage(self):
        for words, told in (([], 'which command'), (['pin'], "did you mean 'ping'"), (['lgo', 'check', 'x'], 'no command'),
                            (['log'], "did you mean 'log check'"), (['backup'], 'task-ctl backup DIR'),
                            (['backup', '/a', '/b'], 'task-ctl backup DIR'), (['ping', 'x'], 'task-ctl ping'),
                            (['ping', '--cuont', '3'], "did you mean '--count'"), (['ping', '--count', 'x'], '--count'),
                            (['queues', '--count', '3'], 'unknown option'), (['ping', '--master', '1:0'], 'port 0'),
                            (['help', 'pin'], 'no command'), (['ping', '--master'], '--master needs a value'),
                            (['log', 'check', '/x', '--json'], 'no --json')):
            error = self.ctl(*words, status=2)
            self.assertTrue(error.startswith(('task-ctl: ', '{')), error)
            self.assertIn(told, error)
        told = json.loads(self.ctl('ping', '--count', 'x', '--json', status=2))
        self.assertEqual(told['error']['code'], 'usage')

    def test_help(self):
        text = self.ctl('--help')
        for command in ('backup DIR', 'log check DIR', 'log repair DIR', 'ping', 'queues', 'stats [QUEUE]'):
            self.assertIn('\n  %s ' % command, text)
        self.assertEqual(self.ctl('help'), text)
        self.assertEqual(self.ctl('-h'), text)
        for command in (['backup'], ['log', 'check'], ['log', 'repair'], ['ping'], ['queues'], ['stats'], ['help']):
            page = self.ctl('help', *command)
            self.assertTrue(page.startswith('usage: task-ctl ' + ' '.join(command)), page)
            self.assertEqual(self.ctl(*command, '--help'), page)
            self.assertIn('--master HOST:PORT', page)
            for line in page.splitlines():
                self.assertLessEqual(len(line), 110)
        self.assertIn('--yes', self.ctl('help', 'log', 'repair'))
        self.assertRegex(self.ctl('--version'), r'^task-ctl \d+\.\d+\.\d+\n$')
        self.assertRegex(self.ctl('ping', '-V'), r'^task-ctl ')

    def test_words_and_options_in_any_order(self):
        master = self.start_master()
        self.ctl(*self.at(master), '--timeout', '5', 'stats', '--json', 'task_queue')
        self.ctl('stats', *self.at(master), '--', 'task_queue')

    def test_a_full_stdout(self):
        with open('/dev/full', 'w') as full:
            ended = subprocess.run([TASK_CTL, '--help'], stdout=full, stderr=subprocess.PIPE, universal_newlines=True,
                                   timeout=60, env=harness.clean_env())
        self.assertEqual(ended.returncode, 1)
        self.assertIn('stdout', ended.stderr)


class Log(DurableCase):

    def ctl(self, *words, status=0, **more):
        return run(*words, status=status, test=self, **more)

    def fill(self):
        self.start('--log-segment-bytes', '64k')
        client = self.native()
        for _ in range(5):
            client.put('task_queue', *[b'x' * 1000] * 50)
        self.stop()

    def test_good_and_damaged(self):
        self.fill()
        self.ctl('log', 'check', self.folder)
        self.ctl('log', 'repair', self.folder)
        segments = self.segments()
        self.assertGreater(len(segments), 2)
        self.flip(segments[1], 3000)
        before = {name: os.stat(os.path.join(self.folder, name)).st_mtime_ns for name in os.listdir(self.folder)
                  if name != 'lock'}
        told = self.ctl('log', 'check', self.folder, status=1)
        self.assertIn(os.path.basename(segments[1]), told.stdout)
        told = self.ctl('log', 'repair', self.folder, status=1)
        self.assertIn(os.path.basename(segments[1]), told.stdout)
        self.assertIn('nothing was changed', told.stderr)
        self.assertIn('log repair %s --yes' % self.folder, told.stderr)
        self.assertEqual(before, {name: os.stat(os.path.join(self.folder, name)).st_mtime_ns
                                  for name in os.listdir(self.folder) if name != 'lock'})
        self.ctl('log', 'repair', self.folder, '--yes')
        self.assertTrue([name for name in os.listdir(self.folder) if name.endswith('.cut')])
        self.ctl('log', 'check', self.folder)
        self.start()
        self.assertGreater(int(self.recovered()['tasks']), 0)

    def test_a_running_master_is_left_alone(self):
        self.start()
        told = self.ctl('log', 'check', self.folder, status=1)
        self.assertIn('task-master', told.stderr)
        told = self.ctl('log', 'repair', self.folder, '--yes', status=1)
        self.assertIn('task-master', told.stderr)
        self.native().put('task_queue', 1)

    def test_which_task_master(self):
        """The one beside it, else that of the PATH, else a word about it."""
        self.fill()
        other = os.path.join(self.temp, 'bin')
        os.mkdir(other)
        alone = shutil.copy(TASK_CTL, other)
        self.ctl('log', 'check', self.folder, program=alone, PATH=os.path.dirname(TASK_CTL))
        told = self.ctl('log', 'check', self.folder, program=alone, PATH='/nowhere', status=1)
        self.assertIn('neither beside task-ctl nor on the PATH', told.stderr)
        told = self.ctl('log', 'repair', self.folder, program=alone, PATH='/nowhere', status=1)
        self.assertIn('neither beside task-ctl nor on the PATH', told.stderr)
        self.assertNotIn('nothing was changed', told.stderr)
        with open(os.path.join(other, 'task-master'), 'w') as f:
            f.write('#!/bin/sh\necho "beside: $*"\n')
        os.chmod(f.name, 0o700)
        told = self.ctl('log', 'check', self.folder, program=alone, PATH=os.path.dirname(TASK_CTL) + ':/bin')
        self.assertEqual(told.stdout, 'beside: --log-check %s\n' % self.folder)


if __name__ == '__main__':
    unittest.main(verbosity=2)
