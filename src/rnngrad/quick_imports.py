"""Imported first by the process that imports everything for the workers, see `rnngrad.workers`.

What is imported stays: looking through it for garbage again and again takes a tenth of the time.
The workers take it out of the collector's sight and turn the collector on again (Python's manual,
``gc.freeze``).
"""

import gc
import os
import time
from threading import Thread


def end_with_the_main_process() -> None:
    """Importing torch takes seconds: too long for a process whose parent was killed."""
    main = int(os.environ["RNNGRAD_MAIN_PROCESS"])
    while os.getppid() == main:
        time.sleep(0.2)
    os._exit(1)


gc.disable()
Thread(target=end_with_the_main_process, daemon=True).start()
