"""Puts and gets without a pause until it is told to end; any error ends it badly. usage: steady.py TYPEID"""
import sys
import threading

import common

m = common.connect(sys.argv[1])
q = getattr(m, sys.argv[1])()
told = threading.Event()


def listen():
    common.hear()
    told.set()


threading.Thread(target=listen, daemon=True).start()
common.say('steady')
rounds = 0
while not told.is_set():
    q.put(rounds)
    assert q.get(timeout=20) == rounds
    rounds += 1
    if rounds % 50 == 0:  # connections of their own, too
        assert getattr(m, sys.argv[1])().qsize() == 0
common.say('rounds', rounds)
