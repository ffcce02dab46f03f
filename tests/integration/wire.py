"""The protocol by hand, over raw sockets: framing, both handshakes, requests; see proto/PROTOCOL.md."""
import hmac
import os
import pickle
import socket
import struct

CHALLENGE = b'#CHALLENGE#'
WELCOME = b'#WELCOME#'
FAILURE = b'#FAILURE#'
TIMEOUT_S = 30.0


class Closed(Exception):
    """The peer closed, or reset, the connection."""


def frame(payload):
    return struct.pack('!i', len(payload)) + payload


def mac(key, message, name):
    return hmac.new(key, message, name).digest()


def answer(key, challenge, dialect):
    """The client's answer to everything behind #CHALLENGE#."""
    if dialect == 'legacy':
        return mac(key, challenge, 'md5')
    if dialect == 'rhel':
        return mac(key, challenge, 'sha256')
    name = {'modern': 'sha256'}.get(dialect, dialect)
    return b'{' + name.encode() + b'}' + mac(key, challenge, name.replace('-', '_'))


class Wire:
    """A connection of frames."""

    def __init__(self, server, receive_buffer=None, timeout_s=TIMEOUT_S):
        self.key = server.key.encode()
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout_s)
        self.sock.connect((server.host, server.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.sock.close()

    def send_bytes(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed('while sending')

    def send(self, payload):
        self.send_bytes(frame(payload))

    def read_exactly(self, n):
        parts = []
        while n:
            try:
                part = self.sock.recv(min(n, 1 << 20))
            except ConnectionResetError:
                raise Closed('reset')
            if not part:
                raise Closed('end of file')
            parts.append(part)
            n -= len(part)
        return b''.join(parts)

    def receive(self):
        n, = struct.unpack('!i', self.read_exactly(4))
        if n == -1:
            n, = struct.unpack('!Q', self.read_exactly(8))
        if n < 0:
            raise ValueError('negative length %d' % n)
        return self.read_exactly(n)

    def rest(self):
        """Everything until the peer closes."""
        data = b''
        while True:
            try:
                part = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return data
            if not part:
                return data
            data += part

    # -- the handshake, in steps --

    def receive_challenge(self):
        message = self.receive()
        if not message.startswith(CHALLENGE):
            raise AssertionError('no challenge but %r' % message)
        return message[len(CHALLENGE):]

    def own_challenge(self, dialect):
        if dialect in ('legacy', 'rhel'):
            return os.urandom(20)
        return b'{sha256}' + os.urandom(40)

    def handshake(self, dialect=None, key=None):
        """As a client; without a dialect, as a stock client of the server's age would answer."""
        key = self.key if key is None else key
        challenge = self.receive_challenge()
        dialect = dialect or ('legacy' if len(challenge) == 20 else 'modern')
        self.send(answer(key, challenge, dialect))
        verdict = self.receive()
        if verdict != WELCOME:
            raise AssertionError('not welcome: %r' % verdict)
        own = self.own_challenge(dialect)
        self.send(CHALLENGE + own)
        theirs = self.receive()
        if theirs != answer(key, own, 'sha256' if dialect not in ('legacy', 'rhel') else dialect):
            raise AssertionError('the server does not know the key: %r' % theirs)
        self.send(WELCOME)
        return self

    # -- requests --

    def ask(self, ident, function, *args, **kwds):
        """Sends a request and returns the reply (kind, value)."""
        self.request(ident, function, *args, **kwds)
        return self.reply()

    def request(self, ident, function, *args, **kwds):
        self.send(pickle.dumps((ident, function, args, kwds), 3))

    def reply(self):
        kind, value = pickle.loads(self.receive())
        return kind, value


def control(server, function, *args, **kwds):
    """One control request on a connection of its own: (kind, value)."""
    with Wire(server) as wire:
        wire.handshake()
        return wire.ask(None, function, *args, **kwds)


def create(server, typeid, *args, **kwds):
    """The ident of an object."""
    kind, value = control(server, 'create', typeid, *args, **kwds)
    if kind != '#RETURN':
        raise AssertionError('create %s: %s %s' % (typeid, kind, value))
    return value[0]


class RemoteCallError(Exception):
    """#TRACEBACK or #UNSERIALIZABLE: (kind, text)."""


class Session(Wire):
    """A session as a stock client's thread has one."""

    def __init__(self, server, name='MainProcess', dialect=None, **kwargs):
        super().__init__(server, **kwargs)
        try:
            self.handshake(dialect)
            reply = self.ask(None, 'accept_connection', name)
            if reply != ('#RETURN', None):
                raise AssertionError('accept_connection: %r' % (reply,))
        except BaseException:
            self.close()
            raise

    def call(self, ident, method, *args, **kwds):
        """The result; raises what the server says."""
        self.request(ident, method, *args, **kwds)
        return self.result()

    def result(self):
        kind, value = self.reply()
        if kind == '#RETURN':
            return value
        if kind == '#ERROR':
            raise value
        raise RemoteCallError(kind, value)


class Probe:
    """An observer: a session that asks for sizes and drains, for the test's own checks."""

    def __init__(self, server):
        self.server = server
        self.session = Session(server)
        self.idents = {}

    def ident(self, typeid):
        if typeid not in self.idents:
            self.idents[typeid] = create(self.server, typeid)
        return self.idents[typeid]

    def call(self, typeid, method, *args, **kwds):
        return self.session.call(self.ident(typeid), method, *args, **kwds)

    def settle(self, typeid='get_task_queue', turns=3):
        """When it returns, the server has seen whatever was sent to it before the call."""
        for _ in range(turns):
            self.call(typeid, 'qsize')

    def close(self):
        self.session.close()
