"""Takes an item of `jobs` and ends. usage: acknowledge.py exit|next|thread|done|die"""
import sys
import threading

import common

m = common.connect('jobs', 'get_result_queue')
jobs, result = m.jobs(), m.get_result_queue()
end = sys.argv[1]


def take():
    common.say('took', jobs.get())


if end == 'thread':
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
else:
    take()
if end == 'next':
    result.put('a result')
    assert result.get() == 'a result'
if end == 'done':
    jobs.task_done()
common.hear()
