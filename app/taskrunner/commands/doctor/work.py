"""The tasks and the workers."""

from taskrunner.commands.doctor.finding import Finding, Patient, critical, note, warning
from taskrunner.commands.words import are, clean, span, tasks

SILENT = 0.6  # of a lease: three beats that did not come
SCHEDULERS = "see that a scheduler runs, and what it logs"
HELD = {
    "left": ("held by workers that are gone", SCHEDULERS),
    "disobedient": ("to be cancelled, whose workers do not obey", SCHEDULERS),
    "overtime": (
        "running for longer than the timeout, whose handlers cannot be stopped",
        "a blocking handler: use isolation='process', or restart its worker (taskrunner worker list)",
    ),
}


async def backlog(patient: Patient) -> list[Finding]:
    """What is due is served, and soon."""
    limits, found = patient.limits, []
    for row in await patient.database.ask("doctor_backlog", seconds=min(limits.unserved, limits.stuck)):
        words = (
            f"{tasks(row.n)} of type {clean(row.task_type)} in queue {clean(row.queue)} {are(row.n)} due, the first for {span(row.seconds)}"
        )
        if row.closed:
            continue  # that is what `paused` is about
        if not row.served and row.seconds >= limits.unserved:
            remedy = "start a worker whose handlers have this type and whose TASKRUNNER_QUEUES have this queue, or cancel them"
            found.append(warning(f"{words}, and no worker handles them", remedy))
        elif row.served and row.seconds >= limits.stuck:
            if row.free:
                found.append(critical(f"{words}, although workers have free slots", f"{SCHEDULERS}; restart it"))
            else:
                found.append(warning(f"{words}: every slot is taken", "start more workers, or raise TASKRUNNER_SLOTS"))
    return found


async def paused(patient: Patient) -> list[Finding]:
    """Nothing waits because somebody forgot a pause."""
    found = []
    for row in await patient.database.ask("doctor_gates"):
        name = clean(row.name)
        words = f"the {row.scope} {name} is " + ("paused" if row.seconds is None else f"closed for another {span(row.seconds)}")
        remedy = f"taskrunner {row.scope} resume {name}"
        found.append(warning(f"{words}, and {tasks(row.n)} {are(row.n)} due in it", remedy) if row.n else note(words, remedy))
    return found


async def held(patient: Patient) -> list[Finding]:
    """Whoever holds a task is there, and stops when it must."""
    limits = {"seconds": patient.limits.held, "cancel_grace": patient.settings.cancel_grace}
    found = []
    for row in await patient.database.ask("doctor_held", **limits):
        words, remedy = HELD[row.why]
        found.append(critical(f"{tasks(row.n)} {words}, for {span(row.seconds)} at the longest, such as {row.example}", remedy))
    return found


async def workers(patient: Patient) -> list[Finding]:
    """There are some, and they beat."""
    sessions = await patient.database.ask("doctor_sessions")
    if not sessions:
        due = sum(row.n for row in await patient.database.ask("doctor_backlog", seconds=0))
        remedy = "start one: SCHEDULER_ADDRESS=… taskrunner --roles=worker --handlers=…"
        return [
            critical(f"no worker is connected, and {tasks(due)} {are(due)} due", remedy)
            if due
            else warning("no worker is connected", remedy)
        ]
    found = []
    for row in sessions:
        who = f"the worker {clean(row.name) or row.session}"
        if row.beat >= SILENT * patient.settings.lease:
            words = f"{who} has been silent for {span(row.beat)} of its lease of {span(patient.settings.lease)}; it holds {tasks(row.held)}"
            found.append(warning(words, "look at its machine and at the network between; without a beat its tasks start again elsewhere"))
        if row.draining is not None and row.draining >= patient.limits.draining:
            words = f"{who} has been draining for {span(row.draining)} and holds {tasks(row.held)}"
            found.append(warning(words, "wait for them, cancel them, or end the process: what it holds starts again elsewhere"))
    return found
