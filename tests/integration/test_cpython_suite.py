"""CPython's own tests of queues, of each interpreter that ships them, run against the server."""
import functools
import subprocess

from harness import ServerCase, all_clients, clean_env, expand, main, old_middle_new, per_interpreter

KINDS = ('lifo', 'priority')
COUNT = 60  # queues for each test of a kind that no factory makes


def queues():
    return ['%s_%d_%d,kind=%s,maxsize=%d' % (kind, maxsize, n, kind, maxsize)
            for kind in KINDS for maxsize in (0, 2, 5) for n in range(COUNT)]


@functools.lru_cache(maxsize=None)
def ships_tests(interpreter):
    """Distributions put CPython's tests into a package of their own."""
    return subprocess.call([interpreter.path, '-c', 'from test import _test_multiprocessing, test_queue'],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_env()) == 0


def all_with_tests():
    return [i for i in all_clients() if ships_tests(i)]


def some_with_tests():
    return [i for i in old_middle_new() if ships_tests(i)]


@expand
class SuiteTest(ServerCase):

    def test_there_is_such_an_interpreter(self):
        self.assertTrue(all_with_tests(), 'none of %s has the package `test`' % (all_clients(),))

    def run_suite(self, interpreter, server):
        # 5 of _TestQueue, 2 of TestSyncManagerTypes (3.6 has none), 5 of BaseQueueTestMixin for 3 kinds.
        self.run_unittest_client(interpreter, 'cpython_suite.py', '-v', server=server,
                                 least=22 if interpreter.version >= (3, 7) else 20, deadline_s=280,
                                 env={'TASKQ_SUITE_QUEUES': str(COUNT)})

    @per_interpreter(all_with_tests)
    def test_master(self, interpreter):
        self.run_suite(interpreter, self.start_master(queues=queues()))

    @per_interpreter(some_with_tests)
    def test_reference(self, interpreter):
        """The wrapper leaves nothing out that Python's own server passes, and adds nothing it fails."""
        self.run_suite(interpreter, self.start_reference(interpreter=interpreter, queues=queues()))


if __name__ == '__main__':
    main()
