"""Peers that mean harm: what they get, what it costs, and that nobody else notices."""
import os
import pickle
import select
import signal
import socket
import struct
import threading
import time

import wire
from harness import (MasterUnderTest, ServerCase, TempDir, main, memory_bound, open_descriptors, poll_until,
                     proc_status, raise_descriptor_limit)

MIB = 1 << 20


class HostileCase(ServerCase):
    """Each test has a bystander: a session in a blocked get, and one that calls; both must go on."""

    options = ()

    def setUp(self):
        self.server = self.start_master(*self.options, queues=['bystander'])
        self.probe = wire.Probe(self.server)
        self.addCleanup(self.probe.close)
        self.waiting = wire.Session(self.server)
        self.addCleanup(self.waiting.close)
        self.waiting.request(self.probe.ident('bystander'), 'get')
        self.probe.settle()

    def tearDown(self):
        self.probe.call('bystander', 'put', 'undisturbed')
        self.assertEqual(self.waiting.result(), 'undisturbed')
        self.assertEqual(wire.control(self.server, 'dummy'), ('#RETURN', None))

    def wire(self, **kwargs):
        conn = wire.Wire(self.server, **kwargs)
        self.addCleanup(conn.close)
        return conn

    def session(self, **kwargs):
        session = wire.Session(self.server, **kwargs)
        self.addCleanup(session.close)
        return session

    def closed(self, conn, said=(b'',)):
        """The server closes, having said no more than that."""
        self.assertIn(conn.rest(), said)

    def reset_peak(self):
        with open('/proc/%d/clear_refs' % self.server.pid, 'w') as f:
            f.write('5')
        self.peak_before = proc_status(self.server.pid, 'VmHWM')

    def peak_growth(self):
        return proc_status(self.server.pid, 'VmHWM') - self.peak_before

    def assert_peak(self, input_bytes):
        """At most 4 times the input, and what an allocator may keep besides."""
        self.assertLess(self.peak_growth(), memory_bound(4 * input_bytes + 8 * MIB))


REFUSED = (b'', wire.frame(wire.FAILURE))


