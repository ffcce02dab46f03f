# The example's worker: takes numbers, squares them, puts the results back.
import os, time, queue
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
QueueManager.register('get_result_queue')

if __name__ == '__main__':
    server_addr, port = os.environ.get('TASKQ_MASTER', '127.0.0.1:5000').rsplit(':', 1)
    authkey = os.environ.get('TASKQ_AUTHKEY', 'abc').encode()
    print('Connect to server %s...' % server_addr)
    m = QueueManager(address=(server_addr, int(port)), authkey=authkey)
    m.connect()
    task = m.get_task_queue()
    result = m.get_result_queue()
    for i in range(10):
        try:
            n = task.get(timeout=1)
            print('run task %d * %d...' % (n, n))
            r = '%d * %d = %d' % (n, n, n * n)
            time.sleep(1)
            result.put(r)
        except queue.Empty:
            print('task queue is empty.')
    print('worker exit.')
