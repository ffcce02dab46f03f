"""Records conversations of real clients with a task-master as inputs of fuzz_server: those of the oldest and
the newest Python that is found, and of tests/integration/taskq_native.py.

usage: server_record.py FOLDER       TASKQ_BUILD: the build folder, as for the integration tests
"""
import os
import socket
import struct
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'integration'))

import harness  # noqa: E402 (the path comes first)
import native  # noqa: E402

msgpack = native.load_msgpack()
import taskq_native  # noqa: E402 (it imports msgpack)

# As in server_world.h.
QUEUES = ('prio,kind=priority,maxsize=6,max_attempts=3',
          'lifo,kind=lifo,ack=explicit,full=reject,maxsize=4,dead=grave,max_attempts=2,max_deliveries=2',
          'once,ack=get,rate_per_s=5,concurrency=2,lease_ms=1000,ttl_ms=4000,expires_ms=60000',
          'late,result=back,retention_ms=2000,grace_ms=100,retry_ms=10,max_attempts=3')
# As in fuzz_server.c: actions, and how many clients there are.
CONNECT, FRAME, CLOSE = 0, 4, 9
PLACES = 8
HANDSHAKE_FRAMES = 3

PRELUDE = '''
import queue, sys, threading
from multiprocessing.managers import BaseManager
class QueueManager(BaseManager):
    pass
for name in ('task_queue', 'result_queue', 'prio', 'lifo', 'once'):
    QueueManager.register('get_' + name)
QueueManager.register('Queue')
class Opaque:
    pass
m = QueueManager(address=('127.0.0.1', int(sys.argv[1])), authkey=sys.argv[2].encode())
m.connect()
'''
PYTHON = {
    'master': '''
t, r = m.get_task_queue(), m.get_result_queue()
for n in range(3):
    t.put(n)
for n in range(3):
    r.put('%d' % t.get(timeout=1))
    t.task_done()
t.join()
print([r.get(timeout=10) for n in range(3)])
''',
    'items': '''
t = m.get_task_queue()
for item in (None, True, -1, 10 ** 30, 0.5, 'text', b'bytes', [1, [2]], (1, 'a'), {'k': 1}, {1, 2}, Opaque()):
    t.put(item)
    t.get()
''',
    'errors': '''
t, x = m.get_lifo(), m.get_once()
for call in (lambda: t.get(False), lambda: t.get(timeout=-1), lambda: t.get(foo=1), lambda: t.task_done(),
             lambda: [t.put_nowait(n) for n in range(6)], lambda: t.put(1, True, 0.01), lambda: x.get(timeout=0.01),
             lambda: m.get_nothing()):
    try:
        call()
    except Exception as e:
        print(type(e))
print(t.qsize(), t.empty(), t.full(), str(t), repr(t))
''',
    'factory': '''
q = m.Queue(2)
q.put('x')
q.put('y')
try:
    q.put('z', timeout=0.01)
except queue.Full:
    print('full')
print(q.get(), q.get_nowait(), q.qsize())
print(m._number_of_objects() if hasattr(m, '_number_of_objects') else 0)
del q
''',
    'priority': '''
p = m.get_prio()
for item in ((2, 'b'), (1, 'a'), (3, 'c'), (1, 'z')):
    p.put(item)
try:
    p.put('not a pair')
except TypeError as e:
    print(e)
print([p.get() for n in range(4)])
''',
    'threads': '''
t = m.get_task_queue()
got = []
other = threading.Thread(target=lambda: got.append(t.get(timeout=10)))
other.start()
t.put('for the thread')
other.join()
print(got)
''',
}


FOR_NATIVE = '''
t = m.get_task_queue()
for item in ((1, 'a'), Opaque(), 'text'):
    t.put(item)
'''


# ---- msgpack, with ids that the fuzzer counts from its own first one ----

class Id(int):
    pass


def pack(value):
    if isinstance(value, Id):
        return struct.pack('>BQ', 0xcf, value)
    if isinstance(value, dict):
        return b'\xdf' + struct.pack('>I', len(value)) + b''.join(pack(k) + pack(v) for k, v in value.items())
    if isinstance(value, (list, tuple)) and not isinstance(value, msgpack.ExtType):
        return b'\xdd' + struct.pack('>I', len(value)) + b''.join(pack(v) for v in value)
    return msgpack.packb(value, use_bin_type=True)


def mark_ids(payload):
    """The same message with its ids marked."""
    message = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    params = message[-1]
    if not isinstance(params, dict):
        return payload
    if isinstance(params.get('id'), int):
        params['id'] = Id(params['id'])
    if isinstance(params.get('ids'), list):
        params['ids'] = [Id(n) for n in params['ids']]
    for field in ('leases', 'done', 'fail'):
        for lease in params.get(field, ()):
            lease[0] = Id(lease[0])
    packed = pack(message[-1])
    return bytes([0x90 | len(message)]) + b''.join(pack(v) for v in message[:-1]) + packed


# ---- the proxy ----