class BeforeAuthenticationTest(HostileCase):

    def test_silent_connections_do_not_keep_others_out(self):
        """Inputs 1 and 3: many that say nothing; valid ones come in, working ones work, memory stays small."""
        raise_descriptor_limit(8192)
        self.reset_peak()
        silent = [self.wire() for _ in range(5000)]
        for _ in range(20):
            self.session().call(self.probe.ident('task_queue'), 'qsize')
        growth = self.peak_growth()
        self.assertLess(growth, memory_bound(4096 * len(silent)))
        for conn in silent:
            self.assertEqual(len(conn.rest()), 63)  # the challenge, then the end
        self.server.expect_stderr('PREAUTH-TIMEOUT')

    def test_slow_connections_are_cut_at_the_same_time(self):
        """Input 2: a byte now and then does not move the deadline."""
        start = time.monotonic()
        conn = self.wire()
        conn.receive_challenge()
        conn.send_bytes(b'\0')
        self.assertFalse(select.select([conn.sock], [], [], 2.0)[0])
        conn.send_bytes(b'\0')
        self.closed(conn)
        self.assertAlmostEqual(time.monotonic() - start, 3.0, delta=0.5)

    def test_impossible_lengths(self):
        """Inputs 4 and 5: closed at the header, nothing is allocated."""
        self.reset_peak()
        for header in ('7fffffff', 'fffffffe', '80000000', '00000101', '7f000000', 'ffffffff7fffffffffffffff',
                       'ffffffff0000010000000000', 'ffffffffffffffffffffffff', 'ffffffff0000000000000101'):
            conn = self.wire()
            conn.receive_challenge()
            conn.send_bytes(bytes.fromhex(header))
            self.closed(conn)
        self.assertLess(self.peak_growth(), memory_bound(4 * MIB))

    def test_zero_length_frames(self):
        """Input 6: an empty frame is a wrong answer."""
        conn = self.wire()
        conn.receive_challenge()
        try:
            for _ in range(1000):
                conn.send_bytes(bytes(4000))
        except wire.Closed:
            return
        self.closed(conn, REFUSED)

    def test_a_thousand_wrong_answers(self):
        """Input 7: each is refused; a valid log-in in between is not."""
        for n in range(1000):
            if n % 250 == 0:
                self.session().call(self.probe.ident('task_queue'), 'qsize')
            with wire.Wire(self.server) as conn:
                conn.receive_challenge()
                conn.send(b'{sha256}' + os.urandom(32))
                if n % 100 == 0:
                    self.assertEqual(conn.receive(), wire.FAILURE)
                    self.closed(conn)

    def test_answers_of_wrong_length_or_form(self):
        """Inputs 8 and 9."""
        good = wire.mac
        for form in ((lambda k, m: b''), (lambda k, m: good(k, m, 'md5')[:15]),
                     (lambda k, m: good(k, m, 'md5') + b'x'),
                     (lambda k, m: b'x' * 200), (lambda k, m: b'x' * 256), (lambda k, m: b'{sha999}' + b'x' * 32),
                     (lambda k, m: b'{sha256' + good(k, m, 'sha256')), (lambda k, m: b'{' * 40),
                     (lambda k, m: b'{}' + good(k, m, 'sha256')), (lambda k, m: b'{sha256}'),
                     (lambda k, m: b'{sha256}' + good(k, m, 'sha256')[:31]),
                     (lambda k, m: b'{sha1}' + good(k, m, 'sha1')), (lambda k, m: b'{sha512}' + good(k, m, 'sha512')),
                     (lambda k, m: good(k, m, 'sha384')), (lambda k, m: b'{sha256}' + good(k, m[8:], 'sha256')),
                     (lambda k, m: b'{SHA256}' + good(k, m, 'sha256')),
                     (lambda k, m: b'{md5}' + good(k, m, 'sha256')),
                     (lambda k, m: b'{sha256}\0' + good(k, m, 'sha256'))):
            conn = self.wire()
            conn.send(form(conn.key, conn.receive_challenge()))
            self.assertEqual(conn.receive(), wire.FAILURE)
            self.closed(conn)

    def test_reflection(self):
        """Input 10: our own challenge as the peer's, on this connection and on a second one."""
        first = self.wire()
        challenge = first.receive_challenge()
        first.send(wire.answer(first.key, challenge, 'modern'))
        self.assertEqual(first.receive(), wire.WELCOME)
        first.send(wire.CHALLENGE + challenge)
        self.closed(first, REFUSED)
        victim, second = self.wire(), self.wire()
        challenge = victim.receive_challenge()
        second.send(wire.answer(second.key, second.receive_challenge(), 'modern'))
        self.assertEqual(second.receive(), wire.WELCOME)
        second.send(wire.CHALLENGE + challenge)
        self.closed(second, REFUSED)
        self.server.expect_stderr('AUTH-REFLECTED')

    def test_replay(self):
        """Input 12: what was good once is good only once."""
        with wire.Wire(self.server) as conn:
            answer = wire.answer(conn.key, conn.receive_challenge(), 'modern')
            conn.send(answer)
            self.assertEqual(conn.receive(), wire.WELCOME)
        again = self.wire()
        again.receive_challenge()
        again.send(answer)
        self.assertEqual(again.receive(), wire.FAILURE)
        self.closed(again)

    def test_request_for_an_answer(self):
        """Input 13: nobody reads a request before the handshake is done."""
        for request in (pickle.dumps((None, 'shutdown', (), {}), 3), pickle.dumps((None, 'dummy', (), {}), 4),
                        b'\x94\0\1\xa4ping\x90'):
            conn = self.wire()
            conn.send(request)
            conn.receive_challenge()
            self.closed(conn, REFUSED)

    def test_messages_out_of_turn(self):
        """Input 14."""
        request = pickle.dumps((None, 'dummy', (), {}), 3)
        own = wire.CHALLENGE + b'{sha256}' + b'c' * 40
        for early in ([wire.WELCOME], [own], [wire.CHALLENGE], [wire.FAILURE]):  # instead of an answer
            conn = self.wire()
            conn.receive_challenge()
            for message in early:
                conn.send(message)
            self.closed(conn, REFUSED)
        for middle in (wire.WELCOME, request, b'', b'c' * 48):  # instead of a challenge
            conn = self.wire()
            conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
            self.assertEqual(conn.receive(), wire.WELCOME)
            conn.send(middle)
            self.closed(conn, REFUSED)
        for late in (request, own, b'', b'#WELCOME', b'#WELCOME#\n'):  # instead of the last welcome
            conn = self.wire()
            conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
            self.assertEqual(conn.receive(), wire.WELCOME)
            conn.send(own)
            conn.receive()
            conn.send(late)
            self.closed(conn, REFUSED)
        for first in (wire.WELCOME, own, b''):  # as the first request
            conn = self.wire()
            conn.handshake().send(first)
            self.closed(conn, REFUSED)

    def test_other_protocols(self):
        """Input 15."""
        hello = bytes.fromhex('16030102000100' '01fc0303') + bytes(64 * 1024)
        for data in (hello, b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', b'SSH-2.0-x\r\n',
                     b'*1\r\n$4\r\nPING\r\n', b'\xff' * 100000, bytes(range(256)) * 16):
            conn = self.wire()
            try:
                conn.send_bytes(data)
            except wire.Closed:
                pass
            start = time.monotonic()
            self.assertIn(conn.rest()[63:], REFUSED)
            self.assertLess(time.monotonic() - start, 2)

    def test_out_of_turn_with_everything_in_one_write(self):
        """A whole handshake guessed in advance goes no further than its first message."""
        conn = self.wire()
        conn.send_bytes(wire.frame(b'{sha256}' + bytes(32)) + wire.frame(wire.CHALLENGE + bytes(20)) +
                        wire.frame(wire.WELCOME) + wire.frame(pickle.dumps((None, 'dummy', (), {}), 3)))
        self.assertIn(conn.rest()[63:], REFUSED)


