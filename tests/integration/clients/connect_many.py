"""Time of 20 connect()s in one process, the best of three rounds, as 'seconds S'."""
import time

import common

m = common.connect()
best = None
for _ in range(3):
    start = time.monotonic()
    for _ in range(20):
        m.connect()
    taken = time.monotonic() - start
    best = taken if best is None else min(best, taken)
common.say('seconds %.3f' % best)
