"""Getting in: many at once, every dialect, wrong keys, silent peers, and how long it takes."""
import collections
import errno
import selectors
import socket
import time

import wire
from harness import (ServerCase, all_clients, expand, main, open_descriptors, per_interpreter, poll_until,
                     raise_descriptor_limit)


class Login:
    """One client of a crowd: a handshake, then accept_connection and qsize, on a non-blocking socket."""

    def __init__(self, server, dialect, ident):
        self.key = server.key.encode()
        self.dialect = dialect
        self.ident = ident
        self.got = b''
        self.out = b''
        self.done = False
        self.steps = iter(self.talk())
        self.sock = socket.socket()
        self.sock.setblocking(False)
        error = self.sock.connect_ex((server.host, server.port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, 'connect')
        next(self.steps)

    def talk(self):
        message = yield
        assert message.startswith(wire.CHALLENGE), message
        self.out += wire.frame(wire.answer(self.key, message[len(wire.CHALLENGE):], self.dialect))
        message = yield
        assert message == wire.WELCOME, message
        own = b'{sha256}' + b'o' * 40 if self.dialect == 'modern' else b'o' * 20
        self.out += wire.frame(wire.CHALLENGE + own)
        message = yield
        assert message == wire.answer(self.key, own, self.dialect), message
        self.out += wire.frame(wire.WELCOME)
        self.out += wire.frame(wire.pickle.dumps((None, 'accept_connection', ('MainProcess',), {}), 3))
        message = yield
        assert wire.pickle.loads(message) == ('#RETURN', None), message
        self.out += wire.frame(wire.pickle.dumps((self.ident, 'qsize', (), {}), 3))
        message = yield
        assert wire.pickle.loads(message) == ('#RETURN', 0), message
        self.done = True
        yield

    def on_readable(self):
        data = self.sock.recv(4096)
        if not data:
            raise AssertionError('closed by the server')
        self.got += data
        while len(self.got) >= 4:
            n = int.from_bytes(self.got[:4], 'big')
            if len(self.got) < 4 + n:
                break
            message, self.got = self.got[4:4 + n], self.got[4 + n:]
            self.steps.send(message)
        if self.out:  # a few hundred bytes always fit
            sent = self.sock.send(self.out)
            self.out = self.out[sent:]
            assert not self.out


@expand
class CrowdTest(ServerCase):

    def test_a_thousand_at_the_same_instant(self):
        raise_descriptor_limit(4096)
        server = self.start_master()
        probe = wire.Probe(server)
        self.addCleanup(probe.close)
        ident = probe.ident('task_queue')
        probe.settle()
        before = open_descriptors(server.pid)
        selector = selectors.DefaultSelector()
        crowd = []
        try:
            for n in range(1000):
                client = Login(server, ('modern', 'legacy', 'rhel')[n % 3], ident)
                crowd.append(client)
                selector.register(client.sock, selectors.EVENT_READ, client)
            waiting = len(crowd)
            end = time.monotonic() + 60
            while waiting and time.monotonic() < end:
                for key, _ in selector.select(1):
                    key.data.on_readable()
                    if key.data.done:
                        selector.unregister(key.fileobj)
                        waiting -= 1
            self.assertEqual(waiting, 0)
            self.assertEqual(open_descriptors(server.pid), before + 1000)
        finally:
            for client in crowd:
                client.sock.close()
            selector.close()
        poll_until(lambda: open_descriptors(server.pid) == before, 'the descriptors are given back')

    def test_interpreters_at_the_same_instant(self):
        server = self.start_master()
        clients = [self.start_client(i, 'connect_once.py', server=server) for i in all_clients() * 4]
        self.assertGreaterEqual(len(clients), 4)
        for client in clients:
            self.assertEqual(client.wait(), 0, client.describe())
            self.assertEqual(client.lines(), ['size 0'])

    @per_interpreter()
    def test_connect_takes_no_40_milliseconds(self, interpreter):
        """A stock client writes twice in a row at the end of its handshake: no delayed ACK may meet that."""
        server = self.start_master()
        seconds = float(self.run_client(interpreter, 'connect_many.py', server=server)[0].split()[1])
        self.assertLess(seconds, 0.4)


@expand
class AuthenticationTest(ServerCase):

    def setUp(self):
        self.server = self.start_master()

    def test_dialects(self):
        ident = wire.create(self.server, 'task_queue')
        for dialect in ('legacy', 'rhel', 'modern', 'md5', 'sha256', 'sha384', 'sha3_256', 'sha3_384'):
            session = wire.Session(self.server, dialect=dialect)
            session.call(ident, 'put', dialect)
            self.assertEqual(session.call(ident, 'get'), dialect)
            session.call(ident, 'task_done')  # else its end, without a decref, gives the item back
            session.close()

    @per_interpreter()
    def test_red_hat(self, interpreter):
        probe = wire.Probe(self.server)
        self.addCleanup(probe.close)
        probe.call('task_queue', 'put', 7)
        self.run_client(interpreter, 'rhel_worker.py', server=self.server)
        self.assertEqual(probe.call('result_queue', 'get', timeout=5), '7 * 7 = 49')

    @per_interpreter()
    def test_wrong_key_of_a_stock_client(self, interpreter):
        lines = self.run_client(interpreter, 'wrong_key.py', server=self.server, env={'TASKQ_KEY': 'wrong'})
        self.assertEqual(lines, ['refused: digest sent was rejected'])

    def test_wrong_key_learns_nothing(self):
        for dialect in ('legacy', 'rhel', 'modern', 'sha384'):
            with wire.Wire(self.server) as conn:
                conn.send(wire.answer(b'wrong', conn.receive_challenge(), dialect))
                self.assertEqual(conn.receive(), wire.FAILURE)
                self.assertEqual(conn.rest(), b'')  # stock servers send a traceback with paths here
        self.server.expect_stderr(r' AUTH-FAILED ')
        self.assertNotIn(self.server.key, self.server.stderr)
        self.assertNotIn('wrong', self.server.stderr.split('AUTH-FAILED', 1)[1].split('\n', 1)[0].split('peer=')[0])

    def test_server_that_does_not_know_the_key(self):
        """The client finds the server's digest wrong: it says so and goes."""
        with wire.Wire(self.server) as conn:
            conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
            self.assertEqual(conn.receive(), wire.WELCOME)
            conn.send(wire.CHALLENGE + b'{sha256}' + b'c' * 40)
            conn.receive()
            conn.send(wire.FAILURE)
            self.assertIn(conn.rest(), (b'', wire.frame(wire.FAILURE)))

    def test_md5_can_be_refused(self):
        server = self.start_master('--refuse-md5')
        for dialect, good in (('legacy', False), ('md5', False), ('modern', True), ('rhel', True), ('sha384', True)):
            with wire.Wire(server) as conn:
                conn.send(wire.answer(conn.key, conn.receive_challenge(), dialect))
                self.assertEqual(conn.receive(), wire.WELCOME if good else wire.FAILURE, dialect)

    def test_key_with_any_bytes(self):
        server = self.start_master(key='k\u00e9y with spaces, = and \u20ac')
        wire.Session(server).close()

    def test_challenges_of_clients(self):
        """What may stand behind #CHALLENGE#: 20 bytes, or a digest's name and at least as many."""
        for challenge, dialect in ((b'c' * 20, 'legacy'), (b'{sha256}' + b'c' * 12, 'legacy'),
                                   (b'{sha256}' + b'c' * 40, 'sha256'), (b'{md5}' + b'c' * 20, 'md5'),
                                   (b'{sha384}' + b'c' * 237, 'sha384'), (b'{sha3_256}' + b'\0' * 60, 'sha3_256')):
            with wire.Wire(self.server) as conn:
                conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
                self.assertEqual(conn.receive(), wire.WELCOME)
                conn.send(wire.CHALLENGE + challenge)
                self.assertEqual(conn.receive(), wire.answer(conn.key, challenge, dialect), challenge)
                conn.send(wire.WELCOME)
                self.assertEqual(conn.ask(None, 'dummy'), ('#RETURN', None))

    def test_bad_challenges_of_clients(self):
        for challenge in (b'', b'c' * 19, b'c' * 21, b'c' * 40, b'{sha1}' + b'c' * 40, b'{sha512}' + b'c' * 40,
                          b'{sha256' + b'c' * 40, b'{}' + b'c' * 40, b'sha256}' + b'c' * 40):
            with wire.Wire(self.server) as conn:
                conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
                self.assertEqual(conn.receive(), wire.WELCOME)
                conn.send(wire.CHALLENGE + challenge)
                self.assertEqual(conn.rest(), b'', challenge)

    def test_challenges_are_all_different(self):
        seen = collections.Counter()
        for _ in range(2000):
            with wire.Wire(self.server) as conn:
                challenge = conn.receive_challenge()
                self.assertEqual((len(challenge), challenge[:8]), (48, b'{sha256}'))
                seen[challenge] += 1
        self.assertEqual(len(seen), 2000)


class SilentPeerTest(ServerCase):

    def test_cut_after_three_seconds(self):
        """Whoever has not proved to know the key by then, at each point of the handshake."""
        server = self.start_master()

        def silent(conn):
            pass

        def challenged(conn):
            conn.receive_challenge()

        def half_a_frame(conn):
            conn.receive_challenge()
            conn.send_bytes(b'\0\0\0\x28{sha')

        def answered(conn):
            conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
            assert conn.receive() == wire.WELCOME

        def nearly_in(conn):
            answered(conn)
            conn.send(wire.CHALLENGE + b'{sha256}' + b'c' * 40)
            conn.receive()

        peers = []
        for behave in (silent, challenged, half_a_frame, answered, nearly_in):
            start = time.monotonic()
            conn = wire.Wire(server)
            self.addCleanup(conn.close)
            behave(conn)
            peers.append((behave.__name__, start, conn))
        for name, start, conn in peers:
            conn.rest()
            self.assertAlmostEqual(time.monotonic() - start, 3.0, delta=0.5, msg=name)

    def test_the_deadline_is_an_option(self):
        server = self.start_master('--preauth-timeout', '0.5')
        start = time.monotonic()
        with wire.Wire(server) as conn:
            conn.rest()
        self.assertLess(time.monotonic() - start, 2.5)

    def test_the_deadline_is_absolute(self):
        """A byte now and then does not move it."""
        server = self.start_master('--preauth-timeout', '0.6')
        start = time.monotonic()
        with wire.Wire(server) as conn:
            conn.receive_challenge()
            message = wire.frame(b'x' * 200)
            for byte in message:  # would take 20 s
                conn.sock.settimeout(0.1)
                try:
                    conn.send_bytes(bytes([byte]))
                    if conn.sock.recv(100) == b'':
                        break
                except socket.timeout:
                    continue
                except (wire.Closed, ConnectionResetError, BrokenPipeError):
                    break
            else:
                self.fail('never closed')
        self.assertLess(time.monotonic() - start, 2.6)

    def test_sessions_may_be_silent(self):
        server = self.start_master('--preauth-timeout', '0.5', '--first-request-timeout', '0.5')
        session = wire.Session(server)
        self.addCleanup(session.close)
        with wire.Wire(server) as conn:
            conn.rest()  # more than that time has passed for the session
        with wire.Wire(server) as conn:
            conn.handshake()
            self.assertEqual(conn.rest(), b'')  # no request in time
        self.assertEqual(session.call(wire.create(server, 'task_queue'), 'qsize'), 0)


if __name__ == '__main__':
    main()