class AfterAuthenticationTest(HostileCase):

    def test_impossible_lengths(self):
        """Input 5: the cap holds for both forms of a length, and is not allocated in advance."""
        self.reset_peak()
        for header in ('7fffffff', 'fffffffe', '80000000', 'ffffffff7fffffffffffffff', 'ffffffff0000010000000000',
                       'ffffffff0000000010000000', '10000000'):
            session = self.session()
            session.send_bytes(bytes.fromhex(header) + bytes(1000))
            self.closed(session)
        self.assertLess(self.peak_growth(), memory_bound(4 * MIB))

    def test_announced_but_not_sent(self):
        """60 MiB announced cost what was sent."""
        self.reset_peak()
        sessions = [self.session() for _ in range(20)]
        for session in sessions:
            session.send_bytes(struct.pack('!i', 60 * MIB) + b'\x80' + bytes(1000))
        self.probe.settle()
        self.assertLess(self.peak_growth(), memory_bound(4 * MIB))

    def test_the_cap_is_an_option(self):
        server = self.start_master('--max-frame-bytes', '65536')
        ident = wire.create(server, 'task_queue')
        with wire.Session(server) as session:
            session.call(ident, 'put', bytes(60000))
            session.request(ident, 'put', bytes(70000))
            session.rest()
        self.assertEqual(wire.control(server, 'number_of_objects')[0], '#RETURN')

    def test_zero_length_frames(self):
        """Input 6: the first of a million ends the session, as it does with Python's own server."""
        self.reset_peak()
        start = time.monotonic()
        session = self.session()
        try:
            for _ in range(1000):
                session.send_bytes(bytes(4000))
        except wire.Closed:
            pass
        else:
            session.rest()
        self.assertLess(time.monotonic() - start, 5)
        self.assertLess(self.peak_growth(), memory_bound(4 * MIB))

    def test_code_in_requests(self):
        """Input 16: never run, and told so."""
        with TempDir() as folder:
            trap = os.path.join(folder, 'trap')
            command = b'touch ' + trap.encode()
            for payload in (b"\x80\x02cos\nsystem\nX" + struct.pack('<i', len(command)) + command + b'\x85R.',
                            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(command)]) + command +
                            b'\x85R.',
                            b"\x80\x02(cos\nsystem\n(S'" + command + b"'\ntRNN}t.",
                            b"\x80\x02(S'" + command + b"'\nios\nsystem\n."):
                session = self.session()
                session.send(payload)
                self.assertEqual(session.reply()[0], '#TRACEBACK')
                self.assertEqual(session.call(self.probe.ident('task_queue'), 'qsize'), 0)
            conn = self.wire()
            conn.handshake().send(b"\x80\x02cos\nsystem\nX" + struct.pack('<i', len(command)) + command + b'\x85R.')
            self.assertEqual(conn.reply()[0], '#TRACEBACK')
            self.assertFalse(os.path.exists(trap))
            # As a timeout, a method name, an ident.
            ident = self.probe.ident('task_queue')

            class Code:
                def __reduce__(self):
                    return os.system, ('touch ' + trap,)
            for args in ((True, Code()), (Code(),)):
                session = self.session()
                session.request(ident, 'get', *args)
                select.select([session.sock], [], [], 0.2)
                session.close()
            for request in ((Code(), 'get', (), {}), (ident, Code(), (), {}), (ident, 'get', Code(), {}),
                            (ident, 'get', (), Code()), (ident, 'get', (), {'block': False, 'timeout': Code()})):
                session = self.session()
                session.send(pickle.dumps(request, 3))
                self.assertIn(session.reply()[0], ('#TRACEBACK', '#ERROR'))
            self.assertFalse(os.path.exists(trap))

    def test_monstrous_pickles(self):
        """Input 17: a bounded error each, memory within 4 times the input."""
        ident = self.probe.ident('task_queue').encode()
        head = b'\x80\x04(X' + struct.pack('<i', len(ident)) + ident + b'X\x03\0\0\0put'
        million = 1000000
        for name, body, accepted in (
                ('memo index', b'Nr\0\0\0\x80\x85}t.', False),
                ('memo index', b'Nr\xff\xff\xff\xff\x85}t.', False),
                ('memo index as text', b'Np4294967295\n\x85}t.', False),
                ('unknown memo entry', b'j\0\0\0\x80\x85}t.', False),
                ('LONG4', b'\x8b\0\0\0\x80' + bytes(10) + b'\x85}t.', False),
                ('LONG4', b'\x8b\xff\xff\xff\x7f' + bytes(10) + b'\x85}t.', False),
                ('BINBYTES8', b'\x8e\xff\xff\xff\xff\xff\xff\xff\xff' + bytes(10) + b'\x85}t.', False),
                ('BINUNICODE', b'X\xff\xff\xff\xff' + bytes(10) + b'\x85}t.', False),
                ('FRAME', b'\x95\xff\xff\xff\xff\xff\xff\xff\x7f' + bytes(10) + b'\x85}t.', False),
                ('nested lists', b']' * million + b'a' * (million - 1) + b'\x85}t.', True),
                ('nested tuples', b')' + b'\x85' * million + b'\x85}t.', True),
                ('marks', b'(' * million + b't' * million + b'\x85}t.', True),
                ('open marks', b'(' * million + b'.', False),
                ('stack', b'N' * million + b'.', False),
                ('memo entries', b'N' + b'\x94' * million + b'\x85}t.', True),
                ('doubled', b'N' + b'2\x86' * million + b'\x85}t.', True),
                ('stack underflow', b'0' * million + b'.', False),
                ('text lines', b"I" + b'1' * million + b'\n\x85}t.', None),
                ('float lines', b"F" + b'1' * million + b'\n\x85}t.', None),
                ('many arguments', b'(' + b'K\x01' * million + b't}t.', False),
                ('many keywords', b')}(' + b'X\x01\0\0\0aK\x01' * 300000 + b'ut.', False),
                ('without end', b'K\x01' * million, False),
                ('unknown opcode', b'\xff\x85}t.', False),
                ('nothing', b'', False)):
            with self.subTest(name=name):
                self.reset_peak()
                session = self.session()
                payload = head + body
                session.send(payload)
                try:
                    kind, value = session.reply()
                except wire.Closed:  # as Python does for a truncated pickle
                    self.assertFalse(accepted)
                else:
                    self.assertIn(kind, ('#RETURN', '#TRACEBACK', '#ERROR'))
                    if accepted is not None:
                        self.assertEqual(kind == '#RETURN', accepted, value)
                self.assert_peak(len(payload))
                while self.probe.call('task_queue', 'qsize'):
                    self.probe.session.request(self.probe.ident('task_queue'), 'get')
                    self.probe.session.receive()
                session.close()

    def test_truncated_at_each_byte(self):
        """A request cut anywhere is an error, never a crash and never half an effect."""
        ident = self.probe.ident('task_queue')
        for protocol in (0, 2, 4):
            whole = pickle.dumps((ident, 'put', ([1, 'two', {'three': 3.0}],), {'block': True}), protocol)
            session = self.session()
            for n in range(len(whole)):
                try:
                    session.send(whole[:n])
                    kind, _ = session.reply()
                    self.assertIn(kind, ('#TRACEBACK', '#ERROR'))
                except wire.Closed:
                    session = self.session()
            self.assertEqual(self.probe.call('task_queue', 'qsize'), 0)

    def test_every_single_byte_changed(self):
        """A request with each byte turned: any answer, or the end of that session, but no harm."""
        ident = self.probe.ident('task_queue')
        whole = pickle.dumps((ident, 'put', ((1, 'two'),), {'block': False}), 3)
        for n in range(len(whole)):
            for flip in (0x01, 0x80, 0xff):
                session = wire.Session(self.server)
                session.send(whole[:n] + bytes([whole[n] ^ flip]) + whole[n + 1:])
                session.request(ident, 'qsize')
                session.sock.shutdown(socket.SHUT_WR)
                session.rest()
                session.close()
        self.probe.call('task_queue', 'qsize')

    def test_wild_queue_names(self):
        for typeid in ('', 'x' * 65536, '../../etc/passwd', 'a\0b', 'n\u00e4me', '\ud800', 'get_', 'a\r\nb', '%s%n%s'):
            kind, text = wire.control(self.server, 'create', typeid)
            self.assertEqual(kind, '#TRACEBACK')
            self.assertLess(len(text), 4096)

    def test_wild_session_names_do_not_forge_log_lines(self):
        with wire.Session(self.server, name='x"\n2020-01-01 error FORGED key=value\x1b[31m'):
            pass
        self.probe.settle()
        self.assertNotIn('\nFORGED', self.server.stderr)
        self.assertFalse([line for line in self.server.stderr.split('\n') if line.startswith('2020-01-01')])
        self.assertNotIn('\x1b', self.server.stderr)

    def test_factories_are_bounded(self):
        server = self.start_master('--max-queues', '50')
        made = [wire.control(server, 'create', 'Queue')[0] for _ in range(60)]
        self.assertIn('#TRACEBACK', made)
        self.assertLessEqual(made.count('#RETURN'), 50)
        self.assertEqual(wire.control(server, 'create', 'task_queue')[0], '#RETURN')


