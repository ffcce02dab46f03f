"""What every integration test stands on: interpreters, processes, servers.

Nothing here waits for time to pass: a test waits for a line of output, for the end of a process, for an
end of file, or asks the server again until a condition holds, each with a generous deadline.

Environment: TASKQ_BUILD   build folder with bin/task-master (default: build)
             TASKQ_PYTHONS interpreters to use, separated by colons (default: pyenv's and python3 of PATH)
"""
import atexit
import collections
import functools
import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CLIENTS = os.path.join(HERE, 'clients')
BUILD = os.path.join(ROOT, os.environ.get('TASKQ_BUILD', 'build'))
TASK_MASTER = os.path.join(BUILD, 'bin', 'task-master')

DEADLINE_S = 60.0  # for anything that is expected to happen
KEY = 'an authkey of the integration tests'

# What a sanitizer or a broken assertion leaves on stderr.
BROKEN = re.compile(r'Sanitizer|runtime error:|assertion failed|Assertion `|SUMMARY:|stack smashing|'
                    r'buffer overflow detected|double free|corrupted size')


# ---- interpreters ----

class Interpreter:
    """One CPython. `name` is its version, or says that it emulates another one."""

    def __init__(self, path, version, name=None, env=None):
        self.path = path
        self.version = version
        self.name = name or '.'.join(str(n) for n in version)
        self.ident = 'py' + re.sub(r'\W', '_', self.name)
        self.env = env or {}

    def __repr__(self):
        return self.name


def clean_env(**more):
    """The environment of the tests without what would bend an interpreter or a daemon."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'PYENV_', 'TASKQ_'))}
    env.update(PYTHONUNBUFFERED='1', PYTHONDONTWRITEBYTECODE='1', PYTHONFAULTHANDLER='1',
               PYTHONIOENCODING='utf-8')
    env.update(more)
    return env


@functools.lru_cache(maxsize=None)
def interpreters():
    """Every CPython >= 3.6 that can be found, one of each version, oldest first."""
    named = os.environ.get('TASKQ_PYTHONS')
    if named:
        paths = [p for p in named.split(':') if p]
    else:
        paths = sorted(glob.glob(os.path.expanduser('~/.pyenv/versions/*/bin/python')))
        paths += [p for p in [shutil.which('python3')] if p]
    found = {}
    for path in paths:
        out = subprocess.run([path, '-c', 'import sys; print(sys.implementation.name, *sys.version_info[:3])'],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_env())
        words = out.stdout.decode().split()
        if out.returncode or not words or words[0] != 'cpython':
            continue
        version = tuple(int(n) for n in words[1:])
        if version >= (3, 6):
            found.setdefault(version, Interpreter(path, version))
    if not found:
        raise RuntimeError('no CPython 3.6 or later found: set TASKQ_PYTHONS')
    return tuple(found[v] for v in sorted(found))


@functools.lru_cache(maxsize=None)
def protocol5():
    """What is known of 3.14: an interpreter whose messages are pickles of protocol 5."""
    base = interpreters()[-1]
    if base.version < (3, 8):
        raise RuntimeError('an interpreter from 3.8 on is needed for pickle protocol 5')
    return Interpreter(base.path, base.version, base.name + '-protocol5',
                       {'PYTHONPATH': os.path.join(HERE, 'pickle5')})


def all_clients():
    return interpreters() + (protocol5(),)


def old_middle_new():
    """3.6, 3.11 and 3.13 where they are installed, else the oldest, one in the middle, the newest."""
    have = interpreters()
    named = [i for i in have if i.version[:2] in ((3, 6), (3, 11), (3, 13))]
    return tuple(named) if len(named) == 3 else tuple(dict.fromkeys((have[0], have[len(have) // 2], have[-1])))


def per_interpreter(choose=all_clients):
    """Decorates test_x(self, interpreter): becomes test_x_py3_6_15 and so on, one for each."""
    def mark(function):
        function.per_interpreter = choose
        return function
    return mark


def expand(cls):
    """Class decorator that makes the methods of per_interpreter()."""
    for name, function in [(n, f) for n, f in vars(cls).items() if hasattr(f, 'per_interpreter')]:
        delattr(cls, name)
        for interpreter in function.per_interpreter():
            def method(self, function=function, interpreter=interpreter):
                return function(self, interpreter)
            method.__name__ = '%s_%s' % (name, interpreter.ident)
            method.__doc__ = function.__doc__
            setattr(cls, method.__name__, method)
    return cls


# ---- waiting ----

def poll_until(condition, what, deadline_s=DEADLINE_S):
    """Asks until condition() is true and returns what it gave."""
    pause = threading.Event()
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError('not within %g s: %s' % (deadline_s, what))
        pause.wait(0.003)


def proc_status(pid, field):
    """A field of /proc/PID/status in bytes, such as VmRSS or VmHWM."""
    with open('/proc/%d/status' % pid) as f:
        for line in f:
            if line.startswith(field + ':'):
                return int(line.split()[1]) * 1024
    raise KeyError(field)


def proc_state(pid):
    with open('/proc/%d/stat' % pid) as f:
        return f.read().rpartition(')')[2].split()[0]


@functools.lru_cache(maxsize=None)
def sanitized():
    """Is the master built with a sanitizer? Memory that it freed stays in quarantine then."""
    with open(TASK_MASTER, 'rb') as f:
        return b'__asan_init' in f.read()


def memory_bound(n_bytes):
    """The bound on growth that a test asks for, wider for a sanitizer's build."""
    return n_bytes * 4 + (192 << 20) if sanitized() else n_bytes


