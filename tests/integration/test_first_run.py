"""What a person meets who starts task-master for the first time, and who starts it wrongly."""
import os
import re
import signal
import socket
import stat
import subprocess

import wire
from harness import TASK_MASTER, MasterUnderTest, Process, ServerCase, TempDir, clean_env, main


def run(*argv, env=None):
    """Runs it to its end: (status, stdout, stderr). If it serves after all, then on no port of importance."""
    if '--listen' not in argv and len(argv) > 1:
        argv = ('--listen', '127.0.0.1:0') + argv
    done = subprocess.run([TASK_MASTER] + list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=clean_env(**(env or {})), timeout=10)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class StartTest(ServerCase):

    def test_ready_line(self):
        """One line on stdout, and it is true: whoever reads it can connect."""
        server = self.start_master()
        self.assertEqual(server.host, '127.0.0.1')
        self.assertEqual(wire.control(server, 'dummy'), ('#RETURN', None))
        self.assertEqual(server.lines(), ['task-master ready on 127.0.0.1:%d' % server.port])

    def test_banner(self):
        """It says what it listens on, which queues it has and how, and what lasts."""
        server = self.start_master(queues=['urgent,kind=priority,maxsize=7,ack=explicit,typeid=get_urgent_work'])
        self.assertIn('127.0.0.1:%d' % server.port, server.stderr)
        for word in ('task_queue', 'result_queue', 'urgent', 'priority', 'maxsize=7', 'explicit', 'get_urgent_work'):
            self.assertIn(word, server.stderr)
        self.assertRegex(server.stderr, r'memory')

    def test_log_lines(self):
        server = self.start_master('--log-level', 'debug')
        wire.Session(server).close()
        server.expect_stderr(' debug PEER-OPEN ')
        for line in server.stderr.splitlines():
            self.assertRegex(line, r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z task-master (debug|info|warn|error) '
                                   r'[A-Z][A-Z0-9-]* ')

    def test_log_level(self):
        server = self.start_master('--log-level', 'error')
        with wire.Wire(server) as conn:
            conn.send(b'wrong')
            conn.rest()
        self.stop_master(server)
        self.assertEqual(server.stderr, '')

    def test_the_key_is_never_told(self):
        server = self.start_master('--log-level', 'debug', key='a very secret key that stays one')
        with wire.Wire(server) as conn:
            conn.send(b'wrong')
            conn.rest()
        wire.Session(server).close()
        self.stop_master(server)
        self.assertNotIn('secret', server.stdout + server.stderr)

    def test_weak_key_is_warned_of(self):
        for key in ('abc', 'fifteen bytes..'):
            server = self.start_master(key=key)
            server.expect_stderr(r' warn \S*KEY\S* .*%d bytes' % len(key))
        server = self.start_master(key='sixteen bytes...')
        self.stop_master(server)
        self.assertNotRegex(server.stderr, r'\d+ bytes')

    def test_no_key(self):
        """On the loopback only, with a warning; stock clients use an empty one."""
        server = self.start_master(key=None)
        server.expect_stderr(r' warn \S*KEY\S* no authkey')
        self.assertEqual(wire.control(server, 'dummy'), ('#RETURN', None))

    def test_key_from_the_environment(self):
        server = self.start_master(key=None, env={'TASKQ_AUTHKEY': 'a key of the environment'})
        server.key = 'a key of the environment'
        self.assertEqual(wire.control(server, 'dummy'), ('#RETURN', None))
        self.assertNotRegex(server.stderr, ' warn ')

    def test_key_from_a_file(self):
        """One newline at its end is no part of it; and it goes before the environment."""
        with TempDir() as folder:
            path = os.path.join(folder, 'key')
            for content, key in ((b'a key from a file\n', 'a key from a file'),
                                 (b'a key from a file', 'a key from a file'),
                                 (b' spaces and\nlines \n', ' spaces and\nlines ')):
                with open(path, 'wb') as f:
                    f.write(content)
                os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
                server = self.start_master('--authkey-file', path, key=None, env={'TASKQ_AUTHKEY': 'another'})
                server.key = key
                self.assertEqual(wire.control(server, 'dummy'), ('#RETURN', None))

    def test_key_on_the_command_line_is_warned_of(self):
        server = self.start_master()
        self.assertRegex(server.stderr, r' warn AUTHKEY .*--authkey-file')

    def test_several_addresses(self):
        argv = [TASK_MASTER, '--listen', '127.0.0.1:0', '--listen', 'localhost:0']
        server = Process(argv, name='task-master')
        self.addCleanup(server.clear)
        ports = [int(server.expect(r'^task-master ready on \S+:(\d+)$').group(1))]
        server.expect_stderr(r' READY address=')
        listened = set(re.findall(r' LISTEN address=\S+:(\d+)', server.stderr))
        self.assertGreaterEqual(len(listened), 2)
        for port in listened:
            socket.create_connection(('127.0.0.1', int(port)), 10).close()
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0)

    def test_ipv6(self):
        try:
            with socket.socket(socket.AF_INET6) as sock:
                sock.bind(('::1', 0))
        except OSError:  # a machine without it: told like any other address that is not there
            status, _, stderr = run('--listen', '[::1]:0')
            self.assertEqual(status, 1)
            self.assertIn('::1', stderr)
            return
        server = MasterUnderTest(listen='[::1]')
        self.addCleanup(server.clear)
        with socket.create_connection(('::1', server.port), 10) as sock:
            self.assertEqual(sock.recv(4), b'\0\0\0\x3b')
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0)

    def test_port_is_free_again_at_once(self):
        server = self.start_master()
        session = wire.Session(server)  # the server closes first: its end leaves TIME_WAIT behind
        self.addCleanup(session.close)
        for _ in range(3):
            self.stop_master(server)
            server = self.start_master(port=server.port)

    def test_sigint_is_a_good_end(self):
        server = MasterUnderTest()
        self.addCleanup(server.clear)
        server.signal(signal.SIGINT)
        self.assertEqual(server.wait(20), 0, server.describe())

    def test_closed_stdout_is_no_reason_to_die(self):
        """`task-master | head -1`: nobody reads on."""
        server = subprocess.Popen([TASK_MASTER, '--listen', '127.0.0.1:0'], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_env())
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        port = int(server.stdout.readline().rpartition(b':')[2])
        server.stdout.close()
        for _ in range(3):
            socket.create_connection(('127.0.0.1', port), 10).close()
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0)


