"""The process that imports everything for workers imports this first, to end with the main one.

Importing torch takes seconds: too long for a process whose parent was killed.
"""

import os
from threading import Thread

from rnngrad.stage import end_with

main = int(os.environ["RNNGRAD_MAIN_PROCESS"])
Thread(target=end_with, args=(main,), daemon=True).start()
