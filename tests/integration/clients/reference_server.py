"""Python's own manager server with the queues that task-master would have: the reference.

usage: reference_server.py PORT KEY [NAME[,kind=...][,maxsize=N][,typeid=T]]...
"""
import queue
import sys
from multiprocessing.managers import SyncManager

KINDS = {'fifo': queue.Queue, 'lifo': queue.LifoQueue, 'priority': queue.PriorityQueue}


class Manager(SyncManager):  # Queue and JoinableQueue are factories
    pass


def register(text):
    name, *options = text.split(',')
    options = dict(o.split('=', 1) for o in options)
    q = KINDS[options.get('kind', 'fifo')](int(options.get('maxsize', 0)))
    for typeid in [name, 'get_' + name] + [v for k, v in options.items() if k == 'typeid']:
        Manager.register(typeid, callable=lambda: q)


def main():
    port, key, queues = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for text in ['task_queue', 'result_queue'] + queues:
        register(text)
    server = Manager(address=('127.0.0.1', port), authkey=key.encode()).get_server()
    print('reference ready on %s:%d' % server.address)
    sys.stdout.flush()
    server.serve_forever()


if __name__ == '__main__':
    main()
