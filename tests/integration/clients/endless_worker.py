# The example's worker with less sleep and without an end.
import os, time, queue
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
QueueManager.register('get_result_queue')

if __name__ == '__main__':
    m = QueueManager(address=('127.0.0.1', int(os.environ['TASKQ_PORT'])), authkey=os.environ['TASKQ_KEY'].encode())
    m.connect()
    task = m.get_task_queue()
    result = m.get_result_queue()
    print('up')
    while True:
        try:
            n = task.get(timeout=1)
            r = '%d * %d = %d' % (n, n, n * n)
            time.sleep(0.001)
            result.put(r)
        except queue.Empty:
            pass
