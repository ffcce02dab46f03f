# The example's master as a client: connect() for start(), and no shutdown().
import os, random, queue
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
QueueManager.register('get_result_queue')

if __name__ == '__main__':
    manager = QueueManager(address=('127.0.0.1', int(os.environ['TASKQ_PORT'])),
                           authkey=os.environ['TASKQ_KEY'].encode())
    manager.connect()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    for i in range(10):
        n = random.randint(0, 10000)
        print('Put task %d...' % n)
        task.put(n)
    print('Try get results...')
    for i in range(10):
        r = result.get(timeout=10)
        print('Result: %s' % r)
    print('master exit.')
