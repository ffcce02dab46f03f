"""Items of any type, put by every version and taken by every other one."""
import pickle

import wire
from harness import ServerCase, all_clients, expand, interpreters, main, per_interpreter, run_parallel


@expand
class ItemsTest(ServerCase):

    @per_interpreter()
    def test_put_here_taken_everywhere(self, putter):
        queues = ['for-' + taker.ident for taker in all_clients()]
        # Names of typeids become Python methods: give each a name that can be one.
        server = self.start_master(queues=['%s,typeid=%s' % (q, q.replace('-', '_')) for q in queues])
        names = [q.replace('-', '_') for q in queues]
        self.assertIn('put ', self.run_client(putter, 'items.py', 'put', *names, server=server)[-1])

        def take(taker, name):
            self.assertIn('took ', self.run_client(taker, 'items.py', 'take', name, server=server)[-1])
        run_parallel([lambda t=t, n=n: take(t, n) for t, n in zip(all_clients(), names)], at_once=3)

    @per_interpreter(interpreters)
    def test_reference(self, interpreter):
        """The list of items is one that Python's own manager passes on, where it can import them."""
        server = self.start_reference(interpreter=interpreter, queues=['items'])
        self.run_client(interpreter, 'items_reference.py', 'items', server=server)

    @per_interpreter()
    def test_within_one_process(self, interpreter):
        server = self.start_master(queues=['prio,kind=priority'])
        self.assertEqual(self.run_client(interpreter, 'items.py', 'own', server=server), ['good'])


class RawItemsTest(ServerCase):

    def setUp(self):
        self.server = self.start_master()
        self.ident = wire.create(self.server, 'get_task_queue')
        self.session = wire.Session(self.server)
        self.addCleanup(self.session.close)

    def put_raw(self, item):
        """An item given as opcodes."""
        ident = self.ident.encode()
        self.session.send(b'\x80\x04(X' + len(ident).to_bytes(4, 'little') + ident + b'X\x03\0\0\0put' + item +
                          b'\x85}t.')

    def test_the_server_resolves_nothing(self):
        """A name that exists nowhere passes through."""
        self.put_raw(b'cno.such.module\nNoSuchName\n)R')
        self.assertIsNone(self.session.result())
        self.session.request(self.ident, 'get')
        self.assertIn(b'cno.such.module\nNoSuchName\n)R', self.session.receive())
        self.put_raw(b'K\x05')
        self.assertIsNone(self.session.result())
        self.assertEqual(self.session.call(self.ident, 'get'), 5)

    def test_extension_codes_pass_through(self):
        for item in (b'\x82\x01', b'\x83\x01\x02', b'\x84\x01\x02\x03\x04'):
            self.put_raw(item)
            self.assertIsNone(self.session.result())
            self.session.request(self.ident, 'get')
            self.assertIn(item, self.session.receive())

    def test_persistent_ids_and_outside_buffers_are_refused(self):
        for item in (b'Pname\n', b'K\x01Q', b'\x97', b'K\x01\x98'):
            self.put_raw(item)
            self.assertEqual(self.session.reply()[0], '#TRACEBACK', item)
        self.assertEqual(self.session.call(self.ident, 'qsize'), 0)

    def test_deeply_nested(self):
        """200,000 levels are a legal message of 400 KiB; taking it is the receiver's affair."""
        deep = b']' * 200000 + b'a' * 199999
        self.put_raw(deep)
        self.assertIsNone(self.session.result())
        self.session.request(self.ident, 'get')
        self.assertIn(deep, self.session.receive())

    def test_item_changed_behind_its_end_is_not_lost_silently(self):
        """A tail that writes into the item: refused, or served as the writer meant it."""
        ident = self.ident.encode()
        head = b'\x80\x04(X' + len(ident).to_bytes(4, 'little') + ident + b'X\x03\0\0\0put'
        self.session.send(head + b']q\x07\x85}h\x07K\x05a0t.')
        kind, value = self.session.reply()
        if kind == '#RETURN':
            self.assertEqual(self.session.call(self.ident, 'get'), [5])
        else:
            self.assertIn(kind, ('#ERROR', '#TRACEBACK'))
            self.assertEqual(self.session.call(self.ident, 'qsize'), 0)

    def test_reply_protocol(self):
        """Not above what 3.6 reads unless the item itself needs it."""
        for protocol, item in ((0, 'a'), (1, 'a'), (2, ['a']), (3, b'a'), (4, {1, 2}), (5, {1, 2})):
            if protocol > pickle.HIGHEST_PROTOCOL:
                continue
            self.session.send(pickle.dumps((self.ident, 'put', (item,), {}), protocol))
            self.assertIsNone(self.session.result())
            self.session.request(self.ident, 'get')
            payload = self.session.receive()
            self.assertEqual(pickle.loads(payload), ('#RETURN', item))
            self.assertLessEqual(payload[1], 4)


if __name__ == '__main__':
    main()
