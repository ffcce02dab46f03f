"""task-worker and task-master as they are: workers are killed and stopped, connections cut and frozen. Every task
has one result; none is lost, none is answered twice."""
import collections
import select
import signal
import socket
import struct
import threading

import harness
import native
from worker import WorkerCase

TASKS = 1000


def result(n):
    return '%d * %d = %d' % (n, n, n * n)


class Proxy:
    """Stands between a worker and its master. cut() resets what goes through it, freeze() swallows it."""

    host = '127.0.0.1'

    def __init__(self, server):
        self.key = server.key
        self.upstream = (server.host, server.port)
        self.listener = socket.socket()
        self.listener.bind((self.host, 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        self.wake, self.woken = socket.socketpair()
        self.lock = threading.Lock()
        self.orders = []
        self.pairs = {}  # socket -> the other one
        self.frozen = set()
        self.accepted = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _order(self, what):
        with self.lock:
            self.orders.append(what)
        self.wake.send(b'x')

    def cut(self):
        self._order('cut')

    def freeze(self):
        self._order('freeze')

    def close(self):
        self._order('close')
        self.thread.join()
        self.wake.close()
        self.woken.close()

    def _drop(self, sock, reset):
        if sock not in self.pairs:
            return  # it went with the other one
        for s in (sock, self.pairs.pop(sock)):
            self.pairs.pop(s, None)
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            s.close()

    def _accept(self):
        near, _ = self.listener.accept()
        far = socket.create_connection(self.upstream)
        for s in (near, far):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pairs[near], self.pairs[far] = far, near
        self.accepted += 1

    def _pump(self, sock):
        try:
            data = sock.recv(1 << 16)
            if data and sock not in self.frozen:
                self.pairs[sock].sendall(data)
        except OSError:
            data = b''
        if not data:
            self._drop(sock, False)

    def _run(self):
        while True:
            ready, _, _ = select.select([self.listener, self.woken] + list(self.pairs), [], [])
            for sock in ready:
                if sock is self.listener:
                    self._accept()
                elif sock in self.pairs:
                    self._pump(sock)
            if self.woken not in ready:
                continue
            self.woken.recv(100)
            with self.lock:
                orders, self.orders = self.orders, []
            for order in orders:
                if order == 'freeze':
                    self.frozen = set(self.pairs)
                else:
                    for sock in list(self.pairs):
                        self._drop(sock, True)
            if 'close' in orders:
                self.listener.close()
                return


class Losses(WorkerCase):
    def setUp(self):
        self.master = self.start_master()
        self.client = native.Native(self.master)
        self.addCleanup(self.client.close)
        self.client.call('declare', q='task_queue', update=True, grace_ms=300)

    def start_worker(self, server, *options, **kwargs):
        return super().start_worker(server, '--jobs', 8, '--sleep', '0.1', '--heartbeat', 1, '--drain-timeout', 60,
                                    *options, **dict({'peer': 'taskq'}, **kwargs))

    def proxy(self):
        proxy = Proxy(self.master)
        self.addCleanup(proxy.close)
        return proxy

    def collect(self, seen, until):
        """Takes results until there are so many."""
        while sum(seen.values()) < until:
            tasks = self.client.get('result_queue', max=50, wait_ms=60000)
            self.assertNotEqual(tasks, [], 'no result for a minute, %d so far' % sum(seen.values()))
            for task in tasks:
                seen[task[3]] += 1
            self.client.done(*[task[:2] for task in tasks])

    def check_all(self, seen):
        self.assertEqual(seen, collections.Counter(result(n) for n in range(TASKS)))
        self.assertEqual(self.client.get('result_queue', wait_ms=0), [])

    def test_killed_stopped_cut_and_frozen(self):
        self.client.put('task_queue', *range(TASKS // 2))
        self.client.put('task_queue', *range(TASKS // 2, TASKS))
        frozen, cut = self.proxy(), self.proxy()
        mortal = self.start_worker(self.master)
        stopped = self.start_worker(self.master)
        behind = [self.start_worker(frozen), self.start_worker(cut)]
        seen = collections.Counter()
        for turn in range(1, 8):
            self.collect(seen, turn * 80)
            if turn % 2:
                cut.cut()
            else:
                mortal.kill()
                mortal = self.start_worker(self.master)
            if turn == 3:
                stopped.signal(signal.SIGSTOP)
            if turn == 4:
                frozen.freeze()
        self.collect(seen, TASKS)
        self.check_all(seen)
        self.assertEqual(self.client.call('join', q='task_queue', wait_ms=10000)['unfinished'], 0)
        # What was in the stopped worker's hands others have done meanwhile; its own results do no harm.
        stopped.signal(signal.SIGCONT)
        stopped.expect_stderr('LEASES-LOST|RESULTS-SETTLED|RESULT-STALE')
        harness.poll_until(lambda: frozen.accepted > 1, 'the frozen connection is given up')
        self.check_all(seen)
        for worker in [mortal, stopped] + behind:
            self.stop(worker)
        self.check_all(seen)

    def test_two_dialects_at_one_master(self):
        """The same worker once in Python's dialect: results and acknowledgements are one step there, too."""
        self.client.put('task_queue', *range(TASKS))
        seen = collections.Counter()
        mortal = [self.start_worker(self.master, peer=peer) for peer in ('taskq', 'python')]
        for turn in range(1, 5):
            self.collect(seen, turn * 100)
            worker = mortal.pop(0)
            worker.kill()
            mortal.append(self.start_worker(self.master, peer=('taskq', 'python')[turn % 2]))
        self.collect(seen, TASKS)
        self.check_all(seen)
        for worker in mortal:
            self.stop(worker)


if __name__ == '__main__':
    harness.main()
