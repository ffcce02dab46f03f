"""Other keys while the master runs: what SIGHUP does to those that are connected, and what it does not."""
import base64
import os
import re
import signal
import time

import wire
from harness import expand, main, old_middle_new, per_interpreter, poll_until
from rights import BOSS, KEYS, MAILER, QUEUES, SHOP, KeysCase, b64


@expand
class RotationTest(KeysCase):

    def eof_within(self, session, start, limit_s=1.0):
        self.assertEqual(session.rest(), b'')
        self.assertLess(time.monotonic() - start, limit_s)

    def without(self, *names):
        return [line for line in KEYS if line.split()[0] not in names]

    def test_revoked_within_a_second(self):
        """Idle, waiting, with a task in hand, before its first request: all of that key's connections end."""
        server = self.serve()
        boss = self.session(server, BOSS)
        boss.call('queue:mail', 'put', 'letter')
        holder = self.session(server, MAILER, 'MainProcess|Thread-1')  # whose end would otherwise be its task's
        self.assertEqual(holder.call('queue:mail', 'get'), 'letter')
        idle = self.session(server, MAILER)
        waiting = self.session(server, MAILER)
        waiting.request('queue:mail', 'get')
        fresh = wire.Wire(self.seen_as(server, MAILER))
        self.addCleanup(fresh.close)
        fresh.handshake()
        waiting_boss = self.session(server, BOSS)
        waiting_boss.request('queue:mail', 'get')
        for _ in range(3):  # then all that was seen
            self.assertEqual(boss.call('queue:mail', 'qsize'), 0)
        start = time.monotonic()
        self.file('keys', self.without('mailer'))
        server.signal(signal.SIGHUP)
        for session in (holder, idle, waiting, fresh):  # the one that waits is not given the task that comes back
            self.eof_within(session, start)
        self.assertEqual(waiting_boss.result(), 'letter')
        server.expect_stderr(r' info RELOADED keys=3 added=0 removed=1 changed=0 connections_closed=4$')
        server.expect_stderr(r' info KEY-REVOKED key=mailer peer=127\.0\.0\.1:\d+')
        server.expect_stderr(r' info WORKER-DIED .* items=1')
        self.assertFalse(self.admits(server, MAILER))
        self.assertTrue(self.admits(server, SHOP))

    def test_what_counts_as_another_key(self):
        server = self.serve()
        for line, stays in (('mailer worker %s get=mail,mail-*' % MAILER, True),  # without its comment
                            ('mailer worker %s get=mail,mail-*' % b64(MAILER), True),
                            ('mailer producer ' + MAILER, True),
                            ('mailer2 producer ' + MAILER, False),
                            ('mailer2 producer another-secret-of-it', False)):
            session = self.session(server, MAILER)
            start = time.monotonic()
            text = self.reload(server, self.without('mailer') + [line])
            if stays:
                self.assertIn(' connections_closed=0', text)
                self.assertEqual(session.ask('queue:result_queue', 'qsize'), ('#RETURN', 0))
                session.close()
            else:
                self.assertIn(' connections_closed=1', text)
                self.eof_within(session, start)
                self.reload(server, KEYS)

    @per_interpreter(old_middle_new)
    def test_others_do_not_notice(self, interpreter):
        """Rotation under load: clients of other keys go on, and a get that waits still gets its item."""
        self.path = self.file('keys', KEYS + ['steady producer steady-secret-0 put=steady get=steady'])
        server = self.serve(queues=QUEUES + ['steady'])
        view = self.seen_as(server, 'steady-secret-0')
        parked = self.session(server, SHOP)
        parked.request('queue:result_queue', 'get')
        stock = self.start_client(interpreter, 'rights.py', 'mail.qsize', 'mail.get', server=self.seen_as(server, MAILER))
        stock.expect('^mail.qsize ok 0$')
        client = self.start_client(interpreter, 'steady.py', 'steady', server=view, stdin=True)
        client.expect('^steady$')
        steady = 'steady producer steady-secret-0 put=steady get=steady'
        for n in range(25):
            key = 'rotating-secret-%d' % n
            self.file('keys', KEYS + [steady, 'turn worker ' + key] + ['k%d worker secret-of-%d' % (k, k) for k in
                                                                      range(n % 3 * 40)])
            server.signal(signal.SIGHUP)
            poll_until(lambda: self.admits(server, key), 'the new key is good')
            turn = self.session(server, key)
            turn.request('queue:task_queue', 'get')
            if n:
                self.assertFalse(self.admits(server, 'rotating-secret-%d' % (n - 1)))
                self.assertEqual(last.rest(), b'')
            last = turn
        client.tell('end')
        self.assertGreater(int(client.expect(r'^rounds (\d+)$').group(1)), 100)
        self.assertEqual(client.wait(), 0)
        boss = self.session(server, BOSS)
        boss.call('queue:result_queue', 'put', 'after all that')
        self.assertEqual(parked.result(), 'after all that')
        boss.call('queue:mail', 'put', 'for you')
        stock.expect('^mail.get ok for you$')

    @per_interpreter(old_middle_new)
    def test_stock_clients_of_a_revoked_key(self, interpreter):
        """One sits in get(), one works on a task: their connections end within a second, the task is handed on."""
        key = 'the-secret-of-a-stock-one'
        self.file('keys', KEYS + ['stock worker ' + key])
        server = self.serve(queues=QUEUES + ['small'])
        boss = wire.Probe(server)
        self.addCleanup(boss.close)
        waits = self.start_client(interpreter, 'blocked.py', 'get', server=self.seen_as(server, key))
        waits.expect('^blocks$')
        waits.wait_blocked()
        boss.settle()
        works = self.start_client(interpreter, 'blocked.py', 'hold', server=self.seen_as(server, key), stdin=True)
        works.wait_blocked()
        boss.call('task_queue', 'put', 'one')
        boss.call('task_queue', 'put', 'two')
        poll_until(lambda: boss.call('task_queue', 'empty'), 'both are taken')
        works.expect('^took (one|two)$')
        self.assertNotEqual(waits.wait(), 0)  # "not blocked"
        again = self.start_client(interpreter, 'blocked.py', 'get', server=self.seen_as(server, key))
        again.expect('^blocks$')
        again.wait_blocked()
        boss.settle()
        self.reload(server, KEYS)
        start = time.monotonic()
        self.assertNotEqual(again.wait(), 0)
        self.assertLess(time.monotonic() - start, 1.0)
        self.assertRegex(again.stderr, r'EOFError|ConnectionResetError|BrokenPipeError')
        self.assertIn(boss.call('task_queue', 'get', timeout=10), ('one', 'two'))

    def test_in_the_handshake(self):
        """The keys change at each step of it."""
        server = self.serve()

        def steps(conn, dialect='modern'):
            challenge = conn.receive_challenge()
            yield
            conn.send(wire.answer(conn.key, challenge, dialect))
            if conn.receive() != wire.WELCOME:
                raise wire.Closed('not welcome')
            yield
            own = conn.own_challenge(dialect)
            conn.send(wire.CHALLENGE + own)
            self.assertEqual(conn.receive(), wire.answer(conn.key, own, 'sha256'))
            yield
            conn.send(wire.WELCOME)
            self.assertEqual(conn.ask(None, 'dummy'), ('#RETURN', None))

        for at in range(3):
            conns = {}
            for key in (MAILER, SHOP, 'the-secret-that-comes-later'):
                conn = wire.Wire(self.seen_as(server, key))
                self.addCleanup(conn.close)
                walk = steps(conn)
                if key in (MAILER, SHOP):
                    for _ in range(at + 1):
                        next(walk)
                else:
                    next(walk)
                conns[key] = walk
            self.reload(server, ['new worker the-secret-that-comes-later'] + self.without('mailer'))
            for key, walk in conns.items():
                with self.subTest(at=at, key=key):
                    if key == MAILER:
                        with self.assertRaises(wire.Closed):
                            list(walk)
                    else:
                        list(walk)
            self.reload(server, KEYS)

    def test_only_the_rights_change(self):
        """Nobody is dropped; calls that wait are judged anew; the next call has the new rights."""
        server = self.serve()
        boss = self.session(server, BOSS)
        worker = self.session(server, MAILER)
        waits = self.session(server, MAILER)
        waits.request('queue:mail', 'get')
        stays = self.session(server, MAILER)
        stays.request('queue:mail-2', 'get')
        self.refuses(worker, 'queue:other', 'get')
        boss.call('queue:mail', 'qsize')
        line = self.reload(server, self.without('mailer') + ['mailer worker %s get=other,mail-2' % MAILER])
        self.assertIn(' added=0 removed=0 changed=1 connections_closed=0', line)
        with self.assertRaisesRegex(PermissionError, r"the key 'mailer' \(worker\) may not get on queue 'mail': "):
            waits.result()
        self.assertEqual(waits.call('queue:other', 'qsize'), 0)
        boss.call('queue:mail', 'put', 1)
        boss.call('queue:mail-2', 'put', 2)
        boss.call('queue:other', 'put', 3)
        self.assertEqual(stays.result(), 2)
        self.assertEqual(worker.call('queue:other', 'get'), 3)
        self.refuses(worker, 'queue:mail', 'get')
        self.assertEqual(boss.call('queue:mail', 'get'), 1)
        # a role, too
        self.reload(server, self.without('mailer') + ['mailer observer ' + MAILER])
        self.refuses(worker, 'queue:other', 'get')
        self.assertEqual(worker.call('queue:task_queue', 'qsize'), 0)
        self.reload(server, self.without('mailer') + ['mailer admin ' + MAILER])
        self.assertIsNone(worker.call('queue:other', 'shutdown'))

    def test_a_waiting_put_and_join(self):
        server = self.serve(queues=QUEUES + ['small,maxsize=1'])
        self.reload(server, KEYS + ['p producer the-secret-of-p-012 put=small'])
        boss = self.session(server, BOSS)
        boss.call('queue:small', 'put', 'first')
        put = self.session(server, 'the-secret-of-p-012')
        put.request('queue:small', 'put', 'second')
        join = self.session(server, 'the-secret-of-p-012')
        join.request('queue:small', 'join')
        boss.call('queue:small', 'qsize')
        self.reload(server, KEYS + ['p producer the-secret-of-p-012'])
        for session, verb in ((put, 'put'), (join, 'join')):
            with self.assertRaisesRegex(PermissionError, 'may not %s on' % verb):
                session.result()
        self.assertEqual(boss.call('queue:small', 'get'), 'first')
        self.assertEqual(boss.call('queue:small', 'qsize'), 0)

    def test_requests_behind_a_waiting_call(self):
        server = self.serve('--wait-pipelined')
        session = self.session(server, MAILER)
        session.request('queue:mail', 'get')
        session.request('queue:result_queue', 'put', 'x')
        session.request('queue:result_queue', 'qsize')
        boss = self.session(server, BOSS)
        boss.call('queue:mail', 'qsize')
        self.reload(server, self.without('mailer') + ['mailer worker %s get=' % MAILER])
        with self.assertRaises(PermissionError):
            session.result()
        self.assertIsNone(session.result())
        self.assertEqual(session.result(), 1)

    def test_a_session_whose_end_is_not_decided(self):
        """The client is gone, and a connection from there could be its farewell: a revoked key has none."""
        server = self.serve()
        boss = self.session(server, BOSS)
        closed = 0
        for _ in range(20):  # the master waits for half a second only
            silent = wire.Wire(server)
            silent.receive_challenge()
            boss.call('queue:mail', 'put', 'letter')
            worker = self.session(server, MAILER)
            self.assertEqual(worker.call('queue:mail', 'get'), 'letter')
            worker.close()
            for _ in range(3):  # then its end was seen
                self.assertIn(boss.call('queue:mail', 'qsize'), (0, 1))
            line = self.reload(server, self.without('mailer'))
            self.assertEqual(boss.call('queue:mail', 'get_nowait'), 'letter')
            silent.close()
            self.reload(server, KEYS)
            closed += ' connections_closed=1' in line
            if closed:
                break
        self.assertTrue(closed)

    def test_many_connections(self):
        server = self.serve()
        gone = [self.session(server, MAILER) for _ in range(300)]
        stay = [self.session(server, SHOP) for _ in range(100)]
        for session in gone[::2]:
            session.request('queue:mail', 'get')
        self.session(server, BOSS).call('queue:mail', 'qsize')
        start = time.monotonic()
        self.reload(server, self.without('mailer'))
        for session in gone:
            self.eof_within(session, start, 2.0)
        for session in stay:
            self.assertEqual(session.call('queue:mail', 'qsize'), 0)

    def test_authkey_file(self):
        """It is one more key, an admin's, and can be rotated in the same way."""
        authkey = self.file('authkey', 'the first authkey\n')
        server = self.serve('--authkey-file', authkey)
        first = self.session(server, 'the first authkey')
        boss = self.session(server, BOSS)
        self.assertIsNone(first.call('queue:other', 'put', 1))
        text = self.reload(server, 'the second authkey', name='authkey')
        self.assertIn('keys=5 added=1 removed=1 changed=0 connections_closed=1', text)
        self.assertEqual(first.rest(), b'')
        self.assertIsNone(self.session(server, 'the second authkey').call('queue:other', 'shutdown'))
        self.assertFalse(self.admits(server, 'the first authkey'))
        self.assertEqual(boss.call('queue:mail', 'qsize'), 0)

    def test_authkey_file_alone(self):
        authkey = self.file('authkey', 'the first authkey')
        server = self.start_master('--authkey-file', authkey, key=None)
        session = self.session(server, 'the first authkey')
        self.assertIn('keys=1 added=0 removed=0', self.reload(server))
        self.assertEqual(session.call('queue:task_queue', 'qsize'), 0)
        self.reload(server, 'the second authkey', name='authkey')
        self.assertEqual(session.rest(), b'')
        self.assertTrue(self.admits(server, 'the second authkey'))

    def test_nothing_to_reload(self):
        """Without a file SIGHUP changes nothing, and ends nothing."""
        for key in (None, 'a key of the command line'):
            server = self.start_master(key=key)
            session = wire.Session(server)
            self.addCleanup(session.close)
            self.assertIn('--keys-file', self.reload(server, line='NOTHING-TO-RELOAD'))
            self.assertEqual(session.call('queue:task_queue', 'qsize'), 0)

    def test_bad_files_keep_the_old_keys(self):
        authkey = self.file('authkey', 'the first authkey')
        server = self.serve('--authkey-file', authkey)
        session = self.session(server, MAILER)
        for content, words in ((KEYS + ['broken'], ':6: .*role'),
                               (KEYS + ['a worker the first authkey'], ':6: .*only put= and get='),
                               (KEYS + ['a worker base64:' + base64.b64encode(b'the first authkey').decode()],
                                ":6: .*'authkey' and 'a' have the same secret"),
                               (KEYS + KEYS, ":7: there is a key 'boss' already"),
                               (['# all gone'], ':1: there is no key'),
                               ('', 'is empty'),
                               (b'\0\1\2\n', ':1: .*no text'),
                               (KEYS + ['a worker @missing'], ':6: cannot open the key file .*/missing.*No such file'),
                               (KEYS + ['x%d worker a-secret-of-%d' % (n, n) for n in range(1000)], 'more than 1000'),
                               ('#' * (1 << 20) + '\n' + '\n'.join(KEYS), 'is longer than 1048576 bytes')):
            text = self.reload(server, content, 'RELOAD-FAILED')
            self.assertRegex(text, r' error RELOAD-FAILED the old keys stay in force: .*%s' % words)
            self.assertLess(len(text), 600)
        self.assertEqual(session.call('queue:mail', 'qsize'), 0)  # after all that
        for key in (MAILER, BOSS, 'the first authkey'):
            self.assertTrue(self.admits(server, key))
        self.assertIn('keys=5 added=0 removed=0', self.reload(server, KEYS))
        self.assertNotIn('the first authkey', server.stderr)

    def test_files_that_cannot_be_read(self):
        authkey = self.file('authkey', 'the first authkey')
        server = self.serve('--authkey-file', authkey)
        os.unlink(self.path)
        self.assertIn('No such file', self.reload(server, line='RELOAD-FAILED'))
        os.mkdir(self.path)
        self.assertIn('directory', self.reload(server, line='RELOAD-FAILED'))
        os.rmdir(self.path)
        os.mkfifo(self.path, 0o600)  # nobody waits until somebody writes into it
        self.assertIn('is no regular file', self.reload(server, line='RELOAD-FAILED'))
        os.mkfifo(os.path.join(self.folder, 'pipe'), 0o600)
        self.assertIn('is no regular file', self.reload(server, KEYS + ['a worker @pipe'], 'RELOAD-FAILED'))
        self.file('keys', KEYS)
        self.assertIn("the key file '%s' is empty" % authkey, self.reload(server, '', 'RELOAD-FAILED', 'authkey'))
        self.assertTrue(self.admits(server, 'the first authkey'))
        self.assertIn('keys=5 added=1 removed=1', self.reload(server, 'the second authkey', name='authkey'))

    def test_a_weak_key_at_reload(self):
        server = self.serve(listen='0.0.0.0')
        server.host = '127.0.0.1'
        text = self.reload(server, KEYS + ['weak worker fifteen-bytes..'], 'RELOAD-FAILED')
        self.assertIn("with the key 'weak' of 15 bytes", text)
        self.assertFalse(self.admits(server, 'fifteen-bytes..'))
        self.assertTrue(self.admits(server, MAILER))
        local = self.serve()
        self.reload(local, KEYS + ['weak worker fifteen-bytes..'])
        local.expect_stderr(r' warn WEAK-KEY key=weak has 15 bytes')
        self.assertTrue(self.admits(local, 'fifteen-bytes..'))

    def test_old_secrets_are_wiped(self):
        """None of the memory of the master holds a key that was revoked."""
        words = [b'%s-that-is-searched-for' % what for what in (b'text', b'base64', b'file', b'authkey')]
        secrets = ['x' * 200 + word.decode() for word in words]  # whoever frees memory spoils its first bytes anyway
        authkey = self.file('authkey', secrets[3] + '\n')
        self.file('keys', KEYS + ['s worker ' + secrets[0], 't worker ' + b64(secrets[1]), 'u worker @own'])
        self.file('own', secrets[2])
        server = self.serve('--authkey-file', authkey)
        session = self.session(server, secrets[0])
        for word in words:  # the search finds what is there
            self.assertGreater(memory_holds(server.pid, word), 0)
        self.file('authkey', 'the second authkey\n')
        self.reload(server, KEYS)
        self.assertEqual(session.rest(), b'')
        for dialect in ('legacy', 'modern', 'sha384', 'sha3_256', 'sha3_384'):  # the library keeps the last it used
            self.session(server, BOSS, dialect=dialect)
        for word in words:
            self.assertEqual(memory_holds(server.pid, word), 0, word)


def memory_holds(pid, word):
    """How often a word stands in the writable memory of a process."""
    found = 0
    with open('/proc/%d/maps' % pid) as maps, open('/proc/%d/mem' % pid, 'rb', 0) as mem:
        for line in maps:
            match = re.match(r'([0-9a-f]+)-([0-9a-f]+) rw', line)
            if not match:
                continue
            low, high = (int(n, 16) for n in match.groups())
            if high - low > 256 << 20:  # a sanitizer's own
                continue
            try:
                mem.seek(low)
                found += mem.read(high - low).count(word)
            except (OSError, OverflowError):
                continue
    return found


if __name__ == '__main__':
    main()
