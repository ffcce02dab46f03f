"""items.py's list through Python's own server, which must be able to import what passes through it: the
classes of items.py are loaded there as a module by the path that both share."""
import sys

import common
import items

if __name__ == '__main__':
    name = sys.argv[1]
    q = getattr(common.connect(name), name)()
    for n, (what, item, check) in enumerate(items.all_checks()):
        items.ways(q, n, item)
        items.verify(what, item, check, q.get())
    items.own()
