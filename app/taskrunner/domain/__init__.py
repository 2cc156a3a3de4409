"""What a task is and how it lives: pure values and rules. No I/O, no asyncio, no clock; imports nothing of ours."""
