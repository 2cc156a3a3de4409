"""Asyncio bricks that know nothing of tasks. Imports nothing of ours."""
