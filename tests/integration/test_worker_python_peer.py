"""task-worker as the worker of Python's own manager servers, of every version."""
import os
import re
import signal
import subprocess

import harness
import wire
from worker import EXAMPLES, TASK_WORKER, WorkerCase, free_port


def line(n):
    return 'run task %d * %d...' % (n, n)


def result(n):
    return '%d * %d = %d' % (n, n, n * n)


class Queues:
    """The two queues of a server, from the test's side."""

    def __init__(self, case, server):
        self.server = server
        self.tasks = wire.create(server, 'get_task_queue')
        self.results = wire.create(server, 'get_result_queue')
        self.session = wire.Session(server)
        case.addCleanup(self.session.close)

    def put(self, *tasks):
        for task in tasks:
            self.session.call(self.tasks, 'put', task)

    def result(self):
        return self.session.call(self.results, 'get', timeout=20)

    def sizes(self):
        return self.session.call(self.tasks, 'qsize'), self.session.call(self.results, 'qsize')


@harness.expand
class TheExample(WorkerCase):
    """The two files of examples/ as they are."""

    def start_example(self, interpreter, program, *args):
        process = harness.Process([interpreter.path, '-u', os.path.join(EXAMPLES, 'on_port.py'),
                                   os.path.join(EXAMPLES, program)] + [str(a) for a in args],
                                  env=harness.clean_env(**interpreter.env), name=program)
        self.addCleanup(process.clear)
        return process

    @harness.per_interpreter()
    def test_master_gets_its_ten_results(self, interpreter):
        master = self.start_example(interpreter, 'task_master.py')
        port = master.expect(r'^listening on 127.0.0.1:(\d+)$').group(1)
        master.expect(r'^Try get results')
        numbers = [int(n) for n in re.findall(r'^Put task (\d+)\.\.\.$', master.stdout, re.M)]
        self.assertEqual(len(numbers), 10)
        worker = self.start_worker('127.0.0.1:' + port, '--count', 10, key='abc')
        self.finish(worker)
        self.assertEqual(master.wait(), 0, master.describe())
        self.assertEqual(worker.lines(),
                         ['Connect to server 127.0.0.1...'] + [line(n) for n in numbers] + ['worker exit.'])
        self.assertEqual(re.findall(r'^Result: (.*)$', master.stdout, re.M), [result(n) for n in numbers])
        self.assertEqual(master.lines()[-1], 'master exit.')
        self.assertEqual(worker.stderr, '')

    def test_our_worker_says_what_the_example_says(self):
        """Both workers, one after the other, at the same kind of server: the same lines."""
        interpreter = harness.interpreters()[-1]
        said = []
        for ours in (False, True):
            server = self.start_reference(interpreter=interpreter, key='abc')
            queues = Queues(self, server)
            queues.put(*range(8))
            if ours:
                worker = self.start_worker(server, '--count', 10, '--poll-timeout', '0.1')
            else:
                worker = self.start_example(interpreter, 'task_worker.py', server.port)
            self.assertEqual(worker.wait(), 0, worker.describe())
            said.append(worker.lines())
            self.assertEqual([queues.result() for _ in range(8)], [result(n) for n in range(8)])
        self.assertEqual(said[0], said[1])
        self.assertEqual(said[1][-3:], ['task queue is empty.'] * 2 + ['worker exit.'])


