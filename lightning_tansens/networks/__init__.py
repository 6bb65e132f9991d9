"""How a network is read: its call, its outputs, its evaluation mode, the trace of its layers and its memory."""
