"""Every request of multiprocessing.managers, as stock clients send them and by hand."""
import pickle

import wire
from harness import ServerCase, expand, main, old_middle_new, per_interpreter

QUEUES = ['extra,typeid=mine']


@expand
class StockClientTest(ServerCase):

    @per_interpreter()
    def test_master(self, interpreter):
        server = self.start_master(queues=QUEUES)
        self.run_unittest_client(interpreter, 'manager_protocol.py', server=server, least=19)

    @per_interpreter(old_middle_new)
    def test_reference(self, interpreter):
        server = self.start_reference(interpreter=interpreter, queues=QUEUES)
        self.run_unittest_client(interpreter, 'manager_protocol.py', server=server, least=19)

    @per_interpreter()
    def test_old_proxies_work_after_a_restart(self, interpreter):
        server = self.start_master()
        client = self.start_client(interpreter, 'restart.py', server=server, stdin=True)
        client.expect('^good None$')
        self.stop_master(server)
        self.start_master(port=server.port)
        client.tell('go on')
        client.expect('^good None$')
        client.expect('^good after$')
        client.expect('^good 0$')
        client.expect('^good None$')
        self.assertEqual(client.wait(), 0)


class RawTest(ServerCase):
    """What no stock client sends, or does not show."""

    def setUp(self):
        self.server = self.start_master(queues=QUEUES)

    def control(self, function, *args, **kwds):
        return wire.control(self.server, function, *args, **kwds)

    def test_control_requests_are_answered_once_and_closed(self):
        ident = wire.create(self.server, 'get_task_queue')
        for function, args in (('dummy', ()), ('create', ('get_task_queue',)), ('incref', (ident,)),
                               ('decref', (ident,)), ('number_of_objects', ()), ('debug_info', ())):
            with wire.Wire(self.server) as conn:
                conn.handshake()
                kind, _ = conn.ask(None, function, *args)
                self.assertEqual(kind, '#RETURN', function)
                self.assertEqual(conn.rest(), b'', function)

    def test_ident_of_a_control_request_is_ignored(self):
        with wire.Wire(self.server) as conn:
            self.assertEqual(conn.handshake().ask('anything', 'dummy'), ('#RETURN', None))

    def test_unknown_function(self):
        for function in ('shutdownn', 'serve_client', '__init__', 'stop', ''):
            with wire.Wire(self.server) as conn:
                kind, text = conn.handshake().ask(None, function)
                self.assertEqual(kind, '#TRACEBACK')
                self.assertIn(repr(function) + ' unrecognized', text)
                self.assertEqual(conn.rest(), b'')

    def test_bad_envelope_as_first_request(self):
        for request in (5, (), (None, 'dummy', ()), (None, 'dummy', (), {}, 1), (None, ['dummy'], (), {}),
                        (None, 'dummy', 5, {}), (None, 'dummy', (), 5), {}, 'dummy'):
            with wire.Wire(self.server) as conn:
                conn.handshake().send(pickle.dumps(request, 3))
                kind, text = conn.reply()
                self.assertEqual(kind, '#TRACEBACK', request)
                self.assertIs(type(text), str)
                self.assertEqual(conn.rest(), b'')

    def test_wrong_arguments_of_control_requests(self):
        for function, args, kwds in (('dummy', (1,), {}), ('create', (), {}), ('incref', (), {}),
                                     ('decref', ('a', 'b'), {}), ('number_of_objects', (1,), {}),
                                     ('incref', ([],), {}), ('create', (5,), {})):
            kind, text = self.control(function, *args, **kwds)
            self.assertEqual(kind, '#TRACEBACK', (function, args))

    def test_references_to_unknown_objects(self):
        for function in ('incref', 'decref'):
            kind, text = self.control(function, '7f00deadbeef')
            self.assertEqual(kind, '#TRACEBACK')
            self.assertIn('7f00deadbeef', text)

    def test_registered_queue_survives_any_number_of_decrefs(self):
        ident = wire.create(self.server, 'get_task_queue')
        for _ in range(10):
            self.control('decref', ident)
        session = wire.Session(self.server)
        self.addCleanup(session.close)
        session.call(ident, 'put', 'x')
        self.assertEqual(session.call(ident, 'get'), 'x')

    def test_protocols_of_requests(self):
        """0 and 1 are what a hand-written client might send, 2 is what Python 2 sends."""
        ident = wire.create(self.server, 'get_task_queue')
        session = wire.Session(self.server)
        self.addCleanup(session.close)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for item in (1, -1, 1 << 70, 'text', b'bytes', None, True, 1.5, [1, [2]], {'a': (1, 2, 3, 4)}):
                session.send(pickle.dumps((ident, 'put', (item,), {'block': True}), protocol))
                self.assertIsNone(session.result())
                session.send(pickle.dumps((ident, 'get', (), {'timeout': 5}), protocol))
                self.assertEqual(session.result(), item)

    def test_python_2_as_it_sends(self):
        """Idents and names as byte strings of protocol 2."""
        def python2(*strings):
            return b''.join(b'U' + bytes([len(s)]) + s for s in strings)
        ident = wire.create(self.server, 'get_task_queue').encode()
        with wire.Wire(self.server) as conn:
            conn.handshake('legacy')
            conn.send(b'\x80\x02(NU\x06createq\x01U\x0eget_task_queueq\x02\x85q\x03}q\x04tq\x05.')
            kind, value = conn.reply()
            self.assertEqual(kind, '#RETURN')
        session = wire.Session(self.server)
        self.addCleanup(session.close)
        session.send(b'\x80\x02(' + python2(ident, b'put') + b'U\x04item\x85}t.')
        self.assertIsNone(session.result())
        session.send(b'\x80\x02(' + python2(ident, b'get') + b')}t.')
        payload = session.receive()
        self.assertEqual(payload[:2], b'\x80\x02')
        self.assertEqual(pickle.loads(payload, encoding='bytes')[1], b'item')

    def test_get_methods(self):
        from multiprocessing.managers import Token
        ident = wire.create(self.server, 'get_task_queue')
        kind, names = self.control('get_methods', Token('get_task_queue', ('127.0.0.1', 1), ident))
        self.assertEqual(kind, '#RETURN')
        self.assertLessEqual({'put', 'get', 'qsize', 'join'}, set(names))
        self.assertIn(type(names), (tuple, list, set))

    def test_get_methods_of_unknown_object(self):
        from multiprocessing.managers import Token
        kind, text = self.control('get_methods', Token('get_task_queue', None, '7f00deadbeef'))
        self.assertEqual(kind, '#TRACEBACK')
        self.assertIn('7f00deadbeef', text)

    def test_session_of_any_name(self):
        for name in ('MainProcess', 'MainProcess|Thread-1 (f)', 'x' * 1000, '', 'n\u00e4me \U0001f600 "\n'):
            wire.Session(self.server, name=name).close()

    def test_requests_in_one_write_are_answered_in_order(self):
        ident = wire.create(self.server, 'get_task_queue')
        session = wire.Session(self.server)
        self.addCleanup(session.close)
        count = 500
        session.send_bytes(b''.join(wire.frame(pickle.dumps((ident, 'put', (n,), {}), 4)) for n in range(count)))
        for _ in range(count):
            self.assertIsNone(session.result())
        session.send_bytes(b''.join(wire.frame(pickle.dumps((ident, 'get_nowait', (), {}), 4))
                                    for _ in range(count)))
        self.assertEqual([session.result() for _ in range(count)], list(range(count)))

    def test_request_byte_by_byte_and_in_the_long_form(self):
        ident = wire.create(self.server, 'get_task_queue')
        session = wire.Session(self.server)
        self.addCleanup(session.close)
        payload = pickle.dumps((ident, 'put', ('item',), {}), 4)
        for byte in wire.frame(payload):
            session.send_bytes(bytes([byte]))
        self.assertIsNone(session.result())
        session.send_bytes(b'\xff\xff\xff\xff' + len(payload).to_bytes(8, 'big') + payload)
        self.assertIsNone(session.result())
        self.assertEqual(session.call(ident, 'qsize'), 2)

    def test_a_session_speaks_of_any_object(self):
        a, b = (wire.create(self.server, t) for t in ('get_task_queue', 'get_result_queue'))
        session = wire.Session(self.server)
        self.addCleanup(session.close)
        for n in range(10):
            session.call(a, 'put', n)
            session.call(b, 'put', -n)
        self.assertEqual([(session.call(a, 'get'), session.call(b, 'get')) for _ in range(10)],
                         [(n, -n) for n in range(10)])


