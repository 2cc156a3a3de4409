"""Built-in tasks, written with the sdk like any user's: ``webhook`` and ``email``.

Imports sdk, settings and domain. Never the store or another role: a handler runs where the worker runs.
"""