def open_descriptors(pid):
    return len(os.listdir('/proc/%d/fd' % pid))


def raise_descriptor_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError('this test needs %d descriptors, the hard limit is %d' % (wanted, hard))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# ---- processes ----

_running = set()  # what this runner has started and not yet cleared


def _clear_all():
    for process in list(_running):
        process.clear()


def _on_sigterm(*_):
    sys.exit(143)  # by way of atexit: a runner whose time is over leaves nothing behind


atexit.register(_clear_all)
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
    signal.signal(signal.SIGTERM, _on_sigterm)


class Process:
    """A child in a session of its own, with its output as lines that can be waited for."""

    def __init__(self, argv, env=None, stdin=False, preexec_fn=None, cwd=None, name=None):
        self.name = name or os.path.basename(argv[0])
        self._lines = {'stdout': [], 'stderr': []}
        self._open = {'stdout', 'stderr'}
        self._seen = 0  # lines of stdout that expect() has passed
        self._news = threading.Condition()
        self._popen = subprocess.Popen(argv, env=env or clean_env(), cwd=cwd, preexec_fn=preexec_fn,
                                       stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        self.pid = self._popen.pid
        _running.add(self)
        self._readers = [threading.Thread(target=self._read, args=(which,), daemon=True)
                         for which in ('stdout', 'stderr')]
        for reader in self._readers:
            reader.start()

    def _read(self, which):
        with getattr(self._popen, which) as pipe:
            for line in pipe:
                with self._news:
                    self._lines[which].append(line.decode('utf-8', 'replace').rstrip('\r\n'))
                    self._news.notify_all()
        with self._news:
            self._open.discard(which)
            self._news.notify_all()

    @property
    def stdout(self):
        with self._news:
            return '\n'.join(self._lines['stdout'])

    @property
    def stderr(self):
        with self._news:
            return '\n'.join(self._lines['stderr'])

    def lines(self):
        with self._news:
            return list(self._lines['stdout'])

    def describe(self):
        return '%s (pid %d, status %s)\n-- stdout\n%s\n-- stderr\n%s' % (
            self.name, self.pid, self._popen.poll(), self.stdout[-6000:], self.stderr[-6000:])

    def expect(self, pattern, deadline_s=DEADLINE_S):
        """The match of the next line of stdout that matches."""
        wanted = re.compile(pattern)
        end = time.monotonic() + deadline_s
        with self._news:
            while True:
                while self._seen < len(self._lines['stdout']):
                    line = self._lines['stdout'][self._seen]
                    self._seen += 1
                    match = wanted.search(line)
                    if match:
                        return match
                left = end - time.monotonic()
                if 'stdout' not in self._open or left <= 0:
                    break
                self._news.wait(left)
        raise AssertionError('no line %r from %s' % (pattern, self.describe()))

    def expect_stderr(self, pattern, deadline_s=DEADLINE_S):
        """The match of the first line of stderr that matches."""
        wanted = re.compile(pattern)
        end = time.monotonic() + deadline_s
        at = 0
        with self._news:
            while True:
                for line in self._lines['stderr'][at:]:
                    at += 1
                    match = wanted.search(line)
                    if match:
                        return match
                left = end - time.monotonic()
                if 'stderr' not in self._open or left <= 0:
                    break
                self._news.wait(left)
        raise AssertionError('no line %r on stderr of %s' % (pattern, self.describe()))

    def tell(self, line):
        self._popen.stdin.write(line.encode() + b'\n')
        self._popen.stdin.flush()

    def close_stdin(self):
        self._popen.stdin.close()

    def alive(self):
        return self._popen.poll() is None

    def signal(self, number):
        self._popen.send_signal(number)

    def wait(self, deadline_s=DEADLINE_S):
        """The exit status, after all output was read."""
        end = time.monotonic() + deadline_s
        try:
            status = self._popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError('still running: ' + self.describe())
        for reader in self._readers:
            reader.join(max(0.1, end - time.monotonic()))
        return status

    def kill(self):
        """SIGKILL for this process alone; gone when it returns."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()

    def clear(self):
        """Kills it and whatever it started; the end of a test."""
        if self not in _running:
            return  # cleared before: its number may be another process's by now
        _running.discard(self)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait()
        if self._popen.stdin and not self._popen.stdin.closed:
            try:
                self._popen.stdin.close()
            except BrokenPipeError:
                pass
        for reader in self._readers:
            reader.join(5)

    def wait_blocked(self):
        """Until the process sleeps in the kernel: after its last line, that is in its blocked call."""
        def blocked():
            if not self.alive():
                raise AssertionError('ended: ' + self.describe())
            return proc_state(self.pid) == 'S'
        poll_until(blocked, self.name + ' blocks')


# ---- servers ----

class QueueSpec(collections.namedtuple('QueueSpec', 'name options')):
    """'NAME,kind=lifo,maxsize=3', as task-master's --queue takes it."""

    @classmethod
    def parse(cls, text):
        name, *options = text.split(',')
        return cls(name, dict(o.split('=', 1) for o in options))


class MasterUnderTest(Process):
    """build/bin/task-master on a free port of the loopback."""

    kind = 'master'

    def __init__(self, *options, queues=(), key=KEY, port=0, env=None, nofile=None, listen='127.0.0.1'):
        if not os.access(TASK_MASTER, os.X_OK):
            raise RuntimeError('%s is missing: build first, or set TASKQ_BUILD' % TASK_MASTER)
        argv = [TASK_MASTER, '--listen', '%s:%d' % (listen, port)]
        if key is not None:
            argv += ['--authkey', key]
        for queue in queues:
            argv += ['--queue', queue]
        argv += list(options)
        limit = None
        if nofile:
            def limit():
                resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
        super().__init__(argv, env=clean_env(**(env or {})), preexec_fn=limit, name='task-master')
        self.key = key or ''
        self.host, port = self.expect(r'^task-master ready on (\S+):(\d+)$').groups()
        self.port = int(port)
        if '--log-level' not in options:
            self.expect_stderr(r' READY address=')  # the whole banner is there for tests to read

    def check_and_stop(self):
        """Raises AssertionError unless it is alive, ends well, and has nothing broken to tell."""
        problems = []
        if not self.alive():
            problems.append('the master ended during the test')
        else:
            self.signal(signal.SIGTERM)
            try:
                status = self.wait(20)
                if status:
                    problems.append('exit status %d after SIGTERM' % status)
            except AssertionError:
                problems.append('it does not end on SIGTERM')
        self.clear()
        if BROKEN.search(self.stderr):
            problems.append('stderr tells of a bug')
        if problems:
            raise AssertionError('; '.join(problems) + '\n' + self.describe())


class ReferenceServer(Process):
    """Python's own manager server under an interpreter, with the same queues and names."""

    kind = 'reference'

    def __init__(self, *options, interpreter=None, queues=(), key=KEY, port=0):
        if options:
            raise ValueError('the reference has no options')
        interpreter = interpreter or interpreters()[-1]
        argv = [interpreter.path, os.path.join(CLIENTS, 'reference_server.py'), str(port), key] + list(queues)
        super().__init__(argv, env=clean_env(**interpreter.env), name='reference ' + interpreter.name)
        self.key = key
        self.host, port = self.expect(r'^reference ready on (\S+):(\d+)$').groups()
        self.port = int(port)

    def check_and_stop(self):
        alive = self.alive()
        self.clear()
        if not alive:
            raise AssertionError('the reference ended during the test\n' + self.describe())


# ---- test cases ----

class ServerCase(unittest.TestCase):
    """Servers and clients that are gone at the end of the test, whatever happened."""

    maxDiff = 4000

    def start_master(self, *options, **kwargs):
        master = MasterUnderTest(*options, **kwargs)
        self.addCleanup(self._end_master, master)
        return master

    def _end_master(self, master):
        if not getattr(master, 'stopped', False):
            master.check_and_stop()

    def stop_master(self, master):
        """Checks and stops it before the test's end."""
        master.stopped = True
        master.check_and_stop()

    def start_reference(self, **kwargs):
        reference = ReferenceServer(**kwargs)
        self.addCleanup(reference.check_and_stop)
        return reference

    def start_client(self, interpreter, script, *args, server=None, **kwargs):
        """Runs clients/SCRIPT; it finds the server through its environment."""
        client = start_client(interpreter, script, *args, server=server, **kwargs)
        self.addCleanup(client.clear)
        return client

    def run_client(self, interpreter, script, *args, deadline_s=DEADLINE_S, **kwargs):
        """Runs it to its end, which must be good; returns its lines."""
        client = self.start_client(interpreter, script, *args, **kwargs)
        if client.wait(deadline_s):
            self.fail('client failed: ' + client.describe())
        return client.lines()

    def run_unittest_client(self, interpreter, script, *args, least=1, deadline_s=120, **kwargs):
        """Runs a client that is itself a set of tests and checks that it ran them: at least so many, none
        skipped."""
        client = self.start_client(interpreter, script, *args, **kwargs)
        status = client.wait(deadline_s)
        ran = re.search(r'^Ran (\d+) tests?', client.stderr, re.M)
        if status or not ran:
            self.fail('%s under %s\n%s' % (script, interpreter, client.describe()))
        self.assertGreaterEqual(int(ran.group(1)), least, client.describe())
        self.assertNotIn('skipped=', client.stderr, client.describe())


def start_client(interpreter, script, *args, server=None, stdin=False, env=None):
    more = dict(interpreter.env)
    if server is not None:
        more.update(TASKQ_HOST=server.host, TASKQ_PORT=str(server.port), TASKQ_KEY=server.key,
                    TASKQ_KIND=server.kind)
    more.update(env or {})
    return Process([interpreter.path, os.path.join(CLIENTS, script)] + [str(a) for a in args],
                   env=clean_env(**more), stdin=stdin, name='%s %s' % (interpreter.name, script))


def run_parallel(jobs, at_once=4):
    """Runs the callables on a few threads; raises what failed after all have ended."""
    jobs = collections.deque(jobs)
    failures = []

    def work():
        while True:
            try:
                job = jobs.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:  # told below, in the test's own thread
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(min(at_once, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise AssertionError('\n\n'.join('%s: %s' % (type(f).__name__, f) for f in failures))


class TempDir:
    """A folder for one test: with TempDir() as path."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix='taskq-test-')
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def main():
    unittest.main(module=sys.modules['__main__'], verbosity=2)