class ReaderTest(HostileCase):
    """Peers that do not read, or read slowly."""

    options = ('--write-timeout', '1')

    def test_that_never_reads(self):
        """Input 21: cut at the write deadline; the item is there again, whole."""
        item = os.urandom(MIB) * 48
        self.probe.call('task_queue', 'put', item)
        lazy = self.session(receive_buffer=4096)
        lazy.request(self.probe.ident('task_queue'), 'get')
        poll_until(lambda: self.probe.call('task_queue', 'qsize') == 0, 'the item is on its way')
        poll_until(lambda: self.probe.call('task_queue', 'qsize') == 1, 'the item is back')
        self.assertEqual(self.probe.call('task_queue', 'get', timeout=5), item)
        self.server.expect_stderr('PEER-NOT-READING')

    def test_that_asks_without_reading(self):
        """Requests pipelined without end: memory for input and replies is bounded, then it is cut or stopped."""
        self.probe.call('result_queue', 'put', 1)
        self.reset_peak()
        greedy = self.session(receive_buffer=4096)
        request = wire.frame(pickle.dumps((self.probe.ident('task_queue'), 'put', (bytes(100), ), {}), 4)) * 100
        greedy.sock.settimeout(3)
        sent = 0
        try:
            while sent < 64 * MIB:
                greedy.send_bytes(request)
                sent += len(request)
        except (wire.Closed, socket.timeout):
            pass
        accepted = self.probe.call('task_queue', 'qsize')
        self.assertLess(self.peak_growth(), memory_bound(accepted * 600 + 24 * MIB))

    def test_that_reads_slowly_is_served(self):
        """A reader that makes progress is no dead one: 8 MiB in pieces over more than the deadline."""
        item = os.urandom(MIB) * 8
        self.probe.call('task_queue', 'put', item)
        slow = self.session(receive_buffer=4096)
        slow.request(self.probe.ident('task_queue'), 'get')
        pause = threading.Event()
        start = time.monotonic()
        first = slow.read_exactly(4096)
        while time.monotonic() - start < 2.2:
            first += slow.read_exactly(65536)
            pause.wait(0.05)
        rest = slow.read_exactly(4 + struct.unpack('!i', first[:4])[0] - len(first))
        self.assertEqual(pickle.loads((first + rest)[4:]), ('#RETURN', item))

    def test_killed_while_reading(self):
        item = os.urandom(MIB) * 16
        for _ in range(5):
            self.probe.call('task_queue', 'put', item)
            reader = self.session(receive_buffer=4096)
            reader.request(self.probe.ident('task_queue'), 'get')
            reader.read_exactly(100000)
            reader.reset()
            poll_until(lambda: self.probe.call('task_queue', 'qsize') == 1, 'the item is back')
            self.assertEqual(self.probe.call('task_queue', 'get'), item)


