# The example's worker: takes numbers, squares them, puts the results back.
# usage: example_worker.py [SLEEP_SECONDS]; the only changes are that, the port and the key.
import os, sys, time, queue
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
QueueManager.register('get_result_queue')

if __name__ == '__main__':
    server_addr = '127.0.0.1'
    print('Connect to server %s...' % server_addr)
    m = QueueManager(address=(server_addr, int(os.environ['TASKQ_PORT'])), authkey=os.environ['TASKQ_KEY'].encode())
    m.connect()
    task = m.get_task_queue()
    result = m.get_result_queue()
    for i in range(10):
        try:
            n = task.get(timeout=1)
            print('run task %d * %d...' % (n, n))
            r = '%d * %d = %d' % (n, n, n * n)
            time.sleep(float(sys.argv[1]))
            result.put(r)
        except queue.Empty:
            print('task queue is empty.')
    print('worker exit.')
