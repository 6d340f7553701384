"""Imported first by the process that imports everything for the workers, see `rnngrad.workers`.

What is imported stays: looking through it for garbage again and again takes a tenth of the time.
The workers take it out of the collector's sight and turn the collector on again (Python's manual,
``gc.freeze``).
"""

import gc
import os
from threading import Thread

from rnngrad.stage import end_with

gc.disable()
# importing torch takes seconds: too long for a process whose parent was killed
main = int(os.environ["RNNGRAD_MAIN_PROCESS"])
Thread(target=end_with, args=(main,), daemon=True).start()
