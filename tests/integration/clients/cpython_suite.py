"""CPython's own queue tests, of this interpreter, with every queue a remote one. usage: cpython_suite.py [-v]

What is left out reads or writes an attribute of the queue object, which no proxy offers (Python's own manager
fails there as well), or tests something that does not come from the server.
"""
import gc
import itertools
import multiprocessing
import os
import queue
import unittest
from multiprocessing.managers import SyncManager

import common

from test import _test_multiprocessing, test_queue

LEFT_OUT = {
    # test_queue
    'test_shrinking_queue': 'sets maxsize',
    'test_shutdown_allowed_transitions': 'reads is_shutdown',
    'test_shutdown_put_join': 'reads unfinished_tasks',
    'test_shutdown_immediate_put_join': 'reads unfinished_tasks',
    'test_shutdown_get_task_done_join': 'reads unfinished_tasks',
    # _test_multiprocessing: these use multiprocessing.Queue, a pipe without a server
    'test_no_import_lock_contention': 'a queue of its own',
    'test_timeout': 'a queue of its own',
    'test_queue_feeder_donot_stop_onexc': 'for queues with a feeder thread',
    'test_queue_feeder_on_queue_feeder_error': 'for queues with a feeder thread',
    'test_closed_queue_empty_exceptions': 'close() is of multiprocessing.Queue',
    'test_closed_queue_put_get_exceptions': 'close() is of multiprocessing.Queue',
}
WANTED_OF_PROCESSES = ['test_put', 'test_get', 'test_fork', 'test_qsize', 'test_task_done']
WANTED_OF_MANAGERS = ['test_queue', 'test_joinable_queue']
# 65,536 items with 6 readers that poll: once is enough.
FIFO_ONLY = ['test_shutdown_all_methods_in_many_threads', 'test_shutdown_immediate_all_methods_in_many_threads']


class RemoteManager(SyncManager):
    """manager.Queue() and manager.JoinableQueue() of the server; start and shutdown are not ours to call."""

    def start(self, *args, **kwds):
        self.connect()

    def shutdown(self):
        pass


for kind in ('lifo', 'priority'):
    for maxsize in (0, 2, 5):
        for n in range(int(os.environ.get('TASKQ_SUITE_QUEUES', '0'))):
            RemoteManager.register('%s_%d_%d' % (kind, maxsize, n))


def remote_manager():
    manager = RemoteManager(address=(common.HOST, common.PORT), authkey=common.KEY)
    manager.connect()
    return manager


def check_names(cls, wanted):
    """Nobody adds a test to CPython without this file knowing."""
    unknown = [n for n in dir(cls) if n.startswith('test_') and n not in wanted and n not in LEFT_OUT]
    if unknown:
        raise RuntimeError('%s has tests that are neither wanted nor left out: %s' % (cls.__name__, unknown))
    missing = [n for n in wanted if not hasattr(cls, n)]
    if missing:
        raise RuntimeError('%s lacks %s' % (cls.__name__, missing))


# ---- test._test_multiprocessing ----

check_names(_test_multiprocessing._TestQueue, WANTED_OF_PROCESSES)


class ProcessQueueTest(_test_multiprocessing._TestQueue, unittest.TestCase):
    TYPE = 'manager'
    ALLOWED_TYPES = ('manager',)
    Process = multiprocessing.Process
    Event = multiprocessing.Event  # of this machine: the server has queues only

    @classmethod
    def setUpClass(cls):
        cls.manager = remote_manager()
        cls.Queue = cls.manager.Queue
        cls.JoinableQueue = cls.manager.JoinableQueue

    @classmethod
    def tearDownClass(cls):
        gc.collect()
        left = cls.manager._number_of_objects()
        assert left == 0, cls.manager._debug_info()


for name in LEFT_OUT:
    if hasattr(ProcessQueueTest, name):
        setattr(ProcessQueueTest, name, None)


class ManagerTypesTest(_test_multiprocessing.TestSyncManagerTypes
                       if hasattr(_test_multiprocessing, 'TestSyncManagerTypes') else unittest.TestCase):

    def setUp(self):
        self.manager = remote_manager()
        self.proc = None

    def wait_proc_exit(self):  # the original counts the manager's own process among the children
        self.proc.join()


for name in dir(ManagerTypesTest):
    if name.startswith('test_') and name not in WANTED_OF_MANAGERS:
        setattr(ManagerTypesTest, name, None)


# ---- test.test_queue ----

class RemoteQueue:
    """The proxy, under the name by which the tests know a kind, and with the maxsize they remember."""
    numbers = itertools.count()

    def __init__(self, maxsize=0):
        self.maxsize = maxsize
        self.proxy = self.make(maxsize)

    def make(self, maxsize):
        return MANAGER.Queue(maxsize)

    def __getattr__(self, name):
        return getattr(self.proxy, name)


class Declared(RemoteQueue):
    """Kinds that no factory makes: each test takes the next of those that the server was given."""

    def make(self, maxsize):
        return getattr(MANAGER, '%s_%d_%d' % (self.kind, maxsize, next(self.numbers)))()


class QueueTest(test_queue.BaseQueueTestMixin, unittest.TestCase):
    queue = queue  # of 3.7 and later
    type2test = type('Queue', (RemoteQueue,), {})

    def setUp(self):
        super().setUp()
        global MANAGER
        MANAGER = remote_manager()


class LifoQueueTest(QueueTest):
    type2test = type('LifoQueue', (Declared,), {'kind': 'lifo', 'numbers': itertools.count()})


class PriorityQueueTest(QueueTest):
    type2test = type('PriorityQueue', (Declared,), {'kind': 'priority', 'numbers': itertools.count()})


for kind in (QueueTest, LifoQueueTest, PriorityQueueTest):
    for name in dir(kind):
        if name.startswith('test_') and (name in LEFT_OUT or (name in FIFO_ONLY and kind is not QueueTest)):
            setattr(kind, name, None)
del kind  # else its tests are loaded twice


if __name__ == '__main__':
    unittest.main()
