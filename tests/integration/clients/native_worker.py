"""A native worker process that squares: at most `credit` tasks in hand, results and the next tasks in one frame; after
a cut it resumes its session and hands in what it has. A body [N] is a long task at its first attempt: it is said, and
goes on for a line of stdin. usage: native_worker.py ID CREDIT [HEARTBEAT_MS]"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import native  # noqa: E402,F401  finds msgpack where the interpreter has none
import taskq_native  # noqa: E402

ADDRESS = os.environ['TASKQ_HOST'], int(os.environ['TASKQ_PORT'])
KEY = os.environ['TASKQ_KEY'].encode()
worker, credit = sys.argv[1], int(sys.argv[2])
heartbeat_ms = int(sys.argv[3]) if len(sys.argv) > 3 else 0


def say(*words):
    print(*words)
    sys.stdout.flush()


def square(task):
    if not isinstance(task.body, list):
        return task.body ** 2
    if task.attempt == 1:
        say('long', task.id)
        sys.stdin.readline()
    return task.body[0] ** 2


client = taskq_native.Client(ADDRESS, KEY, worker=worker, heartbeat_ms=heartbeat_ms)
say('here')
finished = []  # not yet accepted
while True:
    try:
        reply = client.call('done', done=[[t.id, t.epoch, value] for t, value in finished],
                            get={'q': 'task_queue', 'max': credit, 'wait_ms': -1})
        for task_id, code in reply.get('refused', []):
            say('refused', task_id, code)
        for task, _ in finished:
            client.leases.pop(task.id, None)
        finished = [(task, square(task)) for task in client.tasks_of(reply)]
    except taskq_native.Closed:
        while True:
            try:
                client = client.resume()
                break
            except (taskq_native.Closed, ConnectionError):
                continue
            except taskq_native.Error as error:
                if error.code != 'worker_taken':
                    raise
        say('resumed', client.hello['resumed'], len(client.leases))
        # All that is finished is handed in, late or not: the master knows what it may take.