class CutTest(HostileCase):

    def script(self, conn):
        """What a client sends in a session, message by message, as it goes; reads what must be read."""
        ident = self.probe.ident('task_queue')
        yield wire.frame(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
        conn.receive()
        yield wire.frame(wire.CHALLENGE + b'{sha256}' + os.urandom(40))
        conn.receive()
        yield wire.frame(wire.WELCOME) + wire.frame(pickle.dumps((None, 'accept_connection', ('MainProcess',), {}), 4))
        conn.receive()
        yield wire.frame(pickle.dumps((ident, 'put', ('item',), {}), 4))
        conn.receive()
        yield wire.frame(pickle.dumps((ident, 'get', (), {'timeout': 5}), 4))
        conn.receive()

    def run_until(self, offset):
        """Sends `offset` bytes of the session; None when it is shorter."""
        conn = wire.Wire(self.server)
        for message in self.script(conn):
            part = message[:offset]
            conn.send_bytes(part)
            offset -= len(part)
            if offset == 0:
                return conn
        conn.close()
        return None

    def test_reset_at_each_byte(self):
        before = open_descriptors(self.server.pid)
        offset = 1
        while True:
            conn = self.run_until(offset)
            if conn is None:
                break
            conn.reset()
            offset += 1
        self.assertGreater(offset, 250)
        poll_until(lambda: open_descriptors(self.server.pid) == before, 'the descriptors are given back')
        # Put and not taken by the same session: at most one for each cut behind the put, never a torn one.
        size = self.probe.call('task_queue', 'qsize')
        self.assertEqual({self.probe.call('task_queue', 'get') for _ in range(size)}, {'item'})

    def test_half_closed_at_each_byte(self):
        before = open_descriptors(self.server.pid)
        offset = 1
        while True:
            conn = self.run_until(offset)
            if conn is None:
                break
            conn.sock.shutdown(socket.SHUT_WR)
            conn.rest()  # the server closes its half as well
            conn.close()
            offset += 1
        poll_until(lambda: open_descriptors(self.server.pid) == before, 'the descriptors are given back')

    def test_half_close_behind_a_request(self):
        """The request came whole: it is answered, and then the server closes."""
        session = self.session()
        session.request(self.probe.ident('task_queue'), 'put', 'last words')
        session.sock.shutdown(socket.SHUT_WR)
        self.assertIsNone(session.result())
        self.closed(session)
        self.assertEqual(self.probe.call('task_queue', 'get'), 'last words')

    def test_half_close_in_a_blocked_get(self):
        session = self.session()
        session.request(self.probe.ident('task_queue'), 'get')
        self.probe.settle()
        session.sock.shutdown(socket.SHUT_WR)
        self.closed(session)
        self.probe.call('task_queue', 'put', 'not swallowed')
        self.assertEqual(self.probe.call('task_queue', 'get', timeout=5), 'not swallowed')


class ResourcesTest(ServerCase):

    def test_out_of_descriptors(self):
        """64 descriptors, 100 connections: who is in stays in and works; later there is room again."""
        server = self.start_master('--preauth-timeout', '600', nofile=64)
        probe = wire.Probe(server)
        self.addCleanup(probe.close)
        probe.ident('task_queue')
        crowd = []
        self.addCleanup(lambda: [s.close() for s in crowd])
        for _ in range(100):
            sock = socket.socket()
            sock.settimeout(wire.TIMEOUT_S)
            sock.connect((server.host, server.port))
            crowd.append(sock)
        for n in range(50):
            probe.call('task_queue', 'put', n)
            self.assertEqual(probe.call('task_queue', 'get'), n)
        for sock in crowd:
            sock.close()
        for _ in range(20):
            session = wire.Session(server)
            self.assertEqual(session.call(probe.ident('task_queue'), 'qsize'), 0)
            session.close()

    def test_out_of_descriptors_does_not_spin(self):
        """While it cannot accept, it does not burn the processor."""
        server = self.start_master('--preauth-timeout', '600', nofile=64)
        crowd = [socket.create_connection((server.host, server.port)) for _ in range(100)]
        self.addCleanup(lambda: [s.close() for s in crowd])

        def ticks():
            with open('/proc/%d/stat' % server.pid) as f:
                fields = f.read().rpartition(')')[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
        threading.Event().wait(0.3)
        before = ticks()
        threading.Event().wait(1.0)  # the measured stretch
        self.assertLess(ticks() - before, 0.3)

    def test_sigterm_in_the_middle_of_everything(self):
        """It ends at once and well, with peers at every point of a handshake and of a session."""
        server = MasterUnderTest(queues=['small,maxsize=1'])
        self.addCleanup(server.clear)
        conns = [wire.Wire(server) for _ in range(6)]
        conns[1].send_bytes(b'\0\0')
        conns[2].receive_challenge()
        for conn in conns[3:5]:
            conn.send(wire.answer(conn.key, conn.receive_challenge(), 'modern'))
            conn.receive()
        conns[4].send(wire.CHALLENGE + b'{sha256}' + b'c' * 40)
        conns[4].receive()
        conns[5].handshake()
        idents = {name: wire.create(server, name) for name in ('task_queue', 'small')}
        conns += [wire.Session(server) for _ in range(5)]
        conns[7].request(idents['task_queue'], 'get')
        conns[8].call(idents['small'], 'put', 1)
        conns[8].request(idents['small'], 'put', 2)
        conns[9].request(idents['task_queue'], 'get', timeout=1000)
        conns[10].call(idents['task_queue'], 'put', 'held')
        for conn in conns:
            self.addCleanup(conn.close)
        start = time.monotonic()
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0, server.describe())
        self.assertLess(time.monotonic() - start, 5)
        for conn in conns:
            conn.rest()
        self.assertNotRegex(server.stderr, 'Sanitizer|runtime error|assertion failed')

    def test_sigterm_with_an_unread_reply(self):
        server = MasterUnderTest('--drain-timeout', '0.3')
        self.addCleanup(server.clear)
        ident = wire.create(server, 'task_queue')
        session = wire.Session(server, receive_buffer=4096)
        self.addCleanup(session.close)
        session.call(ident, 'put', bytes(32 * MIB))
        session.request(ident, 'get')
        session.read_exactly(1000)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0, server.describe())

    def test_twice_sigterm_and_sigint(self):
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)):
            server = MasterUnderTest()
            self.addCleanup(server.clear)
            server.signal(first)
            try:
                server.signal(second)
            except ProcessLookupError:
                pass
            self.assertEqual(server.wait(20), 0, server.describe())

    def test_many_come_and_go(self):
        """5,000 connections one after the other leave nothing behind."""
        server = self.start_master()
        probe = wire.Probe(server)
        self.addCleanup(probe.close)
        probe.settle()
        descriptors = open_descriptors(server.pid)

        def crowd(count):
            for n in range(count):
                with wire.Wire(server) as conn:
                    if n % 2:
                        conn.handshake()
                    if n % 4 == 3:
                        conn.ask(None, 'create', 'task_queue')
        crowd(1000)
        probe.settle()
        before = proc_status(server.pid, 'VmRSS')
        crowd(4000)
        poll_until(lambda: open_descriptors(server.pid) == descriptors, 'the descriptors are given back')
        self.assertLess(proc_status(server.pid, 'VmRSS') - before, memory_bound(2 * MIB))


if __name__ == '__main__':
    main()
