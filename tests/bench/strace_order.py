#!/usr/bin/env python3
"""Proof from outside: every reply of a durable put leaves task-master after a sync of what it tells of.

    python3 tests/bench/strace_order.py [--bin build/bin] [--puts 3000] [--connections 16]

Runs task-master --data-dir under strace, lets some connections put tasks with a mark in each body, a few at a time,
and then follows each mark through the system calls: it comes in (recvfrom), goes to the log (pwrite64), a sync of
that file (fdatasync, fsync) begins after that write has ended, and ends before the reply with that request's number
begins to go out (sendto, write, sendmsg). Also prints how many puts each sync had. A program, never a test of a run:
exit status 0 if all replies are in order, 1 if one is not, 2 if strace is not there or not allowed.
"""
import argparse
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, 'integration'))
import native  # noqa: E402 pylint: disable=wrong-import-position
import taskq_native  # noqa: E402 pylint: disable=wrong-import-position

KEY = b'a key of strace_order.py'
CALLS = 'recvfrom,read,readv,recvmsg,sendto,write,writev,sendmsg,pwrite64,pwritev,fdatasync,fsync'
MARK = re.compile(rb'mark-(\d{8})')


# ---- the load ----

class Putter(threading.Thread):
    """One connection: so many puts, `depth` on their way. Its numbers of requests tell their marks."""

    def __init__(self, address, first, count, depth):
        super().__init__()
        self.first, self.count, self.depth = first, count, depth
        self.client = taskq_native.Client(address, KEY)
        self.failure = None

    def run(self):
        try:
            calls = []
            for i in range(self.count):
                if len(calls) == self.depth:
                    calls.pop(0).result()
                body = b'mark-%08d' % (self.first + i)
                calls.append(self.client.start('put', q='task_queue', tasks=[[body]]))
            for call in calls:
                call.result()
            self.client.close()
        except Exception as e:  # pylint: disable=broad-except
            self.failure = e


def run_load(address, args):
    each = args.puts // args.connections
    putters = [Putter(address, i * each, each, 1 + i % 4) for i in range(args.connections)]
    for p in putters:
        p.start()
    for p in putters:
        p.join(120)
        if p.failure or p.is_alive():
            raise SystemExit('a put failed: %r' % (p.failure,))
    return each * args.connections


# ---- the trace ----

LINE = re.compile(r'^(\d+) +(\d+\.\d+) (.*)$')
CALL = re.compile(r'^(\w+)\((\d+)<([^>]*)>(.*)$', re.S)
RESUMED = re.compile(r'^<\.\.\. (\w+) resumed>(.*)$', re.S)
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def data_of(text):
    return b''.join(bytes.fromhex(s.replace('\\x', '')) for s in STRING.findall(text))


def path_of(text):
    return re.sub(r'\\x([0-9a-f]{2})', lambda found: chr(int(found.group(1), 16)), text)


def calls_of(path):
    """(began, ended, name, file descriptor's text, bytes), in the order in which they ended; began and ended are
    numbers of lines: strace writes them in the order of events."""
    begun = {}
    with open(path, errors='replace') as f:
        for number, line in enumerate(f):
            found = LINE.match(line.rstrip('\n'))
            if not found:
                continue
            pid, _, rest = found.groups()
            resumed = RESUMED.match(rest)
            if resumed:
                began, name, fd, text = begun.pop(pid)
                text += resumed.group(2)
            else:
                call = CALL.match(rest)
                if not call:
                    continue
                name, fd, text = call.group(1), call.group(2) + ' ' + path_of(call.group(3)), call.group(4)
                began = number
                if rest.endswith('<unfinished ...>'):
                    begun[pid] = (began, name, fd, text)
                    continue
            yield began, number, name, fd, text


def frames(stream):
    """Whole frames at the beginning of a bytearray, which loses them."""
    while len(stream) >= 4:
        n = struct.unpack('>i', stream[:4])[0]
        if n < 0 or len(stream) < 4 + n:
            return
        yield bytes(stream[4:4 + n])
        del stream[:4 + n]


