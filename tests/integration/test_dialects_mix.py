"""Both dialects on the same queues: every mix of stock Python and native producers, workers and collectors."""
import ast
import datetime
import decimal
import pickle
import threading

from native import msgpack  # first: finds it for interpreters that have none
import taskq_native
import wire
from harness import ServerCase, all_clients, expand, main, old_middle_new, per_interpreter, poll_until
from taskq_native import PythonItem

# What both sides can read: as Python and as msgpack give it.
PLAIN = [None, True, False, 0, 1, -1, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536, -32769, 2 ** 31, -2 ** 31,
         2 ** 63 - 1, -2 ** 63, 0.0, -0.0, 1.5, 1e300, float('inf'), '', 'text', '\u00e4\u20ac\U0001f600', 'x' * 300, 'y' * 70000, 'nul\x00',
         b'', b'bytes\x00\xff', b'z' * 70000, [], [1, [2, [3]]], {}, {'a': 1, 'b': {'c': [None, True]}}, {1: 'one', 2.5: b'x'},
         list(range(1000)), [{'k': [b'\x00', 'v']}] * 5]
# What Python alone can read.
OPAQUE = ['decimal.Decimal("1.50")', '{1, 2, 3}', '3+4j', 'datetime.date(2020, 2, 29)', '[1, decimal.Decimal(2)]', '2**64', '-2**70',
          '(1, {2})', 'range(3)', 'frozenset()']


class MixCase(ServerCase):
    def native(self, server, **kwargs):
        client = taskq_native.Client((server.host, server.port), server.key.encode(), **kwargs)
        self.addCleanup(client.close)
        return client

    def python(self, interpreter, server, *queues):
        client = self.start_client(interpreter, 'mixed.py', *queues, server=server, stdin=True)
        client.expect('^here$')
        return client

    def evaluate(self, client, text):
        """What the stock client's expression gave."""
        client.tell(text)
        return self.value_of(client)

    def value_of(self, client):
        sign, text = client.expect(r'^([=!]) (.*)$').groups()
        if sign == '!':
            raise AssertionError(text)
        return text

    def same(self, got, want):
        """Equal, and of the same types all through."""
        self.assertEqual((repr(got), type(got)), (repr(want), type(want)))


