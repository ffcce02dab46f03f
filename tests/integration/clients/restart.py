"""Keeps its proxies over a restart of the server; each call in a thread of its own."""
import queue
import threading

import common


def in_thread(function):
    box = queue.Queue()

    def run():
        try:
            box.put(('good', function()))
        except BaseException as error:  # told to the test
            box.put(('bad', repr(error)))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    common.say(*box.get())


m = common.connect('get_task_queue', 'get_result_queue')
task, result = m.get_task_queue(), m.get_result_queue()
in_thread(lambda: task.put('before'))
common.hear()
in_thread(lambda: task.put('after'))
in_thread(lambda: task.get())
in_thread(lambda: result.qsize())
in_thread(lambda: m.connect())
