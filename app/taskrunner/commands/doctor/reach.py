"""What answers, and what does not: schedulers and the API."""

from taskrunner.client import ApiError, Client, Unreachable
from taskrunner.commands.doctor.finding import Finding, Patient, critical, note, warning
from taskrunner.commands.words import UNAUTHORIZED, sentence
from taskrunner.health import NEAR, schedulers_behind

FORBIDDEN = 403


async def schedulers(patient: Patient) -> list[Finding]:
    """Each that SCHEDULER_ADDRESS names answers; without it, the one on this machine, or one that listens at the database."""
    settings = patient.settings
    named = settings.scheduler_address
    near = f"{NEAR.get(settings.scheduler_host, settings.scheduler_host)}:{settings.scheduler_port}"
    asked = await schedulers_behind(named or ((near,) if settings.scheduler_port else ()), settings)
    silent = {address: trouble for address, trouble in asked.items() if trouble}
    (listening,) = await patient.database.ask("doctor_listeners")
    if len(silent) < len(asked) or (not named and listening.n):
        silent = silent if named else {}
        remedy = "start it, look at its log, or take it out of SCHEDULER_ADDRESS"
        return [warning(f"the scheduler {address} does not serve: {trouble}", remedy) for address, trouble in silent.items()]
    if settings.pgbouncer and not named:  # nobody listens, and whose a connection is cannot be told
        return [
            warning(f"no scheduler serves on {near}, and others cannot be seen behind PgBouncer", "set SCHEDULER_ADDRESS to where they are")
        ]
    what = "; ".join(f"{address}: {trouble}" for address, trouble in silent.items()) or "none listens at the database"
    remedy = "start one: taskrunner --roles=scheduler; or set SCHEDULER_ADDRESS to where they are"
    return [critical(f"no scheduler was found ({what}): without one nothing is claimed, settled or kept up", remedy)]


async def api(patient: Patient) -> list[Finding]:
    """It answers at TASKRUNNER_API_URL, and takes our token."""
    settings = patient.settings
    url, token = settings.api_url, settings.api_token.get_secret_value() if settings.api_token else None
    try:
        async with Client(url, token=token, retries=0, timeout=3.0) as client:
            await client.ready()
            await client.workers()
    except ValueError as error:
        return [warning(str(error), "correct it")]
    except Unreachable as error:
        if "api_url" not in settings.model_fields_set:
            return [note(f"no API answers at {url}", "set TASKRUNNER_API_URL to where it is, so that doctor looks there")]
        return [warning(sentence(error), "start it, or correct TASKRUNNER_API_URL")]
    except ApiError as error:
        if error.status in (UNAUTHORIZED, FORBIDDEN):
            return [note(f"the API at {url} refuses us: {error}", "set TASKRUNNER_API_TOKEN to a token with the scope read")]
        return [critical(f"the API at {url} is not ready: {error}", "look at its log, and at the database")]
    return []
