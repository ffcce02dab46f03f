#!/usr/bin/env python3
"""task-master against Python's own manager, in one run: the same clients, the same machine, in turns.

Each measure starts a fresh server, measures, and stops it; Python's manager and task-master take turns, so that
whatever else the machine does meets both. The table holds medians and, behind them, the range of all repetitions.
Nothing here is a test: the exit status is 0 when everything could be measured, whatever came out.

    python3 tests/bench/bench_python.py [--quick] [--only connect,pairs,cycle,parked,burst]
"""
import argparse
import json
import os
import platform
import secrets
import selectors
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PEER = os.path.join(HERE, 'pypeer.py')
READY_SECONDS = 10

OURS = 'task-master'
FLOOR = 'floor'


class Failed(Exception):
    pass


def busy_seconds():
    """CPU time spent by the whole machine since it started."""
    with open('/proc/stat') as f:
        fields = [int(n) for n in f.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf('SC_CLK_TCK')


def wait_for_quiet(limit_seconds):
    """Waits until nobody else works on this machine: less than a tenth of one CPU over half a second."""
    limit = time.monotonic() + limit_seconds
    while time.monotonic() < limit:
        before = busy_seconds()
        time.sleep(0.5)
        if busy_seconds() - before < 0.05:
            return True
    return False


class Server:
    """A server process of one kind: an interpreter's manager, or task-master."""

    def __init__(self, kind, bench):
        self.kind = kind
        if kind == OURS:
            command = [bench.master, '--listen', '127.0.0.1:0'] + bench.master_options
        else:
            command = [kind, PEER, 'serve']
        self.log = open(os.path.join(bench.build, 'bench-server.log'), 'ab')
        self.process = subprocess.Popen(command, env=bench.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log)
        try:
            self.address = self.read_address()
        except Failed:
            self.stop()
            raise

    def read_address(self):
        """The end of the first line that says ready."""
        selector = selectors.DefaultSelector()
        selector.register(self.process.stdout, selectors.EVENT_READ)
        limit = time.monotonic() + READY_SECONDS
        seen = b''
        while time.monotonic() < limit:
            if not selector.select(limit - time.monotonic()):
                continue
            piece = os.read(self.process.stdout.fileno(), 4096)
            seen += piece
            for line in seen.split(b'\n')[:-1]:
                if b'ready' in line:
                    return line.split()[-1].decode()
            if not piece:
                break
        raise Failed('%s did not get ready (see bench-server.log in the build folder)' % self.kind)

    def cpu_seconds(self):
        """CPU time of all its threads; in steps of a clock tick, so over a second or more."""
        with open('/proc/%d/stat' % self.process.pid) as f:
            fields = f.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Bench:
    def __init__(self, options):
        self.options = options
        self.build = os.path.abspath(options.build)
        self.master = os.path.join(self.build, 'bin', 'task-master')
        self.load = os.path.join(self.build, 'bin', 'bench_pyload')
        self.floor = os.path.join(self.build, 'bin', 'bench_floor')
        self.master_options = options.master_option
        self.env = dict(os.environ, TASKQ_AUTHKEY=secrets.token_hex(16))

    def output(self, command, seconds):
        try:
            done = subprocess.run(command, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise Failed('%s: not done within %d s' % (os.path.basename(command[0]), seconds))
        if done.returncode != 0:
            raise Failed(done.stderr.decode(errors='replace').strip().splitlines()[-1])
        return json.loads(done.stdout.decode())

    def python(self, server, interpreter, what):
        """An unmodified Python client."""
        seconds = self.options.seconds
        return self.output([interpreter, PEER, what, server.address, str(seconds)], seconds * 3 + 30)

    def pyload(self, server, mode, *more):
        """The C load generator."""
        command = [self.load, '--json', '--connect', server.address, '--client', self.options.client,
                   '--server-pid', str(server.process.pid)]
        return self.output(command + list(more) + [mode], 120)


# ---- the measures: (kind of server, interpreter of the clients) -> numbers by name ----

def measure_connect(bench, server, interpreter):
    return bench.python(server, interpreter, 'connect')


def measure_pairs(bench, server, interpreter):
    before = server.cpu_seconds()
    got = bench.python(server, interpreter, 'pairs')
    got['server_cpu_us'] = (server.cpu_seconds() - before) * 1e6 / got['count']
    return got


def measure_cycle(bench, server, _interpreter):
    return bench.pyload(server, 'cycle', '--sessions', '64', '--seconds', str(bench.options.seconds),
                        '--window', '8')


def measure_parked(bench, server, _interpreter):
    ours = server.kind == OURS
    sessions = bench.options.sessions if ours else min(500, bench.options.sessions)
    # Python's short backlog loses clients that connect at once, and they hang; 8 at a time get in.
    return bench.pyload(server, 'parked', '--sessions', str(sessions), '--window', '64' if ours else '8')


def measure_burst(bench, server, _interpreter):
    ours = server.kind == OURS
    burst = bench.options.sessions if ours else min(500, bench.options.sessions)
    return bench.pyload(server, 'connect', '--burst', str(burst), '--timeout', '20' if ours else '10')


MEASURES = {
    'connect': measure_connect,
    'pairs': measure_pairs,
    'cycle': measure_cycle,
    'parked': measure_parked,
    'burst': measure_burst,
}


class Row:
    """A line of the table. better: 'more' or 'less'; aim: (text, function of ours and ratio), or None.
    The ratio says how many times better task-master is."""

    def __init__(self, measure, name, text, unit, better, aim=None, scale=1.0, ratio=True):
        self.measure = measure
        self.name = name
        self.text = text
        self.unit = unit
        self.better = better
        self.aim = aim
        self.scale = scale
        self.ratio = ratio

    def values(self, results, kind):
        found = results.get((self.measure, kind), [])
        return [r[self.name] * self.scale for r in found if self.name in r]

    def cells(self, results, python):
        theirs, ours = self.values(results, python), self.values(results, OURS)
        if not theirs and not ours:
            return None
        ratio = None
        if self.ratio and theirs and ours:
            a, b = statistics.median(theirs), statistics.median(ours)
            up, down = (b, a) if self.better == 'more' else (a, b)
            ratio = up / down if down else None
        aim, met = '', ''
        if self.aim:
            aim = self.aim[0]
            if ours:
                met = 'yes' if self.aim[1](statistics.median(ours), ratio or 0) else 'NO'
        return [self.text, self.unit, spread(theirs), spread(ours),
                '' if ratio is None else '%.1f' % ratio, aim, met]


def rows(sessions):
    few = min(500, sessions)
    return [
        Row('connect', 'per_s', 'connect(), one stock Python client', '1/s', 'more',
            ('>= 1500/s', lambda v, r: v >= 1500)),
        Row('pairs', 'per_s', 'put+get pairs, one stock Python client', '1/s', 'more',
            ('ratio >= 1.5', lambda v, r: r >= 1.5)),
        Row('pairs', 'server_cpu_us', '  CPU of the server, a pair', 'us', 'less'),
        Row('pairs', 'client_cpu_us', '  CPU of that client, a pair', 'us', 'less', ratio=False),
        Row('cycle', 'server_cpu_us_per_cycle', 'server CPU a task cycle, 64 sessions', 'us', 'less',
            ('ratio >= 10', lambda v, r: r >= 10)),
        Row('cycle', 'cycles_per_s', '  task cycles', '1/s', 'more'),
        Row('cycle', 'operation_p50_us', '  latency of one call, p50', 'us', 'less'),
        Row('cycle', 'operation_p99_us', '  latency of one call, p99', 'us', 'less'),
        Row('cycle', 'operation_p999_us', '  latency of one call, p999', 'us', 'less'),
        Row('cycle', 'client_cpu_us_per_cycle', '  CPU of the load generator, a cycle', 'us', 'less', ratio=False),
        Row('parked', 'sessions', 'sessions parked in get', '', 'more', ratio=False),
        Row('parked', 'bytes_per_session', '  server memory, each', 'bytes', 'less',
            ('<= 4096', lambda v, r: v <= 4096)),
        Row('parked', 'server_threads', '  server threads', '', 'less', ratio=False),
        Row('parked', 'handout_seconds', '  one item handed to each', 's', 'less',
            ('<= 1 s', lambda v, r: v <= 1), ratio=sessions == few),
        Row('parked', 'server_cpu_us_per_handout', '  server CPU a hand-out (put and get)', 'us', 'less'),
        Row('parked', 'handout_p99_us', '  from put to the parked client, p99', 'us', 'less'),
        Row('burst', 'connections', 'handshakes begun at one instant', '', 'more', ratio=False),
        Row('burst', 'lost', '  lost of them', '', 'less', ('0', lambda v, r: v == 0), ratio=False),
        Row('burst', 'seconds', '  until the last that came in', 's', 'less', ratio=False),
        Row('burst', 'server_cpu_us_per_connection', '  server CPU a handshake and request', 'us', 'less'),
    ]


def number(v):
    if v == int(v) and abs(v) < 1e7:
        return '%d' % v
    if abs(v) >= 1000:
        return '%.0f' % v
    if abs(v) >= 10:
        return '%.1f' % v
    return '%.3g' % v


def spread(values):
    if not values:
        return '-'
    text = number(statistics.median(values))
    if len(values) > 1 and max(values) != min(values):
        text += ' (%s..%s)' % (number(min(values)), number(max(values)))
    return text


def print_table(head, lines):
    widths = [max(len(line[i]) for line in [head] + lines) for i in range(len(head))]
    for n, line in enumerate([head] + lines):
        # Text to the left, numbers to the right, as Markdown does it.
        cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]
        print('| ' + ' | '.join(cells) + ' |')
        if n == 0:
            print('|' + '|'.join(['-' * (widths[0] + 2)] + ['-' * (w + 1) + ':' for w in widths[1:]]) + '|')
    sys.stdout.flush()


def version_of(interpreter):
    text = subprocess.run([interpreter, '--version'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=True).stdout.decode()
    return text.strip()


def parse_args():
    p = argparse.ArgumentParser(description='task-master against Python\'s own manager, in one run')
    p.add_argument('--python', action='append', metavar='PATH',
                   help='interpreter of the manager and of the clients; may be given again (default: this one)')
    p.add_argument('--build', default=os.environ.get('TASKQ_BUILD', os.path.join(ROOT, 'build')), metavar='DIR',
                   help='where bin/task-master and bin/bench_pyload stand (TASKQ_BUILD; default: build)')
    p.add_argument('--only', metavar='LIST', help='of ' + ','.join(MEASURES))
    p.add_argument('--servers', default='python,taskq', metavar='LIST', help='of python,taskq (default: both)')
    p.add_argument('--reps', type=int, default=3, metavar='N', help='repetitions (3)')
    p.add_argument('--seconds', type=float, default=3, metavar='S', help='length of each timed measure (3)')
    p.add_argument('--sessions', type=int, default=10000, metavar='N', help='parked sessions and burst (10000)')
    p.add_argument('--client', default='3.13', metavar='3.x', help='handshake of the load generator (3.13)')
    p.add_argument('--master-option', action='append', default=[], metavar='OPTION',
                   help='passed on to task-master; may be given again')
    p.add_argument('--cpus', metavar='LIST', help='run server and clients on these CPUs only, like 0 or 0,1')
    p.add_argument('--quiet-wait', type=float, default=10, metavar='S',
                   help='wait this long for an idle machine before each repetition (10)')
    p.add_argument('--quick', action='store_true', help='one repetition of one second each')
    p.add_argument('--json', metavar='FILE', help='write all single results there, too')
    options = p.parse_args()
    if options.quick:
        options.reps, options.seconds = 1, 1
    options.only = options.only.split(',') if options.only else list(MEASURES)
    options.servers = options.servers.split(',')
    if set(options.only) - set(MEASURES) or set(options.servers) - {'python', 'taskq'}:
        p.error('unknown name in --only or --servers')
    return options


def run(bench, interpreter):
    """All repetitions, in turns. ({(measure, kind): [numbers]}, failures, repetitions begun on a busy machine)"""
    options = bench.options
    kinds = [k for k, name in ((interpreter, 'python'), (OURS, 'taskq')) if name in options.servers]
    results, failures, noisy = {}, [], 0
    for measure in options.only:
        for rep in range(options.reps):
            noisy += not wait_for_quiet(options.quiet_wait)
            if measure == 'cycle':
                got = bench.output([bench.floor, '--json', '64', str(options.seconds)], options.seconds + 30)
                results.setdefault((measure, FLOOR), []).append(got)
            for kind in kinds:
                try:
                    with Server(kind, bench) as server:
                        got = MEASURES[measure](bench, server, interpreter)
                    results.setdefault((measure, kind), []).append(got)
                except Failed as e:
                    name = OURS if kind == OURS else 'Python manager'
                    failures.append('%s, %s, repetition %d: %s' % (measure, name, rep + 1, e))
                    print(failures[-1], file=sys.stderr)
    return results, failures, noisy


def main():
    options = parse_args()
    if options.cpus:
        os.sched_setaffinity(0, {int(n) for n in options.cpus.split(',')})
    bench = Bench(options)
    for path in (bench.load, bench.floor) + ((bench.master,) if 'taskq' in options.servers else ()):
        if not os.access(path, os.X_OK):
            raise SystemExit('%s is not there: build first (cmake --build build), or give --build' % path)
    everything, failed = {}, False
    for interpreter in options.python or [sys.executable]:
        version = version_of(interpreter)
        results, failures, noisy = run(bench, interpreter)
        failed = failed or bool(failures)
        print('%s; %d CPUs, %s; %d repetitions of %g s; 100-byte items; load generator as Python %s' %
              (version, len(os.sched_getaffinity(0)), platform.platform(terse=True), options.reps, options.seconds, options.client))
        print()
        lines = [c for c in (r.cells(results, interpreter) for r in rows(options.sessions)) if c]
        print_table(['measure', 'unit', 'Python manager', OURS, 'ratio', 'aim', 'met'], lines)
        print()
        if options.sessions > 500 and {'parked', 'burst'} & set(options.only):
            print('Python\'s manager holds a thread for each session, so it is measured with 500 where task-master has %d.'
                  % options.sessions)
            print()
        if noisy:
            print('%d of %d repetitions began while others were at work on this machine (--quiet-wait): the numbers show it.'
                  % (noisy, options.reps * len(options.only)))
            print()
        floor = [r['server_cpu_us_per_cycle'] for r in results.get(('cycle', FLOOR), [])]
        if floor:
            print('A server that only reads each request and writes a reply (bench_floor) needs %s us a task cycle here.'
                  % spread(floor))
            print()
        for line in failures:
            print('not measured: ' + line)
        everything[version] = {'%s/%s' % (m, 'python' if k == interpreter else k): v for (m, k), v in results.items()}
    if options.json:
        with open(options.json, 'w') as f:
            json.dump(everything, f, indent=1)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
