"""Base classes by which the command line of ``pytorch_lightning``, whose classes are others, knows the callbacks too.

They are there only in a program that has imported ``pytorch_lightning`` before; it is never imported for them.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    OtherCallback = object
    OtherCheckpoint = object
else:
    _callbacks = sys.modules.get("pytorch_lightning.callbacks")
    OtherCallback = getattr(_callbacks, "Callback", object)
    OtherCheckpoint = getattr(_callbacks, "Checkpoint", object)
