# The example's worker for a master that is killed now and then: it connects again. What it had in hand when the
# connection ended is somebody else's then.
import os, sys, time, queue
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
QueueManager.register('get_result_queue')


def say(*words):
    print(*words)
    sys.stdout.flush()


def serve():
    m = QueueManager(address=('127.0.0.1', int(os.environ['TASKQ_PORT'])), authkey=os.environ['TASKQ_KEY'].encode())
    m.connect()
    task = m.get_task_queue()
    result = m.get_result_queue()
    say('up')
    while True:
        try:
            n = task.get(timeout=1)
        except queue.Empty:
            continue
        say('run', n)
        time.sleep(0.002)
        result.put('%d * %d = %d' % (n, n, n * n))
        say('done', n)


if __name__ == '__main__':
    while True:
        try:
            serve()
        except (EOFError, OSError):
            time.sleep(0.02)
