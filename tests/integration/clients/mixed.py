"""Evaluates the lines of its stdin with the queues that its arguments name, and tells what came of each, until the
end. usage: mixed.py QUEUE..."""
import datetime
import decimal
import queue
import sys
import threading

import common

m = common.connect(*sys.argv[1:])
names = {name: getattr(m, name)() for name in sys.argv[1:]}
names.update(datetime=datetime, decimal=decimal, queue=queue, threading=threading)


def squares(tasks, results, count):
    """The worker of the example."""
    for _ in range(count):
        n = tasks.get(timeout=60)
        results.put(n * n)
    return count


def numbers(tasks, results, count):
    """The producer and collector of the example; its sum says whether all came back."""
    for n in range(count):
        tasks.put(n)
    return sum(results.get(timeout=60) for _ in range(count))


names.update(squares=squares, numbers=numbers)
common.say('here')
while True:
    line = common.hear()
    if line is None:
        break
    try:
        common.say('=', ascii(eval(line, names)))
    except Exception as error:
        common.say('!', type(error).__name__, ascii(str(error)))
