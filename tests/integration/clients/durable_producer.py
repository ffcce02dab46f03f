# A stock producer that keeps a journal of what was acknowledged, on its output: `ok N` after put came back, `unknown N`
# if the connection ended before. SIGTERM: no more. usage: durable_producer.py FIRST
import os, signal, sys, time
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
stopping = []
number = int(sys.argv[1])


def say(*words):
    print(*words)
    sys.stdout.flush()


def produce():
    global number
    m = QueueManager(address=('127.0.0.1', int(os.environ['TASKQ_PORT'])), authkey=os.environ['TASKQ_KEY'].encode())
    m.connect()
    task = m.get_task_queue()
    while not stopping:
        n = number
        number += 1
        try:
            task.put(n)
        except (EOFError, OSError):
            say('unknown', n)
            raise
        say('ok', n)
        time.sleep(0.005)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    while not stopping:
        try:
            produce()
        except (EOFError, OSError):
            time.sleep(0.02)
    say('end')
