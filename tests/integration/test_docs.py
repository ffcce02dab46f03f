"""The examples of docs/queues.md and of the README are run: a document that lies is a bug."""
import doctest
import os
import re
import shlex
import sys
from multiprocessing.managers import BaseManager

import harness
from native import msgpack

EXAMPLES = os.path.join(harness.ROOT, 'deploy', 'examples')
KEY = 'abc'
PAIR = re.compile(r'```sh\n(task-master[^\n]*)\n```\n```pycon\n(.*?)```', re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def native_client():
    sys.path.insert(0, EXAMPLES)
    try:
        import native_client
    finally:
        sys.path.remove(EXAMPLES)
    return native_client


def read(*names):
    with open(os.path.join(harness.ROOT, *names), encoding='utf-8') as f:
        return f.read()


def env(server):
    """With msgpack for any interpreter: that which this one found, in its pure Python form."""
    return dict(PYTHONPATH=os.path.dirname(os.path.dirname(msgpack.__file__)), MSGPACK_PUREPYTHON='1',
                TASKQ_MASTER='%s:%d' % (server.host, server.port), TASKQ_AUTHKEY=KEY)


class Queues(harness.ServerCase):

    def test_every_example_of_the_page(self):
        text = read('docs', 'queues.md')
        count = 0
        for match in PAIR.finditer(text):
            title = re.findall(r'^## (.*)', text[:match.start()], re.MULTILINE)[-1]
            with self.subTest(title=title):
                self.run_example(title, shlex.split(match.group(1))[1:], match.group(2))
            count += 1
        self.assertGreaterEqual(count, 14)
        self.assertEqual(count, text.count('```pycon'), 'a master for each example')

    def run_example(self, title, options, example):
        server = self.start_master(*options, key=KEY)
        address = (server.host, server.port)

        class QueueManager(BaseManager):
            pass
        for name in ['task_queue', 'result_queue'] + re.findall(r'python\.get_(\w+)', example):
            QueueManager.register('get_' + name)
        python = QueueManager(address, KEY.encode())
        python.connect()
        client = native_client()
        m = client.Master(address, KEY.encode())
        said = []
        test = doctest.DocTestParser().get_doctest(
            example, {'m': m, 'python': python, 'QueueManager': QueueManager, 'Master': client.Master}, title, 'docs/queues.md', 0)
        failed = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=said.append).failed
        m.close()
        if failed:
            self.fail('\n' + ''.join(said))
        self.stop_master(server)



def blocks(text, title):
    """The indented blocks below a headline, as programs."""
    section = re.search(r'^## %s\n(.*?)(?=^## |\Z)' % re.escape(title), text, re.DOTALL | re.MULTILINE).group(1)
    return [re.sub(r'^ {4}', '', block, flags=re.MULTILINE)
            for block in re.findall(r'(?:^ {4}[^\n]*\n|^\n(?= {4}))+', section, re.MULTILINE)]


class Programs(harness.ServerCase):
    """Programs that users copy: those of the README, and the native client."""

    def setUp(self):
        super().setUp()
        self.server = self.start_master(key=KEY)

    def start_program(self, *argv, **kwargs):
        program = harness.Process(list(argv), env=dict(harness.clean_env(), **env(self.server)), **kwargs)
        self.addCleanup(program.clear)
        return program

    def start_worker(self):
        return self.start_program(os.path.join(harness.BUILD, 'bin', 'task-worker'), '--builtin', 'square', '--master',
                                  '%s:%d' % (self.server.host, self.server.port))

    def run_block(self, title):
        [program] = blocks(read('README.md'), title)
        program = program.replace("('127.0.0.1', 5000)", repr((self.server.host, self.server.port)))
        self.assertIn(repr(self.server.port), program)
        client = self.start_program(sys.executable, '-c', 'import sys; sys.path.append(%r)\n%s' % (EXAMPLES, program))
        self.assertEqual(client.wait(), 0, client.describe())
        return client.lines()

    def test_python_in_ten_lines(self):
        self.start_worker()
        self.assertEqual(self.run_block('Python in ten lines'), ['4321 * 4321 = 18671041'])

    def test_a_native_client_in_ten_lines(self):
        self.start_worker()
        lines = self.run_block('A native client in ten lines')
        self.assertRegex(lines[0], r'^4321 \* 4321 = 18671041 ok \S+:\d+:[0-9a-f]{4}$')
        self.assertRegex(lines[1], r'^7 \* 7 = 49 ok ')
        self.assertEqual(len(lines), 2)

    def test_the_native_client_is_a_submitter_and_a_worker(self):
        program = os.path.join(EXAMPLES, 'native_client.py')
        self.start_program(sys.executable, program, '--work')
        submitter = self.start_program(sys.executable, program, '3', '4')
        self.assertEqual(submitter.wait(), 0, submitter.describe())
        self.assertEqual(sorted(submitter.lines()), ['3 * 3 = 9', '4 * 4 = 16'])

    def test_the_native_client_is_told_of_a_wrong_key(self):
        client = native_client()
        with self.assertRaises(PermissionError):
            client.Master((self.server.host, self.server.port), b'another key')


if __name__ == '__main__':
    harness.main()
