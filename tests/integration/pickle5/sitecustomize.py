"""Makes this interpreter's managers write pickles of protocol 5, as CPython 3.14 does."""
import io
from multiprocessing import reduction


def dumps(cls, obj, protocol=5):
    buf = io.BytesIO()
    cls(buf, protocol).dump(obj)
    return buf.getbuffer()


reduction.ForkingPickler.dumps = classmethod(dumps)