@expand
class ValuesTest(MixCase):

    @per_interpreter(all_clients)
    def test_plain_values_both_ways(self, interpreter):
        server = self.start_master(queues=['there', 'back'])
        native = self.native(server)
        python = self.python(interpreter, server, 'there', 'back')
        for value in PLAIN:
            text = repr(value).replace('inf', 'float("inf")')
            python.tell('there.put(%s)' % text.encode('ascii', 'backslashreplace').decode())
            [task] = native.get('there', wait_ms=30000)
            self.value_of(python)
            self.same(task.body, value)
            native.put('back', task.body)
            native.done([(task,)])
            got = self.evaluate(python, 'back.get(timeout=30)')
            self.assertEqual(got, ascii(value))

    @per_interpreter(all_clients)
    def test_tuples_are_arrays_and_come_back_as_they_were(self, interpreter):
        server = self.start_master(queues=['there', 'back'])
        native = self.native(server)
        python = self.python(interpreter, server, 'there', 'back')
        self.evaluate(python, '[there.put((1, (2, "x"), [(3,)])) for _ in range(2)]')
        [task] = native.get('there')
        self.same(task.body, [1, [2, 'x'], [[3]]])
        native.put('back', task.body)  # by way of msgpack it is a list
        self.assertEqual(self.evaluate(python, 'back.get(timeout=30)'), "[1, [2, 'x'], [[3]]]")
        native.release([task])  # in its own dialect it is what it was
        self.assertEqual(self.evaluate(python, 'there.get(timeout=30)'), "(1, (2, 'x'), [(3,)])")

    @per_interpreter(old_middle_new)
    def test_native_values_that_python_has_other_names_for(self, interpreter):
        server = self.start_master(queues=['back'])
        native = self.native(server)
        python = self.python(interpreter, server, 'back')
        for body, text in ((msgpack.Timestamp(1582934400, 5000), None),
                           (msgpack.ExtType(5, b'abc'), "(5, b'abc')"),
                           ('\udcff\udcfe', "b'\\xff\\xfe'"),
                           (2 ** 64 - 1, str(2 ** 64 - 1)),
                           ({'k': msgpack.ExtType(7, b'')}, "{'k': (7, b'')}")):
            native.put('back', body)
            got = self.evaluate(python, 'back.get(timeout=30)')
            if text is None:
                self.assertEqual(eval(got), datetime.datetime(2020, 2, 29, microsecond=5, tzinfo=datetime.timezone.utc))
            else:
                self.assertEqual(got, text)

    @per_interpreter(all_clients)
    def test_opaque_items(self, interpreter):
        """They reach native workers as ext 80, can be moved, listed, counted, and reach Python as they were."""
        server = self.start_master(queues=['there', 'back'])
        native = self.native(server)
        python = self.python(interpreter, server, 'there', 'back')
        for text in OPAQUE:
            self.evaluate(python, 'there.put(%s)' % text)
        self.assertEqual(native.stats('there')['ready'], len(OPAQUE))
        listed = list(native.tasks('there', bodies=True, max=3))
        tasks = native.get('there', max=100)
        self.assertEqual([t.body for t in tasks], [r['value'] for r in listed])
        for task, text in zip(tasks, OPAQUE):
            value = eval(text, {'decimal': decimal, 'datetime': datetime})
            self.assertIsInstance(task.body, PythonItem, text)
            self.assertEqual(pickle.loads(task.body.pickle), value)
            native.put('back', task.body)
        native.release(tasks[:1])
        native.done([(t, t.body) for t in tasks[1:]])
        self.assertEqual(native.get('back', max=1)[0].body, tasks[0].body)
        native.release([native.get('there')[0]])
        self.assertEqual(self.evaluate(python, '[there.get(timeout=30)] == [%s]' % OPAQUE[0]), 'True')
        for text in OPAQUE[1:]:
            self.assertEqual(self.evaluate(python, '(lambda got, want: got == want and type(got) is type(want))'
                                                   '(back.get(timeout=30), %s)' % text), 'True')

    def test_byte_for_byte(self):
        """An item that both dialects have handled is handed to Python in the bytes that came from Python."""
        server = self.start_master(queues=['one', 'two'])
        native = self.native(server)
        session = wire.Session(server)
        self.addCleanup(session.close)
        for item in ({1, 2}, [1, decimal.Decimal(3)], {'deep': [(1, 2), {3}]}):
            for protocol in (2, 3, 4):
                pickled = pickle.dumps(item, protocol)
                native.put('one', PythonItem(pickled))
                [task] = native.get('one')
                self.assertEqual(task.body.pickle, pickled)
                native.put('two', task.body)
                native.release([task])
                session.send(pickle.dumps(('queue:one', 'get', (), {}), 3))
                first = session.receive()
                session.send(pickle.dumps(('queue:two', 'get', (), {}), 3))
                self.assertEqual(session.receive(), first)
                self.assertEqual(pickle.loads(first), ('#RETURN', item))

    def test_an_ext_80_that_is_no_pickle(self):
        """Native peers may pass it round; Python gets the msgpack as bytes, and the queue goes on."""
        server = self.start_master(queues=['one'])
        native = self.native(server)
        session = wire.Session(server)
        self.addCleanup(session.close)
        for bad in (b'', b'no pickle', b'\x80\x02', b'.', b'\x80\x02N.N.', b'\x80\x09N.'):
            native.put('one', PythonItem(bad), 'next')
            [task] = native.get('one')
            self.assertEqual(task.body, PythonItem(bad))
            native.release([task])
            self.assertEqual(session.ask('queue:one', 'get', True, 10), ('#RETURN', taskq_native.pack(PythonItem(bad))))
            self.assertEqual(session.ask('queue:one', 'get', True, 10), ('#RETURN', 'next'))