class Recorder:
    """Forwards connections to the master, and writes down what the clients say."""

    host = '127.0.0.1'

    def __init__(self, server):
        self.target = (server.host, server.port)
        self.script = bytearray([0])
        self._lock = threading.Lock()
        self._places = []
        self._threads = []
        self._listener = socket.socket()
        self._listener.bind((self.host, 0))
        self._listener.listen(16)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pump, ends in ((self._record, (near, far)), (self._pump, (far, near))):
                thread = threading.Thread(target=pump, args=ends, daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _end(*socks):
        for sock in socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _pump(self, here, there):
        try:
            while True:
                data = here.recv(1 << 16)
                if not data:
                    break
                there.sendall(data)
        except OSError:
            pass
        self._end(here, there)

    def _record(self, near, far):
        stream = near.makefile('rb')
        place = None
        with self._lock:
            place = next(n for n in range(PLACES) if n not in self._places)
            self._places.append(place)
            self.script += bytes([CONNECT | place << 4, 0])
        try:
            frames = 0
            while True:
                header = stream.read(4)
                if len(header) < 4:
                    break
                payload = stream.read(struct.unpack('!i', header)[0])
                frames += 1
                if frames > HANDSHAKE_FRAMES:
                    self._note(place, payload)
                far.sendall(header + payload)
        except OSError:
            pass
        with self._lock:
            self.script += bytes([CLOSE | place << 4])
            self._places.remove(place)
        self._end(near, far)

    def _note(self, place, payload):
        if payload[0] != 0x80:
            payload = mark_ids(payload)
        with self._lock:
            self.script += bytes([FRAME | place << 4]) + struct.pack('>H', len(payload)) + payload

    def close(self):
        self._end(self._listener)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


# ---- conversations ----

def run_python(recorder, interpreter, program):
    subprocess.run([interpreter.path, '-c', PRELUDE + program, str(recorder.port), harness.KEY],
                   env=harness.clean_env(**interpreter.env), check=True, stdout=subprocess.DEVNULL, timeout=60)


def client(recorder, **more):
    return taskq_native.Client((recorder.host, recorder.port), harness.KEY.encode(), **more)


def native_cycle(recorder):
    with client(recorder) as producer, client(recorder, worker='w1') as worker:
        producer.call('put', q='task_queue', tasks=[['a'], [['b', 1]], [{'c': None}]], opts={'retention_ms': 1000})
        first, second = worker.call('get', q='task_queue', max=2, wait_ms=-1)['tasks']
        [third] = worker.call('done', done=[[first[0], first[1], 'A']], get={'q': 'task_queue', 'max': 4},
                              fail=[[second[0], second[1], {'error': 'no', 'final': True}]])['tasks']
        worker.call('extend', leases=[third[:2]], ms=1000)
        worker.call('release', leases=[third[:2]])
        for result in producer.call('get', q='result_queue', max=9)['tasks']:
            producer.call('done', done=[result[:2]])
        worker.call('bye')


def native_wait(recorder):
    with client(recorder) as producer, client(recorder, worker='w2') as worker:
        options = {'key': 'once', 'result': None, 'trace': '00-ab-cd-01'}
        [first] = producer.call('put', q='late', tasks=[[1, options]])['ids']
        waiting = producer.start('wait', id=first, wait_ms=-1)
        joining = producer.start('join', q='late', wait_ms=-1)
        [task] = worker.call('get', q='late')['tasks']
        worker.call('done', done=[task[:2] + [b'the value']])
        waiting.result()
        joining.result()
        producer.call('put', q='late', tasks=[[2]], opts={'key': 'once'})
        producer.call('wait', q='late', key='once')
        endless = producer.start('get', q='prio', wait_ms=-1)
        producer.call('cancel', call=endless.msgid)


def native_admin(recorder):
    with client(recorder) as admin:
        admin.call('declare', q='mine', kind='priority', dead='grave', max_attempts=1, expires_ms=60000)
        ids = admin.call('put', q='mine', tasks=[[1], [2], [3]], opts={'priority': -1})['ids']
        admin.call('pause', q='mine')
        admin.call('tasks', q='mine', bodies=True)
        admin.call('remove', ids=ids[:1])
        admin.call('resume', q='mine')
        [task] = admin.call('get', q='mine')['tasks']
        admin.call('fail', fail=[task[:2] + [{'error': 'cannot', 'final': True}]])
        admin.call('retry', q='grave')
        for method in ('stats', 'queues', 'workers', 'ping'):
            admin.call(method)
        admin.call('stats', q='mine')
        admin.call('purge', q='mine')
        admin.call('declare', q='mine', update=True, maxsize=2, rate_per_s=5)
        admin.call('delete', q='mine')


def native_full(recorder):
    with client(recorder) as producer, client(recorder, worker='w1') as worker:
        producer.start('put', q='prio', tasks=[[n] for n in range(9)], wait_ms=-1, opts={'priority': 2})
        producer.start('put', q='prio', tasks=[[n] for n in range(9)], wait_ms=-1)
        producer.call('ping')  # both wait by now
        tasks = worker.call('get', q='prio', max=5)['tasks']
        worker.call('done', done=[task[:2] for task in tasks])
        producer.call('ping')


def mixed(recorder, interpreter):
    with client(recorder, worker='w1') as worker, client(recorder) as collector:
        collecting = collector.start('get', q='result_queue', wait_ms=-1, take=True)
        run_python(recorder, interpreter, FOR_NATIVE)
        tasks = worker.call('get', q='task_queue', max=3, wait_ms=-1)['tasks']
        worker.call('done', done=[task[:2] + ['done'] for task in tasks])
        collecting.result()


def main(folder):
    def record(name, talk, *more):
        server = harness.MasterUnderTest(queues=QUEUES)
        recorder = Recorder(server)
        talk(recorder, *more)
        recorder.close()
        server.check_and_stop()
        with open(os.path.join(folder, name), 'wb') as f:
            f.write(recorder.script)
        print('%s: %d bytes' % (name, len(recorder.script)))

    os.makedirs(folder, exist_ok=True)
    for program in sorted(PYTHON):
        for interpreter in (harness.interpreters()[0], harness.interpreters()[-1]):
            record('python%d.%d-%s' % (interpreter.version[:2] + (program,)), run_python, interpreter,
                   PYTHON[program])
    for talk in (native_cycle, native_wait, native_full, native_admin):
        record(talk.__name__.replace('_', '-'), talk)
    record('mixed', mixed, harness.old_middle_new()[-1])


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
