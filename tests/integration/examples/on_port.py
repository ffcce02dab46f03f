"""Runs one of the two programs beside this file, unmodified, but on another address than its own.

usage: on_port.py PROGRAM [PORT]     port 0, the default, is any free one; a server's is printed first
"""
import runpy
import sys
from multiprocessing import managers

program = sys.argv[1]
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
init = managers.BaseManager.__init__
start = managers.BaseManager.start


def init_on_port(self, address=None, *args, **kwds):
    init(self, ('127.0.0.1', port), *args, **kwds)


def start_and_tell(self, *args, **kwds):
    start(self, *args, **kwds)
    print('listening on %s:%d' % self.address)


managers.BaseManager.__init__ = init_on_port
managers.BaseManager.start = start_and_tell
sys.argv = [program]
runpy.run_path(program, run_name='__main__')
