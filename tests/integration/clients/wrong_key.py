"""connect() with a wrong key: tells the exception."""
from multiprocessing import AuthenticationError

import common

try:
    common.connect()
except AuthenticationError as error:
    common.say('refused:', error)
