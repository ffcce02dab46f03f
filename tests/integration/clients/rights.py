"""Tries what its key may do. usage: rights.py (TYPEID | manager).METHOD[=TEXT]...; each tells "ok VALUE" or what was
raised."""
import sys
from multiprocessing.managers import RemoteError

import common

calls = [argument.partition('.')[::2] for argument in sys.argv[1:]]
m = common.connect('Queue', *{name for name, _ in calls if name != 'manager'})


def tell(call, what, value):
    common.say(call, what, ' '.join(str(value).split()))


for name, rest in calls:
    method, _, text = rest.partition('=')
    try:
        target = m if name == 'manager' else getattr(m, name)()
        value = getattr(target, method)(*([text] if text else []))
    except RemoteError as error:  # its text is a remote traceback between two rules
        last = str(error).strip().strip('-').strip().splitlines()[-1]
        tell(name + '.' + method, 'RemoteError', last)
    except PermissionError as error:
        assert type(error) is PermissionError and error.args == (str(error),)
        tell(name + '.' + method, 'PermissionError', error)
    except Exception as error:
        tell(name + '.' + method, type(error).__name__, error)
    else:
        tell(name + '.' + method, 'ok', value)
