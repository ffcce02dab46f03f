"""A client of task-master's native dialect, written from proto/PROTOCOL.md alone.

    with Client(('127.0.0.1', 5000), b'the authkey', worker='w1') as master:
        [task] = master.get('task_queue', wait_ms=-1)
        while True:
            [task] = master.done([(task, task.body ** 2)], get={'q': 'task_queue', 'wait_ms': -1})

Any number of threads may use a Client, each with any number of calls on their way: start() sends a request,
and the Call that it returns waits for its reply. It needs msgpack (Debian: python3-msgpack) and nothing else.
"""
import collections
import hmac
import os
import queue
import socket
import struct
import threading

import msgpack

CHALLENGE, WELCOME = b'#CHALLENGE#', b'#WELCOME#'

PYTHON_ITEM = 80
Task = collections.namedtuple('Task', 'id epoch attempt body info')
PythonItem = collections.namedtuple('PythonItem', 'pickle')  # ext 80: what only Python can read


class Error(Exception):
    """An error reply: code and text, as of the page's table of codes."""

    def __init__(self, code, text=''):
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self):
        return '%s: %s' % (self.code, self.text)


class Closed(Exception):
    """The connection ended before the reply came."""


class WrongKey(Exception):
    """One of the two sides does not have the other's key."""


# ---- msgpack ----

def _pack_more(value):
    if isinstance(value, PythonItem):
        return msgpack.ExtType(PYTHON_ITEM, value.pickle)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError('no msgpack for %r' % type(value))


def _ext(kind, data):
    return PythonItem(data) if kind == PYTHON_ITEM else msgpack.ExtType(kind, data)


def pack(value):
    """With strict_types, or a PythonItem would be an array, as it is a tuple."""
    return msgpack.packb(value, default=_pack_more, strict_types=True, unicode_errors='surrogateescape')


def unpack(data):
    """Text that is not UTF-8 keeps its bytes (surrogateescape)."""
    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_ext, unicode_errors='surrogateescape')


# ---- framing and handshake ----

def _mac(key, message):
    return hmac.new(key, message, 'sha256').digest()


class Framed:
    """Frames over a socket."""

    def __init__(self, sock):
        self.sock = sock
        self._in = sock.makefile('rb', 1 << 16)
        self._out = threading.Lock()

    def send(self, payload):
        n = len(payload)
        self.send_bytes((struct.pack('>i', n) if n < 2 ** 31 else struct.pack('>iQ', -1, n)) + payload)

    def send_bytes(self, data):
        with self._out:
            try:
                self.sock.sendall(data)
            except OSError as error:
                raise Closed(str(error)) from None

    def receive(self):
        n, = struct.unpack('>i', self._exactly(4))
        if n == -1:
            n, = struct.unpack('>Q', self._exactly(8))
        if n < 0:
            raise ValueError('a frame of negative length')
        return self._exactly(n)

    def _exactly(self, n):
        try:
            data = self._in.read(n)
        except (OSError, ValueError) as error:  # ValueError: closed here
            raise Closed(str(error)) from None
        if len(data) < n:
            raise Closed('end of file')
        return data

    def handshake(self, authkey):
        """Both sides prove that they have the key."""
        theirs = self.receive()
        if not theirs.startswith(CHALLENGE + b'{sha256}'):
            raise ValueError('not a task-master: %r' % theirs[:60])
        self.send(b'{sha256}' + _mac(authkey, theirs[len(CHALLENGE):]))
        if self.receive() != WELCOME:
            raise WrongKey('the master does not know this authkey')
        own = b'{sha256}' + os.urandom(40)
        self.send(CHALLENGE + own)
        if not hmac.compare_digest(self.receive(), b'{sha256}' + _mac(authkey, own)):
            raise WrongKey('the master does not have the authkey')
        self.send(WELCOME)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._in.close()
        self.sock.close()


# ---- requests on their way ----

