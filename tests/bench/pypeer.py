"""The Python side of the benchmark, run under the interpreter that is measured (3.6 or later).

    pypeer.py serve                         stock BaseManager server; prints "ready HOST:PORT"
    pypeer.py connect HOST:PORT SECONDS     stock client: connect() again and again
    pypeer.py pairs HOST:PORT SECONDS       stock client: put, get, put, get, ...

The key comes from the environment, TASKQ_AUTHKEY. Clients print one line of JSON.
"""
import json
import os
import queue
import sys
import time
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


def serve(key):
    task_queue = queue.Queue()
    result_queue = queue.Queue()
    QueueManager.register('get_task_queue', callable=lambda: task_queue)
    QueueManager.register('get_result_queue', callable=lambda: result_queue)
    server = QueueManager(address=('127.0.0.1', 0), authkey=key).get_server()
    print('ready %s:%d' % server.address)
    sys.stdout.flush()
    server.serve_forever()


def client(address, key):
    host, port = address.rsplit(':', 1)
    QueueManager.register('get_task_queue')
    QueueManager.register('get_result_queue')
    return QueueManager(address=(host, int(port)), authkey=key)


def connect(address, key, seconds):
    client(address, key).connect()
    count = 0
    begun = time.perf_counter()
    while True:
        client(address, key).connect()
        count += 1
        took = time.perf_counter() - begun
        if took >= seconds:
            return {'per_s': count / took, 'count': count}


def pairs(address, key, seconds):
    manager = client(address, key)
    manager.connect()
    tasks = manager.get_task_queue()
    body = b'x' * 100
    for _ in range(200):
        tasks.put(body)
        tasks.get()
    count = 0
    begun = time.perf_counter()
    cpu = time.process_time()
    while True:
        for _ in range(50):
            tasks.put(body)
            if len(tasks.get()) != 100:
                raise SystemExit('another item came back')
        count += 50
        took = time.perf_counter() - begun
        if took >= seconds:
            cpu = time.process_time() - cpu
            return {'per_s': count / took, 'count': count, 'client_cpu_us': cpu * 1e6 / count}


def main(argv):
    key = os.environ['TASKQ_AUTHKEY'].encode()
    if argv[0] == 'serve':
        serve(key)
        return
    measure = {'connect': connect, 'pairs': pairs}[argv[0]]
    print(json.dumps(measure(argv[1], key, float(argv[2]))))


if __name__ == '__main__':
    main(sys.argv[1:])
