"""Several keys, each with a role and queues: who may do what, and which keys a master starts with."""
import os
import re
import signal
import subprocess

import wire
from harness import ROOT, TASK_MASTER, clean_env, expand, main, old_middle_new, per_interpreter, poll_until
from rights import BOSS, EYE, KEYS, MAILER, SHOP, KeysCase, b64


@expand
class StockClientTest(KeysCase):
    """The key is recognised from what any Python answers, by MD5 as by SHA-256."""

    def told(self, interpreter, server, key, *calls):
        lines = self.run_client(interpreter, 'rights.py', *calls, server=self.seen_as(server, key))
        self.assertEqual([line.split()[0] for line in lines], [call.partition('=')[0] for call in calls])
        return [line.split(None, 1)[1] for line in lines]

    def audited(self, server, key, verb, queue):
        server.expect_stderr(r' warn ACCESS-REFUSED key=%s role=\w+ verb=%s queue=%s peer=127\.0\.0\.1:\d+'
                             % (key, verb, queue))

    @per_interpreter(old_middle_new)
    def test_worker_takes_from_another_queue(self, interpreter):
        server = self.serve()
        boss = self.session(server, BOSS)
        boss.call('queue:mail', 'put', 'letter')
        boss.call('queue:other', 'put', 'not for you')
        got = self.told(interpreter, server, MAILER, 'mail.get', 'mail.task_done', 'result_queue.put=sent',
                        'mail-2.empty', 'other.get', 'mail.put=spam', 'result_queue.get', 'other.qsize',
                        'task_queue.get', 'mail.shutdown', 'manager._debug_info')
        self.assertEqual(got[:4], ['ok letter', 'ok None', 'ok None', 'ok True'])
        self.assertEqual(got[4], "PermissionError the key 'mailer' (worker) may not get on queue 'other': give it "
                                 'get=other in the keys file of the task-master, and reload that (SIGHUP)')
        self.assertRegex(got[5], r"^PermissionError the key 'mailer' \(worker\) may not put on queue 'mail'.* put=mail ")
        self.assertRegex(got[6], r'^PermissionError .* may not get on queue .result_queue.')
        self.assertRegex(got[7], r'^PermissionError .* may not qsize on queue .other.: give it role observer')
        self.assertRegex(got[8], r'^PermissionError .* may not get on queue .task_queue.')
        self.assertRegex(got[9], r'^PermissionError .* may not shutdown on queue .mail.: use a key with role admin')
        self.assertRegex(got[10], r"^RemoteError PermissionError: the key 'mailer' \(worker\) may not debug_info: ")
        self.audited(server, 'mailer', 'get', 'other')
        self.audited(server, 'mailer', 'put', 'mail')
        self.audited(server, 'mailer', 'shutdown', 'mail')
        self.audited(server, 'mailer', 'debug_info', '-')
        self.assertEqual(boss.call('queue:other', 'get_nowait'), 'not for you')
        self.assertEqual(boss.call('queue:result_queue', 'get_nowait'), 'sent')
        self.assertEqual(boss.call('queue:mail', 'qsize'), 0)

    @per_interpreter(old_middle_new)
    def test_observer_enqueues(self, interpreter):
        server = self.serve()
        self.session(server, BOSS).call('queue:mail', 'put', 'letter')
        got = self.told(interpreter, server, EYE, 'mail.qsize', 'mail.empty', 'other.full', 'task_queue.__str__',
                        'manager._number_of_objects', 'mail.put=spam', 'mail.get', 'mail.get_nowait', 'mail.task_done',
                        'mail.join', 'mail.shutdown', 'Queue.qsize')
        self.assertEqual(got[:4], ['ok 1', 'ok False', 'ok False', "ok <taskq queue 'task_queue'>"])
        self.assertRegex(got[4], r'^ok \d+$')
        self.assertEqual(got[5], "PermissionError the key 'eye' (observer) may not put on queue 'mail': give it role "
                                 'producer or worker, and put=mail in the keys file of the task-master, and reload '
                                 'that (SIGHUP)')
        for text, verb in zip(got[6:11], ('get', 'get_nowait', 'task_done', 'join', 'shutdown')):
            self.assertIn("PermissionError the key 'eye' (observer) may not %s on queue 'mail': " % verb, text)
        self.assertEqual(got[11], "RemoteError PermissionError: the key 'eye' (observer) may not create: use a key with "
                                  'role producer or worker')
        self.audited(server, 'eye', 'put', 'mail')
        self.audited(server, 'eye', 'create', '-')

    @per_interpreter(old_middle_new)
    def test_producer(self, interpreter):
        server = self.serve('--allow-shutdown')
        self.session(server, BOSS).call('queue:result_queue', 'put', 'answer')
        got = self.told(interpreter, server, SHOP, 'mail.put=letter', 'mail.qsize', 'result_queue.get',
                        'result_queue.task_done', 'mail.get', 'mail.task_done', 'result_queue.put=x', 'task_queue.put=x',
                        'mail.shutdown', 'Queue.put=x')
        self.assertEqual(got[:4], ['ok None', 'ok 1', 'ok answer', 'ok None'])
        for text, verb, queue in zip(got[4:9], ('get', 'task_done', 'put', 'put', 'shutdown'),
                                     ('mail', 'mail', 'result_queue', 'task_queue', 'mail')):
            self.assertIn("PermissionError the key 'shop' (producer) may not %s on queue '%s': " % (verb, queue), text)
        self.assertEqual(got[9], 'ok None')

    def test_producer_shuts_the_master_down(self):
        server = self.serve('--allow-shutdown')
        for key, name in ((SHOP, 'shop'), (MAILER, 'mailer'), (EYE, 'eye')):
            kind, text = wire.control(self.seen_as(server, key), 'shutdown')
            self.assertEqual(kind, '#TRACEBACK')
            self.assertRegex(text, r"^PermissionError: the key '%s' \(\w+\) may not shutdown: use a key with role admin$"
                             % name)
            self.audited(server, name, 'shutdown', '-')
        self.assertEqual(wire.control(server, 'shutdown'), ('#RETURN', None))
        self.assertEqual(server.wait(20), 0)
        server.stopped = True

    def test_each_dialect_shows_the_key(self):
        for key, name in ((BOSS, 'boss'), (MAILER, 'mailer'), (SHOP, 'shop'), (EYE, 'eye')):
            server = self.serve('--log-level', 'debug')
            for count, dialect in enumerate(('legacy', 'rhel', 'modern', 'md5', 'sha384', 'sha3_256')):
                session = self.session(server, key, dialect=dialect)
                poll_until(lambda: len(re.findall(r' PEER-OPEN .* key=%s$' % name, server.stderr, re.M)) == count + 1,
                           'PEER-OPEN tells the key')
                if name != 'boss':
                    self.assertIn("the key '%s' " % name, self.refuses(session, 'queue:other', 'get'))
            self.stop_master(server)

    def test_refusals_are_counted(self):
        server = self.serve()
        session = self.session(server, EYE)
        for _ in range(30):  # more than are logged in a second
            self.refuses(session, 'queue:mail', 'put', 1)
        self.assertEqual(session.call('queue:mail', 'qsize'), 0)
        session.close()
        self.stop_master(server)
        self.assertIn(' access_refused=30', server.stderr)


