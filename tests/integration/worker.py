"""task-worker under test, and a manager server made by hand that can misbehave."""
import os
import pickle
import queue
import signal
import socket
import threading

import harness
import wire

TASK_WORKER = os.path.join(harness.BUILD, 'bin', 'task-worker')
EXAMPLES = os.path.join(harness.HERE, 'examples')


class Worker(harness.Process):
    """build/bin/task-worker --builtin square, at a server or an address. It polls often, so that it also ends
    soon after SIGTERM; options come last, so a test may say otherwise."""

    def __init__(self, server, *options, key=None, peer='python', builtin=True):
        if not os.access(TASK_WORKER, os.X_OK):
            raise RuntimeError('%s is missing: build first, or set TASKQ_BUILD' % TASK_WORKER)
        argv = [TASK_WORKER]
        if server is not None:
            argv += ['--master', server if isinstance(server, str) else '%s:%d' % (server.host, server.port)]
        if builtin:
            argv += ['--builtin', 'square', '--poll-timeout', '0.1']
        if peer:
            argv += ['--peer', peer]
        key = key if key is not None else getattr(server, 'key', harness.KEY)
        super().__init__(argv + [str(o) for o in options], env=harness.clean_env(TASKQ_AUTHKEY=key),
                         name='task-worker')

    def check_sound(self):
        if harness.BROKEN.search(self.stderr):
            raise AssertionError('stderr tells of a bug\n' + self.describe())


class WorkerCase(harness.ServerCase):
    def start_worker(self, server, *options, **kwargs):
        worker = Worker(server, *options, **kwargs)

        def end():
            worker.clear()
            worker.check_sound()
        self.addCleanup(end)
        return worker

    def finish(self, worker, status=0):
        """Its end, with this status, and nothing broken told."""
        self.assertEqual(worker.wait(), status, worker.describe())
        worker.check_sound()

    def stop(self, worker, status=0):
        worker.signal(signal.SIGTERM)
        self.finish(worker, status)

    def start_mortal_reference(self, **kwargs):
        """One that the test itself kills."""
        reference = harness.ReferenceServer(**kwargs)
        self.addCleanup(reference.clear)
        return reference

    def fake(self, **kwargs):
        server = FakeManager(**kwargs)
        self.addCleanup(server.close)
        return server


def free_port():
    """Nothing listens there, and the next listener may have it."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Hangup(Exception):
    """Raised by a hook: the connection is closed without a reply."""


class Peer(wire.Wire):
    """The server's side of one connection."""

    def __init__(self, sock, key):
        self.sock = sock
        self.key = key
        sock.settimeout(wire.TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handshake(self, dialect, before_last=lambda: None):
        """As a server of that age."""
        name = 'sha256' if dialect == 'modern' else dialect
        own = os.urandom(20) if dialect in ('legacy', 'rhel') else b'{%s}' % name.encode() + os.urandom(40)
        self.send(wire.CHALLENGE + own)
        if self.receive() != wire.answer(self.key, own, dialect):
            self.send(wire.FAILURE)
            raise wire.Closed('wrong key')
        self.send(wire.WELCOME)
        theirs = self.receive_challenge()
        before_last()
        self.send(wire.answer(self.key, theirs, dialect))
        if self.receive() != wire.WELCOME:
            raise wire.Closed('not welcome')


class FakeManager:
    """A manager server with a thread for each connection, as Python's own. It records what happens, in
    order: ('dummy', ()), ('create', (typeid,)), ... and ('end', 'session'). hooks: name of a request -> function(fake,
    ident, args, kwds), called in place of the server's own action; it returns (kind, value), bytes to send as they
    are, or raises Hangup."""

    host = '127.0.0.1'

    def __init__(self, key=harness.KEY, dialect='modern', typeids=('get_task_queue', 'get_result_queue'), hooks=None):
        self.key = key
        self.dialect = dialect
        self.typeids = typeids
        self.hooks = hooks or {}
        self.queues = {typeid: queue.Queue() for typeid in typeids}
        self.events = []
        self.handshakes = 0
        self.overlaps = 0  # connections that came while another one was in its handshake
        self.refused = 0
        self.news = threading.Condition()
        self.peers = set()
        self.closing = False
        self.threads = []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, 0))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        self.accepter = threading.Thread(target=self._accept, daemon=True)
        self.accepter.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.news:
                if self.closing:
                    sock.close()
                    return
                self.peers.add(sock)
                self.handshakes += 1
                number = self.handshakes
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            self.threads.append(thread)
            thread.start()

    def close(self):
        with self.news:
            if self.closing:
                return
            self.closing = True
            for sock in self.peers:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.accepter.join()
        for thread in self.threads:
            thread.join()

    def note(self, *event):
        with self.news:
            self.events.append(event)
            self.news.notify_all()

    def wait_for(self, condition, what):
        with self.news:
            if not self.news.wait_for(lambda: condition(self), harness.DEADLINE_S):
                raise AssertionError('%s did not happen: %r' % (what, self.events[-50:]))

    def names(self):
        with self.news:
            return [event[0] for event in self.events]

    def count(self, name):
        return self.names().count(name)

    def _handshake(self, peer, number):
        def before_last():
            # The client cannot have done with this one yet.
            with self.news:
                self.overlaps += self.handshakes - number
        try:
            peer.handshake(self.dialect, before_last)
        except wire.Closed:
            with self.news:
                self.refused += 1
            raise

    def _serve(self, sock, number):
        peer = Peer(sock, self.key.encode())
        session = False
        try:
            self._handshake(peer, number)
            while True:
                ident, function, args, kwds = pickle.loads(peer.receive())
                self.note(function, args)
                reply = self._act(ident, function, args, kwds)
                if isinstance(reply, bytes):
                    peer.send_bytes(reply)
                else:
                    peer.send(pickle.dumps(reply, 2))
                session = session or function == 'accept_connection'
                if not session:
                    return
        except (wire.Closed, Hangup, OSError):
            pass
        finally:
            self.note('end', 'session' if session else 'control')
            sock.close()
            with self.news:
                self.peers.discard(sock)

    def _act(self, ident, function, args, kwds):
        hook = self.hooks.get(function)
        if hook is not None:
            reply = hook(self, ident, args, kwds)
            if reply is not None:
                return reply
        if function == 'create':
            if args[0] not in self.typeids:
                return '#TRACEBACK', 'Traceback (most recent call last):\n  line\nKeyError: %r\n' % args[0]
            return '#RETURN', (args[0], ('get', 'put'))
        if function == 'get':
            try:
                return '#RETURN', self.queues[ident].get(timeout=kwds['timeout'])
            except queue.Empty as error:
                return '#ERROR', error
        if function == 'put':
            self.queues[ident].put(args[0])
        return '#RETURN', None
