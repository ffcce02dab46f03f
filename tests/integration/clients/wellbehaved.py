"""Programs that take items and end in the ways in which good programs end. usage: wellbehaved.py MODE

Each tells 'seen ITEM' for what it took; nobody may see such an item again.
"""
import concurrent.futures
import gc
import multiprocessing
import sys
import threading
from multiprocessing.process import current_process

import common

MODES = {}


def mode(function):
    MODES[function.__name__] = function
    return function


def task_queue():
    return common.connect('get_task_queue').get_task_queue()


def take(q):
    # One write: several processes share the pipe.
    sys.stdout.write('seen %s\n' % q.get(timeout=30))
    sys.stdout.flush()


@mode
def falls_off_its_end():
    take(task_queue())


@mode
def global_proxies_at_exit():
    global GLOBAL
    m = common.connect('get_task_queue', 'get_result_queue')
    GLOBAL = (m, m.get_task_queue(), m.get_result_queue(), m.get_task_queue())
    GLOBAL[2].qsize()
    take(GLOBAL[1])
    take(GLOBAL[3])


@mode
def exits():
    q = task_queue()
    take(q)
    sys.exit(0)


@mode
def exits_with_a_status():
    q = task_queue()
    take(q)
    sys.exit('a reason')


@mode
def ends_by_an_exception():
    q = task_queue()
    take(q)
    raise RuntimeError('not caught')


@mode
def exits_in_a_loop_after_work():
    m = common.connect('get_task_queue', 'get_result_queue')
    q, r = m.get_task_queue(), m.get_result_queue()
    for n in range(5):
        take(q)
        if n == 4:
            sys.exit(1)
        r.put(n)


@mode
def proxy_of_a_function():
    def work():
        take(task_queue())
    for _ in range(3):
        work()
    gc.collect()


@mode
def deletes_its_proxy():
    m = common.connect('get_task_queue')
    q = m.get_task_queue()
    take(q)
    del q
    gc.collect()
    q = m.get_task_queue()
    take(q)
    other = m.get_task_queue()
    take(other)
    del other
    gc.collect()
    take(q)


@mode
def threads_end():
    q = task_queue()
    for _ in range(2):
        threads = [threading.Thread(target=take, args=(q,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@mode
def threads_end_with_proxies_of_their_own():
    threads = [threading.Thread(target=lambda: take(task_queue())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@mode
def thread_pool():
    q = task_queue()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: take(q), range(6)))


def children(method, make_own=False):
    context = multiprocessing.get_context(method)
    q = task_queue()
    if method == 'fork':
        take(q)
    processes = [context.Process(target=child, args=(None if make_own else q,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    take(q)


def child(q):
    take(q or task_queue())


@mode
def forked_children():
    children('fork')


@mode
def spawned_children():
    children('spawn')


@mode
def children_of_a_fork_server():
    children('forkserver')


@mode
def forked_children_with_proxies_of_their_own():
    children('fork', make_own=True)


@mode
def spawned_children_with_proxies_of_their_own():
    children('spawn', make_own=True)


@mode
def forked_child_exits():
    q = task_queue()

    def run():
        take(q)
        sys.exit(3)
    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 3


def from_pool(_):
    take(POOL_QUEUE)


def from_pool_with_argument(q):
    take(q)


@mode
def pool_is_closed():
    global POOL_QUEUE
    POOL_QUEUE = task_queue()
    pool = multiprocessing.get_context('fork').Pool(3)
    pool.map(from_pool, range(6), 1)
    pool.close()
    pool.join()


@mode
def pool_is_terminated():
    global POOL_QUEUE
    POOL_QUEUE = task_queue()
    with multiprocessing.get_context('fork').Pool(3) as pool:  # __exit__ terminates
        pool.map(from_pool, range(6), 1)


@mode
def pool_with_proxies_as_arguments():
    current_process().authkey = common.KEY
    q = task_queue()
    with multiprocessing.get_context('fork').Pool(2) as pool:
        pool.map(from_pool_with_argument, [q] * 4, 1)


@mode
def pool_whose_workers_are_replaced():
    global POOL_QUEUE
    POOL_QUEUE = task_queue()
    pool = multiprocessing.get_context('fork').Pool(2, maxtasksperchild=1)
    pool.map(from_pool, range(4), 1)
    pool.close()
    pool.join()


@mode
def spawned_pool():
    current_process().authkey = common.KEY
    q = task_queue()
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        pool.map(from_pool_with_argument, [q] * 4, 1)


@mode
def process_executor():
    global POOL_QUEUE
    POOL_QUEUE = task_queue()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        list(pool.map(from_pool, range(4)))


if __name__ == '__main__':
    if sys.version_info >= (3, 7) and sys.argv[1] == 'process_executor':
        multiprocessing.set_start_method('fork')
    if sys.argv[1] == '--list':
        print('\n'.join(sorted(MODES)))
    else:
        MODES[sys.argv[1]]()
