# The example's master as a client of task-master: puts ten tasks and reads ten results.
import os, random
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task_queue')
QueueManager.register('get_result_queue')

if __name__ == '__main__':
    host, port = os.environ.get('TASKQ_MASTER', '127.0.0.1:5000').rsplit(':', 1)
    authkey = os.environ.get('TASKQ_AUTHKEY', 'abc').encode()
    manager = QueueManager(address=(host, int(port)), authkey=authkey)
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