class RawTest(KeysCase):

    def test_every_method(self):
        """What a key may do, call by call; a refused call changes nothing, and the session goes on."""
        server = self.serve()
        look = {'qsize', 'empty', 'full', '__str__', '__repr__', '#GETVALUE'}
        put = look | {'put', 'put_nowait', 'join'}
        get = look | {'get', 'get_nowait', 'task_done'}
        made = put | get | {'shutdown'}
        calls = [('put', 1), ('put_nowait', 1), ('get',), ('get_nowait',), ('task_done',), ('task_done',), ('join',),
                 ('qsize',), ('empty',), ('full',), ('__str__',), ('__repr__',), ('#GETVALUE',), ('shutdown',)]
        ident = wire.create(server, 'Queue')
        boss = self.session(server, BOSS)
        for key, rights in ((BOSS, {'queue:other': made, ident: made}),
                            (MAILER, {'queue:mail': get, 'queue:mail-2': get, 'queue:result_queue': put,
                                      'queue:other': set(), 'queue:task_queue': set(), ident: made}),
                            (SHOP, {'queue:mail': put, 'queue:mail-2': set(), 'queue:result_queue': get, ident: made}),
                            (EYE, {'queue:mail': look, 'queue:other': look, ident: look})):
            session = self.session(server, key)
            for queue, allowed in rights.items():
                for call in calls:
                    if call[0] == 'shutdown' and 'shutdown' in allowed:
                        continue  # for the last
                    if call[0].startswith('get') and call[0] in allowed:
                        boss.call(queue, 'put', 7)
                    if call[0] == 'join' and 'join' in allowed:
                        while boss.call(queue, 'qsize'):
                            boss.call(queue, 'get')
                        try:
                            while True:
                                boss.call(queue, 'task_done')
                        except ValueError:
                            pass
                    before = boss.call(queue, 'qsize')
                    with self.subTest(key=key, queue=queue, call=call):
                        if call[0] in allowed:
                            try:
                                session.call(queue, *call)
                            except PermissionError:
                                raise
                            except (ValueError, wire.RemoteCallError):
                                pass
                        else:
                            self.assertIn(call[0], self.refuses(session, queue, *call))
                            self.assertEqual(boss.call(queue, 'qsize'), before)
        for key in (MAILER, SHOP):
            own = wire.create(self.seen_as(server, key), 'JoinableQueue')
            self.assertIsNone(self.session(server, key).call(own, 'shutdown'))

    def test_wrong_arguments_and_names_come_after_and_before(self):
        """A stranger learns of a queue that he may not touch no more than its name."""
        server = self.serve()
        session = self.session(server, MAILER)
        self.assertIn('other', self.refuses(session, 'queue:other', 'get', 1, 2, 3, 4))
        with self.assertRaises(TypeError):
            session.call('queue:mail', 'get', 1, 2, 3, 4)
        for ident, method, word in (('queue:none', 'get', 'KeyError'), ('queue:other', 'mutex', 'AttributeError')):
            with self.assertRaises(wire.RemoteCallError) as caught:
                session.call(ident, method)
            self.assertIn(word, str(caught.exception))

    def test_control_requests(self):
        server = self.serve()
        made = wire.create(server, 'Queue')
        for key, role in ((MAILER, 'worker'), (SHOP, 'producer'), (EYE, 'observer'), (BOSS, 'admin')):
            view = self.seen_as(server, key)
            self.assertEqual(wire.control(view, 'dummy'), ('#RETURN', None))
            self.assertEqual(wire.create(view, 'get_other').partition('#')[0], 'queue:other')  # a proxy is no right
            for ident in ('queue:other', made):
                for function in ('incref', 'decref'):
                    kind, text = wire.control(view, function, ident)
                    if role == 'observer' and ident == made:  # it knows the ident from debug_info
                        self.assertEqual(kind, '#TRACEBACK')
                        self.assertRegex(text, r'^PermissionError: .* may not %s on queue' % function)
                    else:
                        self.assertEqual((kind, text), ('#RETURN', None))
            for function in ('debug_info', 'number_of_objects'):
                kind, text = wire.control(view, function)
                self.assertEqual(kind, '#RETURN' if role in ('observer', 'admin') else '#TRACEBACK', (key, text))
            kind, text = wire.control(view, 'create', 'Queue')
            self.assertEqual(kind, '#TRACEBACK' if role == 'observer' else '#RETURN')

    def test_a_refused_put_acknowledges_nothing(self):
        """The task that a worker holds is still its own after a call that was refused."""
        server = self.serve()
        boss = self.session(server, BOSS)
        boss.call('queue:mail', 'put', 'letter')
        worker = self.session(server, MAILER)
        self.assertEqual(worker.call('queue:mail', 'get'), 'letter')
        self.refuses(worker, 'queue:other', 'put', 'x')
        self.refuses(worker, 'queue:other', 'get')
        self.refuses(worker, 'queue:other', 'task_done')
        worker.reset()
        self.assertEqual(boss.call('queue:mail', 'get', timeout=20), 'letter')

    def test_task_worker(self):
        """It works with a worker's key, and says what an observer's key cannot do."""
        server = self.serve()
        boss = self.session(server, BOSS)
        program = os.path.join(os.path.dirname(TASK_MASTER), 'task-worker')
        argv = [program, '--master', '%s:%d' % (server.host, server.port), '--builtin', 'square', '--count', '1',
                '--from', 'mail', '--to', 'result_queue']
        boss.call('queue:mail', 'put', 12)
        good = subprocess.run(argv, env=clean_env(TASKQ_AUTHKEY=MAILER), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(good.returncode, 0, good.stderr)
        self.assertEqual(boss.call('queue:result_queue', 'get', timeout=20), '12 * 12 = 144')
        boss.call('queue:mail', 'put', 13)
        worker = subprocess.Popen(argv, env=clean_env(TASKQ_AUTHKEY=EYE), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(worker.stderr.close)
        self.addCleanup(worker.wait)
        self.addCleanup(worker.kill)
        self.assertRegex(worker.stderr.readline(), rb"the key 'eye' \(observer\) may not")
        self.assertEqual(boss.call('queue:mail', 'qsize'), 1)


class StartTest(KeysCase):

    def refused(self, content, words, *options, name='keys', status=1):
        path = self.file(name, content)
        argv = [TASK_MASTER, '--listen', '127.0.0.1:0', '--keys-file', path] + list(options)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=clean_env(), timeout=20)
        self.assertEqual((done.returncode, done.stdout), (status, b''), done.stderr)
        complaint = [line for line in done.stderr.decode().splitlines() if line.startswith('task-master: ')]
        self.assertEqual(len(complaint), 1, done.stderr)
        self.assertRegex(complaint[0], words)
        return complaint[0]

    def test_bad_lines(self):
        path = re.escape(os.path.join(self.folder, 'keys'))
        for content, words in ((['a b c'], '^task-master: %s:1: behind the name comes the role' % path),
                               (KEYS + ['', 'a/b worker x'], '^task-master: %s:7: .*begin with the key.s name' % path),
                               (KEYS + ['a worker'], ':6: the secret is missing'),
                               (KEYS + ['eye worker s'], ":6: there is a key 'eye' already"),
                               (KEYS + ['z worker ' + EYE], ":6: the keys 'eye' and 'z' have the same secret"),
                               (KEYS + ['z worker s get=a//b'], ':6: get=: .*write names of queues'),
                               (KEYS + ['z worker base64:x'], ':6: .*base64'),
                               (KEYS + ['z worker @nothing'], ':6: cannot open the key file .*nothing.*No such file'),
                               (['# none'], ':1: there is no key'), ('', 'the keys file .* is empty; write NAME ROLE')):
            self.assertNotIn(EYE, self.refused(content, words))

    def test_the_examples_of_the_documents(self):
        for document, mark in (('docs/operations.md', '    '), ('master/access/keys.h', ' *   ')):
            with open(os.path.join(ROOT, document), encoding='utf-8') as f:
                lines = [line[len(mark):].rstrip() for line in f if line.startswith(mark)]
            example = [line for line in lines if re.match(r'(mailer|shop|monitor) +(worker|producer|observer) ', line)]
            self.assertEqual(len(example), 3, document)
            self.file('mailer.key', MAILER)
            self.file('keys', example)
            server = self.serve()
            self.assertTrue(self.admits(server, MAILER) and self.admits(server, 'a-secret-of-16-bytes'))
            self.assertNotIn('WEAK-KEY', server.stderr)
            self.refuses(self.session(server, MAILER), 'queue:other', 'get')
            self.stop_master(server)

    def test_the_same_secret_as_the_authkey(self):
        self.refused(KEYS, "'authkey' and 'eye' have the same secret", '--authkey', EYE)
        self.refused(['authkey worker x'], "'authkey' is that of the key of --authkey-file")

    def test_missing_file(self):
        os.unlink(self.path)
        done = subprocess.run([TASK_MASTER, '--listen', '127.0.0.1:0', '--keys-file', self.path], env=clean_env(),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b'No such file', done.stderr)

    def test_weak_keys(self):
        """Every key counts on an address other than loopback."""
        weak = KEYS + ['weak worker fifteen-bytes..']
        self.refused(weak, "will not listen on 0.0.0.0:0 with the key 'weak' of 15 bytes: .* --allow-weak-authkey",
                     '--listen', '0.0.0.0:0')
        self.refused(KEYS, 'with an authkey of 3 bytes', '--listen', '0.0.0.0:0', '--authkey', 'abc')
        server = self.serve(listen='0.0.0.0')  # these are all good
        self.stop_master(server)
        self.file('keys', weak)
        server = self.serve('--allow-weak-authkey', listen='0.0.0.0')
        server.expect_stderr(r' warn WEAK-KEY key=weak has 15 bytes')
        self.stop_master(server)

    def test_no_empty_key_beside_a_keys_file(self):
        server = self.serve()
        self.assertFalse(self.admits(server, ''))
        self.assertTrue(self.admits(server, EYE))
        server.expect_stderr(r' info KEYS keys=4 producer=1 worker=1 observer=1 admin=1$')

    def test_beside_an_authkey(self):
        server = self.serve(key='the one that was there before')
        session = self.session(server, 'the one that was there before')
        self.assertIsNone(session.call('queue:other', 'put', 1))
        self.assertEqual(wire.control(self.seen_as(server, 'the one that was there before'), 'debug_info')[0], '#RETURN')
        self.refuses(self.session(server, EYE), 'queue:other', 'get')

    def test_secrets_in_files_of_their_own(self):
        """A relative path starts where the keys file is, wherever the master was started."""
        os.mkdir(os.path.join(self.folder, 'secrets'))
        self.file('secrets/a', 'the secret of a\n')
        absolute = self.file('b', b'\0\xff any bytes \n\n')
        self.file('keys', ['a worker @secrets/a', 'b worker @' + absolute])
        server = self.serve()
        self.assertTrue(self.admits(server, 'the secret of a'))
        with wire.Wire(self.seen_as(server, 'x')) as conn:
            conn.send(wire.answer(b'\0\xff any bytes \n', conn.receive_challenge(), 'legacy'))
            self.assertEqual(conn.receive(), wire.WELCOME)

    def test_files_that_others_can_read(self):
        self.file('own', 'the secret of own\n', 0o640)
        self.file('keys', KEYS + ['own worker @own'], 0o644)
        server = self.serve()
        server.expect_stderr(r" warn KEYS-FILE the keys file '.*/keys' is open to other users \(mode 0644\): chmod 600")
        server.expect_stderr(r" warn KEYS-FILE the key file '.*/own' is open to other users \(mode 0640\)")

    def test_no_secret_is_ever_told(self):
        server = self.serve('--log-level', 'debug', key='a very secret authkey')
        self.refuses(self.session(server, EYE), 'queue:mail', 'get')
        self.assertFalse(self.admits(server, 'wrong'))
        self.reload(server, KEYS[:-1])
        self.reload(server, KEYS + ['x worker y z'], 'RELOAD-FAILED')
        self.stop_master(server)
        for secret in (BOSS, MAILER, SHOP, EYE, b64(BOSS)[7:], 'a very secret authkey'):
            self.assertNotIn(secret, server.stdout + server.stderr)

    def test_stop_while_reloading(self):
        server = self.serve()
        for _ in range(50):
            server.signal(signal.SIGHUP)
        self.stop_master(server)


if __name__ == '__main__':
    main()
