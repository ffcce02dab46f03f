"""put N: items of many kinds into task_queue; get N: takes them, and says of each whether it is what was put."""
import sys

import common


class Point(object):
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)


def item(n):
    return [n, 'text %d' % n, b'bytes', (1.5, None), {'n': n, 'set': {n}}, Point(n, -n), 'x' * (1000 * n)][n % 7]


verb, count = sys.argv[1], int(sys.argv[2])
queue = common.connect('get_task_queue').get_task_queue()
for n in range(count):
    if verb == 'put':
        queue.put(item(n))
    elif queue.get(timeout=30) != item(n):
        sys.exit('item %d is another one' % n)
common.say(verb, count, queue.qsize())