class ShutdownTest(ServerCase):

    def test_refused_unless_allowed(self):
        server = self.start_master()
        with wire.Wire(server) as conn:
            kind, text = conn.handshake().ask(None, 'shutdown')
            self.assertEqual(kind, '#TRACEBACK')
            self.assertIn('shutdown', text)
        self.assertEqual(wire.control(server, 'dummy'), ('#RETURN', None))

    def test_allowed(self):
        server = self.start_master('--allow-shutdown')
        server.stopped = True
        self.addCleanup(server.clear)
        waiting = wire.Session(server)
        self.addCleanup(waiting.close)
        waiting.request(wire.create(server, 'get_task_queue'), 'get')
        with wire.Wire(server) as conn:
            self.assertEqual(conn.handshake().ask(None, 'shutdown'), ('#RETURN', None))
            self.assertEqual(conn.reply(), ('#RETURN', None))
            self.assertEqual(conn.rest(), b'')
        self.assertEqual(server.wait(10), 0, server.describe())
        self.assertEqual(waiting.rest(), b'')

    def test_idents_of_before_a_restart_are_good(self):
        names = ['get_task_queue', 'result_queue', 'mine']
        server = self.start_master(queues=QUEUES)
        old = {name: wire.create(server, name) for name in names}
        self.assertEqual(len(set(old.values())), 3)
        self.stop_master(server)
        server = self.start_master(port=server.port, queues=['another'] + QUEUES)
        new = {name: wire.create(server, name) for name in names}
        with wire.Session(server) as session:
            for name in names:
                session.call(new[name], 'put', name)
            for name in names:
                self.assertEqual(session.call(old[name], 'get'), name)
                self.assertEqual(wire.control(server, 'incref', old[name]), ('#RETURN', None))
                self.assertEqual(wire.control(server, 'decref', old[name]), ('#RETURN', None))
            session.call(old['mine'], 'task_done')


if __name__ == '__main__':
    main()
