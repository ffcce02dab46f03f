"""task-worker at task-master: what the example does, and what happens to tasks when either end goes."""
import re
import signal

import harness
import wire
from worker import WorkerCase


def line(n):
    return 'run task %d * %d...' % (n, n)


def result(n):
    return '%d * %d = %d' % (n, n, n * n)


class AtTaskMaster(WorkerCase):
    def queues(self, master):
        """A session of the test's own: put(*tasks), result(), sizes()."""
        session = wire.Session(master, name='MainProcess|test')
        self.addCleanup(session.close)
        tasks, results = wire.create(master, 'get_task_queue'), wire.create(master, 'get_result_queue')

        class Queues:
            def put(self, *items):
                for item in items:
                    session.call(tasks, 'put', item)

            def result(self):
                return session.call(results, 'get', timeout=20)

            def sizes(self):
                return session.call(tasks, 'qsize'), session.call(results, 'qsize')
        return Queues()

    def start_worker(self, server, *options, **kwargs):
        return super().start_worker(server, *options, **dict({'peer': 'taskq'}, **kwargs))

    def test_the_example(self):
        master = self.start_master(key='abc')
        queues = self.queues(master)
        numbers = [4321, 17, 10000, 0, 99, 5, 7, 1, 2, 3]
        queues.put(*numbers)
        worker = self.start_worker(master, '--count', 10)
        self.finish(worker)
        self.assertEqual(worker.lines(), ['Connect to server 127.0.0.1...'] + [line(n) for n in numbers] +
                         ['worker exit.'])
        self.assertEqual([queues.result() for _ in numbers], [result(n) for n in numbers])
        self.assertEqual(worker.stderr, '')

    def test_wrong_key(self):
        worker = self.start_worker(self.start_master(), key='not the key of that server')
        self.finish(worker, status=1)
        self.assertRegex(worker.stderr, r'\Atask-worker: 127.0.0.1:\d+ refused the key: .*\Z')

    def test_no_such_queue(self):
        worker = self.start_worker(self.start_master(), '--from', 'nothing')
        self.finish(worker, status=1)
        self.assertRegex(worker.stderr, r"\Atask-worker: \S+ has no queue 'nothing' .*--from\Z")

    def test_killed_worker_gives_its_task_back(self):
        master = self.start_master()
        queues = self.queues(master)
        first = self.start_worker(master, '--sleep', 3600)
        queues.put(31)
        first.expect(re.escape(line(31)))
        first.kill()
        second = self.start_worker(master)
        self.assertEqual(queues.result(), result(31))
        self.stop(second)
        self.assertEqual(queues.sizes(), (0, 0))

    def test_given_up_tasks_go_back(self):
        """What --drain-timeout cuts off is not lost."""
        master = self.start_master()
        queues = self.queues(master)
        first = self.start_worker(master, '--sleep', 3600, '--jobs', 3, '--drain-timeout', 0)
        queues.put(1, 2, 3)
        for _ in range(3):
            first.expect('^run task')
        self.stop(first, status=1)
        self.assertIn('gave up 3 unfinished task(s)', first.stderr)
        second = self.start_worker(master)
        self.assertEqual(sorted(queues.result() for _ in range(3)), [result(n) for n in (1, 2, 3)])
        self.stop(second)

    def test_clean_exits_answer_each_task_once(self):
        """Workers come and go by SIGTERM in the middle of their work: one result each, no task twice."""
        master = self.start_master()
        queues = self.queues(master)
        queues.put(*range(60))
        runs = []
        while queues.sizes()[0] > 0:
            worker = self.start_worker(master, '--jobs', 2, '--sleep', '0.01')
            for _ in range(6):
                if queues.sizes()[0] == 0:
                    break
                worker.expect('^run task')
            self.stop(worker)
            runs += re.findall(r'^run task (\d+)', worker.stdout, re.M)
        self.assertEqual(sorted(int(n) for n in runs), list(range(60)))
        self.assertEqual(sorted(queues.result() for _ in range(60)), sorted(result(n) for n in range(60)))
        self.assertEqual(queues.sizes(), (0, 0))

    def test_sigterm_cuts_a_long_poll(self):
        """Nothing is lost by it: the next worker gets the task that comes then."""
        master = self.start_master()
        queues = self.queues(master)
        first = self.start_worker(master, '--poll-timeout', 3600, '--drain-timeout', 3600)
        queues.put(1)
        self.assertEqual(queues.result(), result(1))
        self.stop(first)
        self.assertEqual(first.lines()[-1], 'worker exit.')
        queues.put(2)
        second = self.start_worker(master)
        self.assertEqual(queues.result(), result(2))
        self.stop(second)

    def test_master_restarted(self):
        master = self.start_master()
        worker = self.start_worker(master, '--jobs', 2)
        for n in range(3):
            queues = self.queues(master)
            queues.put(n)
            self.assertEqual(queues.result(), result(n))
            self.stop_master(master)
            worker.expect_stderr('trying again')
            master = self.start_master(port=master.port)
        queues = self.queues(master)
        queues.put(77)
        self.assertEqual(queues.result(), result(77))
        self.stop(worker)

    def test_side_by_side_with_python(self):
        """Stock workers and ours at one queue."""
        master = self.start_master(key='abc')
        queues = self.queues(master)
        queues.put(*range(40))
        stock = [self.start_client(i, 'example_worker.py', '0.01', server=master) for i in harness.old_middle_new()]
        ours = self.start_worker(master, '--jobs', 2, '--sleep', '0.01', key='abc')
        self.assertEqual(sorted(queues.result() for _ in range(40)), sorted(result(n) for n in range(40)))
        for worker in stock:
            self.assertEqual(worker.wait(), 0, worker.describe())
        ours.signal(signal.SIGTERM)
        self.finish(ours)
        self.assertEqual(queues.sizes(), (0, 0))


if __name__ == '__main__':
    harness.main()