class Follower:
    def __init__(self):
        self.came = {}     # socket: bytes that are no whole frame yet
        self.went = {}
        self.asked = {}    # (socket, msgid): mark
        self.written = {}  # mark: number of the line at which its write ended
        self.synced = {}   # mark: number of the line at which a sync that covers it ended
        self.waiting = {}  # descriptor: marks that are written and not synced
        self.replies = self.wrong = self.syncs = 0

    def take(self, began, ended, name, fd, text):
        number = fd.split()[0]  # a segment may get its name while it is written to
        if name in ('fdatasync', 'fsync'):
            self.sync(began, ended, number)
        elif name in ('pwrite64', 'pwritev'):
            for mark in MARK.findall(data_of(text)):
                self.waiting.setdefault(number, []).append(int(mark))
                self.written[int(mark)] = ended
        elif 'TCP' in fd and name in ('recvfrom', 'read', 'readv', 'recvmsg'):
            self.receive(fd, data_of(text), text)
        elif 'TCP' in fd:
            self.send(began, fd, data_of(text), text)

    def sync(self, began, ended, number):
        if not self.waiting.get(number):
            return
        self.syncs += 1
        left = []
        for mark in self.waiting[number]:
            if self.written[mark] < began:
                self.synced[mark] = ended
            else:
                left.append(mark)
        self.waiting[number] = left

    def receive(self, fd, data, text):
        done = re.search(r'= (-?\d+)', text)
        count = int(done.group(1)) if done else 0
        if count <= 0:
            return
        stream = self.came.setdefault(fd, bytearray())
        stream += data[:count]
        for frame in frames(stream):
            mark = MARK.search(frame)
            if mark and frame[0] == 0x94:
                self.asked[fd, taskq_native.unpack(frame)[1]] = int(mark.group(1))

    def send(self, began, fd, data, text):
        done = re.search(r'= (-?\d+)[^=]*$', text)
        count = int(done.group(1)) if done else 0
        stream = self.went.setdefault(fd, bytearray())
        stream += data[:max(count, 0)]
        for frame in frames(stream):
            if frame[0] != 0x94:
                continue
            message = taskq_native.unpack(frame)
            mark = self.asked.pop((fd, message[1]), None) if message[0] == 1 else None
            if mark is None:
                continue
            self.replies += 1
            synced = self.synced.get(mark)
            if synced is None or synced > began:
                self.wrong += 1
            if (synced is None or synced > began) and self.wrong <= 10:
                print('mark %d: its reply goes out in line %d, %s' % (
                    mark, began, 'but its sync ends in line %d' % synced if synced else 'and it is not synced'))


# ---- the run ----

def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bin', default=os.path.join(os.path.dirname(TESTS), 'build', 'bin'))
    parser.add_argument('--puts', type=int, default=3000)
    parser.add_argument('--connections', type=int, default=16)
    return parser.parse_args()


def main():
    args = options()
    if not shutil.which('strace'):
        print('strace is not installed')
        return 2
    work = tempfile.mkdtemp(prefix='strace-order-', dir=args.bin)
    trace = os.path.join(work, 'trace')
    try:
        master = subprocess.Popen(
            ['strace', '-f', '-ttt', '-yy', '-xx', '-s', '10000000', '-e', 'trace=' + CALLS, '-o', trace,
             os.path.join(args.bin, 'task-master'), '--listen', '127.0.0.1:0', '--data-dir', os.path.join(work, 'data')],
            stdout=subprocess.PIPE, env=dict(os.environ, TASKQ_AUTHKEY=KEY.decode()))
        ready = master.stdout.readline().decode()
        if 'ready on' not in ready:
            print('task-master did not start under strace')
            return 2
        host, port = ready.split()[-1].rsplit(':', 1)
        puts = run_load((host, int(port)), args)
        master.send_signal(signal.SIGTERM)  # strace hands it on
        with open('/proc/%d/task/%d/children' % (master.pid, master.pid)) as f:
            for child in f.read().split():
                os.kill(int(child), signal.SIGTERM)
        master.wait(60)
        follower = Follower()
        for call in calls_of(trace):
            follower.take(*call)
    finally:
        shutil.rmtree(work)
    print('%d puts on %d connections: %d replies seen, %d of them before their sync; %d syncs of the log, %.1f puts each'
          % (puts, args.connections, follower.replies, follower.wrong, follower.syncs, puts / max(follower.syncs, 1)))
    return 0 if follower.replies == puts and follower.wrong == 0 else 1


if __name__ == '__main__':
    sys.exit(main())
