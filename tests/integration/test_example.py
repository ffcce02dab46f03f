"""The example, with its own two programs: every interpreter as worker, every one as producer."""
import re

from harness import ServerCase, all_clients, expand, main, old_middle_new, per_interpreter, run_parallel


@expand
class ExampleTest(ServerCase):

    def check_pair(self, server, producer, worker, sleep_s='0'):
        """One run of both programs; their lines must be the example's, number for number."""
        asking = self.start_client(producer, 'example_producer.py', server=server)
        asking.expect('Try get results')  # the worker gives up on an empty queue after a second
        serving = self.start_client(worker, 'example_worker.py', sleep_s, server=server)
        for client in (asking, serving):
            if client.wait():
                self.fail('producer %s, worker %s: %s' % (producer, worker, client.describe()))
        lines = asking.lines()
        numbers = [int(n) for n in re.findall(r'^Put task (\d+)\.\.\.$', asking.stdout, re.M)]
        self.assertEqual(len(numbers), 10)
        self.assertEqual(lines, ['Put task %d...' % n for n in numbers] + ['Try get results...'] +
                         ['Result: %d * %d = %d' % (n, n, n * n) for n in numbers] + ['master exit.'],
                         'producer %s, worker %s' % (producer, worker))
        self.assertEqual(serving.lines(),
                         ['Connect to server 127.0.0.1...'] +
                         ['run task %d * %d...' % (n, n) for n in numbers] + ['worker exit.'],
                         'producer %s, worker %s' % (producer, worker))
        self.assertEqual(asking.stderr + serving.stderr, '')

    @per_interpreter()
    def test_worker_serves_every_producer(self, worker):
        def pair(producer):
            self.check_pair(self.start_master(key='abc'), producer, worker)
        run_parallel([lambda p=p: pair(p) for p in all_clients()], at_once=3)

    @per_interpreter(old_middle_new)
    def test_the_reference_does_the_same(self, interpreter):
        self.check_pair(self.start_reference(interpreter=interpreter, key='abc'), interpreter, interpreter)

    def test_as_written_with_its_second_of_work(self):
        """The unshortened example, all interpreters at once, each pair with a master of its own."""
        def pair(interpreter):
            self.check_pair(self.start_master(key='abc'), interpreter, interpreter, sleep_s='1')
        run_parallel([lambda i=i: pair(i) for i in all_clients()], at_once=100)

    def test_workers_of_all_versions_share_the_tasks(self):
        server = self.start_master(key='abc')
        producers = [self.start_client(i, 'example_producer.py', server=server) for i in all_clients()]
        for producer in producers:
            producer.expect('Try get results')
        workers = [self.start_client(i, 'example_worker.py', '0.01', server=server) for i in all_clients()]
        put, got, run = [], [], []
        for producer in producers:
            self.assertEqual(producer.wait(), 0, producer.describe())
            put += re.findall(r'^Put task (\d+)\.\.\.$', producer.stdout, re.M)
            got += re.findall(r'^Result: (\d+ \* \d+ = \d+)$', producer.stdout, re.M)
        for worker in workers:
            self.assertEqual(worker.wait(), 0, worker.describe())
            run += re.findall(r'^run task (\d+) \* \1\.\.\.$', worker.stdout, re.M)
            self.assertEqual(worker.lines()[-1], 'worker exit.')
        self.assertEqual(len(put), 10 * len(producers))
        self.assertEqual(sorted(run), sorted(put))
        self.assertEqual(sorted(got), sorted('%s * %s = %d' % (n, n, int(n) ** 2) for n in put))

    def test_worker_without_tasks(self):
        server = self.start_master(key='abc')

        def serve(interpreter):
            lines = self.run_client(interpreter, 'example_worker.py', '0', server=server)
            self.assertEqual(lines, ['Connect to server 127.0.0.1...'] + ['task queue is empty.'] * 10 +
                             ['worker exit.'])
        run_parallel([lambda i=i: serve(i) for i in all_clients()], at_once=100)

    @per_interpreter()
    def test_the_documentations_example(self, interpreter):
        server = self.start_master(key='abracadabra', queues=['jobs,typeid=get_queue'])
        self.assertEqual(self.run_client(interpreter, 'documentation_example.py', 'put', server=server), [])
        self.assertEqual(self.run_client(interpreter, 'documentation_example.py', 'get', server=server), ['hello'])


if __name__ == '__main__':
    main()