class Call:
    """A request that was sent. result() waits for its reply."""

    def __init__(self, client, msgid, method):
        self.client = client
        self.msgid = msgid
        self.method = method
        self._there = threading.Event()
        self._error = None
        self._result = None

    def _settle(self, error, result):
        self._error = error
        self._result = result
        self._there.set()

    def answered(self):
        return self._there.is_set()

    def result(self, timeout_s=60.0):
        if not self._there.wait(timeout_s):
            raise TimeoutError('no reply to %s within %g s' % (self.method, timeout_s))
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self):
        """Asks for the end of its waiting. True: it will be answered `canceled`."""
        return self.client.call('cancel', call=self.msgid)['found']


class Client:
    """One connection. `hello` has what the master said. With a `worker` id it is a session: resume() takes it to a
    new connection with all that is still in hand (`leases`, id -> epoch)."""

    def __init__(self, address, authkey, worker=None, token=None, leases=None, heartbeat_ms=0,
                 client='taskq_native.py/1', timeout_s=60.0, say_hello=True):
        self.address = address
        self.authkey = authkey
        self.worker = worker
        self.heartbeat_ms = heartbeat_ms
        self.client = client
        self.hello = {}
        self.leases = dict(leases or {})
        self.notices = queue.Queue()  # (method, params) of the master's notifications
        self.ended = threading.Event()
        self._reader = None
        self._calls = {}
        self._next_id = 0
        self._lock = threading.Lock()
        # A master that is killed in the middle of an accept leaves a connection on which nothing ever comes.
        sock = socket.create_connection(address, timeout=min(timeout_s, 10.0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = Framed(sock)
        try:
            self.frames.handshake(authkey)
            sock.settimeout(None)
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
            if say_hello:
                self.say_hello(token, timeout_s)
        except BaseException:
            self.close()
            raise

    def say_hello(self, token=None, timeout_s=60.0):
        fields = {'version': 1, 'client': self.client}
        if self.worker is not None:
            fields['worker'] = self.worker
        if token is not None:
            fields.update(token=token, leases=list(self.leases.items()))
        if self.heartbeat_ms:
            fields['heartbeat_ms'] = self.heartbeat_ms
        self.hello = self.start('hello', **fields).result(timeout_s)
        if token is not None:
            self.leases = {task_id: epoch for task_id, epoch in self.hello.get('leases', [])}
        if self.heartbeat_ms:
            threading.Thread(target=self._beat, daemon=True).start()

    def resume(self, address=None):
        """The same session on a new connection; its `leases` say what of the work in hand is still its own."""
        return Client(address or self.address, self.authkey, worker=self.worker, token=self.hello['token'],
                      leases=self.leases, client=self.client, heartbeat_ms=self.heartbeat_ms)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.frames.close()
        if self._reader is not None:
            self._reader.join(10)

    def start(self, method, **params):
        """Sends a request; its Call has the reply later."""
        with self._lock:
            if self.ended.is_set():
                raise Closed('the connection has ended')
            while self._next_id in self._calls:
                self._next_id = (self._next_id + 1) % 2 ** 32
            call = Call(self, self._next_id, method)
            self._calls[call.msgid] = call
            self._next_id = (self._next_id + 1) % 2 ** 32
        self.frames.send(pack([0, call.msgid, method, params]))
        return call

    def call(self, method, **params):
        return self.start(method, **params).result(None)

    def notify(self, method, **params):
        self.frames.send(pack([2, method, params]))

    def _read(self):
        why = Closed('the connection has ended')
        try:
            while True:
                self._message(unpack(self.frames.receive()))
        except Closed as error:
            why = error
        finally:
            with self._lock:
                self.ended.set()
                calls, self._calls = self._calls, {}
            for call in calls.values():
                call._settle(why, None)
            self.notices.put((None, {}))  # nothing more will come

    def _message(self, message):
        if message[0] == 1:
            _, msgid, error, result = message
            with self._lock:
                call = self._calls.pop(msgid)
            if error is None and call.method in ('get', 'done', 'fail'):
                self.leases.update((task[0], task[1]) for task in result.get('tasks', []))
            call._settle(None if error is None else Error(*error), result)
        else:
            _, method, params = message
            if method == 'lost':
                self._forget(params['leases'])
            self.notices.put((method, params))

    def notice(self, timeout_s=60.0):
        """The next notification, (method, params); (None, {}) when the connection has ended."""
        return self.notices.get(timeout=timeout_s)

    def _beat(self):
        """Half of what was agreed: a late one is not yet a missed one."""
        while not self.ended.wait(self.heartbeat_ms / 2000.0):
            try:
                self.start('ping')
            except (Closed, OSError):
                return

    def _forget(self, leases):
        for task_id, epoch, *_ in leases:
            if self.leases.get(task_id) == epoch:
                del self.leases[task_id]

    def put(self, q, *bodies, **options):
        """Their ids. `wait_ms` apart, the options are those of `opts`."""
        more = {'wait_ms': options.pop('wait_ms')} if 'wait_ms' in options else {}
        return self.call('put', q=q, tasks=[[body] for body in bodies], opts=options, **more)['ids']

    @staticmethod
    def tasks_of(result):
        return [Task(*task, *([{}] if len(task) == 4 else [])) for task in result['tasks']]

    def get(self, q, max=1, wait_ms=0, take=False):
        params = {'q': q, 'max': max, 'wait_ms': wait_ms}
        if take:
            params['take'] = True
        tasks = self.tasks_of(self.call('get', **params))
        if take:
            self._forget(tasks)
        return tasks

    def done(self, done=(), fail=(), get=None, to=None):
        """done: (task, value) or (task,), fail: (task, {'error': ..., 'final': ...}), any number of each. The next
        tasks with `get` (the params of a get), else the result, which tells what was refused."""
        params = {'done': [[d[0].id, d[0].epoch, *d[1:]] for d in done],
                  'fail': [[f[0].id, f[0].epoch, *f[1:]] for f in fail]}
        if to is not None:
            params['to'] = to
        if get is not None:
            params['get'] = get
        result = self.call('done', **params)
        self._forget(params['done'] + params['fail'])  # not before: a reply that is lost leaves them in hand
        return self.tasks_of(result) if get is not None else result

    def fail(self, task, error, **more):
        result = self.call('fail', fail=[[task.id, task.epoch, dict(more, error=error)]])
        self._forget([task])
        return result

    def extend(self, tasks, ms=None):
        more = {} if ms is None else {'ms': ms}
        return self.call('extend', leases=[[t.id, t.epoch] for t in tasks], **more)

    def release(self, tasks):
        leases = [[t.id, t.epoch] for t in tasks]
        result = self.call('release', leases=leases)
        self._forget(leases)
        return result

    def wait(self, id=None, q=None, key=None, wait_ms=-1):
        what = {'id': id} if id is not None else {'q': q, 'key': key}
        return self.call('wait', wait_ms=wait_ms, **what)

    def join(self, q, wait_ms=-1):
        """How many tasks are not done yet."""
        return self.call('join', q=q, wait_ms=wait_ms)['unfinished']

    def ping(self):
        return self.call('ping')['now_ms']

    def bye(self):
        """Ends the session in good order; the master closes."""
        self.call('bye')
        self.ended.wait(60)
        self.close()

    def declare(self, q, **policies):
        return self.call('declare', q=q, **policies)['created']

    def purge(self, q):
        return self.call('purge', q=q)['dropped']

    def delete(self, q):
        self.call('delete', q=q)

    def pause(self, q, paused=True):
        self.call('pause' if paused else 'resume', q=q)

    def remove(self, ids):
        return self.call('remove', ids=list(ids))

    def retry(self, ids=None, q=None, max=None):
        params = {'ids': ids, 'q': q, 'max': max}
        return self.call('retry', **{k: v for k, v in params.items() if v is not None})

    def stats(self, q=None):
        return self.call('stats', **({} if q is None else {'q': q}))

    def pages(self, method, field, **params):
        """All of a paged list: queues, tasks, workers."""
        while True:
            page = self.call(method, **params)
            yield from page[field]
            if page.get('next') is None:
                return
            params['from'] = page['next']

    def queues(self, **params):
        return self.pages('queues', 'queues', **params)

    def tasks(self, q, **params):
        return self.pages('tasks', 'tasks', q=q, **params)

    def workers(self, **params):
        return self.pages('workers', 'workers', **params)
