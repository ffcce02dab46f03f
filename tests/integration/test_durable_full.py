"""A disk that fills up, a real one where mounting is allowed, and one that is played: new work is refused by name,
what was accepted goes on and is lost by nothing, and all goes on by itself when there is room."""
import os
import queue
import threading

import disk
import harness
from durable import taskq_native
from harness import poll_until

BODY = b'x' * 1000
BATCH = 10


class FullDisk(disk.SmallDiskCase):
    """The tests; one class for each kind of disk is below."""

    def setUp(self):
        super().setUp()
        self.disk.leave(self.BYTES // 2)  # the rest is what others have

    def fill(self, client, q='task_queue', body=BODY, batch=BATCH):
        """Puts until new work is refused: the ids that were acknowledged."""
        ids = []
        with self.assertRaises(taskq_native.Error) as caught:
            while True:
                ids += client.put(q, *[body] * batch)
        self.assertEqual(caught.exception.code, 'no_space')
        self.master.expect_stderr(' warn NO-SPACE data_dir=')
        return ids

    def complete(self, client, ids, value=7, max=BATCH):
        """Takes and answers all of these, and nothing of that is refused."""
        left = set(ids)
        while left:
            tasks = client.get('task_queue', max=max)
            self.assertNotEqual(tasks, [], '%d tasks have gone' % len(left))
            reply = client.done([(task, value) for task in tasks])
            self.assertEqual(reply, {'ok': len(tasks)})
            left -= {task.id for task in tasks}

    def take_results(self, client, ids, value=7):
        results = []
        while len(results) < len(ids):
            got = client.get('result_queue', max=1000, take=True)
            self.assertNotEqual(got, [], '%d of %d results' % (len(results), len(ids)))
            results += got
        self.assertEqual(sorted(task.id for task in results), sorted(ids))
        self.assertEqual({task.body for task in results}, {value})

    def space_again(self, times=1):
        poll_until(lambda: self.master.stderr.count(' SPACE-AGAIN ') >= times, 'new work is taken again')

    def test_completions_go_on(self):
        """All that was accepted before is handed out and answered, while others fill what room there is left; their
        room is room again, by itself."""
        self.start()
        worker, python = self.native(worker='w'), self.python()
        tasks, results = self.queue('task_queue'), self.queue('result_queue')
        early = worker.put('task_queue', *[BODY] * 20)
        in_hand = worker.get('task_queue', max=10)
        python.call(tasks, 'put', 'for python')
        for _ in range(10):
            self.assertEqual(python.call(tasks, 'get'), BODY)  # the last of them in hand
        ids = self.fill(self.native())
        self.disk.leave(0)
        self.assertGreater(len(ids), 500)
        self.assertEqual(worker.stats()['refuse'], 1)
        self.assertEqual(python.call(tasks, 'get'), 'for python')
        python.call(results, 'put', 'by python')  # a result is no new work
        self.assertEqual(worker.done([(task, 7) for task in in_hand]), {'ok': 10})
        self.complete(worker, ids)
        self.space_again()
        self.again()
        self.assertEqual(self.recovered()['tasks'], str(len(ids) + 11))
        client = self.native()
        got = client.get('result_queue', max=11)  # in the order in which they came
        self.assertEqual([task.body for task in got], ['by python'] + [7] * 10)
        self.assertEqual([task.id for task in got[1:]], early[:10])
        client.done([(task,) for task in got])
        self.take_results(client, ids)
        self.assertEqual(client.stats()['tasks'], 0)

    def test_small_tasks(self):
        """Whose ends take more room than they did; answered in no order."""
        self.start()
        client = self.native()
        ids = self.fill(client, body=1, batch=500)
        self.disk.leave(0)
        self.assertGreater(len(ids), 8000)
        in_hand = []
        while len(in_hand) < 4000:
            in_hand += client.get('task_queue', max=1000)
        for first in range(97):
            some = in_hand[first::97]
            self.assertEqual(client.done([(task, 7) for task in some]), {'ok': len(some)})
        self.take_results(client, [task.id for task in in_hand])
        self.again()
        self.assertEqual(self.native().stats('task_queue')['ready'], len(ids) - 4000)

    def test_who_waits(self):
        """Puts that may wait do so, in both dialects, and those that may not are told; then there is room."""
        self.start()
        client, waiting = self.native(), self.native()
        python, python_waiting = self.python(), self.python('waits')
        tasks = self.queue('task_queue')
        ids = self.fill(client)
        self.disk.leave(0)
        for options in ((False,), (True, 0.01)):
            with self.assertRaises(queue.Full):
                python.call(tasks, 'put', BODY, *options)
        with self.assertRaises(taskq_native.Error) as caught:
            client.put('task_queue', BODY, wait_ms=10)
        self.assertEqual(caught.exception.code, 'no_space')
        call = waiting.start('put', q='task_queue', tasks=[['patient']], wait_ms=-1)
        python_waiting.request(tasks, 'put', 'patient, too')
        poll_until(lambda: client.stats('task_queue')['waiting_puts'] == 2, 'both wait')
        self.assertFalse(call.answered())
        self.disk.free()
        late = call.result()['ids']
        self.assertIsNone(python_waiting.result())
        self.space_again()
        client.put('task_queue', 'as before', wait_ms=-1)
        self.again()
        client = self.native()
        self.assertEqual(self.recovered()['tasks'], str(len(ids) + 3))
        self.assertEqual([task['id'] for task in client.tasks('task_queue') if task['id'] in set(ids + late)],
                         ids + late)

    def test_restart(self):
        """A master that finds its disk full: all is there, completions go on, killed again and again."""
        self.start()
        client = self.native()
        ids = self.fill(client)
        self.disk.leave(0)
        self.again()
        self.assertEqual(self.recovered()['tasks'], str(len(ids)))
        done = []
        for _ in range(5):
            client = self.native()
            tasks = client.get('task_queue', max=50)
            self.assertEqual(client.done([(task, 7) for task in tasks[:40]]), {'ok': 40})
            done += [task.id for task in tasks[:40]]
            self.again()
            self.assertEqual(self.recovered()['tasks'], str(len(ids)))
        client = self.native()
        more = self.fill(client)  # what little there is, and then it is refused again
        self.disk.free()
        self.space_again()
        more += client.put('task_queue', BODY, wait_ms=-1)
        self.stop()
        self.start()
        client = self.native()
        self.take_results(client, done)
        self.complete(client, set(ids + more) - set(done))
        self.take_results(client, set(ids + more) - set(done))

    def test_first_start(self):
        """There is not even room for the first segment: it says so, and starts later."""
        self.disk.leave(disk.SEGMENT_BYTES // 2)
        said = self.refused('--data-dir', self.folder, '--log-segment-bytes', str(disk.SEGMENT_BYTES), env=self.disk.env)
        self.assertRegex(said, 'the log cannot be opened for writing: .*No space left on device')
        self.disk.free()
        self.start()
        self.native().put('task_queue', 1)
        self.again()
        self.assertEqual(self.recovered()['tasks'], '1')

    def test_purge_makes_room(self):
        self.start(queues=['old'])
        client = self.native()
        ids = client.put('task_queue', *[BODY] * 10)
        old = self.fill(client, 'old')
        self.disk.leave(0)
        self.assertEqual(client.purge('old'), len(old))
        self.space_again()
        ids += client.put('task_queue', *[BODY] * 10, wait_ms=-1)
        self.again()
        self.assertEqual([task.id for task in self.native().get('task_queue', max=100)], ids)

    def test_hand_outs_for_ever(self):
        """What is written on a full disk and ends nothing is as much as one likes: its room comes back."""
        self.start()
        client = self.native()
        ids = self.fill(client)
        self.disk.leave(0)
        for _ in range(120):  # some ten segments of nothing but that
            tasks = client.get('task_queue', max=200)
            self.assertEqual(client.release(tasks), {'ok': 200})
        self.assertEqual(client.stats()['refuse'], 1)
        self.again()
        self.assertEqual(self.recovered()['tasks'], str(len(ids)))
        tasks = self.native().get('task_queue', max=200)
        self.assertEqual([(task.id, task.attempt) for task in tasks], [(n, 1) for n in ids[:200]])

    def test_many_producers(self):
        """What comes in one turn of the master is more than a segment has, and still nobody is left without an
        answer."""
        self.start()
        clients = [self.native() for _ in range(12)]
        ids, errors, lock = [], [], threading.Lock()

        def produce(client):
            try:
                while True:
                    got = client.put('task_queue', *[BODY] * BATCH)
                    with lock:
                        ids.extend(got)
            except Exception as error:  # looked at below
                errors.append(error)

        threads = [threading.Thread(target=produce, args=(client,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(harness.DEADLINE_S)
            self.assertFalse(thread.is_alive(), 'a put is not answered\n' + self.master.describe())
        self.assertEqual([getattr(error, 'code', error) for error in errors], ['no_space'] * 12)
        self.disk.leave(0)
        self.complete(clients[0], ids)
        self.space_again()
        self.again()
        self.take_results(self.native(), ids)

    def test_one_that_is_too_large(self):
        """A body that is larger than a segment: it is refused, or waits, and nobody waits behind it."""
        self.start()
        client, other = self.native(), self.native()
        ids = self.fill(client)
        with self.assertRaises(taskq_native.Error) as caught:
            client.put('task_queue', b'y' * 200000)
        self.assertEqual(caught.exception.code, 'no_space')
        call = other.start('put', q='task_queue', tasks=[[b'y' * 200000]], wait_ms=-1)
        poll_until(lambda: client.stats('task_queue')['waiting_puts'] == 1, 'it waits')
        self.disk.leave(0)
        self.complete(client, ids[:100])
        self.assertFalse(call.answered())
        self.disk.free()
        large = call.result()['ids']
        self.complete(client, ids[100:])
        self.again()
        client = self.native()
        self.assertEqual([task.id for task in client.get('task_queue', max=10)], large)
        self.take_results(client, ids)

    def test_stop(self):
        """SIGTERM on a full disk ends it well."""
        self.start()
        ids = self.fill(self.native())
        self.disk.leave(0)
        self.stop()
        self.assertIn(' LOG-CLOSED ', self.master.stderr)
        self.start()
        self.assertEqual(self.recovered()['stopped'], 'cleanly')
        self.assertEqual(self.recovered()['tasks'], str(len(ids)))


class Played(FullDisk):
    Disk = disk.Budgeted


if disk.can_mount():
    class Real(FullDisk):
        Disk = disk.Mounted


del FullDisk  # it has no disk


if __name__ == '__main__':
    harness.main()