@harness.expand
class EveryVersion(WorkerCase):
    @harness.per_interpreter()
    def test_wrong_key(self, interpreter):
        server = self.start_reference(interpreter=interpreter)
        worker = self.start_worker(server, key='not the key of that server')
        self.finish(worker, status=1)
        self.assertEqual(worker.lines(), ['Connect to server 127.0.0.1...'])
        self.assertRegex(worker.stderr, r'\Atask-worker: 127.0.0.1:\d+ refused the key: .*--authkey-file.*\Z')

    @harness.per_interpreter()
    def test_jobs_and_kinds_of_numbers(self, interpreter):
        server = self.start_reference(interpreter=interpreter)
        queues = Queues(self, server)
        big = 3 ** 400
        queues.put(True, 0, -7, 2 ** 31, -2 ** 63, big, -big, 3.7, -0.5, 1e300, 'it\'s', None, b'\0', [1], 1j,
                   float('nan'), 2.0 ** 60)
        worker = self.start_worker(server, '--jobs', 3)
        answers = sorted(queues.result() for _ in range(17))
        expected = [result(n) for n in (1, 0, -7, 2 ** 31, -2 ** 63, big, -big, int(2.0 ** 60))]
        expected += ['3 * 3 = 13', '0 * 0 = 0', "error: cannot square 'it\\'s' (str)",
                     'error: cannot square None (NoneType)', "error: cannot square b'\\x00' (bytes)",
                     'error: cannot square a value (list)', 'error: cannot square a value (complex)',
                     'error: cannot square nan (float)',
                     'error: cannot square 1.0000000000000001e+300 (float): the square is infinite']
        self.assertEqual(answers, sorted(expected))
        self.stop(worker)
        self.assertEqual(worker.stderr.count(' TASK-REFUSED '), 7, worker.describe())

    @harness.per_interpreter()
    def test_references_are_given_back(self, interpreter):
        """At the end each object has as many references as before: what create and incref took is back."""
        server = self.start_reference(interpreter=interpreter)
        queues = Queues(self, server)

        def references():
            return [int(n) for n in re.findall(r'refcount=(\d+)', wire.control(server, 'debug_info')[1])]
        before = references()
        worker = self.start_worker(server, '--jobs', 2)
        # Each slot holds one of each queue, as each Python process would.
        harness.poll_until(lambda: references() == [n + 2 for n in before], 'two slots are on line')
        queues.put(5)
        self.assertEqual(queues.result(), result(5))
        self.stop(worker)
        self.assertEqual(references(), before)

    @harness.per_interpreter()
    def test_server_killed_while_a_task_runs(self, interpreter):
        """The server forgot the task when it handed it out: its successor gets the result."""
        server = self.start_mortal_reference(interpreter=interpreter)
        Queues(self, server).put(12)
        worker = self.start_worker(server, '--sleep', '0.3')
        worker.expect(re.escape(line(12)))
        server.kill()
        successor = self.start_reference(interpreter=interpreter, port=server.port)
        queues = Queues(self, successor)
        self.assertEqual(queues.result(), result(12))
        queues.put(13)
        self.assertEqual(queues.result(), result(13))
        self.stop(worker)


class Reconnecting(WorkerCase):
    def test_server_appears_later(self):
        port = free_port()
        worker = self.start_worker('127.0.0.1:%d' % port)
        worker.expect_stderr(r'^task-worker: nothing listens on 127.0.0.1:%d .*; trying again$' % port)
        server = self.start_reference(port=port)
        queues = Queues(self, server)
        queues.put(3)
        self.assertEqual(queues.result(), result(3))
        self.stop(worker)
        self.assertEqual(worker.stderr.count('nothing listens'), 1, worker.describe())

    def test_server_restarted_between_tasks(self):
        server = self.start_mortal_reference()
        worker = self.start_worker(server, '--jobs', 2)
        for n in range(3):
            queues = Queues(self, server)
            queues.put(n)
            self.assertEqual(queues.result(), result(n))
            server.kill()
            server = self.start_mortal_reference(port=server.port)
        queues = Queues(self, server)
        queues.put(99)
        self.assertEqual(queues.result(), result(99))
        self.stop(worker)

    def test_no_retry(self):
        worker = self.start_worker('127.0.0.1:%d' % free_port(), '--no-retry')
        self.finish(worker, status=1)
        self.assertRegex(worker.stderr, r'\Atask-worker: nothing listens on \S+ \(connection refused\): .*\Z')

    def test_connect_timeout(self):
        worker = self.start_worker('127.0.0.1:%d' % free_port(), '--connect-timeout', '0.3')
        self.finish(worker, status=1)
        self.assertRegex(worker.stderr, r'task-worker: \S+ could not be reached within --connect-timeout')

    def test_unknown_host(self):
        worker = self.start_worker('no-such-host.invalid:5000', '--no-retry')
        self.finish(worker, status=1)
        self.assertRegex(worker.stderr, r"\Atask-worker: the host 'no-such-host.invalid' is unknown .*--master.*\Z")

    def test_host_name_with_several_addresses(self):
        """localhost may be ::1 first; the server listens on 127.0.0.1 alone."""
        server = self.start_reference()
        worker = self.start_worker('localhost:%d' % server.port, '--count', 1, '--poll-timeout', '0.01')
        self.finish(worker)
        self.assertEqual(worker.lines(), ['Connect to server localhost...', 'task queue is empty.', 'worker exit.'])