@expand
class MixesTest(MixCase):
    COUNT = 40
    SUM = sum(n * n for n in range(COUNT))

    def native_worker(self, server):
        """Squares what comes, with the next task in the frame of each result; ends with its connection."""
        client = self.native(server, worker='native')

        def work():
            try:
                tasks = client.get('task_queue', wait_ms=-1)
                while tasks:
                    tasks = client.done([(t, t.body ** 2) for t in tasks], get={'q': 'task_queue', 'wait_ms': -1})
            except taskq_native.Closed:
                pass
        threading.Thread(target=work, daemon=True).start()

    def native_collector(self, native):
        total = 0
        for _ in range(self.COUNT):
            [result] = native.get('result_queue', wait_ms=30000)
            self.assertEqual(result.info['outcome'], 'ok')
            native.done([(result,)])
            total += result.body
        return total

    @per_interpreter(all_clients)
    def test_python_producer_and_collector_native_worker(self, interpreter):
        server = self.start_master()
        self.native_worker(server)
        python = self.python(interpreter, server, 'task_queue', 'result_queue')
        self.assertEqual(self.evaluate(python, 'numbers(task_queue, result_queue, %d)' % self.COUNT), str(self.SUM))

    @per_interpreter(all_clients)
    def test_native_producer_and_collector_python_worker(self, interpreter):
        server = self.start_master()
        python = self.python(interpreter, server, 'task_queue', 'result_queue')
        native = self.native(server)
        python.tell('squares(task_queue, result_queue, %d)' % self.COUNT)
        ids = native.put('task_queue', *range(self.COUNT))
        self.assertEqual(len(set(ids)), self.COUNT)
        self.assertEqual(self.native_collector(native), self.SUM)
        self.assertEqual(self.value_of(python), str(self.COUNT))
        self.assertEqual(native.join('task_queue', wait_ms=0), self.COUNT)  # Python says so with task_done

    @per_interpreter(old_middle_new)
    def test_python_producer_native_worker_native_collector(self, interpreter):
        server = self.start_master()
        self.native_worker(server)
        python = self.python(interpreter, server, 'task_queue')
        self.evaluate(python, '[task_queue.put(n) for n in range(%d)]' % self.COUNT)
        self.assertEqual(self.native_collector(self.native(server)), self.SUM)

    @per_interpreter(old_middle_new)
    def test_native_producer_python_worker_python_collector(self, interpreter):
        server = self.start_master()
        worker = self.python(interpreter, server, 'task_queue', 'result_queue')
        collector = self.python(interpreter, server, 'result_queue')
        worker.tell('squares(task_queue, result_queue, %d)' % self.COUNT)
        self.native(server).put('task_queue', *range(self.COUNT))
        self.assertEqual(self.evaluate(collector, 'sum(result_queue.get(timeout=30) for _ in range(%d))' % self.COUNT),
                         str(self.SUM))

    @per_interpreter(old_middle_new)
    def test_native_producer_native_worker_python_collector(self, interpreter):
        server = self.start_master()
        self.native_worker(server)
        python = self.python(interpreter, server, 'result_queue')
        self.native(server).put('task_queue', *range(self.COUNT))
        self.assertEqual(self.evaluate(python, 'sum(result_queue.get(timeout=30) for _ in range(%d))' % self.COUNT),
                         str(self.SUM))

    @per_interpreter(old_middle_new)
    def test_python_producer_python_worker_native_collector(self, interpreter):
        server = self.start_master()
        producer = self.python(interpreter, server, 'task_queue')
        worker = self.python(interpreter, server, 'task_queue', 'result_queue')
        worker.tell('squares(task_queue, result_queue, %d)' % self.COUNT)
        self.evaluate(producer, '[task_queue.put(n) for n in range(%d)]' % self.COUNT)
        self.assertEqual(self.native_collector(self.native(server)), self.SUM)

    @per_interpreter(all_clients)
    def test_reply_queue_and_wait_served_by_a_stock_worker(self, interpreter):
        server = self.start_master()
        python = self.python(interpreter, server, 'task_queue', 'result_queue')
        one, two = self.native(server), self.native(server)
        for n, client in enumerate((one, two)):
            client.declare('reply.%d' % n)
        python.tell('squares(task_queue, result_queue, 6)')
        waited = one.put('task_queue', 11, 12, result=None)
        own = one.put('task_queue', 2, 3, result='reply.0')
        others = two.put('task_queue', 4, 5, result='reply.1')
        for task_id, n in zip(waited, (11, 12)):
            reply = two.wait(task_id)
            self.assertEqual((reply['state'], reply['result']['value'], reply['result']['outcome']), ('done', n * n, 'ok'))
        for client, queue, ids, values in ((one, 'reply.0', own, [4, 9]), (two, 'reply.1', others, [16, 25])):
            got = [client.get(queue, wait_ms=30000)[0] for _ in ids]
            self.assertEqual([(r.id, r.body) for r in got], list(zip(ids, values)))
        self.assertEqual(self.value_of(python), '6')
        self.assertEqual(one.get('result_queue', max=9), [])
        self.evaluate(python, '[task_queue.task_done() for _ in range(6)]')
        self.assertEqual(one.join('task_queue', wait_ms=30000), 0)

    @per_interpreter(all_clients)
    def test_python_join_is_released_by_native_done(self, interpreter):
        server = self.start_master()
        python = self.python(interpreter, server, 'task_queue')
        self.evaluate(python, 'task_queue.put("x")')
        self.evaluate(python, 'task_queue.put("y")')
        native = self.native(server)
        tasks = native.get('task_queue', max=2)
        python.tell('task_queue.join()')
        poll_until(lambda: native.stats()['waiting'] == 1, 'join waits')
        native.done([(tasks[0],)])
        self.assertEqual(native.stats()['waiting'], 1)
        native.fail(tasks[1], 'no', final=True)
        self.assertEqual(self.value_of(python), 'None')

    @per_interpreter(old_middle_new)
    def test_native_join_is_released_by_python(self, interpreter):
        server = self.start_master()
        native = self.native(server)
        native.put('task_queue', 7)
        join = native.start('join', q='task_queue', wait_ms=-1)
        python = self.python(interpreter, server, 'task_queue', 'result_queue')
        self.evaluate(python, 'squares(task_queue, result_queue, 1)')
        self.evaluate(python, 'task_queue.task_done()')
        self.assertEqual(join.result()['unfinished'], 0)

    @per_interpreter(old_middle_new)
    def test_a_stock_worker_that_dies_gives_the_task_to_a_native_one(self, interpreter):
        server = self.start_master()
        native = self.native(server)
        [task_id] = native.put('task_queue', 7)
        python = self.python(interpreter, server, 'task_queue')
        self.assertEqual(self.evaluate(python, 'task_queue.get()'), '7')
        python.kill()
        [task] = native.get('task_queue', wait_ms=30000)
        self.assertEqual((task.id, task.attempt, task.body), (task_id, 2, 7))

    @per_interpreter(old_middle_new)
    def test_what_python_sees_of_failures(self, interpreter):
        server = self.start_master()
        native = self.native(server, worker='w')
        python = self.python(interpreter, server, 'task_queue', 'result_queue')
        self.evaluate(python, 'task_queue.put("x")')
        [task] = native.get('task_queue')
        native.fail(task, 'no such file', code=2, final=True)
        record = ast.literal_eval(self.evaluate(python, 'result_queue.get(timeout=30)'))
        self.assertEqual({k: record[k] for k in ('id', 'outcome', 'error', 'code', 'attempt', 'worker', 'from')},
                         {'id': task.id, 'outcome': 'failed', 'error': 'no such file', 'code': 2, 'attempt': 1,
                          'worker': 'w', 'from': 'task_queue'})

    @per_interpreter(old_middle_new)
    def test_priority_queue_of_both(self, interpreter):
        """Python's items are ordered by comparison, as it means them; native tasks by their priority."""
        server = self.start_master(queues=['p,kind=priority', 'q,kind=priority'])
        native = self.native(server)
        python = self.python(interpreter, server, 'p', 'q')
        self.evaluate(python, '[p.put((n, "x")) for n in (5, 1, 3)]')
        self.assertEqual([t.body for t in native.get('p', max=9)], [[1, 'x'], [3, 'x'], [5, 'x']])
        for priority in (5, -1, 3):
            native.put('q', 'n%d' % priority, priority=priority)
        self.assertEqual(self.evaluate(python, '[q.get(timeout=30) for _ in range(3)]'), "['n-1', 'n3', 'n5']")

    @per_interpreter(old_middle_new)
    def test_full_and_shut_down(self, interpreter):
        server = self.start_master(queues=['small,maxsize=1'])
        native = self.native(server)
        python = self.python(interpreter, server, 'small')
        self.evaluate(python, 'small.put(1)')
        with self.assertRaises(taskq_native.Error) as caught:
            native.put('small', 2)
        self.assertEqual(caught.exception.code, 'full')
        put = native.start('put', q='small', tasks=[[2]], wait_ms=-1)
        self.assertEqual(self.evaluate(python, '[small.get(timeout=30), small.get(timeout=30)]'), '[1, 2]')
        put.result()
        get = native.start('get', q='small', wait_ms=-1)
        self.evaluate(python, 'small.shutdown()')
        with self.assertRaises(taskq_native.Error) as caught:
            get.result()
        self.assertEqual(caught.exception.code, 'queue_closed')
        with self.assertRaises(taskq_native.Error) as caught:
            native.put('small', 3)
        self.assertEqual(caught.exception.code, 'queue_closed')


if __name__ == '__main__':
    main()
