# The remote queue of the library reference, section "Using a remote manager": three programs in one file.
import os, sys
from multiprocessing.managers import BaseManager
class QueueManager(BaseManager): pass
QueueManager.register('get_queue')
m = QueueManager(address=('127.0.0.1', int(os.environ['TASKQ_PORT'])), authkey=b'abracadabra')
m.connect()
queue = m.get_queue()
if sys.argv[1] == 'put':
    queue.put('hello')
else:
    print(queue.get())
