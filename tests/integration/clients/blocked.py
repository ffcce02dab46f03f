"""Sits in a call until it is killed or interrupted. usage: blocked.py get|timeout|put|join|hold|interrupted-..."""
import signal
import sys

import common

m = common.connect('get_task_queue', 'get_result_queue', 'small')
task, result, small = m.get_task_queue(), m.get_result_queue(), m.small()


def calls(what):
    if what == 'get':
        return task.get
    if what == 'timeout':
        return lambda: task.get(timeout=500)
    if what == 'put':
        return lambda: small.put('swallowed')
    if what == 'join':
        return task.join
    raise ValueError(what)


what = sys.argv[1]
task.qsize()  # the session is there
if what == 'hold':
    common.say('took', task.get())
    common.hear()
elif what.startswith('interrupted-'):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in this process's parent
    for turn in range(3):
        try:
            common.say('blocks')
            calls(what[12:])()
        except KeyboardInterrupt:
            common.say('interrupted')
        else:
            raise AssertionError('not interrupted')
        for n in range(5):  # each answer belongs to its call
            result.put((turn, n))
            assert result.qsize() == 1
            assert result.get() == (turn, n)
            assert task.empty() is (what != 'interrupted-join')
    common.say('in step')
    common.hear()
else:
    common.say('blocks')
    calls(what)()
    raise AssertionError('not blocked')
