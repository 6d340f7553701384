"""Imported first by the process that imports everything for the workers, see `rnngrad.workers`.

What is imported stays: looking through it for garbage again and again takes a tenth of the time.
The workers freeze it and turn the collector on again, as Python's manual of ``gc.freeze`` says.
"""

import gc
import os
from threading import Thread

from rnngrad.stage import end_with

gc.disable()
# importing torch takes seconds: too long for a process whose parent was killed
main = int(os.environ["RNNGRAD_MAIN_PROCESS"])
Thread(target=end_with, args=(main,), daemon=True).start()