class WrongStartTest(ServerCase):
    """One line with cause and remedy, and the right exit status."""

    def refuses(self, status, words, *argv, **kwargs):
        got, stdout, stderr = run(*argv, **kwargs)
        complaint = [line for line in stderr.splitlines() if not re.match(r'^\d{4}-\S+ task-master (info|warn) ', line)]
        self.assertEqual(got, status, stderr)
        self.assertEqual(stdout, '')
        self.assertEqual(len(complaint), 1, stderr)
        self.assertLess(len(complaint[0]), 400)
        for word in words:
            self.assertIn(word, complaint[0])

    def test_port_taken(self):
        server = self.start_master()
        where = '127.0.0.1:%d' % server.port
        self.refuses(1, [where, 'in use'], '--listen', where)

    def test_unknown_host(self):
        self.refuses(1, ['no-such-host.invalid', 'unknown host'], '--listen', 'no-such-host.invalid:0')

    def test_address_of_another_machine(self):
        self.refuses(1, ['192.0.2.1', 'address'], '--listen', '192.0.2.1:0', '--authkey', 'sixteen bytes or more')

    def test_not_an_address(self):
        for address in ('127.0.0.1', '127.0.0.1:', '127.0.0.1:70000', '127.0.0.1:http', '127.0.0.1:-1', ''):
            self.refuses(2, ['--listen', 'port' if address else ''], '--listen', address)

    def test_unknown_option(self):
        self.refuses(2, ['--lisen', "did you mean '--listen'", '--help'], '--lisen', '127.0.0.1:0')
        self.refuses(2, ['--zzz', '--help'], '--zzz')
        self.refuses(2, ['extra', '--help'], 'extra')

    def test_missing_value(self):
        self.refuses(2, ['--listen', 'value'], '--listen')

    def test_bad_numbers(self):
        for option in ('--preauth-timeout', '--max-frame-bytes', '--max-connections', '--write-timeout'):
            for value in ('x', '', '-1', '1x', '99999999999999999999999', '1e400', 'nan'):
                self.refuses(2, [option], option, value)

    def test_bad_queues(self):
        for spec, word in (('', 'name'), ('a b', 'a b'), ('a/b', 'a/b'), ('x' * 201, 'name'), ('a,kind=heap', 'heap'),
                           ('a,maxsize=x', 'maxsize'), ('a,maxsize=-1', 'maxsize'), ('a,ack=never', 'never'),
                           ('a,color=red', 'color'), ('a,kind', 'kind'), ('a,typeid=', 'typeid'), ('a,', 'setting')):
            self.refuses(2, ['--queue', word], '--queue', spec)

    def test_queue_declared_twice(self):
        self.refuses(2, ['twice', 'a'], '--queue', 'a', '--queue', 'a,kind=lifo')

    def test_name_taken_by_another_queue(self):
        self.refuses(2, ["'get_task_queue'", 'queue a'], '--queue', 'a,typeid=get_task_queue')
        self.refuses(2, ["'a'", 'queue a'], '--queue', 'a', '--queue', 'b,typeid=a')

    def test_names_of_factories(self):
        for name in ('Queue', 'JoinableQueue'):
            self.refuses(2, [name], '--queue', name)
            self.refuses(2, [name], '--queue', 'a,typeid=' + name)

    def test_key_file(self):
        self.refuses(1, ['/nonexistent/key', 'No such file'], '--authkey-file', '/nonexistent/key')
        with TempDir() as folder:
            self.refuses(1, [folder, 'directory'], '--authkey-file', folder)
            path = os.path.join(folder, 'empty')
            open(path, 'w').close()
            self.refuses(1, [path, 'empty'], '--authkey-file', path)

    def test_open_to_the_network(self):
        """Only with a key that cannot be guessed, unless told otherwise."""
        for address in ('0.0.0.0:0', '[::]:0', ':0'):
            self.refuses(1, ['without an authkey', '--authkey-file', '127.0.0.1'], '--listen', address)
            self.refuses(1, ['--allow-weak-authkey', '16 bytes', '3 bytes'], '--listen', address, '--authkey', 'abc')
        for key, option in (('sixteen bytes...', ()), ('abc', ('--allow-weak-authkey',))):
            server = self.start_master(*option, key=key, listen='0.0.0.0')
            server.host = '127.0.0.1'
            self.assertEqual(wire.control(server, 'dummy'), ('#RETURN', None))

    def test_help(self):
        for option in ('--help', '-h'):
            status, stdout, stderr = run(option)
            self.assertEqual((status, stderr), (0, ''))
            for word in ('Usage: task-master', '--listen', '--authkey-file', '--queue', '--allow-shutdown',
                         '--preauth-timeout', '--max-frame-bytes', '--write-timeout', '127.0.0.1:5000'):
                self.assertIn(word, stdout)
            self.assertLess(max(map(len, stdout.splitlines())), 81)

    def test_version(self):
        status, stdout, stderr = run('--version')
        self.assertEqual((status, stderr), (0, ''))
        self.assertRegex(stdout, r'^task-master \d+\.\d+\.\d+\n$')


if __name__ == '__main__':
    main()
