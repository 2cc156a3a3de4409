"""Built-in tasks, written with the sdk like any user's: ``webhook`` and ``email``."""