class Ending(WorkerCase):
    def test_count_with_jobs(self):
        server = self.start_reference()
        queues = Queues(self, server)
        queues.put(*range(20))
        worker = self.start_worker(server, '--jobs', 4, '--count', 7)
        self.finish(worker)
        self.assertEqual(len([l for l in worker.lines() if l.startswith('run task')]), 7)
        self.assertEqual(queues.sizes(), (13, 7))

    def test_jobs_run_at_once(self):
        server = self.start_reference()
        queues = Queues(self, server)
        queues.put(1, 2, 3, 4)
        worker = self.start_worker(server, '--jobs', 4, '--sleep', 3600, '--drain-timeout', 0)
        for _ in range(4):  # none of them ends, so all four run
            worker.expect(r'^run task')
        self.assertEqual(queues.sizes(), (0, 0))
        self.stop(worker, status=1)
        self.assertRegex(worker.stderr, r'\Atask-worker: gave up 4 unfinished task\(s\) after --drain-timeout.*\Z')

    def test_sigterm_finishes_what_runs(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start_reference()
            queues = Queues(self, server)
            queues.put(8, 9)
            worker = self.start_worker(server, '--sleep', '0.2')
            worker.expect(re.escape(line(8)))
            worker.signal(number)
            self.finish(worker)
            self.assertEqual(worker.lines()[-2:], [line(8), 'worker exit.'])
            self.assertEqual(queues.sizes(), (1, 1))
            self.assertEqual(queues.result(), result(8))

    def test_second_signal(self):
        server = self.start_reference()
        Queues(self, server).put(8)
        worker = self.start_worker(server, '--sleep', 3600, '--drain-timeout', 3600)
        worker.expect(re.escape(line(8)))
        worker.signal(signal.SIGTERM)
        worker.signal(signal.SIGINT)
        self.finish(worker, status=1)
        self.assertNotIn('worker exit.', worker.stdout)

    def test_sigterm_in_a_get_swallows_nothing(self):
        """A get that waits is awaited: what it still brings is run."""
        held = {}

        def get(fake, ident, args, kwds):
            fake.note('get waits')
            fake.wait_for(lambda f: held, 'SIGTERM')
            return '#RETURN', 21

        fake = self.fake(hooks={'get': get})
        worker = self.start_worker(fake)
        fake.wait_for(lambda f: 'get waits' in [e[0] for e in f.events], 'get')
        worker.signal(signal.SIGTERM)
        harness.poll_until(lambda: not pending_signals(worker.pid), 'the signal is taken')
        with fake.news:
            held['go'] = True
            fake.news.notify_all()
        self.finish(worker)
        self.assertEqual(fake.queues['get_result_queue'].get_nowait(), result(21))
        self.assertEqual(fake.count('get waits'), 1)

    def test_sigterm_before_the_server_is_there(self):
        worker = self.start_worker('127.0.0.1:%d' % free_port(), '--jobs', 3)
        worker.expect_stderr('nothing listens')
        self.stop(worker)
        self.assertEqual(worker.lines()[-1], 'worker exit.')

    def test_full_result_queue(self):
        """A put may wait for as long as the queue is full."""
        server = self.start_reference(queues=['result_queue,maxsize=1'])
        queues = Queues(self, server)
        queues.put(1, 2, 3)
        worker = self.start_worker(server, '--count', 3)
        worker.expect(re.escape(line(2)))
        self.assertEqual([queues.result() for _ in range(3)], [result(n) for n in (1, 2, 3)])
        self.finish(worker)

    def test_closed_stdout(self):
        """Nobody reads what it prints: the work goes on."""
        server = self.start_reference()
        queues = Queues(self, server)
        reads, writes = os.pipe()
        worker = subprocess.Popen([TASK_WORKER, '--master', '127.0.0.1:%d' % server.port, '--builtin', 'square',
                                   '--peer', 'python'],
                                  stdout=writes, env=harness.clean_env(TASKQ_AUTHKEY=server.key))
        self.addCleanup(worker.wait)
        self.addCleanup(worker.kill)
        os.close(writes)
        os.close(reads)
        queues.put(4, 5)
        self.assertEqual([queues.result(), queues.result()], [result(4), result(5)])
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(harness.DEADLINE_S), 0)


def pending_signals(pid):
    with open('/proc/%d/status' % pid) as f:
        fields = dict(l.rstrip('\n').split(':\t', 1) for l in f if ':\t' in l)
    return int(fields['SigPnd'], 16) | int(fields['ShdPnd'], 16)


if __name__ == '__main__':
    harness.main()
