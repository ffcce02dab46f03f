# A client of task-master's native dialect, whole (proto/PROTOCOL.md). Besides Python it needs msgpack (Debian:
# python3-msgpack). Import Master from it, or run it:
#     python3 native_client.py 3 4 5     puts numbers into task_queue, prints what workers made of them
#     python3 native_client.py --work    is such a worker, until Ctrl-C
import hmac, os, socket, struct, sys

import msgpack


class Refused(Exception):
    """An error reply: code and text."""

    def __init__(self, code, text):
        super().__init__('%s: %s' % (code, text))
        self.code, self.text = code, text


class Master:
    """One connection. call() sends a request and waits for its reply; what the master says of its own accord
    meanwhile, like `lost`, is in notices."""

    def __init__(self, address=('127.0.0.1', 5000), authkey=b'abc', **hello):
        self.address, self.notices = address, []
        self.last_id = 0
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile('rb')
        self.handshake(authkey)
        self.welcome = self.call('hello', version=1, client='native_client.py', **hello)

    def handshake(self, authkey):
        """Both sides prove that they have the key."""
        def proof(message):
            return b'{sha256}' + hmac.new(authkey, message, 'sha256').digest()
        question = self.receive()[len(b'#CHALLENGE#'):]
        self.send(proof(question))
        if self.receive() != b'#WELCOME#':
            raise PermissionError('the master has another authkey')
        question = b'{sha256}' + os.urandom(40)
        self.send(b'#CHALLENGE#' + question)
        if not hmac.compare_digest(self.receive(), proof(question)):
            raise PermissionError('this is not the master: it does not have the authkey')
        self.send(b'#WELCOME#')

    def call(self, method, **params):
        self.last_id = (self.last_id + 1) % 2 ** 32
        self.send(msgpack.packb([0, self.last_id, method, params]))
        while True:
            kind, *message = msgpack.unpackb(self.receive(), strict_map_key=False, unicode_errors='surrogateescape')
            if kind == 2:
                self.notices.append(message)  # [method, params]
            elif message[0] == self.last_id:
                break
        _, error, result = message
        if error is not None:
            raise Refused(*error)
        return result

    def send(self, payload):
        n = len(payload)
        self.sock.sendall((struct.pack('>i', n) if n < 2 ** 31 else struct.pack('>iQ', -1, n)) + payload)

    def receive(self):
        n, = struct.unpack('>i', self.read(4))
        if n == -1:
            n, = struct.unpack('>Q', self.read(8))
        return self.read(n)

    def read(self, n):
        data = self.file.read(n)
        if len(data) < n:
            raise ConnectionError('the master closed the connection')
        return data

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.sock.close()


def submit(master, numbers):
    mine = 'reply.%s' % os.urandom(8).hex()  # a queue for our results alone; it goes when nobody uses it
    master.call('declare', q=mine, expires_ms=60000)
    missing = len(master.call('put', q='task_queue', tasks=[[n] for n in numbers], opts={'result': mine})['ids'])
    while missing:
        results = master.call('get', q=mine, max=missing, wait_ms=-1)['tasks']
        for id, epoch, attempt, value, info in results:
            print(value if info['outcome'] == 'ok' else '%s: %s' % (info['outcome'], info.get('error', '')))
        missing -= master.call('done', done=[[id, epoch] for id, epoch, *_ in results])['ok']


def work(master):
    wanted = {'q': 'task_queue', 'wait_ms': -1}
    tasks = master.call('get', **wanted)['tasks']
    while True:
        done, fail = [], []
        for id, epoch, attempt, n, *info in tasks:
            try:
                done.append([id, epoch, '%d * %d = %d' % (n, n, n * n)])
            except Exception as error:
                fail.append([id, epoch, {'error': repr(error)}])
        tasks = master.call('done', done=done, fail=fail, get=wanted)['tasks']


if __name__ == '__main__':
    host, port = os.environ.get('TASKQ_MASTER', '127.0.0.1:5000').rsplit(':', 1)
    master = Master((host, int(port)), os.environ.get('TASKQ_AUTHKEY', 'abc').encode())
    if sys.argv[1:] == ['--work']:
        work(master)
    else:
        submit(master, [int(n) for n in sys.argv[1:] or range(10)])
