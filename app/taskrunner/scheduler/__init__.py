"""Role 2, the office: claims due tasks for free slots, streams them to workers, settles outcomes, does the upkeep."""
